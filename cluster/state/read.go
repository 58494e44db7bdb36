package state

import (
	"cmp"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/google/uuid"

	"github.com/millrace-io/millrace/runtime/record"
)

// Every read sees the state as of one applied batch. What does not exist is a
// nil result or an empty list, not an error; errors are those of the database,
// ErrClosed and ErrMalformed.

// view runs f on a snapshot.
func (s *Store) view(f func(r pebble.Reader) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.mu.RUnlock()
	snap := s.db.NewSnapshot()
	return errors.Join(f(snap), snap.Close())
}

// list decodes every value under a prefix.
func list[T any](s *Store, prefix []byte, decode func(key, value []byte) (T, error)) ([]T, error) {
	var all []T
	err := s.view(func(r pebble.Reader) error {
		return listIn(r, prefix, prefix, decode, func(v T) bool { all = append(all, v); return true })
	})
	return all, err
}

func listIn[T any](r pebble.Reader, prefix, from []byte, decode func(key, value []byte) (T, error), yield func(T) bool) error {
	var bad error
	err := scan(r, prefix, from, func(key, value []byte) bool {
		v, err := decode(key, value)
		if err != nil {
			bad = err
			return false
		}
		return yield(v)
	})
	return errors.Join(err, bad)
}

// one decodes the value of a key; false if there is none.
func one[T any](r pebble.Reader, key []byte, decode func(value []byte) (T, error)) (v T, ok bool, err error) {
	b, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return v, false, nil
	}
	if err != nil {
		return v, false, err
	}
	defer closer.Close()
	v, err = decode(b)
	return v, err == nil, err
}

func viewOne[T any](s *Store, key []byte, decode func(value []byte) (T, error)) (v T, err error) {
	err = s.view(func(r pebble.Reader) error {
		v, _, err = one(r, key, decode)
		return err
	})
	if err != nil {
		var zero T
		return zero, err
	}
	return v, nil
}

func tail32(key []byte) uint32 { return binary.BigEndian.Uint32(key[len(key)-4:]) }

// Flows lists all flows, ordered by id.
func (s *Store) Flows() ([]*Flow, error) {
	return list(s, []byte{keyFlow, flowHead}, func(_, v []byte) (*Flow, error) { return decodeFlow(v) })
}

// Flow finds a flow by name; nil if there is none.
func (s *Store) Flow(project, name string) (f *Flow, err error) {
	err = s.view(func(r pebble.Reader) error {
		id, ok, err := one(r, flowNameKey(project, name), func(v []byte) (id FlowID, err error) {
			err = decodeValue("flow name", v, func(d *decoder) { id = FlowID(d.uint32()) })
			return id, err
		})
		if !ok {
			return err
		}
		f, _, err = one(r, flowHeadKey(id), decodeFlow)
		return err
	})
	return f, err
}

// FlowByID finds a flow by its number; nil if there is none.
func (s *Store) FlowByID(id FlowID) (*Flow, error) { return viewOne(s, flowHeadKey(id), decodeFlow) }

// FlowRevision returns a revision of a flow; nil if there is none.
func (s *Store) FlowRevision(id FlowID, number uint32) (*Revision, error) {
	return viewOne(s, flowRevKey(id, number), func(v []byte) (*Revision, error) { return decodeRevision(id, number, v) })
}

// Revisions lists a flow's revisions, oldest first.
func (s *Store) Revisions(id FlowID) ([]*Revision, error) {
	return list(s, flowRevPrefix(id), func(k, v []byte) (*Revision, error) { return decodeRevision(id, tail32(k), v) })
}

// Deployments lists a flow's deployments, oldest first.
func (s *Store) Deployments(id FlowID) ([]*Deployment, error) {
	return list(s, flowPrefix(keyDeploy, id), func(k, v []byte) (*Deployment, error) { return decodeDeployment(id, tail32(k), v) })
}

