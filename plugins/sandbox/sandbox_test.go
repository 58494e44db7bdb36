package sandbox

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/millrace-io/millrace/plugins/internal/testkit"
)

// TestMain is also the program that compiles for TestCompileChild.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "compile-plugin" {
		os.Exit(RunCompileChild(os.Stdin, os.Stdout, os.Args[2:]))
	}
	goleak.VerifyTestMain(m)
}

const (
	faultyWasm = "../plugintest/guests/faulty/faulty.wasm"
	wasiWasm   = "../plugintest/guests/wasi/wasi.wasm"
	ordersWasm = "../../examples/orders/orders.wasm"
	upperWasm  = "../../examples/upper/upper.wasm"
	linesWasm  = "../../examples/lines/lines.wasm"
	copyWasm   = "../plugintest/guests/copy/copy.wasm"
)

func open(tb testing.TB, cfg Config) *Runtime {
	tb.Helper()
	rt, err := New(tb.Context(), cfg)
	return testkit.Own(tb, rt, err)
}

func compile(tb testing.TB, rt *Runtime, wasm []byte) *Module {
	tb.Helper()
	m, err := rt.Compile(tb.Context(), wasm)
	return testkit.Own(tb, m, err)
}

func newStage(tb testing.TB, m *Module, cfg StageConfig) *Stage {
	tb.Helper()
	s, err := m.NewStage(tb.Context(), cfg)
	return testkit.Own(tb, s, err)
}

func stageOf(tb testing.TB, rt *Runtime, file string, cfg StageConfig) *Stage {
	tb.Helper()
	return newStage(tb, compile(tb, rt, testkit.Read(tb, file)), cfg)
}
