package sandbox

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/millrace-io/millrace/examples/orders/orderstage"
	"github.com/millrace-io/millrace/plugins/abi"
	"github.com/millrace-io/millrace/plugins/internal/testkit"
	"github.com/millrace-io/millrace/runtime/record"
)

// TestBehaviours sends each bad record between two good ones: the good ones
// pass whatever the guest does, the bad one is classified.
func TestBehaviours(t *testing.T) {
	rt := open(t, Config{Workers: 1, MaxFuel: 500_000_000})
	s := stageOf(t, rt, faultyWasm, StageConfig{Flow: "default/f", Stage: "s"})
	for _, c := range []struct {
		value   string
		class   record.Class
		code    uint32
		message string
	}{
		{"fail", record.Rejected, 9, "not acceptable"},
		{"retry", record.Retryable, 7, "come back later"},
		{"trap", record.Trap, 0, "it trapped: unreachable in function"},
		{"panic", record.Trap, 0, "it trapped: unreachable in function"},
		{"stack", record.Trap, 0, "it trapped: stack overflow"},
		{"outside", record.Trap, 0, "it trapped: out of bounds memory access"},
		{"hog", record.Memory, 0, "the limit is 16 MiB"},
		{"missing", record.Protocol, 0, "record 0 (orders/2/1) is not answered"},
		{"doubled", record.Protocol, 0, "record 0 is answered twice, with drop and drop"},
		{"emit-drop", record.Protocol, 0, "record 0 is answered twice, with emit and drop"},
		{"unknown-id", record.Protocol, 0, "answer 0 is for record 1000000"},
		{"unknown-outcome", record.Protocol, 0, "outcome 9 is unknown"},
		{"unknown-output", record.Protocol, 0, "emitted to output 7, the plugin's manifest has 2"},
		{"output1", record.Protocol, 0, `emitted to output "audit", which the flow binds to nothing`},
		{"wrong-length", record.Protocol, 0, "its length is 1048576"},
		{"short-length", record.Protocol, 0, "its length is 8"},
		{"zero-length", record.Protocol, 0, "its length is 0"},
		{"odd-length", record.Protocol, 0, "its length is 73"},
		{"long-key", record.Protocol, 0, "key of 4294967295"},
		{"long-value", record.Protocol, 0, "value of 4294967295"},
		{"long-headers", record.Protocol, 0, "headers of 4294967295"},
		{"bad-headers", record.Protocol, 0, "header 0 of 3 does not fit"},
		{"bad-kind", record.Protocol, 0, "frame of kind 1"},
		{"bad-version", record.Protocol, 0, "frame version 0"},
		{"bad-batch-id", record.Protocol, 0, "answers batch 00000000deadbeef"},
		{"bad-frame-length", record.Protocol, 0, "but 104 were returned"},
		{"bad-offset", record.Protocol, 0, "outside of its memory"},
		{"empty-result", record.Protocol, 0, "the result has 0 bytes"},
		{"short-result", record.Protocol, 0, "the result has 16 bytes"},
		{"zero-result", record.Rejected, 0, "it gave the batch up"},
	} {
		t.Run(c.value, func(t *testing.T) {
			b := testkit.Batch("first", c.value, "last")
			out := testkit.Process(t, s, b)
			if len(out.Emits) != 2 || out.Emits[0].In != 0 || out.Emits[1].In != 2 || len(out.Drops) != 0 || len(out.Failures) != 1 {
				t.Fatalf("got %+v, want the first and the last emitted, one failure", out)
			}
			if !reflect.DeepEqual(out.Emits[0].Record, b.Records[0]) {
				t.Errorf("got %+v, want the record as it was", out.Emits[0].Record)
			}
			f := out.Failures[0]
			if f.In != 1 || f.Err.Class != c.class || f.Err.Code != c.code || !strings.Contains(f.Err.Message, c.message) {
				t.Errorf("got record %d: %v, want record 1, class %v, code %d, %q", f.In, f.Err, c.class, c.code, c.message)
			}
			if strings.ContainsAny(f.Err.Message, "\n\t") || strings.Contains(f.Err.Message, "goroutine") {
				t.Errorf("the message is not one sentence: %q", f.Err.Message)
			}
			if f.Replay == nil || f.Replay.Now != testkit.Now || f.Replay.ConfigHash != s.configHash {
				t.Errorf("got replay %+v", f.Replay)
			}
			// The stack pointer, a global, and the heap are those of the image.
			for range 2 {
				again := testkit.Process(t, s, testkit.Batch("state", "stack-address"))
				if got := string(again.Emits[0].Record.Value); got != "1" {
					t.Errorf("the guest remembers: counter %s, want 1", got)
				}
				if got := string(again.Emits[1].Record.Value); got != stackAddress(t, s) {
					t.Errorf("the stack pointer moved: %s", got)
				}
			}
		})
	}
}

