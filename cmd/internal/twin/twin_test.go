package twin

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

func TestMain(m *testing.M) {
	flag.Parse()
	goleak.VerifyTestMain(m)
}

// deadline bounds waits for what has to happen.
const deadline = 10 * time.Second

// until polls for what has to become true.
func until(t testing.TB, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	end := time.After(deadline)
	for !cond() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("it did not come to be within %v", deadline)
		}
	}
}

func parse(t testing.TB, src string) *File {
	t.Helper()
	if !strings.Contains(src, "twin: v1") {
		src = "twin: v1\nroutes:\n" + src
	}
	f, err := Parse("partner.yaml", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func newTwin(t testing.TB, src string, o Options) *Twin {
	t.Helper()
	tw, err := New(parse(t, src), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tw.Close)
	return tw
}

// reply is what a caller got: err if the connection broke.
type reply struct {
	status int
	header http.Header
	body   string
	err    error
}

// ask calls the twin without a network. Waits are real, or those of a bubble.
func ask(tw *Twin, method, path, body string, headers ...string) (r reply) {
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	rec := httptest.NewRecorder()
	defer func() {
		if e := recover(); e == http.ErrAbortHandler {
			r.err = http.ErrAbortHandler
		} else if e != nil {
			panic(e)
		}
	}()
	tw.ServeHTTP(rec, req)
	return reply{rec.Code, rec.Header(), rec.Body.String(), nil}
}

// partner is a twin with an address.
type partner struct {
	*Twin
	t      testing.TB
	url    string
	client *http.Client
}

func listen(t testing.TB, src string, o Options) *partner {
	t.Helper()
	tw := newTwin(t, src, o)
	s, err := tw.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	tr := &http.Transport{DisableKeepAlives: true}
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		tr.CloseIdleConnections()
	})
	return &partner{tw, t, "http://" + s.Addr(), &http.Client{Transport: tr, Timeout: deadline}}
}

func (p *partner) send(method, path, body string, headers ...string) reply {
	p.t.Helper()
	req, err := http.NewRequest(method, p.url+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return reply{err: err}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(b), err}
}

// seen are the observations once nothing is under way, as they were decided.
func (p *partner) seen() []Observation {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	if err := p.Wait(ctx); err != nil {
		p.t.Fatal(err)
	}
	return slices.SortedFunc(slices.Values(p.Observations()), func(a, b Observation) int { return cmp.Compare(a.Seq, b.Seq) })
}

func TestRoutes(t *testing.T) {
	tw := newTwin(t, `
  - { match: POST /orders, answers: [{ status: 201, body: "made ${raw}" }] }
  - { match: "GET /orders/{id}", answers: [{ body: { id: "${request.params.id}", n: 1, q: "${request.query.q}" } }] }
  - { match: "* /files/{rest...}", answers: [{ body: "${request.method} ${request.params.rest}" }] }
  - { match: "DELETE /orders/{id}", answers: [{ status: 204 }] }
`, Options{})
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"POST", "/orders", "x", 201, "made x"},
		{"GET", "/orders/7?q=a", "", 200, `{"id":"7","n":1,"q":"a"}`},
		{"PUT", "/files/a/b", "", 200, "PUT a/b"},
		{"DELETE", "/orders/7", "", 204, ""},
		{"PUT", "/orders", "", 405, `{"error":"Method Not Allowed"}`},
		{"GET", "/orders/7/8", "", 404, `{"error":"Not Found"}`},
		{"GET", "/orders/", "", 404, `{"error":"Not Found"}`},
	} {
		got := ask(tw, c.method, c.path, c.body)
		if got.status != c.status || got.body != c.want || got.err != nil {
			t.Errorf("%s %s: %d %s %v, want %d %s", c.method, c.path, got.status, got.body, got.err, c.status, c.want)
		}
	}
	if s := tw.State(); s.Requests != 7 || s.Outcomes[OutcomeNoRoute] != 3 || s.Applied != 4 {
		t.Errorf("state %+v", s)
	}
}

const troubled = `twin: v1
latency: { median: 20ms, p99: 300ms }
routes:
  - match: POST /orders
    items:
      in: json_array
      id: value.id
      verdicts: [{ verdict: retry, chance: 0.2 }, { verdict: reject, every: 17 }]
    answers:
      - { weight: 70 }
      - { weight: 10, status: 503 }
      - { weight: 5, broken: truncated }
      - { weight: 5, reset: body }
      - { weight: 5, hang: 30s }
      - { weight: 5, slow: 4s }
    bursts: [{ every: 50, for: 5, status: 500 }]
`

