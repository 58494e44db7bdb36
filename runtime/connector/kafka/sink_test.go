package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/runtime/record"
)

// deliver waits for the answers to records.
func deliver(t *testing.T, s *Sink, recs ...record.Record) []error {
	t.Helper()
	return begin(t.Context(), s, recs...).wait(t)
}

type answers struct {
	wg   sync.WaitGroup
	errs []error
}

func begin(ctx context.Context, s *Sink, recs ...record.Record) *answers {
	a := &answers{errs: make([]error, len(recs))}
	a.wg.Add(len(recs))
	s.Deliver(ctx, recs, func(i int, err error) {
		a.errs[i] = err
		a.wg.Done()
	})
	return a
}

func (a *answers) wait(t *testing.T) []error {
	t.Helper()
	all := make(chan struct{})
	go func() { a.wg.Wait(); close(all) }()
	select {
	case <-all:
	case <-time.After(15 * time.Second):
		t.Fatal("answers are missing after 15 s")
	}
	return a.errs
}

func rec(key, value string) record.Record {
	return record.Record{Key: []byte(key), Value: []byte(value), To: -1}
}

func recs(from, to int) []record.Record {
	var rs []record.Record
	for i := from; i < to; i++ {
		rs = append(rs, rec("k", fmt.Sprint(i)))
	}
	return rs
}

