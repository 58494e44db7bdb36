package pipeline

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

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
	filed map[FiledKey]bool // read-only
	wake  chan struct{}     // 1: inbox, room in the window, a new set, the end
	space chan struct{}     // 1: the inbox was emptied

	generation atomic.Uint32

	// fetching serialises pausing and resuming; it is taken before mu.
	fetching sync.Mutex

	mu      sync.Mutex
	win     window          // guarded by mu
	inbox   []*record.Batch // guarded by mu
	waiting int             // guarded by mu; records in inbox
	waitB   int             // guarded by mu; their bytes
	paused  bool            // guarded by mu; fetching
	last    bool            // guarded by mu; the source has ended
	halted  bool            // guarded by mu; takes no more records in
	fenced  bool            // guarded by mu; settles nothing more
	dirty   bool            // guarded by mu
	lent    bool            // guarded by mu; progress is being committed
	entries []*record.Entry // guarded by mu; filed, not yet collected
	entryB  int             // guarded by mu; their bytes, with those being committed
	low     int64           // guarded by mu; as last committed
	ranges  []ledger.Range  // guarded by mu; as last committed
	problem string          // guarded by mu
	repeat  int             // guarded by mu; records still to be marked as redelivered
	out     int             // guarded by mu; handed to the delivery, unanswered
	idlers  []chan struct{} // guarded by mu; closed when out is 0

	// Only the lane's goroutine uses what follows.
	set   *Set
	bufs  []stageBuffer
	later []deferred
	batch *record.Batch // being processed
	at    int           // next record of batch
}

// stageBuffer is the memory of one stage's answer, reused by the lane.
type stageBuffer struct {
	res   record.Results
	recs  []record.Record
	slots []uint64
	seen  []bool
}

// deferred is a record that a stage asked to see again, in a flow that keeps
// no order.
type deferred struct {
	due, since time.Time
	depth      int
	rec        record.Record
	slot       uint64
}

func newLane(f *Flow, cfg LaneConfig) *lane {
	l := &lane{flow: f, cfg: cfg, seed: record.NewTraceSeed(cfg.Partition), win: newWindow(cfg.Low, cfg.Ranges),
		wake: make(chan struct{}, 1), space: make(chan struct{}, 1), low: cfg.Low, ranges: cfg.Ranges, repeat: cfg.MayRepeat}
	if len(cfg.Filed) > 0 {
		l.filed = make(map[FiledKey]bool, len(cfg.Filed))
		for _, k := range cfg.Filed {
			l.filed[k] = true
		}
	}
	l.adopt()
	return l
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (l *lane) kick() { signal(l.wake) }

// adopt takes the flow's present set and marks the lane dirty when it is new.
func (l *lane) adopt() {
	set := l.flow.set.Load()
	if set == l.set {
		return
	}
	l.set = set
	for len(l.bufs) <= len(set.Stages) {
		l.bufs = append(l.bufs, stageBuffer{})
	}
	l.mu.Lock()
	l.dirty = true
	l.mu.Unlock()
	l.generation.Store(set.Generation)
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
		recs, slots, more := l.admit()
		var err error
		switch {
		case len(recs) > 0:
			err = l.stage(ctx, 0, recs, slots)
		case l.dueNow():
			err = l.again(ctx)
		case !more: // else only the position moved
			l.wait(ctx)
		}
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, errHalt) {
				l.halt(record.AsError(err).Error())
			}
			return
		}
	}
}

// wait sleeps until there may be something to do.
func (l *lane) wait(ctx context.Context) {
	var due <-chan time.Time
	if len(l.later) > 0 {
		t := time.NewTimer(max(0, l.later[0].due.Sub(l.flow.cfg.Now())))
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
	return l.halted || l.last && len(l.inbox) == 0 && l.batch == nil && l.win.records == 0
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
	if l.entryB >= cfg.InFlightBytes { // failures wait for a commit
		return nil, nil, false, false
	}
	if l.win.records+n > cfg.InFlight || l.win.ledger.InFlight()+n > max(maxSpan, 2*cfg.InFlight) {
		return nil, nil, false, false
	}
	buf := &l.bufs[0]
	buf.slots = buf.slots[:0]
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
		buf.slots = append(buf.slots, l.win.add(r.Offset, size))
		recs = append(recs, r)
	}
	if taken == 0 && len(left) > 0 {
		return nil, nil, false, false
	}
	l.at += taken
	if l.at == len(l.batch.Records) {
		l.win.ledger.Advance(l.batch.Next)
		l.batch = nil
	}
	l.dirty = true
	signal(l.space)
	return recs, buf.slots, true, l.paused
}

