package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/record"
)

// SourceConfig configures a Source.
type SourceConfig struct {
	Config
	// Topics to read; at least one.
	Topics []string
	// CreateTopics lets brokers that create topics on demand do so when one
	// of Topics is missing.
	CreateTopics bool
	// BatchRecords bounds the records of a batch. Default 1024.
	BatchRecords int
	// FetchMaxBytes bounds what one broker sends at once, before it is
	// decompressed. Default 8 MiB.
	FetchMaxBytes int32
	// FetchMaxPartitionBytes bounds the same of one partition; a larger batch
	// comes alone. Default 256 KiB: with windows of a thousand records, more
	// is fetched faster than it is taken, and then dropped and fetched again.
	FetchMaxPartitionBytes int32
	// FetchMaxWait is how long a broker holds a request when there is
	// nothing to send. A newly assigned partition may wait as long. Default
	// 250 ms.
	FetchMaxWait time.Duration
	// HoldBytes is how much is kept of records that were fetched, while some
	// partitions are paused and others read, before paused ones are fetched
	// no further. One more fetch may come on top. Default 32 MiB.
	HoldBytes int
}

func (c SourceConfig) defaults() SourceConfig {
	c.Config = c.Config.defaults()
	if c.BatchRecords <= 0 {
		c.BatchRecords = 1024
	}
	if c.FetchMaxBytes <= 0 {
		c.FetchMaxBytes = 8 << 20
	}
	if c.FetchMaxPartitionBytes <= 0 {
		c.FetchMaxPartitionBytes = 256 << 10
	}
	if c.FetchMaxWait <= 0 {
		c.FetchMaxWait = 250 * time.Millisecond
	}
	if c.HoldBytes <= 0 {
		c.HoldBytes = 32 << 20
	}
	return c
}

// Validate reports every fault of the configuration.
func (c SourceConfig) Validate() error {
	errs := []error{c.Config.Validate()}
	if len(c.Topics) == 0 {
		errs = append(errs, errors.New("kafka source: no topics"))
	}
	if slices.Contains(c.Topics, "") {
		errs = append(errs, errors.New("kafka source: a topic's name is empty"))
	}
	return errors.Join(errs...)
}

// Source reads partitions of topics, from the positions it is given. Only
// committed records are read; control records are passed over.
//
// Poll belongs to one goroutine; all other methods may be called at any time
// by any. A broker that is away is waited for without end: Problem tells.
type Source struct {
	cfg    SourceConfig
	cl     *kgo.Client
	health *health

	mu     sync.Mutex
	parts  map[record.Partition]*part  // assigned; guarded by mu
	ready  []*part                     // those with records in hand, in turn; guarded by mu
	remove []record.Partition          // to be taken from the client; guarded by mu
	purge  []string                    // topics that the client must forget; guarded by mu
	failed []*connector.PartitionError // to be returned by Poll; guarded by mu
	ids    map[string][16]byte         // what Partitions saw first; guarded by mu
	stop   context.CancelFunc          // ends the poll under way, or nil; guarded by mu
	closed bool                        // guarded by mu

	wake   chan struct{} // one slot: a poll that waits for a change needs one token
	closer sync.Once
}

// NewSource makes a source. It connects to nothing yet.
func NewSource(cfg SourceConfig) (*Source, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.defaults()
	s := &Source{
		cfg:    cfg,
		health: newHealth(),
		parts:  map[record.Partition]*part{},
		ids:    map[string][16]byte{},
		wake:   make(chan struct{}, 1),
	}
	opts := append(cfg.options(s.health),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(),
		kgo.FetchMinBytes(1),
		kgo.FetchMaxBytes(cfg.FetchMaxBytes),
		kgo.FetchMaxPartitionBytes(cfg.FetchMaxPartitionBytes),
		kgo.FetchMaxWait(cfg.FetchMaxWait),
	)
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("kafka source: %w", err)
	}
	s.cl = cl
	return s, nil
}

// Partitions asks the brokers which partitions the topics have now. It blocks
// until they answer or ctx ends. A topic that does not exist, and one that was
// deleted and made anew since the source first saw it, is an error of class
// config; brokers that cannot be reached are one of class retryable.
func (s *Source) Partitions(ctx context.Context) ([]connector.Found, error) {
	topics, err := describe(ctx, s.cl, s.cfg.Topics, s.cfg.CreateTopics)
	if err != nil {
		return nil, s.requestError(ctx, "list partitions", err)
	}
	var found []connector.Found
	for _, t := range topics {
		if t.err != nil {
			return nil, s.topicError(t)
		}
		s.mu.Lock()
		old, seen := s.ids[t.name]
		if !seen {
			s.ids[t.name] = t.id
		}
		s.mu.Unlock()
		if seen && old != t.id {
			return nil, recreated(t.name, old, t.id)
		}
		for n := range t.partitions {
			found = append(found, connector.Found{Partition: record.Partition{Topic: t.name, Num: int32(n)}, TopicID: t.id})
		}
	}
	return found, nil
}

// Start is the offset at which a new flow begins to read p. It blocks until the
// brokers answer or ctx ends.
func (s *Source) Start(ctx context.Context, p record.Partition, start connector.Start) (int64, error) {
	at := int64(earliest)
	switch {
	case start.Latest:
		at = latest
	case !start.Time.IsZero():
		at = max(start.Time.UnixMilli(), 0)
	}
	offsets, err := listOffsets(ctx, s.cl, []record.Partition{p}, at)
	if err == nil && at >= 0 && offsets[p] < 0 { // nothing is as young
		offsets, err = listOffsets(ctx, s.cl, []record.Partition{p}, latest)
	}
	if err != nil {
		return 0, s.requestError(ctx, fmt.Sprintf("list offsets of %s/%d", p.Topic, p.Num), err)
	}
	return offsets[p], nil
}

// End is the offset after the last record of each assigned partition (the high
// watermark), for the lag. It blocks until the brokers answer or ctx ends.
func (s *Source) End(ctx context.Context) (map[record.Partition]int64, error) {
	s.mu.Lock()
	ps := slices.Collect(maps.Keys(s.parts))
	s.mu.Unlock()
	if len(ps) == 0 {
		return map[record.Partition]int64{}, nil
	}
	ends, err := listOffsets(ctx, s.cl, ps, latest)
	if err != nil {
		return nil, s.requestError(ctx, "list end offsets", err)
	}
	return ends, nil
}

// Problem says why nothing can be fetched just now, or is empty.
func (s *Source) Problem() string { return s.health.problem() }

// Close ends the source and a Poll under way. It may be called twice.
func (s *Source) Close() error {
	s.mu.Lock()
	s.closed = true
	s.parts, s.ready, s.failed = map[record.Partition]*part{}, nil, nil
	s.interrupt()
	s.mu.Unlock()
	s.closer.Do(s.cl.Close)
	return nil
}
