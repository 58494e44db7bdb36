package http

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func serve(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

func client(t testing.TB, cfg Config) *Client {
	t.Helper()
	s, err := NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// at is a request to a path below a server's URL.
func at(srv *httptest.Server, method, path, body string, header ...string) *Request {
	u, err := url.Parse(srv.URL + path)
	if err != nil {
		panic(err)
	}
	r := &Request{Method: method, URL: u, Body: []byte(body)}
	for i := 0; i < len(header); i += 2 {
		r.Header = append(r.Header, record.Header{Key: header[i], Value: []byte(header[i+1])})
	}
	return r
}

func TestRequestAsItIs(t *testing.T) {
	got := make(chan string, 1)
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- fmt.Sprintf("%s %s host=%s len=%d te=%q auth=%q key=%q a=%q agent=%q body=%s", r.Method, r.RequestURI, r.Host, r.ContentLength, r.TransferEncoding,
			r.Header.Get("Authorization"), r.Header.Get("Idempotency-Key"), r.Header["A"], r.Header.Get("User-Agent"), body)
		w.Header().Add("X", "1")
		w.Header().Add("X", "2")
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, "thanks")
	})
	host := strings.TrimPrefix(srv.URL, "http://")
	c := client(t, Config{Base: srv.URL + "/api/", Authorization: "Bearer s3cret"})
	const auth = `auth="Bearer s3cret"`
	for _, tc := range []struct {
		name string
		req  *Request
		want string
	}{
		{"headers in order", at(srv, "POST", "/api/v2/orders?x=1", "b", "Idempotency-Key", "k", "A", "1", "a", "2"),
			`POST /api/v2/orders?x=1 host=` + host + ` len=1 te=[] ` + auth + ` key="k" a=["1" "2"] agent="millrace" body=b`},
		{"a key and no body", at(srv, "PUT", "/api/", "", "Idempotency-Key", "k"), `PUT /api/ host=` + host + ` len=0 te=[] ` + auth + ` key="k" a=[] agent="millrace" body=`},
		{"no body at all", at(srv, "GET", "/", "", "User-Agent", "mine"), `GET / host=` + host + ` len=0 te=[] ` + auth + ` key="" a=[] agent="mine" body=`},
		{"DELETE", at(srv, "DELETE", "/x", "", "Idempotency-Key", "k"), `DELETE /x host=` + host + ` len=0 te=[] ` + auth + ` key="k" a=[] agent="millrace" body=`},
		{"escapes are kept", at(srv, "POST", "/a%2Fb/%C3%BC?q=%20", ""), `POST /a%2Fb/%C3%BC?q=%20 host=` + host + ` len=0 te=[] ` + auth + ` key="" a=[] agent="millrace" body=`},
		{"own host and auth", at(srv, "POST", "/x", "", "Host", "partner.example", "Authorization", "mine"),
			`POST /x host=partner.example len=0 te=[] auth="mine" key="" a=[] agent="millrace" body=`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			resp, err := c.Send(t.Context(), tc.req, 0)
			if err != nil {
				t.Fatal(err)
			}
			if got := <-got; got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
			if resp.Status != 202 || string(resp.Body) != "thanks" || resp.Truncated {
				t.Errorf("answer %d %q", resp.Status, resp.Body)
			}
			var xs []string
			for _, h := range resp.Header {
				if h.Key == "X" {
					xs = append(xs, string(h.Value))
				}
			}
			if fmt.Sprint(xs) != "[1 2]" {
				t.Errorf("header X: %v, want [1 2]", xs)
			}
		})
	}
}

func TestAuthorizationStaysAtItsHost(t *testing.T) {
	auth := make(chan string, 1)
	srv := serve(t, func(_ http.ResponseWriter, r *http.Request) { auth <- r.Header.Get("Authorization") })
	c := client(t, Config{Base: "http://partner.example", Authorization: "Bearer s3cret"})
	if _, err := c.Send(t.Context(), at(srv, "POST", "/", ""), 0); err != nil {
		t.Fatal(err)
	}
	if got := <-auth; got != "" {
		t.Errorf("another host was sent %q", got)
	}
}

// Every status is an answer, redirects are one too, and a long body is cut.
func TestAnswers(t *testing.T) {
	asked := 0
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked++
		var status, n int
		_, _ = fmt.Sscanf(r.URL.Path, "/%d/%d", &status, &n)
		w.Header().Set("Location", "/200/0")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, strings.Repeat("x", n))
	})
	c := client(t, Config{})
	for _, tc := range []struct {
		status, bytes, want int
		truncated           bool
	}{
		{200, 1, 1, false}, {301, 3, 3, false}, {307, 3, 3, false}, {401, 0, 0, false}, {429, 2, 2, false}, {503, 9, 9, false},
		{200, MaxResponseBody, MaxResponseBody, false}, {422, MaxResponseBody + 1, MaxResponseBody, true},
	} {
		asked = 0
		resp, err := c.Send(t.Context(), at(srv, "POST", fmt.Sprintf("/%d/%d", tc.status, tc.bytes), ""), 0)
		if err != nil || resp.Status != tc.status || len(resp.Body) != tc.want || resp.Truncated != tc.truncated || asked != 1 {
			t.Errorf("%+v: got %v, %v after %d requests", tc, resp, err, asked)
		}
	}
}

