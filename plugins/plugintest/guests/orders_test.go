package guests_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/millrace-io/millrace/examples/orders/gen"
	"github.com/millrace-io/millrace/examples/orders/orderstage"
	"github.com/millrace-io/millrace/plugins/extism"
	"github.com/millrace-io/millrace/plugins/internal/testkit"
	"github.com/millrace-io/millrace/plugins/plugintest/guests"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

// processor is a stage of any run mode.
type processor interface {
	Process(ctx context.Context, b *record.Batch, out *record.Results) error
	Close(ctx context.Context) error
}

func closed(t *testing.T, c interface{ Close(context.Context) error }) {
	t.Helper()
	t.Cleanup(func() {
		if err := c.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
}

func callStage(t *testing.T, wasm []byte) processor {
	t.Helper()
	rt, err := sandbox.New(t.Context(), sandbox.Config{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	closed(t, rt)
	m, err := rt.Compile(t.Context(), wasm)
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.NewStage(t.Context(), sandbox.StageConfig{Stage: "orders", ForgetFailures: true})
	if err != nil {
		t.Fatal(err)
	}
	closed(t, s)
	return s
}

func extismStage(t *testing.T, wasm []byte) processor {
	t.Helper()
	rt, err := extism.New(t.Context(), extism.Config{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	closed(t, rt)
	m, err := rt.Compile(t.Context(), wasm)
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.NewStage(t.Context(), sandbox.StageConfig{Stage: "orders", Function: "order", ForgetFailures: true})
	if err != nil {
		t.Fatal(err)
	}
	closed(t, s)
	return s
}

func goStage(t *testing.T) processor {
	t.Helper()
	if testing.Short() || testkit.Race {
		t.Skip("compiles a module of 2 MB, which takes half a minute with the race detector")
	}
	wasm, err := guests.OrdersGo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return callStage(t, wasm)
}

// damaged changes up to three bytes of an event, or none.
func damaged(rng *rand.Rand, v []byte) []byte {
	for range rng.IntN(4) {
		if len(v) == 0 {
			return v
		}
		at := rng.IntN(len(v))
		switch c := "{}[]\",:\\ \nx\x00@"[rng.IntN(13)]; rng.IntN(4) {
		case 0:
			v[at] = c
		case 1:
			v = append(v[:at], append([]byte{c}, v[at:]...)...)
		case 2:
			v = append(v[:at], v[at+1:]...)
		case 3:
			v = v[:at]
		}
	}
	return v
}

// odd are values that the generator's form does not lead to.
var odd = []string{
	"", "hello", "[1]", "{", "{}", ` { "a" : 1 , "customer_id" : "c" } `, `{"a":1,,"b":2,}`, `{"a":"x""b":"y"}`, `{"email":"jane"}`, `{"email":"@"}`,
	`{"email":7,"card":7}`, `{"email":"","card":""}`, `{"card":"1234567"}`, `{"card":"12345"}`, `{"card":[1,2,3,4,5,6]}`, `{"internal_note":"x"}`,
	`{"internal_note":"x","a":1}`, `{"a":1,"internal_note":{"b":[]}}`, `{"amount":4.99}`, `{"amount":-20}`, `{"amount":"5"}`, `{"amount":1e3}`,
	`{"status":"cancelled","a`, `{"status":"cancelled`, `{"a":"b\`, `{"a":"b\"`, `{"a":[1,2`, `{"a":"]}",` + "\t" + `"b":["\\",{"c":"}"}]}`, `{"email":,"a":1}`,
	`{"a":1]`, `{"a""b":1}`, `{"customer_id":"c-1"}`, `{"customer_id" :"c-1"}`, `{"a":1}]x`, `{"é":"\u00e9","customer_id":1}`,
}

// orderValues are values that every guest must answer as the native stage does:
// n generated ones and half as many that may be damaged.
func orderValues(seed uint64, n int) [][]byte {
	var values [][]byte
	for _, v := range odd {
		values = append(values, []byte(v))
	}
	values = append(values, []byte(fmt.Sprintf(`{"a":"%s","customer_id":"c","b":[%s1]}`, bytes.Repeat([]byte("x"), 70_000), bytes.Repeat([]byte("1,"), 300))))
	g := gen.New(seed)
	for range n {
		values = append(values, g.Next().Value)
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	for range n / 2 {
		values = append(values, damaged(rng, g.Next().Value))
	}
	return values
}

// answersAsNative passes order events through s and through the native stage.
func answersAsNative(t *testing.T, s processor, n int) {
	t.Helper()
	const seed = 11
	values := orderValues(seed, n)
	var outcomes [3]int
	var out record.Results
	for from := 0; from < len(values); from += 128 {
		b := &record.Batch{Partition: record.Partition{Topic: "orders"}, Now: 1_700_000_000_000}
		for i, v := range values[from:min(from+128, len(values))] {
			b.Records = append(b.Records, record.Record{
				Key: fmt.Appendf(nil, "k%d", i), Value: v, Topic: "orders", Offset: int64(from + i), Timestamp: int64(i), Attempt: 1, To: -1,
				Headers: []record.Header{{Key: "h", Value: []byte("v")}},
			})
		}
		out.Reset()
		if err := s.Process(t.Context(), b, &out); err != nil {
			t.Fatal(err)
		}
		drops, failures := map[int32]int{}, map[int32]*record.Error{}
		for _, i := range out.Drops {
			drops[i]++
		}
		for _, f := range out.Failures {
			failures[f.In] = f.Err
		}
		emits := out.Emits
		for i := range b.Records {
			r := &b.Records[i]
			want, outcome := orderstage.Order(nil, r.Value)
			outcomes[outcome]++
			switch outcome {
			case orderstage.Emit:
				if len(emits) == 0 || emits[0].In != int32(i) {
					t.Fatalf("seed %d: %q: no emission, want %q", seed, r.Value, want)
				}
				e := emits[0].Record
				emits = emits[1:]
				if !bytes.Equal(e.Value, want) || !bytes.Equal(e.Key, r.Key) || len(e.Headers) != 1 || e.Timestamp != r.Timestamp {
					t.Fatalf("seed %d: %q: got %q with key %q, headers %q, time %d, want %q with those of the record", seed, r.Value, e.Value, e.Key, e.Headers, e.Timestamp, want)
				}
			case orderstage.Drop:
				if drops[int32(i)] != 1 {
					t.Fatalf("seed %d: %q: no drop", seed, r.Value)
				}
			case orderstage.Fail:
				f := failures[int32(i)]
				if f == nil || f.Class != record.Rejected || f.Code == 0 || !bytes.Contains([]byte(f.Message), []byte(" at byte ")) {
					t.Fatalf("seed %d: %q: got %+v, want it rejected with a code and a place", seed, r.Value, f)
				}
			}
		}
		if len(emits) > 0 {
			t.Fatalf("seed %d: %d emissions too many", seed, len(emits))
		}
	}
	for o, count := range outcomes {
		if count < len(values)/30 {
			t.Fatalf("seed %d: %d times %v: the values are no test", seed, count, orderstage.Outcome(o))
		}
	}
}

func TestOrdersAnswerAsNative(t *testing.T) {
	const n = 10_000
	t.Run("c", func(t *testing.T) { answersAsNative(t, callStage(t, guests.OrdersC), n) })
	t.Run("assemblyscript", func(t *testing.T) { answersAsNative(t, callStage(t, guests.OrdersAS), n) })
	t.Run("tinygo", func(t *testing.T) { answersAsNative(t, callStage(t, guests.OrdersTinyGo), n) })
	t.Run("go", func(t *testing.T) { answersAsNative(t, goStage(t), n) })
	t.Run("extism", func(t *testing.T) { answersAsNative(t, extismStage(t, guests.OrdersExtism), n/10) })
}

// TestOrderMessages: what a rejected record is told, in every language.
func TestOrderMessages(t *testing.T) {
	values := []string{"", "hello", `{"order_id":"o-0`, `{"a":1]`, `{"email":,`}
	want := []string{
		"1 not a JSON object: no '{' at byte 0",
		"1 not a JSON object: no '{' at byte 0",
		"2 cut off inside a value at byte 16",
		"3 no key where one should begin at byte 6",
		"3 an empty value at byte 9",
	}
	for name, wasm := range map[string][]byte{"c": guests.OrdersC, "assemblyscript": guests.OrdersAS, "tinygo": guests.OrdersTinyGo} {
		t.Run(name, func(t *testing.T) {
			b := &record.Batch{}
			for _, v := range values {
				b.Records = append(b.Records, record.Record{Value: []byte(v), Attempt: 1, To: -1})
			}
			var out record.Results
			if err := callStage(t, wasm).Process(t.Context(), b, &out); err != nil {
				t.Fatal(err)
			}
			for i, f := range out.Failures {
				if got := fmt.Sprintf("%d %s", f.Err.Code, f.Err.Message); got != want[i] {
					t.Errorf("%q: got %q, want %q", values[i], got, want[i])
				}
			}
			if len(out.Failures) != len(values) {
				t.Errorf("%d of %d rejected", len(out.Failures), len(values))
			}
		})
	}
}

func TestPassAndCopy(t *testing.T) {
	for name, wasm := range map[string][]byte{"pass": guests.Pass, "copy": guests.Copy} {
		t.Run(name, func(t *testing.T) {
			s := callStage(t, wasm)
			b := &record.Batch{}
			for i := range 300 {
				b.Records = append(b.Records, record.Record{Key: []byte("k"), Value: bytes.Repeat([]byte{'a' + byte(i%26)}, i), Timestamp: int64(i), Offset: int64(i), Attempt: 1, To: -1})
			}
			var out record.Results
			if err := s.Process(t.Context(), b, &out); err != nil {
				t.Fatal(err)
			}
			if len(out.Emits) != len(b.Records) {
				t.Fatalf("%d of %d emitted: %v", len(out.Emits), len(b.Records), out.Failures)
			}
			for i, e := range out.Emits {
				if !bytes.Equal(e.Record.Value, b.Records[i].Value) || string(e.Record.Key) != "k" || e.Record.Timestamp != int64(i) {
					t.Errorf("record %d: got %+v", i, e.Record)
				}
			}
		})
	}
}
