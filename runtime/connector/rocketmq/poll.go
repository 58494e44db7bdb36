package rocketmq

import (
	"context"
	"slices"
	"time"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/record"
)

// part is an assigned queue. Each has a goroutine that pulls for it, until the
// part ends; what the goroutine brings after that is dropped.
type part struct {
	id   record.Partition
	seed record.TraceSeed
	end  context.CancelFunc
	more chan struct{} // one slot: a puller that waits for room needs one token

	// Guarded by the source's mu.
	next   int64 // the next offset to deliver
	fetch  int64 // the next offset to pull
	paused bool
	queued bool // in ready
	failed bool // Poll was told why it cannot be pulled
	held   []record.Record
	bytes  int // of held
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
	ctx, cancel := context.WithCancel(context.Background())
	pt := &part{id: p, seed: record.NewTraceSeed(p), end: cancel, more: make(chan struct{}, 1), next: offset, fetch: offset}
	s.parts[p] = pt
	s.pullers.Go(func() {
		defer cancel()
		s.pull(ctx, pt)
	})
	s.signal()
}

// Unassign stops delivering p. No Poll that begins after it returned brings a
// record of p.
func (s *Source) Unassign(p record.Partition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(p)
	s.signal()
}

// drop forgets an assignment. mu is held.
func (s *Source) drop(p record.Partition) {
	s.failed = slices.DeleteFunc(s.failed, func(e *connector.PartitionError) bool { return e.Partition == p })
	old := s.parts[p]
	if old == nil {
		return
	}
	delete(s.parts, p)
	old.end()
	if old.queued {
		s.ready = slices.DeleteFunc(s.ready, func(o *part) bool { return o == old })
	}
	s.release(old, old.bytes)
}

// release counts bytes as delivered and lets those pull that wait for room. mu
// is held.
func (s *Source) release(pt *part, n int) {
	pt.bytes -= n
	s.held -= n
	pt.wakeup()
	if s.held < s.cfg.HoldBytes && s.held+n >= s.cfg.HoldBytes {
		for _, o := range s.parts {
			o.wakeup()
		}
	}
}

func (pt *part) wakeup() {
	select {
	case pt.more <- struct{}{}:
	default:
	}
}

// Pause holds p back until Resume. What was pulled already is kept.
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
		pt.wakeup()
		s.signal()
	}
}

// signal makes a Poll that waits look again.
func (s *Source) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Poll blocks until a batch of one partition is there or ctx ends. The batch
// belongs to the caller. Next is past messages that are passed over for their
// tags; a batch may have no records and still move it. Partitions with records
// in hand take turns.
//
// An error is ctx's, connector.ErrClosed, or a *connector.PartitionError of
// class config: the position is no longer in the log, the topic or the queue
// was deleted, reading is forbidden. That partition is delivered no further
// until it is assigned again; the others go on with the next Poll.
func (s *Source) Poll(ctx context.Context) (*record.Batch, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s.mu.Lock()
		switch {
		case s.closed:
			s.mu.Unlock()
			return nil, connector.ErrClosed
		case len(s.failed) > 0:
			err := s.failed[0]
			s.failed = s.failed[1:]
			s.mu.Unlock()
			return nil, err
		}
		b := s.take()
		s.mu.Unlock()
		if b != nil {
			return b, nil
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
		}
	}
}

// take makes a batch of the next partition that has something in hand, or
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
		b := &record.Batch{Partition: pt.id, Records: pt.held[:n:n]}
		if pt.held = pt.held[n:]; len(pt.held) > 0 {
			s.ready = append(s.ready, pt)
			pt.next = b.Records[n-1].Offset + 1
		} else {
			pt.held, pt.queued = nil, false
			pt.next = pt.fetch
		}
		b.Next = pt.next
		bytes := 0
		for i := range b.Records {
			bytes += b.Records[i].Size()
		}
		s.release(pt, bytes)
		return b
	}
	return nil
}

// room reports whether pt may be pulled now. A paused queue pulls only while
// there is plenty of room, one that is read always keeps a batch in hand. mu is
// held.
func (s *Source) room(pt *part) bool {
	switch {
	case len(pt.held) == 0 && !pt.paused:
		return true
	case len(pt.held) >= s.cfg.BatchRecords, pt.bytes >= s.cfg.HoldBytes/2:
		return false
	}
	return s.held < s.cfg.HoldBytes
}

// accept takes what a pull brought, unless the part has ended since.
func (s *Source) accept(pt *part, recs []record.Record, next int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.parts[pt.id] != pt {
		return
	}
	pt.fetch = next
	if len(recs) == 0 && len(pt.held) > 0 {
		return // the batch that takes the last of held moves the position
	}
	for i := range recs {
		n := recs[i].Size()
		pt.bytes += n
		s.held += n
	}
	pt.held = append(pt.held, recs...)
	if !pt.queued {
		pt.queued = true
		s.ready = append(s.ready, pt)
	}
	s.signal()
}

// fail makes Poll return err for the part, once.
func (s *Source) fail(pt *part, err *record.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.parts[pt.id] != pt || pt.failed {
		return
	}
	pt.failed = true
	s.failed = append(s.failed, &connector.PartitionError{Partition: pt.id, Err: err})
	s.signal()
}

// waitForRoom blocks until pt may be pulled, and returns from where on.
func (s *Source) waitForRoom(ctx context.Context, pt *part) (int64, bool) {
	for {
		s.mu.Lock()
		ok, at := s.room(pt), pt.fetch
		s.mu.Unlock()
		if ok {
			return at, ctx.Err() == nil
		}
		select {
		case <-pt.more:
		case <-ctx.Done():
			return 0, false
		}
	}
}

// sleep waits, and reports whether ctx still runs.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
