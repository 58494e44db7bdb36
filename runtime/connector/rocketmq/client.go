package rocketmq

import (
	"context"
	"crypto/hmac"
	"crypto/sha1" // the protocol's own; it authenticates, the sum need not resist collisions
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/record"
)

// askTimeout bounds a request that is answered at once.
const askTimeout = 3 * time.Second

// dialPause is how long nobody tries a broker again after an attempt failed.
const dialPause = 500 * time.Millisecond

// client speaks to the name servers and the brokers of one cluster. Safe for
// concurrent use.
type client struct {
	cfg    Config
	health *health

	mu      sync.Mutex
	good    int                // the name server that answered last; guarded by mu
	brokers map[string]*broker // by name; guarded by mu
	masters map[string]string  // the addresses that the name servers told last, by name; guarded by mu
	closed  bool               // guarded by mu
}

// broker is the way to one broker's master.
type broker struct {
	name string
	// turn is held by who connects: the others wait for what comes of it.
	turn chan struct{}

	mu     sync.Mutex
	conn   *conn     // nil or ended: there is none; guarded by mu
	err    error     // why the last attempt failed; guarded by mu
	failed time.Time // when it did; guarded by mu
}

func newClient(cfg Config) *client {
	return &client{cfg: cfg, health: newHealth(), brokers: map[string]*broker{}, masters: map[string]string{}}
}

func (cl *client) nameServers() string { return strings.Join(cl.cfg.NameServers, ", ") }

// sign adds what proves who asks: the access key, and a MAC over all fields in
// the order of their names and the body.
func (cl *client) sign(f *frame) error {
	if cl.cfg.AccessKey == "" {
		return nil
	}
	secret, err := cl.cfg.SecretKey()
	if err != nil {
		return record.Errorf(record.Config, "secret key of %s: %w", cl.cfg.AccessKey, err)
	}
	if f.Fields == nil {
		f.Fields = map[string]string{}
	}
	f.Fields["AccessKey"] = cl.cfg.AccessKey
	delete(f.Fields, "Signature")
	mac := hmac.New(sha1.New, []byte(secret))
	for _, k := range slices.Sorted(maps.Keys(f.Fields)) {
		mac.Write([]byte(f.Fields[k]))
	}
	mac.Write(f.body)
	f.Fields["Signature"] = base64.StdEncoding.EncodeToString(mac.Sum(nil))
	return nil
}

// askNameServer sends a request to the name server that answered last, then to
// the others, each on a connection of its own.
func (cl *client) askNameServer(ctx context.Context, req frame) (*frame, error) {
	cl.mu.Lock()
	first := cl.good
	cl.mu.Unlock()
	var errs []error
	for i := range cl.cfg.NameServers {
		at := (first + i) % len(cl.cfg.NameServers)
		addr := cl.cfg.NameServers[at]
		f, err := cl.askOnce(ctx, addr, req)
		if err == nil {
			cl.mu.Lock()
			cl.good = at
			cl.mu.Unlock()
			cl.health.well("name servers")
			return f, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		errs = append(errs, fmt.Errorf("name server %s: %w", addr, err))
	}
	err := oneLine(errs)
	cl.health.fail("name servers", err)
	return nil, err
}

func (cl *client) askOnce(ctx context.Context, addr string, req frame) (*frame, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, askTimeout, fmt.Errorf("%w for %s", errSilent, askTimeout))
	defer cancel()
	c, err := dial(ctx, addr, cl.sign, nil)
	if err != nil {
		return nil, err
	}
	defer c.close()
	req.Fields = maps.Clone(req.Fields)
	f, err := c.call(ctx, req)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return f, err
}

// ask sends a request to a broker's master and waits for the answer. topic is
// one that the broker has: the name servers tell addresses by topic.
func (cl *client) ask(ctx context.Context, topic, name string, req frame) (*frame, error) {
	c, err := cl.connect(ctx, topic, name)
	if err != nil {
		return nil, err
	}
	f, err := c.call(ctx, req)
	switch {
	case err == nil:
		cl.health.well(name)
	case ctx.Err() == nil && !c.alive():
		err = fmt.Errorf("broker %s at %w", name, err)
		cl.health.fail(name, err)
	}
	return f, err
}

// connect returns the connection to a broker, and makes one where there is
// none. It waits for an attempt under way.
func (cl *client) connect(ctx context.Context, topic, name string) (*conn, error) {
	cl.mu.Lock()
	if cl.closed {
		cl.mu.Unlock()
		return nil, connector.ErrClosed
	}
	b := cl.brokers[name]
	if b == nil {
		b = &broker{name: name, turn: make(chan struct{}, 1)}
		cl.brokers[name] = b
	}
	cl.mu.Unlock()

	if c, err := b.state(); c != nil || err != nil {
		return c, err
	}
	select {
	case b.turn <- struct{}{}:
		defer func() { <-b.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if c, err := b.state(); c != nil || err != nil {
		return c, err
	}
	c, err := cl.dialBroker(ctx, topic, b)
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err() // it says nothing about the broker
	}
	cl.mu.Lock()
	closed := cl.closed
	b.mu.Lock()
	b.conn, b.err, b.failed = c, err, time.Now()
	b.mu.Unlock()
	cl.mu.Unlock()
	switch {
	case err != nil:
		cl.health.fail(name, err)
		return nil, err
	case closed:
		c.close()
		return nil, connector.ErrClosed
	}
	cl.cfg.Logger.Debug("connected to a broker", "broker", name, "address", c.addr)
	return c, nil
}

// state is the connection, or why there is none just now, or neither.
func (b *broker) state() (*conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn != nil && b.conn.alive() {
		return b.conn, nil
	}
	if b.err != nil && time.Since(b.failed) < dialPause {
		return nil, b.err
	}
	return nil, nil
}

// dialBroker asks where the broker is and connects. A broker that the name
// servers do not tell of now is looked for where it was. The caller holds turn.
func (cl *client) dialBroker(ctx context.Context, topic string, b *broker) (*conn, error) {
	_, err := cl.route(ctx, topic)
	cl.mu.Lock()
	addr := cl.masters[b.name]
	cl.mu.Unlock()
	switch {
	case addr != "":
	case hasCode(err, respNoTopic): // brokers may be yet to tell of it
		return nil, fmt.Errorf("broker %s: the name servers do not know topic %q at the moment", b.name, topic)
	case err != nil:
		return nil, err
	default:
		return nil, fmt.Errorf("broker %s: the name servers know no master of it", b.name)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := dial(ctx, addr, cl.sign, heartbeat)
	if err != nil {
		return nil, fmt.Errorf("broker %s: %w", b.name, err)
	}
	return c, nil
}

// heartbeat registers nobody: it is asked for the answer's sake.
var heartbeat = &frame{Code: reqHeartbeat, body: []byte(`{"clientID":"millrace","consumerDataSet":[],"producerDataSet":[]}`)}

// close ends all connections and waits for their goroutines.
func (cl *client) close() {
	cl.mu.Lock()
	cl.closed = true
	var conns []*conn
	for _, b := range cl.brokers {
		b.mu.Lock()
		if b.conn != nil {
			conns = append(conns, b.conn)
		}
		b.mu.Unlock()
	}
	cl.mu.Unlock()
	for _, c := range conns {
		c.close()
	}
}
