package sign

import (
	"cmp"
	"encoding/base64"
	"html"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// minConcealed is the length of the shortest value that is concealed: shorter
// ones cannot be told from other text. Ones of minFolded bytes are found in
// capital and small letters.
const (
	minConcealed = 4
	minFolded    = 8
)

// Conceal hides values in a text as *** wherever it holds one as it is or in a
// form in which a partner may send it back: escaped for JSON, a URL or HTML, or
// in base64. Values shorter than 4 bytes are left alone. What stands at the end
// of a text and is only the beginning of a value is not found: conceal before
// you cut.
func Conceal(text string, values ...string) string {
	forms := make([]string, 0, 3*len(values))
	for _, v := range values {
		if len(v) >= minConcealed {
			forms = append(forms, v, base64.RawStdEncoding.EncodeToString([]byte(v)), base64.RawURLEncoding.EncodeToString([]byte(v)))
		}
	}
	// One may be part of another.
	slices.SortStableFunc(forms, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	for _, v := range slices.Compact(forms) {
		text = concealSpellings(strings.ReplaceAll(text, v, hidden), v)
	}
	return text
}

// effort bounds the search for spellings, which a text and a value that repeat
// themselves could make long: what is left of such a text is hidden.
const effort = 4 << 20

// concealSpellings hides a value whose characters may each be escaped.
func concealSpellings(text, value string) string {
	fold := len(value) >= minFolded
	var begins [256]bool // what a spelling begins with
	for c := range begins {
		b := byte(c)
		begins[b] = b == '%' || b == '\\' || b == '&' || b == '+' && value[0] == ' ' || same(b, value[0], fold)
	}
	m := matcher{fold: fold, effort: effort}
	twice := strings.Contains(text, "%25")
	var out strings.Builder
	done, at := 0, 0
	for at < len(text) {
		if !begins[text[at]] {
			at++
			continue
		}
		m.percent = "%"
		n := m.spelled(text[at:], value)
		if n == 0 && twice {
			m.percent = "%25"
			n = m.spelled(text[at:], value)
		}
		if m.effort < 0 {
			n = len(text) - at
		}
		if n == 0 {
			at++
			continue
		}
		out.WriteString(text[done:at])
		out.WriteString(hidden)
		at += n
		done = at
	}
	if done == 0 {
		return text
	}
	out.WriteString(text[done:])
	return out.String()
}

// matcher finds spellings of a value.
type matcher struct {
	fold    bool
	percent string // what begins an escape of a URL
	effort  int    // left
}

// spelled is the length of the spelling of value that text begins with, 0 if
// it begins with none.
func (m *matcher) spelled(text, value string) int {
	n := 0
	for value != "" {
		if m.effort--; m.effort < 0 {
			return 0
		}
		t, v := m.one(text[n:], value)
		if t == 0 {
			return 0
		}
		n, value = n+t, value[v:]
	}
	return n
}

// one is how many bytes of text spell how many first ones of value; 0 if none
// do.
func (m *matcher) one(text, value string) (t, v int) {
	if text == "" {
		return 0, 0
	}
	c := value[0]
	switch text[0] {
	case '%':
		if at := len(m.percent); strings.HasPrefix(text, m.percent) {
			if b, ok := hexadecimal(text, at, 2); ok && same(byte(b), c, m.fold) {
				return at + 2, 1
			}
		}
	case '\\':
		if t, v := m.backslash(text, value); t > 0 {
			return t, v
		}
	case '&':
		if end := strings.IndexByte(text[:min(len(text), 10)], ';'); end > 0 {
			if plain := html.UnescapeString(text[:end+1]); plain != text[:end+1] && strings.HasPrefix(value, plain) {
				return end + 1, len(plain)
			}
		}
	case '+':
		if c == ' ' {
			return 1, 1
		}
	}
	if same(text[0], c, m.fold) {
		return 1, 1
	}
	return 0, 0
}

// backslash is one for the escapes of JSON, which may be escaped
// again.
func (m *matcher) backslash(text, value string) (t, v int) {
	c := value[0]
	if c == '\\' {
		if strings.HasPrefix(text, `\\`) {
			return 2, 1
		}
		if r, ok := hexadecimal(text, 2, 4); ok && text[1] == 'u' && r == '\\' {
			return 6, 1
		}
		return 0, 0
	}
	at := 1
	for at < len(text) && text[at] == '\\' {
		at++
	}
	if at == len(text) {
		return 0, 0
	}
	switch e := text[at]; {
	case e == 'u':
		r, ok := hexadecimal(text, at+1, 4)
		if !ok {
			return 0, 0
		}
		n := at + 5
		if utf16.IsSurrogate(r) && strings.HasPrefix(text[n:], `\u`) {
			low, _ := hexadecimal(text, n+2, 4)
			r, n = utf16.DecodeRune(r, low), n+6
		}
		own, size := utf8.DecodeRuneInString(value)
		if own == r && own != utf8.RuneError || r < utf8.RuneSelf && same(byte(r), c, m.fold) {
			return n, size
		}
	case e == 'n' && c == '\n', e == 'r' && c == '\r', e == 't' && c == '\t', e == c && strings.IndexByte(`"/'`, e) >= 0:
		return at + 1, 1
	}
	return 0, 0
}

// hexadecimal reads digits.
func hexadecimal(text string, at, digits int) (rune, bool) {
	if at+digits > len(text) {
		return 0, false
	}
	n, err := strconv.ParseUint(text[at:at+digits], 16, 32)
	return rune(n), err == nil
}

func same(a, b byte, fold bool) bool {
	return a == b || fold && lower(a) == lower(b)
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}
