package delivery

import (
	"fmt"
	"time"
)

// Defaults of a BreakerConfig.
const (
	DefaultBreakerFailures = 5
	DefaultBreakerProbe    = 5 * time.Second
)

// BreakerConfig says when a connection counts as down. The zero value of a
// field is its default.
type BreakerConfig struct {
	// Failures one after the other that open the breaker, if no request
	// succeeded for a second; ten times as many open it at once. A failure is
	// a request without an answer, a status of 500 and above, or an access
	// token that cannot be had. 408 and 429 are no failures: the other side
	// works and asks for patience. Default 5; below 0 the breaker never opens.
	Failures int
	// Probe is how long it is open before one request is let through. If
	// that succeeds it closes, else it is open for as long again. Default 5 s.
	Probe time.Duration
}

const (
	// breakerRun is how long nothing may have succeeded before a run of
	// Failures counts, unless it is breakerSure times as long.
	breakerRun  = time.Second
	breakerSure = 10
	// It also opens where breakerRatio of at least breakerLeast requests of
	// the last breakerSpan failed.
	breakerRatio = 0.5
	breakerLeast = 20
	breakerSpan  = 10 * time.Second
	breakerCells = 10
)

// BreakerState is how a connection's breaker stands.
type BreakerState string

const (
	// Closed lets requests through.
	Closed BreakerState = "closed"
	// Open holds all of them back.
	Open BreakerState = "open"
	// HalfOpen lets one through, whose outcome decides.
	HalfOpen BreakerState = "half-open"
)

// breaker is the state behind BreakerConfig. Its owner guards it.
type breaker struct {
	cfg   BreakerConfig
	state BreakerState
	since time.Time // of state
	cause string    // why it opened
	// last is the failure that opened it, probed that of the last probe.
	last, probed string
	// generation tells apart requests that began before the breaker last
	// opened or closed: what became of them says nothing any more.
	generation uint64

	run      int       // failures since the last success
	runSince time.Time // when nothing had failed for the last time
	cells    [breakerCells]struct{ at, ok, failed int64 }

	opened time.Time     // when it last left Closed
	shut   time.Duration // how long it was not closed, without the present time
}

func newBreaker(cfg BreakerConfig, now time.Time) *breaker {
	if cfg.Failures == 0 {
		cfg.Failures = DefaultBreakerFailures
	}
	if cfg.Probe <= 0 {
		cfg.Probe = DefaultBreakerProbe
	}
	return &breaker{cfg: cfg, state: Closed, since: now}
}

// reason is why the breaker is not closed: what opened it, and what the last
// attempt to close it met where that is another thing. A partner that goes on
// failing in the same way has the same reason.
func (b *breaker) reason() string {
	if b.probed == "" || b.probed == b.last {
		return b.cause
	}
	return b.cause + "; now: " + b.probed
}

// shownSince is when it closed, or when it last left that state.
func (b *breaker) shownSince() time.Time {
	if b.state == Closed {
		return b.since
	}
	return b.opened
}

// shutFor is how long the breaker has not been closed, in all.
func (b *breaker) shutFor(now time.Time) time.Duration {
	if b.state == Closed {
		return b.shut
	}
	return b.shut + now.Sub(b.opened)
}

// success notes an answer; it reports whether that closed the breaker.
func (b *breaker) success(generation uint64, now time.Time) bool {
	if generation != b.generation {
		return false
	}
	b.run = 0
	if b.state == Closed {
		b.cell(now).ok++
		return false
	}
	b.shut += now.Sub(b.opened)
	b.become(Closed, now)
	b.generation++
	b.cause, b.last, b.probed = "", "", ""
	clear(b.cells[:])
	return true
}

// failure notes that there was none; it reports whether that opened the
// breaker.
func (b *breaker) failure(generation uint64, now time.Time, why string) bool {
	if generation != b.generation || b.cfg.Failures < 0 {
		return false
	}
	if b.state != Closed { // the probe failed
		b.probed = why
		b.become(Open, now)
		b.generation++
		return true
	}
	if b.run == 0 {
		b.runSince = now
	}
	b.run++
	b.cell(now).failed++
	switch ok, failed := b.counts(now); {
	case b.run >= b.cfg.Failures*breakerSure, b.run >= b.cfg.Failures && now.Sub(b.runSince) >= breakerRun:
		b.cause = fmt.Sprintf("%d requests one after the other failed, the last one with: %s", b.run, why)
	case ok+failed >= breakerLeast && float64(failed) >= breakerRatio*float64(ok+failed):
		b.cause = fmt.Sprintf("%d of the last %d requests failed, the last one with: %s", failed, ok+failed, why)
	default:
		return false
	}
	b.opened, b.run, b.last = now, 0, why
	b.become(Open, now)
	b.generation++
	return true
}

func (b *breaker) become(s BreakerState, now time.Time) { b.state, b.since = s, now }

// probeAt is when an open breaker lets a request through.
func (b *breaker) probeAt() time.Time { return b.since.Add(b.cfg.Probe) }

func (b *breaker) cell(now time.Time) *struct{ at, ok, failed int64 } {
	at := now.UnixNano() / int64(breakerSpan/breakerCells)
	c := &b.cells[at%breakerCells]
	if c.at != at {
		*c = struct{ at, ok, failed int64 }{at: at}
	}
	return c
}

func (b *breaker) counts(now time.Time) (ok, failed int64) {
	at := now.UnixNano() / int64(breakerSpan/breakerCells)
	for i := range b.cells {
		if c := &b.cells[i]; c.at > at-breakerCells && c.at <= at {
			ok, failed = ok+c.ok, failed+c.failed
		}
	}
	return ok, failed
}
