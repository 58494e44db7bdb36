package kafka

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/runtime/connector/connectortest/brokers"
	"github.com/millrace-io/millrace/runtime/record"
)

// lag is what Kafka's tools say of a group: by partition, and -1 where nothing
// was committed.
func lag(t *testing.T, adm *kadm.Client, group, topic string) map[int32]int64 {
	t.Helper()
	all, err := adm.Lag(bounded(t), group)
	if err != nil {
		t.Fatal(err)
	}
	g := all[group]
	if err := g.Error(); err != nil {
		t.Fatal(err)
	}
	out := map[int32]int64{}
	for n, m := range g.Lag[topic] {
		out[n] = m.Lag
	}
	return out
}

// mirror is what the group is tested with on either broker.
func mirror(t *testing.T, addr, topic string) {
	adm := topicOn(t, addr, topic, 3)
	cfg := Config{Brokers: []string{addr}}
	out, err := NewSink(SinkConfig{Config: cfg, Topic: topic})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	rs := recs(0, 60)
	for i := range rs {
		rs[i].To = int32(i % 3)
	}
	noErrors(t, deliver(t, out, rs...))
	in, err := NewSource(SourceConfig{Config: cfg, Topics: []string{topic}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	if _, err := in.Partitions(bounded(t)); err != nil {
		t.Fatal(err)
	}
	at := func(offsets ...int64) map[record.Partition]int64 {
		m := map[record.Partition]int64{}
		for n, o := range offsets {
			m[record.Partition{Topic: topic, Num: int32(n)}] = o
		}
		return m
	}
	const group = "millrace.default.mirrored"
	if err := in.CommitGroup(bounded(t), group, nil); err != nil {
		t.Error(err)
	}
	for _, tc := range []struct {
		name    string
		offsets map[record.Partition]int64
		want    [3]int64
	}{
		{"on the way", at(20, 5, 0), [3]int64{0, 15, 20}},
		{"one goes on", at(20, 18), [3]int64{0, 2, 20}},
		{"back, after a reset", at(3, 0, 7), [3]int64{17, 20, 13}},
	} {
		if err := in.CommitGroup(bounded(t), group, tc.offsets); err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		got := lag(t, adm, group, topic)
		for n, want := range tc.want {
			if got[int32(n)] != want {
				t.Errorf("%s: lag of partition %d is %d, want %d", tc.name, n, got[int32(n)], want)
			}
		}
	}
}

// A topic that is gone does not keep the others back.
func TestGroupOneTopicGone(t *testing.T) {
	c := cluster(t, kfake.SeedTopics(1, "in"))
	s := source(t, c, "in", "gone")
	err := s.CommitGroup(bounded(t), "g", map[record.Partition]int64{in0: 4, {Topic: "gone"}: 5})
	if e := record.AsError(err); err == nil || e.Class != record.Retryable || !strings.Contains(e.Message, `topic "gone"`) {
		t.Errorf("got %v, want class retryable for the topic", err)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	offsets, err := kadm.NewClient(cl).FetchOffsets(bounded(t), "g")
	if err != nil {
		t.Fatal(err)
	}
	if o, _ := offsets.Lookup("in", 0); o.At != 4 {
		t.Errorf("the other topic stands at %d, want 4", o.At)
	}
}

func TestGroupMirror(t *testing.T) { mirror(t, cluster(t).ListenAddrs()[0], "mirrored") }

func TestGroupMirrorRealBroker(t *testing.T) {
	k := brokers.SharedKafka(t)
	mirror(t, k.Addr(), "mirrored")

	t.Run("topic made anew", func(t *testing.T) {
		adm := topicOn(t, k.Addr(), "anew", 1)
		in, err := NewSource(SourceConfig{Config: Config{Brokers: []string{k.Addr()}}, Topics: []string{"anew"}})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = in.Close() }()
		if _, err := in.Partitions(bounded(t)); err != nil {
			t.Fatal(err)
		}
		id := func() kadm.TopicID {
			topics, err := adm.ListTopics(bounded(t), "anew")
			if err != nil || topics["anew"].Err != nil {
				return kadm.TopicID{}
			}
			return topics["anew"].ID
		}
		old := id()
		if _, err := adm.DeleteTopic(bounded(t), "anew"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the new topic", func() bool {
			_, _ = adm.CreateTopic(t.Context(), 1, 1, nil, "anew")
			now := id()
			return now != old && now != kadm.TopicID{}
		})
		err = in.CommitGroup(bounded(t), "millrace.default.anew", map[record.Partition]int64{{Topic: "anew"}: 7})
		if e := record.AsError(err); err == nil || e.Class != record.Retryable || !errors.Is(err, kerr.InconsistentTopicID) {
			t.Errorf("got %v, want class retryable for the id", err)
		}
		offsets, err := adm.FetchOffsets(bounded(t), "millrace.default.anew")
		if err != nil {
			t.Fatal(err)
		}
		if o, ok := offsets.Lookup("anew", 0); ok {
			t.Errorf("the new topic got the position of the old one: %v", o)
		}
	})
}

// A group that another program consumes with is left alone.
func TestGroupWithMembers(t *testing.T) {
	c := cluster(t, kfake.SeedTopics(1, "in"))
	other, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.ConsumerGroup("theirs"), kgo.ConsumeTopics("in"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	other.PollFetches(ctx)
	cancel()
	s := source(t, c, "in")
	if _, err := s.Partitions(bounded(t)); err != nil {
		t.Fatal(err)
	}
	var last error
	eventually(t, "the refusal", func() bool {
		last = s.CommitGroup(bounded(t), "theirs", map[record.Partition]int64{in0: 1})
		return last != nil
	})
	wants(t, last, `consumer group "theirs": another program consumes with it`, "`group`")
}

func TestGroupBrokerAway(t *testing.T) {
	c := cluster(t, kfake.SeedTopics(1, "in"))
	s := source(t, c, "in")
	c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	err := s.CommitGroup(ctx, "g", map[record.Partition]int64{in0: 1})
	if err == nil {
		t.Fatal("committed to nobody")
	}
	if e := record.AsError(err); e.Class == record.Config {
		t.Errorf("a broker that is away is class %s: %v", e.Class, err)
	}
}
