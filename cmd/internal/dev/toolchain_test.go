package dev

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/project"
	"github.com/millrace-io/millrace/plugins/sandbox"
)

// toolchain is a folder of `make toolchains`.
func toolchain(t *testing.T, name, program string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("it builds with a compiler")
	}
	dir, err := filepath.Abs(filepath.Join("..", "..", "..", ".toolchains", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, filepath.FromSlash(program))); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no %s: run make toolchains", name)
		}
		t.Skipf("skipped: no %s (make toolchains)", name)
	}
	return dir
}

// env is this process's environment with another PATH, and no settings of a go
// command that runs this test.
func env(path string) []string {
	var out []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PATH=") && !strings.HasPrefix(kv, "CARGO_") {
			out = append(out, kv)
		}
	}
	return append(out, "PATH="+path+string(os.PathListSeparator)+os.Getenv("PATH"))
}

var firstAfter = regexp.MustCompile(`first record through [0-9a-f]{8} (\S+) after the save`)

var runsInFlow = regexp.MustCompile(`\(([0-9a-f]{8})\) runs in flow`)

// compiled counts the plugins of a cache.
func compiled(t *testing.T, dir string) (n int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Size() > 10_000 { // less is the sandbox's own
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestAuthors: a new project in a language, from the first build over a change
// that a record is seen to go through, and an error that the compiler finds.
func TestAuthors(t *testing.T) {
	for _, tc := range []struct {
		lang    project.Lang
		prepare func(t *testing.T, dir string) (environ []string)
		source  string
		// change makes the stage keep test orders, and broken does not compile.
		change, broken [2]string
	}{
		{project.Rust, func(t *testing.T, dir string) []string {
			return append(env(filepath.Join(toolchain(t, "rust-wasm", "bin/cargo"), "bin")), "CARGO_NET_OFFLINE=true")
		}, "src/lib.rs", [2]string{`order.get("test")`, `order.get("trial")`}, [2]string{"to.emit()", "to.emitt()"}},
		{project.AssemblyScript, func(t *testing.T, dir string) []string {
			modules := filepath.Join(toolchain(t, "assemblyscript", "node_modules/assemblyscript/bin/asc.js"), "node_modules")
			for link, target := range map[string]string{"assemblyscript": filepath.Join(modules, "assemblyscript"), "@millrace/pdk": filepath.Join(dir, ".millrace", "pdk")} {
				link = filepath.Join(dir, "node_modules", filepath.FromSlash(link))
				if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(target, link); err != nil {
					t.Fatal(err)
				}
			}
			return env("")
		}, "assembly/index.ts", [2]string{`order.get("test")`, `order.get("trial")`}, [2]string{"to.emit()", "to.emitt()"}},
	} {
		t.Run(string(tc.lang), func(t *testing.T) {
			p, _, err := project.Create(filepath.Join(t.TempDir(), "mask"), "mask", tc.lang)
			if err != nil {
				t.Fatal(err)
			}
			environ := tc.prepare(t, p.Dir)
			rt, err := sandbox.New(t.Context(), sandbox.Config{})
			if err != nil {
				t.Fatal(err)
			}
			defer rt.Close(t.Context())
			edit := func(file, old, now string) {
				t.Helper()
				path := filepath.Join(p.Dir, filepath.FromSlash(file))
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if !strings.Contains(string(b), old) {
					t.Fatalf("%s does not hold %s", file, old)
				}
				if err := os.WriteFile(path, []byte(strings.Replace(string(b), old, now, 1)), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			r := start(t, Config{Project: &Authors{P: p, Env: environ, Output: filepath.Join(t.TempDir(), "mask.wasm"), Sandbox: rt, CacheDir: NodeCache(p.Dir)}, Rate: 20})
			r.patience = 3 * time.Minute
			r.next(&r.err, "2 tests passed")
			r.next(&r.err, "mask@0.1.0-dev")
			r.next(&r.out, `{id:1} + source "shop"`)
			r.next(&r.out, "{id:3} dropped")

			edit(tc.source, tc.change[0], tc.change[1])
			r.next(&r.err, "E_TESTS_FAILED: 1 of 2 tests failed")
			r.next(&r.err, "the old version goes on")
			edit("mask.test.yaml", "- drop", "- emit: { value: { id: 3, test: true, source: shop } }")
			r.next(&r.err, "2 tests passed")
			r.next(&r.err, "first record through")
			r.next(&r.out, `{id:3} + source "shop"`)

			edit(tc.source, tc.broken[0], tc.broken[1])
			r.next(&r.err, "E_BUILD: "+tc.source+":")
			r.next(&r.err, "the old version goes on")
			edit(tc.source, tc.broken[1], tc.broken[0])
			r.next(&r.err, "the same bytes as before: nothing to swap")

			edit(tc.source, tc.change[1], tc.change[0]+fmt.Sprintf(" /* %s */", strings.Repeat("x", 10)))
			edit("mask.test.yaml", "- emit: { value: { id: 3, test: true, source: shop } }", "- drop")
			r.next(&r.err, "first record through")
			r.next(&r.out, "{id:3} dropped")
			for _, m := range firstAfter.FindAllStringSubmatch(r.err.text(), -1) {
				t.Logf("%s: from the save to the first record %s", tc.lang, m[1])
			}
			r.end()
			if _, err := os.Stat(p.WasmPath()); !os.IsNotExist(err) {
				t.Errorf("the author's own build is touched: %v", err)
			}
			versions := map[string]bool{}
			for _, m := range runsInFlow.FindAllStringSubmatch(r.err.text(), -1) {
				versions[m[1]] = true
			}
			if n := compiled(t, NodeCache(p.Dir)); n != len(versions) {
				t.Errorf("%d versions were compiled %d times", len(versions), n)
			}
		})
	}
}
