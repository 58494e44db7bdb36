package rewrite

// instr is one decoded instruction. Offsets are those of the module.
type instr struct {
	op opcode

	// start is the offset of the opcode, imm that of the first immediate, end
	// that of the next instruction.
	start, imm, end int

	// x and y are the immediates: an index and a second one; align and offset
	// of a memory access; the number of labels of a br_table. For a block
	// type use blockType.
	x, y uint32
}

// decoder iterates over a sequence of instructions: a function body after its
// locals, or a constant expression. It allocates only to report an error.
//
// It accepts exactly the encodings that wazero reads in the same way, so that
// no bytes can mean one thing here and another there.
type decoder struct {
	reader

	// depth is the number of open block, loop and if, plus one until the
	// final end.
	depth int
	err   *RefusedError
}

func newDecoder(b []byte, from, to int) decoder {
	return decoder{reader: reader{b: b, pos: from, end: to}, depth: 1}
}

// next decodes one instruction into in. It returns false after the final end,
// or at an error, which is in err.
func (d *decoder) next(in *instr) bool {
	if d.depth == 0 || d.err != nil {
		return false
	}
	if d.pos >= d.end {
		d.err = malformed(d.pos, "an expression has no end")
		return false
	}
	in.start, in.x, in.y = d.pos, 0, 0
	c := d.b[d.pos]
	d.pos++
	in.op = opcode(c)
	kind := plain[c]
	if kind == immPrefix {
		kind = d.prefixed(c, in)
	}
	in.imm = d.pos
	switch kind {
	case immNone:
		if c == byte(opEnd) {
			d.depth--
		}
	case immIndex:
		in.x = d.index()
	case immMemArg:
		d.memArg(in)
	case immI32:
		d.signed(32)
	case immI64:
		d.signed(64)
	default:
		d.rare(kind, c, in)
	}
	in.end = d.pos
	return d.err == nil
}

// rare decodes the immediates that are seldom or long.
func (d *decoder) rare(kind immediates, c byte, in *instr) {
	switch kind {
	case immBlock:
		d.depth++
		d.blockType()
	case immIndexes:
		in.x = d.index()
		in.y = d.index()
	case immZero:
		d.zero()
	case immZeroZero:
		d.zero()
		d.zero()
	case immIndexZero:
		in.x = d.index()
		d.zero()
	case immBytes4:
		d.skip(4)
	case immBytes8:
		d.skip(8)
	case immBytes16:
		d.skip(16)
	case immBrTable:
		d.brTable(in)
	case immSelect:
		d.selectType()
	case immHeapType:
		d.heapType()
	case immLane:
		d.skip(1)
	case immMemArgLane:
		d.memArg(in)
		d.skip(1)
	default:
		if d.err != nil {
			return
		}
		if c == prefixGC || c == prefixAtomic {
			sub, _ := uvarint32(d.b[d.pos:d.end])
			d.fail(unknownPrefixed(in.start, c, sub))
			return
		}
		d.fail(unknownOpcode(in.start, c))
	}
}

// prefixed reads the second part of an opcode and says what follows it, or
// sets err and returns immUnknown.
func (d *decoder) prefixed(prefix byte, in *instr) immediates {
	sub, n := uvarint32(d.b[d.pos:d.end])
	if n == 0 {
		d.fail(malformed(in.start, "the opcode after %#02x is not a valid LEB128 number", prefix))
		return immUnknown
	}
	kind := immUnknown
	switch {
	case prefix == prefixMisc && sub < uint32(len(misc)):
		kind = misc[sub]
	case prefix == prefixVector && sub < 0x80:
		// wazero reads a single byte here, so that a longer encoding would be
		// another instruction to it.
		if n != 1 {
			d.fail(malformed(in.start, "vector opcode %#02x is encoded in %d bytes instead of 1", sub, n))
			return immUnknown
		}
		kind = vector[sub]
	case prefix == prefixVector && sub < uint32(len(vector)):
		if n != 2 {
			d.fail(malformed(in.start, "vector opcode %#02x is encoded in %d bytes instead of 2", sub, n))
			return immUnknown
		}
		kind = vector[sub]
	}
	if kind == immUnknown {
		d.fail(unknownPrefixed(in.start, prefix, sub))
		return immUnknown
	}
	d.pos += n
	in.op = opcode(prefix)<<8 | opcode(sub)
	return kind
}

func (d *decoder) fail(err *RefusedError) {
	if d.err == nil {
		d.err = err
	}
}

func (d *decoder) index() uint32 {
	if d.pos < d.end && d.b[d.pos] < 0x80 {
		d.pos++
		return uint32(d.b[d.pos-1])
	}
	v, n := uvarint32(d.b[d.pos:d.end])
	if n == 0 {
		d.fail(malformed(d.pos, "an immediate is not a valid LEB128 number of 32 bits"))
	}
	d.pos += n
	return v
}

