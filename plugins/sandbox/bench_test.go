package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/millrace-io/millrace/examples/orders/orderstage"
	"github.com/millrace-io/millrace/plugins/internal/testkit"
	"github.com/millrace-io/millrace/runtime/record"
)

// orderEvents are n records of the order stage's example input.
func orderEvents(tb testing.TB, n int) []record.Record {
	tb.Helper()
	data, err := os.ReadFile("../../examples/orders/in.ndjson")
	if err != nil {
		tb.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	out := make([]record.Record, n)
	for i := range out {
		out[i] = record.Record{
			Key: []byte("c-36404"), Value: lines[i%len(lines)], Topic: "orders", Offset: int64(i), Timestamp: 1_700_000_000_000, Attempt: 1, To: -1,
		}
	}
	return out
}

func BenchmarkStage(b *testing.B) {
	rt := open(b, Config{CacheDir: b.TempDir(), Workers: 1})
	run := func(name string, f func(*record.Batch, *record.Results) error) {
		for _, n := range []int{1, 16, 128} {
			b.Run(fmt.Sprintf("%s/batch=%d", name, n), func(b *testing.B) {
				batch := &record.Batch{Partition: record.Partition{Topic: "orders"}, Now: 1_700_000_000_000, Records: orderEvents(b, n)}
				var out record.Results
				b.SetBytes(int64(batch.Bytes()))
				b.ReportAllocs()
				for b.Loop() {
					out.Reset()
					if err := f(batch, &out); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/record")
			})
		}
	}
	guest := func(file string) func(*record.Batch, *record.Results) error {
		s := stageOf(b, rt, file, StageConfig{Flow: "default/bench", Stage: "s"})
		return func(batch *record.Batch, out *record.Results) error { return s.Process(b.Context(), batch, out) }
	}
	run("stage=pass/guest=native", func(b *record.Batch, out *record.Results) error { orderstage.Pass(b, out); return nil })
	run("stage=pass/guest=rust", guest(faultyWasm))
	run("stage=order/guest=native", func(b *record.Batch, out *record.Results) error { orderstage.Batch(b, out); return nil })
	run("stage=order/guest=rust", guest(ordersWasm))
}

// BenchmarkLines: copyWasm does nothing but copy, so that what remains is lines
// mode itself. A batch is 128 order events of 302 bytes.
func BenchmarkLines(b *testing.B) {
	rt := open(b, Config{CacheDir: b.TempDir(), Workers: 1})
	events := &record.Batch{Partition: record.Partition{Topic: "orders"}, Now: 1_700_000_000_000, Records: orderEvents(b, 128)}
	one := &record.Batch{Partition: events.Partition, Now: events.Now, Records: events.Records[:1]}
	run := func(name string, wasm func(testing.TB) []byte, batch *record.Batch, cfg StageConfig, forks int64) {
		b.Run(name, func(b *testing.B) {
			cfg.Stage = "s"
			s := newStage(b, compile(b, rt, wasm(b)), cfg)
			s.forks.Store(forks)
			var out record.Results
			b.ReportAllocs()
			for b.Loop() {
				out.Reset()
				if err := s.Process(b.Context(), batch, &out); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	file := func(name string) func(testing.TB) []byte {
		return func(tb testing.TB) []byte { return testkit.Read(tb, name) }
	}
	each, whole := StageConfig{Lines: LinesEach}, StageConfig{Lines: LinesBatch}
	run("each/guest=copy", file(copyWasm), one, each, maxForks)
	run("each/guest=rust", file(linesWasm), one, each, maxForks)
	run("each/guest=go", goProgram, testkit.Batch("abc"), each, maxForks)
	run("each/guest=copy/fresh", file(copyWasm), one, each, 0)
	run("each/guest=go/fresh", goProgram, testkit.Batch("abc"), each, 0)
	run("each/guest=copy/envelope", file(copyWasm), one, StageConfig{Lines: LinesEach, Envelope: true}, maxForks)
	run("batch/guest=copy", file(copyWasm), events, whole, maxForks)
	run("batch/guest=rust", file(linesWasm), events, whole, maxForks)
}

func BenchmarkInspect(b *testing.B) {
	wasm := testkit.Read(b, ordersWasm)
	b.SetBytes(int64(len(wasm)))
	for b.Loop() {
		if _, err := Inspect(wasm); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkInstance makes instances, by a start of the guest and out of an
// image.
func BenchmarkInstance(b *testing.B) {
	rt := open(b, Config{Workers: 1})
	s := stageOf(b, rt, ordersWasm, StageConfig{Stage: "s"})
	for name, make := range map[string]func() (*instance, error){
		"start": func() (*instance, error) { return s.start(0) },
		"clone": func() (*instance, error) { return s.clone(s.image) },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				in, err := make()
				if err != nil {
					b.Fatal(err)
				}
				in.close()
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	wasm := testkit.Read(b, ordersWasm)
	for _, cached := range []bool{false, true} {
		b.Run(fmt.Sprintf("cached=%v", cached), func(b *testing.B) {
			dir := b.TempDir()
			for b.Loop() {
				cfg := Config{}
				if cached {
					cfg.CacheDir = dir
				}
				rt, err := New(b.Context(), cfg)
				if err != nil {
					b.Fatal(err)
				}
				m, err := rt.Compile(b.Context(), wasm)
				if err != nil {
					b.Fatal(err)
				}
				if err := errors.Join(m.Close(b.Context()), rt.Close(b.Context())); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
