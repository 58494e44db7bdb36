package pipeline

import (
	"errors"
	"fmt"
	"slices"
)

// Kind says what a Node is.
type Kind uint8

const (
	// KindStage passes what its stage emits on to Next.
	KindStage Kind = iota
	// KindBranch passes each emission on to the case that its Output names.
	KindBranch
	// KindDeliver ends a record's way in a delivery.
	KindDeliver
)

// Drop in place of a node's number says that a record ends there, dropped by
// the node that names it.
const Drop = -1

// Node is a place on the way of a record.
type Node struct {
	Kind Kind
	// Stage of a KindStage or KindBranch.
	Stage Stage
	StageInfo
	// Next is the node that follows, or Drop. Of a branch it is the node
	// behind it, for records that wait in a case that another set no longer
	// has.
	Next int
	// Cases of a branch: the node of each, or Drop.
	Cases []int
	// Delivery is the place of a KindDeliver among the flow's deliveries.
	Delivery int
}

// BoundStage is a stage at its place in a flow.
type BoundStage struct {
	Stage
	StageInfo
}

// Set is the way of records through a flow, as one deployment has it. The
// first node gets every record; a node passes on to nodes behind it only.
type Set struct {
	// Generation rises with every deployment.
	Generation uint32
	// Revision of the document, for failure entries; 0: Config's.
	Revision uint32
	Nodes    []Node
}

// Linear is the set of a flow without branches, whose only delivery is the
// first of the flow's.
func Linear(generation uint32, stages []BoundStage, delivery StageInfo) Set {
	s := Set{Generation: generation, Nodes: make([]Node, 0, len(stages)+1)}
	for i, b := range stages {
		s.Nodes = append(s.Nodes, Node{Kind: KindStage, Stage: b.Stage, StageInfo: b.StageInfo, Next: i + 1})
	}
	s.Nodes = append(s.Nodes, Node{Kind: KindDeliver, StageInfo: delivery, Next: Drop})
	return s
}

// Validate reports every fault of a set for a flow with a number of
// deliveries.
func (s *Set) Validate(deliveries int) error {
	var errs []error
	fault := func(i int, format string, args ...any) {
		errs = append(errs, fmt.Errorf("node %d (%s): %s", i, s.Nodes[i].ID, fmt.Sprintf(format, args...)))
	}
	behind := func(i, to int) bool { return to == Drop || to > i && to < len(s.Nodes) }
	if len(s.Nodes) == 0 {
		errs = append(errs, errors.New("there are no nodes"))
	}
	ids := map[string]bool{}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if ids[n.ID] {
			fault(i, "another node has this id")
		}
		ids[n.ID] = true
		if n.Kind == KindDeliver && (n.Delivery < 0 || n.Delivery >= deliveries) {
			fault(i, "there is no delivery %d", n.Delivery)
		}
		if n.Kind != KindDeliver && n.Stage == nil {
			fault(i, "it has no stage")
		}
		if n.Kind != KindDeliver && !behind(i, n.Next) {
			fault(i, "node %d does not lie behind it", n.Next)
		}
		if n.Kind == KindBranch && len(n.Cases) == 0 {
			fault(i, "it has no cases")
		}
		if n.Otherwise == ToTopic && n.Aside == nil {
			fault(i, "it has no topic to put records aside")
		}
		for _, c := range n.Cases {
			if !behind(i, c) {
				fault(i, "node %d of a case does not lie behind it", c)
			}
		}
	}
	return errors.Join(errs...)
}

// course is a set made ready for lanes.
type course struct {
	Set
	at    map[string]int
	stats []*StageStats // by node
}

func newCourse(s Set, st *Stats) *course {
	c := &course{Set: s, at: make(map[string]int, len(s.Nodes)), stats: make([]*StageStats, len(s.Nodes))}
	for i := range s.Nodes {
		c.at[s.Nodes[i].ID] = i
		c.stats[i] = st.stage(s.Nodes[i].ID)
	}
	return c
}

// follow finds where a record that waits before node i of an older course goes
// on: at the node of that id, or, when there is none, at what followed it.
func (c *course) follow(old *course, i int) int {
	for i != Drop {
		n := &old.Nodes[i]
		if at, ok := c.at[n.ID]; ok {
			return at
		}
		if n.Kind == KindDeliver {
			return slices.IndexFunc(c.Nodes, func(m Node) bool { return m.Kind == KindDeliver && m.Delivery == n.Delivery })
		}
		i = n.Next
	}
	return Drop
}

// touched lists the digests of the plugins that a record has passed, or may
// have passed where ways join, before it came to a node.
func (c *course) touched(id string) []string {
	to, ok := c.at[id]
	if !ok {
		return nil
	}
	leads := make([]bool, to+1) // to the node
	leads[to] = true
	for i := to - 1; i >= 0; i-- {
		n := &c.Nodes[i]
		switch n.Kind {
		case KindStage:
			leads[i] = n.Next != Drop && n.Next <= to && leads[n.Next]
		case KindBranch:
			for _, next := range n.Cases {
				leads[i] = leads[i] || next != Drop && next <= to && leads[next]
			}
		}
	}
	var digests []string
	for i := range c.Nodes[:to] {
		if d := c.Nodes[i].Digest; d != "" && leads[i] {
			digests = append(digests, d)
		}
	}
	return digests
}
