//go:build wasip1

package main

import (
	"bytes"
	"math/bits"
	"strconv"
	"unsafe"
)

type verdict uint8

const (
	pass verdict = iota
	skip
	reject
)

// fault is why a record is no order event, and at which of its bytes.
type fault struct {
	code uint32
	what string
	at   int
}

// append appends the message, such as `cut off inside a value at byte 59`.
func (f fault) append(out []byte) []byte {
	out = append(out, f.what...)
	out = append(out, " at byte "...)
	return strconv.AppendInt(out, int64(f.at), 10)
}

const (
	minAmount = 5
	cancelled = `"cancelled"`
)

// orderRoom is how many bytes order may append for a value of n: a masked
// card makes 22 of 9.
func orderRoom(n int) int { return 3*n + 128 }

// order appends what becomes of the order event b: one pass over the bytes,
// the first rule that decides wins, and what no rule touches is copied in runs.
// It scans and builds no tree; it is not a JSON validator. What it appends
// means something only with pass.
func order(out, b []byte) ([]byte, verdict, fault) {
	i := skipSpace(b, 0)
	if i >= len(b) || b[i] != '{' {
		return out, reject, fault{1, "not a JSON object: no '{'", i}
	}
	i++
	out = append(out, '{')
	run := 0   // what is untouched since here waits to be copied
	kept := -1 // where the last member that stays ends
	for {
		i = skipSpace(b, i)
		if i >= len(b) {
			return out, reject, fault{2, "cut off inside the object", i}
		}
		if b[i] == '}' {
			break
		}
		if b[i] == ',' {
			i++
			continue
		}
		if b[i] != '"' {
			return out, reject, fault{3, "no key where one should begin", i}
		}
		key := i
		keyEnd := scanString(b, i)
		if keyEnd < 0 {
			return out, reject, fault{2, "cut off inside a key", len(b)}
		}
		colon := skipSpace(b, keyEnd)
		if colon >= len(b) {
			return out, reject, fault{2, "cut off behind a key", colon}
		}
		if b[colon] != ':' {
			return out, reject, fault{3, "no ':' behind a key", colon}
		}
		value := skipSpace(b, colon+1)
		if value >= len(b) {
			return out, reject, fault{2, "cut off before a value", value}
		}
		i = scanValue(b, value)
		if i < 0 {
			return out, reject, fault{2, "cut off inside a value", len(b)}
		}
		if i == value {
			return out, reject, fault{3, "an empty value", i}
		}
		name := text(b[key+1 : keyEnd-1])
		switch name {
		case "internal_note":
			continue
		case "status":
			if text(b[value:i]) == cancelled {
				return out, skip, fault{}
			}
		case "amount":
			if number(b[value:i]) < minAmount {
				return out, skip, fault{}
			}
		}
		if kept < 0 {
			run = key
		} else if key != kept+1 || b[kept] != ',' {
			out = append(append(out, b[run:kept]...), ',')
			run = key
		}
		kept = i
		if name == "customer_id" {
			out = append(out, b[run:key+len(`"customer`)]...)
			run = keyEnd - 1
		}
		if value != keyEnd+1 {
			out = append(append(out, b[run:keyEnd]...), ':')
			run = value
		}
		switch name {
		case "email":
			out = append(out, b[run:min(value+2, i)]...)
			out = append(out, "***"...)
			if run = value + bytes.IndexByte(b[value:i], '@'); run < value {
				run = i - 1
			}
		case "card":
			out = append(out, b[run:value]...)
			out = append(out, `"************`...)
			run = max(value+1, i-5)
		}
	}
	if kept >= 0 {
		out = append(out, b[run:kept]...)
	}
	return append(out, '}'), pass, fault{}
}

// text is b as a string, without a copy: TinyGo would make one for each
// comparison.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

func skipSpace(b []byte, i int) int {
	for i < len(b) && isSpace(b[i]) {
		i++
	}
	return i
}

const (
	ones  = 0x0101_0101_0101_0101
	highs = 0x8080_8080_8080_8080
)

// zeroBytes has the high bit of the first zero byte of w set, and none below
// it.
func zeroBytes(w uint64) uint64 { return (w - ones) &^ w & highs }

// scanString returns the end of the string that opens at i, -1 if it never
// closes. It looks at eight bytes at a time: a turn of a loop is dear in Go.
func scanString(b []byte, i int) int {
	i++
	for i+8 <= len(b) {
		w := le.Uint64(b[i:])
		found := zeroBytes(w^ones*'"') | zeroBytes(w^ones*'\\')
		if found == 0 {
			i += 8
			continue
		}
		i += bits.TrailingZeros64(found) / 8
		if b[i] == '"' {
			return i + 1
		}
		i += 2
	}
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
	return -1
}

// scanValue returns the end of the value that begins at i, -1 if the record
// ends inside it. A bare value needs a delimiter behind it: a number at the
// end of the bytes may be a part of one.
func scanValue(b []byte, i int) int {
	switch b[i] {
	case '"':
		return scanString(b, i)
	case '{', '[':
		for depth := 0; i < len(b); i++ {
			switch b[i] {
			case '"':
				if i = scanString(b, i); i < 0 {
					return -1
				}
				i--
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
		}
		return -1
	}
	for ; i < len(b); i++ {
		if c := b[i]; c == ',' || c == '}' || c == ']' || isSpace(c) {
			return i
		}
	}
	return -1
}

// number reads the digits as a decimal number; all but digits, '.' and '-' is
// passed over.
func number(b []byte) float64 {
	var v, scale float64
	negative := false
	for _, c := range b {
		switch {
		case c >= '0' && c <= '9':
			v = v*10 + float64(c-'0')
			scale *= 10
		case c == '.':
			scale = 1
		case c == '-':
			negative = true
		}
	}
	if scale > 0 {
		v /= scale
	}
	if negative {
		return -v
	}
	return v
}
