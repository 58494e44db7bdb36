package extism

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/plugins/internal/testkit"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

// large are plugins whose compilation takes too long with the race detector.
var large = []string{"count_vowels_std", "std_command", "hello_haskell", "fs_std", "http"}

func skipLarge(t *testing.T, plugin string) {
	if testkit.Race && slices.Contains(large, plugin) {
		t.Skip("too large for the race detector")
	}
}

// The plugins that ship with the SDK give the answers that their sources (its
// folder "plugins") and its own tests promise.
func TestShippedAnswers(t *testing.T) {
	vowels := func(n, total string) string {
		return `{"count":` + n + `,"total":` + total + `,"vowels":"aeiouAEIOU"}`
	}
	for _, tt := range []struct {
		plugin, function, config string
		in, want                 []string
		drops                    int
		logs                     []string
	}{
		{plugin: "count_vowels", function: "count_vowels", in: []string{"hello world", "aaaaaa", "bbbbbbb", ""},
			want: []string{vowels("3", "3"), vowels("6", "9"), vowels("0", "9"), vowels("0", "9")}},
		{plugin: "count_vowels", function: "count_vowels", config: `{"vowels":"xyz"}`, in: []string{"xylo"},
			want: []string{`{"count":2,"total":2,"vowels":"xyz"}`}},
		{plugin: "count_vowels_std", function: "_start", in: []string{"aaa", "bbba"},
			want: []string{`{"count": 3, "config": "<unset by host>", "a": "this is var a"}`, `{"count": 1, "config": "<unset by host>", "a": "this is var a"}`}},
		{plugin: "std_command", function: "_start", in: []string{"ben", "joe"}, want: []string{"hello ben", "hello joe"}},
		{plugin: "hello", function: "run_test", in: []string{"", "x"}, want: []string{"Hello, world!", "Hello, world!"}},
		{plugin: "hello_haskell", function: "testing", config: `{"greeting":"Howdy"}`, in: []string{"John"}, want: []string{"Howdy, John"}},
		{plugin: "config", function: "run_test", config: `{"thing":"hello"}`, in: []string{""}, want: []string{`{"config": "hello"}`}},
		{plugin: "config", function: "run_test", in: []string{""}, want: []string{`{"config": "<unset by host>"}`}},
		{plugin: "config", function: "run_test", config: `{"thing":[1,{"a":true}]}`, in: []string{""}, want: []string{`{"config": "[1,{"a":true}]"}`}},
		{plugin: "replace", function: "run_test", in: []string{"a test, test!"}, want: []string{"a wasm, wasm!"}},
		{plugin: "input_offset", function: "input_offset_length", in: []string{"hello world"}, want: []string{"\x0b\x00\x00\x00\x00\x00\x00\x00"}},
		{plugin: "sleep", function: "run_test", config: `{"duration":0}`, in: []string{"x"}, want: []string{"slept for 0 seconds"}},
		{plugin: "exit", function: "_start", config: `{"code":0}`, in: []string{"x"}, drops: 1},
		{plugin: "println", function: "run_test", in: []string{"me"}, drops: 1, logs: []string{"INFO this was printed from the plugin me"}},
		{plugin: "log", function: "run_test", in: []string{"x"}, drops: 1,
			logs: []string{"INFO this is an info log", "WARN this is a warning log", "ERROR this is an error log"}},
	} {
		t.Run(tt.plugin+tt.config, func(t *testing.T) {
			skipLarge(t, tt.plugin)
			var logs []string
			s := stageOf(t, tt.plugin, sandbox.StageConfig{Function: tt.function, Config: []byte(tt.config), OnLog: func(l sandbox.LogLine) {
				logs = append(logs, l.Level.String()+" "+l.Text)
			}})
			b := testkit.Batch(tt.in...)
			out := testkit.Process(t, s, b)
			for _, f := range out.Failures {
				t.Errorf("record %d failed: %v", f.In, f.Err)
			}
			if got := testkit.Values(out); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if len(out.Drops) != tt.drops {
				t.Errorf("got %d drops, want %d", len(out.Drops), tt.drops)
			}
			if !slices.Equal(logs, tt.logs) {
				t.Errorf("got log %q, want %q", logs, tt.logs)
			}
			for _, e := range out.Emits {
				r, in := e.Record, b.Records[e.In]
				if string(r.Key) != "k" || len(r.Headers) != 1 || r.Timestamp != in.Timestamp || r.Offset != in.Offset || r.Path != "" || r.To != -1 {
					t.Errorf("got record %+v, want all but the value of %+v", r, in)
				}
			}
		})
	}
}

// The plugin that makes hundreds of thousands of calls of the host needs more
// fuel than there is by default.
func TestShippedAlloc(t *testing.T) {
	if testkit.Race {
		t.Skip("too slow with the race detector")
	}
	m := compile(t, open(t, Config{Workers: 1, MaxFuelPerRecord: 100_000_000}), shipped(t, "alloc"))
	if out := testkit.Process(t, newStage(t, m, sandbox.StageConfig{Function: "run_test"}), testkit.Batch("x")); len(out.Drops) != 1 {
		t.Errorf("got %+v, want a drop", out.Failures)
	}
	out := testkit.Process(t, newStage(t, m, sandbox.StageConfig{Function: "run_test", Fuel: 1_000_000}), testkit.Batch("x"))
	if len(out.Failures) != 1 || out.Failures[0].Err.Class != record.Fuel {
		t.Errorf("got %+v, want a failure of class fuel", out)
	}
}

