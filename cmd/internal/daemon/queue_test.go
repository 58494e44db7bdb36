package daemon

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/runtime/record"
)

// rejecting answers 400 to bodies that begin with no.
func rejecting(r received) (int, string) {
	if strings.HasPrefix(r.body, `{"no"`) {
		return 400, "no"
	}
	return 200, ""
}

func failures(t *testing.T, d *Daemon, f api.FailureFilter) *api.FailurePage {
	t.Helper()
	page, err := d.Failures(t.Context(), &api.FailureQuery{Project: "default", Name: "push", FailureFilter: f})
	if err != nil {
		t.Fatal(err)
	}
	return page
}

// rejected makes a flow with n entries in its queue, of keys k0 to k2.
func rejected(t *testing.T, n int, head string) (*Daemon, *partnerServer) {
	t.Helper()
	broker := startBroker(t)
	p := startPartner(t, rejecting)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	cl := kafkaClient(t, broker.Addr())
	for i := range n {
		feed(t, cl, "in", fmt.Sprint("k", i%3), fmt.Sprintf(`{"no":%d}`, i))
	}
	feed(t, cl, "in", "k", `{"yes":1}`)
	mustPut(t, d, &api.PutFlow{Document: pushing(p, head, "")})
	queued(t, d, "push", uint64(n))
	settled(t, d, "push", int64(n+1))
	return d, p
}

func TestQueueFilters(t *testing.T) {
	d, _ := rejected(t, 6, "")
	one := "k1"
	for _, c := range []struct {
		name string
		f    api.FailureFilter
		want int
	}{
		{"all", api.FailureFilter{}, 6},
		{"class", api.FailureFilter{Class: "rejected"}, 6},
		{"another class", api.FailureFilter{Class: "trap"}, 0},
		{"stage", api.FailureFilter{Stage: "deliver"}, 6},
		{"key", api.FailureFilter{Key: &one}, 2},
		{"where value", api.FailureFilter{Where: "value.no >= 4"}, 2},
		{"where failure", api.FailureFilter{Where: `failure.code == 400 && failure.stage == "deliver" && failure.attempts == 1 && failure.plugin == nil`}, 6},
		{"where time", api.FailureFilter{Where: "failure.time > time"}, 6},
		{"since", api.FailureFilter{Since: time.Now().Add(time.Hour).UnixMilli()}, 0},
		{"until", api.FailureFilter{Until: time.Now().Add(time.Hour).UnixMilli()}, 6},
	} {
		if page := failures(t, d, c.f); len(page.Entries) != c.want || page.Total != 6 {
			t.Errorf("%s: %d entries of %d, want %d", c.name, len(page.Entries), page.Total, c.want)
		}
	}
	_, err := d.Failures(t.Context(), &api.FailureQuery{Project: "default", Name: "push", FailureFilter: api.FailureFilter{Where: "valu.no > 1"}})
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != api.CodeInvalid || !strings.Contains(e.Next, "value") {
		t.Errorf("a filter with a typo: %+v", err)
	}
	e := failures(t, d, api.FailureFilter{}).Entries[0]
	if x := e.Exchange; x == nil || x.Status != 400 || string(x.ResponseBody) != "no" || string(x.RequestBody) != string(e.Input.Value) || x.Method != "POST" {
		t.Errorf("exchange %+v", x)
	}
	if len(e.History) != 1 || e.History[0].Code != 400 {
		t.Errorf("history %+v", e.History)
	}
}

