package arena

import (
	"slices"
	"testing"

	"github.com/millrace-io/millrace/examples/orders/gen"
)

// output is what two partitions of five records each hold.
func output() [][]gen.Sum {
	all := make([][]gen.Sum, 2)
	for i := range 10 {
		all[i%2] = append(all[i%2], sumOf([]byte{'k', byte(i)}, []byte{'{', byte('0' + i), '}'}, false))
	}
	return all
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(got [][]gen.Sum) [][]gen.Sum
		want   Verdict
	}{
		{"the same", func(got [][]gen.Sum) [][]gen.Sum { return got }, Verdict{InOrder: true}},
		{"a changed byte", func(got [][]gen.Sum) [][]gen.Sum {
			got[0][1] = sumOf([]byte{'k', 2}, []byte("{X}"), false)
			return got
		}, Verdict{Lost: 1, Foreign: 1}},
		{"another key", func(got [][]gen.Sum) [][]gen.Sum {
			got[0][1] = sumOf([]byte{'K', 2}, []byte("{2}"), false)
			return got
		}, Verdict{Lost: 1, Foreign: 1}},
		{"a lost record", func(got [][]gen.Sum) [][]gen.Sum { got[1] = slices.Delete(got[1], 2, 3); return got }, Verdict{Lost: 1}},
		{"the last one lost", func(got [][]gen.Sum) [][]gen.Sum { got[1] = got[1][:4]; return got }, Verdict{Lost: 1}},
		{"a doubled one", func(got [][]gen.Sum) [][]gen.Sum { got[1] = append(got[1], got[1][4]); return got }, Verdict{Doubled: 1}},
		{"one lost, one doubled", func(got [][]gen.Sum) [][]gen.Sum { got[1][3] = got[1][4]; return got }, Verdict{Lost: 1, Doubled: 1}},
		{"two swapped", func(got [][]gen.Sum) [][]gen.Sum { got[0][0], got[0][1] = got[0][1], got[0][0]; return got }, Verdict{}},
		{"in another partition", func(got [][]gen.Sum) [][]gen.Sum {
			got[1] = append(got[1], got[0][4])
			got[0] = got[0][:4]
			return got
		}, Verdict{}},
		{"fewer partitions", func(got [][]gen.Sum) [][]gen.Sum { return got[:1] }, Verdict{Lost: 5}},
		{"nothing", func([][]gen.Sum) [][]gen.Sum { return nil }, Verdict{Lost: 10}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Judge(output(), c.change(output()))
			if got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
			if right := c.want.Lost+c.want.Doubled+c.want.Foreign == 0; got.Right() != right {
				t.Errorf("%s: Right() = %v", got, got.Right())
			}
		})
	}
}

func TestJSONIsCompared(t *testing.T) {
	sum := func(text string, canonical bool) gen.Sum { return sumOf([]byte("k"), []byte(text), canonical) }
	const a, b = `{"x": 1.50, "y": [1, {"z": null}]}`, `{"y":[1,{"z":null}],"x":1.50}`
	if sum(a, true) != sum(b, true) {
		t.Error("the order of members or white space counts as JSON")
	}
	if sum(a, false) == sum(b, false) {
		t.Error("other bytes have the same sum")
	}
	for _, other := range []string{`{"x":1.5,"y":[1,{"z":null}]}`, `{"x":1.50,"y":[1,{}]}`, `{"x":1.50}`, `{"x":1.50,"y":[1,{"z":null}]} {}`, `no JSON`} {
		if sum(a, true) == sum(other, true) {
			t.Errorf("%s counts as %s", other, a)
		}
	}
}
