package flow

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/Masterminds/semver/v3"

	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/expr/jsondoc"
)

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
			l.pluginLimits(v, &plugin)
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
		if info, ok := l.checkPlugin(n.get("map"), keys, &plugin); ok && info.Signs {
			l.fail(n.get("map"), CodePlugin, "name it in `sign` of a delivery, with its keys", "plugin %s signs requests, and a stage has no keys", plugin.Ref)
		}
	}
	s.Plugin = &plugin
}

func (l *linter) pluginLimits(n *node, p *PluginStage) {
	l.each(n, "stage.limits", "limits", func(key, v *node) {
		if key.text == "fuel" {
			p.Fuel, _ = l.integer(v, "fuel", 1, 1<<40)
			return
		}
		p.MemoryBytes, _ = l.size(v, "memory", 64<<10, 4<<30)
	})
}

// pluginPart reads a plugin that is a part of a delivery, which is one of
// stage/1. at names it; keys are those beside it.
func (l *linter) pluginPart(verb string, at *node, keys map[string]*node, p *PluginStage) {
	p.Isolation = "batch"
	var ok bool
	if p.Ref, ok = l.pluginRef(at); !ok {
		return
	}
	info, ok := l.checkPlugin(at, keys, p)
	if !ok {
		return
	}
	if info.Mode != "" && info.Mode != "call" {
		l.fail(at, CodePlugin, "build it with a PDK", "plugin %s is not one of stage/1, and only those can %s", p.Ref, verb)
		return
	}
	switch {
	case verb == "sign" && info.Signs && keys["keys"] == nil:
		l.fail(at, CodePlugin, "write { plugin: "+p.Ref.String()+", keys: { NAME: { secret: SECRET } } }", "plugin %s signs with keys, and is given none", p.Ref)
	case verb != "sign" && info.Signs:
		l.fail(at, CodePlugin, "name it in `sign`, with its keys", "plugin %s signs requests, and `%s` has no keys", p.Ref, verb)
	}
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
// keys are given, against it. It reports false if the plugin is not known.
func (l *linter) checkPlugin(at *node, keys map[string]*node, p *PluginStage) (PluginInfo, bool) {
	if l.opts.Resolver == nil {
		return PluginInfo{}, false
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
		return PluginInfo{}, false
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
		return info, true
	}
	l.checkWith(at, with, p.With, info.Config)
	return info, true
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
