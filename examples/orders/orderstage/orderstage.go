// Package orderstage is the order stage as a native Go loop. It is what the
// guests are measured against and the oracle of their tests: what it answers
// for a record is right by definition. It scans and builds no tree; it is not
// a JSON validator.
package orderstage

import "bytes"

// Outcome is the answer for one record.
type Outcome uint8

const (
	// Emit means the changed record was appended.
	Emit Outcome = iota
	// Drop means the order is cancelled or too small.
	Drop
	// Fail means the record is not an object or is cut off.
	Fail
)

func (o Outcome) String() string {
	switch o {
	case Emit:
		return "emit"
	case Drop:
		return "drop"
	}
	return "fail"
}

// minAmount is the smallest amount that is passed on.
const minAmount = 5

// Order appends to dst what becomes of the order event src: customer_id
// renamed, email and card masked, internal_note removed, the rest byte for
// byte in the same order without white space between members. For Drop and
// Fail dst is returned as it was. The bytes are read once and the first rule
// that decides wins; reading stops at the object's closing brace.
func Order(dst, src []byte) ([]byte, Outcome) {
	start := len(dst)
	i := skipSpace(src, 0)
	if i >= len(src) || src[i] != '{' {
		return dst, Fail
	}
	i++
	dst = append(dst, '{')
	first := true
	for {
		i = skipSpace(src, i)
		if i >= len(src) {
			return dst[:start], Fail
		}
		if src[i] == '}' {
			break
		}
		if src[i] == ',' {
			i++
			continue
		}
		if src[i] != '"' {
			return dst[:start], Fail
		}
		k := i
		i = scanString(src, i)
		if i > len(src) {
			return dst[:start], Fail
		}
		key := src[k+1 : i-1]
		i = skipSpace(src, i)
		if i >= len(src) || src[i] != ':' {
			return dst[:start], Fail
		}
		i = skipSpace(src, i+1)
		if i >= len(src) {
			return dst[:start], Fail
		}
		v := i
		i = scanValue(src, i)
		if i > len(src) || i == v {
			return dst[:start], Fail
		}
		val := src[v:i]
		switch string(key) {
		case "internal_note":
			continue
		case "status":
			if string(val) == `"cancelled"` {
				return dst[:start], Drop
			}
		case "amount":
			if number(val) < minAmount {
				return dst[:start], Drop
			}
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(dst, '"')
		if string(key) == "customer_id" {
			dst = append(dst, "customer"...)
		} else {
			dst = append(dst, key...)
		}
		dst = append(dst, '"', ':')
		switch string(key) {
		case "email":
			dst = append(dst, val[:min(2, len(val))]...)
			dst = append(dst, "***"...)
			at := bytes.IndexByte(val, '@')
			if at < 0 {
				at = len(val) - 1
			}
			dst = append(dst, val[at:]...)
		case "card":
			dst = append(dst, `"************`...)
			dst = append(dst, val[max(1, len(val)-5):]...)
		default:
			dst = append(dst, val...)
		}
	}
	return append(dst, '}'), Emit
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// scanString returns the index after the string that opens at i, or
// len(b)+1 if it never closes.
func scanString(b []byte, i int) int {
	i++
	for i < len(b) {
		switch b[i] {
		case '\\':
			i += 2
		case '"':
			return i + 1
		default:
			i++
		}
	}
	return len(b) + 1
}

// scanValue returns the index after the value that begins at i, or len(b)+1
// if the record ends inside it. A bare value needs a delimiter behind it: a
// number at the end of the bytes may be a part of one.
func scanValue(b []byte, i int) int {
	switch b[i] {
	case '"':
		return scanString(b, i)
	case '{', '[':
		depth := 0
		for i < len(b) {
			switch b[i] {
			case '"':
				i = scanString(b, i)
				continue
			case '{', '[':
				depth++
			case '}', ']':
				depth--
				if depth == 0 {
					return i + 1
				}
			}
			i++
		}
		return len(b) + 1
	}
	for i < len(b) {
		switch b[i] {
		case ',', '}', ']', ' ', '\n', '\t', '\r':
			return i
		}
		i++
	}
	return len(b) + 1
}

// number reads the digits of b as a decimal number; all but digits, '.' and
// '-' is passed over.
func number(b []byte) float64 {
	var v, scale float64
	neg := false
	for _, c := range b {
		switch {
		case c >= '0' && c <= '9':
			v = v*10 + float64(c-'0')
			scale *= 10
		case c == '.':
			scale = 1
		case c == '-':
			neg = true
		}
	}
	if scale > 0 {
		v /= scale
	}
	if neg {
		return -v
	}
	return v
}
