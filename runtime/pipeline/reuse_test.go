package pipeline

import (
	"context"
	"encoding/binary"
	"io"
	"runtime"
	"sync"
	"testing"

	"github.com/millrace-io/millrace/runtime/record"
)

// reuseSource yields n records of one partition whose values are their
// offsets, and makes batches in the memory of those that it got back, which it
// spoils at once.
type reuseSource struct {
	benchSource
	values []byte
	mu     sync.Mutex
	free   []*record.Batch // guarded by mu
	given  map[*record.Batch]bool
	faults []string // guarded by mu
}

var spoiled = []byte("spoiled!")

func newReuseSource(n int64) *reuseSource {
	s := &reuseSource{benchSource: benchSource{n: n, max: 500}, values: make([]byte, 0, 8*n), given: map[*record.Batch]bool{}}
	for i := range n {
		s.values = binary.BigEndian.AppendUint64(s.values, uint64(i))
	}
	return s
}

func (s *reuseSource) Poll(ctx context.Context) (*record.Batch, error) {
	if s.at == s.n {
		return nil, io.EOF
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var b *record.Batch
	if last := len(s.free) - 1; last >= 0 {
		b, s.free = s.free[last], s.free[:last]
	} else {
		b = &record.Batch{Records: make([]record.Record, 0, s.max)}
	}
	s.given[b] = true
	b.Partition.Topic = "t"
	for to := min(s.at+s.max, s.n); s.at < to; s.at++ {
		b.Records = append(b.Records, record.Record{Topic: "t", Offset: s.at, Value: s.values[8*s.at : 8*s.at+8], To: -1})
	}
	b.Next = s.at
	return b, ctx.Err()
}

func (s *reuseSource) Recycle(b *record.Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.given[b] {
		s.faults = append(s.faults, "a batch was given back twice")
	}
	delete(s.given, b)
	for i := range b.Records {
		b.Records[i] = record.Record{Offset: -1, Value: spoiled}
	}
	*b = record.Batch{Records: b.Records[:0]}
	s.free = append(s.free, b)
}

// lateSink answers all of a shipment but its first record at once, and that one
// when three more shipments have come; it looks at the records until the last
// answer, as it may.
type lateSink struct {
	mu     sync.Mutex
	late   []func()
	faults []string
	next   int64
}

func (s *lateSink) check(r *record.Record, when string) {
	if len(r.Value) != 8 || binary.BigEndian.Uint64(r.Value) != uint64(r.Offset) || r.Topic != "t" {
		s.faults = append(s.faults, when+": "+r.ID()+" has another's value")
	}
}

func (s *lateSink) Deliver(_ context.Context, recs []record.Record, done func(int, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range recs {
		s.check(&recs[i], "delivered")
		if recs[i].Offset != s.next {
			s.faults = append(s.faults, "out of order")
		}
		s.next = recs[i].Offset + 1
	}
	for i := 1; i < len(recs); i++ {
		done(i, nil)
	}
	first := func() { s.check(&recs[0], "answered late"); done(0, nil) }
	if s.late = append(s.late, first); len(s.late) > 3 || s.next%1000 == 0 {
		for _, answer := range s.late {
			answer()
		}
		s.late = nil
		s.check(&recs[0], "after its answer, in Deliver")
	}
}

func (s *lateSink) Problem() string { return "" }

// reuseFlow passes n records through a stage, or none, and returns what it
// allocated for each.
func reuseFlow(t *testing.T, n int64, stages int) (allocs, bytes float64) {
	t.Helper()
	src, out := newReuseSource(n), &lateSink{}
	var bound []BoundStage
	for range stages {
		bound = append(bound, BoundStage{stageFunc(emit), StageInfo{ID: "s"}})
	}
	f := New(Config{}, src, Linear(0, bound, pushInfo), only(out))
	if err := f.Open(LaneConfig{Partition: record.Partition{Topic: "t"}}); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := f.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	for _, fault := range append(src.faults, out.faults...) {
		t.Fatalf("%d stages: %s", stages, fault)
	}
	if out.next != n || f.Stats().Emitted.Load() != n {
		t.Fatalf("%d stages: %d of %d records came out, %d were acknowledged", stages, out.next, n, f.Stats().Emitted.Load())
	}
	return float64(after.Mallocs-before.Mallocs) / float64(n), float64(after.TotalAlloc-before.TotalAlloc) / float64(n)
}

// What a lane needs for records that are under way it uses again, when nobody
// looks at it any more and not before. A record takes 180 bytes: one copy that is
// garbage shows.
func TestLaneUsesItsMemoryAgain(t *testing.T) {
	for _, stages := range []int{0, 1} {
		allocs, bytes := reuseFlow(t, 200_000, stages)
		t.Logf("%d stages: %.3f allocations and %.1f bytes a record", stages, allocs, bytes)
		if allocs > 0.1 || bytes > 40 {
			t.Errorf("%d stages: %.3f allocations and %.1f bytes a record, want at most 0.1 and 40", stages, allocs, bytes)
		}
	}
}
