package hostile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// MILLRACE_HOSTILE_ROUNDS=1000 runs that many rounds of each guest, for at most
// muchPatience, instead of up to 100 within patience; -short within
// littlePatience.
const (
	roundsVariable = "MILLRACE_HOSTILE_ROUNDS"
	maxRounds      = 100
	littlePatience = 20 * time.Millisecond
	patience       = 60 * time.Millisecond
	muchPatience   = 10 * time.Second
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

func batch(n int) *record.Batch {
	b := &record.Batch{Partition: record.Partition{Topic: "t"}, Now: 1_760_000_000_000, Next: int64(n)}
	for i := range n {
		b.Records = append(b.Records, record.Record{Key: []byte("k"), Value: []byte("value"), Headers: []record.Header{{Key: "h", Value: []byte("v")}}, Topic: "t", Offset: int64(i), Attempt: 1, To: -1})
	}
	return b
}

// TestHostile shows for each guest what happens, round after round, and that
// nothing is left behind.
func TestHostile(t *testing.T) {
	rt := open(t)
	before := measure()
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
			if want := map[bool]string{false: "call", true: "lines"}[g.Lines]; m.Info().Mode != want {
				t.Errorf("got mode %s, want %s", m.Info().Mode, want)
			}
			first := true
			rounds(t, &g, func() {
				if err := g.round(t, m, first); err != nil {
					t.Error(err)
				}
				first = false
			})
			if err := m.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	// Compiled code is given back when it is collected.
	if after := measure(); after.files > before.files || after.goroutines > before.goroutines || after.heap > before.heap+64<<20 || after.address > before.address+2<<30 {
		t.Errorf("before %+v, after %+v", before, after)
	}
}

func rounds(t *testing.T, g *Guest, f func()) {
	n, until := maxRounds, time.Now().Add(patience)
	if testing.Short() {
		until = time.Now().Add(littlePatience)
	}
	if g.Large {
		n = 3
	}
	if v := os.Getenv(roundsVariable); v != "" && !g.Large {
		if _, err := fmt.Sscan(v, &n); err != nil {
			t.Fatalf("%s: %v", roundsVariable, err)
		}
		until = time.Now().Add(muchPatience)
	}
	done := 0
	for done < n && !t.Failed() {
		f()
		if done++; time.Now().After(until) {
			break
		}
	}
	t.Logf("%d rounds", done)
}

// round is the life of one stage. The first one sees two batches of several
// records, later ones a record.
func (g *Guest) round(t *testing.T, m *sandbox.Module, first bool) (err error) {
	s, err := m.NewStage(t.Context(), sandbox.StageConfig{Stage: "s", Plugin: "hostile@1"})
	if g.Start != "" {
		if err == nil {
			return errors.Join(errors.New("it started"), s.Close(t.Context()))
		}
		if !strings.Contains(err.Error(), g.Start) || strings.Contains(err.Error(), "\n") {
			return fmt.Errorf("got %q, want %q in a sentence", err, g.Start)
		}
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close(t.Context())) }()
	n, batches := 3, 2
	if g.Large || !first {
		n, batches = 1, 1
	}
	var out record.Results
	for range batches {
		out.Reset()
		if err := s.Process(t.Context(), batch(n), &out); err != nil {
			return err
		}
		if g.Passes {
			if len(out.Emits)+len(out.Drops) != n || len(out.Failures) != 0 {
				return fmt.Errorf("got %+v, want %d records that pass", describe(&out), n)
			}
			continue
		}
		if len(out.Failures) != n || len(out.Emits)+len(out.Drops) != 0 {
			return fmt.Errorf("got %+v, want %d failures", describe(&out), n)
		}
		for i, f := range out.Failures {
			if int(f.In) != i || f.Err.Class != g.Class || !strings.Contains(f.Err.Message, g.Message) || strings.Contains(f.Err.Message, "\n") {
				return fmt.Errorf("record %d: got %v, want class %v, %q", f.In, f.Err, g.Class, g.Message)
			}
			if f.Replay == nil || g.Class == record.Fuel && f.Replay.Fuel <= s.Fuel() {
				return fmt.Errorf("record %d: got replay %+v of a budget of %d", f.In, f.Replay, s.Fuel())
			}
		}
	}
	return nil
}

func describe(out *record.Results) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d emits, drops %v", len(out.Emits), out.Drops)
	for _, f := range out.Failures {
		fmt.Fprintf(&b, ", %d %v", f.In, f.Err)
	}
	return b.String()
}

type resources struct {
	files, goroutines int
	heap, address     uint64
}

// measure tells what the process has now.
func measure() (r resources) {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	r.heap, r.goroutines = m.HeapAlloc, runtime.NumGoroutine()
	if entries, err := os.ReadDir("/proc/self/fd"); err == nil {
		r.files = len(entries)
	}
	if status, err := os.ReadFile("/proc/self/status"); err == nil {
		_, rest, _ := bytes.Cut(status, []byte("VmSize:"))
		if _, err := fmt.Sscan(string(rest), &r.address); err == nil {
			r.address <<= 10
		}
	}
	return r
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
		if !(g.Large && raceEnabled) && !bytes.Equal(g.Wasm(), g.Wasm()) {
			t.Errorf("%s: assembled differently each time", g.Name)
		}
	}
	if len(names) < 30 {
		t.Errorf("%d guests", len(names))
	}
}
