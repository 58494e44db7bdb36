//go:build linux

package faulttest

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/api"
)

// A node that is told to stop finishes what is under way: the next life
// repeats nothing. It is ready soon, and its folder is its own.
func TestStoppedUnderLoad(t *testing.T) {
	r, f := ordersRig(t)
	rng := seeded(t)
	l := startLoad(t, r.source.addr, "orders", rng.Uint64(), loadRate)
	var cuts []cut
	for i := range 5 {
		pass(t.Context(), between(rng, 400*time.Millisecond, 1200*time.Millisecond))
		if i == 0 {
			r.refuseSecond()
		}
		arrived := f.count()
		stopping := time.Now()
		r.stopNode()
		took := time.Since(stopping)
		c := cut{marks: r.watched.now(), ends: r.restingEnds(r.output, "orders-out")}
		cuts = append(cuts, c)
		ready := r.run()
		t.Logf("stop %d took %s, the node was ready again within %s", i+1, took.Round(time.Millisecond), ready.Round(time.Millisecond))
		if took > 5*time.Second {
			t.Errorf("a stop took %s", took)
		}
		if ready > 5*time.Second {
			t.Errorf("the node was ready after %s", ready)
		}
		await(t, 20*time.Second, "records to flow again", func() (bool, string) { return f.count() > arrived, "" })
	}
	v := r.finish(l, f, cuts, rules{})
	for life, n := range v.repeated {
		if n > 0 {
			t.Errorf("life %d repeated %d outputs of one that was stopped softly", life, n)
		}
	}
	r.stopNode()
}

// refuseSecond starts a second node on the data folder, which must not come
// up.
func (r *rig) refuseSecond() {
	r.t.Helper()
	second := start(r.t, "the second node", filepath.Join(r.dir, "second.log"), r.flowd, "run", "--data", r.data(), "--listen", freeAddr(r.t))
	if code := second.ended(r.t, 10*time.Second); code != 3 {
		r.t.Errorf("the second node on the folder ended with exit code %d, want 3", code)
	}
	if said := string(second.said()); !strings.Contains(said, strconv.Itoa(r.node.pid())) {
		r.t.Errorf("the second node does not name process %d, which has the folder: %s", r.node.pid(), said)
	}
}

const filteredFlow = `flow: v1
name: orders
source: kafka://main/orders
stages:
  - id: mask
    map: ./orders.wasm
  - id: known
    filter: value.customer != nil
  - id: deliver
    push: kafka://other/orders-out
`

// A flow that is paused, changed and resumed under load loses and repeats
// nothing.
func TestPausedAndChangedUnderLoad(t *testing.T) {
	r, f := ordersRig(t)
	rng := seeded(t)
	l := startLoad(t, r.source.addr, "orders", rng.Uint64(), loadRate)
	digest := r.flow("orders").Stages[0].Digest
	flows := func(what string) {
		t.Helper()
		arrived := f.count()
		await(t, 20*time.Second, what, func() (bool, string) {
			fl := r.flow("orders")
			return f.count() > arrived, fl.State + " " + fl.Reason + " " + fl.Problem
		})
		pass(t.Context(), between(rng, 100*time.Millisecond, 500*time.Millisecond))
	}
	flows("records to flow")
	for i := range 3 {
		r.setState(api.StatePaused)
		// What was under way is finished, then nothing is written.
		r.endsAtRest(r.output, "orders-out", between(rng, 200*time.Millisecond, 400*time.Millisecond))
		r.setState(api.StateRunning)
		flows("records to flow after the pause")

		// At once, without a rest between.
		r.setState(api.StatePaused)
		r.setState(api.StateRunning)
		flows("records to flow after a short pause")

		doc := []string{filteredFlow, ordersFlow}[i%2]
		plan := r.apply(doc, map[string]string{"./orders.wasm": digest})
		if plan.Action != "update" || int(plan.Revision) != i+2 {
			t.Errorf("applied: %+v", plan)
		}
		flows("records to flow through revision " + strconv.Itoa(int(plan.Revision)))
		if got := len(r.flow("orders").Stages); got != 3-i%2 {
			t.Errorf("the flow has %d stages, want %d", got, 3-i%2)
		}
	}
	r.finish(l, f, nil, rules{})
	r.stopNode()
}

func (r *rig) setState(state string) {
	r.t.Helper()
	f := call(r.t, func(ctx context.Context) (*api.Flow, error) { return r.client.SetFlow(ctx, "", "orders", state) })
	if f.State != state {
		r.t.Errorf("the flow is %s, want %s", f.State, state)
	}
}

// A flow that is deleted under load and made anew begins at the start of its
// source: nothing is lost.
func TestDeletedUnderLoad(t *testing.T) {
	r, f := ordersRig(t)
	rng := seeded(t)
	l := startLoad(t, r.source.addr, "orders", rng.Uint64(), loadRate)
	digest := r.flow("orders").Stages[0].Digest
	await(t, 30*time.Second, "a malformed record", func() (bool, string) {
		return r.flow("orders").Queue.Entries > 0, strconv.Itoa(l.count()) + " produced"
	})
	err := r.client.DeleteFlow(t.Context(), "", "orders", false)
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != api.CodeQueueNotEmpty {
		t.Errorf("deleting a flow with entries in its failure queue: %v, want code %s", err, api.CodeQueueNotEmpty)
	}
	var cuts []cut
	for range 2 {
		marks := r.watched.now()
		if err := r.client.DeleteFlow(t.Context(), "", "orders", true); err != nil {
			t.Fatal(err)
		}
		if _, err := r.client.Flow(t.Context(), "", "orders"); err == nil {
			t.Error("the flow is still there after its end")
		}
		ends := r.endsAtRest(r.output, "orders-out", 500*time.Millisecond) // what was under way is finished
		cuts = append(cuts, cut{ends: ends, marks: marks, explained: int(ends.total())})
		r.apply(ordersFlow, map[string]string{"./orders.wasm": digest})
		arrived := f.count()
		await(t, 20*time.Second, "records to flow again", func() (bool, string) { return f.count() > arrived+loadRate/2, "" })
	}
	// Only what was there when the flow was deleted is repeated, and by the
	// same rule each time: all of it.
	r.finish(l, f, cuts, rules{})
	out, err := exec.CommandContext(t.Context(), r.flowctl, "flow", "delete", "orders", "--server", "http://"+r.nodeAddr).CombinedOutput()
	if err == nil {
		t.Errorf("flowctl deletes a flow with entries in its failure queue: %s", out)
	}
	r.stopNode()
}
