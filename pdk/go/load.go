//go:build !wasm && !tinygo.wasm

package millrace

// Reads of the scanner, whose caller has looked that they lie in b. Outside of
// Wasm, in unit tests, they are checked.

func at(b []byte, i int) byte { return b[i] }

func letter(s string, i int) byte { return s[i] }

func word(b []byte, i int) uint64 { return le.Uint64(b[i:]) }

func setSpan(list []span, i int, s span) { list[i] = s }
