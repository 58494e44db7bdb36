package delivery

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
	"github.com/millrace-io/millrace/runtime/retry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What waits costs no goroutine.
func TestWaitingRecordsCostNoGoroutines(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := &partner{answer: always(429)}
		e := engine(t, p, Config{Order: flow.OrderNone, SpillAfter: -1, Policy: retry.Policy{First: time.Hour, Max: time.Hour}}, ConnectionConfig{Concurrent: 16})
		defer closeEngine(t, e)
		var recs []record.Record
		for i := range int64(10_000) {
			recs = append(recs, rec(i, fmt.Sprint(i)))
		}
		before := runtime.NumGoroutine()
		got := collect(t)
		e.Open(part, nil).Deliver(t.Context(), items(recs...), got.done)
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := runtime.NumGoroutine() - before; n > 4 {
			t.Errorf("%d goroutines for 10,000 records that wait", n)
		}
		if n := len(p.requests()); n != 10_000 || got.len() != 0 {
			t.Errorf("%d requests, %d answers", n, got.len())
		}
		p.set(nil)
		time.Sleep(time.Hour)
		synctest.Wait()
		if got.len() != 10_000 {
			t.Errorf("%d answers", got.len())
		}
	})
}

// One key of ten thousand that fails leaves the others alone: they wait as long as
// without it, but for the turns that its attempts take.
func TestOneBadKey(t *testing.T) {
	p99 := func(bad bool) (wait time.Duration) {
		bubble(t, func(t *testing.T) {
			p := &partner{answer: func(x exchange) (int, string, time.Duration) {
				if bad && x.orders[0].Key == "k7" {
					return 500, "", 10 * time.Millisecond
				}
				return 200, "", 10 * time.Millisecond
			}}
			e := engine(t, p, Config{Order: flow.OrderKey}, ConnectionConfig{Concurrent: 16})
			defer closeEngine(t, e)
			l := e.Open(part, nil)
			var mu sync.Mutex
			var waits []time.Duration
			var kept []int64
			const n, keys = 60_000, 10_000
			for i := range int64(n) { // 1000 a second
				r := rec(i, fmt.Sprint("k", i%keys))
				began := time.Now()
				l.Deliver(t.Context(), items(r), func(_ int, o record.Outcome) {
					mu.Lock()
					defer mu.Unlock()
					if i%keys != 7 {
						waits = append(waits, time.Since(began))
					} else if o.Keep != nil {
						kept = append(kept, i)
					}
				})
				time.Sleep(time.Millisecond)
			}
			time.Sleep(20 * time.Second)
			synctest.Wait()
			if want := n / keys * (keys - 1); len(waits) != want {
				t.Errorf("%d of %d others", len(waits), want)
			}
			if bad && (len(kept) != n/keys || !slices.IsSorted(kept)) {
				t.Errorf("of the bad key %v are kept", kept)
			}
			slices.Sort(waits)
			wait = waits[len(waits)*99/100]
		})
		return wait
	}
	without, with := p99(false), p99(true)
	if with > without*3/2 {
		t.Errorf("p99 of the others is %s beside a bad key, %s without", with, without)
	}
}

// A server on this machine with trouble: all is delivered in the order of its
// key, and every request carries the key of its record.
func TestLoopback(t *testing.T) {
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(1, 2))
	last, under := map[string]int64{}, map[string]bool{}
	var faults []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		o := ordersOf(body)[0]
		mu.Lock()
		dice := rng.IntN(100)
		if under[o.Key] {
			faults = append(faults, "two of key "+o.Key)
		}
		under[o.Key] = true
		if want := fmt.Sprintf("0000000000000001/1/t/0/%d", o.Offset); r.Header.Get("Idempotency-Key") != want {
			faults = append(faults, "key "+r.Header.Get("Idempotency-Key"))
		}
		mu.Unlock()
		runtime.Gosched()
		mu.Lock()
		defer mu.Unlock()
		under[o.Key] = false
		switch {
		case dice < 5:
			w.WriteHeader(500)
		case dice < 8:
			w.WriteHeader(429)
		case dice < 10:
			if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
				_ = conn.Close()
			}
		default:
			if before, ok := last[o.Key]; ok && before >= o.Offset {
				faults = append(faults, fmt.Sprintf("%d of key %s after %d", o.Offset, o.Key, before))
			}
			last[o.Key] = o.Offset
		}
	}))
	defer srv.Close()
	push, err := NewBuilder(BuilderConfig{ID: "deliver", Push: &flow.HTTPPush{Method: "POST", Path: "/o"}, Base: srv.URL, Identity: Identity{1, 1}})
	if err != nil {
		t.Fatal(err)
	}
	e := engine(t, nil, Config{Order: flow.OrderKey, Build: push, Policy: retry.Policy{First: time.Millisecond, Max: 5 * time.Millisecond},
		Conn: NewConnection(ConnectionConfig{Send: loopback(t, 32), Concurrent: 32})}, ConnectionConfig{})
	defer closeEngine(t, e)
	const n = 3000
	var wg sync.WaitGroup
	l := e.Open(part, nil)
	defer l.Close()
	got := collect(t)
	for i := int64(0); i < n; i += 100 {
		var recs []record.Record
		for j := range int64(100) {
			recs = append(recs, rec(i+j, fmt.Sprint("k", (i+j)*7%53)))
		}
		wg.Add(100)
		l.Deliver(t.Context(), items(recs...), func(k int, o record.Outcome) {
			got.done(int(i)+k, o)
			wg.Done()
		})
	}
	wg.Wait()
	for i := range n {
		if s := sayOutcome(got.got[i], true); s != "ok" {
			t.Fatalf("record %d: %s", i, s)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(faults) > 0 {
		t.Errorf("%d faults: %.300q", len(faults), faults)
	}
}