func TestQueueReplayAndDrop(t *testing.T) {
	d, p := rejected(t, 6, "")
	one := "k1"
	report, err := d.ReplayFailures(t.Context(), &api.ReplayFailures{Project: "default", Name: "push", Selection: api.Selection{Filter: &api.FailureFilter{Key: &one}}, DryRun: true})
	if err != nil || report.Replayed != 2 || report.Skipped != 0 {
		t.Fatalf("dry run: %+v, %v", report, err)
	}
	queued(t, d, "push", 6)

	// What still cannot be delivered comes back to the queue.
	if report, err = d.ReplayFailures(t.Context(), &api.ReplayFailures{Project: "default", Name: "push", Selection: api.Selection{Filter: &api.FailureFilter{Key: &one}}}); err != nil || report.Replayed != 2 {
		t.Fatalf("replay: %+v, %v", report, err)
	}
	poll(t, "they are tried again", func() (bool, string) { n := len(p.all()); return n == 9, fmt.Sprint(n) })
	queued(t, d, "push", 6)
	for _, e := range failures(t, d, api.FailureFilter{Key: &one}).Entries {
		if e.Requeues != 1 || e.Attempts != 1 {
			t.Errorf("entry %+v", e)
		}
	}

	p.set(nil)
	report, err = d.ReplayFailures(t.Context(), &api.ReplayFailures{Project: "default", Name: "push", Selection: api.Selection{Seqs: []uint64{failures(t, d, api.FailureFilter{Where: "value.no == 0"}).Entries[0].Seq, 999}}, Plugin: api.ReplayFailed})
	if err != nil || report.Replayed != 1 || report.Skipped != 1 || report.Problems[0].Seq != 999 {
		t.Fatalf("replay by number: %+v, %v", report, err)
	}
	queued(t, d, "push", 5)
	dropped, err := d.DropFailures(t.Context(), &api.DropFailures{Project: "default", Name: "push", Selection: api.Selection{Filter: &api.FailureFilter{Where: "value.no == 2"}}})
	if err != nil || dropped.Dropped != 1 {
		t.Fatalf("drop: %+v, %v", dropped, err)
	}
	if report, err = d.ReplayFailures(t.Context(), &api.ReplayFailures{Project: "default", Name: "push", Selection: api.Selection{All: true, Limit: 3}}); err != nil || report.Replayed != 3 {
		t.Fatalf("replay of three: %+v, %v", report, err)
	}
	queued(t, d, "push", 1)
	keptIs(t, d, "push", 0)
	if a := accounted(t, d, "push"); a.Delivered != 5 || a.Dropped[state.DroppedQueue] != 1 || a.Filed != 1 || a.Read != 7 {
		t.Errorf("receipt %+v", a)
	}
	_, err = d.ReplayFailures(t.Context(), &api.ReplayFailures{Project: "default", Name: "push", Selection: api.Selection{All: true}, Plugin: "sha256:" + strings.Repeat("0", 64)})
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != api.CodeNotFound {
		t.Errorf("replay through a plugin that is not stored: %v", err)
	}
}

func TestQueueExportAndImport(t *testing.T) {
	d, _ := rejected(t, 4, "")
	page := failures(t, d, api.FailureFilter{})
	var file bytes.Buffer
	for _, e := range page.Entries {
		line, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		file.Write(append(line, '\n'))
	}
	exported := file.String()
	seqs := []uint64{page.Entries[0].Seq, page.Entries[1].Seq}
	if _, err := d.DropFailures(t.Context(), &api.DropFailures{Project: "default", Name: "push", Selection: api.Selection{Seqs: seqs}}); err != nil {
		t.Fatal(err)
	}
	report, err := d.ImportFailures(t.Context(), "default", "push", strings.NewReader(exported))
	if err != nil || report.Filed != 2 || report.Present != 2 {
		t.Fatalf("import: %+v, %v", report, err)
	}
	queued(t, d, "push", 4)
	if _, err := d.ImportFailures(t.Context(), "default", "push", strings.NewReader(exported+"{}\n")); err == nil || !strings.Contains(err.Error(), "line 5") {
		t.Errorf("import of what is no entry: %v", err)
	}
	if _, err := d.ImportFailures(t.Context(), "default", "push", strings.NewReader(strings.ReplaceAll(exported, `"topic":"in"`, `"topic":"other"`))); err == nil || !strings.Contains(err.Error(), "does not read") {
		t.Errorf("import of another flow's entries: %v", err)
	}
	accounted(t, d, "push")
}

func TestRequeueTakesEntriesBack(t *testing.T) {
	d, p := rejected(t, 3, "requeue: { every: 1s, at_most: 2 }\n")
	poll(t, "both requeues", func() (bool, string) { n := len(p.all()); return n == 4+2*3, fmt.Sprint(n) })
	queued(t, d, "push", 3)
	for _, e := range failures(t, d, api.FailureFilter{}).Entries {
		if e.Requeues != 2 {
			t.Errorf("entry %d went back %d times", e.Seq, e.Requeues)
		}
	}
	accounted(t, d, "push")
}

