package stage

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

func TestBranch(t *testing.T) {
	cases := []flow.BranchCase{{When: "value.n > 10"}, {When: "value.n > 5"}, {When: `value.s == "x"`}}
	values := []string{`{"n":11,"s":"x"}`, `{"n":7}`, `{"n":1}`, `{"n":`, `{"n":2,"s":"x"}`}
	for _, tt := range []struct {
		every bool
		want  string // per record: case and path of each emit
	}{
		{false, "0>0 1>1 2>3 4>2"},
		{true, "0>0#0 0>1#1 0>2#2 1>1 2>3 4>2"},
	} {
		b, err := NewBranch(&flow.Stage{ID: "b", Branch: &flow.Branch{Every: tt.every, Cases: cases}}, scope)
		if err != nil {
			t.Fatal(err)
		}
		in := batch(values...)
		var out record.Results
		if err := b.Process(t.Context(), in, &out); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range out.Emits {
			got = append(got, fmt.Sprintf("%d>%d%s", e.In, e.Output, e.Record.Path))
			e.Record.Path = ""
			if !reflect.DeepEqual(e.Record, in.Records[e.In]) {
				t.Errorf("record %d was changed: %+v", e.In, e.Record)
			}
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("every %v: got %s, want %s", tt.every, s, tt.want)
		}
		if len(out.Failures) != 1 || out.Failures[0].In != 3 || out.Failures[0].Err.Class != record.Schema || len(out.Drops) != 0 {
			t.Errorf("every %v: failures %+v, drops %v", tt.every, out.Failures, out.Drops)
		}
	}
}

func TestBranchCopiesOnlyAsDeepAsPathsGo(t *testing.T) {
	b, err := NewBranch(&flow.Stage{ID: "b", Branch: &flow.Branch{Every: true, Cases: []flow.BranchCase{{When: "true"}, {When: "true"}}}}, scope)
	if err != nil {
		t.Fatal(err)
	}
	in := batch(`{}`, `{}`)
	for range record.MaxPathLevels {
		in.Records[0].Path, _ = in.Records[0].Path.Child(0)
	}
	var out record.Results
	if err := b.Process(t.Context(), in, &out); err != nil {
		t.Fatal(err)
	}
	if len(out.Failures) != 1 || out.Failures[0].In != 0 || out.Failures[0].Err.Class != record.Protocol || len(out.Emits) != 2 {
		t.Errorf("failures %+v, %d emits", out.Failures, len(out.Emits))
	}
}

func TestBranchNamesTheCaseThatDoesNotCompile(t *testing.T) {
	_, err := NewBranch(&flow.Stage{ID: "b", Branch: &flow.Branch{Cases: []flow.BranchCase{{When: "true"}, {When: "valu.n"}}}}, scope)
	if err == nil || !strings.Contains(err.Error(), "stage b") || !strings.Contains(err.Error(), "case 2") {
		t.Errorf("got %v", err)
	}
}

func TestCleanup(t *testing.T) {
	s, err := New(&flow.Stage{ID: "c", Cleanup: &flow.Cleanup{Drop: []string{"a", "o.b", "o.x.y"}, DropHeaders: []string{"tmp_*", "*-id", "a*b*c", "exact"}}}, scope)
	if err != nil {
		t.Fatal(err)
	}
	in := batch(`{"a":1, "o":{"b":2,"c":1.50},"z":[1, 2]}`, `{ "z" : 1 }`, `[1]`, "<nil>", `{"a"`)
	in.Records[0].Headers = nil
	for _, h := range []string{"tmp_", "tmp_x", "xtmp_", "my-id", "-id", "id", "abc", "a1b2c", "acb", "exact", "Exact", "ab-bc"} {
		in.Records[0].Headers = append(in.Records[0].Headers, record.Header{Key: h})
	}
	var out record.Results
	if err := s.Process(t.Context(), in, &out); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{`{"o":{"c":1.50},"z":[1, 2]}`, `{ "z" : 1 }`, `[1]`, ""} {
		if e := out.Emits[i]; int(e.In) != i || string(e.Record.Value) != want {
			t.Errorf("record %d: got %s, want %s", i, e.Record.Value, want)
		}
	}
	if out.Emits[3].Record.Value != nil {
		t.Error("a null value became another")
	}
	if len(out.Failures) != 1 || out.Failures[0].In != 4 || out.Failures[0].Err.Class != record.Schema {
		t.Errorf("failures %+v", out.Failures)
	}
	var left []string
	for _, h := range out.Emits[0].Record.Headers {
		left = append(left, h.Key)
	}
	if got := strings.Join(left, " "); got != "xtmp_ id acb Exact" {
		t.Errorf("headers left: %s", got)
	}
	if len(in.Records[0].Headers) != 12 || in.Records[0].Headers[0].Key != "tmp_" {
		t.Error("the batch was changed")
	}
}

// TestCleanupOfHeadersReadsNoValue: what is not JSON passes where no path asks
// for it.
func TestCleanupOfHeadersReadsNoValue(t *testing.T) {
	s, err := New(&flow.Stage{ID: "c", Cleanup: &flow.Cleanup{DropHeaders: []string{"h"}}}, scope)
	if err != nil {
		t.Fatal(err)
	}
	var out record.Results
	if err := s.Process(t.Context(), batch("no json"), &out); err != nil || len(out.Emits) != 1 || len(out.Emits[0].Record.Headers) != 0 {
		t.Errorf("got %v, %+v", err, out)
	}
}
