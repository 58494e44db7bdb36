package registry

import (
	"encoding/binary"
	"encoding/hex"
	"math"
	"math/big"
	"strconv"
)

const hexDigits = "0123456789abcdef"

// appendText appends s, which is UTF-8, as a JSON string, escaping only what
// has to be.
func appendText[T string | []byte](b []byte, s T) []byte {
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[from:i]...)
		from = i + 1
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
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	b = append(b, s[from:]...)
	return append(b, '"')
}

// appendFloat appends the shortest text that reads back as f in its bits, with
// a point or an exponent, so that no reader takes it for an integer. What is
// no number becomes a string.
func appendFloat(b []byte, f float64, bits int) []byte {
	switch {
	case math.IsNaN(f):
		return append(b, `"NaN"`...)
	case math.IsInf(f, 1):
		return append(b, `"Infinity"`...)
	case math.IsInf(f, -1):
		return append(b, `"-Infinity"`...)
	}
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		return strconv.AppendFloat(b, f, 'e', -1, bits)
	}
	from := len(b)
	b = strconv.AppendFloat(b, f, 'f', -1, bits)
	if f == math.Trunc(f) {
		for _, c := range b[from:] {
			if c == '.' {
				return b
			}
		}
		return append(b, ".0"...)
	}
	return b
}

// maxDecimal bounds a decimal on the wire, in bytes.
const maxDecimal = 1 << 10

// appendDecimal appends the number in two's complement, the highest byte
// first, divided by 10 to the scale, as a string with exactly scale digits
// behind the point.
func appendDecimal(b, wire []byte, scale int) []byte {
	var digits []byte
	var small [24]byte
	negative := len(wire) > 0 && wire[0]&0x80 != 0
	if len(wire) <= 8 {
		var v uint64
		if negative {
			v = math.MaxUint64
		}
		for _, c := range wire {
			v = v<<8 | uint64(c)
		}
		if negative {
			v = -v
		}
		digits = strconv.AppendUint(small[:0], v, 10)
	} else {
		v := new(big.Int).SetBytes(wire)
		if negative {
			v.Sub(v, new(big.Int).Lsh(big.NewInt(1), uint(len(wire))*8))
		}
		digits = v.Abs(v).Append(nil, 10)
	}
	b = append(b, '"')
	if negative {
		b = append(b, '-')
	}
	if whole := len(digits) - scale; whole > 0 {
		b = append(b, digits[:whole]...)
		digits = digits[whole:]
	} else {
		b = append(b, '0')
	}
	if scale > 0 {
		b = append(b, '.')
		for range scale - len(digits) {
			b = append(b, '0')
		}
		b = append(b, digits...)
	}
	return append(b, '"')
}

// appendUUID appends 16 bytes as RFC 9562 writes them.
func appendUUID(b, wire []byte) []byte {
	b = append(b, '"')
	for i, end := range [...]int{4, 6, 8, 10, 16} {
		if i > 0 {
			b = append(b, '-')
		}
		b = hex.AppendEncode(b, wire[[...]int{0, 4, 6, 8, 10}[i]:end])
	}
	return append(b, '"')
}

// appendDuration appends 12 bytes as months, days and milliseconds.
func appendDuration(b, wire []byte) []byte {
	for i, name := range [...]string{`{"months":`, `,"days":`, `,"millis":`} {
		b = append(b, name...)
		b = strconv.AppendUint(b, uint64(binary.LittleEndian.Uint32(wire[4*i:])), 10)
	}
	return append(b, '}')
}