// A queue that is full pauses the flow; entries that are too old are dropped,
// and counted. Both are told before.
func TestQueueBoundsAndRetention(t *testing.T) {
	broker := startBroker(t)
	p := startPartner(t, rejecting)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	cl := kafkaClient(t, broker.Addr())
	mustPut(t, d, &api.PutFlow{Document: pushing(p, "queue: { keep: 3s, entries: 10 }\n", "")})
	for i := range 9 {
		feed(t, cl, "in", "k", fmt.Sprintf(`{"no":%d}`, i))
	}
	poll(t, "the warnings", func() (bool, string) {
		q := status(t, d, "push").Queue
		return q.MaxEntries == 10 && q.KeepMillis == 3000 && contains(q.Warnings, "9 of 10 entries"), fmt.Sprintf("%+v", q)
	})
	feed(t, cl, "in", "k", `{"no":9}`)
	poll(t, "the pause", func() (bool, string) {
		f := status(t, d, "push")
		return f.State == api.StateAutoPaused && strings.Contains(f.Reason, "10 of 10 entries") && f.Held == nil, f.State + " " + f.Reason
	})
	queued(t, d, "push", 0)
	if a := accounted(t, d, "push"); a.Dropped[state.DroppedExpired] != 10 || a.Read != 10 {
		t.Errorf("receipt %+v", a)
	}
	if f := status(t, d, "push"); f.Queue.Oldest != 0 || len(f.Queue.Warnings) != 0 {
		t.Errorf("queue %+v", f.Queue)
	}
}

func TestPauseAtAndResumeAt(t *testing.T) {
	broker := startBroker(t)
	p := startPartner(t, rejecting)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	cl := kafkaClient(t, broker.Addr())
	mustPut(t, d, &api.PutFlow{Document: pushing(p, "limits: { pause_at: 10, resume_at: 2, in_flight: 4 }\n", "")})
	more := func(from, to int) {
		var pairs []string
		for i := from; i < to; i++ {
			pairs = append(pairs, fmt.Sprint("k", i), fmt.Sprintf(`{"no":%d}`, i))
		}
		feed(t, cl, "in", pairs...)
	}
	more(0, 20)
	poll(t, "the flow holds itself back", func() (bool, string) {
		f := status(t, d, "push")
		return f.Held != nil && strings.Contains(f.Reason, "goes on at 2"), f.State + " " + f.Reason
	})
	more(20, 400)
	poll(t, "what was under way is filed and the rest waits in its topic", func() (bool, string) {
		a, lag := accounted(t, d, "push"), status(t, d, "push").Lag
		return a.Flying == 0 && a.Filed == a.Read && a.Read <= 20 && lag+a.Read == 400, fmt.Sprintf("%+v, lag %d", a, lag)
	})
	p.set(nil)
	if _, err := d.ReplayFailures(t.Context(), &api.ReplayFailures{Project: "default", Name: "push", Selection: api.Selection{All: true}}); err != nil {
		t.Fatal(err)
	}
	p.awaitTaken(t, 400)
	poll(t, "the flow goes on", func() (bool, string) { f := status(t, d, "push"); return f.Held == nil, f.Reason })
	settled(t, d, "push", 400)
	if f := status(t, d, "push"); f.AutoPauses["pause_at"] == 0 {
		t.Errorf("pauses %v", f.AutoPauses)
	}
}

// Entries go back through another plugin than the stage's own, once.
func TestReplayThroughAnotherPlugin(t *testing.T) {
	broker := startBroker(t)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	digest := upload(t, d, "../../../examples/orders/orders.wasm")
	pass := upload(t, d, "../../../plugins/plugintest/guests/pass/pass.wasm")
	mustPut(t, d, &api.PutFlow{Document: strings.Replace(ordersFlow, "name: orders", "name: push", 1), Files: map[string]string{"./orders.wasm": digest}})
	cl := kafkaClient(t, broker.Addr())
	failed := []string{"no order 1", "no order 2", "no order 3"}
	for _, v := range failed {
		feed(t, cl, "orders", "k", v)
	}
	queued(t, d, "push", 3)
	settled(t, d, "push", 3)
	before := accounted(t, d, "push")
	report, err := d.ReplayFailures(t.Context(), &api.ReplayFailures{Project: "default", Name: "push", Selection: api.Selection{All: true, Limit: 2}, Plugin: api.ReplayFailed})
	if err != nil || report.Replayed != 2 {
		t.Fatalf("replay as it failed: %+v, %v", report, err)
	}
	poll(t, "they are back", func() (bool, string) {
		n := 0
		for _, e := range failures(t, d, api.FailureFilter{}).Entries {
			n += int(e.Requeues)
		}
		return n == 2, fmt.Sprint(n)
	})
	report, err = d.ReplayFailures(t.Context(), &api.ReplayFailures{Project: "default", Name: "push", Selection: api.Selection{All: true}, Plugin: pass})
	if err != nil || report.Replayed != uint64(len(failed)) {
		t.Fatalf("replay through another: %+v, %v", report, err)
	}
	queued(t, d, "push", 0)
	poll(t, "they are delivered", func() (bool, string) {
		a := accounted(t, d, "push")
		return a.Delivered == before.Delivered+int64(len(failed)) && a.Kept == 0, fmt.Sprintf("%+v", a)
	})
	// The stage itself runs its own plugin still.
	if got := consume(t, broker.Addr(), "orders-out", 3); len(got) != 3 || !strings.HasPrefix(string(got[0].Value), "no order") {
		t.Errorf("delivered %+v", got)
	}
	feed(t, cl, "orders", "k", "no order 4")
	queued(t, d, "push", 1)
}

