package sign

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
)

// Defaults of OAuth2.
const (
	DefaultTokenMargin  = 30 * time.Second
	DefaultTokenTimeout = 10 * time.Second
)

// maxTokenAnswer is how much of a token endpoint's answer is read.
const maxTokenAnswer = 64 << 10

// OAuth2 sends an access token that is had for client credentials (RFC 6749
// section 4.4). One token serves all requests until Margin before it expires
// or until it is refused; one request for a token is under way at a time.
type OAuth2 struct {
	TokenURL     string
	ClientID     string
	ClientSecret Secret
	Scopes       []string
	// Params are further parameters of the token request, such as audience.
	Params []Named
	// InBody sends client id and secret in the body instead of as Basic.
	InBody bool
	// Margin is how long before its end a token is replaced; while it is
	// valid and a new one cannot be had, it is used on. 0 is
	// DefaultTokenMargin. It is at most a quarter of the token's lifetime.
	Margin time.Duration
	// Timeout of a token request; 0 is DefaultTokenTimeout.
	Timeout time.Duration
	// Header is the name that the token is sent by; "" is Authorization.
	Header string
}

// tokens keeps the access token.
type tokens struct {
	cfg    OAuth2
	target string // of the endpoint, as messages name it
	form   string // the body without credentials; it is no secret
	doer   Doer
	now    func() time.Time

	mu     sync.Mutex
	token  token   // guarded by mu
	flight *flight // under way, or nil; guarded by mu
}

// token is an access token; its value is a function so that it is not printed.
type token struct {
	value   func() string
	renewAt time.Time // zero: never
	expires time.Time // zero: not said
}

// flight is one request for a token, and those who wait for it.
type flight struct {
	done  chan struct{} // closed when token and err are set
	token token
	err   error
}

func (c *compiler) oauth2(cfg *OAuth2, doer Doer, now func() time.Time) *tokens {
	t := &tokens{cfg: *cfg, doer: doer, now: now}
	if t.doer == nil {
		t.doer = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	if t.cfg.Header == "" {
		t.cfg.Header = "Authorization"
	}
	c.name("header", t.cfg.Header)
	if t.cfg.Margin == 0 {
		t.cfg.Margin = DefaultTokenMargin
	}
	if t.cfg.Timeout == 0 {
		t.cfg.Timeout = DefaultTokenTimeout
	}
	if t.cfg.Margin < 0 || t.cfg.Timeout < 0 {
		c.fail("oauth2: a negative margin or timeout: leave it out or give one above 0")
	}
	u, err := url.Parse(cfg.TokenURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		c.fail("oauth2: the token URL is no http:// or https:// URL without a user: correct it")
	} else {
		t.target = u.Scheme + "://" + u.Host + u.EscapedPath()
	}
	if cfg.ClientID == "" {
		c.fail("oauth2: no client id: set the one that the partner gave")
	}
	c.credential(cfg.ClientSecret)
	form := url.Values{"grant_type": {"client_credentials"}}
	if len(cfg.Scopes) > 0 {
		form.Set("scope", strings.Join(cfg.Scopes, " "))
	}
	for _, p := range cfg.Params {
		c.name("token parameter", p.Name)
		if tmpl := c.template("token parameter "+p.Name, p.Value); tmpl != nil {
			v, ok := tmpl.Static()
			if !ok {
				c.fail("oauth2: token parameter %s: a token serves many requests: use vars and env only", p.Name)
			}
			form.Set(p.Name, v)
		}
	}
	t.form = form.Encode()
	return t
}

func (t *tokens) sign(ctx context.Context, a *Additions, _ *Request, _ *evaluation) error {
	value, err := t.current(ctx)
	if err != nil {
		return err
	}
	a.token = func() string { return value }
	a.Header = append(a.Header, Field{Name: t.cfg.Header, Value: "Bearer " + value, Credential: true})
	return nil
}

// current is a valid token. It blocks for a new one only when there is none.
func (t *tokens) current(ctx context.Context) (string, error) {
	for {
		now := t.now()
		t.mu.Lock()
		have := t.token
		valid := have.value != nil && (have.expires.IsZero() || now.Before(have.expires))
		if valid && (have.renewAt.IsZero() || now.Before(have.renewAt) || t.flight != nil) {
			t.mu.Unlock()
			return have.value(), nil
		}
		f := t.flight
		mine := f == nil
		if mine {
			f = &flight{done: make(chan struct{})}
			t.flight = f
		}
		t.mu.Unlock()
		if mine {
			t.fly(ctx, f)
		} else {
			select {
			case <-f.done:
			case <-ctx.Done():
				return "", fmt.Errorf("sign: wait for a token: %w", context.Canceled)
			}
		}
		switch {
		case f.err == nil:
			return f.token.value(), nil
		case mine && valid && ctx.Err() == nil:
			return have.value(), nil
		case !mine && errors.Is(f.err, context.Canceled) && ctx.Err() == nil:
			continue // who asked for it has gone; ask ourselves
		}
		return "", f.err
	}
}

// fly gets a token and tells those who wait.
func (t *tokens) fly(ctx context.Context, f *flight) {
	f.err = record.Errorf(record.Internal, "sign: the request for a token did not end")
	defer func() {
		t.mu.Lock()
		t.flight = nil
		switch {
		case f.err == nil:
			t.token = f.token
		case t.token.value != nil:
			// The old token is used on; the next try is not at once.
			t.token.renewAt = t.now().Add(t.cfg.Margin / 10)
		}
		t.mu.Unlock()
		close(f.done)
	}()
	f.token, f.err = t.fetch(ctx)
}

// giveUp forgets a token, unless it was replaced already.
func (t *tokens) giveUp(value string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.token.value != nil && t.token.value() == value {
		t.token = token{}
	}
}

// fetch asks the endpoint once.
func (t *tokens) fetch(ctx context.Context) (token, error) {
	what := "sign: token of client " + strconv.Quote(t.cfg.ClientID) + " from " + t.target
	asking, cancel := context.WithTimeoutCause(ctx, t.cfg.Timeout, errTokenTimeout)
	defer cancel()
	secret := strings.TrimRight(string(t.cfg.ClientSecret.bytes()), "\r\n")
	body := t.form
	if t.cfg.InBody {
		body += "&client_id=" + url.QueryEscape(t.cfg.ClientID) + "&client_secret=" + url.QueryEscape(secret)
	}
	hr, err := http.NewRequestWithContext(asking, http.MethodPost, t.cfg.TokenURL, strings.NewReader(body))
	if err != nil {
		return token{}, record.Errorf(record.Config, "%s: the URL cannot be used: correct it", what)
	}
	hr.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	hr.Header.Set("Accept", "application/json")
	hr.Header.Set("User-Agent", "millrace")
	if !t.cfg.InBody {
		hr.SetBasicAuth(url.QueryEscape(t.cfg.ClientID), url.QueryEscape(secret))
	}
	begun := t.now()
	status, header, answer, err := t.ask(hr)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return token{}, fmt.Errorf("%s: %w", what, context.Canceled)
	case errors.Is(context.Cause(asking), errTokenTimeout):
		return token{}, record.Errorf(record.Timeout, "%s: no answer within %s", what, t.cfg.Timeout)
	default:
		return token{}, record.Errorf(record.Retryable, "%s: %s", what, Conceal(err.Error(), secret))
	}
	if status < 200 || status > 299 {
		return token{}, t.refusal(what, status, header, answer)
	}
	return t.read(what, begun, answer)
}

