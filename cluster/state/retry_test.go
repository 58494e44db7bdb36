package state

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/google/uuid"

	"github.com/millrace-io/millrace/runtime/record"
)

// keepAt is an entry of partition 0 for tests of reads.
func keepAt(flow FlowID, off int64, hold uint64, due int64) CommitRetry {
	return CommitRetry{Flow: flow, Entry: &record.Retry{Stage: "push", Due: due, At: 900 + off, Hold: hold, Requeues: uint32(off % 2), Generation: 0,
		Input: record.Record{Topic: "t", Offset: off, Value: []byte("v"), Attempt: 1, To: -1}}}
}

func (f *fixture) keep(flow FlowID, at int64, keeps ...CommitRetry) {
	f.Helper()
	r := accept[*CommitResult](f, &Commit{Node: nodeA, Incarnation: 1, At: at, Items: []CommitItem{{Flow: flow, Epoch: 1, Low: 0, Tally: Tally{Read: int64(len(keeps))}}}, Keeps: keeps})
	if len(r.Refused) > 0 {
		f.Fatalf("refused: %+v", r.Refused)
	}
}

func offsets(entries []*record.Retry) (offs []int64) {
	for _, e := range entries {
		offs = append(offs, e.Input.Offset)
	}
	return offs
}

func TestRetryDue(t *testing.T) {
	f := newFixture(t)
	flow := f.running("a").Flow
	f.keep(flow, 1000, keepAt(flow, 0, 1, 5000), keepAt(flow, 1, 1, 0), keepAt(flow, 2, 0, 3000), keepAt(flow, 3, 0, 0), keepAt(flow, 4, 2, 3000), keepAt(flow, 5, 3, 7000))
	due := func(now int64, after RetryCursor, limit int, want []int64, wantNext int64) RetryCursor {
		t.Helper()
		got, last, next, err := f.s.RetryDue(flow, 0, now, after, limit)
		if err != nil || !slices.Equal(offsets(got), want) || next != wantNext {
			t.Errorf("due at %d after %+v: %v, next %d, %v; want %v, next %d", now, after, offsets(got), next, err, want, wantNext)
		}
		return last
	}
	due(999, RetryCursor{}, 0, nil, 1000)
	due(3000, RetryCursor{}, 0, []int64{3, 2, 4}, 5000)
	due(9000, RetryCursor{}, 0, []int64{3, 2, 4, 0, 5}, 0)
	last := due(9000, RetryCursor{}, 2, []int64{3, 2}, 3000)
	if last = due(9000, last, 2, []int64{4, 0}, 7000); last != (RetryCursor{5000, 0, ""}) {
		t.Errorf("cursor %+v", last)
	}
	last = due(6000, last, 2, nil, 7000)
	last = due(9000, last, 2, []int64{5}, 0)
	if end := due(9000, last, 2, nil, 0); end != last {
		t.Errorf("cursor at the end: %+v, was %+v", end, last)
	}
	if got, _, next, err := f.s.RetryDue(flow, 1, 9000, RetryCursor{}, 0); got != nil || next != 0 || err != nil {
		t.Errorf("another partition: %v, %d, %v", got, next, err)
	}
}

