package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
)

const second = time.Second

// running runs a flow and commits its progress every 100 ms until stop.
type running struct {
	flow *Flow
	stop func()
	err  error
}

func start(f *Flow, st *store) *running {
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{flow: f}
	ended, committed := make(chan struct{}), make(chan struct{})
	go func() {
		r.err = f.Run(ctx)
		close(ended)
	}()
	go func() {
		defer close(committed)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				st.commit(f)
			case <-ended:
				st.commit(f)
				return
			}
		}
	}()
	r.stop = func() {
		cancel()
		<-ended
		<-committed
	}
	return r
}

func waitUntil(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for range 100_000 {
		if cond() {
			return
		}
		time.Sleep(10 * time.Millisecond) // of the bubble's clock
		synctest.Wait()
	}
	t.Fatalf("waited in vain: %s", what)
}

// verdict is what a record of the crash test is made for.
func verdict(r *record.Record) string {
	switch o := r.Offset; {
	case o%7 == 3:
		return "drop"
	case o%101 == 50:
		return "poison"
	case o%97 == 5:
		return "rejected"
	case o%211 == 20:
		return "later"
	case o%13 == 1:
		return "twice"
	}
	return "emit"
}

// TestKilledAtAnyMoment runs a flow with everything that can happen to a
// record, kills it again and again without a last commit, and looks for every
// record where it must be.
func TestKilledAtAnyMoment(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { killedAtAnyMoment(t, seed) })
		})
	}
}

func killedAtAnyMoment(t *testing.T, seed uint64) {
	const partitions, records, window = 3, 4000, 500
	rnd := rand.New(rand.NewPCG(seed, 7))
	src := newMemSource(partitions, records, 300)
	st := newStore()
	order := Order(seed % 2)
	var outputs []record.Record
	explained := 0
	for life := 0; ; life++ {
		src.mu.Lock()
		clear(src.at)
		clear(src.paused)
		src.mu.Unlock()
		out := &sink{delay: time.Duration(rnd.IntN(30)) * time.Millisecond, refuse: func(r *record.Record) error {
			if verdict(r) == "rejected" {
				return record.Errorf(record.Rejected, "no")
			}
			return nil
		}}
		first := stageFunc(func(in int32, r *record.Record, res *record.Results) {
			switch v := verdict(r); {
			case v == "drop":
				res.Drops = append(res.Drops, in)
			case v == "later" && r.Attempt < 3:
				res.Failures = append(res.Failures, record.Failure{In: in, Err: &record.Error{Class: record.Retryable, Message: "not yet", RetryAfter: 40 * time.Millisecond}})
			case v == "twice":
				for n := range 2 {
					e := *r
					e.Path, _ = r.Path.Child(n)
					emit(in, &e, res)
				}
			default:
				emit(in, r, res)
			}
		})
		second := stageFunc(func(in int32, r *record.Record, res *record.Results) {
			if verdict(r) == "poison" {
				res.Failures = append(res.Failures, record.Failure{In: in, Err: record.Errorf(record.Trap, "unreachable")})
				return
			}
			emit(in, r, res)
		})
		f := New(Config{Flow: "default/t", Order: order, InFlight: window}, src,
			Linear(0, []BoundStage{{first, StageInfo{ID: "one", Digest: "sha256:aa"}}, {second, StageInfo{ID: "two"}}}, pushInfo), only(out))
		st.open(f, src)
		ctx, kill := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() { _ = f.Run(ctx); close(ended) }()
		lives := 3 + rnd.IntN(40)
		done, committed := false, 0
		for range lives {
			time.Sleep(time.Duration(rnd.IntN(100)) * time.Millisecond)
			if rnd.IntN(3) > 0 {
				committed = len(out.take())
				st.commit(f)
			}
			synctest.Wait()
			done = true
			for _, p := range src.parts {
				done = done && st.at(p) == records
			}
		}
		// The kill: what is under way reaches the sink or not, and nothing is
		// committed any more.
		out.mu.Lock()
		out.dead = true
		outputs = append(outputs, out.got...)
		explained += len(out.got) - committed + partitions*window*2 // a record can be two outputs
		out.mu.Unlock()
		kill()
		<-ended
		synctest.Wait()
		if done {
			break
		}
		if life > 500 {
			t.Fatalf("no end after %d lives: %v", life, st.low)
		}
	}
	check(t, outputs, st, partitions, records, order, explained)
}

