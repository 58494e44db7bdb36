package hostile

import (
	"encoding/binary"
	"slices"
	"strings"
)

// module is a WebAssembly binary in the making. Its functions are numbered in
// the order in which they are added, imports first.
type module struct {
	types    []string
	imports  [][]byte
	imported int
	decls    [][]byte
	bodies   [][]byte
	exports  [][]byte
	memory   []byte   // limits, nil: none
	tables   [][]byte // type and limits
	globals  [][]byte
	elements [][]byte
	customs  []byte
	start    []byte
}

func uleb(n uint64) []byte { return binary.AppendUvarint(nil, n) }

// sleb is a signed LEB128.
func sleb(v int64) []byte {
	var out []byte
	for {
		b := byte(v & 0x7f)
		v >>= 7
		if v == 0 && b&0x40 == 0 || v == -1 && b&0x40 != 0 {
			return append(out, b)
		}
		out = append(out, b|0x80)
	}
}

func text(s string) []byte { return append(uleb(uint64(len(s))), s...) }

func code(parts ...any) []byte {
	var out []byte
	for _, p := range parts {
		switch p := p.(type) {
		case []byte:
			out = append(out, p...)
		case byte:
			out = append(out, p)
		case int:
			out = append(out, byte(p))
		default:
			panic("hostile: not a part of code")
		}
	}
	return out
}

func vector(items [][]byte) []byte {
	out := uleb(uint64(len(items)))
	for _, i := range items {
		out = append(out, i...)
	}
	return out
}

// limits is a minimum, and a maximum unless it is negative.
func limits(least, most int64) []byte {
	if most < 0 {
		return append([]byte{0}, uleb(uint64(least))...)
	}
	return append(append([]byte{1}, uleb(uint64(least))...), uleb(uint64(most))...)
}

var valueTypes = map[byte]byte{'i': 0x7f, 'I': 0x7e, 'f': 0x7d, 'F': 0x7c}

// typ gives the index of a function type: "ii>I" takes two i32 and returns an
// i64.
func (m *module) typ(t string) []byte {
	i := slices.Index(m.types, t)
	if i < 0 {
		i = len(m.types)
		m.types = append(m.types, t)
	}
	return uleb(uint64(i))
}

func (m *module) importFunc(from, name, typ string) int {
	m.imports = append(m.imports, code(text(from), text(name), 0, m.typ(typ)))
	m.imported++
	return m.imported - 1
}

// fn adds a function: locals are i32, body lacks the end.
func (m *module) fn(typ string, locals int, body ...any) int {
	m.decls = append(m.decls, m.typ(typ))
	head := []byte{0}
	if locals > 0 {
		head = code(1, uleb(uint64(locals)), 0x7f)
	}
	b := code(head, code(body...), 0x0b)
	m.bodies = append(m.bodies, append(uleb(uint64(len(b))), b...))
	return m.imported + len(m.bodies) - 1
}

func (m *module) export(name string, kind byte, index int) {
	m.exports = append(m.exports, code(text(name), kind, uleb(uint64(index))))
}

// global adds a mutable i32.
func (m *module) global(value int64) int {
	m.globals = append(m.globals, code(0x7f, 1, i32(value), 0x0b))
	return len(m.globals) - 1
}

func (m *module) build() []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	section := func(id byte, content []byte) {
		out = append(append(append(out, id), uleb(uint64(len(content)))...), content...)
	}
	list := func(id byte, items [][]byte) {
		if len(items) > 0 {
			section(id, vector(items))
		}
	}
	var types [][]byte
	for _, t := range m.types {
		params, results, _ := strings.Cut(t, ">")
		side := func(s string) []byte {
			b := uleb(uint64(len(s)))
			for i := range len(s) {
				b = append(b, valueTypes[s[i]])
			}
			return b
		}
		types = append(types, code(0x60, side(params), side(results)))
	}
	list(1, types)
	list(2, m.imports)
	list(3, m.decls)
	list(4, m.tables)
	if m.memory != nil {
		section(5, vector([][]byte{m.memory}))
	}
	list(6, m.globals)
	list(7, m.exports)
	if m.start != nil {
		section(8, m.start)
	}
	list(9, m.elements)
	list(10, m.bodies)
	return append(out, m.customs...)
}

// Instructions. Those without operands on the stack take them as arguments.

func i32(v int64) []byte             { return code(0x41, sleb(v)) }
func i64(v int64) []byte             { return code(0x42, sleb(v)) }
func get(local int) []byte           { return code(0x20, uleb(uint64(local))) }
func set(local int) []byte           { return code(0x21, uleb(uint64(local))) }
func getGlobal(g int) []byte         { return code(0x23, uleb(uint64(g))) }
func setGlobal(g int) []byte         { return code(0x24, uleb(uint64(g))) }
func call(f int) []byte              { return code(0x10, uleb(uint64(f))) }
func load32(offset int) []byte       { return code(0x28, 0, uleb(uint64(offset))) }
func store32(offset int) []byte      { return code(0x36, 0, uleb(uint64(offset))) }
func store8(offset int) []byte       { return code(0x3a, 0, uleb(uint64(offset))) }
func store16(offset int) []byte      { return code(0x3b, 0, uleb(uint64(offset))) }
func block(body ...any) []byte       { return code(0x02, 0x40, code(body...), 0x0b) }
func loop(body ...any) []byte        { return code(0x03, 0x40, code(body...), 0x0b) }
func ifThen(body ...any) []byte      { return code(0x04, 0x40, code(body...), 0x0b) }
func br(depth int) []byte            { return code(0x0c, uleb(uint64(depth))) }
func brIf(depth int) []byte          { return code(0x0d, uleb(uint64(depth))) }
func forever(body ...any) []byte     { return loop(code(body...), br(0)) }
func times(n int64, b []byte) []byte { return slices.Repeat(b, int(n)) }

const (
	unreachable = 0x00
	ret         = 0x0f
	drop        = 0x1a
	eqz         = 0x45
	ne          = 0x47
	geU         = 0x4f
	add         = 0x6a
	sub         = 0x6b
	mul         = 0x6c
	divU        = 0x6e
)

var (
	memoryFill = []byte{0xfc, 11, 0}
	memoryGrow = []byte{0x40, 0}
)
