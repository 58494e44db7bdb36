package flow

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/Masterminds/semver/v3"

	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/expr/jsondoc"
)

// stages reads the list of stages, whose last is the delivery.
func (l *linter) stages(key, n *node, f *Flow) {
	if n.kind == badNode {
		return
	}
	if n.kind != listNode {
		l.fail(n, CodeType, "each begins with - and a verb, such as `- filter: value.amount > 0`", "stages are a list")
		return
	}
	if len(n.items) == 0 {
		l.fail(key, CodeDeliveryMissing, "end the list with a delivery, such as `- push: kafka://CONNECTION/TOPIC`", "the flow has no stages")
		return
	}
	ids := make(map[string]*node)
	delivers := false
	for i, it := range n.items {
		lastOne := i == len(n.items)-1
		verb, ok := l.stageVerb(it)
		if !ok {
			continue
		}
		id := l.stageID(it, verb.text, i+1, ids)
		otherwise := f.Otherwise
		if v := it.get("otherwise"); v != nil && v.kind != nullNode && v.kind != badNode {
			otherwise = l.otherwise(v)
		}
		if verb.text == "push" {
			if !lastOne {
				l.fail(verb, CodeDeliveryNotLast, "make it the last stage", "nothing comes behind a delivery, and %d more %s here", len(n.items)-1-i, plural(len(n.items)-1-i, "stage stands", "stages stand"))
			}
			delivers = true
			d := l.delivery(it, id)
			d.ID, d.Otherwise, d.Pos = id, otherwise, it.pos
			if lastOne {
				f.Delivery = d
			}
			continue
		}
		s := Stage{ID: id, Otherwise: otherwise, Pos: it.pos}
		if verb.text == "filter" {
			l.filterStage(it, id, &s)
		} else {
			l.mapStage(it, id, &s)
		}
		f.Stages = append(f.Stages, s)
		if lastOne && !delivers {
			l.fail(verb, CodeDeliveryMissing, "add a delivery behind it, such as `- push: kafka://CONNECTION/TOPIC`", "the last stage must be a delivery")
		}
	}
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
	var found, later, delivery *node
	for _, f := range n.fields {
		switch {
		case slices.Contains(verbs, f.key.text):
			if found != nil {
				l.fail(f.key, CodeStageVerb, "make two stages of it", "a stage has one verb, and this one has `%s` already", found.text)
				return nil, false
			}
			found = f.key
		case slices.Contains(laterVerbs, f.key.text):
			later = f.key
		case slices.Contains(deliveryKeys, f.key.text):
			delivery = f.key
		}
	}
	switch {
	case found != nil && later != nil:
		l.fail(later, CodeStageVerb, "make two stages of it", "a stage has one verb, and this one has `%s` already", found.text)
		return nil, false
	case found != nil:
		return found, true
	case later != nil:
		l.notSupported(later, "`"+later.text+"`")
		return nil, false
	case delivery != nil:
		l.notSupported(delivery, "`"+delivery.text+"`")
		return nil, false
	}
	return nil, l.noVerb(n)
}

// noVerb says what is wrong with a stage without a verb: most likely a key
// that was to be one.
func (l *linter) noVerb(n *node) bool {
	known := []string{"id", "otherwise", "with", "lines", "envelope", "isolation", "limits", "retry", "function", "hosts", "outputs", "schema"}
	all := slices.Concat(verbs, laterVerbs)
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
		if near := expr.Nearest(key.text, all); near != "" {
			l.fail(key, CodeStageUnknown, "did you mean `"+near+"`?", "unknown verb of a stage")
			return false
		}
	}
	help := "verbs: " + strings.Join(verbs, ", ")
	switch {
	case slices.Contains([]string{"kafka", "http", "file", "stream", "sink", "to", "output"}, strange[0].text):
		help = "a delivery is `push: ...`"
	case slices.Contains([]string{"plugin", "set", "rename", "drop", "keep", "wasm"}, strange[0].text):
		help = "this belongs below `map:`"
	}
	l.fail(strange[0], CodeStageUnknown, help, "unknown verb of a stage")
	return false
}

