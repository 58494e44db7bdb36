package millrace

import (
	"encoding/binary"
	"unsafe"
)

// The stage/1 frame. docs/reference/abi.md has the whole of it.
const (
	batchBytes  = 32
	recordBytes = 72

	frameVersion            = 1
	kindRequest, kindResult = 1, 2

	outcomeEmit, outcomeDrop, outcomeRetry, outcomeFail = 0, 1, 2, 3

	sameKey, sameValue, sameHeaders, sameTimestamp = 1, 2, 4, 8
	flagKeyNull, flagValueNull, flagRedelivered    = 1, 2, 4

	byKey = -1
)

var le = binary.LittleEndian

// newBuffer returns an empty buffer of at least that capacity that begins at a
// multiple of 8, as the host wants it.
func newBuffer(capacity int) []byte {
	words := make([]uint64, (capacity+7)/8)
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), 8*len(words))[:0]
}

// grown returns b with room for n bytes more.
//
//go:noinline
func grown(b []byte, n int) []byte {
	to := newBuffer(max(len(b)+n, len(b)+len(b)/2) + 8)[:len(b)]
	copy(to, b)
	return to
}

// view is b as a string, without a copy.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// bytesOf is s as bytes that nobody writes to, without a copy.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// sameSlice tells whether a is b itself, not a copy of it.
func sameSlice(a, b []byte) bool {
	return unsafe.SliceData(a) == unsafe.SliceData(b) && len(a) == len(b)
}

// request is the header of a batch and where its parts lie.
type request struct {
	frame, topics []byte
	count         uint32
	id            uint64
	now           int64
	first         int
}

// readRequest looks at the batch header; false if the frame is none of ours.
func readRequest(frame []byte) (request, bool) {
	if len(frame) < batchBytes || le.Uint16(frame[6:]) != kindRequest {
		return request{}, false
	}
	table := int64(le.Uint32(frame[12:]))
	if table > int64(len(frame)-batchBytes) {
		return request{}, false
	}
	first := batchBytes + int(table)
	return request{
		frame: frame, topics: frame[batchBytes:first], count: le.Uint32(frame[8:]),
		id: le.Uint64(frame[16:]), now: int64(le.Uint64(frame[24:])), first: first,
	}, true
}

// record reads the record at that place into r and returns where the next one
// begins; -1 if it is broken.
func (q *request) record(at int, r *Record) int {
	rest := q.frame[at:]
	if len(rest) < recordBytes {
		return -1
	}
	length := uint64(le.Uint32(rest))
	headersEnd := recordBytes + uint64(le.Uint32(rest[48:]))
	keyEnd := headersEnd + uint64(le.Uint32(rest[40:]))
	valueEnd := keyEnd + uint64(le.Uint32(rest[44:]))
	if valueEnd > length || length > uint64(len(rest)) {
		return -1
	}
	r.frame = rest[:length]
	r.headersEnd, r.keyEnd, r.valueEnd = int(headersEnd), int(keyEnd), int(valueEnd)
	r.id, r.flags = le.Uint32(rest[4:]), le.Uint16(rest[10:])
	r.scanned, r.listed = false, false
	return at + int(length)
}

// answer is what the header of an emitted record says beside its lengths.
type answer struct {
	// head holds outcome, same bits, flags, output and number of headers.
	head       uint64
	timestamp  int64
	partition  int32
	keyLen     uint32
	headersLen uint32
}

// put writes the header of the answer to r, which fills b; its value has n bytes.
func (a *answer) put(b []byte, r *Record, n int) {
	h := b[:recordBytes]
	le.PutUint64(h, uint64(len(b))|uint64(r.id)<<32)
	le.PutUint64(h[8:], a.head)
	le.PutUint64(h[16:], 0)
	le.PutUint64(h[24:], uint64(a.timestamp))
	le.PutUint64(h[32:], uint64(uint32(a.partition)))
	le.PutUint64(h[40:], uint64(a.keyLen)|uint64(n)<<32)
	le.PutUint64(h[48:], uint64(a.headersLen))
	le.PutUint64(h[56:], 0)
	le.PutUint64(h[64:], 0)
}
