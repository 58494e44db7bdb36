package daemon

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/page"
	"github.com/millrace-io/millrace/runtime/connector/ingest"
)

// answered is what a sender gets.
type answered struct {
	status   int
	retry    string
	ID       string `json:"id"`
	Outcome  string `json:"outcome"`
	Repeated bool   `json:"repeated"`
	Code     string `json:"code"`
	Detail   string `json:"detail"`
}

// sendIn posts a request to a flow.
func sendIn(t *testing.T, d *Daemon, flow, key, body string, headers ...string) answered {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+d.Addr()+"/v1/ingest/default/"+flow, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answered{Detail: err.Error()}
	}
	defer resp.Body.Close()
	out := answered{status: resp.StatusCode, retry: resp.Header.Get("Retry-After")}
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		t.Errorf("HTTP %d: %v", resp.StatusCode, err)
	}
	return out
}

// taken posts until there is an answer that is not 503.
func taken(t *testing.T, d *Daemon, flow, key, body string, headers ...string) (a answered) {
	t.Helper()
	poll(t, "an answer to "+key, func() (bool, string) {
		a = sendIn(t, d, flow, key, body, headers...)
		return a.status != 0 && a.status != 503, fmt.Sprintf("%+v", a)
	})
	return a
}

func ingesting(p *partnerServer, source, head, beside string) string {
	return "flow: v1\nname: orders\nsource: { ingest: { " + source + " } }\n" + head + "stages:\n  - id: deliver\n    push: " + p.URL + "/x\n" + beside
}

// A sender is answered once its record is where it stays, and a key makes one
// record, also over lives of the node.
func TestIngest(t *testing.T) {
	p := startPartner(t, func(r received) (int, string) {
		switch {
		case strings.HasPrefix(r.body, "refuse"):
			return 400, "no"
		case strings.HasPrefix(r.body, "later"):
			return 503, "later"
		}
		return 200, ""
	})
	dir := t.TempDir()
	d, stop := life(t, dir)
	mustPut(t, d, &api.PutFlow{Document: ingesting(p, "wait: 20s", "order: none\n", "    retry: { first: 10ms, max: 50ms, spill: 50ms }\n")})
	bodies := map[string]string{"fine": "delivered", "refuse": "failed", "later": "waiting"}
	for body, outcome := range bodies {
		if got := taken(t, d, "orders", body, body, "Millrace-Key", "k", "X-Shop", "7"); got.status != 200 || got.Outcome != outcome || got.ID != "ingest/0/"+body || got.Repeated {
			t.Errorf("%s: %+v, want %s", body, got, outcome)
		}
	}
	if got := sendIn(t, d, "orders", "fine", "fine", "Millrace-Key", "k"); got.status != 200 || !got.Repeated || got.Outcome != "delivered" {
		t.Errorf("again: %+v", got)
	}
	if got := sendIn(t, d, "orders", "fine", "other", "Millrace-Key", "k"); got.status != 422 {
		t.Errorf("another body: %+v", got)
	}
	page, err := d.Failures(t.Context(), &api.FailureQuery{Project: "default", Name: "orders"})
	if err != nil || len(page.Entries) != 1 || page.Entries[0].ID() != "ingest/0/refuse" || string(page.Entries[0].Input.Key) != "k" {
		t.Errorf("filed: %+v, %v", page, err)
	}
	keptIs(t, d, "orders", 1)
	stop()

	d, _ = life(t, dir)
	keptIs(t, d, "orders", 1)
	before := len(p.all())
	for body := range bodies {
		if body == "later" {
			continue // its kept entry is tried meanwhile
		}
		if got := taken(t, d, "orders", body, body, "Millrace-Key", "k"); got.status != 200 || !got.Repeated || got.Outcome != "" {
			t.Errorf("%s in the next life: %+v", body, got)
		}
	}
	if got := sendIn(t, d, "orders", "fine", "other", "Millrace-Key", "k"); got.status != 422 {
		t.Errorf("another body in the next life: %+v", got)
	}
	if got := sendIn(t, d, "orders", "later", "later", "Millrace-Key", "k"); got.status != 200 || !got.Repeated {
		t.Errorf("what waits, in the next life: %+v", got)
	}
	for _, r := range p.all()[before:] {
		if r.body != "later" {
			t.Errorf("%s was sent again", r.body)
		}
	}
	p.set(nil)
	keptIs(t, d, "orders", 0)
	keys := map[string]string{}
	for _, r := range p.all() {
		if was, ok := keys[r.body]; ok && was != r.key || !strings.HasSuffix(r.key, "/ingest/0/"+r.body) {
			t.Errorf("%s has key %s, had %s", r.body, r.key, was)
		}
		keys[r.body] = r.key
	}
	poll(t, "the receipt", func() (bool, string) {
		a := accounted(t, d, "orders")
		return a.Read == 3 && a.Delivered == 2 && a.Filed == 1, fmt.Sprintf("%+v", a)
	})

	if _, err := d.SetFlow(t.Context(), "default", "orders", api.StatePaused); err != nil {
		t.Fatal(err)
	}
	poll(t, "a paused flow turns senders away", func() (bool, string) {
		got := sendIn(t, d, "orders", "", "x")
		return got.status == 503 && got.retry == "5" && strings.Contains(got.Detail, "paused"), fmt.Sprintf("%+v", got)
	})
}

