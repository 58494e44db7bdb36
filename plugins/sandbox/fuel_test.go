package sandbox

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/plugins/internal/testkit"
	"github.com/millrace-io/millrace/runtime/record"
)

func TestFuelIsSplitBeforeItIsBlamed(t *testing.T) {
	rt := open(t, Config{Workers: 1})
	s := stageOf(t, rt, upperWasm, StageConfig{Stage: "s"})
	s.perByte = 0
	values := make([]string, 40)
	for i := range values {
		values[i] = strings.Repeat("x", 60_000)
	}
	// One call cannot have the fuel for all of them.
	if out := testkit.Process(t, s, testkit.Batch(values...)); len(out.Emits) != len(values) {
		t.Fatalf("got %d failures, the first %v", len(out.Failures), out.Failures[0].Err)
	}
	st := s.Stats()
	if st.Repeats == 0 || st.Fuel < callFuel {
		t.Errorf("got %+v, want a call that was repeated in parts", st)
	}
	testkit.Process(t, s, testkit.Batch(values...))
	if again := s.Stats(); again.Repeats != st.Repeats {
		t.Errorf("got %d repeats, then %d: nothing was learned", st.Repeats, again.Repeats)
	}

	poor := newStage(t, s.mod, StageConfig{Stage: "s", Fuel: 20_000})
	poor.perByte = 0
	out := testkit.Process(t, poor, testkit.Batch("a", values[0], "b"))
	if len(out.Emits) != 2 || len(out.Failures) != 1 {
		t.Fatalf("got %+v, want one failure", out)
	}
	f := out.Failures[0]
	if want := fmt.Sprintf("it used up its fuel: %d units, the budget is 20000", f.Replay.Fuel); f.In != 1 || f.Err.Class != record.Fuel || f.Err.Message != want || f.Replay.Fuel <= 20_000 {
		t.Errorf("got record %d: %v %+v, want class fuel, %q", f.In, f.Err, f.Replay, want)
	}
}

// TestFuelIsTheSame: the same batch from the same image costs the same.
func TestFuelIsTheSame(t *testing.T) {
	for _, file := range []string{ordersWasm, wasiWasm, faultyWasm} {
		var want int64
		for range 2 {
			s := stageOf(t, open(t, Config{Workers: 1}), file, StageConfig{Stage: "s"})
			for range 3 {
				before := s.Stats().Fuel
				b := testkit.Batch("a", "b", "c")
				b.Records = append(b.Records, orderEvents(t, 5)...)
				testkit.Process(t, s, b)
				got := s.Stats().Fuel - before
				if want == 0 {
					want = got
				}
				if got != want || got == 0 {
					t.Errorf("%s: got %d units, then %d", file, want, got)
				}
			}
		}
	}
}

func TestFuelLimits(t *testing.T) {
	rt := open(t, Config{Workers: 1, MaxFuel: 50_000})
	m := compile(t, rt, withManifest(minimal(), `{"fuel_per_record":10000}`).build())
	large := compile(t, rt, withManifest(minimal(), `{"fuel_per_record":10000000}`).build())
	for _, c := range []struct {
		mod        *Module
		fuel, want int64
	}{{m, 0, 10_000}, {m, 30_000, 30_000}, {large, 0, 50_000}, {compile(t, rt, minimal().build()), 0, 50_000}} {
		s := &Stage{rt: rt, mod: c.mod, cfg: StageConfig{Fuel: c.fuel}}
		if err := s.configure(); err != nil || s.Fuel() != c.want {
			t.Errorf("got %d, %v, want %d", s.Fuel(), err, c.want)
		}
	}
	for _, fuel := range []int64{-1, 50_001} {
		s := &Stage{rt: rt, mod: m, cfg: StageConfig{Fuel: fuel}}
		if err := s.configure(); err == nil || !strings.Contains(err.Error(), "what this node allows, 50000") {
			t.Errorf("fuel %d: got %v, want an error", fuel, err)
		}
	}
	s := Stage{fuel: 100_000}
	if s.budget(1, 0) != 100_000 || s.budget(5, 0) != 500_000 || s.budget(1000, 0) != callFuel {
		t.Errorf("got budgets %d, %d, %d", s.budget(1, 0), s.budget(5, 0), s.budget(1000, 0))
	}
	s.perByte = fuelPerByte
	if got := s.budget(1, 1<<20); got != 100_000+fuelPerByte<<20 {
		t.Errorf("got budget %d for a record of 1 MiB", got)
	}
	if got := s.budget(4, 4<<10); got != 400_000+fuelPerByte<<10 {
		t.Errorf("got budget %d for 4 records of 1 KiB", got)
	}
	if s.fuel = 9_000_000; s.budget(1, 0) != 9_000_000 || s.budget(1000, 0) != 9_000_000 {
		t.Errorf("got budgets %d, %d", s.budget(1, 0), s.budget(1000, 0))
	}
	if _, err := New(t.Context(), Config{MaxFuel: -1}); err == nil || !strings.Contains(err.Error(), "fuel limit: -1") {
		t.Errorf("got %v, want the fault", err)
	}
}

// A large record is no worse for its size: the budget grows with it.
func TestFuelGrowsWithTheRecord(t *testing.T) {
	s := stageOf(t, open(t, Config{Workers: 1}), upperWasm, StageConfig{Stage: "s"})
	if out := testkit.Process(t, s, testkit.Batch("a", strings.Repeat("x", 1<<20), "b")); len(out.Emits) != 3 {
		t.Errorf("got %v, want three records", out.Failures[0].Err)
	}
}

