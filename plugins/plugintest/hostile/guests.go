package hostile

import (
	"bytes"
	"strings"

	"github.com/millrace-io/millrace/runtime/record"
)

// refused are the guests that are never compiled.
func refused() []Guest {
	withTable := func(least, most int64, body ...any) func() []byte {
		return func() []byte {
			s := newStage(16)
			s.tables = [][]byte{code(0x70, limits(least, most))}
			return s.batch(code(body...), s.passing())
		}
	}
	many := func(n int) func() []byte {
		return func() []byte {
			s := newStage(16)
			for range n {
				s.fn(">", 0)
			}
			return s.batch(s.passing())
		}
	}
	custom := func(name, content string) func() []byte {
		return func() []byte {
			s := newStage(16)
			c := code(text(name), []byte(content))
			s.customs = code(0, uleb(uint64(len(c))), c)
			return s.batch(s.passing())
		}
	}
	return []Guest{
		{Name: "import that does not exist", Wasm: batchGuest(16, nil, imports("env", "system", "i>i")), Refused: "import"},
		{Name: "import of another type", Wasm: batchGuest(16, nil, imports(wasi, "fd_write", "i>i")), Refused: "import"},
		{Name: "import of a host function that guests do not get", Wasm: batchGuest(16, nil, imports("millrace", "returned", ">")), Refused: "import"},
		{Name: "sign of another type", Wasm: batchGuest(16, nil, imports("stage", "sign", "iiiiI>i")), Refused: "import"},
		{Name: "imports a socket of the old WASI", Wasm: batchGuest(16, nil, imports("wasi_unstable", "sock_open", "ii>i")), Refused: "import"},
		{Name: "300,000 functions", Wasm: many(300_000), Refused: "limits", Huge: true},
		{Name: "br_table of a million", Wasm: batchGuest(16, block(i32(0), 0x0e, uleb(1_000_000), bytes.Repeat([]byte{0}, 1_000_001))), Refused: "limits"},
		{Name: "body of 2 MiB", Wasm: batchGuest(16, times(1<<20, code(0x01, 0x01))), Refused: "limits"},
		{Name: "a million locals", Wasm: func() []byte {
			s := newStage(16)
			s.fn(">", 1_000_000)
			return s.batch(s.passing())
		}, Refused: "limits"},
		{Name: "blocks nested 20,000 deep", Wasm: batchGuest(16, code(times(20_000, []byte{0x02, 0x40}), times(20_000, []byte{0x0b}))), Refused: "limits"},
		{Name: "loops nested 1,000 deep", Wasm: batchGuest(16, code(times(1000, []byte{0x03, 0x40}), times(1000, []byte{0x0b}))), Refused: "limits"},
		{Name: "table bomb", Wasm: withTable(1<<27, -1), Refused: "limits"},
		{Name: "table that grows without end", Wasm: withTable(1, -1, code(0xd0, 0x70, i32(1<<20), 0xfc, 15, 0, drop)), Refused: "limits"},
		{Name: "memory of 4 GiB at the start", Wasm: batchGuest(65536, nil), Refused: "memory"},
		{Name: "shared memory", Wasm: func() []byte {
			s := newStage(16)
			s.memory = []byte{3, 16, 17}
			return s.batch(s.passing())
		}, Refused: "memory"},
		{Name: "ends too early", Wasm: func() []byte { b := batchGuest(16, nil)(); return b[:len(b)-5] }, Refused: "format"},
		{Name: "types that do not fit", Wasm: batchGuest(16, code(i64(1), add)), Refused: "format"},
		{Name: "tail call", Wasm: batchGuest(16, code(0x12, 0)), Refused: "format"},
		{Name: "ABI version 7", Wasm: func() []byte {
			var m module
			m.export("stage_abi_7", 0, m.fn(">", 0))
			return m.build()
		}, Refused: "abi"},
		{Name: "no mode at all", Wasm: func() []byte {
			var m module
			m.export("main", 0, m.fn(">", 0))
			return m.build()
		}, Refused: "mode"},
		{Name: "manifest that is garbage", Wasm: custom("stage.manifest", "{{{{"), Refused: "manifest"},
		{Name: "100,000 functions", Wasm: many(100_000), Passes: true, Huge: true},
	}
}

