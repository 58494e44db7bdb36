package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Client asks a node over HTTP. It is a Backend.
//
// What a node refuses comes back as the node's *Error. That no node answers is
// an *Error with CodeUnreachable and Status 0, that it takes too long one with
// CodeTimeout. An end of the caller's context stays that: errors.Is finds
// context.Canceled.
type Client struct {
	// HTTP sends the requests; nil: a client of its own without redirects.
	HTTP *http.Client

	base func() (*url.URL, error)
}

var _ Backend = (*Client)(nil)

// Time limits of a Client's calls; the caller's context may set shorter ones.
const (
	callLimit   = 30 * time.Second
	deployLimit = 3 * time.Minute
)

// Largest answer that a Client reads, in bytes.
const maxAnswer = 256 << 20

// NewClient is a client of the node at base: http://HOST:PORT or HOST:PORT. A
// base that is neither is an error of every call.
func NewClient(base string) *Client {
	return &Client{base: sync.OnceValues(func() (*url.URL, error) { return parseBase(base) })}
}

func parseBase(base string) (*url.URL, error) {
	text := base
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return nil, &Error{Code: CodeUsage, Detail: fmt.Sprintf("server address %q is not of the form http://HOST:PORT", base), Next: "write it like http://127.0.0.1:7070"}
	}
	return u, nil
}

var defaultHTTP = sync.OnceValue(func() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			TLSHandshakeTimeout: 5 * time.Second,
			IdleConnTimeout:     30 * time.Second,
			MaxIdleConnsPerHost: 8,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
})

// request is a call of a Client.
type request struct {
	method string
	path   []string // segments, not escaped
	query  url.Values
	kind   string // content type of body
	body   io.Reader
	limit  time.Duration // 0: callLimit
	answer string        // content type of the answer; "": JSON
}

// segment escapes a path segment so that no server takes it for another path.
func segment(s string) string {
	if strings.Trim(s, ".") == "" {
		return strings.ReplaceAll(s, ".", "%2E")
	}
	return url.PathEscape(s)
}

// ask sends a request and decodes its answer into out, unless that is nil. An
// answer that is not JSON goes into a *[]byte as it is.
func (c *Client) ask(ctx context.Context, req request, out any) error {
	base, err := c.base()
	if err != nil {
		return err
	}
	path := base.Scheme + "://" + base.Host + "/v1"
	for _, s := range req.path {
		if s == "" {
			return &Error{Code: CodeUsage, Detail: fmt.Sprintf("%s /%s: a name is empty", req.method, strings.Join(req.path, "/")), Next: "give the name"}
		}
		path += "/" + segment(s)
	}
	if len(req.query) > 0 {
		path += "?" + req.query.Encode()
	}
	if req.limit == 0 {
		req.limit = callLimit
	}
	limited, cancel := context.WithTimeout(ctx, req.limit)
	defer cancel()
	r, err := http.NewRequestWithContext(limited, req.method, path, req.body)
	if err != nil {
		return fmt.Errorf("ask %s: %w", path, err)
	}
	if req.answer == "" {
		req.answer = jsonType
	}
	r.Header.Set("Accept", req.answer)
	if req.kind != "" {
		r.Header.Set("Content-Type", req.kind)
	}
	if req.method != http.MethodGet {
		// With it net/http, too, sends a request again whose connection broke.
		r.Header.Set(IdempotencyKey, rand.Text())
	}
	client := c.HTTP
	if client == nil {
		client = defaultHTTP()
	}
	resp, err := client.Do(r)
	if err != nil {
		return unanswered(ctx, base.Host, req.limit, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return unanswered(ctx, base.Host, req.limit, err)
	}
	kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	switch {
	case kind == problemType:
		var e Error
		if err := json.Unmarshal(body, &e); err == nil && e.Code != "" {
			return &e
		}
		return stranger(base.Host, resp)
	case resp.StatusCode == http.StatusNoContent && out == nil:
		return nil
	case resp.StatusCode/100 != 2 || kind != req.answer || out == nil:
		return stranger(base.Host, resp)
	}
	if raw, ok := out.(*[]byte); ok {
		*raw = body
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return &Error{Code: CodeInternal, Detail: fmt.Sprintf("read the answer of the node at %s: %v", base.Host, err), Next: "use the flowctl of the node's version"}
	}
	return nil
}

// unanswered says why no answer came.
func unanswered(ctx context.Context, host string, limit time.Duration, err error) error {
	var urlErr *url.Error
	if errors.As(err, &urlErr) {
		err = urlErr.Err
	}
	var known *Error
	var timeout net.Error
	var dns *net.DNSError
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("ask the node at %s: %w", host, context.Cause(ctx))
	case errors.As(err, &known):
		return known
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return &Error{Code: CodeTimeout, Detail: fmt.Sprintf("the node at %s did not answer within %v", host, limit), Next: "look at its log"}
	case errors.Is(err, syscall.ECONNREFUSED):
		return &Error{Code: CodeUnreachable, Detail: "no node at " + host, Next: "start one: `flowd run`"}
	case errors.As(err, &dns):
		return &Error{Code: CodeUnreachable, Detail: fmt.Sprintf("no node at %s: there is no host %s", host, dns.Name), Next: "check the server's address"}
	}
	return &Error{Code: CodeUnreachable, Detail: fmt.Sprintf("no node at %s: %v", host, err), Next: "look whether it runs: `flowd run` starts one"}
}

