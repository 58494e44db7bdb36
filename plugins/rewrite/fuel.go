package rewrite

import "math"

// Fuel tells where a rewritten module counts. The counter is a mutable i64
// global that the guest's code cannot name: every charge subtracts from it
// first and traps (unreachable) if it is negative afterwards. So the host sets
// it before a call, learns what the call used from the difference, and tells
// this trap from all others by a counter below zero.
//
// Charges, each before the effects of what it pays for:
//
//	a loop, each turn        1 + floor(instructions of its region / 16)
//	a function, each call    the same; 0 if it is free: neither calls nor
//	                         loops and fewer than 64 instructions
//	memory.fill, .copy,      1 + length >> 8: the length operand, unsigned,
//	.init; table.fill,       in bytes or in entries
//	.copy, .init, .grow
//	memory.grow              64 + 16 a page asked for, of which at most
//	                         65,536 count: no memory can grow by more
//	an imported function     FuelHostCall
//
// The region of a loop is what lies between the loop instruction and its end,
// the end included, without the regions of loops inside it; that of a function
// is its body without the regions of its loops. Each opcode counts as one
// instruction, else and end among them, but
//
//	a division, remainder or square root, vectors too    4
//	ref.func                                           128: it leaves machine code
//	call of a free function                            1 + the instructions of that
//	call_indirect                                       64: what it reaches may be free
//
// The host charges for lengths: an imported function that is given one by the
// guest (bytes to copy, to hash, to log) subtracts FuelForLength of it from
// the same global before it acts, and traps when the counter is negative then.
//
// An imported function is charged for also when the guest reaches it through a
// table or a reference, not when the host calls it through an export or the
// start section names it.
type Fuel struct {
	// Export is the name to look the counter up by: "millrace:fuel", longer
	// if that is taken. It is empty when Options.Fuel was not set.
	Export string

	// Global is the index of the counter.
	Global uint32
}

const (
	// FuelUnlimited is what the counter starts with unless
	// Options.InitialFuel says otherwise.
	FuelUnlimited int64 = math.MaxInt64

	// FuelHostCall is the charge for a call of an imported function. The
	// module charges it itself, before the call.
	FuelHostCall int64 = 64
)

// FuelForLength is the charge for a length that a guest gives to a host
// function, on top of FuelHostCall.
func FuelForLength(length uint64) int64 { return int64(length >> fuelLengthShift) }

const (
	fuelLengthShift = 8
	fuelFreeBelow   = 64
	fuelIndirect    = fuelFreeBelow
	fuelGrow        = 64
	fuelPageShift   = 4
	maxMemoryPages  = 1 << 16
)

// weightOf is what an instruction counts as, calls apart.
func weightOf(op opcode) uint32 {
	switch op {
	case opRefFunc:
		return 128
	case 0x6d, 0x6e, 0x6f, 0x70, 0x7f, 0x80, 0x81, 0x82, // i32 and i64 div and rem
		0x91, 0x95, 0x9f, 0xa3, // f32 and f64 sqrt and div
		0xfde3, 0xfde7, 0xfdef, 0xfdf3: // f32x4 and f64x2 sqrt and div
		return 4
	}
	return 1
}

// regionFuel is the charge for a region of that many instructions.
func regionFuel(instructions uint32) int64 { return 1 + int64(instructions/16) }
