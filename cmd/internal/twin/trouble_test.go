package twin

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestResets: connections really end with RST, before any answer and in the
// middle of a body.
func TestResets(t *testing.T) {
	p := listen(t, `
  - { match: POST /before, answers: [{ reset: before }] }
  - { match: POST /body, answers: [{ reset: body, body: "0123456789" }] }
  - { match: POST /empty, answers: [{ reset: body, body: "" }] }
`, Options{})
	if r := p.send("POST", "/before", "x"); !errors.Is(r.err, syscall.ECONNRESET) || r.status != 0 {
		t.Errorf("before: %d %v", r.status, r.err)
	}
	r := p.send("POST", "/body", "x")
	if !errors.Is(r.err, syscall.ECONNRESET) || r.status != 200 || r.body != "01234" || r.header.Get("Content-Length") != "10" {
		t.Errorf("body: %d %q %v", r.status, r.body, r.err)
	}
	if r := p.send("POST", "/empty", "x"); !errors.Is(r.err, syscall.ECONNRESET) || r.status != 200 {
		t.Errorf("empty body: %d %q %v", r.status, r.body, r.err)
	}
	o := p.seen()
	if o[0].Applied || o[0].Sent || o[0].Status != 0 || o[0].Trouble != "reset_before" {
		t.Errorf("%+v", o[0])
	}
	if !o[1].Applied || o[1].Sent || o[1].Status != 200 || o[1].Trouble != "reset_body" {
		t.Errorf("%+v", o[1])
	}
	if s := p.State(); s.Unsent != 3 {
		t.Errorf("%+v", s)
	}
}

func TestBroken(t *testing.T) {
	p := listen(t, `
  - { match: POST /truncated, answers: [{ broken: truncated, body: { code: 0, list: [1, 2, 3] } }] }
  - { match: POST /html, answers: [{ broken: html }] }
  - { match: POST /empty, answers: [{ broken: empty }] }
  - { match: POST /inside, answers: [{ applied: false, body: { code: 5001 }, headers: { X-Why: "n ${request.body}" } }] }
`, Options{})
	for _, c := range []struct {
		path, kind string
		applied    bool
		good       func(body string) bool
	}{
		{"/truncated", "application/json", true, func(b string) bool { return strings.HasPrefix(b, `{"code":0`) && !json.Valid([]byte(b)) }},
		{"/html", "text/html; charset=utf-8", false, func(b string) bool { return strings.Contains(b, "</html>") }},
		{"/empty", "application/json", true, func(b string) bool { return b == "" }},
		{"/inside", "application/json", false, func(b string) bool { return b == `{"code":5001}` }},
	} {
		r := p.send("POST", c.path, "x")
		if r.err != nil || r.status != 200 || r.header.Get("Content-Type") != c.kind || !c.good(r.body) {
			t.Errorf("%s: %d %s %q %v", c.path, r.status, r.header.Get("Content-Type"), r.body, r.err)
		}
		seen := p.seen()
		if o := seen[len(seen)-1]; o.Applied != c.applied || !o.Sent {
			t.Errorf("%s: %+v", c.path, o)
		}
		if c.path == "/inside" && r.header.Get("X-Why") != "n x" {
			t.Errorf("header %q", r.header.Get("X-Why"))
		}
	}
}

