package sign

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
)

func b64(t *testing.T, s string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func number(t *testing.T, s string) *big.Int { return new(big.Int).SetBytes(b64(t, s)) }

func TestHMACKnownAnswers(t *testing.T) {
	for _, tc := range []struct {
		name    string
		key     []byte
		message string
		alg     Algorithm
		want    string
	}{
		{"RFC 2104, 1", bytes.Repeat([]byte{0x0b}, 16), "Hi There", HMACMD5, "9294727a3638bb1c13f48ef8158bfc9d"},
		{"RFC 2104, 2", []byte("Jefe"), "what do ya want for nothing?", HMACMD5, "750c783e6ab0b503eaa86e310a5db738"},
		{"RFC 2202, 2", []byte("Jefe"), "what do ya want for nothing?", HMACSHA1, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"},
		{"RFC 4231, 1", bytes.Repeat([]byte{0x0b}, 20), "Hi There", HMACSHA256, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
		{"RFC 4231, 1", bytes.Repeat([]byte{0x0b}, 20), "Hi There", HMACSHA384, "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9cb6"},
		{"RFC 4231, 1", bytes.Repeat([]byte{0x0b}, 20), "Hi There", HMACSHA512, "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cdedaa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854"},
		{"RFC 4231, 2", []byte("Jefe"), "what do ya want for nothing?", HMACSHA256, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
	} {
		t.Run(fmt.Sprint(tc.name, " ", tc.alg), func(t *testing.T) {
			for _, e := range []Encoding{Plain, Base64, Base64URL, Hex, HexUpper} {
				written := tc.key
				if e != Plain {
					written = []byte(e.encode(tc.key))
				}
				k, err := SharedKey(NewSecret("k", written), e)
				if err != nil {
					t.Fatal(err)
				}
				got, err := k.Sign(tc.alg, []byte(tc.message))
				if err != nil || hex.EncodeToString(got) != tc.want {
					t.Errorf("key in %v: got %x, %v; want %s", e, got, err, tc.want)
				}
			}
		})
	}
}

// The payload of the examples in RFC 7515, appendix A.
const jwsPayload = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"

func TestJWSKnownAnswers(t *testing.T) {
	t.Run("A.1 HS256", func(t *testing.T) {
		k, err := SharedKey(NewSecret("k", []byte("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")), Base64URL)
		if err != nil {
			t.Fatal(err)
		}
		sig, err := k.Sign(HMACSHA256, []byte("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9."+jwsPayload))
		if got, want := Base64URL.encode(sig), "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"; err != nil || got != want {
			t.Errorf("got %s, %v; want %s", got, err, want)
		}
	})
	t.Run("A.2 RS256", func(t *testing.T) {
		n := number(t, "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ")
		p := number(t, "4BzEEOtIpmVdVEZNCqS7baC4crd0pqnRH_5IB3jw3bcxGn6QLvnEtfdUdiYrqBdss1l58BQ3KhooKeQTa9AB0Hw_Py5PJdTJNPY8cQn7ouZ2KKDcmnPGBY5t7yLc1QlQ5xHdwW1VhvKn-nXqhJTBgIPgtldC-KDV5z-y2XDwGUc")
		private := &rsa.PrivateKey{
			PublicKey: rsa.PublicKey{N: n, E: 65537},
			D:         number(t, "Eq5xpGnNCivDflJsRQBXHx1hdR1k6Ulwe2JZD50LpXyWPEAeP88vLNO97IjlA7_GQ5sLKMgvfTeXZx9SE-7YwVol2NXOoAJe46sui395IW_GO-pWJ1O0BkTGoVEn2bKVRUCgu-GjBVaYLU6f3l9kJfFNS3E0QbVdxzubSu3Mkqzjkn439X0M_V51gfpRLI9JYanrC4D4qAdGcopV_0ZHHzQlBjudU2QvXt4ehNYTCBr6XCLQUShb1juUO1ZdiYoFaFQT5Tw8bGUl_x_jTj3ccPDVZFD9pIuhLhBOneufuBiB4cS98l2SR_RQyGWSeWjnczT0QU91p1DhOVRuOopznQ"),
			Primes:    []*big.Int{p, new(big.Int).Div(n, p)},
		}
		private.Precompute()
		k, err := PrivateKey(NewSecret("k", pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(private))))
		if err != nil {
			t.Fatal(err)
		}
		sig, err := k.Sign(RSASHA256, []byte("eyJhbGciOiJSUzI1NiJ9."+jwsPayload))
		want := "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
		if got := Base64URL.encode(sig); err != nil || got != want {
			t.Errorf("got %s, %v; want %s", got, err, want)
		}
	})
	t.Run("A.3 ES256", func(t *testing.T) {
		private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), b64(t, "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"))
		if err != nil {
			t.Fatal(err)
		}
		message := []byte("eyJhbGciOiJFUzI1NiJ9." + jwsPayload)
		digest := sha256.Sum256(message)
		verify := func(sig []byte) bool {
			return len(sig) == 64 && ecdsa.Verify(&private.PublicKey, digest[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:]))
		}
		if !verify(b64(t, "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q")) {
			t.Fatal("the test's verification does not take the example of the RFC")
		}
		der, err := x509.MarshalECPrivateKey(private)
		if err != nil {
			t.Fatal(err)
		}
		k, err := PrivateKey(NewSecret("k", pemOf("EC PRIVATE KEY", der)))
		if err != nil {
			t.Fatal(err)
		}
		for range 64 { // r or s is short in one of 128
			sig, err := k.Sign(ECDSARawSHA256, message)
			if err != nil || !verify(sig) {
				t.Fatalf("signature %x does not verify: %v", sig, err)
			}
		}
	})
}

