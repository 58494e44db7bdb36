package rocketmq

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/millrace-io/millrace/runtime/record"
)

// TagHeader is the header that a message's tag becomes, and is made of.
const TagHeader = "rocketmq.tag"

// exact is the property MILLRACE: what of a record the message itself cannot
// say. Messages of other producers have none.
type exact struct {
	// Key is the record's key as text, Key64 one that is no text; neither:
	// the record has none.
	Key   *string `json:"key,omitempty"`
	Key64 []byte  `json:"key64,omitempty"`
	// Null says that the value is null, which a body cannot be.
	Null bool `json:"null,omitempty"`
	// Time is the record's timestamp, Unix milliseconds.
	Time int64 `json:"time,omitempty"`
	// Headers are all headers in their order; nil: they are the properties in
	// the order of their names.
	Headers []exactHeader `json:"headers,omitempty"`
}

// exactHeader is a header. Without a value it is the property's.
type exactHeader struct {
	Name    string  `json:"n"`
	Name64  []byte  `json:"n64,omitempty"`
	Value   *string `json:"v,omitempty"`
	Value64 []byte  `json:"v64,omitempty"`
	Null    bool    `json:"null,omitempty"`
}

// outgoing is a record as it is sent.
type outgoing struct {
	body       []byte
	properties string
}

// toMessage makes a message of a record. tag, if not empty, takes the place of
// the record's header; idempotency may be empty. The error's class is too_large
// or rejected.
func toMessage(r *record.Record, tag, idempotency string, delay int) (outgoing, error) {
	e := exact{Null: r.Value == nil, Time: r.Timestamp}
	var keys []string
	if r.Key != nil {
		if k := string(r.Key); utf8.ValidString(k) {
			e.Key = &k
			if isText(k) {
				keys = append(keys, k)
			}
		} else {
			e.Key64 = r.Key
		}
	}
	if idempotency != "" {
		if !isText(idempotency) {
			return outgoing{}, record.Errorf(record.Rejected, "idempotency key %q cannot be a key of a message", idempotency)
		}
		keys = append(keys, strings.ReplaceAll(idempotency, " ", "%20")) // of a file's path, for instance
	}
	b := make([]byte, 0, 256)
	if len(keys) > 0 {
		b = appendProperty(b, propKeys, strings.Join(keys, " "))
	}
	hs := r.Headers
	if tag != "" {
		if !isTag(tag) {
			return outgoing{}, record.Errorf(record.Rejected, "tag %q cannot be a message's: it is text without || and without spaces around it", tag)
		}
		hs = slices.DeleteFunc(slices.Clone(hs), func(h record.Header) bool { return h.Key == TagHeader })
		hs = append(hs, record.Header{Key: TagHeader, Value: []byte(tag)})
	}
	b = appendHeaders(b, &e, hs)
	if delay > 0 {
		b = appendProperty(b, propDelay, strconv.Itoa(delay))
	}
	j, err := json.Marshal(e)
	if err != nil {
		return outgoing{}, record.Errorf(record.Internal, "message of record %s: %w", r.ID(), err)
	}
	b = appendProperty(b, propExact, string(j))
	if len(b) > maxProperties {
		return outgoing{}, record.Errorf(record.TooLarge, "key and headers make properties of %d bytes, and a message may have %d", len(b), maxProperties)
	}
	return outgoing{body: r.Value, properties: string(b)}, nil
}

// appendHeaders writes what headers can be properties, the first that is a tag
// as the tag, and notes the rest in e.
func appendHeaders(b []byte, e *exact, hs []record.Header) []byte {
	if len(hs) == 0 {
		return b
	}
	list := make([]exactHeader, len(hs))
	sorted, plain, last := true, true, ""
	written := make(map[string]bool, len(hs))
	for i, h := range hs {
		sorted = sorted && h.Key > last
		last = h.Key
		value := string(h.Value)
		switch {
		case h.Key == TagHeader && !written[h.Key] && isTag(value):
			b = appendProperty(b, propTags, value)
		case isText(h.Key) && !isReserved(h.Key) && h.Key != TagHeader && isText(value) && !written[h.Key]:
			b = appendProperty(b, h.Key, value)
		default:
			plain = false
			list[i] = exactValue(h.Value)
		}
		written[h.Key] = true
		if list[i].Name = h.Key; !utf8.ValidString(h.Key) {
			list[i].Name, list[i].Name64 = "", []byte(h.Key)
		}
	}
	if !sorted || !plain {
		e.Headers = list
	}
	return b
}

