// Package flow is the flow file: the documents `flow: v1` and `connection: v1`,
// their checks with positions, their typed model, what of them is stored, and
// the difference between two of them.
//
// It is pure: files are read, and the outside is asked, by the caller (see
// Resolver). It runs nothing: stages, connectors and the node take its model.
package flow

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/runtime/expr"
)

// Parse reads and checks the documents of a file. It reports everything that
// is wrong, sorted by place; what it cannot know without the environment is
// left to Resolve. A document with an error has no model. src is not kept.
func Parse(file string, src []byte, opts Options) ([]*Document, Problems) {
	return parse(file, 0, string(src), opts, nil)
}

// Resolve checks a document that was parsed once more, with the values that it
// takes from outside put in. What it returns is what nodes run: it is the same
// whoever looks at it (see EncodeResolved). If it reports an error the
// document is nil.
func Resolve(doc *Document, in Inputs, opts Options) (*Document, Problems) {
	docs, ps := parse(doc.File, doc.Line-1, string(doc.Source), opts, &in)
	if ps.HasErrors() || len(docs) != 1 {
		return nil, ps
	}
	return docs[0], ps
}

func parse(file string, base int, text string, opts Options, in *Inputs) ([]*Document, Problems) {
	var ps Problems
	src := &source{file: file, base: base, report: func(p Problem) { ps.add(p) }}
	var docs []*Document
	parsed := src.parse(text)
	for _, y := range parsed {
		if y.root == nil || y.root.kind == nullNode {
			continue
		}
		l := &linter{src: src, opts: opts, in: in, problems: &ps, project: DefaultProject, roots: expr.RecordRoots}
		if in != nil {
			l.env = make(map[string]string)
		}
		before := len(ps)
		d := &Document{File: file, Line: y.line, Source: []byte(y.source)}
		l.document(y.root, d)
		if ps[before:].HasErrors() {
			d.Flow, d.Connection = nil, nil
		}
		docs = append(docs, d)
	}
	if parsed != nil && len(docs) == 0 && len(ps) == 0 {
		ps = append(ps, Problem{Code: CodeDocument, Level: LevelError, File: file, Message: "the file holds no document", Help: "a flow begins with `flow: v1`"})
	}
	// A tag and its like are found before the documents are.
	for i, d := range docs {
		end := base + len(src.lines) + 1
		if i+1 < len(docs) {
			end = docs[i+1].Line
		}
		for _, p := range ps {
			if p.Level == LevelError && p.Line >= d.Line && p.Line < end {
				d.Flow, d.Connection = nil, nil
			}
		}
	}
	if len(ps) >= maxProblems {
		// What came later was not noted, but may be wrong as well.
		for _, d := range docs {
			d.Flow, d.Connection = nil, nil
		}
	}
	for i := range ps {
		src.mask(&ps[i])
	}
	ps.sort()
	return docs, ps
}

func (l *linter) document(n *node, d *Document) {
	kinds := []string{KindFlow, KindConnection}
	if n.kind == badNode {
		return
	}
	if n.kind != mapNode || len(n.fields) == 0 {
		l.fail(n, CodeDocument, "a flow begins with `flow: v1`, a connection with `connection: v1`", "a document is a map of keys and values")
		return
	}
	first := n.fields[0]
	if !slices.Contains(kinds, first.key.text) {
		help := "a flow begins with `flow: v1`, a connection with `connection: v1`"
		for _, kind := range kinds {
			if n.get(kind) != nil {
				help = "move `" + kind + ": " + n.get(kind).text + "` to the top"
			}
		}
		if near := expr.Nearest(first.key.text, kinds); near != "" && help[0] == 'a' {
			help = "did you mean `" + near + "`?"
		}
		l.fail(first.key, CodeDocument, help, "the first key says what a document is, and `%s` does not", first.key.text)
		return
	}
	d.Kind = first.key.text
	if first.value.kind != scalarNode || first.value.text != "v1" {
		at := first.value
		if at.kind != scalarNode {
			at = first.key
		}
		l.fail(at, CodeVersion, "write `"+d.Kind+": v1`, or use a newer flowctl", "this version of the format is not known; there is v1")
		return
	}
	for _, kind := range kinds {
		if f := n.get(kind); kind != d.Kind && f != nil && kind == KindFlow {
			l.fail(f, CodeKeyUnknown, "put `---` between two documents", "a %s holds no `%s`", d.Kind, kind)
			return
		}
	}
	if p := n.get("project"); p != nil && p.kind != nullNode {
		if s, ok := l.name(p, "project"); ok {
			l.project = s
		}
	}
	if d.Kind == KindFlow {
		d.Flow = l.flow(n)
	} else {
		d.Connection = l.connection(n)
	}
}

