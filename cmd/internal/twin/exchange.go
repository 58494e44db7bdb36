package twin

import (
	"bytes"
	"compress/gzip"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/record"
)

// route is what a twin knows of a route. What is below credential is guarded
// by Twin.mu.
type route struct {
	config     *routeConfig
	key        []byte // of the signature
	credential []byte

	passed   int64 // requests that got past limits and checks
	inFlight int
	windows  bounded[string, *window]
	keys     bounded[id, *stored]
	attempts bounded[id, uint32]
	applied  bounded[id, struct{}]
	nonces   bounded[id, struct{}]
	turns    []int64 // of verdicts with `every`
}

// id is a hash of a text, wide enough not to repeat.
type id [2]uint64

func idOf(s string) id {
	h := xxhash.NewWithSeed(0x7477696e)
	_, _ = h.WriteString(s)
	return id{xxhash.Sum64String(s), h.Sum64()}
}

// stored is what a key got for an answer. There may be millions of them.
type stored struct {
	seq    int64
	at     time.Duration // since the start
	sum    id            // of the body
	answer *answer
	status int
	kind   string      // the content type
	header http.Header // nil if the content type is all
	body   []byte
	judged []judged // nil if no item is to come again
}

// keep stores a plan as what the key is answered from now on.
func (s *stored) keep(p plan, done []judged) {
	s.status, s.body, s.kind, s.header, s.judged = p.status, p.body, p.header.Get("Content-Type"), nil, nil
	if len(p.header) > 1 {
		s.header = p.header.Clone()
	}
	if slices.ContainsFunc(done, func(j judged) bool { return j.verdict == verdictRetry }) {
		s.judged = done
	}
}

func (s *stored) plan() plan {
	p := plan{status: s.status, header: s.header.Clone(), body: s.body}
	if p.header == nil {
		p.header = http.Header{"Content-Type": {s.kind}}
	}
	return p
}

// judged is an item with its verdict and what the answer says of it.
type judged struct {
	verdict string
	result  any
}

func (r *route) reset() {
	r.passed = 0
	r.windows = bounded[string, *window]{max: maxClients}
	r.attempts = bounded[id, uint32]{max: maxItems}
	r.applied = bounded[id, struct{}]{max: maxItems}
	r.nonces = bounded[id, struct{}]{max: maxNonces}
	if c := r.config.idempotency; c != nil {
		r.keys = bounded[id, *stored]{max: c.keep}
	}
	r.turns = nil
	if c := r.config.items; c != nil {
		r.turns = make([]int64, len(c.verdicts))
	}
}

// exchange is one request on its way through the twin.
type exchange struct {
	t     *Twin
	req   *http.Request
	route *route
	env   *expr.Env
	raw   []byte // the body as it was sent
	body  []byte // and decompressed
	// request is the root of that name.
	request map[string]any
	items   []item
	obs     Observation
}

// item is a part of the body.
type item struct {
	rec record.Record
	id  id
}

// plan is what will be done with a request.
type plan struct {
	status  int
	header  http.Header
	body    []byte
	latency time.Duration
	hang    time.Duration
	slow    time.Duration
	reset   string
}

// plain is a plan for an answer that says nothing but its status.
func plain(status int) plan {
	b, kind := simple(map[string]any{"error": http.StatusText(status)})
	return plan{status: status, header: http.Header{"Content-Type": {kind}}, body: b}
}

func (t *Twin) serve(w http.ResponseWriter, req *http.Request) {
	t.begin()
	defer t.end()
	x := &exchange{t: t, req: req, env: expr.NewEnv(), obs: Observation{Time: time.Now(), Method: req.Method, Path: req.URL.RequestURI()}}
	var p plan
	early, err := x.read()
	if err == nil && early == 0 && x.route != nil {
		x.prepare()
	}
	entered := false
	t.mu.Lock()
	t.seq++
	x.obs.Seq = t.seq
	switch {
	case err != nil:
		x.obs.Outcome = OutcomeIncomplete
	case early != 0:
		p, x.obs.Outcome = plain(early), OutcomeBadRequest
	case t.oauth != nil && req.URL.Path == t.oauth.config.path:
		p = x.token()
	case x.route == nil:
		p, x.obs.Outcome = plain(x.missing()), OutcomeNoRoute
	default:
		entered = true
		x.route.inFlight++
		t.state.InFlight++
		t.state.MaxInFlight = max(t.state.MaxInFlight, t.state.InFlight)
		p = x.decide()
	}
	if p.reset != resetBefore && p.hang == 0 {
		x.obs.Status = p.status
	}
	t.state.decided(&x.obs)
	t.mu.Unlock()

	abort := err != nil
	if err == nil {
		x.obs.Sent, abort = t.act(w, req, p)
	}
	if entered {
		t.mu.Lock()
		x.route.inFlight--
		t.state.InFlight--
		t.mu.Unlock()
	}
	t.finish(&x.obs)
	if abort {
		panic(http.ErrAbortHandler)
	}
}

