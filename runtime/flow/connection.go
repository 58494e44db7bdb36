package flow

import (
	"slices"
	"strings"
)

func (l *linter) connection(n *node) *Connection {
	c := &Connection{Project: l.project}
	var kind *node
	l.each(n, "connection", "a connection", func(key, v *node) {
		switch key.text {
		case "name":
			c.Name, _ = l.name(v, "name")
		case KindKafka, KindRocketMQ, KindHTTP:
			if kind != nil {
				l.fail(key, CodeValue, "make two connections of it", "a connection leads to one thing, and this one to `%s` already", kind.text)
				return
			}
			kind = key
			switch key.text {
			case KindKafka:
				c.Kafka = l.kafkaConnection(key, v)
			case KindRocketMQ:
				c.RocketMQ = l.rocketmqConnection(key, v)
			default:
				c.HTTP = l.httpConnection(key, v)
			}
		}
	})
	if lacks(n, "connection", "name") {
		l.missing(n, "the connection", "name", "name: main")
	}
	if lacks(n, "connection", KindKafka) && lacks(n, "connection", KindRocketMQ) && lacks(n, "connection", KindHTTP) {
		l.fail(n.fields[0].key, CodeKeyMissing, "write kafka: { brokers: [HOST:PORT] }, rocketmq: { name_servers: [HOST:PORT] } or http: { base: https://HOST }", "the connection leads nowhere")
	}
	return c
}

func (l *linter) httpConnection(key, n *node) *HTTPConnection {
	h := &HTTPConnection{}
	if !l.each(n, "conn.http", "http", func(key, v *node) {
		switch key.text {
		case "base":
			h.Base = l.serviceURL(v, "base", "auth")
		case "timeout":
			h.Timeout, _ = l.duration(v, "timeout")
		case "concurrent":
			i, _ := l.integer(v, "concurrent", 1, 100_000)
			h.Concurrent = int(i)
		case "requests":
			h.Requests, _ = l.rate(v, "requests")
		case "breaker":
			h.Breaker = l.breaker(v)
		case "tls":
			h.TLS = l.tls(key, v)
		case "auth":
			l.auth(key, v, h)
		case "headers":
			h.Headers = l.connectionHeaders(v)
		}
	}) {
		return h
	}
	if lacks(n, "conn.http", "base") {
		l.fail(key, CodeKeyMissing, "write base: https://HOST", "the connection has no `base`")
	}
	l.plainURL(n.get("base"), h.TLS, h.Base)
	return h
}

// serviceURL reads the URL of an HTTP service; auth is the key beside it that
// says who asks.
func (l *linter) serviceURL(n *node, what, auth string) string {
	s, known, ok := l.static(n, what)
	if !ok || known && !l.baseURL(n, s, auth) {
		return ""
	}
	return strings.TrimRight(s, "/")
}

// plainURL reports TLS settings beside a URL without TLS, which stands at n.
func (l *linter) plainURL(n *node, t *TLS, url string) {
	if t != nil && strings.HasPrefix(url, "http://") {
		l.fail(n, CodeValue, "write https://, or take `tls` away", "there is no TLS to an http:// address")
	}
}

// authKinds are the ways to say who asks, each of which excludes the others.
var authKinds = []string{"bearer", "basic", "oauth2", "api_key"}

func (l *linter) auth(key, n *node, h *HTTPConnection) {
	var kind *node
	if !l.each(n, "auth", "auth", func(key, v *node) {
		if !slices.Contains(authKinds, key.text) {
			if n.get("api_key") == nil {
				l.fail(key, CodeKeyUnknown, "beside it stands `api_key`", "`%s` says how an API key is sent", key.text)
			}
			return
		}
		if kind != nil {
			l.fail(key, CodeValue, "keep one", "a connection has one `auth`, and this one has `%s` already", kind.text)
			return
		}
		kind = key
		switch key.text {
		case "bearer":
			h.Bearer = l.secret(v, "a bearer token")
		case "basic":
			h.Basic = l.basic(key, v)
		case "oauth2":
			h.OAuth2 = l.oauth2(key, v)
		case "api_key":
			h.APIKey = l.apiKey(key, v, n)
		}
	}) {
		return
	}
	if len(n.fields) == 0 {
		l.fail(key, CodeKeyMissing, "write bearer: { secret: NAME }; there are "+strings.Join(authKinds, ", "), "`auth` says nothing")
	}
}

func (l *linter) breaker(n *node) *Breaker {
	b := &Breaker{}
	l.each(n, "breaker", "breaker", func(key, v *node) {
		if key.text == "probe" {
			b.Probe, _ = l.duration(v, "probe")
			return
		}
		i, _ := l.integer(v, "failures", 1, 1000)
		b.Failures = int(i)
	})
	return b
}

func (l *linter) connectionHeaders(n *node) []ConnectionHeader {
	if n.kind != mapNode {
		l.fail(n, CodeType, "such as { X-Client: millrace }", "headers are a map of names and texts")
		return nil
	}
	var out []ConnectionHeader
	for _, f := range n.fields {
		if !l.headerName(f.key) || f.value.kind == badNode {
			continue
		}
		if f.value.kind == mapNode {
			if s := l.secret(f.value, "a header"); s != nil {
				out = append(out, ConnectionHeader{Name: f.key.text, Secret: s})
			}
			continue
		}
		l.secretHeader(f.key, f.value, "write { secret: NAME } and put the value into the node's secrets")
		s, known, ok := l.static(f.value, "a header")
		if ok && known && strings.ContainsAny(s, "\r\n\x00") {
			l.fail(f.value, CodeValue, "", "a header is one line")
			continue
		}
		if ok {
			out = append(out, ConnectionHeader{Name: f.key.text, Value: s})
		}
	}
	return out
}
