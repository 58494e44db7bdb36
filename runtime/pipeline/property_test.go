package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/runtime/record"
)

// world is a flow with a branch whose ways join, two deliveries, and all that
// can happen to it.
type world struct {
	rnd      *rand.Rand
	order    Order
	records  int
	src      *memSource
	states   []*model // by partition
	partners []*partner
	calm     atomic.Bool
	flow     *Flow
	life     uint64
	gen      uint32
	refused  sync.Map                      // ids of emissions that could not go on once: they lost their place
	arrivals map[string]bool               // by delivery and id
	latest   map[string]record.EmissionKey // the last first arrival, by delivery and what keeps an order
	dropped  map[string]bool               // entries dropped from the queue
	unsure   [2]bool                       // whether the last commit's answer was lost, by partition
	news     map[string]int                // how much of a delivery's log was looked at
}

const joins = "push" // the delivery behind the branch; the other is "side"

// leaves are the emissions that must arrive for a record, by delivery.
func leaves(o int64) map[string][]record.Path {
	paths := []record.Path{""}
	switch o % 11 {
	case 3:
		return nil
	case 5:
		a, _ := record.Path("").Child(0)
		b, _ := record.Path("").Child(1)
		paths = []record.Path{a, b}
	}
	out := map[string][]record.Path{}
	for _, p := range paths {
		switch o % 5 {
		case 2:
			a, _ := p.Child(0)
			b, _ := p.Child(1)
			out[joins] = append(out[joins], a, b)
		case 3:
			out["side"] = append(out["side"], p)
		case 4: // dropped by the branch
		default:
			out[joins] = append(out[joins], p)
		}
	}
	return out
}

func (w *world) set() Set {
	one := stageFunc(func(in int32, r *record.Record, res *record.Results) {
		switch o := r.Offset % 11; {
		case o == 3:
			res.Drops = append(res.Drops, in)
		case o == 5:
			for n := range 2 {
				e := *r
				e.Path, _ = r.Path.Child(n)
				emit(in, &e, res)
			}
		case o == 7 && !w.calm.Load():
			w.refused.Store(r.ID(), true)
			res.Failures = append(res.Failures, record.Failure{In: in, Err: record.Errorf(record.Trap, "unreachable")})
		case o == 9 && r.Attempt < 3:
			res.Failures = append(res.Failures, record.Failure{In: in, Err: &record.Error{Class: record.Retryable, RetryAfter: 30 * time.Millisecond}})
		default:
			emit(in, r, res)
		}
	})
	split := stageFunc(func(in int32, r *record.Record, res *record.Results) {
		switch o := r.Offset % 5; o {
		case 2:
			for n := range 2 {
				e := record.Emit{In: in, Output: uint16(n), Record: *r}
				e.Record.Path, _ = r.Path.Child(n)
				res.Emits = append(res.Emits, e)
			}
		default:
			res.Emits = append(res.Emits, record.Emit{In: in, Output: uint16([]int{0, 1, 0, 2, 3}[o]), Record: *r})
		}
	})
	moody := stageFunc(func(in int32, r *record.Record, res *record.Results) {
		switch {
		case r.Offset%13 == 6 && r.Attempt < 2:
			res.Failures = append(res.Failures, record.Failure{In: in, Err: &record.Error{Class: record.Retryable, RetryAfter: 20 * time.Millisecond}})
		case r.Offset%17 == 8 && !w.calm.Load():
			w.refused.Store(r.ID(), true)
			res.Failures = append(res.Failures, record.Failure{In: in, Err: record.Errorf(record.Rejected, "not like this")})
		default:
			emit(in, r, res)
		}
	})
	s := Set{Generation: w.gen, Nodes: []Node{
		{Stage: one, StageInfo: StageInfo{ID: "one"}, Next: 1},
		{Kind: KindBranch, Stage: split, StageInfo: StageInfo{ID: "split"}, Next: 4, Cases: []int{2, 3, 5, Drop}},
		{Stage: stageFunc(emit), StageInfo: StageInfo{ID: "de"}, Next: 4},
		{Stage: moody, StageInfo: StageInfo{ID: "fr"}, Next: 4},
		{Kind: KindDeliver, StageInfo: StageInfo{ID: joins}},
		{Kind: KindDeliver, StageInfo: StageInfo{ID: "side"}, Delivery: 1},
	}}
	switch w.gen % 3 {
	case 1: // without a stage
		s.Nodes[1].Cases[0] = 4
		s.Nodes[2].ID = "unreached"
	case 2: // in another order, with one more
		s.Nodes = []Node{s.Nodes[0], s.Nodes[1], s.Nodes[3], s.Nodes[2], {Stage: stageFunc(emit), StageInfo: StageInfo{ID: "more"}, Next: 5}, s.Nodes[4], s.Nodes[5]}
		s.Nodes[1].Cases, s.Nodes[1].Next = []int{3, 2, 6, Drop}, 5
		s.Nodes[2].Next, s.Nodes[3].Next = 4, 5
	}
	return s
}

