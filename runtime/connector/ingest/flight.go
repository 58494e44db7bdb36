package ingest

import "github.com/millrace-io/millrace/runtime/record"

// maxLent bounds what the requests of a commit add to it: 400 KB.
const maxLent = 2000

// Request is what is remembered of a settled request, so that a repetition of
// it is not another record.
type Request struct {
	Ref string
	// Digest is the xxh64 of what the request brought.
	Digest uint64
	// At is when it was settled, Unix milliseconds.
	At int64

	offset int64
}

// request is one that was admitted. What is below done is written before done
// is closed.
type request struct {
	ref     string
	offset  int64
	digest  uint64
	bytes   int64         // of the body
	named   bool          // by its sender
	rec     record.Record // until it is polled; guarded by the source's mu
	waiters int           // guarded by the source's mu
	saved   bool          // guarded by the source's mu
	done    chan struct{}

	outcome record.Settlement
	lost    bool // given up before it was settled
}

// lasting reports whether somebody may repeat the request after it is settled;
// the source's mu is held.
func (q *request) lasting() bool { return q.named || q.waiters == 0 }

// ticket is the room that a request takes while it is read.
type ticket struct {
	s     *Source
	slot  bool
	bytes int64
}

// begin makes room for a request that is to be read. One that is known already
// needs no slot, so that its sender can ask for the outcome where there is no
// room for others.
func (s *Source) begin(ref string) (*ticket, *refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open {
		return nil, stopped()
	}
	t := &ticket{s: s}
	if s.refs[ref] == nil && !s.memory.has(ref, s.cfg.Now()) {
		if s.used >= s.cfg.InFlight {
			return nil, full()
		}
		s.used++
		t.slot = true
	}
	return t, nil
}

// grow makes room for n more bytes and reports whether there was any.
func (t *ticket) grow(n int64) bool {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	if t.s.bytes+n > t.s.cfg.InFlightBytes {
		return false
	}
	t.s.bytes += n
	t.bytes += n
	return true
}

// release gives the room back. It may be called twice.
func (t *ticket) release() {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	t.drop()
}

// drop is release with mu held.
func (t *ticket) drop() {
	t.s.bytes -= t.bytes
	if t.slot {
		t.s.used--
	}
	t.bytes, t.slot = 0, false
}

// found is what became of a request that was read.
type found struct {
	// request is to be waited for; nil: it is remembered with outcome.
	request  *request
	repeated bool
	outcome  record.Settlement
}

// admit takes a request in, or finds the one that it repeats. The ticket's room
// is the request's from then on, or given back. The caller waits for what is
// found, and then calls leave.
func (s *Source) admit(t *ticket, ref string, named bool, digest uint64, rec record.Record) (found, *refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer t.drop()
	if !s.open {
		return found{}, stopped()
	}
	if q := s.refs[ref]; q != nil {
		if q.digest != digest {
			return found{}, reused(ref)
		}
		q.waiters++
		return found{request: q, repeated: true}, nil
	}
	if m, ok := s.memory.get(ref, s.cfg.Now()); ok {
		if m.digest != digest {
			return found{}, reused(ref)
		}
		return found{repeated: true, outcome: m.outcome}, nil
	}
	if !t.slot { // known when it began, and no more
		if s.used >= s.cfg.InFlight {
			return found{}, full()
		}
		s.used++
	}
	q := &request{ref: ref, offset: s.next, digest: digest, bytes: t.bytes, named: named, rec: rec, waiters: 1, done: make(chan struct{})}
	q.rec.Offset = q.offset
	t.bytes, t.slot = 0, false
	s.next++
	s.flight[q.offset], s.refs[ref] = q, q
	s.queue = append(s.queue, q)
	select {
	case s.arrived <- struct{}{}:
	default:
	}
	return found{request: q}, nil
}

// leave ends waiting for a request.
func (s *Source) leave(q *request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q.waiters--
}

// Settled tells that the record at an offset is settled for good: its sender
// is answered. Offsets that nothing is known of are passed over.
func (s *Source) Settled(_ record.Partition, offset int64, o record.Settlement) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.flight[offset]
	if q == nil {
		return
	}
	now := s.cfg.Now()
	if q.lasting() {
		s.memory.put(q.ref, settled{q.digest, now.UnixMilli(), o}, now)
		if s.cfg.Durable && !q.saved && len(s.unsaved) < s.cfg.Remembered {
			s.unsaved[offset] = Request{Ref: q.ref, Digest: q.digest, At: now.UnixMilli(), offset: offset}
		}
	}
	q.outcome = o
	s.end(q)
}

// end takes a request out of flight; mu is held.
func (s *Source) end(q *request) {
	delete(s.flight, q.offset)
	delete(s.refs, q.ref)
	s.used--
	s.bytes -= q.bytes
	close(q.done)
}

// giveUp ends every request in flight without an outcome, but for those whose
// commit is known; mu is held.
func (s *Source) giveUp() {
	s.queue = nil
	now := s.cfg.Now()
	for _, q := range s.flight {
		if q.saved {
			s.memory.put(q.ref, settled{digest: q.digest, at: now.UnixMilli()}, now)
		} else {
			q.lost = true
		}
		s.end(q)
	}
}

// Settling lends the requests that are to be remembered and whose offsets a
// commit covers: they belong into the same commit as the watermark and the
// ranges that cover them. They are lent again until Saved; of many (commits
// failed for a while) a part is lent at a time.
func (s *Source) Settling(covers func(offset int64) bool) []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.cfg.Durable {
		return nil
	}
	var out []Request
	for offset, r := range s.unsaved {
		if covers(offset) && len(out) < maxLent {
			out = append(out, r)
		}
	}
	now := s.cfg.Now().UnixMilli()
	for offset, q := range s.flight {
		if !q.saved && q.lasting() && covers(offset) && len(out) < maxLent {
			out = append(out, Request{Ref: q.ref, Digest: q.digest, At: now, offset: offset})
		}
	}
	return out
}

// Saved takes back what Settling lent once it is committed.
func (s *Source) Saved(rs []Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range rs {
		delete(s.unsaved, r.offset)
		if q := s.flight[r.offset]; q != nil {
			q.saved = true
		}
	}
}

// Remember fills the memory with requests of earlier lives, the oldest first.
// The owner calls it before Assign.
func (s *Source) Remember(rs []Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now()
	for _, r := range rs {
		s.memory.put(r.Ref, settled{digest: r.Digest, at: r.At}, now)
	}
}
