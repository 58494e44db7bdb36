package daemon

import (
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/pipeline"
)

// layout puts the stages, branches and deliveries of a flow into the order in
// which a pipeline has them.
type layout struct {
	// stage makes what stands at a stage's place; a branch's too.
	stage func(s *flow.Stage) (pipeline.Stage, pipeline.StageInfo, error)
	// deliver describes a delivery and says its place among the flow's.
	deliver func(d *flow.Delivery) (int, pipeline.StageInfo, error)

	nodes []pipeline.Node
}

// hole is a place that is to name the node that follows.
type hole func(node int)

// nodesOf lays a flow out.
func (b *layout) nodesOf(f *flow.Flow) ([]pipeline.Node, error) {
	var end *flow.Delivery
	if f.Delivery.ID != "" {
		end = &f.Delivery
	}
	stages := f.Stages
	if s := f.Decoding(); s != nil {
		stages = append([]flow.Stage{*s}, stages...)
	}
	open, err := b.way(nil, stages, end)
	if err != nil {
		return nil, err
	}
	fill(open, pipeline.Drop)
	return b.nodes, nil
}

func fill(holes []hole, node int) {
	for _, h := range holes {
		h(node)
	}
}

// way lays out stages and, if there is one, the delivery at their end, which
// the holes lead to. What is open behind them is returned.
func (b *layout) way(in []hole, stages []flow.Stage, end *flow.Delivery) ([]hole, error) {
	for i := range stages {
		s := &stages[i]
		st, info, err := b.stage(s)
		if err != nil {
			return nil, err
		}
		at := b.add(in, pipeline.Node{Kind: pipeline.KindStage, Stage: st, StageInfo: info})
		in = []hole{func(node int) { b.nodes[at].Next = node }}
		if s.Branch != nil {
			cases, err := b.cases(at, s.Branch)
			if err != nil {
				return nil, err
			}
			in = append(in, cases...)
		}
	}
	if end == nil {
		return in, nil
	}
	place, info, err := b.deliver(end)
	if err != nil {
		return nil, err
	}
	b.add(in, pipeline.Node{Kind: pipeline.KindDeliver, StageInfo: info, Next: pipeline.Drop, Delivery: place})
	return nil, nil
}

// cases lays out the cases of the branch at a node, the one without a condition
// last.
func (b *layout) cases(at int, br *flow.Branch) (open []hole, err error) {
	all := make([]*flow.BranchCase, 0, len(br.Cases)+1)
	for i := range br.Cases {
		all = append(all, &br.Cases[i])
	}
	all = append(all, &br.Else)
	b.nodes[at].Kind, b.nodes[at].Cases = pipeline.KindBranch, make([]int, len(all))
	for i, c := range all {
		in := []hole{func(node int) { b.nodes[at].Cases[i] = node }}
		if c.Drop {
			fill(in, pipeline.Drop)
			continue
		}
		out, err := b.way(in, c.Stages, c.Delivery)
		if err != nil {
			return nil, err
		}
		open = append(open, out...)
	}
	return open, nil
}

func (b *layout) add(in []hole, n pipeline.Node) int {
	at := len(b.nodes)
	b.nodes = append(b.nodes, n)
	fill(in, at)
	return at
}
