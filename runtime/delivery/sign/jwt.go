package sign

import (
	"context"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/record"
)

// DefaultTokenLifetime is how long a JWT is valid where nothing else is said.
const DefaultTokenLifetime = 5 * time.Minute

// TokenSigner makes JWTs (RFC 7519). It stands for a library: this package
// writes claims, and no token.
type TokenSigner interface {
	// SignToken returns the compact form of a token with a header and claims.
	// alg is one of RFC 7518 section 3 or EdDSA; key is a []byte,
	// *rsa.PrivateKey, *ecdsa.PrivateKey or ed25519.PrivateKey that goes with
	// it. header holds what stands beside alg. Errors do not show the key.
	// It is safe for concurrent use.
	SignToken(alg string, key any, header, claims map[string]any) (string, error)
}

// JWT sends a token that is made for each attempt.
type JWT struct {
	// Algorithm is HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384,
	// PS512, ES256, ES384, ES512 or EdDSA.
	Algorithm string
	// Key is a shared key for HS*, else a private key.
	Key Secret
	// KeyEncoding is how a shared key is written in its secret; default Plain.
	KeyEncoding Encoding
	// KeyID is the header kid; "" for none.
	KeyID string
	// Type is the header typ; "" is JWT.
	Type string
	// Claims are set to the value of their template: of a template that is
	// one expression its value with its type, else a string. They win over
	// iat, exp and jti.
	Claims []Named
	// Lifetime is exp minus iat, in whole seconds; 0 is DefaultTokenLifetime.
	Lifetime time.Duration
	// NoID leaves out jti, which is new for every attempt.
	NoID bool
	// Header is the name that the token is sent by; "" is Authorization.
	Header string
	// Prefix stands before the token; nil is "Bearer ".
	Prefix *string
}

// jwtFamilies are the algorithms and the keys they go with.
var jwtFamilies = map[string]Algorithm{
	"HS256": HMACSHA256, "HS384": HMACSHA384, "HS512": HMACSHA512,
	"RS256": RSASHA256, "RS384": RSASHA384, "RS512": RSASHA512,
	"PS256": RSAPSSSHA256, "PS384": RSAPSSSHA384, "PS512": RSAPSSSHA512,
	"ES256": ECDSARawSHA256, "ES384": ECDSARawSHA384, "ES512": ECDSARawSHA512,
	"EdDSA": Ed25519,
}

var jwtNames = []string{"HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// jwtCurves are the curves that RFC 7518 ties to an algorithm.
var jwtCurves = map[string]string{"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}

type webToken struct {
	cfg    JWT
	key    *Key
	signer TokenSigner
	claims []named
}

func (c *compiler) jwt(cfg *JWT, signer TokenSigner) kind {
	j := &webToken{cfg: *cfg, signer: signer}
	if signer == nil {
		j.signer = library{}
	}
	if j.cfg.Lifetime == 0 {
		j.cfg.Lifetime = DefaultTokenLifetime
	}
	if j.cfg.Lifetime < time.Second {
		c.fail("jwt: a lifetime of %s: give it a second or more", j.cfg.Lifetime)
	}
	if j.cfg.Header == "" {
		j.cfg.Header = "Authorization"
	}
	if j.cfg.Prefix == nil {
		bearer := "Bearer "
		j.cfg.Prefix = &bearer
	}
	if j.cfg.Type == "" {
		j.cfg.Type = "JWT"
	}
	c.name("header", j.cfg.Header)
	var seen []string
	for _, claim := range cfg.Claims {
		if claim.Name == "" || slices.Contains(seen, claim.Name) {
			c.fail("jwt: claim %q is there twice or has no name", claim.Name)
		}
		seen = append(seen, claim.Name)
		if t := c.template("claim "+claim.Name, claim.Value); t != nil {
			j.claims = append(j.claims, named{claim.Name, t})
		}
	}
	alg, ok := jwtFamilies[cfg.Algorithm]
	if !ok {
		c.fail("jwt: algorithm %q is unknown: use one of %s", cfg.Algorithm, strings.Join(jwtNames, ", "))
		return j
	}
	var err error
	if strings.HasPrefix(cfg.Algorithm, "HS") {
		j.key, err = SharedKey(cfg.Key, cfg.KeyEncoding)
	} else {
		j.key, err = PrivateKey(cfg.Key)
	}
	if err == nil {
		err = j.key.Admits(alg)
	}
	if err != nil {
		c.failed(err)
		return j
	}
	if curve := jwtCurves[cfg.Algorithm]; curve != "" && !strings.HasSuffix(j.key.kind, " "+curve) {
		c.fail("secret %q: it holds %s, and %s needs one on %s: use the algorithm of the curve, or give a key that fits", j.key.name, j.key.kind, cfg.Algorithm, curve)
	}
	return j
}

func (j *webToken) sign(_ context.Context, a *Additions, r *Request, e *evaluation) error {
	e.see(r, e.wants)
	issued := e.now.Unix()
	claims := map[string]any{"iat": issued, "exp": issued + int64(j.cfg.Lifetime/time.Second)}
	if !j.cfg.NoID {
		claims["jti"] = hex.EncodeToString(e.nonce[:])
	}
	for _, c := range j.claims {
		v, err := claimValue(c.value, e.env)
		if err != nil {
			return err
		}
		claims[c.name] = v
	}
	header := map[string]any{"typ": j.cfg.Type}
	if j.cfg.KeyID != "" {
		header["kid"] = j.cfg.KeyID
	}
	token, err := j.signer.SignToken(j.cfg.Algorithm, j.key.material(), header, claims)
	if err != nil {
		return record.Errorf(record.Config, "sign: make a token with secret %q: %w", j.key.name, err)
	}
	a.Header = append(a.Header, Field{Name: j.cfg.Header, Value: *j.cfg.Prefix + token, Credential: true})
	return nil
}

// claimValue is the value of a claim: times in Unix seconds, as RFC 7519 has
// them.
func claimValue(t *expr.Template, env *expr.Env) (any, error) {
	p := t.Single()
	if p == nil {
		return t.Text(env)
	}
	v, err := p.Any(env)
	if err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case nil:
		return nil, record.Errorf(record.Schema, "sign: claim `%s` is nil: give it a default with ??", t.Source())
	case time.Time:
		return v.Unix(), nil
	case time.Duration:
		return int64(v / time.Second), nil
	}
	return v, nil
}
