// Package wasmgen makes random WebAssembly that is valid, for tests that
// compare two ways to run it. The same seed makes the same code. It is no
// fuzzer of decoders: what it makes always compiles.
package wasmgen

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
)

// Locals is the number of i32 locals, from index 0, that code of a Maker uses.
const Locals = 4

// Maker makes the code of function bodies. The module that it is put into has
// function 0, () -> (), function 1, (i32, i32) -> i32, functions 2 to 5, () ->
// (), of which 0 to 4 are declared; type 0, () -> (); table 0 of at least 8
// entries of functions; passive data segment 0; a memory.
type Maker struct {
	*rand.Rand
	// Left is about how many instructions may still be made.
	Left int
	// Memory is the number of bytes that loads and stores reach; at least 32
	// KiB, of a memory that may be smaller.
	Memory int
	// Globals says that there are mutable globals: 0 to 3 of type i32, 4 of
	// i64, 5 of f64, 6 of f32.
	Globals bool
	// Tables allows table.set, Growth memory.grow.
	Tables, Growth bool
}

// Statements leave the stack as it was, and nothing else open.
func (m *Maker) Statements() []byte { return m.statements(0) }

func (m *Maker) value() []byte {
	m.Left--
	if m.Left <= 0 {
		return i32(m.IntN(100))
	}
	switch m.IntN(10) {
	case 0, 1:
		return i32(m.IntN(1<<10) - 1<<9)
	case 2, 3:
		return []byte{0x20, byte(m.IntN(Locals))}
	case 4: // arithmetic, with divisions
		return cat(m.value(), m.value(), []byte{byte(0x6a + m.IntN(15))})
	case 5: // comparisons
		return cat(m.value(), m.value(), []byte{byte(0x46 + m.IntN(10))})
	case 6:
		return cat(m.value(), i32(0x3fff), []byte{0x71, 0x28, 2}, m.offset())
	case 7:
		return cat(m.value(), []byte{0x04, 0x7f}, m.value(), []byte{0x05}, m.value(), []byte{0x0b})
	case 8:
		if m.Globals {
			return [][]byte{{0x23, 0}, {0x23, 1}, {0x23, 2}, {0x23, 3}, {0x23, 4, 0xa7}, {0x23, 5, 0xbd, 0xa7}, {0x23, 6, 0xbc}}[m.IntN(7)]
		}
		return []byte{0x20, byte(m.IntN(Locals))}
	default:
		return cat(m.value(), m.value(), []byte{0x10, 1})
	}
}

// offset is one that 16 KiB fit behind.
func (m *Maker) offset() []byte { return leb(m.IntN(max(1, m.Memory-0x4008))) }

func (m *Maker) length() []byte { return cat(m.value(), i32(0x7ff), []byte{0x71}) }

// statement leaves the stack as it was. depth is how many blocks are open;
// each may be left.
func (m *Maker) statement(depth int) []byte {
	m.Left--
	switch m.IntN(18) {
	case 0, 1, 2:
		return cat(m.value(), []byte{0x21, byte(m.IntN(Locals))})
	case 3, 4:
		return cat(m.value(), i32(0x3fff), []byte{0x71}, m.value(), []byte{0x36, 2}, m.offset())
	case 5, 6:
		return cat([]byte{0x03, 0x40}, m.statements(depth+1), m.value(), i32(3), []byte{0x71, 0x0d, 0, 0x0b})
	case 7:
		return cat([]byte{0x02, 0x40}, m.statements(depth+1), []byte{0x0b})
	case 8:
		return cat(m.value(), []byte{0x04, 0x40}, m.statements(depth+1), []byte{0x05}, m.statements(depth+1), []byte{0x0b})
	case 9:
		return cat(m.value(), []byte{0x0d}, leb(m.IntN(depth+1)))
	case 10:
		return cat([]byte{0x02, 0x40}, m.value(), []byte{0x0e, 1, 0}, leb(m.IntN(depth+2)), m.statement(depth+1), []byte{0x0b})
	case 11:
		return [][]byte{{0x10, 0}, {0x10, 3}, {0x10, 4}, {0x10, 5}}[m.IntN(4)]
	case 12:
		return cat(m.value(), i32(7), []byte{0x71, 0x11, 0, 0})
	case 13:
		return cat(m.length(), m.value(), m.length(), []byte{0xfc, 0x0b, 0})
	case 14:
		return cat(m.length(), m.length(), m.length(), [][]byte{{0xfc, 0x0a, 0, 0}, {0xfc, 0x08, 0, 0}}[m.IntN(2)])
	case 15:
		if m.Growth {
			return cat(m.value(), i32(1), []byte{0x71, 0x40, 0, 0x1a})
		}
	case 16:
		if m.Tables {
			return cat(m.value(), i32(15), []byte{0x71, 0xd2}, leb(m.IntN(5)), []byte{0x26, 0})
		}
	default:
		if m.Globals {
			to := [][]byte{{0x24, 0}, {0x24, 1}, {0x24, 2}, {0x24, 3}, {0xac, 0x24, 4}, {0xb7, 0x24, 5}, {0xb2, 0x24, 6}}
			return cat(m.value(), to[m.IntN(len(to))])
		}
	}
	return cat(m.value(), []byte{0x1a})
}

func (m *Maker) statements(depth int) []byte {
	var out []byte
	for range 1 + m.IntN(6) {
		if m.Left <= 0 {
			break
		}
		out = append(out, m.statement(depth)...)
	}
	return out
}

// Pages is the memory that a Stage begins with.
const Pages = 18

