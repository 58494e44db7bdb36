package pipeline

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
)

func TestValidateNamesEveryFault(t *testing.T) {
	s := Set{Nodes: []Node{
		{StageInfo: StageInfo{ID: "a"}, Next: 0},
		{Kind: KindBranch, Stage: stageFunc(emit), StageInfo: StageInfo{ID: "b"}, Next: 9},
		{Kind: KindBranch, Stage: stageFunc(emit), StageInfo: StageInfo{ID: "c"}, Next: Drop, Cases: []int{Drop, 1}},
		{Kind: KindDeliver, StageInfo: StageInfo{ID: "a", Otherwise: ToTopic}, Delivery: 2},
	}}
	err := s.Validate(2)
	if err == nil {
		t.Fatal("no fault found")
	}
	for _, want := range []string{"node 0 (a): it has no stage", "node 0 (a): node 0 does not lie behind", "node 1 (b): node 9 does not", "node 1 (b): it has no cases",
		"node 2 (c): node 1 of a case does not", "node 3 (a): another node", "node 3 (a): there is no delivery 2", "node 3 (a): it has no topic"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in\n%v", want, err)
		}
	}
	if err := (&Set{}).Validate(1); err == nil {
		t.Error("a set without nodes is valid")
	}
	l := Linear(1, []BoundStage{{stageFunc(emit), StageInfo{ID: "a"}}}, pushInfo)
	if err := l.Validate(1); err != nil {
		t.Error(err)
	}
}

func TestTouchedFollowsTheWays(t *testing.T) {
	stage := func(id string, next int) Node {
		return Node{Stage: stageFunc(emit), StageInfo: StageInfo{ID: id, Digest: "d-" + id}, Next: next}
	}
	f := New(Config{}, nil, Set{Nodes: []Node{
		stage("first", 1),
		{Kind: KindBranch, Stage: stageFunc(emit), StageInfo: StageInfo{ID: "branch"}, Next: 4, Cases: []int{2, 3, Drop}},
		stage("left", 4), stage("right", 5), stage("behind", 6),
		{Kind: KindDeliver, StageInfo: StageInfo{ID: "side"}, Delivery: 1},
		{Kind: KindDeliver, StageInfo: StageInfo{ID: "push"}},
	}}, []Delivery{Plain(nil), Plain(nil)})
	c := f.course.Load()
	for id, want := range map[string]string{"first": "[]", "branch": "[d-first]", "left": "[d-first]", "right": "[d-first]", "behind": "[d-first d-left]", "side": "[d-first d-right]", "push": "[d-first d-left d-behind]", "other": "[]"} {
		if got := fmt.Sprint(c.touched(id)); got != want {
			t.Errorf("touched before %s: got %s, want %s", id, got, want)
		}
	}
}

// TestRecordThatWaitsFollowsTheNewSet: a record that waits at a stage goes on
// where the new set says, in either order.
func TestRecordThatWaitsFollowsTheNewSet(t *testing.T) {
	mark := func(id string) BoundStage {
		return BoundStage{stageFunc(func(in int32, r *record.Record, res *record.Results) {
			e := *r
			e.Value = fmt.Append(nil, string(r.Value), " ", id)
			emit(in, &e, res)
		}), StageInfo{ID: id}}
	}
	shut := BoundStage{stageFunc(func(in int32, r *record.Record, res *record.Results) {
		if r.Offset != 1 {
			emit(in, r, res)
			return
		}
		res.Failures = append(res.Failures, record.Failure{In: in, Err: &record.Error{Class: record.Retryable, RetryAfter: time.Second}})
	}), StageInfo{ID: "gate"}}
	for _, order := range []Order{OrderPartition, OrderNone, OrderKey} {
		for name, tt := range map[string]struct {
			next []BoundStage
			want string // value of the record that waited
		}{
			"its stage lets it through": {[]BoundStage{mark("a"), mark("gate"), mark("b")}, "0/1 a gate b"},
			"its stage is gone":         {[]BoundStage{mark("a"), mark("b")}, "0/1 a b"},
			"all are gone":              {nil, "0/1 a"},
			"stages came and moved":     {[]BoundStage{mark("b"), mark("new"), mark("gate"), mark("a")}, "0/1 a gate a"},
		} {
			t.Run(fmt.Sprintf("order=%d/%s", order, name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					src, st, out := newMemSource(1, 3, 3), newStore(), &sink{}
					f := New(Config{Order: order}, src, Linear(1, []BoundStage{mark("a"), shut, mark("b")}, pushInfo), only(out))
					st.open(f, src)
					r := start(f, st)
					time.Sleep(100 * time.Millisecond)
					synctest.Wait()
					if n := len(out.take()); order == OrderNone && n != 2 || order != OrderNone && n != 1 {
						t.Errorf("%d records out while one waits", n)
					}
					if err := f.Swap(Linear(2, tt.next, pushInfo)); err != nil {
						t.Fatal(err)
					}
					waitUntil(t, "the end", func() bool { return st.at(src.parts[0]) == 3 })
					r.stop()
					got := out.take()
					for i := range got {
						if got[i].Offset == 1 && string(got[i].Value) != tt.want {
							t.Errorf("got %q, want %q", got[i].Value, tt.want)
						}
						if order != OrderNone && got[i].Offset != int64(i) {
							t.Errorf("offset %d came out as number %d", got[i].Offset, i)
						}
					}
					if len(got) != 3 || !f.Adopted(2) {
						t.Errorf("%d records out", len(got))
					}
				})
			})
		}
	}
}

