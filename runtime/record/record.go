// Package record defines what flows through Millrace: records, batches, what a
// stage answers to a batch, identities, error classes and failure entries.
//
// It is the vocabulary that all other packages share, and therefore depends on
// the standard library alone, starts nothing and reads no clock. It does not
// know where records come from, how stages run or where entries are kept.
package record

import (
	"encoding/hex"
	"fmt"
	"time"
)

// Header is one key and value of a record's headers. Keys may repeat and their
// order is kept. A nil Value is a null header value where the source has one.
type Header struct {
	Key   string
	Value []byte
}

// Partition names one serial sequence of records of a source.
type Partition struct {
	// Topic as the source calls it; a path for files, "-" for streams.
	Topic string
	// Broker is set only by sources whose partitions are numbered per broker.
	Broker string
	Num    int32
}

// Record is one record on its way through a flow.
//
// The slices are read-only for everyone: a stage that changes a value makes a
// new one. They stay valid as long as anything refers to them.
type Record struct {
	// Key and Value are nil when null (a nil Value is a tombstone) and
	// non-nil, possibly empty, otherwise.
	Key, Value []byte
	Headers    []Header

	Topic  string
	Broker string
	// Partition is the source's number of the partition.
	Partition int32
	// Offset in the partition: a broker's offset, the byte position of a
	// line of a file, the number of a line of a stream.
	Offset int64
	// Ref, if not empty, stands for the offset in the record's identity: for
	// sources where somebody else names the records. It holds no / and no #.
	Ref string
	// Timestamp in Unix milliseconds.
	Timestamp int64
	// Trace is the trace id; zero before the source or the lane set it.
	Trace Trace
	// Path tells emissions of one source record apart; empty for most.
	Path Path
	// Attempt counts from 1.
	Attempt uint32
	// Redelivered is set when the record may have been processed before.
	Redelivered bool
	// To is the partition a guest chose for the output, or -1: by key.
	To int32
}