// starting are the guests that misbehave before the first batch.
func starting() []Guest {
	with := func(name, typ string, body ...any) func() []byte {
		return func() []byte {
			s := newStage(16)
			s.export(name, 0, s.fn(typ, 0, body...))
			return s.batch(s.passing())
		}
	}
	alloc := func(body ...any) func() []byte {
		return func() []byte {
			s := newStage(16)
			s.alloc(body...)
			s.export("stage_batch", 0, s.fn("ii>I", 0, s.passing()))
			return s.build()
		}
	}
	return []Guest{
		{Name: "loop in the start function", Wasm: func() []byte {
			s := newStage(16)
			s.start = uleb(uint64(s.fn(">", 0, forever())))
			return s.batch(s.passing())
		}, Start: "a start function has 1200000 units of fuel"},
		{Name: "loop in _initialize", Wasm: with("_initialize", ">", forever()), Start: "it used up its fuel: 6000001 units, the budget is 6000000"},
		{Name: "loop in stage_init", Wasm: with("stage_init", "ii>i", forever(), i32(0)), Start: "it used up its fuel"},
		{Name: "signs in a loop in _initialize", Wasm: func() []byte {
			s := newStage(16, imports("stage", "sign", "iiiii>i"))
			s.export("_initialize", 0, s.fn(">", 0, forever(i32(0), i32(3), i32(0), i32(8), i32(scratch), call(0), drop)))
			return s.batch(s.passing())
		}, Start: "it used up its fuel"},
		{Name: "trap in stage_init", Wasm: with("stage_init", "ii>i", unreachable), Start: "it trapped: unreachable"},
		{Name: "stage_init says no", Wasm: with("stage_init", "ii>i", i32(-5)), Start: "refused the configuration with code -5"},
		{Name: "proc_exit in _initialize", Wasm: func() []byte {
			s := newStage(16, imports(wasi, "proc_exit", "i>"))
			s.export("_initialize", 0, s.fn(">", 0, i32(0), call(0)))
			return s.batch(s.passing())
		}, Start: "it ended itself with proc_exit(0)"},
		{Name: "loop in stage_alloc", Wasm: alloc(forever(), i32(0)), Start: "it used up its fuel"},
		{Name: "stage_alloc has nothing", Wasm: alloc(i32(0)), Start: "it has none"},
		{Name: "stage_alloc answers odd addresses", Wasm: alloc(i32(buffer + 1)), Start: "not a multiple of 8"},
		{Name: "stage_alloc answers outside of the memory", Wasm: alloc(i32(-8)), Start: "outside of its memory"},
		{Name: "traps in the warm-up", Wasm: batchGuest(16, code(get(0), load32(8), i32(100), geU, ifThen(unreachable))), Passes: true},
	}
}

