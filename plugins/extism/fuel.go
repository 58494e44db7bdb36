package extism

import (
	"encoding/binary"
	"errors"
	"slices"
)

// DefaultMaxFuelPerRecord is the fuel that a call may use unless configured.
// It is more than a guest of our own ABI gets: an Extism guest copies each
// value by calls of the host, 8 bytes at a time.
const DefaultMaxFuelPerRecord int64 = 12_000_000

// fuelProbe is an export added by wrapExports, () -> i32: whether the fuel of
// the last call is used up.
const fuelProbe = "millrace:out-of-fuel"

// Sections of a Wasm binary.
const (
	sectionType     = 1
	sectionImport   = 2
	sectionFunction = 3
	sectionExport   = 7
	sectionCode     = 10
)

// Instructions.
const (
	opIf        = 0x04
	opEnd       = 0x0b
	opReturn    = 0x0f
	opCall      = 0x10
	opLocalGet  = 0x20
	opGlobalGet = 0x23
	opGlobalSet = 0x24
	opI64Const  = 0x42
	opI64LtS    = 0x53
	blockEmpty  = 0x40
	typeFunc    = 0x60
	typeI32     = 0x7f
)

var errWrap = errors.New("wrap exports: the module is not as the rewriter writes it")

// wrapExports puts a function before each exported one that sets the fuel
// counter to budget, and adds the export fuelProbe: the SDK gives no access to
// globals. Function indices stay. It returns the index of the first wrapper.
//
// An initializer that is called when the fuel is used up returns at once: the
// SDK may call one before it calls the probe.
func wrapExports(wasm []byte, fuel uint32, budget int64) ([]byte, uint32, error) {
	sections, err := split(wasm)
	if err != nil {
		return nil, 0, err
	}
	m, err := readFunctions(sections)
	if err != nil {
		return nil, 0, err
	}
	first := uint32(len(m.functions))
	types, functions, code := m.section(sectionType), m.section(sectionFunction), m.section(sectionCode)
	if types == nil || functions == nil || code == nil {
		return nil, 0, errWrap
	}
	var newFunctions, newCode, exports []byte
	added, exported := 0, 0
	add := func(typ uint32, body []byte) uint32 {
		newFunctions = binary.AppendUvarint(newFunctions, uint64(typ))
		newCode = binary.AppendUvarint(newCode, uint64(len(body)))
		newCode = append(newCode, body...)
		added++
		return first + uint32(added-1)
	}
	for _, e := range m.exports {
		index := e.index
		if e.kind == 0 {
			typ := m.functions[index]
			index = add(typ, wrapper(index, fuel, budget, m.types[typ], slices.Contains(initializers, e.name)))
		}
		exports = appendExport(exports, e.name, e.kind, index)
		exported++
	}
	probe := []byte{0, opGlobalGet}
	probe = binary.AppendUvarint(probe, uint64(fuel))
	probe = append(probe, opI64Const, 0, opI64LtS, opEnd)
	exports = appendExport(exports, fuelProbe, 0, add(uint32(len(m.types)), probe))
	exported++

	types.payload = extend(types.payload, []byte{typeFunc, 0, 1, typeI32}, 1)
	functions.payload = extend(functions.payload, newFunctions, added)
	code.payload = extend(code.payload, newCode, added)
	m.section(sectionExport).payload = append(binary.AppendUvarint(nil, uint64(exported)), exports...)

	out := slices.Clone(wasm[:8])
	for _, s := range sections {
		out = append(out, s.id)
		out = binary.AppendUvarint(out, uint64(len(s.payload)))
		out = append(out, s.payload...)
	}
	return out, first, nil
}

// initializers are what the SDK calls before the first call of a function.
var initializers = []string{"_initialize", "__wasm_call_ctors", "hs_init"}

func wrapper(target, fuel uint32, budget int64, t funcType, initializer bool) []byte {
	b := []byte{0}
	global := func(op byte) {
		b = binary.AppendUvarint(append(b, op), uint64(fuel))
	}
	if initializer && t.results == 0 {
		global(opGlobalGet)
		b = append(b, opI64Const, 0, opI64LtS, opIf, blockEmpty, opReturn, opEnd)
	}
	b = appendVarint(append(b, opI64Const), budget)
	global(opGlobalSet)
	for i := range t.params {
		b = binary.AppendUvarint(append(b, opLocalGet), uint64(i))
	}
	b = binary.AppendUvarint(append(b, opCall), uint64(target))
	return append(b, opEnd)
}

