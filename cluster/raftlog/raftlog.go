// Package raftlog keeps raft's log, its vote and its snapshots in the database
// that package state lends it.
//
// Log entries are synced, the state's batches are not: both go through one
// write-ahead log, so after a power loss the state is a prefix of the log. A
// snapshot is a promise that the state on this disk holds everything up to an
// index; it has no contents of its own.
package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"

	"github.com/millrace-io/millrace/cluster/state"
)

// ErrClosed is returned after Close.
var ErrClosed = errors.New("raft log is closed")

const entryVersion = 1

// Store is a raft.LogStore and a raft.StableStore; Snapshots is the third part.
// All methods are safe for concurrent use.
type Store struct {
	st *state.Store
	db *pebble.DB

	mu          sync.RWMutex
	closed      bool   // guarded by mu
	first, last uint64 // guarded by mu; 0 when the log is empty
}

// New opens the log in the database of st, which must outlive it.
func New(st *state.Store) (*Store, error) {
	s := &Store{st: st, db: st.DB()}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{state.KeyLog}, UpperBound: []byte{state.KeyLog + 1}})
	if err != nil {
		return nil, fmt.Errorf("open raft log: %w", err)
	}
	if it.First() {
		s.first, err = indexOf(it.Key())
		if err == nil && it.Last() {
			s.last, err = indexOf(it.Key())
		}
	}
	if err = errors.Join(err, it.Error(), it.Close()); err != nil {
		return nil, fmt.Errorf("open raft log: %w", err)
	}
	return s, nil
}

func logKey(index uint64) []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, 9), state.KeyLog), index)
}

func indexOf(key []byte) (uint64, error) {
	if len(key) != 9 {
		return 0, fmt.Errorf("log key %x: %w", key, state.ErrMalformed)
	}
	return binary.BigEndian.Uint64(key[1:]), nil
}

// Close makes every later call fail with ErrClosed. It leaves the database
// open, and waits for calls under way.
func (s *Store) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
}

// FirstIndex implements raft.LogStore.
func (s *Store) FirstIndex() (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.first, nil
}

// LastIndex implements raft.LogStore.
func (s *Store) LastIndex() (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.last, nil
}

// GetLog implements raft.LogStore.
func (s *Store) GetLog(index uint64, l *raft.Log) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return ErrClosed
	}
	v, closer, err := s.db.Get(logKey(index))
	if errors.Is(err, pebble.ErrNotFound) {
		return raft.ErrLogNotFound
	}
	if err != nil {
		return fmt.Errorf("read log entry %d: %w", index, err)
	}
	defer closer.Close()
	if err := decodeLog(v, l); err != nil {
		return fmt.Errorf("read log entry %d: %w", index, err)
	}
	l.Index = index
	return nil
}

