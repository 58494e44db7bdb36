package kafka

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/record"
)

// topicID is an id as Kafka's tools write it.
func topicID(id [16]byte) string { return base64.RawURLEncoding.EncodeToString(id[:]) }

func recreated(topic string, old, now [16]byte) *record.Error {
	return record.Errorf(record.Config, "topic %q was deleted and made anew (id %s, now %s): the flow's positions are those of the old topic; "+
		"delete the flow and apply it again to begin with the new one", topic, topicID(old), topicID(now))
}

func deleted(topic string, id [16]byte) *record.Error {
	return record.Errorf(record.Config, "topic %q (id %s) was deleted: delete the flow, or make the topic again and apply the flow anew", topic, topicID(id))
}

func forbidden(what string, err error) *record.Error {
	return record.Errorf(record.Config, "%s: %w: give the connection's user the right, or correct the connection", what, err)
}

// isForbidden reports whether the broker does not let us.
func isForbidden(err error) bool {
	for _, e := range []error{kerr.TopicAuthorizationFailed, kerr.ClusterAuthorizationFailed, kerr.SaslAuthenticationFailed, kerr.UnsupportedSaslMechanism, kerr.IllegalSaslState} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (s *Source) brokers() string { return strings.Join(s.cfg.Brokers, ", ") }

// topicError is why a topic cannot be read.
func (s *Source) topicError(t topic) *record.Error {
	s.mu.Lock()
	id, seen := s.ids[t.name]
	s.mu.Unlock()
	switch {
	case errors.Is(t.err, kerr.UnknownTopicOrPartition) && seen:
		return deleted(t.name, id)
	case errors.Is(t.err, kerr.UnknownTopicOrPartition):
		return record.Errorf(record.Config, "topic %q does not exist at %s: make it, or correct the flow's source", t.name, s.brokers())
	case isForbidden(t.err):
		return forbidden(fmt.Sprintf("read topic %q", t.name), t.err)
	case kerr.IsRetriable(t.err):
		return record.Errorf(record.Retryable, "topic %q: %w", t.name, t.err)
	}
	return record.Errorf(record.Config, "topic %q: %w", t.name, t.err)
}

// requestError classifies the failure of a request of the source's own.
func (s *Source) requestError(ctx context.Context, what string, err error) error {
	switch {
	case ctx.Err() != nil:
		if p := s.health.problem(); p != "" {
			return fmt.Errorf("%s: %w (%s)", what, ctx.Err(), p)
		}
		return fmt.Errorf("%s: %w", what, ctx.Err())
	case errors.Is(err, kgo.ErrClientClosed):
		return connector.ErrClosed
	case isForbidden(err):
		return forbidden(what, err)
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return record.Errorf(record.Config, "%s: %w", what, err)
	}
	return record.Errorf(record.Retryable, "%s: %w", what, err)
}

// explain finds out why p cannot be fetched at the offset at. It returns nil
// when trying again is right. gone says that the topic is not the one that was
// assigned.
func (s *Source) explain(ctx context.Context, p record.Partition, at int64, known [16]byte, err error) (why *record.Error, gone bool) {
	if e, ok := errors.AsType[*record.Error](err); ok {
		return e, true
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, ok := errors.AsType[*kgo.ErrDataLoss](err); ok || errors.Is(err, kerr.OffsetOutOfRange) || errors.Is(err, kerr.UnknownTopicID) || errors.Is(err, kerr.UnknownTopicOrPartition) {
		topics, derr := describe(ctx, s.cl, []string{p.Topic}, false)
		if derr != nil {
			return nil, false
		}
		switch t := topics[0]; {
		case errors.Is(t.err, kerr.UnknownTopicOrPartition):
			return deleted(p.Topic, known), true
		case t.err != nil:
			return nil, false
		case known != [16]byte{} && t.id != known:
			return recreated(p.Topic, known, t.id), true
		case int(p.Num) >= t.partitions:
			return record.Errorf(record.Config, "topic %q has no partition %d: it has %d", p.Topic, p.Num, t.partitions), false
		}
	}
	if loss, ok := errors.AsType[*kgo.ErrDataLoss](err); ok {
		return record.Errorf(record.Config, "the broker lost records: position %d was read, and the log of the same leader epoch now ends at %d; "+
			"records between the two may come again with other contents: delete the flow and apply it again", loss.ConsumedTo, loss.ResetTo), false
	}
	switch {
	case errors.Is(err, kerr.OffsetOutOfRange):
		first, err1 := listOffsets(ctx, s.cl, []record.Partition{p}, earliest)
		end, err2 := listOffsets(ctx, s.cl, []record.Partition{p}, latest)
		if err1 != nil || err2 != nil {
			return nil, false
		}
		switch {
		case at < first[p]:
			return record.Errorf(record.Config, "position %d is no longer in the log, which begins at %d and ends at %d: %d records were deleted before they were read; "+
				"delete the flow and apply it again to go on without them", at, first[p], end[p], first[p]-at), false
		case at > end[p]:
			return record.Errorf(record.Config, "position %d is behind the end of the log, which begins at %d and ends at %d: the log was cut off; "+
				"delete the flow and apply it again to read what is there", at, first[p], end[p]), false
		}
		return nil, false
	case isForbidden(err):
		return forbidden(fmt.Sprintf("read topic %q", p.Topic), err), false
	case kerr.IsRetriable(err):
		return nil, false
	}
	if ke, ok := errors.AsType[*kerr.Error](err); ok {
		return record.Errorf(record.Config, "fetch at position %d: %w", at, ke), false
	}
	if _, ok := errors.AsType[*kgo.ErrDecompressTooLarge](err); ok {
		return record.Errorf(record.Config, "fetch at position %d: %w: delete the flow and apply it again", at, err), false
	}
	if isTransport(err) {
		return nil, false
	}
	return record.Errorf(record.Config, "fetch at position %d: %w", at, err), false
}
