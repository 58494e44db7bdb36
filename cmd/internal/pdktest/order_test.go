// Package pdktest holds the examples of the PDKs to the sandbox: what their
// authors write, run as a node runs it. The tests are all of it.
package pdktest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/millrace-io/millrace/examples/orders/gen"
	"github.com/millrace-io/millrace/examples/orders/orderstage"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

const rustOrders = "rust/examples/order_stage/order_stage.wasm"

func readWasm(tb testing.TB, file string) []byte {
	tb.Helper()
	wasm, err := os.ReadFile(filepath.Join("..", "..", "..", "pdk", filepath.FromSlash(file)))
	if err != nil {
		tb.Fatal(err)
	}
	return wasm
}

func newRuntime(tb testing.TB) *sandbox.Runtime {
	tb.Helper()
	rt, err := sandbox.New(tb.Context(), sandbox.Config{Workers: 1})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { rt.Close(context.Background()) })
	return rt
}

// newStage runs a plugin of folder pdk as a node does.
func newStage(tb testing.TB, rt *sandbox.Runtime, file string, cfg sandbox.StageConfig) *sandbox.Stage {
	tb.Helper()
	return stageOf(tb, rt, readWasm(tb, file), cfg)
}

func stageOf(tb testing.TB, rt *sandbox.Runtime, wasm []byte, cfg sandbox.StageConfig) *sandbox.Stage {
	tb.Helper()
	m, err := rt.Compile(tb.Context(), wasm)
	if err != nil {
		tb.Fatal(err)
	}
	cfg.Flow, cfg.Stage, cfg.Plugin = "default/test", "s", "test@1.0.0"
	s, err := m.NewStage(tb.Context(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.Close(context.Background()) })
	return s
}

func batchOf(values ...[]byte) *record.Batch {
	b := &record.Batch{Partition: record.Partition{Topic: "orders"}, Now: 1_700_000_000_000}
	for i, v := range values {
		b.Records = append(b.Records, record.Record{Key: []byte("k"), Value: v, Topic: "orders", Offset: int64(i), Timestamp: 1_600_000_000_000, Attempt: 1, To: -1})
	}
	return b
}

// answer is what became of one record that a stage answers once.
type answer struct {
	outcome orderstage.Outcome
	value   string
	err     *record.Error
}

func process(tb testing.TB, s *sandbox.Stage, values ...[]byte) []answer {
	tb.Helper()
	var out record.Results
	if err := s.Process(tb.Context(), batchOf(values...), &out); err != nil {
		tb.Fatal(err)
	}
	answers := make([]answer, len(values))
	seen := make([]int, len(values))
	for _, e := range out.Emits {
		answers[e.In] = answer{orderstage.Emit, string(e.Record.Value), nil}
		seen[e.In]++
	}
	for _, i := range out.Drops {
		answers[i] = answer{orderstage.Drop, "", nil}
		seen[i]++
	}
	for _, f := range out.Failures {
		answers[f.In] = answer{orderstage.Fail, "", f.Err}
		seen[f.In]++
	}
	for i, n := range seen {
		if n != 1 {
			tb.Fatalf("record %d has %d answers", i, n)
		}
	}
	return answers
}

func native(v []byte) (string, orderstage.Outcome) {
	out, outcome := orderstage.Order(nil, v)
	return string(out), outcome
}

func checkAsNative(t *testing.T, values [][]byte, answers []answer) {
	t.Helper()
	for i, v := range values {
		want, outcome := native(v)
		a := answers[i]
		if a.outcome != outcome || a.value != want {
			t.Fatalf("record %q: got %v %q (%v), want %v %q", v, a.outcome, a.value, a.err, outcome, want)
		}
		if outcome == orderstage.Fail && (a.err.Class != record.Rejected || !strings.Contains(a.err.Message, " at byte ")) {
			t.Fatalf("record %q: got failure %v, want one of class rejected that names the byte", v, a.err)
		}
	}
}

