package extism

import (
	"fmt"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/plugins/internal/testkit"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

// event is of the size of the records of the other benchmarks.
var event = `{"id":12345,"note":"a test","pad":"` + strings.Repeat("x", 265) + `"}`

// BenchmarkStage tells what a record costs, and beside it what the same work
// costs without a plugin.
func BenchmarkStage(b *testing.B) {
	for _, plugin := range []struct{ name, function string }{{"hello", "run_test"}, {"replace", "run_test"}, {"count_vowels", "count_vowels"}} {
		for _, isolation := range []string{sandbox.IsolationBatch, sandbox.IsolationRecord, sandbox.IsolationFailure} {
			for _, size := range []int{1, 128} {
				b.Run(fmt.Sprintf("plugin=%s/isolation=%s/batch=%d", plugin.name, isolation, size), func(b *testing.B) {
					s := stageOf(b, plugin.name, sandbox.StageConfig{Function: plugin.function, Isolation: isolation})
					values := make([]string, size)
					for i := range values {
						values[i] = event
					}
					batch := testkit.Batch(values...)
					var out record.Results
					b.ReportAllocs()
					for b.Loop() {
						out.Reset()
						if err := s.Process(b.Context(), batch, &out); err != nil {
							b.Fatal(err)
						}
						if len(out.Emits) != size {
							b.Fatalf("%d of %d records emitted: %v", len(out.Emits), size, out.Failures)
						}
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(size), "ns/record")
				})
			}
		}
	}
	b.Run("native=replace", func(b *testing.B) {
		n := 0
		for b.Loop() {
			n += len(strings.ReplaceAll(event, "test", "wasm"))
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N), "ns/record")
	})
}
