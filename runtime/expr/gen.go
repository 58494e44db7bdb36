package expr

import (
	"fmt"
	"reflect"

	"github.com/expr-lang/expr/ast"
)

type evalFunc func(e *Env) (any, error)

// step is one level of a path into value: a key or an index.
type step struct {
	key   string
	index int64
	list  bool
}

// code is the compiled form of a node: always eval, and what is known of it.
type code struct {
	eval    evalFunc
	isPath  bool // eval is the value at path
	path    []step
	isConst bool
	konst   any
}

func constant(v any) code {
	return code{eval: func(*Env) (any, error) { return v, nil }, isConst: true, konst: v}
}

func pathCode(path []step) code {
	return code{isPath: true, path: path, eval: func(e *Env) (any, error) { return e.at(path) }}
}

// generator turns checked nodes into code.
type generator struct {
	src   string
	scope Scope
	lets  []string
}

func (g *generator) fail(n ast.Node, msg string) error {
	at := n.Location()
	return &Error{Source: g.src, Offset: at.From, Length: max(at.To-at.From, 1), Message: msg}
}

func (g *generator) nodes(ns []ast.Node) ([]code, error) {
	out := make([]code, len(ns))
	for i, n := range ns {
		c, err := g.node(n)
		if err != nil {
			return nil, err
		}
		out[i] = c
	}
	return out, nil
}

func (g *generator) node(n ast.Node) (code, error) {
	switch n := n.(type) {
	case *ast.NilNode:
		return constant(nil), nil
	case *ast.BoolNode:
		return constant(n.Value), nil
	case *ast.IntegerNode:
		return constant(int64(n.Value)), nil
	case *ast.FloatNode:
		return constant(n.Value), nil
	case *ast.StringNode:
		return constant(n.Value), nil
	case *ast.ConstantNode:
		return constant(normal(n.Value)), nil
	case *ast.BytesNode:
		return constant(string(n.Value)), nil
	case *ast.ChainNode:
		return g.node(n.Node)
	case *ast.PredicateNode:
		return g.node(n.Node)
	case *ast.IdentifierNode:
		return g.identifier(n)
	case *ast.MemberNode:
		return g.member(n)
	case *ast.SliceNode:
		return g.slice(n)
	case *ast.UnaryNode:
		return g.unary(n)
	case *ast.BinaryNode:
		return g.binary(n)
	case *ast.ConditionalNode:
		return g.conditional(n)
	case *ast.PointerNode:
		return g.pointer(n)
	case *ast.VariableDeclaratorNode:
		return g.let(n)
	case *ast.SequenceNode:
		all, err := g.nodes(n.Nodes)
		if err != nil {
			return code{}, err
		}
		return all[len(all)-1], nil
	case *ast.ArrayNode:
		return g.list(n)
	case *ast.MapNode:
		return g.mapping(n)
	case *ast.BuiltinNode:
		return g.builtin(n)
	case *ast.CallNode:
		return g.method(n)
	}
	return code{}, g.fail(n, "this is not part of the language")
}

func (g *generator) identifier(n *ast.IdentifierNode) (code, error) {
	for i := len(g.lets) - 1; i >= 0; i-- {
		if g.lets[i] == n.Value {
			return code{eval: func(e *Env) (any, error) { return e.lets[i], nil }}, nil
		}
	}
	switch r := rootOf(n.Value); r {
	case Value:
		return pathCode(nil), nil
	case Vars:
		m := make(map[string]any, len(g.scope.Vars))
		for k, v := range g.scope.Vars {
			m[k] = normal(v)
		}
		return constant(m), nil
	case 0:
		return code{}, g.fail(n, "unknown name `"+n.Value+"`")
	default:
		return code{eval: func(e *Env) (any, error) { return e.root(r) }}, nil
	}
}

