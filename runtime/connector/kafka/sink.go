package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/runtime/record"
)

// Compression is a codec for what is sent.
type Compression string

// The codecs. The empty Compression is LZ4.
const (
	LZ4    Compression = "lz4"
	Zstd   Compression = "zstd"
	Snappy Compression = "snappy"
	Gzip   Compression = "gzip"
	None   Compression = "none"
)

// SinkConfig configures a Sink.
type SinkConfig struct {
	Config
	// Topic to write to. Brokers that create topics on demand do so when it
	// is missing.
	Topic string
	// Compression of what is sent. Default LZ4.
	Compression Compression
	// Linger is how long a batch that is not full waits for more records
	// before it is sent. Default 0: it is sent at once, and batches form
	// while earlier ones are under way.
	Linger time.Duration
	// MaxBatchBytes bounds a batch as it is sent, and so the largest record.
	// Default 1,000,012, as Kafka's own.
	MaxBatchBytes int32
}

// Validate reports every fault of the configuration.
func (c SinkConfig) Validate() error {
	errs := []error{c.Config.Validate()}
	if c.Topic == "" {
		errs = append(errs, errors.New("kafka sink: no topic"))
	}
	if _, err := c.Compression.codec(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (c Compression) codec() (kgo.CompressionCodec, error) {
	switch c {
	case "", LZ4:
		return kgo.Lz4Compression(), nil
	case Zstd:
		return kgo.ZstdCompression(), nil
	case Snappy:
		return kgo.SnappyCompression(), nil
	case Gzip:
		return kgo.GzipCompression(), nil
	case None:
		return kgo.NoCompression(), nil
	}
	return kgo.NoCompression(), fmt.Errorf("kafka sink: compression %q: it is one of lz4, zstd, snappy, gzip, none", string(c))
}

// Sink writes records to one topic: idempotent, acknowledged by all in-sync
// replicas, in order per output partition. A record goes to the partition its
// To names; without one, by its key as Kafka's own producer does (murmur2);
// without a key to the one with its source's number, modulo theirs, so that
// what was in order in one partition still is.
//
// Safe for concurrent use; order holds among the records of calls that follow
// one another.
type Sink struct {
	cfg    SinkConfig
	cl     *kgo.Client
	health *health
	closer sync.Once
	// life ends with Close: what was taken over does not end with the context
	// that it came with, or a soft stop would send records twice.
	life context.Context
	end  context.CancelFunc

	answer   func(*kgo.Record, error) // answered, made once
	spare    sync.Pool                // of *shipment
	waiting  atomic.Int64             // records without an answer
	progress progress

	holding atomic.Int32 // source partitions in held
	mu      sync.Mutex
	held    map[int32]*held // by source partition; guarded by mu
}

// progress is when the brokers last took a batch, or got something to do after
// a rest, in Unix nanoseconds. The clock is read once a batch, not once a record.
type progress struct{ at atomic.Int64 }

func (p *progress) note() { p.at.Store(time.Now().UnixNano()) }

// OnProduceBatchWritten implements kgo.HookProduceBatchWritten.
func (p *progress) OnProduceBatchWritten(kgo.BrokerMetadata, string, int32, kgo.ProduceBatchMetrics) {
	p.note()
}

// NewSink makes a sink. It connects to nothing yet.
func NewSink(cfg SinkConfig) (*Sink, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.Config = cfg.Config.defaults()
	if cfg.MaxBatchBytes <= 0 {
		cfg.MaxBatchBytes = 1_000_012
	}
	codec, _ := cfg.Compression.codec()
	s := &Sink{cfg: cfg, health: newHealth()}
	s.answer = s.answered
	s.life, s.end = context.WithCancel(context.Background())
	cl, err := kgo.NewClient(append(cfg.options(s.health),
		kgo.DefaultProduceTopic(cfg.Topic),
		kgo.AllowAutoTopicCreation(),
		kgo.RecordPartitioner(partitioner{kgo.StickyKeyPartitioner(nil)}),
		kgo.ProducerBatchCompression(codec),
		kgo.ProducerLinger(cfg.Linger),
		kgo.ProducerBatchMaxBytes(cfg.MaxBatchBytes),
		kgo.MaxBufferedRecords(math.MaxInt32), // windows bound what is under way
		kgo.AllowIdempotentProduceCancellation(),
		// A producer that has lost its place asks for a new one as long as it takes:
		// the client would give up all records of the partition, and their order.
		kgo.RequestRetries(math.MaxInt32),
		kgo.RetryTimeout(0),
		kgo.WithHooks(&s.progress),
	)...)
	if err != nil {
		return nil, fmt.Errorf("kafka sink: %w", err)
	}
	s.cl = cl
	return s, nil
}

// shipment is what one call of Deliver was given. It is used again once all of
// it is answered and Deliver has returned.
type shipment struct {
	sink  *Sink
	done  func(i int, err error)
	slots []slot
	open  atomic.Int32 // answers that are missing, and one more while Deliver runs
}

// slot is a record on its way. It is the record's context, too, so that the
// client hands it back with the answer.
type slot struct {
	of       *shipment // never changed: the client may look at a context after its record's answer
	index    int32
	to, from int32 // partitions: the one asked for or -1, the source's
	tries    int32
	rec      kgo.Record
}

func (sl *slot) Deadline() (time.Time, bool) { return sl.of.sink.life.Deadline() }
func (sl *slot) Done() <-chan struct{}       { return sl.of.sink.life.Done() }
func (sl *slot) Err() error                  { return sl.of.sink.life.Err() }
func (sl *slot) Value(key any) any           { return sl.of.sink.life.Value(key) }

// shipment gets one for n records; all fields of its slots but of are to be set.
func (s *Sink) shipment(n int) *shipment {
	sh, _ := s.spare.Get().(*shipment)
	if sh == nil || cap(sh.slots) < n {
		sh = &shipment{sink: s, slots: make([]slot, n)}
		for i := range sh.slots {
			sh.slots[i].of = sh
		}
	}
	sh.slots = sh.slots[:n]
	sh.open.Store(int32(n) + 1)
	return sh
}

// leave takes note that an answer came, or that Deliver returns.
func (sh *shipment) leave() {
	if sh.open.Add(-1) == 0 {
		sh.done = nil
		sh.sink.spare.Put(sh)
	}
}

// Deliver takes the records over and returns without waiting for the brokers.
// done is called exactly once for each index, from any goroutine and possibly
// before Deliver returns, in order per output partition; it must not block.
//
// A nil error says that the record is durable. Else it is a *record.Error
// (class too_large, config, rejected), or one for which errors.Is(err,
// context.Canceled) holds: ctx had ended before the call, or the sink was
// closed before the answer came; then the record may or may not have been
// written. While brokers are away records wait without end. The slice may be
// reused once Deliver returned; the records' bytes may not.
func (s *Sink) Deliver(ctx context.Context, recs []record.Record, done func(i int, err error)) {
	if ctx.Err() != nil {
		for i := range recs {
			done(i, fmt.Errorf("produce to %s: %w", s.cfg.Topic, context.Canceled))
		}
		return
	}
	if s.waiting.Add(int64(len(recs))) == int64(len(recs)) {
		s.progress.note()
	}
	sh := s.shipment(len(recs))
	defer sh.leave()
	sh.done = done
	for i := range recs {
		r, sl := &recs[i], &sh.slots[i]
		sl.index, sl.to, sl.from, sl.tries = int32(i), r.To, r.Partition, 0
		sl.rec = kgo.Record{Key: r.Key, Value: r.Value, Context: sl}
		if r.Timestamp > 0 {
			sl.rec.Timestamp = time.UnixMilli(r.Timestamp)
		}
		if len(r.Headers) > 0 {
			hs := make([]kgo.RecordHeader, len(r.Headers))
			for j, h := range r.Headers {
				hs[j] = kgo.RecordHeader{Key: h.Key, Value: h.Value}
			}
			sl.rec.Headers = hs
		}
		s.send(sl)
	}
}

// answered is the client's answer for a record.
func (s *Sink) answered(r *kgo.Record, err error) {
	sl := r.Context.(*slot)
	if err != nil {
		err = s.classify(r, err)
		if e := record.AsError(err); e.Class.Transient() && !errors.Is(err, context.Canceled) {
			s.again(sl, err)
			return
		}
	}
	sh, i := sl.of, int(sl.index)
	sl.rec = kgo.Record{} // a spare slot holds nobody's bytes
	s.waiting.Add(-1)
	sh.done(i, err)
	sh.leave()
}

// classify turns the client's error for a record into ours.
func (s *Sink) classify(r *kgo.Record, err error) error {
	sent := r.Context.(*slot)
	switch {
	case sent.Err() != nil, errors.Is(err, kgo.ErrClientClosed), errors.Is(err, kgo.ErrAborting):
		return fmt.Errorf("produce to %s: %w", s.cfg.Topic, context.Canceled)
	case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge):
		return record.Errorf(record.TooLarge, "produce to %s: a record of %d bytes is more than the topic takes: %w", s.cfg.Topic, len(r.Key)+len(r.Value), err)
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID):
		return record.Errorf(record.Config, "topic %q does not exist at %s: make it, or correct the flow's push", s.cfg.Topic, strings.Join(s.cfg.Brokers, ", "))
	case isForbidden(err):
		return forbidden(fmt.Sprintf("write to topic %q", s.cfg.Topic), err)
	case errors.Is(err, kerr.InvalidRecord), errors.Is(err, kerr.InvalidTimestamp), errors.Is(err, kerr.PolicyViolation):
		return record.Errorf(record.Rejected, "produce to %s: %w", s.cfg.Topic, err)
	case kerr.IsRetriable(err), isTransport(err):
		return record.Errorf(record.Retryable, "produce to %s: %w", s.cfg.Topic, err)
	}
	if ke, ok := errors.AsType[*kerr.Error](err); ok {
		return record.Errorf(record.Config, "produce to %s: %w", s.cfg.Topic, ke)
	}
	if sent.to >= 0 {
		return record.Errorf(record.Rejected, "produce to partition %d of %s: %w", sent.to, s.cfg.Topic, err)
	}
	return record.Errorf(record.Internal, "produce to %s: %w", s.cfg.Topic, err)
}

