package http

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/millrace-io/millrace/runtime/connector"
)

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
		errors.Is(err, http.ErrSchemeMismatch) || isRefusal(err)
}

// isRefusal reports whether the other side ended the handshake with an alert
// (RFC 8446, 6.2) that says no to what we are or can.
func isRefusal(err error) bool {
	code, _ := connector.Alert(err)
	switch code {
	case 40, // handshake_failure
		42, 43, 44, 45, 46, // certificates: bad, unsupported, revoked, expired, unknown
		48,     // unknown_ca
		49,     // access_denied
		70, 71, // protocol_version, insufficient_security
		112, // unrecognized_name
		116: // certificate_required
		return true
	}
	return false
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
