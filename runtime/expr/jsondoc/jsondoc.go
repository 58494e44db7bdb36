// Package jsondoc reads a JSON text into a flat index, without building a
// value for anything that nobody asks for. A Doc is reused from text to text,
// so that reading one costs no memory once it has grown.
//
// It reads exactly RFC 8259. It does not change documents and knows nothing of
// records or expressions.
package jsondoc

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxDepth is how deep arrays and objects may be nested.
const MaxDepth = 512

// MaxSize is the longest text that is read, in bytes.
const MaxSize = 1 << 30

// Kind is the type of a JSON value.
type Kind uint8

const (
	Null Kind = iota
	False
	True
	Number
	String
	Array
	Object
)

// Node is a value of a Doc. It is valid until the next Parse.
type Node int32

// None is the Node of a value that is not there.
const None Node = -1

type node struct {
	kind Kind
	// plain: of a string, no escapes in it; of a number, digits and a sign only.
	plain bool
	// start and end in the text; a string's lie inside its quotes.
	start, end int32
	// next is the index after the value and all in it.
	next int32
}

// Doc is the index of one JSON text. The zero Doc is empty; it is not safe for
// concurrent use.
type Doc struct {
	src   []byte
	nodes []node
	pos   int
}

// SyntaxError reports where a text is not JSON.
type SyntaxError struct {
	// Offset in bytes, from 0.
	Offset int
	Msg    string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("%s at byte %d", e.Msg, e.Offset)
}

// Parse reads src, which must not change as long as the Doc is used. All
// Nodes of the text before become invalid. The error is a *SyntaxError.
func (d *Doc) Parse(src []byte) error {
	d.src, d.nodes, d.pos = src, d.nodes[:0], 0
	if len(src) > MaxSize {
		return d.reset(0, fmt.Sprintf("more than %d bytes", MaxSize))
	}
	if err := d.value(0); err != nil {
		return err
	}
	d.space()
	if d.pos < len(d.src) {
		return d.reset(d.pos, "text after the end of the value")
	}
	return nil
}

func (d *Doc) reset(at int, msg string) error {
	d.nodes = d.nodes[:0]
	return &SyntaxError{Offset: at, Msg: msg}
}

func (d *Doc) fail(want string) error {
	if d.pos >= len(d.src) {
		return d.reset(d.pos, "end of text where "+want+" should be")
	}
	c, _ := utf8.DecodeRune(d.src[d.pos:])
	return d.reset(d.pos, fmt.Sprintf("%q where %s should be", c, want))
}

func (d *Doc) space() {
	for d.pos < len(d.src) {
		switch d.src[d.pos] {
		case ' ', '\n', '\t', '\r':
			d.pos++
		default:
			return
		}
	}
}

func (d *Doc) add(k Kind, start int) int {
	d.nodes = append(d.nodes, node{kind: k, start: int32(start)})
	return len(d.nodes) - 1
}

func (d *Doc) end(n, end int) {
	d.nodes[n].end, d.nodes[n].next = int32(end), int32(len(d.nodes))
}

func (d *Doc) value(depth int) error {
	d.space()
	if d.pos >= len(d.src) {
		return d.fail("a value")
	}
	switch c := d.src[d.pos]; {
	case c == '"':
		return d.str()
	case c == '{':
		return d.object(depth)
	case c == '[':
		return d.array(depth)
	case c == '-' || c >= '0' && c <= '9':
		return d.number()
	case c == 't':
		return d.word("true", True)
	case c == 'f':
		return d.word("false", False)
	case c == 'n':
		return d.word("null", Null)
	}
	return d.fail("a value")
}

func (d *Doc) word(w string, k Kind) error {
	if len(d.src)-d.pos < len(w) || string(d.src[d.pos:d.pos+len(w)]) != w {
		return d.fail("a value")
	}
	n := d.add(k, d.pos)
	d.pos += len(w)
	d.end(n, d.pos)
	return nil
}

func (d *Doc) object(depth int) error {
	if depth >= MaxDepth {
		return d.reset(d.pos, fmt.Sprintf("nested deeper than %d levels", MaxDepth))
	}
	n := d.add(Object, d.pos)
	d.pos++
	d.space()
	if d.pos < len(d.src) && d.src[d.pos] == '}' {
		d.pos++
		d.end(n, d.pos)
		return nil
	}
	for {
		d.space()
		if d.pos >= len(d.src) || d.src[d.pos] != '"' {
			return d.fail("a key in quotes")
		}
		if err := d.str(); err != nil {
			return err
		}
		d.space()
		if d.pos >= len(d.src) || d.src[d.pos] != ':' {
			return d.fail("a colon")
		}
		d.pos++
		if err := d.value(depth + 1); err != nil {
			return err
		}
		d.space()
		if d.pos < len(d.src) && d.src[d.pos] == ',' {
			d.pos++
			continue
		}
		if d.pos < len(d.src) && d.src[d.pos] == '}' {
			d.pos++
			d.end(n, d.pos)
			return nil
		}
		return d.fail("a comma or }")
	}
}

