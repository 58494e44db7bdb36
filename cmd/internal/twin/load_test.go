package twin

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/runtime/flow"
)

// TestFaults holds what is said to a file that is wrong: each problem has a
// place, a cause and a next step.
func TestFaults(t *testing.T) {
	var out strings.Builder
	for _, c := range []struct{ name, file string }{
		{"empty", ""},
		{"no twin", "flow: v1\n"},
		{"another version", "twin: v2\nroutes: [{ match: POST /o }]\n"},
		{"no routes", "twin: v1\nname: a\n"},
		{"unknown key", "twin: v1\nlatencey: 20ms\nroutes: [{ match: POST /o }]\n"},
		{"unknown key of a route", "twin: v1\nroutes:\n  - match: POST /o\n    answer: { status: 200 }\n"},
		{"unknown key of an answer", "twin: v1\nroutes:\n  - match: POST /o\n    answers: [{ staus: 200 }]\n"},
		{"key twice", "twin: v1\nroutes:\n  - match: POST /o\n    rate: 1/s\n    rate: 2/s\n"},
		{"a tab", "twin: v1\nroutes:\n\t- match: POST /o\n"},
		{"broken YAML", "twin: v1\nroutes: [{ match: POST /o }\n"},
		{"a tag", "twin: v1\nroutes:\n  - match: POST /o\n    answers: [{ when: !attempt }]\n"},
		{"an anchor", "twin: v1\nname: &a b\nroutes: [{ match: POST /o }]\n"},
		{"two documents", "twin: v1\nroutes: [{ match: POST /o }]\n---\ntwin: v1\n"},
		{"an address", "twin: v1\nlisten: 8088\nroutes: [{ match: POST /o }]\n"},
		{"a match", "twin: v1\nroutes:\n  - match: orders\n  - match: post /o\n  - match: POST /o/a{id}\n  - match: POST /{rest...}/o\n  - id: nothing\n"},
		{"the same id", "twin: v1\nroutes:\n  - { match: POST /o }\n  - { match: POST /o }\n"},
		{"an expression", "twin: v1\nroutes:\n  - match: POST /o\n    answers:\n      - { when: attemt < 3, status: 503 }\n      - { body: \"n ${value.}\" }\n      - { body: { a: [\"${response.x + }\"] } }\n"},
		{"a condition", "twin: v1\nroutes:\n  - match: POST /o\n    answers: [{ when: attempt }, { status: 200 }]\n"},
		{"no answer left", "twin: v1\nroutes:\n  - match: POST /o\n    answers: [{ when: attempt < 3, status: 503 }]\n"},
		{"a status", "twin: v1\nroutes:\n  - match: POST /o\n    answers: [{ status: 99 }, { status: ok }]\n"},
		{"a duration", "twin: v1\nlatency: 20\nroutes: [{ match: POST /o, answers: [{ slow: fast }] }]\n"},
		{"a latency", "twin: v1\nroutes:\n  - match: POST /o\n    latency: { uniform: 20ms }\n  - match: POST /p\n    latency: { median: 20ms }\n  - match: POST /q\n    latency: { p50: 20ms, p90: 10ms }\n"},
		{"a rate", "twin: v1\nroutes:\n  - match: POST /o\n    rate: 20\n  - match: POST /p\n    rate: { by: request.client }\n  - match: POST /q\n    rate: { requests: 2/s, retry_after: minutes }\n"},
		{"an outage", "twin: v1\noutages: [{ status: 503 }, { every: 10m, for: 20m }, 30s]\nroutes: [{ match: POST /o }]\n"},
		{"a burst", "twin: v1\nroutes:\n  - match: POST /o\n    bursts: [{ every: 10, for: 20 }, { every: 10, for: 1, from: 5s }]\n"},
		{"trouble twice", "twin: v1\nroutes:\n  - match: POST /o\n    answers: [{ reset: body, slow: 5s }, { reset: later }]\n"},
		{"oauth", "twin: v1\noauth: { path: /token, secret: { env: A, file: b } }\nroutes: [{ match: POST /o }]\n"},
		{"auth", "twin: v1\nroutes:\n  - match: POST /o\n    auth: oauth\n  - match: POST /p\n    auth: none\n  - match: POST /q\n    auth: { bearer: abc }\n"},
		{"a signature", "twin: v1\nroutes:\n  - match: POST /o\n    signature: { hmac: sha3, key: { env: K }, within: 5m }\n  - match: POST /p\n    signature: { over: request.body }\n"},
		{"items", "twin: v1\nroutes:\n  - match: POST /o\n    items: { id: value.id, verdicts: [{ verdict: retry }] }\n  - match: POST /p\n    items: { in: json, at: list }\n  - match: POST /q\n    items: { in: ndjson, verdicts: [{ chance: 2 }, { verdict: maybe }] }\n"},
	} {
		_, err := Parse("partner.yaml", []byte(c.file))
		faults, ok := errors.AsType[*flow.Errors](err)
		if !ok {
			t.Errorf("%s: %v, want problems", c.name, err)
			continue
		}
		out.WriteString("# " + c.name + "\n" + faults.Problems.Render() + "\n")
		for _, p := range faults.Problems {
			if p.Help == "" || p.Line == 0 {
				t.Errorf("%s: no place or no next step: %v", c.name, &p)
			}
		}
	}
	path := filepath.Join("testdata", "faults.golden")
	if *rewrite {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got, lines := strings.Split(out.String(), "\n"), strings.Split(strings.ReplaceAll(string(want), "\r\n", "\n"), "\n")
	for i := range max(len(got), len(lines)) {
		if i >= len(got) || i >= len(lines) || got[i] != lines[i] {
			t.Fatalf("%s:%d differs; rewrite it with: go test ./cmd/internal/twin -rewrite\n%s", path, i+1, strings.Join(got[max(0, i-3):min(len(got), i+2)], "\n"))
		}
	}
}

// FuzzParse: no file ends the program, and one that is read makes a twin.
func FuzzParse(f *testing.F) {
	f.Add([]byte("twin: v1\nroutes: [{ match: POST /o }]\n"))
	f.Add([]byte(troubled))
	f.Add([]byte("twin: v1\nroutes:\n  - match: POST /o\n    signature: { key: { text: k }, over: \"${request.body}\" }\n    items: { in: json_array }\n"))
	f.Fuzz(func(t *testing.T, src []byte) {
		file, err := Parse("partner.yaml", src)
		if (file == nil) == (err == nil) {
			t.Fatalf("%v, %v", file, err)
		}
		if err != nil {
			return
		}
		for i := range file.routes {
			r := &file.routes[i]
			r.latency.at(0)
			r.latency.at(0.999999)
		}
	})
}
