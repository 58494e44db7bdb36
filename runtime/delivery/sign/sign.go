// Package sign makes the signature of one attempt's request: a keyed digest
// (HMAC) or a signature (RSA, ECDSA, Ed25519) over a canonical text, a JWT, an
// OAuth 2.0 access token, an API key, or a user and password.
//
// It is called for every attempt, after everything else about the request is
// final, and says which headers and query parameters to add. It never changes
// the body, the method or the path: what was signed is what is sent. It sends
// nothing but requests for access tokens, tries nothing again, and does not
// know deliveries, flows or where secrets are kept.
//
// # What can be signed
//
// Texts are templates, and Signature.Over may also be one expression. Their
// roots are vars and env, time (the time of this signature in UTC, to the
// millisecond) and request, whose fields are:
//
//	method  url  scheme  host
//	path                 as it is sent: escaped, "/" if it is empty
//	path_decoded         without escapes
//	path_encoded         every segment of path_decoded escaped as RFC 3986 says
//	path_encoded_twice   every segment of path escaped once more
//	query                as it is sent, without the question mark
//	query_sorted         the parameters as they are sent, sorted bytewise
//	query_encoded        decoded, escaped as RFC 3986 says (a blank is %20), sorted by name and value; a parameter without a value ends with =
//	query_form           the same, escaped as forms are (a blank is +)
//	query_decoded        the same, not escaped
//	params               a map from each parameter's decoded name to its first decoded value
//	headers              a map from each header's name, as it is written and in lower case, to its value
//	header_lines         Signature.SignedHeaders, sorted, each as name:value and a line end
//	header_names         Signature.SignedHeaders, sorted and joined with ;
//	body                 as text
//	body_md5  body_sha1  body_sha256  body_sha384  body_sha512              in lower-case hex
//	body_md5_base64  body_sha1_base64  ...                                  in base64
//	nonce                16 random bytes in lower-case hex, new for every signature
//	nonce_uuid           the same as a UUID of version 4
//	canonical            Signature.Canonical evaluated; canonical_md5 ... canonical_sha512, and with _base64, are its digests
//	signature            the encoded signature; only in Signature.Value
//
// Names of headers are in lower case in header_lines and header_names; a
// value has no blanks around it, repeated headers are joined with a comma, and
// in header_lines runs of blanks become one. host is a header too.
//
// Headers that the transport adds by itself (Content-Length, Accept-Encoding,
// a User-Agent nobody set) cannot be signed: naming one is naming a header
// that is not there, and fails. Digests have to be named as they stand above:
// a name that is put together by an expression may find nothing.
package sign

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/record"
)

// Request is the request of one attempt in the form in which it is sent.
type Request struct {
	// Method is never empty.
	Method string
	// URL is whole: scheme, host, the path behind the connection's base, the
	// query. It is sent as EscapedPath and RawQuery have it.
	URL *url.URL
	// Header in order; names may repeat. A Host replaces the URL's.
	Header []record.Header
	// Body as it is sent, compressed if it is.
	Body []byte
}

// Field is a header or a query parameter that a signature adds.
type Field struct {
	Name, Value string
	// Credential says that the value by itself opens a door (a token, a key,
	// a password): it is kept out of logs, errors and failure entries.
	Credential bool
}

// Format hides the value of a credential, whatever the verb.
func (f Field) Format(s fmt.State, _ rune) {
	v := f.Value
	if f.Credential {
		v = hidden
	}
	_, _ = io.WriteString(s, f.Name+": "+v)
}

// MarshalJSON hides the value of a credential.
func (f Field) MarshalJSON() ([]byte, error) {
	if f.Credential {
		f.Value = hidden
	}
	return json.Marshal(map[string]string{"name": f.Name, "value": f.Value})
}

// Additions are what a signature adds to a request.
type Additions struct {
	// Header fields replace those of the same name, Query parameters are
	// appended in their order.
	Header, Query []Field

	token func() string // the access token that was used, nil if there was none
}

// Apply returns r with the additions. r is not changed; the body is shared.
func (a *Additions) Apply(r *Request) *Request {
	out := *r
	if len(a.Header) > 0 {
		out.Header = slices.Clone(r.Header)
	}
	for _, f := range a.Header {
		out.Header = slices.DeleteFunc(out.Header, func(h record.Header) bool { return strings.EqualFold(h.Key, f.Name) })
		out.Header = append(out.Header, record.Header{Key: f.Name, Value: []byte(f.Value)})
	}
	if len(a.Query) > 0 {
		u := *r.URL
		for _, f := range a.Query {
			if u.RawQuery != "" {
				u.RawQuery += "&"
			}
			u.RawQuery += escape(f.Name) + "=" + escape(f.Value)
		}
		out.URL = &u
	}
	return &out
}

