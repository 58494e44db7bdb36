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

func sink(t *testing.T, cfg Config) *Sink {
	t.Helper()
	s, err := NewSink(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestRequestAsItIs(t *testing.T) {
	got := make(chan string, 1)
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- fmt.Sprintf("%s %s host=%s len=%d auth=%q key=%q a=%q agent=%q body=%s", r.Method, r.URL.RequestURI(), r.Host, r.ContentLength,
			r.Header.Get("Authorization"), r.Header.Get("Idempotency-Key"), r.Header["A"], r.Header.Get("User-Agent"), body)
		w.Header().Add("X", "1")
		w.Header().Add("X", "2")
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, "thanks")
	})
	host := strings.TrimPrefix(srv.URL, "http://")
	s := sink(t, Config{Base: srv.URL + "/api/", Authorization: "Bearer s3cret"})
	for _, tc := range []struct {
		name string
		req  Request
		want string
	}{
		{"path below the base", Request{URL: "/v2/orders?x=1", Body: []byte("b"), Header: []record.Header{{Key: "Idempotency-Key", Value: []byte("k")}, {Key: "A", Value: []byte("1")}, {Key: "a", Value: []byte("2")}}},
			fmt.Sprintf(`POST /api/v2/orders?x=1 host=%s len=1 auth="Bearer s3cret" key="k" a=["1" "2"] agent="millrace" body=b`, host)},
		{"the base itself, no body", Request{Method: "PUT"}, fmt.Sprintf(`PUT /api/ host=%s len=0 auth="Bearer s3cret" key="" a=[] agent="millrace" body=`, host)},
		{"escapes are kept", Request{URL: "a%2Fb/ü"}, fmt.Sprintf(`POST /api/a%%2Fb/%%C3%%BC host=%s len=0 auth="Bearer s3cret" key="" a=[] agent="millrace" body=`, host)},
		{"own host and auth", Request{URL: "x", Header: []record.Header{{Key: "Host", Value: []byte("partner.example")}, {Key: "Authorization", Value: []byte("mine")}}},
			`POST /api/x host=partner.example len=0 auth="mine" key="" a=[] agent="millrace" body=`},
		{"a whole URL is a path too", Request{URL: "/x?next=https://elsewhere.example/"},
			fmt.Sprintf(`POST /api/x?next=https://elsewhere.example/ host=%s len=0 auth="Bearer s3cret" key="" a=[] agent="millrace" body=`, host)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			resp, err := s.Send(t.Context(), &tc.req)
			if err != nil {
				t.Fatal(err)
			}
			if got := <-got; got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
			if resp.Status != 202 || string(resp.Body) != "thanks" {
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

func TestVerdicts(t *testing.T) {
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var status int
		_, _ = fmt.Sscanf(r.URL.Path, "/%d", &status)
		if after := r.Header.Get("After"); after != "" {
			w.Header().Set("Retry-After", after)
		}
		w.Header().Set("Location", "/200")
		w.WriteHeader(status)
		if status >= 300 && status != 304 {
			_, _ = io.WriteString(w, "because\n of\tthis")
		}
	})
	s := sink(t, Config{Base: srv.URL, Authorization: "Bearer s3cret"})
	for _, tc := range []struct {
		status  int
		after   string
		class   record.Class
		wait    time.Duration
		problem bool
	}{
		{status: 200}, {status: 201}, {status: 204}, {status: 299},
		{status: 301, class: record.Rejected}, {status: 304, class: record.Rejected}, {status: 307, class: record.Rejected},
		{status: 400, class: record.Rejected}, {status: 404, class: record.Rejected}, {status: 409, class: record.Rejected}, {status: 422, class: record.Rejected},
		{status: 401, class: record.Config, problem: true}, {status: 403, class: record.Config, problem: true},
		{status: 408, class: record.Retryable, problem: true},
		{status: 429, class: record.Retryable, after: "7", wait: 7 * time.Second, problem: true},
		{status: 429, class: record.Retryable, after: "99999999999", wait: MaxRetryAfter, problem: true},
		{status: 429, class: record.Retryable, after: "-5", problem: true},
		{status: 503, class: record.Retryable, after: "soon", problem: true},
		{status: 503, class: record.Retryable, after: time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat), problem: true},
		{status: 503, class: record.Retryable, after: time.Now().Add(24 * time.Hour).UTC().Format(http.TimeFormat), wait: MaxRetryAfter, problem: true},
		{status: 500, class: record.Retryable, problem: true}, {status: 502, class: record.Retryable, problem: true}, {status: 599, class: record.Retryable, problem: true},
	} {
		t.Run(fmt.Sprint(tc.status, tc.after), func(t *testing.T) {
			resp, err := s.Send(t.Context(), &Request{URL: fmt.Sprint("/", tc.status), Header: []record.Header{{Key: "After", Value: []byte(tc.after)}}})
			if resp == nil || resp.Status != tc.status {
				t.Fatalf("answer %+v, want status %d", resp, tc.status)
			}
			if (s.Problem() != "") != tc.problem {
				t.Errorf("problem %q", s.Problem())
			}
			if tc.status < 300 {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			e, ok := errors.AsType[*record.Error](err)
			if !ok {
				t.Fatalf("got %v, want a *record.Error", err)
			}
			if e.Class != tc.class || e.Code != uint32(tc.status) || e.RetryAfter != tc.wait {
				t.Errorf("got class %s, code %d, wait %s; want %s, %d, %s", e.Class, e.Code, e.RetryAfter, tc.class, tc.status, tc.wait)
			}
			if tc.status != 304 && !strings.Contains(e.Message, "because of this") {
				t.Errorf("message %q does not quote the body", e.Message)
			}
			if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("message %q has the secret in it", e.Message)
			}
		})
	}
}