// live runs one life of the flow and kills it. It reports whether everything is
// settled.
func (w *world) live(last bool) (settled bool, err error) {
	w.src.mu.Lock()
	clear(w.src.at)
	clear(w.src.paused)
	w.src.mu.Unlock()
	w.partners = nil
	var deliveries []Delivery
	for _, id := range []string{joins, "side"} {
		p := &partner{id: id, order: w.order, rnd: rand.New(rand.NewPCG(w.rnd.Uint64(), 1)), calm: last, refused: &w.refused}
		w.partners = append(w.partners, p)
		deliveries = append(deliveries, p)
	}
	w.calm.Store(last)
	w.news, w.unsure = map[string]int{}, [2]bool{}
	w.flow = New(Config{Order: w.order, InFlight: 40, DrainLimit: second}, w.src, w.set(), deliveries)
	ctx, kill := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { _ = w.flow.Run(ctx); close(ended) }()
	defer func() {
		for _, p := range w.partners {
			p.mu.Lock()
			p.dead = true
			p.mu.Unlock()
		}
		kill()
		<-ended
		synctest.Wait()
		err = errors.Join(err, w.look())
	}()
	steps := 5 + w.rnd.IntN(60)
	for n := 0; n < steps || last; n++ {
		if n > 2000 {
			return false, fmt.Errorf("no end: %s", w.unsettled())
		}
		if err := w.step(last); err != nil {
			return false, err
		}
		if w.settled() {
			if last {
				return true, w.forgotten()
			}
			break
		}
	}
	return false, nil
}

func (w *world) step(last bool) error {
	for i, p := range w.src.parts {
		if _, ok := w.flow.Status()[p]; !ok {
			w.life++
			_ = w.flow.Open(w.states[i].lane(p, i, w.life)) // later, if the old lane's last batch is on its way
		}
	}
	time.Sleep(time.Duration(w.rnd.IntN(60)) * time.Millisecond)
	synctest.Wait()
	for range 1 + w.rnd.IntN(2) {
		if w.rnd.IntN(3) > 0 || last {
			if err := w.commit(last); err != nil {
				return err
			}
		}
	}
	for i, p := range w.src.parts {
		if w.rnd.IntN(2) == 0 || last {
			w.flow.Inject(p, w.states[i].due(time.Now().UnixMilli()), nil, nil)
		}
		if w.rnd.IntN(8) == 0 {
			w.touchQueue(i)
		}
	}
	switch {
	case last:
		w.flow.Hold("")
	case w.rnd.IntN(12) == 0:
		w.flow.Hold("a moment")
	case w.rnd.IntN(4) == 0:
		w.flow.Hold("")
	case w.rnd.IntN(6) == 0:
		w.gen++
		if err := w.flow.Swap(w.set()); err != nil {
			return err
		}
	}
	return w.look()
}

// commit applies progress, or not, and tells the lane so, or something else.
func (w *world) commit(last bool) error {
	for _, p := range w.flow.Dirty() {
		fate := w.rnd.IntN(40)
		if last {
			fate = 0
		}
		if fate == 39 {
			w.flow.Ack(p, record.Errorf(record.Fenced, "behind"))
			continue
		}
		if fate < 37 {
			if err := w.states[p.Ownership.Part].apply(&p, time.Now().UnixMilli()); err != nil {
				return fmt.Errorf("commit of %v: %w", p.Partition, err)
			}
		}
		var err error
		if fate >= 35 {
			err = errors.New("leadership lost")
		}
		w.unsure[p.Ownership.Part] = fate >= 35
		w.flow.Ack(p, err)
		if err := w.accounted(int(p.Ownership.Part)); err != nil {
			return err
		}
	}
	return nil
}

// touchQueue replays or drops an entry of the failure queue.
func (w *world) touchQueue(part int) {
	m := w.states[part]
	if w.unsure[part] { // what was committed comes once more
		return
	}
	for k, e := range m.filed {
		if w.rnd.IntN(4) == 0 {
			delete(m.filed, k)
			m.base.Dropped["queue"]++
			w.dropped[e.ID()] = true
			return
		}
		hold := uint64(0)
		if w.order == OrderKey && (e.Stage == joins || e.Stage == "side") {
			hold = holdOf(e.Stage, &e.Input)
		}
		m.replay(k, hold, time.Now().UnixMilli())
		return
	}
}

