package pipeline

import (
	"bytes"
	"testing"

	"github.com/millrace-io/millrace/runtime/record"
)

// TestCallsOfEntriesAreBounded: what a plugin got that signs or validates is
// kept up to the bound of inputs, and counts in a commit.
func TestCallsOfEntriesAreBounded(t *testing.T) {
	for _, c := range []struct{ keep, size int }{{0, 1000}, {0, record.MaxCallInput}, {3 << 20, record.MaxCallInput}, {1000, 1000}} {
		l := newLane(New(Config{KeepInput: c.keep}, nil, Linear(0, nil, pushInfo), only(nil)), LaneConfig{})
		call := &record.Call{Stage: "deliver.sign", Replay: &record.Replay{BatchID: 7}, Input: record.Record{Value: bytes.Repeat([]byte("x"), c.size), Headers: []record.Header{{Key: ":method", Value: []byte("POST")}}}}
		err := record.Errorf(record.Rejected, "no")
		err.Call = call
		e := l.entry(l.course, &StageInfo{ID: "deliver"}, &record.Record{Value: []byte("v")}, record.Failure{Err: err})
		if over := c.size >= 1000 && c.keep == 1000 || c.size == record.MaxCallInput; e.Call == nil || e.Call.InputOmitted != over || over != (e.Call.Input.Value == nil) || over != (e.Call.InputHash != 0) || over != (e.Call.Input.Headers == nil) || e.Call.Replay == nil {
			t.Errorf("of %d bytes, %d kept: %+v", c.size, c.keep, e.Call)
		}
		if entrySize(e) < e.Call.Size() {
			t.Errorf("entry of %d bytes, its call has %d", entrySize(e), e.Call.Size())
		}
		if len(call.Input.Value) != c.size {
			t.Error("the call itself was changed")
		}
	}
}

// TestLargeParcelsLoseCalls: what no command could hold loses calls before it
// loses inputs.
func TestLargeParcelsLoseCalls(t *testing.T) {
	var p parcel
	for range 20 {
		p.file(&record.Entry{Input: record.Record{Value: []byte("v")}, Call: &record.Call{Input: record.Record{Value: make([]byte, record.MaxCallInput)}}})
	}
	p.shrink()
	gone := 0
	for _, e := range p.failures {
		if e.Call == nil {
			gone++
		}
	}
	if p.bytes > maxParcel || gone == 0 || gone == 20 {
		t.Errorf("%d bytes, %d of 20 calls gone", p.bytes, gone)
	}
}
