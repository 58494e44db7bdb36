package pdktest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"unicode/utf8"

	"github.com/millrace-io/millrace/examples/orders/gen"
	"github.com/millrace-io/millrace/examples/orders/orderstage"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

const goOrders = "go/examples/order_stage_go/order_stage_go.wasm"

func TestGoOrdersAnswerAsNative(t *testing.T) {
	s := newStage(t, newRuntime(t), goOrders, sandbox.StageConfig{})
	events := gen.New(11)
	for range 50 {
		values := make([][]byte, 128)
		for i := range values {
			values[i] = events.Next().Value
		}
		checkAsNative(t, values, process(t, s, values...))
	}
	// Every cut of an order.
	for range 8 {
		var values [][]byte
		v := events.Next().Value
		for n := range len(v) + 1 {
			values = append(values, v[:n])
		}
		checkAsNative(t, values, process(t, s, values...))
	}
	if stats := s.Stats(); stats.ImageLevel != 0 || stats.Instances != 1 {
		t.Errorf("stats %+v: the memory grew", stats)
	}
}

func TestGoOrdersFixture(t *testing.T) {
	read := func(file string) [][]byte {
		data, err := os.ReadFile(filepath.Join(repo, "examples", "orders", file))
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	}
	s := newStage(t, newRuntime(t), goOrders, sandbox.StageConfig{})
	var got [][]byte
	for _, a := range process(t, s, read("in.ndjson")...) {
		if a.outcome == orderstage.Emit {
			got = append(got, []byte(a.value))
		}
	}
	if got, want := bytes.Join(got, []byte("\n")), bytes.Join(read("out.ndjson"), []byte("\n")); !bytes.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// The native twin is no JSON validator, the kit's scanner is one: for damaged
// orders encoding/json decides who is right.
func TestGoOrdersRefuseWhatIsNotJSON(t *testing.T) {
	const seed = 13
	rng := rand.New(rand.NewPCG(seed, 0))
	events := gen.New(seed)
	s := newStage(t, newRuntime(t), goOrders, sandbox.StageConfig{})
	counts := map[orderstage.Outcome]int{}
	for round := range 60 {
		values := make([][]byte, 128)
		for i := range values {
			values[i] = damage(rng, events.Next().Value)
		}
		for i, a := range process(t, s, values...) {
			v := values[i]
			want, outcome := native(v)
			switch valid := json.Valid(v); {
			case bytes.ContainsRune(v, '\\'), !utf8.Valid(v):
				// The twin compares names as they are written, and encoding/json mends UTF-8.
			case valid && amountIsNoNumber(v):
			case valid && (a.outcome != outcome || a.value != want):
				t.Fatalf("seed %d round %d: record %q: got %v %q (%v), want %v %q", seed, round, v, a.outcome, a.value, a.err, outcome, want)
			case !valid && a.outcome == orderstage.Emit:
				t.Fatalf("seed %d round %d: record %q is no JSON, got %q", seed, round, v, a.value)
			case !valid && a.outcome == orderstage.Drop && outcome == orderstage.Emit:
				t.Fatalf("seed %d round %d: record %q is no JSON and was dropped", seed, round, v)
			}
			counts[a.outcome]++
		}
	}
	if counts[orderstage.Emit] < 300 || counts[orderstage.Fail] < 300 {
		t.Errorf("outcomes %v: both sides of the rule should be seen", counts)
	}
}

// The size, and the fuel of an order: both are the same on every machine.
func TestGoOrdersCost(t *testing.T) {
	const mostBytes, mostFuel = 150_000, 25_000
	if n := len(readWasm(t, goOrders)); n > mostBytes {
		t.Errorf("the order stage has %d bytes, at most %d are wanted", n, mostBytes)
	}
	s := newStage(t, newRuntime(t), goOrders, sandbox.StageConfig{})
	events := gen.New(1)
	const records = 128
	for range records {
		process(t, s, events.Next().Value)
	}
	fuel := s.Stats().Fuel / records
	t.Logf("%d units of fuel an order", fuel)
	if fuel > mostFuel {
		t.Errorf("an order takes %d units of fuel, at most %d are wanted", fuel, mostFuel)
	}
}

// BenchmarkGoOrders is BenchmarkOrders for the kit for Go, compiled by TinyGo.
func BenchmarkGoOrders(b *testing.B) {
	rt := newRuntime(b)
	events := gen.New(1)
	values := make([][]byte, 128)
	for i := range values {
		values[i] = events.Next().Value
	}
	batch := batchOf(values...)
	run := func(name string, f func(out *record.Results) error) {
		b.Run(fmt.Sprintf("guest=%s/batch=%d", name, len(values)), func(b *testing.B) {
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
		{"tinygo-by-hand", "../plugins/plugintest/guests/orders-tinygo/orders-tinygo.wasm"},
		{"tinygo-pdk", goOrders},
	} {
		s := newStage(b, rt, g.file, sandbox.StageConfig{})
		run(g.name, func(out *record.Results) error { return s.Process(b.Context(), batch, out) })
	}
}
