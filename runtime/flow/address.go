package flow

import "strings"

// topicAddress takes kafka://connection/topic or rocketmq://connection/topic
// apart, where connection may be host:port; nil for another text. Its parts are
// not checked.
func topicAddress(text string) *Topic {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok || scheme != KindKafka && scheme != KindRocketMQ {
		return nil
	}
	t := &Topic{RocketMQ: scheme == KindRocketMQ}
	t.Connection, t.Topic, _ = strings.Cut(rest, "/")
	return t
}

// address checks the parts of an address, and gives an anonymous connection its
// name.
func (l *linter) address(n *node, t *Topic, known bool) bool {
	if !known {
		return true
	}
	scheme := t.kind() + "://"
	if l.holdsLogin(n, t.Connection+"/"+t.Topic) {
		return false
	}
	switch {
	case t.Connection == "":
		l.fail(n, CodeValue, "write "+scheme+"CONNECTION/TOPIC or "+scheme+"HOST:PORT/TOPIC", "the address names no connection")
		return false
	case t.Topic == "":
		l.fail(n, CodeValue, "write "+scheme+t.Connection+"/TOPIC", "the address names no topic")
		return false
	}
	if !l.topicName(n, t.Topic, t.kind()) {
		return false
	}
	if !strings.Contains(t.Connection, ":") {
		return l.connectionExists(n, t.Connection, t.kind())
	}
	if !validHostPort(t.Connection) {
		l.fail(n, CodeValue, "write "+scheme+"HOST:PORT/TOPIC", "%s is no host and port", quoted(t.Connection))
		return false
	}
	t.Connection = scheme + t.Connection
	return true
}

// holdsLogin reports an address with a user, and maybe a password, in it.
func (l *linter) holdsLogin(n *node, address string) bool {
	if !strings.Contains(address, "@") {
		return false
	}
	l.hide(n)
	l.fail(n, CodeSecret, "write HOST:PORT alone; a connection's document says who asks, with a secret", "an address must not hold a user and password")
	return true
}

// connectionName reads `connection:` of a source or sink of a kind.
func (l *linter) connectionName(n *node, kind string) string {
	s, known, ok := l.static(n, "connection")
	if !ok || !known {
		return s
	}
	if strings.Contains(s, "://") {
		if l.holdsLogin(n, s) {
			return ""
		}
		c, ok := Anonymous(s)
		if !ok || c.Kind() != kind {
			l.fail(n, CodeValue, "name a connection, or write "+anonymousExample(kind), "%s is no address of %s", quoted(s), kindTitle(kind))
			return ""
		}
		return s
	}
	if !l.connectionExists(n, s, kind) {
		return ""
	}
	return s
}

func anonymousExample(kind string) string {
	if kind == KindHTTP {
		return "https://HOST"
	}
	return kind + "://HOST:PORT"
}

func kindTitle(kind string) string {
	return map[string]string{KindKafka: "Kafka", KindRocketMQ: "RocketMQ", KindHTTP: "HTTP"}[kind]
}

func (l *linter) connectionExists(n *node, name, kind string) bool {
	if !namePattern.MatchString(name) {
		l.fail(n, CodeName, "name a connection, or write "+anonymousExample(kind), "a connection cannot be called %s", quoted(name))
		return false
	}
	if l.opts.Resolver == nil {
		return true
	}
	c, ok := l.opts.Resolver.Connection(l.project, name)
	if !ok {
		l.fail(n, CodeConnectionNotFound, "apply a `connection: v1` document with `name: "+name+"` first, or write "+anonymousExample(kind), "there is no connection `%s` in project `%s`", name, l.project)
		return false
	}
	if got := c.Kind(); got != kind {
		help := ""
		if got != KindHTTP && kind != KindHTTP {
			help = "write " + got + " where it says " + kind + ", or name another connection"
		}
		l.fail(n, CodeConnectionKind, help, "connection `%s` is one to %s, not to %s", name, kindTitle(got), kindTitle(kind))
		return false
	}
	return true
}
