package pdktest

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

const goJT808 = "../examples/jt808/jt808.wasm"

// envelopes reads a file of records of the example jt808.
func envelopes(t *testing.T, file string) []record.Record {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(repo, "examples", "jt808", file))
	if err != nil {
		t.Fatal(err)
	}
	var all []record.Record
	for line := range bytes.Lines(data) {
		r, err := record.ParseEnvelope(line)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// The plugin that is kept beside the example's source turns its input into its
// output, in the sandbox.
func TestJT808(t *testing.T) {
	s := newStage(t, newRuntime(t), goJT808, sandbox.StageConfig{})
	in, want := envelopes(t, "in.ndjson"), envelopes(t, "out.ndjson")
	out := runRecords(t, s, in...)
	if len(out.Emits) != len(want) || len(want) != 8 {
		t.Fatalf("%d emits of %d", len(out.Emits), len(want))
	}
	for i, e := range out.Emits {
		if !bytes.Equal(e.Record.Value, want[i].Value) || !bytes.Equal(e.Record.Key, want[i].Key) {
			t.Errorf("record %d: got %s %s\nwant %s %s", i, e.Record.Key, e.Record.Value, want[i].Key, want[i].Value)
		}
	}
	if len(out.Failures) != 1 || out.Failures[0].In != 8 || out.Failures[0].Err.Code != 2 || out.Failures[0].Err.Message != "the checksum is 0xbe, the bytes give 0xbf" {
		t.Errorf("failures %+v", out.Failures)
	}
}

// No frame, however damaged, makes the plugin trap.
func TestJT808OnDamage(t *testing.T) {
	s := newStage(t, newRuntime(t), goJT808, sandbox.StageConfig{})
	var records []record.Record
	for _, r := range envelopes(t, "in.ndjson") {
		for i := range r.Value {
			for _, c := range []byte{0, 0x7d, 0x7e, 0xff} {
				bad := r
				bad.Value = bytes.Clone(r.Value)
				bad.Value[i] = c
				records = append(records, bad)
			}
			short := r
			short.Value = r.Value[:i]
			records = append(records, short)
		}
	}
	out := runRecords(t, s, records...)
	if len(out.Emits)+len(out.Failures) != len(records) || len(out.Failures) < 1000 {
		t.Fatalf("%d records, %d emits, %d failures", len(records), len(out.Emits), len(out.Failures))
	}
	for _, f := range out.Failures {
		if f.Err.Class != record.Rejected || f.Err.Code < 1 || f.Err.Code > 4 {
			t.Fatalf("%s: got %v", hex.EncodeToString(records[f.In].Value), f.Err)
		}
	}
}
