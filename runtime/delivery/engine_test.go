package delivery

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/runtime/delivery/batch"
	"github.com/millrace-io/millrace/runtime/delivery/sign"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
	"github.com/millrace-io/millrace/runtime/retry"
)

var part = record.Partition{Topic: "t"}

// bubble runs a test with its own time.
func bubble(t *testing.T, f func(t *testing.T)) { t.Helper(); synctest.Test(t, f) }

func closeEngine(t *testing.T, e *Engine) {
	t.Helper()
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

func TestOrders(t *testing.T) {
	// The first request of offset 0 fails, the others do not; each takes 10 ms.
	flaky := func() func(exchange) (int, string, time.Duration) {
		first := true
		return func(x exchange) (int, string, time.Duration) {
			if x.orders[0].Offset == 0 && first {
				first = false
				return 500, "", 10 * time.Millisecond
			}
			return 200, "", 10 * time.Millisecond
		}
	}
	for _, tc := range []struct {
		order flow.Order
		want  string
		most  int
	}{
		{flow.OrderPartition, "0 0 1 2 3 4", 1},
		{flow.OrderKey, "0 1 3 4 0 2", 4}, // 0 and 2 have a key, 1 and 3 one each, 4 none
		{flow.OrderNone, "0 1 2 3 4 0", 5},
	} {
		bubble(t, func(t *testing.T) {
			p := &partner{}
			inOrder := flaky()
			p.answer = func(x exchange) (int, string, time.Duration) { return inOrder(x) }
			e := engine(t, p, Config{Order: tc.order}, ConnectionConfig{RequestsPerSecond: 1e6}) // one after the other, so that the log has an order
			defer closeEngine(t, e)
			got := collect(t)
			e.Open(part, nil).Deliver(t.Context(), items(rec(0, "a"), rec(1, "b"), rec(2, "a"), rec(3, "c"), rec(4, "")), got.done)
			time.Sleep(10 * time.Second)
			synctest.Wait()
			if got.say(5) != "ok ok ok ok ok" || p.offsets() != tc.want || p.most != tc.most {
				t.Errorf("%s: %s; sent %s, want %s; at most %d at once, want %d", tc.order, got.say(5), p.offsets(), tc.want, p.most, tc.most)
			}
			if got.got[0].Attempts != 2 || got.got[1].Attempts != 1 {
				t.Errorf("%s: attempts %d and %d", tc.order, got.got[0].Attempts, got.got[1].Attempts)
			}
		})
	}
}

func TestWhatHoldsBack(t *testing.T) {
	for _, tc := range []struct {
		name     string
		order    flow.Order
		status   int
		holdBack bool
		sent     string
		want     string
	}{
		{"a rejection", flow.OrderPartition, 422, false, "0 1 2 3", "ok rejected ok ok"},
		{"a rejection that pauses", flow.OrderPartition, 422, true, "0 1", "ok rejected canceled canceled"},
		{"a rejection that pauses its key", flow.OrderKey, 422, true, "0 1 3", "ok rejected canceled ok"},
		{"401", flow.OrderPartition, 401, false, "0 1", "ok config canceled canceled"},
		{"401 of a key", flow.OrderKey, 401, false, "0 1 3", "ok config canceled ok"},
		{"no order", flow.OrderNone, 401, true, "0 1 2 3", "ok config ok ok"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := &partner{answer: func(x exchange) (int, string, time.Duration) {
					if x.orders[0].Offset == 1 {
						return tc.status, "no", time.Millisecond
					}
					return 200, "", time.Millisecond
				}}
				e := engine(t, p, Config{Order: tc.order, HoldBack: tc.holdBack}, ConnectionConfig{RequestsPerSecond: 1e5})
				defer closeEngine(t, e)
				l, got := e.Open(part, nil), collect(t)
				l.Deliver(t.Context(), items(rec(0, "a"), rec(1, "b"), rec(2, "b"), rec(3, "c")), got.done)
				time.Sleep(time.Second)
				synctest.Wait()
				if p.offsets() != tc.sent || got.say(4) != tc.want {
					t.Errorf("sent %s, want %s; got %s, want %s", p.offsets(), tc.sent, got.say(4), tc.want)
				}
				if strings.Contains(tc.want, "canceled") {
					late := collect(t)
					l.Deliver(t.Context(), items(rec(4, "b")), late.done)
					synctest.Wait()
					if late.say(1) != "canceled" {
						t.Errorf("a later record of the key: %s", late.say(1))
					}
				}
			})
		})
	}
}

