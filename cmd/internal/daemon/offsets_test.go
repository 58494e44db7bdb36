package daemon

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/cmd/internal/api"
)

func reset(t *testing.T, d *Daemon, req api.OffsetsReset) (*api.OffsetsPlan, error) {
	t.Helper()
	req.Project, req.Name = "default", "push"
	return d.ResetOffsets(t.Context(), &req)
}

// carryOut plans a reset and carries it out.
func carryOut(t *testing.T, d *Daemon, req api.OffsetsReset) *api.OffsetsPlan {
	t.Helper()
	dry := req
	dry.DryRun = true
	plan, err := reset(t, d, dry)
	if err != nil {
		t.Fatal(err)
	}
	req.Hash = plan.Hash
	done, err := reset(t, d, req)
	if err != nil {
		t.Fatal(err)
	}
	if done.Hash != plan.Hash || done.DryRun {
		t.Errorf("carried out %+v, planned %+v", done, plan)
	}
	return done
}

func TestOffsetsReset(t *testing.T) {
	broker := startBroker(t)
	p := startPartner(t, nil)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	cl := kafkaClient(t, broker.Addr())
	for i := range 20 {
		feed(t, cl, "in", "k", fmt.Sprint("v", i))
	}
	mustPut(t, d, &api.PutFlow{Document: pushing(p, "", "")})
	settled(t, d, "push", 20)
	at, err := d.Offsets(t.Context(), "default", "push")
	if err != nil || len(at.Partitions) != 4 || at.Partitions[0].Committed != 20 || at.Partitions[0].End != 20 || at.Partitions[0].Lag != 0 {
		t.Fatalf("offsets %+v, %v", at, err)
	}

	// A running flow is paused, moved, and goes on.
	plan := carryOut(t, d, api.OffsetsReset{To: "-5"})
	if plan.Repeated != 5 || plan.Skipped != 0 || plan.Generation != at.Generation+1 {
		t.Errorf("plan %+v", plan)
	}
	poll(t, "the repeated records", func() (bool, string) { n := len(p.got()); return n == 25, fmt.Sprint(n) })
	settled(t, d, "push", 20)
	got := p.got()
	if got[15].body != got[20].body || got[15].key == got[20].key {
		t.Errorf("repeated %q with key %s, before %q with %s", got[20].body, got[20].key, got[15].body, got[15].key)
	}
	if a := accounted(t, d, "push"); a.Read != 25 || a.Delivered != 25 {
		t.Errorf("receipt %+v", a)
	}

	setState(t, d, "push", api.StatePaused)
	carryOut(t, d, api.OffsetsReset{Positions: []api.OffsetTarget{{Partition: 0, Offset: 18}}})
	if f := status(t, d, "push"); f.State != api.StatePaused {
		t.Errorf("the flow is %s after its reset", f.State)
	}
	setState(t, d, "push", api.StateRunning)
	poll(t, "two records", func() (bool, string) { n := len(p.got()); return n == 27, fmt.Sprint(n) })
	setState(t, d, "push", api.StatePaused)
	if plan = carryOut(t, d, api.OffsetsReset{To: api.OffsetsEarliest}); plan.Repeated != 20 {
		t.Errorf("to the earliest: %+v", plan)
	}
	feed(t, cl, "in", "k", "new")
	if plan = carryOut(t, d, api.OffsetsReset{To: api.OffsetsLatest}); plan.Skipped != 21 {
		t.Errorf("to the latest: %+v", plan)
	}
	if plan, err = reset(t, d, api.OffsetsReset{To: "2001-01-01T00:00:00Z", DryRun: true}); err != nil || plan.Partitions[0].To != 0 {
		t.Errorf("to a time: %+v, %v", plan, err)
	}
	if plan, err = reset(t, d, api.OffsetsReset{Positions: []api.OffsetTarget{{Partition: 0, Offset: 999}}, DryRun: true}); err != nil || plan.Partitions[0].To != 21 || plan.Partitions[0].Note == "" {
		t.Errorf("beyond the end: %+v, %v", plan, err)
	}
	_, err = reset(t, d, api.OffsetsReset{To: api.OffsetsEarliest, Hash: "another"})
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != api.CodeConflict {
		t.Errorf("with the hash of another plan: %v", err)
	}
	for _, req := range []api.OffsetsReset{{}, {To: "yesterday"}, {To: "-5", Positions: []api.OffsetTarget{{}}}, {Positions: []api.OffsetTarget{{Partition: 9}}}, {Positions: []api.OffsetTarget{{Partition: 0, Offset: -1}}}} {
		req.DryRun = true
		_, err := reset(t, d, req)
		if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != api.CodeInvalid {
			t.Errorf("%+v: %v", req, err)
		}
	}
	setState(t, d, "push", api.StateRunning)
	settled(t, d, "push", 21)
	accounted(t, d, "push")
	if n := len(p.got()); n != 27 {
		t.Errorf("%d requests, want 27", n)
	}
}

