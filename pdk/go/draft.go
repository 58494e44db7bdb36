package millrace

import "strconv"

// Draft is a record to emit. What is not changed is the input's, and what is
// the input's is not sent again. Nothing is emitted before Pass, Emit, EmitText,
// EmitNull, or the Emit of Write and Rewrite.
type Draft struct {
	out       *Out
	output    uint16
	partition int32
	key       []byte
	otherKey  bool
	timestamp int64
	otherTime bool
	noHeaders bool
	headers   []Header
}

// To sends it to that output of the manifest; one that is not there fails the
// record.
func (d *Draft) To(output string) *Draft {
	if output == "default" {
		d.output = 0
		return d
	}
	for i, name := range d.out.outputs {
		if name == output {
			d.output = uint16(i + 1)
			return d
		}
	}
	d.fault("there is no output \"" + output + "\" in Outputs of the manifest")
	return d
}

// Key gives it another key; nil is null.
func (d *Draft) Key(key []byte) *Draft {
	d.key, d.otherKey = key, true
	return d
}

// KeyText is Key for a string.
func (d *Draft) KeyText(key string) *Draft {
	if key == "" {
		return d.Key([]byte{})
	}
	return d.Key(bytesOf(key))
}

// NoKey makes its key null.
func (d *Draft) NoKey() *Draft { return d.Key(nil) }

// Header adds a header behind the others.
func (d *Draft) Header(name string, value []byte) *Draft {
	d.headers = append(d.headers, Header{name, value})
	return d
}

// HeaderText is Header for a string.
func (d *Draft) HeaderText(name, value string) *Draft { return d.Header(name, bytesOf(value)) }

// NoHeaders leaves the input's headers out.
func (d *Draft) NoHeaders() *Draft {
	d.noHeaders = true
	return d
}

// Timestamp gives it another time, in Unix milliseconds.
func (d *Draft) Timestamp(millis int64) *Draft {
	d.timestamp, d.otherTime = millis, true
	return d
}

// Partition sends it to this partition of the sink; otherwise the key decides.
func (d *Draft) Partition(partition int32) *Draft {
	d.partition = partition
	return d
}

// Pass emits it with the input's own value.
func (d *Draft) Pass() error {
	w := d.write(sameValue)
	return w.Emit()
}

// Emit emits it with this value; nil is an empty value, not a tombstone.
func (d *Draft) Emit(value []byte) error {
	if own := d.out.r.Value(); own != nil && sameSlice(own, value) {
		return d.Pass()
	}
	w := d.write(0)
	d.out.put(value)
	return w.Emit()
}

// EmitText is Emit for a string.
func (d *Draft) EmitText(value string) error { return d.Emit(bytesOf(value)) }

// EmitNull emits it without a value: a tombstone.
func (d *Draft) EmitNull() error {
	w := d.write(0)
	w.answer.head |= flagValueNull << 16
	return w.Emit()
}

// Write emits it with a value that is written piece by piece.
func (d *Draft) Write() *Writer { return d.write(0) }

// Rewrite emits it with a changed copy of the object as its value.
func (d *Draft) Rewrite(object *Object) *Rewrite {
	rw := &d.out.rewrite
	rw.begin(d.write(0), object)
	return rw
}

// write writes headers and key; what is put behind them becomes the value.
func (d *Draft) write(same uint64) *Writer {
	o, r := d.out, d.out.r
	w := &o.writer
	at := o.done
	o.b = o.b[:at]
	w.out, w.at, w.comma = o, at, false
	// As a rule this is all the room that the answer needs.
	o.room(len(r.frame) + recordBytes + 64)
	o.b = o.b[:at+recordBytes]
	a := &w.answer
	*a = answer{partition: d.partition}
	head := outcomeEmit | uint64(d.output)<<32
	if !d.noHeaders && len(d.headers) == 0 {
		same |= sameHeaders
	} else {
		head |= uint64(d.putHeaders()) << 48
		a.headersLen = uint32(len(o.b) - at - recordBytes)
	}
	if d.otherKey {
		switch own := r.Key(); {
		case d.key == nil && own == nil, d.key != nil && own != nil && sameSlice(d.key, own):
			same |= sameKey
		case d.key == nil:
			head |= flagKeyNull << 16
		default:
			o.put(d.key)
			a.keyLen = uint32(len(d.key))
		}
	} else {
		same |= sameKey
	}
	if d.otherTime {
		a.timestamp = d.timestamp
	} else {
		same |= sameTimestamp
	}
	a.head = head | same<<8
	w.value = len(o.b)
	return w
}

// putHeaders writes the headers and returns their number.
func (d *Draft) putHeaders() uint16 {
	const most = 65535
	o := d.out
	n := len(d.headers)
	if !d.noHeaders {
		n += o.r.headerCount()
		o.put(o.r.headerBytes())
	}
	if n > most {
		d.fault("emit with " + strconv.Itoa(n) + " headers: at most 65535 are possible")
		return 0
	}
	for _, h := range d.headers {
		if len(h.Name) > most {
			d.fault("emit with a header name of " + strconv.Itoa(len(h.Name)) + " bytes: at most 65535 are possible")
			return 0
		}
		at := len(o.b)
		o.skip(6)
		le.PutUint16(o.b[at:], uint16(len(h.Name)))
		le.PutUint32(o.b[at+2:], uint32(len(h.Value)))
		o.put(bytesOf(h.Name))
		o.put(h.Value)
	}
	return uint16(n)
}

func (d *Draft) fault(message string) {
	if d.out.fault == nil {
		d.out.fault = Fail(1, message)
	}
}
