package sign

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace-io/millrace/runtime/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 11, 1, 12, 0, 0, 123e6, time.UTC)

// counter gives 0, 1, 2, ... as bytes.
type counter struct{ next byte }

func (c *counter) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = c.next
		c.next++
	}
	return len(b), nil
}

func signing(t *testing.T, cfg Config) *Signing {
	t.Helper()
	if cfg.Now == nil {
		cfg.Now = func() time.Time { return noon }
	}
	if cfg.Random == nil {
		cfg.Random = &counter{}
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func request(t *testing.T, method, rawURL, body string, header ...string) *Request {
	t.Helper()
	u, err := url.Parse(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	r := &Request{Method: method, URL: u, Body: []byte(body)}
	for i := 0; i < len(header); i += 2 {
		r.Header = append(r.Header, record.Header{Key: header[i], Value: []byte(header[i+1])})
	}
	return r
}

// over is what a text gives for a request; HMAC stays out of it.
func over(t *testing.T, cfg Config, text string, r *Request) (string, error) {
	t.Helper()
	cfg.Signature = &Signature{Algorithm: HMACSHA256, Key: NewSecret("k", []byte("key")), Canonical: "c:${request.method}", Over: "request.body", Header: "X-Sign", Value: text,
		SignedHeaders: []string{"X-B", "x-a", "Host"}}
	a, err := signing(t, cfg).Sign(t.Context(), r)
	if err != nil {
		return "", err
	}
	return a.Header[len(a.Header)-1].Value, nil
}

func TestFields(t *testing.T) {
	r := request(t, "PUT", "https://Partner.example:8443/a%2Fb/%C3%BC%20x/~y?b=2&a=3&a=1%201&c&d=%2F+%7E", "hello", "X-A", " one  two ", "x-b", "1", "X-B", "2", "Content-Type", "text/plain")
	bare := request(t, "GET", "http://h", "")
	for _, tc := range []struct {
		text string
		r    *Request
		want string
	}{
		{"${request.method} ${request.scheme} ${request.host}", r, "PUT https Partner.example:8443"},
		{"${request.url}", r, r.URL.String()},
		{"${request.path}", r, "/a%2Fb/%C3%BC%20x/~y"},
		{"${request.path_decoded}", r, "/a/b/ü x/~y"},
		{"${request.path_encoded}", r, "/a/b/%C3%BC%20x/~y"},
		{"${request.path_encoded_twice}", r, "/a%252Fb/%25C3%25BC%2520x/~y"},
		{"${request.query}", r, "b=2&a=3&a=1%201&c&d=%2F+%7E"},
		{"${request.query_sorted}", r, "a=1%201&a=3&b=2&c&d=%2F+%7E"},
		{"${request.query_encoded}", r, "a=1%201&a=3&b=2&c=&d=%2F%20~"},
		{"${request.query_form}", r, "a=1+1&a=3&b=2&c=&d=%2F+~"},
		{"${request.query_decoded}", r, "a=1 1&a=3&b=2&c=&d=/ ~"},
		{"${request.params.a} ${request.params.d}", r, "3 / ~"},
		{`${request.headers["X-A"]}|${request.headers["x-a"]}|${request.headers["x-b"]}|${request.headers["X-B"]}`, r, "one  two|one  two|1,2|1,2"},
		{"${replace(request.header_lines, \"\\n\", \"|\")}", r, "host:Partner.example:8443|x-a:one two|x-b:1,2|"},
		{"${request.header_names}", r, "host;x-a;x-b"},
		{"${request.body}", r, "hello"},
		{"${request.body_md5}", r, "5d41402abc4b2a76b9719d911017c592"},
		{"${request.body_md5_base64}", r, "XUFAKrxLKna5cZ2REBfFkg=="},
		{"${request.body_sha1}", r, "aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d"},
		{"${request.body_sha256}", r, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"},
		{"${request.body_sha256_base64}", r, "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="},
		{"${request.body_sha512_base64 != request.body_sha384_base64}", r, "true"},
		{"${time.Unix()} ${time.UnixMilli()} ${time}", r, "1793534400 1793534400123 2026-11-01T12:00:00.123Z"},
		{"${request.nonce}", r, "000102030405060708090a0b0c0d0e0f"},
		{"${request.nonce_uuid}", r, "00010203-0405-4607-8809-0a0b0c0d0e0f"},
		{"${request.canonical} ${request.canonical_md5}", r, "c:PUT a004254ce920562fce16aa3bf7a10290"},
		{"${request.path} ${request.path_decoded} [${request.query}][${request.query_sorted}][${request.query_encoded}] ${request.host}", bare, "/ / [][][] h"},
		{"$${request.body} in vars: ${vars.v}, env: ${env.E}", r, "${request.body} in vars: 1, env: e"},
	} {
		t.Run(tc.text, func(t *testing.T) {
			got, err := over(t, Config{Vars: map[string]any{"v": 1}, Env: map[string]string{"E": "e"}}, tc.text, tc.r)
			if err != nil || got != tc.want {
				t.Errorf("got  %s, %v\nwant %s", got, err, tc.want)
			}
		})
	}
	t.Run("a header that is not there", func(t *testing.T) {
		for _, text := range []string{`${request.headers["x-date"]}`, `${replace(request.header_lines, "\n", "|")}`} {
			_, err := over(t, Config{}, text, bare)
			if e := record.AsError(err); e == nil || e.Class != record.Schema {
				t.Errorf("%s: got %v, want class schema", text, err)
			}
		}
	})
	t.Run("a Host header", func(t *testing.T) {
		got, err := over(t, Config{}, "${request.host}", request(t, "GET", "http://127.0.0.1:1/", "", "Host", "partner.example"))
		if err != nil || got != "partner.example" {
			t.Errorf("got %s, %v", got, err)
		}
	})
}

// A canonical text as partners write it: a line each, a timestamp and a nonce
// that are sent as headers, the parameters in order, the body's digest.
const partnerText = "${request.method}\n${request.path}\n${request.query_encoded}\n${request.headers[\"x-timestamp\"]}\n${request.headers[\"x-nonce\"]}\n${request.body_sha256}"

func partner(query bool) Config {
	cfg := Config{
		Header: []Named{{"X-Timestamp", "${time.Unix()}"}, {"X-Nonce", "${request.nonce}"}},
		Signature: &Signature{Algorithm: HMACSHA256, Key: NewSecret("partner/hmac", []byte("s3cret-of-the-partner")), Over: partnerText, Encoding: Hex,
			Header: "X-Sign", Value: "keyId=acme,signature=${request.signature}"},
	}
	if query {
		cfg.Query = []Named{{"access_id", "acme/1 2"}}
		cfg.Signature.Header, cfg.Signature.Query, cfg.Signature.Value = "", "sign", ""
		cfg.Signature.Encoding = Base64
	}
	return cfg
}

// TestBytesOnTheWire sends what was signed and lets the other side make the
// text of what it received.
func TestBytesOnTheWire(t *testing.T) {
	bodies := []string{"", "{}", `{"a":"ü  ","b":[1,2]}` + "\r\n", strings.Repeat("x", 1<<20), "\x00\xff\xfe not UTF-8"}
	paths := []string{"", "/", "/v2/orders", "/a%2Fb//c%20d/ü?x=1&x=0&empty&y=a%2Fb+c&%C3%BC=~", "/p?"}
	for _, query := range []bool{false, true} {
		t.Run(fmt.Sprint("query=", query), func(t *testing.T) {
			var problem string
			seen := map[string]bool{}
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					problem = err.Error()
					return
				}
				raw, sent := r.URL.RawQuery, ""
				if query {
					i := strings.LastIndex(raw, "sign=")
					sent, err = url.QueryUnescape(strings.ReplaceAll(raw[i+5:], "+", "%2B"))
					raw = strings.TrimSuffix(raw[:i], "&")
				} else {
					sent = strings.TrimPrefix(r.Header.Get("X-Sign"), "keyId=acme,signature=")
				}
				path, _, _ := strings.Cut(r.RequestURI, "?")
				digest := sha256.Sum256(body)
				text := strings.Join([]string{r.Method, path, joinParameters(parameters(raw), escape), r.Header.Get("X-Timestamp"), r.Header.Get("X-Nonce"), hex.EncodeToString(digest[:])}, "\n")
				m := hmac.New(sha256.New, []byte("s3cret-of-the-partner"))
				m.Write([]byte(text))
				want := hex.EncodeToString(m.Sum(nil))
				if query {
					want = base64.StdEncoding.EncodeToString(m.Sum(nil))
				}
				if sent != want || err != nil {
					problem = fmt.Sprintf("got signature %q, want %q (%v) over\n%.300s", sent, want, err, text)
				}
				if seen[r.Header.Get("X-Nonce")] {
					problem = "a nonce was used twice"
				}
				seen[r.Header.Get("X-Nonce")] = true
			}))
			defer srv.Close()
			cfg := partner(query)
			cfg.Now, cfg.Random = time.Now, rand.Reader
			s := signing(t, cfg)
			for _, path := range paths {
				for _, body := range bodies {
					r := request(t, "POST", srv.URL+path, body, "Content-Type", "application/json")
					before := *r.URL
					for range 2 { // an attempt, and another
						problem = ""
						err := s.Do(t.Context(), r, func(ctx context.Context, signed *Request) (int, error) {
							if !bytes.Equal(signed.Body, []byte(body)) || len(body) > 0 && &signed.Body[0] != &r.Body[0] {
								t.Error("the body is another one")
							}
							return send(ctx, srv.Client(), signed)
						})
						if err != nil || problem != "" {
							t.Fatalf("%q %.20q: %v %s", path, body, err, problem)
						}
					}
					if len(r.Header) != 1 || *r.URL != before {
						t.Fatalf("the request was changed: %v %v", r.Header, r.URL)
					}
				}
			}
		})
	}
}

