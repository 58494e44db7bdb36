package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
)

// skips are what OnSkip was told.
type skips struct {
	mu   sync.Mutex
	list []string
}

func (s *skips) on(p record.Partition, from, to int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, fmt.Sprintf("%d %d-%d", p.Num, from, to))
}

func (s *skips) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list)
}

func TestRealPositionBelowTheLog(t *testing.T) {
	r := shared(t)
	topic := r.topic("in", 1)
	p := record.Partition{Topic: topic}
	r.write(topic, 0, values("v", 0, 100)...)
	r.trim(topic, 0, 60)
	for _, tc := range []struct {
		policy OutOfRange
		first  int
		skips  []string
	}{
		{OutOfRangeEarliest, 60, []string{"0 50-60"}},
		{OutOfRangeLatest, 100, []string{"0 50-100"}},
	} {
		t.Run(string(tc.policy), func(t *testing.T) {
			var seen skips
			s := r.source(SourceConfig{OutOfRange: tc.policy, OnSkip: seen.on}, topic)
			found(t, s)
			s.Assign(p, 50)
			got := drain(t, s, p, 100) // the position moves, though nothing may come
			if len(got) != 100-tc.first || len(got) > 0 && got[0].Offset != int64(tc.first) {
				t.Errorf("%d records, want those from %d on", len(got), tc.first)
			}
			if !slices.Equal(seen.all(), tc.skips) {
				t.Errorf("told of %v, want %v", seen.all(), tc.skips)
			}
		})
	}
	t.Run("pause", func(t *testing.T) {
		var seen skips
		s := r.source(SourceConfig{OnSkip: seen.on}, topic)
		found(t, s)
		s.Assign(p, 50)
		wants(t, failure(t, s), "position 50 is no longer in the log, which begins at 60 and ends at 100: 10 records were deleted before they were read",
			"flowctl flow offsets reset FLOW --to "+topic+"/0=60", "`out_of_range`")
		if len(seen.all()) > 0 {
			t.Errorf("told of %v, want nothing: none were skipped", seen.all())
		}
	})
}

// All of a partition is deleted while it is read: what was fetched is delivered,
// what is passed over is told, and the two make up the whole.
func TestRealDeletedWhileItIsRead(t *testing.T) {
	r := shared(t)
	for _, policy := range []OutOfRange{OutOfRangeEarliest, OutOfRangeLatest} {
		t.Run(string(policy), func(t *testing.T) {
			r := on(t, r.addr)
			topic := r.topic("in", 1)
			p := record.Partition{Topic: topic}
			for i := range 20 { // a batch each, so that a fetch takes few of them
				r.write(topic, 0, values("v", i*50, i*50+50)...)
			}
			var seen skips
			s := r.source(SourceConfig{OutOfRange: policy, OnSkip: seen.on, BatchRecords: 7, FetchMaxPartitionBytes: 2 << 10, FetchMaxBytes: 2 << 10}, topic)
			found(t, s)
			s.Assign(p, 0)
			var got []int64
			take := func(next int64) {
				for _, rec := range drain(t, s, p, next) {
					got = append(got, rec.Offset)
				}
			}
			take(60)
			r.trim(topic, 0, 1000)
			take(1000)
			r.ends(s, p, 1000)
			r.write(topic, 0, values("v", 1000, 1010)...)
			take(1010)
			all := seen.all()
			if len(all) != 1 {
				t.Fatalf("told of %v, want one gap", all)
			}
			var from, to int64
			if _, err := fmt.Sscanf(all[0], "0 %d-%d", &from, &to); err != nil || to != 1000 || from < 60 {
				t.Fatalf("told of %s, want a gap up to 1000", all[0])
			}
			want := int64(0)
			for _, o := range got {
				if want == from {
					want = to
				}
				if o != want {
					t.Fatalf("offset %d comes, want %d, with the gap %s", o, want, all[0])
				}
				want++
			}
			if want != 1010 {
				t.Errorf("the last record is %d, want 1009", want-1)
			}
		})
	}
}

// A position behind the end cannot move by itself under any policy: it would
// go back.
func TestRealPositionBehindTheEnd(t *testing.T) {
	r := shared(t)
	topic := r.topic("in", 2)
	p, other := record.Partition{Topic: topic}, record.Partition{Topic: topic, Num: 1}
	r.write(topic, 0, values("v", 0, 100)...)
	r.write(topic, 1, values("v", 0, 100)...)
	for _, policy := range []OutOfRange{OutOfRangePause, OutOfRangeEarliest, OutOfRangeLatest} {
		t.Run(string(policy), func(t *testing.T) {
			var seen skips
			s := r.source(SourceConfig{OutOfRange: policy, OnSkip: seen.on}, topic)
			found(t, s)
			s.Assign(p, 150)
			s.Assign(other, 0)
			if got := drain(t, s, other, 100); len(got) != 100 {
				t.Errorf("%d records of the other partition, want 100", len(got))
			}
			wants(t, failure(t, s), "position 150 is behind the end of the log, which begins at 0 and ends at 100", "flowctl flow offsets reset FLOW --to "+topic+"/0=100")
			if len(seen.all()) > 0 {
				t.Errorf("told of %v, want nothing", seen.all())
			}
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if b, err := s.Poll(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("poll after the error: %v, %v", b, err)
			}
		})
	}
}
