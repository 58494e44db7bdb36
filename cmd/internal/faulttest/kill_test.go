//go:build linux

package faulttest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/plugins/manifest"
)

const ordersWasm = "../../../examples/orders/orders.wasm"

const ordersFlow = `flow: v1
name: orders
source: kafka://main/orders
stages:
  - id: mask
    map: ./orders.wasm
  - id: deliver
    push: kafka://other/orders-out
`

const loadRate = 5000 // records a second

func readPlugin(t *testing.T) []byte {
	t.Helper()
	wasm, err := os.ReadFile(ordersWasm)
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

// ordersRig is a rig whose node runs the orders flow.
func ordersRig(t *testing.T) (*rig, *follower) {
	t.Helper()
	r := newRig(t, false)
	r.makeTopics(r.source, "orders")
	r.makeTopics(r.output, "orders-out")
	r.run()
	r.connectKafka()
	p := r.upload("orders.wasm", readPlugin(t))
	r.apply(ordersFlow, map[string]string{"./orders.wasm": p.Digest})
	r.watch("orders")
	return r, follow(t, r.output.addr, "orders-out", partitions)
}

// cutNow kills the node and notes what the next life may repeat. While the
// broker of the output is stalled, what was handed over is not yet written.
func (r *rig) cutNow(f *follower, before offsets, stall time.Duration) cut {
	r.t.Helper()
	if stall > 0 {
		r.output.signal(r.t, syscall.SIGSTOP)
		pass(r.t.Context(), stall)
	}
	at := time.Now()
	r.node.kill()
	c := cut{marks: r.watched.now()}
	if stall > 0 {
		r.output.signal(r.t, syscall.SIGCONT)
	}
	c.ends = r.restingEnds(r.output, "orders-out")
	f.upTo(r.t, c.ends)
	// An output arrives here after it was appended: what was appended in the
	// 250 ms before the kill is among what arrived since then.
	recent, older := f.arrivedSince(at.Add(-250*time.Millisecond), before, c.ends)
	c.explained = recent + partitions*window
	c.short = older == 0
	return c
}

// finish ends the load, lets everything settle and judges.
func (r *rig) finish(l *load, f *follower, cuts []cut, rules rules) *verdict {
	r.t.Helper()
	return r.judge(l.end(), f, cuts, rules)
}

func (r *rig) judge(events []sent, f *follower, cuts []cut, rules rules) *verdict {
	r.t.Helper()
	r.settled("orders", "orders", 60*time.Second)
	f.upTo(r.t, r.restingEnds(r.output, "orders-out"))
	failures := r.failures("orders")
	r.watched.check(r.t)
	return verdictOf(r.t, events, f.all(), failures, cuts, rules)
}

// randomCut lets the life that was just launched go on for a random time and
// kills it; now and then while the broker is stalled. Every other life gets to
// write something first, however slow the machine is.
func (r *rig) randomCut(rng *rand.Rand, f *follower, cuts []cut) cut {
	r.t.Helper()
	age := between(rng, 50*time.Millisecond, 1500*time.Millisecond)
	var stall time.Duration
	if rng.IntN(3) == 0 {
		stall = between(rng, 120*time.Millisecond, 300*time.Millisecond)
	}
	if len(cuts)%2 == 1 {
		arrived := f.count()
		await(r.t, 30*time.Second, "output of this life", func() (bool, string) { return f.count() > arrived, "" })
		age = time.Since(r.node.started) + age/2
	}
	pass(r.t.Context(), age-time.Since(r.node.started))
	if !r.node.alive() {
		r.t.Fatalf("the node ended by itself (%s): %s", r.node.cmd.ProcessState, r.node.tail())
	}
	before := offsets{}
	if n := len(cuts); n > 0 {
		before = cuts[n-1].ends
	}
	c := r.cutNow(f, before, stall)
	r.t.Logf("kill %d at the age of %s, broker stalled for %s: %d written by this life, up to %d may be repeated",
		len(cuts)+1, age.Round(time.Millisecond), stall.Round(time.Millisecond), c.ends.total()-before.total(), c.explained)
	return c
}

// A node that is killed at any moment loses nothing, keeps the order, repeats
// no more than what it had not committed, files every malformed record once
// and never takes a watermark back.
func TestKilledUnderLoad(t *testing.T) {
	r, f := ordersRig(t)
	rng := seeded(t)
	l := startLoad(t, r.source.addr, "orders", rng.Uint64(), loadRate)
	kills := 30
	if raceEnabled { // everything takes several times as long
		kills = 12
	}
	var cuts []cut
	for range kills {
		cuts = append(cuts, r.randomCut(rng, f, cuts))
		r.launch()
	}
	r.ready()
	v := r.finish(l, f, cuts, rules{})
	for i, n := range v.repeated {
		if n > 0 && i > 0 {
			t.Logf("life %d repeated %d of %d explained", i, n, cuts[i-1].explained)
		}
	}
	if v.malformed == 0 {
		t.Error("no malformed record was among the load")
	}
	if f.count() <= v.emitted {
		t.Error("no kill caused a repetition: were there any?")
	}
	r.stopNode()
}

// builds are versions of a plugin that differ in their manifests.
func builds(t *testing.T, n int) (files []string, wasms [][]byte) {
	t.Helper()
	wasm := readPlugin(t)
	section, err := manifest.Find(wasm)
	if err != nil {
		t.Fatal(err)
	}
	m, err := manifest.Parse(section)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for i := range n {
		m.Version = fmt.Sprintf("1.1.%d", i)
		other, err := manifest.Append(wasm, m)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, fmt.Sprintf("orders-%d.wasm", i))
		if err := os.WriteFile(file, other, 0o644); err != nil {
			t.Fatal(err)
		}
		files, wasms = append(files, file), append(wasms, other)
	}
	return files, wasms
}

