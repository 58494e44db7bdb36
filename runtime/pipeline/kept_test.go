package pipeline

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
)

// outlet is a delivery that answers each item by a function and remembers the
// calls.
type outlet struct {
	answer func(record.Item) record.Outcome

	mu     sync.Mutex
	calls  [][]record.Item
	forgot []uint64
	held   []uint64
	closed bool
}

func (o *outlet) Open(_ record.Partition, held []uint64) Outlet { o.held = held; return o }
func (o *outlet) Problem() string                               { return "" }
func (o *outlet) Held() string                                  { return "" }
func (o *outlet) Forget(h uint64)                               { o.mu.Lock(); o.forgot = append(o.forgot, h); o.mu.Unlock() }
func (o *outlet) Close()                                        { o.mu.Lock(); o.closed = true; o.mu.Unlock() }
func (o *outlet) Deliver(_ context.Context, items []record.Item, done func(int, record.Outcome)) {
	o.mu.Lock()
	o.calls = append(o.calls, items)
	o.mu.Unlock()
	go func() {
		for i := range items {
			done(i, o.answer(items[i]))
		}
	}()
}

func (o *outlet) call(i int) []record.Item {
	o.mu.Lock()
	defer o.mu.Unlock()
	if i >= len(o.calls) {
		return nil
	}
	return o.calls[i]
}

// got lists the calls by the offsets in them.
func (o *outlet) got() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var s []string
	for _, c := range o.calls {
		var ids []string
		for i := range c {
			ids = append(ids, fmt.Sprint(c[i].Record.Offset, c[i].Record.Path))
		}
		s = append(s, strings.Join(ids, " "))
	}
	return strings.Join(s, ", ")
}

func taken(record.Item) record.Outcome { return record.Outcome{} }

func entryAt(stage string, offset int64) *record.Retry {
	return &record.Retry{Stage: stage, Generation: 2, Attempts: 3, Input: record.Record{Topic: "t", Offset: offset, Value: []byte("v"), To: -1}}
}

// idle runs a flow whose source has nothing, with a lane for its partition.
func idle(t *testing.T, cfg Config, set Set, ds ...Delivery) (*Flow, record.Partition, func()) {
	t.Helper()
	src := newMemSource(1, 100, 1)
	f := New(cfg, src, set, ds)
	if err := f.Open(LaneConfig{Partition: src.parts[0], Low: 100, Life: 7}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { _ = f.Run(ctx); close(ended) }()
	synctest.Wait()
	for _, p := range f.Dirty() {
		f.Ack(p, nil)
	}
	return f, src.parts[0], func() { cancel(); <-ended }
}

func TestInjectBringsGroupsWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &outlet{answer: taken}
		f, p, stop := idle(t, Config{}, Linear(1, nil, pushInfo), o)
		defer stop()
		var entries []*record.Retry
		for i := range int64(700) {
			e := entryAt("push", i)
			if i%2 == 0 {
				e.Group, e.GroupIndex = "g", uint32(i/2)
			}
			entries = append(entries, e)
		}
		// 256 of all, and then the rest of the group: 128 + 350 in all.
		if n, _ := f.Inject(p, entries, nil, nil); n != 128+350 {
			t.Errorf("%d entries taken, want %d", n, 128+350)
		}
		synctest.Wait()
		if len(o.call(0)) != 478 || o.call(1) != nil {
			t.Errorf("calls %s", o.got())
		}
		for i, it := range o.call(0) {
			if it.Retry == nil || it.Retry.Input.Offset != it.Record.Offset || it.Record.Attempt != 4 || !it.Record.Redelivered || it.Record.Trace.IsZero() {
				t.Fatalf("item %d: %+v", i, it)
			}
		}
		// Until the state knows that they are gone, they are not taken again.
		if n, _ := f.Inject(p, entries[:256], nil, nil); n != 0 {
			t.Errorf("%d entries taken twice", n)
		}
		ps := f.Dirty()
		if len(ps) != 1 || len(ps[0].Gone) != 478 || ps[0].Low != 100 || ps[0].Life != 7 {
			t.Fatalf("progress %+v", ps)
		}
		if n, _ := f.Inject(p, entries[:1], nil, nil); n != 0 {
			t.Error("an entry was taken while its end is being committed")
		}
		f.Ack(ps[0], nil)
		if n, _ := f.Inject(p, entries[:1], nil, nil); n != 1 {
			t.Error("an entry that was kept anew is not taken")
		}
	})
}