func TestRawSignaturesHaveTheirWidth(t *testing.T) {
	der, err := asn1.Marshal(struct{ R, S *big.Int }{big.NewInt(0x0102), big.NewInt(3)})
	if err != nil {
		t.Fatal(err)
	}
	got, err := rawSignature(der, 4)
	if err != nil || !bytes.Equal(got, []byte{0, 0, 1, 2, 0, 0, 0, 3}) {
		t.Errorf("got %x, %v", got, err)
	}
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// keys are made once: an RSA key takes a while.
var keys = sync.OnceValue(func() (k struct {
	rsa     *rsa.PrivateKey
	p256    *ecdsa.PrivateKey
	p384    *ecdsa.PrivateKey
	ed      ed25519.PrivateKey
	pkcs8   map[string][]byte
	publics map[string][]byte
},
) {
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	var err error
	k.rsa, err = rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	k.p256, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	k.p384, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(err)
	_, k.ed, err = ed25519.GenerateKey(rand.Reader)
	must(err)
	k.pkcs8, k.publics = map[string][]byte{}, map[string][]byte{}
	for name, key := range map[string]crypto.Signer{"rsa": k.rsa, "p256": k.p256, "p384": k.p384, "ed": k.ed} {
		k.pkcs8[name], err = x509.MarshalPKCS8PrivateKey(key)
		must(err)
		k.publics[name], err = x509.MarshalPKIXPublicKey(key.Public())
		must(err)
	}
	return k
})

func TestPrivateKeyAlgorithms(t *testing.T) {
	message := []byte("over this")
	s1, s2, s3 := sha256.Sum256(message), sha512.Sum384(message), sha512.Sum512(message)
	pss := func(h crypto.Hash, digest []byte) func([]byte) bool {
		return func(sig []byte) bool {
			return rsa.VerifyPSS(&keys().rsa.PublicKey, h, digest, sig, &rsa.PSSOptions{SaltLength: h.Size()}) == nil
		}
	}
	v15 := func(h crypto.Hash, digest []byte) func([]byte) bool {
		return func(sig []byte) bool { return rsa.VerifyPKCS1v15(&keys().rsa.PublicKey, h, digest, sig) == nil }
	}
	raw := func(k *ecdsa.PrivateKey, width int, digest []byte) func([]byte) bool {
		return func(sig []byte) bool {
			return len(sig) == 2*width && ecdsa.Verify(&k.PublicKey, digest, new(big.Int).SetBytes(sig[:width]), new(big.Int).SetBytes(sig[width:]))
		}
	}
	for _, tc := range []struct {
		key    string
		alg    Algorithm
		verify func([]byte) bool
	}{
		{"rsa", RSASHA256, v15(crypto.SHA256, s1[:])},
		{"rsa", RSASHA384, v15(crypto.SHA384, s2[:])},
		{"rsa", RSASHA512, v15(crypto.SHA512, s3[:])},
		{"rsa", RSASHA1, v15(crypto.SHA1, sum(crypto.SHA1, message))},
		{"rsa", RSAPSSSHA256, pss(crypto.SHA256, s1[:])},
		{"rsa", RSAPSSSHA384, pss(crypto.SHA384, s2[:])},
		{"rsa", RSAPSSSHA512, pss(crypto.SHA512, s3[:])},
		{"p256", ECDSASHA256, func(sig []byte) bool { return ecdsa.VerifyASN1(&keys().p256.PublicKey, s1[:], sig) }},
		{"p384", ECDSASHA384, func(sig []byte) bool { return ecdsa.VerifyASN1(&keys().p384.PublicKey, s2[:], sig) }},
		{"p256", ECDSARawSHA256, raw(keys().p256, 32, s1[:])},
		{"p384", ECDSARawSHA384, raw(keys().p384, 48, s2[:])},
		{"p384", ECDSARawSHA512, raw(keys().p384, 48, s3[:])},
		{"ed", Ed25519, func(sig []byte) bool {
			return ed25519.Verify(keys().ed.Public().(ed25519.PublicKey), message, sig)
		}},
	} {
		t.Run(fmt.Sprint(tc.key, " ", tc.alg), func(t *testing.T) {
			k, err := PrivateKey(NewSecret("partner/key", pemOf("PRIVATE KEY", keys().pkcs8[tc.key])))
			if err != nil {
				t.Fatal(err)
			}
			sig, err := k.Sign(tc.alg, message)
			if err != nil || !tc.verify(sig) {
				t.Errorf("signature %x does not verify: %v", sig, err)
			}
			for _, wrong := range []Algorithm{HMACSHA256, RSASHA256, ECDSASHA256, Ed25519} {
				if mine, _ := lookup(tc.alg); mine.family == must(lookup(wrong)).family || mine.family == familyRSAPSS && wrong == RSASHA256 || mine.family == familyECDSARaw && wrong == ECDSASHA256 {
					continue
				}
				if _, err := k.Sign(wrong, message); record.AsError(err) == nil || record.AsError(err).Class != record.Config || !strings.Contains(err.Error(), `secret "partner/key"`) {
					t.Errorf("signed with %v: %v", wrong, err)
				}
			}
		})
	}
}

func must(a algorithm, ok bool) algorithm {
	if !ok {
		panic("unknown algorithm")
	}
	return a
}

func TestPrivateKeyForms(t *testing.T) {
	sec1, err := x509.MarshalECPrivateKey(keys().p256)
	if err != nil {
		t.Fatal(err)
	}
	rsaPEM := pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(keys().rsa))
	oneLine := base64.StdEncoding.EncodeToString(keys().pkcs8["rsa"])
	for name, text := range map[string][]byte{
		"PKCS #1":                    rsaPEM,
		"PKCS #8":                    pemOf("PRIVATE KEY", keys().pkcs8["rsa"]),
		"SEC 1":                      pemOf("EC PRIVATE KEY", sec1),
		"parameters before SEC 1":    append(pemOf("EC PARAMETERS", []byte{6, 8, 42, 134, 72, 206, 61, 3, 1, 7}), pemOf("EC PRIVATE KEY", sec1)...),
		"certificate before the key": append(pemOf("CERTIFICATE", []byte{1}), rsaPEM...),
		"text around":                append([]byte("subject=partner\n"), append(rsaPEM, "\nthe end"...)...),
		"base64 of DER in one line":  []byte(oneLine),
		"base64 of DER, wrapped":     []byte(oneLine[:64] + "\r\n" + oneLine[64:] + "\n"),
		"PEM in one line":            bytes.ReplaceAll(rsaPEM, []byte("\n"), []byte(`\n`)),
		"PKCS #8 under another name": pemOf("RSA PRIVATE KEY", keys().pkcs8["rsa"]),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := PrivateKey(NewSecret("k", text)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestWrongKeys(t *testing.T) {
	secretText := "hunter2-hunter2-hunter2"
	encrypted := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}, Bytes: []byte{1, 2, 3}})
	short, err := rsaBelowLimit()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, text, want string
	}{
		{"empty", " \n", "is empty"},
		{"a password", secretText, "neither PEM nor base64"},
		{"base64 of something", base64.StdEncoding.EncodeToString([]byte(secretText)), "holds no private key"},
		{"a public key", string(pemOf("PUBLIC KEY", keys().publics["rsa"])), "no private key in it, but a public key"},
		{"a certificate", string(pemOf("CERTIFICATE", []byte{1, 2})), "but a certificate"},
		{"encrypted PKCS #8", string(pemOf("ENCRYPTED PRIVATE KEY", []byte{1})), "openssl pkey -in"},
		{"encrypted PKCS #1", string(encrypted), "encrypted with a passphrase"},
		{"damaged PEM", strings.Replace(string(pemOf("PRIVATE KEY", keys().pkcs8["rsa"])), "-----END", "----", 1), "is damaged"},
		{"damaged DER", string(pemOf("PRIVATE KEY", keys().pkcs8["rsa"][:100])), "cannot be read"},
		{"too short", string(pemOf("PRIVATE KEY", short)), "2048 bits or more"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := PrivateKey(NewSecret("partner/rsa", []byte(tc.text)))
			e := record.AsError(err)
			if e == nil || e.Class != record.Config || !strings.Contains(e.Message, `secret "partner/rsa"`) || !strings.Contains(e.Message, tc.want) {
				t.Errorf("got %v, want class config, the secret's name and %q", err, tc.want)
			}
			if e != nil && strings.Contains(e.Message, "hunter2") {
				t.Errorf("the message tells the secret: %s", e.Message)
			}
		})
	}
	for _, e := range []Encoding{Base64, Base64URL, Hex} {
		_, err := SharedKey(NewSecret("partner/hmac", []byte(secretText+"!")), e)
		if err == nil || !strings.Contains(err.Error(), `secret "partner/hmac"`) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("key in %v: got %v", e, err)
		}
	}
}

