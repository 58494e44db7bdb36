// Command addmanifest gives a module that its compiler cannot give one a
// manifest:
//
//	addmanifest in.wasm manifest.json out.wasm
//	addmanifest in.wasm - out.wasm              # the one that it declares in its code
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/millrace-io/millrace/plugins/manifest"
	"github.com/millrace-io/millrace/plugins/sandbox"
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
	text, err := read(content, wasm)
	if err != nil {
		return err
	}
	if wasm, err = manifest.Embed(wasm, text); err != nil {
		return fmt.Errorf("%s, %s: %w", in, content, err)
	}
	return os.WriteFile(out, wasm, 0o644)
}

// read is the text of the file, or what the module itself answers.
func read(file string, wasm []byte) ([]byte, error) {
	if file != "-" {
		return os.ReadFile(file)
	}
	ctx := context.Background()
	rt, err := sandbox.New(ctx, sandbox.Config{})
	if err != nil {
		return nil, err
	}
	text, err := rt.DescribeModule(ctx, wasm)
	if err == nil && text == nil {
		err = errors.New("the module declares no manifest: call millrace.Describe in init")
	}
	return text, errors.Join(err, rt.Close(ctx))
}
