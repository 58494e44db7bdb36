package pipeline

import (
	"context"
	"slices"

	"github.com/millrace-io/millrace/runtime/record"
)

const (
	// flightSlot marks the slots of kept entries; all others are the ledger's.
	flightSlot = 1 << 63
	// maxFlights is how many kept entries may be under way in a lane, unless
	// they are of one group.
	maxFlights = 256
)

// flight is a kept entry that has come back.
type flight struct {
	entry   *record.Retry
	key     record.EmissionKey
	pending int32  // outstanding emissions
	parcel  parcel // what has come of it so far
}

// arrival is a flight that the lane has yet to look at.
type arrival struct {
	slot uint64
	via  Stage
}

// Inject brings kept entries back to their lane, each to the stage or delivery
// that it names, in their order, and in one call where they follow each other.
// It returns how many were taken. Passed over are an entry that is under way or
// about to be committed, the others of a group of which one is about to be, and
// one whose Via is not in via; and all once 256 of the partition or its
// window's bytes are under way, but for the rest of a group of which one was
// taken: then the lane is full.
//
// passed, if not nil, gets the Hold of whatever is passed over, and what has
// one of them is passed over too: it must not go before the other. Who injects
// the entries of a partition page by page gives the same one to all pages, and
// none after the lane was full.
//
// Between reading the entries from the state and Inject there must be no Ack:
// what it acknowledges as gone or as kept again would be tried once more.
//
// via has, by Retry.Via, the stages that work in place of the flow's; they are
// used as long as LaneStatus.UnderWay is not 0. What becomes of an entry is
// reported as one: see Progress.
func (f *Flow) Inject(p record.Partition, entries []*record.Retry, via map[string]Stage, passed map[uint64]bool) (taken int, full bool) {
	f.mu.Lock()
	l, running := f.lanes[p], f.ctx != nil && !f.stopped
	f.mu.Unlock()
	if l == nil || !running {
		return 0, true
	}
	return l.inject(entries, via, passed)
}

// Behind says that more kept entries of a partition are due than its lane takes:
// it takes no new records in until that is over. Otherwise every record of their
// keys would be kept too, and what is kept would never become less.
func (f *Flow) Behind(p record.Partition, behind bool) {
	f.mu.Lock()
	l := f.lanes[p]
	f.mu.Unlock()
	if l == nil {
		return
	}
	l.mu.Lock()
	changed := l.backlog != behind
	l.backlog = behind
	l.mu.Unlock()
	if changed && !behind {
		l.kick()
	}
}

func (l *lane) inject(entries []*record.Retry, via map[string]Stage, passed map[uint64]bool) (n int, full bool) {
	l.mu.Lock()
	if !l.halted && !l.fenced {
		groups := map[string]bool{}
		for _, e := range entries {
			stuffed := len(l.flights) >= maxFlights || l.flightB >= l.flow.cfg.InFlightBytes
			rest := e.Group != "" && groups[e.Group]
			if l.busy[e.Input.EmissionKey()] || l.gathering[e.Group] > 0 || e.Via != "" && via[e.Via] == nil || passed[e.Hold] || (full || stuffed) && !rest {
				full = full || stuffed && !rest
				if e.Hold != 0 && passed != nil {
					passed[e.Hold] = true
				}
				continue
			}
			groups[e.Group] = true
			l.launch(e, via[e.Via])
			n++
		}
	}
	l.mu.Unlock()
	l.flow.stats.Injected.Add(int64(n))
	if n > 0 {
		l.kick()
	}
	return n, full
}

// launch puts a kept entry under way; mu is held.
func (l *lane) launch(e *record.Retry, via Stage) {
	if l.flights == nil {
		l.flights = map[uint64]*flight{}
	}
	slot := flightSlot | l.flightN
	l.flightN++
	key := e.Input.EmissionKey()
	l.flights[slot] = &flight{entry: e, key: key, pending: 1, parcel: parcel{flight: true}}
	l.flightB += e.Size()
	l.setBusy(key)
	l.arrived = append(l.arrived, arrival{slot, via})
}

