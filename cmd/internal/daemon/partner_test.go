package daemon

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/cmd/internal/api"
)

// received is a request as a partner saw it.
type received struct {
	key, path, body string
	header          http.Header
	status          int
	at              time.Time
}

// partnerServer is a partner that answers as a test says, and remembers.
type partnerServer struct {
	*httptest.Server

	mu     sync.Mutex
	answer func(r received) (status int, body string) // guarded by mu
	log    []received                                 // guarded by mu
}

func startPartner(t *testing.T, answer func(r received) (int, string)) *partnerServer {
	t.Helper()
	p := &partnerServer{answer: answer}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		in := received{key: r.Header.Get("Idempotency-Key"), path: r.URL.Path, body: string(body), header: r.Header.Clone(), at: time.Now()}
		p.mu.Lock()
		answer := p.answer
		p.mu.Unlock()
		status, text := 200, ""
		if answer != nil {
			status, text = answer(in)
		}
		in.status = status
		p.mu.Lock()
		p.log = append(p.log, in)
		p.mu.Unlock()
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *partnerServer) set(answer func(r received) (int, string)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = answer
}

// got are the requests that were answered with a status below 300.
func (p *partnerServer) got() []received {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []received
	for _, r := range p.log {
		if r.status < 300 {
			out = append(out, r)
		}
	}
	return out
}

func (p *partnerServer) all() []received {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]received(nil), p.log...)
}

// bodies are those of the requests that were taken, in order.
func (p *partnerServer) bodies() []string {
	var out []string
	for _, r := range p.got() {
		out = append(out, r.body)
	}
	return out
}

// awaitTaken waits until the partner has taken n different bodies.
func (p *partnerServer) awaitTaken(t *testing.T, n int) {
	t.Helper()
	poll(t, fmt.Sprintf("%d records at the partner", n), func() (bool, string) {
		seen := map[string]bool{}
		for _, b := range p.bodies() {
			seen[b] = true
		}
		return len(seen) >= n, fmt.Sprint(len(seen))
	})
}

// feed puts records with keys into partition 0 of a topic.
func feed(t *testing.T, cl *kgo.Client, topic string, pairs ...string) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		r := &kgo.Record{Topic: topic, Key: []byte(pairs[i]), Value: []byte(pairs[i+1])}
		if pairs[i] == "" {
			r.Key = nil
		}
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

// pushing is a flow from topic in to a partner.
func pushing(p *partnerServer, head, beside string) string {
	return "flow: v1\nname: push\nsource: kafka://main/in\n" + head + "stages:\n  - id: deliver\n    push: " + p.URL + "/x\n" + beside
}

func status(t *testing.T, b api.Backend, name string) *api.Flow {
	t.Helper()
	f, err := b.Flow(t.Context(), "default", name)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// accounted checks that the receipt adds up.
func accounted(t *testing.T, b api.Backend, name string) api.Account {
	t.Helper()
	f := status(t, b, name)
	if f.Receipt == nil {
		return api.Account{}
	}
	if f.Receipt.Unaccounted != 0 {
		t.Errorf("receipt of %s: %+v", name, f.Receipt.Account)
	}
	return f.Receipt.Account
}

// keptIs waits until the flow keeps n records.
func keptIs(t *testing.T, b api.Backend, name string, n uint64) {
	t.Helper()
	poll(t, fmt.Sprintf("%d kept records", n), func() (bool, string) {
		f := status(t, b, name)
		accounted(t, b, name)
		if f.Retries == nil {
			return n == 0, f.State + " " + f.Problem
		}
		return f.Retries.Entries == n, fmt.Sprintf("%+v %s %s %s", *f.Retries, f.State, f.Reason, f.Problem)
	})
}

func queued(t *testing.T, b api.Backend, name string, n uint64) {
	t.Helper()
	poll(t, fmt.Sprintf("%d entries in the queue", n), func() (bool, string) {
		f := status(t, b, name)
		accounted(t, b, name)
		return f.Queue.Entries == n, fmt.Sprintf("%d, %s %s %s", f.Queue.Entries, f.State, f.Reason, f.Problem)
	})
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if strings.Contains(x, s) {
			return true
		}
	}
	return false
}
