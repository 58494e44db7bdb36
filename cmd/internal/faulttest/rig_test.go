//go:build linux

package faulttest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/runtime/record"
)

const (
	partitions = 4    // of every topic
	window     = 1000 // records in flight of a partition
)

// rig is a node and its brokers, each a process of its own, in a folder.
type rig struct {
	t       *testing.T
	dir     string
	flowd   string
	flowctl string

	nodeAddr string
	node     *process
	client   *api.Client
	// rest is how long nothing may be written before what a killed node had sent
	// is taken to have arrived; at least 50 ms.
	rest time.Duration
	// The source and the output have a broker each, so that one can be in
	// trouble while the other is not.
	source, output *broker
	watched        *watermarks
}

// broker is a Kafka: an embedded one, or a real one.
type broker struct {
	program
	name   string
	addr   string // for the test itself
	client *kgo.Client
}

// program is a broker's life.
type program interface {
	kill()
	signal(t *testing.T, s syscall.Signal)
	alive() bool
	tail() string
}

// newRig starts the brokers; the node is started by run. Programs are those with
// the race detector if the test itself has it, unless plain.
func newRig(t *testing.T, plain bool) *rig {
	t.Helper()
	r := newNode(t, plain)
	r.source, r.output = r.newBroker("source"), r.newBroker("output")
	return r
}

// newNode is a rig without brokers.
func newNode(t *testing.T, plain bool) *rig {
	t.Helper()
	if testing.Short() {
		t.Skip("runs real processes for seconds")
	}
	bin, err := build(raceEnabled && !plain)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, flowd: filepath.Join(bin, "flowd"), flowctl: filepath.Join(bin, "flowctl"), nodeAddr: freeAddr(t)}
	if r.dir, err = os.MkdirTemp("", "faulttest-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.report)
	r.client = api.NewClient(r.nodeAddr)
	return r
}

// report looks for what no log may hold, and shows the logs of a test that
// failed.
func (r *rig) report() {
	for _, name := range []string{"node.log", "source.log", "output.log"} {
		log := filepath.Join(r.dir, name)
		b, err := os.ReadFile(log)
		if err != nil {
			continue
		}
		for _, f := range faults(log) {
			r.t.Errorf("%s: %s", name, f)
		}
		if r.t.Failed() {
			r.t.Logf("the end of %s:\n%s", log, tailOf(b, 40))
		}
	}
	if r.t.Failed() || os.Getenv("MILLRACE_FAULT_KEEP") != "" {
		r.t.Logf("data folders and logs are kept in %s", r.dir)
		return
	}
	if err := os.RemoveAll(r.dir); err != nil {
		r.t.Error(err)
	}
}

func (r *rig) newBroker(name string) *broker {
	r.t.Helper()
	b := &broker{name: name, addr: freeAddr(r.t)}
	r.startBroker(b)
	b.client = newClient(r.t, b.addr)
	return b
}

// startBroker starts a life of a broker.
func (r *rig) startBroker(b *broker) {
	r.t.Helper()
	what := "the broker of the " + b.name
	b.program = start(r.t, what, filepath.Join(r.dir, b.name+".log"), r.flowctl, "broker",
		"--listen", b.addr, "--dir", filepath.Join(r.dir, b.name), "--partitions", strconv.Itoa(partitions))
	cl := newClient(r.t, b.addr)
	defer cl.Close()
	await(r.t, 20*time.Second, what, func() (bool, string) {
		if !b.alive() {
			r.t.Fatalf("%s ended: %s", what, b.tail())
		}
		ctx, cancel := context.WithTimeout(r.t.Context(), time.Second)
		defer cancel()
		err := cl.Ping(ctx)
		return err == nil, fmt.Sprint(err)
	})
}

func (r *rig) data() string { return filepath.Join(r.dir, "data") }

// launch starts a life of the node without waiting for it.
func (r *rig) launch() {
	r.t.Helper()
	r.node = start(r.t, "the node", filepath.Join(r.dir, "node.log"), r.flowd, "run", "--data", r.data(), "--listen", r.nodeAddr)
}

// run starts a life of the node and returns how long it took to be ready.
func (r *rig) run() time.Duration {
	r.t.Helper()
	r.launch()
	return r.ready()
}

