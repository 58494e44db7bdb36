package delivery

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/runtime/delivery/batch"
	"github.com/millrace-io/millrace/runtime/delivery/sign"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

// A kept record is attempted once, also if it was never attempted before.
func TestKeptIsTriedOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := &partner{answer: always(500)}
		e := engine(t, p, Config{Order: flow.OrderKey}, ConnectionConfig{})
		defer closeEngine(t, e)
		a := rec(3, "a")
		h := Hold("deliver", &a)
		l, got := e.Open(part, []uint64{h}), collect(t)
		l.Deliver(t.Context(), []record.Item{{Record: a, Retry: &record.Retry{Stage: "deliver", Hold: h, Via: "sha256:x", Requeues: 2, Generation: 7}}}, got.done)
		synctest.Wait()
		k := got.got[0].Keep
		if got.say(1) != "keep" || k.Attempts != 1 || k.First != time.Now().UnixMilli() || k.Requeues != 2 || k.Via != "sha256:x" || k.Generation != 7 || len(p.requests()) != 1 {
			t.Errorf("%s after %d requests: %+v", got.say(1), len(p.requests()), k)
		}
		// What another stage kept begins anew, and nothing follows it.
		got = collect(t)
		l.Deliver(t.Context(), []record.Item{{Record: a, Retry: &record.Retry{Stage: "map1", Attempts: 70, First: 5}}}, got.done)
		synctest.Wait()
		if k := got.got[0].Keep; k == nil || k.Attempts != 1 || k.First < 10 || k.Hold != 0 {
			t.Errorf("of another stage: %s %+v", got.say(1), k)
		}
	})
}

// A record that the state lets go a second time follows nothing any more,
// whatever became of what it was parked behind.
func TestParkedOnceOnly(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := &partner{answer: always(429)}
		e := engine(t, p, Config{Order: flow.OrderKey}, ConnectionConfig{})
		defer closeEngine(t, e)
		a, b := rec(3, "a"), rec(4, "a")
		h := Hold("deliver", &a)
		l := e.Open(part, []uint64{h, h})
		give := func(r record.Record) string {
			got := collect(t)
			l.Deliver(t.Context(), []record.Item{{Record: r, Retry: &record.Retry{Stage: "deliver", Hold: h}}}, got.done)
			synctest.Wait()
			return got.say(1)
		}
		if s := give(a) + " " + give(b); s != "keep park" {
			t.Fatalf("got %s", s)
		}
		p.set(nil)
		if s := give(b); s != "ok" {
			t.Errorf("the second time: %s", s)
		}
	})
}

// A turn that nobody took is not saved up.
// What was parked in an earlier round is let go by the state, together with one
// that goes before it. That one fails again, which the state does not know yet.
func TestParkedAgainBehindOneThatFailsLater(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := &partner{answer: always(503)}
		recs := []record.Record{rec(0, "a"), rec(1, "a"), rec(2, "a")}
		h := Hold("deliver", &recs[0])
		e := engine(t, p, Config{Order: flow.OrderKey}, ConnectionConfig{})
		defer closeEngine(t, e)
		l := e.Open(part, []uint64{h, h, h})
		give := func(want string, offsets ...int) {
			t.Helper()
			var its []record.Item
			for _, o := range offsets {
				its = append(its, record.Item{Record: recs[o], Retry: &record.Retry{Stage: "deliver", Hold: h}})
			}
			got := collect(t)
			l.Deliver(t.Context(), its, got.done)
			synctest.Wait()
			if got.say(len(its)) != want {
				t.Fatalf("%v: %s, want %s", offsets, got.say(len(its)), want)
			}
		}
		give("keep park park", 0, 1, 2)
		p.set(always(200))
		give("ok", 0) // the state lets 1 and 2 go
		p.set(always(503))
		give("keep", 1)
		p.set(always(200))
		give("park", 2)
		if p.offsets() != "0 0 1" {
			t.Errorf("sent %s", p.offsets())
		}
		give("ok", 1)
		give("ok", 2)
	})
}

func TestTurnsAreNotSavedUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := &partner{}
		e := engine(t, p, Config{Order: flow.OrderNone}, ConnectionConfig{RequestsPerSecond: 1})
		defer closeEngine(t, e)
		l, got := e.Open(part, nil), collect(t)
		ctx, cancel := context.WithCancel(t.Context())
		l.Deliver(ctx, items(rec(0, "a"), rec(1, "a")), got.done)
		time.Sleep(time.Millisecond)
		cancel()
		time.Sleep(10 * time.Second)
		if got.say(2) != "ok canceled" {
			t.Fatalf("got %s", got.say(2))
		}
		l.Deliver(t.Context(), items(rec(2, "a"), rec(3, "a")), collect(t).done)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if xs := p.requests(); len(xs) != 3 || xs[2].at.Sub(xs[1].at) < time.Second {
			t.Errorf("%d requests, the last two %s apart", len(xs), xs[len(xs)-1].at.Sub(xs[len(xs)-2].at))
		}
	})
}

// waiter signs once its gate is open, as with a token that is on its way.
type waiter chan struct{}

func (w waiter) Do(ctx context.Context, r *sign.Request, send func(context.Context, *sign.Request) (int, error)) error {
	<-w
	_, err := send(ctx, r)
	return err
}

// What a token has held up does not go out at once.
func TestTheLimitHoldsBehindASlowToken(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := &partner{}
		gate := make(waiter)
		e := engine(t, p, Config{Order: flow.OrderNone, Signer: gate}, ConnectionConfig{RequestsPerSecond: 10, Concurrent: 16})
		defer closeEngine(t, e)
		var recs []record.Record
		for i := range int64(40) {
			recs = append(recs, rec(i, "a"))
		}
		got := collect(t)
		e.Open(part, nil).Deliver(t.Context(), items(recs...), got.done)
		time.Sleep(10 * time.Second)
		close(gate)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if most := busiest(p.requests(), time.Second); got.len() != 40 || most > 11 {
			t.Errorf("%d delivered, %d within a second", got.len(), most)
		}
	})
}

// A probe that cannot be sent leaves its turn to the next.
func TestAProbeThatCannotBeSent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := &partner{answer: always(0)}
		push := &flow.HTTPPush{Method: "POST", Path: "/orders/${value.o / value.z}"}
		e := engine(t, p, Config{Order: flow.OrderNone, Build: builder(t, push)}, ConnectionConfig{})
		defer closeEngine(t, e)
		l, got, bad := e.Open(part, nil), collect(t), collect(t)
		good := rec(1, "a")
		good.Value = []byte(`{"o":4,"z":2}`)
		l.Deliver(t.Context(), items(good), got.done)
		time.Sleep(4 * time.Second)
		if e.Held() == "" {
			t.Fatal("not held")
		}
		l.Deliver(t.Context(), items(rec(2, "a")), bad.done)
		time.Sleep(2 * DefaultBreakerProbe)
		p.set(nil)
		time.Sleep(2 * DefaultBreakerProbe)
		synctest.Wait()
		if got.say(1) != "ok" || bad.say(1) != "schema" {
			t.Errorf("got %s and %s", got.say(1), bad.say(1))
		}
		if u := p.requests()[0].req.URL.String(); u != "http://partner.example/orders/2" {
			t.Errorf("URL %s", u)
		}
	})
}

// What waits for its batch to be complete follows what is kept, too.
func TestAnOpenBatchFollowsWhatIsKept(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := &partner{answer: always(429)}
		e := engine(t, p, Config{Order: flow.OrderKey, Batch: &batch.Config{Records: 3, Wait: time.Minute}}, ConnectionConfig{})
		defer closeEngine(t, e)
		got := collect(t)
		e.Open(part, nil).Deliver(t.Context(), items(rec(0, "a"), rec(1, "a"), rec(2, "a"), rec(3, "b"), rec(4, "a")), got.done)
		time.Sleep(DefaultSpillAfter + time.Second)
		p.set(nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got.say(5) != "keep keep keep ok park" {
			t.Errorf("got %s", got.say(5))
		}
	})
}

