package delivery

import (
	"container/heap"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

// Lane is one partition's own way into a delivery. Safe for concurrent use;
// the order of its records is that of its Deliver calls, so those come from
// one goroutine where there is an order to keep.
type Lane struct {
	e         *Engine
	partition record.Partition
	answered  *sync.Cond // of mu; the outbox was emptied

	mu sync.Mutex
	// keys are those with something to keep in order; empty in OrderNone.
	keys    map[uint64]*key // guarded by mu
	units   units           // guarded by mu; all that are not answered
	fresh   *gatherer       // guarded by mu; of records from the source; nil: no batches
	again   *gatherer       // guarded by mu; of kept ones, empty between calls
	asleep  sleepers        // guarded by mu
	timer   *time.Timer     // guarded by mu
	armed   time.Time       // guarded by mu; what timer is set to, zero: not at all
	ready   []*place        // guarded by mu; to be given to the connection
	outbox  []answer        // guarded by mu; to be told
	spare   []answer        // guarded by mu
	telling bool            // guarded by mu; a goroutine empties the outbox
	watches []watch         // guarded by mu
	// crowd is how many keys have an item in a batch that gathers and another
	// one behind it.
	crowd  int  // guarded by mu
	open   int  // guarded by mu; items that are not answered
	closed bool // guarded by mu
}

// call is one call of Deliver.
type call struct {
	ctx  context.Context
	done func(int, record.Outcome)
}

// item is a record that has not been answered.
type item struct {
	call  *call
	index int
	rec   *record.Record
	retry *record.Retry // nil: from the source
	hash  uint64        // of the key; 0 in OrderNone
	unit  *unit         // nil while it is in none

	history []record.Attempt
	err     *record.Error // of the last attempt
}

type answer struct {
	it  *item
	out record.Outcome
}

// watch waits for the end of a context.
type watch struct {
	done <-chan struct{}
	stop func() bool
}

// Open makes the way of one partition. held are the Hold hashes (see Hold) of
// the partition's records that are kept for this delivery, one for each.
func (e *Engine) Open(p record.Partition, held []uint64) *Lane {
	l := &Lane{e: e, partition: p, keys: map[uint64]*key{}}
	l.answered = sync.NewCond(&l.mu)
	if e.cfg.Batch != nil {
		l.fresh, l.again = newGatherer(e.cfg.Batch), newGatherer(e.cfg.Batch)
	}
	if e.cfg.Order == flow.OrderKey {
		for _, h := range held {
			l.key(h).held++
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	l.closed = e.closed
	if !e.closed {
		e.lanes[l] = true
	}
	return l
}

// Deliver takes over items, in order, without blocking. done is called exactly
// once for each index, by any goroutine, perhaps before Deliver returns, and
// never under a lock of the engine; for the items of one key in the order in
// which they were decided on. It sets the records' Attempt.
//
// Items that come from a kept entry are attempted once, and handed back to be
// kept where that fails for a passing reason; those of one Retry.Group that
// are given in one call are one batch again. Items of a key of which records
// are kept are handed back at once.
//
// When ctx ends no attempt starts any more and what waits is answered with
// context.Canceled, also what waits in one batch with it; attempts under way
// are finished, unless the engine is closed.
func (l *Lane) Deliver(ctx context.Context, items []record.Item, done func(i int, o record.Outcome)) {
	c := &call{ctx: ctx, done: done}
	its := make([]item, len(items))
	now := time.Now()
	l.mu.Lock()
	l.watch(ctx)
	l.open += len(items)
	groups := l.groups(items)
	for i := range items {
		it := &its[i]
		*it = item{call: c, index: i, rec: &items[i].Record, retry: items[i].Retry}
		if l.e.cfg.Order != flow.OrderNone {
			it.hash = l.hash(it.rec)
		}
		if it.retry != nil {
			it.history = it.retry.History
			l.comesBack(it)
		}
	}
	for i := range its {
		if its[i].unit == nil {
			l.admit(&its[i], its, groups, now)
		}
	}
	if l.again != nil {
		for _, b := range l.again.Flush() {
			l.form(l.again, b)
		}
	}
	l.unlock()
}

// admit finds the place of an item that has just come; mu is held.
func (l *Lane) admit(it *item, its []item, groups map[string][]int, now time.Time) {
	switch {
	case l.closed || it.call.ctx.Err() != nil:
		l.cancel(it, stopped)
		return
	case it.hash == 0:
		l.line(it, its, groups, now)
		return
	}
	k := l.key(it.hash)
	defer l.tidy(it.hash)
	switch {
	case k.barred:
		l.cancel(it, behindFailure)
	case it.retry == nil && k.held > 0:
		l.follow(k, it)
	case it.retry != nil && l.mustPark(k, it):
		l.park(it)
	case it.retry == nil && l.e.cfg.OnePerKey && (k.open != nil || len(k.queue) > 0):
		l.setTurns(k, append(k.turns, it))
	default:
		l.line(it, its, groups, now)
	}
}

// line puts an item behind those of its key, in a unit or on the way into one;
// mu is held.
func (l *Lane) line(it *item, its []item, groups map[string][]int, now time.Time) {
	switch {
	case l.fresh == nil:
		l.enqueue(newUnit(l, nil, it))
	case it.retry == nil:
		l.gather(l.fresh, it, now)
	case it.retry.Group == "":
		l.gather(l.again, it, now)
	default:
		l.regroup(it, its, groups[it.retry.Group])
	}
}

// Forget tells that a record with this hash, which this lane handed back or
// was opened with, is no longer kept: its commit was acknowledged. It is
// called once for each.
func (l *Lane) Forget(hold uint64) {
	l.mu.Lock()
	k := l.keys[hold]
	if k == nil || k.held == 0 {
		l.mu.Unlock()
		return
	}
	if k.held--; k.held == 0 {
		k.kept = nil
		waiting := k.tooLarge
		k.tooLarge = nil
		now := time.Now()
		for _, it := range waiting {
			l.admit(it, nil, nil, now)
		}
		l.tidy(hold)
	}
	l.unlock()
}

// Close abandons what waits. Attempts under way are finished and answered. It
// is idempotent.
func (l *Lane) Close() {
	l.mu.Lock()
	l.closed = true
	l.abandon(func(*item) bool { return true })
	for _, w := range l.watches {
		w.stop()
	}
	l.watches = nil
	l.unlock()
	l.e.mu.Lock()
	delete(l.e.lanes, l)
	l.e.mu.Unlock()
}

// watch abandons what waits when ctx ends; mu is held.
func (l *Lane) watch(ctx context.Context) {
	done := ctx.Done()
	if done == nil || l.closed || slices.ContainsFunc(l.watches, func(w watch) bool { return w.done == done }) {
		return
	}
	if l.open == 0 { // those of earlier calls have nothing to do
		for _, w := range l.watches {
			w.stop()
		}
		l.watches = l.watches[:0]
	}
	stop := context.AfterFunc(ctx, func() {
		l.mu.Lock()
		l.watches = slices.DeleteFunc(l.watches, func(w watch) bool { return w.done == done })
		l.abandon(func(it *item) bool { return it.call.ctx.Err() != nil })
		l.unlock()
	})
	l.watches = append(l.watches, watch{done, stop})
}

// abandon cancels what waits and belongs to an item that is over; mu is held.
func (l *Lane) abandon(over func(*item) bool) {
	if l.fresh != nil && len(l.fresh.items) > 0 {
		for _, it := range l.fresh.items {
			if over(it) {
				for _, b := range l.fresh.Flush() {
					l.form(l.fresh, b)
				}
				break
			}
		}
	}
	l.submit()
	for u := l.units.first; u != nil; {
		next := u.next
		if slices.ContainsFunc(u.items, over) && l.stop(u) {
			l.drop(u, stopped)
		}
		u = next
	}
	for hash, k := range l.keys {
		k.tooLarge = l.cancelSome(k.tooLarge, over)
		l.setTurns(k, l.cancelSome(k.turns, over))
		l.tidy(hash)
	}
}

// cancelSome cancels those items that are over and returns the others; mu is
// held.
func (l *Lane) cancelSome(items []*item, over func(*item) bool) (stay []*item) {
	for _, it := range items {
		if over(it) {
			l.cancel(it, stopped)
		} else {
			stay = append(stay, it)
		}
	}
	return stay
}

// wake brings forward whatever nobody asked to wait.
func (l *Lane) wake() {
	l.mu.Lock()
	for _, u := range slices.Clone(l.asleep) {
		if !u.patient {
			heap.Remove(&l.asleep, u.at)
			l.release(u)
		}
	}
	l.unlock()
}

// tick is called when something is due.
func (l *Lane) tick() {
	l.mu.Lock()
	l.armed = time.Time{}
	now := time.Now()
	for len(l.asleep) > 0 && !l.asleep[0].wake.After(now) {
		u := heap.Pop(&l.asleep).(*unit)
		l.woken(u, now)
	}
	if l.fresh != nil {
		for _, b := range l.fresh.Ready(now) {
			l.form(l.fresh, b)
		}
	}
	l.unlock()
}

// arm sets the timer to what is due next; mu is held.
func (l *Lane) arm() {
	var at time.Time
	if len(l.asleep) > 0 {
		at = l.asleep[0].wake
	}
	if l.fresh != nil {
		if due, ok := l.fresh.Due(); ok && (at.IsZero() || due.Before(at)) {
			at = due
		}
	}
	switch {
	case at.Equal(l.armed):
	case at.IsZero():
		l.armed = at
		l.timer.Stop()
	default:
		l.armed = at
		if l.timer == nil {
			l.timer = time.AfterFunc(time.Until(at), l.tick)
		} else {
			l.timer.Reset(time.Until(at))
		}
	}
}

// submit gives the connection what may be sent; mu is held.
func (l *Lane) submit() {
	if len(l.ready) > 0 {
		l.e.cfg.Conn.enter(l.e.port, l.ready...)
		clear(l.ready)
		l.ready = l.ready[:0]
	}
}

// unlock gives up mu and does what the change asks for.
func (l *Lane) unlock() {
	l.hurry()
	l.submit()
	l.arm()
	if l.telling || len(l.outbox) == 0 {
		l.mu.Unlock()
		return
	}
	// One goroutine tells at a time, so that what was decided first is told
	// first: a record must not be kept before one that it follows.
	l.telling = true
	for len(l.outbox) > 0 {
		batch := l.outbox
		l.outbox = l.spare[:0]
		l.mu.Unlock()
		for i := range batch {
			batch[i].it.call.done(batch[i].it.index, batch[i].out)
		}
		clear(batch)
		l.mu.Lock()
		l.spare = batch
	}
	l.telling = false
	l.answered.Broadcast()
	l.mu.Unlock()
}

// told waits until everything that was decided has been told.
func (l *Lane) told() {
	l.mu.Lock()
	for l.telling {
		l.answered.Wait()
	}
	l.unlock()
}

// answer decides on an item; mu is held.
func (l *Lane) answer(it *item, o record.Outcome) {
	l.open--
	l.outbox = append(l.outbox, answer{it, o})
}

// cancel answers an item that was abandoned; mu is held.
func (l *Lane) cancel(it *item, why string) {
	o := record.Outcome{Err: fmt.Errorf("not delivered, %s: %w", why, context.Canceled)}
	if it.unit != nil {
		o.Attempts = it.unit.attempts
	}
	l.answer(it, o)
}

// fail answers an item that cannot be delivered; mu is held.
func (l *Lane) fail(it *item, err *record.Error, attempts uint32) {
	l.answer(it, record.Outcome{Err: err, Attempts: attempts, History: it.history})
	if l.holdsBack(err) {
		l.bar(it.hash)
	}
}
