package twin

import (
	"cmp"
	"errors"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/flow"
)

// What expressions of a twin see: the request alone, what is in it, and, in
// bodies, what was decided.
var (
	requestScope = expr.Scope{Roots: expr.Request}
	itemScope    = expr.Scope{Roots: expr.Value | expr.Raw | expr.Attempt | expr.Request}
	bodyScope    = expr.Scope{Roots: itemScope.Roots | expr.Response}
)

// Parse reads a twin's file; name is what its problems call it. The error is a
// *flow.Errors with every problem found: place, cause and next step.
func Parse(name string, src []byte) (*File, error) {
	r := &reader{file: name}
	root := r.read(src)
	if root == nil || len(r.problems) > 0 {
		return nil, r.err()
	}
	f := r.root(root)
	if err := r.err(); err != nil {
		return nil, err
	}
	return f, nil
}

func (r *reader) root(v *value) *File {
	f := &File{Name: "partner", Listen: DefaultListen, keep: DefaultKeep, Control: DefaultControl, maxBody: defaultMaxBody}
	if v.kind != mapping || len(v.fields) == 0 || v.fields[0].key != "twin" {
		r.fail(v, flow.CodeDocument, "begin it with `twin: v1`", "this is no twin")
		return nil
	}
	o, _ := r.object(v, "the file", "", "twin", "name", "listen", "seed", "log", "keep", "control", "body", "latency", "oauth", "outages", "routes")
	if version := o.get("twin"); version.text != "v1" {
		r.fail(version, flow.CodeVersion, "write v1", "there is no version %q of twins", version.text)
	}
	f.Name = o.text("name", "partner", f.Name)
	if v := o.get("listen"); v != nil {
		f.Listen = o.text("listen", DefaultListen, "")
		if _, port, err := net.SplitHostPort(f.Listen); err != nil || !isPort(port) {
			r.fail(v, flow.CodeValue, "write listen: "+DefaultListen, "this is not HOST:PORT")
		}
	}
	f.Log = o.text("log", "seen.ndjson", "")
	f.seed = uint64(o.int("seed", 7, 0, math.MaxInt64, 0))
	f.keep = int(o.int("keep", DefaultKeep, 0, 10_000_000, DefaultKeep))
	f.maxBody = o.size("body", "10MiB", defaultMaxBody)
	if v := o.get("control"); v != nil {
		f.Control = strings.TrimSuffix(o.text("control", DefaultControl, ""), "/")
		if len(f.Control) < 2 || f.Control[0] != '/' {
			r.fail(v, flow.CodeValue, "write control: "+DefaultControl, "this is not the beginning of a path")
		}
	}
	if v := o.get("oauth"); v != nil {
		f.oauth = r.oauth(v)
	}
	f.outages = r.schedule(o.get("outages"), "an outage", "outages: [{ from: 30s, for: 60s }]", false)
	shared := r.latency(o.get("latency"))
	routes := o.get("routes")
	if routes == nil || routes.kind != list || len(routes.items) == 0 {
		at := v
		if routes != nil {
			at = routes
		}
		r.fail(at, flow.CodeKeyMissing, "write routes: [{ match: POST /orders }]", "a twin needs a list of routes")
		return nil
	}
	seen := map[string]int{}
	for _, it := range routes.items {
		c, ok := r.route(it)
		if !ok {
			continue
		}
		if c.latency == nil {
			c.latency = shared
		}
		if line := seen[c.id]; line > 0 {
			r.fail(it, flow.CodeStageDuplicate, "give one of them another id", "the route in line %d has the id %q too", line, c.id)
		}
		seen[c.id] = it.line
		if c.auth != nil && c.auth.kind == "oauth" && f.oauth == nil {
			r.fail(it, flow.CodeKeyMissing, "describe the token endpoint in oauth: { path: /token, id: me, secret: { env: NAME } }", "auth: oauth in a twin without oauth")
		}
		f.routes = append(f.routes, c)
	}
	return f
}

func isPort(s string) bool {
	n, err := strconv.Atoi(s)
	return err == nil && n >= 0 && n <= 65535
}

