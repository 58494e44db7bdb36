package brokers

import (
	"os"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) { Main(m) }

func produce(t *testing.T, addr, topic, lines string) {
	t.Helper()
	file := t.TempDir() + "/lines"
	if err := os.WriteFile(file, []byte(lines), 0o644); err != nil {
		t.Fatal(err)
	}
	Kcat(t, "-P", "-b", addr, "-t", topic, "-l", file)
}

func consume(t *testing.T, addr, topic string) string {
	t.Helper()
	return Kcat(t, "-C", "-q", "-e", "-b", addr, "-t", topic, "-o", "beginning", "-p", "0")
}

// What was written is there after a kill and a stop; a paused broker answers
// only when it may go on.
func TestKafkaLives(t *testing.T) {
	k := StartKafka(t, KafkaOptions{Extra: "num.partitions=1"})
	produce(t, k.Addr(), "kept", "one\ntwo\n")
	k.Kill()
	if k.Alive() {
		t.Fatal("the broker lives after it was killed")
	}
	if err := k.answers(); err == nil {
		t.Fatal("a killed broker answers")
	}
	k.Start()
	produce(t, k.Addr(), "kept", "three\n")
	k.Stop()
	k.Start()
	if got := consume(t, k.Addr(), "kept"); got != "one\ntwo\nthree\n" {
		t.Errorf("read %q after a kill and a stop", got)
	}
	k.Pause()
	if err := k.answers(); err == nil {
		t.Error("a paused broker answers")
	}
	k.Continue()
	if err := k.await(10 * time.Second); err != nil {
		t.Error(err)
	}
	out, err := k.Tool("org.apache.kafka.tools.TopicCommand", "--bootstrap-server", k.Addr(), "--list")
	if err != nil || !strings.Contains(out, "kept") {
		t.Errorf("TopicCommand: %v: %s", err, out)
	}
}

// kcat, which is not ours, comes in by every listener that it can.
func TestKafkaListeners(t *testing.T) {
	k := SharedKafka(t)
	for name, args := range map[string][]string{
		"plain":    {"-b", k.Addr()},
		"proxied":  {"-b", k.ProxiedAddr()},
		"tls":      {"-b", k.SSLAddr(), "-X", "security.protocol=ssl", "-X", "ssl.ca.location=" + k.TLSDir() + "/ca.pem"},
		"mtls":     {"-b", k.SSLAddr(), "-X", "security.protocol=ssl", "-X", "ssl.ca.location=" + k.TLSDir() + "/ca.pem", "-X", "ssl.certificate.location=" + k.TLSDir() + "/client.crt", "-X", "ssl.key.location=" + k.TLSDir() + "/client.key"},
		"sasl":     {"-b", k.SASLAddr(), "-X", "security.protocol=sasl_plaintext", "-X", "sasl.mechanism=PLAIN", "-X", "sasl.username=bob", "-X", "sasl.password=bob-secret"},
		"sasl+tls": {"-b", k.SASLSSLAddr(), "-X", "security.protocol=sasl_ssl", "-X", "ssl.ca.location=" + k.TLSDir() + "/ca.pem", "-X", "sasl.mechanism=PLAIN", "-X", "sasl.username=alice", "-X", "sasl.password=alice-secret"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Kcat(t, append(args, "-L")...); !strings.Contains(got, "1 brokers") {
				t.Errorf("kcat -L: %s", got)
			}
		})
	}
}

func TestRocketMQLives(t *testing.T) {
	r := StartRocketMQ(t, RocketMQOptions{})
	topics := func() string {
		t.Helper()
		out, err := r.Tool("topicList", "-n", r.NameServer())
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if out, err := r.Tool("updateTopic", "-n", r.NameServer(), "-b", r.Broker(), "-t", "kept"); err != nil {
		t.Fatal(err, out)
	}
	r.Kill("broker")
	r.Start("broker")
	r.Kill("ns")
	began := time.Now()
	r.Start("ns")
	t.Logf("the name server knows the broker again after %s", time.Since(began))
	if got := topics(); !strings.Contains(got, "kept") {
		t.Errorf("after both were killed: topics %s", got)
	}
}

func TestRocketMQWithACL(t *testing.T) {
	r := StartRocketMQ(t, RocketMQOptions{ACL: true})
	if _, err := ask(r.Broker(), updateConfig, "brokerPermission=6", false); err == nil {
		t.Error("a change without a key was taken")
	}
	if _, err := ask(r.Broker(), updateConfig, "brokerPermission=6", true); err != nil {
		t.Errorf("a signed change: %v", err)
	}
}
