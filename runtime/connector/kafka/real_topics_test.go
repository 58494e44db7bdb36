package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/record"
)

func TestRealPattern(t *testing.T) {
	r := shared(t)
	const prefix = "TestRealPattern"
	s := r.source(SourceConfig{Pattern: prefix + `-orders-[a-z]+|__.*|.*offsets`})
	if fs, err := s.Partitions(bounded(t)); len(fs) > 0 || !errors.Is(err, connector.ErrNoTopic) ||
		!strings.Contains(err.Error(), "no topic at 127.0.0.1:") || !strings.Contains(err.Error(), prefix) {
		t.Errorf("found %v, %v, want that no topic matches yet", fs, err)
	}
	// A commit makes the internal topic __consumer_offsets.
	if err := s.CommitGroup(bounded(t), "anybody", map[record.Partition]int64{}); err != nil {
		t.Fatal(err)
	}
	a, b := r.topic("orders-a", 2), r.topic("orders-b", 1)
	r.topic("orders-1", 1)
	r.topic("my-orders-a", 1)
	r.topic("orders-a-old", 1)
	if got := topicsFound(t, s); !slices.Equal(got, []string{a, b}) {
		t.Fatalf("found %v, want %s and %s: whole names", got, a, b)
	}
	r.write(a, 0, values("a0", 0, 10)...)
	r.write(a, 1, values("a1", 0, 10)...)
	r.write(b, 0, values("b0", 0, 10)...)
	want := map[record.Partition]int64{}
	for _, p := range assign(t, s) {
		want[p] = 10
	}
	c := r.topic("orders-c", 1)
	r.write(c, 0, values("c0", 0, 10)...) // before it is found
	if got := topicsFound(t, s); !slices.Equal(got, []string{a, b, c}) {
		t.Fatalf("found %v, want the new one, too", got)
	}
	pc := record.Partition{Topic: c}
	s.Assign(pc, 0)
	want[pc] = 10
	got := collect(t, s, until(want))
	for p := range want {
		prefix := fmt.Sprintf("%c%d", p.Topic[len(p.Topic)-1], p.Num)
		if !slices.Equal(got[p], values(prefix, 0, 10)) {
			t.Errorf("%v: got %v", p, got[p])
		}
	}

	r.delete(b)
	r.gone(b)
	_, err := s.Partitions(bounded(t))
	wants(t, err, fmt.Sprintf("topic %q", b), "was deleted")

	// What a source of another life says of it, and of one that was not known.
	known := map[string][16]byte{}
	fresh := r.source(SourceConfig{Pattern: prefix + `-orders-[a-z]+`})
	for _, f := range found(t, fresh) {
		known[f.Topic] = f.TopicID
	}
	known[b] = [16]byte{1}
	known["another"] = [16]byte{2}
	_, err = r.source(SourceConfig{Pattern: prefix + `-orders-[a-z]+`, Known: known}).Partitions(bounded(t))
	wants(t, err, fmt.Sprintf("topic %q", b), "was deleted")
}

func TestRealNewPartitions(t *testing.T) {
	r := shared(t)
	topic := r.topic("in", 2)
	s := r.source(SourceConfig{}, topic)
	r.write(topic, 0, values("p0", 0, 5)...)
	ps := assign(t, s)
	collect(t, s, until(map[record.Partition]int64{ps[0]: 5}))
	if _, err := r.adm.UpdatePartitions(t.Context(), 4, topic); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new partitions", func() bool {
		d, err := r.adm.ListTopics(t.Context(), topic)
		return err == nil && len(d[topic].Partitions) == 4
	})
	on(t, r.addr).write(topic, 3, values("p3", 0, 100)...) // before it is found
	fs := found(t, s)
	if len(fs) != 4 || fs[3].TopicID != fs[0].TopicID {
		t.Fatalf("found %v, want four partitions of one topic", fs)
	}
	p3 := fs[3].Partition
	at, err := s.Start(bounded(t), p3, connector.Start{})
	if err != nil {
		t.Fatal(err)
	}
	s.Assign(p3, at)
	r.write(topic, 0, values("p0", 5, 9)...)
	got := collect(t, s, until(map[record.Partition]int64{p3: 100, ps[0]: 9}))
	if !slices.Equal(got[p3], values("p3", 0, 100)) || !slices.Equal(got[ps[0]], values("p0", 5, 9)) {
		t.Errorf("got %d records of the new partition and %v of the old one", len(got[p3]), got[ps[0]])
	}
}