// Credentials are the names of the headers and parameters whose values must
// not be shown.
func (a *Additions) Credentials() (header, query []string) {
	names := func(fs []Field) (out []string) {
		for _, f := range fs {
			if f.Credential {
				out = append(out, f.Name)
			}
		}
		return out
	}
	return names(a.Header), names(a.Query)
}

// Named is a name and a template for its value.
type Named struct{ Name, Value string }

// Config says how requests are signed. One of the kinds is set.
type Config struct {
	Signature *Signature
	JWT       *JWT
	OAuth2    *OAuth2
	APIKey    *APIKey
	Basic     *Basic

	// Header and Query are fields to be set before the signature is made, in
	// this order, such as a timestamp and a nonce. The signature sees them.
	Header, Query []Named

	// Vars and Env are the flow's.
	Vars map[string]any
	Env  map[string]string

	// Now is the clock; nil: the system's.
	Now func() time.Time
	// Random gives the bytes of nonces and token ids; nil: the system's. The
	// randomness inside signatures is always the system's.
	Random io.Reader
	// HTTP asks for access tokens; nil: a client that follows no redirects.
	HTTP Doer
	// Tokens signs JWTs; nil: golang-jwt.
	Tokens TokenSigner
}

// Doer carries out a request, as *http.Client does.
type Doer interface {
	Do(*http.Request) (*http.Response, error)
}

// APIKey sends a key as it is.
type APIKey struct {
	Key Secret
	// Header or Query is the name that the key goes by; one of them is set.
	Header, Query string
	// Prefix stands before the key, as "Bearer ".
	Prefix string
}

// Basic sends a user and a password (RFC 7617).
type Basic struct {
	User     string
	Password Secret
}

// kind makes what its part of the configuration asks for.
type kind interface {
	sign(ctx context.Context, a *Additions, r *Request, e *evaluation) error
}

// Signing signs the attempts of one delivery. It is safe for concurrent use
// and holds keys, which none of its methods and no way of printing it tell.
type Signing struct {
	now           func() time.Time
	random        *lockedReader
	header, query []named
	signed        []string // names of the headers in header_lines, sorted
	early, wants  wants    // of header and query, and of the rest
	kind          kind
	tokens        *tokens // of OAuth2, else nil
	secrets       []Secret
	envs          sync.Pool
}

type named struct {
	name  string
	value *expr.Template
}

// Format tells nothing.
func (s *Signing) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, "sign.Signing") }

// New checks a configuration and reads its keys. The error joins every fault;
// each is a *record.Error of class config that names the secret or the part at
// fault and ends with what to do.
func New(cfg Config) (*Signing, error) {
	s := &Signing{now: cfg.Now, random: &lockedReader{r: cfg.Random}}
	if s.now == nil {
		s.now = time.Now
	}
	if s.random.r == nil {
		s.random.r = rand.Reader
	}
	s.envs.New = func() any { return expr.NewEnv() }
	c := &compiler{scope: expr.Scope{Roots: expr.Request | expr.Time | expr.StaticRoots, Vars: cfg.Vars, Env: cfg.Env}}
	s.header = c.fields("header", cfg.Header)
	s.query = c.fields("query parameter", cfg.Query)
	s.early, c.sources = wantsOf(c.sources), nil

	kinds := 0
	if k := cfg.Signature; k != nil {
		kinds++
		s.kind = c.signature(k)
		s.signed = signedHeaders(k.SignedHeaders)
		s.secrets = append(s.secrets, k.Key)
	}
	if k := cfg.JWT; k != nil {
		kinds++
		s.kind = c.jwt(k, cfg.Tokens)
		s.secrets = append(s.secrets, k.Key)
	}
	if k := cfg.OAuth2; k != nil {
		kinds++
		s.tokens = c.oauth2(k, cfg.HTTP, s.now)
		s.kind = s.tokens
		s.secrets = append(s.secrets, k.ClientSecret)
	}
	if k := cfg.APIKey; k != nil {
		kinds++
		s.kind = c.apiKey(k)
		s.secrets = append(s.secrets, k.Key)
	}
	if k := cfg.Basic; k != nil {
		kinds++
		s.kind = c.basic(k)
		s.secrets = append(s.secrets, k.Password)
	}
	if kinds != 1 {
		c.fail("%d ways to sign: set exactly one of signature, jwt, oauth2, api key and basic", kinds)
	}
	if err := errors.Join(c.errs...); err != nil {
		return nil, err
	}
	s.wants = wantsOf(c.sources)
	return s, nil
}

