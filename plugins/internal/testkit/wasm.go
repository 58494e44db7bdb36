package testkit

import (
	"encoding/binary"
	"slices"
)

// Uleb is an unsigned LEB128.
func Uleb(n int) []byte { return binary.AppendUvarint(nil, uint64(n)) }

// Vector is the number of items, and the items.
func Vector(items ...[]byte) []byte { return append(Uleb(len(items)), slices.Concat(items...)...) }

// Name is a text with its length before it.
func Name(s string) []byte { return append(Uleb(len(s)), s...) }

// Section is a section of a Wasm binary.
func Section(id byte, content []byte) []byte {
	return slices.Concat([]byte{id}, Uleb(len(content)), content)
}
