package kafka

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// health keeps what went wrong last with each broker, from the client's hooks.
type health struct {
	cfg Config // set by options, before the client starts

	mu    sync.Mutex
	last  map[int32]setback // by broker; guarded by mu
	fresh map[int32]bool    // brokers whose newest connection has answered no request; guarded by mu
}

type setback struct {
	err  error
	when time.Time
}

// failureLasts is how long a failure counts when it is not repeated: longer
// than the client's longest wait between two attempts and a dial's timeout.
const failureLasts = 20 * time.Second

func newHealth() *health { return &health{last: map[int32]setback{}, fresh: map[int32]bool{}} }

var (
	_ kgo.HookBrokerConnect = (*health)(nil)
	_ kgo.HookBrokerE2E     = (*health)(nil)
)

// OnBrokerConnect implements kgo.HookBrokerConnect.
func (h *health) OnBrokerConnect(meta kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, kgo.ErrClientClosed) {
		return // who asked did not wait
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		h.ill(meta, opening, err)
		return
	}
	h.fresh[meta.NodeID] = true
}

// OnBrokerE2E implements kgo.HookBrokerE2E.
func (h *health) OnBrokerE2E(meta kgo.BrokerMetadata, key int16, e kgo.BrokerE2E) {
	if isOpening(key) {
		return // OnBrokerConnect tells how these end
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case e.Err() == nil:
		delete(h.fresh, meta.NodeID)
		h.well(meta.NodeID)
	case h.fresh[meta.NodeID] && closed(e.Err()):
		h.ill(meta, requesting, e.Err())
	}
}

// isOpening reports whether a request belongs to the opening of a connection.
func isOpening(key int16) bool {
	return key == kmsg.ApiVersions.Int16() || key == kmsg.SASLHandshake.Int16() || key == kmsg.SASLAuthenticate.Int16()
}

// ill notes a failure. mu is held.
func (h *health) ill(meta kgo.BrokerMetadata, at phase, err error) {
	addr := net.JoinHostPort(meta.Host, strconv.Itoa(int(meta.Port)))
	h.last[meta.NodeID] = setback{h.cfg.explainConnect(meta.NodeID, addr, at, err), time.Now()}
}

// phase is how far the newest connection has come.
func (h *health) phase() phase {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.fresh) > 0 {
		return requesting
	}
	return opening
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
