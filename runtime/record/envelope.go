package record

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// Text is a byte string in JSON: a JSON string where the bytes are valid
// UTF-8, else {"base64": "..."}; null for nil. It reads both forms, and reads
// any other JSON value as its own text, so that {"value": {"a":1}} works.
type Text []byte

// MarshalJSON implements json.Marshaler.
func (t Text) MarshalJSON() ([]byte, error) {
	if t == nil {
		return []byte("null"), nil
	}
	if !utf8.Valid(t) {
		return []byte(`{"base64":"` + base64.StdEncoding.EncodeToString(t) + `"}`), nil
	}
	return appendString(nil, string(t))
}

// UnmarshalJSON implements json.Unmarshaler.
func (t *Text) UnmarshalJSON(b []byte) error {
	b = bytes.TrimSpace(b)
	switch {
	case bytes.Equal(b, []byte("null")):
		*t = nil
		return nil
	case len(b) > 0 && b[0] == '"':
		var s string
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
		*t = append(Text{}, s...)
		return nil
	case bytes.HasPrefix(b, []byte(`{`)):
		var o map[string]json.RawMessage
		if err := json.Unmarshal(b, &o); err != nil {
			return err
		}
		if raw, ok := o["base64"]; ok && len(o) == 1 {
			var s string
			if err := json.Unmarshal(raw, &s); err != nil {
				return err
			}
			v, err := base64.StdEncoding.DecodeString(s)
			if err != nil {
				return fmt.Errorf("read base64 text: %w", err)
			}
			*t = append(Text{}, v...)
			return nil
		}
	}
	*t = append(Text{}, b...)
	return nil
}

// appendString appends s as a JSON string without the escapes that are only
// for HTML.
func appendString(b []byte, s string) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return b, err
	}
	return append(b, bytes.TrimRight(buf.Bytes(), "\n")...), nil
}

// envelope is the JSON form of a record, one a line. Its field names are part
// of the public formats.
type envelope struct {
	Key       Text             `json:"key"`
	Value     Text             `json:"value"`
	Headers   []envelopeHeader `json:"headers,omitempty"`
	Topic     string           `json:"topic,omitempty"`
	Broker    string           `json:"broker,omitempty"`
	Partition int32            `json:"partition"`
	Offset    int64            `json:"offset"`
	Timestamp int64            `json:"timestamp"`
}

type envelopeHeader struct {
	Key   Text `json:"key"`
	Value Text `json:"value"`
}

func toEnvelope(r *Record) *envelope {
	e := &envelope{Key: r.Key, Value: r.Value, Topic: r.Topic, Broker: r.Broker, Partition: r.Partition, Offset: r.Offset, Timestamp: r.Timestamp}
	for _, h := range r.Headers {
		e.Headers = append(e.Headers, envelopeHeader{Text(h.Key), h.Value})
	}
	return e
}

func (e *envelope) record() Record {
	r := Record{Key: e.Key, Value: e.Value, Topic: e.Topic, Broker: e.Broker, Partition: e.Partition, Offset: e.Offset, Timestamp: e.Timestamp, Attempt: 1, To: -1}
	for _, h := range e.Headers {
		r.Headers = append(r.Headers, Header{string(h.Key), h.Value})
	}
	return r
}

// AppendEnvelope appends the record's JSON form to b, without a line end:
// {"key","value","headers":[{"key","value"}],"topic","partition","offset","timestamp"}.
func AppendEnvelope(b []byte, r *Record) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(toEnvelope(r)); err != nil {
		return b, fmt.Errorf("write envelope of %s: %w", r.ID(), err)
	}
	return append(b, bytes.TrimRight(buf.Bytes(), "\n")...), nil
}

// ParseEnvelope reads what AppendEnvelope writes. Every field may be missing;
// unknown fields are errors. The record's Attempt is 1 and its To is -1.
func ParseEnvelope(line []byte) (Record, error) {
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	var e envelope
	if err := dec.Decode(&e); err != nil {
		return Record{}, fmt.Errorf("read envelope: %w", err)
	}
	if _, err := dec.Token(); err == nil {
		return Record{}, fmt.Errorf("read envelope: more than one JSON value in the line")
	}
	return e.record(), nil
}
