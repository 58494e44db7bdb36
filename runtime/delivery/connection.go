package delivery

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/millrace-io/millrace/runtime/delivery/sign"
	"github.com/millrace-io/millrace/runtime/delivery/verdict"
	"github.com/millrace-io/millrace/runtime/record"
)

// DefaultConcurrent is how many requests of a connection are under way at
// once.
const DefaultConcurrent = 16

// MaxHold bounds how long an answer's Retry-After holds a whole connection
// back. (The request that it answered waits as long as it asks for.)
const MaxHold = time.Minute

// Sender makes one request and returns the answer, whatever its status. timeout
// is that of this request; 0: the sender's own. Without an answer the error is
// a *record.Error of class retryable, timeout, config or schema that shows no
// credentials, or one for which errors.Is(err, context.Canceled) holds when ctx
// ended. Many goroutines call it at once.
type Sender func(ctx context.Context, r *sign.Request, timeout time.Duration) (*verdict.Response, error)

// ConnectionConfig describes a Connection. Send is required; the zero value of
// another field is its default.
type ConnectionConfig struct {
	// Name for messages.
	Name string
	// Concurrent bounds the requests under way. Default DefaultConcurrent.
	Concurrent int
	// RequestsPerSecond bounds the requests begun, evenly and without a burst
	// at the start; 0: any number.
	RequestsPerSecond float64
	Breaker           BreakerConfig
	Send              Sender
	// Redact takes secrets out of what Held and Usage tell; nil: there are
	// none.
	Redact func(string) string
	// Observer looks at requests and answers; nil: nobody does.
	Observer Observer
}

// Connection is what all deliveries to one place share: its limits, and the
// breaker that holds them back together while it is down. Safe for concurrent
// use. It needs no Close.
//
// Deliveries get their turn one after the other, whatever the number of
// records that wait in each. A 408, 429 or 503 with Retry-After holds all
// requests back for that long, at most MaxHold.
type Connection struct {
	cfg     ConnectionConfig
	limiter *rate.Limiter // nil: no limit

	mu      sync.Mutex
	breaker *breaker // guarded by mu
	busy    int      // guarded by mu; requests under way
	// turns are the ports with something that waits, in the order in which
	// they get their turn.
	turns   []*port // guarded by mu
	waiting int     // guarded by mu; places in all ports
	probing bool    // guarded by mu; the request that decides is under way
	alone   int     // guarded by mu; probes in a row for want of another
	// doubtful: the last failure was an answer that may be due to the record.
	doubtful bool      // guarded by mu
	token    time.Time // guarded by mu; when a request may begin by the limit; zero: ask
	until    time.Time // guarded by mu; the other side asked to wait until then
	timer    *time.Timer
	armed    time.Time       // guarded by mu; what timer is set to, zero: not at all
	recent   [20]recentCell  // guarded by mu; requests begun, a cell for 50 ms
	wakes    map[*port]waker // guarded by mu
}

type recentCell struct{ at, n int64 }

const recentSpan = int64(time.Second) / 20

// waker is told when the breaker opens: no attempt is worth waiting for.
type waker func()

// paceBelow is the part of the allowed rate that is used: a partner that counts
// the same rate itself sees requests a little closer together than they were
// made.
const paceBelow = 0.98

// NewConnection makes a connection. It sends nothing by itself.
func NewConnection(cfg ConnectionConfig) *Connection {
	if cfg.Concurrent <= 0 {
		cfg.Concurrent = DefaultConcurrent
	}
	if cfg.Redact == nil {
		cfg.Redact = func(s string) string { return s }
	}
	c := &Connection{cfg: cfg, breaker: newBreaker(cfg.Breaker, time.Now()), wakes: map[*port]waker{}}
	if cfg.RequestsPerSecond > 0 {
		c.limiter = rate.NewLimiter(rate.Limit(cfg.RequestsPerSecond*paceBelow), 1)
	}
	return c
}

// Usage is what a connection is doing.
type Usage struct {
	// UnderWay are requests, of at most Concurrent; Waiting are requests that
	// only lack a turn.
	UnderWay, Concurrent, Waiting int
	// LastSecond is how many requests were begun in the last second, of
	// PerSecond that may be (0: any number).
	LastSecond int
	PerSecond  float64
	// Breaker, since when it is closed or not (a probe makes no difference),
	// and why it is not.
	Breaker BreakerState
	Since   time.Time
	Reason  string
	// Until is not zero while the other side has asked to wait.
	Until time.Time
}

// Usage is a snapshot.
func (c *Connection) Usage() Usage {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	u := Usage{
		UnderWay: c.busy, Concurrent: c.cfg.Concurrent, Waiting: c.waiting, PerSecond: c.cfg.RequestsPerSecond,
		Breaker: c.breaker.state, Since: c.breaker.shownSince(), Reason: c.breaker.reason(),
	}
	if c.until.After(now) {
		u.Until = c.until
	}
	at := now.UnixNano() / recentSpan
	for _, cell := range c.recent {
		if cell.at > at-int64(len(c.recent)) && cell.at <= at {
			u.LastSecond += int(cell.n)
		}
	}
	return u
}

