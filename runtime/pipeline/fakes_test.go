package pipeline

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/millrace-io/millrace/runtime/ledger"
	"github.com/millrace-io/millrace/runtime/record"
)

// memSource is a source over slices.
type memSource struct {
	mu     sync.Mutex
	topics map[record.Partition][]record.Record
	at     map[record.Partition]int64
	paused map[record.Partition]bool
	pauses int
	max    int // records a batch
	finite bool
	turn   int
	parts  []record.Partition
	wake   chan struct{}
}

func newMemSource(partitions, records, max int) *memSource {
	s := &memSource{topics: map[record.Partition][]record.Record{}, at: map[record.Partition]int64{}, paused: map[record.Partition]bool{}, max: max, wake: make(chan struct{}, 1)}
	for p := range partitions {
		part := record.Partition{Topic: "t", Num: int32(p)}
		s.parts = append(s.parts, part)
		for o := range records {
			s.topics[part] = append(s.topics[part], record.Record{Topic: "t", Partition: int32(p), Offset: int64(o), Value: fmt.Appendf(nil, "%d/%d", p, o), Attempt: 1, To: -1})
		}
	}
	return s
}

func (s *memSource) kick() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *memSource) Poll(ctx context.Context) (*record.Batch, error) {
	for {
		if b, ended := s.next(); b != nil {
			return b, nil
		} else if ended {
			return nil, io.EOF
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *memSource) next() (*record.Batch, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ended := s.finite && len(s.at) == len(s.parts)
	for range s.parts {
		p := s.parts[s.turn%len(s.parts)]
		s.turn++
		at, ok := s.at[p]
		if !ok {
			continue
		}
		rest := s.topics[p][at:]
		if len(rest) == 0 {
			continue
		}
		ended = false
		if s.paused[p] {
			continue
		}
		n := min(len(rest), s.max)
		b := &record.Batch{Partition: p, Records: append([]record.Record(nil), rest[:n]...), Next: at + int64(n)}
		s.at[p] = b.Next
		return b, false
	}
	return nil, ended
}

func (s *memSource) Assign(p record.Partition, offset int64) {
	s.mu.Lock()
	s.at[p] = offset
	s.mu.Unlock()
	s.kick()
}
func (s *memSource) Unassign(p record.Partition) { s.mu.Lock(); delete(s.at, p); s.mu.Unlock() }
func (s *memSource) Pause(p record.Partition) {
	s.mu.Lock()
	s.paused[p] = true
	s.pauses++
	s.mu.Unlock()
}
func (s *memSource) Resume(p record.Partition) {
	s.mu.Lock()
	s.paused[p] = false
	s.mu.Unlock()
	s.kick()
}
func (s *memSource) Problem() string { return "" }

// stageFunc is a stage as a function of one record.
type stageFunc func(in int32, r *record.Record, out *record.Results)

func (f stageFunc) Process(_ context.Context, b *record.Batch, out *record.Results) error {
	for i := range b.Records {
		f(int32(i), &b.Records[i], out)
	}
	return nil
}

func emit(in int32, r *record.Record, out *record.Results) {
	out.Emits = append(out.Emits, record.Emit{In: in, Record: *r})
}

// deliveryFunc is a delivery as a function.
type deliveryFunc func(ctx context.Context, recs []record.Record, done func(int, error))

func (f deliveryFunc) Deliver(ctx context.Context, recs []record.Record, done func(int, error)) {
	f(ctx, recs, done)
}
func (f deliveryFunc) Problem() string { return "" }

// pushInfo describes the only delivery of a flow, only makes it of a sink.
var pushInfo = StageInfo{ID: "push"}

func only(s Sink) []Delivery { return []Delivery{Plain(s)} }

// sink remembers what it acknowledged, in order. It acknowledges a moment
// later, from one goroutine, until it is killed.
type sink struct {
	mu    sync.Mutex
	dead  bool
	got   []record.Record
	delay time.Duration
	// refuse decides about a record; nil takes everything.
	refuse func(*record.Record) error
}

func (s *sink) Problem() string { return "" }
func (s *sink) Deliver(ctx context.Context, recs []record.Record, done func(int, error)) {
	recs = append([]record.Record(nil), recs...)
	s.mu.Lock()
	dead := s.dead
	if !dead {
		for i := range recs {
			if s.refuse == nil || s.refuse(&recs[i]) == nil {
				s.got = append(s.got, recs[i])
			}
		}
	}
	s.mu.Unlock()
	go func() {
		time.Sleep(s.delay)
		for i := range recs {
			switch {
			case dead:
				done(i, context.Canceled)
			case s.refuse != nil:
				done(i, s.refuse(&recs[i]))
			default:
				done(i, nil)
			}
		}
	}()
}

func (s *sink) take() []record.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]record.Record(nil), s.got...)
}

// store is what the cluster keeps: it applies progress as the state machine
// does.
type store struct {
	mu     sync.Mutex
	low    map[record.Partition]int64
	ranges map[record.Partition][]ledger.Range
	failed map[string]*record.Entry
	filed  map[record.Partition][]record.EmissionKey
	counts map[record.Partition]Tally
	refuse error // answer to every commit
}

func newStore() *store {
	return &store{low: map[record.Partition]int64{}, ranges: map[record.Partition][]ledger.Range{}, failed: map[string]*record.Entry{}, filed: map[record.Partition][]record.EmissionKey{}, counts: map[record.Partition]Tally{}}
}

// at is the committed watermark.
func (s *store) at(p record.Partition) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.low[p]
}

// tally is the last one committed.
func (s *store) tally(p record.Partition) Tally {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[p]
}

func (s *store) commit(f *Flow) {
	for _, p := range f.Dirty() {
		f.Ack(p, s.apply(p))
	}
}

func (s *store) apply(p Progress) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != nil {
		return s.refuse
	}
	if p.Low < s.low[p.Partition] {
		panic(fmt.Sprintf("watermark of %v goes back from %d to %d", p.Partition, s.low[p.Partition], p.Low))
	}
	s.low[p.Partition], s.ranges[p.Partition], s.counts[p.Partition] = p.Low, p.Ranges, p.Tally
	for _, e := range p.Failures {
		if s.failed[e.ID()] != nil {
			panic("filed twice: " + e.ID())
		}
		s.failed[e.ID()] = e
		s.filed[p.Partition] = append(s.filed[p.Partition], e.Input.EmissionKey())
	}
	return nil
}

// open opens a lane for every partition of src where the store left off.
func (s *store) open(f *Flow, src *memSource) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, p := range src.parts {
		cfg := LaneConfig{Partition: p, Ownership: Ownership{Part: uint32(i)}, Low: s.low[p], Ranges: s.ranges[p], Known: s.filed[p]}
		if err := f.Open(cfg); err != nil {
			panic(err)
		}
	}
}
