package rewrite

import "unicode/utf8"

// reader walks b from pos to end. Offsets are those of the module. Every
// method fails rather than read past end.
type reader struct {
	b        []byte
	pos, end int
}

func (r *reader) left() int { return r.end - r.pos }

func (r *reader) byte(what string) (byte, *RefusedError) {
	if r.pos >= r.end {
		return 0, malformed(r.pos, "it ends within %s", what)
	}
	c := r.b[r.pos]
	r.pos++
	return c, nil
}

func (r *reader) take(n int, what string) ([]byte, *RefusedError) {
	if n < 0 || n > r.left() {
		return nil, malformed(r.pos, "%s needs %d bytes, %d are left", what, n, r.left())
	}
	s := r.b[r.pos : r.pos+n : r.pos+n]
	r.pos += n
	return s, nil
}

func (r *reader) u32(what string) (uint32, *RefusedError) {
	if r.pos < r.end && r.b[r.pos] < 0x80 {
		r.pos++
		return uint32(r.b[r.pos-1]), nil
	}
	v, n := uvarint32(r.b[r.pos:r.end])
	if n <= 0 {
		return 0, malformed(r.pos, "%s is not a valid LEB128 number of 32 bits", what)
	}
	r.pos += n
	return v, nil
}

// count reads the length of a vector whose items take at least itemBytes
// each, and refuses one that cannot fit.
func (r *reader) count(what string, itemBytes int) (int, *RefusedError) {
	at := r.pos
	n, err := r.u32("the number of " + what)
	if err != nil {
		return 0, err
	}
	if uint64(n)*uint64(itemBytes) > uint64(r.left()) {
		return 0, malformed(at, "it announces %d %s in %d bytes", n, what, r.left())
	}
	return int(n), nil
}

// name reads a UTF-8 string without copying it.
func (r *reader) name(what string) ([]byte, *RefusedError) {
	at := r.pos
	n, err := r.u32("the length of " + what)
	if err != nil {
		return nil, err
	}
	if uint64(n) > uint64(r.left()) {
		return nil, malformed(at, "%s announces %d bytes, %d are left", what, n, r.left())
	}
	s, err := r.take(int(n), what)
	if err != nil {
		return nil, err
	}
	if !utf8.Valid(s) {
		return nil, malformed(at, "%s is not valid UTF-8", what)
	}
	return s, nil
}

// uvarint32 decodes an unsigned LEB128 of at most 32 bits. The length is 0 if
// b is too short or the number too large.
func uvarint32(b []byte) (uint32, int) {
	var v uint32
	for i := 0; i < 5 && i < len(b); i++ {
		c := b[i]
		if c < 0x80 {
			if i == 4 && c > 0x0f {
				return 0, 0
			}
			return v | uint32(c)<<(7*i), i + 1
		}
		v |= uint32(c&0x7f) << (7 * i)
	}
	return 0, 0
}

// varint decodes a signed LEB128 of the given width (32, 33 or 64 bits). The
// length is 0 if b is too short or the number does not fit.
func varint(b []byte, bits int) (int64, int) {
	var v int64
	last := (bits+6)/7 - 1
	for i := 0; i <= last && i < len(b); i++ {
		c := b[i]
		shift := 7 * i
		v |= int64(c&0x7f) << shift
		if c >= 0x80 {
			continue
		}
		if i == last {
			// The bits of the last byte beyond the width repeat the sign.
			used := bits - shift
			rest := int8(c<<1) >> used
			if rest != 0 && rest != -1 {
				return 0, 0
			}
		}
		if shift+7 < 64 && c&0x40 != 0 {
			v |= -1 << (shift + 7)
		}
		return v, i + 1
	}
	return 0, 0
}

// appendUvarint appends v as an unsigned LEB128 of minimal length.
func appendUvarint(b []byte, v uint32) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func appendName(b []byte, s string) []byte {
	return append(appendUvarint(b, uint32(len(s))), s...)
}
