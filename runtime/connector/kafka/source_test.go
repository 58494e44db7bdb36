package kafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/record"
)

var in0 = record.Partition{Topic: "in", Num: 0}

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// drain polls until the position of p is next and returns the records.
func drain(t *testing.T, s *Source, p record.Partition, next int64) []record.Record {
	t.Helper()
	ctx := bounded(t)
	var recs []record.Record
	for {
		b, err := s.Poll(ctx)
		if err != nil {
			t.Fatalf("poll with %d records in hand: %v", len(recs), err)
		}
		if b.Partition != p {
			t.Fatalf("batch of %v, want %v", b.Partition, p)
		}
		recs = append(recs, b.Records...)
		if b.Next >= next {
			return recs
		}
	}
}

func found(t *testing.T, s *Source) []connector.Found {
	t.Helper()
	fs, err := s.Partitions(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

func TestRecordsAsTheyAre(t *testing.T) {
	c := cluster(t, kfake.SeedTopics(1, "in"))
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	at := time.UnixMilli(1_700_000_000_123)
	const trace = "0af7651916cd43dd8448eb211c80319c"
	err = cl.ProduceSync(t.Context(),
		&kgo.Record{Topic: "in", Timestamp: at},
		&kgo.Record{Topic: "in", Timestamp: at, Key: []byte{}, Value: []byte{}},
		&kgo.Record{Topic: "in", Timestamp: at, Key: []byte("k"), Value: []byte("v"), Headers: []kgo.RecordHeader{
			{Key: "traceparent", Value: []byte("00-" + trace + "-b7ad6b7169203331-01")}, {Key: "null"}, {Key: "empty", Value: []byte{}}, {Key: "null", Value: []byte("again")}}},
	).FirstErr()
	if err != nil {
		t.Fatal(err)
	}
	s := source(t, c, "in")
	s.Assign(in0, 0)
	recs := drain(t, s, in0, 3)

	if r := recs[0]; r.Key != nil || r.Value != nil || r.Headers != nil {
		t.Errorf("null key and value: got %q and %q", r.Key, r.Value)
	}
	if r := recs[1]; r.Key == nil || r.Value == nil {
		t.Errorf("empty key and value came as null")
	}
	r := recs[2]
	if r.Timestamp != at.UnixMilli() || r.ID() != "in/0/2" {
		t.Errorf("got %s at %d, want in/0/2 at %d", r.ID(), r.Timestamp, at.UnixMilli())
	}
	if r.Trace.String() != trace {
		t.Errorf("trace %s, want that of the header, %s", r.Trace, trace)
	}
	if want := record.NewTraceSeed(in0).Trace(1); recs[1].Trace != want {
		t.Errorf("trace %s, want the derived one, %s", recs[1].Trace, want)
	}
	want := []record.Header{r.Headers[0], {Key: "null"}, {Key: "empty", Value: []byte{}}, {Key: "null", Value: []byte("again")}}
	for i, h := range want {
		if got := r.Headers[i]; got.Key != h.Key || !bytes.Equal(got.Value, h.Value) || (got.Value == nil) != (h.Value == nil) {
			t.Errorf("header %d: got %q=%q, want %q=%q", i, got.Key, got.Value, h.Key, h.Value)
		}
	}
}

func TestNextPassesControlRecords(t *testing.T) {
	c := cluster(t, kfake.SeedTopics(1, "in"))
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.DefaultProduceTopic("in"), kgo.TransactionalID("tx"))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for i, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort, kgo.TryCommit, kgo.TryAbort} {
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for j := range 3 {
			cl.Produce(t.Context(), kgo.StringRecord(fmt.Sprint(i, j)), nil)
		}
		if err := cl.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := cl.EndTransaction(t.Context(), end); err != nil {
			t.Fatal(err)
		}
	}
	s := source(t, c, "in")
	s.Assign(in0, 0)
	end, err := s.End(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	if end[in0] != 16 { // four times three records and a marker
		t.Fatalf("end is %d, want 16", end[in0])
	}
	recs := drain(t, s, in0, end[in0])
	var got []string
	for _, r := range recs {
		got = append(got, string(r.Value))
	}
	if want := "[0 0 0 1 0 2 2 0 2 1 2 2]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s: what was committed", got, want)
	}
}

