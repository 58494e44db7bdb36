package state

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/millrace-io/millrace/runtime/record"
)

// flowTx is what a command does to the records of one flow. Counters and
// watermarks are written once, by finish.
type flowTx struct {
	t     *tx
	id    FlowID
	head  *Flow // nil: unknown
	at    int64
	queue queueCounters
	dirty bool // queue is to be written
	named bool
	parts map[uint32]*partTx
	// known are the flow's partitions once somebody asked.
	known []Partition
}

// partTx is what a command does to the records of one partition.
type partTx struct {
	f     *flowTx
	t     *tx
	part  uint32
	w     Watermark
	dirty bool // w is to be written
	// counted: the item of a Commit says which of its entries are new. over are
	// those that are not; entries is how many there were before.
	counted bool
	over    EntryCount
	entries int64
	// holds are those whose first entry may have to be un-parked.
	holds map[uint64]bool
}

func newFlowTx(t *tx, id FlowID, at int64) *flowTx {
	return &flowTx{t: t, id: id, head: t.flow(id), at: max(at, 1), queue: t.queue(id), parts: make(map[uint32]*partTx)}
}

// part loads a partition's watermark and receipt.
func (f *flowTx) part(n uint32) *partTx {
	if p := f.parts[n]; p != nil {
		return p
	}
	p := &partTx{f: f, t: f.t, part: n, w: Watermark{Part: n, Generation: notBegun}}
	if v, ok := f.t.get(watermarkKey(f.id, n)); ok {
		w, err := decodeWatermark(n, v)
		f.t.fault(err)
		if p.w = w; w.filed < 0 {
			f.t.fault(p.w.countFiled(f.t.b, f.id))
		}
	}
	f.parts[n] = p
	return p
}

// countFiled begins the receipt of a watermark that has none, with the entries
// that its partition has in the queue.
func (w *Watermark) countFiled(r pebble.Reader, flow FlowID) error {
	w.filed = 0
	prefix := key32(keyFailureIdx, uint32(flow), w.Part)
	err := scan(r, prefix, prefix, func(_, _ []byte) bool { w.filed++; return true })
	w.base.Read = w.filed
	return err
}

// finish un-parks what is free now, and writes watermarks and counters.
func (f *flowTx) finish() {
	for n, p := range f.parts {
		for hold := range p.holds {
			p.unpark(hold)
		}
		if p.dirty {
			f.t.set(watermarkKey(f.id, n), p.w.append(make([]byte, 0, 96+4*len(p.w.Ranges))))
		}
	}
	if f.dirty {
		f.t.set(queueCounterKey(f.id), f.queue.encode())
	}
}

// balance ends an item that is counted: what its entries did not add took the
// place of others.
func (p *partTx) balance(carried EntryCount, grown int64) {
	w := &p.w
	if short := grown - w.grown - (w.entries() - p.entries); short != 0 {
		w.base.drop(DroppedReplaced, short)
	}
	w.carried, w.grown = carried, grown
}

// file puts a failure in the queue, unless it is there or one of a newer
// generation is; its emission is no longer kept.
func (p *partTx) file(e *record.Entry) bool {
	in := &e.Input
	if generation, was := p.remove(in.Offset, in.Path); was && generation < e.Generation {
		p.w.base.drop(DroppedReplaced, 1)
	}
	value := EncodeEntry(e)
	key := failureIdxKey(p.f.id, p.part, in.Offset, in.Path)
	if v, filed := p.t.get(key); filed {
		old, err := decodeFailureIdx(v)
		p.t.fault(err)
		generation := p.t.filedGeneration(p.f.id, old)
		if p.t.err != nil || generation > e.Generation || old.size == uint64(len(value)) && old.hash == hashKV(failureKey(p.f.id, old.seq), value) {
			return false
		}
		p.unfile(key, old)
		p.w.base.drop(DroppedReplaced, 1)
	}
	q := &p.f.queue
	q.last++
	entry := failureKey(p.f.id, q.last)
	h := hashKV(entry, value)
	p.t.hash += h
	p.t.fault(p.t.b.Set(entry, value, nil))
	p.t.set(key, failureIdx{seq: q.last, size: uint64(len(value)), hash: h, generation: e.Generation}.encode())
	q.entries++
	q.bytes += uint64(len(value))
	p.w.filed++
	p.dirty, p.f.dirty = true, true
	return true
}

