package daemon

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/cmd/internal/api"
)

func secretFile(t *testing.T, dir, name, value string) {
	t.Helper()
	file := filepath.Join(dir, "secrets", filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(value), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestSigningOfEveryKind(t *testing.T) {
	broker := startBroker(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	mac := func(key, body string) string {
		h := hmac.New(sha256.New, []byte(key))
		h.Write([]byte(body))
		return hex.EncodeToString(h.Sum(nil))
	}
	var tokens int
	p := startPartner(t, nil)
	p.set(func(r received) (int, string) {
		if r.path == "/token" {
			tokens++ // one request at a time
			return 200, fmt.Sprintf(`{"access_token":"token-%d","token_type":"bearer","expires_in":3600}`, tokens)
		}
		if r.path == "/oauth" && r.header.Get("Authorization") == "Bearer token-1" {
			return 401, ""
		}
		return 200, ""
	})
	dir := t.TempDir()
	secretFile(t, dir, "hmac", "hmac-key\n")
	secretFile(t, dir, "ec", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	secretFile(t, dir, "plain", "letmein-1")
	secretFile(t, dir, "hook", "whsec_"+base64.StdEncoding.EncodeToString([]byte("hook-key")))
	d, _ := life(t, dir)
	connect(t, d, broker.Addr())
	if _, err := d.PutConnection(t.Context(), &api.PutConnection{Document: "connection: v1\nname: basic\nhttp: { base: " + p.URL + ", auth: { basic: { user: alice, password: { secret: plain } } }, headers: { X-Tenant: t1 } }\n"}); err != nil {
		t.Fatal(err)
	}
	feed(t, kafkaClient(t, broker.Addr()), "in", "k", `{"a":1}`)
	for _, c := range []struct {
		name, push, sign string
		check            func(r received) bool
	}{
		{"hmac", p.URL + "/hmac", "{ hmac: sha256, key: { secret: hmac }, over: request.body, header: X-Sign, encoding: hex }", func(r received) bool {
			return r.header.Get("X-Sign") == mac("hmac-key", r.body)
		}},
		{"ecdsa", p.URL + "/ecdsa", "{ ecdsa: sha256, key: { secret: ec }, over: request.body, header: X-Sign, encoding: base64 }", func(r received) bool {
			sig, err := base64.StdEncoding.DecodeString(r.header.Get("X-Sign"))
			sum := sha256.Sum256([]byte(r.body))
			return err == nil && ecdsa.VerifyASN1(&key.PublicKey, sum[:], sig)
		}},
		{"jwt", p.URL + "/jwt", "{ jwt: { alg: HS256, key: { secret: hmac }, claims: { iss: me } } }", func(r received) bool {
			parts := strings.Split(strings.TrimPrefix(r.header.Get("Authorization"), "Bearer "), ".")
			if len(parts) != 3 {
				return false
			}
			claims, err := base64.RawURLEncoding.DecodeString(parts[1])
			return err == nil && strings.Contains(string(claims), `"iss":"me"`)
		}},
		{"oauth", p.URL + "/oauth", "{ oauth2: { token_url: " + p.URL + "/token, client_id: me, client_secret: { secret: plain } } }", func(r received) bool {
			return r.header.Get("Authorization") == "Bearer token-2"
		}},
		{"apikey", p.URL + "/apikey", "{ api_key: { secret: plain }, header: X-Key }", func(r received) bool { return r.header.Get("X-Key") == "letmein-1" }},
		{"basic", "{ http: { connection: basic, post: /basic } }", "{ hmac: sha256, key: { secret: hmac }, over: 'request.headers[\"authorization\"] + request.body', header: X-Sign, encoding: hex }", func(r received) bool {
			auth := "Basic " + base64.StdEncoding.EncodeToString([]byte("alice:letmein-1"))
			return r.header.Get("Authorization") == auth && r.header.Get("X-Tenant") == "t1" && r.header.Get("X-Sign") == mac("hmac-key", auth+r.body)
		}},
		{"webhook", "{ webhook: { url: " + p.URL + "/webhook, secret: { secret: hook } } }", "", func(r received) bool {
			h := hmac.New(sha256.New, []byte("hook-key"))
			fmt.Fprintf(h, "%s.%s.%s", r.header.Get("Webhook-Id"), r.header.Get("Webhook-Timestamp"), r.body)
			return r.header.Get("Webhook-Signature") == "v1,"+base64.StdEncoding.EncodeToString(h.Sum(nil)) && r.header.Get("Webhook-Id") == r.key
		}},
	} {
		doc := "flow: v1\nname: " + c.name + "\nsource: kafka://main/in\nstages:\n  - id: deliver\n    push: " + c.push + "\n"
		if c.sign != "" {
			doc += "    sign: " + c.sign + "\n"
		}
		mustPut(t, d, &api.PutFlow{Document: doc})
		settled(t, d, c.name, 1)
		got := p.got()
		at := slices.IndexFunc(got, func(r received) bool { return r.path == "/"+c.name })
		if at < 0 || !c.check(got[at]) || got[at].body != `{"a":1}` {
			t.Errorf("%s: %+v", c.name, got[max(at, 0)])
		}
	}
}

// Items of a batch that are to be sent again are a batch of their own, those
// that are refused are filed.
func TestBatchWithVerdictsByItem(t *testing.T) {
	broker := startBroker(t)
	tries := map[float64]int{}
	p := startPartner(t, func(r received) (int, string) {
		var items []map[string]float64
		if err := json.Unmarshal([]byte(r.body), &items); err != nil {
			return 400, err.Error()
		}
		var verdicts []string
		for _, it := range items {
			n := it["n"]
			tries[n]++ // one request at a time
			switch {
			case n == 3:
				verdicts = append(verdicts, "reject")
			case n == 5 && tries[n] < 4:
				verdicts = append(verdicts, "retry")
			default:
				verdicts = append(verdicts, "ok")
			}
		}
		b, _ := json.Marshal(map[string]any{"results": verdicts})
		return 200, string(b)
	})
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	cl := kafkaClient(t, broker.Addr())
	for i := range 10 {
		feed(t, cl, "in", fmt.Sprint("k", i), fmt.Sprintf(`{"n":%d}`, i))
	}
	mustPut(t, d, &api.PutFlow{Document: pushing(p, "", "    batch: { records: 10, wait: 500ms, as: json_array }\n    validate: { each: response.body.results }\n    retry: { first: 10ms, max: 20ms }\n")})
	settled(t, d, "push", 10)
	queued(t, d, "push", 1)
	if a := accounted(t, d, "push"); a.Delivered != 9 || a.Filed != 1 {
		t.Errorf("receipt %+v", a)
	}
	log := p.all()
	keys := map[string]bool{}
	for _, r := range log {
		keys[r.key] = true
	}
	if tries[5] != 4 || tries[0] != 1 || tries[3] != 1 || len(log) > 6 || len(keys) < 2 {
		t.Errorf("tries %v in %d requests with %d keys", tries, len(log), len(keys))
	}
	if e := failures(t, d, api.FailureFilter{}).Entries; len(e) != 1 || string(e[0].Input.Value) != `{"n":3}` {
		t.Errorf("entries %+v", e)
	}
}

// A batch that is kept comes back as the same batch.
func TestKeptBatchStaysTheSame(t *testing.T) {
	broker := startBroker(t)
	p := startPartner(t, func(received) (int, string) { return 429, "" })
	dir := t.TempDir()
	d, stop := life(t, dir)
	connect(t, d, broker.Addr())
	cl := kafkaClient(t, broker.Addr())
	for i := range 6 {
		feed(t, cl, "in", fmt.Sprint("k", i%2), fmt.Sprintf(`{"n":%d}`, i))
	}
	mustPut(t, d, &api.PutFlow{Document: pushing(p, "order: none\n", "    batch: { records: 3, wait: 1s, as: ndjson }\n    retry: { first: 20ms, max: 50ms, spill: 100ms }\n")})
	keptIs(t, d, "push", 6)
	stop()
	d, stop = life(t, dir)
	defer stop()
	n := len(p.all())
	poll(t, "attempts after the restart", func() (bool, string) { return len(p.all()) > n+4, "" })
	p.set(nil)
	keptIs(t, d, "push", 0)
	keys := map[string]string{}
	for _, r := range p.all() {
		if was, ok := keys[r.key]; ok && was != r.body {
			t.Errorf("batch %s was %q and is %q", r.key, was, r.body)
		}
		keys[r.key] = r.body
	}
	if len(keys) != 2 || len(p.got()) != 2 {
		t.Errorf("%d batches, %d taken", len(keys), len(p.got()))
	}
	if a := accounted(t, d, "push"); a.Delivered != 6 {
		t.Errorf("receipt %+v", a)
	}
}

func TestBranchesExceptionsAndTopics(t *testing.T) {
	broker := startBroker(t)
	north, south := startPartner(t, rejecting), startPartner(t, nil)
	told := startPartner(t, func(r received) (int, string) {
		if strings.Contains(r.body, "(2)") {
			return 500, ""
		}
		return 200, ""
	})
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	cl := kafkaClient(t, broker.Addr())
	feed(t, cl, "in", "a", `{"to":"n","i":0}`, "b", `{"to":"s","i":1}`, "c", `{"no":2,"to":"n","i":2}`, "d", `{"to":"x","i":3}`, "e", `{"no":4,"to":"n","i":4}`, "f", `{"to":"s","tmp":1,"i":5}`)
	mustPut(t, d, &api.PutFlow{Document: `flow: v1
name: push
source: kafka://main/in
otherwise: { topic: kafka://main/failed }
stages:
  - cleanup: { drop: [tmp] }
  - id: where
    branch:
      - when: value.to == "n"
        stages:
          - id: north
            push: ` + north.URL + `/n
      - when: value.to == "s"
        stages:
          - id: south
            push: ` + south.URL + `/s
            otherwise: queue
      - else: drop
exceptions:
  - when: failure.code == 400
    push: { http: { connection: ` + told.URL + `, post: /, body: "${failure.stage} (${value.no}): ${failure.message}" } }
`})
	settled(t, d, "push", 6)
	if got := consume(t, broker.Addr(), "failed", 2); len(got) != 2 || got[0].Key == nil || !slices.ContainsFunc(got[0].Headers, func(h kgo.RecordHeader) bool { return h.Key == "millrace-stage" && string(h.Value) == "north" }) {
		t.Errorf("topic of failed records: %+v", got)
	}
	if got := south.bodies(); len(got) != 2 || contains(got, "tmp") {
		t.Errorf("south got %q", got)
	}
	if got := north.bodies(); len(got) != 1 {
		t.Errorf("north got %q", got)
	}
	var heard []string
	for _, r := range told.all() {
		heard = append(heard, r.body)
	}
	slices.Sort(heard)
	if len(heard) != 2 || !strings.HasPrefix(heard[0], "north (2): ") || !strings.Contains(heard[0], "status 400") || !strings.HasPrefix(heard[1], "north (4): ") {
		t.Errorf("told %q", heard)
	}
	a := accounted(t, d, "push")
	if a.Read != 6 || a.Delivered != 3 || a.Dropped["where"] != 1 || a.Dropped["aside"] != 2 || a.Filed != 0 {
		t.Errorf("receipt %+v", a)
	}
	f := status(t, d, "push")
	if len(f.Deliveries) != 2 || len(f.Connections) < 2 || len(f.Stages) != 4 || f.Stages[3].Branch == "" {
		t.Errorf("flow %+v", f)
	}
}

// Exceptions that fail are attached to the entry, which stays where it is.
func TestExceptionsNeverOwn(t *testing.T) {
	broker := startBroker(t)
	p := startPartner(t, rejecting)
	told := startPartner(t, func(received) (int, string) { return 500, "" })
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	feed(t, kafkaClient(t, broker.Addr()), "in", "k", `{"no":1}`)
	mustPut(t, d, &api.PutFlow{Document: pushing(p, "", "") + "exceptions:\n  - push: { http: { connection: " + told.URL + ", post: /, body: \"${failure.class}\" } }\n  - push: kafka://main/told\n"})
	queued(t, d, "push", 1)
	if e := failures(t, d, api.FailureFilter{}).Entries[0]; !strings.Contains(e.Told, "status 500") {
		t.Errorf("told %q", e.Told)
	}
	if got := consume(t, broker.Addr(), "told", 1); string(got[0].Value) != `{"no":1}` {
		t.Errorf("told the topic %+v", got)
	}
}

func TestConnectionsAreShared(t *testing.T) {
	broker := startBroker(t)
	p := startPartner(t, nil)
	dir := t.TempDir()
	secretFile(t, dir, "tok", "token-a")
	d, _ := life(t, dir)
	connect(t, d, broker.Addr())
	doc := "connection: v1\nname: partner\nhttp: { base: " + p.URL + ", requests: 1000/s, concurrent: 3, auth: { bearer: { secret: tok } } }\n"
	if _, err := d.PutConnection(t.Context(), &api.PutConnection{Document: doc}); err != nil {
		t.Fatal(err)
	}
	feed(t, kafkaClient(t, broker.Addr()), "in", "k", "v")
	for _, name := range []string{"one", "two"} {
		mustPut(t, d, &api.PutFlow{Document: "flow: v1\nname: " + name + "\nsource: kafka://main/in\nstages:\n  - push: { http: { connection: partner, post: /" + name + " } }\n"})
		settled(t, d, name, 1)
	}
	d.connections.mu.Lock()
	open := len(d.connections.open)
	d.connections.mu.Unlock()
	if open != 1 {
		t.Errorf("%d connections are open, want 1", open)
	}
	if u := d.connections.usage("partner"); u == nil || u.Concurrent != 3 || u.Allowed != 1000 {
		t.Errorf("usage %+v", u)
	}
	if _, err := d.SetFlow(t.Context(), "default", "one", api.StatePaused); err != nil {
		t.Fatal(err)
	}
	setState(t, d, "two", api.StatePaused)
	if u := d.connections.usage("partner"); u != nil {
		t.Errorf("after the last use: %+v", u)
	}
	// A secret that was changed is used when a flow opens.
	secretFile(t, dir, "tok", "token-b")
	feed(t, kafkaClient(t, broker.Addr()), "in", "k", "v2")
	setState(t, d, "one", api.StateRunning)
	settled(t, d, "one", 2)
	got := p.got()
	if last := got[len(got)-1]; last.header.Get("Authorization") != "Bearer token-b" {
		t.Errorf("the last request has %q", last.header.Get("Authorization"))
	}
}

func TestUnauthorizedPausesTheFlow(t *testing.T) {
	broker := startBroker(t)
	p := startPartner(t, func(received) (int, string) { return http.StatusForbidden, "who are you" })
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	feed(t, kafkaClient(t, broker.Addr()), "in", "k", "v")
	mustPut(t, d, &api.PutFlow{Document: pushing(p, "", "")})
	poll(t, "the pause", func() (bool, string) {
		f := status(t, d, "push")
		return f.State == api.StateAutoPaused && f.Held == nil && strings.Contains(f.Reason, "403"), f.State + " " + f.Reason
	})
	poll(t, "the runner's end", func() (bool, string) { return len(d.active()) == 0, "" })
	p.set(nil)
	setState(t, d, "push", api.StateRunning)
	settled(t, d, "push", 1)
	accounted(t, d, "push")
}