// What its plugins do wrong on purpose fails the record, with their own words.
func TestShippedFailures(t *testing.T) {
	for _, tt := range []struct {
		plugin, function, config string
		class                    record.Class
		code                     uint32
		message                  string
	}{
		{plugin: "fail", function: "run_test", class: record.Rejected, code: 1, message: "Some error message"},
		{plugin: "exit", function: "_start", config: `{"code":500}`, class: record.Rejected, code: 500, message: "proc_exit(500)"},
		{plugin: "exit", function: "_start", config: `{"code":"-1"}`, class: record.Rejected, code: 0xffffffff, message: "proc_exit(4294967295)"},
		{plugin: "exit", function: "_start", config: `{"code":"abc"}`, class: record.Rejected, code: 1, message: "proc_exit(1)"},
		{plugin: "exit", function: "_start", class: record.Rejected, code: 2, message: "proc_exit(2)"},
		{plugin: "fs", function: "run_test", class: record.Rejected, code: 1, message: "/mnt/test.txt"},
		{plugin: "fs_std", function: "run_test", class: record.Rejected, code: 1, message: "/mnt/test.txt"},
		{plugin: "read_write", function: "try_read", config: `{"path":"/mnt/test.txt"}`, class: record.Rejected, code: 1, message: "Failed to read file"},
		{plugin: "read_write", function: "try_write", config: `{"path":"/mnt/test.txt"}`, class: record.Rejected, code: 1, message: "/mnt/test.txt"},
		{plugin: "http", function: "run_test", class: record.Trap, message: "'https://jsonplaceholder.typicode.com/todos/1' is not allowed in http_request, called by run_test; list the host in `hosts` of the stage"},
	} {
		t.Run(tt.plugin+tt.config, func(t *testing.T) {
			skipLarge(t, tt.plugin)
			s := stageOf(t, tt.plugin, sandbox.StageConfig{Function: tt.function, Config: []byte(tt.config)})
			out := testkit.Process(t, s, testkit.Batch("a", "b"))
			if len(out.Failures) != 2 || len(out.Emits)+len(out.Drops) != 0 {
				t.Fatalf("got %d failures, %q, drops %v, want 2 failures", len(out.Failures), testkit.Values(out), out.Drops)
			}
			for i, f := range out.Failures {
				if int(f.In) != i || f.Err.Class != tt.class || f.Err.Code != tt.code || !strings.Contains(f.Err.Message, tt.message) {
					t.Errorf("got %v of record %d, want %s (%d): %s", f.Err, f.In, tt.class, tt.code, tt.message)
				}
				if f.Replay == nil || f.Replay.Now != testkit.Now || f.Replay.BatchID == 0 {
					t.Errorf("got replay %+v, want the batch's time and id", f.Replay)
				}
			}
		})
	}
}

// Plugins that want functions of another host are refused before anything is
// compiled, by the functions' names.
func TestShippedRefusals(t *testing.T) {
	for plugin, want := range map[string][]string{
		"host":           {`"extism:host/user" "mult"`},
		"host_memory":    {`"host" "to_upper"`},
		"host_multiple":  {`"extism:host/user" "hostGreenMessage"`, `"extism:host/user" "hostPurpleMessage"`},
		"main":           {`"lib" "capitalize"`},
		"nested.c.instr": {`"dylibso_observe" "instrument_enter"`},
	} {
		t.Run(plugin, func(t *testing.T) {
			_, err := sharedRuntime(t).Compile(t.Context(), shipped(t, plugin))
			e, ok := errors.AsType[*sandbox.RefusedError](err)
			if !ok || e.Kind != sandbox.RefusedImport {
				t.Fatalf("got %v, want a refusal for its imports", err)
			}
			for _, w := range want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("got %q, want it to name %s", err, w)
				}
			}
		})
	}
}

// A plugin reaches the hosts that are listed, and no other one by a redirect.
func TestHosts(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { t.Errorf("a request for %s got through", r.URL) }))
	defer other.Close()
	otherURL, _ := url.Parse(other.URL)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "http://localhost:"+otherURL.Port(), http.StatusFound)
		case "/gone":
			panic(http.ErrAbortHandler)
		default:
			w.Header().Set("X-Answer", "yes")
		}
	}))
	defer srv.Close()
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()

	s := stageOf(t, "http_headers", sandbox.StageConfig{Function: "http_get", Hosts: []string{"127.0.0.*"}})
	if !s.Impure() {
		t.Error("a stage with hosts is impure")
	}
	out := testkit.Process(t, s, testkit.Batch(`{"url":"`+srv.URL+`/"}`, `{"url":"`+srv.URL+`/moved"}`, `{"url":"`+srv.URL+`/gone"}`, `{"url":"http://localhost/"}`))
	if got := testkit.Values(out); !slices.Equal(got, []string{"{}"}) {
		t.Errorf("got %q, want one answer", got)
	}
	want := []struct {
		class   record.Class
		message string
	}{
		{record.Rejected, `"localhost"`},
		{record.Retryable, "EOF"},
		{record.Trap, "'http://localhost/' is not allowed"},
	}
	if len(out.Failures) != len(want) {
		t.Fatalf("got %v, want %d failures", out.Failures, len(want))
	}
	for i, f := range out.Failures {
		if f.Err.Class != want[i].class || !strings.Contains(f.Err.Message, want[i].message) {
			t.Errorf("got %v, want %s: %s", f.Err, want[i].class, want[i].message)
		}
		if f.Replay != nil {
			t.Errorf("got a replay of an impure stage: %+v", f.Replay)
		}
	}
}
