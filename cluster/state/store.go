// Package state is the replicated state of a cluster: commands, their
// deterministic application to a Pebble database, and typed reads. It holds
// flows, connections, plugins, slots, watermarks and the failure queue.
//
// It opens the database and lends it to the log (package raftlog), so that both
// share one write-ahead log: what survives a power loss is a prefix. It knows
// no raft, no clock and no network; a Commit's meaning for the records is the
// pipeline's.
package state

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// formatVersion is the version of Pebble's own formats on disk.
const formatVersion = pebble.FormatTableFormatV6

// FS is a file system that can hold a database; DiskFS is the disk.
type FS = vfs.FS

// DiskFS is the file system of the operating system.
func DiskFS() FS { return vfs.Default }

// Options of Open; the zero value works.
type Options struct {
	// FS holds the database; nil is the disk.
	FS FS
	// Logger; nil discards.
	Logger *slog.Logger
	// CacheBytes of Pebble's block cache; 0: 32 MiB.
	CacheBytes int64
	// MemTableBytes of one Pebble memtable; 0: 8 MiB.
	MemTableBytes uint64
}

func (o *Options) defaults() {
	if o.FS == nil {
		o.FS = DiskFS()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = 32 << 20
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = 8 << 20
	}
}

// Store is the state on this node. Apply is called by one goroutine; everything
// else may be called by any.
type Store struct {
	db     *pebble.DB
	logger *slog.Logger

	index atomic.Uint64
	hash  atomic.Uint64

	failed   atomic.Pointer[FailedError]
	failedCh chan struct{}
	// poisoned is set once a write panicked inside Pebble, which then holds
	// locks for ever.
	poisoned atomic.Bool

	mu     sync.RWMutex // held for reading by whoever uses db
	closed bool         // guarded by mu

	metaMu sync.Mutex
	meta   meta // guarded by metaMu; written by Apply only

	changeMu sync.Mutex
	changed  chan struct{} // guarded by changeMu

	scratch     []byte // used by Apply only
	maxRequests uint64 // MaxRequests, in tests fewer
}

// Open opens or makes the database in dir, which must exist or be creatable.
func Open(dir string, opts Options) (*Store, error) {
	opts.defaults()
	s := &Store{logger: opts.Logger, failedCh: make(chan struct{}), changed: make(chan struct{}), maxRequests: MaxRequests}
	cache := pebble.NewCache(opts.CacheBytes)
	defer cache.Unref()
	o := &pebble.Options{
		FS:                 opts.FS,
		Cache:              cache,
		MemTableSize:       opts.MemTableBytes,
		FormatMajorVersion: formatVersion,
		Logger:             pebbleLogger{s},
	}
	// Most keys that are asked for by a Commit are not there.
	o.Levels[0].FilterPolicy = bloom.FilterPolicy(10)
	db, err := pebble.Open(dir, o)
	if err != nil {
		return nil, fmt.Errorf("open state %s: %w", dir, err)
	}
	s.db = db
	if err := s.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("open state %s: %w", dir, err), s.Close())
	}
	return s, nil
}

func (s *Store) load() error {
	v, closer, err := s.db.Get(metaKey())
	if errors.Is(err, pebble.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer closer.Close()
	m, err := decodeMeta(v)
	if err != nil {
		return err
	}
	s.meta = m
	s.index.Store(m.index)
	s.hash.Store(m.hash)
	return nil
}

// DB lends the database to the log, whose keys begin with KeyLog and KeyStable.
// Writes go through CommitBatch.
func (s *Store) DB() *pebble.DB { return s.db }

// CommitBatch writes a batch, with sync once it is durable together with
// everything written before. After an error nothing can be written any more.
// Pebble answers some failures by its logger alone or by a panic; here they are
// errors.
func (s *Store) CommitBatch(b *pebble.Batch, sync bool) (err error) {
	if err := s.Err(); err != nil {
		return err
	}
	defer func() {
		if p := recover(); p != nil {
			s.poisoned.Store(true)
			s.logger.Error("state write panicked", "err", p, "stack", string(debug.Stack()))
			err = s.fail(fmt.Errorf("%v", p))
		}
	}()
	o := pebble.NoSync
	if sync {
		o = pebble.Sync
	}
	if err := b.Commit(o); err != nil {
		return s.fail(err)
	}
	return s.Err()
}

// SyncAll makes everything written so far durable.
func (s *Store) SyncAll() error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.mu.RUnlock()
	b := s.db.NewBatch()
	defer b.Close()
	if err := b.LogData(nil, nil); err != nil {
		return err
	}
	return s.CommitBatch(b, true)
}

// fail records the first failure and returns it.
func (s *Store) fail(err error) error {
	e := &FailedError{err}
	if s.failed.CompareAndSwap(nil, e) {
		close(s.failedCh)
	}
	return s.failed.Load()
}

// Err is a *FailedError once the database has failed, else nil.
func (s *Store) Err() error {
	if e := s.failed.Load(); e != nil {
		return e
	}
	return nil
}

// Failed is closed when the database fails.
func (s *Store) Failed() <-chan struct{} { return s.failedCh }

// enter begins a use of the database; the caller unlocks mu for reading.
func (s *Store) enter() error {
	s.mu.RLock()
	if s.closed {
		s.mu.RUnlock()
		return ErrClosed
	}
	return nil
}

// Close waits for reads under way and closes the database. It is idempotent.
// After a failure inside Pebble the database cannot be closed and is left.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	if s.poisoned.Load() {
		return nil
	}
	if err := s.db.Close(); err != nil && s.Err() == nil {
		return fmt.Errorf("close state: %w", err)
	}
	return nil
}

// AppliedIndex is the index of the last command or configuration that was
// applied. It may lag the log's, whose own entries never arrive here.
func (s *Store) AppliedIndex() uint64 { return s.index.Load() }

// Hash is the sum over all replicated keys and values. At equal AppliedIndex it
// is equal on all replicas.
func (s *Store) Hash() uint64 { return s.hash.Load() }

// Configuration is the last applied raft configuration, in raft's own
// encoding, and its index; nil and 0 if none was.
func (s *Store) Configuration() (index uint64, configuration []byte) {
	s.metaMu.Lock()
	defer s.metaMu.Unlock()
	return s.meta.configurationIndex, s.meta.configuration
}

// Changed returns a channel that is closed by the next change of a flow, slot,
// partition, connection, plugin, deployment or node; progress of records does
// not count. Changes coalesce: take the channel, read what you need, then wait
// on it.
func (s *Store) Changed() <-chan struct{} {
	s.changeMu.Lock()
	defer s.changeMu.Unlock()
	return s.changed
}

func (s *Store) notify() {
	s.changeMu.Lock()
	defer s.changeMu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

// pebbleLogger passes Pebble's messages on. Fatalf returns: the failure is
// recorded, and every later write reports it.
type pebbleLogger struct{ s *Store }

func (l pebbleLogger) Infof(format string, args ...any) {
	l.s.logger.Debug("pebble", "text", fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Errorf(format string, args ...any) {
	l.s.logger.Warn("pebble", "text", fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Fatalf(format string, args ...any) {
	err := &fatalError{text: fmt.Sprintf(format, args...)}
	for _, a := range args {
		if cause, ok := a.(error); ok {
			err.cause = cause
		}
	}
	l.s.logger.Error("database failed", "err", err)
	_ = l.s.fail(err)
}

// fatalError is one of Pebble's last words and their cause.
type fatalError struct {
	text  string
	cause error
}

func (e *fatalError) Error() string { return e.text }
func (e *fatalError) Unwrap() error { return e.cause }
