package daemon

import (
	"context"
	"slices"
	"time"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/runtime/pipeline"
	"github.com/millrace-io/millrace/runtime/record"
)

const (
	// retryPage is how many kept entries are read at once. They may have 1 MiB
	// each.
	retryPage = 64
	// retryLook is the longest time between two looks at what is due. It
	// bounds how late a clock that was set forward is noticed.
	retryLook = 5 * time.Second
	// maxGroup is the largest batch whose records come back together.
	maxGroup = 16 << 10
	// lookPages is how many pages of a partition one look reads, lookAgain when
	// the next one comes if that was not all.
	lookPages = 16
	lookAgain = 50 * time.Millisecond
	// lookBlocked is the time between two looks while a partner is down.
	lookBlocked = time.Second
	// maxDue is later than any due time.
	maxDue = 1<<48 - 1
	// clockSlack is how far a clock may be off before it counts as set back.
	clockSlack = time.Second
)

// run brings the kept entries of the runner's partitions back into their
// lanes in time, until ctx ends.
func (s *retrying) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-s.r.due:
		}
		next, err := s.look(ctx)
		if err != nil {
			if ctx.Err() == nil {
				s.r.log.Warn("kept records cannot be read; tried again", "err", err)
			}
			next = reopenAfter
		}
		timer.Reset(next)
	}
}

func newRetrying(r *runner, pipe *pipeline.Flow) *retrying {
	return &retrying{r: r, pipe: pipe, clock: newClock(), via: map[viaKey]boundPlugin{}, paused: map[uint32]looking{}}
}

// retrying is the state of a runner's retries. One goroutine uses it.
type retrying struct {
	r     *runner
	pipe  *pipeline.Flow
	clock *wallClock
	via   map[viaKey]boundPlugin
	// room is how many requests may be made of kept entries, by the id of a
	// delivery whose partner is believed to be down; of the others any number.
	room map[string]int
	// group is the batch that was last let through by room.
	group string
	// paused are looks at partitions that have more entries to pass over than
	// one look does.
	paused map[uint32]looking
}

type viaKey struct{ stage, digest string }

// look gives every lane what is due, and says when to look again. Entries for a
// delivery whose partner is believed to be down stay where they are, but for a
// single one where nothing else would find out that it is back.
func (s *retrying) look(ctx context.Context) (time.Duration, error) {
	now, back := s.clock.look(time.Now())
	if back {
		s.r.log.Warn("the system's clock was set back; records kept before are due at once")
		s.r.skewAll()
	}
	s.room, s.group = s.r.outs.room(), ""
	next := now + retryLook.Milliseconds()
	if len(s.room) > 0 {
		next = now + lookBlocked.Milliseconds()
	}
	for p, lane := range s.pipe.Status() {
		due, err := s.lane(ctx, p, lane.Ownership.Part, now)
		if err != nil {
			return 0, err
		}
		if due > 0 {
			next = min(next, due)
		}
	}
	return time.Duration(max(next-now, 1)) * time.Millisecond, nil
}

// lane gives a lane what is due of its partition, and says when to look again,
// 0 if there is nothing to look for.
func (s *retrying) lane(ctx context.Context, p record.Partition, part uint32, now int64) (due int64, err error) {
	l := looking{}
	skewed := s.r.skewedPart(part)
	if len(s.room) > 0 || skewed {
		l = s.paused[part]
	}
	delete(s.paused, part)
	l.now, l.upTo, l.due, l.skewed = now, now, 0, skewed
	if l.passed == nil {
		l.passed = map[uint64]bool{}
	}
	if skewed {
		l.upTo = maxDue
	}
	for page := 1; ; page++ {
		full, stuffed, taken, entries, err := s.page(ctx, p, part, &l)
		if err != nil {
			return 0, err
		}
		switch {
		case stuffed, full && page > 1 && taken == 0 && entries > 0:
			s.pipe.Behind(p, true)
			return l.due, nil // the lane takes no more; its commits wake us
		case !full:
			if l.skewed && !l.ahead {
				s.r.unskew(part)
			}
			s.pipe.Behind(p, false)
			return l.due, nil
		case page == lookPages:
			s.pipe.Behind(p, entries > 0)
			if len(s.room) > 0 || l.skewed {
				s.paused[part] = l
			}
			return now + lookAgain.Milliseconds(), nil
		}
	}
}

