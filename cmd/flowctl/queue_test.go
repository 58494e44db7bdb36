package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/runtime/record"
)

// asked notes what the node was asked since the last time.
func (h *harness) asked() {
	h.t.Helper()
	for _, c := range h.node.calls {
		h.note("asked: %s", c)
	}
	h.node.calls = nil
}

func TestQueue(t *testing.T) {
	h := newHarness(t)
	h.node.flows["acme/refunds"].Queue.Warnings = []string{"400 entries are older than 29d; they go after 30d"}
	h.node.flows["default/orders"].Queue.KeepMillis, h.node.flows["default/orders"].Queue.Oldest = 30*24*3600*1000, ago(5*time.Minute)
	h.do("queue", "list")
	h.do("queue", "list", "orders", "-o", "json")
	h.do("queue", "list", "orders", "-o", "name")
	h.do("queue", "list", "orders", "-o", "wide")
	h.node.calls = nil
	h.do("queue", "list", "--class", "trap", "--since", "2h")
	h.asked()
	h.do("queue", "peek", "orders")
	h.do("queue", "peek", "orders", "-o", "wide", "-n", "2")
	h.do("queue", "peek", "orders", "-o", "ndjson", "--class", "rejected")
	h.node.calls = nil
	h.do("queue", "peek", "orders", "--stage", "deliver", "--key", "c-19", "--since", "2026-11-21", "--until", "2026-11-21T12:00:00Z", "--where", "MiB")
	h.asked()
	h.do("queue", "peek", "orders", "--key", "")
	h.do("queue", "peek", "orders", "--class", "poison")
	h.do("queue", "peek", "orders", "--since", "yesterday")
	h.do("queue", "peek", "orders", "--since", "1h", "--until", "2h")
	h.do("queue", "peek", "order")
	h.golden("queue")
}

func TestQueueOfWhatIsKept(t *testing.T) {
	h := newHarness(t)
	h.node.flows["default/orders"].Retries = &api.Retries{Entries: 3, Bytes: 4096, Held: 1, NextDue: now.Add(90 * time.Second).UnixMilli()}
	kept := func(offset string, r api.Retry) *api.Retry {
		r.ID, r.Stage, r.At, r.Record = "orders/0/"+offset, "deliver", ago(time.Minute), json.RawMessage(`{"key":"c-1","value":"x"}`)
		return &r
	}
	h.node.retries = map[string][]*api.Retry{"default/orders": {
		kept("7", api.Retry{Class: "retryable", Code: 503, Message: "503 Service Unavailable: try\x1b[2J later, for this partner is down until somebody mends it", Attempts: 4, First: ago(5 * time.Minute), Due: now.Add(90 * time.Second).UnixMilli()}),
		kept("9", api.Retry{Held: true}),
		kept("12", api.Retry{Class: "timeout", Message: "no answer within 10s", Attempts: 1, First: ago(time.Minute), Due: ago(time.Second), Batch: "b-1", Requeues: 1, Plugin: "sha256:" + strings.Repeat("c", 64)}),
	}}
	h.do("queue", "list", "--kept")
	h.do("queue", "list", "orders", "--kept")
	h.do("queue", "list", "--kept", "--class", "trap")
	h.do("queue", "peek", "orders", "--kept")
	h.do("queue", "peek", "orders", "--kept", "-o", "wide", "-n", "2")
	h.do("queue", "peek", "orders", "--kept", "-o", "name")
	h.do("queue", "peek", "orders", "--kept", "-n", "1", "-o", "json")
	h.do("queue", "peek", "orders", "--kept", "--stage", "other")
	h.do("queue", "peek", "orders", "--kept", "--class", "timeout")
	h.do("queue", "peek", "order", "--kept")
	h.golden("queue_kept")
}

func TestQueueChanges(t *testing.T) {
	h := newHarness(t)
	h.note("which entries?")
	h.do("queue", "drop", "orders")
	h.do("queue", "drop", "orders/1", "--class", "trap")
	h.do("queue", "drop", "orders", "--all", "--class", "trap")
	h.do("queue", "replay", "orders", "--limit", "-1", "--all")
	h.do("queue", "drop")
	h.node.calls = nil

	h.note("export, and import of what is there already")
	h.do("queue", "export", "orders", "--class", "rejected")
	h.do("queue", "export", "orders", "--out", "failed.ndjson")
	h.do("queue", "export", "orders", "-o", "yaml")
	h.do("queue", "export", "order")
	h.do("queue", "import", "orders", "failed.ndjson")
	h.do("queue", "import", "acme/refunds", "failed.ndjson", "-o", "json")
	h.do("queue", "import", "orders", "missing.ndjson")
	h.doWith("{\n", "queue", "import", "orders", "-")
	h.do("queue", "import", "order", "failed.ndjson")
	h.node.calls = nil

	h.note("nobody there to ask")
	h.do("queue", "drop", "orders/1", "orders/3")
	h.asked()
	h.do("queue", "drop", "orders/1", "orders/3", "--dry-run")
	h.do("queue", "drop", "orders", "--class", "fuel", "--yes")
	h.note("somebody")
	h.sits = true
	h.doWith("n\n", "queue", "drop", "orders/1", "acme/refunds/1")
	h.doWith("", "queue", "drop", "orders/1")
	h.node.calls = nil
	h.doWith("y\n", "queue", "drop", "orders/1", "orders/99", "acme/refunds/1")
	h.asked()
	h.do("queue", "drop", "orders", "--where", "broker", "--yes", "-o", "json")
	h.asked()
	h.do("queue", "drop", "orders/99", "--yes")

	h.note("back to where they failed")
	h.node.failures["acme/refunds"][0].InputOmitted = true
	h.node.calls = nil
	h.do("queue", "replay", "orders/2")
	h.do("queue", "replay", "orders", "--all", "-o", "json")
	h.do("queue", "replay", "acme/refunds", "--limit", "1", "--class", "trap", "--plugin", "failed")
	h.asked()
	h.do("queue", "replay", "acme/refunds", "--all", "--plugin", "missing.wasm")
	h.do("queue", "replay", "order", "--all")
	h.golden("queue_change")
}

