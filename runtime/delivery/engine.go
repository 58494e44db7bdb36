// Package delivery brings records to a partner that takes requests: it gathers
// them into batches, shapes and signs each attempt's request, judges the
// answer, tries again until it counts, and keeps the order that the flow asks
// for. What cannot be delivered for long it hands back to be kept.
//
// It makes no connection and knows no protocol: a Sender does, which whoever
// puts a flow together gives to a Connection. It stores nothing: what is to be
// kept is an Outcome.
package delivery

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/millrace-io/millrace/runtime/delivery/batch"
	"github.com/millrace-io/millrace/runtime/delivery/sign"
	"github.com/millrace-io/millrace/runtime/delivery/verdict"
	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
	"github.com/millrace-io/millrace/runtime/retry"
)

// Defaults of a Config.
const (
	DefaultSpillAfter = 30 * time.Second
	DefaultMaxKeep    = 1 << 20
)

// Signer signs requests, as sign.Signing does: it calls send with the signed
// request, and once more if a new signature may mend a 401. send returns the
// answer's status, 0 if there was none, and what is wrong with it. Do returns
// what its last send returned, or a *record.Error of its own.
type Signer interface {
	Do(ctx context.Context, r *sign.Request, send func(context.Context, *sign.Request) (status int, err error)) error
}

// credentials are names of what a signer sends credentials by.
type credentials interface {
	Credentials() (header, query []string)
}

// Judge says what an answer means, as verdict.Rules does. Many goroutines call
// it at once.
type Judge interface {
	Judge(*verdict.Exchange) verdict.Verdicts
}

// Config describes an Engine. Build and Conn are required; the zero value of
// another field is its default.
type Config struct {
	// ID of the delivery in its flow.
	ID string
	// Order is what is kept of each lane's order. Default flow.OrderPartition.
	Order flow.Order
	// Batch joins records into one request; nil: each is one.
	Batch *batch.Config
	// OnePerKey, with OrderKey, lets a batch hold one record of a key at most:
	// a Judge that takes one item of a batch and not another could turn two of
	// a key around.
	OnePerKey bool
	Build     *Builder
	// Signer signs every attempt; nil: nothing is signed. If it has a method
	// Credentials as sign.Signing has, what that names is not shown.
	Signer Signer
	// Judge says what answers mean; nil: their status does.
	Judge Judge
	// ItemID is the id that an answer calls a record by; nil: its own.
	ItemID *expr.Program
	Conn   *Connection
	Policy retry.Policy
	// SpillAfter is how long after its first attempt a record that fails
	// for a passing reason is handed back to be kept, not counting time in
	// which the connection's breaker was not closed. Below 0: never.
	// OrderPartition keeps nothing. Default DefaultSpillAfter.
	SpillAfter time.Duration
	// MaxKeep is the size of the largest record that is handed back; larger
	// ones stay. Default DefaultMaxKeep.
	MaxKeep int
	// HoldBack keeps back the records behind one that cannot be delivered: the
	// flow pauses there.
	HoldBack bool
	// Concurrent bounds the requests of this delivery that are under way;
	// 0: the connection's bound alone.
	Concurrent int
	Redact     RedactConfig
	// OnRetry is called for each attempt after a request's first; may be nil.
	OnRetry func()
	Logger  *slog.Logger
}

