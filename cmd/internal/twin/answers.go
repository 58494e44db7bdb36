package twin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/record"
)

// split finds the items of the body.
func (x *exchange) split() error {
	c := x.route.config.items
	if c == nil {
		return nil
	}
	switch c.in {
	case "body":
		x.items = append(x.items, item{rec: record.Record{Value: x.body}})
	case "ndjson":
		for line := range bytes.Lines(x.body) {
			if line = bytes.TrimSpace(line); len(line) > 0 {
				if !json.Valid(line) {
					return fmt.Errorf("line %d of the body is not JSON", len(x.items)+1)
				}
				x.items = append(x.items, item{rec: record.Record{Value: line}})
			}
		}
	default:
		raw := json.RawMessage(x.body)
		for _, key := range c.at {
			var m map[string]json.RawMessage
			if err := json.Unmarshal(raw, &m); err != nil || m[key] == nil {
				return fmt.Errorf("the body has no list at %s", strings.Join(c.at, "."))
			}
			raw = m[key]
		}
		var list []json.RawMessage
		if err := json.Unmarshal(raw, &list); err != nil || list == nil {
			return errors.New("the body is no JSON list")
		}
		for _, it := range list {
			x.items = append(x.items, item{rec: record.Record{Value: it}})
		}
	}
	if len(x.items) == 0 {
		return errors.New("the list is empty")
	}
	x.obs.Items = make([]Item, len(x.items))
	for i := range x.items {
		it := &x.items[i]
		e := x.show(&it.rec)
		o := &x.obs.Items[i]
		o.ID, o.Key = x.text(c.id, e), x.text(c.key, e)
		it.rec.Attempt = 1
		if o.ID != "" {
			it.id = idOf("item " + o.ID)
			n, _ := x.route.attempts.get(it.id)
			it.rec.Attempt = n + 1
			x.route.attempts.set(it.id, n+1)
			o.Attempt = int(n) + 1
		}
	}
	return nil
}

// pick draws the answer.
func (x *exchange) pick(whole *record.Record) *answer {
	c := x.route.config
	e := x.show(whole)
	if x.t.calm {
		for i := range c.answers {
			if a := &c.answers[i]; a.applies() && a.trouble() == "" && x.holds(a.when, e) {
				return a
			}
		}
		return new(answer)
	}
	total := 0.0
	open := make([]bool, len(c.answers))
	for i := range c.answers {
		a := &c.answers[i]
		open[i] = x.holds(a.when, e)
		if open[i] && a.when != nil && a.weight == 0 {
			return a
		}
		if open[i] {
			total += a.weight
		}
	}
	at := total * x.t.draw(c.id, "answer", "", uint64(x.route.passed))
	for i := range c.answers {
		if a := &c.answers[i]; open[i] && a.weight > 0 {
			if at -= a.weight; at < 0 {
				return a
			}
		}
	}
	return new(answer)
}

// judge gives every item its verdict and applies those that are ok. Of those
// in before only what was to come again is judged.
func (x *exchange) judge(before []judged) []judged {
	r, c := x.route, x.route.config.items
	if c == nil {
		return nil
	}
	out := make([]judged, len(x.items))
	for i := range x.items {
		it, o := &x.items[i], &x.obs.Items[i]
		if i < len(before) && before[i].verdict != verdictRetry {
			out[i] = before[i]
			continue
		}
		e := x.show(&it.rec)
		verdict, result := x.verdict(i, e)
		o.Verdict = verdict
		if verdict == verdictOK {
			o.Applied = true
			if o.ID != "" {
				_, o.Again = r.applied.get(it.id)
				r.applied.set(it.id, struct{}{})
			}
		}
		if result == nil {
			result = c.results[verdict]
		}
		out[i].verdict = verdict
		if c.in != "body" {
			out[i].result = x.result(i, verdict, result)
		}
	}
	return out
}

