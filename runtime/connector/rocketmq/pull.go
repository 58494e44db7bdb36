package rocketmq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/record"
)

// Pauses between two pulls that bring nothing.
const (
	pullBackoff    = 100 * time.Millisecond
	maxPullBackoff = time.Second
	// settles is how long a broker that has just started is given to find
	// the end of its log before a position outside it counts.
	settles = 3 * time.Second
)

// pullRecords is how many messages are asked for at once; brokers give 32 by
// default.
const pullRecords = 1024

// pullBytes bounds what is taken of one answer whose bodies are compressed: a few
// bytes may become very many.
const pullBytes = 4 << 20

// pull brings messages of pt until ctx ends or it finds that the queue cannot
// be read. There is one pull under way at a time; a broker holds it while it
// has nothing to give.
func (s *Source) pull(ctx context.Context, pt *part) {
	wait := pullBackoff
	var outside time.Time // since when the broker does not have the position
	for {
		at, ok := s.waitForRoom(ctx, pt)
		if !ok {
			return
		}
		began := time.Now()
		next, why, err := s.pullOnce(ctx, pt, at, &outside)
		switch {
		case ctx.Err() != nil, errors.Is(err, connector.ErrClosed):
			return
		case why != nil:
			s.fail(pt, why)
			return
		case err == nil && (next > at || time.Since(began) > pullBackoff):
			wait = pullBackoff // something came, or the broker held the pull
			continue
		}
		if err != nil {
			s.cl.health.fail(pt.id.Broker, err)
		}
		if !sleep(ctx, wait) {
			return
		}
		wait = min(wait*2, maxPullBackoff)
	}
}

// pullOnce pulls and accepts what comes. why says that the queue cannot be
// read, err that trying again is right.
func (s *Source) pullOnce(ctx context.Context, pt *part, at int64, outside *time.Time) (next int64, why *record.Error, err error) {
	pctx, cancel := context.WithTimeoutCause(ctx, pullHold+askTimeout, fmt.Errorf("broker %s: no answer to a pull for %s", pt.id.Broker, pullHold+askTimeout))
	defer cancel()
	a, err := s.cl.pull(pctx, pt.id, at, pullRecords, s.sub)
	if err != nil {
		if pctx.Err() != nil {
			err = context.Cause(pctx)
		}
		*outside = time.Time{} // the broker has to say the same all the time
		why, err = s.pullError(ctx, pt.id, err)
		return at, why, err
	}
	switch {
	case a.code == respSuccess:
		return s.found(ctx, pt, a, outside)
	case a.code == respPullOffsetMoved, a.next > at && a.remark != noMatch:
		why, err = s.gone(ctx, pt.id, at, a.next, outside)
		return at, why, err
	}
	*outside = time.Time{}
	if a.next > at {
		s.accept(pt, nil, a.next)
	}
	return max(a.next, at), nil, nil
}

// noMatch is the store's word for messages without one of the tags. All others
// with which a position moves mean that messages are gone.
const noMatch = "NO_MATCHED_MESSAGE"

// found takes the messages of an answer.
func (s *Source) found(ctx context.Context, pt *part, a *pulled, outside *time.Time) (next int64, why *record.Error, err error) {
	recs := make([]record.Record, 0, 32)
	next = a.requested
	size := 0
	for rest := a.messages; len(rest) > 0; {
		var m message
		m, rest, err = decodeMessage(rest)
		switch {
		case errors.Is(err, errTruncated):
			return a.requested, nil, fmt.Errorf("broker %s: pull from %s/%d at %d: %w", pt.id.Broker, pt.id.Topic, pt.id.Num, a.requested, err)
		case m.offset < next:
			continue // a broker may begin at an earlier message
		case err != nil && len(recs) > 0:
			s.accept(pt, recs, m.offset)
			return m.offset, nil, nil // the next pull begins with it
		case err != nil:
			return next, record.Errorf(record.Config, "message at position %d: %w: go on behind it: %s", m.offset, err, reset(pt.id, m.offset+1)), nil
		case m.offset > next && len(s.cfg.Tags) == 0 && len(recs) > 0:
			s.accept(pt, recs, next)
			return next, nil, nil // the next pull tells whether there is a gap
		case m.offset > next && len(s.cfg.Tags) == 0:
			why, err = s.gone(ctx, pt.id, next, m.offset, outside)
			return next, why, err
		}
		next = m.offset + 1
		r := fromMessage(&m)
		if len(s.cfg.Tags) > 0 && !slices.Contains(s.cfg.Tags, parseProperties(m.properties)[propTags]) {
			continue // brokers compare sums of tags only
		}
		s.complete(pt, &r)
		recs = append(recs, r)
		if size += r.Size(); size > max(len(a.messages), pullBytes) {
			s.accept(pt, recs, next)
			return next, nil, nil // the next pull brings the rest
		}
	}
	if len(s.cfg.Tags) > 0 {
		next = max(next, a.next)
	}
	*outside = time.Time{}
	s.accept(pt, recs, next)
	return next, nil, nil
}

