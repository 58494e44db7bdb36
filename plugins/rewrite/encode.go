package rewrite

import "strconv"

// edits says how a module is written anew: sections with other content, by
// id. A section with an entry here that the module lacks is added where it
// belongs; all others are copied byte for byte.
type edits struct {
	payload [numSections][]byte

	// newCode: the code is another, so that custom sections that refer to
	// places in it are left out.
	newCode bool
}

func (e *edits) drops(s *section) bool { return s.drop || e.newCode && s.placesInCode }

func (e *edits) empty() bool {
	for _, p := range e.payload {
		if p != nil {
			return false
		}
	}
	return true
}

// encode writes the module with the edits. Without any it returns the input.
func (m *Module) encode(e *edits) ([]byte, error) {
	copied := e.empty()
	for i := range m.sections {
		copied = copied && !e.drops(&m.sections[i])
	}
	if copied {
		return m.wasm, nil
	}
	size := len(m.wasm)
	for _, p := range e.payload {
		if p != nil {
			size += 6 + len(p)
		}
	}
	if size > maxModuleBytes {
		return nil, tooLarge(-1, "module", "rewritten it has up to %d bytes, the limit is %d", size, maxModuleBytes)
	}
	out := append(make([]byte, 0, size), m.wasm[:8]...)
	last := -1
	for i, s := range m.sections {
		if s.id != secCustom {
			last = i
		}
	}
	next := 0
	// pending adds the new sections whose place is before rank.
	pending := func(rank int) {
		for ; next < len(canonical) && sectionRank[canonical[next]] < rank; next++ {
			if id := canonical[next]; e.payload[id] != nil {
				out = appendSection(out, id, e.payload[id])
			}
		}
	}
	if last < 0 {
		pending(len(canonical) + 1)
	}
	for i, s := range m.sections {
		if s.id != secCustom {
			pending(sectionRank[s.id])
		}
		switch {
		case e.drops(&s):
		case s.id != secCustom && e.payload[s.id] != nil:
			out = appendSection(out, s.id, e.payload[s.id])
		default:
			out = append(out, m.wasm[s.start:s.end]...)
		}
		if s.id != secCustom {
			next++
		}
		if i == last {
			pending(len(canonical) + 1)
		}
	}
	return out, nil
}

// canonical lists the sections in the prescribed order.
var canonical = [...]byte{
	secType, secImport, secFunction, secTable, secMemory, secGlobal,
	secExport, secStart, secElement, secDataCount, secCode, secData,
}

func appendSection(out []byte, id byte, payload []byte) []byte {
	out = append(out, id)
	out = appendUvarint(out, uint32(len(payload)))
	return append(out, payload...)
}

// payloadOf returns the content of a section, or nil if the module has none.
func (m *Module) payloadOf(id byte) []byte {
	for _, s := range m.sections {
		if s.id == id {
			return m.wasm[s.body:s.end]
		}
	}
	return nil
}

// extendVector returns the content of a section that is a vector, with items
// appended. content is nil if there was no such section.
func extendVector(content []byte, items []byte, added int) []byte {
	n, k := uvarint32(content)
	out := make([]byte, 0, len(content)+len(items)+5)
	out = appendUvarint(out, n+uint32(added))
	out = append(out, content[k:]...)
	return append(out, items...)
}

// newExports gathers what is appended to the export section.
type newExports struct {
	taken map[string]struct{}

	// content is the export section before the additions; nil if there is
	// none.
	content []byte
	items   []byte
	added   int
}

func (m *Module) newExports() *newExports {
	x := &newExports{content: m.payloadOf(secExport), taken: make(map[string]struct{}, len(m.facts.Exports))}
	for _, e := range m.facts.Exports {
		x.taken[e.Name] = struct{}{}
	}
	return x
}

// global exports a global under name, or a longer one if it is taken, and
// returns the name.
func (x *newExports) global(name string, index uint32) string {
	return x.add(name, KindGlobal, index)
}

// function exports a function in the same way.
func (x *newExports) function(name string, index uint32) string {
	return x.add(name, KindFunc, index)
}

func (x *newExports) add(name string, kind ExternKind, index uint32) string {
	name = freeName(name, x.taken)
	x.items = appendName(x.items, name)
	x.items = append(x.items, byte(kind))
	x.items = appendUvarint(x.items, index)
	x.added++
	return name
}

// exportMutableGlobals lists the mutable globals with the names they have or
// get, and adds the latter to x.
func (m *Module) exportMutableGlobals(x *newExports) []Global {
	f := &m.facts
	if f.MutableGlobals == 0 {
		return nil
	}
	names := make(map[uint32]string)
	for _, e := range f.Exports {
		if _, ok := names[e.Index]; !ok && e.Kind == KindGlobal {
			names[e.Index] = e.Name
		}
	}
	globals := make([]Global, 0, f.MutableGlobals)
	for i, g := range m.globals {
		if !g.mutable {
			continue
		}
		index := uint32(i)
		name, ok := names[index]
		if !ok {
			name = x.global("millrace:g"+strconv.Itoa(i), index)
		}
		globals = append(globals, Global{Export: name, Index: index, Type: g.typ, Imported: g.imported})
	}
	return globals
}

// boundedTables returns the content of the table section with no maximum above
// limit, or nil if that is so already.
func (m *Module) boundedTables(limit uint32) []byte {
	n, changed := uint32(0), false
	var items []byte
	for _, t := range m.facts.Tables {
		if t.Imported {
			continue
		}
		n++
		hi := max(limit, t.Min)
		if t.HasMax && t.Max <= hi {
			hi = t.Max
		} else {
			changed = true
		}
		items = append(items, byte(t.Type), 1)
		items = appendUvarint(appendUvarint(items, t.Min), hi)
	}
	if !changed {
		return nil
	}
	return append(appendUvarint(nil, n), items...)
}

// freeName returns name, lengthened until it is not taken.
func freeName(name string, taken map[string]struct{}) string {
	for {
		if _, ok := taken[name]; !ok {
			return name
		}
		name += "'"
	}
}
