package rewrite_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/millrace-io/millrace/plugins/rewrite"
)

// refueled runs a module whose exports begin with budget each, and tells what
// is left and what was spent.
func refueled(t *testing.T, config wazero.RuntimeConfig, wasm []byte, per rewrite.ExportFuel) (_ *guest, left, spent func() int64) {
	t.Helper()
	opt := rewrite.Options{Fuel: true, InitialFuel: per.Budget, FuelPerExport: &per}
	res, err := rewrite.Rewrite(wasm, opt)
	if err != nil {
		t.Fatal(err)
	}
	g := newGuest(t, config, wasm, opt)
	ask := func(export string) func() int64 {
		return func() int64 {
			t.Helper()
			out, err := g.ExportedFunction(export).Call(t.Context())
			if err != nil || len(out) != 1 {
				t.Fatalf("ask %s: %v, %v", export, out, err)
			}
			return int64(int32(uint32(out[0])))
		}
	}
	return g, ask(res.Fuel.Left), ask(res.Fuel.Spent)
}

func TestFuelPerExport(t *testing.T) {
	// A loop of 100 turns costs 101 units.
	wasm := fuelModule(1, fnLocals("\x7f\x7f", turns(0, 100)))
	for engine, config := range engines {
		t.Run(engine, func(t *testing.T) {
			g, left, spent := refueled(t, config(), wasm, rewrite.ExportFuel{Budget: 150})
			if n := left(); n != 150 || spent() != 0 {
				t.Errorf("at the start: %d left, want 150, %d spent", n, spent())
			}
			for i := range 3 {
				if _, err := g.ExportedFunction("f").Call(t.Context()); err != nil {
					t.Fatalf("call %d: %v", i, err)
				}
				if n := left(); n != 49 || left() != n || spent() != 101*int64(i+1) {
					t.Errorf("call %d: %d left, want 49, %d spent", i, n, spent())
				}
			}
			g, left, spent = refueled(t, config(), wasm, rewrite.ExportFuel{Budget: 100})
			if _, err := g.ExportedFunction("f").Call(t.Context()); err == nil || !strings.Contains(err.Error(), "unreachable") {
				t.Errorf("got %v, want a trap", err)
			}
			if n := left(); n != -1 || spent() != 101 {
				t.Errorf("got %d left, want -1, %d spent", n, spent())
			}
		})
	}
	for _, budget := range []int64{0, -1, rewrite.MaxExportFuel + 1} {
		if _, err := rewrite.Rewrite(wasm, rewrite.Options{Fuel: true, FuelPerExport: &rewrite.ExportFuel{Budget: budget}}); err == nil {
			t.Errorf("a budget of %d was taken", budget)
		}
	}
}

// callsModule is a module of functions of type () -> () behind an imported one,
// with a table of 2 entries and a mutable global "g".
func callsModule(exports [][]byte, codes ...[]byte) []byte {
	var decls, bodies [][]byte
	for range codes {
		decls = append(decls, []byte{0})
	}
	for _, c := range codes {
		bodies = append(bodies, body(c...))
	}
	return newWasm().
		vec(1, funcTypeOf("", "")).
		vec(2, importOf("env", "host", 0, 0)).
		vec(3, decls...).
		vec(4, []byte{0x70, 0, 2}).
		vec(6, i32Global(true, 0)).
		vec(7, append(exports, exportOf("g", 3, 0))...).
		vec(10, bodies...).out
}

func TestFuelPerExportInitializers(t *testing.T) {
	increment := []byte{0x23, 0, 0x41, 1, 0x6a, 0x24, 0}
	wasm := callsModule([][]byte{exportOf("_initialize", 0, 1), exportOf("loop", 0, 2), exportOf("plain", 0, 1)},
		increment, []byte{0x03, 0x40, 0x0c, 0, 0x0b})
	g, left, _ := refueled(t, wazero.NewRuntimeConfig(), wasm, rewrite.ExportFuel{Budget: 1000, Initializers: []string{"_initialize"}})
	call := func(name string) error {
		_, err := g.ExportedFunction(name).Call(t.Context())
		return err
	}
	count := func() int64 { return int64(g.ExportedGlobal("g").Get()) }
	if err := call("_initialize"); err != nil || count() != 1 {
		t.Fatalf("got %v, count %d", err, count())
	}
	if err := call("loop"); err == nil {
		t.Fatal("an endless loop ended")
	}
	if err := call("_initialize"); err != nil || count() != 1 || left() >= 0 {
		t.Errorf("got %v, count %d, %d left: want it to return at once and leave the counter", err, count(), left())
	}
}

// References in code to a function that only an export names stay valid, and
// imported functions that are exported stay callable and pay when the guest
// calls them.
func TestFuelPerExportReferences(t *testing.T) {
	// 1: puts a reference to itself and one to the import into the table; 2:
	// calls the import through the table.
	wasm := callsModule([][]byte{exportOf("put", 0, 1), exportOf("go", 0, 2), exportOf("host", 0, 0)},
		[]byte{0x41, 0, 0xd2, 1, 0x26, 0, 0x41, 1, 0xd2, 0, 0x26, 0}, []byte{0x41, 1, 0x11, 0, 0})
	for engine, config := range engines {
		t.Run(engine, func(t *testing.T) {
			g, left, _ := refueled(t, config(), wasm, rewrite.ExportFuel{Budget: 1000})
			for _, name := range []string{"put", "go", "host"} {
				if _, err := g.ExportedFunction(name).Call(t.Context()); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			if n := left(); n != 1000-rewrite.FuelHostCall {
				t.Errorf("got %d left after a call of the import, want it paid", n)
			}
		})
	}
}

// Modules of real toolchains stay valid and keep their exports.
func TestFuelPerExportRealModules(t *testing.T) {
	ctx := t.Context()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	defer rt.Close(ctx)
	signatures := func(m wazero.CompiledModule) map[string]string {
		out := map[string]string{}
		for name, d := range m.ExportedFunctions() {
			out[name] = fmt.Sprint(d.ParamTypes(), d.ResultTypes())
		}
		return out
	}
	accepted := 0
	for name, wasm := range realModules(t) {
		if len(wasm) > 200_000 {
			continue
		}
		orig, err := rt.CompileModule(ctx, wasm)
		if err != nil {
			continue
		}
		res, err := rewrite.Rewrite(wasm, rewrite.Options{Fuel: true, InitialFuel: 5, FuelPerExport: &rewrite.ExportFuel{Budget: 5}})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		mod, err := rt.CompileModule(ctx, res.Wasm)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		accepted++
		got := signatures(mod)
		if want := fmt.Sprint([]api.ValueType{}, []api.ValueType{api.ValueTypeI32}); got[res.Fuel.Left] != want {
			t.Errorf("%s: %q is %q, want %q", name, res.Fuel.Left, got[res.Fuel.Left], want)
		}
		delete(got, res.Fuel.Left)
		delete(got, res.Fuel.Spent)
		if want := signatures(orig); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: got exports %v, want %v", name, got, want)
		}
	}
	if accepted < 40 {
		t.Errorf("only %d modules were accepted", accepted)
	}
}
