package tests

import (
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	millrace "github.com/millrace-io/millrace/pdk/go"
	mt "github.com/millrace-io/millrace/pdk/go/millracetest"
)

func TestFaultsNameTheByte(t *testing.T) {
	deep := strings.Repeat("[", 127)
	for text, want := range map[string]string{
		``: "not a JSON object: no '{' at byte 0", ` [`: "not a JSON object: no '{' at byte 1", `hello`: "not a JSON object: no '{' at byte 0",
		`{`: "cut off before a key at byte 1", `{"a":1,`: "cut off before a key at byte 7", `{1`: "no key where one should begin at byte 1", `{"a":1,}`: "no key where one should begin at byte 7",
		`{"ab`: "cut off inside a string at byte 4", `{"a"`: "cut off behind a key at byte 4", `{"a" 1`: "no ':' behind a key at byte 5", `{"a":`: "cut off before a value at byte 5",
		`{"a":,`: "an empty value at byte 5", `{"a":x`: "no value where one should begin at byte 5", `{"a":tr`: "cut off inside a value at byte 7", `{"a":trux}`: "no value where one should begin at byte 5",
		`{"a":1`: "cut off behind a value at byte 6", `{"a":"b"`: "cut off behind a value at byte 8", `{"a":1]`: "no ',' behind a value at byte 6", `{"a":01}`: "no ',' behind a value at byte 6",
		`{"a":-}`: "no digit where a number needs one at byte 6", `{"a":1.`: "cut off inside a number at byte 7", `{"a":1e+}`: "no digit where a number needs one at byte 8",
		"{\"a\n": "a control character in a string at byte 3", `{"a\x"`: "an unknown escape at byte 3", `{"\u00g0"`: "no hexadecimal digit in an escape at byte 6", `{"a\`: "cut off inside a string at byte 4", `{"a\u0`: "cut off inside a string at byte 6",
		"{\"a\":\"12345678\xff\"}": "no UTF-8 at byte 14", `{} x`: "more behind the end of the JSON value at byte 3", `{"a":[1 2]}`: "no ',' behind a value at byte 8", `{"a":{"b":1`: "cut off behind a value at byte 11",
		`{"a":` + deep + "[": "nested deeper than 128 at byte 132", `{"a":` + deep: "cut off before a value at byte 132",
	} {
		if _, err := millrace.ReadObject([]byte(text)); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}

func TestValues(t *testing.T) {
	o, err := millrace.ReadObject([]byte(`{"s":"a\"\u00e9\ud83d\ude00\ud800\/\b\f\n\r\t\\","p":"plain","i":-12,"big":123456789012345678901,"f":1.25e2,"t":true,"n":null,"o":{"x":1},"l":[1, "two" ,[3],{}],"p":"last","":0,"huge":1e999}`))
	if err != nil {
		t.Fatal(err)
	}
	if s, ok := o.Get("s").Text(); !ok || s != "a\"é😀\ufffd/\b\f\n\r\t\\" {
		t.Errorf("got %q", s)
	}
	if !o.Get("p").Is("last") || o.Get("p").Is("plain") || !o.Get("s").Is("a\"é😀\ufffd/\b\f\n\r\t\\") || o.Get("i").Is("-12") || o.Get("none").Is("") {
		t.Error("Is")
	}
	if v, _ := millrace.ReadValue([]byte(`"a\\b"`)); v.Is(`a\\b`) || !v.Is(`a\b`) {
		t.Error("Is of a text with a backslash")
	}
	if n, ok := o.Get("i").Int(); n != -12 || !ok {
		t.Error("Int")
	}
	_, big := o.Get("big").Int()
	_, frac := o.Get("f").Int()
	_, negative := o.Get("i").Uint()
	_, text := o.Get("s").Int()
	if big || frac || negative || text {
		t.Error("what is no integer is one")
	}
	if f, ok := o.Get("huge").Float(); !ok || !math.IsInf(f, 1) {
		t.Errorf("huge: %v %v", f, ok)
	}
	if b, ok := o.Get("t").Bool(); !b || !ok {
		t.Error("Bool")
	}
	if !o.Get("n").IsNull() || o.Get("none").IsNull() || o.Get("none").Exists() || o.Get("none").Kind() != millrace.KindNone || o.Len() != 12 {
		t.Error("null, or what is not there")
	}
	inner, ok := o.Get("o").Object()
	if !ok || string(inner.Get("x").Raw()) != "1" {
		t.Error("Object")
	}
	var items []string
	for _, v := range o.Get("l").Items() {
		items = append(items, v.Kind().String()+" "+string(v.Raw()))
	}
	if got := strings.Join(items, ", "); got != `a number 1, a string "two", a list [3], an object {}` {
		t.Errorf("items: %s", got)
	}
	if name, v := o.Member(10); name != "" || string(v.Raw()) != "0" {
		t.Errorf("member 10: %q %s", name, v.Raw())
	}
}

// rewritten is what the stage under test makes of a value: a member is changed as
// its name says.
func rewritten(r *millrace.Record, out *millrace.Out) error {
	to := out.Rewrite(r.Scan())
	for to.Next() {
		switch name := to.Name(); {
		case name == "stop":
			return out.Drop()
		case strings.HasPrefix(name, "remove"):
			to.Remove()
		case to.Is("rename"):
			to.Rename("ren\"amed")
		case name == "set":
			to.Set("***")
		case name == "both":
			to.Rename("b")
			to.Set(7)
		case name == "splice":
			to.Splice(1, 2, "<")
			to.Splice(3, 3, ">")
		case name == "add":
			to.Add("added", true)
		}
	}
	if r.Key() != nil {
		to.Add("last", nil)
	}
	return to.Emit()
}

func TestRewrite(t *testing.T) {
	s := stage(t, rewritten)
	for in, want := range map[string]string{
		`{}`: `{}`, ` { } `: `{}`, `{"a":1}`: `{"a":1}`, "\n{ \"a\" :\t1 ,\r\n\"b\": [1, 2] } ": `{"a":1,"b":[1, 2]}`,
		`{"remove":1}`: `{}`, `{"remove":1,"a":2}`: `{"a":2}`, `{"a":2,"remove":1}`: `{"a":2}`, `{"a":1,"remove":1,"b":2,"c":3}`: `{"a":1,"b":2,"c":3}`, `{"remove1":1,"remove2":2}`: `{}`,
		`{"rename":1,"a":2}`: `{"ren\"amed":1,"a":2}`, `{"a":2, "rename" : 1}`: `{"a":2,"ren\"amed":1}`, `{"ren\u0061me":1}`: `{"ren\"amed":1}`,
		`{"set":{"x":1},"a":2}`: `{"set":"***","a":2}`, `{"both":1}`: `{"b":7}`, `{"a":1,"splice":"abcd"}`: `{"a":1,"splice":"<b>cd"}`, `{"add":1,"a":2}`: `{"add":1,"added":true,"a":2}`,
		`{"é":"\u00e9\"","remove":"}"}`: `{"é":"\u00e9\""}`,
	} {
		got := s.Run(t, mt.Value(in), mt.Value(in).WithKey("k"))
		if v := got.Value(0); v != want {
			t.Errorf("%s: got %s, want %s", in, v, want)
		}
		last := strings.TrimSuffix(want, "}") + `,"last":null}`
		if want == "{}" {
			last = `{"last":null}`
		}
		if v := got.Value(1); v != last {
			t.Errorf("%s: got %s, want %s", in, v, last)
		}
	}
	got := s.Run(t, mt.Value(`{"stop":1,"cut`), mt.Value(`{"a":1,"cut`), mt.Value(`{"stop":1`), mt.Value(`{"splice":1}`), mt.Value(`{"splice":"a"}`))
	if !got.Dropped(0) {
		t.Error("a fault behind the member that decides decides")
	}
	for i, want := range []string{1: "cut off inside a string at byte 11", 2: "cut off behind a value at byte 9", 3: "splice from 1 to 2 of a value of 1 bytes"} {
		if f := got.Failure(i); want != "" && (f == nil || f.Message != want) {
			t.Errorf("record %d: got %v, want %s", i, f, want)
		}
	}
}

// agree holds the kit against encoding/json for one text.
func agree(t *testing.T, s *mt.Stage, text []byte) {
	t.Helper()
	valid := json.Valid(text) && utf8.Valid(text)
	v, err := millrace.ReadValue(text)
	if tooDeep := err != nil && strings.HasPrefix(err.Error(), "nested deeper"); (err == nil) != valid && !tooDeep {
		t.Fatalf("%q: the kit says %v, encoding/json valid=%v", text, err, valid)
	}
	answers := s.Run(t, mt.Value(string(text)))
	if !valid || v.Kind() != millrace.KindObject {
		if len(answers.Emits(0)) != 0 {
			t.Fatalf("%q: it is no object, got %q", text, answers.Value(0))
		}
		return
	}
	var want map[string]json.RawMessage
	if json.Unmarshal(text, &want) != nil {
		t.Fatalf("%q", text)
	}
	o, _ := v.Object()
	for name, raw := range want {
		got := o.Get(name)
		if strings.ContainsRune(name, utf8.RuneError) {
			continue // encoding/json makes one name of several
		}
		if !bytes.Equal(got.Raw(), bytes.TrimSpace(raw)) {
			t.Fatalf("%q: member %q: got %s, want %s", text, name, got.Raw(), raw)
		}
		var f float64
		if number, ok := got.Float(); ok && json.Unmarshal(raw, &f) == nil && number != f {
			t.Fatalf("%q: member %q: got %v, want %v", text, name, number, f)
		}
		var s string
		if got, ok := got.Text(); ok && (json.Unmarshal(raw, &s) != nil || got != s) {
			t.Fatalf("%q: member %q: got %q, want %q", text, name, got, s)
		}
	}
	if answers.Dropped(0) || answers.Failure(0) != nil && strings.HasPrefix(answers.Failure(0).Message, "splice") {
		return
	}
	out := []byte(answers.Value(0))
	if !json.Valid(out) && !bytes.Contains(text, []byte("splice")) {
		t.Fatalf("%q: the copy %q is no JSON", text, out)
	}
}

var seeds = []string{
	`{}`, `{"a":1}`, ` {"a" : [1, {"b":null}] , "c":"\u00e9\ud83d\ude00\ud800x" }`, `{"rename":1,"remove":"x","set":true,"both":{},"splice":"abc","add":0}`,
	`{"a":-0.5e+10,"b":1E5,"c":0,"d":123456789012345678}`, `{"long":"0123456789abcdefghijklmnop\"qrs","é":"日本語日本語"}`, `[[[]]]`, `"x"`, `{"a":`, "{\"a\":\"\xff\"}", `{"a":tru}`, `{"":""}`,
}

func TestScannerAgreesWithEncodingJSON(t *testing.T) {
	const seed = 31
	rng := rand.New(rand.NewPCG(seed, 0))
	s := stage(t, rewritten)
	for _, text := range seeds {
		agree(t, s, []byte(text))
	}
	const bytesOfJSON = "{}[]\",:\\ \n\tx0-.eu1tfn\x00\xff\xc3\xa9\x1f"
	for range 60_000 {
		text := []byte(seeds[rng.IntN(len(seeds))])
		for range rng.IntN(4) {
			at := rng.IntN(len(text) + 1)
			c := bytesOfJSON[rng.IntN(len(bytesOfJSON))]
			switch rng.IntN(4) {
			case 0:
				text = append(text[:at:at], append([]byte{c}, text[at:]...)...)
			case 1:
				if at < len(text) {
					text[at] = c
				}
			case 2:
				text = append(text[:at:at], text[min(len(text), at+1+rng.IntN(8)):]...)
			case 3:
				other := seeds[rng.IntN(len(seeds))]
				text = append(text[:at:at], append([]byte(other[rng.IntN(len(other)):]), text[at:]...)...)
			}
		}
		agree(t, s, text)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func FuzzScanner(f *testing.F) {
	for _, text := range seeds {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) { agree(t, stage(t, rewritten), text) })
}

func TestWrittenNumbersAndStringsAreReadBack(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 0))
	s := stage(t, func(r *millrace.Record, out *millrace.Out) error {
		w := out.Write()
		f := math.Float64frombits(uint64(r.Timestamp()))
		w.Begin('[')
		w.Value(f)
		w.Value(string(r.Value()))
		w.End(']')
		return w.Emit()
	})
	for range 5000 {
		in := mt.Value(string([]rune{rune(rng.IntN(0x300)), rune(rng.IntN(0x20)), rune(0x1f5ff + rng.IntN(9))}))
		in.Timestamp = int64(rng.Uint64())
		text := s.Run(t, in).Value(0)
		f := math.Float64frombits(uint64(in.Timestamp))
		want, err := json.Marshal(f)
		if err != nil {
			want = []byte("null")
		}
		var got []any
		if err := json.Unmarshal([]byte(text), &got); err != nil || !strings.HasPrefix(text, "["+string(want)+",") || got[1] != string(in.Value) {
			t.Fatalf("%v %q: got %s (%v)", f, in.Value, text, err)
		}
		if got[0] != nil && got[0] != f {
			t.Fatalf("%v: got %v", f, got[0])
		}
	}
}

// Every sequence of up to four bytes that begins beyond ASCII, with what matters
// behind it.
func TestUTF8AsTheStandardLibrary(t *testing.T) {
	ends := []string{"", "\x7f", "\x80", "\x8f", "\x90", "\x9f", "\xa0", "\xbf", "\xc0"}
	for first := 0x80; first <= 0xff; first++ {
		for second := range 256 {
			for _, third := range ends {
				for _, fourth := range ends {
					text := "\"" + string([]byte{byte(first), byte(second)}) + third + fourth + "\""
					if second == '"' || second == '\\' || second < 0x20 {
						continue
					}
					if _, err := millrace.ReadValue([]byte(text)); (err == nil) != utf8.ValidString(text) {
						t.Fatalf("%q: the kit says %v", text, err)
					}
				}
			}
		}
	}
}

func TestNamesThatAreAlike(t *testing.T) {
	const name = "abcdefghijklmnopqrstuvwxyz"
	for n := range len(name) {
		o, err := millrace.ReadObject([]byte(`{"` + name[:n] + `":"` + name[:n] + `"}`))
		if err != nil {
			t.Fatal(err)
		}
		if !o.Get(name[:n]).Is(name[:n]) || o.Get(name[:n+1]).Exists() {
			t.Errorf("%q is not found, or more is", name[:n])
		}
		for i := range n {
			other := name[:i] + "-" + name[i+1:n]
			if o.Get(other).Exists() || o.Get(name[:n]).Is(other) {
				t.Errorf("%q is %q", name[:n], other)
			}
		}
	}
}
