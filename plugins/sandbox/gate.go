package sandbox

import (
	"context"
	"sync"
)

// Gate lets a bounded number of calls into a stage, and none once it is shut.
// It is safe for concurrent use.
type Gate struct {
	// places has one for each call that is in; its capacity is their bound.
	places chan struct{}
	shut   chan struct{}
	once   sync.Once
}

// NewGate makes a gate that lets workers calls in at once.
func NewGate(workers int) *Gate {
	return &Gate{places: make(chan struct{}, workers), shut: make(chan struct{})}
}

// Enter takes a place, which Leave gives back. It blocks while there is none.
// The error is ErrClosed when the gate is shut, or that of ctx.
func (g *Gate) Enter(ctx context.Context) error {
	if g.IsShut() {
		return ErrClosed
	}
	select {
	case g.places <- struct{}{}:
		return nil
	case <-g.shut:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Leave gives a place back.
func (g *Gate) Leave() { <-g.places }

// Shut lets nobody in any more and waits for the calls that are in. It gives
// up waiting when ctx ends, with its error; it is for one caller, once.
func (g *Gate) Shut(ctx context.Context) error {
	g.once.Do(func() { close(g.shut) })
	for range cap(g.places) {
		select {
		case g.places <- struct{}{}:
			continue
		default:
		}
		select {
		case g.places <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// IsShut reports whether the gate was shut.
func (g *Gate) IsShut() bool {
	select {
	case <-g.shut:
		return true
	default:
		return false
	}
}
