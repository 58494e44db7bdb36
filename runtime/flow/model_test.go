package flow

import (
	"slices"
	"strings"
	"testing"
)

func TestWalksReachEveryCase(t *testing.T) {
	docs := resolveFile(t, "testdata/valid/delivery.yaml")
	brokers := resolveFile(t, "testdata/valid/brokers.yaml")
	f, s := docs[0].Flow, docs[1].Flow
	var stages, describe, deliveries, plugins []string
	for _, st := range f.AllStages() {
		stages = append(stages, st.ID)
		describe = append(describe, st.Describe())
	}
	for _, d := range f.Deliveries() {
		deliveries = append(deliveries, d.ID+": "+d.Describe())
	}
	for _, p := range append(f.Plugins(), s.Plugins()...) {
		plugins = append(plugins, p.ID+" "+p.Plugin.Ref.String()+" "+string(p.Otherwise))
	}
	for _, c := range []struct {
		what      string
		got, want []string
	}{
		{"stages", stages, []string{"cleanup1", "by-country", "by-country.1.map1", "by-country.2.branch1", "by-country.else.filter1", "branch3"}},
		{"descriptions", describe, []string{"cleanup (drop, drop_headers)", "branch (3 cases, else stages)", "map (set)", "branch (1 case, else drop)", "filter value.amount > 0", "branch every (2 cases, else pass)"}},
		{"deliveries", deliveries, []string{
			"german: push POST partner:/v2/orders/${value.shop_id} (batch, sign hmac-sha256, validate)",
			"by-country.2.branch1.1.push1: push kafka://main/large",
			"branch3.1.push1: push file a.ndjson",
			"branch3.2.push1: push webhook https://hooks.example/in",
			"deliver: push PUT partner:/all (batch, sign acme/signer@^1, validate acme/checker@^1)",
		}},
		{"plugins", plugins, []string{"deliver.sign acme/signer@^1 topic", "deliver.validate acme/checker@^1 topic", "all.9.push1.sign ./sign.wasm queue", "all.9.push1.validate ./check.wasm queue"}},
		{"connections", f.Connections(), []string{"https://hooks.example", "main", "partner"}},
		{"secrets", f.Secrets(), []string{"hooks/key", "partner/hmac", "partner/one", "partner/two"}},
		{"secrets of all kinds", s.Secrets(), []string{"a", "in/hmac"}},
		{"secrets of a connection", docs[4].Connection.Secrets(), []string{"partner/oauth", "partner/tls"}},
		{"secrets of brokers", brokers[0].Connection.Secrets(), []string{"kafka/alice", "kafka/tls", "registry/reader"}},
		{"secrets of RocketMQ", brokers[2].Connection.Secrets(), []string{"mq/orders"}},
		{"connections to brokers", brokers[3].Flow.Connections(), []string{"main", "mq", "schemas"}},
		{"connections to Kafka", brokers[3].Flow.KafkaConnections(), []string{"main", "schemas"}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s: got\n%s\nwant\n%s", c.what, strings.Join(c.got, "\n"), strings.Join(c.want, "\n"))
		}
	}
	if s.Delivery.ID != "" || len(s.Deliveries()) != 9 {
		t.Errorf("branches end every way: got delivery %q of %d", s.Delivery.ID, len(s.Deliveries()))
	}
	if names := f.ExceptionScope().Roots.Names(); !slices.Contains(names, "failure") || slices.Contains(f.Scope().Roots.Names(), "failure") {
		t.Errorf("scopes: got %v", names)
	}
}

func TestOrderDefaults(t *testing.T) {
	for deliveries, want := range map[string]Order{
		"push: kafka://main/out":      OrderPartition,
		"push: { file: { path: a } }": OrderPartition,
		"push: https://a.example/":    OrderKey,
		"push: { webhook: { url: https://a.example/, secret: { secret: a } } }":                                                  OrderKey,
		"branch: [ { when: value.a == 1, stages: [ { push: https://a.example/ } ] }, { else: [ { push: kafka://main/out } ] } ]": OrderKey,
		"branch: [ { when: value.a == 1, stages: [ { push: kafka://main/a } ] }, { else: [ { push: kafka://main/out } ] } ]":     OrderPartition,
	} {
		docs, ps := Parse("a", []byte("flow: v1\nname: a\nsource: kafka://main/in\nstages: [ { "+deliveries+" } ]\n"), Options{})
		if ps.HasErrors() {
			t.Fatal(ps.Render())
		}
		if got := docs[0].Flow.Order; got != want {
			t.Errorf("%s: got %s, want %s", deliveries, got, want)
		}
	}
}

