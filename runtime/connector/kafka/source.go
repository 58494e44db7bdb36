package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/record"
)

// SourceConfig configures a Source.
type SourceConfig struct {
	Config
	// Topics to read. Exactly one of Topics and Pattern is set.
	Topics []string
	// Pattern is an RE2 expression that matches the whole names of the topics
	// to read. Topics that come later are found, too; internal ones, such as
	// those that begin with "__", never.
	Pattern string
	// Known are topics that were read before, with their ids: one that is
	// gone, or is another now, is an error rather than a new topic.
	Known map[string][16]byte
	// CreateTopics lets brokers that create topics on demand do so when one
	// of Topics is missing. A topic that was there once is not made again.
	CreateTopics bool
	// OutOfRange is what becomes of a position whose records the log has no
	// longer. Default OutOfRangePause.
	OutOfRange OutOfRange
	// OnSkip, if not nil, is told that OutOfRange passed over the offsets
	// from..to-1 of p, before Poll tells the new position. It may be called by
	// several goroutines, and again for the same offsets after a restart. It
	// must not call the source, and not block.
	OnSkip func(p record.Partition, from, to int64)
	// BatchRecords bounds the records of a batch. Default 1024.
	BatchRecords int
	// FetchMaxBytes bounds what one broker sends at once, before it is
	// decompressed. Default 2 MiB: with what is made of it, and as much again
	// that the client fetches ahead, some 20 MiB of memory for each broker.
	FetchMaxBytes int32
	// FetchMaxPartitionBytes bounds the same of one partition; a larger batch
	// comes alone. Default 256 KiB: with windows of a thousand records, more
	// is fetched faster than it is taken, and then dropped and fetched again.
	FetchMaxPartitionBytes int32
	// MaxBatchBytes bounds a batch after it is decompressed; a larger one is an
	// error of class config. Default 128 MiB.
	MaxBatchBytes int
	// FetchMaxWait is how long a broker holds a request when there is
	// nothing to send. A newly assigned partition may wait as long. Default
	// 250 ms.
	FetchMaxWait time.Duration
	// HoldBytes is how much is kept of records that were fetched, while some
	// partitions are paused and others read, before paused ones are fetched
	// no further. One more fetch may come on top. Default 32 MiB.
	HoldBytes int
}

// OutOfRange is a policy for records that were deleted before they were read.
type OutOfRange string

const (
	// OutOfRangePause ends the partition with an error of class config.
	OutOfRangePause OutOfRange = "pause"
	// OutOfRangeEarliest goes on at the first record that the log has.
	OutOfRangeEarliest OutOfRange = "earliest"
	// OutOfRangeLatest goes on behind the last record there is.
	OutOfRangeLatest OutOfRange = "latest"
)