// missing reports a key that has to be there. The place is the map's first key.
func (l *linter) missing(n *node, where, key, example string) {
	at := n
	if n.kind == mapNode && len(n.fields) > 0 {
		at = n.fields[0].key
	}
	l.fail(at, CodeKeyMissing, "write "+example, "%s has no `%s`", where, key)
}

func (l *linter) flow(n *node) *Flow {
	f := &Flow{Project: l.project, Order: OrderPartition, Otherwise: OtherwiseQueue}
	if v := n.get("vars"); v != nil {
		f.Vars = l.readVars(v)
	}
	l.overrideVars(n, f)
	l.vars = f.Vars
	if v := n.get("otherwise"); v != nil && v.kind != nullNode {
		f.Otherwise, f.Aside = l.otherwise(v)
	}
	var order, exceptions *node
	l.each(n, "flow", "a flow", func(key, v *node) {
		switch key.text {
		case "name":
			f.Name, _ = l.name(v, "name")
		case "description":
			f.Description, _ = l.text(v, "description")
		case "labels":
			f.Labels = l.labels(v)
		case "source":
			f.Source = l.source(v)
		case "order":
			order = v
		case "slots":
			s, _ := l.integer(v, "slots", 1, 4096)
			f.Slots = int(s)
		case "limits":
			l.limits(v, f)
		case "queue":
			f.Queue = l.queue(v)
		case "requeue":
			f.Requeue = l.requeue(key, v)
		case "stages":
			l.stages(key, v, f, n.get("source").get(KindKafka).get("decode"))
		case "exceptions":
			exceptions = v
		}
	})
	l.order(order, f)
	if exceptions != nil {
		f.Exceptions = l.exceptions(exceptions)
	}
	if lacks(n, "flow", "name") {
		l.missing(n, "the flow", "name", "name: orders")
	}
	if lacks(n, "flow", "source") {
		l.missing(n, "the flow", "source", "source: kafka://CONNECTION/TOPIC")
	}
	if lacks(n, "flow", "stages") {
		l.missing(n, "the flow", "stages", "stages: with a list that ends with a delivery")
	}
	if l.in != nil {
		f.Env = l.env
	}
	return f
}

func (l *linter) labels(n *node) map[string]string {
	if n.kind != mapNode {
		l.fail(n, CodeType, "such as { team: integration }", "labels are a map of names and texts")
		return nil
	}
	m := make(map[string]string, len(n.fields))
	for _, f := range n.fields {
		if s, ok := l.text(f.value, "a label"); ok {
			m[f.key.text] = s
		}
	}
	return m
}

