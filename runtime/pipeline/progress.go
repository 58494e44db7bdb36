package pipeline

import (
	"maps"

	"github.com/cespare/xxhash/v2"

	"github.com/millrace-io/millrace/runtime/ledger"
	"github.com/millrace-io/millrace/runtime/record"
)

// Ownership is what the cluster knows a lane by. The pipeline passes it
// through.
type Ownership struct {
	Slot, Part uint32
	Epoch      uint64
}

// HeldEntry is a kept entry that later records of its key wait behind.
type HeldEntry struct {
	Key record.EmissionKey
	// Delivery is the id of the delivery that it is kept for.
	Delivery string
	Hold     uint64
}

// LaneConfig opens a lane.
type LaneConfig struct {
	Partition record.Partition
	Ownership Ownership
	// Life tells this opening of the lane from every other; it is passed
	// through to Progress, whose Tally begins at zero with it.
	Life uint64
	// Low is where to begin; Ranges above it are settled already.
	Low    int64
	Ranges []ledger.Range
	// Known are the emissions at or above Low that are filed or kept, of this
	// reset generation: they are not delivered again when their record is read
	// again.
	Known []record.EmissionKey
	// Held are the kept entries with a Hold, wherever their offset lies:
	// deliveries begin with them, and are told when one is gone.
	Held []HeldEntry
	// MayRepeat is how many records from Low on an earlier owner may have
	// processed; they are marked as redelivered.
	MayRepeat int
}

// Tally is what became of the emissions of a lane since it was opened. It adds
// up with what the progress up to here has filed and kept:
//
//	Read + Split = Delivered + all of Dropped + Known + Flying + filed + kept
//
// where filed and kept are by how much the entries of the partition have grown.
type Tally struct {
	// Read counts source records taken in, Split the emissions beyond the
	// first of a record, Delivered those that a sink has acknowledged.
	Read, Split, Delivered int64
	// Known counts emissions that were not delivered again, because they were
	// filed or kept when the lane was opened.
	Known int64
	// Flying is how many emissions are under way or wait for a commit. A kept
	// entry under way counts for one less, because it is still kept.
	Flying int64
	// Dropped by the id of the stage that dropped them, or one of the reasons
	// below.
	Dropped map[string]int64
}

// Reasons in Tally.Dropped beside the ids of stages.
const (
	// DroppedOtherwise: given up by a stage with `otherwise: drop`.
	DroppedOtherwise = "otherwise"
	// DroppedAside: given to the topic of `otherwise`.
	DroppedAside = "aside"
)

// Progress is what became of a partition since its last commit. It is to be
// committed as one: entries, tally and watermark together, or nothing.
type Progress struct {
	Partition record.Partition
	Ownership Ownership
	Life      uint64
	Low       int64
	Ranges    []ledger.Range
	// Failures are to be filed. Keeps are to be kept, or to replace what is
	// kept of the same emission. Gone are kept entries that are done with;
	// those that are filed in the same progress are among them.
	Failures []*record.Entry
	Keeps    []*record.Retry
	Gone     []record.EmissionKey
	Tally    Tally
	// Carried is how much the committed progress of this life had before, in the
	// same order each time; after a failed commit what was in it comes again,
	// at the beginning. Grown is by how much the life's entries grow with this
	// one: its failures and fresh Keeps, less what is gone.
	Carried    Carried
	Grown      int64
	Generation uint32 // of the Set that the lane works with
	// Bytes is about the size of Failures, Keeps and Gone.
	Bytes int

	lane    *lane
	parcels []parcel
}

// Carried counts entries of progress.
type Carried struct{ Failures, Keeps, Gone uint64 }

// goneSize is about what the name of an entry takes in a commit.
const goneSize = 48

// parcel is what is committed together whatever else is: the entry of one
// emission, or all that came of a kept entry.
type parcel struct {
	failures []*record.Entry
	keeps    []*record.Retry
	gone     []record.EmissionKey
	forget   []heldRef // who is told once it is durable
	flight   bool      // of a kept entry, which is kept until then
	bytes    int
}

