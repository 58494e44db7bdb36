package rocketmq

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/record"
)

// TestAnswerThatBecomesLarge: of many bodies that a few bytes make large, one
// pull brings some.
func TestAnswerThatBecomesLarge(t *testing.T) {
	t.Parallel()
	const n, each = 8, 3 << 20
	var all [][]byte
	for i := range n {
		all = append(all, compressed(t, 3, int64(12+i), zeros(each)))
	}
	f := newFake(t, func(req *frame) *frame {
		at := 0
		if req.Code != reqPull {
			return nil
		}
		if _, err := fmt.Sscan(req.Fields["queueOffset"], &at); err != nil || at >= 12+n {
			return nil // held
		}
		return pullAnswer(respSuccess, "FOUND", 12+n, all[at-12:]...)
	})
	s := openSource(t, SourceConfig{Config: f.config(), Topic: "t", HoldBytes: 1})
	s.Assign(record.Partition{Topic: "t", Broker: "b"}, 12)
	for next := int64(12); next < 12+n; {
		b, err := s.Poll(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(b.Records) > 0 && b.Records[0].Offset != next || len(b.Records) > 2 {
			t.Fatalf("%d records of %d bytes from %d on came at once, want at most 2 from %d on", len(b.Records), each, b.Records[0].Offset, next)
		}
		next = b.Next
	}
}

// TestForgedProperty: what a foreign producer writes as MILLRACE can make
// neither much of little nor a body disappear.
func TestForgedProperty(t *testing.T) {
	var exact bytes.Buffer
	exact.WriteString(`{"null":true,"headers":[{"n":"a"}`)
	for range 1000 {
		exact.WriteString(`,{"n":"a"},{"n":"` + TagHeader + `"}`)
	}
	exact.WriteString("]}")
	long := strings.Repeat("x", 2000)
	m := message{body: []byte("body"), properties: string(appendProperty(appendProperty(appendProperty(nil, "a", long), propTags, long), propExact, exact.String()))}
	r := fromMessage(&m)
	if string(r.Value) != "body" {
		t.Errorf("value %q", r.Value)
	}
	if n := r.Size(); n > 2*len(m.properties)+1000*len(TagHeader) {
		t.Errorf("properties of %d bytes became a record of %d", len(m.properties), n)
	}
	if len(r.Headers) != 2001 || string(r.Headers[0].Value) != long || string(r.Headers[2].Value) != long {
		t.Errorf("%d headers", len(r.Headers))
	}
	for _, text := range []string{`{"key":1}`, `{"headers":{}}`, "{", "", "[]", strings.Repeat(`{"x":`, 12_000)} {
		m := message{body: []byte("body"), properties: "KEYS\x01k\x02a\x01b\x02MILLRACE\x01" + text + "\x02"}
		if r := fromMessage(&m); string(r.Key) != "k" || len(r.Headers) != 1 || string(r.Value) != "body" {
			t.Errorf("with %.20q it is %+v", text, r)
		}
	}
}

// TestRemarks: what brokers say is quoted in one line of a bounded length.
func TestRemarks(t *testing.T) {
	long := strings.Repeat("é", 1<<20)
	for in, want := range map[string]string{
		"java.lang.X\n\tat a.b(C.java:1)\r\n\x1b[31m": "answer 1: java.lang.X at a.b(C.java:1) [31m",
		"": "answer 1: ",
	} {
		if got := (&answerError{1, in}).Error(); got != want {
			t.Errorf("%q is quoted as %q, want %q", in, got, want)
		}
	}
	if got := (&answerError{1, long}).Error(); len(got) > maxRemark+20 || !strings.HasSuffix(got, "é...") {
		t.Errorf("%d bytes: %q", len(got), got)
	}
	cfg := Config{NameServers: []string{"127.0.0.1:1", "127.0.0.1:2"}}
	if err := Check(t.Context(), cfg); err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "; name server 127.0.0.1:2: ") {
		t.Errorf("two name servers that are away: %v", err)
	}
}

// routeAnswer tells of queues at broker b, whose address is the fake's.
func routeAnswer(f *fake, queues string) *frame {
	return &frame{body: fmt.Appendf(nil, `{"brokerDatas":[{"brokerAddrs":{"0":"%s"},"brokerName":"b"}],"queueDatas":[%s]}`, f.ln.Addr(), queues)}
}

func queueData(broker string, n int) string {
	return fmt.Sprintf(`{"brokerName":%q,"perm":6,"readQueueNums":%d,"writeQueueNums":%d}`, broker, n, n)
}

