package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/page"
	"github.com/millrace-io/millrace/cmd/internal/plugtest"
)

// TestExamplesAreTested: the tests of every example that has some pass. Nothing is
// built: their plugins are committed.
func TestExamplesAreTested(t *testing.T) {
	files, err := filepath.Glob("../../examples/*/*.test.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	h := newHarness(t)
	h.server.Close() // no node is asked
	for _, file := range files {
		full, err := filepath.Abs(file)
		if err != nil {
			t.Fatal(err)
		}
		code, stdout, stderr := h.call("", "test", full, "--no-build")
		if code != 0 || !strings.HasPrefix(stdout, "ok ") || strings.Contains(stdout, "FAIL") {
			t.Errorf("%s: exit %d: %s%s", file, code, stdout, stderr)
		}
	}
}

// TestPageOfTestFiles: what the page shows is what happens.
func TestPageOfTestFiles(t *testing.T) {
	src, err := os.ReadFile("../../docs/reference/test-file.md")
	if err != nil {
		t.Fatal(err)
	}
	h := newHarness(t)
	h.copy("examples/upper/upper.wasm", "plugin/upper.wasm")
	var want string
	for _, b := range page.Blocks(t, string(src)) {
		switch {
		case b.Name == "upper.test.yaml":
			h.write("plugin/"+b.Name, b.Text)
		case b.Name != "":
			h.write(b.Name, b.Text)
		case b.Kind == "console":
			_, want, _ = strings.Cut(b.Text, "\n")
		}
	}
	if code, stdout, stderr := h.call("", "test"); code != 0 || stdout != want || stderr != "3 cases passed, 0 failed\n" {
		t.Errorf("exit %d: %s%s, want %s", code, stdout, stderr, want)
	}
	if code, stdout, stderr := h.call("", "test", "plugin"); code != 0 || strings.Count(stdout, "ok ") != 1 {
		t.Errorf("exit %d: %s%s", code, stdout, stderr)
	}
	// A .wasm passes the suite too, with the test beside it.
	if code, stdout, stderr := h.call("", "test", "plugin/upper.wasm"); code != 0 || strings.Count(stdout, "ok ") != 2 || !strings.Contains(stdout, "what any plugin must hold") {
		t.Errorf("exit %d: %s%s", code, stdout, stderr)
	}
}

const faultyTest = `test: v1
plugin: ./faulty.wasm
config: {}
cases:
  - name: it fails
    given: [{ text: fail }, { text: log, key: k }]
    expect:
      # the first
      - drop
      # the second
      - emit: { text: log, key: other }
    logs: [hello]
  - name: it counts
    given: { text: count }
    expect: pass
    counters: { faulty.records: 2 }
`

// TestOfAPlugin is the command: what fails is told by field, and written down
// with --update.
func TestOfAPlugin(t *testing.T) {
	h := newHarness(t)
	h.copy(faulty, "faulty.wasm")
	h.write("faulty.test.yaml", faultyTest)
	h.do("test", "faulty.test.yaml")
	h.do("test", "faulty.test.yaml", "--filter", "COUNTS")
	h.do("test", "faulty.test.yaml", "--filter", "nothing like it")
	h.do("test", "faulty.test.yaml", "--update")
	b, err := os.ReadFile(filepath.Join(h.dir, "faulty.test.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	h.note("the file is then")
	h.log.Write(b)
	h.do("test", "faulty.test.yaml")
	h.do("test", "faulty.test.yaml", "-o", "name")

	h.note("what cannot be tested")
	h.do("test", "nowhere")
	h.write("flow.yaml", upperStream)
	h.do("test", "flow.yaml")
	h.do("test", ".", "--no-build", "--filter", "x")
	h.write("bad.test.yaml", "test: v1\nplugin: ./faulty.wasm\ncases:\n  - name: a\n    givn: { text: a }\n    expect: dropp\n")
	h.do("test", "bad.test.yaml")
	h.write("none.test.yaml", "test: v1\ncases:\n  - { name: a, given: { text: a }, expect: pass }\n")
	h.do("test", "none.test.yaml")
	h.write("gone.test.yaml", "test: v1\nplugin: ./gone.wasm\ncases:\n  - { name: a, given: { text: a }, expect: pass }\n")
	h.do("test", "gone.test.yaml")
	h.write("init.test.yaml", "test: v1\nplugin: ./faulty.wasm\nconfig: { behaviour: init-fail }\ncases:\n  - { name: a, given: { text: a }, expect: pass }\n")
	h.do("test", "init.test.yaml")
	h.golden("test_plugin")
}

// TestOfAFlow: what a test says of a flow that is not there, or that it has no
// values for.
func TestOfAFlow(t *testing.T) {
	h := newHarness(t)
	h.copy("examples/upper/upper.wasm", "upper.wasm")
	h.write("flow.yaml", `flow: v1
name: orders
source: kafka://main/orders
vars: { region: eu }
stages:
  - id: shout
    map: acme/upper@^1
  - id: deliver
    push: { http: { connection: partner, post: "/${vars.region}/${env.PATH_PART}" } }
`)
	flow := "test: v1\nflow: ./flow.yaml\n"
	one := "cases:\n  - name: a\n    given: { text: a }\n    expect: delivered\n"
	h.write("a.test.yaml", flow+one)
	h.do("test", "a.test.yaml")
	h.write("conn/partner.yaml", "connection: v1\nname: partner\nhttp: { base: https://partner.example, auth: { bearer: { secret: partner/token } } }\n---\nconnection: v1\nname: main\nkafka: { brokers: [127.0.0.1:9] }\n")
	h.write("a.test.yaml", flow+"files: [conn/partner.yaml]\n"+one)
	h.do("test", "a.test.yaml")
	h.write("a.test.yaml", flow+"files: [conn/partner.yaml]\nplugins: { acme/upper: ./upper.wasm }\n"+one)
	h.do("test", "a.test.yaml")
	h.write("a.test.yaml", flow+"files: [conn/partner.yaml]\nplugins: { acme/upper: ./upper.wasm }\nenv: { PATH_PART: v2 }\n"+one)
	h.do("test", "a.test.yaml")
	h.write("a.test.yaml", flow+"files: [conn/partner.yaml]\nplugins: { acme/upper: ./upper.wasm }\nenv: { PATH_PART: v2 }\nvars: { region: us }\nsecrets: { partner/token: t-1 }\n"+
		one+"    answers: { delivr: [200] }\n")
	h.do("test", "a.test.yaml")
	h.write("a.test.yaml", flow+"files: [conn/partner.yaml]\nplugins: { acme/upper: ./upper.wasm }\nenv: { PATH_PART: v2 }\nvars: { region: us }\nsecrets: { partner/token: t-1 }\n"+
		one+"    answers: { deliver: [200] }\n    requests: { deliver: [{ path: /us/v2, text: A, headers: { Authorization: Bearer t-1 } }] }\n")
	h.do("test", "a.test.yaml")
	h.golden("test_flow")
}

func TestReportOfTests(t *testing.T) {
	h := newHarness(t)
	h.copy(faulty, "faulty.wasm")
	h.write("faulty.test.yaml", faultyTest)
	code, stdout, _ := h.call("", "test", "faulty.wasm", "-o", "json")
	var r plugtest.Report
	if err := json.Unmarshal([]byte(stdout), &r); code != 4 || err != nil || r.Failed != 2 || r.Suite == nil || r.Suite.Failed != 0 || r.Suite.Passed < 5 {
		t.Fatalf("exit %d, %v: %s", code, err, stdout)
	}
	want := plugtest.Finding{File: "faulty.test.yaml", Line: 9, Path: "expect[0]", Want: "drop", Got: "fail: rejected (9): not acceptable"}
	if c := r.Cases[0]; c.File != want.File || c.Line != 5 || c.Outcome != plugtest.Fail || len(c.Findings) != 2 || c.Findings[0] != want {
		t.Errorf("%+v", c)
	}
}

func TestBench(t *testing.T) {
	h := newHarness(t)
	h.copy("examples/orders/orders.wasm", "orders.wasm")
	h.copy("examples/orders/in.ndjson", "testdata/in.ndjson")
	h.copy(faulty, "faulty.wasm")
	h.write("fail.txt", "fail\n")
	read := func(args ...string) plugtest.BenchReport {
		t.Helper()
		code, stdout, stderr := h.call("", append(append([]string{"bench"}, args...), "--time", "100ms", "-o", "json")...)
		var r plugtest.BenchReport
		if err := json.Unmarshal([]byte(stdout), &r); code != 0 || err != nil {
			t.Fatalf("exit %d, %v: %s%s", code, err, stdout, stderr)
		}
		return r
	}
	r := read("orders.wasm")
	for _, s := range []plugtest.Speed{r.Large, r.Single} {
		if s.NanosPerRecord <= 0 || s.PassNanosPerRecord <= 0 || s.Ratio <= 1 || s.FuelPerRecord <= 0 || s.GuestNanos <= 0 || s.RestoreNanos <= 0 || s.Restores <= 0 || s.RecordsPerSecond <= 0 {
			t.Errorf("%+v", s)
		}
	}
	if r.Plugin != "orders@1.0.0" || r.Inputs != 20 || r.Large.Batch != plugtest.BenchBatch || r.Single.Batch != 1 || r.Single.RestoreNanos <= r.Large.RestoreNanos ||
		r.BytesIn < 200 || r.BytesOut >= r.BytesIn || r.Out < 0.89 || r.Out > 0.91 || r.Dropped < 0.09 || r.Dropped > 0.11 || r.Failed != 0 || r.MemoryPages < 1 || r.Verdict == "" {
		t.Errorf("%+v", r)
	}
	if r := read("faulty.wasm", "--in", "fail.txt", "--with", `{"behaviour":""}`); r.Failed != 1 || !strings.HasPrefix(r.Verdict, "failures: 100 %") || !strings.Contains(r.Failure, "not acceptable") {
		t.Errorf("%+v", r)
	}
	// For people, with what it was measured with.
	code, stdout, _ := h.call("", "bench", "orders.wasm", "--time", (60 * time.Millisecond).String())
	if code != 0 || !strings.Contains(stdout, "20 of testdata/in.ndjson") || !strings.Contains(stdout, "RATIO") || !strings.Contains(stdout, "Most time: ") {
		t.Errorf("exit %d: %s", code, stdout)
	}
	for _, args := range [][]string{{"bench", "orders.wasm", "--time", "1ms"}, {"bench", "flow.yaml"}, {"bench", "orders.wasm", "--in", "nowhere.txt"}} {
		if code, _, stderr := h.call("", args...); code != 2 || !strings.Contains(stderr, "next: ") {
			t.Errorf("%v: exit %d: %s", args, code, stderr)
		}
	}
}
