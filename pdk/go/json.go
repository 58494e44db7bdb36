package millrace

import (
	"strconv"
	"unicode/utf8"
)

// Object is a JSON object: the places of its members in the record's own bytes,
// read as they are asked for. It builds no tree. What it passes over is
// validated, objects inside of it too; Value.Object opens those.
type Object struct {
	scanner
	// spans are those of the first count members, and room for more.
	spans []span
	count int
	// next is where the next key begins.
	next  int
	ended bool
}

// span is a member's places in the text: the key without its quotes, the value.
type span struct{ key, keyEnd, value, valueEnd uint32 }

// ReadObject reads a text that is one JSON object. It is for texts that are not
// the value of a record; Record.JSON allocates nothing.
func ReadObject(text []byte) (*Object, error) {
	o := new(Object)
	o.reset(text)
	if err := o.Err(); err != nil {
		return nil, err
	}
	return o, nil
}

// reset makes o the object that text is, of which nothing is read yet.
func (o *Object) reset(text []byte) {
	o.scanner = scanner{text: text}
	o.count, o.next, o.ended = 0, -1, false
}

// more reads one member more; false behind the last, or at a fault.
func (o *Object) more() bool {
	if o.count == len(o.spans) {
		o.grow()
	}
	return o.member()
}

//go:noinline
func (o *Object) grow() {
	o.spans = append(o.spans, make([]span, len(o.spans)+16)...)
}

// member is more where there is room for a span. It does not allocate, see
// scanner, and so must not become a part of more.
//
//go:noinline
func (o *Object) member() bool {
	b, i := o.text, o.next
	switch {
	case o.ended:
		return false
	case i < 0:
		if i = o.open(); i < 0 {
			return false
		}
	case i < len(b) && at(b, i) == ',':
		if i++; i < len(b) && at(b, i) <= ' ' {
			i = skipSpace(b, i)
		}
	default:
		return o.end(i)
	}
	keyEnd := o.key(i)
	if keyEnd < 0 {
		o.ended = true
		return false
	}
	value := keyEnd + 1
	if at(b, keyEnd) != ':' || value < len(b) && at(b, value) <= ' ' {
		value = o.colon(keyEnd)
	}
	valueEnd := o.value(value, 1)
	if valueEnd < 0 {
		o.ended = true
		return false
	}
	next := valueEnd
	if next < len(b) && at(b, next) <= ' ' {
		next = skipSpace(b, next)
	}
	o.next = next
	// A number or word is whole only if something ends it.
	if next >= len(b) || at(b, next) != ',' && at(b, next) != '}' {
		if c := at(b, valueEnd-1); c != '"' && c != '}' && c != ']' {
			return o.end(next)
		}
	}
	setSpan(o.spans, o.count, span{uint32(i + 1), uint32(keyEnd - 1), uint32(value), uint32(valueEnd)})
	o.count++
	return true
}

// open is where the first key begins; -1 if there is none, and the object is at
// its end.
func (o *Object) open() int {
	b := o.text
	i := skipSpace(b, 0)
	if i >= len(b) || at(b, i) != '{' {
		o.ended = true
		return o.fail(noObject, i)
	}
	if i = skipSpace(b, i+1); i < len(b) && at(b, i) == '}' {
		o.end(i)
		return -1
	}
	return i
}

// end ends the object at i, where something stands behind its last value.
//
//go:noinline
func (o *Object) end(i int) bool {
	b := o.text
	o.ended = true
	switch {
	case i >= len(b):
		o.fail(cutBehindValue, i)
	case at(b, i) != '}':
		o.fail(noComma, i)
	default:
		if i = skipSpace(b, i+1); i < len(b) {
			o.fail(moreBehind, i)
		}
	}
	return false
}

// Err reads the object to its end and says why it is not valid; nil if it is.
func (o *Object) Err() error {
	for o.more() {
	}
	return o.fault()
}

// fault is the fault that was met so far.
func (o *Object) fault() error {
	if o.what == 0 {
		return nil
	}
	return faultOf(&o.scanner)
}

//go:noinline
func faultOf(s *scanner) error {
	return Fail(1, whats[s.what]+" at byte "+strconv.Itoa(s.at))
}

// Len is the number of members, those of the same name counted each.
func (o *Object) Len() int {
	for o.more() {
	}
	return o.count
}

// Member is the name and the value of member i of Len.
func (o *Object) Member(i int) (name string, value Value) {
	for i >= o.count && o.more() {
	}
	at := o.spans[:o.count][i]
	return o.name(at), o.valueAt(at)
}

// Get is the value of the last member of that name; the zero Value if there is
// none.
func (o *Object) Get(name string) Value {
	for o.more() {
	}
	for i := o.count - 1; i >= 0; i-- {
		if o.is(o.spans[i], name) {
			return o.valueAt(o.spans[i])
		}
	}
	return Value{}
}

func (o *Object) name(at span) string {
	b := o.text[at.key:at.keyEnd]
	if o.escapes {
		return unescape(b)
	}
	return view(b)
}

func (o *Object) is(at span, name string) bool {
	if o.escapes {
		return o.name(at) == name
	}
	return int(at.keyEnd-at.key) == len(name) && same(o.text[at.key:at.keyEnd], name)
}

func (o *Object) valueAt(s span) Value {
	return Value{o.text[s.value:s.valueEnd:s.valueEnd]}
}

// same tells whether b is text. TinyGo compares strings byte by byte.
func same(b []byte, text string) bool {
	n := len(text)
	if len(b) != n {
		return false
	}
	t, i := bytesOf(text), 0
	for ; i+8 <= n; i += 8 {
		if word(b, i) != word(t, i) {
			return false
		}
	}
	if i == n {
		return true
	}
	if n >= 8 {
		return word(b, n-8) == word(t, n-8)
	}
	for ; i < n; i++ {
		if at(b, i) != at(t, i) {
			return false
		}
	}
	return true
}

// unescape is what stands between the quotes of a valid string, decoded: a view
// if nothing is escaped. A surrogate that stands alone becomes U+FFFD.
func unescape(b []byte) string {
	first := 0
	for first < len(b) && b[first] != '\\' {
		first++
	}
	if first == len(b) {
		return view(b)
	}
	out := append(make([]byte, 0, len(b)), b[:first]...)
	for i := first; i < len(b); {
		if b[i] != '\\' {
			out = append(out, b[i])
			i++
			continue
		}
		switch c := b[i+1]; c {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, n := unicodeEscape(b[i:])
			out = utf8.AppendRune(out, r)
			i += n
			continue
		default:
			out = append(out, c)
		}
		i += 2
	}
	return view(out)
}

// unicodeEscape is the character of the \u escape that b begins with and the
// escape's length; that of both where two make one character.
func unicodeEscape(b []byte) (rune, int) {
	high := hex4(b)
	if high < 0xd800 || high >= 0xe000 {
		return high, 6
	}
	if high < 0xdc00 && len(b) >= 12 && b[6] == '\\' && b[7] == 'u' {
		if low := hex4(b[6:]); low >= 0xdc00 && low < 0xe000 {
			return 0x10000 + (high-0xd800)<<10 + (low - 0xdc00), 12
		}
	}
	return utf8.RuneError, 6
}

func hex4(b []byte) rune {
	v := rune(0)
	for _, c := range b[2:6] {
		v = v<<4 | rune(hexDigit(c))
	}
	return v
}
