package pipeline

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/millrace-io/millrace/runtime/record"
)

// shipment is what one call of an outlet's Deliver is answered with.
type shipment struct {
	lane   *lane
	course *course // that made the records
	node   int
	recs   []record.Record
	slots  []uint64
	open   int // guarded by the lane's mu; missing answers, and one more while Deliver runs
}

// deliver hands records to the delivery of a node; the slices become the
// shipment's. It returns errHalt when the delivery has meanwhile halted the
// lane.
func (l *lane) deliver(ctx context.Context, k int, recs []record.Record, slots []uint64) error {
	s := &shipment{lane: l, course: l.course, node: k, recs: recs, slots: slots}
	if l.known != nil {
		s.skipKnown()
	}
	if len(s.recs) == 0 {
		return nil
	}
	l.mu.Lock()
	l.out += len(s.recs)
	s.open = len(s.recs) + 1
	l.mu.Unlock()
	start := time.Now()
	switch out := l.outlets[s.course.Nodes[k].Delivery].(type) {
	case plainOutlet:
		out.sink.Deliver(ctx, s.recs, s.plainDone)
	default:
		out.Deliver(ctx, s.items(), s.done)
	}
	s.course.stats[k].call(0, time.Since(start))
	l.mu.Lock()
	defer l.mu.Unlock()
	s.leave()
	if l.halted {
		return errHalt
	}
	return nil
}

// skipKnown takes out what is filed or kept already.
func (s *shipment) skipKnown() {
	l := s.lane
	kept := 0
	l.mu.Lock()
	for i := range s.recs {
		if l.isKnown(&s.recs[i], s.slots[i]) {
			l.tally.Known++
			l.release(s.slots[i], record.Known)
			continue
		}
		s.recs[kept], s.slots[kept] = s.recs[i], s.slots[i]
		kept++
	}
	if kept < len(s.recs) {
		s.recs, s.slots = s.recs[:kept], s.slots[:kept]
		l.room()
	}
	l.mu.Unlock()
	l.inform()
}

// isKnown reports whether there was an entry, when the lane was opened, of the
// emission or of one that it came from; the emissions of kept entries have none.
func (l *lane) isKnown(r *record.Record, slot uint64) bool {
	if len(l.known) == 0 || slot&flightSlot != 0 {
		return false
	}
	for n := 0; n <= len(r.Path); n += 2 { // a level
		if l.known[record.EmissionKey{Offset: r.Offset, Path: r.Path[:n]}] {
			return true
		}
	}
	return false
}

// items are the shipment's records for an outlet that keeps.
func (s *shipment) items() []record.Item {
	items := make([]record.Item, len(s.recs))
	l := s.lane
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range s.recs {
		items[i].Record = s.recs[i]
		items[i].Retry = s.retry(i)
	}
	return items
}

// retry is the entry of a record that has come back to this very delivery;
// the lane's mu is held.
func (s *shipment) retry(i int) *record.Retry {
	if s.slots[i]&flightSlot == 0 {
		return nil
	}
	f := s.lane.flights[s.slots[i]]
	if f == nil || f.entry.Stage != s.course.Nodes[s.node].ID {
		return nil
	}
	return f.entry
}

// plainDone is a sink's answer for one record.
func (s *shipment) plainDone(i int, err error) {
	if err == nil {
		s.done(i, record.Outcome{})
		return
	}
	s.done(i, record.Outcome{Err: err, Attempts: s.recs[i].Attempt})
}

// done is the delivery's answer for one record.
func (s *shipment) done(i int, o record.Outcome) {
	l, st := s.lane, s.course.stats[s.node]
	st.Records.Add(1)
	switch {
	case o.Keep != nil:
		l.flow.stats.Kept.Add(1)
		s.keep(i, o.Keep)
	case o.Err == nil:
		l.flow.stats.Emitted.Add(1)
	case !errors.Is(o.Err, context.Canceled):
		st.Failures.Add(1)
		_ = l.fail(s.course, &s.course.Nodes[s.node].StageInfo, &s.recs[i], s.slots[i], record.Failure{Err: record.AsError(o.Err)}, &o)
	}
	l.mu.Lock()
	if o.Keep == nil && o.Err == nil && !l.fenced {
		l.tally.Delivered++
		l.release(s.slots[i], record.Delivered)
		l.room()
	}
	l.answered(1)
	s.leave()
	l.mu.Unlock()
	l.inform()
}

