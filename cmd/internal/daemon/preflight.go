package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/preflight"
	"github.com/millrace-io/millrace/plugins/registry"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/pipeline"
	"github.com/millrace-io/millrace/runtime/record"
)

const (
	// preflightLimit is how long the pre-flight of one flow may take,
	// preflightsLimit that of all flows of a deployment.
	preflightLimit  = 30 * time.Second
	preflightsLimit = 2 * time.Minute
	// restAfter is how long a pre-flight works until it rests for as long: a
	// guest that runs cannot be interrupted, and flows run beside it.
	restAfter = 10 * time.Millisecond
)

// trial is a pre-flight of one flow: which plugins are to be tried in it.
type trial struct {
	d   *Daemon
	doc *flow.Flow
	uid uint64
	// pins are what the stages run; of a flow that is new, what they will run.
	pins []state.Pin
	// to are the new plugins, by stage. first: there are no old ones.
	to    []state.Pin
	first bool
	limit time.Duration // 0: preflightLimit

	nodes   []pipeline.Node
	stages  []*flow.Stage // by node; nil: a delivery
	spots   []spot        // by node
	bound   []boundPlugin
	closers []func() error
	worked  time.Duration // since the last rest
}

// spot is what a trial has at a node.
type spot struct {
	stage pipeline.Stage // nil: nothing behind it is tried
	// Of a plugin that is tried:
	old, now *edition
	found    *preflight.Comparison
	skipped  string
}

// edition is one version of a plugin at a node.
type edition struct {
	st      registry.Stage
	outputs []string
}

// preflight runs the latest n records of the flow's source through the stages
// before those that are to be tried, and then through their old and their new
// plugin. It works beside the flow: with instances, a worker and a consumer of
// its own, and touches nothing of it. One runs at a time on a node.
//
// The answer has each stage of to. The error is an *api.Error of CodePreflight
// where the source cannot be read just now, or nothing could be compared in
// time.
func (t *trial) preflight(ctx context.Context, n int) (map[string]*api.Preflight, error) {
	if err := t.d.trying.acquire(ctx); err != nil {
		return nil, t.failed("it had to wait for another one: %v", err)
	}
	defer t.d.trying.release()
	if t.limit == 0 {
		t.limit = preflightLimit
	}
	limited, cancel := context.WithTimeout(ctx, t.limit)
	defer cancel()
	defer t.close(context.WithoutCancel(ctx))
	if err := t.prepare(limited); err != nil {
		return nil, t.failed("%v", err)
	}
	report := t.report()
	if !slices.ContainsFunc(t.spots, func(p spot) bool { return p.now != nil && p.skipped == "" }) {
		return report, nil
	}
	recs, partial, err := t.d.tail(limited, t.doc, n)
	if e, ok := errors.AsType[*record.Error](err); ok && e.Class == record.Config {
		return t.skipRest(messageOf(e)), nil
	}
	if err != nil {
		return nil, t.failed("its source cannot be read: %v", err)
	}
	switch {
	case len(recs) == 0 && partial != "":
		return nil, t.failed("%s", partial)
	case len(recs) == 0:
		return t.skipRest(fmt.Sprintf("%s holds no records", t.doc.Source)), nil
	}
	done, err := t.fly(limited, recs)
	if err != nil && limited.Err() == nil {
		return nil, t.failed("%v", err)
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return nil, ctx.Err()
	}
	if done == 0 {
		return nil, t.failed("not one record went through within %v", t.limit)
	}
	if done < len(recs) {
		late := fmt.Sprintf("%d of %d records were not tried: the limit is %v", len(recs)-done, len(recs), t.limit)
		partial = strings.TrimPrefix(partial+"; "+late, "; ")
	}
	report = t.report()
	for _, p := range report {
		if p.Skipped != "" {
			continue
		}
		p.Source, p.Partial = int64(done), partial
		if p.Records == 0 {
			p.Skipped = fmt.Sprintf("none of %d records of the source came to it", done)
		}
	}
	return report, nil
}

func (t *trial) failed(format string, args ...any) *api.Error {
	return &api.Error{Code: api.CodePreflight, Detail: fmt.Sprintf("pre-flight of flow %s: %s; nothing was changed", t.doc.FullName(), fmt.Sprintf(format, args...)),
		Next: "mend what it names, or deploy with --skip-preflight"}
}

// report is what was found so far, by stage.
func (t *trial) report() map[string]*api.Preflight {
	out := map[string]*api.Preflight{}
	for _, pin := range t.to {
		out[pin.Stage] = &api.Preflight{Skipped: "it signs requests or judges answers, and there are none to compare"}
	}
	for i := range t.spots {
		switch p := &t.spots[i]; {
		case p.skipped != "":
			out[t.nodes[i].ID] = &api.Preflight{Skipped: p.skipped}
		case p.found != nil:
			out[t.nodes[i].ID] = p.found.Report()
		}
	}
	return out
}

// skipRest skips every stage that would have been tried.
func (t *trial) skipRest(why string) map[string]*api.Preflight {
	for i := range t.spots {
		if p := &t.spots[i]; p.now != nil && p.skipped == "" {
			p.skipped = why
		}
	}
	return t.report()
}

