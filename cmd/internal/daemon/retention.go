package daemon

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/runtime/flow"
)

// tellFullEvery is how often the log says that a full queue drops entries.
const tellFullEvery = time.Minute

// retention is how a flow's failure queue is kept within its bounds.
type retention struct {
	entries, bytes uint64
	dropOldest     bool
}

func retentionOf(f *flow.Flow) retention {
	var r retention
	r.entries, r.bytes = queueBounds(f)
	r.dropOldest = f != nil && f.Queue.WhenFull == flow.WhenFullDropOldest
	return r
}

// pauses reports whether the flow of a queue like this is to pause.
func (r retention) pauses(q state.QueueStats) bool {
	return !r.dropOldest && (q.Entries >= r.entries || q.Bytes >= r.bytes)
}

// over reports whether entries are to go.
func (r retention) over(q state.QueueStats) bool {
	return r.dropOldest && (q.Entries > r.entries || q.Bytes > r.bytes)
}

// filing tells whose failure queues a command files entries in, and is to be
// held meanwhile: see trim.
func filing(batch []lent) map[state.FlowID]*runner {
	var out map[state.FlowID]*runner
	for i := range batch {
		if r := batch[i].r; len(batch[i].p.Failures) > 0 && retentionOf(r.doc.Load()).dropOldest {
			if out == nil {
				out = map[state.FlowID]*runner{}
			}
			out[r.id] = r
		}
	}
	return out
}

// trim drops the oldest entries of a queue above its bounds. It is called
// before a command that files entries, since an earlier life may have ended
// between the two, and after it, with d.filing held over all of it: so a queue
// is never above its bounds by more than one command files.
func (d *Daemon) trim(ctx context.Context, id state.FlowID, name string, r retention) error {
	stats, err := d.store.QueueStats(id)
	if err != nil {
		return err
	}
	if !r.over(stats) {
		return nil
	}
	return d.drain(ctx, name, &state.QueueExpire{Flow: id, KeepEntries: r.entries, KeepBytes: r.bytes})
}

// trimAll is trim for the flows of a commit.
func (d *Daemon) trimAll(ctx context.Context, rs map[state.FlowID]*runner) error {
	for id, r := range rs {
		if err := d.trim(ctx, id, r.name, retentionOf(r.doc.Load())); err != nil {
			return fmt.Errorf("drop the oldest entries of the failure queue of flow %s: %w", r.name, err)
		}
	}
	return nil
}

// drain proposes c until nothing more goes.
func (d *Daemon) drain(ctx context.Context, name string, c *state.QueueExpire) error {
	gone := 0
	defer func() {
		if gone > 0 && d.fullTold.due(c.Flow, time.Now()) {
			d.log.Warn("entries of the failure queue are dropped, the oldest first", "flow", name, "entries", gone, "older_than", c.Before, "keep_entries", c.KeepEntries, "keep_bytes", c.KeepBytes)
		}
	}()
	for {
		res, err := d.queueOp(ctx, c)
		if err != nil {
			return err
		}
		if gone += res.Done; !res.More || res.Done == 0 {
			return nil
		}
	}
}

// expire drops the entries of a queue that a flow does not keep any longer.
func (d *Daemon) expire(ctx context.Context, f *state.Flow, doc *flow.Flow, stats state.QueueStats) error {
	c := &state.QueueExpire{Flow: f.ID}
	if keep := doc.Queue.Keep; keep > 0 {
		before := time.Now().Add(-keep).UnixMilli()
		oldest, err := d.store.Failures(f.ID, 0, 1, nil)
		if err != nil {
			return err
		}
		if len(oldest) > 0 && oldest[0].Time < before {
			c.Before = before
		}
	}
	if r := retentionOf(doc); r.over(stats) {
		c.KeepEntries, c.KeepBytes = r.entries, r.bytes
	}
	if c.Before == 0 && c.KeepEntries == 0 {
		return nil
	}
	d.filing.Lock()
	defer d.filing.Unlock()
	return d.drain(ctx, f.FullName(), c)
}

// tellNearlyFull logs once that a queue is nearly full, and again after it was
// not.
func (d *Daemon) tellNearlyFull(f *state.Flow, h *house, stats state.QueueStats) {
	r := retentionOf(h.doc)
	near := float64(stats.Entries) >= nearly*float64(r.entries) || float64(stats.Bytes) >= nearly*float64(r.bytes)
	if near && !h.near {
		d.log.Warn("the failure queue is nearly full: "+r.consequence(), "flow", f.FullName(), "entries", stats.Entries, "of_entries", r.entries, "bytes", stats.Bytes, "of_bytes", r.bytes)
	}
	h.near = near
}

// consequence is what happens when the queue is full.
func (r retention) consequence() string {
	if r.dropOldest {
		return "the oldest entries are dropped when it is full"
	}
	return "the flow pauses when it is full"
}

// queueStatus is the failure queue of a flow as it is shown, with what its
// retention and bounds will do soon.
func (d *Daemon) queueStatus(f *state.Flow, doc *flow.Flow, stats state.QueueStats) (api.Queue, error) {
	r := retentionOf(doc)
	out := api.Queue{Entries: stats.Entries, Bytes: stats.Bytes, KeepMillis: doc.Queue.Keep.Milliseconds(), MaxEntries: r.entries, MaxBytes: r.bytes, WhenFull: string(flow.WhenFullPause)}
	if r.dropOldest {
		out.WhenFull = string(flow.WhenFullDropOldest)
	}
	if stats.Entries == 0 {
		return out, nil
	}
	first, err := d.store.Failures(f.ID, 0, 1, nil)
	if err != nil || len(first) == 0 {
		return out, err
	}
	out.Oldest = first[0].Time
	if float64(stats.Entries) >= nearly*float64(r.entries) {
		out.Warnings = append(out.Warnings, fmt.Sprintf("the queue holds %d of %d entries: %s", stats.Entries, r.entries, r.consequence()))
	}
	if float64(stats.Bytes) >= nearly*float64(r.bytes) {
		out.Warnings = append(out.Warnings, fmt.Sprintf("the queue holds %d of %d MiB: %s", stats.Bytes>>20, r.bytes>>20, r.consequence()))
	}
	if keep := doc.Queue.Keep; keep > 0 {
		if ageUsed(out) >= nearly {
			age := time.Since(time.UnixMilli(out.Oldest))
			out.Warnings = append(out.Warnings, fmt.Sprintf("the oldest entry is dropped in %s: the flow keeps entries for %s; export what is to stay", max(keep-age, 0).Round(time.Second), keep))
		}
	}
	return out, nil
}

// told remembers when something was told of a flow. It is safe for concurrent
// use.
type told struct {
	every time.Duration
	mu    sync.Mutex
	last  map[state.FlowID]time.Time // guarded by mu
}

func newTold(every time.Duration) *told {
	return &told{every: every, last: map[state.FlowID]time.Time{}}
}

// due reports whether it is to be told again, and notes that it was.
func (t *told) due(id state.FlowID, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if last, ok := t.last[id]; ok && now.Sub(last) < t.every {
		return false
	}
	t.last[id] = now
	return true
}
