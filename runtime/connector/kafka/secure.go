package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/millrace-io/millrace/runtime/record"
)

// Mechanism is a way for a user to say who it is.
type Mechanism string

// The mechanisms. Plain sends the password as it is.
const (
	Plain       Mechanism = "plain"
	ScramSHA256 Mechanism = "scram-sha-256"
	ScramSHA512 Mechanism = "scram-sha-512"
)

// SASL says who we are.
type SASL struct {
	Mechanism Mechanism
	// Credentials are asked at each authentication, so that a changed password
	// takes effect without a restart. Its error must not hold the password.
	Credentials func() (user, password string, err error)
}

func (s *SASL) validate() error {
	var errs []error
	switch s.Mechanism {
	case Plain, ScramSHA256, ScramSHA512:
	default:
		errs = append(errs, fmt.Errorf("kafka: sasl mechanism %q: it is one of plain, scram-sha-256, scram-sha-512", string(s.Mechanism)))
	}
	if s.Credentials == nil {
		errs = append(errs, errors.New("kafka: sasl: no credentials"))
	}
	return errors.Join(errs...)
}

// mechanism is what the client takes.
func (s *SASL) mechanism() sasl.Mechanism {
	shared := func(context.Context) (scram.Auth, error) {
		user, password, err := s.credentials()
		return scram.Auth{User: user, Pass: password}, err
	}
	switch s.Mechanism {
	case ScramSHA256:
		return scram.Sha256(shared)
	case ScramSHA512:
		return scram.Sha512(shared)
	}
	return plain.Plain(func(context.Context) (plain.Auth, error) {
		user, password, err := s.credentials()
		return plain.Auth{User: user, Pass: password}, err
	})
}

func (s *SASL) credentials() (user, password string, err error) {
	if user, password, err = s.Credentials(); err != nil {
		err = &waitError{&settingsError{err}}
	}
	return user, password, err
}

// settingsError is a failure to read the settings of a connection on this node.
type settingsError struct{ err error }

func (e *settingsError) Error() string {
	if r, ok := errors.AsType[*record.Error](e.err); ok {
		return r.Message
	}
	return e.err.Error()
}

func (e *settingsError) Unwrap() error { return e.err }

// handshakeError is a TLS connection that did not come about.
type handshakeError struct{ err error }

func (e *handshakeError) Error() string { return e.err.Error() }
func (e *handshakeError) Unwrap() error { return e.err }

// dial connects to a broker, with the TLS settings of the moment.
func (c Config) dial(asked context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(asked, c.DialTimeout)
	defer cancel()
	var settings *tls.Config
	if c.TLS != nil {
		var err error
		if settings, err = c.TLS(); err != nil {
			return nil, &waitError{&settingsError{err}}
		}
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err == nil && settings != nil {
		if conn, err = handshake(ctx, conn, addr, settings); err != nil {
			err = &waitError{&handshakeError{err}}
		}
	}
	switch {
	case err == nil:
		return newBrokerConn(conn), nil
	case asked.Err() != nil:
		return nil, asked.Err() // says nothing about the broker
	case ctx.Err() != nil:
		return nil, &waitError{errLate}
	}
	return nil, err
}

// handshake makes a connection a secure one, or closes it.
func handshake(ctx context.Context, conn net.Conn, addr string, settings *tls.Config) (net.Conn, error) {
	if settings.ServerName == "" {
		settings = settings.Clone()
		settings.ServerName, _, _ = net.SplitHostPort(addr) // an address that was just dialled
	}
	secure := tls.Client(conn, settings)
	err := secure.HandshakeContext(ctx)
	switch {
	case err == nil:
		return secure, nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		err = errNoTLS // the client takes an EOF for the end of a request
	}
	_ = conn.Close()
	return nil, err
}