// heldRef is a kept entry as its outlet counts it.
type heldRef struct {
	delivery int
	hold     uint64
}

func (p *parcel) file(e *record.Entry) {
	p.failures = append(p.failures, e)
	p.bytes += entrySize(e)
}

func (p *parcel) keep(r *record.Retry) {
	p.keeps = append(p.keeps, r)
	p.bytes += r.Size()
}

func (p *parcel) drop(k record.EmissionKey) {
	p.gone = append(p.gone, k)
	p.bytes += goneSize
}

// shrink leaves out exchanges, calls and, if need be, logs and all else that an entry
// can do without.
func (p *parcel) shrink() {
	for _, less := range []func(e *record.Entry){
		func(e *record.Entry) { e.Exchange = nil },
		func(e *record.Entry) { e.Call = nil },
		func(e *record.Entry) {
			if e.Replay != nil && len(e.Replay.Logs) > 0 {
				r := *e.Replay
				r.Logs = nil
				e.Replay = &r
			}
		},
	} {
		for _, e := range p.failures {
			if p.bytes <= maxParcel {
				return
			}
			p.bytes -= entrySize(e)
			less(e)
			p.bytes += entrySize(e)
		}
	}
	for _, e := range p.failures {
		if n := entrySize(e); n > maxEntry {
			e.InputHash, e.InputOmitted, e.Input.Value = xxhash.Sum64(e.Input.Value), true, nil
			p.bytes += entrySize(e) - n
		}
	}
}

// split takes the first entries off, as many as may be committed as one. The
// kept entry that they come from is gone with the last ones only.
func (p *parcel) split() (first parcel) {
	for len(p.failures) > 0 && len(p.failures)+len(p.keeps) > 1 {
		n := entrySize(p.failures[0])
		if first.bytes > 0 && first.bytes+n > maxParcel {
			return first
		}
		first.failures, p.failures = append(first.failures, p.failures[0]), p.failures[1:]
		first.bytes, p.bytes = first.bytes+n, p.bytes-n
	}
	for len(p.keeps) > 1 {
		n := p.keeps[0].Size()
		if first.bytes > 0 && first.bytes+n > maxParcel {
			return first
		}
		first.keeps, p.keeps = append(first.keeps, p.keeps[0]), p.keeps[1:]
		first.bytes, p.bytes = first.bytes+n, p.bytes-n
	}
	return first
}

// balance is by how much its commit makes the entries grow.
func (p *parcel) balance() int64 {
	n := int64(len(p.failures) + len(p.keeps))
	if p.flight {
		n--
	}
	return n
}

const (
	// maxParcel is how many bytes of entries are committed as one: half of what
	// a command may have, since entries are counted roughly.
	maxParcel = 16 << 20
	// maxEntry is above which size an entry is filed without its input.
	maxEntry = 24 << 20
)

// enqueue leaves a parcel for the next progress; mu is held. One that is too
// large loses what is said of its entries, and comes in several parts if that
// is not enough: what came of a kept entry is named by the emission, so it may be
// durable before the entry is gone.
func (l *lane) enqueue(p parcel) {
	if p.bytes > maxParcel {
		p.shrink()
	}
	for p.bytes > maxParcel && len(p.failures)+len(p.keeps) > 1 {
		l.push(p.split())
	}
	l.push(p)
}

func (l *lane) push(p parcel) {
	l.queue = append(l.queue, p)
	l.queueB += p.bytes
	l.queued++
	l.dirty = true
}

// urgent reports whether a commit should not wait; mu is held.
func (l *lane) urgent() bool { return l.queueB >= urgeBytes }

