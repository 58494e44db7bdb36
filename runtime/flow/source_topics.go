package flow

import (
	"regexp"
	"slices"
	"strings"
	"time"
)

func (l *linter) kafkaSource(key, n *node) *KafkaSource {
	k := &KafkaSource{Start: StartEarliest}
	var decode *node
	if !l.each(n, "source.kafka", "source.kafka", func(key, v *node) {
		switch key.text {
		case "connection":
			k.Connection = l.connectionName(v, KindKafka)
		case "topics":
			k.Topics = l.topics(v)
		case "pattern":
			k.Pattern = l.pattern(v)
		case "start":
			k.Start = l.start(v)
		case "out_of_range":
			k.OutOfRange = l.outOfRange(v)
		case "group":
			k.Group = l.line(v, "group")
		case "decode":
			decode = key
			k.Decode = l.decode(key, v)
		}
	}) {
		return k
	}
	if lacks(n, "source.kafka", "connection") {
		l.fail(key, CodeKeyMissing, "write connection: NAME, or kafka://HOST:PORT", "the source has no `connection`")
	}
	switch topics, pattern := n.get("topics"), n.get("pattern"); {
	case topics != nil && pattern != nil:
		l.failAt(pattern.pos, pattern.end, CodeValue, "keep one", "a source has `topics` or a `pattern` of their names, and this one has both")
	case topics == nil && pattern == nil && lacks(n, "source.kafka", "topics") && lacks(n, "source.kafka", "pattern"):
		l.fail(key, CodeKeyMissing, "write topics: [orders], or pattern: 'orders-.*'", "the source has no `topics`")
	}
	if k.Decode != nil && k.Connection != "" {
		l.hasRegistry(decode, k.Connection)
	}
	return k
}

// hasRegistry reports a connection that decoding would need a registry of.
func (l *linter) hasRegistry(at *node, name string) {
	const help = "write registry: { url: http://HOST:8081 } into the connection's document, beside its brokers"
	if strings.Contains(name, "://") {
		l.fail(at, CodeValue, "write a connection's document with brokers and registry, and name it", "`decode` needs a registry, and an anonymous connection has none")
		return
	}
	if l.opts.Resolver == nil || !namePattern.MatchString(name) {
		return
	}
	if c, ok := l.opts.Resolver.Connection(l.project, name); ok && c.Kafka != nil && c.Kafka.Registry == nil {
		l.fail(at, CodeKeyMissing, help, "`decode` needs a registry, and connection `%s` has none", name)
	}
}

// pattern is an expression of RE2 for the whole name of a topic.
func (l *linter) pattern(n *node) string {
	s, known, ok := l.static(n, "pattern")
	if !ok || !known {
		return s
	}
	if s == "" {
		l.fail(n, CodeValue, "write pattern: 'orders-.*'", "the pattern is empty")
		return ""
	}
	if _, err := regexp.Compile("^(?:" + s + ")$"); err != nil {
		help := "it is an expression of RE2, such as 'orders-.*', and matches the whole name of a topic"
		if strings.HasPrefix(s, "*") {
			help = "did you mean ." + s + "? It is no pattern of file names, but an expression of RE2"
		}
		what := err.Error()
		if _, reason, ok := strings.Cut(what, "error parsing regexp: "); ok {
			what, _, _ = strings.Cut(reason, ": `")
		}
		l.fail(n, CodeValue, help, "the pattern cannot be read: %s", what)
		return ""
	}
	return s
}

func (l *linter) outOfRange(n *node) OutOfRange {
	s, ok := l.oneOf(n, "out_of_range", []string{string(OutOfRangePause), string(OutOfRangeEarliest), string(OutOfRangeLatest)}, nil)
	if !ok || s == string(OutOfRangePause) {
		return ""
	}
	if s == string(OutOfRangeLatest) {
		l.warn(n, CodeSkip, "`out_of_range: earliest` reads them", "with `out_of_range: latest` records that the log still has are passed over as well")
	}
	return OutOfRange(s)
}

func (l *linter) decode(key, n *node) *Decode {
	const example = "write decode: { avro: registry }"
	if n.kind == scalarNode {
		l.fail(n, CodeType, "write { "+DecodeAvro+": registry } or { "+DecodeJSONSchema+": registry }", "decode is a format, and where its schemas are")
		return nil
	}
	d := &Decode{}
	if !l.each(n, "decode", "decode", func(key, v *node) {
		if d.Format != "" {
			l.fail(key, CodeValue, "keep one", "values have one format, and this source has `%s` already", d.Format)
			return
		}
		d.Format = key.text
		l.oneOf(v, key.text, []string{"registry"}, nil)
	}) {
		return nil
	}
	if len(n.fields) == 0 {
		l.fail(key, CodeKeyMissing, example, "`decode` names no format")
	}
	return d
}

