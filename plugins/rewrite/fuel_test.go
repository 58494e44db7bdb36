package rewrite_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/millrace-io/millrace/plugins/rewrite"
)

// engines are those that must agree on everything.
var engines = map[string]func() wazero.RuntimeConfig{
	"compiler":    wazero.NewRuntimeConfig,
	"interpreter": wazero.NewRuntimeConfigInterpreter,
}

// turns is a loop that runs n times and counts in local i: 9 instructions
// besides body in its region.
func turns(i byte, n int, body ...[]byte) []byte {
	return cat([]byte{0x03, 0x40}, cat(body...),
		[]byte{0x20, i, 0x41, 1, 0x6a, 0x22, i}, i32c(n), []byte{0x48, 0x0d, 0, 0x0b})
}

func TestFuelCosts(t *testing.T) {
	nops := func(n int) []byte { return repeat(n, 0x01) }
	bulk := func(n int, op ...byte) []byte { return cat(i32c(0), i32c(0), i32c(n), op) }
	call := func(i byte) []byte { return []byte{0x10, i} }
	indirect := func(i int) []byte { return cat(i32c(i), []byte{0x11, 0, 0}) }
	grow := func(n int) []byte { return cat(i32c(n), []byte{0x40, 0, 0x1a}) }
	growTable := func(n int) []byte { return cat([]byte{0xd0, 0x70}, i32c(n), []byte{0xfc, 0x0f, 0, 0x1a}) }
	i32 := func(code ...[]byte) fuelFunc { return fnLocals("\x7f\x7f", code...) }
	// turns0 is a loop that costs 1, so that the function is not free.
	turns0 := []byte{0x03, 0x40, 0x0b}
	// down calls itself with its first parameter less 1 until that is 0: 12
	// instructions.
	down := fuelFunc{typ: 1, code: []byte{0x20, 0, 0x45, 0x04, 0x7f, 0x41, 0, 0x05, 0x20, 0, 0x41, 1, 0x6b, 0x41, 0, 0x10, 3, 0x0b}}
	tests := []struct {
		name string
		fns  []fuelFunc
		want int64
	}{
		{"empty function", []fuelFunc{fn()}, 0},
		{"a weight of 63 is free", []fuelFunc{fn(nops(63))}, 0},
		{"a weight of 64", []fuelFunc{fn(nops(64))}, 1 + 4},
		{"a weight of 79", []fuelFunc{fn(nops(79))}, 1 + 4},
		{"a weight of 80", []fuelFunc{fn(nops(80))}, 1 + 5},
		{"short blocks and branches are paid for before", []fuelFunc{fn([]byte{0x02, 0x40, 0x0b}, i32c(0), []byte{0x04, 0x40}, nops(10), []byte{0x05, 0x0b}, nops(20), turns0)}, 1 + 2 + 1},
		{"a long branch that is not taken", []fuelFunc{fn(i32c(0), []byte{0x04, 0x40}, nops(1000), []byte{0x0b}, turns0)}, 1 + 1},
		{"a long branch that is taken", []fuelFunc{fn(i32c(1), []byte{0x04, 0x40}, nops(1000), []byte{0x0b}, turns0)}, 1 + 63 + 1},
		{"the other branch", []fuelFunc{fn(i32c(0), []byte{0x04, 0x40}, nops(1000), []byte{0x05}, nops(100), []byte{0x0b}, turns0)}, 1 + 7 + 1},
		{"behind a block that is left", []fuelFunc{fn([]byte{0x02, 0x40, 0x0c, 0}, nops(1000), []byte{0x0b}, nops(100), turns0)}, 1 + 62 + 7 + 1},
		{"one of 20 branches of a br_table", []fuelFunc{fn(manyBranches(20, 160), turns0)}, 1 + 3 + 10 + 1},
		{"short branches, taken or not", []fuelFunc{fn(slices.Repeat(cat(i32c(0), []byte{0x04, 0x40}, nops(16), []byte{0x0b}), 30), turns0)}, 46},
		{"a frame of 32 locals", []fuelFunc{fnLocals(strings.Repeat("\x7f", 32), turns0)}, 1 + 6 + 1},
		{"4 for a division, 63 in all", []fuelFunc{fn(slices.Repeat(cat(i32c(1), i32c(1), []byte{0x6d, 0x1a}), 8), nops(7))}, 0},
		{"4 for a division, 64 in all", []fuelFunc{fn(slices.Repeat(cat(i32c(1), i32c(1), []byte{0x6d, 0x1a}), 8), nops(8))}, 1 + 4},
		{"ref.func", []fuelFunc{fn([]byte{0xd2, 2, 0x1a})}, 1 + 130/16},

		{"a load", []fuelFunc{fn(i32c(0), []byte{0x28, 2, 0, 0x1a})}, 1 + 14},
		{"loads of one base", []fuelFunc{i32(slices.Repeat([]byte{0x20, 0, 0x28, 2, 4, 0x1a}, 10))}, 1 + (224+9*12+20)/16},
		{"loads of one base that changes", []fuelFunc{i32(slices.Repeat([]byte{0x20, 0, 0x28, 2, 4, 0x21, 0}, 10))}, 1 + 10*226/16},
		{"loads of one base, branches between", []fuelFunc{i32(slices.Repeat([]byte{0x20, 0, 0x28, 2, 4, 0x1a, 0x02, 0x40, 0x0b}, 10), turns0)}, 1 + 10*226/16 + 1},
		{"a load of another value", []fuelFunc{i32([]byte{0x20, 0, 0x28, 2, 4, 0x1a, 0x20, 0, 0x45, 0x28, 2, 4, 0x1a})}, 1 + (226+227)/16},
		{"stores", []fuelFunc{i32(slices.Repeat([]byte{0x20, 0, 0x20, 0, 0x36, 2, 4}, 10))}, 1 + 10*26/16},
		{"denormals", []fuelFunc{fnLocals("\x7c", slices.Repeat([]byte{0x20, 0, 0x20, 0, 0xa2, 0x21, 0}, 10))}, 1 + 10*43/16},

		{"a loop of one turn", []fuelFunc{i32(turns(0, 1))}, 1 + 1},
		{"a loop of 100 turns", []fuelFunc{i32(turns(0, 100))}, 1 + 100},
		{"a loop of weight 15", []fuelFunc{i32(turns(0, 100, nops(8)))}, 1 + 100},
		{"a loop of weight 16", []fuelFunc{i32(turns(0, 100, nops(9)))}, 1 + 100*2},
		{"code beside a loop", []fuelFunc{i32(nops(13), turns(0, 100), nops(3))}, 2 + 100},
		{"nested loops", []fuelFunc{i32(turns(0, 5, []byte{0x41, 0, 0x21, 1}, turns(1, 7, nops(25))))}, 1 + 5 + 5*7*3},
		{"loops side by side", []fuelFunc{i32(turns(0, 5), turns(1, 7))}, 1 + 5 + 7},

		{"call", []fuelFunc{fn(call(3)), fn(nops(64))}, 1 + 6 + 5},
		{"call of a free function", []fuelFunc{fn(call(3)), fn(nops(62))}, 1 + (96+62)/16},
		{"call of a free function, 111 in all", []fuelFunc{fn(call(3)), fn(nops(15))}, 1 + 6},
		{"call of a free function, 112 in all", []fuelFunc{fn(call(3)), fn(nops(16))}, 1 + 7},
		{"free functions in a loop", []fuelFunc{i32(turns(0, 10, repeat(4, 0x10, 3))), fn(nops(63))}, 1 + 10*(1+(7+4*(96+63))/16)},
		{"chain of calls", []fuelFunc{fn(call(3)), fn(call(4)), fn(call(5)), fn()}, 3 * (1 + 6)},
		{"recursion", []fuelFunc{fn(i32c(9), i32c(0), call(3), []byte{0x1a}), down}, 10*(1+6) + 7},
		{"call_indirect of a free function", []fuelFunc{fn(indirect(3)), fn()}, 1 + (1+128+64)/16},
		{"call_indirect", []fuelFunc{fn(indirect(3)), fn(nops(64))}, 13 + 5},

		{"host function", []fuelFunc{fn(call(0))}, 7 + 64},
		{"host function with parameters", []fuelFunc{fn(i32c(5), i32c(3), call(1), []byte{0x1a})}, 7 + 64},
		{"host function through the table", []fuelFunc{fn(indirect(0))}, 13 + 64},
		{"host function through a reference", []fuelFunc{fn(i32c(9), []byte{0xd2, 0, 0x26, 0}, indirect(9))}, 1 + (1+128+128+1+192)/16 + 64},

		{"memory.fill of 0", []fuelFunc{fn(bulk(0, 0xfc, 0x0b, 0))}, 17 + 1},
		{"memory.fill of 255", []fuelFunc{fn(bulk(255, 0xfc, 0x0b, 0))}, 17 + 4},
		{"memory.fill of 256", []fuelFunc{fn(bulk(256, 0xfc, 0x0b, 0))}, 17 + 5},
		{"memory.fill of 64 KiB", []fuelFunc{fn(bulk(65536, 0xfc, 0x0b, 0))}, 17 + 1025},
		{"memory.copy of 1000", []fuelFunc{fn(bulk(1000, 0xfc, 0x0a, 0, 0))}, 17 + 16},
		{"memory.init of 600", []fuelFunc{fn(bulk(600, 0xfc, 0x08, 0, 0))}, 17 + 10},
		{"two of them", []fuelFunc{fn(bulk(600, 0xfc, 0x08, 0, 0), bulk(512, 0xfc, 0x0a, 0, 0))}, 33 + 10 + 9},
		{"bulk operations in a loop", []fuelFunc{i32(turns(0, 3, bulk(512, 0xfc, 0x0a, 0, 0)))}, 1 + 3*(17+9)},
		{"table.init", []fuelFunc{fn(bulk(1, 0xfc, 0x0c, 1, 0))}, 17 + 1},
		{"table.copy", []fuelFunc{fn(bulk(10, 0xfc, 0x0e, 0, 0))}, 17 + 1},
		{"table.grow of 255", []fuelFunc{fn(growTable(255))}, 17 + 4},
		{"table.grow of 256", []fuelFunc{fn(growTable(256))}, 17 + 5},
		{"table.fill of 300", []fuelFunc{fn(growTable(290), i32c(0), []byte{0xd0, 0x70}, i32c(300), []byte{0xfc, 0x11, 0})}, 33 + 5 + 5},
		{"table.grow that cannot be", []fuelFunc{fn(growTable(-1))}, 17 + 1 + 1<<26 - 1},
		{"memory.grow of 0", []fuelFunc{fn(grow(0))}, 64},
		{"memory.grow of 1", []fuelFunc{fn(grow(1))}, 64 + 256},
		{"memory.grow of 65,536, which cannot be", []fuelFunc{fn(grow(65536))}, 64},
		{"memory.grow of 2^32-1", []fuelFunc{fn(grow(-1))}, 64},
		{"code that is never reached", []fuelFunc{fn([]byte{0x02, 0x40, 0x0c, 0, 0xfc, 0x0b, 0, 0xfc, 0x0a, 0, 0, 0xfc, 0x11, 0, 0x40, 0, 0x1a, 0xfc, 0x0f, 0, 0x1a, 0x0b})}, 1 + 1031/16},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wasm := fuelModule(1, tt.fns...)
			for engine, config := range engines {
				for range 2 {
					g := newGuest(t, config(), wasm, rewrite.Options{Fuel: true})
					const budget = 1 << 40
					g.fuel.Set(budget)
					if _, err := g.ExportedFunction("f").Call(t.Context()); err != nil {
						t.Fatal(err)
					}
					if got := budget - int64(g.fuel.Get()); got != tt.want {
						t.Errorf("%s: got %d units, want %d", engine, got, tt.want)
					}
					if tt.want == 0 {
						continue
					}
					g.fuel.Set(uint64(tt.want))
					if _, err := g.ExportedFunction("f").Call(t.Context()); err != nil || g.fuel.Get() != 0 {
						t.Errorf("%s: with just enough: %d left, %v", engine, g.fuel.Get(), err)
					}
					g.fuel.Set(uint64(tt.want - 1))
					_, err := g.ExportedFunction("f").Call(t.Context())
					if err == nil || !strings.Contains(err.Error(), "unreachable") || int64(g.fuel.Get()) >= 0 {
						t.Errorf("%s: with one unit too few: %d left, %v", engine, int64(g.fuel.Get()), err)
					}
				}
			}
		})
	}
}