// TestQueueReplayTried: a dry run runs records through what their stage would
// run, and nothing goes back.
func TestQueueReplayTried(t *testing.T) {
	h := newHarness(t)
	h.copy(faulty, "faulty.wasm")
	h.copy("examples/upper/upper.wasm", "upper.wasm")
	for _, file := range []string{"faulty.wasm", "upper.wasm"} {
		if code, _, stderr := h.call("", "deploy", file, "--store-only"); code != 0 {
			t.Fatal(stderr)
		}
	}
	entries := failuresOf(h, "good\ntrap\nfail\n", "run", "faulty.wasm")
	stages := h.node.flows["default/orders"].Stages
	stages[0].ID, stages[0].Plugin, stages[0].Digest, stages[0].Setting = "plugin", "faulty@0.0.0", entries[0].Digest, &record.Setting{}
	for i, e := range entries {
		e.Seq, e.Flow, e.Revision, e.Setting.File = uint64(i+17), "default/orders", 3, ""
	}
	gone := *entries[0]
	gone.Seq, gone.Stage = 19, "lost"
	h.node.failures["default/orders"] = append(h.node.failures["default/orders"][2:], append(entries, &gone)...)
	before := len(h.node.failures["default/orders"])
	h.note("through the plugin that it failed in, which the stage still has")
	h.do("queue", "replay", "orders/17", "--dry-run")
	h.do("queue", "replay", "orders", "--all", "--dry-run", "--plugin", "failed")
	h.note("through another one")
	h.do("queue", "replay", "orders/17", "orders/18", "--dry-run", "--plugin", "upper.wasm")
	h.note("the same with another configuration")
	stages[0].Setting = &record.Setting{With: record.Text(`{"behaviour":"drop"}`)}
	h.do("queue", "replay", "orders/17", "--dry-run")
	h.note("the stage has got another one")
	for _, p := range h.node.plugins {
		if p.Name == "upper" {
			stages[0].Plugin, stages[0].Digest, stages[0].Setting = p.Ref(), p.Digest, &record.Setting{}
		}
	}
	h.do("queue", "replay", "orders", "--all", "--dry-run")
	h.do("queue", "replay", "orders/17", "--dry-run", "-o", "json")
	h.do("queue", "replay", "orders/99", "--dry-run")
	h.do("queue", "replay", "orders", "--all", "--dry-run", "--plugin", "missing.wasm")
	if got := len(h.node.failures["default/orders"]); got != before {
		t.Errorf("a dry run left %d of %d entries", got, before)
	}
	h.note("and in earnest, with a file for these alone")
	h.node.calls = nil
	h.do("queue", "replay", "orders/17", "--plugin", "upper.wasm")
	for i, c := range h.node.calls {
		h.node.calls[i] = strings.ReplaceAll(c, stages[0].Digest, "$UPPER")
	}
	h.asked()
	steady(h)
	h.golden("queue_tried")
}

func TestQueueExportIsWhatReplayReads(t *testing.T) {
	h := newHarness(t)
	if code, _, stderr := h.call("", "queue", "export", "orders", "--out", "all.ndjson"); code != 0 || stderr != "3 of 3 entries of orders\n" {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	entries, err := (&app{dir: h.dir}).readEntries("all.ndjson")
	if err != nil || len(entries) != 3 || string(entries[1].Input.Value) != "{\"id\":\x00\xff" {
		t.Errorf("%v, %+v", err, entries)
	}
	b, err := os.ReadFile(filepath.Join(h.dir, "all.ndjson"))
	if err != nil || strings.Count(string(b), "\n") != 3 {
		t.Errorf("%v: %s", err, b)
	}
}

func TestMoments(t *testing.T) {
	for in, want := range map[string]string{
		"2026-11-21T08:30:00Z": "2026-11-21T08:30:00Z", "2026-11-21T08:30:00.25+01:00": "2026-11-21T07:30:00.25Z", "2026-11-21 08:30": "2026-11-21T08:30:00Z",
		"2026-11-20": "2026-11-20T00:00:00Z", "90s": "2026-11-21T11:58:30Z", "2h30m": "2026-11-21T09:30:00Z", "3d": "2026-11-18T12:00:00Z",
		"": "", "-2h": "", "yesterday": "", "2026-13-01": "", "99999999999d": "", "12": "",
	} {
		got, ok := parseMoment(in, now)
		if ok != (want != "") || ok && got.UTC().Format(time.RFC3339Nano) != want {
			t.Errorf("%q: got %v, %v", in, got, ok)
		}
	}
	for in, want := range map[time.Duration]string{-time.Second: "now", 0: "now", 59 * time.Second: "in 59s", 90 * time.Minute: "in 1h30m", 50 * time.Hour: "in 2d"} {
		if got := inFuture(now, now.Add(in).UnixMilli()); got != want {
			t.Errorf("%v: got %q", in, got)
		}
	}
}