func (g *generator) member(n *ast.MemberNode) (code, error) {
	if id, ok := n.Node.(*ast.IdentifierNode); ok {
		if prop, ok := n.Property.(*ast.StringNode); ok {
			switch {
			case id.Value == "vars":
				return constant(normal(g.scope.Vars[prop.Value])), nil
			case id.Value == "env" && g.scope.Env != nil:
				return constant(g.scope.Env[prop.Value]), nil
			case id.Value == "env":
				name := prop.Value
				return code{eval: func(*Env) (any, error) {
					return nil, fmt.Errorf("the environment variable %s is not resolved", name)
				}}, nil
			case id.Value == "headers":
				name := prop.Value
				return code{eval: func(e *Env) (any, error) { return e.header(name), nil }}, nil
			}
		}
	}
	base, err := g.node(n.Node)
	if err != nil {
		return code{}, err
	}
	prop, err := g.node(n.Property)
	if err != nil {
		return code{}, err
	}
	if base.isPath && prop.isConst {
		switch k := prop.konst.(type) {
		case string:
			return pathCode(append(base.path[:len(base.path):len(base.path)], step{key: k})), nil
		case int64:
			return pathCode(append(base.path[:len(base.path):len(base.path)], step{index: k, list: true})), nil
		}
	}
	return code{eval: func(e *Env) (any, error) {
		from, err := base.eval(e)
		if err != nil || from == nil {
			return nil, err
		}
		k, err := prop.eval(e)
		if err != nil {
			return nil, err
		}
		return fetch(from, k)
	}}, nil
}

// fetch is from[k]: nil where there is none.
func fetch(from, k any) (any, error) {
	switch k := k.(type) {
	case string:
		m, _ := from.(map[string]any)
		return m[k], nil
	case int64:
		switch from := from.(type) {
		case []any:
			if k < 0 {
				k += int64(len(from))
			}
			if k >= 0 && k < int64(len(from)) {
				return from[k], nil
			}
		}
		return nil, nil
	case nil:
		return nil, nil
	}
	return nil, fmt.Errorf("a field is named by a string or a whole number, not by %s", describe(k))
}

func (g *generator) slice(n *ast.SliceNode) (code, error) {
	base, err := g.node(n.Node)
	if err != nil {
		return code{}, err
	}
	bound := func(n ast.Node) (evalFunc, error) {
		if n == nil {
			return nil, nil
		}
		c, err := g.node(n)
		return c.eval, err
	}
	from, err := bound(n.From)
	if err != nil {
		return code{}, err
	}
	to, err := bound(n.To)
	if err != nil {
		return code{}, err
	}
	return code{eval: func(e *Env) (any, error) {
		v, err := base.eval(e)
		if err != nil {
			return nil, err
		}
		length := 0
		var runes []rune
		list, isList := v.([]any)
		if isList {
			length = len(list)
		} else if s, ok := v.(string); ok {
			if err := e.grow(4 * len(s)); err != nil {
				return nil, err
			}
			runes = []rune(s)
			length = len(runes)
		} else {
			return nil, fmt.Errorf("[:] needs a list or a string, not %s", describe(v))
		}
		a, b := 0, length
		for i, bound := range []evalFunc{from, to} {
			if bound == nil {
				continue
			}
			x, err := bound(e)
			if err != nil {
				return nil, err
			}
			k, ok := x.(int64)
			if !ok {
				return nil, fmt.Errorf("[:] needs whole numbers, not %s", describe(x))
			}
			if k < 0 {
				k += int64(length)
			}
			k = max(0, min(k, int64(length)))
			if i == 0 {
				a = int(k)
			} else {
				b = int(k)
			}
		}
		if a > b {
			a = b
		}
		if isList {
			return list[a:b:b], nil
		}
		return string(runes[a:b]), nil
	}}, nil
}

func (g *generator) conditional(n *ast.ConditionalNode) (code, error) {
	c, err := g.nodes([]ast.Node{n.Cond, n.Exp1, n.Exp2})
	if err != nil {
		return code{}, err
	}
	return code{eval: func(e *Env) (any, error) {
		b, err := truth(e, c[0].eval, "the condition")
		if err != nil {
			return nil, err
		}
		if b {
			return c[1].eval(e)
		}
		return c[2].eval(e)
	}}, nil
}

