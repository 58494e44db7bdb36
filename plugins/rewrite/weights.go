package rewrite

import "slices"

// What instructions weigh. The engine spends at most about 2 ns on each weight
// of 1: see DESIGN.md for how that was measured, and for the bounds that follow
// from it.
const (
	weightOfUnit = 16

	// weightLoad is a load whose address may depend on the load before it, so
	// that it may wait for memory: 170 ns and more.
	weightLoad = 224
	// weightNextLoad is a load of a known base: see bases.
	weightNextLoad = 12
	weightStore    = 24

	weightCall         = 96
	weightCallIndirect = 128 + fuelFreeBelow
	weightBulk         = 256
	weightTableAccess  = 128
	weightBrTable      = 48

	// weightRefFunc: it leaves machine code (150 ns).
	weightRefFunc = 128

	// weightDenormal is a floating point operation that takes 40 ns and more
	// where operands or results are denormal.
	weightDenormal = 40
	weightDivide   = 4

	// frameFreeLocals are the parameters and locals that a call pays for,
	// weightLocal is what each further one adds to it.
	frameFreeLocals = 16
	weightLocal     = 6
)

// weights holds the opcodes of one byte, miscWeights those after 0xfc,
// vectorWeights those after 0xfd.
var (
	plainWeights  = makePlainWeights()
	miscWeights   = makeMiscWeights()
	vectorWeights = makeVectorWeights()
)

// weightOf is what an instruction weighs, whatever is before it.
func weightOf(op opcode) uint32 {
	switch op >> 8 {
	case prefixMisc:
		return miscWeights[byte(op)]
	case prefixVector:
		return vectorWeights[byte(op)]
	}
	return plainWeights[byte(op)]
}

func makePlainWeights() (t [256]uint32) {
	set := func(weight uint32, from, to int) {
		for i := from; i <= to; i++ {
			t[i] = weight
		}
	}
	set(1, 0x00, 0xff)
	// What leaves no machine code.
	for _, op := range []opcode{opBlock, opLoop, opElse, opEnd} {
		t[op] = 0
	}
	t[opBrTable] = weightBrTable
	t[opCall], t[opCallIndirect] = weightCall, weightCallIndirect
	set(weightTableAccess, 0x25, 0x26) // table.get, table.set
	set(weightLoad, 0x28, 0x35)
	set(weightStore, 0x36, 0x3e)
	t[opRefFunc] = weightRefFunc
	for _, op := range []int{
		0x6d, 0x6e, 0x6f, 0x70, 0x7f, 0x80, 0x81, 0x82, // i32 and i64 div and rem
	} {
		t[op] = weightDivide
	}
	for _, op := range []int{
		0x91, 0x94, 0x95, // f32 sqrt, mul, div
		0x9f, 0xa2, 0xa3, // f64 sqrt, mul, div
		0xb6, // f32.demote_f64
	} {
		t[op] = weightDenormal
	}
	set(2, 0x8d, 0x90) // f32 ceil, floor, trunc, nearest
	set(2, 0x96, 0x97) // min, max
	set(2, 0x9b, 0x9e)
	set(2, 0xa4, 0xa5)
	set(2, 0xa8, 0xab) // truncations to i32
	set(2, 0xae, 0xbb) // conversions
	return t
}

func makeMiscWeights() (t [256]uint32) {
	for i := range t {
		t[i] = 2 // saturating truncations
	}
	for _, op := range []opcode{opMemoryInit, opMemoryCopy, opMemoryFill, opTableInit, opTableCopy, opTableGrow, opTableFill} {
		t[byte(op)] = weightBulk
	}
	return t
}

func makeVectorWeights() (t [256]uint32) {
	for i := range t {
		t[i] = 2
	}
	for i := range 11 {
		t[i] = weightLoad
	}
	t[0x0b], t[0x0c] = weightStore, 1 // v128.store, v128.const
	for i := 0x54; i <= 0x57; i++ {
		t[i] = weightLoad // lanes
		t[i+4] = weightStore
	}
	t[0x5c], t[0x5d] = weightLoad, weightLoad
	for _, op := range []int{
		0x5e,                   // f32x4.demote
		0xe3, 0xe6, 0xe7, 0xef, // f32x4 sqrt, mul, div, f64x2 sqrt
		0xf2, 0xf3, // f64x2 mul, div
	} {
		t[op] = weightDenormal
	}
	// Multiplications, minima and conversions that are several instructions.
	for _, op := range []int{
		0xb5, 0xbc, 0xbd, 0xbe, 0xbf, 0xcc, 0xd5, 0xdc, 0xdd, 0xde, 0xdf,
		0xe8, 0xe9, 0xf4, 0xf5, 0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff,
	} {
		t[op] = 3
	}
	return t
}

// bases knows the locals that a load of the present straight line of code took
// its address from. Loads that differ only in their constant offset have their
// addresses at the same time and wait for memory together, so that all but the
// first are cheap, wherever in memory they are.
type bases struct {
	locals []uint32
	// last is the local that the operand on top of the stack is, if top is set.
	last uint32
	top  bool
}

func (k *bases) forget() { k.locals, k.top = k.locals[:0], false }

// weigh is weightOf for the next instruction of a body.
func (k *bases) weigh(in *instr) uint32 {
	w := weightOf(in.op)
	top := k.top
	k.top = false
	switch in.op {
	case opLocalGet:
		k.last, k.top = in.x, true
	case opLocalSet, opLocalTee:
		k.locals = slices.DeleteFunc(k.locals, func(l uint32) bool { return l == in.x })
		k.last, k.top = in.x, in.op == opLocalTee
	case opIf, opElse, opEnd, opLoop, opBr, opBrIf, opBrTable, opReturn, opCall, opCallIndirect:
		k.forget()
	default:
		if !top || !takesAddress(in.op) {
			break
		}
		if slices.Contains(k.locals, k.last) {
			return weightNextLoad
		}
		if len(k.locals) < maxBases {
			k.locals = append(k.locals, k.last)
		}
	}
	return w
}

// takesAddress reports whether op is a load whose only operand is its address.
func takesAddress(op opcode) bool {
	return op >= 0x28 && op <= 0x35 || op >= 0xfd00 && op <= 0xfd0a || op == 0xfd5c || op == 0xfd5d
}

// maxBases bounds the time that the search for a base takes.
const maxBases = 16
