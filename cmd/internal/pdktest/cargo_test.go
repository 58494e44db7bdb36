package pdktest

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/plugins/sandbox"
)

const repo = "../../.."

// cargo runs a cargo that can make Wasm: that of `make toolchains`, or the
// user's own with the target installed.
type cargo struct {
	path, bin string
}

func findCargo(t *testing.T) cargo {
	t.Helper()
	if testing.Short() {
		t.Skip("builds with cargo")
	}
	bin, err := filepath.Abs(filepath.Join(repo, ".toolchains", "rust-wasm", "bin"))
	if err != nil {
		t.Fatal(err)
	}
	if path := filepath.Join(bin, "cargo"); exists(path) {
		return cargo{path, bin}
	}
	path, err := exec.LookPath("cargo")
	if err == nil {
		libs, err := exec.Command("rustc", "--print", "target-libdir", "--target", "wasm32-unknown-unknown").Output()
		if err == nil && exists(strings.TrimSpace(string(libs))) {
			return cargo{path, filepath.Dir(path)}
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("no cargo with the target wasm32-unknown-unknown: run make toolchains")
	}
	t.Skip("skipped: no cargo with the target wasm32-unknown-unknown (make toolchains)")
	return cargo{}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// run runs cargo in dir, offline, with its output below target.
func (c cargo) run(t *testing.T, dir, target string, args ...string) (string, error) {
	t.Helper()
	return c.exec(t, dir, target, append(args, "--offline")...)
}

// withSerde is run for what needs the crates of serde. If they are not there,
// cargo fetches them; where it cannot, the test is skipped.
func (c cargo) withSerde(t *testing.T, dir, target string, args ...string) (string, error) {
	t.Helper()
	out, err := c.run(t, dir, target, args...)
	if err == nil || !strings.Contains(out, "using offline mode") {
		return out, err
	}
	if out, err := c.exec(t, dir, target, "fetch"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("cargo fetch: %v\n%s", err, out)
		}
		t.Skip("skipped: serde is not in cargo's cache, and cargo cannot fetch it")
	}
	return c.run(t, dir, target, args...)
}

func (c cargo) exec(t *testing.T, dir, target string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), c.path, args...)
	cmd.Dir = dir
	cmd.Env = []string{"CARGO_TARGET_DIR=" + target, "CARGO_TERM_COLOR=never"}
	for _, kv := range os.Environ() {
		switch name, _, _ := strings.Cut(kv, "="); {
		case name == "PATH":
			cmd.Env = append(cmd.Env, "PATH="+c.bin+string(os.PathListSeparator)+os.Getenv("PATH"))
		case strings.HasPrefix(name, "CARGO_") && name != "CARGO_HOME", name == "RUSTFLAGS", name == "RUSTC", name == "RUSTC_WRAPPER":
		default:
			cmd.Env = append(cmd.Env, kv)
		}
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// unpack unpacks a .crate below dir and returns the names of its files.
func unpack(t *testing.T, crate, dir string) []string {
	t.Helper()
	f, err := os.Open(crate)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		_, name, _ := strings.Cut(h.Name, "/")
		names = append(names, name)
		write(t, filepath.Join(dir, filepath.FromSlash(name)), string(data))
	}
}

const strangerToml = `[package]
name = "stranger"
version = "0.3.0"
edition = "2021"

[lib]
crate-type = ["cdylib"]

[dependencies]
millrace-pdk = "0.1"

[profile.dev]
panic = "abort"
debug = false

[patch.crates-io]
millrace-pdk = { path = "../millrace-pdk" }
`

const strangerStage = `use millrace_pdk::*;

stage!(shout);

fn shout(r: &Record, out: &mut Out) -> Result {
    out.emit(&r.text()?.to_uppercase())
}

#[test]
fn shouts() {
    assert_eq!(testing::Batch::of("a").run(shout).value(0), Some("A"));
}
`

