package tests

import (
	"encoding/json"
	"math"
	"reflect"
	"testing"
	"time"

	millrace "github.com/millrace-io/millrace/pdk/go"
	mt "github.com/millrace-io/millrace/pdk/go/millracetest"
)

const givenUp = "emit: this record was given up when another one was begun or emitted"

// What is begun, let go and taken up again never gets into the answers of others.
func TestDraftsAndWritersThatAreKept(t *testing.T) {
	for _, c := range []struct {
		name string
		f    func(r *millrace.Record, out *millrace.Out) error
		want []string // the values that are emitted
		fail string
	}{
		{"a draft again, behind its writer", func(_ *millrace.Record, out *millrace.Out) error {
			d := out.Record().KeyText("k")
			d.Write().WriteString("lost")
			return d.Pass()
		}, []string{"value"}, ""},
		{"a draft twice", func(_ *millrace.Record, out *millrace.Out) error {
			d := out.Record().KeyText("k")
			d.EmitText("1")
			return d.EmitText("2")
		}, []string{"1", "2"}, ""},
		{"a writer twice", func(_ *millrace.Record, out *millrace.Out) error {
			w := out.Write()
			w.WriteString("abc")
			w.Emit()
			return w.Emit()
		}, nil, givenUp},
		{"a writer behind a record that was emitted", func(_ *millrace.Record, out *millrace.Out) error {
			w := out.Write()
			w.WriteString("abc")
			out.Pass()
			w.Emit()
			return out.End()
		}, nil, givenUp},
		{"a writer behind a record that was begun", func(_ *millrace.Record, out *millrace.Out) error {
			w := out.Write()
			w.WriteString("abc")
			out.Record()
			w.WriteString("def")
			return w.Emit()
		}, nil, givenUp},
		{"a writer that goes on behind its emit", func(_ *millrace.Record, out *millrace.Out) error {
			w := out.Write()
			w.WriteString("abc")
			w.Emit()
			w.WriteString("def")
			return out.EmitText("2")
		}, []string{"abc", "2"}, ""},
		{"a rewrite twice", func(_ *millrace.Record, out *millrace.Out) error {
			o, err := millrace.ReadObject([]byte(`{"a":1}`))
			if err != nil {
				return err
			}
			to := out.Rewrite(o)
			to.Emit()
			return to.Emit()
		}, nil, givenUp},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := stage(t, c.f).Run(t, mt.Value("value"), mt.Value("value"))
			for i := range 2 {
				var values []string
				for _, e := range got.Emits(i) {
					values = append(values, string(e.Value))
				}
				f := got.Failure(i)
				if !reflect.DeepEqual(values, c.want) || (f == nil) != (c.fail == "") || f != nil && f.Message != c.fail {
					t.Errorf("record %d: got %q and %v, want %q and %q", i, values, f, c.want, c.fail)
				}
			}
		})
	}
}

func TestAFailureOfTheAuthorsOwnMakingWaitsNoNegativeTime(t *testing.T) {
	f := stage(t, func(*millrace.Record, *millrace.Out) error {
		return &millrace.Failure{Retry: true, Delay: -time.Second}
	}).Value(t, "v").Failure(0)
	if f == nil || !f.Retry || f.Delay != 0 {
		t.Errorf("got %+v", f)
	}
}

func TestWrittenNumbersAreThoseOfEncodingJSON(t *testing.T) {
	for _, f := range []float64{0, math.Copysign(0, -1), 1e-7, 1.5e-9, 1e-10, 1e-300, -1e-7, 1e20, 1e21, 1e22, 1e-6, 5e-324, math.MaxFloat64} {
		got := stage(t, func(_ *millrace.Record, out *millrace.Out) error {
			w := out.Write()
			w.Value(f)
			return w.Emit()
		}).Value(t, "v").Value(0)
		if want, _ := json.Marshal(f); got != string(want) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestNoJSONIsWrittenAsNull(t *testing.T) {
	got := stage(t, func(_ *millrace.Record, out *millrace.Out) error {
		w := out.Write()
		w.Value(millrace.JSON(nil))
		return w.Emit()
	}).Value(t, "v").Value(0)
	if got != "null" {
		t.Errorf("got %q", got)
	}
}