// Slots lists a flow's slots in order.
func (s *Store) Slots(id FlowID) ([]Slot, error) {
	return list(s, flowPrefix(keySlot, id), decodeSlotKV)
}

// AllSlots lists the slots of all flows, ordered by flow and slot.
func (s *Store) AllSlots() ([]Slot, error) { return list(s, []byte{keySlot}, decodeSlotKV) }

func decodeSlotKV(k, v []byte) (Slot, error) {
	return decodeSlot(FlowID(binary.BigEndian.Uint32(k[1:])), binary.BigEndian.Uint16(k[5:]), v)
}

// Partitions lists a flow's partitions by number.
func (s *Store) Partitions(id FlowID) (parts []Partition, err error) {
	err = s.view(func(r pebble.Reader) error {
		f, ok, err := one(r, flowHeadKey(id), decodeFlow)
		if !ok {
			return err
		}
		prefix := flowPrefix(keyPartition, id)
		return listIn(r, prefix, prefix, func(k, v []byte) (Partition, error) {
			part := tail32(k)
			key, err := decodePartitionKey(v)
			return Partition{PartitionKey: key, Flow: id, Part: part, Slot: uint16(part % uint32(f.Slots))}, err
		}, func(p Partition) bool { parts = append(parts, p); return true })
	})
	return parts, err
}

// Watermarks lists the watermarks of a flow by partition number; partitions
// without a commit have none.
func (s *Store) Watermarks(id FlowID) ([]Watermark, error) {
	return list(s, flowPrefix(keyWatermark, id), func(k, v []byte) (Watermark, error) { return decodeWatermark(tail32(k), v) })
}

// Failures lists entries of a flow's queue with sequence numbers above after,
// in order, at most limit (0: no bound). filter may be nil; it must not keep
// what it sees unless it returns true.
func (s *Store) Failures(id FlowID, after uint64, limit int, filter func(*record.Entry) bool) ([]*record.Entry, error) {
	entries, _, err := s.FailurePage(id, after, limit, 0, filter)
	return entries, err
}

// FailurePage is Failures, but for the first entry, and those behind it as long
// as their stored forms and their values take less than size bytes together (0:
// no bound). more says that a bound has ended the page.
func (s *Store) FailurePage(id FlowID, after uint64, limit, size int, filter func(*record.Entry) bool) (entries []*record.Entry, more bool, err error) {
	if after == 1<<64-1 {
		return nil, false, nil
	}
	read, stored := 0, 0
	err = s.view(func(r pebble.Reader) error {
		return listIn(r, flowPrefix(keyFailure, id), failureKey(id, after+1), func(k, v []byte) (*record.Entry, error) {
			e, err := DecodeEntry(v)
			if err == nil {
				e.Seq = binary.BigEndian.Uint64(k[5:])
			}
			stored = len(v)
			return e, err
		}, func(e *record.Entry) bool {
			if filter == nil || filter(e) {
				entries = append(entries, e)
				if read += stored + len(e.Input.Value); e.Call != nil {
					read += len(e.Call.Input.Value)
				}
				more = limit > 0 && len(entries) >= limit || size > 0 && read >= size
			}
			return !more
		})
	})
	return entries, more, err
}

// Failure returns an entry of a flow's queue; nil if there is none.
func (s *Store) Failure(id FlowID, seq uint64) (*record.Entry, error) {
	e, err := viewOne(s, failureKey(id, seq), DecodeEntry)
	if e != nil {
		e.Seq = seq
	}
	return e, err
}

// HasFailure reports whether an emission lies in the flow's queue.
func (s *Store) HasFailure(id FlowID, part uint32, off int64, path record.Path) (bool, error) {
	f, err := viewOne(s, failureIdxKey(id, part, off, path), decodeFailureIdx)
	return f.seq != 0, err
}

