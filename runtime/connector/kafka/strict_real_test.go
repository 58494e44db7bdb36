package kafka

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace-io/millrace/runtime/connector/connectortest/brokers"
	"github.com/millrace-io/millrace/runtime/record"
)

// strict is a broker that demands what the shared one only accepts, knows the
// rights of users, and wants each login anew after two seconds.
const strict = `listener.name.ssl.ssl.client.auth=required
listener.name.sasl_plaintext.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512
listener.name.expired.ssl.enabled.protocols=TLSv1.2
listener.name.expired.ssl.client.auth=required
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:carol
connections.max.reauth.ms=2000
`

func TestStrictBroker(t *testing.T) {
	nowhere := unused(t)
	s := brokers.StartKafka(t, brokers.KafkaOptions{Extra: strict, Advertise: nowhere})
	t.Run("faults", func(t *testing.T) { connectErrors(t, s, nowhere) })
	t.Run("rights", func(t *testing.T) { rights(t, s) })
	t.Run("password changed", func(t *testing.T) { passwordChanged(t, s) })
}

// rights: what a user may not do ends in an error of class config that says
// what was tried.
func rights(t *testing.T, k *brokers.Kafka) {
	adm := topicOn(t, k.Addr(), "theirs", 1)
	cfg := Config{Brokers: []string{k.SASLAddr()}, SASL: user(Plain, "alice", "alice-secret")}
	if err := Check(bounded(t), cfg); err != nil {
		t.Errorf("nothing is wrong with the connection, got %v", err)
	}
	in, err := NewSource(SourceConfig{Config: cfg, Topics: []string{"theirs"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	p := record.Partition{Topic: "theirs"}
	_, err = in.Partitions(bounded(t))
	wants(t, err, `read topic "theirs"`, "TOPIC_AUTHORIZATION_FAILED", "give the connection's user the right")
	in.Assign(p, 0)
	wants(t, failure(t, in), `read topic "theirs"`, "TOPIC_AUTHORIZATION_FAILED")
	mirror := func() error {
		return in.CommitGroup(bounded(t), "millrace.default.f", map[record.Partition]int64{p: 1})
	}
	wants(t, mirror(), `consumer group "millrace.default.f"`, `topic "theirs"`, "TOPIC_AUTHORIZATION_FAILED", "READ on the topic")

	out, err := NewSink(SinkConfig{Config: cfg, Topic: "theirs"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	wants(t, deliver(t, out, recs(0, 1)...)[0], `write to topic "theirs"`, "TOPIC_AUTHORIZATION_FAILED")

	// What docs/connectors/kafka.md says is needed is enough.
	allow := func(b *kadm.ACLBuilder) {
		t.Helper()
		rs, err := adm.CreateACLs(bounded(t), b.Allow("User:alice").AllowHosts())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rs {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		}
	}
	allow(kadm.NewACLs().Topics("theirs").Operations(kadm.OpRead, kadm.OpWrite))
	eventually(t, "the right to write", func() bool { return deliver(t, out, recs(0, 1)...)[0] == nil })
	eventually(t, "the right to read", func() bool { _, err := in.Partitions(t.Context()); return err == nil })
	if got := through(t, cfg, "theirs", Zstd, recs(0, 10)); string(got[len(got)-1].Value) != "9" {
		t.Errorf("the last record is %q", got[len(got)-1].Value)
	}
	wants(t, mirror(), `consumer group "millrace.default.f"`, "GROUP_AUTHORIZATION_FAILED", "READ on the group")
	allow(kadm.NewACLs().Groups("millrace.default.f").Operations(kadm.OpRead))
	eventually(t, "the right to the group", func() bool { return mirror() == nil })
}

// passwordChanged: the brokers get another password for a user under load, and
// the node a little later.
func passwordChanged(t *testing.T, k *brokers.Kafka) {
	adm := topicOn(t, k.Addr(), "rotated", 1)
	become := func(password string) {
		t.Helper()
		rs, err := adm.AlterUserSCRAMs(bounded(t), nil, []kadm.UpsertSCRAM{{User: "carol", Mechanism: kadm.ScramSha512, Iterations: 4096, Password: password}})
		if err != nil || !rs.Ok() {
			t.Fatal(err, rs.Error())
		}
	}
	become("one")
	l := &login{user: "carol", password: "one"}
	cfg := Config{Brokers: []string{k.SASLSSLAddr()}, TLS: tlsOf(k.TLSDir(), "ca.pem", "", ""), SASL: &SASL{Mechanism: ScramSHA512, Credentials: l.get}}
	eventually(t, "the user", func() bool { return Check(t.Context(), cfg) == nil })
	out, err := NewSink(SinkConfig{Config: cfg, Topic: "rotated"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	var all []*answers
	more := func() {
		n := len(all) * 10
		all = append(all, begin(t.Context(), out, recs(n, n+10)...))
	}
	more()
	noErrors(t, all[0].wait(t))
	became := time.Now()
	for range 3 { // logins that are renewed under load
		eventually(t, "the end of a login", func() bool { more(); return time.Since(became) > 2*time.Second })
		became = time.Now()
	}
	become("two")
	eventually(t, "the refusal", func() bool { more(); return strings.Contains(out.Problem(), `it refuses the user "carol"`) })
	l.set("two", nil)
	for range 100 {
		more()
	}
	for _, a := range all {
		noErrors(t, a.wait(t))
	}
	in, err := NewSource(SourceConfig{Config: Config{Brokers: []string{k.Addr()}}, Topics: []string{"rotated"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	p := record.Partition{Topic: "rotated"}
	in.Assign(p, 0)
	next := 0
	for ctx := bounded(t); next < len(all)*10; {
		b, err := in.Poll(ctx)
		if err != nil {
			t.Fatalf("after %d of %d records: %v", next, len(all)*10, err)
		}
		for _, r := range b.Records {
			if string(r.Value) != strconv.Itoa(next) {
				t.Fatalf("%q came where %d was to come", r.Value, next)
			}
			next++
		}
	}
}