func (r *reader) route(v *value) (c routeConfig, ok bool) {
	o, ok := r.object(v, "a route", "{ match: POST /orders }", "id", "match", "latency", "rate", "concurrent", "too_many", "auth", "signature", "idempotency", "items", "bursts", "answers")
	if !ok {
		return c, false
	}
	match := o.text("match", "POST /orders/{id}", "")
	at := o.get("match")
	if at == nil {
		r.fail(v, flow.CodeKeyMissing, "write match: POST /orders", "a route says which requests it is for")
		return c, false
	}
	path := match
	if method, rest, ok := strings.Cut(match, " "); ok {
		c.method, path = method, strings.TrimSpace(rest)
		if c.method == "*" {
			c.method = ""
		}
	}
	if !strings.HasPrefix(path, "/") || strings.ToUpper(c.method) != c.method || strings.ContainsAny(path, " ?#") {
		r.fail(at, flow.CodeValue, "write match: POST /orders/{id}", "this is not a method and a path")
		return c, false
	}
	c.path = strings.Split(path[1:], "/")
	for i, s := range c.path {
		if strings.HasSuffix(s, "...}") && i < len(c.path)-1 || strings.ContainsAny(s, "{}") && (len(s) < 3 || s[0] != '{' || s[len(s)-1] != '}') {
			r.fail(at, flow.CodeValue, "a wildcard is a whole segment, such as /orders/{id}; only the last one may be {rest...}", "%q is no wildcard", s)
			return c, false
		}
	}
	c.id = o.text("id", "orders", match)
	c.latency = r.latency(o.get("latency"))
	c.rate = r.rate(o.get("rate"))
	c.concurrent = int(o.int("concurrent", 16, 1, 1_000_000, 0))
	c.tooMany = o.status("too_many", http.StatusTooManyRequests)
	c.auth = r.auth(o.get("auth"))
	c.signature = r.signature(o.get("signature"))
	c.idempotency = r.idempotency(o.get("idempotency"))
	c.items = r.items(o.get("items"))
	c.bursts = r.schedule(o.get("bursts"), "a burst", "bursts: [{ every: 1000, for: 20, status: 500 }]", true)
	for _, it := range r.list(o.get("answers"), "answers", "answers: [{ status: 200 }]") {
		if a, ok := r.answer(it, "an answer", "weight", "when"); ok {
			c.answers = append(c.answers, a)
		}
	}
	if v := o.get("answers"); v != nil && v.kind == list && len(c.answers) == len(v.items) && !slices.ContainsFunc(c.answers, func(a answer) bool { return a.when == nil && a.weight > 0 }) {
		r.fail(o.at("answers"), flow.CodeValue, "add one without `when`, such as { status: 200 }", "no answer is left when no `when` holds")
	}
	c.inherit()
	return c, true
}

// inherit gives answers that say only what happens on their way the words of
// the route's first answer that is a plain success.
func (c *routeConfig) inherit() {
	i := slices.IndexFunc(c.answers, func(a answer) bool { return a.when == nil && a.trouble() == "" && a.applies() })
	if i < 0 {
		return
	}
	good := &c.answers[i]
	for k := range c.answers {
		if a := &c.answers[k]; a.trouble() != "" && a.status == 0 && a.body == nil && a.broken != brokenHTML {
			a.status, a.body = good.status, good.body
			if a.headers == nil {
				a.headers = good.headers
			}
		}
	}
}

// answerKeys are the keys of an answer wherever it stands.
var answerKeys = []string{"status", "headers", "body", "applied", "reset", "broken", "hang", "slow", "latency"}

