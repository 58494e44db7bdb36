package http

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"reflect"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
)

// NewTLS makes the settings for https. ca is PEM with the certificates that
// the server's must lead to; empty: the system's. cert and key are PEM with the
// client's certificate, those between it and its root behind it, and its
// private key; both empty: it has none. The error is a *record.Error of class
// config that does not tell any of them.
func NewTLS(ca, cert, key []byte) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(ca) > 0 {
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(ca) {
			return nil, record.Errorf(record.Config, "http: tls: `ca` holds no certificate in PEM: give one")
		}
	}
	switch {
	case len(cert) == 0 && len(key) == 0:
		return cfg, nil
	case len(cert) == 0 || len(key) == 0:
		return nil, record.Errorf(record.Config, "http: tls: a client's certificate and its key go together: give both or none")
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, record.Errorf(record.Config, "http: tls: the client's certificate and key cannot be used: give a certificate and the private key that belongs to it, both in PEM")
	}
	cfg.Certificates = []tls.Certificate{pair}
	return cfg, nil
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
		errors.Is(err, http.ErrSchemeMismatch) || isRefusal(err)
}

// isRefusal reports whether the other side ended the handshake with an alert
// (RFC 8446, 6.2) that says no to what we are or can. crypto/tls has no
// exported type for one, only a byte.
func isRefusal(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != "remote error" || op.Err == nil {
		return false
	}
	v := reflect.ValueOf(op.Err)
	if v.Kind() != reflect.Uint8 {
		return false
	}
	switch v.Uint() {
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
