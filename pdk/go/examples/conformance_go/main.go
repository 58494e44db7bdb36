// Command conformance_go is the conformance protocol by the kit: each record is
// answered as a command says, so that the golden vectors of the kits can ask for
// anything.
package main

import (
	"bytes"
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	millrace "github.com/millrace-io/millrace/pdk/go"
)

func init() {
	millrace.StageWith(obey)
	millrace.Describe(millrace.Manifest{
		Name: "millrace/conformance", Version: "1.0.0", MemoryMB: 64,
		Outputs: []string{"audit"},
		Samples: []millrace.Sample{{Key: "k", Value: `{"a":1}`}},
	})
}

func main() {}

// commands is the configuration: its text, and the commands for records that
// bring none.
type commands struct{ text, do string }

// UnmarshalJSON takes any object.
func (c *commands) UnmarshalJSON(text []byte) error {
	o, err := millrace.ReadObject(text)
	if err != nil {
		return err
	}
	c.text = string(text)
	c.do, _ = o.Get("do").Text()
	return nil
}

func obey(r *millrace.Record, out *millrace.Out, config *commands) error {
	rest := config.do
	for _, h := range r.Headers() {
		if h.Name == "do" {
			rest = string(h.Value)
			break
		}
	}
	for more := true; more; {
		var command string
		command, rest, more = strings.Cut(rest, "; ")
		if err := one(command, r, out, config); err != nil {
			return err
		}
	}
	return out.End()
}

// kept is what grow keeps.
var kept [][]byte

func one(command string, r *millrace.Record, out *millrace.Out, config *commands) error {
	verb, rest, _ := strings.Cut(command, " ")
	word, behind, _ := strings.Cut(rest, " ")
	number, _ := strconv.ParseInt(word, 10, 64)
	switch verb {
	case "drop":
		return out.Drop()
	case "retry":
		code, message, _ := strings.Cut(behind, " ")
		n, _ := strconv.ParseUint(code, 10, 32)
		return millrace.RetryAfter(time.Duration(number)*time.Millisecond, uint32(n), message)
	case "fail":
		return millrace.Fail(uint32(number), behind)
	case "copy":
		return copied(r, out)
	case "value":
		return out.EmitText(rest)
	case "upper":
		return out.Emit(upper(r.Value()))
	case "size":
		return out.Emit(bytes.Repeat([]byte("x"), int(number)))
	case "tombstone":
		return out.Record().EmitNull()
	case "key":
		return out.Record().KeyText(rest).Pass()
	case "null-key":
		return out.Record().NoKey().Pass()
	case "time":
		return out.Record().Timestamp(number).Pass()
	case "header":
		return out.Record().HeaderText(word, behind).Pass()
	case "headers":
		to := out.Record().NoHeaders()
		for i := range number {
			n := strconv.FormatInt(i, 10)
			to.HeaderText("h"+n, "v"+n)
		}
		return to.Pass()
	case "output":
		if number == 1 {
			return out.To("audit").Pass()
		}
		return out.Pass()
	case "partition":
		return out.Record().Partition(int32(number)).Pass()
	case "emit":
		for i := range number {
			if err := out.EmitText(strconv.FormatInt(i, 10)); err != nil {
				return err
			}
		}
		return out.End()
	case "facts":
		return out.EmitText(facts(r))
	case "config":
		return out.EmitText(config.text)
	case "grow":
		kept = append(kept, bytes.Repeat([]byte{1}, int(number)<<20))
		return out.Pass()
	case "log":
		logAt(word, behind)
		return nil
	case "count":
		delta, err := strconv.ParseFloat(behind, 64)
		if err != nil {
			delta = 1
		}
		millrace.Count(word, delta)
		return nil
	}
	return out.Pass()
}

// copied emits the record with all of its parts sent.
func copied(r *millrace.Record, out *millrace.Out) error {
	to := out.Record().NoHeaders().Timestamp(r.Timestamp())
	for _, h := range r.Headers() {
		to.Header(h.Name, h.Value)
	}
	if key := r.Key(); key != nil {
		to.Key(append([]byte{}, key...))
	}
	if r.Value() == nil {
		return to.EmitNull()
	}
	return to.Emit(append([]byte{}, r.Value()...))
}

func upper(value []byte) []byte {
	b := append([]byte{}, value...)
	for i, c := range b {
		if c >= 'a' && c <= 'z' {
			b[i] = c - 'a' + 'A'
		}
	}
	return b
}

func logAt(level, text string) {
	switch level {
	case "debug":
		millrace.Debug(text)
	case "warn":
		millrace.Warn(text)
	case "error":
		millrace.Error(text)
	default:
		millrace.Info(text)
	}
}

// facts is what the stage sees of the record beside key, value and headers.
func facts(r *millrace.Record) string {
	trace := r.TraceID()
	return "topic=" + r.Topic() +
		" partition=" + strconv.Itoa(int(r.Partition())) +
		" offset=" + strconv.FormatInt(r.Offset(), 10) +
		" timestamp=" + strconv.FormatInt(r.Timestamp(), 10) +
		" attempt=" + strconv.Itoa(int(r.Attempt())) +
		" redelivered=" + strconv.FormatBool(r.Redelivered()) +
		" key=" + length(r.Key()) +
		" value=" + length(r.Value()) +
		" headers=" + strconv.Itoa(len(r.Headers())) +
		" now=" + strconv.FormatInt(r.Now(), 10) +
		" trace=" + hex.EncodeToString(trace[:])
}

func length(b []byte) string {
	if b == nil {
		return "null"
	}
	return strconv.Itoa(len(b))
}
