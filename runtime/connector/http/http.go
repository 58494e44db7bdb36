// Package http sends requests to an HTTP endpoint and classifies the answers.
//
// It makes one attempt for a call. When to try again, what a body looks like
// and which answer counts as a success beyond the status is for its caller;
// it signs nothing and follows no redirect.
package http

import (
	"context"
	"crypto/tls"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
)

// MaxResponseBody is how much of an answer's body is read. What is beyond is
// cut off.
const MaxResponseBody = 64 << 10

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
	// URL is a whole URL, or a path (and query) below the base.
	URL    string
	Header []record.Header
	Body   []byte
	// Timeout replaces the configuration's; 0 leaves it.
	Timeout time.Duration
}

// Response is an answer.
type Response struct {
	Status int
	Header []record.Header
	// Body holds the first MaxResponseBody bytes.
	Body []byte
}

// Sink sends requests. Safe for concurrent use.
type Sink struct{}

// NewSink makes a sink. It connects to nothing yet.
func NewSink(cfg Config) (*Sink, error) { return nil, nil }

// Send makes one attempt. It blocks until the answer is there, the timeout is
// over or ctx ends.
//
// The error is nil for a status of 200 to 299, else a *record.Error:
//
//	class      when
//	retryable  status 408, 429, 5xx; no connection, or it broke (RetryAfter is the answer's, at most MaxRetryAfter)
//	timeout    no answer within the timeout
//	config     status 401, 403; a certificate that is not to be trusted; an unusable URL
//	rejected   any other status
//
// with the status, if there is one, as its Code. The response is returned
// whenever there is one, also beside an error. An error for which
// errors.Is(err, context.Canceled) holds says that ctx ended.
func (s *Sink) Send(ctx context.Context, req *Request) (*Response, error) { return nil, nil }

// MaxRetryAfter bounds the wait that an answer may ask for.
const MaxRetryAfter = 10 * time.Minute

// Problem says why the last request got no usable answer (class retryable,
// timeout or config), or is empty if it did.
func (s *Sink) Problem() string { return "" }

// Check connects to the base's host, with TLS for https, and sends no request.
// The error ends with what to do.
func Check(ctx context.Context, cfg Config) error { return nil }

// Close ends idle connections. Requests under way end as they will. It may be
// called twice.
func (s *Sink) Close() error { return nil }
