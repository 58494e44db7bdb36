//go:build linux

package faulttest

import (
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/twin"
)

// kind is what is to become of an order.
type kind uint8

const (
	toArrive kind = iota
	toDrop        // by the flow's filter
	toReject      // by the partner, for good
)

// kindOf says it by the order's number: one of 41 is dropped, one of 97
// rejected.
func kindOf(number int) kind {
	switch {
	case number%41 == 0:
		return toDrop
	case number%97 == 0:
		return toReject
	}
	return toArrive
}

// death is a kill of the node: when it was asked for, and when the next life
// was ready. What arrives between the two may be the dead one's, on its way in
// sockets.
type death struct{ asked, back time.Time }

// die kills the node.
func (r *rig) die() death {
	d := death{asked: time.Now()}
	r.node.kill()
	return d
}

// rise starts the life after a death.
func (r *rig) rise(d *death) {
	r.run()
	d.back = time.Now()
}

// arrival is what a partner saw of an order.
type arrival struct {
	key   string
	times int // that it was applied
	// first is when the request that was applied first had come, and seq and
	// place say in which order the partner applied it; again is when the last
	// of the others came.
	first, again time.Time
	seq          int64
	place        int
	requests     []string // that applied it
}

// partner is a twin that the test looks into.
type partner struct {
	*twin.Twin
	addr string

	mu       sync.Mutex
	orders   []arrival      // guarded by mu; by number
	unsigned map[string]int // guarded by mu; requests by what was wrong with their signature
	strange  []string       // guarded by mu
	requests []time.Time    // guarded by mu
}

// newPartner serves the twin of a document until the test ends.
func newPartner(t *testing.T, document string, orders int) *partner {
	t.Helper()
	file, err := twin.Parse("partner.yaml", []byte(document))
	if err != nil {
		t.Fatal(err)
	}
	p := &partner{orders: make([]arrival, orders), unsigned: map[string]int{}}
	if p.Twin, err = twin.New(file, twin.Options{Observe: p.observe}); err != nil {
		t.Fatal(err)
	}
	s, err := p.Listen(freeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	p.addr = s.Addr()
	done := make(chan error, 1)
	go func() { done <- s.Run(t.Context()) }() // its context ends before the cleanups run
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return p
}

func (p *partner) observe(o twin.Observation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests = append(p.requests, o.Time)
	if o.Signature != "" && o.Signature != "ok" {
		p.unsigned[o.Signature]++
	}
	if o.Mismatch || o.Outcome == twin.OutcomeBadRequest || o.Error != "" {
		p.strange = append(p.strange, fmt.Sprintf("request %d: %s, mismatch %v %s", o.Seq, o.Outcome, o.Mismatch, o.Error))
	}
	// Of a request that was applied before, what is tried again may be applied
	// now: the items tell.
	for place, it := range o.Items {
		if !it.Applied {
			continue
		}
		n, err := strconv.Atoi(it.ID)
		if err != nil || n < 0 || n >= len(p.orders) {
			p.strange = append(p.strange, fmt.Sprintf("request %d: applied an item %q", o.Seq, it.ID))
			continue
		}
		a := &p.orders[n]
		a.times++
		a.requests = append(a.requests, fmt.Sprintf("%d with key %s", o.Seq, o.IdempotencyKey))
		// Observations come when exchanges end; the order is that of Seq.
		if a.times == 1 {
			a.key, a.first, a.seq, a.place = it.Key, o.Time, o.Seq, place
			continue
		}
		if o.Seq < a.seq {
			a.again, a.first, a.seq, a.place = a.first, o.Time, o.Seq, place
		} else {
			a.again = o.Time
		}
	}
}

// judged is what became of all orders.
type judged struct {
	in, arrived, rejected, dropped         int
	lost, misfiled, unexpected             int
	repeated, unexplained, outOfOrder, bad int
	examples                               []string
}

func (j *judged) String() string {
	return fmt.Sprintf("%d in, %d arrived, %d rejected, %d dropped, %d lost, %d out of order, %d applied again (%d without a kill between)",
		j.in, j.arrived, j.rejected, j.dropped, j.lost, j.outOfOrder, j.repeated, j.unexplained)
}

func (j *judged) example(format string, args ...any) {
	if len(j.examples) < maxExamples {
		j.examples = append(j.examples, fmt.Sprintf(format, args...))
	}
}

// judge holds what the partner saw, and the numbers in the failure queue,
// against what was to become of the orders. An order may be applied twice
// where the node was killed between.
func (p *partner) judge(filed []failure, kills []death) *judged {
	p.mu.Lock()
	defer p.mu.Unlock()
	j := &judged{in: len(p.orders)}
	inQueue := make([]int, len(p.orders))
	for _, f := range filed {
		if f.number < 0 || f.number >= len(inQueue) {
			j.misfiled++
			j.example("an entry of order %d: %s", f.number, f.message)
			continue
		}
		inQueue[f.number]++
		if kindOf(f.number) != toReject {
			j.misfiled++
			j.example("order %d is in the failure queue: %s", f.number, f.message)
		}
	}
	type last struct {
		number int
		seq    int64
		place  int
	}
	latest := map[string]last{}
	for n := range p.orders {
		a := &p.orders[n]
		switch k := kindOf(n); {
		case k == toArrive && a.times > 0:
			j.arrived++
		case k == toReject && inQueue[n] == 1 && a.times == 0:
			j.rejected++
		case k == toDrop && inQueue[n] == 0 && a.times == 0:
			j.dropped++
		case a.times == 0 && inQueue[n] == 0:
			j.lost++
			j.example("order %d is lost", n)
		default:
			j.unexpected++
			j.example("order %d was applied %d times and is %d times in the failure queue", n, a.times, inQueue[n])
		}
		if a.times == 0 {
			continue
		}
		if a.times > 1 {
			j.repeated++
			if !slices.ContainsFunc(kills, func(k death) bool { return !k.back.Before(a.first) && !k.asked.After(a.again) }) {
				j.unexplained++
				j.example("order %d was applied %d times, at %s and %s, and no kill lies between: %v", n, a.times, a.first.Format(time.StampMilli), a.again.Format(time.StampMilli), a.requests)
			}
		}
		if before, ok := latest[a.key]; ok && (a.seq < before.seq || a.seq == before.seq && a.place < before.place) {
			j.outOfOrder++
			j.example("order %d of %s was applied in request %d, order %d before it in %d", n, a.key, a.seq, before.number, before.seq)
		}
		if before := latest[a.key]; before.seq <= a.seq {
			latest[a.key] = last{n, a.seq, a.place}
		}
	}
	j.bad = len(p.strange)
	for _, s := range p.strange[:min(len(p.strange), 3)] {
		j.example("%s", s)
	}
	for how, n := range p.unsigned {
		j.bad += n
		j.example("%d requests with a signature that is %s", n, how)
	}
	return j
}

// check fails the test for every broken promise.
func (j *judged) check(t *testing.T) {
	t.Helper()
	t.Log(j)
	if j.lost+j.misfiled+j.unexpected+j.unexplained+j.outOfOrder+j.bad > 0 {
		t.Errorf("promises were broken: %d lost, %d misfiled, %d unexpected, %d applied again without reason, %d out of order, %d bad requests", j.lost, j.misfiled, j.unexpected, j.unexplained, j.outOfOrder, j.bad)
		for _, e := range j.examples {
			t.Error(e)
		}
	}
	if j.arrived == 0 || j.rejected == 0 || j.dropped == 0 {
		t.Errorf("the load was none: %s", j)
	}
}
