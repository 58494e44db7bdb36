package daemon

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/connector/ingest"
	"github.com/millrace-io/millrace/runtime/delivery"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/pipeline"
	"github.com/millrace-io/millrace/runtime/record"
)

const (
	// discoverEvery is how often new partitions are looked for.
	discoverEvery = 10 * time.Second
	// reopenAfter is the pause before something that should work is tried
	// again.
	reopenAfter = time.Second
)

// runner is one life of a flow on this node: from opening its source to the
// last commit.
type runner struct {
	d          *Daemon
	log        *slog.Logger
	id         state.FlowID
	uid        uint64
	name       string
	generation uint32
	opened     time.Time

	resolved    []byte      // guarded by d.mu; the newest document
	pins        []state.Pin // guarded by d.mu; of it
	connections []string    // guarded by d.mu; stored names of those that the flow uses

	// Set by run before pipe.
	parts     *parts
	outs      *outlets
	exchanges []boundPlugin  // that sign and validate
	requests  *ingest.Source // nil: the source is another

	doc     atomic.Pointer[flow.Flow] // as the lanes have it, or will soon; nil before run
	retried atomic.Int64              // attempts of deliveries after a record's first
	pipe    atomic.Pointer[pipeline.Flow]
	rev     atomic.Uint32
	hold    holder
	rate    meter // of records taken in
	skips   skips
	wake    chan struct{} // 1
	due     chan struct{} // 1: kept entries may be due
	done    chan struct{} // closed when run has returned
	stop    context.CancelFunc
	pausing sync.Once
	// keeping is held while kept entries are read and given to their lane, and
	// while lanes are told that such are committed.
	keeping sync.Mutex

	mu       sync.Mutex
	next     *activation                // guarded by mu; a deployment to take up
	trouble  string                     // guarded by mu; why it does not run
	stale    string                     // guarded by mu; why the newest deployment is not taken up
	ends     map[record.Partition]int64 // guarded by mu; ends of partitions, as last seen
	looked   time.Time                  // guarded by mu; when that was
	bound    []boundPlugin              // guarded by mu; of the newest stages
	outgoing []outgoing                 // guarded by mu; of older ones
	skewed   map[uint32]bool            // guarded by mu; partitions with entries from a clock that was set back
}

// startRunner starts a life of f; d.mu is held.
func (d *Daemon) startRunner(ctx context.Context, f *state.Flow, rev *state.Revision) *runner {
	r := &runner{d: d, log: d.log.With("flow", f.FullName()), id: f.ID, uid: f.UID, name: f.FullName(), generation: f.Generation,
		resolved: rev.Resolved, pins: rev.Pins, connections: f.Connections, opened: time.Now(), skewed: map[uint32]bool{},
		wake: make(chan struct{}, 1), due: make(chan struct{}, 1), done: make(chan struct{})}
	r.rev.Store(rev.Number)
	ctx, r.stop = context.WithCancel(ctx)
	go func() {
		defer signal(d.kick)
		defer close(r.done)
		defer r.stop()
		if err := r.run(ctx, f, rev); err != nil && ctx.Err() == nil {
			r.giveUp(ctx, record.AsError(err))
		}
	}()
	return r
}

func (r *runner) kick() { signal(r.wake) }

func (r *runner) revision() uint32 { return r.rev.Load() }

func (r *runner) ended() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

func (r *runner) ack(p pipeline.Progress, err error) {
	pipe := r.pipe.Load()
	if pipe == nil {
		return
	}
	if len(p.Keeps)+len(p.Gone) > 0 {
		r.keeping.Lock()
		defer r.keeping.Unlock()
	}
	pipe.Ack(p, err)
}

// giveUp is called when the flow cannot be run: it is paused with the reason,
// or opened again after a moment when that may help.
func (r *runner) giveUp(ctx context.Context, err *record.Error) {
	if !err.Class.Transient() {
		r.autoPause(err.Error())
		<-ctx.Done()
		return
	}
	r.setTrouble(err.Error())
	select {
	case <-ctx.Done():
	case <-time.After(reopenAfter):
	}
}

// autoPause pauses the flow in the state and ends this life. It does not block.
func (r *runner) autoPause(reason string) {
	r.pausing.Do(func() {
		r.setTrouble(reason)
		r.log.Error("flow paused", "reason", reason)
		go func() {
			defer r.stop()
			for range 10 {
				ctx, cancel := context.WithTimeout(context.Background(), probe)
				_, err := r.d.node.Propose(ctx, &state.FlowState{Flow: r.id, State: state.AutoPaused, Reason: reason})
				cancel()
				if err == nil {
					return
				}
				r.log.Warn("the pause could not be recorded; tried again", "err", err)
				select {
				case <-r.done:
					return
				case <-time.After(reopenAfter):
				}
			}
		}()
	})
}

