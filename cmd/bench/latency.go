package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/cmd/bench/arena"
	"github.com/millrace-io/millrace/examples/orders/gen"
)

const (
	latencyRate   = 10_000           // records a second
	latencyTime   = 30 * time.Second // of them
	latencyWarmUp = 3 * time.Second  // before; not in the figures
	sentHeader    = "bench.sent"     // when the record went to the producer, Unix nanoseconds
)

// benchLatency sends order events at a steady rate to the node and to the loop
// by hand, one after the other, and measures how long each takes to come out.
func benchLatency(ctx context.Context, o options) ([]table, error) {
	o.contestants = base + ",node-rust"
	picked, w, done, err := meet(ctx, arena.Kafka, o)
	if err != nil {
		return nil, err
	}
	defer done()
	var rows []row
	for _, c := range picked {
		t, err := delays(ctx, w, c)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.Name, err)
		}
		p99 := row{figure: c.Name + ", from append to arrival, p99", value: fmt.Sprintf("%.3g ms", quantile(t.appended, 0.99))}
		if c.Name == "node-rust" {
			p99 = atMost(p99.figure, quantile(t.appended, 0.99), 50, " ms")
		}
		rows = append(rows,
			row{figure: fmt.Sprintf("%s, %d records at %d/s: from append to arrival, p50", c.Name, len(t.appended), latencyRate), value: fmt.Sprintf("%.3g ms", quantile(t.appended, 0.5))},
			p99,
			row{figure: c.Name + ", the longest", value: fmt.Sprintf("%.3g ms", slices.Max(t.appended))},
			row{figure: c.Name + ", with the way to the input topic, p99", value: fmt.Sprintf("%.3g ms", quantile(t.sent, 0.99))})
	}
	return []table{rowTable(rows)}, nil
}

// delay holds, record by record, the ms from the broker's append to the input
// topic, and from the handing over to the producer, until the record was read
// from the output topic. This process is producer and consumer, and the broker
// has the same clock.
type delay struct{ appended, sent []float64 }

func delays(ctx context.Context, w *arena.World, c arena.Contestant) (*delay, error) {
	task := w.Task("live-" + c.Name)
	task.In = task.Out + "-in"
	appendTime := "LogAppendTime"
	if err := w.CreateTopic(ctx, task.In, map[string]*string{"message.timestamp.type": &appendTime}); err != nil {
		return nil, err
	}
	if err := w.CreateTopic(ctx, task.Out, nil); err != nil {
		return nil, err
	}
	_, stop, err := w.Start(c, task)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 1) // the producer's one result
	go func() {
		err := trickle(ctx, w.Addr, task.In)
		if err != nil {
			cancel()
		}
		failed <- err
	}()
	d, err := arrivals(ctx, w.Addr, task.Out)
	if err != nil {
		cancel()
	}
	return d, errors.Join(err, <-failed, stop())
}

// latencyRecords is how many are sent, those of the warm-up included.
func latencyRecords() int { return int((latencyWarmUp + latencyTime).Seconds() * latencyRate) }

// trickle sends order events at the rate.
func trickle(ctx context.Context, addr, topic string) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.DefaultProduceTopic(topic), kgo.ProducerLinger(0), kgo.ProducerBatchCompression(kgo.Lz4Compression()))
	if err != nil {
		return err
	}
	defer cl.Close()
	failed := make(chan error, 1) // the first failure
	g := gen.New(42)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	began := time.Now()
	for n, all := 0, latencyRecords(); n < all; {
		select {
		case <-tick.C:
		case err := <-failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
		for due := min(all, int(time.Since(began).Seconds()*latencyRate)); n < due; n++ {
			e := g.Next()
			now := binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixNano()))
			cl.Produce(ctx, &kgo.Record{Key: e.Key, Value: e.Value, Headers: []kgo.RecordHeader{{Key: sentHeader, Value: now}}}, func(_ *kgo.Record, err error) {
				if err != nil {
					select {
					case failed <- err:
					default:
					}
				}
			})
		}
	}
	return cl.Flush(ctx)
}

// arrivals reads the output until all that must come out has.
func arrivals(ctx context.Context, addr, topic string) (*delay, error) {
	all := 0
	g := gen.New(42)
	for range latencyRecords() {
		if g.Next().Mark == gen.Emit {
			all++
		}
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, latencyWarmUp+latencyTime+time.Minute)
	defer cancel()
	var d delay
	var first time.Time // when the first record was sent
	for seen := 0; seen < all; {
		fs := cl.PollFetches(ctx)
		now := time.Now()
		if err := fs.Err(); err != nil {
			return nil, fmt.Errorf("after %d records of %d: %w", seen, all, err)
		}
		for _, r := range fs.Records() {
			seen++
			if len(r.Headers) == 0 || r.Headers[0].Key != sentHeader {
				return nil, errors.New("a record came out without its header")
			}
			sent := time.Unix(0, int64(binary.BigEndian.Uint64(r.Headers[0].Value)))
			if first.IsZero() {
				first = sent
			}
			// What comes out has the time of the append, in ms: not before it was
			// sent, not after it arrived.
			if r.Timestamp.Before(sent.Truncate(time.Millisecond)) || r.Timestamp.After(now) {
				return nil, fmt.Errorf("a record sent at %v and read at %v has the time %v", sent, now, r.Timestamp)
			}
			if sent.Sub(first) >= latencyWarmUp {
				d.appended = append(d.appended, ms(now.Sub(r.Timestamp)))
				d.sent = append(d.sent, ms(now.Sub(sent)))
			}
		}
	}
	return &d, nil
}
