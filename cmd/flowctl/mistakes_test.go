package main

import (
	"strings"
	"testing"
)

// TestMistakes holds what the command line says to the mistakes that people
// make: each message names the place, the cause and the next step.
func TestMistakes(t *testing.T) {
	h := newHarness(t)
	h.copy("examples/upper/upper.wasm", "upper.wasm")
	h.write("notes.wasm", "this is a text\n")
	h.write("abi9.wasm", "\x00asm\x01\x00\x00\x00"+
		"\x01\x04\x01\x60\x00\x00"+ // type: () -> ()
		"\x03\x02\x01\x00"+ // one function
		"\x07\x0f\x01\x0bstage_abi_9\x00\x00"+ // its export
		"\x0a\x04\x01\x02\x00\x0b") // its body
	h.write("flow.yaml", strings.Replace(upperFlow, "map:", "mapp:", 1))

	for _, m := range []struct {
		what string
		args []string
	}{
		{"a flow that does not exist", []string{"flow", "get", "ordesr"}},
		{"the name of a flow with two slashes", []string{"flow", "get", "a/b/c"}},
		{"no node listens", []string{"flow", "list", "--server", "127.0.0.1:1"}},
		{"an address that is none", []string{"flow", "list", "--server", "127.0.0.1:7070/v1"}},
		{"an address without a port", []string{"flow", "list", "--server", "127.0.0.1"}},
		{"an address with a port that is none", []string{"flow", "list", "--server", "127.0.0.1:77777"}},
		{"an address with TLS", []string{"flow", "list", "--server", "https://127.0.0.1:7070"}},
		{"a plugin's file that does not exist", []string{"deploy", "uper.wasm"}},
		{"a file that is no Wasm", []string{"deploy", "notes.wasm"}},
		{"a plugin for another ABI", []string{"deploy", "abi9.wasm"}},
		{"a source without a topic", []string{"deploy", "upper.wasm", "--source", "kafka://127.0.0.1:9092", "--sink", "kafka://127.0.0.1:9092/out"}},
		{"a source without a port", []string{"deploy", "upper.wasm", "--source", "kafka://127.0.0.1:/in", "--sink", "kafka://127.0.0.1:9092/out"}},
		{"a source of another kind", []string{"deploy", "upper.wasm", "--source", "kafak://127.0.0.1:9092/in", "--sink", "kafka://127.0.0.1:9092/out"}},
		{"a source without a sink", []string{"deploy", "upper.wasm", "--source", "kafka://127.0.0.1:9092/in"}},
		{"a missing argument", []string{"flow", "get"}},
		{"a missing flag", []string{"apply", "flow.yaml"}},
		{"an unknown flag", []string{"flow", "list", "--projct", "acme"}},
		{"an unknown command", []string{"flwo", "list"}},
		{"an unknown verb", []string{"queue", "pek", "orders"}},
		{"an unknown format", []string{"flow", "list", "-o", "xml"}},
		{"a connection that is refused", []string{"connection", "test", "kafka://127.0.0.1:9"}},
		{"a connection that does not exist", []string{"connection", "test", "mian"}},
		{"a flow whose queue holds entries", []string{"flow", "delete", "orders"}},
		{"a flow file with a wrong verb", []string{"apply", "-f", "flow.yaml"}},
		{"a flow file that does not exist", []string{"lint", "flows.yaml"}},
		{"the same with -o json", []string{"lint", "flows.yaml", "-o", "json"}},
	} {
		h.note("%s", m.what)
		code, stdout, stderr := h.call("", m.args...)
		if code == 0 || code == 1 && !strings.Contains(stderr, "E_") {
			t.Errorf("%s: exit %d, %s", m.what, code, stderr)
		}
		if stdout != "" {
			t.Errorf("%s: errors belong to STDERR: %s", m.what, stdout)
		}
		if !strings.Contains(stderr, "next: ") && !strings.Contains(stderr, `"next":"`) {
			t.Errorf("%s: no next step: %s", m.what, stderr)
		}
		h.do(m.args...)
	}
	h.golden("mistakes")
}