// verdict is the first one whose turn it is for the item that e shows.
func (x *exchange) verdict(i int, e *expr.Env) (string, *body) {
	r, c := x.route, x.route.config.items
	if x.t.calm {
		return verdictOK, nil
	}
	for k := range c.verdicts {
		v := &c.verdicts[k]
		if !x.holds(v.when, e) {
			continue
		}
		if v.chance > 0 {
			whom, n := "id "+x.obs.Items[i].ID, uint64(x.items[i].rec.Attempt)
			if x.obs.Items[i].ID == "" {
				whom, n = strconv.Itoa(i), uint64(r.passed)
			}
			if x.t.draw(r.config.id, "verdict "+strconv.Itoa(k), whom, n) >= v.chance {
				continue
			}
		}
		if v.every > 0 {
			if r.turns[k]++; r.turns[k]%v.every != 0 {
				continue
			}
		}
		return v.verdict, v.result
	}
	return verdictOK, nil
}

// result is what the answer says of an item.
func (x *exchange) result(i int, verdict string, b *body) any {
	if b == nil {
		if x.route.config.items.id == nil {
			return map[string]any{"index": int64(i), "status": verdict}
		}
		return map[string]any{"id": x.obs.Items[i].ID, "status": verdict}
	}
	x.env.Bind(expr.Response, map[string]any{"verdict": verdict, "index": int64(i)})
	v, err := b.value(x.env)
	if err != nil {
		x.trouble(err)
		return map[string]any{"error": err.Error()}
	}
	return v
}

func (x *exchange) latency(a *answer) time.Duration {
	l := a.latency
	if l == nil {
		l = x.route.config.latency
	}
	return l.at(x.t.draw(x.route.config.id, "latency", "", uint64(x.route.passed)))
}

// render is an answer that does not depend on items, spoiled.
func (x *exchange) render(a *answer, done []judged) plan {
	x.obs.Trouble = a.trouble()
	return x.spoil(x.renderFor(a, done, &record.Record{Value: x.body, Attempt: 1}), a)
}

// renderFor is an answer as the partner means it.
func (x *exchange) renderFor(a *answer, done []judged, whole *record.Record) plan {
	status := a.code()
	c := x.route.config.items
	results := make([]any, len(done))
	for i := range done {
		results[i] = done[i].result
		if done[i].verdict != verdictOK && c.partial != 0 {
			status = c.partial
		}
	}
	e := x.show(whole)
	e.Bind(expr.Response, map[string]any{"status": int64(status), "items": results})
	p := plan{status: status, header: http.Header{}, latency: x.latency(a)}
	for _, h := range a.headers {
		v, err := h.value.Text(e)
		x.trouble(err)
		p.header.Add(h.name, v)
	}
	var kind string
	var err error
	switch {
	case a.body != nil:
		p.body, kind, err = a.body.bytes(e)
	case c != nil && c.in != "body" && len(done) > 0:
		p.body, kind = simple(map[string]any{"results": results})
	case status < 300:
		p.body, kind = simple(map[string]any{"ok": true})
	default:
		p.body, kind = simple(map[string]any{"error": http.StatusText(status)})
	}
	if err != nil {
		x.trouble(err)
		p.body, kind = simple(map[string]any{"error": "the twin's file: " + err.Error()})
	}
	if p.header.Get("Content-Type") == "" {
		p.header.Set("Content-Type", kind)
	}
	return p
}

// spoil does to a plan what a says happens on the way.
func (x *exchange) spoil(p plan, a *answer) plan {
	p.reset, p.hang, p.slow = a.reset, a.hang, a.slow
	switch a.broken {
	case brokenTruncated:
		p.body = p.body[:len(p.body)/2]
	case brokenEmpty:
		p.body = nil
	case brokenHTML:
		p.header = p.header.Clone()
		p.header.Set("Content-Type", "text/html; charset=utf-8")
		p.body = []byte(htmlPage)
	}
	if a.broken != "" && a.status != 0 {
		p.status = a.status
	}
	return p
}
