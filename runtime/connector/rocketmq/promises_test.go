package rocketmq

import (
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/record"
)

// TestPausedQueueKeepsABound: a paused queue brings nothing, and what is kept of
// it has a bound, though its broker always has more.
func TestPausedQueueKeepsABound(t *testing.T) {
	const hold, each, size = 64 << 10, 4, 1000
	f := newFake(t, func(req *frame) *frame {
		if req.Code != reqPull {
			return nil
		}
		at, err := strconv.Atoi(req.Fields["queueOffset"])
		if err != nil {
			panic(err)
		}
		var ms [][]byte
		for i := range each {
			ms = append(ms, stored(int64(at+i), make([]byte, size), ""))
		}
		return pullAnswer(respSuccess, "FOUND", at+each, ms...)
	})
	s := openSource(t, SourceConfig{Config: f.config(), Topic: "t", HoldBytes: hold})
	paused, read := record.Partition{Topic: "t", Broker: "b"}, record.Partition{Topic: "t", Broker: "b", Num: 1}
	for n := range int32(4) {
		p := record.Partition{Topic: "t", Broker: "b", Num: n}
		s.Assign(p, 10)
		if p != read {
			s.Pause(p)
		}
	}
	until(t, "all that may be held is", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.held >= hold
	})
	next := int64(10)
	for range 200 {
		b, err := s.Poll(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if b.Partition != read {
			t.Fatal("a paused queue brought a batch")
		}
		next = b.Next
		s.mu.Lock()
		held, its := s.held, s.parts[paused].bytes
		s.mu.Unlock()
		if pull := each * (size + 200); held > hold+4*pull || its > hold/2+pull {
			t.Fatalf("%d bytes are held, %d of them of one paused queue, and may be %d", held, its, hold)
		}
	}
	if next < 200 {
		t.Errorf("the other queue is at %d after 200 batches", next)
	}
	s.Resume(paused)
	want := int64(10)
	for want < 100 {
		b, err := s.Poll(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range b.Records {
			if b.Partition == paused && r.Offset != want {
				t.Fatalf("offset %d after Resume, want %d", r.Offset, want)
			} else if b.Partition == paused {
				want++
			}
		}
	}
}

// TestNameServers: where one answers nonsense the next is asked, and the one that
// answered is asked first from then on.
func TestNameServers(t *testing.T) {
	var asked atomic.Int32
	bad := newFake(t, func(*frame) *frame { asked.Add(1); return &frame{Code: garbage} })
	good := newFake(t, func(*frame) *frame { return nil })
	cfg := Config{NameServers: []string{bad.ln.Addr().String(), good.ln.Addr().String()}}
	s := openSource(t, SourceConfig{Config: cfg, Topic: "t"})
	for range 3 {
		if found, err := s.Partitions(t.Context()); err != nil || len(found) != 1 {
			t.Fatalf("%d queues, %v", len(found), err)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the bad one was asked %d times, want once", n)
	}
}

// TestTopicMadeOnDemand: records of a topic that is not there go where brokers
// make topics.
func TestTopicMadeOnDemand(t *testing.T) {
	var mu sync.Mutex
	queues := map[string]bool{}
	var f *fake
	f = newFake(t, func(req *frame) *frame {
		switch {
		case req.Code == reqRoute && req.Fields["topic"] == autoTopic:
			return routeAnswer(f, queueData("b", 16))
		case req.Code == reqRoute:
			return &frame{Code: respNoTopic}
		case req.Code == reqSendV2, req.Code == reqSendBatch:
			mu.Lock()
			defer mu.Unlock()
			queues[req.Fields["b"]+"/"+req.Fields["e"]+" by "+req.Fields["c"]] = true
		}
		return nil
	})
	s := openSink(t, SinkConfig{Config: f.config(), Topic: "new"})
	for i := range int32(16) {
		sendAll(t, s, record.Record{Value: []byte("x"), To: -1, Partition: i}, record.Record{Value: []byte("x"), To: -1, Partition: -i})
	}
	mu.Lock()
	defer mu.Unlock()
	if len(queues) != autoQueues || !queues["new/7 by "+autoTopic] {
		t.Errorf("sent to %v", queues)
	}
}

// TestStartAtATime: brokers are asked for the time, and what they say is within
// the queue.
func TestStartAtATime(t *testing.T) {
	var told atomic.Int64
	at := time.UnixMilli(1_700_000_000_123)
	f := newFake(t, func(req *frame) *frame {
		if req.Code == reqSearchOffset && req.Fields["timestamp"] == "1700000000123" {
			return &frame{Fields: map[string]string{"offset": fmt.Sprint(told.Load())}}
		}
		return nil
	})
	s := openSource(t, SourceConfig{Config: f.config(), Topic: "t"})
	for answer, want := range map[int64]int64{15: 15, 3: 10, 40: 20, -1: 10} {
		told.Store(answer)
		got, err := s.Start(t.Context(), record.Partition{Topic: "t", Broker: "b"}, connector.Start{Time: at})
		if err != nil || got != want {
			t.Errorf("where the broker says %d it begins at %d (%v), want %d", answer, got, err, want)
		}
	}
}