// StoreLog implements raft.LogStore.
func (s *Store) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore. It returns once the entries are durable.
func (s *Store) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	size := 0
	for _, l := range logs {
		size += len(l.Data) + len(l.Extensions) + 64
	}
	if err := s.enter(); err != nil {
		return err
	}
	b := s.db.NewBatchWithSize(size)
	defer b.Close()
	var buf []byte
	for _, l := range logs {
		buf = appendLog(buf[:0], l)
		if err := b.Set(logKey(l.Index), buf, nil); err != nil {
			s.mu.RUnlock()
			return err
		}
	}
	err := s.st.CommitBatch(b, true)
	s.mu.RUnlock()
	if err != nil {
		return fmt.Errorf("write log entries %d to %d: %w", logs[0].Index, logs[len(logs)-1].Index, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.first == 0 {
		s.first = logs[0].Index
	}
	s.last = logs[len(logs)-1].Index
	return nil
}

func (s *Store) enter() error {
	s.mu.RLock()
	if s.closed {
		s.mu.RUnlock()
		return ErrClosed
	}
	return nil
}

// DeleteRange implements raft.LogStore: it drops the oldest or the newest
// entries, from min to max inclusive. It need not be synced: what is written
// later cannot survive without it.
func (s *Store) DeleteRange(min, max uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if s.first == 0 || min > max {
		return nil
	}
	if min > s.first && max < s.last {
		return fmt.Errorf("delete log entries %d to %d: they lie inside of %d to %d", min, max, s.first, s.last)
	}
	b := s.db.NewBatch()
	defer b.Close()
	end := []byte{state.KeyLog + 1}
	if max < 1<<64-1 {
		end = logKey(max + 1)
	}
	if err := b.DeleteRange(logKey(min), end, nil); err != nil {
		return err
	}
	if err := s.st.CommitBatch(b, false); err != nil {
		return fmt.Errorf("delete log entries %d to %d: %w", min, max, err)
	}
	switch {
	case min <= s.first && max >= s.last:
		s.first, s.last = 0, 0
	case min <= s.first:
		s.first = max + 1
	default:
		s.last = min - 1
	}
	return nil
}

func appendLog(b []byte, l *raft.Log) []byte {
	b = append(b, entryVersion, byte(l.Type))
	b = binary.AppendUvarint(b, l.Term)
	at := int64(0)
	if !l.AppendedAt.IsZero() {
		at = l.AppendedAt.UnixNano()
	}
	b = binary.AppendVarint(b, at)
	b = binary.AppendUvarint(b, uint64(len(l.Extensions)))
	b = append(b, l.Extensions...)
	return append(b, l.Data...)
}

func decodeLog(b []byte, l *raft.Log) error {
	bad := func(what string) error { return fmt.Errorf("%s: %w", what, state.ErrMalformed) }
	if len(b) < 2 {
		return bad("cut short")
	}
	if b[0] != entryVersion {
		return bad(fmt.Sprintf("version %d, this program knows version %d", b[0], entryVersion))
	}
	kind := raft.LogType(b[1])
	b = b[2:]
	term, n := binary.Uvarint(b)
	if n <= 0 {
		return bad("term")
	}
	b = b[n:]
	at, n := binary.Varint(b)
	if n <= 0 {
		return bad("time")
	}
	b = b[n:]
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return bad("extensions")
	}
	ext, data := b[n:n+int(size)], b[n+int(size):]
	*l = raft.Log{Type: kind, Term: term, Data: append([]byte{}, data...)}
	if len(ext) > 0 {
		l.Extensions = append([]byte{}, ext...)
	}
	if at != 0 {
		l.AppendedAt = time.Unix(0, at)
	}
	return nil
}

func stableKey(key []byte) []byte { return append([]byte{state.KeyStable}, key...) }

// Set implements raft.StableStore.
func (s *Store) Set(key, val []byte) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.mu.RUnlock()
	b := s.db.NewBatch()
	defer b.Close()
	if err := b.Set(stableKey(key), val, nil); err != nil {
		return err
	}
	if err := s.st.CommitBatch(b, true); err != nil {
		return fmt.Errorf("write raft's %s: %w", key, err)
	}
	return nil
}

// Get implements raft.StableStore.
func (s *Store) Get(key []byte) ([]byte, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.mu.RUnlock()
	v, closer, err := s.db.Get(stableKey(key))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read raft's %s: %w", key, err)
	}
	defer closer.Close()
	return append([]byte{}, v...), nil
}

// SetUint64 implements raft.StableStore.
func (s *Store) SetUint64(key []byte, val uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, val))
}

// GetUint64 implements raft.StableStore.
func (s *Store) GetUint64(key []byte) (uint64, error) {
	v, err := s.Get(key)
	switch {
	case err != nil || v == nil:
		return 0, err
	case len(v) != 8:
		return 0, fmt.Errorf("read raft's %s: %w", key, state.ErrMalformed)
	}
	return binary.BigEndian.Uint64(v), nil
}
