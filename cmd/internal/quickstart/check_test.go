package quickstart

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/examples/orders/gen"
)

// history makes a run in which every promise was kept: 10,000 events over four
// partitions, their outputs and their failures.
func history(t *testing.T) ([]sent, []output, []failure) {
	t.Helper()
	g := gen.New(3)
	var (
		events      []sent
		outputs     []output
		failed      []failure
		buf         []byte
		next        positions = positions{}
		out         positions = positions{}
		partOf                = map[string]int32{}
		marks       [3]int
		wantAtLeast = [3]int{1000, 1000, 5}
	)
	for i := range 10_000 {
		var s sent
		s, buf = expect(g.Next(), buf)
		p, ok := partOf[s.key]
		if !ok {
			p = int32(len(partOf) % partitions)
			partOf[s.key] = p
		}
		s.partition, s.offset = p, next[p]
		next[p]++
		events = append(events, s)
		marks[s.mark]++
		switch s.mark {
		case gen.Emit:
			outputs = append(outputs, output{order: i, sum: s.want, partition: p, offset: out[p]})
			out[p]++
		case gen.Fail:
			failed = append(failed, failure{s.partition, s.offset, "cut off"})
		}
	}
	for m, n := range marks {
		if n < wantAtLeast[m] {
			t.Fatalf("%d events are marked %s, want at least %d", n, gen.Mark(m), wantAtLeast[m])
		}
	}
	return events, outputs, failed
}