func send(ctx context.Context, c *http.Client, r *Request) (int, error) {
	hr, err := http.NewRequestWithContext(ctx, r.Method, r.URL.String(), bytes.NewReader(r.Body))
	if err != nil {
		return 0, err
	}
	for _, h := range r.Header {
		hr.Header.Add(h.Key, string(h.Value))
	}
	resp, err := c.Do(hr)
	if err != nil {
		return 0, err
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, resp.Body.Close()
}

func TestTheBodyItselfIsBytes(t *testing.T) {
	body := "\x00\xff\xfe not UTF-8" + strings.Repeat("x", 1<<20)
	m := hmac.New(sha256.New, []byte("key"))
	m.Write([]byte(body))
	want := base64.StdEncoding.EncodeToString(m.Sum(nil))
	for _, over := range []string{"request.body", "${request.body}", "${ request.body }"} {
		s := signing(t, Config{Signature: &Signature{Algorithm: HMACSHA256, Key: NewSecret("k", []byte("key")), Over: over, Header: "X-Sign"}})
		a, err := s.Sign(t.Context(), request(t, "POST", "https://h/", body))
		if err != nil || a.Header[0].Value != want {
			t.Errorf("over %s: got %v, %v; want %s", over, a, err, want)
		}
	}
}

func TestFreshTimeAndNonce(t *testing.T) {
	now := noon
	cfg := partner(false)
	cfg.Now = func() time.Time { return now }
	s := signing(t, cfg)
	r := request(t, "POST", "https://partner.example/v2", "b")
	var got []string
	for range 2 {
		a, err := s.Sign(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(a.Header))
		now = now.Add(time.Minute)
	}
	want := []string{
		"[X-Timestamp: 1793534400 X-Nonce: 000102030405060708090a0b0c0d0e0f X-Sign: keyId=acme,signature=",
		"[X-Timestamp: 1793534460 X-Nonce: 101112131415161718191a1b1c1d1e1f X-Sign: keyId=acme,signature=",
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("attempt %d: got %s, want %s...", i+1, got[i], want[i])
		}
	}
	if got[0][len(want[0]):] == got[1][len(want[1]):] {
		t.Error("both attempts have one signature")
	}
}

