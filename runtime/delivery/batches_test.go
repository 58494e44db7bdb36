package delivery

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/runtime/delivery/batch"
	"github.com/millrace-io/millrace/runtime/delivery/verdict"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

// judge gives verdicts by item: those of offsets in retry are to be sent again.
type judge struct {
	mu            sync.Mutex
	again, reject map[int64]bool // guarded by mu
}

func (j *judge) Judge(x *verdict.Exchange) verdict.Verdicts {
	if x.Response.Status != 200 {
		return verdict.Default(x)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	out := make([]*record.Error, x.Items)
	for i := range out {
		var offset int64
		_, _ = fmt.Sscanf(x.ID(i), "t/0/%d", &offset)
		switch {
		case j.again[offset]:
			out[i] = record.Errorf(record.Retryable, "item %d: later", offset)
		case j.reject[offset]:
			out[i] = record.Errorf(record.Rejected, "item %d: no", offset)
		}
	}
	return verdict.Verdicts{Items: out}
}

func TestBatches(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := &partner{}
		j := &judge{again: map[int64]bool{1: true, 3: true}, reject: map[int64]bool{2: true}}
		fails := 1
		p.set(func(exchange) (int, string, time.Duration) {
			if fails > 0 {
				fails--
				return 503, "", 0
			}
			return 200, "", 0
		})
		e := engine(t, p, Config{Order: flow.OrderKey, Judge: j, Batch: &batch.Config{Records: 4, Wait: time.Second}}, ConnectionConfig{})
		defer closeEngine(t, e)
		l, got := e.Open(part, nil), collect(t)
		l.Deliver(t.Context(), items(rec(0, "a"), rec(1, "b"), rec(2, "c"), rec(3, "a"), rec(4, "a"), rec(5, "d")), got.done)
		time.Sleep(150 * time.Millisecond)
		synctest.Wait()
		if got.say(6) != "ok - rejected - - -" {
			t.Errorf("after the first answer: %s", got.say(6))
		}
		j.mu.Lock()
		j.again = nil
		j.mu.Unlock()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got.say(6) != "ok ok rejected ok ok ok" {
			t.Errorf("got %s", got.say(6))
		}
		// The batch is the same until it is split; 4 waits for 3.
		if p.offsets() != "0+1+2+3 0+1+2+3 1+3 4+5" {
			t.Errorf("sent %s", p.offsets())
		}
		xs := p.requests()
		if xs[0].key != xs[1].key || xs[1].key == xs[2].key || !strings.HasPrefix(xs[0].key, "0000000000000001/1/") || len(xs[0].key) != 19+32 {
			t.Errorf("keys %s, %s, %s", xs[0].key, xs[1].key, xs[2].key)
		}
		header := map[string]string{}
		for _, h := range xs[0].req.Header {
			header[h.Key] = string(h.Value)
		}
		if header["Content-Type"] != "application/json" || string(xs[0].req.Body) != `[{"k":"a","o":0},{"k":"b","o":1},{"k":"c","o":2},{"k":"a","o":3}]` {
			t.Errorf("header %v, body %s", header, xs[0].req.Body)
		}
	})
}

// Two groups of a batch that wait must not put the records of a key about.
func TestGroupsKeepTheOrderOfKeys(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := &partner{}
		by := program(t, "value.o % 2")
		e := engine(t, p, Config{Order: flow.OrderKey, Batch: &batch.Config{Records: 3, Wait: time.Second, By: by}}, ConnectionConfig{})
		defer closeEngine(t, e)
		got := collect(t)
		// By offset the groups are {0,2,..} and {1,3,..}; the key is in both.
		e.Open(part, nil).Deliver(t.Context(), items(rec(0, "a"), rec(1, "b"), rec(3, "b"), rec(5, "a"), rec(7, "b"), rec(2, "a")), got.done)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		var as, bs string
		for _, x := range p.requests() {
			for _, o := range x.orders {
				if o.Key == "a" {
					as += fmt.Sprint(o.Offset, " ")
				} else {
					bs += fmt.Sprint(o.Offset, " ")
				}
			}
		}
		if as != "0 5 2 " || bs != "1 3 7 " || got.len() != 6 {
			t.Errorf("a: %s, b: %s, %s", as, bs, got.say(6))
		}
	})
}

