package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"
)

func do(t *testing.T, h http.Handler, r *http.Request) (*http.Response, *Error) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	resp := w.Result()
	if resp.Header.Get("Content-Type") != problemType {
		return resp, nil
	}
	var e Error
	dec := json.NewDecoder(resp.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&e); err != nil {
		t.Fatal(err)
	}
	if e.Status != resp.StatusCode || e.Code == "" || e.Title == "" || e.Detail == "" {
		t.Errorf("HTTP %d with an incomplete error %+v", resp.StatusCode, e)
	}
	return resp, &e
}

func TestOnlyLoopbackHostsAreServed(t *testing.T) {
	h := New(Config{Backend: &fake{node: func() (*Node, error) { return &Node{Ready: true}, nil }}, AllowedHosts: []string{"Box.local:7070"}})
	for host, want := range map[string]int{
		"127.0.0.1": 200, "127.0.0.1:7070": 200, "127.0.0.1:1": 200, "localhost:7070": 200, "LOCALHOST": 200, "[::1]:7070": 200, "[::1]": 200,
		"box.local:7070": 200, "box.local": 403, "box.local:7071": 403,
		"evil.example": 403, "evil.example:7070": 403, "127.0.0.1.evil.example:7070": 403, "localhost.evil.example": 403, "evil.example:80@127.0.0.1": 403,
		"10.0.0.1:7070": 403, "127.0.0.2:7070": 403, "[::2]:7070": 403, "": 403, "127.0.0.1:7070:80": 403, "127.0.0.1:": 403, "0x7f.1:7070": 403, "[::ffff:127.0.0.1]:7070": 403,
	} {
		for _, path := range []string{"/v1/node", "/livez", "/readyz", "/openapi.json"} {
			r := httptest.NewRequest("GET", path, nil)
			r.Host = host
			resp, e := do(t, h, r)
			if resp.StatusCode != want || (want == 403) != (e != nil && e.Code == CodeForbidden) {
				t.Errorf("host %q, %s: got %d %+v, want %d", host, path, resp.StatusCode, e, want)
			}
		}
	}
}

// A page's name that was rebound to 127.0.0.1 reaches the port, with its own
// name as host and as origin.
func TestReboundNameIsRefused(t *testing.T) {
	server := startNode(t, &fake{})
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
	}}}
	defer client.CloseIdleConnections()
	for _, method := range []string{"GET", "POST", "DELETE"} {
		r, err := http.NewRequest(method, "http://rebound.example:7070/v1/flows/default/orders", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Origin", "http://rebound.example:7070")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 403 {
			t.Errorf("%s: got %s", method, resp.Status)
		}
	}
}

func TestWebPageCannotPostAPlugin(t *testing.T) {
	uploads := 0
	h := New(Config{Backend: &fake{uploadPlugin: func(string, io.Reader) (*Plugin, error) { uploads++; return &Plugin{}, nil }}})
	for _, c := range []struct {
		name    string
		headers map[string]string
		want    int
	}{
		{"a page of another site", map[string]string{"Origin": "https://evil.example", "Content-Type": "text/plain"}, 403},
		{"another port of this machine", map[string]string{"Origin": "http://127.0.0.1:3000"}, 403},
		{"another name of this machine", map[string]string{"Origin": "http://localhost:7070"}, 403},
		{"another scheme", map[string]string{"Origin": "https://127.0.0.1:7070"}, 403},
		{"a sandboxed page", map[string]string{"Origin": "null"}, 403},
		{"a file", map[string]string{"Origin": "file://"}, 403},
		{"a page without an origin", map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		{"a form", map[string]string{"Content-Type": "multipart/form-data; boundary=x"}, 415},
		{"a text", map[string]string{"Content-Type": "text/plain"}, 415},
		{"no type", map[string]string{"Content-Type": ""}, 415},
		{"flowctl", nil, 200},
		{"a page of the node's own", map[string]string{"Origin": "http://127.0.0.1:7070", "Sec-Fetch-Site": "same-origin"}, 200},
	} {
		uploads = 0
		r := httptest.NewRequest("POST", "/v1/plugins?file=x.wasm", strings.NewReader("\x00asm"))
		r.Host = "127.0.0.1:7070"
		r.Header.Set("Content-Type", "application/octet-stream")
		for k, v := range c.headers {
			r.Header.Set(k, v)
		}
		resp, e := do(t, h, r)
		if resp.StatusCode != c.want || (uploads == 1) != (c.want == 200) {
			t.Errorf("%s: got %d %+v and %d uploads, want %d", c.name, resp.StatusCode, e, uploads, c.want)
		}
		if resp.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: the answer allows an origin", c.name)
		}
	}
}

