package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/flowd"
)

func TestFlow(t *testing.T) {
	h := newHarness(t)
	for _, format := range []string{"table", "wide", "json", "yaml", "ndjson", "name"} {
		h.do("flow", "list", "-o", format)
	}
	h.do("flow", "list", "--project", "acme")
	h.do("flow", "get", "orders")
	h.do("flow", "get", "default/orders", "-o", "wide")
	h.do("flow", "get", "acme/refunds", "-o", "json")
	h.do("flow", "pause", "orders", "acme/refunds")
	h.do("flow", "start", "orders", "-o", "name")
	h.do("flow", "pause", "nope", "orders", "acme/refunds")
	h.do("flow", "start", "nope", "acme/refunds", "-o", "name")
	h.do("flow", "delete", "orders", "nope", "acme/refunds", "--dry-run")
	h.do("flow", "delete", "orders", "--dry-run")
	h.do("flow", "delete", "orders", "--purge", "--dry-run")
	h.do("flow", "delete", "orders")
	h.do("flow", "delete", "orders", "--purge")
	h.do("flow", "delete", "acme/refunds", "-o", "json")
	h.do("flow", "list")
	h.do("flow", "list", "-o", "json")
	h.golden("flow")
}

func TestFlowFigures(t *testing.T) {
	for nanos, want := range map[float64]string{1_500: "1.5 µs", 999_900: "999.9 µs", 1_000_000: "1000.0 µs", 2_340_000: "2.3 ms"} {
		if got := perRecord(nanos); got != want {
			t.Errorf("%v ns: got %q, want %q", nanos, got, want)
		}
	}
	for inFlight, want := range []string{"records of other partitions wait", "1 record waits", "2 records wait"} {
		if got := pausedNote(inFlight); !strings.Contains(got, want) {
			t.Errorf("%d in flight: got %q", inFlight, got)
		}
	}
}

func TestNodeAddress(t *testing.T) {
	for _, c := range []struct{ in, host, next string }{
		{"127.0.0.1:7070", "127.0.0.1:7070", ""},
		{"http://node:80/", "node:80", ""},
		{"[::1]:7070", "[::1]:7070", ""},
		{"node", "", "add the port: node:7070"},
		{"http://node", "", "add the port: node:7070"},
		{"node:", "", "add the port: node:7070"},
		{"[::1]", "", "add the port: [::1]:7070"},
		{"node:0", "", "a port is a number from 1 to 65535"},
		{"node:65536", "", "a port is a number from 1 to 65535"},
		{"https://node", "", "a node has no TLS yet: write http://node:7070"},
		{"https://node:7070", "", "a node has no TLS yet: write http://node:7070"},
		{"ftp://node:21", "", "give host:port or http://host:port"},
		{"http://user:pw@node:7070", "", "give host:port or http://host:port"},
		{"node:7070/v1", "", "give host:port or http://host:port"},
		{"node:x", "", "give host:port or http://host:port"},
		{"", "", "give host:port or http://host:port"},
	} {
		if host, next := nodeAddress(c.in); host != c.host || next != c.next {
			t.Errorf("%q: got %q, %q", c.in, host, next)
		}
	}
}

