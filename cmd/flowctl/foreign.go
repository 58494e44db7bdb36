package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"unicode/utf8"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
)

// wasmHead is how a core module begins.
const wasmHead = "\x00asm\x01\x00\x00\x00"

// adviceModule is what to do with a file that is no module at all.
const adviceModule = "give the .wasm file that the build of the plugin made"

// foreign are the beginnings of files that people take for plugins.
var foreign = []struct{ head, what, next string }{
	{"\x00asm\x0d\x00\x01\x00", "it is a WebAssembly component, built for WASI preview 2", "build it with --target wasm32-wasip1, or take the core module out of it (wasm-tools component unbundle)"},
	{"\x00asm", "it is WebAssembly of another version than 1", "build it as a core module of WebAssembly 2.0 or before"},
	{"\x7fELF", "it is a program for Linux", "build it for WebAssembly (Rust: --target wasm32-wasip1; Go: GOOS=wasip1 GOARCH=wasm)"},
	{"MZ", "it is a program for Windows", "build it for WebAssembly (Rust: --target wasm32-wasip1; Go: GOOS=wasip1 GOARCH=wasm)"},
	{"\xcf\xfa\xed\xfe", "it is a program for macOS", "build it for WebAssembly (Rust: --target wasm32-wasip1; Go: GOOS=wasip1 GOARCH=wasm)"},
	{"BC\xc0\xde", "it is LLVM bitcode", "link it: clang --target=wasm32 makes a module of it"},
	{"!<arch>", "it is a static library", "build a program or a cdylib instead"},
	{"\x89PNG", "it is a PNG image", adviceModule},
	{"%PDF", "it is a PDF document", adviceModule},
	{"\x1f\x8b", "it is compressed with gzip", "unpack it first"},
	{"\x28\xb5\x2f\xfd", "it is compressed with zstd", "unpack it first"},
	{"PK\x03\x04", "it is a zip archive", "unpack it, and give the .wasm file in it"},
	{"(module", "it is WebAssembly text", "assemble it: wat2wasm FILE, or wasm-tools parse FILE -o FILE.wasm"},
	{"(component", "it is WebAssembly text, of a component", "build a core module instead (Rust: --target wasm32-wasip1)"},
	{"version https://git-lfs", "it is a pointer of Git LFS, not the file itself", "fetch it: git lfs pull"},
	{"<!DOCTYPE", "it is an HTML page", "the download went wrong: fetch the file itself"},
	{"<html", "it is an HTML page", "the download went wrong: fetch the file itself"},
}

// notModule says what a file is that does not begin as a core module, by its
// first bytes; empty if it does.
func notModule(head []byte) (what, next string) {
	if bytes.HasPrefix(head, []byte(wasmHead)) {
		return "", ""
	}
	if len(head) == 0 {
		return "it is empty", "build the plugin again: what made the file did not finish"
	}
	if len(head) < len(wasmHead) && bytes.HasPrefix([]byte(wasmHead), head) {
		return "it is cut short", "build or copy it again"
	}
	text := bytes.TrimLeft(head, "\xef\xbb\xbf \t\r\n")
	for _, f := range foreign {
		if bytes.HasPrefix(head, []byte(f.head)) || bytes.HasPrefix(text, []byte(f.head)) {
			return f.what, f.next
		}
	}
	if isText(head) {
		return "it is a text", "build it with a toolchain that makes WebAssembly, and give the .wasm file"
	}
	return fmt.Sprintf("it is not WebAssembly: it begins with % x", head[:min(8, len(head))]), adviceModule
}

// isText reports whether b, the beginning of a file, is readable text.
func isText(b []byte) bool {
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 && len(b) >= utf8.UTFMax || r < ' ' && r != '\n' && r != '\r' && r != '\t' {
			return false
		}
		b = b[n:]
	}
	return true
}

// readModule reads a file that begins as a core module; of any other only its
// first bytes.
func (a *app) readModule(path string) ([]byte, error) {
	full := a.path(path)
	f, err := os.Open(full)
	if err != nil {
		return nil, a.fileError(path, full, err)
	}
	defer f.Close()
	head := make([]byte, 512)
	n, err := io.ReadFull(f, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, a.fileError(path, full, err)
	}
	head = head[:n]
	if what, next := notModule(head); what != "" {
		return nil, &cli.Error{Exit: cli.ExitInvalid, Code: api.CodeRefused, Detail: fmt.Sprintf("%s: plugin refused: %s", path, what), Next: next}
	}
	rest, err := io.ReadAll(f)
	if err != nil {
		return nil, a.fileError(path, full, err)
	}
	return append(head, rest...), nil
}
