// Package ingest is a source whose records are HTTP requests: a Source is
// polled by lanes like any other, and serves the requests of senders. A sender
// is answered once its record is settled (delivered, dropped by a rule, or in
// the committed state), so a request that was answered with 200 survives the
// death of the process, and one that was not may be sent again with the same
// key.
//
// It does not listen, knows neither TLS nor tokens, and keeps nothing on disk:
// what it remembers of keys is lent to its owner, who commits it.
package ingest

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/textproto"
	"sync"
	"time"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/connector/internal/gate"
	"github.com/millrace-io/millrace/runtime/record"
)

// Defaults and limits of Config.
const (
	DefaultBody     = 1 << 20
	MaxBody         = 1 << 20
	DefaultWait     = 30 * time.Second
	DefaultKey      = "Idempotency-Key"
	DefaultInFlight = 1000
	DefaultWindow   = 24 * time.Hour
	// DefaultInFlightBytes is the default of Config.InFlightBytes.
	DefaultInFlightBytes = 16 << 20
	// DefaultRemembered is how many keys are remembered.
	DefaultRemembered = 100_000
	// bodyTime is how long a body may take to arrive.
	bodyTime = 30 * time.Second
	// maxRecords of a batch.
	maxRecords = 1024
)

// Partition is the only partition of the source.
var Partition = record.Partition{Topic: "ingest"}

// Config configures a Source. The zero value of a field is its default.
type Config struct {
	// Body is the largest body in bytes, at most MaxBody.
	Body int64
	// Wait is how long a sender waits for its record to be settled.
	Wait time.Duration
	// Key is the header with the sender's key of a request.
	Key string
	// InFlight is the most requests that are being read or not settled,
	// InFlightBytes the bytes of their bodies; beyond them senders are turned
	// away. InFlightBytes is at least Body.
	InFlight      int
	InFlightBytes int64
	// Window is how long the key of a settled request is remembered, and
	// Remembered how many are at most.
	Window     time.Duration
	Remembered int
	// Durable says that the owner commits what Settling lends.
	Durable bool
	// Check says whether a request comes from whom it is to come from; nil:
	// anybody may send. A *record.Error of class rejected turns the sender
	// away with its message; any other error is a fault of ours. Hide are
	// headers that do not go into the record, such as the signature.
	Check func(r *http.Request, body []byte) error
	Hide  []string
	// Held says why the flow takes nothing in at the moment, or is empty.
	Held func() string
	// Answered is called with the status of each answer.
	Answered func(status int)
	// Now is the clock; nil: the system's.
	Now    func() time.Time
	Logger *slog.Logger
}

