package state

import (
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/millrace-io/millrace/runtime/record"
)

// Kind is the first byte of a command. Numbers are part of the log and never
// change; those without a type here are reserved.
type Kind uint8

const (
	KindNodeUp Kind = 1 + iota
	KindNodeExpire
	KindNodeDrain
	KindNodeRemove
	KindFlowPut
	KindFlowState
	KindFlowDelete
	KindLayout
	KindPartitionsAdd
	KindConPut
	KindConDel
	KindAssign
	KindTarget
	KindCommit
	KindRetryOp
	KindOffsetReset
	KindIngest
	KindPluginPut
	KindPluginAck
	KindActivate
	KindPluginDel
	KindTrustPut
	KindChecksum
	KindQueueOp
	KindQueueExpire
	KindQueueImport
	KindQueuePurge
)

var kindNames = map[Kind]string{
	KindNodeUp: "NodeUp", KindNodeExpire: "NodeExpire", KindNodeDrain: "NodeDrain", KindNodeRemove: "NodeRemove",
	KindFlowPut: "FlowPut", KindFlowState: "FlowState", KindFlowDelete: "FlowDelete", KindLayout: "Layout",
	KindPartitionsAdd: "PartitionsAdd", KindConPut: "ConPut", KindConDel: "ConDel", KindAssign: "Assign", KindTarget: "Target",
	KindCommit: "Commit", KindRetryOp: "RetryOp", KindOffsetReset: "OffsetReset", KindIngest: "Ingest",
	KindPluginPut: "PluginPut", KindPluginAck: "PluginAck", KindActivate: "Activate", KindPluginDel: "PluginDel",
	KindTrustPut: "TrustPut", KindChecksum: "Checksum", KindQueueOp: "QueueOp", KindQueueExpire: "QueueExpire", KindQueueImport: "QueueImport", KindQueuePurge: "QueuePurge",
}

func (k Kind) String() string {
	if s, ok := kindNames[k]; ok {
		return s
	}
	return fmt.Sprintf("command(%d)", uint8(k))
}

// version is the newest version of the form of commands of a kind; older ones
// are read too.
func (k Kind) version() byte {
	switch k {
	case KindCommit, KindFlowPut, KindFlowState, KindActivate:
		return 2
	}
	return 1
}

// MaxCommandBytes is the size above which a command is refused before it is
// proposed.
const MaxCommandBytes = 32 << 20

// Command is a change of the replicated state. Everything that must be equal
// on all replicas (time, ids, random bits) is in it. The types of this package
// with a Kind are all there are; pass pointers.
type Command interface {
	Kind() Kind
	// Stamp sets the command's At, Unix milliseconds, where it has one that
	// is still zero.
	Stamp(at int64)

	append(b []byte) []byte
	decode(d *decoder)
	apply(t *tx) (any, error)
}

// UnknownCommandError reports a command of a kind or version that this program
// does not have. A replica that meets one in the log must stop: skipping it
// would make its state differ from the others'.
type UnknownCommandError struct {
	Kind    Kind
	Version byte
}

func (e *UnknownCommandError) Error() string {
	return fmt.Sprintf("command %s version %d is unknown to this program; start a newer flowd on this data folder", e.Kind, e.Version)
}

// NodeUp announces a node's life. A new incarnation takes the slots that the
// old one owned away from it.
type NodeUp struct {
	Node        uuid.UUID
	Incarnation uint64
	Addr        string
	Version     string
	At          int64
}

// FlowPut makes a flow, or a new revision of it. Its result is a
// *FlowPutResult.
type FlowPut struct {
	Project, Name string
	// UID is used when the flow is made by this command; 64 random bits.
	UID uint64
	// Document is the YAML source, Resolved what it was resolved to (opaque).
	Document, Resolved []byte
	// Pins are the digests of all plugin stages. Each must be stored.
	Pins []Pin
	// Connections that the document uses; those that exist cannot be deleted
	// as long as the flow uses them.
	Connections []string
	// Slots is fixed when the flow is made, 0 meaning 1. Later it must be 0
	// or the same.
	Slots uint16
	// IfMatch is the revision that must be the current one; 0: any, or none.
	IfMatch uint32
	At      int64
	// RequestID makes a repetition within 10 minutes harmless; "" if none.
	RequestID string
	// Preflight of the revision; nil if nothing is known of one.
	Preflight *Preflight
}

// FlowState pauses or resumes a flow. An owner's AutoPaused leaves a flow that
// a person paused as it is. It is refused with StateMismatch where If is set and
// the flow's state is another. Its result is a *Flow.
type FlowState struct {
	Flow   FlowID
	State  RunState
	Reason string
	At     int64
	// If is the state that the flow must be in, so that nobody's change in
	// between is undone; nil: any.
	If *InState
}

// InState is a state of a flow, by all that is known of it.
type InState struct {
	State  RunState
	Reason string
	// At is when it began, Unix milliseconds.
	At int64
}

// InState is the state that f is in.
func (f *Flow) InState() *InState { return &InState{f.State, f.Reason, f.StateAt} }

