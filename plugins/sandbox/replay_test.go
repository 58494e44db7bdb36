package sandbox

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/plugins/abi"
	"github.com/millrace-io/millrace/plugins/internal/testkit"
	"github.com/millrace-io/millrace/runtime/record"
)

// sameAgain replays a failure on a module of another runtime and holds the run
// against what the failure says.
func sameAgain(t *testing.T, m *Module, cfg StageConfig, b *record.Batch, f *record.Failure) {
	t.Helper()
	if f.Replay == nil {
		t.Fatalf("record %d: %v cannot be replayed: %q", f.In, f.Err, f.NoReplay)
	}
	got, err := m.Replay(t.Context(), cfg, &b.Records[f.In], f.Replay)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Results.Failures) != 1 || len(got.Results.Emits)+len(got.Results.Drops) != 0 {
		t.Fatalf("record %d: got %+v, want one failure", f.In, got.Results)
	}
	e := got.Results.Failures[0].Err
	if e.Class != f.Err.Class || e.Code != f.Err.Code || e.Message != f.Err.Message {
		t.Errorf("record %d: got %v, want %v", f.In, e, f.Err)
	}
	if !slices.Equal(got.Logs, f.Replay.Logs) || got.Fuel != f.Replay.Fuel || got.ImageLevel != f.Replay.ImageLevel || got.ConfigHash != f.Replay.ConfigHash {
		t.Errorf("record %d: got fuel %d, level %d, logs %q, want %+v", f.In, got.Fuel, got.ImageLevel, got.Logs, f.Replay)
	}
}

// among is 100 values of which the 37th is bad.
func among(good, bad string) []string {
	values := slices.Repeat([]string{good}, 100)
	values[37] = bad
	return values
}

// TestReplay is the promise: whatever a record failed by, among 99 others, it
// does so again, 30 times of 30, on other runtimes.
func TestReplay(t *testing.T) {
	runtimes := []*Runtime{open(t, Config{}), open(t, Config{Workers: 1}), open(t, Config{MaxFuel: 50_000_000, MaxMemoryBytes: 256 << 20, CacheDir: t.TempDir()})}
	modules := map[string][]*Module{} // of each file, for each runtime
	for _, c := range []struct {
		file      string
		good      string
		bad       []string
		envelope  bool
		isolation string
		config    string
		fuel      int64
	}{
		{file: ordersWasm, good: `{"type":"order","id":"1"}`, bad: []string{`{"type":"ord`, "no object"}},
		{file: faultyWasm, good: "x", bad: []string{"fail", "retry", "trap", "count-trap", "panic", "outside", "hog", "missing", "unknown-id", "output1", "zero-result"}, config: `{ "behaviour": "" }`},
		{file: faultyWasm, good: "x", bad: []string{"fail", "trap"}, isolation: IsolationRecord},
		{file: faultyWasm, good: "x", bad: []string{"log-flood"}, fuel: 20_000},
		{file: wasiWasm, good: "x", bad: []string{"open", "exit", "panic"}},
		{file: linesWasm, good: "x", bad: []string{"error: x", "two\nlines"}},
		{file: linesWasm, good: "x", bad: []string{"two\nlines"}, envelope: true},
	} {
		cfg := StageConfig{Flow: "default/f", FlowUID: 77, Stage: "s", Envelope: c.envelope, Isolation: c.isolation, Fuel: c.fuel, Config: []byte(c.config)}
		if modules[c.file] == nil {
			for _, rt := range runtimes {
				modules[c.file] = append(modules[c.file], compile(t, rt, testkit.Read(t, c.file)))
			}
		}
		s, others := newStage(t, modules[c.file][0], cfg), modules[c.file][1:]
		cfg.Fuel = 0 // the replay knows
		for _, bad := range c.bad {
			t.Run(fmt.Sprintf("%s/%.12s", strings.TrimSuffix(c.file[strings.LastIndexByte(c.file, '/')+1:], ".wasm"), bad), func(t *testing.T) {
				b := testkit.Batch(among(c.good, bad)...)
				out := testkit.Process(t, s, b)
				if len(out.Failures) != 1 || out.Failures[0].In != 37 {
					t.Fatalf("got %+v, want one failure of record 37", out.Failures)
				}
				if r := out.Failures[0].Replay; r == nil || r.FuelLimit != s.Fuel() || r.MemoryLimit != s.MemoryBytes() || r.Fuel <= 0 && (bad != "two\nlines" || c.envelope) {
					t.Errorf("got %+v", r)
				}
				for i := range 30 {
					sameAgain(t, others[i%2], cfg, b, &out.Failures[0])
				}
			})
		}
	}
}

