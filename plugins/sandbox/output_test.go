package sandbox

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/plugins/internal/testkit"
	"github.com/millrace-io/millrace/runtime/record"
)

// TestOutputIsKept: what a run wrote stays as it was, whatever the later runs
// of the same program write.
func TestOutputIsKept(t *testing.T) {
	rt := open(t, Config{Workers: 1})
	m := compile(t, rt, testkit.Read(t, copyWasm))
	for _, lines := range []string{LinesEach, LinesBatch} {
		t.Run(lines, func(t *testing.T) {
			s := newStage(t, m, StageConfig{Stage: "s", Lines: lines})
			var kept []*record.Results
			var want [][]byte
			for i, n := range []int{10, 3000, 3100, 1, 2900, 0, 70_000, 20, 70_000} {
				value := bytes.Repeat([]byte{'a' + byte(i)}, n)
				kept, want = append(kept, testkit.Process(t, s, testkit.Batch(string(value)))), append(want, value)
			}
			for i, out := range kept {
				if len(out.Emits) != 1 || !bytes.Equal(out.Emits[0].Record.Value, want[i]) {
					t.Errorf("run %d of %d bytes is no longer what it wrote", i, len(want[i]))
				}
			}
			if st := s.Stats(); st.Restores == 0 {
				t.Errorf("got %+v, want a program that was brought back", st)
			}
		})
	}
}

func TestOutputLimit(t *testing.T) {
	var o output
	o.begin([]byte("before"))
	if _, err := o.Write(make([]byte, maxOutputBytes)); err == nil || !o.over {
		t.Errorf("got %v, want the limit", err)
	}
	o.begin(nil)
	if n, err := o.Write([]byte("after")); n != 5 || err != nil || o.over || string(o.take()) != "after" {
		t.Errorf("got %d, %v, over %v, want a new beginning", n, err, o.over)
	}
}

// TestOutputTooLarge: a record that may cost enough meets the limit of output.
func TestOutputTooLarge(t *testing.T) {
	rt := open(t, Config{Workers: 1, MaxMemoryBytes: 256 << 20})
	s := newStage(t, compile(t, rt, testkit.Read(t, copyWasm)), StageConfig{Stage: "s"})
	out := testkit.Process(t, s, testkit.Batch(string(bytes.Repeat([]byte{'a'}, maxOutputBytes+1)), "short"))
	if len(out.Failures) != 1 || out.Failures[0].Err.Class != record.TooLarge || len(out.Emits) != 1 {
		t.Errorf("got %d emissions and failures %+v, want the long one too large", len(out.Emits), out.Failures)
	}
}

// TestOutputMoves: a long output is moved a few times only as it grows.
func TestOutputMoves(t *testing.T) {
	var o output
	o.begin(nil)
	moves, room := 0, 0
	for range maxOutputBytes >> 12 {
		if _, err := o.Write(make([]byte, 4<<10)); err != nil {
			t.Fatal(err)
		}
		if cap(o.b) != room {
			moves, room = moves+1, cap(o.b)
		}
	}
	if len(o.b) != maxOutputBytes || cap(o.b) != maxOutputBytes || moves > 13 {
		t.Errorf("%d bytes have %d of room after %d moves", len(o.b), cap(o.b), moves)
	}
}

// TestLinesBatchPaths: the emissions of a run differ in their paths, beyond
// those that are made once for all.
func TestLinesBatchPaths(t *testing.T) {
	rt := open(t, Config{Workers: 1})
	s := newStage(t, compile(t, rt, testkit.Read(t, copyWasm)), StageConfig{Stage: "s", Lines: LinesBatch})
	var values []string
	for i := range 1500 {
		values = append(values, fmt.Sprint(i))
	}
	for _, parent := range []record.Path{"", record.Path("\x00\x07")} {
		b := testkit.Batch(values...)
		s.perRecord.Store(1) // ns: the whole batch is one call
		b.Records[0].Path = parent
		out := testkit.Process(t, s, b)
		if len(out.Emits) != len(values) {
			t.Fatalf("%d emissions, want %d", len(out.Emits), len(values))
		}
		for k, e := range out.Emits {
			want, err := parent.Child(k)
			if err != nil || e.Record.Path != want || string(e.Record.Value) != values[k] {
				t.Fatalf("emission %d: path %v, value %q, want %v, %q (%v)", k, e.Record.Path, e.Record.Value, want, values[k], err)
			}
		}
	}
}

// TestLoggedRecord: the log of the node says which record a line is about,
// where that is known.
func TestLoggedRecord(t *testing.T) {
	var log bytes.Buffer
	o := NewOutlet(&StageConfig{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key != "line" && a.Key != "record" {
			return slog.Attr{}
		}
		return a
	}}))})
	all := testkit.Batch("a", "b").Records
	for _, c := range []struct {
		of      int
		records []record.Record
		want    string
	}{
		{1, all, "line=x record=" + all[1].ID()}, {-1, all, "line=x"}, {2, all, "line=x"}, {-1, all[:1], "line=x record=" + all[0].ID()}, {-1, nil, "line=x"},
	} {
		var w World
		w.Begin(0, 1)
		w.addLine(slog.LevelInfo, c.of, []byte("x"))
		log.Reset()
		o.Tell(t.Context(), &w, c.records, false)
		if got := strings.TrimSpace(log.String()); got != c.want {
			t.Errorf("%d of %d: got %q, want %q", c.of, len(c.records), got, c.want)
		}
	}
}
