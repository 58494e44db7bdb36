// Package tests holds the tests of the kit, so that its own folder is what
// authors get.
package tests

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	millrace "github.com/millrace-io/millrace/pdk/go"
	"github.com/millrace-io/millrace/pdk/go/internal/bridge"
	mt "github.com/millrace-io/millrace/pdk/go/millracetest"
)

type rules struct {
	Remove  []string          `json:"remove" doc:"Fields that go." default:"[]"`
	Email   string            `json:"email" default:"***"`
	MaxAge  uint16            `default:"30"`
	Rate    *float64          `json:"rate"`
	Names   map[string]string `default:"{}"`
	Nested  struct{ On bool } `default:"{\"on\":true}"`
	Any     millrace.JSON     `json:"any" default:"null"`
	hidden  int
	Ignored func() `json:"-"`
}

func (r *rules) Validate() error {
	if r.Email == "" {
		return errors.New("email is empty")
	}
	return nil
}

// current is the stage under test: a plugin has one.
var current func(r *millrace.Record, out *millrace.Out, c *rules) error

func init() {
	millrace.StageWith(func(r *millrace.Record, out *millrace.Out, c *rules) error { return current(r, out, c) })
	millrace.Describe(millrace.Manifest{
		Name: "acme/kit-test", Version: "1.2.3-dev", Outputs: []string{"audit", "late"}, MemoryMB: 8, FuelPerRecord: 1000, NotDeterministic: true,
		Samples: []millrace.Sample{
			{Key: "k", Value: `{"a":"\n"}`, Headers: map[string]string{"b": "2", "a": "\xff"}},
			{Value: "\x00\xff"}, {Tombstone: true},
		},
	})
}

func stage(t *testing.T, f func(r *millrace.Record, out *millrace.Out) error) *mt.Stage {
	t.Helper()
	current = func(r *millrace.Record, out *millrace.Out, _ *rules) error { return f(r, out) }
	return mt.New(t, "")
}

func TestRecordIsSeen(t *testing.T) {
	s := stage(t, func(r *millrace.Record, out *millrace.Out) error {
		h, ok := r.Header("h")
		_, none := r.Header("none")
		return out.EmitText(fmt.Sprintf("%s %q %q %d %d %d %d %v %x %d %d %q %v %v", r.Topic(), r.Key(), r.Value(), r.Partition(), r.Offset(), r.Timestamp(), r.Attempt(),
			r.Redelivered(), r.TraceID(), r.Now(), len(r.Headers()), h, ok, none))
	})
	s.Now = 99
	one := mt.Value("v").WithKey("k").WithHeader("h", "1").WithHeader("x", "").WithHeader("h", "2")
	one.Topic, one.Partition, one.Offset, one.Timestamp, one.Attempt, one.Redelivered, one.TraceID = "orders", 7, 1<<53+1, -5, 3, true, [16]byte{15: 1}
	got := s.Run(t, one, mt.Tombstone())
	if v, want := got.Value(0), `orders "k" "v" 7 9007199254740993 -5 3 true 00000000000000000000000000000001 99 3 "2" true false`; v != want {
		t.Errorf("got  %s\nwant %s", v, want)
	}
	if v, want := got.Value(1), `test "" "" 0 1 0 1 false 00000000000000000000000000000000 99 0 "" false false`; v != want {
		t.Errorf("got  %s\nwant %s", v, want)
	}
}

