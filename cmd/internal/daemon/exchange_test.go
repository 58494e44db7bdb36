package daemon

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/plugins/plugintest/guests"
	"github.com/millrace-io/millrace/runtime/delivery/sign"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

func uploadBytes(t *testing.T, d *Daemon, file string, wasm []byte) string {
	t.Helper()
	p, err := d.UploadPlugin(t.Context(), file, bytes.NewReader(wasm))
	if err != nil {
		t.Fatal(err)
	}
	return p.Digest
}

// Plugins sign each attempt with keys that they never see, and judge answers.
func TestPluginsSignAndValidate(t *testing.T) {
	broker := startBroker(t)
	tries := map[string]int{}
	p := startPartner(t, func(r received) (int, string) {
		tries[r.body]++ // one request at a time
		switch {
		case strings.Contains(r.body, "refuse"):
			return 200, `{"code":7}`
		case strings.Contains(r.body, "later") && tries[r.body] < 3:
			return 200, `{"code":429}`
		}
		return 500, `{"code":0}`
	})
	dir := t.TempDir()
	secretFile(t, dir, "k0", "key-0\n")
	secretFile(t, dir, "k1", "key-1\n")
	d, _ := life(t, dir)
	connect(t, d, broker.Addr())
	files := map[string]string{"./sign.wasm": uploadBytes(t, d, "sign.wasm", guests.Sign), "./check.wasm": uploadBytes(t, d, "check.wasm", guests.Check)}
	feed(t, kafkaClient(t, broker.Addr()), "in", "k", `{"a":"fine"}`, "k", `{"a":"refuse"}`, "k", `{"a":"later"}`)
	mustPut(t, d, &api.PutFlow{Files: files, Document: pushing(p, "order: partition\n", `    sign: { plugin: ./sign.wasm, with: { header: X-Mac, key: 1, query: sig }, keys: { first: { secret: k0 }, second: { secret: k1 } } }
    validate: ./check.wasm
    retry: { first: 10ms, max: 20ms }
`)})
	settled(t, d, "push", 3)
	if tries[`{"a":"fine"}`] != 1 || tries[`{"a":"refuse"}`] != 1 || tries[`{"a":"later"}`] != 3 {
		t.Errorf("tries %v", tries)
	}
	for _, r := range p.all() {
		h := hmac.New(sha256.New, []byte("key-1"))
		h.Write([]byte(r.body))
		if want := hex.EncodeToString(h.Sum(nil)); r.header.Get("X-Mac") != want {
			t.Errorf("%s is signed with %q, want %q", r.body, r.header.Get("X-Mac"), want)
		}
	}
	e := failures(t, d, api.FailureFilter{}).Entries
	if len(e) != 1 || e[0].Class != record.Rejected || e[0].Stage != "deliver" || !strings.Contains(e[0].Message, "status 200") {
		t.Errorf("entries %+v", e)
	}
	if a := accounted(t, d, "push"); a.Delivered != 2 || a.Filed != 1 {
		t.Errorf("receipt %+v", a)
	}
	f, err := d.store.Flow("default", "push")
	if err != nil {
		t.Fatal(err)
	}
	rev, err := d.store.FlowRevision(f.ID, f.Revision)
	if err != nil || len(rev.Pins) != 2 || rev.Pins[0].Stage != "deliver.sign" || rev.Pins[1].Stage != "deliver.validate" {
		t.Errorf("pins %+v, %v", rev.Pins, err)
	}
}

func TestSigningKeysOfPlugins(t *testing.T) {
	key, err := sign.SharedKey(sign.NewSecret("k", []byte("secret")), sign.Plain)
	if err != nil {
		t.Fatal(err)
	}
	signs := signingKeys(sign.Keys{key})
	if got, err := signs(0, uint32(sign.HMACSHA256), []byte("m")); err != nil || len(got) != 32 {
		t.Errorf("got %x, %v", got, err)
	}
	for name, c := range map[string][2]uint32{"no such key": {1, uint32(sign.HMACSHA256)}, "no such algorithm": {0, 999}, "another kind of key": {0, uint32(sign.Ed25519)}} {
		if got, err := signs(c[0], c[1], []byte("m")); err == nil {
			t.Errorf("%s: got %x", name, got)
		}
	}
}

