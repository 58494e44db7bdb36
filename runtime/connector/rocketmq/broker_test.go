package rocketmq

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace-io/millrace/runtime/connector/connectortest/brokers"
	"github.com/millrace-io/millrace/runtime/record"
)

// promised is how long a broker may be gone unnoticed, and how long it may be
// back before messages flow again.
const promised = 5 * time.Second

// reader polls in the background.
type reader struct {
	mu   sync.Mutex
	recs []record.Record
	err  error
}

func read(t *testing.T, s *Source) *reader {
	rd := &reader{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			b, err := s.Poll(ctx)
			rd.mu.Lock()
			if err != nil {
				rd.err = err
				rd.mu.Unlock()
				return
			}
			rd.recs = append(rd.recs, b.Records...)
			rd.mu.Unlock()
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return rd
}

func (rd *reader) count() int {
	rd.mu.Lock()
	defer rd.mu.Unlock()
	return len(rd.recs)
}

// TestTroubles takes one broker through what brokers go through, with pulls
// held and messages on their way.
func TestTroubles(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	r := brokers.StartRocketMQ(t, brokers.RocketMQOptions{})
	makeTopic(t, r, "t", 4, 4, permRead|permWrite)
	src := openSource(t, SourceConfig{Config: config(r), Topic: "t"})
	assignAll(t, src)
	rd := read(t, src)
	s := openSink(t, SinkConfig{Config: config(r), Topic: "t"})
	sent := 0
	one := func() {
		sendAll(t, s, values(0, fmt.Sprint(sent))...)
		sent++
	}
	flows := func(when string) {
		t.Helper()
		began := time.Now()
		one()
		until(t, "a message arrives "+when, func() bool { return rd.count() == sent })
		if d := time.Since(began); d > promised {
			t.Errorf("the first message %s took %s, want %s", when, d, promised)
		} else {
			t.Logf("the first message %s took %s", when, d.Round(time.Millisecond))
		}
	}
	noticed := func(what string) {
		t.Helper()
		began := time.Now()
		until(t, what+" is noticed", func() bool { return src.Problem() != "" })
		if d := time.Since(began); d > promised {
			t.Errorf("%s was noticed after %s, want %s", what, d, promised)
		} else {
			t.Logf("%s was noticed after %s: %s", what, d.Round(time.Millisecond), src.Problem())
		}
	}
	flows("at first")
	until(t, "all is well", func() bool { return src.Problem() == "" })

	r.Kill("broker")
	noticed("a killed broker")
	r.Start("broker")
	flows("after a broker was killed and came back")

	r.Pause("broker")
	noticed("a broker that is held")
	r.Continue("broker")
	flows("after a broker was held")

	// With records on their way all the time.
	const lanes, each = 4, 400
	var wg sync.WaitGroup
	for lane := range int32(lanes) {
		wg.Go(func() {
			for i := range each {
				var left sync.WaitGroup
				left.Add(1)
				s.Deliver(context.Background(), values(lane, fmt.Sprintf("%d %d", lane, i)), func(_ int, err error) {
					if err != nil {
						t.Errorf("lane %d, record %d: %v", lane, i, err)
					}
					left.Done()
				})
				left.Wait()
			}
		})
	}
	until(t, "a third has arrived", func() bool { return rd.count() > sent+lanes*each/3 })
	r.Kill("broker")
	r.Start("broker")
	wg.Wait()
	until(t, "all have arrived", func() bool { return rd.count() >= sent+lanes*each })
	check(t, rd, sent, lanes, each)

	sent = rd.count()
	r.Pause("ns")
	flows("while the name server is held")
	r.Continue("ns")
	r.Kill("ns")
	flows("while the name server is gone")
	if err := src.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	r.Kill("broker")
	r.Kill("ns")
	goleak.VerifyNone(t, leaks, goleak.IgnoreAnyFunction("github.com/millrace-io/millrace/runtime/connector/rocketmq.read.func1"))
}

// check finds that each lane's records came first in order, and that none is
// missing.
func check(t *testing.T, rd *reader, skip, lanes, each int) {
	t.Helper()
	rd.mu.Lock()
	defer rd.mu.Unlock()
	next := make([]int, lanes)
	again := 0
	for _, rec := range rd.recs[skip:] {
		var lane, i int
		if _, err := fmt.Sscanf(string(rec.Value), "%d %d", &lane, &i); err != nil {
			t.Fatalf("record %q: %v", rec.Value, err)
		}
		switch {
		case i == next[lane]:
			next[lane]++
		case i < next[lane]:
			again++
		default:
			t.Fatalf("lane %d: %d came where %d was to come", lane, i, next[lane])
		}
	}
	for lane, n := range next {
		if n != each {
			t.Errorf("lane %d: %d records, want %d", lane, n, each)
		}
	}
	t.Logf("%d records came twice", again)
}

// forward is a way to a server that can be cut.
type forward struct {
	ln net.Listener
	wg sync.WaitGroup
	mu sync.Mutex
	cs []net.Conn // guarded by mu
}

// proxy forwards to addr; an empty one accepts and never answers.
func proxy(t *testing.T, addr string) *forward {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &forward{ln: ln}
	f.wg.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			f.keep(in)
			if addr == "" {
				continue
			}
			out, err := net.Dial("tcp", addr)
			if err != nil {
				_ = in.Close()
				continue
			}
			f.keep(out)
			f.wg.Go(func() { _, _ = io.Copy(out, in); _ = out.Close() })
			f.wg.Go(func() { _, _ = io.Copy(in, out); _ = in.Close() })
		}
	})
	t.Cleanup(f.cut)
	return f
}