func (d *Doc) array(depth int) error {
	if depth >= MaxDepth {
		return d.reset(d.pos, fmt.Sprintf("nested deeper than %d levels", MaxDepth))
	}
	n := d.add(Array, d.pos)
	d.pos++
	d.space()
	if d.pos < len(d.src) && d.src[d.pos] == ']' {
		d.pos++
		d.end(n, d.pos)
		return nil
	}
	for {
		if err := d.value(depth + 1); err != nil {
			return err
		}
		d.space()
		if d.pos < len(d.src) && d.src[d.pos] == ',' {
			d.pos++
			continue
		}
		if d.pos < len(d.src) && d.src[d.pos] == ']' {
			d.pos++
			d.end(n, d.pos)
			return nil
		}
		return d.fail("a comma or ]")
	}
}

// special marks the bytes that end a run of plain characters in a string.
var special = func() (t [256]bool) {
	for c := range 0x20 {
		t[c] = true
	}
	t['"'], t['\\'] = true, true
	return t
}()

func (d *Doc) str() error {
	n := d.add(String, d.pos+1)
	open := d.pos
	plain := true
	src := d.src
	i := d.pos + 1
	for {
		for i < len(src) && !special[src[i]] {
			i++
		}
		if i >= len(src) {
			return d.reset(open, "a string without end")
		}
		switch src[i] {
		case '"':
			d.nodes[n].plain = plain
			d.end(n, i)
			d.pos = i + 1
			return nil
		case '\\':
			plain = false
			if i+1 >= len(src) {
				return d.reset(open, "a string without end")
			}
			switch src[i+1] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
				i += 2
			case 'u':
				if _, ok := hex4(src[i+2:]); !ok {
					return d.reset(i, `a \u without four hex digits`)
				}
				i += 6
			default:
				return d.reset(i, "an unknown escape")
			}
		default:
			return d.reset(i, "a control character in a string")
		}
	}
}