// TestSlow: headers come at once, the body piece by piece; a hang never ends
// by itself before its time, and a caller who leaves is seen.
func TestSlow(t *testing.T) {
	p := listen(t, `
  - { match: POST /slow, answers: [{ slow: 200ms, body: "0123456789" }] }
  - { match: POST /hang, answers: [{ hang: 1h }] }
  - { match: POST /late, answers: [{ hang: 20ms }] }
`, Options{})
	start := time.Now()
	if r := p.send("POST", "/slow", ""); r.err != nil || r.body != "0123456789" || time.Since(start) < 200*time.Millisecond {
		t.Errorf("slow: %q %v after %v", r.body, r.err, time.Since(start))
	}
	if r := p.send("POST", "/late", ""); !errors.Is(r.err, syscall.ECONNRESET) {
		t.Errorf("after a hang: %v", r.err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, "POST", p.url+"/hang", nil)
	if err != nil {
		t.Fatal(err)
	}
	left := make(chan error, 1)
	go func() { _, err := p.client.Do(req); left <- err }()
	until(t, func() bool { return p.State().InFlight > 0 })
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	seen := p.seen()
	if o := seen[len(seen)-1]; o.Applied || o.Sent || o.Trouble != "hang" || o.Status != 0 {
		t.Errorf("%+v", o)
	}
}

// TestStop: a twin that is stopped lets go of callers that hang.
func TestStop(t *testing.T) {
	tw := newTwin(t, "\n  - { match: POST /o, answers: [{ hang: 1h }] }\n", Options{})
	s, err := tw.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	left := make(chan error, 1)
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	go func() {
		resp, err := (&http.Client{Transport: tr}).Post("http://"+s.Addr()+"/o", "", nil)
		if err == nil {
			resp.Body.Close()
		}
		left <- err
	}()
	until(t, func() bool { return tw.State().InFlight > 0 })
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := <-left; err == nil {
		t.Error("an answer after the end")
	}
	if o := tw.Observations(); len(o) != 1 || o[0].Sent {
		t.Errorf("%+v", o)
	}
}

// TestIncomplete: a caller who dies while it sends is logged and changes
// nothing.
func TestIncomplete(t *testing.T) {
	p := listen(t, "\n  - { match: POST /o }\n", Options{})
	r, w := io.Pipe()
	req, err := http.NewRequest("POST", p.url+"/o", r)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = w.Write([]byte("half"))
		w.CloseWithError(errors.New("killed"))
	}()
	if _, err := p.client.Do(req); err == nil {
		t.Error("an answer to half a request")
	}
	// The twin learns of it when the connection ends.
	until(t, func() bool { return p.State().Finished > 0 })
	if o := p.seen()[0]; o.Outcome != OutcomeIncomplete || o.Applied || o.Sent {
		t.Errorf("%+v", o)
	}
}

func TestItems(t *testing.T) {
	tw := newTwin(t, `
  - match: POST /array
    items:
      in: json_array
      at: data.orders
      id: value.id
      key: value.shop
      partial: 207
      verdicts:
        - { verdict: reject, when: value.amount < 0, result: { id: "${value.id}", why: "${value.amount} is below 0" } }
        - { verdict: retry, when: attempt < 3 && value.late == true }
      results:
        ok: { id: "${value.id}", ok: true, n: "${response.index}" }
        retry: "later ${value.id}"
    answers: [{ body: { code: 0, results: "${response.items}", status: "${response.status}" } }]
  - { match: POST /lines, items: { in: ndjson, verdicts: [{ verdict: retry, every: 3 }] } }
  - match: POST /one
    items: { id: value.id }
    answers: [{ when: attempt < 3 && value.late == true, status: 503 }, { body: "attempt ${attempt}" }]
`, Options{})
	for _, c := range []struct {
		path, body string
		status     int
		want       string
	}{
		{"/array", `{"data":{"orders":[{"id":1,"shop":"a"},{"id":2,"amount":-5},{"id":3,"late":true}]}}`, 207,
			`{"code":0,"results":[{"id":1,"n":0,"ok":true},{"id":2,"why":"-5 is below 0"},"later 3"],"status":207}`},
		{"/array", `{"data":{"orders":[{"id":3,"late":true}]}}`, 207, `{"code":0,"results":["later 3"],"status":207}`},
		{"/array", `{"data":{"orders":[{"id":3,"late":true}]}}`, 200, `{"code":0,"results":[{"id":3,"n":0,"ok":true}],"status":200}`},
		{"/array", `{"data":{}}`, 400, `{"error":"the body has no list at data.orders"}`},
		{"/array", `[]`, 400, `{"error":"the body has no list at data.orders"}`},
		{"/lines", "1\n2\n\n3\n4\n", 200, `{"results":[{"index":0,"status":"ok"},{"index":1,"status":"ok"},{"index":2,"status":"retry"},{"index":3,"status":"ok"}]}`},
		{"/lines", "1\n{\n", 400, `{"error":"line 2 of the body is not JSON"}`},
		{"/lines", "", 400, `{"error":"the list is empty"}`},
		{"/one", `{"id":"a","late":true}`, 503, `{"error":"Service Unavailable"}`},
		{"/one", `{"id":"a","late":true}`, 503, `{"error":"Service Unavailable"}`},
		{"/one", `{"id":"a","late":true}`, 200, `attempt 3`},
		{"/one", `{"id":"b"}`, 200, `attempt 1`},
	} {
		if got := ask(tw, "POST", c.path, c.body); got.status != c.status || got.body != c.want {
			t.Errorf("%s %s: %d %s\nwant %d %s", c.path, c.body, got.status, got.body, c.status, c.want)
		}
	}
	o := tw.Observations()[0]
	want := []Item{{"1", "a", 1, "ok", true, false}, {"2", "", 1, "reject", false, false}, {"3", "", 1, "retry", false, false}}
	if fmt.Sprint(o.Items) != fmt.Sprint(want) || o.Error != "" {
		t.Errorf("items %+v, want %+v (%s)", o.Items, want, o.Error)
	}
	if s := tw.State(); s.ItemsApplied != 7 || s.ItemsAgain != 0 || s.Verdicts["retry"] != 3 {
		t.Errorf("%+v", s)
	}
	ask(tw, "POST", "/one", `{"id":"b"}`)
	if s := tw.State(); s.ItemsAgain != 1 {
		t.Errorf("an item that is applied twice is not told: %+v", s)
	}
}

