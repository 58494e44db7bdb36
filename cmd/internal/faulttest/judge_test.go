//go:build linux

package faulttest

import (
	"fmt"
	"slices"

	"github.com/millrace-io/millrace/examples/orders/gen"
)

// failure is one entry of the failure queue.
type failure struct {
	number  int // of the event; -1 if there is none
	message string
}

// cut is the end of a life of the node.
type cut struct {
	// ends are those of the output when nothing of this life could arrive any
	// more: what lies at or above is of a later life.
	ends offsets
	// marks are the committed watermarks that were seen of the source.
	marks offsets
	// explained is how many outputs the next life may repeat.
	explained int
	// short says that the life may have ended before it committed anything:
	// what an earlier cut explains may be repeated once more.
	short bool
}

// rules say which promises hold.
type rules struct {
	// repeats: any number of outputs may be there twice, and a malformed event
	// may be filed twice, because the source has events twice.
	repeats bool
	// reordered is how many first occurrences may be out of order, because
	// the broker does not hold its producers to their sequence.
	reordered int
}

// verdict is what became of the events.
type verdict struct {
	in, emitted, dropped, failed, malformed int

	// lost counts events to be emitted that are not in the output, and
	// malformed ones that are not in the failure queue.
	lost int
	// behindMark counts events below a watermark that was committed in a life
	// although they had not arrived by its end.
	behindMark int
	// outOfOrder counts first occurrences that came after a later record of
	// the same partition, reordered those of them that the rules allow.
	outOfOrder, reordered int
	// altered counts outputs that are not what the native stage makes of the
	// event, unexpected those of events that were not to arrive.
	altered, unexpected int
	// misfiled counts entries of the failure queue of events that are not
	// malformed, refiled those that are there already.
	misfiled, refiled int
	// repeated counts outputs seen again by the life that repeated them;
	// unexplained are those beyond what the cuts allow, twice those that one
	// life wrote twice.
	repeated           []int
	unexplained, twice int

	examples []string
}

const maxExamples = 8

func (v *verdict) example(format string, args ...any) {
	if len(v.examples) < maxExamples {
		v.examples = append(v.examples, fmt.Sprintf(format, args...))
	}
}

// broken names the promises that were not kept.
func (v *verdict) broken() []string {
	var broken []string
	for _, p := range []struct {
		n    int
		what string
	}{
		{v.lost, "lost"}, {v.behindMark, "not arrived although the watermark had passed them"}, {v.outOfOrder, "out of order"},
		{v.altered, "altered"}, {v.unexpected, "not to arrive"}, {v.misfiled, "wrongly in the failure queue"}, {v.refiled, "twice in the failure queue"},
		{v.unexplained, "repeated beyond what the cuts explain"}, {v.twice, "written twice by one life"},
	} {
		if p.n > 0 {
			broken = append(broken, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	return broken
}

func (v *verdict) String() string {
	total := 0
	for _, n := range v.repeated {
		total += n
	}
	return fmt.Sprintf("%d in, %d emitted, %d dropped, %d failed of %d malformed, %d lost, %d out of order, %d repeated (at most %d by a life)",
		v.in, v.emitted, v.dropped, v.failed, v.malformed, v.lost, v.outOfOrder+v.reordered, total, slices.Max(append(v.repeated, 0)))
}

// judge compares the events with the outputs, by partition in the order of their offsets, and the failures.
func judge(events []sent, outputs []output, failures []failure, cuts []cut, r rules) *verdict {
	v := &verdict{in: len(events), repeated: make([]int, len(cuts)+1)}
	first, last := judgeOutputs(v, events, outputs, cuts)
	filed := judgeFailures(v, events, failures, r)
	for i, e := range events {
		switch {
		case e.mark == gen.Fail:
			v.malformed++
			if filed[i] == 0 {
				v.lost++
				v.example("event %d (record %d/%d) is malformed and not in the failure queue", i, e.partition, e.offset)
			}
		case e.mark == gen.Emit && last[i] < 0:
			v.lost++
			v.example("event %d (record %d/%d) is not in the output", i, e.partition, e.offset)
		case e.mark == gen.Drop && last[i] < 0 && filed[i] == 0:
			v.dropped++
		}
		if e.mark != gen.Emit {
			continue
		}
		for k, c := range cuts {
			if mark, ok := c.marks[e.partition]; ok && e.offset < mark && (first[i] < 0 || first[i] > k) {
				v.behindMark++
				v.example("event %d (record %d/%d) had not arrived by the end of life %d, whose watermark was %d", i, e.partition, e.offset, k, mark)
				break
			}
		}
	}
	if v.outOfOrder <= r.reordered {
		v.reordered, v.outOfOrder = v.outOfOrder, 0
	}
	if r.repeats {
		v.twice, v.refiled = 0, 0
		return v
	}
	allowed := 0
	for k, c := range cuts {
		if !c.short {
			allowed = 0
		}
		allowed += c.explained
		if n := v.repeated[k+1]; n > allowed {
			v.unexplained += n - allowed
			v.example("life %d repeated %d outputs, the cut before it explains %d", k+1, n, allowed)
		}
	}
	return v
}

// judgeOutputs returns the life in which each event arrived first and last; -1
// if it did not.
func judgeOutputs(v *verdict, events []sent, outputs []output, cuts []cut) (first, last []int) {
	first, last = make([]int, len(events)), make([]int, len(events))
	for i := range events {
		first[i], last[i] = -1, -1
	}
	newest := map[[2]int32]int64{} // by partition of source and output, the offset of the latest event
	for _, o := range outputs {
		life := 0
		for life < len(cuts) && o.offset >= cuts[life].ends[o.partition] {
			life++
		}
		if o.number < 0 || o.number >= len(events) {
			v.unexpected++
			v.example("output %d/%d is of no event", o.partition, o.offset)
			continue
		}
		e := &events[o.number]
		lane := [2]int32{e.partition, o.partition}
		switch {
		case e.mark != gen.Emit:
			v.unexpected++
			v.example("output %d/%d is of event %d, which was to %s", o.partition, o.offset, o.number, e.mark)
		case o.sum != e.want:
			v.altered++
			v.example("output %d/%d of event %d is not what the native stage makes of it", o.partition, o.offset, o.number)
		case first[o.number] >= 0:
			v.repeated[life]++
			if last[o.number] == life {
				v.twice++
				v.example("output %d/%d: life %d writes event %d (record %d/%d) again", o.partition, o.offset, life, o.number, e.partition, e.offset)
			}
		default:
			v.emitted++
			first[o.number] = life
			if before, ok := newest[lane]; ok && before > e.offset {
				v.outOfOrder++
				v.example("output %d/%d is of event %d (record %d/%d), after record %d/%d", o.partition, o.offset, o.number, e.partition, e.offset, e.partition, before)
			} else {
				newest[lane] = e.offset
			}
		}
		last[o.number] = life
	}
	return first, last
}

// judgeFailures returns how often each event was filed.
func judgeFailures(v *verdict, events []sent, failures []failure, r rules) []int {
	filed := make([]int, len(events))
	for _, f := range failures {
		v.failed++
		if f.number < 0 || f.number >= len(events) {
			v.misfiled++
			v.example("the failure queue holds a record that is no event: %s", f.message)
			continue
		}
		if filed[f.number]++; filed[f.number] > 1 && !r.repeats {
			v.refiled++
			v.example("event %d is filed %d times", f.number, filed[f.number])
		}
		if m := events[f.number].mark; m != gen.Fail {
			v.misfiled++
			v.example("event %d was to %s, but lies in the failure queue: %s", f.number, m, f.message)
		}
	}
	return filed
}