func (r *reader) answer(v *value, what string, more ...string) (a answer, ok bool) {
	o, ok := r.object(v, what, "{ status: 200 }", append(more, answerKeys...)...)
	if !ok {
		return a, false
	}
	if v := o.get("when"); v != nil {
		a.when = r.condition(v, itemScope)
	}
	if slices.Contains(more, "weight") {
		a.weight = 1
		if a.when != nil {
			a.weight = 0
		}
		a.weight = o.number("weight", "94", 0, 1e9, a.weight)
	}
	a.status = o.status("status", 0)
	if v := o.get("headers"); v != nil {
		if v.kind != mapping {
			r.fail(v, flow.CodeType, "write headers: { X-Name: value }", "headers is a map, not %s", v.kind)
		}
		for _, f := range v.fields {
			a.headers = append(a.headers, header{http.CanonicalHeaderKey(f.key), r.template(f.value, bodyScope)})
		}
	}
	if v := o.get("body"); v != nil {
		a.body = r.body(v)
	}
	if v := o.get("applied"); v != nil {
		b := o.bool("applied", false)
		a.applied = &b
	}
	a.reset = o.oneOf("reset", "", resetBefore, resetBody)
	a.broken = o.oneOf("broken", "", brokenTruncated, brokenHTML, brokenEmpty)
	a.hang = o.duration("hang", "30s", 0)
	a.slow = o.duration("slow", "10s", 0)
	a.latency = r.latency(o.get("latency"))
	for _, pair := range [][2]string{{"reset", "hang"}, {"reset", "slow"}, {"reset", "broken"}, {"hang", "slow"}, {"hang", "broken"}} {
		if o.get(pair[0]) != nil && o.get(pair[1]) != nil {
			r.fail(o.at(pair[1]), flow.CodeValue, "make two answers of them", "%s and %s do not go together", pair[0], pair[1])
		}
	}
	return a, true
}

func (r *reader) schedule(v *value, what, example string, counts bool) (out []scheduled) {
	for _, it := range r.list(v, what, example) {
		a, ok := r.answer(it, what, "from", "for", "every")
		if !ok {
			continue
		}
		o := object{r, it, what}
		s := scheduled{answer: a}
		every, length := o.get("every"), o.get("for")
		if counts && every != nil && every.kind == integer {
			s.ofEvery, s.count = o.int("every", 1000, 1, 1e12, 0), o.int("for", 20, 1, 1e12, 1)
			if s.count > s.ofEvery {
				r.fail(length, flow.CodeValue, "make it shorter than every", "for is longer than every")
			}
			if v := o.get("from"); v != nil {
				r.fail(o.at("from"), flow.CodeValue, "leave it out", "what is counted in requests has no from")
			}
		} else {
			s.from, s.every, s.length = o.duration("from", "30s", 0), o.duration("every", "10m", 0), o.duration("for", "60s", 0)
			switch {
			case s.every > 0 && (s.length == 0 || s.length > s.every):
				r.fail(o.at("every"), flow.CodeValue, "write every: 10m, for: 60s", "what comes again needs a `for` that is shorter than `every`")
			case s.every == 0 && s.length == 0 && o.get("from") == nil:
				r.fail(it, flow.CodeKeyMissing, "write "+example, "%s says when: from, for or every", what)
			}
		}
		if a.status == 0 && a.trouble() == "" {
			if counts {
				s.answer.status = http.StatusInternalServerError
			} else {
				s.answer.reset = resetBefore
			}
		}
		out = append(out, s)
	}
	return out
}

func (r *reader) rate(v *value) *rate {
	if v == nil {
		return nil
	}
	out := &rate{after: "seconds", status: http.StatusTooManyRequests}
	spec := v
	if v.kind == mapping {
		o, _ := r.object(v, "rate", "rate: 20/s", "requests", "by", "retry_after", "status")
		if spec = o.get("requests"); spec == nil {
			r.fail(v, flow.CodeKeyMissing, "write requests: 20/s", "a rate says how many requests")
			return nil
		}
		out.after = o.oneOf("retry_after", out.after, "seconds", "date", "none")
		out.status = o.status("status", out.status)
		if by := o.get("by"); by != nil {
			out.by = r.expression(by, requestScope)
		}
	}
	count, per, ok := strings.Cut(spec.text, "/")
	n, err := strconv.Atoi(strings.TrimSpace(count))
	units := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}
	out.requests, out.window = n, units[per]
	if out.window == 0 {
		out.window, _ = time.ParseDuration(per)
	}
	if spec.kind != text || !ok || err != nil || n < 1 || n > maxRate || out.window <= 0 {
		r.fail(spec, flow.CodeValue, "write 20/s, 1000/m or 5/100ms", "this is not a number of requests in a time")
	}
	return out
}

