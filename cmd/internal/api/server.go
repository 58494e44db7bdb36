package api

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"
)

// ErrNotLoopback reports an address that would be reachable from other
// machines. There is neither TLS nor a token yet, so nothing would stand
// between them and the node.
var ErrNotLoopback = errors.New("not a loopback address, and the node has no TLS yet")

// ListenError reports that a node cannot serve at an address. Its text ends
// with the next step. errors.Is finds ErrNotLoopback, or the system's reason
// (syscall.EADDRINUSE).
type ListenError struct {
	Address string
	Err     error
	Next    string
}

func (e *ListenError) Error() string {
	return fmt.Sprintf("listen at %s: %v: %s", e.Address, e.Err, e.Next)
}
func (e *ListenError) Unwrap() error { return e.Err }

// CheckListen says whether Listen could accept the address: HOST:PORT, the
// host localhost or a loopback IP address. Errors are *ListenError.
func CheckListen(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return &ListenError{address, errors.New("not of the form HOST:PORT"), "write it like 127.0.0.1:7070"}
	}
	if _, err := net.LookupPort("tcp", port); err != nil || port == "" {
		return &ListenError{address, fmt.Errorf("%q is not a port", port), "a port is a number from 0 to 65535; 0 takes a free one"}
	}
	if host == "localhost" {
		return nil
	}
	if ip, err := netip.ParseAddr(host); err != nil || !ip.Unmap().IsLoopback() {
		return &ListenError{address, ErrNotLoopback, "listen at 127.0.0.1:" + port + " and reach it from elsewhere through a tunnel (ssh -L)"}
	}
	return nil
}

// Listen opens the address for a Server; port 0 takes a free one. Errors are
// *ListenError.
func Listen(address string) (net.Listener, error) {
	if err := CheckListen(address); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err
		}
		return nil, &ListenError{address, err, "stop what uses that port, or choose another with --listen"}
	}
	if tcp, ok := l.Addr().(*net.TCPAddr); !ok || !tcp.IP.IsLoopback() {
		err := &ListenError{address, fmt.Errorf("%s is %w", l.Addr(), ErrNotLoopback), "listen at 127.0.0.1"}
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Time limits of a server. A handler may be slower than readLimit: that ends
// with the request's body.
const (
	headerLimit = 5 * time.Second
	readLimit   = 30 * time.Second
	uploadLimit = 60 * time.Second
	writeLimit  = 10 * time.Minute
	idleLimit   = 2 * time.Minute
)

// Server is an HTTP server for a handler made by New, with limits that slow or
// endless clients run into. The caller serves a listener of Listen with it.
func Server(address string, handler http.Handler) *http.Server {
	return &http.Server{
		Addr:              address,
		Handler:           handler,
		ReadHeaderTimeout: headerLimit,
		ReadTimeout:       readLimit,
		WriteTimeout:      writeLimit,
		IdleTimeout:       idleLimit,
		MaxHeaderBytes:    64 << 10,
	}
}