func TestRetryReads(t *testing.T) {
	f := newFixture(t)
	flow := f.running("a").Flow
	f.keep(flow, 1000, keepAt(flow, 0, 1, 5000), keepAt(flow, 1, 1, 0), keepAt(flow, 2, 0, 0))
	var marks []RetryMark
	if err := f.s.RetryIndex(flow, 0, func(m RetryMark) bool { marks = append(marks, m); return true }); err != nil {
		t.Fatal(err)
	}
	want := []RetryMark{{0, "", "push", 0, 1, 900, 0}, {1, "", "push", 0, 1, 901, 1}, {2, "", "push", 0, 0, 902, 0}}
	if !slices.Equal(marks, want) {
		t.Errorf("index %+v, want %+v", marks, want)
	}
	for limit, want := range map[int]int{1: 0, 2: 1, 100: 1} {
		if held, err := f.s.RetriesHeld(flow, 0, limit); held != want || err != nil {
			t.Errorf("of %d entries %d are parked, %v; want %d", limit, held, err, want)
		}
	}
	page, err := f.s.Retries(flow, &RetryKey{Part: 0, Offset: 0}, 1, nil)
	if err != nil || len(page) != 1 || page[0].Entry.Input.Offset != 1 || page[0].Entry.Due != 0 || page[0].Part != 0 {
		t.Errorf("page %+v, %v", page, err)
	}
	some, err := f.s.Retries(flow, nil, 0, func(e *record.Retry) bool { return e.Hold == 0 })
	if err != nil || len(some) != 1 || some[0].Entry.Due != 1000 {
		t.Errorf("filtered %+v, %v", some, err)
	}
	if e, err := f.s.Retry(flow, RetryKey{0, 1, ""}); err != nil || e.Due != 0 || e.At != 901 || string(e.Input.Value) != "v" {
		t.Errorf("one: %+v, %v", e, err)
	}
	if e, err := f.s.Retry(flow, RetryKey{1, 1, ""}); e != nil || err != nil {
		t.Errorf("one that is not there: %+v, %v", e, err)
	}
}

// TestUnparkBounds lets a long Hold go: so many at once, and no batch is cut.
func TestUnparkBounds(t *testing.T) {
	f := newFixture(t)
	flow := f.running("a").Flow
	var keeps []CommitRetry
	for off := range int64(100) {
		k := keepAt(flow, off, 1, 0)
		if off >= 63 && off < 70 {
			k.Entry.Group = "batch"
		}
		keeps = append(keeps, k)
	}
	f.keep(flow, 1000, keeps...)
	gone := func(from, to int64, want int) {
		t.Helper()
		c := &Commit{Node: nodeA, Incarnation: 1, At: 2000, Items: []CommitItem{{Flow: flow, Epoch: 1, Low: 0, Tally: Tally{Read: 100, Delivered: to}}}}
		for off := from; off < to; off++ {
			c.Gone = append(c.Gone, CommitGone{flow, 0, off, ""})
		}
		accept[*CommitResult](f, c)
		due, _, _, err := f.s.RetryDue(flow, 0, 3000, RetryCursor{}, 0)
		if err != nil || len(due) != want || want > 0 && due[0].Input.Offset != to {
			t.Errorf("after %d are gone %d are due from %v, want %d, %v", to, len(due), offsets(due), want, err)
		}
		if err := checkRetryKeys(f.s, flow); err != nil {
			t.Error(err)
		}
	}
	if due, _, _, err := f.s.RetryDue(flow, 0, 3000, RetryCursor{}, 0); err != nil || len(due) != 1 {
		t.Errorf("%d are due at first, %v", len(due), err)
	}
	gone(0, 1, 69)   // 1 to 64 and the rest of the batch
	gone(1, 69, 1)   // the last of the batch is still due
	gone(69, 70, 30) // the rest
	gone(70, 100, 0)
}

func TestUnparkWithoutBatches(t *testing.T) {
	f := newFixture(t)
	flow := f.running("a").Flow
	var keeps []CommitRetry
	for off := range int64(100) {
		keeps = append(keeps, keepAt(flow, off, 1, 0))
	}
	f.keep(flow, 1000, keeps...)
	accept[*CommitResult](f, &Commit{Node: nodeA, Incarnation: 1, At: 2000, Items: []CommitItem{{Flow: flow, Epoch: 1, Tally: Tally{Read: 100, Delivered: 1}}}, Gone: []CommitGone{{flow, 0, 0, ""}}})
	if due, _, _, err := f.s.RetryDue(flow, 0, 3000, RetryCursor{}, 0); err != nil || len(due) != UnparkAtOnce {
		t.Errorf("%d are due, want %d, %v", len(due), UnparkAtOnce, err)
	}
}

