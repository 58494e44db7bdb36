package preflight

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/cmd/internal/jsonvalue"
)

// stars stand for what is not shown.
const stars = "***"

// hiddenWords mark names whose values are not shown: those by which deliveries
// keep headers and parameters out of failure entries.
var hiddenWords = []string{"authorization", "cookie", "token", "secret", "password", "api-key", "api_key", "apikey", "access_key", "credential", "signature"}

// hidden reports whether the value of a member or a header is not shown.
func hidden(name string) bool {
	name = strings.ToLower(name)
	return slices.ContainsFunc(hiddenWords, func(w string) bool { return strings.Contains(name, w) })
}

// values compares two values that are not the same bytes.
func (c *Comparison) values(a, b []byte) {
	x, okX := document(a)
	y, okY := document(b)
	if !okX || !okY {
		c.note(presence(a != nil, b != nil), "(value)", "", valueShown(a), valueShown(b))
		return
	}
	d := &differ{c: c}
	d.compare("", x, y, false)
	if !d.found {
		c.note("~", "(text)", "", digest(a), digest(b))
	}
}

func valueShown(b []byte) string {
	if b == nil {
		return "null"
	}
	return digest(b)
}

// document is a value that is a JSON object or array, and not too large to be
// looked into. Its numbers are texts: 12.0 is not 12.
func document(b []byte) (any, bool) {
	if len(b) > maxValue {
		return nil, false
	}
	return jsonvalue.Document(b)
}

// differ walks through two JSON values.
type differ struct {
	c     *Comparison
	found bool
}

func (d *differ) note(kind, path string, old, now any, secret bool) {
	d.found = true
	if path == "" {
		path = "(value)"
	}
	a, b := shownJSON(old, secret), shownJSON(now, secret)
	switch kind {
	case "+":
		a = ""
	case "-":
		b = ""
	}
	d.c.note(kind, path, "", a, b)
}

func (d *differ) compare(path string, a, b any, secret bool) {
	switch x := a.(type) {
	case map[string]any:
		if y, ok := b.(map[string]any); ok {
			d.objects(path, x, y, secret)
			return
		}
	case []any:
		if y, ok := b.([]any); ok {
			d.arrays(path, x, y, secret)
			return
		}
	default:
		if _, nested := b.(map[string]any); !nested {
			if _, nested := b.([]any); !nested && a == b {
				return
			}
		}
	}
	d.note("~", path, a, b, secret)
}

func (d *differ) objects(path string, x, y map[string]any, secret bool) {
	names := maps.Clone(x)
	maps.Copy(names, y)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		at, dark := below(path, member(name)), secret || hidden(name)
		a, had := x[name]
		b, has := y[name]
		switch {
		case !had:
			d.note("+", at, nil, b, dark)
		case !has:
			d.note("-", at, a, nil, dark)
		default:
			d.compare(at, a, b, dark)
		}
	}
}

func (d *differ) arrays(path string, x, y []any, secret bool) {
	path = below(path, "[]")
	for i := range max(len(x), len(y)) {
		switch {
		case i >= len(x):
			d.note("+", path, nil, y[i], secret)
		case i >= len(y):
			d.note("-", path, x[i], nil, secret)
		default:
			d.compare(path, x[i], y[i], secret)
		}
	}
}

// below is the path of a part of what is at path. It is cut at once: the names
// of a value would else be copied for all that lies below them.
func below(path, part string) string {
	if path == "" {
		part = strings.TrimPrefix(part, ".")
	}
	return cut(path+part, maxPath)
}

// member is .name, or ["name"] for one that is no plain word.
func member(name string) string {
	plain := func(r rune) bool {
		return r == '_' || r == '-' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r > 0xa0
	}
	if name != "" && strings.IndexFunc(name, func(r rune) bool { return !plain(r) }) < 0 {
		return "." + cut(name, maxPath)
	}
	return "[" + strconv.Quote(cut(name, maxPath)) + "]"
}

// shownJSON is a JSON value in an example: a nested one by its size.
func shownJSON(v any, secret bool) string {
	if secret {
		return stars
	}
	switch v := v.(type) {
	case map[string]any:
		return fmt.Sprintf("{%s}", counted(len(v), "member"))
	case []any:
		return fmt.Sprintf("[%s]", counted(len(v), "element"))
	case json.Number:
		return text(v.String())
	case string:
		return cut(strconv.Quote(cut(v, maxText)), maxText)
	case bool:
		return strconv.FormatBool(v)
	}
	return "null"
}

func counted(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + one + "s"
}
