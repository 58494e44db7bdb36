package kafka

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/runtime/record"
)

// What listOffsets takes in place of a time.
const (
	latest   = -1
	earliest = -2
)

// topic is what the brokers say about one.
type topic struct {
	name       string
	id         [16]byte
	partitions int
	internal   bool
	err        error // kerr's, or nil
}

// settles is how long a topic may need after it was made.
const settles = 2 * time.Second

// describe asks for topics by name. The topics come in the order of names. With
// create, brokers that make topics on demand make those that are missing, which
// is waited for.
func describe(ctx context.Context, cl *kgo.Client, names []string, create bool) ([]topic, error) {
	deadline := time.Now().Add(settles)
	for {
		topics, err := describeOnce(ctx, cl, names, create)
		if err != nil || !create || time.Now().After(deadline) || !settling(topics) {
			return topics, err
		}
		select {
		case <-ctx.Done():
			return topics, nil
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// settling reports whether a topic may be about to be made.
func settling(topics []topic) bool {
	for _, t := range topics {
		if errors.Is(t.err, kerr.LeaderNotAvailable) || errors.Is(t.err, kerr.UnknownTopicOrPartition) {
			return true
		}
	}
	return false
}

func describeOnce(ctx context.Context, cl *kgo.Client, names []string, create bool) ([]topic, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.AllowAutoTopicCreation = create
	for _, name := range names {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(name)
		req.Topics = append(req.Topics, t)
	}
	all, err := metadata(ctx, cl, req)
	if err != nil {
		return nil, err
	}
	byName := make(map[string]topic, len(names))
	for _, t := range all {
		byName[t.name] = t
	}
	topics := make([]topic, 0, len(names))
	for _, name := range names {
		t, ok := byName[name]
		if !ok {
			t = topic{name: name, err: kerr.UnknownTopicOrPartition}
		}
		topics = append(topics, t)
	}
	return topics, nil
}

// describeAll asks for all topics that the connection's user may see.
func describeAll(ctx context.Context, cl *kgo.Client) ([]topic, error) {
	return metadata(ctx, cl, kmsg.NewPtrMetadataRequest()) // null: all
}

func metadata(ctx context.Context, cl *kgo.Client, req *kmsg.MetadataRequest) ([]topic, error) {
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return nil, err
	}
	topics := make([]topic, 0, len(resp.Topics))
	for i := range resp.Topics {
		t := &resp.Topics[i]
		if t.Topic == nil {
			continue
		}
		topics = append(topics, topic{name: *t.Topic, id: t.TopicID, partitions: len(t.Partitions), internal: t.IsInternal, err: kerr.ErrorForCode(t.ErrorCode)})
	}
	return topics, nil
}

// listOffsets asks the leaders of the partitions for an offset: the earliest,
// the latest, or that of the first record that is not older than at (Unix
// milliseconds; -1 if there is none). Those of partitions that could be told
// come beside the error of the first that could not.
func listOffsets(ctx context.Context, cl *kgo.Client, ps []record.Partition, at int64) (map[record.Partition]int64, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	index := map[string]int{}
	for _, p := range ps {
		i, ok := index[p.Topic]
		if !ok {
			i = len(req.Topics)
			index[p.Topic] = i
			t := kmsg.NewListOffsetsRequestTopic()
			t.Topic = p.Topic
			req.Topics = append(req.Topics, t)
		}
		rp := kmsg.NewListOffsetsRequestTopicPartition()
		rp.Partition, rp.Timestamp = p.Num, at
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, rp)
	}
	resp, err := req.RequestWith(ctx, cl)
	if resp == nil {
		return nil, err
	}
	offsets := make(map[record.Partition]int64, len(ps)) // of the brokers that answered
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if e := kerr.ErrorForCode(p.ErrorCode); e != nil {
				err = cmp.Or(err, e)
				continue
			}
			offsets[record.Partition{Topic: t.Topic, Num: p.Partition}] = p.Offset
		}
	}
	if len(offsets) < len(ps) {
		err = cmp.Or(err, error(kerr.UnknownTopicOrPartition))
	}
	return offsets, err
}
