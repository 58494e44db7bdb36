package sign

import (
	"context"
	"encoding/base64"
	"regexp"
	"strings"

	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/record"
)

// Signature signs a text with a key.
type Signature struct {
	Algorithm Algorithm
	// Key is a shared key for hmac-*, else a private key.
	Key Secret
	// KeyEncoding is how a shared key is written in its secret; default Plain.
	KeyEncoding Encoding
	// KeyPrefix stands before a shared key, and Derive are texts that, one
	// after the other, are signed with the key before to give the next; the
	// last one signs. Only for hmac-*.
	KeyPrefix string
	Derive    []string

	// SignedHeaders are the headers in request.header_lines.
	SignedHeaders []string
	// Canonical is a text that Over may name, and its digests; "" for none.
	Canonical string
	// Over is what is signed: a template if there is a ${ in it, else an
	// expression. The body itself is `request.body`.
	Over string

	// Encoding is how the signature is written; default Base64.
	Encoding Encoding
	// Header or Query is the name that the signature is sent by; one of them
	// is set.
	Header, Query string
	// Value is the text that is sent; "" is ${request.signature}.
	Value string
}

// text is a compiled Canonical or Over.
type text struct {
	template *expr.Template
	program  *expr.Program
	// body: it is request.body and nothing else.
	body bool
}

func (t *text) append(b []byte, e *expr.Env) ([]byte, error) {
	if t.template != nil {
		return t.template.Append(b, e)
	}
	s, err := t.program.Text(e)
	return append(b, s...), err
}

// inner finds the expressions of a template, well enough to look for names.
var inner = regexp.MustCompile(`\$\{[^}]*\}`)

// template compiles a text; nil after a failure.
func (c *compiler) template(what, src string) *expr.Template {
	t, err := expr.CompileTemplate(src, c.scope)
	if err != nil {
		c.fail("%s: %w", what, err)
		return nil
	}
	if t.Roots()&expr.Request != 0 {
		if err := checkFields(strings.Join(inner.FindAllString(src, -1), " ")); err != nil {
			c.fail("%s: %w", what, err)
			return nil
		}
	}
	c.sources = append(c.sources, src)
	return t
}

// text compiles a template or an expression; nil after a failure.
func (c *compiler) text(what, src string) *text {
	if strings.Contains(src, "${") {
		t := c.template(what, src)
		if t == nil {
			return nil
		}
		p := t.Single()
		return &text{template: t, body: p != nil && strings.TrimSpace(p.Source()) == "request.body"}
	}
	p, err := expr.Compile(src, c.scope)
	if err == nil {
		err = checkFields(src)
	}
	if err != nil {
		c.fail("%s: %w", what, err)
		return nil
	}
	c.sources = append(c.sources, src)
	return &text{program: p, body: strings.TrimSpace(src) == "request.body"}
}

func (c *compiler) fields(what string, in []Named) []named {
	var out []named
	for _, f := range in {
		c.name(what, f.Name)
		if t := c.template(what+" "+f.Name, f.Value); t != nil {
			out = append(out, named{f.Name, t})
		}
	}
	return out
}

// name checks the name of a header or a parameter.
func (c *compiler) name(what, name string) {
	if name == "" {
		c.fail("a %s without a name: give it one", what)
	} else if what == "header" && strings.ContainsFunc(name, func(r rune) bool { return !tokenRune(r) }) {
		c.fail("%q is no name of a header: use letters, digits and -", name)
	}
}

// tokenRune reports whether a header's name may hold r (RFC 9110, token).
func tokenRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}

// place checks that a value goes into a header or a parameter.
func (c *compiler) place(what, header, query string) {
	switch {
	case header == "" && query == "" || header != "" && query != "":
		c.fail("%s: name one header or one query parameter to send it by", what)
	case header != "":
		c.name("header", header)
	default:
		c.name("query parameter", query)
	}
}

// put adds a value where the configuration wants it.
func put(a *Additions, header, query, value string, credential bool) {
	if header != "" {
		a.Header = append(a.Header, Field{Name: header, Value: value, Credential: credential})
	} else {
		a.Query = append(a.Query, Field{Name: query, Value: value, Credential: credential})
	}
}

type signature struct {
	cfg       Signature
	alg       algorithm
	key       *Key
	derive    []*text
	canonical *text
	over      *text
	value     *expr.Template
}

