package stage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

var scope = expr.Scope{Roots: expr.RecordRoots, Vars: map[string]any{"min": int64(5)}, Env: map[string]string{}}

func batch(values ...string) *record.Batch {
	b := &record.Batch{Partition: record.Partition{Topic: "t"}}
	for i, v := range values {
		r := record.Record{Topic: "t", Offset: int64(i), Key: []byte("k"), Value: []byte(v), Attempt: 1, To: -1, Headers: []record.Header{{Key: "h", Value: []byte("v")}}}
		if v == "<nil>" {
			r.Value = nil
		}
		b.Records = append(b.Records, r)
	}
	return b
}

func TestFilter(t *testing.T) {
	s, err := New(&flow.Stage{ID: "filter1", Filter: "value.n > vars.min"}, scope)
	if err != nil {
		t.Fatal(err)
	}
	b := batch(`{"n":6}`, `{"n":5}`, `{"x":1}`, `{"n":`, `{"n":"a"}`, `{"n":7.5}`, "<nil>")
	var out record.Results
	if err := s.Process(t.Context(), b, &out); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(out.Drops) != "[1 2 6]" {
		t.Errorf("drops: got %v, want [1 2 6]", out.Drops)
	}
	for i, in := range []int32{0, 5} {
		e := out.Emits[i]
		if e.In != in || e.Output != 0 || !reflect.DeepEqual(e.Record, b.Records[in]) {
			t.Errorf("emit %d: got %+v, want record %d unchanged", i, e, in)
		}
	}
	for i, in := range []int32{3, 4} {
		f := out.Failures[i]
		if f.In != in || f.Err.Class != record.Schema || f.Replay != nil || f.Err.Message == "" {
			t.Errorf("failure %d: got %+v, want class schema of record %d", i, f, in)
		}
	}
	if len(out.Emits)+len(out.Drops)+len(out.Failures) != len(b.Records) {
		t.Error("not every record has one answer")
	}
}

func TestCancelledContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, st := range []flow.Stage{{Filter: "true"}, {Map: &flow.MapStage{Drop: []string{"a"}}}} {
		s, err := New(&st, scope)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Process(ctx, batch("{}"), &record.Results{}); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for name, s := range map[string]*flow.Stage{
		"a plugin":      {ID: "x", Plugin: &flow.PluginStage{}},
		"no condition":  {ID: "x", Filter: "value.n + 1"},
		"a bad path":    {ID: "x", Map: &flow.MapStage{Drop: []string{"a..b"}}},
		"a bad setting": {ID: "x", Map: &flow.MapStage{Set: []flow.Assignment{{Path: "a", Expr: "valu"}}}},
	} {
		if _, err := New(s, scope); err == nil || !strings.Contains(err.Error(), "make stage x: ") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestMap(t *testing.T) {
	set := func(kv ...string) (m flow.MapStage) {
		for i := 0; i < len(kv); i += 2 {
			m.Set = append(m.Set, flow.Assignment{Path: kv[i], Expr: kv[i+1]})
		}
		return m
	}
	rename := func(kv ...string) (m flow.MapStage) {
		for i := 0; i < len(kv); i += 2 {
			m.Rename = append(m.Rename, flow.Renaming{From: kv[i], To: kv[i+1]})
		}
		return m
	}
	for _, c := range []struct {
		name     string
		m        flow.MapStage
		in, want string
	}{
		{"set replaces in place", set("b", "value.a + 1"), `{"a":1,"b":2,"c":3}`, `{"a":1,"b":2,"c":3}`},
		{"set of another value", set("b", "value.a + 5"), `{"a":1, "b":2, "c":3}`, `{"a":1,"b":6,"c":3}`},
		{"set appends", set("n.x.y", "topic"), `{"a":1}`, `{"a":1,"n":{"x":{"y":"t"}}}`},
		{"set in an object keeps the rest", set("o.b", "1"), `{"o": { "a" : 1.50 , "z": [1, 2] }, "q": 1e2}`, `{"o":{"a":1.50,"z":[1, 2],"b":1},"q":1e2}`},
		{"set below null", set("o.b", "1"), `{"o":null}`, `{"o":{"b":1}}`},
		{"set below a number", set("o.b", "1"), `{"o":5}`, "error: set o.b: `o` is not an object"},
		{"set sees the input", set("a", "value.b", "b", "value.a"), `{"a":1,"b":2}`, `{"a":2,"b":1}`},
		{"set of a missing field is null", set("a", "value.x"), `{}`, `{"a":null}`},
		{"set of exact numbers", set("a", "value.big", "b", "value.o"), `{"big":123456789012345678901234567890,"o":{"x":0.10}}`, `{"big":123456789012345678901234567890,"o":{"x":0.10},"a":123456789012345678901234567890,"b":{"x":0.10}}`},
		{"set into what was set", set("a", "value.o", "a.y", "2"), `{"o":{"x":1}}`, `{"o":{"x":1},"a":{"x":1,"y":2}}`},
		{"set of a list", set("a", `[1, "x", nil]`), `{}`, `{"a":[1,"x",null]}`},
		{"set with an error", set("a", "value.x + 1"), `{}`, "error: + does not go between nil"},
		{"set of a repeated key", set("a", "5"), `{"a":1,"b":2,"a":3}`, `{"b":2,"a":5}`},
		{"escaped keys", set(`a\.b`, "1"), `{"a":{"b":2}}`, `{"a":{"b":2},"a.b":1}`},
		{"rename in place", rename("a", "z"), `{"a":1,"b":2}`, `{"z":1,"b":2}`},
		{"rename onto another", rename("a", "b"), `{"a":1,"b":2}`, `{"b":1}`},
		{"rename into another object", rename("a", "o.a"), `{"a":1,"o":{"b":2}}`, `{"o":{"b":2,"a":1}}`},
		{"rename of a missing field", rename("x", "y", "x.y", "z"), `{ "a":1 }`, `{ "a":1 }`},
		{"rename to itself", rename("a", "a"), `{ "a":1 }`, `{ "a":1 }`},
		{"rename below a number", rename("a", "b.c"), `{"a":1,"b":2}`, "error: rename a: set b.c: `b` is not an object"},
		{"rename swaps nothing twice", rename("a", "b", "b", "c"), `{"a":1}`, `{"c":1}`},
		{"rename into itself", rename("o", "o.x"), `{"o":{"a":1}}`, `{"o":{"x":{"a":1}}}`},
		{"drop", flow.MapStage{Drop: []string{"a", "o.b", "x", "o.x.y"}}, `{"a":1,"o":{"b":1,"c":"\u00e9"}}`, `{"o":{"c":"\u00e9"}}`},
		{"drop of a repeated key", flow.MapStage{Drop: []string{"a"}}, `{"a":1,"b":2,"a":3}`, `{"b":2}`},
		{"drop of an escaped key", flow.MapStage{Drop: []string{"é"}}, `{"\u00e9":1,"b":2}`, `{"b":2}`},
		{"nothing to drop keeps the bytes", flow.MapStage{Drop: []string{"x", "o.x"}}, " {\"a\" : 1,\t\"o\": {} } ", " {\"a\" : 1,\t\"o\": {} } "},
		{"keep in the order of the document", flow.MapStage{Keep: []string{"c", "a", "o.b", "n.x"}}, `{"a":1,"b":2,"c":3,"o":{"a":1,"b":2},"n":5}`, `{"a":1,"c":3,"o":{"b":2}}`},
		{"keep nothing", flow.MapStage{Keep: []string{"x"}}, `{"a":1}`, `{}`},
		{"keep a whole object", flow.MapStage{Keep: []string{"o.a", "o"}}, `{"a":1,"o":{"b":2}}`, `{"o":{"b":2}}`},
		{"all four", flow.MapStage{Set: []flow.Assignment{{Path: "t", Expr: "value.p * value.q"}}, Rename: []flow.Renaming{{From: "id", To: "order.id"}}, Drop: []string{"p"}, Keep: []string{"t", "order", "q"}}, `{"id":"o1","p":3,"q":4,"note":"x"}`, `{"q":4,"t":12,"order":{"id":"o1"}}`},
		{"a list", flow.MapStage{Drop: []string{"a"}}, `[1]`, "error: map takes a JSON object, and the value is a list"},
		{"a tombstone", flow.MapStage{Drop: []string{"a"}}, `<nil>`, "error: map takes a JSON object, and the value is null"},
		{"no JSON", flow.MapStage{Drop: []string{"a"}}, `{"a"`, "error: the value is not JSON: end of text where a colon should be at byte 4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := New(&flow.Stage{ID: "m", Map: &c.m}, scope)
			if err != nil {
				t.Fatal(err)
			}
			b := batch(c.in)
			var out record.Results
			if err := s.Process(t.Context(), b, &out); err != nil {
				t.Fatal(err)
			}
			if want, ok := strings.CutPrefix(c.want, "error: "); ok {
				if len(out.Failures) != 1 || out.Failures[0].Err.Class != record.Schema || !strings.Contains(out.Failures[0].Err.Message, want) {
					t.Fatalf("got %+v, want a failure %q", out, want)
				}
				return
			}
			if len(out.Emits) != 1 {
				t.Fatalf("got %v, want one emit", out.Failures[0].Err)
			}
			got := out.Emits[0].Record
			if string(got.Value) != c.want {
				t.Errorf("got  %s\nwant %s", got.Value, c.want)
			}
			if string(b.Records[0].Value) != c.in {
				t.Error("the input changed")
			}
			got.Value = b.Records[0].Value
			if !reflect.DeepEqual(got, b.Records[0]) {
				t.Errorf("more than the value changed: %+v", got)
			}
		})
	}
}

// A dumb twin of drop and rename over decoded maps must agree.
func TestMapAgainstTwin(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	keys := []string{"a", "b", "c", "d"}
	var value func(depth int) any
	value = func(depth int) any {
		if depth == 0 || rnd.IntN(3) == 0 {
			return float64(rnd.IntN(100))
		}
		m := map[string]any{}
		for range rnd.IntN(4) {
			m[keys[rnd.IntN(len(keys))]] = value(depth - 1)
		}
		return m
	}
	path := func() string {
		p := keys[rnd.IntN(len(keys))]
		for rnd.IntN(2) == 0 {
			p += "." + keys[rnd.IntN(len(keys))]
		}
		return p
	}
	for range 3000 {
		in := map[string]any{"a": value(3), "b": value(3)}
		drop := path()
		m, err := NewMap(&flow.MapStage{Drop: []string{drop}}, scope)
		if err != nil {
			t.Fatal(err)
		}
		src, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		var out record.Results
		if err := m.Process(t.Context(), batch(string(src)), &out); err != nil {
			t.Fatal(err)
		}
		at, p := in, strings.Split(drop, ".")
		for len(p) > 1 && at != nil {
			at, _ = at[p[0]].(map[string]any)
			p = p[1:]
		}
		delete(at, p[0])
		var got any
		if err := json.Unmarshal(out.Emits[0].Record.Value, &got); err != nil || !reflect.DeepEqual(got, any(in)) {
			t.Fatalf("drop %s of %s: got %s, %v", drop, src, out.Emits[0].Record.Value, err)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	s, err := NewMap(&flow.MapStage{Set: []flow.Assignment{{Path: "m", Expr: "value.n * 2"}}}, scope)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 200 {
				n := g*1000 + i
				var out record.Results
				if err := s.Process(t.Context(), batch(fmt.Sprintf(`{"n":%d}`, n)), &out); err != nil {
					t.Error(err)
					return
				}
				if want := fmt.Sprintf(`{"n":%d,"m":%d}`, n, 2*n); string(out.Emits[0].Record.Value) != want {
					t.Errorf("got %s, want %s", out.Emits[0].Record.Value, want)
				}
			}
		})
	}
	wg.Wait()
}

