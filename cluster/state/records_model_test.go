package state

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/runtime/record"
)

// recordsModel drives the records of a flow as lanes do, against a dumb twin of
// what the state makes of it. Record o of a partition becomes two emissions if
// o%4 is 3, and has the key o%3, 0 being none.
type recordsModel struct {
	t       *rapid.T
	s       *Store
	entries []LogEntry
	flow    FlowID
	now     int64

	generation uint32
	life       uint64
	lanes      []*modelLane
	kept       map[RetryKey]uint32 // reset generation
	filed      map[RetryKey]uint32
	exported   []ImportEntry
}

// modelLane is one life of a partition's lane.
type modelLane struct {
	part   uint32
	epoch  uint64
	life   uint64
	next   int64
	tally  Tally
	known  map[record.EmissionKey]bool
	flying map[record.EmissionKey]bool
	// underWay are kept entries that are attempted.
	underWay map[record.EmissionKey]*modelAttempt
	// What the next Commit carries.
	keeps []CommitRetry
	fails []CommitFailure
	gone  []CommitGone
	again int64 // of keeps, those that take the place of what they come from
	// carried is what Commits have carried whose answers came, lost the last
	// one if its answer did not: it is proposed again with the next.
	carried EntryCount
	grown   int64
	lost    *Commit
}

// modelAttempt is an attempt at a kept entry that became several emissions.
type modelAttempt struct {
	entry *record.Retry
	// pending emissions; of some the outcome is known and waits for the rest.
	pending, left int
	keeps         []CommitRetry
	fails         []CommitFailure
}

func TestRecordsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &recordsModel{t: t, s: openMem(t), now: 1000, kept: map[RetryKey]uint32{}, filed: map[RetryKey]uint32{}}
		defer m.s.Close()
		m.flow = m.apply(&FlowPut{Project: "p", Name: "f", UID: 1, Slots: 2}).Value.(*FlowPutResult).Flow
		m.apply(&PartitionsAdd{Flow: m.flow, Partitions: []PartitionKey{{Kind: "kafka", Topic: "t"}, {Kind: "kafka", Topic: "t", Source: 1}}})
		m.apply(&NodeUp{Node: nodeA, Incarnation: 1})
		m.lanes = []*modelLane{{part: 0}, {part: 1}}
		m.assign()
		for _, l := range m.lanes {
			m.open(l)
		}
		lane := func(f func(t *rapid.T, l *modelLane)) func(*rapid.T) {
			return func(t *rapid.T) {
				m.t = t
				f(t, m.lanes[rapid.IntRange(0, 1).Draw(t, "lane")])
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"work":   lane(m.work),
			"work 2": lane(m.work),
			"work 3": lane(m.work),
			"crash":  lane(func(_ *rapid.T, l *modelLane) { m.open(l) }),
			"queue":  func(t *rapid.T) { m.t = t; m.queue(t) },
			"expire": func(t *rapid.T) { m.t = t; m.expire(t) },
			"import": func(t *rapid.T) { m.t = t; m.importOne() },
			"reset":  func(t *rapid.T) { m.t = t; m.reset(t) },
			"":       func(t *rapid.T) { m.t = t; m.check(t) },
		})
		m.replay(t)
	})
}

func (m *recordsModel) apply(c Command) Result {
	m.now += 10
	c.Stamp(m.now)
	e := entriesOf(m.t, uint64(len(m.entries)+1), c)
	m.entries = append(m.entries, e...)
	res, err := m.s.Apply(e)
	if err != nil || res[0].Err != nil {
		m.t.Fatal(err, res[0].Err)
	}
	return res[0]
}

// assign gives all slots to nodeA, with new epochs.
func (m *recordsModel) assign() {
	free, own := &Assign{}, &Assign{}
	for k := range uint16(2) {
		free.Slots = append(free.Slots, SlotAssignment{Flow: m.flow, Slot: k})
		own.Slots = append(own.Slots, SlotAssignment{m.flow, k, nodeA, 1})
	}
	m.apply(free)
	m.apply(own)
	slots, err := m.s.Slots(m.flow)
	if err != nil {
		m.t.Fatal(err)
	}
	for k, l := range m.lanes {
		l.epoch = slots[k].Epoch
	}
}

