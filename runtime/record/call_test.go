package record

import (
	"reflect"
	"testing"
)

func TestCalled(t *testing.T) {
	e := &Entry{Flow: "default/f", Stage: "deliver", Class: Rejected, Code: 422, Message: "POST x: status 422: no", Input: Record{Topic: "in", Offset: 4}, Attempts: 3}
	if e.Called() != e {
		t.Error("an entry without a call is another one")
	}
	e.Call = &Call{Stage: "deliver.validate", Plugin: "p@1", Digest: "sha256:a", Class: Fuel, Code: 7, Message: "no", Input: Record{Value: []byte("v")},
		InputOmitted: true, InputHash: 9, Replay: &Replay{BatchID: 3}, NoReplay: "x", Setting: &Setting{Lines: "each"}}
	want := &Entry{Flow: "default/f", Attempts: 3, Stage: "deliver.validate", Plugin: "p@1", Digest: "sha256:a", Class: Fuel, Code: 7, Message: "no", Input: Record{Value: []byte("v")},
		InputOmitted: true, InputHash: 9, Replay: e.Call.Replay, NoReplay: "x", Setting: e.Call.Setting}
	if got := e.Called(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if e.Stage != "deliver" || e.Call == nil {
		t.Error("the entry itself was changed")
	}
}

func TestSizesOfCalls(t *testing.T) {
	var none *Call
	if none.Size() != 0 || (*Replay)(nil).Size() != 0 {
		t.Error("what is not there has a size")
	}
	small := (&Call{}).Size()
	for name, c := range map[string]*Call{
		"input": {Input: Record{Value: make([]byte, 1000)}}, "message": {Message: string(make([]byte, 1000))}, "hidden": {Hidden: []string{string(make([]byte, 1000))}},
		"logs": {Replay: &Replay{Logs: []string{string(make([]byte, 1000))}}}, "signatures": {Replay: &Replay{Signatures: []Signature{{Signature: make([]byte, 1000)}}}},
	} {
		if n := c.Size() - small; n < 1000 || n > 1200 {
			t.Errorf("%s of 1000 bytes counts %d", name, n)
		}
	}
}
