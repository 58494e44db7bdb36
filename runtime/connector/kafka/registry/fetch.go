package registry

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/twmb/franz-go/pkg/sr"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/record"
)

// MaxSchemaBytes bounds the text of a schema together with all that it refers
// to.
const MaxSchemaBytes = 1 << 20

// maxAnswer bounds an answer of the registry, in which the text of a schema
// stands as a JSON string.
const maxAnswer = 4 * MaxSchemaBytes

// subjectWait bounds the request for a schema's subject, which only messages
// need.
const subjectWait = 2 * time.Second

// answer is what the registry says about a schema.
type answer struct {
	Schema     string               `json:"schema"`
	Type       string               `json:"schemaType"`
	References []sr.SchemaReference `json:"references"`
}

func (a *answer) kind() string {
	if a.Type == "" {
		return typeAvro
	}
	return a.Type
}

// fetchID asks for the schema of an id.
func (c *Client) fetchID(ctx context.Context, id uint32) (*answer, *record.Error) {
	return c.fetch(ctx, fmt.Sprintf("schema %d", id), idPath(id))
}

func idPath(id uint32) string { return fmt.Sprintf("/schemas/ids/%d", id) }

// fetchVersion asks for what a schema refers to, also if it was deleted
// meanwhile.
func (c *Client) fetchVersion(ctx context.Context, r sr.SchemaReference) (*answer, *record.Error) {
	return c.fetch(sr.WithParams(ctx, sr.ShowDeleted), fmt.Sprintf("schema %q, version %d", r.Subject, r.Version),
		fmt.Sprintf("/subjects/%s/versions/%d", url.PathEscape(r.Subject), r.Version))
}

func (c *Client) fetch(ctx context.Context, what, path string) (*answer, *record.Error) {
	a := &answer{}
	if err := c.sr.Do(ctx, http.MethodGet, path, nil, a); err != nil {
		return nil, c.failure(what, err)
	}
	if a.Schema == "" {
		return nil, c.stranger(what, "with no schema in it")
	}
	return a, nil
}

// subject is a subject that has the schema, for messages; empty if the
// registry does not tell.
func (c *Client) subject(ctx context.Context, id uint32) string {
	ctx, cancel := context.WithTimeout(ctx, subjectWait)
	defer cancel()
	versions, err := c.sr.SchemaVersionsByID(sr.WithParams(ctx, sr.ShowDeleted), int(id))
	if err != nil || len(versions) == 0 {
		return ""
	}
	subjects := make([]string, len(versions))
	for i, v := range versions {
		subjects[i] = v.Subject
	}
	slices.Sort(subjects)
	subjects = slices.Compact(subjects)
	if len(subjects) > 1 {
		return fmt.Sprintf("%s and %d more", subjects[0], len(subjects)-1)
	}
	return subjects[0]
}

// failure says why a schema could not be had:
//
//	schema     the registry has no such schema, or it is too large
//	config     the registry does not let us in, or the two sides cannot agree on a secure connection
//	timeout    no answer in time
//	retryable  all else: no connection, 5xx, and answers that are not a registry's
func (c *Client) failure(what string, err error) *record.Error {
	at := c.cfg.URL
	if re, ok := errors.AsType[*sr.ResponseError](err); ok {
		said := fmt.Sprintf("the registry at %s answered %d", at, re.StatusCode)
		if re.ErrorCode != 0 && re.Message != "" {
			said += fmt.Sprintf(" (%d: %s)", re.ErrorCode, shorten(re.Message))
		}
		switch {
		case re.StatusCode == http.StatusNotFound && re.ErrorCode/100 == http.StatusNotFound:
			return record.Errorf(record.Schema, "%s does not exist: %s: is it the registry that the record was written with?", what, said)
		case re.StatusCode == http.StatusUnauthorized:
			return record.Errorf(record.Config, "%s: %s: correct user and password of the connection's `registry`", what, said)
		case re.StatusCode == http.StatusForbidden:
			return record.Errorf(record.Config, "%s: %s: give the user of the connection's `registry` the right to read schemas", what, said)
		case re.StatusCode >= 500 || re.StatusCode == http.StatusTooManyRequests || re.StatusCode == http.StatusRequestTimeout:
			return record.Errorf(record.Retryable, "%s: %s", what, said)
		}
		return c.stranger(what, fmt.Sprintf("with status %d", re.StatusCode))
	}
	var (
		verify *tls.CertificateVerificationError
		header tls.RecordHeaderError
		syntax *json.SyntaxError
		field  *json.UnmarshalTypeError
		large  *answerTooLarge
		wait   net.Error
	)
	_, refused := connector.Alert(err)
	switch own, is := errors.AsType[*record.Error](err); {
	case is:
		return record.Errorf(own.Class, "%s: the registry at %s: %w", what, at, own)
	case errors.As(err, &large):
		return &record.Error{Class: record.Schema, Err: large, Message: fmt.Sprintf("%s is too large: the answer of the registry at %s has more than %d bytes", what, at, maxAnswer)}
	case errors.As(err, &syntax), errors.As(err, &field):
		return c.stranger(what, "with something else than a schema")
	case errors.As(err, &verify), errors.As(err, &header), errors.Is(err, http.ErrSchemeMismatch), refused:
		return record.Errorf(record.Config, "%s: secure connection to the registry at %s: %w: give the connection's `registry` the right `tls` settings, or renew the server's certificate", what, at, cause(err))
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &wait) && wait.Timeout():
		return record.Errorf(record.Timeout, "%s: no answer of the registry at %s within %s", what, at, c.cfg.Timeout)
	}
	return record.Errorf(record.Retryable, "%s: the registry at %s does not answer: %w", what, at, cause(err))
}