// TestDeleteWithKept refuses to lose what waits, and leaves nothing of it.
func TestDeleteWithKept(t *testing.T) {
	f := newFixture(t)
	empty := f.s.Hash()
	other := f.running("other").Flow
	f.keep(other, 1000, keepAt(other, 0, 1, 5000), keepAt(other, 1, 1, 0))
	flow := f.running("a").Flow
	before := f.s.Hash()
	f.keep(flow, 1000, keepAt(flow, 0, 1, 5000), keepAt(flow, 1, 1, 0), keepAt(flow, 2, 0, 0))
	f.refused(&FlowDelete{Flow: flow}, QueueNotEmpty, "holds 0 entries and 3 records wait for another attempt; delete with --purge")
	accept[*CommitResult](f, &Commit{Node: nodeA, Incarnation: 1, At: 1000, Items: []CommitItem{{Flow: flow, Epoch: 1, Tally: Tally{Read: 4}}}, Failures: []CommitFailure{failure(flow, 0, 3)}})
	f.refused(&FlowDelete{Flow: flow}, QueueNotEmpty, "holds 1 entries and 3 records wait")
	accept[any](f, &FlowDelete{Flow: flow, Purge: true})
	accept[any](f, &FlowDelete{Flow: other, Purge: true})
	if f.s.Hash() == before || f.s.Hash() == empty {
		t.Fatal("the flows are still there, or never were")
	}
	for _, kind := range []byte{keyRetry, keyRetryDue, keyRetryOrder, keyWatermark, keyFailure} {
		n, err := list(f.s, []byte{kind}, func(k, _ []byte) (string, error) { return DescribeKey(k) })
		if err != nil || len(n) > 0 {
			t.Errorf("left behind: %v, %v", n, err)
		}
	}
}

func TestRequeueStats(t *testing.T) {
	f := newFixture(t)
	flow := f.running("a").Flow
	c := &Commit{Node: nodeA, Incarnation: 1, Items: []CommitItem{{Flow: flow, Epoch: 1}}}
	for off := range int64(5) {
		e := failure(flow, 0, off)
		e.Entry.Requeues, e.Entry.Time = uint32(off), 100-off
		e.Entry.InputOmitted = off == 1
		c.Failures = append(c.Failures, e)
	}
	accept[*CommitResult](f, c)
	if st, err := f.s.RequeueStats(flow, 3); err != nil || st != (RequeueStats{Waiting: 2, Spent: 3, Oldest: 98}) {
		t.Errorf("%+v, %v", st, err)
	}
}

func TestExpireIsBounded(t *testing.T) {
	f := newFixture(t)
	flow := f.running("a").Flow
	c := &Commit{Node: nodeA, Incarnation: 1, Items: []CommitItem{{Flow: flow, Epoch: 1, Tally: Tally{Read: MaxExpire + 5}}}}
	for off := range int64(MaxExpire + 5) {
		c.Failures = append(c.Failures, failure(flow, 0, off))
	}
	accept[*CommitResult](f, c)
	r := accept[*QueueOpResult](f, &QueueExpire{Flow: flow, Before: 10})
	if r.Done != MaxExpire || !r.More || r.Queue.Entries != 5 {
		t.Errorf("first: %+v", r)
	}
	if r = accept[*QueueOpResult](f, &QueueExpire{Flow: flow, Before: 10}); r.Done != 5 || r.More || r.Queue.Entries != 0 || r.Queue.Bytes != 0 {
		t.Errorf("second: %+v", r)
	}
	f.refused(&QueueExpire{Flow: 99}, NotFound, "flow 99")
	f.refused(&QueueOp{Flow: flow, Action: 9}, Invalid, "action 9")
}

