// Package delivery brings records to a sink that takes one request at a time:
// it shapes the request, makes attempts until one counts, and keeps the order
// that the flow asks for.
//
// It makes no connection and knows no protocol: an Attempt does, which the
// daemon composes from a Builder and a connector.
package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
	"github.com/millrace-io/millrace/runtime/retry"
)

// DefaultConcurrent is how many requests are under way at once.
const DefaultConcurrent = 16

// Attempt makes one attempt to deliver a record. It returns nil once the sink
// has taken it, else a classified error. Many goroutines call it at once.
type Attempt func(ctx context.Context, r *record.Record) error

// Config describes a Requests. The zero value of a field is its default.
type Config struct {
	// InOrder delivers the records of one call of Deliver one after the
	// other: head of line waits. Otherwise they go in parallel.
	InOrder bool
	// HoldBack, in order, holds back the records behind one that cannot be
	// delivered: the flow pauses there.
	HoldBack bool
	// Slots limits the requests under way; deliveries of one connection may
	// share it. nil: DefaultConcurrent of its own.
	Slots  Slots
	Policy retry.Policy
	// OnRetry is called for each attempt after a record's first; may be nil.
	OnRetry func()
	// Now is the clock and Rand a source of numbers in [0, 1); nil: the
	// system's.
	Now    func() time.Time
	Rand   func() float64
	Logger *slog.Logger
}

// Slots are places for requests under way.
type Slots chan struct{}

// NewSlots makes n places.
func NewSlots(n int) Slots { return make(Slots, n) }

// Requests delivers records by one request each. It is the Delivery of a
// pipeline.
type Requests struct {
	cfg     Config
	attempt Attempt
	hard    context.Context // ends with Close
	close   context.CancelFunc
	wg      sync.WaitGroup

	mu      sync.Mutex
	closed  bool // guarded by mu
	trouble atomic.Pointer[string]
}

// NewRequests makes a delivery out of an attempt.
func NewRequests(cfg Config, attempt Attempt) *Requests {
	if cfg.Slots == nil {
		cfg.Slots = NewSlots(DefaultConcurrent)
	}
	if cfg.OnRetry == nil {
		cfg.OnRetry = func() {}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Float64
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Requests{cfg: cfg, attempt: attempt}
	r.hard, r.close = context.WithCancel(context.Background())
	return r
}

// Deliver implements pipeline.Delivery. When ctx ends no new attempt starts;
// the one under way is finished unless Close cuts it. In order, a record that
// pauses the flow or stops the lane holds back those behind it, and with
// HoldBack any that cannot be delivered.
func (r *Requests) Deliver(ctx context.Context, recs []record.Record, done func(i int, err error)) {
	for i := range recs {
		if err := r.enter(ctx); err != nil {
			abandon(recs, i, err, done)
			return
		}
		if !r.cfg.InOrder {
			go func() {
				defer r.wg.Done()
				done(i, r.deliver(ctx, &recs[i]))
			}()
			continue
		}
		err := r.deliver(ctx, &recs[i])
		r.wg.Done()
		done(i, err)
		if r.holdsBack(err) {
			abandon(recs, i+1, fmt.Errorf("held back: %w", context.Canceled), done)
			return
		}
	}
}

// holdsBack reports whether the records behind one with this outcome wait.
func (r *Requests) holdsBack(err error) bool {
	if err == nil || r.cfg.HoldBack || errors.Is(err, context.Canceled) {
		return err != nil
	}
	e := record.AsError(err)
	return e.Class.PausesFlow() || e.Class == record.Fenced
}

func abandon(recs []record.Record, from int, err error, done func(int, error)) {
	for i := from; i < len(recs); i++ {
		done(i, err)
	}
}

// enter takes a slot, and a place among the goroutines that Close waits for.
func (r *Requests) enter(ctx context.Context) error {
	select {
	case r.cfg.Slots <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("not sent: %w", context.Canceled)
	case <-r.hard.Done():
		return fmt.Errorf("not sent, the delivery is closed: %w", context.Canceled)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || ctx.Err() != nil {
		<-r.cfg.Slots
		return fmt.Errorf("not sent: %w", context.Canceled)
	}
	r.wg.Add(1)
	return nil
}

// deliver makes attempts until one counts. It is entered with a slot taken and
// gives it back while it waits and when it returns.
func (r *Requests) deliver(ctx context.Context, rec *record.Record) error {
	first := r.cfg.Now()
	rec.Attempt = max(rec.Attempt, 1)
	for {
		err := r.attempt(r.hard, rec)
		<-r.cfg.Slots
		if err == nil {
			r.trouble.Store(nil)
			return nil
		}
		if r.hard.Err() != nil {
			return fmt.Errorf("cut off: %w", context.Canceled)
		}
		e := record.AsError(err)
		d := r.cfg.Policy.Decide(retry.Failure{Err: e, Attempt: rec.Attempt, Elapsed: r.cfg.Now().Sub(first), Rand: r.cfg.Rand()})
		if d.Action != retry.Again {
			if d.Action == retry.GiveUp && !e.Class.Transient() {
				r.trouble.Store(nil) // the partner answers, if only to say no
			}
			return e
		}
		said := fmt.Sprintf("record %s: %v (attempt %d, next in %s)", rec.ID(), e, rec.Attempt, d.After.Round(time.Millisecond))
		r.trouble.Store(&said)
		if err := r.wait(ctx, d.After); err != nil {
			return err
		}
		rec.Attempt++
		r.cfg.OnRetry()
	}
}

// wait lets d pass and takes a slot again.
func (r *Requests) wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return fmt.Errorf("not sent again: %w", context.Canceled)
	case <-r.hard.Done():
		return fmt.Errorf("not sent again: %w", context.Canceled)
	}
	select {
	case r.cfg.Slots <- struct{}{}:
		return nil
	case <-ctx.Done():
	case <-r.hard.Done():
	}
	return fmt.Errorf("not sent again: %w", context.Canceled)
}

// Problem implements pipeline.Delivery: the last attempt's failure while it is
// tried again.
func (r *Requests) Problem() string {
	if p := r.trouble.Load(); p != nil {
		return *p
	}
	return ""
}

// Close cuts off what is under way and waits for it. It is idempotent.
func (r *Requests) Close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.close()
	r.wg.Wait()
	return nil
}
