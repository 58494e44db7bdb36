package millrace

// Out takes the answer to a record. A stage emits any number of records, or
// drops it; a failure that the stage returns takes back what was emitted.
//
// One record is under way at a time: Record, To, Write and Rewrite give up one
// that was begun and not emitted.
type Out struct {
	b       []byte
	r       *Record
	outputs []string
	// start is where the record's answers begin, done where the last complete
	// one ends.
	start, done int
	answered    bool
	// fault is what was emitted and cannot be expressed.
	fault error

	draft   Draft
	writer  Writer
	rewrite Rewrite
}

const unanswered = "the stage did not answer the record: return what Pass, Emit, Drop, End or Fail returns"

// Pass emits the record as it is.
func (o *Out) Pass() error { return o.emit(sameValue, nil) }

// Emit emits the record with this value; key, headers and timestamp stay.
func (o *Out) Emit(value []byte) error {
	if own := o.r.Value(); own != nil && sameSlice(own, value) {
		return o.Pass()
	}
	return o.emit(0, value)
}

// EmitText is Emit for a string.
func (o *Out) EmitText(value string) error { return o.Emit(bytesOf(value)) }

// Write emits the record with a value that is written piece by piece.
func (o *Out) Write() *Writer { return o.Record().Write() }

// Rewrite emits the record with a changed copy of the object as its value.
func (o *Out) Rewrite(object *Object) *Rewrite { return o.Record().Rewrite(object) }

// To begins a record to emit to that output of the manifest.
func (o *Out) To(output string) *Draft { return o.Record().To(output) }

// Record begins a record to emit: the input's, of which parts can be changed.
func (o *Out) Record() *Draft {
	o.b, o.writer.at = o.b[:o.done], givenUp
	d := &o.draft
	d.out = o
	d.output, d.partition = 0, byKey
	d.otherKey, d.otherTime, d.noHeaders = false, false, false
	d.headers = d.headers[:0]
	return d
}

// emit is the short way of a record of which at most the value is another.
func (o *Out) emit(same uint64, value []byte) error {
	b, at := o.b, o.done
	end := at + recordBytes + len(value)
	padded := (end + 7) &^ 7
	if padded > cap(b) {
		b = grown(b[:at], padded-at)
	}
	b = b[:padded]
	le.PutUint64(b[padded-8:], 0)
	copy(b[at+recordBytes:], value)
	a := answer{head: outcomeEmit | (same|sameKey|sameHeaders|sameTimestamp)<<8, partition: byKey}
	a.put(b[at:], o.r, len(value))
	o.b, o.done, o.answered = b, padded, true
	return o.fault
}

// Drop drops the record, and takes back what was emitted for it.
func (o *Out) Drop() error {
	o.done = o.start
	o.answered = true
	return nil
}

// End says that all is emitted, for stages that emit in a loop. If nothing was,
// the record is dropped.
func (o *Out) End() error {
	o.answered = true
	return nil
}

func (o *Out) begin(r *Record) {
	o.r = r
	o.start, o.done = len(o.b), len(o.b)
	o.answered, o.fault = false, nil
}

// finish writes the record's answers as the stage's result says.
func (o *Out) finish(err error) {
	if err == nil {
		err = o.fault
	}
	switch {
	case err != nil:
		o.failed(failureOf(err))
	case !o.answered:
		o.failed(Failure{Code: 1, Message: unanswered})
	default:
		o.b = o.b[:o.done]
		if o.done == o.start {
			o.end(outcomeDrop, 0, 0, "")
		}
	}
}

func (o *Out) failed(f Failure) {
	o.b = o.b[:o.start]
	if f.Retry {
		o.end(outcomeRetry, max(f.Delay, 0).Milliseconds(), f.Code, f.Message)
	} else {
		o.end(outcomeFail, 0, f.Code, f.Message)
	}
}

// end writes an answer that emits nothing.
func (o *Out) end(outcome uint8, delay int64, code uint32, message string) {
	at := len(o.b)
	o.skip(recordBytes)
	o.put(bytesOf(message))
	o.pad()
	h := o.b[at : at+recordBytes]
	le.PutUint64(h, uint64(len(o.b)-at)|uint64(o.r.id)<<32)
	le.PutUint64(h[8:], uint64(outcome))
	le.PutUint64(h[16:], uint64(delay))
	le.PutUint64(h[24:], 0)
	le.PutUint64(h[32:], 0xffff_ffff|uint64(code)<<32)
	le.PutUint64(h[40:], uint64(len(message))<<32)
	clear(h[48:])
}

// room makes room for n bytes more.
func (o *Out) room(n int) {
	if n > cap(o.b)-len(o.b) {
		o.b = grown(o.b, n)
	}
}

// skip appends n bytes that are written later.
func (o *Out) skip(n int) {
	o.room(n)
	o.b = o.b[:len(o.b)+n]
}

func (o *Out) put(p []byte) {
	n := len(o.b)
	o.room(len(p))
	o.b = o.b[:n+len(p)]
	copy(o.b[n:], p)
}

func (o *Out) putByte(c byte) {
	o.room(1)
	o.b = append(o.b, c)
}

// pad appends zeros up to a multiple of 8.
func (o *Out) pad() {
	if n := -len(o.b) & 7; n != 0 {
		at := len(o.b)
		o.skip(n)
		for i := at; i < len(o.b); i++ {
			o.b[i] = 0
		}
	}
}
