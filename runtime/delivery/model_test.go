package delivery

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/runtime/delivery/batch"
	"github.com/millrace-io/millrace/runtime/delivery/verdict"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
	"github.com/millrace-io/millrace/runtime/retry"
)

// kept is an entry of the model's state.
type keptEntry struct {
	rec    record.Record
	retry  *record.Retry
	due    int64 // 0: parked
	counts bool  // in the lane's held
}

// world is the pipeline and the state around an engine, and the partner.
type world struct {
	t testing.TB
	s scenario
	p *partner
	e *Engine
	l *Lane

	ctx    context.Context
	cancel context.CancelFunc

	mu       sync.Mutex
	rng      *rand.Rand
	faults   []string // guarded by mu
	life     int      // guarded by mu; rises with every restart
	next     int64    // guarded by mu; offset of the next new record
	settled  map[int64]bool
	state    map[int64]*keptEntry // guarded by mu; committed
	underWay map[int64]bool       // guarded by mu; given and not committed
	keeps    []*keptEntry         // guarded by mu; answered, not committed
	gone     []int64              // guarded by mu; kept ones that are done, not committed
	done     []int64              // guarded by mu; others that are done, not committed
	trouble  string               // guarded by mu
	accepted map[string]int64     // guarded by mu; the highest offset accepted of a key
	refused  map[int64]bool       // guarded by mu
	flying   map[string]int       // guarded by mu; requests under way with a key
	requests int                  // guarded by mu
	over     bool                 // guarded by mu; the lane's context has ended
}

func newWorld(t testing.TB, s scenario) *world {
	w := &world{t: t, s: s, rng: rand.New(rand.NewPCG(s.seed, 1)), settled: map[int64]bool{}, state: map[int64]*keptEntry{}, underWay: map[int64]bool{},
		accepted: map[string]int64{}, refused: map[int64]bool{}, flying: map[string]int{}}
	w.p = &partner{answer: w.answer, check: w.check, patience: s.patience}
	w.start()
	return w
}

func (w *world) fault(format string, args ...any) {
	if len(w.faults) < 20 {
		w.faults = append(w.faults, fmt.Sprintf(format, args...))
	}
}

func (w *world) start() {
	cfg := Config{Order: w.s.order, MaxKeep: 1000, SpillAfter: w.s.spill, Concurrent: w.s.own, Policy: retry.Policy{First: 50 * time.Millisecond, Max: 2 * time.Second}, Judge: w}
	if w.s.batch > 0 {
		cfg.Batch, cfg.OnePerKey = &batch.Config{Records: w.s.batch, Wait: 300 * time.Millisecond}, w.s.each
		if w.s.by {
			cfg.Batch.By = program(w.t, "value.o % 3")
		}
	}
	w.e = engine(w.t, w.p, cfg, ConnectionConfig{Concurrent: w.s.concurrent, RequestsPerSecond: w.s.perSecond, Breaker: BreakerConfig{Probe: 2 * time.Second}})
	var held []uint64
	for _, o := range w.offsets() {
		k := w.state[o]
		k.counts = k.retry.Hold != 0
		if k.counts {
			held = append(held, k.retry.Hold)
		}
	}
	w.l = w.e.Open(part, held)
	w.ctx, w.cancel = context.WithCancel(context.Background())
	w.over = false
}

// offsets are those of the kept entries, in order.
func (w *world) offsets() []int64 {
	var out []int64
	for o := range w.state {
		out = append(out, o)
	}
	slices.Sort(out)
	return out
}

// answer is the partner's.
func (w *world) answer(x exchange) (int, string, time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	after := time.Duration(w.rng.IntN(50)) * time.Millisecond
	dice := w.rng.IntN(100)
	switch w.trouble {
	case "down":
		return []int{0, 1, 503}[w.rng.IntN(3)], "", after
	case "key down":
		for _, o := range x.orders {
			if o.Key == "k0" {
				return 500, "", after
			}
		}
	case "trouble":
		switch {
		case dice < 10:
			return 500, "", after
		case dice < 15:
			return 1, "", after
		case dice < 20:
			return 429, "", after
		case dice < 25:
			return 422, "", after
		}
	}
	return 200, "", after
}

// Judge sometimes gives verdicts on single items. Where a batch may have several
// of a key, what follows one that is to be sent again waits with it, as a
// partner that keeps an order would have it.
func (w *world) Judge(x *verdict.Exchange) verdict.Verdicts {
	w.mu.Lock()
	defer w.mu.Unlock()
	v := verdict.Default(x)
	if v.All == nil && x.Items > 1 && w.trouble == "trouble" && w.rng.IntN(2) == 0 {
		v.Items = make([]*record.Error, x.Items)
		for i := w.rng.IntN(x.Items + 1); i < x.Items; i++ {
			if !w.s.each || w.rng.IntN(2) == 0 {
				v.Items[i] = record.Errorf(record.Retryable, "item %d: later", i)
			}
		}
	}
	for i, o := range ordersOf(x.Request.Body) {
		s, e := w.s.scope(o.Key), v.Of(i)
		switch {
		case e == nil:
			w.accepted[s] = max(w.accepted0(s), o.Offset)
		case e.Class == record.Rejected:
			w.refused[o.Offset] = true
		}
	}
	return v
}

