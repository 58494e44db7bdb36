package delivery

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/millrace-io/millrace/runtime/delivery/batch"
	"github.com/millrace-io/millrace/runtime/record"
	"github.com/millrace-io/millrace/runtime/retry"
)

// unit is what one request carries: a record or a batch. Its fields are
// guarded by its lane's mu, but place, which is the connection's.
type unit struct {
	place place
	lane  *Lane
	items []*item
	batch *batch.Batch // nil: a record by itself
	kept  bool         // its items come from the state
	keys  []uint64     // of its items, each once
	// behind is in how many of its keys' queues it is not the first.
	behind int
	state  unitState

	attempts uint32
	// first is when the first attempt was made; firstShut is how long the
	// breaker had been shut when this lane began its first one.
	first     time.Time
	firstShut time.Duration
	begun     bool
	// wake is when to look at a sleeping unit, due when to try again; patient:
	// the other side asked for that.
	wake, due time.Time
	patient   bool
	at        int // in sleepers

	prev, next *unit
}

type unitState uint8

const (
	blocked  unitState = iota // behind another unit of one of its keys
	queued                    // at the connection, or on its way there
	running                   // an attempt is under way
	sleeping                  // until its next attempt
	gone                      // answered
)

func newUnit(l *Lane, b *batch.Batch, items ...*item) *unit {
	u := &unit{lane: l, batch: b, items: items, kept: items[0].retry != nil}
	u.place.runner = u
	for _, it := range items {
		it.unit = u
		if it.hash != 0 && !slices.Contains(u.keys, it.hash) {
			u.keys = append(u.keys, it.hash)
		}
		if r := it.retry; r != nil && (r.Stage == l.e.cfg.ID || r.Stage == "") {
			u.attempts = max(u.attempts, r.Attempts)
			if first := time.UnixMilli(r.First); r.First > 0 && (u.first.IsZero() || first.Before(u.first)) {
				u.first = first
			}
		}
	}
	return u
}

// enqueue puts a unit behind those of its keys; the lane's mu is held.
func (l *Lane) enqueue(u *unit) {
	for _, h := range u.keys {
		if k := l.key(h); k.open != nil {
			l.form(k.open, k.open.End(k.openGroup))
		}
	}
	if l.barred(u) {
		for _, it := range u.items {
			l.cancel(it, behindFailure)
		}
		for _, h := range u.keys {
			l.nextTurn(h)
			l.tidy(h)
		}
		return
	}
	l.units.push(u)
	for _, h := range u.keys {
		k := l.key(h)
		k.queue = append(k.queue, u)
		if len(k.queue) > 1 {
			u.behind++
		}
	}
	if u.behind == 0 {
		l.release(u)
	}
}

// release lets a unit wait for its turn at the connection; mu is held.
func (l *Lane) release(u *unit) {
	u.state = queued
	l.ready = append(l.ready, &u.place)
}

// stop takes a unit that waits out of wherever it does; false if an attempt
// has begun. mu is held.
func (l *Lane) stop(u *unit) bool {
	switch u.state {
	case running:
		return false
	case sleeping:
		heap.Remove(&l.asleep, u.at)
	case queued:
		if i := slices.Index(l.ready, &u.place); i >= 0 {
			l.ready = slices.Delete(l.ready, i, i+1)
			return true
		}
		return l.e.cfg.Conn.leave(&u.place)
	}
	return true
}

// remove forgets a unit whose items have been answered; those behind it come
// forward. mu is held.
func (l *Lane) remove(u *unit) {
	u.state = gone
	l.units.remove(u)
	l.leave(u, u.keys)
	if t := l.e.trouble.Load(); t != nil && t.unit == u {
		l.e.trouble.CompareAndSwap(t, nil)
	}
}

// leave takes a unit out of the queues of some keys; mu is held.
func (l *Lane) leave(u *unit, keys []uint64) {
	for _, h := range keys {
		k := l.key(h)
		if k.queue[0] != u {
			i := slices.Index(k.queue, u)
			k.queue = slices.Delete(k.queue, i, i+1)
			u.behind--
			continue
		}
		k.queue[0] = nil
		if k.queue = k.queue[1:]; len(k.queue) == 0 {
			k.queue = nil
			l.nextTurn(h)
			l.tidy(h)
			continue
		}
		next := k.queue[0]
		if next.behind--; next.behind == 0 && next.state == blocked {
			l.release(next)
		}
	}
}

