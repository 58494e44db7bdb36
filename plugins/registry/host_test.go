package registry

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/plugins/extism"
	"github.com/millrace-io/millrace/plugins/manifest"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

func openHost(t *testing.T, cfg sandbox.Config) *Host {
	t.Helper()
	rt, err := sandbox.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	h := NewHost(rt)
	t.Cleanup(func() {
		for _, closed := range []func(context.Context) error{h.Close, h.Close, rt.Close} {
			if err := closed(context.Background()); err != nil {
				t.Error(err)
			}
		}
	})
	return h
}

func readFile(t *testing.T, path ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// shipped is a plugin that ships with the Extism SDK.
func shipped(t *testing.T, name string) []byte {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/extism/go-sdk").Output()
	if err != nil {
		t.Fatalf("find the SDK's module: %v", err)
	}
	return readFile(t, strings.TrimSpace(string(dir)), "wasm", name+".wasm")
}

// answer is what a stage emits for a value.
func answer(t *testing.T, m Module, cfg sandbox.StageConfig, value string) string {
	t.Helper()
	cfg.Stage = "s"
	s, err := m.NewStage(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(context.Background())
	b := &record.Batch{Partition: record.Partition{Topic: "t"}, Records: []record.Record{{Topic: "t", Value: []byte(value), To: -1}}}
	var out record.Results
	if err := s.Process(t.Context(), b, &out); err != nil {
		t.Fatal(err)
	}
	if len(out.Emits) != 1 {
		t.Fatalf("got %+v, want one answer", out)
	}
	if st := s.Stats(); st.Records != 1 || st.Fuel <= 0 || s.Fuel() <= 0 || s.MemoryBytes() <= 0 || s.Stateful() || s.Impure() {
		t.Errorf("got %+v, fuel %d, memory %d", st, s.Fuel(), s.MemoryBytes())
	}
	return string(out.Emits[0].Record.Value)
}

func TestHostRunsEveryMode(t *testing.T) {
	h := openHost(t, sandbox.Config{})
	for _, tt := range []struct {
		name, asked, mode string
		wasm              []byte
		cfg               sandbox.StageConfig
		in, want          string
	}{
		{"call", "", manifest.ModeCall, readFile(t, "../../examples/upper/upper.wasm"), sandbox.StageConfig{}, "a", "A"},
		{"lines", "", manifest.ModeLines, readFile(t, "../../examples/lines/lines.wasm"), sandbox.StageConfig{}, "a", ""},
		{"extism", "", manifest.ModeExtism, shipped(t, "replace"), sandbox.StageConfig{Function: "run_test"}, "a test", "a wasm"},
		{"extism asked for", Mode("run_test"), manifest.ModeExtism, shipped(t, "replace"), sandbox.StageConfig{Function: "run_test"}, "a test", "a wasm"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.mode != manifest.ModeExtism && h.extism != nil {
				t.Error("there is an Extism runtime before a plugin needs one")
			}
			m, err := h.Compile(t.Context(), tt.wasm, tt.asked)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close(context.Background())
			if m.Info().Mode != tt.mode {
				t.Errorf("got mode %q, want %q", m.Info().Mode, tt.mode)
			}
			if got := answer(t, m, tt.cfg, tt.in); tt.want != "" && got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if tt.mode == manifest.ModeExtism {
				return
			}
			for _, cfg := range []sandbox.StageConfig{{Function: "run"}, {Hosts: []string{"*"}}} {
				if _, err := m.NewStage(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "Extism plugins") {
					t.Errorf("%+v: got %v, want that it is for Extism plugins", cfg, err)
				}
			}
		})
	}
	if _, err := h.Compile(t.Context(), nil, manifest.ModeLines); err == nil || !strings.Contains(err.Error(), "cannot be asked for") {
		t.Errorf("got %v", err)
	}
}

// What the sandbox was told holds in extism mode too.
func TestHostSharesLimits(t *testing.T) {
	h := openHost(t, sandbox.Config{MaxMemoryBytes: 8 << 20, MaxFuel: 1000, Workers: 3})
	m, err := h.Compile(t.Context(), shipped(t, "replace"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close(context.Background())
	s, err := m.NewStage(t.Context(), sandbox.StageConfig{Function: "run_test"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(context.Background())
	if want := 1000 * extism.DefaultMaxFuelPerRecord / sandbox.DefaultMaxFuel; s.MemoryBytes() != 8<<20 || s.Fuel() != want || h.extism.Workers() != 3 {
		t.Errorf("got memory %d, fuel %d, %d workers", s.MemoryBytes(), s.Fuel(), h.extism.Workers())
	}
	small := openHost(t, sandbox.Config{MaxModuleBytes: 1000})
	if _, err := small.Compile(t.Context(), shipped(t, "replace"), Mode("run_test")); err == nil || !strings.Contains(err.Error(), "the limit is 1000 bytes") {
		t.Errorf("got %v, want a refusal of its size", err)
	}
}

// The same bytes in two modes are two modules.
func TestModulesKeepModesApart(t *testing.T) {
	s := openStore(t)
	m := NewModules(s, openHost(t, sandbox.Config{}))
	digest := put(t, s, string(shipped(t, "hello")))
	shown, err := m.Acquire(t.Context(), digest, "")
	if err != nil {
		t.Fatal(err)
	}
	asked, err := m.Acquire(t.Context(), digest, Mode("run_test"))
	if err != nil {
		t.Fatal(err)
	}
	if shown.Module() == asked.Module() || shown.Digest() != asked.Digest() {
		t.Error("one module for two modes")
	}
	if err := shown.Release(t.Context()); err != nil {
		t.Error(err)
	}
	if !m.InUse(digest) {
		t.Error("not in use with a lease of one mode")
	}
	if err := asked.Release(t.Context()); err != nil {
		t.Error(err)
	}
	if m.InUse(digest) {
		t.Error("in use after the last release")
	}
}
