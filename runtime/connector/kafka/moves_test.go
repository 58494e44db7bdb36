package kafka

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/runtime/record"
)

// A client that finds that the log was cut off goes back by itself, and what it
// fetches there may come before its word about it.
func TestClientGoesBack(t *testing.T) {
	c := cluster(t, kfake.SeedTopics(1, "in"))
	fill(t, c, "in", 0, numbers(10))
	s := source(t, c, "in")
	found(t, s)
	s.Assign(in0, 0)
	drain(t, s, in0, 10)
	again := kgo.FetchPartition{Partition: 0, Records: []*kgo.Record{{Topic: "in", Offset: 8}, {Topic: "in", Offset: 9}, {Topic: "in", Offset: 10}}}
	said := kgo.FetchPartition{Partition: 0, Err: &kgo.ErrDataLoss{Topic: "in", ConsumedTo: 10, ResetTo: 8}}
	s.mu.Lock()
	s.accept(t.Context(), kgo.Fetches{
		{Topics: []kgo.FetchTopic{{Topic: "in", Partitions: []kgo.FetchPartition{again}}}},
		{Topics: []kgo.FetchTopic{{Topic: "in", Partitions: []kgo.FetchPartition{said}}}},
	})
	s.mu.Unlock()
	b, err := s.Poll(bounded(t))
	if b != nil {
		t.Fatalf("got %d records up to %d of the new log", len(b.Records), b.Next)
	}
	wants(t, err, "position 10 was read", "now ends at 8", "--to in/0=8")
}

// Nobody can commit the position behind skipped records before they are told of.
func TestSkipIsToldBeforeThePositionMoves(t *testing.T) {
	c := cluster(t, kfake.SeedTopics(1, "in"))
	fill(t, c, "in", 0, numbers(100))
	if err := c.DeleteRecords("in", 0, 60); err != nil {
		t.Fatal(err)
	}
	moved := make(chan struct{})
	told := make(chan bool, 1)
	s, err := NewSource(SourceConfig{Config: config(c), Topics: []string{"in"}, OutOfRange: OutOfRangeEarliest, OnSkip: func(_ record.Partition, from, to int64) {
		select {
		case <-moved:
			told <- false
		case <-time.After(200 * time.Millisecond):
			told <- from == 50 && to == 60
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	s.Assign(in0, 50)
	b, err := s.Poll(bounded(t))
	close(moved)
	if err != nil || b.Next < 60 {
		t.Fatalf("got %v, %v", b, err)
	}
	if !<-told {
		t.Error("the position moved to 60 before the skip was told of")
	}
}

// The positions of a topic that was made anew are not written for the new one.
func TestGroupOfATopicMadeAnew(t *testing.T) {
	c := cluster(t, kfake.SeedTopics(1, "in"))
	fill(t, c, "in", 0, numbers(10))
	s := source(t, c, "in")
	found(t, s)
	s.Assign(in0, 0)
	drain(t, s, in0, 10)
	if err := c.DeleteTopic("in"); err != nil {
		t.Fatal(err)
	}
	if err := c.CreateTopic("in", 1, nil); err != nil {
		t.Fatal(err)
	}
	failure(t, s)
	if err := s.CommitGroup(bounded(t), "g", map[record.Partition]int64{in0: 10}); err == nil {
		t.Error("the old position was written for the new topic")
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	offsets, _ := kadm.NewClient(cl).FetchOffsets(ctx, "g")
	if o, ok := offsets.Lookup("in", 0); ok && o.At >= 0 {
		t.Errorf("the group stands at %d", o.At)
	}
}
