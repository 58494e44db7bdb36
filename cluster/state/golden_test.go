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
		ingestKey(7, 12, "req/1"), ingestAgeKey(7, 12, 1_700_000_000_000, "req/1"),
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

// otherEntries are one whose replay tells fuel and limits, one that has no
// replay, one of a delivery, one with some of what later versions added, and
// those of plugins that sign and validate.
func otherEntries() []*record.Entry {
	used, none := fullEntry(), fullEntry()
	used.Replay.Fuel, used.Replay.FuelLimit, used.Replay.MemoryLimit, used.Replay.FuelCosts = 4711, 1_200_000, 64<<20, 2
	none.Replay, none.NoReplay = nil, "alone the record is answered otherwise"
	sent, signed := fullEntry(), fullEntry()
	sent.Replay = nil
	sent.Input.Ref, sent.Requeues, sent.Told, sent.History = "req-7", 2, "push: 500", someHistory()
	sent.Exchange = &record.Exchange{Method: "POST", URL: "https://api.example.com/orders", RequestHeaders: []record.Header{{Key: "Content-Type", Value: []byte("text/plain")}},
		RequestBody: []byte("body"), RequestCut: true, Status: 503, ResponseHeaders: []record.Header{{Key: "Retry-After", Value: []byte("5")}}, ResponseBody: []byte{}}
	signed.Replay.Signatures = []record.Signature{{Handle: 1, Alg: 2, MessageSHA256: record.SHA256(digestC), Signature: []byte("sig")}}
	signed.Exchange = &record.Exchange{ResponseCut: true}
	judged, refused := fullEntry(), fullEntry()
	judged.Replay = nil
	judged.Call = &record.Call{Stage: "deliver.validate", Plugin: "check@1.0.0", Digest: digestB.String(), Class: record.Rejected, Code: 7, Message: "code 7",
		Input:  record.Record{Value: []byte(strings.Repeat("answer ", 100)), Headers: []record.Header{{Key: ":status", Value: []byte("200")}, {Key: "Set-Cookie", Value: []byte("***")}}, Topic: "deliver.validate", Offset: 1 << 60, Timestamp: 5, Attempt: 1, To: -1},
		Hidden: []string{"Set-Cookie"}, Replay: &record.Replay{BatchID: 6, Now: 1_700_000_000_002, ImageLevel: 2, ConfigHash: 8, Fuel: 12, FuelLimit: 34, MemoryLimit: 56, FuelCosts: 2, Logs: []string{"c"}}}
	refused.Replay.Signatures = []record.Signature{{Handle: 1, Alg: 2, Refused: -2}, {Signature: []byte("sig")}}
	refused.Call = &record.Call{Stage: "deliver.sign", Digest: digestB.String(), Class: record.Fuel, InputOmitted: true, InputHash: 77, NoReplay: "too many",
		Input: record.Record{Topic: "deliver.sign", Attempt: 1, To: -1}}
	again := *refused.Call
	again.NoReplay, again.Replay = "", &record.Replay{Signatures: refused.Replay.Signatures}
	third := fullEntry()
	third.Call = &again
	return []*record.Entry{used, none, sent, signed, judged, refused, third}
}

func someHistory() []record.Attempt {
	return []record.Attempt{{Time: 1_700_000_000_100, Millis: 30_000, Class: record.Timeout, Message: "no answer"}, {Time: 1_700_000_000_400, Millis: 12, Class: record.Retryable, Code: 503, Message: "busy"}}
}

func fullRetry() *record.Retry {
	in := fullEntry().Input
	in.Ref, in.To = "req-7", 3
	return &record.Retry{Stage: "deliver", Input: in, Generation: 2, Class: record.Retryable, Code: 503, Message: "busy", Attempts: 4,
		First: 1_700_000_000_000, At: 1_700_000_000_400, Due: 1_700_000_030_000, Hold: 0xfeedfacecafebeef, Group: "abcdef", GroupIndex: 7,
		Via: digestB.String(), Requeues: 1, History: someHistory()}
}

func plainRetry() *record.Retry {
	return &record.Retry{Stage: "deliver", Input: record.Record{Topic: "t", Offset: 5, Attempt: 1, To: -1}, Due: 9}
}

