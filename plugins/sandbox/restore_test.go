package sandbox

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/millrace-io/millrace/plugins/internal/testkit"
	"github.com/millrace-io/millrace/plugins/internal/wasmgen"
	"github.com/millrace-io/millrace/runtime/record"
)

// after is all that can be seen of a batch: what was answered, what it cost,
// and what the instance is like, if it lives on.
type after struct {
	results record.Results
	fuel    int64
	memory  []byte
	globals []uint64
}

func runAfter(t *testing.T, s *Stage, b *record.Batch) (a after) {
	t.Helper()
	before := s.Stats().Fuel
	if err := s.Process(t.Context(), b, &a.results); err != nil {
		t.Fatal(err)
	}
	a.fuel = s.Stats().Fuel - before
	if len(s.idle) > 0 {
		in := s.idle[len(s.idle)-1]
		a.memory = bytes.Clone(in.view())
		for _, g := range in.globals {
			a.globals = append(a.globals, g.Get())
		}
	}
	return a
}

func (a *after) difference(b *after) string {
	switch {
	case !reflect.DeepEqual(a.results, b.results):
		return fmt.Sprintf("results %+v and %+v", a.results, b.results)
	case a.fuel != b.fuel:
		return fmt.Sprintf("%d and %d units of fuel", a.fuel, b.fuel)
	case !slices.Equal(a.globals, b.globals):
		return fmt.Sprintf("globals %v and %v", a.globals, b.globals)
	case !bytes.Equal(a.memory, b.memory):
		for i := range min(len(a.memory), len(b.memory)) {
			if a.memory[i] != b.memory[i] {
				return fmt.Sprintf("memory at %#x of %#x", i, len(a.memory))
			}
		}
		return fmt.Sprintf("%d and %d bytes of memory", len(a.memory), len(b.memory))
	}
	return ""
}

// restored runs random batches one after the other in one stage, and each
// alone in a new one: there must be no difference. It reports how many times
// an instance was put back.
func restored(t *testing.T, rt *Runtime, seed uint64) (restores int64) {
	t.Helper()
	m, err := rt.Compile(t.Context(), wasmgen.Stage(seed))
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	defer m.Close(t.Context())
	stage := func() *Stage {
		s, err := m.NewStage(t.Context(), StageConfig{Stage: "s", Fuel: 30_000})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		return s
	}
	used := stage()
	defer used.Close(t.Context())
	for i, b := range []*record.Batch{testkit.Batch("abcd"), testkit.Batch("x", "yz"), testkit.Batch("abcd")} {
		got := runAfter(t, used, b)
		fresh := stage()
		want := runAfter(t, fresh, b)
		if err := fresh.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		// Calls of several records are cut by what earlier ones cost.
		if d := got.difference(&want); d != "" {
			t.Fatalf("seed %d, batch %d: a stage that was used before and a new one differ: %s", seed, i, d)
		}
	}
	return used.Stats().Restores
}

func TestRestoreOfRandomModules(t *testing.T) {
	modules := uint64(200)
	if testing.Short() || testkit.Race {
		modules = 60
	}
	rt := open(t, Config{Workers: 1})
	restores := int64(0)
	for seed := range modules {
		restores += restored(t, rt, seed)
	}
	t.Logf("seeds 0 to %d: %d restores", modules-1, restores)
	if restores < int64(modules) {
		t.Errorf("only %d restores of %d modules", restores, modules)
	}
}

