package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

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
	return d.apiFlow(f)
}

// apiFlow is the flow with what this node knows of it.
func (d *Daemon) apiFlow(f *state.Flow) (*api.Flow, error) {
	rev, err := d.store.FlowRevision(f.ID, f.Revision)
	if err != nil {
		return nil, d.apiError(err)
	}
	if rev == nil {
		return nil, notFound("flow %s was deleted", f.FullName())
	}
	doc, err := decodeFlow(rev.Resolved)
	if err != nil {
		return nil, d.apiError(err)
	}
	stats, err := d.store.QueueStats(f.ID)
	if err != nil {
		return nil, d.apiError(err)
	}
	out := &api.Flow{
		Project: f.Project, Name: f.Name, UID: fmt.Sprintf("%016x", f.UID), Description: doc.Description, Labels: doc.Labels,
		Revision: f.Revision, Generation: f.Generation, DeployGeneration: f.Deploy, State: f.State.String(), Reason: f.Reason,
		Order: string(doc.Order), Slots: int(f.Slots), Source: sourceText(doc), Delivery: doc.Delivery.Describe(),
		Created: f.CreatedAt, Updated: f.UpdatedAt, Document: string(rev.Document), Lag: -1,
		Queue: api.Queue{Entries: stats.Entries, Bytes: stats.Bytes, MaxEntries: MaxQueueEntries, MaxBytes: MaxQueueBytes},
	}
	r := d.runner(f.ID)
	out.Stages = stagesOf(doc, rev.Pins, r)
	if err := d.addPartitions(out, f, r); err != nil {
		return nil, err
	}
	if r == nil {
		return out, nil
	}
	out.Problem = r.problem()
	if pipe := r.pipe.Load(); pipe != nil {
		s := pipe.Stats()
		out.Figures = &api.Figures{Since: r.opened.UnixMilli(), In: s.In.Load(), Emitted: s.Emitted.Load(), Dropped: s.Dropped.Load(), Failed: s.Failed.Load(), Retried: s.Retried.Load() + r.retried.Load()}
		out.Problem = cmp.Or(out.Problem, pipe.Problem())
	}
	return out, nil
}

func sourceText(f *flow.Flow) string {
	switch s := f.Source; {
	case s.Kafka != nil:
		return "kafka://" + strings.TrimPrefix(s.Kafka.Connection, "kafka://") + "/" + strings.Join(s.Kafka.Topics, ",")
	case s.File != nil:
		return "file " + s.File.Path
	}
	return "stream"
}

func stagesOf(doc *flow.Flow, pins []state.Pin, r *runner) []api.Stage {
	var figures []pipeline.StageStats
	if r != nil {
		if pipe := r.pipe.Load(); pipe != nil {
			figures = pipe.Stats().Stages
		}
	}
	var out []api.Stage
	add := func(s api.Stage) {
		if i := len(out); i < len(figures) {
			g := &figures[i]
			s.Calls, s.Records, s.Nanos, s.Drops, s.Failures = g.Calls.Load(), g.Records.Load(), g.Nanos.Load(), g.Drops.Load(), g.Failures.Load()
		}
		out = append(out, s)
	}
	for i := range doc.Stages {
		s := &doc.Stages[i]
		a := api.Stage{ID: s.ID, Describe: s.Describe(), Otherwise: string(s.Otherwise)}
		if s.Plugin != nil {
			a.Stateful, a.Impure = s.Plugin.Stateful(), s.Plugin.Impure()
		}
		if at := slices.IndexFunc(pins, func(p state.Pin) bool { return p.Stage == s.ID }); at >= 0 {
			a.Plugin, a.Digest = pluginName(s.Plugin.Ref, pins[at].Version), pins[at].Digest.String()
		}
		add(a)
	}
	add(api.Stage{ID: doc.Delivery.ID, Describe: doc.Delivery.Describe(), Otherwise: string(doc.Delivery.Otherwise)})
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
		a := api.Partition{Topic: p.Topic, Partition: p.Source, Slot: uint32(p.Slot), Committed: -1, Position: -1, End: -1, Lag: -1}
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
	return nil
}
