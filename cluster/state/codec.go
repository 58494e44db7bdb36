package state

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/uuid"
)

// ErrMalformed is in the chain of every error about bytes that are no valid
// key, value, command or entry: they were damaged, or written by a program
// that is not this one.
var ErrMalformed = errors.New("malformed bytes")

func putUint(b []byte, v uint64) []byte { return binary.AppendUvarint(b, v) }
func putInt(b []byte, v int64) []byte   { return binary.AppendVarint(b, v) }

func putBytes(b, v []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

func putString(b []byte, v string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

func putBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// putNilBytes keeps nil apart from empty: 0 is nil, else the length plus one.
func putNilBytes(b, v []byte) []byte {
	if v == nil {
		return append(b, 0)
	}
	return append(binary.AppendUvarint(b, uint64(len(v))+1), v...)
}

// decoder reads what the put functions write. After the first fault every read
// returns zero; err tells.
type decoder struct {
	b   []byte
	err error
	// form is the version of the command that is read.
	form byte
	// packed says that the call that was read has a compressed input.
	packed bool
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("%s: %w", what, ErrMalformed)
	}
	d.b = nil
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail("number cut short or too large")
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) int() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail("number cut short or too large")
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) uint32() uint32 {
	v := d.uint()
	if v > 1<<32-1 {
		d.fail("number beyond 32 bits")
		return 0
	}
	return uint32(v)
}

func (d *decoder) uint16() uint16 {
	v := d.uint()
	if v > 1<<16-1 {
		d.fail("number beyond 16 bits")
		return 0
	}
	return uint16(v)
}

func (d *decoder) int32() int32 {
	v := d.int()
	if int64(int32(v)) != v {
		d.fail("number beyond 32 bits")
		return 0
	}
	return int32(v)
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail("cut short")
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) bool() bool {
	v := d.byte()
	if v > 1 {
		d.fail("a flag is neither 0 nor 1")
	}
	return v == 1
}

// fixed returns n bytes of the input itself.
func (d *decoder) fixed(n int) []byte {
	if n < 0 || len(d.b) < n {
		d.fail("cut short")
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

// view returns a length-prefixed part of the input itself; bytes copies it.
func (d *decoder) view() []byte {
	n := d.uint()
	if n > uint64(len(d.b)) {
		d.fail("cut short")
		return nil
	}
	return d.fixed(int(n))
}

func (d *decoder) bytes() []byte {
	v := d.view()
	if len(v) == 0 {
		return nil
	}
	return append([]byte(nil), v...)
}

func (d *decoder) string() string { return string(d.view()) }

func (d *decoder) nilBytes() []byte {
	n := d.uint()
	if n == 0 {
		return nil
	}
	if n-1 > uint64(len(d.b)) {
		d.fail("cut short")
		return nil
	}
	return append([]byte{}, d.fixed(int(n-1))...)
}

func (d *decoder) uuid() (id uuid.UUID) {
	copy(id[:], d.fixed(16))
	return id
}

func (d *decoder) digest() (v Digest) {
	copy(v[:], d.fixed(32))
	return v
}

func (d *decoder) fixed64() uint64 {
	v := d.fixed(8)
	if v == nil {
		return 0
	}
	return binary.BigEndian.Uint64(v)
}

// count reads the length of a list whose elements take at least min bytes, so
// that no list claims more memory than its input could fill.
func (d *decoder) count(min int) int {
	n := d.uint()
	if n > uint64(len(d.b)/min) {
		d.fail("list cut short")
		return 0
	}
	return int(n)
}

func (d *decoder) version(want byte) {
	if v := d.byte(); v != want && d.err == nil {
		d.fail(fmt.Sprintf("version %d, this program knows version %d", v, want))
	}
}

// end reports the first fault, or that bytes are left over.
func (d *decoder) end() error {
	if d.err == nil && len(d.b) > 0 {
		d.fail(fmt.Sprintf("%d bytes left over", len(d.b)))
	}
	return d.err
}

func putStrings(b []byte, v []string) []byte {
	b = putUint(b, uint64(len(v)))
	for _, s := range v {
		b = putString(b, s)
	}
	return b
}

func (d *decoder) strings() []string {
	n := d.count(1)
	if n == 0 {
		return nil
	}
	v := make([]string, n)
	for i := range v {
		v[i] = d.string()
	}
	return v
}
