package state

import "github.com/millrace-io/millrace/runtime/record"

// QueueAction is what a QueueOp does with entries.
type QueueAction uint8

const (
	// QueueDrop takes entries out of the queue for good.
	QueueDrop QueueAction = 1 + iota
	// QueueReplay makes kept entries of them, due at once.
	QueueReplay
)

// QueueOp drops entries of a failure queue, or gives them back to their stages.
// Its result is a *QueueOpResult.
type QueueOp struct {
	Flow   FlowID
	Action QueueAction
	Seqs   []uint64
	// Via is the digest of the plugin that the stages of replayed entries run
	// this once, "" for their own.
	Via string
	// Holds of the replayed entries, by index of Seqs: a hash as in
	// record.Retry, 0 if none. Shorter than Seqs: the rest has none.
	Holds []uint64
	At    int64
}

// SkipReason says why an entry was passed over.
type SkipReason uint8

const (
	// SkipMissing: there is no such entry.
	SkipMissing SkipReason = 1 + iota
	// SkipWaiting: an entry of the same emission waits for an attempt.
	SkipWaiting
	// SkipOmitted: its input was too large to keep.
	SkipOmitted
	// SkipPresent: the queue holds an entry of the same emission.
	SkipPresent
	// SkipPartition: the flow knows no such partition.
	SkipPartition
	// SkipUnread: the flow has yet to read the record, or to read it again
	// after a reset of its offsets.
	SkipUnread
	// SkipNewer: the flow has read the record again after a reset of its
	// offsets, and other entries of it came of that.
	SkipNewer
)

var skipNames = [...]string{"", "no such entry", "waits for an attempt", "its input was too large to keep", "is in the queue", "unknown partition", "its record is yet to be read", "its record was read again, and newer entries of it are there"}

func (r SkipReason) String() string {
	if int(r) < len(skipNames) {
		return skipNames[r]
	}
	return "unknown"
}

// Skipped is an entry that was passed over: Seq in a QueueOp, in a QueueImport
// the index of the entry.
type Skipped struct {
	Seq    uint64
	Reason SkipReason
}

// QueueOpResult answers QueueOp, QueueExpire, QueuePurge and QueueImport.
type QueueOpResult struct {
	// Done counts the entries that were dropped, replayed or filed.
	Done    int
	Skipped []Skipped
	// More: a QueueExpire or QueuePurge has reached its bound and is to be
	// repeated.
	More bool
	// Queue as it is after the command.
	Queue QueueStats
}

// QueueExpire drops the oldest entries of a failure queue, by number, as long
// as they are older than Before (they count as DroppedExpired) or the queue is
// above its bounds (DroppedOldest); at most MaxExpire at once, and no more than
// begin within MaxExpireBytes. Its result is a *QueueOpResult.
type QueueExpire struct {
	Flow FlowID
	// Before in Unix milliseconds; 0: none is too old.
	Before int64
	// KeepEntries and KeepBytes are the bounds; 0: none.
	KeepEntries, KeepBytes uint64
	At                     int64
}

const (
	// MaxExpire is how many entries a QueueExpire or QueuePurge drops at most.
	MaxExpire = 1000
	// MaxExpireBytes is how much of them it reads, but for the last one.
	MaxExpireBytes = 8 << 20
)

// QueuePurge drops entries of a flow that is to be deleted, those of its failure
// queue first and then those that it keeps for another attempt; they count as
// DroppedQueue. It is refused with NotPaused while the flow runs, and bounded as
// a QueueExpire is. Its result is a *QueueOpResult.
type QueuePurge struct {
	Flow FlowID
	At   int64
}

// ImportEntry is an entry of a QueueImport and its partition in the flow.
type ImportEntry struct {
	Part  uint32
	Entry *record.Entry
}

// QueueImport files entries that were exported, under new numbers and in no
// later generation than the flow's. Those whose emission is in the queue, or
// waits for an attempt, or is of a record that the flow is yet to read, are
// passed over. Its result is a *QueueOpResult.
type QueueImport struct {
	Flow    FlowID
	Entries []ImportEntry
	At      int64
}

// Position is where a partition is to be read from.
type Position struct {
	Part   uint32
	Offset int64
}