// check is called by the partner when a request comes and when it is answered.
func (w *world) check(x exchange, begins bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	keys := map[string]bool{}
	for _, o := range x.orders {
		keys[o.Key] = true
	}
	if !begins {
		if !w.s.ordered() {
			return
		}
		for k := range keys {
			w.flying[w.s.scope(k)] = 0
		}
		return
	}
	w.requests++
	if w.over {
		w.fault("a request with offset %d began after the end of its context", x.orders[0].Offset)
	}
	if w.p.under > w.s.concurrent || w.s.own > 0 && w.p.under > w.s.own {
		w.fault("%d requests at once", w.p.under)
	}
	if w.s.batch > 0 && len(x.orders) > w.s.batch {
		w.fault("%d records in a batch", len(x.orders))
	}
	if !w.s.ordered() {
		return
	}
	scopes := map[string]bool{}
	for k := range keys {
		scopes[w.s.scope(k)] = true
	}
	for s := range scopes {
		if w.flying[s]++; w.flying[s] > 1 {
			w.fault("two requests of key %q at once, with offset %d", s, x.orders[0].Offset)
		}
	}
	last := map[string]int64{}
	for _, o := range x.orders {
		s := w.s.scope(o.Key)
		if before, ok := last[s]; ok && (before >= o.Offset || w.s.each) {
			w.fault("a batch of key %q has %d before %d", s, before, o.Offset)
		}
		last[s] = o.Offset
		for earlier := int64(0); earlier < o.Offset; earlier++ {
			if w.s.scope(w.key(earlier)) == s && earlier > w.accepted0(s) && !w.refused[earlier] && !slices.ContainsFunc(x.orders, func(p order) bool { return p.Offset == earlier }) {
				w.fault("offset %d of key %q was sent before %d", o.Offset, s, earlier)
			}
		}
	}
}

func (w *world) accepted0(scope string) int64 {
	if o, ok := w.accepted[scope]; ok {
		return o
	}
	return -1
}

func (s *scenario) ordered() bool { return s.order != flow.OrderNone }

// scope is what is kept in order with a key.
func (s *scenario) scope(key string) string {
	if s.order == flow.OrderPartition {
		return "all"
	}
	return key
}

// key of a record; the last one is none.
func (w *world) key(offset int64) string {
	k := int(offset*7+offset/3) % w.s.keys
	if k == w.s.keys-1 {
		return ""
	}
	return fmt.Sprint("k", k)
}

// rec is a record; some are too large to be kept.
func (w *world) rec(offset int64) record.Record {
	r := rec(offset, w.key(offset))
	if w.s.large && offset%5 == 4 {
		r.Headers = []record.Header{{Key: "large", Value: make([]byte, 1000)}}
	}
	return r
}

// give delivers items of this life.
func (w *world) give(its []record.Item) {
	if len(its) == 0 {
		return
	}
	w.mu.Lock()
	life, ctx, l := w.life, w.ctx, w.l
	for i := range its {
		w.underWay[its[i].Record.Offset] = true
	}
	w.mu.Unlock()
	answered := make([]bool, len(its))
	l.Deliver(ctx, its, func(i int, o record.Outcome) {
		w.mu.Lock()
		defer w.mu.Unlock()
		r := &its[i].Record
		if answered[i] {
			w.fault("offset %d was answered twice", r.Offset)
		}
		answered[i] = true
		canceled := o.Err != nil && errors.Is(o.Err, context.Canceled)
		if life != w.life {
			return // nobody hears it
		}
		if canceled && !w.over {
			w.fault("offset %d was abandoned: %v", r.Offset, o.Err)
		}
		switch {
		case canceled:
			return
		case o.Keep != nil:
			w.keep(&its[i], o)
			return
		case o.Err == nil:
		default:
			if e := record.AsError(o.Err); e.Class != record.Rejected {
				w.fault("offset %d: %v", r.Offset, o.Err)
			}
		}
		if its[i].Retry != nil {
			w.gone = append(w.gone, r.Offset)
		} else {
			w.done = append(w.done, r.Offset)
		}
	})
}