// wasting are the guests that want time, memory or stack.
func wasting() []Guest {
	const fuel = "it used up its fuel"
	fill := func(n int64) []byte { return code(i32(0), i32(0), i32(n), memoryFill) }
	return []Guest{
		{Name: "infinite loop", Wasm: batchGuest(16, forever()), Class: record.Fuel, Message: fuel},
		{Name: "deep recursion", Wasm: func() []byte {
			s := newStage(16)
			f := s.imported + len(s.bodies)
			s.fn("I>I", 0, get(0), i64(1), 0x7c, call(f), get(0), 0x7c, get(0), i64(3), 0x7e, 0x7c, get(0), i64(7), 0x7e, 0x7c)
			return s.batch(i64(0), call(f), drop, s.passing())
		}, Class: record.Fuel, Message: fuel, Large: true, Measured: true},
		{Name: "deep recursion with large frames", Wasm: func() []byte {
			s := newStage(16)
			f := s.imported + len(s.bodies)
			var all []byte
			for i := range 100 {
				all = append(all, get(i)...)
			}
			s.fn(strings.Repeat("i", 100)+">", 0, all, call(f))
			return s.batch(times(100, i32(1)), call(f), s.passing())
		}, Class: record.Fuel, Message: fuel, Large: true, Measured: true},
		{Name: "memory bomb", Wasm: batchGuest(16, code(forever(i32(16), memoryGrow, i32(-1), 0x46, ifThen(unreachable)))), Class: record.Memory, Message: "the limit is"},
		{Name: "memory bomb that writes", Wasm: batchGuest(16, code(
			forever(i32(256), memoryGrow, set(2), get(2), i32(-1), 0x46, ifThen(unreachable), get(2), i32(1<<16), mul, i32(1), i32(1<<24), memoryFill))), Class: record.Memory, Message: "the limit is", Measured: true},
		{Name: "memory.grow 0 in a loop", Wasm: batchGuest(16, forever(i32(0), memoryGrow, drop)), Class: record.Fuel, Message: fuel, Measured: true},
		{Name: "memory.grow by 65535 in a loop", Wasm: batchGuest(16, forever(i32(65535), memoryGrow, drop)), Class: record.Fuel, Message: fuel},
		{Name: "100 fills of 32 MiB in a line", Wasm: batchGuest(512, times(100, fill(32<<20))), Class: record.Fuel, Message: fuel, Measured: true},
		{Name: "short fills in a loop", Wasm: batchGuest(16, forever(times(62, fill(255)))), Class: record.Fuel, Message: fuel, Measured: true},
		{Name: "copies of 255 bytes over cache lines", Wasm: batchGuest(512, forever(
			get(2), i32(4099), add, i32(0x1ffffff), 0x71, set(2), get(2), get(2), i32(31<<19), 0x73, i32(255), code(0xfc, 10, 0, 0))), Class: record.Trap, Message: "out of bounds", Measured: true},
		{Name: "cache misses", Wasm: batchGuest(512, forever(
			get(2), i32(1664525), mul, i32(1013904223), add, set(2), get(2), i32(0x1fffffc), 0x71, load32(0), drop)), Class: record.Fuel, Message: fuel, Measured: true},
		{Name: "straight-line body of 900 KiB in a loop", Wasm: batchGuest(16, forever(times(130_000, code(get(2), i32(3), add, set(2))))), Class: record.Fuel, Message: fuel, Large: true, Measured: true},
		{Name: "chain of leaf calls", Wasm: func() []byte {
			s := newStage(16)
			f := s.fn(">", 0)
			for range 40 {
				f = s.fn(">", 0, call(f), call(f))
			}
			return s.batch(call(f), s.passing())
		}, Class: record.Fuel, Message: fuel},
		{Name: "leaf calls of 63 divisions", Wasm: func() []byte {
			s := newStage(16)
			f := s.fn("i>i", 0, get(0), times(15, code(i32(7), 0x6d, i32(1), 0x72)))
			return s.batch(forever(times(40, code(i32(12345), call(f), drop))), s.passing())
		}, Class: record.Fuel, Message: fuel, Measured: true},
		{Name: "leaks a counter in a global and in memory", Wasm: func() []byte {
			s := newStage(16)
			g := s.global(0)
			// The warm-up counts, so that the image may hold 1; a second real
			// call must not see a 2.
			return s.batch(
				getGlobal(g), i32(1), add, setGlobal(g),
				i32(scratch), i32(scratch), load32(0), i32(1), add, store32(0),
				getGlobal(g), i32(3), geU, ifThen(unreachable),
				i32(scratch), load32(0), getGlobal(g), ne, ifThen(unreachable),
				s.passing())
		}, Passes: true},
		{Name: "traps on the third call", Wasm: func() []byte {
			s := newStage(16)
			g := s.global(0)
			return s.batch(getGlobal(g), i32(1), add, setGlobal(g), getGlobal(g), i32(4), geU, ifThen(unreachable), s.passing())
		}, Passes: true},
		{Name: "writes over its own buffer", Wasm: batchGuest(16, code(i32(0), i32(0x7f), i32(1<<20), memoryFill)), Class: record.Protocol, Message: "the result says that it has 2139062143 bytes"},
		{Name: "divides by zero", Wasm: batchGuest(16, code(i32(1), i32(0), divU, drop)), Class: record.Trap, Message: "integer divide by zero"},
		{Name: "reads past its memory", Wasm: batchGuest(16, code(i32(-1), load32(0), drop)), Class: record.Trap, Message: "out of bounds memory access"},
		{Name: "calls through a null", Wasm: func() []byte {
			s := newStage(16)
			s.tables = [][]byte{code(0x70, limits(4, 4))}
			return s.batch(i32(1), code(0x11, s.typ(">"), 0), s.passing())
		}, Class: record.Trap, Message: "it trapped"},
		{Name: "swaps its own functions", Wasm: func() []byte {
			s := newStage(16)
			bomb := s.fn(">", 0, unreachable)
			s.tables = [][]byte{code(0x70, limits(1, 1))}
			s.elements = [][]byte{code(3, 0, uleb(1), uleb(uint64(bomb)))} // declared
			// Armed by one call, set off by the next, if it lives on.
			return s.batch(i32(0), code(0x25, 0), code(0xd1), eqz, ifThen(unreachable),
				get(0), load32(8), i32(100), geU, eqz, ifThen(i32(0), code(0xd2, uleb(uint64(bomb))), code(0x26, 0)), s.passing())
		}, Passes: true},
	}
}

