package rocketmq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
)

// routeAge is how long the topic's queues are not looked for again.
const routeAge = 10 * time.Second

// autoTopic is the topic whose route says where topics are created on demand.
const autoTopic = "TBW102"

// autoQueues is how many queues such a topic gets at most.
const autoQueues = 8

// Pauses between two attempts to send.
const (
	sendBackoff    = 100 * time.Millisecond
	maxSendBackoff = 2 * time.Second
	// unsafeBackoff is the longest pause after the broker stored a message and
	// could not make it safe: each attempt stores it again.
	unsafeBackoff = 30 * time.Second
	sendTimeout   = 10 * time.Second
)

// Bounds of one request.
const (
	batchRecords = 1024
	batchBytes   = 1 << 20
)

// look starts a goroutine that looks for the topic's queues, unless one does.
// mu is held, and the sink is open.
func (s *Sink) look() {
	if s.routing {
		return
	}
	s.routing = true
	s.work.Go(func() {
		s.findQueues()
		s.mu.Lock()
		s.routing, s.looked = false, time.Now()
		s.mu.Unlock()
	})
}

// findQueues tries until the queues are known, or the records that wait for
// them are refused. Queues that are known already stay where none are found.
func (s *Sink) findQueues() {
	what := "queues of topic " + s.cfg.Topic
	s.mu.Lock()
	known := s.queues != nil
	s.mu.Unlock()
	for wait := sendBackoff; ; wait = min(wait*2, maxSendBackoff) {
		told, err := s.route(s.life, known)
		if err == nil {
			err = s.adopt(told)
		}
		if err == nil {
			s.cl.health.well(what)
			return
		}
		if s.life.Err() != nil {
			return
		}
		s.cl.health.fail(what, err)
		s.mu.Lock()
		var refused []pending
		if !known && record.AsError(err).Class.PausesFlow() {
			refused, s.unrouted = s.unrouted, nil
		}
		s.mu.Unlock()
		if refused != nil {
			s.cl.health.well(what)
			s.answer(refused, err)
		}
		if known || refused != nil || !sleep(s.life, wait) {
			return
		}
	}
}

// route is where the topic is, or would be created. A topic that was there is
// looked for nowhere else: a name server that has just started knows it when its
// brokers have told, and a key's records would come to another queue meanwhile.
func (s *Sink) route(ctx context.Context, known bool) ([]queueRoute, error) {
	queues, err := s.cl.route(ctx, s.cfg.Topic)
	if hasCode(err, respNoTopic) && !known {
		auto, autoErr := s.cl.route(ctx, autoTopic)
		if autoErr == nil {
			for i := range auto {
				auto[i].Write = min(auto[i].Write, autoQueues)
			}
			return auto, nil
		}
		if !hasCode(autoErr, respNoTopic) {
			err = autoErr
		}
	}
	if err != nil {
		return nil, s.cl.topicError(ctx, "write to", s.cfg.Topic, err)
	}
	return queues, nil
}

// adopt takes over the queues of a route, and gives those that are new to the
// records that wait. The queues of a broker that the name servers do not tell of
// stay: it is away, and its records wait for it, or a key's would come to
// another queue.
func (s *Sink) adopt(routes []queueRoute) error {
	s.mu.Lock()
	told := map[string]bool{}
	var queues []*queue
	for _, qr := range routes {
		told[qr.Broker] = true
		if qr.Perm&permWrite == 0 {
			continue
		}
		for n := range qr.Write {
			k := queueKey{qr.Broker, n}
			if s.known[k] == nil {
				s.known[k] = &queue{queueKey: k}
			}
			queues = append(queues, s.known[k])
		}
	}
	for _, q := range s.queues {
		if !told[q.broker] {
			queues = append(queues, q)
		}
	}
	if len(queues) == 0 {
		s.mu.Unlock()
		return record.Errorf(record.Config, "write to topic %q: it has no queue that may be written to: give it the permission, or correct the flow's push", s.cfg.Topic)
	}
	slices.SortFunc(queues, func(a, b *queue) int {
		return cmp.Or(cmp.Compare(a.broker, b.broker), cmp.Compare(a.num, b.num))
	})
	s.queues = queues
	var bad []pending
	if !s.closed {
		bad = s.distribute(s.unrouted)
		s.unrouted = nil
	}
	s.mu.Unlock()
	s.reject(bad)
	return nil
}

// run sends what waits for a queue, until nothing does or the sink is closed.
func (s *Sink) run(q *queue) {
	for {
		s.mu.Lock()
		batch := s.batch(q)
		if s.life.Err() != nil {
			batch, q.waiting = append(batch, q.waiting...), nil
		}
		q.running = len(batch) > 0
		s.mu.Unlock()
		switch {
		case len(batch) == 0:
			return
		case s.life.Err() != nil:
			s.answer(batch, s.canceled())
		default:
			s.deliver(q, batch)
		}
	}
}

// batch takes the next records of a queue that go into one request. mu is held.
func (s *Sink) batch(q *queue) []pending {
	n, size := 0, 0
	for n < len(q.waiting) && n < batchRecords {
		size += messageSize(q.waiting[n].out.body, q.waiting[n].out.properties)
		if n > 0 && (size > batchBytes || q.singly > 0 || s.cfg.DelayLevel > 0) {
			break
		}
		n++
	}
	q.singly = max(q.singly-n, 0)
	batch := q.waiting[:n:n]
	q.waiting = q.waiting[n:]
	return batch
}

