package kafka

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/record"
)

// A broker that has just started, or lags behind the controller, may for a
// moment know nothing of a topic, or only of one that had its name before. What
// ends the reading of a topic counts once every answer of confirmFor, or of the
// source's patience in its place, said so.
const (
	confirmFor   = 3 * time.Second
	confirmEvery = 250 * time.Millisecond
)

// wholeName compiles a pattern that has to match a name from end to end.
func wholeName(pattern string) (*regexp.Regexp, error) {
	if _, err := regexp.Compile(pattern); err != nil { // whose message quotes the pattern as it was written
		return nil, err
	}
	return regexp.Compile(`^(?:` + pattern + `)$`)
}

// Partitions asks the brokers which partitions the topics have now. It blocks
// until they answer or ctx ends; up to 3 s longer where the answer is that a
// topic which was read is gone.
//
// A topic that was seen before, by this source or in Known, and was deleted or
// made anew since, is an error of class config. Brokers that cannot be reached
// are one of class retryable. So is a topic that is not there yet, or a pattern
// that no topic matches, which errors.Is finds to be connector.ErrNoTopic: the
// partitions of the other topics come beside it.
func (s *Source) Partitions(ctx context.Context) ([]connector.Found, error) {
	topics, err := s.look(ctx)
	if err != nil {
		return nil, s.requestError(ctx, "list partitions", err)
	}
	var found []connector.Found
	var waits error
	for _, t := range topics {
		if t.err != nil {
			e := s.topicError(t)
			if !e.Class.Transient() {
				return nil, e
			}
			if waits == nil {
				waits = e
			}
			continue
		}
		if old := s.adopt(t); old != t.id {
			return nil, recreated(t.name, old, t.id)
		}
		for n := range t.partitions {
			found = append(found, connector.Found{Partition: record.Partition{Topic: t.name, Num: int32(n)}, TopicID: t.id})
		}
	}
	if len(topics) == 0 {
		waits = s.noMatch()
	}
	return found, waits
}

// adopt takes over the id of a topic that is seen for the first time, and
// returns the one it was first seen with.
func (s *Source) adopt(t topic) [16]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, seen := s.ids[t.name]; seen {
		return old
	}
	s.ids[t.name], s.seen[t.name] = t.id, true
	return t.id
}

// look asks what the topics of the source are, until the answer is beyond
// doubt.
func (s *Source) look(ctx context.Context) ([]topic, error) {
	return beyondDoubt(ctx, s.patience, s.names, s.doubtful)
}

// beyondDoubt asks again, for at most patience, while the answer is doubtful.
func beyondDoubt[T any](ctx context.Context, patience time.Duration, ask func(context.Context) (T, error), doubtful func(T) bool) (T, error) {
	deadline := time.Now().Add(patience)
	for {
		answer, err := ask(ctx)
		if err != nil || !doubtful(answer) || time.Now().After(deadline) {
			return answer, err
		}
		select {
		case <-ctx.Done():
			return answer, ctx.Err()
		case <-time.After(min(confirmEvery, patience)):
		}
	}
}

// doubtful reports whether topics that were seen before are not there, or are
// others now.
func (s *Source) doubtful(topics []topic) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range topics {
		id, seen := s.ids[t.name]
		if seen && (errors.Is(t.err, kerr.UnknownTopicOrPartition) || t.err == nil && t.id != id) {
			return true
		}
	}
	return false
}

// names asks for the topics of the source: those that are named, or those that
// the pattern matches and those that were seen before.
func (s *Source) names(ctx context.Context) ([]topic, error) {
	if s.pattern == nil {
		return s.named(ctx)
	}
	all, err := describeAll(ctx, s.cl)
	if err != nil {
		return nil, err
	}
	topics := slices.DeleteFunc(all, func(t topic) bool { return t.internal || !s.reads(t.name) })
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, id := range s.ids {
		if !slices.ContainsFunc(topics, func(t topic) bool { return t.name == name }) {
			topics = append(topics, topic{name: name, id: id, err: kerr.UnknownTopicOrPartition})
		}
	}
	slices.SortFunc(topics, func(a, b topic) int { return strings.Compare(a.name, b.name) })
	return topics, nil
}

// named asks for the topics by their names. One that was seen before is not
// made again.
func (s *Source) named(ctx context.Context) ([]topic, error) {
	var old, fresh []string
	s.mu.Lock()
	for _, name := range s.cfg.Topics {
		if s.seen[name] {
			old = append(old, name)
		} else {
			fresh = append(fresh, name)
		}
	}
	s.mu.Unlock()
	var topics []topic
	if len(old) > 0 {
		var err error
		if topics, err = describe(ctx, s.cl, old, false); err != nil {
			return nil, err
		}
	}
	if len(fresh) > 0 {
		more, err := describe(ctx, s.cl, fresh, s.cfg.CreateTopics)
		if err != nil {
			return nil, err
		}
		topics = append(topics, more...)
	}
	return topics, nil
}