// A failure of a record tells what was asked and answered, and no secrets.
func TestFailuresShowTheExchange(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := &partner{header: http.Header{"Set-Cookie": {"s3cret"}, "X-Reason": {"token-abc s3cret"}}, answer: func(exchange) (int, string, time.Duration) {
			return 422, "you sent token-abc with s3cret " + strings.Repeat("é", MaxShown), 0
		}}
		push := &flow.HTTPPush{Method: "PUT", Path: "/o?key=qwertz&x=s3cret", Headers: []flow.HeaderTemplate{{Name: "Authorization", Value: "Bearer token-abc"}, {Name: "X-Own", Value: "v4lue"}, {Name: "A", Value: "b"}}}
		e := engine(t, p, Config{Build: builder(t, push), Redact: RedactConfig{Headers: []string{"x-own"}, Text: func(s string) string { return strings.ReplaceAll(s, "s3cret", "***") }}}, ConnectionConfig{})
		defer closeEngine(t, e)
		got := collect(t)
		e.Open(part, nil).Deliver(t.Context(), items(rec(7, "a")), got.done)
		synctest.Wait()
		o := got.got[0]
		x := o.Exchange
		if x == nil || o.Err == nil || len(o.History) != 1 || o.History[0].Code != 422 {
			t.Fatalf("got %+v", o)
		}
		said := fmt.Sprintf("%v %s %s %q %q %q %q %+v", o.Err, x.Method, x.URL, x.RequestHeaders, x.ResponseHeaders, x.RequestBody, x.ResponseBody, o.History)
		for _, secret := range []string{"s3cret", "token-abc", "qwertz", "v4lue"} {
			if strings.Contains(said, secret) {
				t.Errorf("%s is told: %.600s", secret, said)
			}
		}
		if x.Method != "PUT" || x.URL != "http://partner.example/o?key=***&x=***" || x.Status != 422 || string(x.RequestBody) != `{"k":"a","o":7}` || x.RequestCut {
			t.Errorf("got %+v", x)
		}
		if !x.ResponseCut || len(x.ResponseBody) > MaxShown || len(x.ResponseBody) < MaxShown-3 || strings.ContainsRune(string(x.ResponseBody), '\uFFFD') || !strings.HasPrefix(string(x.ResponseBody), "you sent *** with *** é") {
			t.Errorf("%d bytes of the answer are shown: %.80q", len(x.ResponseBody), x.ResponseBody)
		}
	})
}

func TestGivingUp(t *testing.T) {
	for _, tc := range []struct {
		name   string
		policy retry.Policy
		sent   int
	}{
		{"attempts", retry.Policy{First: time.Millisecond, Max: 10 * time.Millisecond, Attempts: 3}, 3},
		{"age", retry.Policy{First: 100 * time.Millisecond, Max: 100 * time.Millisecond, Within: 350 * time.Millisecond}, 4},
	} {
		bubble(t, func(t *testing.T) {
			p := &partner{answer: always(500)}
			e := engine(t, p, Config{Order: flow.OrderKey, Policy: tc.policy}, ConnectionConfig{Breaker: BreakerConfig{Failures: 1000}})
			defer closeEngine(t, e)
			got := collect(t)
			e.Open(part, nil).Deliver(t.Context(), items(rec(0, "a")), got.done)
			time.Sleep(5 * time.Second)
			synctest.Wait()
			o := got.got[0]
			if got.say(1) != "retryable" || int(o.Attempts) != tc.sent || len(o.History) != tc.sent || len(p.requests()) != tc.sent || o.Exchange == nil {
				t.Errorf("%s: %s after %d attempts, %d requests, history %+v", tc.name, got.say(1), o.Attempts, len(p.requests()), o.History)
			}
			if e.Problem() != "" {
				t.Errorf("problem %q", e.Problem())
			}
		})
	}
}

func TestContextEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := &partner{}
		p.set(func(x exchange) (int, string, time.Duration) {
			if x.orders[0].Key == "slow" {
				return 200, "", time.Second
			}
			return 503, "", 0
		})
		e := engine(t, p, Config{Order: flow.OrderKey}, ConnectionConfig{Concurrent: 2})
		defer closeEngine(t, e)
		l, got := e.Open(part, nil), collect(t)
		ctx, cancel := context.WithCancel(t.Context())
		l.Deliver(ctx, items(rec(0, "slow"), rec(1, "slow"), rec(2, "bad"), rec(3, "bad"), rec(4, "slow too"), rec(5, "c")), got.done)
		time.Sleep(50 * time.Millisecond)
		cancel()
		synctest.Wait()
		sent := len(p.requests())
		if got.say(6) != "- canceled canceled canceled canceled canceled" {
			t.Errorf("got %s", got.say(6))
		}
		l.Deliver(ctx, items(rec(6, "d")), got.done6(t))
		time.Sleep(time.Minute)
		synctest.Wait()
		if got.say(1) != "ok" || len(p.requests()) != sent {
			t.Errorf("%s; %d requests began after the end", got.say(1), len(p.requests())-sent)
		}
		// A lane goes on with another context.
		p.set(nil)
		more := collect(t)
		l.Deliver(t.Context(), items(rec(7, "bad")), more.done)
		synctest.Wait()
		if more.say(1) != "ok" {
			t.Errorf("with another context: %s", more.say(1))
		}
	})
}

