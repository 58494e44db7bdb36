package kafka

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/record"
)

func TestRealRecordsAsTheyAre(t *testing.T) {
	r := shared(t)
	topic := r.topic("in", 1)
	at := time.UnixMilli(1_700_000_000_123)
	headers := []kgo.RecordHeader{{Key: "a", Value: []byte("1")}, {Key: "null"}, {Key: "empty", Value: []byte{}}, {Key: "a", Value: []byte{0, 255}}, {Key: ""}}
	sent := []*kgo.Record{
		{},
		{Key: []byte("tombstone")},
		{Key: []byte("empty"), Value: []byte{}},
		{Key: []byte{}, Value: []byte("v")},
		{Value: []byte("no key"), Headers: headers},
	}
	for _, rec := range sent {
		rec.Topic, rec.Timestamp = topic, at
	}
	if err := r.cl.ProduceSync(t.Context(), sent...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	s := r.source(SourceConfig{}, topic)
	p := assign(t, s)[0]
	got := drain(t, s, p, int64(len(sent)))
	same := func(what string, i int, got, want []byte) {
		t.Helper()
		if !bytes.Equal(got, want) || (got == nil) != (want == nil) {
			t.Errorf("record %d: %s is %#v, want %#v", i, what, got, want)
		}
	}
	for i, rec := range got {
		same("key", i, rec.Key, sent[i].Key)
		same("value", i, rec.Value, sent[i].Value)
		if rec.Timestamp != at.UnixMilli() || len(rec.Headers) != len(sent[i].Headers) {
			t.Fatalf("record %d: timestamp %d and %d headers, want %d and %d", i, rec.Timestamp, len(rec.Headers), at.UnixMilli(), len(sent[i].Headers))
		}
		for j, h := range rec.Headers {
			if h.Key != headers[j].Key {
				t.Errorf("header %d is called %q, want %q", j, h.Key, headers[j].Key)
			}
			same("header "+h.Key, i, h.Value, headers[j].Value)
		}
	}
	r.ends(s, p, int64(len(sent)))
}

func TestRealTransactions(t *testing.T) {
	r := shared(t)
	topic := r.topic("in", 1)
	cl, err := kgo.NewClient(kgo.SeedBrokers(r.addr), kgo.DefaultProduceTopic(topic), kgo.TransactionalID(t.Name()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var want []string
	for i := range 7 {
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		end := kgo.TransactionEndTry(i%3 != 2)
		for j := range 5 {
			v := fmt.Sprintf("%d-%d", i, j)
			if end == kgo.TryCommit {
				want = append(want, v)
			}
			cl.Produce(t.Context(), kgo.StringRecord(v), nil)
		}
		if err := cl.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if i == 6 { // stays open: nothing behind it may be read
			break
		}
		if err := cl.EndTransaction(t.Context(), end); err != nil {
			t.Fatal(err)
		}
	}
	want = want[:len(want)-5]
	r.write(topic, 0, "after the open one")
	s := r.source(SourceConfig{}, topic)
	p := assign(t, s)[0]
	const stable = 6 * (5 + 1) // records and markers before the open one
	got := collect(t, s, until(map[record.Partition]int64{p: stable}))[p]
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want what was committed, %v", got, want)
	}
	r.ends(s, p, stable+6)
	if err := cl.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
		t.Fatal(err)
	}
	got = collect(t, s, until(map[record.Partition]int64{p: stable + 7}))[p]
	if !slices.Equal(got, []string{"after the open one"}) {
		t.Errorf("got %v after the abort, want the record behind it alone", got)
	}
	r.ends(s, p, stable+7)
}

func TestRealStart(t *testing.T) {
	r := shared(t)
	day := time.Now().Add(-24 * time.Hour).Truncate(time.Hour)
	topic := r.topic("in", 1)
	for i := range 10 { // a batch each
		rec := &kgo.Record{Topic: topic, Value: fmt.Append(nil, i), Timestamp: day.Add(time.Duration(i) * time.Hour)}
		if err := r.cl.ProduceSync(t.Context(), rec).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	r.trim(topic, 0, 2)
	stamped := r.topic("stamped", 1, "message.timestamp.type", "LogAppendTime")
	rec := &kgo.Record{Topic: stamped, Timestamp: day}
	if err := r.cl.ProduceSync(t.Context(), rec).FirstErr(); err != nil {
		t.Fatal(err)
	}
	empty := r.topic("empty", 1)
	trimmed := r.topic("trimmed", 1)
	r.write(trimmed, 0, values("v", 0, 20)...)
	r.trim(trimmed, 0, 20)

	s := r.source(SourceConfig{}, topic, stamped, empty, trimmed)
	for _, tc := range []struct {
		topic string
		at    connector.Start
		want  int64
	}{
		{topic, connector.Start{}, 2},
		{topic, connector.Start{Latest: true}, 10},
		{topic, connector.Start{Time: day.Add(150 * time.Minute)}, 3},
		{topic, connector.Start{Time: day.Add(4 * time.Hour)}, 4},
		{topic, connector.Start{Time: day.Add(-time.Hour)}, 2},
		{topic, connector.Start{Time: day.Add(100 * time.Hour)}, 10},
		{stamped, connector.Start{Time: day.Add(time.Hour)}, 0},
		{stamped, connector.Start{Time: time.Now().Add(time.Hour)}, 1},
		{empty, connector.Start{}, 0},
		{empty, connector.Start{Latest: true}, 0},
		{empty, connector.Start{Time: day}, 0},
		{trimmed, connector.Start{}, 20},
		{trimmed, connector.Start{Latest: true}, 20},
		{trimmed, connector.Start{Time: day}, 20},
	} {
		got, err := s.Start(bounded(t), record.Partition{Topic: tc.topic}, tc.at)
		if err != nil || got != tc.want {
			t.Errorf("%s from %s: got %d, %v, want %d", tc.topic, tc.at, got, err, tc.want)
		}
	}

	assign(t, s)
	r.ends(s, record.Partition{Topic: empty}, 0)
	r.ends(s, record.Partition{Topic: trimmed}, 20)
	only := r.source(SourceConfig{}, stamped)
	got := drain(t, only, assign(t, only)[0], 1)
	if ago := time.Since(time.UnixMilli(got[0].Timestamp)); ago < 0 || ago > time.Minute {
		t.Errorf("timestamp %s ago, want that of the append", ago)
	}
}

func TestRealCompacted(t *testing.T) {
	r := shared(t)
	often := "100"
	if _, err := r.adm.AlterBrokerConfigs(t.Context(), []kadm.AlterConfig{{Name: "log.cleaner.backoff.ms", Value: &often}}); err != nil {
		t.Fatal(err)
	}
	topic := r.topic("in", 1, "cleanup.policy", "compact", "segment.ms", "1", "min.cleanable.dirty.ratio", "0.001", "delete.retention.ms", "1")
	p := record.Partition{Topic: topic}
	for i := range 40 {
		rec := &kgo.Record{Topic: topic, Key: fmt.Append(nil, "k", i%4), Value: fmt.Append(nil, i)}
		if i%10 == 9 {
			rec.Value = nil
		}
		if err := r.cl.ProduceSync(t.Context(), rec).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	// It is read from the beginning until the cleaner has been there.
	s := r.source(SourceConfig{}, topic)
	var got []record.Record
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(30 * time.Second); len(got) == 0 || len(got) > 6; <-again.C {
		if time.Now().After(deadline) {
			t.Fatalf("%d records are left of 40: the log was not compacted", len(got))
		}
		s.Assign(p, 0)
		got = drain(t, s, p, 40)
	}
	r.ends(s, p, 40)
	last := int64(-1)
	for _, rec := range got {
		if rec.Offset <= last {
			t.Errorf("record %s comes after %d", rec.ID(), last)
		}
		last = rec.Offset
	}
	if last != 39 {
		t.Errorf("the last record is %d, want 39", last)
	}
	s.Assign(p, 5) // a gap now
	if again := drain(t, s, p, 40); len(again) == 0 || again[0].Offset <= 5 {
		t.Errorf("from a gap on: %d records, want those behind it", len(again))
	}
}

// A record larger than any limit of a fetch comes, alone if need be, and what a
// source keeps of partitions that are held up is bounded.
func TestRealOversized(t *testing.T) {
	r := shared(t)
	topic := r.topic("in", 3, "max.message.bytes", fmt.Sprint(32<<20))
	const large = 12 << 20
	pad := strings.Repeat("x", large)
	for p := range int32(3) {
		for i := range 2 {
			r.write(topic, p, fmt.Sprintf("%d-%d-small", p, i), fmt.Sprintf("%d-%d-%s", p, i, pad))
		}
	}
	s := r.source(SourceConfig{FetchMaxBytes: 1 << 20, FetchMaxPartitionBytes: 256 << 10, HoldBytes: 1 << 20}, topic)
	ps := assign(t, s)
	for _, p := range ps[1:] {
		s.Pause(p)
	}
	// One partition is read, the others are held up: one record of each at most
	// is fetched beyond HoldBytes.
	recs := drainLive(t, s, ps[0], 4)
	for i := range 4 { // polls on
		r.write(topic, 0, "more")
		drainLive(t, s, ps[0], int64(5+i))
	}
	s.mu.Lock()
	held := 0
	for _, pt := range s.parts {
		held += pt.bytes
	}
	s.mu.Unlock()
	if limit := 1<<20 + 2*(large+1<<10); held > limit {
		t.Errorf("%d bytes are held of paused partitions, want at most %d", held, limit)
	}
	check := func(p int32, recs []string) {
		t.Helper()
		if len(recs) != 4 {
			t.Fatalf("%d records of partition %d, want 4", len(recs), p)
		}
		for i, v := range recs {
			want := fmt.Sprintf("%d-%d-small", p, i/2)
			if i%2 == 1 {
				want = fmt.Sprintf("%d-%d-%s", p, i/2, pad)
			}
			if v != want {
				t.Fatalf("record %d of partition %d is %.20q with %d bytes", i, p, v, len(v))
			}
		}
	}
	check(0, recs)
	for _, p := range ps[1:] {
		s.Resume(p)
	}
	want := map[record.Partition]int64{}
	for _, p := range ps[1:] {
		want[p] = 4
	}
	got := collect(t, s, until(want))
	for _, p := range ps[1:] {
		check(p.Num, got[p])
	}
	got, recs = nil, nil
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapAlloc > 100<<20 {
		t.Errorf("%d MiB are in use after everything was read", m.HeapAlloc>>20)
	}
}

// drainLive reads the values of p up to next while others are paused.
func drainLive(t *testing.T, s *Source, p record.Partition, next int64) []string {
	t.Helper()
	return collect(t, s, until(map[record.Partition]int64{p: next}))[p]
}

func TestRealLargeBatchIsRefused(t *testing.T) {
	r := shared(t)
	topic := r.topic("in", 1)
	for _, v := range [][]byte{make([]byte, 2<<20), []byte("after")} { // a batch each, compressed
		if err := r.cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: v}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	s := r.source(SourceConfig{MaxBatchBytes: 1 << 20}, topic)
	p := assign(t, s)[0]
	wants(t, failure(t, s), "the batch at position 0 takes more than 1048576 bytes once it is decompressed", fmt.Sprintf("`flowctl flow offsets reset FLOW --to %s/0=1`", topic))
	s.Assign(p, 1)
	if got := drain(t, s, p, 2); len(got) != 1 || string(got[0].Value) != "after" {
		t.Errorf("behind it: %d records", len(got))
	}
}
