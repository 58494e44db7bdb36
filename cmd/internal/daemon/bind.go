package daemon

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/plugins/registry"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/pipeline"
	"github.com/millrace-io/millrace/runtime/record"
)

// activation is a deployment: other stages, or other digests for them.
type activation struct {
	revision, generation uint32
	pins                 []state.Pin
	doc                  *flow.Flow
}

// outgoing are plugins that are in use until every lane works with a
// generation.
type outgoing struct {
	until   uint32
	plugins []boundPlugin
}

// boundPlugin is what a plugin's stage holds. Without a lease the stage itself
// gives back what it has.
type boundPlugin struct {
	stage   string
	info    pipeline.StageInfo
	setting *flow.PluginStage
	st      registry.Stage
	lease   *registry.Lease
}

// activate hands a deployment to the runner; d.mu is held.
func (r *runner) activate(f *state.Flow, rev *state.Revision, doc *flow.Flow) {
	r.rev.Store(rev.Number)
	r.resolved, r.pins, r.connections = rev.Resolved, rev.Pins, f.Connections
	r.mu.Lock()
	r.next = &activation{revision: rev.Number, generation: f.Deploy, pins: rev.Pins, doc: doc}
	r.mu.Unlock()
	r.kick()
}

// frame is what a life of a flow is built around: all but the stages, and what
// is looked up when it is needed. Flows with equal frames differ in what a set
// can change.
func frame(f *flow.Flow, pins []state.Pin) any {
	type end struct {
		flow.Delivery
		holdBack bool
		pins     []state.Pin
	}
	ends := map[string]end{}
	for _, d := range f.Deliveries() {
		e := end{Delivery: *d, holdBack: d.Otherwise == flow.OtherwisePause}
		e.Pos, e.Otherwise, e.Aside = flow.Pos{}, "", nil
		for _, p := range pins {
			if p.Stage == d.ID+".sign" || p.Stage == d.ID+".validate" {
				e.pins = append(e.pins, p)
			}
		}
		ends[d.ID] = e
	}
	g := *f
	g.Description, g.Labels, g.Otherwise, g.Aside, g.Queue, g.Requeue, g.Stages, g.Delivery = "", nil, "", nil, flow.Queue{}, nil, nil, flow.Delivery{}
	return []any{g, ends}
}

// takeUp swaps the stages for those of a deployment, between two batches of
// each lane. A deployment that cannot be bound leaves the old stages running,
// and is tried again with the next kick.
func (r *runner) takeUp(ctx context.Context, pipe *pipeline.Flow) {
	r.mu.Lock()
	next := r.next
	r.next = nil
	old := slices.Clone(r.bound)
	r.mu.Unlock()
	if next == nil {
		return
	}
	set, bound, err := r.bind(ctx, next, old)
	if err == nil {
		err = pipe.Swap(set)
	}
	if err != nil {
		if ctx.Err() == nil {
			r.notTakenUp(next, err)
		}
		return
	}
	kept := map[registry.Stage]bool{}
	for _, b := range bound {
		kept[b.st] = true
	}
	r.doc.Store(next.doc)
	r.mu.Lock()
	r.bound, r.stale = bound, ""
	r.outgoing = append(r.outgoing, outgoing{next.generation, slices.DeleteFunc(old, func(b boundPlugin) bool { return kept[b.st] })})
	r.mu.Unlock()
	r.releaseOutgoing(ctx, pipe)
	signal(r.d.urged)
}

