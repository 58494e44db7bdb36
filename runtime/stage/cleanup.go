package stage

import (
	"context"
	"errors"
	"strings"

	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/expr/jsondoc"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

// Cleanup takes paths of a record's value and headers away. What is not there
// is no failure: a value that is null or no JSON object stays as it is. With
// paths, a value that is not JSON fails its record; without, values are not
// looked at. What stays keeps its bytes, as with Map.
type Cleanup struct {
	drop    []expr.Path
	headers []string
	envs    envs
}

// NewCleanup reads the cleanup's paths.
func NewCleanup(c *flow.Cleanup) (*Cleanup, error) {
	out := &Cleanup{headers: c.DropHeaders}
	var errs []error
	for _, d := range c.Drop {
		p, err := expr.ParsePath(d)
		if err != nil {
			errs = append(errs, err)
		}
		out.drop = append(out.drop, p)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return out, nil
}

// Process is as Stage says.
func (c *Cleanup) Process(ctx context.Context, b *record.Batch, out *record.Results) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	env := c.envs.take()
	defer c.envs.give(env)
	for i := range b.Records {
		r := b.Records[i]
		if len(c.drop) > 0 {
			env.Reset(&b.Records[i])
			value, err := c.edit(env, r.Value)
			if err != nil {
				fail(out, i, err)
				continue
			}
			r.Value = value
		}
		r.Headers = c.keepHeaders(r.Headers)
		out.Emits = append(out.Emits, record.Emit{In: int32(i), Record: r})
	}
	return nil
}

func (c *Cleanup) edit(env *expr.Env, value []byte) ([]byte, error) {
	doc, err := env.JSON()
	if err != nil || doc == nil || doc.Kind(doc.Root()) != jsondoc.Object {
		return value, err
	}
	e := &editor{doc: doc}
	root := e.open(doc.Root())
	for _, p := range c.drop {
		e.take(root, p)
	}
	if !e.changed {
		return value, nil
	}
	return e.append(make([]byte, 0, len(value)), root), nil
}

// keepHeaders returns hs itself if all of them stay.
func (c *Cleanup) keepHeaders(hs []record.Header) []record.Header {
	for i := range hs {
		if !c.matches(hs[i].Key) {
			continue
		}
		kept := append([]record.Header(nil), hs[:i]...)
		for _, h := range hs[i+1:] {
			if !c.matches(h.Key) {
				kept = append(kept, h)
			}
		}
		return kept
	}
	return hs
}

func (c *Cleanup) matches(name string) bool {
	for _, p := range c.headers {
		if glob(p, name) {
			return true
		}
	}
	return false
}

// glob reports whether name is of a pattern in which * stands for any part, an
// empty one too.
func glob(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == name
	}
	first, last := parts[0], parts[len(parts)-1]
	if len(name) < len(first)+len(last) || !strings.HasPrefix(name, first) || !strings.HasSuffix(name, last) {
		return false
	}
	name = name[len(first) : len(name)-len(last)]
	for _, p := range parts[1 : len(parts)-1] {
		at := strings.Index(name, p)
		if at < 0 {
			return false
		}
		name = name[at+len(p):]
	}
	return true
}