// TestReplayOfAHigherImage: a failure that was found after the image was raised
// starts from that level again.
func TestReplayOfAHigherImage(t *testing.T) {
	rt := open(t, Config{Workers: 1})
	m := compile(t, rt, testkit.Read(t, faultyWasm))
	s := newStage(t, m, StageConfig{Stage: "s"})
	for range raiseAfter {
		testkit.Process(t, s, testkit.Batch("grow"))
	}
	b := testkit.Batch(among("x", "trap")...)
	out := testkit.Process(t, s, b)
	if len(out.Failures) != 1 || out.Failures[0].Replay.ImageLevel != 1 {
		t.Fatalf("got %+v, want a failure from level 1", out.Failures)
	}
	sameAgain(t, compile(t, open(t, Config{}), testkit.Read(t, faultyWasm)), StageConfig{Stage: "s"}, b, &out.Failures[0])

	var none *ImageError
	high := *out.Failures[0].Replay
	traps := StageConfig{Stage: "s", Config: []byte(`{"behaviour":"trap"}`)} // in the warm-up too
	if _, err := m.Replay(t.Context(), traps, &b.Records[0], &high); !errors.As(err, &none) || none.Level != 1 || none.Highest != 0 {
		t.Errorf("got %v, want an *ImageError", err)
	}
	high.ImageLevel = maxImageLevel + 1
	if _, err := m.Replay(t.Context(), StageConfig{Stage: "s"}, &b.Records[0], &high); err == nil || !strings.Contains(err.Error(), "no image of level 9") {
		t.Errorf("got %v", err)
	}
}

// TestReplayOfClockAndRandom: they are those of the recorded call, whoever
// asks, and what is emitted is the same.
func TestReplayOfClockAndRandom(t *testing.T) {
	s := stageOf(t, open(t, Config{}), wasiWasm, StageConfig{FlowUID: 77, Stage: "s"})
	other := compile(t, open(t, Config{}), testkit.Read(t, wasiWasm))
	for _, value := range []string{"random", "time", "monotonic", "sleep", "stderr"} {
		b := testkit.Batch(value)
		b.Records[0].Offset = 4711
		want := testkit.Process(t, s, b)
		r := &record.Replay{BatchID: abi.BatchID(77, "s", b.Partition, 4711, 1), Now: b.Now}
		for range 5 {
			got, err := other.Replay(t.Context(), StageConfig{Stage: "another id"}, &b.Records[0], r)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got.Results.Emits, want.Emits) || len(want.Emits) != 1 {
				t.Errorf("%s: got %+v, want %+v", value, got.Results, want)
			}
			if wantLogs := map[string][]string{"stderr": {"stderr: hello from wasi"}}[value]; !slices.Equal(got.Logs, wantLogs) {
				t.Errorf("%s: got logs %q", value, got.Logs)
			}
		}
		r.BatchID++
		got, err := other.Replay(t.Context(), StageConfig{}, &b.Records[0], r)
		if err != nil {
			t.Fatal(err)
		}
		if same := reflect.DeepEqual(got.Results.Emits, want.Emits); same == (value == "random") {
			t.Errorf("%s with another batch id: got the same answer: %v", value, same)
		}
	}
}

