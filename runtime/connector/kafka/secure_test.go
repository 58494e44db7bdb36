package kafka

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/record"
)

// login is what a node has as user and password, which a test changes.
type login struct {
	user string

	mu       sync.Mutex
	password string // guarded by mu
	err      error  // guarded by mu
}

func (l *login) set(password string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.password, l.err = password, err
}

func (l *login) get() (string, string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.user, l.password, l.err
}

// secured is config for a broker with a login.
func (r *restartable) secured(l *login, m Mechanism) Config {
	cfg := config(r.c)
	cfg.SASL = &SASL{Mechanism: m, Credentials: l.get}
	return cfg
}

// newSecured is a broker that takes one user.
func newSecured(t *testing.T, method, password string) *restartable {
	r := &restartable{t: t, dir: t.TempDir(), addr: "127.0.0.1:0"}
	r.start(kfake.SeedTopics(1, "out"), kfake.EnableSASL(), kfake.Superuser(method, "alice", password))
	r.addr = r.c.ListenAddrs()[0]
	t.Cleanup(func() { r.c.Close() })
	return r
}

// A password that is wrong for a while, with records under way: none fails and
// none is passed over, and they go on once it is right.
func TestPasswordWrongForAWhile(t *testing.T) {
	for method, m := range map[string]Mechanism{"PLAIN": Plain, "SCRAM-SHA-256": ScramSHA256, "SCRAM-SHA-512": ScramSHA512} {
		t.Run(method, func(t *testing.T) {
			r := newSecured(t, method, "right")
			l := &login{user: "alice", password: "right"}
			cfg := r.secured(l, m)
			out, err := NewSink(SinkConfig{Config: cfg, Topic: "out"})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = out.Close() }()
			in, err := NewSource(SourceConfig{Config: cfg, Topics: []string{"out"}, FetchMaxWait: 20 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = in.Close() }()
			p := record.Partition{Topic: "out"}
			in.Assign(p, 0)
			noErrors(t, deliver(t, out, recs(0, 100)...))
			if got := drain(t, in, p, 100); len(got) != 100 {
				t.Fatalf("%d records before", len(got))
			}

			r.c.Close()
			l.set("wrong", nil)
			r.start(kfake.EnableSASL()) // which keeps its users
			var all []*answers
			for i := 100; i < 600; i += 100 {
				all = append(all, begin(t.Context(), out, recs(i, i+100)...))
			}
			ctx := bounded(t)
			polled := make(chan error, 1)
			var values []string
			go func() {
				for len(values) < 500 {
					b, err := in.Poll(ctx)
					if err != nil {
						polled <- err
						return
					}
					for _, rec := range b.Records {
						values = append(values, string(rec.Value))
					}
				}
				polled <- nil
			}()
			for part, problem := range map[string]func() string{"sink": out.Problem, "source": in.Problem} {
				eventually(t, part+"'s problem", func() bool {
					return strings.Contains(problem(), `it closed the connection at the login of the user "alice"`) // as the fake does
				})
			}
			l.set("", errors.New("the secret is just being written"))
			eventually(t, "the missing secret", func() bool { return strings.Contains(out.Problem(), "just being written") })
			l.set("right", nil)
			for _, a := range all {
				noErrors(t, a.wait(t))
			}
			if err := <-polled; err != nil {
				t.Fatal(err)
			}
			next := 100
			for _, v := range values {
				if v == numbers(next + 1)[next] {
					next++
				}
			}
			if next != 600 {
				t.Errorf("the values are not in order: %q", values)
			}
		})
	}
}

// authority signs certificates for 127.0.0.1.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T, name string) *authority {
	a := &authority{t: t}
	pair, der := a.issue(name, time.Now().Add(time.Hour))
	a.key = pair.PrivateKey.(*ecdsa.PrivateKey)
	a.cert, a.pem = pair.Leaf, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return a
}

// issue makes a certificate; the authority's own while it has none.
func (a *authority) issue(name string, until time.Time) (tls.Certificate, []byte) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until,
		IsCA: a.cert == nil, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, der
}

// A certificate that expires and is renewed by another authority while records
// are under way: they wait, and go on once the node has the authority.
func TestCertificatesRenewed(t *testing.T) {
	one, two := newAuthority(t, "one"), newAuthority(t, "two")
	serve := func(a *authority, until time.Time) kfake.Opt {
		cert, _ := a.issue("server", until)
		return kfake.TLS(&tls.Config{Certificates: []tls.Certificate{cert}})
	}
	later := time.Now().Add(time.Hour)
	r := &restartable{t: t, dir: t.TempDir(), addr: "127.0.0.1:0"}
	r.start(kfake.SeedTopics(1, "out"), serve(one, later))
	r.addr = r.c.ListenAddrs()[0]
	t.Cleanup(func() { r.c.Close() })

	var ca atomic.Pointer[[]byte]
	ca.Store(&one.pem)
	cfg := config(r.c)
	cfg.TLS = func() (*tls.Config, error) { return connector.NewTLS(*ca.Load(), nil, nil) }
	s, err := NewSink(SinkConfig{Config: cfg, Topic: "out"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	noErrors(t, deliver(t, s, recs(0, 100)...))

	r.c.Close()
	r.start(serve(one, time.Now().Add(-time.Hour)))
	a := begin(t.Context(), s, recs(100, 200)...)
	eventually(t, "the expired certificate", func() bool { return strings.Contains(s.Problem(), "the broker's certificate expired at ") })
	r.c.Close()
	r.start(serve(two, later))
	eventually(t, "the unknown authority", func() bool { return strings.Contains(s.Problem(), "(issued by CN=two) does not lead to an authority") })
	b := begin(t.Context(), s, recs(200, 300)...)
	broken := []byte("half of a file")
	ca.Store(&broken)
	eventually(t, "the broken file", func() bool { return strings.Contains(s.Problem(), "holds no certificate in PEM") })
	ca.Store(&two.pem)
	noErrors(t, a.wait(t))
	noErrors(t, b.wait(t))
	r.c.Close()
	r.start() // without TLS, to read
	order(t, r.c, 300)
}

func TestSecurityValidated(t *testing.T) {
	creds := func() (string, string, error) { return "", "", nil }
	for _, tc := range []struct {
		name, want string
		sasl       *SASL
	}{
		{"no mechanism", `mechanism "": it is one of plain, scram-sha-256, scram-sha-512`, &SASL{Credentials: creds}},
		{"unknown mechanism", `mechanism "gssapi"`, &SASL{Mechanism: "gssapi", Credentials: creds}},
		{"no credentials", "no credentials", &SASL{Mechanism: Plain}},
	} {
		if err := (Config{Brokers: []string{"a:1"}, SASL: tc.sasl}).Validate(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
	}
}

func TestWarning(t *testing.T) {
	secure := func() (*tls.Config, error) { return nil, nil }
	for _, tc := range []struct {
		name string
		cfg  Config
		warn bool
	}{
		{"nothing", Config{}, false},
		{"plain", Config{SASL: user(Plain, "a", "b")}, true},
		{"plain over tls", Config{SASL: user(Plain, "a", "b"), TLS: secure}, false},
		{"scram", Config{SASL: user(ScramSHA256, "a", "b")}, false},
	} {
		if w := tc.cfg.Warning(); (w != "") != tc.warn {
			t.Errorf("%s: warning %q", tc.name, w)
		}
	}
}
