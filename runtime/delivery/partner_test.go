package delivery

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/runtime/delivery/sign"
	"github.com/millrace-io/millrace/runtime/delivery/verdict"
	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

// order is what the tests' records hold.
type order struct {
	Key    string `json:"k"`
	Offset int64  `json:"o"`
}

// rec is a record; key "" is no key.
func rec(offset int64, key string) record.Record {
	value, _ := json.Marshal(order{key, offset})
	r := record.Record{Topic: "t", Offset: offset, Value: value}
	if key != "" {
		r.Key = []byte(key)
	}
	return r
}

func items(recs ...record.Record) []record.Item {
	out := make([]record.Item, len(recs))
	for i := range recs {
		out[i].Record = recs[i]
	}
	return out
}

// exchange is a request that the partner got.
type exchange struct {
	at     time.Time
	key    string // Idempotency-Key
	orders []order
	req    *sign.Request
}

// partner answers requests in memory.
type partner struct {
	mu sync.Mutex
	// answer says what a request gets and after how long; nil: 200 at once.
	answer func(x exchange) (status int, body string, after time.Duration)
	header http.Header
	// patience is the Retry-After of 429 and 503.
	patience string
	seen     []exchange // guarded by mu
	under    int        // guarded by mu
	most     int        // guarded by mu
	// check is called with mu held when a request comes and when it is
	// answered.
	check func(x exchange, begins bool)
}

// ordersOf reads a body.
func ordersOf(body []byte) []order {
	if len(body) > 0 && body[0] == '[' {
		var all []order
		_ = json.Unmarshal(body, &all)
		return all
	}
	var one order
	_ = json.Unmarshal(body, &one)
	return []order{one}
}

func (p *partner) send(ctx context.Context, r *sign.Request, _ time.Duration) (*verdict.Response, error) {
	x := exchange{at: time.Now(), req: r}
	for _, h := range r.Header {
		if h.Key == "Idempotency-Key" {
			x.key = string(h.Value)
		}
	}
	x.orders = ordersOf(r.Body)
	p.mu.Lock()
	p.seen = append(p.seen, x)
	if p.under++; p.under > p.most {
		p.most = p.under
	}
	if p.check != nil {
		p.check(x, true)
	}
	answer := p.answer
	p.mu.Unlock()
	status, body, after := 200, "", time.Duration(0)
	if answer != nil {
		status, body, after = answer(x)
	}
	if after > 0 {
		timer := time.NewTimer(after)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			status = -1
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.under--
	if p.check != nil {
		p.check(x, false)
	}
	switch status {
	case -1:
		return nil, fmt.Errorf("cut off: %w", context.Canceled)
	case 0:
		return nil, record.Errorf(record.Retryable, "POST http://partner.example/orders: connection refused")
	case 1:
		return nil, record.Errorf(record.Timeout, "POST http://partner.example/orders: no answer within 3s")
	}
	resp := &verdict.Response{Status: status, Body: []byte(body)}
	if p.patience != "" && (status == 429 || status == 503) {
		resp.Header = append(resp.Header, record.Header{Key: "Retry-After", Value: []byte(p.patience)})
	}
	for k, vs := range p.header {
		for _, v := range vs {
			resp.Header = append(resp.Header, record.Header{Key: k, Value: []byte(v)})
		}
	}
	return resp, nil
}

func (p *partner) set(answer func(exchange) (int, string, time.Duration)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = answer
}

// always answers with one status.
func always(status int) func(exchange) (int, string, time.Duration) {
	return func(exchange) (int, string, time.Duration) { return status, "", 0 }
}

func (p *partner) requests() []exchange {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]exchange(nil), p.seen...)
}

// offsets are those of the records in the requests, in order.
func (p *partner) offsets() string {
	var b strings.Builder
	for _, x := range p.requests() {
		for i, o := range x.orders {
			if i > 0 {
				b.WriteByte('+')
			}
			fmt.Fprint(&b, o.Offset)
		}
		b.WriteByte(' ')
	}
	return strings.TrimSpace(b.String())
}

func builder(t testing.TB, push *flow.HTTPPush) *Builder {
	t.Helper()
	if push == nil {
		push = &flow.HTTPPush{Method: "POST", Path: "/orders"}
	}
	return newBuilder(t, push, 1)
}

// builderOf is a builder of a flow whose offsets were reset some times.
func builderOf(t testing.TB, generation uint32) *Builder {
	t.Helper()
	return newBuilder(t, &flow.HTTPPush{Method: "POST", Path: "/orders"}, generation)
}

func newBuilder(t testing.TB, push *flow.HTTPPush, generation uint32) *Builder {
	t.Helper()
	b, err := NewBuilder(BuilderConfig{ID: "deliver", Push: push, Base: "http://partner.example", Scope: expr.Scope{Roots: expr.RecordRoots}, Identity: Identity{FlowUID: 1, Generation: generation}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// engine makes a delivery to a partner.
func engine(t testing.TB, p *partner, cfg Config, conn ConnectionConfig) *Engine {
	t.Helper()
	cfg.ID = "deliver"
	if cfg.Build == nil {
		cfg.Build = builder(t, nil)
	}
	if cfg.Conn == nil {
		conn.Name = "partner"
		conn.Send = p.send
		cfg.Conn = NewConnection(conn)
	}
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// outcomes collects what done was called with, once an index.
type outcomes struct {
	t     testing.TB
	mu    sync.Mutex
	got   map[int]record.Outcome
	order []int
}

func collect(t testing.TB) *outcomes { return &outcomes{t: t, got: map[int]record.Outcome{}} }

func (o *outcomes) done(i int, out record.Outcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, twice := o.got[i]; twice {
		o.t.Errorf("index %d was answered twice", i)
	}
	o.got[i] = out
	o.order = append(o.order, i)
}

func (o *outcomes) len() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.got)
}

// say is the outcomes in short: ok, keep, park, canceled or a class; - for
// none.
func (o *outcomes) say(n int) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var words []string
	for i := range n {
		out, ok := o.got[i]
		words = append(words, sayOutcome(out, ok))
	}
	return strings.Join(words, " ")
}

func sayOutcome(out record.Outcome, ok bool) string {
	switch {
	case !ok:
		return "-"
	case out.Keep != nil && out.Keep.Due == 0:
		return "park"
	case out.Keep != nil:
		return "keep"
	case out.Err == nil:
		return "ok"
	}
	if e, ok := out.Err.(*record.Error); ok {
		return e.Class.String()
	}
	return "canceled"
}