// TestFlowThatDelivers shows what a flow with partners says of itself.
func TestFlowThatDelivers(t *testing.T) {
	h := newHarness(t)
	f := h.node.flows["acme/refunds"]
	f.Reason = "connection partner: 5 requests in a row failed, the last one with: 503 Service Unavailable; one request every 5s tries it"
	f.Held = &api.Held{Reason: f.Reason, Since: ago(3 * time.Minute)}
	f.Problem = f.Reason
	f.AutoPauses = map[string]int64{"breaker": 2, "queue": 1}
	f.Stages = []api.Stage{
		{ID: "by-country", Describe: "branch"},
		{ID: "german", Branch: "by-country: value.country == \"DE\"", Describe: "map tax", Otherwise: "queue"},
		{ID: "deliver", Describe: "push post partner:/v2", Otherwise: "queue"},
	}
	f.Deliveries = []api.Delivery{{ID: "deliver", Describe: "push post partner:/v2", Connection: "partner", Problem: f.Reason}, {ID: "log", Describe: "push kafka://main/log", Connection: "main"}}
	f.Rate = &api.Rate{Allowed: 800, Used: 12.5}
	f.Queue = api.Queue{Entries: 2, Bytes: 1024, MaxEntries: 1000, MaxBytes: 1 << 20, KeepMillis: 36 * 3600 * 1000, Warnings: []string{"the queue is 95 % full"}}
	f.Retries = &api.Retries{Entries: 7, Bytes: 9000, Held: 3, NextDue: now.Add(20 * time.Second).UnixMilli()}
	f.Connections = []api.ConnectionUsage{
		{Name: "partner", InFlight: 1, Waiting: 40, Concurrent: 8, Allowed: 20, Used: 0.5, Breaker: api.Breaker{State: api.BreakerOpen, Since: ago(3 * time.Minute), Reason: "5 requests in a row failed: 503"}},
		{Name: "https://audit.example", InFlight: 0, Used: 3, Breaker: api.Breaker{State: api.BreakerClosed}},
	}
	part := api.PartitionReceipt{Topic: "refunds", Account: api.Account{Read: 100, Split: 20, Delivered: 90, Dropped: map[string]int64{"by-country": 10, "expired": 1}, Known: 4, Filed: 2, Kept: 7, Flying: 6}}
	f.Receipt = &api.Receipt{Account: part.Account, Partitions: []api.PartitionReceipt{part}}
	h.node.flows["default/orders"].Receipt = &api.Receipt{Account: api.Account{Read: 5, Delivered: 4, Unaccounted: 1}}
	h.do("flow", "list")
	h.do("flow", "list", "-o", "wide")
	h.do("flow", "get", "acme/refunds")
	h.do("flow", "get", "acme/refunds", "-o", "wide")
	h.do("flow", "get", "acme/refunds", "-o", "yaml")
	h.note("a fault of ours")
	h.do("flow", "get", "orders")
	h.do("flow", "delete", "acme/refunds", "--dry-run")
	h.do("flow", "delete", "acme/refunds", "--purge", "--dry-run", "-o", "json")
	h.golden("flow_delivery")
}

func TestPlugin(t *testing.T) {
	h := newHarness(t)
	h.copy("examples/upper/upper.wasm", "upper.wasm")
	h.do("plugin", "list")
	h.do("plugin", "list", "-o", "name")
	h.do("plugin", "get", "order-mask")
	h.do("plugin", "get", "order-mask@1.2.0", "-o", "json")
	h.do("plugin", "get", "order-mas")
	h.golden("plugin")
}

// TestInspectAgrees holds the report of a file against that of the stored
// plugin, which comes over HTTP.
func TestInspectAgrees(t *testing.T) {
	h := newHarness(t)
	h.copy("examples/upper/upper.wasm", "upper.wasm")
	if code, _, stderr := h.call("", "deploy", "upper.wasm", "--store-only"); code != 0 {
		t.Fatal(stderr)
	}
	for _, format := range []string{"table", "wide", "json", "yaml", "name"} {
		code, file, stderr := h.call("", "plugin", "inspect", "upper.wasm", "-o", format)
		if code != 0 {
			t.Fatal(stderr)
		}
		code, stored, stderr := h.call("", "plugin", "inspect", "upper", "-o", format)
		if code != 0 {
			t.Fatal(stderr)
		}
		if file != stored {
			t.Errorf("-o %s: of the file:\n%s\nof the stored plugin:\n%s", format, file, stored)
		}
		if !strings.Contains(file, "upper@") {
			t.Errorf("-o %s does not name the plugin:\n%s", format, file)
		}
	}
}

