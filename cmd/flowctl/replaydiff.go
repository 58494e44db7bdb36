package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/cmd/internal/jsonvalue"
	"github.com/millrace-io/millrace/runtime/record"
)

// change is one difference between two outcomes.
type change struct {
	// Record is the number of the emission, from 0; -1: of the outcome.
	Record int `json:"record"`
	// Field is what differs: outcome, class, code, message, logs; record (one
	// side has no such emission); output, to, key, timestamp, headers.NAME;
	// value, or a path in it where both values are JSON.
	Field string `json:"field"`
	// Old and New are JSON; missing where a side has none.
	Old json.RawMessage `json:"old,omitempty"`
	New json.RawMessage `json:"new,omitempty"`
	// Input: Old is of the record's input, because the old outcome has no
	// such emission.
	Input bool `json:"input,omitempty"`
}

// compare lists how two outcomes for the record input differ. Fuel is no
// difference, every version uses its own.
func compare(old, now *outcome, input *record.Record) []change {
	d := &differ{record: -1}
	d.value("outcome", old.Outcome, now.Outcome)
	d.value("class", omitted(old.Class), omitted(now.Class))
	d.value("code", omitted(old.Code), omitted(now.Code))
	d.value("message", omitted(old.Message), omitted(now.Message))
	if !slices.Equal(old.Logs, now.Logs) {
		d.value("logs", list(old.Logs), list(now.Logs))
	}
	for i := range max(len(old.Records), len(now.Records)) {
		d.record = i
		switch {
		case i >= len(now.Records):
			d.value("record", old.Records[i].Output, nil)
		case i >= len(old.Records):
			d.value("record", nil, now.Records[i].Output)
			d.input = true
			d.records(input, &now.Records[i].record)
			d.input = false
		default:
			a, b := &old.Records[i], &now.Records[i]
			d.value("output", a.Output, b.Output)
			d.value("to", omittedPointer(a.To), omittedPointer(b.To))
			d.records(&a.record, &b.record)
		}
	}
	return d.changes
}

// omitted is nil for a zero value.
func omitted[T comparable](v T) any {
	var zero T
	if v == zero {
		return nil
	}
	return v
}

func omittedPointer(p *int32) any {
	if p == nil {
		return nil
	}
	return *p
}

func list(s []string) any {
	if len(s) == 0 {
		return nil
	}
	return s
}

type differ struct {
	record  int
	input   bool
	changes []change
}

// value notes a difference; nil is a side that has none.
func (d *differ) value(field string, old, now any) {
	a, b := text(old), text(now)
	if !bytes.Equal(a, b) {
		d.changes = append(d.changes, change{Record: d.record, Field: field, Old: a, New: b, Input: d.input})
	}
}

// text is v as JSON, nil for nil.
func text(v any) json.RawMessage {
	if v == nil {
		return nil
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil // of the types that are compared none can fail
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}

func (d *differ) records(a, b *record.Record) {
	if !sameBytes(a.Key, b.Key) {
		d.value("key", record.Text(a.Key), record.Text(b.Key))
	}
	d.headers(a.Headers, b.Headers)
	d.value("timestamp", a.Timestamp, b.Timestamp)
	if sameBytes(a.Value, b.Value) {
		return
	}
	x, okX := jsonvalue.Document(a.Value)
	y, okY := jsonvalue.Document(b.Value)
	if before := len(d.changes); okX && okY {
		d.json("value", x, y)
		if len(d.changes) > before {
			return
		}
		// The same document, written otherwise.
	}
	d.value("value", record.Text(a.Value), record.Text(b.Value))
}

// sameBytes keeps null apart from empty.
func sameBytes(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }

// missing stands for what one side does not have.
type missing struct{}

func (d *differ) json(path string, a, b any) {
	switch x := a.(type) {
	case map[string]any:
		if y, ok := b.(map[string]any); ok {
			names := maps.Clone(x)
			maps.Copy(names, y)
			for _, name := range slices.Sorted(maps.Keys(names)) {
				d.json(path+member(name), lookup(x, name), lookup(y, name))
			}
			return
		}
	case []any:
		if y, ok := b.([]any); ok {
			for i := range max(len(x), len(y)) {
				d.json(path+"["+strconv.Itoa(i)+"]", element(x, i), element(y, i))
			}
			return
		}
	}
	d.value(path, present(a), present(b))
}

func lookup(m map[string]any, name string) any {
	if v, ok := m[name]; ok {
		return v
	}
	return missing{}
}

func element(l []any, i int) any {
	if i < len(l) {
		return l[i]
	}
	return missing{}
}

// present keeps a null of a document apart from what is not there.
func present(v any) any {
	switch v.(type) {
	case missing:
		return nil
	case nil:
		return json.RawMessage("null")
	}
	return v
}

// member is .name, or ["name"] for one that is no plain word.
func member(name string) string {
	plain := func(r rune) bool {
		return r == '_' || r == '-' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r > 127
	}
	if name != "" && strings.IndexFunc(name, func(r rune) bool { return !plain(r) }) < 0 {
		return "." + name
	}
	return "[" + string(text(name)) + "]"
}

// headers compares them by name, and their order if nothing else differs.
func (d *differ) headers(a, b []record.Header) {
	same := slices.EqualFunc(a, b, func(x, y record.Header) bool { return x.Key == y.Key && sameBytes(x.Value, y.Value) })
	if same {
		return
	}
	before := len(d.changes)
	of := func(hs []record.Header) (map[string][]record.Text, []string) {
		values, names := map[string][]record.Text{}, []string{}
		for _, h := range hs {
			values[h.Key], names = append(values[h.Key], h.Value), append(names, h.Key)
		}
		return values, names
	}
	x, xNames := of(a)
	y, yNames := of(b)
	all := maps.Clone(x)
	maps.Copy(all, y)
	side := func(values []record.Text) any {
		switch len(values) {
		case 0:
			return nil
		case 1:
			return values[0]
		}
		return values
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		d.value("headers"+member(name), side(x[name]), side(y[name]))
	}
	if len(d.changes) == before {
		d.value("headers (order)", xNames, yNames)
	}
}
