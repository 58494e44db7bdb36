package flow

import (
	"slices"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/runtime/expr"
)

// stages reads the list of stages of a flow, each of whose ways ends with a
// delivery. decode, if not nil, is the source's, which is a stage in front.
func (l *linter) stages(key, n *node, f *Flow, decode *node) {
	if n.kind == listNode && len(n.items) == 0 {
		l.fail(key, CodeDeliveryMissing, "end the list with a delivery, such as `- push: kafka://CONNECTION/TOPIC`", "the flow has no stages")
		return
	}
	before := len(*l.problems)
	in := &way{otherwise: f.Otherwise, aside: f.Aside, ids: make(map[string]*node)}
	if decode != nil {
		in.ids[DecodeID] = decode
	}
	stages, d, last := l.way(n, in)
	f.Stages = stages
	if d != nil {
		f.Delivery = *d
	}
	switch {
	case d != nil || last == nil || in.delivered:
	case last.text != "branch":
		l.fail(last, CodeDeliveryMissing, "add a delivery behind it, such as `- push: kafka://CONNECTION/TOPIC`", "the last stage must be a delivery")
	case len(stages) > 0 && !(*l.problems)[before:].HasErrors():
		l.openCases(stages[len(stages)-1].Branch)
	}
}

// way is what the stages of a list have in common.
type way struct {
	otherwise Otherwise
	aside     *Topic
	// prefix of the ids that stages have by themselves.
	prefix string
	depth  int
	ids    map[string]*node // of the whole flow
	// delivered: there is a delivery in the list, in its place or not.
	delivered bool
}

