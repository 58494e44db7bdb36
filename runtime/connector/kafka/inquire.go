package kafka

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/record"
)

// badFetch is a partition that the client cannot go on with.
type badFetch struct {
	pt  *part
	err error
}

// inquiry finds out what fetch errors of one topic mean, beside the polls: the
// brokers are asked, for seconds if need be, and the partitions of other topics
// go on meanwhile.
type inquiry struct {
	cancel context.CancelFunc
	queue  []badFetch // guarded by the source's mu
}

// verdict is what becomes of a partition that could not be fetched. The zero
// value fetches it again.
type verdict struct {
	why    *record.Error // ends the assignment
	gone   bool          // the topic is not the one that was assigned: why is that of all its partitions
	skipTo int64         // goes on there; 0: where it stands
}

// doubt takes the partition of a fetch error from the client until it is known
// what the error means. ctx is the poll's. mu is held.
func (s *Source) doubt(ctx context.Context, f badFetch) {
	if f.pt.doubted || errors.Is(f.err, context.Canceled) || errors.Is(f.err, kgo.ErrClientClosed) {
		return
	}
	f.pt.doubted = true
	s.remove = append(s.remove, f.pt.id)
	f.pt.told, f.pt.stopped = false, false
	topic := f.pt.id.Topic
	if q := s.inquiries[topic]; q != nil {
		q.queue = append(q.queue, f)
		return
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	q := &inquiry{cancel: cancel, queue: []badFetch{f}}
	s.inquiries[topic] = q
	s.inquiring.Go(func() {
		defer cancel()
		s.inquire(ctx, topic, q)
	})
}

// inquire works off the fetch errors of a topic.
func (s *Source) inquire(ctx context.Context, topic string, q *inquiry) {
	for {
		s.mu.Lock()
		if len(q.queue) == 0 {
			delete(s.inquiries, topic)
			s.mu.Unlock()
			return
		}
		f := q.queue[0]
		q.queue = q.queue[1:]
		at, known, again, live := f.pt.fetchFrom(), s.ids[topic], f.pt.again, s.parts[f.pt.id] == f.pt
		s.mu.Unlock()
		if !live {
			continue
		}
		if again > 0 { // what heals by itself may take a while
			select {
			case <-time.After(min(time.Duration(again)*confirmEvery, s.patience)):
			case <-ctx.Done():
			}
		}
		s.conclude(f.pt, s.explain(ctx, f.pt.id, at, known, f.err))
	}
}

// conclude carries a verdict out, unless pt is no longer assigned. Skipped
// records are told of before the position moves: nobody can commit it first.
func (s *Source) conclude(pt *part, v verdict) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.interrupt()
	pt.doubted = false
	if s.parts[pt.id] != pt {
		return
	}
	switch {
	case v.gone:
		// The client must forget the topic, and with it all its partitions.
		s.gone[pt.id.Topic] = true
		s.purge = append(s.purge, pt.id.Topic)
		delete(s.ids, pt.id.Topic)
		for p := range s.parts {
			if p.Topic == pt.id.Topic {
				s.giveUp(p, v.why)
			}
		}
	case v.why != nil:
		s.giveUp(pt.id, v.why)
	case v.skipTo > 0:
		if s.cfg.OnSkip != nil {
			s.cfg.OnSkip(pt.id, pt.fetchFrom(), v.skipTo)
		}
		pt.floor = v.skipTo
		if !pt.queued { // an empty batch moves the position
			pt.queued = true
			s.ready = append(s.ready, pt)
		}
	default:
		pt.again++
	}
}

// giveUp ends the assignment of p with an error; what was fetched and not
// delivered is given up. mu is held.
func (s *Source) giveUp(p record.Partition, why *record.Error) {
	s.drop(p)
	s.failed = append(s.failed, &connector.PartitionError{Partition: p, Err: why})
}

// endInquiries cancels what is being asked. mu is held.
func (s *Source) endInquiries() {
	for _, q := range s.inquiries {
		q.cancel()
		q.queue = slices.Delete(q.queue, 0, len(q.queue))
	}
}