// TestGroupWaitsForItsLastCommit: what the state has of a group is not taken
// while another part of it is still to be committed.
func TestGroupWaitsForItsLastCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newMemSource(1, 3, 3)
		for i := range src.topics[src.parts[0]] {
			src.topics[src.parts[0]][i].Value = make([]byte, 300<<10)
		}
		o := &outlet{answer: func(record.Item) record.Outcome { return record.Outcome{Keep: &record.Retry{Due: 1, Group: "g"}} }}
		f := New(Config{}, src, Linear(0, nil, pushInfo), []Delivery{o})
		newStore().open(f, src)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() { _ = f.Run(ctx); close(ended) }()
		synctest.Wait()
		var kept []*record.Retry
		for n := range 3 {
			p := f.Dirty()[0]
			f.Ack(p, nil)
			if kept = append(kept, p.Keeps...); len(kept) != n+1 {
				t.Fatalf("%d entries after %d commits", len(kept), n+1)
			}
			if taken, _ := f.Inject(src.parts[0], kept, nil, nil); (taken > 0) != (n == 2) {
				t.Errorf("%d entries taken after %d commits of 3", taken, n+1)
			}
		}
		synctest.Wait()
		if o.got() != "0 1 2, 0 1 2" {
			t.Errorf("calls %s", o.got())
		}
		cancel()
		<-ended
	})
}

func TestInjectIsBoundedByBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, p, stop := idle(t, Config{InFlightBytes: 10 << 10}, Linear(1, nil, pushInfo), &outlet{answer: taken})
		defer stop()
		var entries []*record.Retry
		for i := range int64(20) {
			e := entryAt("push", i)
			e.Input.Value = make([]byte, 4<<10)
			entries = append(entries, e)
		}
		if n, _ := f.Inject(p, entries, nil, nil); n != 3 {
			t.Errorf("%d entries of 4 KiB under way, want as many as 10 KiB admit", n)
		}
	})
}

func TestEntryOfAStageThatIsGoneIsFiled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &outlet{answer: taken}
		f, p, stop := idle(t, Config{Flow: "default/x", Generation: 5}, Linear(1, nil, pushInfo), o)
		defer stop()
		e := entryAt("removed", 9)
		e.History = []record.Attempt{{Message: "busy"}}
		f.Inject(p, []*record.Retry{e}, nil, nil)
		synctest.Wait()
		ps := f.Dirty()
		if len(ps) != 1 || len(ps[0].Failures) != 1 || len(ps[0].Gone) != 1 {
			t.Fatalf("progress %+v", ps)
		}
		if g := ps[0].Failures[0]; g.Class != record.Config || g.Stage != "removed" || !strings.Contains(g.Message, `"removed"`) || g.Attempts != 3 || g.Generation != 2 || len(g.History) != 1 {
			t.Errorf("entry %+v", g)
		}
		if o.got() != "" {
			t.Error("it was delivered")
		}
	})
}