func (r *rig) ready() time.Duration {
	r.t.Helper()
	await(r.t, 30*time.Second, "the node", func() (bool, string) {
		if !r.node.alive() {
			r.t.Fatalf("the node ended (%s): %s", r.node.cmd.ProcessState, r.node.tail())
		}
		return r.isReady()
	})
	return time.Since(r.node.started)
}

func (r *rig) isReady() (bool, string) {
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.nodeAddr+"/readyz", nil)
	if err != nil {
		r.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, err.Error()
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK, resp.Status
}

// stopNode ends the node as an operator does.
func (r *rig) stopNode() {
	r.t.Helper()
	r.node.signal(r.t, syscall.SIGTERM)
	if code := r.node.ended(r.t, 20*time.Second); code != 0 {
		r.t.Errorf("the node ended with exit code %d after SIGTERM: %s", code, r.node.tail())
	}
}

// call fails the test when the node refuses.
func call[T any](t *testing.T, ask func(ctx context.Context) (T, error)) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, err := ask(ctx)
	if e, ok := errors.AsType[*api.Error](err); ok {
		for _, p := range e.Problems {
			t.Error(p.Rendered)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (r *rig) connect(document string) {
	r.t.Helper()
	call(r.t, func(ctx context.Context) (*api.ConnectionPlan, error) {
		return r.client.PutConnection(ctx, &api.PutConnection{Document: document})
	})
}

func (r *rig) connectKafka() {
	r.t.Helper()
	r.connect("connection: v1\nname: main\nkafka: { brokers: [" + r.source.addr + "] }\n")
	r.connect("connection: v1\nname: other\nkafka: { brokers: [" + r.output.addr + "] }\n")
}

func (r *rig) upload(file string, wasm []byte) *api.Plugin {
	r.t.Helper()
	return call(r.t, func(ctx context.Context) (*api.Plugin, error) {
		return r.client.UploadPlugin(ctx, file, strings.NewReader(string(wasm)))
	})
}

func (r *rig) apply(document string, files map[string]string) *api.FlowPlan {
	r.t.Helper()
	return call(r.t, func(ctx context.Context) (*api.FlowPlan, error) {
		return r.client.PutFlow(ctx, &api.PutFlow{Document: document, Files: files})
	})
}

func (r *rig) flow(name string) *api.Flow {
	r.t.Helper()
	return call(r.t, func(ctx context.Context) (*api.Flow, error) { return r.client.Flow(ctx, "", name) })
}

func (r *rig) makeTopics(b *broker, names ...string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	res, err := kadm.NewClient(b.client).CreateTopics(ctx, partitions, 1, nil, names...)
	if err == nil {
		err = res.Error()
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// ends are those of a topic's partitions.
func (r *rig) ends(b *broker, topic string) offsets {
	r.t.Helper()
	ends := offsets{}
	await(r.t, 20*time.Second, "the ends of "+topic, func() (bool, string) {
		ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Second)
		defer cancel()
		listed, err := kadm.NewClient(b.client).ListEndOffsets(ctx, topic)
		if err == nil {
			err = listed.Error()
		}
		if err != nil {
			return false, err.Error()
		}
		listed.Each(func(l kadm.ListedOffset) { ends[l.Partition] = l.Offset })
		return true, ""
	})
	return ends
}

// restingEnds are the ends of a topic that is written no more: a broker may
// still take in what a dead client had sent.
func (r *rig) restingEnds(b *broker, topic string) offsets {
	r.t.Helper()
	return r.endsAtRest(b, topic, max(r.rest, 50*time.Millisecond))
}

// endsAtRest waits until nothing was written to a topic for a while.
func (r *rig) endsAtRest(b *broker, topic string, rest time.Duration) offsets {
	r.t.Helper()
	ends, since := r.ends(b, topic), time.Now()
	await(r.t, 20*time.Second, "the end of writing to "+topic, func() (bool, string) {
		asked := time.Now()
		if now := r.ends(b, topic); !maps.Equal(ends, now) {
			ends, since = now, asked
		}
		return time.Since(since) >= rest, fmt.Sprint(ends)
	})
	return ends
}

// settled waits until the flow has committed everything that its source
// holds.
func (r *rig) settled(name, topic string, limit time.Duration) {
	r.t.Helper()
	ends := r.ends(r.source, topic)
	await(r.t, limit, "flow "+name+" to settle", func() (bool, string) {
		f, err := r.client.Flow(r.t.Context(), "", name)
		if err != nil {
			return false, err.Error()
		}
		at := offsets{}
		for _, p := range f.Partitions {
			at[p.Partition] = p.Committed
		}
		for p, end := range ends {
			if at[p] != end {
				return false, fmt.Sprintf("committed %v of %v; state %s %s, lag %d, problem %q", at, ends, f.State, f.Reason, f.Lag, f.Problem)
			}
		}
		return true, ""
	})
}

// entries are all entries of the flow's failure queue.
func (r *rig) entries(name string) []*record.Entry {
	r.t.Helper()
	var all []*record.Entry
	for after := uint64(0); ; {
		page := call(r.t, func(ctx context.Context) (*api.FailurePage, error) {
			return r.client.Failures(ctx, &api.FailureQuery{Name: name, After: after, Limit: 1000})
		})
		all = append(all, page.Entries...)
		if after = page.Next; after == 0 {
			if int(page.Total) != len(all) {
				r.t.Errorf("the failure queue of %s says it has %d entries, %d were read", name, page.Total, len(all))
			}
			return all
		}
	}
}

// failures are the entries as the judge sees them.
func (r *rig) failures(name string) []failure {
	r.t.Helper()
	var out []failure
	for _, e := range r.entries(name) {
		f := failure{number: -1, message: e.Message}
		for _, h := range e.Input.Headers {
			if h.Key == numberHeader {
				if n, err := strconv.Atoi(string(h.Value)); err == nil {
					f.number = n
				}
			}
		}
		out = append(out, f)
	}
	return out
}

// watermarks are the committed offsets of a flow as they were seen, and what
// was wrong with them.
type watermarks struct {
	mu       sync.Mutex
	uid      string   // guarded by mu
	marks    offsets  // guarded by mu; the highest
	seen     int      // guarded by mu; answers of the node
	backward []string // guarded by mu; marks that went back
}

// watch asks for the flow's watermarks again and again, over all lives of the
// node, until the test ends.
func (r *rig) watch(name string) {
	r.t.Helper()
	w := &watermarks{marks: offsets{}}
	r.watched = w
	r.poll(name, 20*time.Millisecond, w.add)
}

// poll asks for a flow again and again, over all lives of the node, until the
// test ends.
func (r *rig) poll(name string, every time.Duration, see func(*api.Flow)) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			asking, cancel := context.WithTimeout(ctx, time.Second)
			if f, err := r.client.Flow(asking, "", name); err == nil {
				see(f)
			}
			cancel()
		}
	}()
	r.t.Cleanup(func() { cancel(); <-done })
}