func (f *forward) keep(c net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cs = append(f.cs, c)
}

func (f *forward) addr() string { return f.ln.Addr().String() }

func (f *forward) cut() {
	_ = f.ln.Close()
	f.mu.Lock()
	for _, c := range f.cs {
		_ = c.Close()
	}
	f.mu.Unlock()
	f.wg.Wait()
}

func TestNameServersFailOver(t *testing.T) {
	r := brokers.SharedRocketMQ(t)
	topic := newTopic(t, r, 1)
	first, second, mute := proxy(t, r.NameServer()), proxy(t, r.NameServer()), proxy(t, "")
	cfg := Config{NameServers: []string{"127.0.0.1:1", first.addr(), mute.addr(), second.addr()}}
	src := openSource(t, SourceConfig{Config: cfg, Topic: topic})
	look := func(limit time.Duration) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		found, err := src.Partitions(ctx)
		if err != nil || len(found) != 1 {
			t.Fatalf("%v, %v (%s)", found, err, src.Problem())
		}
	}
	look(time.Second)
	first.cut()
	look(askTimeout + 2*time.Second) // the mute one is waited for
	look(time.Second)                // the good one is asked first
	second.cut()
	if _, err := src.Partitions(t.Context()); record.AsError(err).Class != record.Retryable || src.Problem() == "" {
		t.Errorf("without a name server: %v, problem %q", err, src.Problem())
	}
}

func TestACL(t *testing.T) {
	r := brokers.StartRocketMQ(t, brokers.RocketMQOptions{ACL: true})
	var secret atomic.Value
	secret.Store("rocketmq-secret")
	cfg := config(r)
	cfg.AccessKey, cfg.SecretKey = "rocketmq", func() (string, error) { return secret.Load().(string), nil }
	cl := newClient(cfg.defaults())
	t.Cleanup(cl.close)
	if err := Check(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	s := openSink(t, SinkConfig{Config: cfg, Topic: "t"})
	sendAll(t, s, values(0, "a")...)
	src := openSource(t, SourceConfig{Config: cfg, Topic: "t"})
	until(t, "the topic is there", func() bool {
		found, err := src.Partitions(t.Context())
		return err == nil && len(found) > 0
	})
	p := record.Partition{Topic: "t", Broker: brokerName}
	src.Assign(p, 0)
	if got := take(t, src, 1); string(got[0].Value) != "a" {
		t.Errorf("got %q", got[0].Value)
	}

	secret.Store("wrong")
	for what, err := range map[string]error{"check": Check(t.Context(), cfg), "send": send(t, s, values(0, "b")...)[0]} {
		if err == nil || !strings.Contains(err.Error(), "access") && !strings.Contains(err.Error(), "access_key") {
			t.Errorf("%s with a wrong secret: %v", what, err)
		}
	}
	if e := record.AsError(send(t, s, values(0, "b")...)[0]); e.Class != record.Config {
		t.Errorf("class %s, want config", e.Class)
	}
	none := openSource(t, SourceConfig{Config: config(r), Topic: "t"})
	none.Assign(p, 0)
	if pe := failure(t, none); pe.Err.Class != record.Config || !strings.Contains(pe.Err.Error(), "access key") {
		t.Errorf("without a key: %v", pe)
	}
	secret.Store("rocketmq-secret")
	sendAll(t, s, values(0, "c")...)
}

func TestCheck(t *testing.T) {
	r := brokers.SharedRocketMQ(t)
	if err := Check(t.Context(), config(r)); err != nil {
		t.Error(err)
	}
	ln := proxy(t, "")
	for _, c := range []struct {
		name, addr, want string
	}{
		{"nobody there", "127.0.0.1:1", "start the name server"},
		{"nobody answers", ln.addr(), "no answer for 3s"},
		{"a broker, not a name server", r.Broker(), "rocketmq at"},
	} {
		err := Check(t.Context(), Config{NameServers: []string{c.addr}})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
