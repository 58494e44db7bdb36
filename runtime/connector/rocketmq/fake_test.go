package rocketmq

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
)

// fake is a name server and a broker in one, that answers as a test wants it
// to.
type fake struct {
	ln     net.Listener
	answer func(req *frame) *frame // nil: none
	wg     sync.WaitGroup
	mu     sync.Mutex
	conns  []net.Conn // guarded by mu
	pulls  atomic.Int32
}

// newFake starts one with a topic t of one queue. answer is asked first; where
// it has nothing to say, requests are answered as by a broker whose queue has
// the offsets 10 to 20.
func newFake(t *testing.T, answer func(req *frame) *frame) *fake {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{ln: ln, answer: answer}
	f.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.conns = append(f.conns, c)
			f.mu.Unlock()
			f.wg.Go(func() { f.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		f.mu.Lock()
		for _, c := range f.conns {
			_ = c.Close()
		}
		f.mu.Unlock()
		f.wg.Wait()
	})
	return f
}

func (f *fake) config() Config { return Config{NameServers: []string{f.ln.Addr().String()}} }

func (f *fake) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		req, err := readFrame(r)
		if err != nil {
			return
		}
		if req.Code == reqPull {
			f.pulls.Add(1)
		}
		a := f.answer(req)
		if a == nil {
			a = f.usual(req)
		}
		if a == nil {
			continue
		}
		if a.Code == mute {
			continue
		}
		if a.Code == garbage {
			_, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			continue
		}
		a.Opaque, a.Flag = req.Opaque, isAnswer
		b, err := a.encode()
		if err != nil {
			panic(err)
		}
		if _, err := c.Write(b); err != nil {
			return
		}
	}
}

// Codes of answers that are none: bytes of another protocol, and nothing.
const (
	garbage = -1
	mute    = -2
)

func (f *fake) usual(req *frame) *frame {
	switch req.Code {
	case reqRoute: // as name servers write it: a key without quotes
		return &frame{body: fmt.Appendf(nil, `{"brokerDatas":[{"brokerAddrs":{0:"%s",1:"10.0.0.1:1"},"brokerName":"b","cluster":"c"}],`+
			`"queueDatas":[{"brokerName":"b","perm":6,"readQueueNums":1,"topicSysFlag":0,"writeQueueNums":1}]}`, f.ln.Addr())}
	case reqMinOffset:
		return &frame{Fields: map[string]string{"offset": "10"}}
	case reqMaxOffset:
		return &frame{Fields: map[string]string{"offset": "20"}}
	case reqHeartbeat, reqSendV2, reqSendBatch:
		return &frame{}
	}
	return nil
}

// pullAnswer is one to a pull.
func pullAnswer(code int, remark string, next int, messages ...[]byte) *frame {
	a := &frame{Code: code, Remark: remark, Fields: map[string]string{"nextBeginOffset": fmt.Sprint(next), "minOffset": "10", "maxOffset": "20", "suggestWhichBrokerId": "0"}}
	for _, m := range messages {
		a.body = append(a.body, m...)
	}
	return a
}

func TestMessagesThatAreGone(t *testing.T) {
	for _, c := range []struct {
		name string
		at   int64
		pull *frame
		want string
	}{
		{"refused", 5, pullAnswer(respPullOffsetMoved, "OFFSET_TOO_SMALL", 10), "position 5 is no longer in the queue, which goes on at 10 and ends at 20: 5 messages were deleted"},
		{"passed over", 12, pullAnswer(respPullRetry, "MESSAGE_WAS_REMOVING", 15), "position 12 is no longer in the queue, which goes on at 15 and ends at 20: 3 messages were deleted before they were read; go on without them: `flowctl flow offsets reset FLOW --to t/b/0=15`"},
		{"nothing there", 12, pullAnswer(respPullNotFound, "OFFSET_FOUND_NULL", 14), "goes on at 14"},
		{"a gap", 12, pullAnswer(respSuccess, "FOUND", 18, stored(17, []byte("x"), "")), "goes on at 17"},
		{"a message that cannot be read", 12, pullAnswer(respSuccess, "FOUND", 13, func() []byte {
			m := stored(12, []byte("not compressed"), "")
			m[39] = flagCompressed
			return m
		}()), "message at position 12: decompress its body"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t, func(req *frame) *frame {
				if req.Code != reqPull {
					return nil
				}
				a := *c.pull
				return &a
			})
			s := openSource(t, SourceConfig{Config: f.config(), Topic: "t"})
			s.Assign(record.Partition{Topic: "t", Broker: "b"}, c.at)
			if pe := failure(t, s); pe.Err.Class != record.Config || !strings.Contains(pe.Err.Error(), c.want) {
				t.Errorf("got %v, want %q", pe, c.want)
			}
		})
	}
}

