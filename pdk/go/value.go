package millrace

import (
	"math"
	"strconv"
	"strings"
)

// JSON is text that is JSON. In a configuration it takes any value as it is
// written.
type JSON []byte

// Kind is what a JSON value is.
type Kind uint8

// The kinds of values. KindNone is that of a member that is not there.
const (
	KindNone Kind = iota
	KindNull
	KindBool
	KindNumber
	KindString
	KindArray
	KindObject
)

func (k Kind) String() string {
	return [...]string{"nothing", "null", "true or false", "a number", "a string", "a list", "an object"}[k]
}

// Value is a valid JSON value, as its own text. The zero Value is that of a
// member that is not there.
type Value struct{ raw []byte }

// ReadValue reads a text that is one JSON value.
func ReadValue(text []byte) (Value, error) {
	s := scanner{text: text}
	from := skipSpace(text, 0)
	to := s.value(from, 0)
	if to >= 0 {
		if end := skipSpace(text, to); end < len(text) {
			to = s.fail(moreBehind, end)
		}
	}
	if to < 0 {
		return Value{}, faultOf(&s)
	}
	return Value{text[from:to:to]}, nil
}

// Raw is its text as it stands in the record: a string with its quotes.
func (v Value) Raw() []byte { return v.raw }

// Exists is false for a member that is not there.
func (v Value) Exists() bool { return len(v.raw) > 0 }

// Kind is what it is.
func (v Value) Kind() Kind {
	if len(v.raw) == 0 {
		return KindNone
	}
	switch v.raw[0] {
	case '{':
		return KindObject
	case '[':
		return KindArray
	case '"':
		return KindString
	case 't', 'f':
		return KindBool
	case 'n':
		return KindNull
	}
	return KindNumber
}

// IsNull tells whether it is null; what is not there is not.
func (v Value) IsNull() bool { return len(v.raw) > 0 && v.raw[0] == 'n' }

// Is tells whether it is this string.
func (v Value) Is(text string) bool {
	n := len(v.raw)
	if n < 2 || v.raw[0] != '"' {
		return false
	}
	inner := v.raw[1 : n-1]
	if same(inner, text) {
		return strings.IndexByte(text, '\\') < 0
	}
	// Whatever is escaped is shorter without.
	return len(inner) > len(text) && unescape(inner) == text
}

// Text is the string; false if it is something else. It is a view unless it has
// escapes.
func (v Value) Text() (string, bool) {
	if len(v.raw) < 2 || v.raw[0] != '"' {
		return "", false
	}
	return unescape(v.raw[1 : len(v.raw)-1]), true
}

// Bool is true or false; not ok if it is something else.
func (v Value) Bool() (value, ok bool) {
	if v.Kind() != KindBool {
		return false, false
	}
	return v.raw[0] == 't', true
}

// Int is the number if it is written as an integer and fits.
func (v Value) Int() (int64, bool) {
	if v.Kind() != KindNumber {
		return 0, false
	}
	n, err := strconv.ParseInt(view(v.raw), 10, 64)
	return n, err == nil
}

// Uint is the number if it is written as an integer and fits.
func (v Value) Uint() (uint64, bool) {
	if v.Kind() != KindNumber {
		return 0, false
	}
	n, err := strconv.ParseUint(view(v.raw), 10, 64)
	return n, err == nil
}

// powers are those of ten that a double holds exactly.
var powers = [...]float64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15}

// Float is the number nearest to what is written; false if it is no number.
// Beyond the range it is infinite.
func (v Value) Float() (float64, bool) {
	b := v.raw
	if len(b) == 0 || b[0] != '-' && b[0]-'0' >= 10 {
		return 0, false
	}
	negative := b[0] == '-'
	if negative {
		b = b[1:]
	}
	// Up to 15 digits are one exact integer over one exact power: the division
	// rounds once.
	if len(b) > 16 {
		return slowFloat(v.raw)
	}
	var n uint64
	digits, decimals, point := 0, 0, 0
	for _, c := range b {
		switch {
		case c-'0' < 10:
			n = n*10 + uint64(c-'0')
			digits++
			decimals += point
		case c == '.':
			point = 1
		default:
			return slowFloat(v.raw)
		}
	}
	if digits > 15 {
		return slowFloat(v.raw)
	}
	f := float64(n) / powers[decimals]
	if negative {
		f = -f
	}
	return f, true
}

//go:noinline
func slowFloat(raw []byte) (float64, bool) {
	f, err := strconv.ParseFloat(view(raw), 64)
	if err != nil && !math.IsInf(f, 0) {
		return 0, false
	}
	return f, true
}

// Object is the object; false if it is something else.
func (v Value) Object() (*Object, bool) {
	if v.Kind() != KindObject {
		return nil, false
	}
	o := new(Object)
	o.reset(v.raw)
	return o, true
}

// Items are the values of a list; none if it is something else.
func (v Value) Items() []Value {
	if v.Kind() != KindArray {
		return nil
	}
	var items []Value
	s := scanner{text: v.raw}
	// The list is valid: there is a value, then a comma or the end.
	for i := skipSpace(v.raw, 1); v.raw[i] != ']'; {
		end := s.value(i, 0)
		items = append(items, Value{v.raw[i:end:end]})
		if i = skipSpace(v.raw, end); v.raw[i] == ',' {
			i = skipSpace(v.raw, i+1)
		}
	}
	return items
}

// appendValue appends a Go value as JSON; false if its type is not supported.
func appendValue(b []byte, value any) ([]byte, bool) {
	switch v := value.(type) {
	case nil:
		return append(b, "null"...), true
	case string:
		return appendString(b, v), true
	case bool:
		return strconv.AppendBool(b, v), true
	case int:
		return strconv.AppendInt(b, int64(v), 10), true
	case int32:
		return strconv.AppendInt(b, int64(v), 10), true
	case int64:
		return strconv.AppendInt(b, v, 10), true
	case uint32:
		return strconv.AppendUint(b, uint64(v), 10), true
	case uint64:
		return strconv.AppendUint(b, v, 10), true
	case float64:
		return appendFloat(b, v), true
	case Value:
		if !v.Exists() {
			return append(b, "null"...), true
		}
		return append(b, v.raw...), true
	case JSON:
		if len(v) == 0 {
			return append(b, "null"...), true
		}
		return append(b, v...), true
	}
	return b, false
}

// appendFloat writes f as encoding/json does; what is not finite is null.
func appendFloat(b []byte, f float64) []byte {
	if math.IsInf(f, 0) || math.IsNaN(f) {
		return append(b, "null"...)
	}
	format := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	b = strconv.AppendFloat(b, f, format, -1, 64)
	// e-09 is written as e-9.
	if n := len(b); format == 'e' && b[n-4] == 'e' && b[n-3] == '-' && b[n-2] == '0' {
		b[n-2] = b[n-1]
		b = b[:n-1]
	}
	return b
}
