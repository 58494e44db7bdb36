//go:build linux

package faulttest

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/examples/orders/gen"
	"github.com/millrace-io/millrace/examples/orders/orderstage"
)

// sent is one event that was produced.
type sent struct {
	mark gen.Mark
	want gen.Sum // of the output, as the native stage makes it; only for Emit
	// Where it lies in the source topic, once acknowledged: there first, if it
	// lies there twice.
	acked     bool
	partition int32
	offset    int64
}

// numberHeader carries an event's number through the flow: also malformed
// events are known by it.
const numberHeader = "number"

func newClient(t *testing.T, broker string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(broker),
		kgo.FetchMaxWait(50 * time.Millisecond),
		kgo.MetadataMinAge(50 * time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 20 * time.Millisecond }),
		kgo.ProducerLinger(0),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// load produces order events at a steady rate.
type load struct {
	t    *testing.T
	cl   *kgo.Client
	stop context.CancelFunc
	done chan struct{} // closed when no more are produced

	mu     sync.Mutex
	events []sent // guarded by mu
	err    error  // guarded by mu
}

// startLoad produces to the topic of broker until stopped.
func startLoad(t *testing.T, broker, topic string, seed uint64, perSecond int) *load {
	t.Helper()
	l := &load{t: t, cl: newClient(t, broker, kgo.DefaultProduceTopic(topic)), done: make(chan struct{})}
	var ctx context.Context
	ctx, l.stop = context.WithCancel(t.Context())
	g := gen.New(seed)
	go func() {
		defer close(l.done)
		began, made := time.Now(), 0
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			// After a stall not all that is due comes at once.
			due := int(time.Since(began).Seconds()*float64(perSecond)) - made
			for range min(due, max(1, perSecond/10)) {
				l.produce(g.Next())
				made++
			}
		}
	}()
	t.Cleanup(func() { l.stop(); <-l.done })
	return l
}

func (l *load) produce(e gen.Event) {
	s := sent{mark: e.Mark}
	if e.Mark == gen.Emit {
		out, _ := orderstage.Order(nil, e.Value)
		s.want = gen.SumOf(e.Key, out)
	}
	l.mu.Lock()
	n := len(l.events)
	l.events = append(l.events, s)
	l.mu.Unlock()
	r := &kgo.Record{Key: e.Key, Value: e.Value, Headers: []kgo.RecordHeader{{Key: numberHeader, Value: strconv.AppendInt(nil, int64(n), 10)}}}
	l.cl.Produce(context.Background(), r, func(r *kgo.Record, err error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if err != nil {
			l.err = err
			return
		}
		s := &l.events[n]
		s.acked, s.partition, s.offset = true, r.Partition, r.Offset
	})
}

// end stops the load and returns all events, each of which the broker has
// acknowledged.
func (l *load) end() []sent {
	l.t.Helper()
	l.stop()
	<-l.done
	ctx, cancel := context.WithTimeout(l.t.Context(), 30*time.Second)
	defer cancel()
	if err := l.cl.Flush(ctx); err != nil {
		l.t.Fatalf("flush what was produced: %v", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		l.t.Fatalf("produce: %v", l.err)
	}
	return l.events
}

// count is how many events the broker was given so far.
func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.events)
}
