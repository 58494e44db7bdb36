// Package http sends requests over HTTP and hands back the answers.
//
// It makes one attempt for a call and judges nothing: when to try again and
// what an answer means is for its caller. It shapes and signs nothing, follows
// no redirect, and never repeats a request by itself.
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
const MaxResponseBody = 1 << 20

// MaxResponseHeader is how long an answer's headers may be in all. An answer
// with more is none.
const MaxResponseHeader = 64 << 10

// Config configures a Client. The zero value works.
type Config struct {
	// Base is where the Authorization may go: an http:// or https:// URL.
	Base string
	// Timeout bounds a request from the first byte sent to the last byte
	// received, where Send is given none. Default 30 s.
	Timeout time.Duration
	// Concurrent is how many connections are kept open. Default 16. It limits
	// no requests: the caller does.
	Concurrent int
	// Authorization, if not empty, is sent as the header of that name with
	// every request to the base's scheme and host that has none. It never
	// appears in an error.
	Authorization string
	// TLS, if not nil, replaces the default settings for https (see connector.NewTLS).
	TLS *tls.Config
}

// Request is a request in the form in which it is sent. Its fields are those
// of delivery's sign.Request, so that the one converts to the other.
type Request struct {
	Method string
	// URL is whole. It is sent as EscapedPath and RawQuery have it.
	URL *url.URL
	// Header in order; keys may repeat. A "Host" replaces the URL's.
	Header []record.Header
	Body   []byte
}

// Response is an answer. Its fields are those of delivery's verdict.Response,
// so that the one converts to the other.
type Response struct {
	Status int
	// Header is sorted by key.
	Header []record.Header
	// Body holds the first MaxResponseBody bytes.
	Body []byte
	// Truncated says that Body is only the beginning.
	Truncated bool
}

// Client sends requests. Safe for concurrent use.
type Client struct {
	cfg    Config
	base   *url.URL // nil if there is none
	client *http.Client
	closed atomic.Bool
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
		errs = append(errs, fmt.Errorf("http: %d connections", c.Concurrent))
	}
	if strings.ContainsAny(c.Authorization, "\r\n\x00") {
		errs = append(errs, errors.New("http: the authorization has a line end in it"))
	}
	return errors.Join(errs...)
}

// base parses Base; nil if it is empty. Its errors do not repeat what may be a
// password in it.
func (c Config) base() (*url.URL, error) {
	if c.Base == "" {
		return nil, nil
	}
	u, err := url.Parse(c.Base)
	if err != nil {
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err
		}
		return nil, fmt.Errorf("http: base: not a URL: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("http: base: %q is not an http:// or https:// URL", u.Redacted())
	}
	if u.User != nil {
		return nil, fmt.Errorf("http: base: %q has a user in it: give it as the connection's auth", u.Redacted())
	}
	return u, nil
}

