package delivery

import (
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/millrace-io/millrace/runtime/delivery/sign"
	"github.com/millrace-io/millrace/runtime/delivery/verdict"
	"github.com/millrace-io/millrace/runtime/record"
)

// MaxShown is how much of a body an Outcome's Exchange shows.
const MaxShown = 4 << 10

// RedactConfig says what is not shown of requests and answers, beside the
// values of headers and parameters whose names speak for themselves
// (Authorization, Cookie, and what is called a token, secret, password, api
// key, credential or, in a query, key or signature). The zero value adds
// nothing.
type RedactConfig struct {
	// Headers and Query are further names, in any case.
	Headers, Query []string
	// Text hides secrets in a text: the beginning of a body, the value of a
	// header, a message. nil: there are none.
	Text func(string) string
}

const hidden = "***"

// header reports whether the value of a header is hidden, param whether that
// of a parameter is.
func (c *RedactConfig) header(name string) bool {
	name = strings.ToLower(name)
	for _, word := range []string{"authorization", "cookie", "token", "secret", "password", "api-key", "apikey", "credential"} {
		if strings.Contains(name, word) {
			return true
		}
	}
	return slices.ContainsFunc(c.Headers, func(n string) bool { return strings.EqualFold(n, name) })
}

func (c *RedactConfig) param(name string) bool {
	name = strings.ToLower(name)
	for _, word := range []string{"token", "secret", "password", "api_key", "api-key", "apikey", "access_key", "credential", "signature"} {
		if strings.Contains(name, word) {
			return true
		}
	}
	return name == "key" || name == "sig" || slices.ContainsFunc(c.Query, func(n string) bool { return strings.EqualFold(n, name) })
}

func (c *RedactConfig) text(s string) string {
	if c.Text == nil {
		return s
	}
	return c.Text(s)
}

// redaction hides what one request must not show.
type redaction struct {
	cfg    *RedactConfig
	values []string // of the request's credentials; a partner may send them back
}

func (c *RedactConfig) of(r *sign.Request) *redaction {
	red := &redaction{cfg: c}
	if r == nil {
		return red
	}
	for _, h := range r.Header {
		if v := string(h.Value); c.header(h.Key) {
			// Of `Bearer abc` the second part is the credential.
			red.hide(v, v[strings.LastIndexByte(v, ' ')+1:])
		}
	}
	for name, v := range params(r.URL.RawQuery) {
		if c.param(name) {
			plain, _ := url.QueryUnescape(v)
			red.hide(v, plain)
		}
	}
	return red
}

func (r *redaction) hide(values ...string) {
	for _, v := range values {
		if len(v) >= 4 { // shorter ones cannot be told from other text
			r.values = append(r.values, v)
		}
	}
}

// params yields the parameters of a query as they are sent.
func params(query string) func(yield func(name, value string) bool) {
	return func(yield func(string, string) bool) {
		for part := range strings.SplitSeq(query, "&") {
			name, value, _ := strings.Cut(part, "=")
			if plain, err := url.QueryUnescape(name); err == nil {
				name = plain
			}
			if part != "" && !yield(name, value) {
				return
			}
		}
	}
}

func (r *redaction) text(s string) string {
	for _, v := range r.values {
		s = strings.ReplaceAll(s, v, hidden)
	}
	return r.cfg.text(s)
}

// error hides credentials in an error's message. What it was caused by is let
// go of, if the message changes.
func (r *redaction) error(e *record.Error) *record.Error {
	if e == nil {
		return nil
	}
	message := e.Message
	if message == "" && e.Err != nil {
		message = e.Err.Error()
	}
	shown := r.text(message)
	if shown == message {
		return e
	}
	out := *e
	out.Message, out.Err = shown, nil
	return &out
}

// exchange is a request and its answer, nil if there was none, as an entry
// shows them.
func (r *redaction) exchange(req *sign.Request, resp *verdict.Response) *record.Exchange {
	if req == nil {
		return nil
	}
	x := &record.Exchange{Method: req.Method, URL: r.text(r.url(req.URL)), RequestHeaders: r.headers(req.Header)}
	x.RequestBody, x.RequestCut = r.body(req.Body)
	if resp != nil {
		x.Status, x.ResponseHeaders = resp.Status, r.headers(resp.Header)
		x.ResponseBody, x.ResponseCut = r.body(resp.Body)
		x.ResponseCut = x.ResponseCut || resp.Truncated
	}
	return x
}

func (r *redaction) url(u *url.URL) string {
	var query strings.Builder
	for part := range strings.SplitSeq(u.RawQuery, "&") {
		if query.Len() > 0 {
			query.WriteByte('&')
		}
		name, _, valued := strings.Cut(part, "=")
		if plain, _ := url.QueryUnescape(name); valued && r.cfg.param(plain) {
			part = name + "=" + hidden
		}
		query.WriteString(part)
	}
	s := target(u)
	if query.Len() > 0 {
		s += "?" + query.String()
	}
	return s
}

// target names a URL without its query.
func target(u *url.URL) string { return u.Scheme + "://" + u.Host + u.EscapedPath() }

func (r *redaction) headers(hs []record.Header) []record.Header {
	out := make([]record.Header, 0, len(hs))
	for _, h := range hs {
		v := hidden
		if !r.cfg.header(h.Key) {
			v = r.text(string(h.Value))
		}
		out = append(out, record.Header{Key: h.Key, Value: []byte(v)})
	}
	return out
}

// body is the beginning of a body. Somewhat more is looked through than is
// shown, so that no part of a secret stands at its end.
func (r *redaction) body(b []byte) ([]byte, bool) {
	cut := len(b) > MaxShown
	shown := []byte(r.text(string(b[:min(len(b), 2*MaxShown)])))
	if len(shown) > MaxShown {
		shown, cut = shown[:MaxShown], true
		for i := 1; i < utf8.UTFMax && i < len(shown); i++ { // a character that was cut
			if c := shown[len(shown)-i]; utf8.RuneStart(c) {
				if !utf8.FullRune(shown[len(shown)-i:]) {
					shown = shown[:len(shown)-i]
				}
				break
			}
		}
	}
	return shown, cut
}