func (c *compiler) signature(cfg *Signature) kind {
	s := &signature{cfg: *cfg}
	c.place("signature", cfg.Header, cfg.Query)
	if cfg.Encoding >= numEncodings || cfg.Encoding == Plain {
		c.fail("a signature cannot be written as %v: use base64, base64url, base64url_padded, hex or hex_upper", cfg.Encoding)
	}
	var ok bool
	if s.alg, ok = lookup(cfg.Algorithm); !ok {
		c.fail("%v is unknown: use one of %s", cfg.Algorithm, strings.Join(AlgorithmNames(), ", "))
		return s
	}
	var err error
	if s.alg.family == familyHMAC {
		s.key, err = SharedKey(cfg.Key, cfg.KeyEncoding)
	} else {
		s.key, err = PrivateKey(cfg.Key)
		if cfg.KeyPrefix != "" || len(cfg.Derive) > 0 {
			c.fail("keys are derived for hmac-* only: leave the prefix and the derivation out")
		}
	}
	if err == nil {
		err = s.key.Admits(cfg.Algorithm)
	}
	if err != nil {
		c.failed(err)
	} else if cfg.KeyPrefix != "" {
		s.key = sharedKey(s.key.name, append([]byte(cfg.KeyPrefix), s.key.material().([]byte)...))
	}
	for _, d := range cfg.Derive {
		s.derive = append(s.derive, c.text("derive", d))
	}
	if cfg.Canonical != "" {
		s.canonical = c.text("canonical", cfg.Canonical)
	}
	if cfg.Over == "" {
		c.fail("nothing to sign: say what the signature is over, such as request.body")
	} else {
		s.over = c.text("over", cfg.Over)
	}
	value := cfg.Value
	if value == "" {
		value = "${request.signature}"
	}
	s.value = c.template("value", value)
	return s
}

func (s *signature) sign(_ context.Context, a *Additions, r *Request, e *evaluation) error {
	message := r.Body
	e.see(r, e.wants)
	if s.canonical != nil {
		b, err := s.canonical.append(nil, e.env)
		if err != nil {
			return err
		}
		e.fields["canonical"] = string(b)
		e.digests(e.fields, "canonical", b)
	}
	if !s.over.body {
		var err error
		if message, err = s.over.append(nil, e.env); err != nil {
			return err
		}
	}
	key := s.key
	for _, d := range s.derive {
		t, err := d.append(nil, e.env)
		if err != nil {
			return err
		}
		next, err := key.sign(s.alg, t)
		if err != nil {
			return record.Errorf(record.Config, "sign: secret %q: %w", s.key.name, err)
		}
		key = sharedKey(s.key.name, next)
	}
	sig, err := key.sign(s.alg, message)
	if err != nil {
		return record.Errorf(record.Config, "sign: secret %q: %w", s.key.name, err)
	}
	encoding := s.cfg.Encoding
	if encoding == DefaultEncoding {
		encoding = Base64
	}
	e.fields["signature"] = encoding.encode(sig)
	value, err := s.value.Text(e.env)
	if err != nil {
		return err
	}
	put(a, s.cfg.Header, s.cfg.Query, value, false)
	return nil
}

// fixed is a credential that is the same for every request.
type fixed struct {
	header, query string
	value         func() string // a function, so that it is not printed
}

func (f *fixed) sign(_ context.Context, a *Additions, _ *Request, _ *evaluation) error {
	put(a, f.header, f.query, f.value(), true)
	return nil
}

// credential is a secret that is sent as it is; "" after a failure.
func (c *compiler) credential(s Secret) string {
	v := strings.TrimRight(string(s.bytes()), "\r\n")
	switch {
	case v == "":
		c.fail("secret %q is empty: write its value to it", s.name)
	case strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r == 0x7f }):
		c.fail("secret %q holds a line end or another control character: write its value alone, in one line", s.name)
		return ""
	}
	return v
}

func (c *compiler) apiKey(cfg *APIKey) kind {
	c.place("api key", cfg.Header, cfg.Query)
	value := cfg.Prefix + c.credential(cfg.Key)
	return &fixed{cfg.Header, cfg.Query, func() string { return value }}
}

func (c *compiler) basic(cfg *Basic) kind {
	if cfg.User == "" || strings.ContainsFunc(cfg.User, func(r rune) bool { return r == ':' || r < ' ' || r == 0x7f }) {
		c.fail("basic: %q cannot be a user: it must not be empty nor hold a colon or a control character", cfg.User)
	}
	value := "Basic " + base64.StdEncoding.EncodeToString([]byte(cfg.User+":"+c.credential(cfg.Password)))
	return &fixed{"Authorization", "", func() string { return value }}
}
