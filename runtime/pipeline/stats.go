package pipeline

import (
	"sync/atomic"
	"time"
)

// Stats are counters of one flow on this node since it was opened. All fields
// may be read at any time.
type Stats struct {
	// In counts records taken into a window, Emitted acknowledged emissions,
	// Dropped and Failed records (Failed: with an owner other than the flow).
	In, Emitted, Dropped, Failed, Retried atomic.Int64
	// Stages has an element a stage and a last one for the delivery.
	Stages []StageStats
}

// StageStats are the counters of one stage. For the delivery Records are those
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
	Paused    bool
	// Problem is why the lane does not go on just now, or empty.
	Problem string
}
