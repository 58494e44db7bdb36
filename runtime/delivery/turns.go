package delivery

import "time"

// port is where the requests of one delivery wait for their turn.
type port struct {
	limit int // requests under way at once; 0: the connection's alone
	// All guarded by Connection.mu.
	busy        int
	first, last *place
	listed      bool // in turns
}

// runner makes the request of a place once it is its turn. start is called on
// a goroutine of the connection's, and returns what Connection.next gave it,
// nil if the pass is dealt with elsewhere.
type runner interface{ start(*pass) *pass }

// place is one request's in a port.
type place struct {
	runner     runner
	port       *port
	prev, next *place
	waiting    bool
}

// pass is the right to make the request of a place, and once more where an
// access token was refused.
type pass struct {
	place      *place
	generation uint64
	probe      bool
	at         time.Time // when the limit let it begin
	sent       int
	began      time.Time // when the last one did
	took       time.Duration
	reported   bool // the breaker knows what became of it
	down       bool // it was a probe, and failed
}

// port makes a port; wake is told when the breaker opens.
func (c *Connection) port(limit int, wake waker) *port {
	p := &port{limit: limit}
	if wake != nil {
		c.mu.Lock()
		c.wakes[p] = wake
		c.mu.Unlock()
	}
	return p
}

// drop forgets a port that nothing waits in.
func (c *Connection) drop(p *port) {
	c.mu.Lock()
	delete(c.wakes, p)
	c.mu.Unlock()
}

// enter puts places behind those of the port.
func (c *Connection) enter(p *port, places ...*place) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, pl := range places {
		c.push(p, pl)
	}
	c.dispatch(time.Now())
}

// push is enter for one place; mu is held.
func (c *Connection) push(p *port, pl *place) {
	pl.port, pl.waiting, pl.prev, pl.next = p, true, p.last, nil
	if p.last == nil {
		p.first = pl
	} else {
		p.last.next = pl
	}
	p.last = pl
	c.waiting++
	c.list(p)
}

// list gives a port turns if it can use one; mu is held.
func (c *Connection) list(p *port) {
	if !p.listed && p.first != nil && (p.limit == 0 || p.busy < p.limit) {
		p.listed = true
		c.turns = append(c.turns, p)
	}
}

// leave takes a place out of its port; false if it has its turn already.
func (c *Connection) leave(pl *place) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !pl.waiting {
		return false
	}
	c.unlink(pl)
	return true
}

func (c *Connection) unlink(pl *place) {
	p := pl.port
	if pl.prev == nil {
		p.first = pl.next
	} else {
		pl.prev.next = pl.next
	}
	if pl.next == nil {
		p.last = pl.prev
	} else {
		pl.next.prev = pl.prev
	}
	pl.prev, pl.next, pl.waiting = nil, nil, false
	c.waiting--
}

// dispatch starts what may begin now, and sets the timer for what may begin
// later; mu is held.
func (c *Connection) dispatch(now time.Time) {
	for {
		pa := c.take(now)
		if pa == nil {
			return
		}
		go c.run(pa)
	}
}

// run carries out passes one after the other.
func (c *Connection) run(pa *pass) {
	for pa != nil {
		pa = pa.place.runner.start(pa)
	}
}

// next ends a pass and returns another one for the same goroutine, nil if
// nothing may begin now.
func (c *Connection) next(pa *pass) *pass {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy--
	pa.place.port.busy--
	c.list(pa.place.port)
	if pa.probe && !pa.reported { // nothing was sent: another one decides
		c.probing = false
	}
	first := c.take(now)
	c.dispatch(now)
	return first
}

// take finds the next request that may begin, or sets the timer for it; mu is
// held.
func (c *Connection) take(now time.Time) *pass {
	p := c.turn()
	if p == nil || c.busy >= c.cfg.Concurrent {
		return nil
	}
	at, ok := c.mayBegin(now)
	if !ok {
		return nil
	}
	if at.After(now) {
		c.arm(at)
		return nil
	}
	c.turns = c.turns[1:]
	p.listed = false
	pl := p.first
	c.unlink(pl)
	c.busy++
	p.busy++
	c.list(p)
	pa := &pass{place: pl, generation: c.breaker.generation, at: now}
	if c.breaker.state != Closed {
		if c.breaker.state == Open {
			c.breaker.become(HalfOpen, now)
		}
		c.probing, pa.probe = true, true
		if c.waiting == 0 {
			c.alone++
		} else {
			c.alone = 0
		}
	}
	c.token = time.Time{}
	return pa
}

// turn is the port whose turn it is; mu is held.
func (c *Connection) turn() *port {
	for len(c.turns) > 0 {
		p := c.turns[0]
		if p.first != nil && (p.limit == 0 || p.busy < p.limit) {
			return p
		}
		p.listed = false
		c.turns = c.turns[1:]
	}
	c.turns = nil
	return nil
}

// mayBegin is when the next request may; false while a probe decides. mu is
// held.
func (c *Connection) mayBegin(now time.Time) (time.Time, bool) {
	at := now
	switch c.breaker.state {
	case HalfOpen:
		if c.probing {
			return at, false
		}
	case Open:
		if probe := c.breaker.probeAt(); probe.After(at) {
			return probe, true // before a token is taken for it
		}
	}
	if c.until.After(at) {
		return c.until, true
	}
	if c.limiter != nil {
		if c.token.IsZero() || now.Sub(c.token) > time.Duration(float64(time.Second)/c.cfg.RequestsPerSecond) { // or nobody used it
			r := c.limiter.ReserveN(now, 1)
			c.token = now.Add(r.DelayFrom(now))
		}
		if c.token.After(at) {
			at = c.token
		}
	}
	return at, true
}

// arm sets the timer; mu is held.
func (c *Connection) arm(at time.Time) {
	if c.armed.Equal(at) {
		return
	}
	c.armed = at
	d := time.Until(at)
	if c.timer == nil {
		c.timer = time.AfterFunc(d, c.tick)
	} else {
		c.timer.Reset(d)
	}
}

func (c *Connection) tick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armed = time.Time{}
	c.dispatch(time.Now())
}