// notTakenUp keeps a deployment to be tried again, unless there is a newer one.
func (r *runner) notTakenUp(next *activation, err error) {
	said := fmt.Sprintf("deployment of revision %d: %v; the old one goes on", next.revision, err)
	r.mu.Lock()
	news := r.stale != said
	r.stale = said
	if r.next == nil {
		r.next = next
	}
	r.mu.Unlock()
	if news {
		r.log.Error("deployment cannot be taken up; the old one goes on", "revision", next.revision, "err", err)
	}
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

// bind makes the set of a deployment. Plugins that are bound already with the
// same digest and setting are taken over from have.
func (r *runner) bind(ctx context.Context, to *activation, have []boundPlugin) (set pipeline.Set, bound []boundPlugin, err error) {
	var fresh []boundPlugin
	defer func() {
		if err != nil {
			r.unbind(context.WithoutCancel(ctx), fresh)
		}
	}()
	lay := layout{
		stage: func(s *flow.Stage) (pipeline.Stage, pipeline.StageInfo, error) {
			info, err := r.stageInfo(to.doc, s.ID, s.Otherwise, s.Aside)
			if err != nil {
				return nil, info, err
			}
			if s.Decode != nil {
				return r.outs.decode, info, nil
			}
			if s.Plugin == nil {
				st, err := builtin(to.doc, s)
				return st, info, err
			}
			if info, err = pinned(info, s, to.pins); err != nil {
				return nil, info, err
			}
			at := slices.IndexFunc(have, func(b boundPlugin) bool {
				return b.stage == s.ID && b.info.Digest == info.Digest && reflect.DeepEqual(b.setting, s.Plugin) && b.info.Otherwise == info.Otherwise
			})
			if at >= 0 {
				bound = append(bound, have[at])
				return have[at].st, info, nil
			}
			b, err := r.d.bindPlugin(ctx, to.doc, s, r.uid, info, nil)
			if err != nil {
				return nil, info, err
			}
			r.d.metrics.bound(r.name, s.ID, b.st)
			bound, fresh = append(bound, b), append(fresh, b)
			return b.st, info, nil
		},
		deliver: func(d *flow.Delivery) (int, pipeline.StageInfo, error) {
			info, err := r.stageInfo(to.doc, d.ID, d.Otherwise, d.Aside)
			return r.outs.place(d.ID), info, err
		},
	}
	set = pipeline.Set{Generation: to.generation, Revision: to.revision}
	set.Nodes, err = lay.nodesOf(to.doc)
	for i := range set.Nodes {
		if n := &set.Nodes[i]; n.Kind == pipeline.KindStage && r.d.cfg.Observe != nil {
			n.Stage = r.d.cfg.Observe(r.name, n.StageInfo, n.Stage)
		}
	}
	return set, bound, err
}

// stageInfo describes a stage or delivery, but for its plugin.
func (r *runner) stageInfo(f *flow.Flow, id string, o flow.Otherwise, topic *flow.Topic) (pipeline.StageInfo, error) {
	info := pipeline.StageInfo{ID: id, Otherwise: otherwise(o)}
	if info.Otherwise != pipeline.ToTopic {
		return info, nil
	}
	var err error
	info.Aside, err = r.parts.aside(r.outs, f, topic)
	return info, err
}

// pinned adds the plugin that a stage is pinned to.
func pinned(info pipeline.StageInfo, s *flow.Stage, pins []state.Pin) (pipeline.StageInfo, error) {
	at := slices.IndexFunc(pins, func(p state.Pin) bool { return p.Stage == s.ID })
	if at < 0 {
		return info, record.Errorf(record.Internal, "stage %s has no pinned digest", s.ID)
	}
	info.Plugin, info.Digest = pluginName(s.Plugin.Ref, pins[at].Version), pins[at].Digest.String()
	return info, nil
}

// bindExchanges binds the plugins that sign and validate, as pins say. They
// are the runner's, to be unbound after its outlets are closed.
func (r *runner) bindExchanges(ctx context.Context, f *flow.Flow, pins []state.Pin) bindExchange {
	return func(s *flow.Stage, sign signWith) (registry.Stage, pluginInfo, error) {
		info, err := pinned(pipeline.StageInfo{ID: s.ID, Otherwise: pipeline.ToNowhere}, s, pins)
		if err != nil {
			return nil, pluginInfo{}, err
		}
		b, err := r.d.bindPlugin(ctx, f, s, r.uid, info, sign)
		if err != nil {
			return nil, pluginInfo{}, err
		}
		r.d.metrics.bound(r.name, s.ID, b.st)
		r.exchanges = append(r.exchanges, b)
		return b.st, pluginInfo{stage: s.ID, plugin: info.Plugin, digest: info.Digest}, nil
	}
}

// signWith signs a message for a plugin: see sandbox.StageConfig.
type signWith = func(handle, alg uint32, message []byte) ([]byte, error)

// bindPlugin makes a plugin's stage. The error is of class config when the
// plugin is missing or does not take its configuration.
func (d *Daemon) bindPlugin(ctx context.Context, f *flow.Flow, s *flow.Stage, uid uint64, info pipeline.StageInfo, sign signWith) (b boundPlugin, err error) {
	b = boundPlugin{stage: s.ID, info: info, setting: s.Plugin}
	if b.lease, err = d.modules.Acquire(ctx, info.Digest, registry.Mode(s.Plugin.Function)); err != nil {
		return b, record.Errorf(record.Config, "stage %s: plugin %s: %w", s.ID, info.Plugin, err)
	}
	cfg := stageConfig(f, s, uid, info, d.log)
	cfg.Sign = sign
	cfg.OnCount = d.metrics.counted(f.FullName(), s.ID)
	cfg.OnLog = d.logs.listen(uid, s.ID, info.Plugin)
	if b.st, err = b.lease.Module().NewStage(ctx, cfg); err != nil {
		return b, errors.Join(record.Errorf(record.Config, "%w", err), b.lease.Release(context.WithoutCancel(ctx)))
	}
	return b, nil
}

// unbind closes stages and gives their modules back.
func (r *runner) unbind(ctx context.Context, bound []boundPlugin) {
	for _, b := range bound {
		err := b.st.Close(ctx)
		r.d.metrics.unbound(r.name, b.stage, b.st)
		if b.lease != nil {
			err = errors.Join(err, b.lease.Release(ctx))
		}
		if err != nil {
			r.log.Warn("close stage", "stage", b.stage, "err", err)
		}
	}
}

func pluginName(ref flow.PluginRef, version string) string {
	n := ref.Name + "@" + version
	if ref.Namespace != "" && ref.Namespace != flow.DefaultNamespace {
		n = ref.Namespace + "/" + n
	}
	return n
}
