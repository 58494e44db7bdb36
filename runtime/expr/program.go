package expr

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/checker"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/types"

	"github.com/millrace-io/millrace/runtime/expr/jsondoc"
	"github.com/millrace-io/millrace/runtime/record"
)

// Program is a compiled expression. It is immutable and safe for concurrent
// use with an Env for each goroutine.
type Program struct {
	src   string
	code  code
	roots Roots
	env   []string
	// static: it gives the same value for every record.
	static bool
}

// Compile compiles an expression of any type. The error is an *Error.
func Compile(src string, s Scope) (*Program, error) {
	p, _, err := compile(src, s)
	return p, err
}

// CompileBool compiles a condition. An expression that is known to give
// something else than a bool is an *Error; where that is not known, Bool fails
// at run time.
func CompileBool(src string, s Scope) (*Program, error) {
	p, node, err := compile(src, s)
	if err != nil {
		return nil, err
	}
	if t := resultType(node); t != "" && t != "bool" {
		return nil, &Error{Source: src, Length: len([]rune(src)), Message: fmt.Sprintf("a condition must be true or false, and this is a %s", t), Help: "compare it, such as `" + compareExample(src, t) + "`"}
	}
	return p, nil
}

func compareExample(src, t string) string {
	src = strings.TrimSpace(src)
	if len(src) > 40 {
		src = "..."
	}
	switch t {
	case "number":
		return src + " > 0"
	case "string":
		return src + ` != ""`
	}
	return src + " != nil"
}

// Source is the text that the program was compiled from.
func (p *Program) Source() string { return p.src }

// Roots are the roots that the program names.
func (p *Program) Roots() Roots { return p.roots }

// EnvNames are the environment variables that the program names, sorted.
func (p *Program) EnvNames() []string { return p.env }

// Any evaluates p. The value must not be changed.
func (p *Program) Any(e *Env) (any, error) {
	e.steps, e.memory = 0, 0
	v, err := p.code.eval(e)
	if err != nil {
		return nil, p.fail(err)
	}
	return v, nil
}

// Bool evaluates p, which must give a bool.
func (p *Program) Bool(e *Env) (bool, error) {
	e.steps, e.memory = 0, 0
	v, err := p.code.eval(e)
	if err != nil {
		return false, p.fail(err)
	}
	b, ok := v.(bool)
	if !ok {
		return false, p.fail(fmt.Errorf("the result is %s, not true or false", describe(v)))
	}
	return b, nil
}

// Text evaluates p and gives its value as text: a string as it is, numbers and
// bools as in JSON, a time as RFC 3339, lists and maps as JSON. nil fails.
func (p *Program) Text(e *Env) (string, error) {
	b, err := p.appendText(nil, e)
	return string(b), err
}

func (p *Program) appendText(b []byte, e *Env) ([]byte, error) {
	if p.code.isPath { // numbers and containers as they stand in the record
		n, err := e.find(p.code.path)
		if err != nil {
			return b, p.fail(err)
		}
		if n != jsondoc.None {
			switch e.doc.Kind(n) {
			case jsondoc.Number, jsondoc.Object, jsondoc.Array:
				return append(b, e.doc.Raw(n)...), nil
			}
		}
	}
	v, err := p.Any(e)
	if err != nil {
		return b, err
	}
	if v == nil {
		return b, p.fail(errors.New("the result is nil; `?? \"\"` gives it a default"))
	}
	b, err = e.appendText(b, v)
	if err != nil {
		return b, p.fail(err)
	}
	return b, nil
}

// Key evaluates p to a record's key: nil for nil, else the bytes of Text.
func (p *Program) Key(e *Env) ([]byte, error) {
	v, err := p.Any(e)
	if err != nil || v == nil {
		return nil, err
	}
	b, err := e.appendText([]byte{}, v)
	if err != nil {
		return nil, p.fail(err)
	}
	return b, nil
}

// AppendJSON evaluates p and appends its value as JSON. The value of a bare
// path into value keeps its bytes, also numbers that float64 cannot hold.
func (p *Program) AppendJSON(b []byte, e *Env) ([]byte, error) {
	if p.code.isPath {
		n, err := e.find(p.code.path)
		if err != nil {
			return b, p.fail(err)
		}
		if n != jsondoc.None {
			return append(b, e.doc.Raw(n)...), nil
		}
		return append(b, "null"...), nil
	}
	v, err := p.Any(e)
	if err != nil {
		return b, err
	}
	b, err = e.appendJSON(b, v)
	if err != nil {
		return b, p.fail(err)
	}
	return b, nil
}