func TestRustOrdersAnswerAsNative(t *testing.T) {
	s := newStage(t, newRuntime(t), rustOrders, sandbox.StageConfig{})
	events := gen.New(11)
	for range 100 {
		values := make([][]byte, 128)
		for i := range values {
			values[i] = events.Next().Value
		}
		checkAsNative(t, values, process(t, s, values...))
	}
}

func TestRustOrdersFixture(t *testing.T) { ordersFixture(t, rustOrders) }

// ordersFixture holds an order stage against the files of examples/orders.
func ordersFixture(t *testing.T, guest string) {
	t.Helper()
	read := func(file string) [][]byte {
		data, err := os.ReadFile(filepath.Join("..", "..", "..", "examples", "orders", file))
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	}
	s := newStage(t, newRuntime(t), guest, sandbox.StageConfig{})
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

func TestRustOrdersCutOff(t *testing.T) {
	cutOff(t, newStage(t, newRuntime(t), rustOrders, sandbox.StageConfig{}), gen.New(12), 8)
}

// cutOff has every cut of some orders answered as the native twin answers it.
func cutOff(t *testing.T, s *sandbox.Stage, events *gen.Generator, orders int) {
	t.Helper()
	for range orders {
		var values [][]byte
		v := events.Next().Value
		for n := range len(v) + 1 {
			values = append(values, v[:n])
		}
		checkAsNative(t, values, process(t, s, values...))
	}
}

func TestRustOrdersRefuseWhatIsNotJSON(t *testing.T) {
	refuseWhatIsNotJSON(t, rustOrders, 13, 200, 1000)
}

// refuseWhatIsNotJSON damages orders. The native twin is no JSON validator, the
// scanner of a kit is one: encoding/json decides who is right. Both emitted and
// failed ones must come up least times.
func refuseWhatIsNotJSON(t *testing.T, guest string, seed uint64, rounds, least int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 0))
	events := gen.New(seed)
	s := newStage(t, newRuntime(t), guest, sandbox.StageConfig{})
	counts := map[orderstage.Outcome]int{}
	for round := range rounds {
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
	if counts[orderstage.Emit] < least || counts[orderstage.Fail] < least {
		t.Errorf("outcomes %v: both sides of the rule should be seen", counts)
	}
}

func amountIsNoNumber(v []byte) bool {
	var order struct{ Amount any }
	if json.Unmarshal(v, &order) != nil {
		return false
	}
	_, ok := order.Amount.(float64)
	return !ok && order.Amount != nil
}

func damage(rng *rand.Rand, v []byte) []byte {
	for range 1 + rng.IntN(2) {
		if len(v) == 0 {
			break
		}
		at := rng.IntN(len(v))
		switch c := "{}[]\",:\\ \nx0-.\x00\xff\xc3"[rng.IntN(17)]; rng.IntN(4) {
		case 0:
			v[at] = c
		case 1:
			v = append(v[:at], append([]byte{c}, v[at:]...)...)
		case 2:
			v = append(v[:at], v[at+1:]...)
		case 3:
			if rng.IntN(4) == 0 {
				v = v[:at]
			}
		}
	}
	return v
}

func TestRustOrdersSize(t *testing.T) {
	const most = 100_000
	if n := len(readWasm(t, rustOrders)); n > most {
		t.Errorf("the order stage has %d bytes, at most %d are wanted", n, most)
	}
}

// BenchmarkOrders is the order stage from records to records, fuel and restore
// included, beside its native twin.
func BenchmarkOrders(b *testing.B) {
	benchOrders(b, guestFile{"rust-by-hand", "../examples/orders/orders.wasm"}, guestFile{"rust-pdk", rustOrders})
}

type guestFile struct{ name, file string }

// benchOrders runs an order stage by guests, after the native twin.
func benchOrders(b *testing.B, guests ...guestFile) {
	b.Helper()
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
	for _, g := range guests {
		s := newStage(b, rt, g.file, sandbox.StageConfig{})
		run(g.name, func(out *record.Results) error { return s.Process(b.Context(), batch, out) })
		b.Logf("%s: %d units of fuel a record", g.name, s.Stats().Fuel/max(s.Stats().Records, 1))
	}
}
