package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
)

const upperStream = `flow: v1
name: upper-stream
vars: { skip: "-" }
source: {stream: {}}
stages:
  - filter: raw != vars.skip
  - map: ./upper.wasm
  - push: {stream: {}}
`

func TestRun(t *testing.T) {
	h := newHarness(t)
	// No node is asked.
	h.server.Close()
	h.copy("examples/upper/upper.wasm", "upper.wasm")
	h.copy("examples/lines/lines.wasm", "lines.wasm")
	h.copy("examples/orders/orders.wasm", "orders.wasm")
	h.write("flow.yaml", upperStream)
	h.write("in.txt", "from a file\nsecond\n")
	h.doWith("hello\nworld\n", "run", "upper.wasm")
	h.doWith("hello\nworld", "run", "lines.wasm")
	h.doWith("hello\n-\nworld\n", "run", "flow.yaml")
	h.doWith("hello\n-\nworld\n", "run", "flow.yaml", "--var", "skip=hello", "-o", "json")
	h.doWith(`{"key":"k","value":"hello","topic":"t","partition":3,"offset":9,"timestamp":17,"headers":[{"key":"h","value":"v"}]}`+"\n", "run", "upper.wasm", "--envelope")
	h.do("run", "upper.wasm", "--in", "in.txt")
	h.doWith("", "run", "upper.wasm")
	h.doWith("not json\n", "run", "orders.wasm")
	h.doWith("not json\n", "run", "orders.wasm", "--failures", "failed.ndjson", "-o", "json")
	h.doWith("not an envelope\n", "run", "upper.wasm", "--envelope")

	h.note("what cannot be run")
	h.do("run", "upper.wasm", "--with", "x")
	h.do("run", "upper.wasm", "--with", " ")
	h.do("run", "upper.wasm", "--with", "[1]")
	h.write("with.json", "{\"a\":1}\n")
	h.do("run", "upper.wasm", "--with", "with.json")
	h.do("run", "upper.wasm", "--out", "nowhere/out.txt")
	h.write("fuel.yaml", "flow: v1\nname: fuel\nsource: {stream: {}}\nstages:\n  - map: ./upper.wasm\n    limits: { fuel: 1099511627776 }\n  - push: {stream: {}}\n")
	h.do("run", "fuel.yaml")
	h.do("run", "upper.wasm", "--var", "a=b")
	h.do("run", "flow.yaml", "--with", "{}")
	h.do("run", "flow.yaml", "--var", "skpi=x")
	h.do("run", "flow.yaml", "--in", "nowhere.txt")
	h.write("kafka.yaml", upperFlow)
	h.do("run", "kafka.yaml")
	h.write("main.yaml", "connection: v1\nname: main\nkafka: { brokers: [127.0.0.1:9] }\n")
	h.do("run", "kafka.yaml", "-f", "main.yaml", "--in", "in.txt")
	h.do("run", "main.yaml")
	h.do("run", "upper.wasm", "--in", "in.txt", "--out", "./in.txt")
	h.golden("run")
	if b, err := os.ReadFile(filepath.Join(h.dir, "in.txt")); err != nil || len(b) == 0 {
		t.Errorf("the input is gone: %v", err)
	}
}

// TestRunOfAPlugin: what it logs is told, and its flags do what those of a
// stage do.
func TestRunOfAPlugin(t *testing.T) {
	h := newHarness(t)
	h.copy(faulty, "faulty.wasm")
	h.copy("examples/lines/lines.wasm", "lines.wasm")
	h.copy("examples/upper/upper.wasm", "upper.wasm")
	h.write("flow.yaml", upperStream)
	h.note("what a guest logs")
	h.doWith("log\n", "run", "faulty.wasm", "--with", `{"behaviour":""}`)
	h.note("each record, or batch after batch")
	h.doWith("a\nsecret\nb\n", "run", "lines.wasm", "--lines", "each")
	h.doWith("a\nb\n", "run", "lines.wasm", "--lines", "batch")
	h.note("fuel: too little, more than nodes give")
	h.doWith("hog\n", "run", "faulty.wasm", "--fuel", "1000")
	h.doWith("hog\n", "run", "faulty.wasm", "--fuel", "20000000")
	h.note("what cannot be")
	h.do("run", "lines.wasm", "--lines", "all")
	h.do("run", "upper.wasm", "--lines", "each")
	h.do("run", "upper.wasm", "--fuel", "-1")
	h.do("run", "flow.yaml", "--fuel", "5")
	steady(h)
	h.golden("run_plugin")
}

