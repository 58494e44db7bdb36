package abi

import (
	"math"

	"github.com/millrace-io/millrace/runtime/record"
)

// Encoder writes request frames. The zero value is ready. It keeps its scratch
// memory between frames and is for one goroutine at a time.
type Encoder struct {
	topics   []string
	tableLen int
	size     int
}

// Size is the exact length in bytes of the frame that Encode will write for
// records. Its error is a *record.Error of class too_large: a record has
// something that the frame cannot express (a header key or a number of headers
// above 65,535, a frame above 4 GiB).
func (e *Encoder) Size(records []record.Record) (int, error) {
	e.topics = e.topics[:0]
	e.tableLen = 0
	n := 0
	last := ""
	for i := range records {
		r := &records[i]
		if i == 0 || r.Topic != last {
			if err := e.addTopic(r.Topic); err != nil {
				return 0, err
			}
			last = r.Topic
		}
		body := len(r.Key) + len(r.Value)
		if len(r.Headers) != 0 {
			if len(r.Headers) > math.MaxUint16 {
				return 0, record.Errorf(record.TooLarge, "record %s has %d headers, a stage takes at most %d", r.ID(), len(r.Headers), math.MaxUint16)
			}
			for j := range r.Headers {
				h := &r.Headers[j]
				if len(h.Key) > math.MaxUint16 {
					return 0, record.Errorf(record.TooLarge, "record %s has a header key of %d bytes, a stage takes at most %d", r.ID(), len(h.Key), math.MaxUint16)
				}
				body += 6 + len(h.Key) + len(h.Value)
			}
		}
		n += RecordSize + pad8(body)
	}
	n += HeaderSize + pad8(e.tableLen)
	if uint64(n) > math.MaxUint32 {
		return 0, record.Errorf(record.TooLarge, "a frame of %d records has %d bytes, at most 4 GiB are possible", len(records), n)
	}
	e.size = n
	return n, nil
}

func (e *Encoder) addTopic(topic string) error {
	for _, t := range e.topics {
		if t == topic {
			return nil
		}
	}
	if len(topic) > math.MaxUint16 || len(e.topics) > math.MaxUint16 {
		return record.Errorf(record.TooLarge, "topic name of %d bytes, number %d of the batch: a stage takes at most %d of either", len(topic), len(e.topics)+1, math.MaxUint16)
	}
	e.topics = append(e.topics, topic)
	e.tableLen += 2 + len(topic)
	return nil
}

// Encode writes the frame of records to the start of dst and returns its
// length. It must follow a call of Size with the same records, and dst must
// have that size at least; otherwise it panics. Nothing is allocated.
func (e *Encoder) Encode(dst []byte, batchID uint64, now int64, records []record.Record) int {
	dst = dst[:e.size]
	h := dst[:HeaderSize]
	table := pad8(e.tableLen)
	le.PutUint32(h[offLength:], uint32(e.size))
	le.PutUint16(h[offVersion:], Version)
	le.PutUint16(h[offKind:], KindRequest)
	le.PutUint32(h[offCount:], uint32(len(records)))
	le.PutUint32(h[offTopics:], uint32(table))
	le.PutUint64(h[offBatchID:], batchID)
	le.PutUint64(h[offNow:], uint64(now))
	p := HeaderSize
	for _, t := range e.topics {
		le.PutUint16(dst[p:], uint16(len(t)))
		p += 2 + copy(dst[p+2:], t)
	}
	clear(dst[p : HeaderSize+table])
	p = HeaderSize + table

	last, topic := "", 0
	for i := range records {
		r := &records[i]
		if i == 0 || r.Topic != last {
			last, topic = r.Topic, e.topicIndex(r.Topic)
		}
		q := p + RecordSize
		hdrLen := 0
		if len(r.Headers) != 0 {
			hdrLen = putHeaders(dst[q:], r.Headers)
			q += hdrLen
		}
		q += copy(dst[q:], r.Key)
		q += copy(dst[q:], r.Value)
		end := pad8(q)
		for ; q < end; q++ {
			dst[q] = 0
		}
		var flags uint16
		if r.Key == nil {
			flags = FlagKeyNull
		}
		if r.Value == nil {
			flags |= FlagValueNull
		}
		if r.Redelivered {
			flags |= FlagRedelivered
		}
		b := (*[RecordSize]byte)(dst[p:])
		le.PutUint32(b[recLength:], uint32(end-p))
		le.PutUint32(b[recID:], uint32(i))
		le.PutUint16(b[recOutcome:], 0)
		le.PutUint16(b[recFlags:], flags)
		le.PutUint16(b[recTopic:], uint16(topic))
		le.PutUint16(b[recNumHeaders:], uint16(len(r.Headers)))
		le.PutUint64(b[recOffset:], uint64(r.Offset))
		le.PutUint64(b[recTimestamp:], uint64(r.Timestamp))
		le.PutUint32(b[recPartition:], uint32(r.Partition))
		le.PutUint32(b[recAttempt:], r.Attempt)
		le.PutUint32(b[recKeyLen:], uint32(len(r.Key)))
		le.PutUint32(b[recValueLen:], uint32(len(r.Value)))
		le.PutUint32(b[recHeadersLen:], uint32(hdrLen))
		le.PutUint32(b[recReserved:], 0)
		*(*[16]byte)(b[recTrace:]) = r.Trace
		p = end
	}
	return p
}

func (e *Encoder) topicIndex(topic string) int {
	for i, t := range e.topics {
		if t == topic {
			return i
		}
	}
	panic("abi: Encode: a topic that Size has not seen")
}

func putHeaders(dst []byte, headers []record.Header) int {
	n := 0
	for i := range headers {
		h := &headers[i]
		le.PutUint16(dst[n:], uint16(len(h.Key)))
		le.PutUint32(dst[n+2:], uint32(len(h.Value)))
		n += 6
		n += copy(dst[n:], h.Key)
		n += copy(dst[n:], h.Value)
	}
	return n
}