func (r *reader) latency(v *value) *latency {
	if v == nil {
		return nil
	}
	const example = "latency: 20ms, or { median: 20ms, p99: 400ms }"
	if v.kind != mapping {
		d := r.time(v, "latency", "20ms")
		return &latency{quantile: func(float64) time.Duration { return d }}
	}
	o, _ := r.object(v, "latency", example, "uniform", "mean", "stddev", "median", "p50", "p90", "p95", "p99", "p999", "max")
	out := &latency{max: o.duration("max", "2s", 0)}
	d := func(key string) float64 { return float64(o.duration(key, "20ms", 0)) }
	has := func(key string) bool { return o.get(key) != nil }
	switch {
	case has("uniform"):
		u := o.get("uniform")
		if u.kind != list || len(u.items) != 2 {
			r.fail(u, flow.CodeType, "write uniform: [10ms, 50ms]", "uniform is a list of two durations")
			return nil
		}
		lo, hi := float64(r.time(u.items[0], "uniform", "10ms")), float64(r.time(u.items[1], "uniform", "50ms"))
		out.quantile = func(u float64) time.Duration { return time.Duration(lo + u*(hi-lo)) }
	case has("mean"):
		mean, dev := d("mean"), d("stddev")
		out.quantile = func(u float64) time.Duration { return time.Duration(mean + dev*normal(u)) }
	case has("median"):
		median, p99 := d("median"), d("p99")
		if median <= 0 || p99 < median {
			r.fail(v, flow.CodeValue, "write { median: 20ms, p99: 400ms }", "a median needs a p99 that is not below it")
			return nil
		}
		sigma := math.Log(p99/median) / normal(0.99)
		out.quantile = func(u float64) time.Duration { return time.Duration(median * math.Exp(sigma*normal(u))) }
	default:
		us, ds := []float64{0}, []float64{0}
		for _, p := range []struct {
			key string
			u   float64
		}{{"p50", .5}, {"p90", .9}, {"p95", .95}, {"p99", .99}, {"p999", .999}, {"max", 1}} {
			if has(p.key) {
				us, ds = append(us, p.u), append(ds, d(p.key))
			}
		}
		if len(us) == 1 || us[1] == 1 || !slices.IsSorted(ds) {
			r.fail(v, flow.CodeValue, "write "+example, "percentiles rise, and begin below max")
			return nil
		}
		if us[len(us)-1] < 1 {
			us, ds = append(us, 1), append(ds, ds[len(ds)-1])
		}
		out.quantile = func(u float64) time.Duration {
			i := max(1, min(len(us)-1, slices.IndexFunc(us, func(x float64) bool { return x > u })))
			part := (u - us[i-1]) / (us[i] - us[i-1])
			return time.Duration(ds[i-1] + part*(ds[i]-ds[i-1]))
		}
	}
	return out
}

func (r *reader) idempotency(v *value) *idempotency {
	if v == nil {
		return nil
	}
	out := &idempotency{header: "Idempotency-Key", keep: defaultKeys}
	if v.kind == text {
		out.header = http.CanonicalHeaderKey(v.text)
		return out
	}
	o, ok := r.object(v, "idempotency", "idempotency: { header: Idempotency-Key }", "header", "required", "keep", "forget", "mismatch")
	if !ok {
		return nil
	}
	out.header = http.CanonicalHeaderKey(o.text("header", out.header, out.header))
	out.required = o.bool("required", false)
	out.keep = int(o.int("keep", defaultKeys, 1, 100_000_000, defaultKeys))
	out.forget = o.duration("forget", "24h", 0)
	out.mismatch = o.status("mismatch", 0)
	return out
}