var stackAddressOnce struct {
	sync.Mutex
	of map[*Stage]string
}

// stackAddress is where the guest's stack was in its first call that asked.
func stackAddress(t *testing.T, s *Stage) string {
	stackAddressOnce.Lock()
	defer stackAddressOnce.Unlock()
	if stackAddressOnce.of == nil {
		stackAddressOnce.of = map[*Stage]string{}
	}
	if stackAddressOnce.of[s] == "" {
		fresh, err := s.mod.NewStage(t.Context(), StageConfig{Stage: "s"})
		if err != nil {
			t.Fatal(err)
		}
		out := testkit.Process(t, fresh, testkit.Batch("state", "stack-address"))
		stackAddressOnce.of[s] = string(out.Emits[1].Record.Value)
		if err := fresh.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return stackAddressOnce.of[s]
}

// TestOneOfTenThousand is the promise: one bad record in 10,000, whatever it
// does, and the other 9,999 are emitted in order.
func TestOneOfTenThousand(t *testing.T) {
	rt := open(t, Config{})
	m := compile(t, rt, testkit.Read(t, faultyWasm))
	for _, bad := range []string{"trap", "wrong-length", "missing", "doubled", "unknown-id"} {
		t.Run(bad, func(t *testing.T) {
			s := newStage(t, m, StageConfig{Stage: "s"})
			const n, at, size = 10_000, 6_789, 1_000
			next := int64(0)
			var failures []record.Failure
			for from := 0; from < n; from += size {
				values := make([]string, size)
				for i := range values {
					values[i] = "v" + strconv.Itoa(from+i)
				}
				if from <= at && at < from+size {
					values[at-from] = bad
				}
				b := testkit.Batch(values...)
				for i := range b.Records {
					b.Records[i].Offset = int64(from + i)
				}
				out := testkit.Process(t, s, b)
				for _, e := range out.Emits {
					if next == at {
						next++
					}
					if e.Record.Offset != next || string(e.Record.Value) != "v"+strconv.FormatInt(next, 10) {
						t.Fatalf("got offset %d with %s, want %d", e.Record.Offset, e.Record.Value, next)
					}
					next++
				}
				for _, f := range out.Failures {
					if b.Records[f.In].Offset != at {
						t.Errorf("offset %d failed: %v", b.Records[f.In].Offset, f.Err)
					}
					failures = append(failures, f)
				}
			}
			if next != n || len(failures) != 1 {
				t.Fatalf("emitted up to %d with %d failures, want %d and 1", next, len(failures), n)
			}
			want := record.Protocol
			if bad == "trap" {
				want = record.Trap
			}
			if failures[0].Err.Class != want {
				t.Errorf("got %v, want class %v", failures[0].Err, want)
			}
			if st := s.Stats(); st.Failed != 1 || st.Repeats == 0 || st.Repeats > 40 {
				t.Errorf("got %+v, want 1 failed, found in a few repeats", st)
			}
		})
	}
}

func TestEmissions(t *testing.T) {
	rt := open(t, Config{})
	s := stageOf(t, rt, faultyWasm, StageConfig{Stage: "s", Outputs: []string{"audit"}})
	b := testkit.Batch("emit3", "drop", "output1")
	b.Records[0].Path = "\x00\x05"
	out := testkit.Process(t, s, b)
	var got []string
	for _, e := range out.Emits {
		got = append(got, fmt.Sprintf("%d>%d %s %s %s to=%d", e.In, e.Output, e.Record.ID(), e.Record.Key, e.Record.Value, e.Record.To))
	}
	want := []string{
		"0>0 orders/2/0#5.0 k emit3-0 to=-1", "0>0 orders/2/0#5.1 k emit3-1 to=-1", "0>0 orders/2/0#5.2 k emit3-2 to=-1",
		"2>1 orders/2/2 k output1 to=-1",
	}
	if !slices.Equal(got, want) || !slices.Equal(out.Drops, []int32{1}) {
		t.Errorf("got %q drops %v, want %q and a drop of 1", got, out.Drops, want)
	}
}

// TestDeterminism runs the same batches on several instances and in another
// order and compares everything that comes out.
func TestDeterminism(t *testing.T) {
	rt := open(t, Config{})
	m := compile(t, rt, testkit.Read(t, wasiWasm))
	values := []string{"random", "time", "random", "monotonic", "sleep", "stderr", "stdout", "args", "env", "stdin", "pass"}
	first := newStage(t, m, StageConfig{Stage: "s", FlowUID: 7})
	want := testkit.Process(t, first, testkit.Batch(values...))
	if len(want.Emits) != len(values) {
		t.Fatalf("got failures %+v", want.Failures)
	}
	for i := range 3 {
		s := newStage(t, m, StageConfig{Stage: "s", FlowUID: 7})
		for range i {
			testkit.Process(t, s, testkit.Batch("random", "panic", "time"))
		}
		for _, s := range []*Stage{first, s} {
			if got := testkit.Process(t, s, testkit.Batch(values...)); !reflect.DeepEqual(got, want) {
				t.Errorf("run %d: got %+v\nwant %+v", i, got, want)
			}
		}
	}
	other := newStage(t, m, StageConfig{Stage: "s", FlowUID: 8})
	if got := testkit.Process(t, other, testkit.Batch(values...)); reflect.DeepEqual(got.Emits[0], want.Emits[0]) {
		t.Errorf("another flow has the same random: %s", got.Emits[0].Record.Value)
	}
	for i, v := range map[int]string{1: "1760000000000000", 7: "", 8: "", 9: "0"} {
		got := string(want.Emits[i].Record.Value)
		if i == 1 {
			// The clock is now, plus 1 us for each reading before it.
			got, v = got[:13], v[:13]
		}
		if got != v {
			t.Errorf("%s: got %q, want %q", values[i], got, v)
		}
	}
	if ms, err := strconv.Atoi(string(want.Emits[4].Record.Value)); err != nil || ms != 250 {
		t.Errorf("a sleep of 250 ms took %s ms of the guest's clock, want 250", want.Emits[4].Record.Value)
	}
	if string(want.Emits[0].Record.Value) == string(want.Emits[2].Record.Value) {
		t.Error("two readings of random are the same")
	}
}

func TestImages(t *testing.T) {
	rt := open(t, Config{Workers: 3})
	m := compile(t, rt, testkit.Read(t, ordersWasm))
	a, b := newStage(t, m, StageConfig{Stage: "s"}), newStage(t, m, StageConfig{Stage: "t"})
	if !a.image.equal(b.image) {
		t.Error("two stages have different images of the same plugin and configuration")
	}
	in, err := a.clone(a.image)
	if err != nil {
		t.Fatal(err)
	}
	if string(in.view()) != string(a.image.memory) {
		t.Error("a clone's memory differs from the image")
	}
	in.close()
	in.close()
}

func TestWASIIsRestricted(t *testing.T) {
	rt := open(t, Config{Workers: 1})
	s := stageOf(t, rt, wasiWasm, StageConfig{Stage: "s"})
	out := testkit.Process(t, s, testkit.Batch("open", "exit", "exit0", "panic", "pass"))
	if len(out.Emits) != 1 || out.Emits[0].In != 4 || len(out.Failures) != 4 {
		t.Fatalf("got %+v", out)
	}
	for i, want := range []string{"", "it ended itself with proc_exit(3)", "it ended itself with proc_exit(0)", "panic: told on STDERR"} {
		f := out.Failures[i]
		if f.In != int32(i) || !strings.Contains(f.Err.Message, want) {
			t.Errorf("got record %d: %v, want record %d: %q", f.In, f.Err, i, want)
		}
	}
	if c := out.Failures[0].Err.Class; c != record.Rejected {
		t.Errorf("opening a file: class %v, want the guest's own refusal", c)
	}
}

type heard struct {
	mu     sync.Mutex
	lines  []string
	counts map[string]float64
}

func (h *heard) log(l LogLine) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lines = append(h.lines, l.Level.String()+" "+l.Text)
}