func TestManySignAtOnce(t *testing.T) {
	s := signing(t, partner(false))
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			r := request(t, "POST", fmt.Sprint("https://h/p", g, "?q=", g), fmt.Sprint("body ", g))
			for range 50 {
				a, err := s.Sign(t.Context(), r)
				if err != nil {
					t.Error(err)
					return
				}
				digest := sha256.Sum256(r.Body)
				m := hmac.New(sha256.New, []byte("s3cret-of-the-partner"))
				fmt.Fprintf(m, "POST\n/p%d\nq=%d\n%s\n%s\n%x", g, g, a.Header[0].Value, a.Header[1].Value, digest)
				if want := fmt.Sprintf("keyId=acme,signature=%x", m.Sum(nil)); a.Header[2].Value != want {
					t.Errorf("got %s, want %s", a.Header[2].Value, want)
				}
			}
		})
	}
	wg.Wait()
}

func TestAdditionsReplaceHeaders(t *testing.T) {
	s := signing(t, Config{Basic: &Basic{User: "Aladdin", Password: NewSecret("p", []byte("open sesame"))}})
	r := request(t, "GET", "http://h/", "", "authorization", "mine", "X", "1", "Authorization", "too")
	a, err := s.Sign(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, h := range a.Apply(r).Header {
		got = append(got, h.Key+"="+string(h.Value))
	}
	if fmt.Sprint(got) != "[X=1 Authorization=Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==]" { // RFC 7617 section 2
		t.Errorf("got %v", got)
	}
	if got := fmt.Sprintf("%s", r.Header); got != "[{authorization mine} {X 1} {Authorization too}]" {
		t.Errorf("the request was changed: %s", got)
	}
	if h, q := a.Credentials(); fmt.Sprint(h, q) != "[Authorization] []" {
		t.Errorf("credentials %v %v", h, q)
	}
}

func TestAPIKey(t *testing.T) {
	key := NewSecret("partner/key", []byte("k/ 1+\n"))
	r := request(t, "GET", "https://h/p?a=1", "")
	for _, tc := range []struct {
		cfg  APIKey
		want string
	}{
		{APIKey{Key: key, Header: "X-Api-Key"}, "https://h/p?a=1 k/ 1+"},
		{APIKey{Key: key, Header: "X-Api-Key", Prefix: "Key "}, "https://h/p?a=1 Key k/ 1+"},
		{APIKey{Key: key, Query: "api key"}, "https://h/p?a=1&api%20key=k%2F%201%2B "},
	} {
		a, err := signing(t, Config{APIKey: &tc.cfg}).Sign(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		out := a.Apply(r)
		got := out.URL.String() + " "
		for _, h := range out.Header {
			got += string(h.Value)
		}
		if got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
}

// TestKeysAreNotShown prints everything that holds a key in every way.
func TestKeysAreNotShown(t *testing.T) {
	const text = "hunter2-hunter2"
	secret := NewSecret("partner/key", []byte(text))
	rsaKey := NewSecret("partner/rsa", pemOf("PRIVATE KEY", keys().pkcs8["rsa"]))
	edKey := NewSecret("partner/ed", pemOf("PRIVATE KEY", keys().pkcs8["ed"]))
	cfgs := map[string]Config{
		"hmac":   {Signature: &Signature{Algorithm: HMACSHA256, Key: secret, KeyPrefix: "P", Over: "request.body", Header: "X"}},
		"rsa":    {Signature: &Signature{Algorithm: RSASHA256, Key: rsaKey, Over: "request.body", Header: "X"}},
		"ed":     {Signature: &Signature{Algorithm: Ed25519, Key: edKey, Over: "request.body", Header: "X"}},
		"api":    {APIKey: &APIKey{Key: secret, Query: "key"}},
		"basic":  {Basic: &Basic{User: "u", Password: secret}},
		"jwt":    {JWT: &JWT{Algorithm: "HS256", Key: secret}, Tokens: hs256{}},
		"oauth2": {OAuth2: &OAuth2{TokenURL: "https://id.example/token", ClientID: "c", ClientSecret: secret}, HTTP: answers(`{"access_token":"` + text + `","expires_in":60}`)},
	}
	forms := []string{
		text, fmt.Sprintf("%x", text), fmt.Sprintf("%X", text), fmt.Sprint([]byte(text)), base64.StdEncoding.EncodeToString([]byte(text)), base64.StdEncoding.EncodeToString([]byte("u:" + text)),
		strings.Trim(fmt.Sprint([]byte(text)), "[]"), strings.Trim(fmt.Sprintf("%#v", []byte(text)), "[]byte{}"),
		keys().rsa.D.String(), fmt.Sprintf("%x", keys().rsa.D), strings.Trim(fmt.Sprint([]byte(keys().ed)), "[]"), strings.Trim(fmt.Sprintf("%#v", []byte(keys().ed)), "[]byte{}"), fmt.Sprintf("%x", []byte(keys().ed)),
		string(pemOf("PRIVATE KEY", keys().pkcs8["ed"])),
	}
	for name, cfg := range cfgs {
		t.Run(name, func(t *testing.T) {
			s := signing(t, cfg)
			a, err := s.Sign(t.Context(), request(t, "POST", "https://h/", "b"))
			if err != nil {
				t.Fatal(err)
			}
			shown := []any{cfg, &cfg, s, *s.env(), a, *a, a.Header, a.Query, s.kind}
			if k, ok := s.kind.(*signature); ok {
				shown = append(shown, *k, k.key, *k.key, Keys{k.key})
			}
			if k, ok := s.kind.(*fixed); ok {
				shown = append(shown, *k)
			}
			if k, ok := s.kind.(*webToken); ok {
				shown = append(shown, *k)
			}
			if s.tokens != nil {
				shown = append(shown, s.tokens.token, s.tokens.cfg)
			}
			for _, v := range shown {
				for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
					if out := fmt.Sprintf(verb, v); containsAny(out, forms) {
						t.Errorf("%s of %T shows the key: %s", verb, v, out)
					}
				}
				var log bytes.Buffer
				slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "v", v)
				slog.New(slog.NewTextHandler(&log, nil)).Info("m", "v", v)
				if containsAny(log.String(), forms) {
					t.Errorf("a log of %T shows the key: %s", v, log.String())
				}
			}
		})
	}
	if b, err := json.Marshal(secret); err != nil || string(b) != `{"secret":"partner/key"}` {
		t.Errorf("JSON %s, %v", b, err)
	}
}

func (s *Signing) env() *sealed { return &sealed{s} }

// sealed holds a Signing in a field that fmt may not call methods on.
type sealed struct{ s *Signing }

func containsAny(s string, forms []string) bool {
	for _, f := range forms {
		if f != "" && strings.Contains(s, f) {
			return true
		}
	}
	return false
}

func TestDoHidesWhatAPartnerSendsBack(t *testing.T) {
	s := signing(t, Config{Basic: &Basic{User: "u", Password: NewSecret("p", []byte("open/sesame"))}})
	cause := errors.New("x")
	err := s.Do(t.Context(), request(t, "POST", "https://h/", ""), func(_ context.Context, r *Request) (int, error) {
		return 400, &record.Error{Class: record.Rejected, Code: 400, Err: cause,
			Message: "status 400: no " + string(r.Header[0].Value) + " and no open/sesame and no open%2Fsesame"}
	})
	e := record.AsError(err)
	if e.Message != "status 400: no *** and no *** and no ***" || e.Code != 400 || e.Class != record.Rejected || errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
	plain := &record.Error{Class: record.Rejected, Message: "no", Err: cause}
	err = s.Do(t.Context(), request(t, "POST", "https://h/", ""), func(context.Context, *Request) (int, error) { return 400, plain })
	if !errors.Is(err, cause) {
		t.Errorf("an error without a secret was changed: %v", err)
	}
}

func TestConfigFaults(t *testing.T) {
	key := NewSecret("partner/hmac", []byte("hunter2-hunter2"))
	ok := func(f func(*Signature)) Config {
		s := &Signature{Algorithm: HMACSHA256, Key: key, Over: "request.body", Header: "X"}
		f(s)
		return Config{Signature: s}
	}
	for _, tc := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"nothing", Config{}, "set exactly one"},
		{"two", Config{Basic: &Basic{User: "u", Password: key}, APIKey: &APIKey{Key: key, Header: "X"}}, "2 ways to sign"},
		{"no place", ok(func(s *Signature) { s.Header = "" }), "name one header or one query parameter"},
		{"two places", ok(func(s *Signature) { s.Query = "q" }), "name one header or one query parameter"},
		{"bad header", ok(func(s *Signature) { s.Header = "X Sign" }), `"X Sign" is no name of a header`},
		{"no algorithm", ok(func(s *Signature) { s.Algorithm = 0 }), "use one of hmac-md5"},
		{"plain signature", ok(func(s *Signature) { s.Encoding = Plain }), "cannot be written as plain"},
		{"nothing to sign", ok(func(s *Signature) { s.Over = "" }), "say what the signature is over"},
		{"a typo", ok(func(s *Signature) { s.Over = "request.bdoy" }), "did you mean `request.body`?"},
		{"a typo in a template", ok(func(s *Signature) { s.Over = "a ${request.body_sha265}" }), "did you mean `request.body_sha256`?"},
		{"a root that is not there", ok(func(s *Signature) { s.Over = "${value.id}" }), "value"},
		{"no key", ok(func(s *Signature) { s.Key = Secret{} }), `secret "" is empty`},
		{"empty key", ok(func(s *Signature) { s.Key = NewSecret("partner/none", nil) }), `secret "partner/none" is empty`},
		{"derived RSA", Config{Signature: &Signature{Algorithm: RSASHA256, Key: NewSecret("k", pemOf("PRIVATE KEY", keys().pkcs8["rsa"])), Over: "request.body", Header: "X", Derive: []string{"time"}}}, "derived for hmac-* only"},
		{"key for another algorithm", Config{Signature: &Signature{Algorithm: ECDSASHA256, Key: NewSecret("k", pemOf("PRIVATE KEY", keys().pkcs8["rsa"])), Over: "request.body", Header: "X"}},
			"it holds an RSA key of 2048 bits, which does not go with ecdsa-sha256: use rsa-*"},
		{"a user with a colon", Config{Basic: &Basic{User: "a:b", Password: key}}, "cannot be a user"},
		{"a password of two lines", Config{Basic: &Basic{User: "a", Password: NewSecret("partner/pw", []byte("hunter2\nhunter2"))}}, `secret "partner/pw" holds a line end`},
		{"jwt algorithm", Config{JWT: &JWT{Algorithm: "none", Key: key}, Tokens: hs256{}}, "use one of HS256"},
		{"jwt curve", Config{JWT: &JWT{Algorithm: "ES256", Key: NewSecret("k", pemOf("PRIVATE KEY", keys().pkcs8["p384"]))}, Tokens: hs256{}}, "ES256 needs one on P-256"},
		{"jwt claim twice", Config{JWT: &JWT{Algorithm: "HS256", Key: key, Claims: []Named{{"a", "1"}, {"a", "2"}}}, Tokens: hs256{}}, `claim "a" is there twice`},
		{"token URL", Config{OAuth2: &OAuth2{TokenURL: "ftp://x", ClientID: "c", ClientSecret: key}}, "the token URL is no"},
		{"token parameter", Config{OAuth2: &OAuth2{TokenURL: "http://x", ClientID: "c", ClientSecret: key, Params: []Named{{"a", "${request.path}"}}}}, "use vars and env only"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := New(tc.cfg)
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if e := record.AsError(err); e != nil && e.Class != record.Config {
				t.Errorf("class %s, want config", e.Class)
			}
		})
	}
	t.Run("every fault", func(t *testing.T) {
		_, err := New(Config{Header: []Named{{"a b", "${"}}, Signature: &Signature{Algorithm: HMACSHA256}})
		for _, want := range []string{`"a b" is no name`, "${ without a }", "one header or one", "is empty", "say what"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v does not say %q", err, want)
			}
		}
	})
}

