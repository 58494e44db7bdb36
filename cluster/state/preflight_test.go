package state

import (
	"encoding/hex"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func genPreflight(t *rapid.T) *Preflight {
	return rapid.SampledFrom([]*Preflight{nil, {Skipped: true}, {Records: 10, Differ: 2, NewFailures: 1, Accepted: "yes"}}).Draw(t, "preflight")
}

// TestFormsWithoutPreflight reads what programs wrote that knew of none.
func TestFormsWithoutPreflight(t *testing.T) {
	const pin = "aa0100000000000000000000000000000000000000000000000000000000000005312e302e30"
	for name, tt := range map[string]struct {
		hex  string
		want Command
	}{
		"FlowPut": {"05010764656661756c74066f7264657273000000000000002a09666c6f773a2076310a027b7d0105312d6d6170" + pin + "01046d61696e04010a027231",
			&FlowPut{Project: "default", Name: "orders", UID: 42, Document: []byte("flow: v1\n"), Resolved: []byte("{}"), Pins: []Pin{{"1-map", digestA, "1.0.0"}},
				Connections: []string{"main"}, Slots: 4, IfMatch: 1, At: 5, RequestID: "r1"}},
		"Activate": {"1401070105312d6d6170" + pin + "16027232", &Activate{Flow: 7, Pins: []Pin{{"1-map", digestA, "1.0.0"}}, At: 11, RequestID: "r2"}},
	} {
		b, err := hex.DecodeString(tt.hex)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := DecodeCommand(b); err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, tt.want)
		}
	}
	b, err := hex.DecodeString("01060508666c6f773a207631027b7d0105312d6d6170" + pin + "01046d61696e")
	if err != nil {
		t.Fatal(err)
	}
	want := &Revision{Flow: 7, Number: 4, Document: []byte("flow: v1"), Resolved: []byte("{}"), Pins: []Pin{{"1-map", digestA, "1.0.0"}}, Connections: []string{"main"}, At: 3, Deploy: 5}
	if got, err := decodeRevision(7, 4, b); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("revision: got %+v, %v, want %+v", got, err, want)
	}
}

func TestRevisionTellsOfItsPreflight(t *testing.T) {
	f := newFixture(t)
	for _, d := range []Digest{digestA, digestB} {
		accept[*Plugin](f, &PluginPut{Digest: d, Namespace: "default", Name: "p" + d.String()[7:9], Version: "1.0.0", Size: 1, At: 1})
	}
	put := accept[*FlowPutResult](f, &FlowPut{Project: "default", Name: "f", UID: 1, Document: []byte("d"), Pins: []Pin{{"1-map", digestA, "1.0.0"}}, At: 1, Preflight: &Preflight{Skipped: true}})
	told := &Preflight{Records: 1000, Differ: 12, NewFailures: 3, Accepted: "max-diff 2%"}
	accept[*FlowPutResult](f, &Activate{Flow: put.Flow, Pins: []Pin{{"1-map", digestB, "1.0.0"}}, At: 2, Preflight: told})
	accept[*FlowPutResult](f, &Activate{Flow: put.Flow, Pins: []Pin{{"1-map", digestA, "1.0.0"}}, At: 3})
	for number, want := range []*Preflight{{Skipped: true}, told, nil} {
		rev, err := f.s.FlowRevision(put.Flow, uint32(number+1))
		if err != nil || rev == nil || !reflect.DeepEqual(rev.Preflight, want) {
			t.Errorf("revision %d: got %+v, %v, want %+v", number+1, rev, err, want)
		}
	}
	long := &Preflight{Accepted: strings.Repeat("x", 256)}
	f.refused(&Activate{Flow: put.Flow, Pins: []Pin{{"1-map", digestB, "1.0.0"}}, At: 4, Preflight: long}, Invalid, "255 bytes")
	f.refused(&FlowPut{Project: "default", Name: "g", At: 4, Preflight: long}, Invalid, "255 bytes")
}
