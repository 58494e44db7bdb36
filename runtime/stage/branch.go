package stage

import (
	"context"
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

// Branch says where records go: the Output of an emit is the number of the
// case, that of `else` the number of cases. It changes no record but the paths
// of copies.
//
// A record goes into the first case whose condition holds. With `every` it goes
// into each of those, in their order; if they are several the copies get the
// paths #0, #1 and so on. A condition that gives neither true nor false fails
// the record, also where an earlier case would have taken a copy.
type Branch struct {
	when  []*expr.Program
	every bool
	envs  envs
}

// NewBranch compiles the conditions of s, which is a branch; scope is the
// flow's.
func NewBranch(s *flow.Stage, scope expr.Scope) (*Branch, error) {
	b := &Branch{every: s.Branch.Every}
	var errs []error
	for i, c := range s.Branch.Cases {
		p, err := expr.CompileBool(c.When, scope)
		if err != nil {
			errs = append(errs, fmt.Errorf("case %d: %w", i+1, err))
		}
		b.when = append(b.when, p)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("make stage %s: %w", s.ID, err)
	}
	return b, nil
}

// Process is as Stage says.
func (b *Branch) Process(ctx context.Context, batch *record.Batch, out *record.Results) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	env := b.envs.take()
	defer b.envs.give(env)
	taken := make([]uint16, 0, len(b.when))
	for i := range batch.Records {
		r := &batch.Records[i]
		env.Reset(r)
		var err error
		if taken, err = b.choose(taken[:0], env); err != nil {
			fail(out, i, err)
			continue
		}
		at := len(out.Emits)
		for n, c := range taken {
			e := record.Emit{In: int32(i), Output: c, Record: *r}
			if len(taken) > 1 {
				if e.Record.Path, err = r.Path.Child(n); err != nil {
					out.Emits = out.Emits[:at]
					fail(out, i, err)
					break
				}
			}
			out.Emits = append(out.Emits, e)
		}
	}
	return nil
}

// choose appends the cases that a record goes into.
func (b *Branch) choose(dst []uint16, env *expr.Env) ([]uint16, error) {
	for c, p := range b.when {
		yes, err := p.Bool(env)
		if err != nil {
			return nil, err
		}
		if yes {
			dst = append(dst, uint16(c))
			if !b.every {
				return dst, nil
			}
		}
	}
	if len(dst) == 0 {
		dst = append(dst, uint16(len(b.when)))
	}
	return dst, nil
}
