package rewrite

import "slices"

// maxInline bounds the charges written out in one function. More of them call
// a function instead: each one adds basic blocks, and the time that the
// engine takes for a function grows faster than their number.
const maxInline = 1000

// chargeKind says what is charged for at a place.
type chargeKind uint8

const (
	chargeSegment chargeKind = iota // arg is the segment
	chargeHost
	chargeLength
	growMemory // a function that charges takes the place of memory.grow
	makeRef    // no charge: ref.func of imported function arg
)

// place is where a body is added to, in module offsets.
type place struct {
	at   uint32
	kind chargeKind
	arg  uint32
}

// bodyMeter meters one body after the other and keeps its buffers.
type bodyMeter struct {
	*meter
	places   []place
	segments []segment
	// current is the segment that instructions go to; open has an entry for
	// the body and for every open block.
	current uint32
	open    []openBlock

	known bases

	// free holds the weight of every free function, 0 for others; imported
	// functions are left out.
	free []uint8

	// first is the offset of the first instruction, locals the number of
	// parameters and locals.
	first, end int
	locals     uint64
	// checks is the number of charges that look whether fuel is left.
	checks int
	out    code
}

// meterBodies returns the bodies of all functions with their sizes.
func (t *meter) meterBodies() ([]byte, error) {
	if len(t.m.bodies) == 0 {
		return nil, nil
	}
	b := &bodyMeter{meter: t}
	b.free = make([]uint8, len(t.m.bodies))
	for i, body := range t.m.bodies {
		b.free[i] = t.m.freeInstructions(body)
	}
	all := make([]byte, 0, t.m.facts.CodeBytes+t.m.facts.CodeBytes/4)
	for i, body := range t.m.bodies {
		fn := uint32(t.m.facts.ImportedFunctions + i)
		if err := b.read(fn, body); err != nil {
			err.Func = int64(fn)
			return nil, err
		}
		b.write(body, b.free[i] > 0)
		all = appendUvarint(all, uint32(len(b.out)))
		all = append(all, b.out...)
	}
	return all, nil
}

// freeInstructions returns the number of instructions of a body if its
// function is free, else 0.
func (m *Module) freeInstructions(body span) uint8 {
	r := reader{b: m.wasm, pos: int(body.start), end: int(body.end)}
	if _, err := r.locals(); err != nil {
		return 0
	}
	d := newDecoder(m.wasm, r.pos, r.end)
	var in instr
	var n uint32
	for d.next(&in) {
		n += weightOf(in.op)
		if n >= fuelFreeBelow || in.op == opLoop || in.op == opCall || in.op == opCallIndirect {
			return 0
		}
	}
	return uint8(max(n, 1))
}

// read finds the places of a body. Indices are checked as far as the metered
// module gives a meaning to ones that had none.
func (b *bodyMeter) read(fn uint32, body span) *RefusedError {
	m := b.m
	r := reader{b: m.wasm, pos: int(body.start), end: int(body.end)}
	declared, err := r.locals()
	if err != nil {
		return err
	}
	b.first, b.end = r.pos, r.end
	b.locals = declared + uint64(len(m.types[m.funcTypes[fn]].params))
	if b.locals > 1<<32-3 {
		return tooLarge(int(body.start), "locals", "a function has %d locals, which leaves no room to count fuel", b.locals)
	}
	b.places, b.segments, b.open = b.places[:0], b.segments[:0], b.open[:0]
	b.begin(b.first, b.frameWeight(), 0)
	b.segments[0].fixed = true
	b.open = append(b.open, openBlock{})
	b.known.forget()

	d := newDecoder(m.wasm, r.pos, r.end)
	var in instr
	for d.next(&in) {
		s := &b.segments[b.current]
		s.weight += b.known.weigh(&in)
		s.instructions++
		if err := b.instruction(&in); err != nil {
			return err
		}
	}
	if d.err != nil {
		return d.err
	}
	b.hoist()
	return nil
}