// TestSeed: the same seed and requests give the same log to the last bit, time
// included; another seed gives another.
func TestSeed(t *testing.T) {
	run := func(seed uint64) []Observation {
		var out []Observation
		synctest.Test(t, func(t *testing.T) {
			tw := newTwin(t, troubled, Options{Seed: seed})
			for i := range 500 {
				ask(tw, "POST", "/orders", fmt.Sprintf(`[{"id":%d},{"id":%d}]`, 2*i, 2*i+1))
			}
			out = tw.Observations()
		})
		return out
	}
	a, b, other := run(7), run(7), run(8)
	if len(a) != 500 || !reflect.DeepEqual(a, b) {
		t.Errorf("two runs with one seed differ")
	}
	if reflect.DeepEqual(a, other) {
		t.Errorf("two seeds give the same trouble")
	}
	kinds := map[string]int{}
	for _, o := range a {
		kinds[o.Outcome+o.Trouble]++
	}
	if kinds[OutcomeBurst] != 50 || kinds["answeredhang"] == 0 || kinds["answeredslow"] == 0 || kinds["answeredtruncated"] == 0 || kinds["answeredreset_body"] == 0 {
		t.Errorf("trouble: %v", kinds)
	}
}

// TestSeedByItem: what an item is answered does not depend on who came before
// it.
func TestSeedByItem(t *testing.T) {
	const file = `
  - match: POST /o
    items: { in: ndjson, id: value.id, verdicts: [{ verdict: retry, chance: 0.5 }] }
`
	verdicts := func(order []string) map[string]string {
		tw := newTwin(t, file, Options{})
		out := map[string]string{}
		for _, id := range order {
			ask(tw, "POST", "/o", `{"id":"`+id+`"}`)
		}
		for _, o := range tw.Observations() {
			out[o.Items[0].ID] = o.Items[0].Verdict
		}
		return out
	}
	a, b := verdicts([]string{"a", "b", "c", "d", "e", "f"}), verdicts([]string{"f", "d", "b", "e", "c", "a"})
	if !reflect.DeepEqual(a, b) {
		t.Errorf("%v, in another order %v", a, b)
	}
}

// TestMix: what is drawn has the proportions of the weights.
func TestMix(t *testing.T) {
	tw := newTwin(t, `
  - match: POST /o
    answers: [{ weight: 90 }, { weight: 9, status: 503 }, { weight: 1, status: 418 }]
`, Options{})
	const n = 20_000
	for range n {
		ask(tw, "POST", "/o", "")
	}
	s := tw.State().Statuses
	for status, want := range map[string]float64{"200": .9, "503": .09, "418": .01} {
		if got := float64(s[status]) / n; math.Abs(got-want) > 0.01 {
			t.Errorf("status %s: %.3f, want %.3f", status, got, want)
		}
	}
}

func TestLatency(t *testing.T) {
	for _, c := range []struct {
		latency  string
		u        float64
		min, max time.Duration
	}{
		{"20ms", .99, 20 * time.Millisecond, 20 * time.Millisecond},
		{"{ uniform: [10ms, 50ms] }", .5, 30 * time.Millisecond, 30 * time.Millisecond},
		{"{ mean: 50ms, stddev: 10ms }", .5, 50 * time.Millisecond, 50 * time.Millisecond},
		{"{ mean: 50ms, stddev: 10ms }", .8413447, 60*time.Millisecond - time.Microsecond, 60*time.Millisecond + time.Microsecond},
		{"{ mean: 5ms, stddev: 10ms }", .0001, 0, 0},
		{"{ median: 20ms, p99: 400ms }", .5, 20 * time.Millisecond, 20 * time.Millisecond},
		{"{ median: 20ms, p99: 400ms }", .99, 400*time.Millisecond - time.Microsecond, 400*time.Millisecond + time.Microsecond},
		{"{ median: 20ms, p99: 400ms, max: 1s }", .9999999, time.Second, time.Second},
		{"{ p50: 10ms, p90: 50ms, p99: 100ms, max: 1s }", .5, 10 * time.Millisecond, 10 * time.Millisecond},
		{"{ p50: 10ms, p90: 50ms, p99: 100ms, max: 1s }", .7, 30*time.Millisecond - time.Microsecond, 30 * time.Millisecond},
		{"{ p50: 10ms, p90: 50ms, p99: 100ms, max: 1s }", .9999999, 999 * time.Millisecond, time.Second},
		{"{ p50: 10ms }", .999, 10 * time.Millisecond, 10 * time.Millisecond},
	} {
		f := parse(t, "\n  - { match: POST /o, latency: "+c.latency+" }\n")
		if got := f.routes[0].latency.at(c.u); got < c.min || got > c.max {
			t.Errorf("%s at %g: %v, want %v to %v", c.latency, c.u, got, c.min, c.max)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		tw := newTwin(t, "twin: v1\nlatency: 20ms\nroutes: [{ match: POST /a }, { match: POST /b, latency: 3s }, { match: POST /c, answers: [{ latency: 1m }] }]", Options{})
		for path, want := range map[string]time.Duration{"/a": 20 * time.Millisecond, "/b": 3 * time.Second, "/c": time.Minute} {
			start := time.Now()
			ask(tw, "POST", path, "")
			if got := time.Since(start); got != want {
				t.Errorf("%s took %v, want %v", path, got, want)
			}
		}
	})
}

