// Package pdk holds what flowctl takes along of the plugin development kits:
// the kits themselves, packed, and the golden vectors that a guest of each kit
// passes. It is for cmd.
package pdk

import (
	"embed"
	"io/fs"
)

//go:embed testdata/conformance/*.json
var vectors embed.FS

// Vectors are the golden vectors of the conformance protocol, one file each.
func Vectors() fs.FS {
	sub, err := fs.Sub(vectors, "testdata/conformance")
	if err != nil {
		panic(err) // the path is a constant
	}
	return sub
}
