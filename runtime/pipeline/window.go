package pipeline

import "github.com/millrace-io/millrace/runtime/ledger"

// window is what a lane has in flight: the ledger, and for each of its slots
// how many emissions are outstanding and how many bytes it counts for. It is
// guarded by the lane's mu.
type window struct {
	ledger  *ledger.Ledger
	pending []int32 // ring by slot
	size    []int32
	tail    uint64
	behind  map[uint64][]uint64 // slots to be released when the key's is settled
	records int                 // unsettled
	bytes   int                 // of unsettled records
}

func newWindow(low int64, done []ledger.Range) window {
	const initial = 512
	return window{ledger: ledger.New(low, done), pending: make([]int32, initial), size: make([]int32, initial)}
}

// add puts a record in flight with one outstanding emission: itself.
func (w *window) add(offset int64, size int) uint64 {
	if w.ledger.InFlight() == len(w.pending) {
		w.grow()
	}
	s := w.ledger.Add(offset)
	i := s & uint64(len(w.pending)-1)
	w.pending[i], w.size[i] = 1, int32(min(size, 1<<30))
	w.tail = s + 1
	w.records++
	w.bytes += int(w.size[i])
	return s
}

func (w *window) grow() {
	n := 2 * len(w.pending)
	pending, size := make([]int32, n), make([]int32, n)
	for s := w.tail - uint64(w.ledger.InFlight()); s < w.tail; s++ {
		from, to := s&uint64(len(w.pending)-1), s&uint64(n-1)
		pending[to], size[to] = w.pending[from], w.size[from]
	}
	w.pending, w.size = pending, size
}

// hold adds outstanding emissions to a slot.
func (w *window) hold(slot uint64, n int32) { w.pending[slot&uint64(len(w.pending)-1)] += n }

// follow makes slot be released once when leader is settled. It reports false
// for the leader itself.
func (w *window) follow(leader, slot uint64) bool {
	if slot == leader {
		return false
	}
	if w.behind == nil {
		w.behind = map[uint64][]uint64{}
	}
	w.behind[leader] = append(w.behind[leader], slot)
	return true
}

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
	if next := w.behind[slot]; next != nil {
		delete(w.behind, slot)
		for _, s := range next {
			w.release(s)
		}
	}
	return true
}
