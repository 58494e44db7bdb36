package abi

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/millrace-io/millrace/runtime/record"
)

// maxMessage bounds what is kept of a guest's message, in bytes.
const maxMessage = 8 << 10

// Output is one output of a plugin, in the order of its manifest.
type Output struct {
	Name string
	// Bound says that the flow takes what is emitted there.
	Bound bool
}

// Decoder reads result frames. The zero value knows one output, the default.
// It keeps its scratch memory between frames and is for one goroutine at a
// time.
type Decoder struct {
	// Outputs the guest may emit to; empty means the default one alone.
	Outputs []Output
	// MaxEmits and MaxHeaders bound the emissions of a frame and the headers
	// in them, which take more memory decoded than in the frame; 0 means no
	// bound. A frame that exceeds one is an error of class too_large.
	MaxEmits, MaxHeaders int

	answers []answered
}

// answered is what a frame said about one record.
type answered struct {
	emits uint32
	next  uint32
	// final is an outcome other than Emit, plus one.
	final uint8
}

// Decode reads the answers to records from frame, which it distrusts, and
// appends them to out. The frame is copied once, unless it says nothing but
// "same"; out refers to the copy and to records, never to frame. base is added
// to the index in each answer, for a part of a larger batch.
//
// An emitted record keeps its input's source, trace, attempt and path; when
// the same input is emitted n > 1 times the paths are its children 0 to n-1.
// Retry becomes a failure of class retryable, fail one of class rejected; both
// come without a Replay.
//
// An error is a *record.Error of class protocol that says which rule the guest
// broke and for which record, or of class too_large for a frame beyond
// MaxEmits or MaxHeaders; out is then as it was before.
func (d *Decoder) Decode(frame []byte, batchID uint64, records []record.Record, base int, out *record.Results) error {
	t, err := d.check(frame, batchID, records)
	if err != nil {
		return err
	}
	if t.bytes > 0 {
		frame = append([]byte(nil), frame...)
	}
	var headers []record.Header
	if t.headers > 0 {
		headers = make([]record.Header, t.headers)
	}
	before := out.Mark()
	out.Emits = grow(out.Emits, t.emits)
	for p := t.start; p < len(frame); {
		b := (*[RecordSize]byte)(frame[p:])
		id := int(le.Uint32(b[recID:]))
		in := &records[id]
		switch Outcome(b[recOutcome]) {
		case Emit:
			n := len(out.Emits)
			out.Emits = out.Emits[:n+1]
			e := &out.Emits[n]
			e.In = int32(base + id)
			e.Output = le.Uint16(b[recTopic:])
			e.Record = *in
			e.Record.To = int32(le.Uint32(b[recPartition:]))
			headers = take(&e.Record, frame, p, b, headers)
			if a := &d.answers[id]; a.emits > 1 {
				path, err := in.Path.Child(int(a.next))
				if err != nil {
					out.Rewind(before)
					return record.AsError(err)
				}
				a.next++
				e.Record.Path = path
			}
		case Drop:
			out.Drops = append(out.Drops, int32(base+id))
		case Retry:
			e := &record.Error{Class: record.Retryable, Code: le.Uint32(b[recAttempt:]), Message: message(frame, p, b)}
			e.RetryAfter = time.Duration(min(le.Uint64(b[recOffset:]), math.MaxInt64/uint64(time.Millisecond))) * time.Millisecond
			out.Failures = append(out.Failures, record.Failure{In: int32(base + id), Err: e})
		case Fail:
			e := &record.Error{Class: record.Rejected, Code: le.Uint32(b[recAttempt:]), Message: message(frame, p, b)}
			out.Failures = append(out.Failures, record.Failure{In: int32(base + id), Err: e})
		}
		p += int(le.Uint32(b[recLength:]))
	}
	return nil
}

// take gives r what the answer at p sends instead of the input's own, and
// returns what is left of headers.
func take(r *record.Record, frame []byte, p int, b *[RecordSize]byte, headers []record.Header) []record.Header {
	same, flags := b[recSame], le.Uint16(b[recFlags:])
	q := p + RecordSize
	n := int(le.Uint32(b[recHeadersLen:]))
	if same&SameHeaders == 0 {
		count := int(le.Uint16(b[recNumHeaders:]))
		r.Headers = nil
		if count > 0 {
			r.Headers = headers[:count:count]
			headers = headers[count:]
			h := frame[q : q+n]
			for i := range r.Headers {
				klen, vlen := int(le.Uint16(h)), int(le.Uint32(h[2:]))
				r.Headers[i] = record.Header{Key: text(h[6 : 6+klen]), Value: h[6+klen : 6+klen+vlen : 6+klen+vlen]}
				h = h[6+klen+vlen:]
			}
		}
	}
	q += n
	n = int(le.Uint32(b[recKeyLen:]))
	if same&SameKey == 0 {
		r.Key = field(frame, q, n, flags&FlagKeyNull != 0)
	}
	q += n
	n = int(le.Uint32(b[recValueLen:]))
	if same&SameValue == 0 {
		r.Value = field(frame, q, n, flags&FlagValueNull != 0)
	}
	if same&SameTimestamp == 0 {
		r.Timestamp = int64(le.Uint64(b[recTimestamp:]))
	}
	return headers
}

