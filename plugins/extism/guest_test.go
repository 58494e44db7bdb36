package extism

import (
	"github.com/millrace-io/millrace/plugins/internal/testkit"
	"github.com/millrace-io/millrace/plugins/sandbox"
)

// A guest is put together here, instruction by instruction: what it does
// wrong, no PDK would.

const (
	i32, i64 = 0x7f, 0x7e
)

// hostileGuest exports functions that are named after what they do. Its
// imports are alloc (0), store_u64 (1) and output_set (2) of Extism; its
// global 0 counts calls of count and third.
func hostileGuest() []byte {
	types := testkit.Vector(
		[]byte{0x60, 0, 1, i32},           // 0: () -> i32
		[]byte{0x60, 1, i64, 1, i64},      // 1: (i64) -> i64
		[]byte{0x60, 2, i64, i64, 0},      // 2: (i64, i64)
		[]byte{0x60, 0, 0},                // 3: ()
		[]byte{0x60, 2, i32, i32, 1, i32}, // 4: (i32, i32) -> i32
	)
	env := func(name string, typ byte) []byte {
		return append(append(testkit.Name(sandbox.ExtismModule), testkit.Name(name)...), 0, typ)
	}
	imports := testkit.Vector(env("alloc", 1), env("store_u64", 2), env("output_set", 2))

	const (
		unreachable, loop, iff, end, br, call, drop = 0x00, 0x03, 0x04, 0x0b, 0x0c, 0x10, 0x1a
		globalGet, globalSet, i32Const, i64Const    = 0x23, 0x24, 0x41, 0x42
		memoryGrow, i32Eq, i64Add, i64Eq, i64Store  = 0x40, 0x46, 0x7c, 0x51, 0x37
		localGet, localTee, none                    = 0x20, 0x22, 0x40
	)
	increment := []byte{globalGet, 0, i64Const, 1, i64Add, globalSet, 0}
	// Answers the counter, 8 bytes, and returns 0.
	answer := []byte{i64Const, 8, call, 0, localTee, 0, globalGet, 0, call, 1, localGet, 0, i64Const, 8, call, 2, i32Const, 0}
	join := func(parts ...[]byte) (b []byte) {
		for _, p := range parts {
			b = append(b, p...)
		}
		return b
	}
	functions := []struct {
		name string
		typ  byte
		body []byte // with one i64 local
	}{
		{"loop", 3, []byte{loop, none, br, 0, end}},
		{"trap", 0, []byte{unreachable}},
		{"recurse", 0, []byte{call, 5}},
		{"grow", 0, []byte{loop, none, i32Const, 16, memoryGrow, 0, i32Const, 0x7f, i32Eq, iff, none, unreachable, end, br, 0, end, unreachable}},
		{"hostgrow", 0, []byte{loop, none, i64Const, 0x80, 0x80, 0x80, 0x01, call, 0, i64Const, 0, i64Eq, iff, none, end, br, 0, end, unreachable}},
		{"count", 0, join(increment, answer)},
		{"third", 0, join(increment, []byte{globalGet, 0, i64Const, 3, i64Eq, iff, none, unreachable, end}, answer)},
		{"seven", 0, []byte{i32Const, 7}},
		{"wild", 0, []byte{i64Const, 0x80, 0x80, 0x80, 0x01, i64Const, 8, call, 2, i32Const, 0}},
		{"scribble", 0, []byte{i64Const, 0x7f, i64Const, 1, call, 1, i32Const, 0}},
		{"two", 4, []byte{i32Const, 0}},
	}
	var types3, exports, bodies [][]byte
	for i, f := range functions {
		types3 = append(types3, []byte{f.typ})
		exports = append(exports, append(testkit.Name(f.name), 0, byte(3+i)))
		body := join([]byte{1, 1, i64}, f.body, []byte{end})
		bodies = append(bodies, append(testkit.Uleb(len(body)), body...))
	}
	exports = append(exports, append(testkit.Name("memory"), 2, 0))
	return join([]byte("\x00asm\x01\x00\x00\x00"),
		testkit.Section(1, types), testkit.Section(2, imports), testkit.Section(3, testkit.Vector(types3...)),
		testkit.Section(5, testkit.Vector([]byte{0, 1})),
		testkit.Section(6, testkit.Vector([]byte{i64, 1, i64Const, 0, end})),
		testkit.Section(7, testkit.Vector(exports...)), testkit.Section(10, testkit.Vector(bodies...)))
}