// A kept connection that breaks after the request was sent: net/http repeats
// what it takes for idempotent, and nobody would know.
func TestNothingIsSentTwiceByItself(t *testing.T) {
	for _, tc := range []struct{ method, body string }{{"POST", "b"}, {"POST", ""}, {"PUT", ""}, {"PATCH", "b"}, {"DELETE", ""}, {"GET", ""}, {"OPTIONS", ""}} {
		t.Run(tc.method+tc.body, func(t *testing.T) {
			var seen atomic.Int64
			srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				if seen.Add(1) == 1 {
					return
				}
				if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
					_ = conn.Close()
				}
			})
			c := client(t, Config{})
			req := at(srv, tc.method, "/", tc.body, "Idempotency-Key", "k", "X-Idempotency-Key", "k")
			if _, err := c.Send(t.Context(), req, 0); err != nil {
				t.Fatal(err)
			}
			_, err := c.Send(t.Context(), req, 0)
			if e := record.AsError(err); e == nil || e.Class != record.Retryable {
				t.Errorf("got %v, want class retryable", err)
			}
			if seen.Load() != 2 {
				t.Errorf("the server saw %d requests, want 2", seen.Load())
			}
		})
	}
}

func TestNobodyThere(t *testing.T) {
	srv := serve(t, func(http.ResponseWriter, *http.Request) {})
	req := at(srv, "POST", "/x?token=s3cret", "")
	srv.Close()
	_, err := client(t, Config{}).Send(t.Context(), req, 0)
	if e := record.AsError(err); e.Class != record.Retryable || !strings.Contains(e.Message, "connection refused") || strings.Contains(e.Message, "s3cret") {
		t.Errorf("got %v, want class retryable without the query", err)
	}
}

func TestConnectionBreaks(t *testing.T) {
	for _, how := range []string{"before the answer", "within the answer"} {
		t.Run(how, func(t *testing.T) {
			srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
				conn, buf, err := w.(http.Hijacker).Hijack()
				if err != nil {
					return
				}
				if how == "within the answer" {
					_, _ = buf.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
					_ = buf.Flush()
				}
				_ = conn.Close()
			})
			resp, err := client(t, Config{Base: srv.URL}).Send(t.Context(), at(srv, "POST", "/", ""), 0)
			if e := record.AsError(err); e == nil || e.Class != record.Retryable || resp != nil {
				t.Errorf("got %v, %v, want class retryable", resp, err)
			}
		})
	}
}

func TestTimeout(t *testing.T) {
	for _, part := range []string{"headers", "body"} {
		t.Run(part, func(t *testing.T) {
			release := make(chan struct{})
			srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if part == "body" {
					w.WriteHeader(200)
					_ = http.NewResponseController(w).Flush()
				}
				<-release
			})
			defer close(release)
			c := client(t, Config{Timeout: time.Hour})
			_, err := c.Send(t.Context(), at(srv, "POST", "/", ""), 30*time.Millisecond)
			if e := record.AsError(err); e.Class != record.Timeout || !strings.Contains(e.Message, "no answer within 30ms") {
				t.Errorf("got %v, want class timeout", err)
			}
		})
	}
}

