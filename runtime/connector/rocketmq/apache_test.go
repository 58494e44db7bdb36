package rocketmq

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
	"time"

	mq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
	"github.com/apache/rocketmq-client-go/v2/rlog"

	"github.com/millrace-io/millrace/runtime/connector/connectortest/brokers"
	"github.com/millrace-io/millrace/runtime/record"
)

// The Apache client is the independent one: what it writes we read, and what we
// write it reads.

var quiet = sync.OnceFunc(func() { rlog.SetLogLevel("fatal") })

// theirProducer is a producer of the Apache client.
func theirProducer(t *testing.T, r *brokers.RocketMQ) mq.Producer {
	t.Helper()
	quiet()
	p, err := mq.NewProducer(producer.WithNameServer([]string{r.NameServer()}), producer.WithGroupName("theirs"), producer.WithInstanceName(t.Name()),
		producer.WithQueueSelector(producer.NewManualQueueSelector()), producer.WithCompressMsgBodyOverHowmuch(4096))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Shutdown() })
	return p
}

func TestReadsWhatApacheWrites(t *testing.T) {
	r := brokers.SharedRocketMQ(t)
	topic := newTopic(t, r, 1)
	p := theirProducer(t, r)
	long := bytes.Repeat([]byte("compressed "), 2000)
	var single []*primitive.Message
	for i, body := range [][]byte{[]byte("one"), long} {
		m := primitive.NewMessage(topic, body).WithTag("paid").WithKeys([]string{fmt.Sprint("k", i), "second"})
		m.WithProperty("b", "2")
		m.WithProperty("a", "1")
		m.WithShardingKey("shard")
		single = append(single, m)
	}
	batch := []*primitive.Message{primitive.NewMessage(topic, []byte("bare")), primitive.NewMessage(topic, []byte("batched")).WithTag("late")}
	before := time.Now().UnixMilli()
	for _, m := range single {
		m.Queue = &primitive.MessageQueue{Topic: topic, BrokerName: brokerName}
		if _, err := p.SendSync(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	batch[0].Queue = single[0].Queue
	if _, err := p.SendSync(t.Context(), batch...); err != nil {
		t.Fatal(err)
	}

	s := openSource(t, SourceConfig{Config: config(r), Topic: topic})
	assignAll(t, s)
	recs := take(t, s, 4)
	want := []string{"k0 second|one", "k1 second|" + string(long), "null|bare", "null|batched"}
	for i, rec := range recs {
		key := "null"
		if rec.Key != nil {
			key = string(rec.Key)
		}
		if got := key + "|" + string(rec.Value); got != want[i] {
			t.Errorf("record %d is %.40q, want %.40q", i, got, want[i])
		}
		if rec.Timestamp < before || rec.Timestamp > time.Now().UnixMilli() {
			t.Errorf("record %d: timestamp %d, want the time at which it was made", i, rec.Timestamp)
		}
	}
	headers := []string{
		"[{SHARDING_KEY shard} {a 1} {b 2} {rocketmq.tag paid}]", "[{SHARDING_KEY shard} {a 1} {b 2} {rocketmq.tag paid}]",
		"[]", "[{rocketmq.tag late}]",
	}
	for i, rec := range recs {
		if got := text(rec.Headers); got != headers[i] {
			t.Errorf("headers of record %d are %s, want %s", i, got, headers[i])
		}
	}
}

// text shows headers.
func text(hs []record.Header) string {
	type header struct{ Key, Value string }
	list := make([]header, len(hs))
	for i, h := range hs {
		list[i] = header{h.Key, string(h.Value)}
	}
	return fmt.Sprint(list)
}

func TestApacheReadsWhatWeWrite(t *testing.T) {
	r := brokers.SharedRocketMQ(t)
	topic := newTopic(t, r, 1)
	s := openSink(t, SinkConfig{Config: config(r), Topic: topic, Tag: func(*record.Record) (string, error) { return "paid", nil },
		IdempotencyKey: func(*record.Record) string { return "flow/orders/7" }})
	rec := record.Record{Key: []byte("order-1"), Value: []byte("body"), Timestamp: 1_700_000_000_000, To: -1, Headers: []record.Header{
		{Key: "a", Value: []byte("1")}, {Key: "a", Value: []byte("again")}, {Key: "KEYS", Value: []byte("no")},
	}}
	sendAll(t, s, rec)

	// Apache's pull consumer has data races of its own; its decoder has none.
	cl := newClient(config(r).defaults())
	t.Cleanup(cl.close)
	a, err := cl.pull(t.Context(), record.Partition{Topic: topic, Broker: brokerName}, 0, 32, "paid")
	if err != nil {
		t.Fatal(err)
	}
	ms := primitive.DecodeMessage(a.messages)
	if len(ms) != 1 {
		t.Fatalf("%d messages, want 1: %v", len(ms), ms)
	}
	m := ms[0]
	if got := string(m.Body); got != "body" {
		t.Errorf("body %q", got)
	}
	for name, want := range map[string]string{"KEYS": "order-1 flow/orders/7", "TAGS": "paid", "a": "1"} {
		if got := m.GetProperty(name); got != want {
			t.Errorf("property %s is %q, want %q", name, got, want)
		}
	}
}
