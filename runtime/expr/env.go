package expr

import (
	"errors"
	"fmt"
	"math/bits"

	"github.com/millrace-io/millrace/runtime/expr/jsondoc"
	"github.com/millrace-io/millrace/runtime/record"
)

// Env is a record as expressions see it. The record's JSON is read when the
// first expression needs it, and once. Make one for each goroutine and Reset
// it from record to record; the zero Env is ready for Reset.
type Env struct {
	rec   *record.Record
	bound map[Roots]any

	doc      jsondoc.Doc
	docState docState
	docErr   error
	whole    any
	hasWhole bool

	steps, memory int
	lets          []any
	loops         []loop
}

type docState uint8

const (
	docUnread docState = iota
	docRead
	docNull
	docBad
)

type loop struct {
	item  any
	index int64
	acc   any
}

// NewEnv returns an Env. Call Reset before use.
func NewEnv() *Env { return new(Env) }

// Reset makes r the record that e shows. r must not change until the next
// Reset; Reset(nil) lets go of it. Bound roots are gone.
func (e *Env) Reset(r *record.Record) {
	e.rec, e.docState, e.docErr, e.whole, e.hasWhole = r, docUnread, nil, nil, false
	clear(e.lets)
	clear(e.loops[:cap(e.loops)])
	e.loops = e.loops[:0]
	clear(e.bound)
}

// Bind gives one of the roots Request, Response and Failure its value until
// the next Reset: a value of the language (see the package).
func (e *Env) Bind(root Roots, v any) {
	if e.bound == nil {
		e.bound = make(map[Roots]any)
	}
	e.bound[root] = v
}

// JSON is the index of the record's value, for stages that edit it: nil for a
// null value. It is valid until Reset. The error is a *record.Error of class
// schema: the value is not JSON.
func (e *Env) JSON() (*jsondoc.Doc, error) {
	if err := e.read(); err != nil {
		return nil, &record.Error{Class: record.Schema, Message: err.Error(), Err: err}
	}
	if e.docState == docNull {
		return nil, nil
	}
	return &e.doc, nil
}

// notJSONError says that a record's value is not JSON; no expression is to blame.
type notJSONError struct{ err error }

func (e *notJSONError) Error() string { return "the value is not JSON: " + e.err.Error() }
func (e *notJSONError) Unwrap() error { return e.err }

func (e *Env) read() error {
	switch {
	case e.docState == docUnread && e.rec.Value == nil:
		e.docState = docNull
	case e.docState == docUnread && len(e.rec.Value) == 0:
		e.docState, e.docErr = docBad, &notJSONError{errors.New("it is empty")}
	case e.docState == docUnread:
		e.docState = docRead
		if err := e.doc.Parse(e.rec.Value); err != nil {
			e.docState, e.docErr = docBad, &notJSONError{err}
		}
	}
	return e.docErr
}

// find is the node at a path, None if there is none.
func (e *Env) find(path []step) (jsondoc.Node, error) {
	if err := e.read(); err != nil {
		return jsondoc.None, err
	}
	if e.docState == docNull {
		return jsondoc.None, nil
	}
	if len(e.loops) > 0 {
		if err := e.work(len(e.rec.Value)); err != nil {
			return jsondoc.None, err
		}
	}
	n := e.doc.Root()
	for i := range path {
		if path[i].list {
			n = e.doc.Index(n, path[i].index)
		} else {
			n = e.doc.Member(n, path[i].key)
		}
	}
	return n, nil
}

// at is the value at a path.
func (e *Env) at(path []step) (any, error) {
	if len(path) == 0 && e.hasWhole {
		return e.whole, nil
	}
	n, err := e.find(path)
	if err != nil || n == jsondoc.None {
		return nil, err
	}
	v, err := e.value(n)
	if err == nil && len(path) == 0 {
		e.whole, e.hasWhole = v, true
	}
	return v, err
}

func (e *Env) value(n jsondoc.Node) (any, error) {
	switch e.doc.Kind(n) {
	case jsondoc.Array, jsondoc.Object:
		if err := e.grow(len(e.doc.Raw(n))); err != nil {
			return nil, err
		}
	}
	return e.doc.Value(n)
}

func (e *Env) root(r Roots) (any, error) {
	switch r {
	case Raw:
		return string(e.rec.Value), e.grow(len(e.rec.Value))
	case Key:
		if e.rec.Key == nil {
			return nil, nil
		}
		return string(e.rec.Key), nil
	case Headers:
		m := make(map[string]any, len(e.rec.Headers))
		for _, h := range e.rec.Headers {
			m[h.Key] = headerValue(h)
		}
		return m, e.grow(64 * len(m))
	case Topic:
		return e.rec.Topic, nil
	case Partition:
		return int64(e.rec.Partition), nil
	case Offset:
		return e.rec.Offset, nil
	case Time:
		return e.rec.Time(), nil
	case Attempt:
		return int64(e.rec.Attempt), nil
	case Trace:
		return e.rec.Trace.String(), nil
	case ID:
		return e.rec.ID(), nil
	case Request, Response, Failure:
		return e.bound[r], nil
	}
	return nil, fmt.Errorf("%v has no value", r.Names())
}

func (e *Env) header(name string) any {
	for i := len(e.rec.Headers) - 1; i >= 0; i-- {
		if e.rec.Headers[i].Key == name {
			return headerValue(e.rec.Headers[i])
		}
	}
	return nil
}

func headerValue(h record.Header) any {
	if h.Value == nil {
		return nil
	}
	return string(h.Value)
}

// LimitError reports an expression that needs more than one evaluation may
// take.
type LimitError struct {
	// Limit is "steps" or "memory".
	Limit string
}

func (e *LimitError) Error() string {
	if e.Limit == "steps" {
		return fmt.Sprintf("it takes more than %d steps; do this in a plugin", MaxSteps)
	}
	return fmt.Sprintf("it needs more than %d MiB; do this in a plugin", MaxMemoryBytes>>20)
}

// step counts one iteration or call.
func (e *Env) step() error {
	if e.steps++; e.steps > MaxSteps {
		return &LimitError{"steps"}
	}
	return nil
}

// work counts a pass over n bytes.
func (e *Env) work(n int) error {
	if e.steps += n >> 8; e.steps > MaxSteps {
		return &LimitError{"steps"}
	}
	return nil
}

// grow counts n bytes that are about to be built.
func (e *Env) grow(n int) error {
	if n < 0 || n > MaxMemoryBytes-e.memory {
		return &LimitError{"memory"}
	}
	e.memory += n
	return e.work(n)
}

// product is a*b for grow: too large rather than wrapped.
func product(a, b int) int {
	hi, lo := bits.Mul(uint(a), uint(b))
	if hi != 0 || lo > MaxMemoryBytes+1 {
		return MaxMemoryBytes + 1
	}
	return int(lo)
}
