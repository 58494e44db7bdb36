package ledger

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// model is the same thing as sets of offsets.
type model struct {
	next    int64
	flight  []int64 // in fetch order
	settled map[int64]bool
	done    []Range
}

func (m *model) low() int64 {
	for _, o := range m.flight {
		if !m.settled[o] {
			return o
		}
	}
	return m.next
}

func (m *model) isDone(o int64) bool {
	for _, r := range m.done {
		if o >= r.From && o < r.To {
			return true
		}
	}
	return false
}

// covered reports whether the model regards o, at or above low, as settled.
func (m *model) covered(o int64) bool {
	if o >= m.next {
		return m.isDone(o)
	}
	return !slices.Contains(m.flight, o) || m.settled[o]
}

func TestLedgerAgainstSets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := rapid.Int64Range(0, 50).Draw(t, "start")
		m := &model{next: start, settled: map[int64]bool{}}
		for at := start; rapid.Bool().Draw(t, "range"); {
			from := at + rapid.Int64Range(1, 5).Draw(t, "from")
			to := from + rapid.Int64Range(1, 5).Draw(t, "len")
			m.done, at = append(m.done, Range{from, to}), to
		}
		l := New(start, m.done)
		slots := map[int64]uint64{}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				o := m.next + rapid.Int64Range(0, 3).Draw(t, "gap")
				if got, want := l.Done(o), m.isDone(o); got != want {
					t.Fatalf("Done(%d) = %v, want %v", o, got, want)
				}
				slots[o] = l.Add(o)
				m.flight, m.next = append(m.flight, o), o+1
			},
			"settle": func(t *rapid.T) {
				var open []int64
				for _, o := range m.flight {
					if !m.settled[o] {
						open = append(open, o)
					}
				}
				if len(open) == 0 {
					t.Skip()
				}
				o := rapid.SampledFrom(open).Draw(t, "offset")
				l.Settle(slots[o])
				m.settled[o] = true
			},
			"advance": func(t *rapid.T) {
				n := m.next + rapid.Int64Range(-2, 4).Draw(t, "by")
				l.Advance(n)
				m.next = max(m.next, n)
			},
			"": func(t *rapid.T) {
				if l.Low() != m.low() || l.Next() != m.next {
					t.Fatalf("low %d next %d, want %d %d", l.Low(), l.Next(), m.low(), m.next)
				}
				rs := l.Ranges(nil)
				if len(rs) == MaxRanges {
					t.Skip()
				}
				end := m.next + 200
				for o := l.Low() + 1; o < end; o++ {
					in := slices.ContainsFunc(rs, func(r Range) bool { return o >= r.From && o < r.To })
					if want := m.covered(o); in != want && !(l.Low() == m.next && o < m.next) {
						t.Fatalf("offset %d settled = %v, want %v; low %d next %d ranges %v", o, in, want, l.Low(), m.next, rs)
					}
				}
				for i := range rs {
					if rs[i].From >= rs[i].To || i > 0 && rs[i].From < rs[i-1].To {
						t.Fatalf("ranges %v are not in order", rs)
					}
				}
			},
		})
	})
}

func TestRangesAreBounded(t *testing.T) {
	l := New(0, nil)
	var slots []uint64
	for o := range int64(4 * MaxRanges) {
		slots = append(slots, l.Add(o))
	}
	for i := 1; i < len(slots); i += 2 {
		l.Settle(slots[i])
	}
	rs := l.Ranges(nil)
	if len(rs) != MaxRanges || rs[0] != (Range{1, 2}) {
		t.Fatalf("got %d ranges from %v, want %d from {1 2}", len(rs), rs[0], MaxRanges)
	}
}

func TestSettlingTwicePanics(t *testing.T) {
	l := New(0, nil)
	l.Add(0)
	s := l.Add(1)
	l.Settle(s)
	defer func() {
		if recover() == nil {
			t.Fatal("a slot was settled twice without a panic")
		}
	}()
	l.Settle(s)
}

func BenchmarkLedger(b *testing.B) {
	l := New(0, nil)
	o := int64(0)
	for b.Loop() {
		s := l.Add(o)
		o++
		l.Settle(s)
	}
}