func TestGzip(t *testing.T) {
	tw := newTwin(t, "twin: v1\nbody: 1KiB\nroutes: [{ match: POST /o, items: { in: json_array }, answers: [{ body: \"${len(request.body) > 0} ${raw}\" }] }]", Options{})
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, _ = w.Write([]byte("[1,2]"))
	_ = w.Close()
	if r := ask(tw, "POST", "/o", z.String(), "Content-Encoding", "gzip"); r.status != 200 || r.body != "true [1,2]" {
		t.Errorf("%d %s", r.status, r.body)
	}
	plain := sha256.Sum256([]byte("[1,2]"))
	if o := tw.Observations()[0]; len(o.Items) != 2 || o.BodySHA256 != hex.EncodeToString(plain[:]) {
		t.Errorf("%+v", o)
	}
	z.Reset()
	w = gzip.NewWriter(&z)
	_, _ = w.Write(bytes.Repeat([]byte(" "), 1<<20))
	_ = w.Close()
	for _, c := range []struct {
		body, encoding string
		want           int
	}{{"no gzip", "gzip", 400}, {"x", "br", 415}, {strings.Repeat(" ", 1025), "", 413}, {z.String(), "gzip", 413}} {
		if r := ask(tw, "POST", "/o", c.body, "Content-Encoding", c.encoding); r.status != c.want {
			t.Errorf("%q: %d, want %d", c.encoding, r.status, c.want)
		}
	}
}

// TestDuplicates: what has the same key is applied once, also by many at
// once, and gets the same answer.
func TestDuplicates(t *testing.T) {
	p := listen(t, `
  - match: POST /o
    idempotency: Idempotency-Key
    items: { id: raw }
    answers: [{ weight: 5, body: "answer to ${raw}, attempt ${attempt}" }, { weight: 2, status: 503 }, { weight: 2, reset: body }, { weight: 1, broken: truncated }]
`, Options{})
	const keys, senders = 100, 8
	var mu sync.Mutex
	answers := map[string]map[string]int{}
	var wg sync.WaitGroup
	for range senders {
		wg.Go(func() {
			for k := range keys {
				key := "k" + strconv.Itoa(k)
				for range 1000 {
					r := p.send("POST", "/o", "body of "+key, "Idempotency-Key", key)
					if r.err == nil && r.status == 200 && strings.Contains(r.body, "attempt ") {
						mu.Lock()
						if answers[key] == nil {
							answers[key] = map[string]int{}
						}
						answers[key][r.body]++
						mu.Unlock()
						break
					}
				}
			}
		})
	}
	wg.Wait()
	for key, list := range answers {
		if len(list) != 1 {
			t.Errorf("%s got different answers: %v", key, list)
		}
	}
	applied, first := map[string]int64{}, map[string]int64{}
	for _, o := range p.seen() {
		if o.Applied {
			if applied[o.IdempotencyKey] != 0 {
				t.Errorf("%s is applied by %d and by %d", o.IdempotencyKey, applied[o.IdempotencyKey], o.Seq)
			}
			applied[o.IdempotencyKey] = o.Seq
		}
		if o.Duplicate {
			first[o.IdempotencyKey] = o.First
		}
	}
	for key, seq := range first {
		if applied[key] != seq {
			t.Errorf("%s: duplicates of %d, applied by %d", key, seq, applied[key])
		}
	}
	s := p.State()
	if len(applied) != keys || s.Applied != keys || s.ItemsApplied != keys || s.ItemsAgain != 0 || s.Duplicates < keys*(senders-1) {
		t.Errorf("%d keys applied: %+v", len(applied), s)
	}
}

