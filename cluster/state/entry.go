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
	// entryMore: what later versions added follows the value, by flags of its own.
	entryMore
	entryFlags = entryOmitted | entryReplay | entryZstd | entryRedelivered | entryUsage | entryNoReplay | entryMore
)

// Flags of what follows the value.
const (
	moreRef uint64 = 1 << iota
	moreHistory
	moreRequeues
	moreTold
	moreExchange
	moreSignatures
	// moreRefusals: what the guest got in place of signatures follows them.
	moreRefusals
	moreCall
	moreFlags = moreRef | moreHistory | moreRequeues | moreTold | moreExchange | moreSignatures | moreRefusals | moreCall
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

// compress answers value in fewer bytes where that saves something.
func compress(value []byte) (v []byte, compressed bool) {
	if len(value) >= compressAbove {
		if z := zstdEncoder().EncodeAll(value, make([]byte, 0, len(value)/2)); len(z) < len(value)-len(value)/8 {
			return z, true
		}
	}
	return value, false
}

func decompress(value []byte) ([]byte, error) {
	v, err := zstdDecoder().DecodeAll(value, nil)
	if err != nil {
		return nil, fmt.Errorf("input value: %w: %w", ErrMalformed, err)
	}
	return v, nil
}

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
	value, compressed := compress(value)
	if compressed {
		flags |= entryZstd
	}
	more := moreOf(e)
	if more != 0 {
		flags |= entryMore
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
	b = putHeaders(b, in.Headers)
	b = putNilBytes(putNilBytes(b, in.Key), value)
	if more != 0 {
		b = putMore(putUint(b, more), e, more)
	}
	return b
}

// DecodeEntry reads what EncodeEntry writes. The entry shares no memory with b.
// Its Seq is 0 and its input's To is -1.
func DecodeEntry(b []byte) (*record.Entry, error) {
	e, packed, err := decodeEntry(b)
	if err != nil {
		return nil, err
	}
	if packed.input {
		if e.Input.Value, err = decompress(e.Input.Value); err != nil {
			return nil, fmt.Errorf("read failure entry: %w", err)
		}
	}
	if packed.call {
		if err := unpackCall(e.Call); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// packed says which values of a stored entry are compressed.
type packed struct{ input, call bool }

// decodeEntry reads an entry and leaves the values of its input and its call as
// they are stored.
func decodeEntry(b []byte) (e *record.Entry, as packed, err error) {
	d := &decoder{b: b}
	d.version(entryVersion)
	e = &record.Entry{}
	flags := d.byte()
	if flags&^entryFlags != 0 {
		d.fail("unknown flags")
	}
	e.Class = d.class()
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
	in.Headers = d.headers()
	in.Key, in.Value = d.nilBytes(), d.nilBytes()
	if flags&entryMore != 0 {
		d.more(e)
	}
	if err := d.end(); err != nil {
		return nil, as, fmt.Errorf("read failure entry: %w", err)
	}
	return e, packed{flags&entryZstd != 0, d.packed}, nil
}

// moreOf says which of the parts that follow the value an entry has.
func moreOf(e *record.Entry) (more uint64) {
	if e.Input.Ref != "" {
		more |= moreRef
	}
	if len(e.History) > 0 {
		more |= moreHistory
	}
	if e.Requeues != 0 {
		more |= moreRequeues
	}
	if e.Told != "" {
		more |= moreTold
	}
	if e.Exchange != nil {
		more |= moreExchange
	}
	if e.Replay != nil && len(e.Replay.Signatures) > 0 {
		more |= moreSignatures
		if refused(e.Replay.Signatures) {
			more |= moreRefusals
		}
	}
	if e.Call != nil {
		more |= moreCall
	}
	return more
}

func putMore(b []byte, e *record.Entry, more uint64) []byte {
	if more&moreRef != 0 {
		b = putString(b, e.Input.Ref)
	}
	if more&moreHistory != 0 {
		b = putHistory(b, e.History)
	}
	if more&moreRequeues != 0 {
		b = putUint(b, uint64(e.Requeues))
	}
	if more&moreTold != 0 {
		b = putString(b, e.Told)
	}
	if more&moreExchange != 0 {
		b = putExchange(b, e.Exchange)
	}
	if more&moreSignatures != 0 {
		b = putSignatures(b, e.Replay.Signatures)
	}
	if more&moreRefusals != 0 {
		b = putRefusals(b, e.Replay.Signatures)
	}
	if more&moreCall != 0 {
		b = putCall(b, e.Call)
	}
	return b
}

// more reads the parts that follow the value. Each that is named is there.
func (d *decoder) more(e *record.Entry) {
	more := d.uint()
	if more == 0 || more&^moreFlags != 0 {
		d.fail("unknown flags of further parts")
		return
	}
	if more&moreRef != 0 {
		e.Input.Ref = d.string()
	}
	if more&moreHistory != 0 {
		e.History = d.history()
	}
	if more&moreRequeues != 0 {
		e.Requeues = d.uint32()
	}
	if more&moreTold != 0 {
		e.Told = d.string()
	}
	if more&moreExchange != 0 {
		e.Exchange = d.exchange()
	}
	if more&moreSignatures != 0 {
		d.signatures(e.Replay)
	}
	if more&moreRefusals != 0 {
		d.refusals(e.Replay)
	}
	if more&moreCall != 0 {
		e.Call = d.call()
	}
	if d.err == nil && moreOf(e) != more {
		d.fail("a further part is empty")
	}
}

// Flags of a stored exchange.
const (
	exchangeRequestCut byte = 1 << iota
	exchangeResponseCut
	exchangeFlags = exchangeRequestCut | exchangeResponseCut
)

func putExchange(b []byte, x *record.Exchange) []byte {
	var flags byte
	if x.RequestCut {
		flags |= exchangeRequestCut
	}
	if x.ResponseCut {
		flags |= exchangeResponseCut
	}
	b = putString(putString(append(b, flags), x.Method), x.URL)
	b = putNilBytes(putHeaders(b, x.RequestHeaders), x.RequestBody)
	b = putHeaders(putInt(b, int64(x.Status)), x.ResponseHeaders)
	return putNilBytes(b, x.ResponseBody)
}

func (d *decoder) exchange() *record.Exchange {
	flags := d.byte()
	if flags&^exchangeFlags != 0 {
		d.fail("unknown flags of an exchange")
	}
	x := &record.Exchange{RequestCut: flags&exchangeRequestCut != 0, ResponseCut: flags&exchangeResponseCut != 0}
	x.Method, x.URL = d.string(), d.string()
	x.RequestHeaders, x.RequestBody = d.headers(), d.nilBytes()
	x.Status, x.ResponseHeaders = int(d.int32()), d.headers()
	x.ResponseBody = d.nilBytes()
	return x
}
