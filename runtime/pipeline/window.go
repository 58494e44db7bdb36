package pipeline

import (
	"github.com/millrace-io/millrace/runtime/ledger"
	"github.com/millrace-io/millrace/runtime/record"
)

// window is what a lane has in flight: the ledger, and for each of its slots
// how many emissions are outstanding and how many bytes it counts for. It is
// guarded by the lane's mu.
type window struct {
	ledger  *ledger.Ledger
	pending []int32 // ring by slot
	size    []int32
	offset  []int64             // for notices; nil if nobody waits for any
	what    []record.Settlement // as offset
	tail    uint64
	records int // unsettled
	bytes   int // of unsettled records
}

func newWindow(low int64, done []ledger.Range, notices bool) window {
	const initial = 512
	w := window{ledger: ledger.New(low, done), pending: make([]int32, initial), size: make([]int32, initial)}
	if notices {
		w.offset, w.what = make([]int64, initial), make([]record.Settlement, initial)
	}
	return w
}

// add puts a record in flight with one outstanding emission: itself.
func (w *window) add(offset int64, size int) uint64 {
	if w.ledger.InFlight() == len(w.pending) {
		w.grow()
	}
	s := w.ledger.Add(offset)
	i := s & uint64(len(w.pending)-1)
	w.pending[i], w.size[i] = 1, int32(min(size, 1<<30))
	if w.offset != nil {
		w.offset[i], w.what[i] = offset, 0
	}
	w.tail = s + 1
	w.records++
	w.bytes += int(w.size[i])
	return s
}

func (w *window) grow() {
	n := 2 * len(w.pending)
	from := w.tail - uint64(w.ledger.InFlight())
	w.pending, w.size = grown(w.pending, n, from, w.tail), grown(w.size, n, from, w.tail)
	if w.offset != nil {
		w.offset, w.what = grown(w.offset, n, from, w.tail), grown(w.what, n, from, w.tail)
	}
}

func grown[T any](ring []T, n int, from, to uint64) []T {
	out := make([]T, n)
	for s := from; s < to; s++ {
		out[s&uint64(n-1)] = ring[s&uint64(len(ring)-1)]
	}
	return out
}

// hold adds outstanding emissions to a slot.
func (w *window) hold(slot uint64, n int32) { w.pending[slot&uint64(len(w.pending)-1)] += n }

// release takes one outstanding emission from a slot and settles the record
// when it was the last. It reports whether the record is settled.
func (w *window) release(slot uint64) bool {
	i := slot & uint64(len(w.pending)-1)
	w.pending[i]--
	if w.pending[i] > 0 {
		return false
	}
	w.records--
	w.bytes -= int(w.size[i])
	w.ledger.Settle(slot)
	return true
}

// note remembers what became of an emission of a slot.
func (w *window) note(slot uint64, what record.Settlement) {
	w.what[slot&uint64(len(w.what)-1)] |= what
}

// noted is the offset of a slot and all that was noted of it.
func (w *window) noted(slot uint64) (int64, record.Settlement) {
	i := slot & uint64(len(w.what)-1)
	return w.offset[i], w.what[i]
}

// outstanding is the sum of outstanding emissions.
func (w *window) outstanding() int64 {
	n := int64(0)
	for s := w.tail - uint64(w.ledger.InFlight()); s < w.tail; s++ {
		n += int64(w.pending[s&uint64(len(w.pending)-1)])
	}
	return n
}
