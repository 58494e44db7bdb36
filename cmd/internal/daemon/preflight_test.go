package daemon

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/plugins/manifest"
	"github.com/millrace-io/millrace/plugins/plugintest/guests"
)

// version uploads the plugin `versions` that does what the letter says, and
// returns its digest.
func version(t *testing.T, d *Daemon, behaviour byte, v string) string {
	t.Helper()
	return upload(t, d, wasmFile(t, "versions.wasm", guests.Version(behaviour), manifest.Manifest{Name: "versions", Version: v}))
}

// ordersIn writes records into the partitions of topic in by turns.
func ordersIn(t *testing.T, addr string, partitions, from, n int, value func(i int) string) {
	t.Helper()
	cl := kafkaClient(t, addr)
	for i := from; i < from+n; i++ {
		r := &kgo.Record{Topic: "in", Partition: int32(i % partitions), Key: fmt.Appendf(nil, "k%d", i), Value: []byte(value(i))}
		cl.Produce(t.Context(), r, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Errorf("produce: %v", err)
			}
		})
	}
	if err := cl.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// order has an amount with three places in 12 of 1,000.
func order(i int) string {
	amount := "10.00"
	if i%1000%83 == 7 && i%1000 < 83*12 {
		amount = "10.005"
	}
	return fmt.Sprintf(`{"id":%d,"amount":%s,"country":"%s","note":"n"}`, i, amount, []string{"DE", "FR"}[i%2])
}

const versionsFlow = `flow: v1
name: orders
source: kafka://main/in
stages:
  - id: v
    map: versions@^1
  - id: deliver
    push: kafka://main/out
`

// plan is the dry run of a deployment with its pre-flight.
func plan(t *testing.T, d *Daemon, digest string, n int) *api.Deployment {
	t.Helper()
	dep, err := d.Deploy(t.Context(), &api.Deploy{Digest: digest, DryRun: true, Preflight: n})
	if err != nil {
		t.Fatal(err)
	}
	return dep
}

// stageOf is the pre-flight of a stage in a plan.
func stageOf(t *testing.T, dep *api.Deployment, flow, stage string) *api.Preflight {
	t.Helper()
	for _, f := range dep.Flows {
		for _, s := range f.Stages {
			if f.Flow == flow && s.Stage == stage && s.Preflight != nil {
				return s.Preflight
			}
		}
	}
	t.Fatalf("no pre-flight of %s/%s in %+v", flow, stage, dep.Flows)
	return nil
}

