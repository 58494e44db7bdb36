//go:build wasm || tinygo.wasm

package millrace

import "unsafe"

// The same without a check. In TinyGo a function that may panic keeps its
// pointers in memory, which costs more than the check; and eight bytes are one
// load.

func at(b []byte, i int) byte {
	return *(*byte)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(b)), i))
}

func letter(s string, i int) byte {
	return *(*byte)(unsafe.Add(unsafe.Pointer(unsafe.StringData(s)), i))
}

func word(b []byte, i int) uint64 {
	return *(*uint64)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(b)), i))
}

func setSpan(list []span, i int, s span) {
	*(*span)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(list)), i*int(unsafe.Sizeof(span{})))) = s
}
