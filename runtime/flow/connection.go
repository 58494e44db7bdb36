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
		case "kafka", "http":
			if kind != nil {
				l.fail(key, CodeValue, "make two connections of it", "a connection leads to one thing, and this one to `%s` already", kind.text)
				return
			}
			kind = key
			if key.text == "kafka" {
				c.Kafka = l.kafkaConnection(key, v)
			} else {
				c.HTTP = l.httpConnection(key, v)
			}
		}
	})
	if lacks(n, "connection", "name") {
		l.missing(n, "the connection", "name", "name: main")
	}
	if lacks(n, "connection", "kafka") && lacks(n, "connection", "http") && lacks(n, "connection", "rocketmq") {
		l.fail(n.fields[0].key, CodeKeyMissing, "write kafka: { brokers: [HOST:PORT] } or http: { base: https://HOST }", "the connection leads nowhere")
	}
	return c
}

func (l *linter) kafkaConnection(key, n *node) *KafkaConnection {
	k := &KafkaConnection{}
	if !l.each(n, "conn.kafka", "kafka", func(_, v *node) {
		items := v.items
		if v.kind == scalarNode {
			items = []*node{v}
		} else if v.kind != listNode || len(items) == 0 {
			l.fail(v, CodeType, "write brokers: [HOST:PORT]", "brokers are a list")
			return
		}
		for _, it := range items {
			s, known, ok := l.static(it, "a broker")
			switch {
			case !ok:
			case known && !validHostPort(s):
				help := "write HOST:PORT"
				if s != "" && !strings.ContainsAny(s, ":/ ") {
					help = "did you mean " + s + ":9092?"
				}
				l.fail(it, CodeValue, help, "%s is no host and port", quoted(s))
			default:
				k.Brokers = append(k.Brokers, s)
			}
		}
	}) {
		return k
	}
	if lacks(n, "conn.kafka", "brokers") {
		l.fail(key, CodeKeyMissing, "write brokers: [HOST:PORT]", "the connection has no `brokers`")
	}
	return k
}

func (l *linter) httpConnection(key, n *node) *HTTPConnection {
	h := &HTTPConnection{}
	if !l.each(n, "conn.http", "http", func(key, v *node) {
		switch key.text {
		case "base":
			s, known, ok := l.static(v, "base")
			if ok && (!known || l.baseURL(v, s)) {
				h.Base = strings.TrimRight(s, "/")
			}
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
	if h.TLS != nil && strings.HasPrefix(h.Base, "http://") {
		l.fail(n.get("base"), CodeValue, "write https://, or take `tls` away", "there is no TLS to an http:// address")
	}
	return h
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

func (l *linter) tls(key, n *node) *TLS {
	t := &TLS{}
	pem := func(v *node, what string) string {
		s, known, ok := l.static(v, what)
		if ok && known && IsPEM(s) && strings.Contains(s, "PRIVATE KEY") {
			l.hide(v)
			l.fail(v, CodeSecret, "write key: { secret: NAME } and put the key into the node's secrets", "a private key must not stand in the file")
			return ""
		}
		if ok && known && s == "" {
			l.fail(v, CodeValue, "name a file on the node, or write the PEM itself behind |", "%s is empty", what)
		}
		return s
	}
	if !l.each(n, "tls", "tls", func(key, v *node) {
		switch key.text {
		case "ca":
			t.CA = pem(v, "ca")
		case "cert":
			t.Cert = pem(v, "cert")
		case "key":
			t.Key = l.secret(v, "a private key")
		}
	}) {
		return t
	}
	if cert, private := n.get("cert") != nil, n.get("key") != nil; cert != private {
		l.fail(key, CodeKeyMissing, "write cert: FILE and key: { secret: NAME }", "a client certificate needs both `cert` and `key`")
	}
	return t
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