func (d *Doc) number() error {
	n := d.add(Number, d.pos)
	src, i, plain := d.src, d.pos, true
	digits := func() bool {
		from := i
		for i < len(src) && src[i] >= '0' && src[i] <= '9' {
			i++
		}
		return i > from
	}
	if src[i] == '-' {
		i++
	}
	if i < len(src) && src[i] == '0' {
		i++
	} else if !digits() {
		d.pos = i
		return d.fail("a digit")
	}
	if i < len(src) && src[i] == '.' {
		plain = false
		i++
		if !digits() {
			d.pos = i
			return d.fail("a digit")
		}
	}
	if i < len(src) && src[i]|0x20 == 'e' {
		plain = false
		i++
		if i < len(src) && (src[i] == '+' || src[i] == '-') {
			i++
		}
		if !digits() {
			d.pos = i
			return d.fail("a digit")
		}
	}
	d.pos = i
	d.nodes[n].plain = plain
	d.end(n, i)
	return nil
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

// Root is the whole document, None before the first successful Parse.
func (d *Doc) Root() Node {
	if len(d.nodes) == 0 {
		return None
	}
	return 0
}

// Kind is the type of n, which must not be None.
func (d *Doc) Kind(n Node) Kind { return d.nodes[n].kind }

// Raw is the text of n, quotes included. It is part of the parsed text.
func (d *Doc) Raw(n Node) []byte {
	x := &d.nodes[n]
	if x.kind == String {
		return d.src[x.start-1 : x.end+1]
	}
	return d.src[x.start:x.end]
}

// Member is the value of an object's key, the last one if the key repeats. It
// is None if there is none, or if n is None or no object.
func (d *Doc) Member(n Node, key string) Node {
	if n < 0 || d.nodes[n].kind != Object {
		return None
	}
	found := None
	end := d.nodes[n].next
	for k := int32(n) + 1; k < end; k = d.nodes[k+1].next {
		if d.StringIs(Node(k), key) {
			found = Node(k + 1)
		}
	}
	return found
}

// Index is the i-th element of an array, counted from the end if i is
// negative. It is None if there is none, or if n is None or no array.
func (d *Doc) Index(n Node, i int64) Node {
	if n < 0 || d.nodes[n].kind != Array {
		return None
	}
	if i < 0 {
		i += int64(d.Len(n))
		if i < 0 {
			return None
		}
	}
	end := d.nodes[n].next
	for k := int32(n) + 1; k < end; k = d.nodes[k].next {
		if i == 0 {
			return Node(k)
		}
		i--
	}
	return None
}

// Len is the number of an array's elements or an object's members; 0 for all
// other values.
func (d *Doc) Len(n Node) int {
	count := 0
	switch end := d.nodes[n].next; d.nodes[n].kind {
	case Array:
		for k := int32(n) + 1; k < end; k = d.nodes[k].next {
			count++
		}
	case Object:
		for k := int32(n) + 1; k < end; k = d.nodes[k+1].next {
			count++
		}
	}
	return count
}

// Members yields the keys and values of an object in their order; nothing for
// other values. A key is a Node of kind String.
func (d *Doc) Members(n Node) func(yield func(key, value Node) bool) {
	return func(yield func(key, value Node) bool) {
		if n < 0 || d.nodes[n].kind != Object {
			return
		}
		end := d.nodes[n].next
		for k := int32(n) + 1; k < end; k = d.nodes[k+1].next {
			if !yield(Node(k), Node(k+1)) {
				return
			}
		}
	}
}

// StringIs reports whether n is a string equal to s.
func (d *Doc) StringIs(n Node, s string) bool {
	x := &d.nodes[n]
	if x.kind != String {
		return false
	}
	if x.plain {
		return string(d.src[x.start:x.end]) == s
	}
	return d.Text(n) == s
}

// Text is the string that n, of kind String, stands for.
func (d *Doc) Text(n Node) string {
	x := &d.nodes[n]
	raw := d.src[x.start:x.end]
	if x.plain {
		return string(raw)
	}
	return unescape(raw)
}

func unescape(raw []byte) string {
	out := make([]byte, 0, len(raw))
	for len(raw) > 0 {
		i := bytes.IndexByte(raw, '\\')
		if i < 0 {
			out = append(out, raw...)
			break
		}
		out = append(out, raw[:i]...)
		c := raw[i+1]
		raw = raw[i+2:]
		switch c {
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
			r, _ := hex4(raw)
			raw = raw[4:]
			if utf16.IsSurrogate(r) {
				low := rune(-1)
				if len(raw) >= 6 && raw[0] == '\\' && raw[1] == 'u' {
					low, _ = hex4(raw[2:])
				}
				if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
					r = pair
					raw = raw[6:]
				} else {
					r = utf8.RuneError
				}
			}
			out = utf8.AppendRune(out, r)
		default:
			out = append(out, c)
		}
	}
	return string(out)
}

// Int is the number n as an int64; false if it has a fraction or an exponent,
// or is out of range.
func (d *Doc) Int(n Node) (int64, bool) {
	x := &d.nodes[n]
	if x.kind != Number || !x.plain {
		return 0, false
	}
	raw := d.src[x.start:x.end]
	if len(raw) <= 18 {
		neg := raw[0] == '-'
		if neg {
			raw = raw[1:]
		}
		var v int64
		for _, c := range raw {
			v = v*10 + int64(c-'0')
		}
		if neg {
			v = -v
		}
		return v, true
	}
	v, err := strconv.ParseInt(string(raw), 10, 64)
	return v, err == nil
}

// Float is the number n as the nearest float64; false if it is out of range.
func (d *Doc) Float(n Node) (float64, bool) {
	f, err := strconv.ParseFloat(string(d.Raw(n)), 64)
	return f, err == nil && !math.IsInf(f, 0)
}

// Value builds the Go value of n: nil, bool, int64, float64, string, []any or
// map[string]any; nil for None. An integer in the range of int64 becomes one,
// every other number the nearest float64, which is an error (a *SyntaxError)
// if there is none.
func (d *Doc) Value(n Node) (any, error) {
	if n < 0 {
		return nil, nil
	}
	switch x := &d.nodes[n]; x.kind {
	case False:
		return false, nil
	case True:
		return true, nil
	case Number:
		if i, ok := d.Int(n); ok {
			return i, nil
		}
		f, ok := d.Float(n)
		if !ok {
			return nil, &SyntaxError{Offset: int(x.start), Msg: "a number too large for a float"}
		}
		return f, nil
	case String:
		return d.Text(n), nil
	case Array:
		list := make([]any, 0, d.Len(n))
		for k := int32(n) + 1; k < x.next; k = d.nodes[k].next {
			v, err := d.Value(Node(k))
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	case Object:
		m := make(map[string]any, d.Len(n))
		for k, v := range d.Members(n) {
			val, err := d.Value(v)
			if err != nil {
				return nil, err
			}
			m[d.Text(k)] = val
		}
		return m, nil
	}
	return nil, nil
}
