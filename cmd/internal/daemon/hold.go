package daemon

import (
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/millrace-io/millrace/cluster/state"
)

// Why a flow holds itself back, for metrics and listings.
const (
	heldByBreaker = "breaker"
	heldByEntries = "pause_at"
	heldByRate    = "spill_rate"
	heldByBytes   = "spill_bytes"
)

// held is why a flow takes nothing in just now; the zero held is a flow that
// does.
type held struct {
	kind, reason string
	since        time.Time
}

// pressure is what decides whether a flow holds itself back.
type pressure struct {
	// breaker is why a delivery lets nothing through, "" if all do, or if
	// nothing is there to try with whether its partner is back; shut: a partner
	// is believed to be down all the same.
	breaker string
	shut    bool
	// entries of the flow, kept and filed; pauseAt 0: they hold nothing back.
	entries           uint64
	pauseAt, resumeAt int
	// spill is the kind of budget that is used up, "" if none is, and why.
	spill, spillReason string
}

// holder decides when a flow holds itself back and when it goes on. What it
// decides is of this life of the flow and in no log: a restart looks anew.
type holder struct {
	mu     sync.Mutex
	now    held             // guarded by mu
	open   time.Time        // guarded by mu; since when breaker is "" while shut
	pauses map[string]int64 // guarded by mu; by kind
}

// patience is how long a flow whose partner is down waits for a kept record to
// try it with, before it takes in another one.
const patience = 3 * time.Second

// decide takes pressure into account. It reports whether the flow begins to
// hold itself back, changes why, or goes on.
func (h *holder) decide(p pressure, at time.Time) (now held, changed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	next := held{}
	if p.breaker != "" || !p.shut {
		h.open = at
	}
	switch {
	case p.breaker != "":
		next = held{kind: heldByBreaker, reason: p.breaker}
	case p.shut && h.now.kind == heldByBreaker && at.Sub(h.open) < patience:
		next = h.now // a kept record may try it yet
	case p.pauseAt > 0 && (p.entries >= uint64(p.pauseAt) || h.now.kind == heldByEntries && p.entries > uint64(p.resumeAt)):
		next = held{kind: heldByEntries, reason: fmt.Sprintf("%d records are kept for another attempt or filed in the failure queue; it holds back at %d and goes on at %d (limits: pause_at, resume_at)", p.entries, p.pauseAt, p.resumeAt)}
	case p.spill != "":
		next = held{kind: p.spill, reason: p.spillReason}
	}
	changed = next.kind != h.now.kind
	if changed {
		next.since = at
		if next.kind != "" {
			if h.pauses == nil {
				h.pauses = map[string]int64{}
			}
			h.pauses[next.kind]++
		}
	} else {
		next.since = h.now.since
	}
	h.now = next
	return next, changed
}

// current is why the flow holds itself back now, and how often it did.
func (h *holder) current() (held, map[string]int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now, maps.Clone(h.pauses)
}

// A budget is used up at 80 % and free again at 50 %.
const (
	budgetFull = 80
	budgetFree = 50
)

// spillSpan is the time over which the rate of spills is taken.
const (
	spillSpan  = time.Second
	spillSlots = 10
)

// spillBudget bounds what the flows of a node bring into the state to wait
// there: records a second, and bytes in all. It is safe for concurrent use.
type spillBudget struct {
	rate, bytes int64
	began       time.Time

	mu    sync.Mutex
	slots [spillSlots]int64       // guarded by mu; records by tenths of a second
	slot  int64                   // guarded by mu; the tenth that was last written
	kept  map[state.FlowID]uint64 // guarded by mu; bytes
	fast  bool                    // guarded by mu; the rate is used up
	heavy bool                    // guarded by mu; the bytes are
}

func newSpillBudget(rate, bytes int64) *spillBudget {
	return &spillBudget{rate: rate, bytes: bytes, began: time.Now(), kept: map[state.FlowID]uint64{}}
}

// spilled counts records that went into the state at a time.
func (b *spillBudget) spilled(n int, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.roll(at)
	b.slots[b.slot%spillSlots] += int64(n)
}

// roll moves on to the tenth of a second of a time; mu is held.
func (b *spillBudget) roll(at time.Time) {
	now := int64(at.Sub(b.began) / (spillSpan / spillSlots))
	for n := 0; b.slot < now && n < spillSlots; n++ {
		b.slot++
		b.slots[b.slot%spillSlots] = 0
	}
	b.slot = max(b.slot, now)
}

// keeps says what a flow has in the state; 0: nothing.
func (b *spillBudget) keeps(f state.FlowID, bytes uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if bytes == 0 {
		delete(b.kept, f)
	} else {
		b.kept[f] = bytes
	}
}

// used is the kind of budget that is used up at a time, and why; "" if none
// is.
func (b *spillBudget) used(at time.Time) (kind, reason string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.roll(at)
	var rate, bytes int64
	for _, n := range b.slots {
		rate += n
	}
	for _, n := range b.kept {
		bytes += int64(n)
	}
	b.fast = full(b.fast, rate, b.rate)
	b.heavy = full(b.heavy, bytes, b.bytes)
	switch {
	case b.heavy:
		return heldByBytes, fmt.Sprintf("the node keeps %d of %d MiB of records for another attempt; it goes on at %d %% (limits: spill_bytes)", bytes>>20, b.bytes>>20, budgetFree)
	case b.fast:
		return heldByRate, fmt.Sprintf("%d records were put aside within a second, of %d; it goes on at %d %% (limits: spill_rate)", rate, b.rate, budgetFree)
	}
	return "", ""
}

func full(was bool, have, of int64) bool {
	if was {
		return have*100 > of*budgetFree
	}
	return have*100 >= of*budgetFull
}

// meter tells how fast a counter rises. Whoever asks often gets the figure of
// about the last second. The zero meter is ready.
type meter struct {
	mu     sync.Mutex
	at     time.Time // guarded by mu
	count  int64     // guarded by mu; at that time
	before float64   // guarded by mu; what was told last
}

// perSecond takes what the counter is at a time.
func (m *meter) perSecond(count int64, at time.Time) float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	took := at.Sub(m.at)
	if took >= time.Second {
		if !m.at.IsZero() {
			m.before = float64(count-m.count) / took.Seconds()
		}
		m.at, m.count = at, count
	}
	return m.before
}
