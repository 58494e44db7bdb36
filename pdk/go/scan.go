package millrace

import "math/bits"

// MaxDepth is how deep JSON values may be nested.
const MaxDepth = 128

// what is why a text is not JSON.
type what uint8

const (
	noObject what = iota + 1
	cutBeforeKey
	cutBehindKey
	cutBeforeValue
	cutBehindValue
	cutInString
	cutInNumber
	cutInValue
	noKey
	noColon
	noComma
	noValue
	emptyValue
	noDigit
	noHex
	unknownEscape
	controlCharacter
	noUTF8
	tooDeep
	moreBehind
)

var whats = [...]string{
	noObject:         "not a JSON object: no '{'",
	cutBeforeKey:     "cut off before a key",
	cutBehindKey:     "cut off behind a key",
	cutBeforeValue:   "cut off before a value",
	cutBehindValue:   "cut off behind a value",
	cutInString:      "cut off inside a string",
	cutInNumber:      "cut off inside a number",
	cutInValue:       "cut off inside a value",
	noKey:            "no key where one should begin",
	noColon:          "no ':' behind a key",
	noComma:          "no ',' behind a value",
	noValue:          "no value where one should begin",
	emptyValue:       "an empty value",
	noDigit:          "no digit where a number needs one",
	noHex:            "no hexadecimal digit in an escape",
	unknownEscape:    "an unknown escape",
	controlCharacter: "a control character in a string",
	noUTF8:           "no UTF-8",
	tooDeep:          "nested deeper than 128",
	moreBehind:       "more behind the end of the JSON value",
}

// scanner validates JSON as RFC 8259 has it, with valid UTF-8. Its methods take
// the place where something begins and return the place behind it, or -1 with
// the fault in what and at. None of them allocates: in TinyGo a function that may do
// so keeps its pointers in memory.
type scanner struct {
	text []byte
	what what
	at   int
	// escapes is set by the first backslash.
	escapes bool
}

//go:noinline
func (s *scanner) fail(w what, at int) int {
	s.what, s.at = w, at
	return -1
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && at(b, i) <= ' ' && (at(b, i) == ' ' || at(b, i) == '\n' || at(b, i) == '\t' || at(b, i) == '\r') {
		i++
	}
	return i
}

const (
	ones  = 0x0101_0101_0101_0101
	highs = 0x8080_8080_8080_8080
)

// special has the high bit of the first byte of w that is a quote, a backslash
// or a control character set, and none below it.
func special(w uint64) uint64 {
	quote, slash := w^ones*'"', w^ones*'\\'
	return ((quote-ones)&^quote | (slash-ones)&^slash | (w-ones*0x20)&^w) & highs
}

// plain is where the string of b that goes on at i ends, and the byte there: its
// quote, or the first byte that needs a closer look; 0 at the end of b. It looks
// at eight bytes at a time.
func plain(b []byte, i int) (int, byte) {
	for i+8 <= len(b) {
		w := word(b, i)
		if found := special(w) | w&highs; found != 0 {
			n := bits.TrailingZeros64(found) &^ 7
			return i + n/8, byte(w >> n)
		}
		i += 8
	}
	for i < len(b) {
		if c := at(b, i); c < 0x20 || c == '"' || c == '\\' || c >= 0x80 {
			return i, c
		}
		i++
	}
	return i, 0
}

// string is the place behind the string whose quote opens at i.
func (s *scanner) string(i int) int {
	i, c := plain(s.text, i+1)
	if c == '"' {
		return i + 1
	}
	return s.closer(i)
}

// closer goes on with a string at a byte that is not plain.
//
//go:noinline
func (s *scanner) closer(i int) int {
	b := s.text
	for {
		var c byte
		switch i, c = plain(b, i); {
		case i >= len(b):
			return s.fail(cutInString, len(b))
		case c == '"':
			return i + 1
		case c == '\\':
			if i = s.escape(i); i < 0 {
				return -1
			}
		case c >= 0x80:
			n := runeLength(b, i)
			if n == 0 {
				return s.fail(noUTF8, i)
			}
			i += n
		default:
			return s.fail(controlCharacter, i)
		}
	}
}

// runeLength is the number of bytes of the character beyond ASCII that begins at
// i; 0 if it is no UTF-8.
func runeLength(b []byte, i int) int {
	n, low, high := 0, byte(0x80), byte(0xbf)
	switch c := at(b, i); {
	case c >= 0xc2 && c < 0xe0:
		n = 2
	case c >= 0xe0 && c < 0xf0:
		n = 3
		if c == 0xe0 {
			low = 0xa0
		} else if c == 0xed {
			high = 0x9f // surrogates
		}
	case c >= 0xf0 && c < 0xf5:
		n = 4
		if c == 0xf0 {
			low = 0x90
		} else if c == 0xf4 {
			high = 0x8f
		}
	default:
		return 0
	}
	if i+n > len(b) {
		return 0
	}
	for k := i + 1; k < i+n; k++ {
		if c := at(b, k); c < low || c > high {
			return 0
		}
		low, high = 0x80, 0xbf
	}
	return n
}

