package main

import (
	"context"
	"fmt"
	"testing"

	"github.com/millrace-io/millrace/examples"
	"github.com/millrace-io/millrace/examples/orders/gen"
	"github.com/millrace-io/millrace/examples/orders/orderstage"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

// benchStage measures a stage from records to records, without fuel.
func benchStage(ctx context.Context, _ options) ([]row, error) {
	rt, err := sandbox.New(ctx, sandbox.Config{Workers: 1})
	if err != nil {
		return nil, err
	}
	defer rt.Close(ctx)
	orders, err := stageOf(ctx, rt, "orders/orders.wasm")
	if err != nil {
		return nil, err
	}
	defer orders.Close(ctx)
	pass, err := stageOf(ctx, rt, "upper/upper.wasm")
	if err != nil {
		return nil, err
	}
	defer pass.Close(ctx)
	var rows []row
	for _, n := range []int{1, 16, 128} {
		b := eventBatch(n)
		empty := eventBatch(n)
		for i := range empty.Records {
			empty.Records[i].Value = []byte{}
		}
		native := perRecord(n, func() { nativeBatch(b) })
		var out record.Results
		boundary := perRecord(n, func() {
			out.Reset()
			if err := pass.Process(ctx, empty, &out); err != nil {
				panic(err)
			}
		})
		guest := perRecord(n, func() {
			out.Reset()
			if err := orders.Process(ctx, b, &out); err != nil {
				panic(err)
			}
		})
		rows = append(rows,
			row{figure: fmt.Sprintf("batch of %d: boundary alone (empty value)", n), value: fmt.Sprintf("%.0f ns", boundary)},
			row{figure: fmt.Sprintf("batch of %d: order stage, native Go", n), value: fmt.Sprintf("%.0f ns", native)})
		if n == 128 {
			// abi.md's 922 ns over its 358 of the native twin.
			rows = append(rows, row{figure: "batch of 128: order stage, Rust", value: fmt.Sprintf("%.0f ns", guest)},
				atMost("batch of 128: Rust / native", guest/native, 922.0/358, "x"))
		} else {
			rows = append(rows, row{figure: fmt.Sprintf("batch of %d: order stage, Rust", n), value: fmt.Sprintf("%.0f ns (%.2fx)", guest, guest/native)})
		}
	}
	return rows, nil
}

func stageOf(ctx context.Context, rt *sandbox.Runtime, file string) (*sandbox.Stage, error) {
	wasm, err := examples.Files.ReadFile(file)
	if err != nil {
		return nil, err
	}
	m, err := rt.Compile(ctx, wasm)
	if err != nil {
		return nil, err
	}
	return m.NewStage(ctx, sandbox.StageConfig{Flow: "bench", Stage: file})
}

func eventBatch(n int) *record.Batch {
	g := gen.New(1)
	b := &record.Batch{Partition: record.Partition{Topic: "orders"}, Now: 1_700_000_000_000}
	for i := range n {
		e := g.Next()
		b.Records = append(b.Records, record.Record{Key: e.Key, Value: e.Value, Topic: "orders", Offset: int64(i), Attempt: 1, To: -1})
	}
	return b
}

func nativeBatch(b *record.Batch) []record.Record {
	out := make([]record.Record, 0, len(b.Records))
	buf := make([]byte, 0, 300*len(b.Records))
	for i := range b.Records {
		at := len(buf)
		var o orderstage.Outcome
		if buf, o = orderstage.Order(buf, b.Records[i].Value); o == orderstage.Emit {
			r := b.Records[i]
			r.Value = buf[at:len(buf):len(buf)]
			out = append(out, r)
		}
	}
	return out
}

// perRecord is the median of five benchmarks of f, in ns by record.
func perRecord(n int, f func()) float64 {
	var v []float64
	for range 5 {
		r := testing.Benchmark(func(b *testing.B) {
			for b.Loop() {
				f()
			}
		})
		v = append(v, float64(r.T.Nanoseconds())/float64(r.N)/float64(n))
	}
	return median(v)
}
