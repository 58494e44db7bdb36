// Package ledger turns completions in any order into what is committed: a
// watermark below which everything is settled, and the settled ranges above it.
//
// A Ledger belongs to one partition and is not safe for concurrent use. It
// knows offsets only; what a record is, and when it is settled, is the lane's.
package ledger

import "slices"

// MaxRanges is how many ranges a partition reports at most.
const MaxRanges = 256

// Range is the offsets from From up to and without To.
type Range struct {
	From, To int64
}

// Ledger keeps the records in flight in fetch order. Offsets that were never
// added count as settled: compacted, control records, or done by an earlier
// owner.
type Ledger struct {
	offsets []int64 // ring of slots; the length is a power of two
	settled []bool
	head    uint64 // oldest slot that is not settled, or == tail
	tail    uint64 // next slot
	next    int64  // next fetch position
	kept    []Range
}

// New returns the ledger of a partition that is fetched from next on. done are
// the ranges above next that an earlier owner settled; they are reported until
// the position has passed them.
func New(next int64, done []Range) *Ledger {
	const initial = 256
	return &Ledger{offsets: make([]int64, initial), settled: make([]bool, initial), next: next, kept: slices.Clone(done)}
}

// Add puts a record in flight and returns its slot. Offsets must rise; an
// offset below the position panics, since the watermark would lie.
func (l *Ledger) Add(offset int64) uint64 {
	if offset < l.next {
		panic("ledger: offset added below the position")
	}
	if l.tail-l.head == uint64(len(l.offsets)) {
		l.grow()
	}
	i := l.tail & uint64(len(l.offsets)-1)
	l.offsets[i], l.settled[i] = offset, false
	l.next = offset + 1
	l.tail++
	return l.tail - 1
}

func (l *Ledger) grow() {
	n := 2 * len(l.offsets)
	offsets, settled := make([]int64, n), make([]bool, n)
	for s := l.head; s < l.tail; s++ {
		from, to := s&uint64(len(l.offsets)-1), s&uint64(n-1)
		offsets[to], settled[to] = l.offsets[from], l.settled[from]
	}
	l.offsets, l.settled = offsets, settled
}

// Settle marks a slot that Add returned. Settling a slot twice, or one that
// was never handed out, panics: a record would be counted for another.
func (l *Ledger) Settle(slot uint64) {
	i := slot & uint64(len(l.offsets)-1)
	if slot < l.head || slot >= l.tail || l.settled[i] {
		panic("ledger: slot settled twice or unknown")
	}
	l.settled[i] = true
	for l.head < l.tail && l.settled[l.head&uint64(len(l.offsets)-1)] {
		l.head++
	}
}

// Advance moves the position past offsets that hold no record for us. A
// position that lies behind is ignored.
func (l *Ledger) Advance(next int64) { l.next = max(l.next, next) }

// Next is the position: the offset that is fetched next.
func (l *Ledger) Next() int64 { return l.next }

// InFlight is the number of slots from the oldest unsettled one on.
func (l *Ledger) InFlight() int { return int(l.tail - l.head) }

// Low is the watermark: everything below it is settled. It is the position when
// nothing is in flight.
func (l *Ledger) Low() int64 {
	if l.head < l.tail {
		return l.offsets[l.head&uint64(len(l.offsets)-1)]
	}
	return l.next
}

// Done reports whether an earlier owner settled the offset.
func (l *Ledger) Done(offset int64) bool {
	for len(l.kept) > 0 && l.kept[0].To <= l.next {
		l.kept = l.kept[1:]
	}
	for _, r := range l.kept {
		if offset < r.From {
			return false
		}
		if offset < r.To {
			return true
		}
	}
	return false
}

// Ranges appends the settled ranges above Low to dst, the lowest ones first,
// at most MaxRanges. What is left out is done again by a new owner, no more.
func (l *Ledger) Ranges(dst []Range) []Range {
	start := len(dst)
	full := func() bool { return len(dst)-start >= MaxRanges }
	mask := uint64(len(l.offsets) - 1)
	for s := l.head; s < l.tail && !full(); {
		// s is unsettled; what follows it up to the next unsettled one is a range.
		from := l.offsets[s&mask] + 1
		for s++; s < l.tail && l.settled[s&mask]; s++ {
		}
		to := l.next
		if s < l.tail {
			to = l.offsets[s&mask]
		}
		if from < to {
			dst = append(dst, Range{from, to})
		}
	}
	for _, r := range l.kept {
		if r.To <= l.next || full() {
			continue
		}
		r.From = max(r.From, l.next)
		if n := len(dst); n > start && dst[n-1].To == r.From {
			dst[n-1].To = r.To
			continue
		}
		dst = append(dst, r)
	}
	return dst
}
