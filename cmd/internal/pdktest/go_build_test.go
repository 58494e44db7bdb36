package pdktest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/plugins/manifest"
	"github.com/millrace-io/millrace/plugins/sandbox"
)

// goKit is the folder of the kit for Go.
var goKit = filepath.Join(repo, "pdk", "go")

// The compilers of a stage in Go, as `flowctl build` and docs/guides/go.md call
// them.
const (
	byTinyGo      = "tinygo"
	byTinyGoNoOS  = "tinygo wasm-unknown"
	byGo          = "go"
	tinygoUnknown = "-target=wasm-unknown -gc=precise -stack-size=64kb"
)

// findTinyGo is the path of TinyGo: that of `make toolchains`, or the user's.
func findTinyGo(t testing.TB) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(repo, ".toolchains", "tinygo", "bin", "tinygo"))
	if err != nil {
		t.Fatal(err)
	}
	if exists(path) {
		return path
	}
	if path, err := exec.LookPath("tinygo"); err == nil {
		return path
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("no tinygo: run make toolchains")
	}
	t.Skip("skipped: no tinygo (make toolchains)")
	return ""
}

// goTool runs a Go command in dir, without the network unless env says so. A module's own go.mod
// holds: no workspace, no vendor folder.
func goTool(t testing.TB, dir string, env []string, command string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod", "GOPROXY=off", "GOTOOLCHAIN=local")
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// compile builds the main package in dir with that compiler.
func compile(t testing.TB, dir, compiler string, env ...string) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "stage.wasm")
	var out string
	var err error
	if compiler == byGo {
		out, err = goTool(t, dir, append(env, "GOOS=wasip1", "GOARCH=wasm"), "go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-trimpath", "-o", file, ".")
	} else {
		args := []string{"build", "-o", file, "-buildmode=c-shared", "-scheduler=none", "-opt=2", "-no-debug"}
		if compiler == byTinyGoNoOS {
			args = append(args, strings.Fields(tinygoUnknown)...)
		} else {
			args = append(args, "-target=wasip1")
		}
		out, err = goTool(t, dir, env, findTinyGo(t), append(args, ".")...)
	}
	if err != nil {
		t.Fatalf("%s: %v\n%s", compiler, err, out)
	}
	wasm, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

// described is wasm with the manifest that it declares in its code.
func described(t testing.TB, rt *sandbox.Runtime, wasm []byte) []byte {
	t.Helper()
	text, err := rt.DescribeModule(t.Context(), wasm)
	if err != nil {
		t.Fatal(err)
	}
	if wasm, err = manifest.Embed(wasm, text); err != nil {
		t.Fatalf("manifest %s: %v", text, err)
	}
	return wasm
}

// open runs wasm as a node does.
func open(t testing.TB, rt *sandbox.Runtime, wasm []byte, cfg sandbox.StageConfig) *sandbox.Stage {
	t.Helper()
	s, err := tryOpen(t, rt, wasm, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func tryOpen(t testing.TB, rt *sandbox.Runtime, wasm []byte, cfg sandbox.StageConfig) (*sandbox.Stage, error) {
	t.Helper()
	m, err := rt.Compile(t.Context(), wasm)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
	})
	cfg.Flow, cfg.Stage, cfg.Plugin = "default/test", "s", "test@1.0.0"
	s, err := m.NewStage(t.Context(), cfg)
	if err == nil {
		t.Cleanup(func() { s.Close(context.Background()) })
	}
	return s, err
}