// Stage is a plugin of mode call that has memory, globals and a table, and
// does at random with them what it may for each batch. Every record is passed
// on, to a partition that depends on what was done, unless a trap comes first.
func Stage(seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 5))
	m := &Maker{Rand: r, Memory: Pages << 16, Globals: true, Tables: r.IntN(6) == 0, Growth: r.IntN(4) == 0}
	get := func(l byte) []byte { return []byte{0x20, l} }
	global0 := []byte{0x23, 0}
	bodies := [][]byte{
		// Function 0 counts, and writes where the batch says.
		function(nil, global0, i32(1), []byte{0x6a, 0x24, 0},
			[]byte{0x23, 1}, i32(40503), []byte{0x6c}, global0, i32(1031), []byte{0x6c, 0x6a}, i32(0x7ffc), []byte{0x71}, global0, []byte{0x36, 2, 0}),
		function(nil, get(0), get(1), []byte{0x6b}),
	}
	types := [][]byte{{0}, {1}}
	for range 6 {
		m.Left = 10 + m.IntN(300)
		types = append(types, []byte{0})
		bodies = append(bodies, function([]byte{1, Locals, 0x7f}, m.Statements(), m.Statements()))
	}
	const ptr, length, p, end = 0, 1, 2, 3
	set := func(l byte) []byte { return []byte{0x21, l} }
	field := func(op byte, offset, v int) []byte { return cat(get(p), i32(v), []byte{op, 0}, leb(offset)) }
	// What follows the first record's header, and how long the frame is, steer
	// the code.
	steer := cat(get(ptr), get(ptr), []byte{0x28, 2, 12, 0x6a, 0x28, 0}, leb(32+80), get(length), []byte{0x6a, 0x24, 1, 0x10, 0, 0x10, 0})
	for range 1 + m.IntN(4) {
		steer = cat(steer, []byte{0x10}, leb(2+m.IntN(6)))
	}
	bodies = append(bodies,
		function(nil),
		function(nil, i32(4<<16)),
		function([]byte{1, 2, 0x7f}, steer,
			get(ptr), i32(2), []byte{0x3b, 0, 6},
			get(ptr), get(ptr), []byte{0x28, 2, 12, 0x6a}, i32(32), []byte{0x6a}, set(p),
			get(ptr), get(length), []byte{0x6a}, set(end),
			[]byte{0x02, 0x40, 0x03, 0x40}, get(p), get(end), []byte{0x4f, 0x0d, 1},
			field(0x3b, 8, 15<<8), field(0x36, 12, 0),
			get(p), global0, get(p), []byte{0x28, 2, 4, 0x6a}, i32(0x7fff), []byte{0x71, 0x36, 2, 32},
			field(0x36, 40, 0), field(0x36, 44, 0), field(0x36, 48, 0),
			get(p), get(p), []byte{0x28, 2, 0, 0x6a}, set(p), []byte{0x0c, 0, 0x0b, 0x0b},
			get(ptr), []byte{0xad, 0x42, 32, 0x86}, get(length), []byte{0xad, 0x84}))
	types = append(types, []byte{0}, []byte{2}, []byte{3})
	export := func(name string, kind, index byte) []byte {
		return cat(leb(len(name)), []byte(name), []byte{kind, index})
	}
	return slices.Concat([]byte("\x00asm\x01\x00\x00\x00"),
		vector(1, []byte{0x60, 0, 0}, []byte{0x60, 2, 0x7f, 0x7f, 1, 0x7f}, []byte{0x60, 1, 0x7f, 1, 0x7f}, []byte{0x60, 2, 0x7f, 0x7f, 1, 0x7e}),
		vector(3, types...),
		vector(4, []byte{0x70, 0, 16}),
		vector(5, []byte{0, Pages}),
		vector(6,
			[]byte{0x7f, 1, 0x41, 1, 0x0b}, []byte{0x7f, 1, 0x41, 2, 0x0b}, []byte{0x7f, 1, 0x41, 3, 0x0b}, []byte{0x7f, 1, 0x41, 4, 0x0b},
			[]byte{0x7e, 1, 0x42, 5, 0x0b}, cat([]byte{0x7c, 1, 0x44}, make([]byte, 8), []byte{0x0b}), cat([]byte{0x7d, 1, 0x43}, make([]byte, 4), []byte{0x0b})),
		vector(7, export("memory", 2, 0), export("stage_abi_1", 0, 8), export("stage_alloc", 0, 9), export("stage_batch", 0, 10)),
		vector(9, []byte{0, 0x41, 0, 0x0b, 8, 0, 2, 3, 4, 5, 6, 7, 0}, []byte{1, 0, 1, 1}, []byte{3, 0, 2, 1, 4}),
		section(12, []byte{1}),
		vector(10, bodies...),
		vector(11, cat([]byte{1}, leb(600), slices.Repeat([]byte{'x', 'y', 'z'}, 200))))
}

func function(locals []byte, parts ...[]byte) []byte {
	if locals == nil {
		locals = []byte{0}
	}
	body := cat(locals, cat(parts...), []byte{0x0b})
	return cat(leb(len(body)), body)
}

func vector(id byte, items ...[]byte) []byte {
	return section(id, cat(leb(len(items)), cat(items...)))
}

func section(id byte, content []byte) []byte {
	return cat([]byte{id}, leb(len(content)), content)
}

func cat(parts ...[]byte) []byte { return slices.Concat(parts...) }

func leb(v int) []byte { return binary.AppendUvarint(nil, uint64(v)) }

// i32 pushes a constant.
func i32(v int) []byte {
	b := []byte{0x41}
	for v < -64 || v > 63 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v)&0x7f)
}
