package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

// offsetsOf is what is known about the offsets of a flow.
type offsetsOf struct {
	flow       *state.Flow
	doc        *flow.Flow
	src        source
	partitions []state.Partition
	committed  map[uint32]int64
}

// offsets reads what the state knows; src is not set.
func (d *Daemon) offsets(project, name string) (*offsetsOf, error) {
	f, err := d.findFlow(project, name)
	if err != nil {
		return nil, err
	}
	o := &offsetsOf{flow: f, committed: map[uint32]int64{}}
	if _, o.doc, err = d.document(f); err != nil {
		return nil, err
	}
	if o.partitions, err = d.store.Partitions(f.ID); err != nil {
		return nil, d.apiError(err)
	}
	marks, err := d.store.Watermarks(f.ID)
	if err != nil {
		return nil, d.apiError(err)
	}
	for _, w := range marks {
		o.committed[w.Part] = w.Low
	}
	return o, nil
}

// ask opens the flow's source to ask it; the caller closes it.
func (d *Daemon) ask(o *offsetsOf) (err error) {
	p := d.asking()
	if p.known, err = d.topicsOf(o.flow.ID); err == nil {
		o.src, err = p.source(o.doc)
	}
	return err
}

// sourceError is the error of a source that cannot be asked.
func sourceError(f *state.Flow, err error) error {
	e := record.AsError(err)
	return &api.Error{Code: api.CodeUnavailable, Detail: fmt.Sprintf("source of flow %s: %s", f.FullName(), messageOf(e)), Next: "see that the source can be reached, then try again"}
}

func (o *offsetsOf) from(p state.Partition) int64 {
	if low, ok := o.committed[p.Part]; ok {
		return low
	}
	return -1
}

// bounds are the first offset that the source has of a partition, and the one
// after its last.
func (o *offsetsOf) bounds(ctx context.Context, p record.Partition) (start, end int64, err error) {
	if start, err = o.src.Start(ctx, p, connector.Start{}); err == nil {
		end, err = o.src.Start(ctx, p, connector.Start{Latest: true})
	}
	return start, end, err
}

// Offsets implements api.Backend.
func (d *Daemon) Offsets(ctx context.Context, project, name string) (*api.Offsets, error) {
	o, err := d.offsets(project, name)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, probe)
	defer cancel()
	// A source that cannot be asked is no reason not to tell the rest.
	asked := readAgain(o.doc) && d.ask(o) == nil
	if asked {
		defer o.src.Close()
	}
	out := &api.Offsets{Flow: o.flow.FullName(), State: o.flow.State.String(), Generation: o.flow.Generation}
	lanes := map[record.Partition]int64{}
	if r := d.runner(o.flow.ID); r != nil {
		if pipe := r.pipe.Load(); pipe != nil {
			for p, l := range pipe.Status() {
				lanes[p] = l.Next
			}
		}
	}
	for _, p := range o.partitions {
		at := partitionOf(p)
		po := api.PartitionOffset{Topic: p.Topic, Broker: p.Broker, Partition: p.Source, Committed: o.from(p), Position: -1, Start: -1, End: -1, Lag: -1}
		if next, ok := lanes[at]; ok {
			po.Position = next
		}
		if asked {
			start, end, err := o.bounds(ctx, at)
			if asked = err == nil; asked {
				po.Start, po.End = start, end
			}
		}
		if po.Committed >= 0 && po.End >= 0 {
			po.Lag = max(0, po.End-po.Committed)
		}
		out.Partitions = append(out.Partitions, po)
	}
	return out, nil
}

func partitionOf(p state.Partition) record.Partition {
	return record.Partition{Topic: p.Topic, Broker: p.Broker, Num: p.Source}
}

// ResetOffsets implements api.Backend.
func (d *Daemon) ResetOffsets(ctx context.Context, req *api.OffsetsReset) (*api.OffsetsPlan, error) {
	o, err := d.offsets(req.Project, req.Name)
	if err != nil {
		return nil, err
	}
	if !readAgain(o.doc) {
		return nil, &api.Error{Code: api.CodeInvalid, Detail: fmt.Sprintf("the source of flow %s is of kind %s: what it gave cannot be read again", o.flow.FullName(), o.doc.Source.Kind())}
	}
	if err := d.ask(o); err != nil {
		return nil, sourceError(o.flow, err)
	}
	defer o.src.Close()
	asking, cancel := context.WithTimeout(ctx, probe)
	defer cancel()
	if _, err := o.src.Partitions(asking); err != nil && record.AsError(err).Class == record.Config {
		return nil, &api.Error{Code: api.CodeConflict, Detail: fmt.Sprintf("the offsets of flow %s cannot be reset: %s", o.flow.FullName(), messageOf(record.AsError(err)))}
	}
	plan, positions, err := o.plan(asking, req)
	if err != nil {
		return nil, err
	}
	stats, err := d.store.QueueStats(o.flow.ID)
	if err != nil {
		return nil, d.apiError(err)
	}
	if stats.Entries > 0 {
		plan.Warnings = append(plan.Warnings, fmt.Sprintf("%d entries stay in the failure queue: what is read again may be delivered beside them", stats.Entries))
	}
	if stats.Kept > 0 {
		plan.Warnings = append(plan.Warnings, fmt.Sprintf("%d records are kept for another attempt: those that are read again are given up as they are kept", stats.Kept))
	}
	if req.DryRun {
		return plan, nil
	}
	if req.Hash != plan.Hash {
		return nil, &api.Error{Code: api.CodeConflict, Detail: fmt.Sprintf("the plan for flow %s is another one now: it or its source have moved on", o.flow.FullName()), Next: "pause the flow, look at the plan again (--dry-run), then reset"}
	}
	if plan.Warnings, err = d.resetOffsets(ctx, o, positions, plan.Warnings); err != nil {
		return nil, err
	}
	return plan, nil
}

