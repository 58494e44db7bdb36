package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/millrace-io/millrace/runtime/ledger"
	"github.com/millrace-io/millrace/runtime/record"
)

// model is the state as a node's lanes see it: a small twin of what the
// cluster's state machine does with a partition.
type model struct {
	low    int64
	ranges []ledger.Range
	filed  map[record.EmissionKey]*record.Entry
	kept   map[record.EmissionKey]*keptEntry
	life   uint64
	base   Tally // of earlier lives
	now    Tally
	// carried is what the progress of this life has had, lasting how many entries
	// there were before it.
	carried Carried
	lasting int64
}

type keptEntry struct {
	*record.Retry
	parked bool
	due    int64
}

func newModel() *model {
	return &model{filed: map[record.EmissionKey]*record.Entry{}, kept: map[record.EmissionKey]*keptEntry{}, base: Tally{Dropped: map[string]int64{}}}
}

func compareKeys(a, b record.EmissionKey) int {
	return cmp.Or(cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Path, b.Path))
}

// apply applies progress as one commit at a time.
func (m *model) apply(p *Progress, at int64) error {
	if p.Low < m.low {
		return fmt.Errorf("watermark goes back from %d to %d", m.low, p.Low)
	}
	m.low, m.ranges = p.Low, p.Ranges
	if p.Life != m.life {
		m.fold()
		m.life, m.carried, m.lasting = p.Life, Carried{}, m.entries()
	} else if p.Tally.Read < m.now.Read || p.Tally.Split < m.now.Split || p.Tally.Delivered < m.now.Delivered || p.Tally.Known < m.now.Known {
		return fmt.Errorf("tally goes back from %+v to %+v", m.now, p.Tally)
	}
	m.now = p.Tally
	touched := map[uint64]bool{}
	remove := func(k record.EmissionKey) {
		if e := m.kept[k]; e != nil {
			touched[e.Hold] = true
			delete(m.kept, k)
		}
	}
	for _, e := range p.Failures {
		k := e.Input.EmissionKey()
		remove(k)
		if m.filed[k] == nil {
			m.filed[k] = e
		}
	}
	for _, k := range p.Gone {
		remove(k)
	}
	for _, r := range p.Keeps {
		m.keep(r, at)
		touched[r.Hold] = true
	}
	for h := range touched {
		m.promote(h, at)
	}
	carried := Carried{p.Carried.Failures + uint64(len(p.Failures)), p.Carried.Keeps + uint64(len(p.Keeps)), p.Carried.Gone + uint64(len(p.Gone))}
	if p.Carried.Failures > m.carried.Failures || p.Carried.Keeps > m.carried.Keeps || p.Carried.Gone > m.carried.Gone ||
		carried.Failures < m.carried.Failures || carried.Keeps < m.carried.Keeps || carried.Gone < m.carried.Gone {
		return fmt.Errorf("entries from %+v to %+v follow %+v", p.Carried, carried, m.carried)
	}
	m.carried = carried
	if grown := m.entries() - m.lasting; p.Grown != grown {
		return fmt.Errorf("entries grew by %d, the progress says by %d", grown, p.Grown)
	}
	return m.balance()
}

// entries are all that there are, and that were dropped from the queue.
func (m *model) entries() int64 {
	return int64(len(m.filed)+len(m.kept)) + m.base.Dropped["queue"]
}

func (m *model) keep(r *record.Retry, at int64) {
	k := r.Input.EmissionKey()
	if m.filed[k] != nil {
		return
	}
	clone := *r
	e := &keptEntry{Retry: &clone, due: cmp.Or(r.Due, at)}
	m.kept[k] = e
	if r.Hold == 0 {
		return
	}
	for _, o := range m.of(r.Hold) {
		ok := o.Input.EmissionKey()
		if c := compareKeys(ok, k); c < 0 && (r.Group == "" || o.Group != r.Group) {
			e.parked = true
		} else if c > 0 {
			o.parked = true
		}
	}
}

// of lists the entries of a hold in order.
func (m *model) of(hold uint64) []*keptEntry {
	var es []*keptEntry
	for _, e := range m.kept {
		if hold != 0 && e.Hold == hold {
			es = append(es, e)
		}
	}
	slices.SortFunc(es, func(a, b *keptEntry) int { return compareKeys(a.Input.EmissionKey(), b.Input.EmissionKey()) })
	return es
}