func TestStart(t *testing.T) {
	c := cluster(t, kfake.SeedTopics(1, "in"))
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.DefaultProduceTopic("in"))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	day := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for i := range 10 {
		r := kgo.StringRecord(fmt.Sprint(i))
		r.Timestamp = day.Add(time.Duration(i) * time.Hour)
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.DeleteRecords("in", 0, 2); err != nil {
		t.Fatal(err)
	}
	s := source(t, c, "in")
	for _, tc := range []struct {
		at   connector.Start
		want int64
	}{
		{connector.Start{}, 2},
		{connector.Start{Latest: true}, 10},
		{connector.Start{Time: day.Add(150 * time.Minute)}, 3},
		{connector.Start{Time: day.Add(4 * time.Hour)}, 4},
		{connector.Start{Time: day.Add(-time.Hour)}, 2},
		{connector.Start{Time: day.Add(100 * time.Hour)}, 10},
	} {
		got, err := s.Start(bounded(t), in0, tc.at)
		if err != nil || got != tc.want {
			t.Errorf("start %s: got %d, %v, want %d", tc.at, got, err, tc.want)
		}
	}
	if _, err := s.Start(bounded(t), record.Partition{Topic: "in", Num: 7}, connector.Start{}); err == nil {
		t.Errorf("partition 7 has a start")
	}
}

func TestNewPartitionsAreFound(t *testing.T) {
	c := cluster(t, kfake.SeedTopics(2, "in"))
	s := source(t, c, "in")
	before := found(t, s)
	if len(before) != 2 || before[0].TopicID == [16]byte{} {
		t.Fatalf("found %v, want two partitions with their topic's id", before)
	}
	s.Assign(in0, 0)
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	req := kmsg.NewPtrCreatePartitionsRequest()
	rt := kmsg.NewCreatePartitionsRequestTopic()
	rt.Topic, rt.Count = "in", 4
	req.Topics = append(req.Topics, rt)
	if _, err := req.RequestWith(t.Context(), cl); err != nil {
		t.Fatal(err)
	}
	after := found(t, s)
	if len(after) != 4 || after[3].TopicID != before[0].TopicID {
		t.Fatalf("found %v, want four partitions of the same topic", after)
	}
	fill(t, c, "in", 3, numbers(5))
	p3 := record.Partition{Topic: "in", Num: 3}
	s.Assign(p3, 0)
	if recs := drain(t, s, p3, 5); len(recs) != 5 {
		t.Errorf("%d records of the new partition, want 5", len(recs))
	}
}

func TestErrorThatMeansNothing(t *testing.T) {
	c := cluster(t, kfake.SeedTopics(1, "in"))
	fill(t, c, "in", 0, numbers(10))
	s := source(t, c, "in")
	s.Assign(in0, 0)
	drain(t, s, in0, 10)
	s.Pause(in0)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if b, err := s.Poll(ctx); err == nil {
		t.Fatalf("a batch of a paused partition: %v", b)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "in", Err: kerr.OffsetOutOfRange})
	s.Resume(in0)
	fill(t, c, "in", 0, numbers(5))
	if recs := drain(t, s, in0, 15); len(recs) != 5 {
		t.Errorf("%d records after an error that meant nothing, want 5", len(recs))
	}
}

func TestForbidden(t *testing.T) {
	c := cluster(t, kfake.SeedTopics(1, "in"))
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "in", Err: kerr.TopicAuthorizationFailed, Count: -1})
	s := source(t, c, "in")
	s.Assign(in0, 0)
	wants(t, failure(t, s), `read topic "in": TOPIC_AUTHORIZATION_FAILED`, "give the connection's user the right")
}

func TestLeaderMoves(t *testing.T) {
	c := cluster(t, kfake.NumBrokers(3), kfake.SeedTopics(1, "in"))
	s := source(t, c, "in")
	s.Assign(in0, 0)
	var got []record.Record
	for i := range 6 {
		fill(t, c, "in", 0, numbers(50))
		if err := c.MoveTopicPartition("in", 0, int32(i%3)); err != nil {
			t.Fatal(err)
		}
		got = append(got, drain(t, s, in0, int64(50*(i+1)))...)
	}
	for i, r := range got {
		if r.Offset != int64(i) {
			t.Fatalf("record %d has offset %d", i, r.Offset)
		}
	}
}