func TestRoutesOfABrokenNameServer(t *testing.T) {
	for _, c := range []struct {
		name, queues string
		want         int // -1: an error
	}{
		{"twice the same", queueData("b", 2) + "," + queueData("b", 2), 2},
		{"less than none", queueData("b", -2), 0},
		{"too many", queueData("b", maxQueues+1), -1},
		{"too many in all", queueData("a", maxQueues) + "," + queueData("b", 1), -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var f *fake
			f = newFake(t, func(req *frame) *frame { return routeAnswer(f, c.queues) })
			found, err := openSource(t, SourceConfig{Config: f.config(), Topic: "t"}).Partitions(t.Context())
			if (err != nil) != (c.want < 0) || err == nil && len(found) != c.want {
				t.Errorf("%d queues, %v, want %d", len(found), err, c.want)
			}
		})
	}
}

// TestAGapBetweenFailures: what a broker says before and after it was away does
// not add up to settles.
func TestAGapBetweenFailures(t *testing.T) {
	t.Parallel()
	var before, after atomic.Bool
	began := time.Now()
	f := newFake(t, func(req *frame) *frame {
		switch {
		case req.Code != reqPull:
			return nil
		case !before.Swap(true):
			return pullAnswer(respPullOffsetMoved, "OFFSET_OVERFLOW_BADLY", 12)
		case time.Since(began) < settles:
			return &frame{Code: respSystemError, Remark: "starting"}
		case !after.Swap(true):
			return pullAnswer(respPullOffsetMoved, "OFFSET_OVERFLOW_BADLY", 12)
		}
		return pullAnswer(respSuccess, "FOUND", 13, stored(12, []byte("a"), ""))
	})
	s := openSource(t, SourceConfig{Config: f.config(), Topic: "t"})
	s.Assign(record.Partition{Topic: "t", Broker: "b"}, 12)
	take(t, s, 1)
}

// TestNameServerThatHasJustStarted: a topic that it does not know yet is no
// reason to give up a queue.
func TestNameServerThatHasJustStarted(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	f := newFake(t, func(req *frame) *frame {
		switch {
		case req.Code == reqRoute && asked.Add(1) < 3:
			return &frame{Code: respNoTopic}
		case req.Code == reqClusterInfo:
			return &frame{body: []byte(`{"brokerAddrTable":{"another":{}}}`)}
		case req.Code == reqPull:
			return pullAnswer(respSuccess, "FOUND", 13, stored(12, []byte("a"), ""))
		}
		return nil
	})
	s := openSource(t, SourceConfig{Config: f.config(), Topic: "t"})
	s.Assign(record.Partition{Topic: "t", Broker: "b"}, 12)
	until(t, "it is told", func() bool { return strings.Contains(s.Problem(), "do not know topic") })
	take(t, s, 1)
}

// late is a context that ends while a connection is made.
type late struct{ context.Context }

func (late) Done() <-chan struct{} { return nil }
func (late) Err() error            { return context.Canceled }

func TestAConnectionThatNobodyWaitsForAnyMore(t *testing.T) {
	f := newFake(t, func(*frame) *frame { return nil })
	leaks := goleak.IgnoreCurrent()
	cl := newClient(f.config().defaults())
	c, err := cl.connect(late{t.Context()}, "t", "b")
	if err == nil {
		_, err = c.call(late{t.Context()}, frame{Code: reqHeartbeat})
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	cl.close()
	if _, err := cl.connect(t.Context(), "t", "b"); !errors.Is(err, connector.ErrClosed) {
		t.Errorf("after close: %v", err)
	}
	goleak.VerifyNone(t, leaks, goleak.IgnoreAnyFunction("github.com/millrace-io/millrace/runtime/connector/rocketmq.(*fake).serve"))
}

// TestACallEndsWithItsContext, although the broker never answers it.
func TestACallEndsWithItsContext(t *testing.T) {
	f := newFake(t, func(req *frame) *frame {
		if req.Code == reqPull {
			return &frame{Code: mute}
		}
		return nil
	})
	cl := newClient(f.config().defaults())
	t.Cleanup(cl.close)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1) // its only answer
	go func() {
		_, err := cl.pull(ctx, record.Partition{Topic: "t", Broker: "b"}, 12, 1, "*")
		done <- err
	}()
	until(t, "the pull is held", func() bool { return f.pulls.Load() > 0 })
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("it waits on")
	}
	c, err := cl.connect(t.Context(), "t", "b")
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiting) != 0 {
		t.Errorf("%d answers are waited for", len(c.waiting))
	}
}