// FailedSince lists the emissions of a partition from offset from on that lie
// in the flow's queue, in order of offset and path.
func (s *Store) FailedSince(id FlowID, part uint32, from int64) (keys []FailureKey, err error) {
	err = s.view(func(r pebble.Reader) error {
		return listIn(r, key32(keyFailureIdx, uint32(id), part), failureIdxKey(id, part, max(from, 0), ""), func(k, v []byte) (FailureKey, error) {
			_, off, path, err := decodeFailureIdxKey(k)
			if err != nil {
				return FailureKey{}, err
			}
			f, err := decodeFailureIdx(v)
			if err == nil && f.old {
				f.generation, err = entryGeneration(r, id, f)
			}
			return FailureKey{Part: part, Offset: off, Path: path, Seq: f.seq, Generation: f.generation}, err
		}, func(k FailureKey) bool { keys = append(keys, k); return true })
	})
	return keys, err
}

// QueueStats returns the sizes of a flow's failure queue.
func (s *Store) QueueStats(id FlowID) (QueueStats, error) {
	q, err := viewOne(s, queueCounterKey(id), decodeQueueCounters)
	return q.stats(id), err
}

// Connections lists all connections by name.
func (s *Store) Connections() ([]*Connection, error) {
	return list(s, []byte{keyConnection}, func(k, v []byte) (*Connection, error) { return decodeConnection(string(k[1:]), v) })
}

// Connection finds a connection; nil if there is none.
func (s *Store) Connection(name string) (*Connection, error) {
	return viewOne(s, connectionKey(name), func(v []byte) (*Connection, error) { return decodeConnection(name, v) })
}

// Plugins lists every name of every stored plugin, in the order in which they
// were last put.
func (s *Store) Plugins() ([]Plugin, error) {
	sets, err := list(s, []byte{keyPlugin}, func(k, v []byte) ([]Plugin, error) { return decodePlugins(Digest(k[1:]), v) })
	var all []Plugin
	for _, set := range sets {
		all = append(all, set...)
	}
	sortPlugins(all)
	return all, err
}

// Plugin finds the plugin of a name and version that was put last; nil if there
// is none.
func (s *Store) Plugin(namespace, name, version string) (*Plugin, error) {
	all, err := s.Plugins()
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].named(namespace, name, version) {
			return &all[i], err
		}
	}
	return nil, err
}

// PluginByDigest returns the names of the bytes with a digest, the one put last
// first; none if they are not stored.
func (s *Store) PluginByDigest(d Digest) ([]Plugin, error) {
	return viewOne(s, pluginKey(d), func(v []byte) ([]Plugin, error) { return decodePlugins(d, v) })
}

// Nodes lists the members by id.
func (s *Store) Nodes() ([]*Node, error) {
	return list(s, []byte{keyNode}, func(k, v []byte) (*Node, error) { return decodeNode(uuid.UUID(k[1:]), v) })
}

// Node finds a member; nil if there is none.
func (s *Store) Node(id uuid.UUID) (*Node, error) {
	return viewOne(s, nodeKey(id), func(v []byte) (*Node, error) { return decodeNode(id, v) })
}

func sortPlugins(p []Plugin) {
	slices.SortFunc(p, func(a, b Plugin) int {
		return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(a.FullName(), b.FullName()))
	})
}

// FullName is {namespace}/{name}@{version}.
func (p *Plugin) FullName() string { return p.Namespace + "/" + p.Name + "@" + p.Version }

// VerifyHash computes the state hash anew from all replicated keys, and returns
// it beside the one that is kept. It reads the whole database.
func (s *Store) VerifyHash() (kept, computed uint64, err error) {
	err = s.view(func(r pebble.Reader) error {
		m, _, err := one(r, metaKey(), decodeMeta)
		if err != nil {
			return err
		}
		kept = m.hash
		return scanRange(r, []byte{firstHashed}, []byte{firstLocal}, func(k, v []byte) bool {
			computed += hashKV(k, v)
			return true
		})
	})
	return kept, computed, err
}