func TestCheck(t *testing.T) {
	keptEvents, keptOutputs, keptFailures := history(t)
	// sameKey are the indexes of two outputs of one key.
	sameKey := func(events []sent, outputs []output) (int, int) {
		first := map[string]int{}
		for j, o := range outputs {
			key := events[o.order].key
			if i, ok := first[key]; ok {
				return i, j
			}
			first[key] = j
		}
		t.Fatal("no two outputs have one key")
		return 0, 0
	}
	firstOf := func(events []sent, m gen.Mark) int {
		return slices.IndexFunc(events, func(s sent) bool { return s.mark == m })
	}
	for _, tc := range []struct {
		name      string
		explained int
		harm      func(events []sent, outputs []output, failed []failure) ([]output, []failure)
		want      Result // Emitted, Dropped and Failed relative to a kept run
		example   string
		ok        bool
	}{
		{name: "kept", ok: true},
		{name: "lost output", want: Result{Lost: 1, Emitted: -1}, example: "is not in the output",
			harm: func(_ []sent, o []output, f []failure) ([]output, []failure) {
				return slices.Delete(o, 700, 701), f
			}},
		{name: "lost failure", want: Result{Lost: 1, Failed: -1}, example: "is malformed and not in the failure queue",
			harm: func(_ []sent, o []output, f []failure) ([]output, []failure) { return o, f[1:] }},
		{name: "seen again, explained", explained: 2, want: Result{Redelivered: 2}, ok: true,
			harm: func(_ []sent, o []output, f []failure) ([]output, []failure) {
				return slices.Insert(o, 52, o[50], o[51]), f
			}},
		{name: "seen again, not explained", explained: 1, want: Result{Redelivered: 3, Duplicated: 2},
			harm: func(_ []sent, o []output, f []failure) ([]output, []failure) {
				return slices.Insert(o, 53, o[50], o[51], o[52]), f
			}},
		{name: "an earlier one again behind a later one of its key", explained: 1, want: Result{Redelivered: 1}, ok: true,
			harm: func(e []sent, o []output, f []failure) ([]output, []failure) {
				i, j := sameKey(e, o)
				return slices.Insert(o, j+1, o[i]), f
			}},
		{name: "out of order", want: Result{OutOfOrder: 1}, example: "of the same key",
			harm: func(e []sent, o []output, f []failure) ([]output, []failure) {
				i, j := sameKey(e, o)
				o[i], o[j] = o[j], o[i]
				return o, f
			}},
		{name: "two keys swapped", ok: true,
			harm: func(e []sent, o []output, f []failure) ([]output, []failure) {
				if e[o[0].order].key == e[o[1].order].key {
					t.Fatal("want two keys")
				}
				o[0], o[1] = o[1], o[0]
				return o, f
			}},
		{name: "altered", want: Result{Altered: 1, Lost: 1, Emitted: -1}, example: "is not what the native stage makes of it",
			harm: func(_ []sent, o []output, f []failure) ([]output, []failure) {
				o[9].sum[3] ^= 1
				return o, f
			}},
		{name: "dropped one put out", want: Result{Unexpected: 1, Dropped: -1}, example: "which was to drop",
			harm: func(e []sent, o []output, f []failure) ([]output, []failure) {
				return append(o, output{order: firstOf(e, gen.Drop)}), f
			}},
		{name: "malformed one put out", want: Result{Unexpected: 1}, example: "which was to fail",
			harm: func(e []sent, o []output, f []failure) ([]output, []failure) {
				return append(o, output{order: firstOf(e, gen.Fail)}), f
			}},
		{name: "foreign output", want: Result{Unexpected: 2}, example: "is of no order that was produced",
			harm: func(e []sent, o []output, f []failure) ([]output, []failure) {
				return append(o, output{order: -1}, output{order: len(e)}), f
			}},
		{name: "good one failed", want: Result{Lost: 1, Emitted: -1, Failed: 1, WronglyFailed: 1}, example: "was to emit, but lies in the failure queue: trap",
			harm: func(e []sent, o []output, f []failure) ([]output, []failure) {
				s := e[o[0].order]
				return o[1:], append(f, failure{s.partition, s.offset, "trap"})
			}},
		{name: "good one put out and failed", want: Result{Failed: 1, WronglyFailed: 1}, example: "but lies in the failure queue",
			harm: func(e []sent, o []output, f []failure) ([]output, []failure) {
				s := e[o[0].order]
				return o, append(f, failure{s.partition, s.offset, "trap"})
			}},
		{name: "dropped one failed", want: Result{Dropped: -1, Failed: 1, WronglyFailed: 1}, example: "was to drop, but lies in the failure queue",
			harm: func(e []sent, o []output, f []failure) ([]output, []failure) {
				s := e[firstOf(e, gen.Drop)]
				return o, append(f, failure{s.partition, s.offset, "trap"})
			}},
		{name: "failed twice", want: Result{Failed: 1, WronglyFailed: 1}, example: "twice",
			harm: func(_ []sent, o []output, f []failure) ([]output, []failure) { return o, append(f, f[0]) }},
		{name: "foreign failure", want: Result{Failed: 1, WronglyFailed: 1}, example: "which was not produced",
			harm: func(_ []sent, o []output, f []failure) ([]output, []failure) {
				return o, append(f, failure{partition: 99})
			}},
		{name: "nothing arrived", want: Result{Emitted: -1 << 30, Failed: -1 << 30, Lost: -1 << 30}, example: "is not in the output",
			harm: func([]sent, []output, []failure) ([]output, []failure) { return nil, nil }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			events, outputs, failed := keptEvents, slices.Clone(keptOutputs), slices.Clone(keptFailures)
			want := tc.want
			want.In, want.Malformed = len(events), len(failed)
			if want.Lost < 0 {
				want.Lost, want.Emitted, want.Failed = len(outputs)+len(failed), -len(outputs), -len(failed)
			}
			want.Emitted += len(outputs)
			want.Dropped += len(events) - len(outputs) - len(failed)
			want.Failed += len(failed)
			if tc.harm != nil {
				outputs, failed = tc.harm(events, outputs, failed)
			}
			got := check(events, outputs, failed, tc.explained)
			if ok := got.OK(); ok != tc.ok {
				t.Errorf("OK is %t, want %t", ok, tc.ok)
			}
			if err := broken(got); (err == nil) != tc.ok {
				t.Errorf("error %v, want one: %t", err, !tc.ok)
			}
			if all := strings.Join(got.Examples, "\n"); !strings.Contains(all, tc.example) || tc.example == "" && all != "" {
				t.Errorf("examples %q, want %q in them", all, tc.example)
			}
			got.Examples = nil
			if g, w := fmt.Sprintf("%+v", *got), fmt.Sprintf("%+v", want); g != w {
				t.Errorf("got  %s\nwant %s", g, w)
			}
		})
	}
}

func TestSumTellsKeyFromValue(t *testing.T) {
	if gen.SumOf([]byte("ab"), []byte("c")) == gen.SumOf([]byte("a"), []byte("bc")) {
		t.Error("a byte that moves from the key to the value is not noticed")
	}
}

func TestOrderNumber(t *testing.T) {
	for _, tc := range []struct {
		value string
		want  int
	}{
		{`{"order_id":"o-000000","customer":"c"}`, 0},
		{`{"order_id":"o-1234567"`, 1234567},
		{`{"order_id":"o-12`, -1},
		{`{"order_id":"o-x1"}`, -1},
		{`{"order_id":"o-99999999999999999999"}`, -1},
		{`{"customer":"c"}`, -1},
		{``, -1},
	} {
		if got := orderNumber([]byte(tc.value)); got != tc.want {
			t.Errorf("%s: got %d, want %d", tc.value, got, tc.want)
		}
	}
}