func TestAnswers(t *testing.T) {
	in := mt.Value("value").WithKey("key").WithHeader("h", "1")
	h := []mt.Header{{Name: "h", Value: "1"}}
	own := mt.Emitted{Output: "default", Key: in.Key, Value: in.Value, Headers: h, Partition: -1, SameKey: true, SameValue: true, SameHeaders: true, SameTimestamp: true}
	with := func(change func(e *mt.Emitted)) []mt.Emitted {
		e := own
		change(&e)
		return []mt.Emitted{e}
	}
	other := func(v string) func(e *mt.Emitted) {
		return func(e *mt.Emitted) { e.Value, e.SameValue = []byte(v), false }
	}
	for _, c := range []struct {
		name string
		f    func(r *millrace.Record, out *millrace.Out) error
		want []mt.Emitted
	}{
		{"pass", func(_ *millrace.Record, out *millrace.Out) error { return out.Pass() }, []mt.Emitted{own}},
		{"the own value", func(r *millrace.Record, out *millrace.Out) error { return out.Emit(r.Value()) }, []mt.Emitted{own}},
		{"the own value and key of a draft", func(r *millrace.Record, out *millrace.Out) error { return out.Record().Key(r.Key()).Emit(r.Value()) }, []mt.Emitted{own}},
		{"a copy of the value", func(r *millrace.Record, out *millrace.Out) error { return out.Emit(bytes.Clone(r.Value())) }, with(other("value"))},
		{"an empty value", func(_ *millrace.Record, out *millrace.Out) error { return out.Emit(nil) }, with(other(""))},
		{"a tombstone", func(_ *millrace.Record, out *millrace.Out) error { return out.Record().EmitNull() }, with(func(e *mt.Emitted) { e.Value, e.SameValue = nil, false })},
		{"another key", func(_ *millrace.Record, out *millrace.Out) error { return out.Record().KeyText("longer key").Pass() }, with(func(e *mt.Emitted) { e.Key, e.SameKey = []byte("longer key"), false })},
		{"an empty key", func(_ *millrace.Record, out *millrace.Out) error { return out.Record().KeyText("").Pass() }, with(func(e *mt.Emitted) { e.Key, e.SameKey = []byte{}, false })},
		{"no key", func(_ *millrace.Record, out *millrace.Out) error { return out.Record().NoKey().Pass() }, with(func(e *mt.Emitted) { e.Key, e.SameKey = nil, false })},
		{"a header more", func(_ *millrace.Record, out *millrace.Out) error { return out.Record().HeaderText("i", "2").Pass() }, with(func(e *mt.Emitted) { e.Headers, e.SameHeaders = []mt.Header{h[0], {Name: "i", Value: "2"}}, false })},
		{"no headers", func(_ *millrace.Record, out *millrace.Out) error { return out.Record().NoHeaders().Pass() }, with(func(e *mt.Emitted) { e.Headers, e.SameHeaders = nil, false })},
		{"time, partition and output", func(_ *millrace.Record, out *millrace.Out) error {
			return out.To("late").Timestamp(-7).Partition(3).EmitText("x")
		}, with(func(e *mt.Emitted) {
			e.Output, e.Timestamp, e.SameTimestamp, e.Partition, e.Value, e.SameValue = "late", -7, false, 3, []byte("x"), false
		})},
		{"a writer", func(_ *millrace.Record, out *millrace.Out) error {
			w := out.Write()
			fmt.Fprintf(w, "%d-", 7)
			w.WriteString("a")
			w.WriteByte('b')
			return w.Emit()
		}, with(other("7-ab"))},
		{"written JSON", func(_ *millrace.Record, out *millrace.Out) error {
			w := out.Write()
			w.Begin('{')
			w.Member("a\"", "b\n\x01\\é\xff")
			w.Name("l")
			w.Begin('[')
			for _, v := range []any{nil, true, 1, int32(-2), int64(3), uint32(4), uint64(5), 1.5, 1e-7, millrace.JSON("{}"), millrace.Value{}} {
				w.Value(v)
			}
			w.End(']')
			w.Member("z", false)
			w.End('}')
			return w.Emit()
		}, with(other(`{"a\"":"b\n\u0001\\é` + "\ufffd" + `","l":[null,true,1,-2,3,4,5,1.5,1e-7,{},null],"z":false}`))},
		{"a draft that is given up", func(_ *millrace.Record, out *millrace.Out) error {
			w := out.Write()
			w.WriteString("lost")
			out.Record().NoKey()
			return out.Pass()
		}, []mt.Emitted{own}},
		{"several", func(_ *millrace.Record, out *millrace.Out) error {
			out.Pass()
			out.EmitText("2")
			return out.End()
		}, append([]mt.Emitted{own}, with(other("2"))...)},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := stage(t, c.f).Run(t, in, in)
			for i := range 2 {
				if !reflect.DeepEqual(got.Emits(i), c.want) {
					t.Errorf("record %d (%v):\ngot  %+v\nwant %+v", i, got.Failure(i), got.Emits(i), c.want)
				}
			}
		})
	}
}

