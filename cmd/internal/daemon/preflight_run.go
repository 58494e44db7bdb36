package daemon

import (
	"context"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/preflight"
	"github.com/millrace-io/millrace/runtime/pipeline"
	"github.com/millrace-io/millrace/runtime/record"
)

// step is a record before a node.
type step struct {
	node int
	rec  record.Record
}

// fly runs records through the flow, each alone: so it is judged from the image,
// with the same batch id in both versions. It returns how many went through
// before an error.
func (t *trial) fly(ctx context.Context, recs []sourced) (done int, err error) {
	now := time.Now().UnixMilli()
	for i := range recs {
		work := []step{{0, recs[i].rec}}
		for len(work) > 0 {
			s := work[len(work)-1]
			work = work[:len(work)-1]
			if t.spots[s.node].stage == nil {
				continue
			}
			emits, err := t.pass(ctx, s, recs[i].partition, now)
			if err != nil {
				return i, err
			}
			for k := range emits {
				if to := t.next(s.node, &emits[k]); to != pipeline.Drop {
					emits[k].Record.Attempt = 1
					work = append(work, step{to, emits[k].Record})
				}
			}
		}
	}
	return len(recs), nil
}

func (t *trial) next(node int, e *record.Emit) int {
	n := &t.nodes[node]
	switch {
	case n.Kind != pipeline.KindBranch:
		return n.Next
	case int(e.Output) < len(n.Cases):
		return n.Cases[e.Output]
	}
	return pipeline.Drop
}

// pass runs a record through what stands at a node, and through the new plugin
// where one is tried there. What comes of the old one goes on.
func (t *trial) pass(ctx context.Context, s step, of record.Partition, now int64) ([]record.Emit, error) {
	p := &t.spots[s.node]
	b := &record.Batch{Partition: of, Records: []record.Record{s.rec}, Next: s.rec.Offset + 1, Now: now}
	old, err := t.ask(ctx, p.stage, p.old, b)
	if err != nil || p.now == nil || p.skipped != "" {
		return old.Emits, err
	}
	if p.old == nil {
		old.Outputs = p.now.outputs
		p.found.First(old)
		return old.Emits, nil
	}
	answer, err := t.ask(ctx, p.now.st, p.now, b)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	p.found.Add(s.rec.ID(), old, answer)
	t.worked += time.Since(began)
	return old.Emits, nil
}

// ask lets a stage answer one record. v is nil for one that is not compared.
func (t *trial) ask(ctx context.Context, st pipeline.Stage, v *edition, b *record.Batch) (*preflight.Answer, error) {
	if err := t.rest(ctx); err != nil {
		return &preflight.Answer{}, err
	}
	began := time.Now()
	var fuel int64
	if v != nil {
		fuel = v.st.Stats().Fuel
	}
	var out record.Results
	if err := st.Process(ctx, b, &out); err != nil {
		return &preflight.Answer{}, err
	}
	a := &preflight.Answer{Emits: out.Emits}
	if len(out.Failures) > 0 {
		a.Emits, a.Failure = nil, out.Failures[0].Err
	}
	if v != nil {
		a.Outputs, a.Fuel = v.outputs, v.st.Stats().Fuel-fuel
	}
	t.worked += time.Since(began)
	return a, nil
}

// rest lets others run for as long as the trial has worked.
func (t *trial) rest(ctx context.Context) error {
	if t.worked < restAfter {
		return ctx.Err()
	}
	timer := time.NewTimer(t.worked)
	defer timer.Stop()
	t.worked = 0
	select {
	case <-timer.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}