// A flow that somebody pauses while its offsets are being reset stays paused.
func TestOffsetsResetLeavesAPauseAlone(t *testing.T) {
	broker := startBroker(t)
	asked, answer := make(chan struct{}, 1), make(chan struct{})
	p := startPartner(t, func(received) (int, string) {
		asked <- struct{}{}
		<-answer
		return 200, ""
	})
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	feed(t, kafkaClient(t, broker.Addr()), "in", "k", "v")
	mustPut(t, d, &api.PutFlow{Document: pushing(p, "", "")})
	<-asked
	plan, err := reset(t, d, api.OffsetsReset{Positions: []api.OffsetTarget{{Partition: 0, Offset: 1}}, DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	type result struct {
		plan *api.OffsetsPlan
		err  error
	}
	done := make(chan result, 1)
	go func() {
		plan, err := reset(t, d, api.OffsetsReset{Positions: []api.OffsetTarget{{Partition: 0, Offset: 1}}, Hash: plan.Hash})
		done <- result{plan, err}
	}()
	poll(t, "the reset's own pause", func() (bool, string) {
		f := status(t, d, "push")
		return f.State == api.StatePaused && f.Reason == "its offsets are being reset", f.State + " " + f.Reason
	})
	if _, err := d.SetFlow(t.Context(), "default", "push", api.StatePaused); err != nil {
		t.Fatal(err)
	}
	close(answer)
	got := <-done
	if got.err != nil || len(got.plan.Warnings) == 0 || !strings.Contains(got.plan.Warnings[len(got.plan.Warnings)-1], "changed meanwhile") {
		t.Errorf("reset: %+v, %v", got.plan, got.err)
	}
	if f := status(t, d, "push"); f.State != api.StatePaused || f.Reason != "paused by hand" || f.Generation != plan.Generation {
		t.Errorf("the flow is %s: %s, generation %d, want %d", f.State, f.Reason, f.Generation, plan.Generation)
	}
}

// A pause by hand holds also where it comes between a reset's look at the flow
// and the reset's own pause or resumption.
func TestOffsetsResetPausesWhatItSaw(t *testing.T) {
	broker := startBroker(t)
	p := startPartner(t, nil)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	mustPut(t, d, &api.PutFlow{Document: pushing(p, "", "")})
	look := func() *state.Flow {
		f, err := d.findFlow("default", "push")
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	byHand := func() {
		t.Helper()
		if f := look(); f.State != state.Paused || f.Reason != "paused by hand" {
			t.Errorf("the flow is %s: %q", f.State, f.Reason)
		}
	}
	saw := look()
	setState(t, d, "push", api.StatePaused)
	if paused, err := d.hold(t.Context(), saw); err != nil || paused != nil {
		t.Errorf("held %+v, %v", paused, err)
	}
	byHand()
	setState(t, d, "push", api.StateRunning)
	paused, err := d.hold(t.Context(), look())
	if err != nil || paused == nil {
		t.Fatal("not held", err)
	}
	setState(t, d, "push", api.StatePaused)
	if on, err := d.goOn(t.Context(), paused); on || err != nil {
		t.Errorf("goes on %v, %v", on, err)
	}
	byHand()
}

// What lies in the queue of an older generation is delivered again when its
// record is read again, and counts once.
func TestOffsetsResetReadsFailedRecordsAgain(t *testing.T) {
	d, p := rejected(t, 3, "")
	p.set(nil)
	carryOut(t, d, api.OffsetsReset{To: api.OffsetsEarliest})
	poll(t, "all records again", func() (bool, string) { n := len(p.got()); return n == 1+4, fmt.Sprint(n) })
	settled(t, d, "push", 4)
	queued(t, d, "push", 3)
	if a := accounted(t, d, "push"); a.Read != 8 || a.Delivered != 5 || a.Filed != 3 {
		t.Errorf("receipt %+v", a)
	}
}

// Stages are changed in a running flow without opening it anew.
func TestStagesChangeInARunningFlow(t *testing.T) {
	broker := startBroker(t)
	p := startPartner(t, nil)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	cl := kafkaClient(t, broker.Addr())
	doc := func(stages string) string {
		return "flow: v1\nname: push\nsource: kafka://main/in\nstages:\n" + stages + "  - id: deliver\n    push: " + p.URL + "/x\n"
	}
	mustPut(t, d, &api.PutFlow{Document: doc("")})
	feed(t, cl, "in", "k", `{"a":1,"b":1}`)
	settled(t, d, "push", 1)
	f, err := d.store.Flow("default", "push")
	if err != nil {
		t.Fatal(err)
	}
	first := d.runner(f.ID)
	changes := []string{
		"  - id: one\n    filter: value.a != 2\n",
		"  - id: two\n    cleanup: { drop: [b] }\n  - id: one\n    filter: value.a != 2\n",
		"  - id: fork\n    branch:\n      - when: value.a == 4\n        stages:\n          - cleanup: { drop: [b] }\n      - else: drop\n",
		"",
	}
	for i, stages := range changes {
		plan := mustPut(t, d, &api.PutFlow{Document: doc(stages)})
		if plan.Action != "update" || len(plan.Changes) == 0 {
			t.Errorf("plan %+v", plan)
		}
		poll(t, "the change is taken up", func() (bool, string) {
			pipe := first.pipe.Load()
			return pipe.Adopted(uint32(i + 2)), first.problem()
		})
		feed(t, cl, "in", "k", fmt.Sprintf(`{"a":%d,"b":1}`, i+2))
		settled(t, d, "push", int64(i+2))
	}
	if d.runner(f.ID) != first {
		t.Error("the flow was opened anew")
	}
	want := []string{`{"a":1,"b":1}`, `{"a":3}`, `{"a":4}`, `{"a":5,"b":1}`}
	if got := p.bodies(); strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("delivered %q, want %q", got, want)
	}
	if a := accounted(t, d, "push"); a.Dropped["one"] != 1 || a.Delivered != 4 {
		t.Errorf("receipt %+v", a)
	}

	// Back to the revision with the branch.
	plan, err := d.Rollback(t.Context(), &api.Rollback{Project: "default", Name: "push", Revision: 4})
	if err != nil || plan.From != 4 || plan.Revision != 6 || plan.Action != "update" {
		t.Fatalf("rollback %+v, %v", plan, err)
	}
	poll(t, "the rollback is taken up", func() (bool, string) { return first.pipe.Load().Adopted(6), first.problem() })
	feed(t, cl, "in", "k", `{"a":6}`)
	settled(t, d, "push", 6)
	if got := p.bodies(); len(got) != 4 {
		t.Errorf("after the rollback %q", got)
	}
	if _, err := d.Rollback(t.Context(), &api.Rollback{Project: "default", Name: "push", Revision: 77}); err == nil {
		t.Error("rolled back to a revision that never was")
	}
	if plan, err = d.Rollback(t.Context(), &api.Rollback{Project: "default", Name: "push", DryRun: true}); err != nil || plan.From != 5 {
		t.Errorf("plan of a rollback %+v, %v", plan, err)
	}
}

// Another delivery cannot be swapped in: the flow opens anew, and loses
// nothing.
func TestDeliveryChangesInARunningFlow(t *testing.T) {
	broker := startBroker(t)
	p, q := startPartner(t, nil), startPartner(t, nil)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	cl := kafkaClient(t, broker.Addr())
	mustPut(t, d, &api.PutFlow{Document: pushing(p, "", "")})
	for i := range 100 {
		if i == 50 {
			mustPut(t, d, &api.PutFlow{Document: pushing(q, "", "")})
		}
		feed(t, cl, "in", "k", fmt.Sprint("v", i))
	}
	settled(t, d, "push", 100)
	seen := map[string]bool{}
	for _, b := range append(p.bodies(), q.bodies()...) {
		seen[b] = true
	}
	if len(seen) != 100 || len(q.bodies()) < 50 {
		t.Errorf("%d records, %d of them at the second partner", len(seen), len(q.bodies()))
	}
	accounted(t, d, "push")
}

// The lag of a flow whose brokers are away is not known: what it was when they
// went is not told as what it is.
func TestLagWhileBrokersAreAway(t *testing.T) {
	broker := startBroker(t)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	feed(t, kafkaClient(t, broker.Addr()), "in", "k", "v")
	mustPut(t, d, &api.PutFlow{Document: "flow: v1\nname: lagging\nsource: kafka://main/in\nstages:\n  - push: { file: { path: " + t.TempDir() + "/out } }\n"})
	poll(t, "the lag to be known", func() (bool, string) {
		f := status(t, d, "lagging")
		return f.Lag == 0 && f.Partitions[0].End >= 0, fmt.Sprint(f.Lag)
	})
	if err := broker.Close(); err != nil {
		t.Fatal(err)
	}
	poll(t, "the lag to be unknown", func() (bool, string) {
		f := status(t, d, "lagging")
		return f.Lag == -1 && f.Partitions[0].End == -1 && f.Problem != "", fmt.Sprintf("lag %d, problem %q", f.Lag, f.Problem)
	})
}