// manyBranches chooses the second of n branches, each of which has a weight.
func manyBranches(n, weight int) []byte {
	code := cat([]byte{0x02, 0x40}, repeat(n, 0x02, 0x40), i32c(1), []byte{0x0e}, leb(n))
	for i := range n + 1 {
		code = append(code, byte(i))
	}
	for i := range n {
		code = cat(code, []byte{0x0b}, repeat(weight-1, 0x01), []byte{0x0c}, leb(n-1-i))
	}
	return cat(code, []byte{0x0b})
}

// TestFuelChargesFirst checks that nothing has happened when the fuel for it
// is missing, and that traps of the guest's own leave the counter positive.
func TestFuelChargesFirst(t *testing.T) {
	fill := cat(i32c(0), i32c(1), i32c(1000), []byte{0xfc, 0x0b, 0})
	for engine, config := range engines {
		t.Run(engine, func(t *testing.T) {
			g := newGuest(t, config(), fuelModule(1, fn(fill)), rewrite.Options{Fuel: true})
			g.fuel.Set(17 + 7)
			_, err := g.ExportedFunction("f").Call(t.Context())
			if b, _ := g.Memory().ReadByte(0); err == nil || b != 0 {
				t.Errorf("got %v and byte %d, want a trap and 0", err, b)
			}
			g = newGuest(t, config(), fuelModule(1, fn(cat(i32c(3), []byte{0x40, 0, 0x1a}))), rewrite.Options{Fuel: true})
			for fuel, want := range map[uint64]uint32{63: 65536, 111: 4 * 65536} { // pages are paid for once they are there
				g.fuel.Set(fuel)
				if _, err = g.ExportedFunction("f").Call(t.Context()); err == nil || g.Memory().Size() < want {
					t.Errorf("got %v and %d bytes of memory, want a trap and %d", err, g.Memory().Size(), want)
				}
			}
			for _, code := range [][]byte{{0x00}, cat(i32c(0), i32c(0), i32c(-1), []byte{0xfc, 0x0b, 0})} {
				g = newGuest(t, config(), fuelModule(1, fn(code)), rewrite.Options{Fuel: true})
				if _, err = g.ExportedFunction("f").Call(t.Context()); err == nil || int64(g.fuel.Get()) < 0 {
					t.Errorf("code %x: got %v and %d units, want a trap and some left", code, err, int64(g.fuel.Get()))
				}
			}
		})
	}
}

