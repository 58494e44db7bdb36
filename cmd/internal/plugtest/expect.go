package plugtest

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

// What may come of a record.
const (
	// In a plugin.
	kindPass  = "pass"
	kindEmit  = "emit"
	kindDrop  = "drop"
	kindFail  = "fail"
	kindRetry = "retry"
	// In a flow.
	kindDelivered = "delivered"
	kindDropped   = "dropped"
	kindQueued    = "queued"
	kindAside     = "aside"
	kindWaiting   = "waiting"
)

var (
	pluginKinds = []string{kindPass, kindDrop, kindEmit, kindFail, kindRetry}
	flowKinds   = []string{kindDelivered, kindDropped, kindQueued, kindAside, kindWaiting}
)

// want is one outcome that is expected.
type want struct {
	at   flow.Pos
	kind string
	// record of emit and delivered; nil: any.
	record *wantRecord
	// stage of dropped, queued, aside and waiting; "": any.
	stage   string
	class   string
	code    *int64
	message string // a part of it
	after   *time.Duration
	// attempts made.
	attempts *int64
}

// wantRecord is a record that is expected. What is not named is not compared,
// unless exactly is true: then it is as it came in.
type wantRecord struct {
	at        flow.Pos
	value     *payload
	has       *flow.Value // fields that the value has, among others
	hasJSON   []byte
	key       *payload
	headers   []record.Header
	headersAt *flow.Pos // nil: none are named
	timestamp *int64
	partition *int64
	// output of an emission, to of a delivery; "": any.
	output  string
	exactly bool
}

// wantRequest is a request that is expected.
type wantRequest struct {
	at           flow.Pos
	method, path string
	headers      []record.Header
	body         *payload
}

// kinds are the outcomes of what is tested.
func (r *reader) kinds() []string {
	if r.f.flow != "" {
		return flowKinds
	}
	return pluginKinds
}

// expectations reads what is to come of each given record: a list with an item
// for each, or the outcome of the only one.
func (r *reader) expectations(c *testCase, v *flow.Value) {
	items := []*flow.Value{v}
	if v.Kind == flow.ListValue {
		items = v.Items
	}
	if len(items) != len(c.given) {
		help := "write an item for each record, in their order; several outcomes of one record are a list in it: - [ ..., ... ]"
		if c.single {
			help = "several outcomes of one record are a list in its item: - [ ..., ... ]"
		}
		r.fail(v, flow.CodeValue, help, "expect has %s for %s", cli.Plural(len(items), "item"), cli.Plural(len(c.given), "given record"))
		return
	}
	c.expect = [][]*want{}
	for _, it := range items {
		var all []*want
		for _, o := range list(it) {
			all = append(all, r.outcomes(o)...)
		}
		c.expect = append(c.expect, all)
	}
}

// outcomes reads one outcome: its name, or its name with what it is to have. A
// list of records stands for as many outcomes.
func (r *reader) outcomes(v *flow.Value) []*want {
	kind, inner := v.Text, (*flow.Value)(nil)
	at, end := v.Pos, v.End
	if v.Kind == flow.MapValue && len(v.Fields) == 1 {
		kind, inner, at, end = v.Fields[0].Key, v.Fields[0].Value, v.Fields[0].Pos, v.Fields[0].End
	} else if v.Kind != flow.TextValue {
		r.fail(v, flow.CodeType, "write one of "+strings.Join(r.kinds(), ", "), "an outcome is its name, or its name with what it is to have")
		return nil
	}
	if !slices.Contains(r.kinds(), kind) {
		r.Report(flow.CodeValue, at, end, "no outcome is called "+strconv.Quote(kind), r.kindHelp(kind))
		return nil
	}
	w := &want{at: at, kind: kind}
	if inner == nil || inner.Kind == flow.NullValue {
		return []*want{w}
	}
	switch kind {
	case kindPass, kindDrop:
		r.fail(inner, flow.CodeType, "write "+kind+" alone", "%s has nothing to say", kind)
	case kindEmit, kindDelivered:
		var all []*want
		for _, it := range list(inner) {
			w := &want{at: it.Pos, kind: kind, record: r.wantRecord(it, kind)}
			if n := it.Get("attempts"); n != nil {
				made := r.number(n, "attempts")
				w.attempts = &made
			}
			all = append(all, w)
		}
		return all
	default:
		r.failure(w, inner)
	}
	return []*want{w}
}

// kindHelp says what to write in place of a name.
func (r *reader) kindHelp(kind string) string {
	known := r.kinds()
	for _, other := range [][]string{pluginKinds, flowKinds} {
		if slices.Contains(other, kind) {
			return "this tests " + map[bool]string{true: "a flow", false: "a plugin"}[r.f.flow != ""] + ", where it is one of " + strings.Join(known, ", ")
		}
	}
	return "it is one of " + strings.Join(known, ", ")
}

// failure reads what stands in an outcome that is no record.
func (r *reader) failure(w *want, v *flow.Value) {
	if v.Kind == flow.TextValue && (w.kind == kindDropped || w.kind == kindQueued) {
		w.stage = v.Text
		return
	}
	known := []string{"code", "message"}
	switch w.kind {
	case kindFail:
		known = append(known, "class")
	case kindRetry:
		known = append(known, "after")
	default:
		known = append(known, "stage", "class", "attempts")
	}
	if !r.object(v, w.kind, known) {
		return
	}
	for _, f := range v.Fields {
		switch f.Key {
		case "code":
			n := r.number(f.Value, "code")
			w.code = &n
		case "attempts":
			n := r.number(f.Value, "attempts")
			w.attempts = &n
		case "message":
			w.message = r.text(f.Value, "message")
		case "stage":
			w.stage = r.text(f.Value, "stage")
		case "class":
			if w.class = r.text(f.Value, "class"); w.class != "" {
				if _, err := record.ParseClass(w.class); err != nil {
					r.fail(f.Value, flow.CodeValue, "it is one of rejected, schema, trap, fuel, memory, protocol, too_large, retryable, timeout", "there is no class %q", w.class)
				}
			}
		case "after":
			d, err := time.ParseDuration(r.text(f.Value, "after"))
			if err != nil {
				r.fail(f.Value, flow.CodeValue, "write after: 30s", "this is no time")
			}
			w.after = &d
		}
	}
}

