package plugtest

import (
	"bytes"
	"encoding/json"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// node is YAML to be written: a scalar, fields or nodes.
type node any

// scalar is written as it is.
type scalar string

// fields are a map in an order.
type fields []field

type field struct {
	key  string
	node node
}

// nodes are a list.
type nodes []node

// wide is how long a line may be that holds a whole value.
const wide = 110

// render writes a value: the first line begins with first, further ones with
// indent.
func render(n node, first, indent string) []string {
	switch n := n.(type) {
	case fields:
		if len(n) == 0 {
			break
		}
		var out []string
		for i, f := range n {
			if i > 0 {
				first = indent
			}
			out = append(out, renderField(f, first, indent)...)
		}
		return out
	case nodes:
		if len(n) == 0 {
			break
		}
		var out []string
		for i, it := range n {
			if i > 0 {
				first = indent
			}
			if line := first + "- " + inline(it); utf8.RuneCountInString(line) <= wide || !splits(it) {
				out = append(out, unbrace(first+"- ", it))
				continue
			}
			out = append(out, render(it, first+"- ", indent+"  ")...)
		}
		return out
	}
	return []string{first + inline(n)}
}

// unbrace writes a map of one field without its braces.
func unbrace(first string, n node) string {
	if f, ok := n.(fields); ok && len(f) == 1 {
		return first + key(f[0].key) + ": " + inline(f[0].node)
	}
	return first + inline(n)
}

func renderField(f field, first, indent string) []string {
	line := first + key(f.key) + ": " + inline(f.node)
	items, _ := f.node.(nodes)
	if utf8.RuneCountInString(line) <= wide && !slices.ContainsFunc(items, splits) || !splits(f.node) {
		return []string{line}
	}
	return append([]string{first + key(f.key) + ":"}, render(f.node, indent+"  ", indent+"  ")...)
}

// splits reports whether a value can be written in several lines.
func splits(n node) bool {
	switch n := n.(type) {
	case fields:
		return len(n) > 0
	case nodes:
		return len(n) > 0
	}
	return false
}

// inline writes a value in one line.
func inline(n node) string {
	switch n := n.(type) {
	case fields:
		parts := make([]string, len(n))
		for i, f := range n {
			parts[i] = key(f.key) + ": " + inline(f.node)
		}
		if len(parts) == 0 {
			return "{}"
		}
		return "{ " + strings.Join(parts, ", ") + " }"
	case nodes:
		parts := make([]string, len(n))
		for i, it := range n {
			parts[i] = inline(it)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	return string(n.(scalar))
}

// plain are texts that need no quotes, wherever they stand: words.
var plain = regexp.MustCompile(`^[A-Za-z_/][A-Za-z0-9_./-]*( [A-Za-z0-9_./][A-Za-z0-9_./-]*)*$`)

var reserved = []string{"true", "false", "null", "yes", "no", "on", "off", "nan", "inf"}

func key(s string) string { return string(text(s)) }

// text is a text as a scalar.
func text(s string) scalar {
	if plain.MatchString(s) && !slices.Contains(reserved, strings.ToLower(s)) {
		return scalar(s)
	}
	return scalar(quoted(s))
}

// jsonNode is a JSON value, keys in their order.
func jsonNode(b []byte) node {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	n, err := decodeNode(dec)
	if err != nil {
		return scalar("null") // document has read it
	}
	return n
}

func decodeNode(dec *json.Decoder) (node, error) {
	t, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch t := t.(type) {
	case json.Delim:
		if t == '[' {
			out := nodes{}
			for dec.More() {
				n, err := decodeNode(dec)
				if err != nil {
					return nil, err
				}
				out = append(out, n)
			}
			_, err := dec.Token()
			return out, err
		}
		out := fields{}
		for dec.More() {
			k, err := dec.Token()
			if err != nil {
				return nil, err
			}
			name, ok := k.(string)
			if !ok {
				return nil, io.ErrUnexpectedEOF
			}
			n, err := decodeNode(dec)
			if err != nil {
				return nil, err
			}
			out = append(out, field{name, n})
		}
		_, err := dec.Token()
		return out, err
	case string:
		return text(t), nil
	case json.Number:
		return scalar(t.String()), nil
	case bool:
		return scalar(strconv.FormatBool(t)), nil
	}
	return scalar("null"), nil
}
