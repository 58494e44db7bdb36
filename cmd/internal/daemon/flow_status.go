package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/pipeline"
	"github.com/millrace-io/millrace/runtime/record"
)

// Flows implements api.Backend.
func (d *Daemon) Flows(ctx context.Context, project string) ([]*api.Flow, error) {
	flows, err := d.store.Flows()
	if err != nil {
		return nil, d.apiError(err)
	}
	out := make([]*api.Flow, 0, len(flows))
	for _, f := range flows {
		if project != "" && f.Project != project {
			continue
		}
		af, err := d.apiFlow(f)
		if e, ok := errors.AsType[*api.Error](err); ok && e.Code == api.CodeNotFound {
			continue // deleted since
		}
		if err != nil {
			return nil, err
		}
		af.Document, af.Partitions = "", nil
		if af.Receipt != nil {
			af.Receipt.Partitions = nil
		}
		out = append(out, af)
	}
	slices.SortFunc(out, func(a, b *api.Flow) int {
		return cmp.Or(strings.Compare(a.Project, b.Project), strings.Compare(a.Name, b.Name))
	})
	return out, nil
}

// Flow implements api.Backend.
func (d *Daemon) Flow(_ context.Context, project, name string) (*api.Flow, error) {
	f, err := d.findFlow(project, name)
	if err != nil {
		return nil, err
	}
	out, err := d.apiFlow(f)
	if err == nil && out.Retries != nil {
		if err = d.countHeld(f, out.Retries); err != nil {
			return nil, d.apiError(err)
		}
	}
	return out, err
}

// document is the present revision of a flow, and what it resolved to. Errors
// are the API's.
func (d *Daemon) document(f *state.Flow) (*state.Revision, *flow.Flow, error) {
	rev, err := d.store.FlowRevision(f.ID, f.Revision)
	if err != nil {
		return nil, nil, d.apiError(err)
	}
	if rev == nil {
		return nil, nil, notFound("flow %s was deleted", f.FullName())
	}
	doc, err := decodeFlow(rev.Resolved)
	if err != nil {
		return nil, nil, d.apiError(err)
	}
	return rev, doc, nil
}

// apiFlow is the flow with what this node knows of it.
func (d *Daemon) apiFlow(f *state.Flow) (*api.Flow, error) {
	rev, doc, err := d.document(f)
	if err != nil {
		return nil, err
	}
	stats, err := d.store.QueueStats(f.ID)
	if err != nil {
		return nil, d.apiError(err)
	}
	out := &api.Flow{
		Project: f.Project, Name: f.Name, UID: fmt.Sprintf("%016x", f.UID), Description: doc.Description, Labels: doc.Labels,
		Revision: f.Revision, Generation: f.Generation, DeployGeneration: f.Deploy, State: f.State.String(), Reason: f.Reason,
		Order: string(doc.Order), Slots: int(f.Slots), Source: doc.Source.String(), Delivery: deliveryText(doc),
		Created: f.CreatedAt, Updated: f.UpdatedAt, Document: string(rev.Document), Lag: -1,
	}
	if out.Queue, err = d.queueStatus(f, doc, stats); err != nil {
		return nil, d.apiError(err)
	}
	r := d.runner(f.ID)
	if stats.Kept > 0 {
		if out.Retries, err = d.retryStatus(f, stats); err != nil {
			return nil, d.apiError(err)
		}
	}
	out.Stages = stagesOf(doc, rev.Pins, r)
	out.Deliveries = deliveriesOf(doc, r)
	if err := d.addPartitions(out, f, r); err != nil {
		return nil, err
	}
	if r == nil {
		return out, nil
	}
	addHeld(out, r)
	out.Problem = r.problem()
	if pipe := r.pipe.Load(); pipe != nil {
		s := pipe.Stats()
		out.Figures = &api.Figures{Since: r.opened.UnixMilli(), In: s.In.Load(), Emitted: s.Emitted.Load(), Dropped: s.Dropped.Load(), Failed: s.Failed.Load(), Retried: s.Retried.Load() + r.retried.Load()}
		out.Skips, out.Figures.Skipped = r.skips.all()
		out.Problem = cmp.Or(out.Problem, pipe.Problem())
		out.Connections = r.outs.usage()
		if allowed := doc.Limits.Records; allowed > 0 {
			out.Rate = &api.Rate{Allowed: allowed, Used: r.rate.perSecond(s.In.Load(), time.Now())}
		}
	}
	return out, nil
}

