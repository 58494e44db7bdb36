package rewrite

import (
	"bytes"
	"fmt"
)

// Section ids of the binary format.
const (
	secCustom    = 0
	secType      = 1
	secImport    = 2
	secFunction  = 3
	secTable     = 4
	secMemory    = 5
	secGlobal    = 6
	secExport    = 7
	secStart     = 8
	secElement   = 9
	secCode      = 10
	secData      = 11
	secDataCount = 12
	secTag       = 13

	numSections = 13
)

var sectionNames = [numSections]string{
	"custom", "type", "import", "function", "table", "memory", "global",
	"export", "start", "element", "code", "data", "data count",
}

// sectionRank is the place of a section in the prescribed order.
var sectionRank = [numSections]int{
	secType: 1, secImport: 2, secFunction: 3, secTable: 4, secMemory: 5,
	secGlobal: 6, secExport: 7, secStart: 8, secElement: 9, secDataCount: 10,
	secCode: 11, secData: 12,
}

// section is one section as it lies in the module: header from start to body,
// content from body to end.
type section struct {
	id               byte
	start, body, end int

	// drop marks a custom section that is not written again, placesInCode
	// one that is not written again when the code changes.
	drop, placesInCode bool
}

// span is a part of the module.
type span struct{ start, end uint32 }

// funcType is one entry of the type section: the bytes are value types.
type funcType struct{ params, results []byte }

type global struct {
	typ      ValType
	mutable  bool
	imported bool
}

// Module is a parsed module. It refers to the bytes given to Parse, which
// must not be changed while it is in use. It is immutable and safe for
// concurrent use.
type Module struct {
	wasm     []byte
	sections []section

	types []funcType
	// signatures is used by Parse alone.
	signatures map[uint32]string
	// funcTypes holds the type index of every function, imports first.
	funcTypes []uint32
	globals   []global
	// bodies holds the bodies of the functions that are not imported: locals
	// and instructions, without the size before them.
	bodies []span
	// references are in the order of their offsets.
	references []reference

	// memoryOffset is where the memory is declared or imported.
	memoryOffset int
	// dataCount is the content of the data count section, or -1.
	dataCount int64

	facts Facts
}

// Facts returns what Parse found out.
func (m *Module) Facts() *Facts { return &m.facts }

// Custom returns the content of the first custom section of that name. It
// shares memory with the module.
func (m *Module) Custom(name string) ([]byte, bool) {
	for _, c := range m.facts.CustomSections {
		if c.Name == name {
			return m.wasm[c.Offset : c.Offset+c.Size : c.Offset+c.Size], true
		}
	}
	return nil, false
}

// Parse decodes a module down to the last instruction. Errors are
// *RefusedError of kind Malformed, Unsupported or TooLarge; the limits that can
// be configured are Check's matter. It takes a few milliseconds per MB.
func Parse(wasm []byte) (*Module, error) {
	m := &Module{wasm: wasm, dataCount: -1, signatures: map[uint32]string{}}
	if err := m.parse(); err != nil {
		return nil, err
	}
	m.signatures = nil
	return m, nil
}

var (
	magic            = []byte("\x00asm")
	versionModule    = []byte{1, 0, 0, 0}
	versionComponent = []byte{1, 0}
)

func checkHeader(wasm []byte) *RefusedError {
	if len(wasm) > maxModuleBytes {
		e := tooLarge(0, "module", "it has %d bytes, the limit is %d", len(wasm), maxModuleBytes)
		e.Advice = "strip debug information, or load data at run time"
		return e
	}
	if len(wasm) < 8 || !bytes.Equal(wasm[:4], magic) {
		e := malformed(0, "it does not start with the bytes of a WebAssembly module")
		e.Advice = "give the compiled .wasm file"
		if t := bytes.TrimSpace(wasm[:min(len(wasm), 512)]); bytes.HasPrefix(t, []byte("(module")) || bytes.HasPrefix(t, []byte("(component")) {
			e.Reason = "it is WebAssembly text, not a binary"
			e.Advice = "compile it with wat2wasm or wasm-tools parse"
		}
		return e
	}
	if bytes.Equal(wasm[4:8], versionModule) {
		return nil
	}
	if bytes.Equal(wasm[6:8], versionComponent) {
		return unsupported(4, propComponents, "a component")
	}
	return unsupported(4, "", fmt.Sprintf("binary version % x", wasm[4:8]))
}

