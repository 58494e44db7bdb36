// Package node is a member of the cluster: the data folder, raft with its log
// and the replicated state, and what the leader does by itself. One node is a
// cluster of one voter, with the same code.
//
// It proposes and applies commands; what the commands are is package state's
// business, and what flows run on their behalf is the daemon's.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/raft"

	"github.com/millrace-io/millrace/cluster/raftlog"
	"github.com/millrace-io/millrace/cluster/state"
)

// Config of a node.
type Config struct {
	// Dir is the data folder; it is made if it does not exist. Required.
	Dir string
	// FS holds the data folder; nil is the disk.
	FS state.FS
	// Logger; nil discards.
	Logger *slog.Logger
	// Version of the program and Addr at which the node is reached, as other
	// members and listings show them.
	Version, Addr string
	// OnFailure is called once, from a goroutine of the node, when it cannot
	// go on: the database failed, the log holds a command of a newer program,
	// or nothing was applied for StuckExit. The process should end; it must
	// not wait for Close inside of the call. nil: only logged.
	OnFailure func(error)
	// ApplyHook is called after every applied batch, in log order, and holds
	// the next one up. nil: none.
	ApplyHook func([]state.Result)
	// StuckWarn and StuckExit are how long proposals may wait without progress
	// until that is logged, and until the node fails; 0: 1 s and 30 s. Time in
	// which the process did not run is not counted.
	StuckWarn, StuckExit time.Duration

	// tune changes raft's settings, and database the state's, in tests.
	tune     func(*raft.Config)
	database state.Options
}

func (c *Config) defaults() {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.StuckWarn == 0 {
		c.StuckWarn = time.Second
	}
	if c.StuckExit == 0 {
		c.StuckExit = 30 * time.Second
	}
}

// closeLimit is how long Close waits for proposals under way.
const closeLimit = 5 * time.Second

// snapshotOnClose is how many entries since the last snapshot make Close take
// one, so that the next start has little to read.
const snapshotOnClose = 256

// Node is a running member. Its methods are safe for concurrent use.
type Node struct {
	cfg    Config
	logger *slog.Logger
	folder *folder
	st     *state.Store
	log    *raftlog.Store
	trans  transport
	raft   *raft.Raft

	incarnation atomic.Uint64
	ready       chan struct{} // closed once the node has announced itself

	failure atomic.Pointer[error]
	failed  chan struct{}

	mu        sync.Mutex
	closing   bool           // guarded by mu
	proposals sync.WaitGroup // Add under mu while not closing
	pending   atomic.Int64   // proposals under way
	finished  atomic.Uint64  // proposals answered

	stop      context.CancelFunc // ends the node's goroutines
	workers   sync.WaitGroup
	closeOnce sync.Once
	closeErr  error
}

// Open opens or makes the data folder and starts the node; an empty folder
// becomes a cluster of one. It returns once the node has announced its new life
// in the log, so that State is up to date, or with ctx's error.
//
// A folder in use is a *LockedError, one of another format a *FormatError.
func Open(ctx context.Context, cfg Config) (_ *Node, err error) {
	cfg.defaults()
	n := &Node{cfg: cfg, logger: cfg.Logger, ready: make(chan struct{}), failed: make(chan struct{})}
	if n.folder, err = openFolder(cfg.Dir, cfg.FS); err != nil {
		return nil, err
	}
	n.logger = n.logger.With("node", n.ID().String())
	workCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	n.stop = stop
	if err := n.start(workCtx); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	select {
	case <-n.ready:
		return n, nil
	case <-n.failed:
		return nil, errors.Join(fmt.Errorf("open data folder %s: %w", cfg.Dir, n.Err()), n.Close())
	case <-ctx.Done():
		return nil, errors.Join(fmt.Errorf("open data folder %s: %w", cfg.Dir, ctx.Err()), n.Close())
	}
}

