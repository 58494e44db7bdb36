// Package daemon builds one node out of the parts: state and log, sandbox and
// registry, sources, stages and deliveries, and the admin API. It is where
// runtime, plugins and cluster meet; flowd and flowctl share it.
//
// It decides which flows run and with what; how records flow is the
// pipeline's business, what is true the state's.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace-io/millrace/cluster/node"
	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/heap"
	"github.com/millrace-io/millrace/plugins/registry"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/pipeline"
)

// Bounds of a flow's failure queue. A flow that reaches one is paused.
const (
	MaxQueueEntries = 100_000
	MaxQueueBytes   = 1 << 30
)

// Config describes a node. The zero value of a field is its default.
type Config struct {
	// Dir is the data folder; "" is ./data.
	Dir string
	// Listen is HOST:PORT of the admin API; "" is 127.0.0.1:7070.
	Listen string
	// Secrets is the folder with secrets; "" is secrets/ in Dir.
	Secrets string
	// Version of the program.
	Version string
	// WindowBytes bounds the records in flight on the node; 0: 256 MiB.
	WindowBytes int64
	// PluginMemoryBytes limits a plugin's memory; 0: the sandbox's default.
	PluginMemoryBytes int64
	// Fuel is what a record may cost in a stage at most; 0: the sandbox's
	// default.
	Fuel int64
	// FetchMaxBytes bounds a fetch from Kafka; 0: the connector's default.
	FetchMaxBytes int32
	// SpillRate is how many records a second may go into the state to wait
	// there; 0: 2,000. SpillBytes is how much may wait there; 0: 1 GiB.
	SpillRate  int64
	SpillBytes int64
	// CompileCommand executes sandbox.RunCompileChild in a process of its own,
	// for plugins that are uploaded; nil: they are compiled in this one.
	CompileCommand []string
	// DrainLimit is how long a soft stop waits for what is under way; 0: 10 s.
	DrainLimit time.Duration
	// Observe wraps the stages of every flow, but for branches, as they are
	// bound: for a program that shows what becomes of single records. The
	// wrapper must answer as the stage does. nil: nobody looks.
	Observe func(flow string, info pipeline.StageInfo, s pipeline.Stage) pipeline.Stage
	Logger  *slog.Logger
	// mirrorEvery is how often watermarks are written to consumer groups; 0:
	// every 5 s.
	mirrorEvery time.Duration
	// houseEvery is how often the node sees to its flows' receipts and queues;
	// 0: every second.
	houseEvery time.Duration
}