func TestPreflightFindsWhatChanges(t *testing.T) {
	broker := startBroker(t)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	ordersIn(t, broker.Addr(), 4, 0, 200, func(int) string { return `{"amount":9.999}` }) // older than the last 1,000
	ordersIn(t, broker.Addr(), 4, 1000, 1000, order)
	version(t, d, 'p', "1.0.0")
	mustPut(t, d, &api.PutFlow{Document: versionsFlow})
	settled(t, d, "orders", 1200)
	before, err := d.Offsets(t.Context(), "default", "orders")
	if err != nil {
		t.Fatal(err)
	}
	revisions := func() int {
		r, err := d.Revisions(t.Context(), "default", "orders")
		if err != nil {
			t.Fatal(err)
		}
		return len(r)
	}

	for _, tt := range []struct {
		behaviour                        byte
		identical, differ, newFailures   int64
		path, kind, oldExample, newValue string
	}{
		{'p', 1000, 0, 0, "", "", "", ""},
		{'r', 988, 12, 0, "amount", "~", "10.005", "10.01"},
		{'n', 0, 1000, 0, "note", "-", `"n"`, ""},
		{'x', 0, 1000, 0, "(emissions)", "~", "1", "2"},
		{'k', 0, 1000, 0, "(key)", "~", "", "new"},
		{'d', 992, 8, 0, "(outcome)", "~", "emit", "drop"},
		{'f', 992, 0, 8, "(outcome)", "~", "emit", "fail: rejected (7): not today"},
		{'l', 992, 0, 8, "(outcome)", "~", "emit", "retry: retryable"},
		{'t', 992, 0, 8, "(outcome)", "~", "emit", "fail: trap"},
	} {
		// Their bytes differ also where they do the same.
		m := manifest.Manifest{Name: "versions", Version: "1.1.0-dev", Sample: nil, MemoryMB: 32}
		digest := upload(t, d, wasmFile(t, "versions.wasm", guests.Version(tt.behaviour), m))
		p := stageOf(t, plan(t, d, digest, 1000), "default/orders", "v")
		if p.Source != 1000 || p.Records != 1000 || p.Identical != tt.identical || p.Differ != tt.differ || p.NewFailures != tt.newFailures || p.Skipped+p.Partial != "" {
			t.Errorf("%c: %+v", tt.behaviour, p)
		}
		if tt.path == "" {
			if len(p.Fields) != 0 || p.FuelRatio != 1 {
				t.Errorf("%c: fields %+v, fuel %v", tt.behaviour, p.Fields, p.FuelRatio)
			}
			continue
		}
		f := p.Fields[0]
		if len(p.Fields) != 1 || f.Path != tt.path || f.Kind != tt.kind || f.Count != tt.differ+tt.newFailures || f.Example[1] != tt.newValue || tt.oldExample != "" && f.Example[0] != tt.oldExample || !strings.HasPrefix(f.Record, "in/") {
			t.Errorf("%c: fields %+v", tt.behaviour, p.Fields)
		}
	}
	// A pre-flight leaves no trace in the flow.
	after, err := d.Offsets(t.Context(), "default", "orders")
	if err != nil || !reflect.DeepEqual(before, after) || revisions() != 1 {
		t.Errorf("offsets %+v, were %+v, %v; %d revisions", after, before, err, revisions())
	}
	if f, err := d.Flow(t.Context(), "default", "orders"); err != nil || f.Figures.In != 1200 || f.Queue.Entries != 0 {
		t.Errorf("flow %+v, %v", f, err)
	}
	if n := len(consume(t, broker.Addr(), "out", 1200)); n != 1200 {
		t.Errorf("%d records delivered", n)
	}
}

func TestPreflightFollowsTheWaysBeforeAStage(t *testing.T) {
	broker := startBroker(t)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	ordersIn(t, broker.Addr(), 4, 0, 1000, order)
	version(t, d, 'p', "1.0.0")
	mustPut(t, d, &api.PutFlow{Document: `flow: v1
name: orders
source: kafka://main/in
stages:
  - filter: value.id >= 200
  - branch:
      - when: value.country == "DE"
        stages:
          - id: rename
            map: { rename: { amount: sum } }
          - id: in-case
            map: versions@^1
          - push: kafka://main/de
      - else:
          - id: first
            map: versions@^1
          - id: second
            map: versions@^1
          - push: kafka://main/fr
`})
	dep := plan(t, d, version(t, d, 'r', "1.1.0"), 1000)
	// The renamed amount is rounded nowhere. What comes to the second is what
	// the present first one makes.
	for stage, want := range map[string][2]int64{"in-case": {400, 0}, "first": {400, 4}, "second": {400, 4}} {
		p := stageOf(t, dep, "default/orders", stage)
		if p.Source != 1000 || p.Records != want[0] || p.Differ != want[1] || p.NewFailures != 0 {
			t.Errorf("%s: %+v", stage, p)
		}
	}
}

func TestPreflightSaysWhatItSkips(t *testing.T) {
	broker := startBroker(t)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	ordersIn(t, broker.Addr(), 1, 0, 20, order)
	version(t, d, 'p', "1.0.0")
	for name, doc := range map[string]string{
		"stateful": strings.Replace(versionsFlow, "versions@^1\n", "versions@^1\n    isolation: failure\n", 1),
		"behind":   strings.Replace(versionsFlow, "  - id: v\n", "  - id: before\n    map: versions@=1.0.0\n    isolation: failure\n  - id: v\n", 1),
		"nothing":  strings.Replace(versionsFlow, "kafka://main/in", "kafka://main/empty", 1),
		"filtered": strings.Replace(versionsFlow, "  - id: v\n", "  - filter: value.id > 1000\n  - id: v\n", 1),
		"requests": strings.Replace(versionsFlow, "kafka://main/in", "{ ingest: {} }", 1),
	} {
		mustPut(t, d, &api.PutFlow{Document: strings.Replace(doc, "name: orders", "name: "+name, 1)})
	}
	dep := plan(t, d, version(t, d, 'r', "1.1.0"), 1000)
	for flow, want := range map[string]string{
		"stateful": "it is stateful", "behind": "stage before before it is stateful", "nothing": "holds no records",
		"filtered": "none of 20 records of the source came to it", "requests": "its source is ingest",
	} {
		if p := stageOf(t, dep, "default/"+flow, "v"); !strings.Contains(p.Skipped, want) || p.Records != 0 {
			t.Errorf("%s: %+v", flow, p)
		}
	}
}

