package sandbox

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/plugins/internal/testkit"
	"github.com/millrace-io/millrace/runtime/record"
)

// goProgram compiles a WASI command written in Go.
func goProgram(tb testing.TB) []byte {
	tb.Helper()
	if testing.Short() {
		tb.Skip("compiles a program")
	}
	file := filepath.Join(tb.TempDir(), "program.wasm")
	cmd := exec.CommandContext(tb.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", file, "./testdata/goprogram")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("go build: %v\n%s", err, out)
	}
	return testkit.Read(tb, file)
}

// sameAsFresh runs the values through programs that are brought back and
// through ones that are made anew for each record, and compares everything.
func sameAsFresh(t *testing.T, m *Module, values []string, least int64) {
	t.Helper()
	forked := newStage(t, m, StageConfig{Stage: "s"})
	fresh := newStage(t, m, StageConfig{Stage: "s"})
	fresh.forks.Store(0)
	for _, p := range fresh.programs {
		p.close()
	}
	fresh.programs = nil
	b := testkit.Batch(values...)
	got, want := testkit.Process(t, forked, b), testkit.Process(t, fresh, b)
	text := func(fs []record.Failure) (out []string) {
		for _, f := range fs {
			out = append(out, fmt.Sprintf("%d %v %+v", f.In, f.Err, *f.Replay))
		}
		return out
	}
	if !reflect.DeepEqual(got.Emits, want.Emits) || !reflect.DeepEqual(got.Drops, want.Drops) || !reflect.DeepEqual(text(got.Failures), text(want.Failures)) {
		t.Errorf("brought back and fresh differ:\n%+v\n%+v", got, want)
	}
	n := int64(len(values))
	if st := fresh.Stats(); st.Restores != 0 || st.Instances != n+1 {
		t.Errorf("fresh: got %+v, want an instance a record", st)
	}
	if st := forked.Stats(); st.Restores < least || st.Restores+st.Instances != n || st.Fuel != fresh.Stats().Fuel {
		t.Errorf("got %+v, want %d runs, at least %d of them brought back, and the fuel of fresh ones, %d", st, n, least, fresh.Stats().Fuel)
	}
}

func TestForkIsExact(t *testing.T) {
	rt := open(t, Config{Workers: 1})
	random := rand.New(rand.NewPCG(1, 2))
	var values []string
	for range 600 {
		switch random.IntN(20) {
		case 0:
			values = append(values, "error "+strings.Repeat("x", random.IntN(100)))
		case 1:
			values = append(values, "a secret")
		case 2:
			values = append(values, strings.Repeat("long ", random.IntN(100_000)))
		default:
			values = append(values, strings.Repeat("word ", random.IntN(50)))
		}
	}
	sameAsFresh(t, compile(t, rt, testkit.Read(t, linesWasm)), values, 400)
}

func TestForkIsExactForGo(t *testing.T) {
	rt := open(t, Config{Workers: 1})
	m := compile(t, rt, goProgram(t))
	sameAsFresh(t, m, []string{"a b c d e f", "a b", "exit 3", "c d", "panic now", "big", "", "a b c", "exit", "a b c d e f"}, 3)
	s := newStage(t, m, StageConfig{Stage: "s"})
	out := testkit.Process(t, s, testkit.Batch("x y z", "x y z"))
	if len(out.Emits) != 4 || string(out.Emits[0].Record.Value) != "before the first read" || !strings.HasPrefix(string(out.Emits[3].Record.Value), "1 3 1760000000") {
		t.Errorf("got %+v, want the line from before the read, and one of a program that remembers nothing", out.Emits)
	}
}