// wantRecord reads a record that is expected; place is the outcome it stands
// in.
func (r *reader) wantRecord(v *flow.Value, place string) *wantRecord {
	w := &wantRecord{at: v.Pos}
	known := []string{"value", "text", "base64", "has", "key", "headers", "timestamp", "partition", "exactly"}
	switch place {
	case kindEmit, "after":
		known = append(known, "output")
	case kindDelivered:
		known = append(known, "to", "attempts")
	}
	if !r.object(v, "what is expected", known) {
		return w
	}
	w.value = r.payload(v)
	for i := range v.Fields {
		f := &v.Fields[i]
		switch f.Key {
		case "has":
			w.has, w.hasJSON = f.Value, r.json(f.Value)
		case "key":
			w.key = &payload{at: f.Pos}
			if f.Value.Kind != flow.NullValue {
				w.key.bytes = []byte(r.text(f.Value, "key"))
			}
		case "headers":
			w.headers, w.headersAt = r.headers(f.Value), &f.Pos
		case "timestamp":
			t := r.timestamp(f.Value)
			w.timestamp = &t
		case "partition":
			n := r.number(f.Value, "partition")
			w.partition = &n
		case "output", "to":
			w.output = r.text(f.Value, f.Key)
		case "exactly":
			w.exactly = r.boolean(f.Value, "exactly")
		}
	}
	return w
}

// answers reads what partners answer, by the id of a delivery or an exception.
func (r *reader) answers(c *testCase, v *flow.Value) {
	if v == nil || !r.isMap(v, "answers") {
		return
	}
	for _, f := range v.Fields {
		c.answers[f.Key] = []answer{}
		for _, it := range list(f.Value) {
			a := r.answer(it)
			a.at = it.Pos
			c.answers[f.Key] = append(c.answers[f.Key], a)
		}
	}
}

// maxTimes is how often one answer may be given.
const maxTimes = 1000

func (r *reader) answer(v *flow.Value) answer {
	a := answer{status: 200, times: 1}
	if v.Kind == flow.IntValue {
		a.status = int(r.number(v, "status"))
	} else if !r.object(v, "an answer", []string{"status", "headers", "body", "text", "base64", "error", "times"}) {
		return a
	}
	for i := range v.Fields {
		f := &v.Fields[i]
		switch f.Key {
		case "status":
			a.status = int(r.number(f.Value, "status"))
		case "headers":
			a.headers = r.headers(f.Value)
		case "body":
			a.body = r.json(f.Value)
		case "text":
			a.body = []byte(r.text(f.Value, "text"))
		case "base64":
			a.body = r.payload(&flow.Value{Kind: flow.MapValue, Fields: []flow.ValueField{*f}}).bytes
		case "error":
			if a.fault = r.text(f.Value, "error"); a.fault != "timeout" && a.fault != "connection" {
				r.fail(f.Value, flow.CodeValue, "it is timeout or connection", "there is no error %q", a.fault)
			}
		case "times":
			if a.times = int(r.number(f.Value, "times")); a.times < 1 || a.times > maxTimes {
				r.fail(f.Value, flow.CodeValue, "write a number from 1 to "+strconv.Itoa(maxTimes), "an answer cannot be given %d times", a.times)
			}
		}
	}
	if a.status < 100 || a.status > 599 {
		r.fail(v, flow.CodeValue, "write a status from 100 to 599", "%d is no status", a.status)
	}
	return a
}

// exchanges reads requests and after.
func (r *reader) exchanges(c *testCase, v *flow.Value) {
	if q := v.Get("requests"); q != nil && r.isMap(q, "requests") {
		for _, f := range q.Fields {
			c.keys["requests."+f.Key], c.requests[f.Key] = f.Pos, []*wantRequest{}
			for _, it := range list(f.Value) {
				c.requests[f.Key] = append(c.requests[f.Key], r.request(it))
			}
		}
	}
	if a := v.Get("after"); a != nil && r.isMap(a, "after") {
		for _, f := range a.Fields {
			c.keys["after."+f.Key], c.after[f.Key] = f.Pos, []*wantRecord{}
			for _, it := range list(f.Value) {
				c.after[f.Key] = append(c.after[f.Key], r.wantRecord(it, "after"))
			}
		}
	}
}

func (r *reader) request(v *flow.Value) *wantRequest {
	w := &wantRequest{at: v.Pos}
	if !r.object(v, "a request", []string{"method", "path", "headers", "body", "text", "base64"}) {
		return w
	}
	for i := range v.Fields {
		f := &v.Fields[i]
		switch f.Key {
		case "method":
			w.method = strings.ToUpper(r.text(f.Value, "method"))
		case "path":
			w.path = r.text(f.Value, "path")
		case "headers":
			w.headers = r.headers(f.Value)
		case "body":
			w.body = &payload{at: f.Pos, bytes: bytes.Clone(r.json(f.Value)), json: true, form: "body"}
		case "text", "base64":
			w.body = r.payload(&flow.Value{Kind: flow.MapValue, Fields: []flow.ValueField{*f}})
		}
	}
	return w
}
