package hostile

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/millrace-io/millrace/examples/orders/gen"
	"github.com/millrace-io/millrace/plugins/internal/testkit"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

// TestNeighbour lets a stage work beside each hostile guest in turn. The bars
// are held by `make bench`; here its batches must be answered, and not wait for
// anything like the time of a guest that runs unbounded.
func TestNeighbour(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a while")
	}
	const patience = 2 * time.Second
	rt := open(t)
	wasm, err := os.ReadFile("../../../examples/orders/orders.wasm")
	if err != nil {
		t.Fatal(err)
	}
	m, err := rt.Compile(t.Context(), wasm)
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.NewStage(t.Context(), sandbox.StageConfig{Stage: "orders"})
	if err != nil {
		t.Fatal(err)
	}
	n := &Neighbour{Stage: s, Batch: &record.Batch{Partition: record.Partition{Topic: "orders"}, Now: 1_760_000_000_000}, Every: time.Millisecond, Batches: 20}
	events := gen.New(1)
	for i := range 64 {
		n.Batch.Records = append(n.Batch.Records, record.Record{Value: events.Next().Value, Topic: "orders", Offset: int64(i), Attempt: 1, To: -1})
	}
	for _, g := range Guests() {
		if g.Refused != "" || (g.Large || g.Huge) && testkit.Race {
			continue
		}
		t.Run(g.Name, func(t *testing.T) {
			hostile, err := rt.Compile(t.Context(), g.Wasm())
			if err != nil {
				t.Fatal(err)
			}
			run, closeLane, err := g.Lane(t.Context(), hostile)
			if err != nil {
				t.Fatal(err)
			}
			tail, err := n.Tail(t.Context(), run)
			if err := errors.Join(err, closeLane(t.Context())); err != nil {
				t.Fatal(err)
			}
			t.Logf("p99 %v", tail)
			if tail > patience {
				t.Errorf("the 99th percentile of its neighbour's batches is %v", tail)
			}
			if err := hostile.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := m.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
