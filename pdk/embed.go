package pdk

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
)

//go:embed packed/*.zip
var kits embed.FS

// Kits are the names of the packed kits, which are those of their folders.
func Kits() []string { return []string{"assemblyscript", "go", "rust"} }

// Kit is the packed kit of that name, and its digest, "sha256:" and 64 hex
// digits; nil if there is none.
func Kit(name string) (zip []byte, digest string) {
	b, err := kits.ReadFile("packed/" + name + ".zip")
	if err != nil {
		return nil, ""
	}
	return b, Digest(b)
}

// Digest is that of a packed kit.
func Digest(zip []byte) string {
	sum := sha256.Sum256(zip)
	return "sha256:" + hex.EncodeToString(sum[:])
}
