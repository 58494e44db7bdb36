package dev

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/runtime/flow"
)

// The dev broker takes the place of a connection's brokers, and not of its
// registry; a source that names topics by a pattern is not fed.
func TestConnectionsOfADecodingFlow(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"connection.yaml": "connection: v1\nname: prod\nkafka: { brokers: [k1:9092], tls: {}, sasl: { plain: { user: a, password: { secret: s } } }, registry: { url: https://r.example, basic: { user: b, password: { secret: r } }, tls: { server_name: r } } }\n",
		"flow.yaml":       "flow: v1\nname: f\nsource: { kafka: { connection: prod, pattern: 'a.*', decode: { avro: registry } } }\nstages: [ { push: kafka://prod/out } ]\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := written(filepath.Join(dir, "flow.yaml"), "127.0.0.1:19092", func(string) string { return "" })
	if err != nil || l.feed != "" {
		t.Fatal(err, l.feed)
	}
	for _, c := range l.connections {
		docs, ps := flow.Parse("c", []byte(c.Document), flow.Options{})
		if ps.HasErrors() {
			t.Fatal(ps.Render(), c.Document)
		}
		if docs[0].Connection.Name != "prod" {
			continue
		}
		k := docs[0].Connection.Kafka
		if strings.Join(k.Brokers, ",") != "127.0.0.1:19092" || k.TLS != nil || k.SASL != nil {
			t.Errorf("got %+v", k)
		}
		if r := k.Registry; r == nil || r.URL != "https://r.example" || r.Basic.User != "b" || r.Basic.Password.Name != "r" || r.TLS.ServerName != "r" {
			t.Errorf("got %+v", r)
		}
		return
	}
	t.Errorf("no connection prod: %+v", l.connections)
}
