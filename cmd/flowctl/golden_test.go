package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// now is when the tests take place.
var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) int64 { return now.Add(-d).UnixMilli() }

// harness calls the program against a node's API over HTTP, and writes down
// what was said.
type harness struct {
	t    *testing.T
	dir  string
	env  map[string]string
	node *memory
	// sits: somebody answers questions.
	sits   bool
	server *httptest.Server
	log    strings.Builder
}

func newHarness(t *testing.T) *harness {
	t.Helper()
	h := &harness{t: t, dir: t.TempDir(), env: map[string]string{}, node: newMemory()}
	h.server = httptest.NewServer(api.New(api.Config{Backend: h.node}))
	t.Cleanup(h.server.Close)
	h.env["FLOWCTL_SERVER"] = h.server.URL
	return h
}

func newMemory() *memory {
	digest := func(c string) string { return "sha256:" + strings.Repeat(c, 64) }
	m := &memory{flows: map[string]*api.Flow{}, failures: map[string][]*record.Entry{}, connections: map[string]*api.Connection{}, inspected: map[string]*sandbox.Info{}, blobs: map[string][]byte{}, polls: 2}
	m.flows["default/orders"] = &api.Flow{
		Project: "default", Name: "orders", UID: "00000000000000a1", Description: "Masks orders", Labels: map[string]string{"team": "integration", "tier": "p1"},
		Revision: 3, Generation: 1, DeployGeneration: 2, State: api.StateRunning, Order: "partition", Slots: 4,
		Source: "kafka://main/orders", Delivery: "push kafka://main/orders-out", Created: ago(50 * time.Hour), Updated: ago(90 * time.Minute), Lag: 12,
		Stages: []api.Stage{
			{ID: "mask", Describe: "map order-mask@^1", Plugin: "order-mask@1.2.0", Digest: digest("a"), Otherwise: "queue", Calls: 10, Records: 1000, Nanos: 1_500_000, Drops: 40, Failures: 3},
			{ID: "deliver", Describe: "push kafka://main/orders-out", Otherwise: "queue", Records: 957},
		},
		Partitions: []api.Partition{
			{Topic: "orders", Partition: 0, Slot: 0, Owner: "1", Epoch: 7, Committed: 500, Position: 506, End: 512, Lag: 12, InFlight: 6},
			{Topic: "orders", Partition: 1, Slot: 1, Owner: "1", Epoch: 7, Committed: 488, Position: 488, End: -1, Lag: -1, InFlight: 12, Paused: true},
		},
		Queue:   api.Queue{Entries: 3, Bytes: 2048, MaxEntries: 100_000, MaxBytes: 1 << 30},
		Figures: &api.Figures{Since: ago(time.Hour), In: 1000, Emitted: 957, Dropped: 40, Failed: 3},
	}
	m.flows["acme/refunds"] = &api.Flow{
		Project: "acme", Name: "refunds", UID: "00000000000000b2", Revision: 1, Generation: 1, State: api.StateAutoPaused, Reason: "topic refunds does not exist",
		Order: "partition", Slots: 1, Source: "kafka://main/refunds", Delivery: "push post partner:/v2", Created: ago(30 * time.Second), Updated: ago(30 * time.Second), Lag: -1,
	}
	entry := func(seq uint64, class record.Class, stage, message, key, value string) *record.Entry {
		e := &record.Entry{Seq: seq, Flow: "default/orders", Stage: stage, Class: class, Message: message, Attempts: 1, Time: ago(5 * time.Minute),
			Input: record.Record{Key: []byte(key), Value: []byte(value), Topic: "orders", Partition: 0, Offset: int64(100 + seq), Timestamp: ago(6 * time.Minute), Attempt: 1, To: -1}}
		if stage == "mask" {
			e.Plugin, e.Digest = "order-mask@1.2.0", digest("a")
		}
		return e
	}
	m.failures["default/orders"] = []*record.Entry{
		entry(1, record.Rejected, "mask", "order has no amount", "c-17", `{"id":1}`),
		entry(2, record.Trap, "mask", "unreachable\x1b[2J in function parse_order, called by stage_batch with a long story behind it", "c-18", "{\"id\":\x00\xff"),
		entry(3, record.TooLarge, "deliver", "the broker takes 1 MiB", "c-19", `{"id":3}`),
	}
	m.failures["default/orders"][1].Replay = &record.Replay{Fuel: 4711, FuelLimit: 1_200_000}
	m.connections["main"] = &api.Connection{Name: "main", Kind: "kafka", Target: "10.0.0.5:9092", Updated: ago(72 * time.Hour), UsedBy: []string{"acme/refunds", "default/orders", "default/third"}}
	m.connections["partner"] = &api.Connection{Name: "partner", Kind: "http", Target: "https://partner.example", Updated: ago(time.Minute),
		Usage: &api.ConnectionUsage{Name: "partner", InFlight: 3, Waiting: 1, Concurrent: 8, Allowed: 20, Used: 19.5, Breaker: api.Breaker{State: api.BreakerHalfOpen, Since: ago(time.Minute), Reason: "timeouts"}}}
	m.plugins = []*api.Plugin{{Namespace: "default", Name: "order-mask", Version: "1.2.0", Digest: digest("a"), Size: 48_123, Mode: "call", Stored: ago(24 * time.Hour), UsedBy: []string{"default/orders/mask"}}}
	return m
}