func (n *Node) start(ctx context.Context) (err error) {
	fs := n.folder.fs
	opts := n.cfg.database
	opts.FS, opts.Logger = fs, n.logger
	n.st, err = state.Open(fs.PathJoin(n.cfg.Dir, "db"), opts)
	if err != nil {
		return err
	}
	if n.log, err = raftlog.New(n.st); err != nil {
		return err
	}
	if err := n.log.Check(); err != nil {
		return err
	}
	id := raft.ServerID(n.ID().String())
	addr := raft.ServerAddress(id)
	n.trans = loneTransport(id, addr)
	rc := raftConfig(id, n.logger)
	if n.cfg.tune != nil {
		n.cfg.tune(rc)
	}
	snaps := n.log.Snapshots()
	exists, err := raft.HasExistingState(n.log, n.log, snaps)
	if err != nil {
		return err
	}
	if !exists {
		self := raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: id, Address: addr}}}
		if err := raft.BootstrapCluster(rc, n.log, n.log, snaps, n.trans.Transport, self); err != nil {
			return fmt.Errorf("make cluster: %w", err)
		}
	}
	fsm := &machine{st: n.st, fail: n.fail, hook: n.cfg.ApplyHook}
	if n.raft, err = raft.NewRaft(rc, fsm, n.log, n.log, snaps, n.trans.Transport); err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	n.goFunc(func() { n.watch(ctx) })
	n.goFunc(func() { n.lead(ctx) })
	if n.loneVoter() {
		n.goFunc(func() {
			if err := n.trans.campaign(); err != nil {
				n.logger.Warn("could not stand for election at once", "err", err)
			}
		})
	}
	return nil
}

func (n *Node) goFunc(f func()) {
	n.workers.Add(1)
	go func() {
		defer n.workers.Done()
		f()
	}()
}

// raftConfig holds the settings that were measured; see the design of the
// cluster. RestoreCommittedLogs stays off: it loses the configuration.
func raftConfig(id raft.ServerID, logger *slog.Logger) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = id
	c.HeartbeatTimeout = 400 * time.Millisecond
	c.ElectionTimeout = 400 * time.Millisecond
	c.LeaderLeaseTimeout = 266 * time.Millisecond
	c.CommitTimeout = 10 * time.Millisecond
	c.MaxAppendEntries = 32
	c.BatchApplyCh = true
	c.TrailingLogs = 10_000
	c.SnapshotThreshold = 8_192
	c.SnapshotInterval = 5 * time.Second
	c.NoSnapshotRestoreOnStart = true
	c.NoLegacyTelemetry = true
	c.Logger = &raftLogger{l: logger, name: "raft"}
	return c
}

// loneVoter reports whether this node alone decides.
func (n *Node) loneVoter() bool {
	f := n.raft.GetConfiguration()
	if f.Error() != nil {
		return false
	}
	voters, self := 0, false
	for _, s := range f.Configuration().Servers {
		if s.Suffrage == raft.Voter {
			voters++
			self = self || string(s.ID) == n.ID().String()
		}
	}
	return voters == 1 && self
}

// ID of the node, kept in the data folder.
func (n *Node) ID() uuid.UUID { return n.folder.id }

// Incarnation of this life of the node; it rises with every start.
func (n *Node) Incarnation() uint64 { return n.incarnation.Load() }

// State of the cluster as far as this node has applied it. It may be read until
// Close.
func (n *Node) State() *state.Store { return n.st }

// IsLeader reports whether the node takes proposals now.
func (n *Node) IsLeader() bool { return n.raft.State() == raft.Leader }

// Err says why the node cannot go on; nil as long as it can.
func (n *Node) Err() error {
	if p := n.failure.Load(); p != nil {
		return *p
	}
	return nil
}

// Failed is closed when Err becomes non-nil.
func (n *Node) Failed() <-chan struct{} { return n.failed }

// fail records the first reason why the node cannot go on.
func (n *Node) fail(err error) {
	if !n.failure.CompareAndSwap(nil, &err) {
		return
	}
	n.logger.Error("node failed", "err", err)
	close(n.failed)
}

type outcome struct {
	result state.Result
	err    error
}