// open begins a new life of a lane with what the state knows.
func (m *recordsModel) open(l *modelLane) {
	m.life++
	*l = modelLane{part: l.part, epoch: l.epoch, life: m.life, known: map[record.EmissionKey]bool{}, flying: map[record.EmissionKey]bool{}, underWay: map[record.EmissionKey]*modelAttempt{}}
	l.next = m.low(l.part)
	filed, err := m.s.FailedSince(m.flow, l.part, l.next)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, f := range filed {
		l.known[record.EmissionKey{Offset: f.Offset, Path: f.Path}] = f.Generation == m.generation
	}
	if err := m.s.RetryIndex(m.flow, l.part, func(r RetryMark) bool {
		if r.Generation == m.generation && r.Offset >= l.next {
			l.known[record.EmissionKey{Offset: r.Offset, Path: r.Path}] = true
		}
		return true
	}); err != nil {
		m.t.Fatal(err)
	}
}

// work is a while of a lane's life, with a Commit at its end or without.
func (m *recordsModel) work(t *rapid.T, l *modelLane) {
	for range rapid.IntRange(0, 6).Draw(t, "records") {
		m.read(t, l)
	}
	for range rapid.IntRange(0, 8).Draw(t, "outcomes") {
		m.settle(t, l)
	}
	for range rapid.IntRange(0, 4).Draw(t, "attempts") {
		m.attempt(t, l)
		m.child(t, l)
	}
	if rapid.IntRange(0, 3).Draw(t, "commit") > 0 {
		m.commit(t, l)
	}
}

// low is the committed watermark of a partition.
func (m *recordsModel) low(part uint32) int64 {
	marks, err := m.s.Watermarks(m.flow)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, w := range marks {
		if w.Part == part {
			return w.Low
		}
	}
	return 0
}

func emissionsOf(off int64) []record.Path {
	if off%4 == 3 {
		return []record.Path{"\x00\x00", "\x00\x01"}
	}
	return []record.Path{""}
}

func (m *recordsModel) read(_ *rapid.T, l *modelLane) {
	paths := emissionsOf(l.next)
	for _, p := range paths {
		if l.underWay[record.EmissionKey{Offset: l.next, Path: p}] != nil {
			return
		}
	}
	l.tally.Read++
	l.tally.Split += int64(len(paths) - 1)
	for _, p := range paths {
		k := record.EmissionKey{Offset: l.next, Path: p}
		if l.known[k] {
			l.tally.Known++
		} else {
			l.flying[k] = true
		}
	}
	l.next++
}

func (m *recordsModel) input(l *modelLane, k record.EmissionKey) record.Record {
	return record.Record{Topic: "t", Partition: int32(l.part), Offset: k.Offset, Path: k.Path, Attempt: 1, To: -1}
}

func (m *recordsModel) keepOf(l *modelLane, k record.EmissionKey, generation uint32) CommitRetry {
	e := &record.Retry{Stage: "push", Input: m.input(l, k), Generation: generation, At: m.now, Hold: uint64(k.Offset % 3)}
	if rapid.Bool().Draw(m.t, "timed") {
		e.Due = m.now + rapid.Int64Range(-50, 500).Draw(m.t, "due")
	}
	e.Group = rapid.SampledFrom([]string{"", "", "", "g1", "g2"}).Draw(m.t, "group")
	return CommitRetry{Flow: m.flow, Part: l.part, Entry: e}
}

func (m *recordsModel) failureOf(l *modelLane, k record.EmissionKey, generation uint32) CommitFailure {
	return CommitFailure{m.flow, l.part, &record.Entry{Stage: "push", Class: record.Rejected, Attempts: 1, Generation: generation, Input: m.input(l, k)}}
}

func emissionOrder(a, b record.EmissionKey) int {
	if a.Offset != b.Offset {
		return int(a.Offset - b.Offset)
	}
	return slices.Compare([]byte(a.Path), []byte(b.Path))
}

