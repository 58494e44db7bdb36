package pdktest

import (
	"slices"
	"testing"

	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

// A line of a stage names its record, in a call of several too.
func TestLogLinesNameTheirRecord(t *testing.T) {
	for _, file := range []string{goConformance, asConformance} {
		t.Run(file, func(t *testing.T) {
			var got []string
			s := newStage(t, newRuntime(t), file, sandbox.StageConfig{OnLog: func(l sandbox.LogLine) {
				of := "nobody"
				if l.Of >= 0 {
					of = string(l.Records[l.Of].Value)
				}
				if len(l.Records) != 4 {
					t.Errorf("%q: a call of %d records, want 4", l.Text, len(l.Records))
				}
				got = append(got, l.Level.String()+" "+l.Text+" of "+of)
			}})
			want := []string{"INFO one of a", "ERROR two of b", "DEBUG three of b", "WARN four of d"}
			records := []record.Record{act("log info one; pass", "a"), act("log error two; log debug three; pass", "b"), act("pass", "c"), act("log warn four; pass", "d")}
			// Twice: what the first call leaves behind is not in the second.
			for range 2 {
				got = nil
				if out := runRecords(t, s, records...); len(out.Emits) != len(records) {
					t.Fatalf("%d emits, failures %v", len(out.Emits), out.Failures)
				}
				if !slices.Equal(got, want) {
					t.Errorf("got %q, want %q", got, want)
				}
			}
		})
	}
}