// resetReason is why a flow is paused while its offsets are being reset.
const resetReason = "its offsets are being reset"

// leftAlone is the warning of a reset whose flow somebody else paused.
const leftAlone = "the flow's state was changed meanwhile, and is left as it is now"

// resetOffsets carries a plan out, which was made of o, and adds to warnings. A
// running flow is paused meanwhile, and goes on unless somebody else pauses it.
// Its consumer group is moved along before, lest it overwrites what the flow
// mirrors then.
func (d *Daemon) resetOffsets(ctx context.Context, o *offsetsOf, positions []state.Position, warnings []string) (warned []string, err error) {
	f, warned := o.flow, warnings
	now, err := d.findFlow(f.Project, f.Name)
	if err != nil {
		return nil, err
	}
	paused, err := d.hold(ctx, now)
	switch {
	case err != nil:
		return nil, d.apiError(err)
	case paused == nil && now.State == state.Running:
		warned = append(warned, leftAlone)
	}
	if paused != nil {
		defer func() {
			goesOn, e := d.goOn(context.WithoutCancel(ctx), paused)
			switch {
			case err != nil:
			case e != nil:
				err = &api.Error{Code: api.CodeUnavailable, Detail: fmt.Sprintf("the offsets of flow %s are reset, but it stays paused: %v", f.FullName(), e), Next: "`flowctl flow resume " + f.Name + "`"}
			case !goesOn:
				warned = append(warned, leftAlone)
			}
		}()
	}
	if err := d.awaitEnd(ctx, f); err != nil {
		return nil, err
	}
	if _, err := d.node.Propose(ctx, &state.OffsetReset{Flow: f.ID, IfGeneration: f.Generation, Positions: positions}); err != nil {
		return nil, d.apiError(err)
	}
	if e := o.mirrorReset(ctx, positions); e != nil {
		warned = append(warned, fmt.Sprintf("consumer group %s, which shows the flow's offsets, could not be moved along: %v", o.doc.GroupName(), e))
	}
	return warned, nil
}

// hold pauses a flow for a reset as long as it is in the state of now; nil: it
// does not run, or somebody else has changed its state.
func (d *Daemon) hold(ctx context.Context, now *state.Flow) (paused *state.Flow, err error) {
	if now.State != state.Running {
		return nil, nil
	}
	res, err := d.node.Propose(ctx, &state.FlowState{Flow: now.ID, State: state.Paused, Reason: resetReason, If: now.InState()})
	if errors.Is(err, state.StateMismatch) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return res.Value.(*state.Flow), nil
}

// goOn resumes a flow, unless its state is another than that of paused.
func (d *Daemon) goOn(ctx context.Context, paused *state.Flow) (resumed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, probe)
	defer cancel()
	_, err = d.node.Propose(ctx, &state.FlowState{Flow: paused.ID, State: state.Running, If: paused.InState()})
	if errors.Is(err, state.StateMismatch) || errors.Is(err, state.NotFound) {
		return false, nil
	}
	return err == nil, err
}

// awaitEnd waits for the last commit of a flow that was paused.
func (d *Daemon) awaitEnd(ctx context.Context, f *state.Flow) error {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.DrainLimit+probe)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ended := true
		for _, r := range d.active() {
			ended = ended && (r.id != f.ID || r.ended())
		}
		if ended {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return &api.Error{Code: api.CodeUnavailable, Detail: fmt.Sprintf("flow %s has not ended what is under way", f.FullName()), Next: "pause it, wait a moment, then try again"}
		}
	}
}