// counting fails each record with the number of records in its call as the
// code, and logs and counts "aaaaa" once a call.
func counting() []byte {
	const ptr, length, p, q = 0, 1, 2, 3
	const result = 0x80000
	text := func(s string) string { return string(testkit.Name(s)) }
	section := func(id byte, s string) string { return string(testkit.Section(id, []byte(s))) }
	num := func(n int) string { // i32.const
		var out []byte
		for v := n; ; v >>= 7 {
			if v < 64 {
				return "\x41" + string(append(out, byte(v)))
			}
			out = append(out, byte(v&0x7f|0x80))
		}
	}
	get := func(i int) string { return "\x20" + string(testkit.Uleb(i)) }
	set := func(i int) string { return "\x21" + string(testkit.Uleb(i)) }
	load := func(at int) string { return "\x28\x02" + string(testkit.Uleb(at)) }
	store := func(at int) string { return "\x36\x02" + string(testkit.Uleb(at)) }
	const add, sub, copies, fill = "\x6a", "\x6b", "\xfc\x0a\x00\x00", "\xfc\x0b\x00"

	batch := "\x01\x02\x7f" + // two locals
		num(0) + num('a') + num(5) + fill +
		num(1) + num(0) + num(5) + "\x10\x00" + // stage.log
		num(0) + num(5) + "\x44\x00\x00\x00\x00\x00\x00\xf0\x3f" + "\x10\x01" + // stage.count
		num(result) + get(ptr) + num(32) + copies +
		num(result) + num(2) + "\x3b\x01\x06" + // kind: result
		num(result) + num(0) + store(12) +
		get(ptr) + num(32) + add + get(ptr) + load(12) + add + set(p) +
		num(result+32) + set(q) +
		"\x03\x40" +
		get(q) + get(p) + num(8) + copies +
		get(q) + num(72) + store(0) +
		get(q) + num(8) + add + num(0) + num(64) + fill +
		get(q) + num(3) + "\x3a\x00\x08" + // outcome: fail
		get(q) + get(ptr) + load(8) + store(36) +
		get(p) + get(p) + load(0) + add + set(p) +
		get(q) + num(72) + add + set(q) +
		get(p) + get(ptr) + get(length) + add + "\x49\x0d\x00" +
		"\x0b" +
		num(result) + get(q) + num(result) + sub + store(0) +
		num(result) + "\xad\x42\x20\x86" + get(q) + num(result) + sub + "\xad\x84" +
		"\x0b"
	return []byte("\x00asm\x01\x00\x00\x00" +
		section(1, "\x05"+"\x60\x03\x7f\x7f\x7f\x00"+"\x60\x03\x7f\x7f\x7c\x00"+"\x60\x00\x00"+"\x60\x01\x7f\x01\x7f"+"\x60\x02\x7f\x7f\x01\x7e") +
		section(2, "\x02"+text("stage")+text("log")+"\x00\x00"+text("stage")+text("count")+"\x00\x01") +
		section(3, "\x03\x02\x03\x04") +
		section(5, "\x01\x00\x10") +
		section(7, "\x04"+text("memory")+"\x02\x00"+text("stage_abi_1")+"\x00\x02"+text("stage_alloc")+"\x00\x03"+text("stage_batch")+"\x00\x04") +
		section(10, "\x03"+text("\x00\x0b")+text("\x00"+num(1<<16)+"\x0b")+text(batch)))
}

// TestAnsweredOtherwiseAlone: a guest that looks at its whole call fails its
// records otherwise when they are alone. The failure stands as the call had it
// and says that it cannot be repeated.
func TestAnsweredOtherwiseAlone(t *testing.T) {
	rt := open(t, Config{Workers: 1})
	m := compile(t, rt, counting())
	var logged, counted int
	cfg := StageConfig{Stage: "s", OnLog: func(LogLine) { logged++ }, OnCount: func(string, float64) { counted++ }}
	s := newStage(t, m, cfg)
	out := testkit.Process(t, s, testkit.Batch("a", "b", "c"))
	if len(out.Failures) != 3 {
		t.Fatalf("got %+v", out)
	}
	for _, f := range out.Failures {
		if f.Err.Class != record.Rejected || f.Err.Code != 3 || f.Replay != nil || f.NoReplay != "alone the record is answered otherwise: rejected (1)" {
			t.Errorf("got %v, %+v, %q", f.Err, f.Replay, f.NoReplay)
		}
	}
	if st := s.Stats(); st.Unrepeatable != 3 || st.Repeats != 3 || st.Calls != 4 || logged != 1 || counted != 1 {
		t.Errorf("got %+v, %d lines logged, %d counts; want those of the first call alone", st, logged, counted)
	}

	b := testkit.Batch("alone")
	out = testkit.Process(t, s, b)
	if len(out.Failures) != 1 || !slices.Equal(out.Failures[0].Replay.Logs, []string{"aaaaa"}) || logged != 2 || counted != 2 {
		t.Fatalf("got %+v, %d lines logged, %d counts", out, logged, counted)
	}
	sameAgain(t, m, cfg, b, &out.Failures[0])
	if logged != 2 || counted != 2 {
		t.Error("a replay logged or counted")
	}

	s = newStage(t, m, StageConfig{Stage: "s", ForgetFailures: true})
	out = testkit.Process(t, s, testkit.Batch("a", "b", "c"))
	if st := s.Stats(); st.Calls != 1 || len(out.Failures) != 3 || out.Failures[0].Replay != nil {
		t.Errorf("failures that are forgotten: got %+v, %+v", st, out.Failures)
	}
}

