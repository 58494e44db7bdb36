package delivery

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/millrace-io/millrace/runtime/delivery/batch"
	"github.com/millrace-io/millrace/runtime/delivery/sign"
	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

// Identity is what the idempotency keys of a flow begin with.
type Identity struct {
	FlowUID    uint64
	Generation uint32
}

func (id Identity) prefix() []byte {
	b := make([]byte, 0, 64)
	b = fmt.Appendf(b, "%016x/", id.FlowUID)
	b = strconv.AppendUint(b, uint64(id.Generation), 10)
	return append(b, '/')
}

// Key is the Idempotency-Key of a record: the same for every attempt, every
// owner and every redelivery, another one after an offset reset.
func (id Identity) Key(r *record.Record) string { return string(r.AppendID(id.prefix())) }

// BatchKey is the Idempotency-Key of a batch: the same for every attempt of
// the same items in the same order.
func (id Identity) BatchKey(b *batch.Batch) string { return string(append(id.prefix(), b.ID...)) }

// BuilderConfig says how requests are shaped.
type BuilderConfig struct {
	// ID of the delivery, for messages.
	ID   string
	Push *flow.HTTPPush
	// Base is the connection's: an http:// or https:// URL that Push.Path is
	// put behind.
	Base string
	// Headers go with every request, behind those of Push.
	Headers []record.Header
	// Scope is what the templates may name: Flow.Scope, or ExceptionScope
	// where Request is given a failure.
	Scope    expr.Scope
	Identity Identity
}

// Builder shapes requests out of records and batches. It is immutable and safe
// for concurrent use.
type Builder struct {
	method  string
	timeout time.Duration
	id      Identity
	base    *url.URL
	path    *expr.Template
	fixed   *url.URL // of a path without expressions
	headers []header
	always  []record.Header
	body    *expr.Template // nil: the value as it is
	envs    sync.Pool
}

type header struct {
	name  string
	value *expr.Template
}

// NewBuilder compiles the templates of a push. The error names what is at
// fault; of a document that was linted it can be the base only.
func NewBuilder(cfg BuilderConfig) (*Builder, error) {
	b := &Builder{method: cfg.Push.Method, timeout: cfg.Push.Timeout, id: cfg.Identity, always: cfg.Headers}
	b.envs.New = func() any { return expr.NewEnv() }
	var err error
	if b.base, err = parseBase(cfg.Base); err != nil {
		return nil, record.Errorf(record.Config, "delivery %s: base of the connection: %w: correct it", cfg.ID, err)
	}
	if b.path, err = expr.CompileTemplate(cfg.Push.Path, cfg.Scope); err != nil {
		return nil, fmt.Errorf("compile path of delivery %s: %w", cfg.ID, err)
	}
	if path, ok := b.path.Const(); ok {
		if b.fixed, err = b.target(path); err != nil {
			return nil, record.Errorf(record.Config, "delivery %s: %w: correct it", cfg.ID, err)
		}
	}
	for _, h := range cfg.Push.Headers {
		t, err := expr.CompileTemplate(h.Value, cfg.Scope)
		if err != nil {
			return nil, fmt.Errorf("compile header %s of delivery %s: %w", h.Name, cfg.ID, err)
		}
		b.headers = append(b.headers, header{h.Name, t})
	}
	if cfg.Push.Body != nil {
		if b.body, err = expr.CompileTemplate(*cfg.Push.Body, cfg.Scope); err != nil {
			return nil, fmt.Errorf("compile body of delivery %s: %w", cfg.ID, err)
		}
	}
	return b, nil
}

// parseBase parses a whole URL. Its errors do not repeat what may be a
// password in it.
func parseBase(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err
		}
		return nil, fmt.Errorf("not a URL: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%q is not an http:// or https:// URL", u.Redacted())
	}
	if u.User != nil {
		return nil, fmt.Errorf("%q has a user in it: give it as the connection's auth", u.Redacted())
	}
	return u, nil
}

