package delivery

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/runtime/delivery/sign"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
	"github.com/millrace-io/millrace/runtime/retry"
)

// busiest is the most requests that began within any span of a time.
func busiest(xs []exchange, span time.Duration) int {
	most, from := 0, 0
	for to := range xs {
		for xs[to].at.Sub(xs[from].at) >= span {
			from++
		}
		most = max(most, to-from+1)
	}
	return most
}

func TestRate(t *testing.T) {
	for _, perSecond := range []float64{0.5, 20, 333} {
		bubble(t, func(t *testing.T) {
			p := &partner{answer: func(exchange) (int, string, time.Duration) { return 200, "", 7 * time.Millisecond }}
			e := engine(t, p, Config{Order: flow.OrderNone}, ConnectionConfig{RequestsPerSecond: perSecond, Concurrent: 1000})
			defer closeEngine(t, e)
			n := int(perSecond * 10)
			var recs []record.Record
			for i := range n {
				recs = append(recs, rec(int64(i), "a"))
			}
			time.Sleep(10 * time.Second) // idle time saves up nothing
			began := time.Now()
			got := collect(t)
			e.Open(part, nil).Deliver(t.Context(), items(recs...), got.done)
			time.Sleep(time.Second/2 + time.Millisecond)
			synctest.Wait()
			if u := e.cfg.Conn.Usage(); u.PerSecond != perSecond || float64(u.LastSecond) > perSecond/2+2 || u.Waiting+u.LastSecond != n {
				t.Errorf("usage %+v", u)
			}
			time.Sleep(20 * time.Second)
			synctest.Wait()
			xs := p.requests()
			if len(xs) != n || got.len() != n {
				t.Fatalf("%g/s: %d requests, %d answers, want %d", perSecond, len(xs), got.len(), n)
			}
			if most := busiest(xs, time.Second); float64(most) > max(perSecond*1.05, 1) {
				t.Errorf("%g/s: %d requests within a second", perSecond, most)
			}
			if took, want := xs[n-1].at.Sub(began).Seconds(), float64(n-1)/perSecond; took > want*1.05+0.01 {
				t.Errorf("%g/s: took %.2f s, want %.2f", perSecond, took, want)
			}
		})
	}
}

func TestConcurrent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := &partner{answer: func(exchange) (int, string, time.Duration) { return 200, "", time.Second }}
		e := engine(t, p, Config{Order: flow.OrderNone}, ConnectionConfig{Concurrent: 8})
		bounded := engine(t, p, Config{Order: flow.OrderNone, Concurrent: 2, Conn: e.cfg.Conn}, ConnectionConfig{})
		defer closeEngine(t, e)
		defer closeEngine(t, bounded)
		underWay := map[bool]int{}
		most := map[bool]int{}
		p.check = func(x exchange, begins bool) {
			own := x.orders[0].Key == "bounded"
			if begins {
				underWay[own]++
				most[own] = max(most[own], underWay[own])
			} else {
				underWay[own]--
			}
		}
		var many, few []record.Record
		for i := range int64(1000) {
			many = append(many, rec(i, "a"))
		}
		for i := range int64(20) {
			few = append(few, rec(i, "bounded"))
		}
		l, l2 := e.Open(part, nil), bounded.Open(part, nil)
		got, got2 := collect(t), collect(t)
		l.Deliver(t.Context(), items(many...), got.done)
		l2.Deliver(t.Context(), items(few...), got2.done)
		time.Sleep(500 * time.Millisecond)
		if u := e.cfg.Conn.Usage(); u.UnderWay != 8 || u.Concurrent != 8 || u.Waiting != 1012 {
			t.Errorf("usage %+v", u)
		}
		// The few do not wait for the many: one or two of them a second.
		time.Sleep(21 * time.Second)
		synctest.Wait()
		if got2.len() != 20 {
			t.Errorf("%d of 20 beside 1000 others", got2.len())
		}
		if p.most != 8 || most[true] != 2 {
			t.Errorf("at most %d and %d at once, want 8 and 2", p.most, most[true])
		}
	})
}

