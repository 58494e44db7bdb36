package sign

import (
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// TestTokensVerify lets the library's own verification read what is sent.
func TestTokensVerify(t *testing.T) {
	shared := NewSecret("partner/shared", []byte("a-key-that-is-shared-with-the-partner"))
	private := func(name string) Secret { return NewSecret("partner/"+name, pemOf("PRIVATE KEY", keys().pkcs8[name])) }
	for alg, key := range map[string]struct {
		secret Secret
		public any
	}{
		"HS256": {shared, shared.bytes()}, "HS384": {shared, shared.bytes()}, "HS512": {shared, shared.bytes()},
		"RS256": {private("rsa"), &keys().rsa.PublicKey}, "RS384": {private("rsa"), &keys().rsa.PublicKey}, "RS512": {private("rsa"), &keys().rsa.PublicKey},
		"PS256": {private("rsa"), &keys().rsa.PublicKey}, "PS384": {private("rsa"), &keys().rsa.PublicKey}, "PS512": {private("rsa"), &keys().rsa.PublicKey},
		"ES256": {private("p256"), &keys().p256.PublicKey}, "ES384": {private("p384"), &keys().p384.PublicKey},
		"EdDSA": {private("ed"), keys().ed.Public()},
	} {
		t.Run(alg, func(t *testing.T) {
			s := signing(t, Config{Tokens: library{}, JWT: &JWT{Algorithm: alg, Key: key.secret, KeyID: "k1", Lifetime: time.Minute, Claims: []Named{{"iss", "acme"}}}})
			a, err := s.Sign(t.Context(), request(t, "POST", "https://h/", "b"))
			if err != nil {
				t.Fatal(err)
			}
			token, err := jwt.Parse(strings.TrimPrefix(a.Header[0].Value, "Bearer "), func(*jwt.Token) (any, error) { return key.public, nil },
				jwt.WithValidMethods([]string{alg}), jwt.WithIssuer("acme"), jwt.WithTimeFunc(func() time.Time { return noon.Add(30 * time.Second) }), jwt.WithExpirationRequired())
			if err != nil || token.Header["kid"] != "k1" || token.Header["typ"] != "JWT" {
				t.Errorf("got %v, %v", token, err)
			}
		})
	}
}