func TestRefusals(t *testing.T) {
	plan := func(req *PutFlow) (*FlowPlan, error) { return &FlowPlan{Project: "default", Name: "orders"}, nil }
	h := New(Config{Backend: &fake{
		putFlow: plan,
		flow:    func(string, string) (*Flow, error) { return nil, errors.New("disk on fire") },
		flows: func(string) ([]*Flow, error) {
			return nil, fmt.Errorf("list: %w", &Error{Code: CodeUnavailable, Detail: "no leader"})
		},
		revisions: func(string, string) ([]*Revision, error) { panic("a fault") },
	}})
	for _, c := range []struct {
		name, method, path, kind, body string
		status                         int
		code, detail                   string
	}{
		{"no path", "GET", "/v1/nothing", "", "", 404, CodeUsage, "there is no path /v1/nothing"},
		{"no docs page", "GET", "/docs", "", "", 404, CodeUsage, "there is no path /docs"},
		{"no metrics", "GET", "/metrics", "", "", 404, CodeUsage, "there is no path /metrics"},
		{"method", "PATCH", "/v1/flows/default/orders", "", "", 405, CodeUsage, "/v1/flows/default/orders does not take PATCH, but GET, PUT, DELETE"},
		{"unknown query", "GET", "/v1/flows?projetc=x", "", "", 422, CodeInvalid, "validation failed: query.projetc: unknown query parameter"},
		{"limit", "GET", "/v1/flows/default/orders/failures?limit=1001", "", "", 422, CodeInvalid, "validation failed: query.limit: expected number <= 1000"},
		{"cursor", "GET", "/v1/flows/default/orders/failures?after=x", "", "", 422, CodeInvalid, "validation failed: query.after: invalid integer"},
		{"seq", "GET", "/v1/flows/default/orders/failures/x", "", "", 422, CodeInvalid, "validation failed: path.seq: invalid integer"},
		{"missing field", "POST", "/v1/deployments", jsonType, `{"flow":"x"}`, 422, CodeInvalid, "validation failed: body: expected required property digest to be present"},
		{"unknown field", "POST", "/v1/deployments", jsonType, `{"digest":"x","flwo":"x"}`, 422, CodeInvalid, "validation failed: body.flwo: unexpected property"},
		{"not JSON", "POST", "/v1/deployments", jsonType, `{`, 400, CodeUsage, "validation failed: body: unexpected end of JSON input"},
		{"no body", "POST", "/v1/deployments", jsonType, ``, 400, CodeUsage, "request body is required"},
		{"unknown field of a flow", "POST", "/v1/flows", jsonType, `{"document":"x","dryrun":true}`, 422, CodeInvalid, `read the request's body: json: unknown field "dryrun"`},
		{"two values", "POST", "/v1/flows", jsonType, `{"document":"x"} {}`, 422, CodeInvalid, "read the request's body: more than one JSON value"},
		{"empty document", "PUT", "/v1/flows/default/orders", yamlType, ``, 422, CodeInvalid, "the request has no document"},
		{"another flow", "PUT", "/v1/flows/default/other", yamlType, "flow: v1", 422, CodeInvalid, "the document is flow default/orders, the path says default/other"},
		{"type of a document", "PUT", "/v1/flows/default/orders", "text/html", "x", 415, CodeUsage, `content type "text/html" is not taken here`},
		{"too large", "PUT", "/v1/flows/default/orders", yamlType, strings.Repeat("#", maxBody+1), 413, CodeTooLarge, "the request's body is larger than 8 MiB"},
		{"no leader", "GET", "/v1/flows", "", "", 503, CodeUnavailable, "no leader"},
		{"internal", "GET", "/v1/flows/default/orders", "", "", 500, CodeInternal, "disk on fire"},
		{"panic", "GET", "/v1/flows/default/orders/revisions", "", "", 500, CodeInternal, "GET /v1/flows/default/orders/revisions: a fault in the node"},
	} {
		r := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))
		r.Host = "localhost"
		if c.kind != "" {
			r.Header.Set("Content-Type", c.kind)
		}
		resp, e := do(t, h, r)
		if e == nil || resp.StatusCode != c.status || e.Code != c.code || e.Detail != c.detail {
			t.Errorf("%s: got %d %+v, want %d %s %q", c.name, resp.StatusCode, e, c.status, c.code, c.detail)
		}
	}
}

