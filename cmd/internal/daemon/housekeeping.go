package daemon

import (
	"context"
	"time"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/pipeline"
)

const (
	// watchEvery is how often a flow looks whether it is to hold itself back.
	watchEvery = 200 * time.Millisecond
	// nearly is which part of a bound of the failure queue is told of.
	nearly = 0.8
)

// house is what housekeeping remembers of a flow.
type house struct {
	revision uint32
	doc      *flow.Flow
	// unaccounted is what the receipt lacked last; an error is told once.
	unaccounted int64
	// near: the queue is nearly full, which was told.
	near bool
	// scanned is how far the queue was looked through for entries that go back
	// to retry; rescan is when it is looked through again.
	scanned uint64
	rescan  time.Time
}

// keepHouse checks receipts, expires and requeues entries, and keeps account
// of what waits in the state, until ctx ends.
func (d *Daemon) keepHouse(ctx context.Context) {
	tick := time.NewTicker(d.cfg.houseEvery)
	defer tick.Stop()
	houses := map[state.FlowID]*house{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		flows, err := d.store.Flows()
		if err != nil {
			continue // the node fails with it
		}
		seen := map[state.FlowID]bool{}
		for _, f := range flows {
			seen[f.ID] = true
			h := houses[f.ID]
			if h == nil {
				h = &house{}
				houses[f.ID] = h
			}
			if err := d.keepHouseOf(ctx, f, h); err != nil && ctx.Err() == nil {
				d.log.Warn("housekeeping", "flow", f.FullName(), "err", err)
			}
		}
		for id := range houses {
			if !seen[id] {
				delete(houses, id)
				d.spills.keeps(id, 0)
			}
		}
	}
}

func (d *Daemon) keepHouseOf(ctx context.Context, f *state.Flow, h *house) error {
	if h.revision != f.Revision {
		rev, err := d.store.FlowRevision(f.ID, f.Revision)
		if err != nil || rev == nil {
			return err
		}
		if h.doc, err = decodeFlow(rev.Resolved); err != nil {
			return err
		}
		h.revision = f.Revision
	}
	if err := d.audit(f, h); err != nil {
		return err
	}
	stats, err := d.store.QueueStats(f.ID)
	if err != nil {
		return err
	}
	d.spills.keeps(f.ID, stats.KeptBytes)
	d.tellNearlyFull(f, h, stats)
	if stats.Entries == 0 {
		return nil
	}
	if err := d.expire(ctx, f, h.doc, stats); err != nil {
		return err
	}
	return d.requeue(ctx, f, h)
}

// audit holds a flow's receipt against itself: nothing may be missing.
func (d *Daemon) audit(f *state.Flow, h *house) error {
	parts, err := d.store.Receipt(f.ID)
	if err != nil {
		return err
	}
	var sum int64
	for i := range parts {
		sum += abs(parts[i].Unaccounted()) // one too many does not make up for one too few
	}
	if sum != 0 && sum != h.unaccounted {
		d.log.Error("the receipt does not add up: this is a fault of the program, please report it", "flow", f.FullName(), "unaccounted", sum)
	}
	h.unaccounted = sum
	return nil
}

// requeue sends entries back to where they failed that have lain in the queue
// for as long as the flow says; a page at a time.
func (d *Daemon) requeue(ctx context.Context, f *state.Flow, h *house) error {
	rule := h.doc.Requeue
	if rule == nil || f.State != state.Running || time.Now().Before(h.rescan) {
		return nil
	}
	if r := d.runner(f.ID); r == nil || r.holding() {
		return nil
	}
	before := time.Now().Add(-rule.Every).UnixMilli()
	page, more, err := d.store.FailurePage(f.ID, h.scanned, queuePage, queuePageBytes, nil)
	if err != nil {
		return err
	}
	back, err := d.newReplays(f, api.ReplayCurrent)
	if err != nil {
		return err
	}
	op := &state.QueueOp{Flow: f.ID, Action: state.QueueReplay}
	for _, e := range page {
		h.scanned = e.Seq
		if e.Time > before || e.Requeues >= uint32(rule.AtMost) {
			continue
		}
		if _, problem, err := back.via(e); err != nil || problem != "" {
			continue
		}
		op.Seqs, op.Holds = append(op.Seqs, e.Seq), append(op.Holds, back.hold(e))
	}
	if !more {
		h.scanned, h.rescan = 0, time.Now().Add(min(rule.Every/4, 10*time.Second))
	}
	if len(op.Seqs) == 0 {
		return nil
	}
	res, err := d.queueOp(ctx, op)
	if err != nil {
		return err
	}
	d.log.Info("entries of the failure queue are tried again", "flow", f.FullName(), "entries", res.Done)
	d.dueNow(f.ID)
	return nil
}

// ageUsed is how much of the time that entries are kept the oldest one has had.
func ageUsed(q api.Queue) float64 {
	return float64(time.Now().UnixMilli()-q.Oldest) / float64(q.KeepMillis)
}

// watch lets the flow hold itself back and go on, until ctx ends.
func (r *runner) watch(ctx context.Context, pipe *pipeline.Flow) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	doc := r.doc.Load()
	for {
		r.rate.perSecond(pipe.Stats().In.Load(), time.Now())
		p, err := r.pressure(doc)
		if err == nil {
			now, changed := r.hold.decide(p, time.Now())
			if changed || now.kind != "" { // the reason may be another one
				pipe.Hold(now.reason)
			}
			if changed {
				if now.kind != "" {
					r.log.Warn("the flow holds itself back; it goes on by itself", "kind", now.kind, "reason", now.reason)
				} else {
					r.log.Info("the flow goes on")
				}
				signal(r.due)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// pressure is what the flow is under just now.
func (r *runner) pressure(doc *flow.Flow) (pressure, error) {
	stats, err := r.d.store.QueueStats(r.id)
	if err != nil {
		return pressure{}, err
	}
	p := pressure{entries: stats.Entries + stats.Kept, pauseAt: doc.Limits.PauseAt, resumeAt: doc.Limits.ResumeAt}
	p.breaker, p.shut = r.outs.held()
	if stats.Kept > 0 { // a flow that keeps nothing has no part in it
		p.spill, p.spillReason = r.d.spills.used(time.Now())
	}
	return p, nil
}

// holding reports whether the flow holds itself back.
func (r *runner) holding() bool {
	now, _ := r.hold.current()
	return now.kind != ""
}
