package plugtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/millrace-io/millrace/cmd/internal/jsonvalue"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

// payload compares a value: as JSON where it is expected as such.
func (c *comparison) payload(path string, w *payload, value []byte) {
	if same(w.bytes, value) {
		return
	}
	if w.json && value != nil {
		want, _ := jsonvalue.Decode(w.bytes)
		if got, ok := jsonvalue.Decode(value); ok && uniqueKeys(value) {
			c.json(w.at, path, want, got, true)
			return
		}
	}
	c.differ(w.at, path, shown(w.bytes), shown(value))
}

// has compares the fields that are named.
func (c *comparison) has(path string, at flow.Pos, want, value []byte) {
	w, _ := jsonvalue.Decode(want)
	g, ok := jsonvalue.Decode(value)
	if !ok || !uniqueKeys(value) {
		c.differ(at, path, string(want), shown(value))
		return
	}
	c.json(at, path, w, g, false)
}

// json compares two JSON values; whole: neither has fields that the other has
// not, else only the first may not.
func (c *comparison) json(at flow.Pos, path string, want, got any, whole bool) {
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			break
		}
		for _, k := range slices.Sorted(maps.Keys(union(w, g))) {
			a, inWant := w[k]
			b, inGot := g[k]
			p := path + "." + k
			switch {
			case inWant && inGot:
				c.json(at, p, a, b, whole)
			case inWant:
				c.differ(at, p, compact(a), "")
			case whole:
				c.differ(at, p, "", compact(b))
			}
		}
		return
	case []any:
		g, ok := got.([]any)
		if !ok {
			break
		}
		for i := range max(len(w), len(g)) {
			p := fmt.Sprintf("%s[%d]", path, i)
			switch {
			case i < len(w) && i < len(g):
				c.json(at, p, w[i], g[i], whole)
			case i < len(w):
				c.differ(at, p, compact(w[i]), "")
			default:
				c.differ(at, p, "", compact(g[i]))
			}
		}
		return
	case json.Number:
		if g, ok := got.(json.Number); ok && sameNumber(w, g) {
			return
		}
	default:
		if want == got {
			return
		}
	}
	c.differ(at, path, compact(want), compact(got))
}

func union(a, b map[string]any) map[string]any {
	out := maps.Clone(a)
	if out == nil {
		out = map[string]any{}
	}
	maps.Copy(out, b)
	return out
}

// maxExponent bounds the numbers that are compared by value: others are by
// their text.
const maxExponent = 400

// sameNumber compares numbers by value: 1 is 1.0, 0.1 is not 0.1000000001.
func sameNumber(a, b json.Number) bool {
	if a == b {
		return true
	}
	for _, n := range []json.Number{a, b} {
		if _, exp, ok := strings.Cut(strings.ToLower(n.String()), "e"); ok {
			if e, err := strconv.Atoi(exp); err != nil || e > maxExponent || e < -maxExponent {
				return false
			}
		}
	}
	x, okX := new(big.Rat).SetString(a.String())
	y, okY := new(big.Rat).SetString(b.String())
	return okX && okY && x.Cmp(y) == 0
}

// same keeps null apart from empty.
func same(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }

// compact is a value as JSON.
func compact(v any) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // what was decoded can be encoded
	return strings.TrimRight(b.String(), "\n")
}

// shown is a byte string in a message: null, its text, or its base64.
func shown(b []byte) string {
	switch {
	case b == nil:
		return "null"
	case !utf8.Valid(b):
		t, _ := record.Text(b).MarshalJSON()
		return string(t)
	case len(b) == 0:
		return `""`
	}
	return string(b)
}
