package rocketmq

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
)

// SinkConfig configures a Sink.
type SinkConfig struct {
	Config
	// Topic to write to. Brokers that create topics on demand do so when it
	// is missing.
	Topic string
	// Tag makes a message's tag of a record; nil, and an empty answer: the
	// record's header rocketmq.tag, if it has one. An error fails the record.
	Tag func(*record.Record) (string, error)
	// DelayLevel lets the broker keep messages back: 1 to 18, each a time
	// that the broker's configuration says; 0: not at all.
	DelayLevel int
	// IdempotencyKey makes what is added to a message's KEYS; nil: nothing.
	IdempotencyKey func(*record.Record) string
}

// maxDelayLevel is how many levels brokers have.
const maxDelayLevel = 18

// Validate reports every fault of the configuration.
func (c SinkConfig) Validate() error {
	errs := []error{c.Config.Validate(), checkTopic("sink", c.Topic)}
	if c.DelayLevel < 0 || c.DelayLevel > maxDelayLevel {
		errs = append(errs, fmt.Errorf("rocketmq sink: delay level %d: it is 0 to %d", c.DelayLevel, maxDelayLevel))
	}
	return errors.Join(errs...)
}

// Sink writes records to one topic, in order per queue: one request of a queue
// is under way at a time, and one that fails is tried again in its place. A
// record goes to the queue its To numbers; without one by the hash of its key;
// without a key to the one with its source's number, modulo theirs. Queues are
// numbered over all brokers, in the order of the brokers' names. What waits for
// a queue that was taken away is given to the others.
//
// Safe for concurrent use; order holds among the records of calls that follow
// one another.
type Sink struct {
	cfg SinkConfig
	cl  *client
	// life ends with Close: what was taken over does not end with the context
	// that it came with, or a soft stop would send records twice.
	life context.Context
	end  context.CancelFunc

	mu       sync.Mutex
	queues   []*queue            // in the order of their numbers; nil: not known yet; guarded by mu
	known    map[queueKey]*queue // all that were ever seen; guarded by mu
	unrouted []pending           // records that came before the queues were known; guarded by mu
	routing  bool                // a goroutine looks for the queues; guarded by mu
	looked   time.Time           // when the queues were last looked for; guarded by mu
	closed   bool                // guarded by mu
	work     sync.WaitGroup      // goroutines; Add under mu, and not once closed

	waiting  atomic.Int64 // records without an answer
	progress atomic.Int64 // Unix nanoseconds of the last answer, or of the first record after a rest
}

// queue is one queue of the topic. Its goroutine runs while records wait.
type queue struct {
	queueKey
	waiting []pending // guarded by the sink's mu
	singly  int       // how many of them, from the first on, are sent one by one; guarded by the sink's mu
	running bool      // guarded by the sink's mu
}

type queueKey struct {
	broker string
	num    int32
}

// pending is a record on its way.
type pending struct {
	index    int
	done     func(int, error)
	to, from int32 // the queue asked for or -1, the source's partition
	key      []byte
	out      outgoing
}

// NewSink makes a sink. It connects to nothing yet.
func NewSink(cfg SinkConfig) (*Sink, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.Config = cfg.Config.defaults()
	s := &Sink{cfg: cfg, cl: newClient(cfg.Config), known: map[queueKey]*queue{}}
	s.life, s.end = context.WithCancel(context.Background())
	return s, nil
}

