package daemon

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/runtime/connector/ingest"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/ledger"
	"github.com/millrace-io/millrace/runtime/pipeline"
	"github.com/millrace-io/millrace/runtime/record"
)

const (
	// commitBytes is how many bytes of entries one command holds; the
	// progress of a single partition may exceed it and travels alone, so that
	// nobody's waits for it.
	commitBytes = 512 << 10
	// failureRate bounds what the entries of a node add to the log.
	failureRate = 8 << 20
)

// commits collects the progress of all flows every 100 ms, or sooner when a
// lane urges, and proposes it, until ctx ends.
func (d *Daemon) commits(ctx context.Context) {
	tick := time.NewTicker(commitEvery)
	defer tick.Stop()
	limit := rate.NewLimiter(failureRate, 4*failureRate)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-d.urged:
		}
		if n := d.commit(ctx, d.active()); n > 0 {
			_ = limit.WaitN(ctx, min(n, 4*failureRate))
		}
	}
}

// lent is progress on its way, and whose it is.
type lent struct {
	r        *runner
	p        pipeline.Progress
	requests []ingest.Request // that are remembered with it
}

// commit proposes the progress of runners in as few commands as may be, and
// returns the bytes of entries in it.
func (d *Daemon) commit(ctx context.Context, rs []*runner) int {
	var batch []lent
	bytes, all := 0, 0
	flush := func() {
		if len(batch) > 0 {
			d.propose(ctx, batch)
		}
		batch, bytes = nil, 0
	}
	for _, r := range rs {
		pipe := r.pipe.Load()
		if pipe == nil {
			continue
		}
		for _, p := range pipe.Dirty() {
			if len(batch) > 0 && bytes+p.Bytes > commitBytes {
				flush()
			}
			batch = append(batch, lent{r: r, p: p})
			bytes += p.Bytes
			all += p.Bytes
		}
	}
	flush()
	return all
}

func (d *Daemon) propose(ctx context.Context, batch []lent) {
	c := &state.Commit{Node: d.node.ID(), Incarnation: d.node.Incarnation()}
	for i := range batch {
		r, p := batch[i].r, &batch[i].p
		part := p.Ownership.Part
		batch[i].requests = r.settling(p)
		c.Items = append(c.Items, state.CommitItem{
			Flow: r.id, Slot: uint16(p.Ownership.Slot), Epoch: p.Ownership.Epoch, Part: part,
			Low: p.Low, Ranges: stateRanges(p.Ranges), Generation: r.generation, Deploy: p.Generation,
			Life: p.Life, Tally: stateTally(&p.Tally), Requests: stateRequests(batch[i].requests),
			Counted: true, Carried: state.EntryCount(p.Carried), Grown: p.Grown,
		})
		for _, e := range p.Failures {
			c.Failures = append(c.Failures, state.CommitFailure{Flow: r.id, Part: part, Entry: e})
		}
		for _, e := range p.Keeps {
			c.Keeps = append(c.Keeps, state.CommitRetry{Flow: r.id, Part: part, Entry: e})
		}
		for _, k := range p.Gone {
			c.Gone = append(c.Gone, state.CommitGone{Flow: r.id, Part: part, Offset: k.Offset, Path: k.Path})
		}
	}
	files := filing(batch)
	if len(files) > 0 {
		d.filing.Lock()
		defer d.filing.Unlock()
	}
	began := time.Now()
	err := d.trimAll(ctx, files)
	var res state.Result
	if err == nil {
		res, err = d.node.Propose(ctx, c)
	}
	d.metrics.committed(time.Since(began), err)
	if err != nil {
		d.log.Warn("commit failed; it is tried again", "err", err)
		for i := range batch {
			batch[i].r.ack(batch[i].p, err)
		}
		return
	}
	result := res.Value.(*state.CommitResult)
	refused := map[int]error{}
	for _, ref := range result.Refused {
		refused[ref.Item] = record.Errorf(record.Fenced, "commit of slot %d refused: %s", batch[ref.Item].p.Ownership.Slot, ref.Reason)
	}
	for i := range batch {
		l := &batch[i]
		l.r.ack(l.p, refused[i])
		if refused[i] != nil {
			continue
		}
		if l.r.requests != nil && len(l.requests) > 0 {
			l.r.requests.Saved(l.requests)
		}
		if n := len(l.p.Keeps); n > 0 {
			d.spills.spilled(n, time.Now())
		}
		if len(l.p.Keeps)+len(l.p.Gone) > 0 {
			signal(l.r.due)
		}
	}
	for _, q := range result.Queues {
		d.spills.keeps(q.Flow, q.KeptBytes)
		at := slices.IndexFunc(batch, func(l lent) bool { return l.r.id == q.Flow })
		if at < 0 {
			continue
		}
		if keep := retentionOf(batch[at].r.doc.Load()); keep.pauses(q) {
			batch[at].r.autoPause(queueFull(q, keep.entries, keep.bytes))
		}
	}
	if err := d.trimAll(ctx, files); err != nil && ctx.Err() == nil {
		d.log.Warn("a full failure queue was not trimmed; it is tried again", "err", err)
	}
}

// queueBounds are the most entries and bytes that a flow's failure queue may
// hold: see flow.WhenFull.
func queueBounds(f *flow.Flow) (entries, bytes uint64) {
	entries, bytes = MaxQueueEntries, MaxQueueBytes
	if f != nil && f.Queue.Entries > 0 {
		entries = uint64(f.Queue.Entries)
	}
	if f != nil && f.Queue.Bytes > 0 {
		bytes = uint64(f.Queue.Bytes)
	}
	return entries, bytes
}

func queueFull(q state.QueueStats, entries, bytes uint64) string {
	return fmt.Sprintf("the failure queue is full: %d of %d entries, %d of %d MiB; look with `flowctl queue peek`, make room, then `flowctl flow resume`",
		q.Entries, entries, q.Bytes>>20, bytes>>20)
}

// stateTally is a lane's tally as the state has it.
func stateTally(t *pipeline.Tally) state.Tally {
	out := state.Tally{Read: t.Read, Split: t.Split, Delivered: t.Delivered, Known: t.Known, Flying: t.Flying}
	for _, reason := range slices.Sorted(maps.Keys(t.Dropped)) {
		out.Dropped = append(out.Dropped, state.DropCount{Reason: reason, N: t.Dropped[reason]})
	}
	return out
}

// settling are the requests whose records are settled with p, of a source of
// requests.
func (r *runner) settling(p *pipeline.Progress) []ingest.Request {
	if r.requests == nil {
		return nil
	}
	return r.requests.Settling(func(offset int64) bool {
		return offset < p.Low || slices.ContainsFunc(p.Ranges, func(g ledger.Range) bool { return g.From <= offset && offset < g.To })
	})
}

func stateRequests(in []ingest.Request) []state.Request {
	var out []state.Request
	for _, q := range in {
		out = append(out, state.Request{Ref: q.Ref, Digest: q.Digest})
	}
	return out
}

func stateRanges(rs []ledger.Range) []state.Range {
	if len(rs) == 0 {
		return nil
	}
	out := make([]state.Range, len(rs))
	for i, r := range rs {
		out[i] = state.Range{From: r.From, To: r.To}
	}
	return out
}

func ledgerRanges(rs []state.Range) []ledger.Range {
	out := make([]ledger.Range, len(rs))
	for i, r := range rs {
		out[i] = ledger.Range{From: r.From, To: r.To}
	}
	return out
}