// TestRateLimit: in no second, wherever it begins, more than the rate is
// admitted, and never less than could be.
func TestRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tw := newTwin(t, "\n  - { match: POST /o, rate: 20/s }\n", Options{})
		var admitted []time.Time
		limited := 0
		for range 3500 { // fifty times the rate
			if r := ask(tw, "POST", "/o", ""); r.status == 200 {
				admitted = append(admitted, time.Now())
			} else if limited++; r.status != 429 || r.header.Get("Retry-After") != "1" {
				t.Fatalf("%d, Retry-After %q", r.status, r.header.Get("Retry-After"))
			}
			time.Sleep(time.Millisecond)
		}
		for i, at := range admitted {
			if i >= 20 && at.Sub(admitted[i-20]) != time.Second {
				t.Fatalf("%v from one to the twentieth behind it, want a second", at.Sub(admitted[i-20]))
			}
		}
		if len(admitted) != 80 { // twenty at the begin of each second
			t.Errorf("%d of %d admitted in 3.5 s, want 80", len(admitted), len(admitted)+limited)
		}
		if s := tw.State(); s.Outcomes[OutcomeLimited] != int64(limited) || s.Applied != int64(len(admitted)) {
			t.Errorf("state %+v", s)
		}
	})
}

// TestRetryAfter: who waits as long as told is let through, who waits less is
// not.
func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tw := newTwin(t, `
  - { match: POST /s, rate: { requests: 2/m } }
  - { match: POST /d, rate: { requests: 2/m, retry_after: date, status: 503 } }
  - { match: POST /n, rate: { requests: 1/m, retry_after: none } }
`, Options{})
		ask(tw, "POST", "/s", "")
		time.Sleep(10500 * time.Millisecond)
		ask(tw, "POST", "/s", "")
		r := ask(tw, "POST", "/s", "")
		if r.status != 429 || r.header.Get("Retry-After") != "50" { // 49.5 s, rounded up
			t.Errorf("%d, Retry-After %q, want 50", r.status, r.header.Get("Retry-After"))
		}
		time.Sleep(49 * time.Second)
		if r := ask(tw, "POST", "/s", ""); r.status != 429 {
			t.Errorf("a second too early: %d", r.status)
		}
		time.Sleep(time.Second)
		if r := ask(tw, "POST", "/s", ""); r.status != 200 {
			t.Errorf("after the wait: %d", r.status)
		}

		ask(tw, "POST", "/d", "")
		ask(tw, "POST", "/d", "")
		r = ask(tw, "POST", "/d", "")
		at, err := http.ParseTime(r.header.Get("Retry-After"))
		if r.status != 503 || err != nil || time.Until(at) < time.Minute || time.Until(at) > 61*time.Second {
			t.Errorf("%d, Retry-After %q: %v", r.status, r.header.Get("Retry-After"), err)
		}
		time.Sleep(time.Until(at))
		if r := ask(tw, "POST", "/d", ""); r.status != 200 {
			t.Errorf("after the date: %d", r.status)
		}
		ask(tw, "POST", "/n", "")
		if r := ask(tw, "POST", "/n", ""); r.status != 429 || r.header.Get("Retry-After") != "" {
			t.Errorf("%d, Retry-After %q", r.status, r.header.Get("Retry-After"))
		}
	})
}

