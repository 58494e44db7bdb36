package sign

import (
	"context"
	"crypto/subtle"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/record"
)

// Verifier checks requests that others have signed with a shared key: it signs
// each as its sender should have and compares. It is safe for concurrent use
// and tells its key no more than a Signing does.
type Verifier struct {
	signing *Signing
	header  string
}

// NewVerifier checks a configuration and reads its key. It takes Signature
// alone, with an hmac-* algorithm and a Header; its texts cannot use time and
// request.nonce, which here would be ours: a sender's own time is one of its
// headers. Errors are like those of New.
func NewVerifier(cfg Config) (*Verifier, error) {
	k := cfg.Signature
	if k == nil || k.Header == "" || len(cfg.Header)+len(cfg.Query) > 0 {
		return nil, record.Errorf(record.Config, "sign: a sender's signature is checked in one header: name it, and no other fields")
	}
	if alg, ok := lookup(k.Algorithm); ok && alg.family != familyHMAC {
		return nil, record.Errorf(record.Config, "sign: %v cannot check a sender, whose private key is its own: use one of hmac-*", k.Algorithm)
	}
	for _, src := range append(slices.Clone(k.Derive), k.Canonical, k.Over, k.Value) {
		for _, w := range words.FindAllString(src, -1) {
			if w == "nonce" || w == "nonce_uuid" {
				return nil, record.Errorf(record.Config, "sign: %q: request.nonce is ours and not the sender's; use a header of the request", src)
			}
		}
	}
	s, err := New(cfg)
	if err != nil {
		return nil, err
	}
	if made := s.kind.(*signature); made.roots()&expr.Time != 0 {
		return nil, record.Errorf(record.Config, "sign: time is ours and not the sender's; use a header of the request")
	}
	return &Verifier{signing: s, header: k.Header}, nil
}

// Header is the name of the header with the signature.
func (v *Verifier) Header() string { return v.header }

// Verify checks the signature of a request with its body. The error is a
// *record.Error of class rejected that says what ails the signature and
// nothing of the one that was expected, or one of Sign's that is a fault of
// the configuration.
func (v *Verifier) Verify(ctx context.Context, r *http.Request, body []byte) error {
	got := r.Header.Values(v.header)
	if len(got) != 1 || strings.TrimSpace(got[0]) == "" {
		return record.Errorf(record.Rejected, "the request is not signed: it needs one header %s", v.header)
	}
	a, err := v.signing.Sign(ctx, received(r, body))
	if err != nil {
		if e := record.AsError(err); e.Class == record.Schema {
			return record.Errorf(record.Rejected, "the signature in header %s cannot be checked: the request lacks something that is signed", v.header)
		}
		return err
	}
	for _, f := range a.Header {
		if f.Name == v.header && subtle.ConstantTimeCompare([]byte(f.Value), []byte(strings.TrimSpace(got[0]))) == 1 {
			return nil
		}
	}
	return record.Errorf(record.Rejected, "the signature in header %s is not that of the request", v.header)
}

// roots are those that any text of the signature names.
func (s *signature) roots() expr.Roots {
	r := s.value.Roots()
	for _, t := range append(slices.Clone(s.derive), s.canonical, s.over) {
		switch {
		case t == nil:
		case t.template != nil:
			r |= t.template.Roots()
		default:
			r |= t.program.Roots()
		}
	}
	return r
}

// received is a request as its sender saw it. The scheme is the one it came
// by here.
func received(r *http.Request, body []byte) *Request {
	u := url.URL{Scheme: "http", Host: r.Host, Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
	if r.TLS != nil {
		u.Scheme = "https"
	}
	out := &Request{Method: r.Method, URL: &u, Body: body}
	for name, values := range r.Header {
		for _, value := range values {
			out.Header = append(out.Header, record.Header{Key: name, Value: []byte(value)})
		}
	}
	return out
}