// restartable is a cluster that can go away and come back.
type restartable struct {
	t    *testing.T
	dir  string
	addr string
	c    *kfake.Cluster
}

func newRestartable(t *testing.T, topic string) *restartable {
	r := &restartable{t: t, dir: t.TempDir(), addr: "127.0.0.1:0"}
	r.start(kfake.SeedTopics(2, topic))
	r.addr = r.c.ListenAddrs()[0]
	t.Cleanup(func() { r.c.Close() })
	return r
}

func (r *restartable) start(opts ...kfake.Opt) {
	r.t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.DataDir(r.dir), kfake.ListenFn(func(network, _ string) (net.Listener, error) {
		return net.Listen(network, r.addr)
	})}, opts...)...)
	if err != nil {
		r.t.Fatal(err)
	}
	r.c = c
}

// eventually fails the test if ok does not become true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx := bounded(t)
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited for %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestBrokerAway(t *testing.T) {
	r := newRestartable(t, "in")
	fill(t, r.c, "in", 0, numbers(100))
	s := source(t, r.c, "in")
	s.Assign(in0, 0)
	drain(t, s, in0, 100)
	if p := s.Problem(); p != "" {
		t.Errorf("problem %q where all is well", p)
	}
	r.c.Close()
	polled := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var batch *record.Batch
	go func() {
		var err error
		batch, err = s.Poll(ctx)
		polled <- err
	}()
	eventually(t, "the problem", func() bool { return s.Problem() != "" })
	short, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer stop()
	if _, err := s.Partitions(short); !errors.Is(err, context.DeadlineExceeded) && record.AsError(err).Class != record.Retryable {
		t.Errorf("partitions while the broker is away: %v, want its context's error or class retryable", err)
	}
	select {
	case err := <-polled:
		t.Fatalf("poll ended while the broker is away: %v", err)
	default:
	}
	r.start()
	fill(t, r.c, "in", 0, numbers(10))
	if err := <-polled; err != nil {
		t.Fatal(err)
	}
	if batch.Records[0].Offset != 100 {
		t.Errorf("goes on at %d, want 100", batch.Records[0].Offset)
	}
	if p := s.Problem(); p != "" {
		t.Errorf("problem %q after the broker came back", p)
	}
}

func TestConfigFaults(t *testing.T) {
	for _, tc := range []struct {
		cfg  SourceConfig
		want []string
	}{
		{SourceConfig{}, []string{"no brokers", "no topics"}},
		{SourceConfig{Config: Config{Brokers: []string{"a", "b:1"}}, Topics: []string{""}}, []string{`broker "a" is not host:port`, "name is empty"}},
	} {
		_, err := NewSource(tc.cfg)
		for _, want := range tc.want {
			if err == nil || !bytes.Contains([]byte(err.Error()), []byte(want)) {
				t.Errorf("got %v, want it to contain %q", err, want)
			}
		}
	}
}

// What a lane has passed on is made into the next batch.
func TestBatchInTheMemoryOfAnother(t *testing.T) {
	fetched := make([]*kgo.Record, 500)
	for i := range fetched {
		fetched[i] = &kgo.Record{Key: []byte("k"), Value: []byte("v"), Offset: int64(i), Timestamp: time.UnixMilli(1)}
	}
	pt := &part{id: in0, seed: record.NewTraceSeed(in0)}
	var s Source
	if n := testing.AllocsPerRun(100, func() { s.Recycle(pt.batch(s.empty(len(fetched)), fetched)) }); n > 0 {
		t.Errorf("%v allocations for a batch of %d records, want none", n, len(fetched))
	}
	b := pt.batch(s.empty(len(fetched)), fetched)
	was := b.Records
	s.Recycle(b)
	if was[0].Value != nil || was[499].Value != nil {
		t.Error("a batch that was given back holds values")
	}
}
