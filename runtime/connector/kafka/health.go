package kafka

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// health keeps what went wrong last with each broker, from the client's hooks.
type health struct {
	mu   sync.Mutex
	last map[int32]setback // by broker; guarded by mu
}

type setback struct {
	err  error
	when time.Time
}

// failureLasts is how long a failure counts when it is not repeated: longer
// than the client's longest wait between two attempts and a dial's timeout.
const failureLasts = 20 * time.Second

func newHealth() *health { return &health{last: map[int32]setback{}} }

var (
	_ kgo.HookBrokerConnect = (*health)(nil)
	_ kgo.HookBrokerE2E     = (*health)(nil)
)

// OnBrokerConnect implements kgo.HookBrokerConnect.
func (h *health) OnBrokerConnect(meta kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		h.last[meta.NodeID] = setback{err, time.Now()}
		return
	}
	h.well(meta.NodeID)
}

// OnBrokerE2E implements kgo.HookBrokerE2E.
func (h *health) OnBrokerE2E(meta kgo.BrokerMetadata, _ int16, e kgo.BrokerE2E) {
	if e.Err() != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.well(meta.NodeID)
}

// well forgets what was wrong with a broker, and with the addresses that the
// client began with: one of them works, or a broker they told of does. mu is
// held.
func (h *health) well(node int32) {
	if len(h.last) == 0 {
		return
	}
	for n := range h.last {
		if n == node || n < 0 {
			delete(h.last, n)
		}
	}
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

// logger passes the client's messages on: its errors and warnings are details
// of what Problem and the classified errors tell, so they count as debug.
type logger struct{ l *slog.Logger }

// Level implements kgo.Logger.
func (l logger) Level() kgo.LogLevel {
	if l.l.Enabled(context.Background(), slog.LevelDebug) {
		return kgo.LogLevelWarn
	}
	return kgo.LogLevelNone
}

// Log implements kgo.Logger.
func (l logger) Log(_ kgo.LogLevel, msg string, keyvals ...any) {
	l.l.Debug(msg, keyvals...)
}
