package record

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

var rewriteGolden = flag.Bool("rewrite", false, "rewrite the golden files")

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *rewriteGolden {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is\n%s\nwant\n%s", file, got, want)
	}
}

func sample() Record {
	p := Partition{Topic: "orders", Num: 3}
	return Record{
		Key: []byte("c-1"), Value: []byte(`{"a":"<b>"}`), Headers: []Header{{"trace", []byte("x")}, {"trace", []byte{0xff}}, {"none", nil}},
		Topic: "orders", Partition: 3, Offset: 42, Timestamp: 1_700_000_000_123, Trace: NewTraceSeed(p).Trace(42), Attempt: 1, To: -1,
	}
}

func TestFormats(t *testing.T) {
	var b strings.Builder
	line := func(name string, v any) { fmt.Fprintf(&b, "%s: %s\n", name, v) }
	r := sample()
	line("id", r.ID())
	r.Broker = "broker-a"
	line("id with broker", r.ID())
	r.Broker = ""
	r.Path, _ = r.Path.Child(2)
	r.Path, _ = r.Path.Child(0)
	line("id of an emission", r.ID())
	line("trace", r.Trace)
	env, err := AppendEnvelope(nil, &r)
	if err != nil {
		t.Fatal(err)
	}
	line("envelope", env)
	null, err := AppendEnvelope(nil, &Record{Offset: 7})
	if err != nil {
		t.Fatal(err)
	}
	line("envelope of a tombstone without key", null)
	e := &Entry{
		Seq: 9, Flow: "default/orders", FlowUID: 0xabcdef, Revision: 2, Generation: 1, Stage: "mask", Plugin: "orders@1.0.0", Digest: "sha256:ab",
		Touched: []string{"sha256:cd"}, Class: Rejected, Code: 7, Message: "no object at byte 0", Attempts: 2, Time: 1_700_000_000_456, Input: r,
		Replay: &Replay{BatchID: 1 << 60, Now: 1_700_000_000_400, ImageLevel: 1, ConfigHash: 5, Logs: []string{"panic"}},
	}
	j, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	line("entry", j)
	whole := *e
	whole.Input.Redelivered = true
	whole.Replay = &Replay{BatchID: 1 << 60, Now: 1_700_000_000_400, Fuel: 4711, FuelLimit: 1_200_000, MemoryLimit: 64 << 20, FuelCosts: 2}
	whole.Setting = &Setting{File: "/plugins/orders.wasm", With: Text(`{"a": "<1>"}`), Lines: "each", Envelope: true, Isolation: "record", Function: "run", Hosts: []string{"*.example.com"}}
	j3, err := json.Marshal(&whole)
	if err != nil {
		t.Fatal(err)
	}
	line("entry with its setting", j3)
	sent := *e
	sent.Input = r
	sent.Input.Ref, sent.Replay = "req-7", nil
	sent.Exchange = &Exchange{Method: "POST", URL: "https://api.example.com/orders?<a>=1", RequestHeaders: []Header{{"Content-Type", []byte("application/json")}, {"Authorization", []byte("***")}},
		RequestBody: []byte(`{"a":"<b>"}`), RequestCut: true, Status: 503, ResponseHeaders: []Header{{"Retry-After", []byte("5")}}, ResponseBody: []byte{0xff, 0}, ResponseCut: true}
	sent.History = []Attempt{{Time: 1_700_000_000_100, Millis: 30_000, Class: Timeout, Message: "no answer"}, {Time: 1_700_000_000_400, Millis: 12, Class: Retryable, Code: 503, Message: "busy"}}
	sent.Requeues, sent.Told = 2, "push: 500"
	j4, err := json.Marshal(&sent)
	if err != nil {
		t.Fatal(err)
	}
	line("entry of a delivery", j4)
	sent.Exchange = &Exchange{Method: "GET", URL: "https://api.example.com/"}
	j5, err := json.Marshal(&sent)
	if err != nil {
		t.Fatal(err)
	}
	line("entry of a delivery that got no answer", j5)
	judged := *e
	judged.Input, judged.Plugin, judged.Digest, judged.Touched, judged.Replay = r, "", "", nil, nil
	judged.Call = &Call{
		Stage: "deliver.validate", Plugin: "check@1.0.0", Digest: "sha256:ef", Class: Rejected, Code: 7, Message: "code <7>", Hidden: []string{"Set-Cookie"},
		Input:  Record{Value: []byte("{}"), Headers: []Header{{":status", []byte("200")}, {"Set-Cookie", []byte("***")}}, Topic: "deliver.validate", Offset: 1 << 60, Timestamp: 5, Attempt: 1, To: -1},
		Replay: &Replay{BatchID: 1 << 61, Now: 5, ConfigHash: 6, Signatures: []Signature{{Handle: 1, Alg: 2, Refused: -2}}}, Setting: &Setting{With: Text("{}")},
	}
	j6, err := json.Marshal(&judged)
	if err != nil {
		t.Fatal(err)
	}
	line("entry with a call", j6)
	signed := judged
	signed.Call = &Call{Stage: "deliver.sign", Plugin: "sign@1.0.0", Digest: "sha256:ef", Class: Fuel, Message: "", Input: Record{Topic: "deliver.sign", Attempt: 1, To: -1}, InputOmitted: true, InputHash: 0x1234, NoReplay: "no"}
	j7, err := json.Marshal(&signed)
	if err != nil {
		t.Fatal(err)
	}
	line("entry with a call without input", j7)
	named := sample()
	named.Ref = "req-7"
	line("id with a ref", named.ID())
	if env, err = AppendEnvelope(nil, &named); err != nil {
		t.Fatal(err)
	}
	line("envelope with a ref", env)
	e.NoReplay = "alone the record is answered otherwise"
	e.Input.Value, e.InputOmitted, e.InputHash, e.Replay = nil, true, 0x1234, nil
	j2, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	line("entry without input", j2)
	for c := range numClasses {
		line(fmt.Sprintf("class %d", c), c)
	}
	golden(t, "testdata/formats.golden", b.String())

	for _, in := range [][]byte{j, j2, j3, j4, j5, j6, j7} {
		var back Entry
		if err := json.Unmarshal(in, &back); err != nil {
			t.Fatal(err)
		}
		again, err := json.Marshal(&back)
		if err != nil || string(again) != string(in) {
			t.Errorf("entry read and written again: %v\n%s\nwant\n%s", err, again, in)
		}
	}
}