func (d *decoder) signed(bits int) {
	if d.pos < d.end && d.b[d.pos] < 0x80 {
		d.pos++
		return
	}
	_, n := varint(d.b[d.pos:d.end], bits)
	if n == 0 {
		d.fail(malformed(d.pos, "an immediate is not a valid LEB128 number of %d bits", bits))
	}
	d.pos += n
}

func (d *decoder) memArg(in *instr) {
	at := d.pos
	in.x = d.index()
	in.y = d.index()
	if in.x < 32 || d.err != nil {
		return
	}
	if in.x&^0x1f == 0x40 {
		d.fail(unsupported(at, propMultiMemory, "a memory access with a memory index"))
		return
	}
	d.fail(malformed(at, "a memory access has the alignment 2^%d", in.x))
}

// zero reads the memory index, which WebAssembly 2.0 fixes to the byte 0.
func (d *decoder) zero() {
	if d.pos >= d.end {
		d.fail(malformed(d.pos, "an instruction has no memory index"))
		return
	}
	if d.b[d.pos] != 0 {
		d.fail(unsupported(d.pos, propMultiMemory, "an instruction with a memory index"))
		return
	}
	d.pos++
}

func (d *decoder) skip(n int) {
	if n > d.left() {
		d.fail(malformed(d.pos, "an instruction needs %d more bytes, %d are left", n, d.left()))
		return
	}
	d.pos += n
}

// blockType reads an s33: a type index, or one byte for no or one result.
func (d *decoder) blockType() {
	if d.pos >= d.end {
		d.fail(malformed(d.pos, "a block has no type"))
		return
	}
	if c := d.b[d.pos]; c == 0x40 {
		d.pos++
		return
	} else if c >= 0x41 && c < 0x80 {
		if err := checkValType(d.pos, c); err != nil {
			d.fail(err)
			return
		}
		d.pos++
		return
	}
	v, n := varint(d.b[d.pos:d.end], 33)
	if n == 0 || v < 0 {
		d.fail(malformed(d.pos, "a block type is not valid"))
		return
	}
	d.pos += n
}

func (d *decoder) brTable(in *instr) {
	at := d.pos
	n := d.index()
	if d.err == nil && uint64(n) >= uint64(d.left()) {
		d.fail(malformed(at, "a br_table announces %d labels, %d bytes are left", n, d.left()))
	}
	for i := uint32(0); i <= n && d.err == nil; i++ {
		d.index()
	}
	in.x = n
}

func (d *decoder) selectType() {
	if d.left() < 2 {
		d.fail(malformed(d.pos, "a select has no type"))
		return
	}
	if d.b[d.pos] != 1 {
		d.fail(malformed(d.pos, "a select must have one type"))
		return
	}
	d.pos++
	if err := checkValType(d.pos, d.b[d.pos]); err != nil {
		d.fail(err)
		return
	}
	d.pos++
}

func (d *decoder) heapType() {
	if d.pos >= d.end {
		d.fail(malformed(d.pos, "ref.null has no type"))
		return
	}
	switch c := d.b[d.pos]; {
	case c < 0x40 || c >= 0x80:
		d.fail(unsupported(d.pos, propFuncRefs, "ref.null of a type index"))
	default:
		if err := checkRefType(d.pos, c); err != nil {
			d.fail(err)
			return
		}
		d.pos++
	}
}

// constExpr reads a constant expression up to its end.
func (m *Module) constExpr(r *reader) *RefusedError {
	d := newDecoder(r.b, r.pos, r.end)
	var in instr
	for d.next(&in) {
		switch in.op {
		case opI32Const, opI64Const, opF32Const, opF64Const, opV128Const,
			opRefNull, opEnd:
		case opGlobalGet:
			if int64(in.x) >= int64(len(m.globals)) {
				return invalidIndex(in.imm, "a constant expression reads global %d of %d", in.x, len(m.globals))
			}
		case opRefFunc:
			if int64(in.x) >= int64(len(m.funcTypes)) {
				return invalidIndex(in.imm, "a constant expression refers to function %d of %d", in.x, len(m.funcTypes))
			}
			m.noteReference(in.imm, in.x)
		case 0x6a, 0x6b, 0x6c, 0x7c, 0x7d, 0x7e:
			return unsupported(in.start, propExtendedCons, "arithmetic in a constant expression")
		default:
			return malformed(in.start, "opcode %#02x is not allowed in a constant expression", uint16(in.op))
		}
	}
	r.pos = d.pos
	return d.err
}
