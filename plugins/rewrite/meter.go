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
	// the charge, a length, a number of pages.
	spend, spendLength, spendPages uint32

	// shims stand for imported functions in tables and references: they
	// charge and pass the call on.
	shims map[uint32]uint32
}

// meter puts the sections of the metered module into e, and the export of the
// counter into x. Other exports that x has are not yet in e.
func (m *Module) meter(e *edits, x *newExports, initial int64) (Fuel, error) {
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
	counter := code{byte(I64), 1}
	counter.i64(initial)
	counter.op(opEnd)
	e.payload[secGlobal] = extendVector(t.repointed(secGlobal), counter, 1)
	if len(t.shims) > 0 {
		e.payload[secElement] = t.repointed(secElement)
		x.content = t.repointedExports()
	}
	e.newCode = true
	return Fuel{Export: x.global("millrace:fuel", t.counter), Global: t.counter}, nil
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

// repointedExports returns the content of the export section with shims in
// place of the imported functions that have one: a reference in code is valid
// only to a function that the rest of the module names.
func (t *meter) repointedExports() []byte {
	exports := t.m.facts.Exports
	out := appendUvarint(nil, uint32(len(exports)))
	for _, e := range exports {
		index := e.Index
		if s, ok := t.shims[index]; ok && e.Kind == KindFunc {
			index = s
		}
		out = append(appendName(out, e.Name), byte(e.Kind))
		out = appendUvarint(out, index)
	}
	return out
}

// voidType returns the index of the type of functions that take params and
// return nothing.
func (t *meter) voidType(params ...ValType) uint32 {
	key := make([]byte, len(params))
	for i, p := range params {
		key[i] = byte(p)
	}
	if i, ok := t.typeOf[string(key)]; ok {
		return i
	}
	index := uint32(len(t.m.types)) + t.newTypes
	for i, typ := range t.m.types {
		if string(typ.params) == string(key) && len(typ.results) == 0 {
			index = uint32(i)
			break
		}
	}
	if index == uint32(len(t.m.types))+t.newTypes {
		t.types = append(appendName(append(t.types, formFunc), string(key)), 0)
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

func (t *meter) spendPagesFunc() uint32 {
	if t.spendPages == 0 {
		var amount code
		amount.i32(maxMemoryPages)
		amount.index(opLocalGet, 0)
		amount.index(opLocalGet, 0)
		amount.i32(maxMemoryPages)
		amount.op(opI32GtU, opSelect, opI64ExtendI32U)
		amount.i64(fuelPageShift)
		amount.op(opI64Shl)
		amount.i64(fuelGrow)
		amount.op(opI64Add)
		t.spendPages = t.spender(I32, amount)
	}
	return t.spendPages
}

// spender adds a function of one parameter that charges the given amount.
func (t *meter) spender(param ValType, amount code) uint32 {
	body := code{1, 1, byte(I64)}
	t.charge(&body, amount, 1)
	body.op(opEnd)
	return t.add(t.voidType(param), body)
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
