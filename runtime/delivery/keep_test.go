package delivery

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

// What fails for long is kept, with what waits behind it; what comes later
// follows it, until all of it is gone.
func TestKeeping(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := &partner{}
		bad := func(x exchange) (int, string, time.Duration) {
			if x.orders[0].Key == "a" {
				return 500, "", 0
			}
			return 200, "", 0
		}
		p.set(bad)
		e := engine(t, p, Config{Order: flow.OrderKey, MaxKeep: 1000}, ConnectionConfig{Breaker: BreakerConfig{Failures: 1000}})
		defer closeEngine(t, e)
		l, got := e.Open(part, nil), collect(t)
		large := rec(2, "a")
		large.Headers = []record.Header{{Key: "h", Value: make([]byte, 1000)}}
		stop := make(chan struct{})
		defer close(stop)
		go func() { // others succeed meanwhile, so that the breaker has no reason
			for n := int64(100); ; n++ {
				select {
				case <-stop:
					return
				case <-time.After(100 * time.Millisecond):
					l.Deliver(t.Context(), items(rec(n, "b")), func(int, record.Outcome) {})
				}
			}
		}()
		began := time.Now()
		l.Deliver(t.Context(), items(rec(0, "a"), rec(1, "a"), large, rec(3, "a")), got.done)
		time.Sleep(DefaultSpillAfter - time.Second)
		synctest.Wait()
		if got.say(4) != "- - - -" || !strings.Contains(e.Problem(), "record t/0/0: retryable (500)") {
			t.Fatalf("after 29 s: %s, problem %q", got.say(4), e.Problem())
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got.say(4) != "keep park - -" {
			t.Fatalf("after 31 s: %s; the large one and what follows it wait here", got.say(4))
		}
		k := got.got[0].Keep
		if k.Hold != Hold("deliver", &large) || k.First != began.UnixMilli() || k.Attempts < 5 || len(k.History) != min(int(k.Attempts), record.MaxHistory) || k.Class != record.Retryable || k.Code != 500 || k.Due <= k.At || got.got[0].Err == nil {
			t.Errorf("kept as %+v", k)
		}
		if q := got.got[1].Keep; q.Hold != k.Hold || q.Attempts != 0 || q.First != 0 || got.got[1].Err != nil {
			t.Errorf("parked as %+v", q)
		}

		// The kept one is tried once.
		sent := len(p.requests())
		again := collect(t)
		l.Deliver(t.Context(), []record.Item{{Record: rec(0, "a"), Retry: k}}, again.done)
		synctest.Wait()
		k2 := again.got[0].Keep
		if again.say(1) != "keep" || k2.Attempts != k.Attempts+1 || k2.First != k.First || k2.Hold != k.Hold || k2.Due <= k2.At || len(p.requests()) != sent+1 {
			t.Fatalf("again: %s %+v", again.say(1), k2)
		}
		// One that the state let go with it must not go first.
		q := got.got[1].Keep
		second := collect(t)
		l.Deliver(t.Context(), []record.Item{{Record: rec(1, "a"), Retry: q}}, second.done)
		synctest.Wait()
		if second.say(1) != "park" {
			t.Fatalf("before the one it follows: %s", second.say(1))
		}
		// The partner mends; both go, in order, and the key is free after.
		p.set(nil)
		both := collect(t)
		l.Deliver(t.Context(), []record.Item{{Record: rec(0, "a"), Retry: k2}, {Record: rec(1, "a"), Retry: second.got[0].Keep}}, both.done)
		synctest.Wait()
		if both.say(2) != "ok ok" || got.say(4) != "keep park - -" {
			t.Fatalf("mended: %s, %s", both.say(2), got.say(4))
		}
		l.Forget(k.Hold)
		synctest.Wait()
		if got.say(4) != "keep park - -" {
			t.Fatalf("with one of two gone: %s", got.say(4))
		}
		l.Forget(k.Hold)
		synctest.Wait()
		if got.say(4) != "keep park ok ok" {
			t.Fatalf("with both gone: %s", got.say(4))
		}
		var as []string
		for _, x := range p.requests() {
			if o := x.orders[0]; o.Key == "a" && (len(as) == 0 || as[len(as)-1] != fmt.Sprint(o.Offset)) {
				as = append(as, fmt.Sprint(o.Offset))
			}
		}
		if strings.Join(as, " ") != "0 1 2 3" {
			t.Errorf("the key's records went %v", as)
		}
	})
}

// What is kept later must not be told first: it might be committed first.
func TestKeptInTheOrderTheyAreTold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := &partner{answer: func(x exchange) (int, string, time.Duration) {
			if x.orders[0].Key == "b" {
				return 200, "", 0
			}
			return 429, "", 0
		}}
		e := engine(t, p, Config{Order: flow.OrderKey, SpillAfter: time.Second}, ConnectionConfig{})
		defer closeEngine(t, e)
		l := e.Open(part, nil)
		told, release := make(chan int64, 10), make(chan struct{})
		l.Deliver(t.Context(), items(rec(0, "a")), func(int, record.Outcome) {
			<-release
			told <- 0
		})
		time.Sleep(2 * time.Second)
		synctest.Wait() // offset 0 is being told
		l.Deliver(t.Context(), items(rec(1, "a")), func(_ int, o record.Outcome) {
			if o.Keep == nil {
				t.Errorf("offset 1: %+v", o)
			}
			told <- 1
		})
		synctest.Wait()
		if len(told) > 0 {
			t.Fatalf("offset %d was told first", <-told)
		}
		close(release)
		synctest.Wait()
		if a, b := <-told, <-told; a != 0 || b != 1 {
			t.Errorf("told %d, %d", a, b)
		}
	})
}

func TestHeldAtOpen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := &partner{}
		e := engine(t, p, Config{Order: flow.OrderKey}, ConnectionConfig{})
		defer closeEngine(t, e)
		a := rec(5, "a")
		h := Hold("deliver", &a)
		l, got := e.Open(part, []uint64{h, h}), collect(t)
		l.Deliver(t.Context(), items(rec(5, "a"), rec(6, "b"), rec(7, "")), got.done)
		synctest.Wait()
		if got.say(3) != "park ok ok" {
			t.Fatalf("got %s", got.say(3))
		}
		for range 4 { // one more than there are is harmless
			l.Forget(h)
		}
		late := collect(t)
		l.Deliver(t.Context(), items(rec(8, "a")), late.done)
		synctest.Wait()
		if late.say(1) != "ok" {
			t.Errorf("after they are gone: %s", late.say(1))
		}
	})
}

// Hold is stored.
func TestHoldIsStable(t *testing.T) {
	empty := rec(0, "")
	empty.Key = []byte{}
	none, a := rec(0, ""), rec(0, "a")
	if got := [...]uint64{Hold("deliver", &a), Hold("deliver", &none), Hold("deliver", &empty), Hold("other", &a)}; got != [...]uint64{0x32f28b28ccce2fb1, 0x5c10046c71b5a92a, 0x360e921ba8aabfd, 0x984d97188c50f3b9} {
		t.Errorf("got %#x", got)
	}
}
