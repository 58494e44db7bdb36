package registry

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/millrace-io/millrace/runtime/record"
)

// MaxDepth is how deep arrays and objects of decoded JSON may be nested: what
// expressions read.
const MaxDepth = 512

// maxJSON bounds the JSON of a payload, in bytes: some types take no byte on
// the wire.
func maxJSON(payload int) int { return min(1<<20+64*payload, 64<<20) }

// decodeError says what does not fit, and where.
type decodeError struct {
	// at is the offset in the record's value.
	at    int
	msg   string
	class record.Class
	// path is that of the field, inside out.
	path []string
}

// place is the path as expressions write it; empty for the root.
func (e *decodeError) place() string {
	var sb strings.Builder
	for i := len(e.path) - 1; i >= 0; i-- {
		if p := e.path[i]; p[0] != '[' && sb.Len() > 0 {
			sb.WriteByte('.')
		}
		if sb.WriteString(e.path[i]); sb.Len() > 200 {
			return sb.String()[:200] + "..."
		}
	}
	return sb.String()
}

func (e *decodeError) in(step string) *decodeError {
	e.path = append(e.path, step)
	return e
}

// decoding is one value on its way from Avro to JSON.
type decoding struct {
	in    []byte // the record's value, with its header
	pos   int
	out   []byte
	limit int // of out, in bytes
	depth int
}

// decode makes the JSON of value, whose payload begins behind the header, in
// the memory of scratch if it is large enough.
func (s *avroSchema) decode(scratch, value []byte) ([]byte, *decodeError) {
	d := decoding{in: value, pos: headerSize, out: scratch[:0], limit: maxJSON(len(value))}
	if s.root.shape == shapeBytes {
		// The serializers of the format write such a value as it is, without
		// its length.
		d.bytes(value[headerSize:])
		return d.out, nil
	}
	if err := d.value(s.root); err != nil {
		return d.out, err
	}
	if left := len(d.in) - d.pos; left > 0 {
		return d.out, d.fail(d.pos, "%d bytes are left behind the value", left)
	}
	return d.out, nil
}

func (d *decoding) fail(at int, format string, args ...any) *decodeError {
	return &decodeError{at: at, class: record.Schema, msg: fmt.Sprintf(format, args...)}
}

// end is the failure of a value that is cut off.
func (d *decoding) end() *decodeError {
	return d.fail(len(d.in), "the value ends too early")
}

func (d *decoding) value(n *node) *decodeError {
	if len(d.out) > d.limit {
		return &decodeError{at: d.pos, class: record.TooLarge, msg: fmt.Sprintf("its JSON has more than %d bytes", d.limit)}
	}
	switch n.shape {
	case shapeNull:
		d.out = append(d.out, "null"...)
		return nil
	case shapeBoolean:
		return d.boolean()
	case shapeInt:
		return d.int()
	case shapeLong:
		v, err := d.long()
		d.out = strconv.AppendInt(d.out, v, 10)
		return err
	case shapeFloat:
		b, err := d.take(4)
		if err == nil {
			d.out = appendFloat(d.out, float64(math.Float32frombits(binary.LittleEndian.Uint32(b))), 32)
		}
		return err
	case shapeDouble:
		b, err := d.take(8)
		if err == nil {
			d.out = appendFloat(d.out, math.Float64frombits(binary.LittleEndian.Uint64(b)), 64)
		}
		return err
	case shapeString:
		return d.string()
	case shapeEnum:
		return d.enum(n)
	case shapeUnion:
		return d.union(n)
	case shapeRecord, shapeArray, shapeMap:
		return d.nested(n)
	}
	return d.binary(n)
}

// nested is a value that holds others.
func (d *decoding) nested(n *node) *decodeError {
	if d.depth++; d.depth > MaxDepth {
		return d.fail(d.pos, "it is nested more than %d deep", MaxDepth)
	}
	var err *decodeError
	switch n.shape {
	case shapeRecord:
		err = d.record(n)
	case shapeArray:
		err = d.array(n)
	default:
		err = d.mapping(n)
	}
	d.depth--
	return err
}

func (d *decoding) record(n *node) *decodeError {
	for i := range n.fields {
		f := &n.fields[i]
		d.out = append(d.out, f.prefix...)
		if err := d.value(f.node); err != nil {
			return err.in(f.name)
		}
	}
	if len(n.fields) == 0 {
		d.out = append(d.out, '{')
	}
	d.out = append(d.out, '}')
	return nil
}

func (d *decoding) array(n *node) *decodeError {
	d.out = append(d.out, '[')
	for i := 0; ; {
		count, err := d.block()
		if err != nil {
			return err
		}
		if count == 0 {
			d.out = append(d.out, ']')
			return nil
		}
		for ; count > 0; count-- {
			if i > 0 {
				d.out = append(d.out, ',')
			}
			if err := d.value(n.elem); err != nil {
				return err.in("[" + strconv.Itoa(i) + "]")
			}
			i++
		}
	}
}

