package millrace

import "unicode/utf8"

// Writer is a value under way, straight into the answer. It is an io.Writer; its
// methods Begin, End, Member and Value write JSON and put the commas. Emit emits
// it; one that is let go is not emitted.
type Writer struct {
	out       *Out
	at, value int
	answer    answer
	comma     bool
}

// Write appends bytes. It never fails.
func (w *Writer) Write(p []byte) (int, error) {
	w.out.put(p)
	return len(p), nil
}

// WriteString appends text. It never fails.
func (w *Writer) WriteString(s string) (int, error) {
	w.out.put(bytesOf(s))
	return len(s), nil
}

// WriteByte appends a byte. It never fails.
func (w *Writer) WriteByte(c byte) error {
	w.out.putByte(c)
	return nil
}

// Emit emits the record. One that was given up, or emitted already, fails it.
func (w *Writer) Emit() error {
	o := w.out
	if w.at != o.done {
		return o.stale()
	}
	n := len(o.b) - w.value
	o.pad()
	w.answer.put(o.b[w.at:], o.r, n)
	o.done = len(o.b)
	o.answered = true
	return o.fault
}

// givenUp is the place of a writer whose record is not emitted any more.
const givenUp = -1

//go:noinline
func (o *Out) stale() error {
	if o.fault == nil {
		o.fault = Fail(1, "emit: this record was given up when another one was begun or emitted")
	}
	return o.fault
}

// Begin opens an object, with '{', or a list, with '['.
func (w *Writer) Begin(bracket byte) {
	w.separate()
	w.out.putByte(bracket)
	w.comma = false
}

// End closes what Begin opened, with '}' or ']'.
func (w *Writer) End(bracket byte) {
	w.out.putByte(bracket)
	w.comma = true
}

// Name writes the name of a member, whose value comes next.
func (w *Writer) Name(name string) {
	w.separate()
	w.out.b = appendString(w.out.b, name)
	w.out.putByte(':')
	w.comma = false
}

// Value writes a JSON value: nil, a string, bool, int, int32, int64, uint32,
// uint64, float64, Value, or JSON for text that is JSON already. A float that is
// not finite is null, and so is JSON without a text. Another type fails the record.
func (w *Writer) Value(value any) {
	w.separate()
	var ok bool
	if w.out.b, ok = appendValue(w.out.b, value); !ok && w.out.fault == nil {
		w.out.fault = Fail(1, notWritable)
	}
	w.comma = true
}

// Member writes a member: Name and Value.
func (w *Writer) Member(name string, value any) {
	w.Name(name)
	w.Value(value)
}

func (w *Writer) separate() {
	if w.comma {
		w.out.putByte(',')
	}
}

const notWritable = "write JSON: a value of this type is not supported; take nil, string, bool, int, int32, int64, uint32, uint64, float64, Value or JSON"

// appendString appends s as a JSON string. What is no UTF-8 becomes U+FFFD.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	kept := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				b = append(append(b, s[kept:i]...), "\ufffd"...)
				kept = i + 1
			}
			i += n
			continue
		}
		i++
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[kept:i-1]...)
		kept = i
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	b = append(b, s[kept:]...)
	return append(b, '"')
}
