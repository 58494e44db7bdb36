package pipeline

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
)

// input is what waits before a node.
type input struct {
	recs  []record.Record
	slots []uint64
	// pass is the one that fed it; several says that there were others, so that
	// the records' order is to be made good.
	pass    int
	several bool
	// lent: recs and slots are not the lane's own memory.
	lent bool
}

func (in *input) add(pass int, r record.Record, slot uint64) {
	in.fedBy(pass)
	in.recs, in.slots = append(in.recs, r), append(in.slots, slot)
}

func (in *input) fedBy(pass int) {
	in.several = in.several || len(in.recs) > 0 && in.pass != pass
	in.pass = pass
}

// mark is a place in the order of a lane's emissions: slots follow the source,
// paths the emissions of one record.
type mark struct {
	slot uint64
	path record.Path
}

func (in *input) mark(i int) mark { return mark{in.slots[i], in.recs[i].Path} }

func (m mark) compare(o mark) int {
	switch {
	case m.slot < o.slot:
		return -1
	case m.slot > o.slot:
		return 1
	}
	return strings.Compare(string(m.path), string(o.path))
}

// sort puts records that came by several ways into their order.
func (in *input) sort() {
	at := make([]int, len(in.recs))
	for i := range at {
		at[i] = i
	}
	slices.SortStableFunc(at, func(a, b int) int { return in.mark(a).compare(in.mark(b)) })
	recs, ss := make([]record.Record, len(at)), make([]uint64, len(at))
	for to, i := range at {
		recs[to], ss[to] = in.recs[i], in.slots[i]
	}
	in.recs, in.slots, in.several = recs, ss, false
}

// split takes out what lies before a mark and leaves the rest.
func (in *input) split(before mark) input {
	out := input{pass: in.pass, several: in.several}
	rest := input{pass: in.pass, several: in.several}
	for i := range in.recs {
		to := &rest
		if in.mark(i).compare(before) < 0 {
			to = &out
		}
		to.recs, to.slots = append(to.recs, in.recs[i]), append(to.slots, in.slots[i])
	}
	*in = rest
	return out
}

// begin passes records that were taken in on from the first node. The slices
// are the caller's again afterwards.
func (l *lane) begin(ctx context.Context, recs []record.Record, slots []uint64) error {
	l.bufs[0].in = input{recs: recs, slots: slots, lent: true}
	return l.forward(ctx, nil)
}

// forward passes on what waits before nodes, the first node first: all of it,
// or what lies before a mark.
func (l *lane) forward(ctx context.Context, before *mark) error {
	for {
		k := l.firstWaiting(before)
		if k < 0 {
			return nil
		}
		in := &l.bufs[k].in
		var now input
		if before != nil {
			now = in.split(*before)
		} else {
			now, *in = *in, input{}
		}
		if now.several {
			now.sort()
		}
		if err := l.process(ctx, k, now); err != nil {
			return err
		}
	}
}

// firstWaiting is the first node before which something waits that lies before
// a mark, or -1.
func (l *lane) firstWaiting(before *mark) int {
	for k := range l.course.Nodes {
		in := &l.bufs[k].in
		if before == nil && len(in.recs) > 0 {
			return k
		}
		for i := 0; before != nil && i < len(in.recs); i++ {
			if in.mark(i).compare(*before) < 0 {
				return k
			}
		}
	}
	return -1
}

// process lets a node work on records.
func (l *lane) process(ctx context.Context, k int, in input) error {
	c := l.course
	if n := &c.Nodes[k]; n.Kind == KindDeliver {
		if in.lent { // a shipment keeps its records
			recs, slots := l.shipping(len(in.recs))
			in.recs, in.slots = append(recs, in.recs...), append(slots, in.slots...)
		}
		return l.deliver(ctx, k, in.recs, in.slots)
	}
	res := &l.bufs[k].res
	res.Reset()
	if err := l.call(ctx, k, nil, in.recs, res); err != nil {
		return err
	}
	err := l.answer(ctx, k, in.recs, in.slots, res, attempt{since: l.flow.cfg.Now()})
	if buf := &l.bufs[k]; !in.lent && buf.in.recs == nil {
		buf.in.recs, buf.in.slots = in.recs[:0], in.slots[:0]
	}
	return err
}

// call runs the stage of a node, or another one in its place.
func (l *lane) call(ctx context.Context, k int, via Stage, recs []record.Record, out *record.Results) error {
	start := time.Now()
	b := record.Batch{Partition: l.cfg.Partition, Records: recs, Now: l.flow.cfg.Now().UnixMilli()}
	if via == nil {
		via = l.course.Nodes[k].Stage
	}
	err := via.Process(ctx, &b, out)
	l.course.stats[k].call(len(recs), time.Since(start))
	return err
}

// attempt is what is known of earlier calls for the same records.
type attempt struct {
	since time.Time // of the first
	via   Stage     // that worked in place of the node's, or nil
}

