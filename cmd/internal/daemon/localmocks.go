package daemon

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/millrace-io/millrace/runtime/delivery"
	"github.com/millrace-io/millrace/runtime/delivery/sign"
	"github.com/millrace-io/millrace/runtime/delivery/verdict"
	"github.com/millrace-io/millrace/runtime/pipeline"
	"github.com/millrace-io/millrace/runtime/record"
)

// mocks stand in for what a flow delivers to, and keep what came of its
// records. Safe for concurrent use.
type mocks struct {
	t *LocalTest

	mu     sync.Mutex
	events []TestEvent // guarded by mu
}

func (m *mocks) add(e TestEvent) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events = append(m.events, e)
}

// errUnanswered is what a request gets that the test has no answer for.
var errUnanswered = &record.Error{Class: record.Rejected, Message: "the test has no further answer"}

// partner is p with answers in place of its connection: one request at a time,
// so that they come in an order.
func (m *mocks) partner(p *partner, id string) *partner {
	own := *p
	own.Connection = delivery.NewConnection(delivery.ConnectionConfig{
		Name: p.name, Concurrent: 1, Redact: p.redact, Breaker: delivery.BreakerConfig{Failures: -1},
		Send: func(ctx context.Context, r *sign.Request, _ time.Duration) (*verdict.Response, error) {
			resp, err := m.t.Answer(id, r)
			if resp == nil && err == nil {
				err = errUnanswered
			}
			if err != nil {
				return nil, err
			}
			return resp, nil
		},
	})
	return &own
}

// sink takes every record. An empty id is a topic that `otherwise` names: what
// it gets is told of elsewhere.
func (m *mocks) sink(id string) delivery.Sink { return &mockSink{m, id} }

type mockSink struct {
	m  *mocks
	id string
}

func (s *mockSink) Deliver(_ context.Context, recs []record.Record, done func(i int, err error)) {
	for i := range recs {
		if s.id != "" {
			s.m.add(TestEvent{Kind: TestDelivered, Stage: s.id, Record: recs[i]})
		}
		done(i, nil)
	}
}

func (s *mockSink) Problem() string { return "" }
func (s *mockSink) Close() error    { return nil }

// watchedDelivery notes what becomes of the records of a push to HTTP. One that
// the test has no answer for is taken as done with: it waits.
type watchedDelivery struct {
	pipeline.Delivery
	m  *mocks
	id string
}

func (d *watchedDelivery) Open(p record.Partition, held []uint64) pipeline.Outlet {
	return &watchedOutlet{d.Delivery.Open(p, held), d}
}

type watchedOutlet struct {
	pipeline.Outlet
	d *watchedDelivery
}

func (o *watchedOutlet) Deliver(ctx context.Context, items []record.Item, done func(int, record.Outcome)) {
	o.Outlet.Deliver(ctx, items, func(i int, out record.Outcome) {
		e := TestEvent{Stage: o.d.id, Record: items[i].Record, Attempts: out.Attempts}
		switch {
		case out.Err == nil:
			e.Kind = TestDelivered
			o.d.m.add(e)
		case errors.Is(out.Err, errUnanswered) || record.AsError(out.Err).Message == errUnanswered.Message:
			e.Kind, e.Message = TestWaiting, errUnanswered.Message
			e.Attempts = max(e.Attempts, 1) - 1
			o.d.m.add(e)
			out = record.Outcome{}
		}
		done(i, out)
	})
}

// watchedStage notes what a stage or a branch answers, and ends what it asks to
// try again and again.
type watchedStage struct {
	pipeline.Stage
	m    *mocks
	node pipeline.Node
}

// maxTestAttempts is how often a stage is asked for one record.
const maxTestAttempts = 10

func (s *watchedStage) Process(ctx context.Context, b *record.Batch, out *record.Results) error {
	mark := out.Mark()
	if err := s.Stage.Process(ctx, b, out); err != nil {
		return err
	}
	for i := range out.Emits {
		e := &out.Emits[i]
		next := s.node.Next
		if s.node.Kind == pipeline.KindBranch && int(e.Output) < len(s.node.Cases) {
			next = s.node.Cases[e.Output]
		}
		if s.node.Kind == pipeline.KindStage {
			s.m.add(TestEvent{Kind: TestAfter, Stage: s.node.ID, Record: e.Record, Output: e.Output})
		}
		if next == pipeline.Drop {
			s.m.add(TestEvent{Kind: TestDropped, Stage: s.node.ID, Record: e.Record})
		}
	}
	for _, in := range out.Drops {
		s.m.add(TestEvent{Kind: TestDropped, Stage: s.node.ID, Record: b.Records[in]})
	}
	failed := out.Failed(mark)
	stay := out.Failures[:len(out.Failures)-len(failed)]
	for _, f := range failed {
		rec := b.Records[f.In]
		if !f.Err.Class.Transient() {
			stay = append(stay, f)
			continue
		}
		if rec.Attempt >= maxTestAttempts {
			s.m.add(TestEvent{Kind: TestWaiting, Stage: s.node.ID, Record: rec, Class: f.Err.Class, Code: f.Err.Code, Message: f.Err.Message, Attempts: rec.Attempt})
			out.Drops = append(out.Drops, f.In)
			continue
		}
		err := *f.Err
		err.RetryAfter, f.Err = 0, &err
		stay = append(stay, f)
	}
	out.Failures = stay
	return nil
}
