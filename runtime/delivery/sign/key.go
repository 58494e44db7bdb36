package sign

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"

	"github.com/millrace-io/millrace/runtime/record"
)

// Key is a secret that was read as a key. It is safe for concurrent use and
// shows itself no more than its secret does.
type Key struct {
	name string
	// kind says what the key is, in a message.
	kind  string
	sign  func(a algorithm, message []byte) ([]byte, error)
	admit func(a algorithm) error
	// material is what a library of tokens needs: []byte, *rsa.PrivateKey,
	// *ecdsa.PrivateKey or ed25519.PrivateKey.
	material func() any
}

// Name is the name of the key's secret.
func (k *Key) Name() string { return k.name }

// String names the key's secret.
func (k *Key) String() string { return fmt.Sprintf("key of secret %q", k.name) }

// Format names the key's secret, whatever the verb.
func (k *Key) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, k.String()) }

// Admits reports why the key cannot be used with an algorithm, as a
// *record.Error of class config, or nil.
func (k *Key) Admits(alg Algorithm) error {
	a, ok := lookup(alg)
	if !ok {
		return record.Errorf(record.Config, "sign: %v is unknown; the algorithms are %s", alg, strings.Join(AlgorithmNames(), ", "))
	}
	if err := k.admit(a); err != nil {
		return record.Errorf(record.Config, "sign: secret %q: %w", k.name, err)
	}
	return nil
}

// Sign signs a message. The error is a *record.Error of class config: the key
// is not one for the algorithm.
func (k *Key) Sign(alg Algorithm, message []byte) ([]byte, error) {
	if err := k.Admits(alg); err != nil {
		return nil, err
	}
	a, _ := lookup(alg)
	sig, err := k.sign(a, message)
	if err != nil {
		return nil, record.Errorf(record.Config, "sign: secret %q: %w", k.name, err)
	}
	return sig, nil
}

// SharedKey makes a key for HMAC of a secret that is written in an encoding.
// The error is a *record.Error of class config.
func SharedKey(s Secret, e Encoding) (*Key, error) {
	if s.IsZero() || len(s.bytes()) == 0 {
		return nil, record.Errorf(record.Config, "sign: secret %q is empty: write the key to it", s.name)
	}
	key, err := e.decode(s.bytes())
	if err != nil {
		return nil, record.Errorf(record.Config, "sign: secret %q: %w: correct the secret, or name the encoding that it is written in", s.name, err)
	}
	if len(key) == 0 {
		return nil, record.Errorf(record.Config, "sign: secret %q is empty: write the key to it", s.name)
	}
	return sharedKey(s.name, key), nil
}

func sharedKey(name string, key []byte) *Key {
	return &Key{
		name: name, kind: "a shared key",
		material: func() any { return key },
		admit: func(a algorithm) error {
			if a.family != familyHMAC {
				return fmt.Errorf("a shared key does not go with %s: use one of hmac-*, or give a private key", a.name)
			}
			return nil
		},
		sign: func(a algorithm, message []byte) ([]byte, error) { return mac(a.hash, key, message), nil },
	}
}

func mac(h crypto.Hash, key, message []byte) []byte {
	m := hmac.New(h.New, key)
	m.Write(message)
	return m.Sum(nil)
}

// PrivateKey reads a secret as a private key of RSA, ECDSA or Ed25519: PEM of
// PKCS #1, PKCS #8 or SEC 1, or the base64 of the same DER in one line. In
// PEM, \n may stand for a line end. The error is a *record.Error of class
// config that says what the secret holds instead.
func PrivateKey(s Secret) (*Key, error) {
	key, err := parsePrivate(s.bytes())
	if err != nil {
		return nil, record.Errorf(record.Config, "sign: secret %q: %w", s.name, err)
	}
	return privateKey(s.name, key)
}

