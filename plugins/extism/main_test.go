package extism

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/millrace-io/millrace/plugins/internal/testkit"
	"github.com/millrace-io/millrace/plugins/sandbox"
)

// TestMain is also the program that compiles for TestPrecompile.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "compile-plugin" {
		os.Exit(sandbox.RunCompileChild(os.Stdin, os.Stdout, os.Args[2:]))
	}
	goleak.VerifyTestMain(m)
}

// sdkDir is where the module of the SDK lies, whose plugins the tests run.
var sdkDir = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/extism/go-sdk").Output()
	return strings.TrimSpace(string(out)), err
})

func shipped(tb testing.TB, name string) []byte {
	tb.Helper()
	dir, err := sdkDir()
	if err != nil {
		tb.Fatalf("find the SDK's module: %v", err)
	}
	return testkit.Read(tb, filepath.Join(dir, "wasm", name+".wasm"))
}

// shared is one runtime for the package with the plugins of the SDK in it, so
// that each one's machine code is made once.
var shared struct {
	sync.Mutex
	rt      *Runtime           // guarded by Mutex
	modules map[string]*Module // guarded by Mutex
}

func open(tb testing.TB, cfg Config) *Runtime {
	tb.Helper()
	rt, err := New(tb.Context(), cfg)
	return testkit.Own(tb, rt, err)
}

// sharedRuntime has two workers and lives as long as the process.
func sharedRuntime(tb testing.TB) *Runtime {
	tb.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.rt == nil {
		rt, err := New(context.Background(), Config{Workers: 2})
		if err != nil {
			tb.Fatal(err)
		}
		shared.rt, shared.modules = rt, map[string]*Module{}
	}
	return shared.rt
}

// moduleOf is a plugin of the SDK in the shared runtime.
func moduleOf(tb testing.TB, name string) *Module {
	tb.Helper()
	rt := sharedRuntime(tb)
	shared.Lock()
	defer shared.Unlock()
	m := shared.modules[name]
	if m == nil {
		var err error
		if m, err = rt.Compile(context.Background(), shipped(tb, name)); err != nil {
			tb.Fatal(err)
		}
		shared.modules[name] = m
	}
	return m
}

func compile(tb testing.TB, rt *Runtime, wasm []byte) *Module {
	tb.Helper()
	m, err := rt.Compile(tb.Context(), wasm)
	return testkit.Own(tb, m, err)
}

func newStage(tb testing.TB, m *Module, cfg sandbox.StageConfig) *Stage {
	tb.Helper()
	if cfg.Stage == "" {
		cfg.Stage = "s"
	}
	s, err := m.NewStage(tb.Context(), cfg)
	return testkit.Own(tb, s, err)
}

// stageOf runs a plugin of the SDK.
func stageOf(tb testing.TB, name string, cfg sandbox.StageConfig) *Stage {
	tb.Helper()
	return newStage(tb, moduleOf(tb, name), cfg)
}
