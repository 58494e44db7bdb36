package state

import (
	"fmt"

	"github.com/millrace-io/millrace/runtime/record"
)

// Flags of a stored call.
const (
	callOmitted byte = 1 << iota
	callReplay
	callZstd
	callFlags = callOmitted | callReplay | callZstd
)

// putCall writes the call of an entry. The input's value is compressed where
// that saves something.
func putCall(b []byte, c *record.Call) []byte {
	var flags byte
	if c.InputOmitted {
		flags |= callOmitted
	}
	if c.Replay != nil {
		flags |= callReplay
	}
	in := &c.Input
	value, compressed := compress(in.Value)
	if compressed {
		flags |= callZstd
	}
	b = append(b, flags, byte(c.Class))
	b = putString(putUint(b, uint64(c.Code)), c.Message)
	b = putString(putString(putString(b, c.Stage), c.Plugin), c.Digest)
	if c.InputOmitted {
		b = appendFixed64(b, c.InputHash)
	}
	if r := c.Replay; r != nil {
		b = putInt(appendFixed64(b, r.BatchID), r.Now)
		b = appendFixed64(putInt(b, int64(r.ImageLevel)), r.ConfigHash)
		b = putUint(putInt(putInt(putInt(b, r.Fuel), r.FuelLimit), r.MemoryLimit), uint64(r.FuelCosts))
		b = putRefusals(putSignatures(putStrings(b, r.Logs), r.Signatures), r.Signatures)
	}
	b = putStrings(putString(b, c.NoReplay), c.Hidden)
	b = putString(putString(b, in.Topic), in.Broker)
	b = putInt(putInt(putInt(b, int64(in.Partition)), in.Offset), in.Timestamp)
	b = putHeaders(putUint(b, uint64(in.Attempt)), in.Headers)
	return putNilBytes(putNilBytes(b, in.Key), value)
}

// call reads what putCall writes and leaves the input's value as it is stored;
// d.packed says whether it is compressed.
func (d *decoder) call() *record.Call {
	flags := d.byte()
	if flags&^callFlags != 0 {
		d.fail("unknown flags of a call")
	}
	c := &record.Call{InputOmitted: flags&callOmitted != 0}
	c.Class = d.class()
	c.Code, c.Message = d.uint32(), d.string()
	c.Stage, c.Plugin, c.Digest = d.string(), d.string(), d.string()
	if c.InputOmitted {
		c.InputHash = d.fixed64()
	}
	if flags&callReplay != 0 {
		r := &record.Replay{BatchID: d.fixed64(), Now: d.int(), ImageLevel: int(d.int32()), ConfigHash: d.fixed64()}
		r.Fuel, r.FuelLimit, r.MemoryLimit, r.FuelCosts = d.int(), d.int(), d.int(), d.uint32()
		r.Logs = d.strings()
		d.signatures(r)
		d.refusals(r)
		c.Replay = r
	}
	c.NoReplay, c.Hidden = d.string(), d.strings()
	in := &c.Input
	in.To = -1
	in.Topic, in.Broker = d.string(), d.string()
	in.Partition, in.Offset, in.Timestamp = d.int32(), d.int(), d.int()
	in.Attempt, in.Headers = d.uint32(), d.headers()
	in.Key, in.Value = d.nilBytes(), d.nilBytes()
	d.packed = flags&callZstd != 0
	return c
}

// unpackCall decompresses the input of an entry's call.
func unpackCall(c *record.Call) (err error) {
	if c.Input.Value, err = decompress(c.Input.Value); err != nil {
		return fmt.Errorf("read the call of failure entry: %w", err)
	}
	return nil
}

func putSignatures(b []byte, list []record.Signature) []byte {
	b = putUint(b, uint64(len(list)))
	for i := range list {
		s := &list[i]
		b = putUint(putUint(b, uint64(s.Handle)), uint64(s.Alg))
		b = putBytes(append(b, s.MessageSHA256[:]...), s.Signature)
	}
	return b
}

func (d *decoder) signatures(r *record.Replay) {
	n := d.count(35)
	if r == nil {
		d.fail("signatures without a replay")
		return
	}
	if n == 0 {
		return
	}
	r.Signatures = make([]record.Signature, n)
	for i := range r.Signatures {
		s := &r.Signatures[i]
		s.Handle, s.Alg = d.uint32(), d.uint32()
		copy(s.MessageSHA256[:], d.fixed(len(s.MessageSHA256)))
		s.Signature = d.bytes()
	}
}

// refused reports whether a signature was refused.
func refused(list []record.Signature) bool {
	for i := range list {
		if list[i].Refused != 0 {
			return true
		}
	}
	return false
}

// putRefusals writes what the guest got in place of each signature.
func putRefusals(b []byte, list []record.Signature) []byte {
	for i := range list {
		b = putInt(b, int64(list[i].Refused))
	}
	return b
}

func (d *decoder) refusals(r *record.Replay) {
	if r == nil {
		d.fail("refusals without a replay")
		return
	}
	for i := range r.Signatures {
		r.Signatures[i].Refused = d.int32()
	}
}