func (p *Program) fail(err error) error {
	if _, ok := errors.AsType[*notJSONError](err); ok {
		return &record.Error{Class: record.Schema, Message: err.Error(), Err: err}
	}
	return &record.Error{Class: record.Schema, Message: "expression " + quote(p.src) + ": " + err.Error(), Err: err}
}

var kindTypes = [...]types.Type{AnyKind: types.Any, TextKind: types.String, IntKind: types.Int, TimeKind: types.TypeOf(time.Time{})}

// config is the checker's view of a scope.
func config(s Scope) *conf.Config {
	c := conf.CreateNew()
	c.MaxNodes = maxNodes
	for name := range c.Builtins {
		if !slices.Contains(functionNames, name) {
			delete(c.Builtins, name)
			c.Disabled[name] = true
		}
	}
	vars := types.Map{}
	for k, v := range s.Vars {
		vars[k] = types.TypeOf(v)
	}
	shaped := func(r Roots) types.Type {
		shape := s.shape(r)
		if shape == nil {
			return types.Any
		}
		m := types.Map{}
		for name, kind := range shape {
			m[name] = kindTypes[kind]
		}
		return m
	}
	c.WithEnv(types.Map{
		"value": types.Any, "raw": types.String, "key": types.Any, "headers": types.TypeOf(map[string]any{}),
		"topic": types.String, "partition": types.Int, "offset": types.Int, "time": types.TypeOf(time.Time{}), "attempt": types.Int,
		"trace": types.String, "id": types.String,
		"request": shaped(Request), "response": shaped(Response), "failure": shaped(Failure),
		"vars": vars, "env": types.TypeOf(map[string]string{}),
	})
	return c
}

func compile(src string, s Scope) (p *Program, root ast.Node, err error) {
	fail := func(off, length int, msg, help string) error {
		return &Error{Source: src, Offset: off, Length: length, Message: msg, Help: help}
	}
	defer func() {
		// The parser and the checker are another project's: a panic of
		// theirs must not be ours.
		if r := recover(); r != nil {
			p, root, err = nil, nil, fail(0, len([]rune(src)), "the expression cannot be read", "")
		}
	}()
	if len(src) > MaxLength {
		return nil, nil, fail(0, 1, fmt.Sprintf("longer than %d bytes", MaxLength), "do this in a plugin")
	}
	if strings.TrimSpace(src) == "" {
		return nil, nil, fail(0, 1, "the expression is empty", "")
	}
	c := config(s)
	tree, err := parser.ParseWithConfig(src, c)
	if err != nil {
		return nil, nil, syntaxError(src, err)
	}
	w := &walker{src: src, scope: s}
	w.walk(tree.Node)
	if w.err != nil {
		return nil, nil, w.err
	}
	if _, err := checker.Check(tree, c); err != nil {
		return nil, nil, typeError(src, err)
	}
	g := &generator{src: src, scope: s}
	top, err := g.node(tree.Node)
	if err != nil {
		return nil, nil, err
	}
	slices.Sort(w.env)
	static := w.roots&^StaticRoots == 0 && (s.Env != nil || w.roots&EnvVars == 0)
	return &Program{src: src, code: top, roots: w.roots, env: slices.Compact(w.env), static: static}, tree.Node, nil
}

func syntaxError(src string, err error) error {
	fe, ok := errors.AsType[*file.Error](err)
	if !ok {
		return &Error{Source: src, Message: err.Error()}
	}
	length, from := fe.To-fe.From, fe.From
	msg, help := fe.Message, ""
	switch {
	case strings.HasPrefix(msg, "unexpected token "):
		msg = unexpected(strings.TrimPrefix(msg, "unexpected token "))
		if strings.Contains(fe.Message, "token EOF") {
			from, length = len([]rune(src)), 1
		}
	case strings.Contains(msg, "exceeds maximum allowed nodes"):
		msg, help = fmt.Sprintf("more than %d operations", maxNodes), "do this in a plugin"
	case strings.HasPrefix(msg, "cannot use pointer accessor outside predicate"):
		msg = "a field that begins with a dot only stands inside all, any, filter, map and their like"
	}
	rs := []rune(src)
	if at := from; at < len(rs) {
		switch {
		case rs[at] == '=' && (at+1 >= len(rs) || rs[at+1] != '=') && (at == 0 || !strings.ContainsRune("=!<>", rs[at-1])):
			msg, help, length = "a single = has no meaning here", "write == to compare", 1
		case rs[at] == '&' && !(at+1 < len(rs) && rs[at+1] == '&'):
			help = "write && for and"
		case rs[at] == '\'' || rs[at] == '"':
			help = "a text ends with the quote that it begins with"
		}
	}
	return &Error{Source: src, Offset: min(from, len(rs)), Length: max(length, 1), Message: msg, Help: help}
}

