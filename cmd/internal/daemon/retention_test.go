package daemon

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

const dropOldest = "order: partition\nqueue: { entries: 5, when_full: drop_oldest }\n"

// spread writes n records that the partner refuses over the partitions of a
// topic, by turns.
func spread(t *testing.T, cl *kgo.Client, from, n int) {
	t.Helper()
	for i := from; i < from+n; i++ {
		r := &kgo.Record{Topic: "in", Partition: int32(i % 4), Key: []byte("k"), Value: fmt.Appendf(nil, `{"no":%d}`, i)}
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

// largest watches a flow's queue until the returned function is called, which
// says the most entries that it held.
func largest(d *Daemon, id state.FlowID) func() uint64 {
	var most atomic.Uint64
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(100 * time.Microsecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			if q, err := d.store.QueueStats(id); err == nil {
				most.Store(max(most.Load(), q.Entries))
			}
			<-tick.C
		}
	}()
	return func() uint64 {
		cancel()
		<-ended
		return most.Load()
	}
}

func flowID(t *testing.T, d *Daemon) state.FlowID {
	t.Helper()
	f, err := d.findFlow("default", "push")
	if err != nil {
		t.Fatal(err)
	}
	return f.ID
}

// A flow that drops its oldest entries goes on at the bound, with the entries
// that were filed last, of whatever partition; and its receipt says how many
// went.
func TestFullQueuesDropTheOldest(t *testing.T) {
	broker := startBroker(t)
	p := startPartner(t, rejecting)
	d, _ := lifeWith(t, Config{Dir: t.TempDir(), Logger: testLogger(t), houseEvery: time.Hour})
	connect(t, d, broker.Addr())
	cl := kafkaClient(t, broker.Addr())
	mustPut(t, d, &api.PutFlow{Document: pushing(p, dropOldest, "")})
	id := flowID(t, d)
	most := largest(d, id)
	spread(t, cl, 0, 4)
	settled(t, d, "push", 4)
	if w := status(t, d, "push").Queue.Warnings; len(w) != 1 || w[0] != "the queue holds 4 of 5 entries: the oldest entries are dropped when it is full" {
		t.Errorf("warnings at 80 %%: %q", w)
	}
	spread(t, cl, 4, 40)
	settled(t, d, "push", 44)
	queued(t, d, "push", 5)
	spread(t, cl, 44, 1)
	settled(t, d, "push", 45)
	queued(t, d, "push", 5)
	if n := most(); n > 5+44 {
		t.Errorf("the queue held %d entries", n)
	}
	e := failures(t, d, api.FailureFilter{}).Entries
	if !slices.IsSortedFunc(e, func(a, b *record.Entry) int { return int(a.Seq) - int(b.Seq) }) || e[4].Seq != 45 || e[0].Seq != 41 || string(e[4].Input.Value) != `{"no":44}` {
		t.Errorf("entries %d to %d, the last one of %s", e[0].Seq, e[4].Seq, e[4].Input.Value)
	}
	if a := accounted(t, d, "push"); a.Read != 45 || a.Filed != 5 || a.Dropped[state.DroppedOldest] != 40 || a.Drops() != 40 {
		t.Errorf("receipt %+v", a)
	}
	f := status(t, d, "push")
	if f.State != api.StateRunning || f.Queue.WhenFull != string(flow.WhenFullDropOldest) {
		t.Errorf("state %s %s, queue %+v", f.State, f.Reason, f.Queue)
	}
	shown := httptest.NewRecorder()
	d.metrics.handler().ServeHTTP(shown, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, line := range []string{`millrace_receipt_dropped_records{flow="default/push",reason="oldest"} 40`, `millrace_failure_queue_used_ratio{bound="entries",flow="default/push"} 1`} {
		if !strings.Contains(shown.Body.String(), line) {
			t.Errorf("no %s in\n%s", line, grepLines(shown.Body.String(), "default/push"))
		}
	}

	// Imported entries go in as any others do.
	var file strings.Builder
	for _, x := range e[:2] {
		file.WriteString(jsonOf(t, x) + "\n")
	}
	if _, err := d.DropFailures(t.Context(), &api.DropFailures{Project: "default", Name: "push", Selection: api.Selection{Seqs: []uint64{e[0].Seq, e[1].Seq}}}); err != nil {
		t.Fatal(err)
	}
	spread(t, cl, 45, 1)
	settled(t, d, "push", 46)
	if rep, err := d.ImportFailures(t.Context(), "default", "push", strings.NewReader(file.String())); err != nil || rep.Filed != 2 {
		t.Fatalf("%+v, %v", rep, err)
	}
	queued(t, d, "push", 5)
	if e := failures(t, d, api.FailureFilter{}).Entries; e[0].Seq != 44 || e[4].Seq != 48 {
		t.Errorf("entries %d to %d", e[0].Seq, e[4].Seq)
	}
}

// A node that was killed between filing and dropping drops first, before it
// files more; a flow that is given a lower bound drops without filing.
func TestOverfullQueuesAreTrimmedFirst(t *testing.T) {
	broker := startBroker(t)
	p := startPartner(t, rejecting)
	dir := t.TempDir()
	d, stop := lifeWith(t, Config{Dir: dir, Logger: testLogger(t), houseEvery: time.Hour})
	connect(t, d, broker.Addr())
	cl := kafkaClient(t, broker.Addr())
	spread(t, cl, 0, 40)
	mustPut(t, d, &api.PutFlow{Document: pushing(p, "order: partition\n", "")})
	queued(t, d, "push", 40)
	settled(t, d, "push", 40)
	mustPut(t, d, &api.PutFlow{Document: pushing(p, dropOldest, "")})
	stop()

	d, stop = lifeWith(t, Config{Dir: dir, Logger: testLogger(t), houseEvery: time.Hour})
	most := largest(d, flowID(t, d))
	if f := status(t, d, "push"); f.Queue.Entries != 40 || f.State != api.StateRunning {
		t.Fatalf("%+v, %s", f.Queue, f.State)
	}
	spread(t, cl, 40, 3)
	settled(t, d, "push", 43)
	queued(t, d, "push", 5)
	if n := most(); n != 40 {
		t.Errorf("the queue held %d entries, 40 before", n)
	}
	if a := accounted(t, d, "push"); a.Dropped[state.DroppedOldest] != 38 || a.Filed != 5 {
		t.Errorf("receipt %+v", a)
	}
	mustPut(t, d, &api.PutFlow{Document: pushing(p, "order: partition\nqueue: { entries: 2, when_full: drop_oldest }\n", "")})
	stop()

	d, _ = lifeWith(t, Config{Dir: dir, Logger: testLogger(t), houseEvery: 10 * time.Millisecond})
	queued(t, d, "push", 2)
	if a := accounted(t, d, "push"); a.Dropped[state.DroppedOldest] != 41 || a.Filed != 2 {
		t.Errorf("receipt %+v", a)
	}
}

// A full queue pauses a flow that says nothing, which goes on once it is to
// drop instead.
func TestPausedByAFullQueue(t *testing.T) {
	broker := startBroker(t)
	p := startPartner(t, rejecting)
	d, _ := lifeWith(t, Config{Dir: t.TempDir(), Logger: testLogger(t), houseEvery: time.Hour})
	connect(t, d, broker.Addr())
	spread(t, kafkaClient(t, broker.Addr()), 0, 12)
	mustPut(t, d, &api.PutFlow{Document: pushing(p, "order: partition\nqueue: { entries: 3 }\nlimits: { in_flight: 2 }\n", "")})
	poll(t, "the flow pauses", func() (bool, string) { f := status(t, d, "push"); return f.State == api.StateAutoPaused, f.State })
	if _, err := d.SetFlow(t.Context(), "default", "push", api.StateRunning); err == nil || !strings.Contains(err.Error(), "is full") {
		t.Errorf("start of a flow whose queue is full: %v", err)
	}
	mustPut(t, d, &api.PutFlow{Document: pushing(p, "order: partition\nqueue: { entries: 3, when_full: drop_oldest }\nlimits: { in_flight: 2 }\n", "")})
	if _, err := d.SetFlow(t.Context(), "default", "push", api.StateRunning); err != nil {
		t.Fatal(err)
	}
	settled(t, d, "push", 12)
	queued(t, d, "push", 3)
	if a := accounted(t, d, "push"); a.Dropped[state.DroppedOldest] != 9 {
		t.Errorf("receipt %+v", a)
	}
}

func TestRetention(t *testing.T) {
	full := state.QueueStats{Entries: 5, Bytes: 2 << 20}
	for _, c := range []struct {
		q            flow.Queue
		pauses, over bool
	}{
		{flow.Queue{}, false, false},
		{flow.Queue{Entries: 5}, true, false},
		{flow.Queue{Entries: 6}, false, false},
		{flow.Queue{Bytes: 2 << 20}, true, false},
		{flow.Queue{Entries: 5, WhenFull: flow.WhenFullDropOldest}, false, false},
		{flow.Queue{Entries: 4, WhenFull: flow.WhenFullDropOldest}, false, true},
		{flow.Queue{Bytes: 1 << 20, WhenFull: flow.WhenFullDropOldest}, false, true},
		{flow.Queue{WhenFull: flow.WhenFullDropOldest}, false, false},
	} {
		r := retentionOf(&flow.Flow{Queue: c.q})
		if r.pauses(full) != c.pauses || r.over(full) != c.over {
			t.Errorf("%+v: pauses %v, over %v", c.q, r.pauses(full), r.over(full))
		}
	}
	was := newTold(time.Minute)
	now := time.Now()
	if !was.due(1, now) || was.due(1, now.Add(59*time.Second)) || !was.due(2, now) || !was.due(1, now.Add(time.Minute)) {
		t.Error("told too often, or not at all")
	}
}
