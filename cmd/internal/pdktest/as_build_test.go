package pdktest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/plugins/sandbox"
)

// npm runs npm in projects of a test: offline, from its cache.
type npm struct {
	path, asc string // asc is the folder of the compiler that make toolchains installed
}

func findNpm(t *testing.T) npm {
	t.Helper()
	if testing.Short() {
		t.Skip("builds with npm")
	}
	asc, err := filepath.Abs(filepath.Join(repo, ".toolchains", "assemblyscript", "node_modules"))
	if err != nil {
		t.Fatal(err)
	}
	path, err := exec.LookPath("npm")
	if err == nil && exists(filepath.Join(asc, "assemblyscript")) {
		return npm{path, asc}
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("no npm with AssemblyScript: run make toolchains")
	}
	t.Skip("skipped: no npm with AssemblyScript (make toolchains)")
	return npm{}
}

func (n npm) run(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), n.path, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "npm_config_offline=true", "npm_config_audit=false", "npm_config_fund=false", "npm_config_update_notifier=false", "NO_COLOR=1")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// pack makes the package as npm publishes it, and returns its file.
func (n npm) pack(t *testing.T, dir string) string {
	t.Helper()
	kit, err := filepath.Abs(filepath.Join(repo, "pdk", "assemblyscript"))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := n.run(t, kit, "pack", "--pack-destination", dir); err != nil {
		t.Fatalf("npm pack: %v\n%s", err, out)
	}
	files, err := filepath.Glob(filepath.Join(dir, "millrace-pdk-*.tgz"))
	if err != nil || len(files) != 1 {
		t.Fatalf("packages %q, %v", files, err)
	}
	return files[0]
}

// install makes a project with that package.json, to which it installs the
// package, and the compiler by way of the one that is there.
func (n npm) install(t *testing.T, project, packed, packageJSON string) {
	t.Helper()
	write(t, filepath.Join(project, "package.json"), packageJSON)
	compiler := filepath.Join(n.asc, "assemblyscript")
	if out, err := n.run(t, project, "install", "--save-dev", "--install-links=false", "--legacy-peer-deps", packed, "file:"+compiler); err != nil {
		t.Fatalf("npm install: %v\n%s", err, out)
	}
}

func wasmOf(t *testing.T, path string) string {
	t.Helper()
	pdk, err := filepath.Abs(filepath.Join(repo, "pdk"))
	if err != nil {
		t.Fatal(err)
	}
	rel, err := filepath.Rel(pdk, path)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.ToSlash(rel)
}

const asFlags = "--runtime incremental --enable simd --exportStart _initialize --use abort=~lib/@millrace/pdk/assembly/index/abort"

// What npm pack makes is all that a stranger's empty project needs. The project
// is installed once for all that is built in it.
func TestASPackage(t *testing.T) {
	n := findNpm(t)
	dir := t.TempDir()
	packed := n.pack(t, dir)
	project := filepath.Join(dir, "project")
	n.install(t, project, packed, `{"name":"project","private":true}`)
	t.Run("stranger", func(t *testing.T) { n.stranger(t, project, packed) })
	t.Run("guide", func(t *testing.T) { n.guide(t, project) })
	t.Run("tests", func(t *testing.T) { n.unitTests(t, project) })
}

// fresh empties the project but for what is installed.
func fresh(t *testing.T, project, packageJSON string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(project, "assembly")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(project, "package.json"), packageJSON)
}