func (h *heard) count(name string, delta float64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.counts == nil {
		h.counts = map[string]float64{}
	}
	h.counts[name] += delta
}

func TestLogsAndCounts(t *testing.T) {
	rt := open(t, Config{Workers: 1, MaxFuel: 500_000_000})
	m := compile(t, rt, testkit.Read(t, faultyWasm))
	var h heard
	s := newStage(t, m, StageConfig{Stage: "s", OnLog: h.log, OnCount: h.count})
	out := testkit.Process(t, s, testkit.Batch("count", "log", "count-trap", "log", "count"))
	if want := []string{"INFO log: hello from faulty", "ERROR count-trap: trapping after a count", "INFO log: hello from faulty"}; !slices.Equal(h.lines, want) {
		t.Errorf("got lines %q, want %q: each once", h.lines, want)
	}
	if h.counts["faulty.records"] != 3 {
		t.Errorf("counted %v, want 3: each record once, however often it was run", h.counts)
	}
	if len(out.Failures) != 1 || !slices.Equal(out.Failures[0].Replay.Logs, []string{"count-trap: trapping after a count"}) {
		t.Errorf("got failures %+v, want one with its log", out.Failures)
	}
	if want := abi.BatchID(0, "s", record.Partition{Topic: "orders", Num: 2}, 2, 1); out.Failures[0].Replay.BatchID != want {
		t.Errorf("got batch id %x, want %x, of the record alone", out.Failures[0].Replay.BatchID, want)
	}

	h.lines = nil
	testkit.Process(t, s, testkit.Batch("log-flood"))
	st := s.Stats()
	if n := len(h.lines); n == 0 || n > LogBurst+10 || st.LogsDropped == 0 || int64(n)+st.LogsDropped != 10_000 {
		t.Errorf("%d lines passed on, %d dropped, want 10000 together and few passed on", n, st.LogsDropped)
	}
	out = testkit.Process(t, newStage(t, m, StageConfig{Stage: "s"}), testkit.Batch("trap"))
	if logs := out.Failures[0].Replay.Logs; len(logs) != 1 {
		t.Errorf("got logs %q, want one line", logs)
	}
}