func TestConnection(t *testing.T) {
	h := newHarness(t)
	h.do("connection", "list")
	h.do("connection", "list", "-o", "wide")
	h.do("connection", "test", "main")
	h.do("connection", "test", "main", "-o", "json")
	h.do("connection", "test", "kafka://127.0.0.1:9")
	h.do("connection", "test", "partner", "-o", "json")
	h.do("connection", "test", "nowhere")
	h.golden("connection")
}

const upperFlow = `flow: v1
name: upper
source: kafka://main/orders
stages:
  - map: ./upper.wasm
  - push: kafka://main/orders-upper
`

func TestApply(t *testing.T) {
	h := newHarness(t)
	h.copy("examples/upper/upper.wasm", "flows/upper.wasm")
	h.write("flows/upper.yaml", upperFlow)
	h.write("flows/b.yml", "# several in one file\nflow: v1\nname: copy\nproject: acme\nvars: { currency: CNY }\nsource: kafka://second/in\nstages:\n"+
		"  - filter: value.currency == vars.currency\n  - push: kafka://second/${env.TOPIC}\n---\nconnection: v1\nname: second\nkafka: { brokers: [127.0.0.1:9092] }\n")
	h.write("flows/upper.test.yaml", "tests: are not read\n")
	h.write("flows/README.md", "neither is this\n")
	h.do("apply", "-f", "flows", "--dry-run")
	h.env["TOPIC"] = "out"
	h.do("apply", "-f", "flows", "--dry-run")
	if len(h.node.puts) > 0 {
		t.Error("a dry run changed something")
	}
	h.node.calls = nil
	h.do("apply", "-f", "flows", "--var", "currency=EUR")
	h.note("the node was asked: %s", strings.Join(h.node.calls, "; "))
	for _, p := range h.node.puts {
		h.note("%s: vars %v, env %v, files %d", p.File, p.Vars, p.Env, len(p.Files))
	}
	h.do("apply", "-f", "flows", "-o", "json", "--var", "currency=EUR")
	h.write("flows/upper.yaml", strings.Replace(upperFlow, "orders-upper", "upper-case", 1))
	h.do("apply", "-f", "flows/upper.yaml")
	h.doWith(upperFlow, "apply", "-f", "-")
	h.copy("examples/upper/upper.wasm", "upper.wasm")
	h.doWith(upperFlow, "apply", "-f", "-")
	h.do("apply", "-f", "flows", "--var", "curency=EUR")
	h.do("apply", "-f", "flows/upper.yaml", "-f", "flows")
	h.write("twice.yaml", upperFlow+"---\n"+upperFlow)
	h.do("apply", "-f", "twice.yaml")
	h.write("unknown.yaml", "connection: v1\nname: other\nkafka: { brokers: [127.0.0.1:9092] }\n---\n"+strings.ReplaceAll(upperFlow, "main", "man"))
	h.do("apply", "-f", "unknown.yaml")
	if h.node.connections["other"] != nil {
		t.Error("a connection was made although a flow beside it was refused")
	}
	h.golden("apply")
}

func TestLint(t *testing.T) {
	h := newHarness(t)
	h.copy("examples/upper/upper.wasm", "upper.wasm")
	h.write("upper.yaml", upperFlow)
	h.write("main.yaml", "connection: v1\nname: main\nkafka: { brokers: [127.0.0.1:9092] }\n")
	h.write("bad.yaml", strings.NewReplacer("map:", "mpa:", "kafka://main/orders\n", "kafka://main\n").Replace(upperFlow))
	h.write("registry.yaml", strings.ReplaceAll(upperFlow, "./upper.wasm", "acme/upper@^1"))
	h.do("lint", "upper.yaml", "main.yaml")
	h.do("lint", "upper.yaml")
	h.do("lint", "registry.yaml", "main.yaml", "-o", "json")
	h.do("lint", "bad.yaml", "main.yaml")
	h.do("lint", "bad.yaml", "-o", "name")
	h.write("with.yaml", strings.Replace(upperFlow, "./upper.wasm\n", "./upper.wasm\n    with: { currency: CNY }\n", 1))
	h.do("lint", "with.yaml", "main.yaml")
	h.write("secret.yaml", "connection: v1\nname: partner\nhttp: { base: https://partner.example, headers: { Authorization: Bearer hunter2 } }\n")
	h.do("lint", "secret.yaml")
	h.do("apply", "-f", "secret.yaml", "--dry-run")
	h.write("broken.yaml", upperFlow)
	h.write("upper.wasm", "\x00asm\x01\x00\x00\x00")
	h.do("lint", "broken.yaml", "main.yaml")
	h.golden("lint")
}