// lying are the guests whose answers break the rules.
func lying() []Guest {
	fixed := func(ptr, length int64) func() []byte {
		return func() []byte { s := newStage(16); return s.batch(result(i32(ptr), i32(length))) }
	}
	first := code(get(0), get(0), load32(12), add, i32(32), add, set(2))
	poke := func(store []byte, v int64) func() []byte {
		return answerGuest(first, get(2), i32(v), store)
	}
	frame := func(store []byte, v int64) func() []byte {
		return answerGuest(get(0), i32(v), store)
	}
	// flood answers n emissions of record 0, each of size bytes of which
	// extra are set by fill (local 2 is the address).
	flood := func(pages, n, size int64, fill ...any) func() []byte {
		return func() []byte {
			s := newStage(pages)
			const base = 8 << 20
			return s.batch(
				i32(base), i32(32+n*size), store32(0), i32(base), i32(1|2<<16), store32(4),
				i32(base), get(0), 0x29, 3, 16, 0x37, 3, 16, // batch id
				i32(base+32), set(2), i32(n), set(3),
				loop(
					get(2), i32(size), store32(0), get(2), i32(15<<8), store32(8), get(2), i32(-1), store32(32),
					code(fill...),
					get(2), i32(size), add, set(2),
					get(3), i32(1), sub, set(3), get(3), brIf(0)),
				result(i32(base), i32(32+n*size)))
		}
	}
	return []Guest{
		{Name: "result at null", Wasm: fixed(0, 64), Class: record.Protocol, Message: "the result says that it has 0 bytes"},
		{Name: "result of nothing", Wasm: fixed(0, 0), Class: record.Rejected, Message: "it gave the batch up"},
		{Name: "result past the memory", Wasm: fixed(1<<20-8, 64), Class: record.Protocol, Message: "outside of its memory"},
		{Name: "result whose end overflows", Wasm: fixed(-16, 32), Class: record.Protocol, Message: "outside of its memory"},
		{Name: "result of 4 GiB", Wasm: fixed(8, -1), Class: record.TooLarge, Message: "its result has 4294967295 bytes"},
		{Name: "result of 17 MiB", Wasm: func() []byte { s := newStage(512); return s.batch(result(i32(0), i32(17<<20))) }, Class: record.TooLarge, Message: "its result has 17825792 bytes"},
		{Name: "result that is the request", Wasm: func() []byte { s := newStage(16); return s.batch(result(get(0), get(1))) }, Class: record.Protocol, Message: "frame of kind 1"},
		{Name: "result of another batch", Wasm: frame(store32(16), 1), Class: record.Protocol, Message: "answers batch"},
		{Name: "result in the middle of the request", Wasm: func() []byte {
			s := newStage(16)
			return s.batch(s.passing(), drop, result(code(get(0), i32(8), add), code(get(1), i32(8), sub)))
		}, Class: record.Protocol, Message: "the result says"},
		{Name: "wrong kind", Wasm: frame(store16(6), 9), Class: record.Protocol, Message: "frame of kind 9"},
		{Name: "wrong version", Wasm: frame(store16(4), 2), Class: record.Protocol, Message: "frame version 2"},
		{Name: "frame length that overflows", Wasm: frame(store32(0), -1), Class: record.Protocol, Message: "4294967295"},
		{Name: "topic table that overflows", Wasm: frame(store32(12), -8), Class: record.Protocol, Message: "topic table has 4294967288"},
		{Name: "record of length 0", Wasm: poke(store32(0), 0), Class: record.Protocol, Message: "its length is 0"},
		{Name: "record of length 2^32-8", Wasm: poke(store32(0), -8), Class: record.Protocol, Message: "its length is 4294967288"},
		{Name: "answer to an unknown id", Wasm: poke(store32(4), 1<<30), Class: record.Protocol, Message: "is for record 1073741824"},
		{Name: "unknown outcome", Wasm: poke(store8(8), 200), Class: record.Protocol, Message: "outcome 200"},
		{Name: "unknown output", Wasm: poke(store16(12), 77), Class: record.Protocol, Message: "output 77"},
		{Name: "key length that overflows", Wasm: poke(store32(40), -1), Class: record.Protocol, Message: "key of 4294967295"},
		{Name: "value length that overflows", Wasm: poke(store32(44), -1), Class: record.Protocol, Message: "value of 4294967295"},
		{Name: "headers length that overflows", Wasm: poke(store32(48), -1), Class: record.Protocol, Message: "headers of 4294967295"},
		{Name: "headers that are not there", Wasm: answerGuest(first, get(2), i32(0), store8(9), get(2), i32(-1), store16(14)), Class: record.Protocol, Message: "header 0 of 65535"},
		{Name: "partition -7", Wasm: poke(store32(32), -7), Class: record.Protocol, Message: "partition -7"},
		{Name: "missing answer", Wasm: func() []byte {
			s := newStage(16)
			return s.batch(s.passing(), drop, get(0), i32(32), store32(0), get(0), i32(0), store32(12), result(get(0), i32(32)))
		}, Class: record.Protocol, Message: "is not answered"},
		{Name: "doubled answer", Wasm: flood(512, 2, 72, get(2), i32(1), store8(8)), Class: record.Protocol, Message: "answered twice"},
		{Name: "200,000 emissions of one record", Wasm: flood(512, 200_000, 72), Class: record.TooLarge, Message: "more than 100000 emissions"},
		{Name: "70,000 emissions of one record", Wasm: flood(512, 70_000, 72), Class: record.Protocol, Message: "emission 65536 of one record"},
		{Name: "a million empty headers", Wasm: flood(512, 30, 72+6*40_000,
			get(2), i32(11), store8(9), get(2), i32(40_000), store16(14), get(2), i32(6*40_000), store32(48)), Class: record.TooLarge, Message: "more than 500000 headers"},
		{Name: "retry with a negative delay", Wasm: answerGuest(first, get(2), i32(2), store8(8), get(2), i64(-1), 0x37, 3, 16), Class: record.Protocol, Message: "delay of -1 ms"},
	}
}

