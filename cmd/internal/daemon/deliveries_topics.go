package daemon

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/millrace-io/millrace/runtime/connector/kafka"
	"github.com/millrace-io/millrace/runtime/connector/rocketmq"
	"github.com/millrace-io/millrace/runtime/delivery"
	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/pipeline"
	"github.com/millrace-io/millrace/runtime/record"
)

// topicPush opens a push to a topic, which o closes.
func (p *parts) topicPush(o *outlets, f *flow.Flow, d *flow.Delivery) (delivery.Sink, error) {
	key, tag, err := topicShape(d, f.Scope())
	if err != nil {
		return nil, err
	}
	s, err := p.topicSink(o, f, d, tag)
	if err != nil || key == nil {
		return s, err
	}
	return delivery.NewKeyed(s, key), nil
}

// topicShape compiles what a push to a topic says of its records' keys and
// tags; nil where they keep their own.
func topicShape(d *flow.Delivery, scope expr.Scope) (key *expr.Program, tag *expr.Template, err error) {
	keyed, tagged := "", ""
	if d.Kafka != nil {
		keyed = d.Kafka.Key
	} else {
		keyed, tagged = d.RocketMQ.Key, d.RocketMQ.Tag
	}
	if keyed != "" {
		if key, err = expr.Compile(keyed, scope); err != nil {
			return nil, nil, fmt.Errorf("compile key of delivery %s: %w", d.ID, err)
		}
	}
	if tagged != "" {
		if tag, err = expr.CompileTemplate(tagged, scope); err != nil {
			return nil, nil, fmt.Errorf("compile tag of delivery %s: %w", d.ID, err)
		}
	}
	return key, tag, nil
}

// topicSink opens the topic of a delivery, which o closes. tag is nil where
// records keep their own.
func (p *parts) topicSink(o *outlets, f *flow.Flow, d *flow.Delivery, tag *expr.Template) (s delivery.Sink, err error) {
	if p.mocks != nil {
		return p.mocks.sink(d.ID), nil
	}
	c, err := p.connected(f.Project, d.Connection(), d.Kind(), d.Describe())
	if err != nil {
		return nil, err
	}
	if d.Kafka != nil {
		s, err = kafka.NewSink(kafka.SinkConfig{Config: p.kafka(c), Topic: d.Kafka.Topic, Compression: kafka.Compression(d.Kafka.Compression)})
	} else {
		cfg := rocketmq.SinkConfig{Config: p.rocketmq(c), Topic: d.RocketMQ.Topic, DelayLevel: d.RocketMQ.Delay, IdempotencyKey: o.id.Key}
		if tag != nil {
			cfg.Tag = tagOf(tag)
		}
		s, err = rocketmq.NewSink(cfg)
	}
	if err != nil {
		return nil, err
	}
	o.closers = append(o.closers, s.Close)
	return s, nil
}

// tagOf evaluates a tag. It is safe for concurrent use.
func tagOf(tag *expr.Template) func(*record.Record) (string, error) {
	envs := sync.Pool{New: func() any { return expr.NewEnv() }}
	return func(r *record.Record) (string, error) {
		env := envs.Get().(*expr.Env)
		defer func() {
			env.Reset(nil)
			envs.Put(env)
		}()
		env.Reset(r)
		return tag.Text(env)
	}
}

// aside is the topic that a stage's `otherwise` names, nil if it names none.
// Stages that name the same one share it.
func (p *parts) aside(o *outlets, f *flow.Flow, t *flow.Topic) (pipeline.Sink, error) {
	if t == nil {
		return nil, nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if s := o.asides[*t]; s != nil {
		return s, nil
	}
	d := &flow.Delivery{}
	if t.RocketMQ {
		d.RocketMQ = &flow.RocketMQPush{Connection: t.Connection, Topic: t.Topic}
	} else {
		d.Kafka = &flow.KafkaPush{Connection: t.Connection, Topic: t.Topic}
	}
	s, err := p.topicSink(o, f, d, nil)
	if err != nil {
		return nil, err
	}
	o.asides[*t] = s
	return s, nil
}

// maxUnanswered is how many records an exception may have given to a topic that
// has not answered: while its brokers are away they stay in memory.
const maxUnanswered = 64

// topicException is the push of an exception to a topic.
type topicException struct {
	sink       pipeline.Sink
	key        *expr.Program  // nil: the record's own
	tag        *expr.Template // nil: the record's own
	unanswered atomic.Int64
}

// topicException opens the push of an exception to a topic, which o closes.
func (p *parts) topicException(o *outlets, f *flow.Flow, push *flow.Delivery) (x *topicException, err error) {
	x = &topicException{}
	if x.key, x.tag, err = topicShape(push, f.ExceptionScope()); err != nil {
		return nil, err
	}
	x.sink, err = p.topicSink(o, f, push, nil)
	return x, err
}

// shape is the record that the topic gets.
func (x *topicException) shape(e *record.Entry) (record.Record, error) {
	rec := e.Input
	rec.Headers = pipeline.AsideHeaders(e)
	if x.key == nil && x.tag == nil {
		return rec, nil
	}
	env := expr.NewEnv()
	env.Reset(&e.Input)
	bindFailure(e)(env)
	if x.key != nil {
		key, err := x.key.Key(env)
		if err != nil {
			return rec, err
		}
		rec.Key = key
	}
	if x.tag != nil {
		tag, err := x.tag.Text(env)
		if err != nil {
			return rec, err
		}
		rec.Headers = slices.DeleteFunc(slices.Clone(rec.Headers), func(h record.Header) bool { return h.Key == rocketmq.TagHeader })
		rec.Headers = append(rec.Headers, record.Header{Key: rocketmq.TagHeader, Value: []byte(tag)})
	}
	return rec, nil
}

// push waits for the topic no longer than ctx; a record that it has given up
// may still be written.
func (x *topicException) push(ctx context.Context, e *record.Entry) error {
	rec, err := x.shape(e)
	if err != nil {
		return err
	}
	if x.unanswered.Add(1) > maxUnanswered {
		x.unanswered.Add(-1)
		return fmt.Errorf("skipped: the topic has not answered %d others", maxUnanswered)
	}
	done := make(chan error, 1) // its one answer
	x.sink.Deliver(ctx, []record.Record{rec}, func(_ int, err error) {
		x.unanswered.Add(-1)
		done <- err
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return errCutOff
	}
}
