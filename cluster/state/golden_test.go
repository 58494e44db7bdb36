package state

import (
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/millrace-io/millrace/runtime/record"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

var (
	nodeA   = uuid.MustParse("00112233-4455-6677-8899-aabbccddeeff")
	digestA = Digest{0xaa, 1}
	digestB = Digest{0xbb, 2}
	digestC = Digest{0xcc, 3}
)

// golden compares lines "name<tab>hex" with a file. What was stored once must
// be read for ever: a changed line needs a new version of the form.
func golden(t *testing.T, path string, lines []string) {
	t.Helper()
	got := strings.Join(lines, "\n") + "\n"
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != got {
		t.Errorf("%s: the stored form changed; give it a new version, or run with -rewrite and review. Got:\n%s", path, got)
	}
}

func TestKeysGolden(t *testing.T) {
	path := record.Path("\x00\x02\x00\x07")
	keys := [][]byte{
		append([]byte{KeyLog}, 0, 0, 0, 0, 0, 0, 1, 2),
		append([]byte{KeyStable}, "CurrentTerm"...),
		metaKey(), nodeKey(nodeA),
		flowNameKey("default", "orders"), flowHeadKey(7), flowRevKey(7, 3),
		slotKey(7, 4095), watermarkKey(7, 12),
		retryKey(7, 12, 99, path), retryDueKey(7, 12, 1_700_000_000_000, 99, path), retryOrderKey(7, 12, 0xdeadbeef, 99, path),
		failureKey(7, 1<<40), failureIdxKey(7, 12, 99, ""), failureIdxKey(7, 12, 99, path),
		pluginKey(digestA), deployKey(7, 5), trustKey("acme"), requestKey("r-1"),
		partitionKey(7, 12), connectionKey("main"), nextFlowKey(), queueCounterKey(7),
		{0x80, 1, 2},
	}
	var lines []string
	for _, k := range keys {
		s, err := DescribeKey(k)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, s+"\t"+hex.EncodeToString(k))
	}
	golden(t, "testdata/keys.golden", lines)
}

func fullEntry() *record.Entry {
	return &record.Entry{
		Flow: "default/orders", FlowUID: 0x0123456789abcdef, Revision: 3, Generation: 2, Stage: "2-map",
		Plugin: "orders@1.0.0", Digest: digestA.String(), Touched: []string{digestB.String()},
		Class: record.Trap, Code: 7, Message: "unreachable", Attempts: 2, Time: 1_700_000_000_123,
		Input: record.Record{Key: []byte("k"), Value: []byte(strings.Repeat("value ", 100)), Headers: []record.Header{{Key: "h", Value: []byte("v")}, {Key: "null"}},
			Topic: "orders", Partition: 3, Offset: 99, Timestamp: 1_700_000_000_000, Trace: record.Trace{1, 2}, Path: "\x00\x01", Attempt: 2, Redelivered: true, To: -1},
		Replay: &record.Replay{BatchID: 5, Now: 1_700_000_000_001, ImageLevel: 1, ConfigHash: 9, Logs: []string{"a", "b"}},
	}
}

// otherEntries are one whose replay tells fuel and limits, and one that has no
// replay.
func otherEntries() []*record.Entry {
	used, none := fullEntry(), fullEntry()
	used.Replay.Fuel, used.Replay.FuelLimit, used.Replay.MemoryLimit, used.Replay.FuelCosts = 4711, 1_200_000, 64<<20, 2
	none.Replay, none.NoReplay = nil, "alone the record is answered otherwise"
	return []*record.Entry{used, none}
}

func sampleCommands() []Command {
	pins := []Pin{{"1-map", digestA, "1.0.0"}, {"2-map", digestB, "2.0.0"}}
	omitted := &record.Entry{Flow: "default/orders", Stage: "1-map", Class: record.TooLarge, Attempts: 1, InputOmitted: true, InputHash: 77,
		Input: record.Record{Topic: "orders", Offset: 100, Attempt: 1, To: -1}}
	return []Command{
		&NodeUp{nodeA, 3, "127.0.0.1:7070", "1.0.0", 1_700_000_000_000},
		&FlowPut{Project: "default", Name: "orders", UID: 42, Document: []byte("flow: v1\n"), Resolved: []byte("{}"), Pins: pins, Connections: []string{"main"}, Slots: 4, IfMatch: 1, At: 5, RequestID: "r1"},
		&FlowState{7, AutoPaused, "the queue is full", 6},
		&FlowDelete{7, true, 7},
		&PartitionsAdd{7, []PartitionKey{{"kafka", "main", "orders", [16]byte{1}, "", 3}, {"file", "", "/tmp/in", [16]byte{}, "b", 0}}, 8},
		&ConPut{"main", []byte("connection: v1\n"), 9},
		&ConDel{"main"},
		&PluginPut{digestA, "default", "orders", "1.0.0", 12345, "stage/1", "call", []byte(`{"a":1}`), 10},
		&PluginDel{digestA},
		&Activate{7, pins[:1], 11, "r2"},
		&Assign{[]SlotAssignment{{7, 1, nodeA, 3}, {7, 2, uuid.Nil, 0}}, 12},
		&Commit{Node: nodeA, Incarnation: 3, Items: []CommitItem{
			{Flow: 7, Slot: 1, Epoch: 9, Part: 1, Low: 100, Ranges: []Range{{102, 105}, {107, 108}}, Generation: 2, Deploy: 4},
			{Flow: 7, Slot: 2, Epoch: 9, Part: 2, Low: 1 << 40, Release: true}},
			Failures: []CommitFailure{{7, 1, fullEntry()}, {7, 1, omitted}}},
	}
}

