package daemon

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/api"
)

// Records that cannot be delivered move into the state, survive the death of
// the node's life, and are delivered when they are due.
func TestKeptRecordsAreDeliveredAfterARestart(t *testing.T) {
	broker := startBroker(t)
	bad := func(r received) (int, string) {
		if strings.HasPrefix(r.body, "bad") {
			return 503, "later"
		}
		return 200, ""
	}
	p := startPartner(t, bad)
	dir := t.TempDir()
	d, stop := life(t, dir)
	connect(t, d, broker.Addr())
	cl := kafkaClient(t, broker.Addr())
	feed(t, cl, "in", "a", "good-1", "b", "bad-1", "a", "good-2", "b", "bad-2", "c", "good-3")
	mustPut(t, d, &api.PutFlow{Document: pushing(p, "", "    retry: { first: 20ms, max: 100ms, spill: 50ms }\n")})
	keptIs(t, d, "push", 2)
	settled(t, d, "push", 5)
	page, err := d.Retries(t.Context(), &api.RetryQuery{Project: "default", Name: "push"})
	if err != nil || len(page.Entries) != 2 || page.Total != 2 {
		t.Fatalf("kept: %+v, %v", page, err)
	}
	if e := page.Entries[0]; e.Stage != "deliver" || e.Class != "retryable" || e.Attempts == 0 || !strings.Contains(string(e.Record), "bad-1") {
		t.Errorf("the first kept record: %+v", e)
	}
	if e := page.Entries[1]; !e.Held || e.Attempts != 0 {
		t.Errorf("the record behind it: %+v", e)
	}
	stop()
	d, stop = life(t, dir)
	defer stop()
	keptIs(t, d, "push", 2)
	p.set(nil)
	keptIs(t, d, "push", 0)
	if got := p.bodies(); slices.Index(got, "bad-1") > slices.Index(got, "bad-2") || len(got) != 5 {
		t.Errorf("delivered %q", got)
	}
	keys := map[string]string{}
	for _, r := range p.all() {
		if was, ok := keys[r.body]; ok && was != r.key {
			t.Errorf("record %s has keys %s and %s", r.body, was, r.key)
		}
		keys[r.body] = r.key
	}
	if a := accounted(t, d, "push"); a.Read != 5 || a.Delivered != 5 || a.Kept != 0 {
		t.Errorf("receipt %+v", a)
	}
}

// One bad key does not hold up the others, and its records arrive in order
// once it heals.
func TestABadKeyIsParkedWhileOthersGoOn(t *testing.T) {
	broker := startBroker(t)
	p := startPartner(t, func(r received) (int, string) {
		if strings.HasPrefix(r.body, "bad") {
			return 503, ""
		}
		return 200, ""
	})
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	cl := kafkaClient(t, broker.Addr())
	var pairs []string
	for i := range 200 {
		if i%10 == 3 {
			pairs = append(pairs, "bad", fmt.Sprintf("bad-%03d", i))
		} else {
			pairs = append(pairs, fmt.Sprint("key-", i%7), fmt.Sprintf("good-%03d", i))
		}
	}
	feed(t, cl, "in", pairs...)
	mustPut(t, d, &api.PutFlow{Document: pushing(p, "order: key\n", "    retry: { first: 20ms, max: 100ms, spill: 50ms }\n")})
	p.awaitTaken(t, 180)
	keptIs(t, d, "push", 20)
	settled(t, d, "push", 200)
	p.set(nil)
	keptIs(t, d, "push", 0)
	var bad []string
	last := map[string]string{}
	for _, r := range p.got() {
		if strings.HasPrefix(r.body, "bad") {
			bad = append(bad, r.body)
		}
		_ = last
	}
	if len(bad) != 20 || !slices.IsSorted(bad) {
		t.Errorf("records of the bad key: %q", bad)
	}
	if a := accounted(t, d, "push"); a.Delivered != 200 || a.Flying != 0 {
		t.Errorf("receipt %+v", a)
	}
}

