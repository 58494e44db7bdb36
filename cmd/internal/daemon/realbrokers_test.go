package daemon

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/runtime/connector/connectortest/brokers"
)

// putConnection applies a connection's document.
func putConnection(t *testing.T, d *Daemon, name, body string) {
	t.Helper()
	if _, err := d.PutConnection(t.Context(), &api.PutConnection{Document: "connection: v1\nname: " + name + "\n" + body + "\n"}); err != nil {
		t.Fatal(err)
	}
}

// securely is the body of a connection to a listener with TLS and SCRAM.
func securely(k *brokers.Kafka, addr, ca string) string {
	return fmt.Sprintf("kafka: { brokers: [%s], tls: { ca: %q }, sasl: { scram-sha-512: { user: alice, password: { secret: kafka/alice } } } }", addr, filepath.Join(k.TLSDir(), ca))
}

func TestRealBrokers(t *testing.T) {
	k := brokers.StartKafka(t, brokers.KafkaOptions{Extra: "connections.max.reauth.ms=1500"})
	t.Run("secured", func(t *testing.T) { secured(t, k) })
	t.Run("faults", func(t *testing.T) { faultsOfSecureListeners(t, k) })
	t.Run("mixed", func(t *testing.T) { mixed(t, k, brokers.StartRocketMQ(t, brokers.RocketMQOptions{})) })
}

// secured runs a flow over a listener with TLS and SCRAM, in and out, aside and
// told, and changes the password under it.
func secured(t *testing.T, k *brokers.Kafka) {
	dir := t.TempDir()
	d, _ := life(t, dir)
	secretFile(t, dir, "kafka/alice", "alice-secret")
	putConnection(t, d, "main", securely(k, k.SASLSSLAddr(), "ca.pem"))
	test, err := d.TestConnection(t.Context(), "main")
	if err != nil || !test.OK {
		t.Fatal(test, err)
	}
	mustPut(t, d, &api.PutFlow{Document: "flow: v1\nname: one\nsource: kafka://main/s-in\notherwise: { topic: kafka://main/s-failed }\nstages:\n  - id: f\n    filter: value.id > 0\n" +
		"  - map: { set: { seen: \"true\" } }\n  - push: { kafka: { connection: main, topic: s-out, compression: gzip } }\nexceptions:\n  - push: kafka://main/s-told\n"})
	cl := kafkaClient(t, k.Addr())
	feed(t, cl, "s-in", "a", `{"id":1}`, "b", `{"id":"x"}`)
	is := func(topic string, want ...string) {
		t.Helper()
		if got := valuesOf(consume(t, k.Addr(), topic, len(want))); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", topic, got, want)
		}
	}
	is("s-out", `{"id":1,"seen":true}`)
	is("s-failed", `{"id":"x"}`)
	is("s-told", `{"id":"x"}`)

	adm := kadm.NewClient(cl)
	if _, err := adm.AlterUserSCRAMs(t.Context(), nil, []kadm.UpsertSCRAM{{User: "alice", Mechanism: kadm.ScramSha512, Iterations: 4096, Password: "renewed"}}); err != nil {
		t.Fatal(err)
	}
	poll(t, "the problem", func() (bool, string) {
		f := status(t, d, "one")
		if f.State != api.StateRunning {
			t.Fatalf("the flow is %s: %s", f.State, f.Reason)
		}
		return strings.Contains(f.Problem, "password"), f.Problem
	})
	feed(t, cl, "s-in", "c", `{"id":2}`)
	secretFile(t, dir, "kafka/alice", "renewed")
	is("s-out", `{"id":1,"seen":true}`, `{"id":2,"seen":true}`)
	poll(t, "no problem", func() (bool, string) {
		f := status(t, d, "one")
		return f.Problem == "" && f.State == api.StateRunning, f.Problem
	})
	if got := groupWith(t, adm, "millrace.default.one"); len(got) == 0 {
		t.Error("nothing was mirrored")
	}
	if _, err := adm.AlterUserSCRAMs(t.Context(), nil, []kadm.UpsertSCRAM{{User: "alice", Mechanism: kadm.ScramSha512, Iterations: 4096, Password: "alice-secret"}}); err != nil {
		t.Fatal(err)
	}
}

// groupWith waits for a group's offsets.
func groupWith(t *testing.T, adm *kadm.Client, group string) (got kadm.OffsetResponses) {
	t.Helper()
	poll(t, "group "+group, func() (bool, string) {
		var err error
		got, err = adm.FetchOffsets(t.Context(), group)
		return err == nil && len(got) > 0, fmt.Sprint(got, err)
	})
	return got
}