// page reads a page of a partition's entries and gives those that are to be
// tried to the lane, which takes some of them. full: there may be more; stuffed:
// the lane has no room for them.
//
// No entry may be acknowledged as done or kept anew between the two, or what
// was read of it would be tried once more.
func (s *retrying) page(ctx context.Context, p record.Partition, part uint32, l *looking) (full, stuffed bool, taken, entries int, err error) {
	for limit := retryPage; ; {
		s.r.keeping.Lock()
		page, last, next, err := s.r.d.store.RetryDue(s.r.id, part, l.upTo, l.after, limit)
		if err != nil {
			s.r.keeping.Unlock()
			return false, false, 0, 0, err
		}
		if full = len(page) == limit; full {
			n := wholeGroups(page)
			if n == 0 && limit < maxGroup { // a batch is larger than the page
				s.r.keeping.Unlock()
				limit *= 2
				continue
			}
			if n > 0 && n < len(page) {
				page = page[:n]
				e := page[n-1]
				last = state.RetryCursor{Due: e.Due, Offset: e.Input.Offset, Path: e.Input.Path}
			}
		} else if !l.skewed {
			l.due = earlier(l.due, next)
		}
		if key, ok := s.unbound(page); ok {
			s.r.keeping.Unlock()
			if err := s.bind(ctx, key); err != nil {
				return false, false, 0, 0, err
			}
			continue
		}
		l.after = last
		page = s.choose(l, page)
		taken, stuffed := s.inject(p, page, l.passed)
		s.r.keeping.Unlock()
		return full, stuffed, taken, len(page), nil
	}
}

// looking is a look at the entries of one partition.
type looking struct {
	now, upTo int64
	after     state.RetryCursor
	// skewed: entries were written by a clock that was set back since; those
	// that are ahead of it are due.
	skewed, ahead bool
	due           int64 // of the next entry that is not; 0: none
	// passed are the Holds of entries that were not to be tried: what follows
	// one of them must not go before it.
	passed map[uint64]bool
}

func earlier(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// choose takes those out of a page that are not to be tried now.
func (s *retrying) choose(l *looking, page []*record.Retry) []*record.Retry {
	return slices.DeleteFunc(page, func(e *record.Retry) bool {
		if e.Hold == 0 {
			return !s.mayGo(l, e)
		}
		if !l.passed[e.Hold] && s.mayGo(l, e) {
			return false
		}
		l.passed[e.Hold] = true
		return true
	})
}

// mayGo reports whether an entry is to be tried now.
func (s *retrying) mayGo(l *looking, e *record.Retry) bool {
	if l.skewed {
		ahead := e.At > l.now+clockSlack.Milliseconds()
		l.ahead = l.ahead || ahead
		if e.Due > l.now && !ahead {
			l.due = earlier(l.due, e.Due)
			return false
		}
	}
	return s.mayTry(e)
}

// mayTry reports whether a delivery has room for another request, and takes it.
func (s *retrying) mayTry(e *record.Retry) bool {
	room, limited := s.room[e.Stage]
	switch {
	case !limited, e.Group != "" && e.Group == s.group:
		return true
	case room == 0:
		return false
	}
	s.room[e.Stage], s.group = room-1, e.Group
	return true
}

// wholeGroups is how many entries of a page stand before the batches that its
// end may have cut: the members of one are due at the same time.
func wholeGroups(page []*record.Retry) int {
	last := page[len(page)-1].Due
	at := slices.IndexFunc(page, func(e *record.Retry) bool { return e.Due == last && e.Group != "" })
	if at < 0 {
		return len(page)
	}
	return at
}

// inject hands entries to a lane, with the plugins that they are to pass, and
// returns how many it took.
func (s *retrying) inject(p record.Partition, entries []*record.Retry, passed map[uint64]bool) (taken int, full bool) {
	for len(entries) > 0 {
		first, n := entries[0], 1
		for n < len(entries) && entries[n].Via == first.Via && (first.Via == "" || entries[n].Stage == first.Stage) {
			n++
		}
		var via map[string]pipeline.Stage
		if first.Via != "" {
			via = map[string]pipeline.Stage{first.Via: s.via[viaKey{first.Stage, first.Via}].st}
		}
		some, full := s.pipe.Inject(p, entries[:n], via, passed)
		if taken += some; full {
			return taken, true
		}
		entries = entries[n:]
	}
	return taken, false
}

// unbound finds a plugin that entries are to pass and that is not bound yet.
func (s *retrying) unbound(entries []*record.Retry) (viaKey, bool) {
	for _, e := range entries {
		key := viaKey{e.Stage, e.Via}
		if _, ok := s.via[key]; e.Via != "" && !ok {
			return key, true
		}
	}
	return viaKey{}, false
}

// bind binds a plugin that stands in for a stage's own. The error is ctx's.
func (s *retrying) bind(ctx context.Context, key viaKey) error {
	b, err := s.r.bindVia(ctx, key)
	s.via[key] = b
	return err
}

// close lets go of plugins; the pipeline must have ended.
func (s *retrying) close(ctx context.Context) {
	for key, b := range s.via {
		s.r.unbind(ctx, []boundPlugin{b})
		delete(s.via, key)
	}
}

// wallClock is the system's clock, watched for being set back: waiting goes by
// the monotonic one, but due times are kept as the time of day.
type wallClock struct {
	base  time.Time
	drift time.Duration // of the time of day against the monotonic clock
}

func newClock() *wallClock { return &wallClock{base: time.Now()} }

// look is the time of day in Unix milliseconds, and whether it was set back
// since the look before.
func (c *wallClock) look(now time.Time) (ms int64, back bool) {
	drift := now.Round(0).Sub(c.base.Round(0)) - now.Sub(c.base)
	back = drift < c.drift-clockSlack
	c.drift = drift
	return now.UnixMilli(), back
}