func noErrors(t *testing.T, errs []error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestWrittenAsTheyAre(t *testing.T) {
	c := cluster(t, kfake.SeedTopics(1, "out"))
	s := sink(t, c, "out")
	headers := []record.Header{{Key: "traceparent", Value: []byte("00-x")}, {Key: "null"}, {Key: "null", Value: []byte{}}}
	noErrors(t, deliver(t, s,
		record.Record{To: -1, Timestamp: 1_700_000_000_123},
		record.Record{To: -1, Key: []byte{}, Value: []byte{}, Headers: headers},
	))
	got := readAll(t, c, "out", 2)
	if r := got[0]; r.Key != nil || r.Value != nil || r.Timestamp.UnixMilli() != 1_700_000_000_123 {
		t.Errorf("null record: %q=%q at %d", r.Key, r.Value, r.Timestamp.UnixMilli())
	}
	r := got[1]
	if r.Key == nil || r.Value == nil {
		t.Errorf("empty key and value were written as null")
	}
	if time.Since(r.Timestamp) > time.Minute {
		t.Errorf("a record without time got %s, want now", r.Timestamp)
	}
	if len(r.Headers) != 3 || r.Headers[0].Key != "traceparent" || r.Headers[1].Value != nil || r.Headers[2].Value == nil {
		t.Errorf("headers %v, want %v", r.Headers, headers)
	}
}

func TestPartitionOfARecord(t *testing.T) {
	c := cluster(t, kfake.SeedTopics(7, "out"))
	s := sink(t, c, "out")
	var rs []record.Record
	for i := range 50 {
		r := rec(fmt.Sprint("key", i), "by key")
		if i%2 == 1 {
			r.Value, r.To = []byte("to"), int32(i%7)
		}
		rs = append(rs, r)
	}
	noErrors(t, deliver(t, s, rs...))
	hash := kgo.KafkaHasher(murmur2)
	for _, r := range readAll(t, c, "out", len(rs)) {
		var i int
		if _, err := fmt.Sscanf(string(r.Key), "key%d", &i); err != nil {
			t.Fatal(err)
		}
		want := int32(hash(r.Key, 7))
		if string(r.Value) == "to" {
			want = int32(i % 7)
		}
		if r.Partition != want {
			t.Errorf("%s %s: partition %d, want %d", r.Key, r.Value, r.Partition, want)
		}
	}
	for key, want := range map[string]int32{"21": -973932308, "foobar": -790332482, "abc": 479470107} { // from Kafka's own tests
		if got := int32(murmur2([]byte(key))); got != want {
			t.Errorf("murmur2(%q) is %d, want %d", key, got, want)
		}
	}

	r := rec("k", "v")
	r.To = 7
	errs := deliver(t, s, r, rec("k", "goes on"))
	e, ok := errors.AsType[*record.Error](errs[0])
	if !ok || e.Class != record.Rejected || !strings.Contains(e.Message, "partition 7 of out") {
		t.Errorf("to partition 7 of 7: %v, want class rejected", errs[0])
	}
	if errs[1] != nil {
		t.Errorf("the record behind it: %v", errs[1])
	}
}

// murmur2 is Kafka's hash of keys, written down a second time from its
// definition.
func murmur2(b []byte) uint32 {
	const m, seed = 0x5bd1e995, 0x9747b28c
	h := uint32(seed) ^ uint32(len(b))
	for ; len(b) >= 4; b = b[4:] {
		k := uint32(b[3])<<24 | uint32(b[2])<<16 | uint32(b[1])<<8 | uint32(b[0])
		k *= m
		k ^= k >> 24
		k *= m
		h = h*m ^ k
	}
	switch len(b) {
	case 3:
		h ^= uint32(b[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(b[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(b[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	return h ^ h>>15
}

func TestTooLarge(t *testing.T) {
	c := cluster(t, kfake.SeedTopics(1, "out"))
	s := sink(t, c, "out")
	errs := deliver(t, s, rec("k", "before"), rec("k", strings.Repeat("x", 2_000_000)), rec("k", "after"))
	e, ok := errors.AsType[*record.Error](errs[1])
	if !ok || e.Class != record.TooLarge || !strings.Contains(e.Message, "2000001 bytes") {
		t.Errorf("got %v, want class too_large", errs[1])
	}
	if errs[0] != nil || errs[2] != nil {
		t.Errorf("the records around it: %v, %v", errs[0], errs[2])
	}
	if got := readAll(t, c, "out", 2); string(got[0].Value) != "before" || string(got[1].Value) != "after" {
		t.Errorf("wrote %q and %q", got[0].Value, got[1].Value)
	}
}

func TestSinkTopicIsMade(t *testing.T) {
	c := cluster(t, kfake.AllowAutoTopicCreation())
	noErrors(t, deliver(t, sink(t, c, "new"), rec("k", "v")))
}

func TestSinkUnknownTopic(t *testing.T) {
	c := cluster(t)
	errs := deliver(t, sink(t, c, "nowhere"), rec("k", "v"))
	wants(t, errs[0], `topic "nowhere" does not exist at 127.0.0.1:`, "make it, or correct the flow's push")
}

func TestSinkForbidden(t *testing.T) {
	c := cluster(t, kfake.SeedTopics(1, "out"))
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "out", Err: kerr.TopicAuthorizationFailed, Count: -1})
	errs := deliver(t, sink(t, c, "out"), rec("k", "v"))
	wants(t, errs[0], `write to topic "out": TOPIC_AUTHORIZATION_FAILED`)
}

// order fails the test unless the values of the topic, repetitions apart, are
// 0 to n-1 in order.
func order(t *testing.T, c *kfake.Cluster, n int) {
	t.Helper()
	next := 0
	for _, r := range readAll(t, c, "out", n) {
		var i int
		if _, err := fmt.Sscan(string(r.Value), &i); err != nil {
			t.Fatal(err)
		}
		switch {
		case i == next:
			next++
		case i > next:
			t.Fatalf("%d came where %d was to come", i, next)
		}
	}
	if next != n {
		t.Fatalf("%d values were written, want %d", next, n)
	}
}

func TestOrderOverFaults(t *testing.T) {
	c := cluster(t, kfake.NumBrokers(3), kfake.SeedTopics(1, "out"))
	for _, err := range []*kerr.Error{kerr.NotLeaderForPartition, kerr.RequestTimedOut, kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend, kerr.LeaderNotAvailable} {
		c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "out", Err: err, Count: 2})
	}
	s := sink(t, c, "out")
	var all []*answers
	const n = 2000
	for i := 0; i < n; i += 20 {
		if i%400 == 200 {
			if err := c.MoveTopicPartition("out", 0, int32(i/200%3)); err != nil {
				t.Fatal(err)
			}
		}
		all = append(all, begin(t.Context(), s, recs(i, i+20)...))
	}
	for _, a := range all {
		noErrors(t, a.wait(t))
	}
	order(t, c, n)
}

func TestSinkBrokerAway(t *testing.T) {
	r := newRestartable(t, "out")
	s := sink(t, r.c, "out")
	noErrors(t, deliver(t, s, recs(0, 100)...))
	r.c.Close()
	a := begin(t.Context(), s, recs(100, 600)...)
	eventually(t, "the problem", func() bool { return strings.Contains(s.Problem(), "refused") })
	b := begin(t.Context(), s, recs(600, 700)...)
	r.start()
	noErrors(t, a.wait(t))
	noErrors(t, b.wait(t))
	if p := s.Problem(); p != "" {
		t.Errorf("problem %q with nothing to deliver", p)
	}
	order(t, r.c, 700)
}

func TestSinkBrokerNotThereYet(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &restartable{t: t, dir: t.TempDir(), addr: ln.Addr().String()}
	_ = ln.Close()
	s, err := NewSink(SinkConfig{Topic: "out", Config: Config{Brokers: []string{r.addr}, MetadataMinAge: 50 * time.Millisecond,
		RetryBackoff: func(int) time.Duration { return 10 * time.Millisecond }}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	a := begin(t.Context(), s, recs(0, 50)...)
	eventually(t, "the problem", func() bool { return strings.Contains(s.Problem(), "refused") })
	answered := make(chan struct{})
	go func() { a.wg.Wait(); close(answered) }()
	select {
	case <-answered:
		t.Fatalf("answered while no broker is there: %v", errors.Join(a.errs...))
	case <-time.After(time.Second): // a hundred attempts
	}
	r.start(kfake.SeedTopics(1, "out"))
	t.Cleanup(func() { r.c.Close() })
	noErrors(t, a.wait(t))
	order(t, r.c, 50)
}

func TestCloseAbandons(t *testing.T) {
	r := newRestartable(t, "out")
	s := sink(t, r.c, "out")
	noErrors(t, deliver(t, s, recs(0, 10)...))
	r.c.Close()
	a := begin(t.Context(), s, recs(10, 100)...)
	eventually(t, "the problem", func() bool { return s.Problem() != "" })
	_ = s.Close()
	for i, err := range a.wait(t) {
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("record %d: %v, want context.Canceled", i, err)
		}
	}
}

// What was taken over before a soft stop is still delivered: given up, it
// might have been written all the same, and would come twice.
func TestTakenOverOutlivesItsContext(t *testing.T) {
	r := newRestartable(t, "out")
	s := sink(t, r.c, "out")
	noErrors(t, deliver(t, s, recs(0, 10)...))
	r.c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	a := begin(ctx, s, recs(10, 100)...)
	eventually(t, "the problem", func() bool { return s.Problem() != "" })
	cancel()
	for i, err := range begin(ctx, s, recs(100, 110)...).wait(t) {
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("record %d after the end: %v, want context.Canceled", i, err)
		}
	}
	r.start()
	noErrors(t, a.wait(t))
	order(t, r.c, 100)
}

func TestKeylessRecordsKeepTheOrderOfTheirPartition(t *testing.T) {
	c := cluster(t, kfake.SeedTopics(3, "spread"))
	s := sink(t, c, "spread")
	var rs []record.Record
	for o := range int64(300) {
		for p := range int32(4) {
			rs = append(rs, record.Record{Value: fmt.Appendf(nil, "%d", o), Partition: p, Offset: o, To: -1})
		}
	}
	noErrors(t, deliver(t, s, rs...))
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.ConsumeTopics("spread"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx := bounded(t)
	n := map[int32]int{}
	for total := 0; total < len(rs); {
		fs := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("read %d of %d", total, len(rs))
		}
		fs.EachRecord(func(r *kgo.Record) { n[r.Partition]++; total++ })
	}
	if n[0] != 600 || n[1] != 300 || n[2] != 300 { // partitions 0 and 3 share one
		t.Errorf("records by partition %v, want 600, 300, 300", n)
	}
}

func TestCheck(t *testing.T) {
	c := cluster(t)
	if err := Check(bounded(t), config(c)); err != nil {
		t.Error(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	_ = ln.Close()
	err = Check(bounded(t), Config{Brokers: []string{addr}})
	if want := "connection refused: start the broker, or correct the connection's `brokers`"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("nobody there: got %v, want %q", err, want)
	}
	if err := Check(bounded(t), Config{Brokers: append([]string{addr}, c.ListenAddrs()...)}); err != nil {
		t.Errorf("one of two brokers: %v", err)
	}
	if err := Check(bounded(t), Config{}); err == nil || !strings.Contains(err.Error(), "no brokers") {
		t.Errorf("no brokers: got %v", err)
	}
}

// What the sink needs for a call of Deliver it uses again, when all of the
// call is answered and not before, and holds nobody's bytes meanwhile.
func TestSinkUsesItsMemoryAgain(t *testing.T) {
	c := cluster(t, kfake.SeedTopics(1, "out"))
	s := sink(t, c, "out")
	const n = 100
	for deadline := time.Now().Add(15 * time.Second); ; {
		last, others := make(chan struct{}), make(chan struct{})
		var answered sync.WaitGroup
		answered.Add(n)
		s.Deliver(t.Context(), recs(0, n), func(i int, err error) {
			if err != nil {
				t.Error(err)
			}
			if i == n-1 { // the last of its partition
				close(others)
				<-last
			}
			answered.Done()
		})
		<-others
		if sh := s.spare.Get(); sh != nil {
			t.Fatal("a shipment is spare while an answer is missing")
		}
		close(last)
		answered.Wait()
		for range 1000 { // the answer is given back after done
			sh, _ := s.spare.Get().(*shipment)
			if sh == nil {
				runtime.Gosched()
				continue
			}
			for i := range sh.slots {
				if r := &sh.slots[i].rec; r.Value != nil || r.Context != nil {
					t.Fatalf("slot %d of a spare shipment holds a record", i)
				}
			}
			return
		}
		// The race detector makes a pool lose things.
		if time.Now().After(deadline) {
			t.Fatal("no shipment was used again in 15 s")
		}
	}
}

// Answers are noticed, so that only their absence is a problem.
func TestAnswersAreProgress(t *testing.T) {
	c := cluster(t, kfake.SeedTopics(1, "out"))
	s := sink(t, c, "out")
	s.waiting.Add(1) // somebody has been waiting for long
	s.progress.at.Store(1)
	if s.Problem() == "" {
		t.Error("no answer for years is no problem")
	}
	noErrors(t, deliver(t, s, rec("k", "v")))
	for deadline := time.Now().Add(10 * time.Second); s.progress.at.Load() == 1; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("an answer went unnoticed")
		}
	}
	if p := s.Problem(); p != "" {
		t.Errorf("just after an answer: %s", p)
	}
}
