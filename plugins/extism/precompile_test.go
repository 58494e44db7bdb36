package extism

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/plugins/internal/testkit"
	"github.com/millrace-io/millrace/plugins/sandbox"
)

// machineCode are the names of what a compilation cache holds.
func machineCode(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && filepath.Base(filepath.Dir(path)) != "checked" {
			names = append(names, d.Name())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

// What the sandbox's process compiled is what the SDK looks for: otherwise the
// compiler would meet the plugin in this process first.
func TestPrecompile(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	newSandbox := func(timeout time.Duration) *sandbox.Runtime {
		rt, err := sandbox.New(t.Context(), sandbox.Config{CacheDir: t.TempDir(), CompileCommand: []string{exe, "compile-plugin"}, CompileTimeout: timeout})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = rt.Close(context.Background()) })
		return rt
	}
	box := newSandbox(0)
	dir := box.Config().CacheDir
	var before, filled []string
	rt := open(t, Config{CacheDir: dir, Workers: 1, Precompile: func(ctx context.Context, wasm []byte) error {
		before = machineCode(t, dir)
		defer func() { filled = machineCode(t, dir) }()
		return box.Precompile(ctx, wasm)
	}})
	m := compile(t, rt, hostileGuest())
	added := slices.DeleteFunc(slices.Clone(filled), func(n string) bool { return slices.Contains(before, n) })
	if len(added) == 0 {
		t.Fatal("the process left nothing in the cache")
	}
	if out := testkit.Process(t, newStage(t, m, sandbox.StageConfig{Function: "count"}), testkit.Batch("a")); len(out.Emits) != 1 {
		t.Errorf("got %+v, want an answer", out)
	}

	plain := t.TempDir()
	compile(t, open(t, Config{CacheDir: plain, Workers: 1}), hostileGuest())
	if looked := machineCode(t, plain); !slices.ContainsFunc(added, func(n string) bool { return slices.Contains(looked, n) }) {
		t.Errorf("the process made %q, the SDK looks for %q", added, looked)
	}

	// What takes too long there is refused here.
	slow := newSandbox(time.Nanosecond)
	_, err = open(t, Config{CacheDir: slow.Config().CacheDir, Workers: 1, Precompile: slow.Precompile}).Compile(t.Context(), hostileGuest())
	if e, ok := errors.AsType[*sandbox.RefusedError](err); !ok || e.Kind != sandbox.RefusedLimits || !strings.Contains(err.Error(), "took longer than 1ns") {
		t.Errorf("got %v, want a refusal", err)
	}
}
