package sign

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/runtime/record"
)

const senderKey = "a sender's key of some length"

func verifier(t *testing.T, change func(*Signature)) *Verifier {
	t.Helper()
	cfg := &Signature{Algorithm: HMACSHA256, Key: NewSecret("sender/key", []byte(senderKey)), Over: "request.body", Header: "X-Sign", Encoding: Hex}
	if change != nil {
		change(cfg)
	}
	v, err := NewVerifier(Config{Signature: cfg})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func macOf(text string) string {
	m := hmac.New(sha256.New, []byte(senderKey))
	m.Write([]byte(text))
	return hex.EncodeToString(m.Sum(nil))
}

func TestVerify(t *testing.T) {
	canonical := func(s *Signature) {
		s.Over, s.Value = `${request.method}
${request.path}?${request.query}
${request.headers["x-time"]}
${request.body_sha256}`, "v1=${request.signature}"
	}
	bodySum := sha256.Sum256([]byte("the body"))
	signedText := "POST\n/v1/ingest/default/a%20b?x=1&y=%2F\n1700000000\n" + hex.EncodeToString(bodySum[:])
	for _, c := range []struct {
		name   string
		change func(*Signature)
		header map[string][]string
		want   string // in the error; "" for none
	}{
		{"right", nil, map[string][]string{"X-Sign": {macOf("the body")}}, ""},
		{"blanks around it", nil, map[string][]string{"X-Sign": {" " + macOf("the body") + " "}}, ""},
		{"missing", nil, nil, "not signed"},
		{"empty", nil, map[string][]string{"X-Sign": {""}}, "not signed"},
		{"twice", nil, map[string][]string{"X-Sign": {macOf("the body"), macOf("the body")}}, "not signed"},
		{"of another body", nil, map[string][]string{"X-Sign": {macOf("another")}}, "not that of the request"},
		{"in another case", nil, map[string][]string{"X-Sign": {strings.ToUpper(macOf("the body"))}}, "not that of the request"},
		{"cut", nil, map[string][]string{"X-Sign": {macOf("the body")[:10]}}, "not that of the request"},
		{"canonical", canonical, map[string][]string{"X-Sign": {"v1=" + macOf(signedText)}, "X-Time": {"1700000000"}}, ""},
		{"canonical, another time", canonical, map[string][]string{"X-Sign": {"v1=" + macOf(signedText)}, "X-Time": {"1700000001"}}, "not that of the request"},
		{"canonical, no time", canonical, map[string][]string{"X-Sign": {"v1=" + macOf(signedText)}}, "lacks something that is signed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodPost, "/v1/ingest/default/a%20b?x=1&y=%2F", nil)
			for name, values := range c.header {
				r.Header[name] = values
			}
			err := verifier(t, c.change).Verify(t.Context(), r, []byte("the body"))
			if c.want == "" {
				if err != nil {
					t.Fatalf("got %v", err)
				}
				return
			}
			e := record.AsError(err)
			if e == nil || e.Class != record.Rejected || !strings.Contains(e.Message, c.want) {
				t.Fatalf("got %v, want class rejected and %q", err, c.want)
			}
			if text := fmt.Sprintf("%+v", err); strings.Contains(text, macOf("the body")) || strings.Contains(text, senderKey) {
				t.Errorf("the error tells what was expected: %s", text)
			}
		})
	}
}

func TestVerifierThatCannotBe(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no signature":  {func(c *Config) { c.Signature = nil }, "in one header"},
		"a query":       {func(c *Config) { c.Signature.Header, c.Signature.Query = "", "sign" }, "in one header"},
		"own fields":    {func(c *Config) { c.Header = []Named{{"X-Time", "now"}} }, "in one header"},
		"a private key": {func(c *Config) { c.Signature.Algorithm = RSASHA256 }, "hmac-*"},
		"our nonce":     {func(c *Config) { c.Signature.Over = "${request.nonce}${request.body}" }, "request.nonce is ours"},
		"our time":      {func(c *Config) { c.Signature.Canonical = "${time}"; c.Signature.Over = "request.canonical" }, "time is ours"},
		"a mistake":     {func(c *Config) { c.Signature.Over = "request.boody" }, "request.body"},
		"no key":        {func(c *Config) { c.Signature.Key = NewSecret("sender/key", nil) }, "sender/key"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{Signature: &Signature{Algorithm: HMACSHA256, Key: NewSecret("sender/key", []byte(senderKey)), Over: "request.body", Header: "X-Sign"}}
			c.change(&cfg)
			if _, err := NewVerifier(cfg); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}
