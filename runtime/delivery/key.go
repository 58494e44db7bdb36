package delivery

import (
	"time"

	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

// key is what a lane knows about one key, or in OrderPartition about all.
type key struct {
	// queue are the units with records of the key, in order. The first one may
	// be under way.
	queue []*unit
	// open is the gatherer and the group that have records of the key which
	// are in no unit yet.
	open      *gatherer
	openGroup string
	// turns, with OnePerKey, are those from the source that wait until no other
	// of the key is in a batch.
	turns []*item
	// held is how many records of the key are kept in the state; while it is
	// above 0 later ones follow them there.
	held int
	// tooLarge wait here for held to be 0, and all of the key that came after
	// the first of them.
	tooLarge []*item
	// kept are those which came back from the state, failed and were kept
	// again. Later ones must not go before them.
	kept []kept
	// barred: a record of the key could not be delivered, and the flow is about
	// to pause.
	barred bool
}

// kept names an entry that was kept again.
type kept struct {
	id     record.EmissionKey
	parked bool // without an attempt
}

// hash is what orders a record.
func (l *Lane) hash(r *record.Record) uint64 {
	if l.e.cfg.Order == flow.OrderPartition {
		return 1
	}
	return Hold(l.e.cfg.ID, r)
}

// key finds or makes what is known about a key; mu is held.
func (l *Lane) key(hash uint64) *key {
	k := l.keys[hash]
	if k == nil {
		k = &key{}
		l.keys[hash] = k
	}
	return k
}

// tidy forgets a key that nothing is known about; mu is held.
func (l *Lane) tidy(hash uint64) {
	if k := l.keys[hash]; k != nil && len(k.queue) == 0 && k.open == nil && len(k.turns) == 0 && k.held == 0 && len(k.tooLarge) == 0 && len(k.kept) == 0 && !k.barred {
		delete(l.keys, hash)
	}
}

// nextTurn lets the next item of a key into a batch, once none of the key is in
// one; mu is held.
func (l *Lane) nextTurn(hash uint64) {
	for {
		k := l.keys[hash]
		if k == nil || len(k.turns) == 0 || k.open != nil || len(k.queue) > 0 {
			return
		}
		it, rest := k.turns[0], k.turns[1:]
		l.setTurns(k, nil)
		l.admit(it, nil, nil, time.Now())
		if len(rest) > 0 {
			k = l.key(hash) // it may have been forgotten meanwhile
			l.setTurns(k, rest)
		}
	}
}

// setTurns and setOpen change a key, and count those keys with an item in a
// batch that gathers and another one behind it; mu is held.
func (l *Lane) setTurns(k *key, turns []*item) {
	l.crowd -= k.crowds()
	k.turns = turns
	l.crowd += k.crowds()
}

func (l *Lane) setOpen(k *key, g *gatherer, group string) {
	l.crowd -= k.crowds()
	k.open, k.openGroup = g, group
	l.crowd += k.crowds()
}

func (k *key) crowds() int {
	if k.open != nil && len(k.turns) > 0 {
		return 1
	}
	return 0
}

// hurry ends the batches that gather when half of what is in them has another
// one of its key behind it: a stream of few keys would wait in vain for more.
// mu is held.
func (l *Lane) hurry() {
	if l.crowd == 0 {
		return
	}
	if n, _ := l.fresh.Waiting(); 2*l.crowd < n {
		return
	}
	for _, b := range l.fresh.Flush() {
		l.form(l.fresh, b)
	}
}
