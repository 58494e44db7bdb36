package rewrite

func (m *Module) elementSection(r *reader) *RefusedError {
	at := r.pos
	n, err := r.count("element segments", 3)
	if err != nil {
		return err
	}
	if err := bound(at, "element segments", uint32(n), maxElemSegments); err != nil {
		return err
	}
	m.facts.ElementSegments = n
	entries := 0
	for range n {
		k, err := m.element(r)
		if err != nil {
			return err
		}
		entries += k
		if err := bound(at, "table elements", uint32(entries), maxElemEntries); err != nil {
			return err
		}
	}
	return nil
}

// element reads one element segment and returns the number of its entries.
// The bits of its form: 1 not active; 2 declarative, or of an active one that
// it names its table; 4 expressions instead of function indices.
func (m *Module) element(r *reader) (int, *RefusedError) {
	at := r.pos
	form, err := r.u32("an element segment")
	if err != nil {
		return 0, err
	}
	if form > 7 {
		return 0, malformed(at, "an element segment has the unknown form %d", form)
	}
	active, explicit, exprs := form&1 == 0, form&2 != 0, form&4 != 0
	if active && explicit {
		if _, err := r.u32("a table index"); err != nil {
			return 0, err
		}
	}
	if active {
		if err := m.constExpr(r); err != nil {
			return 0, err
		}
	}
	if !active || explicit {
		at := r.pos
		t, err := r.byte("the type of an element segment")
		if err != nil {
			return 0, err
		}
		if exprs {
			if err := checkRefType(at, t); err != nil {
				return 0, err
			}
		} else if t != 0 {
			return 0, malformed(at, "an element segment has the unknown kind %#02x", t)
		}
	}
	if exprs {
		n, err := r.count("elements", 2)
		for i := 0; i < n && err == nil; i++ {
			err = m.constExpr(r)
		}
		return n, err
	}
	n, err := r.count("elements", 1)
	for i := 0; i < n && err == nil; i++ {
		at := r.pos
		var fn uint32
		if fn, err = m.funcIndex(r, "an element"); err == nil {
			m.noteReference(at, fn)
		}
	}
	return n, err
}

func (m *Module) dataSection(r *reader) *RefusedError {
	at := r.pos
	n, err := r.count("data segments", 2)
	if err != nil {
		return err
	}
	if err := bound(at, "data segments", uint32(n), maxDataSegments); err != nil {
		return err
	}
	m.facts.DataSegments = n
	for range n {
		at := r.pos
		form, err := r.u32("a data segment")
		if err != nil {
			return err
		}
		if form > 2 {
			return malformed(at, "a data segment has the unknown form %d", form)
		}
		if form == 2 {
			at := r.pos
			mem, err := r.u32("a memory index")
			if err != nil {
				return err
			}
			if mem != 0 {
				return unsupported(at, propMultiMemory, "a data segment with a memory index")
			}
		}
		if form != 1 {
			if err := m.constExpr(r); err != nil {
				return err
			}
		}
		size, err := r.count("bytes of data", 1)
		if err != nil {
			return err
		}
		r.pos += size
	}
	return nil
}

func (m *Module) codeSection(r *reader) *RefusedError {
	at := r.pos
	n, err := r.count("function bodies", 3)
	if err != nil {
		return err
	}
	if err := bound(at, "function bodies", uint32(n), maxFunctions); err != nil {
		return err
	}
	m.bodies = make([]span, 0, n)
	for range n {
		size, err := r.count("bytes of a function body", 1)
		if err != nil {
			return err
		}
		m.bodies = append(m.bodies, span{uint32(r.pos), uint32(r.pos + size)})
		r.pos += size
	}
	return nil
}