// TestDuplicateOfRetries: items of a known key that were to come again are
// judged again; the others stay as they were.
func TestDuplicateOfRetries(t *testing.T) {
	tw := newTwin(t, `
  - match: POST /o
    idempotency: { required: true }
    items: { in: json_array, id: value, verdicts: [{ verdict: reject, when: value == "no" }, { verdict: retry, when: value == "late" && attempt < 2 }] }
`, Options{})
	const body = `["a","late","no"]`
	for i, want := range []string{"retry", "ok", "ok"} {
		r := ask(tw, "POST", "/o", body, "Idempotency-Key", "k")
		all := `{"results":[{"id":"a","status":"ok"},{"id":"late","status":"` + want + `"},{"id":"no","status":"reject"}]}`
		if r.body != all {
			t.Errorf("attempt %d: %s, want %s", i+1, r.body, all)
		}
	}
	if s := tw.State(); s.ItemsApplied != 2 || s.ItemsAgain != 0 || s.Applied != 1 || s.Duplicates != 2 {
		t.Errorf("%+v", s)
	}
	if r := ask(tw, "POST", "/o", body); r.status != 400 {
		t.Errorf("without a key: %d", r.status)
	}
}

func TestMismatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tw := newTwin(t, `
  - { match: POST /lenient, idempotency: { header: X-Key } , answers: [{ body: "${raw}" }] }
  - { match: POST /strict, idempotency: { mismatch: 422, forget: 1h, keep: 2 } , answers: [{ body: "${raw}" }] }
`, Options{})
		ask(tw, "POST", "/lenient", "a", "X-Key", "k")
		if r := ask(tw, "POST", "/lenient", "b", "X-Key", "k"); r.status != 200 || r.body != "a" {
			t.Errorf("%d %s", r.status, r.body)
		}
		ask(tw, "POST", "/strict", "a", "Idempotency-Key", "k")
		if r := ask(tw, "POST", "/strict", "b", "Idempotency-Key", "k"); r.status != 422 {
			t.Errorf("%d %s", r.status, r.body)
		}
		if s := tw.State(); s.Applied != 2 || s.Mismatches != 2 || s.Outcomes[OutcomeMismatch] != 1 {
			t.Errorf("%+v", s)
		}
		time.Sleep(time.Hour + time.Second)
		if r := ask(tw, "POST", "/strict", "c", "Idempotency-Key", "k"); r.body != "c" {
			t.Errorf("after the time that keys are kept: %s", r.body)
		}
		ask(tw, "POST", "/strict", "x", "Idempotency-Key", "k2")
		ask(tw, "POST", "/strict", "x", "Idempotency-Key", "k3") // the third: k is forgotten
		if r := ask(tw, "POST", "/strict", "d", "Idempotency-Key", "k"); r.body != "d" {
			t.Errorf("beyond the number that is kept: %s", r.body)
		}
	})
}

func mac(h func() hash.Hash, key, over string) []byte {
	m := hmac.New(h, []byte(key))
	m.Write([]byte(over))
	return m.Sum(nil)
}