// unfile takes an entry out of the queue.
func (p *partTx) unfile(key []byte, idx failureIdx) {
	p.t.hash -= idx.hash
	p.t.fault(p.t.b.Delete(failureKey(p.f.id, idx.seq), nil))
	p.t.del(key)
	p.f.queue.entries--
	p.f.queue.bytes -= idx.size
	p.w.filed--
	p.dirty, p.f.dirty = true, true
}

// filedGeneration is the reset generation of an entry in the queue.
func (t *tx) filedGeneration(flow FlowID, idx failureIdx) uint32 {
	gen := idx.generation
	if idx.old && t.err == nil {
		var err error
		gen, err = entryGeneration(t.b, flow, idx)
		t.fault(err)
	}
	return gen
}

// entryGeneration is the reset generation of an entry whose index does not tell.
func entryGeneration(r pebble.Reader, flow FlowID, idx failureIdx) (uint32, error) {
	e, ok, err := one(r, failureKey(flow, idx.seq), func(v []byte) (*record.Entry, error) {
		e, _, err := decodeEntry(v)
		return e, err
	})
	if !ok {
		return 0, orMissing(err, failureKey(flow, idx.seq))
	}
	return e.Generation, nil
}

// entry calls f with the value of an entry of the queue, past the cache; false
// if there is none.
func (t *tx) entry(flow FlowID, seq uint64, f func(v []byte) error) bool {
	if t.err != nil {
		return false
	}
	v, closer, err := t.b.Get(failureKey(flow, seq))
	if errors.Is(err, pebble.ErrNotFound) {
		return false
	}
	if err != nil {
		t.fault(err)
		return false
	}
	t.fault(f(v))
	t.fault(closer.Close())
	return t.err == nil
}

// purgeQueue removes a flow's failure queue without reading its entries: the
// index knows their hashes.
func (t *tx) purgeQueue(flow FlowID) {
	prefix := flowPrefix(keyFailureIdx, flow)
	found := false
	t.scan(prefix, func(key, value []byte) bool {
		f, err := decodeFailureIdx(value)
		t.fault(err)
		t.hash -= hashKV(key, value) + f.hash
		found = true
		return err == nil
	})
	if t.err == nil && found {
		t.deleteRange(prefix)
		t.deleteRange(flowPrefix(keyFailure, flow))
	}
}

// keep puts an entry among those that wait, or puts it there anew. raw is its
// stored form.
func (p *partTx) keep(e *record.Retry, raw []byte) {
	in := &e.Input
	key := retryKey(p.f.id, p.part, in.Offset, in.Path)
	if e.Hold == 0 && e.Due <= 0 {
		now := *e
		now.Due = p.f.at
		raw = EncodeRetry(&now)
	} else if raw == nil {
		raw = EncodeRetry(e)
	}
	due := clampDue(e.Due)
	if due == 0 {
		due = clampDue(p.f.at)
	}
	q := &p.f.queue
	old, had := p.t.get(key)
	switch {
	case had && string(old) == string(raw), !had && !p.makeWay(in.Offset, in.Path, e.Generation):
		return
	case had:
		h, err := decodeRetryHead(old)
		p.t.fault(err)
		if h.generation > e.Generation {
			return
		}
		if h.generation < e.Generation {
			p.w.base.drop(DroppedReplaced, 1)
		}
		p.unindex(&h, in.Offset, in.Path, e.Hold)
		p.t.take(key, old)
		q.keptBytes -= uint64(len(old))
	default:
		q.kept++
		p.w.kept++
	}
	p.t.put(key, raw)
	q.keptBytes += uint64(len(raw))
	p.dirty, p.f.dirty = true, true
	if e.Hold != 0 {
		due = p.order(e.Hold, due, groupHash(e.Group), in.Offset, in.Path)
	}
	if due != 0 {
		p.t.put(retryDueKey(p.f.id, p.part, uint64(due), in.Offset, in.Path), nil)
	}
}