// complete sets what a record has of its queue.
func (s *Source) complete(pt *part, r *record.Record) {
	r.Topic, r.Broker, r.Partition = pt.id.Topic, pt.id.Broker, pt.id.Num
	if t, ok := record.TraceFromHeaders(r.Headers); ok {
		r.Trace = t
		return
	}
	r.Trace = pt.seed.Trace(r.Offset)
}

// gone finds out why a broker would go on at next instead of at. why is nil when
// trying again is right: one that has just started may not have found all of
// its log yet.
func (s *Source) gone(ctx context.Context, p record.Partition, at, next int64, since *time.Time) (why *record.Error, err error) {
	first, end, err := s.cl.bounds(ctx, p)
	if err != nil {
		*since = time.Time{}
		return nil, err
	}
	if since.IsZero() {
		*since = time.Now()
	}
	switch {
	case time.Since(*since) < settles:
		return nil, fmt.Errorf("broker %s does not give position %d of %s/%d, whose queue begins at %d and ends at %d", p.Broker, at, p.Topic, p.Num, first, end)
	case at > end:
		return record.Errorf(record.Config, "position %d is behind the end of the queue, which begins at %d and ends at %d: the log was cut off, or the topic was made anew; "+
			"go on at its end: %s; or delete the flow and apply it again to read what is there", at, first, end, reset(p, end)), nil
	}
	next = max(next, first)
	return record.Errorf(record.Config, "position %d is no longer in the queue, which goes on at %d and ends at %d: %d messages were deleted before they were read; "+
		"go on without them: %s", at, next, end, next-at, reset(p, next)), nil
}

// reset is how a user moves the flow's position.
func reset(p record.Partition, at int64) string {
	return fmt.Sprintf("`flowctl flow offsets reset FLOW --to %s/%s/%d=%d`, then `flowctl flow start FLOW`", p.Topic, p.Broker, p.Num, at)
}

// pullError classifies why a pull failed: why is final.
func (s *Source) pullError(ctx context.Context, p record.Partition, err error) (why *record.Error, again error) {
	switch {
	case hasCode(err, respNoTopic, respNoPermission, respNoGroup, respBadSubscription):
		if e := record.AsError(s.cl.topicError(ctx, "read", p.Topic, err)); e.Class == record.Config {
			return e, nil
		}
		return record.Errorf(record.Config, "read topic %q: %w", p.Topic, err), nil
	case hasCode(err, respSystemError, respBadParameter) && s.queueGone(ctx, p):
		return record.Errorf(record.Config, "broker %s has no queue %d of topic %q any more: delete the flow and apply it again to read those that are there", p.Broker, p.Num, p.Topic), nil
	}
	return nil, err
}

// queueGone reports whether the name servers tell of the topic at the queue's
// broker, but not of the queue.
func (s *Source) queueGone(ctx context.Context, p record.Partition) bool {
	queues, err := s.cl.route(ctx, p.Topic)
	if err != nil {
		return false
	}
	for _, q := range queues {
		if q.Broker == p.Broker {
			return p.Num >= q.Read
		}
	}
	return false
}