// OffsetReset sets watermarks and begins a new reset generation: refused with
// NotPaused while the flow runs, with GenerationMismatch when it has another
// reset generation than IfGeneration. Partitions that it does not name keep
// their watermarks. All slots lose their owners and get new epochs. Kept entries
// of records that are read again now are dropped; the others, and those in the
// queue, stay. Its result is a *Flow.
type OffsetReset struct {
	Flow         FlowID
	IfGeneration uint32
	// Positions name each partition at most once.
	Positions []Position
	At        int64
}

func (*QueueOp) Kind() Kind     { return KindQueueOp }
func (*QueueExpire) Kind() Kind { return KindQueueExpire }
func (*QueueImport) Kind() Kind { return KindQueueImport }
func (*OffsetReset) Kind() Kind { return KindOffsetReset }
func (*QueuePurge) Kind() Kind  { return KindQueuePurge }

func (c *QueueOp) Stamp(at int64)     { stamp(&c.At, at) }
func (c *QueueExpire) Stamp(at int64) { stamp(&c.At, at) }
func (c *QueueImport) Stamp(at int64) { stamp(&c.At, at) }
func (c *OffsetReset) Stamp(at int64) { stamp(&c.At, at) }
func (c *QueuePurge) Stamp(at int64)  { stamp(&c.At, at) }

func (c *QueueOp) append(b []byte) []byte {
	b = append(putUint(b, uint64(c.Flow)), byte(c.Action))
	b = putUint(b, uint64(len(c.Seqs)))
	for _, s := range c.Seqs {
		b = putUint(b, s)
	}
	b = putUint(putString(b, c.Via), uint64(len(c.Holds)))
	for _, h := range c.Holds {
		b = appendFixed64(b, h)
	}
	return putInt(b, c.At)
}

func (c *QueueOp) decode(d *decoder) {
	c.Flow, c.Action = FlowID(d.uint32()), QueueAction(d.byte())
	if n := d.count(1); n > 0 {
		c.Seqs = make([]uint64, n)
		for i := range c.Seqs {
			c.Seqs[i] = d.uint()
		}
	}
	c.Via = d.string()
	if n := d.count(8); n > 0 {
		c.Holds = make([]uint64, n)
		for i := range c.Holds {
			c.Holds[i] = d.fixed64()
		}
	}
	c.At = d.int()
}

func (c *QueueExpire) append(b []byte) []byte {
	b = putInt(putUint(b, uint64(c.Flow)), c.Before)
	return putInt(putUint(putUint(b, c.KeepEntries), c.KeepBytes), c.At)
}

func (c *QueueExpire) decode(d *decoder) {
	c.Flow, c.Before, c.KeepEntries, c.KeepBytes, c.At = FlowID(d.uint32()), d.int(), d.uint(), d.uint(), d.int()
}

func (c *QueuePurge) append(b []byte) []byte { return putInt(putUint(b, uint64(c.Flow)), c.At) }
func (c *QueuePurge) decode(d *decoder)      { c.Flow, c.At = FlowID(d.uint32()), d.int() }

func (c *QueueImport) append(b []byte) []byte {
	b = putUint(putUint(b, uint64(c.Flow)), uint64(len(c.Entries)))
	for i := range c.Entries {
		b = putBytes(putUint(b, uint64(c.Entries[i].Part)), EncodeEntry(c.Entries[i].Entry))
	}
	return putInt(b, c.At)
}

func (c *QueueImport) decode(d *decoder) {
	c.Flow = FlowID(d.uint32())
	if n := d.count(2); n > 0 {
		c.Entries = make([]ImportEntry, n)
		for i := range c.Entries {
			c.Entries[i] = ImportEntry{d.uint32(), d.entry()}
		}
	}
	c.At = d.int()
}

func (c *OffsetReset) append(b []byte) []byte {
	b = putUint(putUint(b, uint64(c.Flow)), uint64(c.IfGeneration))
	b = putUint(b, uint64(len(c.Positions)))
	for _, p := range c.Positions {
		b = putInt(putUint(b, uint64(p.Part)), p.Offset)
	}
	return putInt(b, c.At)
}

func (c *OffsetReset) decode(d *decoder) {
	c.Flow, c.IfGeneration = FlowID(d.uint32()), d.uint32()
	if n := d.count(2); n > 0 {
		c.Positions = make([]Position, n)
		for i := range c.Positions {
			c.Positions[i] = Position{d.uint32(), d.int()}
		}
	}
	c.At = d.int()
}
