package flow

import (
	"net/url"
	"slices"
	"strings"
	"time"
)

// source reads `source:`.
func (l *linter) source(n *node) Source {
	var s Source
	if n.kind == scalarNode {
		text, known, ok := l.static(n, "source")
		switch {
		case !ok:
		case strings.HasPrefix(text, kafkaScheme):
			if conn, topic, ok := l.kafkaAddress(n, text, known); ok {
				s.Kafka = &KafkaSource{Connection: conn, Topics: []string{topic}, Start: StartEarliest}
			}
		case text == "stream" || text == "ingest":
			l.fail(n, CodeValue, "write { "+text+": {} }", "`%s` needs its braces", text)
		default:
			l.fail(n, CodeValue, "write kafka://CONNECTION/TOPIC, { file: { path: in.ndjson } }, { ingest: {} } or { stream: {} }", "a source cannot be %s", quoted(text))
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
		case "kafka":
			s.Kafka = l.kafkaSource(key, v)
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

func (l *linter) kafkaSource(key, n *node) *KafkaSource {
	k := &KafkaSource{Start: StartEarliest}
	if !l.each(n, "source.kafka", "source.kafka", func(key, v *node) {
		switch key.text {
		case "connection":
			k.Connection = l.connectionName(v, "kafka")
		case "topics":
			k.Topics = l.topics(v)
		case "start":
			k.Start = l.start(v)
		}
	}) {
		return k
	}
	if lacks(n, "source.kafka", "connection") {
		l.fail(key, CodeKeyMissing, "write connection: NAME, or kafka://HOST:PORT", "the source has no `connection`")
	}
	if lacks(n, "source.kafka", "topics") {
		l.fail(key, CodeKeyMissing, "write topics: [orders]", "the source has no `topics`")
	}
	return k
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
		t, ok := l.topic(it)
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

func (l *linter) topic(n *node) (string, bool) {
	t, known, ok := l.static(n, "a topic")
	if !ok {
		return "", false
	}
	if known && !l.topicName(n, t) {
		return "", false
	}
	return t, true
}

func (l *linter) topicName(n *node, t string) bool {
	if topicPattern.MatchString(t) && t != "." && t != ".." {
		return true
	}
	l.fail(n, CodeName, "letters, digits and . _ -", "a topic cannot be called %s", quoted(t))
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

// kafkaAddress takes kafka://connection/topic or kafka://host:port/topic apart.
func (l *linter) kafkaAddress(n *node, text string, known bool) (conn, topic string, ok bool) {
	conn, topic, _ = strings.Cut(strings.TrimPrefix(text, kafkaScheme), "/")
	if !known {
		return conn, topic, true
	}
	switch {
	case conn == "":
		l.fail(n, CodeValue, "write kafka://CONNECTION/TOPIC or kafka://HOST:PORT/TOPIC", "the address names no connection")
		return "", "", false
	case topic == "":
		l.fail(n, CodeValue, "write "+kafkaScheme+conn+"/TOPIC", "the address names no topic")
		return "", "", false
	}
	if !l.topicName(n, topic) {
		return "", "", false
	}
	if strings.Contains(conn, ":") {
		if !validHostPort(conn) {
			l.fail(n, CodeValue, "write kafka://HOST:PORT/TOPIC", "%s is no host and port", quoted(conn))
			return "", "", false
		}
		return kafkaScheme + conn, topic, true
	}
	return conn, topic, l.connectionExists(n, conn, "kafka")
}

// connectionName reads `connection:` of a source or sink of a kind.
func (l *linter) connectionName(n *node, kind string) string {
	s, known, ok := l.static(n, "connection")
	if !ok || !known {
		return s
	}
	if strings.Contains(s, "://") {
		c, ok := Anonymous(s)
		if !ok || c.Kind() != kind {
			l.fail(n, CodeValue, "name a connection, or write "+anonymousExample(kind), "%s is no address of %s", quoted(s), kindTitle(kind))
			return ""
		}
		return s
	}
	if !namePattern.MatchString(s) {
		l.fail(n, CodeName, "name a connection, or write "+anonymousExample(kind), "a connection cannot be called %s", quoted(s))
		return ""
	}
	l.connectionExists(n, s, kind)
	return s
}

func anonymousExample(kind string) string {
	if kind == "kafka" {
		return "kafka://HOST:PORT"
	}
	return "https://HOST"
}

func kindTitle(kind string) string {
	if kind == "http" {
		return "HTTP"
	}
	return "Kafka"
}

func (l *linter) connectionExists(n *node, name, kind string) bool {
	if !namePattern.MatchString(name) {
		l.fail(n, CodeName, "name a connection, or write "+anonymousExample(kind), "a connection cannot be called %s", quoted(name))
		return false
	}
	if l.opts.Resolver == nil {
		return true
	}
	got, ok := l.opts.Resolver.ConnectionKind(l.project, name)
	switch {
	case !ok:
		l.fail(n, CodeConnectionNotFound, "apply a `connection: v1` document with `name: "+name+"` first, or write "+anonymousExample(kind), "there is no connection `%s` in project `%s`", name, l.project)
	case got != kind:
		l.fail(n, CodeConnectionKind, "", "connection `%s` is one to %s, not to %s", name, kindTitle(got), kindTitle(kind))
	default:
		return true
	}
	return false
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

// baseURL checks http(s)://host[:port][/path].
func (l *linter) baseURL(n *node, s string) bool {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || !validPort(u):
		l.fail(n, CodeValue, "write https://HOST or https://HOST:PORT", "%s is no URL of an HTTP service", quoted(s))
	case u.User != nil:
		l.hide(n)
		l.fail(n, CodeSecret, "use `auth` with a secret", "a URL must not hold a user and password")
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
