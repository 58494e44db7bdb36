package sandbox

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/plugins/internal/testkit"
	"github.com/millrace-io/millrace/runtime/record"
)

func TestLines(t *testing.T) {
	rt := open(t, Config{})
	s := stageOf(t, rt, linesWasm, StageConfig{Stage: "s"})
	b := testkit.Batch("abc", "a secret", "error: x", "two\nlines", "", "déf")
	out := testkit.Process(t, s, b)
	var got []string
	for _, e := range out.Emits {
		got = append(got, fmt.Sprintf("%d %s %s %s=%s %d", e.In, e.Record.Key, e.Record.Value, e.Record.Headers[0].Key, e.Record.Headers[0].Value, e.Record.Timestamp))
	}
	if want := []string{"0 k ABC h=v 1700000000000", "4 k  h=v 1700000000000", "5 k DÉF h=v 1700000000000"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if !slices.Equal(out.Drops, []int32{1}) {
		t.Errorf("got drops %v, want 1", out.Drops)
	}
	if len(out.Failures) != 2 {
		t.Fatalf("got failures %+v, want 2", out.Failures)
	}
	if f := out.Failures[0]; f.In != 2 || f.Err.Class != record.Rejected || f.Err.Code != 1 || f.Err.Message != `cannot work on "error: x"` ||
		f.Replay == nil || !slices.Equal(f.Replay.Logs, []string{`cannot work on "error: x"`}) {
		t.Errorf("got record %d: %v %+v, want its exit code and STDERR", f.In, f.Err, f.Replay)
	}
	if f := out.Failures[1]; f.In != 3 || f.Err.Class != record.Schema || !strings.Contains(f.Err.Message, "envelope: true") {
		t.Errorf("got record %d: %v, want class schema that names envelope", f.In, f.Err)
	}
}

// TestEnvelope runs a program that makes the whole line upper case, keys and
// all; they are read without regard to case.
func TestEnvelope(t *testing.T) {
	rt := open(t, Config{})
	s := stageOf(t, rt, linesWasm, StageConfig{Stage: "s", Envelope: true})
	out := testkit.Process(t, s, testkit.Batch("abc", "a secret"))
	if !slices.Equal(out.Drops, []int32{1}) || len(out.Emits) != 1 || len(out.Failures) != 0 {
		t.Fatalf("got %+v", out)
	}
	e := out.Emits[0].Record
	if string(e.Key) != "K" || e.Headers[0].Key != "H" || e.ID() != "orders/2/0" || e.Timestamp != 1_700_000_000_000 || e.To != -1 {
		t.Errorf("got %+v, want key and headers of the output, the source of the input", e)
	}

	r := &testkit.Batch("x").Records[0]
	for _, c := range []struct {
		name, line, want string
		class            record.Class
	}{
		{"whole", `{"key":"n","value":{"a":1},"headers":[{"key":"x","value":"y"}],"partition":7,"offset":9,"timestamp":5}`, `n {"a":1} 1 5 0 -1`, 0},
		{"value alone", `{"value":"v"}`, ` v 0 1700000000000 0 -1`, 0},
		{"two", "{\"value\":\"v\"}\n{\"value\":\"w\"}", ` v 0 1700000000000 0 -1#0, w 0 1700000000000 0 -1#1`, 0},
		{"bad", `{"vlaue":1}`, "line 1 of its output is no record", record.Protocol},
		{"bad second", "{}\nx", "line 2 of its output is no record", record.Protocol},
	} {
		var out record.Results
		err := s.emitLines([]byte(c.line+"\n"), r, 0, &out)
		if c.class != 0 {
			if err == nil || err.Class != c.class || !strings.Contains(err.Message, c.want) {
				t.Errorf("%s: got %v, want class %v and %q", c.name, err, c.class, c.want)
			}
			continue
		}
		var got []string
		for _, e := range out.Emits {
			e := e.Record
			got = append(got, fmt.Sprintf("%s %s %d %d %d %d%s", e.Key, e.Value, len(e.Headers), e.Timestamp, e.Offset, e.To, e.Path))
		}
		if s := strings.Join(got, ","); err != nil || s != c.want {
			t.Errorf("%s: got %q, %v, want %q", c.name, s, err, c.want)
		}
	}
}

func TestLinesFailures(t *testing.T) {
	rt := open(t, Config{Workers: 1})
	trap := command()
	trap.funcs[0].body = []byte{0x00}
	s := newStage(t, compile(t, rt, trap.build()), StageConfig{Stage: "s"})
	out := testkit.Process(t, s, testkit.Batch("a"))
	if len(out.Failures) != 1 || out.Failures[0].Err.Class != record.Trap || out.Failures[0].Err.Message != "it trapped: unreachable in function 0" {
		t.Errorf("got %+v, want a trap", out.Failures)
	}
	// A program that does nothing drops.
	s = newStage(t, compile(t, rt, command().build()), StageConfig{Stage: "s"})
	if out := testkit.Process(t, s, testkit.Batch("a")); len(out.Drops) != 1 {
		t.Errorf("got %+v, want a drop", out)
	}
	if _, err := compile(t, rt, command().build()).NewStage(t.Context(), StageConfig{Config: []byte(`{"a":1}`)}); err == nil || !strings.Contains(err.Error(), "remove `with`") {
		t.Errorf("got %v, want that a program takes no configuration", err)
	}
	o := output{}
	if n, err := o.Write(make([]byte, maxOutputBytes+1)); n != 0 || err == nil || !o.over {
		t.Errorf("output is not bounded: %d, %v", n, err)
	}
}
