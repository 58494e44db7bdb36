package rocketmq

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/connector/connectortest"
	"github.com/millrace-io/millrace/runtime/connector/connectortest/brokers"
	"github.com/millrace-io/millrace/runtime/record"
)

func TestMain(m *testing.M) { brokers.Main(m) }

const patience = 20 * time.Second

// brokerName is that of the harness.
const brokerName = "broker-a"

// topics counts those that tests made.
var topics struct {
	sync.Mutex
	n int
}

// newTopic makes a topic with so many queues.
func newTopic(t *testing.T, r *brokers.RocketMQ, queues int) string {
	t.Helper()
	topics.Lock()
	topics.n++
	name := fmt.Sprintf("t%d", topics.n)
	topics.Unlock()
	makeTopic(t, r, name, queues, queues, permRead|permWrite)
	return name
}

// makeTopic makes or changes a topic and waits until the name server knows it
// so.
func makeTopic(t *testing.T, r *brokers.RocketMQ, name string, read, write, perm int) {
	t.Helper()
	cl := newClient(config(r).defaults())
	t.Cleanup(cl.close)
	f, err := cl.askOnce(t.Context(), r.Broker(), frame{Code: 17, Fields: map[string]string{
		"topic": name, "defaultTopic": autoTopic, "readQueueNums": strconv.Itoa(read), "writeQueueNums": strconv.Itoa(write),
		"perm": strconv.Itoa(perm), "topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false",
	}})
	if err != nil {
		t.Fatal(err)
	}
	if f.Code != respSuccess {
		t.Fatal(&answerError{f.Code, f.Remark})
	}
	until(t, "the name server knows topic "+name, func() bool {
		got, err := cl.route(t.Context(), name)
		return err == nil && len(got) == 1 && got[0].Read == int32(read) && got[0].Write == int32(write) && got[0].Perm == perm
	})
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for: %s", patience, what)
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-t.Context().Done():
		}
	}
}

func config(r *brokers.RocketMQ) Config { return Config{NameServers: []string{r.NameServer()}} }

func openSource(t *testing.T, cfg SourceConfig) *Source {
	t.Helper()
	s, err := NewSource(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func openSink(t *testing.T, cfg SinkConfig) *Sink {
	t.Helper()
	s, err := NewSink(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// send delivers records and waits for their answers.
func send(t *testing.T, s *Sink, recs ...record.Record) []error {
	t.Helper()
	errs := make([]error, len(recs))
	var left sync.WaitGroup
	left.Add(len(recs))
	s.Deliver(t.Context(), recs, func(i int, err error) {
		errs[i] = err
		left.Done()
	})
	all := make(chan struct{})
	go func() { left.Wait(); close(all) }()
	select {
	case <-all:
	case <-time.After(patience):
		t.Fatalf("no answer after %s: %s", patience, s.Problem())
	}
	return errs
}

// sendAll delivers records, all of which must be taken.
func sendAll(t *testing.T, s *Sink, recs ...record.Record) {
	t.Helper()
	for i, err := range send(t, s, recs...) {
		if err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
	}
}

// values are records for one queue, in order.
func values(queue int32, vs ...string) []record.Record {
	recs := make([]record.Record, len(vs))
	for i, v := range vs {
		recs[i] = record.Record{Value: []byte(v), Timestamp: 1_700_000_000_000 + int64(i), To: queue}
	}
	return recs
}

// assignAll assigns every queue of the topic from its beginning.
func assignAll(t *testing.T, s *Source) []record.Partition {
	t.Helper()
	found, err := s.Partitions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var ps []record.Partition
	for _, f := range found {
		at, err := s.Start(t.Context(), f.Partition, connector.Start{})
		if err != nil {
			t.Fatal(err)
		}
		s.Assign(f.Partition, at)
		ps = append(ps, f.Partition)
	}
	return ps
}

// take polls until n records have come.
func take(t *testing.T, s *Source, n int) []record.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var recs []record.Record
	for len(recs) < n {
		b, err := s.Poll(ctx)
		if err != nil {
			t.Fatalf("poll after %d of %d records: %v (%s)", len(recs), n, err, s.Problem())
		}
		recs = append(recs, b.Records...)
	}
	return recs
}

// failure polls until a partition fails.
func failure(t *testing.T, s *Source) *connector.PartitionError {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		b, err := s.Poll(ctx)
		if err == nil {
			if len(b.Records) > 0 {
				t.Fatalf("record %s where a failure was to come", b.Records[0].ID())
			}
			continue
		}
		pe, ok := errors.AsType[*connector.PartitionError](err)
		if !ok {
			t.Fatalf("poll: %v (%s)", err, s.Problem())
		}
		return pe
	}
}

func TestSourceSuite(t *testing.T) {
	r := brokers.SharedRocketMQ(t)
	connectortest.Source(t, func(t *testing.T) connectortest.SourceSpec {
		topic := newTopic(t, r, 3)
		s := openSink(t, SinkConfig{Config: config(r), Topic: topic})
		spec := connectortest.SourceSpec{
			Open: func(t *testing.T) connectortest.ASource {
				s, err := NewSource(SourceConfig{Config: config(r), Topic: topic, BatchRecords: 20})
				if err != nil {
					t.Fatal(err)
				}
				return s
			},
			Values: map[record.Partition][]string{},
		}
		for queue, n := range []int{300, 5, 0} {
			vs := connectortest.Values(n)
			spec.Values[record.Partition{Topic: topic, Broker: brokerName, Num: int32(queue)}] = vs
			sendAll(t, s, values(int32(queue), vs...)...)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return spec
	})
}

func TestSinkSuite(t *testing.T) {
	r := brokers.SharedRocketMQ(t)
	connectortest.Sink(t, func(t *testing.T) connectortest.SinkSpec {
		topic := newTopic(t, r, 3)
		return connectortest.SinkSpec{
			Open: func(t *testing.T) connectortest.ASink {
				s, err := NewSink(SinkConfig{Config: config(r), Topic: topic})
				if err != nil {
					t.Fatal(err)
				}
				return s
			},
			Read: func(t *testing.T, n int) []string {
				s := openSource(t, SourceConfig{Config: config(r), Topic: topic})
				assignAll(t, s)
				var vs []string
				for _, rec := range take(t, s, n) {
					vs = append(vs, string(rec.Value))
				}
				return vs
			},
		}
	})
}
