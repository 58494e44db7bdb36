package state

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/runtime/record"
)

func openMem(t interface{ Fatal(...any) }) *Store {
	s, err := Open("db", Options{FS: vfs.NewMem(), CacheBytes: 1 << 20, MemTableBytes: 256 << 10})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func entriesOf(t interface{ Fatal(...any) }, first uint64, cmds ...Command) []LogEntry {
	entries := make([]LogEntry, len(cmds))
	for i, c := range cmds {
		b, err := EncodeCommand(c)
		if err != nil {
			t.Fatal(err)
		}
		entries[i] = LogEntry{Index: first + uint64(i), Term: 1, Command: b}
	}
	return entries
}

var (
	nodeB      = uuid.MustParse("ffffffff-0000-0000-0000-000000000001")
	genNames   = rapid.SampledFrom([]string{"a", "b", "c"})
	genDigests = rapid.SampledFrom([]Digest{digestA, digestB, digestC})
	genNodes   = rapid.SampledFrom([]uuid.UUID{nodeA, nodeB})
	genFlows   = rapid.Custom(func(t *rapid.T) FlowID { return FlowID(rapid.IntRange(1, 4).Draw(t, "flow")) })
	genAt      = rapid.Int64Range(1, 3*dedupeMillis)
	genPath    = rapid.SampledFrom([]record.Path{"", "\x00\x00", "\x00\x01", "\x00\x01\x00\x02"})
)

func genPins(t *rapid.T) []Pin {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Pin {
		return Pin{rapid.SampledFrom([]string{"1", "2"}).Draw(t, "stage"), genDigests.Draw(t, "digest"), "1.0.0"}
	}), 0, 2).Draw(t, "pins")
}

