package expr

import (
	"errors"
	"fmt"
	"regexp"

	"github.com/expr-lang/expr/ast"

	"github.com/millrace-io/millrace/runtime/expr/jsondoc"
)

func (g *generator) unary(n *ast.UnaryNode) (code, error) {
	c, err := g.node(n.Node)
	if err != nil {
		return code{}, err
	}
	if n.Operator == "!" || n.Operator == "not" {
		return code{eval: func(e *Env) (any, error) {
			b, err := truth(e, c.eval, n.Operator)
			return !b, err
		}}, nil
	}
	minus := n.Operator == "-"
	apply := func(v any) (any, error) {
		switch x := v.(type) {
		case int64:
			if !minus {
				return x, nil
			}
			return subInt(0, x)
		case float64:
			if minus {
				x = -x
			}
			return x, nil
		}
		return nil, fmt.Errorf("%s needs a number, not %s", n.Operator, describe(v))
	}
	if c.isConst {
		if v, err := apply(c.konst); err == nil {
			return constant(v), nil
		}
	}
	return code{eval: func(e *Env) (any, error) {
		v, err := c.eval(e)
		if err != nil {
			return nil, err
		}
		return apply(v)
	}}, nil
}

// truth evaluates an operand that has to be a bool.
func truth(e *Env, f evalFunc, op string) (bool, error) {
	v, err := f(e)
	if err != nil {
		return false, err
	}
	b, ok := v.(bool)
	if !ok {
		return false, fmt.Errorf("%s needs true or false, not %s", op, describe(v))
	}
	return b, nil
}

func (g *generator) binary(n *ast.BinaryNode) (code, error) {
	l, err := g.node(n.Left)
	if err != nil {
		return code{}, err
	}
	r, err := g.node(n.Right)
	if err != nil {
		return code{}, err
	}
	op := n.Operator
	_, leftNil := n.Left.(*ast.NilNode)
	_, rightNil := n.Right.(*ast.NilNode)
	switch op {
	case "and", "&&":
		return code{eval: func(e *Env) (any, error) {
			if b, err := truth(e, l.eval, op); err != nil || !b {
				return false, err
			}
			b, err := truth(e, r.eval, op)
			return b, err
		}}, nil
	case "or", "||":
		return code{eval: func(e *Env) (any, error) {
			if b, err := truth(e, l.eval, op); err != nil || b {
				return b, err
			}
			b, err := truth(e, r.eval, op)
			return b, err
		}}, nil
	case "??":
		return code{eval: func(e *Env) (any, error) {
			if v, err := l.eval(e); err != nil || v != nil {
				return v, err
			}
			return r.eval(e)
		}}, nil
	case "==", "!=":
		want := op == "=="
		if leftNil || rightNil {
			side := l
			if leftNil {
				side = r
			}
			return isNil(side, want), nil
		}
		if l.isConst && r.isPath {
			l, r = r, l
		}
		if l.isPath && r.isConst && r.konst != nil {
			return equalPath(l.path, r.konst, want), nil
		}
		return code{eval: func(e *Env) (any, error) {
			a, b, err := both(e, l, r)
			if err != nil || a == nil || b == nil {
				return false, err
			}
			eq, err := e.equal(a, b)
			return eq == want, err
		}}, nil
	case "<", "<=", ">", ">=":
		return orderCode(op, l, r), nil
	case "in":
		return code{eval: func(e *Env) (any, error) {
			a, b, err := both(e, l, r)
			if err != nil || a == nil || b == nil {
				return false, err
			}
			return e.in(a, b)
		}}, nil
	case "contains", "startsWith", "endsWith", "matches":
		return g.textOperator(n, l, r)
	}
	return code{eval: func(e *Env) (any, error) {
		a, b, err := both(e, l, r)
		if err != nil {
			return nil, err
		}
		return e.arithmetic(op, a, b)
	}}, nil
}