func TestContextEnds(t *testing.T) {
	release, arrived := make(chan struct{}), make(chan struct{}, 1)
	srv := serve(t, func(http.ResponseWriter, *http.Request) { arrived <- struct{}{}; <-release })
	defer close(release)
	c := client(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	errs := make(chan error)
	go func() {
		_, err := c.Send(ctx, at(srv, "POST", "/", ""), 0)
		errs <- err
	}()
	<-arrived
	cancel()
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func TestConnectionsAreKept(t *testing.T) {
	var conns atomic.Int64
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("x", 100_000))
	}))
	srv.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			conns.Add(1)
		}
	}
	srv.Start()
	defer srv.Close()
	c := client(t, Config{Concurrent: 4})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 25 {
				if _, err := c.Send(t.Context(), at(srv, "POST", "/", "x"), 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := conns.Load(); n > 8 {
		t.Errorf("%d connections for 100 requests, want about 4", n)
	}
}

func TestTLS(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	pool := x509.NewCertPool()
	pool.AddCert(srv.Certificate())
	trusted := &tls.Config{RootCAs: pool}

	if _, err := client(t, Config{TLS: trusted}).Send(t.Context(), at(srv, "POST", "/", ""), 0); err != nil {
		t.Error(err)
	}
	if err := Check(t.Context(), Config{Base: srv.URL, TLS: trusted}); err != nil {
		t.Error(err)
	}
	plain := serve(t, func(http.ResponseWriter, *http.Request) {})
	for _, tc := range []struct {
		name string
		cfg  Config
	}{
		{"unknown authority", Config{Base: srv.URL}},
		{"other name", Config{Base: srv.URL, TLS: &tls.Config{RootCAs: pool, ServerName: "elsewhere.example"}}},
		{"no TLS there", Config{Base: strings.Replace(plain.URL, "http:", "https:", 1)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			base, _ := url.Parse(tc.cfg.Base)
			_, err := client(t, tc.cfg).Send(t.Context(), &Request{Method: "POST", URL: base}, 0)
			if e := record.AsError(err); e.Class != record.Config || !strings.Contains(e.Message, "`tls` settings") {
				t.Errorf("got %v, want class config", err)
			}
			if err := Check(t.Context(), tc.cfg); err == nil || !strings.Contains(err.Error(), "`tls` settings") {
				t.Errorf("check: %v", err)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	srv := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("a request was sent") })
	if err := Check(t.Context(), Config{Base: srv.URL + "/x"}); err != nil {
		t.Error(err)
	}
	addr := strings.TrimPrefix(srv.URL, "http://")
	srv.Close()
	if err := Check(t.Context(), Config{Base: srv.URL}); err == nil || !strings.Contains(err.Error(), addr) || !strings.HasSuffix(err.Error(), "correct the connection's `base`") {
		t.Errorf("nobody there: %v", err)
	}
	if err := Check(t.Context(), Config{}); err == nil {
		t.Error("no base: no error")
	}
}

func TestFaultyConfig(t *testing.T) {
	for _, tc := range []struct {
		cfg  Config
		want []string
	}{
		{Config{Base: "partner.example"}, []string{"is not an http:// or https:// URL"}},
		{Config{Base: "ftp://partner.example", Timeout: -1, Concurrent: -1}, []string{"is not an http:// or https:// URL", "negative", "-1 connections"}},
		{Config{Base: "https://u:s3cret@partner.example"}, []string{"has a user in it"}},
		{Config{Base: "https://u:s3cret@partner.example\x7f"}, []string{"not a URL"}},
		{Config{Authorization: "s3cret\n"}, []string{"line end"}},
	} {
		_, err := NewClient(tc.cfg)
		for _, want := range tc.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want it to contain %q", err, want)
			}
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%v has the secret in it", err)
		}
	}
}

func TestUnusableRequests(t *testing.T) {
	srv := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("a request was sent") })
	c := client(t, Config{})
	gopher := &Request{Method: "POST", URL: &url.URL{Scheme: "gopher", Host: "x"}}
	for _, tc := range []struct {
		req  *Request
		want record.Class
	}{
		{&Request{Method: "POST"}, record.Config},
		{gopher, record.Config},
		{at(srv, "NO METHOD", "/", ""), record.Config},
		{at(srv, "", "/", ""), record.Config},
		{at(srv, "POST", "/", "", "X-Name", "a\r\nEvil: s3cret"), record.Schema},
		{at(srv, "POST", "/", "", "X Name", "a"), record.Schema},
	} {
		_, err := c.Send(t.Context(), tc.req, 0)
		if e := record.AsError(err); e == nil || e.Class != tc.want || strings.Contains(e.Message, "s3cret") {
			t.Errorf("%+v: got %v, want class %s", tc.req, err, tc.want)
		}
	}
}

func TestClosed(t *testing.T) {
	srv := serve(t, func(http.ResponseWriter, *http.Request) {})
	c := client(t, Config{})
	for range 2 {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Send(t.Context(), at(srv, "POST", "/", ""), 0); !errors.Is(err, connector.ErrClosed) {
		t.Errorf("got %v, want %v", err, connector.ErrClosed)
	}
}

// An answer whose headers are too long is none; what they may hold is there.
func TestLongHeaders(t *testing.T) {
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var n int
		_, _ = fmt.Sscanf(r.URL.Path, "/%d", &n)
		w.Header().Set("X-Long", strings.Repeat("h", n))
	})
	c := client(t, Config{})
	resp, err := c.Send(t.Context(), at(srv, "POST", fmt.Sprint("/", MaxResponseHeader-4<<10), ""), 0)
	if err != nil || resp.Status != 200 {
		t.Errorf("just below: %v", err)
	}
	_, err = c.Send(t.Context(), at(srv, "POST", fmt.Sprint("/", MaxResponseHeader+8<<10), ""), 0)
	if e := record.AsError(err); e == nil || e.Class != record.Retryable || len(e.Error()) > 1<<10 {
		t.Errorf("above: %.300v", err)
	}
}