func TestEnvelopeRoundTrip(t *testing.T) {
	r := sample()
	b, err := AppendEnvelope(nil, &r)
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseEnvelope(b)
	if err != nil {
		t.Fatal(err)
	}
	if string(back.Key) != "c-1" || string(back.Value) != string(r.Value) || len(back.Headers) != 3 || string(back.Headers[1].Value) != "\xff" || back.Headers[2].Value != nil || back.Offset != 42 {
		t.Errorf("got %+v", back)
	}
}

func TestParseEnvelope(t *testing.T) {
	tests := []struct{ name, in, value, err string }{
		{"any JSON is its text", `{"value":{"a": 1}}`, `{"a": 1}`, ""},
		{"a number too", `{"value":12}`, `12`, ""},
		{"bytes", `{"value":{"base64":"/w=="}}`, "\xff", ""},
		{"unknown field", `{"valu":"x"}`, "", `unknown field "valu"`},
		{"not JSON", `x`, "", "read envelope"},
		{"two values", `{"value":"a"} {}`, "", "more than one"},
		{"a ref that would not be one", `{"ref":"a/b"}`, "", `ref "a/b"`},
		{"bad base64", `{"value":{"base64":"%"}}`, "", "base64"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := ParseEnvelope([]byte(tt.in))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %v, want an error with %q", err, tt.err)
				}
				return
			}
			if err != nil || string(r.Value) != tt.value || r.Key != nil {
				t.Errorf("got value %q key %v, %v; want %q", r.Value, r.Key, err, tt.value)
			}
		})
	}
}

func TestEntryRefusesOtherVersions(t *testing.T) {
	var e Entry
	for _, in := range []string{`{"failure":2,"input":{}}`, `{}`, `{"failure":1}`, `{"failure":1,"input":{},"path":"1"}`, `{"failure":1,"input":{},"class":"nonsense"}`, `{"failure":1,"input":{},"trace":"zz"}`, `{"failure":1,"input":{"ref":"a#1"}}`, `{"failure":1,"input":{},"exchange":{"request_body":{"base64":"%"}}}`} {
		if err := e.UnmarshalJSON([]byte(in)); err == nil {
			t.Errorf("%s was read", in)
		}
	}
}