func TestRunWritesFiles(t *testing.T) {
	h := newHarness(t)
	h.copy("examples/orders/orders.wasm", "orders.wasm")
	in, err := os.ReadFile(filepath.Join("..", "..", "examples", "orders", "in.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join("..", "..", "examples", "orders", "out.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	h.write("in.ndjson", string(in)+"poison\n")
	code, stdout, stderr := h.call("", "run", "orders.wasm", "--in", "in.ndjson", "--out", "out.ndjson", "--failures", "failed.ndjson")
	if code != 4 || stdout != "" || !strings.Contains(stderr, "1 failed") {
		t.Fatalf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	got, err := os.ReadFile(filepath.Join(h.dir, "out.ndjson"))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v; out.ndjson:\n%s\nwant:\n%s", err, got, want)
	}
	failed, err := os.ReadFile(filepath.Join(h.dir, "failed.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	var e record.Entry
	if err := json.Unmarshal(failed, &e); err != nil {
		t.Fatalf("%v: %s", err, failed)
	}
	if string(e.Input.Value) != "poison" || e.Class != record.Rejected || !strings.HasPrefix(e.Plugin, "orders@") || e.Replay == nil {
		t.Errorf("%+v", e)
	}
}

func TestRunIsInterrupted(t *testing.T) {
	h := newHarness(t)
	h.copy("examples/upper/upper.wasm", "upper.wasm")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stdin, feed := io.Pipe()
	defer feed.Close()
	stdout, out := io.Pipe()
	var stderr bytes.Buffer
	code := make(chan int, 1)
	go func() { code <- h.start(ctx, stdin, out, &stderr, "run", "upper.wasm") }()
	go func() { _, _ = io.WriteString(feed, "first\n") }()
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "FIRST\n" {
		t.Fatalf("%q, %v", line, err)
	}
	cancel()
	select {
	case c := <-code:
		if c != 130 || !strings.Contains(stderr.String(), "E_INTERRUPTED") || !strings.Contains(stderr.String(), "1 in, 1 emitted") {
			t.Errorf("exit %d, %s", c, stderr.String())
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the run did not end while STDIN is open")
	}
}

func TestBroker(t *testing.T) {
	h := newHarness(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stdout, out := io.Pipe()
	var stderr bytes.Buffer
	code := make(chan int, 1)
	go func() {
		code <- h.start(ctx, nil, out, &stderr, "broker", "--listen", "127.0.0.1:0", "--dir", filepath.Join(h.dir, "broker"), "-o", "name")
	}()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	address := strings.TrimSpace(line)
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if c, _, stderr := h.call("", "broker", "--listen", address); c != 3 || !strings.Contains(stderr, "next: ") {
		t.Errorf("a second broker at the same address: exit %d, %s", c, stderr)
	}
	cancel()
	if c := <-code; c != 0 {
		t.Errorf("exit %d, %s", c, stderr.String())
	}
	if _, err := net.DialTimeout("tcp", address, time.Second); err == nil {
		t.Error("it still listens")
	}
}

func TestNode(t *testing.T) {
	h := newHarness(t)
	if code, stdout, stderr := h.call("", "node", "version"); code != 0 || !strings.HasPrefix(stdout, "millrace flowd ") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	if code, _, stderr := h.call("", "node", "run", "--no-such-flag"); code != 2 || strings.Count(stderr, "E_") != 1 {
		t.Errorf("exit %d, stderr %q", code, stderr)
	}
	if _, stdout, _ := h.call("", "--help"); strings.Contains(stdout, "  node ") {
		t.Error("the command is not hidden")
	}
}
