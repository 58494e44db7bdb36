package hostile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

const (
	// huntFuel is the budget of a record in Rounds for a guest that takes all
	// it gets: leaks do not need more.
	huntFuel = 20_000
	// huntMemory is the limit of guests that grow until they are told not to.
	huntMemory = 20 << 20
	// huntBatches is how many rounds the guests share a stage for.
	huntBatches = 10
	// costlyStages is how many stages costly guests live in.
	costlyStages = 2
	// heavyBytes of memory make a guest heavy.
	heavyBytes = 16 << 20
)

// RoundsOf is how many rounds of the guest, compiled as m, belong to a hunt of
// that many rounds: all of them, and 3 for huge ones. In a hurry it is a tenth
// for heavy guests, of which each round puts back 32 or 64 MiB of memory, and for
// the program that writes megabytes before it reads.
func (g *Guest) RoundsOf(m *sandbox.Module, rounds int, hurry bool) int {
	switch {
	case g.Huge:
		return min(rounds, 3)
	case !hurry:
		return rounds
	case m.Info().MemoryMinBytes >= heavyBytes, g.Large && g.Start != "":
		return max(1, rounds/10)
	}
	return rounds
}

// Rounds lets the guest, compiled as m, do what it does that many times over,
// to see whether anything is left behind, and checks what happens each time. A
// round is a batch of one record, or an attempt to start a stage where none
// starts. Each 10 rounds have a stage of their own; costly guests live in 2, and
// those that use up their fuel or memory get little. It returns how many rounds there
// were: fewer only with an error.
func (g *Guest) Rounds(ctx context.Context, m *sandbox.Module, rounds int) (done int, err error) {
	cfg, each := sandbox.StageConfig{}, huntBatches
	switch {
	case g.Start != "":
		each = 1
	case g.costly(m):
		each = max(1, (rounds+costlyStages-1)/costlyStages)
	}
	switch g.Class {
	case record.Fuel:
		cfg.Fuel = huntFuel
	case record.Memory:
		cfg.MemoryBytes = huntMemory
	}
	for done < rounds {
		n := min(each, rounds-done)
		if err := g.live(ctx, m, cfg, n, 1); err != nil {
			return done, fmt.Errorf("rounds %d to %d: %w", done+1, done+n, err)
		}
		done += n
	}
	return done, nil
}

// costly guests make the start of a stage long: they use up the fuel of its
// warm-up, for which no limit can be set, or are large.
func (g *Guest) costly(m *sandbox.Module) bool {
	return g.Class == record.Fuel || g.Measured || g.Large || m.Info().MemoryMinBytes >= heavyBytes
}

// live is the life of a stage that gets batches, each of that many records.
func (g *Guest) live(ctx context.Context, m *sandbox.Module, cfg sandbox.StageConfig, batches, records int) (err error) {
	cfg.Stage, cfg.Plugin = "s", "hostile@1"
	s, err := m.NewStage(ctx, cfg)
	if g.Start != "" {
		if err == nil {
			return errors.Join(errors.New("it started"), s.Close(context.WithoutCancel(ctx)))
		}
		if !strings.Contains(err.Error(), g.Start) || strings.Contains(err.Error(), "\n") {
			return fmt.Errorf("got %q, want %q in a sentence", err, g.Start)
		}
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close(context.WithoutCancel(ctx))) }()
	b := lively(records)
	var out record.Results
	for range batches {
		out.Reset()
		if err := s.Process(ctx, b, &out); err != nil {
			return err
		}
		if err := g.check(&out, records, s.Fuel()); err != nil {
			return err
		}
	}
	return nil
}

// lively is a batch of n records that differ in their offsets only.
func lively(n int) *record.Batch {
	b := &record.Batch{Partition: record.Partition{Topic: "t"}, Now: 1_760_000_000_000, Next: int64(n)}
	for i := range n {
		b.Records = append(b.Records, record.Record{Key: []byte("k"), Value: []byte("value"), Headers: []record.Header{{Key: "h", Value: []byte("v")}}, Topic: "t", Offset: int64(i), Attempt: 1, To: -1})
	}
	return b
}

// check holds the answers to n records against what the guest says of itself.
func (g *Guest) check(out *record.Results, n int, fuel int64) error {
	if g.Passes {
		if len(out.Emits)+len(out.Drops) != n || len(out.Failures) != 0 {
			return fmt.Errorf("got %s, want %d records that pass", describe(out), n)
		}
		return nil
	}
	if len(out.Failures) != n || len(out.Emits)+len(out.Drops) != 0 {
		return fmt.Errorf("got %s, want %d failures", describe(out), n)
	}
	for i, f := range out.Failures {
		if int(f.In) != i || f.Err.Class != g.Class || !strings.Contains(f.Err.Message, g.Message) || strings.Contains(f.Err.Message, "\n") {
			return fmt.Errorf("record %d: got %v, want class %v, %q", f.In, f.Err, g.Class, g.Message)
		}
		if f.Replay == nil || g.Class == record.Fuel && f.Replay.Fuel <= fuel {
			return fmt.Errorf("record %d: got replay %+v of a budget of %d", f.In, f.Replay, fuel)
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

// Resources are what the process holds. Files and Address are 0 where the
// system does not tell.
type Resources struct {
	Files, Goroutines int
	Heap, Address     uint64 // bytes
}

// What may remain of a hunt: caches of the engine and of the runtime. Memory
// of a single guest is 64 MiB, reserved for each instance.
const (
	heapSlack    = 64 << 20
	addressSlack = 2 << 30
)

// Measure tells what the process holds after a collection of garbage.
func Measure() (r Resources) {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	r.Heap, r.Goroutines = m.HeapAlloc, runtime.NumGoroutine()
	if entries, err := os.ReadDir("/proc/self/fd"); err == nil {
		r.Files = len(entries)
	}
	if status, err := os.ReadFile("/proc/self/status"); err == nil {
		_, rest, _ := bytes.Cut(status, []byte("VmSize:"))
		if _, err := fmt.Sscan(string(rest), &r.Address); err == nil {
			r.Address <<= 10
		}
	}
	return r
}

// Leaks names what r has more of than before allows; none is none.
func (r Resources) Leaks(before Resources) []string {
	var leaks []string
	if n := r.Goroutines - before.Goroutines; n > 0 {
		leaks = append(leaks, fmt.Sprintf("%d goroutines", n))
	}
	if n := r.Files - before.Files; n > 0 {
		leaks = append(leaks, fmt.Sprintf("%d files", n))
	}
	if r.Heap > before.Heap+heapSlack {
		leaks = append(leaks, fmt.Sprintf("%d MiB of heap", (r.Heap-before.Heap)>>20))
	}
	if r.Address > before.Address+addressSlack {
		leaks = append(leaks, fmt.Sprintf("%d MiB of address space", (r.Address-before.Address)>>20))
	}
	return leaks
}
