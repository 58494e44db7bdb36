package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	"github.com/millrace-io/millrace/cluster/state"
)

// ErrNoDump is returned by Open of a snapshot, which has no contents.
var ErrNoDump = errors.New("snapshot holds no dump of the state")

const snapshotVersion = 1

var snapshotKey = []byte("snapshot")

// promise is what a snapshot says.
type promise struct {
	index, term        uint64
	applied            uint64 // the state's own index, which does not count noops and barriers
	configurationIndex uint64
	configuration      []byte
}

func (p *promise) encode() []byte {
	b := []byte{snapshotVersion}
	for _, v := range []uint64{p.index, p.term, p.applied, p.configurationIndex} {
		b = binary.AppendUvarint(b, v)
	}
	return append(b, p.configuration...)
}

func decodePromise(b []byte) (*promise, error) {
	if len(b) == 0 || b[0] != snapshotVersion {
		return nil, fmt.Errorf("read snapshot: %w", state.ErrMalformed)
	}
	b = b[1:]
	p := &promise{}
	for _, v := range []*uint64{&p.index, &p.term, &p.applied, &p.configurationIndex} {
		x, n := binary.Uvarint(b)
		if n <= 0 {
			return nil, fmt.Errorf("read snapshot: %w", state.ErrMalformed)
		}
		*v, b = x, b[n:]
	}
	p.configuration = append([]byte{}, b...)
	return p, nil
}

func (p *promise) meta() *raft.SnapshotMeta {
	return &raft.SnapshotMeta{
		Version: 1, ID: fmt.Sprintf("%d-%d", p.term, p.index), Index: p.index, Term: p.term,
		Configuration: raft.DecodeConfiguration(p.configuration), ConfigurationIndex: p.configurationIndex,
	}
}

func (s *Store) promise() (*promise, error) {
	v, err := s.Get(snapshotKey)
	if err != nil || v == nil {
		return nil, err
	}
	return decodePromise(v)
}

// Check reports an error when the state does not hold what the log and the
// snapshot promise of it: then this disk lost something, and must not serve.
func (s *Store) Check() error {
	p, err := s.promise()
	if err != nil {
		return err
	}
	applied := s.st.AppliedIndex()
	first, _ := s.FirstIndex()
	last, _ := s.LastIndex()
	switch {
	case last != 0 && applied > last:
		return fmt.Errorf("check log: it ends at entry %d, but the state at %d; the data folder is damaged", last, applied)
	case p == nil && first > 1 && applied+1 < first:
		return fmt.Errorf("check state: it ends at entry %d, but the log begins at %d; the data folder is damaged", applied, first)
	case p == nil:
		return nil
	case applied < p.applied:
		return fmt.Errorf("check state: it ends at entry %d, but the snapshot at %d needs entry %d; the data folder is damaged", applied, p.index, p.applied)
	case first > p.index+1 || (first == 0 && applied > p.index) || (last != 0 && last < p.index):
		return fmt.Errorf("check log: it holds entries %d to %d, which do not join the snapshot at %d; the data folder is damaged", first, last, p.index)
	}
	return nil
}

// Snapshots returns the snapshot store, which keeps the newest promise.
func (s *Store) Snapshots() raft.SnapshotStore { return snapshots{s} }

type snapshots struct{ s *Store }

func (n snapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration, configurationIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	if version != 1 {
		return nil, fmt.Errorf("create snapshot: version %d is not supported", version)
	}
	return &Sink{s: n.s, p: promise{index: index, term: term, configurationIndex: configurationIndex, configuration: raft.EncodeConfiguration(configuration)}}, nil
}

func (n snapshots) List() ([]*raft.SnapshotMeta, error) {
	p, err := n.s.promise()
	if err != nil || p == nil {
		return nil, err
	}
	return []*raft.SnapshotMeta{p.meta()}, nil
}

func (n snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	p, err := n.s.promise()
	if err != nil {
		return nil, nil, err
	}
	if p == nil || p.meta().ID != id {
		return nil, nil, fmt.Errorf("open snapshot %s: there is none", id)
	}
	return nil, nil, fmt.Errorf("open snapshot %s: %w", id, ErrNoDump)
}

// Sink takes the promise of one snapshot.
type Sink struct {
	s       *Store
	p       promise
	settled bool
}

// Persist makes the promise: everything up to the state's index applied, which
// was read when the snapshot was begun, is durable when it returns.
func (k *Sink) Persist(applied uint64) error {
	k.p.applied = applied
	return k.s.st.SyncAll()
}

// Write implements io.Writer; it refuses, since snapshots have no contents.
func (k *Sink) Write([]byte) (int, error) { return 0, ErrNoDump }

// ID implements raft.SnapshotSink.
func (k *Sink) ID() string { return k.p.meta().ID }

// Close keeps the promise in place of the older one.
func (k *Sink) Close() error {
	if k.settled {
		return nil
	}
	k.settled = true
	return k.s.Set(snapshotKey, k.p.encode())
}

// Cancel drops it.
func (k *Sink) Cancel() error {
	k.settled = true
	return nil
}
