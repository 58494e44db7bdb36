package jsondoc

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestSyntaxErrors(t *testing.T) {
	for src, want := range map[string]string{
		"":           "end of text where a value should be at byte 0",
		"  ":         "end of text where a value should be at byte 2",
		`{"a" 1}`:    "'1' where a colon should be at byte 5",
		`{"a":1,}`:   "'}' where a key in quotes should be at byte 7",
		`{a:1}`:      "'a' where a key in quotes should be at byte 1",
		`[1 2]`:      "'2' where a comma or ] should be at byte 3",
		`{"a":1`:     "end of text where a comma or } should be at byte 6",
		`"abc`:       "a string without end at byte 0",
		`"a\`:        "a string without end at byte 0",
		`"\x"`:       "an unknown escape at byte 1",
		`"\u12g4"`:   `a \u without four hex digits at byte 1`,
		"\"a\nb\"":   "a control character in a string at byte 2",
		"01":         "text after the end of the value at byte 1",
		"-":          "end of text where a digit should be at byte 1",
		"1.":         "end of text where a digit should be at byte 2",
		"1e+":        "end of text where a digit should be at byte 3",
		"nul":        "'n' where a value should be at byte 0",
		"tru e":      "'t' where a value should be at byte 0",
		"é":          "'é' where a value should be at byte 0",
		"1 2":        "text after the end of the value at byte 2",
		"\ufeff{}":   "'\\ufeff' where a value should be at byte 0",
		deep(513):    "nested deeper than 512 levels at byte 512",
		`{"a":+1}`:   "'+' where a value should be at byte 5",
		`{"a":.5}`:   "'.' where a value should be at byte 5",
		`["a"]]`:     "text after the end of the value at byte 5",
		`{"a":tRue}`: "'t' where a value should be at byte 5",
	} {
		var d Doc
		err := d.Parse([]byte(src))
		var se *SyntaxError
		if !errors.As(err, &se) || err.Error() != want || d.Root() != None {
			t.Errorf("%.20q: got %v, want %s", src, err, want)
		}
	}
	var d Doc
	if err := d.Parse([]byte(deep(512))); err != nil {
		t.Errorf("512 levels: %v", err)
	}
}

func deep(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }

func TestNavigation(t *testing.T) {
	var d Doc
	// Twice, so that what the first text left behind would show.
	for range 2 {
		if err := d.Parse([]byte(` {"a":{"b":[10,[],{"c":"x\ty"}],"e":{}},"\u0061\"":1,"k":1,"k":2} `)); err != nil {
			t.Fatal(err)
		}
		r := d.Root()
		list := d.Member(d.Member(r, "a"), "b")
		if got := string(d.Raw(list)); got != `[10,[],{"c":"x\ty"}]` || d.Len(list) != 3 || d.Len(r) != 4 {
			t.Errorf("got %s of %d", got, d.Len(list))
		}
		if c := d.Member(d.Index(list, -1), "c"); d.Text(c) != "x\ty" || !d.StringIs(c, "x\ty") || string(d.Raw(c)) != `"x\ty"` {
			t.Errorf("got %q", d.Text(c))
		}
		if n, ok := d.Int(d.Index(list, 0)); n != 10 || !ok {
			t.Errorf("got %d, %v", n, ok)
		}
		if n, _ := d.Int(d.Member(r, "k")); n != 2 {
			t.Errorf("of a key that repeats got %d, want the last", n)
		}
		if d.Member(r, `a"`) == None {
			t.Error("an escaped key is not found")
		}
		for name, n := range map[string]Node{"missing": d.Member(r, "x"), "below a missing one": d.Member(d.Member(r, "x"), "y"), "of a list": d.Member(list, "x"), "out of range": d.Index(list, 3), "before the first": d.Index(list, -4), "of an object": d.Index(r, 0)} {
			if n != None {
				t.Errorf("%s: got %d, want None", name, n)
			}
		}
	}
}

