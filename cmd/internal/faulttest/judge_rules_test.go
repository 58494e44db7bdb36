//go:build linux

package faulttest

import (
	"strings"
	"testing"

	"github.com/millrace-io/millrace/examples/orders/gen"
)

// A course that keeps every promise: two lives on one partition, of which the
// second repeats what the cut explains.
type course struct {
	events   []sent
	outputs  []output
	failures []failure
	cuts     []cut
	rules    rules
}

func goodCourse() *course {
	c := &course{}
	for i := range 10 {
		e := sent{mark: gen.Emit, want: gen.Sum{byte(i)}, acked: true, offset: int64(i)}
		switch i {
		case 3:
			e.mark = gen.Drop
		case 6:
			e.mark = gen.Fail
		}
		c.events = append(c.events, e)
	}
	for _, n := range []int{0, 1, 2, 4, 5 /* cut */, 4, 5, 7, 8, 9} {
		c.write(n)
	}
	c.failures = []failure{{number: 6, message: "cut off"}}
	c.cuts = []cut{{ends: offsets{0: 5}, marks: offsets{0: 4}, explained: 2}}
	return c
}

func (c *course) write(n int) {
	c.outputs = append(c.outputs, output{number: n, sum: gen.Sum{byte(n)}, offset: int64(len(c.outputs))})
}

// drop takes outputs of an event away and closes the gaps.
func (c *course) drop(n int) {
	var kept []output
	ends := c.cuts[0].ends[0]
	for _, o := range c.outputs {
		if o.number == n {
			if o.offset < ends {
				c.cuts[0].ends[0]--
			}
			continue
		}
		o.offset = int64(len(kept))
		kept = append(kept, o)
	}
	c.outputs = kept
}

func TestJudge(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(c *course)
		want   string // in the broken promises; "": none is
	}{
		{"all kept", func(*course) {}, ""},
		{"an output is lost", func(c *course) { c.drop(8) }, "1 lost"},
		{"a failure is lost", func(c *course) { c.failures = nil }, "1 lost"},
		{"an output below the watermark came only in the next life", func(c *course) {
			c.outputs[2], c.outputs[4] = c.outputs[4], c.outputs[2] // 5 for 2
			c.outputs[2].offset, c.outputs[4].offset = 2, 6
			c.outputs[4].number, c.outputs[4].sum = 2, gen.Sum{2}
			c.cuts[0].ends[0], c.cuts[0].marks[0] = 4, 4
		}, "1 not arrived although the watermark had passed them"},
		{"the watermark passed what had not arrived", func(c *course) { c.cuts[0].marks[0] = 8 }, "1 not arrived"},
		{"out of order", func(c *course) {
			c.outputs[8].number, c.outputs[8].sum, c.outputs[9].number, c.outputs[9].sum = 9, gen.Sum{9}, 8, gen.Sum{8}
		}, "1 out of order"},
		{"out of order as allowed", func(c *course) {
			c.outputs[8].number, c.outputs[8].sum, c.outputs[9].number, c.outputs[9].sum = 9, gen.Sum{9}, 8, gen.Sum{8}
			c.rules.reordered = 1
		}, ""},
		{"altered", func(c *course) { c.outputs[8].sum = gen.Sum{99} }, "1 altered"},
		{"a dropped event arrives", func(c *course) { c.write(3) }, "1 not to arrive"},
		{"a malformed event arrives", func(c *course) { c.write(6) }, "1 not to arrive"},
		{"what arrives is no event", func(c *course) { c.write(77) }, "1 not to arrive"},
		{"a good event is filed", func(c *course) { c.failures = append(c.failures, failure{number: 5}) }, "1 wrongly in the failure queue"},
		{"what is no event is filed", func(c *course) { c.failures = append(c.failures, failure{number: -1}) }, "1 wrongly in the failure queue"},
		{"filed twice", func(c *course) { c.failures = append(c.failures, failure{number: 6}) }, "1 twice in the failure queue"},
		{"repeats beyond what is explained", func(c *course) { c.cuts[0].explained = 1 }, "1 repeated beyond"},
		{"a life repeats its own output", func(c *course) { c.write(9); c.cuts[0].explained = 9 }, "1 written twice by one life"},
		{"the first life repeats its own output", func(c *course) { c.cuts = nil }, "2 written twice by one life"},
		{"a short life passes on what was explained", func(c *course) {
			c.cuts = append(c.cuts, cut{ends: offsets{0: 5}, short: true})
		}, ""},
		{"a long life does not", func(c *course) {
			c.cuts = append(c.cuts, cut{ends: offsets{0: 5}})
		}, "2 repeated beyond"},
		{"the source has events twice", func(c *course) {
			c.rules.repeats = true
			c.write(9)
			c.failures = append(c.failures, failure{number: 6})
		}, ""},
		{"lost although the source has events twice", func(c *course) { c.rules.repeats = true; c.drop(8) }, "1 lost"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := goodCourse()
			tc.change(c)
			v := judge(c.events, c.outputs, c.failures, c.cuts, c.rules)
			got := strings.Join(v.broken(), ", ")
			if tc.want == "" && got != "" || !strings.Contains(got, tc.want) {
				t.Errorf("got broken promises %q, want %q; %v", got, tc.want, v.examples)
			}
		})
	}
	v := judge(goodCourse().events, goodCourse().outputs, goodCourse().failures, goodCourse().cuts, rules{})
	if v.in != 10 || v.emitted != 8 || v.dropped != 1 || v.failed != 1 || v.malformed != 1 || v.repeated[0] != 0 || v.repeated[1] != 2 {
		t.Errorf("counted %s", v)
	}
}
