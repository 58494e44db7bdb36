// Command rocketmq is the loop that a Go programmer writes by hand with
// Apache's client for RocketMQ: pull, a stage, send. Its argument names the
// stage: pass, or order for the order stage by hand.
//
// Each queue has a goroutine of its own, which pulls, and sends what it pulled
// as one batch to the queue with the same number, so that order holds. Nothing
// is committed. BROKERS is a name server; the bench starts it: see package
// contract.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	mq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
	"github.com/apache/rocketmq-client-go/v2/rlog"
	"golang.org/x/sync/errgroup"

	"github.com/millrace-io/millrace/cmd/bench/contract"
	"github.com/millrace-io/millrace/examples/orders/orderstage"
)

const (
	brokerName   = "broker-a" // of examples/brokers
	pullMessages = 256        // asked for; a broker answers with what it likes
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "rocketmq:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 1 || args[0] != "pass" && args[0] != "order" {
		return errors.New("usage: rocketmq pass|order")
	}
	task, err := contract.FromEnviron()
	if err != nil {
		return err
	}
	rlog.SetLogLevel("fatal")
	p, err := mq.NewProducer(producer.WithNameServer(task.Brokers), producer.WithGroupName(task.Group), producer.WithQueueSelector(producer.NewManualQueueSelector()))
	if err != nil {
		return err
	}
	if err := p.Start(); err != nil {
		return err
	}
	defer func() { _ = p.Shutdown() }()
	c, err := mq.NewPullConsumer(consumer.WithNameServer(task.Brokers), consumer.WithGroupName(task.Group+"-in"),
		consumer.WithStrategy(func(string, string, []*primitive.MessageQueue, []string) []*primitive.MessageQueue { return nil }))
	if err != nil {
		return err
	}
	if err := c.Subscribe(task.In, consumer.MessageSelector{Type: consumer.TAG, Expression: "*"}); err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	defer func() { _ = c.Shutdown() }()
	g, ctx := errgroup.WithContext(ctx)
	for i := range task.Partitions {
		q := queue{id: i, task: task, in: c, out: p, pass: args[0] == "pass"}
		g.Go(func() error { return q.run(ctx) })
	}
	return g.Wait()
}

type queue struct {
	id   int
	task contract.Task
	in   mq.PullConsumer
	out  mq.Producer
	pass bool
}

func (q *queue) run(ctx context.Context) error {
	from := &primitive.MessageQueue{Topic: q.task.In, BrokerName: brokerName, QueueId: q.id}
	to := &primitive.MessageQueue{Topic: q.task.Out, BrokerName: brokerName, QueueId: q.id}
	at := int64(0)
	for ctx.Err() == nil {
		res, err := q.in.PullFrom(ctx, from, at, pullMessages)
		if err != nil {
			return err
		}
		at = res.NextBeginOffset
		pulled := res.GetMessageExts()
		buf := make([]byte, 0, 320*len(pulled))
		out := make([]*primitive.Message, 0, len(pulled))
		for _, m := range pulled {
			body := m.Body
			if !q.pass {
				start := len(buf)
				var o orderstage.Outcome
				if buf, o = orderstage.Order(buf, m.Body); o != orderstage.Emit {
					continue
				}
				body = buf[start:len(buf):len(buf)]
			}
			next := primitive.NewMessage(q.task.Out, body).WithKeys([]string{m.GetKeys()})
			next.Queue = to
			out = append(out, next)
		}
		if len(out) == 0 {
			continue
		}
		if _, err := q.out.SendSync(ctx, out...); err != nil {
			return err
		}
	}
	return nil
}
