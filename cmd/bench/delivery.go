package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/cluster/node"
	"github.com/millrace-io/millrace/cluster/state"
	connector "github.com/millrace-io/millrace/runtime/connector/http"
	"github.com/millrace-io/millrace/runtime/delivery"
	"github.com/millrace-io/millrace/runtime/delivery/batch"
	"github.com/millrace-io/millrace/runtime/delivery/sign"
	judging "github.com/millrace-io/millrace/runtime/delivery/verdict"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

const (
	pushesInFlight = 64
	pushesARound   = 10_000
	keptEntries    = 1_000_000
)

// benchDelivery measures pushes to a server on loopback, a process of its own,
// beside a client that does nothing but post; and the records that wait in the
// state.
func benchDelivery(ctx context.Context, o options) ([]row, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	srv, err := self(ctx, "sink", addr)
	if err != nil {
		return nil, err
	}
	defer func() { _, _ = srv.end() }()
	err = attempt(ctx, "the server", func() error {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			err = c.Close()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	plain := &http.Client{Transport: &http.Transport{MaxIdleConns: pushesInFlight, MaxIdleConnsPerHost: pushesInFlight}}
	ours, err := newPusher(addr, 1)
	if err != nil {
		return nil, err
	}
	defer ours.close()
	batched, err := newPusher(addr, 100)
	if err != nil {
		return nil, err
	}
	defer batched.close()
	var ratios, singles, natives, many []float64
	for i := range o.rounds + 1 { // the first one warms up
		native, err := timed(func() error { return post(ctx, plain, "http://"+addr+"/o", pushesARound) })
		if err != nil {
			return nil, err
		}
		single, err := timed(func() error { return ours.push(ctx, pushesARound) })
		if err != nil {
			return nil, err
		}
		all, err := timed(func() error { return batched.push(ctx, 20*pushesARound) })
		if err != nil {
			return nil, err
		}
		if i == 0 {
			continue
		}
		ratios = append(ratios, native.Seconds()/single.Seconds())
		natives = append(natives, pushesARound/native.Seconds())
		singles = append(singles, pushesARound/single.Seconds())
		many = append(many, 20*pushesARound/all.Seconds())
	}
	rows := []row{
		{figure: "native client, 64 in flight", value: fmt.Sprintf("%.0f requests/s", median(natives))},
		{figure: "push, order none, 64 in flight", value: fmt.Sprintf("%.0f requests/s", median(singles))},
		atLeast("push / native", median(ratios), 0.7, "x"),
		{figure: "push in batches of 100", value: fmt.Sprintf("%.0f records/s", median(many))},
	}
	kept, err := benchKept(ctx)
	return append(rows, kept...), err
}

func timed(f func() error) (time.Duration, error) {
	began := time.Now()
	err := f()
	return time.Since(began), err
}

// runSink answers every request with 200.
func runSink(ctx context.Context, args []string) error {
	s := &http.Server{Addr: args[0], ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// post makes n requests, as many at once as a push does.
func post(ctx context.Context, c *http.Client, url string, n int) error {
	body := []byte(strings.Repeat("x", 200))
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for range pushesInFlight {
		wg.Go(func() {
			for next.Add(1) <= int64(n) {
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
				if err == nil {
					req.Header.Set("Idempotency-Key", "0123456789abcdef/0/orders/0/12345")
					var resp *http.Response
					if resp, err = c.Do(req); err == nil {
						_, err = io.Copy(io.Discard, resp.Body)
						_ = resp.Body.Close()
					}
				}
				if err != nil {
					failed.Store(&err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// pusher is a delivery as a node makes one.
type pusher struct {
	client *connector.Client
	engine *delivery.Engine
	lane   *delivery.Lane
	offset int64
}

func newPusher(addr string, size int) (*pusher, error) {
	client, err := connector.NewClient(connector.Config{Concurrent: pushesInFlight})
	if err != nil {
		return nil, err
	}
	send := func(ctx context.Context, r *sign.Request, timeout time.Duration) (*judging.Response, error) {
		resp, err := client.Send(ctx, (*connector.Request)(r), timeout)
		return (*judging.Response)(resp), err
	}
	build, err := delivery.NewBuilder(delivery.BuilderConfig{ID: "deliver", Push: &flow.HTTPPush{Method: http.MethodPost, Path: "/o"}, Base: "http://" + addr})
	if err != nil {
		return nil, err
	}
	cfg := delivery.Config{ID: "deliver", Order: flow.OrderNone, Build: build, Conn: delivery.NewConnection(delivery.ConnectionConfig{Name: "bench", Concurrent: pushesInFlight, Send: send})}
	if size > 1 {
		cfg.Batch = &batch.Config{Records: size, Wait: 10 * time.Millisecond}
	}
	e, err := delivery.New(cfg)
	if err != nil {
		return nil, err
	}
	return &pusher{client: client, engine: e, lane: e.Open(record.Partition{Topic: "orders"}, nil)}, nil
}

func (p *pusher) close() {
	p.lane.Close()
	_ = p.engine.Close()
	_ = p.client.Close()
}

// push delivers n records, a window of 1,000 at a time as a lane has it.
func (p *pusher) push(ctx context.Context, n int) error {
	value := []byte(`{"note":"` + strings.Repeat("x", 189) + `"}`)
	room := make(chan struct{}, 1000) // records under way
	var failed atomic.Pointer[error]
	for n > 0 {
		items := make([]record.Item, min(100, n))
		for i := range items {
			room <- struct{}{}
			p.offset++
			items[i].Record = record.Record{Topic: "orders", Offset: p.offset, Value: value}
		}
		p.lane.Deliver(ctx, items, func(_ int, o record.Outcome) {
			if o.Err != nil {
				failed.Store(&o.Err)
			}
			<-room
		})
		n -= len(items)
	}
	for range cap(room) { // until all have been answered
		room <- struct{}{}
	}
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// keptFigures are what the child that keeps records has measured.
type keptFigures struct {
	Insert, Due, Open float64 // entries/s, entries/s, s
	MiB               float64 // of the process, at its highest
	Disk              float64 // MiB
}

func benchKept(ctx context.Context) ([]row, error) {
	dir, err := os.MkdirTemp("", "millrace-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	c, err := self(ctx, "kept", dir)
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Wait(); err != nil {
		return nil, fmt.Errorf("keep records: %w", err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "figures.json"))
	if err != nil {
		return nil, err
	}
	var f keptFigures
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, err
	}
	return []row{
		{figure: "1,000,000 kept records of 300 bytes: insert, 256 a commit, through raft into Pebble on disk", value: fmt.Sprintf("%.0f entries/s", f.Insert)},
		{figure: "  scan for what is due, 256 at a time", value: fmt.Sprintf("%.0f entries/s", f.Due)},
		{figure: "  what a lane reads of them when it opens", value: fmt.Sprintf("%.2f s", f.Open)},
		{figure: "  memory of the process at its highest; on disk", value: fmt.Sprintf("%.0f MiB; %.0f MiB", f.MiB, f.Disk)},
	}, nil
}

// runKept keeps a million records and writes down what that took.
func runKept(ctx context.Context, args []string) error {
	n, err := node.Open(ctx, node.Config{Dir: filepath.Join(args[0], "node")})
	if err != nil {
		return err
	}
	defer n.Close()
	res, err := n.Propose(ctx, &state.FlowPut{Project: "default", Name: "bench", UID: 1, Document: []byte("x"), Resolved: []byte("x"), Slots: 1})
	if err != nil {
		return err
	}
	id := res.Value.(*state.FlowPutResult).Flow
	if _, err := n.Propose(ctx, &state.PartitionsAdd{Flow: id, Partitions: []state.PartitionKey{{Kind: "kafka", Topic: "orders"}}}); err != nil {
		return err
	}
	var slot state.Slot
	err = attempt(ctx, "the slot", func() error {
		slots, err := n.State().Slots(id)
		if err != nil {
			return err
		}
		if slot = slots[0]; slot.Owner != n.ID() {
			return errors.New("it has no owner")
		}
		return nil
	})
	if err != nil {
		return err
	}
	var f keptFigures
	due := time.Now().UnixMilli()
	began := time.Now()
	for at := int64(0); at < keptEntries; at += 256 {
		c := &state.Commit{Node: n.ID(), Incarnation: n.Incarnation(), Items: []state.CommitItem{{Flow: id, Epoch: slot.Epoch, Low: at, Life: 1}}}
		for i := at; i < min(at+256, keptEntries); i++ {
			value := fmt.Appendf(nil, `{"id":%d,"customer":"%x","note":%q}`, i, uint64(i)*0x9e3779b97f4a7c15, strings.Repeat("by noon ", 28))
			c.Keeps = append(c.Keeps, state.CommitRetry{Flow: id, Entry: &record.Retry{Stage: "deliver", Class: record.Retryable, Code: 503, Message: "busy", Attempts: 1, First: due, At: due, Due: due + i%60_000,
				Hold: uint64(i)%10_000 + 1, Input: record.Record{Topic: "orders", Offset: i, Key: fmt.Appendf(nil, "shop-%d", i%10_000), Value: value, To: -1}}})
		}
		res, err := n.Propose(ctx, c)
		if err != nil {
			return err
		}
		if r := res.Value.(*state.CommitResult); len(r.Refused) > 0 {
			return fmt.Errorf("the commit was refused: %+v", r.Refused)
		}
	}
	f.Insert = keptEntries / time.Since(began).Seconds()
	began = time.Now()
	if err := n.State().RetryIndex(id, 0, func(state.RetryMark) bool { return true }); err != nil {
		return err
	}
	f.Open = time.Since(began).Seconds()
	// What is due are the first of each key: they are scanned again and again.
	seen := 0
	began = time.Now()
	for seen < keptEntries/4 {
		var after state.RetryCursor
		for {
			entries, last, _, err := n.State().RetryDue(id, 0, due+100_000, after, 256)
			if err != nil {
				return err
			}
			if len(entries) == 0 {
				break
			}
			after = last
			seen += len(entries)
		}
	}
	f.Due = float64(seen) / time.Since(began).Seconds()
	if f.MiB, err = highestMiB(); err != nil {
		return err
	}
	err = filepath.Walk(filepath.Join(args[0], "node"), func(_ string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			f.Disk += float64(info.Size()) / (1 << 20)
		}
		return nil // a file may go away meanwhile
	})
	if err != nil {
		return err
	}
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(args[0], "figures.json"), b, 0o600)
}

// highestMiB is the most resident memory that this process has had.
func highestMiB() (float64, error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			var kib float64
			_, err := fmt.Sscan(rest, &kib)
			return kib / 1024, err
		}
	}
	return 0, errors.New("the system does not say how much memory this process has had")
}