// stranger reports an answer that no node gives.
func stranger(host string, resp *http.Response) error {
	return &Error{Code: CodeUnreachable, Detail: fmt.Sprintf("what answers at %s is not a node of ours: HTTP %s, %q", host, resp.Status, resp.Header.Get("Content-Type")),
		Next: "check the server's address"}
}

func (c *Client) get(ctx context.Context, out any, query url.Values, path ...string) error {
	return c.ask(ctx, request{method: http.MethodGet, path: path, query: query}, out)
}

func (c *Client) post(ctx context.Context, in, out any, limit time.Duration, path ...string) error {
	req := request{method: http.MethodPost, path: path, limit: limit}
	if in != nil {
		body, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("write the request: %w", err)
		}
		req.kind, req.body = jsonType, bytes.NewReader(body)
	}
	return c.ask(ctx, req, out)
}

// one is what get and post fill.
func one[T any](ask func(out any) error) (*T, error) {
	var out T
	if err := ask(&out); err != nil {
		return nil, err
	}
	return &out, nil
}

func many[T any](ask func(out any) error) ([]T, error) {
	l, err := one[list[T]](ask)
	if err != nil {
		return nil, err
	}
	return l.Items, nil
}

func project(name string) string {
	if name == "" {
		return defaultName
	}
	return name
}

// Node implements Backend.
func (c *Client) Node(ctx context.Context) (*Node, error) {
	return one[Node](func(out any) error { return c.get(ctx, out, nil, "node") })
}

// PutFlow implements Backend.
func (c *Client) PutFlow(ctx context.Context, req *PutFlow) (*FlowPlan, error) {
	return one[FlowPlan](func(out any) error { return c.post(ctx, req, out, deployLimit, "flows") })
}

// Flows implements Backend.
func (c *Client) Flows(ctx context.Context, project string) ([]*Flow, error) {
	query := url.Values{}
	if project != "" {
		query.Set("project", project)
	}
	return many[*Flow](func(out any) error { return c.get(ctx, out, query, "flows") })
}

// Flow implements Backend.
func (c *Client) Flow(ctx context.Context, projectName, name string) (*Flow, error) {
	return one[Flow](func(out any) error { return c.get(ctx, out, nil, "flows", project(projectName), name) })
}

// SetFlow implements Backend.
func (c *Client) SetFlow(ctx context.Context, projectName, name, state string) (*Flow, error) {
	var verb string
	switch state {
	case StateRunning:
		verb = "start"
	case StatePaused:
		verb = "pause"
	default:
		return nil, &Error{Code: CodeUsage, Detail: fmt.Sprintf("flow %s cannot be made %q", name, state), Next: "make it running or paused"}
	}
	return one[Flow](func(out any) error {
		return c.post(ctx, nil, out, deployLimit, "flows", project(projectName), name, verb)
	})
}