func genCommand(t *rapid.T) Command {
	requestID := rapid.SampledFrom([]string{"", "", "r1", "r2"})
	switch rapid.IntRange(0, 21).Draw(t, "kind") {
	case 0:
		return &NodeUp{genNodes.Draw(t, "node"), rapid.Uint64Range(0, 4).Draw(t, "life"), "addr", "v", genAt.Draw(t, "at")}
	case 1, 2:
		return &FlowPut{Project: "p", Name: genNames.Draw(t, "name"), UID: rapid.Uint64().Draw(t, "uid"), Document: []byte(genNames.Draw(t, "doc")), Pins: genPins(t),
			Connections: []string{genNames.Draw(t, "con")}, Slots: rapid.SampledFrom([]uint16{0, 0, 1, 2, 3}).Draw(t, "slots"),
			IfMatch: rapid.SampledFrom([]uint32{0, 0, 0, 1, 2}).Draw(t, "if"), At: genAt.Draw(t, "at"), RequestID: requestID.Draw(t, "request")}
	case 3:
		return &FlowState{genFlows.Draw(t, "flow"), RunState(rapid.IntRange(0, 3).Draw(t, "state")), genNames.Draw(t, "reason"), genAt.Draw(t, "at"),
			rapid.SampledFrom([]*InState{nil, nil, {Paused, "a", 1}, {Running, "", 1}}).Draw(t, "if")}
	case 4:
		return &FlowDelete{genFlows.Draw(t, "flow"), rapid.Bool().Draw(t, "purge"), genAt.Draw(t, "at")}
	case 5:
		keys := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) PartitionKey {
			return PartitionKey{Kind: "kafka", Topic: genNames.Draw(t, "topic"), Source: rapid.Int32Range(0, 3).Draw(t, "source")}
		}), 0, 4).Draw(t, "keys")
		if len(keys) == 0 {
			keys = nil
		}
		return &PartitionsAdd{genFlows.Draw(t, "flow"), keys, genAt.Draw(t, "at")}
	case 6:
		return &ConPut{genNames.Draw(t, "name"), []byte(genNames.Draw(t, "doc")), genAt.Draw(t, "at")}
	case 7:
		return &ConDel{genNames.Draw(t, "name")}
	case 8:
		return &PluginPut{Digest: genDigests.Draw(t, "digest"), Namespace: "default", Name: genNames.Draw(t, "name"),
			Version: rapid.SampledFrom([]string{"1.0.0", "1.1.0-dev", "0.0.0+abc"}).Draw(t, "version"), Size: 5, At: genAt.Draw(t, "at")}
	case 9:
		return &PluginDel{genDigests.Draw(t, "digest")}
	case 10:
		return &Activate{genFlows.Draw(t, "flow"), genPins(t), genAt.Draw(t, "at"), requestID.Draw(t, "request"), genPreflight(t)}
	case 11:
		return &Assign{rapid.SliceOfN(rapid.Custom(func(t *rapid.T) SlotAssignment {
			return SlotAssignment{genFlows.Draw(t, "flow"), rapid.Uint16Range(0, 3).Draw(t, "slot"), rapid.SampledFrom([]uuid.UUID{nodeA, nodeB, uuid.Nil}).Draw(t, "node"), rapid.Uint64Range(0, 4).Draw(t, "life")}
		}), 1, 4).Draw(t, "slots"), genAt.Draw(t, "at")}
	case 12:
		return &QueueOp{Flow: genFlows.Draw(t, "flow"), Action: QueueAction(rapid.IntRange(0, 3).Draw(t, "action")), Seqs: rapid.SliceOfN(rapid.Uint64Range(0, 6), 1, 3).Draw(t, "seqs"),
			Holds: rapid.SliceOfN(rapid.Uint64Range(0, 2), 1, 2).Draw(t, "holds"), At: genAt.Draw(t, "at")}
	case 13:
		return &QueueExpire{genFlows.Draw(t, "flow"), rapid.Int64Range(0, 3).Draw(t, "before"), rapid.Uint64Range(0, 4).Draw(t, "entries"), 0, genAt.Draw(t, "at")}
	case 14:
		return &QueueImport{genFlows.Draw(t, "flow"), []ImportEntry{{rapid.Uint32Range(0, 3).Draw(t, "part"), genEntry(t)}}, genAt.Draw(t, "at")}
	case 15:
		return &OffsetReset{genFlows.Draw(t, "flow"), rapid.Uint32Range(0, 1).Draw(t, "if"), []Position{{rapid.Uint32Range(0, 3).Draw(t, "part"), rapid.Int64Range(0, 20).Draw(t, "offset")}}, genAt.Draw(t, "at")}
	case 16:
		return &QueuePurge{genFlows.Draw(t, "flow"), genAt.Draw(t, "at")}
	default:
		return genCommit(t)
	}
}

func genEntry(t *rapid.T) *record.Entry {
	return &record.Entry{Stage: "1", Class: record.Rejected, Attempts: 1, Generation: rapid.Uint32Range(0, 1).Draw(t, "generation"), Time: rapid.Int64Range(0, 3).Draw(t, "time"),
		Input: record.Record{Offset: rapid.Int64Range(0, 20).Draw(t, "off"), Path: genPath.Draw(t, "path"), Attempt: 1, To: -1}}
}

