package abi

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
)

// Request is a request frame as a guest reads it.
type Request struct {
	BatchID uint64
	// Now in Unix milliseconds.
	Now     int64
	Records []record.Record
}

// DecodeRequest reads a request frame. Everything is checked and copied. The
// records have To -1 and no path or broker: the frame does not carry them.
func DecodeRequest(frame []byte) (*Request, error) {
	if len(frame) < HeaderSize {
		return nil, fmt.Errorf("read request frame: %d bytes, the header alone has %d", len(frame), HeaderSize)
	}
	if n := le.Uint32(frame[offLength:]); uint64(n) != uint64(len(frame)) {
		return nil, fmt.Errorf("read request frame: it says %d bytes and has %d", n, len(frame))
	}
	if v, k := le.Uint16(frame[offVersion:]), le.Uint16(frame[offKind:]); v != Version || k != KindRequest {
		return nil, fmt.Errorf("read request frame: version %d kind %d, expected %d and %d", v, k, Version, KindRequest)
	}
	count, table := le.Uint32(frame[offCount:]), le.Uint32(frame[offTopics:])
	if table%8 != 0 || uint64(table) > uint64(len(frame)-HeaderSize) {
		return nil, fmt.Errorf("read request frame: topic table of %d bytes in a frame of %d", table, len(frame))
	}
	frame = bytes.Clone(frame)
	var topics []string
	for t := frame[HeaderSize : HeaderSize+int(table)]; len(t) >= 2; {
		n := int(le.Uint16(t)) // padding reads as empty topics, which nobody refers to
		if n > len(t)-2 {
			return nil, fmt.Errorf("read request frame: topic %d of %d bytes does not fit the table", len(topics), n)
		}
		topics = append(topics, string(t[2:2+n]))
		t = t[2+n:]
	}
	q := &Request{BatchID: le.Uint64(frame[offBatchID:]), Now: int64(le.Uint64(frame[offNow:]))}
	for p := HeaderSize + int(table); p < len(frame); {
		n := len(q.Records)
		r, length, err := decodeRequestRecord(frame[p:], n, topics)
		if err != nil {
			return nil, fmt.Errorf("read request frame: record %d: %w", n, err)
		}
		q.Records = append(q.Records, r)
		p += length
	}
	if uint64(len(q.Records)) != uint64(count) {
		return nil, fmt.Errorf("read request frame: it says %d records and has %d", count, len(q.Records))
	}
	return q, nil
}

func decodeRequestRecord(b []byte, n int, topics []string) (record.Record, int, error) {
	r := record.Record{To: -1}
	if len(b) < RecordSize {
		return r, 0, fmt.Errorf("%d bytes are left, a header has %d", len(b), RecordSize)
	}
	length := le.Uint32(b[recLength:])
	if length < RecordSize || length%8 != 0 || uint64(length) > uint64(len(b)) {
		return r, 0, fmt.Errorf("length %d of %d left", length, len(b))
	}
	if id := le.Uint32(b[recID:]); uint64(id) != uint64(n) {
		return r, 0, fmt.Errorf("its id is %d", id)
	}
	keyLen, valueLen, headersLen := uint64(le.Uint32(b[recKeyLen:])), uint64(le.Uint32(b[recValueLen:])), uint64(le.Uint32(b[recHeadersLen:]))
	if RecordSize+keyLen+valueLen+headersLen > uint64(length) {
		return r, 0, fmt.Errorf("key %d, value %d and headers %d do not fit length %d", keyLen, valueLen, headersLen, length)
	}
	topic := int(le.Uint16(b[recTopic:]))
	if topic >= len(topics) {
		return r, 0, fmt.Errorf("topic %d of %d", topic, len(topics))
	}
	flags := le.Uint16(b[recFlags:])
	r.Topic = topics[topic]
	r.Offset = int64(le.Uint64(b[recOffset:]))
	r.Timestamp = int64(le.Uint64(b[recTimestamp:]))
	r.Partition = int32(le.Uint32(b[recPartition:]))
	r.Attempt = le.Uint32(b[recAttempt:])
	r.Redelivered = flags&FlagRedelivered != 0
	r.Trace = record.Trace(b[recTrace:RecordSize])
	h := b[RecordSize:][:headersLen]
	for i := range int(le.Uint16(b[recNumHeaders:])) {
		if len(h) < 6 || 6+uint64(le.Uint16(h))+uint64(le.Uint32(h[2:])) > uint64(len(h)) {
			return r, 0, fmt.Errorf("header %d does not fit", i)
		}
		k, v := int(le.Uint16(h)), int(le.Uint32(h[2:]))
		r.Headers = append(r.Headers, record.Header{Key: string(h[6 : 6+k]), Value: h[6+k : 6+k+v : 6+k+v]})
		h = h[6+k+v:]
	}
	if len(h) != 0 {
		return r, 0, fmt.Errorf("%d bytes are left behind its headers", len(h))
	}
	at := RecordSize + int(headersLen)
	r.Key = field(b, at, int(keyLen), flags&FlagKeyNull != 0)
	r.Value = field(b, at+int(keyLen), int(valueLen), flags&FlagValueNull != 0)
	return r, int(length), nil
}