func TestConfiguration(t *testing.T) {
	rt := open(t, Config{Workers: 1})
	m := compile(t, rt, testkit.Read(t, faultyWasm))
	var h heard
	for _, c := range []struct {
		name, config string
		code         int32
		want         string
	}{
		{"refused", `{"behaviour":"init-fail"}`, 3, "start plugin faulty@1.0.0: stage_init refused the configuration with code 3: init-fail: the config is not acceptable"},
		{"trap", `{"behaviour":"init-trap"}`, 0, "stage_init: it trapped: unreachable in function"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := m.NewStage(t.Context(), StageConfig{Stage: "s", Config: []byte(c.config)})
			e, ok := errors.AsType[*InitError](err)
			if !ok || e.Code != c.code || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want code %d and %q", err, c.code, c.want)
			}
		})
	}
	for _, c := range []struct{ name, config, want string }{
		{"alloc0", `{"behaviour":"alloc0"}`, "stage_alloc answered that it has none"},
		{"alloc-outside", `{"behaviour":"alloc-outside"}`, "stage_alloc answered 0xffffff00 for 131072 bytes, outside of its memory"},
		{"not json", `{`, "it is no JSON"},
	} {
		_, err := m.NewStage(t.Context(), StageConfig{Stage: "s", Config: []byte(c.config)})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
	newStage(t, m, StageConfig{Stage: "s", Config: []byte(`{"behaviour":"init-echo"}`), OnLog: h.log})
	if want := []string{`INFO {"behaviour":"init-echo"}`}; !slices.Equal(h.lines, want) {
		t.Errorf("got %q, want %q: the start is logged once", h.lines, want)
	}
	drops := newStage(t, m, StageConfig{Stage: "s", Config: []byte(`{"behaviour":"drop"}`)})
	if out := testkit.Process(t, drops, testkit.Batch("a", "b")); len(out.Drops) != 2 {
		t.Errorf("got %+v, want two drops", out)
	}
	_, err := m.NewStage(t.Context(), StageConfig{Stage: "s", Isolation: "never", Lines: "all", Envelope: true, Outputs: []string{"nope"}, MemoryBytes: 1 << 40})
	for _, want := range []string{`isolation: "never" is none of`, `lines: "all" is neither`, "envelope:", `no output "nope"`, "more than this node allows, 64 MiB"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	upper := compile(t, rt, testkit.Read(t, upperWasm))
	if _, err := upper.NewStage(t.Context(), StageConfig{Config: []byte(`{"a":1}`)}); err == nil || !strings.Contains(err.Error(), "it exports no stage_init") {
		t.Errorf("got %v, want that it takes no configuration", err)
	}
}

func TestMemoryLimit(t *testing.T) {
	rt := open(t, Config{Workers: 1})
	m := compile(t, rt, testkit.Read(t, upperWasm))
	s := newStage(t, m, StageConfig{Stage: "s", MemoryBytes: 2 << 20})
	big := strings.Repeat("x", 300<<10)
	huge := strings.Repeat("y", 1500<<10)
	beyond := strings.Repeat("z", 3<<20)
	out := testkit.Process(t, s, testkit.Batch(big, big, huge, beyond, "a", big))
	if len(out.Emits) != 4 {
		t.Errorf("%d emitted, want the four that fit", len(out.Emits))
	}
	for _, e := range out.Emits {
		if e.Record.Value[0] != 'X' && e.Record.Value[0] != 'A' {
			t.Errorf("record %d is not in upper case", e.In)
		}
	}
	if len(out.Failures) != 2 {
		t.Fatalf("got failures %+v, want two", out.Failures)
	}
	for i, c := range []struct {
		in    int32
		class record.Class
	}{{2, record.Memory}, {3, record.TooLarge}} {
		f := out.Failures[i]
		if f.In != c.in || f.Err.Class != c.class || !strings.Contains(f.Err.Message, "2 MiB") {
			t.Errorf("got record %d: %v, want record %d, class %v, with the limit", f.In, f.Err, c.in, c.class)
		}
	}
}

// TestImageLevels shows that growth makes new instances, and that batches that
// grow again and again get an image that holds them.
func TestImageLevels(t *testing.T) {
	rt := open(t, Config{Workers: 1, MaxFuel: 500_000_000})
	s := stageOf(t, rt, upperWasm, StageConfig{Stage: "s"})
	b := testkit.Batch(strings.Repeat("x", 600<<10))
	for range 6 {
		if out := testkit.Process(t, s, b); len(out.Emits) != 1 || out.Failures != nil {
			t.Fatalf("got %+v", out)
		}
	}
	if st := s.Stats(); st.ImageLevel == 0 {
		t.Errorf("got level 0 after 6 calls that needed more: %+v", st)
	}
	for range raiseAfter * maxImageLevel {
		testkit.Process(t, s, b)
	}
	before := s.Stats()
	for range 5 {
		testkit.Process(t, s, b)
	}
	if after := s.Stats(); after.Instances != before.Instances || after.ImageLevel != before.ImageLevel || after.Restores != before.Restores+5 {
		t.Errorf("the image still does not hold the batch: before %+v after %+v", before, after)
	}
	grows := stageOf(t, rt, faultyWasm, StageConfig{Stage: "s"})
	for range 5 {
		if out := testkit.Process(t, grows, testkit.Batch("grow", "state")); string(out.Emits[1].Record.Value) != "1" {
			t.Errorf("got state %s, want 1", out.Emits[1].Record.Value)
		}
	}
	if st := grows.Stats(); st.Instances < 5 || st.Failed != 0 {
		t.Errorf("got %+v, want a new instance for each call that grew memory", st)
	}
}

func TestInexactModuleGetsFreshInstances(t *testing.T) {
	wasm := testkit.Read(t, faultyWasm)
	rt := open(t, Config{Workers: 1})
	m := compile(t, rt, wasm)
	exact := *m.info
	exact.ExactRestore = false
	m.info = &exact
	s := newStage(t, m, StageConfig{Stage: "s"})
	for range 3 {
		if out := testkit.Process(t, s, testkit.Batch("state", "trap")); len(out.Emits) != 1 || string(out.Emits[0].Record.Value) != "1" || len(out.Failures) != 1 {
			t.Errorf("got %+v", out)
		}
	}
	if st := s.Stats(); st.Restores != 0 || st.Clones != 0 || st.Instances < 9 {
		t.Errorf("got %+v, want fresh instances and no restores", st)
	}
}

// TestLanes calls one stage from many goroutines with few workers.
func TestLanes(t *testing.T) {
	rt := open(t, Config{Workers: 2})
	s := stageOf(t, rt, faultyWasm, StageConfig{Stage: "s"})
	var wg sync.WaitGroup
	for lane := range 8 {
		wg.Go(func() {
			var out record.Results
			for i := range 20 {
				out.Reset()
				bad := []string{"trap", "grow", "missing", "emit3", "pass"}[(lane+i)%5]
				if err := s.Process(context.Background(), testkit.Batch("state", bad, "state"), &out); err != nil {
					t.Error(err)
					return
				}
				if len(out.Emits) < 2 || string(out.Emits[0].Record.Value) != "1" {
					t.Errorf("lane %d: got %+v", lane, out)
					return
				}
			}
		})
	}
	wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.idle) > 2 {
		t.Errorf("%d instances, want at most the 2 workers'", len(s.idle))
	}
}

