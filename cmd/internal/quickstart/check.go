package quickstart

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/millrace-io/millrace/examples/orders/gen"
	"github.com/millrace-io/millrace/examples/orders/orderstage"
)

// sent is one event that was produced.
type sent struct {
	mark gen.Mark
	key  string
	want gen.Sum // of the output that the native twin makes of it; only for Emit
	// Where it lies in the source topic.
	partition int32
	offset    int64
}

// expect is what must become of e. Where it lies is not known yet. buf is
// scratch space, which it returns for the next call.
func expect(e gen.Event, buf []byte) (sent, []byte) {
	s := sent{mark: e.Mark, key: string(e.Key)}
	if e.Mark == gen.Emit {
		buf, _ = orderstage.Order(buf[:0], e.Value)
		s.want = gen.SumOf(e.Key, buf)
	}
	return s, buf
}

// output is one record of the output topic.
type output struct {
	order     int // the event's number, from its order_id; -1 if there is none
	sum       gen.Sum
	partition int32
	offset    int64
}

// failure is one entry of the failure queue.
type failure struct {
	partition int32
	offset    int64
	message   string
}

// Result is what became of the records, found by comparing what the generator
// marked with what lies in the output topic and in the failure queue.
type Result struct {
	// In counts the records produced; Emitted those that arrived as they
	// must, once or more; Dropped those that must not arrive and did not;
	// Failed the entries of the failure queue.
	In, Emitted, Dropped, Failed int
	// Malformed is how many the generator marked to fail.
	Malformed int
	// Lost counts records marked to be emitted that are not in the output,
	// and those marked to fail that are not in the failure queue.
	Lost int
	// OutOfOrder counts first occurrences that came after a later record of
	// the same key.
	OutOfOrder int
	// Redelivered counts outputs seen again, Duplicated those of them that a
	// kill does not explain.
	Redelivered, Duplicated int
	// Altered counts outputs that are not what the native stage makes of the
	// record, Unexpected those of records that must not arrive or were never
	// produced, WronglyFailed entries of the failure queue of records that
	// are not malformed, or filed twice.
	Altered, Unexpected, WronglyFailed int
	// Examples describe the first faults.
	Examples []string
}

// OK reports that every promise was kept.
func (r *Result) OK() bool {
	return r.Lost == 0 && r.Duplicated == 0 && r.OutOfOrder == 0 && r.Altered == 0 && r.Unexpected == 0 &&
		r.WronglyFailed == 0 && r.Failed == r.Malformed
}

const maxExamples = 5

func (r *Result) example(format string, args ...any) {
	if len(r.Examples) < maxExamples {
		r.Examples = append(r.Examples, fmt.Sprintf(format, args...))
	}
}

// check compares the events, in the order in which they were produced, with
// the outputs, by partition in the order of their offsets, and the failures.
// Of the outputs seen again, the kill explains so many.
func check(events []sent, outputs []output, failures []failure, explained int) *Result {
	r := &Result{In: len(events)}
	arrived := make([]bool, len(events))
	last := map[string]int{} // by key, the latest event that arrived
	for _, o := range outputs {
		at := fmt.Sprintf("output %d/%d", o.partition, o.offset)
		if o.order < 0 || o.order >= len(events) {
			r.Unexpected++
			r.example("%s is of no order that was produced", at)
			continue
		}
		e := &events[o.order]
		switch {
		case e.mark != gen.Emit:
			arrived[o.order] = true
			r.Unexpected++
			r.example("%s is of %s, which was to %s", at, orderID(o.order), e.mark)
			continue
		case o.sum != e.want:
			r.Altered++
			r.example("%s of %s is not what the native stage makes of it", at, orderID(o.order))
			continue
		case arrived[o.order]:
			r.Redelivered++
			continue
		}
		arrived[o.order] = true
		r.Emitted++
		if before, ok := last[e.key]; ok && before > o.order {
			r.OutOfOrder++
			r.example("%s is of %s, after %s of the same key", at, orderID(o.order), orderID(before))
			continue
		}
		last[e.key] = o.order
	}
	r.Duplicated = max(0, r.Redelivered-explained)

	type place struct {
		partition int32
		offset    int64
	}
	byPlace := make(map[place]int, len(events))
	for i, e := range events {
		byPlace[place{e.partition, e.offset}] = i
	}
	failed := make([]bool, len(events))
	for _, f := range failures {
		r.Failed++
		i, ok := byPlace[place{f.partition, f.offset}]
		switch {
		case !ok:
			r.WronglyFailed++
			r.example("the failure queue holds record %d/%d, which was not produced", f.partition, f.offset)
		case failed[i]:
			r.WronglyFailed++
			r.example("the failure queue holds record %d/%d twice", f.partition, f.offset)
		case events[i].mark != gen.Fail:
			r.WronglyFailed++
			r.example("%s was to %s, but lies in the failure queue: %s", orderID(i), events[i].mark, f.message)
		}
		if ok {
			failed[i] = true
		}
	}

	for i, e := range events {
		switch {
		case e.mark == gen.Fail:
			r.Malformed++
			if !failed[i] {
				r.Lost++
				r.example("record %d/%d is malformed and not in the failure queue", e.partition, e.offset)
			}
		case e.mark == gen.Emit && !arrived[i]:
			r.Lost++
			r.example("%s (record %d/%d) is not in the output", orderID(i), e.partition, e.offset)
		case e.mark == gen.Drop && !failed[i] && !arrived[i]:
			r.Dropped++
		}
	}
	return r
}

func orderID(n int) string { return fmt.Sprintf("o-%06d", n) }

var orderPrefix = []byte(`{"order_id":"o-`)

// orderNumber reads the number of an order from its value; -1 if there is
// none.
func orderNumber(value []byte) int {
	rest, ok := bytes.CutPrefix(value, orderPrefix)
	if !ok {
		return -1
	}
	digits, _, ok := bytes.Cut(rest, []byte{'"'})
	if !ok {
		return -1
	}
	n, err := strconv.ParseUint(string(digits), 10, 31)
	if err != nil {
		return -1
	}
	return int(n)
}