// empty is what an empty field that is not null refers to, so that it holds no
// frame.
var empty = []byte{}

func field(frame []byte, at, n int, null bool) []byte {
	switch {
	case null:
		return nil
	case n == 0:
		return empty
	}
	return frame[at : at+n : at+n]
}

// text is b as a string without a copy: the frame is ours and never written.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func message(frame []byte, p int, b *[RecordSize]byte) string {
	at := p + RecordSize + int(le.Uint32(b[recHeadersLen:])) + int(le.Uint32(b[recKeyLen:]))
	return clip(frame[at : at+int(le.Uint32(b[recValueLen:]))])
}

// clip makes a message of bytes that a guest sent: valid UTF-8, of bounded
// length.
func clip(b []byte) string {
	if len(b) <= maxMessage {
		return strings.ToValidUTF8(string(b), "\uFFFD")
	}
	return strings.ToValidUTF8(string(b[:maxMessage]), "\uFFFD") + fmt.Sprintf("... (%d bytes)", len(b))
}

func grow[T any](s []T, n int) []T {
	if cap(s)-len(s) >= n {
		return s
	}
	g := make([]T, len(s), len(s)+n)
	copy(g, s)
	return g
}

// totals of a frame that check accepted.
type totals struct {
	start   int
	emits   int
	headers int
	bytes   int
}

func protocolErrorf(format string, args ...any) error {
	return record.Errorf(record.Protocol, format, args...)
}

// check holds the frame against every rule, so that Decode need not look
// twice. It leaves the number of emits of each record in d.answers.
func (d *Decoder) check(frame []byte, batchID uint64, records []record.Record) (totals, error) {
	var t totals
	if len(frame) < HeaderSize {
		return t, protocolErrorf("the result has %d bytes, its header alone has %d", len(frame), HeaderSize)
	}
	if uint64(len(frame)) > math.MaxUint32 {
		return t, protocolErrorf("the result has %d bytes, at most 4 GiB are possible", len(frame))
	}
	h := (*[HeaderSize]byte)(frame)
	if n := le.Uint32(h[offLength:]); uint64(n) != uint64(len(frame)) {
		return t, protocolErrorf("the result says that it has %d bytes, but %d were returned", n, len(frame))
	}
	if v := le.Uint16(h[offVersion:]); v != Version {
		return t, protocolErrorf("the result has frame version %d, this host knows %d", v, Version)
	}
	if k := le.Uint16(h[offKind:]); k != KindResult {
		return t, protocolErrorf("the result is a frame of kind %d, expected %d (result)", k, KindResult)
	}
	if id := le.Uint64(h[offBatchID:]); id != batchID {
		return t, protocolErrorf("the result answers batch %016x, expected %016x", id, batchID)
	}
	table := le.Uint32(h[offTopics:])
	if table%8 != 0 || uint64(table) > uint64(len(frame)-HeaderSize) {
		return t, protocolErrorf("the result says that its topic table has %d bytes, of %d in all", table, len(frame))
	}
	t.start = HeaderSize + int(table)

	if cap(d.answers) < len(records) {
		d.answers = make([]answered, len(records))
	}
	d.answers = d.answers[:len(records)]
	clear(d.answers)

	for p, n := t.start, 0; p < len(frame); n++ {
		left := len(frame) - p
		if left < RecordSize {
			return t, protocolErrorf("answer %d: %d bytes are left, a record header has %d", n, left, RecordSize)
		}
		b := (*[RecordSize]byte)(frame[p:])
		length := le.Uint32(b[recLength:])
		if length < RecordSize || length%8 != 0 || uint64(length) > uint64(left) {
			return t, protocolErrorf("answer %d: its length is %d; a multiple of 8 from %d to %d is possible", n, length, RecordSize, left)
		}
		id := le.Uint32(b[recID:])
		if uint64(id) >= uint64(len(records)) {
			return t, protocolErrorf("answer %d is for record %d, the batch has %d (0 to %d)", n, id, len(records), len(records)-1)
		}
		keyLen, valueLen, headersLen := uint64(le.Uint32(b[recKeyLen:])), uint64(le.Uint32(b[recValueLen:])), uint64(le.Uint32(b[recHeadersLen:]))
		if RecordSize+keyLen+valueLen+headersLen > uint64(length) {
			return t, protocolErrorf("answer %d to record %d: key of %d, value of %d and headers of %d bytes do not fit its length %d",
				n, id, keyLen, valueLen, headersLen, length)
		}
		a := &d.answers[id]
		if a.final != 0 {
			return t, protocolErrorf("record %d is answered twice, with %s and %s", id, outcomeName(a.final-1), outcomeName(b[recOutcome]))
		}
		switch o := Outcome(b[recOutcome]); o {
		case Emit:
			a.emits++
			t.emits++
			if d.MaxEmits > 0 && t.emits > d.MaxEmits {
				return t, record.Errorf(record.TooLarge, "the result has more than %d emissions", d.MaxEmits)
			}
			if err := d.checkEmit(frame, p, b, n, id, &t); err != nil {
				return t, err
			}
		case Drop, Retry, Fail:
			if a.emits > 0 {
				return t, protocolErrorf("record %d is answered twice, with emit and %s", id, outcomeName(uint8(o)))
			}
			a.final = uint8(o) + 1
			if delay := int64(le.Uint64(b[recOffset:])); o == Retry && delay < 0 {
				return t, protocolErrorf("answer %d to record %d: retry with a delay of %d ms", n, id, delay)
			}
		default:
			return t, protocolErrorf("answer %d to record %d: outcome %d is unknown", n, id, uint8(o))
		}
		p += int(length)
	}
	for id := range d.answers {
		if a := &d.answers[id]; a.emits == 0 && a.final == 0 {
			return t, protocolErrorf("record %d (%s) is not answered", id, records[id].ID())
		}
	}
	return t, nil
}