// TestFuelOutOfReach tries modules that are invalid, and would be valid once
// a counter, functions, types and locals are appended.
func TestFuelOutOfReach(t *testing.T) {
	tests := []struct {
		name, text string
		code       []byte
	}{
		{"global.get", "global 0 of 0", []byte{0x23, 0, 0x1a}},
		{"global.set", "global 0 of 0", []byte{0x42, 0, 0x24, 0}},
		{"call", "function 3 of 3", []byte{0x42, 0, 0x10, 3}},
		{"ref.func", "function 3 of 3", []byte{0xd2, 3, 0x1a}},
		{"call_indirect", "type 4 of 4", []byte{0x42, 0, 0x41, 0, 0x11, 4, 0}},
		{"block type", "type 4 of 4", []byte{0x42, 0, 0x02, 4, 0x1a, 0x0b}},
		{"loop type", "type 4 of 4", []byte{0x42, 0, 0x03, 4, 0x1a, 0x0b}},
		{"local.get", "local 0 of 0", []byte{0x20, 0, 0x1a}},
		{"local.tee", "local 1 of 0", []byte{0x42, 0, 0x22, 1, 0x1a}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// The host call and the operation on memory make additions needed.
			needs := cat([]byte{0x10, 0}, i32c(0), i32c(0), i32c(0), []byte{0xfc, 0x0b, 0}, forever())
			_, err := rewrite.Rewrite(fuelModule(1, fn(tt.code, needs)), rewrite.Options{Fuel: true})
			var r *rewrite.RefusedError
			if !errors.As(err, &r) || r.Kind != rewrite.Malformed || r.Func != 2 || !strings.Contains(r.Reason, tt.text) {
				t.Errorf("got %v, want function 2 refused for %s", err, tt.text)
			}
		})
	}
	for name, wasm := range map[string][]byte{
		"offset of data":     newWasm().vec(5, []byte{0, 1}).vec(11, []byte{0, 0x23, 0, 0x0b, 0}).out,
		"initial value":      newWasm().vec(6, []byte{0x7e, 0, 0x23, 2, 0x0b}).out,
		"element expression": newWasm().vec(9, []byte{5, 0x70, 1, 0xd2, 0, 0x0b}).out,
	} {
		var r *rewrite.RefusedError
		if _, err := rewrite.Rewrite(wasm, rewrite.Options{Fuel: true}); !errors.As(err, &r) || r.Kind != rewrite.Malformed {
			t.Errorf("%s: got %v, want it refused as malformed", name, err)
		}
	}
}

