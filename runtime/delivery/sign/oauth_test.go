package sign

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
)

type doer func(*http.Request) (*http.Response, error)

func (d doer) Do(r *http.Request) (*http.Response, error) { return d(r) }

func answer(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
}

func answers(body string) doer {
	return func(*http.Request) (*http.Response, error) { return answer(200, body), nil }
}

const clientSecret = "s3cret/of+client"

func oauth(do doer, change ...func(*OAuth2)) Config {
	o := &OAuth2{TokenURL: "https://id.example/token?tenant=1", ClientID: "acme corp", ClientSecret: NewSecret("partner/oauth", []byte(clientSecret))}
	for _, f := range change {
		f(o)
	}
	return Config{OAuth2: o, HTTP: do}
}

// issuer gives t1, t2, ... and counts.
func issuer(expires string, calls *atomic.Int32) doer {
	return func(*http.Request) (*http.Response, error) {
		return answer(200, fmt.Sprintf(`{"access_token":"token-%d","token_type":"bearer"%s}`, calls.Add(1), expires)), nil
	}
}

func tokenOf(t *testing.T, s *Signing) string {
	t.Helper()
	a, err := s.Sign(t.Context(), request(t, "POST", "https://h/", ""))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(a.Header[0].Value, "Bearer ")
}

func TestTokenRequest(t *testing.T) {
	for _, inBody := range []bool{false, true} {
		got := ""
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			user, pass, ok := r.BasicAuth()
			got = fmt.Sprintf("%s %s %s %s basic=%v %s %s", r.Method, r.RequestURI, r.Header.Get("Content-Type"), body, ok, user, pass)
			_, _ = io.WriteString(w, `{"access_token":"abc.def","token_type":"Bearer","expires_in":"3600"}`)
		}))
		cfg := oauth(nil, func(o *OAuth2) {
			o.TokenURL, o.InBody, o.Scopes, o.Params = srv.URL+"/token?tenant=1", inBody, []string{"a", "b:c"}, []Named{{"audience", "https://${vars.p}"}}
		})
		client := &http.Client{Transport: &http.Transport{}}
		cfg.HTTP, cfg.Vars = client, map[string]any{"p": "partner"}
		if token := tokenOf(t, signing(t, cfg)); token != "abc.def" {
			t.Errorf("token %q", token)
		}
		want := "POST /token?tenant=1 application/x-www-form-urlencoded audience=https%3A%2F%2Fpartner&grant_type=client_credentials&scope=a+b%3Ac basic=true acme+corp s3cret%2Fof%2Bclient"
		if inBody {
			want = "POST /token?tenant=1 application/x-www-form-urlencoded audience=https%3A%2F%2Fpartner&grant_type=client_credentials&scope=a+b%3Ac&client_id=acme+corp&client_secret=s3cret%2Fof%2Bclient basic=false  "
		}
		if got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		client.CloseIdleConnections()
		srv.Close()
	}
}

func TestTokenIsKeptAndRenewed(t *testing.T) {
	var calls atomic.Int32
	now := noon
	cfg := oauth(issuer(`,"expires_in":600`, &calls))
	cfg.Now = func() time.Time { return now }
	s := signing(t, cfg)
	for _, tc := range []struct {
		after time.Duration
		want  string
	}{{0, "token-1"}, {569 * time.Second, "token-1"}, {570 * time.Second, "token-2"}, {571 * time.Second, "token-2"}, {3600 * time.Second, "token-3"}} {
		now = noon.Add(tc.after)
		if got := tokenOf(t, s); got != tc.want {
			t.Errorf("after %s: got %s, want %s", tc.after, got, tc.want)
		}
	}

	calls.Store(0)
	now = noon
	cfg.HTTP = issuer("", &calls) // says nothing of an end
	s = signing(t, cfg)
	tokenOf(t, s)
	now = noon.Add(1000 * time.Hour)
	if got := tokenOf(t, s); got != "token-1" {
		t.Errorf("a token without an end: got %s", got)
	}

	calls.Store(0)
	now = noon
	cfg.HTTP = issuer(`,"expires_in":8`, &calls) // shorter than the margin
	s = signing(t, cfg)
	tokenOf(t, s)
	now = noon.Add(5 * time.Second)
	if got := tokenOf(t, s); got != "token-1" {
		t.Errorf("a short token after 5 s: got %s", got)
	}
	now = noon.Add(7 * time.Second)
	if got := tokenOf(t, s); got != "token-2" {
		t.Errorf("a short token after 7 s: got %s", got)
	}
}

