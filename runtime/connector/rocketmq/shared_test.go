package rocketmq

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/connector/connectortest/brokers"
	"github.com/millrace-io/millrace/runtime/record"
)

func TestRecordsSurviveARealBroker(t *testing.T) {
	r := brokers.SharedRocketMQ(t)
	topic := newTopic(t, r, 1)
	h := func(kv ...string) (hs []record.Header) {
		for i := 0; i < len(kv); i += 2 {
			hs = append(hs, record.Header{Key: kv[i], Value: []byte(kv[i+1])})
		}
		return hs
	}
	recs := []record.Record{
		{Key: []byte("k"), Value: []byte("v"), Headers: h("a", "1", "b", "2")},
		{Key: nil, Value: []byte("null key")},
		{Key: []byte{}, Value: []byte{}},
		{Key: []byte("tombstone"), Value: nil},
		{Key: []byte("\x00\xff\x01\x02"), Value: []byte("\x00\xff"), Headers: h("z", "1", "a", "\xff", "z", "2", "TAGS", "no", "", "")},
		{Key: []byte("a b"), Value: []byte("v"), Headers: append(h(TagHeader, "paid"), record.Header{Key: "null"})},
	}
	for i := range recs {
		recs[i].Timestamp, recs[i].Offset, recs[i].Topic, recs[i].Broker, recs[i].Attempt, recs[i].To = 1_700_000_000_000+int64(i), int64(i), topic, brokerName, 1, -1
	}
	s := openSink(t, SinkConfig{Config: config(r), Topic: topic, IdempotencyKey: func(r *record.Record) string { return r.ID() }})
	sendAll(t, s, recs...)
	src := openSource(t, SourceConfig{Config: config(r), Topic: topic})
	assignAll(t, src)
	for i, got := range take(t, src, len(recs)) {
		if got.Trace.IsZero() {
			t.Errorf("record %d has no trace", i)
		}
		if got.Trace = (record.Trace{}); !reflect.DeepEqual(got, recs[i]) {
			t.Errorf("record came back as\n%#v, was\n%#v", got, recs[i])
		}
	}
}