// way reads a list of stages. d is the delivery that ends it, if one does;
// last is the verb of the last stage, nil if it has none.
func (l *linter) way(n *node, in *way) (stages []Stage, d *Delivery, last *node) {
	if n.kind == badNode {
		return nil, nil, nil
	}
	if n.kind != listNode {
		l.fail(n, CodeType, "each begins with - and a verb, such as `- filter: value.amount > 0`", "stages are a list")
		return nil, nil, nil
	}
	for i, it := range n.items {
		left := len(n.items) - 1 - i
		verb, ok := l.stageVerb(it)
		last = verb
		if !ok {
			continue
		}
		id := l.stageID(it, in.prefix+verb.text+strconv.Itoa(i+1), in.ids)
		otherwise, aside := in.otherwise, in.aside
		if v := it.get("otherwise"); v != nil && v.kind != nullNode && v.kind != badNode {
			otherwise, aside = l.otherwise(v)
		}
		if verb.text == "push" {
			in.delivered = true
			read := l.delivery(it, id, in)
			read.ID, read.Otherwise, read.Aside, read.Pos = id, otherwise, aside, it.pos
			if left > 0 {
				l.fail(verb, CodeDeliveryNotLast, "make it the last stage", "nothing comes behind a delivery, and %d more %s here", left, plural(left, "stage stands", "stages stand"))
				continue
			}
			d = &read
			continue
		}
		s := Stage{ID: id, Otherwise: otherwise, Aside: aside, Pos: it.pos}
		switch verb.text {
		case "filter":
			l.filterStage(it, id, &s)
		case "map":
			l.mapStage(it, id, &s)
		case "cleanup":
			l.cleanupStage(it, id, &s)
		case "branch":
			before := len(*l.problems)
			l.branchStage(it, id, &s, in)
			if left > 0 && s.Branch.ends() && !(*l.problems)[before:].HasErrors() {
				l.fail(verb, CodeStageUnreachable, "take away what stands behind it, or let a case go on: without a delivery, or `- else: pass`",
					"every case of this branch ends, and %d more %s behind it", left, plural(left, "stage stands", "stages stand"))
			}
		}
		stages = append(stages, s)
	}
	return stages, d, last
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// stageVerb finds the one verb of a stage. It reports false, and why, if the
// stage has none that this version knows.
func (l *linter) stageVerb(n *node) (*node, bool) {
	switch n.kind {
	case badNode:
		return nil, false
	case mapNode:
	default:
		help := "write `- VERB: ...`; verbs: " + strings.Join(verbs, ", ")
		if n.kind == scalarNode {
			if word, rest, ok := strings.Cut(n.text, ":"); ok && slices.Contains(verbs, word) {
				help = "write `- " + word + ": " + rest + "`, with a space behind the colon"
			}
		}
		l.fail(n, CodeType, help, "a stage is a map with a verb")
		return nil, false
	}
	var found, delivery *node
	for _, f := range n.fields {
		switch {
		case slices.Contains(verbs, f.key.text):
			if found != nil {
				l.fail(f.key, CodeStageVerb, "make two stages of it", "a stage has one verb, and this one has `%s` already", found.text)
				return nil, false
			}
			found = f.key
		case slices.Contains(deliveryKeys, f.key.text):
			delivery = f.key
		}
	}
	switch {
	case found != nil:
		return found, true
	case delivery != nil:
		if lacksKey(n, "stage.push", "push") {
			l.fail(delivery, CodeStageVerb, "write beside it push: { http: { connection: NAME, post: /PATH } }", "`%s` is a part of a delivery, and there is no `push`", delivery.text)
			return nil, false
		}
	}
	return nil, l.noVerb(n)
}

// noVerb says what is wrong with a stage without a verb: most likely a key
// that was to be one.
func (l *linter) noVerb(n *node) bool {
	known := append([]string{"id", "otherwise", "with", "lines", "envelope", "isolation", "limits", "function", "hosts", "outputs", "schema", "every"}, deliveryKeys...)
	var strange []*node
	for _, f := range n.fields {
		if !slices.Contains(known, f.key.text) {
			strange = append(strange, f.key)
		}
	}
	if len(strange) == 0 {
		l.fail(n, CodeStageVerb, "verbs: "+strings.Join(verbs, ", "), "a stage has one verb, and this one has none")
		return false
	}
	for _, key := range strange {
		if near := expr.Nearest(key.text, verbs); near != "" {
			l.fail(key, CodeStageUnknown, "did you mean `"+near+"`?", "unknown verb of a stage")
			return false
		}
	}
	help := "verbs: " + strings.Join(verbs, ", ")
	switch {
	case slices.Contains([]string{"kafka", "rocketmq", "http", "webhook", "file", "stream", "sink", "to", "output"}, strange[0].text):
		help = "a delivery is `push: ...`"
	case slices.Contains([]string{"when", "else", "if", "case", "switch"}, strange[0].text):
		help = "cases stand in a list below `branch:`"
	case slices.Contains([]string{"plugin", "set", "rename", "drop", "keep", "wasm"}, strange[0].text):
		help = "this belongs below `map:`"
	}
	l.fail(strange[0], CodeStageUnknown, help, "unknown verb of a stage")
	return false
}

// stageID is the id of a stage: its own, or the one given.
func (l *linter) stageID(n *node, id string, ids map[string]*node) string {
	at := n
	if v := n.get("id"); v != nil && v.kind != nullNode {
		s, ok := l.name(v, "id")
		if !ok {
			return id
		}
		id, at = s, v
	} else if len(id) > 63 {
		l.fail(n, CodeName, "write an id of at most 63 characters beside the verb", "the stage has no id, and the one of its place is too long: %s", quoted(id))
		return id
	}
	return l.takeID(at, id, ids)
}

// takeID notes an id, which must be new.
func (l *linter) takeID(at *node, id string, ids map[string]*node) string {
	if first := ids[id]; first != nil {
		l.fail(at, CodeStageDuplicate, "ids are unique in a flow; without one a stage has its verb and number", "another stage is called `%s`, in line %d", id, first.pos.Line)
		return id
	}
	ids[id] = at
	return id
}

// stageKeys visits the keys of a stage with a verb.
func (l *linter) stageKeys(n *node, verb, id string, visit func(key, value *node)) {
	ks := keySets["stage."+verb]
	for _, f := range n.fields {
		switch {
		case slices.Contains(ks.known, f.key.text):
			if f.value.kind == nullNode {
				l.fail(f.key, CodeType, "", "`%s` has no value", f.key.text)
			} else if f.value.kind != badNode {
				visit(f.key, f.value)
			}
		case slices.Contains(ks.later, f.key.text):
			l.notSupported(f.key, "`"+f.key.text+"`")
		case otherVerbsKey(f.key.text) != "":
			l.fail(f.key, CodeStageKey, "it goes with `"+otherVerbsKey(f.key.text)+"`", "`%s` does not go with `%s`", f.key.text, verb)
		default:
			help := "keys here: " + strings.Join(ks.known, ", ")
			if near := expr.Nearest(f.key.text, ks.all()); near != "" {
				help = "did you mean `" + near + "`?"
			}
			l.fail(f.key, CodeStageUnknown, help, "unknown key in stage %q", id)
		}
	}
}

func otherVerbsKey(key string) string {
	for _, verb := range verbs {
		if slices.Contains(keySets["stage."+verb].all(), key) {
			return verb
		}
	}
	return ""
}

func (l *linter) filterStage(n *node, id string, s *Stage) {
	l.stageKeys(n, "filter", id, func(key, v *node) {
		if key.text != "filter" {
			return
		}
		if v.kind == scalarNode && v.typ == stringScalar && !v.quoted && looksLikePlugin(v.text) {
			l.notSupported(v, "a plugin as a filter")
			return
		}
		s.Filter, _ = l.expression(v, "filter", true)
	})
}

func looksLikePlugin(s string) bool {
	return strings.HasSuffix(s, ".wasm") && (strings.HasPrefix(s, "./") || strings.HasPrefix(s, "../") || strings.HasPrefix(s, "file:"))
}
