package quickstart

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/examples/orders/gen"
)

// follower reads the output topic from a position on and keeps what check
// needs of every record.
type follower struct {
	client *kgo.Client

	mu       sync.Mutex
	next     positions      // guarded by mu
	outputs  []output       // guarded by mu, in the order of arrival
	arrivals []time.Time    // guarded by mu, of outputs
	first    map[int]int    // guarded by mu, index into outputs of an order's first one
	values   map[int][]byte // guarded by mu, of the orders below keepValues
	top      int            // guarded by mu
	err      error          // guarded by mu
}

// keepValues is how many orders' outputs are kept whole, for samples.
const keepValues = 100

// follow makes a follower that reads from the given ends on.
func follow(broker string, from positions) (*follower, error) {
	at := map[int32]kgo.Offset{}
	next := positions{}
	for p, o := range from {
		at[p] = kgo.NewOffset().At(o)
		next[p] = o
	}
	cl, err := newClient(broker, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{outputTopic: at}))
	if err != nil {
		return nil, err
	}
	return &follower{client: cl, next: next, first: map[int]int{}, values: map[int][]byte{}}, nil
}

// run reads until ctx ends.
func (f *follower) run(ctx context.Context) error {
	defer f.client.Close()
	for {
		fetches := f.client.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		now := time.Now()
		if err := f.add(fetches, now); err != nil {
			return err
		}
	}
}

func (f *follower) add(fetches kgo.Fetches, now time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	fetches.EachError(func(topic string, p int32, err error) {
		if f.err == nil {
			f.err = fmt.Errorf("read topic %s, partition %d: %w", topic, p, err)
		}
	})
	fetches.EachRecord(func(r *kgo.Record) {
		if r.Offset != f.next[r.Partition] && f.err == nil {
			f.err = fmt.Errorf("read topic %s, partition %d: got offset %d, want %d", r.Topic, r.Partition, r.Offset, f.next[r.Partition])
		}
		f.next[r.Partition] = r.Offset + 1
		o := output{order: orderNumber(r.Value), sum: gen.SumOf(r.Key, r.Value), partition: r.Partition, offset: r.Offset}
		if _, ok := f.first[o.order]; !ok && o.order >= 0 {
			f.first[o.order] = len(f.outputs)
			if o.order < keepValues {
				f.values[o.order] = slices.Clone(r.Value)
			}
		}
		f.top = max(f.top, o.order+1)
		f.outputs = append(f.outputs, o)
		f.arrivals = append(f.arrivals, now)
	})
	return f.err
}

// distinct is how many orders have arrived.
func (f *follower) distinct() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.first)
}

// highest is how many orders there are up to the latest that has arrived.
func (f *follower) highest() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.top
}

// caughtUp reports whether everything below ends was read.
func (f *follower) caughtUp(ends positions) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for p, end := range ends {
		if f.next[p] < end {
			return false
		}
	}
	return true
}

// all are the outputs by partition, in the order of their offsets.
func (f *follower) all() []output {
	f.mu.Lock()
	defer f.mu.Unlock()
	outs := slices.Clone(f.outputs)
	slices.SortFunc(outs, func(a, b output) int {
		return cmp.Or(cmp.Compare(a.partition, b.partition), cmp.Compare(a.offset, b.offset))
	})
	return outs
}

// arrivedBetween counts the outputs that arrived from one moment up to another.
func (f *follower) arrivedBetween(from, to time.Time) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, at := range f.arrivals {
		if !at.Before(from) && at.Before(to) {
			n++
		}
	}
	return n
}

// longestPause is the longest time between two arrivals that follow one
// another, of those pauses that touch the time from one moment to another; 0
// if there is none.
func (f *follower) longestPause(from, to time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	var longest time.Duration
	for i := len(f.arrivals) - 1; i > 0 && f.arrivals[i].After(from); i-- {
		if before := f.arrivals[i-1]; before.Before(to) {
			longest = max(longest, f.arrivals[i].Sub(before))
		}
	}
	return longest
}

// lastArrival is when the newest output arrived; zero if none did.
func (f *follower) lastArrival() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.arrivals) == 0 {
		return time.Time{}
	}
	return f.arrivals[len(f.arrivals)-1]
}

// arrival is when an order arrived first.
func (f *follower) arrival(order int) (time.Time, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, ok := f.first[order]
	if !ok {
		return time.Time{}, false
	}
	return f.arrivals[i], true
}

// value is what arrived first of an order below keepValues.
func (f *follower) value(order int) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.values[order]
}