func TestFuelResult(t *testing.T) {
	wasm := newWasm().
		vec(1, funcTypeOf("", "")).
		vec(3, []byte{0}).
		vec(5, []byte{0, 1}).
		vec(6, i32Global(true, 1)).
		vec(7, exportOf("millrace:fuel", 2, 0), exportOf("f", 0, 0)).
		vec(10, body(forever()...)).
		custom(".debug_info", "x").custom("stage.manifest", "{}").custom("sourceMappingURL", "y").out
	res, err := rewrite.Rewrite(wasm, rewrite.Options{Fuel: true})
	if err != nil {
		t.Fatal(err)
	}
	if want := (rewrite.Fuel{Export: "millrace:fuel'", Global: 1, FirstAdded: 1}); res.Fuel != want {
		t.Errorf("got %+v, want %+v", res.Fuel, want)
	}
	if want := []rewrite.Global{{Export: "millrace:g0", Type: rewrite.I32}}; !slices.Equal(res.Globals, want) {
		t.Errorf("got globals %+v, want %+v", res.Globals, want)
	}
	if res.Facts.MutableGlobals != 1 || len(res.Facts.Exports) != 2 {
		t.Errorf("facts count what was added: %d mutable globals, %d exports", res.Facts.MutableGlobals, len(res.Facts.Exports))
	}
	after, err := rewrite.Parse(res.Wasm)
	if err != nil {
		t.Fatal(err)
	}
	if c := after.Facts().CustomSections; len(c) != 1 || c[0].Name != "stage.manifest" {
		t.Errorf("got custom sections %+v, want the manifest alone", c)
	}
	g := newGuest(t, wazero.NewRuntimeConfigInterpreter(), wasm, rewrite.Options{Fuel: true})
	if got := int64(g.fuel.Get()); got != rewrite.FuelUnlimited {
		t.Errorf("got %d units at the start, want %d", got, rewrite.FuelUnlimited)
	}
	plain, err := rewrite.Rewrite(wasm, rewrite.Options{})
	if err != nil || plain.Fuel != (rewrite.Fuel{}) || !bytes.Contains(plain.Wasm, []byte(".debug_info")) {
		t.Errorf("without fuel: got %+v, %v", plain.Fuel, err)
	}
	twice, err := rewrite.Rewrite(res.Wasm, rewrite.Options{Fuel: true})
	if err != nil || twice.Fuel.Export != "millrace:fuel''" {
		t.Errorf("rewritten twice: got %+v, %v", twice.Fuel, err)
	}
}