// problem says why the flow does not run as it should, or is empty.
func (r *runner) problem() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return cmp.Or(r.trouble, r.stale)
}

func (r *runner) setTrouble(s string) {
	r.mu.Lock()
	r.trouble = s
	r.mu.Unlock()
}

// run opens the flow and runs it until ctx ends.
func (r *runner) run(ctx context.Context, f *state.Flow, rev *state.Revision) (err error) {
	doc, err := decodeFlow(rev.Resolved)
	if err != nil {
		return record.Errorf(record.Internal, "read the resolved document of revision %d: %w", rev.Number, err)
	}
	r.doc.Store(doc)
	background := context.WithoutCancel(ctx)
	defer func() { r.unbind(background, append(r.takeBound(), r.exchanges...)) }()
	r.parts = r.d.parts(r, doc)
	r.parts.plugin = r.bindExchanges(ctx, doc, rev.Pins)
	if r.outs, err = r.parts.outlets(doc, delivery.Identity{FlowUID: r.uid, Generation: r.generation}); err != nil {
		return err
	}
	defer r.outs.Close()
	set, bound, err := r.bind(ctx, &activation{revision: rev.Number, generation: f.Deploy, pins: rev.Pins, doc: doc}, nil)
	if err != nil {
		return err
	}
	r.setBound(bound)
	if r.parts.known, err = r.d.topicsOf(r.id); err != nil {
		return err
	}
	src, err := r.parts.source(doc)
	if err != nil {
		return err
	}
	defer src.Close()
	r.requests, _ = src.(*ingest.Source)

	cfg := pipelineConfig(doc)
	cfg.UID, cfg.Revision, cfg.Generation = r.uid, rev.Number, r.generation
	cfg.InFlightBytes = r.d.laneBytes(lanesOf(ctx, f, src))
	cfg.DrainLimit, cfg.Logger = r.d.cfg.DrainLimit, r.log
	cfg.Urge = func() { signal(r.d.urged) }
	cfg.Pause = r.autoPause
	if r.outs.tell != nil {
		cfg.Tell = r.outs.tell.tell
	}
	pipe := pipeline.New(cfg, src, set, r.outs.deliveries())
	r.pipe.Store(pipe)
	ended := make(chan error, 1)
	go func() { ended <- pipe.Run(ctx) }()
	back := newRetrying(r, pipe)
	var beside sync.WaitGroup
	beside.Go(func() { back.run(ctx) })
	beside.Go(func() { r.watch(ctx, pipe) })
	mirror := newMirror(r, src)
	if mirror != nil {
		beside.Go(func() { mirror.run(ctx) })
	}
	r.attend(ctx, pipe, src)
	beside.Wait()

	// A lane whose delivery makes an attempt ends with it, or when the
	// deliveries are closed, which cuts off what is left.
	hard := time.AfterFunc(r.d.cfg.DrainLimit, func() { _ = r.outs.Close() })
	defer hard.Stop()
	err = <-ended
	if e := r.outs.Close(); e != nil {
		r.log.Warn("close deliveries", "err", e)
	}
	back.close(background)
	r.commitLast(background, pipe)
	if mirror != nil {
		mirror.last(background)
	}
	return err
}

// parts makes what a runner's flow runs with.
func (d *Daemon) parts(r *runner, doc *flow.Flow) *parts {
	return &parts{
		connection: d.connection, secrets: secrets(d.cfg.Secrets), connections: d.connections, registries: d.registries, logger: r.log, fetchMaxBytes: d.cfg.FetchMaxBytes, follow: true,
		createTopics: true, onSkip: r.skipped,
		onRetry: func() { r.retried.Add(1) }, ingest: r.ingest,
	}
}

// commitLast commits what the flow has settled. Progress that the node's own
// commit has taken along is waited for: what settled meanwhile comes after it.
func (r *runner) commitLast(ctx context.Context, pipe *pipeline.Flow) {
	ctx, cancel := context.WithTimeout(ctx, probe)
	defer cancel()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		r.d.commit(ctx, []*runner{r})
		if pipe.Clean() {
			return
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			r.log.Warn("the last commit did not succeed; records since the one before it will be delivered again")
			return
		}
	}
}