// leave takes note that an answer came, or that Deliver has returned. After
// the last of them nobody looks at the shipment's memory any more: it is the
// next one's. The lane's mu is held.
func (s *shipment) leave() {
	if s.open--; s.open > 0 {
		return
	}
	if l := s.lane; cap(s.recs) <= maxCall {
		clear(s.recs) // what lies there keeps nobody's bytes
		if len(l.spares) == maxSpares {
			l.spares = slices.Delete(l.spares, 0, 1)
		}
		l.spares = append(l.spares, spare{s.recs[:0], s.slots[:0]})
	}
	s.recs, s.slots = nil, nil
}

// maxSpares is how many shipments' memory a lane keeps at most: what a window
// of the default size sends in full calls, and as much again.
const maxSpares = 8

// spare is memory for a shipment.
type spare struct {
	recs  []record.Record
	slots []uint64
}

// shipping gets memory for n records that go to a delivery.
func (l *lane) shipping(n int) ([]record.Record, []uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := len(l.spares) - 1; i >= 0; i-- {
		if s := l.spares[i]; n <= cap(s.recs) && n <= cap(s.slots) {
			l.spares = slices.Delete(l.spares, i, i+1)
			return s.recs, s.slots
		}
	}
	n = (n + 31) &^ 31 // calls differ a little in size; the next one shall fit
	return make([]record.Record, 0, n), make([]uint64, 0, n)
}

// keep leaves a record to the state.
func (s *shipment) keep(i int, k *record.Retry) {
	l := s.lane
	k.Stage, k.Input, k.Generation = s.course.Nodes[s.node].ID, s.recs[i], l.flow.cfg.Generation
	if k.At == 0 {
		k.At = l.flow.cfg.Now().UnixMilli()
	}
	slot, key := s.slots[i], s.recs[i].EmissionKey()
	l.mu.Lock()
	if l.fenced {
		l.mu.Unlock()
		return
	}
	fresh := s.retry(i) == nil
	if f := l.flights[slot]; f != nil { // of the reading that the entry is of
		k.Requeues, k.Generation = f.entry.Requeues, f.entry.Generation
	}
	l.own(slot, func(p *parcel) {
		p.keep(k)
		if old, ok := l.held[key]; ok && fresh { // another entry takes its place
			p.forget = append(p.forget, old)
			delete(l.held, key)
		}
	})
	l.setBusy(key)
	l.gather(k.Group, 1)
	if fresh && k.Hold != 0 {
		l.setHeld(key, heldRef{s.course.Nodes[s.node].Delivery, k.Hold})
	}
	l.release(slot, record.Kept)
	l.room()
	urge := l.urgent()
	l.mu.Unlock()
	if urge {
		l.flow.cfg.Urge()
	}
}

// answered takes note that records handed out have been answered; mu is held.
func (l *lane) answered(n int) {
	if l.out -= n; l.out == 0 {
		for _, c := range l.idlers {
			close(c)
		}
		l.idlers = nil
	}
}

// hold adds an outstanding emission to a slot; mu is held.
func (l *lane) hold(slot uint64) {
	l.tally.Split++
	if slot&flightSlot != 0 {
		l.flights[slot].pending++
		return
	}
	l.win.hold(slot, 1)
}

// release takes an outstanding emission from a slot; mu is held.
func (l *lane) release(slot uint64, what record.Settlement) {
	if slot&flightSlot != 0 {
		if !l.releaseFlight(slot) {
			return
		}
	} else {
		if l.acker != nil {
			l.win.note(slot, what)
		}
		if !l.win.release(slot) {
			return
		}
		if l.acker != nil {
			l.notice(slot)
		}
	}
	l.dirty = true
	if next := l.behind[slot]; next != nil {
		delete(l.behind, slot)
		for _, f := range next {
			l.drop(f.slot, f.stage)
		}
	}
}