func TestValidTokenOutlivesATroubledEndpoint(t *testing.T) {
	down := false
	var calls int
	now := noon
	cfg := oauth(func(*http.Request) (*http.Response, error) {
		calls++
		if down {
			return answer(503, ""), nil
		}
		return answer(200, `{"access_token":"token-1","expires_in":600}`), nil
	})
	cfg.Now = func() time.Time { return now }
	s := signing(t, cfg)
	tokenOf(t, s)
	down = true
	now = noon.Add(580 * time.Second)
	for range 5 {
		if got := tokenOf(t, s); got != "token-1" {
			t.Errorf("got %s", got)
		}
	}
	if calls != 2 {
		t.Errorf("%d token requests, want 2: the endpoint is not to be asked for every record", calls)
	}
	now = noon.Add(601 * time.Second)
	_, err := s.Sign(t.Context(), request(t, "POST", "https://h/", ""))
	if e := record.AsError(err); e == nil || e.Class != record.Retryable || e.Code != 503 {
		t.Errorf("an expired token and no other: got %v", err)
	}
}

func TestRenewingHoldsNobodyElseUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		cfg := oauth(func(*http.Request) (*http.Response, error) {
			n := calls.Add(1)
			if n > 1 {
				<-time.After(5 * time.Second)
			}
			return answer(200, fmt.Sprintf(`{"access_token":"token-%d","expires_in":600}`, n)), nil
		})
		now := noon
		cfg.Now = func() time.Time { return now }
		s := signing(t, cfg)
		tokenOf(t, s)
		now = noon.Add(580 * time.Second)
		var wg sync.WaitGroup
		wg.Go(func() {
			if got := tokenOf(t, s); got != "token-2" {
				t.Errorf("who renews it: got %s", got)
			}
		})
		synctest.Wait()
		begun := time.Now()
		if got := tokenOf(t, s); got != "token-1" || time.Since(begun) != 0 {
			t.Errorf("meanwhile: got %s after %s", got, time.Since(begun))
		}
		wg.Wait()
		if got := tokenOf(t, s); got != "token-2" {
			t.Errorf("afterwards: got %s", got)
		}
	})
}

func TestOneTokenRequestForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		cfg := oauth(func(r *http.Request) (*http.Response, error) {
			<-time.After(time.Second) // of the bubble's clock: the endpoint is slow
			return answer(200, fmt.Sprintf(`{"access_token":"token-%d"}`, calls.Add(1))), nil
		})
		cfg.Now = time.Now
		s := signing(t, cfg)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if got := tokenOf(t, s); got != "token-1" {
					t.Errorf("got %s", got)
				}
			})
		}
		wg.Wait()
		if n := calls.Load(); n != 1 {
			t.Errorf("%d token requests, want 1", n)
		}
	})
}

func TestWaitingForATokenEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		cfg := oauth(func(r *http.Request) (*http.Response, error) {
			n := calls.Add(1)
			select {
			case <-time.After(time.Second):
				return answer(200, fmt.Sprintf(`{"access_token":"token-%d"}`, n)), nil
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
		})
		cfg.Now = time.Now
		s := signing(t, cfg)
		first, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := s.Sign(first, request(t, "GET", "https://h/", "")); !errors.Is(err, context.Canceled) {
				t.Errorf("who asked and went: got %v", err)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if got := tokenOf(t, s); got != "token-2" {
				t.Errorf("who waits on asks itself: got %s", got)
			}
		})
		gone, leave := context.WithCancel(t.Context())
		wg.Go(func() {
			if _, err := s.Sign(gone, request(t, "GET", "https://h/", "")); !errors.Is(err, context.Canceled) {
				t.Errorf("who waited and went: got %v", err)
			}
		})
		synctest.Wait()
		leave()
		synctest.Wait()
		cancel()
		wg.Wait()
	})
}