// certificate makes a certificate for 127.0.0.1, signed by a parent or itself.
func certificate(t *testing.T, parent *tls.Certificate) (tls.Certificate, []byte, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: parent == nil, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, DNSNames: []string{"localhost"},
	}
	issuer, signer := tmpl, any(key)
	if parent != nil {
		if issuer, err = x509.ParseCertificate(parent.Certificate[0]); err != nil {
			t.Fatal(err)
		}
		signer = parent.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, issuer, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	c := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return c, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

func TestConnectionWithCertificates(t *testing.T) {
	broker := startBroker(t)
	authority, authorityPEM, _ := certificate(t, nil)
	server, _, _ := certificate(t, &authority)
	_, clientPEM, clientKey := certificate(t, &authority)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authorityPEM)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) == 0 {
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{server}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	srv.StartTLS()
	defer srv.Close()
	dir := t.TempDir()
	secretFile(t, dir, "tls/key", string(clientKey))
	d, _ := life(t, dir)
	connect(t, d, broker.Addr())
	indent := func(b []byte) string { return strings.ReplaceAll(strings.TrimSpace(string(b)), "\n", "\n      ") }
	base := strings.Replace(srv.URL, "127.0.0.1", "localhost", 1)
	doc := fmt.Sprintf("connection: v1\nname: secure\nhttp:\n  base: %s\n  tls:\n    ca: |\n      %s\n    cert: |\n      %s\n    key: { secret: tls/key }\n", base, indent(authorityPEM), indent(clientPEM))
	if _, err := d.PutConnection(t.Context(), &api.PutConnection{Document: doc}); err != nil {
		t.Fatal(err)
	}
	if c, err := d.TestConnection(t.Context(), "secure"); err != nil || !c.OK {
		t.Errorf("test of the connection: %+v, %v", c, err)
	}
	feed(t, kafkaClient(t, broker.Addr()), "in", "k", "v")
	mustPut(t, d, &api.PutFlow{Document: "flow: v1\nname: push\nsource: kafka://main/in\nstages:\n  - push: { http: { connection: secure, post: /x } }\n"})
	settled(t, d, "push", 1)
	if a := accounted(t, d, "push"); a.Delivered != 1 {
		t.Errorf("receipt %+v", a)
	}
}

func TestMetricsOfDeliveries(t *testing.T) {
	d, _ := rejected(t, 2, "limits: { records: 500/s }\nqueue: { keep: 1h }\n")
	shown := httptest.NewRecorder()
	d.metrics.handler().ServeHTTP(shown, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	text := shown.Body.String()
	for _, line := range []string{
		`millrace_unaccounted_records{flow="default/push"} 0`, `millrace_flow_held{flow="default/push"} 0`, `millrace_kept_records{flow="default/push"} 0`,
		`millrace_receipt_records{flow="default/push",outcome="filed"} 2`, `millrace_receipt_records{flow="default/push",outcome="delivered"} 1`,
		`millrace_failure_queue_used_ratio{bound="entries",flow="default/push"} 2e-05`, `millrace_failure_queue_used_ratio{bound="age",flow="default/push"}`,
		`millrace_connection_breaker_open{connection="http://127.0.0.1:`,
	} {
		if !strings.Contains(text, line) {
			t.Errorf("no %s in\n%s", line, grepLines(text, "default/push"))
		}
	}
	if f := status(t, d, "push"); f.Rate == nil || f.Rate.Allowed != 500 {
		t.Errorf("rate %+v", f.Rate)
	}
}

func grepLines(text, part string) string {
	var out []string
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}

// A delivery over HTTP works without a node too: it tries again in memory.
func TestLocalDeliveryOverHTTP(t *testing.T) {
	n := 0
	p := startPartner(t, func(r received) (int, string) {
		n++ // one request at a time
		switch {
		case n <= 2:
			return 503, ""
		case strings.HasPrefix(r.body, "no"):
			return 400, ""
		}
		return 200, ""
	})
	docs, ps := flow.Parse("f.yaml", []byte("flow: v1\nname: push\nsource: { stream: {} }\norder: partition\nstages:\n  - id: deliver\n    push: "+p.URL+"/x\n    retry: { first: 10ms, max: 20ms, spill: 1ms }\n"), flow.Options{})
	if ps.HasErrors() {
		t.Fatal(ps.Render())
	}
	doc, ps := flow.Resolve(docs[0], flow.Inputs{}, flow.Options{})
	if ps.HasErrors() {
		t.Fatal(ps.Render())
	}
	var failed []string
	c, err := RunLocal(t.Context(), Local{
		Flow: doc.Flow, In: strings.NewReader("one\nno\ntwo\n"), Out: &bytes.Buffer{}, Logger: testLogger(t),
		Failures: func(e *record.Entry) error { failed = append(failed, string(e.Input.Value)); return nil },
	})
	if err != nil || c.In != 3 || c.Emitted != 2 || c.Failed != 1 {
		t.Errorf("%+v, %v", c, err)
	}
	if got := strings.Join(p.bodies(), " "); got != "one two" || strings.Join(failed, " ") != "no" {
		t.Errorf("delivered %q, failed %q", got, failed)
	}
}