// TestPreflightOfAHostileVersion: one that never returns is bounded, and
// nothing is deployed or said to be compared that was not.
func TestPreflightOfAHostileVersion(t *testing.T) {
	broker := startBroker(t)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	ordersIn(t, broker.Addr(), 4, 0, 1000, order)
	version(t, d, 'p', "1.0.0")
	mustPut(t, d, &api.PutFlow{Document: versionsFlow})
	settled(t, d, "orders", 1000)
	digest := version(t, d, 's', "1.1.0")
	p := stageOf(t, plan(t, d, digest, 20), "default/orders", "v")
	if p.NewFailures != 20 || p.Fields[0].Example[1] != "fail: fuel" {
		t.Errorf("%+v", p)
	}
	f, err := d.store.Flow("default", "orders")
	if err != nil {
		t.Fatal(err)
	}
	rev, doc, err := d.document(f)
	if err != nil {
		t.Fatal(err)
	}
	to := slices.Clone(rev.Pins)
	plugin, err := d.findPlugin(digest)
	if err != nil {
		t.Fatal(err)
	}
	to[0].Digest = plugin.Digest
	ordersIn(t, broker.Addr(), 4, 1000, 20_000, order)
	var found map[string]*api.Preflight
	limit, began := time.Second, time.Now()
	for ; found == nil && limit < 20*time.Second; limit *= 2 { // reading alone may take as long where much else runs
		began = time.Now()
		short := &trial{d: d, doc: doc, uid: f.UID, pins: rev.Pins, to: to, limit: limit}
		found, err = short.preflight(t.Context(), 20_000)
	}
	if err != nil {
		t.Fatal(err)
	}
	if p := found["v"]; p.Records == 0 || p.Records >= 20_000 || p.Source != p.Records || !strings.Contains(p.Partial, "of 20000 records were not tried: the limit is") {
		t.Errorf("%+v", p)
	}
	if took := time.Since(began); took > limit+5*time.Second {
		t.Errorf("a pre-flight of at most %v took %v", limit, took)
	}
	for _, none := range []*trial{{limit: time.Nanosecond}, {limit: time.Second, worked: time.Hour}} {
		none.d, none.doc, none.uid, none.pins, none.to = d, doc, f.UID, rev.Pins, to
		found, err = none.preflight(t.Context(), 1000)
		if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != api.CodePreflight || !strings.Contains(e.Next, "--skip-preflight") {
			t.Errorf("without time for a record: %v, %v", found, err)
		}
	}
}