// accounted checks that nothing that the state says is settled is lost.
func (w *world) accounted(part int) error {
	m := w.states[part]
	for o := range int64(w.records) {
		if !m.passed(o) {
			continue
		}
		for id, paths := range leaves(o) {
			for _, path := range paths {
				if err := w.find(part, id, o, path); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (w *world) find(part int, delivery string, o int64, path record.Path) error {
	r := record.Record{Topic: "t", Partition: int32(part), Offset: o, Path: path}
	if w.arrivals[delivery+" "+r.ID()] {
		return nil
	}
	for _, p := range w.partners {
		p.mu.Lock()
		got := p.id == delivery && slices.ContainsFunc(p.got, func(g record.Record) bool { return g.ID() == r.ID() })
		p.mu.Unlock()
		if got {
			return nil
		}
	}
	m := w.states[part]
	for n := 0; n <= len(path); n += 2 { // of an emission it came from
		k := record.EmissionKey{Offset: o, Path: path[:n]}
		r.Path = path[:n]
		if m.filed[k] != nil || m.kept[k] != nil || w.dropped[r.ID()] {
			return nil
		}
	}
	r.Path = path
	return fmt.Errorf("lost: %s at %s; low %d", r.ID(), delivery, m.low)
}

// look goes on reading the deliveries' logs: nothing arrives that must not, and
// first arrivals keep their order.
func (w *world) look() error {
	for _, p := range w.partners {
		p.mu.Lock()
		news, faults := slices.Clone(p.got[w.news[p.id]:]), p.faults
		w.news[p.id] = len(p.got)
		p.mu.Unlock()
		if len(faults) > 0 {
			return errors.New(faults[0])
		}
		for i := range news {
			if err := w.arrived(p.id, &news[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *world) arrived(delivery string, r *record.Record) error {
	if !slices.Contains(leaves(r.Offset)[delivery], r.Path) {
		return fmt.Errorf("%s came out at %s and must not", r.ID(), delivery)
	}
	first := !w.arrivals[delivery+" "+r.ID()]
	w.arrivals[delivery+" "+r.ID()] = true
	for n := 0; n <= len(r.Path); n += 2 {
		from := *r
		from.Path = r.Path[:n]
		if _, ok := w.refused.Load(from.ID()); ok {
			return nil
		}
	}
	if !first || w.order == OrderNone {
		return nil
	}
	line := fmt.Sprint(delivery, " ", r.Partition)
	if w.order == OrderKey {
		line += " " + string(r.Key)
	}
	if before, ok := w.latest[line]; ok && compareKeys(before, r.EmissionKey()) > 0 {
		return fmt.Errorf("%s came out at %s after %v (%s)", r.ID(), delivery, before, line)
	}
	w.latest[line] = r.EmissionKey()
	return nil
}

func (w *world) settled() bool { return w.unsettled() == "" }

func (w *world) unsettled() string {
	var s strings.Builder
	for i, m := range w.states {
		if m.low < int64(w.records) || len(m.kept) > 0 {
			fmt.Fprintf(&s, "partition %d: low %d, %d kept, lane %+v; ", i, m.low, len(m.kept), w.flow.Status()[w.src.parts[i]])
		}
	}
	return s.String()
}

// forgotten checks that no delivery waits for an entry that is gone.
func (w *world) forgotten() error {
	for _, p := range w.partners {
		p.mu.Lock()
		defer p.mu.Unlock()
		for way := range p.open {
			for hold, n := range way.held {
				if n != 0 {
					return fmt.Errorf("delivery %s waits for %d entries of %x that are gone", p.id, n, hold)
				}
			}
		}
	}
	for _, m := range w.states {
		if m.now.Flying != 0 {
			return fmt.Errorf("%d emissions fly when all is settled", m.now.Flying)
		}
	}
	return nil
}

// TestNothingIsLostWhateverHappens runs flows through random outcomes,
// emissions, branches, kept entries, replays, swaps, lost commits, fences and
// kills, against a model of the state: the receipt adds up at every commit, no
// watermark passes a record that is not settled, and first deliveries keep the
// order.
func TestNothingIsLostWhateverHappens(t *testing.T) {
	for order, name := range []string{"partition", "none", "key"} {
		t.Run("order="+name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) { whateverHappens(t, rt, Order(order)) })
		})
	}
}

func whateverHappens(t *testing.T, rt *rapid.T, order Order) {
	seed := rapid.Uint64().Draw(rt, "seed")
	w := &world{
		rnd: rand.New(rand.NewPCG(seed, 3)), order: order, records: rapid.IntRange(1, 150).Draw(rt, "records"),
		gen: uint32(rapid.IntRange(0, 2).Draw(rt, "set")), arrivals: map[string]bool{}, dropped: map[string]bool{}, latest: map[string]record.EmissionKey{},
	}
	partitions, keys := rapid.IntRange(1, 2).Draw(rt, "partitions"), rapid.IntRange(1, 6).Draw(rt, "keys")
	lives := rapid.IntRange(0, 5).Draw(rt, "lives")
	value := make([]byte, rapid.SampledFrom([]int{10, 120 << 10}).Draw(rt, "bytes")) // entries of the larger ones fill several commits
	var err error
	synctest.Test(t, func(*testing.T) {
		w.src = newMemSource(partitions, w.records, 30)
		for _, p := range w.src.parts {
			w.states = append(w.states, newModel())
			for i := range w.src.topics[p] {
				w.src.topics[p][i].Value = value
				w.src.topics[p][i].Key = fmt.Append(nil, "k", w.rnd.IntN(keys))
			}
		}
		for range lives {
			if _, err = w.live(false); err != nil {
				return
			}
		}
		_, err = w.live(true)
	})
	if err != nil {
		rt.Fatal(err)
	}
	for i := range w.states {
		for o := range int64(w.records) {
			if !w.states[i].passed(o) {
				rt.Fatalf("offset %d is not settled", o)
			}
		}
		if err := w.accounted(i); err != nil {
			rt.Fatal(err)
		}
	}
}
