package state

import (
	"encoding/binary"
	"fmt"
)

// Reason says why an item of a Commit was refused.
type Reason uint8

const (
	// StaleEpoch: the slot has another epoch, so another owner may be at work.
	// Drop everything in memory.
	StaleEpoch Reason = 1 + iota
	// NotOwner: the slot has no owner, or another node or life owns it.
	NotOwner
	// WrongGeneration: the flow's offsets were reset.
	WrongGeneration
	// UnknownFlow: the flow was deleted.
	UnknownFlow
	// UnknownPartition: no such partition, or it is in another slot.
	UnknownPartition
	// Behind: the watermark lies below the one committed in this generation.
	// A repeated or delayed Commit; nothing of it was applied.
	Behind
	// BadRanges: the watermark or the ranges are not what they should be.
	BadRanges
)

var reasonNames = [...]string{"", "stale epoch", "not owner", "wrong generation", "unknown flow", "unknown partition", "behind", "bad ranges"}

func (r Reason) String() string {
	if int(r) < len(reasonNames) && r > 0 {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason(%d)", uint8(r))
}

// RefusedItem is an item of a Commit that was not applied, nor its failures.
type RefusedItem struct {
	// Item is the index in the command.
	Item   int
	Reason Reason
}

// CommitResult answers a Commit.
type CommitResult struct {
	Refused []RefusedItem
	// Filed counts the failures that are new in the queue.
	Filed int
	// Queues are the failure queues of all flows with an applied item, in the
	// order of their first item, as they are after this command.
	Queues []QueueStats
}

type commitFlow struct {
	id    FlowID
	head  *Flow // nil: unknown
	queue queueCounters
	filed bool
	named bool
}

func (c *Commit) apply(t *tx) (any, error) {
	type key struct {
		flow FlowID
		part uint32
	}
	items := make(map[key]int, len(c.Items))
	for i := range c.Items {
		k := key{c.Items[i].Flow, c.Items[i].Part}
		if _, twice := items[k]; twice {
			return nil, refuse(Invalid, "commit: partition %d of flow %d is named twice", k.part, k.flow)
		}
		items[k] = i
	}
	for i := range c.Failures {
		f := &c.Failures[i]
		if _, ok := items[key{f.Flow, f.Part}]; !ok {
			return nil, refuse(Invalid, "commit: a failure of partition %d of flow %d has no item", f.Part, f.Flow)
		}
	}

	res := &CommitResult{}
	flows := make([]commitFlow, 0, 4)
	flow := func(id FlowID) *commitFlow {
		for i := range flows {
			if flows[i].id == id {
				return &flows[i]
			}
		}
		flows = append(flows, commitFlow{id: id, head: t.flow(id), queue: t.queue(id)})
		return &flows[len(flows)-1]
	}
	refused := make([]bool, len(c.Items))
	for i := range c.Items {
		if reason := c.applyItem(t, &c.Items[i], flow(c.Items[i].Flow)); reason != 0 {
			refused[i] = true
			res.Refused = append(res.Refused, RefusedItem{i, reason})
		} else {
			flow(c.Items[i].Flow).named = true
		}
	}
	for i := range c.Failures {
		f := &c.Failures[i]
		if refused[items[key{f.Flow, f.Part}]] {
			continue
		}
		if cf := flow(f.Flow); fileFailure(t, cf, f) {
			cf.filed = true
			res.Filed++
		}
	}
	for i := range c.Items {
		if it := &c.Items[i]; it.Release && !refused[i] {
			s, _ := t.slot(it.Flow, it.Slot)
			s.release()
			t.set(slotKey(it.Flow, it.Slot), s.encode())
		}
	}
	for i := range flows {
		f := &flows[i]
		if f.filed {
			t.set(queueCounterKey(f.id), f.queue.encode())
		}
		if f.named {
			res.Queues = append(res.Queues, f.queue.stats(f.id))
		}
	}
	return res, nil
}

func (q queueCounters) stats(flow FlowID) QueueStats {
	return QueueStats{Flow: flow, Entries: q.entries, Bytes: q.bytes, Last: q.last}
}

func (c *Commit) applyItem(t *tx, it *CommitItem, f *commitFlow) Reason {
	switch {
	case f.head == nil:
		return UnknownFlow
	case it.Part >= f.head.Parts || it.Slot != uint16(it.Part%uint32(f.head.Slots)):
		return UnknownPartition
	}
	slot, ok := t.slot(it.Flow, it.Slot)
	switch {
	case !ok:
		return UnknownPartition
	case slot.Epoch != it.Epoch:
		return StaleEpoch
	case slot.Owner != c.Node || slot.Incarnation != c.Incarnation:
		return NotOwner
	case it.Generation != f.head.Generation:
		return WrongGeneration
	case !validRanges(it.Low, it.Ranges):
		return BadRanges
	}
	key := watermarkKey(it.Flow, it.Part)
	if v, ok := t.get(key); ok {
		old, err := decodeWatermark(it.Part, v)
		if err != nil {
			t.fault(err)
			return BadRanges
		}
		if old.Generation == it.Generation && it.Low < old.Low {
			return Behind
		}
	}
	w := Watermark{Low: it.Low, Ranges: it.Ranges, Generation: it.Generation, Deploy: it.Deploy}
	t.set(key, w.append(make([]byte, 0, 24+4*len(it.Ranges))))
	return 0
}

func validRanges(low int64, ranges []Range) bool {
	if low < 0 {
		return false
	}
	for _, r := range ranges {
		if r.From < low || r.To <= r.From {
			return false
		}
		low = r.To
	}
	return true
}

// fileFailure puts a failure in the queue, unless it is there.
func fileFailure(t *tx, f *commitFlow, c *CommitFailure) bool {
	in := &c.Entry.Input
	idx := failureIdxKey(f.id, c.Part, in.Offset, in.Path)
	if _, filed := t.get(idx); filed {
		return false
	}
	f.queue.last++
	value := EncodeEntry(c.Entry)
	key := failureKey(f.id, f.queue.last)
	h := hashKV(key, value)
	t.hash += h
	t.fault(t.b.Set(key, value, nil))
	t.set(idx, failureIdx{seq: f.queue.last, size: uint64(len(value)), hash: h}.encode())
	f.queue.entries++
	f.queue.bytes += uint64(len(value))
	return true
}

// purgeQueue removes a flow's failure queue without reading its entries: the
// index knows their hashes.
func purgeQueue(t *tx, flow FlowID) {
	prefix := flowPrefix(keyFailureIdx, flow)
	var keys [][]byte
	t.scan(prefix, func(key, value []byte) bool {
		f, err := decodeFailureIdx(value)
		if err != nil {
			t.fault(err)
			return false
		}
		t.hash -= hashKV(key, value) + f.hash
		keys = append(keys, binary.BigEndian.AppendUint64(flowPrefix(keyFailure, flow), f.seq))
		return true
	})
	if t.err != nil || len(keys) == 0 {
		return
	}
	entries := flowPrefix(keyFailure, flow)
	t.fault(t.b.DeleteRange(prefix, prefixEnd(prefix), nil))
	t.fault(t.b.DeleteRange(entries, prefixEnd(entries), nil))
	// What the cache holds of them is gone; the batch answers from now on.
	clear(t.cache)
}
