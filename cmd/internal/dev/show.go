package dev

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/runtime/record"
)

// Bounds of what is shown of one record.
const (
	maxValueShown  = 40  // characters of one value
	maxRecordShown = 200 // characters of one record's differences
	maxEmitsShown  = 5
	maxLogsShown   = 10 // lines of a call that failed
)

// member is a field of a JSON object, in the order of its text.
type member struct {
	name  string
	value json.RawMessage
}

// members reads a JSON object; false if b is none.
func members(b []byte) ([]member, bool) {
	dec := json.NewDecoder(bytes.NewReader(b))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, false
	}
	var out []member
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, false
		}
		m := member{name: name.(string)}
		if dec.Decode(&m.value) != nil {
			return nil, false
		}
		out = append(out, m)
	}
	if _, err := dec.Token(); err != nil {
		return nil, false
	}
	_, err := dec.Token()
	return out, err == io.EOF
}

func find(ms []member, name string) (json.RawMessage, bool) {
	for _, m := range ms {
		if m.name == name {
			return m.value, true
		}
	}
	return nil, false
}

// change is one difference between a record and what became of it.
type change struct {
	kind rune // + - ~
	text string
}

// changes lists how out differs from in: fields of JSON objects by path, other
// values whole, key and headers.
func changes(in, out *record.Record) []change {
	var cs []change
	if !sameBytes(in.Key, out.Key) {
		cs = append(cs, change{'~', fmt.Sprintf("key %s -> %s", text(in.Key), text(out.Key))})
	}
	cs = headerChanges(cs, in.Headers, out.Headers)
	if sameBytes(in.Value, out.Value) {
		return cs
	}
	a, okA := members(in.Value)
	b, okB := members(out.Value)
	if !okA || !okB {
		return append(cs, change{'~', fmt.Sprintf("%s -> %s", text(in.Value), text(out.Value))})
	}
	before := len(cs)
	if cs = fieldChanges(cs, "", a, b); len(cs) == before {
		cs = append(cs, change{'~', "the same fields, written otherwise"})
	}
	return cs
}

func fieldChanges(cs []change, path string, a, b []member) []change {
	for _, m := range a {
		at := path + m.name
		now, ok := find(b, m.name)
		if !ok {
			cs = append(cs, change{'-', cli.Safe(at)})
			continue
		}
		x, y := compact(m.value), compact(now)
		if bytes.Equal(x, y) {
			continue
		}
		inner, okX := members(x)
		other, okY := members(y)
		if okX && okY {
			cs = fieldChanges(cs, at+".", inner, other)
			continue
		}
		cs = append(cs, change{'~', fmt.Sprintf("%s %s -> %s", cli.Safe(at), text(x), text(y))})
	}
	for _, m := range b {
		if _, ok := find(a, m.name); !ok {
			cs = append(cs, change{'+', fmt.Sprintf("%s %s", cli.Safe(path+m.name), text(compact(m.value)))})
		}
	}
	return cs
}

func headerChanges(cs []change, a, b []record.Header) []change {
	of := func(hs []record.Header, key string) (all [][]byte) {
		for _, h := range hs {
			if h.Key == key {
				all = append(all, h.Value)
			}
		}
		return all
	}
	seen := map[string]bool{}
	for _, h := range append(append([]record.Header{}, a...), b...) {
		if seen[h.Key] {
			continue
		}
		seen[h.Key] = true
		was, is := of(a, h.Key), of(b, h.Key)
		name := "header " + cli.Safe(h.Key)
		switch {
		case len(is) == 0:
			cs = append(cs, change{'-', name})
		case len(was) == 0:
			cs = append(cs, change{'+', name + " " + text(is[len(is)-1])})
		case !bytes.Equal(bytes.Join(was, []byte{0}), bytes.Join(is, []byte{0})):
			cs = append(cs, change{'~', fmt.Sprintf("%s %s -> %s", name, text(was[len(was)-1]), text(is[len(is)-1]))})
		}
	}
	return cs
}

// sameBytes keeps null apart from empty.
func sameBytes(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }

// compact is a JSON value without spaces between its parts.
func compact(v json.RawMessage) []byte {
	var b bytes.Buffer
	if json.Compact(&b, v) != nil {
		return v
	}
	return b.Bytes()
}

// text is a value in one short line.
func text(b []byte) string {
	if b == nil {
		return "null"
	}
	return cli.Shorten(cli.Safe(string(b)), maxValueShown)
}

// title names a record by what it says about itself: its key, else the first
// field that is an id, else its first plain field, else its value.
func title(r *record.Record) string {
	if len(r.Key) > 0 {
		return "{key:" + text(r.Key) + "}"
	}
	ms, ok := members(r.Value)
	if !ok {
		return "{" + text(r.Value) + "}"
	}
	best := -1
	for i, m := range ms {
		if plain := len(m.value) > 0 && m.value[0] != '{' && m.value[0] != '['; !plain {
			continue
		}
		name := strings.ToLower(m.name)
		if name == "id" || strings.HasSuffix(name, "_id") || strings.HasSuffix(m.name, "Id") {
			best = i
			break
		}
		if best < 0 {
			best = i
		}
	}
	if best < 0 {
		return "{" + text(r.Value) + "}"
	}
	return "{" + cli.Safe(ms[best].name) + ":" + strings.Trim(text(ms[best].value), `"`) + "}"
}

// place is a record's id without what all records of a topic with one
// partition have in common.
func place(r *record.Record) string {
	id := strings.TrimPrefix(r.ID(), r.Topic+"/")
	return cli.Safe(strings.TrimPrefix(id, "0/"))
}

// emitted shows how out differs from in.
func (p paint) emitted(in, out *record.Record) string {
	cs := changes(in, out)
	if len(cs) == 0 {
		return p.dim("= unchanged")
	}
	var b strings.Builder
	width := 0
	for i, c := range cs {
		if width += len(c.text) + 4; i > 0 && width > maxRecordShown {
			fmt.Fprintf(&b, ", and %d more", len(cs)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		sign := string(c.kind) + " "
		switch c.kind {
		case '+':
			b.WriteString(p.green(sign + c.text))
		case '-':
			b.WriteString(p.red(sign + c.text))
		default:
			b.WriteString(p.yellow(sign + c.text))
		}
	}
	return b.String()
}

// paint colours text, if it is true.
type paint bool

func (p paint) with(code, s string) string {
	if !p {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p paint) dim(s string) string    { return p.with("2", s) }
func (p paint) red(s string) string    { return p.with("31", s) }
func (p paint) green(s string) string  { return p.with("32", s) }
func (p paint) yellow(s string) string { return p.with("33", s) }