func both(e *Env, l, r code) (a, b any, err error) {
	if a, err = l.eval(e); err != nil {
		return nil, nil, err
	}
	b, err = r.eval(e)
	return a, b, err
}

func isNil(c code, want bool) code {
	if c.isPath {
		return code{eval: func(e *Env) (any, error) {
			n, err := e.find(c.path)
			if err != nil {
				return nil, err
			}
			return (n == jsondoc.None || e.doc.Kind(n) == jsondoc.Null) == want, nil
		}}
	}
	return code{eval: func(e *Env) (any, error) {
		v, err := c.eval(e)
		if err != nil {
			return nil, err
		}
		return (v == nil) == want, nil
	}}
}

// equalPath compares a path with a constant in the text, building nothing.
func equalPath(path []step, konst any, want bool) code {
	return code{eval: func(e *Env) (any, error) {
		n, err := e.find(path)
		if err != nil {
			return nil, err
		}
		if n == jsondoc.None || e.doc.Kind(n) == jsondoc.Null {
			return false, nil
		}
		if s, ok := konst.(string); ok {
			return e.doc.StringIs(n, s) == want, nil
		}
		v, err := e.value(n)
		if err != nil {
			return nil, err
		}
		eq, err := e.equal(v, konst)
		return eq == want, err
	}}
}

func orderCode(op string, l, r code) code {
	holds := map[string]func(int) bool{
		"<":  func(c int) bool { return c < 0 },
		"<=": func(c int) bool { return c <= 0 },
		">":  func(c int) bool { return c > 0 },
		">=": func(c int) bool { return c >= 0 },
	}[op]
	if i, ok := r.konst.(int64); ok && l.isPath {
		return code{eval: func(e *Env) (any, error) {
			n, err := e.find(l.path)
			if err != nil || n == jsondoc.None || e.doc.Kind(n) == jsondoc.Null {
				return false, err
			}
			if v, ok := e.doc.Int(n); ok {
				return holds(compareInt(v, i)), nil
			}
			if e.doc.Kind(n) == jsondoc.Number {
				if f, ok := e.doc.Float(n); ok {
					c, ok := compareIntFloat(i, f)
					return ok && holds(-c), nil
				}
			}
			v, err := e.value(n)
			if err != nil {
				return nil, err
			}
			c, ok, err := order(v, i)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", op, err)
			}
			return ok && holds(c), nil
		}}
	}
	return code{eval: func(e *Env) (any, error) {
		a, b, err := both(e, l, r)
		if err != nil || a == nil || b == nil {
			return false, err
		}
		c, ok, err := order(a, b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", op, err)
		}
		return ok && holds(c), nil
	}}
}

const maxPattern = 1000

func (g *generator) textOperator(n *ast.BinaryNode, l, r code) (code, error) {
	op := n.Operator
	var fixed *regexp.Regexp
	if pattern, ok := r.konst.(string); ok && op == "matches" {
		re, err := compilePattern(pattern)
		if err != nil {
			return code{}, g.fail(n.Right, err.Error())
		}
		fixed = re
	}
	return code{eval: func(e *Env) (any, error) {
		a, b, err := both(e, l, r)
		if err != nil || a == nil || b == nil {
			return false, err
		}
		s, ok1 := a.(string)
		t, ok2 := b.(string)
		if !ok1 || !ok2 {
			return nil, fmt.Errorf("%s needs two strings, not %s and %s", op, describe(a), describe(b))
		}
		if err := e.work(len(s)); err != nil {
			return nil, err
		}
		return textTest(op, s, t, fixed)
	}}, nil
}

func compilePattern(p string) (*regexp.Regexp, error) {
	if len(p) > maxPattern {
		return nil, fmt.Errorf("a pattern longer than %d bytes", maxPattern)
	}
	re, err := regexp.Compile(p)
	if err != nil {
		return nil, fmt.Errorf("the pattern is wrong: %w", errors.Unwrap(fmt.Errorf("%w", err)))
	}
	return re, nil
}