// While the partner is down senders wait, are told so, and join; once the
// window is full, or the flow is held, they are turned away. When it is back
// every request that was ever taken in is delivered once.
func TestIngestBackpressure(t *testing.T) {
	p := startPartner(t, nil)
	gate := make(chan struct{})
	p.set(func(received) (int, string) { <-gate; return 200, "" })
	d, _ := life(t, t.TempDir())
	t.Cleanup(sync.OnceFunc(func() {
		select {
		case <-gate:
		default:
			close(gate)
		}
	}))
	mustPut(t, d, &api.PutFlow{Document: ingesting(p, "wait: 100ms", "order: none\nlimits: { in_flight: 5 }\n", "")})
	poll(t, "the flow is open", func() (bool, string) {
		got := sendIn(t, d, "orders", "k-0", "k-0")
		return got.Code == "E_PENDING" && got.retry == "1", fmt.Sprintf("%+v", got)
	})
	for i := 1; i < 5; i++ {
		key := fmt.Sprint("k-", i)
		if got := sendIn(t, d, "orders", key, key); got.status != 503 || got.Code != "E_PENDING" {
			t.Errorf("%s: %+v", key, got)
		}
	}
	if got := sendIn(t, d, "orders", "k-5", "k-5"); got.status != 429 || got.Code != "E_BUSY" || got.retry != "1" {
		t.Errorf("with a full window: %+v", got)
	}
	close(gate)
	for i := range 6 {
		key := fmt.Sprint("k-", i)
		poll(t, "an answer to "+key, func() (bool, string) {
			got := sendIn(t, d, "orders", key, key)
			return got.status == 200 && got.Outcome == "delivered" && got.Repeated == (i < 5) || i == 5 && got.status == 200, fmt.Sprintf("%+v", got)
		})
	}
	bodies := p.bodies()
	slices.Sort(bodies)
	if !slices.Equal(bodies, []string{"k-0", "k-1", "k-2", "k-3", "k-4", "k-5"}) {
		t.Errorf("delivered %q", bodies)
	}
}

