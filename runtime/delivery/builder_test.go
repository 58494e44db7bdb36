package delivery

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/runtime/delivery/batch"
	"github.com/millrace-io/millrace/runtime/delivery/sign"
	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

func text(r *sign.Request) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", r.Method, r.URL)
	for _, h := range r.Header {
		fmt.Fprintf(&b, "|%s: %s", h.Key, h.Value)
	}
	return b.String() + "|" + string(r.Body)
}

func TestRequests(t *testing.T) {
	body := "${value.a}!"
	for _, tc := range []struct {
		name, base string
		push       flow.HTTPPush
		want       string
	}{
		{"the value as it is", "http://h/api/", flow.HTTPPush{Method: "POST", Path: "/v2?x=1"}, `POST http://h/api/v2?x=1|K|always: a|{"a":"ü b","n":null}`},
		{"the base itself", "https://h:1/api", flow.HTTPPush{Method: "PUT"}, `PUT https://h:1/api|K|always: a|{"a":"ü b","n":null}`},
		{"templates", "http://h", flow.HTTPPush{Method: "POST", Path: "/${value.a}/%2F?q=${value.a}#x", Body: &body, Headers: []flow.HeaderTemplate{{Name: "X", Value: "${key}-${attempt}"}}},
			`POST http://h/%C3%BC%20b/%2F?q=%C3%BC%20b%23x|K|X: k-3|always: a|ü b!`},
		{"a path is no host", "http://h", flow.HTTPPush{Method: "POST", Path: "//evil.example/x"}, `POST http://h//evil.example/x|K|always: a|{"a":"ü b","n":null}`},
		{"nor a way out", "http://h/api", flow.HTTPPush{Method: "POST", Path: "${key}@evil.example"}, `POST http://h/api/k@evil.example|K|always: a|{"a":"ü b","n":null}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, err := NewBuilder(BuilderConfig{ID: "deliver", Push: &tc.push, Base: tc.base, Headers: []record.Header{{Key: "always", Value: []byte("a")}},
				Scope: expr.Scope{Roots: expr.RecordRoots}, Identity: Identity{FlowUID: 0xab, Generation: 2}})
			if err != nil {
				t.Fatal(err)
			}
			r := record.Record{Topic: "t", Partition: 4, Offset: 9, Path: "\x00\x01", Key: []byte("k"), Value: []byte(`{"a":"ü b","n":null}`), Attempt: 3}
			r.Trace[0], r.Trace[15] = 1, 2
			for range 2 { // an environment is used again
				req, err := b.Request(&r, nil)
				if err != nil {
					t.Fatal(err)
				}
				want := strings.Replace(tc.want, "|K", "|Idempotency-Key: 00000000000000ab/2/t/4/9#1|traceparent: 00-01000000000000000000000000000002-0000000000090003-00", 1)
				if got := text(req); got != want {
					t.Errorf("got  %s\nwant %s", got, want)
				}
			}
		})
	}
}

func TestRequestsThatCannotBeMade(t *testing.T) {
	for _, push := range []flow.HTTPPush{
		{Method: "POST", Path: "/${value.missing.x + 1}"},
		{Method: "POST", Path: "/${value.bad}"},
		{Method: "POST", Headers: []flow.HeaderTemplate{{Name: "X", Value: "${value.line}"}}},
	} {
		b, err := NewBuilder(BuilderConfig{ID: "deliver", Push: &push, Base: "http://h", Scope: expr.Scope{Roots: expr.RecordRoots}})
		if err != nil {
			t.Fatal(err)
		}
		r := record.Record{Value: []byte(`{"bad":"50%","line":"a\nEvil: s3cret"}`)}
		_, err = b.Request(&r, nil)
		if e := record.AsError(err); e == nil || e.Class != record.Schema || strings.Contains(e.Message, "s3cret") {
			t.Errorf("%+v: got %v, want class schema", push, err)
		}
	}
	for _, base := range []string{"", "partner.example", "ftp://partner.example", "https://u:s3cret@partner.example", "https://u:s3cret@x\x7f"} {
		_, err := NewBuilder(BuilderConfig{ID: "deliver", Push: &flow.HTTPPush{Method: "POST"}, Base: base})
		if e := record.AsError(err); e == nil || e.Class != record.Config || strings.Contains(e.Message, "s3cret") {
			t.Errorf("base %q: got %v, want class config", base, err)
		}
	}
}

func TestRequestsTellFailures(t *testing.T) {
	body := "${failure.stage}: ${failure.message} of ${key}"
	b, err := NewBuilder(BuilderConfig{ID: "tell", Push: &flow.HTTPPush{Method: "POST", Path: "/", Body: &body, Timeout: time.Second}, Base: "http://h", Scope: expr.Scope{Roots: expr.RecordRoots | expr.Failure}})
	if err != nil {
		t.Fatal(err)
	}
	r := rec(1, "a")
	req, err := b.Request(&r, func(env *expr.Env) {
		env.Bind(expr.Failure, map[string]any{"stage": "deliver", "message": "no"})
	})
	if err != nil || string(req.Body) != "deliver: no of a" || b.Timeout() != time.Second {
		t.Errorf("got %v, %v", req, err)
	}
}

func TestBatchRequests(t *testing.T) {
	g, err := batch.New(batch.Config{Records: 2, As: batch.NDJSON, Gzip: true})
	if err != nil {
		t.Fatal(err)
	}
	a, c := rec(1, "a"), rec(2, "c")
	if _, err := g.Add(&a, time.Time{}); err != nil {
		t.Fatal(err)
	}
	bs, err := g.Add(&c, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	push := flow.HTTPPush{Method: "POST", Path: "/${key}", Headers: []flow.HeaderTemplate{{Name: "content-type", Value: "text/plain"}}}
	b, err := NewBuilder(BuilderConfig{ID: "deliver", Push: &push, Base: "http://h", Scope: expr.Scope{Roots: expr.RecordRoots}, Identity: Identity{1, 2}})
	if err != nil {
		t.Fatal(err)
	}
	req, err := b.Batch(bs[0])
	if err != nil {
		t.Fatal(err)
	}
	body, _ := bs[0].Body()
	want := "POST http://h/a|Idempotency-Key: 0000000000000001/2/" + bs[0].ID + "|Content-Encoding: gzip|content-type: text/plain|" + string(body)
	if got := text(req); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