// Timeout of one attempt; 0: the connection's.
func (b *Builder) Timeout() time.Duration { return b.timeout }

// Request shapes the request of one attempt to deliver r. It carries
// Idempotency-Key and traceparent. bind may give roots beside the record's
// their values (see expr.Env.Bind); nil: there are none. The error is a
// *record.Error of class schema. Nobody may change the request's URL.
func (b *Builder) Request(r *record.Record, bind func(*expr.Env)) (*sign.Request, error) {
	return b.request(r, b.id.Key(r), nil, bind)
}

// Batch shapes the request of one attempt to deliver a batch, whose body it
// sends. Templates see the first record. The push's own headers replace those
// that the form of the batch asks for.
func (b *Builder) Batch(bt *batch.Batch) (*sign.Request, error) { return b.batch(bt, b.id) }

func (b *Builder) batch(bt *batch.Batch, id Identity) (*sign.Request, error) {
	body, err := bt.Body()
	if err != nil {
		return nil, record.Errorf(record.Internal, "%w", err)
	}
	req, err := b.request(bt.Items[0].Record, id.BatchKey(bt), bt.Header(), nil)
	if err != nil {
		return nil, err
	}
	req.Body = body
	return req, nil
}

func (b *Builder) request(r *record.Record, key string, form []record.Header, bind func(*expr.Env)) (*sign.Request, error) {
	env := b.envs.Get().(*expr.Env)
	defer func() {
		env.Reset(nil)
		b.envs.Put(env)
	}()
	env.Reset(r)
	if bind != nil {
		bind(env)
	}
	req := &sign.Request{Method: b.method, URL: b.fixed, Body: r.Value}
	if b.fixed == nil {
		path, err := b.path.Text(env)
		if err != nil {
			return nil, err
		}
		if req.URL, err = b.target(path); err != nil {
			return nil, record.Errorf(record.Schema, "%w", err)
		}
	}
	req.Header = make([]record.Header, 0, 2+len(form)+len(b.headers)+len(b.always)+2)
	req.Header = append(req.Header, record.Header{Key: "Idempotency-Key", Value: []byte(key)})
	if !r.Trace.IsZero() {
		// The span is the attempt's; Millrace records none of its own yet.
		parent := fmt.Sprintf("00-%s-%016x-00", r.Trace, uint64(r.Offset)<<16|uint64(r.Attempt&0xffff)|1)
		req.Header = append(req.Header, record.Header{Key: "traceparent", Value: []byte(parent)})
	}
	for _, h := range form {
		if !slices.ContainsFunc(b.headers, func(own header) bool { return strings.EqualFold(own.name, h.Key) }) {
			req.Header = append(req.Header, h)
		}
	}
	for _, h := range b.headers {
		v, err := h.value.Append(nil, env)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(v, func(c byte) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
			return nil, record.Errorf(record.Schema, "the value of header %s holds a line end or another control character", h.name)
		}
		req.Header = append(req.Header, record.Header{Key: h.name, Value: v})
	}
	req.Header = append(req.Header, b.always...)
	if b.body != nil {
		var err error
		if req.Body, err = b.body.Append(nil, env); err != nil {
			return nil, err
		}
	}
	return req, nil
}

// target is the URL of a path, and query, below the base.
func (b *Builder) target(ref string) (*url.URL, error) {
	path, query, _ := strings.Cut(ref, "?")
	u := *b.base
	if path != "" {
		raw := strings.TrimSuffix(u.EscapedPath(), "/") + "/" + escape(strings.TrimPrefix(path, "/"))
		plain, err := url.PathUnescape(raw)
		if err != nil {
			return nil, fmt.Errorf("path %q is not usable in a URL", path)
		}
		u.Path, u.RawPath = plain, raw
	}
	if query != "" {
		u.RawQuery = escape(query)
	}
	return &u, nil
}

// escape escapes what cannot stand in a URL and keeps the escapes that are
// there.
func escape(text string) string {
	var b strings.Builder
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '#' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