func TestDeploy(t *testing.T) {
	h := newHarness(t)
	h.copy("examples/upper/upper.wasm", "upper.wasm")
	h.do("deploy", "upper.wasm", "--dry-run")
	h.do("deploy", "upper.wasm")
	h.do("deploy", "upper.wasm", "--store-only", "-o", "json")
	h.do("deploy", "upper.wasm", "--source", "kafka://127.0.0.1:9092/in", "--sink", "kafka://127.0.0.1:9092/out", "--dry-run")
	h.do("deploy", "upper.wasm", "--source", "kafka://127.0.0.1:9092/in", "--sink", "kafka://127.0.0.1:9092/out")
	h.do("deploy", "upper.wasm", "--source", "kafka://main/in", "--sink", "https://partner.example/v2", "--name", "acme/shout")
	h.note("its document:\n%s", h.node.flows["acme/shout"].Document)
	h.note("the same again, and something else under its name")
	h.do("deploy", "upper.wasm", "--source", "kafka://main/in", "--sink", "https://partner.example/v2", "--name", "acme/shout")
	puts := len(h.node.puts)
	h.do("deploy", "upper.wasm", "--source", "kafka://main/in", "--sink", "https://partner.example/v3", "--name", "acme/shout")
	h.do("deploy", "upper.wasm", "--source", "kafka://main/in", "--sink", "https://partner.example/v3", "--name", "acme/shout", "--dry-run")
	if len(h.node.puts) != puts {
		t.Error("a flow that was there was replaced")
	}
	h.node.flows["default/orders"].Stages[0].Plugin = "upper@0.9.0"
	h.do("deploy", "upper.wasm", "--dry-run")
	h.do("deploy", "upper.wasm")
	h.node.polls = 2
	h.do("deploy", "upper.wasm", "--flow", "orders", "--stage", "mask", "-o", "json")
	h.node.polls = -1
	h.do("deploy", "upper.wasm", "--timeout", "150ms")
	h.do("deploy", "upper.wasm", "--flow", "acme/refunds")
	h.golden("deploy")
}

func TestDeployVersionTaken(t *testing.T) {
	h := newHarness(t)
	h.copy("examples/upper/upper.wasm", "upper.wasm")
	h.node.plugins = []*api.Plugin{{Namespace: "default", Name: "upper", Version: "1.0.0", Digest: "sha256:00"}}
	code, _, stderr := h.call("", "deploy", "upper.wasm")
	if code != 1 || !strings.HasPrefix(stderr, "E_VERSION_TAKEN: ") || !strings.Contains(stderr, "next: raise the version where the plugin declares it") {
		t.Errorf("exit %d, %s", code, stderr)
	}
}