// A flow whose partner is down holds itself back without keeping anything, and
// goes on by itself.
func TestAutoPauseAndResume(t *testing.T) {
	broker := startBroker(t)
	p := startPartner(t, func(received) (int, string) { return 500, "" })
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	if _, err := d.PutConnection(t.Context(), &api.PutConnection{Document: "connection: v1\nname: partner\nhttp: { base: " + p.URL + ", breaker: { failures: 3, probe: 200ms } }\n"}); err != nil {
		t.Fatal(err)
	}
	cl := kafkaClient(t, broker.Addr())
	for i := range 50 {
		feed(t, cl, "in", fmt.Sprint("k", i), fmt.Sprint("v", i))
	}
	mustPut(t, d, &api.PutFlow{Document: "flow: v1\nname: push\nsource: kafka://main/in\nstages:\n  - push: { http: { connection: partner, post: /x } }\n    retry: { first: 10ms, max: 50ms }\n"})
	poll(t, "the flow holds itself back", func() (bool, string) {
		f := status(t, d, "push")
		return f.State == api.StateAutoPaused && f.Held != nil && strings.Contains(f.Reason, "partner"), f.State + " " + f.Reason
	})
	if f := status(t, d, "push"); f.Retries != nil || len(f.Connections) != 1 || f.Connections[0].Breaker.State == api.BreakerClosed || f.AutoPauses["breaker"] != 1 {
		t.Errorf("while the partner is down: kept %+v, connections %+v, pauses %v", f.Retries, f.Connections, f.AutoPauses)
	}
	if c, err := d.Connection(t.Context(), "partner"); err != nil || c.Usage == nil {
		t.Errorf("connection %+v, %v", c, err)
	}
	p.set(func(received) (int, string) { return 502, "" })
	poll(t, "the flow says what its last attempt met", func() (bool, string) {
		f := status(t, d, "push")
		return strings.Contains(f.Problem, "now: ") && strings.Contains(f.Problem, "502") && strings.Contains(f.Reason, "502"), f.Problem + " / " + f.Reason
	})
	p.set(nil)
	p.awaitTaken(t, 50)
	settled(t, d, "push", 50)
	poll(t, "the flow goes on", func() (bool, string) {
		f := status(t, d, "push")
		return f.State == api.StateRunning && f.Held == nil, f.State
	})
	accounted(t, d, "push")
}

// What is kept of a record that was not settled as a whole is not delivered
// again when the record is read once more.
func TestKeptEmissionOfARecordThatIsReadAgain(t *testing.T) {
	broker := startBroker(t)
	north := startPartner(t, func(received) (int, string) { return 503, "" })
	hang := make(chan struct{})
	south := startPartner(t, func(received) (int, string) { <-hang; return 200, "" })
	dir := t.TempDir()
	cfg := Config{Dir: dir, Logger: testLogger(t), DrainLimit: 200 * time.Millisecond}
	d, stop := lifeWith(t, cfg)
	connect(t, d, broker.Addr())
	feed(t, kafkaClient(t, broker.Addr()), "in", "k", `{"a":1}`)
	mustPut(t, d, &api.PutFlow{Document: `flow: v1
name: push
source: kafka://main/in
stages:
  - id: both
    every: true
    branch:
      - when: "true"
        stages:
          - id: north
            push: ` + north.URL + `/n
            retry: { first: 10ms, max: 20ms, spill: 20ms }
      - when: "true"
        stages:
          - id: south
            push: ` + south.URL + `/s
      - else: drop
`})
	keptIs(t, d, "push", 1)
	stop()
	close(hang)
	d, stop = lifeWith(t, cfg)
	defer stop()
	settled(t, d, "push", 1)
	keptIs(t, d, "push", 1)
	north.set(nil)
	keptIs(t, d, "push", 0)
	if got := north.got(); len(got) != 1 || !strings.HasSuffix(got[0].key, "/in/0/0#0") {
		t.Errorf("north got %+v", got)
	}
	if a := accounted(t, d, "push"); a.Known != 1 || a.Delivered != 2 || a.Kept != 0 || a.Flying != 0 {
		t.Errorf("receipt %+v", a)
	}
}