func sampleCommands() []Command {
	pins := []Pin{{"1-map", digestA, "1.0.0"}, {"2-map", digestB, "2.0.0"}}
	omitted := &record.Entry{Flow: "default/orders", Stage: "1-map", Class: record.TooLarge, Attempts: 1, InputOmitted: true, InputHash: 77,
		Input: record.Record{Topic: "orders", Offset: 100, Attempt: 1, To: -1}}
	return []Command{
		&NodeUp{nodeA, 3, "127.0.0.1:7070", "1.0.0", 1_700_000_000_000},
		&FlowPut{Project: "default", Name: "orders", UID: 42, Document: []byte("flow: v1\n"), Resolved: []byte("{}"), Pins: pins, Connections: []string{"main"}, Slots: 4, IfMatch: 1, At: 5, RequestID: "r1", Preflight: &Preflight{Skipped: true}},
		&FlowState{7, AutoPaused, "the queue is full", 6, nil},
		&FlowState{7, Running, "", 6, &InState{Paused, "its offsets are being reset", 5}},
		&FlowDelete{7, true, 7},
		&PartitionsAdd{7, []PartitionKey{{"kafka", "main", "orders", [16]byte{1}, "", 3}, {"file", "", "/tmp/in", [16]byte{}, "b", 0}}, 8},
		&ConPut{"main", []byte("connection: v1\n"), 9},
		&ConDel{"main"},
		&PluginPut{digestA, "default", "orders", "1.0.0", 12345, "stage/1", "call", []byte(`{"a":1}`), 10},
		&PluginDel{digestA},
		&Activate{7, pins[:1], 11, "r2", &Preflight{false, 1000, 12, 3, "max-diff 2%"}},
		&Assign{[]SlotAssignment{{7, 1, nodeA, 3}, {7, 2, uuid.Nil, 0}}, 12},
		&Commit{Node: nodeA, Incarnation: 3, Items: []CommitItem{
			{Flow: 7, Slot: 1, Epoch: 9, Part: 1, Low: 100, Ranges: []Range{{102, 105}, {107, 108}}, Generation: 2, Deploy: 4, Life: 11, Tally: someTally(),
				Counted: true, Carried: EntryCount{1000, 2, 300}, Grown: -5, Requests: []Request{{"req-7", 0xfeed}, {"req-8", 1}}},
			{Flow: 7, Slot: 2, Epoch: 9, Part: 2, Low: 1 << 40, Release: true}},
			Failures: []CommitFailure{{7, 1, fullEntry()}, {7, 1, omitted}},
			Keeps:    []CommitRetry{{Flow: 7, Part: 1, Entry: fullRetry()}, {Flow: 7, Part: 2, Entry: plainRetry()}},
			Gone:     []CommitGone{{7, 1, 55, ""}, {7, 1, 56, "\x00\x01"}}, At: 13},
		&QueueOp{7, QueueReplay, []uint64{5, 1 << 40}, digestB.String(), []uint64{0, 0xfeed}, 14},
		&QueueOp{Flow: 7, Action: QueueDrop, Seqs: []uint64{1}, At: 14},
		&QueueExpire{7, 1_700_000_000_000, 100, 1 << 30, 15},
		&QueueImport{7, []ImportEntry{{1, fullEntry()}}, 16},
		&OffsetReset{7, 2, []Position{{1, 100}, {2, 0}}, 17},
		&QueuePurge{7, 18},
	}
}

func someTally() Tally {
	return Tally{Read: 1000, Split: 30, Delivered: 900, Known: 4, Flying: -1, Dropped: []DropCount{{"2-map", 20}, {"otherwise", 3}}}
}

// withoutRaw is a command as it was before it was encoded.
func withoutRaw(c Command) Command {
	if c, ok := c.(*Commit); ok {
		for i := range c.Keeps {
			c.Keeps[i].raw = nil
		}
	}
	return c
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
		if !reflect.DeepEqual(withoutRaw(got), c) {
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
		if c, err := DecodeCommand(raw); err != nil || !reflect.DeepEqual(withoutRaw(c), want[i]) {
			t.Errorf("%s: got %+v, %v", want[i].Kind(), c, err)
		}
	}
}

func TestValuesGolden(t *testing.T) {
	pins := []Pin{{"1-map", digestA, "1.0.0"}}
	flow := &Flow{ID: 7, UID: 42, Project: "default", Name: "orders", State: Paused, Reason: "asked", StateAt: 1, CreatedAt: 2, UpdatedAt: 3,
		Revision: 4, Deploy: 5, Generation: 6, Slots: 8, Parts: 9, Looked: true, First: 2, Connections: []string{"main"}}
	rev := &Revision{Flow: 7, Number: 4, Document: []byte("flow: v1"), Resolved: []byte("{}"), Pins: pins, Connections: []string{"main"}, At: 3, Deploy: 5, Preflight: &Preflight{false, 1000, 12, 3, "yes"}}
	dep := &Deployment{Flow: 7, Generation: 5, Revision: 4, Pins: pins, At: 3}
	par := PartitionKey{"kafka", "main", "orders", [16]byte{9}, "b", 2}
	wm := Watermark{Part: 3, Low: 100, Ranges: []Range{{103, 107}, {110, 111}}, Generation: 1, Deploy: 5,
		account: account{base: someTally(), life: Tally{Read: 5, Flying: 5}, epoch: 9, number: 11, carried: EntryCount{1000, 2, 300}, grown: -5, filed: 3, kept: 2}}
	slot := Slot{Flow: 7, Slot: 2, Owner: nodeA, Incarnation: 3, Epoch: 4, Target: nodeA, Layout: 1, Deaths: 2, Quarantine: true}
	con := &Connection{"main", []byte("connection: v1"), 2, 3}
	plugins := []Plugin{{digestA, "default", "orders", "1.0.0", 99, "stage/1", "call", []byte("{}"), 5, 6}, {digestA, "default", "other", "1.0.0", 99, "stage/1", "call", []byte("{}"), 3, 4}}
	node := &Node{nodeA, 3, true, "127.0.0.1:7070", "1.0.0", 4}
	idx, q := failureIdx{seq: 5, size: 6, hash: 7, generation: 2}, queueCounters{5, 3, 1000, 2, 700}
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
		add([]string{"entry with fuel", "entry that cannot be replayed", "entry of a delivery", "entry with signatures", "entry with the call of a plugin that validates", "entry with refused signatures and a call", "entry with a call that was refused signatures"}[i], dec(e, b, back, err))
	}
	for i, e := range []*record.Retry{fullRetry(), plainRetry()} {
		b = EncodeRetry(e)
		back, err := DecodeRetry(b)
		add([]string{"retry", "plain retry"}[i], dec(e, b, back, err))
	}
	for i, o := range []retryOrder{{1_700_000_030_000, groupHash("abcdef")}, {}} {
		b = o.encode()
		back, err := decodeRetryOrder(b)
		add([]string{"retry order", "parked"}[i], dec(o, b, back, err))
	}
	golden(t, "testdata/values.golden", lines)
}

