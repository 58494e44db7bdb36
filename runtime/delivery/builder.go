package delivery

import (
	"fmt"
	"strconv"
	"time"

	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

// Request is what one attempt sends.
type Request struct {
	Method string
	// Path goes behind the connection's base.
	Path   string
	Header []record.Header
	Body   []byte
	// Timeout of the attempt; 0: the connection's.
	Timeout time.Duration
}

// Identity is what the idempotency keys of a flow begin with.
type Identity struct {
	FlowUID    uint64
	Generation uint32
}

// Key is the Idempotency-Key of a record: the same for every attempt, every
// owner and every redelivery, another one after an offset reset.
func (id Identity) Key(r *record.Record) string {
	b := make([]byte, 0, 64)
	b = fmt.Appendf(b, "%016x/", id.FlowUID)
	b = strconv.AppendUint(b, uint64(id.Generation), 10)
	return string(r.AppendID(append(b, '/')))
}

// Builder shapes requests out of records. It is immutable and safe for
// concurrent use.
type Builder struct {
	push    *flow.HTTPPush
	id      Identity
	path    *expr.Template
	headers []header
	body    *expr.Template // nil: the value as it is
}

type header struct {
	name  string
	value *expr.Template
}

// NewBuilder compiles the templates of a push. f was linted, so an error is a
// fault of ours.
func NewBuilder(f *flow.Flow, id Identity) (*Builder, error) {
	push, scope := f.Delivery.HTTP, f.Scope()
	b := &Builder{push: push, id: id}
	var err error
	if b.path, err = expr.CompileTemplate(push.Path, scope); err != nil {
		return nil, fmt.Errorf("compile path of delivery %s: %w", f.Delivery.ID, err)
	}
	for _, h := range push.Headers {
		t, err := expr.CompileTemplate(h.Value, scope)
		if err != nil {
			return nil, fmt.Errorf("compile header %s of delivery %s: %w", h.Name, f.Delivery.ID, err)
		}
		b.headers = append(b.headers, header{h.Name, t})
	}
	if push.Body != nil {
		if b.body, err = expr.CompileTemplate(*push.Body, scope); err != nil {
			return nil, fmt.Errorf("compile body of delivery %s: %w", f.Delivery.ID, err)
		}
	}
	return b, nil
}

// Build shapes the request of one attempt. It carries Idempotency-Key and
// traceparent. The error is one of class schema.
func (b *Builder) Build(r *record.Record) (*Request, error) {
	env := expr.NewEnv()
	env.Reset(r)
	req := &Request{Method: b.push.Method, Timeout: b.push.Timeout, Body: r.Value}
	var err error
	if req.Path, err = b.path.Text(env); err != nil {
		return nil, err
	}
	req.Header = make([]record.Header, 0, len(b.headers)+2)
	req.Header = append(req.Header, record.Header{Key: "Idempotency-Key", Value: []byte(b.id.Key(r))})
	if !r.Trace.IsZero() {
		// The span is the attempt's; Millrace records none of its own yet.
		parent := fmt.Sprintf("00-%s-%016x-00", r.Trace, uint64(r.Offset)<<16|uint64(r.Attempt&0xffff)|1)
		req.Header = append(req.Header, record.Header{Key: "traceparent", Value: []byte(parent)})
	}
	for _, h := range b.headers {
		v, err := h.value.Append(nil, env)
		if err != nil {
			return nil, err
		}
		req.Header = append(req.Header, record.Header{Key: h.name, Value: v})
	}
	if b.body != nil {
		if req.Body, err = b.body.Append(nil, env); err != nil {
			return nil, err
		}
	}
	return req, nil
}
