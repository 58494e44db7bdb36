package rewrite

import "math"

// Fuel tells where a rewritten module counts. The counter is a mutable i64
// global that the guest's code cannot name: charges subtract from it and trap
// (unreachable) if it is negative afterwards. So the host sets it before a call,
// learns what the call used from the difference, and tells this trap from all
// others by a counter below zero.
//
// Charges, before the effects of what they pay for unless it says otherwise:
//
//	a loop, each turn        1 + floor(weight of its segment / 16)
//	a function, each call    the same; 0 if it is free: neither calls nor
//	                         loops and weighs less than 64
//	another segment          its weight / 16, rounded up
//	memory.fill, .copy,      1 + length >> 6: the length operand, unsigned,
//	.init; table.fill,       in bytes or in entries, on top of the weight
//	.copy, .init, .grow
//	memory.grow              64, and once it has grown 256 a page
//	an imported function     FuelHostCall
//
// A segment is a piece of code between places where control flow splits or
// meets: it begins at the beginning of a body, behind loop, if, else and end.
// Segments other than loops and bodies may be paid for by the one that is passed
// on every way to them; short ones are, so that a branch that is not taken may be
// paid for too.
//
// A segment weighs what its instructions weigh together: most 1, and
//
//	block, loop, else, end                                  0
//	a load                                                224
//	one of an address in a local that the load before had  12
//	a store                                                24
//	a division or remainder of integers                     4
//	multiplication, division, root, demotion of floats     40: of denormals
//	rounding, conversion, most of vectors                2, 3
//	call, and what a called free function weighs           96
//	call_indirect                                         192
//	br_table                                               48
//	table.get, table.set                                  128
//	memory.fill, .copy, .init; table.* with a length      256
//	ref.func                                              128
//
// A function weighs 6 more for each parameter and local beyond 16.
//
// Whether fuel is left is looked at where a loop and a function begin and at
// every charge by length, and elsewhere after 256 units at the latest. Up to
// that much may be spent too much, and a call may return with a counter below
// zero.
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

	// Left and Spent are exports, () -> i32, that tell what the last call left
	// and what all calls used together, each the low 32 bits of it:
	// "millrace:fuel-left" and "millrace:fuel-spent", longer if that is taken.
	// They cost nothing. They are empty without Options.FuelPerExport.
	Left, Spent string

	// FirstAdded is the index of the first function that is not the module's
	// own.
	FirstAdded uint32
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
	fuelLengthShift = 6
	fuelFreeBelow   = 64
	fuelGrow        = 64
	fuelPageShift   = 8
)
