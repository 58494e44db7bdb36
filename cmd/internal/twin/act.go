package twin

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"time"
)

// pieces is how many parts a slow body is sent in.
const pieces = 20

// wait blocks for d; false if the caller left or the twin is closed before.
func (t *Twin) wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	case <-t.done:
	}
	return false
}

// act carries a plan out. Sent: all of the answer was handed to the
// connection. Abort: the server has to drop the connection.
func (t *Twin) act(w http.ResponseWriter, req *http.Request, p plan) (sent, abort bool) {
	ctx := req.Context()
	if !t.wait(ctx, p.latency+p.hang) || p.hang > 0 || p.reset == resetBefore {
		return false, !breakOff(w)
	}
	flow := http.NewResponseController(w)
	for k, v := range p.header {
		w.Header()[k] = v
	}
	length, body := len(p.body), p.body
	if p.reset == resetBody {
		if length < 2 {
			length = 2
		}
		body = body[:len(body)/2]
	}
	if p.status == http.StatusNoContent || p.status == http.StatusNotModified {
		body = nil
	} else {
		w.Header().Set("Content-Length", strconv.Itoa(length))
	}
	w.WriteHeader(p.status)
	if p.slow > 0 {
		if !t.trickle(ctx, w, flow, body, p.slow) {
			return false, !breakOff(w)
		}
	} else if _, err := w.Write(body); err != nil && len(body) > 0 {
		return false, true
	}
	if err := flow.Flush(); err != nil {
		return false, true
	}
	if p.reset == resetBody {
		return false, !breakOff(w)
	}
	return true, false
}

// trickle writes a body piece by piece over a time.
func (t *Twin) trickle(ctx context.Context, w http.ResponseWriter, flow *http.ResponseController, body []byte, over time.Duration) bool {
	if err := flow.Flush(); err != nil { // the headers come at once
		return false
	}
	for i := range pieces {
		if !t.wait(ctx, over/pieces) {
			return false
		}
		if _, err := w.Write(body[len(body)*i/pieces : len(body)*(i+1)/pieces]); err != nil {
			return false
		}
		if err := flow.Flush(); err != nil {
			return false
		}
	}
	return true
}

// breakOff resets the connection below w; false if it cannot be had.
func breakOff(w http.ResponseWriter) bool {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return false
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // closing sends RST instead of FIN
	}
	_ = conn.Close()
	return true
}
