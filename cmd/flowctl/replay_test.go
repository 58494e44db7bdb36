package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/runtime/record"
)

// failuresOf runs a plugin on lines and returns the entries of those that
// failed.
func failuresOf(h *harness, lines string, args ...string) []*record.Entry {
	h.t.Helper()
	code, _, stderr := h.call(lines, append(args, "--failures", "failed.ndjson")...)
	if code != 4 {
		h.t.Fatalf("exit %d: %s", code, stderr)
	}
	b, err := os.ReadFile(filepath.Join(h.dir, "failed.ndjson"))
	if err != nil {
		h.t.Fatal(err)
	}
	var entries []*record.Entry
	for line := range bytes.Lines(b) {
		e := &record.Entry{}
		if err := json.Unmarshal(line, e); err != nil {
			h.t.Fatal(err)
		}
		entries = append(entries, e)
	}
	return entries
}

const faulty = "plugins/plugintest/guests/faulty/faulty.wasm"

// TestReplayOfARun: what a run wrote is run again without a flag, as long as
// the plugin's file is the same, and its configuration is byte for byte that
// of the run.
func TestReplayOfARun(t *testing.T) {
	h := newHarness(t)
	h.copy(faulty, "faulty.wasm")
	h.copy("examples/lines/lines.wasm", "lines.wasm")
	good := strings.Repeat("good\n", 40)
	entries := failuresOf(h, good+"trap\n"+good+"fail\nhog\nmissing\n", "run", "faulty.wasm", "--with", `{ "behaviour" : "" }`)
	if len(entries) != 4 || string(entries[0].Setting.With) != `{ "behaviour" : "" }` || entries[0].Setting.File != filepath.Join(h.dir, "faulty.wasm") {
		t.Fatalf("got %d entries, %+v", len(entries), entries[0].Setting)
	}
	for _, e := range entries {
		if e.Replay == nil || e.Replay.Fuel == 0 || e.Replay.FuelLimit == 0 {
			t.Errorf("entry %s: %+v", e.ID(), e.Replay)
		}
	}
	for range 30 {
		if code, _, stderr := h.call("", "replay", "failed.ndjson"); code != 0 || !strings.Contains(stderr, "4 records: 4 as recorded, 0 otherwise, 0 not run again") {
			t.Fatalf("exit %d: %s", code, stderr)
		}
	}
	id := entries[0].ID()
	code, stdout, stderr := h.call("", "replay", "failed.ndjson", "--only", id, "-o", "json")
	var got []replayed
	if err := json.Unmarshal([]byte(stdout), &got); code != 0 || err != nil || len(got) != 1 || got[0].ID != id || !*got[0].Same || got[0].Again.Class != "trap" || got[0].Again.Fuel != entries[0].Replay.Fuel ||
		len(got[0].Again.Logs) != 1 {
		t.Errorf("exit %d, %v: %s%s", code, err, stdout, stderr)
	}

	// Another configuration is told, and the way out.
	code, stdout, stderr = h.call("", "replay", "failed.ndjson", "--only", id, "--with", `{"behaviour":"drop"}`)
	if code != 4 || !strings.Contains(stdout, "no: outcome, class, message, logs, fuel, configuration") || !strings.Contains(stderr, "E_REPLAY_DIFFERS") || !strings.Contains(stderr, "--with") {
		t.Errorf("exit %d: %s%s", code, stdout, stderr)
	}
	h.write("with.json", "{ \"behaviour\" : \"\" }\n")
	if code, _, stderr := h.call("", "replay", "failed.ndjson", "--with", "with.json"); code != 0 {
		t.Errorf("exit %d: %s", code, stderr)
	}

	// A program of lines, from STDIN and as an array.
	entries = failuresOf(h, "a\nerror: x\nb\n", "run", "lines.wasm")
	array, err := json.Marshal(entries)
	if err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := h.call(string(array), "replay", "-"); code != 0 || !strings.Contains(stdout, "Same as recorded:  yes") {
		t.Errorf("exit %d: %s%s", code, stdout, stderr)
	}

	// A tampered entry does not come out as recorded, which another plugin that
	// takes the record does not hide.
	entries[0].Replay.Fuel++
	entries[0].Message += "?"
	tampered, err := json.Marshal(entries[0])
	if err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := h.call(string(tampered), "replay", "-"); code != 4 || !strings.Contains(stdout, "no: message, fuel") {
		t.Errorf("exit %d: %s%s", code, stdout, stderr)
	}
	h.copy("examples/upper/upper.wasm", "upper.wasm")
	if code, stdout, stderr := h.call(string(tampered), "replay", "-", "--plugin", "upper.wasm"); code != 4 || !strings.Contains(stdout, "no: message, fuel") || !strings.Contains(stdout, "emit: 1 record") ||
		!strings.Contains(stderr, "E_REPLAY_DIFFERS: 1 of 1 record did not come out as recorded\n") {
		t.Errorf("exit %d: %s%s", code, stdout, stderr)
	}
	if code, _, stderr := h.call(string(tampered), "replay", "-", "--plugin", "faulty.wasm", "--with", "{}"); code != 4 || !strings.Contains(stderr, "did not come out as recorded") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

var unsteady = regexp.MustCompile(`("fuel(?:_limit)?": |the budget is )\d+|\d+( units)|("timestamp":\s?)\d+`)

// steady takes out of what was said what changes with the clock and with the
// costs of fuel.
func steady(h *harness) {
	said := unsteady.ReplaceAllString(h.log.String(), "${1}${3}N${2}")
	h.log.Reset()
	h.log.WriteString(said)
}

func TestReplayOfAnEntry(t *testing.T) {
	h := newHarness(t)
	h.copy(faulty, "faulty.wasm")
	if code, _, stderr := h.call("", "deploy", "faulty.wasm", "--store-only"); code != 0 {
		t.Fatal(stderr)
	}
	entries := failuresOf(h, "good\ntrap\nfail\n", "run", "faulty.wasm")
	for i, e := range entries {
		e.Seq, e.Flow, e.Revision, e.Setting.File = uint64(i+17), "default/orders", 3, ""
	}
	omitted := *entries[1]
	omitted.Seq, omitted.InputOmitted, omitted.Input.Value = 19, true, nil
	unrepeatable := *entries[1]
	unrepeatable.Seq, unrepeatable.Replay, unrepeatable.NoReplay = 20, nil, "alone the record is answered otherwise: rejected (1)"
	gone := *entries[1]
	gone.Seq, gone.Digest = 21, "sha256:"+strings.Repeat("b", 64)
	h.node.failures["default/orders"] = append(h.node.failures["default/orders"], append(entries, &omitted, &unrepeatable, &gone)...)
	if err := os.Remove(filepath.Join(h.dir, "faulty.wasm")); err != nil {
		t.Fatal(err)
	}
	h.do("queue", "peek", "orders", "-n", "9", "-o", "name")
	h.do("replay", "orders/17")
	h.do("replay", "default/orders/18", "-o", "json")
	h.note("not a plugin's stage")
	h.do("replay", "orders/3")
	h.note("the value was too large to keep")
	h.do("replay", "orders/19")
	h.note("the guest answered otherwise alone")
	h.do("replay", "orders/20")
	h.note("the plugin is gone")
	h.do("replay", "orders/21")
	h.do("replay", "orders/99")
	h.do("replay", "order/1")
	h.do("replay", "failures.ndjson")
	h.write("bad.ndjson", "{\"failure\":1}\n")
	h.do("replay", "bad.ndjson")
	h.write("empty.ndjson", "")
	h.do("replay", "empty.ndjson")
	h.do("replay", "orders/17", "--only", "17")
	h.do("replay", "orders/17", "--with", "behaviour")
	h.do("replay", "orders/17", "--with", `{"behaviour":`)
	steady(h)
	h.golden("replay")
}

// TestReplayWithAnotherPlugin compares a plugin with another one, record by
// record and field by field.
func TestReplayWithAnotherPlugin(t *testing.T) {
	h := newHarness(t)
	h.copy(faulty, "faulty.wasm")
	h.copy("examples/upper/upper.wasm", "upper.wasm")
	h.copy("examples/orders/orders.wasm", "orders.wasm")
	failuresOf(h, "good\ntrap\nfail\n", "run", "faulty.wasm")
	h.do("replay", "failed.ndjson", "--plugin", "upper.wasm")
	h.do("replay", "failed.ndjson", "--only", "-/0/1", "--plugin", "upper.wasm", "-o", "json")
	h.note("the same bytes are no other plugin")
	h.do("replay", "failed.ndjson", "--only", "-/0/1", "--plugin", "faulty.wasm")
	h.note("one that fails them too")
	h.do("replay", "failed.ndjson", "--plugin", "orders.wasm")
	h.note("it does not take the configuration")
	h.do("replay", "failed.ndjson", "--only", "-/0/1", "--plugin", "upper.wasm", "--with", `{"a":1}`)
	h.note("the old one is not there any more")
	if err := os.Rename(filepath.Join(h.dir, "upper.wasm"), filepath.Join(h.dir, "faulty.wasm")); err != nil {
		t.Fatal(err)
	}
	h.do("replay", "failed.ndjson", "--only", "-/0/1")
	h.do("replay", "failed.ndjson")
	h.do("replay", "failed.ndjson", "--only", "-/0/1", "--plugin", "faulty.wasm")
	h.write("text.wasm", "no plugin")
	h.do("replay", "failed.ndjson", "--plugin", "text.wasm")
	h.do("replay", "failed.ndjson", "--plugin", "missing.wasm")
	steady(h)
	h.golden("replay_plugin")
}

func TestCompare(t *testing.T) {
	rec := func(key, value string, headers ...record.Header) record.Record {
		r := record.Record{Headers: headers, Timestamp: 5, To: -1}
		if key != "-" {
			r.Key = []byte(key)
		}
		if value != "-" {
			r.Value = []byte(value)
		}
		return r
	}
	emits := func(rs ...record.Record) *outcome {
		o := &outcome{Outcome: "emit"}
		for _, r := range rs {
			o.Records = append(o.Records, emitted{Output: "default", record: r})
		}
		return o
	}
	h := func(k, v string) record.Header { return record.Header{Key: k, Value: []byte(v)} }
	input := rec("k", `{"a":1}`)
	fails := &outcome{Outcome: "fail", Class: "trap", Message: "unreachable", Logs: []string{"x"}}
	three := int32(3)
	late := rec("k", "v")
	late.Timestamp = 6
	for _, c := range []struct {
		name     string
		old, now *outcome
		want     string
	}{
		{"nothing", emits(rec("k", `{"a":1}`)), emits(rec("k", `{"a":1}`)), ""},
		{"fuel is no difference", &outcome{Outcome: "drop", Fuel: 1}, &outcome{Outcome: "drop", Fuel: 2, ImageLevel: 1}, ""},
		{"members", emits(rec("k", `{"a":1,"b":{"c":[1,2,null]},"same":0,"x y":1}`)), emits(rec("k", `{"a":2,"b":{"c":[1]},"same":0,"d":null}`)),
			`0 value.a: 1 -> 2; 0 value.b.c[1]: 2 -> ; 0 value.b.c[2]: null -> ; 0 value.d:  -> null; 0 value["x y"]: 1 -> `},
		{"numbers to the last digit", emits(rec("k", `{"a":10000000000000001}`)), emits(rec("k", `{"a":10000000000000002}`)), `0 value.a: 10000000000000001 -> 10000000000000002`},
		{"another kind", emits(rec("k", `{"a":{"b":1}}`)), emits(rec("k", `{"a":[1]}`)), `0 value.a: {"b":1} -> [1]`},
		{"written otherwise", emits(rec("k", `{"a":1}`)), emits(rec("k", `{ "a": 1 }`)), `0 value: "{\"a\":1}" -> "{ \"a\": 1 }"`},
		{"text", emits(rec("k", "a<b")), emits(rec("k", "\xff")), `0 value: "a<b" -> {"base64":"/w=="}`},
		{"tombstone", emits(rec("k", `{"a":1}`)), emits(rec("k", "-")), `0 value: "{\"a\":1}" -> null`},
		{"null and empty key", emits(rec("-", "v")), emits(rec("", "v")), `0 key: null -> ""`},
		{"headers", emits(rec("k", "v", h("a", "1"), h("b", "2"), h("b", "3"))), emits(rec("k", "v", h("b", "2"), h("c", "4"))), `0 headers.a: "1" -> ; 0 headers.b: ["2","3"] -> "2"; 0 headers.c:  -> "4"`},
		{"order of headers", emits(rec("k", "v", h("a", "1"), h("b", "2"))), emits(rec("k", "v", h("b", "2"), h("a", "1"))), `0 headers (order): ["a","b"] -> ["b","a"]`},
		{"timestamp", emits(rec("k", "v")), emits(late), "0 timestamp: 5 -> 6"},
		{"output and partition", emits(rec("k", "v")), &outcome{Outcome: "emit", Records: []emitted{{Output: "audit", To: &three, record: rec("k", "v")}}}, `0 output: "default" -> "audit"; 0 to:  -> 3`},
		{"fewer", emits(rec("k", "v"), rec("k", "w")), emits(rec("k", "v")), `1 record: "default" -> `},
		{"mended", fails, emits(rec("k", `{"a":2}`)), `-1 outcome: "fail" -> "emit"; -1 class: "trap" -> ; -1 message: "unreachable" -> ; -1 logs: ["x"] -> ; 0 record:  -> "default"; 0 value.a (input): 1 -> 2`},
	} {
		var got []string
		for _, x := range compare(c.old, c.now, &input) {
			field := x.Field
			if x.Input {
				field += " (input)"
			}
			got = append(got, strings.TrimSpace(string(mustText(x.Record)))+" "+field+": "+string(x.Old)+" -> "+string(x.New))
		}
		if s := strings.Join(got, "; "); s != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, s, c.want)
		}
	}
}

func mustText(v any) []byte { return text(v) }
