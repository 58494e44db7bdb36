package kafka

import (
	"time"
)

// held is what of one source partition waits to be sent: the records that the
// client gave up for a reason that goes away, in the order of its answers, and
// behind them what was delivered since.
//
// The client gives up all that it has of an output partition at once, in its
// order. So order is kept, but for records that it gets between that and the
// moment when the sink has its answer: they may come before. Where a broker
// refuses again what is just being handed over, that is the rest of it.
type held struct {
	failed, behind []*slot
	timer          *time.Timer
}

// send gives a record to the client, or puts it behind those of its source
// partition that wait.
func (s *Sink) send(sl *slot) {
	if s.holding.Load() > 0 {
		s.mu.Lock()
		if h := s.held[sl.from]; h != nil {
			h.behind = append(h.behind, sl)
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
	}
	s.cl.Produce(s.life, &sl.rec, s.answer)
}

// again lets a record that the client gave up be produced anew after a while.
func (s *Sink) again(sl *slot, why error) {
	sl.tries++
	from := sl.from
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.held[from]
	if h == nil {
		wait := min(100*time.Millisecond<<min(sl.tries, 8), 10*time.Second)
		if s.life.Err() != nil {
			wait = 0
		}
		s.cfg.Logger.Warn("records are produced again", "topic", s.cfg.Topic, "attempt", sl.tries+1, "err", why)
		h = &held{timer: time.AfterFunc(wait, func() { s.resume(from) })}
		if s.held == nil {
			s.held = map[int32]*held{}
		}
		s.held[from] = h
		s.holding.Add(1)
	}
	h.failed = append(h.failed, sl)
}

// resume produces what waits of a source partition. The client takes it without
// waiting for answers, so mu may be held.
func (s *Sink) resume(from int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.held[from]
	if h == nil {
		return
	}
	for _, sls := range [][]*slot{h.failed, h.behind} {
		for _, sl := range sls {
			s.cl.Produce(s.life, &sl.rec, s.answer)
		}
	}
	delete(s.held, from)
	s.holding.Add(-1)
}

// release answers all that waits, once the client is closed.
func (s *Sink) release() {
	s.mu.Lock()
	var waiting []int32
	for from, h := range s.held {
		h.timer.Stop()
		waiting = append(waiting, from)
	}
	s.mu.Unlock()
	for _, from := range waiting {
		s.resume(from)
	}
}