func genCommit(t *rapid.T) *Commit {
	c := &Commit{Node: genNodes.Draw(t, "node"), Incarnation: rapid.Uint64Range(1, 3).Draw(t, "life")}
	for range rapid.IntRange(0, 3).Draw(t, "items") {
		it := CommitItem{Flow: genFlows.Draw(t, "flow"), Part: rapid.Uint32Range(0, 3).Draw(t, "part"), Slot: rapid.Uint16Range(0, 2).Draw(t, "slot"),
			Epoch: rapid.Uint64Range(0, 3).Draw(t, "epoch"), Low: rapid.Int64Range(-1, 20).Draw(t, "low"),
			Generation: rapid.SampledFrom([]uint32{0, 0, 0, 1}).Draw(t, "generation"), Deploy: 1, Release: rapid.IntRange(0, 9).Draw(t, "release") == 0,
			Life: rapid.Uint64Range(0, 1).Draw(t, "life"), Tally: Tally{Read: rapid.Int64Range(0, 3).Draw(t, "read"), Flying: rapid.Int64Range(0, 3).Draw(t, "flying")}}
		if rapid.Bool().Draw(t, "range") {
			from := it.Low + rapid.Int64Range(0, 3).Draw(t, "from")
			it.Ranges = []Range{{from, from + rapid.Int64Range(0, 3).Draw(t, "len")}}
		}
		c.Items = append(c.Items, it)
		for range rapid.IntRange(0, 2).Draw(t, "failures") {
			c.Failures = append(c.Failures, CommitFailure{it.Flow, it.Part, genEntry(t)})
		}
		for range rapid.IntRange(0, 3).Draw(t, "keeps") {
			e := &record.Retry{Stage: "1", Generation: rapid.Uint32Range(0, 1).Draw(t, "generation"), Due: rapid.Int64Range(-1, 100).Draw(t, "due"), Hold: rapid.Uint64Range(0, 2).Draw(t, "hold"),
				Group: rapid.SampledFrom([]string{"", "g"}).Draw(t, "group"), Input: record.Record{Offset: rapid.Int64Range(0, 20).Draw(t, "off"), Path: genPath.Draw(t, "path"), Attempt: 1, To: -1}}
			c.Keeps = append(c.Keeps, CommitRetry{Flow: it.Flow, Part: it.Part, Entry: e})
		}
		for range rapid.IntRange(0, 2).Draw(t, "gone") {
			c.Gone = append(c.Gone, CommitGone{it.Flow, it.Part, rapid.Int64Range(0, 20).Draw(t, "off"), genPath.Draw(t, "path")})
		}
	}
	c.At = genAt.Draw(t, "at")
	return c
}

// TestReplicasAgree feeds the same commands to three replicas, split into
// batches in different ways, one of them with repetitions and a restart.
func TestReplicasAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fs := vfs.NewMem()
		open := func() *Store {
			s, err := Open("db", Options{FS: fs})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		a, b, c := openMem(t), openMem(t), open()
		defer func() { _, _, _ = a.Close(), b.Close(), c.Close() }()
		var entries []LogEntry
		for i := range rapid.IntRange(1, 40).Draw(t, "commands") {
			entries = append(entries, entriesOf(t, uint64(i+1), genCommand(t))...)
		}
		var want []string
		for _, e := range entries {
			res, err := a.Apply([]LogEntry{e})
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, describe(res[0]))
		}
		var got []string
		for rest := entries; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "batch")
			res, err := b.Apply(rest[:n])
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range res {
				got = append(got, describe(r))
			}
			rest = rest[n:]
		}
		if !slices.Equal(got, want) {
			t.Fatalf("results differ by batch:\n%q\n%q", got, want)
		}
		cut := rapid.IntRange(0, len(entries)).Draw(t, "cut")
		if _, err := c.Apply(entries[:cut]); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		c = open()
		if _, err := c.Apply(entries[rapid.IntRange(0, cut).Draw(t, "from"):]); err != nil {
			t.Fatal(err)
		}
		for i, s := range []*Store{a, b, c} {
			kept, computed, err := s.VerifyHash()
			if err != nil || kept != computed || kept != a.Hash() || kept != s.Hash() {
				t.Fatalf("replica %d: hash %x, kept %x, recomputed %x, %v; the first has %x", i, s.Hash(), kept, computed, err, a.Hash())
			}
			if s.AppliedIndex() != uint64(len(entries)) {
				t.Fatalf("replica %d is at %d", i, s.AppliedIndex())
			}
		}
	})
}

func describe(r Result) string { return fmt.Sprintf("%d %T %+v %v", r.Index, r.Value, r.Value, r.Err) }

// TestArbitraryCommandsNeverPanic applies bytes that no encoder wrote.
func TestArbitraryCommandsNeverPanic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := openMem(t)
		defer s.Close()
		for i := range 10 {
			b := rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")
			if rapid.Bool().Draw(t, "mutate") {
				b = entriesOf(t, 1, genCommand(t))[0].Command
				if n := len(b); n > 2 {
					b[rapid.IntRange(0, n-1).Draw(t, "at")] ^= rapid.Byte().Draw(t, "flip")
				}
			}
			_, err := s.Apply([]LogEntry{{Index: uint64(i + 1), Term: 1, Command: b}})
			_, unknown := errors.AsType[*UnknownCommandError](err)
			if err != nil && !unknown && !errors.Is(err, ErrMalformed) {
				t.Fatalf("command %x: %v", b, err)
			}
		}
		if kept, computed, err := s.VerifyHash(); err != nil || kept != computed {
			t.Fatalf("hash %x, recomputed %x, %v", kept, computed, err)
		}
	})
}

