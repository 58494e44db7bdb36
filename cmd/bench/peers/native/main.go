// Command native is the loop that a Go programmer writes by hand: franz-go in,
// a stage, franz-go out. Its argument names the stage:
//
//	pass   none: each record goes on as it came
//	order  the order stage by hand, one scan (examples/orders/orderstage)
//	json   the order stage with encoding/json
//
// Two workers share the partitions, so that each one's order holds, and
// produce without waiting; nothing is committed. The bench starts it: see
// package contract.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/cmd/bench/contract"
	"github.com/millrace-io/millrace/examples/orders/orderstage"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "native:", err)
		os.Exit(1)
	}
}

// stages append a record's output to dst, or say that there is none.
var stages = map[string]func(dst, value []byte) ([]byte, bool){
	"pass": nil,
	"order": func(dst, value []byte) ([]byte, bool) {
		dst, o := orderstage.Order(dst, value)
		return dst, o == orderstage.Emit
	},
	"json": orderJSON,
}

func run(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: native pass|order|json")
	}
	stage, ok := stages[args[0]]
	if !ok {
		return fmt.Errorf("stage %q: it is one of pass, order, json", args[0])
	}
	task, err := contract.FromEnviron()
	if err != nil {
		return err
	}
	codec, err := task.Codec()
	if err != nil {
		return err
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(task.Brokers...), kgo.ConsumeTopics(task.In), kgo.DefaultProduceTopic(task.Out),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(250*time.Millisecond),
		kgo.ProducerBatchCompression(codec), kgo.MaxBufferedRecords(20_000))
	if err != nil {
		return err
	}
	defer cl.Close()
	l := &loop{cl: cl, stage: stage}
	return l.run(ctx)
}

type loop struct {
	cl    *kgo.Client
	stage func(dst, value []byte) ([]byte, bool) // nil: none

	once   sync.Once
	failed error
	stop   context.CancelFunc
}

func (l *loop) run(ctx context.Context) error {
	ctx, l.stop = context.WithCancel(ctx)
	defer l.stop()
	var workers [2]chan []*kgo.Record
	var wg sync.WaitGroup
	for i := range workers {
		workers[i] = make(chan []*kgo.Record, 4) // a few partitions ahead of the workers
		wg.Go(func() {
			for recs := range workers[i] {
				l.work(ctx, recs)
			}
		})
	}
	for ctx.Err() == nil {
		fs := l.cl.PollFetches(ctx)
		fs.EachError(func(_ string, _ int32, err error) { l.fail(ctx, err) })
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
	return l.failed
}

// fail notes the first error that is not the end of ctx, and ends the loop.
func (l *loop) fail(ctx context.Context, err error) {
	if ctx.Err() == nil {
		l.once.Do(func() { l.failed = err; l.stop() })
	}
}

// work passes the records of one partition through the stage. All values of a
// call share one buffer, all records one slice.
func (l *loop) work(ctx context.Context, recs []*kgo.Record) {
	var buf []byte
	if l.stage != nil {
		buf = make([]byte, 0, 320*len(recs))
	}
	out := make([]kgo.Record, 0, len(recs))
	for _, r := range recs {
		value := r.Value
		if l.stage != nil {
			at := len(buf)
			var emit bool
			if buf, emit = l.stage(buf, value); !emit {
				continue
			}
			value = buf[at:len(buf):len(buf)]
		}
		out = append(out, kgo.Record{Key: r.Key, Value: value, Timestamp: r.Timestamp, Headers: r.Headers})
		l.cl.Produce(ctx, &out[len(out)-1], func(_ *kgo.Record, err error) {
			if err != nil {
				l.fail(ctx, err)
			}
		})
	}
}
