package flow

import "strings"

func (l *linter) kafkaPush(key, n *node) *KafkaPush {
	k := &KafkaPush{}
	if !l.each(n, "push.kafka", "push.kafka", func(key, v *node) {
		switch key.text {
		case "connection":
			k.Connection = l.connectionName(v, KindKafka)
		case "topic":
			k.Topic, _ = l.topic(v, KindKafka)
		case "key":
			k.Key, _ = l.expression(v, "key", false)
		case "compression":
			if s, ok := l.oneOf(v, "compression", compressionCodecs, nil); ok && s != compressionCodecs[0] {
				k.Compression = s
			}
		}
	}) {
		return k
	}
	l.topicOf(key, n, "push.kafka", KindKafka)
	return k
}

func (l *linter) rocketmqPush(key, n *node) *RocketMQPush {
	r := &RocketMQPush{}
	if !l.each(n, "push.rocketmq", "push.rocketmq", func(key, v *node) {
		switch key.text {
		case "connection":
			r.Connection = l.connectionName(v, KindRocketMQ)
		case "topic":
			r.Topic, _ = l.topic(v, KindRocketMQ)
		case "tag":
			r.Tag, _ = l.template(v, "tag")
			switch {
			case v.kind != scalarNode:
			case v.text == "":
				l.fail(v, CodeValue, "take `tag` away: then a record keeps its own", "the tag is empty")
			case strings.HasPrefix(v.text, "value."), strings.HasPrefix(v.text, "headers."):
				l.warn(v, CodeExpr, "write \"${"+v.text+"}\" for what the record has there", "the tag of every message is this text as it stands")
			}
		case "key":
			r.Key, _ = l.expression(v, "key", false)
		case "delay":
			r.Delay = l.delay(v)
		}
	}) {
		return r
	}
	l.topicOf(key, n, "push.rocketmq", KindRocketMQ)
	return r
}

// delay is a level of RocketMQ's delays, which people take for a time.
func (l *linter) delay(n *node) int {
	i, err := parseInt(n)
	if n.kind != badNode && (err != nil || i < 0 || i > MaxDelay) {
		l.fail(n, CodeValue, "a level of the broker's `messageDelayLevel`: unless that is changed 1 is 1s, 5 is 1m, 14 is 10m and 18 is 2h", "delay is a level from 0 to %d, not a time", MaxDelay)
		return 0
	}
	return int(i)
}

// topicOf reports a push that lacks its connection or its topic.
func (l *linter) topicOf(key, n *node, set, kind string) {
	if lacks(n, set, "connection") {
		l.fail(key, CodeKeyMissing, "write connection: NAME, or "+anonymousExample(kind), "the delivery has no `connection`")
	}
	if lacks(n, set, "topic") {
		l.fail(key, CodeKeyMissing, "write topic: NAME", "the delivery has no `topic`")
	}
}