// Sign says what to add to r for one attempt, with a fresh time and nonce.
// With OAuth2 it may block for a token until ctx ends; otherwise it computes
// only. The error is a *record.Error:
//
//	class      when
//	schema     a text cannot be made of this request (a header it names is not there)
//	config     the token endpoint refuses the client
//	retryable  the token endpoint does not work now (RetryAfter is its own)
//	timeout    it did not answer in time
//
// or one for which errors.Is(err, context.Canceled) holds when ctx ended.
func (s *Signing) Sign(ctx context.Context, r *Request) (*Additions, error) {
	now := s.now().UTC()
	var nonce [16]byte
	if err := s.random.fill(nonce[:]); err != nil {
		return nil, record.Errorf(record.Internal, "sign: read random bytes: %w", err)
	}
	env := s.envs.Get().(*expr.Env)
	defer func() {
		env.Reset(nil)
		s.envs.Put(env)
	}()
	e := &evaluation{env: env, now: now, nonce: nonce, signed: s.signed}
	a := &Additions{}
	work := r
	if len(s.header)+len(s.query) > 0 {
		e.see(r, s.early)
		for _, f := range s.header {
			v, err := f.value.Text(env)
			if err != nil {
				return nil, err
			}
			a.Header = append(a.Header, Field{Name: f.name, Value: v})
		}
		for _, f := range s.query {
			v, err := f.value.Text(env)
			if err != nil {
				return nil, err
			}
			a.Query = append(a.Query, Field{Name: f.name, Value: v})
		}
		work = a.Apply(r)
	}
	e.wants = s.wants
	if err := s.kind.sign(ctx, a, work, e); err != nil {
		return nil, err
	}
	for _, f := range a.Header {
		if strings.ContainsFunc(f.Value, controlRune) {
			return nil, record.Errorf(record.Schema, "sign: the value of header %s holds a line end or another control character", f.Name)
		}
	}
	return a, nil
}

// Refused tells that the partner answered 401 to a request with these
// additions. It reports whether another signature may be accepted: an access
// token was used, and it is given up for a new one. The caller makes one more
// attempt then, at once; a second 401 is final.
func (s *Signing) Refused(a *Additions) bool {
	if s.tokens == nil || a.token == nil {
		return false
	}
	s.tokens.giveUp(a.token())
	return true
}

// Do signs r and sends it, and once more with a new access token when the
// answer is 401 and a token was sent. send gets the request with its additions
// and returns the answer's status, 0 if there was none, and its verdict on it.
// Do returns what the last send returned, without credentials, or Sign's
// error.
func (s *Signing) Do(ctx context.Context, r *Request, send func(context.Context, *Request) (status int, err error)) error {
	for again := true; ; again = false {
		a, err := s.Sign(ctx, r)
		if err != nil {
			return err
		}
		status, err := send(ctx, a.Apply(r))
		if status == http.StatusUnauthorized && s.Refused(a) && again {
			continue
		}
		return s.redactError(err, a)
	}
}

// Credentials are the names of the headers and query parameters that s sends
// credentials by: their values must not be shown.
func (s *Signing) Credentials() (header, query []string) {
	switch k := s.kind.(type) {
	case *fixed:
		if k.header != "" {
			return []string{k.header}, nil
		}
		return nil, []string{k.query}
	case *tokens:
		return []string{k.cfg.Header}, nil
	case *webToken:
		return []string{k.cfg.Header}, nil
	}
	return nil, nil
}

// Redact hides secrets, and the credentials in a, in a text: a partner may
// send back what it was sent. They are found in the forms of Conceal. a may
// be nil.
func (s *Signing) Redact(text string, a *Additions) string {
	if a != nil {
		for _, f := range slices.Concat(a.Header, a.Query) {
			if f.Credential {
				text = Conceal(text, f.Value, f.Value[strings.LastIndexByte(f.Value, ' ')+1:])
			}
		}
	}
	for _, secret := range s.secrets {
		text = Conceal(text, strings.TrimRight(string(secret.bytes()), "\r\n"))
	}
	return text
}

// redactError hides credentials in an error's message. What it was caused by
// is let go of, if the message changes.
func (s *Signing) redactError(err error, a *Additions) error {
	e, ok := errors.AsType[*record.Error](err)
	if !ok {
		return err
	}
	shown := *e
	if shown.Message = s.Redact(e.Message, a); shown.Message == e.Message {
		return err
	}
	shown.Err = nil
	return &shown
}

// lockedReader serves many goroutines.
type lockedReader struct {
	mu sync.Mutex
	r  io.Reader // guarded by mu
}

func (l *lockedReader) fill(b []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := io.ReadFull(l.r, b)
	return err
}

// compiler collects what is wrong with a configuration.
type compiler struct {
	scope   expr.Scope
	sources []string
	errs    []error
}

func (c *compiler) fail(format string, args ...any) {
	c.errs = append(c.errs, record.Errorf(record.Config, "sign: "+format, args...))
}

func (c *compiler) failed(err error) { c.errs = append(c.errs, err) }