// makeWay reports whether an emission may be kept in spite of what lies in the
// queue. An entry of the same reset generation makes way if this one is known
// to be new.
func (p *partTx) makeWay(off int64, path record.Path, generation uint32) bool {
	if p.w.filed == 0 {
		return true
	}
	key := failureIdxKey(p.f.id, p.part, off, path)
	v, filed := p.t.get(key)
	if !filed {
		return true
	}
	idx, err := decodeFailureIdx(v)
	p.t.fault(err)
	if p.t.err != nil {
		return false
	}
	was := p.t.filedGeneration(p.f.id, idx)
	if was == generation && p.counted {
		p.unfile(key, idx)
		return p.t.err == nil
	}
	return was < generation
}

// remove takes a kept entry away, if there is one, and answers its reset
// generation.
func (p *partTx) remove(off int64, path record.Path) (generation uint32, was bool) {
	if p.w.kept == 0 {
		return 0, false
	}
	key := retryKey(p.f.id, p.part, off, path)
	old, had := p.t.get(key)
	if !had {
		return 0, false
	}
	h, err := decodeRetryHead(old)
	p.t.fault(err)
	p.unindex(&h, off, path, 0)
	p.t.take(key, old)
	p.f.queue.kept--
	p.f.queue.keptBytes -= uint64(len(old))
	p.w.kept--
	p.dirty, p.f.dirty = true, true
	return h.generation, true
}

// removeUnsettled takes away all kept entries whose records the watermark does
// not cover: those will be read again.
func (p *partTx) removeUnsettled() {
	if p.w.kept == 0 {
		return
	}
	n, size := int64(0), 0
	for kind, skip := range map[byte]int{keyRetry: 0, keyRetryDue: dueBytes, keyRetryOrder: holdBytes} {
		var gone [][]byte
		p.t.scan(key32(kind, uint32(p.f.id), p.part), func(key, value []byte) bool {
			k, err := decodeRetryKey(key, skip)
			p.t.fault(err)
			if err != nil || p.w.settled(k.Offset) {
				return err == nil
			}
			if kind == keyRetry {
				n++
				size += len(value)
			}
			p.t.hash -= hashKV(key, value)
			gone = append(gone, append([]byte(nil), key...))
			return true
		})
		for _, key := range gone {
			p.t.fault(p.t.b.Delete(key, nil))
		}
	}
	if n == 0 {
		return
	}
	clear(p.t.cache)
	p.w.base.drop(DroppedReplaced, n)
	p.w.kept -= n
	p.f.queue.kept -= uint64(n)
	p.f.queue.keptBytes -= uint64(size)
	p.dirty, p.f.dirty = true, true
}

// unindex takes an entry out of the indexes. If its Hold is not the next one,
// those that it held back may go on.
func (p *partTx) unindex(h *retryHead, off int64, path record.Path, next uint64) {
	due := clampDue(h.due)
	if h.hold != 0 {
		key := retryOrderKey(p.f.id, p.part, h.hold, off, path)
		v, ok := p.t.get(key)
		if !ok {
			p.t.fault(fmt.Errorf("kept entry %d%s of partition %d has no order: %w", off, path, p.part, ErrMalformed))
			return
		}
		o, err := decodeRetryOrder(v)
		p.t.fault(err)
		due = o.due
		p.t.take(key, v)
		if h.hold != next {
			p.touch(h.hold)
		}
	}
	if due != 0 {
		p.t.take(retryDueKey(p.f.id, p.part, uint64(due), off, path), nil)
	}
}

func (p *partTx) touch(hold uint64) {
	if p.holds == nil {
		p.holds = make(map[uint64]bool)
	}
	p.holds[hold] = true
}