// A large queue goes in commands of bounded size; one that is interrupted leaves
// the flow paused and its receipt right.
func TestLargeQueuesAreDeletedInParts(t *testing.T) {
	broker := startBroker(t)
	p := startPartner(t, rejecting)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	mustPut(t, d, &api.PutFlow{Document: pushing(p, "", "")})
	cl := kafkaClient(t, broker.Addr())
	feed(t, cl, "in", "k", `{"no":0}`)
	queued(t, d, "push", 1)
	e := failures(t, d, api.FailureFilter{}).Entries[0]
	e.Input.Partition = 0
	id := flowID(t, d)
	const n = 2*state.MaxExpire + 100
	var imported []state.ImportEntry
	for i := range int64(n) {
		x := *e
		x.Input.Path = record.Path(binary.BigEndian.AppendUint16(nil, uint16(i+1)))
		imported = append(imported, state.ImportEntry{Entry: &x})
	}
	res, err := d.queueOp(t.Context(), &state.QueueImport{Flow: id, Entries: imported})
	if err != nil || res.Done != n {
		t.Fatalf("%+v, %v", res, err)
	}
	first := endsWhen{t.Context(), func() bool {
		q, err := d.store.QueueStats(id)
		if err != nil {
			t.Error(err)
		}
		return q.Entries <= n+1-state.MaxExpire
	}}
	err = d.DeleteFlow(first, "default", "push", true)
	if err == nil || !strings.Contains(err.Error(), "flow default/push is not deleted yet, and 1000 of its entries are gone") {
		t.Errorf("interrupted: %v", err)
	}
	f := status(t, d, "push")
	if f.State != api.StatePaused || f.Reason != "it is being deleted" || f.Queue.Entries != n+1-state.MaxExpire {
		t.Errorf("%s %s, queue %+v", f.State, f.Reason, f.Queue)
	}
	if a := accounted(t, d, "push"); a.Dropped[state.DroppedQueue] != state.MaxExpire {
		t.Errorf("receipt %+v", a)
	}
	if err := d.DeleteFlow(t.Context(), "default", "push", true); err != nil {
		t.Fatal(err)
	}
	if _, err := d.findFlow("default", "push"); err == nil {
		t.Error("the flow is still there")
	}
	if kept, computed, err := d.store.VerifyHash(); err != nil || kept != computed {
		t.Errorf("hash %x, computed %x, %v", kept, computed, err)
	}
}

// endsWhen is a context that has ended as soon as ended says so.
type endsWhen struct {
	context.Context
	ended func() bool
}

func (c endsWhen) Err() error {
	if c.ended() {
		return context.Canceled
	}
	return c.Context.Err()
}

// Entries are read in pages of bounded size, and dropped by as many commands.
func TestLargeEntriesAreSelectedInSmallPages(t *testing.T) {
	broker := startBroker(t)
	p := startPartner(t, rejecting)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	mustPut(t, d, &api.PutFlow{Document: pushing(p, "", "")})
	cl := kafkaClient(t, broker.Addr())
	const n = 24
	for i := range n {
		feed(t, cl, "in", fmt.Sprint("k", i), `{"no":"`+strings.Repeat("x", 900_000)+`"}`)
	}
	queued(t, d, "push", n)
	f, err := d.findFlow("default", "push")
	if err != nil {
		t.Fatal(err)
	}
	var seqs []uint64
	pages := func(sel *api.Selection) (most, all int) {
		if err := d.selected(f, sel, func(page []*record.Entry) error {
			most, all = max(most, len(page)), all+len(page)
			for _, e := range page {
				seqs = append(seqs, e.Seq)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return most, all
	}
	if most, all := pages(&api.Selection{All: true}); most > 10 || all != n {
		t.Errorf("%d entries of 0.9 MB, up to %d at once", all, most)
	}
	if most, all := pages(&api.Selection{Seqs: slices.Clone(seqs)}); most > 10 || all != n {
		t.Errorf("%d entries of 0.9 MB by number, up to %d at once", all, most)
	}
	rep, err := d.DropFailures(t.Context(), &api.DropFailures{Project: "default", Name: "push", Selection: api.Selection{All: true}})
	if err != nil || rep.Dropped != n {
		t.Errorf("%+v, %v", rep, err)
	}
	queued(t, d, "push", 0)
}