func TestFuelOfStartFunction(t *testing.T) {
	wasm := newWasm().vec(1, funcTypeOf("", "")).vec(3, []byte{0}).section(8, []byte{0}).vec(10, body(forever()...)).out
	res, err := rewrite.Rewrite(wasm, rewrite.Options{Fuel: true, InitialFuel: 1000})
	if err != nil {
		t.Fatal(err)
	}
	rt := wazero.NewRuntime(t.Context())
	defer rt.Close(context.Background())
	if _, err := rt.Instantiate(t.Context(), res.Wasm); err == nil || !strings.Contains(err.Error(), "unreachable") {
		t.Errorf("got %v, want the start function to run out of fuel", err)
	}
	if _, err := rewrite.Rewrite(wasm, rewrite.Options{Fuel: true, InitialFuel: -1}); err == nil {
		t.Error("negative initial fuel is accepted")
	}
}

// TestFuelShims puts imported functions wherever a module can refer to one.
func TestFuelShims(t *testing.T) {
	head := func() *wasmBuilder {
		return newWasm().vec(1, funcTypeOf("", ""), funcTypeOf("\x7f\x7f", "\x7f")).
			vec(2, importOf("env", "host", 0, 0), importOf("env", "sub", 0, 1))
	}
	// through stores a reference in the table, pushes 9 and 4 and calls it.
	through := func(ref ...byte) []byte {
		return fnLocals("", cat(i32c(0), ref, []byte{0x26, 0}, i32c(9), i32c(4), i32c(0), []byte{0x11, 1, 0, 0x1a})).code
	}
	table, fnTypes := []byte{0x70, 0, 1}, []byte{0}
	tests := []struct {
		name string
		wasm []byte
		want int64
	}{
		{"function that only an export declares", head().vec(3, fnTypes).vec(4, table).
			vec(7, exportOf("x", 0, 1), exportOf("f", 0, 2)).vec(10, body(through(0xd2, 1)...)).out, 1 + (1+128+128+4+192)/16 + 64},
		{"initial value of a global", head().vec(3, fnTypes).vec(4, table).vec(6, []byte{0x70, 0, 0xd2, 1, 0x0b}).
			vec(7, exportOf("f", 0, 2)).vec(10, body(through(0x23, 0)...)).out, 1 + (1+1+128+4+192)/16 + 64},
		{"element expression", head().vec(3, fnTypes).vec(4, table).vec(7, exportOf("f", 0, 2)).
			vec(9, []byte{4, 0x41, 0, 0x0b, 1, 0xd2, 0x81, 0, 0x0b}).vec(10, body(through(0x41, 0, 0x25, 0)...)).out, 1 + (1+1+128+128+4+192)/16 + 64},
		{"module without functions of its own", head().vec(4, table).
			vec(7, exportOf("f", 0, 0)).vec(9, []byte{0, 0x41, 0, 0x0b, 1, 0}).out, 64},
		{"export alone", head().vec(7, exportOf("f", 0, 0)).out, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for engine, config := range engines {
				newGuest(t, config(), tt.wasm, rewrite.Options{})
				g := newGuest(t, config(), tt.wasm, rewrite.Options{Fuel: true})
				g.fuel.Set(1 << 40)
				if _, err := g.ExportedFunction("f").Call(t.Context()); err != nil {
					t.Fatal(err)
				}
				if got := 1<<40 - int64(g.fuel.Get()); got != tt.want {
					t.Errorf("%s: got %d units, want %d", engine, got, tt.want)
				}
			}
		})
	}
}

