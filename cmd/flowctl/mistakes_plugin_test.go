package main

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/plugins/manifest"
)

// module is one with a memory, functions of the type () -> () by these names
// and with this code, and imports of the same type, written module.name.
func module(exports, imports []string, code ...byte) string {
	vector := func(items ...string) string {
		return string(binary.AppendUvarint(nil, uint64(len(items)))) + strings.Join(items, "")
	}
	sized := func(s string) string { return string(binary.AppendUvarint(nil, uint64(len(s)))) + s }
	section := func(id byte, items ...string) string { return string(id) + sized(vector(items...)) }
	var imported, exported []string
	for _, name := range imports {
		from, what, _ := strings.Cut(name, ".")
		imported = append(imported, sized(from)+sized(what)+"\x00\x00")
	}
	exported = append(exported, sized("memory")+"\x02\x00")
	for _, name := range exports {
		exported = append(exported, sized(name)+"\x00"+string(byte(len(imports))))
	}
	return "\x00asm\x01\x00\x00\x00" + section(1, "\x60\x00\x00") + section(2, imported...) + section(3, "\x00") +
		section(5, "\x00\x01") + section(7, exported...) + section(10, sized("\x00"+string(code)+"\x0b"))
}

// tools makes a folder of programs that look like compilers, and the PATH of
// it. A program's text is a shell script.
func (h *harness) tools(programs map[string]string) {
	h.t.Helper()
	dir := filepath.Join(h.dir, "bin")
	if err := os.RemoveAll(dir); err != nil {
		h.t.Fatal(err)
	}
	for name, script := range programs {
		h.write("bin/"+name, "#!/bin/sh\n"+script+"\n")
		if err := os.Chmod(filepath.Join(dir, name), 0o755); err != nil {
			h.t.Fatal(err)
		}
	}
	h.t.Setenv("PATH", dir+":/usr/bin:/bin")
	for _, name := range []string{"CARGO", "RUSTC", "TINYGO", "GO", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "GOWORK"} {
		h.t.Setenv(name, "")
	}
}

// only makes programs the only ones that are found: compilers of this system
// are not.
func (h *harness) only(programs ...string) {
	scripts := map[string]string{}
	for _, p := range programs {
		scripts[p] = "exit 0"
	}
	h.tools(scripts)
	path, _, _ := strings.Cut(os.Getenv("PATH"), ":")
	h.t.Setenv("PATH", path)
}