// Deliver takes the records over and returns without waiting for the brokers.
// done is called exactly once for each index, from any goroutine and possibly
// before Deliver returns, in order per queue; it must not block.
//
// A nil error says that the broker has stored the message, as safely as it is
// configured to. Else it is a *record.Error (class too_large, config, rejected,
// or what Tag answered), or one for which errors.Is(err, context.Canceled)
// holds: ctx had ended before the call, or the sink was closed before the
// answer came; then the record may or may not have been written. While brokers
// are away records wait without end. The slice may be reused once Deliver
// returned; the records' bytes may not.
func (s *Sink) Deliver(ctx context.Context, recs []record.Record, done func(i int, err error)) {
	taken := make([]pending, 0, len(recs))
	for i := range recs {
		if ctx.Err() != nil {
			done(i, s.canceled())
			continue
		}
		out, err := s.message(&recs[i])
		if err != nil {
			done(i, err)
			continue
		}
		taken = append(taken, pending{index: i, done: done, to: recs[i].To, from: recs[i].Partition, key: recs[i].Key, out: out})
	}
	if len(taken) == 0 {
		return
	}
	if s.waiting.Add(int64(len(taken))) == int64(len(taken)) {
		s.progress.Store(time.Now().UnixNano())
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		s.answer(taken, s.canceled())
		return
	}
	if s.queues == nil || time.Since(s.looked) > routeAge {
		s.look()
	}
	if s.queues == nil {
		s.unrouted = append(s.unrouted, taken...)
		s.mu.Unlock()
		return
	}
	bad := s.distribute(taken)
	s.mu.Unlock()
	s.reject(bad)
}

// message makes what is sent of a record.
func (s *Sink) message(r *record.Record) (outgoing, error) {
	tag, idempotency := "", ""
	if s.cfg.Tag != nil {
		var err error
		if tag, err = s.cfg.Tag(r); err != nil {
			return outgoing{}, err
		}
	}
	if s.cfg.IdempotencyKey != nil {
		idempotency = s.cfg.IdempotencyKey(r)
	}
	return toMessage(r, tag, idempotency, s.cfg.DelayLevel)
}

func (s *Sink) canceled() error {
	return fmt.Errorf("send to %s: %w", s.cfg.Topic, context.Canceled)
}

// answer settles records.
func (s *Sink) answer(ps []pending, err error) {
	s.waiting.Add(-int64(len(ps)))
	if err == nil {
		s.progress.Store(time.Now().UnixNano())
	}
	for i := range ps {
		ps[i].done(ps[i].index, err)
	}
}

// distribute puts records behind those that wait for their queues, and returns
// those that name a queue which is not there. mu is held, and the queues are
// known.
func (s *Sink) distribute(ps []pending) (bad []pending) {
	for _, p := range ps {
		n := int32(len(s.queues))
		to := p.to
		switch {
		case to >= n:
			bad = append(bad, p)
			continue
		case to >= 0:
		case p.key == nil:
			to = int32(uint32(p.from) % uint32(n))
		default:
			if to = javaHash(p.key) % n; to < 0 {
				to = -to
			}
		}
		q := s.queues[to]
		q.waiting = append(q.waiting, p)
		if !q.running {
			q.running = true
			s.work.Go(func() { s.run(q) })
		}
	}
	return bad
}

func (s *Sink) reject(ps []pending) {
	for i := range ps {
		s.answer(ps[i:i+1], record.Errorf(record.Rejected, "send to queue %d of %s: there is no such queue", ps[i].to, s.cfg.Topic))
	}
}

// javaHash is what Java's clients select a queue by: the sum of a string's
// characters, each weighed by a power of 31.
func javaHash(key []byte) (h int32) {
	for _, c := range string(key) {
		if c > 0xffff { // two characters in Java
			c -= 0x10000
			h = 31*h + 0xd800 + c>>10
			c = 0xdc00 + c&0x3ff
		}
		h = 31*h + c
	}
	return h
}

// silence is how long records may be without an answer before that is a
// problem by itself.
const silence = 5 * time.Second

// Problem says why deliveries do not get through just now, or is empty.
func (s *Sink) Problem() string {
	if s.waiting.Load() == 0 {
		return ""
	}
	if p := s.cl.health.problem(); p != "" {
		return p
	}
	if since := time.Since(time.Unix(0, s.progress.Load())); since > silence {
		return fmt.Sprintf("no answer from the brokers of topic %q for %s", s.cfg.Topic, since.Round(time.Second))
	}
	return ""
}

// Close abandons what is under way and ends the sink. It may be called twice.
func (s *Sink) Close() error {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	left := s.unrouted
	s.unrouted = nil
	s.mu.Unlock()
	if first {
		s.end()
		s.cl.close()
		s.answer(left, s.canceled())
	}
	s.work.Wait()
	return nil
}