func (c *Config) defaults() error {
	var errs []error
	if c.Body < 0 || c.Body > MaxBody {
		errs = append(errs, record.Errorf(record.Config, "ingest: bodies of %d bytes: at most %d are possible", c.Body, MaxBody))
	}
	if c.Wait < 0 || c.Window < 0 || c.InFlight < 0 || c.InFlightBytes < 0 || c.Remembered < 0 {
		errs = append(errs, record.Errorf(record.Config, "ingest: a negative limit"))
	}
	c.Body, c.Wait, c.Window = cmp.Or(c.Body, DefaultBody), cmp.Or(c.Wait, DefaultWait), cmp.Or(c.Window, DefaultWindow)
	c.Key = textproto.CanonicalMIMEHeaderKey(cmp.Or(c.Key, DefaultKey))
	c.InFlight, c.Remembered = cmp.Or(c.InFlight, DefaultInFlight), cmp.Or(c.Remembered, DefaultRemembered)
	c.InFlightBytes = max(cmp.Or(c.InFlightBytes, DefaultInFlightBytes), c.Body)
	if c.Held == nil {
		c.Held = func() string { return "" }
	}
	if c.Answered == nil {
		c.Answered = func(int) {}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return errors.Join(errs...)
}

// Source is the source. Records have the topic "ingest" and partition 0; Ref
// is the request's key in the sender's words where those can stand in an
// identity, else a hash of it, else, without a key, a new UUID. Offsets rise
// by one with each request and begin at the time of Assign in Unix
// microseconds, so those of a later life are higher.
//
// Nothing can be read a second time: a request that was not settled when the
// partition was unassigned, or the source closed, is answered with 503 and is
// the sender's to repeat.
//
// Poll belongs to one goroutine; all other methods may be called at any time
// by any, and but for ServeHTTP do not block.
type Source struct {
	cfg    Config
	seed   record.TraceSeed
	hidden map[string]bool // canonical names of headers that records do not have
	gate   *gate.Gate
	// arrived: the queue is not empty. 1: one signal is enough.
	arrived chan struct{}

	gen uint64 // of the assignment that was begun; Poll's

	mu      sync.Mutex
	open    bool                // guarded by mu; assigned and not closed
	floor   int64               // guarded by mu; no offset is below it
	next    int64               // guarded by mu; offset of the next request
	queue   []*request          // guarded by mu; admitted and not polled
	flight  map[int64]*request  // guarded by mu; admitted and not settled, by offset
	refs    map[string]*request // guarded by mu; the same by Ref
	used    int                 // guarded by mu; requests being read or in flight
	bytes   int64               // guarded by mu; of their bodies
	memory  *memory             // guarded by mu; of those that are settled
	unsaved map[int64]Request   // guarded by mu; remembered and not yet known as saved, by offset
}

// New makes a source. The error joins every fault of cfg.
func New(cfg Config) (*Source, error) {
	if err := cfg.defaults(); err != nil {
		return nil, err
	}
	s := &Source{
		cfg: cfg, seed: record.NewTraceSeed(Partition), gate: gate.New(), arrived: make(chan struct{}, 1), hidden: map[string]bool{},
		flight: map[int64]*request{}, refs: map[string]*request{}, memory: newMemory(cfg.Remembered, cfg.Window), unsaved: map[int64]Request{},
	}
	for _, name := range append(notRecorded, cfg.Hide...) {
		s.hidden[textproto.CanonicalMIMEHeaderKey(name)] = true
	}
	return s, nil
}

// Partitions is {"ingest", 0}.
func (s *Source) Partitions(context.Context) ([]connector.Found, error) {
	return []connector.Found{{Partition: Partition}}, nil
}

// Start is 0.
func (s *Source) Start(context.Context, record.Partition, connector.Start) (int64, error) {
	return 0, nil
}

// End is the offset of the next request.
func (s *Source) End(context.Context) (map[record.Partition]int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return map[record.Partition]int64{Partition: s.next}, nil
}

// Above keeps offsets at or above one, for all assignments that follow. The
// owner calls it before Assign with an offset above all that the state knows,
// so that a clock that was set back does not bring one a second time.
func (s *Source) Above(offset int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.floor = max(s.floor, offset)
}

// Assign begins to take requests in. The first batch is empty and moves the
// position to where offsets begin, which is at or above offset. Requests of an
// assignment before are given up.
func (s *Source) Assign(_ record.Partition, offset int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.giveUp()
	s.next = max(s.next, s.floor, offset, s.cfg.Now().UnixMicro())
	s.open = true
	s.gate.Assign(s.next)
}

// Unassign stops taking requests in and gives up those that are not settled.
func (s *Source) Unassign(record.Partition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = false
	s.giveUp()
	s.gate.Unassign()
}

// Pause holds records back until Resume. Requests are taken in as long as
// there is room.
func (s *Source) Pause(record.Partition) { s.gate.Pause() }

// Resume ends a Pause.
func (s *Source) Resume(record.Partition) { s.gate.Resume() }

// Problem is empty.
func (s *Source) Problem() string { return "" }

// Close ends the source, a Poll under way and every request that waits. It may
// be called twice.
func (s *Source) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = false
	s.giveUp()
	s.gate.Close()
	return nil
}

// Poll blocks until there is a request or ctx ends; it does not wait for more
// of them. The error is ctx's or connector.ErrClosed.
func (s *Source) Poll(ctx context.Context) (*record.Batch, error) {
	for {
		a, err := s.gate.Wait(ctx)
		if err != nil {
			return nil, err
		}
		b, changed := s.take(a)
		if b != nil {
			return b, nil
		}
		if changed == nil {
			continue
		}
		select {
		case <-s.arrived:
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// take makes a batch of what is queued. Without one, changed is closed when the
// assignment may have changed, or nil if it has.
func (s *Source) take(a gate.Assignment) (b *record.Batch, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed, open := s.gate.Open(a.Gen)
	switch {
	case !open:
		return nil, nil
	case s.gen != a.Gen:
		s.gen = a.Gen
		return &record.Batch{Partition: Partition, Next: a.Offset}, nil
	case len(s.queue) == 0:
		return nil, changed
	}
	n := min(len(s.queue), maxRecords)
	b = &record.Batch{Partition: Partition, Records: make([]record.Record, n)}
	for i, q := range s.queue[:n] {
		b.Records[i] = q.rec
		b.Next = q.offset + 1
		q.rec = record.Record{}
	}
	s.queue = append([]*request(nil), s.queue[n:]...)
	return b, nil
}