// TestMistakesOfPluginAuthors holds what is said to the mistakes that authors
// of plugins make, from the first command to the deployment: the place, the
// cause and the next step.
func TestMistakesOfPluginAuthors(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the compilers of this test are shell scripts")
	}
	h := newHarness(t)
	try := func(what, stdin string, args ...string) {
		t.Helper()
		h.note("%s", what)
		code, _, stderr := h.call(stdin, args...)
		if code == 0 || !strings.Contains(stderr, "next: ") {
			t.Errorf("%s: exit %d, and no next step: %s", what, code, stderr)
		}
		h.doWith(stdin, args...)
	}
	project := func(name, lang string) {
		t.Helper()
		if code, _, stderr := h.call("", "new", "plugin", name, "--lang", lang); code != 0 {
			t.Fatalf("new plugin %s: %s", name, stderr)
		}
	}
	built := func(wasm string) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), "built.wasm")
		if err := os.WriteFile(path, []byte(wasm), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}

	h.log.WriteString("## A project\n\n")
	project("mask", "rust")
	project("decode", "tinygo")
	project("plain", "go")
	project("map", "as")
	project("csv", "lines")
	h.write("empty/notes.txt", "")
	try("no language", "", "new", "plugin", "other")
	try("a language that there is not", "", "new", "plugin", "other", "--lang", "c")
	try("a name that is taken", "", "new", "plugin", "mask", "--lang", "rust")
	try("a name that the language keeps", "", "new", "plugin", "test", "--lang", "rust")
	try("a path as the name", "", "new", "plugin", "plugins/mask", "--lang", "rust")
	try("a flow that goes nowhere", "", "new", "flow", "orders", "--source", "kafka://127.0.0.1:9092/in")
	try("the wrong folder", "", "build", "empty")
	try("a folder that is not there", "", "build", "msak")
	try("another language than the folder's", "", "build", "mask", "--lang", "go")

	h.log.WriteString("## The toolchain\n\n")
	h.only("brew")
	try("no Rust", "", "build", "mask")
	try("no TinyGo", "", "build", "decode")
	try("no Go", "", "build", "plain")
	try("no Node", "", "build", "map")
	try("no Go for lines", "", "build", "csv")
	h.tools(map[string]string{"rustup": "", "cargo": "", "rustc": "echo /nowhere/lib", "go": "echo go version go1.19.8 linux/amd64", "brew": ""})
	h.t.Setenv("RUSTC", "rustc")
	try("Rust without the target", "", "build", "mask")
	try("a Go that is too old", "", "build", "plain")

	h.log.WriteString("## The code\n\n")
	bare := built(module([]string{"helper"}, nil))
	copyTo := `while [ "$1" != -o ]; do shift; done; cp ` + bare + ` "$2"`
	h.tools(map[string]string{
		"rustc": "echo /usr", "cargo": `echo '{"reason":"compiler-artifact","filenames":["` + bare + `"]}'`,
		"go": `[ "$1" = version ] && { echo go version go1.26.0; exit; }; ` + copyTo, "tinygo": copyTo,
		"node": `[ "$1" = --version ] && { echo v22.0.0; exit; }; shift 4; cp ` + bare + ` "$1"`,
		"npm":  "mkdir -p node_modules/assemblyscript/bin node_modules/@millrace/pdk; : > node_modules/assemblyscript/bin/asc.js",
	})
	try("no stage!(...) in Rust", "", "build", "mask")
	try("no millrace.Stage(...) in TinyGo", "", "build", "decode")
	try("no millrace.Stage(...) in Go", "", "build", "plain")
	try("no exports in AssemblyScript", "", "build", "map")
	h.tools(map[string]string{"rustc": "echo /usr", "cargo": `echo '{"reason":"compiler-artifact","filenames":["/x/libmask.rlib"]}'`})
	try("no crate-type", "", "build", "mask")
	h.tools(map[string]string{"rustc": "echo /usr", "cargo": `printf 'error[E0425]: cannot find value ordr in this scope\n --> src/lib.rs:21:16\n' >&2; exit 101`})
	try("code that does not compile", "", "build", "mask")
	fetch := built(module([]string{"_start"}, []string{"env.fetch"}))
	h.tools(map[string]string{"rustc": "echo /usr", "cargo": `echo '{"reason":"compiler-artifact","filenames":["` + fetch + `"]}'`})
	try("a call to the network through an import", "", "build", "mask")
	ok := mustAbs(t, "examples/upper/upper.wasm")
	h.tools(map[string]string{"rustc": "echo /usr", "cargo": `echo '{"reason":"compiler-artifact","filenames":["` + ok + `"]}'`,
		"go": `[ "$1" = version ] && { echo go version go1.26.0; exit; }; while [ "$1" != -o ]; do shift; done; cp ` + mustAbs(t, "examples/lines/lines.wasm") + ` "$2"`})
	h.write("mask/manifest.json", `{"name":"mask"}`)
	try("two manifests", "", "build", "mask")
	h.write("csv/manifest.json", `{"name":"csv","verison":"1.0.0"}`)
	try("a mistyped field of the manifest", "", "build", "csv")
	h.write("csv/manifest.json", `{"name":"CSV","version":"1"}`)
	try("a manifest with a wrong name and version", "", "build", "csv")

	h.log.WriteString("## The file\n\n")
	h.write("libmask.wasm", "\x7fELF\x02\x01\x01")
	h.write("component.wasm", "\x00asm\x0d\x00\x01\x00")
	h.write("notes.wasm", "pub fn stage() {}\n")
	h.write("old.wasm", module([]string{"stage_abi_9"}, nil))
	h.write("sockets.wasm", module([]string{"_start"}, []string{"wasi_snapshot_preview1.sock_open"}))
	h.write("cut.wasm", module([]string{"_start"}, nil)[:40])
	try("a native library", "", "deploy", "libmask.wasm")
	try("a component", "", "deploy", "component.wasm")
	try("no WebAssembly at all", "", "plugin", "inspect", "notes.wasm")
	try("a kit for another ABI", "", "deploy", "old.wasm")
	try("sockets", "", "deploy", "sockets.wasm")
	try("a file that is cut short", "", "deploy", "cut.wasm")

	h.log.WriteString("## The stage\n\n")
	h.copy("pdk/rust/examples/outcomes/outcomes.wasm", "outcomes.wasm")
	h.copy("plugins/plugintest/guests/faulty/faulty.wasm", "faulty.wasm")
	h.copy("plugins/plugintest/guests/wasi/wasi.wasm", "wasi.wasm")
	try("a setting that there is not", "x\n", "run", "outcomes.wasm", "--with", `{"greting":"hi"}`)
	try("a setting of another type", "x\n", "run", "outcomes.wasm", "--with", `{"copies":"two"}`)
	try("a configuration that the stage refuses", "x\n", "run", "faulty.wasm", "--with", `{"behaviour":"init-fail"}`)
	try("a panic", "panic\n", "run", "wasi.wasm")
	try("too much memory", "hog\n", "run", "faulty.wasm")
	h.write("loop.wasm", module([]string{"_start"}, nil, 0x03, 0x40, 0x0c, 0, 0x0b))
	try("a loop without end", "x\n", "run", "loop.wasm")
	try("a record without an answer", "missing\n", "run", "faulty.wasm")
	try("a file", "open\n", "run", "wasi.wasm")

	h.log.WriteString("## The node\n\n")
	h.copy("examples/upper/upper.wasm", "upper.wasm")
	if code, _, stderr := h.call("", "deploy", "upper.wasm", "--store-only"); code != 0 {
		t.Fatal(stderr)
	}
	wasm, err := os.ReadFile(filepath.Join(h.dir, "upper.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	content, err := manifest.Find(wasm)
	if err != nil {
		t.Fatal(err)
	}
	again, err := manifest.Embed(wasm, slices.Concat([]byte(`{"memory_mb":3,`), content[1:]))
	if err != nil {
		t.Fatal(err)
	}
	h.write("upper.wasm", string(again))
	try("the same version with other bytes", "", "deploy", "upper.wasm", "--store-only")
	try("no node", "", "deploy", "upper.wasm", "--server", "127.0.0.1:1")
	try("a plugin that was not built", "", "deploy", "build/mask.wasm")

	h.golden("mistakes_plugin")
}

func mustAbs(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return path
}