// rsaBelowLimit is the PKCS #8 of an RSA key of 512 bits, which is read and
// may not sign.
func rsaBelowLimit() ([]byte, error) {
	p, _ := new(big.Int).SetString("e7abbc65c0d7e4c4a4a6d1d9b5a6b0d5e8c3a1f5b6d7e8f90a1b2c3d4e5f6071", 16)
	for !p.ProbablyPrime(20) {
		p.Add(p, big.NewInt(1))
	}
	q := new(big.Int).Add(p, new(big.Int).Lsh(big.NewInt(1), 200))
	for e := big.NewInt(65537); ; q.Add(q, big.NewInt(1)) {
		if !q.ProbablyPrime(20) {
			continue
		}
		n := new(big.Int).Mul(p, q)
		one := big.NewInt(1)
		phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
		d := new(big.Int).ModInverse(e, phi)
		if d == nil {
			continue
		}
		return x509.MarshalPKCS8PrivateKey(&rsa.PrivateKey{PublicKey: rsa.PublicKey{N: n, E: 65537}, D: d, Primes: []*big.Int{p, q}})
	}
}

func TestAlgorithmNumbersAndNames(t *testing.T) {
	want := "1 hmac-md5, 2 hmac-sha1, 3 hmac-sha256, 4 hmac-sha384, 5 hmac-sha512, 16 rsa-sha1, 17 rsa-sha256, 18 rsa-sha384, 19 rsa-sha512, " +
		"32 rsa-pss-sha256, 33 rsa-pss-sha384, 34 rsa-pss-sha512, 48 ecdsa-sha256, 49 ecdsa-sha384, 50 ecdsa-sha512, 64 ecdsa-raw-sha256, 65 ecdsa-raw-sha384, 66 ecdsa-raw-sha512, 80 ed25519"
	var got []string
	for _, name := range AlgorithmNames() {
		a, err := ParseAlgorithm(name)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(uint32(a), " ", a))
	}
	if strings.Join(got, ", ") != want {
		t.Errorf("guests and recordings hold these:\ngot  %s\nwant %s", strings.Join(got, ", "), want)
	}
	for _, e := range []Encoding{Plain, Base64, Base64URL, Base64URLPadded, Hex, HexUpper} {
		if back, err := ParseEncoding(e.String()); err != nil || back != e {
			t.Errorf("encoding %v: got %v, %v", e, back, err)
		}
	}
	for e, want := range map[Encoding]string{Base64: "+/8=", Base64URL: "-_8", Base64URLPadded: "-_8=", Hex: "fbff", HexUpper: "FBFF"} {
		if got := e.encode([]byte{0xfb, 0xff}); got != want {
			t.Errorf("%v: got %s, want %s", e, got, want)
		}
	}
}