func privateKey(name string, private any) (*Key, error) {
	k := &Key{name: name, material: func() any { return private }}
	switch key := private.(type) {
	case *rsa.PrivateKey:
		k.kind = fmt.Sprintf("an RSA key of %d bits", key.N.BitLen())
		k.admit = k.only("rsa-*", familyRSA, familyRSAPSS)
		k.sign = func(a algorithm, message []byte) ([]byte, error) {
			digest := sum(a.hash, message)
			if a.family == familyRSAPSS {
				return rsa.SignPSS(rand.Reader, key, a.hash, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: a.hash})
			}
			return rsa.SignPKCS1v15(nil, key, a.hash, digest)
		}
		// A key that is too short for the library shows with its first signature.
		if _, err := k.sign(algorithm{name: "rsa-sha256", family: familyRSA, hash: crypto.SHA256}, nil); err != nil {
			return nil, record.Errorf(record.Config, "sign: secret %q: %s cannot sign: %w: make a key of 2048 bits or more and give the partner its public part", name, k.kind, err)
		}
	case *ecdsa.PrivateKey:
		k.kind = "an ECDSA key on " + key.Params().Name
		k.admit = k.only("ecdsa-*", familyECDSA, familyECDSARaw)
		k.sign = func(a algorithm, message []byte) ([]byte, error) {
			der, err := ecdsa.SignASN1(rand.Reader, key, sum(a.hash, message))
			if err != nil || a.family == familyECDSA {
				return der, err
			}
			return rawSignature(der, (key.Params().N.BitLen()+7)/8)
		}
	case ed25519.PrivateKey:
		k.kind = "an Ed25519 key"
		k.admit = k.only("ed25519", familyEd25519)
		k.sign = func(_ algorithm, message []byte) ([]byte, error) { return ed25519.Sign(key, message), nil }
	default:
		return nil, record.Errorf(record.Config, "sign: secret %q: a key of a kind that signs nothing here (%T): give one of RSA, ECDSA or Ed25519", name, private)
	}
	return k, nil
}

// only admits the algorithms of some families.
func (k *Key) only(use string, families ...family) func(algorithm) error {
	return func(a algorithm) error {
		for _, f := range families {
			if a.family == f {
				return nil
			}
		}
		return fmt.Errorf("it holds %s, which does not go with %s: use %s, or give a key that fits", k.kind, a.name, use)
	}
}

func sum(h crypto.Hash, message []byte) []byte {
	d := h.New()
	d.Write(message)
	return d.Sum(nil)
}

// rawSignature turns DER into r and s of a width each.
func rawSignature(der []byte, width int) ([]byte, error) {
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &sig); err != nil {
		return nil, err
	}
	out := make([]byte, 2*width)
	sig.R.FillBytes(out[:width])
	sig.S.FillBytes(out[width:])
	return out, nil
}

const wantPrivate = "write the PEM of the private key (PKCS #1, PKCS #8 or SEC 1) to the secret"

// parsePrivate reads a private key. Causes of the parsers are told, as they
// name structures and no content.
func parsePrivate(text []byte) (any, error) {
	text = bytes.TrimSpace(text)
	if len(text) == 0 {
		return nil, errors.New("it is empty: " + wantPrivate)
	}
	if !bytes.Contains(text, []byte("-----BEGIN")) {
		der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(text)), ""))
		if err != nil {
			return nil, errors.New("it is neither PEM nor base64: " + wantPrivate)
		}
		return parseDER("", der)
	}
	if !bytes.Contains(text, []byte("\n")) {
		text = bytes.ReplaceAll(text, []byte(`\n`), []byte("\n"))
	}
	var found []string
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		text = rest
		switch {
		case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "":
			return nil, errors.New("the private key is encrypted with a passphrase: decrypt it with `openssl pkey -in key.pem -out plain.pem` and write that to the secret")
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			return parseDER(block.Type, block.Bytes)
		case block.Type != "EC PARAMETERS":
			found = append(found, strings.ToLower(block.Type))
		}
	}
	if len(found) == 0 {
		return nil, errors.New("the PEM in it is damaged: " + wantPrivate)
	}
	return nil, fmt.Errorf("there is no private key in it, but a %s: %s", strings.Join(found, " and a "), wantPrivate)
}

// parseDER reads the DER of a private key whose PEM says it is of a type, ""
// where nothing says so. The structure decides, not the type.
func parseDER(label string, der []byte) (any, error) {
	pkcs8, err8 := x509.ParsePKCS8PrivateKey(der)
	if err8 == nil {
		return pkcs8, nil
	}
	pkcs1, err1 := x509.ParsePKCS1PrivateKey(der)
	if err1 == nil {
		return pkcs1, nil
	}
	sec1, errEC := x509.ParseECPrivateKey(der)
	if errEC == nil {
		return sec1, nil
	}
	switch label {
	case "":
		return nil, errors.New("its base64 holds no private key: " + wantPrivate)
	case "RSA PRIVATE KEY":
		err8 = err1
	case "EC PRIVATE KEY":
		err8 = errEC
	}
	return nil, fmt.Errorf("its %s cannot be read: %w: %s", strings.ToLower(label), err8, wantPrivate)
}
