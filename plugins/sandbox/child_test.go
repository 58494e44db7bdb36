package sandbox

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/plugins/internal/testkit"
)

func childConfig(t *testing.T) Config {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Config{CacheDir: t.TempDir(), CompileCommand: []string{exe, "compile-plugin"}, Workers: 1}
}

func TestCompileChild(t *testing.T) {
	cfg := childConfig(t)
	rt := open(t, cfg)
	s := stageOf(t, rt, linesWasm, StageConfig{Stage: "s"})
	if out := testkit.Process(t, s, testkit.Batch("a")); len(out.Emits) != 1 {
		t.Errorf("got %+v, want a line", out)
	}
	// The second time no process is needed.
	cfg.CompileCommand = []string{filepath.Join(t.TempDir(), "missing")}
	again := open(t, cfg)
	compile(t, again, testkit.Read(t, linesWasm))
	_, err := again.Compile(t.Context(), testkit.Read(t, upperWasm))
	if _, refused := errors.AsType[*RefusedError](err); err == nil || refused || !strings.Contains(err.Error(), "start ") {
		t.Errorf("got %v, want that the command cannot be started, which is not the plugin's fault", err)
	}
}

func TestCompileChildRefuses(t *testing.T) {
	refused := func(name string, cfg Config, wasm []byte, kind Refusal, want string) {
		t.Helper()
		_, err := open(t, cfg).Compile(t.Context(), wasm)
		if e, ok := errors.AsType[*RefusedError](err); !ok || e.Kind != kind || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want kind %s, %q", name, err, kind, want)
		}
	}
	invalidTypes := minimal()
	invalidTypes.funcs[1].body = []byte{0x42, 0}
	refused("invalid", childConfig(t), invalidTypes.build(), RefusedFormat, "it does not validate")

	slow := childConfig(t)
	slow.CompileTimeout = time.Nanosecond
	refused("slow", slow, minimal().build(), RefusedLimits, "took longer than 1ns")

	large := childConfig(t)
	large.CompileMemoryBytes = 1 << 20
	refused("memory", large, testkit.Read(t, ordersWasm), RefusedLimits, "needs more than 1 MiB of memory")

	crash := childConfig(t)
	crash.CompileCommand = []string{"/bin/sh", "-c", "echo fatal error: what >&2; kill -SEGV $$"}
	refused("crash", crash, minimal().build(), RefusedLimits, "the compiler crashed on it (signal: segmentation fault")

	silent := childConfig(t)
	silent.CompileCommand = []string{"/bin/sh", "-c", "exit 0"}
	refused("silent", silent, minimal().build(), RefusedLimits, "ended without an answer")

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := open(t, childConfig(t)).Compile(ended, minimal().build()); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if _, err := New(t.Context(), Config{CompileCommand: []string{"x"}}); err == nil || !strings.Contains(err.Error(), "compile command") {
		t.Errorf("got %v, want that a cache is needed", err)
	}
}

func TestCompileChildArguments(t *testing.T) {
	for _, args := range [][]string{nil, {"--cache", "x"}, {"--cache", "x", "--memory", "1", "y"}, {"--what"}} {
		var out strings.Builder
		if code := RunCompileChild(strings.NewReader(""), &out, args); code != childBroken || !strings.Contains(out.String(), `{"error":"`) {
			t.Errorf("%q: got code %d, %s", args, code, out.String())
		}
	}
}