func (m *model) promote(hold uint64, at int64) {
	es := m.of(hold)
	if len(es) == 0 || !es[0].parked {
		return
	}
	for _, e := range es[:min(len(es), 64)] {
		if !e.parked {
			break
		}
		e.parked, e.due = false, at
	}
}

// due lists what is to be injected, copies that the lane may keep.
func (m *model) due(now int64) []*record.Retry {
	var es []*keptEntry
	for _, e := range m.kept {
		if !e.parked && e.due <= now {
			es = append(es, e)
		}
	}
	slices.SortFunc(es, func(a, b *keptEntry) int {
		return cmp.Or(cmp.Compare(a.due, b.due), compareKeys(a.Input.EmissionKey(), b.Input.EmissionKey()))
	})
	out := make([]*record.Retry, len(es))
	for i, e := range es {
		clone := *e.Retry
		out[i] = &clone
	}
	return out
}

// replay takes an entry of the failure queue back to where it failed.
func (m *model) replay(k record.EmissionKey, hold uint64, at int64) {
	e := m.filed[k]
	delete(m.filed, k)
	m.keep(&record.Retry{Stage: e.Stage, Input: e.Input, Generation: e.Generation, Requeues: e.Requeues + 1, Hold: hold, Due: at, At: at}, at)
}

// fold closes the tally of a life: what was flying is read again.
func (m *model) fold() {
	m.base.Read += m.now.Read - m.now.Flying
	m.base.Split += m.now.Split
	m.base.Delivered += m.now.Delivered
	m.base.Known += m.now.Known
	for by, n := range m.now.Dropped {
		m.base.Dropped[by] += n
	}
	m.now = Tally{}
}

// balance is the receipt.
func (m *model) balance() error {
	in := m.base.Read + m.base.Split + m.now.Read + m.now.Split
	out := m.base.Delivered + m.base.Known + m.now.Delivered + m.now.Known + m.now.Flying + int64(len(m.filed)+len(m.kept))
	for _, dropped := range []map[string]int64{m.base.Dropped, m.now.Dropped} {
		for n := range maps.Values(dropped) {
			out += n
		}
	}
	if in != out {
		return fmt.Errorf("the receipt does not add up: %d in, %d accounted for; before %+v, now %+v, %d filed, %d kept", in, out, m.base, m.now, len(m.filed), len(m.kept))
	}
	return nil
}

// passed reports whether the state says that an offset is settled.
func (m *model) passed(o int64) bool {
	return o < m.low || slices.ContainsFunc(m.ranges, func(r ledger.Range) bool { return o >= r.From && o < r.To })
}

func (m *model) lane(p record.Partition, part int, life uint64) LaneConfig {
	cfg := LaneConfig{Partition: p, Ownership: Ownership{Part: uint32(part)}, Life: life, Low: m.low, Ranges: m.ranges, MayRepeat: 40}
	for k := range m.filed {
		if k.Offset >= m.low {
			cfg.Known = append(cfg.Known, k)
		}
	}
	for k, e := range m.kept {
		if k.Offset >= m.low {
			cfg.Known = append(cfg.Known, k)
		}
		if e.Hold != 0 {
			cfg.Held = append(cfg.Held, HeldEntry{Key: k, Delivery: e.Stage, Hold: e.Hold})
		}
	}
	return cfg
}

func holdOf(delivery string, r *record.Record) uint64 {
	h := fnv.New64a()
	h.Write([]byte(delivery + "\x00" + string(r.Key)))
	return h.Sum64() | 1
}

// partner is a delivery that keeps: it answers at random until it is calm.
type partner struct {
	id      string
	order   Order
	refused *sync.Map // ids that it refused

	mu     sync.Mutex
	rnd    *rand.Rand
	calm   bool
	dead   bool
	got    []record.Record
	faults []string
	open   map[*way]bool
}

func (p *partner) Problem() string { return "" }
func (p *partner) Held() string    { return "" }