// faultsOfSecureListeners are what `connection test` says, and what the status
// of a flow says, of each way to get a secure listener wrong.
func faultsOfSecureListeners(t *testing.T, k *brokers.Kafka) {
	dir := t.TempDir()
	d, _ := life(t, dir)
	secretFile(t, dir, "kafka/alice", "alice-secret")
	secretFile(t, dir, "kafka/wrong", "no")
	for _, c := range []struct {
		name, body string
		words      []string
	}{
		{"password", strings.Replace(securely(k, k.SASLSSLAddr(), "ca.pem"), "kafka/alice", "kafka/wrong", 1), []string{"password"}},
		{"no-sasl", "kafka: { brokers: [" + k.SASLSSLAddr() + "], tls: { ca: " + filepath.Join(k.TLSDir(), "ca.pem") + " } }", []string{"sasl"}},
		{"wrong-ca", securely(k, k.SASLSSLAddr(), "other-ca.pem"), []string{"certificate", "ca"}},
		{"plain-to-tls", "kafka: { brokers: [" + k.SSLAddr() + "] }", []string{"tls"}},
		{"tls-to-plain", "kafka: { brokers: [" + k.Addr() + "], tls: {} }", []string{"tls"}},
		{"expired", "kafka: { brokers: [" + k.ExpiredAddr() + "], tls: { ca: " + filepath.Join(k.TLSDir(), "ca.pem") + " } }", []string{"expired"}},
		{"no-secret", strings.Replace(securely(k, k.SASLSSLAddr(), "ca.pem"), "kafka/alice", "kafka/nobody", 1), []string{"kafka/nobody", "missing"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			putConnection(t, d, c.name, c.body)
			test, err := d.TestConnection(t.Context(), c.name)
			if err != nil || test.OK {
				t.Fatal(test, err)
			}
			t.Log("connection test:", test.Detail)
			mustPut(t, d, &api.PutFlow{Document: "flow: v1\nname: " + c.name + "\nslots: 1\nsource: kafka://" + c.name + "/f-in\nstages:\n  - push: { file: { path: " + filepath.Join(dir, c.name) + " } }\n"})
			problem := ""
			poll(t, "the problem", func() (bool, string) {
				f := status(t, d, c.name)
				problem = f.Problem
				said := strings.ToLower(problem)
				return !slices.ContainsFunc(c.words, func(w string) bool { return !strings.Contains(said, w) }), f.State + " " + f.Reason + ": " + problem
			})
			t.Log("flow get:", problem)
			for _, w := range c.words {
				if !strings.Contains(strings.ToLower(test.Detail), w) {
					t.Errorf("%q does not say %q", test.Detail, w)
				}
			}
		})
	}
}

