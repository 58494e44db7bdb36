package rewrite_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/millrace-io/millrace/plugins/rewrite"
)

// nodeFuel is the most that a node gives to one call unless configured.
const nodeFuel = 1_200_000

// fuelModule has the imported functions env.host (0) and env.sub (1, with two
// parameters), then the given functions, whose types are 0: () -> (),
// 1: (i32, i32) -> i32, 2: (i64) -> i64, 3: (f64) -> f64; a memory, a passive
// data segment, a table of 10 entries with the functions 0 to 9 as far as they
// exist, a passive element segment. Function 2 is exported as "f".
func fuelModule(pages int, fns ...fuelFunc) []byte {
	elements := leb(min(10, 2+len(fns)))
	for i := range min(10, 2+len(fns)) {
		elements = append(elements, leb(i)...)
	}
	var types, bodies [][]byte
	for _, fn := range fns {
		types = append(types, leb(fn.typ))
		bodies = append(bodies, sized(fn.locals(), fn.code, []byte{0x0b}))
	}
	return newWasm().
		vec(1, funcTypeOf("", ""), funcTypeOf("\x7f\x7f", "\x7f"), funcTypeOf("\x7e", "\x7e"), funcTypeOf("\x7c", "\x7c")).
		vec(2, importOf("env", "host", 0, 0), importOf("env", "sub", 0, 1)).
		vec(3, types...).
		vec(4, []byte{0x70, 0, 10}).
		vec(5, cat([]byte{0}, leb(pages))).
		vec(7, exportOf("f", 0, 2), exportOf("memory", 2, 0)).
		vec(9, cat([]byte{0, 0x41, 0, 0x0b}, elements), []byte{1, 0, 1, 2}).
		section(12, []byte{1}).
		vec(10, bodies...).
		vec(11, cat([]byte{1}, str(strings.Repeat("x", 600)))).out
}

// fuelFunc is a function; types are the types of its locals.
type fuelFunc struct {
	typ   int
	types string
	code  []byte
}

func (f fuelFunc) locals() []byte {
	out := leb(len(f.types))
	for i := range f.types {
		out = append(out, 1, f.types[i])
	}
	return out
}

func fn(code ...[]byte) fuelFunc { return fuelFunc{code: cat(code...)} }

func fnLocals(types string, code ...[]byte) fuelFunc {
	return fuelFunc{types: types, code: cat(code...)}
}

// forever repeats code without end.
func forever(code ...[]byte) []byte {
	return cat([]byte{0x03, 0x40}, cat(code...), []byte{0x0c, 0, 0x0b})
}

// i32c pushes a constant.
func i32c(v int) []byte {
	b := []byte{0x41}
	for v < -64 || v > 63 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v)&0x7f)
}

