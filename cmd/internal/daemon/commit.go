package daemon

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/time/rate"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/runtime/ledger"
	"github.com/millrace-io/millrace/runtime/pipeline"
	"github.com/millrace-io/millrace/runtime/record"
)

const (
	// commitBytes is how many bytes of failures one command holds; the
	// progress of a single partition may exceed it and travels alone.
	commitBytes = 512 << 10
	// failureRate bounds what the failures of a node add to the log.
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
	r *runner
	p pipeline.Progress
}

// commit proposes the progress of runners in as few commands as may be, and
// returns the bytes of failures in it.
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
			if bytes > 0 && bytes+p.Bytes > commitBytes {
				flush()
			}
			batch = append(batch, lent{r, p})
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
		c.Items = append(c.Items, state.CommitItem{
			Flow: r.id, Slot: uint16(p.Ownership.Slot), Epoch: p.Ownership.Epoch, Part: p.Ownership.Part,
			Low: p.Low, Ranges: stateRanges(p.Ranges), Generation: r.generation, Deploy: p.Generation,
		})
		for _, e := range p.Failures {
			c.Failures = append(c.Failures, state.CommitFailure{Flow: r.id, Part: p.Ownership.Part, Entry: e})
		}
	}
	began := time.Now()
	res, err := d.node.Propose(ctx, c)
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
		batch[i].r.ack(batch[i].p, refused[i])
	}
	for _, q := range result.Queues {
		if q.Entries >= MaxQueueEntries || q.Bytes >= MaxQueueBytes {
			for i := range batch {
				if batch[i].r.id == q.Flow {
					batch[i].r.autoPause(queueFull(q))
					break
				}
			}
		}
	}
}

func queueFull(q state.QueueStats) string {
	return fmt.Sprintf("the failure queue is full: %d of %d entries, %d of %d MiB; look with `flowctl queue peek`, make room, then `flowctl flow resume`",
		q.Entries, MaxQueueEntries, q.Bytes>>20, MaxQueueBytes>>20)
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
