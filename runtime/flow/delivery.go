package flow

import (
	"regexp"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/runtime/expr"
)

// delivery reads a stage with push, in the list of a way.
func (l *linter) delivery(n *node, id string, in *way) Delivery {
	var d Delivery
	keys := map[string]*node{}
	var sign *Sign
	l.stageKeys(n, "push", id, func(key, v *node) {
		keys[key.text] = key
		switch key.text {
		case "push":
			l.push(key, v, &d)
		case "batch":
			d.Batch = l.batch(key, v)
		case "sign":
			sign = l.sign(key, v)
		case "validate":
			d.Validate = l.validate(key, v)
		case "retry":
			d.Retry = l.retry(v)
		}
	})
	if sign != nil && d.Sign != nil {
		l.fail(keys["sign"], CodeStageKey, "take `sign` away, or push to `http`", "a webhook signs by itself")
	} else if sign != nil {
		d.Sign = sign
	}
	if other := d.Kind(); d.HTTP == nil && (d.Kafka != nil || d.RocketMQ != nil || d.File != nil || d.Stream != nil) {
		for _, part := range []string{"batch", "sign", "validate"} {
			if keys[part] != nil {
				l.fail(keys[part], CodeStageKey, "take it away, or push to `http`", "`%s` goes with a push to HTTP, and this one is to %s", part, other)
			}
		}
		if keys["retry"] != nil && d.File == nil {
			l.fail(keys["retry"], CodeNotSupported, "remove `retry`: a record is tried until the sink takes it", "`retry` is not supported yet for a push to %s", other)
		}
	}
	if d.Batch != nil && d.HTTP != nil {
		l.batchedRequest(n.get("push"), &d)
	}
	webhookType(&d)
	for _, part := range []string{"sign", "validate"} {
		// A plugin in it goes by this name.
		if keys[part] != nil && (part == "sign" && d.Sign != nil && d.Sign.Plugin != nil || part == "validate" && d.Validate != nil && d.Validate.Plugin != nil) {
			l.takeID(keys[part], id+"."+part, in.ids)
		}
	}
	return d
}

// batchedRequest checks a push to HTTP beside a batch.
func (l *linter) batchedRequest(push *node, d *Delivery) {
	for _, kind := range []string{"http", "webhook"} {
		for _, f := range push.get(kind).pairs() {
			switch f.key.text {
			case "body":
				l.fail(f.key, CodeStageKey, "shape each item with batch: { as: text, item: TEMPLATE }, or with a `map` before", "`body` does not go with `batch`, whose body is the batch")
			case "get", "delete":
				l.fail(f.key, CodeValue, "write post, put or patch", "a batch is the body of a request, and a %s has none", d.HTTP.Method)
			}
		}
	}
}

func (l *linter) retry(n *node) *Retry {
	r := &Retry{}
	l.each(n, "retry", "retry", func(key, v *node) {
		switch key.text {
		case "first":
			r.First, _ = l.duration(v, "first")
		case "max":
			r.Max, _ = l.duration(v, "max")
		case "within":
			r.Within, _ = l.duration(v, "within")
		case "spill":
			r.Spill, _ = l.duration(v, "spill")
		case "attempts":
			i, _ := l.integer(v, "attempts", 1, 1_000_000)
			r.Attempts = int(i)
		}
	})
	if r.First > 0 && r.Max > 0 && r.First > r.Max {
		l.fail(n.get("max"), CodeValue, "", "max is at least as long as first")
	}
	return r
}

// Bounds of a batch.
const (
	maxBatchRecords = 10_000
	maxBatchBytes   = 64 << 20
)

func (l *linter) batch(key, n *node) *Batch {
	b := &Batch{}
	as := ""
	texts := []*node(nil)
	if !l.each(n, "batch", "batch", func(key, v *node) {
		text := func(to *string) {
			*to, _, _ = l.static(v, key.text)
			texts = append(texts, key)
		}
		switch key.text {
		case "records":
			i, _ := l.integer(v, "records", 1, maxBatchRecords)
			b.Records = int(i)
		case "bytes":
			b.Bytes, _ = l.size(v, "bytes", 1<<10, maxBatchBytes)
		case "wait":
			b.Wait, _ = l.duration(v, "wait")
		case "by":
			b.By, _ = l.expression(v, "by", false)
		case "as":
			as, _ = l.oneOf(v, "as", []string{BatchJSONArray, BatchNDJSON, BatchText}, nil)
		case "item":
			b.Item, _ = l.template(v, "item")
			texts = append(texts, key)
		case "head":
			text(&b.Head)
		case "between":
			text(&b.Between)
		case "tail":
			text(&b.Tail)
		case "content_type":
			s, known, ok := l.static(v, "content_type")
			if ok && known && (s == "" || strings.ContainsAny(s, "\r\n\x00")) {
				l.fail(v, CodeValue, "such as application/json", "content_type cannot be %s", quoted(s))
			}
			b.ContentType = s
		case "gzip":
			b.Gzip, _ = l.boolean(v, "gzip")
		}
	}) {
		return b
	}
	switch {
	case len(n.fields) == 0:
		l.fail(key, CodeKeyMissing, "write batch: { records: 100, wait: 1s }", "the batch has no bounds")
	case as == "" && n.get("item") != nil && n.get("as") == nil:
		as = BatchText
	case as == "" && n.get("as") == nil:
		as = BatchJSONArray
	}
	if as == BatchText && lacks(n, "batch", "item") {
		l.fail(key, CodeKeyMissing, "write item: TEMPLATE, such as '<order id=\"${value.id}\"/>'", "`as: text` makes each record a text, and there is no `item`")
	}
	if as == BatchJSONArray || as == BatchNDJSON {
		for _, key := range texts {
			l.fail(key, CodeStageKey, "write as: text", "`%s` does not go with `as: %s`", key.text, as)
		}
	}
	b.As = as
	return b
}