func (r *reader) items(v *value) *items {
	if v == nil {
		return nil
	}
	out := &items{in: "body", results: map[string]*body{}}
	o, ok := r.object(v, "items", "items: { in: json_array, id: value.id }", "in", "at", "id", "key", "verdicts", "results", "partial")
	if !ok {
		return nil
	}
	out.in = o.oneOf("in", out.in, "body", "json_array", "ndjson")
	if path := o.text("at", "orders", ""); path != "" {
		out.at = strings.Split(path, ".")
		if out.in != "json_array" {
			r.fail(o.at("at"), flow.CodeValue, "write in: json_array, or leave it out", "at is for lists in JSON")
		}
	}
	if v := o.get("id"); v != nil {
		out.id = r.expression(v, itemScope)
	}
	if v := o.get("key"); v != nil {
		out.key = r.expression(v, itemScope)
	}
	out.partial = o.status("partial", 0)
	if v := o.get("results"); v != nil {
		ro, ok := r.object(v, "results", `results: { retry: { id: "${value.id}", code: 4290 } }`, verdictOK, verdictRetry, verdictReject)
		for _, name := range []string{verdictOK, verdictRetry, verdictReject} {
			if ok && ro.get(name) != nil {
				out.results[name] = r.body(ro.get(name))
			}
		}
	}
	if out.in == "body" && (o.get("verdicts") != nil || o.get("results") != nil || o.get("partial") != nil) {
		r.fail(v, flow.CodeValue, "write in: json_array or ndjson; for a whole request give answers with `when`", "verdicts by item need a list of items")
	}
	for _, it := range r.list(o.get("verdicts"), "verdicts", "verdicts: [{ verdict: retry, chance: 0.05 }]") {
		vo, ok := r.object(it, "a verdict", "{ verdict: retry, chance: 0.05 }", "verdict", "when", "chance", "every", "result")
		if !ok {
			continue
		}
		one := verdict{verdict: vo.oneOf("verdict", "", verdictOK, verdictRetry, verdictReject), every: vo.int("every", 20, 1, 1e12, 0), chance: vo.number("chance", "0.05", 0, 1, 0)}
		if vo.get("verdict") == nil {
			r.fail(it, flow.CodeKeyMissing, "write verdict: retry", "a verdict is ok, retry or reject")
		}
		if v := vo.get("when"); v != nil {
			one.when = r.condition(v, itemScope)
		}
		if v := vo.get("result"); v != nil {
			one.result = r.body(v)
		}
		out.verdicts = append(out.verdicts, one)
	}
	return out
}

func (r *reader) expression(v *value, s expr.Scope) *expr.Program {
	if v.kind != text {
		r.fail(v, flow.CodeType, "write an expression, such as value.id", "an expression is a text, not %s", v.kind)
		return nil
	}
	p, err := expr.Compile(v.text, s)
	r.expressionError(v, err)
	return p
}

func (r *reader) condition(v *value, s expr.Scope) *expr.Program {
	if v.kind != text && v.kind != boolean {
		r.fail(v, flow.CodeType, "write a condition, such as value.amount < 0", "a condition is a text, not %s", v.kind)
		return nil
	}
	p, err := expr.CompileBool(v.text, s)
	r.expressionError(v, err)
	return p
}

func (r *reader) template(v *value, s expr.Scope) *expr.Template {
	if v.kind == mapping || v.kind == list || v.kind == null {
		r.fail(v, flow.CodeType, "write a text", "this is a text, not %s", v.kind)
		return nil
	}
	p, err := expr.CompileTemplate(v.text, s)
	r.expressionError(v, err)
	return p
}

func (r *reader) expressionError(v *value, err error) {
	if err == nil {
		return
	}
	at := *v
	e, ok := errors.AsType[*expr.Error](err)
	if !ok {
		r.fail(v, flow.CodeExpr, "", "%v", err)
		return
	}
	if v.shown {
		at.col, at.width = v.textCol+e.Offset, max(1, e.Length)
	}
	r.fail(&at, flow.CodeExpr, cmp.Or(e.Help, "write an expression such as value.id, or quote a text in it"), "%s", e.Message)
}
