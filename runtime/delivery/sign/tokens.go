package sign

import (
	"maps"

	"github.com/golang-jwt/jwt/v5"
)

// library signs JWTs with golang-jwt.
type library struct{}

// SignToken implements TokenSigner.
func (library) SignToken(alg string, key any, header, claims map[string]any) (string, error) {
	t := jwt.NewWithClaims(jwt.GetSigningMethod(alg), jwt.MapClaims(claims))
	maps.Copy(t.Header, header)
	return t.SignedString(key)
}
