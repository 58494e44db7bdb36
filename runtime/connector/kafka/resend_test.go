package kafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/runtime/record"
)

// corrupting makes the first broker answer n produce requests as if they had been
// spoilt on their way, which the client gives up for. The first of them is
// answered once more is closed.
func corrupting(c *kfake.Cluster, n int, more <-chan struct{}) {
	c.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		<-more
		c.KeepControl()
		if n--; n < 0 {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.ProduceResponse)
		for _, t := range req.(*kmsg.ProduceRequest).Topics {
			rt := kmsg.ProduceResponseTopic{Topic: t.Topic, TopicID: t.TopicID}
			for _, p := range t.Partitions {
				rt.Partitions = append(rt.Partitions, kmsg.ProduceResponseTopicPartition{Partition: p.Partition, ErrorCode: kerr.CorruptMessage.Code, BaseOffset: -1})
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, nil, true
	})
}

// What the client gave up is produced anew in its order, and what is delivered
// meanwhile from the same partition comes behind it.
func TestOrderOfWhatIsProducedAgain(t *testing.T) {
	c := cluster(t, kfake.SeedTopics(1, "out"))
	more := make(chan struct{})
	corrupting(c, 1, more)
	var log bytes.Buffer
	cfg := config(c)
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	s, err := NewSink(SinkConfig{Config: cfg, Topic: "out"})
	if err != nil {
		t.Fatal(err)
	}
	var all []*answers
	for i := 0; i < 400; i += 50 {
		all = append(all, begin(t.Context(), s, recs(i, i+50)...))
	}
	close(more)
	for deadline := time.Now().Add(10 * time.Second); s.giving() < 400; {
		if time.Now().After(deadline) {
			t.Fatalf("the client gave up %d records, want 400", s.giving())
		}
	}
	for i := 400; i < 500; i += 10 {
		all = append(all, begin(t.Context(), s, recs(i, i+10)...))
	}
	for _, a := range all {
		noErrors(t, a.wait(t))
	}
	order(t, c, 500)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "produced again"); n != 1 {
		t.Errorf("the sink said %d times that it produces again, want once:\n%s", n, &log)
	}
}

// The records of other partitions do not wait for what is produced anew.
func TestOthersDoNotWait(t *testing.T) {
	c := cluster(t, kfake.SeedTopics(2, "out"))
	more := make(chan struct{})
	corrupting(c, 1, more)
	s := sink(t, c, "out")
	failed := begin(t.Context(), s, record.Record{Value: []byte("0"), To: 0})
	close(more)
	for deadline := time.Now().Add(10 * time.Second); s.giving() < 1; {
		if time.Now().After(deadline) {
			t.Fatal("the client did not give the record up")
		}
	}
	noErrors(t, deliver(t, s, record.Record{Value: []byte("1"), Partition: 1, To: 1}))
	if s.giving() == 0 {
		t.Error("what was given up was sent before a record of another partition")
	}
	noErrors(t, failed.wait(t))
}

// Close answers what waits to be produced anew, and what waits behind it.
func TestCloseOfWhatIsProducedAgain(t *testing.T) {
	c := cluster(t, kfake.SeedTopics(1, "out"))
	more := make(chan struct{})
	corrupting(c, 1000, more)
	close(more)
	s := sink(t, c, "out")
	failed := begin(t.Context(), s, recs(0, 10)...)
	for deadline := time.Now().Add(10 * time.Second); s.giving() < 10; {
		if time.Now().After(deadline) {
			t.Fatal("the client did not give the records up")
		}
	}
	s.mu.Lock()
	for _, h := range s.held {
		h.timer.Stop() // nobody but Close sees to them
	}
	s.mu.Unlock()
	behind := begin(t.Context(), s, recs(10, 20)...)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, err := range append(failed.wait(t), behind.wait(t)...) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("after Close: %v, want context.Canceled", err)
		}
	}
}

// giving is how many records the client gave up that wait to be produced anew.
func (s *Sink) giving() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, h := range s.held {
		n += len(h.failed)
	}
	return n
}

// Whatever happens to a sink under load, each record is answered once, and what
// its answer is counted by is not another's meanwhile.
func TestSinkUnderLoad(t *testing.T) {
	for _, what := range []string{"cut", "closed", "unknown topic", "closed, unknown topic", "given up", "canceled"} {
		t.Run(what, func(t *testing.T) {
			ln := &cutting{}
			c := cluster(t, kfake.SeedTopics(3, "out"), kfake.ListenFn(ln.listen))
			topic := "out"
			if strings.Contains(what, "unknown") {
				topic = "new"
			}
			s := sink(t, c, topic)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			begun := make(chan struct{})
			if what == "given up" {
				corrupting(c, 3, begun)
			}
			var wg sync.WaitGroup
			var first sync.Once
			for g := range 4 {
				wg.Go(func() {
					var all []*answers
					for k := range 40 {
						rs := make([]record.Record, 1+(7*k+g)%60)
						for i := range rs {
							rs[i] = record.Record{Value: fmt.Append(nil, i), Partition: int32(g), To: -1}
						}
						a := begin(ctx, s, rs...) // a second answer panics
						if all = append(all, a); k == 5 {
							first.Do(func() { close(begun) })
						}
						clear(rs)
						if k%8 == 7 {
							all[len(all)/2].wait(t)
						}
					}
					for _, a := range all {
						for _, err := range a.wait(t) {
							if err != nil && (what == "cut" || what == "given up" || what == "canceled" && !errors.Is(err, context.Canceled)) {
								t.Error(err)
							}
						}
					}
				})
			}
			<-begun
			switch {
			case strings.HasPrefix(what, "closed"):
				_ = s.Close()
			case what == "cut":
				ln.cut(20)
			case what == "canceled":
				cancel()
			}
			wg.Wait()
			if n := s.waiting.Load(); n != 0 {
				t.Errorf("%d records wait for an answer", n)
			}
		})
	}
}