// A node that is killed while a plugin is being replaced loses nothing, and
// every deployment comes to its end.
func TestKilledWhileDeploying(t *testing.T) {
	kills := 8
	if os.Getenv("MILLRACE_FAULT_LONG") != "" {
		kills = 30
	}
	r, f := ordersRig(t)
	rng := seeded(t)
	l := startLoad(t, r.source.addr, "orders", rng.Uint64(), loadRate)
	files, wasms := builds(t, kills+1)
	var cuts []cut
	var deployments []string
	digest := ""
	for i := range kills {
		r.ready()
		// The kill comes while the plugin is uploaded, activated or taken up,
		// or after that.
		ctx, cancel := context.WithTimeout(t.Context(), between(rng, time.Millisecond, 300*time.Millisecond))
		d, err := deploy(ctx, r.client, wasms[i])
		if err == nil {
			deployments = append(deployments, d.ID)
			<-ctx.Done()
		}
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("deployment %d: %v", i, err)
		}
		before := offsets{}
		if len(cuts) > 0 {
			before = cuts[len(cuts)-1].ends
		}
		cuts = append(cuts, r.cutNow(f, before, 0))
		t.Logf("kill %d at the age of %s: deployed %t", i+1, time.Since(r.node.started).Round(time.Millisecond), err == nil)
		r.launch()
		if err == nil {
			continue
		}
		// What was cut off is asked for again: it is done or can be done.
		r.ready()
		d = call(t, func(ctx context.Context) (*api.Deployment, error) { return deploy(ctx, r.client, wasms[i]) })
		if d.ID != "" {
			deployments = append(deployments, d.ID)
		}
	}
	r.ready()
	out, err := exec.CommandContext(t.Context(), r.flowctl, "deploy", files[kills], "--server", "http://"+r.nodeAddr).CombinedOutput()
	if err != nil {
		t.Errorf("flowctl deploy: %v\n%s", err, out)
	}
	for _, id := range deployments {
		d := call(t, func(ctx context.Context) (*api.Deployment, error) { return r.client.Deployment(ctx, id) })
		if !d.Done {
			t.Errorf("deployment %s is not done: %+v", id, d.Flows)
		}
	}
	p := call(t, func(ctx context.Context) (*api.Plugin, error) {
		return r.client.Plugin(ctx, fmt.Sprintf("orders@1.1.%d", kills))
	})
	digest = p.Digest
	if s := r.flow("orders").Stages[0]; s.Digest != digest {
		t.Errorf("the stage runs %s %s, want %s", s.Plugin, s.Digest, digest)
	}
	r.finish(l, f, cuts, rules{})
	for _, e := range r.entries("orders") {
		if !strings.HasPrefix(e.Plugin, "orders@1.") || e.Stage != "mask" {
			t.Errorf("entry %d is of stage %s, plugin %s", e.Seq, e.Stage, e.Plugin)
		}
	}
	r.stopNode()
}

func deploy(ctx context.Context, c *api.Client, wasm []byte) (*api.Deployment, error) {
	p, err := c.UploadPlugin(ctx, "orders.wasm", strings.NewReader(string(wasm)))
	if err != nil {
		return nil, err
	}
	return c.Deploy(ctx, &api.Deploy{Digest: p.Digest})
}

// Brokers that are killed and come back cost no record. The embedded one
// forgets, when it is killed, which sequence its producers were at: then it
// takes a batch twice, and a batch that was under way behind another one
// before it. So what was in flight at a kill may change places.
func TestBrokerKilled(t *testing.T) {
	const kills = 5
	r, f := ordersRig(t)
	rng := seeded(t)
	l := startLoad(t, r.source.addr, "orders", rng.Uint64(), loadRate)
	for range kills {
		pass(t.Context(), between(rng, 500*time.Millisecond, 1500*time.Millisecond))
		// One of them, or both.
		which := rng.IntN(3)
		killed := [][]*broker{{r.source}, {r.output}, {r.source, r.output}}[which]
		for _, b := range killed {
			b.kill()
		}
		away := between(rng, 10*time.Millisecond, 800*time.Millisecond)
		pass(t.Context(), away)
		produced, arrived := l.count(), f.count()
		for _, b := range killed {
			r.startBroker(b)
		}
		await(t, 20*time.Second, "records to flow again", func() (bool, string) {
			return f.count() > arrived && l.count() > produced, fmt.Sprintf("%d produced, %d arrived", l.count(), f.count())
		})
	}
	if fl := r.flow("orders"); fl.State != api.StateRunning {
		t.Errorf("the flow is %s: %s", fl.State, fl.Reason)
	}
	events := l.end()
	source := follow(t, r.source.addr, "orders", partitions)
	source.upTo(t, r.restingEnds(r.source, "orders"))
	found := placeFirst(t, events, source.all())
	t.Logf("the source holds %d records of %d events", found, len(events))
	r.judge(events, f, nil, rules{repeats: true, reordered: kills * partitions * window})
	r.stopNode()
}

// placeFirst notes where in the source each event lies first, and returns how
// many records are there.
func placeFirst(t *testing.T, events []sent, source []output) int {
	t.Helper()
	first := make([]bool, len(events))
	for _, o := range source {
		if o.number < 0 || o.number >= len(events) {
			t.Fatalf("record %d/%d of the source is no event", o.partition, o.offset)
		}
		if !first[o.number] {
			first[o.number] = true
			events[o.number].partition, events[o.number].offset = o.partition, o.offset
		}
	}
	for n, ok := range first {
		if !ok {
			t.Fatalf("event %d was acknowledged and is not in the source", n)
		}
	}
	return len(source)
}
