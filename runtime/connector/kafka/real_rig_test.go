package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/connector/connectortest/brokers"
	"github.com/millrace-io/millrace/runtime/record"
)

// real is a real broker with clients of the test's own, and topics whose names
// begin with that of the test.
type real struct {
	t    *testing.T
	addr string
	cl   *kgo.Client
	adm  *kadm.Client
}

// shared is the broker that the tests of this package share.
func shared(t *testing.T) *real {
	t.Helper()
	return on(t, brokers.SharedKafka(t).Addr())
}

func on(t *testing.T, addr string) *real {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(50*time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 20 * time.Millisecond }), kgo.ProducerBatchMaxBytes(32<<20), kgo.BrokerMaxWriteBytes(64<<20))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return &real{t: t, addr: addr, cl: cl, adm: kadm.NewClient(cl)}
}

// topic makes a topic, with settings as key and value in turn, and returns its
// name. One that is being deleted is waited for. It goes with the test.
func (r *real) topic(name string, partitions int32, settings ...string) string {
	r.t.Helper()
	name = strings.ReplaceAll(r.t.Name(), "/", "-") + "-" + name
	r.again(name, partitions, settings...)
	r.t.Cleanup(func() { // so that the test can run again
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_, _ = r.adm.DeleteTopic(ctx, name)
	})
	return name
}

func (r *real) again(name string, partitions int32, settings ...string) {
	r.t.Helper()
	set := map[string]*string{}
	for i := 0; i < len(settings); i += 2 {
		set[settings[i]] = &settings[i+1]
	}
	eventually(r.t, "topic "+name+" to be made", func() bool {
		_, err := r.adm.CreateTopic(r.t.Context(), partitions, 1, set, name)
		if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			r.t.Fatal(err)
		}
		return err == nil
	})
}

func (r *real) delete(topic string) {
	r.t.Helper()
	if _, err := r.adm.DeleteTopic(r.t.Context(), topic); err != nil {
		r.t.Fatal(err)
	}
}

// gone waits until a deleted topic is gone.
func (r *real) gone(topic string) {
	r.t.Helper()
	eventually(r.t, "topic "+topic+" to be gone", func() bool {
		d, err := r.adm.ListTopics(r.t.Context(), topic)
		return err == nil && !d.Has(topic)
	})
}

// anew deletes a topic and makes it again. The clients of the test forget it.
func (r *real) anew(topic string, partitions int32) {
	r.t.Helper()
	r.delete(topic)
	r.cl.PurgeTopicsFromProducing(topic)
	r.again(topic, partitions)
}

// write writes values to a partition.
func (r *real) write(topic string, partition int32, values ...string) {
	r.t.Helper()
	recs := make([]*kgo.Record, len(values))
	for i, v := range values {
		recs[i] = &kgo.Record{Topic: topic, Partition: partition, Value: []byte(v)}
	}
	if err := r.cl.ProduceSync(r.t.Context(), recs...).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
}

// trim deletes the records of a partition below an offset.
func (r *real) trim(topic string, partition int32, below int64) {
	r.t.Helper()
	offsets := kadm.Offsets{}
	offsets.AddOffset(topic, partition, below, -1)
	res, err := r.adm.DeleteRecords(r.t.Context(), offsets)
	if err == nil {
		err = res.Error()
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// source reads topics with what else cfg says.
func (r *real) source(cfg SourceConfig, topics ...string) *Source {
	r.t.Helper()
	cfg.Config = Config{Brokers: []string{r.addr}, MetadataMinAge: 50 * time.Millisecond, RetryBackoff: func(int) time.Duration { return 20 * time.Millisecond }}
	cfg.Topics, cfg.FetchMaxWait = topics, 50*time.Millisecond
	s, err := NewSource(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	s.patience = time.Second
	r.t.Cleanup(func() { _ = s.Close() })
	return s
}

// ends fails the test unless a partition's end is that.
func (r *real) ends(s *Source, p record.Partition, want int64) {
	r.t.Helper()
	ends, err := s.End(bounded(r.t))
	if err != nil || ends[p] != want {
		r.t.Errorf("end of %s/%d: got %d, %v, want %d", p.Topic, p.Num, ends[p], err, want)
	}
}

// collect polls until done says so, and returns the values by partition. Any
// error fails the test.
func collect(t *testing.T, s *Source, done func(map[record.Partition][]string, map[record.Partition]int64) bool) map[record.Partition][]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	values, next := map[record.Partition][]string{}, map[record.Partition]int64{}
	for !done(values, next) {
		b, err := s.Poll(ctx)
		if err != nil {
			t.Fatalf("poll with positions %v: %v (%s)", next, err, s.Problem())
		}
		for i := range b.Records {
			values[b.Partition] = append(values[b.Partition], string(b.Records[i].Value))
		}
		next[b.Partition] = b.Next
	}
	return values
}

// until is done once all positions are reached.
func until(want map[record.Partition]int64) func(map[record.Partition][]string, map[record.Partition]int64) bool {
	return func(_ map[record.Partition][]string, next map[record.Partition]int64) bool {
		for p, n := range want {
			if next[p] < n {
				return false
			}
		}
		return true
	}
}

// assign assigns the partitions that are found from their start on.
func assign(t *testing.T, s *Source) []record.Partition {
	t.Helper()
	var ps []record.Partition
	for _, f := range found(t, s) {
		at, err := s.Start(bounded(t), f.Partition, connector.Start{})
		if err != nil {
			t.Fatal(err)
		}
		s.Assign(f.Partition, at)
		ps = append(ps, f.Partition)
	}
	return ps
}

func values(prefix string, from, to int) []string {
	vs := make([]string, 0, to-from)
	for i := from; i < to; i++ {
		vs = append(vs, fmt.Sprintf("%s-%d", prefix, i))
	}
	return vs
}

func partitionsOf(topic string, n int32) []record.Partition {
	ps := make([]record.Partition, n)
	for i := range ps {
		ps[i] = record.Partition{Topic: topic, Num: int32(i)}
	}
	return ps
}

// topicsFound are the names of the topics that a source finds.
func topicsFound(t *testing.T, s *Source) []string {
	t.Helper()
	names := map[string]bool{}
	for _, f := range found(t, s) {
		names[f.Topic] = true
	}
	return slices.Sorted(maps.Keys(names))
}
