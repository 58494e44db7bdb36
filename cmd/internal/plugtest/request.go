package plugtest

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/runtime/delivery/sign"
	"github.com/millrace-io/millrace/runtime/delivery/verdict"
	"github.com/millrace-io/millrace/runtime/record"
)

// request is one that a flow made.
type request struct {
	method, path, query string
	headers             []record.Header
	body                []byte // decompressed
}

func (q *request) withQuery() string {
	if q.query == "" {
		return q.path
	}
	return q.path + "?" + q.query
}

// header is the value of a header, whatever the case of its name; "null" if it
// is not there.
func (q *request) header(name string) string {
	for _, h := range q.headers {
		if strings.EqualFold(h.Key, name) {
			return shown(h.Value)
		}
	}
	return shown(nil)
}

func (q *request) String() string {
	return q.method + " " + q.withQuery() + " " + shown(q.body)
}

// maxBody bounds what a compressed body is unpacked to.
const maxBody = 64 << 20

func requestOf(r *sign.Request) request {
	q := request{method: r.Method, path: r.URL.EscapedPath(), query: r.URL.RawQuery, headers: r.Header, body: r.Body}
	if q.header("Content-Encoding") != "gzip" {
		return q
	}
	if z, err := gzip.NewReader(bytes.NewReader(r.Body)); err == nil {
		if b, err := io.ReadAll(io.LimitReader(z, maxBody)); err == nil {
			q.body = b
		}
	}
	return q
}

// partners answer the requests of a case. Safe for concurrent use.
type partners struct {
	mu       sync.Mutex
	all      map[string][]answer  // as the case has them
	answers  map[string][]answer  // guarded by mu; what is left
	requests map[string][]request // guarded by mu
}

func newPartners(answers map[string][]answer) *partners {
	p := &partners{all: answers, answers: map[string][]answer{}, requests: map[string][]request{}}
	for id, list := range answers {
		for _, a := range list {
			for range a.times {
				p.answers[id] = append(p.answers[id], a)
			}
		}
	}
	return p
}

// answer is a daemon.LocalTest's Answer. Who is told of failures says yes
// unless the case has other answers; a request without an answer is not one
// that was made.
func (p *partners) answer(tells map[string]bool) func(id string, r *sign.Request) (*verdict.Response, error) {
	return func(id string, r *sign.Request) (*verdict.Response, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		left := p.answers[id]
		if len(left) == 0 && !tells[id] {
			return nil, nil
		}
		p.requests[id] = append(p.requests[id], requestOf(r))
		if len(left) == 0 {
			return &verdict.Response{Status: 200}, nil
		}
		p.answers[id] = left[1:]
		return left[0].give(r)
	}
}

// unasked tells of the answers that were not given once.
func (p *partners) unasked() (out []Finding) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range sortedKeys(p.all) {
		first := 0 // the request that gets the answer
		for i, a := range p.all[id] {
			if made := len(p.requests[id]); made <= first {
				out = append(out, Finding{Line: a.at.Line, Path: fmt.Sprintf("answers.%s[%d]", id, i), Message: "nobody asked for this answer", Got: cli.Plural(made, "request")})
			}
			first += a.times
		}
	}
	return out
}

func (a *answer) give(r *sign.Request) (*verdict.Response, error) {
	what := fmt.Sprintf("%s %s", r.Method, r.URL.EscapedPath())
	switch a.fault {
	case "timeout":
		return nil, record.Errorf(record.Timeout, "%s: no answer in time", what)
	case "connection":
		return nil, record.Errorf(record.Retryable, "%s: connection refused", what)
	}
	resp := &verdict.Response{Status: a.status, Body: a.body}
	for _, h := range a.headers {
		if strings.EqualFold(h.Key, "Retry-After") {
			h.Value = []byte("0") // nothing is waited for
		}
		resp.Header = append(resp.Header, h)
	}
	return resp, nil
}