func TestProcessEnds(t *testing.T) {
	rt := open(t, Config{Workers: 1})
	s := stageOf(t, rt, upperWasm, StageConfig{Stage: "s"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	out := record.Results{Drops: []int32{9}}
	if err := s.Process(ctx, testkit.Batch("a"), &out); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	// All workers busy: waits for one until ctx ends.
	if err := s.gate.Enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Process(ctx, testkit.Batch("a"), &out); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if err := s.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("close with a call running: got %v, want context.Canceled", err)
	}
	s.gate.Leave()
	if err := s.Process(t.Context(), testkit.Batch("a"), &out); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
	if len(out.Emits) != 0 || len(out.Drops) != 1 {
		t.Errorf("calls that did not run left answers: %+v", out)
	}
	s.closeErr = nil
	if err := s.Process(t.Context(), &record.Batch{}, &out); err != nil {
		t.Errorf("an empty batch: %v", err)
	}
}

// TestOrders compares the example plugin with the native twin.
func TestOrders(t *testing.T) {
	rt := open(t, Config{})
	s := stageOf(t, rt, ordersWasm, StageConfig{Stage: "s"})
	b := &record.Batch{Now: testkit.Now, Records: orderEvents(t, 1000)}
	got := testkit.Process(t, s, b)
	var want record.Results
	orderstage.Batch(b, &want)
	if !slices.Equal(got.Drops, want.Drops) || len(got.Emits) != len(want.Emits) || len(got.Failures) != len(want.Failures) {
		t.Fatalf("got %d emits, %d drops, %d failures, want %d, %d, %d", len(got.Emits), len(got.Drops), len(got.Failures), len(want.Emits), len(want.Drops), len(want.Failures))
	}
	for i := range want.Emits {
		if string(got.Emits[i].Record.Value) != string(want.Emits[i].Record.Value) {
			t.Fatalf("emit %d: got %s\nwant %s", i, got.Emits[i].Record.Value, want.Emits[i].Record.Value)
		}
	}
}

func TestAllocations(t *testing.T) {
	if testkit.Race {
		t.Skip("the race detector allocates")
	}
	rt := open(t, Config{Workers: 1})
	s := stageOf(t, rt, ordersWasm, StageConfig{Stage: "s"})
	b := &record.Batch{Now: testkit.Now, Records: orderEvents(t, 128)}
	var out record.Results
	if got := testing.AllocsPerRun(50, func() {
		out.Reset()
		if err := s.Process(t.Context(), b, &out); err != nil {
			t.Fatal(err)
		}
	}); got > 5 {
		t.Errorf("%v allocations for a batch of 128, want at most 5", got)
	}
}

// TestHostileArguments gives host functions what no honest guest gives them.
func TestHostileArguments(t *testing.T) {
	rt := open(t, Config{Workers: 1})
	i32 := func(v uint32) []byte {
		b := []byte{0x41}
		for x := int64(int32(v)); ; x >>= 7 {
			c := byte(x & 0x7f)
			if rest := x >> 7; rest == 0 && c&0x40 == 0 || rest == -1 && c&0x40 != 0 {
				return append(b, c)
			}
			b = append(b, c|0x80)
		}
	}
	call := func(drop bool, args ...[]byte) []byte {
		b := append(slices.Concat(args...), 0x10, 0)
		if drop {
			b = append(b, 0x1a)
		}
		return append(b, 0x42, 0) // stage_batch answers 0
	}
	for _, c := range []struct {
		name, module, function string
		body                   []byte
		class                  record.Class
		want                   string
	}{
		{"log outside", "stage", "log", call(false, i32(0), i32(524_000), i32(4096)), record.Trap, "it called stage.log with 4096 bytes at 0x7fee0, outside of its memory"},
		{"count outside", "stage", "count", call(false, i32(1<<32-1), i32(1<<32-1), append([]byte{0x44}, make([]byte, 8)...)), record.Trap, "it called stage.count"},
		{"poll overflow", wasiModule, "poll_oneoff", call(true, i32(0), i32(0), i32(0x5555556), i32(64)), record.Rejected, "it gave the batch up"},
		{"write outside", wasiModule, "fd_write", call(true, i32(2), i32(524_287), i32(1<<32-1), i32(0)), record.Rejected, "it gave the batch up"},
		{"random outside", wasiModule, "random_get", call(true, i32(524_287), i32(1<<32-1)), record.Rejected, "it gave the batch up"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := minimal()
			a.memory = []byte{0, 8}
			a.imports = []asmImport{{c.module, c.function, hostModules[c.module][c.function]}}
			a.funcs[1].body = i32(1 << 17)
			a.funcs[2].body = c.body
			s := newStage(t, compile(t, rt, a.build()), StageConfig{Stage: "s"})
			for range 2 {
				out := testkit.Process(t, s, testkit.Batch("a"))
				if len(out.Failures) != 1 || out.Failures[0].Err.Class != c.class || !strings.Contains(out.Failures[0].Err.Message, c.want) {
					t.Errorf("got %+v, want class %v and %q", out.Failures, c.class, c.want)
				}
			}
		})
	}
}

func TestLogLines(t *testing.T) {
	var e World
	e.Begin(0, 0)
	w, other := e.Stderr(), e.Stdout()
	for _, s := range []string{"one\r\ntw", "o\n\n\x1b[31mred\xff\n", strings.Repeat("x", MaxLineBytes+10), "\nend"} {
		if n, err := w.Write([]byte(s)); n != len(s) || err != nil {
			t.Fatalf("wrote %d, %v", n, err)
		}
		if _, err := other.Write([]byte("o")); err != nil {
			t.Fatal(err)
		}
	}
	e.Finish()
	want := []string{"one", "two", "\uFFFD[31mred\uFFFD", strings.Repeat("x", MaxLineBytes), strings.Repeat("x", 10), "oooo", "end"}
	if got := e.Texts(); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	e.Begin(0, 0)
	if _, err := w.Write([]byte(strings.Repeat("y\n", maxCallLogBytes+5))); err != nil {
		t.Fatal(err)
	}
	got := e.Texts()
	if len(got) != maxCallLogBytes+1 || got[len(got)-1] != "(5 more lines were not kept)" {
		t.Errorf("%d lines kept, the last %q", len(got), got[len(got)-1])
	}
}