// mixed sends records from Kafka to RocketMQ and back, to an HTTP partner and to
// files, and compares them.
func mixed(t *testing.T, k *brokers.Kafka, r *brokers.RocketMQ) {
	dir := t.TempDir()
	d, _ := life(t, dir)
	connect(t, d, k.Addr())
	putConnection(t, d, "mq", "rocketmq: { name_servers: ["+r.NameServer()+"] }")
	for _, name := range []string{"mq", "rocketmq://" + r.NameServer()} {
		if test, err := d.TestConnection(t.Context(), name); err != nil || !test.OK {
			t.Errorf("%s: %+v, %v", name, test, err)
		}
	}
	p := startPartner(t, func(received) (int, string) { return 200, "" })
	file := func(name string) string { return "{ file: { path: " + filepath.Join(dir, name) + " } }" }
	put := func(name, source, push string) {
		t.Helper()
		mustPut(t, d, &api.PutFlow{Document: "flow: v1\nname: " + name + "\nsource: " + source + "\nstages:\n  - push: " + push + "\n"})
	}
	var sent []*kgo.Record
	for i := range 40 {
		rec := &kgo.Record{Topic: "m-in", Key: fmt.Appendf(nil, "k%d", i%5), Value: fmt.Appendf(nil, `{"no":%d}`, i), Headers: []kgo.RecordHeader{{Key: "n", Value: fmt.Appendf(nil, "%d", i)}}}
		if i%2 == 0 {
			rec.Headers = append(rec.Headers, kgo.RecordHeader{Key: "rocketmq.tag", Value: []byte("paid")})
		}
		switch i {
		case 7:
			rec.Value = nil
		case 11:
			rec.Key = []byte{0xff, 0x00}
		case 13:
			rec.Key = nil
		}
		sent = append(sent, rec)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.Addr()), kgo.AllowAutoTopicCreation())
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.ProduceSync(t.Context(), sent...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	// The broker makes the topics when they are written to.
	put("there", "kafka://main/m-in", "rocketmq://mq/m-out")
	put("tagged", "kafka://main/m-in", "{ rocketmq: { connection: mq, topic: m-parts, tag: \"t-${partition}\", key: headers.n } }")
	settled(t, d, "there", 40)
	settled(t, d, "tagged", 40)
	put("back", "rocketmq://mq/m-out", "kafka://main/m-back")
	put("parts", "rocketmq://mq/m-parts", "kafka://main/m-tagged")
	put("called", "{ rocketmq: { connection: mq, topic: m-out, tags: [paid] } }", p.URL+"/")
	put("kept", "rocketmq://"+r.NameServer()+"/m-out", file("from-mq"))
	put("kept-too", "kafka://main/m-back", file("from-kafka"))
	back := consume(t, k.Addr(), "m-back", len(sent))
	if got, want := sorted(back), sorted(sent); !slices.Equal(got, want) {
		t.Errorf("back:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	tagged := consume(t, k.Addr(), "m-tagged", len(sent))
	for _, rec := range tagged {
		n, tag := "", ""
		for _, h := range rec.Headers {
			switch h.Key {
			case "n":
				n = string(h.Value)
			case "rocketmq.tag":
				tag = string(h.Value)
			}
		}
		if string(rec.Key) != n || !strings.HasPrefix(tag, "t-") {
			t.Errorf("tagged: key %q, tag %q of record %s", rec.Key, tag, n)
		}
	}
	poll(t, "the partner", func() (bool, string) { return len(p.bodies()) == 20, fmt.Sprint(len(p.bodies())) })
	for _, name := range []string{"from-mq", "from-kafka"} {
		poll(t, name, func() (bool, string) {
			b, _ := os.ReadFile(filepath.Join(dir, name))
			return bytes.Count(b, []byte("\n")) == len(sent), string(b)
		})
	}
	offsetsOfQueues(t, d)
}

// offsetsOfQueues resets a flow that reads RocketMQ, by time and by queue.
func offsetsOfQueues(t *testing.T, d *Daemon) {
	o, err := d.Offsets(t.Context(), "default", "back")
	if err != nil {
		t.Fatal(err)
	}
	brokersOf := map[string]bool{}
	for _, p := range o.Partitions {
		brokersOf[p.Broker] = true
		if p.Topic != "m-out" || p.Broker == "" || p.End < 0 || p.Lag != p.End-p.Committed {
			t.Errorf("%+v", p)
		}
	}
	if len(o.Partitions) == 0 || len(brokersOf) != 1 {
		t.Fatalf("partitions %+v", o.Partitions)
	}
	broker := slices.Collect(maps.Keys(brokersOf))[0]
	poll(t, "the lag", func() (bool, string) {
		f := status(t, d, "back")
		return f.Lag == 0 && f.Partitions[0].Broker == broker, fmt.Sprint(f.Lag)
	})
	for _, c := range []struct {
		to       api.OffsetsReset
		repeated int64
	}{
		{api.OffsetsReset{To: time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)}, 40},
		{api.OffsetsReset{To: time.Now().Add(time.Hour).UTC().Format(time.RFC3339)}, 0},
		{api.OffsetsReset{Positions: []api.OffsetTarget{{Topic: "m-out", Broker: broker, Partition: 0, Offset: 0}}}, o.Partitions[0].Committed},
	} {
		c.to.Project, c.to.Name, c.to.DryRun = "default", "back", true
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		plan, err := d.ResetOffsets(ctx, &c.to)
		cancel()
		if err != nil || plan.Repeated != c.repeated {
			t.Errorf("%+v: got %+v, %v, want %d repeated", c.to, plan, err, c.repeated)
		}
	}
	_, err = d.ResetOffsets(t.Context(), &api.OffsetsReset{Project: "default", Name: "back", DryRun: true, Positions: []api.OffsetTarget{{Broker: "nobody", Partition: 0}}})
	if text := refusal(err); !strings.Contains(text, "on broker nobody") {
		t.Errorf("got %s", text)
	}
}

// sorted are records as texts, in an order of their own.
func sorted(rs []*kgo.Record) []string {
	var out []string
	for _, r := range rs {
		text := fmt.Sprintf("key %q null %t value %q null %t", r.Key, r.Key == nil, r.Value, r.Value == nil)
		for _, h := range r.Headers {
			text += fmt.Sprintf(" %s=%q", h.Key, h.Value)
		}
		out = append(out, text)
	}
	slices.Sort(out)
	return out
}