// answer carries out what the stage of a node answered to recs.
func (l *lane) answer(ctx context.Context, k int, recs []record.Record, slots []uint64, res *record.Results, a attempt) error {
	c := l.course
	n, st := &c.Nodes[k], c.stats[k]
	l.account(k, slots, res)
	l.inform()
	if dropped := len(res.Drops); dropped > 0 {
		l.flow.stats.Dropped.Add(int64(dropped))
		st.Drops.Add(int64(dropped))
	}
	var again []record.Failure
	for _, f := range res.Failures {
		if f.Err.Class.Transient() {
			again = append(again, f)
			continue
		}
		st.Failures.Add(1)
		if err := l.fail(c, &n.StageInfo, &recs[f.In], slots[f.In], f, nil); err != nil {
			return err
		}
	}
	if err := l.pass(k, res.Emits, slots); err != nil || len(again) == 0 {
		return err
	}
	// What lies before a record that waits goes on; what lies behind waits with
	// it.
	slices.SortFunc(again, func(a, b record.Failure) int { return int(a.In - b.In) })
	for _, f := range again {
		rec, slot := recs[f.In], slots[f.In]
		if l.flow.cfg.Order == OrderNone || slot&flightSlot != 0 {
			if err := l.deferRecord(k, rec, slot, f, a); err != nil {
				return err
			}
			continue
		}
		if err := l.forward(ctx, &mark{slot, rec.Path}); err != nil {
			return err
		}
		if err := l.insist(ctx, c, k, rec, slot, f, a); err != nil {
			return err
		}
	}
	return nil
}

// account notes the emissions that a node made of each record. Of a unit all
// are made of one, which the dropped ones follow.
func (l *lane) account(k int, slots []uint64, res *record.Results) {
	buf := &l.bufs[k]
	buf.seen = append(buf.seen[:0], make([]bool, len(slots))...)
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range res.Emits {
		in := res.Emits[i].In
		if buf.seen[in] {
			l.hold(slots[in])
		}
		buf.seen[in] = true // the first emission takes the record's own place
	}
	id := l.course.Nodes[k].ID
	for _, in := range res.Drops {
		if res.Unit && len(res.Emits) > 0 && l.follow(slots[res.Emits[0].In], slots[in], id) {
			continue
		}
		l.drop(slots[in], id)
	}
	if len(res.Drops) > 0 {
		l.room()
	}
}

// pass leaves emissions before the nodes that follow.
func (l *lane) pass(k int, emits []record.Emit, slots []uint64) error {
	if len(emits) == 0 {
		return nil
	}
	n := &l.course.Nodes[k]
	l.passes++
	if n.Kind == KindStage && n.Next != Drop {
		in := &l.bufs[n.Next].in
		in.fedBy(l.passes)
		if in.recs == nil && l.course.Nodes[n.Next].Kind == KindDeliver {
			in.recs, in.slots = l.shipping(len(emits))
		}
		in.recs, in.slots = slices.Grow(in.recs, len(emits)), slices.Grow(in.slots, len(emits))
		for i := range emits {
			in.recs = append(in.recs, emits[i].Record)
			in.recs[len(in.recs)-1].Attempt = 1 // every node counts its own
			in.slots = append(in.slots, slots[emits[i].In])
		}
		return nil
	}
	for i := range emits {
		e := &emits[i]
		to := n.Next
		if n.Kind == KindBranch {
			if int(e.Output) >= len(n.Cases) {
				return record.Errorf(record.Internal, "branch %s: record %s goes into case %d of %d", n.ID, e.Record.ID(), e.Output, len(n.Cases))
			}
			to = n.Cases[e.Output]
		}
		if to == Drop {
			l.dropAt(l.course, k, slots[e.In])
			continue
		}
		e.Record.Attempt = 1
		l.bufs[to].in.add(l.passes, e.Record, slots[e.In])
	}
	return nil
}

// dropAt drops an emission that a node gives to nobody, or whose way ended
// behind a node that is no longer there.
func (l *lane) dropAt(c *course, k int, slot uint64) {
	l.flow.stats.Dropped.Add(1)
	c.stats[k].Drops.Add(1)
	l.mu.Lock()
	l.drop(slot, c.Nodes[k].ID)
	l.room()
	l.mu.Unlock()
	l.inform()
}

// move takes what waits before nodes of an older course before those of the
// present one.
func (l *lane) move(old *course) {
	was := make([]input, len(old.Nodes))
	for k := range was {
		was[k], l.bufs[k].in = l.bufs[k].in, input{}
	}
	for k := range was {
		if len(was[k].recs) == 0 {
			continue
		}
		to := l.course.follow(old, k)
		for i := range was[k].recs {
			if to == Drop {
				l.dropAt(old, k, was[k].slots[i])
				continue
			}
			in := &l.bufs[to].in
			in.add(0, was[k].recs[i], was[k].slots[i])
			in.several = true
		}
	}
	kept := l.later[:0]
	for _, it := range l.later {
		id := old.Nodes[it.node].ID
		to := l.course.follow(old, it.node)
		if to == Drop {
			l.dropAt(old, it.node, it.slot)
			continue
		}
		if l.course.Nodes[to].ID != id { // its stage is gone: what follows is not repeated
			it.via, it.rec.Attempt = nil, 0
		}
		it.node = to
		kept = append(kept, it)
	}
	clear(l.later[len(kept):])
	l.later = kept
}
