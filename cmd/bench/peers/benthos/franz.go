package main

import (
	"context"
	"sync"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/cmd/bench/contract"
)

// keyMeta is the metadata that carries a record's key through the pipeline.
const keyMeta = "kafka_key"

// input hands out batches of one partition each. A partition has one batch
// under way at a time, so that its order holds, as the engine's own Kafka
// input does it.
type input struct {
	task  contract.Task
	cl    *kgo.Client
	ready chan *lane // lanes with records and no batch under way

	mu   sync.Mutex
	room sync.Cond // on mu: held has become less
	held int       // guarded by mu: records that were fetched and are not settled
}

// maxHeld is how many records stop the next poll.
const maxHeld = 20_000

// lane is what was fetched of a partition.
type lane struct {
	mu   sync.Mutex
	recs []*kgo.Record // guarded by mu
	busy bool          // guarded by mu: a batch is under way, or it is in ready
}

func (in *input) Connect(context.Context) (err error) {
	in.cl, err = kgo.NewClient(kgo.SeedBrokers(in.task.Brokers...), kgo.ConsumeTopics(in.task.In),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(250*time.Millisecond))
	if err != nil {
		return err
	}
	in.ready = make(chan *lane, in.task.Partitions) // each lane is in it once at most
	in.room.L = &in.mu
	go in.fetch()
	return nil
}

// hold counts n records in, or out if n is less than 0.
func (in *input) hold(n int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.held += n
	in.room.Signal()
}

// fetch polls until the client is closed.
func (in *input) fetch() {
	lanes := make([]lane, in.task.Partitions)
	for {
		in.mu.Lock()
		for in.held >= maxHeld {
			in.room.Wait()
		}
		in.mu.Unlock()
		fs := in.cl.PollFetches(context.Background())
		if fs.IsClientClosed() {
			return
		}
		in.hold(fs.NumRecords())
		fs.EachPartition(func(p kgo.FetchTopicPartition) {
			l := &lanes[p.Partition]
			l.mu.Lock()
			defer l.mu.Unlock()
			l.recs = append(l.recs, p.Records...)
			if !l.busy && len(l.recs) > 0 {
				l.busy = true
				in.ready <- l
			}
		})
	}
}

func (in *input) ReadBatch(ctx context.Context) (service.MessageBatch, service.AckFunc, error) {
	var l *lane
	select {
	case l = <-in.ready:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	l.mu.Lock()
	n := min(len(l.recs), batchRecords)
	recs := l.recs[:n:n]
	l.recs = l.recs[n:]
	l.mu.Unlock()
	batch := make(service.MessageBatch, n)
	for i, r := range recs {
		batch[i] = service.NewMessage(r.Value)
		batch[i].MetaSetMut(keyMeta, r.Key)
	}
	return batch, func(context.Context, error) error { // without an error: see service.AutoRetryNacksBatched
		in.hold(-n)
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.busy = len(l.recs) > 0; l.busy {
			in.ready <- l
		}
		return nil
	}, nil
}

func (in *input) Close(context.Context) error {
	if in.cl != nil {
		in.cl.Close()
	}
	return nil
}

// output writes batches and waits for their acknowledgement.
type output struct {
	task contract.Task
	cl   *kgo.Client
}

func (o *output) Connect(context.Context) error {
	codec, err := o.task.Codec()
	if err != nil {
		return err
	}
	o.cl, err = kgo.NewClient(kgo.SeedBrokers(o.task.Brokers...), kgo.DefaultProduceTopic(o.task.Out),
		kgo.ProducerBatchCompression(codec), kgo.MaxBufferedRecords(20_000))
	return err
}

func (o *output) WriteBatch(ctx context.Context, batch service.MessageBatch) error {
	recs := make([]*kgo.Record, 0, len(batch))
	for _, m := range batch {
		if m.GetError() != nil {
			continue // the mapping could not read it
		}
		value, err := m.AsBytes()
		if err != nil {
			return err
		}
		r := &kgo.Record{Value: value}
		if key, ok := m.MetaGetMut(keyMeta); ok {
			r.Key = key.([]byte)
		}
		recs = append(recs, r)
	}
	return o.cl.ProduceSync(ctx, recs...).FirstErr()
}

func (o *output) Close(context.Context) error {
	if o.cl != nil {
		o.cl.Close()
	}
	return nil
}
