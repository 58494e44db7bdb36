package state

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/millrace-io/millrace/runtime/record"
)

const (
	entryVersion = 1
	// compressAbove is the size of a value from which zstd is tried.
	compressAbove = 256
	// maxEntryValue bounds what a stored value may grow to when it is read.
	maxEntryValue = 64 << 20
)

// Flags of a stored entry.
const (
	entryOmitted byte = 1 << iota
	entryReplay
	entryZstd
	entryRedelivered
	// entryUsage: fuel, limits and the version of its costs follow the logs of the replay.
	entryUsage
	// entryNoReplay: the reason stands where a replay would.
	entryNoReplay
	entryFlags = entryOmitted | entryReplay | entryZstd | entryRedelivered | entryUsage | entryNoReplay
)

var (
	zstdEncoder = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
		if err != nil {
			panic(err)
		}
		return e
	})
	zstdDecoder = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxEntryValue))
		if err != nil {
			panic(err)
		}
		return d
	})
)

// EncodeEntry writes a failure entry as it is stored and as it travels in a
// Commit. The input's value is compressed where that saves something. The
// entry's Seq is not part of it, nor is the input's To, nor the Setting.
func EncodeEntry(e *record.Entry) []byte {
	in := &e.Input
	var flags byte
	value := in.Value
	if e.InputOmitted {
		flags |= entryOmitted
	}
	switch r := e.Replay; {
	case r != nil && (r.Fuel != 0 || r.FuelLimit != 0 || r.MemoryLimit != 0 || r.FuelCosts != 0):
		flags |= entryReplay | entryUsage
	case r != nil:
		flags |= entryReplay
	case e.NoReplay != "":
		flags |= entryNoReplay
	}
	if in.Redelivered {
		flags |= entryRedelivered
	}
	if len(value) >= compressAbove {
		if z := zstdEncoder().EncodeAll(value, make([]byte, 0, len(value)/2)); len(z) < len(value)-len(value)/8 {
			value = z
			flags |= entryZstd
		}
	}
	b := make([]byte, 0, 256+len(value)+len(in.Key))
	b = append(b, entryVersion, flags, byte(e.Class))
	b = putUint(putUint(b, uint64(e.Code)), uint64(e.Attempts))
	b = putInt(b, e.Time)
	b = appendFixed64(putString(b, e.Flow), e.FlowUID)
	b = putUint(putUint(b, uint64(e.Revision)), uint64(e.Generation))
	b = putString(putString(putString(b, e.Stage), e.Plugin), e.Digest)
	b = putString(putStrings(b, e.Touched), e.Message)
	if e.InputOmitted {
		b = appendFixed64(b, e.InputHash)
	}
	if r := e.Replay; r != nil {
		b = putInt(appendFixed64(b, r.BatchID), r.Now)
		b = appendFixed64(putInt(b, int64(r.ImageLevel)), r.ConfigHash)
		b = putStrings(b, r.Logs)
		if flags&entryUsage != 0 {
			b = putUint(putInt(putInt(putInt(b, r.Fuel), r.FuelLimit), r.MemoryLimit), uint64(r.FuelCosts))
		}
	}
	if flags&entryNoReplay != 0 {
		b = putString(b, e.NoReplay)
	}
	b = putString(putString(b, in.Topic), in.Broker)
	b = putInt(putInt(putInt(b, int64(in.Partition)), in.Offset), in.Timestamp)
	b = append(b, in.Trace[:]...)
	b = putUint(putString(b, string(in.Path)), uint64(in.Attempt))
	b = putUint(b, uint64(len(in.Headers)))
	for i := range in.Headers {
		b = putNilBytes(putString(b, in.Headers[i].Key), in.Headers[i].Value)
	}
	return putNilBytes(putNilBytes(b, in.Key), value)
}

// DecodeEntry reads what EncodeEntry writes. The entry shares no memory with b.
// Its Seq is 0 and its input's To is -1.
func DecodeEntry(b []byte) (*record.Entry, error) {
	d := &decoder{b: b}
	d.version(entryVersion)
	e := &record.Entry{}
	flags := d.byte()
	if flags&^entryFlags != 0 {
		d.fail("unknown flags")
	}
	e.Class = record.Class(d.byte())
	if !e.Class.Valid() {
		d.fail("unknown class")
	}
	e.Code, e.Attempts, e.Time = d.uint32(), d.uint32(), d.int()
	e.Flow, e.FlowUID = d.string(), d.fixed64()
	e.Revision, e.Generation = d.uint32(), d.uint32()
	e.Stage, e.Plugin, e.Digest = d.string(), d.string(), d.string()
	e.Touched, e.Message = d.strings(), d.string()
	if flags&entryOmitted != 0 {
		e.InputOmitted, e.InputHash = true, d.fixed64()
	}
	if flags&entryReplay != 0 {
		e.Replay = &record.Replay{BatchID: d.fixed64(), Now: d.int(), ImageLevel: int(d.int32()), ConfigHash: d.fixed64(), Logs: d.strings()}
		if flags&entryUsage != 0 {
			e.Replay.Fuel, e.Replay.FuelLimit, e.Replay.MemoryLimit, e.Replay.FuelCosts = d.int(), d.int(), d.int(), d.uint32()
		}
	} else if flags&entryUsage != 0 {
		d.fail("fuel without a replay")
	}
	if flags&entryNoReplay != 0 {
		if e.NoReplay = d.string(); e.Replay != nil || e.NoReplay == "" {
			d.fail("a reason for no replay beside one, or none")
		}
	}
	in := &e.Input
	in.To, in.Redelivered = -1, flags&entryRedelivered != 0
	in.Topic, in.Broker = d.string(), d.string()
	in.Partition, in.Offset, in.Timestamp = d.int32(), d.int(), d.int()
	copy(in.Trace[:], d.fixed(len(in.Trace)))
	in.Path, in.Attempt = record.Path(d.string()), d.uint32()
	if !validPath(in.Path) {
		d.fail("no emission path")
	}
	if in.Offset < 0 {
		d.fail("negative offset")
	}
	if n := d.count(2); n > 0 {
		in.Headers = make([]record.Header, n)
		for i := range in.Headers {
			in.Headers[i] = record.Header{Key: d.string(), Value: d.nilBytes()}
		}
	}
	in.Key, in.Value = d.nilBytes(), d.nilBytes()
	if err := d.end(); err != nil {
		return nil, fmt.Errorf("read failure entry: %w", err)
	}
	if flags&entryZstd != 0 {
		v, err := zstdDecoder().DecodeAll(in.Value, nil)
		if err != nil {
			return nil, fmt.Errorf("read failure entry: input value: %w: %w", ErrMalformed, err)
		}
		in.Value = v
	}
	return e, nil
}