func TestRetryAfterHoldsTheConnection(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := &partner{header: http.Header{"Retry-After": {"7"}}, answer: always(429)}
		e := engine(t, p, Config{Order: flow.OrderNone}, ConnectionConfig{Concurrent: 1})
		defer closeEngine(t, e)
		l, got := e.Open(part, nil), collect(t)
		began := time.Now()
		l.Deliver(t.Context(), items(rec(0, "a"), rec(1, "a"), rec(2, "a")), got.done)
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if n := len(p.requests()); n != 1 {
			t.Fatalf("%d requests while the partner asked to wait", n)
		}
		if u := e.cfg.Conn.Usage(); !u.Until.Equal(began.Add(7*time.Second)) || u.Breaker != Closed {
			t.Errorf("usage %+v", u)
		}
		p.set(nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got.say(3) != "ok ok ok" {
			t.Errorf("got %s", got.say(3))
		}
		// An absurd wish holds the request it answered, not all.
		p.header.Set("Retry-After", "600")
		p.set(func(x exchange) (int, string, time.Duration) {
			if x.orders[0].Offset == 3 {
				return 429, "", 0
			}
			return 200, "", 0
		})
		got = collect(t)
		l.Deliver(t.Context(), items(rec(3, "a"), rec(4, "a")), got.done)
		time.Sleep(MaxHold + time.Second)
		synctest.Wait()
		if got.say(2) != "keep ok" || got.got[0].Keep.Due-got.got[0].Keep.At < (9*time.Minute).Milliseconds() {
			t.Errorf("got %s", got.say(2))
		}
	})
}

// A partner that is down for ten minutes: nothing is kept, one request at a
// time tries it, and all of it goes on at the configured rate.
func TestOutage(t *testing.T) {
	const n, perSecond = 2000, 50
	for _, order := range []flow.Order{flow.OrderNone, flow.OrderKey, flow.OrderPartition} {
		for _, status := range []int{0, 1, 500, 503} {
			bubble(t, func(t *testing.T) {
				p := &partner{}
				e := engine(t, p, Config{Order: order, Policy: retry.Policy{Attempts: 20}}, ConnectionConfig{RequestsPerSecond: perSecond, Concurrent: 16})
				defer closeEngine(t, e)
				var recs []record.Record
				for i := range int64(n) {
					recs = append(recs, rec(i, fmt.Sprint("k", i%400)))
				}
				got := collect(t)
				l := e.Open(part, nil)
				l.Deliver(t.Context(), items(recs[:20]...), got.done)
				time.Sleep(time.Second)
				p.set(always(status))
				l.Deliver(t.Context(), items(recs[20:]...), func(i int, o record.Outcome) { got.done(i+20, o) })
				time.Sleep(15 * time.Second)
				reason := e.Held()
				before := len(p.requests())
				if reason == "" || e.Problem() != reason {
					t.Fatalf("%s, %d: after 15 s it is not held; problem %q", order, status, e.Problem())
				}
				for range 58 {
					time.Sleep(10 * time.Second)
					if order == flow.OrderPartition && status == 500 {
						continue // one record at a time that always gets 500: others are let in
					}
					if held := e.Held(); held != reason {
						t.Fatalf("%s, %d: the reason became %q, was %q", order, status, held, reason)
					}
				}
				synctest.Wait()
				if got.len() != 20 {
					t.Fatalf("%s, %d: %d answers during the outage: %s", order, status, got.len()-20, got.say(40))
				}
				if tries := len(p.requests()) - before; tries < 100 || tries > 120 {
					t.Errorf("%s, %d: %d requests in 580 s of outage", order, status, tries)
				}
				p.set(nil)
				healed := len(p.requests())
				time.Sleep(DefaultBreakerProbe + time.Second)
				if e.Held() != "" || len(p.requests()) < healed+2 {
					t.Errorf("%s, %d: not resumed: %q", order, status, e.Held())
				}
				time.Sleep(n/perSecond*time.Second + time.Second)
				synctest.Wait()
				if got.say(n) != strings.TrimSpace(strings.Repeat("ok ", n)) {
					t.Errorf("%s, %d: not all are delivered: %.200s", order, status, got.say(n))
				}
				for i, o := range got.got {
					if o.Attempts > 15 {
						t.Fatalf("%s, %d: record %d: %d attempts", order, status, i, o.Attempts)
					}
				}
				xs := p.requests()[healed:]
				if most := busiest(xs, time.Second); most > perSecond*105/100 {
					t.Errorf("%s, %d: %d requests within a second of the backlog", order, status, most)
				}
			})
		}
	}
}

// However long the policy would have them wait: what failed goes on as soon as
// the other side works.
func TestTheBreakerWakesWhatSleeps(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := &partner{answer: always(0)}
		e := engine(t, p, Config{Order: flow.OrderNone, SpillAfter: -1, Policy: retry.Policy{First: time.Hour, Max: time.Hour}}, ConnectionConfig{Concurrent: 20})
		defer closeEngine(t, e)
		var recs []record.Record
		for i := range int64(60) {
			recs = append(recs, rec(i, "a"))
		}
		got := collect(t)
		e.Open(part, nil).Deliver(t.Context(), items(recs...), got.done)
		time.Sleep(3 * time.Second)
		if e.Held() == "" || got.len() != 0 {
			t.Fatalf("held %q, %d answers", e.Held(), got.len())
		}
		p.set(nil)
		time.Sleep(DefaultBreakerProbe)
		synctest.Wait()
		if got.len() != 60 {
			t.Errorf("%d of 60 within one probe", got.len())
		}
	})
}