// Large entries: no command reads more than MaxExpireBytes and one entry.
func TestExpireIsBoundedInBytes(t *testing.T) {
	f := newFixture(t)
	flow := f.running("a").Flow
	large := make([]byte, 1<<20)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(large)
	c := &Commit{Node: nodeA, Incarnation: 1, Items: []CommitItem{{Flow: flow, Epoch: 1, Tally: Tally{Read: 20}}}}
	for off := range int64(10) {
		e := failure(flow, 0, off)
		e.Entry.Input.Value = large
		k := &record.Retry{Stage: "push", Input: record.Record{Topic: "t", Offset: 10 + off, Value: large, Attempt: 1, To: -1}, Hold: 1}
		c.Failures, c.Keeps = append(c.Failures, e), append(c.Keeps, CommitRetry{Flow: flow, Entry: k})
	}
	accept[*CommitResult](f, c)
	const most = MaxExpireBytes>>20 + 1
	if r := accept[*QueueOpResult](f, &QueueExpire{Flow: flow, KeepEntries: 1}); r.Done > most || !r.More || r.Queue.Entries != 10-uint64(r.Done) {
		t.Errorf("expired %+v", r)
	}
	accept[*Flow](f, &FlowState{Flow: flow, State: Paused})
	for _, want := range []bool{true, false} {
		r := accept[*QueueOpResult](f, &QueuePurge{Flow: flow})
		if r.More != want || r.Queue.Entries != 0 || (r.Queue.Kept > 0) != want || r.Queue.Kept > 0 && r.Queue.Kept < 10-most {
			t.Errorf("purged %+v, more to come %t", r, want)
		}
		receipts, err := f.s.Receipt(flow)
		if err != nil || receipts[0].Unaccounted() != 0 || receipts[0].Kept != int64(r.Queue.Kept) {
			t.Errorf("receipt %+v, %v", receipts, err)
		}
		if err := checkRetryKeys(f.s, flow); err != nil {
			t.Error(err)
		}
	}
	f.refused(&QueuePurge{Flow: 99}, NotFound, "flow 99")
}

// A purge takes MaxExpire entries at a time.
func TestPurgeIsBounded(t *testing.T) {
	f := newFixture(t)
	flow := f.running("a").Flow
	c := &Commit{Node: nodeA, Incarnation: 1, Items: []CommitItem{{Flow: flow, Epoch: 1, Tally: Tally{Read: MaxExpire + 5}}}}
	for off := range int64(MaxExpire + 5) {
		if off%2 == 0 {
			c.Failures = append(c.Failures, failure(flow, 0, off))
		} else {
			c.Keeps = append(c.Keeps, CommitRetry{Flow: flow, Entry: &record.Retry{Stage: "push", Input: record.Record{Topic: "t", Offset: off, Attempt: 1, To: -1}, Hold: 1}})
		}
	}
	accept[*CommitResult](f, c)
	accept[*Flow](f, &FlowState{Flow: flow, State: Paused})
	if r := accept[*QueueOpResult](f, &QueuePurge{Flow: flow}); r.Done != MaxExpire || !r.More || r.Queue.Entries != 0 || r.Queue.Kept != 5 {
		t.Errorf("first: %+v", r)
	}
	if err := checkRetryKeys(f.s, flow); err != nil {
		t.Error(err)
	}
	if r := accept[*QueueOpResult](f, &QueuePurge{Flow: flow}); r.Done != 5 || r.More || r.Queue.Kept != 0 || r.Queue.KeptBytes != 0 {
		t.Errorf("second: %+v", r)
	}
}