// The crate's own tests, and those of its examples, run on the host without
// Wasm. The toolchain of the guests has no rustdoc, so examples in the
// documentation are left to the author's own cargo.
func TestRustUnitTests(t *testing.T) {
	c := findCargo(t)
	out, err := c.run(t, filepath.Join(repo, "pdk", "rust", "examples"), filepath.Join(t.TempDir(), "target"), "test", "--locked",
		"-p", "millrace-pdk", "-p", "conformance_rust", "-p", "order_stage", "-p", "outcomes", "--lib", "--tests")
	if err != nil {
		t.Fatalf("cargo test: %v\n%s", err, out)
	}
	if n := len(regexp.MustCompile(`ok\. [1-9][0-9]* passed`).FindAllString(out, -1)); n < 3 {
		t.Errorf("%d suites ran, want those of the crate, of tests/stage.rs and of outcomes:\n%s", n, out)
	}
}

// packed copies what .pack lists to dir: the kit as flowctl unpacks it.
func packed(t *testing.T, dir string) {
	t.Helper()
	kit := filepath.Join(repo, "pdk", "rust")
	globs, err := os.ReadFile(filepath.Join(kit, ".pack"))
	if err != nil {
		t.Fatal(err)
	}
	take := func(name string) {
		data, err := os.ReadFile(filepath.Join(kit, name))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), string(data))
	}
	for _, glob := range strings.Fields(string(globs)) {
		folder, all := strings.CutSuffix(glob, "/**")
		if !all {
			take(glob)
			continue
		}
		err := filepath.WalkDir(filepath.Join(kit, folder), func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			name, err := filepath.Rel(kit, path)
			take(name)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// With its feature the kit reads and writes whole structs by serde.
func TestRustSerde(t *testing.T) {
	c := findCargo(t)
	dir := t.TempDir()
	packed(t, dir)
	tests, err := os.ReadFile(filepath.Join(repo, "pdk", "rust", "tests", "serde.rs"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "tests", "serde.rs"), string(tests))
	out, err := c.withSerde(t, dir, filepath.Join(dir, "target"), "test", "--features", "serde", "--test", "serde")
	if err != nil || !strings.Contains(out, "3 passed") {
		t.Fatalf("cargo test: %v\n%s", err, out)
	}
}

const panics = `use millrace_pdk::*;

stage!(obey);

fn obey(r: &Record, out: &mut Out) -> Result {
    match r.bytes() {
        b"index" => out.emit(&r.bytes()[7..]),
        b"unwrap" => out.emit(r.header("none").unwrap()),
        b"overflow" => out.emit(&[r.bytes()[0] * 3]),
        b"borrow" => {
            let cell = std::cell::RefCell::new(1);
            let (_a, _b) = (cell.borrow_mut(), cell.borrow_mut());
            out.pass()
        }
        _ => out.pass(),
    }
}
`

// A project that refers to the unpacked kit by path builds in the profile that
// authors work in, and there too a panic is the failure of its record, with its
// message and place.
func TestRustProjectWithPackedKit(t *testing.T) {
	c := findCargo(t)
	dir := t.TempDir()
	packed(t, filepath.Join(dir, ".millrace", "pdk"))
	write(t, filepath.Join(dir, "Cargo.toml"), `[package]
name = "mine"
version = "0.1.0-dev"
edition = "2021"

[lib]
crate-type = ["cdylib"]

[dependencies]
millrace-pdk = { path = ".millrace/pdk" }
`)
	build := func(source string) []byte {
		write(t, filepath.Join(dir, "src", "lib.rs"), source)
		target := filepath.Join(dir, "target")
		if out, err := c.run(t, dir, target, "build", "--target", "wasm32-unknown-unknown"); err != nil || strings.Contains(out, "warning") {
			t.Fatalf("cargo build: %v\n%s", err, out)
		}
		wasm, err := os.ReadFile(filepath.Join(target, "wasm32-unknown-unknown", "debug", "mine.wasm"))
		if err != nil {
			t.Fatal(err)
		}
		return wasm
	}
	rt := newRuntime(t)
	s := stageOf(t, rt, build(panics), sandbox.StageConfig{})
	lock, err := os.ReadFile(filepath.Join(dir, "Cargo.lock"))
	if err != nil || strings.Contains(string(lock), "source") || strings.Contains(string(lock), "serde") {
		t.Errorf("the project's Cargo.lock names more than the project and the kit: %v\n%s", err, lock)
	}
	values := []string{"ok", "index", "unwrap", "overflow", "borrow", "fine"}
	var batch [][]byte
	for _, v := range values {
		batch = append(batch, []byte(v))
	}
	answers := process(t, s, batch...)
	for i, want := range []string{"", "src/lib.rs:7: range start index 7 out of range for slice of length 5", "src/lib.rs:8: called `Option::unwrap()` on a `None` value",
		"src/lib.rs:9: attempt to multiply with overflow", "src/lib.rs:12: already borrowed: BorrowMutError", ""} {
		switch a := answers[i]; {
		case want == "" && a.err != nil:
			t.Errorf("%s: %v", values[i], a.err)
		case want != "" && (a.err == nil || !strings.Contains(a.err.Message, "it logged: panic at ") || !strings.Contains(a.err.Message, want)):
			t.Errorf("%s: got %v, want the panic at %s", values[i], a.err, want)
		}
	}
	_, err = rt.Compile(t.Context(), build(strings.Replace(strings.Replace(panics, "stage!(obey);", "", 1), "fn obey", "pub fn obey", 1)))
	if err == nil || !strings.Contains(err.Error(), "exports neither stage_abi_1") {
		t.Errorf("a crate without stage!: %v, want an error that says which export is missing", err)
	}
}

// What cargo package makes is all that a stranger's empty project needs.
func TestRustCrateIsEnoughForAStranger(t *testing.T) {
	c := findCargo(t)
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	pdk, err := filepath.Abs(filepath.Join(repo, "pdk", "rust"))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := c.withSerde(t, pdk, target, "package", "--allow-dirty"); err != nil {
		t.Fatalf("cargo package: %v\n%s", err, out)
	}
	crates, err := filepath.Glob(filepath.Join(target, "package", "millrace-pdk-*.crate"))
	if err != nil || len(crates) != 1 {
		t.Fatalf("crates %q, %v", crates, err)
	}
	names := unpack(t, crates[0], filepath.Join(dir, "millrace-pdk"))
	for _, want := range []string{"Cargo.toml", "README.md", "LICENSE", "src/lib.rs", "tests/stage.rs"} {
		if !strings.Contains("\n"+strings.Join(names, "\n")+"\n", "\n"+want+"\n") {
			t.Errorf("the crate lacks %s: %q", want, names)
		}
	}
	for _, name := range names {
		if strings.Contains(name, ".wasm") || strings.HasPrefix(name, "examples/") {
			t.Errorf("the crate has %s", name)
		}
	}
	project := filepath.Join(dir, "stranger")
	write(t, filepath.Join(project, "Cargo.toml"), strangerToml)
	write(t, filepath.Join(project, "src", "lib.rs"), strangerStage)
	if out, err := c.run(t, project, target, "build", "--target", "wasm32-unknown-unknown"); err != nil || strings.Contains(out, "warning") {
		t.Fatalf("cargo build: %v\n%s", err, out)
	}
	wasm := filepath.Join(target, "wasm32-unknown-unknown", "debug", "stranger.wasm")
	rel, err := filepath.Rel(filepath.Join(pdk, ".."), wasm)
	if err != nil {
		t.Fatal(err)
	}
	s := newStage(t, newRuntime(t), filepath.ToSlash(rel), sandbox.StageConfig{})
	if m := s.Info().Manifest; m == nil || m.Name != "stranger" || m.Version != "0.3.0" {
		t.Errorf("manifest %+v", m)
	}
	if a := process(t, s, []byte("hello")); a[0].value != "HELLO" {
		t.Errorf("got %+v", a[0])
	}
}

// What authors get wrong does not compile, and the message says what to do.
func TestRustMistakesDoNotCompile(t *testing.T) {
	c := findCargo(t)
	dir := t.TempDir()
	pdk, err := filepath.Abs(filepath.Join(repo, "pdk", "rust"))
	if err != nil {
		t.Fatal(err)
	}
	project := filepath.Join(dir, "stranger")
	write(t, filepath.Join(project, "Cargo.toml"), strings.ReplaceAll(strangerToml, "../millrace-pdk", pdk))
	for _, m := range []struct{ name, source, want string }{
		{"a record that is not answered", `use millrace_pdk::*; stage!(f);
fn f(_: &Record, _: &mut Out) -> Result { Ok(()) }`, "expected `Answered`, found `()`"},
		{"an emit in a loop that nothing ends", `use millrace_pdk::*; stage!(f);
fn f(_: &Record, out: &mut Out) -> Result { for _ in 0..2 { out.emit("x")?; } }`, "expected `Result<Answered, Failure>`, found `()`"},
		{"a function of another form", `use millrace_pdk::*; stage!(f);
fn f(r: &Record) -> Vec<u8> { r.bytes().to_vec() }`, "expected fn pointer"},
		{"config without its parameter", `use millrace_pdk::*; config! { struct C { a: u8 } } stage!(f, config: C);
fn f(r: &Record, out: &mut Out) -> Result { out.pass() }`, "expected fn pointer"},
		{"a type that is no config", `use millrace_pdk::*; struct C; stage!(f, config: C);
fn f(_: &Record, out: &mut Out, _: &C) -> Result { out.pass() }`, "`C: Config` is not satisfied"},
		{"an output that is not declared", `use millrace_pdk::*; stage!(f, outputs: { AUDIT: "audit" });
fn f(_: &Record, out: &mut Out) -> Result { out.to(AUDTI).pass() }`, "cannot find value `AUDTI`"},
		{"a setting that does not exist", `use millrace_pdk::*; stage!(f, memory: 16);
fn f(_: &Record, out: &mut Out) -> Result { out.pass() }`, "stage!: `memory` is no setting, is given twice, or has a wrong form; the settings are config: Type"},
		{"a sample that is no JSON", `use millrace_pdk::*; stage!(f, sample: ["{'a':1}"]);
fn f(_: &Record, out: &mut Out) -> Result { out.pass() }`, "stage!: a sample or the schema is not JSON"},
		{"a name that no plugin can have", `use millrace_pdk::*; stage!(f, name: "My Stage");
fn f(_: &Record, out: &mut Out) -> Result { out.pass() }`, "stage!: the name of a plugin has lower-case letters"},
		{"a schema that nobody reads", `use millrace_pdk::*; stage!(f, schema: "{}");
fn f(_: &Record, out: &mut Out) -> Result { out.pass() }`, "stage!: a schema without config"},
		{"a writer that is let go", `#![deny(warnings)] use millrace_pdk::*; stage!(f);
fn f(_: &Record, out: &mut Out) -> Result { out.write(); out.end() }`, "nothing is emitted before emit"},
	} {
		write(t, filepath.Join(project, "src", "lib.rs"), m.source)
		out, err := c.run(t, project, filepath.Join(dir, "target"), "check", "--target", "wasm32-unknown-unknown")
		if err == nil {
			// Constants that panic are evaluated when code is made.
			out, err = c.run(t, project, filepath.Join(dir, "target"), "build", "--target", "wasm32-unknown-unknown")
		}
		if err == nil || !strings.Contains(out, m.want) {
			t.Errorf("%s: got %v\n%s\nwant %q", m.name, err, out, m.want)
		}
	}
}