// TestEntryThatBecameManyIsReportedAsOne: until all that came of it is settled
// nothing of it is committed, and then all of it together.
func TestEntryThatBecameManyIsReportedAsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := make(chan struct{})
		o := &outlet{answer: func(it record.Item) record.Outcome {
			if it.Retry != nil {
				t.Error("what a stage made of an entry counts as an attempt of the delivery")
			}
			switch it.Record.Path.String() {
			case "#0":
				return record.Outcome{Keep: &record.Retry{Due: 1, Hold: 77}}
			case "#1":
				return record.Outcome{Err: record.Errorf(record.Rejected, "no"), Attempts: 4, Exchange: &record.Exchange{Status: 422}}
			}
			<-slow
			return record.Outcome{}
		}}
		three := stageFunc(func(in int32, r *record.Record, res *record.Results) {
			for n := range 3 {
				e := *r
				e.Path, _ = r.Path.Child(n)
				emit(in, &e, res)
			}
		})
		f, p, stop := idle(t, Config{}, Linear(1, []BoundStage{{three, StageInfo{ID: "three"}}}, pushInfo), o)
		defer stop()
		e := entryAt("three", 9)
		e.Requeues = 2
		f.Inject(p, []*record.Retry{e}, nil, nil)
		synctest.Wait()
		if ps := f.Dirty(); len(ps) != 0 || f.Status()[p].UnderWay != 1 {
			t.Fatalf("progress %+v, status %+v", ps, f.Status()[p])
		}
		close(slow)
		synctest.Wait()
		ps := f.Dirty()
		if len(ps) != 1 || len(ps[0].Keeps) != 1 || len(ps[0].Failures) != 1 || len(ps[0].Gone) != 1 {
			t.Fatalf("progress %+v", ps)
		}
		k, g := ps[0].Keeps[0], ps[0].Failures[0]
		if k.Stage != "push" || k.Generation != 2 || k.Requeues != 2 || k.At == 0 || k.Input.ID() != "t/0/9#0" {
			t.Errorf("kept %+v", k)
		}
		if g.Attempts != 4 || g.Requeues != 2 || g.Exchange == nil || g.Exchange.Status != 422 {
			t.Errorf("filed %+v", g)
		}
		// One entry was there; three emissions: one kept, one filed, one
		// delivered.
		if ta := ps[0].Tally; ta.Read != 0 || ta.Split != 2 || ta.Delivered != 1 || ta.Flying != 0 {
			t.Errorf("tally %+v", ta)
		}
		f.Ack(ps[0], nil)
		if len(o.forgot) != 0 {
			t.Errorf("forgot %v", o.forgot)
		}
		k.Due = 0
		o.answer = taken
		f.Inject(p, []*record.Retry{k}, nil, nil)
		synctest.Wait()
		for _, p := range f.Dirty() {
			f.Ack(p, nil)
		}
		if fmt.Sprint(o.forgot) != "[77]" {
			t.Errorf("forgot %v, want what is gone", o.forgot)
		}
	})
}

// TestEntryThroughAnotherPlugin: the stage that Via names works in place of the
// flow's, also when it asks to see the record later, and holds nobody up.
func TestEntryThroughAnotherPlugin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &outlet{answer: taken}
		own := stageFunc(func(in int32, r *record.Record, res *record.Results) {
			e := *r
			e.Value = []byte("own")
			emit(in, &e, res)
		})
		calls := 0
		via := stageFunc(func(in int32, r *record.Record, res *record.Results) {
			calls++
			switch {
			case r.Offset == 2:
				res.Failures = append(res.Failures, record.Failure{In: in, Err: record.Errorf(record.Trap, "unreachable")})
			case r.Attempt < 6:
				res.Failures = append(res.Failures, record.Failure{In: in, Err: &record.Error{Class: record.Retryable, RetryAfter: time.Second}})
			default:
				e := *r
				e.Value = []byte("via")
				emit(in, &e, res)
			}
		})
		f, p, stop := idle(t, Config{Order: OrderPartition}, Linear(1, []BoundStage{{own, StageInfo{ID: "one", Digest: "sha256:own"}}}, pushInfo), o)
		defer stop()
		one, two, three := entryAt("one", 1), entryAt("one", 2), entryAt("one", 3)
		one.Via, two.Via = "sha256:other", "sha256:other"
		f.Inject(p, []*record.Retry{one, two, three}, map[string]Stage{"sha256:other": via}, nil)
		synctest.Wait()
		if o.got() != "3" || string(o.call(0)[0].Record.Value) != "own" {
			t.Errorf("calls %s", o.got())
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if o.got() != "3, 1" || string(o.call(1)[0].Record.Value) != "via" || calls != 2+2 {
			t.Errorf("calls %s, %d of the other plugin", o.got(), calls)
		}
		ps := f.Dirty()
		if len(ps) != 1 || len(ps[0].Failures) != 1 || ps[0].Failures[0].Digest != "sha256:other" {
			t.Fatalf("progress %+v", ps)
		}
	})
}