var errTokenTimeout = errors.New("timeout")

func (t *tokens) ask(hr *http.Request) (int, http.Header, []byte, error) {
	resp, err := t.doer.Do(hr)
	if err != nil {
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err // the URL is in the message already
		}
		return 0, nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenAnswer))
	if err != nil {
		return 0, nil, nil, fmt.Errorf("read the answer: %w", err)
	}
	return resp.StatusCode, resp.Header, answer, nil
}

// refusal is the error of a status that is no success. Of the body only the
// fields of RFC 6749 section 5.2 are told.
func (t *tokens) refusal(what string, status int, header http.Header, answer []byte) error {
	said := ""
	var problem struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if json.Unmarshal(answer, &problem) == nil && problem.Error != "" {
		secret := strings.TrimRight(string(t.cfg.ClientSecret.bytes()), "\r\n")
		said = ": " + printable(Conceal(problem.Error, secret))
		if problem.Description != "" {
			said += ": " + printable(Conceal(problem.Description, secret))
		}
	}
	e := &record.Error{Class: record.Config, Code: uint32(status), Message: fmt.Sprintf("%s: status %d%s", what, status, said)}
	if status == http.StatusRequestTimeout || status == http.StatusTooManyRequests || status >= 500 {
		e.Class = record.Retryable
		if n, err := strconv.ParseUint(header.Get("Retry-After"), 10, 16); err == nil {
			e.RetryAfter = time.Duration(n) * time.Second
		}
		return e
	}
	e.Message += fmt.Sprintf(": correct the token URL, the client id or secret %q", t.cfg.ClientSecret.name)
	return e
}

// printable is the beginning of a text in one line.
func printable(s string) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "\uFFFD")), " ")
	if r := []rune(s); len(r) > 200 {
		s = string(r[:200])
	}
	return s
}

// read reads the token out of an answer.
func (t *tokens) read(what string, begun time.Time, answer []byte) (token, error) {
	var a struct {
		AccessToken string          `json:"access_token"`
		TokenType   string          `json:"token_type"`
		ExpiresIn   json.RawMessage `json:"expires_in"`
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return token{}, record.Errorf(record.Retryable, "%s: the answer is not the JSON of a token", what)
	}
	switch {
	case a.AccessToken == "":
		return token{}, record.Errorf(record.Retryable, "%s: the answer holds no access_token", what)
	case strings.ContainsFunc(a.AccessToken, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return token{}, record.Errorf(record.Retryable, "%s: the access_token cannot stand in a header", what)
	case a.TokenType != "" && !strings.EqualFold(a.TokenType, "bearer"):
		return token{}, record.Errorf(record.Config, "%s: a token of type %q: only bearer tokens are sent; ask the partner for those", what, printable(a.TokenType))
	}
	out := token{value: func() string { return a.AccessToken }}
	if text := string(bytes.Trim(a.ExpiresIn, `" `)); text != "" && text != "null" {
		seconds, err := strconv.ParseFloat(text, 64)
		if err != nil || seconds != seconds || seconds < 0 {
			return token{}, record.Errorf(record.Retryable, "%s: expires_in is no number of seconds", what)
		}
		// Longer than a year is a year.
		lifetime := time.Duration(min(seconds, 365*24*3600) * float64(time.Second))
		out.expires = begun.Add(lifetime)
		out.renewAt = out.expires.Add(-min(t.cfg.Margin, lifetime/4))
	}
	return out, nil
}
