package daemon

import (
	"errors"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/record"
)

// failureRoots are what an expression over an entry can name.
const failureRoots = expr.RecordRoots | expr.Failure

// failureFields is the root `failure` of expressions.
func failureFields(e *record.Entry) map[string]any {
	plugin := any(nil)
	if e.Plugin != "" {
		plugin = e.Plugin
	}
	return map[string]any{
		"class": e.Class.String(), "code": int64(e.Code), "message": e.Message, "stage": e.Stage, "plugin": plugin,
		"attempts": int64(e.Attempts), "time": time.UnixMilli(e.Time).UTC(), "id": e.ID(),
	}
}

// entryFilter makes a function that chooses entries. It serves one goroutine.
// An entry that the expression cannot be evaluated for is not chosen.
func entryFilter(f *api.FailureFilter) (func(*record.Entry) bool, error) {
	if f == nil {
		f = &api.FailureFilter{}
	}
	var class record.Class
	if f.Class != "" {
		var err error
		if class, err = record.ParseClass(f.Class); err != nil {
			return nil, invalid("%v", err)
		}
	}
	var where *expr.Program
	env := expr.NewEnv()
	if f.Where != "" {
		var err error
		if where, err = expr.CompileBool(f.Where, expr.Scope{Roots: failureRoots &^ expr.StaticRoots}); err != nil {
			e := &api.Error{Code: api.CodeInvalid, Detail: err.Error()}
			if bad, ok := errors.AsType[*expr.Error](err); ok {
				e.Next = bad.Help
			}
			return nil, e
		}
	}
	return func(e *record.Entry) bool {
		switch {
		case f.Class != "" && e.Class != class,
			f.Stage != "" && e.Stage != f.Stage,
			f.Key != nil && (e.Input.Key == nil || string(e.Input.Key) != *f.Key),
			f.Since != 0 && e.Time < f.Since,
			f.Until != 0 && e.Time >= f.Until:
			return false
		}
		if where == nil {
			return true
		}
		env.Reset(&e.Input)
		env.Bind(expr.Failure, failureFields(e))
		ok, err := where.Bool(env)
		env.Reset(nil)
		return err == nil && ok
	}, nil
}