func exactValue(v []byte) exactHeader {
	switch {
	case v == nil:
		return exactHeader{Null: true}
	case utf8.Valid(v):
		s := string(v)
		return exactHeader{Value: &s}
	}
	return exactHeader{Value64: v}
}

// isTag reports whether s can be a message's tag.
func isTag(s string) bool {
	return isText(s) && !strings.Contains(s, "||") && strings.TrimSpace(s) == s && s != "*"
}

// fromMessage makes a record of a message. Topic, queue and trace are the
// caller's to set.
func fromMessage(m *message) record.Record {
	r := record.Record{Value: m.body, Offset: m.offset, Timestamp: m.born, Attempt: 1, To: -1}
	if r.Value == nil {
		r.Value = []byte{}
	}
	props := parseProperties(m.properties)
	var e exact
	text, ours := props[propExact]
	if ours {
		ours = json.Unmarshal([]byte(text), &e) == nil
	}
	tag, tagged := props[propTags]
	if !ours {
		if keys, ok := props[propKeys]; ok {
			r.Key = []byte(keys)
		}
		r.Headers = plainHeaders(props, tag, tagged)
		return r
	}
	switch {
	case e.Key != nil:
		r.Key = []byte(*e.Key)
	case e.Key64 != nil:
		r.Key = e.Key64
	}
	if e.Null && len(m.body) == 0 { // who changed the body may have kept the properties
		r.Value = nil
	}
	if e.Time > 0 {
		r.Timestamp = e.Time
	}
	if e.Headers == nil {
		r.Headers = plainHeaders(props, tag, tagged)
		return r
	}
	r.Headers = make([]record.Header, 0, len(e.Headers))
	for _, h := range e.Headers {
		r.Headers = append(r.Headers, h.header(props))
	}
	return r
}

// header takes the property out of props, if it is the header's value: the sink
// names none twice, and whoever does would make large headers of few bytes.
func (h exactHeader) header(props map[string]string) record.Header {
	out := record.Header{Key: h.Name}
	if h.Name64 != nil {
		out.Key = string(h.Name64)
	}
	switch {
	case h.Null:
	case h.Value != nil:
		out.Value = []byte(*h.Value)
	case h.Value64 != nil:
		out.Value = h.Value64
	default:
		name := h.Name
		if name == TagHeader {
			name = propTags
		}
		out.Value = []byte(props[name])
		delete(props, name)
	}
	return out
}

// plainHeaders are the properties that are not the system's, in the order of
// their names.
func plainHeaders(props map[string]string, tag string, tagged bool) []record.Header {
	names := make([]string, 0, len(props))
	for name := range maps.Keys(props) {
		if !isReserved(name) && name != TagHeader {
			names = append(names, name)
		}
	}
	if tagged {
		names = append(names, TagHeader)
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	hs := make([]record.Header, len(names))
	for i, name := range names {
		value := props[name]
		if name == TagHeader {
			value = tag
		}
		hs[i] = record.Header{Key: name, Value: []byte(value)}
	}
	return hs
}

// subscription is what a broker is asked for.
func subscription(tags []string) string {
	if len(tags) == 0 {
		return "*"
	}
	return strings.Join(tags, " || ")
}

// checkTags reports why tags cannot be subscribed to.
func checkTags(tags []string) error {
	for _, t := range tags {
		if !isTag(t) {
			return fmt.Errorf("rocketmq source: tag %q: a tag is text without || and without spaces around it", t)
		}
	}
	return nil
}