// TestReplayOfARefusedRecord: what the host refuses before the guest sees it
// has neither logs nor fuel, whatever was called before.
func TestReplayOfARefusedRecord(t *testing.T) {
	m := compile(t, open(t, Config{Workers: 1}), testkit.Read(t, faultyWasm))
	s := newStage(t, m, StageConfig{Stage: "s"})
	testkit.Process(t, s, testkit.Batch("log"))
	b := testkit.Batch("log", strings.Repeat("x", 17<<20), "log")
	out := testkit.Process(t, s, b)
	if len(out.Failures) != 1 || out.Failures[0].In != 1 || out.Failures[0].Err.Class != record.TooLarge {
		t.Fatalf("got %+v", out.Failures)
	}
	if r := out.Failures[0].Replay; r == nil || r.Logs != nil || r.Fuel != 0 {
		t.Errorf("got %+v, want neither logs nor fuel", r)
	}
	sameAgain(t, m, StageConfig{Stage: "s"}, b, &out.Failures[0])
}

func TestReplayRefuses(t *testing.T) {
	rt := open(t, Config{})
	faulty, lines := compile(t, rt, testkit.Read(t, faultyWasm)), compile(t, rt, testkit.Read(t, linesWasm))
	rec := &testkit.Batch("x").Records[0]
	r := &record.Replay{Now: testkit.Now}
	for _, c := range []struct {
		name string
		m    *Module
		cfg  StageConfig
		r    *record.Replay
		want string
		kind bool
	}{
		{"stateful", faulty, StageConfig{Isolation: IsolationFailure}, r, "plugin faulty@1.0.0 cannot be run again on a single record: the stage is stateful", true},
		{"lines: batch", lines, StageConfig{Lines: LinesBatch}, r, "`lines: batch` answers the records of a run together", true},
		{"nothing known", faulty, StageConfig{}, nil, "the circumstances of the call are not known", true},
		{"fuel beyond the node's", faulty, StageConfig{}, &record.Replay{FuelLimit: 50_000_000}, "fuel: 50000000 a record is not from 0 to what this node allows", false},
		{"memory beyond the node's", faulty, StageConfig{}, &record.Replay{MemoryLimit: 1 << 30}, "memory: 1024 MiB is more than this node allows", false},
		{"configuration", faulty, StageConfig{Config: []byte(`{"behaviour":"init-fail"}`)}, r, "the config is not acceptable", false},
	} {
		_, err := c.m.Replay(t.Context(), c.cfg, rec, c.r)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
		if _, ok := errors.AsType[*UnrepeatableError](err); ok != c.kind {
			t.Errorf("%s: got %T", c.name, err)
		}
	}
	s := newStage(t, lines, StageConfig{Stage: "s", Lines: LinesBatch})
	if out := testkit.Process(t, s, testkit.Batch("x", "error: x")); len(out.Failures) != 2 || out.Failures[0].NoReplay != linesBatchReason {
		t.Errorf("lines: batch: got %+v", out.Failures)
	}
	s = newStage(t, faulty, StageConfig{Stage: "s", Isolation: IsolationFailure})
	if out := testkit.Process(t, s, testkit.Batch("fail", "trap")); len(out.Failures) != 2 || out.Failures[0].NoReplay != statefulReason || out.Failures[1].NoReplay != statefulReason {
		t.Errorf("isolation: failure: got %+v", out.Failures)
	}
	// Another configuration is told, not refused.
	got, err := faulty.Replay(t.Context(), StageConfig{Config: []byte(`{"a":1}`)}, rec, &record.Replay{ConfigHash: 5})
	if err != nil || got.ConfigHash == 5 || len(got.Results.Emits) != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
}