func (m *Module) parse() error {
	if err := checkHeader(m.wasm); err != nil {
		return err
	}
	r := reader{b: m.wasm, pos: 8, end: len(m.wasm)}
	rank := 0
	for r.left() > 0 {
		s := section{start: r.pos}
		id, err := r.byte("a section id")
		if err != nil {
			return err
		}
		if id >= numSections {
			switch id {
			case secTag:
				return unsupported(s.start, propExceptions, "a tag section (id 13)")
			case 14:
				return unsupported(s.start, propStringRef, "a string section (id 14)")
			}
			return unsupported(s.start, "", fmt.Sprintf("section id %d", id))
		}
		size, err := r.u32("the size of the " + sectionNames[id] + " section")
		if err != nil {
			return err
		}
		if uint64(size) > uint64(r.left()) {
			return malformed(s.start, "the %s section announces %d bytes, %d are left", sectionNames[id], size, r.left())
		}
		s.id, s.body, s.end = id, r.pos, r.pos+int(size)
		if id != secCustom {
			if sectionRank[id] <= rank {
				return malformed(s.start, "the %s section is repeated or out of order", sectionNames[id])
			}
			rank = sectionRank[id]
		}
		body := reader{b: m.wasm, pos: s.body, end: s.end}
		if err := m.section(&s, &body); err != nil {
			return err
		}
		if body.pos != body.end {
			return malformed(body.pos, "the %s section has %d bytes too many", sectionNames[id], body.left())
		}
		m.sections = append(m.sections, s)
		r.pos = s.end
	}
	return m.finish()
}

func (m *Module) section(s *section, r *reader) *RefusedError {
	switch s.id {
	case secCustom:
		return m.customSection(s, r)
	case secType:
		return m.typeSection(r)
	case secImport:
		return m.importSection(r)
	case secFunction:
		return m.functionSection(r)
	case secTable:
		return m.tableSection(r)
	case secMemory:
		return m.memorySection(r)
	case secGlobal:
		return m.globalSection(r)
	case secExport:
		return m.exportSection(r)
	case secStart:
		m.facts.HasStart = true
		_, err := m.funcIndex(r, "the start function")
		return err
	case secElement:
		return m.elementSection(r)
	case secCode:
		return m.codeSection(r)
	case secData:
		return m.dataSection(r)
	default:
		n, err := r.u32("the data count")
		m.dataCount = int64(n)
		return err
	}
}

// finish checks what only the whole module shows.
func (m *Module) finish() error {
	f := &m.facts
	f.Functions = len(m.funcTypes) - f.ImportedFunctions
	if len(m.bodies) != f.Functions {
		return malformed(len(m.wasm), "it declares %d functions and has %d bodies", f.Functions, len(m.bodies))
	}
	if m.dataCount >= 0 && m.dataCount != int64(f.DataSegments) {
		return malformed(len(m.wasm), "it announces %d data segments and has %d", m.dataCount, f.DataSegments)
	}
	f.Globals = len(m.globals)
	var o obstacles
	if err := m.walk(&o); err != nil {
		return err
	}
	for i, g := range m.globals {
		if !g.mutable {
			continue
		}
		f.MutableGlobals++
		if g.typ == V128 {
			o.v128(i)
		}
	}
	f.RestoreObstacles = o.reasons()
	f.ExactRestore = len(f.RestoreObstacles) == 0
	return nil
}

func (m *Module) funcIndex(r *reader, what string) (uint32, *RefusedError) {
	at := r.pos
	i, err := r.u32(what)
	if err != nil {
		return 0, err
	}
	if int64(i) >= int64(len(m.funcTypes)) {
		return 0, malformed(at, "%s is function %d of %d", what, i, len(m.funcTypes))
	}
	return i, nil
}

// reference is a place outside of function bodies that makes a reference to
// an imported function: the offset of its index, and the index.
type reference struct{ at, fn uint32 }

func (m *Module) noteReference(at int, fn uint32) {
	if int64(fn) < int64(m.facts.ImportedFunctions) {
		m.references = append(m.references, reference{uint32(at), fn})
	}
}

// signatureOf returns the text of a function type, made once for each type.
func (m *Module) signatureOf(typ uint32) string {
	s, ok := m.signatures[typ]
	if !ok {
		t := m.types[typ]
		s = funcSignature(t.params, t.results)
		m.signatures[typ] = s
	}
	return s
}