// A record that fails once more after an outage of ten minutes has not been
// failing for ten minutes.
func TestTimeInWhichItWasDownDoesNotCount(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := &partner{answer: always(0)}
		e := engine(t, p, Config{Order: flow.OrderNone}, ConnectionConfig{Concurrent: 20})
		defer closeEngine(t, e)
		var recs []record.Record
		for i := range int64(60) {
			recs = append(recs, rec(i, "a"))
		}
		got := collect(t)
		e.Open(part, nil).Deliver(t.Context(), items(recs...), got.done)
		time.Sleep(10 * time.Minute)
		var mu sync.Mutex
		failed := map[int64]bool{}
		p.set(func(x exchange) (int, string, time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			if o := x.orders[0].Offset; o%4 == 0 && len(failed) > 0 && !failed[o] {
				failed[o] = true
				return 500, "", 0
			}
			failed[-1] = true
			return 200, "", 0
		})
		time.Sleep(time.Minute)
		synctest.Wait()
		if got.say(60) != strings.TrimSpace(strings.Repeat("ok ", 60)) || len(failed) < 10 {
			t.Errorf("%d failed again; got %s", len(failed)-1, got.say(60))
		}
	})
}

// One record that always gets a 500 does not keep others out.
func TestPoisonDoesNotHoldTheFlow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := &partner{answer: func(x exchange) (int, string, time.Duration) {
			if x.orders[0].Key == "poison" {
				return 500, "", 0
			}
			return 200, "", 0
		}}
		e := engine(t, p, Config{Order: flow.OrderKey}, ConnectionConfig{})
		defer closeEngine(t, e)
		l, got := e.Open(part, nil), collect(t)
		l.Deliver(t.Context(), items(rec(0, "poison")), got.done)
		time.Sleep(10 * time.Second)
		if e.Held() == "" {
			t.Fatal("not held after five failures")
		}
		time.Sleep(20 * time.Second)
		if e.Held() != "" {
			t.Fatalf("held for one record alone: %s", e.Held())
		}
		late := collect(t)
		l.Deliver(t.Context(), items(rec(1, "a"), rec(2, "b")), late.done)
		time.Sleep(2 * DefaultBreakerProbe) // the poison has its turn first
		synctest.Wait()
		if late.say(2) != "ok ok" || e.cfg.Conn.Usage().Breaker != Closed {
			t.Errorf("others: %s, %+v", late.say(2), e.cfg.Conn.Usage())
		}
	})
}

// With nothing left to try the other side with the flow is let go on.
func TestNotHeldWithNothingToTryWith(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := &partner{answer: always(0)}
		e := engine(t, p, Config{Order: flow.OrderKey}, ConnectionConfig{})
		defer closeEngine(t, e)
		l := e.Open(part, nil)
		ctx, cancel := context.WithCancel(t.Context())
		l.Deliver(ctx, items(rec(0, "a")), func(int, record.Outcome) {})
		time.Sleep(8 * time.Second)
		if e.Held() == "" {
			t.Fatal("not held")
		}
		cancel()
		time.Sleep(DefaultBreakerProbe)
		if e.Held() != "" {
			t.Fatalf("held: %s", e.Held())
		}
		p.set(nil)
		got := collect(t)
		l.Deliver(t.Context(), items(rec(0, "a"), rec(1, "b")), got.done)
		synctest.Wait()
		if got.say(2) != "ok ok" {
			t.Errorf("got %s", got.say(2))
		}
	})
}

// tokens cannot be had.
type noToken struct{}

func (noToken) Do(context.Context, *sign.Request, func(context.Context, *sign.Request) (int, error)) error {
	return record.Errorf(record.Retryable, "sign: token of client x: status 503")
}

func TestNoTokenOpensTheBreaker(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := &partner{}
		e := engine(t, p, Config{Order: flow.OrderNone, Signer: noToken{}}, ConnectionConfig{})
		defer closeEngine(t, e)
		got := collect(t)
		e.Open(part, nil).Deliver(t.Context(), items(rec(0, "a"), rec(1, "b"), rec(2, "c")), got.done)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if got.len() != 0 || !strings.Contains(e.Held(), "token of client x") || len(p.requests()) != 0 {
			t.Errorf("%s, held %q", got.say(3), e.Held())
		}
	})
}

