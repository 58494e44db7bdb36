//go:build linux

package exampletest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/cmd/internal/page"
	"github.com/millrace-io/millrace/runtime/connector/connectortest/brokers"
)

// The README's way over the real brokers, but for their start: its
// connections, its secrets, its two flows, and kcat at both ends.
func TestBrokers(t *testing.T) {
	k := brokers.StartKafka(t, brokers.KafkaOptions{})
	r := brokers.StartRocketMQ(t, brokers.RocketMQOptions{})
	w := beginAt(t, "brokers", []string{
		"127.0.0.1:19092", k.Addr(), "127.0.0.1:19094", k.SASLAddr(), "127.0.0.1:19095", k.SSLAddr(), "127.0.0.1:19096", k.SASLSSLAddr(),
		"127.0.0.1:9876", r.NameServer(), "127.0.0.1:10911", r.Broker(), ".toolchains/brokers/kafka/run/tls", k.TLSDir(),
	}, "kcat")
	toolchains, err := filepath.Abs("../../../.toolchains")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(toolchains, filepath.Join(w.root, ".toolchains")); err != nil {
		t.Fatal(err)
	}
	w.run()
	for _, connection := range []string{"plain", "scram", "tls", "mtls", "scram-tls", "mq"} {
		w.blocks = append([]page.Block{{Kind: "sh", Text: "bin/flowctl connection test " + connection}}, w.blocks...)
		w.run()
	}
	got := w.run()
	if want := w.shown(); strings.TrimSpace(got) != want {
		t.Errorf("the way over RocketMQ and back gives\n%s\nwant\n%s", got, want)
	}
}
