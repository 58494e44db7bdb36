// Package gate holds what sources with a single partition share: whether it is
// assigned, from where, whether it is paused, and how a poll waits for that to
// change.
package gate

import (
	"context"
	"sync"

	"github.com/millrace-io/millrace/runtime/connector"
)

// Gate is the state of the partition. Safe for concurrent use.
type Gate struct {
	mu       sync.Mutex
	assigned bool          // guarded by mu
	paused   bool          // guarded by mu
	closed   bool          // guarded by mu
	offset   int64         // of the assignment; guarded by mu
	gen      uint64        // counts assignments; guarded by mu
	changed  chan struct{} // closed at the next change; guarded by mu
}

// Assignment is one call of Assign.
type Assignment struct {
	Offset int64
	// Gen tells assignments apart; the first is 1.
	Gen uint64
}

// New makes a gate with nothing assigned.
func New() *Gate { return &Gate{changed: make(chan struct{})} }

func (g *Gate) change(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
	close(g.changed)
	g.changed = make(chan struct{})
}

// Assign begins a new assignment, which is not paused.
func (g *Gate) Assign(offset int64) {
	g.change(func() {
		g.gen++
		g.assigned, g.paused, g.offset = true, false, offset
	})
}

// Unassign ends the assignment.
func (g *Gate) Unassign() { g.change(func() { g.assigned = false }) }

// End ends the assignment if it is still the one that gen names.
func (g *Gate) End(gen uint64) {
	g.change(func() {
		if g.gen == gen {
			g.assigned = false
		}
	})
}

// Pause holds the assignment back.
func (g *Gate) Pause() { g.change(func() { g.paused = true }) }

// Resume ends a Pause.
func (g *Gate) Resume() { g.change(func() { g.paused = false }) }

// Close ends everything for good.
func (g *Gate) Close() { g.change(func() { g.closed = true }) }

// Wait blocks until there is an assignment that is not paused. The error is
// ctx's or connector.ErrClosed.
func (g *Gate) Wait(ctx context.Context) (Assignment, error) {
	for {
		if err := ctx.Err(); err != nil {
			return Assignment{}, err
		}
		g.mu.Lock()
		a, open, closed, changed := Assignment{g.offset, g.gen}, g.assigned && !g.paused, g.closed, g.changed
		g.mu.Unlock()
		switch {
		case closed:
			return Assignment{}, connector.ErrClosed
		case open:
			return a, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// Open reports whether records of the assignment may be delivered. If so,
// changed is closed when that may no longer hold.
func (g *Gate) Open(gen uint64) (changed <-chan struct{}, open bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed, g.assigned && !g.paused && !g.closed && g.gen == gen
}
