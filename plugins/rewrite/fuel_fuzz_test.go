package rewrite_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/millrace-io/millrace/plugins/internal/wasmgen"
	"github.com/millrace-io/millrace/plugins/rewrite"
)

// fuzzRun is what the exported functions of a module did, one after the other.
type fuzzRun struct {
	outcomes []string
	memory   []byte

	// tight: it ran out of fuel or of stack, which need not happen at the same
	// place on the other side.
	tight bool
}

// runExports instantiates a module and calls what needs no parameters.
func runExports(ctx context.Context, t *testing.T, wasm []byte, fuel string) (run fuzzRun, compiles bool) {
	const budget = 20_000
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithMemoryLimitPages(16))
	defer rt.Close(ctx)
	compiled, err := rt.CompileModule(ctx, wasm)
	if err != nil {
		return run, false
	}
	if _, err := rt.NewHostModuleBuilder("env").
		NewFunctionBuilder().WithFunc(func() {}).Export("host").
		NewFunctionBuilder().WithFunc(func(a, b int32) int32 { return a - b }).Export("sub").
		Instantiate(ctx); err != nil {
		t.Fatal(err)
	}
	done := func(results []uint64, err error) {
		text := fmt.Sprintf("%x", results)
		if err != nil {
			text, _, _ = strings.Cut(err.Error(), "\n")
			run.tight = run.tight || strings.Contains(err.Error(), "stack overflow")
		}
		run.outcomes = append(run.outcomes, text)
	}
	mod, err := rt.InstantiateModule(ctx, compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		// Whether a start function ran out of fuel cannot be told here.
		run.tight = strings.Contains(err.Error(), "unreachable") || strings.Contains(err.Error(), "stack overflow")
		run.outcomes = []string{"not instantiated"}
		return run, true
	}
	var names []string
	for name, def := range compiled.ExportedFunctions() {
		if len(def.ParamTypes()) == 0 && !slices.ContainsFunc(def.ResultTypes(), func(t api.ValueType) bool {
			return t == api.ValueTypeExternref || t == 0x70
		}) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if fuel != "" {
			mod.ExportedGlobal(fuel).(api.MutableGlobal).Set(budget)
		}
		f := mod.ExportedFunction(name)
		results, err := f.Call(ctx)
		for i, typ := range f.Definition().ResultTypes() {
			if err == nil && i < len(results) && (typ == api.ValueTypeI32 || typ == api.ValueTypeF32) && len(results) == len(f.Definition().ResultTypes()) {
				results[i] = uint64(uint32(results[i])) // The upper half is undefined.
			}
		}
		done(results, err)
		if fuel != "" && int64(mod.ExportedGlobal(fuel).Get()) < 0 {
			run.tight = true
			return run, true
		}
	}
	run.memory = bytes.Clone(memoryOf(mod))
	return run, true
}

// FuzzFuel checks that a metered module is valid exactly if the module is, and
// that it does the same as long as it has fuel. It runs the metered one first,
// and the other only when that ended.
func FuzzFuel(f *testing.F) {
	f.Add(counterModule())
	f.Add(kitchenSink())
	f.Add(fuelModule(1, fn(forever())))
	for _, name := range []string{"indirect to host", "recursion doubled", "short copies", "br_table", "table.grow 1", "memory.grow 1", "references"} {
		f.Add(hostileModules()[name])
	}
	f.Add(fuelModule(1, fnLocals("\x7f\x7f", turns(0, 9, []byte{0x10, 0, 0x10, 3}, i32c(8), []byte{0x20, 0}, i32c(300), []byte{0xfc, 0x0b, 0}))))
	f.Add(fuelModule(1, fn([]byte{0x02, 0x40, 0x0c, 0, 0xfc, 0x0b, 0, 0x40, 0, 0x1a, 0x0b, 0xd2, 0, 0x1a})))
	for seed := range uint64(4) {
		f.Add(wasmgen.Stage(seed))
	}
	f.Fuzz(func(t *testing.T, wasm []byte) { compareFuel(t, wasm) })
}

// compareFuel reports whether the module could be run to its end on both
// sides.
func compareFuel(t *testing.T, wasm []byte) bool {
	plain := rewrite.Options{
		Limits:          rewrite.Limits{MaxLocals: 1000, MaxTotalLocals: 10_000, MaxNesting: 200, MaxLoopNesting: 50},
		MaxTableEntries: 1000,
	}
	metered := plain
	metered.Fuel, metered.InitialFuel = true, 20_000
	ctx := context.Background()
	before := bytes.Clone(wasm)
	with, err := rewrite.Rewrite(wasm, metered)
	if !bytes.Equal(wasm, before) {
		t.Fatal("the input was changed")
	}
	without, plainErr := rewrite.Rewrite(wasm, plain)
	if err != nil {
		var r *rewrite.RefusedError
		if !errors.As(err, &r) || r.Reason == "" || r.Kind == 0 {
			t.Fatalf("got %#v, want a RefusedError with a reason", err)
		}
		if plainErr != nil {
			return false
		}
		if r.Kind != rewrite.Malformed {
			t.Fatalf("refused with fuel only: %v", err)
		}
		rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
		defer rt.Close(ctx)
		if _, compileErr := rt.CompileModule(ctx, without.Wasm); compileErr == nil {
			t.Fatalf("wazero compiles the module, but with fuel: %v", err)
		}
		return false
	}
	entries := uint64(0)
	for _, table := range with.Facts.Tables {
		entries += uint64(table.Min)
	}
	if entries > 10_000 {
		return false
	}
	got, compiles := runExports(ctx, t, with.Wasm, with.Fuel.Export)
	if got.tight {
		return false
	}
	want, valid := runExports(ctx, t, without.Wasm, "")
	if compiles != valid {
		t.Fatalf("wazero compiles the module: %v, with fuel: %v", valid, compiles)
	}
	if want.tight {
		return false
	}
	if !slices.Equal(got.outcomes, want.outcomes) || !bytes.Equal(got.memory, want.memory) {
		t.Fatalf("with fuel %q, without %q; memories equal: %v", got.outcomes, want.outcomes, bytes.Equal(got.memory, want.memory))
	}
	return valid
}

// TestFuelRandom compares random modules that are valid.
func TestFuelRandom(t *testing.T) {
	const modules = 300
	compared := 0
	for seed := range uint64(modules) {
		m := &wasmgen.Maker{Rand: rand.New(rand.NewPCG(seed, 4)), Tables: true, Growth: true}
		var fns []fuelFunc
		for range 6 {
			m.Left = 10 + m.IntN(300)
			fns = append(fns, fnLocals(strings.Repeat("\x7f", wasmgen.Locals), m.Statements(), m.Statements()))
		}
		if compareFuel(t, fuelModule(1, fns...)) {
			compared++
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d of %d modules ended", compared, modules)
	if compared < modules/4 {
		t.Errorf("only %d of %d modules ended", compared, modules)
	}
}
