package http

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/record"
)

// certificate makes one for a name, signed by a parent or by itself.
func certificate(t *testing.T, name string, ca bool, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (cert *x509.Certificate, key *ecdsa.PrivateKey, certPEM, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: ca, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if parent == nil {
		parent, parentKey = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	if cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

func TestClientCertificates(t *testing.T) {
	ca, caKey, caPEM, _ := certificate(t, "ca", true, nil, nil)
	_, _, srvPEM, srvKey := certificate(t, "server", false, ca, caKey)
	_, _, ourPEM, ourKey := certificate(t, "millrace", false, ca, caKey)
	pair, err := tls.X509KeyPair(srvPEM, srvKey)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	srv.StartTLS()
	defer srv.Close()

	cfg, err := connector.NewTLS(caPEM, ourPEM, ourKey)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client(t, Config{Base: srv.URL, TLS: cfg}).Send(t.Context(), at(srv, "POST", "/", "x"), 0)
	if err != nil || string(resp.Body) != "millrace" {
		t.Fatalf("got %v, %v", resp, err)
	}
	if cfg, err = connector.NewTLS(caPEM, nil, nil); err != nil {
		t.Fatal(err)
	}
	_, err = client(t, Config{Base: srv.URL, TLS: cfg}).Send(t.Context(), at(srv, "POST", "/", "x"), 0)
	if e := record.AsError(err); e == nil || e.Class != record.Config {
		t.Errorf("without a certificate: got %v, want class config", err)
	}

	for _, tc := range []struct {
		name          string
		ca, cert, key []byte
		want          string
	}{
		{"no certificate in the ca", []byte("s3cret"), nil, nil, "holds no certificate"},
		{"a certificate alone", nil, ourPEM, nil, "both or none"},
		{"a key alone", nil, nil, ourKey, "both or none"},
		{"of another key", nil, ourPEM, srvKey, "cannot be used"},
		{"no key", nil, ourPEM, []byte("s3cret"), "cannot be used"},
	} {
		_, err := connector.NewTLS(tc.ca, tc.cert, tc.key)
		if e := record.AsError(err); e == nil || e.Class != record.Config || !strings.Contains(e.Message, tc.want) || strings.Contains(e.Message, "s3cret") {
			t.Errorf("%s: got %v", tc.name, err)
		}
	}
}
