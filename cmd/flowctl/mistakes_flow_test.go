package main

import (
	"fmt"
	"strings"
	"testing"
)

// TestMistakesInFlows holds what the linter says to the mistakes that people
// make in a delivery, a branch or a connection: the place, the cause and what
// to write instead.
func TestMistakesInFlows(t *testing.T) {
	const (
		flow     = "flow: v1\nname: a\nsource: kafka://main/orders\n"
		http     = "    push: { http: { connection: partner, post: /v2/orders } }\n"
		delivery = flow + "stages:\n  - id: deliver\n"
		partner  = "connection: v1\nname: partner\n"
	)
	h := newHarness(t)
	h.write("connections.yaml", "connection: v1\nname: main\nkafka: { brokers: ['10.0.0.5:9092'] }\n---\nconnection: v1\nname: partner\nhttp: { base: https://partner.example }\n")
	for i, m := range []struct{ what, file string }{
		{"a branch without else", flow + "stages:\n  - branch:\n      - when: value.country == \"DE\"\n        stages: [ { push: kafka://main/german } ]\n  - push: kafka://main/others\n"},
		{"else before the other cases", flow + "stages:\n  - branch:\n      - else: drop\n      - when: value.country == \"DE\"\n        stages: []\n  - push: kafka://main/out\n"},
		{"a case whose records go nowhere", flow + "stages:\n  - branch:\n      - when: value.country == \"DE\"\n        stages: [ { push: kafka://main/german } ]\n      - else: pass\n"},
		{"stages behind a branch that ends every way", flow + "stages:\n  - branch:\n      - when: value.country == \"DE\"\n        stages: [ { push: kafka://main/german } ]\n      - else: drop\n  - push: kafka://main/others\n"},
		{"if instead of when", flow + "stages:\n  - branch:\n      - if: value.country == \"DE\"\n        stages: []\n      - else: drop\n  - push: kafka://main/out\n"},
		{"a batch to Kafka", delivery + "    batch: { records: 100 }\n    push: kafka://main/out\n"},
		{"a batch without a push", delivery + "    batch: { records: 100, wait: 2s }\n"},
		{"a body beside a batch", delivery + "    batch: { records: 100 }\n    push: { http: { connection: partner, post: /, body: \"${value.a}\" } }\n"},
		{"a batch of texts without an item", delivery + "    batch: { as: text, head: <orders>, tail: </orders> }\n" + http},
		{"a key in the file", delivery + "    sign: { hmac: sha256, key: s3cr3t-value, over: request.body, header: X-Sign }\n" + http},
		{"a mistyped algorithm", delivery + "    sign: { hmac: sha265, key: { secret: partner/hmac }, over: request.body, header: X-Sign }\n" + http},
		{"a mistyped field of the request", delivery + "    sign: { hmac: sha256, key: { secret: partner/hmac }, over: request.bdy, header: X-Sign }\n" + http},
		{"the record in a signature", delivery + "    sign: { hmac: sha256, key: { secret: partner/hmac }, over: \"${value.id}\", header: X-Sign }\n" + http},
		{"a signature without a header", delivery + "    sign: { hmac: sha256, key: { secret: partner/hmac }, over: request.body }\n" + http},
		{"two ways to sign", delivery + "    sign: { hmac: sha256, basic: { user: a, password: { secret: b } }, key: { secret: partner/hmac }, over: request.body, header: X-Sign }\n" + http},
		{"a mistyped field of the answer", delivery + "    validate: { ok: response.stauts == 200 }\n" + http},
		{"the record in validate", delivery + "    validate: { ok: value.status == 200 }\n" + http},
		{"an expression as validate", delivery + "    validate: response.status == 200\n" + http},
		{"validate inside of push", delivery + "    push: { http: { connection: partner, post: / }, validate: { ok: response.status == 200 } }\n"},
		{"a webhook without a secret", delivery + "    push: { webhook: { url: https://hooks.example/in } }\n"},
		{"a topic in short form as otherwise", flow + "otherwise: kafka://main/failed\nstages: [ { push: kafka://main/out } ]\n"},
		{"a rate without a unit", flow + "limits: { records: 800 }\nstages: [ { push: kafka://main/out } ]\n"},
		{"days in a duration", flow + "queue: { keep: 30d }\nstages: [ { push: kafka://main/out } ]\n"},
		{"failure outside of exceptions", flow + "stages:\n  - filter: failure.class != \"rejected\"\n  - push: kafka://main/out\n"},
		{"a mistyped field of a failure", flow + "stages: [ { push: kafka://main/out } ]\nexceptions:\n  - when: failure.clas == \"rejected\"\n    push: https://oncall.example/\n"},
		{"a password in a connection", partner + "http: { base: https://partner.example, auth: { basic: { user: me, password: s3cr3t-value } } }\n"},
		{"a certificate without its key", partner + "http: { base: https://partner.example, tls: { cert: client.pem } }\n"},
		{"a header of a cleanup with a blank", flow + "stages:\n  - cleanup: { drop_headers: [\"tmp _*\"] }\n  - push: kafka://main/out\n"},
	} {
		h.note("%s", m.what)
		file := fmt.Sprintf("mistake%02d.yaml", i+1)
		h.write(file, m.file)
		args := []string{"lint", file, "connections.yaml"}
		if strings.HasPrefix(m.file, partner) {
			args = args[:2]
		}
		code, stdout, _ := h.call("", args...)
		if code != 2 || !strings.Contains(stdout, "^") || !strings.Contains(stdout, "help: ") {
			t.Errorf("%s: exit %d, and neither place nor help: %s", m.what, code, stdout)
		}
		if strings.Contains(stdout, "s3cr3t-value") {
			t.Errorf("%s: the secret is shown", m.what)
		}
		h.do(args...)
	}
	h.golden("mistakes_flow")
}