func TestSwapKeepsTheDeliveries(t *testing.T) {
	both := Set{Nodes: []Node{
		{Kind: KindBranch, Stage: stageFunc(emit), StageInfo: StageInfo{ID: "b"}, Next: 1, Cases: []int{1, 2}},
		{Kind: KindDeliver, StageInfo: StageInfo{ID: "x"}},
		{Kind: KindDeliver, StageInfo: StageInfo{ID: "y"}, Delivery: 1},
	}}
	f := New(Config{}, newMemSource(1, 0, 1), both, []Delivery{Plain(nil), Plain(nil)})
	if err := f.Swap(Linear(2, nil, StageInfo{ID: "x"})); err == nil || !strings.Contains(err.Error(), "delivery 1") {
		t.Errorf("a set without the second delivery: %v", err)
	}
}

func TestBranchesCountWhatTheyDrop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, st, out := newMemSource(1, 90, 30), newStore(), &sink{}
		third := stageFunc(func(in int32, r *record.Record, res *record.Results) {
			res.Emits = append(res.Emits, record.Emit{In: in, Output: uint16(r.Offset % 3), Record: *r})
		})
		f := New(Config{}, src, Set{Nodes: []Node{
			{Kind: KindBranch, Stage: third, StageInfo: StageInfo{ID: "b"}, Next: Drop, Cases: []int{2, Drop, 1}},
			{Stage: stageFunc(emit), StageInfo: StageInfo{ID: "end"}, Next: Drop},
			{Kind: KindDeliver, StageInfo: StageInfo{ID: "x"}},
		}}, only(out))
		st.open(f, src)
		r := start(f, st)
		waitUntil(t, "the end", func() bool { return st.at(src.parts[0]) == 90 })
		r.stop()
		if ta := st.tally(src.parts[0]); ta.Read != 90 || ta.Delivered != 30 || fmt.Sprint(ta.Dropped) != "map[b:30 end:30]" || len(out.take()) != 30 {
			t.Errorf("tally %+v", ta)
		}
		if f.Stats().Stage("b").Drops.Load() != 30 || f.Stats().Dropped.Load() != 60 || f.Stats().Stage("nobody") != nil {
			t.Errorf("figures %+v", f.Stats())
		}
	})
}

func TestCaseThatIsNotThereHalts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, st := newMemSource(1, 3, 3), newStore()
		reason := make(chan string, 1)
		far := stageFunc(func(in int32, r *record.Record, res *record.Results) {
			res.Emits = append(res.Emits, record.Emit{In: in, Output: 1, Record: *r})
		})
		f := New(Config{Pause: func(s string) { reason <- s }}, src, Set{Nodes: []Node{
			{Kind: KindBranch, Stage: far, StageInfo: StageInfo{ID: "b"}, Next: 1, Cases: []int{1}},
			{Kind: KindDeliver, StageInfo: StageInfo{ID: "x"}},
		}}, only(&sink{}))
		st.open(f, src)
		r := start(f, st)
		if s := <-reason; !strings.Contains(s, "branch b") || !strings.Contains(s, "t/0/0") {
			t.Errorf("reason %q", s)
		}
		r.stop()
		if st.at(src.parts[0]) != 0 {
			t.Error("a record was lost")
		}
	})
}
