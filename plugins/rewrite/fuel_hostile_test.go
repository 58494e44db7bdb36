package rewrite_test

import (
	"context"
	"maps"
	"math/rand/v2"
	"runtime"
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

// missing are modules that wait for memory, for machine code, or for what the
// processor foresaw wrongly.
func missing() map[string][]byte {
	const pages = 1024
	x, setX, teeX := []byte{0x20, 0}, []byte{0x21, 0}, []byte{0x22, 0}
	y := []byte{0x20, 1}
	// next steps a generator in local 0 and leaves its value.
	next := cat(x, i32c(1664525), []byte{0x6c}, i32c(1013904223), []byte{0x6a}, teeX)
	masked := func(mask int) []byte { return cat(next, i32c(mask), []byte{0x71}) }
	shifted := func(by, mask int) []byte { return cat(next, i32c(by), []byte{0x76}, i32c(mask), []byte{0x71}) }
	// misses follows the chain, code is done at each turn.
	misses := func(n int, code ...[]byte) []byte {
		return fuelModule(pages, fnLocals("\x7f\x7f", forever(slices.Repeat(cat(x, []byte{0x28, 2, 0}, setX, cat(code...)), n))))
	}
	v128 := cat([]byte{0xfd, 0x0c}, repeat(16, 1))
	bulk := func(at []byte, n int, op ...byte) []byte { return cat(at, i32c(0), i32c(n), op) }
	copies := func(n int) []byte {
		return cat(masked(0x1ffffff), masked(0x1ffffff), i32c(n), []byte{0xfc, 0x0a, 0, 0})
	}
	var offsets [][]byte
	for i := range 10 {
		offsets = append(offsets, cat(x, []byte{0x28, 2}, leb(4096*(i+1)), y, []byte{0x6a, 0x21, 1}))
	}
	f64 := func(bits byte) []byte { return []byte{0x44, bits, 0, 0, 0, 0, 0, 0, 0} }
	denormal := func(op byte) []byte {
		return fuelModule(1, fnLocals("\x7c\x7f", f64(3), setX, forever(slices.Repeat(cat(x, []byte{0x44, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, op}, setX), 50), i32c(0), x, []byte{0x39, 3, 0})))
	}
	branches := slices.Repeat(cat(shifted(7, 1), []byte{0x04, 0x40}, y, []byte{0x41, 1, 0x6a, 0x21, 1, 0x0b}), 8)
	table := cat([]byte{0x02, 0x40, 0x02, 0x40, 0x02, 0x40, 0x02, 0x40}, shifted(9, 3), []byte{0x0e, 3, 0, 1, 2, 3})
	for i := range 4 {
		table = cat(table, []byte{0x0b}, y, i32c(i), []byte{0x6a, 0x21, 1})
	}
	frame := strings.Repeat("\x7e", 100)
	var all []byte
	for i := range 100 {
		all = cat(all, []byte{0x20, byte(i)})
	}
	operands := func(n int) fuelFunc {
		return fnLocals("\x7e", i32c(0), slices.Repeat(cat(x, []byte{0x42, 3, 0x7c, 0x22, 0}), n), []byte{0x10, 2}, repeat(n-1, 0x7c), []byte{0x37, 3, 0})
	}
	return map[string][]byte{
		"cache misses":                   misses(11),
		"cache misses in a long body":    misses(40_000),
		"cache misses of v128":           fuelModule(pages, fnLocals("\x7f", forever(slices.Repeat(cat(x, []byte{0xfd, 0, 2, 0, 0xfd, 0x1b, 0}, setX), 11)))),
		"cache misses of lanes":          fuelModule(pages, fnLocals("\x7f", forever(slices.Repeat(cat(x, v128, []byte{0xfd, 0x56, 2, 0, 0, 0xfd, 0x1b, 0}, setX), 11)))),
		"cache misses of one base":       misses(3, offsets...),
		"stores to where loads lead":     misses(11, x, y, []byte{0x36, 2, 4}),
		"random loads":                   fuelModule(pages, fnLocals("\x7f\x7f", forever(slices.Repeat(cat(masked(0x3fffffc), []byte{0x28, 2, 0}, y, []byte{0x6a, 0x21, 1}), 10)))),
		"random stores":                  fuelModule(pages, fnLocals("\x7f\x7f", forever(slices.Repeat(cat(masked(0x3fffffc), y, []byte{0x36, 2, 0}), 10)))),
		"random stores across pages":     fuelModule(pages, fnLocals("\x7f\x7f", forever(slices.Repeat(cat(masked(0x3ffe000), y, []byte{0x36, 0}, leb(4094)), 10)))),
		"stores of v128 across pages":    fuelModule(pages, fnLocals("\x7f\x7f", forever(slices.Repeat(cat(masked(0x3ffe000), v128, []byte{0xfd, 11, 0}, leb(4090)), 10)))),
		"stores to cold pages":           fuelModule(pages, fnLocals("\x7f\x7f", forever(slices.Repeat(cat(x, y, []byte{0x36, 2, 0}, x, i32c(4096), []byte{0x6a}, i32c(0x3ffffff), []byte{0x71}, setX), 10)))),
		"growth to the limit, written":   fuelModule(1, fnLocals("\x7f", forever(i32c(1), []byte{0x40, 0}, i32c(16), []byte{0x74}, teeX, i32c(0), []byte{0x4e, 0x04, 0x40}, slices.Concat(storesEach(4096)...), []byte{0x0b}))),
		"random copies of 255":           fuelModule(pages, fnLocals("\x7f", forever(copies(255)))),
		"random copies of 127":           fuelModule(pages, fnLocals("\x7f", forever(copies(127)))),
		"random copies of 9000":          fuelModule(pages, fnLocals("\x7f", forever(copies(9000)))),
		"copies of 16 MiB":               fuelModule(pages, fn(forever(i32c(0), i32c(32<<20), i32c(16<<20), []byte{0xfc, 0x0a, 0, 0}))),
		"random fills of 127":            fuelModule(pages, fnLocals("\x7f", forever(bulk(masked(0x1ffffff), 127, 0xfc, 0x0b, 0)))),
		"denormals, mul":                 denormal(0xa2),
		"denormals, div":                 denormal(0xa3),
		"roundings":                      fuelModule(1, fnLocals("\x7c", forever(x, repeat(15, 0x9b), setX, i32c(0), x, []byte{0x39, 3, 0}))),
		"branches that nobody foresees":  fuelModule(1, fnLocals("\x7f\x7f", forever(branches, i32c(0), y, []byte{0x36, 2, 0}))),
		"br_table that nobody foresees":  fuelModule(1, fnLocals("\x7f\x7f", forever(table, i32c(0), y, []byte{0x36, 2, 0}))),
		"recursion with 100 parameters":  deepFrames(frame, all),
		"recursion with 1,000 operands":  fuelModule(1, operands(1000)),
		"recursion with 20 operands":     fuelModule(1, operands(20)),
		"calls of 30,000 free functions": manyFunctions(30_000, false),
		"calls of 30,000 functions":      manyFunctions(30_000, true),
		"call_indirect to 30,000":        manyTargets(30_000),
		"table.get all over":             tableReads(),
	}
}

// storesEach writes to every step of a page at local 0.
func storesEach(step int) (out [][]byte) {
	for at := 0; at < 65536; at += step {
		out = append(out, []byte{0x20, 0}, []byte{0x20, 0}, []byte{0x36, 2}, leb(at))
	}
	return out
}

// deepFrames is a function that calls itself with all of its parameters.
func deepFrames(params string, all []byte) []byte {
	return newWasm().
		vec(1, funcTypeOf("", ""), funcTypeOf(params, "")).
		vec(3, []byte{0}, []byte{1}).
		vec(5, []byte{0, 1}).
		vec(7, exportOf("f", 0, 0), exportOf("memory", 2, 0)).
		vec(10, sized([]byte{0}, repeat(len(params), 0x42, 1), []byte{0x10, 1, 0x0b}), sized([]byte{0}, all, []byte{0x10, 1, 0x0b})).out
}

// padding makes the machine code of a function longer than a line of the cache:
// it is in parts of the body that are seldom run.
func padding(i int) []byte {
	return cat([]byte{0x20, 0}, i32c(i+1000), []byte{0x46, 0x04, 0x40, 0x41, 0, 0x41, 0, 0x36, 2, 0, 0x0b})
}

// manyFunctions calls n functions in an order that nobody foresees, from
// functions of 1,000 calls.
func manyFunctions(n int, loops bool) []byte {
	order := rand.New(rand.NewPCG(1, 2)).Perm(n)
	types, bodies := [][]byte{{0}}, [][]byte{nil}
	callers := (n + 999) / 1000
	var main []byte
	for c := range callers {
		var code []byte
		for _, i := range order[c*1000 : min(n, c*1000+1000)] {
			code = cat(code, []byte{0x41, 1, 0x10}, leb(1+callers+i))
		}
		types = append(types, []byte{0})
		bodies = append(bodies, sized([]byte{0}, code, []byte{0x0b}))
		main = cat(main, []byte{0x10}, leb(1+c))
	}
	bodies[0] = sized([]byte{0}, forever(main), []byte{0x0b})
	for i := range n {
		code := padding(i)
		if loops {
			code = cat(code, []byte{0x03, 0x40, 0x0b})
		}
		types = append(types, []byte{1})
		bodies = append(bodies, sized([]byte{0}, code, []byte{0x0b}))
	}
	return newWasm().
		vec(1, funcTypeOf("", ""), funcTypeOf("\x7f", "")).
		vec(3, types...).
		vec(5, []byte{0, 1}).
		vec(7, exportOf("f", 0, 0), exportOf("memory", 2, 0)).
		vec(10, bodies...).out
}

// manyTargets calls n functions through a table of a million entries; each
// answers with the index of the next.
func manyTargets(n int) []byte {
	const size = 1 << 20
	r := rand.New(rand.NewPCG(1, 2))
	types, bodies := [][]byte{{0}}, [][]byte{sized([]byte{1, 1, 0x7f}, forever(slices.Repeat(cat([]byte{0x20, 0, 0x20, 0, 0x11, 1, 0, 0x21, 0}), 4)), []byte{0x0b})}
	elements := leb(size)
	for i := range n {
		types = append(types, []byte{1})
		bodies = append(bodies, sized([]byte{0}, padding(i), []byte{0x20, 0}, i32c(r.IntN(size)|1), []byte{0x6c}, i32c(r.IntN(size)), []byte{0x6a}, i32c(size-1), []byte{0x71, 0x0b}))
	}
	for range size {
		elements = append(elements, leb(1+r.IntN(n))...)
	}
	return newWasm().
		vec(1, funcTypeOf("", ""), funcTypeOf("\x7f", "\x7f")).
		vec(3, types...).
		vec(4, cat([]byte{0x70, 0}, leb(size))).
		vec(5, []byte{0, 1}).
		vec(7, exportOf("f", 0, 0), exportOf("memory", 2, 0)).
		vec(9, cat([]byte{0, 0x41, 0, 0x0b}, elements)).
		vec(10, bodies...).out
}

// tableReads asks entries of a table of a million, of which each second is
// null, for the way to the next.
func tableReads() []byte {
	const size = 1 << 20
	step := cat([]byte{0x20, 0, 0x20, 0, 0x25, 0, 0xd1, 0x6a}, i32c(1664525), []byte{0x6c}, i32c(1013904223), []byte{0x6a}, i32c(size-1), []byte{0x71, 0x21, 0})
	return newWasm().
		vec(1, funcTypeOf("", "")).
		vec(3, []byte{0}).
		vec(4, cat([]byte{0x70, 0}, leb(size))).
		vec(5, []byte{0, 1}).
		vec(7, exportOf("f", 0, 0), exportOf("memory", 2, 0)).
		vec(10, sized([]byte{1, 1, 0x7f}, forever(slices.Repeat(step, 10)), []byte{0x0b})).out
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

// TestFuelStops lets guests that never end use up the budget of a call, and
// prints how much time of a processor that takes:
//
//	go test -run TestFuelStops -v ./plugins/rewrite
func TestFuelStops(t *testing.T) {
	modules := hostileModules()
	maps.Copy(modules, missing())
	var slowest time.Duration
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			if raceEnabled && strings.Contains(name, "000") {
				t.Skip("too large for the race detector")
			}
			g := newGuest(t, wazero.NewRuntimeConfig().WithMemoryLimitPages(1024).WithMemoryCapacityFromMax(true), modules[name], rewrite.Options{Fuel: true, MaxTableEntries: 1 << 20})
			f := g.ExportedFunction("f")
			if strings.Contains(name, "misses") || strings.Contains(name, "loads lead") {
				chain(t, g.Memory())
			}
			g.fuel.Set(nodeFuel)
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			began := cpuTime()
			_, err := f.Call(context.Background())
			took := cpuTime() - began
			slowest = max(slowest, took)
			t.Logf("%5.1f ms  %s", took.Seconds()*1e3, name)
			if err == nil {
				t.Fatal("it ended")
			}
			left := int64(g.fuel.Get())
			if left >= 0 && !strings.Contains(err.Error(), "out of bounds") {
				t.Errorf("%d units are left: %v", left, err)
			}
			if took > time.Second/2 {
				t.Errorf("it ran for %v", took)
			}
		})
	}
	t.Logf("the slowest took %v for %d units", slowest, nodeFuel)
}
