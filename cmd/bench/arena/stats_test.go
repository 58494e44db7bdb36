package arena

import (
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 2, 100}, 3}} {
		if got := Median(c.in); got != c.want {
			t.Errorf("Median(%v) = %v, want %v", c.in, got, c.want)
		}
	}
}

func TestMiddle(t *testing.T) {
	start := time.Unix(1000, 0)
	m := middle{expect: 1000}
	for _, s := range []struct {
		ms int
		n  int64
	}{{0, 0}, {900, 49}, {1000, 100}, {1500, 600}, {2000, 900}, {2200, 949}, {2400, 960}, {9000, 1000}} {
		m.add(start.Add(time.Duration(s.ms)*time.Millisecond), s.n)
	}
	// 860 records from 1.0 s to 2.4 s: neither the slow start nor the slow end.
	if got, want := m.rate(), 860/1.4; got < want-0.01 || got > want+0.01 {
		t.Errorf("got %v records/s, want %v", got, want)
	}
	at := middle{expect: 10}
	at.add(start, 10)
	if got := at.rate(); got != 0 {
		t.Errorf("all in one sample: got %v records/s, want 0", got)
	}
}

func TestRatiosAreByRound(t *testing.T) {
	rate := func(f Figures) float64 { return f.Rate }
	divide := func(a, b float64) float64 { return a / b }
	ours := &Series{Rounds: []Figures{{Rate: 10}, {Rate: 50}, {Rate: 90}}}
	theirs := &Series{Rounds: []Figures{{Rate: 20}, {Rate: 50}, {Rate: 100}}}
	if got := ours.Against(theirs, rate, divide); got != 0.9 {
		t.Errorf("got %v, want 0.9, the median of 0.5, 1 and 0.9", got)
	}
	if got := ours.Median(rate); got != 50 {
		t.Errorf("got %v, want 50", got)
	}
}
