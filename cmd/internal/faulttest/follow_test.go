//go:build linux

package faulttest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/examples/orders/gen"
)

// offsets are positions by partition.
type offsets map[int32]int64

func (o offsets) total() (n int64) {
	for _, at := range o {
		n += at
	}
	return n
}

// output is one record of the output topic.
type output struct {
	number    int // of the event; -1 if there is none
	sum       gen.Sum
	partition int32
	offset    int64
	arrived   time.Time
}

// follower reads a topic from its start on.
type follower struct {
	mu      sync.Mutex
	next    offsets  // guarded by mu
	outputs []output // guarded by mu, in the order of arrival
	err     error    // guarded by mu
}

// follow reads the topic until the test ends.
func follow(t *testing.T, broker, topic string, partitions int32) *follower {
	t.Helper()
	from := map[int32]kgo.Offset{}
	for p := range partitions {
		from[p] = kgo.NewOffset().At(0)
	}
	cl := newClient(t, broker, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}))
	f := &follower{next: offsets{}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			f.add(cl.PollFetches(ctx))
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return f
}

func (f *follower) add(fetches kgo.Fetches) {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	fetches.EachRecord(func(r *kgo.Record) {
		if r.Offset != f.next[r.Partition] && f.err == nil {
			f.err = fmt.Errorf("read %s/%d: got offset %d, want %d", r.Topic, r.Partition, r.Offset, f.next[r.Partition])
		}
		f.next[r.Partition] = r.Offset + 1
		f.outputs = append(f.outputs, output{number: number(r.Headers), sum: gen.SumOf(r.Key, r.Value), partition: r.Partition, offset: r.Offset, arrived: now})
	})
}

func number(headers []kgo.RecordHeader) int {
	for _, h := range headers {
		if h.Key == numberHeader {
			if n, err := strconv.Atoi(string(h.Value)); err == nil {
				return n
			}
		}
	}
	return -1
}

// upTo waits until everything below ends was read.
func (f *follower) upTo(t *testing.T, ends offsets) {
	t.Helper()
	await(t, 20*time.Second, "the reader of the output", func() (bool, string) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.err != nil {
			t.Fatal(f.err)
		}
		for p, end := range ends {
			if f.next[p] < end {
				return false, fmt.Sprintf("at %v of %v", f.next, ends)
			}
		}
		return true, ""
	})
}

// arrivedSince counts the outputs below ends that arrived at or after a
// moment, and of those at or above from the ones that arrived before it.
func (f *follower) arrivedSince(moment time.Time, from, ends offsets) (since, before int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := len(f.outputs) - 1; i >= 0; i-- {
		switch o := &f.outputs[i]; {
		case o.offset >= ends[o.partition]:
		case !o.arrived.Before(moment):
			since++
		case o.offset >= from[o.partition]:
			before++
		}
	}
	return since, before
}

// count is how many outputs were read.
func (f *follower) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.outputs)
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
