package daemon

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/runtime/record"
)

// absent is a sink that answers nothing until it is closed, as a topic's does
// whose brokers are away.
type absent struct {
	mu   sync.Mutex
	open []func(int, error) // guarded by mu
}

func (a *absent) Deliver(_ context.Context, recs []record.Record, done func(int, error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for range recs {
		a.open = append(a.open, done)
	}
}

func (a *absent) Problem() string { return "" }

func (a *absent) Close() error {
	a.answer(context.Canceled)
	return nil
}

func (a *absent) answer(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, done := range a.open {
		done(0, err)
	}
	a.open = nil
}

func (a *absent) waiting() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.open)
}

// The outlets of a flow close while the topic of an exception does not answer:
// its sink is closed only behind the teller.
func TestTellerClosesWhileATopicIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink, o := &absent{}, &outlets{}
		o.closers = append(o.closers, sink.Close)
		o.tell = newTeller([]exception{{id: "x", push: (&topicException{sink: sink}).push}})
		o.closers = append(o.closers, func() error { o.tell.close(); return nil })
		told := make(chan string, 2)
		o.tell.tell(t.Context(), &record.Entry{}, func(s string) { told <- s })
		synctest.Wait()
		if err := o.Close(); err != nil {
			t.Error(err)
		}
		if s := <-told; !strings.HasPrefix(s, "x: cut off") {
			t.Errorf("told %q", s)
		}
		o.tell.tell(t.Context(), &record.Entry{}, func(s string) { told <- s })
		if s := <-told; s != "skipped: the flow is closing" {
			t.Errorf("told after the end: %q", s)
		}
	})
}

// What a topic has not answered is bounded, also when those who told it wait no
// longer; once it answers it is told again.
func TestExceptionsToATopicThatIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &absent{}
		x := &topicException{sink: sink}
		ended, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var cut, skipped int
		var mu sync.Mutex
		for range maxUnanswered + 9 {
			wg.Go(func() {
				err := x.push(ended, &record.Entry{})
				mu.Lock()
				defer mu.Unlock()
				switch {
				case errors.Is(err, errCutOff):
					cut++
				case err != nil && strings.HasPrefix(err.Error(), "skipped: "):
					skipped++
				default:
					t.Errorf("push: %v", err)
				}
			})
		}
		synctest.Wait()
		cancel()
		wg.Wait()
		if cut != maxUnanswered || skipped != 9 || sink.waiting() != maxUnanswered {
			t.Errorf("%d cut off, %d skipped, %d unanswered", cut, skipped, sink.waiting())
		}
		sink.answer(nil)
		got := make(chan error, 1)
		go func() { got <- x.push(t.Context(), &record.Entry{}) }()
		synctest.Wait()
		sink.answer(nil)
		if err := <-got; err != nil {
			t.Errorf("the topic is back: %v", err)
		}
	})
}

// A flow ends while the brokers of an exception's topic are away.
func TestFlowEndsWhileAnExceptionIsAway(t *testing.T) {
	p := startPartner(t, rejecting)
	d, _ := lifeWith(t, Config{Dir: t.TempDir(), Logger: testLogger(t), DrainLimit: 200 * time.Millisecond})
	nowhere, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	connect(t, d, nowhere.Addr().String())
	if err := nowhere.Close(); err != nil {
		t.Fatal(err)
	}
	mustPut(t, d, &api.PutFlow{Document: ingesting(p, "wait: 300ms", "order: none\n", "exceptions:\n  - push: kafka://main/told\n")})
	poll(t, "a record that is told of", func() (bool, string) {
		a := sendIn(t, d, "orders", "k", `{"no":1}`)
		return a.Code == "E_PENDING", a.Detail
	})
	setState(t, d, "orders", api.StatePaused)
}
