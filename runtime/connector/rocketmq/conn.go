package rocketmq

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Times of a connection. A peer that is gone without a word is noticed within
// quietFor + deadAfter + two ticks: four seconds.
const (
	dialTimeout = 2 * time.Second
	watchTick   = 250 * time.Millisecond
	quietFor    = time.Second             // without a byte, while an answer is owed, before it is asked for a sign of life
	deadAfter   = 2500 * time.Millisecond // without a byte after that
	// keepAlive is how often a connection with nothing to do says that it is
	// there: brokers drop those that are silent for two minutes.
	keepAlive = 30 * time.Second
	// writeChunk is what must go out within deadAfter.
	writeChunk = 64 << 10
)

// conn is one connection to a broker or a name server. Requests of any number
// of goroutines are under way on it at once.
type conn struct {
	addr string
	nc   net.Conn
	sign func(*frame) error // signs a request, or nil
	ping *frame             // what is sent to see whether the peer lives; nil: nothing

	wmu sync.Mutex // one writer at a time

	mu      sync.Mutex
	waiting map[int32]chan *frame // guarded by mu
	opaque  int32                 // guarded by mu
	heard   time.Time             // of the last byte; guarded by mu
	pinged  time.Time             // since when the peer owes a sign of life, or zero; guarded by mu
	err     error                 // why it ended; guarded by mu

	ended chan struct{} // closed with err set
	all   sync.WaitGroup
}

// dial connects. ctx and dialTimeout bound the attempt only.
func dial(ctx context.Context, addr string, sign func(*frame) error, ping *frame) (*conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &conn{addr: addr, nc: nc, sign: sign, ping: ping, waiting: map[int32]chan *frame{}, heard: time.Now(), ended: make(chan struct{})}
	c.all.Go(c.read)
	c.all.Go(c.watch)
	return c, nil
}

// call sends a request and waits for its answer, ctx's end or the
// connection's. An answer that comes later is dropped.
func (c *conn) call(ctx context.Context, req frame) (*frame, error) {
	answer := make(chan *frame, 1) // the reader never waits for us
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return nil, c.err
	}
	c.opaque++
	opaque := c.opaque
	c.waiting[opaque] = answer
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, opaque)
		c.mu.Unlock()
	}()
	if err := c.send(&req, opaque); err != nil {
		return nil, err
	}
	select {
	case f := <-answer:
		return f, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-c.ended:
		select { // it may have come just before the end
		case f := <-answer:
			return f, nil
		default:
			return nil, c.err
		}
	}
}

// send writes a request. A write that fails ends the connection.
func (c *conn) send(req *frame, opaque int32) error {
	req.Language, req.Version, req.Opaque = "GO", 317, opaque
	if c.sign != nil {
		if err := c.sign(req); err != nil {
			return err
		}
	}
	b, err := req.encode()
	if err != nil {
		return err
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	for len(b) > 0 {
		n := min(len(b), writeChunk)
		if err := c.nc.SetWriteDeadline(time.Now().Add(deadAfter)); err != nil {
			return c.end(err)
		}
		if _, err := c.nc.Write(b[:n]); err != nil {
			return c.end(err)
		}
		b = b[n:]
	}
	return nil
}

// end ends the connection and returns why it did, which is the first cause.
func (c *conn) end(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = fmt.Errorf("%s: %w", c.addr, err)
		close(c.ended)
		_ = c.nc.Close()
	}
	return c.err
}

// close ends the connection and waits for its goroutines.
func (c *conn) close() {
	_ = c.end(net.ErrClosed)
	c.all.Wait()
}

func (c *conn) alive() bool {
	select {
	case <-c.ended:
		return false
	default:
		return true
	}
}

// read hands answers to who waits for them. What a broker asks of its clients
// is not ours to answer: no client of ours is registered with it.
func (c *conn) read() {
	r := bufio.NewReaderSize(heard{c}, 64<<10)
	for {
		f, err := readFrame(r)
		if err != nil {
			_ = c.end(fmt.Errorf("the connection was lost: %w", err))
			return
		}
		c.mu.Lock()
		if f.Flag&isAnswer != 0 {
			if answer := c.waiting[f.Opaque]; answer != nil {
				delete(c.waiting, f.Opaque)
				answer <- f
			}
		}
		c.mu.Unlock()
	}
}

// heard notes each sign of life.
type heard struct{ c *conn }

func (h heard) Read(b []byte) (int, error) {
	n, err := h.c.nc.Read(b)
	if n > 0 {
		h.c.mu.Lock()
		h.c.heard, h.c.pinged = time.Now(), time.Time{}
		h.c.mu.Unlock()
	}
	return n, err
}

var errSilent = errors.New("no answer")

// watch asks a silent peer for a sign of life, and ends the connection when
// none comes. A held pull would otherwise hide a broker that is gone.
func (c *conn) watch() {
	if c.ping == nil {
		return
	}
	t := time.NewTicker(watchTick)
	defer t.Stop()
	for {
		select {
		case <-c.ended:
			return
		case <-t.C:
		}
		ask, dead := c.due(time.Now())
		switch {
		case dead:
			_ = c.end(fmt.Errorf("%w for %s", errSilent, deadAfter))
			return
		case ask:
			req := *c.ping
			req.Fields = nil
			if err := c.send(&req, 0); err != nil {
				_ = c.end(err)
				return
			}
		}
	}
}

// due says whether to ask for a sign of life, and whether one that is owed has
// not come in time.
func (c *conn) due(now time.Time) (ask, dead bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch quiet := now.Sub(c.heard); {
	case !c.pinged.IsZero():
		return false, now.Sub(c.pinged) >= deadAfter
	case quiet >= keepAlive, quiet >= quietFor && len(c.waiting) > 0:
		c.pinged = now
		return true, false
	}
	return false, false
}