func (l *linter) readVars(n *node) map[string]any {
	if n.kind == badNode || n.kind == nullNode {
		return nil
	}
	if n.kind != mapNode {
		l.fail(n, CodeType, "such as { currency: CNY }", "vars are a map of names and values")
		return nil
	}
	vars := make(map[string]any, len(n.fields))
	for _, f := range n.fields {
		if !varPattern.MatchString(f.key.text) {
			l.fail(f.key, CodeName, "letters, digits and _, no digit first", "a var cannot be called %s", quoted(f.key.text))
			continue
		}
		switch v := f.value; {
		case isSecret(v):
			l.fail(v, CodeSecret, "vars get into bodies and logs; name the secret in a connection", "a var cannot be a secret")
		case v.kind != scalarNode:
			if v.kind != badNode {
				l.fail(v, CodeType, "", "a var is a text, a number, true or false")
			}
		default:
			if x, known, ok := l.scalar(v); ok {
				vars[f.key.text] = x
				l.openVars = l.openVars || !known
				continue
			}
		}
		// It is there, whatever it was meant to be: no second message where
		// it is used.
		vars[f.key.text] = nil
	}
	return vars
}

// scalar is the value of a scalar; a text may hold ${...} of vars and env,
// and is not known if the environment is not.
func (l *linter) scalar(n *node) (v any, known, ok bool) {
	switch n.typ {
	case boolScalar:
		return strings.EqualFold(n.text, "true"), true, true
	case intScalar:
		i, err := parseInt(n)
		if err != nil {
			l.fail(n, CodeValue, "quote it if it is a text", "a whole number has at most 64 bits")
			return nil, false, false
		}
		return i, true, true
	case floatScalar:
		f, err := strconv.ParseFloat(strings.ReplaceAll(n.text, "_", ""), 64)
		if err != nil {
			l.fail(n, CodeValue, "quote it if it is a text", "this number is too large")
			return nil, false, false
		}
		return f, true, true
	}
	if !strings.Contains(n.text, "${") {
		return n.text, true, true
	}
	return l.staticValue(n)
}

func (l *linter) overrideVars(n *node, f *Flow) {
	if l.in == nil {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(l.in.Vars)) {
		text := l.in.Vars[name]
		at := n.fields[0].key
		old, ok := f.Vars[name]
		if !ok {
			help := "the flow has no `vars`"
			if known := slices.Sorted(maps.Keys(f.Vars)); len(known) > 0 {
				help = "vars: " + strings.Join(known, " ")
			}
			l.fail(at, CodeVarUnknown, help, "the flow has no var `%s` to override", name)
			continue
		}
		var v any = text
		var err error
		switch old.(type) {
		case bool:
			v, err = strconv.ParseBool(text)
		case int64:
			v, err = strconv.ParseInt(text, 10, 64)
		case float64:
			v, err = strconv.ParseFloat(text, 64)
		}
		if err != nil {
			l.fail(at, CodeValue, fmt.Sprintf("its default is %v", old), "var `%s` cannot be %s", name, quoted(text))
			continue
		}
		f.Vars[name] = v
	}
}

func (l *linter) otherwise(n *node) (Otherwise, *Topic) {
	if n.kind != mapNode {
		if n.kind == scalarNode && (n.text == "topic" || topicAddress(n.text) != nil) {
			topic := n.text
			if topic == "topic" {
				topic = "kafka://CONNECTION/TOPIC"
			}
			l.fail(n, CodeValue, "write { topic: "+topic+" }", "otherwise cannot be %s", quoted(n.text))
			return OtherwiseQueue, nil
		}
		s, ok := l.oneOf(n, "otherwise", []string{"queue", "drop", "pause"}, nil)
		if !ok {
			return OtherwiseQueue, nil
		}
		return Otherwise(s), nil
	}
	out := &Topic{}
	l.each(n, "otherwise", "otherwise", func(_, v *node) {
		text, known, ok := l.static(v, "topic")
		t := topicAddress(text)
		switch {
		case !ok:
		case t != nil && l.address(v, t, known):
			out = t
		case t == nil && known:
			l.fail(v, CodeValue, "write kafka://CONNECTION/TOPIC or rocketmq://CONNECTION/TOPIC", "%s names no topic of a connection", quoted(text))
		}
	})
	if lacks(n, "otherwise", "topic") {
		l.fail(n, CodeKeyMissing, "write { topic: kafka://CONNECTION/TOPIC }, or one of queue, drop, pause", "otherwise has no `topic`")
	}
	return OtherwiseTopic, out
}

