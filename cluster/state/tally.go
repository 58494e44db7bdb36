package state

import (
	"cmp"
	"slices"

	"github.com/millrace-io/millrace/runtime/record"
)

// Reasons of drops that the state itself counts, beside those of a Tally.
const (
	// DroppedQueue: taken out of the failure queue by a person.
	DroppedQueue = "queue"
	// DroppedExpired: taken out of the failure queue by its retention.
	DroppedExpired = "expired"
	// DroppedOldest: taken out of the failure queue since it was full.
	DroppedOldest = "oldest"
	// DroppedReplaced: an entry that gave way to another one of its emission,
	// whose record was read again or ran again from where it had failed.
	DroppedReplaced = "replaced"
)

// DropCount is how many emissions were dropped for a reason: the id of a stage,
// or one of the reasons that the pipeline and this package name.
type DropCount struct {
	Reason string
	N      int64
}

// Tally is what became of the emissions of a partition. In a CommitItem it
// counts since the lane was opened, so that a Commit may be repeated; only
// Flying may fall from one Commit to the next.
type Tally struct {
	// Read are source records that were admitted, Split the emissions that
	// came of them beyond their first.
	Read, Split int64
	Delivered   int64
	// Known were not delivered again because an entry of theirs existed when
	// the lane was opened.
	Known int64
	// Flying are neither settled nor in the state, nor yet counted in any of
	// the others. One that comes from a kept entry is not among them, so it
	// may be negative where such an entry is done and its Gone is yet to come.
	Flying int64
	// Dropped by reason, ascending.
	Dropped []DropCount
}

// drop adds n to the drops for a reason.
func (t *Tally) drop(reason string, n int64) {
	i, found := slices.BinarySearchFunc(t.Dropped, reason, func(d DropCount, r string) int { return cmp.Compare(d.Reason, r) })
	if !found {
		t.Dropped = slices.Insert(slices.Clone(t.Dropped), i, DropCount{Reason: reason})
	}
	t.Dropped[i].N += n
}

func (t *Tally) add(o *Tally) {
	t.Read += o.Read
	t.Split += o.Split
	t.Delivered += o.Delivered
	t.Known += o.Known
	t.Flying += o.Flying
	t.Dropped = slices.Clone(t.Dropped)
	for _, d := range o.Dropped {
		t.drop(d.Reason, d.N)
	}
}

// dropped is how many were dropped for a reason.
func (t *Tally) dropped(reason string) int64 {
	for _, d := range t.Dropped {
		if d.Reason == reason {
			return d.N
		}
	}
	return 0
}

// DroppedAll is the sum of the drops for all reasons.
func (t *Tally) DroppedAll() (n int64) {
	for _, d := range t.Dropped {
		n += d.N
	}
	return n
}

// before reports whether t was taken earlier in the same life than o.
func (t *Tally) before(o *Tally) bool {
	return t.Read < o.Read || t.Delivered < o.Delivered || t.DroppedAll() < o.DroppedAll()
}

// account is the receipt of a partition, in the value of its watermark.
type account struct {
	// base are the totals of lives that are over, and what the state itself
	// has counted; life is the tally of the present one.
	base, life Tally
	// epoch and number name the present life.
	epoch, number uint64
	// carried is what of its entries was applied, and grown by how much they
	// made the entries grow but for those that were replaced.
	carried EntryCount
	grown   int64
	// filed and kept entries there are now.
	filed, kept int64
}

// enter counts a tally of a life. With a new one the old one's totals are kept;
// what was flying then will be read again.
func (a *account) enter(epoch, number uint64, t *Tally) {
	if a.epoch != epoch || a.number != number {
		flying := a.life.Flying
		a.base.add(&a.life)
		a.base.Read -= flying
		a.base.Flying -= flying
		a.carried, a.grown = EntryCount{}, 0
	}
	a.epoch, a.number, a.life = epoch, number, *t
}

// before reports whether n was counted earlier in the same life than o.
func (n *EntryCount) before(o *EntryCount) bool {
	return n.Failures < o.Failures || n.Keeps < o.Keeps || n.Gone < o.Gone
}

// beyond is how many n has that o does not.
func (n *EntryCount) beyond(o *EntryCount) EntryCount {
	return EntryCount{n.Failures - min(n.Failures, o.Failures), n.Keeps - min(n.Keeps, o.Keeps), n.Gone - min(n.Gone, o.Gone)}
}

// entries are all that there ever were, but for those that are no longer kept
// nor filed for another reason than that they were replaced.
func (a *account) entries() int64 { return a.filed + a.kept + a.base.dropped(DroppedReplaced) }

// PartReceipt is what became of everything that was read from a partition, over
// all lives and reset generations.
type PartReceipt struct {
	Part uint32
	Tally
	// Filed lie in the failure queue, Kept wait in the state for an attempt.
	Filed, Kept int64
}

// Unaccounted is how many emissions are missing in the receipt (or, below 0,
// how many are too many). It is 0, or something was lost.
func (r *PartReceipt) Unaccounted() int64 {
	return r.Read + r.Split - r.Delivered - r.DroppedAll() - r.Known - r.Flying - r.Filed - r.Kept
}

func (a *account) receipt(part uint32) PartReceipt {
	r := PartReceipt{Part: part, Filed: a.filed, Kept: a.kept}
	r.add(&a.base)
	r.add(&a.life)
	return r
}

// RetryKey names a kept entry of a flow. They are ordered by partition, offset
// and path.
type RetryKey struct {
	Part   uint32
	Offset int64
	Path   record.Path
}

// RetryMark is what a lane must know of a kept entry when it is opened.
type RetryMark struct {
	Offset int64
	Path   record.Path
	// Stage, Generation, Hold, At and Requeues are those of the entry.
	Stage      string
	Generation uint32
	Hold       uint64
	At         int64
	Requeues   uint32
}

// Kept is a kept entry as a listing shows it.
type Kept struct {
	Part uint32
	// Entry's Due is when it may be tried; 0: it is parked behind an earlier
	// one of its Hold.
	Entry *record.Retry
}

// RetryCursor is a place in a partition's entries by due time. The zero value
// is the beginning.
type RetryCursor struct {
	Due    int64
	Offset int64
	Path   record.Path
}

// RequeueStats say what of a failure queue may go back to retry by itself.
type RequeueStats struct {
	// Waiting entries went back fewer times than is allowed; Spent did not, or
	// their inputs were too large to keep.
	Waiting, Spent uint64
	// Oldest is the time of the oldest waiting one, Unix milliseconds; 0: none.
	Oldest int64
}
