package node

import (
	"errors"
	"io"

	"github.com/hashicorp/raft"

	"github.com/millrace-io/millrace/cluster/raftlog"
	"github.com/millrace-io/millrace/cluster/state"
)

// machine hands raft's committed entries to the state. It implements
// raft.BatchingFSM, to which raft sends commands and configurations, and
// nothing else; raft never calls StoreConfiguration on it.
type machine struct {
	st   *state.Store
	fail func(error)
	hook func([]state.Result)
	// err is set once an entry could not be applied; then no later one is, and
	// no snapshot promises that it was. Only raft's FSM goroutine uses it.
	err error
}

var _ raft.BatchingFSM = (*machine)(nil)

func (m *machine) ApplyBatch(logs []*raft.Log) []any {
	entries := make([]state.LogEntry, len(logs))
	for i, l := range logs {
		entries[i] = state.LogEntry{Index: l.Index, Term: l.Term}
		if l.Type == raft.LogConfiguration {
			entries[i].Configuration = append([]byte{}, l.Data...)
		} else {
			entries[i].Command = l.Data
		}
	}
	out := make([]any, len(logs))
	var results []state.Result
	if m.err == nil {
		if results, m.err = m.st.Apply(entries); m.err != nil {
			m.fail(m.err)
		}
	}
	for i := range out {
		if m.err != nil {
			out[i] = m.err
		} else {
			out[i] = results[i]
		}
	}
	if m.err == nil && m.hook != nil {
		m.hook(results)
	}
	return out
}

// Apply implements raft.FSM; raft calls ApplyBatch instead.
func (m *machine) Apply(l *raft.Log) any { return m.ApplyBatch([]*raft.Log{l})[0] }

// Snapshot implements raft.FSM. Raft calls it between batches.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	if m.err != nil {
		return nil, m.err
	}
	return promise(m.st.AppliedIndex()), nil
}

// Restore implements raft.FSM. A node is not yet refilled by others.
func (m *machine) Restore(r io.ReadCloser) error {
	return errors.Join(raftlog.ErrNoDump, r.Close())
}

// promise is a snapshot at an index of the state's.
type promise uint64

func (p promise) Persist(sink raft.SnapshotSink) error {
	k, ok := sink.(*raftlog.Sink)
	if !ok {
		return raftlog.ErrNoDump
	}
	if err := k.Persist(uint64(p)); err != nil {
		return err
	}
	return k.Close()
}

func (promise) Release() {}
