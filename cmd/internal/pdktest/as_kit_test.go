package pdktest

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/millrace-io/millrace/examples/orders/gen"
	"github.com/millrace-io/millrace/pdk"
	"github.com/millrace-io/millrace/plugins/manifest"
	"github.com/millrace-io/millrace/plugins/plugintest"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

const (
	asOutcomes    = "assemblyscript/examples/outcomes_as/outcomes_as.wasm"
	asConformance = "assemblyscript/examples/conformance_as/conformance_as.wasm"
)

func TestASOutcomes(t *testing.T) {
	var logs []string
	counts := map[string]float64{}
	s := newStage(t, newRuntime(t), asOutcomes, sandbox.StageConfig{
		Config:  json.RawMessage(`{"greeting":"hi","copies":3,"codes":{"country":7}}`),
		Outputs: []string{"audit", "late"},
		OnLog: func(l sandbox.LogLine) {
			line := fmt.Sprint(l.Level, " ", l.Text)
			if l.Of >= 0 {
				line += " of " + string(l.Records[l.Of].Value)
			}
			logs = append(logs, line)
		},
		OnCount: func(name string, delta float64) { counts[name] += delta },
	})
	null := act("own", "")
	null.Key, null.Value = nil, nil
	cases := []struct {
		r    record.Record
		want []string // of a trap: what its text holds
	}{
		{act("pass", "v"), []string{`emit "v"`}},
		{act("own", "v"), []string{`emit "v"`}},
		{null, []string{`emit null output=0 key="" time=5 to=-1 headers=1`}},
		{act("drop", "v"), []string{"drop"}},
		{act("upper", "grün"), []string{`emit "GRÜN"`}},
		{act("greet", "you"), []string{`emit "hi you"`}},
		{act("copies", ""), []string{`emit "copy 0"`, `emit "copy 1"`, `emit "copy 2"`}},
		{act("fail", "country"), []string{"rejected (7): refused: country"}},
		{act("fail", "other"), []string{"rejected (9): refused: other"}},
		{act("fail and pass", ""), []string{"rejected (8): it stays"}},
		{act("amount", `{"a":1,"amount":12.5}`), []string{`emit "1250"`}},
		{act("amount", `{"a":1}`), []string{"rejected (21): no amount"}},
		{act("amount", `{"amount":[]}`), []string{"rejected (22): amount is no number"}},
		{act("amount", `{"amount":1`), []string{"rejected (1): cut off behind a value at byte 11"}},
		{act("upper", "\xff"), []string{"rejected (1): the value is no text: it is not UTF-8"}},
		{act("retry", ""), []string{"retryable (30): the rates are not there yet after 5s"}},
		{act("throw", "XX"), []string{"trap: ", "it logged: ", "assembly/index.ts:", ": no rule for XX"}},
		{act("index", "abc"), []string{"trap: ", "~lib/@millrace/pdk/assembly/view.ts:", ": byte 3 of a view of 3 bytes"}},
		{act("null", "abc"), []string{"trap: ", "assembly/index.ts:", ": Unexpected 'null'"}},
		{act("given up", ""), []string{"trap: ", "this record was given up"}},
		{act("twice", ""), []string{"trap: ", "this record was given up"}},
		{act("again", "v"), []string{`emit "v" output=0 key="again" time=5 to=-1 headers=1`}},
		{act("unanswered", ""), []string{"rejected (1): the stage returned without an answer to this record"}},
		{act("audit", "v"), []string{`emit "v"`, `emit "v" output=1 key="audited" time=5 to=-1 headers=2`, `emit "late" output=2 key="" time=1700000000000 to=3 headers=0`}},
		{act("tombstone", "v"), []string{"emit null"}},
		{act("unfinished", "v"), []string{`emit "finished"`}},
		{act("log", "abc"), []string{`emit "abc"`}},
		{act("decoded", `{"a\u0062":"x\n\ud83d\ude00\ud800","c": [1, 2]}`), []string{`emit "[\"ab\",\"x\\n😀�\",\"c\",[1, 2]]"`}},
		{act("rewrite", `{"keep":1,"remove":2,"rename":3,"set":4,"both":5,"splice":"678","add":9,"größe":10}`),
			[]string{`emit "{\"keep\":1,\"re\\\"named\":3,\"set\":[1,2],\"b\":null,\"splice\":\"é\",\"add\":9,\"added\":0.5,\"größe\":true}"`}},
		{act("rewrite", ` { "remove" : 2 , "keep" : [ 1 ] , "re\u006dove" : 3, "set":4 } `), []string{`emit "{\"keep\":[ 1 ],\"set\":[1,2]}"`}},
		{act("rewrite", ` { } `), []string{`emit "{}"`}},
		{act("rewrite", `{"set":1,"b"}`), []string{"rejected (1): no ':' behind a key at byte 12"}},
		{act("rewrite", `{"splice":1}`), []string{"rejected (1): splice from 1 to 0 of a value of 1 bytes"}},
		{act("garbage", ""), []string{`emit "1400"`}},
		{act("nonsense", ""), []string{"rejected (2): do: nonsense is unknown"}},
	}
	records := make([]record.Record, len(cases))
	for i, c := range cases {
		records[i] = c.r
	}
	got := outcomes(runRecords(t, s, records...), len(records))
	for i, c := range cases {
		if strings.HasPrefix(c.want[0], "trap: ") {
			if len(got[i]) != 1 || slices.ContainsFunc(c.want, func(s string) bool { return !strings.Contains(got[i][0], s) }) {
				t.Errorf("%q of %q: got %q, want all of %q in one", c.r.Headers[0].Value, c.r.Value, got[i], c.want)
			}
		} else if !slices.Equal(got[i], c.want) {
			t.Errorf("%q of %q: got %q, want %q", c.r.Headers[0].Value, c.r.Value, got[i], c.want)
		}
	}
	for _, want := range []string{"INFO seen abc of abc", "WARN in attempt 2 of abc", "ERROR assembly/index.ts:62:24: no rule for XX of XX"} {
		if !slices.Contains(logs, want) {
			t.Errorf("logs %q, want %q", logs, want)
		}
	}
	if counts["seen"] != 1 || counts["bytes"] != 3 {
		t.Errorf("counts %v", counts)
	}
}

