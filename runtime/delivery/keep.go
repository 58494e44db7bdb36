package delivery

import (
	"slices"
	"time"

	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

// mayKeep reports whether a unit may be handed back to be kept; mu is held.
func (l *Lane) mayKeep(u *unit) bool {
	return !slices.ContainsFunc(u.items, func(it *item) bool { return !l.keeps(it) })
}

// keep hands a unit back to be kept until it is due, and with it what waits
// behind it; mu is held.
func (l *Lane) keep(u *unit, now time.Time) {
	for i, it := range u.items {
		k := l.keeping(it, now)
		k.Due = max(u.due.UnixMilli(), 1)
		k.Attempts, k.First = u.attempts, u.first.UnixMilli()
		k.Class, k.Code, k.Message, k.History = it.err.Class, it.err.Code, it.err.Message, it.history
		if k.Message == "" && it.err.Err != nil {
			k.Message = it.err.Err.Error()
		}
		k.Group, k.GroupIndex = "", 0
		if u.batch != nil {
			k.Group, k.GroupIndex = u.batch.ID, uint32(i)
		}
		l.handBack(it, k, it.err, false)
	}
	keys := u.keys
	if l.e.cfg.Order == flow.OrderKey {
		for _, h := range keys {
			l.parkBehind(u, h, !u.kept)
		}
	}
	l.remove(u)
}

// keeping is the entry of an item as far as it is known; mu is held.
func (l *Lane) keeping(it *item, now time.Time) *record.Retry {
	if it.retry != nil {
		k := *it.retry
		k.At = now.UnixMilli()
		return &k
	}
	k := &record.Retry{At: now.UnixMilli()}
	if l.e.cfg.Order == flow.OrderKey {
		k.Hold = it.hash
	}
	return k
}

// park hands back an item that must not go before others that are kept; mu is
// held.
func (l *Lane) park(it *item) {
	k := l.keeping(it, time.Now())
	k.Due = 0
	l.handBack(it, k, nil, true)
}

// handBack answers an item with an entry to be kept; mu is held.
func (l *Lane) handBack(it *item, k *record.Retry, err *record.Error, parked bool) {
	o := record.Outcome{Keep: k, Attempts: k.Attempts, History: k.History}
	if err != nil {
		o.Err = err
	}
	l.answer(it, o)
	if k.Hold == 0 || it.hash == 0 {
		return
	}
	own := l.key(it.hash)
	if it.retry == nil {
		own.held++
	} else {
		own.kept = append(own.kept, kept{it.rec.EmissionKey(), parked})
	}
}

// parkBehind hands back what waits behind a unit that is kept, by one of its
// keys: all of it, or, behind a unit that was kept before, only what was so
// too. mu is held.
func (l *Lane) parkBehind(first *unit, hash uint64, all bool) {
	k := l.key(hash)
	if all && k.open != nil {
		l.form(k.open, k.open.End(k.openGroup))
	}
	at := slices.Index(k.queue, first)
	for _, u := range slices.Clone(k.queue[at+1:]) {
		switch {
		case u.state == gone:
			continue
		case u.kept:
			l.parkKept(u)
			continue
		case !all:
			continue
		}
		var stay []int
		for i, it := range u.items {
			if it.hash != hash {
				stay = append(stay, i)
				continue
			}
			it.unit = nil
			l.follow(k, it)
		}
		if len(stay) == 0 {
			l.remove(u)
			continue
		}
		l.shrink(u, stay)
		if u.behind == 0 && u.state == blocked {
			l.release(u)
		}
	}
	if all {
		turns := k.turns
		l.setTurns(k, nil)
		for _, it := range turns {
			l.follow(k, it)
		}
	}
}

// parkKept hands back a unit that was kept before, as a whole, and those that
// were so and wait behind it; mu is held.
func (l *Lane) parkKept(u *unit) {
	if slices.ContainsFunc(u.items, func(it *item) bool { return it.retry.Hold == 0 }) {
		return // nothing follows it in the state
	}
	for _, it := range u.items {
		l.park(it)
	}
	for _, h := range slices.Clone(u.keys) {
		l.parkBehind(u, h, false)
	}
	l.remove(u)
}

// follow hands back an item of a key whose records are kept, or lets it wait
// for them where it cannot be kept; mu is held.
func (l *Lane) follow(k *key, it *item) {
	if len(k.tooLarge) > 0 || !l.keeps(it) {
		k.tooLarge = append(k.tooLarge, it)
		return
	}
	l.park(it)
}

// keeps reports whether an item may be handed back to be kept.
func (l *Lane) keeps(it *item) bool {
	cfg := &l.e.cfg
	return cfg.SpillAfter > 0 && cfg.Order != flow.OrderPartition && (it.retry != nil || it.rec.Size() <= cfg.MaxKeep)
}

// comesBack notes that a kept entry is under way again. If it was parked, the
// state has let it go since, and so it knew of those that were kept again before
// that; of those kept again later it need not have known. mu is held.
func (l *Lane) comesBack(it *item) {
	k := l.keys[it.hash]
	if k == nil {
		return
	}
	id := it.rec.EmissionKey()
	i := slices.IndexFunc(k.kept, func(o kept) bool { return o.id == id })
	if i < 0 {
		return
	}
	var stay []kept
	for n, o := range k.kept {
		if n != i && (n > i || !k.kept[i].parked || !less(o.id, id)) {
			stay = append(stay, o)
		}
	}
	k.kept = stay
}

// mustPark reports whether a kept entry came before one that it follows: the
// state had let both go, that one failed again, and the state did not know
// yet. mu is held.
func (l *Lane) mustPark(k *key, it *item) bool {
	if it.retry.Hold == 0 {
		return false
	}
	id := it.rec.EmissionKey()
	return slices.ContainsFunc(k.kept, func(o kept) bool { return less(o.id, id) })
}

func less(a, b record.EmissionKey) bool {
	return a.Offset < b.Offset || a.Offset == b.Offset && a.Path < b.Path
}
