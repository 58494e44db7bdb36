package twin

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/expr/jsondoc"
	"github.com/millrace-io/millrace/runtime/flow"
)

// body is what an answer says: a text, or a JSON value with templates in its
// texts.
type body struct {
	plain *expr.Template // the whole of a text
	tree  node
}

// node is a part of a JSON body: one of its fields is set, or it is the
// constant.
type node struct {
	constant any
	template *expr.Template
	list     []node
	fields   []nodeField
	isList   bool
	isMap    bool
}

type nodeField struct {
	key   string
	value node
}

func (r *reader) body(v *value) *body {
	if v.kind == text {
		return &body{plain: r.template(v, bodyScope)}
	}
	return &body{tree: r.node(v)}
}

func (r *reader) node(v *value) node {
	switch v.kind {
	case text:
		return node{template: r.template(v, bodyScope)}
	case boolean:
		return node{constant: v.text == "true"}
	case integer, float:
		if n, err := strconv.ParseInt(strings.ReplaceAll(v.text, "_", ""), 0, 64); err == nil {
			return node{constant: n}
		}
		n, err := strconv.ParseFloat(v.text, 64)
		if err != nil || n != n || n-n != 0 {
			r.fail(v, flow.CodeValue, "quote it", "JSON has no such number")
		}
		return node{constant: n}
	case list:
		n := node{isList: true}
		for _, it := range v.items {
			n.list = append(n.list, r.node(it))
		}
		return n
	case mapping:
		n := node{isMap: true}
		for _, f := range v.fields {
			n.fields = append(n.fields, nodeField{f.key, r.node(f.value)})
		}
		return n
	}
	return node{}
}

// value is the node as a value of the expression language. A text that is one
// expression has the expression's type.
func (n *node) value(e *expr.Env) (any, error) {
	switch {
	case n.template != nil:
		if p := n.template.Single(); p != nil {
			return p.Any(e)
		}
		return n.template.Text(e)
	case n.isList:
		out := make([]any, len(n.list))
		for i := range n.list {
			v, err := n.list[i].value(e)
			if err != nil {
				return nil, err
			}
			out[i] = v
		}
		return out, nil
	case n.isMap:
		out := make(map[string]any, len(n.fields))
		for i := range n.fields {
			v, err := n.fields[i].value.value(e)
			if err != nil {
				return nil, err
			}
			out[n.fields[i].key] = v
		}
		return out, nil
	}
	return n.constant, nil
}

func (b *body) value(e *expr.Env) (any, error) {
	if b.plain != nil {
		if p := b.plain.Single(); p != nil {
			return p.Any(e)
		}
		return b.plain.Text(e)
	}
	return b.tree.value(e)
}

// bytes are what is sent, and their content type.
func (b *body) bytes(e *expr.Env) ([]byte, string, error) {
	if b.plain != nil {
		s, err := b.plain.Text(e)
		kind := "text/plain; charset=utf-8"
		switch trimmed := strings.TrimSpace(s); {
		case strings.HasPrefix(trimmed, "{"), strings.HasPrefix(trimmed, "["):
			kind = "application/json"
		case strings.HasPrefix(trimmed, "<"):
			kind = "text/html; charset=utf-8"
		}
		return []byte(s), kind, err
	}
	v, err := b.tree.value(e)
	if err != nil {
		return nil, "", err
	}
	out, err := jsondoc.Append(nil, v)
	if err != nil {
		return nil, "", fmt.Errorf("body of an answer: %w", err)
	}
	return out, "application/json", nil
}

// simple is a JSON body of strings and other values of the language.
func simple(fields map[string]any) ([]byte, string) {
	b, err := jsondoc.Append(nil, fields)
	if err != nil {
		panic("twin: a body of its own is no JSON: " + err.Error())
	}
	return b, "application/json"
}

const htmlPage = `<!DOCTYPE html>
<html><head><title>Maintenance</title></head>
<body><h1>We will be back soon</h1><p>The service is being updated.</p></body></html>
`
