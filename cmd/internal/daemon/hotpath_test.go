//go:build !race

package daemon

import (
	"context"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/examples/orders/gen"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/connector/kafka"
	"github.com/millrace-io/millrace/runtime/pipeline"
	"github.com/millrace-io/millrace/runtime/record"
)

// What a record of the orders example costs in memory from broker to broker:
// through the source's batch, a lane, the sandbox and the sink. Both clients and
// the broker of the test are in the figures, so their bounds are wide; what lane,
// source and sink use again has tests of its own that are exact.
func TestMemoryOfARecord(t *testing.T) {
	const first, all = 20_000, 100_000
	_, addr := strict(t, "orders", "orders-out")
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.DefaultProduceTopic("orders"), kgo.MaxBufferedRecords(all), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	g := gen.New(7)
	for n := 0; n < all; {
		if e := g.Next(); e.Mark != gen.Fail {
			n++
			cl.Produce(t.Context(), &kgo.Record{Key: e.Key, Value: e.Value}, nil)
		}
	}
	if err := cl.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}

	wasm, err := os.ReadFile("../../../examples/orders/orders.wasm")
	if err != nil {
		t.Fatal(err)
	}
	rt, err := sandbox.New(t.Context(), sandbox.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Close(context.Background())
	m, err := rt.Compile(t.Context(), wasm)
	if err != nil {
		t.Fatal(err)
	}
	stage, err := m.NewStage(t.Context(), sandbox.StageConfig{Flow: "default/orders", Stage: "mask"})
	if err != nil {
		t.Fatal(err)
	}
	defer stage.Close(context.Background())
	cfg := kafka.Config{Brokers: []string{addr}}
	src, err := kafka.NewSource(kafka.SourceConfig{Config: cfg, Topics: []string{"orders"}})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	out, err := kafka.NewSink(kafka.SinkConfig{Config: cfg, Topic: "orders-out", Compression: kafka.None})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()

	set := pipeline.Linear(0, []pipeline.BoundStage{{Stage: stage, StageInfo: pipeline.StageInfo{ID: "mask"}}}, pipeline.StageInfo{ID: "deliver"})
	f := pipeline.New(pipeline.Config{Flow: "default/orders"}, src, set, []pipeline.Delivery{pipeline.Plain(out)})
	if err := f.Open(pipeline.LaneConfig{Partition: record.Partition{Topic: "orders"}}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	var before, after runtime.MemStats
	go func() { ended <- f.Run(ctx) }()
	st := f.Stats()
	reach := func(n int64) int64 {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for deadline := time.Now().Add(time.Minute); ; <-tick.C {
			if got := st.Emitted.Load() + st.Dropped.Load(); got >= n {
				return got
			} else if time.Now().After(deadline) {
				t.Fatalf("%d of %d records are settled after a minute: %s", got, n, f.Problem())
			}
		}
	}
	begun := reach(first) // by then all of it has been needed once
	runtime.ReadMemStats(&before)
	reach(all)
	runtime.ReadMemStats(&after)
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if st.Failed.Load() > 0 {
		t.Fatalf("%d records failed", st.Failed.Load())
	}
	n := float64(all - begun)
	allocs, bytes := float64(after.Mallocs-before.Mallocs)/n, float64(after.TotalAlloc-before.TotalAlloc)/n
	t.Logf("%.2f allocations and %.0f bytes a record", allocs, bytes)
	if allocs > 0.8 || bytes > 3000 {
		t.Errorf("%.2f allocations and %.0f bytes a record, want at most 0.8 and 3000", allocs, bytes)
	}
}
