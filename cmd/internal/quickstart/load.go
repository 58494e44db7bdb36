package quickstart

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/examples/orders/gen"
)

// seed of the generator: the same orders in every run.
const seed = 1

// sample is an order as it was produced.
type sample struct {
	order int
	value []byte
}

// load produces order events and keeps what must become of each.
type load struct {
	client *kgo.Client
	gen    *gen.Generator
	buf    []byte

	events []sent
	// at is when the paced events were produced, from number pacedFrom on.
	at        []time.Time
	pacedFrom int
	samples   []sample // the first to be emitted

	produced atomic.Int64 // handed to the client
	wg       sync.WaitGroup

	mu  sync.Mutex
	err error // guarded by mu, the first of a record
}

// maxSamples is how many orders are shown before and after.
const maxSamples = 5

func newLoad(broker string, records int) (*load, error) {
	cl, err := newClient(broker, kgo.MaxBufferedRecords(5000))
	if err != nil {
		return nil, err
	}
	return &load{client: cl, gen: gen.New(seed), events: make([]sent, 0, records)}, nil
}

// produce sends n more events and returns when the broker has all of them.
// With a rate, in records a second, it paces them and keeps the times.
func (l *load) produce(ctx context.Context, n, rate int) error {
	if rate > 0 {
		l.pacedFrom, l.at = len(l.events), make([]time.Time, n)
	}
	start := time.Now()
	for i := range n {
		if rate > 0 {
			if err := sleepUntil(ctx, start.Add(time.Duration(i)*time.Second/time.Duration(rate))); err != nil {
				return err
			}
		}
		if err := l.one(ctx, rate > 0); err != nil {
			return err
		}
	}
	l.wg.Wait()
	return l.failed()
}

func (l *load) one(ctx context.Context, paced bool) error {
	e := l.gen.Next()
	var s sent
	s, l.buf = expect(e, l.buf)
	order := len(l.events)
	l.events = append(l.events, s) // never beyond its capacity: it does not move
	event := &l.events[order]
	if s.mark == gen.Emit && len(l.samples) < maxSamples && order < keepValues {
		l.samples = append(l.samples, sample{order, e.Value})
	}
	if paced {
		l.at[order-l.pacedFrom] = time.Now()
	}
	l.wg.Add(1)
	l.client.Produce(ctx, &kgo.Record{Topic: sourceTopic, Key: e.Key, Value: e.Value}, func(r *kgo.Record, err error) {
		defer l.wg.Done()
		if err != nil {
			l.fail(fmt.Errorf("produce order %d to topic %s: %w", order, sourceTopic, err))
			return
		}
		event.partition, event.offset = r.Partition, r.Offset
	})
	l.produced.Add(1)
	return l.failed()
}

func (l *load) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
	}
}

func (l *load) failed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// ends are the positions behind the events produced so far.
func (l *load) ends() positions {
	ends := positions{}
	for _, e := range l.events {
		ends[e.partition] = max(ends[e.partition], e.offset+1)
	}
	return ends
}

// pacingStep is how finely the paced events are spread.
const pacingStep = time.Millisecond

func sleepUntil(ctx context.Context, t time.Time) error {
	d := time.Until(t)
	if d < pacingStep {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
