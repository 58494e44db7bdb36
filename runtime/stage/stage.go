// Package stage holds the stages that are built in: filter, map with set,
// rename, drop and keep, cleanup, and branch. They answer batches in the types of package record,
// as the stages of the sandbox do, and are pure: no clock, no I/O, nothing
// that one record leaves for the next.
//
// Plugins are not here, and neither are deliveries.
package stage

import (
	"context"
	"fmt"
	"sync"

	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

// Stage is a built-in stage.
type Stage interface {
	// Process answers every record of b in out, to which it appends: an emit,
	// a drop or a failure of class schema, in the order of b. It keeps
	// neither b nor out, changes nothing in b, and blocks for nothing. The
	// error is ctx's; what out holds then is not an answer. It is safe for
	// concurrent use.
	Process(ctx context.Context, b *record.Batch, out *record.Results) error
}

// New makes the stage that s describes; scope is the flow's (flow.Flow.Scope).
// s must be neither a plugin nor a branch: see NewBranch.
func New(s *flow.Stage, scope expr.Scope) (Stage, error) {
	switch {
	case s.Plugin != nil:
		return nil, fmt.Errorf("make stage %s: it is a plugin, not built in", s.ID)
	case s.Branch != nil:
		return nil, fmt.Errorf("make stage %s: it is a branch, whose cases are other stages", s.ID)
	case s.Cleanup != nil:
		c, err := NewCleanup(s.Cleanup)
		if err != nil {
			return nil, fmt.Errorf("make stage %s: %w", s.ID, err)
		}
		return c, nil
	case s.Map != nil:
		m, err := NewMap(s.Map, scope)
		if err != nil {
			return nil, fmt.Errorf("make stage %s: %w", s.ID, err)
		}
		return m, nil
	}
	f, err := NewFilter(s.Filter, scope)
	if err != nil {
		return nil, fmt.Errorf("make stage %s: %w", s.ID, err)
	}
	return f, nil
}

// envs lends each call an Env of its own.
type envs struct{ pool sync.Pool }

func (p *envs) take() *expr.Env {
	if e, ok := p.pool.Get().(*expr.Env); ok {
		return e
	}
	return expr.NewEnv()
}

func (p *envs) give(e *expr.Env) {
	e.Reset(nil)
	p.pool.Put(e)
}

func fail(out *record.Results, i int, err error) {
	out.Failures = append(out.Failures, record.Failure{In: int32(i), Err: record.AsError(err)})
}