// notice leaves word for the source that a slot is settled; mu is held.
func (l *lane) notice(slot uint64) {
	n := notice{}
	n.offset, n.what = l.win.noted(slot)
	if n.what&(record.Filed|record.Kept) != 0 {
		n.after = l.queued
	}
	l.notices = append(l.notices, n)
}

// drop releases an emission that a stage dropped, or for a reason; mu is held.
func (l *lane) drop(slot uint64, by string) {
	if l.tally.Dropped == nil {
		l.tally.Dropped = map[string]int64{}
	}
	l.tally.Dropped[by]++
	what := record.Dropped
	if by == DroppedAside {
		what = record.Aside
	}
	l.release(slot, what)
}

// follow makes an emission of slot be dropped by a stage once leader is
// settled. It reports false for the leader itself. mu is held.
func (l *lane) follow(leader, slot uint64, stage string) bool {
	if slot == leader {
		return false
	}
	if l.behind == nil {
		l.behind = map[uint64][]follower{}
	}
	l.behind[leader] = append(l.behind[leader], follower{slot, stage})
	return true
}

// own leaves an entry of a slot's emission for a commit: at once, or together
// with all else that comes of a kept entry. mu is held.
func (l *lane) own(slot uint64, add func(*parcel)) {
	if f := l.flights[slot]; f != nil {
		add(&f.parcel)
		return
	}
	var p parcel
	add(&p)
	l.enqueue(p)
}

// room wakes the lane when records were settled and others may come in; mu is
// held.
func (l *lane) room() {
	if l.win.records <= l.flow.cfg.InFlight-l.flow.callSize() {
		signal(l.wake)
	}
}

// fail finds the owner of a record that cannot go on from a node of a course.
// It returns errHalt when that is the flow itself. Any goroutine may call it.
// f's In is not looked at; o is a delivery's outcome, nil for a stage's.
func (l *lane) fail(c *course, at *StageInfo, rec *record.Record, slot uint64, f record.Failure, o *record.Outcome) error {
	err := f.Err
	switch {
	case err.Class == record.Fenced:
		l.fence()
		return errHalt
	case err.Class.PausesFlow() || at.Otherwise == ToPause:
		l.halt("stage " + at.ID + ", record " + rec.ID() + ": " + err.Error())
		return errHalt
	}
	return l.giveUp(c, at, rec, slot, f, o)
}

// giveUp leaves a record to the owner that `otherwise` names, after it has been
// told of.
func (l *lane) giveUp(c *course, at *StageInfo, rec *record.Record, slot uint64, f record.Failure, o *record.Outcome) error {
	l.mu.Lock()
	if l.fenced {
		l.mu.Unlock()
		return errHalt
	}
	if l.isKnown(rec, slot) {
		l.tally.Known++
		l.release(slot, record.Known)
		l.room()
		l.mu.Unlock()
		l.inform()
		return nil
	}
	var entry *record.Retry
	if fl := l.flights[slot]; fl != nil {
		entry = fl.entry
	}
	l.mu.Unlock()
	l.flow.stats.Failed.Add(1)
	if entry != nil && entry.Via != "" && entry.Stage == at.ID {
		via := *at
		via.Digest = entry.Via
		at = &via
	}
	if at.Otherwise == ToNowhere && l.flow.cfg.Tell == nil {
		l.settleAs(slot, DroppedOtherwise)
		return nil
	}
	e := l.entry(c, at, rec, f)
	if entry != nil {
		e.Requeues, e.History, e.Generation = entry.Requeues, entry.History, entry.Generation
	}
	if o != nil {
		e.Attempts, e.History, e.Exchange = max(e.Attempts, o.Attempts), o.History, o.Exchange
	}
	r := *rec
	l.tell(e, func() {
		switch at.Otherwise {
		case ToNowhere:
			l.settleAs(slot, DroppedOtherwise)
		case ToTopic:
			l.putAside(aside{at, asideRecord(&r, e), slot})
		default:
			l.file(slot, e)
		}
	})
	return nil
}

// file leaves an entry to the failure queue and releases its emission.
func (l *lane) file(slot uint64, e *record.Entry) {
	l.mu.Lock()
	if l.fenced {
		l.mu.Unlock()
		return
	}
	l.own(slot, func(p *parcel) { p.file(e) })
	l.release(slot, record.Filed)
	l.room()
	urge := l.urgent()
	l.mu.Unlock()
	l.inform()
	if urge {
		l.flow.cfg.Urge()
	}
}