func (l *linter) stageID(n *node, verb string, number int, ids map[string]*node) string {
	id, at := verb+strconv.Itoa(number), n
	if v := n.get("id"); v != nil && v.kind != nullNode {
		s, ok := l.name(v, "id")
		if !ok {
			return id
		}
		id, at = s, v
	}
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

func (l *linter) mapStage(n *node, id string, s *Stage) {
	var plugin PluginStage
	keys := map[string]*node{}
	isPlugin, isolation, refused := false, "", []*node(nil)
	l.stageKeys(n, "map", id, func(key, v *node) {
		switch key.text {
		case "map":
			if v.kind == mapNode && v.get("plugin") == nil {
				s.Map = l.builtinMap(key, v)
				return
			}
			isPlugin = true
			ref := v
			if v.kind == mapNode {
				ref = nil
				l.each(v, "map", "map", func(key, v *node) {
					if key.text == "plugin" {
						ref = v
						return
					}
					l.fail(key, CodeStageKey, "make two stages of it", "`%s` does not go with a plugin", key.text)
				})
			}
			if ref != nil {
				plugin.Ref, _ = l.pluginRef(ref)
			}
		case "with":
			plugin.With = l.with(v)
		case "function":
			plugin.Function = l.function(v)
		case "hosts":
			plugin.Hosts = l.hosts(v)
		case "lines":
			plugin.Lines, _ = l.oneOf(v, "lines", []string{"each", "batch"}, nil)
		case "envelope":
			plugin.Envelope, _ = l.boolean(v, "envelope")
		case "isolation":
			isolation, _ = l.oneOf(v, "isolation", []string{"batch", "record", "failure"}, nil)
		case "limits":
			l.each(v, "stage.limits", "limits", func(key, v *node) {
				if key.text == "fuel" {
					plugin.Fuel, _ = l.integer(v, "fuel", 1, 1<<40)
					return
				}
				plugin.MemoryBytes, _ = l.size(v, "memory", 64<<10, 4<<30)
			})
		}
		keys[key.text] = key
		if slices.Contains([]string{"with", "function", "hosts", "lines", "envelope", "isolation", "limits"}, key.text) {
			refused = append(refused, key)
		}
	})
	if !isPlugin {
		for _, key := range refused {
			l.fail(key, CodeStageKey, "it goes with a plugin", "`%s` does not go with the built-in map", key.text)
		}
		return
	}
	for _, key := range []string{"lines", "envelope"} {
		if keys["function"] != nil && keys[key] != nil {
			l.fail(keys[key], CodeStageKey, "take one of them away", "`%s` is for programs that read STDIN, `function` for Extism plugins", key)
		}
	}
	plugin.Isolation = cmp.Or(isolation, "batch")
	if plugin.Ref != (PluginRef{}) {
		l.checkPlugin(n.get("map"), keys, &plugin)
	}
	s.Plugin = &plugin
}

// function reads the name of an export: whatever a binary can hold, but visible.
func (l *linter) function(n *node) string {
	s, known, ok := l.static(n, "a function")
	if ok && known && (s == "" || len(s) > 256 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || !unicode.IsPrint(r) })) {
		l.fail(n, CodeName, "it is the name of an export of the plugin, such as run or _start", "%s names no function", quoted(s))
		return ""
	}
	return s
}

var hostPattern = regexp.MustCompile(`^[a-z0-9._:*-]{1,255}$`)