func TestDocumentsAsYAML(t *testing.T) {
	var asked []PutFlow
	b := &fake{
		putFlow: func(req *PutFlow) (*FlowPlan, error) {
			asked = append(asked, *req)
			return &FlowPlan{Project: "default", Name: "orders", DryRun: req.DryRun}, nil
		},
		putConnection: func(req *PutConnection) (*ConnectionPlan, error) {
			return &ConnectionPlan{Name: "main", Action: req.Document, DryRun: req.DryRun}, nil
		},
		flow: func(string, string) (*Flow, error) { return &Flow{Revision: 7}, nil },
	}
	h := New(Config{Backend: b})
	put := func(method, path, etag, body string, out any) *http.Response {
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		r.Host = "localhost"
		r.Header.Set("Content-Type", "application/yaml; charset=utf-8")
		if etag != "" {
			r.Header.Set("If-Match", etag)
		}
		resp, e := do(t, h, r)
		if e != nil {
			t.Fatalf("%s: %+v", path, e)
		}
		if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
			t.Fatal(err)
		}
		return resp
	}
	var plan FlowPlan
	put("PUT", "/v1/flows/default/orders?dry_run=1&file=f.yaml", `"7"`, "flow: v1\n", &plan)
	if want := (PutFlow{Document: "flow: v1\n", File: "f.yaml", IfMatch: 7, DryRun: true}); len(asked) != 1 || !equal(asked[0], want) || !plan.DryRun {
		t.Errorf("dry run: asked %+v, answer %+v", asked, plan)
	}
	asked, plan = nil, FlowPlan{}
	put("PUT", "/v1/flows/default/orders", "*", "flow: v1\n", &plan)
	if len(asked) != 2 || !asked[0].DryRun || asked[1].DryRun || asked[1].IfMatch != 0 || plan.DryRun {
		t.Errorf("put: asked %+v, answer %+v", asked, plan)
	}
	asked = nil
	put("POST", "/v1/flows", "", "flow: v1\n", &plan)
	if len(asked) != 1 || asked[0].DryRun {
		t.Errorf("post: asked %+v", asked)
	}
	var connection ConnectionPlan
	put("PUT", "/v1/connections/main", "", "connection: v1\n", &connection)
	if connection.Action != "connection: v1\n" || connection.DryRun {
		t.Errorf("connection: %+v", connection)
	}
	r := httptest.NewRequest("GET", "/v1/flows/default/orders", nil)
	r.Host = "localhost"
	if resp, _ := do(t, h, r); resp.Header.Get("ETag") != `"7"` {
		t.Errorf("ETag %q", resp.Header.Get("ETag"))
	}
}

func equal(a, b PutFlow) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return string(x) == string(y)
}

