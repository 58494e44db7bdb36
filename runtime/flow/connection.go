package flow

import "strings"

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
		case "auth":
			l.each(v, "auth", "auth", func(_, v *node) {
				h.Bearer = l.secret(v, "a bearer token")
			})
		case "headers":
			h.Headers = l.connectionHeaders(v)
		}
	}) {
		return h
	}
	if lacks(n, "conn.http", "base") {
		l.fail(key, CodeKeyMissing, "write base: https://HOST", "the connection has no `base`")
	}
	return h
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
