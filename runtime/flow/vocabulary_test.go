package flow

import (
	"context"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/runtime/delivery/sign"
	"github.com/millrace-io/millrace/runtime/delivery/verdict"
	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/record"
)

// What a document may say of signatures and answers is what the packages that
// make and judge them know: this one must not import them.

func TestAlgorithmsAreThoseOfPackageSign(t *testing.T) {
	got := []string{"ed25519"}
	for kind, names := range algorithms {
		for _, name := range names {
			got = append(got, kind+"-"+name)
		}
	}
	want := sign.AlgorithmNames()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, set := range []map[string]string{encodings, keyEncodings} {
		for name, e := range set {
			if _, err := sign.ParseEncoding(e); err != nil {
				t.Errorf("encoding %s: %v", name, err)
			}
		}
	}
	for _, alg := range jwtAlgorithms {
		_, err := sign.New(sign.Config{JWT: &sign.JWT{Algorithm: alg, Key: sign.NewSecret("k", []byte("key"))}})
		if err != nil && strings.Contains(err.Error(), "is unknown") {
			t.Errorf("%s: %v", alg, err)
		}
	}
}

func TestFieldsOfARequestAreThoseOfPackageSign(t *testing.T) {
	over := func(src string) error {
		_, err := sign.New(sign.Config{Signature: &sign.Signature{Algorithm: sign.HMACSHA256, Key: sign.NewSecret("k", []byte("key")), Over: src, Header: "X-Sign", Canonical: "request.body", SignedHeaders: []string{"host"}}})
		return err
	}
	shape := requestShape(true, true)
	for name := range shape {
		if err := over("request." + name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	err := over("request.zzzzzzzzzz")
	if err == nil {
		t.Fatal("a field that no request has is taken")
	}
	_, list, _ := strings.Cut(err.Error(), "the fields are ")
	names := regexp.MustCompile(`\w+`).FindAllString(strings.Split(list, ", and ")[0], -1)
	if len(names) < 15 {
		t.Fatalf("the fields are not listed: %v", err)
	}
	for _, name := range names {
		if _, ok := shape[name]; !ok && name != "signature" {
			t.Errorf("%s is not known to the linter", name)
		}
	}
}

func TestFieldsOfAnAnswerAreThoseOfPackageVerdict(t *testing.T) {
	for _, field := range slices.Sorted(maps.Keys(verdictShapes[expr.Response])) {
		if _, err := verdict.New(verdict.Config{Each: "[response." + field + "]"}); err != nil {
			t.Errorf("%s: %v", field, err)
		}
	}
	_, err := verdict.New(verdict.Config{Each: "response.nothing"})
	if err == nil {
		t.Fatal("a field that no answer has is taken")
	}
	_, list, _ := strings.Cut(err.Error(), "they are ")
	for _, m := range regexp.MustCompile(`response\.(\w+)`).FindAllStringSubmatch(list, -1) {
		if _, ok := verdictShapes[expr.Response][m[1]]; !ok {
			t.Errorf("response.%s is not known to the linter", m[1])
		}
	}
}

// Everything that the linter lets pass can be made.
func TestWhatIsLintedCompiles(t *testing.T) {
	made := map[string]int{}
	for _, d := range resolveFile(t, "testdata/valid/delivery.yaml") {
		if d.Flow == nil {
			continue
		}
		f := d.Flow
		deliveries := f.Deliveries()
		for i := range f.Exceptions {
			deliveries = append(deliveries, &f.Exceptions[i].Push)
		}
		for _, d := range deliveries {
			if v := d.Validate; v != nil && v.Plugin == nil {
				if _, err := verdict.New(verdict.Config{OK: v.OK, Retry: v.Retry, Reject: v.Reject, Each: v.Each, ItemID: v.ItemID, Vars: f.Vars, Env: f.Env}); err != nil {
					t.Errorf("%s: %v", d.ID, err)
				}
				made["validate"]++
			}
			s := d.Sign
			if s == nil || s.Plugin != nil {
				continue
			}
			cfg := sign.Config{Header: named(s.Headers), Query: named(s.Params), Vars: f.Vars, Env: f.Env}
			secret := func(s Secret) sign.Secret { return sign.NewSecret(s.Name, []byte("c2VjcmV0LWtleQ==")) }
			switch {
			case s.Signature != nil:
				if !strings.HasPrefix(s.Signature.Algorithm, "hmac") {
					continue // needs a key of its own
				}
				sig := s.Signature
				alg, err := sign.ParseAlgorithm(sig.Algorithm)
				if err != nil {
					t.Error(err)
				}
				enc, err := sign.ParseEncoding(sig.Encoding)
				if err != nil {
					t.Error(err)
				}
				keyEnc, err := sign.ParseEncoding(sig.KeyEncoding)
				if err != nil {
					t.Error(err)
				}
				cfg.Signature = &sign.Signature{Algorithm: alg, Key: secret(sig.Key), KeyEncoding: keyEnc, KeyPrefix: sig.KeyPrefix, Derive: sig.Derive,
					SignedHeaders: sig.SignedHeaders, Canonical: sig.Canonical, Over: sig.Over, Encoding: enc, Header: sig.Header, Query: sig.Query, Value: sig.Value}
			case s.JWT != nil:
				cfg.JWT = &sign.JWT{Algorithm: s.JWT.Algorithm, Key: secret(s.JWT.Key), Claims: named(s.JWT.Claims), Lifetime: s.JWT.Lifetime, Header: s.JWT.Header, Prefix: s.JWT.Prefix}
			case s.OAuth2 != nil:
				cfg.OAuth2 = &sign.OAuth2{TokenURL: s.OAuth2.TokenURL, ClientID: s.OAuth2.ClientID, ClientSecret: secret(s.OAuth2.ClientSecret), Scopes: s.OAuth2.Scopes, Params: named(s.OAuth2.Params)}
			case s.APIKey != nil:
				cfg.APIKey = &sign.APIKey{Key: secret(s.APIKey.Key), Header: s.APIKey.Header, Query: s.APIKey.Query, Prefix: s.APIKey.Prefix}
			case s.Basic != nil:
				cfg.Basic = &sign.Basic{User: s.Basic.User, Password: secret(s.Basic.Password)}
			}
			if _, err := sign.New(cfg); err != nil {
				t.Errorf("%s: %v", d.ID, err)
			}
			made[s.kind()]++
		}
	}
	want := map[string]int{"validate": 1, "hmac-sha256": 5, "jwt HS256": 1, "oauth2": 1, "api_key": 1, "basic": 1}
	if !maps.Equal(made, want) {
		t.Errorf("made %v, want %v", made, want)
	}
}

func named(ps []Param) []sign.Named {
	var out []sign.Named
	for _, p := range ps {
		out = append(out, sign.Named{Name: p.Name, Value: p.Value})
	}
	return out
}

// The example of the Standard Webhooks specification.
func TestWebhookSignsAsSpecified(t *testing.T) {
	docs, ps := Parse("a", []byte("flow: v1\nname: a\nsource: kafka://main/in\nstages: [ { push: { webhook: { url: https://hooks.example/in, secret: { secret: hooks/key } } } } ]\n"), Options{})
	if ps.HasErrors() {
		t.Fatal(ps.Render())
	}
	s := docs[0].Flow.Delivery.Sign
	key, found := strings.CutPrefix("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", s.Signature.KeyTrim)
	alg, err1 := sign.ParseAlgorithm(s.Signature.Algorithm)
	keyEncoding, err2 := sign.ParseEncoding(s.Signature.KeyEncoding)
	encoding, err3 := sign.ParseEncoding(s.Signature.Encoding)
	if !found || err1 != nil || err2 != nil || err3 != nil {
		t.Fatal(found, err1, err2, err3)
	}
	signing, err := sign.New(sign.Config{
		Header: named(s.Headers),
		Signature: &sign.Signature{Algorithm: alg, Key: sign.NewSecret(s.Signature.Key.Name, []byte(key)), KeyEncoding: keyEncoding, Encoding: encoding,
			Over: s.Signature.Over, Header: s.Signature.Header, Value: s.Signature.Value},
		Now: func() time.Time { return time.Unix(1614265330, 0) },
	})
	if err != nil {
		t.Fatal(err)
	}
	r := &sign.Request{Method: "POST", URL: &url.URL{Scheme: "https", Host: "hooks.example", Path: "/in"}, Body: []byte(`{"test": 2432232314}`),
		Header: []record.Header{{Key: "Idempotency-Key", Value: []byte("msg_p5jXN8AQM9LWM0D4loKWxJek")}}}
	a, err := signing.Sign(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, f := range a.Header {
		got[f.Name] = f.Value
	}
	want := map[string]string{"webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek", "webhook-timestamp": "1614265330", "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
