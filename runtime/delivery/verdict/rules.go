package verdict

import (
	"errors"
	"fmt"
	"strings"

	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser/lexer"

	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/record"
)

// Config holds the sources of the rules; "" is no rule. The zero Config judges
// by the status alone.
type Config struct {
	OK, Retry, Reject string
	Each              string
	// ItemID is the field of each's elements that holds an item's id; "" if
	// they are in the items' order.
	ItemID string
	// Vars and Env are the flow's.
	Vars map[string]any
	Env  map[string]string
}

// Rules judge answers. They are immutable and safe for concurrent use.
type Rules struct {
	ok, retry, reject, each *rule
	itemID                  string
	// What rules name, so that nothing else is copied.
	request, raw bool
}

// rule is a compiled expression over an exchange.
type rule struct {
	name, src string
	prog      *expr.Program
}

// Roots are what a rule can name.
const Roots = expr.Request | expr.Response | expr.StaticRoots

// New compiles rules. The error joins an *expr.Error for each that cannot be
// compiled, behind the rule's name.
func New(cfg Config) (*Rules, error) {
	r := &Rules{itemID: cfg.ItemID}
	var errs []error
	for _, in := range []struct {
		to   **rule
		name string
		src  string
		bool bool
	}{{&r.ok, "ok", cfg.OK, true}, {&r.retry, "retry", cfg.Retry, true}, {&r.reject, "reject", cfg.Reject, true}, {&r.each, "each", cfg.Each, false}} {
		if in.src == "" {
			continue
		}
		var err error
		if *in.to, err = compile(in.name, in.src, in.bool, cfg); err != nil {
			errs = append(errs, fmt.Errorf("validate: %s: %w", in.name, err))
			continue
		}
		r.request = r.request || (*in.to).prog.Roots()&expr.Request != 0
		r.raw = r.raw || strings.Contains(in.src, "raw")
	}
	if cfg.ItemID != "" && cfg.Each == "" {
		errs = append(errs, errors.New("validate: ids of items without each: add each, or leave them out"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return r, nil
}

// compile checks a rule as it is written and compiles it with the body as the
// root `value`, which the language reads as JSON once and when it is needed.
func compile(name, src string, condition bool, cfg Config) (*rule, error) {
	build := expr.Compile
	if condition {
		build = expr.CompileBool
	}
	scope := expr.Scope{Roots: Roots, Vars: cfg.Vars, Env: cfg.Env}
	if _, err := build(src, scope); err != nil {
		return nil, err
	}
	bound, err := bindBody(src)
	if err != nil {
		return nil, err
	}
	scope.Roots |= expr.Value
	prog, err := build(bound, scope)
	if err != nil {
		return nil, err
	}
	return &rule{name: name, src: src, prog: prog}, nil
}

// responseFields are the fields of response.
var responseFields = []string{"status", "headers", "raw", "body"}

// bindBody puts `value` in the place of every response.body. It refuses any
// use of response but its fields by name.
func bindBody(src string) (string, error) {
	tokens, err := lexer.Lex(file.NewSource(src))
	if err != nil {
		return "", err // the compiler has read it before
	}
	is := func(i int, kind lexer.Kind, values ...string) bool {
		if i < 0 || i >= len(tokens) || tokens[i].Kind != kind {
			return false
		}
		for _, v := range values {
			if tokens[i].Value == v {
				return true
			}
		}
		return false
	}
	runes := []rune(src)
	var out strings.Builder
	from := 0
	for i := range tokens {
		if !is(i, lexer.Identifier, "response") || is(i-1, lexer.Operator, ".", "?.") || is(i+1, lexer.Operator, ":") && is(i-1, lexer.Bracket, "{") {
			continue
		}
		at := tokens[i].Location
		if !is(i+1, lexer.Operator, ".", "?.") || !is(i+2, lexer.Identifier, responseFields...) {
			e := &expr.Error{Source: src, Offset: at.From, Length: at.To - at.From, Message: "response is used by its fields only", Help: "they are response." + strings.Join(responseFields, ", response.")}
			if i+2 < len(tokens) && is(i+1, lexer.Operator, ".", "?.") && tokens[i+2].Kind == lexer.Identifier {
				e.Offset, e.Length = tokens[i+2].From, tokens[i+2].To-tokens[i+2].From
				e.Message = "response has no field `" + tokens[i+2].Value + "`"
				if near := expr.Nearest(tokens[i+2].Value, responseFields); near != "" {
					e.Help = "did you mean `response." + near + "`?"
				}
			}
			return "", e
		}
		if tokens[i+2].Value == "body" {
			out.WriteString(string(runes[from:at.From]) + "value")
			from = tokens[i+2].To
		}
	}
	return out.String() + string(runes[from:]), nil
}

// fail is an error of an evaluation, told about the rule as it is written.
func (r *rule) fail(err error) string {
	e := record.AsError(err)
	if e.Err == nil {
		return fmt.Sprintf("%s: %s", r.name, e.Message)
	}
	return fmt.Sprintf("%s: `%s`: %v", r.name, r.src, e.Err)
}

// Judge says what an answer means.
func (r *Rules) Judge(x *Exchange) Verdicts {
	if r.ok == nil && r.retry == nil && r.reject == nil && r.each == nil {
		return Default(x)
	}
	j := &judge{x: x, env: expr.NewEnv()}
	j.bind(r)
	if j.holds(r.reject) {
		return Verdicts{All: failure(x, record.Rejected, "")}
	}
	if j.holds(r.retry) {
		return Verdicts{All: failure(x, record.Retryable, "")}
	}
	list, said := j.list(r.each)
	if list != nil && j.undecided == "" {
		return j.items(list, r.itemID)
	}
	ok := success(x.Response.Status)
	if r.ok != nil {
		ok = j.holds(r.ok)
	}
	if ok && j.undecided == "" && r.each != nil && !said {
		// What items were refused is in the list, wherever that is.
		j.undecided = fmt.Sprintf("each: `%s` is nothing in this answer", r.each.src)
	}
	switch {
	case ok && j.undecided == "":
		return Verdicts{}
	case class(x.Response.Status) == record.Config && !success(x.Response.Status):
		return Verdicts{All: failure(x, record.Config, j.undecided)}
	case r.retry != nil && r.reject == nil && j.undecided == "":
		return Verdicts{All: failure(x, record.Rejected, "no rule of `validate` takes it")}
	case j.undecided == "" && success(x.Response.Status):
		return Verdicts{All: failure(x, record.Retryable, "no rule of `validate` takes it")}
	}
	return Verdicts{All: failure(x, record.Retryable, j.undecided)}
}

// judge is the state of one judgement.
type judge struct {
	x   *Exchange
	env *expr.Env
	// undecided says why a rule could not be decided, "" if all could.
	undecided string
	// cut: the body is not all there, or too long to be read.
	cut bool
}

func (j *judge) bind(r *Rules) {
	resp, req := &j.x.Response, &j.x.Request
	j.cut = resp.Truncated || len(resp.Body) > MaxBodyBytes
	body := resp.Body
	if body == nil || j.cut {
		body = []byte{} // no JSON; nil would be a null value
	}
	j.env.Reset(&record.Record{Value: body})
	answer := map[string]any{"status": int64(resp.Status), "headers": headers(resp.Header)}
	if r.raw {
		answer["raw"] = string(resp.Body)
	}
	j.env.Bind(expr.Response, answer)
	if r.request {
		j.env.Bind(expr.Request, map[string]any{"method": req.Method, "url": req.URL, "headers": headers(req.Header), "body": string(req.Body)})
	}
}

func headers(hs []record.Header) map[string]any {
	m := make(map[string]any, 2*len(hs))
	for _, h := range hs {
		m[strings.ToLower(h.Key)] = string(h.Value)
	}
	for _, h := range hs {
		m[h.Key] = m[strings.ToLower(h.Key)]
	}
	return m
}

func (j *judge) holds(r *rule) bool {
	if r == nil {
		return false
	}
	v, err := r.prog.Bool(j.env)
	if err != nil {
		j.doubt(r, err)
		return false
	}
	return v
}

// list is the list that each gives, nil if there is none; said: it is true
// instead, and there is nothing to say about single items.
func (j *judge) list(r *rule) (list []any, said bool) {
	if r == nil {
		return nil, false
	}
	v, err := r.prog.Any(j.env)
	if err != nil {
		j.doubt(r, err)
		return nil, false
	}
	switch v := v.(type) {
	case nil:
	case bool:
		if v {
			return nil, true
		}
		j.doubt(r, errors.New("the result is false"))
	case []any:
		if v == nil {
			v = []any{}
		}
		return v, false
	default:
		j.doubt(r, errors.New("the result is no list"))
	}
	return nil, false
}

// doubt keeps the first reason why a rule could not be decided.
func (j *judge) doubt(r *rule, err error) {
	if j.undecided != "" {
		return
	}
	_, notJSON := j.env.JSON()
	switch {
	case notJSON == nil || record.AsError(err).Message != record.AsError(notJSON).Message:
		j.undecided = r.fail(err)
	case j.cut:
		j.undecided = fmt.Sprintf("%s: the body is longer than what is read of it", r.name)
	default:
		j.undecided = r.name + ": " + strings.Replace(record.AsError(notJSON).Message, "the value", "the body", 1)
	}
}
