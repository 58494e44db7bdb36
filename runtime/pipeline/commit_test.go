package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/runtime/ledger"
	"github.com/millrace-io/millrace/runtime/record"
	"github.com/millrace-io/millrace/runtime/retry"
)

func TestFailuresAreCommittedInParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const records, size = 60, 100 << 10
		src := newMemSource(1, records, records)
		poison := stageFunc(func(in int32, r *record.Record, res *record.Results) {
			if r.Offset%3 == 0 {
				emit(in, r, res)
				return
			}
			r.Value = bytes.Repeat([]byte("x"), size)
			res.Failures = append(res.Failures, record.Failure{In: in, Err: record.Errorf(record.Rejected, "no")})
		})
		f := New(Config{}, src, Linear(0, []BoundStage{{poison, StageInfo{ID: "one"}}}, pushInfo), only(&sink{}))
		newStore().open(f, src)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() { _ = f.Run(ctx); close(ended) }()
		filed := map[int64]bool{}
		commits, low := 0, int64(0)
		waitUntil(t, "the watermark", func() bool {
			for _, p := range f.Dirty() {
				bytes := 0
				for _, e := range p.Failures {
					bytes += e.Input.Size()
				}
				if bytes > maxProgress {
					t.Fatalf("%d bytes of failures in one commit, want at most %d", bytes, maxProgress)
				}
				if commits++; commits%4 == 0 {
					f.Ack(p, errors.New("no leader"))
					continue
				}
				for _, e := range p.Failures {
					if filed[e.Input.Offset] {
						t.Fatalf("%s was filed twice", e.ID())
					}
					filed[e.Input.Offset] = true
				}
				settled := func(o int64) bool {
					return o < p.Low || slices.ContainsFunc(p.Ranges, func(r ledger.Range) bool { return o >= r.From && o < r.To })
				}
				for o := range int64(records) {
					if settled(o) && o%3 != 0 && !filed[o] {
						t.Fatalf("offset %d is settled and its entry not filed", o)
					}
				}
				low = p.Low
				f.Ack(p, nil)
			}
			return low == records
		})
		if len(filed) != records*2/3 || !f.Clean() {
			t.Errorf("%d entries filed, want %d", len(filed), records*2/3)
		}
		cancel()
		<-ended
	})
}

// unitStage answers a batch as a whole: one emission of its first record.
type unitStage struct{}

func (unitStage) Process(_ context.Context, b *record.Batch, out *record.Results) error {
	emit(0, &b.Records[0], out)
	for i := 1; i < len(b.Records); i++ {
		out.Drops = append(out.Drops, int32(i))
	}
	out.Unit = true
	return nil
}

func TestUnitIsSettledAsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, st := newMemSource(1, 30, 10), newStore()
		answer := make(chan struct{})
		out := deliveryFunc(func(_ context.Context, recs []record.Record, done func(int, error)) {
			go func() {
				<-answer
				for i := range recs {
					done(i, nil)
				}
			}()
		})
		f := New(Config{}, src, Linear(0, []BoundStage{{unitStage{}, StageInfo{ID: "one"}}}, pushInfo), only(out))
		st.open(f, src)
		r := start(f, st)
		waitUntil(t, "the stage", func() bool { return f.Stats().Stage("one").Records.Load() == 30 })
		time.Sleep(second)
		synctest.Wait()
		st.mu.Lock()
		if low, ranges := st.low[src.parts[0]], st.ranges[src.parts[0]]; low != 0 || len(ranges) != 0 {
			t.Errorf("watermark %d, ranges %v while the emissions of the units are under way", low, ranges)
		}
		st.mu.Unlock()
		close(answer)
		waitUntil(t, "the end", func() bool { return st.at(src.parts[0]) == 30 })
		r.stop()
	})
}

func TestEntryIsBounded(t *testing.T) {
	l := newLane(New(Config{}, nil, Linear(0, nil, pushInfo), only(nil)), LaneConfig{})
	big := bytes.Repeat([]byte("x"), DefaultKeepInput+1)
	for _, r := range []record.Record{
		{Value: big},
		{Key: big, Value: []byte("v")},
		{Headers: []record.Header{{Key: "h", Value: big}}, Value: []byte("v")},
	} {
		e := l.entry(l.course, &StageInfo{ID: "one"}, &r, record.Failure{Err: record.Errorf(record.Rejected, "no")})
		if entrySize(e) > DefaultKeepInput || !e.InputOmitted || e.InputHash == 0 || e.Input.Value != nil {
			t.Errorf("an entry of %d bytes, omitted %v, hash %x", entrySize(e), e.InputOmitted, e.InputHash)
		}
	}
}

