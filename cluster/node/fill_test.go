package node

import (
	"errors"
	"sync"
	"testing"

	"github.com/millrace-io/millrace/cluster/state"
)

var errKilled = errors.New("killed by the test")

// fill proposes many commands, 64 at a time.
func fill(t testing.TB, n *Node, count int, cmd func(i int) state.Command) {
	t.Helper()
	ctx := testContext(t)
	next := make(chan int)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for i := range next {
				if _, err := n.Propose(ctx, cmd(i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range count {
		next <- i
	}
	close(next)
	wg.Wait()
}
