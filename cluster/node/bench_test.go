package node

import (
	"slices"
	"testing"
	"time"

	"github.com/millrace-io/millrace/cluster/state"
)

// BenchmarkCommit proposes commits of 8 partitions one after the other, on the
// disk that holds the temporary folder.
func BenchmarkCommit(b *testing.B) {
	n := openNode(b, Config{Dir: b.TempDir()})
	flow, slots := ownedFlow(b, n, "orders", 8, 8)
	ctx := testContext(b)
	var took []time.Duration
	low := int64(0)
	for b.Loop() {
		low++
		start := time.Now()
		if _, err := n.Propose(ctx, commitOf(n, flow, slots, 8, low)); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
}

// BenchmarkStart opens and closes a node.
func BenchmarkStart(b *testing.B) {
	b.Run("folder=empty", func(b *testing.B) {
		for b.Loop() {
			n, err := Open(testContext(b), Config{Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			n.Close()
			b.StartTimer()
		}
	})
	b.Run("folder=10k-entries", func(b *testing.B) {
		dir := b.TempDir()
		n, err := Open(testContext(b), Config{Dir: dir})
		if err != nil {
			b.Fatal(err)
		}
		flow, slots := ownedFlow(b, n, "orders", 8, 8)
		fill(b, n, 10_000, func(i int) state.Command { return commitOf(n, flow, slots, 8, int64(i)) })
		// The folder stays as a kill would leave it: no snapshot at the end.
		n.fail(errKilled)
		n.Close()
		for b.Loop() {
			n, err := Open(testContext(b), Config{Dir: dir})
			if err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			n.fail(errKilled)
			n.Close()
			b.StartTimer()
		}
	})
}
