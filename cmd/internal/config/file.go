package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/flow"
)

// document is a file that is being read.
type document struct {
	*loader
	path  string
	lines []string
}

// file reads the text of a file into the configuration.
func (l *loader) file(path, text string) {
	text = strings.TrimPrefix(strings.ReplaceAll(text, "\r\n", "\n"), "\ufeff")
	d := &document{loader: l, path: path, lines: strings.Split(text, "\n")}
	root, ok := d.parse(text)
	if ok && root != nil {
		d.keys(root, "")
	}
	slices.SortStableFunc(l.problems, func(a, b flow.Problem) int { return a.Line - b.Line })
}

// parse is the file's document, nil if it is empty.
func (d *document) parse(text string) (root ast.Node, ok bool) {
	defer func() {
		// The YAML parser is another project's: a panic of its must not end
		// the program.
		if recover() != nil {
			d.fail(1, 1, 1, flow.CodeYAML, "simplify the file until it can", "the YAML cannot be read")
			root, ok = nil, false
		}
	}()
	if !utf8.ValidString(text) {
		d.fail(1, 1, 1, flow.CodeYAML, "save the file as UTF-8 text", "the file is not text")
		return nil, false
	}
	for i, line := range d.lines {
		indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]
		if at := strings.IndexByte(indent, '\t'); at >= 0 && strings.TrimSpace(line) != "" {
			d.fail(i+1, at+1, 1, flow.CodeYAML, "YAML is indented with spaces", "a tab in the indentation")
			return nil, false
		}
	}
	file, err := parser.ParseBytes([]byte(text), 0, parser.AllowDuplicateMapKey())
	if err != nil {
		line, column, message := 1, 1, "the YAML is broken here"
		help := "look at the indentation and the quotes of this line and the one before it"
		if e, ok := errors.AsType[yaml.Error](err); ok {
			message = e.GetMessage()
			if tk := e.GetToken(); tk != nil && tk.Position != nil {
				line, column = tk.Position.Line, tk.Position.Column
			}
		}
		if strings.Contains(message, "mapping value is not allowed") {
			message, help = "this value is followed by a second colon, or by a line that is indented too far", "quote the whole value, or align the lines"
		}
		d.fail(line, column, 1, flow.CodeYAML, help, "%s", message)
		return nil, false
	}
	for _, doc := range file.Docs {
		switch {
		case doc.Body == nil || isNull(doc.Body):
		case root != nil:
			d.failAt(doc.Body.GetToken(), flow.CodeYAML, "keep one document, without ---", "a second document")
			return nil, false
		default:
			root = doc.Body
		}
	}
	return root, true
}

func isNull(n ast.Node) bool {
	if _, ok := n.(*ast.CommentGroupNode); ok {
		return true
	}
	return n.Type() == ast.NullType
}

// keys reads a map; prefix is its own key with a dot behind it, "" at the top.
func (d *document) keys(n ast.Node, prefix string) {
	var values []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	default:
		what, help := "the file", "write listen: 127.0.0.1:7070"
		if prefix != "" {
			what, help = strings.TrimSuffix(prefix, "."), exampleOf(prefix)
		}
		d.failAt(n.GetToken(), flow.CodeType, help, "%s is a map of keys and values", what)
		return
	}
	known := keysBelow(prefix)
	seen := map[string]int{}
	for _, v := range values {
		tk := v.Key.GetToken()
		key := tk.Value
		if line, ok := seen[key]; ok {
			d.failAt(tk, flow.CodeKeyDuplicate, "the first is in line "+strconv.Itoa(line)+"; keep one", "key `%s` stands here twice", key)
			continue
		}
		seen[key] = tk.Position.Line
		switch {
		case !slices.Contains(known, key):
			help := "keys here are " + strings.Join(known, ", ")
			if near := expr.Nearest(key, known); near != "" {
				help = "did you mean `" + near + "`?"
			} else if place := placeOf(key); place != "" {
				help = "did you mean `" + place + "`?"
			}
			where := ""
			if prefix != "" {
				where = " in `" + strings.TrimSuffix(prefix, ".") + "`"
			}
			d.failAt(tk, flow.CodeKeyUnknown, help, "unknown key%s", where)
		case settingOf(prefix+key) != nil:
			d.value(tk, v.Value, settingOf(prefix+key), key)
		case !isNull(v.Value):
			d.keys(v.Value, prefix+key+".")
		}
	}
}

func (d *document) value(key *token.Token, n ast.Node, s *setting, name string) {
	help := "write " + name + ": " + s.example
	tk := n.GetToken()
	var text string
	switch n := n.(type) {
	case *ast.StringNode:
		text = n.Value
	case *ast.IntegerNode:
		if !s.number {
			d.failAt(tk, flow.CodeType, help, "%s is a text, not a number", name)
			return
		}
		text = tk.Value
	case *ast.NullNode:
		d.failAt(key, flow.CodeType, help+", or leave the key out", "%s has no value", name)
		return
	case *ast.BoolNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		d.failAt(tk, flow.CodeType, help, "%s cannot be %s", name, tk.Value)
		return
	case *ast.TagNode, *ast.AnchorNode, *ast.AliasNode:
		d.failAt(tk, flow.CodeYAML, "write the value out, or quote it if it is a text", "tags, anchors and aliases are not used in this file")
		return
	default:
		d.failAt(tk, flow.CodeType, help, "%s is a single value", name)
		return
	}
	if f := d.set(s, fmt.Sprintf("%s:%d", d.path, key.Position.Line), text); f != nil {
		if f.code == flow.CodeNotSupported {
			tk = key
		}
		d.failAt(tk, f.code, f.help, "%s", f.message)
	}
}

// keysBelow are the keys of the map with that prefix.
func keysBelow(prefix string) []string {
	var out []string
	for i := range settings {
		rest, ok := strings.CutPrefix(settings[i].key, prefix)
		if !ok {
			continue
		}
		key, _, _ := strings.Cut(rest, ".")
		if !slices.Contains(out, key) {
			out = append(out, key)
		}
	}
	return out
}

// placeOf is where a key that stands in the wrong map belongs.
func placeOf(key string) string {
	for i := range settings {
		if settings[i].key == key || strings.HasSuffix(settings[i].key, "."+key) {
			return settings[i].key
		}
	}
	return ""
}

func exampleOf(prefix string) string {
	for i := range settings {
		if key, ok := strings.CutPrefix(settings[i].key, prefix); ok {
			return "write " + strings.TrimSuffix(prefix, ".") + ": { " + key + ": " + settings[i].example + " }"
		}
	}
	return ""
}

func (d *document) failAt(tk *token.Token, code flow.Code, help, format string, args ...any) {
	width := utf8.RuneCountInString(tk.Value)
	if tk.Type == token.DoubleQuoteType || tk.Type == token.SingleQuoteType {
		width += 2
	}
	d.fail(tk.Position.Line, tk.Position.Column, width, code, help, format, args...)
}

func (d *document) fail(line, column, width int, code flow.Code, help, format string, args ...any) {
	line = max(1, min(line, len(d.lines)))
	source := strings.TrimRight(d.lines[line-1], "\r")
	column = max(1, min(column, utf8.RuneCountInString(source)+1))
	d.problems = append(d.problems, flow.Problem{
		Code: code, Level: flow.LevelError, File: d.path, Line: line, Column: column, EndColumn: column + max(1, width),
		Source: source, Message: fmt.Sprintf(format, args...), Help: help,
	})
}