func TestUnknownCommands(t *testing.T) {
	for _, b := range [][]byte{{200, 1}, {byte(KindCommit), 3}, {byte(KindCommit), 0}, {byte(KindQueueOp), 2}, {byte(KindNodeExpire), 1, 5}} {
		_, err := DecodeCommand(b)
		u := &UnknownCommandError{Kind(b[0]), b[1]}
		if err == nil || err.Error() != u.Error() {
			t.Errorf("command %x: got %v, want %v", b, err, u)
		}
	}
	spill := append(append([]byte{byte(KindCommit), 1}, nodeA[:]...), 1, 0, 0, 1, 0)
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
		if old, ok := c.(*Commit); ok {
			old.tallyless = false
		}
		if err != nil || !reflect.DeepEqual(withoutRaw(c), withoutRaw(c2)) {
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
		_, _ = decodeRetryOrder(b)
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

func FuzzDecodeRetry(f *testing.F) {
	f.Add(EncodeRetry(fullRetry()))
	f.Add(EncodeRetry(plainRetry()))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := DecodeRetry(b)
		if err != nil {
			return
		}
		again := EncodeRetry(e)
		if e2, err := DecodeRetry(again); err != nil || !reflect.DeepEqual(e, e2) {
			t.Fatalf("entry %+v read again as %+v, %v", e, e2, err)
		}
		h, err := decodeRetryHead(again)
		if err != nil || h.hold != e.Hold || h.due != e.Due || h.generation != e.Generation || h.group != e.Group || h.stage != e.Stage {
			t.Fatalf("entry %+v has the head %+v, %v", e, h, err)
		}
	})
}

// TestFirstVersionsAreRead decodes what the first release wrote.
func TestFirstVersionsAreRead(t *testing.T) {
	b, err := os.ReadFile("testdata/v1.golden")
	if err != nil {
		t.Fatal(err)
	}
	raw := map[string][]byte{}
	for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		name, h, _ := strings.Cut(line, "\t")
		if raw[name], err = hex.DecodeString(h); err != nil {
			t.Fatal(err)
		}
	}
	var want *Commit
	for _, c := range sampleCommands() {
		if c, ok := c.(*Commit); ok {
			want = c
		}
	}
	want.Keeps, want.Gone, want.At, want.tallyless = nil, nil, 0, true
	want.Items[0].Life, want.Items[0].Tally, want.Items[0].Requests = 0, Tally{}, nil
	want.Items[0].Counted, want.Items[0].Carried, want.Items[0].Grown = false, EntryCount{}, 0
	if c, err := DecodeCommand(raw["Commit"]); err != nil || !reflect.DeepEqual(c, want) {
		t.Errorf("commit: got %+v, %v; want %+v", c, err, want)
	}
	w, err := decodeWatermark(3, raw["watermark"])
	if err != nil || !reflect.DeepEqual(w, Watermark{Part: 3, Low: 100, Ranges: []Range{{103, 107}, {110, 111}}, Generation: 1, Deploy: 5, account: account{filed: -1}}) {
		t.Errorf("watermark: got %+v, %v", w, err)
	}
	if f, err := decodeFailureIdx(raw["failure index"]); err != nil || f != (failureIdx{seq: 5, size: 6, hash: 7, old: true}) {
		t.Errorf("failure index: got %+v, %v", f, err)
	}
	if q, err := decodeQueueCounters(raw["queue counters"]); err != nil || q != (queueCounters{last: 5, entries: 3, bytes: 1000}) {
		t.Errorf("queue counters: got %+v, %v", q, err)
	}
}
