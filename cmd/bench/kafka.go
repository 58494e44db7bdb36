package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/devbroker"
	"github.com/millrace-io/millrace/examples"
	"github.com/millrace-io/millrace/examples/orders/gen"
	"github.com/millrace-io/millrace/examples/orders/orderstage"
)

// runBroker is the role of the broker: ADDR DIR PARTITIONS.
func runBroker(ctx context.Context, args []string) error {
	var partitions int
	if _, err := fmt.Sscan(args[2], &partitions); err != nil {
		return err
	}
	b, err := devbroker.Start(devbroker.Config{Listen: args[0], Dir: args[1], Partitions: partitions})
	if err != nil {
		return err
	}
	<-ctx.Done()
	return b.Close()
}

// runNative is the role of the native loop: ADDR IN OUT. Two workers share the
// partitions; each scans by hand and produces without waiting.
func runNative(ctx context.Context, args []string) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(args[0]), kgo.ConsumeTopics(args[1]), kgo.DefaultProduceTopic(args[2]),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(250*time.Millisecond),
		kgo.ProducerBatchCompression(kgo.Lz4Compression()), kgo.MaxBufferedRecords(20_000))
	if err != nil {
		return err
	}
	defer cl.Close()
	var failure error
	var once sync.Once
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	work := func(recs []*kgo.Record) {
		buf := make([]byte, 0, 320*len(recs))
		out := make([]kgo.Record, 0, len(recs))
		for _, r := range recs {
			at := len(buf)
			var o orderstage.Outcome
			if buf, o = orderstage.Order(buf, r.Value); o != orderstage.Emit {
				continue
			}
			out = append(out, kgo.Record{Key: r.Key, Value: buf[at:len(buf):len(buf)], Timestamp: r.Timestamp})
			cl.Produce(ctx, &out[len(out)-1], func(_ *kgo.Record, err error) {
				if err != nil && ctx.Err() == nil {
					once.Do(func() { failure = err; stop() })
				}
			})
		}
	}
	var workers [2]chan []*kgo.Record
	var wg sync.WaitGroup
	for i := range workers {
		workers[i] = make(chan []*kgo.Record, 4) // a few partitions ahead of the workers
		wg.Go(func() {
			for recs := range workers[i] {
				work(recs)
			}
		})
	}
	for ctx.Err() == nil {
		fs := cl.PollFetches(ctx)
		fs.EachPartition(func(p kgo.FetchTopicPartition) {
			if len(p.Records) > 0 {
				workers[int(p.Partition)%len(workers)] <- p.Records
			}
		})
	}
	for _, w := range workers {
		close(w)
	}
	wg.Wait()
	return failure
}

// world is a broker with a filled topic.
type world struct {
	addr   string
	cl     *kgo.Client
	adm    *kadm.Client
	broker *child
	expect int64 // records that come out
	dir    string
}

func newWorld(ctx context.Context, o options) (*world, error) {
	dir, err := os.MkdirTemp("", "millrace-bench-")
	if err != nil {
		return nil, err
	}
	w := &world{dir: dir}
	if w.addr, err = freeAddr(); err != nil {
		return nil, err
	}
	if w.broker, err = self(ctx, "broker", w.addr, filepath.Join(dir, "broker"), fmt.Sprint(o.partitions)); err != nil {
		return nil, err
	}
	if err := waitFor(ctx, w.addr); err != nil {
		return nil, err
	}
	w.cl, err = kgo.NewClient(kgo.SeedBrokers(w.addr), kgo.MaxBufferedRecords(50_000), kgo.ProducerBatchCompression(kgo.Lz4Compression()))
	if err != nil {
		return nil, err
	}
	w.adm = kadm.NewClient(w.cl)
	return w, w.fill(ctx, o)
}

func (w *world) close() {
	if w.cl != nil {
		w.cl.Close()
	}
	if w.broker != nil {
		_, _ = w.broker.end()
	}
	_ = os.RemoveAll(w.dir)
}

// fill makes the input topic once.
func (w *world) fill(ctx context.Context, o options) error {
	if _, err := w.adm.CreateTopic(ctx, int32(o.partitions), 1, nil, "orders"); err != nil {
		return err
	}
	g := gen.New(42)
	var mu sync.Mutex
	var failure error
	for range o.n {
		e := g.Next()
		if e.Mark == gen.Emit {
			w.expect++
		}
		w.cl.Produce(ctx, &kgo.Record{Topic: "orders", Key: e.Key, Value: e.Value}, func(_ *kgo.Record, err error) {
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failure = err
			}
		})
	}
	if err := w.cl.Flush(ctx); err != nil {
		return err
	}
	return failure
}