// DeleteFlow implements Backend.
func (c *Client) DeleteFlow(ctx context.Context, projectName, name string, purge bool) error {
	query := url.Values{}
	if purge {
		query.Set("purge", "1")
	}
	return c.ask(ctx, request{method: http.MethodDelete, path: []string{"flows", project(projectName), name}, query: query, limit: deployLimit}, nil)
}

// Revisions implements Backend.
func (c *Client) Revisions(ctx context.Context, projectName, name string) ([]*Revision, error) {
	return many[*Revision](func(out any) error { return c.get(ctx, out, nil, "flows", project(projectName), name, "revisions") })
}

// PutConnection implements Backend.
func (c *Client) PutConnection(ctx context.Context, req *PutConnection) (*ConnectionPlan, error) {
	return one[ConnectionPlan](func(out any) error { return c.post(ctx, req, out, 0, "connections") })
}

// Connections implements Backend.
func (c *Client) Connections(ctx context.Context) ([]*Connection, error) {
	return many[*Connection](func(out any) error { return c.get(ctx, out, nil, "connections") })
}

// Connection implements Backend.
func (c *Client) Connection(ctx context.Context, name string) (*Connection, error) {
	return one[Connection](func(out any) error { return c.get(ctx, out, nil, "connections", name) })
}

// DeleteConnection implements Backend.
func (c *Client) DeleteConnection(ctx context.Context, name string) error {
	return c.ask(ctx, request{method: http.MethodDelete, path: []string{"connections", name}}, nil)
}

// TestConnection implements Backend.
func (c *Client) TestConnection(ctx context.Context, name string) (*ConnectionTest, error) {
	return one[ConnectionTest](func(out any) error { return c.post(ctx, nil, out, deployLimit, "connections", name, "test") })
}

// UploadPlugin implements Backend.
func (c *Client) UploadPlugin(ctx context.Context, file string, wasm io.Reader) (*Plugin, error) {
	req := request{
		method: http.MethodPost, path: []string{"plugins"}, kind: "application/octet-stream", limit: uploadLimit + deployLimit,
		body: &boundedUpload{Reader: wasm, file: file, left: MaxPlugin},
	}
	if file != "" {
		req.query = url.Values{"file": {file}}
	}
	return one[Plugin](func(out any) error { return c.ask(ctx, req, out) })
}

// boundedUpload ends an upload that the node would refuse for its size.
type boundedUpload struct {
	io.Reader
	file string
	left int64
}

func (u *boundedUpload) Read(p []byte) (int, error) {
	n, err := u.Reader.Read(p)
	if u.left -= int64(n); u.left < 0 {
		return 0, &Error{Code: CodeTooLarge, Detail: fmt.Sprintf("plugin %s is larger than %s", u.file, bytesText(MaxPlugin)),
			Next: "strip its debug sections, or build it for size"}
	}
	return n, err
}

// Plugins implements Backend.
func (c *Client) Plugins(ctx context.Context) ([]*Plugin, error) {
	return many[*Plugin](func(out any) error { return c.get(ctx, out, nil, "plugins") })
}

// Plugin implements Backend.
func (c *Client) Plugin(ctx context.Context, ref string) (*Plugin, error) {
	path := []string{"plugins", ref}
	if !strings.HasPrefix(ref, "sha256:") && ref != "" {
		namespace, name, version := splitPluginRef(ref)
		path = []string{"plugins", namespace, name}
		if version != "" {
			path = append(path, version)
		}
	}
	return one[Plugin](func(out any) error { return c.get(ctx, out, nil, path...) })
}

// Blob implements Backend.
func (c *Client) Blob(ctx context.Context, digest string) ([]byte, error) {
	var b []byte
	req := request{method: http.MethodGet, path: []string{"blobs", strings.TrimPrefix(digest, digestPrefix)}, limit: deployLimit, answer: wasmType}
	err := c.ask(ctx, req, &b)
	return b, err
}

// Deploy implements Backend.
func (c *Client) Deploy(ctx context.Context, req *Deploy) (*Deployment, error) {
	return one[Deployment](func(out any) error { return c.post(ctx, req, out, deployLimit, "deployments") })
}

// Deployment implements Backend.
func (c *Client) Deployment(ctx context.Context, id string) (*Deployment, error) {
	return one[Deployment](func(out any) error { return c.get(ctx, out, nil, "deployments", id) })
}