func TestHealthPaths(t *testing.T) {
	node := &Node{}
	var err error
	h := New(Config{
		Backend: &fake{node: func() (*Node, error) { return node, err }},
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { writeText(w, "millrace_up 1") }),
	})
	status := func(path string) int {
		r := httptest.NewRequest("GET", path, nil)
		r.Host = "localhost"
		resp, _ := do(t, h, r)
		return resp.StatusCode
	}
	if got := [3]int{status("/livez"), status("/readyz"), status("/metrics")}; got != [3]int{200, 503, 200} {
		t.Errorf("not ready: %v", got)
	}
	node.Ready = true
	if got := status("/readyz"); got != 200 {
		t.Errorf("ready: %d", got)
	}
	err = &Error{Code: CodeUnavailable, Detail: "shutting down"}
	if got := status("/readyz"); got != 503 {
		t.Errorf("error: %d", got)
	}
}

func TestUploadsEndAtTheLimit(t *testing.T) {
	f := &fake{uploadPlugin: func(_ string, r io.Reader) (*Plugin, error) {
		n, err := io.Copy(io.Discard, r)
		if err != nil {
			return nil, errors.New("store: something hid the cause") // the handler knows it all the same
		}
		return &Plugin{Size: n}, nil
	}}
	server := startNode(t, f)
	post := func(body io.Reader) (*http.Response, error) {
		r, err := http.NewRequest("POST", server.URL+"/v1/plugins?file=big.wasm", body)
		if err != nil {
			return nil, err
		}
		r.Header.Set("Content-Type", "application/octet-stream")
		return http.DefaultClient.Do(r)
	}
	resp, err := post(io.LimitReader(zeros{}, MaxPlugin))
	if err != nil {
		t.Fatal(err)
	}
	var p Plugin
	if err := json.NewDecoder(resp.Body).Decode(&p); err != nil || p.Size != MaxPlugin {
		t.Errorf("at the limit: %s, %+v, %v", resp.Status, p, err)
	}
	resp.Body.Close()
	resp, err = post(io.LimitReader(zeros{}, MaxPlugin+1))
	if err != nil {
		t.Fatal(err)
	}
	var e Error
	if err := json.NewDecoder(resp.Body).Decode(&e); err != nil || e.Code != CodeTooLarge || e.Detail != "plugin big.wasm is larger than 64 MiB" {
		t.Errorf("above the limit: %s, %+v, %v", resp.Status, e, err)
	}
	resp.Body.Close()

	_, err = NewClient(server.URL).UploadPlugin(t.Context(), "big.wasm", io.LimitReader(zeros{}, MaxPlugin+1))
	if got, ok := errors.AsType[*Error](err); !ok || got.Code != CodeTooLarge {
		t.Errorf("client: %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A body cut short is not a plugin.
func TestUploadCutShort(t *testing.T) {
	done := make(chan error, 1) // one upload
	server := startNode(t, &fake{uploadPlugin: func(_ string, r io.Reader) (*Plugin, error) {
		_, err := io.ReadAll(r)
		done <- err
		return nil, err
	}})
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v1/plugins HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/wasm\r\nContent-Length: 100\r\n\r\nhalf")
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("the backend got %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the upload did not end")
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 400 {
		t.Errorf("got %s", resp.Status)
	}
}

// The read limit ends with the body: a handler that works on is not told that
// its client left.
func TestSlowHandlerOutlivesTheReadLimit(t *testing.T) {
	const limit = 50 * time.Millisecond
	ended := make(chan error, 2) // one a request
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b := bound(w, r.Body, 1<<10, limit)
		if _, err := io.Copy(io.Discard, b); err != nil {
			ended <- err
			return
		}
		select {
		case <-r.Context().Done():
			ended <- r.Context().Err()
		case <-time.After(6 * limit):
			ended <- nil
		}
	})
	server := httptest.NewUnstartedServer(nil)
	server.Config = Server("", handler)
	server.Config.ReadTimeout = limit
	server.Start()
	defer server.Close()
	for _, body := range []io.Reader{nil, strings.NewReader("x")} {
		resp, err := http.Post(server.URL, "text/plain", body)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if err := <-ended; err != nil {
			t.Errorf("body %v: %v", body, err)
		}
	}
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf")
	var timeout net.Error
	if err := <-ended; !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("a slow body ended with %v", err)
	}
}