// TestEntryKeepsWhatNobodyElseHas: KeepInput bounds an entry in place of the
// default.
func TestEntryKeepsWhatNobodyElseHas(t *testing.T) {
	const keep = 3 << 20
	l := newLane(New(Config{KeepInput: keep}, nil, Linear(0, nil, pushInfo), only(nil)), LaneConfig{})
	at := bytes.Repeat([]byte("x"), keep)
	for _, r := range []record.Record{
		{Value: at},
		{Key: at[:keep/2], Value: at},
		{Value: append(at, 'x')},
	} {
		e := l.entry(l.course, &StageInfo{ID: "one"}, &r, record.Failure{Err: record.Errorf(record.Rejected, "no")})
		if over := len(r.Value) > keep; e.InputOmitted != over || !over && (len(e.Input.Value) != keep || len(e.Input.Key) != len(r.Key)) {
			t.Errorf("of %d and %d bytes the entry has %d and %d, omitted %v", len(r.Key), len(r.Value), len(e.Input.Key), len(e.Input.Value), e.InputOmitted)
		}
	}
}

// TestEntrySizeCountsAllThatIsStored: what bounds a commit, and the entries that
// wait for one, is what an entry brings to it, a guest's log included.
func TestEntrySizeCountsAllThatIsStored(t *testing.T) {
	l := newLane(New(Config{}, nil, Linear(0, nil, pushInfo), only(nil)), LaneConfig{})
	log := make([]string, 64)
	for i := range log {
		log[i] = strings.Repeat("x", 1<<10)
	}
	for _, f := range []record.Failure{
		{Err: record.Errorf(record.Rejected, "no"), Replay: &record.Replay{Logs: log}},
		{Err: record.Errorf(record.Rejected, "no"), NoReplay: strings.Join(log, "")},
	} {
		e := l.entry(l.course, &StageInfo{ID: "one"}, &record.Record{Value: []byte("v")}, f)
		if n := entrySize(e); n < 64<<10 {
			t.Errorf("an entry with 64 KiB of a guest's text counts as %d bytes", n)
		}
	}
}

// lateSource brings a batch that was on its way when its partition was
// unassigned, as sources may.
type lateSource struct {
	*memSource
	fetched chan struct{} // closed when such a batch is on its way
	release chan struct{} // closed when it may arrive
	once    atomic.Bool
}

func (s *lateSource) Poll(ctx context.Context) (*record.Batch, error) {
	b, err := s.memSource.Poll(ctx)
	if err == nil && b.Records[0].Offset >= 200 && s.once.CompareAndSwap(false, true) {
		close(s.fetched)
		<-s.release
	}
	return b, err
}

func TestReopenedLaneGetsNothingOfTheOldOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, st := newMemSource(1, 1000, 100), newStore()
		src := &lateSource{memSource: mem, fetched: make(chan struct{}), release: make(chan struct{})}
		never := deliveryFunc(func(context.Context, []record.Record, func(int, error)) {})
		var dead atomic.Bool
		dead.Store(true)
		out := &sink{}
		f := New(Config{DrainLimit: second}, src, Linear(0, nil, pushInfo), only(deliveryFunc(func(ctx context.Context, recs []record.Record, done func(int, error)) {
			if dead.Load() {
				never(ctx, recs, done)
				return
			}
			out.Deliver(ctx, recs, done)
		})))
		st.open(f, mem)
		r := start(f, st)
		<-src.fetched
		st.mu.Lock()
		st.refuse = record.Errorf(record.Fenced, "behind")
		st.mu.Unlock()
		waitUntil(t, "the lane's end", func() bool { return len(f.Partitions()) == 0 })
		st.mu.Lock()
		st.refuse = nil
		st.mu.Unlock()
		dead.Store(false)

		again := LaneConfig{Partition: mem.parts[0]}
		if err := f.Open(again); record.AsError(err) == nil || record.AsError(err).Class != record.Retryable {
			t.Fatalf("open while a batch of the old lane is on its way: %v", err)
		}
		close(src.release)
		waitUntil(t, "the new lane", func() bool { return f.Open(again) == nil })
		waitUntil(t, "the end", func() bool { return st.at(mem.parts[0]) == 1000 })
		r.stop()
		if got := len(out.take()); got != 1000 {
			t.Errorf("%d records came out, want 1000", got)
		}
	})
}

func TestFailureNamesThePluginsThatTouchedIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, st := newMemSource(1, 1, 1), newStore()
		answer := make(chan struct{})
		out := deliveryFunc(func(_ context.Context, recs []record.Record, done func(int, error)) {
			go func() {
				<-answer
				done(0, record.Errorf(record.Rejected, "no"))
			}()
		})
		set := func(gen uint32, digest string) Set {
			return Linear(gen, []BoundStage{{stageFunc(emit), StageInfo{ID: "one", Digest: digest}}}, pushInfo)
		}
		f := New(Config{}, src, set(1, "sha256:old"), only(out))
		st.open(f, src)
		r := start(f, st)
		waitUntil(t, "the delivery", func() bool { return f.Stats().Stage("push").Calls.Load() == 1 })
		if err := f.Swap(set(2, "sha256:new")); err != nil {
			t.Fatal(err)
		}
		waitUntil(t, "adoption", func() bool { return f.Adopted(2) })
		close(answer)
		waitUntil(t, "the entry", func() bool { return st.at(src.parts[0]) == 1 })
		r.stop()
		if e := st.failed["t/0/0"]; e == nil || fmt.Sprint(e.Touched) != "[sha256:old]" {
			t.Errorf("entry %+v", e)
		}
	})
}

func TestEveryStageCountsItsOwnAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, st := newMemSource(1, 1, 1), newStore()
		later := stageFunc(func(in int32, r *record.Record, res *record.Results) {
			if r.Attempt < 4 {
				res.Failures = append(res.Failures, record.Failure{In: in, Err: record.Errorf(record.Retryable, "not yet")})
				return
			}
			emit(in, r, res)
		})
		out := &sink{refuse: func(*record.Record) error { return record.Errorf(record.Rejected, "no") }}
		f := New(Config{}, src, Linear(0, []BoundStage{{later, StageInfo{ID: "one"}}}, pushInfo), only(out))
		st.open(f, src)
		r := start(f, st)
		waitUntil(t, "the entry", func() bool { return st.at(src.parts[0]) == 1 })
		r.stop()
		if e := st.failed["t/0/0"]; e == nil || e.Attempts != 1 {
			t.Errorf("entry %+v, want one attempt of the delivery", e)
		}
	})
}

// TestGivenUpRetriesKeepTheirReplay: what a stage asked to try again is filed
// with the circumstances of the last attempt, in either order.
func TestGivenUpRetriesKeepTheirReplay(t *testing.T) {
	for _, order := range []Order{OrderPartition, OrderNone} {
		for _, attempts := range []uint32{1, 3} {
			synctest.Test(t, func(t *testing.T) {
				src, st := newMemSource(1, 2, 2), newStore()
				later := stageFunc(func(in int32, r *record.Record, res *record.Results) {
					f := record.Failure{In: in, Err: record.Errorf(record.Retryable, "not now")}
					if r.Offset == 0 {
						f.Replay = &record.Replay{Now: int64(r.Attempt)}
					} else {
						f.NoReplay = "alone it is another"
					}
					res.Failures = append(res.Failures, f)
				})
				f := New(Config{Order: order}, src, Linear(0, []BoundStage{{later, StageInfo{ID: "one", Retry: retry.Policy{Attempts: attempts}}}}, pushInfo), only(&sink{}))
				st.open(f, src)
				r := start(f, st)
				waitUntil(t, "the entries", func() bool { return st.at(src.parts[0]) == 2 })
				r.stop()
				if e := st.failed["t/0/0"]; e == nil || e.Attempts != attempts || e.Replay == nil || e.Replay.Now != int64(attempts) {
					t.Errorf("order %d, %d attempts: entry %+v", order, attempts, e)
				}
				if e := st.failed["t/0/1"]; e == nil || e.Replay != nil || e.NoReplay != "alone it is another" {
					t.Errorf("order %d, %d attempts: entry %+v", order, attempts, e)
				}
			})
		}
	}
}

// brokenSource ends with an error that says which partition it is about.
type brokenSource struct{ *memSource }

func (brokenSource) Poll(context.Context) (*record.Batch, error) {
	return nil, fmt.Errorf("t/7: %w", record.Errorf(record.Config, "position 5 is no longer in the log"))
}

func TestPauseNamesThePartition(t *testing.T) {
	var reason string
	f := New(Config{Pause: func(s string) { reason = s }}, brokenSource{newMemSource(1, 1, 1)}, Linear(0, nil, pushInfo), only(&sink{}))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := f.Run(ctx); err == nil || !strings.Contains(reason, "t/7") || !strings.Contains(reason, "no longer in the log") {
		t.Errorf("got %v, reason %q", err, reason)
	}
}