// TestForkLimits: programs that come to their first read in an unusual way.
func TestForkLimits(t *testing.T) {
	rt := open(t, Config{Workers: 1})
	read := asmImport{wasiModule, "fd_read", "(i32, i32, i32, i32) -> i32"}
	run := func(a asm) Stats {
		t.Helper()
		s := newStage(t, compile(t, rt, a.build()), StageConfig{Stage: "s"})
		for range 4 {
			if out := testkit.Process(t, s, testkit.Batch("a", "b", "c")); len(out.Drops) != 3 {
				t.Fatalf("got %+v, want 3 drops", out)
			}
		}
		return s.Stats()
	}
	call := []byte{0x41, 0, 0x41, 0, 0x41, 0, 0x41, 8, 0x10, 0, 0x1a} // fd_read(0, 0, 0, 8), drop
	plain := command()
	plain.imports = []asmImport{read}
	plain.funcs[0].body = call
	if st := run(plain); st.Instances != 1 || st.Restores != 11 {
		t.Errorf("got %+v, want one instance and 11 restores", st)
	}
	same := command()
	same.imports = []asmImport{read}
	same.funcs[0].body = append(call[:len(call):len(call)], 0x41, 0, 0x40, 0, 0x1a)
	if st := run(same); st.Restores != 11 {
		t.Errorf("memory.grow 0: got %+v, want 11 restores", st)
	}
	grows := command()
	grows.imports = []asmImport{read}
	grows.funcs[0].body = append(call[:len(call):len(call)], 0x41, 1, 0x40, 0, 0x1a)
	if st := run(grows); st.Restores != 0 || st.Instances != 12 {
		t.Errorf("memory.grow 1: got %+v, want 12 instances", st)
	}
	// fd_read far down the stack: the snapshots would take too much memory.
	deep := command()
	deep.imports = []asmImport{read}
	deep.funcs = []asmFunc{
		{export: "_start", typ: "()", body: []byte{0x41, 0xa0, 0x8d, 0x06, 0x10, 2}}, // call 2 with 100,000
		{typ: "(i32)", body: append(append([]byte{0x20, 0, 0x04, 0x40, 0x20, 0, 0x41, 1, 0x6b, 0x10, 2, 0x05}, call...), 0x0b)},
	}
	if st := run(deep); st.Instances+st.Restores != 12 || st.Restores > 11 {
		t.Errorf("deep stack: got %+v, want 12 runs", st)
	}
}

// TestLinesBatch: the batch is one unit.
func TestLinesBatch(t *testing.T) {
	rt := open(t, Config{Workers: 1})
	s := stageOf(t, rt, linesWasm, StageConfig{Stage: "s", Lines: LinesBatch})
	for range 3 {
		out := testkit.Process(t, s, testkit.Batch("abc", "a secret", "two\nlines", "def"))
		if !out.Unit || len(out.Emits) != 2 || len(out.Failures) != 1 || out.Failures[0].In != 2 || out.Failures[0].Err.Class != record.Schema ||
			!reflect.DeepEqual(out.Drops, []int32{1, 3}) {
			t.Fatalf("got %+v, want two lines, two drops, one failure", out)
		}
		for i, want := range []string{"ABC", "DEF"} {
			e := out.Emits[i]
			if e.In != 0 || string(e.Record.Value) != want || e.Record.Key != nil || e.Record.Headers != nil || e.Record.ID() != fmt.Sprintf("orders/2/0#%d", i) {
				t.Errorf("got %+v, want %s of record 0 without key and headers", e, want)
			}
		}
		out = testkit.Process(t, s, testkit.Batch("abc", "error", "def"))
		if out.Unit || len(out.Emits) != 0 || len(out.Drops) != 0 || len(out.Failures) != 3 {
			t.Fatalf("got %+v, want three failures", out)
		}
		for _, f := range out.Failures {
			if f.Replay != nil || f.Err.Class != record.Rejected || f.Err.Code != 1 || f.Err.Message != `the batch of 3 records failed as a whole: cannot work on "error"` {
				t.Errorf("got %v %+v, want the failure of the batch, without replay", f.Err, f.Replay)
			}
		}
		if out = testkit.Process(t, s, testkit.Batch("secret", "secret")); len(out.Drops) != 2 || len(out.Emits) != 0 {
			t.Errorf("got %+v, want two drops", out)
		}
		if out = testkit.Process(t, s, testkit.Batch("a\nb")); len(out.Failures) != 1 || out.Unit {
			t.Errorf("got %+v, want one failure", out)
		}
	}
	if st := s.Stats(); st.Restores == 0 || st.Instances > 3 {
		t.Errorf("got %+v, want a program that is brought back", st)
	}
}
