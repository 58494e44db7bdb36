package daemon

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/twin/capture"
	"github.com/millrace-io/millrace/runtime/delivery"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

// Bounds of what an onlooker has not looked at yet: what comes beyond is passed
// over and counted.
const (
	onlookerQueue = 256
	onlookerBytes = 8 << 20
)

// onlookers look at what goes over a connection. It is a delivery.Observer,
// and costs a request one look at a number while nobody looks.
type onlookers struct {
	n   atomic.Int32
	mu  sync.Mutex
	all []*onlooker // guarded by mu
}

// onlooker is one of them.
type onlooker struct {
	queue  chan *delivery.Observed // capacity: what waits at most
	bytes  atomic.Int64            // of what waits
	missed atomic.Int64
}

// Wants implements delivery.Observer.
func (o *onlookers) Wants() bool { return o.n.Load() > 0 }

// Observe implements delivery.Observer. It does not block.
func (o *onlookers) Observe(x *delivery.Observed) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, l := range o.all {
		l.offer(x, int64(x.Size()))
	}
}

// offer leaves an exchange of a size to be looked at; the onlookers' mu is held.
func (l *onlooker) offer(x *delivery.Observed, size int64) {
	if waiting := l.bytes.Load(); waiting == 0 || waiting+size <= onlookerBytes {
		l.bytes.Add(size)
		select {
		case l.queue <- x:
			return
		default:
			l.bytes.Add(-size)
		}
	}
	l.missed.Add(1)
}

func (o *onlookers) join() *onlooker {
	l := &onlooker{queue: make(chan *delivery.Observed, onlookerQueue)}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all = append(o.all, l)
	o.n.Add(1)
	return l
}

func (o *onlookers) leave(l *onlooker) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all = slices.DeleteFunc(o.all, func(x *onlooker) bool { return x == l })
	o.n.Add(-1)
}

// onlookers are those of a connection.
func (cs *connections) onlookers(name string) *onlookers {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	o := cs.seen[name]
	if o == nil {
		o = &onlookers{}
		cs.seen[name] = o
	}
	return o
}

// Exchanges implements api.Backend.
func (d *Daemon) Exchanges(ctx context.Context, q *api.ExchangeQuery) (*api.ExchangePage, error) {
	if _, anonymous := flow.Anonymous(q.Connection); !anonymous {
		c, err := d.Connection(ctx, q.Connection)
		if err != nil {
			return nil, err
		}
		if c.Kind != "http" {
			return nil, invalid("connection %s is of kind %s: only requests over http can be recorded", c.Name, c.Kind)
		}
	}
	if d.connections.usage(q.Connection) == nil {
		return nil, &api.Error{Code: api.CodeConflict, Detail: fmt.Sprintf("no flow on this node delivers over connection %s now", q.Connection), Next: "start one that does: `flowctl flow start FLOW`"}
	}
	look := time.Duration(q.Millis) * time.Millisecond
	if look <= 0 || look > api.MaxExchangeTime {
		look = api.MaxExchangeTime
	}
	count := q.Count
	if count <= 0 || count > api.MaxExchanges {
		count = api.MaxExchanges
	}
	all := d.connections.onlookers(q.Connection)
	l := all.join()
	defer all.leave(l)
	began := time.Now()
	timer := time.NewTimer(look)
	defer timer.Stop()
	page := &api.ExchangePage{Items: []capture.Exchange{}}
	for bytes, over := 0, false; !over && len(page.Items) < count && bytes < api.MaxExchangeBytes; {
		select {
		case x := <-l.queue:
			l.bytes.Add(-int64(x.Size()))
			one := exchangeOf(x)
			page.Items = append(page.Items, one)
			bytes += len(one.Request.Body) + len(one.Response.Body) + len(one.Request.URL) + 512
		case <-timer.C:
			over = true
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	page.Missed, page.Millis = l.missed.Load()+int64(len(l.queue)), time.Since(began).Milliseconds()
	return page, nil
}

// shownBody is how much of a body is recorded: more than a twin's file takes.
const shownBody = 16 << 10

// exchangeOf is what was observed as a capture has it: without credentials and
// signatures, and without what is called like a secret in a body.
func exchangeOf(o *delivery.Observed) capture.Exchange {
	x := o.Exchange(shownBody)
	out := capture.Exchange{
		Time: o.Time.UTC(), Millis: float64(o.Took.Microseconds()) / 1000, Verdict: o.Verdict,
		Request: capture.Request{Method: x.Method, URL: x.URL, Headers: captured(x.RequestHeaders)},
	}
	if utf8.Valid(x.RequestBody) {
		out.Request.Body = string(x.RequestBody)
	}
	if o.Err != nil {
		out.Error = record.AsError(o.Err).Class.String()
	} else {
		out.Response = capture.Response{Status: x.Status, Headers: captured(x.ResponseHeaders)}
		if utf8.Valid(x.ResponseBody) {
			out.Response.Body = string(x.ResponseBody)
		}
	}
	capture.Redact(&out)
	return out
}

func captured(hs []record.Header) map[string]string {
	out := map[string]string{}
	for _, h := range hs {
		name := http.CanonicalHeaderKey(h.Key)
		if was, ok := out[name]; ok {
			out[name] = strings.Join([]string{was, string(h.Value)}, ", ")
		} else {
			out[name] = string(h.Value)
		}
	}
	return out
}
