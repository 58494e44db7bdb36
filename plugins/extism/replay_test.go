package extism

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/plugins/internal/testkit"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

// A failure can be shown again on any other runtime, with the same words, logs
// and fuel.
func TestReplay(t *testing.T) {
	for _, tt := range []struct {
		name     string
		wasm     []byte
		function string
		fuel     int64
		class    record.Class
	}{
		{"trap", hostileGuest(), "trap", 0, record.Trap},
		{"fuel", hostileGuest(), "loop", 5000, record.Fuel},
		{"memory", hostileGuest(), "grow", 0, record.Memory},
		{"code", hostileGuest(), "seven", 0, record.Rejected},
		{"error", shipped(t, "fail"), "run_test", 0, record.Rejected},
		{"exit", shipped(t, "exit"), "_start", 0, record.Rejected},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := sandbox.StageConfig{Stage: "s", Function: tt.function, Fuel: tt.fuel, MemoryBytes: 8 << 20}
			b := testkit.Batch("a", "b", "c")
			out := testkit.Process(t, newStage(t, compile(t, open(t, Config{Workers: 1}), tt.wasm), cfg), b)
			if len(out.Failures) != 3 {
				t.Fatalf("got %+v, want 3 failures", out)
			}
			other := compile(t, open(t, Config{Workers: 3}), tt.wasm)
			// The limits are those of the entry, whatever a flow says by now.
			cfg.Fuel, cfg.MemoryBytes = 1, 0
			for _, f := range out.Failures {
				if f.Err.Class != tt.class || f.Replay == nil {
					t.Fatalf("got %v, replay %v, want class %s", f.Err, f.Replay, tt.class)
				}
				got, err := other.Replay(t.Context(), cfg, &b.Records[f.In], f.Replay)
				if err != nil {
					t.Fatal(err)
				}
				if n := len(got.Results.Failures); n != 1 || len(got.Results.Emits)+len(got.Results.Drops) != 0 {
					t.Fatalf("got %+v, want one failure", got.Results)
				}
				again := got.Results.Failures[0].Err
				if again.Class != f.Err.Class || again.Code != f.Err.Code || again.Message != f.Err.Message || !slices.Equal(got.Logs, f.Replay.Logs) || got.Fuel != f.Replay.Fuel || got.ConfigHash != f.Replay.ConfigHash {
					t.Errorf("got %v, logs %q, fuel %d; it was %v, %q, %d", again, got.Logs, got.Fuel, f.Err, f.Replay.Logs, f.Replay.Fuel)
				}
				if tt.fuel > 0 && got.Fuel <= tt.fuel {
					t.Errorf("got fuel %d, want more than the budget, %d", got.Fuel, tt.fuel)
				}
			}
		})
	}
}

// What succeeded is shown with its output and its logs.
func TestReplayOfASuccess(t *testing.T) {
	b := testkit.Batch("a test")
	m := moduleOf(t, "replace")
	cfg := sandbox.StageConfig{Function: "run_test"}
	got, err := m.Replay(t.Context(), cfg, &b.Records[0], &record.Replay{Now: testkit.Now, BatchID: 1})
	if err != nil || !slices.Equal(testkit.Values(&got.Results), []string{"a wasm"}) || got.Fuel <= 0 {
		t.Errorf("got %+v, %v", got, err)
	}
	got, err = moduleOf(t, "println").Replay(t.Context(), cfg, &b.Records[0], &record.Replay{Now: testkit.Now, BatchID: 1})
	if err != nil || len(got.Results.Drops) != 1 || !slices.Equal(got.Logs, []string{"this was printed from the plugin a test"}) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestReplayRefuses(t *testing.T) {
	b := testkit.Batch("a")
	for _, tt := range []struct {
		cfg  sandbox.StageConfig
		r    *record.Replay
		want string
	}{
		{sandbox.StageConfig{Function: "run_test", Hosts: []string{"*"}}, &record.Replay{}, "`hosts`"},
		{sandbox.StageConfig{Function: "run_test", Isolation: sandbox.IsolationFailure}, &record.Replay{}, "`isolation: failure`"},
		{sandbox.StageConfig{Function: "run_test"}, nil, "not known"},
	} {
		_, err := moduleOf(t, "hello").Replay(t.Context(), tt.cfg, &b.Records[0], tt.r)
		if e, ok := errors.AsType[*sandbox.UnrepeatableError](err); !ok || !strings.Contains(e.Error(), tt.want) {
			t.Errorf("got %v, want *sandbox.UnrepeatableError with %s", err, tt.want)
		}
	}
}

// The fuel of each record is counted by itself, and is the same whoever runs
// it.
func TestFuelIsTold(t *testing.T) {
	used := func(values ...string) int64 {
		s := stageOf(t, "replace", sandbox.StageConfig{Function: "run_test"})
		testkit.Process(t, s, testkit.Batch(values...))
		return s.Stats().Fuel
	}
	one, two := used("a test"), used("a longer text, and a test in it")
	if one <= 0 || two <= one {
		t.Errorf("got %d and %d units, want more for more", one, two)
	}
	if again := used("a test"); again != one {
		t.Errorf("got %d units, then %d", one, again)
	}
}