func (p *partner) Open(_ record.Partition, held []uint64) Outlet {
	w := &way{p: p, held: map[uint64]int{}, again: map[uint64][]rekept{}}
	for _, h := range held {
		w.held[h]++
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == nil {
		p.open = map[*way]bool{}
	}
	p.open[w] = true
	return w
}

// way is an outlet of a partner; the partner's mu guards it.
type way struct {
	p       *partner
	held    map[uint64]int
	again   map[uint64][]rekept
	queue   []*parked
	working bool
}

// rekept is an entry that was kept again, as parked or not.
type rekept struct {
	key    record.EmissionKey
	parked bool
}

type parked struct {
	record.Item
	hold   uint64
	parked bool // when it was kept again
	behind bool // an attempt of an entry before it has failed
	done   func(record.Outcome)
}

func (w *way) Close() { w.p.mu.Lock(); delete(w.p.open, w); w.p.mu.Unlock() }

func (w *way) Forget(hold uint64) {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	if w.held[hold]--; w.held[hold] < 0 {
		w.p.faults = append(w.p.faults, "forgotten more often than it was kept")
	}
}

func (w *way) Deliver(_ context.Context, items []record.Item, done func(int, record.Outcome)) {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	for i := range items {
		it := &parked{Item: items[i], done: func(o record.Outcome) { done(i, o) }}
		if w.p.order == OrderKey {
			it.hold = holdOf(w.p.id, &it.Record)
		}
		w.back(it)
		w.queue = append(w.queue, it)
	}
	if !w.working {
		w.working = true
		go w.work()
	}
}

// back notes that an entry has come back, and whether one that was kept again
// comes before it: the state had let both go, and did not know yet.
func (w *way) back(it *parked) {
	if it.Retry == nil || it.Retry.Hold == 0 {
		return
	}
	key := it.Record.EmissionKey()
	before := func(a rekept) bool { return compareKeys(a.key, key) < 0 }
	as := slices.DeleteFunc(w.again[it.hold], func(a rekept) bool {
		it.parked = it.parked || a.key == key && a.parked
		return a.key == key
	})
	if it.parked {
		as = slices.DeleteFunc(as, before)
	}
	w.again[it.hold], it.behind = as, slices.ContainsFunc(as, before)
}

func (w *way) work() {
	for {
		w.p.mu.Lock()
		if len(w.queue) == 0 {
			w.working = false
			w.p.mu.Unlock()
			return
		}
		it := w.next()
		pause := time.Duration(w.p.rnd.IntN(3)) * time.Millisecond
		w.p.mu.Unlock()
		time.Sleep(pause) // of the bubble's clock
		w.p.mu.Lock()
		o := w.decide(it)
		w.p.mu.Unlock()
		it.done(o)
	}
}

// next takes one that may go: any, the first of its key, or the first.
func (w *way) next() *parked {
	at := 0
	if w.p.order != OrderPartition {
		at = w.p.rnd.IntN(len(w.queue))
	}
	if w.p.order == OrderKey {
		at = slices.IndexFunc(w.queue, func(o *parked) bool { return o.hold == w.queue[at].hold })
	}
	it := w.queue[at]
	w.queue = slices.Delete(w.queue, at, at+1)
	return it
}

func (w *way) decide(it *parked) record.Outcome {
	p := w.p
	kept := func(due int64, err error) record.Outcome {
		if it.Retry == nil && it.hold != 0 {
			w.held[it.hold]++
		}
		if it.Retry != nil && it.Retry.Hold != 0 {
			w.again[it.hold] = append(w.again[it.hold], rekept{it.Record.EmissionKey(), due == 0})
		}
		return record.Outcome{Keep: &record.Retry{Due: due, Hold: it.hold}, Err: err}
	}
	if p.dead {
		return record.Outcome{Err: context.Canceled}
	}
	if it.Retry == nil && w.held[it.hold] > 0 || it.behind {
		return kept(0, nil)
	}
	fate := p.rnd.IntN(10)
	if p.calm {
		fate = 9
	}
	switch {
	case fate == 0:
		p.refused.Store(it.Record.ID(), true)
		return record.Outcome{Err: record.Errorf(record.Rejected, "no"), Attempts: 2}
	case fate <= 2 && p.order != OrderPartition:
		for _, o := range w.queue {
			o.behind = o.behind || o.Retry != nil && it.Retry != nil && o.hold != 0 && o.hold == it.hold
		}
		return kept(time.Now().UnixMilli()+int64(p.rnd.IntN(200)), errors.New("busy"))
	}
	p.got = append(p.got, it.Record)
	return record.Outcome{}
}
