package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/runtime/record"
)

// CommitGroup writes positions, the offsets of the next records to read, into a
// consumer group, so that Kafka's tools show how far this source has come. The
// group has no members and nothing is ever read back from it: it is a mirror.
// It blocks until the brokers answer or ctx ends.
//
// An error is a *record.Error: of class config where the group refuses it for
// good (the user lacks a right, or the group has members of its own), else of
// class retryable. Offsets of the other partitions may have been written.
func (s *Source) CommitGroup(ctx context.Context, group string, offsets map[record.Partition]int64) error {
	if len(offsets) == 0 {
		return nil
	}
	topics, missing := s.mirrored(ctx, group, offsets)
	if len(topics) == 0 {
		return missing
	}
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group = group
	names := map[[16]byte]string{}
	for _, t := range topics {
		rt := kmsg.NewOffsetCommitRequestTopic()
		rt.Topic, rt.TopicID = t.name, t.id
		names[t.id] = t.name
		for p, at := range offsets {
			if p.Topic == t.name {
				rp := kmsg.NewOffsetCommitRequestTopicPartition()
				rp.Partition, rp.Offset = p.Num, at
				rt.Partitions = append(rt.Partitions, rp)
			}
		}
		req.Topics = append(req.Topics, rt)
	}
	resp, err := req.RequestWith(ctx, s.cl)
	if err != nil {
		return s.groupError(ctx, group, "", err)
	}
	for _, t := range resp.Topics {
		name := cmp.Or(t.Topic, names[t.TopicID])
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return s.groupError(ctx, group, name, err)
			}
		}
	}
	return missing
}

// mirrored are the topics of offsets that there are, and an error for one that
// is not. None of them has taken the name of another since this source first saw
// it: positions are not written for such a one, and most brokers go by names.
func (s *Source) mirrored(ctx context.Context, group string, offsets map[record.Partition]int64) ([]topic, error) {
	var names []string
	for p := range offsets {
		if !slices.Contains(names, p.Topic) {
			names = append(names, p.Topic)
		}
	}
	slices.Sort(names)
	topics, err := describe(ctx, s.cl, names, false)
	if err != nil {
		return nil, s.groupError(ctx, group, "", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	there := topics[:0]
	for _, t := range topics {
		if id, seen := s.ids[t.name]; t.err == nil && (s.gone[t.name] || seen && id != t.id) {
			t.err = kerr.InconsistentTopicID
		}
		if t.err == nil {
			there = append(there, t)
		} else if err == nil {
			err = s.groupError(ctx, group, t.name, t.err)
		}
	}
	return there, err
}

// groupError classifies why a group does not take offsets.
func (s *Source) groupError(ctx context.Context, group, topic string, err error) error {
	what := fmt.Sprintf("write offsets to the consumer group %q", group)
	switch {
	case errors.Is(err, kerr.GroupAuthorizationFailed):
		return record.Errorf(record.Config, "%s: %w: give the connection's user READ on the group, or set the source's `group`", what, err)
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return record.Errorf(record.Config, "%s: topic %q: %w: give the connection's user READ on the topic", what, topic, err)
	case errors.Is(err, kerr.UnknownMemberID), errors.Is(err, kerr.IllegalGeneration), errors.Is(err, kerr.StaleMemberEpoch), errors.Is(err, kerr.FencedMemberEpoch):
		return record.Errorf(record.Config, "%s: another program consumes with it: set the source's `group` to a name of its own, or to none", what)
	case errors.Is(err, kerr.InvalidGroupID):
		return record.Errorf(record.Config, "%s: %w: set the source's `group`", what, err)
	}
	if topic != "" {
		return record.Errorf(record.Retryable, "%s: topic %q: %w", what, topic, err)
	}
	return s.requestError(ctx, what, err)
}