// FlowDelete removes a flow and all that belongs to it. It is refused with
// QueueNotEmpty while the failure queue holds entries or records wait for
// another attempt, unless Purge is set.
type FlowDelete struct {
	Flow  FlowID
	Purge bool
	At    int64
}

// PartitionsAdd makes partitions known to a flow. It is idempotent by identity.
// The first one of a flow, which may have none, says what it found when it began.
// Its result is a []Partition in the order of the keys.
type PartitionsAdd struct {
	Flow       FlowID
	Partitions []PartitionKey
	At         int64
}

// ConPut stores a connection document. Its result is a *Connection.
type ConPut struct {
	Name     string
	Document []byte
	At       int64
}

// ConDel deletes a connection; refused with InUse while a flow uses it.
type ConDel struct{ Name string }

// PluginPut makes a stored plugin known under a name. The same name and version
// with other bytes is refused with Exists, unless IsDevVersion(Version). Its
// result is a *Plugin.
type PluginPut struct {
	Digest                   Digest
	Namespace, Name, Version string
	Size                     int64
	ABI, Mode                string
	Manifest                 []byte
	At                       int64
}

// PluginDel forgets a plugin under all its names; refused with InUse while one
// of the last PinnedDeployments deployments of a flow runs it.
type PluginDel struct{ Digest Digest }

// Activate makes stages of a flow run other digests: a new revision with the
// same document, and the next deploy generation. Its result is a
// *FlowPutResult.
type Activate struct {
	Flow FlowID
	// Pins replace those of the same stages; the stages must have one.
	Pins      []Pin
	At        int64
	RequestID string
	// Preflight of the revision; nil if nothing is known of one.
	Preflight *Preflight
}

// SlotAssignment gives a slot to a node's life, or to nobody (zero node).
type SlotAssignment struct {
	Flow        FlowID
	Slot        uint16
	Node        uuid.UUID
	Incarnation uint64
}

// Assign changes owners. The epoch of a slot rises whenever its owner changes.
// Assignments to a life that is not the node's current one, or of slots that
// are gone, are skipped. Its result is an *AssignResult.
type Assign struct {
	Slots []SlotAssignment
	At    int64
}

// CommitItem is the progress of one partition.
type CommitItem struct {
	Flow  FlowID
	Slot  uint16
	Epoch uint64
	Part  uint32
	Low   int64
	// Ranges are settled offsets above Low: ascending, apart, not empty.
	Ranges []Range
	// Generation is the flow's reset generation; Deploy the deploy generation
	// that the lane works with.
	Generation uint32
	Deploy     uint32
	// Release gives the slot up with this commit.
	Release bool
	// Life tells one opening of the partition's lane from the other. It rises
	// with each as long as the epoch is the same; 0 where there is no lane.
	Life uint64
	// Tally of that life.
	Tally Tally
	// Counted says that Carried and Grown are set: then every entry of the life
	// is applied once, however often and with whatever else it is proposed.
	// Without it an entry is told from a repeated one by its bytes.
	Counted bool
	// Carried is what earlier Commits of the life had of this partition; what
	// of it was applied is passed over. The entries of a life come in one order.
	Carried EntryCount
	// Grown is by how much the entries of the partition grow with all that the
	// life has carried, this Commit included, if none of them takes the place of
	// another one: such count as DroppedReplaced.
	Grown int64
	// Requests by which records of the partition are known to who sent them;
	// remembered for a time.
	Requests []Request
}

// EntryCount counts what Commits carry of a partition.
type EntryCount struct {
	Failures, Keeps, Gone uint64
}

// Request names a record of a source whose sender repeats what was not
// answered.
type Request struct {
	// Ref is the record's; Digest tells another request of the same name.
	Ref    string
	Digest uint64
}

// CommitFailure files a record that cannot go on. It belongs to the item of the
// same flow and partition.
type CommitFailure struct {
	Flow FlowID
	Part uint32
	// Entry is filed under its input's offset and path; its Seq is ignored.
	Entry *record.Entry
}

// CommitRetry keeps a record for another attempt, under its input's offset and
// path, or keeps it again with what is known since. It belongs to the item of
// the same flow and partition.
type CommitRetry struct {
	Flow FlowID
	Part uint32
	// Entry's Generation stays the one that it was first kept with.
	Entry *record.Retry

	raw []byte // Entry as the command holds it
}

// CommitGone says that a kept entry is done: all that came of it is settled. It
// belongs to the item of the same flow and partition.
type CommitGone struct {
	Flow   FlowID
	Part   uint32
	Offset int64
	Path   record.Path
}

