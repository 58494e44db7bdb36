package sign

import (
	"crypto"
	_ "crypto/md5" // the digests of the algorithms
	_ "crypto/sha1"
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// Algorithm is a way to sign a message with a key. The names stand in
// documents and the numbers in recordings and in calls of guests: neither
// ever changes.
type Algorithm uint32

// The algorithms. MD5 and SHA-1 are for partners that have nothing better.
const (
	HMACMD5    Algorithm = 1
	HMACSHA1   Algorithm = 2
	HMACSHA256 Algorithm = 3
	HMACSHA384 Algorithm = 4
	HMACSHA512 Algorithm = 5

	// RSA with the padding of PKCS #1 v1.5.
	RSASHA1   Algorithm = 16
	RSASHA256 Algorithm = 17
	RSASHA384 Algorithm = 18
	RSASHA512 Algorithm = 19

	// RSA-PSS with a salt as long as the digest.
	RSAPSSSHA256 Algorithm = 32
	RSAPSSSHA384 Algorithm = 33
	RSAPSSSHA512 Algorithm = 34

	// ECDSA on P-256, P-384 or P-521; the signature in DER.
	ECDSASHA256 Algorithm = 48
	ECDSASHA384 Algorithm = 49
	ECDSASHA512 Algorithm = 50

	// The same; the signature is r and s, each as long as the curve's order.
	ECDSARawSHA256 Algorithm = 64
	ECDSARawSHA384 Algorithm = 65
	ECDSARawSHA512 Algorithm = 66

	Ed25519 Algorithm = 80
)

type family uint8

const (
	familyHMAC family = iota + 1
	familyRSA
	familyRSAPSS
	familyECDSA
	familyECDSARaw
	familyEd25519
)

type algorithm struct {
	id     Algorithm
	name   string
	family family
	hash   crypto.Hash
}

var algorithms = []algorithm{
	{HMACMD5, "hmac-md5", familyHMAC, crypto.MD5},
	{HMACSHA1, "hmac-sha1", familyHMAC, crypto.SHA1},
	{HMACSHA256, "hmac-sha256", familyHMAC, crypto.SHA256},
	{HMACSHA384, "hmac-sha384", familyHMAC, crypto.SHA384},
	{HMACSHA512, "hmac-sha512", familyHMAC, crypto.SHA512},
	{RSASHA1, "rsa-sha1", familyRSA, crypto.SHA1},
	{RSASHA256, "rsa-sha256", familyRSA, crypto.SHA256},
	{RSASHA384, "rsa-sha384", familyRSA, crypto.SHA384},
	{RSASHA512, "rsa-sha512", familyRSA, crypto.SHA512},
	{RSAPSSSHA256, "rsa-pss-sha256", familyRSAPSS, crypto.SHA256},
	{RSAPSSSHA384, "rsa-pss-sha384", familyRSAPSS, crypto.SHA384},
	{RSAPSSSHA512, "rsa-pss-sha512", familyRSAPSS, crypto.SHA512},
	{ECDSASHA256, "ecdsa-sha256", familyECDSA, crypto.SHA256},
	{ECDSASHA384, "ecdsa-sha384", familyECDSA, crypto.SHA384},
	{ECDSASHA512, "ecdsa-sha512", familyECDSA, crypto.SHA512},
	{ECDSARawSHA256, "ecdsa-raw-sha256", familyECDSARaw, crypto.SHA256},
	{ECDSARawSHA384, "ecdsa-raw-sha384", familyECDSARaw, crypto.SHA384},
	{ECDSARawSHA512, "ecdsa-raw-sha512", familyECDSARaw, crypto.SHA512},
	{Ed25519, "ed25519", familyEd25519, 0},
}

func lookup(a Algorithm) (algorithm, bool) {
	i := slices.IndexFunc(algorithms, func(x algorithm) bool { return x.id == a })
	if i < 0 {
		return algorithm{}, false
	}
	return algorithms[i], true
}

// AlgorithmNames lists the names in their documented order.
func AlgorithmNames() []string {
	names := make([]string, len(algorithms))
	for i, a := range algorithms {
		names[i] = a.name
	}
	return names
}

func (a Algorithm) String() string {
	if x, ok := lookup(a); ok {
		return x.name
	}
	return fmt.Sprintf("algorithm(%d)", uint32(a))
}

// ParseAlgorithm reads an algorithm's name.
func ParseAlgorithm(s string) (Algorithm, error) {
	for _, a := range algorithms {
		if a.name == s {
			return a.id, nil
		}
	}
	return 0, fmt.Errorf("parse algorithm %q: unknown; the algorithms are %s", s, strings.Join(AlgorithmNames(), ", "))
}

// Encoding is how bytes are written as text.
type Encoding uint8

// The encodings. The zero Encoding is Base64 for a signature and Plain for a
// key.
const (
	DefaultEncoding Encoding = iota
	// Plain is the bytes themselves; for keys only.
	Plain
	// Base64 is padded, Base64URL is not and has - and _; Base64URLPadded is.
	Base64
	Base64URL
	Base64URLPadded
	// Hex is in lower case.
	Hex
	HexUpper
	numEncodings
)

var encodingNames = [numEncodings]string{"", "plain", "base64", "base64url", "base64url_padded", "hex", "hex_upper"}

func (e Encoding) String() string {
	if e < numEncodings {
		return encodingNames[e]
	}
	return fmt.Sprintf("encoding(%d)", uint8(e))
}

// ParseEncoding reads an encoding's name; "" is DefaultEncoding.
func ParseEncoding(s string) (Encoding, error) {
	if i := slices.Index(encodingNames[:], s); i >= 0 {
		return Encoding(i), nil
	}
	return 0, fmt.Errorf("parse encoding %q: unknown; the encodings are %s", s, strings.Join(encodingNames[1:], ", "))
}

// encode writes a signature.
func (e Encoding) encode(b []byte) string {
	switch e {
	case Base64URL:
		return base64.RawURLEncoding.EncodeToString(b)
	case Base64URLPadded:
		return base64.URLEncoding.EncodeToString(b)
	case Hex:
		return hex.EncodeToString(b)
	case HexUpper:
		return strings.ToUpper(hex.EncodeToString(b))
	}
	return base64.StdEncoding.EncodeToString(b)
}

// decode reads a key.
func (e Encoding) decode(b []byte) ([]byte, error) {
	text := strings.TrimSpace(string(b))
	var out []byte
	var err error
	switch e {
	case Base64:
		out, err = base64.StdEncoding.DecodeString(text)
	case Base64URL, Base64URLPadded:
		out, err = base64.RawURLEncoding.DecodeString(strings.TrimRight(text, "="))
	case Hex, HexUpper:
		out, err = hex.DecodeString(text)
	default:
		return b, nil
	}
	if err != nil { // the cause would quote a part of the key
		return nil, fmt.Errorf("it is not %s", e)
	}
	return out, nil
}
