package pipeline

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/millrace-io/millrace/runtime/ledger"
	"github.com/millrace-io/millrace/runtime/record"
)

func defaultRand() float64 { return rand.Float64() }

// errHalt ends a lane: the flow is paused or the lane fenced.
var errHalt = errors.New("lane halted")

// lane is the serial path of one partition. run is its goroutine; deliveries
// answer from others.
type lane struct {
	flow  *Flow
	cfg   LaneConfig
	seed  record.TraceSeed
	known map[record.EmissionKey]bool // read-only
	acker Acker                       // nil: the source is not told
	reuse Recycler                    // nil: batches are garbage
	wake  chan struct{}               // 1: inbox, room in the window, a new set, the end
	space chan struct{}               // 1: the inbox was emptied
	// outlets are the lane's ways into the deliveries; they are set before the
	// lane runs.
	outlets []Outlet
	closing sync.Once

	generation atomic.Uint32

	// fetching serialises pausing and resuming; it is taken before mu.
	fetching sync.Mutex

	mu        sync.Mutex
	win       window                         // guarded by mu
	inbox     []*record.Batch                // guarded by mu
	waiting   int                            // guarded by mu; records in inbox
	waitB     int                            // guarded by mu; their bytes
	paused    bool                           // guarded by mu; fetching
	last      bool                           // guarded by mu; the source has ended
	halted    bool                           // guarded by mu; takes no more records in
	fenced    bool                           // guarded by mu; settles nothing more
	ended     bool                           // guarded by mu; run has returned
	dirty     bool                           // guarded by mu
	lent      bool                           // guarded by mu; progress is being committed
	queue     []parcel                       // guarded by mu; for the next progress
	queueB    int                            // guarded by mu; bytes of queue and of what is being committed
	queued    uint64                         // guarded by mu; parcels that were ever in queue
	durable   uint64                         // guarded by mu; and how many of them are committed
	carried   Carried                        // guarded by mu; what they had
	grown     int64                          // guarded by mu; and by how much the entries grew
	low       int64                          // guarded by mu; as last collected
	ranges    []ledger.Range                 // guarded by mu; as last collected
	tally     Tally                          // guarded by mu; Flying is counted when it is asked for
	problem   string                         // guarded by mu
	repeat    int                            // guarded by mu; records still to be marked as redelivered
	out       int                            // guarded by mu; handed to somebody who has not answered
	idlers    []chan struct{}                // guarded by mu; closed when out is 0
	notices   []notice                       // guarded by mu; for acker
	behind    map[uint64][]follower          // guarded by mu; released when the key's slot is settled
	flights   map[uint64]*flight             // guarded by mu; kept entries under way by slot
	flightN   uint64                         // guarded by mu; how many there were
	flightB   int                            // guarded by mu; bytes of flights
	busy      map[record.EmissionKey]bool    // guarded by mu; kept entries that are under way or wait for a commit
	held      map[record.EmissionKey]heldRef // guarded by mu; kept entries that outlets count
	gathering map[string]int                 // guarded by mu; groups of which entries wait for a commit, and how many do
	backlog   bool                           // guarded by mu; see Flow.Behind
	arrived   []arrival                      // guarded by mu; flights that the lane has not looked at
	asides    []aside                        // guarded by mu; for topics of `otherwise`
	asiding   bool                           // guarded by mu; a goroutine sees to asides
	spares    []spare                        // guarded by mu; memory of shipments, the last one used at the end

	// Only the lane's goroutine uses what follows.
	course  *course
	bufs    []stageBuffer // by node
	passes  int           // how often emissions were passed on
	later   []deferred
	batch   *record.Batch // being processed
	at      int           // next record of batch
	spent   *record.Batch // all of it was taken in; given back once it was passed on
	slots   []uint64      // of the records being taken in
	tokens  int           // of the flow's rate, for so many records
	ready   time.Time     // when they may be used
	limited bool          // what may come in waits for ready
}

// stageBuffer is the memory of one node, reused by the lane.
type stageBuffer struct {
	in   input
	res  record.Results
	seen []bool
}

// deferred is a record that a stage asked to see again, in a flow that keeps
// no order.
type deferred struct {
	due, since time.Time
	node       int
	via        Stage // in place of the node's, or nil
	rec        record.Record
	slot       uint64
}

// follower is an emission that is dropped once another record is settled.
type follower struct {
	slot  uint64
	stage string
}

