package state

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/millrace-io/millrace/runtime/record"
)

// RetryDue lists entries of a partition that are due at now, Unix milliseconds:
// behind after, ordered by when they were due, offset and path, at most limit
// (0: no bound), each with the time as its Due. last is the cursor behind the
// last one; after if there is none. next is when the first entry that is not
// listed is due, 0 if nothing else waits; it may lie in the past where limit
// cut the list. Parked entries are not among them.
func (s *Store) RetryDue(id FlowID, part uint32, now int64, after RetryCursor, limit int) (due []*record.Retry, last RetryCursor, next int64, err error) {
	last = after
	err = s.view(func(r pebble.Reader) error {
		prefix := key32(keyRetryDue, uint32(id), part)
		from := prefix
		if after != (RetryCursor{}) {
			from = append(retryDueKey(id, part, uint64(clampDue(after.Due)), after.Offset, after.Path), 0)
		}
		var bad error
		err := scan(r, prefix, from, func(key, _ []byte) bool {
			k, err := decodeRetryKey(key, dueBytes)
			if err != nil {
				bad = err
				return false
			}
			if at := dueOf(key); at > now || limit > 0 && len(due) >= limit {
				next = at
				return false
			}
			e, ok, err := one(r, retryKey(id, part, k.Offset, k.Path), DecodeRetry)
			if !ok {
				bad = orMissing(err, key)
				return false
			}
			e.Due = dueOf(key)
			due = append(due, e)
			last = RetryCursor{e.Due, k.Offset, k.Path}
			return true
		})
		return errors.Join(err, bad)
	})
	return due, last, next, err
}

func orMissing(err error, key []byte) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("read entry: key %x is missing: %w", key, ErrMalformed)
}

// RetryIndex calls f for every kept entry of a partition, in order of offset
// and path, until f returns false. It does not decode the inputs.
func (s *Store) RetryIndex(id FlowID, part uint32, f func(RetryMark) bool) error {
	return s.view(func(r pebble.Reader) error {
		prefix := key32(keyRetry, uint32(id), part)
		return listIn(r, prefix, prefix, func(k, v []byte) (RetryMark, error) {
			key, err := decodeRetryKey(k, 0)
			if err != nil {
				return RetryMark{}, err
			}
			h, err := decodeRetryHead(v)
			if err != nil {
				return RetryMark{}, err
			}
			return RetryMark{Offset: key.Offset, Path: key.Path, Stage: h.stage, Generation: h.generation, Hold: h.hold, At: h.at, Requeues: h.requeues}, nil
		}, f)
	})
}

// RetriesHeld counts the kept entries of a partition that are parked behind
// others of their Hold, among the first limit entries that have one.
func (s *Store) RetriesHeld(id FlowID, part uint32, limit int) (held int, err error) {
	err = s.view(func(r pebble.Reader) error {
		prefix := key32(keyRetryOrder, uint32(id), part)
		return listIn(r, prefix, prefix, func(_, v []byte) (retryOrder, error) { return decodeRetryOrder(v) }, func(o retryOrder) bool {
			if o.due == 0 {
				held++
			}
			limit--
			return limit > 0
		})
	})
	return held, err
}

// dueIn answers when a kept entry is due; 0 if it is parked.
func dueIn(r pebble.Reader, id FlowID, k RetryKey, hold uint64, due int64) (int64, error) {
	if hold == 0 {
		return clampDue(due), nil
	}
	key := retryOrderKey(id, k.Part, hold, k.Offset, k.Path)
	o, ok, err := one(r, key, decodeRetryOrder)
	if !ok {
		return 0, orMissing(err, key)
	}
	return o.due, nil
}

// Retries lists kept entries of a flow behind after (nil: from the first),
// ordered by partition, offset and path, at most limit (0: no bound). filter
// may be nil; it must not keep what it sees unless it returns true.
func (s *Store) Retries(id FlowID, after *RetryKey, limit int, filter func(*record.Retry) bool) (kept []Kept, err error) {
	err = s.view(func(r pebble.Reader) error {
		prefix := flowPrefix(keyRetry, id)
		from := prefix
		if after != nil {
			from = append(retryKey(id, after.Part, after.Offset, after.Path), 0)
		}
		return listIn(r, prefix, from, func(k, v []byte) (Kept, error) {
			key, err := decodeRetryKey(k, 0)
			if err != nil {
				return Kept{}, err
			}
			return s.kept(r, id, key, v)
		}, func(k Kept) bool {
			if filter == nil || filter(k.Entry) {
				kept = append(kept, k)
			}
			return limit <= 0 || len(kept) < limit
		})
	})
	return kept, err
}

func (s *Store) kept(r pebble.Reader, id FlowID, key RetryKey, value []byte) (Kept, error) {
	e, err := DecodeRetry(value)
	if err != nil {
		return Kept{}, err
	}
	e.Due, err = dueIn(r, id, key, e.Hold, e.Due)
	return Kept{key.Part, e}, err
}

// Retry returns a kept entry, with its Due as in Kept; nil if there is none.
func (s *Store) Retry(id FlowID, key RetryKey) (e *record.Retry, err error) {
	err = s.view(func(r pebble.Reader) error {
		k, _, err := one(r, retryKey(id, key.Part, key.Offset, key.Path), func(v []byte) (Kept, error) { return s.kept(r, id, key, v) })
		e = k.Entry
		return err
	})
	return e, err
}

// Receipt returns the receipts of a flow's partitions by number; partitions
// without a commit have none.
func (s *Store) Receipt(id FlowID) (parts []PartReceipt, err error) {
	err = s.view(func(r pebble.Reader) error {
		prefix := flowPrefix(keyWatermark, id)
		return listIn(r, prefix, prefix, func(k, v []byte) (PartReceipt, error) {
			w, err := decodeWatermark(tail32(k), v)
			if err == nil && w.filed < 0 {
				err = w.countFiled(r, id)
			}
			return w.receipt(w.Part), err
		}, func(p PartReceipt) bool { parts = append(parts, p); return true })
	})
	return parts, err
}

// RequeueStats counts the entries of a flow's queue that went back to retry
// fewer than atMost times, and the others. It reads the whole queue.
func (s *Store) RequeueStats(id FlowID, atMost uint32) (st RequeueStats, err error) {
	err = s.view(func(r pebble.Reader) error {
		prefix := flowPrefix(keyFailure, id)
		return listIn(r, prefix, prefix, func(_, v []byte) (*record.Entry, error) {
			e, _, err := decodeEntry(v)
			return e, err
		}, func(e *record.Entry) bool {
			if e.Requeues >= atMost || e.InputOmitted {
				st.Spent++
				return true
			}
			st.Waiting++
			if st.Oldest == 0 || e.Time < st.Oldest {
				st.Oldest = e.Time
			}
			return true
		})
	})
	return st, err
}
