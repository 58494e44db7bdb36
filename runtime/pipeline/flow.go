package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/millrace-io/millrace/runtime/record"
)

// Defaults of Config.
const (
	DefaultInFlight      = 1000
	DefaultInFlightBytes = 16 << 20
	DefaultDrainLimit    = 10 * time.Second
	// maxSpan bounds how far the newest record in flight is ahead of the
	// oldest unsettled one, counted in records.
	maxSpan = 8192
	// maxCall is how many records go to a stage in one call.
	maxCall = 256
	// urgeBytes of entries ask for a commit at once: some 200 of the smallest.
	urgeBytes = 64 << 10
	// stallLimit is how long a full lane may hold up the poller before its
	// partition is paused. A pause throws fetched records away, so a lane
	// that is only busy must not cause one.
	stallLimit = 100 * time.Millisecond
	// DefaultKeepInput is the default of Config.KeepInput.
	DefaultKeepInput = 1 << 20
	// maxProgress is how many bytes of entries one Progress holds; a larger
	// parcel travels alone.
	maxProgress = 512 << 10
)

// Config describes a flow. The zero value of a field is its default.
type Config struct {
	// Flow is {project}/{name}; UID, Revision and Generation go into failure
	// entries.
	Flow       string
	UID        uint64
	Revision   uint32
	Generation uint32
	Order      Order
	// InFlight is the most unsettled records of a lane, InFlightBytes their
	// bytes. A larger record travels alone.
	InFlight      int
	InFlightBytes int
	// KeepInput is the largest value that a failure entry keeps, and how many
	// bytes its key and headers may have together; of larger ones the entry has
	// the hash. A source that cannot be read again wants all of them kept.
	KeepInput int
	// DrainLimit is how long a soft stop waits for what is under way.
	DrainLimit time.Duration
	// Records is how many records a second the flow takes in, over all its
	// lanes: see NewLimiter. nil is no limit.
	Records *rate.Limiter
	// Tell is called for a record that cannot go on, before it gets its owner.
	// It must not block; done is called once, by any goroutine, with what went
	// wrong or "". ctx ends after 10 s, and the record waits no longer. At most
	// 64 records of the flow are told of at the same time: the others are not.
	Tell func(ctx context.Context, e *record.Entry, done func(told string))
	// Urge asks the owner to collect progress soon; it must not block.
	Urge func()
	// Pause tells the owner that the flow cannot go on, once; it must not
	// block. The lane concerned has stopped.
	Pause func(reason string)
	// Now is the clock, Rand a source of numbers in [0, 1); nil: the system's.
	Now    func() time.Time
	Rand   func() float64
	Logger *slog.Logger
}

func (c *Config) defaults() {
	if c.InFlight <= 0 {
		c.InFlight = DefaultInFlight
	}
	if c.InFlightBytes <= 0 {
		c.InFlightBytes = DefaultInFlightBytes
	}
	if c.KeepInput <= 0 {
		c.KeepInput = DefaultKeepInput
	}
	if c.DrainLimit <= 0 {
		c.DrainLimit = DefaultDrainLimit
	}
	if c.Urge == nil {
		c.Urge = func() {}
	}
	if c.Pause == nil {
		c.Pause = func(string) {}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = defaultRand
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// Flow runs the lanes of one flow on this node.
type Flow struct {
	cfg        Config
	src        Source
	deliveries []Delivery
	course     atomic.Pointer[course]
	held       atomic.Pointer[string] // why lanes take nothing in
	telling    atomic.Int64
	stats      Stats

	mu      sync.Mutex
	lanes   map[record.Partition]*lane // guarded by mu
	ctx     context.Context            // guarded by mu; the soft context while Run runs
	paused  string                     // guarded by mu; the reason given to Config.Pause
	stopped bool                       // guarded by mu
	// leaving are partitions of which the poll under way may still bring a
	// batch of an ended lane; interrupt ends that poll.
	leaving   map[record.Partition]bool // guarded by mu
	interrupt context.CancelFunc        // guarded by mu; nil before Run
	wg        sync.WaitGroup            // lanes
}

// New makes a flow. Run runs it. It closes neither source nor stages nor
// deliveries: their owner does, after Run has returned. A set that is not valid
// for the deliveries is a fault of the caller's and panics.
func New(cfg Config, src Source, set Set, deliveries []Delivery) *Flow {
	cfg.defaults()
	if err := set.Validate(len(deliveries)); err != nil {
		panic(fmt.Sprintf("pipeline: set of flow %s: %v", cfg.Flow, err))
	}
	f := &Flow{cfg: cfg, src: src, deliveries: deliveries, lanes: map[record.Partition]*lane{}, leaving: map[record.Partition]bool{}}
	f.course.Store(newCourse(set, &f.stats))
	return f
}

// NewLimiter is a limit of records a second that lets nothing pile up: in no
// second pass more than two in a hundred too many.
func NewLimiter(perSecond float64) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(perSecond), max(1, min(maxCall, int(perSecond/50))))
}

