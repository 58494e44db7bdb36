package pipeline

import (
	"sync"
	"sync/atomic"
	"time"
)

// Stats are counters of one flow on this node since it was opened. All of them
// may be read at any time.
type Stats struct {
	// In counts records taken into a window, Emitted acknowledged emissions,
	// Dropped and Failed records (Failed: with an owner other than the flow),
	// Kept those that deliveries put off, Injected kept entries that came back,
	// Untold those that Config.Tell could not be told of.
	In, Emitted, Dropped, Failed, Retried, Kept, Injected, Untold atomic.Int64

	mu     sync.Mutex
	stages map[string]*StageStats // guarded by mu
}

// Stage has the counters of the stage, branch or delivery with an id, nil if
// the flow has never had it.
func (s *Stats) Stage(id string) *StageStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stages[id]
}

func (s *Stats) stage(id string) *StageStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stages == nil {
		s.stages = map[string]*StageStats{}
	}
	st := s.stages[id]
	if st == nil {
		st = &StageStats{}
		s.stages[id] = st
	}
	return st
}

// StageStats are the counters of one stage. For a delivery Records are those
// that it has answered, and Nanos is the time that lanes spent handing records
// over, not the sink's.
type StageStats struct {
	Calls, Records, Nanos, Drops, Failures atomic.Int64
}

func (s *StageStats) call(records int, d time.Duration) {
	s.Calls.Add(1)
	s.Records.Add(int64(records))
	s.Nanos.Add(int64(d))
}

// LaneStatus is the state of one partition.
type LaneStatus struct {
	Ownership Ownership
	// Low is the watermark, Next the position of the source.
	Low, Next int64
	InFlight  int
	// UnderWay is how many kept entries have come back and are not settled.
	UnderWay int
	Paused   bool
	// Problem is why the lane does not go on just now, or empty.
	Problem string
}
