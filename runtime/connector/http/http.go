// Package http sends requests to an HTTP endpoint and classifies the answers.
//
// It makes one attempt for a call. When to try again, what a body looks like
// and which answer counts as a success beyond the status is for its caller;
// it signs nothing and follows no redirect.
package http

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/record"
)

// MaxResponseBody is how much of an answer's body is read. What is beyond is
// cut off.
const MaxResponseBody = 64 << 10

// MaxRetryAfter bounds the wait that an answer may ask for.
const MaxRetryAfter = 10 * time.Minute

// Config configures a Sink.
type Config struct {
	// Base is the URL that requests' paths are put below, for example
	// https://partner.example/api. It may be empty when every request names
	// a whole URL.
	Base string
	// Timeout bounds a request from the first byte sent to the last byte
	// received, where the request itself says nothing. Default 30 s.
	Timeout time.Duration
	// Concurrent bounds the requests under way at once; further ones wait.
	// As many connections are kept open. Default 16.
	Concurrent int
	// Authorization, if not empty, is sent as the header of that name with
	// every request to the base's host. It never appears in an error.
	Authorization string
	// TLS, if not nil, replaces the default settings for https.
	TLS *tls.Config
}

// Request is one request.
type Request struct {
	// Method defaults to POST.
	Method string
	// URL is a path (and query) below the base; without a base it is a whole
	// URL.
	URL string
	// Header, in order; keys may repeat. A "Host" replaces the URL's.
	Header []record.Header
	Body   []byte
	// Timeout replaces the configuration's; 0 leaves it.
	Timeout time.Duration
}

// Response is an answer.
type Response struct {
	Status int
	// Header is sorted by key.
	Header []record.Header
	// Body holds the first MaxResponseBody bytes.
	Body []byte
}

// Sink sends requests. Safe for concurrent use.
type Sink struct {
	cfg    Config
	base   *url.URL // nil if there is none
	client *http.Client
	slots  chan struct{} // one token a request under way
	closed atomic.Bool
	last   atomic.Pointer[string] // what was wrong with the last request, nil if nothing
}

func (c Config) defaults() Config {
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second
	}
	if c.Concurrent == 0 {
		c.Concurrent = 16
	}
	return c
}

// Validate reports every fault of the configuration.
func (c Config) Validate() error {
	var errs []error
	if _, err := c.base(); err != nil {
		errs = append(errs, err)
	}
	if c.Timeout < 0 {
		errs = append(errs, fmt.Errorf("http: timeout %s is negative", c.Timeout))
	}
	if c.Concurrent < 0 {
		errs = append(errs, fmt.Errorf("http: %d requests at once", c.Concurrent))
	}
	if strings.ContainsAny(c.Authorization, "\r\n\x00") {
		errs = append(errs, errors.New("http: the authorization has a line end in it"))
	}
	return errors.Join(errs...)
}

// base parses Base; nil if it is empty.
func (c Config) base() (*url.URL, error) {
	if c.Base == "" {
		return nil, nil
	}
	u, err := parseURL(c.Base)
	if err != nil {
		return nil, fmt.Errorf("http: base: %w", err)
	}
	return u, nil
}

// parseURL parses a whole URL. Its errors do not repeat what may be a password
// in it.
func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err
		}
		return nil, fmt.Errorf("not a URL: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%q is not an http:// or https:// URL", u.Redacted())
	}
	if u.User != nil {
		return nil, fmt.Errorf("%q has a user in it: give it as the connection's auth", u.Redacted())
	}
	return u, nil
}

// NewSink makes a sink. It connects to nothing yet.
func NewSink(cfg Config) (*Sink, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.defaults()
	base, _ := cfg.base()
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:       cfg.TLS,
		TLSHandshakeTimeout:   10 * time.Second,
		MaxIdleConns:          cfg.Concurrent,
		MaxIdleConnsPerHost:   cfg.Concurrent,
		IdleConnTimeout:       90 * time.Second,
		ExpectContinueTimeout: time.Second,
		ForceAttemptHTTP2:     true,
	}
	return &Sink{
		cfg:  cfg,
		base: base,
		client: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		slots: make(chan struct{}, cfg.Concurrent),
	}, nil
}

