package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestNew(t *testing.T) {
	h := newHarness(t)
	h.note("a project in each language")
	for _, lang := range []string{"rust", "tinygo", "go", "as", "lines"} {
		h.do("new", "plugin", "mask-"+lang, "--lang", lang)
	}
	h.note("a name that no toolchain takes as it is, in another folder, for machines")
	h.do("new", "plugin", "Mask_Orders", "--lang", "as", "--dir", "plugins/mask", "-o", "json")
	h.note("a project that builds without a kit has none to renew")
	h.do("new", "plugin", "--update-pdk", "mask-lines")
	h.note("a flow, with and without a plugin")
	h.copy("examples/upper/upper.wasm", "upper.wasm")
	h.do("new", "flow", "--source", "kafka://127.0.0.1:9092/in", "--sink", "kafka://127.0.0.1:9092/out", "--plugin", "upper.wasm", "-O", "one.yaml")
	h.do("lint", "one.yaml")
	h.do("new", "flow", "orders", "--source", "kafka://main/in", "--sink", "https://partner.example/orders", "--plugin", "acme/mask@^1")
	h.do("new", "flow", "orders", "--source", "kafka://main/in", "--sink", "kafka://main/out")
	h.do("new", "flow", "Orders", "--source", "kafka://main/in", "--sink", "kafka://main/out", "-O", "wrong.yaml")
	for _, name := range []string{"one.yaml", "flow.yaml"} {
		b, err := os.ReadFile(filepath.Join(h.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		h.log.WriteString("# " + name + "\n" + string(b) + "\n")
	}
	if code, stdout, stderr := h.call("", "lint", "flow.yaml"); code != 0 || !strings.Contains(stderr, "0 errors") {
		t.Errorf("a flow of another plugin: exit %d, %s%s", code, stdout, stderr)
	}
	if _, err := os.Stat(filepath.Join(h.dir, "wrong.yaml")); err == nil {
		t.Error("a flow that does not lint was written")
	}
	h.golden("new")
}

func TestBuildTells(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the compiler of this test is a shell script")
	}
	h := newHarness(t)
	h.tools(map[string]string{"rustc": "echo /usr", "cargo": `echo "   Compiling mask" >&2; echo '{"reason":"compiler-artifact","filenames":["` + mustAbs(t, "examples/upper/upper.wasm") + `"]}'`})
	if code, _, stderr := h.call("", "new", "plugin", "mask", "--lang", "rust"); code != 0 {
		t.Fatal(stderr)
	}
	code, stdout, stderr := h.call("", "build", "mask", "-o", "json")
	var r buildResult
	if err := json.Unmarshal([]byte(stdout), &r); code != 0 || err != nil {
		t.Fatalf("exit %d, %v: %s%s", code, err, stdout, stderr)
	}
	if r.Plugin != "upper@1.0.0" || r.File != "mask/build/mask.wasm" || r.Lang != "rust" || r.Profile != "release" || r.Mode != "call" || r.Size == 0 || r.Seconds <= 0 ||
		!strings.HasPrefix(r.Digest, "sha256:") || !strings.Contains(strings.Join(r.Exports, " "), "stage_abi_1") || r.OldKit {
		t.Errorf("got %+v", r)
	}
	if stderr != "   Compiling mask\n" {
		t.Errorf("the compiler's words are %q", stderr)
	}
	// Within the project, to another file, fast, and with a kit of before.
	h.dir = filepath.Join(h.dir, "mask")
	path := filepath.Join(h.dir, ".millrace", "project.json")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	h.write(".millrace/project.json", strings.Replace(string(b), `"pdk":"sha256:`, `"pdk":"sha256:0`, 1))
	code, stdout, stderr = h.call("", "build", "--dev", "-O", "x.wasm")
	if code != 0 || !strings.Contains(stdout, "File:     x.wasm\n") || !strings.Contains(stdout, "profile dev\n") || !strings.Contains(stdout, "upper@1.0.0") {
		t.Errorf("exit %d: %s", code, stdout)
	}
	if !strings.Contains(stderr, "is older than that of this flowctl") || !strings.Contains(stderr, "`flowctl new plugin --update-pdk`") {
		t.Errorf("an old kit: %s", stderr)
	}
	if code, stdout, _ = h.call("", "new", "--update-pdk"); code != 0 || !strings.Contains(stdout, "the kit in .millrace/pdk was ") {
		t.Errorf("exit %d: %s", code, stdout)
	}
	if _, _, stderr = h.call("", "build"); strings.Contains(stderr, "older") {
		t.Errorf("renewed, and still: %s", stderr)
	}
}