func newLane(f *Flow, cfg LaneConfig) *lane {
	l := &lane{flow: f, cfg: cfg, seed: record.NewTraceSeed(cfg.Partition),
		wake: make(chan struct{}, 1), space: make(chan struct{}, 1), low: cfg.Low, ranges: cfg.Ranges, repeat: cfg.MayRepeat}
	l.acker, _ = f.src.(Acker)
	l.reuse, _ = f.src.(Recycler)
	l.win = newWindow(cfg.Low, cfg.Ranges, l.acker != nil)
	if len(cfg.Known) > 0 {
		l.known = make(map[record.EmissionKey]bool, len(cfg.Known))
		for _, k := range cfg.Known {
			l.known[k] = true
		}
	}
	l.adopt()
	return l
}

// open makes the lane's outlets, before it runs.
func (l *lane) open(deliveries []Delivery) {
	holds := make([][]uint64, len(deliveries))
	for _, h := range l.cfg.Held {
		at, ok := l.course.at[h.Delivery]
		if n := &l.course.Nodes[at]; ok && n.Kind == KindDeliver {
			holds[n.Delivery] = append(holds[n.Delivery], h.Hold)
			l.setHeld(h.Key, heldRef{n.Delivery, h.Hold})
		}
	}
	l.outlets = make([]Outlet, len(deliveries))
	for i, d := range deliveries {
		l.outlets[i] = d.Open(l.cfg.Partition, holds[i])
	}
}

// closeOutlets is called once nothing is to be delivered any more.
func (l *lane) closeOutlets() {
	l.closing.Do(func() {
		for _, o := range l.outlets {
			o.Close()
		}
	})
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (l *lane) kick() { signal(l.wake) }

// adopt takes the flow's present set and marks the lane dirty when it is new.
// What waits before a node goes on before the node of that id.
func (l *lane) adopt() {
	c := l.flow.course.Load()
	if c == l.course {
		return
	}
	old := l.course
	l.course = c
	for len(l.bufs) < len(c.Nodes) {
		l.bufs = append(l.bufs, stageBuffer{})
	}
	l.mu.Lock()
	l.dirty = true
	l.mu.Unlock()
	if old != nil {
		l.move(old)
	}
	l.generation.Store(c.Generation)
}

// offer hands a fetched batch to the lane. When the lane is full it holds the
// poller up for a moment and then pauses the partition.
func (l *lane) offer(ctx context.Context, b *record.Batch) {
	size := b.Bytes()
	l.mu.Lock()
	if l.halted {
		l.mu.Unlock()
		return
	}
	l.inbox = append(l.inbox, b)
	l.waiting += len(b.Records)
	l.waitB += size
	l.mu.Unlock()
	l.kick()
	if !l.isFull() {
		return
	}
	stall := time.NewTimer(stallLimit)
	defer stall.Stop()
	for l.isFull() {
		select {
		case <-l.space:
		case <-ctx.Done():
			return
		case <-stall.C:
			l.pauseFetching()
			return
		}
	}
}

func (l *lane) isFull() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.full() && !l.halted
}

func (l *lane) pauseFetching() {
	l.fetching.Lock()
	defer l.fetching.Unlock()
	l.mu.Lock()
	pause := l.full() && !l.paused && !l.halted
	l.paused = l.paused || pause
	l.mu.Unlock()
	if pause {
		l.flow.src.Pause(l.cfg.Partition)
	}
}

// resumeFetching undoes pauseFetching once half of the inbox is free.
func (l *lane) resumeFetching() {
	l.fetching.Lock()
	defer l.fetching.Unlock()
	cfg := &l.flow.cfg
	l.mu.Lock()
	resume := l.paused && !l.halted && l.waiting <= cfg.InFlight/2 && l.waitB <= cfg.InFlightBytes/2
	if resume {
		l.paused = false
	}
	l.mu.Unlock()
	if resume {
		l.flow.src.Resume(l.cfg.Partition)
	}
}

// full reports whether the inbox holds as much as a window; mu is held.
func (l *lane) full() bool {
	return l.waiting >= l.flow.cfg.InFlight || l.waitB >= l.flow.cfg.InFlightBytes
}

// finish says that the source has ended: the lane ends once all is settled.
func (l *lane) finish() {
	l.mu.Lock()
	l.last = true
	l.mu.Unlock()
	l.kick()
}

