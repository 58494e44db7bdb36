package rewrite

// meter writes a module's code anew, with charges in it, and gathers what that
// adds to the other sections. Nothing is renumbered: types, functions and the
// counter are appended, and whatever would name one of them by an index that
// the module does not have is refused.
type meter struct {
	m       *Module
	counter uint32

	types    []byte
	typeOf   map[string]uint32
	newTypes uint32

	// functions and bodies are what is appended to the function and code
	// sections.
	functions, bodies []byte
	newFuncs          uint32

	// The functions that charge, 0 until the first use; their parameter is
	// the charge, a length. grow stands for memory.grow.
	spend, spendLength, grow uint32

	// shims stand for imported functions in tables and references: they
	// charge and pass the call on.
	shims map[uint32]uint32

	// wrappers stand for exported functions in exports: they set the counter
	// and pass the call on.
	wrappers map[uint32]uint32
}

// meter puts the sections of the metered module into e, and the export of the
// counter into x. Other exports that x has are not yet in e.
func (m *Module) meter(e *edits, x *newExports, initial int64, per *ExportFuel) (Fuel, error) {
	t := &meter{
		m: m, counter: uint32(len(m.globals)),
		typeOf: map[string]uint32{}, shims: map[uint32]uint32{},
	}
	for _, ref := range m.references {
		t.shim(ref.fn)
	}
	bodies, err := t.meterBodies()
	if err != nil {
		return Fuel{}, err
	}
	fuel := Fuel{Global: t.counter, FirstAdded: uint32(len(m.funcTypes))}
	if per != nil {
		if err = t.refuel(&fuel, x, per); err != nil {
			return Fuel{}, err
		}
	}
	if t.newTypes > 0 {
		e.payload[secType] = extendVector(m.payloadOf(secType), t.types, int(t.newTypes))
	}
	if t.newFuncs > 0 {
		e.payload[secFunction] = extendVector(m.payloadOf(secFunction), t.functions, int(t.newFuncs))
	}
	if len(bodies) > 0 || t.newFuncs > 0 {
		n := appendUvarint(nil, uint32(len(m.bodies))+t.newFuncs)
		e.payload[secCode] = append(append(n, bodies...), t.bodies...)
	}
	globals, added := code{byte(I64), 1}, 1
	globals.i64(initial)
	globals.op(opEnd)
	if per != nil {
		globals, added = append(globals, byte(I64), 1), 2
		globals.i64(0)
		globals.op(opEnd)
	}
	e.payload[secGlobal] = extendVector(t.repointed(secGlobal), globals, added)
	if len(t.shims) > 0 {
		e.payload[secElement] = t.repointed(secElement)
	}
	if len(t.wrappers) > 0 {
		e.payload[secElement] = extendVector(t.repointed(secElement), t.declared(), 1)
	}
	if len(t.shims)+len(t.wrappers) > 0 {
		x.content = t.repointedExports()
	}
	e.newCode = true
	fuel.Export = x.global("millrace:fuel", t.counter)
	return fuel, nil
}

// repointed returns the content of a section with shims in place of the
// imported functions that it refers to; nil if the module has none.
func (t *meter) repointed(id byte) []byte {
	for _, s := range t.m.sections {
		if s.id != id {
			continue
		}
		out := make([]byte, 0, s.end-s.body)
		at := s.body
		for _, ref := range t.m.references {
			if int(ref.at) < s.body || int(ref.at) >= s.end {
				continue
			}
			out = append(out, t.m.wasm[at:ref.at]...)
			out = appendUvarint(out, t.shims[ref.fn])
			_, n := uvarint32(t.m.wasm[ref.at:s.end])
			at = int(ref.at) + n
		}
		return append(out, t.m.wasm[at:s.end]...)
	}
	return nil
}

// repointedExports returns the content of the export section with wrappers, or
// shims in place of the imported functions that have one: a reference in code
// is valid only to a function that the rest of the module names.
func (t *meter) repointedExports() []byte {
	exports := t.m.facts.Exports
	out := appendUvarint(nil, uint32(len(exports)))
	for _, e := range exports {
		index := e.Index
		if e.Kind == KindFunc {
			if s, ok := t.shims[index]; ok {
				index = s
			}
			if w, ok := t.wrappers[e.Index]; ok {
				index = w
			}
		}
		out = append(appendName(out, e.Name), byte(e.Kind))
		out = appendUvarint(out, index)
	}
	return out
}