func TestBreaker(t *testing.T) {
	type event struct {
		after time.Duration
		what  string // ok, fail, or fail of an older generation
		times int
		want  BreakerState
	}
	const s, ms = time.Second, time.Millisecond
	for _, tc := range []struct {
		name   string
		events []event
	}{
		{"five in a row over a second", []event{{0, "fail", 4, Closed}, {s, "fail", 1, Open}}},
		{"a burst is none", []event{{0, "ok", 100, Closed}, {0, "fail", 49, Closed}, {0, "ok", 1, Closed}}},
		{"fifty in a row at once", []event{{0, "ok", 1000, Closed}, {0, "fail", 49, Closed}, {0, "fail", 1, Open}}},
		{"half of twenty", []event{{0, "ok", 10, Closed}, {0, "fail", 4, Closed}, {0, "ok", 1, Closed}, {0, "fail", 4, Closed}, {0, "ok", 1, Closed}, {0, "fail", 3, Closed}, {0, "fail", 1, Open}}},
		{"of old ones nothing counts", []event{{0, "fail", 10, Closed}, {500 * ms, "ok", 1, Closed}, {11 * s, "fail", 4, Closed}, {0, "ok", 11, Closed}, {0, "fail", 4, Closed}}},
		{"a probe that fails", []event{{0, "fail", 50, Open}, {0, "probe", 1, HalfOpen}, {s, "fail", 1, Open}}},
		{"a probe that works", []event{{0, "fail", 50, Open}, {0, "probe", 1, HalfOpen}, {s, "ok", 1, Closed}, {0, "fail", 4, Closed}}},
		{"what began before says nothing", []event{{0, "fail", 50, Open}, {0, "old ok", 5, Open}, {0, "probe", 1, HalfOpen}, {0, "old fail", 9, HalfOpen}, {0, "old ok", 1, HalfOpen}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			now := time.Unix(1_700_000_000, 0)
			b := newBreaker(BreakerConfig{}, now)
			for i, ev := range tc.events {
				now = now.Add(ev.after)
				for range ev.times {
					switch ev.what {
					case "ok":
						b.success(b.generation, now)
					case "fail":
						b.failure(b.generation, now, "why")
					case "old ok":
						b.success(b.generation-1, now)
					case "old fail":
						b.failure(b.generation-1, now, "why")
					case "probe":
						b.become(HalfOpen, now)
					}
				}
				if b.state != ev.want {
					t.Fatalf("event %d: %s, want %s (%s)", i, b.state, ev.want, b.reason())
				}
			}
		})
	}
}

// A partner that at first cuts connections and then is not there at all is shown
// as it is now, and since when that lasts.
func TestBreakerReason(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	b := newBreaker(BreakerConfig{}, now)
	for range 20 {
		b.failure(b.generation, now, "EOF")
	}
	opened := now
	const cut = "20 of the last 20 requests failed, the last one with: EOF"
	for _, probe := range []struct{ why, want string }{
		{"EOF", cut},
		{"refused", cut + "; now: refused"},
		{"refused", cut + "; now: refused"},
	} {
		now = now.Add(5 * time.Second)
		b.become(HalfOpen, now)
		b.failure(b.generation, now, probe.why)
		if got := b.reason(); got != probe.want || !b.shownSince().Equal(opened) {
			t.Errorf("after %s: %q since %v, want %q since %v", probe.why, got, b.shownSince(), probe.want, opened)
		}
	}
	b.become(HalfOpen, now)
	if b.success(b.generation, now); b.reason() != "" || !b.shownSince().Equal(now) {
		t.Errorf("closed: %q since %v", b.reason(), b.shownSince())
	}
}

func TestDo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := &partner{answer: func(exchange) (int, string, time.Duration) { return 418, "x", time.Second }}
		c := NewConnection(ConnectionConfig{Name: "c", Concurrent: 1, Send: p.send})
		u, _ := url.Parse("http://partner.example/")
		req := &sign.Request{Method: "POST", URL: u}
		for range 3 {
			go func() {
				if resp, err := c.Do(t.Context(), req, 0); err != nil || resp.Status != 418 {
					t.Errorf("got %v, %v", resp, err)
				}
			}()
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if _, err := c.Do(ctx, req, 0); !errors.Is(err, context.Canceled) {
			t.Errorf("without a turn: %v", err)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if u := c.Usage(); len(p.requests()) != 3 || p.most != 1 || u.UnderWay != 0 || u.Waiting != 0 {
			t.Errorf("%d requests, %d at once, %+v", len(p.requests()), p.most, u)
		}
	})
}
