package stage

import (
	"context"

	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/record"
)

// Filter lets the records through for which a condition is true and drops
// those for which it is false. It changes no record.
type Filter struct {
	cond *expr.Program
	envs envs
}

// NewFilter compiles the condition; the error is an *expr.Error.
func NewFilter(cond string, scope expr.Scope) (*Filter, error) {
	p, err := expr.CompileBool(cond, scope)
	if err != nil {
		return nil, err
	}
	return &Filter{cond: p}, nil
}

// Process is as Stage says. A condition that gives neither true nor false
// fails its record.
func (f *Filter) Process(ctx context.Context, b *record.Batch, out *record.Results) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	env := f.envs.take()
	defer f.envs.give(env)
	for i := range b.Records {
		env.Reset(&b.Records[i])
		keep, err := f.cond.Bool(env)
		switch {
		case err != nil:
			fail(out, i, err)
		case keep:
			out.Emits = append(out.Emits, record.Emit{In: int32(i), Record: b.Records[i]})
		default:
			out.Drops = append(out.Drops, int32(i))
		}
	}
	return nil
}