// Held is the reason while the breaker is open and there is enough that waits
// to try the other side with, "" otherwise.
func (c *Connection) Held() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	switch {
	case c.breaker.state == Closed:
		return ""
	case !c.probing && c.waiting == 0 && (c.breaker.state == HalfOpen || !c.breaker.probeAt().After(now)):
		return "" // it takes a request to learn more
	}
	if c.doubtful && c.alone >= aloneLimit && c.waiting+c.probes() < 2 {
		return "" // one request that always fails must not keep out those that may not
	}
	return fmt.Sprintf("connection %s: %s; one request every %s tries it", c.cfg.Name, c.breaker.reason(), c.breaker.cfg.Probe)
}

// aloneLimit is how many probes may fail for want of another request before
// more are let in.
const aloneLimit = 3

// probes is 1 while a probe is under way; mu is held.
func (c *Connection) probes() int {
	if c.probing {
		return 1
	}
	return 0
}

// Do makes one request within the connection's limits and returns the answer,
// whatever its status. It blocks until there is a place and then for the
// request; an open breaker is waited for. The errors are the Sender's, and
// context.Canceled where ctx ended first.
func (c *Connection) Do(ctx context.Context, r *sign.Request, timeout time.Duration) (*verdict.Response, error) {
	p := c.port(0, nil)
	ready := make(chan *pass, 1) // the connection does not wait for us
	pl := &place{runner: handOver(ready)}
	c.enter(p, pl)
	var pa *pass
	select {
	case pa = <-ready:
	case <-ctx.Done():
		if c.leave(pl) {
			return nil, fmt.Errorf("connection %s: not sent: %w", c.cfg.Name, context.Canceled)
		}
		pa = <-ready
	}
	defer func() {
		if other := c.next(pa); other != nil {
			go c.run(other)
		}
	}()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("connection %s: not sent: %w", c.cfg.Name, context.Canceled)
	}
	return c.send(ctx, pa, r, timeout, func(*verdict.Response) bool { return false })
}

// handOver is the runner of a request that another goroutine makes.
type handOver chan *pass

func (h handOver) start(pa *pass) *pass {
	h <- pa
	return nil
}

// staleToken is how long after its turn a request may begin without another
// look at the limit: something held it up, as it may have held up others.
const staleToken = 100 * time.Millisecond

// send makes a request of a pass and tells the breaker what became of it.
func (c *Connection) send(ctx context.Context, pa *pass, r *sign.Request, timeout time.Duration, works func(*verdict.Response) bool) (*verdict.Response, error) {
	pa.sent++
	if c.limiter != nil && (pa.sent > 1 || time.Since(pa.at) > staleToken) {
		if err := c.limiter.Wait(ctx); err != nil {
			return nil, fmt.Errorf("connection %s: not sent: %w", c.cfg.Name, context.Canceled)
		}
	}
	pa.began = time.Now()
	c.begun(pa.began)
	resp, err := c.cfg.Send(ctx, r, timeout)
	pa.took = time.Since(pa.began)
	decided := err == nil && works(resp)
	now := time.Now()
	switch {
	case err != nil && ctx.Err() != nil:
	case err != nil:
		if e := record.AsError(err); e.Class.Transient() {
			c.failed(pa, (&RedactConfig{}).Redactor(r)(e.Error()), false)
		}
	case resp.Status >= 500 && !decided:
		c.patience(resp, now)
		doubtful := resp.Status != 502 && resp.Status != 503 && resp.Status != 504
		c.failed(pa, fmt.Sprintf("%s %s://%s: status %d", r.Method, r.URL.Scheme, r.URL.Host, resp.Status), doubtful)
	default:
		c.patience(resp, now)
		c.answered(pa)
	}
	return resp, err
}

// begun counts a request.
func (c *Connection) begun(now time.Time) {
	at := now.UnixNano() / recentSpan
	c.mu.Lock()
	defer c.mu.Unlock()
	cell := &c.recent[at%int64(len(c.recent))]
	if cell.at != at {
		*cell = recentCell{at: at}
	}
	cell.n++
}

// patience holds the connection back for as long as an answer asks for.
func (c *Connection) patience(resp *verdict.Response, now time.Time) {
	if resp.Status != 408 && resp.Status != 429 && resp.Status != 503 {
		return
	}
	wait := min(verdict.RetryAfter(resp.Header, now), MaxHold)
	if wait <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if until := now.Add(wait); until.After(c.until) {
		c.until = until
	}
}

// answered tells the breaker that the other side works.
func (c *Connection) answered(pa *pass) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	pa.reported = true
	if c.breaker.success(pa.generation, now) {
		c.probing, c.alone = false, 0
		c.dispatch(now)
	}
}

// failed tells it that it does not; doubtful: or that the record is to blame.
func (c *Connection) failed(pa *pass, why string, doubtful bool) {
	now := time.Now()
	c.mu.Lock()
	pa.reported = true
	was := c.breaker.state
	if pa.generation == c.breaker.generation {
		c.doubtful, pa.down = doubtful, was != Closed
	}
	opened := c.breaker.failure(pa.generation, now, c.cfg.Redact(why))
	var wakes []waker
	if opened {
		c.probing = false
		if was == Closed {
			c.alone = 0
			for _, w := range c.wakes {
				wakes = append(wakes, w)
			}
		}
		c.dispatch(now) // sets the timer for the probe
	}
	c.mu.Unlock()
	for _, w := range wakes {
		w()
	}
}

// shut is how long the breaker has not been closed in all, and whether it is
// not now.
func (c *Connection) shut(now time.Time) (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.breaker.shutFor(now), c.breaker.state != Closed
}