// attend opens lanes as partitions and slots come, and takes up deployments,
// until ctx ends.
func (r *runner) attend(ctx context.Context, pipe *pipeline.Flow, src source) {
	discover := time.NewTimer(0)
	defer discover.Stop()
	ends := time.NewTicker(time.Second)
	defer ends.Stop()
	// Known partitions are opened only once their topics are seen to be those
	// that the watermarks are of.
	discovered := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-discover.C:
			next := discoverEvery
			if err := r.discover(ctx, pipe, src); err != nil && ctx.Err() == nil {
				e := record.AsError(err)
				if !e.Class.Transient() {
					r.autoPause(e.Error())
				}
				said := e.Error()
				if e.Class.Transient() && src.Problem() != "" {
					said = "" // the source says what is wrong now, this look what was wrong when it began
				}
				r.setTrouble(said)
				next = reopenAfter
			} else {
				discovered = true
				r.setTrouble("")
				r.look(ctx, src)
			}
			discover.Reset(next)
		case <-ends.C:
			r.look(ctx, src)
			r.releaseOutgoing(ctx, pipe)
		case <-r.wake:
			r.takeUp(ctx, pipe)
			if !discovered {
				continue
			}
			if err := r.openLanes(ctx, pipe, src); err != nil && ctx.Err() == nil {
				r.setTrouble(err.Error())
				discover.Reset(reopenAfter)
			}
		}
	}
}

// look asks for the ends of partitions, for the lag.
func (r *runner) look(ctx context.Context, src source) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	ends, err := src.End(ctx)
	if err != nil {
		return // the source's Problem says why
	}
	r.mu.Lock()
	r.ends, r.looked = ends, time.Now()
	r.mu.Unlock()
}

// discover makes partitions that the source has now known to the state, and
// opens their lanes. Where a topic is not there yet the others are opened all
// the same, and the error says so.
func (r *runner) discover(ctx context.Context, pipe *pipeline.Flow, src source) error {
	asking, cancel := context.WithTimeout(ctx, probe)
	defer cancel()
	found, missing := src.Partitions(asking)
	if missing != nil && len(found) == 0 && !errors.Is(missing, connector.ErrNoTopic) {
		return missing
	}
	known, err := r.d.store.Partitions(r.id)
	if err != nil {
		return err
	}
	head, err := r.d.store.FlowByID(r.id)
	if err != nil {
		return err
	}
	have := map[state.PartitionKey]bool{}
	topics := map[string][16]byte{}
	for _, k := range known {
		have[k.PartitionKey] = true
		topics[k.Topic] = k.TopicID
	}
	var add []state.PartitionKey
	for _, p := range found {
		k := r.key(p)
		if id, ok := topics[p.Topic]; ok && id != p.TopicID {
			return record.Errorf(record.Config, "topic %s was deleted and made anew (topic id %x, was %x): its offsets mean other records now. Delete the flow and apply it again to begin at its start", p.Topic, p.TopicID, id)
		}
		if !have[k] {
			add = append(add, k)
		}
	}
	if len(add) > 0 || head != nil && !head.Looked { // what comes after the first look is read from its beginning
		if _, err := r.d.node.Propose(ctx, &state.PartitionsAdd{Flow: r.id, Partitions: add}); err != nil {
			return record.Errorf(record.Retryable, "make partitions known: %w", err)
		}
	}
	if err := r.openLanes(ctx, pipe, src); err != nil {
		return err
	}
	return missing
}

// topicsOf are the topics that the flow has read, with their ids.
func (d *Daemon) topicsOf(id state.FlowID) (map[string][16]byte, error) {
	known, err := d.store.Partitions(id)
	if err != nil {
		return nil, err
	}
	topics := make(map[string][16]byte, len(known))
	for _, k := range known {
		topics[k.Topic] = k.TopicID
	}
	return topics, nil
}

func (r *runner) key(p connector.Found) state.PartitionKey {
	in := r.doc.Load().Source
	return state.PartitionKey{Kind: in.Kind(), Connection: in.Connection(), Topic: p.Topic, TopicID: p.TopicID, Broker: p.Broker, Source: p.Num}
}

// staleAfter is how old the ends of partitions may be, which are looked at each
// second: with older ones the lag of a flow whose brokers are away would be
// that of the moment when they went.
const staleAfter = 5 * time.Second

// lastEnds are the ends of partitions as last seen, nil if that is too long
// ago.
func (r *runner) lastEnds() map[record.Partition]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.looked) > staleAfter {
		return nil
	}
	return maps.Clone(r.ends)
}