// unexpected turns the parser's `Kind("text")` into a sentence.
func unexpected(token string) string {
	if token == "EOF" {
		return "the expression ends too early"
	}
	if i := strings.IndexByte(token, '('); i >= 0 && strings.HasSuffix(token, ")") {
		return strings.Trim(token[i+1:len(token)-1], `"`) + " does not belong here"
	}
	return token + " does not belong here"
}

func typeError(src string, err error) error {
	fe, ok := errors.AsType[*file.Error](err)
	if !ok {
		return &Error{Source: src, Message: err.Error()}
	}
	msg := strings.TrimPrefix(fe.Message, "invalid operation: ")
	if op, rest, ok := strings.Cut(msg, " (mismatched types "); ok {
		if l, r, ok := strings.Cut(strings.TrimSuffix(rest, ")"), " and "); ok {
			msg = fmt.Sprintf("%s does not go between %s and %s", op, typeName(l), typeName(r))
		}
	} else if rest, ok := strings.CutPrefix(msg, "error parsing regexp: "); ok {
		msg = "the pattern is wrong: " + rest
	} else if op, rest, ok := strings.Cut(msg, " (mismatched type "); ok {
		msg = fmt.Sprintf("%s does not go with %s", op, typeName(strings.TrimSuffix(rest, ")")))
	}
	return &Error{Source: src, Offset: fe.From, Length: max(fe.To-fe.From, 1), Message: msg}
}

// typeName is how we call a Go type of the checker's.
func typeName(t string) string {
	switch {
	case t == "int" || t == "int64" || t == "float64":
		return "a number"
	case t == "time.Time":
		return "a time"
	case t == "time.Duration":
		return "a duration"
	case t == "array" || strings.HasPrefix(t, "[]"):
		return "a list"
	case strings.HasPrefix(t, "map"):
		return "a map"
	case t == "nil" || t == "<nil>":
		return "nil"
	case t == "bool" || t == "string":
		return "a " + t
	}
	return "an unknown value"
}

// resultType is the type that a node's value has when it does not fail: bool,
// number, string, list, map or "number or string", "" if that is not known.
func resultType(n ast.Node) string {
	switch n := n.(type) {
	case *ast.BoolNode:
		return "bool"
	case *ast.IntegerNode, *ast.FloatNode:
		return "number"
	case *ast.StringNode:
		return "string"
	case *ast.ArrayNode, *ast.SliceNode:
		return "list"
	case *ast.MapNode:
		return "map"
	case *ast.NilNode:
		return "nil"
	case *ast.UnaryNode:
		if n.Operator == "!" || n.Operator == "not" {
			return "bool"
		}
		return "number"
	case *ast.BinaryNode:
		switch n.Operator {
		case "-", "*", "/", "%", "**", "^":
			return "number"
		case "+":
			l, r := resultType(n.Left), resultType(n.Right)
			if l == "number" || r == "number" {
				return "number"
			}
			if l == "string" || r == "string" {
				return "string"
			}
			return "number or text"
		case "..":
			return "list"
		case "??":
			if l, r := resultType(n.Left), resultType(n.Right); l == r {
				return l
			}
			return ""
		}
		return "bool"
	case *ast.ConditionalNode:
		if a, b := resultType(n.Exp1), resultType(n.Exp2); a == b {
			return a
		}
		return ""
	}
	t := n.Type()
	if t == nil {
		return ""
	}
	switch t.Kind() {
	case reflect.Bool:
		return "bool"
	case reflect.Int, reflect.Int64, reflect.Float64:
		return "number"
	case reflect.String:
		return "string"
	case reflect.Slice:
		return "list"
	case reflect.Map:
		return "map"
	case reflect.Struct:
		return strings.ToLower(t.Name())
	}
	return ""
}
