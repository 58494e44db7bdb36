package kafka

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/connector/connectortest"
	"github.com/millrace-io/millrace/runtime/record"
)

func cluster(t *testing.T, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func config(c *kfake.Cluster) Config {
	return Config{
		Brokers:        c.ListenAddrs(),
		MetadataMinAge: 50 * time.Millisecond,
		RetryBackoff:   func(int) time.Duration { return 10 * time.Millisecond },
	}
}

func source(t *testing.T, c *kfake.Cluster, topics ...string) *Source {
	t.Helper()
	s, err := NewSource(SourceConfig{Config: config(c), Topics: topics, FetchMaxWait: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	s.patience = 300 * time.Millisecond
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func sink(t *testing.T, c *kfake.Cluster, topic string) *Sink {
	t.Helper()
	s, err := NewSink(SinkConfig{Config: config(c), Topic: topic})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// fill writes values to a partition with a client of its own.
func fill(t *testing.T, c *kfake.Cluster, topic string, partition int32, values []string, opts ...kgo.Opt) {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var recs []*kgo.Record
	for _, v := range values {
		recs = append(recs, &kgo.Record{Topic: topic, Partition: partition, Value: []byte(v)})
	}
	if err := cl.ProduceSync(t.Context(), recs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func TestSourceSuite(t *testing.T) {
	for name, hold := range map[string]int{"hold": 0, "hold little": 1} {
		t.Run(name, func(t *testing.T) {
			connectortest.Source(t, func(t *testing.T) connectortest.SourceSpec {
				c := cluster(t, kfake.SeedTopics(3, "in"))
				spec := connectortest.SourceSpec{Values: map[record.Partition][]string{}}
				for p, n := range []int{400, 0, 30} {
					values := connectortest.Values(n)
					fill(t, c, "in", int32(p), values)
					spec.Values[record.Partition{Topic: "in", Num: int32(p)}] = values
				}
				spec.Open = func(t *testing.T) connectortest.ASource {
					s, err := NewSource(SourceConfig{Config: config(c), Topics: []string{"in"}, FetchMaxWait: 20 * time.Millisecond, BatchRecords: 20, HoldBytes: hold})
					if err != nil {
						t.Fatal(err)
					}
					return s
				}
				return spec
			})
		})
	}
}

func TestSinkSuite(t *testing.T) {
	connectortest.Sink(t, func(t *testing.T) connectortest.SinkSpec {
		c := cluster(t, kfake.SeedTopics(3, "out"))
		return connectortest.SinkSpec{
			Open: func(t *testing.T) connectortest.ASink {
				s, err := NewSink(SinkConfig{Config: config(c), Topic: "out"})
				if err != nil {
					t.Fatal(err)
				}
				return s
			},
			Read: func(t *testing.T, n int) []string {
				var values []string
				for _, r := range readAll(t, c, "out", n) {
					values = append(values, string(r.Value))
				}
				return values
			},
		}
	})
}

// readAll reads n records of a topic.
func readAll(t *testing.T, c *kfake.Cluster, topic string, n int) []*kgo.Record {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.ConsumeTopics(topic), kgo.FetchMaxWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var recs []*kgo.Record
	for len(recs) < n {
		fs := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("read %d of %d records", len(recs), n)
		}
		recs = append(recs, fs.Records()...)
	}
	return recs
}

// failure polls until the source reports what ails p.
func failure(t *testing.T, s *Source) *connector.PartitionError {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		_, err := s.Poll(ctx)
		if err == nil {
			continue
		}
		pe, ok := errors.AsType[*connector.PartitionError](err)
		if !ok {
			t.Fatalf("poll: %v, want a PartitionError", err)
		}
		return pe
	}
}

// wants fails the test unless err is of class config and its text has all of
// the parts.
func wants(t *testing.T, err error, parts ...string) {
	t.Helper()
	e, ok := errors.AsType[*record.Error](err)
	if !ok {
		t.Fatalf("got %v, want a *record.Error", err)
	}
	if e.Class != record.Config {
		t.Errorf("class %s, want config: %v", e.Class, err)
	}
	for _, part := range parts {
		if !strings.Contains(e.Message, part) {
			t.Errorf("got %q, want it to contain %q", e.Message, part)
		}
	}
}

func numbers(n int) []string {
	vs := make([]string, n)
	for i := range vs {
		vs[i] = fmt.Sprint(i)
	}
	return vs
}
