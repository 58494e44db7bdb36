package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/cmd/internal/api"
)

// shipped copies a plugin that ships with the Extism SDK into the working
// folder.
func (h *harness) shipped(names ...string) {
	h.t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/extism/go-sdk").Output()
	if err != nil {
		h.t.Fatalf("find the SDK's module: %v", err)
	}
	for _, name := range names {
		b, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "wasm", name+".wasm"))
		if err != nil {
			h.t.Fatal(err)
		}
		h.write(name+".wasm", string(b))
	}
}

func TestRunExtism(t *testing.T) {
	h := newHarness(t)
	h.server.Close() // no node is asked
	h.shipped("count_vowels", "replace", "host", "host_multiple", "http_headers", "fail")
	h.copy("examples/upper/upper.wasm", "upper.wasm")
	h.doWith("hello world\nbbb\n", "run", "count_vowels.wasm", "--function", "count_vowels")
	h.doWith("xylo\n", "run", "count_vowels.wasm", "--function", "count_vowels", "--with", `{"vowels":"xyz"}`)
	h.doWith(`{"key":"k","value":"a test","headers":[{"key":"h","value":"v"}],"timestamp":17}`+"\n", "run", "replace.wasm", "--function", "run_test", "--envelope")
	h.doWith("x\n", "run", "fail.wasm", "--function", "run_test")
	h.doWith(`{"url":"http://127.0.0.1:1/"}`+"\n", "run", "http_headers.wasm", "--function", "http_get")
	h.write("flow.yaml", "flow: v1\nname: vowels\nsource: {stream: {}}\nstages:\n  - map: ./count_vowels.wasm\n    function: count_vowels\n    with: { vowels: l }\n  - push: {stream: {}}\n")
	h.doWith("hello\n", "run", "flow.yaml")

	h.note("what cannot be run")
	h.do("run", "count_vowels.wasm")
	h.do("run", "count_vowels.wasm", "--function", "count_vowel")
	h.do("run", "count_vowels.wasm", "--function", "count_vowels", "--host", "Example.com")
	h.do("run", "host.wasm", "--function", "run_test")
	h.do("run", "host_multiple.wasm", "--function", "say_green")
	h.do("deploy", "count_vowels.wasm", "--source", "kafka://127.0.0.1:9092/in", "--sink", "kafka://127.0.0.1:9092/out")
	h.do("deploy", "count_vowels.wasm", "--function", "count_vowel", "--source", "kafka://127.0.0.1:9092/in", "--sink", "kafka://127.0.0.1:9092/out")
	h.do("run", "upper.wasm", "--function", "run")
	h.do("run", "upper.wasm", "--host", "example.com")
	h.do("run", "flow.yaml", "--function", "count_vowels")
	h.write("flow.yaml", "flow: v1\nname: vowels\nsource: {stream: {}}\nstages:\n  - map: ./count_vowels.wasm\n  - push: {stream: {}}\n")
	h.do("run", "flow.yaml")
	h.do("lint", "flow.yaml")
	h.golden("run_extism")
}

// Every listing says which stages can be neither replayed nor compared.
func TestStagesThatAreNotPure(t *testing.T) {
	h := newHarness(t)
	f := h.node.flows["default/orders"]
	f.Stages = append([]api.Stage{
		{ID: "lookup", Describe: "map lookup@^1 find (impure)", Plugin: "lookup@1.0.0", Otherwise: "queue", Impure: true},
		{ID: "count", Describe: "map count@^1 (stateful)", Plugin: "count@1.0.0", Otherwise: "queue", Stateful: true},
	}, f.Stages...)
	h.do("flow", "list")
	h.do("flow", "get", "orders")
	f.Stages[1].Impure = true
	h.do("flow", "get", "orders", "-o", "json")
	h.golden("flow_purity")
}

func TestDeployExtism(t *testing.T) {
	h := newHarness(t)
	h.shipped("replace")
	deploy := []string{"deploy", "replace.wasm", "--source", "kafka://127.0.0.1:9092/in", "--sink", "kafka://127.0.0.1:9092/out", "--function", "run_test"}
	if code, _, stderr := h.call("", deploy...); code != 0 {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	if doc := h.node.flows["default/replace"].Document; !strings.Contains(doc, "- map: ./replace.wasm\n    function: \"run_test\"\n") {
		t.Errorf("got document\n%s", doc)
	}
	if code, _, stderr := h.call("", "deploy", "replace.wasm", "--function", "run_test"); code != 2 || !strings.Contains(stderr, "--function is for the one-stage flow") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}
