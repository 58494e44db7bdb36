package arena

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/runtime/connector/connectortest/brokers"
)

// kafka is the real Kafka of examples/brokers.
type kafka struct {
	broker *brokers.KafkaProcess
	cl     *kgo.Client
	adm    *kadm.Client
}

// startKafka starts the broker of the repository at root with its data below
// dir. It dies with this process.
func startKafka(root, dir string) (*kafka, error) {
	if err := prepared(root, "kafka"); err != nil {
		return nil, err
	}
	broker, err := brokers.NewKafka(filepath.Join(dir, "kafka"), brokers.KafkaOptions{Heap: "1g"})
	if err != nil {
		return nil, err
	}
	if err := broker.Start(); err != nil {
		return nil, err
	}
	k := &kafka{broker: broker}
	k.cl, err = kgo.NewClient(kgo.SeedBrokers(broker.Addr()), kgo.MaxBufferedRecords(50_000), kgo.ProducerBatchCompression(kgo.Lz4Compression()),
		kgo.MetadataMinAge(4*pollEvery)) // a topic that was just made is asked for again
	if err != nil {
		k.close()
		return nil, err
	}
	k.adm = kadm.NewClient(k.cl)
	return k, nil
}

func (k *kafka) addr() string { return k.broker.Addr() }
func (k *kafka) pid() int     { return k.broker.Pid() }

func (k *kafka) close() {
	if k.cl != nil {
		k.cl.Close()
	}
	k.broker.Kill()
}

func (k *kafka) create(ctx context.Context, topic string, partitions int) error {
	return k.createWith(ctx, topic, partitions, nil)
}

// createWith makes a topic with settings of its own, and waits until the broker
// serves it: it answers "unknown topic" for a moment.
func (k *kafka) createWith(ctx context.Context, topic string, partitions int, configs map[string]*string) error {
	if _, err := k.adm.CreateTopic(ctx, int32(partitions), 1, configs, topic); err != nil {
		return err
	}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	deadline := time.After(patience)
	for {
		_, err := k.ended(ctx, topic)
		if !errors.Is(err, kerr.UnknownTopicOrPartition) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline:
			return fmt.Errorf("topic %s: %w", topic, err)
		}
	}
}

func (k *kafka) remove(ctx context.Context, topic string) { _, _ = k.adm.DeleteTopics(ctx, topic) }

func (k *kafka) fill(ctx context.Context, topic string, next func() (key, value []byte, ok bool)) error {
	var mu sync.Mutex
	var failed error // guarded by mu
	for key, value, ok := next(); ok; key, value, ok = next() {
		k.cl.Produce(ctx, &kgo.Record{Topic: topic, Key: key, Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				mu.Lock()
				failed = err
				mu.Unlock()
			}
		})
	}
	if err := k.cl.Flush(ctx); err != nil {
		return err
	}
	mu.Lock()
	defer mu.Unlock()
	return failed
}

func (k *kafka) ended(ctx context.Context, topic string) (int64, error) {
	ends, err := k.adm.ListEndOffsets(ctx, topic)
	if err != nil {
		return 0, err
	}
	n := int64(0)
	ends.Each(func(l kadm.ListedOffset) { n += max(0, l.Offset) })
	return n, ends.Error()
}

func (k *kafka) read(ctx context.Context, topic string, n int64, f func(partition int, key, value []byte)) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.addr()), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	for seen := int64(0); seen < n; {
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			return fmt.Errorf("read %s back, %d of %d records: %w", topic, seen, n, err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			seen++
			f(int(r.Partition), r.Key, r.Value)
		})
	}
	return nil
}
