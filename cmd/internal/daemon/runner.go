package daemon

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/runtime/connector"
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
	resolved   []byte
	flow       *flow.Flow
	opened     time.Time
	// connections are the stored names of those that the flow uses.
	connections []string
	// newcomers are partitions that a topic got after the flow had begun to
	// read it. Only the goroutine of run uses it.
	newcomers map[record.Partition]bool

	retried atomic.Int64 // attempts of the delivery after a record's first
	pipe    atomic.Pointer[pipeline.Flow]
	rev     atomic.Uint32
	wake    chan struct{} // 1
	done    chan struct{} // closed when run has returned
	stop    context.CancelFunc
	pausing sync.Once

	mu       sync.Mutex
	next     *activation                // guarded by mu; a deployment to take up
	trouble  string                     // guarded by mu; why it does not run
	stale    string                     // guarded by mu; why the newest deployment is not taken up
	ends     map[record.Partition]int64 // guarded by mu; ends of partitions, as last seen
	bound    []boundPlugin              // guarded by mu; of the newest stages
	outgoing []outgoing                 // guarded by mu; of older ones
}

// startRunner starts a life of f; d.mu is held.
func (d *Daemon) startRunner(ctx context.Context, f *state.Flow, rev *state.Revision) *runner {
	r := &runner{d: d, log: d.log.With("flow", f.FullName()), id: f.ID, uid: f.UID, name: f.FullName(), generation: f.Generation, resolved: rev.Resolved,
		opened: time.Now(), connections: f.Connections, newcomers: map[record.Partition]bool{}, wake: make(chan struct{}, 1), done: make(chan struct{})}
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
	if pipe := r.pipe.Load(); pipe != nil {
		pipe.Ack(p, err)
	}
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
	if r.flow, err = decodeFlow(rev.Resolved); err != nil {
		return record.Errorf(record.Internal, "read the resolved document of revision %d: %w", rev.Number, err)
	}
	background := context.WithoutCancel(ctx)
	set, bound, err := r.bind(ctx, f.Deploy, rev.Pins, nil)
	if err != nil {
		return err
	}
	r.setBound(bound)
	defer func() { r.unbind(background, r.takeBound()) }()
	p := &parts{connection: r.d.connection, secrets: secrets(r.d.cfg.Secrets), logger: r.log, fetchMaxBytes: r.d.cfg.FetchMaxBytes, follow: true, onRetry: func() { r.retried.Add(1) }}
	src, err := p.source(r.flow)
	if err != nil {
		return err
	}
	defer src.Close()
	out, err := p.delivery(r.flow, delivery.Identity{FlowUID: r.uid, Generation: r.generation})
	if err != nil {
		return err
	}
	defer out.Close()

	cfg := pipelineConfig(r.flow)
	cfg.UID, cfg.Revision, cfg.Generation = r.uid, rev.Number, r.generation
	cfg.InFlightBytes = r.d.laneBytes(lanesOf(ctx, f, src))
	cfg.DrainLimit, cfg.Logger = r.d.cfg.DrainLimit, r.log
	cfg.Urge = func() { signal(r.d.urged) }
	cfg.Pause = r.autoPause
	pipe := pipeline.New(cfg, src, set, out)
	r.pipe.Store(pipe)
	ended := make(chan error, 1)
	go func() { ended <- pipe.Run(ctx) }()
	r.attend(ctx, pipe, src)

	// A lane whose delivery makes an attempt ends with it, or when the delivery
	// is closed, which cuts off what is left.
	hard := time.AfterFunc(r.d.cfg.DrainLimit, func() { _ = out.Close() })
	defer hard.Stop()
	err = <-ended
	if e := out.Close(); e != nil {
		r.log.Warn("close delivery", "err", e)
	}
	r.commitLast(background, pipe)
	return err
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
				r.setTrouble(e.Error())
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
	r.ends = ends
	r.mu.Unlock()
}

// discover makes partitions that the source has now known to the state, and
// opens their lanes.
func (r *runner) discover(ctx context.Context, pipe *pipeline.Flow, src source) error {
	asking, cancel := context.WithTimeout(ctx, probe)
	defer cancel()
	found, err := src.Partitions(asking)
	if err != nil {
		return err
	}
	known, err := r.d.store.Partitions(r.id)
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
			if _, ok := topics[p.Topic]; ok {
				r.newcomers[p.Partition] = true
			}
		}
	}
	if len(add) > 0 {
		if _, err := r.d.node.Propose(ctx, &state.PartitionsAdd{Flow: r.id, Partitions: add}); err != nil {
			return record.Errorf(record.Retryable, "make partitions known: %w", err)
		}
	}
	return r.openLanes(ctx, pipe, src)
}

