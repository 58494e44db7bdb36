package delivery

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	connhttp "github.com/millrace-io/millrace/runtime/connector/http"
	"github.com/millrace-io/millrace/runtime/delivery/batch"
	"github.com/millrace-io/millrace/runtime/delivery/sign"
	"github.com/millrace-io/millrace/runtime/delivery/verdict"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

// loopback is a sender over HTTP, as a node makes one.
func loopback(tb testing.TB, concurrent int) Sender {
	c, err := connhttp.NewClient(connhttp.Config{Concurrent: concurrent, Timeout: 5 * time.Second})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	return func(ctx context.Context, r *sign.Request, timeout time.Duration) (*verdict.Response, error) {
		resp, err := c.Send(ctx, (*connhttp.Request)(r), timeout)
		return (*verdict.Response)(resp), err
	}
}

// deliverAll delivers n records, a window at a time.
func deliverAll(tb testing.TB, e *Engine, n int) {
	const window = 2048
	l := e.Open(part, nil)
	defer l.Close()
	value := []byte(strings.Repeat("x", 200))
	room := make(chan struct{}, window) // records under way
	var wg sync.WaitGroup
	var failed atomic.Int64
	for at := 0; at < n; {
		size := min(256, n-at)
		its := make([]record.Item, size)
		for i := range its {
			room <- struct{}{}
			its[i].Record = record.Record{Topic: "t", Offset: int64(at + i), Key: fmt.Appendf(nil, "k%d", (at+i)%5000), Value: value}
		}
		wg.Add(size)
		l.Deliver(context.Background(), its, func(_ int, o record.Outcome) {
			if o.Err != nil || o.Keep != nil {
				failed.Add(1)
			}
			<-room
			wg.Done()
		})
		at += size
	}
	wg.Wait()
	if failed.Load() > 0 {
		tb.Errorf("%d failed", failed.Load())
	}
}

// BenchmarkEngine is what the engine costs a record: the partner answers at
// once.
func BenchmarkEngine(b *testing.B) {
	ok := &verdict.Response{Status: 200}
	send := func(context.Context, *sign.Request, time.Duration) (*verdict.Response, error) { return ok, nil }
	for _, order := range []flow.Order{flow.OrderNone, flow.OrderKey, flow.OrderPartition} {
		for _, size := range []int{1, 100} {
			b.Run(fmt.Sprintf("order=%s/batch=%d", order, size), func(b *testing.B) {
				cfg := Config{Order: order, Build: builder(b, nil), Conn: NewConnection(ConnectionConfig{Send: send, Concurrent: 64})}
				if size > 1 {
					cfg.Batch = &batch.Config{Records: size, As: batch.Text, Item: template(b, "${key}"), Wait: 10 * time.Millisecond}
				}
				e := engine(b, nil, cfg, ConnectionConfig{})
				defer func() { _ = e.Close() }()
				b.ReportAllocs()
				b.ResetTimer()
				deliverAll(b, e, b.N)
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
			})
		}
	}
}

// BenchmarkPush compares a push with 64 requests in flight to a loopback
// server with 64 goroutines that do nothing but post.
func BenchmarkPush(b *testing.B) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	defer srv.Close()
	const inFlight = 64
	push, err := NewBuilder(BuilderConfig{ID: "deliver", Push: &flow.HTTPPush{Method: "POST", Path: "/o"}, Base: srv.URL})
	if err != nil {
		b.Fatal(err)
	}
	plain := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: inFlight, MaxIdleConns: inFlight}}
	defer plain.CloseIdleConnections()
	e := engine(b, nil, Config{Order: flow.OrderNone, Build: push, Conn: NewConnection(ConnectionConfig{Send: loopback(b, inFlight), Concurrent: inFlight})}, ConnectionConfig{})
	defer func() { _ = e.Close() }()
	native := func(n int) {
		var next atomic.Int64
		var wg sync.WaitGroup
		body := []byte(strings.Repeat("x", 200))
		for range inFlight {
			wg.Go(func() {
				for next.Add(1) <= int64(n) {
					hr, _ := http.NewRequest(http.MethodPost, srv.URL+"/o", bytes.NewReader(body))
					hr.Header.Set("Idempotency-Key", "k")
					resp, err := plain.Do(hr)
					if err != nil {
						b.Error(err)
						return
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
			})
		}
		wg.Wait()
	}
	native(2000) // both are warm
	deliverAll(b, e, 2000)
	var our, their time.Duration
	total := 0
	const turn = 2000 // they take turns, so that the machine's moods are shared
	for b.Loop() {
		began := time.Now()
		native(turn)
		their += time.Since(began)
		began = time.Now()
		deliverAll(b, e, turn)
		our += time.Since(began)
		total += turn
	}
	b.ReportMetric(float64(total)/our.Seconds(), "requests/s")
	b.ReportMetric(float64(total)/their.Seconds(), "native/s")
	b.ReportMetric(their.Seconds()/our.Seconds(), "ratio")
}