// gather counts the entries of a group that wait for a commit: it is whole once
// there are none. mu is held.
func (l *lane) gather(group string, n int) {
	if group == "" {
		return
	}
	if l.gathering == nil {
		l.gathering = map[string]int{}
	}
	if l.gathering[group] += n; l.gathering[group] == 0 {
		delete(l.gathering, group)
	}
}

func (l *lane) setBusy(k record.EmissionKey) {
	if l.busy == nil {
		l.busy = map[record.EmissionKey]bool{}
	}
	l.busy[k] = true
}

// setHeld remembers a kept entry that an outlet counts; mu is held, or the lane
// does not run yet.
func (l *lane) setHeld(k record.EmissionKey, h heldRef) {
	if l.held == nil {
		l.held = map[record.EmissionKey]heldRef{}
	}
	l.held[k] = h
}

// releaseFlight takes an outstanding emission from a kept entry. With the last
// one all that came of it goes to the next commit, and it reports true. mu is
// held.
func (l *lane) releaseFlight(slot uint64) bool {
	f := l.flights[slot]
	if f.pending--; f.pending > 0 {
		return false
	}
	delete(l.flights, slot)
	l.flightB -= f.entry.Size()
	p := &f.parcel
	if !slices.ContainsFunc(p.keeps, func(k *record.Retry) bool { return k.Input.EmissionKey() == f.key }) {
		p.drop(f.key)
		if h, ok := l.held[f.key]; ok {
			p.forget = append(p.forget, h)
			delete(l.held, f.key)
		}
	}
	l.enqueue(*p)
	return true
}

// land passes kept entries that have come back on from where they were.
func (l *lane) land(ctx context.Context) error {
	l.mu.Lock()
	arrived := l.arrived
	l.arrived = nil
	entries := make([]*record.Retry, len(arrived))
	for i, a := range arrived {
		entries[i] = l.flights[a.slot].entry
	}
	l.mu.Unlock()
	for len(arrived) > 0 {
		n := 1
		for n < len(arrived) && entries[n].Stage == entries[0].Stage && entries[n].Via == entries[0].Via {
			n++
		}
		if err := l.rejoin(ctx, entries[:n], arrived[:n]); err != nil {
			return err
		}
		arrived, entries = arrived[n:], entries[n:]
	}
	return nil
}

// rejoin passes entries of one stage on.
func (l *lane) rejoin(ctx context.Context, entries []*record.Retry, arrived []arrival) error {
	recs, slots := make([]record.Record, len(entries)), make([]uint64, len(entries))
	for i, e := range entries {
		recs[i], slots[i] = e.Input, arrived[i].slot
		recs[i].Attempt, recs[i].Redelivered = e.Attempts+1, true
		if recs[i].Trace.IsZero() {
			recs[i].Trace = l.seed.Trace(recs[i].Offset)
		}
	}
	stage, via := entries[0].Stage, arrived[0].via
	k, ok := l.course.at[stage]
	if !ok {
		info := &StageInfo{ID: stage}
		for i := range recs {
			recs[i].Attempt = entries[i].Attempts
			err := record.Errorf(record.Config, "the flow has no stage %q any more, where the record waited for another attempt; apply a flow that has it and replay the entry, or drop it", stage)
			if e := l.giveUp(l.course, info, &recs[i], slots[i], record.Failure{Err: err}, nil); e != nil {
				return e
			}
		}
		return nil
	}
	if via == nil || l.course.Nodes[k].Kind == KindDeliver {
		l.bufs[k].in = input{recs: recs, slots: slots, lent: true}
		return l.forward(ctx, nil)
	}
	var res record.Results
	if err := l.call(ctx, k, via, recs, &res); err != nil {
		return err
	}
	if err := l.answer(ctx, k, recs, slots, &res, attempt{since: l.flow.cfg.Now(), via: via}); err != nil {
		return err
	}
	return l.forward(ctx, nil)
}