func (d *decoding) mapping(n *node) *decodeError {
	d.out = append(d.out, '{')
	for first := true; ; {
		count, err := d.block()
		if err != nil {
			return err
		}
		if count == 0 {
			d.out = append(d.out, '}')
			return nil
		}
		for ; count > 0; count-- {
			if !first {
				d.out = append(d.out, ',')
			}
			first = false
			at := d.pos
			if err := d.string(); err != nil {
				err.msg = "the key of a map: " + err.msg
				return err
			}
			d.out = append(d.out, ':')
			if err := d.value(n.elem); err != nil {
				return err.in(keyAt(d.in, at))
			}
		}
	}
}

// keyAt is the key of a map that stands at an offset, for a path.
func keyAt(in []byte, at int) string {
	d := decoding{in: in, pos: at}
	size, err := d.long()
	if err != nil || size <= 0 {
		return `""`
	}
	return string(in[d.pos : d.pos+int(min(size, 60))])
}

// block reads how many items follow; 0 is the end. The size in bytes that a
// writer may give besides is for those who skip.
func (d *decoding) block() (int64, *decodeError) {
	at := d.pos
	count, err := d.long()
	if err != nil || count >= 0 {
		return count, err
	}
	if count == math.MinInt64 {
		return 0, d.fail(at, "a block of %d items", count)
	}
	at = d.pos
	size, err := d.long()
	if err == nil && (size < 0 || size > int64(len(d.in)-d.pos)) {
		err = d.fail(at, "a block of %d bytes, and %d are left", size, len(d.in)-d.pos)
	}
	return -count, err
}

// take is the next size bytes.
func (d *decoding) take(size int) ([]byte, *decodeError) {
	if size > len(d.in)-d.pos {
		return nil, d.end()
	}
	b := d.in[d.pos : d.pos+size]
	d.pos += size
	return b, nil
}

// sized is a run of bytes with its length before it.
func (d *decoding) sized() ([]byte, *decodeError) {
	at := d.pos
	size, err := d.long()
	if err != nil {
		return nil, err
	}
	if size < 0 || size > int64(len(d.in)-d.pos) {
		return nil, d.fail(at, "a length of %d bytes, and %d are left", size, len(d.in)-d.pos)
	}
	return d.take(int(size))
}

// long reads a number of at most 64 bits in zigzag form.
func (d *decoding) long() (int64, *decodeError) {
	if d.pos < len(d.in) && d.in[d.pos] < 0x80 {
		b := d.in[d.pos]
		d.pos++
		return int64(b>>1) ^ -int64(b&1), nil
	}
	v, size := binary.Varint(d.in[d.pos:])
	switch {
	case size == 0:
		return 0, d.end()
	case size < 0:
		return 0, d.fail(d.pos, "a number of more than 64 bits")
	}
	d.pos += size
	return v, nil
}

func (d *decoding) int() *decodeError {
	at := d.pos
	v, err := d.long()
	if err != nil {
		return err
	}
	if v != int64(int32(v)) {
		return d.fail(at, "an int of more than 32 bits, %d", v)
	}
	d.out = strconv.AppendInt(d.out, v, 10)
	return nil
}

func (d *decoding) boolean() *decodeError {
	b, err := d.take(1)
	if err != nil {
		return err
	}
	if b[0] > 1 {
		return d.fail(d.pos-1, "a boolean that is neither 0 nor 1, %d", b[0])
	}
	d.out = strconv.AppendBool(d.out, b[0] == 1)
	return nil
}

func (d *decoding) string() *decodeError {
	b, err := d.sized()
	if err != nil {
		return err
	}
	if !utf8.Valid(b) {
		return d.fail(d.pos-len(b), "a string that is no UTF-8")
	}
	d.out = appendText(d.out, b)
	return nil
}

func (d *decoding) enum(n *node) *decodeError {
	at := d.pos
	i, err := d.long()
	if err != nil {
		return err
	}
	if i < 0 || i >= int64(len(n.symbols)) {
		return d.fail(at, "symbol %d of an enum that has %d", i, len(n.symbols))
	}
	d.out = append(d.out, n.symbols[i]...)
	return nil
}

func (d *decoding) union(n *node) *decodeError {
	at := d.pos
	i, err := d.long()
	if err != nil {
		return err
	}
	if i < 0 || i >= int64(len(n.branches)) {
		return d.fail(at, "branch %d of a union that has %d", i, len(n.branches))
	}
	return d.value(n.branches[i])
}

// binary is a value whose bytes are not text.
func (d *decoding) binary(n *node) *decodeError {
	var (
		b   []byte
		err *decodeError
	)
	if n.shape == shapeBytes || n.shape == shapeDecimal && n.size == 0 {
		b, err = d.sized()
	} else {
		b, err = d.take(n.size)
	}
	if err != nil {
		return err
	}
	switch n.shape {
	case shapeUUID:
		d.out = appendUUID(d.out, b)
	case shapeDuration:
		d.out = appendDuration(d.out, b)
	case shapeDecimal:
		if len(b) > maxDecimal {
			return d.fail(d.pos-len(b), "a decimal of %d bytes, more than %d", len(b), maxDecimal)
		}
		d.out = appendDecimal(d.out, b, n.scale)
	default:
		d.bytes(b)
	}
	return nil
}

func (d *decoding) bytes(b []byte) {
	d.out = append(d.out, '"')
	d.out = base64.StdEncoding.AppendEncode(d.out, b)
	d.out = append(d.out, '"')
}
