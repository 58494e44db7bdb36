package kafka

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestHealth(t *testing.T) {
	seed, one, two := kgo.BrokerMetadata{NodeID: -5, Host: "a", Port: 1}, kgo.BrokerMetadata{NodeID: 1, Host: "b", Port: 2}, kgo.BrokerMetadata{NodeID: 2, Host: "c", Port: 3}
	const refused = "nothing listens there"
	ok := kgo.BrokerE2E{}
	eof := kgo.BrokerE2E{ReadErr: io.EOF}
	for _, tc := range []struct {
		name string
		cfg  Config
		do   func(h *health)
		want string // in the problem; "": there is none
	}{
		{"nothing", Config{}, func(h *health) {}, ""},
		{"a seed is away", Config{}, func(h *health) { h.OnBrokerConnect(seed, 0, nil, syscall.ECONNREFUSED) }, "kafka at a:1: " + refused},
		{"a seed is away and a member answers", Config{}, func(h *health) {
			h.OnBrokerConnect(seed, 0, nil, syscall.ECONNREFUSED)
			h.OnBrokerE2E(one, kmsg.Metadata.Int16(), ok)
		}, ""},
		{"a member is away and another answers", Config{}, func(h *health) {
			h.OnBrokerConnect(one, 0, nil, syscall.ECONNREFUSED)
			h.OnBrokerE2E(two, kmsg.Metadata.Int16(), ok)
		}, "kafka: broker 1 at b:2, the address that"},
		{"the first words of a connection do not make it a good one", Config{SASL: user(Plain, "alice", "x")}, func(h *health) {
			h.OnBrokerConnect(seed, 0, nil, &waitError{&refusal{code: kerr.SaslAuthenticationFailed}})
			h.OnBrokerE2E(seed, kmsg.ApiVersions.Int16(), ok)
			h.OnBrokerE2E(seed, kmsg.SASLHandshake.Int16(), ok)
		}, `refuses the user "alice"`},
		{"a new connection alone does not", Config{}, func(h *health) {
			h.OnBrokerConnect(seed, 0, nil, syscall.ECONNREFUSED)
			h.OnBrokerConnect(seed, 0, nil, nil)
		}, refused},
		{"cut at the first request", Config{}, func(h *health) {
			h.OnBrokerConnect(one, 0, nil, nil)
			h.OnBrokerE2E(one, kmsg.Metadata.Int16(), eof)
		}, "may demand SASL"},
		{"cut at the first request, with a login", Config{SASL: user(Plain, "alice", "x")}, func(h *health) {
			h.OnBrokerConnect(one, 0, nil, nil)
			h.OnBrokerE2E(one, kmsg.Metadata.Int16(), eof)
		}, "look into the broker's log"},
		{"cut later", Config{}, func(h *health) {
			h.OnBrokerConnect(one, 0, nil, nil)
			h.OnBrokerE2E(one, kmsg.Metadata.Int16(), ok)
			h.OnBrokerE2E(one, kmsg.Fetch.Int16(), eof)
		}, ""},
		{"a dial that took too long", Config{}, func(h *health) { h.OnBrokerConnect(seed, 0, nil, &waitError{errLate}) }, "no answer in time"},
		{"our own end", Config{}, func(h *health) {
			h.OnBrokerConnect(one, 0, nil, context.Canceled)
			h.OnBrokerConnect(two, 0, nil, kgo.ErrClientClosed)
			h.OnBrokerConnect(seed, 0, nil, context.DeadlineExceeded)
		}, ""},
	} {
		h := newHealth()
		h.cfg = tc.cfg
		h.cfg.Brokers = []string{"a:1"}
		tc.do(h)
		if got := h.problem(); !strings.Contains(got, tc.want) || (tc.want == "") != (got == "") {
			t.Errorf("%s: the problem is %q, want %q", tc.name, got, tc.want)
		}
	}
}

// cutting closes connections before a word, when it is told to.
type cutting struct {
	net.Listener
	left atomic.Int32 // how many are to be cut

	mu   sync.Mutex
	open []net.Conn // guarded by mu
}

// listen is kfake's.
func (c *cutting) listen(network, addr string) (_ net.Listener, err error) {
	c.Listener, err = net.Listen(network, addr)
	return c, err
}

func (c *cutting) Accept() (net.Conn, error) {
	for {
		conn, err := c.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c.left.Add(-1) >= 0 {
			_ = conn.Close()
			continue
		}
		c.mu.Lock()
		c.open = append(c.open, conn)
		c.mu.Unlock()
		return conn, nil
	}
}

// cut ends the connections that stand, and the next n.
func (c *cutting) cut(n int32) {
	c.left.Store(n)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.open {
		_ = conn.Close()
	}
	c.open = nil
}

// Brokers under load cut connections at their first byte. The client keeps its
// records then: what it gave up would have to be produced again, behind others.
func TestCutAtTheFirstByte(t *testing.T) {
	var ln cutting
	c := cluster(t, kfake.SeedTopics(1, "out"), kfake.ListenFn(ln.listen))
	var log bytes.Buffer
	cfg := config(c)
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	s, err := NewSink(SinkConfig{Config: cfg, Topic: "out"})
	if err != nil {
		t.Fatal(err)
	}
	noErrors(t, deliver(t, s, recs(0, 50)...))
	ln.cut(20)
	var all []*answers
	for i := 50; i < 500; i += 50 {
		all = append(all, begin(t.Context(), s, recs(i, i+50)...))
	}
	for _, a := range all {
		noErrors(t, a.wait(t))
	}
	order(t, c, 500)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if log.Len() > 0 {
		t.Errorf("the sink says %s", &log)
	}
	if ln.left.Load() > 0 {
		t.Errorf("%d connections were not cut", ln.left.Load())
	}
}
