package millrace

import "unicode/utf8"

// Record is a record of the batch: a view of the host's bytes, copied nowhere.
// It and all that it hands out, strings too, hold until the stage returns. Copy
// what is kept longer. Nothing may write to its bytes.
type Record struct {
	frame                        []byte
	headersEnd, keyEnd, valueEnd int
	id                           uint32
	flags                        uint16
	scanned, listed              bool
	headers                      []Header
	object                       Object
	request                      *request
}

// Header is a header of a record.
type Header struct {
	// Name is UTF-8 as a rule.
	Name string
	// Value is empty for a null.
	Value []byte
}

// Key is the key; nil if it is null.
func (r *Record) Key() []byte {
	if r.flags&flagKeyNull != 0 {
		return nil
	}
	return r.frame[r.headersEnd:r.keyEnd:r.keyEnd]
}

// Value is the value; nil if it is null: a tombstone.
func (r *Record) Value() []byte {
	if r.flags&flagValueNull != 0 {
		return nil
	}
	return r.frame[r.keyEnd:r.valueEnd:r.valueEnd]
}

// Text is the value as text. A tombstone, or a value that is no UTF-8, is a
// failure with code 1.
func (r *Record) Text() (string, error) {
	v := r.Value()
	if v == nil {
		return "", tombstone()
	}
	if !utf8.Valid(v) {
		return "", Fail(1, "the value is no text: it is not UTF-8")
	}
	return view(v), nil
}

// JSON is the value as a JSON object that is valid as a whole. Anything else is
// a failure with code 1 that names the byte.
func (r *Record) JSON() (*Object, error) {
	if r.flags&flagValueNull != 0 {
		return nil, tombstone()
	}
	o := r.Scan()
	if err := o.Err(); err != nil {
		return nil, err
	}
	return o, nil
}

// Scan is the value as a JSON object that is read member by member: a fault
// shows only behind the members before it. It is for stages that decide early.
func (r *Record) Scan() *Object {
	if !r.scanned {
		r.scanned = true
		r.object.reset(r.frame[r.keyEnd:r.valueEnd])
	}
	return &r.object
}

// Headers are the headers in order; a name may occur several times.
func (r *Record) Headers() []Header {
	if !r.listed {
		r.listed = true
		r.headers = r.headers[:0]
		rest := r.headerBytes()
		for range r.headerCount() {
			h, behind, ok := cutHeader(rest)
			if !ok {
				break
			}
			r.headers = append(r.headers, h)
			rest = behind
		}
	}
	return r.headers
}

// Header is the value of the last header of that name; false if there is none.
func (r *Record) Header(name string) (value []byte, ok bool) {
	for _, h := range r.Headers() {
		if h.Name == name {
			value, ok = h.Value, true
		}
	}
	return value, ok
}

// Topic is the topic it was read from.
func (r *Record) Topic() string {
	table := r.request.topics
	for n := le.Uint16(r.frame[12:]); len(table) >= 2; n-- {
		length := int(le.Uint16(table))
		if 2+length > len(table) {
			break
		}
		if n == 0 {
			return view(table[2 : 2+length])
		}
		table = table[2+length:]
	}
	return ""
}

// Partition is the partition it was read from.
func (r *Record) Partition() int32 { return int32(le.Uint32(r.frame[32:])) }

// Offset is its offset in the partition.
func (r *Record) Offset() int64 { return int64(le.Uint64(r.frame[16:])) }

// Timestamp is its time in Unix milliseconds.
func (r *Record) Timestamp() int64 { return int64(le.Uint64(r.frame[24:])) }

// Attempt says how often it is tried, from 1.
func (r *Record) Attempt() uint32 { return le.Uint32(r.frame[36:]) }

// Redelivered tells whether an earlier run may have processed it already.
func (r *Record) Redelivered() bool { return r.flags&flagRedelivered != 0 }

// TraceID is the trace that it belongs to; zeros for none.
func (r *Record) TraceID() (id [16]byte) {
	copy(id[:], r.frame[56:recordBytes])
	return id
}

// Now is the time of the batch in Unix milliseconds: the only clock of a stage.
// A replay sees the same.
func (r *Record) Now() int64 { return r.request.now }

// BatchID identifies the call, not the record: after a failure a record may
// come again in another call.
func (r *Record) BatchID() uint64 { return r.request.id }

func (r *Record) headerBytes() []byte { return r.frame[recordBytes:r.headersEnd] }

func (r *Record) headerCount() int { return int(le.Uint16(r.frame[14:])) }

// cutHeader reads the first header of b and what lies behind it.
func cutHeader(b []byte) (h Header, rest []byte, ok bool) {
	if len(b) < 6 {
		return h, nil, false
	}
	nameEnd := 6 + uint64(le.Uint16(b))
	end := nameEnd + uint64(le.Uint32(b[2:]))
	if end > uint64(len(b)) {
		return h, nil, false
	}
	return Header{view(b[6:nameEnd]), b[nameEnd:end:end]}, b[end:], true
}

//go:noinline
func tombstone() error { return Fail(1, "the record has no value (a tombstone)") }
