package registry

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/sr"

	"github.com/millrace-io/millrace/runtime/record"
)

// Types of schemas, as registries call them.
const (
	typeAvro = "AVRO"
	typeJSON = "JSON"
)

// maxReferences bounds what a schema may refer to, in all.
const maxReferences = 100

// schema is one of the registry, ready to decode with. It does not change, and
// is safe for concurrent use.
type schema struct {
	id uint32
	// subject that has it, or empty; bytes is the size of its text.
	subject string
	kind    string
	bytes   int
	// One of these is set, or neither if kind is another one.
	avro *avroSchema
	json *jsonSchema
	// broken says why it cannot be used.
	broken error
}

func (s *schema) String() string {
	if s.subject == "" {
		return fmt.Sprintf("schema %d", s.id)
	}
	return fmt.Sprintf("schema %d (%s)", s.id, s.subject)
}

// text is a schema's text with the name that others refer to it by; that of
// the schema itself has none.
type text struct{ name, text string }

// load looks a schema up with what it refers to, and makes it ready.
func (c *Client) load(ctx context.Context, id uint32) (*schema, *record.Error) {
	a, err := c.fetchID(ctx, id)
	if err != nil {
		return nil, err
	}
	s := &schema{id: id, kind: a.kind()}
	if s.kind != typeAvro && s.kind != typeJSON {
		s.subject = c.subject(ctx, id)
		return s, nil
	}
	g := gatherer{c: c, id: id, kind: s.kind, seen: map[string]bool{}}
	if err := g.gather(ctx, "", a, 0); err != nil {
		return nil, err
	}
	s.bytes = g.bytes
	s.subject = c.subject(ctx, id)
	if s.kind == typeAvro {
		s.avro, s.broken = compileAvro(g.texts)
	} else {
		s.json, s.broken = compileJSON(g.texts)
	}
	return s, nil
}

// gatherer collects a schema's text and those that it refers to, each one
// behind those that it needs itself.
type gatherer struct {
	c     *Client
	id    uint32
	kind  string
	seen  map[string]bool
	texts []text
	bytes int
}

func (g *gatherer) gather(ctx context.Context, name string, a *answer, depth int) *record.Error {
	if a.kind() != g.kind {
		return record.Errorf(record.Schema, "schema %d of type %s refers to %q of type %s: register it anew with references of its own type", g.id, g.kind, name, a.kind())
	}
	if g.bytes += len(a.Schema); g.bytes > MaxSchemaBytes {
		return record.Errorf(record.Schema, "schema %d is too large: it has more than %d bytes with what it refers to", g.id, MaxSchemaBytes)
	}
	if depth > maxReferences {
		return record.Errorf(record.Schema, "schema %d: its references lead more than %d deep", g.id, maxReferences)
	}
	for _, r := range a.References {
		if err := g.follow(ctx, r, depth); err != nil {
			return err
		}
	}
	g.texts = append(g.texts, text{name, a.Schema})
	return nil
}

// follow gathers what a reference leads to, once. One that leads in a circle
// is left to the compiler, which misses its name.
func (g *gatherer) follow(ctx context.Context, r sr.SchemaReference, depth int) *record.Error {
	key := fmt.Sprintf("%s\x00%s\x00%d", r.Name, r.Subject, r.Version)
	if g.seen[key] {
		return nil
	}
	if g.seen[key] = true; len(g.seen) > maxReferences {
		return record.Errorf(record.Schema, "schema %d refers to more than %d others", g.id, maxReferences)
	}
	a, err := g.c.fetchVersion(ctx, r)
	if err != nil {
		err.Message = fmt.Sprintf("schema %d refers to %q: %s", g.id, r.Name, err.Message)
		return err
	}
	return g.gather(ctx, r.Name, a, depth+1)
}
