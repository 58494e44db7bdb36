package extism

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/millrace-io/millrace/plugins/internal/testkit"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

// hostile compiles the hostile guest in a runtime of its own.
func hostile(t *testing.T, cfg Config) *Module {
	t.Helper()
	return compile(t, open(t, cfg), hostileGuest())
}

// counts are the numbers that the hostile guest answered.
func counts(out *record.Results) []uint64 {
	var ns []uint64
	for _, e := range out.Emits {
		ns = append(ns, binary.LittleEndian.Uint64(e.Record.Value))
	}
	return ns
}

func TestFailureClasses(t *testing.T) {
	m := hostile(t, Config{Workers: 1, MaxMemoryBytes: 4 << 20, MaxFuelPerRecord: MaxFuel})
	for _, tt := range []struct {
		function string
		class    record.Class
		code     uint32
		message  string
	}{
		{"loop", record.Fuel, 0, "100000 units of fuel"},
		{"trap", record.Trap, 0, "it trapped: unreachable in function 4"},
		{"recurse", record.Trap, 0, "stack overflow"},
		{"grow", record.Memory, 0, "the limit is 4 MiB"},
		{"hostgrow", record.Memory, 0, "the limit is 4 MiB"},
		{"seven", record.Rejected, 7, "it returned 7 and set no error"},
		{"scribble", record.Trap, 0, "could not write value"},
	} {
		t.Run(tt.function, func(t *testing.T) {
			fuel, in := int64(100_000), []string{"a", "b"}
			if tt.function == "recurse" { // before the fuel ends, and slowly
				fuel, in = 0, in[:1]
			}
			s := newStage(t, m, sandbox.StageConfig{Function: tt.function, Fuel: fuel})
			for range 2 {
				out := testkit.Process(t, s, testkit.Batch(in...))
				if len(out.Failures) != len(in) || len(out.Emits)+len(out.Drops) != 0 {
					t.Fatalf("got %+v, want %d failures", out, len(in))
				}
				for _, f := range out.Failures {
					if f.Err.Class != tt.class || f.Err.Code != tt.code || !strings.Contains(f.Err.Message, tt.message) {
						t.Errorf("got %v, want %s (%d): %s", f.Err, tt.class, tt.code, tt.message)
					}
				}
			}
		})
	}
	t.Run("wild output is none", func(t *testing.T) {
		if out := testkit.Process(t, newStage(t, m, sandbox.StageConfig{Function: "wild"}), testkit.Batch("a")); len(out.Drops) != 1 {
			t.Errorf("got %+v, want a drop", out)
		}
	})
}

// A stage's own budget and limit hold, not only the node's.
func TestStageLimits(t *testing.T) {
	m := hostile(t, Config{Workers: 1, MaxMemoryBytes: 4 << 20})
	s := newStage(t, m, sandbox.StageConfig{Function: "loop", Fuel: 5000})
	if out := testkit.Process(t, s, testkit.Batch("a")); len(out.Failures) != 1 || !strings.Contains(out.Failures[0].Err.Message, "5000 units") {
		t.Errorf("got %+v, want a failure at 5000 units", out)
	}
	s = newStage(t, m, sandbox.StageConfig{Function: "grow", MemoryBytes: 2 << 20})
	if out := testkit.Process(t, s, testkit.Batch("a")); len(out.Failures) != 1 || !strings.Contains(out.Failures[0].Err.Message, "the limit is 2 MiB") {
		t.Errorf("got %+v, want a failure at 2 MiB", out)
	}
	// The input does not fit into Extism's memory.
	s = newStage(t, m, sandbox.StageConfig{Function: "count", MemoryBytes: 2 << 20})
	out := testkit.Process(t, s, testkit.Batch(strings.Repeat("x", 3<<20), "y"))
	if len(out.Failures) != 1 || out.Failures[0].Err.Class != record.Memory || !slices.Equal(counts(out), []uint64{1}) {
		t.Errorf("got %+v, want the first record to fail for memory, and 1", out)
	}
}

