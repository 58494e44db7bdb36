package kafka

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/record"
)

// part is an assigned partition. All fields are guarded by the source's mu.
//
// The client is told of assignments by the goroutine that polls, between two
// polls of the client: whatever the client brings for a part that it was not
// told of yet belongs to an earlier assignment.
type part struct {
	id      record.Partition
	seed    record.TraceSeed
	next    int64         // the next offset to deliver
	told    bool          // the client fetches it
	paused  bool          // by the caller
	stopped bool          // the client was asked to fetch no more of it
	queued  bool          // in ready
	doubted bool          // a fetch failed, and it is being asked why: the client does not fetch it
	again   int           // how often in a row such a failure meant nothing
	floor   int64         // fetched from here on: what lies below, and after held, is passed over
	held    []*kgo.Record // fetched and not delivered
	bytes   int           // of held
}

// Assign begins to deliver p from offset on. A partition that is assigned
// already is moved there; it is not paused afterwards.
func (s *Source) Assign(p record.Partition, offset int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.drop(p)
	s.parts[p] = &part{id: p, seed: record.NewTraceSeed(p), next: offset}
	s.interrupt()
}

// Unassign stops delivering p. No Poll that begins after it returned brings a
// record of p; one that is about to end may.
func (s *Source) Unassign(p record.Partition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(p)
	s.interrupt()
}

// drop forgets an assignment. mu is held.
func (s *Source) drop(p record.Partition) {
	s.failed = slices.DeleteFunc(s.failed, func(e *connector.PartitionError) bool { return e.Partition == p })
	old := s.parts[p]
	if old == nil {
		return
	}
	delete(s.parts, p)
	if old.told {
		s.remove = append(s.remove, p)
	}
	if old.queued {
		s.ready = slices.DeleteFunc(s.ready, func(o *part) bool { return o == old })
	}
}

// Pause holds p back until Resume. What was fetched already is kept. Once
// HoldBytes are, the client is asked to fetch no more of the paused partitions:
// it then throws away what it has buffered of them and fetches it again later.
func (s *Source) Pause(p record.Partition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if pt := s.parts[p]; pt != nil {
		pt.paused = true
	}
}

// Resume ends a Pause. Nothing is lost or repeated by the two.
func (s *Source) Resume(p record.Partition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if pt := s.parts[p]; pt != nil && pt.paused {
		pt.paused = false
		s.interrupt()
	}
}

// interrupt makes a poll under way look at the assignments anew. mu is held.
func (s *Source) interrupt() {
	if s.stop != nil {
		s.stop()
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Poll blocks until a batch of one partition is there or ctx ends. The batch
// belongs to the caller. Next is past control records; a batch may have no
// records and still move it. Partitions with records in hand take turns.
//
// An error is ctx's, connector.ErrClosed, or a *connector.PartitionError of
// class config: the position is no longer in the log, the topic was deleted or
// made anew, reading is forbidden. That partition is delivered no further until
// it is assigned again; the others go on with the next Poll. With OutOfRange
// set, a position that is no longer in the log moves on in place of the error.
func (s *Source) Poll(ctx context.Context) (*record.Batch, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return nil, connector.ErrClosed
		}
		if len(s.failed) > 0 {
			err := s.failed[0]
			s.failed = s.failed[1:]
			s.mu.Unlock()
			return nil, err
		}
		if b := s.take(); b != nil {
			s.mu.Unlock()
			return b, nil
		}
		if !s.wanting() {
			s.mu.Unlock()
			select {
			case <-s.wake:
			case <-ctx.Done():
			}
			continue
		}
		pollCtx, cancel := context.WithCancel(ctx)
		s.stop = cancel
		do := s.plan()
		s.mu.Unlock()

		do.run(s.cl)
		fetches := s.cl.PollFetches(pollCtx)
		cancel()

		s.mu.Lock()
		s.stop = nil
		s.accept(ctx, fetches)
		s.mu.Unlock()
	}
}

// wanting reports whether there is a partition that the client could bring
// something for. mu is held.
func (s *Source) wanting() bool {
	for _, pt := range s.parts {
		if !pt.paused {
			return true
		}
	}
	return false
}

// take makes a batch of the next partition that has records in hand, or
// returns nil. mu is held.
func (s *Source) take() *record.Batch {
	for range len(s.ready) {
		pt := s.ready[0]
		s.ready = append(s.ready[:0], s.ready[1:]...)
		if pt.paused {
			s.ready = append(s.ready, pt)
			continue
		}
		n := min(len(pt.held), s.cfg.BatchRecords)
		b := pt.batch(s.empty(n), pt.held[:n])
		pt.held = pt.held[n:]
		if len(pt.held) > 0 {
			s.ready = append(s.ready, pt)
		} else {
			pt.held, pt.bytes, pt.queued = nil, 0, false
			pt.next = max(pt.next, pt.floor)
			b.Next = pt.next
		}
		return b
	}
	return nil
}

// empty is a batch with room for n records.
func (s *Source) empty(n int) *record.Batch {
	b, _ := s.spare.Get().(*record.Batch)
	if b == nil {
		b = &record.Batch{}
	}
	if cap(b.Records) < n {
		b.Records = make([]record.Record, 0, (n+127)&^127) // fetches differ a little in size; the next one shall fit
	}
	return b
}

// Recycle takes back a batch that Poll returned, so that a later one is made in
// its memory. Nobody may look at it any more; what its records refer to stays.
func (s *Source) Recycle(b *record.Batch) {
	clear(b.Records) // what lies there keeps nobody's bytes
	*b = record.Batch{Records: b.Records[:0]}
	s.spare.Put(b)
}

