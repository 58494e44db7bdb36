package kafka

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/connector/connectortest/brokers"
	"github.com/millrace-io/millrace/runtime/record"
)

// tlsOf are settings from the files of a broker's folder, read at each call; an
// empty name leaves one out.
func tlsOf(dir, ca, cert, server string) func() (*tls.Config, error) {
	return func() (*tls.Config, error) {
		read := func(name string) []byte {
			if name == "" {
				return nil
			}
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				panic(err)
			}
			return b
		}
		var certPEM, keyPEM []byte
		if cert != "" {
			certPEM, keyPEM = read(cert+".crt"), read(cert+".key")
		}
		cfg, err := connector.NewTLS(read(ca), certPEM, keyPEM)
		if err == nil {
			cfg.ServerName = server
		}
		return cfg, err
	}
}

func user(m Mechanism, name, password string) *SASL {
	return &SASL{Mechanism: m, Credentials: func() (string, string, error) { return name, password, nil }}
}

// topicOn makes a topic on a real broker by its plain listener.
func topicOn(t *testing.T, addr, topic string, partitions int32) *kadm.Client {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.MetadataMinAge(20*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	adm := kadm.NewClient(cl)
	if _, err := adm.CreateTopic(bounded(t), partitions, 1, nil, topic); err != nil {
		t.Fatal(err)
	}
	return adm
}

// through writes records by a listener and reads them back by it.
func through(t *testing.T, cfg Config, topic string, compression Compression, rs []record.Record) []record.Record {
	t.Helper()
	out, err := NewSink(SinkConfig{Config: cfg, Topic: topic, Compression: compression})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	noErrors(t, deliver(t, out, rs...))
	in, err := NewSource(SourceConfig{Config: cfg, Topics: []string{topic}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	ctx := bounded(t)
	found, err := in.Partitions(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range found {
		in.Assign(p.Partition, 0)
	}
	var got []record.Record
	for len(got) < len(rs) {
		b, err := in.Poll(ctx)
		if err != nil {
			t.Fatalf("after %d of %d records: %v", len(got), len(rs), err)
		}
		got = append(got, b.Records...)
	}
	return got
}

func TestSecureListeners(t *testing.T) {
	k := brokers.SharedKafka(t)
	ca := tlsOf(k.TLSDir(), "ca.pem", "", "")
	for name, cfg := range map[string]Config{
		"plain":                  {Brokers: []string{k.SASLAddr()}, SASL: user(Plain, "alice", "alice-secret")},
		"scram-sha-256":          {Brokers: []string{k.SASLAddr()}, SASL: user(ScramSHA256, "alice", "alice-secret")},
		"scram-sha-512":          {Brokers: []string{k.SASLAddr()}, SASL: user(ScramSHA512, "bob", "bob-secret")},
		"tls":                    {Brokers: []string{k.SSLAddr()}, TLS: ca},
		"tls with a server name": {Brokers: []string{k.SSLAddr()}, TLS: tlsOf(k.TLSDir(), "ca.pem", "", "localhost")},
		"mtls":                   {Brokers: []string{k.SSLAddr()}, TLS: tlsOf(k.TLSDir(), "ca.pem", "client", "")},
		"plain, tls":             {Brokers: []string{k.SASLSSLAddr()}, TLS: ca, SASL: user(Plain, "bob", "bob-secret")},
		"scram-sha-256, tls":     {Brokers: []string{k.SASLSSLAddr()}, TLS: ca, SASL: user(ScramSHA256, "alice", "alice-secret")},
		"scram-sha-512, tls":     {Brokers: []string{k.SASLSSLAddr()}, TLS: ca, SASL: user(ScramSHA512, "alice", "alice-secret")},
	} {
		t.Run(name, func(t *testing.T) {
			topic := "secure-" + strings.NewReplacer(",", "", " ", "-").Replace(name)
			topicOn(t, k.Addr(), topic, 1)
			cfg.ClientID, cfg.Rack = "test", "az-1"
			if err := Check(bounded(t), cfg); err != nil {
				t.Error(err)
			}
			if got := through(t, cfg, topic, LZ4, recs(0, 300)); string(got[299].Value) != "299" {
				t.Errorf("the last record is %q", got[299].Value)
			}
		})
	}
}

// Every codec is read by a client that shares no code with ours.
func TestCompressionRealBroker(t *testing.T) {
	k := brokers.SharedKafka(t)
	codecs := []Compression{LZ4, Zstd, Snappy, Gzip, None}
	var logs []string
	for _, codec := range codecs {
		t.Run(string(codec), func(t *testing.T) {
			topic := "compressed-" + string(codec)
			topicOn(t, k.Addr(), topic, 1)
			rs := recs(0, 200)
			for i := range rs {
				rs[i].Value = []byte(strings.Repeat(string(rs[i].Value)+" ", 50))
			}
			got := through(t, Config{Brokers: []string{k.Addr()}}, topic, codec, rs)
			var ours strings.Builder
			for _, r := range got {
				ours.Write(r.Value)
				ours.WriteByte('\n')
			}
			theirs := brokers.Kcat(t, "-b", k.Addr(), "-C", "-t", topic, "-e", "-q")
			if theirs != ours.String() || strings.Count(theirs, "\n") != len(rs) {
				t.Errorf("kcat reads %d bytes, we read %d", len(theirs), ours.Len())
			}
			logs = append(logs, segment(t, k, topic))
		})
	}
	dumped, err := k.Tool("kafka.tools.DumpLogSegments", "--files", strings.Join(logs, ","))
	if err != nil {
		t.Fatal(err)
	}
	for _, codec := range codecs {
		if !strings.Contains(strings.ToLower(dumped), "compresscodec: "+string(codec)) {
			t.Errorf("no batch in the logs is %s: %s", codec, dumped)
		}
	}
}

// segment is the log file of a topic with one partition.
func segment(t *testing.T, k *brokers.Kafka, topic string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(filepath.Dir(k.TLSDir()), "data", topic+"-0", "*.log"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no log of %s: %v", topic, err)
	}
	return files[0]
}

// unused is an address where nothing listens.
func unused(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	return ln.Addr().String()
}

// faulty is a connection that cannot work, with what stands for its addresses
// in the golden file.
type faulty struct {
	name  string
	cfg   Config
	names []string // address, name, and so on
}

func faults(t *testing.T, s *brokers.Kafka, nowhere string) []faulty {
	k := brokers.SharedKafka(t)
	dir := k.TLSDir()
	ca := tlsOf(dir, "ca.pem", "", "")
	strictCA := tlsOf(s.TLSDir(), "ca.pem", "", "")
	foreign := func() (*tls.Config, error) { // a client certificate of another authority
		cfg, err := strictCA()
		if err != nil {
			return nil, err
		}
		other, err := tlsOf(dir, "ca.pem", "client", "")()
		if err != nil {
			return nil, err
		}
		cfg.Certificates = other.Certificates
		return cfg, nil
	}
	unchecked := func() (*tls.Config, error) { // that listener's own certificate has expired
		cfg, err := strictCA()
		if err == nil {
			cfg.InsecureSkipVerify = true
		}
		return cfg, err
	}
	missing := func() (string, string, error) {
		return "", "", record.Errorf(record.Config, "secret \"kafka/alice\" is missing: write it to /secrets/kafka/alice, readable by the node alone")
	}
	at := func(addr string) []string { return []string{addr} }
	addrs := []string{k.Addr(), "PLAINTEXT", k.SASLAddr(), "SASL", k.SSLAddr(), "TLS", k.SASLSSLAddr(), "SASL+TLS", k.ExpiredAddr(), "EXPIRED",
		s.Addr(), "STRICT", s.SASLAddr(), "STRICT-SASL", s.SSLAddr(), "STRICT-TLS", s.ExpiredAddr(), "STRICT-TLS-1.2", s.ProxiedAddr(), "PROXIED", nowhere, "NOWHERE"}
	var all []faulty
	add := func(name string, cfg Config) { all = append(all, faulty{name, cfg, addrs}) }
	add("nothing listens", Config{Brokers: at(nowhere)})
	add("two brokers", Config{Brokers: []string{nowhere, k.SASLAddr()}, SASL: user(Plain, "alice", "wrong")})
	add("no such host", Config{Brokers: at("kafka..invalid:9092")})
	add("wrong password, scram", Config{Brokers: at(k.SASLAddr()), SASL: user(ScramSHA512, "alice", "wrong")})
	add("wrong password, plain", Config{Brokers: at(k.SASLAddr()), SASL: user(Plain, "alice", "wrong")})
	add("no such user", Config{Brokers: at(k.SASLSSLAddr()), TLS: ca, SASL: user(ScramSHA256, "mallory", "alice-secret")})
	add("no password at hand", Config{Brokers: at(k.SASLAddr()), SASL: &SASL{Mechanism: Plain, Credentials: missing}})
	add("no sasl where it is demanded", Config{Brokers: at(k.SASLAddr())})
	add("no sasl where it is demanded, tls", Config{Brokers: at(k.SASLSSLAddr()), TLS: ca})
	add("sasl where there is none", Config{Brokers: at(k.Addr()), SASL: user(ScramSHA512, "alice", "alice-secret")})
	add("sasl where there is none, tls", Config{Brokers: at(k.SSLAddr()), TLS: ca, SASL: user(Plain, "alice", "alice-secret")})
	add("mechanism not enabled", Config{Brokers: at(s.SASLAddr()), SASL: user(ScramSHA256, "alice", "alice-secret")})
	add("wrong authority", Config{Brokers: at(k.SSLAddr()), TLS: tlsOf(dir, "other-ca.pem", "", "")})
	add("the system's authorities", Config{Brokers: at(k.SASLSSLAddr()), TLS: func() (*tls.Config, error) { return &tls.Config{}, nil }, SASL: user(Plain, "alice", "alice-secret")})
	add("expired certificate", Config{Brokers: at(k.ExpiredAddr()), TLS: ca})
	add("another name in the certificate", Config{Brokers: at(k.SSLAddr()), TLS: tlsOf(dir, "ca.pem", "", "kafka.example")})
	add("no tls where it is demanded", Config{Brokers: at(k.SSLAddr())})
	add("no tls where it is demanded, sasl", Config{Brokers: at(k.SASLSSLAddr()), SASL: user(Plain, "alice", "alice-secret")})
	add("tls where there is none", Config{Brokers: at(k.Addr()), TLS: ca})
	add("tls where there is none, sasl", Config{Brokers: at(k.SASLAddr()), TLS: ca, SASL: user(Plain, "alice", "alice-secret")})
	add("no client certificate, tls 1.3", Config{Brokers: at(s.SSLAddr()), TLS: strictCA})
	add("no client certificate, tls 1.2", Config{Brokers: at(s.ExpiredAddr()), TLS: unchecked})
	add("client certificate of another authority", Config{Brokers: at(s.SSLAddr()), TLS: foreign})
	add("advertised address that cannot be reached", Config{Brokers: at(s.ProxiedAddr())})
	return all
}

// connectErrors: what is wrong with a connection is told in the same words by
// `connection test`, by a source and by a sink. The words lie in testdata.
func connectErrors(t *testing.T, s *brokers.Kafka, nowhere string) {
	var golden strings.Builder
	for _, f := range faults(t, s, nowhere) {
		t.Run(f.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			f.cfg.MetadataMinAge, f.cfg.RetryBackoff = 50*time.Millisecond, func(int) time.Duration { return 20 * time.Millisecond }
			err := Check(ctx, f.cfg)
			if err == nil || ctx.Err() != nil {
				t.Fatalf("the check says %v, after %v", err, ctx.Err())
			}
			want := err.Error()
			fmt.Fprintf(&golden, "%s\n    %s\n", f.name, strings.NewReplacer(f.names...).Replace(want))

			in, err := NewSource(SourceConfig{Config: f.cfg, Topics: []string{"t"}})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = in.Close() }()
			go func() { _, _ = in.End(ctx) }()
			in.Assign(record.Partition{Topic: "t"}, 0)
			go func() { _, _ = in.Poll(ctx) }()
			tells(t, "source", want, in.Problem)

			out, err := NewSink(SinkConfig{Config: f.cfg, Topic: "t"})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = out.Close() }()
			begin(ctx, out, recs(0, 1)...)
			tells(t, "sink", want, out.Problem)
		})
	}
	compare(t, "testdata/connect_errors.txt", golden.String())
}

// tells waits until a part names the problem in the words of the check, which
// may have found several.
func tells(t *testing.T, part, want string, problem func() string) {
	t.Helper()
	var last string
	deadline := time.Now().Add(10 * time.Second)
	for ; time.Now().Before(deadline); <-time.After(10 * time.Millisecond) {
		if last = problem(); last != "" && slices.Contains(strings.Split(want, "; "), last) {
			return
		}
	}
	t.Errorf("the %s says %q, want %q", part, last, want)
}

func compare(t *testing.T, path, got string) {
	t.Helper()
	if *rewrite {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != got {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}