func TestOffsetReset(t *testing.T) {
	f := newFixture(t)
	flow := f.running("a").Flow
	accept[*CommitResult](f, &Commit{Node: nodeA, Incarnation: 1, Items: []CommitItem{
		{Flow: flow, Epoch: 1, Part: 0, Low: 10, Ranges: []Range{{12, 14}}, Tally: Tally{Read: 12, Delivered: 12}},
		{Flow: flow, Epoch: 1, Part: 1, Low: 20, Ranges: []Range{{22, 24}}, Tally: Tally{Read: 23, Delivered: 20, Flying: 3}}}, Failures: []CommitFailure{failure(flow, 0, 12), failure(flow, 1, 3)}})
	reset := &OffsetReset{Flow: flow, Positions: []Position{{1, 5}}}
	f.refused(reset, NotPaused, "flowctl flow pause default/a")
	accept[*Flow](f, &FlowState{Flow: flow, State: AutoPaused, Reason: "r"})
	for _, bad := range [][]Position{{{2, 0}}, {{1, -1}}, {{1, 0}, {1, 0}}} {
		f.refused(&OffsetReset{Flow: flow, Positions: bad}, Invalid, "offset")
	}
	if fl := accept[*Flow](f, reset); fl.Generation != 1 {
		t.Errorf("flow %+v", fl)
	}
	f.refused(reset, GenerationMismatch, "reset generation 1, not 0")
	marks, err := f.s.Watermarks(flow)
	if err != nil || len(marks) != 2 || marks[0].Low != 10 || len(marks[0].Ranges) != 1 || marks[0].Generation != 1 || marks[1].Low != 5 || marks[1].Ranges != nil || marks[1].Generation != 1 {
		t.Errorf("watermarks %+v, %v", marks, err)
	}
	slots, err := f.s.Slots(flow)
	if err != nil || slots[0].Owner != uuid.Nil || slots[0].Epoch != 2 {
		t.Errorf("slots %+v, %v", slots, err)
	}
	failed, err := f.s.FailedSince(flow, 1, 0)
	if err != nil || len(failed) != 1 || failed[0].Generation != 0 {
		t.Errorf("failed %+v, %v", failed, err)
	}
	accept[*AssignResult](f, &Assign{Slots: []SlotAssignment{{flow, 0, nodeA, 1}}})
	r := accept[*CommitResult](f, &Commit{Node: nodeA, Incarnation: 1, Items: []CommitItem{{Flow: flow, Epoch: 3, Part: 1, Low: 6, Generation: 1, Tally: Tally{Read: 1, Delivered: 1}}}})
	if len(r.Refused) > 0 {
		t.Errorf("after the reset: %+v", r)
	}
	receipts, err := f.s.Receipt(flow)
	if err != nil || receipts[1].Read != 21 || receipts[1].Delivered != 21 || receipts[1].Flying != 0 {
		t.Errorf("receipts %+v, %v", receipts, err)
	}
}

func TestCommitNeedsItems(t *testing.T) {
	f := newFixture(t)
	flow := f.running("a").Flow
	item := CommitItem{Flow: flow, Epoch: 1, Part: 1}
	f.refused(&Commit{Node: nodeA, Incarnation: 1, Items: []CommitItem{item}, Keeps: []CommitRetry{keepAt(flow, 0, 0, 0)}}, Invalid, "a kept entry of partition 0")
	f.refused(&Commit{Node: nodeA, Incarnation: 1, Items: []CommitItem{item}, Gone: []CommitGone{{flow, 0, 0, ""}}}, Invalid, "an entry that is done of partition 0")
}