func (s *scanner) escape(i int) int {
	s.escapes = true
	b := s.text
	if i+1 >= len(b) {
		return s.fail(cutInString, len(b))
	}
	switch at(b, i+1) {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 2
	case 'u':
		for k := i + 2; k < i+6; k++ {
			if k >= len(b) {
				return s.fail(cutInString, len(b))
			}
			if hexDigit(at(b, k)) < 0 {
				return s.fail(noHex, k)
			}
		}
		return i + 6
	}
	return s.fail(unknownEscape, i)
}

// value is the place behind the value that begins at i, inside so many others.
func (s *scanner) value(i, depth int) int {
	b := s.text
	if i >= len(b) {
		return s.fail(cutBeforeValue, i)
	}
	switch c := at(b, i); c {
	case '"':
		return s.string(i)
	case '{':
		return s.object(i, depth)
	case '[':
		return s.array(i, depth)
	case 't':
		return s.literal(i, "true")
	case 'f':
		return s.literal(i, "false")
	case 'n':
		return s.literal(i, "null")
	case ',', '}', ']':
		return s.fail(emptyValue, i)
	default:
		if c == '-' || c-'0' < 10 {
			return s.number(i)
		}
		return s.fail(noValue, i)
	}
}

func (s *scanner) object(i, depth int) int {
	b := s.text
	if depth++; depth > MaxDepth {
		return s.fail(tooDeep, i)
	}
	if i = skipSpace(b, i+1); i < len(b) && at(b, i) == '}' {
		return i + 1
	}
	for {
		if i = s.key(i); i < 0 {
			return -1
		}
		if i = s.value(s.colon(i), depth); i < 0 {
			return -1
		}
		if i = skipSpace(b, i); i >= len(b) {
			return s.fail(cutBehindValue, i)
		}
		switch at(b, i) {
		case ',':
			i = skipSpace(b, i+1)
		case '}':
			return i + 1
		default:
			return s.fail(noComma, i)
		}
	}
}

func (s *scanner) array(i, depth int) int {
	b := s.text
	if depth++; depth > MaxDepth {
		return s.fail(tooDeep, i)
	}
	if i = skipSpace(b, i+1); i < len(b) && at(b, i) == ']' {
		return i + 1
	}
	for {
		if i = s.value(i, depth); i < 0 {
			return -1
		}
		if i = skipSpace(b, i); i >= len(b) {
			return s.fail(cutBehindValue, i)
		}
		switch at(b, i) {
		case ',':
			i = skipSpace(b, i+1)
		case ']':
			return i + 1
		default:
			return s.fail(noComma, i)
		}
	}
}

// key is the place behind the key that begins at i; a colon stands behind it
// and its white space.
func (s *scanner) key(i int) int {
	b := s.text
	if i >= len(b) {
		return s.fail(cutBeforeKey, i)
	}
	if at(b, i) != '"' {
		return s.fail(noKey, i)
	}
	if i = s.string(i); i < 0 {
		return -1
	}
	if colon := skipSpace(b, i); colon >= len(b) {
		return s.fail(cutBehindKey, colon)
	} else if at(b, colon) != ':' {
		return s.fail(noColon, colon)
	}
	return i
}

// colon is where the value behind the key that ends at i begins.
func (s *scanner) colon(i int) int {
	return skipSpace(s.text, skipSpace(s.text, i)+1)
}

func (s *scanner) literal(i int, word string) int {
	b := s.text
	for k := range len(word) {
		if i+k >= len(b) {
			return s.fail(cutInValue, len(b))
		}
		if at(b, i+k) != letter(word, k) {
			return s.fail(noValue, i)
		}
	}
	return i + len(word)
}

func (s *scanner) number(i int) int {
	b := s.text
	if at(b, i) == '-' {
		i++
	}
	if i < len(b) && at(b, i) == '0' {
		i++
	} else if i = s.digits(i); i < 0 {
		return -1
	}
	if i < len(b) && at(b, i) == '.' {
		if i = s.digits(i + 1); i < 0 {
			return -1
		}
	}
	if i < len(b) && at(b, i)|0x20 == 'e' {
		if i++; i < len(b) && (at(b, i) == '+' || at(b, i) == '-') {
			i++
		}
		return s.digits(i)
	}
	return i
}

func (s *scanner) digits(i int) int {
	b, from := s.text, i
	for i < len(b) && at(b, i)-'0' < 10 {
		i++
	}
	if i > from {
		return i
	}
	if i >= len(b) {
		return s.fail(cutInNumber, i)
	}
	return s.fail(noDigit, i)
}

// hexDigit is the worth of a hexadecimal digit, -1 for another byte.
func hexDigit(c byte) int {
	switch {
	case c-'0' < 10:
		return int(c - '0')
	case c|0x20-'a' < 6:
		return int(c|0x20-'a') + 10
	}
	return -1
}
