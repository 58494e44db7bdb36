package gen

import (
	"crypto/sha256"
	"encoding/binary"
)

// Sum stands for a key and a value, byte for byte: what came out is compared
// with what must without keeping either.
type Sum [16]byte

// SumOf is the sum of a record's key and value.
func SumOf(key, value []byte) Sum {
	h := sha256.New()
	var n [8]byte
	binary.LittleEndian.PutUint64(n[:], uint64(len(key)))
	h.Write(n[:])
	h.Write(key)
	h.Write(value)
	var full [sha256.Size]byte
	return Sum(h.Sum(full[:0])[:16])
}