// A batch that was kept is the same batch when its members come back.
func TestKeptBatch(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := &partner{answer: always(500)}
		e := engine(t, p, Config{Order: flow.OrderKey, Batch: &batch.Config{Records: 3, Wait: time.Second}}, ConnectionConfig{Breaker: BreakerConfig{Failures: 1000}})
		defer closeEngine(t, e)
		l, got := e.Open(part, nil), collect(t)
		recs := []record.Record{rec(0, "a"), rec(1, "b"), rec(2, "c"), rec(3, "b"), rec(4, "d")}
		l.Deliver(t.Context(), items(recs...), got.done)
		time.Sleep(time.Second)
		p.set(func(x exchange) (int, string, time.Duration) { // the others succeed
			if x.orders[0].Offset == 0 {
				return 500, "", 0
			}
			return 200, "", 0
		})
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if got.say(5) != "keep keep keep park ok" {
			t.Fatalf("got %s", got.say(5))
		}
		first := p.requests()[0].key
		var back []record.Item
		for i := range 3 { // in another order
			k := got.got[2-i].Keep
			if k.Group == "" || !strings.HasSuffix(first, k.Group) || int(k.GroupIndex) != 2-i || k.Due != got.got[0].Keep.Due {
				t.Fatalf("member %d is kept as %+v", 2-i, k)
			}
			k.Generation = 1 // as the pipeline notes it
			back = append(back, record.Item{Record: recs[2-i], Retry: k})
		}
		n := len(p.requests())
		again := collect(t)
		l.Deliver(t.Context(), back, again.done)
		synctest.Wait()
		if again.say(3) != "keep keep keep" || len(p.requests()) != n+1 || p.requests()[n].key != first {
			t.Fatalf("again: %s, key %s, want %s", again.say(3), p.requests()[n].key, first)
		}
		// Two of them alone are another batch.
		p.set(nil)
		again = collect(t)
		l.Deliver(t.Context(), back[:2], again.done)
		synctest.Wait()
		if x := p.requests()[n+1]; again.say(2) != "ok ok" || x.key == first || len(x.orders) != 2 || x.orders[0].Offset != 1 {
			t.Errorf("two of three: %s, %+v", again.say(2), x)
		}
	})
}

// An answer names records by an id of the partner's own, in another order.
func TestItemsByAnIDInTheRecord(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := &partner{}
		p.set(func(exchange) (int, string, time.Duration) {
			return 200, `{"results":[{"id":2,"verdict":"reject"},{"id":0,"verdict":"ok"},{"id":7,"verdict":"reject"}]}`, 0
		})
		rules, err := verdict.New(verdict.Config{Each: "response.body.results", ItemID: "id"})
		if err != nil {
			t.Fatal(err)
		}
		e := engine(t, p, Config{Order: flow.OrderNone, Judge: rules, ItemID: program(t, "value.o"), Batch: &batch.Config{Records: 3, Wait: time.Second}}, ConnectionConfig{})
		defer closeEngine(t, e)
		l, got := e.Open(part, nil), collect(t)
		l.Deliver(t.Context(), items(rec(0, "a"), rec(1, "b"), rec(2, "c")), got.done)
		synctest.Wait()
		if got.say(3) != "ok - rejected" {
			t.Errorf("got %s", got.say(3))
		}
		if want := "no verdict on this item: no element has `id` \"1\", the first one has \"2\" (see `record_id`)"; !strings.Contains(e.Problem(), want) {
			t.Errorf("the problem is %q, want %q in it", e.Problem(), want)
		}
	})
}

// With one record of a key in a batch, a batch that has all the keys there are
// does not wait for its time.
func TestOnePerKeyDoesNotWaitInVain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := &partner{}
		p.set(func(exchange) (int, string, time.Duration) { return 200, "", 10 * time.Millisecond })
		e := engine(t, p, Config{Order: flow.OrderKey, OnePerKey: true, Batch: &batch.Config{Records: 10, Wait: time.Minute}}, ConnectionConfig{})
		defer closeEngine(t, e)
		l, got := e.Open(part, nil), collect(t)
		began := time.Now()
		l.Deliver(t.Context(), items(rec(0, "a"), rec(1, "b"), rec(2, "a"), rec(3, "b"), rec(4, "a"), rec(5, "a"), rec(6, "b")), got.done)
		time.Sleep(time.Second)
		synctest.Wait()
		if got.say(7) != "ok ok ok ok ok - ok" {
			t.Errorf("after a second: %s", got.say(7))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got.say(7) != "ok ok ok ok ok ok ok" || p.offsets() != "0+1 2+3 4+6 5" {
			t.Errorf("after %s: %s; sent %s", time.Since(began), got.say(7), p.offsets())
		}
	})
}