// outcomes says in words what became of each of n records made by act.
func outcomes(out *record.Results, n int) [][]string {
	got := make([][]string, n)
	for _, e := range out.Emits {
		r := e.Record
		line := fmt.Sprintf("emit %q", r.Value)
		if r.Value == nil {
			line = "emit null"
		}
		if e.Output != 0 || string(r.Key) != "k" || r.Timestamp != 5 || r.To != -1 {
			line += fmt.Sprintf(" output=%d key=%q time=%d to=%d headers=%d", e.Output, r.Key, r.Timestamp, r.To, len(r.Headers))
		}
		got[e.In] = append(got[e.In], line)
	}
	for _, i := range out.Drops {
		got[i] = append(got[i], "drop")
	}
	for _, f := range out.Failures {
		line := f.Err.Error()
		if f.Err.RetryAfter != 0 {
			line += " after " + f.Err.RetryAfter.String()
		}
		got[f.In] = append(got[f.In], line)
	}
	return got
}

func TestASConfigIsRefusedWithItsPlace(t *testing.T) {
	rt := newRuntime(t)
	m, err := rt.Compile(t.Context(), readWasm(t, asOutcomes))
	if err != nil {
		t.Fatal(err)
	}
	for config, want := range map[string]string{
		`{"greeting":7}`:            "greeting: got number, want string",
		`{"greting":"x"}`:           `with: there is no setting "greting"; there are greeting, copies, codes`,
		`{"codes":{"a":"b"}}`:       `with.codes.a: "b" where an integer is expected`,
		`{"copies":99e99}`:          "with.copies: 99e99 where an integer is expected",
		`{"x":1,"codes":{"a":1.5}}`: "with.codes.a: 1.5 where an integer is expected",
	} {
		s, err := m.NewStage(t.Context(), sandbox.StageConfig{Stage: "s", Plugin: "outcomes@1.0.0", Config: json.RawMessage(config)})
		if err == nil {
			s.Close(t.Context())
			t.Errorf("%s is taken", config)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", config, err, want)
		}
	}
}

func TestASManifest(t *testing.T) {
	for file, want := range map[string]string{
		asOutcomes: `"outputs":["default","audit","late"]`,
		asOrders:   `"config":{"type":"object","additionalProperties":false}`,
	} {
		section, err := manifest.Find(readWasm(t, file))
		if err != nil {
			t.Fatal(err)
		}
		m, err := manifest.Parse(section)
		if err != nil {
			t.Fatal(err)
		}
		if m.Name == "" || m.Version != "1.0.0" || m.Mode != manifest.ModeCall || m.MemoryMB == 0 || len(m.Sample) == 0 || !strings.Contains(string(section), want) {
			t.Errorf("%s: manifest %s, want %s in it", file, section, want)
		}
		declared, err := newRuntime(t).DescribeModule(t.Context(), readWasm(t, file))
		if err != nil {
			t.Fatal(err)
		}
		said, err := manifest.Parse(declared)
		if err != nil {
			t.Fatal(err)
		}
		if text, err := said.Marshal(); err != nil || string(text) != string(section) {
			t.Errorf("%s declares %s (%v), embedded is %s", file, text, err, section)
		}
	}
}