func (r *runner) key(p connector.Found) state.PartitionKey {
	k := state.PartitionKey{Kind: r.flow.Source.Kind(), Topic: p.Topic, TopicID: p.TopicID, Broker: p.Broker, Source: p.Num}
	if r.flow.Source.Kafka != nil {
		k.Connection = r.flow.Source.Kafka.Connection
	}
	return k
}

// openLanes opens a lane for every known partition of an own slot that has
// none. It begins at the committed watermark; where nothing is committed, at
// the flow's start, which is committed first, so that a later life does not
// begin behind it.
func (r *runner) openLanes(ctx context.Context, pipe *pipeline.Flow, src source) error {
	partitions, err := r.d.store.Partitions(r.id)
	if err != nil {
		return err
	}
	slots, err := r.d.store.Slots(r.id)
	if err != nil {
		return err
	}
	open := pipe.Status()
	var marks map[uint32]state.Watermark
	for _, k := range partitions {
		p := record.Partition{Topic: k.Topic, Broker: k.Broker, Num: k.Source}
		if _, ok := open[p]; ok || int(k.Slot) >= len(slots) || !r.d.owns(slots[k.Slot]) {
			continue
		}
		if marks == nil {
			if marks, err = r.watermarks(); err != nil {
				return err
			}
		}
		if err := r.openLane(ctx, pipe, src, k, p, slots[k.Slot], marks); err != nil {
			return err
		}
	}
	return nil
}

func (r *runner) watermarks() (map[uint32]state.Watermark, error) {
	ws, err := r.d.store.Watermarks(r.id)
	if err != nil {
		return nil, err
	}
	m := make(map[uint32]state.Watermark, len(ws))
	for _, w := range ws {
		m[w.Part] = w
	}
	return m, nil
}

func (r *runner) openLane(ctx context.Context, pipe *pipeline.Flow, src source, k state.Partition, p record.Partition, slot state.Slot, marks map[uint32]state.Watermark) error {
	own := pipeline.Ownership{Slot: uint32(k.Slot), Part: k.Part, Epoch: slot.Epoch}
	cfg := pipeline.LaneConfig{Partition: p, Ownership: own}
	if w, ok := marks[k.Part]; ok && w.Generation == r.generation {
		cfg.Low, cfg.Ranges = w.Low, ledgerRanges(w.Ranges)
		cfg.MayRepeat = pipeline.DefaultInFlight
		filed, err := r.d.store.FailedSince(r.id, k.Part, w.Low)
		if err != nil {
			return err
		}
		for _, f := range filed {
			cfg.Filed = append(cfg.Filed, pipeline.FiledKey{Offset: f.Offset, Path: f.Path})
		}
		return pipe.Open(cfg)
	}
	from, err := start(r.flow)
	if err != nil {
		return err
	}
	if r.newcomers[p] {
		from = connector.Start{} // what was written before it was found is the flow's too
	}
	asking, cancel := context.WithTimeout(ctx, probe)
	defer cancel()
	if cfg.Low, err = src.Start(asking, p, from); err != nil {
		return err
	}
	res, err := r.d.node.Propose(ctx, &state.Commit{Node: r.d.node.ID(), Incarnation: r.d.node.Incarnation(), Items: []state.CommitItem{{
		Flow: r.id, Slot: k.Slot, Epoch: slot.Epoch, Part: k.Part, Low: cfg.Low, Generation: r.generation}}})
	if err != nil {
		return record.Errorf(record.Retryable, "commit the start of %s/%d: %w", p.Topic, p.Num, err)
	}
	if refused := res.Value.(*state.CommitResult).Refused; len(refused) > 0 {
		return record.Errorf(record.Retryable, "commit the start of %s/%d: %s", p.Topic, p.Num, refused[0].Reason)
	}
	return pipe.Open(cfg)
}

// lanesOf is how many lanes f may have: the partitions that are known, for a
// new flow those that its source says it has.
func lanesOf(ctx context.Context, f *state.Flow, src source) int64 {
	if f.Parts > 0 {
		return int64(f.Parts)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	found, err := src.Partitions(ctx)
	if err != nil {
		return int64(max(f.Slots, 1)) // discover tells
	}
	return int64(max(len(found), 1))
}

// laneBytes shares the node's window out among its lanes and as many new ones.
func (d *Daemon) laneBytes(lanes int64) int {
	d.mu.Lock()
	for _, r := range d.runners {
		if pipe := r.pipe.Load(); pipe != nil {
			lanes += int64(len(pipe.Partitions()))
		}
	}
	d.mu.Unlock()
	return int(max(256<<10, min(d.cfg.WindowBytes/lanes, pipeline.DefaultInFlightBytes)))
}

// lastEnds are the ends of partitions as last seen.
func (r *runner) lastEnds() map[record.Partition]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.ends)
}