func (c SourceConfig) defaults() SourceConfig {
	c.Config = c.Config.defaults()
	if c.BatchRecords <= 0 {
		c.BatchRecords = 1024
	}
	if c.FetchMaxBytes <= 0 {
		c.FetchMaxBytes = 2 << 20
	}
	if c.FetchMaxPartitionBytes <= 0 {
		c.FetchMaxPartitionBytes = 256 << 10
	}
	if c.MaxBatchBytes <= 0 {
		c.MaxBatchBytes = 128 << 20
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
	switch {
	case len(c.Topics) == 0 && c.Pattern == "":
		errs = append(errs, errors.New("kafka source: no topics"))
	case len(c.Topics) > 0 && c.Pattern != "":
		errs = append(errs, errors.New("kafka source: both topics and a pattern"))
	}
	if slices.Contains(c.Topics, "") {
		errs = append(errs, errors.New("kafka source: a topic's name is empty"))
	}
	if _, err := wholeName(c.Pattern); err != nil {
		errs = append(errs, fmt.Errorf("kafka source: pattern: %w", err))
	}
	switch c.OutOfRange {
	case "", OutOfRangePause, OutOfRangeEarliest, OutOfRangeLatest:
	default:
		errs = append(errs, fmt.Errorf("kafka source: out of range %q: it is pause, earliest or latest", c.OutOfRange))
	}
	return errors.Join(errs...)
}

// Source reads partitions of topics, from the positions it is given. Only
// committed records are read; control records are passed over.
//
// Poll belongs to one goroutine; all other methods may be called at any time
// by any. A broker that is away is waited for without end: Problem tells.
type Source struct {
	cfg     SourceConfig
	cl      *kgo.Client
	health  *health
	pattern *regexp.Regexp // nil: the topics are named
	// patience is for how long answers must agree that something is gone.
	patience time.Duration

	mu        sync.Mutex
	parts     map[record.Partition]*part  // assigned; guarded by mu
	ready     []*part                     // those with records in hand, or a position to move, in turn; guarded by mu
	remove    []record.Partition          // to be taken from the client; guarded by mu
	purge     []string                    // topics that the client must forget; guarded by mu
	failed    []*connector.PartitionError // to be returned by Poll; guarded by mu
	inquiries map[string]*inquiry         // under way, by topic; guarded by mu
	ids       map[string][16]byte         // of topics, as they were first seen; guarded by mu
	seen      map[string]bool             // topics that were there once; guarded by mu
	gone      map[string]bool             // topics that were found to be others than those assigned; guarded by mu
	stop      context.CancelFunc          // ends the poll under way, or nil; guarded by mu
	closed    bool                        // guarded by mu

	spare     sync.Pool // of *record.Batch without records
	inquiring sync.WaitGroup
	wake      chan struct{} // one slot: a poll that waits for a change needs one token
	closer    sync.Once
}

// NewSource makes a source. It connects to nothing yet.
func NewSource(cfg SourceConfig) (*Source, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.defaults()
	s := &Source{
		cfg:       cfg,
		health:    newHealth(),
		patience:  confirmFor,
		parts:     map[record.Partition]*part{},
		inquiries: map[string]*inquiry{},
		ids:       map[string][16]byte{},
		seen:      map[string]bool{},
		gone:      map[string]bool{},
		wake:      make(chan struct{}, 1),
	}
	if cfg.Pattern != "" {
		s.pattern, _ = wholeName(cfg.Pattern) // validated
	}
	for topic, id := range cfg.Known {
		if s.reads(topic) {
			s.ids[topic], s.seen[topic] = id, true
		}
	}
	opts := append(cfg.options(s.health),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(),
		kgo.FetchMinBytes(1),
		kgo.FetchMaxBytes(cfg.FetchMaxBytes),
		kgo.FetchMaxPartitionBytes(cfg.FetchMaxPartitionBytes),
		kgo.FetchMaxWait(cfg.FetchMaxWait),
		kgo.MaxDecompressBatchBytes(cfg.MaxBatchBytes),
	)
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("kafka source: %w", err)
	}
	s.cl = cl
	return s, nil
}

// reads reports whether the source is to read a topic of that name.
func (s *Source) reads(topic string) bool {
	if s.pattern == nil {
		return slices.Contains(s.cfg.Topics, topic)
	}
	return !strings.HasPrefix(topic, "__") && s.pattern.MatchString(topic)
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
// watermark), for the lag. It blocks until the brokers answer or ctx ends. A
// partition that has no leader just now is left out; where nothing can be told
// there is an error.
func (s *Source) End(ctx context.Context) (map[record.Partition]int64, error) {
	s.mu.Lock()
	ps := slices.Collect(maps.Keys(s.parts))
	s.mu.Unlock()
	if len(ps) == 0 {
		return map[record.Partition]int64{}, nil
	}
	ends, err := listOffsets(ctx, s.cl, ps, latest)
	if len(ends) == 0 {
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
	s.endInquiries()
	s.interrupt()
	s.mu.Unlock()
	s.closer.Do(s.cl.Close)
	s.inquiring.Wait()
	return nil
}