// calling are the guests that abuse the host's functions.
func calling() []Guest {
	const fuel = "it used up its fuel"
	stageLog := imports("stage", "log", "iii>")
	stageCount := imports("stage", "count", "iiF>")
	stageSign := imports("stage", "sign", "iiiii>i")
	sign := func(handle, alg, ptr, length, out int64) []byte {
		return code(i32(handle), i32(alg), i32(ptr), i32(length), i32(out), call(0))
	}
	// answers is a guest that traps unless each call is answered so, or by the
	// 64 zeros of the warm-up.
	answers := func(want int64, calls ...[]byte) func() []byte {
		var body []byte
		for _, c := range calls {
			body = append(body, code(c, set(2), get(2), i32(want), ne, get(2), i32(64), ne, 0x71, ifThen(unreachable))...)
		}
		return batchGuest(16, body, stageSign)
	}
	f64 := func(bits uint64) []byte {
		b := []byte{0x44}
		for i := range 8 {
			b = append(b, byte(bits>>(8*i)))
		}
		return b
	}
	return []Guest{
		{Name: "log of 4 GiB", Wasm: batchGuest(16, code(i32(1), i32(0), i32(-1), call(0)), stageLog), Class: record.Trap, Message: "it called stage.log with 4294967295 bytes"},
		{Name: "log at an address that overflows", Wasm: batchGuest(16, code(i32(1), i32(-8), i32(16), call(0)), stageLog), Class: record.Trap, Message: "outside of its memory"},
		{Name: "log flood", Wasm: batchGuest(16, forever(i32(3), i32(32), i32(8000), call(0)), stageLog), Class: record.Fuel, Message: fuel},
		{Name: "log flood that ends", Wasm: batchGuest(16, times(1000, code(i32(-1), i32(32), i32(8), call(0))), stageLog), Passes: true},
		{Name: "count flood of names", Wasm: batchGuest(16, code(i32(500), set(2), loop(
			i32(scratch), get(2), store32(0), i32(scratch), i32(4), f64(0x3ff0000000000000), call(0), get(2), i32(1), sub, set(2), get(2), brIf(0))), stageCount), Passes: true},
		{Name: "count of NaN and infinity", Wasm: batchGuest(16, code(
			i32(scratch), i32(4), f64(0x7ff8000000000000), call(0), i32(scratch), i32(4), f64(0x7ff0000000000000), call(0)), stageCount), Passes: true},
		{Name: "count with a name past the memory", Wasm: batchGuest(16, code(i32(-4), i32(100), f64(0), call(0)), stageCount), Class: record.Trap, Message: "it called stage.count"},
		{Name: "signs what lies outside of its memory", Wasm: answers(-5,
			sign(0, 3, 0, -1, scratch), sign(0, 3, -8, 16, scratch), sign(0, 3, 1<<20, 1, scratch), sign(0, 3, -1, -1, -1)), Passes: true},
		{Name: "has signatures written outside of its memory", Wasm: answers(-5,
			sign(0, 3, 0, 8, -1), sign(0, 3, 0, 8, 1<<20), sign(0, 3, 0, 8, 1<<20-1023), sign(0, 3, 0, 8, -1<<31)), Passes: true},
		{Name: "signs with keys and algorithms that are not there", Wasm: answers(-1,
			sign(-1, 3, 0, 8, scratch), sign(0, 0, 0, 8, scratch), sign(1<<30, 1<<30, 0, 0, scratch), sign(0, -1, 0, 1<<20, 0)), Passes: true},
		{Name: "signs a byte more than 16 MiB", Wasm: batchGuest(258, code(sign(0, 3, 0, 16<<20+1, 0), i32(-5), ne, ifThen(unreachable)), stageSign), Passes: true},
		{Name: "signs 8 MiB in a loop", Wasm: batchGuest(129, forever(sign(0, 3, 0, 8<<20, 0), drop), stageSign), Class: record.Fuel, Message: fuel},
		{Name: "signs nothing by RSA in a loop", Wasm: batchGuest(16, forever(sign(0, 17, 0, 0, scratch), drop), stageSign), Class: record.Fuel, Message: fuel},
		{Name: "signs past its memory in a loop", Wasm: batchGuest(16, forever(sign(0, 17, -1, -1, -1), drop), stageSign), Class: record.Fuel, Message: fuel},
		{Name: "random of 32 MiB in a loop", Wasm: batchGuest(512, forever(i32(0), i32(32<<20-1), call(0), drop), imports(wasi, "random_get", "ii>i")), Class: record.Fuel, Message: fuel},
		{Name: "random past the memory", Wasm: batchGuest(16, code(i32(-4), i32(100), call(0), i32(21), ne, ifThen(unreachable)), imports(wasi, "random_get", "ii>i")), Passes: true},
		{Name: "writes with 4 million iovecs", Wasm: batchGuest(512, forever(i32(2), i32(0), i32(4<<20), i32(0), call(0), drop), imports(wasi, "fd_write", "iiii>i")), Class: record.Fuel, Message: fuel},
		{Name: "writes with iovecs over all memory", Wasm: batchGuest(512, code(
			i32(scratch), set(2), i32(1000), set(3),
			loop(get(2), i32(0), store32(0), get(2), i32(32<<20), store32(4), get(2), i32(8), add, set(2), get(3), i32(1), sub, set(3), get(3), brIf(0)),
			i32(2), i32(scratch), i32(1000), i32(0), call(0), drop), imports(wasi, "fd_write", "iiii>i")), Class: record.Fuel, Message: fuel},
		{Name: "writes with a count that overflows", Wasm: batchGuest(16, code(i32(2), i32(0), i32(0x20000001), i32(0), call(0), i32(21), ne, ifThen(unreachable)), imports(wasi, "fd_write", "iiii>i")), Passes: true},
		{Name: "polls a million events", Wasm: batchGuest(1000, forever(i32(1<<20), i32(0), i32(1_000_000), i32(0), call(0), drop), imports(wasi, "poll_oneoff", "iiii>i")), Class: record.Fuel, Message: fuel},
		{Name: "sleeps for 292 years", Wasm: batchGuest(16, code(
			i32(scratch+24), i64(-1), 0x37, 3, 0, i32(scratch), i32(scratch+64), i32(1), i32(scratch+128), call(0), ifThen(unreachable)), imports(wasi, "poll_oneoff", "iiii>i")), Passes: true},
		{Name: "sleeps in a loop", Wasm: batchGuest(16, forever(
			i32(scratch+24), i64(1<<40), 0x37, 3, 0, i32(scratch), i32(scratch+64), i32(1), i32(scratch+128), call(0), drop), imports(wasi, "poll_oneoff", "iiii>i")), Class: record.Fuel, Message: fuel},
		{Name: "opens a path of 32 MiB in a loop", Wasm: batchGuest(512, forever(
			i32(3), i32(0), i32(0), i32(32<<20-8), i32(0), i64(-1), i64(-1), i32(0), i32(0), call(0), drop), imports(wasi, "path_open", "iiiiiIIii>i")), Class: record.Fuel, Message: fuel},
		{Name: "closes and renumbers all file descriptors", Wasm: func() []byte {
			s := newStage(16, imports(wasi, "fd_close", "i>i"), imports(wasi, "fd_renumber", "ii>i"))
			return s.batch(i32(0), call(0), drop, i32(1), call(0), drop, i32(2), call(0), drop, i32(2), i32(77), call(1), drop, s.passing())
		}, Passes: true},
		{Name: "proc_exit in the middle", Wasm: batchGuest(16, code(i32(0), call(0)), imports(wasi, "proc_exit", "i>")), Class: record.Trap, Message: "it ended itself with proc_exit(0)"},
		{Name: "reads the clock in a loop", Wasm: batchGuest(16, forever(i32(0), i64(1), i32(scratch), call(0), drop), imports(wasi, "clock_time_get", "iIi>i")), Class: record.Fuel, Message: fuel},
	}
}