// stage passes records through the stages from depth on, and delivers them.
func (l *lane) stage(ctx context.Context, depth int, recs []record.Record, slots []uint64) error {
	if depth == len(l.set.Stages) {
		return l.deliver(ctx, slices.Clone(recs), slices.Clone(slots))
	}
	buf := &l.bufs[depth]
	buf.res.Reset()
	if err := l.call(ctx, depth, recs, &buf.res); err != nil {
		return err
	}
	return l.answer(ctx, depth, recs, slots, &buf.res, l.flow.cfg.Now())
}

func (l *lane) call(ctx context.Context, depth int, recs []record.Record, out *record.Results) error {
	start := time.Now()
	b := record.Batch{Partition: l.cfg.Partition, Records: recs, Now: l.flow.cfg.Now().UnixMilli()}
	err := l.set.Stages[depth].Process(ctx, &b, out)
	l.flow.stats.Stages[depth].call(len(recs), time.Since(start))
	return err
}

// answer carries out what a stage answered to recs. since is when the first
// attempt was made.
func (l *lane) answer(ctx context.Context, depth int, recs []record.Record, slots []uint64, res *record.Results, since time.Time) error {
	st := &l.flow.stats.Stages[depth]
	l.account(depth, recs, slots, res)
	if n := len(res.Drops); n > 0 {
		l.flow.stats.Dropped.Add(int64(n))
		st.Drops.Add(int64(n))
	}
	var again []record.Failure
	for _, f := range res.Failures {
		if f.Err.Class.Transient() {
			again = append(again, f)
			continue
		}
		st.Failures.Add(1)
		if err := l.fail(l.set, &l.set.Stages[depth].StageInfo, &recs[f.In], slots[f.In], f); err != nil {
			return err
		}
	}
	if len(again) == 0 {
		return l.pass(ctx, depth, res.Emits, slots)
	}
	slices.SortFunc(again, func(a, b record.Failure) int { return int(a.In - b.In) })
	if l.flow.cfg.Order == OrderNone {
		for _, f := range again {
			if err := l.deferRecord(depth, recs[f.In], slots[f.In], f, since); err != nil {
				return err
			}
		}
		return l.pass(ctx, depth, res.Emits, slots)
	}
	// What lies before a record that waits goes on; what lies behind waits
	// with it. The stage's buffers are in use by the records that wait, so
	// they go on from copies.
	emits, slots, recs := slices.Clone(res.Emits), slices.Clone(slots), slices.Clone(recs)
	for _, f := range again {
		cut := 0
		for cut < len(emits) && emits[cut].In < f.In {
			cut++
		}
		if err := l.pass(ctx, depth, emits[:cut], slots); err != nil {
			return err
		}
		emits = emits[cut:]
		if err := l.insist(ctx, depth, recs[f.In], slots[f.In], f, since); err != nil {
			return err
		}
	}
	return l.pass(ctx, depth, emits, slots)
}

// account notes the emissions that a stage made of each record. Of a unit all
// are made of one, which the dropped ones follow.
func (l *lane) account(depth int, recs []record.Record, slots []uint64, res *record.Results) {
	buf := &l.bufs[depth]
	buf.seen = append(buf.seen[:0], make([]bool, len(recs))...)
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range res.Emits {
		in := res.Emits[i].In
		if buf.seen[in] {
			l.win.hold(slots[in], 1)
		}
		buf.seen[in] = true // the first emission takes the record's own place
	}
	for _, in := range res.Drops {
		if res.Unit && len(res.Emits) > 0 && l.win.follow(slots[res.Emits[0].In], slots[in]) {
			continue
		}
		l.win.release(slots[in])
	}
	if len(res.Drops) > 0 {
		l.settled()
	}
}

// pass hands emissions to the next stage or the delivery, which counts its own
// attempts.
func (l *lane) pass(ctx context.Context, depth int, emits []record.Emit, slots []uint64) error {
	if len(emits) == 0 {
		return nil
	}
	last := depth+1 == len(l.set.Stages)
	next := &l.bufs[depth+1]
	recs, nextSlots := next.recs[:0], next.slots[:0]
	if last { // a shipment keeps its records
		recs, nextSlots = make([]record.Record, 0, len(emits)), make([]uint64, 0, len(emits))
	}
	for i := range emits {
		recs = append(recs, emits[i].Record)
		recs[i].Attempt = 1
		nextSlots = append(nextSlots, slots[emits[i].In])
	}
	if last {
		return l.deliver(ctx, recs, nextSlots)
	}
	next.recs, next.slots = recs, nextSlots
	return l.stage(ctx, depth+1, recs, nextSlots)
}