func (g *generator) pointer(n *ast.PointerNode) (code, error) {
	switch n.Name {
	case "":
		return code{eval: func(e *Env) (any, error) { return e.loops[len(e.loops)-1].item, nil }}, nil
	case "index":
		return code{eval: func(e *Env) (any, error) { return e.loops[len(e.loops)-1].index, nil }}, nil
	case "acc":
		return code{eval: func(e *Env) (any, error) { return e.loops[len(e.loops)-1].acc, nil }}, nil
	}
	return code{}, g.fail(n, "#"+n.Name+" does not exist; there are #, #index and #acc")
}

func (g *generator) let(n *ast.VariableDeclaratorNode) (code, error) {
	v, err := g.node(n.Value)
	if err != nil {
		return code{}, err
	}
	slot := len(g.lets)
	g.lets = append(g.lets, n.Name)
	body, err := g.node(n.Expr)
	g.lets = g.lets[:slot]
	if err != nil {
		return code{}, err
	}
	return code{eval: func(e *Env) (any, error) {
		x, err := v.eval(e)
		if err != nil {
			return nil, err
		}
		for len(e.lets) <= slot {
			e.lets = append(e.lets, nil)
		}
		e.lets[slot] = x
		return body.eval(e)
	}}, nil
}

func (g *generator) list(n *ast.ArrayNode) (code, error) {
	items, err := g.nodes(n.Nodes)
	if err != nil {
		return code{}, err
	}
	all := make([]any, len(items))
	for i, c := range items {
		if !c.isConst {
			return code{eval: func(e *Env) (any, error) {
				if err := e.grow(16 * len(items)); err != nil {
					return nil, err
				}
				out := make([]any, len(items))
				for i, c := range items {
					v, err := c.eval(e)
					if err != nil {
						return nil, err
					}
					out[i] = v
				}
				return out, nil
			}}, nil
		}
		all[i] = c.konst
	}
	return constant(all), nil
}

func (g *generator) mapping(n *ast.MapNode) (code, error) {
	type pair struct{ k, v code }
	pairs := make([]pair, len(n.Pairs))
	for i, p := range n.Pairs {
		kv, ok := p.(*ast.PairNode)
		if !ok {
			return code{}, g.fail(p, "a map has keys and values")
		}
		c, err := g.nodes([]ast.Node{kv.Key, kv.Value})
		if err != nil {
			return code{}, err
		}
		pairs[i] = pair{c[0], c[1]}
	}
	return code{eval: func(e *Env) (any, error) {
		if err := e.grow(48 * len(pairs)); err != nil {
			return nil, err
		}
		m := make(map[string]any, len(pairs))
		for _, p := range pairs {
			k, v, err := both(e, p.k, p.v)
			if err != nil {
				return nil, err
			}
			s, ok := k.(string)
			if !ok {
				return nil, fmt.Errorf("a key is a string, not %s", describe(k))
			}
			m[s] = v
		}
		return m, nil
	}}, nil
}

func (g *generator) method(n *ast.CallNode) (code, error) {
	callee, ok := n.Callee.(*ast.MemberNode)
	if !ok {
		return code{}, g.fail(n, "this cannot be called")
	}
	prop, ok := callee.Property.(*ast.StringNode)
	if !ok || timeMethods[prop.Value] == nil {
		return code{}, g.fail(n, "only times have methods")
	}
	on, err := g.node(callee.Node)
	if err != nil {
		return code{}, err
	}
	args, err := g.nodes(n.Arguments)
	if err != nil {
		return code{}, err
	}
	call := timeMethods[prop.Value]
	return code{eval: func(e *Env) (any, error) {
		v, err := on.eval(e)
		if err != nil {
			return nil, err
		}
		list, err := arguments(e, args)
		if err != nil {
			return nil, err
		}
		return call(v, list)
	}}, nil
}

func arguments(e *Env, cs []code) ([]any, error) {
	list := make([]any, len(cs))
	for i, c := range cs {
		v, err := c.eval(e)
		if err != nil {
			return nil, err
		}
		list[i] = v
	}
	return list, nil
}

// normal turns Go numbers and lists into the values of the language.
func normal(v any) any {
	switch v := v.(type) {
	case int:
		return int64(v)
	case []any, map[string]any, nil, bool, int64, float64, string:
		return v
	}
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.Int8, reflect.Int16, reflect.Int32:
		return r.Int()
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return int64(r.Uint())
	case reflect.Float32:
		return r.Float()
	}
	return v
}
