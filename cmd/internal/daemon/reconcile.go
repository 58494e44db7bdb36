package daemon

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/runtime/flow"
)

// reconcile keeps the runners as the state wants them, until ctx ends or the
// node fails.
func (d *Daemon) reconcile(ctx context.Context) error {
	changed := d.store.Changed()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if err := d.reconcileOnce(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-d.fatal:
			return err
		case <-changed:
			changed = d.store.Changed()
		case <-d.kick:
		case <-tick.C:
		}
	}
}

func (d *Daemon) reconcileOnce(ctx context.Context) error {
	flows, err := d.store.Flows()
	if err != nil {
		return fmt.Errorf("read flows: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	seen, uids := map[state.FlowID]bool{}, map[uint64]bool{}
	for _, f := range flows {
		seen[f.ID], uids[f.UID] = true, true
		if err := d.reconcileFlow(ctx, f); err != nil {
			return err
		}
	}
	d.logs.keep(func(uid uint64) bool { return uids[uid] })
	for id, r := range d.runners {
		if !seen[id] {
			d.retire(r)
		}
	}
	d.retired = slices.DeleteFunc(d.retired, func(r *runner) bool { return r.ended() })
	return nil
}

// reconcileFlow sees to one flow; d.mu is held.
func (d *Daemon) reconcileFlow(ctx context.Context, f *state.Flow) error {
	r := d.runners[f.ID]
	if r != nil && (f.State != state.Running || f.Generation != r.generation || r.ended()) {
		d.retire(r)
		r = nil
	}
	if f.State != state.Running {
		return nil
	}
	if r == nil {
		if slices.ContainsFunc(d.retired, func(r *runner) bool { return r.id == f.ID && !r.ended() }) {
			return nil // its last life has not ended yet; it kicks when it has
		}
		owns, err := d.ownsSlot(f.ID)
		if err != nil || !owns {
			return err
		}
		rev, err := d.store.FlowRevision(f.ID, f.Revision)
		if err != nil || rev == nil { // nil: deleted since
			return revisionError(f, err)
		}
		d.runners[f.ID] = d.startRunner(ctx, f, rev)
		return nil
	}
	if r.revision() == f.Revision {
		r.kick()
		return nil
	}
	rev, err := d.store.FlowRevision(f.ID, f.Revision)
	if err != nil || rev == nil {
		return revisionError(f, err)
	}
	old, doc, err := decodeBoth(r.resolved, rev.Resolved)
	if err != nil {
		return fmt.Errorf("read revision %d of flow %s: %w", f.Revision, f.FullName(), err)
	}
	if reflect.DeepEqual(frame(old, r.pins), frame(doc, rev.Pins)) {
		r.activate(f, rev, doc)
	} else {
		d.retire(r)
	}
	return nil
}

func decodeBoth(a, b []byte) (old, doc *flow.Flow, err error) {
	if old, err = decodeFlow(a); err == nil {
		doc, err = decodeFlow(b)
	}
	return old, doc, err
}

func revisionError(f *state.Flow, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("read revision %d of flow %s: %w", f.Revision, f.FullName(), err)
}

// retire stops a runner without waiting; d.mu is held.
func (d *Daemon) retire(r *runner) {
	r.stop()
	delete(d.runners, r.id)
	d.retired = append(d.retired, r)
}

// stopAll stops every runner and waits for the last commits.
func (d *Daemon) stopAll() {
	d.mu.Lock()
	for _, r := range d.runners {
		d.retire(r)
	}
	rs := slices.Clone(d.retired)
	d.mu.Unlock()
	for _, r := range rs {
		<-r.done
	}
}

// active are the runners that may have progress.
func (d *Daemon) active() []*runner {
	d.mu.Lock()
	defer d.mu.Unlock()
	rs := make([]*runner, 0, len(d.runners)+len(d.retired))
	for _, r := range d.runners {
		rs = append(rs, r)
	}
	return append(rs, d.retired...)
}

// runner is the flow's runner, nil if it does not run here.
func (d *Daemon) runner(id state.FlowID) *runner {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.runners[id]
}

func (d *Daemon) ownsSlot(id state.FlowID) (bool, error) {
	slots, err := d.store.Slots(id)
	if err != nil {
		return false, fmt.Errorf("read slots: %w", err)
	}
	return slices.ContainsFunc(slots, d.owns), nil
}

func (d *Daemon) owns(s state.Slot) bool {
	return s.Owner == d.node.ID() && s.Incarnation == d.node.Incarnation()
}