// programs are the guests of lines mode.
func programs() []Guest {
	read, write, exit := imports(wasi, "fd_read", "iiii>i"), imports(wasi, "fd_write", "iiii>i"), imports(wasi, "proc_exit", "i>")
	// Import 0 is fd_read: read into 1 KiB at 4096.
	readSome := code(i32(scratch), i32(4096), store32(0), i32(scratch), i32(1024), store32(4), i32(0), i32(scratch), i32(1), i32(scratch+8), call(0), drop)
	writeAll := code(i32(scratch+16), i32(0), store32(0), i32(scratch+16), i32(1<<20), store32(4), i32(1), i32(scratch+16), i32(1), i32(scratch+8), call(1), drop)
	const fuel = "it used up its fuel"
	return []Guest{
		{Name: "program that signs", Lines: true, Wasm: command(1, code(i32(0), i32(0), i32(0), i32(0), i32(0), call(0), drop), imports("stage", "sign", "iiiii>i")), Refused: "import"},
		{Name: "program that loops before it reads", Lines: true, Wasm: command(1, forever()), Start: "before it read anything"},
		{Name: "program that loops", Lines: true, Wasm: command(1, code(readSome, forever()), read), Class: record.Fuel, Message: fuel},
		{Name: "program that reads for ever", Lines: true, Wasm: command(1, forever(readSome), read), Class: record.Fuel, Message: fuel},
		{Name: "program that reads nothing for ever", Lines: true, Wasm: command(1, forever(i32(0), i32(0), i32(0), i32(0), call(0), drop), read), Class: record.Fuel, Message: fuel},
		{Name: "program that traps", Lines: true, Wasm: command(1, code(readSome, unreachable), read), Class: record.Trap, Message: "it trapped: unreachable in function 1"},
		{Name: "program that traps before it reads", Lines: true, Wasm: command(1, code(unreachable)), Class: record.Trap, Message: "it trapped"},
		{Name: "program that exits before it reads", Lines: true, Wasm: command(1, code(i32(3), call(0)), exit), Class: record.Rejected, Message: "exit code 3"},
		{Name: "program that exits with -1", Lines: true, Wasm: command(1, code(readSome, i32(-1), call(1)), read, exit), Class: record.Rejected, Message: "exit code 4294967295"},
		{Name: "program that writes without end", Lines: true, Wasm: command(20, code(readSome, forever(writeAll)), read, write), Class: record.Fuel, Message: fuel},
		{Name: "program that writes without end before it reads", Lines: true, Wasm: command(20, forever(readSome[:0], writeAll), read, write), Start: "before it read anything", Large: true},
		{Name: "program that writes 200,000 lines", Lines: true, Wasm: command(4, code(
			readSome, i32(1<<16), i32('\n'), i32(100_000), memoryFill,
			times(2, code(i32(scratch+16), i32(1<<16), store32(0), i32(scratch+16), i32(100_000), store32(4), i32(1), i32(scratch+16), i32(1), i32(scratch+8), call(1), drop))),
			read, write), Class: record.TooLarge, Message: "it wrote 200000 lines"},
		{Name: "program that remembers", Lines: true, Wasm: command(1, code(
			readSome, i32(64), load32(0), ifThen(unreachable), i32(64), i32(1), store32(0)), read), Passes: true},
		{Name: "program that grows", Lines: true, Wasm: command(1, code(readSome, i32(10), memoryGrow, drop), read), Passes: true},
		{Name: "program that grows without end", Lines: true, Wasm: command(1, code(readSome, forever(i32(64), memoryGrow, i32(-1), 0x46, ifThen(unreachable))), read), Class: record.Memory, Message: "the limit is"},
		{Name: "program that reads deep in its stack", Lines: true, Wasm: func() []byte {
			m := &module{}
			read(m)
			m.memory = limits(1, -1)
			m.export("memory", 2, 0)
			f := m.imported + 1
			m.export("_start", 0, m.fn(">", 0, i32(100_000), call(f)))
			m.fn("i>", 0, get(0), 0x04, 0x40, get(0), i32(1), sub, call(f), 0x05, readSome, 0x0b)
			return m.build()
		}, Passes: true, Large: true, Measured: true}, // every run costs a stack that fuel paid for once
		{Name: "program with iovecs that overlap", Lines: true, Wasm: command(1, code(
			i32(scratch), i32(scratch), store32(0), i32(scratch), i32(16), store32(4),
			i32(0), i32(scratch), i32(100), i32(scratch), call(0), drop), read), Passes: true},
	}
}