func (n npm) stranger(t *testing.T, project, packed string) {
	dir := t.TempDir()
	names := unpack(t, packed, filepath.Join(dir, "unpacked"))
	for _, want := range []string{"package.json", "README.md", "LICENSE", "index.ts", "assembly/index.ts", "assembly/exports.ts", "assembly/json/scan.ts", "bin/test.js"} {
		if !slices.Contains(names, want) {
			t.Errorf("the package lacks %s: %q", want, names)
		}
	}
	for _, name := range names {
		if strings.Contains(name, ".wasm") || strings.HasPrefix(name, "examples/") || strings.Contains(name, "__tests__") {
			t.Errorf("the package has %s", name)
		}
	}
	fresh(t, project, `{"name":"stranger","private":true,"scripts":{"build":"asc assembly/index.ts -o stranger.wasm `+asFlags+`","simple":"asc assembly/index.ts -o simple.wasm `+strings.Replace(asFlags, "--enable simd ", "", 1)+`","none":"asc assembly/none.ts -o none.wasm `+asFlags+`"}}`)
	write(t, filepath.Join(project, "assembly", "index.ts"), `import { Answer, Out, Record, stage } from "@millrace/pdk";

export * from "@millrace/pdk/assembly/exports";

function shout(r: Record, out: Out): Answer {
  return r.bytes().length > 0 && r.bytes()[0] == 0x7b ? out.rewrite(r.json()).emit() : out.emit(r.text().toUpperCase());
}

stage(shout);
`)
	// What forgets its stage does not start, and says so.
	write(t, filepath.Join(project, "assembly", "none.ts"), `import "@millrace/pdk";
export * from "@millrace/pdk/assembly/exports";
`)
	for _, script := range []string{"build", "simple", "none"} {
		if out, err := n.run(t, project, "run", script); err != nil || strings.Contains(out, "WARNING") {
			t.Fatalf("npm run %s: %v\n%s", script, err, out)
		}
	}
	rt := newRuntime(t)
	if _, err := tryOpen(t, rt, readWasm(t, wasmOf(t, filepath.Join(project, "none.wasm"))), sandbox.StageConfig{}); err == nil || !strings.Contains(err.Error(), "the plugin has no stage: call stage(f)") {
		t.Errorf("without a stage: %v", err)
	}
	for _, name := range []string{"stranger.wasm", "simple.wasm"} {
		s := newStage(t, newRuntime(t), wasmOf(t, filepath.Join(project, name)), sandbox.StageConfig{})
		a := process(t, s, []byte("hello"), []byte(`{ "a" : "longer than one window of sixteen bytes \u00e4", "b":[1,2] }`))
		if a[0].value != "HELLO" || a[1].value != `{"a":"longer than one window of sixteen bytes \u00e4","b":[1,2]}` {
			t.Errorf("%s: got %+v", name, a)
		}
	}
}

// What the guide shows builds, passes its tests and does what it says.
func (n npm) guide(t *testing.T, project string) {
	data, err := os.ReadFile(filepath.Join(repo, "docs", "guides", "assemblyscript.md"))
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	packageJSON := regexp.MustCompile(`,\n +"devDependencies": \{[^}]*\}`).ReplaceAllString(block(t, page, "json", 1), "")
	fresh(t, project, packageJSON)
	write(t, filepath.Join(project, "assembly", "index.ts"), block(t, page, "ts", 1))
	write(t, filepath.Join(project, "assembly", "__tests__", "redact.ts"), block(t, page, "ts", 2))
	if out, err := n.run(t, project, "test"); err != nil || !strings.Contains(out, "2 passed, 0 failed") {
		t.Fatalf("npm test: %v\n%s", err, out)
	}
	if out, err := n.run(t, project, "run", "build"); err != nil {
		t.Fatalf("npm run build: %v\n%s", err, out)
	}
	s := newStage(t, newRuntime(t), wasmOf(t, filepath.Join(project, "redact.wasm")), sandbox.StageConfig{Config: []byte(`{"remove":["note"]}`)})
	answers := process(t, s, []byte(`{"id":7,"email":"jane@example.com","note":"x"}`), []byte(`{"email":1}`))
	if answers[0].value != `{"id":7,"email":"***"}` {
		t.Errorf("got %+v", answers[0])
	}
	if err := answers[1].err; err == nil || err.Code != 7 || err.Message != "an event without id" {
		t.Errorf("got %v", err)
	}
}

// The unit tests of the examples pass; those of one that is wrong do not.
func (n npm) unitTests(t *testing.T, project string) {
	for from, want := range map[string]string{
		"pdk/assemblyscript/examples/order_stage_as": "4 passed, 0 failed",
		"examples/mapping":                           "8 passed, 0 failed",
	} {
		fresh(t, project, `{"name":"project","private":true,"scripts":{"test":"millrace-as-test"}}`)
		if err := os.CopyFS(filepath.Join(project, "assembly"), os.DirFS(filepath.Join(repo, from, "assembly"))); err != nil {
			t.Fatal(err)
		}
		if out, err := n.run(t, project, "test"); err != nil || !strings.Contains(out, want) {
			t.Errorf("%s: npm test: %v\n%s", from, err, out)
		}
	}
	fresh(t, project, `{"name":"project","private":true,"scripts":{"test":"millrace-as-test"}}`)
	write(t, filepath.Join(project, "assembly", "__tests__", "wrong.ts"), `import { equal, stopsWith, test } from "@millrace/pdk/assembly/testing";
import { log } from "@millrace/pdk";
test("wrong", () => equal("a", "b"));
test("right", () => equal(1, 1));
stopsWith("returns", "x", () => {});
test("traps", () => {
  log.info("noise");
  load<u8>(0xfffffff0);
});
`)
	out, err := n.run(t, project, "test")
	for _, want := range []string{"FAIL wrong", `got "a"`, `want "b"`, "ok   right", "FAIL returns", "FAIL traps", "     info: noise", "     memory access out of bounds", "1 passed, 3 failed"} {
		if !strings.Contains(out, want) {
			t.Errorf("npm test lacks %q:\n%s", want, out)
		}
	}
	if err == nil {
		t.Error("npm test with failures exits with 0")
	}
}
