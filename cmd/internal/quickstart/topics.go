package quickstart

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// The topics that the flow of the example names.
const (
	sourceTopic = "orders"
	outputTopic = "orders-out"
)

// partitions of a topic that is made.
const partitions = 4

// positions are offsets by partition.
type positions map[int32]int64

func newClient(broker string, opts ...kgo.Opt) (*kgo.Client, error) {
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(broker),
		kgo.FetchMaxWait(250 * time.Millisecond),
		kgo.MetadataMinAge(50 * time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 10 * time.Millisecond }),
		kgo.ProducerLinger(0),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
	}, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("make a client of the broker %s: %w", broker, err)
	}
	return cl, nil
}

// makeTopics makes the two topics, unless they exist.
func makeTopics(ctx context.Context, cl *kgo.Client) error {
	for _, topic := range []string{sourceTopic, outputTopic} {
		_, err := kadm.NewClient(cl).CreateTopic(ctx, partitions, 1, nil, topic)
		if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return fmt.Errorf("make topic %s: %w", topic, err)
		}
	}
	return nil
}

// endOffsets are the ends of the topic's partitions.
func endOffsets(ctx context.Context, cl *kgo.Client, topic string) (positions, error) {
	listed, err := kadm.NewClient(cl).ListEndOffsets(ctx, topic)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("ask for the ends of topic %s: %w", topic, err)
	}
	ends := positions{}
	listed.Each(func(l kadm.ListedOffset) { ends[l.Partition] = l.Offset })
	return ends, nil
}