// A request is written over the last one, of which the pages that it fills are
// not put back before: what a guest can see is that of a new instance all the
// same, be the request smaller, larger, or too large for the buffer.
func TestRestoreBehindRequests(t *testing.T) {
	rt := open(t, Config{Workers: 1})
	for _, file := range []string{ordersWasm, faultyWasm} {
		used := stageOf(t, rt, file, StageConfig{Stage: "s"})
		events := orderEvents(t, 128)
		large := slices.Clone(events[:1])
		large[0].Value = bytes.Repeat([]byte("x"), 60<<10)
		huge := slices.Clone(large)
		huge[0].Value = bytes.Repeat([]byte("x"), 200<<10)
		for i, records := range [][]record.Record{events, events[:1], events[:40], large, events[:3], events, huge, events[:2], large} {
			b := &record.Batch{Partition: record.Partition{Topic: "orders"}, Now: 1_700_000_000_000, Records: records}
			used.fuelPerRecord.Store(0) // calls as large as those of a new one
			used.perRecord.Store(0)
			got := runAfter(t, used, b)
			fresh := stageOf(t, rt, file, StageConfig{Stage: "s"})
			want := runAfter(t, fresh, b)
			if d := got.difference(&want); d != "" {
				t.Errorf("%s, batch %d: a stage that was used before and a new one differ: %s", file, i, d)
			}
		}
		if st := used.Stats(); st.Restores == 0 {
			t.Errorf("%s: nothing was put back", file)
		}
	}
}

// A request that does not fit the image's buffer is written elsewhere, by leave
// of the guest: before that, nothing of an earlier one is left in the buffer.
func TestNoRequestIsLeftInTheBuffer(t *testing.T) {
	s := stageOf(t, open(t, Config{Workers: 1}), ordersWasm, StageConfig{Stage: "s"})
	in, err := s.take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer in.close()
	huge := orderEvents(t, 1)
	huge[0].Value = bytes.Repeat([]byte("x"), 200<<10)
	c := caller{stage: s, in: in, batch: &record.Batch{Records: orderEvents(t, 128)}, out: &record.Results{}}
	if err := c.call(0, 128); err != nil {
		t.Fatal(err)
	}
	if !in.ready() || in.owed.from == in.owed.to {
		t.Fatalf("after a request of 128 records %+v is left in place", in.owed)
	}
	left := in.owed
	c.batch = &record.Batch{Records: huge}
	_ = c.call(0, 1) // it fails the record, which is no order
	if !bytes.Equal(in.view()[left.from:left.to], in.image.memory[left.from:left.to]) {
		t.Error("the guest found an earlier request in its buffer")
	}
}

// A batch that is too large for one call is cut into calls of the same size: a
// large one would outgrow the image, a small one costs nearly as much.
func TestCallsOfTheSameSize(t *testing.T) {
	s := stageOf(t, open(t, Config{Workers: 1}), ordersWasm, StageConfig{Stage: "s"})
	events := orderEvents(t, 256)
	for range 10 {
		var out record.Results
		if err := s.Process(t.Context(), &record.Batch{Partition: record.Partition{Topic: "orders"}, Records: events}, &out); err != nil {
			t.Fatal(err)
		}
		s.perRecord.Store(1) // it is fuel that bounds a call here
	}
	if st := s.Stats(); st.Instances != 1 || s.callRecords() <= 128 || s.callRecords() >= 256 {
		t.Errorf("got %+v with calls of up to %d records, want one instance", st, s.callRecords())
	}
}

// A call that grows memory costs its instance. Where every second call does,
// since the others are smaller, the image is raised all the same.
func TestImageForTheLargerCalls(t *testing.T) {
	s := stageOf(t, open(t, Config{Workers: 1}), ordersWasm, StageConfig{Stage: "s"})
	s.perByte = 0
	for i := range 4 * raiseAfter {
		n := 1
		if i%2 == 0 {
			n = 400
		}
		s.fuelPerRecord.Store(1) // calls as large as they come
		s.perRecord.Store(1)
		var out record.Results
		if err := s.Process(t.Context(), &record.Batch{Partition: record.Partition{Topic: "orders"}, Records: orderEvents(t, n)}, &out); err != nil {
			t.Fatal(err)
		}
	}
	if st := s.Stats(); st.ImageLevel == 0 {
		t.Errorf("got %+v, want a higher level of the image", st)
	}
}

func FuzzRestore(f *testing.F) {
	for _, seed := range []uint64{1 << 32, 77, 1<<64 - 1} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		restored(t, open(t, Config{Workers: 1}), seed)
	})
}