// TestRateByClient: one client's rate is not another's.
func TestRateByClient(t *testing.T) {
	tw := newTwin(t, "\n  - { match: POST /o, rate: { requests: 1/h, by: 'request.headers[\"x-api-key\"]' } }\n", Options{})
	for i, want := range []int{200, 429, 200, 429, 200} {
		key := []string{"a", "a", "b", "b", ""}[i]
		if r := ask(tw, "POST", "/o", "", "X-Api-Key", key); r.status != want {
			t.Errorf("request %d of %q: %d, want %d", i, key, r.status, want)
		}
	}
	if o := tw.Observations()[3]; o.Client != "b" || o.Outcome != OutcomeLimited || o.Error != "" {
		t.Errorf("%+v", o)
	}
}

// TestConcurrent: what is above the bound is refused, and not counted.
func TestConcurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tw := newTwin(t, "\n  - { match: POST /o, concurrent: 4, too_many: 503, latency: 1s }\n", Options{})
		var wg sync.WaitGroup
		statuses := make([]int, 10)
		for i := range statuses {
			wg.Go(func() { statuses[i] = ask(tw, "POST", "/o", "").status })
		}
		wg.Wait()
		got := map[int]int{}
		for _, s := range statuses {
			got[s]++
		}
		if got[200] != 4 || got[503] != 6 {
			t.Errorf("statuses %v, want four of 200", got)
		}
		if s := tw.State(); s.InFlight != 0 || s.Outcomes[OutcomeBusy] != 6 {
			t.Errorf("state %+v", s)
		}
		if r := ask(tw, "POST", "/o", ""); r.status != 200 {
			t.Errorf("afterwards: %d", r.status)
		}
	})
}

// TestSchedules: outages by time, bursts by time and by count.
func TestSchedules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tw := newTwin(t, `twin: v1
outages:
  - { from: 30s, for: 60s }
  - { from: 200s, every: 100s, for: 10s, status: 503 }
routes: [{ match: POST /o }]
`, Options{})
		start := time.Now()
		for _, c := range []struct {
			at     time.Duration
			status int // 0: reset
		}{{0, 200}, {29 * time.Second, 200}, {30 * time.Second, 0}, {89 * time.Second, 0}, {90 * time.Second, 200},
			{289 * time.Second, 200}, {290 * time.Second, 503}, {299 * time.Second, 503}, {300 * time.Second, 200}, {395 * time.Second, 503}, {400 * time.Second, 200}} {
			time.Sleep(time.Until(start.Add(c.at)))
			r := ask(tw, "POST", "/o", "")
			if r.status != c.status || (r.err != nil) != (c.status == 0) {
				t.Errorf("at %v: %d %v, want %d", c.at, r.status, r.err, c.status)
			}
			if down := tw.State().Outage; down != (c.status != 200) {
				t.Errorf("at %v: the state says outage %v", c.at, down)
			}
		}
		tw.Reset()
		time.Sleep(40 * time.Second)
		if r := ask(tw, "POST", "/o", ""); r.err == nil {
			t.Errorf("the schedule does not begin anew after a reset: %d", r.status)
		}

		tw = newTwin(t, "\n  - { match: POST /n, bursts: [{ every: 10, for: 3 }] }\n  - { match: POST /t, bursts: [{ every: 60s, for: 5s, status: 502, body: bad }] }\n", Options{})
		var got []string
		for range 20 {
			got = append(got, fmt.Sprint(ask(tw, "POST", "/n", "").status))
		}
		if want := strings.Repeat(strings.Repeat("200 ", 7)+strings.Repeat("500 ", 3), 2); strings.Join(got, " ")+" " != want {
			t.Errorf("bursts by count: %v", got)
		}
		time.Sleep(54 * time.Second)
		before := ask(tw, "POST", "/t", "")
		time.Sleep(time.Second)
		if during := ask(tw, "POST", "/t", ""); before.status != 200 || during.status != 502 || during.body != "bad" {
			t.Errorf("bursts by time: %v, %v", before, during)
		}
	})
}

// TestSwitches: outage, calm and reset at run time.
func TestSwitches(t *testing.T) {
	tw := newTwin(t, "\n  - { match: POST /o, answers: [{ weight: 1000000, status: 500 }, { weight: 1, body: fine }] }\n", Options{})
	want := func(what string, status int, broken bool) {
		t.Helper()
		if r := ask(tw, "POST", "/o", ""); r.status != status || (r.err != nil) != broken {
			t.Errorf("%s: %d %v, want %d", what, r.status, r.err, status)
		}
	}
	want("at first", 500, false)
	tw.SetOutage(true, 0)
	want("outage", 0, true)
	tw.SetOutage(true, 504)
	want("outage with a status", 504, false)
	tw.SetOutage(false, 0)
	want("after it", 500, false)
	tw.SetCalm(true)
	want("calm", 200, false)
	tw.SetCalm(false)
	want("not calm", 500, false)
	tw.Reset()
	if s := tw.State(); s.Requests != 0 || len(tw.Observations()) != 0 || len(s.Outcomes) != 0 {
		t.Errorf("after a reset: %+v", s)
	}
}

