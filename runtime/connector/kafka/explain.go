package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/runtime/connector"
)

// phase is how far a connection had come when it failed.
type phase int

const (
	opening    phase = iota // TCP, TLS, the first exchange of versions, SASL
	requesting              // the first request after these
)

// connectError is why a broker cannot be talked to: place, cause, next step.
type connectError struct {
	text string
	err  error
}

func (e *connectError) Error() string { return e.text }
func (e *connectError) Unwrap() error { return e.err }

// explainConnect says what is wrong with the connection to a broker, in words
// for whoever wrote the connection. node is the broker's number where the
// cluster told its address, and negative for one of Brokers.
func (c Config) explainConnect(node int32, addr string, at phase, err error) error {
	told := node >= 0 && !slices.Contains(c.Brokers, addr)
	cause, next := c.cause(told, at, err)
	cause, addr = printable(cause), printable(addr)
	place := "kafka at " + addr
	if told {
		place = fmt.Sprintf("kafka: broker %d at %s, the address that %s names for it (its advertised.listeners)", node, addr, strings.Join(c.Brokers, ", "))
	}
	switch {
	case next == "" && cause == "":
		return &connectError{place + ": " + printable(err.Error()), err}
	case next == "" && told:
		next = "start that broker, correct its advertised.listeners, or let this node reach the address"
	case next == "":
		next = "start the broker, or correct the connection's `brokers`"
	}
	return &connectError{place + ": " + cause + ": " + next, err}
}

// printable makes one line of bounded length of what another side may have
// chosen the words of.
func printable(s string) string {
	const limit = 600
	cut := len(s) > limit
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(s[:min(len(s), limit)], ""))
	if cut {
		s += "..."
	}
	return s
}

// cause says what err is and what to do. An empty next is a broker that cannot
// be reached; both empty: err says all.
func (c Config) cause(told bool, at phase, err error) (cause, next string) {
	if _, ok := errors.AsType[*settingsError](err); ok {
		return "", ""
	}
	if no, ok := errors.AsType[*refusal](err); ok {
		return c.refused(no)
	}
	if cause, next = c.distrust(told, err); cause != "" {
		return cause, next
	}
	dns, notFound := errors.AsType[*net.DNSError](err)
	timeout, isNet := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, errSpeaksTLS):
		return "the listener demands TLS", "give the connection `tls`, or the port of a listener without"
	case errors.Is(err, errLoginClosed):
		return fmt.Sprintf("it closed the connection at the login of the user%s, as for a wrong password", c.user()), nextLogin
	case errors.Is(err, errSpeaksHTTP):
		return "an HTTP server answers there", "correct the port in the connection's `brokers`"
	case notFound && dns.IsNotFound:
		cause = fmt.Sprintf("there is no host %s", dns.Name)
		if told {
			return cause, "correct the broker's advertised.listeners, or the name service of this node"
		}
		return cause, "correct the connection's `brokers`, or the name service of this node"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there: connection refused", ""
	case errors.Is(err, errLate), errors.Is(err, context.DeadlineExceeded), isNet && timeout.Timeout():
		return "no answer in time", ""
	case closed(err) && at == requesting && c.SASL == nil:
		return "it closed the connection at the first request", "the listener may demand SASL: give the connection `sasl`, or the port of a listener without"
	case closed(err) && at == opening && c.TLS == nil:
		return "it closed the connection at the first byte", "the listener may demand TLS: give the connection `tls`, or the port of a listener without"
	case closed(err):
		return "it closed the connection at once", "look into the broker's log for the reason"
	}
	return err.Error(), ""
}