func TestRetryAfterDate(t *testing.T) {
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	h := []record.Header{{Key: "Retry-After", Value: []byte("Sun, 01 Nov 2026 00:01:30 GMT")}}
	if got := retryAfter(h, now); got != 90*time.Second {
		t.Errorf("got %s, want 1m30s", got)
	}
}

func TestBodiesAreBounded(t *testing.T) {
	long := strings.Repeat("é", MaxResponseBody)
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(422)
		_, _ = io.WriteString(w, long)
	})
	resp, err := sink(t, Config{Base: srv.URL}).Send(t.Context(), &Request{})
	if len(resp.Body) != MaxResponseBody {
		t.Errorf("%d bytes of the answer, want %d", len(resp.Body), MaxResponseBody)
	}
	if n := len(err.Error()); n > 450 || !strings.HasSuffix(err.Error(), "éé") {
		t.Errorf("the message is %d bytes long: %.450q", n, err.Error())
	}
}

func TestNobodyThere(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + ln.Addr().String()
	_ = ln.Close()
	s := sink(t, Config{Base: url})
	_, err = s.Send(t.Context(), &Request{URL: "/x?token=1"})
	if e := record.AsError(err); e.Class != record.Retryable || !strings.Contains(e.Message, "connection refused") {
		t.Errorf("got %v, want class retryable", err)
	}
	if p := s.Problem(); !strings.Contains(p, "connection refused") {
		t.Errorf("problem %q", p)
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
			resp, err := sink(t, Config{Base: srv.URL}).Send(t.Context(), &Request{})
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
			s := sink(t, Config{Base: srv.URL, Timeout: time.Hour})
			_, err := s.Send(t.Context(), &Request{Timeout: 30 * time.Millisecond})
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
	s := sink(t, Config{Base: srv.URL, Concurrent: 1})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	errs := make(chan error)
	for range 2 { // one under way, one that waits for its turn
		go func() {
			_, err := s.Send(ctx, &Request{})
			errs <- err
		}()
	}
	<-arrived
	cancel()
	for range 2 {
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
	}
	if p := s.Problem(); p != "" {
		t.Errorf("problem %q", p)
	}
}

func TestConcurrentAndReuse(t *testing.T) {
	var now, most, conns atomic.Int64
	release := make(chan struct{})
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if n == 4 && most.Load() == 4 {
			select {
			case <-release:
			default:
				close(release)
			}
		}
		<-release
	}))
	srv.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			conns.Add(1)
		}
	}
	srv.Start()
	defer srv.Close()
	s := sink(t, Config{Base: srv.URL, Concurrent: 4})
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if _, err := s.Send(t.Context(), &Request{Body: []byte("x")}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if most.Load() != 4 {
		t.Errorf("%d requests at once, want 4", most.Load())
	}
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

	if _, err := sink(t, Config{Base: srv.URL, TLS: trusted}).Send(t.Context(), &Request{}); err != nil {
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
			_, err := sink(t, tc.cfg).Send(t.Context(), &Request{})
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
		{Config{Base: "ftp://partner.example", Timeout: -1, Concurrent: -1}, []string{"is not an http:// or https:// URL", "negative", "-1 requests at once"}},
		{Config{Base: "https://u:s3cret@partner.example"}, []string{"has a user in it"}},
		{Config{Base: "https://u:s3cret@partner.example\x7f"}, []string{"not a URL"}},
		{Config{Authorization: "s3cret\n"}, []string{"line end"}},
	} {
		_, err := NewSink(tc.cfg)
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
	s := sink(t, Config{})
	for _, req := range []Request{{URL: "/path"}, {URL: "gopher://x/"}, {URL: "http://127.0.0.1/", Method: "NO METHOD"}} {
		_, err := s.Send(t.Context(), &req)
		if e := record.AsError(err); e == nil || e.Class != record.Config {
			t.Errorf("%+v: got %v, want class config", req, err)
		}
	}
}

// What a record's content does to a request is that record's failure: it must
// not pause the flow, nor be tried for ever.
func TestRecordsCannotBreakARequestApart(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("to") == "" {
			w.WriteHeader(http.StatusTeapot)
		}
	}))
	defer srv.Close()
	s := sink(t, Config{Base: srv.URL + "/api"})
	if _, err := s.Send(t.Context(), &Request{URL: "/x?to=https://elsewhere.example/"}); err != nil {
		t.Errorf("a URL in the query: %v", err)
	}
	for _, req := range []Request{
		{URL: "/50%"},
		{URL: "/x?to=1", Header: []record.Header{{Key: "X-Name", Value: []byte("a\r\nEvil: 1")}}},
	} {
		_, err := s.Send(t.Context(), &req)
		if e := record.AsError(err); e == nil || e.Class != record.Schema && e.Class != record.Rejected {
			t.Errorf("%+v: got %v, want a failure of the record", req, err)
		}
	}
}

func TestClosed(t *testing.T) {
	s := sink(t, Config{Base: "http://127.0.0.1:1"})
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Send(t.Context(), &Request{}); !errors.Is(err, connector.ErrClosed) {
		t.Errorf("got %v, want %v", err, connector.ErrClosed)
	}
}