// batch converts fetched records into b and moves the position behind them.
func (pt *part) batch(b *record.Batch, recs []*kgo.Record) *record.Batch {
	b.Partition = pt.id
	for _, r := range recs {
		pt.bytes -= size(r)
		pt.next = r.Offset + 1
		if r.Attrs.IsControl() {
			continue
		}
		b.Records = append(b.Records, record.Record{
			Key:       r.Key,
			Value:     r.Value,
			Topic:     pt.id.Topic,
			Partition: pt.id.Num,
			Offset:    r.Offset,
			Timestamp: r.Timestamp.UnixMilli(),
			Attempt:   1,
			To:        -1,
		})
		out := &b.Records[len(b.Records)-1]
		if len(r.Headers) > 0 {
			out.Headers = make([]record.Header, len(r.Headers))
			for i, h := range r.Headers {
				out.Headers[i] = record.Header{Key: h.Key, Value: h.Value}
			}
			if t, ok := record.TraceFromHeaders(out.Headers); ok {
				out.Trace = t
				continue
			}
		}
		out.Trace = pt.seed.Trace(r.Offset)
	}
	b.Next = pt.next
	return b
}

// size is about what a fetched record takes.
func size(r *kgo.Record) int { return len(r.Key) + len(r.Value) + 200 }

// orders is what the client is to be told.
type orders struct {
	purge  []string
	remove map[string][]int32
	add    map[string]map[int32]kgo.Offset
	stop   map[string][]int32
	resume map[string][]int32
}

// plan turns the difference between what is assigned and what the client
// fetches into orders, and counts them as carried out. mu is held; the caller
// is the goroutine that polls.
func (s *Source) plan() orders {
	var o orders
	o.purge, s.purge = s.purge, nil
	for _, p := range s.remove {
		o.remove = appendPart(o.remove, p)
		o.resume = appendPart(o.resume, p)
	}
	s.remove = nil
	held := 0
	for _, pt := range s.parts {
		held += pt.bytes
	}
	for p, pt := range s.parts {
		if !pt.told && !pt.doubted {
			pt.told = true
			if o.add == nil {
				o.add = map[string]map[int32]kgo.Offset{}
			}
			if o.add[p.Topic] == nil {
				o.add[p.Topic] = map[int32]kgo.Offset{}
			}
			o.add[p.Topic][p.Num] = kgo.NewOffset().At(pt.fetchFrom())
		}
		switch {
		case pt.paused && !pt.stopped && held >= s.cfg.HoldBytes && pt.bytes > 0:
			pt.stopped = true
			o.stop = appendPart(o.stop, p)
		case pt.stopped && (held < s.cfg.HoldBytes/2 || pt.bytes == 0 && !pt.paused):
			pt.stopped = false
			o.resume = appendPart(o.resume, p)
		}
	}
	return o
}

func appendPart(m map[string][]int32, p record.Partition) map[string][]int32 {
	if m == nil {
		m = map[string][]int32{}
	}
	m[p.Topic] = append(m[p.Topic], p.Num)
	return m
}

func (o *orders) run(cl *kgo.Client) {
	if len(o.remove) > 0 {
		cl.RemoveConsumePartitions(o.remove)
	}
	if len(o.purge) > 0 {
		cl.PurgeTopicsFromConsuming(o.purge...)
	}
	if len(o.resume) > 0 {
		cl.ResumeFetchPartitions(o.resume)
	}
	if len(o.stop) > 0 {
		cl.PauseFetchPartitions(o.stop)
	}
	if len(o.add) > 0 {
		cl.AddConsumePartitions(o.add)
	}
}

// accept takes over what the client brought; ctx is the poll's. mu is held.
func (s *Source) accept(ctx context.Context, fetches kgo.Fetches) {
	for i := range fetches {
		for j := range fetches[i].Topics {
			t := &fetches[i].Topics[j]
			for k := range t.Partitions {
				fp := &t.Partitions[k]
				pt := s.parts[record.Partition{Topic: t.Topic, Num: fp.Partition}]
				if pt == nil || !pt.told {
					continue
				}
				if id, ok := s.ids[t.Topic]; ok && t.TopicID != [16]byte{} && t.TopicID != id {
					s.doubt(ctx, badFetch{pt, recreated(t.Topic, id, t.TopicID)})
					continue
				}
				if len(fp.Records) > 0 && fp.Records[0].Offset < pt.fetchFrom() {
					// The client has gone back: the log was cut off. It says so,
					// but what it fetched since may come first.
					s.doubt(ctx, badFetch{pt, &kgo.ErrDataLoss{Topic: t.Topic, Partition: fp.Partition, ConsumedTo: pt.fetchFrom(), ResetTo: fp.Records[0].Offset}})
					continue
				}
				if len(fp.Records) > 0 {
					pt.again = 0
					pt.hold(s, fp.Records)
				}
				if fp.Err != nil {
					s.doubt(ctx, badFetch{pt, fp.Err})
				}
			}
		}
	}
}

// hold keeps fetched records until they are taken.
func (pt *part) hold(s *Source, recs []*kgo.Record) {
	if len(recs) == 0 {
		return
	}
	for _, r := range recs {
		pt.bytes += size(r)
	}
	if len(pt.held) == 0 {
		pt.held = recs
	} else {
		pt.held = append(pt.held, recs...)
	}
	if !pt.queued {
		pt.queued = true
		s.ready = append(s.ready, pt)
	}
}

// fetchFrom is the offset after everything that was fetched or passed over.
func (pt *part) fetchFrom() int64 {
	if n := len(pt.held); n > 0 {
		return max(pt.held[n-1].Offset+1, pt.floor)
	}
	return max(pt.next, pt.floor)
}