// commitModel is a dumb twin of what Commit, Assign, NodeUp and FlowDelete do
// to one flow of two slots and four partitions.
type commitModel struct {
	life   map[uuid.UUID]uint64
	owner  [2]uuid.UUID
	lives  [2]uint64
	epoch  [2]uint64
	low    map[uint32]int64
	ranges map[uint32][]Range
	filed  map[string]uint64
	last   uint64
}

func TestCommitModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := openMem(t)
		defer s.Close()
		index := uint64(0)
		apply := func(c Command) Result {
			index++
			res, err := s.Apply(entriesOf(t, index, c))
			if err != nil {
				t.Fatal(err)
			}
			return res[0]
		}
		flow := apply(&FlowPut{Project: "p", Name: "f", UID: 1, Slots: 2, At: 1}).Value.(*FlowPutResult).Flow
		keys := make([]PartitionKey, 4)
		for i := range keys {
			keys[i] = PartitionKey{Kind: "kafka", Topic: "t", Source: int32(i)}
		}
		apply(&PartitionsAdd{flow, keys, 1})
		m := commitModel{life: map[uuid.UUID]uint64{}, low: map[uint32]int64{}, ranges: map[uint32][]Range{}, filed: map[string]uint64{}}

		t.Repeat(map[string]func(*rapid.T){
			"node up": func(t *rapid.T) {
				node, life := genNodes.Draw(t, "node"), rapid.Uint64Range(1, 5).Draw(t, "life")
				res := apply(&NodeUp{Node: node, Incarnation: life})
				if life < m.life[node] {
					if !errors.Is(res.Err, StaleIncarnation) {
						t.Fatalf("an old life came up: %v", res.Err)
					}
					return
				}
				if life > m.life[node] {
					for k := range m.owner {
						if m.owner[k] == node {
							m.owner[k], m.lives[k] = uuid.Nil, 0
						}
					}
				}
				m.life[node] = life
			},
			"assign": func(t *rapid.T) {
				k, node := rapid.Uint16Range(0, 1).Draw(t, "slot"), genNodes.Draw(t, "node")
				life := m.life[node]
				apply(&Assign{Slots: []SlotAssignment{{flow, k, node, life}}})
				if life != 0 && (m.owner[k] != node || m.lives[k] != life) {
					m.owner[k], m.lives[k] = node, life
					m.epoch[k]++
				}
			},
			"commit": func(t *rapid.T) {
				c := m.genCommit(t, flow)
				res := apply(c)
				m.commit(t, flow, c, res)
			},
			"": func(t *rapid.T) { m.compare(t, s, flow) },
		})
	})
}

func (m *commitModel) genCommit(t *rapid.T, flow FlowID) *Commit {
	node := genNodes.Draw(t, "node")
	c := &Commit{Node: node, Incarnation: m.life[node]}
	if rapid.IntRange(0, 9).Draw(t, "old life") == 0 {
		c.Incarnation--
	}
	for _, part := range rapid.SliceOfNDistinct(rapid.Uint32Range(0, 4), 1, 3, rapid.ID[uint32]).Draw(t, "parts") {
		k := uint16(part % 2)
		it := CommitItem{Flow: flow, Slot: k, Part: part, Epoch: m.epoch[k], Low: max(0, m.low[part]+rapid.Int64Range(-1, 5).Draw(t, "low")), Deploy: 1}
		switch rapid.IntRange(0, 19).Draw(t, "fault") {
		case 0:
			it.Epoch++
		case 1:
			it.Epoch--
		case 2:
			it.Slot = 1 - it.Slot
		case 3:
			it.Generation = 1
		case 4:
			it.Flow++
		case 5:
			it.Ranges = []Range{{it.Low + 2, it.Low + 2}}
		case 6:
			it.Ranges = []Range{{it.Low - 1, it.Low + 2}}
		case 7, 8, 9:
			it.Ranges = []Range{{it.Low + 2, it.Low + 4}}
		}
		c.Items = append(c.Items, it)
		for range rapid.IntRange(0, 2).Draw(t, "failures") {
			c.Failures = append(c.Failures, CommitFailure{it.Flow, part, &record.Entry{Stage: "1", Class: record.Rejected, Attempts: 1,
				Input: record.Record{Offset: rapid.Int64Range(0, 8).Draw(t, "off"), Path: genPath.Draw(t, "path"), Attempt: 1, To: -1}}})
		}
	}
	return c
}