func TestPlanOfAFlowThatChangedIsRefused(t *testing.T) {
	broker := startBroker(t)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	ordersIn(t, broker.Addr(), 1, 0, 20, order)
	version(t, d, 'p', "1.0.0")
	mustPut(t, d, &api.PutFlow{Document: versionsFlow})
	mustPut(t, d, &api.PutFlow{Document: strings.Replace(versionsFlow, "name: orders", "name: third", 1)})
	digest := version(t, d, 'r', "1.1.0")
	dep := plan(t, d, digest, 100)
	if len(dep.Flows) != 2 || dep.Flows[0].Revision != 1 {
		t.Fatalf("plan %+v", dep)
	}
	req := &api.Deploy{Digest: digest, Planned: []api.Planned{{Flow: "default/orders", Revision: 1}}}
	conflict := func(words string) {
		t.Helper()
		_, err := d.Deploy(t.Context(), req)
		if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != api.CodeConflict || !strings.Contains(e.Detail, words) {
			t.Errorf("got %v, want a conflict with %q", err, words)
		}
	}
	conflict("flow default/third came to use the plugin")
	if err := d.DeleteFlow(t.Context(), "default", "third", false); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Deploy(t.Context(), &api.Deploy{Digest: version(t, d, 'n', "1.0.5")}); err != nil {
		t.Fatal(err)
	}
	conflict("to revision 2, from 1")
	req.Planned = []api.Planned{{Flow: "default/orders", Revision: 2}, {Flow: "default/gone", Revision: 1}}
	conflict("flow default/gone was changed or deleted")
	mustPut(t, d, &api.PutFlow{Document: strings.Replace(versionsFlow, "name: orders", "name: other", 1)})
	if _, err := d.Rollback(t.Context(), &api.Rollback{Project: "default", Name: "orders", Revision: 1}); err != nil {
		t.Fatal(err)
	}
	req.Planned = []api.Planned{{Flow: "default/other", Revision: 1}}
	conflict("flow default/other was changed or deleted") // it runs that version already
	if f, err := d.Flow(t.Context(), "default", "orders"); err != nil || f.Revision != 3 || f.Stages[0].Plugin != "versions@1.0.0" {
		t.Fatalf("%+v, %v", f, err)
	}
	req.Planned = []api.Planned{{Flow: "default/orders", Revision: 3}}
	req.Seen = map[string]api.Seen{"default/orders": {Records: 20, Differ: 1, NewFailures: 2, Accepted: "max-diff 3"}}
	done, err := d.Deploy(t.Context(), req)
	if err != nil || done.ID == "" {
		t.Fatalf("%+v, %v", done, err)
	}
	revs, err := d.Revisions(t.Context(), "default", "orders")
	if err != nil || revs[0].Preflight == nil || *revs[0].Preflight != req.Seen["default/orders"] || revs[1].Preflight != nil {
		t.Errorf("revisions %+v, %v", revs, err)
	}
}

// TestPreflightOfADocumentThatChanges: a flow that came meanwhile is not replaced, and of
// one whose document changes it is said that nothing was compared.
func TestPreflightOfADocumentThatChanges(t *testing.T) {
	broker := startBroker(t)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	ordersIn(t, broker.Addr(), 1, 0, 20, order)
	version(t, d, 'p', "1.0.0")
	dry := &api.PutFlow{Document: versionsFlow, DryRun: true, Preflight: 100, New: true}
	planned, err := d.PutFlow(t.Context(), dry)
	if err != nil || len(planned.Stages) != 1 || planned.Stages[0].Preflight.First == nil || planned.Stages[0].Preflight.First.Passed != 20 {
		t.Fatalf("%+v, %v", planned, err)
	}
	other := strings.Replace(versionsFlow, "kafka://main/out", "kafka://main/else", 1)
	mustPut(t, d, &api.PutFlow{Document: other})
	for _, dryRun := range []bool{true, false} {
		_, err := d.PutFlow(t.Context(), &api.PutFlow{Document: versionsFlow, DryRun: dryRun, New: true})
		if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != api.CodeConflict || !strings.Contains(e.Detail, "there is a flow default/orders already") {
			t.Errorf("a new flow in place of one that is there: %v", err)
		}
	}
	version(t, d, 'r', "1.1.0")
	dry.New, dry.Document = false, other
	if planned, err = d.PutFlow(t.Context(), dry); err != nil || len(planned.Stages) != 1 || planned.Stages[0].Preflight.Records != 20 {
		t.Errorf("the same document: %+v, %v", planned, err)
	}
	dry.Document = versionsFlow
	if planned, err = d.PutFlow(t.Context(), dry); err != nil || len(planned.Stages) != 1 || planned.Stages[0].Preflight.Skipped != "the flow's document changes with it" {
		t.Errorf("another document: %+v, %v", planned, err)
	}
	if want := "stage v: plugin 1.0.0 sha256:"; !strings.Contains(strings.Join(planned.Changes, "\n"), want) {
		t.Errorf("the plan does not tell of the new digest: %q", planned.Changes)
	}
}