// measure runs a contestant until its output is complete.
func (w *world) measure(ctx context.Context, topic string, o options, begin func() (*child, error)) (rate, cpu float64, err error) {
	if _, err := w.adm.CreateTopic(ctx, int32(o.partitions), 1, nil, topic); err != nil {
		return 0, 0, err
	}
	c, err := begin()
	if err != nil {
		return 0, 0, err
	}
	defer func() { _, _ = c.end() }()
	var t5, t95 time.Time
	var n5, n95 int64
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(2 * time.Minute)
	for {
		n, err := w.count(ctx, topic)
		if err != nil {
			return 0, 0, err
		}
		if t5.IsZero() && n >= w.expect/20 {
			t5, n5 = time.Now(), n
		}
		if t95.IsZero() && n >= w.expect*19/20 {
			t95, n95 = time.Now(), n
		}
		if n >= w.expect {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		case <-deadline:
			return 0, 0, fmt.Errorf("topic %s holds %d of %d records after two minutes", topic, n, w.expect)
		}
	}
	used, err := c.end()
	if err != nil {
		return 0, 0, err
	}
	n, err := w.count(ctx, topic)
	if err != nil {
		return 0, 0, err
	}
	if n != w.expect {
		return 0, 0, fmt.Errorf("topic %s holds %d records, want exactly %d", topic, n, w.expect)
	}
	// Emitted records stand for the records read.
	scale := float64(o.n) / float64(w.expect)
	return float64(n95-n5) * scale / t95.Sub(t5).Seconds(), used.Seconds() * 1e6 / float64(o.n), nil
}

func (w *world) count(ctx context.Context, topic string) (int64, error) {
	ends, err := w.adm.ListEndOffsets(ctx, topic)
	if err != nil {
		return 0, err
	}
	n := int64(0)
	ends.Each(func(l kadm.ListedOffset) { n += max(0, l.Offset) })
	return n, ends.Error()
}

func benchKafka(ctx context.Context, o options) ([]row, error) {
	w, err := newWorld(ctx, o)
	if w != nil {
		defer w.close()
	}
	if err != nil {
		return nil, err
	}
	var nativeRate, nativeCPU, ourRate, ourCPU, rates, cpus []float64
	for round := range o.rounds {
		topic := fmt.Sprintf("native-%d", round)
		r, c, err := w.measure(ctx, topic, o, func() (*child, error) { return self(ctx, "native", w.addr, "orders", topic) })
		if err != nil {
			return nil, err
		}
		nativeRate, nativeCPU = append(nativeRate, r), append(nativeCPU, c)
		topic = fmt.Sprintf("millrace-%d", round)
		r2, c2, err := w.measure(ctx, topic, o, func() (*child, error) { return w.startNode(ctx, topic) })
		if err != nil {
			return nil, err
		}
		ourRate, ourCPU = append(ourRate, r2), append(ourCPU, c2)
		rates, cpus = append(rates, r2/r), append(cpus, c2/c)
	}
	return []row{
		{figure: "records/s, native loop", value: fmt.Sprintf("%.0f", median(nativeRate))},
		{figure: "records/s, millrace", value: fmt.Sprintf("%.0f", median(ourRate))},
		atLeast("records/s, ratio", median(rates), 0.5, "x"),
		{figure: "CPU us a record, native loop", value: fmt.Sprintf("%.2f", median(nativeCPU))},
		{figure: "CPU us a record, millrace (start and stop included)", value: fmt.Sprintf("%.2f", median(ourCPU))},
		atMost("CPU a record, ratio", median(cpus), 2.2, "x"),
	}, nil
}

// startNode starts a node and applies the orders flow with an output topic.
func (w *world) startNode(ctx context.Context, topic string) (*child, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	c, err := self(ctx, "node", addr, filepath.Join(w.dir, topic))
	if err != nil {
		return nil, err
	}
	if err := waitReady(ctx, addr); err != nil {
		_, _ = c.end()
		return nil, err
	}
	client := api.NewClient("http://" + addr)
	if err := applyOrders(ctx, client, w.addr, topic); err != nil {
		_, _ = c.end()
		return nil, err
	}
	return c, nil
}

func applyOrders(ctx context.Context, client api.Backend, broker, topic string) error {
	if _, err := client.PutConnection(ctx, &api.PutConnection{Document: "connection: v1\nname: main\nkafka: { brokers: [" + broker + "] }\n"}); err != nil {
		return err
	}
	wasm, err := examples.Files.Open("orders/orders.wasm")
	if err != nil {
		return err
	}
	defer wasm.Close()
	p, err := client.UploadPlugin(ctx, "orders.wasm", wasm)
	if err != nil {
		return err
	}
	doc, err := examples.Files.ReadFile("orders/flow.yaml")
	if err != nil {
		return err
	}
	text := strings.ReplaceAll(string(doc), "orders-out", topic)
	_, err = client.PutFlow(ctx, &api.PutFlow{Document: text, Files: map[string]string{"./orders.wasm": p.Digest}})
	return err
}
