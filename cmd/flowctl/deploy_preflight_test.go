package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/daemon"
	"github.com/millrace-io/millrace/cmd/internal/devbroker"
	"github.com/millrace-io/millrace/plugins/manifest"
	"github.com/millrace-io/millrace/plugins/plugintest/guests"
)

// found is what a pre-flight may find.
func someFound() *api.Preflight {
	return &api.Preflight{Source: 1000, Records: 1000, Identical: 985, Differ: 12, NewFailures: 3, OldFailures: 2, FuelRatio: 1.034, More: 2,
		Fields: []api.FieldDiff{
			{Path: "amount", Kind: "~", Count: 10, Example: [2]string{"10.005", "10.01"}, Record: "orders/0/7"},
			{Path: "(outcome)", Kind: "~", Count: 3, Example: [2]string{"emit", "fail: rejected (7): odd \x1b[2J"}, Record: "orders/1/4"},
			{Path: "cents", Kind: "+", Count: 2, Example: [2]string{"", "1001"}, Record: "orders/0/9"},
			{Path: "note", Kind: "-", Count: 1, Example: [2]string{`"n"`, ""}, Record: "orders/0/9"},
		}}
}

func TestDeployWithPreflight(t *testing.T) {
	h := newHarness(t)
	h.copy("examples/upper/upper.wasm", "upper.wasm")
	h.node.flows["default/orders"].Stages[0].Plugin = "upper@0.9.0"
	again := func() { h.node.polls = 2 }
	h.note("nothing differs")
	h.node.preflight = map[string]*api.Preflight{"mask": {Source: 1000, Records: 990, Identical: 990, FuelRatio: 1}}
	h.do("deploy", "upper.wasm")
	h.note("it differs, and nobody sits there")
	h.node.preflight["mask"] = someFound()
	h.do("deploy", "upper.wasm", "--dry-run")
	h.do("deploy", "upper.wasm", "--dry-run", "--max-diff", "15")
	h.do("deploy", "upper.wasm")
	h.do("deploy", "upper.wasm", "--max-diff", "14")
	h.do("deploy", "upper.wasm", "--max-diff", "1.4%")
	if n := len(h.node.deploys); n != 1 {
		t.Errorf("%d deployments were carried out, want the first", n)
	}
	again()
	h.do("deploy", "upper.wasm", "--max-diff", "1.5%")
	again()
	h.do("deploy", "upper.wasm", "--yes")
	again()
	h.do("deploy", "upper.wasm", "--skip-preflight")
	h.note("somebody sits there")
	h.sits = true
	h.doWith("n\n", "deploy", "upper.wasm")
	again()
	h.doWith("y\n", "deploy", "upper.wasm")
	h.sits = false
	h.note("it was left out, or not all of it was tried")
	h.node.preflight["mask"] = &api.Preflight{Skipped: "it is stateful: its answers depend on earlier records"}
	again()
	h.do("deploy", "upper.wasm")
	h.node.preflight["mask"] = &api.Preflight{Source: 400, Records: 400, Identical: 400, FuelRatio: 120.4, Partial: "600 of 1000 records were not tried: the limit is 30s"}
	again()
	h.do("deploy", "upper.wasm")
	h.note("a new flow")
	h.node.preflight = map[string]*api.Preflight{"map1": {Source: 1000, Records: 1000, First: &api.Outcomes{Passed: 990, Emissions: 1000, Dropped: 4, Failed: 5, Retried: 1, Failure: "fail: trap"}}}
	h.do("deploy", "upper.wasm", "--source", "kafka://127.0.0.1:9092/in", "--sink", "kafka://127.0.0.1:9092/out")
	if p := h.node.puts[0]; !p.New || p.IfMatch != 0 || p.Preflight != 0 {
		t.Errorf("the new flow was put as %+v", p)
	}
	h.note("flags")
	h.do("deploy", "upper.wasm", "--max-diff", "1o%")
	h.do("deploy", "upper.wasm", "--max-diff", "-1")
	h.do("deploy", "upper.wasm", "--max-diff", "101%")
	h.do("deploy", "upper.wasm", "--preflight", "0")
	h.golden("preflight")

	var seen []string
	for _, d := range h.node.deploys {
		if len(d.Planned) != 1 || d.Planned[0] != (api.Planned{Flow: "default/orders", Revision: 3}) || d.DryRun || d.Preflight != 0 {
			t.Errorf("deployment %+v", d)
		}
		s, ok := d.Seen["default/orders"]
		if !ok {
			seen = append(seen, "none")
			continue
		}
		seen = append(seen, seenText(&s))
	}
	const differ = "12 of 1000 differ, 3 new failures"
	want := []string{"990 records identical", differ + " (max-diff 1.5%)", differ + " (yes)", "skipped", differ + " (asked)", "none", "400 records identical"}
	if !reflect.DeepEqual(seen, want) {
		t.Errorf("recorded\n%q, want\n%q", seen, want)
	}
}