// NewClient makes a client. It connects to nothing yet.
func NewClient(cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.defaults()
	base, _ := cfg.base()
	return &Client{
		cfg:  cfg,
		base: base,
		client: &http.Client{
			Transport: &http.Transport{
				Proxy:                 http.ProxyFromEnvironment,
				DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
				TLSClientConfig:       cfg.TLS,
				TLSHandshakeTimeout:   10 * time.Second,
				MaxIdleConns:          cfg.Concurrent,
				MaxIdleConnsPerHost:   cfg.Concurrent,
				IdleConnTimeout:       90 * time.Second,
				ExpectContinueTimeout: time.Second,
				ForceAttemptHTTP2:     true,

				MaxResponseHeaderBytes: MaxResponseHeader,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// Send makes one attempt and returns the answer, whatever its status. It
// blocks until the answer is there, the timeout is over (0: the
// configuration's) or ctx ends. r is not changed.
//
// Without an answer the error is a *record.Error, which names no query:
//
//	class      when
//	retryable  no connection, or it broke, or the answer's headers are longer than MaxResponseHeader
//	timeout    no answer within the timeout
//	config     the two sides cannot agree on a secure connection; a method or URL that cannot be used
//	schema     a header that cannot be sent
//	internal   the client is closed (connector.ErrClosed)
//
// or one for which errors.Is(err, context.Canceled) holds: ctx ended, and the
// request may or may not have been carried out.
func (c *Client) Send(ctx context.Context, r *Request, timeout time.Duration) (*Response, error) {
	if c.closed.Load() {
		return nil, record.Errorf(record.Internal, "send: %w", connector.ErrClosed)
	}
	if timeout == 0 {
		timeout = c.cfg.Timeout
	}
	sending, cancel := context.WithTimeoutCause(ctx, timeout, errTimeout)
	defer cancel()
	hr, err := c.build(sending, r)
	if err != nil {
		return nil, err
	}
	resp, err := c.do(hr)
	if err == nil {
		return resp, nil
	}
	what := r.Method + " " + target(r.URL)
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%s: %w", what, context.Canceled)
	case errors.Is(context.Cause(sending), errTimeout):
		return nil, record.Errorf(record.Timeout, "%s: no answer within %s", what, timeout)
	case isTrust(err):
		return nil, record.Errorf(record.Config, "%s: %w: give the connection the right `tls` settings, or renew the server's certificate", what, err)
	}
	return nil, record.Errorf(record.Retryable, "%s: %w", what, err)
}

// errTimeout is the cause of a request's own timeout.
var errTimeout = errors.New("timeout")

// target names a URL in messages: without its query and fragment, which may
// hold a key.
func target(u *url.URL) string { return u.Scheme + "://" + u.Host + u.EscapedPath() }

func (c *Client) build(ctx context.Context, r *Request) (*http.Request, error) {
	if r.URL == nil || r.URL.Scheme != "http" && r.URL.Scheme != "https" || r.URL.Host == "" {
		return nil, record.Errorf(record.Config, "send: the request has no http:// or https:// URL")
	}
	if !isToken(r.Method) {
		return nil, record.Errorf(record.Config, "send: %q is no method of a request", r.Method)
	}
	hr := (&http.Request{
		Method: r.Method, URL: r.URL, Host: r.URL.Host, Header: make(http.Header, len(r.Header)+2),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}).WithContext(ctx)
	for _, h := range r.Header {
		if !isToken(h.Key) {
			return nil, record.Errorf(record.Schema, "send: %q is no name of a header", h.Key)
		}
		// The value itself may be a secret and is not told.
		if slices.ContainsFunc(h.Value, func(c byte) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
			return nil, record.Errorf(record.Schema, "send: the value of header %s holds a line end or another control character", h.Key)
		}
		if strings.EqualFold(h.Key, "Host") {
			hr.Host = string(h.Value)
			continue
		}
		hr.Header.Add(h.Key, string(h.Value))
	}
	if c.cfg.Authorization != "" && c.base != nil && r.URL.Scheme == c.base.Scheme && r.URL.Host == c.base.Host && hr.Header.Get("Authorization") == "" {
		hr.Header.Set("Authorization", c.cfg.Authorization)
	}
	if _, ok := hr.Header["User-Agent"]; !ok {
		hr.Header.Set("User-Agent", "millrace")
	}
	once(hr, r.Body)
	return hr, nil
}

// once gives hr its body, so that net/http has no way to send hr again by
// itself when a kept connection turns out to be broken: it repeats what it
// takes for idempotent, which is a request without a body, or with one that
// can be had again, that has a safe method or an Idempotency-Key.
func once(hr *http.Request, body []byte) {
	switch {
	case len(body) > 0:
		hr.ContentLength = int64(len(body))
		hr.Body = io.NopCloser(bytes.NewReader(body)) // without GetBody
	case mayLackBody(hr.Method):
		hr.Body = io.NopCloser(new(bytes.Reader)) // found to be empty, and sent as none
	default:
		// Of these methods an unknown body is sent in chunks. They are
		// repeated for the key alone, which is looked for in this spelling.
		for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
			if values, ok := hr.Header[name]; ok {
				delete(hr.Header, name)
				hr.Header[strings.ToLower(name)] = values
			}
		}
	}
}

// mayLackBody reports whether net/http looks whether there is a body before it
// says how it is sent.
func mayLackBody(method string) bool {
	switch method {
	case "GET", "HEAD", "DELETE", "OPTIONS", "PROPFIND", "SEARCH":
		return true
	}
	return false
}

// isToken reports whether s is a token of RFC 9110.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		return c >= 0x7f || c <= ' ' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, c)
	})
}

func (c *Client) do(hr *http.Request) (*Response, error) {
	hresp, err := c.client.Do(hr)
	if err != nil {
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err // the URL is in the message already
		}
		return nil, err
	}
	defer func() { _ = hresp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(hresp.Body, MaxResponseBody+1))
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	resp := &Response{Status: hresp.StatusCode, Body: body}
	if len(body) > MaxResponseBody {
		resp.Body, resp.Truncated = body[:MaxResponseBody], true
	}
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
func (c *Client) Close() error {
	c.closed.Store(true)
	c.client.CloseIdleConnections()
	return nil
}
