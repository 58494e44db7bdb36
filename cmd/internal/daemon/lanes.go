package daemon

import (
	"context"
	"time"
	"unique"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/connector/ingest"
	"github.com/millrace-io/millrace/runtime/pipeline"
	"github.com/millrace-io/millrace/runtime/record"
)

// openLanes opens a lane for every known partition of an own slot that has
// none. It begins at the committed watermark; where nothing is committed, at
// the flow's start, which is committed first, so that a later life does not
// begin behind it.
func (r *runner) openLanes(ctx context.Context, pipe *pipeline.Flow, src source) error {
	partitions, err := r.d.store.Partitions(r.id)
	if err != nil {
		return err
	}
	slots, err := r.d.store.Slots(r.id)
	if err != nil {
		return err
	}
	open := pipe.Status()
	var marks map[uint32]state.Watermark
	for _, k := range partitions {
		p := record.Partition{Topic: k.Topic, Broker: k.Broker, Num: k.Source}
		if _, ok := open[p]; ok || int(k.Slot) >= len(slots) || !r.d.owns(slots[k.Slot]) {
			continue
		}
		if marks == nil {
			if marks, err = r.watermarks(); err != nil {
				return err
			}
		}
		if err := r.openLane(ctx, pipe, src, k, p, slots[k.Slot], marks); err != nil {
			return err
		}
	}
	return nil
}

func (r *runner) watermarks() (map[uint32]state.Watermark, error) {
	ws, err := r.d.store.Watermarks(r.id)
	if err != nil {
		return nil, err
	}
	m := make(map[uint32]state.Watermark, len(ws))
	for _, w := range ws {
		m[w.Part] = w
	}
	return m, nil
}

func (r *runner) openLane(ctx context.Context, pipe *pipeline.Flow, src source, k state.Partition, p record.Partition, slot state.Slot, marks map[uint32]state.Watermark) error {
	own := pipeline.Ownership{Slot: uint32(k.Slot), Part: k.Part, Epoch: slot.Epoch}
	cfg := pipeline.LaneConfig{Partition: p, Ownership: own, Life: r.d.lives.Add(1)}
	if w, ok := marks[k.Part]; ok && w.Generation == r.generation {
		cfg.Low, cfg.Ranges = w.Low, ledgerRanges(w.Ranges)
		cfg.MayRepeat = pipeline.DefaultInFlight
	} else if err := r.beginLane(ctx, src, k, p, slot, &cfg); err != nil {
		return err
	}
	if err := r.remember(k.Part, &cfg); err != nil {
		return err
	}
	if err := pipe.Open(cfg); err != nil {
		return err
	}
	signal(r.due)
	return nil
}

// remember adds what the state knows of a partition's emissions.
func (r *runner) remember(part uint32, cfg *pipeline.LaneConfig) error {
	filed, err := r.d.store.FailedSince(r.id, part, cfg.Low)
	if err != nil {
		return err
	}
	above := cfg.Low
	for _, g := range cfg.Ranges {
		above = max(above, g.To)
	}
	for _, f := range filed {
		above = max(above, f.Offset+1)
		if f.Generation == r.generation {
			cfg.Known = append(cfg.Known, record.EmissionKey{Offset: f.Offset, Path: f.Path})
		}
	}
	skewed, now := false, time.Now().Add(clockSlack).UnixMilli()
	err = r.d.store.RetryIndex(r.id, part, func(m state.RetryMark) bool {
		key := record.EmissionKey{Offset: m.Offset, Path: m.Path}
		if m.Offset >= cfg.Low && m.Generation == r.generation {
			cfg.Known = append(cfg.Known, key)
		}
		if m.Hold != 0 {
			cfg.Held = append(cfg.Held, pipeline.HeldEntry{Key: key, Delivery: unique.Make(m.Stage).Value(), Hold: m.Hold})
		}
		above = max(above, m.Offset+1)
		skewed = skewed || m.At > now
		return true
	})
	if err != nil {
		return err
	}
	if skewed {
		r.log.Warn("the system's clock was set back since records were kept; they are due at once", "topic", cfg.Partition.Topic, "partition", cfg.Partition.Num)
		r.mu.Lock()
		r.skewed[part] = true
		r.mu.Unlock()
	}
	if r.requests == nil {
		return nil
	}
	r.requests.Above(above)
	var known []ingest.Request
	err = r.d.store.Requests(r.id, part, func(ref string, digest uint64, at int64) bool {
		known = append(known, ingest.Request{Ref: ref, Digest: digest, At: at})
		return true
	})
	r.requests.Remember(known)
	return err
}

// beginLane finds where to begin a partition that was never read, and commits
// it.
func (r *runner) beginLane(ctx context.Context, src source, k state.Partition, p record.Partition, slot state.Slot, cfg *pipeline.LaneConfig) error {
	from, err := start(r.doc.Load())
	if err != nil {
		return err
	}
	head, err := r.d.store.FlowByID(r.id)
	if err != nil {
		return err
	}
	if head != nil && k.Part >= head.First {
		from = connector.Start{} // what was written before it was found is the flow's too
	}
	asking, cancel := context.WithTimeout(ctx, probe)
	defer cancel()
	if cfg.Low, err = src.Start(asking, p, from); err != nil {
		return err
	}
	res, err := r.d.node.Propose(ctx, &state.Commit{Node: r.d.node.ID(), Incarnation: r.d.node.Incarnation(), Items: []state.CommitItem{{
		Flow: r.id, Slot: k.Slot, Epoch: slot.Epoch, Part: k.Part, Low: cfg.Low, Generation: r.generation}}})
	if err != nil {
		return record.Errorf(record.Retryable, "commit the start of %s/%d: %w", p.Topic, p.Num, err)
	}
	if refused := res.Value.(*state.CommitResult).Refused; len(refused) > 0 {
		return record.Errorf(record.Retryable, "commit the start of %s/%d: %s", p.Topic, p.Num, refused[0].Reason)
	}
	return nil
}

// skewedPart reports whether entries of a partition were written by a clock
// that was set back since.
func (r *runner) skewedPart(part uint32) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.skewed[part]
}

func (r *runner) unskew(part uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.skewed, part)
}

// skewAll: the clock was set back while the flow ran.
func (r *runner) skewAll() {
	pipe := r.pipe.Load()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range pipe.Status() {
		r.skewed[l.Ownership.Part] = true
	}
}

// lanesOf is how many lanes f may have: the partitions that are known, for a
// new flow those that its source says it has.
func lanesOf(ctx context.Context, f *state.Flow, src source) int64 {
	if f.Parts > 0 {
		return int64(f.Parts)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	found, err := src.Partitions(ctx)
	if err != nil {
		return int64(max(f.Slots, 1)) // discover tells
	}
	return int64(max(len(found), 1))
}

// laneBytes shares the node's window out among its lanes and as many new ones.
func (d *Daemon) laneBytes(lanes int64) int {
	d.mu.Lock()
	for _, r := range d.runners {
		if pipe := r.pipe.Load(); pipe != nil {
			lanes += int64(len(pipe.Partitions()))
		}
	}
	d.mu.Unlock()
	return int(max(256<<10, min(d.cfg.WindowBytes/lanes, pipeline.DefaultInFlightBytes)))
}