func TestTags(t *testing.T) {
	r := brokers.SharedRocketMQ(t)
	topic := newTopic(t, r, 1)
	s := openSink(t, SinkConfig{Config: config(r), Topic: topic, Tag: func(r *record.Record) (string, error) { return string(r.Key), nil }})
	// "Aa" and "BB" have the same sum, which is all that brokers compare.
	tags := []string{"Aa", "BB", "other", "late", "other"}
	var recs []record.Record
	for round := range 40 {
		for _, tag := range tags {
			recs = append(recs, record.Record{Key: []byte(tag), Value: fmt.Appendf(nil, "%s%d", tag, round), Timestamp: 1, To: -1})
		}
	}
	sendAll(t, s, recs...)
	src := openSource(t, SourceConfig{Config: config(r), Topic: topic, Tags: []string{"Aa", "late"}})
	p := assignAll(t, src)[0]
	got := take(t, src, 80)
	for i, rec := range got {
		want := fmt.Sprintf("%s%d", []string{"Aa", "late"}[i%2], i/2)
		if string(rec.Value) != want {
			t.Fatalf("record %d is %s, want %s", i, rec.Value, want)
		}
	}
	// What follows the last message with a tag is passed, too.
	ends, err := src.End(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if ends[p] != int64(len(recs)) {
		t.Errorf("end %d, want %d", ends[p], len(recs))
	}
	src.mu.Lock()
	next := src.parts[p].next
	src.mu.Unlock()
	for next < ends[p] {
		b, err := src.Poll(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(b.Records) > 0 {
			t.Fatalf("record %s has none of the tags", b.Records[0].Value)
		}
		next = b.Next
	}
}

func TestStart(t *testing.T) {
	r := brokers.SharedRocketMQ(t)
	topic := newTopic(t, r, 2)
	s := openSink(t, SinkConfig{Config: config(r), Topic: topic})
	sendAll(t, s, values(0, "a", "b", "c")...)
	began := time.Now()
	until(t, "another millisecond", func() bool { return time.Since(began) > 5*time.Millisecond })
	between := time.Now()
	until(t, "another millisecond", func() bool { return time.Since(between) > 5*time.Millisecond })
	sendAll(t, s, values(0, "d", "e")...)
	src := openSource(t, SourceConfig{Config: config(r), Topic: topic})
	full, empty := record.Partition{Topic: topic, Broker: brokerName}, record.Partition{Topic: topic, Broker: brokerName, Num: 1}
	for _, c := range []struct {
		name string
		p    record.Partition
		at   connector.Start
		want int64
	}{
		{"earliest", full, connector.Start{}, 0},
		{"latest", full, connector.Start{Latest: true}, 5},
		{"a time before all", full, connector.Start{Time: time.Unix(0, 0)}, 0},
		{"a time between", full, connector.Start{Time: between}, 3},
		{"a time after all", full, connector.Start{Time: time.Now().Add(time.Hour)}, 5},
		{"earliest of an empty queue", empty, connector.Start{}, 0},
		{"latest of an empty queue", empty, connector.Start{Latest: true}, 0},
		{"a time in an empty queue", empty, connector.Start{Time: between}, 0},
	} {
		got, err := src.Start(t.Context(), c.p, c.at)
		if err != nil || got != c.want {
			t.Errorf("%s: %d, %v, want %d", c.name, got, err, c.want)
		}
	}
}

func TestQueuesComeAndGo(t *testing.T) {
	r := brokers.SharedRocketMQ(t)
	topic := newTopic(t, r, 2)
	src := openSource(t, SourceConfig{Config: config(r), Topic: topic})
	count := func() int {
		found, err := src.Partitions(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	if n := count(); n != 2 {
		t.Fatalf("%d queues, want 2", n)
	}
	s := openSink(t, SinkConfig{Config: config(r), Topic: topic})
	if e := record.AsError(send(t, s, values(2, "x")...)[0]); e == nil || e.Class != record.Rejected {
		t.Errorf("a record for a queue that is not there: %v, want class rejected", e)
	}

	makeTopic(t, r, topic, 4, 4, permRead|permWrite)
	if n := count(); n != 4 {
		t.Errorf("%d queues after two came, want 4", n)
	}
	until(t, "the sink knows the new queues", func() bool {
		s.mu.Lock()
		s.looked = time.Time{}
		s.mu.Unlock()
		return send(t, s, values(3, "new")...)[0] == nil
	})
	gone := record.Partition{Topic: topic, Broker: brokerName, Num: 3}
	src.Assign(gone, 0)
	if got := take(t, src, 1); string(got[0].Value) != "new" {
		t.Errorf("the new queue has %q", got[0].Value)
	}

	makeTopic(t, r, topic, 2, 2, permRead|permWrite)
	if n := count(); n != 2 {
		t.Errorf("%d queues after two went, want 2", n)
	}
	sendAll(t, s, record.Record{Value: []byte("moved"), To: -1, Partition: 3}) // the sink still knows four
	rest := openSource(t, SourceConfig{Config: config(r), Topic: topic})
	assignAll(t, rest)
	if got := take(t, rest, 1); string(got[0].Value) != "moved" || got[0].Partition != 1 {
		t.Errorf("the record of a queue that went is %q in queue %d", got[0].Value, got[0].Partition)
	}
	again := openSource(t, SourceConfig{Config: config(r), Topic: topic})
	again.Assign(gone, 0)
	if pe := failure(t, again); pe.Partition != gone || pe.Err.Class != record.Config || !strings.Contains(pe.Err.Error(), "has no queue 3") {
		t.Errorf("a queue that is not there any more: %v", pe)
	}
}

func TestPositionBehindTheEnd(t *testing.T) {
	r := brokers.SharedRocketMQ(t)
	topic := newTopic(t, r, 1)
	sendAll(t, openSink(t, SinkConfig{Config: config(r), Topic: topic}), values(0, "a", "b")...)
	src := openSource(t, SourceConfig{Config: config(r), Topic: topic})
	p := record.Partition{Topic: topic, Broker: brokerName}
	src.Assign(p, 7)
	pe := failure(t, src)
	if pe.Partition != p || pe.Err.Class != record.Config || !strings.Contains(pe.Err.Error(), "position 7 is behind the end of the queue, which begins at 0 and ends at 2") {
		t.Errorf("got %v", pe)
	}
	src.Assign(p, 1)
	if got := take(t, src, 1); string(got[0].Value) != "b" {
		t.Errorf("after it was assigned anew: %q", got[0].Value)
	}
}

func TestTopicsThatAreNotThere(t *testing.T) {
	r := brokers.SharedRocketMQ(t)
	src := openSource(t, SourceConfig{Config: config(r), Topic: "nowhere"})
	_, err := src.Partitions(t.Context())
	if e := record.AsError(err); e == nil || e.Class != record.Retryable || !errors.Is(err, connector.ErrNoTopic) {
		t.Errorf("a topic that was never there: %v", err)
	}

	s := openSink(t, SinkConfig{Config: config(r), Topic: "made-on-demand"})
	sendAll(t, s, values(-1, "a")...)
	made := openSource(t, SourceConfig{Config: config(r), Topic: "made-on-demand"})
	until(t, "the topic is there", func() bool {
		found, err := made.Partitions(t.Context())
		return err == nil && len(found) == 8
	})

	for _, at := range []struct {
		code int
		addr string
	}{{215, r.Broker()}, {216, r.NameServer()}} {
		// The broker deletes it and then trips over its timer store, which is off.
		if _, err := made.cl.askOnce(t.Context(), at.addr, frame{Code: at.code, Fields: map[string]string{"topic": "made-on-demand"}}); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the topic is gone", func() bool {
		_, err := made.Partitions(t.Context())
		return err != nil
	})
	_, err = made.Partitions(t.Context())
	if e := record.AsError(err); e.Class != record.Retryable || errors.Is(err, connector.ErrNoTopic) {
		t.Errorf("a topic that was there: %v, want class retryable and not ErrNoTopic", err)
	}
	made.Assign(record.Partition{Topic: "made-on-demand", Broker: brokerName}, 0)
	if pe := failure(t, made); pe.Err.Class != record.Config || !strings.Contains(pe.Err.Error(), "does not exist") {
		t.Errorf("a deleted topic: %v", pe)
	}
}

func TestPermissions(t *testing.T) {
	r := brokers.SharedRocketMQ(t)
	topic := newTopic(t, r, 2)
	makeTopic(t, r, topic, 2, 2, permRead)
	err := send(t, openSink(t, SinkConfig{Config: config(r), Topic: topic}), values(-1, "a", "b")...)
	for _, err := range err {
		if e := record.AsError(err); e == nil || e.Class != record.Config {
			t.Errorf("a topic that may not be written to: %v, want class config", err)
		}
	}
	makeTopic(t, r, topic, 2, 2, permWrite)
	src := openSource(t, SourceConfig{Config: config(r), Topic: topic})
	src.Assign(record.Partition{Topic: topic, Broker: brokerName}, 0)
	if pe := failure(t, src); pe.Err.Class != record.Config {
		t.Errorf("a topic that may not be read: %v, want class config", pe)
	}
}

func TestSizes(t *testing.T) {
	r := brokers.SharedRocketMQ(t)
	topic := newTopic(t, r, 1)
	s := openSink(t, SinkConfig{Config: config(r), Topic: topic})
	largest := bytes.Repeat([]byte("x"), 4<<20-1000)
	recs := values(0, "before", string(largest), "between", strings.Repeat("y", 4<<20+1), strings.Repeat("z", 17<<20), "after")
	recs[2].Headers = []record.Header{{Key: "h", Value: bytes.Repeat([]byte("p"), 32_000)}}
	for i, err := range send(t, s, recs...) {
		e := record.AsError(err)
		if tooLarge := i == 3 || i == 4; tooLarge != (e != nil && e.Class == record.TooLarge) || !tooLarge && err != nil {
			t.Errorf("record %d of %d bytes: %v", i, len(recs[i].Value), err)
		}
	}
	src := openSource(t, SourceConfig{Config: config(r), Topic: topic})
	assignAll(t, src)
	for i, rec := range take(t, src, 4) {
		if want := recs[[]int{0, 1, 2, 5}[i]]; !bytes.Equal(rec.Value, want.Value) || !reflect.DeepEqual(rec.Headers, want.Headers) {
			t.Errorf("record %d has %d bytes, want %d", i, len(rec.Value), len(want.Value))
		}
	}
}

func TestDelay(t *testing.T) {
	r := brokers.SharedRocketMQ(t)
	topic := newTopic(t, r, 1)
	src := openSource(t, SourceConfig{Config: config(r), Topic: topic})
	assignAll(t, src)
	s := openSink(t, SinkConfig{Config: config(r), Topic: topic, DelayLevel: 1}) // a second
	began := time.Now()
	recs := values(0, "a", "b", "", "")
	recs[0].Key, recs[0].Headers = []byte("k"), []record.Header{{Key: "h", Value: []byte("é")}}
	recs[3].Value = nil
	sendAll(t, s, recs...)
	first := take(t, src, 1)
	if d := time.Since(began); d < 900*time.Millisecond {
		t.Errorf("the first came after %s, want a second", d)
	}
	got := append(first, take(t, src, 3)...)
	if len(got[2].Value) > 0 || got[2].Value == nil || got[3].Value != nil {
		t.Errorf("an empty value and none came back as %q, %q", got[2].Value, got[3].Value)
	}
	if string(got[0].Key) != "k" || string(got[0].Value) != "a" || text(got[0].Headers) != "[{h é}]" || string(got[1].Value) != "b" {
		t.Errorf("got %+v", got)
	}
}

func TestHoldsNoMoreThanItMay(t *testing.T) {
	r := brokers.SharedRocketMQ(t)
	topic := newTopic(t, r, 2)
	s := openSink(t, SinkConfig{Config: config(r), Topic: topic})
	var vs []string
	for i := range 400 {
		vs = append(vs, strings.Repeat("x", 10_000)+fmt.Sprint(i))
	}
	for queue := range int32(2) {
		sendAll(t, s, values(queue, vs...)...)
	}
	const hold = 1 << 20
	src := openSource(t, SourceConfig{Config: config(r), Topic: topic, HoldBytes: hold})
	ps := assignAll(t, src)
	src.Pause(ps[0])
	taken := 0
	for taken < 400 {
		b, err := src.Poll(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		taken += len(b.Records)
		src.mu.Lock()
		if held := src.held; held > hold+2*400_000 {
			t.Fatalf("%d bytes are held, and may be %d", held, hold)
		}
		src.mu.Unlock()
	}
	src.Resume(ps[0])
	for i, rec := range take(t, src, 400) {
		if rec.Partition != ps[0].Num || string(rec.Value) != vs[i] {
			t.Fatalf("record %d after Resume is %s", i, rec.ID())
		}
	}
	src.mu.Lock()
	defer src.mu.Unlock()
	if src.held != 0 {
		t.Errorf("%d bytes are held where nothing is", src.held)
	}
}
