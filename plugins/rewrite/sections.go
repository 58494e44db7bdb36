package rewrite

import (
	"fmt"
	"strings"
)

func (m *Module) customSection(s *section, r *reader) *RefusedError {
	name, err := r.name("the name of a custom section")
	if err != nil {
		return err
	}
	if err := bound(s.start, "custom sections", uint32(len(m.facts.CustomSections)+1), maxCustomSection); err != nil {
		return err
	}
	if string(name) == "name" {
		_, seen := m.Custom("name")
		s.drop = seen || !validNames(*r)
	}
	s.placesInCode = namesPlacesInCode(string(name))
	m.facts.CustomSections = append(m.facts.CustomSections, CustomSection{
		Name: string(name), Offset: r.pos, Size: r.left(),
	})
	r.pos = r.end
	return nil
}

// namesPlacesInCode reports whether the custom section of that name refers to
// byte offsets in code, so that it is wrong once the code has changed.
func namesPlacesInCode(name string) bool {
	switch name {
	case "sourceMappingURL", "external_debug_info":
		return true
	}
	for _, prefix := range []string{".debug_", "reloc.", "metadata.code."} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// validNames reports whether the content of a name section is sound. wazero
// allocates for the counts in it before it reads the names, so that a false
// count must not reach it.
func validNames(r reader) bool {
	for r.left() > 0 {
		id, err := r.byte("a subsection id")
		if err != nil {
			return false
		}
		size, err := r.u32("the size of a subsection")
		if err != nil || uint64(size) > uint64(r.left()) {
			return false
		}
		sub := reader{b: r.b, pos: r.pos, end: r.pos + int(size)}
		switch id {
		case 0:
			_, err = sub.name("the module name")
		case 1:
			err = sub.nameMap()
		case 2:
			var n int
			n, err = sub.count("functions", 2)
			for i := 0; i < n && err == nil; i++ {
				if _, err = sub.u32("a function index"); err == nil {
					err = sub.nameMap()
				}
			}
		default:
			sub.pos = sub.end
		}
		if err != nil || sub.pos != sub.end {
			return false
		}
		r.pos = sub.end
	}
	return true
}

func (r *reader) nameMap() *RefusedError {
	n, err := r.count("names", 2)
	for i := 0; i < n && err == nil; i++ {
		if _, err = r.u32("an index"); err == nil {
			_, err = r.name("a name")
		}
	}
	return err
}

func (m *Module) typeSection(r *reader) *RefusedError {
	at := r.pos
	n, err := r.count("types", 3)
	if err != nil {
		return err
	}
	if err := bound(at, "types", uint32(n), maxTypes); err != nil {
		return err
	}
	m.types = make([]funcType, 0, n)
	for range n {
		at := r.pos
		form, err := r.byte("a type")
		if err != nil {
			return err
		}
		switch form {
		case formFunc:
		case 0x4e, 0x4f, 0x50, 0x5e, 0x5f:
			return unsupported(at, propGC, fmt.Sprintf("type form %#02x", form))
		case 0x5d:
			return unsupported(at, propStackSwitch, fmt.Sprintf("type form %#02x", form))
		default:
			return unsupported(at, "", fmt.Sprintf("type form %#02x", form))
		}
		var t funcType
		if t.params, err = r.valTypes("parameters"); err != nil {
			return err
		}
		if t.results, err = r.valTypes("results"); err != nil {
			return err
		}
		m.types = append(m.types, t)
	}
	return nil
}

func (r *reader) valTypes(what string) ([]byte, *RefusedError) {
	at := r.pos
	n, err := r.count(what, 1)
	if err != nil {
		return nil, err
	}
	if err := bound(at, what, uint32(n), maxParams); err != nil {
		return nil, err
	}
	for i := range n {
		if err := checkValType(r.pos+i, r.b[r.pos+i]); err != nil {
			return nil, err
		}
	}
	return r.take(n, what)
}

func (m *Module) typeIndex(r *reader) (uint32, *RefusedError) {
	at := r.pos
	i, err := r.u32("a type index")
	if err != nil {
		return 0, err
	}
	if int64(i) >= int64(len(m.types)) {
		return 0, malformed(at, "a function has type %d of %d", i, len(m.types))
	}
	return i, nil
}

func (m *Module) importSection(r *reader) *RefusedError {
	at := r.pos
	n, err := r.count("imports", 4)
	if err != nil {
		return err
	}
	if err := bound(at, "imports", uint32(n), maxImports); err != nil {
		return err
	}
	m.facts.Imports = make([]Import, 0, n)
	for range n {
		mod, err := r.name("an import's module")
		if err != nil {
			return err
		}
		name, err := r.name("an import's name")
		if err != nil {
			return err
		}
		at := r.pos
		kind, err := r.byte("an import")
		if err != nil {
			return err
		}
		imp := Import{Module: string(mod), Name: string(name), Kind: ExternKind(kind)}
		switch imp.Kind {
		case KindFunc:
			t, err := m.typeIndex(r)
			if err != nil {
				return err
			}
			m.funcTypes = append(m.funcTypes, t)
			m.facts.ImportedFunctions++
			imp.Signature = m.signatureOf(t)
		case KindTable:
			t, err := m.table(r, true)
			if err != nil {
				return err
			}
			imp.Signature = t.signature()
		case KindMemory:
			if err := m.memory(r, true); err != nil {
				return err
			}
			imp.Signature = m.facts.Memory.signature()
		case KindGlobal:
			g, err := m.global(r, true)
			if err != nil {
				return err
			}
			imp.Signature = g.signature()
		default:
			return foreignExtern(at, kind, "an import")
		}
		m.facts.Imports = append(m.facts.Imports, imp)
	}
	return nil
}

func foreignExtern(off int, kind byte, what string) *RefusedError {
	if kind == 4 {
		return unsupported(off, propExceptions, what+" of a tag")
	}
	return unsupported(off, "", fmt.Sprintf("%s of kind %#02x", what, kind))
}

func (m *Module) functionSection(r *reader) *RefusedError {
	at := r.pos
	n, err := r.count("functions", 1)
	if err != nil {
		return err
	}
	if err := bound(at, "functions", uint32(n), maxFunctions); err != nil {
		return err
	}
	imported := m.funcTypes
	m.funcTypes = make([]uint32, len(imported), len(imported)+n)
	copy(m.funcTypes, imported)
	for range n {
		t, err := m.typeIndex(r)
		if err != nil {
			return err
		}
		m.funcTypes = append(m.funcTypes, t)
	}
	return nil
}

// limits reads the size limits of a table or memory.
func (r *reader) limits(what string) (minimum, maximum uint32, flags byte, err *RefusedError) {
	at := r.pos
	if flags, err = r.byte("the limits of " + what); err != nil {
		return
	}
	switch {
	case flags&4 != 0 && flags < 8:
		err = unsupported(at, propMemory64, what+" with 64-bit addresses")
	case flags&8 != 0 && flags < 16:
		err = unsupported(at, propPageSizes, what+" with a page size")
	case flags > 3:
		err = malformed(at, "%s has limits of the unknown form %#02x", what, flags)
	}
	if err != nil {
		return
	}
	if minimum, err = r.u32("the minimum of " + what); err != nil || flags&1 == 0 {
		return
	}
	if maximum, err = r.u32("the maximum of " + what); err == nil && maximum < minimum {
		err = malformed(at, "%s has a maximum of %d below its minimum of %d", what, maximum, minimum)
	}
	return
}

func (m *Module) tableSection(r *reader) *RefusedError {
	n, err := r.count("tables", 3)
	if err != nil {
		return err
	}
	for range n {
		if _, err := m.table(r, false); err != nil {
			return err
		}
	}
	return nil
}

func (m *Module) table(r *reader, imported bool) (*Table, *RefusedError) {
	at := r.pos
	if err := bound(at, "tables", uint32(len(m.facts.Tables)+1), maxTables); err != nil {
		return nil, err
	}
	typ, err := r.byte("a table")
	if err != nil {
		return nil, err
	}
	if typ == 0x40 {
		return nil, unsupported(at, propFuncRefs, "a table with an initial value")
	}
	if err := checkRefType(at, typ); err != nil {
		return nil, err
	}
	lo, hi, flags, err := r.limits("a table")
	if err != nil {
		return nil, err
	}
	if flags&2 != 0 {
		return nil, unsupported(at, propThreads, "a shared table")
	}
	m.facts.Tables = append(m.facts.Tables, Table{
		Type: ValType(typ), Min: lo, Max: hi, HasMax: flags&1 != 0, Imported: imported,
	})
	return &m.facts.Tables[len(m.facts.Tables)-1], nil
}

func (m *Module) memorySection(r *reader) *RefusedError {
	n, err := r.count("memories", 2)
	if err != nil {
		return err
	}
	for range n {
		if err := m.memory(r, false); err != nil {
			return err
		}
	}
	return nil
}

func (m *Module) memory(r *reader, imported bool) *RefusedError {
	at := r.pos
	if m.facts.Memory != nil {
		return unsupported(at, propMultiMemory, "a second memory")
	}
	lo, hi, flags, err := r.limits("a memory")
	if err != nil {
		return err
	}
	if lo > 1<<16 || hi > 1<<16 {
		return malformed(at, "a memory has limits above 65536 pages")
	}
	m.memoryOffset = at
	m.facts.Memory = &Memory{
		Min: lo, Max: hi, HasMax: flags&1 != 0, Shared: flags&2 != 0, Imported: imported,
	}
	return nil
}

func (m *Module) global(r *reader, imported bool) (global, *RefusedError) {
	at := r.pos
	if err := bound(at, "globals", uint32(len(m.globals)+1), maxGlobals); err != nil {
		return global{}, err
	}
	t, err := r.take(2, "the type of a global")
	if err != nil {
		return global{}, err
	}
	if err := checkValType(at, t[0]); err != nil {
		return global{}, err
	}
	if t[1] > 1 {
		return global{}, malformed(at+1, "a global has the mutability %#02x", t[1])
	}
	g := global{typ: ValType(t[0]), mutable: t[1] == 1, imported: imported}
	m.globals = append(m.globals, g)
	return g, nil
}

func (m *Module) globalSection(r *reader) *RefusedError {
	n, err := r.count("globals", 4)
	if err != nil {
		return err
	}
	for range n {
		if _, err := m.global(r, false); err != nil {
			return err
		}
		if err := m.constExpr(r); err != nil {
			return err
		}
	}
	return nil
}

func (m *Module) exportSection(r *reader) *RefusedError {
	at := r.pos
	n, err := r.count("exports", 3)
	if err != nil {
		return err
	}
	if err := bound(at, "exports", uint32(n), maxExports); err != nil {
		return err
	}
	f := &m.facts
	seen := make(map[string]struct{}, n)
	f.Exports = make([]Export, 0, n)
	for range n {
		at := r.pos
		name, err := r.name("an export's name")
		if err != nil {
			return err
		}
		kind, err := r.byte("an export")
		if err != nil {
			return err
		}
		index, err := r.u32("the index of an export")
		if err != nil {
			return err
		}
		e := Export{Name: string(name), Kind: ExternKind(kind), Index: index}
		if _, ok := seen[e.Name]; ok {
			return malformed(at, "it has two exports named %q", e.Name)
		}
		seen[e.Name] = struct{}{}
		total := 0
		switch e.Kind {
		case KindFunc:
			total = len(m.funcTypes)
		case KindTable:
			total = len(f.Tables)
		case KindMemory:
			if f.Memory != nil {
				total = 1
			}
		case KindGlobal:
			total = len(m.globals)
		default:
			return foreignExtern(at, kind, "an export")
		}
		if int64(index) >= int64(total) {
			return malformed(at, "export %q is %s %d of %d", e.Name, e.Kind, index, total)
		}
		switch e.Kind {
		case KindFunc:
			e.Signature = m.signatureOf(m.funcTypes[index])
		case KindTable:
			e.Signature = f.Tables[index].signature()
		case KindMemory:
			e.Signature = f.Memory.signature()
			if f.MemoryExport == "" {
				f.MemoryExport = e.Name
			}
		case KindGlobal:
			e.Signature = m.globals[index].signature()
		}
		f.Exports = append(f.Exports, e)
	}
	return nil
}