func TestServerHasLimits(t *testing.T) {
	s := Server("127.0.0.1:0", http.NotFoundHandler())
	if s.ReadHeaderTimeout <= 0 || s.ReadTimeout <= 0 || s.WriteTimeout <= deployLimit || s.IdleTimeout <= 0 || s.MaxHeaderBytes <= 0 {
		t.Errorf("a limit is missing: %+v", s)
	}
}

func TestListen(t *testing.T) {
	for _, address := range []string{"0.0.0.0:7070", ":7070", "[::]:7070", "10.0.0.1:7070", "example.org:7070", "192.168.1.4:0"} {
		l, err := Listen(address)
		if err == nil {
			l.Close()
		}
		if !errors.Is(err, ErrNotLoopback) || !strings.Contains(err.Error(), "127.0.0.1:") {
			t.Errorf("%s: %v", address, err)
		}
	}
	for _, address := range []string{"", "7070", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:70000", "::1:7070"} {
		var listen *ListenError
		if err := CheckListen(address); !errors.As(err, &listen) || listen.Next == "" || errors.Is(err, ErrNotLoopback) {
			t.Errorf("%q: %v", address, err)
		}
	}
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().String()
	if _, err := Listen(taken); !errors.Is(err, syscall.EADDRINUSE) || !strings.HasPrefix(err.Error(), "listen at "+taken+": bind: address already in use: ") {
		t.Errorf("taken port: %v", err)
	}
	if l, err := Listen("localhost:0"); err != nil {
		t.Error(err)
	} else {
		l.Close()
	}
}

func TestClientTellsWhatIsWrong(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	closed.Close()
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "<html>hello") }))
	defer other.Close()
	elsewhere := httptest.NewServer(http.RedirectHandler("http://127.0.0.1:1/", http.StatusFound))
	defer elsewhere.Close()
	rude := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }))
	rude.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	defer rude.Close()
	for _, c := range []struct{ name, base, code, detail string }{
		{"nobody listens", "http://" + nobody, CodeUnreachable, "no node at " + nobody},
		{"address without scheme", nobody, CodeUnreachable, "no node at " + nobody},
		{"another program", other.URL, CodeUnreachable, "is not a node of ours: HTTP 200"},
		{"a redirect", elsewhere.URL, CodeUnreachable, "is not a node of ours: HTTP 302"},
		{"a broken answer", rude.URL, CodeUnreachable, "EOF"},
		{"not an address", "ftp://x", CodeUsage, `server address "ftp://x" is not of the form`},
		{"empty", "", CodeUsage, `server address "" is not of the form`},
		{"with a path", "http://127.0.0.1:7070/v1", CodeUsage, "is not of the form"},
	} {
		_, err := NewClient(c.base).Node(t.Context())
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Code != c.code || !strings.Contains(e.Detail, c.detail) || e.Next == "" || e.Status != 0 {
			t.Errorf("%s: got %#v", c.name, err)
		}
	}
	if _, err := NewClient(nobody).Flow(t.Context(), "p", ""); err == nil || !strings.Contains(err.Error(), "a name is empty") {
		t.Errorf("empty name: %v", err)
	}
	if _, err := NewClient(nobody).SetFlow(t.Context(), "p", "n", "broken"); err == nil || !strings.Contains(err.Error(), `cannot be made "broken"`) {
		t.Errorf("strange state: %v", err)
	}
}

func TestClientStopsWithItsContext(t *testing.T) {
	asked := make(chan struct{})
	server := startNode(t, &fake{testConnection: func(ctx context.Context, _ string) (*ConnectionTest, error) {
		close(asked)
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	if _, err := NewClient(server.URL).TestConnection(ctx, "main"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