func TestSignature(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tw := newTwin(t, `
  - { match: POST /hex, signature: { hmac: sha256, key: { text: k }, over: request.body, header: X-Sign, prefix: "sha256=" } }
  - match: POST /full
    signature:
      hmac: sha512
      key: { text: k }
      over: "${request.method}\n${request.path}\n${request.sorted_query}\n${request.headers[\"x-time\"]}\n${request.headers[\"x-nonce\"]}\n${request.digest.sha256}"
      encoding: base64
      time: request.headers["x-time"]
      within: 1m
      nonce: request.headers["x-nonce"]
  - { match: POST /url, signature: { hmac: sha1, key: { text: k }, over: request.body, encoding: base64url } }
`, Options{})
		const body = "\x00\xff body"
		good := "sha256=" + hex.EncodeToString(mac(sha256.New, "k", body))
		for _, c := range []struct {
			name, sign string
			want       string
		}{
			{"right", good, signatureOK},
			{"upper case", "sha256=" + strings.ToUpper(good[7:]), signatureOK},
			{"without its prefix", good[7:], signatureWrong},
			{"another key", "sha256=" + hex.EncodeToString(mac(sha256.New, "K", body)), signatureWrong},
			{"another body", "sha256=" + hex.EncodeToString(mac(sha256.New, "k", body+" ")), signatureWrong},
			{"cut off", good[:20], signatureWrong},
			{"no hex", "sha256=zz", signatureWrong},
			{"none", "", signatureMissing},
		} {
			r := ask(tw, "POST", "/hex", body, "X-Sign", c.sign)
			seen := tw.Observations()
			if o := seen[len(seen)-1]; o.Signature != c.want || (r.status == 200) != (c.want == signatureOK) || o.Applied != (c.want == signatureOK) || r.status != 200 && r.status != 401 {
				t.Errorf("%s: %d, logged %q, want %q", c.name, r.status, o.Signature, c.want)
			}
		}

		send := func(at time.Time, nonce string) string {
			stamp := strconv.FormatInt(at.UnixMilli(), 10)
			sum := sha256.Sum256([]byte(body))
			over := "POST\n/full\na=1&b=2\n" + stamp + "\n" + nonce + "\n" + hex.EncodeToString(sum[:])
			ask(tw, "POST", "/full?b=2&a=1", body, "X-Sign", base64.StdEncoding.EncodeToString(mac(sha512.New, "k", over)), "X-Time", stamp, "X-Nonce", nonce)
			seen := tw.Observations()
			return seen[len(seen)-1].Signature
		}
		now := time.Now()
		for _, c := range []struct {
			at    time.Time
			nonce string
			want  string
		}{{now, "1", "ok"}, {now, "1", "replayed"}, {now.Add(-time.Minute), "2", "ok"}, {now.Add(-time.Minute - time.Millisecond), "3", "stale"}, {now.Add(61 * time.Second), "4", "stale"}} {
			if got := send(c.at, c.nonce); got != c.want {
				t.Errorf("time %v, nonce %s: %s, want %s", c.at.Sub(now), c.nonce, got, c.want)
			}
		}
		if r := ask(tw, "POST", "/url", body, "X-Sign", base64.RawURLEncoding.EncodeToString(mac(sha1.New, "k", body))); r.status != 200 {
			t.Errorf("sha1, base64url: %d", r.status)
		}
		if s := tw.State(); s.Signatures["ok"] != 5 || s.Signatures["wrong"] != 5 || s.Outcomes[OutcomeSignature] != 9 {
			t.Errorf("%+v", s)
		}
	})
}

func TestOAuth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tw := newTwin(t, `twin: v1
oauth: { path: /token, id: me, secret: { text: abc }, expires: 30s, claims: 1h }
routes:
  - { match: POST /o, auth: oauth }
  - { match: POST /basic, auth: { basic: { user: u, password: { text: p } } } }
  - { match: POST /bearer, auth: { bearer: { text: fixed } } }
`, Options{})
		grant := func(id, secret, kind string) (int, string, int) {
			form := url.Values{"grant_type": {kind}, "client_id": {id}, "client_secret": {secret}}
			r := ask(tw, "POST", "/token", form.Encode(), "Content-Type", "application/x-www-form-urlencoded")
			var out struct {
				Token   string `json:"access_token"`
				Type    string `json:"token_type"`
				Expires int    `json:"expires_in"`
			}
			if err := json.Unmarshal([]byte(r.body), &out); err != nil || r.status == 200 && out.Type != "Bearer" {
				t.Errorf("%s: %v", r.body, err)
			}
			return r.status, out.Token, out.Expires
		}
		for _, c := range []struct {
			id, secret, kind string
			want             int
		}{{"me", "wrong", "client_credentials", 401}, {"you", "abc", "client_credentials", 401}, {"me", "abc", "password", 400}} {
			if status, token, _ := grant(c.id, c.secret, c.kind); status != c.want || token != "" {
				t.Errorf("%v: %d %q", c, status, token)
			}
		}
		use := func(token string) int { return ask(tw, "POST", "/o", "", "Authorization", "Bearer "+token).status }
		status, token, expires := grant("me", "abc", "client_credentials")
		if status != 200 || expires != 3600 || use(token) != 200 || use(token+"x") != 401 || use("") != 401 {
			t.Errorf("%d, expires_in %d", status, expires)
		}
		time.Sleep(30 * time.Second)
		if got := use(token); got != 401 {
			t.Errorf("an expired token: %d", got)
		}
		_, second, _ := grant("me", "abc", "client_credentials")
		if second == token || use(second) != 200 {
			t.Error("no second token")
		}
		tw.RevokeTokens()
		if got := use(second); got != 401 {
			t.Errorf("a revoked token: %d", got)
		}
		basic := func(password string) string {
			return "Basic " + base64.StdEncoding.EncodeToString([]byte("u:"+password))
		}
		if a, b := ask(tw, "POST", "/basic", "", "Authorization", basic("p")).status, ask(tw, "POST", "/basic", "", "Authorization", basic("q")); a != 200 || b.status != 401 || b.header.Get("Www-Authenticate") == "" {
			t.Errorf("basic: %d %d", a, b.status)
		}
		if a, b := ask(tw, "POST", "/bearer", "", "Authorization", "Bearer fixed").status, ask(tw, "POST", "/bearer", "").status; a != 200 || b != 401 {
			t.Errorf("bearer: %d %d", a, b)
		}
		if s := tw.State(); s.Tokens != 2 || s.Outcomes[OutcomeToken] != 5 || s.Outcomes[OutcomeUnauthorized] != 6 {
			t.Errorf("%+v", s)
		}
	})
}

