package pipeline

import (
	"context"
	"errors"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/millrace-io/millrace/runtime/record"
)

// shipment is what one call of Deliver is answered with.
type shipment struct {
	lane  *lane
	set   *Set // that made the records
	recs  []record.Record
	slots []uint64
}

// deliver hands records to the delivery; the slices become the shipment's. It
// returns errHalt when the delivery has meanwhile halted the lane.
func (l *lane) deliver(ctx context.Context, recs []record.Record, slots []uint64) error {
	s := &shipment{lane: l, set: l.set, recs: recs, slots: slots}
	if l.filed != nil {
		s.skipFiled()
	}
	if len(s.recs) == 0 {
		return nil
	}
	l.mu.Lock()
	l.out += len(s.recs)
	l.mu.Unlock()
	start := time.Now()
	l.flow.delivery.Deliver(ctx, s.recs, s.done)
	l.flow.stats.Stages[len(l.set.Stages)].call(0, time.Since(start))
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.halted {
		return errHalt
	}
	return nil
}

// skipFiled takes out what the failure queue owns already.
func (s *shipment) skipFiled() {
	l := s.lane
	kept := 0
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range s.recs {
		if l.filed[FiledKey{s.recs[i].Offset, s.recs[i].Path}] {
			l.win.release(s.slots[i])
			continue
		}
		s.recs[kept], s.slots[kept] = s.recs[i], s.slots[i]
		kept++
	}
	if kept < len(s.recs) {
		s.recs, s.slots = s.recs[:kept], s.slots[:kept]
		l.settled()
	}
}

// done is the delivery's answer for one record.
func (s *shipment) done(i int, err error) {
	l := s.lane
	l.flow.stats.Stages[len(l.flow.stats.Stages)-1].Records.Add(1)
	if err == nil {
		l.flow.stats.Emitted.Add(1)
	} else if !errors.Is(err, context.Canceled) {
		l.flow.stats.Stages[len(l.flow.stats.Stages)-1].Failures.Add(1)
		_ = l.fail(s.set, &l.flow.cfg.Delivery, &s.recs[i], s.slots[i], record.Failure{Err: record.AsError(err)})
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil && !l.fenced && l.win.release(s.slots[i]) {
		l.settled()
	}
	if l.out--; l.out == 0 {
		for _, c := range l.idlers {
			close(c)
		}
		l.idlers = nil
	}
}

// settled is called with mu held after records were settled.
func (l *lane) settled() {
	l.dirty = true
	if l.win.records <= l.flow.cfg.InFlight-l.flow.callSize() {
		signal(l.wake)
	}
}

// fail finds the owner of a record that cannot go on after the stages of set.
// It returns errHalt when that is the flow itself. Any goroutine may call it.
// f's In is not looked at.
func (l *lane) fail(set *Set, at *StageInfo, rec *record.Record, slot uint64, f record.Failure) error {
	err := f.Err
	switch {
	case err.Class == record.Fenced:
		l.fence()
		return errHalt
	case err.Class.PausesFlow() || at.Otherwise == ToPause:
		l.halt("stage " + at.ID + ", record " + rec.ID() + ": " + err.Error())
		return errHalt
	}
	l.flow.stats.Failed.Add(1)
	var e *record.Entry
	if at.Otherwise == ToQueue {
		e = l.entry(set, at, rec, f)
	}
	l.mu.Lock()
	if l.fenced {
		l.mu.Unlock()
		return errHalt
	}
	urge := false
	if e != nil && !l.filed[FiledKey{rec.Offset, rec.Path}] {
		l.entries = append(l.entries, e)
		l.entryB += entrySize(e)
		urge = l.entryB >= urgeBytes
	}
	l.win.release(slot)
	l.settled()
	l.mu.Unlock()
	if urge {
		l.flow.cfg.Urge()
	}
	return nil
}

func (l *lane) entry(set *Set, at *StageInfo, rec *record.Record, f record.Failure) *record.Entry {
	cfg, err := &l.flow.cfg, f.Err
	e := &record.Entry{
		Flow: cfg.Flow, FlowUID: cfg.UID, Revision: cfg.Revision, Generation: cfg.Generation,
		Stage: at.ID, Plugin: at.Plugin, Digest: at.Digest, Class: err.Class, Code: err.Code, Message: err.Message,
		Attempts: max(rec.Attempt, 1), Time: cfg.Now().UnixMilli(), Input: *rec, Replay: f.Replay, NoReplay: f.NoReplay,
	}
	if e.Message == "" && err.Err != nil {
		e.Message = err.Err.Error()
	}
	for _, s := range set.Stages {
		if s.ID == at.ID {
			break
		}
		if s.Digest != "" {
			e.Touched = append(e.Touched, s.Digest)
		}
	}
	if len(rec.Value) > maxInput {
		e.InputHash, e.InputOmitted, e.Input.Value = xxhash.Sum64(rec.Value), true, nil
	}
	if rec.Size()-len(rec.Value) > maxInput {
		e.InputHash, e.InputOmitted = xxhash.Sum64(rec.Value), true
		e.Input.Key, e.Input.Headers, e.Input.Value = nil, nil, nil
	}
	return e
}

// entrySize is about what e brings to a commit, what its guest said included.
func entrySize(e *record.Entry) int {
	n := e.Input.Size() + len(e.Message) + len(e.NoReplay) + 256
	for _, digest := range e.Touched {
		n += len(digest)
	}
	if e.Replay != nil {
		for _, line := range e.Replay.Logs {
			n += len(line) + 2
		}
	}
	return n
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
	l.mu.Unlock()
	l.halt("")
	l.flow.forget(l)
}

// progress collects what is to be committed, unless a commit is under way. When
// there are more failures than one commit takes, the watermark stays until the
// last of them.
func (l *lane) progress() (Progress, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.dirty || l.lent || l.fenced {
		return Progress{}, false
	}
	p := Progress{Partition: l.cfg.Partition, Ownership: l.cfg.Ownership, Generation: l.generation.Load(), lane: l}
	n := 0
	for n < len(l.entries) && (n == 0 || p.Bytes+entrySize(l.entries[n]) <= maxProgress) {
		p.Bytes += entrySize(l.entries[n])
		n++
	}
	p.Failures, l.entries = l.entries[:n:n], l.entries[n:]
	l.dirty, l.lent = len(l.entries) > 0, true
	if l.dirty {
		p.Low, p.Ranges = l.low, l.ranges
	} else {
		p.Low, p.Ranges = l.win.ledger.Low(), l.win.ledger.Ranges(nil)
	}
	return p, true
}

// ack takes back what progress lent.
func (l *lane) ack(p Progress, err error) {
	l.mu.Lock()
	l.lent = false
	if err != nil {
		l.dirty = true
		l.entries = append(p.Failures, l.entries...)
	} else {
		l.entryB -= p.Bytes
		l.low, l.ranges = p.Low, p.Ranges
	}
	urge := err == nil && len(l.entries) > 0
	l.mu.Unlock()
	l.kick()
	if urge {
		l.flow.cfg.Urge()
	}
	if e := record.AsError(err); e != nil && e.Class == record.Fenced {
		l.fence()
	}
}

// clean reports whether there is no progress to collect or on its way.
func (l *lane) clean() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fenced || !l.dirty && !l.lent
}

// idle is closed when the delivery has answered everything it was given.
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
	return LaneStatus{Ownership: l.cfg.Ownership, Low: l.win.ledger.Low(), Next: l.win.ledger.Next(), InFlight: l.win.records, Paused: l.paused, Problem: l.problem}
}
