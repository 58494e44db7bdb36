package connector

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"reflect"

	"github.com/millrace-io/millrace/runtime/record"
)

// NewTLS makes the settings of a secure connection. ca is PEM with the
// certificates that the server's must lead to; empty: the system's. cert and
// key are PEM with the client's certificate, those between it and its root
// behind it, and its private key; both empty: it has none. The error is a
// *record.Error of class config that does not tell any of them.
func NewTLS(ca, cert, key []byte) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(ca) > 0 {
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(ca) {
			return nil, record.Errorf(record.Config, "tls: `ca` holds no certificate in PEM: give one")
		}
	}
	switch {
	case len(cert) == 0 && len(key) == 0:
		return cfg, nil
	case len(cert) == 0 || len(key) == 0:
		return nil, record.Errorf(record.Config, "tls: a client's certificate and its key go together: give both or none")
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, record.Errorf(record.Config, "tls: the client's certificate and key cannot be used: give a certificate and the private key that belongs to it, both in PEM")
	}
	cfg.Certificates = []tls.Certificate{pair}
	return cfg, nil
}

// Alert is the code with which the other side ended a secure connection (RFC
// 8446, 6.2), and whether it did. crypto/tls has no exported type for one, only
// a byte.
func Alert(err error) (code uint8, ok bool) {
	op, is := errors.AsType[*net.OpError](err)
	if !is || op.Op != "remote error" || op.Err == nil {
		return 0, false
	}
	v := reflect.ValueOf(op.Err)
	if v.Kind() != reflect.Uint8 {
		return 0, false
	}
	return uint8(v.Uint()), true
}
