package expr

import (
	"maps"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
)

// walker checks the names of an expression and notes which it uses.
type walker struct {
	src   string
	scope Scope
	lets  []string
	roots Roots
	env   []string
	err   *Error
}

func (w *walker) fail(n ast.Node, length int, msg, help string) {
	if w.err == nil {
		at := n.Location()
		if length == 0 {
			length = max(at.To-at.From, 1)
		}
		w.err = &Error{Source: w.src, Offset: at.From, Length: length, Message: msg, Help: help}
	}
}

func (w *walker) walk(n ast.Node) {
	if n == nil || w.err != nil {
		return
	}
	switch n := n.(type) {
	case *ast.IdentifierNode:
		w.name(n)
	case *ast.UnaryNode:
		w.walk(n.Node)
	case *ast.BinaryNode:
		w.walk(n.Left)
		w.walk(n.Right)
	case *ast.ChainNode:
		w.walk(n.Node)
	case *ast.MemberNode:
		w.member(n)
	case *ast.SliceNode:
		w.walk(n.Node)
		w.walk(n.From)
		w.walk(n.To)
	case *ast.CallNode:
		w.call(n)
	case *ast.BuiltinNode:
		w.all(n.Arguments)
	case *ast.PredicateNode:
		w.walk(n.Node)
	case *ast.VariableDeclaratorNode:
		w.walk(n.Value)
		if rootOf(n.Name) != 0 {
			w.fail(n, 0, "`"+n.Name+"` is taken", "give the variable another name")
		}
		w.lets = append(w.lets, n.Name)
		w.walk(n.Expr)
		w.lets = w.lets[:len(w.lets)-1]
	case *ast.SequenceNode:
		w.all(n.Nodes)
	case *ast.ConditionalNode:
		w.walk(n.Cond)
		w.walk(n.Exp1)
		w.walk(n.Exp2)
	case *ast.ArrayNode:
		w.all(n.Nodes)
	case *ast.MapNode:
		w.all(n.Pairs)
	case *ast.PairNode:
		w.walk(n.Key)
		w.walk(n.Value)
	}
}

func (w *walker) all(ns []ast.Node) {
	for _, n := range ns {
		w.walk(n)
	}
}

func (w *walker) name(n *ast.IdentifierNode) {
	if slices.Contains(w.lets, n.Value) {
		return
	}
	r := rootOf(n.Value)
	if r != 0 && w.scope.Roots&r != 0 {
		w.roots |= r
		if r == EnvVars {
			w.fail(n, 0, "`env` alone is no value", "name a variable: env.NAME")
		}
		if shape := w.scope.Shapes[r]; shape != nil {
			w.fail(n, 0, "`"+n.Value+"` alone is no value", "name a field: "+strings.Join(mainFields(slices.Sorted(maps.Keys(shape))), " "))
		}
		return
	}
	here := append(w.scope.Roots.Names(), w.lets...)
	msg := "unknown name `" + n.Value + "`"
	if r != 0 {
		msg = "`" + n.Value + "` is not known here"
	}
	help := "names here: " + strings.Join(here, " ")
	switch near := Nearest(n.Value, append(slices.Clone(here), "nil", "true", "false")); {
	case n.Value == "null" || n.Value == "None":
		help = "write nil"
	case r == 0 && near != "":
		help = "did you mean `" + near + "`? " + help
	case r == 0 && slices.Contains(functionNames, n.Value):
		help = "`" + n.Value + "` is a function: " + n.Value + "(...)"
	}
	w.fail(n, 0, msg, help)
}

func (w *walker) member(n *ast.MemberNode) {
	id, ok := n.Node.(*ast.IdentifierNode)
	prop, named := n.Property.(*ast.StringNode)
	if ok && named && !slices.Contains(w.lets, id.Value) && rootOf(id.Value)&w.scope.Roots != 0 {
		switch id.Value {
		case "vars":
			w.roots |= Vars
			if _, ok := w.scope.Vars[prop.Value]; !ok {
				known := slices.Sorted(maps.Keys(w.scope.Vars))
				w.fail(prop, 0, "the flow has no var `"+prop.Value+"`", didYouMean(prop.Value, known, "vars: ", "the flow has no `vars`"))
			}
			return
		case "env":
			w.roots |= EnvVars
			w.env = append(w.env, prop.Value)
			if w.scope.Env != nil {
				if _, ok := w.scope.Env[prop.Value]; !ok {
					w.fail(prop, 0, "the environment variable `"+prop.Value+"` is not set", "set it where you run apply")
				}
			}
			return
		case "request", "response", "failure":
			if shape := w.scope.shape(rootOf(id.Value)); shape != nil {
				if _, ok := shape[prop.Value]; !ok {
					known := slices.Sorted(maps.Keys(shape))
					help := "its fields: " + strings.Join(mainFields(known), " ")
					if near := Nearest(prop.Value, known); near != "" {
						help = "did you mean `" + near + "`? " + help
					}
					w.fail(prop, 0, id.Value+" has no field `"+prop.Value+"`", help)
				} else if at := prop.Location().From; at < len([]rune(w.src)) && strings.ContainsRune("\"'`", []rune(w.src)[at]) {
					w.fail(prop, 0, "a field of "+id.Value+" is named with a dot", "write "+id.Value+"."+prop.Value)
				}
				w.roots |= rootOf(id.Value)
				return
			}
		}
	}
	if ok && id.Value == "env" && !slices.Contains(w.lets, id.Value) {
		w.fail(n, 0, "an environment variable must be named in the expression", "write env.NAME")
		return
	}
	w.walk(n.Node)
	w.walk(n.Property)
}

// mainFields leaves out of many sorted names those that begin with another one
// and a _.
func mainFields(names []string) []string {
	if len(names) <= 16 {
		return names
	}
	var out []string
	for _, name := range names {
		if !slices.ContainsFunc(out, func(s string) bool { return strings.HasPrefix(name, s+"_") }) {
			out = append(out, name)
		}
	}
	return append(out, "and more that begin so")
}

func didYouMean(name string, known []string, list, none string) string {
	if len(known) == 0 {
		return none
	}
	s := list + strings.Join(known, " ")
	if near := Nearest(name, known); near != "" {
		s = "did you mean `" + near + "`? " + s
	}
	return s
}

func (w *walker) call(n *ast.CallNode) {
	switch callee := n.Callee.(type) {
	case *ast.IdentifierNode:
		help := "functions: " + strings.Join(functionNames, " ")
		switch near := Nearest(callee.Value, functionNames); {
		case callee.Value == "now":
			help = "an expression reads no clock, so that a replay gives the same; `time` is the record's time"
		case near != "":
			help = "did you mean `" + near + "`?"
		}
		w.fail(callee, 0, "unknown function `"+callee.Value+"`", help)
	case *ast.MemberNode:
		prop, ok := callee.Property.(*ast.StringNode)
		if !ok || timeMethods[prop.Value] == nil {
			w.fail(callee.Property, 0, "only times have methods", "functions stand in front: upper(value.name)")
			return
		}
		w.walk(callee.Node)
		w.all(n.Arguments)
	default:
		w.fail(n, 0, "this cannot be called", "")
	}
}