func (w *watermarks) add(f *api.Flow) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if f.UID != w.uid { // another flow of that name
		w.uid = f.UID
		clear(w.marks)
	}
	w.seen++
	for _, p := range f.Partitions {
		before, ok := w.marks[p.Partition]
		if ok && p.Committed < before {
			w.backward = append(w.backward, fmt.Sprintf("partition %d: %d after %d", p.Partition, p.Committed, before))
		}
		if p.Committed >= 0 {
			w.marks[p.Partition] = max(before, p.Committed)
		}
	}
}

func (w *watermarks) now() offsets {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.marks)
}

// check reports marks that went back.
func (w *watermarks) check(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seen == 0 {
		t.Error("no watermark was ever seen")
	}
	for _, b := range w.backward[:min(len(w.backward), 5)] {
		t.Errorf("a committed watermark went back: %s", b)
	}
}

// verdictOf judges and reports.
func verdictOf(t *testing.T, events []sent, outputs []output, failures []failure, cuts []cut, r rules) *verdict {
	t.Helper()
	v := judge(events, outputs, failures, cuts, r)
	t.Log(v)
	if v.emitted == 0 || v.dropped == 0 {
		t.Errorf("the load was none: %s", v)
	}
	if broken := v.broken(); len(broken) > 0 {
		t.Errorf("promises were broken: %s\n%s", strings.Join(broken, ", "), strings.Join(slices.Concat(v.examples), "\n"))
	}
	return v
}
