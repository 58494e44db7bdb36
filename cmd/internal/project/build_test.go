package project

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/plugins/manifest"
)

// shop is a folder of programs that only look like compilers.
type shop struct {
	t             *testing.T
	bin, log, out string
}

func newShop(t *testing.T) *shop {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the compilers of this test are shell scripts")
	}
	dir := t.TempDir()
	s := &shop{t: t, bin: filepath.Join(dir, "bin"), log: filepath.Join(dir, "log"), out: filepath.Join(dir, "out.wasm")}
	s.program("rustc", "case \"$1\" in --version) echo rustc 1.85.0;; *) echo "+s.bin+";; esac")
	s.program("node", "case \"$1\" in --version) echo v22.1.0;; *) "+s.record("asc")+" cp "+s.out+" \"$5\";; esac")
	s.program("npm", s.record("npm")+" mkdir -p node_modules/assemblyscript/bin node_modules/@millrace/pdk; : > node_modules/assemblyscript/bin/asc.js")
	s.program("go", "case \"$1\" in version) echo go version go1.26.0 linux/amd64; exit;; esac; "+s.record("go")+copyToO)
	s.program("tinygo", s.record("tinygo")+"echo \"'+x' is not a recognized feature for this target\" >&2; "+copyToO)
	s.program("cargo", s.record("cargo")+"echo '{\"reason\":\"compiler-artifact\",\"filenames\":[\""+s.out+"\"]}'")
	return s
}

// copyToO copies the module to what -o names.
const copyToO = `while [ "$1" != -o ]; do shift; done; cp "$(dirname "$0")/../out.wasm" "$2"`

func (s *shop) record(tool string) string {
	return "echo " + tool + " \"$@\" \"CARGO_ENCODED_RUSTFLAGS=$CARGO_ENCODED_RUSTFLAGS\" GOOS=$GOOS GOWORK=$GOWORK >> " + s.log + "; "
}

func (s *shop) program(name, script string) {
	s.t.Helper()
	write(s.t, s.bin, name, "#!/bin/sh\n"+script+"\n")
	if err := os.Chmod(filepath.Join(s.bin, name), 0o755); err != nil {
		s.t.Fatal(err)
	}
}