// TestAPassingGap: what a broker lacks for less than settles is waited for.
func TestAPassingGap(t *testing.T) {
	var pulls atomic.Int32
	f := newFake(t, func(req *frame) *frame {
		if req.Code != reqPull {
			return nil
		}
		switch pulls.Add(1) {
		case 1:
			return pullAnswer(respSuccess, "FOUND", 14, stored(12, []byte("a"), ""), stored(14, []byte("c"), ""))
		case 2:
			return pullAnswer(respPullOffsetMoved, "OFFSET_OVERFLOW_BADLY", 12)
		case 3:
			return pullAnswer(respSuccess, "FOUND", 15, stored(11, []byte("old"), ""), stored(13, []byte("b"), ""), stored(14, []byte("c"), ""))
		}
		return nil // held
	})
	s := openSource(t, SourceConfig{Config: f.config(), Topic: "t"})
	s.Assign(record.Partition{Topic: "t", Broker: "b"}, 12)
	got := ""
	for _, rec := range take(t, s, 3) {
		got += string(rec.Value)
	}
	if got != "abc" {
		t.Errorf("got %q, want abc", got)
	}
}

// TestABrokerThatDoesNotHold: pulls that bring nothing at once are paced.
func TestABrokerThatDoesNotHold(t *testing.T) {
	var pulls atomic.Int32
	f := newFake(t, func(req *frame) *frame {
		if req.Code != reqPull {
			return nil
		}
		if pulls.Add(1) == 5 {
			return pullAnswer(respSuccess, "FOUND", 13, stored(12, []byte("a"), ""))
		}
		return pullAnswer(respPullNotFound, "OFFSET_OVERFLOW_ONE", 12)
	})
	s := openSource(t, SourceConfig{Config: f.config(), Topic: "t"})
	began := time.Now()
	s.Assign(record.Partition{Topic: "t", Broker: "b"}, 12)
	take(t, s, 1)
	if d := time.Since(began); d < 4*pullBackoff {
		t.Errorf("four pulls that brought nothing took %s", d)
	}
}

// bodies are those of a batch.
func bodies(b []byte) (out string) {
	for len(b) > 0 {
		n := binary.BigEndian.Uint32(b[16:])
		out += string(b[20 : 20+n])
		b = b[binary.BigEndian.Uint32(b):]
	}
	return out
}

