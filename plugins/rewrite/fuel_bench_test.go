package rewrite_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/millrace-io/millrace/examples/orders/gen"
	"github.com/millrace-io/millrace/plugins/rewrite"
)

func ordersModule(t testing.TB) []byte {
	t.Helper()
	wasm, err := os.ReadFile(filepath.Join("..", "..", "examples", "orders", "orders.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

// ordersFrame is a request frame of n order events.
func ordersFrame(n int) []byte {
	le := binary.LittleEndian
	events := gen.New(3)
	f := make([]byte, 32)
	for i := range n {
		value := events.Next().Value
		h := make([]byte, 72, 72+len(value)+8)
		le.PutUint32(h[4:], uint32(i))
		le.PutUint32(h[36:], 1)
		le.PutUint32(h[44:], uint32(len(value)))
		h = append(h, value...)
		for len(h)%8 != 0 {
			h = append(h, 0)
		}
		le.PutUint32(h, uint32(len(h)))
		f = append(f, h...)
	}
	le.PutUint32(f, uint32(len(f)))
	le.PutUint16(f[4:], 1)
	le.PutUint16(f[6:], 1)
	le.PutUint32(f[8:], uint32(n))
	return f
}

// guest is an instance of a module that may count fuel.
type guest struct {
	api.Module
	fuel api.MutableGlobal
}

func newGuest(t testing.TB, config wazero.RuntimeConfig, wasm []byte, opt rewrite.Options) *guest {
	t.Helper()
	ctx := context.Background()
	res, err := rewrite.Rewrite(wasm, opt)
	if err != nil {
		t.Fatal(err)
	}
	rt := wazero.NewRuntimeWithConfig(ctx, config)
	t.Cleanup(func() { rt.Close(ctx) })
	if _, err := rt.NewHostModuleBuilder("env").
		NewFunctionBuilder().WithFunc(func() {}).Export("host").
		NewFunctionBuilder().WithFunc(func(a, b int32) int32 { return a - b }).Export("sub").
		Instantiate(ctx); err != nil {
		t.Fatal(err)
	}
	mod, err := rt.InstantiateWithConfig(ctx, res.Wasm, wazero.NewModuleConfig().WithName(""))
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{Module: mod}
	if opt.Fuel {
		g.fuel = mod.ExportedGlobal(res.Fuel.Export).(api.MutableGlobal)
	}
	return g
}

// runOrders returns a function that lets the orders guest process a frame.
func (g *guest) runOrders(t testing.TB, frame []byte) func() []byte {
	t.Helper()
	ctx := context.Background()
	alloc, batch := g.ExportedFunction("stage_alloc"), g.ExportedFunction("stage_batch")
	stack := []uint64{uint64(len(frame)), 0}
	if err := alloc.CallWithStack(ctx, stack); err != nil {
		t.Fatal(err)
	}
	at := stack[0]
	return func() []byte {
		if !g.Memory().Write(uint32(at), frame) {
			t.Fatal("the frame does not fit")
		}
		stack[0], stack[1] = at, uint64(len(frame))
		if err := batch.CallWithStack(ctx, stack); err != nil {
			t.Fatal(err)
		}
		out, ok := g.Memory().Read(uint32(stack[0]>>32), uint32(stack[0]))
		if !ok || len(out) == 0 {
			t.Fatalf("no result at %#x", stack[0])
		}
		return out
	}
}

// BenchmarkFuelOrders lets the orders guest run with and without fuel by
// turns, so that what else the machine does meets both, and reports medians.
func BenchmarkFuelOrders(b *testing.B) {
	const records = 128
	frame := ordersFrame(records)
	plain := newGuest(b, wazero.NewRuntimeConfig(), ordersModule(b), rewrite.Options{})
	metered := newGuest(b, wazero.NewRuntimeConfig(), ordersModule(b), rewrite.Options{Fuel: true})
	runs := [2]func() []byte{plain.runOrders(b, frame), metered.runOrders(b, frame)}
	if !bytes.Equal(runs[0](), runs[1]()) {
		b.Fatal("the results differ")
	}
	metered.fuel.Set(1 << 40)
	runs[1]()
	units := float64(1<<40-metered.fuel.Get()) / records
	var times [2][]float64
	for b.Loop() {
		for i, run := range runs {
			began := time.Now()
			run()
			times[i] = append(times[i], float64(time.Since(began).Nanoseconds())/records)
		}
	}
	for i := range times {
		slices.Sort(times[i])
	}
	without, with := times[0][len(times[0])/2], times[1][len(times[1])/2]
	b.ReportMetric(without, "ns/record-without")
	b.ReportMetric(with, "ns/record-with")
	b.ReportMetric(with/without, "ratio")
	b.ReportMetric(units, "units/record")
	b.ReportMetric(with/units, "ns/unit")
}

// BenchmarkFuelTightLoop counts to a million: what a unit is when it buys
// least.
func BenchmarkFuelTightLoop(b *testing.B) {
	const n = 1_000_000
	wasm := fuelModule(1, fnLocals("\x7f", turns(0, n)))
	for _, fuel := range []bool{false, true} {
		b.Run("fuel="+strconv.FormatBool(fuel), func(b *testing.B) {
			g := newGuest(b, wazero.NewRuntimeConfig(), wasm, rewrite.Options{Fuel: fuel})
			f := g.ExportedFunction("f")
			for b.Loop() {
				if _, err := f.Call(context.Background()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/turn")
		})
	}
}

func BenchmarkFuelRewrite(b *testing.B) {
	modules := realModules(b)
	for _, name := range []string{
		"/imports/wasi_snapshot_preview1/testdata/zig-cc/wasi.wasm",
		"/imports/wasi_snapshot_preview1/testdata/cargo-wasi/wasi.wasm",
		"orders",
	} {
		wasm := modules[name]
		if name == "orders" {
			wasm = ordersModule(b)
		}
		b.Run("module="+filepath.Base(filepath.Dir(name)), func(b *testing.B) {
			b.SetBytes(int64(len(wasm)))
			b.ReportAllocs()
			var res *rewrite.Result
			for b.Loop() {
				var err error
				if res, err = rewrite.Rewrite(wasm, rewrite.Options{Fuel: true}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(b.Elapsed().Seconds()*1e3/float64(b.N)/float64(len(wasm))*(1<<20), "ms/MB")
			b.ReportMetric(float64(len(res.Wasm))/float64(len(wasm)), "growth")
			b.ReportMetric(float64(res.Facts.CodeBytes), "code-bytes")
		})
	}
}
