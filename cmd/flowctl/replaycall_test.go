package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/runtime/record"
)

// TestReplayOfACall: a delivery that failed in the plugin that judges answers
// is run again with the answer, by the plugin of the failure, by a new file and
// by what the delivery has now.
func TestReplayOfACall(t *testing.T) {
	h := newHarness(t)
	h.copy("plugins/plugintest/guests/check/check.wasm", "check.wasm")
	h.copy("plugins/plugintest/guests/pass/pass.wasm", "pass.wasm")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Set-Cookie", "session=abc")
		fmt.Fprint(w, `{"code":7,"message":"no such order"}`)
	}))
	defer srv.Close()
	h.write("orders.flow.yaml", "flow: v1\nname: orders\nsource: { stream: {} }\nstages:\n  - id: deliver\n    push: "+srv.URL+"/orders\n    validate: ./check.wasm\n")
	entries := failuresOf(h, "{\"id\":1}\n", "run", "orders.flow.yaml")
	if len(entries) != 1 || entries[0].Call == nil || entries[0].Call.Setting == nil {
		t.Fatalf("entries %+v", entries)
	}
	e := entries[0]
	code, stdout, stderr := h.call("", "replay", "failed.ndjson")
	if code != 0 {
		t.Fatalf("exit %d: %s%s", code, stdout, stderr)
	}
	for _, want := range []string{"Stage:             deliver.validate of orders", "Plugin:            check@1.0.0", "fail: rejected (7): no such order", "Same as recorded:  yes", "asterisks stand for the values of Set-Cookie", "Record:            -/0/"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
	// A new plugin takes the answer.
	code, stdout, stderr = h.call("", "replay", "failed.ndjson", "--plugin", "pass.wasm")
	if code != 0 || !strings.Contains(stdout, "Same as recorded:  yes") || !strings.Contains(stdout, "emit: 1 record") || !strings.Contains(stdout, "outcome") {
		t.Errorf("exit %d: %s%s", code, stdout, stderr)
	}
	// Something else than was recorded shows.
	tampered := *e
	call := *e.Call
	tampered.Call = &call
	call.Message += "?"
	line, err := json.Marshal(&tampered)
	if err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := h.call(string(line), "replay", "-"); code != 4 || !strings.Contains(stdout, "no: message") {
		t.Errorf("exit %d: %s%s", code, stdout, stderr)
	}
	// An entry of a delivery without such a call is none.
	plain := *e
	plain.Call = nil
	if line, err = json.Marshal(&plain); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := h.call(string(line), "replay", "-"); code != 1 || !strings.Contains(stderr, "deliver is no stage with a plugin") {
		t.Errorf("exit %d: %s", code, stderr)
	}

	// At a node: current, failed, and a file.
	for _, file := range []string{"check.wasm", "pass.wasm"} {
		if code, _, stderr := h.call("", "deploy", file, "--store-only"); code != 0 {
			t.Fatal(stderr)
		}
	}
	e.Seq, e.Flow, e.Revision, e.Call.Setting.File = 17, "default/orders", 3, ""
	h.node.failures["default/orders"] = []*record.Entry{e}
	stages := h.node.flows["default/orders"].Stages
	delivery := &stages[len(stages)-1]
	delivery.Plugins = []api.DeliveryPlugin{{ID: "deliver.validate", Plugin: "check@1.0.0", Digest: e.Call.Digest, Setting: e.Call.Setting}}
	for _, args := range [][]string{nil, {"--plugin", "failed"}} {
		code, stdout, _ := h.call("", append([]string{"queue", "replay", "orders/17", "--dry-run"}, args...)...)
		if code != 4 || !strings.Contains(stdout, "Same as recorded:  yes") || strings.Contains(stdout, "Other plugin") {
			t.Errorf("%v: exit %d: %s", args, code, stdout)
		}
	}
	if code, stdout, stderr := h.call("", "queue", "replay", "orders/17", "--dry-run", "--plugin", "pass.wasm"); code != 0 || !strings.Contains(stdout, "Other plugin:") || !strings.Contains(stdout, "emit: 1 record") {
		t.Errorf("exit %d: %s%s", code, stdout, stderr)
	}
	for _, p := range h.node.plugins {
		if p.Name == "pass" {
			delivery.Plugins[0].Plugin, delivery.Plugins[0].Digest = p.Ref(), p.Digest
		}
	}
	if code, stdout, stderr := h.call("", "queue", "replay", "orders/17", "--dry-run"); code != 0 || !strings.Contains(stdout, "Other plugin:") || !strings.Contains(stdout, "emit: 1 record") {
		t.Errorf("exit %d: %s%s", code, stdout, stderr)
	}
	delivery.Plugins = nil
	if code, stdout, stderr := h.call("", "queue", "replay", "orders/17", "--dry-run"); code != 0 || !strings.Contains(stdout, "no plugin as deliver.validate any more") {
		t.Errorf("exit %d: %s%s", code, stdout, stderr)
	}
	if _, stdout, _ := h.call("", "queue", "peek", "orders"); !strings.Contains(stdout, "check@1.0.0") {
		t.Errorf("peek: %s", stdout)
	}
}