// call runs the program and returns its exit code, STDOUT and STDERR.
func (h *harness) call(stdin string, args ...string) (int, string, string) {
	var stdout, stderr bytes.Buffer
	code := h.start(context.Background(), strings.NewReader(stdin), &stdout, &stderr, args...)
	return code, stdout.String(), stderr.String()
}

func (h *harness) start(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer, args ...string) int {
	a := &app{
		getenv: func(name string) string { return h.env[name] }, stdin: stdin, stdout: stdout, stderr: stderr,
		dir: h.dir, now: func() time.Time { return now }, program: "flowctl", flowd: "flowd",
		terminal: func() bool { return h.sits },
		connect:  func(base string) api.Backend { return api.NewClient(base) },
	}
	return a.run(ctx, args)
}

// do runs the program and writes the conversation down.
func (h *harness) do(args ...string) { h.doWith("", args...) }

func (h *harness) doWith(stdin string, args ...string) {
	code, stdout, stderr := h.call(stdin, args...)
	var quoted []string
	for _, a := range args {
		if a == "" || strings.ContainsAny(a, " '\"{}$") {
			a = "'" + a + "'"
		}
		quoted = append(quoted, a)
	}
	fmt.Fprintf(&h.log, "$ flowctl %s\n%s", strings.Join(quoted, " "), stdout)
	if stderr != "" {
		fmt.Fprintf(&h.log, "-- stderr\n%s", stderr)
	}
	fmt.Fprintf(&h.log, "-- exit %d\n\n", code)
}

func (h *harness) note(format string, args ...any) { fmt.Fprintf(&h.log, "# "+format+"\n", args...) }

// write makes a file in the working folder.
func (h *harness) write(name, content string) {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// copy copies a file of the repository into the working folder.
func (h *harness) copy(from, to string) {
	h.t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(from)))
	if err != nil {
		h.t.Fatal(err)
	}
	h.write(to, string(b))
}

// golden compares the conversation with the file's.
func (h *harness) golden(name string) {
	h.t.Helper()
	got := strings.NewReplacer(
		filepath.ToSlash(h.dir), "$DIR", h.dir, "$DIR",
		strings.TrimPrefix(h.server.URL, "http://"), "$NODE",
	).Replace(h.log.String())
	got = strings.TrimRight(got, "\n") + "\n"
	path := filepath.Join("testdata", name+".golden")
	if *rewrite {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			h.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			h.t.Fatal(err)
		}
		return
	}
	b, err := os.ReadFile(path)
	if err != nil {
		h.t.Fatalf("%v; make it with: go test ./cmd/flowctl -rewrite", err)
	}
	want := strings.ReplaceAll(string(b), "\r\n", "\n")
	if got == want {
		return
	}
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		if i >= len(g) || i >= len(w) || g[i] != w[i] {
			at := func(s []string) string {
				if i < len(s) {
					return s[i]
				}
				return "(end)"
			}
			h.t.Fatalf("%s:%d:\n got: %s\nwant: %s\nrewrite with: go test ./cmd/flowctl -rewrite", path, i+1, at(g), at(w))
		}
	}
}