// The fields of a request and an answer, as package verdict has them.
var verdictShapes = map[expr.Roots]expr.Shape{
	expr.Request:  {"method": expr.TextKind, "url": expr.TextKind, "headers": expr.AnyKind, "body": expr.TextKind},
	expr.Response: {"status": expr.IntKind, "headers": expr.AnyKind, "raw": expr.TextKind, "body": expr.AnyKind},
}

func (l *linter) validate(key, n *node) *Validate {
	v := &Validate{}
	if n.kind == scalarNode {
		if !l.isPluginRef(n) {
			l.fail(n, CodeType, "write { ok: '"+n.text+"' }, or name a plugin: ./check.wasm", "validate is a map of rules, or a plugin")
			return v
		}
		v.Plugin = &PluginStage{}
		l.pluginPart("validate", n, nil, v.Plugin)
		return v
	}
	var plugin *node
	var with PluginStage
	keys := map[string]*node{}
	if !l.each(n, "validate", "validate", func(key, value *node) {
		keys[key.text] = key
		rule := func(to *string, condition bool) {
			l.within(expr.Request|expr.Response|expr.StaticRoots, verdictShapes, func() { *to, _ = l.expression(value, key.text, condition) })
		}
		switch key.text {
		case "ok":
			rule(&v.OK, true)
		case "retry":
			rule(&v.Retry, true)
		case "reject":
			rule(&v.Reject, true)
		case "each":
			rule(&v.Each, false)
		case "item_id":
			v.ItemID = l.elementField(value)
		case "record_id":
			v.RecordID, _ = l.expression(value, "record_id", false)
		case "plugin":
			plugin = value
		case "with":
			with.With = l.with(value)
		case "limits":
			l.pluginLimits(value, &with)
		}
	}) {
		return v
	}
	switch {
	case len(n.fields) == 0:
		l.fail(key, CodeKeyMissing, "write ok: response.status == 200", "validate has no rules")
	case plugin != nil:
		l.foreign(n, []string{"plugin", "with", "limits"}, "a plugin")
		v.Plugin = &with
		l.pluginPart("validate", plugin, keys, v.Plugin)
	default:
		for _, name := range []string{"with", "limits"} {
			if keys[name] != nil {
				l.fail(keys[name], CodeStageKey, "it goes with a plugin", "`%s` does not go with rules", name)
			}
		}
	}
	if v.ItemID != "" && lacks(n, "validate", "each") {
		l.fail(keys["item_id"], CodeKeyMissing, "write each: response.body.results", "`item_id` names a field of the elements of `each`, and there is no `each`")
	}
	if v.RecordID != "" && keys["item_id"] == nil {
		l.fail(keys["record_id"], CodeKeyMissing, "write item_id: FIELD, the field that holds the id", "`record_id` is the id that an element of `each` has, and there is no `item_id`")
	}
	return v
}

// elementField reads the name of a field of the elements of a list.
func (l *linter) elementField(n *node) string {
	s, known, ok := l.static(n, "item_id")
	if ok && known && !fieldPattern.MatchString(s) {
		l.fail(n, CodeName, "such as id; the id of the record itself is an expression beside it: record_id: value.id", "item_id is the name of a field of the elements, and %s is none", quoted(s))
		return ""
	}
	return s
}

var fieldPattern = regexp.MustCompile(`^[\p{L}_][\p{L}\p{N}_-]*$`)

// foreign reports the keys of a map that do not go with what stands there.
func (l *linter) foreign(n *node, with []string, what string) {
	for _, f := range n.fields {
		if !slices.Contains(with, f.key.text) {
			l.fail(f.key, CodeStageKey, "keys here: "+strings.Join(with, ", "), "`%s` does not go with %s", f.key.text, what)
		}
	}
}

// isPluginRef reports whether a scalar is meant to name a plugin.
func (l *linter) isPluginRef(n *node) bool {
	return strings.HasSuffix(n.text, ".wasm") || pluginPattern.MatchString(n.text) || strings.HasPrefix(n.text, "${")
}

// exceptions reads what is told of records that cannot go on.
func (l *linter) exceptions(n *node) []Exception {
	if n.kind != listNode {
		l.fail(n, CodeType, "each begins with `- when: EXPRESSION`", "exceptions are a list")
		return nil
	}
	var out []Exception
	l.within(expr.RecordRoots|expr.Failure, nil, func() {
		for i, it := range n.items {
			e := Exception{Push: Delivery{ID: "exception" + number(i+1), Otherwise: OtherwiseDrop, Pos: it.pos}}
			if !l.each(it, "exception", "an exception", func(key, v *node) {
				if key.text == "when" {
					e.When, _ = l.expression(v, "when", true)
					return
				}
				l.push(key, v, &e.Push)
				webhookType(&e.Push)
				if e.Push.File != nil || e.Push.Stream != nil {
					l.fail(key, CodeValue, "push to http, webhook, kafka or rocketmq", "an exception cannot be pushed to a %s", e.Push.Kind())
				}
			}) {
				continue
			}
			if lacks(it, "exception", "push") {
				l.fail(it, CodeKeyMissing, "write push: { http: { connection: NAME, post: /, body: \"${failure.message}\" } }", "the exception has no `push`")
			}
			out = append(out, e)
		}
	})
	return out
}