func TestPath(t *testing.T) {
	for _, s := range []string{"", "#0", "#65535", "#1.2.3.4.5.6.7.8"} {
		p, err := ParsePath(s)
		if err != nil || p.String() != s {
			t.Errorf("ParsePath(%q) = %q, %v", s, p, err)
		}
	}
	for _, s := range []string{"1", "#", "#-1", "#65536", "#01", "#1..2", "#1.2.3.4.5.6.7.8.9"} {
		if p, err := ParsePath(s); err == nil {
			t.Errorf("ParsePath(%q) = %q, want an error", s, p)
		}
	}
	var p Path
	for range MaxPathLevels {
		p, _ = p.Child(1)
	}
	if _, err := p.Child(0); err == nil || AsError(err).Class != Protocol {
		t.Errorf("a ninth level: got %v, want a protocol error", err)
	}
}

func TestTrace(t *testing.T) {
	const id = "4bf92f3577b34da6a3ce929d0e0e4736"
	headers := func(v string) []Header { return []Header{{"a", nil}, {"traceparent", []byte(v)}} }
	if tr, ok := TraceFromHeaders(headers("00-" + id + "-00f067aa0ba902b7-01")); !ok || tr.String() != id {
		t.Errorf("got %s, %v", tr, ok)
	}
	for _, bad := range []string{"", "00-" + id, "00-" + strings.Repeat("0", 32) + "-00f067aa0ba902b7-01", "00-" + strings.Repeat("x", 32) + "-00f067aa0ba902b7-01"} {
		if _, ok := TraceFromHeaders(headers(bad)); ok {
			t.Errorf("%q is no trace id", bad)
		}
	}
	seen := map[Trace]bool{}
	for p := range int32(4) {
		for _, topic := range []string{"a", "b"} {
			seed := NewTraceSeed(Partition{Topic: topic, Num: p})
			for o := range int64(1000) {
				tr := seed.Trace(o)
				if tr.IsZero() || seen[tr] {
					t.Fatalf("trace %s of %s/%d/%d is zero or taken", tr, topic, p, o)
				}
				seen[tr] = true
			}
		}
	}
}

func TestAsError(t *testing.T) {
	cause := errors.New("cause")
	if e := AsError(fmt.Errorf("send: %w", Errorf(Config, "no token: %w", cause))); e.Class != Config || !errors.Is(e, cause) {
		t.Errorf("got %v", e)
	}
	if e := AsError(context.DeadlineExceeded); e.Class != Timeout {
		t.Errorf("a deadline is %v, want timeout", e.Class)
	}
	if e := AsError(cause); e.Class != Internal || e.Error() != "internal: cause" {
		t.Errorf("got %v", e)
	}
	if AsError(nil) != nil {
		t.Error("nil became an error")
	}
	if s := (&Error{Class: Retryable, Code: 503, Message: "busy", RetryAfter: time.Second}).Error(); s != "retryable (503): busy" {
		t.Errorf("got %q", s)
	}
}

// A header's key is bytes too: an entry that is run again must have the same.
func TestEnvelopeKeepsHeaderKeys(t *testing.T) {
	r := Record{Headers: []Header{{"ok", nil}, {"\xff\x00", []byte("v")}, {"", []byte{}}}}
	line, err := AppendEnvelope(nil, &r)
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseEnvelope(line)
	if err != nil || !reflect.DeepEqual(back.Headers, r.Headers) {
		t.Errorf("%s: got %q, %v", line, back.Headers, err)
	}
}

func TestRemember(t *testing.T) {
	var history []Attempt
	for i := range int64(20) {
		before := history
		history = Remember(history, Attempt{Time: i})
		if len(before) > 0 && before[len(before)-1].Time != i-1 {
			t.Fatalf("remembering attempt %d changed the history before it: %v", i, before)
		}
	}
	var times []int64
	for _, a := range history {
		times = append(times, a.Time)
	}
	if want := []int64{0, 13, 14, 15, 16, 17, 18, 19}; !reflect.DeepEqual(times, want) {
		t.Errorf("remembered %v, want %v", times, want)
	}
}
