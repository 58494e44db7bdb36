package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/runtime/flow"
)

// preflights carries out the pre-flight that a plan asks for, in each flow that
// it would change.
func (d *Daemon) preflights(ctx context.Context, flows []*state.Flow, changes []*state.Activate, req *api.Deploy, dep *api.Deployment) error {
	if err := checkPreflight(req.Preflight); err != nil || req.Preflight == 0 {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, preflightsLimit)
	defer cancel()
	for i, f := range flows {
		rev, err := d.store.FlowRevision(f.ID, f.Revision)
		if err != nil || rev == nil {
			return d.apiError(errors.Join(err, fmt.Errorf("revision %d of flow %s cannot be read", f.Revision, f.FullName())))
		}
		doc, err := decodeFlow(rev.Resolved)
		if err != nil {
			return d.apiError(err)
		}
		t := &trial{d: d, doc: doc, uid: f.UID, pins: rev.Pins, to: changes[i].Pins}
		found, err := t.preflight(limited, req.Preflight)
		if err != nil {
			return err
		}
		for k := range dep.Flows[i].Stages {
			s := &dep.Flows[i].Stages[k]
			s.Preflight = found[s.Stage]
		}
	}
	return nil
}

// preflightDocument does the same for a document: what the plugins of a new
// flow make of records, and how those of one whose document stays differ. Where
// the document changes too it says that they were not compared.
func (d *Daemon) preflightDocument(ctx context.Context, req *api.PutFlow, f *flow.Flow, head *state.Flow, put *state.FlowPut, plan *api.FlowPlan) error {
	if err := checkPreflight(req.Preflight); err != nil || req.Preflight == 0 || !req.DryRun {
		return err
	}
	t := &trial{d: d, doc: f, uid: put.UID, pins: put.Pins, to: put.Pins, first: head == nil}
	old, same := map[string]state.Pin{}, true
	if head != nil {
		rev, err := d.store.FlowRevision(head.ID, head.Revision)
		if err != nil || rev == nil {
			return d.apiError(errors.Join(err, fmt.Errorf("revision %d of flow %s cannot be read", head.Revision, head.FullName())))
		}
		same = bytes.Equal(rev.Resolved, put.Resolved)
		t.uid, t.pins, t.to = head.UID, rev.Pins, nil
		for _, p := range rev.Pins {
			old[p.Stage] = p
		}
		for _, p := range put.Pins {
			if was, ok := old[p.Stage]; ok && was.Digest != p.Digest {
				t.to = append(t.to, p)
			}
		}
	}
	if len(t.to) == 0 {
		return nil
	}
	found := map[string]*api.Preflight{}
	for _, p := range t.to {
		found[p.Stage] = &api.Preflight{Skipped: "the flow's document changes with it"}
	}
	if same {
		var err error
		if found, err = t.preflight(ctx, req.Preflight); err != nil {
			return err
		}
	}
	for _, p := range t.to {
		s := api.DeploymentStage{Stage: p.Stage, NewVersion: p.Version, NewDigest: p.Digest.String(), Preflight: found[p.Stage]}
		if was, ok := old[p.Stage]; ok {
			s.OldVersion, s.OldDigest = was.Version, was.Digest.String()
		}
		plan.Stages = append(plan.Stages, s)
	}
	return nil
}

func checkPreflight(n int) error {
	if n < 0 || n > api.MaxPreflight {
		return invalid("a pre-flight takes 0 to %d records, not %d", api.MaxPreflight, n)
	}
	return nil
}

// checkPlanned refuses to carry out a plan that would be another one now.
func checkPlanned(req *api.Deploy, flows []*state.Flow) error {
	if len(req.Planned) == 0 {
		return nil
	}
	changed := func(name, what string) error {
		return &api.Error{Code: api.CodeConflict, Detail: fmt.Sprintf("flow %s %s since the plan was made; nothing was changed", name, what), Next: "deploy again: the pre-flight was of another revision"}
	}
	for _, p := range req.Planned {
		at := slices.IndexFunc(flows, func(f *state.Flow) bool { return f.FullName() == p.Flow })
		switch {
		case at < 0:
			return changed(p.Flow, "was changed or deleted")
		case flows[at].Revision != p.Revision:
			return changed(p.Flow, fmt.Sprintf("was changed to revision %d, from %d,", flows[at].Revision, p.Revision))
		}
	}
	for _, f := range flows {
		if !slices.ContainsFunc(req.Planned, func(p api.Planned) bool { return p.Flow == f.FullName() }) {
			return changed(f.FullName(), "came to use the plugin")
		}
	}
	return nil
}

// preflightSeen is what a revision of a flow is to tell of its pre-flight.
func preflightSeen(all map[string]api.Seen, flow string) (*state.Preflight, error) {
	s, ok := all[flow]
	if !ok {
		return nil, nil
	}
	return seenOf(&s)
}

func seenOf(s *api.Seen) (*state.Preflight, error) {
	if s == nil {
		return nil, nil
	}
	if s.Records < 0 || s.Differ < 0 || s.NewFailures < 0 {
		return nil, invalid("seen: a number of records is below 0")
	}
	return &state.Preflight{Skipped: s.Skipped, Records: uint64(s.Records), Differ: uint64(s.Differ), NewFailures: uint64(s.NewFailures), Accepted: s.Accepted}, nil
}