// prepare lays the flow out, and starts what lies on the way to the stages that
// are tried.
func (t *trial) prepare(ctx context.Context) error {
	byID := map[string]*flow.Stage{}
	lay := layout{
		stage: func(s *flow.Stage) (pipeline.Stage, pipeline.StageInfo, error) {
			byID[s.ID] = s
			return nil, pipeline.StageInfo{ID: s.ID}, nil
		},
		deliver: func(d *flow.Delivery) (int, pipeline.StageInfo, error) { return 0, pipeline.StageInfo{ID: d.ID}, nil },
	}
	var err error
	if t.nodes, err = lay.nodesOf(t.doc); err != nil {
		return err
	}
	t.spots, t.stages = make([]spot, len(t.nodes)), make([]*flow.Stage, len(t.nodes))
	wanted := make([]bool, len(t.nodes))
	for i := range t.nodes {
		n := &t.nodes[i]
		t.stages[i] = byID[n.ID]
		at := slices.IndexFunc(t.to, func(p state.Pin) bool { return p.Stage == n.ID })
		if at < 0 || n.Kind != pipeline.KindStage {
			continue
		}
		p := &t.spots[i]
		p.found = &preflight.Comparison{}
		if p.now, err = t.bind(ctx, t.stages[i], t.to[at]); err != nil {
			return err
		}
		p.skipped = t.why(i, p.now.st)
		if p.skipped == "" {
			wanted[i] = true
			for k, feeds := range t.feeding(i) {
				wanted[k] = wanted[k] || feeds
			}
		}
	}
	for i, w := range wanted {
		if !w {
			continue
		}
		if err := t.start(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// why says why a stage is not tried; st runs its new plugin.
func (t *trial) why(node int, st registry.Stage) string {
	switch {
	case st.Stateful():
		return "it is stateful: its answers depend on earlier records"
	case st.Impure():
		return "it is impure: its answers depend on other hosts"
	}
	for k, feeds := range t.feeding(node) {
		if s := t.stages[k]; feeds && s != nil && s.Plugin != nil {
			switch {
			case s.Plugin.Isolation == "failure":
				return fmt.Sprintf("stage %s before it is stateful: what comes from there depends on earlier records", s.ID)
			case len(s.Plugin.Hosts) > 0:
				return fmt.Sprintf("stage %s before it is impure: it would call other hosts", s.ID)
			}
		}
	}
	return ""
}

// feeding tells which nodes before a node lie on a way to it.
func (t *trial) feeding(node int) []bool {
	leads := make([]bool, node+1)
	leads[node] = true
	for i := node - 1; i >= 0; i-- {
		n := &t.nodes[i]
		switch n.Kind {
		case pipeline.KindStage:
			leads[i] = n.Next != pipeline.Drop && n.Next <= node && leads[n.Next]
		case pipeline.KindBranch:
			for _, next := range n.Cases {
				leads[i] = leads[i] || next != pipeline.Drop && next <= node && leads[next]
			}
		}
	}
	return leads[:node]
}

// start makes what stands at a node: of a plugin that is tried the old one.
func (t *trial) start(ctx context.Context, i int) error {
	s, p := t.stages[i], &t.spots[i]
	if s.Decode != nil {
		var release func() error
		var err error
		p.stage, release, err = t.d.asking().decoder(t.doc)
		if release != nil {
			t.closers = append(t.closers, release)
		}
		return err
	}
	if s.Plugin == nil {
		var err error
		p.stage, err = builtin(t.doc, s)
		return err
	}
	if t.first && p.now != nil {
		p.stage = p.now.st
		return nil
	}
	at := slices.IndexFunc(t.pins, func(pin state.Pin) bool { return pin.Stage == s.ID })
	if at < 0 {
		return fmt.Errorf("stage %s has no pinned digest", s.ID)
	}
	v, err := t.bind(ctx, s, t.pins[at])
	if err != nil {
		return err
	}
	p.stage = v.st
	if p.now != nil {
		p.old = v
	}
	return nil
}

// bind starts a plugin as the stage has it, but for its log and its counts.
func (t *trial) bind(ctx context.Context, s *flow.Stage, pin state.Pin) (*edition, error) {
	info := pipeline.StageInfo{ID: s.ID, Plugin: pluginName(s.Plugin.Ref, pin.Version), Digest: pin.Digest.String(), Otherwise: otherwise(s.Otherwise)}
	lease, err := t.d.modules.Acquire(ctx, info.Digest, registry.Mode(s.Plugin.Function))
	if err != nil {
		return nil, fmt.Errorf("stage %s: plugin %s: %w", s.ID, info.Plugin, err)
	}
	b := boundPlugin{stage: s.ID, info: info, lease: lease}
	cfg := stageConfig(t.doc, s, t.uid, info, nil)
	cfg.ForgetFailures = true
	if b.st, err = lease.Module().NewStage(ctx, cfg); err != nil {
		return nil, errors.Join(err, lease.Release(context.WithoutCancel(ctx)))
	}
	t.bound = append(t.bound, b)
	return &edition{b.st, b.st.Info().Outputs()}, nil
}

func (t *trial) close(ctx context.Context) {
	for _, b := range t.bound {
		if err := errors.Join(b.st.Close(ctx), b.lease.Release(ctx)); err != nil {
			t.d.log.Warn("close stage of a pre-flight", "flow", t.doc.FullName(), "stage", b.stage, "err", err)
		}
	}
	for _, c := range t.closers {
		if err := c(); err != nil {
			t.d.log.Warn("close registry of a pre-flight", "flow", t.doc.FullName(), "err", err)
		}
	}
	t.bound, t.closers = nil, nil
}
