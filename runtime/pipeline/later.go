package pipeline

import (
	"context"
	"slices"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
	"github.com/millrace-io/millrace/runtime/retry"
)

// insist repeats the stage of node k of a course for one record until it
// answers something else than "later". The rest of the partition waits. When
// another set no longer has the stage, the record goes on behind it.
func (l *lane) insist(ctx context.Context, c *course, k int, rec record.Record, slot uint64, f record.Failure, a attempt) error {
	defer l.setProblem("")
	for {
		at, ok := l.place(c, k, rec, slot)
		if !ok {
			return nil
		}
		d, e := l.decide(at, &rec, slot, f, a)
		if e != nil || d.Action == retry.GiveUp {
			return e
		}
		if e := sleep(ctx, d.After); e != nil {
			return e
		}
		l.adopt()
		if at, ok = l.place(c, k, rec, slot); !ok {
			return nil
		}
		rec.Attempt++
		l.flow.stats.Retried.Add(1)
		var res record.Results
		recs, slots := []record.Record{rec}, []uint64{slot}
		if e := l.call(ctx, at, nil, recs, &res); e != nil {
			return e
		}
		if len(res.Failures) == 1 && res.Failures[0].Err.Class.Transient() {
			f = res.Failures[0]
			continue
		}
		l.setProblem("")
		return l.answer(ctx, at, recs, slots, &res, a)
	}
}

// place finds node k of a course in the present one. When it is gone the
// record goes on behind it, and place reports false.
func (l *lane) place(c *course, k int, rec record.Record, slot uint64) (int, bool) {
	at := l.course.follow(c, k)
	switch {
	case at == Drop:
		l.dropAt(c, k, slot)
		return 0, false
	case l.course.Nodes[at].ID != c.Nodes[k].ID:
		rec.Attempt = 1
		in := &l.bufs[at].in
		in.add(0, rec, slot)
		in.several = true
		return 0, false
	}
	return at, true
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// decide asks what becomes of a stage's "later", and sees to all but waiting.
func (l *lane) decide(k int, rec *record.Record, slot uint64, f record.Failure, a attempt) (retry.Decision, error) {
	info := &l.course.Nodes[k].StageInfo
	d := info.Retry.Decide(retry.Failure{Err: f.Err, Attempt: rec.Attempt, Elapsed: l.flow.cfg.Now().Sub(a.since), Rand: l.flow.cfg.Rand()})
	if d.Action == retry.Again {
		l.setProblem("stage " + info.ID + " asks to try record " + rec.ID() + " again: " + f.Err.Message)
		return d, nil
	}
	l.course.stats[k].Failures.Add(1)
	d.Action = retry.GiveUp
	return d, l.fail(l.course, info, rec, slot, f, nil)
}

// deferRecord lets a record wait beside the others.
func (l *lane) deferRecord(k int, rec record.Record, slot uint64, f record.Failure, a attempt) error {
	d, e := l.decide(k, &rec, slot, f, a)
	if e != nil || d.Action == retry.GiveUp {
		return e
	}
	it := deferred{due: l.flow.cfg.Now().Add(d.After), since: a.since, via: a.via, node: k, rec: rec, slot: slot}
	i, _ := slices.BinarySearchFunc(l.later, it, func(a, b deferred) int { return a.due.Compare(b.due) })
	l.later = slices.Insert(l.later, i, it)
	return nil
}

func (l *lane) dueNow() bool {
	return len(l.later) > 0 && !l.later[0].due.After(l.flow.cfg.Now())
}

// again repeats the stage for the deferred record that is due.
func (l *lane) again(ctx context.Context) error {
	it := l.later[0]
	l.later = slices.Delete(l.later, 0, 1)
	if len(l.later) == 0 {
		l.setProblem("")
	}
	it.rec.Attempt++
	recs, slots := []record.Record{it.rec}, []uint64{it.slot}
	if l.course.Nodes[it.node].Kind == KindDeliver {
		return l.deliver(ctx, it.node, recs, slots)
	}
	l.flow.stats.Retried.Add(1)
	var res record.Results
	if err := l.call(ctx, it.node, it.via, recs, &res); err != nil {
		return err
	}
	if err := l.answer(ctx, it.node, recs, slots, &res, attempt{it.since, it.via}); err != nil {
		return err
	}
	return l.forward(ctx, nil)
}