func (m *recordsModel) settle(t *rapid.T, l *modelLane) {
	if len(l.flying) == 0 {
		return
	}
	k := rapid.SampledFrom(slices.SortedFunc(maps.Keys(l.flying), emissionOrder)).Draw(t, "emission")
	delete(l.flying, k)
	switch rapid.IntRange(0, 4).Draw(t, "outcome") {
	case 0:
		l.tally.Delivered++
	case 1:
		l.tally.drop(rapid.SampledFrom([]string{"1-filter", "otherwise"}).Draw(t, "reason"), 1)
	case 2:
		l.fails = append(l.fails, m.failureOf(l, k, m.generation))
	default:
		l.keeps = append(l.keeps, m.keepOf(l, k, m.generation))
	}
}

// attempt takes an entry that is due, and settles it or makes more of it.
func (m *recordsModel) attempt(t *rapid.T, l *modelLane) {
	due, _, _, err := m.s.RetryDue(m.flow, l.part, 1<<40, RetryCursor{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	due = slices.DeleteFunc(due, func(e *record.Retry) bool {
		k := e.Input.EmissionKey()
		return l.underWay[k] != nil || l.flying[k]
	})
	if len(due) == 0 {
		return
	}
	e := rapid.SampledFrom(due).Draw(t, "entry")
	k := e.Input.EmissionKey()
	a := &modelAttempt{entry: e, pending: 1, left: 1}
	l.underWay[k] = a
	switch rapid.IntRange(0, 3).Draw(t, "outcome") {
	case 0:
		m.finish(l, a, k)
	case 1:
		l.keeps = append(l.keeps, m.keepOf(l, k, e.Generation))
		l.again++
		a.pending, a.left = 0, 0
	default:
		if len(k.Path) <= 8 {
			a.pending, a.left = 3, 3
			l.tally.Split += 2
		}
	}
}

// child settles one emission that came of an entry.
func (m *recordsModel) child(t *rapid.T, l *modelLane) {
	keys := slices.SortedFunc(maps.Keys(l.underWay), emissionOrder)
	keys = slices.DeleteFunc(keys, func(k record.EmissionKey) bool { return l.underWay[k].left == 0 })
	if len(keys) == 0 {
		return
	}
	k := rapid.SampledFrom(keys).Draw(t, "entry")
	a := l.underWay[k]
	child := k
	if a.pending > 1 || len(a.keeps)+len(a.fails) > 0 || a.left > 1 {
		child.Path += record.Path([]byte{0, byte(a.left)})
	}
	m.finish(l, a, child)
}

// finish settles an emission of an attempt, and the attempt with its last one.
func (m *recordsModel) finish(l *modelLane, a *modelAttempt, k record.EmissionKey) {
	a.left--
	own := a.entry.Input.EmissionKey()
	switch rapid.IntRange(0, 3).Draw(m.t, "how") {
	case 0:
		l.tally.Delivered++
		a.pending--
	case 1:
		l.tally.drop("2-map", 1)
		a.pending--
	case 2:
		a.fails = append(a.fails, m.failureOf(l, k, a.entry.Generation))
	case 3:
		if k == own {
			l.tally.Delivered++
			a.pending--
		} else {
			a.keeps = append(a.keeps, m.keepOf(l, k, a.entry.Generation))
		}
	}
	m.finished(l, a)
}

// finished gives what an attempt left behind to the next Commit, all at once.
func (m *recordsModel) finished(l *modelLane, a *modelAttempt) {
	if a.left == 0 {
		a.pending = 0
		l.keeps, l.fails = append(l.keeps, a.keeps...), append(l.fails, a.fails...)
		own := a.entry.Input
		l.gone = append(l.gone, CommitGone{m.flow, l.part, own.Offset, own.Path})
	}
}

func (m *recordsModel) commit(t *rapid.T, l *modelLane) {
	low := l.next
	for k := range l.flying {
		low = min(low, k.Offset)
	}
	tally := l.tally
	tally.Flying = int64(len(l.flying))
	for k, a := range l.underWay {
		if a.pending > 0 {
			tally.Flying += int64(a.pending - 1)
		}
		if a.left == 0 {
			delete(l.underWay, k)
		}
	}
	c := &Commit{Node: nodeA, Incarnation: 1, Items: []CommitItem{{Flow: m.flow, Slot: uint16(l.part), Epoch: l.epoch, Part: l.part, Low: low, Generation: m.generation, Deploy: 1, Life: l.life, Tally: tally}},
		Failures: l.fails, Keeps: l.keeps, Gone: l.gone}
	l.grown += int64(len(l.fails)+len(l.keeps)-len(l.gone)) - l.again
	c.Items[0].Counted, c.Items[0].Carried, c.Items[0].Grown = true, l.carried, l.grown
	l.fails, l.keeps, l.gone, l.again = nil, nil, nil, 0
	anew := *c
	if l.lost != nil {
		c.Failures, c.Keeps, c.Gone = slices.Concat(l.lost.Failures, c.Failures), slices.Concat(l.lost.Keeps, c.Keeps), slices.Concat(l.lost.Gone, c.Gone)
	}
	if l.lost = c; rapid.IntRange(0, 3).Draw(t, "answer") > 0 {
		l.lost = nil
		l.carried.Failures += uint64(len(c.Failures))
		l.carried.Keeps += uint64(len(c.Keeps))
		l.carried.Gone += uint64(len(c.Gone))
	}
	if r := m.apply(c).Value.(*CommitResult); len(r.Refused) > 0 {
		t.Fatalf("refused: %+v", r.Refused)
	}
	for _, f := range anew.Failures {
		k := RetryKey{f.Part, f.Entry.Input.Offset, f.Entry.Input.Path}
		delete(m.kept, k)
		if gen, ok := m.filed[k]; !ok || gen < f.Entry.Generation {
			m.filed[k] = f.Entry.Generation
		}
	}
	for _, g := range anew.Gone {
		delete(m.kept, RetryKey{g.Part, g.Offset, g.Path})
	}
	for _, e := range anew.Keeps {
		k := RetryKey{e.Part, e.Entry.Input.Offset, e.Entry.Input.Path}
		filed, isFiled := m.filed[k]
		kept, isKept := m.kept[k]
		if !(isKept && kept > e.Entry.Generation || !isKept && isFiled && filed > e.Entry.Generation) {
			m.kept[k] = e.Entry.Generation
			if !isKept && isFiled && filed == e.Entry.Generation {
				delete(m.filed, k)
			}
		}
	}
	if rapid.Bool().Draw(t, "again") {
		before := m.s.Hash()
		if m.apply(c); m.s.Hash() != before {
			t.Fatalf("commit %+v again changes the state", c)
		}
	}
}

// free reports whether an emission is nobody's business just now.
func (m *recordsModel) free(k RetryKey) bool {
	l, e := m.lanes[k.Part], record.EmissionKey{Offset: k.Offset, Path: k.Path}
	pending := slices.ContainsFunc(l.keeps, func(c CommitRetry) bool { return c.Entry.Input.EmissionKey() == e }) ||
		slices.ContainsFunc(l.fails, func(c CommitFailure) bool { return c.Entry.Input.EmissionKey() == e })
	return !l.flying[e] && l.underWay[e] == nil && !pending
}

func (m *recordsModel) queue(t *rapid.T) {
	entries, err := m.s.Failures(m.flow, 0, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) == 0 {
		return
	}
	e := rapid.SampledFrom(entries).Draw(t, "failure")
	k := RetryKey{uint32(e.Input.Partition), e.Input.Offset, e.Input.Path}
	if rapid.Bool().Draw(t, "drop") {
		m.apply(&QueueOp{Flow: m.flow, Action: QueueDrop, Seqs: []uint64{e.Seq, 1 << 40}})
		delete(m.filed, k)
		m.exported = append(m.exported, ImportEntry{k.Part, e})
		return
	}
	_, waits := m.kept[k]
	if !waits && !m.free(k) {
		return
	}
	r := m.apply(&QueueOp{Flow: m.flow, Action: QueueReplay, Seqs: []uint64{e.Seq}, Holds: []uint64{uint64(k.Offset % 3)}}).Value.(*QueueOpResult)
	unread := e.Generation != m.generation && k.Offset >= m.low(k.Part)
	newer := false
	for _, all := range []map[RetryKey]uint32{m.kept, m.filed} {
		for o, gen := range all {
			newer = newer || o.Part == k.Part && o.Offset == k.Offset && gen > e.Generation
		}
	}
	if (waits || unread || newer) != (len(r.Skipped) == 1) {
		t.Fatalf("replay of %+v while it waits %t, is unread %t, has newer ones %t: %+v", k, waits, unread, newer, r)
	}
	if r.Done == 1 {
		delete(m.filed, k)
		m.kept[k] = e.Generation
	}
}

func (m *recordsModel) expire(t *rapid.T) {
	keep := rapid.Uint64Range(1, 8).Draw(t, "keep")
	before, err := m.s.Failures(m.flow, 0, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	m.apply(&QueueExpire{Flow: m.flow, KeepEntries: keep})
	for _, e := range before[:max(0, len(before)-int(keep))] {
		delete(m.filed, RetryKey{uint32(e.Input.Partition), e.Input.Offset, e.Input.Path})
	}
}

func (m *recordsModel) importOne() {
	if len(m.exported) == 0 {
		return
	}
	e := m.exported[0]
	k := RetryKey{e.Part, e.Entry.Input.Offset, e.Entry.Input.Path}
	if !m.free(k) {
		return
	}
	m.exported = m.exported[1:]
	if r := m.apply(&QueueImport{Flow: m.flow, Entries: []ImportEntry{e}}).Value.(*QueueOpResult); r.Done == 1 {
		m.filed[k] = e.Entry.Generation
	}
}

func (m *recordsModel) reset(t *rapid.T) {
	c := &OffsetReset{Flow: m.flow, IfGeneration: m.generation}
	for part := range uint32(2) {
		if rapid.Bool().Draw(t, "named") {
			c.Positions = append(c.Positions, Position{part, rapid.Int64Range(0, m.lanes[part].next+3).Draw(t, "offset")})
		}
	}
	m.apply(&FlowState{Flow: m.flow, State: Paused})
	m.apply(c)
	m.generation++
	maps.DeleteFunc(m.kept, func(k RetryKey, _ uint32) bool { return k.Offset >= m.low(k.Part) })
	m.apply(&FlowState{Flow: m.flow, State: Running})
	m.assign()
	for _, l := range m.lanes {
		m.open(l)
	}
}

func (m *recordsModel) check(t *rapid.T) {
	receipts, err := m.s.Receipt(m.flow)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range receipts {
		if r.Unaccounted() != 0 {
			t.Fatalf("%d unaccounted for in %+v", r.Unaccounted(), r)
		}
	}
	if err := checkRetryKeys(m.s, m.flow); err != nil {
		t.Fatal(err)
	}
	kept := map[RetryKey]uint32{}
	all, err := m.s.Retries(m.flow, nil, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range all {
		kept[RetryKey{k.Part, k.Entry.Input.Offset, k.Entry.Input.Path}] = k.Entry.Generation
	}
	if !maps.Equal(kept, m.kept) {
		t.Fatalf("kept %v, want %v", kept, m.kept)
	}
	filed := map[RetryKey]uint32{}
	failures, err := m.s.Failures(m.flow, 0, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range failures {
		filed[RetryKey{uint32(e.Input.Partition), e.Input.Offset, e.Input.Path}] = e.Generation
	}
	if !maps.Equal(filed, m.filed) {
		t.Fatalf("filed %v, want %v", filed, m.filed)
	}
	if kept, computed, err := m.s.VerifyHash(); err != nil || kept != computed {
		t.Fatalf("hash %x, recomputed %x, %v", kept, computed, err)
	}
}

// replay gives all commands to another replica, split into batches otherwise.
func (m *recordsModel) replay(t *rapid.T) {
	s := openMem(t)
	defer s.Close()
	for rest := m.entries; len(rest) > 0; {
		n := rapid.IntRange(1, len(rest)).Draw(t, "batch")
		if _, err := s.Apply(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if s.Hash() != m.s.Hash() {
		t.Fatal(fmt.Sprintf("the replicas' hashes differ: %x, %x", s.Hash(), m.s.Hash()))
	}
}