func TestTokenIsReplacedOnceOn401(t *testing.T) {
	var calls atomic.Int32
	s := signing(t, oauth(issuer("", &calls)))
	var sent []string
	good := "Bearer token-2"
	send := func(_ context.Context, r *Request) (int, error) {
		v := string(r.Header[0].Value)
		sent = append(sent, v)
		if v == good {
			return 200, nil
		}
		return 401, record.Errorf(record.Config, "status 401")
	}
	r := request(t, "POST", "https://h/", "b")
	if err := s.Do(t.Context(), r, send); err != nil {
		t.Fatal(err)
	}
	if err := s.Do(t.Context(), r, send); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(sent); got != "[Bearer token-1 Bearer token-2 Bearer token-2]" {
		t.Errorf("got %s", got)
	}
	good, sent = "", nil
	if err := s.Do(t.Context(), r, send); record.AsError(err).Class != record.Config {
		t.Errorf("got %v, want class config", err)
	}
	if got := fmt.Sprint(sent); got != "[Bearer token-2 Bearer token-3]" {
		t.Errorf("got %s: one more attempt is all", got)
	}
	if tokenOf(t, s) != "token-4" {
		t.Error("the token that was refused last is kept")
	}

	t.Run("many at once", func(t *testing.T) {
		calls.Store(0)
		s := signing(t, oauth(issuer("", &calls)))
		old, err := s.Sign(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		for range 10 { // all were sent with the same token
			if !s.Refused(old) {
				t.Error("not to be tried again")
			}
			tokenOf(t, s)
		}
		if n := calls.Load(); n != 2 {
			t.Errorf("%d token requests, want 2", n)
		}
	})
	t.Run("without a token", func(t *testing.T) {
		n := 0
		s := signing(t, partner(false))
		_ = s.Do(t.Context(), r, func(context.Context, *Request) (int, error) { n++; return 401, errors.New("no") })
		if n != 1 {
			t.Errorf("sent %d times, want once", n)
		}
	})
}

func TestTokenFailures(t *testing.T) {
	for _, tc := range []struct {
		name  string
		do    doer
		class record.Class
		code  uint32
		want  string
	}{
		{"refused", func(*http.Request) (*http.Response, error) {
			return answer(401, `{"error":"invalid_client","error_description":"wrong\nsecret `+clientSecret+`"}`), nil
		}, record.Config, 401, `status 401: invalid_client: wrong secret ***: correct the token URL, the client id or secret "partner/oauth"`},
		{"refused with an echo that is too long", func(*http.Request) (*http.Response, error) {
			return answer(401, `{"error":"invalid_client","error_description":"`+strings.Repeat("x", 200-len(clientSecret)+1)+clientSecret+`"}`), nil
		}, record.Config, 401, `xxx***: correct the token URL`},
		{"refused with a page", func(*http.Request) (*http.Response, error) { return answer(400, "<html>"+clientSecret), nil }, record.Config, 400, `from https://id.example/token: status 400: correct`},
		{"redirected", func(*http.Request) (*http.Response, error) { return answer(302, ""), nil }, record.Config, 302, "correct the token URL"},
		{"down", func(*http.Request) (*http.Response, error) {
			r := answer(503, "")
			r.Header.Set("Retry-After", "7")
			return r, nil
		}, record.Retryable, 503, "status 503"},
		{"no connection", func(*http.Request) (*http.Response, error) {
			return nil, errors.New("connection refused by " + clientSecret)
		}, record.Retryable, 0, "connection refused by ***"},
		{"too slow", func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}, record.Timeout, 0, "no answer within 10s"},
		{"no JSON", answers("token"), record.Retryable, 0, "not the JSON of a token"},
		{"no token", answers("{}"), record.Retryable, 0, "no access_token"},
		{"unusable token", answers(`{"access_token":"a\nb"}`), record.Retryable, 0, "cannot stand in a header"},
		{"another type", answers(`{"access_token":"a","token_type":"mac"}`), record.Config, 0, "only bearer tokens"},
		{"bad lifetime", answers(`{"access_token":"a","expires_in":"soon"}`), record.Retryable, 0, "expires_in"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := signing(t, oauth(tc.do))
				_, err := s.Sign(t.Context(), request(t, "POST", "https://h/", ""))
				e := record.AsError(err)
				if e == nil || e.Class != tc.class || e.Code != tc.code || !strings.Contains(e.Message, tc.want) {
					t.Fatalf("got %v, want class %s, code %d, %q", err, tc.class, tc.code, tc.want)
				}
				if strings.Contains(err.Error(), clientSecret) {
					t.Errorf("the message tells the secret: %v", err)
				}
				if tc.code == 503 && e.RetryAfter != 7*time.Second {
					t.Errorf("retry after %s", e.RetryAfter)
				}
			})
		})
	}
}
