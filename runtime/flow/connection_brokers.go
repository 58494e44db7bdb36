package flow

import (
	"strings"
)

func (l *linter) kafkaConnection(key, n *node) *KafkaConnection {
	k := &KafkaConnection{}
	if !l.each(n, "conn.kafka", "kafka", func(key, v *node) {
		switch key.text {
		case "brokers":
			k.Brokers = l.addresses(v, "brokers", "a broker", "9092")
		case "client_id":
			k.ClientID = l.line(v, "client_id")
		case "rack":
			k.Rack = l.line(v, "rack")
		case "tls":
			k.TLS = l.tls(key, v)
		case "sasl":
			k.SASL = l.sasl(key, v, n.get("tls") != nil)
		case "registry":
			k.Registry = l.registry(key, v)
		}
	}) {
		return k
	}
	if lacks(n, "conn.kafka", "brokers") {
		l.fail(key, CodeKeyMissing, "write brokers: [HOST:PORT]", "the connection has no `brokers`")
	}
	return k
}

func (l *linter) registry(key, n *node) *Registry {
	r := &Registry{}
	if !l.each(n, "registry", "registry", func(key, v *node) {
		switch key.text {
		case "url":
			r.URL = l.serviceURL(v, "url", "basic")
		case "basic":
			r.Basic = l.basic(key, v)
		case "tls":
			r.TLS = l.tls(key, v)
		}
	}) {
		return r
	}
	if lacks(n, "registry", "url") {
		l.fail(key, CodeKeyMissing, "write registry: { url: http://HOST:8081 }", "the registry has no `url`")
	}
	l.plainURL(n.get("url"), r.TLS, r.URL)
	return r
}

func (l *linter) rocketmqConnection(key, n *node) *RocketMQConnection {
	r := &RocketMQConnection{}
	if !l.each(n, "conn.rocketmq", "rocketmq", func(key, v *node) {
		if key.text == "acl" {
			r.ACL = l.acl(key, v)
			return
		}
		r.NameServers = l.addresses(v, "name_servers", "a name server", "9876")
	}) {
		return r
	}
	if lacks(n, "conn.rocketmq", "name_servers") {
		l.fail(key, CodeKeyMissing, "write name_servers: [HOST:PORT]", "the connection has no `name_servers`")
	}
	return r
}

// addresses is a list of HOST:PORT; a single one needs no brackets. port is the
// usual one.
func (l *linter) addresses(n *node, key, what, port string) []string {
	items := n.items
	if n.kind == scalarNode {
		items = []*node{n}
	} else if n.kind != listNode || len(items) == 0 {
		l.fail(n, CodeType, "write "+key+": [HOST:PORT]", "%s are a list", key)
		return nil
	}
	var out []string
	for _, it := range items {
		s, known, ok := l.static(it, what)
		switch {
		case !ok:
		case known && l.holdsLogin(it, s):
		case known && !validHostPort(s):
			help := "write HOST:PORT"
			switch {
			case strings.Contains(s, ","):
				help = "write each as an element of the list: " + key + ": [HOST:PORT, HOST:PORT]"
			case s != "" && !strings.ContainsAny(s, ":/ "):
				help = "did you mean " + s + ":" + port + "?"
			}
			l.fail(it, CodeValue, help, "%s is no host and port", quoted(s))
		default:
			out = append(out, s)
		}
	}
	return out
}

// line is a text of vars and env that is not empty, and one line.
func (l *linter) line(n *node, what string) string {
	s, known, ok := l.static(n, what)
	if ok && known && (s == "" || len(s) > 249 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })) {
		l.fail(n, CodeValue, "one line of at most 249 bytes", "%s cannot be %s", what, quoted(s))
		return ""
	}
	return s
}