// run processes batches until ctx ends, the lane halts, or everything is
// settled after the source's end.
func (l *lane) run(ctx context.Context) {
	for ctx.Err() == nil && !l.finished() {
		l.adopt()
		err := l.land(ctx)
		if err == nil {
			recs, slots, more := l.admit()
			switch {
			case len(recs) > 0:
				if err = l.begin(ctx, recs, slots); err == nil {
					l.recycle()
				}
			case l.dueNow():
				err = l.again(ctx)
			case !more: // else only the position moved
				l.wait(ctx)
			}
		}
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, errHalt) {
				l.halt(record.AsError(err).Error())
			}
			break
		}
	}
	l.mu.Lock()
	l.ended = true
	fenced := l.fenced
	l.mu.Unlock()
	if fenced {
		l.closeOutlets()
	}
}

// recycle gives a batch back after begin has passed on the last of it.
func (l *lane) recycle() {
	if l.spent != nil && l.reuse != nil {
		l.reuse.Recycle(l.spent)
	}
	l.spent = nil
}

// wait sleeps until there may be something to do.
func (l *lane) wait(ctx context.Context) {
	var due <-chan time.Time
	after := time.Duration(-1)
	if len(l.later) > 0 {
		after = max(0, l.later[0].due.Sub(l.flow.cfg.Now()))
	}
	if l.limited {
		if d := max(0, time.Until(l.ready)); after < 0 || d < after {
			after = d
		}
	}
	if after >= 0 {
		t := time.NewTimer(after)
		defer t.Stop()
		due = t.C
	}
	select {
	case <-l.wake:
	case <-due:
	case <-ctx.Done():
	}
}

func (l *lane) finished() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.halted || l.last && len(l.inbox) == 0 && l.batch == nil && l.win.records == 0 && len(l.flights) == 0
}

// admit takes the next records into the window. It returns none when there are
// none or no room; more tells that it is worth calling again at once.
func (l *lane) admit() (recs []record.Record, slots []uint64, more bool) {
	recs, slots, more, resume := l.take()
	if resume {
		l.resumeFetching()
	}
	l.flow.stats.In.Add(int64(len(recs)))
	return recs, slots, more
}

func (l *lane) take() (recs []record.Record, slots []uint64, more, resume bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limited = false
	if l.batch == nil {
		if len(l.inbox) == 0 {
			return nil, nil, false, false
		}
		l.batch, l.at = l.inbox[0], 0
		l.inbox[0] = nil
		l.inbox = l.inbox[1:]
	}
	cfg := &l.flow.cfg
	left := l.batch.Records[l.at:]
	n := min(len(left), l.flow.callSize())
	if l.queueB >= cfg.InFlightBytes || l.backlog || l.flow.isHeld() { // entries wait for a commit
		return nil, nil, false, false
	}
	if l.win.records+n > cfg.InFlight || l.win.ledger.InFlight()+n > max(maxSpan, 2*cfg.InFlight) {
		return nil, nil, false, false
	}
	if cfg.Records != nil && n > 0 {
		if n = l.allowed(cfg.Records, n); n == 0 {
			l.limited = true
			return nil, nil, false, false
		}
		l.tokens = 0
	}
	slots = l.slots[:0]
	recs = left[:0]
	taken := 0
	for i := range left[:n] {
		r := left[i]
		size := r.Size()
		if l.win.records > 0 && l.win.bytes+size > cfg.InFlightBytes {
			break
		}
		taken++
		l.waiting--
		l.waitB -= size
		if l.win.ledger.Done(r.Offset) { // settled by an earlier owner
			l.win.ledger.Advance(r.Offset + 1)
			continue
		}
		if l.repeat > 0 {
			l.repeat--
			r.Redelivered = true
		}
		if r.Trace.IsZero() {
			r.Trace = l.seed.Trace(r.Offset)
		}
		slots = append(slots, l.win.add(r.Offset, size))
		recs = append(recs, r)
	}
	if taken == 0 && len(left) > 0 {
		return nil, nil, false, false
	}
	l.at += taken
	if l.at == len(l.batch.Records) {
		l.win.ledger.Advance(l.batch.Next)
		l.spent, l.batch = l.batch, nil
	}
	l.tally.Read += int64(len(recs))
	l.slots = slots
	l.dirty = true
	signal(l.space)
	return recs, slots, true, l.paused
}

// allowed is how many of n records the flow's rate lets through now. Those that
// it lets through later are remembered, so that lanes take turns.
func (l *lane) allowed(limit *rate.Limiter, n int) int {
	now := time.Now()
	if l.tokens == 0 {
		k := min(n, limit.Burst())
		r := limit.ReserveN(now, k)
		if k == 0 || !r.OK() { // it limits nothing
			return n
		}
		l.tokens, l.ready = k, now.Add(r.DelayFrom(now))
	}
	if now.Before(l.ready) {
		return 0
	}
	return min(n, l.tokens)
}
