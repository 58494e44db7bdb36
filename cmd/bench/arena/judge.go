package arena

import (
	"fmt"

	"github.com/millrace-io/millrace/examples/orders/gen"
)

// Verdict is what a comparison of an output with what must have come out says.
type Verdict struct {
	Lost, Doubled, Foreign int  // records: that are missing, that came again, that nobody expects
	InOrder                bool // each partition holds its records in the input's order, and no others
	Bytes                  bool // compared byte for byte; else as JSON
}

// Right says that every record came out once.
func (v Verdict) Right() bool { return v.Lost == 0 && v.Doubled == 0 && v.Foreign == 0 }

func (v Verdict) String() string {
	if !v.Right() {
		return fmt.Sprintf("WRONG: %d lost, %d doubled, %d foreign", v.Lost, v.Doubled, v.Foreign)
	}
	s := "same JSON"
	if v.Bytes {
		s = "same bytes"
	}
	if v.InOrder {
		return s + ", in order"
	}
	return s + ", order not kept"
}

// Judge compares the sums of an output with those that must come out, each by
// partition and there in order.
func Judge(want, got [][]gen.Sum) Verdict {
	v := Verdict{InOrder: len(want) == len(got)}
	count := map[gen.Sum]int{} // how often a record is still expected
	for p, sums := range want {
		for i, s := range sums {
			count[s]++
			v.InOrder = v.InOrder && len(got[p]) == len(sums) && got[p][i] == s
		}
		v.InOrder = v.InOrder && len(got[p]) == len(sums)
	}
	for _, sums := range got {
		for _, s := range sums {
			n, expected := count[s]
			switch {
			case !expected:
				v.Foreign++
			case n == 0:
				v.Doubled++
			default:
				count[s] = n - 1
			}
		}
	}
	for _, n := range count {
		v.Lost += n
	}
	return v
}