// Propose puts a command into the log and blocks until it is applied here. It
// stamps the command's time if that is zero. Concurrent proposals share a sync.
//
// What the state machine refuses is a *state.Refusal. ErrNotLeader and ErrClosed
// mean that the command will not be applied; ErrAmbiguous, also when ctx ends,
// that it may be.
func (n *Node) Propose(ctx context.Context, cmd state.Command) (state.Result, error) {
	cmd.Stamp(time.Now().UnixMilli())
	data, err := state.EncodeCommand(cmd)
	if err != nil {
		return state.Result{}, err
	}
	out, err := n.submit(ctx, func() outcome {
		f := n.raft.ApplyLog(raft.Log{Data: data}, 0)
		if err := f.Error(); err != nil {
			return outcome{err: proposalError(err)}
		}
		switch r := f.Response().(type) {
		case state.Result:
			return outcome{r, r.Err}
		case error:
			return outcome{err: fmt.Errorf("%w: %w", ErrAmbiguous, r)}
		default:
			return outcome{err: fmt.Errorf("%w: raft answered %T", ErrAmbiguous, r)}
		}
	})
	if err != nil {
		return out, fmt.Errorf("propose %s: %w", cmd.Kind(), err)
	}
	return out, nil
}

// Barrier blocks until everything that was committed before is applied here;
// only the leader can.
func (n *Node) Barrier(ctx context.Context) error {
	_, err := n.submit(ctx, func() outcome {
		if err := n.raft.Barrier(0).Error(); err != nil {
			return outcome{err: proposalError(err)}
		}
		return outcome{}
	})
	if err != nil {
		return fmt.Errorf("barrier: %w", err)
	}
	return nil
}

// submit runs f, which waits for raft, and returns its outcome or ctx's end,
// whichever comes first.
func (n *Node) submit(ctx context.Context, f func() outcome) (state.Result, error) {
	if err := ctx.Err(); err != nil {
		return state.Result{}, err
	}
	if err := n.Err(); err != nil {
		return state.Result{}, err
	}
	n.mu.Lock()
	if n.closing {
		n.mu.Unlock()
		return state.Result{}, ErrClosed
	}
	n.proposals.Add(1)
	n.pending.Add(1)
	n.mu.Unlock()
	done := make(chan outcome, 1) // the one outcome, whether or not somebody still waits
	go func() {
		defer n.proposals.Done()
		out := f()
		n.finished.Add(1)
		n.pending.Add(-1)
		done <- out
	}()
	select {
	case out := <-done:
		return out.result, out.err
	case <-ctx.Done():
		return state.Result{}, fmt.Errorf("%w: %w", ErrAmbiguous, ctx.Err())
	case <-n.failed:
		select {
		case out := <-done:
			return out.result, out.err
		default:
			return state.Result{}, fmt.Errorf("%w: %w", ErrAmbiguous, n.Err())
		}
	}
}

// proposalError maps raft's errors.
func proposalError(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress), errors.Is(err, raft.ErrEnqueueTimeout):
		return ErrNotLeader
	case errors.Is(err, raft.ErrRaftShutdown):
		return fmt.Errorf("%w: %w", ErrAmbiguous, ErrClosed)
	}
	return fmt.Errorf("%w: %w", ErrAmbiguous, err)
}

// Close stops the node and waits for all that it started. It is idempotent.
// With a disk that hangs it may not return; end the process then.
func (n *Node) Close() error {
	n.closeOnce.Do(func() { n.closeErr = n.close() })
	return n.closeErr
}

func (n *Node) close() error {
	n.mu.Lock()
	n.closing = true
	n.mu.Unlock()
	n.stop()
	if n.raft != nil {
		// Raft never answers proposals that wait in its queue when it stops.
		waitFor(&n.proposals, closeLimit)
		if n.Err() == nil {
			n.snapshot()
		}
		_ = n.raft.Shutdown().Error()
	}
	n.workers.Wait()
	var err error
	if n.log != nil {
		n.log.Close()
	}
	if n.st != nil {
		err = n.st.Close()
	}
	return errors.Join(err, n.folder.close())
}

// snapshot takes one if there is much to read otherwise.
func (n *Node) snapshot() {
	snaps, err := n.log.Snapshots().List()
	if err != nil {
		return
	}
	var last uint64
	for _, s := range snaps {
		last = s.Index
	}
	if n.raft.AppliedIndex() < last+snapshotOnClose {
		return
	}
	done := make(chan error, 1) // the one answer, whether or not it comes in time
	go func() { done <- n.raft.Snapshot().Error() }()
	select {
	case err := <-done:
		if err != nil {
			n.logger.Warn("could not take a snapshot before closing", "err", err)
		}
	case <-time.After(closeLimit):
	}
}

// waitFor waits for wg, but not longer than limit.
func waitFor(wg *sync.WaitGroup, limit time.Duration) {
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(limit):
	}
}