// A record that does not fit into a batch fails alone, in its place.
func TestUnfitForABatch(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := &partner{}
		e := engine(t, p, Config{Order: flow.OrderKey, Batch: &batch.Config{Records: 2, Bytes: 200, Wait: time.Second}}, ConnectionConfig{})
		defer closeEngine(t, e)
		no, large := rec(1, "a"), rec(3, "a")
		no.Value, large.Value = []byte("{"), []byte(`"`+strings.Repeat("x", 300)+`"`)
		l, got := e.Open(part, nil), collect(t)
		l.Deliver(t.Context(), items(rec(0, "a"), no, rec(2, "a"), large, rec(4, "a")), got.done)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got.say(5) != "ok schema ok too_large ok" || p.offsets() != "0+2 4" {
			t.Errorf("got %s, sent %s", got.say(5), p.offsets())
		}
		// The same of a batch that comes back, of which one is no JSON now.
		got = collect(t)
		l.Deliver(t.Context(), []record.Item{
			{Record: rec(5, "a"), Retry: &record.Retry{Group: "g", GroupIndex: 0}},
			{Record: no, Retry: &record.Retry{Group: "g", GroupIndex: 1}},
			{Record: rec(6, "a"), Retry: &record.Retry{Group: "g", GroupIndex: 2}},
		}, got.done)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got.say(3) != "ok schema ok" {
			t.Errorf("of a group: %s", got.say(3))
		}
	})
}

func TestChain(t *testing.T) {
	if Chain() != nil || Chain(nil, nil) != nil {
		t.Error("a chain of nothing is something")
	}
	adds := func(name string) Signer {
		return signerFunc(func(ctx context.Context, r *sign.Request, send func(context.Context, *sign.Request) (int, error)) error {
			out := *r
			out.Header = append(append([]record.Header(nil), r.Header...), record.Header{Key: name})
			_, err := send(ctx, &out)
			return err
		})
	}
	var got string
	var mu sync.Mutex
	err := Chain(adds("a"), nil, adds("b"), adds("c")).Do(t.Context(), &sign.Request{}, func(_ context.Context, r *sign.Request) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		for _, h := range r.Header {
			got += h.Key
		}
		return 422, record.Errorf(record.Rejected, "no")
	})
	if got != "abc" || record.AsError(err).Class != record.Rejected {
		t.Errorf("got %q, %v", got, err)
	}
	// Both tokens are renewed.
	first, second := &signer{}, &signer{}
	sent := 0
	err = Chain(first, second).Do(t.Context(), &sign.Request{}, func(context.Context, *sign.Request) (int, error) {
		sent++
		if first.renewed && second.renewed {
			return 200, nil
		}
		return 401, record.Errorf(record.Config, "401")
	})
	if err != nil || sent != 3 {
		t.Errorf("%v after %d requests", err, sent)
	}
}

type signerFunc func(ctx context.Context, r *sign.Request, send func(context.Context, *sign.Request) (int, error)) error

func (f signerFunc) Do(ctx context.Context, r *sign.Request, send func(context.Context, *sign.Request) (int, error)) error {
	return f(ctx, r, send)
}

// While the breaker is open nothing is handed back, also not what came from
// the state and was told to wait.
func TestNothingIsKeptWhileTheBreakerIsOpen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := &partner{patience: "20", answer: func(x exchange) (int, string, time.Duration) {
			if x.orders[0].Key == "a" {
				return 429, "", 5 * time.Second
			}
			return 0, "", 0
		}}
		e := engine(t, p, Config{Order: flow.OrderKey}, ConnectionConfig{})
		defer closeEngine(t, e)
		a := rec(3, "a")
		h := Hold("deliver", &a)
		l, got := e.Open(part, []uint64{h}), collect(t)
		l.Deliver(t.Context(), []record.Item{{Record: a, Retry: &record.Retry{Hold: h, Attempts: 5, First: 1}}}, got.done)
		l.Deliver(t.Context(), items(rec(4, "b")), func(int, record.Outcome) {})
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if e.Held() == "" || got.say(1) != "-" {
			t.Fatalf("held %q, %s", e.Held(), got.say(1))
		}
		p.set(func(x exchange) (int, string, time.Duration) {
			if x.orders[0].Key == "a" {
				return 500, "", 0
			}
			return 200, "", 0
		})
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if got.say(1) != "keep" || e.Held() != "" {
			t.Errorf("after it closed: %s, held %q", got.say(1), e.Held())
		}
	})
}

