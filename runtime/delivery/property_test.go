package delivery

import (
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/runtime/flow"
)

// scenario is what a property test draws before its bubble begins.
type scenario struct {
	order      flow.Order
	batch      int // records; 0: none
	by         bool
	each       bool // any item of a batch may be taken: one of a key in each
	concurrent int
	own        int
	perSecond  float64
	spill      time.Duration
	keys       int
	patience   string
	large      bool
	steps      []step
	seed       uint64
}

type step struct {
	what string
	n    int
	wait time.Duration
}

func draw(t *rapid.T) scenario {
	s := scenario{
		order:      rapid.SampledFrom([]flow.Order{flow.OrderKey, flow.OrderKey, flow.OrderKey, flow.OrderNone, flow.OrderPartition}).Draw(t, "order"),
		batch:      rapid.SampledFrom([]int{0, 0, 1, 3, 5}).Draw(t, "batch"),
		by:         rapid.Bool().Draw(t, "by"),
		each:       rapid.Bool().Draw(t, "each"),
		concurrent: rapid.IntRange(1, 8).Draw(t, "concurrent"),
		own:        rapid.IntRange(0, 3).Draw(t, "own"),
		perSecond:  rapid.SampledFrom([]float64{0, 0, 50, 1000}).Draw(t, "rate"),
		spill:      rapid.SampledFrom([]time.Duration{time.Second, 5 * time.Second}).Draw(t, "spill"),
		keys:       rapid.IntRange(1, 5).Draw(t, "keys"),
		patience:   rapid.SampledFrom([]string{"", "1", "9"}).Draw(t, "patience"),
		large:      rapid.Bool().Draw(t, "large"),
		seed:       rapid.Uint64().Draw(t, "seed"),
	}
	s.each = s.each && s.batch > 0 && s.order == flow.OrderKey
	n := rapid.IntRange(3, 40).Draw(t, "steps")
	for range n {
		s.steps = append(s.steps, step{
			what: rapid.SampledFrom([]string{"deliver", "deliver", "deliver", "due", "due", "commit", "commit", "fine", "trouble", "down", "key down", "restart"}).Draw(t, "what"),
			n:    rapid.IntRange(1, 6).Draw(t, "n"),
			wait: rapid.SampledFrom([]time.Duration{0, time.Millisecond, 100 * time.Millisecond, time.Second, 4 * time.Second}).Draw(t, "wait"),
		})
	}
	return s
}

func (w *world) run() []string {
	for _, st := range w.s.steps {
		switch st.what {
		case "deliver":
			w.deliver(st.n)
		case "due":
			w.due(st.n)
		case "commit":
			w.commit()
		case "restart":
			w.restart(st.n > 2)
		default:
			w.mu.Lock()
			w.trouble = st.what
			w.mu.Unlock()
		}
		time.Sleep(st.wait)
		synctest.Wait()
	}
	w.mu.Lock()
	w.trouble = ""
	w.mu.Unlock()
	for range 200 { // everything has come to its end within this
		time.Sleep(time.Second)
		synctest.Wait()
		w.commit()
		w.due(64)
	}
	synctest.Wait()
	w.commit()
	w.mu.Lock()
	defer w.mu.Unlock()
	for o := range w.next {
		if !w.settled[o] || w.state[o] != nil {
			w.fault("offset %d waits for ever: settled %v, kept %+v", o, w.settled[o], w.state[o])
		}
	}
	if n := len(w.l.keys); n > 0 {
		w.fault("the lane remembers %d keys of nothing", n)
	}
	return w.faults
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := draw(rt)
		var faults []string
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, s)
			faults = w.run()
			w.cancel()
			closeEngine(t, w.e)
		})
		if len(faults) > 0 {
			rt.Fatalf("%v", faults)
		}
	})
}