// read finds the route and reads the body. The error is a caller's who left;
// a status is the answer to a body that cannot be read.
func (x *exchange) read() (status int, err error) {
	max := x.t.file.maxBody
	for _, r := range x.t.routes {
		if r.config.matches(x.req.Method, x.req.URL.Path) {
			x.route, x.obs.Route = r, r.config.id
			break
		}
	}
	x.raw, err = io.ReadAll(io.LimitReader(x.req.Body, max+1))
	switch {
	case err != nil:
		return 0, err
	case int64(len(x.raw)) > max:
		return http.StatusRequestEntityTooLarge, nil
	}
	x.body = x.raw
	switch x.req.Header.Get("Content-Encoding") {
	case "", "identity":
	case "gzip":
		z, err := gzip.NewReader(bytes.NewReader(x.raw))
		if err == nil {
			x.body, err = io.ReadAll(io.LimitReader(z, max+1))
		}
		if err != nil {
			return http.StatusBadRequest, nil
		}
		if int64(len(x.body)) > max {
			return http.StatusRequestEntityTooLarge, nil
		}
	default:
		return http.StatusUnsupportedMediaType, nil
	}
	sum := sha256.Sum256(x.body)
	x.obs.BodyBytes, x.obs.BodySHA256 = len(x.body), hex.EncodeToString(sum[:])
	return 0, nil
}

func (c *routeConfig) matches(method, path string) bool {
	return (c.method == "" || c.method == method) && c.matchesPath(path)
}

func (c *routeConfig) matchesPath(path string) bool {
	_, ok := c.params(path)
	return ok
}

// params are the values of the path's wildcards.
func (c *routeConfig) params(path string) (map[string]any, bool) {
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	params := map[string]any{}
	for i, want := range c.path {
		if rest, ok := strings.CutSuffix(want, "...}"); ok {
			params[rest[1:]] = strings.Join(segments[min(i, len(segments)):], "/")
			return params, true
		}
		switch {
		case i >= len(segments):
			return nil, false
		case want != "" && want[0] == '{':
			if segments[i] == "" {
				return nil, false
			}
			params[want[1:len(want)-1]] = segments[i]
		case want != segments[i]:
			return nil, false
		}
	}
	return params, len(segments) == len(c.path)
}

// missing is the status of a request that no route is for.
func (x *exchange) missing() int {
	if slices.ContainsFunc(x.t.routes, func(r *route) bool { return r.config.matchesPath(x.req.URL.Path) }) {
		return http.StatusMethodNotAllowed
	}
	return http.StatusNotFound
}

// prepare makes the roots of expressions.
func (x *exchange) prepare() {
	req := x.req
	headers := map[string]any{"host": req.Host}
	for k, v := range req.Header {
		headers[strings.ToLower(k)] = strings.Join(v, ", ")
	}
	query := map[string]any{}
	values := req.URL.Query()
	for k, v := range values {
		query[k] = v[0]
	}
	params, _ := x.route.config.params(req.URL.Path)
	client, _, err := net.SplitHostPort(req.RemoteAddr)
	if err != nil {
		client = req.RemoteAddr
	}
	x.request = map[string]any{
		"method": req.Method, "path": req.URL.Path, "query": query, "raw_query": req.URL.RawQuery, "sorted_query": values.Encode(),
		"headers": headers, "params": params, "client": client, "body": string(x.raw),
	}
	if x.route.config.signature != nil {
		sum, old := sha256.Sum256(x.raw), md5.Sum(x.raw)
		x.request["digest"] = map[string]any{
			"sha256": hex.EncodeToString(sum[:]), "sha256_base64": base64.StdEncoding.EncodeToString(sum[:]),
			"md5": hex.EncodeToString(old[:]), "md5_base64": base64.StdEncoding.EncodeToString(old[:]),
		}
	}
}

// show makes rec what expressions see.
func (x *exchange) show(rec *record.Record) *expr.Env {
	x.env.Reset(rec)
	x.env.Bind(expr.Request, x.request)
	return x.env
}

func (x *exchange) trouble(err error) {
	if err != nil && x.obs.Error == "" {
		x.obs.Error = err.Error()
	}
}

func (x *exchange) text(p *expr.Program, e *expr.Env) string {
	if p == nil {
		return ""
	}
	b, err := p.Key(e) // "" for nil
	x.trouble(err)
	return string(b)
}

func (x *exchange) holds(p *expr.Program, e *expr.Env) bool {
	if p == nil {
		return true
	}
	ok, err := p.Bool(e)
	x.trouble(err)
	return ok
}

// token is the token endpoint's answer.
func (x *exchange) token() plan {
	o := x.t.oauth
	form, err := url.ParseQuery(string(x.body))
	if err != nil {
		x.obs.Outcome = OutcomeBadRequest
		return plain(http.StatusBadRequest)
	}
	x.obs.Outcome = OutcomeToken
	status, fields := o.answer(x.req, form, time.Now())
	b, kind := simple(fields)
	p := plan{status: status, header: http.Header{"Content-Type": {kind}, "Cache-Control": {"no-store"}}, body: b}
	p.latency = o.config.latency.at(x.t.draw("", "token latency", "", o.issued))
	return p
}
