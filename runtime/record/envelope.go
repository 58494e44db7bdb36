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
	return marshalPlain(string(t))
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

// marshalPlain is json.Marshal without the escapes that are only for HTML.
func marshalPlain(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimRight(buf.Bytes(), "\n"), err
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
	Ref       string           `json:"ref,omitempty"`
	Timestamp int64            `json:"timestamp"`
}

type envelopeHeader struct {
	Key   Text `json:"key"`
	Value Text `json:"value"`
}

func toEnvelope(r *Record) *envelope {
	return &envelope{Key: r.Key, Value: r.Value, Headers: toEnvelopeHeaders(r.Headers), Topic: r.Topic, Broker: r.Broker, Partition: r.Partition, Offset: r.Offset, Ref: r.Ref, Timestamp: r.Timestamp}
}

func toEnvelopeHeaders(hs []Header) []envelopeHeader {
	var all []envelopeHeader
	for _, h := range hs {
		all = append(all, envelopeHeader{Text(h.Key), h.Value})
	}
	return all
}

func fromEnvelopeHeaders(hs []envelopeHeader) []Header {
	var all []Header
	for _, h := range hs {
		all = append(all, Header{string(h.Key), h.Value})
	}
	return all
}

func (e *envelope) record() Record {
	return Record{Key: e.Key, Value: e.Value, Headers: fromEnvelopeHeaders(e.Headers), Topic: e.Topic, Broker: e.Broker, Partition: e.Partition, Offset: e.Offset, Ref: e.Ref, Timestamp: e.Timestamp, Attempt: 1, To: -1}
}

// AppendEnvelope appends the record's JSON form to b, without a line end:
// {"key","value","headers":[{"key","value"}],"topic","partition","offset","ref","timestamp"};
// "ref" only for a record that has one.
func AppendEnvelope(b []byte, r *Record) ([]byte, error) {
	line, err := marshalPlain(toEnvelope(r))
	if err != nil {
		return b, fmt.Errorf("write envelope of %s: %w", r.ID(), err)
	}
	return append(b, line...), nil
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
	if err := checkRef(e.Ref); err != nil {
		return Record{}, fmt.Errorf("read envelope: %w", err)
	}
	return e.record(), nil
}
