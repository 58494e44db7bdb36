package plugintest_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/millrace-io/millrace/plugins/plugintest"
	"github.com/millrace-io/millrace/plugins/plugintest/guests"
)

// TestVectorsFindFaults: each vector is there for a reason, which is a guest
// that does not pass it.
func TestVectorsFindFaults(t *testing.T) {
	m := compile(t, guests.Mutant)
	plugin := plugintest.Of(m.Info(), m.NewStage)
	all := map[string]plugintest.Vector{}
	for _, v := range vectors(t) {
		all[v.Name] = v
	}
	tried := map[string]bool{"empty-batch": true} // which the sandbox never passes on
	for _, c := range []struct {
		vector string
		fault  string // of the guest
		do     string // instead of what the vector does
		want   string
	}{
		{"pass", "drops-all", "", "record 0 was not emitted"},
		{"pass", "zero-partition", "", "output partition is 0, want -1"},
		{"pass", "forgets-last", "", "failed: protocol"},
		{"pass", "no-headers", "", "number of headers is 0, want 1"},
		{"copy", "no-key", "", `key is null, want "a"`},
		{"copy", "zero-time", "", "timestamp is 0, want 1700000000123"},
		{"drop", "emits-all", "", "emitted once more than it should"},
		{"drop", "answers-twice", "", "protocol"},
		{"retry", "wrong-delay", "", "delay is 41m40s, want 2.5s"},
		{"retry", "fails-instead-of-retry", "", "class rejected (try again later), want class retryable"},
		{"retry", "no-message", "", `message is "", want "try again later"`},
		{"retry-zero", "wrong-code", "", "code is 1, want 0"},
		{"fail", "wrong-code", "", "code is 43, want 42"},
		{"fail", "drops-all", "", "record 0 did not fail, want rejected (42)"},
		{"fail-unicode", "ascii-only", "", `message is "caf`},
		{"value", "", "value anothr text", `value is "anothr text", want "another text"`},
		{"upper", "", "pass", `value is "hello, world", want "HELLO, WORLD"`},
		{"nulls-pass", "no-key", "", `key is null, want "null value"`},
		{"nulls-copy", "empty-for-null", "", `key is "", want null`},
		{"nulls-copy", "null-for-empty", "", `key is null, want ""`},
		{"tombstone", "empty-for-null", "", `value is "", want null`},
		{"key", "no-key", "", `key is null, want "customer-7"`},
		{"null-key", "empty-for-null", "", `key is "", want null`},
		{"empty-key", "null-for-empty", "", `key is null, want ""`},
		{"headers-copy", "sorted-headers", "", `header 0 is "": "", want "b": "2"`},
		{"headers-copy", "header-map", "", "number of headers is 6, want 8"},
		{"headers-add", "header-map", "", "number of headers is 2, want 3"},
		{"headers-none", "", "pass", "number of headers is 1, want 0"},
		{"headers-many", "short-headers", "", "number of headers is 255, want 300"},
		{"headers-make", "short-headers", "", "number of headers is 255, want 260"},
		{"headers-large", "no-headers", "", "number of headers is 0, want 1"},
		{"binary", "text-only", "", "key is "},
		{"unicode", "ascii-only", "", `key is "cl", want "clé"`},
		{"emits", "reversed-emits", "", `value is "2", want "0"`},
		{"emits", "first-emit-only", "", "emission 1 answers record 1, want record 0"},
		{"emits-many", "first-emit-only", "", "emission 1 answers record 1, want record 0"},
		{"outputs", "default-output", "", `output is "default", want "audit"`},
		{"partition", "any-partition", "", "output partition is -1, want 5"},
		{"partition-by-key", "zero-partition", "", "output partition is 0, want -1"},
		{"timestamp", "zero-time", "", "timestamp is 0, want 1600000000001"},
		{"timestamp-range", "zero-time", "", "record 1: timestamp is 0, want -1"},
		{"facts", "no-trace", "", "want "},
		{"facts", "one-topic", "", "record 2: value is "},
		{"config", "ascii-only", "", "value is "},
		{"large-value", "short-values", "", "(1048576 bytes)"},
		{"large-key", "short-values", "", "(100000 bytes)"},
		{"large-answer", "short-values", "", "(1048576 bytes)"},
		{"growth", "", "grow 80", "record 0 failed: memory"},
		{"log", "", "log info one line; pass", "it logged"},
		{"log-levels", "", "log debug d; log info i; log warn w; log info e; drop", "it logged"},
		{"count", "", "count orders 2; count big 1; pass", "it counted"},
		{"mixed", "swaps-drop-and-emit", "", "record 4 failed: protocol"},
		{"many", "drops-all", "", "record 0 was not emitted"},
	} {
		t.Run(c.vector+"/"+c.fault+c.do, func(t *testing.T) {
			v, ok := all[c.vector]
			if !ok {
				t.Fatal("there is no such vector")
			}
			tried[c.vector] = true
			var config map[string]any
			if err := json.Unmarshal(v.Config, &config); err != nil {
				t.Fatal(err)
			}
			if c.do != "" {
				config["do"] = c.do
			}
			config["fault"] = c.fault
			var err error
			if v.Config, err = json.Marshal(config); err != nil {
				t.Fatal(err)
			}
			if c.vector == "config" {
				v.Emits[0].Record.Value = v.Config
			}
			r, err := plugintest.Check(t.Context(), plugin, plugintest.Options{Vectors: []plugintest.Vector{v}, VectorsOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			if len(r.Results) != 1 || r.Results[0].Outcome != plugintest.Fail || !strings.Contains(r.Results[0].Detail, c.want) {
				t.Errorf("got %+v, want a failure with %q", r.Results, c.want)
			}
		})
	}
	for name := range all {
		if !tried[name] {
			t.Errorf("no fault is found by %s", name)
		}
	}
}

func TestLoadVectors(t *testing.T) {
	names := []string{}
	for _, v := range vectors(t) {
		names = append(names, v.Name)
		if v.About == "" || !strings.HasSuffix(v.About, ".") {
			t.Errorf("%s: %q is no sentence", v.Name, v.About)
		}
	}
	if len(names) < 40 {
		t.Errorf("got %d vectors: %v", len(names), names)
	}

	const form = `{"format":"millrace-vectors/1","about":"x.","do":"pass","records":[%s],"expect":[%s]%s}`
	for _, c := range []struct{ file, want string }{
		{`{`, "read vector v: "},
		{`{"format":"millrace-vectors/2","about":"x.","do":"pass"}`, `its format is "millrace-vectors/2", this program reads "millrace-vectors/1"`},
		{`{"format":"millrace-vectors/1","about":"x."}`, "it needs one of do and config"},
		{`{"format":"millrace-vectors/1","about":"x.","do":"\""}`, "its configuration is no JSON"},
		{fmt.Sprintf(form, "", "", `,"expects":[]`), `unknown field "expects"`},
		{fmt.Sprintf(form, `{"val":1}`, "", ""), `unknown field "val"`},
		{fmt.Sprintf(form, `{"trace":"12"}`, "", ""), `trace: "12" is not 32 hex digits`},
		{fmt.Sprintf(form, `{"times":2000000}`, "", ""), "more than 1000000 records"},
		{fmt.Sprintf(form, `{"value":{"repeat":"aaaa","times":1000000000}}`, "", ""), "1000000000 times is too much"},
		{fmt.Sprintf(form, `{}`, `{"in":1,"drop":true}`, ""), "answer 0: record 1: there are 1"},
		{fmt.Sprintf(form, `{}`, `{"in":0}`, ""), "it is not one of emit, drop, retry and fail"},
		{fmt.Sprintf(form, `{}`, `{"in":0,"drop":true,"emit":{}}`, ""), "it is not one of emit, drop, retry and fail"},
		{fmt.Sprintf(form, `{}`, `{"in":0,"drop":true,"emits":2}`, ""), "emits: it goes with emit"},
		{fmt.Sprintf(form, `{}`, `{"in":0,"emit":{"vaule":"x"}}`, ""), `unknown field "vaule"`},
	} {
		if _, err := plugintest.ParseVector("v", []byte(c.file)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.file, err, c.want)
		}
	}
	if _, err := plugintest.LoadVectors(fstest.MapFS{"README.md": {}}); err == nil {
		t.Error("a folder without vectors was loaded")
	}

	v, err := plugintest.ParseVector("v", fmt.Appendf(nil, form, `{"key":"k{n}","value":{"repeat":"ab","times":3},"times":2,"offset":5}`, `{"in":0,"times":2,"emit":{"key":null,"value":"{n}"}}`, ""))
	if err != nil {
		t.Fatal(err)
	}
	r, e := v.Batch.Records, v.Emits
	if len(r) != 2 || string(r[1].Key) != "k1" || string(r[1].Value) != "ababab" || r[1].Offset != 6 || len(e) != 2 || e[1].Record.Key != nil || string(e[1].Record.Value) != "1" {
		t.Errorf("got %+v, %+v", r, e)
	}
}

func FuzzParseVector(f *testing.F) {
	f.Add([]byte(`{"format":"millrace-vectors/1","about":"x.","do":"pass","records":[{"key":"{n}","headers":[{"key":"a","value":null,"times":2}],"times":2}],"expect":[{"in":0,"times":2,"emit":{"key":null}}]}`))
	f.Add([]byte(`{"format":"millrace-vectors/1","config":"{}","records":[{"value":{"base64":"AA=="}}],"expect":[{"in":0,"retry":{"code":1,"delay":9223372036854775807,"message":"x"}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := plugintest.ParseVector("v", data)
		if err == nil && !json.Valid(v.Config) {
			t.Errorf("the configuration is no JSON: %s", v.Config)
		}
	})
}