func (d *Decoder) checkEmit(frame []byte, p int, b *[RecordSize]byte, n int, id uint32, t *totals) error {
	same, flags := b[recSame], le.Uint16(b[recFlags:])
	keyLen, valueLen, headersLen := le.Uint32(b[recKeyLen:]), le.Uint32(b[recValueLen:]), le.Uint32(b[recHeadersLen:])
	numHeaders := le.Uint16(b[recNumHeaders:])
	if keyLen != 0 && (same&SameKey != 0 || flags&FlagKeyNull != 0) {
		return sameWithBytes(n, id, "key", same&SameKey != 0, keyLen)
	}
	if valueLen != 0 && (same&SameValue != 0 || flags&FlagValueNull != 0) {
		return sameWithBytes(n, id, "value", same&SameValue != 0, valueLen)
	}
	if same&SameHeaders != 0 {
		if headersLen != 0 {
			return sameWithBytes(n, id, "headers", true, headersLen)
		}
	} else if headersLen != 0 || numHeaders != 0 {
		h := frame[p+RecordSize:][:headersLen]
		for i := range int(numHeaders) {
			if len(h) < 6 {
				return protocolErrorf("answer %d to record %d: header %d of %d does not fit the %d bytes of its headers", n, id, i, numHeaders, headersLen)
			}
			size := 6 + uint64(le.Uint16(h)) + uint64(le.Uint32(h[2:]))
			if size > uint64(len(h)) {
				return protocolErrorf("answer %d to record %d: header %d of %d does not fit the %d bytes of its headers", n, id, i, numHeaders, headersLen)
			}
			h = h[size:]
		}
		if len(h) != 0 {
			return protocolErrorf("answer %d to record %d: %d headers leave %d of %d bytes over", n, id, numHeaders, len(h), headersLen)
		}
		if t.headers += int(numHeaders); d.MaxHeaders > 0 && t.headers > d.MaxHeaders {
			return record.Errorf(record.TooLarge, "the result has more than %d headers", d.MaxHeaders)
		}
	}
	t.bytes += int(keyLen) + int(valueLen) + int(headersLen)
	if to := int32(le.Uint32(b[recPartition:])); to < -1 {
		return protocolErrorf("answer %d to record %d: emitted to partition %d; -1 means by key", n, id, to)
	}
	if o := le.Uint16(b[recTopic:]); o != 0 || len(d.Outputs) != 0 {
		switch {
		case int(o) >= max(1, len(d.Outputs)):
			return protocolErrorf("answer %d to record %d: emitted to output %d, the plugin's manifest has %d", n, id, o, max(1, len(d.Outputs)))
		case !d.Outputs[o].Bound:
			return protocolErrorf("answer %d to record %d: emitted to output %q, which the flow binds to nothing", n, id, d.Outputs[o].Name)
		}
	}
	return nil
}

func sameWithBytes(n int, id uint32, what string, same bool, size uint32) error {
	says := "null"
	if same {
		says = "the input's"
	}
	return protocolErrorf("answer %d to record %d: its %s is %s, yet %d bytes of it were sent", n, id, what, says, size)
}

func outcomeName(o uint8) string {
	names := [...]string{"emit", "drop", "retry", "fail"}
	if int(o) < len(names) {
		return names[o]
	}
	return "outcome " + strconv.Itoa(int(o))
}