func TestDropsAndFailures(t *testing.T) {
	long := strings.Repeat("n", 70_000)
	for _, c := range []struct {
		name string
		f    func(r *millrace.Record, out *millrace.Out) error
		want *millrace.Failure // nil: dropped
	}{
		{"drop", func(_ *millrace.Record, out *millrace.Out) error { return out.Drop() }, nil},
		{"drop takes back", func(_ *millrace.Record, out *millrace.Out) error { out.Pass(); return out.Drop() }, nil},
		{"end of nothing", func(_ *millrace.Record, out *millrace.Out) error { return out.End() }, nil},
		{"fail", func(*millrace.Record, *millrace.Out) error { return millrace.Fail(7, "no") }, &millrace.Failure{Code: 7, Message: "no"}},
		{"failf", func(*millrace.Record, *millrace.Out) error { return millrace.Failf(7, "no %d", 3) }, &millrace.Failure{Code: 7, Message: "no 3"}},
		{"fail takes back", func(_ *millrace.Record, out *millrace.Out) error { out.Pass(); return millrace.Fail(7, "é") }, &millrace.Failure{Code: 7, Message: "é"}},
		{"retry", func(*millrace.Record, *millrace.Out) error { return millrace.RetryAfter(2*time.Second, 9, "later") }, &millrace.Failure{Code: 9, Message: "later", Retry: true, Delay: 2 * time.Second}},
		{"retry in the past", func(*millrace.Record, *millrace.Out) error { return millrace.RetryAfter(-1, 9, "") }, &millrace.Failure{Code: 9, Retry: true}},
		{"any error", func(*millrace.Record, *millrace.Out) error { return errors.New("broken") }, &millrace.Failure{Code: 1, Message: "broken"}},
		{"a wrapped failure", func(*millrace.Record, *millrace.Out) error { return fmt.Errorf("outer: %w", millrace.Fail(7, "no")) }, &millrace.Failure{Code: 7, Message: "outer: no"}},
		{"joined errors", func(*millrace.Record, *millrace.Out) error {
			return errors.Join(errors.New("a"), millrace.RetryAfter(time.Second, 8, "b"))
		}, &millrace.Failure{Code: 8, Message: "a\nb", Retry: true, Delay: time.Second}},
		{"no answer", func(*millrace.Record, *millrace.Out) error { return nil }, &millrace.Failure{Code: 1, Message: "the stage did not answer the record: return what Pass, Emit, Drop, End or Fail returns"}},
		{"no answer behind a writer", func(_ *millrace.Record, out *millrace.Out) error { out.Write().WriteString("x"); return nil }, &millrace.Failure{Code: 1, Message: "the stage did not answer the record: return what Pass, Emit, Drop, End or Fail returns"}},
		{"an unknown output", func(_ *millrace.Record, out *millrace.Out) error { out.To("audti").Pass(); return out.End() }, &millrace.Failure{Code: 1, Message: `there is no output "audti" in Outputs of the manifest`}},
		{"a long header name", func(_ *millrace.Record, out *millrace.Out) error { return out.Record().HeaderText(long, "").Pass() }, &millrace.Failure{Code: 1, Message: "emit with a header name of 70000 bytes: at most 65535 are possible"}},
		{"many headers", func(_ *millrace.Record, out *millrace.Out) error {
			d := out.Record()
			for range 65536 {
				d.HeaderText("a", "")
			}
			return d.Pass()
		}, &millrace.Failure{Code: 1, Message: "emit with 65536 headers: at most 65535 are possible"}},
		{"a value of another type", func(_ *millrace.Record, out *millrace.Out) error {
			w := out.Write()
			w.Value(struct{}{})
			return w.Emit()
		}, &millrace.Failure{Code: 1, Message: "write JSON: a value of this type is not supported; take nil, string, bool, int, int32, int64, uint32, uint64, float64, Value or JSON"}},
		{"text of a tombstone", func(r *millrace.Record, _ *millrace.Out) error { _, err := r.Text(); return err }, &millrace.Failure{Code: 1, Message: "the record has no value (a tombstone)"}},
		{"JSON of a tombstone", func(r *millrace.Record, _ *millrace.Out) error { _, err := r.JSON(); return err }, &millrace.Failure{Code: 1, Message: "the record has no value (a tombstone)"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := stage(t, func(r *millrace.Record, out *millrace.Out) error {
				if r.Offset() == 1 {
					return c.f(r, out)
				}
				return out.Pass()
			}).Run(t, mt.Value("a"), mt.Tombstone(), mt.Value("c"))
			if got.Value(0) != "a" || got.Value(2) != "c" {
				t.Error("the records beside it did not pass")
			}
			if len(got.Emits(1)) != 0 || got.Dropped(1) != (c.want == nil) || !reflect.DeepEqual(got.Failure(1), c.want) {
				t.Errorf("got %+v, dropped %v, emits %v, want %+v", got.Failure(1), got.Dropped(1), got.Emits(1), c.want)
			}
		})
	}
}

