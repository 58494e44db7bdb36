// Command jt808 is a stage that reads frames of JT/T 808, the protocol by which
// vehicle terminals report to platforms, and writes them as JSON. It knows the
// headers of 2013 and 2019. A record is one frame, from 0x7e to 0x7e; what comes
// out has the terminal's phone number as its key, so that `order: key` keeps the
// order of each vehicle.
package main

import (
	"encoding/hex"

	millrace "github.com/millrace-io/millrace/pdk/go"
)

func init() {
	millrace.Stage(decode)
	millrace.Describe(millrace.Manifest{
		Name: "jt808", Version: "1.0.0", MemoryMB: 16,
		Samples: []millrace.Sample{
			{Value: "\x7e\x02\x00\x00\x3f\x01\x39\x12\x34\x56\x78\x00\x7d\x02\x00\x00\x00\x00\x00\x00\x00\x03\x01\xdc\x89\xd0\x07\x3d\x8a\xa5\x00\x0c\x02\x58\x00\x2d\x26\x06\x01\x10\x15\x30\x01\x04\x00\x01\xe2\x40\x02\x02\x01\xc7\x03\x02\x02\x56\x25\x04\x00\x00\x00\x05\x2a\x02\x00\x01\x30\x01\x1f\x31\x01\x0b\xe1\x03\x7d\x01\x7d\x02\x00\x42\x7e"},
			{Value: "\x7e\x00\x02\x00\x00\x01\x39\x12\x34\x56\x78\x00\x03\x31\x7e"},
		},
	})
}

func main() {}

// The messages that are read; others are passed on with their bodies in
// hexadecimal.
const (
	heartbeat    = 0x0002
	registration = 0x0100
	position     = 0x0200
)

// scratch is the memory of the last frame, used again.
var scratch []byte

func decode(r *millrace.Record, out *millrace.Out) error {
	b, err := unwrap(scratch[:0], r.Value())
	if err != nil {
		return err
	}
	scratch = b
	f, err := parse(b)
	if err != nil {
		return err
	}
	w := out.Record().KeyText(f.phone).Write()
	w.Begin('{')
	w.Member("phone", f.phone)
	w.Member("message", name(f.id))
	w.Member("id", int(f.id))
	w.Member("serial", int(f.serial))
	w.Member("version", f.version)
	if f.version == 2019 {
		w.Member("protocol", int(f.protocol))
	}
	whole := f.total == 0 && !f.encrypted
	if f.total > 0 {
		w.Member("packets", int(f.total))
		w.Member("packet", int(f.index))
	}
	if f.encrypted {
		w.Member("encrypted", true)
	}
	switch {
	case whole && f.id == heartbeat && len(f.body) == 0:
	case whole && f.id == position:
		err = location(w, f.body)
	case whole && f.id == registration:
		err = register(w, &f)
	default:
		w.Member("body", hex.EncodeToString(f.body))
	}
	if err != nil {
		return err
	}
	w.End('}')
	return w.Emit()
}

func name(id uint16) string {
	switch id {
	case heartbeat:
		return "heartbeat"
	case registration:
		return "registration"
	case position:
		return "location"
	}
	return "0x" + hex.EncodeToString([]byte{byte(id >> 8), byte(id)})
}

// register writes the body of a message 0x0100.
func register(w *millrace.Writer, f *frame) error {
	manufacturer, model, terminal := 5, 20, 7
	if f.version == 2019 {
		manufacturer, model, terminal = 11, 30, 30
	}
	r := reader{b: f.body}
	w.Member("province", int(r.u16()))
	w.Member("city", int(r.u16()))
	member(w, "manufacturer", r.take(manufacturer))
	member(w, "model", r.take(model))
	member(w, "terminal", r.take(terminal))
	w.Member("plate_color", int(r.u8()))
	if r.short {
		return millrace.Fail(codeBody, "the registration is cut off")
	}
	member(w, "plate", r.b)
	return nil
}

// member writes a text. What is not ASCII is GBK, and is given in hexadecimal
// under another name.
func member(w *millrace.Writer, name string, b []byte) {
	if b = trim(b); ascii(b) {
		w.Member(name, string(b))
	} else {
		w.Member(name+"_gbk", hex.EncodeToString(b))
	}
}

// trim is b without the zeros that fill it up, on either side.
func trim(b []byte) []byte {
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	for len(b) > 0 && b[0] == 0 {
		b = b[1:]
	}
	return b
}

func ascii(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}
