package registry

import (
	"errors"
	"fmt"
	"strings"

	"github.com/twmb/avro"
)

// shape is what a node of an Avro schema is on the wire and in JSON.
type shape uint8

const (
	shapeNull shape = iota
	shapeBoolean
	shapeInt
	shapeLong
	shapeFloat
	shapeDouble
	shapeBytes
	shapeString
	shapeFixed
	shapeEnum
	shapeRecord
	shapeArray
	shapeMap
	shapeUnion
	shapeDecimal  // bytes, or fixed where size is not 0
	shapeUUID     // fixed of 16 bytes
	shapeDuration // fixed of 12 bytes
)

// node is a type of an Avro schema, made for decoding. Nodes of recursive
// types form circles.
type node struct {
	shape    shape
	size     int // of a fixed
	scale    int // of a decimal
	fields   []field
	elem     *node    // of an array or map
	branches []*node  // of a union
	symbols  []string // of an enum, as JSON strings
}

type field struct {
	name string
	// prefix stands before the value: a brace or comma, the name, a colon.
	prefix string
	node   *node
}

// avroSchema decodes the values of one schema.
type avroSchema struct{ root *node }

// compileAvro makes the last of texts ready; the others are what it refers to,
// in their order.
func compileAvro(texts []text) (s *avroSchema, err error) {
	defer func() { // the text is a stranger's
		if p := recover(); p != nil {
			s, err = nil, fmt.Errorf("its text cannot be read: %v", p)
		}
	}()
	var (
		cache avro.SchemaCache
		last  *avro.Schema
	)
	lax := avro.WithLaxNames(func(name string) error {
		if name == "" {
			return errors.New("an empty name")
		}
		return nil
	})
	for _, t := range texts {
		if last, err = cache.Parse(t.text, lax); err != nil {
			if t.name != "" {
				return nil, fmt.Errorf("what it refers to as %q is no Avro schema: %w", t.name, err)
			}
			return nil, fmt.Errorf("its text is no Avro schema: %w", err)
		}
	}
	root := last.Root()
	b := avroBuilder{named: map[string]*node{}}
	b.declare(root, "")
	n, err := b.build(root, "")
	if err != nil {
		return nil, err
	}
	return &avroSchema{n}, nil
}

// avroBuilder makes nodes of the parsed schema: declare names the types, so
// that build finds those that are named before they are defined.
type avroBuilder struct{ named map[string]*node }

func isNamed(t string) bool { return t == "record" || t == "error" || t == "enum" || t == "fixed" }

// scope is the full name of n, if it has one, and the namespace within it.
func scope(n *avro.SchemaNode, namespace string) (name, within string) {
	if !isNamed(n.Type) {
		return "", namespace
	}
	if i := strings.LastIndexByte(n.Name, '.'); i >= 0 {
		return strings.TrimPrefix(n.Name, "."), n.Name[:i]
	}
	if n.Namespace == "" {
		return n.Name, ""
	}
	return n.Namespace + "." + n.Name, n.Namespace
}

func isDecimal(n *avro.SchemaNode) bool {
	return n.LogicalType == "decimal" && n.Precision > 0 && n.Scale >= 0
}

// children calls visit for each type directly within n.
func children(n *avro.SchemaNode, visit func(*avro.SchemaNode)) {
	switch n.Type {
	case "record", "error":
		for i := range n.Fields {
			visit(&n.Fields[i].Type)
		}
	case "array":
		visit(n.Items)
	case "map":
		visit(n.Values)
	case "union":
		for i := range n.Branches {
			visit(&n.Branches[i])
		}
	}
}

func (b *avroBuilder) declare(n *avro.SchemaNode, namespace string) {
	name, within := scope(n, namespace)
	if name != "" && b.named[name] == nil {
		b.named[name] = &node{}
	}
	children(n, func(c *avro.SchemaNode) { b.declare(c, within) })
}

var primitives = map[string]shape{
	"null": shapeNull, "boolean": shapeBoolean, "int": shapeInt, "long": shapeLong,
	"float": shapeFloat, "double": shapeDouble, "bytes": shapeBytes, "string": shapeString,
}

func (b *avroBuilder) build(s *avro.SchemaNode, namespace string) (*node, error) {
	name, within := scope(s, namespace)
	n := &node{}
	if name != "" {
		n = b.named[name]
	}
	switch s.Type {
	case "record", "error":
		n.shape = shapeRecord
		n.fields = make([]field, len(s.Fields))
		for i := range s.Fields {
			f := &s.Fields[i]
			prefix := string(appendText([]byte{'{'}, f.Name)) + ":"
			if i > 0 {
				prefix = "," + prefix[1:]
			}
			fn, err := b.build(&f.Type, within)
			if err != nil {
				return nil, err
			}
			n.fields[i] = field{f.Name, prefix, fn}
		}
		return n, nil
	case "enum":
		n.shape = shapeEnum
		for _, symbol := range s.Symbols {
			n.symbols = append(n.symbols, string(appendText(nil, symbol)))
		}
		return n, nil
	case "array", "map":
		elem := s.Items
		n.shape = shapeArray
		if s.Type == "map" {
			n.shape, elem = shapeMap, s.Values
		}
		var err error
		n.elem, err = b.build(elem, within)
		return n, err
	case "union":
		n.shape = shapeUnion
		for i := range s.Branches {
			branch, err := b.build(&s.Branches[i], within)
			if err != nil {
				return nil, err
			}
			n.branches = append(n.branches, branch)
		}
		return n, nil
	case "fixed":
		n.shape, n.size = shapeFixed, s.Size
		switch {
		case isDecimal(s) && s.Size > 0:
			n.shape, n.scale = shapeDecimal, s.Scale
		case s.LogicalType == "uuid" && s.Size == 16:
			n.shape = shapeUUID
		case s.LogicalType == "duration" && s.Size == 12:
			n.shape = shapeDuration
		}
		return n, nil
	}
	if p, ok := primitives[s.Type]; ok {
		n.shape = p
		if p == shapeBytes && isDecimal(s) {
			n.shape, n.scale = shapeDecimal, s.Scale
		}
		return n, nil
	}
	return b.reference(s.Type, namespace)
}

// reference is the type of a name: in the namespace around it, or in none.
func (b *avroBuilder) reference(name, namespace string) (*node, error) {
	if !strings.Contains(name, ".") && namespace != "" {
		if n := b.named[namespace+"."+name]; n != nil {
			return n, nil
		}
	}
	if n := b.named[strings.TrimPrefix(name, ".")]; n != nil {
		return n, nil
	}
	return nil, fmt.Errorf("its text names the type %q, which it does not define", name)
}
