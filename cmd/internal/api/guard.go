package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// Limits of request bodies in bytes. MaxPlugin bounds an upload.
const (
	MaxPlugin = 64 << 20
	maxBody   = 8 << 20
)

// guard stands before every path: it refuses foreign hosts and origins, bounds
// bodies in size and time, and answers for a handler that panics.
type guard struct {
	next   http.Handler
	hosts  []string // beside loopback ones, HOST:PORT in lower case
	logger *slog.Logger
}

type requestKey struct{}

// requestOf is the request that ctx belongs to.
func requestOf(ctx context.Context) *http.Request {
	return ctx.Value(requestKey{}).(*http.Request)
}

func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	answer := &response{ResponseWriter: w}
	defer func() {
		cause := recover()
		if cause == nil {
			return
		}
		if cause == http.ErrAbortHandler || answer.started {
			g.logger.Error("request ended by a panic", "method", r.Method, "path", r.URL.Path, "err", cause, "stack", string(debug.Stack()))
			panic(http.ErrAbortHandler)
		}
		g.logger.Error("request ended by a panic", "method", r.Method, "path", r.URL.Path, "err", cause, "stack", string(debug.Stack()))
		writeError(w, &Error{Code: CodeInternal, Detail: fmt.Sprintf("%s %s: a fault in the node", r.Method, r.URL.Path), Next: "report it with what the node's log says"})
	}()
	if err := g.admit(r); err != nil {
		g.logger.Warn("request refused", "host", r.Host, "origin", r.Header.Get("Origin"), "remote", r.RemoteAddr, "path", r.URL.Path)
		header.Set("Connection", "close")
		writeError(w, err)
		return
	}
	limit, wait := int64(maxBody), readLimit
	if r.Method == http.MethodPost && r.URL.Path == pluginsPath {
		limit, wait = MaxPlugin, uploadLimit
	}
	if r.ContentLength > limit {
		header.Set("Connection", "close")
		writeError(w, &http.MaxBytesError{Limit: limit})
		return
	}
	r.Body = bound(w, r.Body, limit, wait)
	g.next.ServeHTTP(answer, r.WithContext(context.WithValue(r.Context(), requestKey{}, r)))
}

// admit refuses what a web page could send: a browser resolves a name of the
// attacker's to 127.0.0.1 (then Host is that name), or lets a page post to
// another origin without asking (then Origin is the page's).
func (g *guard) admit(r *http.Request) error {
	if !g.served(r.Host) {
		return &Error{Code: CodeForbidden, Detail: fmt.Sprintf("host %q is not this node's: without TLS only loopback hosts are served", r.Host),
			Next: "ask for 127.0.0.1, [::1] or localhost"}
	}
	if origins := r.Header.Values("Origin"); len(origins) > 0 {
		if u, err := url.Parse(origins[0]); len(origins) > 1 || err != nil || u.Scheme != "http" || !strings.EqualFold(u.Host, r.Host) {
			return &Error{Code: CodeForbidden, Detail: fmt.Sprintf("a page of origin %q may not use this node", strings.Join(origins, ", ")),
				Next: "use flowctl, or a client that sends no Origin"}
		}
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" && r.Method != http.MethodGet && r.Method != http.MethodHead {
		return &Error{Code: CodeForbidden, Detail: "a page of another site may not use this node", Next: "use flowctl"}
	}
	return nil
}

func (g *guard) served(host string) bool {
	if slices.Contains(g.hosts, strings.ToLower(host)) {
		return true
	}
	name := host
	if h, port, err := net.SplitHostPort(host); err == nil {
		if port == "" || strings.Trim(port, "0123456789") != "" {
			return false
		}
		name = h
	} else if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		name = host[1 : len(host)-1]
	}
	if strings.EqualFold(name, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(name)
	return err == nil && (ip == netip.AddrFrom4([4]byte{127, 0, 0, 1}) || ip == netip.IPv6Loopback())
}

// response remembers whether an answer was begun.
type response struct {
	http.ResponseWriter
	started bool
}

func (w *response) WriteHeader(status int) {
	w.started = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(b []byte) (int, error) {
	w.started = true
	return w.ResponseWriter.Write(b)
}

func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// bodyReader is a request's body within its limits. It remembers why it ended.
type bodyReader struct {
	io.ReadCloser
	control *http.ResponseController
	err     error // of the last Read; io.EOF at the end
}

// bound limits a body. The time limit ends with the body: net/http goes on
// reading to learn that the client left, and would take the limit's end for
// that while the handler still works.
func bound(w http.ResponseWriter, body io.ReadCloser, limit int64, wait time.Duration) *bodyReader {
	b := &bodyReader{ReadCloser: http.MaxBytesReader(w, body, limit), control: http.NewResponseController(w)}
	if body == http.NoBody {
		_ = b.control.SetReadDeadline(time.Time{})
	} else {
		_ = b.control.SetReadDeadline(time.Now().Add(wait))
	}
	return b
}

func (b *bodyReader) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.err = err
		if err == io.EOF {
			_ = b.control.SetReadDeadline(time.Time{})
		}
	}
	return n, err
}

// failure is why the body could not be read to its end, nil if it was or if
// nobody has come that far.
func (b *bodyReader) failure() error {
	if b.err == nil || b.err == io.EOF {
		return nil
	}
	var timeout net.Error
	if errors.As(b.err, &timeout) && timeout.Timeout() {
		return &Error{Code: CodeTimeout, Detail: "the request's body did not come in time"}
	}
	if errors.Is(b.err, io.ErrUnexpectedEOF) {
		return &Error{Code: CodeUsage, Detail: "the request's body ended early"}
	}
	return b.err
}

// writeError answers with an error outside of huma.
func writeError(w http.ResponseWriter, err error) {
	e := asError(err)
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(e)
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(e.Status)
	_, _ = w.Write(body.Bytes())
}