// The scanner against encoding/json on damaged events and on texts of tokens.
func TestASScannerAgreesWithEncodingJSON(t *testing.T) {
	const seed = 34
	rng := rand.New(rand.NewPCG(seed, 0))
	events := gen.New(seed)
	s := newStage(t, newRuntime(t), asOutcomes, sandbox.StageConfig{})
	tokens := strings.Split(`{ } [ ] , : " \ \" \u00e4 \ud83d\ude00 \x \u12 ä 7 0 -1 1e5 01 1. - +1 1.5E-3 true false null nul truex {} [] [1] {"a":1} "" "b" "a":1 "b":"c" "c":[{"s":1},2] "d":{} "e\\":"\\" "g":"€"`, " ")
	tokens = append(tokens, " ", "\n", "\x01", `"long":"beyond a window of sixteen bytes: {[\""`, `"n":12345678901234567890123`)
	valid := 0
	for range 80 {
		records := make([]record.Record, 128)
		for i := range records {
			text := damage(rng, events.Next().Value)
			if i%2 == 0 {
				text = []byte("{")
				for k := range rng.IntN(8) {
					if k > 0 && rng.IntN(2) == 0 {
						text = append(text, ',')
					}
					text = append(text, tokens[rng.IntN(len(tokens))]...)
				}
				text = append(text, '}')
			}
			records[i] = act("members", string(text))
			if i%16 == 1 {
				records[i] = act("valid", string(text[1:]))
			}
		}
		for i, e := range runRecords(t, s, records...).Emits {
			v := records[i].Value
			if !utf8.Valid(v) {
				continue
			}
			_, isNumber := number(string(e.Record.Value))
			taken := isNumber || string(e.Record.Value) == "yes"
			want := json.Valid(v) && (string(records[i].Headers[0].Value) == "valid" || strings.HasPrefix(strings.TrimSpace(string(v)), "{"))
			if taken != want {
				t.Fatalf("seed %d: %q: the scanner says %q, encoding/json %v", seed, v, e.Record.Value, want)
			}
			if want {
				valid++
			}
		}
	}
	if valid < 500 {
		t.Errorf("%d valid texts: both sides should be seen", valid)
	}
}

// Up to 15 digits a number is that of strconv, to the bit.
func TestASNumbers(t *testing.T) {
	const seed = 35
	rng := rand.New(rand.NewPCG(seed, 0))
	s := newStage(t, newRuntime(t), asOutcomes, sandbox.StageConfig{})
	records := make([]record.Record, 128)
	texts := make([]string, len(records))
	for i := range records {
		digits := strconv.FormatInt(1+rng.Int64N(999_999_999_999_999), 10)
		if at := 1 + rng.IntN(len(digits)); at < len(digits) {
			digits = digits[:at] + "." + digits[at:]
		}
		if i%2 == 0 {
			digits = "-" + digits
		}
		texts[i] = digits
		records[i] = act("number", `{"n":`+digits+`}`)
	}
	out := runRecords(t, s, records...)
	if len(out.Emits) != len(records) {
		t.Fatalf("%d emits, failures %v", len(out.Emits), out.Failures)
	}
	for i, e := range out.Emits {
		got, err := strconv.ParseFloat(string(e.Record.Value), 64)
		want, _ := strconv.ParseFloat(texts[i], 64)
		if err != nil || got != want {
			t.Errorf("seed %d: %s: got %s (%v)", seed, texts[i], e.Record.Value, err)
		}
	}
}

// Batches of a stage that makes garbage stay within the memory that
// the plugin asked for, restored and not.
func TestASMemoryIsBounded(t *testing.T) {
	batches := 100_000
	if testing.Short() {
		batches = 10_000
	}
	for _, isolation := range []string{sandbox.IsolationBatch, sandbox.IsolationFailure} {
		s := newStage(t, newRuntime(t), asOutcomes, sandbox.StageConfig{Isolation: isolation})
		n := batches
		if isolation == sandbox.IsolationBatch {
			n /= 10
		}
		b := &record.Batch{Partition: record.Partition{Topic: "orders", Num: 3}, Now: 1, Records: []record.Record{act("upper", "garbage"), act("pass", "v")}}
		var out record.Results
		for range n {
			out.Reset()
			if err := s.Process(t.Context(), b, &out); err != nil || len(out.Failures) > 0 {
				t.Fatalf("isolation %v: %v, failures %v", isolation, err, out.Failures)
			}
		}
		if got, most := s.Stats().ImageBytes, int64(1<<20); got > most {
			t.Errorf("isolation %v: an image of %d bytes, at most %d are wanted", isolation, got, most)
		}
	}
}

// The golden vectors, and what holds of any guest, through each example.
func TestASConformance(t *testing.T) {
	vectors, err := plugintest.LoadVectors(pdk.Vectors())
	if err != nil {
		t.Fatal(err)
	}
	rt := newRuntime(t)
	for _, c := range []struct {
		file    string
		vectors []plugintest.Vector
	}{{asConformance, vectors}, {asOrders, nil}, {asOutcomes, nil}} {
		t.Run(c.file, func(t *testing.T) {
			m, err := rt.Compile(t.Context(), readWasm(t, c.file))
			if err != nil {
				t.Fatal(err)
			}
			plugintest.Run(t, plugintest.Of(m.Info(), m.NewStage), plugintest.Options{Vectors: c.vectors})
		})
	}
}