// refused is what a broker's no to a login means.
func (c Config) refused(no *refusal) (cause, next string) {
	mechanism := c.SASL.mechanism().Name()
	switch no.code {
	case kerr.SaslAuthenticationFailed:
		return fmt.Sprintf("it refuses the user%s with %s: wrong user or password", c.user(), mechanism), nextLogin
	case kerr.UnsupportedSaslMechanism:
		cause = "the listener does not take " + mechanism
		if len(no.offered) > 0 {
			cause += ", only " + strings.Join(no.offered, ", ")
		}
		return cause, "choose another mechanism in the connection's `sasl`, or add it to the broker's sasl.enabled.mechanisms"
	case kerr.IllegalSaslState:
		return "the listener takes no SASL", "take `sasl` out of the connection, or give the port of a listener with SASL"
	}
	return fmt.Sprintf("it refuses the login with %s: %v", mechanism, no), "look into the broker's log for the reason"
}

// nextLogin is what to do about a login that fails.
const nextLogin = "correct the connection's `sasl`, or the secret that it names"

// user is the name of whom the node logs in as, if it is at hand.
func (c Config) user() string {
	if c.SASL == nil {
		return ""
	}
	name, _, err := c.SASL.Credentials()
	if err != nil {
		return ""
	}
	return fmt.Sprintf(" %q", name)
}

// distrust is why TLS did not come about.
func (c Config) distrust(told bool, err error) (cause, next string) {
	var (
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
		header  tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &unknown):
		return "the broker's certificate" + issuer(unknown.Cert) + " does not lead to an authority that this node trusts", "put the certificate of the brokers' authority into the connection's `tls.ca`"
	case errors.As(err, &name):
		cause = fmt.Sprintf("the broker's certificate is for %s, not for %s", names(name.Certificate), name.Host)
		if told {
			return cause, "let the broker advertise a name that its certificate has, or set the connection's `tls.server_name`"
		}
		return cause, "give `brokers` as the certificate has it, set the connection's `tls.server_name`, or give the broker a certificate with that name"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil:
		if from := invalid.Cert.NotBefore; time.Now().Before(from) {
			return "the broker's certificate is valid only from " + from.UTC().Format(time.RFC3339), "correct this node's clock, or the broker's certificate"
		}
		return "the broker's certificate expired at " + invalid.Cert.NotAfter.UTC().Format(time.RFC3339), "renew it on the broker, or correct this node's clock"
	case errors.As(err, &header), errors.Is(err, errNoTLS):
		return "the listener does not speak TLS", "take `tls` out of the connection, or give the port of a listener with TLS"
	}
	if code, ok := connector.Alert(err); ok {
		return c.alert(code, err)
	}
	if _, ok := errors.AsType[*handshakeError](err); ok {
		return "no secure connection: " + err.Error(), "correct the connection's `tls`, or the broker's certificate"
	}
	return "", ""
}

// alert is what the broker says to our side of TLS.
func (c Config) alert(code uint8, err error) (cause, next string) {
	ours := false
	if c.TLS != nil {
		if cfg, err := c.TLS(); err == nil {
			ours = len(cfg.Certificates) > 0
		}
	}
	op, _ := errors.AsType[*net.OpError](err)
	switch code {
	case 42, 43, 44, 45, 46, 48, 116: // about the client's certificate; Java says 42 where there is none
		if !ours {
			return "the listener demands a client certificate", "give the connection `tls.cert` and `tls.key`"
		}
		return fmt.Sprintf("the broker refuses our client certificate (%v)", op.Err), "renew `tls.cert` and `tls.key`, or put their authority into the broker's truststore"
	}
	return fmt.Sprintf("the broker ended the TLS handshake (%v)", op.Err), "compare the broker's ssl.enabled.protocols and ssl.cipher.suites: TLS 1.2 or 1.3 is needed"
}

// closed reports whether the other side ended the connection.
func closed(err error) bool {
	if _, ok := errors.AsType[*kgo.ErrFirstReadEOF](err); ok {
		return true
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func issuer(cert *x509.Certificate) string {
	if cert == nil {
		return ""
	}
	return fmt.Sprintf(" (issued by %s)", cert.Issuer)
}

// names are those that a certificate is for.
func names(cert *x509.Certificate) string {
	if cert == nil {
		return "another name"
	}
	all := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		all = append(all, ip.String())
	}
	if len(all) == 0 {
		return "no name"
	}
	return strings.Join(all, ", ")
}
