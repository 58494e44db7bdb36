package rocketmq

import (
	"sync"
	"time"
)

// health keeps what went wrong last, by who it went wrong with.
type health struct {
	mu   sync.Mutex
	last map[string]setback // guarded by mu
}

type setback struct {
	err  error
	when time.Time
}

// failureLasts is how long a failure counts when it is not repeated: longer
// than any pause between two attempts.
const failureLasts = 20 * time.Second

func newHealth() *health { return &health{last: map[string]setback{}} }

func (h *health) fail(who string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last[who] = setback{err, time.Now()}
}

func (h *health) well(who string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.last, who)
}

// problem is the latest failure that still counts, or empty.
func (h *health) problem() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var worst setback
	for _, f := range h.last {
		if time.Since(f.when) < failureLasts && f.when.After(worst.when) {
			worst = f
		}
	}
	if worst.err == nil {
		return ""
	}
	return worst.err.Error()
}
