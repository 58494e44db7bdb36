package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/plugins/registry"
	"github.com/millrace-io/millrace/plugins/sandbox"
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

	pipe    atomic.Pointer[pipeline.Flow]
	rev     atomic.Uint32
	wake    chan struct{} // 1
	done    chan struct{} // closed when run has returned
	stop    context.CancelFunc
	pausing sync.Once

	mu       sync.Mutex
	next     *activation                // guarded by mu; a deployment to take up
	trouble  string                     // guarded by mu; why it does not run
	ends     map[record.Partition]int64 // guarded by mu; ends of partitions, as last seen
	bound    []boundPlugin              // guarded by mu; of the newest stages
	outgoing []outgoing                 // guarded by mu; of older ones
}

// activation is a deployment: other digests for the same document.
type activation struct {
	revision, generation uint32
	pins                 []state.Pin
}

// outgoing are plugins that are in use until every lane works with a
// generation.
type outgoing struct {
	until   uint32
	plugins []boundPlugin
}

// boundPlugin is what a plugin's stage holds.
type boundPlugin struct {
	stage string
	info  pipeline.StageInfo
	st    *sandbox.Stage
	lease *registry.Lease
}

// startRunner starts a life of f; d.mu is held.
func (d *Daemon) startRunner(ctx context.Context, f *state.Flow, rev *state.Revision) *runner {
	r := &runner{d: d, log: d.log.With("flow", f.FullName()), id: f.ID, uid: f.UID, name: f.FullName(), generation: f.Generation, resolved: rev.Resolved,
		opened: time.Now(), connections: f.Connections, wake: make(chan struct{}, 1), done: make(chan struct{})}
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
		return
	}
	r.setTrouble(err.Error())
	select {
	case <-ctx.Done():
	case <-time.After(reopenAfter):
	}
}

