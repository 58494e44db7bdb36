package pipeline

import (
	"context"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
)

// benchSource yields n records of one partition, in batches of max.
type benchSource struct {
	n, max, at int64
	record     record.Record
}

func (s *benchSource) Poll(ctx context.Context) (*record.Batch, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if s.at == s.n {
		return nil, io.EOF
	}
	to := min(s.at+s.max, s.n)
	b := &record.Batch{Partition: record.Partition{Topic: "t"}, Records: make([]record.Record, 0, to-s.at), Next: to}
	for ; s.at < to; s.at++ {
		r := s.record
		r.Offset = s.at
		b.Records = append(b.Records, r)
	}
	return b, nil
}
func (*benchSource) Assign(record.Partition, int64) {}
func (*benchSource) Unassign(record.Partition)      {}
func (*benchSource) Pause(record.Partition)         {}
func (*benchSource) Resume(record.Partition)        {}
func (*benchSource) Problem() string                { return "" }

// BenchmarkLane passes records of 100 bytes through a lane whose sink takes
// them at once; an operation is a record.
func BenchmarkLane(b *testing.B) {
	for _, stages := range []int{0, 2} {
		b.Run(fmt.Sprintf("stages=%d", stages), func(b *testing.B) {
			src := &benchSource{n: int64(b.N), max: 500, record: record.Record{Topic: "t", Value: make([]byte, 100), To: -1}}
			f := benchFlow(src, stages)
			if err := f.Open(LaneConfig{Partition: record.Partition{Topic: "t"}}); err != nil {
				b.Fatal(err)
			}
			stop := make(chan struct{})
			collected := make(chan struct{})
			go func() {
				defer close(collected)
				tick := time.NewTicker(100 * time.Millisecond)
				defer tick.Stop()
				for {
					select {
					case <-tick.C:
						for _, p := range f.Dirty() {
							f.Ack(p, nil)
						}
					case <-stop:
						return
					}
				}
			}()
			b.ReportAllocs()
			b.ResetTimer()
			if err := f.Run(context.Background()); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			close(stop)
			<-collected
			if got := f.Stats().Emitted.Load(); got != int64(b.N) {
				b.Fatalf("%d of %d records came out", got, b.N)
			}
		})
	}
}

func benchFlow(src Source, stages int) *Flow {
	var bound []BoundStage
	for i := range stages {
		bound = append(bound, BoundStage{stageFunc(emit), StageInfo{ID: fmt.Sprint("s", i)}})
	}
	now := deliveryFunc(func(_ context.Context, recs []record.Record, done func(int, error)) {
		for i := range recs {
			done(i, nil)
		}
	})
	return New(Config{}, src, Linear(0, bound, pushInfo), only(now))
}
