package arena

import (
	"slices"
	"time"
)

// middle takes the rate of the middle 90 % of an output: the first sample with
// 5 % of it and the first with 95 %. It leaves out the start of the program and
// the tail, in which some partitions are empty.
type middle struct {
	expect   int64
	from, to sample
}

type sample struct {
	at time.Time
	n  int64
}

func (m *middle) add(at time.Time, n int64) {
	if m.from.at.IsZero() && n*20 >= m.expect {
		m.from = sample{at, n}
	}
	if m.to.at.IsZero() && n*20 >= m.expect*19 {
		m.to = sample{at, n}
	}
}

// rate is in records a second; 0 if both ends fell into one sample.
func (m *middle) rate() float64 {
	took := m.to.at.Sub(m.from.at).Seconds()
	if took <= 0 {
		return 0
	}
	return float64(m.to.n-m.from.n) / took
}

// Median is the middle value, of an even number of values the mean of the two
// in the middle; 0 of none.
func Median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}