func FuzzMap(f *testing.F) {
	for _, s := range []string{`{"a":1,"o":{"b":2}}`, `{"a":{"a":{"a":null}}}`, `[]`, `{"a":1,"a":2}`, `{"\u0061":1}`} {
		f.Add([]byte(s))
	}
	m, err := NewMap(&flow.MapStage{
		Set:    []flow.Assignment{{Path: "a.b.c", Expr: "value.o"}, {Path: "s", Expr: "value.a"}},
		Rename: []flow.Renaming{{From: "o.b", To: "x"}, {From: "s", To: "a.s"}},
		Drop:   []string{"a.a"}, Keep: []string{"a", "x", "o.c"},
	}, scope)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		var out record.Results
		if err := m.Process(context.Background(), &record.Batch{Records: []record.Record{{Value: bytes.Clone(src)}}}, &out); err != nil {
			t.Fatal(err)
		}
		if len(out.Emits) == 1 && !json.Valid(out.Emits[0].Record.Value) {
			t.Fatalf("%q became %q, which is not JSON", src, out.Emits[0].Record.Value)
		}
		if len(out.Emits)+len(out.Failures) != 1 {
			t.Fatal("not one answer")
		}
	})
}

func BenchmarkMap(b *testing.B) {
	m, err := NewMap(&flow.MapStage{
		Set:    []flow.Assignment{{Path: "total", Expr: "value.amount * 2"}},
		Rename: []flow.Renaming{{From: "customer_id", To: "customer"}}, Drop: []string{"internal_note"},
	}, scope)
	if err != nil {
		b.Fatal(err)
	}
	in := batch(`{"order_id":"o-00000001","customer_id":"c-000123","status":"PAID","amount":129.95,"currency":"EUR","email":"someone.long@example.com","card":"4111111111111111","internal_note":"called twice, prefers mail","items":[{"sku":"A-1","n":2},{"sku":"B-7","n":1}],"created":"2026-11-01T08:00:00Z","region":"CN"}`)
	var out record.Results
	b.ReportAllocs()
	for b.Loop() {
		out.Reset()
		if err := m.Process(b.Context(), in, &out); err != nil || len(out.Emits) != 1 {
			b.Fatal(err)
		}
	}
}