func (s *shop) remove(name string) {
	s.t.Helper()
	if err := os.Remove(filepath.Join(s.bin, name)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *shop) env(more ...string) []string {
	return append([]string{"PATH=" + s.bin + ":/usr/bin:/bin", "HOME=/home/author"}, more...)
}

// makes says what the compilers make.
func (s *shop) makes(wasm []byte) {
	s.t.Helper()
	if err := os.WriteFile(s.out, wasm, 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// said is what was called since the last time.
func (s *shop) said() string {
	b, _ := os.ReadFile(s.log)
	_ = os.Remove(s.log)
	return string(b)
}

func (s *shop) project(lang Lang) *Project {
	s.t.Helper()
	p, _, err := Create(filepath.Join(s.t.TempDir(), "mask"), "mask", lang)
	if err != nil {
		s.t.Fatal(err)
	}
	_ = os.Remove(filepath.Join(p.Dir, manifestFile))
	return p
}

func guest(t *testing.T, name string) []byte {
	t.Helper()
	return []byte(readFile(t, filepath.Join("..", "..", "..", filepath.FromSlash(name))))
}

// stage is a module in call mode that exports these functions of the ABI; its
// stage_manifest answers text.
func stage(text string, exports ...string) []byte {
	code := []byte{0x42}
	for v := uint64(1024)<<32 | uint64(len(text)); ; v >>= 7 {
		if v < 0x40 {
			return module(text, append(code, byte(v)), exports...)
		}
		code = append(code, byte(v)|0x80)
	}
}

// logging is one whose stage_manifest logs text, then five lines of its begin,
// and traps.
func logging(text string) []byte {
	n := len(text)
	code := []byte{0x41, 3, 0x41, 0x80, 0x08, 0x41, byte(n) | 0x80, byte(n >> 7), 0x10, 0}
	for range 5 {
		code = append(code, 0x41, 3, 0x41, 0x80, 0x08, 0x41, 4, 0x10, 0)
	}
	return module(text, append(code, 0), append(abi, "stage_manifest")...)
}

// module imports stage.log and holds text at 1024.
func module(text string, code []byte, exports ...string) []byte {
	vector := func(items ...string) string {
		return string(binary.AppendUvarint(nil, uint64(len(items)))) + strings.Join(items, "")
	}
	sized := func(s string) string { return string(binary.AppendUvarint(nil, uint64(len(s)))) + s }
	section := func(id byte, items ...string) string { return string(id) + sized(vector(items...)) }
	export := func(name string, kind, index byte) string { return sized(name) + string([]byte{kind, index}) }
	body := func(code ...byte) string { return sized("\x00" + string(code) + "\x0b") }
	all := []string{export("memory", 2, 0)}
	for _, name := range exports {
		all = append(all, export(name, 0, 1+byte(slices.Index([]string{"stage_abi_1", "stage_alloc", "stage_batch", "stage_manifest"}, name))))
	}
	return []byte("\x00asm\x01\x00\x00\x00" +
		section(1, "\x60\x00\x00", "\x60\x01\x7f\x01\x7f", "\x60\x02\x7f\x7f\x01\x7e", "\x60\x00\x01\x7e", "\x60\x03\x7f\x7f\x7f\x00") +
		section(2, sized("stage")+sized("log")+"\x00\x04") +
		section(3, "\x00", "\x01", "\x02", "\x03") + section(5, "\x00\x01") + section(7, all...) +
		section(10, body(), body(0x41, 8), body(0x42, 0), body(code...)) + section(11, "\x00\x41\x80\x08\x0b"+sized(text)))
}

var abi = []string{"stage_abi_1", "stage_alloc", "stage_batch"}

func TestBuildCallsTheToolchain(t *testing.T) {
	s := newShop(t)
	s.makes(stage(`{"name":"acme/mask","version":"1.2.0"}`, append(abi, "stage_manifest")...))
	lines := guest(t, "examples/lines/lines.wasm")
	for _, c := range []struct {
		name    string
		lang    Lang
		dev     bool
		env     []string
		want    []string
		not     string
		project func(p *Project)
	}{
		{name: "rust", lang: Rust, want: []string{"cargo build --target wasm32-unknown-unknown --message-format json-render-diagnostics --release --config target.wasm32-unknown-unknown.rustflags=",
			"-Ctarget-feature=+bulk-memory,+simd128", "-zstack-size=65536", "=.", "--remap-path-prefix=/home/author/.cargo/registry/src=crates"}},
		{name: "rust dev", lang: Rust, dev: true, want: []string{"--config profile.dev.opt-level=1", "profile.dev.incremental=true"}, not: "--release"},
		{name: "the author's flags", lang: Rust, env: []string{"RUSTFLAGS=--cfg  a"}, want: []string{"CARGO_ENCODED_RUSTFLAGS=--cfg\x1fa\x1f-Ctarget-feature=+bulk-memory"}, not: ".rustflags="},
		{name: "encoded flags", lang: Rust, env: []string{"CARGO_ENCODED_RUSTFLAGS=--cfg\x1fa"}, want: []string{"CARGO_ENCODED_RUSTFLAGS=--cfg\x1fa\x1f-Ctarget-feature=+bulk-memory"}, not: ".rustflags="},
		{name: "tinygo", lang: TinyGo, want: []string{"tinygo build -o ", "-target=wasip1 -buildmode=c-shared -scheduler=none -opt=2 -no-debug .", "GOWORK=off"}},
		{name: "tinygo dev", lang: TinyGo, dev: true, want: []string{"-opt=1"}},
		{name: "a workspace of the author's", lang: TinyGo, env: []string{"GOWORK=/w/go.work"}, want: []string{"GOWORK=/w/go.work"}, not: "off"},
		{name: "go", lang: Go, want: []string{"go build -trimpath -buildvcs=false -buildmode=c-shared -ldflags=-s -w -o", "GOOS=wasip1"}},
		{name: "go dev", lang: Go, dev: true, want: []string{"-buildmode=c-shared"}, not: "-ldflags"},
		{name: "as", lang: AssemblyScript, want: []string{"npm install", "asc.js assembly/index.ts -o", "-O3 --disableWarning 235 --runtime incremental --enable simd --exportStart _initialize --use abort=~lib/@millrace/pdk/assembly/index/abort --use ASC_GC_GRANULARITY=131072"}},
		{name: "as dev", lang: AssemblyScript, dev: true, want: []string{"-O0 --disableWarning"}},
		{name: "lines", lang: Lines, want: []string{"go build -trimpath -buildvcs=false -ldflags=-s -w -o", "GOOS=wasip1"}, not: "c-shared"},
		{name: "lines in Rust", lang: Lines, want: []string{"cargo build --target wasm32-wasip1"}, not: "zstack", project: func(p *Project) { write(t, p.Dir, "Cargo.toml", "[package]\n") }},
	} {
		p := s.project(c.lang)
		wasm := stage(`{"name":"acme/mask","version":"1.2.0"}`, append(abi, "stage_manifest")...)
		if c.lang == Lines {
			wasm = lines
		}
		s.makes(wasm)
		if c.project != nil {
			c.project(p)
		}
		var log bytes.Buffer
		b, err := p.Build(t.Context(), BuildOptions{Dev: c.dev, Env: s.env(c.env...), Log: &log})
		if err != nil {
			t.Errorf("%s: %v\n%s", c.name, err, &log)
			continue
		}
		said := s.said()
		for _, want := range c.want {
			if !strings.Contains(said, want) {
				t.Errorf("%s: %q is not in\n%s", c.name, want, said)
			}
		}
		if c.not != "" && strings.Contains(said, c.not) {
			t.Errorf("%s: %q is in\n%s", c.name, c.not, said)
		}
		if strings.Contains(log.String(), "not a recognized feature") {
			t.Errorf("%s: the harmless lines are shown: %s", c.name, &log)
		}
		if got := readFile(t, p.WasmPath()); got != string(b.Wasm) || b.Path != p.WasmPath() || b.Took <= 0 {
			t.Errorf("%s: %d bytes in %s, want %d", c.name, len(got), b.Path, len(b.Wasm))
		}
		if c.lang != Lines && (b.Manifest.Name != "acme/mask" || b.Manifest.Version != "1.2.0" || b.Info.Manifest == nil) {
			t.Errorf("%s: the manifest is %+v", c.name, b.Manifest)
		}
	}
}

// What a package holds already is not installed anew.
func TestBuildInstallsPackagesOnce(t *testing.T) {
	s := newShop(t)
	s.makes(stage("{}", append(abi, "stage_manifest")...))
	p := s.project(AssemblyScript)
	for i := range 2 {
		if _, err := p.Build(t.Context(), BuildOptions{Env: s.env()}); err != nil {
			t.Fatal(err)
		}
		if said := s.said(); strings.Contains(said, "npm install --include=dev ") != (i == 0) {
			t.Errorf("build %d called %s", i, said)
		}
	}
}

func TestBuildSaysWhatIsMissing(t *testing.T) {
	for _, c := range []struct {
		name, tool string
		lang       Lang
		want       []string
	}{
		{"no cargo", "cargo", Rust, []string{"cargo builds plugins in Rust: not found on the PATH", "rustup"}},
		{"no rustc", "rustc", Rust, []string{"rustc compiles plugins in Rust"}},
		{"no tinygo", "tinygo", TinyGo, []string{"tinygo builds this plugin: not found on the PATH", "--lang go"}},
		{"no go", "go", Go, []string{"go builds this plugin: not found on the PATH"}},
		{"no go for lines", "go", Lines, []string{"go builds this plugin"}},
		{"no go for tinygo", "go", TinyGo, []string{"tinygo needs go"}},
		{"no node", "node", AssemblyScript, []string{"node runs the AssemblyScript compiler"}},
		{"no npm", "npm", AssemblyScript, []string{"npm installs the AssemblyScript compiler"}},
	} {
		s := newShop(t)
		s.program("rustup", "")
		s.remove(c.tool)
		env := []string{"PATH=" + s.bin}
		_, err := s.project(c.lang).Build(t.Context(), BuildOptions{Env: env})
		e := explained(t, err, CodeToolchain, cli.ExitUnreachable, c.want...)
		if strings.Contains(e.Detail, "\n") || strings.Contains(e.Next, "\n") {
			t.Errorf("%s: more than one line: %s, %s", c.name, e.Detail, e.Next)
		}
		if said := s.said(); said != "" {
			t.Errorf("%s: it called %s", c.name, said)
		}
	}
	s := newShop(t)
	s.program("rustup", "")
	s.program("rustc", "echo /nowhere/lib")
	for lang, want := range map[Lang]string{Rust: "rustup target add wasm32-unknown-unknown", Lines: "rustup target add wasm32-wasip1"} {
		p := s.project(lang)
		write(t, p.Dir, "Cargo.toml", "[package]\n")
		_, err := p.Build(t.Context(), BuildOptions{Env: s.env()})
		explained(t, err, CodeToolchain, cli.ExitUnreachable, "has no standard library for wasm32-", want)
	}
	_, err := s.project(Rust).Build(t.Context(), BuildOptions{Env: s.env("CARGO=/nowhere/cargo")})
	explained(t, err, CodeToolchain, cli.ExitUnreachable, "CARGO=/nowhere/cargo, and there is no such program", "unset CARGO")
	s.program("go", "echo go version go1.19.8 linux/amd64")
	_, err = s.project(Go).Build(t.Context(), BuildOptions{Env: s.env()})
	explained(t, err, CodeToolchain, cli.ExitUnreachable, "version 1.19.8 is too old: 1.24 or later is needed")
}

func TestBuildTellsCompileErrors(t *testing.T) {
	const rust = "error[E0308]: mismatched types\n  --> src/lib.rs:12:5\n   |\n"
	const asc = "ERROR TS2304: Cannot find name 'x'.\n   :\n 5 | x;\n   └─ in assembly/index.ts(5,1)\n"
	for _, c := range []struct {
		name, tool, words string
		lang              Lang
		want              []string
	}{
		{"rust", "cargo", "warning: unused\n" + rust, Rust, []string{"src/lib.rs:12:5: cargo: error[E0308]: mismatched types"}},
		{"the target's library", "cargo", "error[E0463]: can't find crate for `std`\n", Rust, []string{"E0463", "rustup target add wasm32-unknown-unknown"}},
		{"go", "go", "# mask\n./main.go:7:2: undefined: x\n", Go, []string{"main.go:7:2: go: undefined: x"}},
		{"tinygo", "tinygo", "main.go:9:1: missing return\n", TinyGo, []string{"main.go:9:1: tinygo: missing return"}},
		{"a goroutine", "tinygo", "main.go:9:1: attempted to start a goroutine without a scheduler\n", TinyGo, []string{"call the function without `go`"}},
		{"as", "node", asc, AssemblyScript, []string{"assembly/index.ts:5:1: asc: ERROR TS2304: Cannot find name 'x'."}},
		{"a flag of the environment", "go", "-buildmode=pie not supported on wasip1/wasm\n", Lines, []string{"GOFLAGS"}},
		{"other words", "go", "go: cannot\nfind it\n", Go, []string{"go: exit status 1: find it"}},
		{"no words", "go", "", Go, []string{"go: exit status 1"}},
	} {
		s := newShop(t)
		p := s.project(c.lang)
		write(t, p.Dir, "words", c.words)
		write(t, p.Dir, "build/mask.wasm", "the old one")
		s.program(c.tool, "case \"$1\" in version) echo go version go1.26.0; exit;; --version) echo v22.0.0; exit;; esac; cat words >&2; exit 1")
		var log bytes.Buffer
		_, err := p.Build(t.Context(), BuildOptions{Env: s.env(), Log: &log})
		e := explained(t, err, CodeBuild, cli.ExitFailed, c.want...)
		if strings.Contains(e.Detail, "\n") {
			t.Errorf("%s: more than a line: %q", c.name, e.Detail)
		}
		if !strings.HasSuffix(log.String(), c.words) {
			t.Errorf("%s: got the words %q, want %q", c.name, &log, c.words)
		}
		if ce, ok := errors.AsType[*CompileError](err); !ok || ce.Output != c.words {
			t.Errorf("%s: no compiler's words in %v", c.name, err)
		}
		if got := readFile(t, p.WasmPath()); got != "the old one" {
			t.Errorf("%s: the old module is gone", c.name)
		}
	}
	s := newShop(t)
	s.program("cargo", "echo '{\"reason\":\"compiler-artifact\",\"filenames\":[\"/x/libmask.rlib\"]}'; echo")
	_, err := s.project(Rust).Build(t.Context(), BuildOptions{Env: s.env()})
	explained(t, err, CodeBuild, cli.ExitFailed, "Cargo.toml: cargo made no .wasm", `crate-type = ["cdylib"]`)
}

func TestBuildRefusesWhatNoNodeRuns(t *testing.T) {
	s := newShop(t)
	for _, c := range []struct {
		lang Lang
		want string
	}{
		{Rust, "stage!("}, {TinyGo, "millrace.Stage("}, {Go, "millrace.Stage("}, {AssemblyScript, `@millrace/pdk/assembly/exports`},
	} {
		s.makes(stage(""))
		p := s.project(c.lang)
		_, err := p.Build(t.Context(), BuildOptions{Env: s.env()})
		explained(t, err, api.CodeRefused, cli.ExitInvalid, p.Source()+": it compiles, but no node would run it", "exports neither stage_abi_1", c.want)
		if exists(p.WasmPath()) {
			t.Errorf("%s: the module was written", c.lang)
		}
	}
	// A kit is there, and no stage: its stage_manifest says so and traps.
	said := "panic: " + noStage + ": call f in init"
	s.makes(logging(said))
	_, err := s.project(Go).Build(t.Context(), BuildOptions{Env: s.env()})
	explained(t, err, api.CodeRefused, cli.ExitInvalid, "main.go: it compiles, but the plugin has no stage", "millrace.Stage(")
	s.makes(logging("something else"))
	_, err = s.project(Go).Build(t.Context(), BuildOptions{Env: s.env()})
	explained(t, err, CodeManifest, cli.ExitInvalid, "ask the plugin for its manifest", "it logged: something else")
	s.makes(stage("", "stage_abi_1", "stage_alloc"))
	_, err = s.project(Rust).Build(t.Context(), BuildOptions{Env: s.env()})
	explained(t, err, api.CodeRefused, cli.ExitInvalid, "does not export the function stage_batch", "stage!(")
}

func TestBuildTakesOneManifest(t *testing.T) {
	s := newShop(t)
	const declared = `{"name":"mask","version":"1.0.0","outputs":["default","audit"]}`
	for _, c := range []struct {
		name, declared, file string
		want                 []string
	}{
		{"both", declared, `{"name":"mask"}`, []string{"manifest.json: the manifest is declared in", "main.go too", "remove manifest.json"}},
		{"a wrong version", `{"name":"mask","version":"v1"}`, "", []string{`main.go: version: "v1" is no semantic version`, "correct the declaration"}},
		{"a wrong field in the file", "", `{"nmae":"mask"}`, []string{`manifest.json: a manifest has no field "nmae"`, `did you mean "name"?`}},
		{"a file that is no JSON", "", `{"name":`, []string{"manifest.json: unexpected EOF", "correct the file"}},
		{"a schema that is none", `{"config":{"type":"strnig"}}`, "", []string{"main.go: config: "}},
	} {
		exports := slices.Clone(abi)
		if c.declared != "" {
			exports = append(exports, "stage_manifest")
		}
		s.makes(stage(c.declared, exports...))
		p := s.project(Go)
		if c.file != "" {
			write(t, p.Dir, manifestFile, c.file)
		}
		_, err := p.Build(t.Context(), BuildOptions{Env: s.env()})
		t.Log(c.name)
		explained(t, err, CodeManifest, cli.ExitInvalid, c.want...)
	}
	s.makes(stage("", abi...))
	p := s.project(Go)
	write(t, p.Dir, manifestFile, declared)
	out := filepath.Join(t.TempDir(), "deep", "x.wasm")
	b, err := p.Build(t.Context(), BuildOptions{Env: s.env(), Output: out})
	if err != nil || b.Path != out {
		t.Fatalf("got %+v, %v", b, err)
	}
	section, err := manifest.Find([]byte(readFile(t, out)))
	if err != nil || !json.Valid(section) || !strings.Contains(string(section), `"audit"`) {
		t.Errorf("the file holds the manifest %s, %v", section, err)
	}
	// Without any manifest the plugin gets its project's name.
	s.makes(stage("", abi...))
	if b, err = s.project(Go).Build(t.Context(), BuildOptions{Env: s.env()}); err != nil || b.Manifest.Name != "mask" || !strings.HasPrefix(b.Manifest.Version, "0.0.0+") {
		t.Errorf("got %+v, %v", b, err)
	}
}

func TestBuildNeedsItsFiles(t *testing.T) {
	for lang, want := range map[Lang]string{Rust: "Cargo.toml", TinyGo: "go.mod", Go: "go.mod", AssemblyScript: "package.json", Lines: "go.mod or a Cargo.toml"} {
		_, err := (&Project{Dir: t.TempDir(), Name: "x", Lang: lang}).Build(t.Context(), BuildOptions{})
		explained(t, err, CodeNoProject, cli.ExitInvalid, "a plugin of --lang "+string(lang)+" has a "+want)
	}
}
