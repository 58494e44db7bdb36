package api

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// send sends a request with a JSON body and returns the answer.
func send(t *testing.T, method, url, body string, header map[string]string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", jsonType)
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func post(t *testing.T, url, body string, header map[string]string) (int, string) {
	t.Helper()
	return send(t, http.MethodPost, url, body, header)
}

func TestAChangeWithAKeyIsMadeOnce(t *testing.T) {
	f := &fake{}
	server := startNode(t, f)
	calls := 0
	f.dropFailures = func(req *DropFailures) (*DropReport, error) {
		calls++
		switch req.Name {
		case "down":
			return nil, &Error{Code: CodeUnavailable, Detail: "no leader"}
		case "busy":
			return nil, &Error{Status: http.StatusTooManyRequests, Code: CodeUnavailable, Detail: "too many"}
		case "gone":
			return nil, &Error{Code: CodeNotFound, Detail: "no such flow"}
		}
		return &DropReport{Dropped: uint64(calls)}, nil
	}
	path := func(name string) string { return server.URL + "/v1/flows/p/" + name + "/failures/drop" }
	const all, one = `{"all":true}`, `{"seqs":[1]}`
	for _, c := range []struct {
		name, flow, key, body string
		status, calls         int
		contains              string
	}{
		{"the first time", "orders", "k1", all, 200, 1, `"dropped":1`},
		{"again", "orders", "k1", all, 200, 1, `"dropped":1`},
		{"another key", "orders", "k2", all, 200, 2, `"dropped":2`},
		{"no key", "orders", "", all, 200, 3, `"dropped":3`},
		{"the same key for something else", "orders", "k1", one, 422, 3, "came with another request"},
		{"the same key for another flow", "refunds", "k1", all, 422, 3, "came with another request"},
		{"a refusal", "gone", "k3", all, 404, 4, "no such flow"},
		{"a refusal again", "gone", "k3", all, 404, 4, "no such flow"},
		{"what may pass", "down", "k4", all, 503, 5, "no leader"},
		{"is tried again", "down", "k4", all, 503, 6, "no leader"},
		{"what is too much just now", "busy", "k5", all, 429, 7, "too many"},
		{"is tried again too", "busy", "k5", all, 429, 8, "too many"},
		{"a key without end", "orders", strings.Repeat("k", 256), all, 400, 8, "longer than 255"},
	} {
		header := map[string]string{}
		if c.key != "" {
			header[IdempotencyKey] = c.key
		}
		status, body := post(t, path(c.flow), c.body, header)
		if status != c.status || calls != c.calls || !strings.Contains(body, c.contains) {
			t.Errorf("%s: %d %s, %d calls", c.name, status, body, calls)
		}
	}
}

// keyed is a request as the guard passes it on.
func keyed(ctx context.Context, key string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/v1/x", strings.NewReader("{}"))
	r.Header.Set(IdempotencyKey, key)
	return r.WithContext(context.WithValue(ctx, requestKey{}, r))
}

func TestTheSecondWaitsForTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		release := make(chan struct{})
		o := newOnce(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			calls.Add(1)
			<-release
			_, _ = io.WriteString(w, "done")
		}))
		var answers [2]*httptest.ResponseRecorder
		for i := range answers {
			answers[i] = httptest.NewRecorder()
			go o.ServeHTTP(answers[i], keyed(t.Context(), "k"))
		}
		synctest.Wait()
		gone, cancel := context.WithCancel(t.Context())
		left := httptest.NewRecorder()
		go o.ServeHTTP(left, keyed(gone, "k"))
		synctest.Wait()
		cancel()
		synctest.Wait()
		if left.Code != http.StatusServiceUnavailable {
			t.Errorf("who left was answered %d", left.Code)
		}
		close(release)
		synctest.Wait()
		if calls.Load() != 1 || answers[0].Body.String() != "done" || answers[1].Body.String() != "done" {
			t.Errorf("%d calls, %q, %q", calls.Load(), answers[0].Body, answers[1].Body)
		}

		time.Sleep(rememberFor + time.Second)
		o.ServeHTTP(httptest.NewRecorder(), keyed(t.Context(), "k"))
		if calls.Load() != 2 {
			t.Errorf("a key is remembered for ever: %d calls", calls.Load())
		}
	})
}

func TestFewAnswersAreRemembered(t *testing.T) {
	calls := 0
	o := newOnce(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		calls++
		_, _ = io.WriteString(w, strings.Repeat("x", 10))
	}))
	for i := range 3 * remembered {
		o.ServeHTTP(httptest.NewRecorder(), keyed(t.Context(), strings.Repeat("k", i%200)+string(rune('a'+i/200))))
	}
	if len(o.answers) > remembered+1 || len(o.answers) != len(o.order) || calls != 3*remembered {
		t.Errorf("%d answers, %d in order, %d calls", len(o.answers), len(o.order), calls)
	}

	large := newOnce(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, maxRemembered+1)) }))
	large.ServeHTTP(httptest.NewRecorder(), keyed(t.Context(), "k"))
	if len(large.answers) != 0 || len(large.order) != 0 {
		t.Error("a large answer is kept")
	}
}

// A handler that panics leaves nobody waiting.
func TestAPanicFreesTheKey(t *testing.T) {
	calls := 0
	o := newOnce(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		if calls++; calls == 1 {
			panic("fault")
		}
	}))
	func() {
		defer func() { _ = recover() }()
		o.ServeHTTP(httptest.NewRecorder(), keyed(t.Context(), "k"))
	}()
	o.ServeHTTP(httptest.NewRecorder(), keyed(t.Context(), "k"))
	if calls != 2 {
		t.Errorf("%d calls", calls)
	}
}
