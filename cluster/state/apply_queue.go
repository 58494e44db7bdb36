package state

import (
	"encoding/binary"
	"slices"

	"github.com/millrace-io/millrace/runtime/record"
)

func (c *QueueOp) apply(t *tx) (any, error) {
	f := newFlowTx(t, c.Flow, c.At)
	switch {
	case f.head == nil:
		return nil, refuse(NotFound, "flow %d does not exist", c.Flow)
	case c.Action != QueueDrop && c.Action != QueueReplay:
		return nil, refuse(Invalid, "flow %s: action %d on the failure queue is unknown", f.head.FullName(), c.Action)
	}
	res := &QueueOpResult{}
	for i, seq := range c.Seqs {
		reason := SkipReason(0)
		if c.Action == QueueDrop {
			if !f.drop(seq, DroppedQueue) {
				reason = SkipMissing
			}
		} else {
			hold := uint64(0)
			if i < len(c.Holds) {
				hold = c.Holds[i]
			}
			reason = f.replay(seq, hold, c.Via)
		}
		if reason != 0 {
			res.Skipped = append(res.Skipped, Skipped{seq, reason})
		} else {
			res.Done++
		}
	}
	f.finish()
	res.Queue = f.queue.stats(f.id)
	return res, nil
}

// drop takes an entry out of the queue for good; false if there is none.
func (f *flowTx) drop(seq uint64, reason string) bool {
	var e *record.Entry
	if !f.t.entry(f.id, seq, func(v []byte) (err error) { e, _, err = decodeEntry(v); return err }) {
		return false
	}
	p, key, idx := f.partOf(&e.Input, seq)
	if p == nil {
		return false
	}
	p.unfile(key, idx)
	p.w.base.drop(reason, 1)
	return true
}

// replay makes a kept entry of one in the queue.
func (f *flowTx) replay(seq, hold uint64, via string) SkipReason {
	var e *record.Entry
	if !f.t.entry(f.id, seq, func(v []byte) (err error) { e, err = DecodeEntry(v); return err }) {
		return SkipMissing
	}
	if e.InputOmitted {
		return SkipOmitted
	}
	p, key, idx := f.partOf(&e.Input, seq)
	if p == nil {
		return SkipMissing
	}
	if _, waits := f.t.get(retryKey(f.id, p.part, e.Input.Offset, e.Input.Path)); waits {
		return SkipWaiting
	}
	if e.Generation != f.head.Generation {
		if !p.w.settled(e.Input.Offset) {
			return SkipUnread
		}
		if p.newer(e.Input.Offset, e.Generation) {
			return SkipNewer
		}
	}
	p.unfile(key, idx)
	p.keep(&record.Retry{
		Stage: e.Stage, Input: e.Input, Generation: e.Generation, At: f.at, Due: f.at,
		Hold: hold, Via: via, Requeues: e.Requeues + 1, History: e.History,
	}, nil)
	return 0
}

// newer reports whether entries of a record are there from a later reading of
// it. What comes of an earlier one could have their names.
func (p *partTx) newer(off int64, generation uint32) (found bool) {
	p.t.scan(retryKey(p.f.id, p.part, off, ""), func(_, value []byte) bool {
		h, err := decodeRetryHead(value)
		p.t.fault(err)
		found = h.generation > generation
		return err == nil && !found
	})
	if found {
		return true
	}
	p.t.scan(failureIdxKey(p.f.id, p.part, off, ""), func(_, value []byte) bool {
		idx, err := decodeFailureIdx(value)
		p.t.fault(err)
		found = err == nil && p.t.filedGeneration(p.f.id, idx) > generation
		return err == nil && !found
	})
	return found
}

func (c *QueueExpire) apply(t *tx) (any, error) {
	f := newFlowTx(t, c.Flow, c.At)
	if f.head == nil {
		return nil, refuse(NotFound, "flow %d does not exist", c.Flow)
	}
	type oldest struct {
		seq    uint64
		reason string
	}
	var old []oldest
	entries, size, read := f.queue.entries, f.queue.bytes, 0
	res := &QueueOpResult{}
	t.scan(flowPrefix(keyFailure, f.id), func(key, value []byte) bool {
		e, _, err := decodeEntry(value)
		t.fault(err)
		reason := DroppedExpired
		if err == nil && e.Time >= c.Before {
			reason = DroppedOldest
		}
		if err != nil || reason == DroppedOldest && (c.KeepEntries == 0 || entries <= c.KeepEntries) && (c.KeepBytes == 0 || size <= c.KeepBytes) {
			return false
		}
		if res.More = len(old) == MaxExpire || read >= MaxExpireBytes; res.More {
			return false
		}
		read += len(value)
		old = append(old, oldest{binary.BigEndian.Uint64(key[5:]), reason})
		entries--
		size -= uint64(len(value))
		return true
	})
	for _, e := range old {
		if f.drop(e.seq, e.reason) {
			res.Done++
		}
	}
	f.finish()
	res.Queue = f.queue.stats(f.id)
	return res, nil
}

