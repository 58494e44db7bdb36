package rewrite

// A segment is a piece of a body that begins at a place where control flow
// splits or meets, and ends at the next one. Whoever executes an instruction
// of it has passed its beginning, where it is paid for as a whole. The code of
// a body is structured, so that a segment is only reached past the one in
// which its block began: what a segment costs may be paid there instead.
type segment struct {
	weight, instructions uint32

	// before is the segment that is passed on every way to this one. fixed:
	// this one is the beginning of the body or of a loop and pays for itself.
	before uint32
	fixed  bool

	// taken is the number of instructions that it pays for on behalf of later
	// segments.
	taken uint32

	// charge is paid at its beginning, 0 where an earlier segment pays;
	// checked: whether fuel is left is looked at as well.
	charge  int64
	checked bool
}

// openBlock knows the segment that its block begins in.
type openBlock struct{ before uint32 }

const (
	// A segment of at most hoistInstructions is paid for by the segment
	// before, if that has taken over no more than takenInstructions in this
	// way. Then paths that are not taken are paid for too, which is better than
	// to slow all of them down.
	hoistInstructions = 24
	takenInstructions = 48

	// uncheckedFuel is how much may be spent in a body without looking whether
	// it is there.
	uncheckedFuel = 256
)

// begin makes a segment that begins at the module offset at, the current one.
func (b *bodyMeter) begin(at int, weight, before uint32) {
	b.current = uint32(len(b.segments))
	b.segments = append(b.segments, segment{weight: weight, before: before})
	b.mark(at, chargeSegment, b.current)
}

// hoist decides which segments pay for themselves, and how much.
func (b *bodyMeter) hoist() {
	for i := len(b.segments) - 1; i > 0; i-- {
		s := &b.segments[i]
		if s.fixed || s.weight == 0 {
			continue
		}
		to := &b.segments[s.before]
		n := s.instructions + s.taken
		if n > hoistInstructions || to.taken+n > takenInstructions {
			continue
		}
		to.weight += s.weight
		to.taken += n
		s.weight = 0
	}
	b.checks = 0
	unchecked := int64(0)
	for i := range b.segments {
		s := &b.segments[i]
		s.checked = s.fixed
		switch {
		case s.fixed:
			s.charge = 1 + int64(s.weight/weightOfUnit)
		case s.weight > 0:
			s.charge = int64((s.weight + weightOfUnit - 1) / weightOfUnit)
			unchecked += s.charge
			s.checked = unchecked > uncheckedFuel
		}
		if s.checked {
			unchecked = 0
			b.checks++
		}
	}
}

// frameWeight is what the frame of a function weighs: it takes memory of the
// engine's stack, 8 bytes and more for each parameter and local, and a deep recursion
// pays for that too.
func (b *bodyMeter) frameWeight() uint32 {
	if b.locals <= frameFreeLocals {
		return 0
	}
	return uint32(min(weightLocal*(b.locals-frameFreeLocals), 1<<20))
}
