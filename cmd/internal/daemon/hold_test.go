package daemon

import (
	"testing"
	"time"
)

func TestHoldHasHysteresis(t *testing.T) {
	var h holder
	at := time.Unix(1, 0)
	limits := func(n uint64) pressure { return pressure{entries: n, pauseAt: 100, resumeAt: 20} }
	for i, step := range []struct {
		p       pressure
		kind    string
		changed bool
	}{
		{limits(99), "", false},
		{limits(100), heldByEntries, true},
		{limits(21), heldByEntries, false},
		{limits(20), "", true},
		{limits(99), "", false},
		{pressure{breaker: "down"}, heldByBreaker, true},
		{pressure{breaker: "down", entries: 500, pauseAt: 100, resumeAt: 20}, heldByBreaker, false},
		{limits(50), "", true},
		{pressure{spill: heldByRate, spillReason: "fast"}, heldByRate, true},
		{pressure{spill: heldByBytes, spillReason: "heavy"}, heldByBytes, true},
		{pressure{}, "", true},
	} {
		now, changed := h.decide(step.p, at)
		if now.kind != step.kind || changed != step.changed || (now.reason == "") != (step.kind == "") {
			t.Errorf("step %d: %+v, changed %v, want %q, %v", i, now, changed, step.kind, step.changed)
		}
	}
	if _, pauses := h.current(); pauses[heldByEntries] != 1 || pauses[heldByBreaker] != 1 || pauses[heldByRate] != 1 || pauses[heldByBytes] != 1 {
		t.Errorf("pauses %v", pauses)
	}
}

// Between two probes a partner that is down lets a flow neither go on nor hold
// itself back anew.
func TestHoldIsPatient(t *testing.T) {
	var h holder
	down := pressure{breaker: "down", shut: true}
	for i, step := range []struct {
		p    pressure
		ms   int
		kind string
	}{
		{down, 0, heldByBreaker},
		{pressure{shut: true}, 200, heldByBreaker},
		{pressure{shut: true}, 2900, heldByBreaker},
		{down, 3000, heldByBreaker},
		{pressure{shut: true}, 5900, heldByBreaker},
		{pressure{shut: true}, 6100, ""},
		{pressure{shut: true}, 6300, ""},
		{down, 7000, heldByBreaker},
		{pressure{}, 7200, ""},
	} {
		if now, _ := h.decide(step.p, time.UnixMilli(int64(step.ms))); now.kind != step.kind {
			t.Errorf("step %d: %q, want %q", i, now.kind, step.kind)
		}
	}
	if _, pauses := h.current(); pauses[heldByBreaker] != 2 {
		t.Errorf("pauses %v", pauses)
	}
}

func TestSpillBudget(t *testing.T) {
	b := newSpillBudget(1000, 1<<20)
	at := func(ms int) time.Time { return b.began.Add(time.Duration(ms) * time.Millisecond) }
	b.spilled(799, at(0))
	if kind, why := b.used(at(10)); kind != "" {
		t.Errorf("below 80 %%: %s %s", kind, why)
	}
	b.spilled(1, at(50))
	for ms, want := range map[int]string{60: heldByRate} {
		if kind, _ := b.used(at(ms)); kind != want {
			t.Errorf("at %d ms: %q, want %q", ms, kind, want)
		}
	}
	b.spilled(600, at(900))
	if kind, _ := b.used(at(1500)); kind != heldByRate {
		t.Errorf("at 60 %%: %q", kind)
	}
	if kind, _ := b.used(at(2500)); kind != "" {
		t.Errorf("a second later: %q", kind)
	}
	b.keeps(1, 500<<10)
	b.keeps(2, 400<<10)
	if kind, _ := b.used(at(9000)); kind != heldByBytes {
		t.Errorf("at 88 %% of the bytes: %q", kind)
	}
	b.keeps(2, 100<<10)
	if kind, _ := b.used(at(9100)); kind != heldByBytes {
		t.Errorf("at 59 %% of the bytes: %q", kind)
	}
	b.keeps(1, 0)
	if kind, _ := b.used(at(9200)); kind != "" {
		t.Errorf("at 10 %% of the bytes: %q", kind)
	}
}
