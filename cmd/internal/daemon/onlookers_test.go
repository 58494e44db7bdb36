package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/twin"
	"github.com/millrace-io/millrace/cmd/internal/twin/capture"
	"github.com/millrace-io/millrace/runtime/delivery"
)

// serveTwin serves a partner's file until the test ends.
func serveTwin(t *testing.T, name string, text []byte) (*twin.Twin, string) {
	t.Helper()
	file, err := twin.Parse(name, text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	tw, err := twin.New(file, twin.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := tw.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return tw, "http://" + s.Addr()
}

const partnerA = `twin: v1
name: partner-a
seed: 7
routes:
  - match: POST /orders
    latency: 10ms
    rate: 40/s
    answers:
      - { weight: 7, status: 200, body: '{"code":0,"session":"of-the-partner"}' }
      - { weight: 2, status: 500, body: 'no' }
      - { weight: 1, status: 200, applied: false, body: '{"code":7}' }
`

// A partner that is recorded behind a node is served again, and a node finds it
// alike: as slow, as often wrong, with the same limit and the same verdicts.
func TestRecordAPartner(t *testing.T) {
	const records = 80
	broker := startBroker(t)
	a, url := serveTwin(t, "a.yaml", []byte(partnerA))
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	connection := func(base string) {
		t.Helper()
		if _, err := d.PutConnection(t.Context(), &api.PutConnection{Document: "connection: v1\nname: partner\nhttp: { base: " + base + ", concurrent: 8 }\n"}); err != nil {
			t.Fatal(err)
		}
	}
	connection(url)
	node := api.NewClient("http://" + d.Addr())
	document := "flow: v1\nname: push\nsource: kafka://main/in\norder: none\nstages:\n  - id: deliver\n    push: { http: { connection: partner, post: /orders } }\n" +
		"    validate: { ok: response.status == 200 && response.body.code == 0, reject: response.status == 200 && response.body.code == 7 }\n    retry: { first: 5ms, max: 20ms }\n"
	mustPut(t, d, &api.PutFlow{Document: document})
	poll(t, "the connection is in use", func() (bool, string) { return d.connections.usage("partner") != nil, "" })
	var exchanges []capture.Exchange
	looked := make(chan error, 1)
	began := make(chan struct{})
	go func() {
		close(began)
		page, err := node.Exchanges(t.Context(), &api.ExchangeQuery{Connection: "partner", Count: 110})
		if err == nil {
			exchanges = page.Items
		}
		looked <- err
	}()
	<-began
	poll(t, "somebody looks", func() (bool, string) { return d.connections.onlookers("partner").Wants(), "" })
	cl := kafkaClient(t, broker.Addr())
	spread(t, cl, 0, records)
	settled(t, d, "push", records)
	spread(t, cl, records, 40) // to fill the page
	if err := <-looked; err != nil {
		t.Fatal(err)
	}
	settled(t, d, "push", records+40)
	if d.connections.onlookers("partner").Wants() {
		t.Error("somebody still looks")
	}
	if len(exchanges) != 110 {
		t.Fatalf("%d exchanges", len(exchanges))
	}
	verdicts := map[string]int{}
	for _, x := range exchanges {
		verdicts[fmt.Sprint(x.Response.Status, " ", x.Verdict)]++
		if x.Time.IsZero() || x.Millis < 0.1 || !strings.HasPrefix(x.Request.URL, url) || x.Request.Method != "POST" || x.Request.Headers["Idempotency-Key"] == "" || strings.Contains(x.Response.Body, "of-the-partner") {
			t.Fatalf("%+v", x)
		}
	}
	for what := range verdicts {
		if want := map[string]bool{"200 ok": true, "200 reject": true, "500 retry": true, "429 retry": true}; !want[what] {
			t.Errorf("verdicts %v", verdicts)
		}
	}

	text, _, err := capture.Twin(exchanges, capture.Options{Name: "partner-b"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"match: 'POST /orders'", "retry_after: seconds", "applied: false", "status: 500"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(string(text), "429") || strings.Contains(string(text), "of-the-partner") {
		t.Errorf("the twin is\n%s", text)
	}
	b, url := serveTwin(t, "b.yaml", text)
	connection(url)
	from := a.State()
	spread(t, cl, records+40, records)
	settled(t, d, "push", 2*records+40)
	to := b.State()
	part := func(s twin.State, status string) float64 {
		return float64(s.Statuses[status]) / float64(s.Requests-s.Statuses["429"])
	}
	for _, status := range []string{"200", "500"} {
		if was, is := part(from, status), part(to, status); is < was-.2 || is > was+.2 {
			t.Errorf("status %s: %.2f of B's answers, %.2f of A's", status, is, was)
		}
	}
	if to.Statuses["429"] == 0 || to.Requests < records {
		t.Errorf("B: %+v", to)
	}
	accounted(t, d, "push")
}

// What is recorded holds no credential and no signature, wherever they come
// from.
func TestRecordingKeepsNoSecrets(t *testing.T) {
	d, _, more := signers(t, `    sign: { plugin: ./sign.wasm, with: { query: proof }, keys: { only: { secret: key } } }
`, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Set-Cookie", "session=of-the-partner")
		fmt.Fprintf(w, `{"sent":%q,"signed":%q,"query":%q,"password":"of-the-partner","fine":"yes"}`, r.Header.Get("Authorization"), r.Header.Get("X-Signature"), r.URL.Query().Get("proof"))
	}, `{"a":1}`)
	page := make(chan *api.ExchangePage, 1)
	go func() {
		p, err := d.Exchanges(t.Context(), &api.ExchangeQuery{Connection: "partner", Count: 1})
		if err != nil {
			t.Error(err)
		}
		page <- p
	}()
	poll(t, "somebody looks", func() (bool, string) { return d.connections.onlookers("partner").Wants(), "" })
	more(`{"a":"and more","api_key":"of-the-record"}`)
	p := <-page
	if p == nil || len(p.Items) != 1 {
		t.Fatalf("page %+v", p)
	}
	line := jsonOf(t, p.Items[0])
	for _, secret := range []string{bearer, "of-the-partner", "of-the-record", "proof=", "X-Signature", "Bearer b"} {
		if strings.Contains(line, secret) {
			t.Errorf("%q is in %s", secret, line)
		}
	}
	for _, want := range []string{`"fine\":\"yes\"`, "page=1", "and more", `"verdict":"ok"`, `signed\":\"***`} {
		if !strings.Contains(line, want) {
			t.Errorf("no %q in %s", want, line)
		}
	}
}

func TestOnlookersAreBounded(t *testing.T) {
	var all onlookers
	if all.Wants() {
		t.Error("nobody looks, and yet something is wanted")
	}
	one, two := all.join(), all.join()
	if !all.Wants() {
		t.Error("nothing is wanted")
	}
	x := &delivery.Observed{}
	for range onlookerQueue + 5 {
		one.offer(x, 1)
	}
	if len(one.queue) != onlookerQueue || one.missed.Load() != 5 || one.bytes.Load() != onlookerQueue {
		t.Errorf("%d wait, %d missed, %d bytes", len(one.queue), one.missed.Load(), one.bytes.Load())
	}
	for _, size := range []int64{onlookerBytes + 1, 1, onlookerBytes + 1} { // one that is too large goes alone
		two.offer(x, size)
	}
	if len(two.queue) != 1 || two.missed.Load() != 2 {
		t.Errorf("%d wait, %d missed", len(two.queue), two.missed.Load())
	}
	two.bytes.Store(onlookerBytes - 10)
	two.offer(x, 10)
	two.offer(x, 1)
	if len(two.queue) != 2 || two.missed.Load() != 3 {
		t.Errorf("%d wait, %d missed", len(two.queue), two.missed.Load())
	}
	all.leave(one)
	all.leave(two)
	if all.Wants() || len(all.all) != 0 {
		t.Error("somebody still looks")
	}
}

// Nothing can be recorded where nothing is sent.
func TestRecordingOfNothing(t *testing.T) {
	broker := startBroker(t)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	if _, err := d.PutConnection(t.Context(), &api.PutConnection{Document: "connection: v1\nname: partner\nhttp: { base: http://127.0.0.1:1 }\n"}); err != nil {
		t.Fatal(err)
	}
	for name, code := range map[string]string{"main": api.CodeInvalid, "partner": api.CodeConflict, "other": api.CodeNotFound, "http://127.0.0.1:1": api.CodeConflict} {
		_, err := d.Exchanges(t.Context(), &api.ExchangeQuery{Connection: name, Millis: 1})
		if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != code {
			t.Errorf("%s: %v", name, err)
		}
	}
}