func TestCommandsGolden(t *testing.T) {
	var lines []string
	for _, c := range sampleCommands() {
		b, err := EncodeCommand(c)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, c.Kind().String()+"\t"+hex.EncodeToString(b))
		got, err := DecodeCommand(b)
		if err != nil {
			t.Fatalf("%s: %v", c.Kind(), err)
		}
		if !reflect.DeepEqual(got, c) {
			t.Errorf("%s: got %+v, want %+v", c.Kind(), got, c)
		}
		if _, err := DecodeCommand(append(b, 0)); err == nil {
			t.Errorf("%s: a trailing byte is accepted", c.Kind())
		}
		for i := range b {
			if _, err := DecodeCommand(b[:i]); err == nil {
				t.Errorf("%s: accepted when cut at %d of %d", c.Kind(), i, len(b))
			}
		}
	}
	golden(t, "testdata/commands.golden", lines)
}

// TestOldCommandsAreRead decodes what the golden file holds, whatever the
// encoder writes by now.
func TestOldCommandsAreRead(t *testing.T) {
	b, err := os.ReadFile("testdata/commands.golden")
	if err != nil {
		t.Fatal(err)
	}
	want := sampleCommands()
	for i, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		_, h, _ := strings.Cut(line, "\t")
		raw, err := hex.DecodeString(h)
		if err != nil {
			t.Fatal(err)
		}
		if c, err := DecodeCommand(raw); err != nil || !reflect.DeepEqual(c, want[i]) {
			t.Errorf("%s: got %+v, %v", want[i].Kind(), c, err)
		}
	}
}

func TestValuesGolden(t *testing.T) {
	pins := []Pin{{"1-map", digestA, "1.0.0"}}
	flow := &Flow{ID: 7, UID: 42, Project: "default", Name: "orders", State: Paused, Reason: "asked", StateAt: 1, CreatedAt: 2, UpdatedAt: 3,
		Revision: 4, Deploy: 5, Generation: 6, Slots: 8, Parts: 9, Connections: []string{"main"}}
	rev := &Revision{Flow: 7, Number: 4, Document: []byte("flow: v1"), Resolved: []byte("{}"), Pins: pins, Connections: []string{"main"}, At: 3, Deploy: 5}
	dep := &Deployment{Flow: 7, Generation: 5, Revision: 4, Pins: pins, At: 3}
	par := PartitionKey{"kafka", "main", "orders", [16]byte{9}, "b", 2}
	wm := Watermark{Part: 3, Low: 100, Ranges: []Range{{103, 107}, {110, 111}}, Generation: 1, Deploy: 5}
	slot := Slot{Flow: 7, Slot: 2, Owner: nodeA, Incarnation: 3, Epoch: 4, Target: nodeA, Layout: 1, Deaths: 2, Quarantine: true}
	con := &Connection{"main", []byte("connection: v1"), 2, 3}
	plugins := []Plugin{{digestA, "default", "orders", "1.0.0", 99, "stage/1", "call", []byte("{}"), 5, 6}, {digestA, "default", "other", "1.0.0", 99, "stage/1", "call", []byte("{}"), 3, 4}}
	node := &Node{nodeA, 3, true, "127.0.0.1:7070", "1.0.0", 4}
	idx, q := failureIdx{5, 6, 7}, queueCounters{5, 3, 1000}
	req := request{5, KindFlowPut, []byte{1}}
	m := meta{100, 3, 0xfeed, 1, []byte("conf")}
	decoded := func(v any, err error) any {
		if err != nil {
			t.Errorf("decode: %v", err)
		}
		return v
	}
	dec := func(want any, b []byte, v any, err error) []byte {
		t.Helper()
		if got := decoded(v, err); !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		return b
	}
	var lines []string
	add := func(name string, b []byte) { lines = append(lines, name+"\t"+hex.EncodeToString(b)) }
	b := flow.encode()
	v1, err := decodeFlow(b)
	add("flow", dec(flow, b, v1, err))
	b = rev.encode()
	v2, err := decodeRevision(7, 4, b)
	add("revision", dec(rev, b, v2, err))
	b = dep.encode()
	v3, err := decodeDeployment(7, 5, b)
	add("deployment", dec(dep, b, v3, err))
	b = par.encode()
	v4, err := decodePartitionKey(b)
	add("partition", dec(par, b, v4, err))
	b = wm.append(nil)
	v5, err := decodeWatermark(3, b)
	add("watermark", dec(wm, b, v5, err))
	b = slot.encode()
	v6, err := decodeSlot(7, 2, b)
	add("slot", dec(slot, b, v6, err))
	b = con.encode()
	v7, err := decodeConnection("main", b)
	add("connection", dec(con, b, v7, err))
	b = encodePlugins(plugins)
	v8, err := decodePlugins(digestA, b)
	add("plugin", dec(plugins, b, v8, err))
	b = node.encode()
	v9, err := decodeNode(nodeA, b)
	add("node", dec(node, b, v9, err))
	b = idx.encode()
	v10, err := decodeFailureIdx(b)
	add("failure index", dec(idx, b, v10, err))
	b = q.encode()
	v11, err := decodeQueueCounters(b)
	add("queue counters", dec(q, b, v11, err))
	b = req.encode()
	v12, err := decodeRequest(b)
	add("request", dec(req, b, v12, err))
	b = m.append(nil)
	v13, err := decodeMeta(b)
	add("meta", dec(m, b, v13, err))
	b = EncodeEntry(fullEntry())
	v14, err := DecodeEntry(b)
	add("entry", dec(fullEntry(), b, v14, err))
	for i, e := range otherEntries() {
		b = EncodeEntry(e)
		back, err := DecodeEntry(b)
		add([]string{"entry with fuel", "entry that cannot be replayed"}[i], dec(e, b, back, err))
	}
	golden(t, "testdata/values.golden", lines)
}