// order gives an entry its place among those of its Hold, and answers when it
// is due: 0 if it is parked. Those that follow it are parked behind it.
func (p *partTx) order(hold uint64, due int64, group uint64, off int64, path record.Path) int64 {
	if p.t.err != nil {
		return 0
	}
	key := retryOrderKey(p.f.id, p.part, hold, off, path)
	prefix := key[:9+holdBytes]
	it, err := p.t.b.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: prefixEnd(prefix)})
	if err != nil {
		p.t.fault(err)
		return 0
	}
	read := func() (o retryOrder) {
		v, err := it.ValueAndErr()
		p.t.fault(err)
		o, err = decodeRetryOrder(v)
		p.t.fault(err)
		return o
	}
	apart := func(o retryOrder) bool { return group == 0 || o.group != group }
	for ok := it.SeekLT(key); ok && due != 0; ok = it.Prev() {
		if o := read(); o.due == 0 || apart(o) {
			due = 0
		}
	}
	type follower struct {
		key, value []byte
		o          retryOrder
	}
	var behind []follower
	for ok := it.SeekGE(append(append([]byte(nil), key...), 0)); ok && p.t.err == nil; ok = it.Next() {
		o := read()
		if o.due == 0 {
			break
		}
		if due == 0 || apart(o) || len(behind) > 0 {
			behind = append(behind, follower{append([]byte(nil), it.Key()...), o.encode(), o})
		}
	}
	p.t.fault(it.Close())
	for _, b := range behind {
		k, err := decodeRetryKey(b.key, holdBytes)
		p.t.fault(err)
		p.t.take(retryDueKey(p.f.id, p.part, uint64(b.o.due), k.Offset, k.Path), nil)
		p.t.take(b.key, b.value)
		p.t.put(b.key, retryOrder{group: b.o.group}.encode())
	}
	p.t.put(key, retryOrder{due, group}.encode())
	return due
}

// unpark makes the first entries of a Hold due now, if the first one is parked.
func (p *partTx) unpark(hold uint64) {
	prefix := retryOrderKey(p.f.id, p.part, hold, 0, "")[:9+holdBytes]
	type waiting struct {
		key   []byte
		group uint64
	}
	var free []waiting
	p.t.scan(prefix, func(key, value []byte) bool {
		o, err := decodeRetryOrder(value)
		p.t.fault(err)
		n := len(free)
		if err != nil || o.due != 0 || n >= UnparkAtOnce && (o.group == 0 || o.group != free[n-1].group) {
			return false
		}
		free = append(free, waiting{append([]byte(nil), key...), o.group})
		return true
	})
	due := clampDue(p.f.at)
	for _, w := range free {
		k, err := decodeRetryKey(w.key, holdBytes)
		p.t.fault(err)
		p.t.take(w.key, retryOrder{group: w.group}.encode())
		p.t.put(w.key, retryOrder{due, w.group}.encode())
		p.t.put(retryDueKey(p.f.id, p.part, uint64(due), k.Offset, k.Path), nil)
	}
}

// partOf finds the partition of an entry in the queue, and its index key.
func (f *flowTx) partOf(in *record.Record, seq uint64) (p *partTx, key []byte, idx failureIdx) {
	if f.known == nil {
		f.t.scan(flowPrefix(keyPartition, f.id), func(key, value []byte) bool {
			k, err := decodePartitionKey(value)
			f.t.fault(err)
			f.known = append(f.known, Partition{PartitionKey: k, Part: tail32(key)})
			return err == nil
		})
	}
	for i := range f.known {
		k := &f.known[i]
		if k.Topic != in.Topic || k.Broker != in.Broker || k.Source != in.Partition {
			continue
		}
		key := failureIdxKey(f.id, k.Part, in.Offset, in.Path)
		if v, ok := f.t.get(key); ok {
			idx, err := decodeFailureIdx(v)
			f.t.fault(err)
			if idx.seq == seq {
				return f.part(k.Part), key, idx
			}
		}
	}
	var part uint32
	f.t.scan(flowPrefix(keyFailureIdx, f.id), func(k, v []byte) bool {
		i, err := decodeFailureIdx(v)
		f.t.fault(err)
		if i.seq == seq {
			part, key, idx = binary.BigEndian.Uint32(k[5:]), append([]byte(nil), k...), i
		}
		return key == nil && err == nil
	})
	if key == nil {
		f.t.fault(fmt.Errorf("failure entry %d of flow %d has no index: %w", seq, f.id, ErrMalformed))
		return nil, nil, idx
	}
	return f.part(part), key, idx
}
