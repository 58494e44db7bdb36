package state

import (
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"github.com/millrace-io/millrace/runtime/record"
)

const retryVersion = 1

// Flags of a stored retry.
const (
	retryZstd byte = 1 << iota
	retryRedelivered
	retryFlags = retryZstd | retryRedelivered
)

// EncodeRetry writes a kept entry as it is stored and as it travels in a
// Commit. The input's value is compressed where that saves something.
func EncodeRetry(e *record.Retry) []byte {
	in := &e.Input
	var flags byte
	value, compressed := compress(in.Value)
	if compressed {
		flags |= retryZstd
	}
	if in.Redelivered {
		flags |= retryRedelivered
	}
	b := make([]byte, 0, 192+len(value)+len(in.Key))
	b = append(b, retryVersion, flags)
	b = putInt(putUint(b, uint64(e.Generation)), e.Due)
	b = putUint(putInt(b, e.At), uint64(e.Requeues))
	b = appendFixed64(b, e.Hold)
	b = putString(putString(b, e.Group), e.Stage)

	b = putUint(append(b, byte(e.Class)), uint64(e.Code))
	b = putInt(putUint(putString(b, e.Message), uint64(e.Attempts)), e.First)
	b = putString(putUint(b, uint64(e.GroupIndex)), e.Via)
	b = putHistory(b, e.History)

	b = putString(putString(putString(b, in.Topic), in.Broker), in.Ref)
	b = putInt(putInt(putInt(b, int64(in.Partition)), in.Offset), in.Timestamp)
	b = append(b, in.Trace[:]...)
	b = putInt(putUint(putString(b, string(in.Path)), uint64(in.Attempt)), int64(in.To))
	b = putHeaders(b, in.Headers)
	return putNilBytes(putNilBytes(b, in.Key), value)
}

// retryHead is the beginning of a stored retry: what the state decides by.
type retryHead struct {
	flags        byte
	generation   uint32
	due, at      int64
	requeues     uint32
	hold         uint64
	group, stage string
}

func (d *decoder) retryHead() (h retryHead) {
	d.version(retryVersion)
	h.flags = d.byte()
	if h.flags&^retryFlags != 0 {
		d.fail("unknown flags")
	}
	h.generation, h.due = d.uint32(), d.int()
	h.at, h.requeues = d.int(), d.uint32()
	h.hold = d.fixed64()
	h.group, h.stage = d.string(), d.string()
	return h
}

// decodeRetryHead reads the beginning of a stored retry alone.
func decodeRetryHead(b []byte) (retryHead, error) {
	d := &decoder{b: b}
	h := d.retryHead()
	if d.err != nil {
		return h, fmt.Errorf("read kept entry: %w", d.err)
	}
	return h, nil
}

// DecodeRetry reads what EncodeRetry writes. The entry shares no memory with b.
func DecodeRetry(b []byte) (*record.Retry, error) {
	d := &decoder{b: b}
	h := d.retryHead()
	e := &record.Retry{Generation: h.generation, Due: h.due, At: h.at, Requeues: h.requeues, Hold: h.hold, Group: h.group, Stage: h.stage}
	e.Class = d.class()
	e.Code, e.Message = d.uint32(), d.string()
	e.Attempts, e.First = d.uint32(), d.int()
	e.GroupIndex, e.Via = d.uint32(), d.string()
	e.History = d.history()
	in := &e.Input
	in.Redelivered = h.flags&retryRedelivered != 0
	in.Topic, in.Broker, in.Ref = d.string(), d.string(), d.string()
	in.Partition, in.Offset, in.Timestamp = d.int32(), d.int(), d.int()
	copy(in.Trace[:], d.fixed(len(in.Trace)))
	in.Path, in.Attempt, in.To = record.Path(d.string()), d.uint32(), d.int32()
	if !validPath(in.Path) || in.Offset < 0 {
		d.fail("no emission")
	}
	in.Headers = d.headers()
	in.Key, in.Value = d.nilBytes(), d.nilBytes()
	if err := d.end(); err != nil {
		return nil, fmt.Errorf("read kept entry: %w", err)
	}
	if h.flags&retryZstd != 0 {
		v, err := decompress(in.Value)
		if err != nil {
			return nil, fmt.Errorf("read kept entry: %w", err)
		}
		in.Value = v
	}
	return e, nil
}

func putHistory(b []byte, history []record.Attempt) []byte {
	b = putUint(b, uint64(len(history)))
	for i := range history {
		a := &history[i]
		b = putInt(putInt(b, a.Time), a.Millis)
		b = putString(putUint(append(b, byte(a.Class)), uint64(a.Code)), a.Message)
	}
	return b
}

func (d *decoder) history() []record.Attempt {
	n := d.count(5)
	if n == 0 {
		return nil
	}
	h := make([]record.Attempt, n)
	for i := range h {
		h[i] = record.Attempt{Time: d.int(), Millis: d.int(), Class: d.class(), Code: d.uint32(), Message: d.string()}
	}
	return h
}

func (d *decoder) class() record.Class {
	c := record.Class(d.byte())
	if !c.Valid() {
		d.fail("unknown class")
	}
	return c
}

func putHeaders(b []byte, headers []record.Header) []byte {
	b = putUint(b, uint64(len(headers)))
	for i := range headers {
		b = putNilBytes(putString(b, headers[i].Key), headers[i].Value)
	}
	return b
}

func (d *decoder) headers() []record.Header {
	n := d.count(2)
	if n == 0 {
		return nil
	}
	h := make([]record.Header, n)
	for i := range h {
		h[i] = record.Header{Key: d.string(), Value: d.nilBytes()}
	}
	return h
}

// retryOrder is the value of key 0x17: what is to be known of an entry when
// another one of its Hold comes or goes.
type retryOrder struct {
	due   int64  // of its key 0x16; 0: parked, there is none
	group uint64 // hash of its Group; 0: it is in none
}

func (o retryOrder) encode() []byte {
	return appendFixed64(putUint(newValue(16), uint64(o.due)), o.group)
}

func decodeRetryOrder(b []byte) (o retryOrder, err error) {
	err = decodeValue("order of a kept entry", b, func(d *decoder) {
		o.due, o.group = clampDue(int64(d.uint())), d.fixed64()
	})
	return o, err
}

func groupHash(group string) uint64 {
	if group == "" {
		return 0
	}
	return max(xxhash.Sum64String(group), 1)
}

// maxDue is the latest time that key 0x16 can hold.
const maxDue = 1<<48 - 1

// clampDue keeps a due time in the 48 bits of key 0x16.
func clampDue(due int64) int64 { return min(max(due, 0), maxDue) }

// decodeRetryKey reads a key of kind 0x15, or the end of one of kind 0x16 or
// 0x17, which has skip bytes more before the offset.
func decodeRetryKey(key []byte, skip int) (k RetryKey, err error) {
	if len(key) < 17+skip || !validPath(record.Path(key[17+skip:])) {
		return k, fmt.Errorf("read key %x of a kept entry: %w", key, ErrMalformed)
	}
	k.Part = binary.BigEndian.Uint32(key[5:])
	k.Offset = int64(binary.BigEndian.Uint64(key[9+skip:]))
	k.Path = record.Path(key[17+skip:])
	return k, nil
}

// What keys 0x16 and 0x17 have before the offset.
const (
	dueBytes  = 6
	holdBytes = 8
)

func dueOf(key []byte) int64 {
	r := keyReader{b: key[9:]}
	return int64(r.u48())
}