// TestPipe: a client and a twin in a bubble, with connections in memory.
func TestPipe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tw := newTwin(t, "twin: v1\noutages: [{ from: 10s, for: 10m }]\nroutes: [{ match: POST /o, latency: 2s }]", Options{})
		ln := pipes{make(chan net.Conn), make(chan struct{})}
		srv := &http.Server{Handler: tw}
		go srv.Serve(ln)
		client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
			a, b := net.Pipe()
			ln.conns <- b
			return a, nil
		}}}
		defer client.CloseIdleConnections()
		defer srv.Close()
		post := func() error {
			resp, err := client.Post("http://partner/o", "text/plain", strings.NewReader("x"))
			if err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			return err
		}
		start := time.Now()
		if err := post(); err != nil || time.Since(start) != 2*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		time.Sleep(10 * time.Second)
		if err := post(); err == nil {
			t.Error("the outage is not seen")
		}
		time.Sleep(10 * time.Minute)
		if err := post(); err != nil {
			t.Errorf("after the outage: %v", err)
		}
	})
}

// pipes is a listener of connections in memory.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p pipes) Close() error   { close(p.done); return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "unix"} }

// TestLog: the file, the callback and the memory have the same, and one that
// cannot be written is told.
func TestLog(t *testing.T) {
	var file bytes.Buffer
	var called []Observation
	tw := newTwin(t, "twin: v1\nkeep: 3\nroutes: [{ match: POST /o }]", Options{Log: &file, Observe: func(o Observation) { called = append(called, o) }})
	for i := range 5 {
		ask(tw, "POST", "/o", fmt.Sprint(i))
	}
	var logged []Observation
	for dec := json.NewDecoder(&file); ; {
		var o Observation
		if err := dec.Decode(&o); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		logged = append(logged, o)
	}
	if len(logged) != 5 || len(called) != 5 {
		t.Fatalf("%d logged, %d called", len(logged), len(called))
	}
	kept := tw.Observations()
	if len(kept) != 3 || kept[0].Seq != 3 || kept[2].Seq != 5 {
		t.Errorf("kept %+v", kept)
	}
	for i := range logged {
		if logged[i].Seq != int64(i+1) || logged[i].BodySHA256 != called[i].BodySHA256 || !logged[i].Time.Equal(called[i].Time) {
			t.Errorf("line %d: %+v, called %+v", i, logged[i], called[i])
		}
	}

	full := newTwin(t, "\n  - { match: POST /o }\n", Options{Log: noSpace{}})
	if r := ask(full, "POST", "/o", ""); r.status != 200 {
		t.Errorf("a full disk is the log's trouble alone: %d", r.status)
	}
	if s := full.State(); !strings.Contains(s.LogError, "no space") {
		t.Errorf("state: %q", s.LogError)
	}
}

type noSpace struct{}

func (noSpace) Write([]byte) (int, error) { return 0, fmt.Errorf("no space left") }

func TestSecrets(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "key"), []byte("from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const file = "\n  - { match: POST /o, auth: { header: { name: X-Key, secret: { %s } } } }\n"
	env := func(name string) string { return map[string]string{"KEY": "from-env"}[name] }
	for _, c := range []struct{ secret, good string }{{"env: KEY", "from-env"}, {"file: key", "from-file"}, {"text: abc", "abc"}} {
		tw := newTwin(t, fmt.Sprintf(file, c.secret), Options{Dir: dir, Getenv: env})
		if a, b := ask(tw, "POST", "/o", "", "X-Key", c.good), ask(tw, "POST", "/o", "", "X-Key", c.good+"x"); a.status != 200 || b.status != 401 {
			t.Errorf("%s: %d, %d", c.secret, a.status, b.status)
		}
	}
	for _, c := range []struct{ secret, want string }{{"env: NOPE", "NOPE is not set"}, {"file: nope", "nope: no such file"}} {
		_, err := New(parse(t, fmt.Sprintf(file, c.secret)), Options{Dir: dir, Getenv: env})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.secret, err, c.want)
		}
	}
}