// TestEveryCommand holds each command to what all of them promise.
func TestEveryCommand(t *testing.T) {
	h := newHarness(t)
	a := &app{getenv: func(string) string { return "" }, program: "bin/flowctl"}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Hidden {
			return
		}
		if c.Short == "" || !strings.Contains(c.Example, "  bin/flowctl ") {
			t.Errorf("%s: it has no short description, or no example", c.CommandPath())
		}
		if c.Example != "" && c.HasParent() && !strings.Contains(c.Example, " "+c.Name()) {
			t.Errorf("%s: its example does not call it", c.CommandPath())
		}
		args := strings.Fields(c.CommandPath())[1:]
		code, stdout, stderr := h.call("", append(args, "--help")...)
		if code != 0 || stderr != "" || !strings.Contains(stdout, "Examples:") {
			t.Errorf("%s --help: exit %d, stderr %q", c.CommandPath(), code, stderr)
		}
		code, stdout, stderr = h.call("", append(args, "--no-such-flag")...)
		if code != 2 || stdout != "" || strings.Count(stderr, "\n") != 2 {
			t.Errorf("%s --no-such-flag: exit %d, stdout %q, stderr %q", c.CommandPath(), code, stdout, stderr)
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(a.root())
}

func TestServerIsFound(t *testing.T) {
	h := newHarness(t)
	h.do("flow", "list", "-o", "name")
	h.note("without FLOWCTL_SERVER the nearest .millrace/node upward")
	url := h.env["FLOWCTL_SERVER"]
	delete(h.env, "FLOWCTL_SERVER")
	h.write(".millrace/node", strings.TrimPrefix(url, "http://")+"\n")
	h.write("a/b/c", "")
	top := h.dir
	h.dir = filepath.Join(h.dir, "a", "b")
	h.do("flow", "list", "-o", "name")
	h.dir = top
	h.note("FLOWCTL_SERVER before it, --server before both")
	h.env["FLOWCTL_SERVER"] = "http://127.0.0.1:1"
	h.do("flow", "list", "-o", "name")
	h.do("flow", "list", "-o", "name", "--server", url)
	h.do("flow", "list", "--server", "ftp://x")
	h.golden("server")
}

func TestEnvironmentSetsFlags(t *testing.T) {
	h := newHarness(t)
	h.env["FLOWCTL_OUTPUT"], h.env["FLOWCTL_PROJECT"] = "name", "acme"
	if _, stdout, stderr := h.call("", "flow", "list"); stdout != "acme/refunds\n" {
		t.Errorf("stdout %q, stderr %q", stdout, stderr)
	}
	if _, stdout, _ := h.call("", "flow", "list", "--project", "default"); stdout != "orders\n" {
		t.Errorf("a flag does not win over the environment: %q", stdout)
	}
	h.env["FLOWCTL_COUNT"] = "many"
	code, _, stderr := h.call("", "queue", "peek", "orders")
	if code != 2 || !strings.Contains(stderr, "FLOWCTL_COUNT") {
		t.Errorf("exit %d, stderr %q", code, stderr)
	}
}

func TestCompletion(t *testing.T) {
	h := newHarness(t)
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if code, stdout, stderr := h.call("", "completion", shell); code != 0 || !strings.Contains(stdout, "flowctl") {
			t.Errorf("%s: exit %d, %s", shell, code, stderr)
		}
	}
	if code, _, _ := h.call("", "completion", "tcl"); code != 2 {
		t.Errorf("an unknown shell: exit %d", code)
	}
}

func TestVersion(t *testing.T) {
	h := newHarness(t)
	if code, stdout, _ := h.call("", "version"); code != 0 || stdout != "millrace flowctl "+flowd.Version+"\n" {
		t.Errorf("exit %d, %q", code, stdout)
	}
	if _, stdout, _ := h.call("", "version", "-o", "json"); !strings.Contains(stdout, `"version": "`+flowd.Version+`"`) {
		t.Errorf("%s", stdout)
	}
}

func TestApplyIsRefusedBeforeAnythingIsSent(t *testing.T) {
	h := newHarness(t)
	h.write("flow.yaml", upperFlow)
	code, _, stderr := h.call("", "apply", "-f", "flow.yaml")
	if code != 2 || !strings.Contains(stderr, "E_PLUGIN_NOT_FOUND  flow.yaml:5:") {
		t.Errorf("exit %d, %s", code, stderr)
	}
	if slices.ContainsFunc(h.node.calls, func(c string) bool { return strings.HasPrefix(c, "put") }) {
		t.Errorf("the node was asked: %v", h.node.calls)
	}
	if _, err := os.Stat(filepath.Join(h.dir, "upper.wasm")); err == nil {
		t.Error("the plugin exists after all")
	}
}