// keep notes an answer that asks for an entry.
func (w *world) keep(it *record.Item, o record.Outcome) {
	k := o.Keep
	now := time.Now().UnixMilli()
	switch {
	case w.s.order == flow.OrderPartition:
		w.fault("offset %d is kept although its order is the partition's", it.Record.Offset)
	case (k.Hold != 0) != (w.s.order == flow.OrderKey):
		w.fault("offset %d is kept with hold %x", it.Record.Offset, k.Hold)
	case k.Due != 0 && (o.Err == nil || k.Attempts == 0 || k.Due < now-1):
		w.fault("offset %d is kept as %+v at %d", it.Record.Offset, k, now)
	case it.Record.Size() > 1000:
		w.fault("offset %d of %d bytes is kept", it.Record.Offset, it.Record.Size())
	case k.Due == 0 && o.Err != nil:
		w.fault("offset %d is parked with %v", it.Record.Offset, o.Err)
	case k.Due != 0 && it.Retry == nil && w.e.cfg.Conn.Usage().Breaker != Closed:
		w.fault("offset %d is kept while the breaker is %s", it.Record.Offset, w.e.cfg.Conn.Usage().Breaker)
	}
	e := &keptEntry{rec: it.Record, retry: k, due: k.Due}
	if it.Retry != nil {
		e.counts = w.state[it.Record.Offset].counts
	} else {
		e.counts = k.Hold != 0
	}
	w.keeps = append(w.keeps, e)
}

// commit does what the state does with what was answered so far.
func (w *world) commit() {
	w.mu.Lock()
	var forget []uint64
	touched := map[uint64]bool{}
	now := time.Now().UnixMilli()
	for _, o := range w.gone {
		e := w.state[o]
		delete(w.state, o)
		delete(w.underWay, o)
		w.settled[o] = true
		touched[e.retry.Hold] = true
		if e.counts {
			forget = append(forget, e.retry.Hold)
		}
	}
	for _, o := range w.done {
		delete(w.underWay, o)
		w.settled[o] = true
	}
	slices.SortStableFunc(w.keeps, func(a, b *keptEntry) int { return int(a.rec.Offset - b.rec.Offset) })
	for _, e := range w.keeps {
		o := e.rec.Offset
		w.state[o] = e
		w.settled[o] = true
		delete(w.underWay, o)
		if e.due == 0 {
			e.due = now
		}
		if e.retry.Hold == 0 {
			continue
		}
		for _, other := range w.offsets() {
			f := w.state[other]
			same := f.retry.Hold == e.retry.Hold && (e.retry.Group == "" || f.retry.Group != e.retry.Group)
			if same && other < o {
				e.due = 0
			} else if same && other > o {
				f.due = 0
			}
		}
		touched[e.retry.Hold] = true
	}
	w.gone, w.done, w.keeps = nil, nil, nil
	for hold := range touched {
		if hold == 0 {
			continue
		}
		first := true
		for _, o := range w.offsets() {
			if e := w.state[o]; e.retry.Hold == hold {
				if first && e.due != 0 {
					break
				}
				first = false
				e.due = now
			}
		}
	}
	l := w.l
	w.mu.Unlock()
	for _, h := range forget {
		l.Forget(h)
	}
}

// due gives what is due, at most n.
func (w *world) due(n int) {
	w.mu.Lock()
	now := time.Now().UnixMilli()
	var its []record.Item
	offsets := w.offsets()
	slices.SortStableFunc(offsets, func(a, b int64) int { return int(w.state[a].due - w.state[b].due) })
	for _, o := range offsets {
		e := w.state[o]
		if e.due != 0 && e.due <= now && !w.underWay[o] && len(its) < n {
			its = append(its, record.Item{Record: w.rec(o), Retry: e.retry})
		}
	}
	w.mu.Unlock()
	w.give(its)
}

func (w *world) deliver(n int) {
	var its []record.Item
	w.mu.Lock()
	for range n {
		its = append(its, record.Item{Record: w.rec(w.next)})
		w.next++
	}
	w.mu.Unlock()
	w.give(its)
}

// restart is a crash, and a new life that reads what was not committed again.
func (w *world) restart(hard bool) {
	if hard {
		w.mu.Lock()
		w.life++
		w.over = true
		w.mu.Unlock()
		w.cancel()
		_ = w.e.Close()
	} else { // in order: what is under way is finished
		w.mu.Lock()
		w.over = true
		w.mu.Unlock()
		w.cancel()
		time.Sleep(time.Minute)
		synctest.Wait()
		w.commit()
		w.mu.Lock()
		w.life++
		w.mu.Unlock()
		w.l.Close()
		_ = w.e.Close()
	}
	synctest.Wait()
	w.mu.Lock()
	// A request that was cut off may have been taken; what it was is sent
	// again, so the order that is judged begins anew.
	clear(w.flying)
	clear(w.underWay)
	w.gone, w.done, w.keeps = nil, nil, nil
	var again []record.Item
	for o := range w.next {
		if !w.settled[o] {
			again = append(again, record.Item{Record: w.rec(o)})
		}
	}
	w.start()
	w.mu.Unlock()
	w.give(again)
}