// autoPause pauses the flow in the state, once in this life. It does not block.
func (r *runner) autoPause(reason string) {
	r.pausing.Do(func() {
		r.setTrouble(reason)
		r.log.Error("flow paused", "reason", reason)
		go func() {
			for range 10 {
				ctx, cancel := context.WithTimeout(context.Background(), probe)
				_, err := r.d.node.Propose(ctx, &state.FlowState{Flow: r.id, State: state.AutoPaused, Reason: reason})
				cancel()
				if err == nil {
					return
				}
				r.log.Warn("the pause could not be recorded; tried again", "err", err)
			}
			r.stop()
		}()
	})
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
	p := &parts{connection: r.d.connection, secrets: secrets(r.d.cfg.Secrets), logger: r.log, fetchMaxBytes: r.d.cfg.FetchMaxBytes, follow: true}
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
	cfg.InFlightBytes = r.d.laneBytes(f)
	cfg.DrainLimit, cfg.Logger = r.d.cfg.DrainLimit, r.log
	cfg.Urge = func() { signal(r.d.urged) }
	cfg.Pause = r.autoPause
	pipe := pipeline.New(cfg, src, set, out)
	r.pipe.Store(pipe)
	ended := make(chan error, 1)
	go func() { ended <- pipe.Run(ctx) }()
	r.attend(ctx, pipe, src)

	// The drain limit bounds Run; closing the delivery cuts off what is left.
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
				r.setTrouble("")
			}
			discover.Reset(next)
		case <-ends.C:
			r.look(ctx, src)
			r.releaseOutgoing(ctx, pipe)
		case <-r.wake:
			r.takeUp(ctx, pipe)
			if err := r.openLanes(ctx, pipe, src); err != nil && ctx.Err() == nil {
				r.setTrouble(err.Error())
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

// laneBytes shares the node's window out among the lanes that f may have.
func (d *Daemon) laneBytes(f *state.Flow) int {
	lanes := int64(max(f.Parts, 1))
	d.mu.Lock()
	for _, r := range d.runners {
		if pipe := r.pipe.Load(); pipe != nil {
			lanes += int64(len(pipe.Partitions()))
		}
	}
	d.mu.Unlock()
	return int(max(256<<10, min(d.cfg.WindowBytes/lanes, pipeline.DefaultInFlightBytes)))
}

// activate hands a deployment to the runner; d.mu is held.
func (r *runner) activate(f *state.Flow, rev *state.Revision) {
	r.rev.Store(rev.Number)
	r.mu.Lock()
	r.next = &activation{revision: rev.Number, generation: f.Deploy, pins: rev.Pins}
	r.mu.Unlock()
	r.kick()
}

// takeUp swaps the stages for those of a deployment, between two batches of
// each lane. A deployment that cannot be bound leaves the old stages running.
func (r *runner) takeUp(ctx context.Context, pipe *pipeline.Flow) {
	r.mu.Lock()
	next := r.next
	r.next = nil
	old := slices.Clone(r.bound)
	r.mu.Unlock()
	if next == nil {
		return
	}
	set, bound, err := r.bind(ctx, next.generation, next.pins, old)
	if err == nil {
		err = pipe.Swap(set)
	}
	if err != nil {
		if ctx.Err() == nil {
			r.log.Error("deployment cannot be taken up; the old one goes on", "revision", next.revision, "err", err)
			r.setTrouble(fmt.Sprintf("deployment of revision %d: %v; the old one goes on", next.revision, err))
		}
		return
	}
	kept := map[*sandbox.Stage]bool{}
	for _, b := range bound {
		kept[b.st] = true
	}
	r.mu.Lock()
	r.bound = bound
	r.outgoing = append(r.outgoing, outgoing{next.generation, slices.DeleteFunc(old, func(b boundPlugin) bool { return kept[b.st] })})
	r.mu.Unlock()
	r.releaseOutgoing(ctx, pipe)
	signal(r.d.urged)
}

// releaseOutgoing gives back the plugins that no lane works with any more. A
// lane adopts a deployment between two of its batches, so one whose delivery
// waits for its sink holds the old plugins for as long.
func (r *runner) releaseOutgoing(ctx context.Context, pipe *pipeline.Flow) {
	var done []boundPlugin
	r.mu.Lock()
	r.outgoing = slices.DeleteFunc(r.outgoing, func(o outgoing) bool {
		if !pipe.Adopted(o.until) {
			return false
		}
		done = append(done, o.plugins...)
		return true
	})
	r.mu.Unlock()
	r.unbind(context.WithoutCancel(ctx), done)
}

func (r *runner) setBound(b []boundPlugin) {
	r.mu.Lock()
	r.bound = b
	r.mu.Unlock()
}

func (r *runner) takeBound() []boundPlugin {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.bound
	for _, o := range r.outgoing {
		b = append(b, o.plugins...)
	}
	r.bound, r.outgoing = nil, nil
	return b
}

// bind makes the stages of a deployment. Plugins that are bound already with
// the same digest are taken over from have.
func (r *runner) bind(ctx context.Context, generation uint32, pins []state.Pin, have []boundPlugin) (set pipeline.Set, bound []boundPlugin, err error) {
	set.Generation = generation
	var fresh []boundPlugin
	defer func() {
		if err != nil {
			r.unbind(context.WithoutCancel(ctx), fresh)
		}
	}()
	pinned := map[string]state.Pin{}
	for _, p := range pins {
		pinned[p.Stage] = p
	}
	for i := range r.flow.Stages {
		s := &r.flow.Stages[i]
		info := pipeline.StageInfo{ID: s.ID, Otherwise: otherwise(s.Otherwise)}
		if s.Plugin == nil {
			b, err := builtin(r.flow, s)
			if err != nil {
				return set, nil, err
			}
			set.Stages = append(set.Stages, pipeline.BoundStage{Stage: b, StageInfo: info})
			continue
		}
		pin, ok := pinned[s.ID]
		if !ok {
			return set, nil, record.Errorf(record.Internal, "stage %s has no pinned digest", s.ID)
		}
		info.Plugin, info.Digest = pluginName(s.Plugin.Ref, pin.Version), pin.Digest.String()
		at := slices.IndexFunc(have, func(b boundPlugin) bool { return b.stage == s.ID && b.info.Digest == info.Digest })
		var b boundPlugin
		if at >= 0 {
			b = have[at]
		} else {
			if b, err = r.d.bindPlugin(ctx, r.flow, s, r.uid, info); err != nil {
				return set, nil, err
			}
			fresh = append(fresh, b)
		}
		bound = append(bound, b)
		set.Stages = append(set.Stages, pipeline.BoundStage{Stage: b.st, StageInfo: info})
	}
	return set, bound, nil
}

// bindPlugin makes a plugin's stage. The error is of class config when the
// plugin is missing or does not take its configuration.
func (d *Daemon) bindPlugin(ctx context.Context, f *flow.Flow, s *flow.Stage, uid uint64, info pipeline.StageInfo) (b boundPlugin, err error) {
	b = boundPlugin{stage: s.ID, info: info}
	if b.lease, err = d.modules.Acquire(ctx, info.Digest); err != nil {
		return b, record.Errorf(record.Config, "stage %s: plugin %s: %w", s.ID, info.Plugin, err)
	}
	cfg := stageConfig(f, s, uid, info, d.log)
	cfg.OnCount = d.metrics.counted(f.FullName(), s.ID)
	if b.st, err = b.lease.Module().NewStage(ctx, cfg); err != nil {
		return b, errors.Join(record.Errorf(record.Config, "%w", err), b.lease.Release(context.WithoutCancel(ctx)))
	}
	return b, nil
}

// unbind closes stages and gives their modules back.
func (r *runner) unbind(ctx context.Context, bound []boundPlugin) {
	for _, b := range bound {
		if err := errors.Join(b.st.Close(ctx), b.lease.Release(ctx)); err != nil {
			r.log.Warn("close stage", "stage", b.stage, "err", err)
		}
	}
}

// lastEnds are the ends of partitions as last seen.
func (r *runner) lastEnds() map[record.Partition]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.ends)
}

func pluginName(ref flow.PluginRef, version string) string {
	n := ref.Name + "@" + version
	if ref.Namespace != "" && ref.Namespace != flow.DefaultNamespace {
		n = ref.Namespace + "/" + n
	}
	return n
}
