//go:build linux

package faulttest

import (
	"io"
	"net"
	"sync"
	"testing"
)

// proxy stands between the node and a broker, and cuts connections in
// the middle of what goes through them.
type proxy struct {
	l  net.Listener
	to string // HOST:PORT of the broker

	mu    sync.Mutex
	conns map[net.Conn]bool // guarded by mu; both sides of each
	cut   [2]int64          // guarded by mu; bytes of each direction until the cut; 0: none
}

// Directions of what goes through a proxy.
const (
	toBroker = iota
	fromBroker
)

// newProxy listens; serve begins once the broker's address is known.
func newProxy(t *testing.T) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", freeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{l: l, conns: map[net.Conn]bool{}}
	t.Cleanup(func() { _ = l.Close(); p.cutAll() })
	return p
}

func (p *proxy) addr() string { return p.l.Addr().String() }

func (p *proxy) serve(broker string) {
	p.to = broker
	go func() {
		for {
			client, err := p.l.Accept()
			if err != nil {
				return
			}
			go p.connect(client)
		}
	}()
}

func (p *proxy) connect(client net.Conn) {
	server, err := net.Dial("tcp", p.to)
	if err != nil {
		_ = client.Close()
		return
	}
	p.mu.Lock()
	p.conns[client], p.conns[server] = true, true
	p.mu.Unlock()
	go p.pass(server, client, toBroker)
	p.pass(client, server, fromBroker)
}

// pass copies until a side is gone or it is cut.
func (p *proxy) pass(to, from net.Conn, direction int) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		allowed, cut := p.take(direction, n)
		if _, werr := to.Write(buf[:allowed]); werr != nil && err == nil {
			err = werr
		}
		if cut {
			p.cutAll()
			return
		}
		if err != nil {
			p.close(to, from)
			return
		}
	}
}

// take counts n bytes of a direction, and says how many of them go through
// and whether the cut comes then.
func (p *proxy) take(direction, n int) (allowed int, cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	left := p.cut[direction]
	switch {
	case left == 0:
		return n, false
	case int64(n) < left:
		p.cut[direction] -= int64(n)
		return n, false
	}
	p.cut[direction] = 0
	return int(left), true
}

// cutAfter cuts all connections once as many bytes have gone in a direction.
func (p *proxy) cutAfter(direction int, bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut[direction] = bytes
}

// done says whether the cut has come.
func (p *proxy) done() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cut == [2]int64{}
}

// cutAll ends every connection without a word.
func (p *proxy) cutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = c.Close()
	}
	clear(p.conns)
}

func (p *proxy) close(a, b io.Closer) {
	_, _ = a.Close(), b.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range []io.Closer{a, b} {
		if conn, ok := c.(net.Conn); ok {
			delete(p.conns, conn)
		}
	}
}
