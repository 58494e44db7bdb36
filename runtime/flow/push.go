package flow

import (
	"slices"
	"strings"

	"github.com/millrace-io/millrace/runtime/expr"
)

// push reads where records go.
func (l *linter) push(key, n *node, d *Delivery) {
	if n.kind == scalarNode {
		l.shortPush(n, d)
		return
	}
	var seen *node
	if !l.each(n, "push", "push", func(key, v *node) {
		if seen != nil {
			l.fail(key, CodeValue, "keep one; to several sinks lead the cases of a `branch` with `every: true`", "a delivery has one sink, and this one has `%s` already", seen.text)
			return
		}
		seen = key
		switch key.text {
		case KindKafka:
			d.Kafka = l.kafkaPush(key, v)
		case KindRocketMQ:
			d.RocketMQ = l.rocketmqPush(key, v)
		case KindHTTP:
			d.HTTP = l.httpPush(key, v)
		case "webhook":
			d.HTTP, d.Sign = l.webhookPush(key, v)
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
	case topicAddress(s) != nil:
		text, known, ok := l.static(n, "push")
		if !ok {
			return
		}
		t := topicAddress(text)
		switch {
		case !l.address(n, t, known):
		case t.RocketMQ:
			d.RocketMQ = &RocketMQPush{Connection: t.Connection, Topic: t.Topic}
		default:
			d.Kafka = &KafkaPush{Connection: t.Connection, Topic: t.Topic}
		}
	case strings.HasPrefix(s, "http://"), strings.HasPrefix(s, "https://"):
		d.HTTP = &HTTPPush{Method: "POST"}
		l.httpURL(n, d.HTTP)
	case s == "stream":
		l.fail(n, CodeValue, "write { stream: {} }", "`stream` needs its braces")
	default:
		l.fail(n, CodeValue, "write kafka://CONNECTION/TOPIC, rocketmq://CONNECTION/TOPIC, https://HOST/PATH, { http: ... }, { webhook: ... }, { file: { path: out.ndjson } } or { stream: {} }", "records cannot be pushed to %s", quoted(s))
	}
}

func (l *linter) httpPush(key, n *node) *HTTPPush {
	h := &HTTPPush{}
	var method, target *node
	if !l.each(n, "push.http", "push.http", func(key, v *node) {
		if l.requestPart(key, v, h) {
			return
		}
		if method != nil {
			l.fail(key, CodeValue, "keep one", "a request has one method, and this one has `%s` already", method.text)
			return
		}
		method, target = key, v
		h.Method = strings.ToUpper(key.text)
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
	l.httpPath(key, method.text, target, conn != nil, h)
	return h
}

// requestPart reads what a request has whatever its form. It reports false for
// another key.
func (l *linter) requestPart(key, v *node, h *HTTPPush) bool {
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
	case "concurrent":
		i, _ := l.integer(v, "concurrent", 1, 100_000)
		h.Concurrent = int(i)
	default:
		return false
	}
	return true
}

// httpPath reads the path of a request over a connection, or its URL. what is
// the key that it stands behind.
func (l *linter) httpPath(key *node, what string, target *node, connected bool, h *HTTPPush) {
	s, ok := l.text(target, "the path of a request")
	switch {
	case !ok:
	case strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://"):
		if connected {
			l.fail(target, CodeValue, "write the path alone, such as /v2/orders", "a request over a connection has a path, not a URL")
			return
		}
		l.httpURL(target, h)
	case !connected:
		l.fail(key, CodeKeyMissing, "write connection: NAME, or "+what+": https://HOST/PATH", "the delivery has no `connection`")
	case s != "" && s[0] != '/':
		l.fail(target, CodeValue, "write /"+s, "a path begins with /")
	default:
		h.Path, _ = l.template(target, "path")
	}
}

// webhookPush reads a push by Standard Webhooks, and makes of it the request
// and the signature that they ask for.
func (l *linter) webhookPush(key, n *node) (*HTTPPush, *Sign) {
	h := &HTTPPush{Webhook: true, Method: "POST"}
	var secret *Secret
	var target *node
	if !l.each(n, "push.webhook", "push.webhook", func(key, v *node) {
		switch key.text {
		case "url", "path":
			if target != nil {
				l.fail(key, CodeValue, "keep one: `url`, or `path` with a `connection`", "a request has one address")
				return
			}
			target = v
			l.httpPath(key, "url", v, n.get("connection") != nil, h)
		case "secret":
			secret = l.secret(v, "the secret of a webhook")
		default:
			l.requestPart(key, v, h)
		}
	}) {
		return h, nil
	}
	if target == nil && lacks(n, "push.webhook", "url") && lacks(n, "push.webhook", "path") {
		l.fail(key, CodeKeyMissing, "write url: https://HOST/PATH, or connection: NAME and path: /PATH", "the webhook has no address")
	}
	if lacks(n, "push.webhook", "secret") {
		l.fail(key, CodeKeyMissing, "write secret: { secret: NAME }; its value begins with whsec_", "the webhook has no `secret` to sign with")
	}
	if secret == nil {
		return h, nil
	}
	return h, &Sign{
		Headers: []Param{{"webhook-id", `${request.headers["idempotency-key"]}`}, {"webhook-timestamp", "${time.Unix()}"}},
		Signature: &Signature{
			Algorithm: "hmac-sha256", Key: *secret, KeyTrim: "whsec_", KeyEncoding: "base64",
			Over:     `${request.headers["webhook-id"]}.${request.headers["webhook-timestamp"]}.${request.body}`,
			Encoding: "base64", Header: "webhook-signature", Value: "v1,${request.signature}",
		},
	}
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
	if known && !l.baseURL(n, base, "auth") {
		return
	}
	h.Connection = base
	if t, err := expr.CompileTemplate(n.text, l.scope(l.roots)); err != nil {
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

// webhookType says what a webhook's body is, unless its headers do, or the
// form of a batch.
func webhookType(d *Delivery) {
	h := d.HTTP
	if h == nil || !h.Webhook || d.Batch != nil || slices.ContainsFunc(h.Headers, func(h HeaderTemplate) bool { return strings.EqualFold(h.Name, "Content-Type") }) {
		return
	}
	h.Headers = append(h.Headers, HeaderTemplate{"Content-Type", "application/json"})
}

func (l *linter) headerName(key *node) bool {
	return l.headerNamed(key, key.text)
}
