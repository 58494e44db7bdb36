package rewrite

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"
)

// signedLEB is the plain twin of varint: it encodes.
func signedLEB(v int64) []byte {
	var b []byte
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

func TestLEB(t *testing.T) {
	const seed = 7
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 100_000 {
		v := int64(rnd.Uint64()) >> rnd.IntN(64)
		b := append(signedLEB(v), 0xff)
		for _, bits := range []int{32, 33, 64} {
			got, n := varint(b, bits)
			fits := bits == 64 || v >= -1<<(bits-1) && v < 1<<(bits-1)
			if fits && (got != v || n != len(b)-1) || !fits && n != 0 {
				t.Fatalf("seed %d: varint(%x, %d): got %d, %d, want %d (fits: %v)", seed, b, bits, got, n, v, fits)
			}
		}
		u := rnd.Uint64() >> rnd.IntN(64)
		ub := append(binary.AppendUvarint(nil, u), 0xff)
		got, n := uvarint32(ub)
		if fits := u <= math.MaxUint32; fits && (uint64(got) != u || n != len(ub)-1) || !fits && n != 0 {
			t.Fatalf("seed %d: uvarint32(%x): got %d, %d, want %d", seed, ub, got, n, u)
		}
	}
	for _, b := range [][]byte{nil, {0x80}, {0xff, 0xff, 0xff, 0xff, 0x10}, {0x80, 0x80, 0x80, 0x80, 0x80, 0}} {
		if v, n := uvarint32(b); n != 0 {
			t.Errorf("uvarint32(%x): got %d, %d, want a failure", b, v, n)
		}
		if v, n := varint(b, 32); n != 0 {
			t.Errorf("varint(%x): got %d, %d, want a failure", b, v, n)
		}
	}
	if v, n := uvarint32([]byte{0x85, 0x80, 0x80, 0x80, 0}); v != 5 || n != 5 {
		t.Errorf("a number with leading zeros: got %d, %d, want 5, 5", v, n)
	}
}

func TestDecoder(t *testing.T) {
	code := []byte{
		0x02, 0x40, // block
		0x03, 0x80, 0x01, // loop of type 128
		0x41, 0xff, 0x7e, // i32.const -129
		0x0e, 0x02, 0x00, 0x81, 0x00, 0x00, // br_table, a label in two bytes
		0x0b, 0x0b,
		0x11, 0x03, 0x01, // call_indirect
		0x28, 0x02, 0x90, 0x01, // i32.load
		0xfc, 0x0a, 0x00, 0x00, // memory.copy
		0xfd, 0x54, 0x00, 0x05, 0x0f, // v128.load8_lane
		0xfd, 0xd6, 0x01, // i64x2.eq
		0x1c, 0x01, 0x7b, // select v128
		0x44, 0, 0, 0, 0, 0, 0, 0, 0, // f64.const
		0x0b,
	}
	want := []instr{
		{op: opBlock, start: 0, imm: 1, end: 2},
		{op: opLoop, start: 2, imm: 3, end: 5},
		{op: opI32Const, start: 5, imm: 6, end: 8},
		{op: opBrTable, start: 8, imm: 9, end: 14, x: 2},
		{op: opEnd, start: 14, imm: 15, end: 15},
		{op: opEnd, start: 15, imm: 16, end: 16},
		{op: 0x11, start: 16, imm: 17, end: 19, x: 3, y: 1},
		{op: 0x28, start: 19, imm: 20, end: 23, x: 2, y: 144},
		{op: 0xfc0a, start: 23, imm: 25, end: 27},
		{op: 0xfd54, start: 27, imm: 29, end: 32, x: 0, y: 5},
		{op: 0xfdd6, start: 32, imm: 35, end: 35},
		{op: 0x1c, start: 35, imm: 36, end: 38},
		{op: opF64Const, start: 38, imm: 39, end: 47},
		{op: opEnd, start: 47, imm: 48, end: 48},
	}
	d := newDecoder(code, 0, len(code))
	for i, w := range want {
		var in instr
		if !d.next(&in) {
			t.Fatalf("instruction %d: %v", i, d.err)
		}
		if in != w {
			t.Errorf("instruction %d: got %+v, want %+v", i, in, w)
		}
	}
	var in instr
	if d.next(&in) || d.err != nil || d.depth != 0 {
		t.Errorf("after the end: got %+v, error %v, depth %d", in, d.err, d.depth)
	}
	allocs := testing.AllocsPerRun(100, func() {
		d := newDecoder(code, 0, len(code))
		for d.next(&in) {
		}
	})
	if allocs != 0 {
		t.Errorf("got %v allocations, want 0", allocs)
	}
}
