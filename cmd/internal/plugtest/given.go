package plugtest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"strconv"
	"time"

	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

var givenKeys = []string{"value", "text", "base64", "key", "headers", "topic", "partition", "offset", "timestamp"}

// given reads the records of a case: one, a list, or the name of a file with a
// value a line.
func (r *reader) given(c *testCase, v *flow.Value) {
	switch v.Kind {
	case flow.TextValue:
		b, err := os.ReadFile(r.f.path(v.Text))
		if err != nil {
			r.fail(v, flow.CodeValue, "name a file with one value a line, or write a record: { value: ... }", "%s: %v", v.Text, pathless(err))
			return
		}
		for line := range bytes.Lines(b) {
			if line = bytes.TrimRight(line, "\r\n"); len(line) > 0 {
				c.given = append(c.given, r.blank(line))
			}
		}
	case flow.ListValue:
		for _, it := range v.Items {
			c.given = append(c.given, r.givenRecord(it))
		}
	default:
		c.single = true
		c.given = append(c.given, r.givenRecord(v))
	}
	c.single = c.single || len(c.given) == 1
	if len(c.given) == 0 || len(c.given) > maxGiven {
		r.fail(v, flow.CodeValue, "make several cases of it", "a case has 1 to %d records, not %d", maxGiven, len(c.given))
	}
	next := map[record.Partition]int64{}
	for i := range c.given {
		g := &c.given[i]
		p := record.Partition{Topic: g.Topic, Num: g.Partition}
		if g.Offset < next[p] {
			g.Offset = next[p]
		}
		next[p] = g.Offset + 1
	}
}

// blank is a record that brings nothing but its value.
func (r *reader) blank(value []byte) record.Record {
	return record.Record{Value: value, Timestamp: r.f.now.UnixMilli(), Attempt: 1, To: -1}
}

func (r *reader) givenRecord(v *flow.Value) record.Record {
	rec := r.blank(nil)
	if !r.object(v, "a record", givenKeys) {
		return rec
	}
	payload := r.payload(v)
	if payload == nil {
		r.fail(v, flow.CodeKeyMissing, "add value: (any JSON or YAML), text: or base64:", "the record has no value")
		return rec
	}
	rec.Value = payload.bytes
	if k := v.Get("key"); k != nil && k.Kind != flow.NullValue {
		rec.Key = []byte(r.text(k, "key"))
	}
	if h := v.Get("headers"); h != nil {
		rec.Headers = r.headers(h)
	}
	if t := v.Get("topic"); t != nil {
		rec.Topic = r.text(t, "topic")
	}
	if p := v.Get("partition"); p != nil {
		rec.Partition = int32(r.number(p, "partition"))
	}
	if o := v.Get("offset"); o != nil {
		rec.Offset = r.number(o, "offset")
	}
	if t := v.Get("timestamp"); t != nil {
		rec.Timestamp = r.timestamp(t)
	}
	return rec
}

// payload is a value as it is given or expected.
type payload struct {
	at flow.Pos
	// bytes are the value; nil is null.
	bytes []byte
	// json: it is compared as JSON, and not by its bytes.
	json bool
	form string // value, text or base64
}

// payload reads the one of value, text and base64 that is there; nil if none
// is.
func (r *reader) payload(v *flow.Value) *payload {
	var out *payload
	for i := range v.Fields {
		f := &v.Fields[i]
		p := &payload{at: f.Pos, form: f.Key}
		switch f.Key {
		case "value":
			if f.Value.Kind != flow.NullValue {
				p.bytes, p.json = r.json(f.Value), true
			}
		case "text":
			p.bytes = []byte(r.text(f.Value, "text"))
		case "base64":
			b, err := base64.StdEncoding.DecodeString(r.text(f.Value, "base64"))
			if err != nil {
				r.fail(f.Value, flow.CodeValue, "encode the bytes with the standard alphabet", "this is not base64")
			}
			p.bytes = append([]byte{}, b...)
		default:
			continue
		}
		if out != nil {
			r.Report(flow.CodeKeyUnknown, f.Pos, f.End, "`"+out.form+"` says the value already", "keep one of value, text and base64")
			continue
		}
		out = p
	}
	return out
}

// headers are a map of names and texts, or a list of { key, value } where names
// repeat.
func (r *reader) headers(v *flow.Value) []record.Header {
	var out []record.Header
	header := func(name string, value *flow.Value) {
		h := record.Header{Key: name}
		if value != nil && value.Kind != flow.NullValue {
			h.Value = []byte(r.text(value, "header "+name))
		}
		out = append(out, h)
	}
	switch v.Kind {
	case flow.MapValue:
		for _, f := range v.Fields {
			header(f.Key, f.Value)
		}
	case flow.ListValue:
		for _, it := range v.Items {
			if r.object(it, "a header", []string{"key", "value"}) && it.Get("key") != nil {
				header(r.text(it.Get("key"), "key"), it.Get("value"))
			}
		}
	default:
		r.fail(v, flow.CodeType, "write headers: { name: value }", "headers are a map, not %s", v.Kind)
	}
	return out
}

func (r *reader) number(v *flow.Value, what string) int64 {
	n, err := strconv.ParseInt(v.Text, 10, 64)
	if err != nil || v.Kind != flow.IntValue {
		r.fail(v, flow.CodeType, "write "+what+": 1", "%s is a whole number", what)
	}
	return n
}

// timestamp is a time in RFC 3339, or in Unix milliseconds.
func (r *reader) timestamp(v *flow.Value) int64 {
	if v.Kind == flow.IntValue {
		return r.number(v, "timestamp")
	}
	t, err := time.Parse(time.RFC3339, r.text(v, "timestamp"))
	if err != nil {
		r.fail(v, flow.CodeValue, "write 2026-01-01T00:00:00Z, or milliseconds since 1970", "this is no time")
	}
	return t.UnixMilli()
}

// json is a value as compact JSON, keys in the order of the file and numbers as
// they are written.
func (r *reader) json(v *flow.Value) json.RawMessage {
	var b bytes.Buffer
	r.writeJSON(&b, v)
	return b.Bytes()
}

func (r *reader) writeJSON(b *bytes.Buffer, v *flow.Value) {
	switch v.Kind {
	case flow.NullValue:
		b.WriteString("null")
	case flow.BoolValue:
		b.WriteString(map[bool]string{true: "true", false: "false"}[v.Text == "true" || v.Text == "True" || v.Text == "TRUE"])
	case flow.IntValue, flow.FloatValue:
		if !json.Valid([]byte(v.Text)) {
			r.fail(v, flow.CodeValue, "write it as JSON has it, or quote it if it is a text", "%s is no JSON number", v.Text)
		}
		b.WriteString(v.Text)
	case flow.TextValue:
		b.Write(quoted(v.Text))
	case flow.ListValue:
		b.WriteByte('[')
		for i, it := range v.Items {
			if i > 0 {
				b.WriteByte(',')
			}
			r.writeJSON(b, it)
		}
		b.WriteByte(']')
	case flow.MapValue:
		b.WriteByte('{')
		for i, f := range v.Fields {
			if i > 0 {
				b.WriteByte(',')
			}
			b.Write(quoted(f.Key))
			b.WriteByte(':')
			r.writeJSON(b, f.Value)
		}
		b.WriteByte('}')
	}
}

// quoted is a text as JSON, without the escapes that are for HTML.
func quoted(s string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string always can be
	return bytes.TrimRight(b.Bytes(), "\n")
}
