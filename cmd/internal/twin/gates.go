package twin

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-io/millrace/runtime/expr"
)

// window holds when the last requests were admitted, as a ring: no window of
// time, wherever it begins, holds more of them than the ring is long.
type window struct {
	times []time.Duration
	next  int
}

// admit takes a request at the time now, or tells how long to wait.
func (w *window) admit(r *rate, now time.Duration) (wait time.Duration, ok bool) {
	if len(w.times) < r.requests {
		w.times = append(w.times, now)
		return 0, true
	}
	if wait := w.times[w.next] + r.window - now; wait > 0 {
		return wait, false
	}
	w.times[w.next] = now
	w.next = (w.next + 1) % len(w.times)
	return 0, true
}

// retryAfter is the header's value for a wait: whole seconds, rounded up.
func (r *rate) retryAfter(now time.Time, wait time.Duration) string {
	switch r.after {
	case "none":
		return ""
	case "date":
		at := now.Add(wait).Truncate(time.Second)
		if at.Before(now.Add(wait)) {
			at = at.Add(time.Second)
		}
		return at.UTC().Format(http.TimeFormat)
	}
	return strconv.FormatInt(max(1, int64((wait+time.Second-1)/time.Second)), 10)
}

// What the check of a signature found.
const (
	signatureOK      = "ok"
	signatureMissing = "missing"
	signatureWrong   = "wrong"
	signatureStale   = "stale"    // the time that was signed is too far away
	signatureNonce   = "replayed" // its nonce was seen before
)

func newHash(name string) func() hash.Hash {
	switch name {
	case "md5":
		return md5.New
	case "sha1":
		return sha1.New
	case "sha512":
		return sha512.New
	}
	return sha256.New
}

// verify checks all of a signature but the nonce, which it returns.
func (s *signature) verify(key []byte, req *http.Request, e *expr.Env, now time.Time) (result, nonce string, err error) {
	sent := req.Header.Get(s.header)
	if sent == "" {
		return signatureMissing, "", nil
	}
	var over string
	if s.over != nil {
		over, err = s.over.Text(e)
	} else {
		over, err = s.overExpr.Text(e)
	}
	if err != nil {
		return signatureWrong, "", err
	}
	mac := hmac.New(newHash(s.hash), key)
	mac.Write([]byte(over))
	got, ok := strings.CutPrefix(sent, s.prefix)
	var sum []byte
	switch s.encoding {
	case "base64":
		sum, err = base64.StdEncoding.DecodeString(got)
	case "base64url":
		sum, err = base64.RawURLEncoding.DecodeString(strings.TrimRight(got, "="))
	default:
		sum, err = hex.DecodeString(got)
	}
	if !ok || err != nil || !hmac.Equal(sum, mac.Sum(nil)) {
		return signatureWrong, "", nil
	}
	if s.time != nil {
		at, err := signedTime(s.time, e)
		if err != nil {
			return signatureWrong, "", err
		}
		if d := now.Sub(at); d > s.within || d < -s.within {
			return signatureStale, "", nil
		}
	}
	if s.nonce != nil {
		if nonce, err = s.nonce.Text(e); err != nil || nonce == "" {
			return signatureWrong, "", err
		}
	}
	return signatureOK, nonce, nil
}

// signedTime reads Unix seconds or milliseconds, or RFC 3339.
func signedTime(p *expr.Program, e *expr.Env) (time.Time, error) {
	s, err := p.Text(e)
	if err != nil {
		return time.Time{}, err
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		if n > 100_000_000_000 {
			return time.UnixMilli(n), nil
		}
		return time.Unix(n, 0), nil
	}
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("time of the signature: %q is no Unix time and no RFC 3339", s)
	}
	return at, nil
}

func equal(a string, b []byte) bool { return subtle.ConstantTimeCompare([]byte(a), b) == 1 }

// authorized reports whether a request shows the route's credential.
func (t *Twin) authorized(r *route, req *http.Request, now time.Time) bool {
	a := r.config.auth
	switch {
	case a == nil:
		return true
	case a.kind == "header":
		return equal(req.Header.Get(a.header), r.credential)
	case a.kind == "basic":
		user, password, ok := req.BasicAuth()
		return ok && user == a.user && equal(password, r.credential)
	}
	scheme, token, ok := strings.Cut(req.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "bearer") {
		return false
	}
	if a.kind == "bearer" {
		return equal(token, r.credential)
	}
	return t.oauth.good(token, now)
}

// oauth is a token endpoint. Its fields below config are guarded by Twin.mu.
type oauth struct {
	config *oauthConfig
	secret []byte
	seed   uint64
	issued uint64
	tokens bounded[string, time.Time] // until when each is good
}

func (o *oauth) reset() { o.issued, o.tokens = 0, bounded[string, time.Time]{max: maxTokens} }

// revoke forgets the tokens, not their number: none is issued twice.
func (o *oauth) revoke() { o.tokens = bounded[string, time.Time]{max: maxTokens} }

func (o *oauth) good(token string, now time.Time) bool {
	until, ok := o.tokens.get(token)
	return ok && now.Before(until)
}

// answer is the token endpoint's answer to a request of type
// application/x-www-form-urlencoded.
func (o *oauth) answer(req *http.Request, form map[string][]string, now time.Time) (status int, body map[string]any) {
	get := func(k string) string {
		if v := form[k]; len(v) > 0 {
			return v[0]
		}
		return ""
	}
	id, password, ok := req.BasicAuth()
	if !ok {
		id, password = get("client_id"), get("client_secret")
	}
	switch {
	case req.Method != http.MethodPost:
		return http.StatusMethodNotAllowed, map[string]any{"error": "invalid_request"}
	case get("grant_type") != "client_credentials":
		return http.StatusBadRequest, map[string]any{"error": "unsupported_grant_type"}
	case id != o.config.id || !equal(password, o.secret):
		return http.StatusUnauthorized, map[string]any{"error": "invalid_client"}
	}
	o.issued++
	mac := hmac.New(sha256.New, o.secret)
	fmt.Fprintf(mac, "%d/%d/%d", o.seed, o.issued, now.UnixNano())
	token := "twin-" + strconv.FormatUint(o.issued, 10) + "-" + hex.EncodeToString(mac.Sum(nil)[:16])
	o.tokens.set(token, now.Add(o.config.expires))
	return http.StatusOK, map[string]any{"access_token": token, "token_type": "Bearer", "expires_in": int64(o.config.claims / time.Second)}
}

const maxSecretFile = 64 << 10

func readSecretFile(dir, name string) ([]byte, error) {
	if !filepath.IsAbs(name) {
		name = filepath.Join(dir, name)
	}
	info, err := os.Stat(name)
	if err == nil && (info.IsDir() || info.Size() > maxSecretFile) {
		err = fmt.Errorf("%s is a folder, or longer than 64 KiB", name)
	}
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	s := strings.TrimRight(string(b), "\r\n")
	if s == "" {
		return nil, errors.New(name + " is empty")
	}
	return []byte(s), nil
}