// addHeld says that the flow holds itself back, and how often it has.
func addHeld(out *api.Flow, r *runner) {
	now, pauses := r.hold.current()
	out.AutoPauses = pauses
	if now.kind == "" || out.State != state.Running.String() {
		return
	}
	out.State, out.Reason = api.StateAutoPaused, now.reason
	out.Held = &api.Held{Reason: now.reason, Since: now.since.UnixMilli()}
}

// retryStatus is what is kept of a flow for another attempt, without Held.
func (d *Daemon) retryStatus(f *state.Flow, stats state.QueueStats) (*api.Retries, error) {
	out := &api.Retries{Entries: stats.Kept, Bytes: stats.KeptBytes}
	for part := range f.Parts {
		_, _, next, err := d.store.RetryDue(f.ID, part, -1, state.RetryCursor{}, 1)
		if err != nil {
			return nil, err
		}
		out.NextDue = earlier(out.NextDue, next)
	}
	return out, nil
}

// maxHeldCount is how many kept records of a partition are looked through to
// count those that wait behind others: who asks often must not keep the node
// from its work.
const maxHeldCount = 1000

// countHeld completes Retries.
func (d *Daemon) countHeld(f *state.Flow, out *api.Retries) error {
	for part := range f.Parts {
		held, err := d.store.RetriesHeld(f.ID, part, maxHeldCount)
		if err != nil {
			return err
		}
		out.Held += uint64(held)
	}
	return nil
}

// deliveryText describes a flow's deliveries in a line.
func deliveryText(f *flow.Flow) string {
	var texts []string
	for _, d := range f.Deliveries() {
		texts = append(texts, d.Describe())
	}
	return strings.Join(texts, "; ")
}

// place is a stage or a delivery where it stands in a flow's document.
type place struct {
	stage    *flow.Stage
	delivery *flow.Delivery
	branch   string // "by-country: else"; "" outside of branches
}

// eachPlace visits the stages and deliveries of a flow in the order of the
// document.
func eachPlace(f *flow.Flow, visit func(place)) {
	if s := f.Decoding(); s != nil {
		visit(place{stage: s})
	}
	eachStage(f.Stages, "", visit)
	if f.Delivery.ID != "" {
		visit(place{delivery: &f.Delivery})
	}
}

func eachStage(stages []flow.Stage, branch string, visit func(place)) {
	for i := range stages {
		s := &stages[i]
		visit(place{stage: s, branch: branch})
		if s.Branch == nil {
			continue
		}
		each := func(c *flow.BranchCase, name string) {
			name = s.ID + ": " + name
			eachStage(c.Stages, name, visit)
			if c.Delivery != nil {
				visit(place{delivery: c.Delivery, branch: name})
			}
		}
		for j := range s.Branch.Cases {
			each(&s.Branch.Cases[j], s.Branch.Cases[j].When)
		}
		each(&s.Branch.Else, "else")
	}
}

func stagesOf(doc *flow.Flow, pins []state.Pin, r *runner) []api.Stage {
	var figures *pipeline.Stats
	if r != nil {
		if pipe := r.pipe.Load(); pipe != nil {
			figures = pipe.Stats()
		}
	}
	var out []api.Stage
	eachPlace(doc, func(p place) {
		a := api.Stage{Branch: p.branch}
		if p.delivery != nil {
			a.ID, a.Describe, a.Otherwise = p.delivery.ID, p.delivery.Describe(), otherwiseText(p.delivery.Otherwise, p.delivery.Aside)
			a.Plugins = deliveryPlugins(doc, p.delivery.ID, pins)
		} else {
			s := p.stage
			a.ID, a.Describe, a.Otherwise = s.ID, s.Describe(), otherwiseText(s.Otherwise, s.Aside)
			if s.Plugin != nil {
				a.Stateful, a.Impure, a.Setting = s.Plugin.Stateful(), s.Plugin.Impure(), settingOf(s)
			}
			if at := slices.IndexFunc(pins, func(p state.Pin) bool { return p.Stage == s.ID }); at >= 0 {
				a.Plugin, a.Digest = pluginName(s.Plugin.Ref, pins[at].Version), pins[at].Digest.String()
			}
		}
		if figures != nil {
			if g := figures.Stage(a.ID); g != nil {
				a.Calls, a.Records, a.Nanos, a.Drops, a.Failures = g.Calls.Load(), g.Records.Load(), g.Nanos.Load(), g.Drops.Load(), g.Failures.Load()
			}
		}
		out = append(out, a)
	})
	return out
}