// settleAs releases an emission that was given up for a reason.
func (l *lane) settleAs(slot uint64, reason string) {
	l.mu.Lock()
	if !l.fenced {
		l.drop(slot, reason)
		l.room()
	}
	l.mu.Unlock()
	l.inform()
}

func (l *lane) entry(c *course, at *StageInfo, rec *record.Record, f record.Failure) *record.Entry {
	cfg, err := &l.flow.cfg, f.Err
	e := &record.Entry{
		Flow: cfg.Flow, FlowUID: cfg.UID, Revision: cmp.Or(c.Revision, cfg.Revision), Generation: cfg.Generation,
		Stage: at.ID, Plugin: at.Plugin, Digest: at.Digest, Class: err.Class, Code: err.Code, Message: err.Message,
		Attempts: max(rec.Attempt, 1), Time: cfg.Now().UnixMilli(), Input: *rec, Replay: f.Replay, NoReplay: f.NoReplay,
		Touched: c.touched(at.ID), Call: bounded(err.Call, cfg.KeepInput),
	}
	if e.Message == "" && err.Err != nil {
		e.Message = err.Err.Error()
	}
	if len(rec.Value) > cfg.KeepInput {
		e.InputHash, e.InputOmitted, e.Input.Value = xxhash.Sum64(rec.Value), true, nil
	}
	if rec.Size()-len(rec.Value) > cfg.KeepInput {
		e.InputHash, e.InputOmitted = xxhash.Sum64(rec.Value), true
		e.Input.Key, e.Input.Headers, e.Input.Value = nil, nil, nil
	}
	return e
}

// bounded is a call with an input that an entry keeps; nil for nil.
func bounded(c *record.Call, keep int) *record.Call {
	if c == nil || c.Input.Size() <= min(keep, record.MaxCallInput) {
		return c
	}
	out := *c
	out.InputHash, out.InputOmitted = xxhash.Sum64(c.Input.Value), true
	out.Input.Value, out.Input.Headers = nil, nil
	return &out
}

// entrySize is about what e brings to a commit, what its guest and its partner
// said included.
func entrySize(e *record.Entry) int {
	n := e.Input.Size() + len(e.Message) + len(e.NoReplay) + len(e.Told) + 256
	for _, digest := range e.Touched {
		n += len(digest)
	}
	for i := range e.History {
		n += len(e.History[i].Message) + 24
	}
	if x := e.Exchange; x != nil {
		n += len(x.URL) + len(x.RequestBody) + len(x.ResponseBody) + 64
		for _, hs := range [][]record.Header{x.RequestHeaders, x.ResponseHeaders} {
			for i := range hs {
				n += len(hs[i].Key) + len(hs[i].Value) + 4
			}
		}
	}
	return n + e.Replay.Size() + e.Call.Size()
}

// halt stops the lane; what is under way may still settle. With a reason the
// flow pauses.
func (l *lane) halt(reason string) {
	l.mu.Lock()
	l.halted = true
	l.mu.Unlock()
	l.kick()
	signal(l.space)
	if reason != "" {
		l.flow.pause(reason)
	}
}

// fence stops the lane because the partition has another owner: everything in
// memory is void.
func (l *lane) fence() {
	l.mu.Lock()
	l.fenced = true
	ended := l.ended
	l.mu.Unlock()
	l.halt("")
	l.flow.forget(l)
	if ended {
		l.closeOutlets()
	}
}

// idle is closed when everything that was handed out has been answered.
func (l *lane) idle() <-chan struct{} {
	c := make(chan struct{})
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.out == 0 {
		close(c)
	} else {
		l.idlers = append(l.idlers, c)
	}
	return c
}

func (l *lane) setProblem(p string) {
	l.mu.Lock()
	l.problem = p
	l.mu.Unlock()
}

func (l *lane) status() LaneStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	return LaneStatus{Ownership: l.cfg.Ownership, Low: l.win.ledger.Low(), Next: l.win.ledger.Next(), InFlight: l.win.records, UnderWay: len(l.flights), Paused: l.paused, Problem: l.problem}
}