// hostileModules never end, or nearly never.
func hostileModules() map[string][]byte {
	call := func(i int) []byte { return cat([]byte{0x10}, leb(i)) }
	fill := cat(i32c(0), i32c(1), i32c(64<<20), []byte{0xfc, 0x0b, 0})
	bulk := func(n int, op ...byte) []byte { return cat(i32c(0), i32c(0), i32c(n), op) }
	// sqrts is as long as a free function may be.
	sqrts := fuelFunc{typ: 3, code: cat([]byte{0x20, 0}, repeat(61, 0x9f))}
	// turn is a loop that must compute what is in it.
	turn := func(load, store byte, code ...[]byte) []byte {
		return forever(i32c(0), i32c(0), []byte{load, 3, 0}, cat(code...), []byte{store, 3, 0})
	}
	const pages = 1024
	return map[string][]byte{
		"loop":             fuelModule(1, fn(forever())),
		"nested loops":     fuelModule(1, fn(forever(forever()))),
		"br_table":         fuelModule(1, fn(forever([]byte{0x02, 0x40}, i32c(1), []byte{0x0e, 2, 0, 1, 1, 0x0b}))),
		"br_if":            fuelModule(1, fn([]byte{0x03, 0x40}, i32c(1), []byte{0x0d, 0, 0x0b})),
		"recursion":        fuelModule(1, fn(call(2))),
		"mutual recursion": fuelModule(1, fn(call(3)), fn(call(2))),
		"recursion doubled": fuelModule(1,
			fn(call(3), call(3)), fn(call(4), call(4)), fn(call(5), call(5)), fn(call(6), call(6)), fn(forever(call(7))), fn()),
		"indirect":                  fuelModule(1, fn(forever(i32c(3), []byte{0x11, 0, 0})), fn()),
		"indirect to host":          fuelModule(1, fn(forever(i32c(0), []byte{0x11, 0, 0}))),
		"host calls":                fuelModule(1, fn(forever(call(0)))),
		"free functions":            fuelModule(1, fn(forever(repeat(3000, 0x10, 3))), fn(repeat(62, 0x01))),
		"free functions with roots": fuelModule(1, fnLocals("\x7c", forever([]byte{0x20, 0}, repeat(3000, 0x10, 3), []byte{0x21, 0})), sqrts),
		"square roots":              fuelModule(1, fn(turn(0x2b, 0x39, repeat(9, 0x9f)))),
		"divisions":                 fuelModule(1, fnLocals("\x7e", []byte{0x42, 3, 0x21, 0}, turn(0x29, 0x37, repeat(4, 0x20, 0, 0x80)))),
		"references":                fuelModule(1, fn(forever(repeat(6, 0xd2, 2, 0x1a)))),
		"cache misses":              fuelModule(pages, fnLocals("\x7f", forever([]byte{0x20, 0}, repeat(11, 0x28, 2, 0), []byte{0x21, 0}))),
		"100 fills":                 fuelModule(pages, fn(slices.Repeat(fill, 100))),
		"fills in a loop":           fuelModule(pages, fn(forever(fill))),
		"short fills":               fuelModule(1, fn(forever(slices.Repeat(bulk(255, 0xfc, 0x0b, 0), 62)))),
		"short copies":              fuelModule(1, fn(forever(slices.Repeat(bulk(255, 0xfc, 0x0a, 0, 0), 62)))),
		"empty copies":              fuelModule(1, fn(forever(slices.Repeat(bulk(0, 0xfc, 0x0a, 0, 0), 62)))),
		"memory.init":               fuelModule(1, fn(forever(bulk(255, 0xfc, 0x08, 0, 0)))),
		"table.init":                fuelModule(1, fn(forever(bulk(1, 0xfc, 0x0c, 1, 0)))),
		"table.copy":                fuelModule(1, fn(forever(bulk(10, 0xfc, 0x0e, 0, 0)))),
		"table.fill":                fuelModule(1, fn(forever(i32c(0), []byte{0xd0, 0x70}, i32c(10), []byte{0xfc, 0x11, 0}))),
		"table.grow 0":              fuelModule(1, fn(forever([]byte{0xd0, 0x70}, i32c(0), []byte{0xfc, 0x0f, 0, 0x1a}))),
		"table.grow 1":              fuelModule(1, fn(forever([]byte{0xd0, 0x70}, i32c(1), []byte{0xfc, 0x0f, 0, 0x1a}))),
		"table.grow":                fuelModule(1, fn(forever([]byte{0xd0, 0x70}, i32c(1_000_000), []byte{0xfc, 0x0f, 0, 0x1a}))),
		"memory.grow 0":             fuelModule(1, fn(forever(i32c(0), []byte{0x40, 0, 0x1a}))),
		"memory.grow 1":             fuelModule(1, fn(forever(i32c(1), []byte{0x40, 0, 0x1a}))),
		"memory.grow -1":            fuelModule(1, fn(forever(i32c(-1), []byte{0x40, 0, 0x1a}))),
	}
}

// chain makes every 64 bytes of a memory point to another place in it, in one
// circle whose order no cache foresees.
func chain(t *testing.T, mem api.Memory) {
	lines := mem.Size() / 64
	for i := range lines {
		if !mem.WriteUint32Le(i*64, (i*1664525+1013904223)%lines*64) {
			t.Fatal("the memory is too small")
		}
	}
}

// TestFuelStops lets guests that never end use up the budget of a call.
func TestFuelStops(t *testing.T) {
	for name, wasm := range hostileModules() {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			g := newGuest(t, wazero.NewRuntimeConfig().WithMemoryLimitPages(1024).WithMemoryCapacityFromMax(true), wasm, rewrite.Options{Fuel: true, MaxTableEntries: 1 << 20})
			f := g.ExportedFunction("f")
			budget := nodeFuel
			if name == "cache misses" {
				// What the measure does not see: each load waits for memory.
				budget /= 20
				chain(t, g.Memory())
			}
			g.fuel.Set(uint64(budget))
			began := time.Now()
			_, err := f.Call(context.Background())
			took := time.Since(began)
			t.Logf("%s: %.1f ms for %d units", name, took.Seconds()*1e3, budget)
			if err == nil {
				t.Fatal("it ended")
			}
			if left := int64(g.fuel.Get()); left >= 0 && !strings.Contains(err.Error(), "stack overflow") {
				t.Errorf("%d units are left: %v", left, err)
			}
			if took > time.Second/2 {
				t.Errorf("it ran for %v", took)
			}
		})
	}
}