// Answer is one answer of a guest.
type Answer struct {
	// ID is the number of the record in the batch.
	ID      uint32
	Outcome Outcome
	// Same has the Same bits; what they name is not sent.
	Same uint8

	// Of an emit. A nil Key or Value is null. Partition -1 is by key.
	Key, Value []byte
	Headers    []record.Header
	Timestamp  int64
	Output     uint16
	Partition  int32

	// Of a retry.
	Delay time.Duration
	// Of a retry or a fail.
	Code    uint32
	Message string
}

// AppendResult appends the result frame with these answers to dst. It panics
// if a part exceeds what the format can express.
func AppendResult(dst []byte, batchID uint64, now int64, answers []Answer) []byte {
	start := len(dst)
	var h [HeaderSize]byte
	le.PutUint16(h[offVersion:], Version)
	le.PutUint16(h[offKind:], KindResult)
	le.PutUint32(h[offCount:], uint32(len(answers)))
	le.PutUint64(h[offBatchID:], batchID)
	le.PutUint64(h[offNow:], uint64(now))
	dst = append(dst, h[:]...)
	for i := range answers {
		dst = appendAnswer(dst, start, &answers[i])
	}
	le.PutUint32(dst[start+offLength:], length32(len(dst)-start))
	return dst
}

func appendAnswer(dst []byte, frame int, a *Answer) []byte {
	p := len(dst)
	var b [RecordSize]byte
	le.PutUint32(b[recID:], a.ID)
	b[recOutcome], b[recSame] = uint8(a.Outcome), a.Same
	le.PutUint32(b[recPartition:], uint32(a.Partition))
	dst = append(dst, b[:]...)
	var key, value []byte
	var headers []record.Header
	var flags uint16
	switch a.Outcome {
	case Emit:
		if a.Same&SameHeaders == 0 {
			headers = a.Headers
		}
		if a.Same&SameKey == 0 {
			if key = a.Key; key == nil {
				flags |= FlagKeyNull
			}
		}
		if a.Same&SameValue == 0 {
			if value = a.Value; value == nil {
				flags |= FlagValueNull
			}
		}
		if a.Same&SameTimestamp == 0 {
			le.PutUint64(dst[p+recTimestamp:], uint64(a.Timestamp))
		}
		le.PutUint16(dst[p+recTopic:], a.Output)
	case Retry, Fail:
		if a.Outcome == Retry {
			le.PutUint64(dst[p+recOffset:], uint64(a.Delay.Milliseconds()))
		}
		le.PutUint32(dst[p+recAttempt:], a.Code)
		value = []byte(strings.ToValidUTF8(a.Message, "\uFFFD"))
	}
	if len(headers) > math.MaxUint16 {
		panic(fmt.Sprintf("abi: answer with %d headers", len(headers)))
	}
	at := len(dst)
	for i := range headers {
		if len(headers[i].Key) > math.MaxUint16 {
			panic(fmt.Sprintf("abi: header key of %d bytes", len(headers[i].Key)))
		}
		dst = le.AppendUint16(dst, uint16(len(headers[i].Key)))
		dst = le.AppendUint32(dst, length32(len(headers[i].Value)))
		dst = append(append(dst, headers[i].Key...), headers[i].Value...)
	}
	le.PutUint16(dst[p+recFlags:], flags)
	le.PutUint16(dst[p+recNumHeaders:], uint16(len(headers)))
	le.PutUint32(dst[p+recHeadersLen:], length32(len(dst)-at))
	le.PutUint32(dst[p+recKeyLen:], length32(len(key)))
	le.PutUint32(dst[p+recValueLen:], length32(len(value)))
	dst = append(append(dst, key...), value...)
	for (len(dst)-frame)%8 != 0 {
		dst = append(dst, 0)
	}
	le.PutUint32(dst[p+recLength:], length32(len(dst)-p))
	return dst
}

func length32(n int) uint32 {
	if uint64(n) > math.MaxUint32 {
		panic(fmt.Sprintf("abi: a length of %d bytes does not fit the frame", n))
	}
	return uint32(n)
}