// Size is the number of bytes that the record counts for in windows: key,
// value and headers, and a constant for the rest.
func (r *Record) Size() int {
	n := len(r.Key) + len(r.Value) + recordOverhead
	for i := range r.Headers {
		n += len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
	return n
}

// recordOverhead is about what the struct and its slice headers take.
const recordOverhead = 160

// Batch is a run of records of one partition, in order.
type Batch struct {
	Partition Partition
	Records   []Record
	// Next is the position after the batch: the offset that follows its last
	// record, past control records and gaps. A batch without records may
	// still move the position.
	Next int64
	// Now is the time at which the batch is processed, in Unix milliseconds:
	// the only clock a stage sees. The lane sets it once for each attempt.
	Now int64
}

// Bytes is the sum of the records' sizes.
func (b *Batch) Bytes() int {
	n := 0
	for i := range b.Records {
		n += b.Records[i].Size()
	}
	return n
}

// Results is what a stage answered to a batch. Every record of the batch is
// answered by one or more Emits, or by exactly one entry of Drops or Failures.
// The caller owns it and reuses it after Reset; the records' bytes are not
// reused.
type Results struct {
	// Emits in emission order, which is the order in which they go on.
	Emits []Emit
	// Drops holds the indexes of records the stage dropped on purpose.
	Drops    []int32
	Failures []Failure
	// Unit says that the emissions answer all records of the batch together:
	// none of the dropped ones may be settled before every emission is.
	Unit bool
}

// Emit is one emission.
type Emit struct {
	// In is the index in the batch of the record that this answers.
	In int32
	// Output is the index into the outputs of the plugin; 0 is the default.
	Output uint16
	Record Record
}

// Failure tells that a record cannot go on from a stage: later (class
// retryable) or as it is (any other class).
type Failure struct {
	In  int32
	Err *Error
	// Replay is what the stage needs to repeat the failure, nil if it cannot.
	Replay *Replay
	// NoReplay says why Replay is nil, where the stage knows.
	NoReplay string
}

// Replay is the part of a stage's circumstances that a failed call can be
// repeated with, beside its input, its plugin and its configuration.
type Replay struct {
	// BatchID as the guest saw it.
	BatchID uint64 `json:"batch_id,string"`
	// Now as the guest saw it, Unix milliseconds.
	Now int64 `json:"now"`
	// ImageLevel is the level of the image that the call started from.
	ImageLevel int `json:"image_level"`
	// ConfigHash is the xxh64 of the configuration given to stage_init.
	ConfigHash uint64 `json:"config_hash,string"`
	// Fuel is what the call used; it is the same whenever it is repeated.
	Fuel int64 `json:"fuel,omitempty"`
	// FuelLimit is the budget of a record in units, without what its bytes
	// add; MemoryLimit is the guest's in bytes. 0: not known.
	FuelLimit   int64 `json:"fuel_limit,omitempty"`
	MemoryLimit int64 `json:"memory_limit,omitempty"`
	// FuelCosts is the version of the costs that Fuel was counted by; 0: not
	// known.
	FuelCosts uint32 `json:"fuel_costs,omitempty"`
	// Logs are the lines that the guest logged in the call.
	Logs []string `json:"logs,omitempty"`
	// Signatures are those that the guest asked for in the call, in order; at
	// most MaxSignatures, of at most MaxSignatureBytes each.
	Signatures []Signature `json:"signatures,omitempty"`
}

// Bounds of the signatures in a Replay. A call with more has none.
const (
	MaxSignatures     = 64
	MaxSignatureBytes = 1 << 10
)

// Signature is one that a guest asked for. It holds neither the key nor the
// message.
type Signature struct {
	// Handle is the number of the key, Alg that of the algorithm, as the guest
	// gave them.
	Handle uint32 `json:"handle"`
	Alg    uint32 `json:"alg"`
	// MessageSHA256 is the sum of what was to be signed.
	MessageSHA256 SHA256 `json:"message_sha256"`
	// Signature is nil where the guest was refused one; Refused is then the
	// negative number that it got, else 0.
	Signature []byte `json:"signature,omitempty"`
	Refused   int32  `json:"refused,omitempty"`
}

// SHA256 is a sum whose text is 64 hex digits in lower case.
type SHA256 [32]byte

// MarshalText writes the sum.
func (s SHA256) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, s[:]), nil }

// UnmarshalText reads the sum.
func (s *SHA256) UnmarshalText(b []byte) error {
	if len(b) != hex.EncodedLen(len(s)) {
		return fmt.Errorf("parse sha-256: %d characters, not %d hex digits", len(b), hex.EncodedLen(len(s)))
	}
	if _, err := hex.Decode(s[:], b); err != nil {
		return fmt.Errorf("parse sha-256: %w", err)
	}
	return nil
}

// Mark is a state of a Results that it can be taken back to.
type Mark struct {
	emits, drops, failures int
	unit                   bool
}

// Mark tells the present state of r. Reset makes it void.
func (r *Results) Mark() Mark {
	return Mark{len(r.Emits), len(r.Drops), len(r.Failures), r.Unit}
}

// Rewind takes away what was answered since m, and keeps the memory.
func (r *Results) Rewind(m Mark) {
	clear(r.Emits[m.emits:])
	clear(r.Failures[m.failures:])
	r.Emits, r.Drops, r.Failures, r.Unit = r.Emits[:m.emits], r.Drops[:m.drops], r.Failures[:m.failures], m.unit
}

// Failed are the failures answered since m.
func (r *Results) Failed(m Mark) []Failure { return r.Failures[m.failures:] }

// Reset empties r and keeps its memory.
func (r *Results) Reset() { r.Rewind(Mark{}) }

// Time is the record's timestamp as a time in UTC.
func (r *Record) Time() time.Time { return time.UnixMilli(r.Timestamp).UTC() }
