// Command addmanifest gives a module that its compiler cannot give one a
// manifest:
//
//	addmanifest in.wasm manifest.json out.wasm
package main

import (
	"fmt"
	"os"

	"github.com/millrace-io/millrace/plugins/manifest"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: addmanifest in.wasm manifest.json out.wasm")
		os.Exit(2)
	}
	if err := add(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "addmanifest:", err)
		os.Exit(1)
	}
}

func add(in, content, out string) error {
	wasm, err := os.ReadFile(in)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(content)
	if err != nil {
		return err
	}
	m, err := manifest.Parse(text)
	if err != nil {
		return fmt.Errorf("%s: %w", content, err)
	}
	if wasm, err = manifest.Append(wasm, m); err != nil {
		return fmt.Errorf("%s: %w", in, err)
	}
	return os.WriteFile(out, wasm, 0o644)
}
