package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/runtime/flow"
)

// Rollback implements api.Backend.
func (d *Daemon) Rollback(ctx context.Context, req *api.Rollback) (*api.FlowPlan, error) {
	for range 5 {
		plan, err := d.rollback(ctx, req)
		if !errors.Is(err, errMeanwhile) {
			return plan, err
		}
	}
	return nil, &api.Error{Code: api.CodeConflict, Detail: "the flow is being changed by others", Next: "look at its revisions again (`flowctl history`), then roll back"}
}

func (d *Daemon) rollback(ctx context.Context, req *api.Rollback) (*api.FlowPlan, error) {
	head, err := d.findFlow(req.Project, req.Name)
	if err != nil {
		return nil, err
	}
	to, err := d.earlier(head, req.Revision)
	if err != nil {
		return nil, err
	}
	doc, err := decodeFlow(to.Resolved)
	if err != nil {
		return nil, d.apiError(err)
	}
	if err := d.connectionsThere(head, to, doc); err != nil {
		return nil, err
	}
	plan := &api.FlowPlan{Project: head.Project, Name: head.Name, From: to.Number, DryRun: req.DryRun}
	put := &state.FlowPut{Project: head.Project, Name: head.Name, UID: head.UID, Document: to.Document, Resolved: to.Resolved, Pins: to.Pins, Connections: to.Connections, IfMatch: req.IfMatch}
	if err := d.planUpdate(head, doc, put, plan); err != nil {
		return nil, err
	}
	if err := d.tryPlugins(ctx, doc, put.Pins, head); err != nil {
		return nil, err
	}
	if req.DryRun || plan.Action == "unchanged" {
		return plan, nil
	}
	r, err := d.proposeChange(ctx, head.Project, head.Name, plan.Revision, put)
	if errors.Is(err, errMeanwhile) {
		return nil, err
	}
	if err != nil {
		return nil, d.apiError(err)
	}
	plan.Revision = r.Revision
	return plan, nil
}

// earlier is a revision of a flow; 0 is the one before the present one.
func (d *Daemon) earlier(head *state.Flow, number uint32) (*state.Revision, error) {
	next := fmt.Sprintf("`flowctl history %s` shows those that are there", head.Name)
	if number == 0 {
		if head.Revision <= 1 {
			return nil, &api.Error{Code: api.CodeNotFound, Detail: fmt.Sprintf("flow %s has one revision: there is none to go back to", head.FullName()), Next: next}
		}
		number = head.Revision - 1
	}
	rev, err := d.store.FlowRevision(head.ID, number)
	if err != nil {
		return nil, d.apiError(err)
	}
	if rev == nil {
		return nil, &api.Error{Code: api.CodeNotFound, Detail: fmt.Sprintf("flow %s has no revision %d", head.FullName(), number), Next: next}
	}
	return rev, nil
}

// connectionsThere reports connections of an earlier revision that are gone.
func (d *Daemon) connectionsThere(head *state.Flow, rev *state.Revision, doc *flow.Flow) error {
	for _, name := range doc.Connections() {
		if _, ok := flow.Anonymous(name); ok {
			continue
		}
		c, err := d.storedName(doc.Project, name)
		if err != nil {
			return d.apiError(err)
		}
		if c == nil || !slices.Contains(rev.Connections, c.Name) {
			return &api.Error{Code: api.CodeConflict, Detail: fmt.Sprintf("revision %d of flow %s uses connection %s, which is gone", rev.Number, head.FullName(), name), Next: "apply the connection's document, then roll back"}
		}
	}
	return nil
}
