package hostile

import (
	"math/rand/v2"

	"github.com/millrace-io/millrace/runtime/record"
)

// measured are the guests that look for the instructions whose time is
// greatest for what they weigh.
func measured() []Guest {
	const (
		fuel  = "it used up its fuel"
		most  = 1000 // pages
		bytes = most << 16
	)
	// next steps a generator in local 2 and leaves its value.
	next := code(get(2), i32(1664525), mul, i32(1013904223), add, 0x22, 2)
	masked := func(mask int64) []byte { return code(next, i32(mask), 0x71) }
	f64 := func(last byte) []byte { return code(0x44, last, 0, 0, 0, 0, 0, 0, 0) }
	one := code(0x44, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f)
	floats := func(op byte) []byte {
		return forever(i32(scratch), f64(3), times(200, code(one, op)), 0x39, 3, 0)
	}
	guest := func(name string, wasm func() []byte) Guest {
		return Guest{Name: name, Wasm: wasm, Class: record.Fuel, Message: fuel, Measured: true}
	}
	large := func(g Guest) Guest { g.Large = true; return g }
	return []Guest{
		large(guest("cache misses of which each waits for the last", func() []byte {
			// A circle through all lines of 32 MiB, in an order that nobody
			// foresees, laid before the image is taken.
			const lines = 32 << 20 / 64
			s := newStage(most)
			s.export("_initialize", 0, s.fn(">", 1, loop(
				get(0), i32(6), 0x74,
				get(0), i32(1664525), mul, i32(1013904223), add, i32(lines-1), 0x71, i32(6), 0x74,
				store32(16<<20),
				get(0), i32(1), add, 0x22, 0, i32(lines), ne, brIf(0))))
			return s.batch(forever(times(100, code(get(2), load32(16<<20), set(2)))), s.passing())
		})),
		large(guest("loads that lie apart, after one that waits", batchGuest(most, forever(
			masked(0x1fffffc), set(3), times(10, code(get(3), load32(4096), get(2), add, set(2), get(3), load32(70_000), get(2), add, set(2))))))),
		large(guest("stores across pages", batchGuest(most, forever(times(20, code(masked(0x1ffe000), get(2), code(0x36, 0, uleb(4094)))))))),
		large(guest("cold pages", batchGuest(most, forever(times(10, code(
			get(2), get(2), store32(1<<20), get(2), i32(4096), add, i32(0x1ffffff), 0x71, set(2))))))),
		large(guest("growth page by page, written", batchGuest(16, forever(
			i32(1), memoryGrow, i32(16), 0x74, 0x22, 2, i32(0), 0x4e, ifThen(writes()))))),
		guest("short copies all over the memory", batchGuest(most, forever(
			masked(0x1ffffff), masked(0x1ffffff), i32(200), code(0xfc, 10, 0, 0)))),
		guest("empty copies", batchGuest(16, forever(times(50, code(i32(0), i32(0), i32(0), 0xfc, 10, 0, 0))))),
		guest("denormal products", batchGuest(16, floats(0xa2))),
		guest("denormal quotients", batchGuest(16, floats(0xa3))),
		guest("branches that nobody foresees", batchGuest(16, forever(times(16, code(
			next, i32(9), 0x76, i32(1), 0x71, ifThen(get(3), i32(1), add, set(3)))), i32(scratch), get(3), store32(0)))),
		guest("br_table of 65,000 targets", batchGuest(16, forever(jumps(100, 65_000, code(next, i32(7), 0x76, i32(65_000), 0x70))))),
		large(guest("call_indirect to 20,000 functions", func() []byte {
			const functions, entries = 20_000, 100_000
			s := newStage(16)
			r := rand.New(rand.NewPCG(1, 2))
			first := s.imported + len(s.bodies)
			for i := range functions {
				s.fn("i>i", 0, get(0), i32(int64(i)), 0x46, ifThen(i32(scratch), i32(scratch), store32(0)),
					get(0), i32(int64(r.IntN(1<<20)|1)), mul, i32(int64(r.IntN(1<<20))), add)
			}
			list := uleb(entries)
			for range entries {
				list = append(list, uleb(uint64(first+r.IntN(functions)))...)
			}
			s.tables = [][]byte{code(0x70, limits(entries, entries))}
			s.elements = [][]byte{code(0, i32(0), 0x0b, list)}
			return s.batch(forever(get(2), get(2), i32(entries), 0x70, code(0x11, s.typ("i>i"), 0), set(2)), s.passing())
		})),
		large(guest("calls of 20,000 functions in a line", func() []byte {
			const functions = 20_000
			s := newStage(16)
			first := s.imported + len(s.bodies)
			for i := range functions {
				s.fn("i>", 0, get(0), i32(int64(i)), 0x46, ifThen(i32(scratch), i32(scratch), store32(0)))
			}
			var all []byte
			for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(functions) {
				all = append(all, code(i32(-1), call(first+i))...)
			}
			return s.batch(forever(all), s.passing())
		})),
		large(guest("deep recursion with many operands", func() []byte {
			s := newStage(16)
			f := s.imported + len(s.bodies)
			s.fn(">", 1, i32(scratch), times(30, code(get(0), i32(3), add, 0x22, 0)), call(f), times(29, code(add)), store32(0))
			return s.batch(call(f), s.passing())
		})),
		{Name: "starts anew for each record, at length", Wasm: func() []byte {
			s := newStage(16)
			s.tables = [][]byte{code(0x70, limits(1, 1))}
			s.export("_initialize", 0, s.fn(">", 1, i32(2_200_000), set(0), loop(get(0), i32(1), sub, 0x22, 0, brIf(0)), i32(0), 0xd0, 0x70, 0x26, 0))
			return s.batch(unreachable)
		}, Class: record.Trap, Message: "it trapped: unreachable", Measured: true},
		{Name: "program that starts anew for each record, at length", Lines: true, Wasm: command(1, code(
			i32(2_200_000), set(0), loop(get(0), i32(1), sub, 0x22, 0, brIf(0)), i32(scratch), i32(4096), store32(0), i32(scratch), i32(1024), store32(4), i32(0), i32(scratch), i32(1), i32(scratch+8), call(0), drop, unreachable),
			imports(wasi, "fd_read", "iiii>i")), Class: record.Trap, Message: "it trapped: unreachable", Measured: true},
	}
}

// writes writes to each 4 KiB of the page at local 2.
func writes() []byte {
	var out []byte
	for at := 0; at < 1<<16; at += 4096 {
		out = append(out, code(get(2), get(2), store32(at))...)
	}
	return out
}

// jumps goes to one of n places, by a table of that many entries.
func jumps(n, entries int, index []byte) []byte {
	out := times(int64(n), []byte{0x02, 0x40})
	out = append(out, code(index, 0x0e, uleb(uint64(entries)))...)
	for i := range entries + 1 {
		out = append(out, uleb(uint64(i*7919%n))...)
	}
	for i := range n {
		out = append(out, code(0x0b, get(3), i32(int64(i)), add, set(3))...)
	}
	return code(out, i32(scratch), get(3), store32(0))
}
