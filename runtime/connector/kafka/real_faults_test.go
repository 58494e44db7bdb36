package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/connector/connectortest/brokers"
	"github.com/millrace-io/millrace/runtime/record"
)

// proxy stands before a broker and cuts connections.
type proxy struct {
	ln    net.Listener
	to    atomic.Pointer[string]
	after atomic.Int64 // a connection that is made is cut after so many bytes of answers; 0: never
	ended atomic.Int64 // connections that were cut so
	wg    sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool // guarded by mu
}

func newProxy(t *testing.T) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{ln: ln, conns: map[net.Conn]bool{}}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		ln.Close()
		p.cut()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) accept() {
	for {
		in, err := p.ln.Accept()
		if err != nil {
			return
		}
		to := p.to.Load()
		if to == nil {
			in.Close()
			continue
		}
		out, err := net.Dial("tcp", *to)
		if err != nil {
			in.Close()
			continue
		}
		p.mu.Lock()
		p.conns[in], p.conns[out] = true, true
		p.mu.Unlock()
		end := func() {
			in.Close()
			out.Close()
			p.mu.Lock()
			delete(p.conns, in)
			delete(p.conns, out)
			p.mu.Unlock()
		}
		limit := p.after.Load()
		p.wg.Go(func() {
			defer end()
			_, _ = io.Copy(out, in)
		})
		p.wg.Go(func() {
			defer end()
			if limit > 0 {
				if n, _ := io.CopyN(in, out, limit); n == limit {
					p.ended.Add(1)
				}
				return
			}
			_, _ = io.Copy(in, out)
		})
	}
}

// cut ends all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

// One source lives through everything that a broker does on a bad day. It
// delivers every record once and in order, asks for its partitions meanwhile
// without a word of deleted topics, says what ails it, and leaves nothing behind.
func TestRealFaults(t *testing.T) {
	front := newProxy(t)
	k := brokers.StartKafka(t, brokers.KafkaOptions{Advertise: front.ln.Addr().String()})
	behind := k.ProxiedAddr()
	front.to.Store(&behind)
	r := on(t, k.Addr())
	topic := r.topic("in", 2)
	leaks := goleak.IgnoreCurrent()

	cfg := SourceConfig{Config: Config{Brokers: []string{front.ln.Addr().String()}}, Topics: []string{topic}, FetchMaxPartitionBytes: 64 << 10}
	s, err := NewSource(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	assign(t, s)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var beside sync.WaitGroup
	var written [2]atomic.Int64 // acknowledged
	beside.Go(func() { write(ctx, t, k.Addr(), topic, &written) })
	var next [2]atomic.Int64
	beside.Go(func() { read(ctx, t, s, &next) })
	beside.Go(func() { ask(ctx, t, s, 2) })
	progress := func(what string) {
		t.Helper()
		var from [2]int64
		for i := range from {
			from[i] = written[i].Load()
		}
		began := time.Now()
		eventually(t, "records after "+what, func() bool {
			return next[0].Load() > from[0]+100 && next[1].Load() > from[1]+100
		})
		t.Logf("%s: going on after %s", what, time.Since(began).Round(10*time.Millisecond))
	}

	progress("the start")
	for _, n := range []int64{1, 700, 20_000} {
		front.after.Store(n)
		front.cut()
		before := front.ended.Load()
		eventually(t, "connections to be cut in the middle of answers", func() bool { return front.ended.Load() > before+2 })
		front.after.Store(0)
		front.cut()
		progress(fmt.Sprintf("answers that are cut after %d bytes", n))
	}
	k.Pause()
	paused := next[0].Load()
	<-time.After(time.Second) // the fault itself
	k.Continue()
	progress("a stall of 1 s")
	if next[0].Load() == paused {
		t.Errorf("nothing came during and after the stall")
	}
	k.Kill()
	eventually(t, "the problem to show", func() bool { return s.Problem() != "" })
	k.Start()
	progress("SIGKILL and a new start")
	eventually(t, "the problem to go", func() bool { return s.Problem() == "" })
	stop()
	beside.Wait()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	front.cut()
	goleak.VerifyNone(t, leaks, goleak.IgnoreAnyFunction("github.com/millrace-io/millrace/runtime/connector/connectortest/brokers.(*Process).Start.func1"))
}

// write writes numbers to both partitions until ctx ends.
func write(ctx context.Context, t *testing.T, addr, topic string, written *[2]atomic.Int64) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic(topic),
		kgo.MetadataMinAge(50*time.Millisecond), kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }))
	if err != nil {
		t.Error(err)
		return
	}
	defer cl.Close()
	every := time.NewTicker(2 * time.Millisecond)
	defer every.Stop()
	for i := 0; ctx.Err() == nil; i++ {
		<-every.C
		var recs []*kgo.Record
		for p := range int32(2) {
			for j := range 20 {
				recs = append(recs, &kgo.Record{Partition: p, Value: fmt.Append(nil, 20*i+j, " some more bytes, so that fetches have a size")})
			}
		}
		if err := cl.ProduceSync(ctx, recs...).FirstErr(); err != nil {
			if ctx.Err() == nil {
				t.Errorf("write: %v", err)
			}
			return
		}
		for p := range written {
			written[p].Add(20)
		}
	}
}

// read takes what the source delivers and compares.
func read(ctx context.Context, t *testing.T, s *Source, next *[2]atomic.Int64) {
	for {
		b, err := s.Poll(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			t.Errorf("poll: %v", err)
			return
		}
		for i := range b.Records {
			rec := &b.Records[i]
			want := next[b.Partition.Num].Add(1) - 1
			var got int64
			if _, err := fmt.Sscan(string(rec.Value), &got); err != nil || got != want || rec.Offset != want {
				t.Errorf("record %s is %d, want %d: lost, repeated or out of order", rec.ID(), got, want)
				return
			}
		}
	}
}

// ask asks for the partitions all the time, as a node does.
func ask(ctx context.Context, t *testing.T, s *Source, n int) {
	every := time.NewTicker(100 * time.Millisecond)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		asking, cancel := context.WithTimeout(ctx, 5*time.Second)
		fs, err := s.Partitions(asking)
		cancel()
		switch {
		case err == nil && len(fs) != n:
			t.Errorf("found %v, want %d partitions", fs, n)
		case err != nil && !errors.Is(err, context.Canceled) && !record.AsError(err).Class.Transient():
			t.Errorf("partitions: %v", err)
		case errors.Is(err, connector.ErrNoTopic):
			t.Errorf("partitions: %v", err)
		}
	}
}