func TestIsolation(t *testing.T) {
	m := hostile(t, Config{Workers: 1})
	run := func(function, isolation string, wantFirst, wantSecond []uint64) *Stage {
		t.Helper()
		s := newStage(t, m, sandbox.StageConfig{Function: function, Isolation: isolation})
		for i, want := range [][]uint64{wantFirst, wantSecond} {
			out := testkit.Process(t, s, testkit.Batch("a", "b", "c", "d"))
			if got := counts(out); !slices.Equal(got, want) || len(out.Failures) != 0 {
				t.Errorf("%s, isolation %q, batch %d: got %v and failures %v, want %v", function, isolation, i, got, out.Failures, want)
			}
		}
		return s
	}
	run("count", "", []uint64{1, 2, 3, 4}, []uint64{1, 2, 3, 4})
	run("count", sandbox.IsolationRecord, []uint64{1, 1, 1, 1}, []uint64{1, 1, 1, 1})
	s := run("count", sandbox.IsolationFailure, []uint64{1, 2, 3, 4}, []uint64{5, 6, 7, 8})
	if !s.Stateful() {
		t.Error("a stage with isolation failure is stateful")
	}
	// The third call of an instance traps: on a fresh one the same record is
	// fine, and not to blame.
	s = run("third", sandbox.IsolationBatch, []uint64{1, 2, 1, 2}, []uint64{1, 2, 1, 2})
	if st := s.Stats(); st.Repeats != 2 || st.Calls != 10 || st.Records != 8 || st.Instances != 4 || st.Failed != 0 {
		t.Errorf("got %+v, want 2 repeats in 10 calls of 8 records, 4 instances", st)
	}
}

