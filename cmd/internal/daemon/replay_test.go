package daemon

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/plugins/manifest"
	"github.com/millrace-io/millrace/plugins/registry"
	"github.com/millrace-io/millrace/runtime/record"
)

// among is n records of which those in bad are spread over the others.
func among(n int, bad ...string) []string {
	values := slices.Repeat([]string{"as it should be"}, n)
	for i, v := range bad {
		values[(i+1)*n/(len(bad)+1)] = v
	}
	return values
}

func produceValues(t *testing.T, addr, topic string, values []string) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.DefaultProduceTopic(topic), kgo.AllowAutoTopicCreation(), kgo.MetadataMinAge(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for i, v := range values {
		cl.Produce(t.Context(), &kgo.Record{Key: []byte(strconv.Itoa(i)), Value: []byte(v), Headers: []kgo.RecordHeader{{Key: "n", Value: nil}}}, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Errorf("produce: %v", err)
			}
		})
	}
	if err := cl.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestReplayOfAFlow: what a node filed is run again elsewhere, with what its
// API hands out and nothing else: the same class, code, message, logs and fuel,
// 30 times of 30.
func TestReplayOfAFlow(t *testing.T) {
	broker := startBroker(t)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	node := api.NewClient("http://" + d.Addr())
	for _, c := range []struct {
		name, file, stage string
		bad               []string
		classes           []string
	}{
		{"call", "../../../plugins/plugintest/guests/faulty/faulty.wasm", `with: { behaviour: "" }`,
			[]string{"trap", "fail", "hog", "missing", "zero-result"}, []string{"memory", "protocol", "rejected", "rejected", "trap"}},
		{"fuel", "../../../plugins/plugintest/guests/faulty/faulty.wasm", "limits: { fuel: 20_000, memory: 8MiB }", []string{"log-flood"}, []string{"fuel"}},
		{"clock", "../../../plugins/plugintest/guests/wasi/wasi.wasm", "isolation: record", []string{"open", "panic", "exit"}, []string{"rejected", "trap", "trap"}},
		{"lines", "../../../examples/lines/lines.wasm", "envelope: false", []string{"error: x", "error: y"}, []string{"rejected", "rejected"}},
		{"extism", wasmFile(t, "passes.wasm", passes(), manifest.Manifest{Name: "passes", Version: "1.0.0"}), "function: run", []string{"four", "4444"}, []string{"fuel", "fuel"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			digest := upload(t, d, c.file)
			document := fmt.Sprintf("flow: v1\nname: %s\nsource: kafka://main/%[1]s\nstages:\n  - id: judge\n    map: ./p.wasm\n    %s\n  - id: deliver\n    push: kafka://main/%[1]s-out\n", c.name, c.stage)
			mustPut(t, d, &api.PutFlow{Document: document, Files: map[string]string{"./p.wasm": digest}})
			produceValues(t, broker.Addr(), c.name, among(400, c.bad...))
			settled(t, d, c.name, 400)
			page, err := node.Failures(t.Context(), &api.FailureQuery{Project: "default", Name: c.name})
			if err != nil {
				t.Fatal(err)
			}
			var entries []*record.Entry
			var classes []string
			for _, e := range page.Entries {
				one, err := node.Failure(t.Context(), "default", c.name, e.Seq)
				if err != nil {
					t.Fatal(err)
				}
				entries, classes = append(entries, one), append(classes, one.Class.String())
			}
			if slices.Sort(classes); !slices.Equal(classes, c.classes) {
				t.Fatalf("got failures of classes %v, want %v", classes, c.classes)
			}
			r, err := NewReplayer(t.Context(), ReplayConfig{CacheDir: filepath.Join(d.cfg.Dir, "cache", "wazero")}, entries)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close(t.Context())
			for _, e := range entries {
				wasm, err := node.Blob(t.Context(), e.Digest)
				if err != nil || registry.Digest(wasm) != digest {
					t.Fatalf("the plugin of the entry: %v", err)
				}
				if e.Setting == nil || e.Replay == nil || e.Replay.FuelLimit == 0 || e.Replay.MemoryLimit == 0 || e.Replay.Fuel == 0 {
					t.Fatalf("entry %s: %+v, setting %+v", e.ID(), e.Replay, e.Setting)
				}
				for range 30 {
					got, err := r.Replay(t.Context(), e, wasm)
					if err != nil {
						t.Fatal(err)
					}
					if len(got.Results.Failures) != 1 {
						t.Fatalf("record %s: got %+v, want a failure", e.ID(), got.Results)
					}
					f := got.Results.Failures[0].Err
					if f.Class != e.Class || f.Code != e.Code || f.Message != e.Message || !slices.Equal(got.Logs, e.Replay.Logs) || got.Fuel != e.Replay.Fuel || got.ConfigHash != e.Replay.ConfigHash {
						t.Fatalf("record %s: got %v, fuel %d, logs %q, want %v %d %q, %+v", e.ID(), f, got.Fuel, got.Logs, e.Class, e.Code, e.Message, e.Replay)
					}
				}
			}
		})
	}
	if _, err := node.Blob(t.Context(), "sha256:"+strings.Repeat("0", 64)); err == nil || !strings.Contains(err.Error(), "there is no plugin") {
		t.Errorf("a plugin that is not stored: %v", err)
	}
	metricsOfAFlow(t, d)
}

// metricsOfAFlow reads what the node counted of the flow "call" above.
func metricsOfAFlow(t *testing.T, d *Daemon) {
	value := func(name, labels string) float64 {
		t.Helper()
		m := regexp.MustCompile(`(?m)^` + name + regexp.QuoteMeta(labels) + ` (\S+)$`).FindStringSubmatch(metricsText(t, d))
		if m == nil {
			t.Fatalf("no metric %s%s", name, labels)
		}
		v, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	const at = `{flow="default/call",stage="judge"}`
	records, fuel := value("millrace_plugin_call_records_total", at), value("millrace_plugin_fuel_total", at)
	if per := fuel / records; records < 400 || per < 50 || per > 1_000_000 {
		t.Errorf("%v records with %v units of fuel", records, fuel)
	}
	for _, name := range []string{"calls", "seconds", "restores", "instances", "repeats"} {
		if v := value("millrace_plugin_"+name+"_total", at); v <= 0 {
			t.Errorf("%s: %v", name, v)
		}
	}
	if v := value("millrace_plugin_unrepeatable_total", at); v != 0 {
		t.Errorf("unrepeatable: %v", v)
	}
	if v := value("millrace_engine_interpreted", ""); v != 0 {
		t.Errorf("interpreted: %v", v)
	}
	// What a stage did stays counted when it is closed.
	if _, err := d.SetFlow(t.Context(), "default", "call", api.StatePaused); err != nil {
		t.Fatal(err)
	}
	poll(t, "the plugin of the paused flow is closed", func() (bool, string) {
		d.metrics.mu.Lock()
		defer d.metrics.mu.Unlock()
		return len(d.metrics.live[stageName{"default/call", "judge"}]) == 0, ""
	})
	if got := value("millrace_plugin_fuel_total", at); got != fuel {
		t.Errorf("fuel %v after the flow was paused, want %v", got, fuel)
	}
}

func metricsText(t *testing.T, d *Daemon) string {
	t.Helper()
	w := httptest.NewRecorder()
	d.metrics.handler().ServeHTTP(w, mustRequest(t))
	return w.Body.String()
}

func mustRequest(t *testing.T) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