// bar keeps back what waits behind a record of a key that could not be
// delivered, and what comes; mu is held.
func (l *Lane) bar(hash uint64) {
	if hash == 0 {
		return
	}
	k := l.key(hash)
	if k.barred {
		return
	}
	k.barred = true
	if k.open != nil {
		l.form(k.open, k.open.End(k.openGroup))
	}
	for _, u := range slices.Clone(k.queue) {
		if u.state == gone || !l.stop(u) { // it was sent already, or begin sees it
			continue
		}
		l.drop(u, behindFailure)
	}
	for _, it := range slices.Concat(k.tooLarge, k.turns) {
		l.cancel(it, behindFailure)
	}
	k.tooLarge = nil
	l.setTurns(k, nil)
}

const behindFailure = "a record before it could not be delivered"

// barred reports whether one of a unit's keys is; mu is held.
func (l *Lane) barred(u *unit) bool {
	return slices.ContainsFunc(u.keys, func(h uint64) bool { return l.key(h).barred })
}

// over reports whether no attempt of a unit is to be made any more; mu is held.
func (l *Lane) over(u *unit) bool {
	return l.closed || slices.ContainsFunc(u.items, func(it *item) bool { return it.call.ctx.Err() != nil })
}

// drop cancels the items of a unit; mu is held.
func (l *Lane) drop(u *unit, why string) {
	for _, it := range u.items {
		l.cancel(it, why)
	}
	l.remove(u)
}

// holdsBack reports whether the records behind one that ends like this wait.
func (l *Lane) holdsBack(err *record.Error) bool {
	return l.e.cfg.HoldBack || err.Class.PausesFlow() || err.Class == record.Fenced
}

// start makes an attempt. It is called by the connection.
func (u *unit) start(pa *pass) *pass {
	l := u.lane
	e := l.e
	if l.begin(u) {
		if u.attempts > 1 {
			e.cfg.OnRetry()
		}
		began := time.Now()
		r := e.attempt(u, pa)
		l.mu.Lock()
		l.finish(u, pa, r, began, time.Now())
		l.unlock()
		e.running.Done()
	}
	return e.cfg.Conn.next(pa)
}

// begin takes a unit up whose turn it is; false if it is over.
func (l *Lane) begin(u *unit) bool {
	l.mu.Lock()
	why := ""
	switch {
	case l.over(u):
		why = stopped
	case l.barred(u):
		why = behindFailure
	case !l.e.enter():
		why = stopped
	}
	if why != "" {
		l.drop(u, why)
		l.unlock()
		return false
	}
	u.state = running
	if !u.begun {
		u.begun = true
		now := time.Now()
		u.firstShut, _ = l.e.cfg.Conn.shut(now)
		if u.first.IsZero() {
			u.first = now
		}
	}
	u.attempts++
	for _, it := range u.items {
		it.rec.Attempt = u.attempts
	}
	l.mu.Unlock()
	return true
}

const stopped = "the flow or its delivery stops"

// finish does what the outcome of an attempt asks for; mu is held.
func (l *Lane) finish(u *unit, pa *pass, r result, began, now time.Time) {
	switch {
	case r.canceled:
		l.drop(u, "it was cut off")
		return
	case pa.down && l.over(u):
		l.drop(u, stopped)
		return
	case pa.down: // the breaker did not close: the attempt was for its sake
		u.attempts--
		l.release(u)
		return
	}
	var again []int
	var bars []uint64
	for i, it := range u.items {
		e := r.of(i)
		if e == nil {
			l.answer(it, record.Outcome{Attempts: u.attempts})
			continue
		}
		it.err = e
		it.history = record.Remember(it.history, record.Attempt{Time: now.UnixMilli(), Millis: now.Sub(began).Milliseconds(), Class: e.Class, Code: e.Code, Message: shorten(e.Message)})
		if e.Class.Transient() {
			again = append(again, i)
			continue
		}
		l.answer(it, record.Outcome{Err: e, Attempts: u.attempts, History: it.history, Exchange: r.exchange})
		if l.holdsBack(e) {
			bars = append(bars, it.hash)
		}
	}
	if len(again) == 0 {
		l.remove(u)
	} else {
		l.shrink(u, again)
		l.retry(u, r.exchange, now)
	}
	for _, h := range bars {
		l.bar(h)
	}
}

// shorten bounds a message of a history.
func shorten(s string) string {
	if r := []rune(s); len(s) > 300 && len(r) > 300 {
		return string(r[:300]) + "..."
	}
	return s
}