// Commit settles records: watermarks, ranges, tallies, failures and kept
// entries of partitions whose slots the node owns. Every item is applied
// entirely, with all that belongs to it, or not at all; see Reason. Its result
// is a *CommitResult. A Commit may be proposed again: it then changes nothing.
//
// A failure equal to what lies in the queue, by flow, partition, offset and path,
// changes nothing, nor does one of an older reset generation; any other takes
// that entry's place, under a new number, and the one that gave way counts as
// DroppedReplaced. Its emission is no longer kept.
//
// Failures come first, then Gone, then Keeps. A Keep of an older generation than
// what is kept or filed of its emission is ignored. One of an emission that lies
// in the queue takes its place if the item is Counted, and is ignored otherwise.
// Among entries with the same Hold that is not 0, one is parked while an earlier
// one is there, except one of the same batch (Group); to keep an entry parks
// those that follow it. When the first is gone, the next ones become due at
// once: up to UnparkAtOnce, and the rest of the last one's batch.
type Commit struct {
	Node        uuid.UUID
	Incarnation uint64
	// Items name each partition at most once.
	Items    []CommitItem
	Failures []CommitFailure
	Keeps    []CommitRetry
	// Gone may name entries that are not there.
	Gone []CommitGone
	At   int64

	tallyless bool // read from a form without tallies
}

// UnparkAtOnce is how many entries of a Hold become due when the one before
// them is gone.
const UnparkAtOnce = 64

func (*NodeUp) Kind() Kind        { return KindNodeUp }
func (*FlowPut) Kind() Kind       { return KindFlowPut }
func (*FlowState) Kind() Kind     { return KindFlowState }
func (*FlowDelete) Kind() Kind    { return KindFlowDelete }
func (*PartitionsAdd) Kind() Kind { return KindPartitionsAdd }
func (*ConPut) Kind() Kind        { return KindConPut }
func (*ConDel) Kind() Kind        { return KindConDel }
func (*PluginPut) Kind() Kind     { return KindPluginPut }
func (*PluginDel) Kind() Kind     { return KindPluginDel }
func (*Activate) Kind() Kind      { return KindActivate }
func (*Assign) Kind() Kind        { return KindAssign }
func (*Commit) Kind() Kind        { return KindCommit }

func stamp(at *int64, now int64) {
	if *at == 0 {
		*at = now
	}
}

func (c *NodeUp) Stamp(at int64)        { stamp(&c.At, at) }
func (c *FlowPut) Stamp(at int64)       { stamp(&c.At, at) }
func (c *FlowState) Stamp(at int64)     { stamp(&c.At, at) }
func (c *FlowDelete) Stamp(at int64)    { stamp(&c.At, at) }
func (c *PartitionsAdd) Stamp(at int64) { stamp(&c.At, at) }
func (c *ConPut) Stamp(at int64)        { stamp(&c.At, at) }
func (*ConDel) Stamp(int64)             {}
func (c *PluginPut) Stamp(at int64)     { stamp(&c.At, at) }
func (*PluginDel) Stamp(int64)          {}
func (c *Activate) Stamp(at int64)      { stamp(&c.At, at) }
func (c *Assign) Stamp(at int64)        { stamp(&c.At, at) }
func (c *Commit) Stamp(at int64)        { stamp(&c.At, at) }

func newCommand(k Kind) Command {
	switch k {
	case KindNodeUp:
		return &NodeUp{}
	case KindFlowPut:
		return &FlowPut{}
	case KindFlowState:
		return &FlowState{}
	case KindFlowDelete:
		return &FlowDelete{}
	case KindPartitionsAdd:
		return &PartitionsAdd{}
	case KindConPut:
		return &ConPut{}
	case KindConDel:
		return &ConDel{}
	case KindPluginPut:
		return &PluginPut{}
	case KindPluginDel:
		return &PluginDel{}
	case KindActivate:
		return &Activate{}
	case KindAssign:
		return &Assign{}
	case KindCommit:
		return &Commit{}
	case KindQueueOp:
		return &QueueOp{}
	case KindQueueExpire:
		return &QueueExpire{}
	case KindQueueImport:
		return &QueueImport{}
	case KindOffsetReset:
		return &OffsetReset{}
	case KindQueuePurge:
		return &QueuePurge{}
	}
	return nil
}

// EncodeCommand writes a command as it goes into the log. It reports an error
// for one above MaxCommandBytes.
func EncodeCommand(c Command) ([]byte, error) {
	b := c.append([]byte{byte(c.Kind()), c.Kind().version()})
	if len(b) > MaxCommandBytes {
		return nil, fmt.Errorf("encode command %s: %d bytes; at most %d are possible", c.Kind(), len(b), MaxCommandBytes)
	}
	return b, nil
}

// DecodeCommand reads what EncodeCommand writes. A kind or version that this
// program does not have is an *UnknownCommandError; anything else that is wrong
// is ErrMalformed.
func DecodeCommand(b []byte) (Command, error) {
	if len(b) < 2 {
		return nil, fmt.Errorf("read command of %d bytes: %w", len(b), ErrMalformed)
	}
	k := Kind(b[0])
	c := newCommand(k)
	if c == nil || b[1] == 0 || b[1] > k.version() {
		return nil, &UnknownCommandError{k, b[1]}
	}
	d := &decoder{b: b[2:], form: b[1]}
	c.decode(d)
	if err := d.end(); err != nil {
		if u, ok := errors.AsType[*UnknownCommandError](err); ok {
			return nil, u
		}
		return nil, fmt.Errorf("read command %s: %w", k, err)
	}
	return c, nil
}
