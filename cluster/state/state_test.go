package state

import (
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/millrace-io/millrace/runtime/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type fixture struct {
	*testing.T
	s     *Store
	index uint64
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{T: t, s: openMem(t)}
	t.Cleanup(func() {
		if kept, computed, err := f.s.VerifyHash(); err != nil || kept != computed {
			t.Errorf("hash %x, recomputed %x, %v", kept, computed, err)
		}
		if err := f.s.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *fixture) apply(c Command) Result {
	f.Helper()
	f.index++
	res, err := f.s.Apply(entriesOf(f.T, f.index, c))
	if err != nil {
		f.Fatal(err)
	}
	return res[0]
}

// accept applies a command that must not be refused.
func accept[T any](f *fixture, c Command) T {
	f.Helper()
	res := f.apply(c)
	if res.Err != nil {
		f.Fatalf("%s was refused: %v", c.Kind(), res.Err)
	}
	v, _ := res.Value.(T)
	return v
}

func (f *fixture) refused(c Command, code RefusalCode, words string) {
	f.Helper()
	before := f.s.Hash()
	err := f.apply(c).Err
	if !errors.Is(err, code) || !strings.Contains(err.Error(), words) {
		f.Errorf("%s: got %v, want %v with %q", c.Kind(), err, code, words)
	}
	if f.s.Hash() != before {
		f.Errorf("%s: a refused command changed the state", c.Kind())
	}
}

func (f *fixture) plugin(d Digest, version string) {
	accept[*Plugin](f, &PluginPut{Digest: d, Namespace: "default", Name: "orders", Version: version, Size: 10, ABI: "stage/1", Mode: "call", At: 1})
}

// running makes a flow of one slot and two partitions that nodeA owns.
func (f *fixture) running(name string) *FlowPutResult {
	put := accept[*FlowPutResult](f, &FlowPut{Project: "default", Name: name, UID: 1, Document: []byte(name), At: 1})
	accept[[]Partition](f, &PartitionsAdd{put.Flow, []PartitionKey{{Kind: "kafka", Topic: "t"}, {Kind: "kafka", Topic: "t", Source: 1}}, 1})
	accept[any](f, &NodeUp{Node: nodeA, Incarnation: 1})
	accept[*AssignResult](f, &Assign{Slots: []SlotAssignment{{put.Flow, 0, nodeA, 1}}})
	return put
}

func failure(flow FlowID, part uint32, off int64) CommitFailure {
	return CommitFailure{flow, part, &record.Entry{Flow: "default/a", Stage: "1", Class: record.Rejected, Message: "no", Attempts: 1,
		Input: record.Record{Topic: "t", Partition: int32(part), Offset: off, Value: []byte(strings.Repeat("v", 300)), Attempt: 1}}}
}

func TestFlowRevisions(t *testing.T) {
	f := newFixture(t)
	f.plugin(digestA, "1.0.0")
	f.plugin(digestB, "1.1.0")
	put := &FlowPut{Project: "default", Name: "orders", UID: 42, Document: []byte("one"), Pins: []Pin{{"1-map", digestA, "1.0.0"}}, Connections: []string{"main"}, Slots: 4, At: 100}
	r := accept[*FlowPutResult](f, put)
	if *r != (FlowPutResult{Flow: 1, UID: 42, Revision: 1, Deploy: 1, Created: true}) {
		t.Fatalf("first put: %+v", r)
	}
	put.UID, put.Slots = 43, 0
	if r := accept[*FlowPutResult](f, put); *r != (FlowPutResult{Flow: 1, UID: 42, Revision: 1, Deploy: 1, Unchanged: true}) {
		t.Errorf("the same again: %+v", r)
	}
	put.Document, put.IfMatch = []byte("two"), 1
	if r := accept[*FlowPutResult](f, put); r.Revision != 2 || r.Deploy != 2 || r.UID != 42 {
		t.Errorf("second document: %+v", r)
	}
	f.refused(put, RevisionMismatch, "has revision 2, not 1")
	put.IfMatch, put.Slots = 0, 5
	f.refused(put, Invalid, "has 4 slots, not 5")
	put.Slots, put.Pins = 0, []Pin{{"1-map", digestC, "9"}}
	f.refused(put, NotFound, digestC.String())
	f.refused(&FlowPut{Project: "default", Name: "a/b", At: 1}, Invalid, "without a slash")
	f.refused(&FlowPut{Project: "default", Name: "big", Slots: MaxSlots, At: 1}, TooMany, "4096")

	if r := accept[*FlowPutResult](f, &Activate{Flow: 1, Pins: []Pin{{"1-map", digestB, "1.1.0"}}, At: 200}); r.Revision != 3 || r.Deploy != 3 {
		t.Errorf("activation: %+v", r)
	}
	if r := accept[*FlowPutResult](f, &Activate{Flow: 1, Pins: []Pin{{"1-map", digestB, "1.1.0"}}, At: 201}); !r.Unchanged || r.Deploy != 3 {
		t.Errorf("the same activation: %+v", r)
	}
	f.refused(&Activate{Flow: 1, Pins: []Pin{{"7-map", digestB, "1.1.0"}}, At: 200}, NotFound, `no stage "7-map"`)
	f.refused(&Activate{Flow: 9, At: 200}, NotFound, "flow 9")

	revs, err := f.s.Revisions(1)
	if err != nil || len(revs) != 3 || string(revs[0].Document) != "one" || string(revs[2].Document) != "two" || revs[2].Pins[0].Digest != digestB || revs[1].Pins[0].Digest != digestA {
		t.Errorf("revisions %+v, %v", revs, err)
	}
	deps, err := f.s.Deployments(1)
	if err != nil || len(deps) != 3 || deps[2].Revision != 3 || deps[2].Pins[0].Digest != digestB {
		t.Errorf("deployments %+v, %v", deps, err)
	}
	flow, err := f.s.Flow("default", "orders")
	if err != nil || flow.Revision != 3 || flow.Slots != 4 || flow.UpdatedAt != 200 || flow.FullName() != "default/orders" {
		t.Errorf("flow %+v, %v", flow, err)
	}
	if flow, err := f.s.Flow("default", "nope"); flow != nil || err != nil {
		t.Errorf("an unknown flow: %v, %v", flow, err)
	}
}

func TestRequestsAreRemembered(t *testing.T) {
	f := newFixture(t)
	put := &FlowPut{Project: "p", Name: "a", UID: 1, Document: []byte("1"), At: 1000, RequestID: "r"}
	accept[*FlowPutResult](f, put)
	accept[*FlowPutResult](f, &FlowPut{Project: "p", Name: "a", Document: []byte("2"), At: 1001})
	put.At = 1000 + dedupeMillis
	if r := accept[*FlowPutResult](f, put); r.Revision != 1 || !r.Created {
		t.Errorf("a repeated request within its time: %+v", r)
	}
	f.refused(&Activate{Flow: 1, RequestID: "r", At: 1002}, Invalid, "was used for a FlowPut")
	put.At++
	if r := accept[*FlowPutResult](f, put); r.Revision != 3 {
		t.Errorf("a repeated request after its time: %+v", r)
	}
}

func TestFlowStates(t *testing.T) {
	f := newFixture(t)
	put := f.running("a")
	set := func(s RunState, reason string, want RunState, wantReason string) {
		t.Helper()
		if fl := accept[*Flow](f, &FlowState{Flow: put.Flow, State: s, Reason: reason, At: 5}); fl.State != want || fl.Reason != wantReason {
			t.Errorf("set %s: %s (%s), want %s (%s)", s, fl.State, fl.Reason, want, wantReason)
		}
	}
	set(AutoPaused, "queue full", AutoPaused, "queue full")
	set(Paused, "asked", Paused, "asked")
	set(AutoPaused, "queue full", Paused, "asked")
	set(Running, "", Running, "")
	f.refused(&FlowState{Flow: put.Flow, State: 9, At: 1}, Invalid, "no state")

	// What was said of a state that is over changes nothing, also if the next
	// one began in the same millisecond.
	own := accept[*Flow](f, &FlowState{Flow: put.Flow, State: Paused, Reason: "own", At: 6})
	was := own.InState()
	accept[*Flow](f, &FlowState{Flow: put.Flow, State: Paused, Reason: "asked", At: 6})
	f.refused(&FlowState{Flow: put.Flow, State: Running, At: 6, If: was}, StateMismatch, "changed meanwhile, it is paused now")
	set(Paused, "own", Paused, "own")
	f.refused(&FlowState{Flow: put.Flow, State: Running, At: 6, If: was}, StateMismatch, "changed meanwhile")
	now := &InState{Paused, "own", 5}
	if fl := accept[*Flow](f, &FlowState{Flow: put.Flow, State: Running, At: 7, If: now}); fl.State != Running {
		t.Errorf("from %+v: %s", now, fl.State)
	}
}

// A FlowState of the first form, without a condition, is still in the log.
func TestFlowStatesOfTheFirstForm(t *testing.T) {
	b, err := hex.DecodeString("06010702117468652071756575652069732066756c6c0c")
	if err != nil {
		t.Fatal(err)
	}
	want := &FlowState{Flow: 7, State: AutoPaused, Reason: "the queue is full", At: 6}
	if got, err := DecodeCommand(b); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestPartitionsAreNeverRenumbered(t *testing.T) {
	f := newFixture(t)
	put := accept[*FlowPutResult](f, &FlowPut{Project: "p", Name: "a", Slots: 2, Document: []byte("x"), At: 1})
	key := func(topic byte, n int32) PartitionKey {
		return PartitionKey{Kind: "kafka", Connection: "main", Topic: "t", TopicID: [16]byte{topic}, Source: n}
	}
	numbers := func(keys ...PartitionKey) (n []uint32) {
		for _, p := range accept[[]Partition](f, &PartitionsAdd{put.Flow, keys, 1}) {
			if p.Slot != uint16(p.Part%2) {
				t.Errorf("partition %d is in slot %d", p.Part, p.Slot)
			}
			n = append(n, p.Part)
		}
		return n
	}
	if n := numbers(key(1, 0), key(1, 1), key(1, 0)); !slices.Equal(n, []uint32{0, 1, 0}) {
		t.Errorf("numbers %v", n)
	}
	if n := numbers(key(2, 0), key(1, 1), key(1, 2)); !slices.Equal(n, []uint32{2, 1, 3}) {
		t.Errorf("numbers %v", n)
	}
	parts, err := f.s.Partitions(put.Flow)
	if err != nil || len(parts) != 4 || parts[2].PartitionKey != key(2, 0) {
		t.Errorf("partitions %+v, %v", parts, err)
	}
}

func TestFlowDelete(t *testing.T) {
	f := newFixture(t)
	other := f.running("other")
	accept[*CommitResult](f, &Commit{Node: nodeA, Incarnation: 1, Items: []CommitItem{{Flow: other.Flow, Epoch: 1, Part: 0, Low: 3}}, Failures: []CommitFailure{failure(other.Flow, 0, 1)}})
	put := f.running("a")
	item := CommitItem{Flow: put.Flow, Epoch: 1, Part: 0, Low: 300}
	c := &Commit{Node: nodeA, Incarnation: 1, Items: []CommitItem{item}}
	for off := range int64(300) {
		c.Failures = append(c.Failures, failure(put.Flow, 0, off))
	}
	if r := accept[*CommitResult](f, c); r.Filed != 300 || r.Queues[0].Entries != 300 || r.Queues[0].Bytes < 300*50 || r.Queues[0].Bytes > 300*200 {
		t.Fatalf("commit: %+v", r)
	}
	f.refused(&FlowDelete{put.Flow, false, 1}, QueueNotEmpty, "holds 300 entries")
	if _, err := f.s.Apply(entriesOf(t, f.index+1,
		&Commit{Node: nodeA, Incarnation: 1, Items: []CommitItem{item}, Failures: []CommitFailure{failure(put.Flow, 0, 1000)}},
		&FlowDelete{put.Flow, true, 1}, c)); err != nil {
		t.Fatal(err)
	}
	f.index += 3
	// What is left of it is the counter of flows.
	var left []string
	for p := firstHashed; p < firstLocal; p++ {
		err := f.s.view(func(r pebble.Reader) error {
			return scan(r, []byte{p}, []byte{p}, func(k, _ []byte) bool {
				s, err := DescribeKey(k)
				if err != nil {
					t.Error(err)
				}
				left = append(left, s)
				return true
			})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"node/" + nodeA.String(), `flow-name/"default"/"other"`, "flow/1", "flow/1/rev/1", "slot/1/0", "wm/1/0", "flq/1/1", "fqi/1/0/1", "dep/1/1", "par/1/0", "par/1/1", `ctr/"flow"`, `ctr/"queue/\x00\x00\x00\x01"`}
	if !slices.Equal(left, want) {
		t.Errorf("keys after the flow was deleted:\n%q\nwant\n%q", left, want)
	}
	again := f.running("a")
	if again.Flow != put.Flow+1 || !again.Created {
		t.Errorf("the same name later: %+v", again)
	}
	if r := accept[*CommitResult](f, c); len(r.Refused) != 1 || r.Refused[0].Reason != UnknownFlow || r.Filed != 0 {
		t.Errorf("a commit for the deleted flow: %+v", r)
	}
}

func TestFailuresAreFiledOnce(t *testing.T) {
	f := newFixture(t)
	put := f.running("a")
	commit := func(low int64, failures ...CommitFailure) *CommitResult {
		return accept[*CommitResult](f, &Commit{Node: nodeA, Incarnation: 1, Items: []CommitItem{{Flow: put.Flow, Epoch: 1, Part: 1, Low: low}}, Failures: failures})
	}
	commit(2, failure(put.Flow, 1, 0), failure(put.Flow, 1, 1))
	if r := commit(5, failure(put.Flow, 1, 1), failure(put.Flow, 1, 4)); r.Filed != 1 || r.Queues[0].Entries != 3 || r.Queues[0].Last != 3 {
		t.Errorf("second commit: %+v", r)
	}
	if e, err := f.s.Failure(put.Flow, 2); err != nil || e.Message != "no" || e.Seq != 2 || e.Input.Offset != 1 || len(e.Input.Value) != 300 {
		t.Errorf("the repeated entry: %+v, %v", e, err)
	}
	if e, err := f.s.Failure(put.Flow, 9); e != nil || err != nil {
		t.Errorf("an unknown entry: %+v, %v", e, err)
	}
	keys, err := f.s.FailedSince(put.Flow, 1, 1)
	if err != nil || !slices.Equal(keys, []FailureKey{{1, 1, "", 2, 0}, {1, 4, "", 3, 0}}) {
		t.Errorf("failed since 1: %v, %v", keys, err)
	}
	for off, want := range map[int64]bool{0: true, 3: false, 4: true} {
		if has, err := f.s.HasFailure(put.Flow, 1, off, ""); has != want || err != nil {
			t.Errorf("has failure at %d: %v, %v", off, has, err)
		}
	}
	page, err := f.s.Failures(put.Flow, 1, 1, nil)
	if err != nil || len(page) != 1 || page[0].Seq != 2 {
		t.Errorf("page: %v, %v", page, err)
	}
	some, err := f.s.Failures(put.Flow, 0, 0, func(e *record.Entry) bool { return e.Input.Offset != 1 })
	if err != nil || len(some) != 2 || some[1].Seq != 3 {
		t.Errorf("filtered: %v, %v", some, err)
	}
	changed := failure(put.Flow, 1, 1)
	changed.Entry.Message = "another message"
	if r := commit(5, changed); r.Filed != 1 || r.Queues[0].Entries != 3 || r.Queues[0].Last != 4 {
		t.Errorf("another entry of an emission: %+v", r)
	}
	if e, err := f.s.Failure(put.Flow, 4); err != nil || e == nil || e.Message != "another message" || e.Input.Offset != 1 {
		t.Errorf("the other entry: %+v, %v", e, err)
	}
	if e, err := f.s.Failure(put.Flow, 2); e != nil || err != nil {
		t.Errorf("the entry that gave way: %+v, %v", e, err)
	}
	ps, err := f.s.Receipt(put.Flow)
	if err != nil || len(ps) != 1 || !slices.Equal(ps[0].Dropped, []DropCount{{DroppedReplaced, 1}}) {
		t.Errorf("receipt: %+v, %v", ps, err)
	}
}

func TestCommitContradictions(t *testing.T) {
	f := newFixture(t)
	put := f.running("a")
	item := CommitItem{Flow: put.Flow, Epoch: 1, Part: 0, Low: 1}
	f.refused(&Commit{Node: nodeA, Incarnation: 1, Items: []CommitItem{item, item}}, Invalid, "named twice")
	f.refused(&Commit{Node: nodeA, Incarnation: 1, Items: []CommitItem{item}, Failures: []CommitFailure{failure(put.Flow, 1, 0)}}, Invalid, "has no item")
	accept[*CommitResult](f, &Commit{})
	item.Release = true
	accept[*CommitResult](f, &Commit{Node: nodeA, Incarnation: 1, Items: []CommitItem{item}})
	slots, err := f.s.Slots(put.Flow)
	if err != nil || slots[0].Owner != uuid.Nil || slots[0].Epoch != 1 {
		t.Errorf("a released slot: %+v, %v", slots, err)
	}
	if r := accept[*AssignResult](f, &Assign{Slots: []SlotAssignment{{put.Flow, 0, nodeA, 1}, {put.Flow, 0, nodeB, 1}, {put.Flow, 7, nodeA, 1}}}); len(r.Changed) != 1 || r.Changed[0].Epoch != 2 || r.Skipped != 2 {
		t.Errorf("assign after release: %+v", r)
	}
}

func TestConnections(t *testing.T) {
	f := newFixture(t)
	if c := accept[*Connection](f, &ConPut{"main", []byte("1"), 5}); c.Revision != 1 {
		t.Errorf("%+v", c)
	}
	if c := accept[*Connection](f, &ConPut{"main", []byte("1"), 6}); c.Revision != 1 || c.At != 5 {
		t.Errorf("the same again: %+v", c)
	}
	if c := accept[*Connection](f, &ConPut{"main", []byte("2"), 7}); c.Revision != 2 {
		t.Errorf("another document: %+v", c)
	}
	put := &FlowPut{Project: "p", Name: "a", Document: []byte("x"), Connections: []string{"main"}, At: 1}
	accept[*FlowPutResult](f, put)
	f.refused(&ConDel{"main"}, InUse, "used by flow p/a")
	f.refused(&ConDel{"nope"}, NotFound, `"nope"`)
	put.Connections = nil
	accept[*FlowPutResult](f, put)
	accept[any](f, &ConDel{"main"})
	if all, err := f.s.Connections(); len(all) != 0 || err != nil {
		t.Errorf("left: %v, %v", all, err)
	}
}

func TestPlugins(t *testing.T) {
	f := newFixture(t)
	f.plugin(digestA, "1.0.0")
	f.plugin(digestA, "1.0.0")
	f.refused(&PluginPut{Digest: digestB, Namespace: "default", Name: "orders", Version: "1.0.0"}, Exists, "give the new ones another version")
	accept[*Plugin](f, &PluginPut{Digest: digestB, Namespace: "acme", Name: "orders", Version: "1.0.0"})
	for _, v := range []string{"1.1.0-dev", "0.0.0", "0.0.0+1234abcd", "0.0.0-rc.1"} {
		f.plugin(digestB, v)
		f.plugin(digestC, v)
		if p, err := f.s.Plugin("default", "orders", v); err != nil || p.Digest != digestC {
			t.Errorf("version %s: %+v, %v", v, p, err)
		}
		f.plugin(digestB, v)
		if p, err := f.s.Plugin("default", "orders", v); err != nil || p.Digest != digestB {
			t.Errorf("version %s deployed again: %+v, %v", v, p, err)
		}
	}
	if names, err := f.s.PluginByDigest(digestB); err != nil || len(names) != 5 || names[0].Version != "0.0.0-rc.1" {
		t.Errorf("names of b: %+v, %v", names, err)
	}
	if p, err := f.s.Plugin("default", "nope", "1.0.0"); p != nil || err != nil {
		t.Errorf("an unknown plugin: %v, %v", p, err)
	}
	accept[*FlowPutResult](f, &FlowPut{Project: "p", Name: "a", Pins: []Pin{{"1", digestA, ""}}, At: 1})
	for i := range PinnedDeployments {
		f.refused(&PluginDel{digestA}, InUse, "flow p/a")
		accept[*FlowPutResult](f, &FlowPut{Project: "p", Name: "a", Document: []byte(fmt.Sprint(i)), Pins: []Pin{{"1", digestB, ""}}, At: 1})
	}
	accept[any](f, &PluginDel{digestA})
	f.refused(&PluginDel{digestA}, NotFound, "stored")
}

func TestChanged(t *testing.T) {
	f := newFixture(t)
	put := f.running("a")
	fired := func(ch <-chan struct{}) bool {
		select {
		case <-ch:
			return true
		default:
			return false
		}
	}
	ch := f.s.Changed()
	accept[*CommitResult](f, &Commit{Node: nodeA, Incarnation: 1, Items: []CommitItem{{Flow: put.Flow, Epoch: 1, Part: 0, Low: 3}}, Failures: []CommitFailure{failure(put.Flow, 0, 1)}})
	if fired(ch) {
		t.Error("progress of records counts as a change")
	}
	for _, c := range []Command{
		&FlowState{Flow: put.Flow, State: Paused, At: 1}, &ConPut{"c", nil, 1}, &NodeUp{Node: nodeA, Incarnation: 2}, &PartitionsAdd{put.Flow, []PartitionKey{{Kind: "file"}}, 1},
		&Assign{Slots: []SlotAssignment{{put.Flow, 0, nodeA, 2}}}, &PluginPut{Digest: digestA, Namespace: "n", Name: "n", Version: "1"}, &FlowDelete{put.Flow, true, 1},
	} {
		ch := f.s.Changed()
		accept[any](f, c)
		if !fired(ch) {
			t.Errorf("%s was not noticed", c.Kind())
		}
	}
}

func TestDigestText(t *testing.T) {
	if d, err := ParseDigest(digestA.String()); err != nil || d != digestA {
		t.Errorf("%v, %v", d, err)
	}
	for _, s := range []string{"", "sha256:", digestA.String()[:70], digestA.String() + "00", "md5:" + digestA.String()[7:], strings.Replace(digestA.String(), "aa", "zz", 1)} {
		if _, err := ParseDigest(s); err == nil {
			t.Errorf("%q is accepted", s)
		}
	}
}

func BenchmarkApplyCommit(b *testing.B) {
	s := openMem(b)
	defer s.Close()
	index := uint64(0)
	apply := func(c Command) Result {
		index++
		res, err := s.Apply(entriesOf(b, index, c))
		if err != nil {
			b.Fatal(err)
		}
		return res[0]
	}
	flow := apply(&FlowPut{Project: "p", Name: "a", Slots: 8}).Value.(*FlowPutResult).Flow
	add, assign := &PartitionsAdd{Flow: flow}, &Assign{}
	for i := range 8 {
		add.Partitions = append(add.Partitions, PartitionKey{Kind: "kafka", Source: int32(i)})
		assign.Slots = append(assign.Slots, SlotAssignment{flow, uint16(i), nodeA, 1})
	}
	apply(add)
	apply(&NodeUp{Node: nodeA, Incarnation: 1})
	apply(assign)
	c := &Commit{Node: nodeA, Incarnation: 1}
	for i := range 8 {
		c.Items = append(c.Items, CommitItem{Flow: flow, Slot: uint16(i), Epoch: 1, Part: uint32(i), Deploy: 1})
	}
	b.ReportAllocs()
	for b.Loop() {
		for i := range c.Items {
			c.Items[i].Low++
		}
		if res := apply(c); len(res.Value.(*CommitResult).Refused) != 0 {
			b.Fatal("refused")
		}
	}
}

// TestFailedWrites breaks the disk under the store: from then on nothing may be
// reported as written.
func TestFailedWrites(t *testing.T) {
	var broken atomic.Bool
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && strings.HasSuffix(op.Path, ".log") && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			return errorfs.ErrInjected
		}
		return nil
	}))
	s, err := Open("db", Options{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	broken.Store(true)
	for i := range 3 {
		b := s.DB().NewBatch()
		if err := b.Set([]byte{KeyLog, byte(i)}, nil, nil); err != nil {
			t.Fatal(err)
		}
		err := s.CommitBatch(b, true)
		if _, ok := errors.AsType[*FailedError](err); !ok || !errors.Is(err, errorfs.ErrInjected) {
			t.Errorf("write %d on a broken disk: %v", i, err)
		}
	}
	<-s.Failed()
	if _, err := s.Apply(entriesOf(t, 1, &ConPut{Name: "c"})); err == nil || s.AppliedIndex() != 0 {
		t.Errorf("apply on a broken disk: %v, at %d", err, s.AppliedIndex())
	}
	if err := s.SyncAll(); err == nil {
		t.Error("sync on a broken disk succeeds")
	}
}

// What a flow found first stays known, also that it was nothing.
func TestFirstPartitions(t *testing.T) {
	for _, first := range []int{0, 2} {
		f := newFixture(t)
		flow := accept[*FlowPutResult](f, &FlowPut{Project: "p", Name: "a", Document: []byte("x"), At: 1}).Flow
		keys := []PartitionKey{{Kind: "kafka", Topic: "t"}, {Kind: "kafka", Topic: "t", Source: 1}, {Kind: "kafka", Topic: "u"}}
		if fl, err := f.s.FlowByID(flow); err != nil || fl.Looked {
			t.Errorf("flow %+v, %v, has not looked yet", fl, err)
		}
		for _, n := range []int{first, first, 3, 3} {
			accept[[]Partition](f, &PartitionsAdd{flow, keys[:n], 1})
			if fl, err := f.s.FlowByID(flow); err != nil || !fl.Looked || fl.First != uint32(first) || fl.Parts != uint32(n) {
				t.Errorf("flow %+v, %v, want %d partitions and %d first ones", fl, err, n, first)
			}
		}
	}
}
