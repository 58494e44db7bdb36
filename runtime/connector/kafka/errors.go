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
	for _, e := range []error{kerr.TopicAuthorizationFailed, kerr.ClusterAuthorizationFailed} {
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
		return &record.Error{Class: record.Retryable, Err: connector.ErrNoTopic,
			Message: fmt.Sprintf("topic %q does not exist at %s: make it, or correct the flow's source", t.name, s.brokers())}
	case isForbidden(t.err):
		return forbidden(fmt.Sprintf("read topic %q", t.name), t.err)
	case kerr.IsRetriable(t.err):
		return record.Errorf(record.Retryable, "topic %q: %w", t.name, t.err)
	}
	return record.Errorf(record.Config, "topic %q: %w", t.name, t.err)
}

// noMatch is why a source with a pattern reads nothing.
func (s *Source) noMatch() *record.Error {
	return &record.Error{Class: record.Retryable, Err: connector.ErrNoTopic,
		Message: fmt.Sprintf("no topic at %s matches the pattern %s: make one, or correct the flow's source", s.brokers(), s.cfg.Pattern)}
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
	}
	if p := s.health.problem(); p != "" {
		return record.Errorf(record.Retryable, "%s: %s", what, p)
	}
	return record.Errorf(record.Retryable, "%s: %w", what, err)
}

// explain finds out why p cannot be fetched at the offset at. known is the id
// of the topic that was assigned.
func (s *Source) explain(ctx context.Context, p record.Partition, at int64, known [16]byte, err error) verdict {
	if e, ok := errors.AsType[*record.Error](err); ok {
		return verdict{why: e, gone: true}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*s.patience+4*time.Second)
	defer cancel()
	loss, lost := errors.AsType[*kgo.ErrDataLoss](err)
	if lost || ofTopic(err) || errors.Is(err, kerr.OffsetOutOfRange) {
		if v, done := s.explainTopic(ctx, p.Topic, known); done {
			return v
		}
	}
	switch {
	case lost:
		return verdict{why: record.Errorf(record.Config, "the broker lost records: position %d was read, and the log of the same leader epoch now ends at %d; "+
			"records between the two may come again with other contents: choose where to go on: %s", loss.ConsumedTo, loss.ResetTo, resetTo(p, loss.ResetTo))}
	case errors.Is(err, kerr.OffsetOutOfRange):
		return s.explainRange(ctx, p, at)
	case isForbidden(err):
		return verdict{why: forbidden(fmt.Sprintf("read topic %q", p.Topic), err)}
	case kerr.IsRetriable(err), isTransport(err):
		return verdict{}
	}
	if large, ok := errors.AsType[*kgo.ErrDecompressTooLarge](err); ok {
		return verdict{why: record.Errorf(record.Config, "the batch at position %d takes more than %d bytes once it is decompressed: pass over it: %s", large.Offset, s.cfg.MaxBatchBytes, resetTo(p, large.NextOffset))}
	}
	return verdict{why: record.Errorf(record.Config, "fetch at position %d: %w", at, err)}
}

// ofTopic reports whether an error says that a topic is gone.
func ofTopic(err error) bool {
	for _, e := range []error{kerr.UnknownTopicID, kerr.UnknownTopicOrPartition, kerr.InconsistentTopicID} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// explainTopic reports whether what is known of a topic ends the inquiry.
func (s *Source) explainTopic(ctx context.Context, name string, known [16]byte) (v verdict, done bool) {
	gone := func(t topic) bool { return errors.Is(t.err, kerr.UnknownTopicOrPartition) }
	other := func(t topic) bool { return t.err == nil && known != [16]byte{} && t.id != known }
	t, err := beyondDoubt(ctx, s.patience, func(ctx context.Context) (topic, error) {
		topics, err := describe(ctx, s.cl, []string{name}, false)
		if err != nil {
			return topic{}, err
		}
		return topics[0], nil
	}, func(t topic) bool { return gone(t) || other(t) })
	switch {
	case err != nil:
		return verdict{}, true
	case gone(t):
		return verdict{why: deleted(name, known), gone: true}, true
	case other(t):
		return verdict{why: recreated(name, known, t.id), gone: true}, true
	}
	return verdict{}, t.err != nil
}

// explainRange is for a position that the leader says is not in its log.
func (s *Source) explainRange(ctx context.Context, p record.Partition, at int64) verdict {
	type bounds struct{ first, end int64 }
	// A leader that has just been elected may for a moment know of less than
	// the one before it.
	b, err := beyondDoubt(ctx, s.patience, func(ctx context.Context) (bounds, error) {
		first, err := listOffsets(ctx, s.cl, []record.Partition{p}, earliest)
		if err != nil {
			return bounds{}, err
		}
		end, err := listOffsets(ctx, s.cl, []record.Partition{p}, latest)
		return bounds{first[p], end[p]}, err
	}, func(b bounds) bool { return at > b.end })
	switch {
	case err != nil:
		return verdict{}
	case at > b.end:
		return verdict{why: record.Errorf(record.Config, "position %d is behind the end of the log, which begins at %d and ends at %d: the log was cut off, and what is written there now are other records; "+
			"choose where to go on: %s", at, b.first, b.end, resetTo(p, b.end))}
	case at >= b.first:
		return verdict{}
	case s.cfg.OutOfRange == OutOfRangeEarliest:
		return verdict{skipTo: b.first}
	case s.cfg.OutOfRange == OutOfRangeLatest:
		return verdict{skipTo: b.end}
	}
	return verdict{why: record.Errorf(record.Config, "position %d is no longer in the log, which begins at %d and ends at %d: %d records were deleted before they were read; "+
		"go on without them: %s; or set `out_of_range` in its source", at, b.first, b.end, b.first-at, resetTo(p, b.first))}
}

// resetTo is the next step of who lets a flow go on elsewhere.
func resetTo(p record.Partition, at int64) string {
	return fmt.Sprintf("`flowctl flow offsets reset FLOW --to %s/%d=%d`, then `flowctl flow start FLOW`", p.Topic, p.Num, at)
}
