package state

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/millrace-io/millrace/runtime/record"
)

// countedLane proposes Commits of one lane of partition 0 as a pipeline does.
type countedLane struct {
	f       *fixture
	flow    FlowID
	tally   Tally
	carried EntryCount
	grown   int64
}

// commit proposes entries n times; grown is by how much they grow the partition's.
func (l *countedLane) commit(n int, grown int64, fails []CommitFailure, keeps []CommitRetry, gone ...CommitGone) *CommitResult {
	l.f.T.Helper()
	var res *CommitResult
	l.grown += grown
	for range n {
		res = accept[*CommitResult](l.f, &Commit{Node: nodeA, Incarnation: 1, At: 2000, Failures: fails, Keeps: keeps, Gone: gone,
			Items: []CommitItem{{Flow: l.flow, Epoch: 1, Low: 50, Life: 1, Tally: l.tally, Counted: true, Carried: l.carried, Grown: l.grown}}})
	}
	l.carried.Failures += uint64(len(fails))
	l.carried.Keeps += uint64(len(keeps))
	l.carried.Gone += uint64(len(gone))
	return res
}

// adds checks the receipt.
func (l *countedLane) adds(filed, kept, replaced int64) {
	l.f.T.Helper()
	ps, err := l.f.s.Receipt(l.flow)
	if err != nil || len(ps) != 1 || ps[0].Unaccounted() != 0 || ps[0].Filed != filed || ps[0].Kept != kept || ps[0].dropped(DroppedReplaced) != replaced {
		l.f.T.Errorf("receipt %+v, %v; want %d filed, %d kept, %d replaced, none unaccounted for", ps, err, filed, kept, replaced)
	}
	if a, b, err := l.f.s.VerifyHash(); err != nil || a != b {
		l.f.T.Errorf("hash %x, recomputed %x, %v", a, b, err)
	}
}

func newCountedLane(t *testing.T) *countedLane {
	f := newFixture(t)
	return &countedLane{f: f, flow: f.running("a").Flow}
}

func child(off int64, n byte) record.Record {
	return record.Record{Topic: "t", Offset: off, Path: record.Path([]byte{0, n}), Value: []byte("v"), Attempt: 1, To: -1}
}

func (l *countedLane) fail(in record.Record, message string) CommitFailure {
	return CommitFailure{l.flow, 0, &record.Entry{Flow: "default/a", Stage: "push", Class: record.Rejected, Message: message, Attempts: 1, Time: 5, Input: in}}
}

func (l *countedLane) retry(in record.Record, attempts uint32) CommitRetry {
	return CommitRetry{Flow: l.flow, Entry: &record.Retry{Stage: "push", Input: in, Attempts: attempts, At: 900}}
}