func TestNumbers(t *testing.T) {
	for src, want := range map[string]any{
		"0": int64(0), "-0": int64(0), "9223372036854775807": int64(math.MaxInt64), "-9223372036854775808": int64(math.MinInt64),
		"9223372036854775808": float64(1 << 63), "1.0": 1.0, "1e2": 100.0, "-1.5": -1.5, "999999999999999999": int64(999999999999999999),
	} {
		var d Doc
		if err := d.Parse([]byte(src)); err != nil {
			t.Fatal(err)
		}
		if got, err := d.Value(d.Root()); err != nil || got != want {
			t.Errorf("%s: got %v (%T), %v, want %v", src, got, got, err, want)
		}
	}
	var d Doc
	if err := d.Parse([]byte("[1e999]")); err != nil {
		t.Fatal(err)
	}
	if v, err := d.Value(d.Root()); err == nil {
		t.Errorf("1e999: got %v, want an error", v)
	}
}

func TestAppend(t *testing.T) {
	for want, v := range map[string]any{
		`{"a":[1,2.5,null,true],"b":"x"}`:             map[string]any{"b": "x", "a": []any{int64(1), 2.5, nil, true}},
		`"\u0001\"\\\n\r\t/<é` + "\ufffd" + `\u001f"`: "\x01\"\\\n\r\t/<é\xff\x1f",
		`1e+21`:                  1e21,
		`100000000000000000000`:  1e20,
		`1e-07`:                  1e-7,
		`"1m30s"`:                90 * time.Second,
		`"2026-01-02T00:00:00Z"`: time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC),
	} {
		got, err := Append(nil, v)
		if err != nil || string(got) != want || !json.Valid(got) {
			t.Errorf("got %s, %v, want %s", got, err, want)
		}
	}
	for _, v := range []any{math.NaN(), []any{math.Inf(1)}, struct{}{}, map[string]any{"a": int8(1)}} {
		if b, err := Append(nil, v); err == nil {
			t.Errorf("%v: got %s, want an error", v, b)
		}
	}
}

func TestParseDoesNotAllocate(t *testing.T) {
	var d Doc
	src := []byte(`{"a":[1,2,{"b":"c"}],"d":"e"}`)
	if n := testing.AllocsPerRun(50, func() {
		if err := d.Parse(src); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

// FuzzParse holds the parser against encoding/json.
func FuzzParse(f *testing.F) {
	for _, s := range []string{`{"a":[1,-2.5e3,"x\u00e9\ud83d\ude00\ud800"],"b":{"c":null}}`, `"\ud83dx"`, ` [true , false] `, `1e5`, `{"a":1,"a":2}`, `"` + "\xff" + `"`, "[[[]]]"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		var d Doc
		err := d.Parse(src)
		if valid := json.Valid(src); valid != (err == nil) {
			if err != nil && strings.Contains(err.Error(), "nested deeper") {
				return
			}
			t.Fatalf("%q: got %v, encoding/json says valid: %v", src, err, valid)
		}
		if err != nil {
			return
		}
		got, err := d.Value(d.Root())
		if err != nil {
			return
		}
		dec := json.NewDecoder(bytes.NewReader(src))
		dec.UseNumber()
		var want any
		if err := dec.Decode(&want); err != nil {
			t.Fatal(err)
		}
		if !bytes.ContainsRune(src, '\ufffd') && json.Valid(src) && validText(src) && !reflect.DeepEqual(got, normal(want)) {
			t.Fatalf("%q: got %#v, want %#v", src, got, normal(want))
		}
		b, err := Append(nil, got)
		if err != nil || !json.Valid(b) {
			t.Fatalf("%q: written as %q, %v", src, b, err)
		}
	})
}

func validText(b []byte) bool { return strings.ToValidUTF8(string(b), "") == string(b) }

func normal(v any) any {
	switch v := v.(type) {
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return i
		}
		f, _ := v.Float64()
		return f
	case []any:
		for i := range v {
			v[i] = normal(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = normal(v[k])
		}
	}
	return v
}
