package pdktest

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
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

const rustOutcomes = "rust/examples/outcomes/outcomes.wasm"

// act is a record for the guest outcomes: what to do, and the value.
func act(do, value string) record.Record {
	return record.Record{
		Key: []byte("k"), Value: []byte(value), Headers: []record.Header{{Key: "do", Value: []byte(do)}},
		Topic: "orders", Partition: 3, Offset: 70, Timestamp: 5, Attempt: 2, To: -1,
	}
}

func runRecords(tb testing.TB, s *sandbox.Stage, records ...record.Record) *record.Results {
	tb.Helper()
	b := &record.Batch{Partition: record.Partition{Topic: "orders", Num: 3}, Now: 1_700_000_000_000, Records: records}
	var out record.Results
	if err := s.Process(tb.Context(), b, &out); err != nil {
		tb.Fatal(err)
	}
	return &out
}

func TestRustOutcomes(t *testing.T) {
	var logs []string
	counts := map[string]float64{}
	s := newStage(t, newRuntime(t), rustOutcomes, sandbox.StageConfig{
		Config:  json.RawMessage(`{"copies":3,"codes":{"country":7},"suffix":"!"}`),
		Outputs: []string{"audit", "late"},
		OnLog: func(l sandbox.LogLine) {
			of := "none"
			if l.Of >= 0 {
				of = string(l.Records[l.Of].Headers[0].Value)
			}
			logs = append(logs, fmt.Sprintf("%s: %s %s", of, l.Level, l.Text))
		},
		OnCount: func(name string, delta float64) { counts[name] += delta },
	})
	facts := act("facts", "v")
	facts.Redelivered = true
	facts.Trace = record.Trace{1, 2, 3}
	facts.Headers = append(facts.Headers, record.Header{Key: "h", Value: []byte("1")}, record.Header{Key: "h", Value: []byte("")})
	null := act("own", "")
	null.Key, null.Value = nil, nil
	records := []record.Record{
		act("pass", "v"), act("own", "v"), null, act("drop", "v"), act("upper", "v"), act("greet", "you"), act("copies", ""),
		act("fail", "country"), act("error", "seven"), act("error", "7"), act("amount", `{"a":1,"amount":12.5}`), act("amount", `{"a":1}`),
		act("amount", `{"amount":[]}`), act("amount", `{"amount":1`), act("retry", ""), act("panic", "XX"), act("index", "abc"),
		act("audit", "v"), act("tombstone", "v"), act("unfinished", "v"), act("log", "abc"), facts, act("nonsense", ""), act("error", "\xff"),
	}
	out := runRecords(t, s, records...)
	got := make([][]string, len(records))
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
	const factsLine = `emit "orders/3@70 t=5 now=1700000000000 attempt=2 redelivered=true key=Some(\"k\") trace=Some([1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]) do=facts h=1 h="`
	for i, want := range [][]string{
		{`emit "v"`},
		{`emit "v"`},
		{`emit null`},
		{`drop`},
		{`emit "V"`},
		{`emit "hello you!"`},
		{`emit "copy 0"`, `emit "copy 1"`, `emit "copy 2"`},
		{`rejected (7): refused: country`},
		{`rejected (1): invalid digit found in string`},
		{`emit "taken back"`, `emit "7"`},
		{`emit "1250"`},
		{`rejected (21): no amount`},
		{`rejected (22): amount is no number`},
		{`rejected (1): cut off behind a value at byte 11`},
		{`retryable (30): the rates are not there yet after 5s`},
		{`trap: `, `it logged: panic at outcomes/src/lib.rs:`, `no rule for "XX"`},
		{`trap: `, `it logged: panic at outcomes/src/lib.rs:`, `range end index 5 out of range for slice of length 3`},
		{`emit "v"`, `emit "v" output=1 key="audited" time=5 to=-1 headers=2`, `emit "late" output=2 key="" time=1700000000000 to=3 headers=0`},
		{`emit null`},
		{`emit "finished"`},
		{`emit "abc"`},
		{factsLine},
		{`rejected (2): do: "nonsense" is unknown`},
		{`rejected (1): the value is no text: invalid utf-8 sequence of 1 bytes from index 0`},
	} {
		if strings.HasPrefix(want[0], "trap: ") {
			if len(got[i]) != 1 || slices.ContainsFunc(want, func(s string) bool { return !strings.Contains(got[i][0], s) }) {
				t.Errorf("%q of %q: got %q, want all of %q in one", records[i].Headers[0].Value, records[i].Value, got[i], want)
			}
			continue
		}
		if i == 2 {
			if len(got[i]) != 1 || !strings.HasPrefix(got[i][0], want[0]) {
				t.Errorf("tombstone without a key: got %q", got[i])
			}
			continue
		}
		if !slices.Equal(got[i], want) {
			t.Errorf("%q of %q: got %q, want %q", records[i].Headers[0].Value, records[i].Value, got[i], want)
		}
	}
	slices.Sort(logs)
	if want := []string{
		"index: ERROR panic at outcomes/src/lib.rs:78: range end index 5 out of range for slice of length 3",
		"log: INFO seen abc", "log: WARN in attempt 2",
		`panic: ERROR panic at outcomes/src/lib.rs:75: no rule for "XX"`,
	}; !slices.Equal(logs, want) {
		t.Errorf("logs %q, want %q", logs, want)
	}
	if counts["seen"] != 1 || counts["bytes"] != 3 {
		t.Errorf("counts %v", counts)
	}
}

