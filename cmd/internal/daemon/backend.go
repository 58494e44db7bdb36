package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/millrace-io/millrace/cluster/node"
	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

var _ api.Backend = (*Daemon)(nil)

// Node implements api.Backend.
func (d *Daemon) Node(context.Context) (*api.Node, error) {
	flows, err := d.store.Flows()
	if err != nil {
		return nil, d.apiError(err)
	}
	dir, err := filepath.Abs(d.cfg.Dir)
	if err != nil {
		dir = d.cfg.Dir
	}
	d.mu.Lock()
	ready := d.ready
	d.mu.Unlock()
	return &api.Node{
		ID: d.node.ID().String(), Version: d.cfg.Version, Address: d.Addr(), Data: dir, PID: os.Getpid(), Started: d.started.UnixMilli(),
		Incarnation: d.node.Incarnation(), Leader: d.node.IsLeader(), Ready: ready, Applied: d.store.AppliedIndex(), Flows: len(flows),
		Interpreted: d.sandbox.Engine() == sandbox.EngineInterpreter,
	}, nil
}

// apiError maps the errors of state and node to those of the API.
func (d *Daemon) apiError(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*api.Error](err); ok {
		return e
	}
	e := &api.Error{Code: api.CodeInternal, Detail: err.Error()}
	if r, ok := errors.AsType[*state.Refusal](err); ok {
		e.Detail = r.Message
	}
	switch {
	case errors.Is(err, state.NotFound):
		e.Code = api.CodeNotFound
	case errors.Is(err, state.Invalid), errors.Is(err, state.TooMany):
		e.Code = api.CodeInvalid
	case errors.Is(err, state.RevisionMismatch):
		e.Code, e.Next = api.CodeConflict, "read the flow again (`flowctl flow get`), then apply to its present revision"
	case errors.Is(err, state.QueueNotEmpty):
		e.Code, e.Next = api.CodeQueueNotEmpty, "look at the entries (`flowctl queue peek`), or delete them with the flow: --purge"
	case errors.Is(err, state.NotPaused):
		e.Code, e.Next = api.CodeConflict, "pause the flow, then try again"
	case errors.Is(err, state.StateMismatch):
		e.Code, e.Next = api.CodeConflict, "look at the flow (`flowctl flow get`), then try again"
	case errors.Is(err, state.GenerationMismatch):
		e.Code, e.Next = api.CodeConflict, "look at the offsets again, then plan anew"
	case errors.Is(err, state.InUse):
		e.Code, e.Next = api.CodeInUse, "change or delete the flows that use it first"
	case errors.Is(err, state.Exists):
		e.Code, e.Next = api.CodeVersionTaken, "raise the version where the plugin declares it (Cargo.toml, Describe in Go, describe in AssemblyScript, manifest.json); a version that ends in -dev may be deployed again"
	case errors.Is(err, node.ErrNotLeader), errors.Is(err, node.ErrClosed), errors.Is(err, node.ErrAmbiguous), errors.Is(err, context.DeadlineExceeded):
		e.Code, e.Next = api.CodeUnavailable, "try again in a moment"
	}
	return e
}

func notFound(format string, args ...any) *api.Error {
	return &api.Error{Code: api.CodeNotFound, Detail: fmt.Sprintf(format, args...)}
}

func invalid(format string, args ...any) *api.Error {
	return &api.Error{Code: api.CodeInvalid, Detail: fmt.Sprintf(format, args...)}
}

// problems renders the linter's findings.
func problems(ps flow.Problems) []api.Problem {
	out := make([]api.Problem, len(ps))
	for i, p := range ps {
		out[i] = api.Problem{Code: string(p.Code), Level: string(p.Level), File: p.File, Line: p.Line, Column: p.Column, Message: p.Message, Help: p.Help, Rendered: p.Render()}
	}
	return out
}

// refusedDocument is the error of a document with errors.
func refusedDocument(file string, ps flow.Problems) *api.Error {
	if file == "" {
		file = "the document"
	}
	return &api.Error{Code: api.CodeInvalid, Detail: fmt.Sprintf("%s has problems; nothing was changed", file), Next: "mend what is named and apply again; `flowctl lint` checks without a node", Problems: problems(ps)}
}

// pageLimit is how many elements a page has of which so many are asked for; 0:
// the default.
func pageLimit(asked int) int {
	if asked <= 0 {
		return 100
	}
	return min(asked, 1000)
}

// Failures implements api.Backend.
func (d *Daemon) Failures(_ context.Context, q *api.FailureQuery) (*api.FailurePage, error) {
	f, err := d.findFlow(q.Project, q.Name)
	if err != nil {
		return nil, err
	}
	limit := pageLimit(q.Limit)
	filter, err := entryFilter(&q.FailureFilter)
	if err != nil {
		return nil, err
	}
	entries, err := d.store.Failures(f.ID, q.After, limit+1, filter)
	if err != nil {
		return nil, d.apiError(err)
	}
	stats, err := d.store.QueueStats(f.ID)
	if err != nil {
		return nil, d.apiError(err)
	}
	settings := d.settings(f)
	for _, e := range entries {
		settings(e)
	}
	page := &api.FailurePage{Entries: entries, Total: stats.Entries}
	if len(entries) > limit {
		page.Entries = entries[:limit]
		page.Next = entries[limit-1].Seq
	}
	return page, nil
}

// Failure implements api.Backend.
func (d *Daemon) Failure(_ context.Context, project, name string, seq uint64) (*record.Entry, error) {
	f, err := d.findFlow(project, name)
	if err != nil {
		return nil, err
	}
	e, err := d.store.Failure(f.ID, seq)
	if err != nil {
		return nil, d.apiError(err)
	}
	if e == nil {
		return nil, notFound("the failure queue of flow %s has no entry %d", f.FullName(), seq)
	}
	d.settings(f)(e)
	return e, nil
}

func (d *Daemon) findFlow(project, name string) (*state.Flow, error) {
	f, err := d.store.Flow(project, name)
	if err != nil {
		return nil, d.apiError(err)
	}
	if f == nil {
		return nil, &api.Error{Code: api.CodeNotFound, Detail: fmt.Sprintf("there is no flow %s/%s", project, name), Next: "`flowctl flow list` shows those that are there"}
	}
	return f, nil
}