func TestFuelOfManyLoops(t *testing.T) {
	for _, n := range []int{998, 999, 1000, 5000} {
		g := newGuest(t, wazero.NewRuntimeConfigInterpreter(), fuelModule(1, fn(repeat(n, 0x03, 0x40, 0x0b))), rewrite.Options{Fuel: true})
		g.fuel.Set(1 << 40)
		if _, err := g.ExportedFunction("f").Call(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, want := 1<<40-int64(g.fuel.Get()), int64(1+n); got != want {
			t.Errorf("%d loops: got %d units, want %d", n, got, want)
		}
	}
}

// TestFuelAtTheLimits rewrites what the limits on the input just allow.
func TestFuelAtTheLimits(t *testing.T) {
	const mb = 1 << 20
	for name, wasm := range map[string][]byte{
		"loops":          fuelModule(1, fn(repeat((mb-2)/3, 0x03, 0x40, 0x0b))),
		"host calls":     fuelModule(1, fn(repeat((mb-2)/2, 0x10, 0))),
		"bulk":           fuelModule(1, fn([]byte{0x00}, repeat((mb-3)/3, 0xfc, 0x0b, 0))),
		"loops in loops": fuelModule(1, fn(repeat(500, 0x03, 0x40), repeat(500, 0x0b))),
		"locals":         module(3, withLocals(50_000)),
		"functions":      module(190_000, body(0x10, 0)),
	} {
		res, err := rewrite.Rewrite(wasm, rewrite.Options{Fuel: true})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(res.Wasm) > 16*len(wasm) {
			t.Errorf("%s: %d bytes became %d", name, len(wasm), len(res.Wasm))
		}
		if _, err := rewrite.Parse(res.Wasm); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBoundedTables(t *testing.T) {
	tests := []struct{ in, want []byte }{
		{[]byte{0x70, 0, 4}, []byte{0x70, 1, 4, 50}},
		{[]byte{0x6f, 0, 60}, []byte{0x6f, 1, 60, 60}},
		{[]byte{0x70, 1, 4, 51}, []byte{0x70, 1, 4, 50}},
		{[]byte{0x70, 1, 4, 50}, []byte{0x70, 1, 4, 50}},
	}
	for _, tt := range tests {
		res, err := rewrite.Rewrite(newWasm().vec(4, tt.in).out, rewrite.Options{MaxTableEntries: 50})
		if err != nil {
			t.Fatal(err)
		}
		if want := newWasm().vec(4, tt.want).out; !bytes.Equal(res.Wasm, want) {
			t.Errorf("table %x: got %x, want %x", tt.in, res.Wasm, want)
		}
	}
}

func TestFuelOfOrders(t *testing.T) {
	const records = 128
	frame := ordersFrame(records)
	plain := newGuest(t, wazero.NewRuntimeConfig(), ordersModule(t), rewrite.Options{}).runOrders(t, frame)()
	var units []uint64
	for _, config := range engines {
		g := newGuest(t, config(), ordersModule(t), rewrite.Options{Fuel: true})
		run := g.runOrders(t, frame)
		g.fuel.Set(1 << 40)
		if !bytes.Equal(plain, run()) {
			t.Fatal("the answers differ")
		}
		units = append(units, 1<<40-g.fuel.Get())
	}
	if units[0] != units[1] {
		t.Errorf("the engines use %v units", units)
	}
	if perRecord := units[0] / records; perRecord < 200 || perRecord > 6500 {
		t.Errorf("got %d units a record, want about 5300", perRecord)
	}
}
