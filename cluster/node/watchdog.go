package node

import (
	"context"
	"time"
)

// watchTick is how often progress is looked at.
const watchTick = 50 * time.Millisecond

// watch reports when the node cannot go on, and notices when proposals wait
// without progress: a disk that hangs gives no error.
func (n *Node) watch(ctx context.Context) {
	ticker := time.NewTicker(watchTick)
	defer ticker.Stop()
	var (
		stuck    time.Duration
		warned   bool
		finished uint64
		last     = time.Now()
	)
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.st.Failed():
			n.fail(n.st.Err())
		case <-n.failed:
		case <-ticker.C:
			now := time.Now()
			// A late tick means that this process did not run either.
			passed := min(now.Sub(last), 2*watchTick)
			last = now
			done := n.finished.Load()
			if n.pending.Load() == 0 || done != finished {
				if warned {
					n.logger.Info("commands are applied again", "after", stuck)
				}
				finished, stuck, warned = done, 0, false
				continue
			}
			stuck += passed
			if stuck >= n.cfg.StuckWarn && !warned {
				warned = true
				n.logger.Warn("no command was applied with commands waiting; is the disk hanging or full?", "for", stuck)
			}
			if stuck >= n.cfg.StuckExit {
				n.fail(&StuckError{stuck.Round(time.Millisecond).String()})
			}
		}
		if err := n.Err(); err != nil {
			if n.cfg.OnFailure != nil {
				n.cfg.OnFailure(err)
			}
			return
		}
	}
}