// isTransport reports whether err comes from the connection.
func isTransport(err error) bool {
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

// silence is how long records may be without an answer before that is a
// problem by itself.
const silence = 5 * time.Second

// Problem says why deliveries do not get through just now, or is empty.
func (s *Sink) Problem() string {
	if s.waiting.Load() == 0 {
		return ""
	}
	if p := s.health.problem(); p != "" {
		return p
	}
	if since := time.Since(time.Unix(0, s.progress.at.Load())); since > silence {
		return fmt.Sprintf("no answer from %s for %s", strings.Join(s.cfg.Brokers, ", "), since.Round(time.Second))
	}
	return ""
}

// Close abandons what is under way and ends the sink. It may be called twice.
func (s *Sink) Close() error {
	s.closer.Do(func() {
		s.end()
		s.cl.Close()
		s.release()
	})
	return nil
}

// partitioner sends records where they are addressed to, those without a key
// where their source's partition says, and the others where the partitioner by
// keys does.
type partitioner struct{ byKey kgo.Partitioner }

func (p partitioner) ForTopic(topic string) kgo.TopicPartitioner {
	byKey := p.byKey.ForTopic(topic)
	return topicPartitioner{byKey, byKey.(kgo.TopicPartitionerOnNewBatch)}
}

type topicPartitioner struct {
	kgo.TopicPartitioner
	kgo.TopicPartitionerOnNewBatch
}

func (topicPartitioner) RequiresConsistency(*kgo.Record) bool { return true }

func (p topicPartitioner) Partition(r *kgo.Record, n int) int {
	sl := r.Context.(*slot)
	switch {
	case sl.to >= 0:
		return int(sl.to)
	case r.Key == nil:
		return int(sl.from) % n
	}
	return p.TopicPartitioner.Partition(r, n)
}