// TestEmissionIsMadeAgain: a record that runs again from where it had failed
// makes emissions that are filed or kept already, or are under way.
func TestEmissionIsMadeAgain(t *testing.T) {
	type step func(l *countedLane, in record.Record) // what becomes of the second one
	file := func(l *countedLane, in record.Record) {
		l.commit(2, 1, []CommitFailure{l.fail(in, "again")}, nil)
	}
	keep := func(l *countedLane, in record.Record) { l.commit(2, 1, nil, []CommitRetry{l.retry(in, 7)}) }
	equal := func(l *countedLane, in record.Record) {
		l.commit(2, 1, []CommitFailure{l.fail(in, "first")}, nil)
	}
	for _, c := range []struct {
		name        string
		kept        bool // the first one, otherwise it is filed
		second      step
		filed, wait int64
	}{
		{"filed, filed", false, file, 1, 0},
		{"filed, filed the same", false, equal, 1, 0},
		{"filed, kept", false, keep, 0, 1},
		{"kept, kept", true, keep, 0, 1},
		{"kept, filed", true, file, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newCountedLane(t)
			in := child(3, 0)
			l.tally = Tally{Read: 1}
			if c.kept {
				l.commit(2, 1, nil, []CommitRetry{l.retry(in, 1)})
			} else {
				l.commit(2, 1, []CommitFailure{l.fail(in, "first")}, nil)
			}
			l.adds(1-wait(c.kept), wait(c.kept), 0)
			l.tally.Split = 1
			c.second(l, in)
			l.adds(c.filed, c.wait, 1)
			if !c.kept || c.wait == 0 {
				return
			}
			// The first one was under way, and is delivered now.
			l.tally.Delivered = 1
			l.commit(2, -1, nil, nil, CommitGone{l.flow, 0, in.Offset, in.Path})
			l.adds(0, 0, 1)
		})
	}

	t.Run("the entry that gave way was under way", func(t *testing.T) {
		l := newCountedLane(t)
		in := child(3, 0)
		l.tally = Tally{Read: 1}
		l.commit(1, 1, nil, []CommitRetry{l.retry(in, 1)})
		l.tally.Split = 1
		l.commit(2, 1, []CommitFailure{l.fail(in, "again")}, nil)
		l.adds(1, 0, 1)
		l.tally.Delivered = 1
		l.commit(2, -1, nil, nil, CommitGone{l.flow, 0, in.Offset, in.Path})
		l.adds(1, 0, 0)
	})
	t.Run("kept again", func(t *testing.T) {
		l := newCountedLane(t)
		in := child(3, 0)
		l.tally = Tally{Read: 1}
		l.commit(1, 1, nil, []CommitRetry{l.retry(in, 1)})
		l.commit(2, 0, nil, []CommitRetry{l.retry(in, 2)})
		l.adds(0, 1, 0)
		l.commit(2, 0, []CommitFailure{l.fail(in, "no")}, nil, CommitGone{l.flow, 0, in.Offset, in.Path})
		l.adds(1, 0, 0)
	})
	t.Run("twice in one Commit", func(t *testing.T) {
		l := newCountedLane(t)
		in := child(3, 0)
		l.tally = Tally{Read: 1, Split: 2}
		l.commit(3, 3, []CommitFailure{l.fail(in, "one"), l.fail(in, "two")}, []CommitRetry{l.retry(in, 1)})
		l.adds(0, 1, 2)
	})
}

func wait(kept bool) int64 {
	if kept {
		return 1
	}
	return 0
}

// TestRepeatedCommitKeepsOutOfWhatPeopleDo: what a Commit filed was dropped, or
// sent back to retry, before its answer got lost and it was proposed again, with
// more behind it.
func TestRepeatedCommitKeepsOutOfWhatPeopleDo(t *testing.T) {
	for _, action := range []QueueAction{QueueDrop, QueueReplay} {
		t.Run(fmt.Sprint(action), func(t *testing.T) {
			l := newCountedLane(t)
			first, second := l.fail(child(3, 0), "no"), l.fail(child(4, 0), "no")
			l.tally = Tally{Read: 1}
			l.commit(1, 1, []CommitFailure{first}, nil)
			op := &QueueOp{Flow: l.flow, Action: action, Seqs: []uint64{1}, At: 2001}
			if action == QueueReplay {
				op.Holds = []uint64{0}
			}
			if r := accept[*QueueOpResult](l.f, op); r.Done != 1 {
				t.Fatalf("queue op: %+v", r)
			}
			l.carried, l.grown, l.tally = EntryCount{}, 0, Tally{Read: 2}
			if r := l.commit(2, 2, []CommitFailure{first, second}, nil); r.Filed != 0 || len(r.Refused) != 0 {
				t.Errorf("the second time: %+v", r)
			}
			l.adds(1, wait(action == QueueReplay), 0)
			var left []int64
			es, err := l.f.s.Failures(l.flow, 0, 0, nil)
			for _, e := range es {
				left = append(left, e.Input.Offset)
			}
			if err != nil || !slices.Equal(left, []int64{4}) {
				t.Errorf("in the queue: %v, %v", left, err)
			}
			// A delayed one, from before the second entry.
			l.carried, l.grown = EntryCount{}, 0
			if r := l.commit(1, 1, []CommitFailure{first}, nil); len(r.Refused) != 1 || r.Refused[0].Reason != Behind {
				t.Errorf("a delayed Commit: %+v", r)
			}
		})
	}
}

// TestWatermarkOfVersion2: it had a receipt, and counted no entries.
func TestWatermarkOfVersion2(t *testing.T) {
	want := Watermark{Part: 3, Low: 100, Generation: 1, Deploy: 5, account: account{base: someTally(), life: Tally{Read: 5, Flying: 5}, epoch: 9, number: 11, filed: 3, kept: 2}}
	b := want.append(nil)
	b = b[:len(b)-4] // three counts and by how much they grew, all 0
	b[0] = 2
	got, err := decodeWatermark(3, b)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}