// The examples get-vanilla and post-vanilla of the AWS signature version 4
// test suite: a canonical request, its digest in the text, a derived key.
func TestCanonicalRequestWithDerivedKey(t *testing.T) {
	for method, want := range map[string]string{
		"GET":  "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
		"POST": "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
	} {
		s, err := New(Config{
			Now:    func() time.Time { return time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC) },
			Header: []Named{{"X-Amz-Date", `${time.Format("20060102T150405Z")}`}},
			Vars:   map[string]any{"region": "us-east-1"},
			Signature: &Signature{
				Algorithm: HMACSHA256, Key: NewSecret("aws", []byte("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")), KeyPrefix: "AWS4",
				Derive:        []string{`${time.Format("20060102")}`, "vars.region", `"service"`, `"aws4_request"`},
				SignedHeaders: []string{"X-Amz-Date", "Host"},
				Canonical:     "${request.method}\n${request.path_encoded_twice}\n${request.query_encoded}\n${request.header_lines}\n${request.header_names}\n${request.body_sha256}",
				Over:          "AWS4-HMAC-SHA256\n${request.headers[\"x-amz-date\"]}\n${time.Format(\"20060102\")}/${vars.region}/service/aws4_request\n${request.canonical_sha256}",
				Encoding:      Hex, Header: "Authorization",
				Value: `AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/${time.Format("20060102")}/${vars.region}/service/aws4_request, SignedHeaders=${request.header_names}, Signature=${request.signature}`,
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		u, _ := url.Parse("https://example.amazonaws.com/")
		a, err := s.Sign(t.Context(), &Request{Method: method, URL: u})
		if err != nil {
			t.Fatal(err)
		}
		want = "Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=host;x-amz-date, Signature=" + want
		if got := fmt.Sprint(a.Header[len(a.Header)-1]); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", method, got, want)
		}
	}
}