func (c *QueuePurge) apply(t *tx) (any, error) {
	f := newFlowTx(t, c.Flow, c.At)
	switch {
	case f.head == nil:
		return nil, refuse(NotFound, "flow %d does not exist", c.Flow)
	case f.head.State == Running:
		return nil, refuse(NotPaused, "flow %s runs; pause it first: run flowctl flow pause %s", f.head.FullName(), f.head.FullName())
	}
	res := &QueueOpResult{}
	read := 0
	full := func(n int) bool {
		res.More = n == MaxExpire || read >= MaxExpireBytes
		return res.More
	}
	type filed struct {
		key []byte
		idx failureIdx
	}
	var entries []filed
	t.scan(flowPrefix(keyFailureIdx, f.id), func(key, value []byte) bool {
		if full(len(entries)) {
			return false
		}
		idx, err := decodeFailureIdx(value)
		t.fault(err)
		entries = append(entries, filed{append([]byte(nil), key...), idx})
		return err == nil
	})
	var kept []RetryKey
	if !res.More {
		t.scan(flowPrefix(keyRetry, f.id), func(key, value []byte) bool {
			if full(len(entries) + len(kept)) {
				return false
			}
			k, err := decodeRetryKey(key, 0)
			t.fault(err)
			read += len(value)
			kept = append(kept, k)
			return err == nil
		})
	}
	if t.err != nil {
		return nil, nil
	}
	for _, e := range entries {
		p := f.part(binary.BigEndian.Uint32(e.key[5:]))
		p.unfile(e.key, e.idx)
		p.w.base.drop(DroppedQueue, 1)
		res.Done++
	}
	for _, k := range kept {
		p := f.part(k.Part)
		if _, was := p.remove(k.Offset, k.Path); was {
			p.w.base.drop(DroppedQueue, 1)
			res.Done++
		}
	}
	f.finish()
	res.Queue = f.queue.stats(f.id)
	return res, nil
}

func (c *QueueImport) apply(t *tx) (any, error) {
	f := newFlowTx(t, c.Flow, c.At)
	if f.head == nil {
		return nil, refuse(NotFound, "flow %d does not exist", c.Flow)
	}
	res := &QueueOpResult{}
	for i := range c.Entries {
		if reason := f.importEntry(&c.Entries[i]); reason != 0 {
			res.Skipped = append(res.Skipped, Skipped{uint64(i), reason})
		} else {
			res.Done++
		}
	}
	f.finish()
	res.Queue = f.queue.stats(f.id)
	return res, nil
}

func (f *flowTx) importEntry(c *ImportEntry) SkipReason {
	if c.Part >= f.head.Parts {
		return SkipPartition
	}
	p := f.part(c.Part)
	e := c.Entry
	in := &e.Input
	if _, filed := f.t.get(failureIdxKey(f.id, c.Part, in.Offset, in.Path)); filed {
		return SkipPresent
	}
	if _, waits := f.t.get(retryKey(f.id, c.Part, in.Offset, in.Path)); waits {
		return SkipWaiting
	}
	if !p.w.settled(in.Offset) {
		return SkipUnread
	}
	e.Generation = min(e.Generation, f.head.Generation)
	p.file(e)
	p.w.base.Read++
	return 0
}

// settled reports whether the watermark covers an offset.
func (w *Watermark) settled(off int64) bool {
	return off < w.Low || slices.ContainsFunc(w.Ranges, func(r Range) bool { return r.From <= off && off < r.To })
}

func (c *OffsetReset) apply(t *tx) (any, error) {
	f := newFlowTx(t, c.Flow, c.At)
	if f.head == nil {
		return nil, refuse(NotFound, "flow %d does not exist", c.Flow)
	}
	name := f.head.FullName()
	switch {
	case f.head.State == Running:
		return nil, refuse(NotPaused, "flow %s runs; pause it first: run flowctl flow pause %s", name, name)
	case f.head.Generation != c.IfGeneration:
		return nil, refuse(GenerationMismatch, "flow %s has reset generation %d, not %d: its offsets were reset meanwhile", name, f.head.Generation, c.IfGeneration)
	}
	seen := make(map[uint32]bool, len(c.Positions))
	for _, p := range c.Positions {
		if p.Part >= f.head.Parts || p.Offset < 0 || seen[p.Part] {
			return nil, refuse(Invalid, "flow %s: offset %d for partition %d: no such partition, named twice, or no offset", name, p.Offset, p.Part)
		}
		seen[p.Part] = true
	}
	f.head.Generation++
	for _, pos := range c.Positions {
		w := &f.part(pos.Part).w
		w.Generation, w.Low, w.Ranges = c.IfGeneration, pos.Offset, nil
	}
	for n := range f.head.Parts {
		if p := f.part(n); p.w.Generation == c.IfGeneration {
			p.removeUnsettled()
			p.w.Generation, p.dirty = f.head.Generation, true
		}
	}
	for k := range f.head.Slots {
		if s, ok := t.slot(f.id, k); ok {
			s.release()
			s.Epoch++
			t.set(slotKey(f.id, k), s.encode())
		}
	}
	t.set(flowHeadKey(f.id), f.head.encode())
	f.finish()
	return f.head, nil
}