// The new topic has more records than the position of the old one, so that an
// offset alone would find something to read. Not one of them may be delivered.
func TestRealTopicMadeAnew(t *testing.T) {
	const before, after = 300, 2000
	type state struct {
		s    *Source
		r    *real
		name string
		ps   []record.Partition
	}
	for _, tc := range []struct {
		name       string
		partitions int32
		known      bool // the source is told of the old topic by Known
		do         func(t *testing.T, x *state)
	}{
		{name: "while it is read", partitions: 2, do: func(t *testing.T, x *state) {
			for _, p := range x.ps {
				x.s.Assign(p, 0)
			}
			collect(t, x.s, until(map[record.Partition]int64{x.ps[0]: 100}))
			x.r.anew(x.name, 2)
		}},
		{name: "at its end", partitions: 2, do: func(t *testing.T, x *state) {
			for _, p := range x.ps {
				x.s.Assign(p, 0)
			}
			collect(t, x.s, until(map[record.Partition]int64{x.ps[0]: before, x.ps[1]: before}))
			x.r.anew(x.name, 2)
		}},
		{name: "before the first fetch", partitions: 2, do: func(t *testing.T, x *state) {
			for _, p := range x.ps {
				x.s.Assign(p, before-100)
			}
			x.r.anew(x.name, 2)
		}},
		{name: "before it is assigned", partitions: 2, do: func(t *testing.T, x *state) {
			x.r.anew(x.name, 2)
			for _, p := range x.ps {
				x.s.Assign(p, before-100)
			}
		}},
		{name: "while the node was down", partitions: 2, known: true, do: func(t *testing.T, x *state) {
			x.r.anew(x.name, 2)
			for _, p := range x.ps {
				x.s.Assign(p, before-100)
			}
		}},
		{name: "while it is paused", partitions: 2, do: func(t *testing.T, x *state) {
			for _, p := range x.ps {
				x.s.Assign(p, 0)
			}
			collect(t, x.s, until(map[record.Partition]int64{x.ps[0]: 100}))
			x.s.Pause(x.ps[0])
			x.r.anew(x.name, 2)
			x.s.Resume(x.ps[0])
		}},
		{name: "with fewer partitions", partitions: 1, do: func(t *testing.T, x *state) {
			for _, p := range x.ps {
				x.s.Assign(p, 0)
			}
			collect(t, x.s, until(map[record.Partition]int64{x.ps[0]: before, x.ps[1]: before}))
			x.r.anew(x.name, 1)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := shared(t)
			x := &state{r: r, name: r.topic("in", 2)}
			x.ps = partitionsOf(x.name, 2)
			for _, p := range x.ps {
				r.write(x.name, p.Num, values("old", 0, before)...)
			}
			x.s = r.source(SourceConfig{BatchRecords: 50, FetchMaxPartitionBytes: 1 << 10}, x.name)
			id := found(t, x.s)[0].TopicID
			if tc.known {
				_ = x.s.Close()
				x.s = r.source(SourceConfig{Known: map[string][16]byte{x.name: id}}, x.name)
			}
			tc.do(t, x)
			for n := range tc.partitions {
				r.write(x.name, n, values("new", 0, after)...)
			}
			failed := map[record.Partition]bool{}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			for len(failed) < len(x.ps) {
				b, err := x.s.Poll(ctx)
				if pe, ok := errors.AsType[*connector.PartitionError](err); ok {
					wants(t, pe, "was deleted", topicID(id))
					failed[pe.Partition] = true
					continue
				}
				if err != nil {
					t.Fatalf("poll: %v, want an error of each partition, had %v", err, failed)
				}
				for i := range b.Records {
					if v := string(b.Records[i].Value); !strings.HasPrefix(v, "old") {
						t.Fatalf("record %s of the new topic was delivered: %s", b.Records[i].ID(), v)
					}
				}
				if b.Next > before {
					t.Fatalf("position %d of %v: it is the new topic's", b.Next, b.Partition)
				}
			}
		})
	}
}

func TestRealTopicMadeAnewIsSeenByPartitions(t *testing.T) {
	r := shared(t)
	topic := r.topic("in", 1)
	s := r.source(SourceConfig{CreateTopics: true}, topic)
	id := found(t, s)[0].TopicID
	r.delete(topic)
	r.gone(topic)
	_, err := s.Partitions(bounded(t))
	wants(t, err, fmt.Sprintf("topic %q (id %s) was deleted", topic, topicID(id)))
	if d, err := r.adm.ListTopics(t.Context(), topic); err != nil || d.Has(topic) {
		t.Errorf("the deleted topic was made again by its reader: %v, %v", d, err)
	}
	r.again(topic, 1)
	_, err = s.Partitions(bounded(t))
	wants(t, err, "was deleted and made anew", topicID(id))
}

func TestRealTopicThatIsNotThereYet(t *testing.T) {
	r := shared(t)
	there := r.topic("there", 1)
	s := r.source(SourceConfig{}, there, t.Name()+"-later")
	fs, err := s.Partitions(bounded(t))
	if !errors.Is(err, connector.ErrNoTopic) || record.AsError(err).Class != record.Retryable || len(fs) != 1 {
		t.Fatalf("found %v, %v, want one partition and that a topic is missing", fs, err)
	}
	later := r.topic("later", 3)
	if got := topicsFound(t, s); !slices.Equal(got, []string{later, there}) {
		t.Errorf("found %v, want both", got)
	}
}
