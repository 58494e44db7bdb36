package millrace

import "strconv"

// Rewrite is a changed copy of an object under way into the answer. What is not
// touched is copied byte for byte, in the same order, without the white space
// between members; runs of untouched members are one copy.
//
//	to := out.Rewrite(event)
//	for to.Next() {
//		switch to.Name() {
//		case "internal_note":
//			to.Remove()
//		case "customer_id":
//			to.Rename("customer")
//		case "email":
//			to.Set("***")
//		}
//	}
//	return to.Emit()
type Rewrite struct {
	writer *Writer
	object *Object
	next   int
	span   span
	state  state
	// run is untouched text that waits to be copied.
	run, runEnd int
	// kept: a member is written, or in the run.
	kept bool
}

type state uint8

const (
	// done: nothing of the member is left to write.
	done state = iota
	// untouched: the member is to be kept as it is.
	untouched
	// begun: its key is written or in the run, and so is a part of its value.
	begun
)

// nowhere is a run that nothing follows.
const nowhere = 1 << 30

func (rw *Rewrite) begin(w *Writer, object *Object) {
	rw.writer, rw.object = w, object
	rw.next, rw.state, rw.kept = 0, done, false
	rw.run, rw.runEnd = nowhere, nowhere
	if b := object.text; len(b) > 0 && b[0] == '{' {
		rw.run, rw.runEnd = 0, 1
	} else {
		w.out.putByte('{')
	}
}

// Next goes to the next member, which is kept unless Remove, Rename, Set or
// Splice say otherwise; false behind the last, and at a fault of the text, which
// Emit returns.
func (rw *Rewrite) Next() bool {
	rw.settle()
	rw.state = done
	if rw.next >= rw.object.count && !rw.object.more() {
		return false
	}
	rw.span = rw.object.spans[rw.next]
	rw.next++
	rw.state = untouched
	return true
}

// Name is the member's name.
func (rw *Rewrite) Name() string { return rw.object.name(rw.span) }

// Is tells whether this is the member's name.
func (rw *Rewrite) Is(name string) bool { return rw.object.is(rw.span, name) }

// Value is the member's value.
func (rw *Rewrite) Value() Value { return rw.object.valueAt(rw.span) }

// Remove leaves the member out, unless it was renamed, set or spliced already.
func (rw *Rewrite) Remove() {
	if rw.state == untouched {
		rw.state = done
	}
}

// Rename gives the member another name. It comes before Set and Splice.
func (rw *Rewrite) Rename(name string) {
	if rw.state != untouched {
		return
	}
	rw.comma()
	o := rw.writer.out
	o.b = appendString(o.b, name)
	o.putByte(':')
	rw.run, rw.runEnd = int(rw.span.value), int(rw.span.value)
	rw.state = begun
}

// Set gives the member another value, of the types that Writer.Value takes. The
// first one counts; what was removed stays away.
func (rw *Rewrite) Set(value any) {
	if rw.state == done {
		return
	}
	rw.touch()
	rw.flush()
	rw.writer.comma = false
	rw.writer.Value(value)
	rw.run, rw.runEnd = int(rw.span.valueEnd), int(rw.span.valueEnd)
	rw.state = done
}

// Splice replaces the bytes from to to of the value's text, quotes counted, by
// others. Several splices of a value go from left to right. That the value stays
// valid JSON is the caller's affair. A range that does not lie in the value
// behind the last splice fails the record.
func (rw *Rewrite) Splice(from, to int, text string) {
	if rw.state == done {
		return
	}
	rw.touch()
	value := int(rw.span.value)
	if from < 0 || value+from < rw.runEnd || to < from || value+to > int(rw.span.valueEnd) {
		rw.refuse(from, to)
		return
	}
	rw.runEnd = value + from
	rw.flush()
	rw.writer.out.put(bytesOf(text))
	rw.run, rw.runEnd = value+to, value+to
}

//go:noinline
func (rw *Rewrite) refuse(from, to int) {
	if o := rw.writer.out; o.fault == nil {
		n := int(rw.span.valueEnd - rw.span.value)
		o.fault = Fail(1, "splice from "+strconv.Itoa(from)+" to "+strconv.Itoa(to)+" of a value of "+strconv.Itoa(n)+" bytes")
	}
}

// Add adds a member behind those that were read so far: behind all if Next has
// returned false.
func (rw *Rewrite) Add(name string, value any) {
	rw.settle()
	rw.state = done
	rw.comma()
	rw.writer.comma = false
	rw.writer.Member(name, value)
	rw.run, rw.runEnd = nowhere, nowhere
}

// Emit emits the copy. Members that were not read yet are kept.
func (rw *Rewrite) Emit() error {
	for rw.Next() {
	}
	if err := rw.object.fault(); err != nil {
		return err
	}
	// The run may go on to the bracket that ends the object.
	if b := rw.object.text; rw.runEnd < len(b) && b[rw.runEnd] == '}' {
		rw.runEnd++
		rw.flush()
	} else {
		rw.flush()
		rw.writer.out.putByte('}')
	}
	return rw.writer.Emit()
}

// settle completes the member that was read last.
func (rw *Rewrite) settle() {
	if rw.state == untouched {
		rw.touch()
	}
	if rw.state == begun {
		rw.runEnd = int(rw.span.valueEnd)
	}
}

// touch puts the key into the run, unless it is written.
func (rw *Rewrite) touch() {
	if rw.state != untouched {
		return
	}
	rw.state = begun
	quote, colon := int(rw.span.key)-1, int(rw.span.keyEnd)+1
	// Between two members there is one comma, so one byte is that.
	expected := rw.runEnd
	if rw.kept {
		expected++
	}
	if quote != expected {
		rw.comma()
		rw.run = quote
	}
	rw.kept = true
	if int(rw.span.value) == colon+1 {
		rw.runEnd = colon + 1
		return
	}
	rw.runEnd = colon
	rw.flush()
	rw.writer.out.putByte(':')
	rw.run, rw.runEnd = int(rw.span.value), int(rw.span.value)
}

// comma writes what waits and the comma before another member.
func (rw *Rewrite) comma() {
	rw.flush()
	if rw.kept {
		rw.writer.out.putByte(',')
	}
	rw.kept = true
}

func (rw *Rewrite) flush() {
	if rw.run < rw.runEnd {
		rw.writer.out.put(rw.object.text[rw.run:rw.runEnd])
	}
	rw.run = rw.runEnd
}