// Stats are the flow's counters.
func (f *Flow) Stats() *Stats { return &f.stats }

// Run polls the source and feeds the lanes until ctx ends or the source has
// ended. Then it stops softly: nothing new is started, what is under way may
// end within the drain limit. What was not settled by then is not lost: a next
// owner reads it again. Progress made until Run returns is still to be
// collected.
func (f *Flow) Run(ctx context.Context) error {
	soft, cancel := context.WithCancel(ctx)
	defer cancel()
	f.mu.Lock()
	f.ctx = soft
	for _, l := range f.lanes {
		f.start(l)
	}
	f.mu.Unlock()

	err := f.poll(soft)
	ended := errors.Is(err, io.EOF)
	if ended {
		for _, l := range f.snapshot() {
			l.finish()
		}
		f.wg.Wait() // a lane ends when it has settled everything, or with soft
		err = nil
	}
	cancel()
	f.wg.Wait()
	f.drain()
	f.mu.Lock()
	f.stopped = true
	f.mu.Unlock()
	for _, l := range f.snapshot() {
		l.closeOutlets()
	}
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		f.pause(err.Error())
	}
	return err
}

func (f *Flow) poll(ctx context.Context) error {
	polling, cancel := context.WithCancel(ctx)
	defer func() { cancel() }()
	for {
		if polling.Err() != nil && ctx.Err() == nil {
			cancel()
			polling, cancel = context.WithCancel(ctx)
		}
		f.mu.Lock()
		f.interrupt = cancel
		clear(f.leaving)
		f.mu.Unlock()
		b, err := f.src.Poll(polling)
		if err != nil {
			if polling.Err() != nil && ctx.Err() == nil && errors.Is(err, context.Canceled) {
				continue
			}
			return err
		}
		f.mu.Lock()
		l := f.lanes[b.Partition]
		f.mu.Unlock()
		if l != nil {
			l.offer(ctx, b)
		}
	}
}

// drain waits for outstanding deliveries, at most the drain limit.
func (f *Flow) drain() {
	limit := time.NewTimer(f.cfg.DrainLimit)
	defer limit.Stop()
	for _, l := range f.snapshot() {
		select {
		case <-l.idle():
		case <-limit.C:
			f.cfg.Logger.Warn("drain limit reached; unsettled records will be read again", "flow", f.cfg.Flow)
			return
		}
	}
}

func (f *Flow) snapshot() []*lane {
	f.mu.Lock()
	defer f.mu.Unlock()
	ls := make([]*lane, 0, len(f.lanes))
	for _, l := range f.lanes {
		ls = append(ls, l)
	}
	slices.SortFunc(ls, func(a, b *lane) int { return int(a.cfg.Ownership.Part) - int(b.cfg.Ownership.Part) })
	return ls
}

// Open starts the lane of a partition. A partition that is open already is an
// error; one whose last lane was fenced just now is one of class retryable.
func (f *Flow) Open(cfg LaneConfig) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stopped || f.lanes[cfg.Partition] != nil {
		return fmt.Errorf("open lane %s/%d of flow %s: open already, or the flow has stopped", cfg.Partition.Topic, cfg.Partition.Num, f.cfg.Flow)
	}
	if f.leaving[cfg.Partition] {
		return record.Errorf(record.Retryable, "open lane %s/%d of flow %s: what was fetched for its last owner is still on its way", cfg.Partition.Topic, cfg.Partition.Num, f.cfg.Flow)
	}
	l := newLane(f, cfg)
	f.lanes[cfg.Partition] = l
	if f.ctx != nil {
		f.start(l)
	}
	return nil
}

// start runs a lane; f.mu is held.
func (f *Flow) start(l *lane) {
	l.open(f.deliveries)
	l.cfg.Held, l.cfg.Known = nil, nil // the lane has its own of both
	f.src.Assign(l.cfg.Partition, l.cfg.Low)
	f.wg.Go(func() { l.run(f.ctx) })
}

