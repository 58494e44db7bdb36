package state

import (
	"errors"
	"fmt"
	"math/bits"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2"
)

// LogEntry is an entry of the log, as it is applied: a Command as EncodeCommand
// wrote it, or a Configuration in raft's own encoding.
type LogEntry struct {
	Index, Term   uint64
	Command       []byte
	Configuration []byte
}

// Result is the state machine's answer to one entry.
type Result struct {
	// Index of the entry.
	Index uint64
	// Value as the command's type says; nil if it says nothing.
	Value any
	// Err is a *Refusal, or nil.
	Err error
	// Skipped: the state held the entry already.
	Skipped bool
}

// Apply applies entries in order, in one batch that also carries the applied
// index; it is not synced, the log is. How entries are split into calls makes
// no difference to the state. Entries up to AppliedIndex are skipped.
//
// An error (an *UnknownCommandError, ErrMalformed, a *FailedError) means that
// none was applied and none can be: the caller must stop.
func (s *Store) Apply(entries []LogEntry) ([]Result, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.mu.RUnlock()
	results := make([]Result, len(entries))
	m := s.meta
	t := newTx(s.db, m.hash)
	t.maxRequests = s.maxRequests
	defer t.close()
	for i, e := range entries {
		results[i].Index = e.Index
		if e.Index <= m.index {
			results[i].Skipped = true
			continue
		}
		m.index, m.term = e.Index, e.Term
		if e.Configuration != nil {
			m.configurationIndex, m.configuration = e.Index, append([]byte(nil), e.Configuration...)
			continue
		}
		c, err := DecodeCommand(e.Command)
		if err != nil {
			return nil, fmt.Errorf("apply entry %d: %w", e.Index, err)
		}
		t.index = e.Index
		results[i].Value, results[i].Err = c.apply(t)
		if t.err != nil {
			return nil, fmt.Errorf("apply entry %d: %s: %w", e.Index, c.Kind(), t.err)
		}
	}
	if m.index == s.meta.index {
		return results, nil
	}
	m.hash = t.hash
	s.scratch = m.append(s.scratch[:0])
	if err := t.b.Set(metaKey(), s.scratch, nil); err != nil {
		return nil, err
	}
	if err := s.CommitBatch(t.b, false); err != nil {
		return nil, err
	}
	s.metaMu.Lock()
	s.meta = m
	s.metaMu.Unlock()
	s.hash.Store(m.hash)
	s.index.Store(m.index)
	if t.changed {
		s.notify()
	}
	return results, nil
}

// hashKV is what a key and its value add to the state hash.
func hashKV(key, value []byte) uint64 {
	h := xxhash.Sum64(key)*0x9e3779b97f4a7c15 ^ bits.RotateLeft64(xxhash.Sum64(value), 31)
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// tx is a batch under construction that reads its own writes and keeps the
// hash. After a fault of the database err is set and all reads are empty.
type tx struct {
	b       *pebble.Batch
	cache   map[string]cached
	hash    uint64
	index   uint64
	changed bool
	err     error
	// maxRequests is MaxRequests, in tests fewer.
	maxRequests uint64
}

type cached struct {
	value   []byte
	present bool
}

func newTx(db *pebble.DB, hash uint64) *tx {
	return &tx{b: db.NewIndexedBatch(), cache: make(map[string]cached, 64), hash: hash}
}

func (t *tx) close() { _ = t.b.Close() }

func (t *tx) fault(err error) {
	if t.err == nil && err != nil {
		t.err = err
	}
}

// get returns the value of key; it must not be changed.
func (t *tx) get(key []byte) ([]byte, bool) {
	if t.err != nil {
		return nil, false
	}
	if c, ok := t.cache[string(key)]; ok {
		return c.value, c.present
	}
	v, closer, err := t.b.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		t.cache[string(key)] = cached{}
		return nil, false
	}
	if err != nil {
		t.fault(err)
		return nil, false
	}
	c := cached{append([]byte(nil), v...), true}
	_ = closer.Close()
	t.cache[string(key)] = c
	return c.value, true
}

// set writes key; the tx keeps value.
func (t *tx) set(key, value []byte) {
	old, had := t.get(key)
	if t.err != nil {
		return
	}
	if had {
		t.hash -= hashKV(key, old)
	}
	t.hash += hashKV(key, value)
	t.noteChange(key)
	t.cache[string(key)] = cached{value, true}
	t.fault(t.b.Set(key, value, nil))
}

// put writes a key that is known not to be there; the tx does not keep value.
func (t *tx) put(key, value []byte) {
	if t.err != nil {
		return
	}
	t.hash += hashKV(key, value)
	delete(t.cache, string(key))
	t.fault(t.b.Set(key, value, nil))
}

// take deletes a key whose value is known.
func (t *tx) take(key, value []byte) {
	if t.err != nil {
		return
	}
	t.hash -= hashKV(key, value)
	delete(t.cache, string(key))
	t.fault(t.b.Delete(key, nil))
}

func (t *tx) del(key []byte) {
	old, had := t.get(key)
	if t.err != nil || !had {
		return
	}
	t.hash -= hashKV(key, old)
	t.noteChange(key)
	t.cache[string(key)] = cached{}
	t.fault(t.b.Delete(key, nil))
}

// noteChange decides what Changed reports.
func (t *tx) noteChange(key []byte) {
	switch key[0] {
	case keyNode, keyFlow, keySlot, keyPartition, keyConnection, keyPlugin, keyDeploy:
		t.changed = true
	}
}

// scan calls f for every key with the prefix, in order, until f returns false.
// f must not write, and must copy what it keeps.
func (t *tx) scan(prefix []byte, f func(key, value []byte) bool) {
	if t.err == nil {
		t.fault(scan(t.b, prefix, prefix, f))
	}
}

// delAll deletes every key with the prefix.
func (t *tx) delAll(prefix []byte) {
	var keys [][]byte
	t.scan(prefix, func(key, _ []byte) bool {
		keys = append(keys, append([]byte(nil), key...))
		return true
	})
	for _, k := range keys {
		t.del(k)
	}
}

// purge deletes every key with the prefix as one range. It reads them, for the
// hash, and keeps none of them in memory.
func (t *tx) purge(prefix []byte) {
	found := false
	t.scan(prefix, func(key, value []byte) bool {
		t.hash -= hashKV(key, value)
		found = true
		return true
	})
	if t.err == nil && found {
		t.deleteRange(prefix)
	}
}

// deleteRange deletes every key with the prefix, whose hashes are accounted for.
func (t *tx) deleteRange(prefix []byte) {
	t.fault(t.b.DeleteRange(prefix, prefixEnd(prefix), nil))
	// What the cache holds of them is gone; the batch answers from now on.
	clear(t.cache)
}

// scan calls f for the keys with the prefix from from on.
func scan(r pebble.Reader, prefix, from []byte, f func(key, value []byte) bool) error {
	return scanRange(r, from, prefixEnd(prefix), f)
}

// scanRange calls f for the keys from from up to and without to.
func scanRange(r pebble.Reader, from, to []byte, f func(key, value []byte) bool) (err error) {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if !f(it.Key(), v) {
			break
		}
	}
	return nil
}
