package delivery

import (
	"slices"
	"time"

	"github.com/millrace-io/millrace/runtime/delivery/batch"
	"github.com/millrace-io/millrace/runtime/record"
)

// gatherer makes batches.
type gatherer struct {
	*batch.Batcher
	items map[*record.Record]*item // what it holds
}

func newGatherer(cfg *batch.Config) *gatherer {
	b, err := batch.New(*cfg)
	if err != nil {
		panic("delivery: " + err.Error()) // New has checked it
	}
	return &gatherer{Batcher: b, items: map[*record.Record]*item{}}
}

// groups are the indexes of the members of each batch that was kept.
func (l *Lane) groups(items []record.Item) map[string][]int {
	if l.e.cfg.Batch == nil {
		return nil
	}
	var groups map[string][]int
	for i := range items {
		r := items[i].Retry
		if r == nil || r.Group == "" {
			continue
		}
		if groups == nil {
			groups = map[string][]int{}
		}
		groups[r.Group] = append(groups[r.Group], i)
	}
	for _, members := range groups {
		slices.SortStableFunc(members, func(a, b int) int { return int(items[a].Retry.GroupIndex) - int(items[b].Retry.GroupIndex) })
	}
	return groups
}

// regroup makes a batch again of those members of it that are there and may
// go; mu is held.
func (l *Lane) regroup(it *item, its []item, members []int) {
	var items []*item
	var recs []*record.Record
	for _, i := range members {
		m := &its[i]
		if m != it && (l.closed || m.hash != 0 && (l.key(m.hash).barred || l.mustPark(l.key(m.hash), m))) {
			continue // answered when it comes to it
		}
		items, recs = append(items, m), append(recs, m.rec)
	}
	b, err := l.again.Rebuild(recs)
	if err == nil {
		l.enqueue(newUnit(l, b, items...))
		return
	}
	for _, m := range items { // a record that is no longer fit for a batch fails alone
		m.unit = newUnit(l, nil, m)
		if _, err := l.again.Rebuild([]*record.Record{m.rec}); err != nil {
			l.fail(m, record.AsError(err), 1)
			continue
		}
		b, _ := l.again.Rebuild([]*record.Record{m.rec})
		l.enqueue(newUnit(l, b, m))
	}
}

// gather puts an item into a batch; mu is held.
func (l *Lane) gather(g *gatherer, it *item, now time.Time) {
	var k *key
	var group string
	if it.hash != 0 {
		var err error
		if group, err = g.Group(it.rec); err != nil {
			l.fail(it, record.AsError(err), 1)
			return
		}
		// Two batches that wait must not have a key in common: the one that
		// is complete first would go first.
		if k = l.key(it.hash); k.open != nil && (k.open != g || k.openGroup != group || l.e.cfg.OnePerKey) {
			l.form(k.open, k.open.End(k.openGroup))
		}
	}
	g.items[it.rec] = it
	batches, err := g.Add(it.rec, now)
	if err != nil {
		delete(g.items, it.rec)
		l.fail(it, record.AsError(err), 1)
		return
	}
	for _, b := range batches {
		l.form(g, b)
	}
	if k != nil && it.unit == nil {
		l.setOpen(k, g, group)
	}
}

// form makes a unit of a batch that is complete; mu is held.
func (l *Lane) form(g *gatherer, b *batch.Batch) {
	items := make([]*item, len(b.Items))
	for i := range b.Items {
		it := g.items[b.Items[i].Record]
		delete(g.items, it.rec)
		items[i] = it
		if it.hash != 0 {
			l.setOpen(l.key(it.hash), nil, "")
		}
	}
	l.enqueue(newUnit(l, b, items...))
}