// hosts reads one pattern or a list of them.
func (l *linter) hosts(n *node) []string {
	items := n.items
	if n.kind == scalarNode {
		items = []*node{n}
	} else if n.kind != listNode {
		l.fail(n, CodeType, "such as hosts: [api.example.com, '*.example.org']", "hosts is a list of host names")
		return nil
	}
	var out []string
	for _, it := range items {
		s, known, ok := l.static(it, "a host")
		if !ok {
			continue
		}
		if known && !hostPattern.MatchString(s) {
			help := "a name in lower case or an address, without scheme, port and path; * stands for any part"
			if u, err := url.Parse(s); err == nil && u.Hostname() != "" {
				if h := strings.ToLower(u.Hostname()); hostPattern.MatchString(h) {
					help = "did you mean " + h + "? " + help
				}
			} else if h := strings.ToLower(s); hostPattern.MatchString(h) {
				help = "did you mean " + h + "? " + help
			}
			l.fail(it, CodeName, help, "%s is no host name", quoted(s))
			continue
		}
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

var pluginPattern = regexp.MustCompile(`^(?:([a-z0-9][a-z0-9._-]{0,62})/)?([a-z0-9][a-z0-9._-]{0,62})(?:@(.+))?$`)

func (l *linter) pluginRef(n *node) (PluginRef, bool) {
	s, known, ok := l.static(n, "a plugin")
	if !ok {
		return PluginRef{}, false
	}
	if !known {
		return PluginRef{Path: s}, true
	}
	if path, isFile := strings.CutPrefix(s, "file:"); isFile || strings.HasPrefix(s, "./") || strings.HasPrefix(s, "../") || strings.HasPrefix(s, "/") {
		if strings.HasSuffix(path, ".wasm") {
			return PluginRef{Path: path}, true
		}
		l.fail(n, CodePluginRef, "", "a plugin's file ends with .wasm")
		return PluginRef{}, false
	}
	m := pluginPattern.FindStringSubmatch(s)
	help := "write ./FILE.wasm, NAME@RANGE or NAMESPACE/NAME@RANGE, such as acme/order-map@^1.2"
	switch {
	case strings.HasSuffix(s, ".wasm"):
		l.fail(n, CodePluginRef, "a local file begins with ./: write ./"+s, "%s names no plugin", quoted(s))
	case m == nil:
		l.fail(n, CodePluginRef, help, "%s names no plugin", quoted(s))
	default:
		ref := PluginRef{Namespace: m[1], Name: m[2], Range: m[3]}
		if ref.Namespace == "" {
			ref.Namespace = DefaultNamespace
		}
		if ref.Range == "" {
			ref.Range = "*"
		}
		if _, err := semver.NewConstraint(ref.Range); err != nil {
			l.fail(n, CodePluginRef, "ranges look like 1.2.3, ^1.2, ~1.2, >=1.2 <2 or *", "%s is no range of versions", quoted(ref.Range))
			return PluginRef{}, false
		}
		return ref, true
	}
	return PluginRef{}, false
}

// checkPlugin asks the resolver what a plugin is, and checks the stage, whose
// keys are given, against it.
func (l *linter) checkPlugin(at *node, keys map[string]*node, p *PluginStage) {
	if l.opts.Resolver == nil {
		return
	}
	if at.kind == mapNode {
		at = at.get("plugin")
	}
	info, err := l.opts.Resolver.Plugin(p.Ref)
	if err != nil {
		code, help := CodePlugin, ""
		if errors.Is(err, ErrPluginNotFound) {
			code, help = CodePluginNotFound, "deploy it: flowctl deploy PLUGIN.wasm, or name a local file: ./PLUGIN.wasm"
			if p.Ref.Path != "" {
				help = "build it, or correct the path; it is relative to this file"
			}
		}
		l.fail(at, code, help, "%s", oneLine(err))
		return
	}
	if p.Ref.Path != "" && l.in != nil {
		p.Ref.Namespace, p.Ref.Name, p.Ref.Range = info.Namespace, info.Name, "*"
	}
	l.checkFunction(at, keys, p, info)
	with := keys["with"]
	if p.Function == "" && (p.Lines != "" || p.Envelope) && info.Mode != "" && info.Mode != "lines" {
		l.fail(at, CodePlugin, "take `lines` and `envelope` away", "plugin %s is no program of lines", p.Ref)
	}
	for i, out := range info.Outputs {
		if i > 0 {
			l.warn(at, CodePluginOutput, "a record emitted to it fails; binding outputs is not supported yet", "plugin %s has an output `%s` that is bound to nothing", p.Ref, out)
		}
	}
	if p.Function == "" && info.TakesNoConfig && p.With != nil && string(p.With) != "{}" {
		l.fail(with, CodePluginConfig, "remove `with`", "plugin %s takes no configuration", info.Name)
		return
	}
	l.checkWith(at, with, p.With, info.Config)
}

// checkFunction holds `function` and `hosts` against what a plugin is.
func (l *linter) checkFunction(at *node, keys map[string]*node, p *PluginStage, info PluginInfo) {
	key := keys["function"]
	choose := "name one of those that it exports: " + strings.Join(info.Functions, ", ")
	switch {
	case p.Function != "" && info.Mode == "call":
		l.fail(key, CodePlugin, "take `function` away", "plugin %s is no Extism plugin: the host knows what to call", p.Ref)
		return
	case p.Function != "" && info.Mode != "" && !slices.Contains(info.Functions, p.Function):
		if near := expr.Nearest(p.Function, info.Functions); near != "" {
			choose = "did you mean `" + near + "`? " + choose
		}
		l.fail(key, CodePluginFunction, choose, "plugin %s has no function `%s` that can be called with a record", p.Ref, p.Function)
	case key == nil && info.Mode == "extism" && info.Function == "":
		if len(info.Functions) == 1 {
			choose = "write beside `map`: function: " + info.Functions[0]
		}
		l.fail(at, CodePluginFunction, choose, "plugin %s is an Extism plugin: the stage has to say which `function` to call", p.Ref)
	}
	switch hosts := keys["hosts"]; {
	case len(p.Hosts) == 0 || info.Mode == "":
	case p.Function == "" && info.Mode != "extism":
		l.fail(hosts, CodePlugin, "take `hosts` away", "plugin %s is no Extism plugin, and reaches no hosts", p.Ref)
	case !info.UsesHTTP:
		l.warn(hosts, CodePlugin, "take `hosts` away: it makes the stage impure, whose failures cannot be replayed", "plugin %s never asks for a host", p.Ref)
	}
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// with turns a YAML value into JSON, in the order of the document.
func (l *linter) with(n *node) json.RawMessage {
	if n.kind != mapNode {
		l.fail(n, CodeType, "such as { currency: CNY }", "with is a map of keys and values")
		return nil
	}
	b, ok := l.appendJSON(nil, n)
	if !ok {
		return nil
	}
	return b
}

func (l *linter) appendJSON(b []byte, n *node) ([]byte, bool) {
	good := true
	switch n.kind {
	case badNode:
		return b, false
	case nullNode:
		return append(b, "null"...), true
	case listNode:
		b = append(b, '[')
		for i, it := range n.items {
			if i > 0 {
				b = append(b, ',')
			}
			var ok bool
			b, ok = l.appendJSON(b, it)
			good = good && ok
		}
		return append(b, ']'), good
	case mapNode:
		if isSecret(n) {
			l.fail(n, CodeSecret, "plugins get no secrets", "a secret is not allowed here")
			return b, false
		}
		b = append(b, '{')
		for i, f := range n.fields {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(jsondoc.AppendString(b, f.key.text), ':')
			var ok bool
			b, ok = l.appendJSON(b, f.value)
			good = good && ok
		}
		return append(b, '}'), good
	}
	v, _, ok := l.scalar(n)
	if !ok {
		return b, false
	}
	b, err := jsondoc.Append(b, v)
	return b, err == nil
}

func (l *linter) builtinMap(key, n *node) *MapStage {
	m := &MapStage{}
	l.each(n, "map", "map", func(key, v *node) {
		switch key.text {
		case "set":
			l.pairs(v, "set", "set: { total: value.price * value.count }", func(path, value *node) {
				if e, ok := l.expression(value, "a value to set", false); ok {
					m.Set = append(m.Set, Assignment{Path: path.text, Expr: e})
				}
			})
		case "rename":
			l.pairs(v, "rename", "rename: { customer_id: customer }", func(path, value *node) {
				if l.path(value) {
					m.Rename = append(m.Rename, Renaming{From: path.text, To: value.text})
				}
			})
		case "drop":
			m.Drop = l.paths(v, "drop")
		case "keep":
			m.Keep = l.paths(v, "keep")
		}
	})
	if len(n.fields) == 0 {
		l.fail(key, CodeKeyMissing, "keys here: set, rename, drop, keep, or name a plugin", "the map does nothing")
	}
	return m
}

func (l *linter) pairs(n *node, what, example string, visit func(path, value *node)) {
	if n.kind != mapNode {
		l.fail(n, CodeType, "such as "+example, "%s is a map of paths", what)
		return
	}
	for _, f := range n.fields {
		if f.value.kind == nullNode {
			l.fail(f.key, CodeType, "such as "+example, "`%s` has no value", f.key.text)
			continue
		}
		if l.path(f.key) && f.value.kind != badNode {
			visit(f.key, f.value)
		}
	}
}

func (l *linter) paths(n *node, what string) []string {
	items := n.items
	if n.kind == scalarNode {
		items = []*node{n}
	} else if n.kind != listNode {
		l.fail(n, CodeType, "such as "+what+": [internal_note, customer.email]", "%s is a list of paths", what)
		return nil
	}
	var out []string
	for _, it := range items {
		if l.path(it) {
			out = append(out, it.text)
		}
	}
	return out
}

func (l *linter) path(n *node) bool {
	s, ok := l.text(n, "a path")
	if !ok {
		return false
	}
	if _, err := expr.ParsePath(s); err != nil {
		l.fail(n, CodePath, "paths look like customer.address.city; \\. is a dot in a key", "%v", err)
		return false
	}
	return true
}
