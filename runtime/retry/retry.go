// Package retry decides what becomes of a failure. It decides and does
// nothing: who asks waits, gives the record up or stops.
package retry

import (
	"time"

	"github.com/millrace-io/millrace/runtime/record"
)

// Defaults of a Policy.
const (
	DefaultFirst = 100 * time.Millisecond
	DefaultMax   = 30 * time.Second
)

// MaxRetryAfter bounds what the other side may ask us to wait.
const MaxRetryAfter = time.Hour

// Policy is the retry setting of a stage or delivery. The zero value tries
// transient failures for ever with the default delays.
type Policy struct {
	// First is the shortest delay, Max the longest; 0 is the default.
	First, Max time.Duration
	// Attempts is how many are made in all; 0 is no limit.
	Attempts uint32
	// Within is how long after the first attempt a last one may start; 0 is
	// no limit.
	Within time.Duration
}

// Failure is what the decision depends on.
type Failure struct {
	Err *record.Error
	// Attempt that failed, from 1.
	Attempt uint32
	// Elapsed since the first attempt.
	Elapsed time.Duration
	// Rand is uniform in [0, 1).
	Rand float64
}

// Action is what to do about a failure.
type Action uint8

const (
	// Again: make another attempt after Decision.After.
	Again Action = iota
	// GiveUp: the record goes where its stage's `otherwise` says.
	GiveUp
	// Pause: the flow cannot work; pause it with the reason.
	Pause
	// Stop: the partition has another owner; drop everything in memory.
	Stop
)

// Decision is the answer.
type Decision struct {
	Action Action
	After  time.Duration
}

// Decide says what becomes of f. Delays grow twofold from First to Max with
// full jitter between First and the ceiling of the attempt; a longer
// Retry-After wins, up to MaxRetryAfter.
func (p Policy) Decide(f Failure) Decision {
	switch {
	case f.Err.Class == record.Fenced:
		return Decision{Action: Stop}
	case f.Err.Class.PausesFlow():
		return Decision{Action: Pause}
	case !f.Err.Class.Transient():
		return Decision{Action: GiveUp}
	case p.Attempts > 0 && f.Attempt >= p.Attempts:
		return Decision{Action: GiveUp}
	}
	first, ceiling := p.First, p.Max
	if first <= 0 {
		first = DefaultFirst
	}
	if ceiling <= 0 {
		ceiling = DefaultMax
	}
	top := min(first, ceiling)
	for n := uint32(1); n < f.Attempt && top < ceiling; n++ {
		top = min(2*top, ceiling)
	}
	first = min(first, ceiling)
	after := first + time.Duration(f.Rand*float64(top-first))
	after = max(after, min(f.Err.RetryAfter, MaxRetryAfter))
	if p.Within > 0 && f.Elapsed+after > p.Within {
		return Decision{Action: GiveUp}
	}
	return Decision{Action: Again, After: after}
}