// funcType returns the index of the type of functions with these value types.
func (t *meter) funcType(params, results string) uint32 {
	key := appendName(appendName(nil, params), results)
	if i, ok := t.typeOf[string(key)]; ok {
		return i
	}
	index := uint32(len(t.m.types)) + t.newTypes
	for i, typ := range t.m.types {
		if string(typ.params) == params && string(typ.results) == results {
			index = uint32(i)
			break
		}
	}
	if index == uint32(len(t.m.types))+t.newTypes {
		t.types = append(append(t.types, formFunc), key...)
		t.newTypes++
	}
	t.typeOf[string(key)] = index
	return index
}

// add appends a function; body holds its locals and instructions.
func (t *meter) add(typ uint32, body code) uint32 {
	t.functions = appendUvarint(t.functions, typ)
	t.bodies = append(appendUvarint(t.bodies, uint32(len(body))), body...)
	t.newFuncs++
	return uint32(len(t.m.funcTypes)) + t.newFuncs - 1
}

func (t *meter) shim(fn uint32) uint32 {
	if s, ok := t.shims[fn]; ok {
		return s
	}
	typ := t.m.funcTypes[fn]
	body := code{0}
	body.i64(FuelHostCall)
	body.index(opCall, t.spendFunc())
	for i := range t.m.types[typ].params {
		body.index(opLocalGet, uint32(i))
	}
	body.index(opCall, fn)
	body.op(opEnd)
	t.shims[fn] = t.add(typ, body)
	return t.shims[fn]
}

func (t *meter) spendFunc() uint32 {
	if t.spend == 0 {
		var amount code
		amount.index(opLocalGet, 0)
		t.spend = t.spender(I64, amount)
	}
	return t.spend
}

func (t *meter) spendLengthFunc() uint32 {
	if t.spendLength == 0 {
		var amount code
		amount.index(opLocalGet, 0)
		amount.i32(fuelLengthShift)
		amount.op(opI32ShrU, opI64ExtendI32U)
		amount.i64(1)
		amount.op(opI64Add)
		t.spendLength = t.spender(I32, amount)
	}
	return t.spendLength
}

// growFunc adds memory.grow as a function, which charges for pages once there
// are more of them.
func (t *meter) growFunc() uint32 {
	if t.grow == 0 {
		const pages, before = 0, 1
		body := code{1, 1, byte(I32)}
		body.i64(fuelGrow)
		body.index(opCall, t.spendFunc())
		body.index(opLocalGet, pages)
		body.op(opMemoryGrow, 0)
		body.index(opLocalTee, before)
		body.i32(-1)
		body.op(opI32Ne, opIf, blockVoid)
		body.index(opLocalGet, pages)
		body.op(opI64ExtendI32U)
		body.i64(fuelPageShift)
		body.op(opI64Shl)
		body.index(opCall, t.spendFunc())
		body.op(opEnd)
		body.index(opLocalGet, before)
		body.op(opEnd)
		t.grow = t.add(t.funcType(string(byte(I32)), string(byte(I32))), body)
	}
	return t.grow
}

// spender adds a function of one parameter that charges the given amount.
func (t *meter) spender(param ValType, amount code) uint32 {
	body := code{1, 1, byte(I64)}
	t.charge(&body, amount, 1)
	body.op(opEnd)
	return t.add(t.funcType(string(byte(param)), ""), body)
}

// charge writes instructions that subtract the amount, an i64 that these
// instructions leave on the stack, and trap below zero. local is an i64 local
// that is free. The operands below stay as they are.
func (t *meter) charge(c *code, amount code, local uint32) {
	c.index(opGlobalGet, t.counter)
	*c = append(*c, amount...)
	c.op(opI64Sub)
	c.index(opLocalTee, local)
	c.index(opGlobalSet, t.counter)
	c.index(opLocalGet, local)
	c.i64(0)
	c.op(opI64LtS, opIf, blockVoid, opUnreachable, opEnd)
}
