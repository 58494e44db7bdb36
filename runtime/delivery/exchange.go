package delivery

import (
	"encoding/base64"
	"net/url"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/runtime/delivery/sign"
	"github.com/millrace-io/millrace/runtime/delivery/verdict"
	"github.com/millrace-io/millrace/runtime/record"
)

// MaxShown is how much of a body, of a URL and of a message an Outcome shows.
// Of the headers of a request or an answer it shows maxHeaders in all, and of
// a value maxHeader.
const (
	MaxShown   = 4 << 10
	maxHeaders = 16 << 10
	maxHeader  = 1 << 10
)

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

// Redactor hides what a request and its answer must not show in a text, which
// is to be whole: what is cut after it cuts no secret. It serves one goroutine.
func (c *RedactConfig) Redactor(r *sign.Request) func(string) string {
	var red *redaction // most answers need none
	return func(s string) string {
		if red == nil {
			red = c.of(r)
		}
		return red.text(s)
	}
}

func (c *RedactConfig) of(r *sign.Request) *redaction {
	red := &redaction{cfg: c}
	if r == nil {
		return red
	}
	for _, h := range r.Header {
		if c.header(h.Key) {
			red.hideHeader(string(h.Value))
		}
	}
	for name, v := range params(r.URL.RawQuery) {
		if c.param(name) {
			plain, _ := url.QueryUnescape(v)
			red.values = append(red.values, v, plain)
		}
	}
	return red
}

// hideHeader hides a header's value and its parts: of `Bearer abc` the second
// is the credential, of `Basic` what it stands for, and of parameters and
// cookies those that are long.
func (r *redaction) hideHeader(v string) {
	last := v[strings.LastIndexByte(v, ' ')+1:]
	r.values = append(r.values, v, last)
	if len(v) > 6 && strings.EqualFold(v[:6], "Basic ") {
		if pair, err := base64.StdEncoding.DecodeString(last); err == nil {
			_, password, _ := strings.Cut(string(pair), ":")
			r.values = append(r.values, string(pair), password)
		}
	}
	for part := range strings.FieldsFuncSeq(v, func(c rune) bool { return c == ' ' || c == ';' || c == ',' }) {
		if _, value, _ := strings.Cut(part, "="); len(value) >= 16 {
			r.values = append(r.values, strings.Trim(value, `"`))
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
	return r.cfg.text(sign.Conceal(s, r.values...))
}

// error hides credentials in an error's message and bounds it. What it was
// caused by is let go of, if the message changes.
func (r *redaction) error(e *record.Error) *record.Error {
	if e == nil {
		return nil
	}
	message := e.Message
	if message == "" && e.Err != nil {
		message = e.Err.Error()
	}
	shown, _ := verdict.Beginning([]byte(message), MaxShown, r.text)
	if shown == message && e.Call == nil {
		return e
	}
	out := *e
	out.Call = r.call(e.Call)
	if shown != message {
		out.Message, out.Err = shown, nil
	}
	return &out
}

// exchange is a request and its answer, nil if there was none, as an entry
// shows them.
func (r *redaction) exchange(req *sign.Request, resp *verdict.Response) *record.Exchange {
	if req == nil {
		return nil
	}
	return r.shown(req, resp, MaxShown)
}

// shown is an exchange with at most so many bytes of each body.
func (r *redaction) shown(req *sign.Request, resp *verdict.Response, most int) *record.Exchange {
	x := &record.Exchange{Method: req.Method}
	var urlCut, headersCut bool
	x.URL, urlCut = verdict.Beginning([]byte(r.url(req.URL)), MaxShown, r.text)
	x.RequestHeaders, headersCut = r.headers(req.Header)
	x.RequestBody, x.RequestCut = r.body(req.Body, most)
	x.RequestCut = x.RequestCut || urlCut || headersCut
	if resp != nil {
		x.Status = resp.Status
		x.ResponseHeaders, headersCut = r.headers(resp.Header)
		x.ResponseBody, x.ResponseCut = r.body(resp.Body, most)
		x.ResponseCut = x.ResponseCut || headersCut || resp.Truncated
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

// headers are the first ones, and whether that is not all.
func (r *redaction) headers(hs []record.Header) ([]record.Header, bool) {
	out := make([]record.Header, 0, len(hs))
	size, cut := 0, false
	for _, h := range hs {
		v := hidden
		if !r.cfg.header(h.Key) {
			var short bool
			v, short = verdict.Beginning(h.Value, maxHeader, r.text)
			cut = cut || short
		}
		if size += len(h.Key) + len(v); size > maxHeaders {
			return out, true
		}
		out = append(out, record.Header{Key: h.Key, Value: []byte(v)})
	}
	return out, cut
}

// body is the beginning of a body.
func (r *redaction) body(b []byte, most int) ([]byte, bool) {
	shown, cut := verdict.Beginning(b, most, r.text)
	return []byte(shown), cut
}
