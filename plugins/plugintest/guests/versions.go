package guests

import (
	"bytes"
	_ "embed"
)

//go:embed versions/versions.wasm
var versions []byte

// Version is a stage/1 guest in C of which there are as many versions as a test
// wants: the letter says what it does, see versions/versions.c. Each has bytes
// of its own and no manifest.
func Version(behaviour byte) []byte {
	return bytes.Replace(versions, []byte("behaviour: p"), []byte{'b', 'e', 'h', 'a', 'v', 'i', 'o', 'u', 'r', ':', ' ', behaviour}, 1)
}
