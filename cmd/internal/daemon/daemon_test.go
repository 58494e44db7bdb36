package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/devbroker"
	"github.com/millrace-io/millrace/examples/orders/gen"
	"github.com/millrace-io/millrace/examples/orders/orderstage"
)

// poll tries until cond holds, for at most a minute.
func poll(t *testing.T, what string, cond func() (bool, string)) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, said := cond()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain: %s: %s", what, said)
		}
	}
}

func testLogger(t *testing.T) *slog.Logger {
	if os.Getenv("MILLRACE_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func startBroker(t *testing.T) *devbroker.Broker {
	t.Helper()
	b, err := devbroker.Start(devbroker.Config{Listen: "127.0.0.1:0", Dir: t.TempDir(), Partitions: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// life runs a daemon on dir until the returned function is called.
func life(t *testing.T, dir string) (*Daemon, func()) {
	t.Helper()
	return lifeWith(t, Config{Dir: dir, Logger: testLogger(t)})
}

func lifeWith(t *testing.T, cfg Config) (*Daemon, func()) {
	t.Helper()
	cfg.Listen, cfg.Version = "127.0.0.1:0", "test"
	d, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	t.Cleanup(stop)
	return d, stop
}

const ordersFlow = `flow: v1
name: orders
source: kafka://main/orders
stages:
  - id: mask
    map: ./orders.wasm
  - id: deliver
    push: kafka://main/orders-out
`

func upload(t *testing.T, b api.Backend, file string) string {
	t.Helper()
	wasm, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer wasm.Close()
	p, err := b.UploadPlugin(t.Context(), filepath.Base(file), wasm)
	if err != nil {
		t.Fatal(err)
	}
	return p.Digest
}

func connect(t *testing.T, b api.Backend, addr string) {
	t.Helper()
	if _, err := b.PutConnection(t.Context(), &api.PutConnection{Document: "connection: v1\nname: main\nkafka: { brokers: [" + addr + "] }\n"}); err != nil {
		t.Fatal(err)
	}
}

// mustPut applies a flow and shows the linter's findings if it cannot.
func mustPut(t *testing.T, b api.Backend, put *api.PutFlow) *api.FlowPlan {
	t.Helper()
	plan, err := b.PutFlow(t.Context(), put)
	if e, ok := errors.AsType[*api.Error](err); ok {
		for _, p := range e.Problems {
			t.Error(p.Rendered)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func produce(t *testing.T, addr, topic string, g *gen.Generator, n int) (want map[string]string, failed map[string]bool) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.DefaultProduceTopic(topic), kgo.AllowAutoTopicCreation(), kgo.MetadataMinAge(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	want, failed = map[string]string{}, map[string]bool{}
	for range n {
		e := g.Next()
		switch out, o := orderstage.Order(nil, e.Value); o {
		case orderstage.Emit:
			want[string(out)] = string(e.Key)
		case orderstage.Fail:
			failed[string(e.Value)] = true
		}
		cl.Produce(t.Context(), &kgo.Record{Key: e.Key, Value: e.Value}, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Errorf("produce: %v", err)
			}
		})
	}
	if err := cl.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	return want, failed
}

// consume reads a topic until n records are there.
func consume(t *testing.T, addr, topic string, n int) []*kgo.Record {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.MetadataMinAge(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var recs []*kgo.Record
	for len(recs) < n {
		fs := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("read %d of %d records of topic %s", len(recs), n, topic)
		}
		fs.EachRecord(func(r *kgo.Record) { recs = append(recs, r) })
	}
	return recs
}

func settled(t *testing.T, b api.Backend, name string, in int64) {
	t.Helper()
	poll(t, "flow "+name+" settles", func() (bool, string) {
		f, err := b.Flow(t.Context(), "default", name)
		if err != nil {
			t.Fatal(err)
		}
		sum := int64(0)
		for _, p := range f.Partitions {
			sum += p.Committed
		}
		return sum == in, fmt.Sprintf("committed %d of %d, state %s %s, problem %q", sum, in, f.State, f.Reason, f.Problem)
	})
}

func TestKafkaThroughAPlugin(t *testing.T) {
	broker := startBroker(t)
	dir := t.TempDir()
	d, stop := life(t, dir)
	connect(t, d, broker.Addr())
	digest := upload(t, d, "../../../examples/orders/orders.wasm")
	put := &api.PutFlow{Document: ordersFlow, Files: map[string]string{"./orders.wasm": digest}}
	plan := mustPut(t, d, put)
	if plan.Action != "create" || plan.Revision != 1 {
		t.Errorf("plan %+v", plan)
	}
	g := gen.New(1)
	const n = 5000
	want, failed := produce(t, broker.Addr(), "orders", g, n)
	settled(t, d, "orders", n)

	// A second life goes on where the first one stopped.
	stop()
	d, stop = life(t, dir)
	more, alsoFailed := produce(t, broker.Addr(), "orders", g, n)
	for k, v := range more {
		want[k] = v
	}
	for k := range alsoFailed {
		failed[k] = true
	}
	settled(t, d, "orders", 2*n)
	out := consume(t, broker.Addr(), "orders-out", len(want))
	for _, r := range out {
		key, ok := want[string(r.Value)]
		if !ok {
			t.Fatalf("came out and must not have, or came twice: %s", r.Value)
		}
		if key != string(r.Key) {
			t.Errorf("key %q of %s, want %q", r.Key, r.Value, key)
		}
		delete(want, string(r.Value))
	}
	page, err := d.Failures(t.Context(), &api.FailureQuery{Project: "default", Name: "orders", Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	if int(page.Total) != len(failed) || len(page.Entries) != len(failed) || len(failed) == 0 {
		t.Errorf("%d entries in the queue, total %d, want %d", len(page.Entries), page.Total, len(failed))
	}
	for _, e := range page.Entries {
		if !failed[string(e.Input.Value)] {
			t.Errorf("entry %s has an input that is not malformed: %s", e.ID(), e.Input.Value)
		}
		if e.Stage != "mask" || e.Plugin != "orders@1.0.0" || e.Digest != digest || e.Class.String() != "rejected" || e.Replay == nil || e.Flow != "default/orders" {
			t.Errorf("entry %+v", e)
		}
	}
	f, err := d.Flow(t.Context(), "default", "orders")
	if err != nil {
		t.Fatal(err)
	}
	if f.Figures == nil || f.Figures.In != n || f.Lag != 0 && f.Lag != -1 {
		t.Errorf("figures %+v lag %d", f.Figures, f.Lag)
	}
	if plan, err = d.PutFlow(t.Context(), put); err != nil || plan.Action != "unchanged" {
		t.Errorf("the same document again: %+v, %v", plan, err)
	}
	stop()
}

func TestStateOfAFlow(t *testing.T) {
	broker := startBroker(t)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	digest := upload(t, d, "../../../examples/orders/orders.wasm")
	put := &api.PutFlow{Document: ordersFlow, Files: map[string]string{"./orders.wasm": digest}}
	mustPut(t, d, put)
	if _, err := d.SetFlow(t.Context(), "default", "orders", api.StatePaused); err != nil {
		t.Fatal(err)
	}
	g := gen.New(2)
	want, failed := produce(t, broker.Addr(), "orders", g, 1000)
	poll(t, "the runner's end", func() (bool, string) { return len(d.active()) == 0, "" })
	if _, err := d.SetFlow(t.Context(), "default", "orders", api.StateRunning); err != nil {
		t.Fatal(err)
	}
	settled(t, d, "orders", 1000)
	if got := consume(t, broker.Addr(), "orders-out", len(want)); len(got) != len(want) {
		t.Errorf("%d records out, want %d", len(got), len(want))
	}
	err := d.DeleteFlow(t.Context(), "default", "orders", false)
	if len(failed) > 0 && (err == nil || !strings.Contains(fmt.Sprint(err), "entries")) {
		t.Errorf("deleting a flow with failures: %v", err)
	}
	if err := d.DeleteFlow(t.Context(), "default", "orders", true); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Flow(t.Context(), "default", "orders"); err == nil {
		t.Error("the flow is still there")
	}
	if err := d.DeleteConnection(t.Context(), "main"); err != nil {
		t.Error(err)
	}
}
