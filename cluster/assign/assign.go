// Package assign decides which member owns which slot. It is pure: the leader
// proposes what it returns.
package assign

import "slices"

// Slot is a slot and its owner; "" is nobody.
type Slot[K comparable] struct {
	ID    K
	Owner string
}

// Move gives a slot to a member. From is the previous owner, or "".
type Move[K comparable] struct {
	Slot     K
	From, To string
}

// Plan returns the moves that give every slot an owner among members, in the
// order of slots. Slots stay where they are as long as their owner is a member;
// those without go to the members that own least, in the order of members.
// Beyond that at most rebalance slots are taken from a member that owns at
// least two more than another.
//
// Without members there are no moves.
func Plan[K comparable](members []string, slots []Slot[K], rebalance int) []Move[K] {
	if len(members) == 0 {
		return nil
	}
	owned := make(map[string]int, len(members))
	for _, m := range members {
		owned[m] = 0
	}
	for _, s := range slots {
		if _, ok := owned[s.Owner]; ok {
			owned[s.Owner]++
		}
	}
	least := func() string {
		return slices.MinFunc(members, func(a, b string) int { return owned[a] - owned[b] })
	}
	most := func() string {
		return slices.MaxFunc(members, func(a, b string) int { return owned[a] - owned[b] })
	}
	target := make([]string, len(slots))
	for i, s := range slots {
		target[i] = s.Owner
		if _, ok := owned[s.Owner]; !ok {
			target[i] = least()
			owned[target[i]]++
		}
	}
	for ; rebalance > 0; rebalance-- {
		from, to := most(), least()
		if owned[from]-owned[to] < 2 {
			break
		}
		i := len(slots) - 1
		for target[i] != from || slots[i].Owner != from {
			if i--; i < 0 {
				break
			}
		}
		if i < 0 {
			break
		}
		target[i] = to
		owned[from]--
		owned[to]++
	}
	var moves []Move[K]
	for i, s := range slots {
		if target[i] != s.Owner {
			moves = append(moves, Move[K]{s.ID, s.Owner, target[i]})
		}
	}
	return moves
}
