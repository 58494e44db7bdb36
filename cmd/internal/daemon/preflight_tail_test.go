package daemon

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/plugins/manifest"
	"github.com/millrace-io/millrace/plugins/plugintest/guests"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

// tailValues are the values of a flow's latest records, sorted.
func tailValues(t *testing.T, d *Daemon, source flow.Source, n int) (values []string, partial string) {
	t.Helper()
	recs, partial, err := d.tail(t.Context(), &flow.Flow{Project: "default", Name: "f", Source: source}, n)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range recs {
		values = append(values, string(r.rec.Value))
	}
	slices.Sort(values)
	return values, partial
}

func TestTailOfATopic(t *testing.T) {
	broker := startBroker(t)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	in := flow.Source{Kafka: &flow.KafkaSource{Connection: "main", Topics: []string{"in"}}}
	cl := kafkaClient(t, broker.Addr())
	write(t, cl, "in", 0, 3)
	write(t, cl, "in", 1, 20)
	write(t, cl, "in", 3, 30)
	if got, partial := tailValues(t, d, in, 1000); len(got) != 53 || partial != "" {
		t.Errorf("all: %d records, %q", len(got), partial)
	}
	// The short partition gives what it has, the others the rest alike.
	got, _ := tailValues(t, d, in, 15)
	if want := "[0/0 0/1 0/2 1/14 1/15 1/16 1/17 1/18 1/19 3/24 3/25 3/26 3/27 3/28 3/29]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if got, _ := tailValues(t, d, in, 1); len(got) != 1 {
		t.Errorf("one: %v", got)
	}
}

// TestTailWithGaps reads further back where offsets are not records.
func TestTailWithGaps(t *testing.T) {
	broker := startBroker(t)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	write(t, kafkaClient(t, broker.Addr()), "in", 0, 5)
	cl, err := kgo.NewClient(kgo.SeedBrokers(broker.Addr()), kgo.DefaultProduceTopic("in"), kgo.TransactionalID("tx"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for i := range 20 { // a record and a marker each
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		cl.Produce(t.Context(), &kgo.Record{Value: fmt.Appendf(nil, "tx/%02d", i)}, nil)
		if err := cl.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := cl.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
			t.Fatal(err)
		}
	}
	in := flow.Source{Kafka: &flow.KafkaSource{Connection: "main", Topics: []string{"in"}}}
	got, partial := tailValues(t, d, in, 16)
	if len(got) != 16 || got[0] != "tx/04" || got[15] != "tx/19" || partial != "" {
		t.Errorf("got %v, %q", got, partial)
	}
	// Further back every offset is a record: no more than asked for.
	if got, _ := tailValues(t, d, in, 24); len(got) != 24 || got[0] != "0/1" {
		t.Errorf("got %v", got)
	}
	// One that is open holds back what follows.
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	cl.Produce(t.Context(), &kgo.Record{Value: []byte("open")}, nil)
	if err := cl.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, partial = tailValues(t, d, in, 16)
	if len(got) == 0 || slices.Contains(got, "open") || !strings.Contains(partial, "a transaction may be open") {
		t.Errorf("got %v, %q", got, partial)
	}
	if err := cl.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
		t.Fatal(err)
	}
}

