package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
)

func TestRecordsAreTakenInAtARate(t *testing.T) {
	for _, perSecond := range []float64{5, 200, 1000} {
		synctest.Test(t, func(t *testing.T) {
			src, st := newMemSource(3, 4000, 500), newStore()
			var mu sync.Mutex
			var at []time.Time
			count := stageFunc(func(in int32, r *record.Record, res *record.Results) {
				mu.Lock()
				at = append(at, time.Now())
				mu.Unlock()
				res.Drops = append(res.Drops, in)
			})
			f := New(Config{Records: NewLimiter(perSecond)}, src, Linear(0, []BoundStage{{count, StageInfo{ID: "one"}}}, pushInfo), only(&sink{}))
			st.open(f, src)
			begin := time.Now()
			r := start(f, st)
			time.Sleep(10 * second)
			r.stop()
			most := 0
			for i := range at {
				n := 0
				for n < len(at)-i && at[i+n].Sub(at[i]) < time.Second {
					n++
				}
				most = max(most, n)
			}
			if float64(most) > perSecond*1.05 {
				t.Errorf("%v/s: %d records in a second", perSecond, most)
			}
			if n := float64(len(at)); n < perSecond*10*0.95 || n > perSecond*10*1.02+1 {
				t.Errorf("%v/s: %v records in %v", perSecond, n, time.Since(begin))
			}
			for i, p := range src.parts { // lanes take turns
				if low := float64(st.at(p)); perSecond > 5 && low < perSecond*10/3*0.8 {
					t.Errorf("%v/s: %v records of partition %d", perSecond, low, i)
				}
			}
		})
	}
}

func TestHeldFlowTakesNothingIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, st := newMemSource(1, 1000, 100), newStore()
		o := &outlet{answer: taken}
		f := New(Config{}, src, Linear(0, nil, pushInfo), []Delivery{o})
		f.Hold("the partner is down")
		st.open(f, src)
		r := start(f, st)
		time.Sleep(second)
		if f.Stats().In.Load() != 0 || f.Problem() != "the partner is down" {
			t.Errorf("%d records taken in, problem %q", f.Stats().In.Load(), f.Problem())
		}
		if n, _ := f.Inject(src.parts[0], []*record.Retry{entryAt("push", 7)}, nil, nil); n != 1 {
			t.Error("a kept entry was not taken")
		}
		synctest.Wait()
		if o.got() != "7" {
			t.Errorf("calls %s", o.got())
		}
		f.Hold("")
		waitUntil(t, "the end", func() bool { return st.at(src.parts[0]) == 1000 })
		r.stop()
	})
}

// rejecting is a flow whose only stage fails every record.
func rejecting(cfg Config, src Source, info StageInfo) *Flow {
	no := stageFunc(func(in int32, _ *record.Record, res *record.Results) {
		res.Failures = append(res.Failures, record.Failure{In: in, Err: &record.Error{Class: record.Rejected, Code: 9, Message: "no"}})
	})
	return New(cfg, src, Linear(0, []BoundStage{{no, info}}, pushInfo), only(&sink{}))
}

func TestRecordsGoAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, st := newMemSource(1, 30, 10), newStore()
		src.topics[src.parts[0]][4].Headers = []record.Header{{Key: "h", Value: []byte("v")}}
		tries := 0
		topic := &sink{delay: time.Millisecond}
		flaky := deliveryFunc(func(ctx context.Context, recs []record.Record, done func(int, error)) {
			if tries++; tries == 1 {
				for i := range recs {
					done(i, record.Errorf(record.Retryable, "no leader"))
				}
				return
			}
			topic.Deliver(ctx, recs, done)
		})
		f := rejecting(Config{Flow: "default/x"}, src, StageInfo{ID: "one", Digest: "sha256:aa", Otherwise: ToTopic, Aside: flaky})
		st.open(f, src)
		r := start(f, st)
		waitUntil(t, "the end", func() bool { return st.at(src.parts[0]) == 30 })
		r.stop()
		got := topic.take()
		if len(got) != 30 || len(st.failed) != 0 || !slices.IsSortedFunc(got, func(a, b record.Record) int { return int(a.Offset - b.Offset) }) {
			t.Fatalf("%d records aside, %d filed", len(got), len(st.failed))
		}
		var hs []string
		for _, h := range got[4].Headers {
			hs = append(hs, h.Key+"="+string(h.Value))
		}
		want := "h=v millrace-flow=default/x millrace-stage=one millrace-class=rejected millrace-code=9 millrace-message=no millrace-attempts=1 millrace-id=t/0/4 millrace-digest=sha256:aa"
		if s := strings.Join(hs, " "); s != want {
			t.Errorf("headers\n%s, want\n%s", s, want)
		}
		if string(got[4].Value) != "0/4" || st.tally(src.parts[0]).Dropped[DroppedAside] != 30 {
			t.Errorf("value %s, tally %+v", got[4].Value, st.tally(src.parts[0]))
		}
	})
}

func TestTopicThatTakesNothingPausesTheFlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, st := newMemSource(1, 30, 10), newStore()
		topic := &sink{refuse: func(*record.Record) error { return record.Errorf(record.TooLarge, "2 MiB") }}
		reason := make(chan string, 1)
		f := rejecting(Config{Pause: func(s string) { reason <- s }}, src, StageInfo{ID: "one", Otherwise: ToTopic, Aside: topic})
		st.open(f, src)
		r := start(f, st)
		if s := <-reason; !strings.Contains(s, "t/0/") || !strings.Contains(s, "2 MiB") || !strings.Contains(s, "one") {
			t.Errorf("reason %q", s)
		}
		r.stop()
		if st.at(src.parts[0]) != 0 {
			t.Errorf("watermark %d", st.at(src.parts[0]))
		}
	})
}

func TestTellingComesFirst(t *testing.T) {
	for otherwise, where := range map[Otherwise]string{ToQueue: "queue", ToNowhere: "nowhere", ToTopic: "topic"} {
		t.Run(where, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src, st, topic := newMemSource(1, 100, 100), newStore(), &sink{}
				var mu sync.Mutex
				told := map[string]int{}
				var waiting []func(string)
				cfg := Config{Tell: func(ctx context.Context, e *record.Entry, done func(string)) {
					mu.Lock()
					defer mu.Unlock()
					told[e.ID()]++
					if e.Input.Offset == 0 {
						return // never answers
					}
					waiting = append(waiting, done)
				}}
				f := rejecting(cfg, src, StageInfo{ID: "one", Otherwise: otherwise, Aside: topic})
				st.open(f, src)
				r := start(f, st)
				time.Sleep(second)
				synctest.Wait()
				// 64 are being told of; the others were not, and have their
				// owner.
				if n := f.Status()[src.parts[0]].InFlight; n != maxTelling || st.at(src.parts[0]) != 0 {
					t.Errorf("%d records wait, watermark %d", n, st.at(src.parts[0]))
				}
				mu.Lock()
				for i, done := range waiting {
					go done([]string{"", "503 from oncall"}[i%2])
					go done("twice")
				}
				mu.Unlock()
				waitUntil(t, "the end", func() bool { return st.at(src.parts[0]) == 100 })
				r.stop()
				for id, n := range told {
					if n != 1 {
						t.Errorf("%s was told of %d times", id, n)
					}
				}
				if len(told) != maxTelling {
					t.Errorf("%d records were told of", len(told))
				}
				if n := st.tally(src.parts[0]).Dropped; otherwise == ToNowhere && n[DroppedOtherwise] != 100 || otherwise == ToTopic && (n[DroppedAside] != 100 || len(topic.take()) != 100) {
					t.Errorf("dropped %v", n)
				}
				if otherwise != ToQueue {
					return
				}
				count := map[string]int{}
				for _, e := range st.failed {
					count[e.Told]++
				}
				if count["skipped: 64 others were being told of"] != 36 || count["no answer within 10s"] != 1 || count[""]+count["503 from oncall"]+count["twice"] != 63 {
					t.Errorf("told: %v", count)
				}
				if n := f.Stats().Untold.Load(); n != int64(100-count[""]) {
					t.Errorf("%d could not be told of", n)
				}
			})
		})
	}
}