func TestSendsAreTriedAgainInTheirPlace(t *testing.T) {
	var mu sync.Mutex
	var attempts []string
	f := newFake(t, func(req *frame) *frame {
		if req.Code != reqSendBatch {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		attempts = append(attempts, bodies(req.body))
		switch len(attempts) {
		case 1:
			return &frame{Code: 2, Remark: "busy"}
		case 2:
			return &frame{Code: respFlushDisk} // stored, but not safe
		case 3:
			return &frame{Code: garbage}
		}
		return nil
	})
	s := openSink(t, SinkConfig{Config: f.config(), Topic: "t"})
	var left sync.WaitGroup
	left.Add(4)
	for _, pair := range []string{"ab", "cd"} {
		s.Deliver(t.Context(), values(0, pair[:1], pair[1:]), func(_ int, err error) {
			if err != nil {
				t.Error(err)
			}
			left.Done()
		})
	}
	left.Wait()
	mu.Lock()
	defer mu.Unlock()
	if len(attempts) < 4 || attempts[0] != attempts[1] || attempts[1] != attempts[2] || attempts[2] != attempts[3] || strings.Join(attempts[3:], "") != "abcd" {
		t.Errorf("the requests were %q, want the first four times and then the rest", attempts)
	}
}

// TestOneThatTheBrokerDoesNotTake: its neighbours in the batch go through.
func TestOneThatTheBrokerDoesNotTake(t *testing.T) {
	f := newFake(t, func(req *frame) *frame {
		switch {
		case req.Code == reqSendBatch && strings.Contains(bodies(req.body), "bad"):
			return &frame{Code: respSystemError, Remark: "message body size exceeded"}
		case req.Code == reqSendV2 && string(req.body) == "bad":
			return &frame{Code: respMessageIllegal}
		}
		return nil
	})
	s := openSink(t, SinkConfig{Config: f.config(), Topic: "t"})
	for i, err := range send(t, s, values(0, "a", "bad", "b")...) {
		if e := record.AsError(err); i != 1 && err != nil || i == 1 && (e == nil || e.Class != record.TooLarge) {
			t.Errorf("record %d: %v", i, err)
		}
	}
}

// TestABrokerThatIsAwayKeepsItsQueues, and one without write permission does not.
func TestABrokerThatIsAwayKeepsItsQueues(t *testing.T) {
	f := newFake(t, func(*frame) *frame { return nil })
	s := openSink(t, SinkConfig{Config: f.config(), Topic: "t"})
	both := []queueRoute{{Broker: "a", Write: 2, Perm: permWrite}, {Broker: "b", Write: 1, Perm: permWrite}}
	for _, c := range []struct {
		name   string
		routes []queueRoute
		want   string
	}{
		{"both", both, "a0 a1 b0"},
		{"one is away", both[1:], "a0 a1 b0"},
		{"it is back with more", []queueRoute{{Broker: "a", Write: 3, Perm: permWrite}, both[1]}, "a0 a1 a2 b0"},
		{"it lost its permission", []queueRoute{{Broker: "a", Write: 3, Perm: permRead}, both[1]}, "b0"},
		{"it is away without it", both[1:], "b0"},
	} {
		if err := s.adopt(c.routes); err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, q := range s.queues {
			got += fmt.Sprintf(" %s%d", q.broker, q.num)
		}
		if got != " "+c.want {
			t.Errorf("%s: queues%s, want %s", c.name, got, c.want)
		}
	}
}

// TestAnEndedPart: what a pull brings after its part was assigned anew is dropped.
func TestAnEndedPart(t *testing.T) {
	f := newFake(t, func(*frame) *frame { return nil })
	s := openSource(t, SourceConfig{Config: f.config(), Topic: "t"})
	p := record.Partition{Topic: "t", Broker: "b"}
	s.Assign(p, 12)
	old := s.parts[p]
	s.Assign(p, 15)
	s.accept(old, values(0, "old"), 13)
	s.fail(old, record.Errorf(record.Config, "old"))
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.take(); b != nil || len(s.failed) > 0 || s.held != 0 {
		t.Errorf("batch %v, failures %v, %d bytes held", b, s.failed, s.held)
	}
}

// TestASilentBroker: one that takes requests and never answers is noticed.
func TestASilentBroker(t *testing.T) {
	var silent atomic.Bool
	f := newFake(t, func(req *frame) *frame {
		if silent.Load() && req.Code != reqRoute {
			return &frame{Code: mute}
		}
		return nil
	})
	s := openSource(t, SourceConfig{Config: f.config(), Topic: "t"})
	s.Assign(record.Partition{Topic: "t", Broker: "b"}, 12)
	until(t, "the pull is held", func() bool { return f.pulls.Load() > 0 })
	silent.Store(true)
	began := time.Now()
	until(t, "it is noticed", func() bool { return s.Problem() != "" })
	if d := time.Since(began); d < quietFor || d > promised {
		t.Errorf("noticed after %s: %s", d, s.Problem())
	}
}

func TestSignature(t *testing.T) {
	cl := newClient(Config{NameServers: []string{"h:1"}, AccessKey: "rocketmq", SecretKey: func() (string, error) { return "12345678", nil }})
	f := &frame{Fields: map[string]string{"topic": "t", "a": "1", "Signature": "old"}, body: []byte("body")}
	if err := cl.sign(f); err != nil {
		t.Fatal(err)
	}
	first := f.Fields["Signature"]
	if err := cl.sign(f); err != nil || f.Fields["Signature"] != first {
		t.Errorf("signed again it is %s, was %s (%v)", f.Fields["Signature"], first, err)
	}
	// printf 'rocketmq1tbody' | openssl dgst -sha1 -hmac 12345678 -binary | base64
	if first != "GH0J5g8J9/3P6v1aNkQQIIS6U0M=" {
		t.Errorf("signature %s", first)
	}
}