// deliveryPlugins are the plugins that sign and validate for a delivery.
func deliveryPlugins(doc *flow.Flow, id string, pins []state.Pin) (out []api.DeliveryPlugin) {
	for _, s := range doc.Plugins() {
		if s.ID != id+".sign" && s.ID != id+".validate" {
			continue
		}
		if at := slices.IndexFunc(pins, func(p state.Pin) bool { return p.Stage == s.ID }); at >= 0 {
			out = append(out, api.DeliveryPlugin{ID: s.ID, Plugin: pluginName(s.Plugin.Ref, pins[at].Version), Digest: pins[at].Digest.String(), Setting: settingOf(s)})
		}
	}
	return out
}

func otherwiseText(o flow.Otherwise, aside *flow.Topic) string {
	if o == flow.OtherwiseTopic && aside != nil {
		return aside.String()
	}
	return string(o)
}

func deliveriesOf(doc *flow.Flow, r *runner) []api.Delivery {
	var out []api.Delivery
	for _, d := range doc.Deliveries() {
		a := api.Delivery{ID: d.ID, Describe: d.Describe(), Connection: d.Connection()}
		if r != nil && r.pipe.Load() != nil {
			if at := r.outs.place(d.ID); at >= 0 {
				a.Problem = r.outs.list[at].Problem()
			}
		}
		out = append(out, a)
	}
	return out
}

func (d *Daemon) addPartitions(out *api.Flow, f *state.Flow, r *runner) error {
	partitions, err := d.store.Partitions(f.ID)
	if err != nil {
		return d.apiError(err)
	}
	slots, err := d.store.Slots(f.ID)
	if err != nil {
		return d.apiError(err)
	}
	marks, err := d.store.Watermarks(f.ID)
	if err != nil {
		return d.apiError(err)
	}
	committed := map[uint32]int64{}
	for _, w := range marks {
		committed[w.Part] = w.Low
	}
	lanes, ends := map[record.Partition]pipeline.LaneStatus{}, map[record.Partition]int64{}
	if r != nil {
		ends = r.lastEnds()
		if pipe := r.pipe.Load(); pipe != nil {
			lanes = pipe.Status()
		}
	}
	known := true
	lag := int64(0)
	for _, p := range partitions {
		at := record.Partition{Topic: p.Topic, Broker: p.Broker, Num: p.Source}
		a := api.Partition{Topic: p.Topic, Broker: p.Broker, Partition: p.Source, Slot: uint32(p.Slot), Committed: -1, Position: -1, End: -1, Lag: -1}
		if int(p.Slot) < len(slots) {
			s := slots[p.Slot]
			a.Epoch = s.Epoch
			if s.Owner != (state.Slot{}).Owner {
				a.Owner = s.Owner.String()
			}
		}
		if c, ok := committed[p.Part]; ok {
			a.Committed = c
		}
		if l, ok := lanes[at]; ok {
			a.Position, a.InFlight, a.Paused, a.Problem = l.Next, l.InFlight, l.Paused, l.Problem
		}
		if end, ok := ends[at]; ok {
			a.End = max(end, a.Position) // the end was asked for a moment ago
		}
		if a.End >= 0 && a.Committed >= 0 {
			a.Lag = max(0, a.End-a.Committed)
			lag += a.Lag
		} else {
			known = false
		}
		out.Partitions = append(out.Partitions, a)
	}
	if known && len(partitions) > 0 {
		out.Lag = lag
	}
	if out.Receipt, err = d.receipt(f, partitions); err != nil {
		return d.apiError(err)
	}
	return nil
}
