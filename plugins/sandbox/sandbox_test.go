package sandbox

import (
	"context"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/millrace-io/millrace/runtime/record"
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
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := rt.Close(context.Background()); err != nil {
			tb.Errorf("close runtime: %v", err)
		}
	})
	return rt
}

func compile(tb testing.TB, rt *Runtime, wasm []byte) *Module {
	tb.Helper()
	m, err := rt.Compile(tb.Context(), wasm)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			tb.Errorf("close module: %v", err)
		}
	})
	return m
}

func read(tb testing.TB, file string) []byte {
	tb.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func newStage(tb testing.TB, m *Module, cfg StageConfig) *Stage {
	tb.Helper()
	s, err := m.NewStage(tb.Context(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			tb.Errorf("close stage: %v", err)
		}
	})
	return s
}

func stageOf(tb testing.TB, rt *Runtime, file string, cfg StageConfig) *Stage {
	tb.Helper()
	return newStage(tb, compile(tb, rt, read(tb, file)), cfg)
}

const now = 1_760_000_000_000

// batchOf makes a batch of records with these values, offsets from 0.
func batchOf(values ...string) *record.Batch {
	b := &record.Batch{Partition: record.Partition{Topic: "orders", Num: 2}, Now: now, Next: int64(len(values))}
	for i, v := range values {
		b.Records = append(b.Records, record.Record{
			Key: []byte("k"), Value: []byte(v), Headers: []record.Header{{Key: "h", Value: []byte("v")}},
			Topic: "orders", Partition: 2, Offset: int64(i), Timestamp: 1_700_000_000_000, Attempt: 1, To: -1,
		})
	}
	return b
}

func process(tb testing.TB, s *Stage, b *record.Batch) *record.Results {
	tb.Helper()
	var out record.Results
	if err := s.Process(tb.Context(), b, &out); err != nil {
		tb.Fatal(err)
	}
	return &out
}