// stranger is the failure when what answers does not speak like a registry. It
// passes: a gateway may answer for one that is not there.
func (c *Client) stranger(what, how string) *record.Error {
	return record.Errorf(record.Retryable, "%s: what is at %s answered %s: is it a Schema Registry, with the right path? Correct `url` of the connection's `registry`", what, c.cfg.URL, how)
}

// cause leaves away the request, which messages name themselves.
func cause(err error) error {
	if ue, ok := errors.AsType[*url.Error](err); ok {
		return ue.Err
	}
	return err
}

// shorten bounds what the registry says, and makes one line of it.
func shorten(s string) string {
	const limit = 300
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

// authorize gives a request its credentials.
func (c Config) authorize(req *http.Request) error {
	if c.User == "" {
		return nil
	}
	password := ""
	if c.Password != nil {
		var err error
		if password, err = c.Password(); err != nil {
			return asConfig(err)
		}
	}
	req.SetBasicAuth(c.User, password)
	return nil
}

// asConfig makes sure that settings that cannot be had have a class.
func asConfig(err error) error {
	if e, ok := errors.AsType[*record.Error](err); ok {
		return e
	}
	return record.Errorf(record.Config, "%w", err)
}

// client makes the HTTP client. It follows no redirection, which would take
// credentials elsewhere, and uses no proxy.
func (c Config) client() *http.Client {
	dialer := &net.Dialer{Timeout: c.Timeout, KeepAlive: 30 * time.Second}
	t := &http.Transport{
		DialContext:            dialer.DialContext,
		MaxIdleConnsPerHost:    2, // look-ups are rare
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
	if c.TLS != nil {
		t.DialTLSContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			return c.dialTLS(ctx, dialer, network, addr)
		}
	}
	return &http.Client{
		Transport:     bounded{t},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (c Config) dialTLS(ctx context.Context, dialer *net.Dialer, network, addr string) (net.Conn, error) {
	tc, err := c.TLS()
	if err != nil {
		return nil, asConfig(err)
	}
	tc = tc.Clone()
	if tc.ServerName == "" {
		if tc.ServerName, _, err = net.SplitHostPort(addr); err != nil {
			return nil, err
		}
	}
	conn, err := dialer.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	secure := tls.Client(conn, tc)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return secure, nil
}

// bounded gives up answers longer than maxAnswer.
type bounded struct{ t *http.Transport }

func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := b.t.RoundTrip(req)
	if err == nil {
		resp.Body = &boundedBody{body: resp.Body, left: maxAnswer}
	}
	return resp, err
}

// CloseIdleConnections is asked for by http.Client.
func (b bounded) CloseIdleConnections() { b.t.CloseIdleConnections() }

type boundedBody struct {
	body io.ReadCloser
	left int
}

type answerTooLarge struct{}

func (*answerTooLarge) Error() string { return "the answer is too large" }

func (b *boundedBody) Read(p []byte) (int, error) {
	p = p[:min(len(p), b.left+1)]
	n, err := b.body.Read(p)
	if b.left -= n; b.left < 0 {
		return n, &answerTooLarge{}
	}
	return n, err
}

func (b *boundedBody) Close() error { return b.body.Close() }