// progress collects what is to be committed, unless a commit is under way. When
// there are more entries than one commit takes, the watermark stays until the
// last of them.
func (l *lane) progress() (Progress, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.dirty || l.lent || l.fenced {
		return Progress{}, false
	}
	p := Progress{Partition: l.cfg.Partition, Ownership: l.cfg.Ownership, Life: l.cfg.Life, Generation: l.generation.Load(), lane: l}
	n := 0
	for n < len(l.queue) && (n == 0 || p.Bytes+l.queue[n].bytes <= maxProgress) {
		it := &l.queue[n]
		p.Bytes += it.bytes
		p.Failures, p.Keeps, p.Gone = append(p.Failures, it.failures...), append(p.Keeps, it.keeps...), append(p.Gone, it.gone...)
		n++
	}
	p.parcels, l.queue = l.queue[:n:n], l.queue[n:]
	l.dirty, l.lent = len(l.queue) > 0, true
	if l.dirty {
		p.Low, p.Ranges = l.low, l.ranges
	} else {
		p.Low, p.Ranges = l.win.ledger.Low(), l.win.ledger.Ranges(nil)
	}
	p.Tally = l.count()
	p.Carried, p.Grown = l.carried, l.grown
	for i := range p.parcels {
		p.Grown += p.parcels[i].balance()
	}
	return p, true
}

// count is the tally as it is once all but what is queued is committed; mu is
// held.
func (l *lane) count() Tally {
	t := l.tally
	t.Dropped = maps.Clone(t.Dropped)
	t.Flying = l.win.outstanding()
	for _, f := range l.flights {
		t.Flying += int64(f.pending) + f.parcel.balance()
	}
	for i := range l.queue {
		t.Flying += l.queue[i].balance()
	}
	return t
}

// ack takes back what progress lent.
func (l *lane) ack(p Progress, err error) {
	l.mu.Lock()
	l.lent = false
	// A commit whose answer was lost may have been applied; what comes next has
	// all its parcels, so its watermark holds in any case.
	l.low, l.ranges = p.Low, p.Ranges
	if err != nil {
		l.dirty = true
		l.queue = append(p.parcels, l.queue...)
	} else {
		l.queueB -= p.Bytes
		l.durable += uint64(len(p.parcels))
		l.carried.Failures += uint64(len(p.Failures))
		l.carried.Keeps += uint64(len(p.Keeps))
		l.carried.Gone += uint64(len(p.Gone))
		l.grown = p.Grown
		for _, k := range p.Keeps {
			delete(l.busy, k.Input.EmissionKey())
			l.gather(k.Group, -1)
		}
		for _, k := range p.Gone {
			delete(l.busy, k)
		}
	}
	urge := err == nil && len(l.queue) > 0
	fenced := l.fenced
	l.mu.Unlock()
	if err == nil && !fenced {
		for i := range p.parcels {
			for _, h := range p.parcels[i].forget {
				l.outlets[h.delivery].Forget(h.hold)
			}
		}
		l.inform()
	}
	l.kick()
	if urge {
		l.flow.cfg.Urge()
	}
	if e := record.AsError(err); e != nil && e.Class == record.Fenced {
		l.fence()
	}
}

// clean reports whether there is no progress to collect or on its way.
func (l *lane) clean() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fenced || !l.dirty && !l.lent
}

// notice is what a source is to be told, once so many parcels are durable.
type notice struct {
	offset int64
	what   record.Settlement
	after  uint64
}

// inform tells the source what is safe. mu is not held.
func (l *lane) inform() {
	if l.acker == nil {
		return
	}
	l.mu.Lock()
	var safe []notice
	if !l.fenced {
		waiting := l.notices[:0]
		for _, n := range l.notices {
			if n.after <= l.durable {
				safe = append(safe, n)
			} else {
				waiting = append(waiting, n)
			}
		}
		l.notices = waiting
	}
	l.mu.Unlock()
	for _, n := range safe {
		l.acker.Settled(l.cfg.Partition, n.offset, n.what)
	}
}