func (c *Config) defaults() {
	if c.Dir == "" {
		c.Dir = "data"
	}
	if c.Listen == "" {
		c.Listen = "127.0.0.1:7070"
	}
	if c.Secrets == "" {
		c.Secrets = filepath.Join(c.Dir, "secrets")
	}
	if c.WindowBytes <= 0 {
		c.WindowBytes = 256 << 20
	}
	if c.SpillRate <= 0 {
		c.SpillRate = 2000
	}
	if c.SpillBytes <= 0 {
		c.SpillBytes = 1 << 30
	}
	if c.mirrorEvery <= 0 {
		c.mirrorEvery = mirrorEvery
	}
	if c.houseEvery <= 0 {
		c.houseEvery = time.Second
	}
	if c.DrainLimit <= 0 {
		c.DrainLimit = 10 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// Daemon is a running node.
type Daemon struct {
	cfg     Config
	log     *slog.Logger
	started time.Time

	listener net.Listener
	server   *http.Server
	node     *node.Node
	store    *state.Store
	sandbox  *sandbox.Runtime
	plugins  *registry.Host
	blobs    *registry.Store
	modules  *registry.Modules
	metrics  *metrics
	// connections are those of kind http that flows use.
	connections *connections
	registries  *registries
	spills      *spillBudget
	logs        logbooks
	// filing is held while a command files entries in a queue that drops its
	// oldest ones, until they are gone.
	filing   sync.Mutex
	fullTold *told
	lives    atomic.Uint64 // of lanes

	urged chan struct{} // 1: a commit is wanted soon
	kick  chan struct{} // 1: flows are to be reconciled
	fatal chan error    // 1: the node cannot go on

	mu      sync.Mutex
	runners map[state.FlowID]*runner // guarded by mu
	retired []*runner                // guarded by mu; stopping
	ready   bool                     // guarded by mu

	uploading turn // of uploads
	changing  turn // of changes of flows, from the last check on
	trying    turn // of pre-flights

	// calls is read-locked by each call of the API; a node that has stopped
	// keeps it locked.
	calls sync.RWMutex

	closeOnce sync.Once
	closeErr  error
}

// Open starts a node: the data folder is locked, the log is read, the admin
// API's port is taken. Run serves. The error says what stands in the way and
// what to do, a *node.LockedError if another process has the folder.
func Open(ctx context.Context, cfg Config) (_ *Daemon, err error) {
	cfg.defaults()
	d := &Daemon{cfg: cfg, log: cfg.Logger, started: time.Now(), runners: map[state.FlowID]*runner{},
		connections: newConnections(), registries: newRegistries(), spills: newSpillBudget(cfg.SpillRate, cfg.SpillBytes), fullTold: newTold(tellFullEvery),
		uploading: newTurn(), changing: newTurn(), trying: newTurn(), urged: make(chan struct{}, 1), kick: make(chan struct{}, 1), fatal: make(chan error, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	// The folder is locked before the port is taken: who starts a node twice is
	// to hear which process has the folder.
	d.node, err = node.Open(ctx, node.Config{Dir: cfg.Dir, Logger: d.log, Version: cfg.Version, Addr: cfg.Listen, OnFailure: d.fail})
	if err != nil {
		return nil, err
	}
	if d.listener, err = api.Listen(cfg.Listen); err != nil {
		return nil, err
	}
	d.store = d.node.State()
	if err := os.MkdirAll(cfg.Secrets, 0o700); err != nil {
		return nil, fmt.Errorf("make the secrets folder: %w", err)
	}
	if d.blobs, err = registry.OpenStore(cfg.Dir); err != nil {
		return nil, err
	}
	d.sandbox, err = sandbox.New(ctx, sandbox.Config{CacheDir: filepath.Join(cfg.Dir, "cache", "wazero"), Logger: d.log, MaxMemoryBytes: cfg.PluginMemoryBytes, MaxFuel: cfg.Fuel, CompileCommand: cfg.CompileCommand})
	if err != nil {
		return nil, err
	}
	d.plugins = registry.NewHost(d.sandbox)
	d.modules = registry.NewModules(d.blobs, d.plugins)
	d.metrics = newMetrics(d)
	d.server = api.Server(d.Addr(), d.whileUp(api.New(api.Config{Backend: d, Metrics: d.metrics.handler(), Logger: d.log, Version: cfg.Version, AllowedHosts: []string{d.Addr()}, Ingest: d.ingestHandler})))
	return d, nil
}

// Addr is the address of the admin API.
func (d *Daemon) Addr() string { return d.listener.Addr().String() }

func (d *Daemon) fail(err error) {
	select {
	case d.fatal <- err:
	default:
	}
}

// Run serves until ctx ends. Then it stops softly: no more records are taken
// in, those under way are finished and committed within the drain limit. What
// is not settled by then is read again by the next life. The listener is
// closed last, and the calls that are still under way then are ended: those run
// plugins too.
func (d *Daemon) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer heap.Tune()()
	calls, endCalls := context.WithCancel(context.WithoutCancel(ctx))
	defer endCalls()
	d.server.BaseContext = func(net.Listener) context.Context { return calls }
	var serving errgroup.Group
	serving.Go(func() error {
		if err := d.server.Serve(d.listener); !errors.Is(err, http.ErrServerClosed) {
			stop()
			return fmt.Errorf("serve the admin API: %w", err)
		}
		return nil
	})

	committing, stopCommits := context.WithCancel(context.WithoutCancel(ctx))
	defer stopCommits()
	var g errgroup.Group
	g.Go(func() error { d.commits(committing); return nil })
	g.Go(func() error { d.keepHouse(ctx); return nil })
	d.mu.Lock()
	d.ready = true
	d.mu.Unlock()
	err := d.reconcile(ctx)

	d.mu.Lock()
	d.ready = false
	d.mu.Unlock()
	d.stopAll()
	stopCommits()
	err = errors.Join(err, g.Wait())
	closing, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if e := d.server.Shutdown(closing); e != nil {
		endCalls()
		_ = d.server.Close()
	}
	d.calls.Lock() // for good
	return errors.Join(err, serving.Wait())
}

// whileUp is h as long as the node runs.
func (d *Daemon) whileUp(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !d.calls.TryRLock() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		defer d.calls.RUnlock()
		h.ServeHTTP(w, r)
	})
}

// Close releases everything. It is idempotent; Run must have returned.
func (d *Daemon) Close() error {
	d.closeOnce.Do(func() {
		var errs []error
		ctx := context.Background()
		if d.modules != nil {
			errs = append(errs, d.modules.Close())
		}
		if d.plugins != nil {
			errs = append(errs, d.plugins.Close(ctx))
		}
		if d.sandbox != nil {
			errs = append(errs, d.sandbox.Close(ctx))
		}
		if d.node != nil {
			errs = append(errs, d.node.Close())
		}
		if d.listener != nil {
			if err := d.listener.Close(); !errors.Is(err, net.ErrClosed) {
				errs = append(errs, err)
			}
		}
		d.closeErr = errors.Join(errs...)
	})
	return d.closeErr
}

// turn lets one after the other do something.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

// acquire waits for the turn; the error is ctx's.
func (t turn) acquire(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t turn) release() { <-t }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