// ackSource is a source that somebody waits behind.
type ackSource struct {
	*memSource
	mu  sync.Mutex
	got map[int64][]record.Settlement
}

func (s *ackSource) Settled(_ record.Partition, o int64, what record.Settlement) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.got == nil {
		s.got = map[int64][]record.Settlement{}
	}
	s.got[o] = append(s.got[o], what)
}

func (s *ackSource) told(o int64) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprint(s.got[o])
}

func TestSourceHearsWhatIsSafe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &ackSource{memSource: newMemSource(1, 600, 600)}
		one := stageFunc(func(in int32, r *record.Record, res *record.Results) {
			switch r.Offset {
			case 1:
				res.Drops = append(res.Drops, in)
			case 3:
				for n := range 3 {
					e := *r
					e.Path, _ = r.Path.Child(n)
					emit(in, &e, res)
				}
			default:
				emit(in, r, res)
			}
		})
		last := make(chan struct{})
		o := &outlet{answer: func(it record.Item) record.Outcome {
			switch id := it.Record.ID(); {
			case id == "t/0/2" || id == "t/0/3#0":
				return record.Outcome{Err: record.Errorf(record.Rejected, "no")}
			case id == "t/0/3#1":
				return record.Outcome{Keep: &record.Retry{Due: 1}}
			case id == "t/0/4":
				<-last
			}
			return record.Outcome{}
		}}
		f := New(Config{}, src, Linear(0, []BoundStage{{one, StageInfo{ID: "one"}}}, pushInfo), []Delivery{o})
		if err := f.Open(LaneConfig{Partition: src.parts[0], Low: 0, Known: []record.EmissionKey{{Offset: 599}}}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() { _ = f.Run(ctx); close(ended) }()
		synctest.Wait()
		expect := func(want ...string) {
			t.Helper()
			for o, w := range want {
				if got := src.told(int64(o)); got != w {
					t.Errorf("offset %d: told %s, want %s", o, got, w)
				}
			}
		}
		expect("[delivered]", "[dropped]", "[]", "[]", "[]")
		close(last)
		synctest.Wait()
		expect("[delivered]", "[dropped]", "[]", "[]", "[delivered]", "[delivered]")
		p := f.Dirty()[0]
		f.Ack(p, errors.New("no leader"))
		expect("[delivered]", "[dropped]", "[]", "[]")
		p = f.Dirty()[0]
		f.Ack(p, nil)
		expect("[delivered]", "[dropped]", "[filed]", "[delivered,filed,kept]")
		if got := src.told(599); got != "[known]" {
			t.Errorf("offset 599: told %s", got)
		}
		if len(src.got) != 600 { // more than the window holds at first
			t.Errorf("%d records told of, want 600", len(src.got))
		}
		cancel()
		<-ended
	})
}

func TestUrgesWhenManyAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newMemSource(1, 256, 300)
		urged := make(chan struct{}, 1000)
		o := &outlet{answer: func(record.Item) record.Outcome { return record.Outcome{Keep: &record.Retry{Due: 1}} }}
		f := New(Config{Urge: func() { urged <- struct{}{} }}, src, Linear(0, nil, pushInfo), []Delivery{o})
		newStore().open(f, src)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() { _ = f.Run(ctx); close(ended) }()
		synctest.Wait()
		if len(urged) == 0 {
			t.Error("nobody was urged to commit")
		}
		if ps := f.Dirty(); len(ps) != 1 || len(ps[0].Keeps) != 256 || ps[0].Low != 256 {
			t.Errorf("progress %+v", ps)
		}
		cancel()
		<-ended
	})
}