func TestRefusedConfiguration(t *testing.T) {
	m := hostile(t, Config{MaxFuelPerRecord: 1000})
	for _, tt := range []struct {
		name string
		cfg  sandbox.StageConfig
		want string
	}{
		{"no function", sandbox.StageConfig{}, `"count" "third"`},
		{"unknown function", sandbox.StageConfig{Function: "nope"}, `does not export "nope"`},
		{"function with parameters", sandbox.StageConfig{Function: "two"}, `"two" has the type (i32, i32) -> i32`},
		{"configuration", sandbox.StageConfig{Function: "count", Config: []byte(`[1]`)}, "no JSON object"},
		{"host", sandbox.StageConfig{Function: "count", Hosts: []string{"https://x/"}}, `"https://x/" is no host name`},
		{"isolation", sandbox.StageConfig{Function: "count", Isolation: "none"}, `isolation: "none"`},
		{"memory", sandbox.StageConfig{Function: "count", MemoryBytes: 1 << 40}, "more than this node allows"},
		{"memory at the start", sandbox.StageConfig{Function: "count", MemoryBytes: 64 << 10}, "Extism's own included"},
		{"fuel", sandbox.StageConfig{Function: "count", Fuel: 1001}, "fuel: 1001"},
		{"lines", sandbox.StageConfig{Function: "count", Lines: sandbox.LinesEach}, "are for programs that read STDIN"},
		{"keys", sandbox.StageConfig{Function: "count", Sign: func(_, _ uint32, _ []byte) ([]byte, error) { return nil, nil }}, "an Extism plugin cannot sign"},
		{"outputs", sandbox.StageConfig{Function: "count", Outputs: []string{"audit"}}, `no output "audit"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := m.NewStage(t.Context(), tt.cfg)
			if err == nil {
				_ = s.Close(t.Context())
				t.Fatal("got no error")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %q, want %q in it", err, tt.want)
			}
		})
	}
}

func TestRefusedModules(t *testing.T) {
	rt := open(t, Config{})
	guest := hostileGuest()
	replace := func(old, new string) []byte { return []byte(strings.Replace(string(guest), old, new, 1)) }
	for _, tt := range []struct {
		name string
		wasm []byte
		kind sandbox.Refusal
		want string
	}{
		{"no module", []byte("no module"), sandbox.RefusedFormat, ""},
		{"unknown function", replace("alloc", "allok"), sandbox.RefusedImport, `"extism:host/env" "allok"`},
		{"wrong type", replace("store_u64", "http_requ"[:9]), sandbox.RefusedImport, `"http_requ"`},
		{"foreign module", replace(sandbox.ExtismModule, "extism:host/usr"), sandbox.RefusedImport, `"extism:host/usr" "alloc"`},
		{"type error", replace("\x20\x00\x42\x08\x10\x02", "\x20\x00\x41\x08\x10\x02"), sandbox.RefusedFormat, "does not validate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := rt.Compile(t.Context(), tt.wasm)
			e, ok := errors.AsType[*sandbox.RefusedError](err)
			if !ok || e.Kind != tt.kind || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want a refusal of kind %s with %q", err, tt.kind, tt.want)
			}
		})
	}
}

func TestLogLimits(t *testing.T) {
	n := 0
	s := stageOf(t, "log", sandbox.StageConfig{Function: "run_test", Isolation: sandbox.IsolationFailure, OnLog: func(sandbox.LogLine) { n++ }})
	values := make([]string, 600) // 3 lines each
	testkit.Process(t, s, testkit.Batch(values...))
	dropped := int(s.Stats().LogsDropped)
	if n < sandbox.LogBurst || n+dropped != 3*len(values) || dropped == 0 {
		t.Errorf("got %d lines and %d dropped, want %d together, at least %d passed on", n, dropped, 3*len(values), sandbox.LogBurst)
	}
}

func TestClose(t *testing.T) {
	s := stageOf(t, "hello", sandbox.StageConfig{Function: "run_test"})
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	var out record.Results
	if err := s.Process(t.Context(), testkit.Batch("a"), &out); !errors.Is(err, sandbox.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
	s = stageOf(t, "hello", sandbox.StageConfig{Function: "run_test"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Process(ctx, testkit.Batch("a"), &out); !errors.Is(err, context.Canceled) || len(out.Emits) != 0 {
		t.Errorf("got %v and %d emits, want context.Canceled and none", err, len(out.Emits))
	}
}

// Many goroutines at once, with instances of their own.
func TestConcurrentBatches(t *testing.T) {
	s := stageOf(t, "count_vowels", sandbox.StageConfig{Function: "count_vowels"})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for range 5 {
				var out record.Results
				if err := s.Process(context.Background(), testkit.Batch(strings.Repeat("a", g), "b"), &out); err != nil {
					t.Error(err)
					return
				}
				want := []string{
					fmt.Sprintf(`{"count":%d,"total":%d,"vowels":"aeiouAEIOU"}`, g, g),
					fmt.Sprintf(`{"count":0,"total":%d,"vowels":"aeiouAEIOU"}`, g),
				}
				if got := testkit.Values(&out); !slices.Equal(got, want) {
					t.Errorf("got %q, want %q", got, want)
				}
			}
		})
	}
	wg.Wait()
}

func TestFlatten(t *testing.T) {
	got, err := flatten([]byte(`{"s":"a\nb","n":1.50,"b":true,"z":null,"l":[1, 2],"o":{"k": "v"}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"s": "a\nb", "n": "1.50", "b": "true", "l": "[1,2]", "o": `{"k":"v"}`}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestHostPatterns(t *testing.T) {
	for _, tt := range []struct {
		pattern, name string
		want          bool
	}{
		{"a.com", "a.com", true}, {"a.com", "xa.com", false}, {"*.a.com", "x.y.a.com", true}, {"*.a.com", "a.com", false},
		{"a*b*c", "aXbYc", true}, {"a*b*c", "aXcYb", false}, {"a*a", "a", false}, {"*", "anything", true}, {"*a*", "xay", true},
	} {
		if got := matches(tt.pattern, tt.name); got != tt.want {
			t.Errorf("%q matches %q: got %t, want %t", tt.pattern, tt.name, got, tt.want)
		}
	}
}
