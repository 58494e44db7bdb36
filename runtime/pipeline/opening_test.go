package pipeline

import (
	"context"
	"testing"

	"github.com/millrace-io/millrace/runtime/record"
)

// What a lane is opened with may be a million entries: once it has its own of
// them it lets go of the list.
func TestLaneLetsGoOfWhatItWasOpenedWith(t *testing.T) {
	src := newMemSource(1, 0, 1)
	f := New(Config{}, src, Linear(1, nil, pushInfo), []Delivery{&outlet{answer: taken}})
	ctx, cancel := context.WithCancel(t.Context())
	defer func() { cancel(); f.wg.Wait() }()
	f.mu.Lock()
	f.ctx = ctx
	f.mu.Unlock()
	key := record.EmissionKey{Offset: 7}
	if err := f.Open(LaneConfig{Partition: src.parts[0], Held: []HeldEntry{{Key: key, Delivery: pushInfo.ID, Hold: 3}}, Known: []record.EmissionKey{key}}); err != nil {
		t.Fatal(err)
	}
	l := f.snapshot()[0]
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cfg.Held != nil || l.cfg.Known != nil || l.held[key].hold != 3 || !l.known[key] {
		t.Errorf("held %v and %v, known %v and %v", l.cfg.Held, l.held, l.cfg.Known, l.known)
	}
}
