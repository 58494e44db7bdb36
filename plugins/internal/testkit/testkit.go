// Package testkit is what the tests of packages sandbox and extism share:
// records, what a stage answers to them, and the parts of a Wasm binary. It
// knows neither package, so that the tests of both may import it.
package testkit

import (
	"context"
	"os"
	"testing"

	"github.com/millrace-io/millrace/runtime/record"
)

// Now is the time of a Batch, in Unix milliseconds.
const Now = 1_760_000_000_000

// Read is the content of a file.
func Read(tb testing.TB, file string) []byte {
	tb.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// Batch makes a batch of records with these values, offsets from 0.
func Batch(values ...string) *record.Batch {
	b := &record.Batch{Partition: record.Partition{Topic: "orders", Num: 2}, Now: Now, Next: int64(len(values))}
	for i, v := range values {
		b.Records = append(b.Records, record.Record{
			Key: []byte("k"), Value: []byte(v), Headers: []record.Header{{Key: "h", Value: []byte("v")}},
			Topic: "orders", Partition: 2, Offset: int64(i), Timestamp: 1_700_000_000_000, Attempt: 1, To: -1,
		})
	}
	return b
}

// Processor is a stage.
type Processor interface {
	Process(ctx context.Context, b *record.Batch, out *record.Results) error
}

// Process is what a stage answers to a batch.
func Process(tb testing.TB, s Processor, b *record.Batch) *record.Results {
	tb.Helper()
	var out record.Results
	if err := s.Process(tb.Context(), b, &out); err != nil {
		tb.Fatal(err)
	}
	return &out
}

// Values are the values of the emissions.
func Values(out *record.Results) []string {
	var vs []string
	for _, e := range out.Emits {
		vs = append(vs, string(e.Record.Value))
	}
	return vs
}

// Closer is a runtime, a module or a stage.
type Closer interface {
	Close(ctx context.Context) error
}

// Own is v, which was made with err, and is closed at the end of the test.
func Own[C Closer](tb testing.TB, v C, err error) C {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := v.Close(context.Background()); err != nil {
			tb.Errorf("close a %T: %v", v, err)
		}
	})
	return v
}
