package main

import (
	"strconv"

	millrace "github.com/millrace-io/millrace/pdk/go"
)

// Codes of failures.
const (
	codeFrame    = 1 // no frame, or a wrong escape
	codeChecksum = 2
	codeHeader   = 3 // a header that is cut off, or lies about the length
	codeBody     = 4
)

const (
	flag    = 0x7e
	escaped = 0x7d
)

// frame is a message without its framing.
type frame struct {
	id, serial uint16
	// version is 2013 or 2019: the year of the header's form.
	version int
	// protocol is the terminal's number of the revision; 2019 only.
	protocol uint8
	// phone is without leading zeros, so that it is the same in both forms.
	phone string
	// encrypted: the body is not readable.
	encrypted bool
	// total is the number of packets that the message is split into, index the
	// one that this is, from 1; 0: it is whole.
	total, index uint16
	body         []byte
}

// unwrap appends to buf what stands between the flags of b, without escapes.
func unwrap(buf, b []byte) ([]byte, error) {
	if len(b) < 2 || b[0] != flag || b[len(b)-1] != flag {
		return nil, millrace.Fail(codeFrame, "no frame: it does not begin and end with 0x7e")
	}
	for i := 1; i < len(b)-1; i++ {
		c := b[i]
		switch {
		case c == flag:
			return nil, millrace.Fail(codeFrame, "0x7e inside the frame at byte "+strconv.Itoa(i)+": one record is one frame")
		case c != escaped:
		case b[i+1] == 1:
			i++
		case b[i+1] == 2:
			c = flag
			i++
		default:
			return nil, millrace.Fail(codeFrame, "0x7d without 0x01 or 0x02 behind it at byte "+strconv.Itoa(i))
		}
		buf = append(buf, c)
	}
	return buf, nil
}

// parse reads header and checksum of an unwrapped frame. The body is a view.
func parse(b []byte) (f frame, err error) {
	if len(b) < 1 {
		return f, millrace.Fail(codeHeader, "an empty frame")
	}
	sum := byte(0)
	for _, c := range b[:len(b)-1] {
		sum ^= c
	}
	if want := b[len(b)-1]; sum != want {
		return f, millrace.Fail(codeChecksum, "the checksum is "+hexByte(want)+", the bytes give "+hexByte(sum))
	}
	r := reader{b: b[:len(b)-1]}
	f.id = r.u16()
	properties := r.u16()
	f.version = 2013
	digits := 6
	if properties&(1<<14) != 0 {
		f.version, digits = 2019, 10
		f.protocol = r.u8()
	}
	f.phone = phone(r.take(digits))
	f.serial = r.u16()
	f.encrypted = properties>>10&7 != 0
	if properties&(1<<13) != 0 {
		f.total, f.index = r.u16(), r.u16()
	}
	length := int(properties & 0x3ff)
	if r.short || f.phone == "" {
		return f, millrace.Fail(codeHeader, "the header is cut off, or its phone number is no BCD")
	}
	if f.body = r.b; len(f.body) != length {
		return f, millrace.Fail(codeHeader, "the header says that the body has "+strconv.Itoa(length)+" bytes, it has "+strconv.Itoa(len(f.body)))
	}
	return f, nil
}

// reader takes numbers, the high byte first, off the front of b.
type reader struct {
	b []byte
	// short: there was less than asked for. What was read then is zero.
	short bool
}

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.short = true
		n = len(r.b)
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) number(n int) uint32 {
	v := uint32(0)
	for _, c := range r.take(n) {
		v = v<<8 | uint32(c)
	}
	return v
}

func (r *reader) u8() uint8   { return uint8(r.number(1)) }
func (r *reader) u16() uint16 { return uint16(r.number(2)) }
func (r *reader) u32() uint32 { return r.number(4) }

// bcd is two decimal digits for each byte; empty if one is none.
func bcd(b []byte) string {
	s := make([]byte, 0, 2*len(b))
	for _, c := range b {
		if c>>4 > 9 || c&15 > 9 {
			return ""
		}
		s = append(s, '0'+c>>4, '0'+c&15)
	}
	return string(s)
}

func phone(b []byte) string {
	s := bcd(b)
	for len(s) > 1 && s[0] == '0' {
		s = s[1:]
	}
	return s
}

func hexByte(c byte) string {
	const digits = "0123456789abcdef"
	return "0x" + string([]byte{digits[c>>4], digits[c&15]})
}