func TestPreflightInJSON(t *testing.T) {
	h := newHarness(t)
	h.copy("examples/upper/upper.wasm", "upper.wasm")
	h.node.flows["default/orders"].Stages[0].Plugin = "upper@0.9.0"
	h.node.preflight = map[string]*api.Preflight{"mask": someFound()}
	code, stdout, stderr := h.call("", "deploy", "upper.wasm", "-o", "json")
	var r deployResult
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatalf("%v\n%s", err, stdout)
	}
	if code != 4 || r.Deployment == nil || !reflect.DeepEqual(r.Deployment.Flows[0].Stages[0].Preflight, someFound()) || !strings.Contains(stderr, `"code":"E_PREFLIGHT"`) {
		t.Errorf("exit %d\n%s\n%s", code, stdout, stderr)
	}
	code, stdout, _ = h.call("", "deploy", "upper.wasm", "-o", "json", "--yes")
	r = deployResult{}
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || code != 0 || !r.Deployment.Done || !reflect.DeepEqual(r.Deployment.Flows[0].Stages[0].Preflight, someFound()) {
		t.Errorf("exit %d, %v\n%s", code, err, stdout)
	}
}

// TestPlantedChange: a version that rounds an amount in 12 of 1,000 records is
// found out, by name and number, before a real node runs it.
func TestPlantedChange(t *testing.T) {
	broker, err := devbroker.Start(devbroker.Config{Listen: "127.0.0.1:0", Dir: t.TempDir(), Partitions: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	d, err := daemon.Open(t.Context(), daemon.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	defer func() {
		stop()
		if err := errors.Join(<-ended, d.Close()); err != nil {
			t.Error(err)
		}
	}()
	cl, err := kgo.NewClient(kgo.SeedBrokers(broker.Addr()), kgo.AllowAutoTopicCreation(), kgo.MetadataMinAge(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for i := range 1000 {
		amount := "10.00"
		if i%83 == 7 && i < 83*12 {
			amount = "10.005"
		}
		cl.Produce(t.Context(), &kgo.Record{Topic: "in", Key: fmt.Appendf(nil, "k%d", i), Value: fmt.Appendf(nil, `{"id":%d,"amount":%s}`, i, amount)}, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Error(err)
			}
		})
	}
	if err := cl.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}

	h := &harness{t: t, dir: t.TempDir(), env: map[string]string{"FLOWCTL_SERVER": "http://" + d.Addr()}}
	for file, does := range map[string]byte{"1.0.0.wasm": 'p', "1.1.0.wasm": 'r'} {
		m := manifest.Manifest{Name: "rounding", Version: strings.TrimSuffix(file, ".wasm"), Deterministic: true}
		wasm, err := manifest.Append(guests.Version(does), &m)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(h.dir, file), wasm, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	at := func(topic string) string { return "kafka://" + broker.Addr() + "/" + topic }
	code, stdout, stderr := h.call("", "deploy", "1.0.0.wasm", "--source", at("in"), "--sink", at("out"))
	if code != 0 || !strings.Contains(stderr, "rounding/map1: of the last 1000 records it passes 1000, drops 0, fails 0") {
		t.Fatalf("exit %d\n%s%s", code, stdout, stderr)
	}
	code, stdout, stderr = h.call("", "deploy", "1.1.0.wasm")
	for _, want := range []string{"rounding/map1: 988 identical, 12 differ, 0 new failures; fuel x", "~ amount (12) 10.005 -> 10.01", "E_PREFLIGHT: ", "--yes", "--max-diff 12"} {
		if code != 4 || !strings.Contains(stderr, want) {
			t.Errorf("exit %d, %q is missing in\n%s%s", code, want, stdout, stderr)
		}
	}
	plugin := func() string {
		f, err := d.Flow(t.Context(), "default", "rounding")
		if err != nil {
			t.Fatal(err)
		}
		return f.Stages[0].Plugin
	}
	if plugin() != "rounding@1.0.0" {
		t.Errorf("it runs %s", plugin())
	}
	if code, _, stderr = h.call("", "deploy", "1.1.0.wasm", "--max-diff", "1.2%"); code != 0 || plugin() != "rounding@1.1.0" {
		t.Errorf("exit %d, it runs %s: %s", code, plugin(), stderr)
	}
	// The same form as at first compares where its flow is there already.
	code, _, stderr = h.call("", "deploy", "1.0.0.wasm", "--source", at("in"), "--sink", at("out"))
	if code != 4 || !strings.Contains(stderr, "~ amount (12) 10.01 -> 10.005") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	if code, _, stderr = h.call("", "deploy", "1.0.0.wasm", "--skip-preflight"); code != 0 {
		t.Errorf("exit %d: %s", code, stderr)
	}
	code, stdout, _ = h.call("", "history", "rounding")
	for _, want := range []string{"PRE-FLIGHT", "skipped", "12 of 1000 differ (max-diff 1.2%)"} {
		if code != 0 || !strings.Contains(stdout, want) {
			t.Errorf("history without %q:\n%s", want, stdout)
		}
	}
}

// TestWaitingIsTold, but only to somebody who sits there, and not at once.
func TestWaitingIsTold(t *testing.T) {
	var said bytes.Buffer
	a := &app{stderr: &said, terminal: func() bool { return true }, format: "table"}
	a.waiting(&preflightOptions{records: 5})()
	if said.Len() > 0 {
		t.Errorf("at once: %s", &said)
	}
	tell := make(chan struct{})
	a.stderr = writerFunc(func(b []byte) (int, error) { defer close(tell); return said.Write(b) })
	done := a.waiting(&preflightOptions{records: 5})
	<-tell
	done()
	if !strings.Contains(said.String(), "the last 5 records of each flow") {
		t.Errorf("said %q", &said)
	}
	a.terminal = func() bool { return false }
	done = a.waiting(&preflightOptions{records: 5})
	done()
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