func (l *linter) limits(n *node, f *Flow) {
	whole := func(v *node, what string) int {
		i, _ := l.integer(v, what, 1, 10_000_000)
		return int(i)
	}
	if !l.each(n, "limits", "limits", func(key, v *node) {
		switch key.text {
		case "records":
			f.Limits.Records, _ = l.rate(v, "records")
		case "in_flight":
			i, _ := l.integer(v, "in_flight", 1, 1_000_000)
			f.InFlight = int(i)
		case "pause_at":
			f.Limits.PauseAt = whole(v, "pause_at")
		case "resume_at":
			f.Limits.ResumeAt = whole(v, "resume_at")
		}
	}) {
		return
	}
	switch resume := n.get("resume_at"); {
	case resume != nil && lacks(n, "limits", "pause_at"):
		l.fail(resume, CodeKeyMissing, "write pause_at: a number of entries above it", "`resume_at` needs a `pause_at`")
	case f.Limits.PauseAt > 0 && f.Limits.ResumeAt >= f.Limits.PauseAt:
		l.fail(resume, CodeValue, "half of it, or less, keeps the flow from flapping", "resume_at is less than pause_at")
	case resume == nil:
		f.Limits.ResumeAt = f.Limits.PauseAt / 2
	}
}

func (l *linter) queue(n *node) Queue {
	var q Queue
	l.each(n, "queue", "queue", func(key, v *node) {
		switch key.text {
		case "keep":
			q.Keep, _ = l.duration(v, "keep")
		case "entries":
			i, _ := l.integer(v, "entries", 1, 1_000_000)
			q.Entries = int(i)
		case "bytes":
			q.Bytes, _ = l.size(v, "bytes", 1<<20, 64<<30)
		case "when_full":
			if s, ok := l.oneOf(v, "when_full", []string{string(WhenFullPause), string(WhenFullDropOldest)}, nil); ok && s != string(WhenFullPause) {
				q.WhenFull = WhenFull(s)
				l.warn(v, CodeQueue, "`when_full: pause` loses none", "with `when_full: drop_oldest` records are given up when the failure queue is full, the oldest first")
			}
		}
	})
	return q
}

// defaultRequeues is how often an entry goes back where nothing is said.
const defaultRequeues = 3

func (l *linter) requeue(key, n *node) *Requeue {
	r := &Requeue{AtMost: defaultRequeues}
	if !l.each(n, "requeue", "requeue", func(key, v *node) {
		if key.text == "every" {
			r.Every, _ = l.duration(v, "every")
			return
		}
		i, _ := l.integer(v, "at_most", 1, 1000)
		r.AtMost = int(i)
	}) {
		return r
	}
	if lacks(n, "requeue", "every") {
		l.fail(key, CodeKeyMissing, "write requeue: { every: 1h, at_most: 3 }", "`requeue` has no `every`")
	}
	return r
}

// order reads the order of a flow, or gives it its default; n is nil where the
// document says nothing.
func (l *linter) order(n *node, f *Flow) {
	deliveries := f.Deliveries()
	http := slices.ContainsFunc(deliveries, func(d *Delivery) bool { return d.HTTP != nil })
	if http {
		f.Order = OrderKey
	}
	if n == nil {
		return
	}
	s, ok := l.oneOf(n, "order", []string{"key", "partition", "none"}, nil)
	if !ok {
		return
	}
	f.Order = Order(s)
	if f.Order != OrderNone {
		return
	}
	if http {
		l.warn(n, CodeOrder, "", "with `order: none` a record may arrive before an older one of its key")
		return
	}
	for _, d := range deliveries {
		if d.Kafka != nil || d.RocketMQ != nil || d.File != nil || d.Stream != nil {
			l.fail(n, CodeNotSupported, "it goes with deliveries to HTTP", "`order: none` to %s is not supported yet", d.Kind())
			return
		}
	}
}
