package api

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestIngestRoute(t *testing.T) {
	h := New(Config{Backend: &fake{}, Ingest: func(_ context.Context, project, name string) (http.Handler, error) {
		switch project + "/" + name {
		case "default/orders":
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				_, _ = w.Write([]byte("took " + string(body)))
			}), nil
		case "default/paused":
			return nil, &Error{Code: CodeUnavailable, Detail: "flow default/paused is paused"}
		case "default/kafka":
			return nil, &Error{Code: CodeConflict, Detail: "flow default/kafka reads from kafka"}
		}
		return nil, &Error{Code: CodeNotFound, Detail: "there is no flow " + project + "/" + name}
	}})
	for path, want := range map[string]struct {
		status int
		code   string
		retry  string
	}{
		"/v1/ingest/default/orders": {200, "", ""},
		"/v1/ingest/default/paused": {503, CodeUnavailable, "5"},
		"/v1/ingest/default/kafka":  {409, CodeConflict, ""},
		"/v1/ingest/default/nope":   {404, CodeNotFound, ""},
		"/v1/ingest/default":        {404, CodeUsage, ""},
	} {
		r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(`{"n":1}`))
		r.Host = "127.0.0.1"
		resp, e := do(t, h, r)
		if resp.StatusCode != want.status || (e != nil) != (want.code != "") || e != nil && e.Code != want.code || resp.Header.Get("Retry-After") != want.retry {
			t.Errorf("%s: HTTP %d %+v, Retry-After %q; want %+v", path, resp.StatusCode, e, resp.Header.Get("Retry-After"), want)
		}
		if body, _ := io.ReadAll(resp.Body); e == nil && string(body) != `took {"n":1}` {
			t.Errorf("%s: %s", path, body)
		}
	}

	// A key is the source's to know, and not the API's.
	for _, body := range []string{"1", "2", "2"} {
		r := httptest.NewRequest(http.MethodPost, "/v1/ingest/default/orders", strings.NewReader(body))
		r.Host = "127.0.0.1"
		r.Header.Set(IdempotencyKey, "k")
		resp, _ := do(t, h, r)
		if got, _ := io.ReadAll(resp.Body); string(got) != "took "+body {
			t.Errorf("with a key: HTTP %d %s, want the source's own answer", resp.StatusCode, got)
		}
	}
	r := httptest.NewRequest(http.MethodGet, "/v1/ingest/default/orders", nil)
	r.Host = "127.0.0.1"
	if resp, _ := do(t, h, r); resp.StatusCode != 405 || resp.Header.Get("Allow") != "POST" {
		t.Errorf("GET: HTTP %d, Allow %q", resp.StatusCode, resp.Header.Get("Allow"))
	}
	r = httptest.NewRequest(http.MethodPost, "/v1/ingest/default/orders", strings.NewReader("x"))
	r.Host, r.Header = "127.0.0.1", http.Header{"Origin": {"http://evil.example"}}
	if resp, e := do(t, h, r); resp.StatusCode != 403 || e.Code != CodeForbidden {
		t.Errorf("from another page: HTTP %d", resp.StatusCode)
	}
}

// The node's document names the path, and a node without sources of the kind
// has none.
func TestIngestIsDocumented(t *testing.T) {
	for _, find := range []Ingest{nil, func(context.Context, string, string) (http.Handler, error) { return nil, nil }} {
		h := New(Config{Backend: &fake{}, Ingest: find})
		r := httptest.NewRequest(http.MethodGet, "/openapi.json", nil)
		r.Host = "127.0.0.1"
		resp, _ := do(t, h, r)
		var doc struct {
			Paths map[string]map[string]struct {
				Responses map[string]any `json:"responses"`
			} `json:"paths"`
		}
		if err := json.NewDecoder(resp.Body).Decode(&doc); err != nil {
			t.Fatal(err)
		}
		got, ok := doc.Paths[ingestPath]["post"]
		if ok != (find != nil) || ok && (got.Responses["200"] == nil || got.Responses["429"] == nil) {
			t.Errorf("with a finder: %t; in the document: %t, %v", find != nil, ok, got)
		}
	}
}
