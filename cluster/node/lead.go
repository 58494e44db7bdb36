package node

import (
	"context"
	"errors"
	"time"

	"github.com/millrace-io/millrace/cluster/assign"
	"github.com/millrace-io/millrace/cluster/state"
)

// retryPause is how long the leader waits before it tries again what it could
// not propose.
const retryPause = 100 * time.Millisecond

// lead does the leader's work whenever this node is the leader.
func (n *Node) lead(ctx context.Context) {
	leader := n.raft.LeaderCh()
	for {
		select {
		case <-ctx.Done():
			return
		case is := <-leader:
			if !is {
				continue
			}
		}
		term, lost := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			n.serve(term)
		}()
		select {
		case <-ctx.Done():
		case is := <-leader:
			for is && ctx.Err() == nil {
				select {
				case is = <-leader:
				case <-ctx.Done():
				}
			}
		}
		lost()
		<-done
	}
}

// serve announces this life of the node and then keeps every slot owned, until
// ctx ends.
func (n *Node) serve(ctx context.Context) {
	for !n.announce(ctx) {
		if !pause(ctx, retryPause) {
			return
		}
	}
	for ctx.Err() == nil {
		changed := n.st.Changed()
		if err := n.assignSlots(ctx); err != nil {
			if ctx.Err() != nil || n.Err() != nil {
				return
			}
			n.logger.Warn("could not assign slots", "err", err)
			pause(ctx, retryPause)
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// announce proposes NodeUp with the next incarnation, once a life.
func (n *Node) announce(ctx context.Context) bool {
	if n.Incarnation() != 0 {
		return true
	}
	warn := func(err error) bool {
		if ctx.Err() == nil && !errors.Is(err, ErrClosed) {
			n.logger.Warn("could not announce the node", "err", err)
		}
		return false
	}
	if err := n.Barrier(ctx); err != nil {
		return warn(err)
	}
	old, err := n.st.Node(n.ID())
	if err != nil {
		return warn(err)
	}
	life := uint64(1)
	if old != nil {
		life = old.Incarnation + 1
	}
	up := &state.NodeUp{Node: n.ID(), Incarnation: life, Addr: n.cfg.Addr, Version: n.cfg.Version}
	if _, err := n.Propose(ctx, up); err != nil {
		return warn(err)
	}
	n.incarnation.Store(life)
	close(n.ready)
	n.logger.Info("node is up", "incarnation", life)
	return true
}

type slotID struct {
	flow state.FlowID
	slot uint16
}

// assignSlots gives every slot without a living owner to one.
func (n *Node) assignSlots(ctx context.Context) error {
	nodes, err := n.st.Nodes()
	if err != nil {
		return err
	}
	all, err := n.st.AllSlots()
	if err != nil {
		return err
	}
	living := make(map[string]*state.Node, len(nodes))
	var members []string
	for _, m := range nodes {
		if m.Up {
			living[m.ID.String()] = m
			members = append(members, m.ID.String())
		}
	}
	slots := make([]assign.Slot[slotID], len(all))
	for i, s := range all {
		slots[i].ID = slotID{s.Flow, s.Slot}
		if m := living[s.Owner.String()]; m != nil && m.Incarnation == s.Incarnation {
			slots[i].Owner = s.Owner.String()
		}
	}
	moves := assign.Plan(members, slots, 0)
	if len(moves) == 0 {
		return nil
	}
	cmd := &state.Assign{Slots: make([]state.SlotAssignment, len(moves))}
	for i, m := range moves {
		to := living[m.To]
		cmd.Slots[i] = state.SlotAssignment{Flow: m.Slot.flow, Slot: m.Slot.slot, Node: to.ID, Incarnation: to.Incarnation}
	}
	_, err = n.Propose(ctx, cmd)
	return err
}