// Honest plugins have room: five times what they take for a small record, four
// for a large one.
func TestFuelLeavesRoom(t *testing.T) {
	rt := open(t, Config{Workers: 1})
	large := strings.Repeat(`{"order_id": 1, "text": "some words"} `, 1<<20/38)
	for file, room := range map[string]int64{ordersWasm: 100, upperWasm: 100, linesWasm: 50} {
		s := stageOf(t, rt, file, StageConfig{Stage: "s"})
		small := testkit.Batch()
		small.Records = orderEvents(t, 1)
		for _, b := range []*record.Batch{small, testkit.Batch(large)} {
			before := s.Stats().Fuel
			if out := testkit.Process(t, s, b); len(out.Failures) > 0 && out.Failures[0].Err.Class == record.Fuel {
				t.Fatalf("%s: %v", file, out.Failures[0].Err)
			}
			if got, have := s.Stats().Fuel-before, s.budget(1, len(b.Records[0].Value)); got*room > have {
				t.Errorf("%s: a record of %d bytes takes %d units of %d", file, len(b.Records[0].Value), got, have)
			}
			room = 4
		}
	}
}

// TestLinesBatchIsSplit: a program gets less at once rather than no fuel.
func TestLinesBatchIsSplit(t *testing.T) {
	rt := open(t, Config{Workers: 1})
	s := stageOf(t, rt, linesWasm, StageConfig{Stage: "s", Lines: LinesBatch})
	s.perByte = 0
	values := make([]string, 40)
	for i := range values {
		values[i] = strings.Repeat("x", 20_000)
	}
	out := testkit.Process(t, s, testkit.Batch(values...))
	if len(out.Emits) != len(values) || len(out.Drops)+emitters(out) != len(values) || !out.Unit {
		t.Errorf("got %d lines, %d drops, %d failures", len(out.Emits), len(out.Drops), len(out.Failures))
	}
	if st := s.Stats(); st.Repeats == 0 {
		t.Errorf("got %+v, want a run that was split", st)
	}
}

// emitters counts the records that have emissions.
func emitters(out *record.Results) int {
	seen := map[int32]bool{}
	for _, e := range out.Emits {
		seen[e.In] = true
	}
	return len(seen)
}

func TestIsolation(t *testing.T) {
	rt := open(t, Config{Workers: 1})
	m := compile(t, rt, testkit.Read(t, faultyWasm))
	states := func(out *record.Results) (s string) {
		for _, e := range out.Emits {
			s += string(e.Record.Value)
		}
		return s
	}
	for _, c := range []struct{ isolation, want string }{
		{IsolationBatch, "12 12 12 1f1 12"}, {IsolationRecord, "11 11 11 1f1 11"}, {IsolationFailure, "12 34 56 1f1 23"},
	} {
		s := newStage(t, m, StageConfig{Stage: "s", Isolation: c.isolation})
		var got []string
		for _, values := range [][]string{{"state", "state"}, {"state", "state"}, {"state", "state"}, {"state", "trap", "state"}, {"state", "state"}} {
			out := testkit.Process(t, s, testkit.Batch(values...))
			text := states(out)
			if len(out.Failures) > 0 {
				text = text[:1] + "f" + text[1:]
				if f := out.Failures[0]; (f.Replay == nil) != (c.isolation == IsolationFailure) {
					t.Errorf("%s: got replay %+v", c.isolation, f.Replay)
				}
			}
			got = append(got, text)
		}
		if g := strings.Join(got, " "); g != c.want {
			t.Errorf("%s: got states %q, want %q", c.isolation, g, c.want)
		}
		if stateful := c.isolation == IsolationFailure; s.Stateful() != stateful || s.Stats().Stateful != stateful {
			t.Errorf("%s: stateful is %v", c.isolation, s.Stateful())
		}
	}
	// What an instance that grew remembers is not lost.
	upper := newStage(t, m, StageConfig{Stage: "s", Isolation: IsolationFailure})
	for i, want := range []string{"1", "2", "3"} {
		out := testkit.Process(t, upper, testkit.Batch("state", "grow"))
		if got := string(out.Emits[0].Record.Value); got != want {
			t.Errorf("call %d: got state %s, want %s", i, got, want)
		}
	}
	lines := compile(t, rt, testkit.Read(t, linesWasm))
	for _, cfg := range []StageConfig{{Isolation: IsolationFailure}, {Isolation: IsolationRecord, Lines: LinesBatch}} {
		if _, err := lines.NewStage(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "isolation: ") {
			t.Errorf("%+v: got %v, want an error", cfg, err)
		}
	}
}

// Fuel is told in failure entries and compared by replays, so a change of what
// things cost needs another FuelCosts: raise it together with these figures.
func TestFuelCostsAreThoseOfTheirVersion(t *testing.T) {
	const version, want = 2, "3066 1901 8423"
	rt := open(t, Config{Workers: 1})
	var used []string
	for _, wasm := range []string{ordersWasm, upperWasm, linesWasm} {
		s := stageOf(t, rt, wasm, StageConfig{Stage: "s"})
		testkit.Process(t, s, testkit.Batch(`{"order_id":"o-1","status":"paid","amount":20,"email":"a@b.c","card":"1234567812345678"}`))
		used = append(used, strconv.FormatInt(s.Stats().Fuel, 10))
	}
	if got := strings.Join(used, " "); FuelCosts != version || got != want {
		t.Errorf("version %d of the costs: got %s, want %s of version %d", FuelCosts, got, want, version)
	}
}