func TestDiffOfDeliveries(t *testing.T) {
	parse := func(keys, stages string) *Flow {
		docs, ps := Parse("a.yaml", []byte("flow: v1\nname: a\n"+keys+"stages:\n"+stages), Options{})
		if ps.HasErrors() {
			t.Fatal(ps.Render())
		}
		return docs[0].Flow
	}
	const out = "  - { id: out, push: kafka://main/out }\n"
	const kafka = "source: kafka://main/in\n"
	branch := func(first, second, end string) string {
		return "  - id: split\n    branch:\n      - { when: value.a == 1, stages: [" + first + "] }\n      - { when: value.a == 2, stages: [" + second + "] }\n      - else: " + end + "\n" + out
	}
	http := func(parts string) string {
		return "  - { id: out, push: { http: { connection: partner, post: / } }" + parts + " }\n"
	}
	for _, c := range []struct{ name, oldKeys, oldStages, newKeys, newStages, want string }{
		{"limits", kafka + "limits: { records: 90/m, pause_at: 100 }\n", out, kafka + "limits: { records: 2/s, pause_at: 200 }\n", out, "~ limits.records: 90/m -> 2/s\n~ limits.pause_at: 100 -> 200\n~ limits.resume_at: 50 -> 100"},
		{"queue", kafka, out, kafka + "queue: { keep: 90m, entries: 10, bytes: 1MiB }\nrequeue: { every: 1h }\n", out, "+ queue.keep: 1h30m\n+ queue.entries: 10\n+ queue.bytes: 1MiB\n+ requeue: every 1h, at most 3 times"},
		{"otherwise", kafka, out, kafka + "otherwise: { topic: kafka://main/failed }\n", out, "~ otherwise: queue -> topic kafka://main/failed\n~ out.otherwise: queue -> topic kafka://main/failed"},
		{"ingest", "source: { ingest: { body: 1MiB } }\n", out, "source: { ingest: { body: 512KiB, sender: { hmac: sha256, key: { secret: a }, over: request.body, header: X } } }\n", out, "~ source.body: 1MiB -> 512KiB\n+ source.sender.algorithm: hmac-sha256\n+ source.sender.key: secret a\n+ source.sender.over: request.body\n+ source.sender.encoding: hex\n+ source.sender.header: X"},
		{"a case", kafka, branch("", "", "drop"), kafka, strings.Replace(branch("", "", "pass"), "value.a == 2", "value.a == 3", 1), "~ split: branch (2 cases, else drop) -> branch (2 cases, else pass)\n~ split.cases.2.when: value.a == 2 -> value.a == 3"},
		{"a condition", kafka, branch("", "", "drop"), kafka, strings.Replace(branch("", "", "drop"), "value.a == 2", "value.a == 3", 1), "~ split.cases.2.when: value.a == 2 -> value.a == 3"},
		{"into a case", kafka, branch("", "", "drop"), kafka, branch("{ id: f, filter: value.b > 1 }", "", "drop"), "+ f: filter value.b > 1"},
		{"between cases", kafka, branch("{ id: f, filter: value.b > 1 }", "", "drop"), kafka, branch("", "{ id: f, filter: value.b > 1 }", "drop"), "~ f: moved into split.2"},
		{"out of a case", kafka, branch("{ id: f, filter: value.b > 1 }", "", "drop"), kafka, "  - { id: f, filter: value.b > 1 }\n" + branch("", "", "drop"), "~ f: moved\n~ split: moved"},
		{"inside a case", kafka, branch("{ id: f, filter: value.b > 1 }", "", "drop"), kafka, branch("{ id: f, filter: value.b > 2 }", "", "drop"), "~ f: filter value.b > 1 -> filter value.b > 2"},
		{"sign", kafka, http(""), kafka, http(", sign: { hmac: sha256, key: { secret: a }, over: request.body, header: X }"), "~ out: push POST partner:/ -> push POST partner:/ (sign hmac-sha256)\n+ out.sign.algorithm: hmac-sha256\n+ out.sign.key: secret a\n+ out.sign.over: request.body\n+ out.sign.encoding: hex\n+ out.sign.header: X"},
		{"a key", kafka, http(", sign: { hmac: sha256, key: { secret: a }, over: request.body, header: X }"), kafka, http(", sign: { hmac: sha256, key: { secret: b }, over: request.body, header: X }"), "~ out.sign.key: secret a -> secret b"},
		{"batch", kafka, http(", batch: { wait: 1s }"), kafka, http(", batch: { wait: 2s, bytes: 1MiB }"), "+ out.batch.bytes: 1MiB\n~ out.batch.wait: 1s -> 2s"},
		{"validate", kafka, http(""), kafka, http(", validate: { ok: response.status == 200 }, retry: { spill: 5s }"), "~ out: push POST partner:/ -> push POST partner:/ (validate)\n+ out.validate.ok: response.status == 200\n+ out.retry.spill: 5s"},
		{"exceptions", kafka + "exceptions: [ { when: failure.code == 1, push: https://a.example/ } ]\n", out, kafka + "exceptions: [ { when: failure.code == 2, push: https://a.example/ }, { push: kafka://main/alarms } ]\n", out,
			"~ exceptions.1: when failure.code == 1: push POST https://a.example/ -> when failure.code == 2: push POST https://a.example/\n+ exceptions.2: push kafka://main/alarms"},
		{"an exception's body", kafka + "exceptions: [ { push: { http: { post: https://a.example/, body: a } } } ]\n", out, kafka + "exceptions: [ { push: { http: { post: https://a.example/, body: b } } } ]\n", out,
			`~ exceptions.1.push.body: "a" -> "b"`},
		{"no delivery behind", kafka, branch("{ id: one, push: kafka://main/1 }", "{ id: two, push: kafka://main/2 }", "pass"), kafka, strings.TrimSuffix(branch("{ id: one, push: kafka://main/1 }", "{ id: two, push: kafka://main/2 }", "drop"), out),
			"- out: push kafka://main/out\n~ split: branch (2 cases, else pass) -> branch (2 cases, else drop)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			old, next := parse(c.oldKeys, c.oldStages), parse(c.newKeys, c.newStages)
			if text := changes(old, next); text != c.want {
				t.Errorf("got\n%s\nwant\n%s", text, c.want)
			}
			if cs := Diff(next, next); len(cs) != 0 {
				t.Errorf("a flow differs from itself: %v", cs)
			}
			if err := CheckUpdate(old, next); err != nil {
				t.Errorf("got %v", err)
			}
		})
	}
}
