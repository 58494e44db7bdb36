package flow

import (
	"slices"
	"strings"

	"github.com/millrace-io/millrace/runtime/expr"
)

func (l *linter) delivery(n *node, id string) Delivery {
	var d Delivery
	var retry *node
	l.stageKeys(n, "push", id, func(key, v *node) {
		switch key.text {
		case "push":
			l.push(key, v, &d)
		case "retry":
			retry = key
			d.Retry = l.retry(v)
		}
	})
	if retry != nil && (d.Kafka != nil || d.Stream != nil) {
		l.fail(retry, CodeNotSupported, "remove `retry`: a record is tried until the sink takes it", "`retry` is not supported yet for a push to %s", d.Kind())
	}
	return d
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

func (l *linter) push(key, n *node, d *Delivery) {
	if n.kind == scalarNode {
		l.shortPush(n, d)
		return
	}
	var seen *node
	if !l.each(n, "push", "push", func(key, v *node) {
		if seen != nil {
			l.fail(key, CodeValue, "keep one; to several sinks go several flows", "a delivery has one sink, and this one has `%s` already", seen.text)
			return
		}
		seen = key
		switch key.text {
		case "kafka":
			d.Kafka = l.kafkaPush(key, v)
		case "http":
			d.HTTP = l.httpPush(key, v)
		case "file":
			if path, ok := l.filePath(key, v); ok {
				d.File = &FilePush{Path: path}
			}
		case "stream":
			d.Stream = l.stream(v)
		}
	}) {
		return
	}
	if len(n.fields) == 0 {
		l.fail(key, CodeKeyMissing, exampleOf("push"), "`push` names no sink")
	}
}

func (l *linter) shortPush(n *node, d *Delivery) {
	switch s := n.text; {
	case strings.HasPrefix(s, kafkaScheme):
		text, known, ok := l.static(n, "push")
		if !ok {
			return
		}
		if conn, topic, ok := l.kafkaAddress(n, text, known); ok {
			d.Kafka = &KafkaPush{Connection: conn, Topic: topic}
		}
	case strings.HasPrefix(s, "http://"), strings.HasPrefix(s, "https://"):
		d.HTTP = &HTTPPush{Method: "POST"}
		l.httpURL(n, d.HTTP)
	case s == "stream":
		l.fail(n, CodeValue, "write { stream: {} }", "`stream` needs its braces")
	default:
		l.fail(n, CodeValue, "write kafka://CONNECTION/TOPIC, https://HOST/PATH, { file: { path: out.ndjson } } or { stream: {} }", "records cannot be pushed to %s", quoted(s))
	}
}

func (l *linter) kafkaPush(key, n *node) *KafkaPush {
	k := &KafkaPush{}
	if !l.each(n, "push.kafka", "push.kafka", func(key, v *node) {
		switch key.text {
		case "connection":
			k.Connection = l.connectionName(v, "kafka")
		case "topic":
			k.Topic, _ = l.topic(v)
		case "key":
			k.Key, _ = l.expression(v, "key", false)
		}
	}) {
		return k
	}
	if lacks(n, "push.kafka", "connection") {
		l.fail(key, CodeKeyMissing, "write connection: NAME, or kafka://HOST:PORT", "the delivery has no `connection`")
	}
	if lacks(n, "push.kafka", "topic") {
		l.fail(key, CodeKeyMissing, "write topic: NAME", "the delivery has no `topic`")
	}
	return k
}

func (l *linter) httpPush(key, n *node) *HTTPPush {
	h := &HTTPPush{}
	var method, target *node
	if !l.each(n, "push.http", "push.http", func(key, v *node) {
		switch key.text {
		case "connection":
			h.Connection = l.connectionName(v, "http")
		case "headers":
			h.Headers = l.headerTemplates(v)
		case "body":
			if s, ok := l.template(v, "body"); ok {
				h.Body = &s
			}
		case "timeout":
			h.Timeout, _ = l.duration(v, "timeout")
		default:
			if method != nil {
				l.fail(key, CodeValue, "keep one", "a request has one method, and this one has `%s` already", method.text)
				return
			}
			method, target = key, v
			h.Method = strings.ToUpper(key.text)
		}
	}) {
		return h
	}
	conn := n.get("connection")
	if method == nil {
		if !slices.ContainsFunc(n.fields, func(f field) bool { return !slices.Contains(keySets["push.http"].all(), f.key.text) }) {
			l.fail(key, CodeKeyMissing, "write post: /PATH or post: https://HOST/PATH", "the request has no method")
		}
		return h
	}
	s, ok := l.text(target, "the path of a request")
	switch {
	case !ok:
	case strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://"):
		if conn != nil {
			l.fail(target, CodeValue, "write the path alone, such as /v2/orders", "a request over a connection has a path, not a URL")
			return h
		}
		l.httpURL(target, h)
	case conn == nil:
		l.fail(key, CodeKeyMissing, "write connection: NAME, or "+method.text+": https://HOST/PATH", "the delivery has no `connection`")
	case s != "" && s[0] != '/':
		l.fail(target, CodeValue, "write /"+s, "a path begins with /")
	default:
		h.Path, _ = l.template(target, "path")
	}
	return h
}

// httpURL reads a URL whose host becomes an anonymous connection.
func (l *linter) httpURL(n *node, h *HTTPPush) {
	base, path, ok := splitURL(n.text)
	if !ok {
		l.fail(n, CodeValue, "write https://HOST/PATH", "%s is no URL", quoted(n.text))
		return
	}
	known := true
	if strings.Contains(base, "${") {
		host := *n
		host.text = base
		if base, known, ok = l.static(&host, "host"); !ok {
			return
		}
	}
	if known && !l.baseURL(n, base) {
		return
	}
	h.Connection = base
	if t, err := expr.CompileTemplate(n.text, l.scope(expr.RecordRoots)); err != nil {
		l.exprError(n, err)
	} else if l.lookUp(n, t.EnvNames()) {
		h.Path = path
	}
}

func (l *linter) headerTemplates(n *node) []HeaderTemplate {
	if n.kind != mapNode {
		l.fail(n, CodeType, "such as { X-Trace-Id: \"${trace}\" }", "headers are a map of names and texts")
		return nil
	}
	var out []HeaderTemplate
	for _, f := range n.fields {
		if !l.headerName(f.key) || f.value.kind == badNode {
			continue
		}
		if isSecret(f.value) {
			l.fail(f.value, CodeSecret, "put the header into the connection", "a secret is not allowed here")
			continue
		}
		if !strings.Contains(f.value.text, "${") {
			l.secretHeader(f.key, f.value, "put the header into the connection, and write { secret: NAME } there")
		}
		if s, ok := l.template(f.value, "a header"); ok {
			out = append(out, HeaderTemplate{Name: f.key.text, Value: s})
		}
	}
	return out
}

func (l *linter) headerName(key *node) bool {
	if !headerPattern.MatchString(key.text) {
		l.fail(key, CodeName, "", "a header cannot be called %s", quoted(key.text))
		return false
	}
	return true
}