// TestFolderOfFirstVersion opens what the first release left behind: a flow
// with two partitions, five failures in one and one in the other.
func TestFolderOfFirstVersion(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "v1"))); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{T: t, s: s, index: s.AppliedIndex()}
	defer func() {
		if err := f.s.Close(); err != nil {
			t.Error(err)
		}
	}()
	if s.AppliedIndex() != 6 || s.Hash() != 0x671d442b82ca2aec {
		t.Fatalf("at %d with hash %x", s.AppliedIndex(), s.Hash())
	}
	if fl, err := s.FlowByID(1); err != nil || !fl.Looked || fl.First != fl.Parts || fl.Parts != 2 {
		t.Fatalf("flow %+v, %v, want that all of its partitions were the first", fl, err)
	}
	receipts := func(want ...PartReceipt) {
		t.Helper()
		got, err := f.s.Receipt(1)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("receipts %+v, %v; want %+v", got, err, want)
		}
		for _, r := range got {
			if r.Unaccounted() != 0 {
				t.Errorf("unaccounted for: %d in %+v", r.Unaccounted(), r)
			}
		}
		if kept, computed, err := f.s.VerifyHash(); err != nil || kept != computed {
			t.Errorf("hash %x, recomputed %x, %v", kept, computed, err)
		}
	}
	receipts(PartReceipt{Part: 0, Tally: Tally{Read: 5}, Filed: 5}, PartReceipt{Part: 1, Tally: Tally{Read: 1}, Filed: 1})

	// A Commit of the first form is still in the log.
	old := &Commit{Node: nodeA, Incarnation: 1, Items: []CommitItem{{Flow: 1, Epoch: 1, Part: 0, Low: 36, Deploy: 1}}, Failures: []CommitFailure{failure(1, 0, 4), failure(1, 0, 35)}}
	f.index++
	res, err := f.s.Apply([]LogEntry{{Index: f.index, Term: 1, Command: firstForm(old)}})
	if err != nil || res[0].Value.(*CommitResult).Filed != 1 {
		t.Fatalf("%+v, %v", res, err)
	}
	receipts(PartReceipt{Part: 0, Tally: Tally{Read: 6}, Filed: 6}, PartReceipt{Part: 1, Tally: Tally{Read: 1}, Filed: 1})

	accept[any](f, &NodeUp{Node: nodeA, Incarnation: 2})
	accept[*AssignResult](f, &Assign{Slots: []SlotAssignment{{1, 0, nodeA, 2}}})
	r := accept[*CommitResult](f, &Commit{Node: nodeA, Incarnation: 2, At: 1000,
		Items:    []CommitItem{{Flow: 1, Epoch: 2, Part: 0, Low: 40, Life: 1, Tally: Tally{Read: 4, Delivered: 2}}, {Flow: 1, Epoch: 2, Part: 1, Low: 8, Life: 2, Tally: Tally{Read: 1}}},
		Failures: []CommitFailure{failure(1, 1, 7)}, Keeps: []CommitRetry{keepAt(1, 38, 1, 2000), keepAt(1, 39, 1, 0)}})
	if len(r.Refused) > 0 || r.Queues[0].Entries != 8 || r.Queues[0].Kept != 2 {
		t.Errorf("commit: %+v", r)
	}
	if r := accept[*QueueOpResult](f, &QueueOp{Flow: 1, Action: QueueDrop, Seqs: []uint64{1}}); r.Done != 1 {
		t.Errorf("drop: %+v", r)
	}
	receipts(PartReceipt{Part: 0, Tally: Tally{Read: 10, Delivered: 2, Dropped: []DropCount{{DroppedQueue, 1}}}, Filed: 5, Kept: 2}, PartReceipt{Part: 1, Tally: Tally{Read: 2}, Filed: 2})
	if failed, err := f.s.FailedSince(1, 1, 0); err != nil || fmt.Sprint(failed) != fmt.Sprint([]FailureKey{{1, 6, "", 6, 0}, {1, 7, "", 8, 0}}) {
		t.Errorf("failed: %v, %v", failed, err)
	}
}

// firstForm writes a Commit as the first release did.
func firstForm(c *Commit) []byte {
	b := append([]byte{byte(KindCommit), 1}, c.Node[:]...)
	b = putUint(putUint(b, c.Incarnation), uint64(len(c.Items)))
	for _, it := range c.Items {
		b = putUint(putUint(putUint(b, uint64(it.Flow)), uint64(it.Slot)), it.Epoch)
		b = putRanges(putInt(putUint(b, uint64(it.Part)), it.Low), it.Low, it.Ranges)
		b = putBool(putUint(putUint(b, uint64(it.Generation)), uint64(it.Deploy)), it.Release)
	}
	b = putUint(b, uint64(len(c.Failures)))
	for _, f := range c.Failures {
		b = putBytes(putUint(putUint(b, uint64(f.Flow)), uint64(f.Part)), EncodeEntry(f.Entry))
	}
	return append(b, 0, 0)
}