// forget removes a fenced lane. Its partition may be opened again once the poll
// under way has ended, which may bring a last batch for it.
func (f *Flow) forget(l *lane) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lanes[l.cfg.Partition] != l {
		return
	}
	delete(f.lanes, l.cfg.Partition)
	f.src.Unassign(l.cfg.Partition)
	f.leaving[l.cfg.Partition] = true
	if f.interrupt != nil {
		f.interrupt()
	}
}

// callSize is how many records a lane takes in at once at most.
func (f *Flow) callSize() int { return max(1, min(maxCall, f.cfg.InFlight/2)) }

// Partitions lists the partitions with an open lane.
func (f *Flow) Partitions() []record.Partition {
	ls := f.snapshot()
	ps := make([]record.Partition, len(ls))
	for i, l := range ls {
		ps[i] = l.cfg.Partition
	}
	return ps
}

// Swap lets every lane work with another set between two of its batches: any
// set over the flow's deliveries that has all those of the present one. A
// record that waits at a stage goes on at the stage of that id, or, where there
// is none, at what followed it. The old stages may be closed once Adopted
// reports the new generation.
func (f *Flow) Swap(set Set) error {
	if err := set.Validate(len(f.deliveries)); err != nil {
		return fmt.Errorf("swap stages of flow %s: %w", f.cfg.Flow, err)
	}
	reaches := func(s *Set, delivery int) bool {
		return slices.ContainsFunc(s.Nodes, func(n Node) bool { return n.Kind == KindDeliver && n.Delivery == delivery })
	}
	old := f.course.Load()
	for i := range f.deliveries {
		if reaches(&old.Set, i) && !reaches(&set, i) {
			return fmt.Errorf("swap stages of flow %s: the new set does not deliver to delivery %d", f.cfg.Flow, i)
		}
	}
	f.course.Store(newCourse(set, &f.stats))
	for _, l := range f.snapshot() {
		l.kick()
	}
	return nil
}

// Hold lets lanes take in no records until it is called with "". What is under
// way goes on, and kept entries may be injected.
func (f *Flow) Hold(reason string) {
	if reason != "" {
		f.held.Store(&reason)
		return
	}
	f.held.Store(nil)
	for _, l := range f.snapshot() {
		l.kick()
	}
}

func (f *Flow) isHeld() bool { return f.held.Load() != nil }

// context ends when a soft stop begins.
func (f *Flow) context() context.Context {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ctx
}

// Adopted reports whether every lane works with the generation or a later one.
func (f *Flow) Adopted(generation uint32) bool {
	for _, l := range f.snapshot() {
		if l.generation.Load() < generation {
			return false
		}
	}
	return true
}

// pause tells the owner once.
func (f *Flow) pause(reason string) {
	f.mu.Lock()
	first := f.paused == ""
	if first {
		f.paused = reason
	}
	f.mu.Unlock()
	if first {
		f.cfg.Pause(reason)
	}
}

// Dirty collects the progress of lanes that have some. The caller commits it
// and calls Ack with it; until then the lanes report no further progress.
func (f *Flow) Dirty() []Progress {
	var ps []Progress
	for _, l := range f.snapshot() {
		if p, ok := l.progress(); ok {
			ps = append(ps, p)
		}
	}
	return ps
}

// Ack tells what became of progress that Dirty returned: nil when it is
// durable; an error of class fenced stops the lane; after any other error the
// same progress, or more, is collected again.
func (f *Flow) Ack(p Progress, err error) { p.lane.ack(p, err) }

// Clean reports whether all progress is durable: none is left to collect, and
// what was collected is acknowledged.
func (f *Flow) Clean() bool {
	for _, l := range f.snapshot() {
		if !l.clean() {
			return false
		}
	}
	return true
}

// Status is the state of the open lanes.
func (f *Flow) Status() map[record.Partition]LaneStatus {
	m := map[record.Partition]LaneStatus{}
	for _, l := range f.snapshot() {
		m[l.cfg.Partition] = l.status()
	}
	return m
}

// Problem says why records do not get through just now: why they are held, a
// delivery's word, the source's, or that of the first lane that has one.
func (f *Flow) Problem() string {
	if why := f.held.Load(); why != nil {
		return *why
	}
	for _, d := range f.deliveries {
		if p := d.Problem(); p != "" {
			return p
		}
	}
	if p := f.src.Problem(); p != "" {
		return p
	}
	for _, l := range f.snapshot() {
		if p := l.status().Problem; p != "" {
			return p
		}
	}
	return ""
}
