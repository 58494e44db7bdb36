package delivery

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
	"github.com/millrace-io/millrace/runtime/retry"
)

// Patient gives what a sink could not take for a passing reason to it again,
// as a policy says, and blocks meanwhile: head of line waits. It is for sinks
// that answer before their Deliver returns and keep the order themselves.
type Patient struct {
	Sink
	policy retry.Policy
}

// NewPatient wraps a sink.
func NewPatient(s Sink, p retry.Policy) *Patient { return &Patient{Sink: s, policy: p} }

// Deliver implements pipeline.Delivery.
func (p *Patient) Deliver(ctx context.Context, recs []record.Record, done func(i int, err error)) {
	first := time.Now()
	at := make([]int, len(recs)) // what is still to be delivered
	for i := range at {
		at[i] = i
	}
	for attempt := uint32(1); ; attempt++ {
		now := make([]record.Record, len(at))
		for n, i := range at {
			recs[i].Attempt = max(recs[i].Attempt, attempt)
			now[n] = recs[i]
		}
		var again []int
		var wait time.Duration
		p.Sink.Deliver(ctx, now, func(n int, err error) {
			if e := record.AsError(err); e != nil && e.Class.Transient() {
				d := p.policy.Decide(retry.Failure{Err: e, Attempt: attempt, Elapsed: time.Since(first), Rand: rand.Float64()})
				if d.Action == retry.Again {
					again, wait = append(again, at[n]), max(wait, d.After)
					return
				}
			}
			done(at[n], err)
		})
		if len(again) == 0 {
			return
		}
		at = again
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			for _, i := range at {
				done(i, fmt.Errorf("not sent again: %w", context.Canceled))
			}
			return
		}
	}
}
