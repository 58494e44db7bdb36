package flow

import (
	"regexp"

	"github.com/millrace-io/millrace/runtime/expr"
)

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

func (l *linter) cleanupStage(n *node, id string, s *Stage) {
	s.Cleanup = &Cleanup{}
	l.stageKeys(n, "cleanup", id, func(key, v *node) {
		if key.text != "cleanup" {
			return
		}
		if !l.each(v, "cleanup", "cleanup", func(key, v *node) {
			if key.text == "drop" {
				s.Cleanup.Drop = l.paths(v, "drop")
			} else {
				s.Cleanup.DropHeaders = l.headerPatterns(v)
			}
		}) {
			return
		}
		if len(v.fields) == 0 {
			l.fail(key, CodeKeyMissing, exampleOf("cleanup"), "the cleanup does nothing")
		}
	})
}

// headerGlob is a name of a header as records have them, with * for any part.
var headerGlob = regexp.MustCompile(`^[\x21-\x7e]{1,256}$`)

func (l *linter) headerPatterns(n *node) []string {
	return l.texts(n, "drop_headers", `drop_headers: [x-debug, "tmp_*"]`, func(at *node, s string, known bool) bool {
		if !known || headerGlob.MatchString(s) {
			return true
		}
		l.fail(at, CodeName, "names of visible characters, in which * stands for any part", "%s names no header", quoted(s))
		return false
	})
}