// Send makes one attempt. It blocks until the answer is there, the timeout is
// over or ctx ends.
//
// The error is nil for a status of 200 to 299, else a *record.Error:
//
//	class      when
//	retryable  status 408, 429, 5xx; no connection, or it broke (RetryAfter is the answer's, at most MaxRetryAfter)
//	timeout    no answer within the timeout
//	config     status 401, 403; a certificate that is not to be trusted; an unusable method; without a base an unusable URL
//	schema     a path or a header's value that cannot be sent
//	rejected   any other status
//
// with the status, if there is one, as its Code. The response is returned
// whenever there is one, also beside an error. An error for which
// errors.Is(err, context.Canceled) holds says that ctx ended: the request may
// or may not have been carried out.
func (s *Sink) Send(ctx context.Context, req *Request) (*Response, error) {
	if s.closed.Load() {
		return nil, record.Errorf(record.Internal, "send: %w", connector.ErrClosed)
	}
	target, err := s.target(req.URL)
	if err != nil {
		class := record.Config
		if s.base != nil { // the path is made of a record
			class = record.Schema
		}
		return nil, s.remember(record.Errorf(class, "send: %w", err))
	}
	if err := checkHeader(req.Header); err != nil {
		return nil, s.remember(err)
	}
	what := req.Method
	if what == "" {
		what = http.MethodPost
	}
	what += " " + target.Redacted()

	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: %w", what, context.Canceled)
	}
	timeout := req.Timeout
	if timeout == 0 {
		timeout = s.cfg.Timeout
	}
	sending, cancel := context.WithTimeoutCause(ctx, timeout, errTimeout)
	defer cancel()
	hr, err := s.build(sending, req, target)
	if err != nil {
		return nil, s.remember(record.Errorf(record.Config, "%s: %w", what, err))
	}
	resp, err := s.do(hr)
	switch {
	case err == nil:
		return resp, s.remember(verdict(what, resp))
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%s: %w", what, context.Canceled)
	case errors.Is(context.Cause(sending), errTimeout):
		return nil, s.remember(record.Errorf(record.Timeout, "%s: no answer within %s", what, timeout))
	case isTrust(err):
		return nil, s.remember(record.Errorf(record.Config, "%s: %w: give the connection the right `tls` settings, or renew the server's certificate", what, err))
	}
	return nil, s.remember(record.Errorf(record.Retryable, "%s: %w", what, err))
}

// errTimeout is the cause of a request's own timeout.
var errTimeout = errors.New("timeout")

// remember keeps what Problem tells. It returns nil for nil.
func (s *Sink) remember(e *record.Error) error {
	if e == nil {
		s.last.Store(nil)
		return nil
	}
	if e.Class.Transient() || e.Class.PausesFlow() {
		s.last.Store(&e.Message)
	} else {
		s.last.Store(nil)
	}
	return e
}

// Problem says why the last request got no usable answer (class retryable,
// timeout or config), or is empty if it did.
func (s *Sink) Problem() string {
	if p := s.last.Load(); p != nil {
		return *p
	}
	return ""
}

// checkHeader finds values that would break the request apart. The value itself
// may be a secret and is not told.
func checkHeader(hs []record.Header) *record.Error {
	for _, h := range hs {
		for _, c := range h.Value {
			if c < ' ' && c != '\t' || c == 0x7f {
				return record.Errorf(record.Schema, "send: the value of header %s holds a line end or another control character", h.Key)
			}
		}
	}
	return nil
}

// target is the URL of a request.
func (s *Sink) target(ref string) (*url.URL, error) {
	if s.base == nil {
		if !strings.Contains(ref, "://") {
			return nil, fmt.Errorf("%q is a path, and the connection has no base URL to put it below", ref)
		}
		return parseURL(ref)
	}
	path, query, _ := strings.Cut(ref, "?")
	u := *s.base
	if path != "" {
		joined, err := url.Parse(strings.TrimSuffix(u.EscapedPath(), "/") + "/" + escape(strings.TrimPrefix(path, "/")))
		if err != nil {
			return nil, fmt.Errorf("path %q: not usable in a URL", path)
		}
		u.Path, u.RawPath = joined.Path, joined.RawPath
	}
	if query != "" {
		u.RawQuery = query
	}
	return &u, nil
}

// escape escapes what cannot stand in a URL's path and keeps the escapes that
// are there.
func escape(path string) string {
	var b strings.Builder
	for i := range len(path) {
		if c := path[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '#' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func (s *Sink) build(ctx context.Context, req *Request, target *url.URL) (*http.Request, error) {
	method := req.Method
	if method == "" {
		method = http.MethodPost
	}
	hr, err := http.NewRequestWithContext(ctx, method, target.String(), bytes.NewReader(req.Body))
	if err != nil {
		return nil, err
	}
	for _, h := range req.Header {
		if strings.EqualFold(h.Key, "Host") {
			hr.Host = string(h.Value)
			continue
		}
		hr.Header.Add(h.Key, string(h.Value))
	}
	if s.cfg.Authorization != "" && s.base != nil && hr.Header.Get("Authorization") == "" {
		hr.Header.Set("Authorization", s.cfg.Authorization)
	}
	if _, ok := hr.Header["User-Agent"]; !ok {
		hr.Header.Set("User-Agent", "millrace")
	}
	return hr, nil
}

func (s *Sink) do(hr *http.Request) (*Response, error) {
	hresp, err := s.client.Do(hr)
	if err != nil {
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err // the URL is in the message already
		}
		return nil, err
	}
	defer func() { _ = hresp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(hresp.Body, MaxResponseBody))
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	// A short rest is read so that the connection can be used again.
	_, _ = io.CopyN(io.Discard, hresp.Body, MaxResponseBody)
	resp := &Response{Status: hresp.StatusCode, Body: body}
	for key, values := range hresp.Header {
		for _, v := range values {
			resp.Header = append(resp.Header, record.Header{Key: key, Value: []byte(v)})
		}
	}
	slices.SortStableFunc(resp.Header, func(a, b record.Header) int { return strings.Compare(a.Key, b.Key) })
	return resp, nil
}

// Close ends idle connections. Requests under way end as they will. It may be
// called twice.
func (s *Sink) Close() error {
	s.closed.Store(true)
	s.client.CloseIdleConnections()
	return nil
}
