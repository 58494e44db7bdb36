package pdktest

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"testing"
	"unicode/utf8"

	"github.com/millrace-io/millrace/examples/orders/gen"
	"github.com/millrace-io/millrace/examples/orders/orderstage"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

const asOrders = "assemblyscript/examples/order_stage_as/order_stage_as.wasm"

func TestASOrdersAnswerAsNative(t *testing.T) {
	s := newStage(t, newRuntime(t), asOrders, sandbox.StageConfig{})
	events := gen.New(31)
	for _, n := range []int{1, 2, 17, 128, 1000} {
		values := make([][]byte, n)
		for i := range values {
			values[i] = events.Next().Value
		}
		checkAsNative(t, values, process(t, s, values...))
	}
}

// Every cut of an order is answered as the native twin answers it.
func TestASOrdersCutOff(t *testing.T) {
	s := newStage(t, newRuntime(t), asOrders, sandbox.StageConfig{})
	events := gen.New(32)
	for range 4 {
		var values [][]byte
		v := events.Next().Value
		for n := range len(v) + 1 {
			values = append(values, v[:n])
		}
		checkAsNative(t, values, process(t, s, values...))
	}
}

// For damaged orders encoding/json decides who is right, as with Rust.
func TestASOrdersRefuseWhatIsNotJSON(t *testing.T) {
	const seed = 33
	rng := rand.New(rand.NewPCG(seed, 0))
	events := gen.New(seed)
	s := newStage(t, newRuntime(t), asOrders, sandbox.StageConfig{})
	counts := map[orderstage.Outcome]int{}
	for round := range 100 {
		values := make([][]byte, 128)
		for i := range values {
			values[i] = damage(rng, events.Next().Value)
		}
		for i, a := range process(t, s, values...) {
			v := values[i]
			want, outcome := native(v)
			switch valid := json.Valid(v); {
			case bytes.ContainsRune(v, '\\'), !utf8.Valid(v):
			case valid && amountIsNoNumber(v):
			case valid && (a.outcome != outcome || a.value != want):
				t.Fatalf("seed %d round %d: record %q: got %v %q (%v), want %v %q", seed, round, v, a.outcome, a.value, a.err, outcome, want)
			case !valid && a.outcome == orderstage.Emit:
				t.Fatalf("seed %d round %d: record %q is no JSON, got %q", seed, round, v, a.value)
			}
			counts[a.outcome]++
		}
	}
	if counts[orderstage.Emit] < 1000 || counts[orderstage.Fail] < 1000 {
		t.Errorf("outcomes %v: both sides of the rule should be seen", counts)
	}
}

func TestASOrdersSize(t *testing.T) {
	const most = 40_000
	if n := len(readWasm(t, asOrders)); n > most {
		t.Errorf("the order stage has %d bytes, at most %d are wanted", n, most)
	}
}

// BenchmarkASOrders is the order stage from records to records, fuel and
// restore included: native, by hand, and by the kit.
func BenchmarkASOrders(b *testing.B) {
	rt := newRuntime(b)
	events := gen.New(1)
	values := make([][]byte, 128)
	for i := range values {
		values[i] = events.Next().Value
	}
	batch := batchOf(values...)
	run := func(name string, f func(out *record.Results) error) {
		b.Run("guest="+name, func(b *testing.B) {
			var out record.Results
			b.ReportAllocs()
			b.SetBytes(int64(batch.Bytes()))
			for b.Loop() {
				out.Reset()
				if err := f(&out); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(values)), "ns/record")
		})
	}
	run("native", func(out *record.Results) error {
		orderstage.Batch(batch, out)
		return nil
	})
	for _, g := range []struct{ name, file string }{
		{"as-by-hand", "../plugins/plugintest/guests/orders-as/orders-as.wasm"},
		{"as-kit", asOrders},
	} {
		s := newStage(b, rt, g.file, sandbox.StageConfig{})
		run(g.name, func(out *record.Results) error { return s.Process(b.Context(), batch, out) })
		b.Logf("%s: %d units of fuel a record", g.name, s.Stats().Fuel/max(s.Stats().Records, 1))
	}
}
