package daemon

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/plugins/manifest"
	"github.com/millrace-io/millrace/plugins/plugintest/guests"
)

// TestPreflightBesideALiveFlow: no record is lost or doubled, and none of the
// flow's figures moves.
func TestPreflightBesideALiveFlow(t *testing.T) {
	broker := startBroker(t)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	ordersIn(t, broker.Addr(), 4, 0, 1000, order)
	version(t, d, 'p', "1.0.0")
	mustPut(t, d, &api.PutFlow{Document: versionsFlow})
	digest := version(t, d, 's', "1.1.0")
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		for ctx.Err() == nil {
			if _, err := d.Deploy(t.Context(), &api.Deploy{Digest: digest, DryRun: true, Preflight: 50}); err != nil {
				ended <- err
				return
			}
		}
		ended <- nil
	}()
	const n = 20_000
	ordersIn(t, broker.Addr(), 4, 1000, n, order)
	settled(t, d, "orders", n+1000)
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, r := range consume(t, broker.Addr(), "out", n+1000) {
		seen[string(r.Value)]++
	}
	if len(seen) != n+1000 {
		t.Errorf("%d different records came out, want %d", len(seen), n+1000)
	}
	f, err := d.Flow(t.Context(), "default", "orders")
	if err != nil || f.Figures.In != n+1000 || f.Figures.Emitted != n+1000 || f.Figures.Failed != 0 || f.Queue.Entries != 0 || f.Revision != 1 {
		t.Errorf("flow %+v, figures %+v, %v", f, f.Figures, err)
	}
}

// TestPreflightIsNotCounted: what guests count and log in it is not the flow's.
func TestPreflightIsNotCounted(t *testing.T) {
	broker := startBroker(t)
	said := &counting{Handler: slog.DiscardHandler, message: "guest log"}
	d, _ := lifeWith(t, Config{Dir: t.TempDir(), Logger: slog.New(said)})
	connect(t, d, broker.Addr())
	ordersIn(t, broker.Addr(), 1, 0, 10, func(i int) string { return []string{"count", "log"}[i%2] })
	faulty := func(v string) string {
		return upload(t, d, wasmFile(t, "faulty.wasm", guests.Faulty, manifest.Manifest{Name: "faulty", Version: v}))
	}
	faulty("1.0.0")
	mustPut(t, d, &api.PutFlow{Document: strings.Replace(versionsFlow, "versions@^1", "faulty@^1", 1)})
	settled(t, d, "orders", 10)
	count := func() string {
		resp, err := http.Get("http://" + d.Addr() + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(regexp.MustCompile(`(?m)^millrace_(guest_count|plugin_call_records)_total.*$`).Find(b))
	}
	before, lines := count(), said.n.Load()
	if before == "" || lines == 0 {
		t.Fatalf("the flow counts %q and logs %d lines", before, lines)
	}
	if p := stageOf(t, plan(t, d, faulty("1.1.0"), 10), "default/orders", "v"); p.Identical != 10 {
		t.Errorf("%+v", p)
	}
	if after := count(); after != before || said.n.Load() != lines {
		t.Errorf("counted %q, was %q; %d lines, were %d", after, before, said.n.Load(), lines)
	}
}

// TestStopEndsAPreflight: a node that stops does not take the plugins from
// under a pre-flight, and does not wait for all of it.
func TestStopEndsAPreflight(t *testing.T) {
	broker := startBroker(t)
	d, stop := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	ordersIn(t, broker.Addr(), 4, 0, 20_000, order)
	version(t, d, 'p', "1.0.0")
	mustPut(t, d, &api.PutFlow{Document: versionsFlow})
	digest := version(t, d, 's', "1.1.0")
	ended := make(chan error, 1)
	go func() {
		_, err := api.NewClient(d.Addr()).Deploy(t.Context(), &api.Deploy{Digest: digest, DryRun: true, Preflight: 20_000})
		ended <- err
	}()
	poll(t, "the pre-flight to begin", func() (bool, string) { return len(d.trying) == 1, "" })
	began := time.Now()
	stop() // an instance that is in use would be an error
	if len(d.trying) != 0 {
		t.Error("the pre-flight goes on in a node that is closed")
	}
	if took := time.Since(began); took > preflightLimit/2 {
		t.Errorf("to stop took %v", took)
	}
	if err := <-ended; err == nil {
		t.Error("the pre-flight ended before the node stopped")
	}
}
