package daemon

import (
	"context"
	"maps"
	"time"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/runtime/record"
)

const (
	// mirrorEvery is how often a flow's watermarks are written to its consumer
	// group.
	mirrorEvery = 5 * time.Second
	// mirrorLimit bounds one such write.
	mirrorLimit = 3 * time.Second
)

// groupCommitter is a source whose broker keeps offsets of consumer groups, for
// tools to show; the truth is in the state.
type groupCommitter interface {
	CommitGroup(ctx context.Context, group string, offsets map[record.Partition]int64) error
}

// mirror writes the committed watermarks of a flow to its consumer group. Its
// methods belong to one goroutine at a time.
type mirror struct {
	r     *runner
	src   groupCommitter
	group string
	told  map[record.Partition]int64 // what the group has
	fails bool                       // the last write failed, which was said
}

// newMirror is nil where there is nothing to mirror to.
func newMirror(r *runner, src source) *mirror {
	c, ok := src.(groupCommitter)
	group := r.doc.Load().GroupName()
	if !ok || group == "" {
		return nil
	}
	return &mirror{r: r, src: c, group: group}
}

// run mirrors until ctx ends.
func (m *mirror) run(ctx context.Context) {
	tick := time.NewTicker(m.r.d.cfg.mirrorEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			m.write(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// last mirrors what the flow's last commit left, unless the brokers refused it
// before.
func (m *mirror) last(ctx context.Context) {
	if !m.fails {
		m.write(ctx)
	}
}

// write writes what has changed. A broker that refuses is a warning, once, and
// asked again: nothing of the flow depends on it.
func (m *mirror) write(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, mirrorLimit)
	defer cancel()
	offsets, err := m.r.d.marks(m.r.id)
	if err == nil {
		maps.DeleteFunc(offsets, func(p record.Partition, at int64) bool {
			old, ok := m.told[p]
			return ok && old == at
		})
		if len(offsets) == 0 {
			return
		}
		err = m.src.CommitGroup(limited, m.group, offsets)
	}
	if ctx.Err() != nil && err != nil {
		return
	}
	if err != nil {
		if !m.fails {
			m.r.log.Warn("offsets cannot be mirrored to the consumer group; the flow goes on", "group", m.group, "err", err)
		}
		m.fails = true
		return
	}
	if m.told == nil {
		m.told = map[record.Partition]int64{}
	}
	maps.Copy(m.told, offsets)
	m.fails = false
}

// marks are the committed watermarks of a flow by partition.
func (d *Daemon) marks(id state.FlowID) (map[record.Partition]int64, error) {
	partitions, err := d.store.Partitions(id)
	if err != nil {
		return nil, err
	}
	marks, err := d.store.Watermarks(id)
	if err != nil {
		return nil, err
	}
	low := map[uint32]int64{}
	for _, w := range marks {
		low[w.Part] = w.Low
	}
	out := map[record.Partition]int64{}
	for _, p := range partitions {
		if at, ok := low[p.Part]; ok {
			out[partitionOf(p)] = at
		}
	}
	return out, nil
}

// mirrorReset writes where a flow goes on to its consumer group, at once: the
// flow may be paused.
func (o *offsetsOf) mirrorReset(ctx context.Context, positions []state.Position) error {
	c, ok := o.src.(groupCommitter)
	group := o.doc.GroupName()
	if !ok || group == "" {
		return nil
	}
	to := map[uint32]int64{}
	for _, p := range positions {
		to[p.Part] = p.Offset
	}
	offsets := map[record.Partition]int64{}
	for _, p := range o.partitions {
		if at, ok := to[p.Part]; ok {
			offsets[partitionOf(p)] = at
		}
	}
	ctx, cancel := context.WithTimeout(ctx, mirrorLimit)
	defer cancel()
	return c.CommitGroup(ctx, group, offsets)
}
