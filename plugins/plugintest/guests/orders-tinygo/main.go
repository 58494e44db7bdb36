//go:build wasip1

// Command orders-tinygo is the order stage as a stage/1 plugin in Go, without a
// PDK: the same source for Go and for TinyGo.
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o orders.wasm .
//	tinygo build -target=wasip1 -buildmode=c-shared -scheduler=none -o orders.wasm .
package main

import (
	"encoding/binary"
	"unsafe"
)

// The stage/1 frame: what of its headers a guest reads and writes.
const (
	batchBytes  = 32
	recordBytes = 72

	kindRequest, kindResult = 1, 2
	version                 = 1

	emit, drop, fail                    = 0, 1, 3
	sameKey, sameHeaders, sameTimestamp = 1, 4, 8
	sameButValue                        = sameKey | sameHeaders | sameTimestamp
	byKey                               = 0xffff_ffff // partition -1
)

var le = binary.LittleEndian

// request and result are of words, so that they begin at a multiple of 8.
var request, result []uint64

func bytesOf(words []uint64) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), 8*len(words))
}

func addressOf(words []uint64) uint32 {
	return uint32(uintptr(unsafe.Pointer(unsafe.SliceData(words))))
}

func main() {}

//go:wasmexport stage_abi_1
func stageABI1() {}

//go:wasmexport stage_alloc
func stageAlloc(size uint32) uint32 {
	if words := (int(size) + 7) / 8; words > len(request) {
		request = make([]uint64, words)
	}
	return addressOf(request)
}

//go:wasmexport stage_batch
func stageBatch(ptr, length uint32) uint64 {
	frame := bytesOf(request)
	if ptr != addressOf(request) || int(length) > len(frame) || le.Uint16(frame[6:]) != kindRequest {
		return 0
	}
	frame = frame[:length]
	out := room(batchBytes, int(length))
	le.PutUint16(out[4:], version)
	le.PutUint16(out[6:], kindResult)
	copy(out[8:12], frame[8:])
	le.PutUint32(out[12:], 0)
	copy(out[16:32], frame[16:])

	at := batchBytes + int(le.Uint32(frame[12:]))
	for range le.Uint32(frame[8:]) {
		r := frame[at : at+int(le.Uint32(frame[at:]))]
		at += len(r)
		n := int(le.Uint32(r[44:]))
		value := r[recordBytes+int(le.Uint32(r[48:]))+int(le.Uint32(r[40:])):][:n]
		out = answer(room(len(out), recordBytes+orderRoom(n)), r, value)
	}
	le.PutUint32(out, uint32(len(out)))
	return uint64(addressOf(result))<<32 | uint64(len(out))
}

// room returns the first used bytes of the result, with a capacity of n more
// and 8 for the padding.
func room(used, n int) []byte {
	if need := (used + n + 15) / 8; need > len(result) {
		old := result
		result = make([]uint64, max(need, len(old)+len(old)/2))
		copy(result, old)
	}
	return bytesOf(result)[:used]
}

// answer appends the answer to record r, whose value is v.
func answer(out, r, v []byte) []byte {
	at := len(out)
	body := at + recordBytes
	out, verdict, why := order(out[:body], v)
	var head uint64
	var code uint64
	switch verdict {
	case pass:
		head = emit | sameButValue<<8
	case skip:
		head, out = drop, out[:body]
	case reject:
		head, code = fail, uint64(why.code)
		out = why.append(out[:body])
	}
	n := len(out) - body
	for len(out)%8 != 0 {
		out = append(out, 0)
	}
	h := out[at:body]
	le.PutUint32(h, uint32(len(out)-at))
	copy(h[4:8], r[4:])
	le.PutUint64(h[8:], head)
	le.PutUint64(h[16:], 0)
	le.PutUint64(h[24:], 0)
	le.PutUint64(h[32:], byKey|code<<32)
	le.PutUint64(h[40:], uint64(n)<<32)
	le.PutUint64(h[48:], 0)
	le.PutUint64(h[56:], 0)
	le.PutUint64(h[64:], 0)
	return out
}
