package state

import "fmt"

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
	// Behind: the watermark lies below the one committed in this generation,
	// or the life or its tally is an earlier one. A delayed Commit; nothing of
	// it was applied.
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

// RefusedItem is an item of a Commit that was not applied, nor what belongs to
// it.
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
	// Queues are the sizes of what waits of all flows with an applied item, in
	// the order of their first item, as they are after this command.
	Queues []QueueStats
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
	named := func(what string, flow FlowID, part uint32) error {
		if _, ok := items[key{flow, part}]; !ok {
			return refuse(Invalid, "commit: %s of partition %d of flow %d has no item", what, part, flow)
		}
		return nil
	}
	for i := range c.Failures {
		if err := named("a failure", c.Failures[i].Flow, c.Failures[i].Part); err != nil {
			return nil, err
		}
	}
	for i := range c.Keeps {
		if err := named("a kept entry", c.Keeps[i].Flow, c.Keeps[i].Part); err != nil {
			return nil, err
		}
	}
	for i := range c.Gone {
		if err := named("an entry that is done", c.Gone[i].Flow, c.Gone[i].Part); err != nil {
			return nil, err
		}
	}

	res := &CommitResult{}
	flows := make([]*flowTx, 0, 4)
	flow := func(id FlowID) *flowTx {
		for _, f := range flows {
			if f.id == id {
				return f
			}
		}
		flows = append(flows, newFlowTx(t, id, c.At))
		return flows[len(flows)-1]
	}
	carried := c.carried(func(id FlowID, n uint32) int { return items[key{id, n}] })
	parts := make([]*partTx, len(c.Items)) // nil: refused
	part := func(id FlowID, n uint32) *partTx { return parts[items[key{id, n}]] }
	for i := range c.Items {
		it := &c.Items[i]
		f := flow(it.Flow)
		p, reason := c.applyItem(t, it, carried[i], f)
		if reason != 0 {
			res.Refused = append(res.Refused, RefusedItem{i, reason})
			continue
		}
		f.named, parts[i] = true, p
	}
	for i := range c.Failures {
		f := &c.Failures[i]
		if p := part(f.Flow, f.Part); p != nil && next(&p.over.Failures) && p.file(f.Entry) {
			res.Filed++
			if c.tallyless {
				p.w.base.Read++
			}
		}
	}
	for i := range c.Gone {
		g := &c.Gone[i]
		if p := part(g.Flow, g.Part); p != nil && next(&p.over.Gone) {
			p.remove(g.Offset, g.Path)
		}
	}
	for i := range c.Keeps {
		k := &c.Keeps[i]
		if p := part(k.Flow, k.Part); p != nil && next(&p.over.Keeps) {
			p.keep(k.Entry, k.raw)
		}
	}
	for i := range c.Items {
		it := &c.Items[i]
		if parts[i] == nil {
			continue
		}
		if it.Counted {
			parts[i].balance(carried[i], it.Grown)
		}
		if len(it.Requests) > 0 {
			parts[i].rememberRequests(it.Requests)
		}
		if it.Release {
			s, _ := t.slot(it.Flow, it.Slot)
			s.release()
			t.set(slotKey(it.Flow, it.Slot), s.encode())
		}
	}
	for _, f := range flows {
		f.finish()
		if f.named {
			res.Queues = append(res.Queues, f.queue.stats(f.id))
		}
	}
	return res, nil
}

// carried is what a life has carried with this Commit, by item.
func (c *Commit) carried(item func(FlowID, uint32) int) []EntryCount {
	out := make([]EntryCount, len(c.Items))
	for i := range c.Items {
		out[i] = c.Items[i].Carried
	}
	for i := range c.Failures {
		out[item(c.Failures[i].Flow, c.Failures[i].Part)].Failures++
	}
	for i := range c.Keeps {
		out[item(c.Keeps[i].Flow, c.Keeps[i].Part)].Keeps++
	}
	for i := range c.Gone {
		out[item(c.Gone[i].Flow, c.Gone[i].Part)].Gone++
	}
	return out
}

// next reports whether the next entry is to be applied, over being how many
// were applied by an earlier Commit.
func next(over *uint64) bool {
	if *over == 0 {
		return true
	}
	*over--
	return false
}

// applyItem sets the watermark and the tally, to be written when all is done.
func (c *Commit) applyItem(t *tx, it *CommitItem, carried EntryCount, f *flowTx) (*partTx, Reason) {
	switch {
	case f.head == nil:
		return nil, UnknownFlow
	case it.Part >= f.head.Parts || it.Slot != uint16(it.Part%uint32(f.head.Slots)):
		return nil, UnknownPartition
	}
	slot, ok := t.slot(it.Flow, it.Slot)
	switch {
	case !ok:
		return nil, UnknownPartition
	case slot.Epoch != it.Epoch:
		return nil, StaleEpoch
	case slot.Owner != c.Node || slot.Incarnation != c.Incarnation:
		return nil, NotOwner
	case it.Generation != f.head.Generation:
		return nil, WrongGeneration
	case !validRanges(it.Low, it.Ranges):
		return nil, BadRanges
	}
	p := f.part(it.Part)
	w := &p.w
	if w.Generation == it.Generation && it.Low < w.Low {
		return nil, Behind
	}
	if w.epoch == it.Epoch && (it.Life < w.number || it.Life == w.number && it.Tally.before(&w.life)) {
		return nil, Behind
	}
	if it.Counted && w.epoch == it.Epoch && w.number == it.Life && carried.before(&w.carried) {
		return nil, Behind
	}
	w.Low, w.Ranges, w.Generation, w.Deploy = it.Low, it.Ranges, it.Generation, it.Deploy
	w.enter(it.Epoch, it.Life, &it.Tally)
	p.dirty = true
	if it.Counted {
		p.counted, p.over, p.entries = true, w.carried.beyond(&it.Carried), w.entries()
	}
	return p, 0
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
