package sandbox

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/millrace-io/millrace/plugins/internal/testkit"
	"github.com/millrace-io/millrace/plugins/internal/wasmgen"
	"github.com/millrace-io/millrace/runtime/record"
)

// after is all that can be seen of a batch: what was answered, what it cost,
// and what the instance is like, if it lives on.
type after struct {
	results record.Results
	fuel    int64
	memory  []byte
	globals []uint64
}

func runAfter(t *testing.T, s *Stage, b *record.Batch) (a after) {
	t.Helper()
	before := s.Stats().Fuel
	if err := s.Process(t.Context(), b, &a.results); err != nil {
		t.Fatal(err)
	}
	a.fuel = s.Stats().Fuel - before
	if len(s.idle) > 0 {
		in := s.idle[len(s.idle)-1]
		a.memory = bytes.Clone(in.view())
		for _, g := range in.globals {
			a.globals = append(a.globals, g.Get())
		}
	}
	return a
}

func (a *after) difference(b *after) string {
	switch {
	case !reflect.DeepEqual(a.results, b.results):
		return fmt.Sprintf("results %+v and %+v", a.results, b.results)
	case a.fuel != b.fuel:
		return fmt.Sprintf("%d and %d units of fuel", a.fuel, b.fuel)
	case !slices.Equal(a.globals, b.globals):
		return fmt.Sprintf("globals %v and %v", a.globals, b.globals)
	case !bytes.Equal(a.memory, b.memory):
		for i := range min(len(a.memory), len(b.memory)) {
			if a.memory[i] != b.memory[i] {
				return fmt.Sprintf("memory at %#x of %#x", i, len(a.memory))
			}
		}
		return fmt.Sprintf("%d and %d bytes of memory", len(a.memory), len(b.memory))
	}
	return ""
}

// restored runs random batches one after the other in one stage, and each
// alone in a new one: there must be no difference. It reports how many times
// an instance was put back.
func restored(t *testing.T, rt *Runtime, seed uint64) (restores int64) {
	t.Helper()
	m, err := rt.Compile(t.Context(), wasmgen.Stage(seed))
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	defer m.Close(t.Context())
	stage := func() *Stage {
		s, err := m.NewStage(t.Context(), StageConfig{Stage: "s", Fuel: 30_000})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		return s
	}
	used := stage()
	defer used.Close(t.Context())
	for i, b := range []*record.Batch{testkit.Batch("abcd"), testkit.Batch("x", "yz"), testkit.Batch("abcd")} {
		got := runAfter(t, used, b)
		fresh := stage()
		want := runAfter(t, fresh, b)
		if err := fresh.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		// Calls of several records are cut by what earlier ones cost.
		if d := got.difference(&want); d != "" {
			t.Fatalf("seed %d, batch %d: a stage that was used before and a new one differ: %s", seed, i, d)
		}
	}
	return used.Stats().Restores
}

func TestRestoreOfRandomModules(t *testing.T) {
	modules := uint64(200)
	if testing.Short() || testkit.Race {
		modules = 60
	}
	rt := open(t, Config{Workers: 1})
	restores := int64(0)
	for seed := range modules {
		restores += restored(t, rt, seed)
	}
	t.Logf("seeds 0 to %d: %d restores", modules-1, restores)
	if restores < int64(modules) {
		t.Errorf("only %d restores of %d modules", restores, modules)
	}
}

func FuzzRestore(f *testing.F) {
	for _, seed := range []uint64{1 << 32, 77, 1<<64 - 1} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		restored(t, open(t, Config{Workers: 1}), seed)
	})
}
