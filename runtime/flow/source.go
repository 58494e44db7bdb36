package flow

import (
	"net/url"
	"strings"
	"time"
)

// source reads `source:`.
func (l *linter) source(n *node) Source {
	var s Source
	if n.kind == scalarNode {
		text, known, ok := l.static(n, "source")
		t := topicAddress(text)
		switch {
		case !ok:
		case t != nil && l.address(n, t, known):
			if t.RocketMQ {
				s.RocketMQ = &RocketMQSource{Connection: t.Connection, Topic: t.Topic, Start: StartEarliest}
			} else {
				s.Kafka = &KafkaSource{Connection: t.Connection, Topics: []string{t.Topic}, Start: StartEarliest}
			}
		case t != nil:
		case text == "stream" || text == "ingest":
			l.fail(n, CodeValue, "write { "+text+": {} }", "`%s` needs its braces", text)
		default:
			l.fail(n, CodeValue, "write kafka://CONNECTION/TOPIC, rocketmq://CONNECTION/TOPIC, { file: { path: in.ndjson } }, { ingest: {} } or { stream: {} }", "a source cannot be %s", quoted(text))
		}
		return s
	}
	var seen *node
	if !l.each(n, "source", "source", func(key, v *node) {
		if seen != nil {
			l.fail(key, CodeValue, "a flow has one source; keep one of `"+seen.text+"` and `"+key.text+"`", "a second source")
			return
		}
		seen = key
		switch key.text {
		case KindKafka:
			s.Kafka = l.kafkaSource(key, v)
		case KindRocketMQ:
			s.RocketMQ = l.rocketmqSource(key, v)
		case "file":
			if path, ok := l.filePath(key, v); ok {
				s.File = &FileSource{Path: path}
			}
		case "stream":
			s.Stream = l.stream(v)
		case "ingest":
			s.Ingest = l.ingest(v)
		}
	}) {
		return s
	}
	if len(n.fields) == 0 {
		l.fail(n, CodeKeyMissing, exampleOf("source"), "the source is empty")
	}
	return s
}

// Defaults and bounds of an ingest source.
const (
	defaultIngestBody        = 1 << 20
	maxIngestBody            = 1 << 20
	defaultIngestWait        = 30 * time.Second
	maxIngestWait            = 5 * time.Minute
	defaultIdempotencyHeader = "Idempotency-Key"
)

func (l *linter) ingest(n *node) *IngestSource {
	in := &IngestSource{Body: defaultIngestBody, Wait: defaultIngestWait, Idempotency: defaultIdempotencyHeader}
	if n.kind == nullNode {
		return in
	}
	l.each(n, "source.ingest", "source.ingest", func(key, v *node) {
		switch key.text {
		case "body":
			if b, ok := l.size(v, "body", 1<<10, maxIngestBody); ok {
				in.Body = b
			}
		case "wait":
			d, ok := l.duration(v, "wait")
			if ok && d > maxIngestWait {
				l.fail(v, CodeValue, "", "wait is at most %s", durationText(maxIngestWait))
			}
			in.Wait = d
		case "idempotency":
			in.Idempotency = l.fieldName(v, "header")
		case "sender":
			in.Sender = l.sender(key, v)
		}
	})
	return in
}

// sender reads how the sender of a request signs it.
func (l *linter) sender(key, n *node) *Signature {
	if !l.each(n, "sender", "sender", func(_, _ *node) {}) {
		return nil
	}
	for _, f := range n.fields {
		if f.key.text == "hmac" {
			return l.signature(f.key, f.value, n, true)
		}
	}
	if lacks(n, "sender", "hmac") {
		l.fail(key, CodeKeyMissing, "write hmac: sha256", "`sender` does not say how the sender signs")
	}
	return nil
}

func (l *linter) stream(n *node) *Stream {
	if n.kind != nullNode {
		l.each(n, "stream", "stream", func(_, _ *node) {})
	}
	return &Stream{}
}

func (l *linter) filePath(key, n *node) (string, bool) {
	if n.kind != mapNode {
		l.fail(n, CodeType, "write file: { path: "+pathExample(n)+" }", "file is a map of keys and values")
		return "", false
	}
	path := ""
	l.each(n, "file", "file", func(_, v *node) {
		if s, _, ok := l.static(v, "path"); ok {
			if s == "" || strings.ContainsRune(s, 0) {
				l.fail(v, CodeValue, "", "a path cannot be %s", quoted(s))
				return
			}
			path = s
		}
	})
	if lacks(n, "file", "path") {
		l.fail(key, CodeKeyMissing, "write file: { path: records.ndjson }", "`file` has no `path`")
	}
	return path, path != ""
}

func pathExample(n *node) string {
	if n.kind == scalarNode && n.text != "" {
		return n.text
	}
	return "records.ndjson"
}

// splitURL takes an http or https URL apart: https://host[:port] and the rest,
// which begins with / or is empty.
func splitURL(s string) (base, path string, ok bool) {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok || scheme != "http" && scheme != "https" {
		return "", "", false
	}
	host := rest
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		host, path = rest[:i], rest[i:]
	}
	if path != "" && path[0] == '?' {
		path = "/" + path
	}
	return scheme + "://" + host, path, host != ""
}

// baseURL checks http(s)://host[:port][/path]; auth as for serviceURL.
func (l *linter) baseURL(n *node, s, auth string) bool {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || !validPort(u):
		l.fail(n, CodeValue, "write https://HOST or https://HOST:PORT", "%s is no URL of an HTTP service", quoted(s))
	case u.User != nil:
		l.hide(n)
		l.fail(n, CodeSecret, "use `"+auth+"` with a secret", "a URL must not hold a user and password")
	case u.RawQuery != "" || u.Fragment != "":
		l.fail(n, CodeValue, "", "a base ends before ? and #")
	default:
		return true
	}
	return false
}

func validPort(u *url.URL) bool {
	if u.Port() == "" {
		return !strings.HasSuffix(u.Host, ":")
	}
	return validHostPort(u.Host)
}