// TestEntriesOfAUnitAreSettledAsOne: those that a stage answered together with
// another one stay kept until that one is settled.
func TestEntriesOfAUnitAreSettledAsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := make(chan struct{})
		o := &outlet{answer: func(record.Item) record.Outcome { <-slow; return record.Outcome{} }}
		f, p, stop := idle(t, Config{}, Linear(1, []BoundStage{{unitStage{}, StageInfo{ID: "unit"}}}, pushInfo), o)
		defer stop()
		f.Inject(p, []*record.Retry{entryAt("unit", 1), entryAt("unit", 2), entryAt("unit", 3)}, nil, nil)
		synctest.Wait()
		if ps := f.Dirty(); o.got() != "1" || len(ps) != 0 {
			t.Errorf("calls %s, progress %+v", o.got(), ps)
		}
		close(slow)
		synctest.Wait()
		ps := f.Dirty()
		if len(ps) != 1 || fmt.Sprint(ps[0].Gone) != "[{1 } {2 } {3 }]" {
			t.Fatalf("progress %+v", ps)
		}
		if ta := ps[0].Tally; ta.Delivered != 1 || ta.Dropped["unit"] != 2 || ta.Flying != 0 {
			t.Errorf("tally %+v", ta)
		}
	})
}

func TestKeptEntriesStayWhereTheLaneEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		never := make(chan struct{})
		defer close(never)
		o := &outlet{answer: func(record.Item) record.Outcome { <-never; return record.Outcome{} }}
		f, p, stop := idle(t, Config{DrainLimit: second}, Linear(1, nil, pushInfo), o)
		if n, _ := f.Inject(p, []*record.Retry{entryAt("push", 1)}, nil, nil); n != 1 {
			t.Fatal("it was not taken")
		}
		synctest.Wait()
		stop()
		if ps := f.Dirty(); len(ps) != 0 {
			t.Errorf("progress %+v", ps)
		}
		if !o.closed {
			t.Error("the outlet is open")
		}
		if n, _ := f.Inject(p, []*record.Retry{entryAt("push", 2)}, nil, nil); n != 0 {
			t.Error("a flow that has ended takes entries")
		}
	})
}

func TestFencedLaneClosesItsOutlets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &outlet{answer: taken}
		f, p, stop := idle(t, Config{}, Linear(1, nil, pushInfo), o)
		defer stop()
		f.Inject(p, []*record.Retry{entryAt("push", 1)}, nil, nil)
		synctest.Wait()
		for _, p := range f.Dirty() {
			f.Ack(p, record.Errorf(record.Fenced, "behind"))
		}
		synctest.Wait()
		if !o.closed || len(o.forgot) != 0 {
			t.Errorf("closed %v, forgot %v", o.closed, o.forgot)
		}
	})
}

func TestHeldEntriesOfTheOpening(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newMemSource(1, 50, 1)
		side, push := &outlet{answer: taken}, &outlet{answer: taken}
		set := Set{Nodes: []Node{
			{Kind: KindBranch, Stage: stageFunc(emit), StageInfo: StageInfo{ID: "b"}, Next: 2, Cases: []int{1, 2}},
			{Kind: KindDeliver, StageInfo: StageInfo{ID: "side"}, Delivery: 0},
			{Kind: KindDeliver, StageInfo: StageInfo{ID: "push"}, Delivery: 1},
		}}
		f := New(Config{}, src, set, []Delivery{side, push})
		key := func(o int64) record.EmissionKey { return record.EmissionKey{Offset: o} }
		if err := f.Open(LaneConfig{Partition: src.parts[0], Low: 50, Held: []HeldEntry{{key(1), "side", 11}, {key(2), "push", 12}, {key(3), "push", 12}, {key(4), "gone", 13}}}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() { _ = f.Run(ctx); close(ended) }()
		synctest.Wait()
		if fmt.Sprint(side.held, push.held) != "[11] [12 12]" {
			t.Errorf("held %v %v", side.held, push.held)
		}
		requeued := entryAt("push", 5) // of the failure queue: nobody counts it
		requeued.Hold = 12
		f.Inject(src.parts[0], []*record.Retry{entryAt("push", 2), requeued}, nil, nil)
		synctest.Wait()
		for _, p := range f.Dirty() {
			if len(push.forgot) != 0 {
				t.Error("forgotten before it was durable")
			}
			f.Ack(p, nil)
		}
		if fmt.Sprint(side.forgot, push.forgot) != "[] [12]" {
			t.Errorf("forgot %v %v", side.forgot, push.forgot)
		}
		cancel()
		<-ended
	})
}
