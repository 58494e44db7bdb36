package expr

import (
	"github.com/millrace-io/millrace/runtime/expr/jsondoc"

	"errors"
	"fmt"
	"slices"

	"github.com/expr-lang/expr/ast"
)

// builtin compiles a call of a function.
func (g *generator) builtin(n *ast.BuiltinNode) (code, error) {
	args, err := g.nodes(n.Arguments)
	if err != nil {
		return code{}, err
	}
	name := n.Name
	if name == "toJSON" && len(args) == 1 && args[0].isPath {
		return code{eval: rawJSON(args[0].path)}, nil
	}
	if f := functions[name]; f != nil {
		if len(args) == 0 {
			return code{}, g.fail(n, name+" takes an argument")
		}
		if least := map[string]int{"split": 2, "replace": 3, "repeat": 2, "indexOf": 2, "lastIndexOf": 2, "hasPrefix": 2, "hasSuffix": 2, "get": 2, "take": 2}[name]; len(args) < least {
			return code{}, g.fail(n, fmt.Sprintf("%s takes %d arguments", name, least))
		}
		return code{eval: func(e *Env) (any, error) {
			if err := e.step(); err != nil {
				return nil, err
			}
			list, err := arguments(e, args)
			if err != nil {
				return nil, err
			}
			v, err := f(e, list)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			return v, nil
		}}, nil
	}
	if !slices.Contains(predicates, name) {
		return code{}, g.fail(n, "unknown function `"+name+"`")
	}
	return code{eval: func(e *Env) (any, error) {
		v, err := args[0].eval(e)
		if err != nil {
			return nil, err
		}
		list, ok := v.([]any)
		if !ok {
			return nil, fmt.Errorf("%s takes a list, not %s", name, describe(v))
		}
		return predicate(e, name, list, args[1:])
	}}, nil
}

// rawJSON is toJSON of a part of the record: its own bytes, so that no number
// loses digits and no key its place.
func rawJSON(path []step) evalFunc {
	return func(e *Env) (any, error) {
		n, err := e.find(path)
		if err != nil {
			return nil, err
		}
		if n == jsondoc.None {
			return "null", nil
		}
		raw := e.doc.Raw(n)
		if err := e.grow(len(raw)); err != nil {
			return nil, err
		}
		return string(raw), nil
	}
}

// over runs body for each element, in a loop frame of its own.
func (e *Env) over(list []any, body evalFunc, visit func(i int, v any) (done bool, err error)) error {
	e.loops = append(e.loops, loop{})
	top := len(e.loops) - 1
	defer func() { e.loops = e.loops[:top] }()
	for i, item := range list {
		if err := e.step(); err != nil {
			return err
		}
		e.loops[top].item, e.loops[top].index = item, int64(i)
		v, err := body(e)
		if err != nil {
			return err
		}
		if done, err := visit(i, v); err != nil || done {
			return err
		}
	}
	return nil
}

// matching runs a condition over the elements and calls visit for those that
// meet it.
func (e *Env) matching(name string, list []any, cond evalFunc, visit func(i int) (done bool)) error {
	return e.over(list, cond, func(i int, v any) (bool, error) {
		b, ok := v.(bool)
		if !ok {
			return false, fmt.Errorf("the condition of %s gives %s, not true or false", name, describe(v))
		}
		return b && visit(i), nil
	})
}

func predicate(e *Env, name string, list []any, args []code) (any, error) {
	var body evalFunc
	if len(args) > 0 {
		body = args[0].eval
	} else if name != "count" && name != "sum" {
		return nil, fmt.Errorf("%s takes a condition", name)
	}
	switch name {
	case "all":
		all := true
		err := e.over(list, body, func(_ int, v any) (bool, error) {
			b, ok := v.(bool)
			if !ok {
				return false, fmt.Errorf("the condition of all gives %s, not true or false", describe(v))
			}
			all = b
			return !b, nil
		})
		return all && err == nil, err
	case "none", "any", "one", "count":
		if body == nil {
			body = func(e *Env) (any, error) { return e.loops[len(e.loops)-1].item, nil }
		}
		n := 0
		err := e.matching(name, list, body, func(int) bool {
			n++
			return name == "any" || name == "none" || name == "one" && n > 1
		})
		if err != nil {
			return nil, err
		}
		switch name {
		case "none":
			return n == 0, nil
		case "any":
			return n > 0, nil
		case "one":
			return n == 1, nil
		}
		return int64(n), nil
	case "filter":
		out := []any{}
		err := e.matching(name, list, body, func(i int) bool {
			out = append(out, list[i])
			return false
		})
		if err != nil {
			return nil, err
		}
		return out, e.grow(16 * len(out))
	case "find", "findIndex", "findLast", "findLastIndex":
		at := -1
		fromEnd := name == "findLast" || name == "findLastIndex"
		err := e.matching(name, list, body, func(i int) bool {
			at = i
			return !fromEnd
		})
		if err != nil || at < 0 {
			return nil, err
		}
		if name == "findIndex" || name == "findLastIndex" {
			return int64(at), nil
		}
		return list[at], nil
	case "map":
		if err := e.grow(16 * len(list)); err != nil {
			return nil, err
		}
		out := make([]any, len(list))
		err := e.over(list, body, func(i int, v any) (bool, error) {
			out[i] = v
			return false, nil
		})
		return out, err
	case "sum":
		var total any = int64(0)
		if body == nil {
			body = func(e *Env) (any, error) { return e.loops[len(e.loops)-1].item, nil }
		}
		err := e.over(list, body, func(_ int, v any) (bool, error) {
			if _, ok := toFloat(v); !ok {
				return false, fmt.Errorf("sum takes numbers, not %s", describe(v))
			}
			var err error
			total, err = e.arithmetic("+", total, v)
			return false, err
		})
		return total, err
	case "groupBy":
		groups := make(map[string]any)
		if err := e.grow(64 * len(list)); err != nil {
			return nil, err
		}
		err := e.over(list, body, func(i int, v any) (bool, error) {
			k, ok := v.(string)
			if !ok {
				return false, fmt.Errorf("groupBy takes strings to group by, not %s; string(x) makes one", describe(v))
			}
			group, _ := groups[k].([]any)
			groups[k] = append(group, list[i])
			return false, nil
		})
		return groups, err
	case "sortBy":
		by := make([]any, len(list))
		if err := e.over(list, body, func(i int, v any) (bool, error) {
			by[i] = v
			return false, nil
		}); err != nil {
			return nil, err
		}
		desc := false
		if len(args) > 1 {
			v, err := args[1].eval(e)
			if err != nil {
				return nil, err
			}
			if desc, err = descending(v); err != nil {
				return nil, err
			}
		}
		return e.sortBy(list, by, desc)
	}
	return e.reduce(list, args)
}

func (e *Env) reduce(list []any, args []code) (any, error) {
	var acc any
	if len(args) > 1 {
		v, err := args[1].eval(e)
		if err != nil {
			return nil, err
		}
		acc = v
	} else {
		if len(list) == 0 {
			return nil, errors.New("reduce of an empty list needs a value to begin with")
		}
		acc, list = list[0], list[1:]
	}
	e.loops = append(e.loops, loop{})
	top := len(e.loops) - 1
	defer func() { e.loops = e.loops[:top] }()
	for i, item := range list {
		if err := e.step(); err != nil {
			return nil, err
		}
		e.loops[top] = loop{item: item, index: int64(i), acc: acc}
		v, err := args[0].eval(e)
		if err != nil {
			return nil, err
		}
		acc = v
	}
	return acc, nil
}