func (c Config) defaults() Config {
	if c.Order == "" {
		c.Order = flow.OrderPartition
	}
	if c.SpillAfter == 0 {
		c.SpillAfter = DefaultSpillAfter
	}
	if c.MaxKeep == 0 {
		c.MaxKeep = DefaultMaxKeep
	}
	if c.OnRetry == nil {
		c.OnRetry = func() {}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Engine is one delivery of a flow. Its lanes share its connection and its
// figures, and nothing else. Safe for concurrent use.
type Engine struct {
	cfg  Config
	port *port

	hard    context.Context // ends with Close
	cancel  context.CancelFunc
	running sync.WaitGroup // attempts under way

	mu     sync.Mutex
	lanes  map[*Lane]bool // guarded by mu
	closed bool           // guarded by mu

	trouble atomic.Pointer[trouble]
}

// trouble is a request that is tried again.
type trouble struct {
	unit *unit
	text string
}

// New makes a delivery. It sends nothing by itself. The error is one of
// batch.Config.Validate.
func New(cfg Config) (*Engine, error) {
	e := &Engine{cfg: cfg.defaults(), lanes: map[*Lane]bool{}}
	if cfg.Batch != nil {
		if err := cfg.Batch.Validate(); err != nil {
			return nil, fmt.Errorf("delivery %s: %w", cfg.ID, err)
		}
	}
	if c, ok := cfg.Signer.(credentials); ok {
		header, query := c.Credentials()
		e.cfg.Redact.Headers = append(slices.Clone(cfg.Redact.Headers), header...)
		e.cfg.Redact.Query = append(slices.Clone(cfg.Redact.Query), query...)
	}
	e.hard, e.cancel = context.WithCancel(context.Background())
	e.port = cfg.Conn.port(cfg.Concurrent, e.wake)
	return e, nil
}

// Hold is the hash that a delivery's kept records of one key have in common:
// of r's key, or, where it has none, of all records of its partition without
// one. It is never 0. It is part of what is stored and does not change.
func Hold(delivery string, r *record.Record) uint64 {
	var buf [128]byte
	b := append(buf[:0], delivery...)
	if r.Key == nil {
		b = append(b, 1)
	} else {
		b = append(append(b, 0), r.Key...)
	}
	return max(xxhash.Sum64(b), 1)
}

// wake is called when the breaker opens: whatever waits for its next attempt
// is there to try the other side with, and goes on as soon as that works.
func (e *Engine) wake() {
	e.cfg.Logger.Warn("delivery is held back until its connection works again", "stage", e.cfg.ID, "err", e.cfg.Conn.Usage().Reason)
	for _, l := range e.all() {
		l.wake()
	}
}

func (e *Engine) all() []*Lane {
	e.mu.Lock()
	defer e.mu.Unlock()
	lanes := make([]*Lane, 0, len(e.lanes))
	for l := range e.lanes {
		lanes = append(lanes, l)
	}
	return lanes
}

// Problem says why records are not getting through just now, or is empty.
func (e *Engine) Problem() string {
	if held := e.Held(); held != "" {
		return held
	}
	if t := e.trouble.Load(); t != nil {
		return t.text
	}
	return ""
}

// Held is the reason while the connection's breaker is open, "" otherwise: the
// flow is to take nothing in meanwhile. It does not change while it holds. It
// is also "" where nothing is left to try the other side with, or one request
// that always fails: then a record more may help.
func (e *Engine) Held() string { return e.cfg.Conn.Held() }

// Close cuts off what is under way, abandons what waits, and returns when all
// of it has been answered. It is idempotent.
func (e *Engine) Close() error {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.cancel()
	lanes := e.all()
	for _, l := range lanes {
		l.Close()
	}
	e.running.Wait()
	for _, l := range lanes {
		l.told()
	}
	e.cfg.Conn.drop(e.port)
	return nil
}

// enter notes that an attempt begins; false once the engine is closed.
func (e *Engine) enter() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.closed {
		e.running.Add(1)
	}
	return !e.closed
}

// Chain signs with one signer after the other: each sees what those before it
// added. A 401 is mended by each in turn. nil signers are passed over; it
// returns nil for none.
func Chain(signers ...Signer) Signer {
	var all []Signer
	for _, s := range signers {
		if s != nil {
			all = append(all, s)
		}
	}
	switch len(all) {
	case 0:
		return nil
	case 1:
		return all[0]
	}
	return chain{all[0], Chain(all[1:]...)}
}

type chain struct{ first, rest Signer }

// Credentials are those of all.
func (c chain) Credentials() (header, query []string) {
	for _, s := range []Signer{c.first, c.rest} {
		if s, ok := s.(credentials); ok {
			h, q := s.Credentials()
			header, query = append(header, h...), append(query, q...)
		}
	}
	return header, query
}

func (c chain) Do(ctx context.Context, r *sign.Request, send func(context.Context, *sign.Request) (int, error)) error {
	return c.first.Do(ctx, r, func(ctx context.Context, r *sign.Request) (int, error) {
		status := 0
		err := c.rest.Do(ctx, r, func(ctx context.Context, r *sign.Request) (int, error) {
			var err error
			status, err = send(ctx, r)
			return status, err
		})
		return status, err
	})
}
