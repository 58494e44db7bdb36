package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/cmd/internal/project"
)

// withToolchains puts the toolchains of `make toolchains` before those of the
// PATH, and skips a language whose toolchain is not there.
func withToolchains(t *testing.T, lang project.Lang) {
	t.Helper()
	if testing.Short() {
		t.Skip("compiles")
	}
	path := os.Getenv("PATH")
	for _, name := range []string{"rust-wasm", "tinygo"} {
		bin, err := filepath.Abs(filepath.Join("..", "..", ".toolchains", name, "bin"))
		if err != nil {
			t.Fatal(err)
		}
		if isFile(filepath.Join(bin, "rustc")) || isFile(filepath.Join(bin, "tinygo")) {
			path = bin + string(os.PathListSeparator) + path
		}
	}
	t.Setenv("PATH", path)
	for _, name := range []string{"CARGO", "RUSTC", "TINYGO", "GO", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR"} {
		t.Setenv(name, "") // it is set back at the end
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
	needed := map[project.Lang][]string{
		project.Rust: {"cargo", "rustc", "rust target wasm32-unknown-unknown"}, project.TinyGo: {"tinygo", "go"}, project.Go: {"go"},
		project.AssemblyScript: {"node", "npm"}, project.Lines: {"go"},
	}[lang]
	found := map[string]bool{}
	for _, tool := range project.Tools(t.Context(), nil) {
		found[tool.Name] = tool.OK
	}
	for _, name := range needed {
		if found[name] {
			continue
		}
		if os.Getenv("CI") == "true" {
			t.Fatalf("no %s: run make toolchains", name)
		}
		t.Skipf("skipped: no %s (make toolchains)", name)
	}
}

// TestProjectsOfAllLanguages makes a project in each language, in an empty
// folder and with nothing but flowctl and the toolchain, and does with it what
// an author would.
func TestProjectsOfAllLanguages(t *testing.T) {
	units := map[project.Lang][]string{
		project.Rust: {"cargo", "test", "--offline", "--quiet"}, project.TinyGo: {"go", "test", "."}, project.AssemblyScript: {"npm", "test"}, project.Lines: {"go", "test", "."},
	}
	for _, lang := range project.Langs() {
		t.Run(string(lang), func(t *testing.T) {
			withToolchains(t, lang)
			h := newHarness(t)
			ok := func(args ...string) string {
				t.Helper()
				code, stdout, stderr := h.call("", args...)
				if code != 0 {
					t.Fatalf("flowctl %s: exit %d: %s%s", strings.Join(args, " "), code, stdout, stderr)
				}
				return stdout
			}
			build := func(args ...string) buildResult {
				t.Helper()
				var r buildResult
				if err := json.Unmarshal([]byte(ok(append(args, "-o", "json")...)), &r); err != nil {
					t.Fatal(err)
				}
				t.Logf("%s, profile %s: %d bytes in %.2f s", lang, r.Profile, r.Size, r.Seconds)
				return r
			}
			ok("new", "plugin", "mask", "--lang", string(lang))
			first := build("build", "mask")
			if first.Plugin != "mask@0.1.0" {
				t.Errorf("the plugin is %s, want mask@0.1.0", first.Plugin)
			}
			in, err := os.ReadFile(filepath.Join(h.dir, "mask", "testdata", "in.ndjson"))
			if err != nil {
				t.Fatal(err)
			}
			code, stdout, stderr := h.call(string(in), "run", "mask/build/mask.wasm")
			want := `{"id":1,"customer":"c-17","amount":12.50,"source":"shop"}
{"id":2,"customer":"c-18","amount":3.99,"source":"shop"}
{"id":4,"customer":"c-19","amount":249.00,"source":"shop"}`
			if code != 0 || !reflect.DeepEqual(values(t, stdout), values(t, want)) || !strings.Contains(stderr, "4 in, 3 emitted, 1 dropped, 0 failed") {
				t.Errorf("exit %d: %s%s, want %s", code, stdout, stderr, want)
			}
			if lang != project.Lines {
				code, stdout, stderr = h.call(`{"id":1}`+"\n", "run", "mask/build/mask.wasm", "--with", `{"source":"web"}`)
				if want := `{"id":1,"source":"web"}` + "\n"; code != 0 || stdout != want {
					t.Errorf("with a configuration: exit %d: %s%s, want %s", code, stdout, stderr, want)
				}
				if code, _, stderr = h.call("{}\n", "run", "mask/build/mask.wasm", "--with", `{"source":1}`); code != 2 || !strings.Contains(stderr, "source") {
					t.Errorf("with a wrong configuration: exit %d: %s", code, stderr)
				}
			}
			if unit := units[lang]; unit != nil {
				cmd := exec.CommandContext(t.Context(), unit[0], unit[1:]...)
				cmd.Dir = filepath.Join(h.dir, "mask")
				cmd.Env = append(os.Environ(), "GOWORK=off")
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%s: %v\n%s", strings.Join(unit, " "), err, out)
				}
			}
			// A line is changed, and built fast.
			stage := filepath.Join(h.dir, "mask", filepath.FromSlash(map[project.Lang]string{project.Rust: "src/lib.rs", project.AssemblyScript: "assembly/index.ts"}[lang]))
			if lang != project.Rust && lang != project.AssemblyScript {
				stage = filepath.Join(h.dir, "mask", "main.go")
			}
			source, err := os.ReadFile(stage)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(stage, bytes.ReplaceAll(source, []byte("shop"), []byte("fair")), 0o644); err != nil {
				t.Fatal(err)
			}
			if lang != project.TinyGo {
				build("build", "mask", "--dev")
				if _, stdout, _ = h.call(`{"id":1}`+"\n", "run", "mask/build/mask.wasm"); !strings.Contains(stdout, "fair") {
					t.Errorf("the changed stage answers %s", stdout)
				}
			}
			// The same bytes wherever the project lies.
			ok("new", "plugin", "mask", "--lang", string(lang), "--dir", "another place/deep/x")
			if second := build("build", "another place/deep/x"); second.Digest != first.Digest {
				t.Errorf("in another folder the module is %s (%d bytes), not %s (%d bytes)", second.Digest, second.Size, first.Digest, first.Size)
			}
		})
	}
}

// values are the JSON values of a text.
func values(t *testing.T, text string) []any {
	t.Helper()
	var all []any
	for dec := json.NewDecoder(strings.NewReader(text)); ; {
		var v any
		err := dec.Decode(&v)
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		all = append(all, v)
	}
}
