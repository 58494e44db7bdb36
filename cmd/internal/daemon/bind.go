package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/plugins/registry"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/pipeline"
	"github.com/millrace-io/millrace/runtime/record"
)

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
	st    registry.Stage
	lease *registry.Lease
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
	set, bound, err := r.bind(ctx, next.generation, next.pins, old)
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
			r.d.metrics.bound(r.flow.FullName(), s.ID, b.st)
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
	if b.lease, err = d.modules.Acquire(ctx, info.Digest, registry.Mode(s.Plugin.Function)); err != nil {
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
		err := b.st.Close(ctx)
		r.d.metrics.unbound(r.flow.FullName(), b.stage, b.st)
		if err := errors.Join(err, b.lease.Release(ctx)); err != nil {
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