// plan says where each partition goes.
func (o *offsetsOf) plan(ctx context.Context, req *api.OffsetsReset) (*api.OffsetsPlan, []state.Position, error) {
	find, err := o.target(req)
	if err != nil {
		return nil, nil, err
	}
	plan := &api.OffsetsPlan{Flow: o.flow.FullName(), State: o.flow.State.String(), Generation: o.flow.Generation + 1, DryRun: req.DryRun}
	var positions []state.Position
	hash := sha256.New()
	fmt.Fprintf(hash, "%016x %d %s\n", o.flow.UID, o.flow.Generation, req.To)
	for _, p := range o.partitions {
		to, moved, err := find(ctx, p)
		if err != nil {
			return nil, nil, err
		}
		if !moved {
			continue
		}
		start, end, err := o.bounds(ctx, partitionOf(p))
		if err != nil {
			return nil, nil, sourceError(o.flow, err)
		}
		m := api.OffsetsMove{Topic: p.Topic, Broker: p.Broker, Partition: p.Source, From: o.from(p), To: min(max(to, start), end)}
		switch {
		case to < start:
			m.Note = fmt.Sprintf("the source begins at %d", start)
		case to > end:
			m.Note = fmt.Sprintf("the source ends at %d", end)
		}
		if m.From < 0 {
			m.Repeated, m.Skipped = -1, -1
		} else {
			m.Repeated, m.Skipped = max(0, m.From-max(m.To, start)), max(0, m.To-m.From)
		}
		plan.Repeated += max(0, m.Repeated)
		plan.Skipped += max(0, m.Skipped)
		plan.Partitions = append(plan.Partitions, m)
		positions = append(positions, state.Position{Part: p.Part, Offset: m.To})
		if req.To != api.OffsetsLatest { // whose end moves as the source is written
			fmt.Fprintf(hash, "%d %d\n", p.Part, m.To)
		} else {
			fmt.Fprintf(hash, "%d\n", p.Part)
		}
	}
	if len(positions) == 0 {
		return nil, nil, &api.Error{Code: api.CodeConflict, Detail: fmt.Sprintf("flow %s has no partition that could be moved", o.flow.FullName()), Next: "let it run once, so that it finds its partitions"}
	}
	plan.Hash = hex.EncodeToString(hash.Sum(nil)[:12])
	return plan, positions, nil
}

// target is a function that says where a partition goes, and whether it is
// moved at all.
func (o *offsetsOf) target(req *api.OffsetsReset) (func(context.Context, state.Partition) (int64, bool, error), error) {
	if (req.To == "") == (len(req.Positions) == 0) {
		return nil, invalid("a reset needs either a target (earliest, latest, -N, a time) or offsets of partitions")
	}
	if len(req.Positions) > 0 {
		return o.positions(req.Positions)
	}
	if n, err := strconv.ParseInt(req.To, 10, 64); err == nil && n < 0 {
		return func(ctx context.Context, p state.Partition) (int64, bool, error) {
			from := o.from(p)
			if from < 0 {
				return 0, false, nil
			}
			return max(0, from+n), true, nil
		}, nil
	}
	start, err := connector.ParseStart(req.To)
	if err != nil {
		return nil, invalid("target %q: it is earliest, latest, -N or a time like 2026-11-01T00:00:00Z", req.To)
	}
	if o.doc.Source.Start() == "" && !start.Time.IsZero() {
		return nil, invalid("the source of flow %s has no times: give earliest, latest, -N or an offset", o.flow.FullName())
	}
	return func(ctx context.Context, p state.Partition) (int64, bool, error) {
		at, err := o.src.Start(ctx, partitionOf(p), start)
		if err != nil {
			err = sourceError(o.flow, err)
		}
		return at, true, err
	}, nil
}

// positions checks explicit offsets.
func (o *offsetsOf) positions(targets []api.OffsetTarget) (func(context.Context, state.Partition) (int64, bool, error), error) {
	to := map[uint32]int64{}
	for _, t := range targets {
		var found []state.Partition
		for _, p := range o.partitions {
			if p.Source == t.Partition && (t.Topic == "" || t.Topic == p.Topic) && (t.Broker == "" || t.Broker == p.Broker) {
				found = append(found, p)
			}
		}
		of := ofTopic(t.Topic, t.Broker)
		switch {
		case t.Topic == "" && o.topics() > 1:
			return nil, invalid("flow %s reads several topics: name that of partition %d", o.flow.FullName(), t.Partition)
		case len(found) == 0:
			return nil, invalid("flow %s has no partition %d%s", o.flow.FullName(), t.Partition, of)
		case len(found) > 1:
			return nil, invalid("queue %d%s is on several brokers: write TOPIC/BROKER/QUEUE=OFFSET, as %s", t.Partition, of, partitionName(found[0]))
		case t.Offset < 0:
			return nil, invalid("offset %d of partition %s is below 0", t.Offset, partitionName(found[0]))
		}
		if _, twice := to[found[0].Part]; twice {
			return nil, invalid("partition %s is given two offsets", partitionName(found[0]))
		}
		to[found[0].Part] = t.Offset
	}
	return func(_ context.Context, p state.Partition) (int64, bool, error) {
		at, ok := to[p.Part]
		return at, ok, nil
	}, nil
}

// topics is how many topics the flow has partitions of.
func (o *offsetsOf) topics() int {
	seen := map[string]bool{}
	for _, p := range o.partitions {
		seen[p.Topic] = true
	}
	return len(seen)
}

// partitionName is topic/partition or topic/broker/queue.
func partitionName(p state.Partition) string {
	if p.Broker != "" {
		return fmt.Sprintf("%s/%s/%d", p.Topic, p.Broker, p.Source)
	}
	return fmt.Sprintf("%s/%d", p.Topic, p.Source)
}

func ofTopic(topic, broker string) string {
	of := ""
	if topic != "" {
		of += " of topic " + topic
	}
	if broker != "" {
		of += " on broker " + broker
	}
	return of
}