// A batch that holds one record of each kind again and again is answered whole:
// a panic costs its own record.
func TestRustPanicsCostTheirRecord(t *testing.T) {
	s := newStage(t, newRuntime(t), rustOutcomes, sandbox.StageConfig{})
	records := make([]record.Record, 256)
	for i := range records {
		records[i] = act("upper", fmt.Sprint("v", i))
		if i%50 == 7 {
			records[i] = act("panic", fmt.Sprint("p", i))
		}
	}
	out := runRecords(t, s, records...)
	if len(out.Emits) != 251 || len(out.Failures) != 5 {
		t.Fatalf("%d emits and %d failures, want 251 and 5", len(out.Emits), len(out.Failures))
	}
	for _, f := range out.Failures {
		if want := fmt.Sprintf("no rule for %q", fmt.Sprint("p", f.In)); f.In%50 != 7 || !strings.Contains(f.Err.Message, want) {
			t.Errorf("record %d: %v, want %s", f.In, f.Err, want)
		}
	}
}

func TestRustConfigIsRefusedWithItsPlace(t *testing.T) {
	rt := newRuntime(t)
	m, err := rt.Compile(t.Context(), readWasm(t, rustOutcomes))
	if err != nil {
		t.Fatal(err)
	}
	for config, want := range map[string]string{
		`{"copies":-1}`:         "copies: minimum: got -1, want 0",
		`{"greeting":7}`:        "greeting: got number, want string",
		`{"greting":"x"}`:       "additional properties 'greting' not allowed",
		`{"codes":{"a":"b"}}`:   "codes.a: got string, want integer",
		`{"copies":5000000000}`: "with.copies: 5000000000 where an integer from 0 to 4294967295 is expected",
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

func TestRustManifest(t *testing.T) {
	section, err := manifest.Find(readWasm(t, rustOutcomes))
	if err != nil {
		t.Fatal(err)
	}
	m, err := manifest.Parse(section)
	if err != nil {
		t.Fatal(err)
	}
	if m.Name != "outcomes" || m.Version != "1.0.0" || m.Mode != manifest.ModeCall || m.ABI != 1 || m.MemoryMB != 8 || m.FuelPerRecord != 100_000 || !m.Deterministic {
		t.Errorf("manifest %+v", m)
	}
	if want := []string{"default", "audit", "late"}; !slices.Equal(m.Outputs, want) {
		t.Errorf("outputs %q, want %q", m.Outputs, want)
	}
	if len(m.Sample) != 2 || string(m.Sample[0].Value) != `{"a":1}` || len(m.Sample[0].Headers) != 1 {
		t.Errorf("sample %+v", m.Sample)
	}
	if !strings.Contains(string(m.Config), `"greeting":{"description":"Stands before every greeting.","type":"string"}`) {
		t.Errorf("schema %s", m.Config)
	}
}

// The scanner without simd128, in Wasm, against encoding/json.
func TestRustScannerAgreesWithEncodingJSON(t *testing.T) {
	const seed = 21
	rng := rand.New(rand.NewPCG(seed, 0))
	events := gen.New(seed)
	s := newStage(t, newRuntime(t), rustOutcomes, sandbox.StageConfig{})
	valid := 0
	for range 60 {
		records := make([]record.Record, 128)
		for i := range records {
			records[i] = act("members", string(damage(rng, events.Next().Value)))
		}
		out := runRecords(t, s, records...)
		if len(out.Emits) != len(records) {
			t.Fatalf("%d emits", len(out.Emits))
		}
		for i, e := range out.Emits {
			v := records[i].Value
			if !utf8.Valid(v) {
				continue
			}
			_, isNumber := number(string(e.Record.Value))
			object := json.Valid(v) && strings.HasPrefix(strings.TrimSpace(string(v)), "{")
			if isNumber != object {
				t.Fatalf("seed %d: %q: the scanner says %q, encoding/json %v", seed, v, e.Record.Value, object)
			}
			if object {
				valid++
			}
		}
	}
	if valid < 500 {
		t.Errorf("%d valid texts: both sides should be seen", valid)
	}
}

func number(s string) (int, bool) {
	var n int
	err := json.Unmarshal([]byte(s), &n)
	return n, err == nil
}

// An answer that outgrows the image's memory works, and so does one beyond the
// limit for the records beside it.
func TestRustLargeAnswers(t *testing.T) {
	s := newStage(t, newRuntime(t), rustOutcomes, sandbox.StageConfig{})
	out := runRecords(t, s, act("pass", "a"), act("large", ""), act("pass", "b"))
	if len(out.Emits) != 3 || len(out.Emits[1].Record.Value) != 1<<20 {
		t.Fatalf("%d emits, failures %v", len(out.Emits), out.Failures)
	}
	records := []record.Record{act("pass", "a")}
	for range 12 {
		records = append(records, act("large", ""))
	}
	out = runRecords(t, s, records...)
	if len(out.Emits)+len(out.Failures) != len(records) || len(out.Emits) == 0 {
		t.Fatalf("%d emits, failures %v", len(out.Emits), out.Failures)
	}
	for _, f := range out.Failures {
		if f.Err.Class != record.Memory {
			t.Errorf("record %d: %v, want class memory", f.In, f.Err)
		}
	}
}

const rustConformance = "rust/examples/conformance_rust/conformance_rust.wasm"

// The golden vectors, and what holds of any guest, through each example.
func TestRustConformance(t *testing.T) {
	vectors, err := plugintest.LoadVectors(pdk.Vectors())
	if err != nil {
		t.Fatal(err)
	}
	rt := newRuntime(t)
	for _, c := range []struct {
		file    string
		vectors []plugintest.Vector
	}{{rustConformance, vectors}, {rustOrders, nil}, {rustOutcomes, nil}} {
		t.Run(c.file, func(t *testing.T) {
			m, err := rt.Compile(t.Context(), readWasm(t, c.file))
			if err != nil {
				t.Fatal(err)
			}
			plugintest.Run(t, plugintest.Of(m.Info(), m.NewStage), plugintest.Options{Vectors: c.vectors})
		})
	}
}