func TestControl(t *testing.T) {
	p := listen(t, "\n  - { match: POST /o }\n", Options{})
	state := func(r reply) (s State) {
		t.Helper()
		if err := json.Unmarshal([]byte(r.body), &s); err != nil || r.status != 200 {
			t.Errorf("%d %s: %v", r.status, r.body, err)
		}
		return s
	}
	p.send("POST", "/o", "a")
	p.send("POST", "/o", "b")
	p.seen()
	if s := state(p.send("GET", "/_twin/state", "")); s.Requests != 2 || s.Statuses["200"] != 2 || s.Name != "partner" {
		t.Errorf("%+v", s)
	}
	if r := p.send("GET", "/_twin/log?after=1", ""); strings.Count(r.body, "\n") != 1 || !strings.Contains(r.body, `"seq":2`) {
		t.Errorf("log: %s", r.body)
	}
	if s := state(p.send("POST", "/_twin/outage", `{"on": true, "status": 503}`)); !s.Outage {
		t.Errorf("%+v", s)
	}
	if r := p.send("POST", "/o", ""); r.status != 503 {
		t.Errorf("during an outage: %d", r.status)
	}
	if s := state(p.send("POST", "/_twin/outage", `{"on": false}`)); s.Outage {
		t.Errorf("%+v", s)
	}
	if s := state(p.send("POST", "/_twin/calm", `{"on": true}`)); !s.Calm {
		t.Errorf("%+v", s)
	}
	state(p.send("POST", "/_twin/revoke", ""))
	if s := state(p.send("POST", "/_twin/reset", "")); s.Requests != 0 || s.Calm {
		t.Errorf("%+v", s)
	}
	for _, c := range []struct {
		method, path, body string
		want               int
	}{
		{"POST", "/_twin/outage", `{"onn": true}`, 400}, {"POST", "/_twin/outage", `{}`, 400}, {"POST", "/_twin/outage", `{"on": true, "status": 7}`, 400},
		{"POST", "/_twin/calm", ``, 400}, {"GET", "/_twin/nope", "", 404}, {"GET", "/_twin/reset", "", 404},
	} {
		if r := p.send(c.method, c.path, c.body); r.status != c.want || !strings.Contains(r.body, `"error"`) {
			t.Errorf("%s %s %s: %d %s", c.method, c.path, c.body, r.status, r.body)
		}
	}
	if r := p.send("POST", "/_twin/reset", "", "Origin", "http://evil.example"); r.status != 403 {
		t.Errorf("a web page: %d", r.status)
	}
	if r := ask(p.Twin, "GET", "/_twin/state", ""); r.status != 403 { // comes from 192.0.2.1
		t.Errorf("another machine: %d", r.status)
	}
}

func hexMAC(key, over string) string { return hex.EncodeToString(mac(sha256.New, key, over)) }
