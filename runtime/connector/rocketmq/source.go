package rocketmq

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/record"
)

// SourceConfig configures a Source.
type SourceConfig struct {
	Config
	// Topic to read.
	Topic string
	// Tags that a message must have one of; empty: all messages.
	Tags []string
	// BatchRecords bounds the records of a batch. Default 1024.
	BatchRecords int
	// HoldBytes bounds what is kept of messages that were pulled and not
	// delivered. One pull of each queue may come on top. Default 32 MiB.
	HoldBytes int
}

// Validate reports every fault of the configuration.
func (c SourceConfig) Validate() error {
	return errors.Join(c.Config.Validate(), checkTopic("source", c.Topic), checkTags(c.Tags))
}

// Source reads queues of a topic from their brokers' masters, from the
// positions it is given. A queue is a partition: its broker's name and its
// number.
//
// Poll belongs to one goroutine; all other methods may be called at any time
// by any. A broker that is away is waited for without end: Problem tells.
type Source struct {
	cfg SourceConfig
	cl  *client
	sub string // the subscription

	mu     sync.Mutex
	parts  map[record.Partition]*part  // assigned; guarded by mu
	ready  []*part                     // those with records in hand, in turn; guarded by mu
	failed []*connector.PartitionError // to be returned by Poll; guarded by mu
	held   int                         // bytes of all parts; guarded by mu
	seen   bool                        // Partitions found the topic before; guarded by mu
	closed bool                        // guarded by mu

	wake    chan struct{} // one slot: a Poll that waits needs one token
	pullers sync.WaitGroup
	closer  sync.Once
}

// NewSource makes a source. It connects to nothing yet.
func NewSource(cfg SourceConfig) (*Source, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.Config = cfg.Config.defaults()
	if cfg.BatchRecords <= 0 {
		cfg.BatchRecords = 1024
	}
	if cfg.HoldBytes <= 0 {
		cfg.HoldBytes = 32 << 20
	}
	return &Source{
		cfg:   cfg,
		cl:    newClient(cfg.Config),
		sub:   subscription(cfg.Tags),
		parts: map[record.Partition]*part{},
		wake:  make(chan struct{}, 1),
	}, nil
}

// Partitions asks the name servers which queues the topic has now. It blocks
// until they answer or ctx ends. All errors but that of a right which is missing
// are of class retryable; connector.ErrNoTopic is found in that of a topic that
// does not exist and was not there before. A name server that was started anew
// knows a topic only when its brokers have told it.
func (s *Source) Partitions(ctx context.Context) ([]connector.Found, error) {
	queues, err := s.cl.route(ctx, s.cfg.Topic)
	if err != nil {
		s.mu.Lock()
		seen := s.seen
		s.mu.Unlock()
		if hasCode(err, respNoTopic) {
			if seen {
				return nil, record.Errorf(record.Retryable, "the name servers at %s do not know topic %q at the moment", s.cl.nameServers(), s.cfg.Topic)
			}
			return nil, &record.Error{Class: record.Retryable, Err: connector.ErrNoTopic,
				Message: fmt.Sprintf("topic %q does not exist at %s: make it, or correct the flow's source", s.cfg.Topic, s.cl.nameServers())}
		}
		return nil, s.cl.topicError(ctx, "read", s.cfg.Topic, err)
	}
	s.mu.Lock()
	s.seen = true
	s.mu.Unlock()
	var found []connector.Found
	for _, q := range queues {
		if q.Perm&permRead == 0 {
			continue
		}
		for n := range q.Read {
			found = append(found, connector.Found{Partition: record.Partition{Topic: s.cfg.Topic, Broker: q.Broker, Num: n}})
		}
	}
	return found, nil
}

// Start is the offset at which a new flow begins to read p. It blocks until the
// broker answers or ctx ends. A time is compared with when the broker stored a
// message.
func (s *Source) Start(ctx context.Context, p record.Partition, start connector.Start) (int64, error) {
	first, end, err := s.cl.bounds(ctx, p)
	at := first
	switch {
	case err != nil:
	case start.Latest:
		at = end
	case !start.Time.IsZero():
		at, err = s.cl.offsetAt(ctx, p, start.Time)
		at = min(max(at, first), end)
	}
	if err != nil {
		return 0, s.cl.topicError(ctx, "read", p.Topic, err)
	}
	return at, nil
}

// End is the offset after the last message of each assigned queue, for the
// lag. It blocks until the brokers answer or ctx ends. With tags, messages that
// the flow does not want count, too.
func (s *Source) End(ctx context.Context) (map[record.Partition]int64, error) {
	s.mu.Lock()
	ps := slices.Collect(maps.Keys(s.parts))
	s.mu.Unlock()
	ends := make([]int64, len(ps))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i, p := range ps {
		g.Go(func() error {
			end, err := s.cl.offset(gctx, p, reqMaxOffset, nil)
			ends[i] = end
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, s.cl.topicError(ctx, "read", s.cfg.Topic, err)
	}
	m := make(map[record.Partition]int64, len(ps))
	for i, p := range ps {
		m[p] = ends[i]
	}
	return m, nil
}

// Problem says why nothing can be pulled just now, or is empty.
func (s *Source) Problem() string { return s.cl.health.problem() }

// Close ends the source and a Poll under way. It may be called twice.
func (s *Source) Close() error {
	s.mu.Lock()
	s.closed = true
	for _, pt := range s.parts {
		pt.end()
	}
	s.parts, s.ready, s.failed = map[record.Partition]*part{}, nil, nil
	s.signal()
	s.mu.Unlock()
	s.closer.Do(func() {
		s.cl.close()
		s.pullers.Wait()
	})
	return nil
}

// topicError classifies why a request about a topic failed. verb is what was
// to be done with it.
func (cl *client) topicError(ctx context.Context, verb, topic string, err error) error {
	if e, ok := errors.AsType[*record.Error](err); ok {
		return e
	}
	switch {
	case ctx.Err() != nil:
		if p := cl.health.problem(); p != "" {
			return fmt.Errorf("%s topic %q: %w (%s)", verb, topic, ctx.Err(), p)
		}
		return fmt.Errorf("%s topic %q: %w", verb, topic, ctx.Err())
	case errors.Is(err, connector.ErrClosed):
		return err
	case hasCode(err, respNoTopic):
		return record.Errorf(record.Config, "topic %q does not exist at %s: make it, or correct the flow", topic, cl.nameServers())
	case hasCode(err, respNoPermission):
		return record.Errorf(record.Config, "%s topic %q: %w: give the connection's access key the right, or correct the connection", verb, topic, err)
	case hasCode(err, respNoGroup):
		return record.Errorf(record.Config, "%s topic %q: %w: make the consumer group %q at the brokers (mqadmin updateSubGroup)", verb, topic, err, consumerGroup)
	}
	return record.Errorf(record.Retryable, "%s topic %q: %w", verb, topic, err)
}
