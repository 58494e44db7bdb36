package state

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/millrace-io/millrace/runtime/record"
)

// FlowID is the number of a flow inside the state. It is never reused: a flow
// that is deleted and made anew gets another.
type FlowID uint32

// Digest is the SHA-256 of a plugin's file.
type Digest [32]byte

// String is "sha256:" and 64 hex digits.
func (d Digest) String() string { return "sha256:" + hex.EncodeToString(d[:]) }

// ParseDigest reads what String writes.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	h, ok := strings.CutPrefix(s, "sha256:")
	if n, err := hex.Decode(d[:], []byte(h[:min(len(h), 2*len(d))])); !ok || err != nil || n != len(d) || len(h) != 2*len(d) {
		return Digest{}, fmt.Errorf("parse digest %q: it is sha256: and 64 hex digits", s)
	}
	return d, nil
}

// RunState says whether a flow is to run.
type RunState uint8

const (
	// Running flows are processed.
	Running RunState = iota
	// Paused by a person. Only a person resumes it.
	Paused
	// AutoPaused by its owner for a reason that may go away.
	AutoPaused
	numRunStates
)

func (s RunState) String() string {
	switch s {
	case Running:
		return "running"
	case Paused:
		return "paused"
	case AutoPaused:
		return "auto_paused"
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// Flow is the head of a flow: what is true of it now.
type Flow struct {
	ID FlowID
	// UID is 64 random bits, in every idempotency key of the flow.
	UID           uint64
	Project, Name string
	State         RunState
	// Reason of a state other than Running.
	Reason string
	// Times in Unix milliseconds.
	StateAt, CreatedAt, UpdatedAt int64
	// Revision is the number of the current document, from 1.
	Revision uint32
	// Deploy is the current deploy generation, from 1. It rises whenever the
	// document or a pinned digest changes.
	Deploy uint32
	// Generation is the reset generation.
	Generation uint32
	// Slots is how many owners the partitions are spread over.
	Slots uint16
	// Parts is how many partition numbers have been given out.
	Parts uint32
	// Looked says that partitions were looked for, and First how many there
	// were the first time. Those numbered from First on came later.
	Looked bool
	First  uint32
	// Connections the current revision uses, by name.
	Connections []string
}

// FullName is {project}/{name}.
func (f *Flow) FullName() string { return f.Project + "/" + f.Name }

// Pin says which bytes a stage runs.
type Pin struct {
	// Stage is the stage's id.
	Stage  string
	Digest Digest
	// Version of the plugin, for people.
	Version string
}

// Revision is a document of a flow as it was applied, with what it resolved to.
type Revision struct {
	Flow   FlowID
	Number uint32
	// Document is the YAML source; Resolved is opaque to this package.
	Document, Resolved []byte
	Pins               []Pin
	Connections        []string
	// At which it was made, Unix milliseconds.
	At int64
	// Deploy is the generation that the revision began.
	Deploy uint32
	// Preflight is nil where nobody said anything of one.
	Preflight *Preflight
}

// Preflight is how the new plugins of a revision were held against the old ones
// before it was made, as whoever made it says.
type Preflight struct {
	// Skipped: nothing was compared, because that was asked for.
	Skipped bool
	// Records that went through both; Differ of them are answered otherwise,
	// NewFailures more fail and did not before. Summed over the stages.
	Records, Differ, NewFailures uint64
	// Accepted is by what differences were taken, as "max-diff 2%" or "yes"; at
	// most 255 bytes, "" if none had to be.
	Accepted string
}

// Deployment is one change of what a flow runs.
type Deployment struct {
	Flow       FlowID
	Generation uint32
	Revision   uint32
	Pins       []Pin
	At         int64
}

// PartitionKey is the identity of a partition of a source. Equal keys are the
// same partition; a topic made anew has another id, and so is another.
type PartitionKey struct {
	// Kind of the source: kafka, file, stream.
	Kind       string
	Connection string
	Topic      string
	TopicID    [16]byte
	Broker     string
	// Source is the source's own number of the partition.
	Source int32
}

// Partition is a partition that a flow knows.
type Partition struct {
	PartitionKey
	Flow FlowID
	// Part is its number in the flow: dense, from 0, never reused.
	Part uint32
	// Slot it belongs to: Part modulo the flow's slots.
	Slot uint16
}

// Range is the offsets from From up to and without To.
type Range struct{ From, To int64 }

// Watermark is what is settled of a partition: everything below Low and in
// Ranges, which are ascending and apart.
type Watermark struct {
	Part   uint32
	Low    int64
	Ranges []Range
	// Generation is the flow's reset generation in which it was committed.
	Generation uint32
	// Deploy is the deploy generation that the owner reported with it.
	Deploy uint32

	account
}

// Slot is a share of a flow's partitions and who owns it.
type Slot struct {
	Flow FlowID
	Slot uint16
	// Owner is the zero id when nobody does. Ownership ends with the owner's
	// incarnation.
	Owner       uuid.UUID
	Incarnation uint64
	// Epoch rises at each change of owner; 0: never owned.
	Epoch uint64
	// Target, Layout, Deaths and Quarantine are for planned moves.
	Target     uuid.UUID
	Layout     uint32
	Deaths     uint32
	Quarantine bool
}

// Connection is a connection document. Secrets are in it by name only.
type Connection struct {
	Name     string
	Document []byte
	// Revision counts the puts, from 1.
	Revision uint32
	At       int64
}

// Plugin is one name and version under which a plugin's bytes are stored. The
// same bytes may have several.
type Plugin struct {
	Digest                   Digest
	Namespace, Name, Version string
	Size                     int64
	// ABI and Mode as the manifest or the module's imports say.
	ABI, Mode string
	Manifest  []byte
	// At is the time of the last put, Unix milliseconds; Index is its place
	// in the log, by which "deployed last" is decided.
	At    int64
	Index uint64
}

// Node is a member.
type Node struct {
	ID uuid.UUID
	// Incarnation rises with every life of the process.
	Incarnation uint64
	Up          bool
	Addr        string
	Version     string
	// At of the last change, Unix milliseconds.
	At int64
}

// FailureKey names an entry of the failure queue by what failed.
type FailureKey struct {
	Part   uint32
	Offset int64
	Path   record.Path
	Seq    uint64
	// Generation is the reset generation in which the record was read.
	Generation uint32
}

// QueueStats are the sizes of a flow's failure queue, and of what is kept of it
// for another attempt.
type QueueStats struct {
	Flow FlowID
	// Entries in the queue now, and what they take stored.
	Entries, Bytes uint64
	// Last is the highest sequence number given out.
	Last uint64
	// Kept entries now, and what they take stored.
	Kept, KeptBytes uint64
}