// With OnePerKey a key has one record in a batch, whatever the partner takes of
// it; the batches are filled with other keys.
func TestOnePerKey(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := &partner{}
		j := &judge{again: map[int64]bool{0: true}}
		e := engine(t, p, Config{Order: flow.OrderKey, OnePerKey: true, Judge: j, Batch: &batch.Config{Records: 3, Wait: time.Second}}, ConnectionConfig{})
		defer closeEngine(t, e)
		l, got := e.Open(part, nil), collect(t)
		l.Deliver(t.Context(), items(rec(0, "a"), rec(1, "a"), rec(2, "b"), rec(3, "a"), rec(4, "c"), rec(5, "b")), got.done)
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		if got.say(6) != "- - ok - ok -" || !strings.HasPrefix(p.offsets(), "0+2+4 0") || strings.Contains(p.offsets(), "1") {
			t.Fatalf("got %s, sent %s", got.say(6), p.offsets())
		}
		j.mu.Lock()
		j.again = nil
		j.mu.Unlock()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		var as []int64
		for _, x := range p.requests() {
			for _, o := range x.orders {
				if o.Key == "a" && o.Offset > 0 {
					as = append(as, o.Offset)
				}
			}
		}
		if got.say(6) != "ok ok ok ok ok ok" || len(as) != 2 || as[0] != 1 || as[1] != 3 {
			t.Fatalf("got %s, sent %s", got.say(6), p.offsets())
		}

		// What waits for its turn follows what is kept, and ends with its context.
		p.set(always(429))
		ctx, cancel := context.WithCancel(t.Context())
		got = collect(t)
		l.Deliver(ctx, items(rec(6, "a"), rec(7, "a"), rec(8, "a"), rec(9, "b"), rec(10, "b")), got.done)
		time.Sleep(DefaultSpillAfter + 3*time.Second)
		synctest.Wait()
		if got.say(5) != "keep park park keep park" {
			t.Errorf("kept: %s", got.say(5))
		}
		got = collect(t)
		l.Deliver(ctx, items(rec(11, "x"), rec(12, "x")), got.done)
		time.Sleep(2 * time.Second)
		cancel()
		synctest.Wait()
		if got.say(2) != "canceled canceled" {
			t.Errorf("after the end: %s", got.say(2))
		}
		// Also while an attempt is under way that is finished.
		ctx, cancel = context.WithCancel(t.Context())
		p.set(func(exchange) (int, string, time.Duration) { return 200, "", 10 * time.Second })
		got = collect(t)
		l.Deliver(ctx, items(rec(13, "y"), rec(14, "y")), got.done)
		time.Sleep(2 * time.Second)
		cancel()
		synctest.Wait()
		if got.say(2) != "- canceled" {
			t.Errorf("while an attempt is under way: %s", got.say(2))
		}
		time.Sleep(10 * time.Second)
		// What comes back from the state has the same bound.
		p.set(nil)
		n := len(p.requests())
		got = collect(t)
		its := items(rec(20, "p"), rec(21, "q"), rec(22, "p"), rec(23, "q"), rec(24, "r"))
		for i := range its {
			its[i].Retry = &record.Retry{Hold: Hold("deliver", &its[i].Record)}
		}
		l.Deliver(t.Context(), its, got.done)
		synctest.Wait()
		if got.say(5) != "ok ok ok ok ok" {
			t.Fatalf("from the state: %s", got.say(5))
		}
		for _, x := range p.requests()[n:] {
			seen := map[string]bool{}
			for _, o := range x.orders {
				if seen[o.Key] {
					t.Errorf("two of key %s in %v", o.Key, x.orders)
				}
				seen[o.Key] = true
			}
		}
	})
}

// A record that pauses the flow keeps back what waits for its turn behind it.
func TestOnePerKeyHoldsBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := &partner{answer: func(x exchange) (int, string, time.Duration) { return 401, "", 2 * time.Second }}
		e := engine(t, p, Config{Order: flow.OrderKey, OnePerKey: true, Batch: &batch.Config{Records: 2, Wait: time.Second}}, ConnectionConfig{})
		defer closeEngine(t, e)
		got := collect(t)
		e.Open(part, nil).Deliver(t.Context(), items(rec(0, "a"), rec(1, "a"), rec(2, "b"), rec(3, "b"), rec(4, "c"), rec(5, "a")), got.done)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got.say(6) != "config canceled config canceled config canceled" {
			t.Errorf("got %s, sent %s", got.say(6), p.offsets())
		}
	})
}