func (b *bodyMeter) instruction(in *instr) *RefusedError {
	m := b.m
	switch in.op {
	case opEnd:
		last := b.open[len(b.open)-1]
		b.open = b.open[:len(b.open)-1]
		if len(b.open) > 0 {
			b.begin(in.end, 0, last.before)
		}
	case opElse:
		b.begin(in.end, 0, b.open[len(b.open)-1].before)
	case opBlock:
		b.open = append(b.open, openBlock{b.current})
		return b.checkBlockType(in)
	case opIf, opLoop:
		b.open = append(b.open, openBlock{b.current})
		b.begin(in.end, 0, b.current)
		b.segments[b.current].fixed = in.op == opLoop
		return b.checkBlockType(in)
	case opLocalGet, opLocalSet, opLocalTee:
		return checkIndex(in, in.x, b.locals, "local")
	case opGlobalGet, opGlobalSet:
		return checkIndex(in, in.x, uint64(len(m.globals)), "global")
	case opCall:
		if err := checkIndex(in, in.x, uint64(len(m.funcTypes)), "function"); err != nil {
			return err
		}
		if own := int64(in.x) - int64(m.facts.ImportedFunctions); own < 0 {
			b.mark(in.start, chargeHost, 0)
		} else {
			b.segments[b.current].weight += uint32(b.free[own])
		}
	case opCallIndirect:
		return checkIndex(in, in.x, uint64(len(m.types)), "type")
	case opRefFunc:
		if int64(in.x) < int64(m.facts.ImportedFunctions) {
			b.mark(in.start, makeRef, in.x)
		}
		return checkIndex(in, in.x, uint64(len(m.funcTypes)), "function")
	case opMemoryFill, opMemoryCopy, opMemoryInit, opTableFill, opTableCopy, opTableInit, opTableGrow:
		b.mark(in.start, chargeLength, 0)
	case opMemoryGrow:
		b.mark(in.start, growMemory, 0)
	}
	return nil
}

func (b *bodyMeter) mark(at int, kind chargeKind, arg uint32) {
	b.places = append(b.places, place{at: uint32(at), kind: kind, arg: arg})
}

func (b *bodyMeter) checkBlockType(in *instr) *RefusedError {
	c := b.m.wasm[in.imm]
	if c >= 0x40 && c < 0x80 {
		return nil
	}
	v, _ := varint(b.m.wasm[in.imm:in.end], 33)
	return checkIndex(in, uint32(v), uint64(len(b.m.types)), "type")
}

func checkIndex(in *instr, x uint32, n uint64, what string) *RefusedError {
	if uint64(x) < n {
		return nil
	}
	return invalidIndex(in.start, "an instruction names %s %d of %d", what, x, n)
}

// write puts the metered body into b.out. A free function pays for nothing as
// a whole.
func (b *bodyMeter) write(body span, free bool) {
	wasm := b.m.wasm
	b.places = slices.DeleteFunc(b.places, func(p place) bool {
		return p.kind == chargeSegment && (free || b.segments[p.arg].charge == 0)
	})
	if len(b.places) == 0 {
		b.out = append(b.out[:0], wasm[body.start:body.end]...)
		return
	}
	inline := 0
	if !free && b.checks <= maxInline {
		inline = 1
	}
	lengths := 0
	if slices.ContainsFunc(b.places, func(p place) bool { return p.kind == chargeLength }) {
		lengths = 1
	}

	// The locals of our own: a counter, if charges are written out, then a
	// length, if one is charged for.
	groups, n := uvarint32(wasm[body.start:body.end])
	b.out = appendUvarint(b.out[:0], groups+uint32(inline+lengths))
	b.out = append(b.out, wasm[int(body.start)+n:b.first]...)
	if inline == 1 {
		b.out = append(b.out, 1, byte(I64))
	}
	if lengths == 1 {
		b.out = append(b.out, 1, byte(I32))
	}
	counter := uint32(b.locals)
	length := counter + uint32(inline)

	at := b.first
	for _, p := range b.places {
		b.out = append(b.out, wasm[at:p.at]...)
		at = int(p.at)
		switch p.kind {
		case chargeSegment:
			b.chargeSegment(&b.segments[p.arg], inline == 1, counter)
		case chargeHost:
			b.out.i64(FuelHostCall)
			b.out.index(opCall, b.spendFunc())
		case chargeLength:
			b.out.index(opLocalTee, length)
			b.out.index(opLocalGet, length)
			b.out.index(opCall, b.spendLengthFunc())
		case growMemory:
			at += 2
			b.out.index(opCall, b.growFunc())
		case makeRef:
			_, n := uvarint32(wasm[at+1 : b.end])
			at += 1 + n
			b.out.index(opRefFunc, b.shim(p.arg))
		}
	}
	b.out = append(b.out, wasm[at:b.end]...)
}

func (b *bodyMeter) chargeSegment(s *segment, inline bool, local uint32) {
	switch {
	case !s.checked:
		b.out.index(opGlobalGet, b.counter)
		b.out.i64(s.charge)
		b.out.op(opI64Sub)
		b.out.index(opGlobalSet, b.counter)
	case !inline:
		b.out.i64(s.charge)
		b.out.index(opCall, b.spendFunc())
	default:
		var amount code
		amount.i64(s.charge)
		b.charge(&b.out, amount, local)
	}
}