func check(t *testing.T, outputs []record.Record, st *store, partitions, records int, order Order, mayRepeat int) {
	t.Helper()
	seen := map[string]int{}
	last := map[int32]int64{}
	repeated := 0
	for i := range outputs {
		r := &outputs[i]
		if seen[r.ID()]++; seen[r.ID()] > 1 {
			repeated++
			continue
		}
		if order == OrderPartition && r.Offset < last[r.Partition] {
			t.Errorf("%s came after offset %d", r.ID(), last[r.Partition])
		}
		last[r.Partition] = r.Offset
	}
	for p := range partitions {
		for o := range records {
			r := record.Record{Topic: "t", Partition: int32(p), Offset: int64(o)}
			var want []string
			filed := false
			switch verdict(&r) {
			case "drop":
			case "poison", "rejected":
				filed = true
			case "twice":
				want = []string{r.ID() + "#0", r.ID() + "#1"}
			default:
				want = []string{r.ID()}
			}
			for _, id := range want {
				if seen[id] == 0 {
					t.Errorf("lost: %s", id)
				}
				delete(seen, id)
			}
			if (st.failed[r.ID()] != nil) != filed {
				t.Errorf("%s in the failure queue: %v, want %v", r.ID(), !filed, filed)
			}
		}
	}
	for id := range seen {
		t.Errorf("%s came out and must not have", id)
	}
	if repeated > mayRepeat {
		t.Errorf("%d outputs repeated, at most %d are explained", repeated, mayRepeat)
	}
}

func TestStopRepeatsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, st, out := newMemSource(2, 3000, 100), newStore(), &sink{delay: 20 * time.Millisecond}
		for range 1000 {
			src.mu.Lock()
			clear(src.at)
			src.mu.Unlock()
			f := New(Config{InFlight: 300}, src, Linear(0, []BoundStage{{stageFunc(emit), StageInfo{ID: "one"}}}, pushInfo), only(out))
			st.open(f, src)
			r := start(f, st)
			time.Sleep(35 * time.Millisecond)
			r.stop()
			if st.at(src.parts[0]) == 3000 && st.at(src.parts[1]) == 3000 {
				break
			}
		}
		if got := len(out.take()); got != 6000 {
			t.Errorf("%d records came out, want 6000 and none twice", got)
		}
	})
}

func TestSlowPartitionStopsOnlyItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const window = 100
		src, st := newMemSource(2, 5000, 200), newStore()
		var most atomic.Int64
		release := make(chan struct{})
		out := &sink{}
		d := deliveryFunc(func(ctx context.Context, recs []record.Record, done func(int, error)) {
			if recs[0].Partition == 0 {
				select {
				case <-release:
				case <-ctx.Done():
				}
			}
			out.Deliver(ctx, recs, done)
		})
		f := New(Config{InFlight: window}, src, Linear(0, nil, pushInfo), only(d))
		st.open(f, src)
		r := start(f, st)
		waitUntil(t, "the other partition", func() bool { return st.at(src.parts[1]) == 5000 })
		s := f.Status()[src.parts[0]]
		most.Store(int64(s.InFlight))
		if most.Load() > window {
			t.Errorf("%d records in flight, want at most %d", most.Load(), window)
		}
		if !s.Paused || src.pauses == 0 {
			t.Errorf("the slow partition is still fetched: %+v", s)
		}
		close(release)
		waitUntil(t, "the slow partition", func() bool { return st.at(src.parts[0]) == 5000 })
		r.stop()
	})
}

func TestSwapBetweenTwoBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, st := newMemSource(3, 2000, 100), newStore()
		out := &sink{delay: time.Millisecond}
		marked := func(m string) Stage {
			return stageFunc(func(in int32, r *record.Record, res *record.Results) {
				e := *r
				e.Value = []byte(m)
				emit(in, &e, res)
			})
		}
		set := func(gen uint32, m string) Set {
			return Linear(gen, []BoundStage{{marked(m), StageInfo{ID: "one"}}}, pushInfo)
		}
		f := New(Config{InFlight: 200}, src, set(1, "old"), only(out))
		st.open(f, src)
		r := start(f, st)
		time.Sleep(5 * time.Millisecond)
		if err := f.Swap(set(2, "new")); err != nil {
			t.Fatal(err)
		}
		waitUntil(t, "adoption", func() bool { return f.Adopted(2) })
		waitUntil(t, "the end", func() bool { return len(out.take()) == 6000 })
		changed := map[int32]bool{}
		for _, rec := range out.take() {
			isNew := string(rec.Value) == "new"
			if changed[rec.Partition] && !isNew {
				t.Fatalf("%s went through the old stage after the swap", rec.ID())
			}
			changed[rec.Partition] = isNew
		}
		// Idle lanes follow too, and say so in their next progress.
		if err := f.Swap(set(3, "newer")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if !f.Adopted(3) {
			t.Error("idle lanes did not take the new set")
		}
		for _, p := range f.Dirty() {
			if p.Generation != 3 {
				t.Errorf("progress of %v reports generation %d, want 3", p.Partition, p.Generation)
			}
			f.Ack(p, nil)
		}
		if err := f.Swap(Set{Generation: 4}); err == nil {
			t.Error("a set that leads to no delivery was taken")
		}
		r.stop()
	})
}

func TestPausesForConfigAndLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, st := newMemSource(1, 1000, 100), newStore()
		out := &sink{}
		broken := true
		d := deliveryFunc(func(ctx context.Context, recs []record.Record, done func(int, error)) {
			for i := range recs {
				if broken && recs[i].Offset == 500 {
					for j := i; j < len(recs); j++ {
						if j == i {
							done(j, record.Errorf(record.Config, "401 from partner"))
						} else {
							done(j, context.Canceled)
						}
					}
					return
				}
				out.Deliver(ctx, recs[i:i+1], func(_ int, err error) { done(i, err) })
			}
		})
		var reason atomic.Value
		f := New(Config{Pause: func(s string) { reason.Store(s) }}, src, Linear(0, nil, pushInfo), only(d))
		st.open(f, src)
		r := start(f, st)
		waitUntil(t, "the pause", func() bool { return reason.Load() != nil })
		if s := reason.Load().(string); !strings.Contains(s, "401 from partner") || !strings.Contains(s, "t/0/500") {
			t.Errorf("reason %q names neither record nor cause", s)
		}
		r.stop()
		if st.at(src.parts[0]) != 500 || len(st.failed) != 0 {
			t.Errorf("watermark %d with %d failures, want 500 and none", st.at(src.parts[0]), len(st.failed))
		}
		broken = false
		f = New(Config{}, src, Linear(0, nil, pushInfo), only(d))
		st.open(f, src)
		r = start(f, st)
		waitUntil(t, "the rest", func() bool { return st.at(src.parts[0]) == 1000 })
		r.stop()
		if got := len(out.take()); got != 1000 {
			t.Errorf("%d records came out, want 1000", got)
		}
	})
}

func TestFencedLaneSettlesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, st := newMemSource(1, 1000, 100), newStore()
		out := &sink{delay: 500 * time.Millisecond}
		f := New(Config{}, src, Linear(0, nil, pushInfo), only(out))
		st.open(f, src)
		r := start(f, st)
		st.mu.Lock()
		st.refuse = record.Errorf(record.Fenced, "epoch 2 owns the slot")
		st.mu.Unlock()
		waitUntil(t, "the lane's end", func() bool { return len(f.Partitions()) == 0 })
		if len(f.Dirty()) != 0 {
			t.Error("a fenced lane reports progress")
		}
		if _, ok := src.at[src.parts[0]]; ok {
			t.Error("a fenced partition is still fetched")
		}
		r.stop()
		time.Sleep(second) // until the sink has answered
		if len(f.Dirty()) != 0 {
			t.Error("late acknowledgements of a fenced lane count")
		}
	})
}

func TestLostCommitIsRepeatedWithItsFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, st := newMemSource(1, 300, 100), newStore()
		st.refuse = errors.New("no leader")
		poison := stageFunc(func(in int32, r *record.Record, res *record.Results) {
			if r.Offset == 42 {
				res.Failures = append(res.Failures, record.Failure{In: in, Err: record.Errorf(record.Trap, "unreachable"), Replay: &record.Replay{BatchID: 9}})
				return
			}
			emit(in, r, res)
		})
		f := New(Config{Flow: "default/x", UID: 7, Revision: 3}, src, Linear(0, []BoundStage{{poison, StageInfo{ID: "mask", Plugin: "orders@1.0.0", Digest: "sha256:ab"}}}, pushInfo), only(&sink{}))
		st.open(f, src)
		r := start(f, st)
		time.Sleep(second)
		synctest.Wait()
		st.mu.Lock()
		if len(st.failed) != 0 {
			t.Fatal("filed without a commit")
		}
		st.refuse = nil
		st.mu.Unlock()
		waitUntil(t, "the commit", func() bool { return st.at(src.parts[0]) == 300 })
		r.stop()
		e := st.failed["t/0/42"]
		if e == nil {
			t.Fatal("the failure is lost")
		}
		if e.Stage != "mask" || e.Plugin != "orders@1.0.0" || e.Digest != "sha256:ab" || e.Class != record.Trap || e.Revision != 3 || e.FlowUID != 7 || e.Replay.BatchID != 9 || string(e.Input.Value) != "0/42" {
			t.Errorf("entry %+v", e)
		}
	})
}

func TestWatermarkNeverPassesAnUncommittedFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newMemSource(1, 100, 100)
		out := &sink{refuse: func(r *record.Record) error {
			if r.Offset == 10 {
				return record.Errorf(record.Rejected, "no")
			}
			return nil
		}}
		f := New(Config{}, src, Linear(0, nil, pushInfo), only(out))
		newStore().open(f, src)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() { _ = f.Run(ctx); close(ended) }()
		filed := false
		waitUntil(t, "the watermark", func() bool {
			ps := f.Dirty() // of the only lane
			if len(ps) == 0 {
				return false
			}
			filed = filed || len(ps[0].Failures) > 0
			if ps[0].Low > 10 && !filed {
				t.Fatalf("watermark %d without the entry of offset 10", ps[0].Low)
			}
			f.Ack(ps[0], nil)
			return ps[0].Low == 100
		})
		cancel()
		<-ended
	})
}

func TestEndOfSourceEndsTheFlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, st, out := newMemSource(2, 1000, 64), newStore(), &sink{delay: 50 * time.Millisecond}
		src.finite = true
		f := New(Config{}, src, Linear(0, []BoundStage{{stageFunc(emit), StageInfo{ID: "one"}}}, pushInfo), only(out))
		st.open(f, src)
		if err := f.Run(context.Background()); err != nil {
			t.Fatal(err)
		}
		st.commit(f)
		if got := len(out.take()); got != 2000 || st.at(src.parts[1]) != 1000 {
			t.Errorf("%d records out, watermark %d; want 2000, 1000", got, st.at(src.parts[1]))
		}
	})
}

func TestOthersGoOnWhileARecordWaits(t *testing.T) {
	for _, order := range []Order{OrderPartition, OrderNone} {
		synctest.Test(t, func(t *testing.T) {
			src, st, out := newMemSource(1, 2000, 100), newStore(), &sink{}
			var until atomic.Bool
			later := stageFunc(func(in int32, r *record.Record, res *record.Results) {
				if r.Offset == 10 && !until.Load() {
					res.Failures = append(res.Failures, record.Failure{In: in, Err: record.Errorf(record.Retryable, "closed for lunch")})
					return
				}
				emit(in, r, res)
			})
			f := New(Config{Order: order, InFlight: 500}, src, Linear(0, []BoundStage{{later, StageInfo{ID: "gate"}}}, pushInfo), only(out))
			st.open(f, src)
			r := start(f, st)
			time.Sleep(time.Minute)
			synctest.Wait()
			got := len(out.take())
			if order == OrderPartition && got != 10 || order == OrderNone && got != 1999 {
				t.Errorf("order %d: %d records out while one waits", order, got)
			}
			if p := f.Problem(); !strings.Contains(p, "closed for lunch") || !strings.Contains(p, "t/0/10") {
				t.Errorf("problem %q does not name record and cause", p)
			}
			if st.at(src.parts[0]) != 10 {
				t.Errorf("watermark %d, want 10", st.at(src.parts[0]))
			}
			until.Store(true)
			waitUntil(t, "the end", func() bool { return st.at(src.parts[0]) == 2000 })
			if f.Problem() != "" {
				t.Errorf("problem %q is over", f.Problem())
			}
			r.stop()
		})
	}
}