func TestPanicFailsItsRecord(t *testing.T) {
	got := stage(t, func(r *millrace.Record, out *millrace.Out) error {
		out.Pass()
		return out.EmitText(string(r.Value()[3]))
	}).Run(t, mt.Value("abcd"), mt.Value("a"), mt.Value("abcde"))
	f := got.Failure(1)
	if f == nil || f.Code != 1 || !strings.HasPrefix(f.Message, "panic: runtime error: index out of range [3] with length 1 at stage_test.go:") {
		t.Errorf("got %+v", f)
	}
	if len(got.Emits(0)) != 2 || len(got.Emits(1)) != 0 || len(got.Emits(2)) != 2 {
		t.Error("the records beside it were not answered")
	}
}

func TestLogsAndCounts(t *testing.T) {
	s := stage(t, func(r *millrace.Record, out *millrace.Out) error {
		millrace.Debug("d")
		millrace.Info("i")
		millrace.Warn("w")
		millrace.Error("e")
		millrace.Logf(millrace.LevelInfo, "%d", 7)
		millrace.Count("n", 1.5)
		return out.Drop()
	})
	for range 2 {
		got := s.Run(t, mt.Value("a"), mt.Value("b"))
		want := []string{"debug d", "info i", "warn w", "error e", "info 7"}
		if !reflect.DeepEqual(got.Logs, append(want, want...)) || got.Counts["n"] != 3 {
			t.Errorf("got %q, %v", got.Logs, got.Counts)
		}
	}
}

// The kit answers a broken frame with none, whatever is broken.
func TestBrokenFrames(t *testing.T) {
	current = func(r *millrace.Record, out *millrace.Out, _ *rules) error {
		r.Topic()
		r.Headers()
		r.Scan().Len()
		return out.Record().HeaderText("a", "b").Emit(r.Value())
	}
	batch, err := bridge.New([]byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	good := frame()
	if batch(good) == nil {
		t.Fatal("a good frame is not answered")
	}
	for n := range len(good) {
		if batch(good[:n:n]) != nil {
			t.Errorf("a frame cut off at %d of %d is answered", n, len(good))
		}
	}
	for i := range good {
		for _, c := range []byte{0, 1, 0x7f, 0xff} {
			bad := bytes.Clone(good)
			bad[i] = c
			batch(bad) // must not panic
		}
	}
}

// frame is a request of one record with a header, a key and a value.
func frame() []byte {
	f := make([]byte, 32+8+72+8+8)
	f[0], f[4], f[6], f[8], f[12] = byte(len(f)), 1, 1, 1, 8
	copy(f[32:], "\x05\x00topic")
	r := f[40:]
	r[0], r[14], r[36], r[40], r[44], r[48] = 88, 1, 1, 1, 2, 8
	copy(r[72:], "\x01\x00\x01\x00\x00\x00hv"+"k"+"{}")
	return f
}