// deliver sends records until they are stored or refused, or the sink is
// closed, and answers them.
func (s *Sink) deliver(q *queue, batch []pending) {
	for wait, longest := sendBackoff, maxSendBackoff; ; wait = min(wait*2, longest) {
		err := s.send(q, batch)
		if err == nil {
			s.answer(batch, nil)
			return
		}
		if s.life.Err() != nil {
			s.answer(batch, s.canceled())
			return
		}
		e := record.AsError(err)
		switch {
		case hasCode(err, respSystemError, respBadParameter) && s.move(q, batch):
			return
		case len(batch) > 1 && (e.Class == record.TooLarge || hasCode(err, respSystemError)): // it may be one that the broker does not take
			s.mu.Lock()
			q.waiting, q.singly = append(batch, q.waiting...), len(batch)
			s.mu.Unlock()
			return
		case !e.Class.Transient():
			s.answer(batch, e)
			return
		case hasCode(err, respFlushDisk, respNoSlave, respFlushSlave):
			longest = unsafeBackoff
		}
		s.cl.health.fail(q.broker, e)
		if !sleep(s.life, wait) {
			s.answer(batch, s.canceled())
			return
		}
	}
}

// move gives the records of a queue that is gone to those that there are, and
// reports whether it did. While the queues are not looked for by others, who
// could be waiting for these records, it has them looked for.
func (s *Sink) move(q *queue, batch []pending) bool {
	s.mu.Lock()
	if s.closed || slices.Contains(s.queues, q) {
		if !s.closed && time.Since(s.looked) > maxSendBackoff {
			s.look()
		}
		s.mu.Unlock()
		return false
	}
	all := append(batch, q.waiting...)
	q.waiting, q.singly = nil, 0
	bad := s.distribute(all)
	s.mu.Unlock()
	s.reject(bad)
	return true
}

// send makes one attempt.
func (s *Sink) send(q *queue, batch []pending) error {
	ctx, cancel := context.WithTimeoutCause(s.life, sendTimeout, fmt.Errorf("broker %s: %w for %s", q.broker, errSilent, sendTimeout))
	defer cancel()
	f, err := s.cl.ask(ctx, s.cfg.Topic, q.broker, s.request(q, batch))
	if err != nil {
		switch {
		case errors.Is(err, errTooLarge):
			return record.Errorf(record.TooLarge, "send to %s: %w", s.cfg.Topic, err)
		case ctx.Err() != nil:
			err = context.Cause(ctx)
		}
		if e, ok := errors.AsType[*record.Error](err); ok {
			return e
		}
		return record.Errorf(record.Retryable, "send to %s: %w", s.cfg.Topic, err)
	}
	switch answer := (&answerError{f.Code, f.Remark}); f.Code {
	case respSuccess:
		return nil
	case respFlushDisk, respNoSlave, respFlushSlave:
		return record.Errorf(record.Retryable, "send to %s: the broker stored the message, but cannot keep it as safely as it is configured to: %w", s.cfg.Topic, answer)
	case respMessageIllegal:
		return record.Errorf(record.TooLarge, "send to %s: a message of %d bytes is more than the broker takes: %w", s.cfg.Topic, len(batch[0].out.body)+len(batch[0].out.properties), answer)
	default:
		return s.cl.topicError(ctx, "write to", s.cfg.Topic, answer)
	}
}

// nothing is an empty body, compressed by zlib.
const nothing = "\x78\x9c\x03\x00\x00\x00\x00\x01"

// request is a batch, or a single message: only the latter can be kept back,
// and only for it there is a code that says that it is too large. One without a
// body is a batch of one, or compressed: brokers refuse it otherwise.
func (s *Sink) request(q *queue, batch []pending) frame {
	f := frame{Code: reqSendBatch, Fields: map[string]string{
		"a": producerGroup,
		"b": s.cfg.Topic,
		"c": autoTopic,
		"d": strconv.Itoa(autoQueues),
		"e": strconv.Itoa(int(q.num)),
		"f": "0", // sysFlag
		"g": strconv.FormatInt(time.Now().UnixMilli(), 10),
		"h": "0", // flag
		"i": "",  // properties
		"j": "0", // consumed how often
		"k": "false",
		"m": "true", // a batch
		"n": q.broker,
	}}
	if one := batch[0].out; len(batch) == 1 && (len(one.body) > 0 || s.cfg.DelayLevel > 0) {
		f.Code, f.body = reqSendV2, one.body
		f.Fields["i"], f.Fields["m"] = one.properties, "false"
		if len(one.body) == 0 {
			f.Fields["f"], f.body = strconv.Itoa(flagCompressed), []byte(nothing)
		}
		return f
	}
	size := 0
	for i := range batch {
		size += messageSize(batch[i].out.body, batch[i].out.properties)
	}
	f.body = make([]byte, 0, size)
	for i := range batch {
		f.body = appendMessage(f.body, batch[i].out.body, batch[i].out.properties)
	}
	return f
}
