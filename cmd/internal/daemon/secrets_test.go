package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/runtime/delivery"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

func TestSecrets(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"partner/token": "s3cr3t\n", "empty": "\n", "two": "a\nb\n"} {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := secrets(dir).get("partner/token"); err != nil || got != "s3cr3t" {
		t.Errorf("got %q, %v", got, err)
	}
	for name, want := range map[string]string{"missing": "is missing: write it to", "empty": "is empty", "two": "in one line", "../outside": "below the secrets folder"} {
		_, err := secrets(dir).get(name)
		if e := record.AsError(err); e == nil || e.Class != record.Config || !strings.Contains(e.Message, want) || !strings.Contains(e.Message, name) {
			t.Errorf("%s: got %v, want class config with %q", name, err, want)
		}
	}
}

// A partner that sends back what it was sent must not bring a token into
// listings and failure entries.
func TestSecretsDoNotComeBackInMessages(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, "you sent %s and %s", r.Header.Get("Authorization"), r.Header.Get("X-Key"))
	}))
	defer srv.Close()
	dir := t.TempDir()
	for _, name := range []string{"token", "key"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("s3cr3t-"+name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := &parts{secrets: secrets(dir), connections: newConnections(), connection: func(_, _ string) (*flow.Connection, error) {
		return &flow.Connection{Name: "partner", HTTP: &flow.HTTPConnection{Base: srv.URL, Bearer: &flow.Secret{Name: "token"},
			Headers: []flow.ConnectionHeader{{Name: "X-Key", Secret: &flow.Secret{Name: "key"}}}}}, nil
	}}
	f := &flow.Flow{Project: "default", Name: "x", Order: flow.OrderKey, Delivery: flow.Delivery{ID: "push", HTTP: &flow.HTTPPush{Connection: "partner", Method: "POST", Path: "/"}}}
	outs, err := p.outlets(f, delivery.Identity{})
	if err != nil {
		t.Fatal(err)
	}
	defer outs.Close()
	out := outs.list[0].Open(record.Partition{Topic: "t"}, nil)
	defer out.Close()
	answered := make(chan record.Outcome, 1)
	out.Deliver(context.Background(), []record.Item{{Record: record.Record{Value: []byte("v"), Attempt: 1}}}, func(_ int, o record.Outcome) { answered <- o })
	o := <-answered
	e, ok := errors.AsType[*record.Error](o.Err)
	if !ok || e.Code != 400 || !strings.Contains(e.Message, "you sent *") || strings.Contains(fmt.Sprintf("%v %+v", e, e.Err), "s3cr3t") {
		t.Errorf("got %+v, want the answer without its secrets", e)
	}
	if x := o.Exchange; x == nil || x.Status != 400 || strings.Contains(fmt.Sprintf("%q %s", x.RequestHeaders, x.ResponseBody), "s3cr3t") {
		t.Errorf("got %+v, want the exchange without secrets", o.Exchange)
	}
}

func TestKeysMayHaveLines(t *testing.T) {
	dir := t.TempDir()
	pem := "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"
	for name, content := range map[string]string{"pem": pem + "\n", "two": "a\nb\n", "one": "abc\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"pem": pem, "one": "abc"} {
		if got, err := secrets(dir).key(name); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
	if _, err := secrets(dir).key("two"); err == nil || !strings.Contains(err.Error(), "in one line") {
		t.Errorf("two lines that are no PEM: %v", err)
	}
}
