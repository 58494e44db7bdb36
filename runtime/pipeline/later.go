package pipeline

import (
	"context"
	"slices"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
	"github.com/millrace-io/millrace/runtime/retry"
)

// insist repeats a stage for one record until it answers something else than
// "later". The rest of the partition waits.
func (l *lane) insist(ctx context.Context, depth int, rec record.Record, slot uint64, f record.Failure, since time.Time) error {
	defer l.setProblem("")
	for {
		d, e := l.decide(depth, &rec, slot, f, since)
		if e != nil || d.Action == retry.GiveUp {
			return e
		}
		timer := time.NewTimer(d.After)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
		l.adopt()
		rec.Attempt++
		l.flow.stats.Retried.Add(1)
		var res record.Results
		recs, slots := []record.Record{rec}, []uint64{slot}
		if e := l.call(ctx, depth, recs, &res); e != nil {
			return e
		}
		if len(res.Failures) == 1 && res.Failures[0].Err.Class.Transient() {
			f = res.Failures[0]
			continue
		}
		l.setProblem("")
		return l.answer(ctx, depth, recs, slots, &res, since)
	}
}

// decide asks what becomes of a stage's "later", and sees to all but waiting.
func (l *lane) decide(depth int, rec *record.Record, slot uint64, f record.Failure, since time.Time) (retry.Decision, error) {
	info := &l.set.Stages[depth].StageInfo
	d := info.Retry.Decide(retry.Failure{Err: f.Err, Attempt: rec.Attempt, Elapsed: l.flow.cfg.Now().Sub(since), Rand: l.flow.cfg.Rand()})
	if d.Action == retry.Again {
		l.setProblem("stage " + info.ID + " asks to try record " + rec.ID() + " again: " + f.Err.Message)
		return d, nil
	}
	l.flow.stats.Stages[depth].Failures.Add(1)
	d.Action = retry.GiveUp
	return d, l.fail(l.set, info, rec, slot, f)
}

// deferRecord lets a record wait beside the others.
func (l *lane) deferRecord(depth int, rec record.Record, slot uint64, f record.Failure, since time.Time) error {
	d, e := l.decide(depth, &rec, slot, f, since)
	if e != nil || d.Action == retry.GiveUp {
		return e
	}
	it := deferred{due: l.flow.cfg.Now().Add(d.After), since: since, depth: depth, rec: rec, slot: slot}
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
	l.flow.stats.Retried.Add(1)
	var res record.Results
	recs, slots := []record.Record{it.rec}, []uint64{it.slot}
	if err := l.call(ctx, it.depth, recs, &res); err != nil {
		return err
	}
	return l.answer(ctx, it.depth, recs, slots, &res, it.since)
}