func (l *linter) rocketmqSource(key, n *node) *RocketMQSource {
	r := &RocketMQSource{Start: StartEarliest}
	if !l.each(n, "source.rocketmq", "source.rocketmq", func(key, v *node) {
		switch key.text {
		case "connection":
			r.Connection = l.connectionName(v, KindRocketMQ)
		case "topic":
			r.Topic, _ = l.topic(v, KindRocketMQ)
		case "tags":
			r.Tags = l.tags(v)
		case "start":
			r.Start = l.start(v)
		}
	}) {
		return r
	}
	if lacks(n, "source.rocketmq", "connection") {
		l.fail(key, CodeKeyMissing, "write connection: NAME, or rocketmq://HOST:PORT", "the source has no `connection`")
	}
	if lacks(n, "source.rocketmq", "topic") {
		l.fail(key, CodeKeyMissing, "write topic: orders", "the source has no `topic`")
	}
	return r
}

func (l *linter) tags(n *node) []string {
	const example = "write tags: [paid], or take `tags` away: then all messages are read"
	if n.kind == listNode && len(n.items) == 0 {
		l.fail(n, CodeValue, example, "the list of tags is empty")
		return nil
	}
	var out []string
	l.texts(n, "tags", "tags: [paid, cancelled]", func(at *node, s string, known bool) bool {
		switch {
		case known && s == "*":
			l.fail(at, CodeValue, "take `tags` away: then all messages are read", "a tag is a name, and no pattern")
		case known && !tagPattern.MatchString(s):
			l.fail(at, CodeName, "no spaces, no | and no control characters; each tag is an element of the list", "a tag cannot be called %s", quoted(s))
		case known && slices.Contains(out, s):
			l.fail(at, CodeValue, "keep one", "tag %s stands here twice", quoted(s))
		default:
			out = append(out, s)
		}
		return true
	})
	return out
}

func (l *linter) topics(n *node) []string {
	items := n.items
	switch n.kind {
	case scalarNode:
		l.fail(n, CodeType, "write ["+n.text+"]", "topics are a list")
		return nil
	case listNode:
		if len(items) == 0 {
			l.fail(n, CodeValue, "write topics: [orders]", "the list of topics is empty")
		}
	default:
		l.fail(n, CodeType, "write topics: [orders]", "topics are a list")
		return nil
	}
	var out []string
	for _, it := range items {
		t, ok := l.topic(it, KindKafka)
		if !ok {
			continue
		}
		if slices.Contains(out, t) {
			l.fail(it, CodeValue, "keep one", "topic %s stands here twice", quoted(t))
			continue
		}
		out = append(out, t)
	}
	return out
}

func (l *linter) topic(n *node, kind string) (string, bool) {
	t, known, ok := l.static(n, "a topic")
	if !ok {
		return "", false
	}
	if known && !l.topicName(n, t, kind) {
		return "", false
	}
	return t, true
}

func (l *linter) topicName(n *node, t, kind string) bool {
	if kind == KindRocketMQ {
		if rocketmqTopicPattern.MatchString(t) {
			return true
		}
		l.fail(n, CodeName, "letters, digits and _ - % |, at most 127 of them", "a topic of RocketMQ cannot be called %s", quoted(t))
		return false
	}
	if topicPattern.MatchString(t) && t != "." && t != ".." {
		return true
	}
	help := "letters, digits and . _ -"
	if strings.ContainsAny(t, "*+?[(") {
		help += "; for topics by the form of their names write source: { kafka: { pattern: ... } }"
	}
	l.fail(n, CodeName, help, "a topic cannot be called %s", quoted(t))
	return false
}

func (l *linter) start(n *node) Start {
	s, ok := l.text(n, "start")
	if !ok {
		return StartEarliest
	}
	if s == string(StartEarliest) || s == string(StartLatest) {
		return Start(s)
	}
	if _, err := time.Parse(time.RFC3339, s); err == nil {
		return Start(s)
	}
	l.oneOf(n, "start", []string{"earliest", "latest", "a time such as 2026-11-01T00:00:00Z"}, nil)
	return StartEarliest
}
