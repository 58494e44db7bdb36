package rewrite_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/millrace-io/millrace/plugins/rewrite"
)

// realModules are what compilers made: the examples and tests of wazero,
// from Rust, TinyGo, Zig, AssemblyScript, C and wat.
func realModules(t testing.TB) map[string][]byte {
	t.Helper()
	dir, err := wazeroDir()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() == "spectest" {
			return filepath.SkipDir
		}
		if filepath.Ext(path) != ".wasm" {
			return nil
		}
		wasm, err := os.ReadFile(path)
		out[strings.TrimPrefix(path, dir)] = wasm
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 50 {
		t.Fatalf("found %d modules in %s, want at least 50", len(out), dir)
	}
	return out
}

// TestRealModules rewrites them: whatever wazero decodes is accepted or
// refused for a proposal that it lacks too, and is decoded again afterwards
// with every mutable global in sight.
func TestRealModules(t *testing.T) {
	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	defer rt.Close(ctx)
	accepted := 0
	for name, wasm := range realModules(t) {
		if len(wasm) > 200_000 {
			continue
		}
		orig, origErr := rt.CompileModule(ctx, wasm)
		res, err := rewrite.Rewrite(wasm, rewrite.Options{})
		if err != nil {
			if origErr == nil {
				t.Errorf("%s: wazero compiles it, but: %v", name, err)
			}
			continue
		}
		mod, err := rt.CompileModule(ctx, res.Wasm)
		if (err == nil) != (origErr == nil) {
			t.Errorf("%s: compiles with %v, rewritten with %v", name, origErr, err)
		}
		if err != nil {
			continue
		}
		accepted++
		if got, want := fmt.Sprint(len(mod.ImportedFunctions()), len(mod.ExportedFunctions())),
			fmt.Sprint(len(orig.ImportedFunctions()), len(orig.ExportedFunctions())); got != want {
			t.Errorf("%s: got %s imported and exported functions, want %s", name, got, want)
		}
		orig.Close(ctx)
		mod.Close(ctx)
	}
	if accepted < 40 {
		t.Errorf("only %d modules were accepted", accepted)
	}
}

func BenchmarkRewrite(b *testing.B) {
	modules := realModules(b)
	for _, name := range []string{
		"/imports/wasi_snapshot_preview1/testdata/zig-cc/wasi.wasm",
		"/imports/wasi_snapshot_preview1/testdata/cargo-wasi/wasi.wasm",
	} {
		wasm := modules[name]
		b.Run("module="+filepath.Base(filepath.Dir(name)), func(b *testing.B) {
			b.SetBytes(int64(len(wasm)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := rewrite.Rewrite(wasm, rewrite.Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
