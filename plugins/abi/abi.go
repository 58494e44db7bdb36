// Package abi is the codec of stage/1, the frames that a host and a call mode
// guest exchange: one frame of records in, one frame of answers out.
//
// Frames are little endian with fixed headers and 8-byte alignment. A batch
// header (HeaderSize bytes) and a topic table are followed by records, each a
// header of RecordSize bytes with the record's headers, key and value behind
// it. A result uses the same record header: it is the record's own, answered.
//
// Encoder and Decoder are the host's side and are made for speed; Request and
// Answer are the guest's side, for guests written in Go and for tests. The
// package is pure: it knows nothing of Wasm, instances or retries.
package abi

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"github.com/millrace-io/millrace/runtime/record"
)

// Version is the frame version that this package writes and reads.
const Version = 1

// The kinds of frames.
const (
	KindRequest = 1
	KindResult  = 2
)

// Sizes of the fixed headers in bytes.
const (
	HeaderSize = 32
	RecordSize = 72
)

// Outcome is a guest's answer to one record.
type Outcome uint8

// The outcomes. Their numbers are part of the format.
const (
	// Emit passes a record on; a record may be emitted several times.
	Emit Outcome = 0
	// Drop ends the record's way on purpose.
	Drop Outcome = 1
	// Retry asks for the record again later (class retryable).
	Retry Outcome = 2
	// Fail says that the record can never be processed (class rejected).
	Fail Outcome = 3
)

// Bits of an answer that take a part of the input as it is.
const (
	SameKey       uint8 = 1
	SameValue     uint8 = 2
	SameHeaders   uint8 = 4
	SameTimestamp uint8 = 8
)

// Flags of a record.
const (
	FlagKeyNull     uint16 = 1
	FlagValueNull   uint16 = 2
	FlagRedelivered uint16 = 4
)

// Offsets in the batch header.
const (
	offLength  = 0
	offVersion = 4
	offKind    = 6
	offCount   = 8
	offTopics  = 12
	offBatchID = 16
	offNow     = 24
)

// Offsets in the record header.
const (
	recLength     = 0
	recID         = 4
	recOutcome    = 8
	recSame       = 9
	recFlags      = 10
	recTopic      = 12
	recNumHeaders = 14
	recOffset     = 16
	recTimestamp  = 24
	recPartition  = 32
	recAttempt    = 36
	recKeyLen     = 40
	recValueLen   = 44
	recHeadersLen = 48
	recReserved   = 52
	recTrace      = 56
)

var le = binary.LittleEndian

func pad8(n int) int { return (n + 7) &^ 7 }

// BatchID is the identity of one call, the seed of the guest's random: the
// xxh64 of the flow's uid, the stage, the partition, the offset of the first
// record and the number of records. Each part of a split batch has its own.
func BatchID(flowUID uint64, stage string, p record.Partition, first int64, count int) uint64 {
	b := make([]byte, 0, 256)
	b = le.AppendUint64(b, flowUID)
	for _, s := range [...]string{stage, p.Topic, p.Broker} {
		b = le.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	b = le.AppendUint32(b, uint32(p.Num))
	b = le.AppendUint64(b, uint64(first))
	b = le.AppendUint32(b, uint32(count))
	return xxhash.Sum64(b)
}