func TestTailThatIsNotThere(t *testing.T) {
	broker := startBroker(t)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	for what, tt := range map[string]struct {
		source flow.Source
		class  record.Class
		words  string
	}{
		"topic":  {flow.Source{Kafka: &flow.KafkaSource{Connection: "main", Topics: []string{"nobody-made-it"}}}, record.Config, "does not exist"},
		"file":   {flow.Source{File: &flow.FileSource{Path: filepath.Join(t.TempDir(), "no")}}, record.Config, "no such file"},
		"stream": {flow.Source{Stream: &flow.Stream{}}, record.Config, "its source is stream"},
	} {
		_, _, err := d.tail(t.Context(), &flow.Flow{Project: "default", Name: "f", Source: tt.source}, 10)
		if e, ok := errors.AsType[*record.Error](err); !ok || e.Class != tt.class || !strings.Contains(e.Error(), tt.words) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// It makes no topic.
	if got := topicsOf(t, broker.Addr()); slices.Contains(got, "nobody-made-it") {
		t.Errorf("topics %v", got)
	}
}

func topicsOf(t *testing.T, addr string) (names []string) {
	t.Helper()
	resp, err := kmsg.NewPtrMetadataRequest().RequestWith(t.Context(), kafkaClient(t, addr))
	if err != nil {
		t.Fatal(err)
	}
	for _, topic := range resp.Topics {
		names = append(names, *topic.Topic)
	}
	return names
}

// TestLastLines holds what is found against a search from the front.
func TestLastLines(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	path := filepath.Join(t.TempDir(), "in.txt")
	for range 200 {
		var content []byte
		var starts []int64
		at := int64(0)
		for range rnd.IntN(6) {
			starts = append(starts, at)
			content = append(content, strings.Repeat("x", rnd.IntN(4)*rnd.IntN(40_000))+"\n"...)
			at = int64(len(content))
		}
		content = append(content, strings.Repeat("y", rnd.IntN(2)*rnd.IntN(70_000))...) // not yet a line
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		n := 1 + rnd.IntN(7)
		wantFrom, wantTo := int64(0), at
		if len(starts) > n {
			wantFrom = starts[len(starts)-n]
		}
		if from, to, err := lastLines(path, n, tailBytes); err != nil || from != wantFrom || to != wantTo {
			t.Fatalf("seed %d: last %d of lines at %d, %d bytes: got %d to %d, %v, want %d to %d", seed, n, starts, len(content), from, to, err, wantFrom, wantTo)
		}
	}
	if err := os.WriteFile(path, []byte(strings.Repeat(strings.Repeat("z", 99)+"\n", 3000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if from, to, err := lastLines(path, 3000, 100_000); err != nil || to != 300_000 || from < 300_000-200_000 || from%100 != 0 {
		t.Errorf("bounded: got %d to %d, %v", from, to, err)
	}
}

func TestPreflightOfAFile(t *testing.T) {
	d, _ := life(t, t.TempDir())
	path := filepath.Join(t.TempDir(), "in.ndjson")
	var content strings.Builder
	for i := range 500 {
		fmt.Fprintf(&content, "%s\n", order(i))
	}
	content.WriteString(`{"amount":9.99`) // a line that is still written
	if err := os.WriteFile(path, []byte(content.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	version(t, d, 'p', "1.0.0")
	out := filepath.Join(t.TempDir(), "out.ndjson")
	mustPut(t, d, &api.PutFlow{Document: fmt.Sprintf("flow: v1\nname: orders\nsource: { file: { path: %q } }\nstages:\n  - id: v\n    map: versions@^1\n  - push: { file: { path: %q } }\n", path, out)})
	p := stageOf(t, plan(t, d, version(t, d, 'r', "1.1.0"), 100), "default/orders", "v")
	want := int64(0)
	for i := 400; i < 500; i++ {
		if strings.Contains(order(i), "10.005") {
			want++
		}
	}
	if p.Source != 100 || p.Records != 100 || p.Differ != want || want == 0 || p.Skipped+p.Partial != "" {
		t.Errorf("%+v, want %d to differ", p, want)
	}
}

// TestPreflightWithoutItsBroker refuses to plan, and says how to go on.
func TestPreflightWithoutItsBroker(t *testing.T) {
	broker := startBroker(t)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	ordersIn(t, broker.Addr(), 1, 0, 5, order)
	version(t, d, 'p', "1.0.0")
	mustPut(t, d, &api.PutFlow{Document: versionsFlow})
	settled(t, d, "orders", 5)
	digest := version(t, d, 'r', "1.1.0")
	if err := broker.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := d.store.Flow("default", "orders")
	if err != nil {
		t.Fatal(err)
	}
	rev, doc, err := d.document(f)
	if err != nil {
		t.Fatal(err)
	}
	p, err := d.findPlugin(digest)
	if err != nil {
		t.Fatal(err)
	}
	to := slices.Clone(rev.Pins)
	to[0].Digest = p.Digest
	_, err = (&trial{d: d, doc: doc, uid: f.UID, pins: rev.Pins, to: to, limit: 500e6}).preflight(t.Context(), 10)
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != api.CodePreflight || !strings.Contains(e.Detail, "its source cannot be read") || !strings.Contains(e.Next, "--skip-preflight") {
		t.Errorf("got %v", err)
	}
	// Without one it deploys.
	if dep, err := d.Deploy(t.Context(), &api.Deploy{Digest: digest}); err != nil || dep.ID == "" {
		t.Errorf("%+v, %v", dep, err)
	}
}

// TestPreflightLeavesPluginsOfDeliveriesOut; and a plugin that cannot start in
// its stage refuses the plan.
func TestPreflightLeavesPluginsOfDeliveriesOut(t *testing.T) {
	broker := startBroker(t)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	ordersIn(t, broker.Addr(), 1, 0, 5, order)
	judge := func(v string) string {
		return upload(t, d, wasmFile(t, "check.wasm", guests.Check, manifest.Manifest{Name: "judge", Version: v}))
	}
	judge("1.0.0")
	upload(t, d, wasmFile(t, "copied.wasm", guests.Copy, manifest.Manifest{Name: "copied", Version: "1.0.0"}))
	mustPut(t, d, &api.PutFlow{Document: "flow: v1\nname: call\nsource: kafka://main/in\norder: partition\nstages:\n  - id: deliver\n    push: http://127.0.0.1:1/x\n    validate: judge@^1\n"})
	mustPut(t, d, &api.PutFlow{Document: strings.Replace(versionsFlow, "versions@^1\n", "copied@^1\n    lines: each\n", 1)})
	if p := stageOf(t, plan(t, d, judge("1.1.0"), 10), "default/call", "deliver.validate"); !strings.Contains(p.Skipped, "judges answers") {
		t.Errorf("%+v", p)
	}
	other := upload(t, d, wasmFile(t, "copied.wasm", guests.Version('p'), manifest.Manifest{Name: "copied", Version: "1.1.0"}))
	_, err := d.Deploy(t.Context(), &api.Deploy{Digest: other, DryRun: true, Preflight: 10})
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != api.CodeRefused || !strings.Contains(e.Detail, "nothing was changed") || e.Next == "" {
		t.Errorf("got %v", err)
	}
}

func TestPreflightOfADocument(t *testing.T) {
	broker := startBroker(t)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	ordersIn(t, broker.Addr(), 1, 0, 100, order)
	put := func(digest string) *api.PutFlow {
		return &api.PutFlow{Document: strings.Replace(versionsFlow, "versions@^1", "./v.wasm", 1), Files: map[string]string{"./v.wasm": digest}, DryRun: true, Preflight: 50}
	}
	one, two := version(t, d, 'p', "1.0.0"), version(t, d, 'd', "1.1.0")
	first := mustPut(t, d, put(two))
	if len(first.Stages) != 1 || first.Stages[0].Preflight.First == nil || *first.Stages[0].Preflight.First != (api.Outcomes{Passed: 50, Emissions: 50}) {
		t.Errorf("a new flow: %+v", first.Stages)
	}
	made := put(one)
	made.DryRun = false
	mustPut(t, d, made)
	second := put(two)
	second.Preflight = 100
	if p := mustPut(t, d, second); len(p.Stages) != 1 || p.Stages[0].OldVersion != "1.0.0" || p.Stages[0].Preflight.Differ != 1 || p.Stages[0].Preflight.Identical != 99 {
		t.Errorf("the same document with another plugin: %+v", p.Stages)
	}
	if p := mustPut(t, d, put(one)); len(p.Stages) != 0 {
		t.Errorf("the very same: %+v", p.Stages)
	}
	second.DryRun, second.Seen = false, &api.Seen{Skipped: true}
	mustPut(t, d, second)
	if revs, err := d.Revisions(t.Context(), "default", "orders"); err != nil || revs[0].Preflight == nil || !revs[0].Preflight.Skipped {
		t.Errorf("%+v, %v", revs, err)
	}
}