func TestIngestChecksItsSender(t *testing.T) {
	p := startPartner(t, nil)
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "secrets", "shop"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "secrets", "shop", "hmac"), []byte("made-up\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, _ := life(t, dir)
	mustPut(t, d, &api.PutFlow{Document: ingesting(p, "sender: { hmac: sha256, key: { secret: shop/hmac }, over: request.body, header: X-Sign, encoding: hex }", "", "")})
	sign := func(body string) string {
		m := hmac.New(sha256.New, []byte("made-up"))
		m.Write([]byte(body))
		return hex.EncodeToString(m.Sum(nil))
	}
	if got := taken(t, d, "orders", "1", "x", "X-Sign", sign("x")); got.status != 200 || got.Outcome != "delivered" {
		t.Errorf("signed: %+v", got)
	}
	for name, headers := range map[string][]string{"not signed": nil, "signed for another body": {"X-Sign", sign("y")}} {
		if got := sendIn(t, d, "orders", "2", "x", headers...); got.status != 401 || got.Code != "E_UNAUTHORIZED" || strings.Contains(got.Detail, sign("x")) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if all := p.all(); len(all) != 1 || all[0].header.Get("X-Sign") != "" {
		t.Errorf("the partner saw %+v", all)
	}
}

// A node that stops answers who waits, and what it has not settled is
// delivered under the same key once it is sent again.
func TestIngestOverAStop(t *testing.T) {
	p := startPartner(t, func(received) (int, string) { return 503, "" })
	dir := t.TempDir()
	d, stop := lifeWith(t, Config{Dir: dir, Logger: testLogger(t), DrainLimit: 200 * time.Millisecond})
	mustPut(t, d, &api.PutFlow{Document: ingesting(p, "", "order: partition\n", "    retry: { first: 10ms, max: 20ms }\n")})
	poll(t, "the flow is open", func() (bool, string) {
		got := sendIn(t, d, "nope", "", "")
		s, err := d.ingestHandler(t.Context(), "default", "orders")
		return err == nil && s != nil && got.status == 404, fmt.Sprint(err)
	})
	waiting := make(chan answered, 1)
	go func() { waiting <- taken2(t, d) }()
	poll(t, "an attempt", func() (bool, string) { return len(p.all()) > 0, "" })
	stop()
	if got := <-waiting; got.status != 503 || got.Code != "E_UNAVAILABLE" || got.retry != "5" {
		t.Errorf("while the node stopped: %+v", got)
	}
	p.set(nil)
	d, _ = life(t, dir)
	if got := taken(t, d, "orders", "k", "x"); got.status != 200 || got.Outcome != "delivered" || got.Repeated {
		t.Errorf("sent again: %+v", got)
	}
	all := p.all()
	for _, r := range all {
		if r.key != all[0].key {
			t.Errorf("keys %s and %s for one request", r.key, all[0].key)
		}
	}
}

// taken2 posts once the source is assigned.
func taken2(t *testing.T, d *Daemon) (a answered) {
	for range 500 {
		if a = sendIn(t, d, "orders", "k", "x"); a.Detail != "the flow is not open on this node at the moment" {
			return a
		}
	}
	return a
}

// A sender that is answered 200 "failed" has no reason to send again: the entry
// has all of its record, however large stages made it.
func TestIngestKeepsTheWholeInput(t *testing.T) {
	p := startPartner(t, func(received) (int, string) { return 400, "no" })
	d, _ := life(t, t.TempDir())
	mustPut(t, d, &api.PutFlow{Document: "flow: v1\nname: orders\nsource: { ingest: { wait: 20s } }\norder: none\nstages:\n  - map: { set: { more: value.x + value.x } }\n  - id: deliver\n    push: " + p.URL + "/x\n"})
	f, err := d.store.Flow("default", "orders")
	if err != nil {
		t.Fatal(err)
	}
	x := strings.Repeat("x", ingest.MaxBody-8)
	for i, body := range []string{"{\"x\":\"" + x + "\"}", "[\"" + x + "1234\"]"} {
		if got := taken(t, d, "orders", fmt.Sprint("big", i), body); got.status != 200 || got.Outcome != "failed" {
			t.Fatalf("answer %+v", got)
		}
		es, err := d.store.Failures(f.ID, 0, 0, nil)
		if err != nil || len(es) != i+1 {
			t.Fatalf("%d entries, %v", len(es), err)
		}
		want := ingest.MaxBody
		if i == 0 {
			want = 3 * len(x)
		}
		if e := es[i]; e.InputOmitted || len(e.Input.Value) < want {
			t.Errorf("%s: the entry has %d bytes, omitted %v; want %d", e.Message, len(e.Input.Value), e.InputOmitted, want)
		}
	}
	if got := taken(t, d, "orders", "larger", strings.Repeat("x", ingest.MaxBody+1)); got.status != 413 {
		t.Errorf("answer %+v", got)
	}
}

// The linter allows what the source does. A flow that was stored when it allowed
// more is not paused: it refuses what is too large now.
func TestIngestOfAnEarlierBound(t *testing.T) {
	p := startPartner(t, nil)
	d, _ := life(t, t.TempDir())
	doc := func(body int64) string {
		return fmt.Sprintf("flow: v1\nname: orders\nsource: { ingest: { body: %d, wait: 20s } }\norder: none\nstages:\n  - id: deliver\n    push: %s/x\n", body, p.URL)
	}
	if _, err := d.PutFlow(t.Context(), &api.PutFlow{Document: doc(ingest.MaxBody + 1)}); err == nil || !strings.Contains(fmt.Sprintf("%+v", err), "problems") {
		t.Errorf("more than the source allows: %v", err)
	}
	mustPut(t, d, &api.PutFlow{Document: doc(ingest.MaxBody)})
	f, err := d.findFlow("default", "orders")
	if err != nil {
		t.Fatal(err)
	}
	rev, err := d.store.FlowRevision(f.ID, f.Revision)
	if err != nil {
		t.Fatal(err)
	}
	old := bytes.Replace(rev.Resolved, fmt.Appendf(nil, `"body_bytes":%d`, ingest.MaxBody), fmt.Appendf(nil, `"body_bytes":%d`, 4*ingest.MaxBody), 1)
	if bytes.Equal(old, rev.Resolved) {
		t.Fatalf("no bound in %s", old)
	}
	if _, err := d.node.Propose(t.Context(), &state.FlowPut{Project: "default", Name: "orders", UID: f.UID, Document: rev.Document, Resolved: old}); err != nil {
		t.Fatal(err)
	}
	poll(t, "the earlier document is taken up", func() (bool, string) {
		r := d.runner(f.ID)
		if r == nil || r.doc.Load() == nil {
			return false, "no runner"
		}
		return r.doc.Load().Source.Ingest.Body > ingest.MaxBody && r.pipe.Load() != nil, r.problem()
	})
	if got := taken(t, d, "orders", "fits", `{"a":1}`); got.status != 200 {
		t.Errorf("answer %+v", got)
	}
	if got := taken(t, d, "orders", "larger", strings.Repeat("x", ingest.MaxBody+1)); got.status != 413 {
		t.Errorf("answer %+v", got)
	}
	if f := status(t, d, "orders"); f.State != api.StateRunning {
		t.Errorf("the flow is %s: %s", f.State, f.Reason)
	}
}

// TestIngestPage runs the reference page's example.
func TestIngestPage(t *testing.T) {
	path := filepath.Join("..", "..", "..", "docs", "reference", "ingest.md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "orders.ndjson")
	d, _ := life(t, t.TempDir())
	mustPut(t, d, &api.PutFlow{Document: strings.Replace(page.First(t, string(text), "yaml"), "orders.ndjson", out, 1)})
	poll(t, "the flow is open", func() (bool, string) {
		got := sendIn(t, d, "orders", "", `{"total":-1}`)
		return got.status == 200, fmt.Sprintf("%+v", got)
	})
	calls := page.Calls(page.First(t, string(text), "console"))
	for _, c := range calls {
		r, err := http.NewRequest(http.MethodPost, strings.Replace(c.URL, "127.0.0.1:7070", d.Addr(), 1), strings.NewReader(c.Body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header = c.Header
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if !bytes.Equal(bytes.TrimSpace(got), []byte(strings.TrimSpace(c.Want))) {
			t.Errorf("curl %s\n got: %s\nwant: %s", c.Command, got, c.Want)
		}
	}
	if written, _ := os.ReadFile(out); len(calls) < 5 || string(written) != "{\"id\":\"order-1\",\"total\":5}\n" {
		t.Errorf("after %d calls the file holds %q", len(calls), written)
	}
}
