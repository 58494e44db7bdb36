// Package registry decodes values that were written with a Schema Registry:
// a zero byte, the schema's id in four bytes, and the payload in Avro or JSON.
// What comes out is JSON, as docs/connectors/registry.md defines it.
//
// It reads from the registry and writes nothing to it. Keys, Protobuf and ids
// in headers are not decoded.
package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/sr"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/record"
)

// Config says how to reach a Schema Registry.
type Config struct {
	// URL is http or https, host and perhaps a path, without credentials.
	URL string
	// User and Password are for HTTP basic authentication; an empty User: none.
	// Password is asked at each request; nil: the empty password.
	User     string
	Password func() (string, error)
	// TLS is asked at each new connection to an https URL; nil: the system's
	// roots.
	TLS func() (*tls.Config, error)
	// Timeout bounds the look-up of one schema with what it refers to, and the
	// waiting of one batch. Default 10 s.
	Timeout time.Duration
	// Logger gets life-cycle messages; nil discards them.
	Logger *slog.Logger
}

func (c Config) defaults() Config {
	if c.Timeout <= 0 {
		c.Timeout = 10 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate reports every fault of the configuration.
func (c Config) Validate() error {
	var errs []error
	u, err := url.Parse(c.URL)
	switch {
	case c.URL == "":
		errs = append(errs, errors.New("registry: no URL: give one like http://host:8081"))
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		errs = append(errs, errors.New("registry: `url` is not like http://host:8081 or https://host"))
	default:
		if u.User != nil {
			errs = append(errs, errors.New("registry: `url` holds a user: give it as `basic`"))
		}
		if u.RawQuery != "" || u.Fragment != "" {
			errs = append(errs, errors.New("registry: `url` has a query or a fragment: leave it out"))
		}
	}
	if c.User == "" && c.Password != nil {
		errs = append(errs, errors.New("registry: a password without a user: give both"))
	}
	return errors.Join(errs...)
}

// Client looks schemas up and keeps them. It is safe for concurrent use.
type Client struct {
	cfg  Config
	sr   *sr.Client
	http *http.Client
	// base ends with Close: look-ups outlive who asked first for them.
	base   context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	cache  cache // guarded by mu
	closed bool  // guarded by mu
	down   bool  // guarded by mu; the last look-up failed for a passing reason
}

// New makes a client. It sends nothing by itself.
func New(cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.defaults()
	c := &Client{cfg: cfg, http: cfg.client(), cache: newCache()}
	cl, err := sr.NewClient(sr.URLs(cfg.URL), sr.HTTPClient(c.http), sr.UserAgent("millrace"), sr.PreReq(cfg.authorize), sr.LogLevel(sr.LogLevelNone))
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	c.sr = cl
	c.base, c.cancel = context.WithCancel(context.Background())
	return c, nil
}

// Close ends look-ups that are under way and waits for them. Afterwards
// nothing is decoded any more.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.wg.Wait()
	c.http.CloseIdleConnections()
	return nil
}

// Check asks the registry for a schema that does not exist, which tells
// whether it is one and lets us read. The error ends with what to do. It
// blocks for at most the timeout.
func Check(ctx context.Context, cfg Config) error {
	c, err := New(cfg)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	_, fault := c.fetch(ctx, "read schemas", idPath(maxID)) // people need not know which
	_, large := errors.AsType[*answerTooLarge](fault)
	switch {
	case fault == nil, fault.Class == record.Schema && !large:
		return nil
	case large:
		return c.stranger("read schemas", "with something else than a schema")
	}
	if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return ctx.Err()
	}
	return fault
}

// maxID is the largest id of a registry; no schema has it.
const maxID = 1<<31 - 1

// schema is that of an id, from the cache or looked up. It blocks until the
// registry has answered or ctx ends; an error of ctx comes as it is, every
// other one is a *record.Error.
func (c *Client) schema(ctx context.Context, id uint32) (*schema, error) {
	now := time.Now()
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, record.Errorf(record.Retryable, "schema %d: %w", id, connector.ErrClosed)
	}
	e := c.cache.get(id, now)
	if e == nil {
		e = c.cache.begin(id)
		c.wg.Add(1)
		go c.fill(id, e)
	}
	c.mu.Unlock()
	select {
	case <-e.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if e.err != nil {
		err := *e.err // each record has its own
		return nil, &err
	}
	return e.schema, nil
}

// fill looks a schema up and completes its entry.
func (c *Client) fill(id uint32, e *entry) {
	defer c.wg.Done()
	ctx, cancel := context.WithTimeout(c.base, c.cfg.Timeout)
	s, err := c.load(ctx, id)
	cancel()
	c.mu.Lock()
	c.cache.complete(e, s, err, time.Now())
	down := err != nil && err.Class.Transient()
	changed := down != c.down && !c.closed
	c.down = down
	c.mu.Unlock()
	switch {
	case changed && down:
		c.cfg.Logger.Warn("schema registry does not answer", "err", err)
	case changed:
		c.cfg.Logger.Info("schema registry answers again")
	case err == nil:
		c.cfg.Logger.Debug("schema loaded", "id", id, "subject", s.subject)
	}
}