func (o *outcomes) done6(t *testing.T) func(int, record.Outcome) {
	return func(_ int, out record.Outcome) {
		if !errors.Is(out.Err, context.Canceled) {
			t.Errorf("after the end: %v", out.Err)
		}
	}
}

func TestCloseCutsOff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := &partner{answer: func(exchange) (int, string, time.Duration) { return 200, "", time.Hour }}
		e := engine(t, p, Config{Order: flow.OrderNone, Batch: &batch.Config{Records: 3, Wait: time.Hour}}, ConnectionConfig{Concurrent: 1})
		l, got := e.Open(part, nil), collect(t)
		var recs []record.Record
		for i := range int64(8) {
			recs = append(recs, rec(i, "a"))
		}
		l.Deliver(t.Context(), items(recs...), got.done)
		synctest.Wait()
		for range 2 {
			closeEngine(t, e)
		}
		if got.say(8) != strings.Repeat("canceled ", 7)+"canceled" {
			t.Errorf("got %s", got.say(8))
		}
		late := collect(t)
		e.Open(part, nil).Deliver(t.Context(), items(rec(0, "a")), late.done)
		if late.say(1) != "canceled" {
			t.Errorf("after Close: %s", late.say(1))
		}
	})
}

// signer is an access token that the partner refuses until it is renewed.
type signer struct{ valid, renewed bool }

func (s *signer) Do(ctx context.Context, r *sign.Request, send func(context.Context, *sign.Request) (int, error)) error {
	status, err := send(ctx, r)
	if status == 401 && !s.renewed {
		s.renewed, s.valid = true, true
		_, err = send(ctx, r)
	}
	return err
}

func TestOneRefreshOn401(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &signer{}
		p := &partner{answer: func(exchange) (int, string, time.Duration) {
			if s.valid {
				return 200, "", 0
			}
			return 401, "", 0
		}}
		e := engine(t, p, Config{Signer: s}, ConnectionConfig{})
		defer closeEngine(t, e)
		l, got := e.Open(part, nil), collect(t)
		l.Deliver(t.Context(), items(rec(0, "a")), got.done)
		synctest.Wait()
		if got.say(1) != "ok" || len(p.requests()) != 2 || got.got[0].Attempts != 1 {
			t.Errorf("%s after %d requests", got.say(1), len(p.requests()))
		}
		s.valid = false
		got = collect(t)
		l.Deliver(t.Context(), items(rec(1, "a")), got.done)
		synctest.Wait()
		if got.say(1) != "config" || len(p.requests()) != 3 {
			t.Errorf("refused for good: %s after %d requests", got.say(1), len(p.requests()))
		}
	})
}

// Credentials that a signer adds by names of their own are not shown, nor what
// the partner sends back of them.
func TestCredentialsOfSignersAreHidden(t *testing.T) {
	bubble(t, func(t *testing.T) {
		signing := func(cfg sign.Config) *sign.Signing {
			s, err := sign.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		key := sign.NewSecret("key", []byte("0123456789abcdef0123456789abcdef"))
		signer := Chain(
			signing(sign.Config{APIKey: &sign.APIKey{Key: sign.NewSecret("api", []byte("apikey-value")), Query: "who"}}),
			signing(sign.Config{APIKey: &sign.APIKey{Key: sign.NewSecret("api2", []byte("second-value")), Header: "X-Who"}}),
			signing(sign.Config{JWT: &sign.JWT{Algorithm: "HS256", Key: key, Header: "X-Jay"}}),
		)
		var jwt string
		p := &partner{}
		p.set(func(x exchange) (int, string, time.Duration) {
			for _, h := range x.req.Header {
				if h.Key == "X-Jay" {
					jwt = strings.TrimPrefix(string(h.Value), "Bearer ")
				}
			}
			return 422, "no: " + x.req.URL.String() + " second-value " + jwt, 0
		})
		e := engine(t, p, Config{Signer: signer}, ConnectionConfig{})
		defer closeEngine(t, e)
		got := collect(t)
		e.Open(part, nil).Deliver(t.Context(), items(rec(0, "a")), got.done)
		synctest.Wait()
		x := got.got[0].Exchange
		if x == nil || len(jwt) < 20 {
			t.Fatalf("got %+v, token %q", got.got[0], jwt)
		}
		said := fmt.Sprintf("%v %v %s %q %s", got.got[0].Err, got.got[0].History, x.URL, x.RequestHeaders, x.ResponseBody)
		for _, secret := range []string{"apikey-value", "second-value", jwt} {
			if strings.Contains(said, secret) {
				t.Errorf("%s is told: %s", secret, said)
			}
		}
		if !strings.Contains(x.URL, "?who=***") {
			t.Errorf("URL %s", x.URL)
		}
	})
}