// hs256 is as much of a library of tokens as the tests need.
type hs256 struct{}

func (hs256) SignToken(alg string, key any, header, claims map[string]any) (string, error) {
	if alg != "HS256" {
		return "", fmt.Errorf("the tests sign with HS256, not with %s", alg)
	}
	h := map[string]any{"alg": alg}
	for k, v := range header {
		h[k] = v
	}
	hb, err := json.Marshal(h)
	if err != nil {
		return "", err
	}
	cb, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	text := Base64URL.encode(hb) + "." + Base64URL.encode(cb)
	m := hmac.New(sha256.New, key.([]byte))
	m.Write([]byte(text))
	return text + "." + Base64URL.encode(m.Sum(nil)), nil
}

func TestJWTClaims(t *testing.T) {
	s := signing(t, Config{Tokens: hs256{}, Vars: map[string]any{"org": "acme"}, JWT: &JWT{Algorithm: "HS256", Key: NewSecret("k", []byte("key-of-the-partner")), KeyID: "k1", Lifetime: time.Minute, Claims: []Named{
		{"iss", "${vars.org}"}, {"sub", "a ${vars.org}"}, {"n", "${1 + 1}"}, {"aud", `${["a", "b"]}`}, {"nbf", "${time}"}, {"bsh", "${request.body_sha256}"},
	}}})
	r := request(t, "POST", "https://h/p", "hello")
	var ids []string
	for range 2 {
		a, err := s.Sign(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		token := strings.TrimPrefix(a.Header[0].Value, "Bearer ")
		parts := strings.Split(token, ".")
		if len(parts) != 3 || a.Header[0].Name != "Authorization" || !a.Header[0].Credential {
			t.Fatalf("got %q", a.Header[0].Value)
		}
		if got := string(b64(t, parts[0])); got != `{"alg":"HS256","kid":"k1","typ":"JWT"}` {
			t.Errorf("header %s", got)
		}
		var claims map[string]any
		if err := json.Unmarshal(b64(t, parts[1]), &claims); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, fmt.Sprint(claims["jti"]))
		delete(claims, "jti")
		got, _ := json.Marshal(claims)
		want := `{"aud":["a","b"],"bsh":"2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824","exp":1793534460,"iat":1793534400,"iss":"acme","n":2,"nbf":1793534400,"sub":"a acme"}`
		if string(got) != want {
			t.Errorf("claims\ngot  %s\nwant %s", got, want)
		}
	}
	if ids[0] == ids[1] || ids[0] == "<nil>" {
		t.Errorf("token ids %v", ids)
	}
	empty := ""
	s = signing(t, Config{Tokens: hs256{}, JWT: &JWT{Algorithm: "HS256", Key: NewSecret("k", []byte("key-of-the-partner")), NoID: true, Header: "X-Token", Prefix: &empty, Claims: []Named{{"x", `${request.headers["x"]}`}}}})
	if _, err := s.Sign(t.Context(), r); record.AsError(err) == nil || record.AsError(err).Class != record.Schema {
		t.Errorf("a claim that is nil: got %v, want class schema", err)
	}
	a, err := s.Sign(t.Context(), request(t, "GET", "https://h/", "", "X", "1"))
	if err != nil || a.Header[0].Name != "X-Token" || strings.Contains(string(b64(t, strings.Split(a.Header[0].Value, ".")[1])), "jti") {
		t.Errorf("got %v, %v", a, err)
	}
}

func TestHeaderValuesAreOneLine(t *testing.T) {
	_, err := over(t, Config{}, "${request.body}", request(t, "POST", "http://h/", "a\r\nX-Evil: 1"))
	if e := record.AsError(err); e == nil || e.Class != record.Schema {
		t.Errorf("got %v, want class schema", err)
	}
}

func BenchmarkSign(b *testing.B) {
	cfg := partner(false)
	s, err := New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	u, _ := url.Parse("https://partner.example/v2/orders?a=1")
	r := &Request{Method: "POST", URL: u, Body: bytes.Repeat([]byte("x"), 1024)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Sign(context.Background(), r); err != nil {
			b.Fatal(err)
		}
	}
}
