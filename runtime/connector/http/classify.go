package http

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/millrace-io/millrace/runtime/record"
)

// excerpt is how much of an answer's body an error quotes.
const excerpt = 300

// verdict is the error that an answer means, or nil.
func verdict(what string, resp *Response) *record.Error {
	if resp.Status >= 200 && resp.Status <= 299 {
		return nil
	}
	e := &record.Error{Class: class(resp.Status), Code: uint32(resp.Status)}
	e.Message = fmt.Sprintf("%s: status %d", what, resp.Status)
	if text := http.StatusText(resp.Status); text != "" {
		e.Message += " " + text
	}
	if q := quote(resp.Body); q != "" {
		e.Message += ": " + q
	}
	switch e.Class {
	case record.Retryable:
		e.RetryAfter = retryAfter(resp.Header, time.Now())
	case record.Config:
		e.Message += ": correct the connection's auth"
	}
	return e
}

// class is the class of a status that is no success.
func class(status int) record.Class {
	switch {
	case status == http.StatusRequestTimeout, status == http.StatusTooManyRequests, status >= 500:
		return record.Retryable
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return record.Config
	}
	return record.Rejected
}

// quote is the beginning of a body in one line.
func quote(body []byte) string {
	if len(body) > excerpt {
		body = body[:excerpt]
		for len(body) > 0 && !utf8.RuneStart(body[len(body)-1]) {
			body = body[:len(body)-1]
		}
		if len(body) > 0 && body[len(body)-1] >= utf8.RuneSelf {
			body = body[:len(body)-1]
		}
	}
	return strings.Join(strings.Fields(strings.ToValidUTF8(string(body), "\uFFFD")), " ")
}

// retryAfter is the wait that an answer asks for, in seconds or as a date; 0
// if it asks for none, at most MaxRetryAfter.
func retryAfter(header []record.Header, now time.Time) time.Duration {
	for _, h := range header {
		if h.Key != "Retry-After" {
			continue
		}
		v := strings.TrimSpace(string(h.Value))
		if n, err := strconv.ParseUint(v, 10, 64); err == nil {
			if n > uint64(MaxRetryAfter/time.Second) {
				return MaxRetryAfter
			}
			return time.Duration(n) * time.Second
		}
		if at, err := http.ParseTime(v); err == nil {
			return min(max(at.Sub(now), 0), MaxRetryAfter)
		}
		return 0
	}
	return 0
}

// isTrust reports whether two sides cannot agree on a secure connection, which
// no waiting mends.
func isTrust(err error) bool {
	var (
		unknown  x509.UnknownAuthorityError
		name     x509.HostnameError
		invalid  x509.CertificateInvalidError
		verify   *tls.CertificateVerificationError
		header   tls.RecordHeaderError
		alert    tls.AlertError
		constr   x509.ConstraintViolationError
		insecure x509.InsecureAlgorithmError
	)
	return errors.As(err, &unknown) || errors.As(err, &name) || errors.As(err, &invalid) || errors.As(err, &verify) ||
		errors.As(err, &header) || errors.As(err, &alert) || errors.As(err, &constr) || errors.As(err, &insecure) ||
		err != nil && errors.Is(err, http.ErrSchemeMismatch)
}

// Check connects to the base's host, with TLS for https, and sends no request.
// The error ends with what to do. It blocks for at most ten seconds.
func Check(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	base, _ := cfg.base()
	if base == nil {
		return errors.New("http: the connection has no base URL: nothing to connect to")
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	port := base.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[base.Scheme]
	}
	addr := net.JoinHostPort(base.Hostname(), port)
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("http: connect to %s: %w: start the server, or correct the connection's `base`", addr, err)
	}
	defer func() { _ = conn.Close() }()
	if base.Scheme != "https" {
		return nil
	}
	tc := &tls.Config{}
	if cfg.TLS != nil {
		tc = cfg.TLS.Clone()
	}
	if tc.ServerName == "" {
		tc.ServerName = base.Hostname()
	}
	if err := tls.Client(conn, tc).HandshakeContext(ctx); err != nil {
		return fmt.Errorf("http: secure connection to %s: %w: give the connection the right `tls` settings, or renew the server's certificate", addr, err)
	}
	return nil
}