func appendExport(b []byte, name string, kind byte, index uint32) []byte {
	b = binary.AppendUvarint(b, uint64(len(name)))
	b = append(append(b, name...), kind)
	return binary.AppendUvarint(b, uint64(index))
}

// extend adds n items to a vector.
func extend(vector, items []byte, n int) []byte {
	count, width := binary.Uvarint(vector)
	out := binary.AppendUvarint(make([]byte, 0, len(vector)+len(items)+2), count+uint64(n))
	return append(append(out, vector[width:]...), items...)
}

// appendVarint appends v as signed LEB128.
func appendVarint(b []byte, v int64) []byte {
	for {
		low := byte(v & 0x7f)
		v >>= 7
		if v == 0 && low&0x40 == 0 || v == -1 && low&0x40 != 0 {
			return append(b, low)
		}
		b = append(b, low|0x80)
	}
}

type section struct {
	id      byte
	payload []byte
}

func split(wasm []byte) ([]section, error) {
	if len(wasm) < 8 {
		return nil, errWrap
	}
	var out []section
	c := cursor{b: wasm[8:]}
	for len(c.b) > 0 {
		id := c.byte()
		payload := c.take(c.u32())
		if c.bad {
			return nil, errWrap
		}
		out = append(out, section{id, payload})
	}
	return out, nil
}

// functions is what wrapExports has to know of a module.
type functions struct {
	sections  []section
	types     []funcType
	functions []uint32 // the type of each, imported ones first
	exports   []export
}

type funcType struct{ params, results uint32 }

type export struct {
	name  string
	kind  byte
	index uint32
}

func (m *functions) section(id byte) *section {
	for i := range m.sections {
		if m.sections[i].id == id {
			return &m.sections[i]
		}
	}
	return nil
}

func readFunctions(sections []section) (*functions, error) {
	m := &functions{sections: sections}
	for _, s := range sections {
		c := cursor{b: s.payload}
		switch s.id {
		case sectionType:
			for range c.u32() {
				c.byte()
				t := funcType{}
				t.params = c.u32()
				c.take(t.params)
				t.results = c.u32()
				c.take(t.results)
				if c.bad {
					break
				}
				m.types = append(m.types, t)
			}
		case sectionImport:
			for range c.u32() {
				c.take(c.u32())
				c.take(c.u32())
				switch c.byte() {
				case 0:
					m.functions = append(m.functions, c.u32())
				case 1:
					c.byte()
					c.limits()
				case 2:
					c.limits()
				default:
					c.take(2)
				}
				if c.bad {
					break
				}
			}
		case sectionFunction:
			for range c.u32() {
				m.functions = append(m.functions, c.u32())
				if c.bad {
					break
				}
			}
		case sectionExport:
			for range c.u32() {
				e := export{name: string(c.take(c.u32()))}
				e.kind, e.index = c.byte(), c.u32()
				if c.bad || e.kind == 0 && int64(e.index) >= int64(len(m.functions)) {
					return nil, errWrap
				}
				m.exports = append(m.exports, e)
			}
		}
		if c.bad {
			return nil, errWrap
		}
	}
	for _, t := range m.functions {
		if int64(t) >= int64(len(m.types)) {
			return nil, errWrap
		}
	}
	return m, nil
}

// cursor reads a binary; bad is set, and everything read is zero, when it ends
// too early.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) byte() byte {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) u32() uint32 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 || v > 1<<32-1 {
		c.bad, c.b = true, nil
		return 0
	}
	c.b = c.b[n:]
	return uint32(v)
}

func (c *cursor) take(n uint32) []byte {
	if uint64(n) > uint64(len(c.b)) {
		c.bad, c.b = true, nil
		return nil
	}
	out := c.b[:n:n]
	c.b = c.b[n:]
	return out
}

func (c *cursor) limits() {
	flags := c.byte()
	c.u32()
	if flags&1 != 0 {
		c.u32()
	}
}