// shrink leaves some of a unit's items; mu is held.
func (l *Lane) shrink(u *unit, stay []int) {
	if len(stay) == len(u.items) {
		return
	}
	items := make([]*item, len(stay))
	var keys []uint64
	for n, i := range stay {
		items[n] = u.items[i]
		if h := items[n].hash; h != 0 && !slices.Contains(keys, h) {
			keys = append(keys, h)
		}
	}
	if u.batch != nil {
		u.batch = u.batch.Keep(stay)
	}
	gone := slices.DeleteFunc(slices.Clone(u.keys), func(h uint64) bool { return slices.Contains(keys, h) })
	u.items, u.keys = items, keys
	l.leave(u, gone)
}

// retry decides when a unit whose items all failed for a passing reason is
// tried again, and where it waits; mu is held.
func (l *Lane) retry(u *unit, x *record.Exchange, now time.Time) {
	if l.over(u) {
		l.drop(u, stopped)
		return
	}
	worst := *u.items[0].err
	for _, it := range u.items[1:] {
		worst.RetryAfter = max(worst.RetryAfter, it.err.RetryAfter)
	}
	cfg := &l.e.cfg
	d := cfg.Policy.Decide(retry.Failure{Err: &worst, Attempt: u.attempts, Elapsed: now.Sub(u.first), Rand: rand.Float64()})
	if d.Action != retry.Again {
		for _, it := range u.items {
			l.answer(it, record.Outcome{Err: it.err, Attempts: u.attempts, History: it.history, Exchange: x})
		}
		keys := u.keys
		l.remove(u)
		if cfg.HoldBack {
			for _, h := range keys {
				l.bar(h)
			}
		}
		return
	}
	l.trouble(u, d.After)
	_, shut := cfg.Conn.shut(now)
	u.due, u.patient = now.Add(d.After), worst.RetryAfter > 0
	if shut && !u.patient {
		l.release(u) // to try the other side with, or to go on when it works
		return
	}
	l.sleep(u, now)
}

// sleep lets a unit wait until it is due, or to be kept; mu is held.
func (l *Lane) sleep(u *unit, now time.Time) {
	u.wake = u.due
	if l.mayKeep(u) {
		shut, open := l.e.cfg.Conn.shut(now)
		spill := u.first.Add(l.e.cfg.SpillAfter + shut - u.firstShut)
		switch over := u.kept || !spill.After(now); {
		case over && !open:
			l.keep(u, now)
			return
		case over:
			spill = now.Add(time.Second) // once the breaker has closed
		}
		if spill.Before(u.wake) {
			u.wake = spill
		}
	}
	u.state = sleeping
	heap.Push(&l.asleep, u)
}

// woken is called when a sleeping unit's time has come; mu is held.
func (l *Lane) woken(u *unit, now time.Time) {
	if u.due.After(now) {
		l.sleep(u, now)
		return
	}
	l.release(u)
}

// trouble tells about a unit that is tried again; mu is held.
func (l *Lane) trouble(u *unit, after time.Duration) {
	what := "record " + u.items[0].rec.ID()
	if len(u.items) > 1 {
		what = fmt.Sprintf("%d records from %s on", len(u.items), u.items[0].rec.ID())
	}
	l.e.trouble.Store(&trouble{u, fmt.Sprintf("%s: %v (attempt %d, next in %s)", what, u.items[0].err, u.attempts, after.Round(time.Millisecond))})
}

// units is a list of all units of a lane, in order.
type units struct{ first, last *unit }

func (l *units) push(u *unit) {
	u.prev, u.next = l.last, nil
	if l.last == nil {
		l.first = u
	} else {
		l.last.next = u
	}
	l.last = u
}

func (l *units) remove(u *unit) {
	if u.prev == nil {
		l.first = u.next
	} else {
		u.prev.next = u.next
	}
	if u.next == nil {
		l.last = u.prev
	} else {
		u.next.prev = u.prev
	}
	u.prev, u.next = nil, nil
}

// sleepers is a heap of units by wake.
type sleepers []*unit

func (s sleepers) Len() int           { return len(s) }
func (s sleepers) Less(i, j int) bool { return s[i].wake.Before(s[j].wake) }
func (s sleepers) Swap(i, j int) {
	s[i], s[j] = s[j], s[i]
	s[i].at, s[j].at = i, j
}
func (s *sleepers) Push(x any) {
	u := x.(*unit)
	u.at = len(*s)
	*s = append(*s, u)
}
func (s *sleepers) Pop() any {
	old := *s
	u := old[len(old)-1]
	old[len(old)-1] = nil
	*s = old[:len(old)-1]
	return u
}
