package hostile

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

// Bars of what a hostile guest in another lane may add to the 99th percentile
// of a batch's time: ordinary ones, and those built against the measure of
// fuel.
const (
	TailBar         = 10 * time.Millisecond
	MeasuredTailBar = 40 * time.Millisecond
)

// collectEvery is how often garbage is collected meanwhile: each time the world
// is stopped twice, and waits for the guest that runs.
const collectEvery = 50 * time.Millisecond

// Neighbour is a stage that minds its own business, and the batches that it
// gets at a steady pace.
type Neighbour struct {
	Stage *sandbox.Stage
	Batch *record.Batch
	// Every is the time between two batches, Batches their number.
	Every   time.Duration
	Batches int
}

// Tail is the 99th percentile of the time from when a batch is due until it is
// processed, while other runs in a goroutine of its own until its context
// ends, and garbage is collected 20 times a second. other may be nil. It
// blocks for about Every times Batches.
func (n *Neighbour) Tail(ctx context.Context, other func(ctx context.Context) error) (time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var otherErr error
	wg.Go(func() {
		for ctx.Err() == nil {
			runtime.GC()
			pause(ctx, collectEvery)
		}
	})
	if other != nil {
		wg.Go(func() { otherErr = other(ctx) })
	}
	tail, err := n.run(ctx)
	cancel()
	wg.Wait()
	if errors.Is(otherErr, context.Canceled) {
		otherErr = nil
	}
	return tail, errors.Join(err, otherErr)
}

func (n *Neighbour) run(ctx context.Context) (time.Duration, error) {
	var out record.Results
	took := make([]time.Duration, 0, n.Batches)
	begin := time.Now()
	for i := range n.Batches {
		due := begin.Add(time.Duration(i) * n.Every)
		pause(ctx, time.Until(due))
		out.Reset()
		if err := n.Stage.Process(ctx, n.Batch, &out); err != nil {
			return 0, err
		}
		if len(out.Emits)+len(out.Drops)+len(out.Failures) != len(n.Batch.Records) {
			return 0, fmt.Errorf("the neighbour answered %d emits, %d drops, %d failures to %d records", len(out.Emits), len(out.Drops), len(out.Failures), len(n.Batch.Records))
		}
		took = append(took, time.Since(due))
	}
	slices.Sort(took)
	return took[len(took)*99/100], nil
}

func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// Lane starts the guest, compiled as m, and returns what runs it back to back,
// the way a lane does, until its context ends: one stage that gets batch after
// batch, or, where it does not start, start after start. Close the lane when
// that has returned.
func (g *Guest) Lane(ctx context.Context, m *sandbox.Module) (run func(context.Context) error, closeLane func(context.Context) error, err error) {
	cfg := sandbox.StageConfig{Stage: "hostile", Plugin: "hostile@1"}
	if g.Start != "" {
		run = func(ctx context.Context) error {
			for ctx.Err() == nil {
				if s, err := m.NewStage(ctx, cfg); err == nil {
					return errors.Join(errors.New("it started"), s.Close(context.WithoutCancel(ctx)))
				}
			}
			return nil
		}
		return run, func(context.Context) error { return nil }, nil
	}
	s, err := m.NewStage(ctx, cfg)
	if err != nil {
		return nil, nil, err
	}
	b := &record.Batch{Partition: record.Partition{Topic: "t"}, Now: 1_760_000_000_000, Next: 4}
	for i := range 4 {
		b.Records = append(b.Records, record.Record{Key: []byte("k"), Value: []byte("value"), Topic: "t", Offset: int64(i), Attempt: 1, To: -1})
	}
	run = func(ctx context.Context) error {
		var out record.Results
		for {
			out.Reset()
			if err := s.Process(ctx, b, &out); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return err
			}
		}
	}
	return run, s.Close, nil
}