func (m *commitModel) commit(t *rapid.T, flow FlowID, c *Commit, res Result) {
	out := res.Value.(*CommitResult)
	reasons := map[int]Reason{}
	for _, r := range out.Refused {
		reasons[r.Item] = r.Reason
	}
	filed := 0
	for i, it := range c.Items {
		k := it.Part % 2
		var want Reason
		switch {
		case it.Flow != flow:
			want = UnknownFlow
		case it.Part > 3 || uint32(it.Slot) != k:
			want = UnknownPartition
		case it.Epoch != m.epoch[k]:
			want = StaleEpoch
		case m.owner[k] != c.Node || m.lives[k] != c.Incarnation:
			want = NotOwner
		case it.Generation != 0:
			want = WrongGeneration
		case len(it.Ranges) > 0 && (it.Ranges[0].From < it.Low || it.Ranges[0].To <= it.Ranges[0].From):
			want = BadRanges
		case it.Low < m.low[it.Part]:
			want = Behind
		}
		if reasons[i] != want {
			t.Fatalf("item %+v: refused with %q, want %q", it, reasons[i], want)
		}
		if want != 0 {
			continue
		}
		m.low[it.Part], m.ranges[it.Part] = it.Low, it.Ranges
		for _, f := range c.Failures {
			id := fmt.Sprintf("%d/%d/%s", f.Part, f.Entry.Input.Offset, f.Entry.Input.Path)
			if f.Part == it.Part && m.filed[id] == 0 {
				m.filed[id] = 1
				filed++
			}
		}
	}
	if out.Filed != filed {
		t.Fatalf("%d failures were filed, want %d", out.Filed, filed)
	}
	m.last += uint64(filed)
}

func (m *commitModel) compare(t *rapid.T, s *Store, flow FlowID) {
	wms, err := s.Watermarks(flow)
	if err != nil {
		t.Fatal(err)
	}
	low := map[uint32]int64{}
	for _, w := range wms {
		low[w.Part] = w.Low
		if !slices.Equal(w.Ranges, m.ranges[w.Part]) {
			t.Fatalf("partition %d: ranges %v, want %v", w.Part, w.Ranges, m.ranges[w.Part])
		}
	}
	if !maps.Equal(low, m.low) {
		t.Fatalf("watermarks %v, want %v", low, m.low)
	}
	slots, err := s.Slots(flow)
	if err != nil {
		t.Fatal(err)
	}
	for k, sl := range slots {
		if sl.Owner != m.owner[k] || sl.Incarnation != m.lives[k] || sl.Epoch != m.epoch[k] {
			t.Fatalf("slot %+v, want owner %s life %d epoch %d", sl, m.owner[k], m.lives[k], m.epoch[k])
		}
	}
	entries, err := s.Failures(flow, 0, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	q, err := s.QueueStats(flow)
	size := uint64(0)
	for i, e := range entries {
		if e.Seq != uint64(i+1) {
			t.Fatalf("entry %d has number %d", i, e.Seq)
		}
		size += uint64(len(EncodeEntry(e)))
	}
	if err != nil || q != (QueueStats{Flow: flow, Entries: uint64(len(m.filed)), Bytes: size, Last: m.last}) || len(entries) != len(m.filed) {
		t.Fatalf("queue %+v with %d entries of %d bytes, want %d, %v", q, len(entries), size, len(m.filed), err)
	}
}