// TestOneWithoutABody goes as a batch: brokers refuse it otherwise.
func TestOneWithoutABody(t *testing.T) {
	var codes []int
	var mu sync.Mutex
	f := newFake(t, func(req *frame) *frame {
		if req.Code == reqSendV2 || req.Code == reqSendBatch {
			mu.Lock()
			defer mu.Unlock()
			codes = append(codes, req.Code)
		}
		return nil
	})
	s := openSink(t, SinkConfig{Config: f.config(), Topic: "t"})
	for _, v := range [][]byte{[]byte("x"), {}, nil} {
		sendAll(t, s, record.Record{Value: v, To: -1, Partition: -3})
	}
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(codes, []int{reqSendV2, reqSendBatch, reqSendBatch}) {
		t.Errorf("requests %v", codes)
	}
}

// TestDelayWithoutABody: brokers keep back what comes singly only.
func TestDelayWithoutABody(t *testing.T) {
	sent := make(chan *frame, 3) // as many as there are records
	f := newFake(t, func(req *frame) *frame {
		if req.Code == reqSendV2 || req.Code == reqSendBatch {
			sent <- req
		}
		return nil
	})
	s := openSink(t, SinkConfig{Config: f.config(), Topic: "t", DelayLevel: 3})
	sendAll(t, s, record.Record{Value: []byte{}, To: -1}, record.Record{To: -1}, record.Record{Value: []byte("x"), To: -1})
	for i, want := range []string{"", "", "x"} {
		req := <-sent
		flags, err := strconv.Atoi(req.Fields["f"])
		if err != nil {
			t.Fatal(err)
		}
		b := stored(7, req.body, req.Fields["i"])
		binary.BigEndian.PutUint32(b[36:], uint32(flags))
		m, _, err := decodeMessage(b)
		if err != nil || req.Code != reqSendV2 || len(req.body) == 0 || string(m.body) != want || !strings.Contains(m.properties, "DELAY\x013\x02") {
			t.Errorf("record %d: request %d with %x is %+v, %v", i, req.Code, req.body, m, err)
		}
	}
}

// TestRecordsOfAQueueThatWent go to those that are there, in their order, though
// nothing else is delivered meanwhile.
func TestRecordsOfAQueueThatWent(t *testing.T) {
	t.Parallel()
	var shrunk atomic.Bool
	var mu sync.Mutex
	var got []string
	var f *fake
	f = newFake(t, func(req *frame) *frame {
		switch req.Code {
		case reqRoute:
			if shrunk.Load() {
				return routeAnswer(f, queueData("b", 1))
			}
			return routeAnswer(f, queueData("b", 2))
		case reqSendV2, reqSendBatch:
			if req.Fields["e"] == "1" {
				shrunk.Store(true)
				return &frame{Code: respSystemError, Remark: "request queueId[1] is illegal"}
			}
			mu.Lock()
			defer mu.Unlock()
			if req.Code == reqSendBatch {
				got = append(got, bodies(req.body))
			} else {
				got = append(got, string(req.body))
			}
		}
		return nil
	})
	s := openSink(t, SinkConfig{Config: f.config(), Topic: "t"})
	recs := values(-1, "a", "b", "c", "d")
	for i := range recs {
		recs[i].Partition = 1
	}
	recs[3].To = 1 // asked for that very queue
	errs := send(t, s, recs...)
	if errs[0] != nil || errs[1] != nil || errs[2] != nil || record.AsError(errs[3]).Class != record.Rejected {
		t.Errorf("answers %v", errs)
	}
	mu.Lock()
	defer mu.Unlock()
	if all := strings.Join(got, ""); all != "abc" {
		t.Errorf("queue 0 got %q", got)
	}
}

// TestATopicThatANameServerForgot: its queues are not looked for where topics
// are made on demand.
func TestATopicThatANameServerForgot(t *testing.T) {
	var forgot atomic.Bool
	var f *fake
	f = newFake(t, func(req *frame) *frame {
		if req.Code != reqRoute {
			return nil
		}
		switch {
		case req.Fields["topic"] == autoTopic:
			return routeAnswer(f, queueData("other", 8))
		case forgot.Load():
			return &frame{Code: respNoTopic}
		}
		return routeAnswer(f, queueData("b", 1))
	})
	s := openSink(t, SinkConfig{Config: f.config(), Topic: "t"})
	sendAll(t, s, values(-1, "a")...)
	forgot.Store(true)
	s.mu.Lock()
	s.looked = time.Time{}
	s.mu.Unlock()
	sendAll(t, s, values(-1, "b")...)
	until(t, "the queues were looked for", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return !s.routing && !s.looked.IsZero()
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queues) != 1 {
		t.Errorf("%d queues, want the one", len(s.queues))
	}
}
