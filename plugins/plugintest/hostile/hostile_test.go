package hostile

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"go.uber.org/goleak"

	"github.com/millrace-io/millrace/plugins/internal/testkit"
	"github.com/millrace-io/millrace/plugins/sandbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testRounds is how often each guest does its harm in `make test`; `make bench`
// has 1,000.
const (
	testRounds  = 100
	shortRounds = 5
)

func open(t *testing.T) *sandbox.Runtime {
	t.Helper()
	rt, err := sandbox.New(t.Context(), sandbox.Config{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rt.Close(context.Background()); err != nil {
			t.Errorf("close runtime: %v", err)
		}
	})
	return rt
}

// TestHostile shows for each guest what happens with the full budget, three
// records at a time, and then does 100 rounds of it on the same compiled
// module to see that nothing is left behind; 100,000 functions get 3. With the
// race detector, and with -short, guests that put back 32 or 64 MiB in each round,
// and the program that writes before it reads, have a tenth of that.
func TestHostile(t *testing.T) {
	rt := open(t)
	before := Measure()
	guests, total := 0, 0
	for _, g := range Guests() {
		t.Run(g.Name, func(t *testing.T) {
			wasm := g.Wasm()
			m, err := rt.Compile(t.Context(), wasm)
			if g.Refused != "" {
				if err == nil {
					t.Fatal(errors.Join(errors.New("it was compiled"), m.Close(t.Context())))
				}
				if e, ok := errors.AsType[*sandbox.RefusedError](err); !ok || string(e.Kind) != g.Refused {
					t.Errorf("got %v, want a refusal of kind %s", err, g.Refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := m.Close(context.WithoutCancel(t.Context())); err != nil {
					t.Error(err)
				}
			}()
			if want := map[bool]string{false: "call", true: "lines"}[g.Lines]; m.Info().Mode != want {
				t.Errorf("got mode %s, want %s", m.Info().Mode, want)
			}
			records, batches := 3, 2
			if g.Large || g.Huge {
				records, batches = 1, 1
			}
			if err := g.live(t.Context(), m, sandbox.StageConfig{}, batches, records); err != nil {
				t.Fatal(err)
			}
			want := testRounds
			if testing.Short() {
				want = shortRounds
			}
			want = g.RoundsOf(m, want, testkit.Race || testing.Short())
			done, err := g.Rounds(t.Context(), m, want)
			if err != nil || done != want {
				t.Errorf("%d rounds of %d: %v", done, want, err)
			}
			guests, total = guests+1, total+done
		})
	}
	t.Logf("%d guests, %d rounds", guests, total)
	// Compiled code is given back when it is collected.
	if leaks := Measure().Leaks(before); len(leaks) > 0 {
		t.Errorf("they left behind: %v", leaks)
	}
}

// TestCorpus: names are unique and each guest says one thing of what happens.
func TestCorpus(t *testing.T) {
	names := map[string]bool{}
	for _, g := range Guests() {
		if names[g.Name] {
			t.Errorf("two guests are called %q", g.Name)
		}
		names[g.Name] = true
		n := 0
		for _, said := range []bool{g.Refused != "", g.Start != "", g.Message != "", g.Passes} {
			if said {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%s: %d outcomes are given", g.Name, n)
		}
		if !((g.Large || g.Huge) && testkit.Race) && !bytes.Equal(g.Wasm(), g.Wasm()) {
			t.Errorf("%s: assembled differently each time", g.Name)
		}
	}
	if len(names) < 30 {
		t.Errorf("%d guests", len(names))
	}
}