func TestUnknownCommands(t *testing.T) {
	for _, b := range [][]byte{{200, 1}, {byte(KindCommit), 2}, {byte(KindNodeExpire), 1, 5}} {
		_, err := DecodeCommand(b)
		u := &UnknownCommandError{Kind(b[0]), b[1]}
		if err == nil || err.Error() != u.Error() {
			t.Errorf("command %x: got %v, want %v", b, err, u)
		}
	}
	spill, _ := EncodeCommand(&Commit{Node: nodeA})
	spill[len(spill)-2] = 1
	if _, err := DecodeCommand(spill); fmt.Sprintf("%T", err) != "*state.UnknownCommandError" {
		t.Errorf("a commit with spills: %v", err)
	}
}

func FuzzDecodeCommand(f *testing.F) {
	for _, c := range sampleCommands() {
		b, _ := EncodeCommand(c)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeCommand(b)
		if err != nil {
			return
		}
		again, err := EncodeCommand(c)
		if err != nil {
			t.Fatal(err)
		}
		c2, err := DecodeCommand(again)
		if err != nil || !reflect.DeepEqual(c, c2) {
			t.Fatalf("%+v was encoded to %x and read as %+v, %v", c, again, c2, err)
		}
	})
}

func FuzzDescribeKey(f *testing.F) {
	f.Add(failureIdxKey(1, 2, 3, "\x00\x01"))
	f.Add(flowNameKey("a", "b"))
	f.Add(retryDueKey(1, 2, 3, 4, ""))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DescribeKey(b)
		if (s == "") != (err != nil) {
			t.Fatalf("key %x: %q, %v", b, s, err)
		}
		_, _, _, _ = decodeFailureIdxKey(b)
	})
}

func FuzzDecodeValues(f *testing.F) {
	f.Add(EncodeEntry(fullEntry()))
	for _, e := range otherEntries() {
		f.Add(EncodeEntry(e))
	}
	f.Add((&Flow{Project: "p", Name: "n"}).encode())
	f.Add((&Slot{Owner: nodeA}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := DecodeEntry(b); err == nil {
			if e2, err := DecodeEntry(EncodeEntry(e)); err != nil || !reflect.DeepEqual(e, e2) {
				t.Fatalf("entry %+v read again as %+v, %v", e, e2, err)
			}
		}
		_, _ = decodeFlow(b)
		_, _ = decodeRevision(1, 1, b)
		_, _ = decodeDeployment(1, 1, b)
		_, _ = decodePartitionKey(b)
		_, _ = decodeWatermark(1, b)
		_, _ = decodeSlot(1, 1, b)
		_, _ = decodeConnection("c", b)
		_, _ = decodePlugins(digestA, b)
		_, _ = decodeNode(nodeA, b)
		_, _ = decodeFailureIdx(b)
		_, _ = decodeQueueCounters(b)
		_, _ = decodeRequest(b)
		_, _ = decodeMeta(b)
	})
}
