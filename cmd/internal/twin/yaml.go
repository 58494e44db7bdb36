package twin

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
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

// MaxFileSize is the longest file that Parse reads, in bytes.
const MaxFileSize = 256 << 10

const (
	maxDepth    = 40
	maxProblems = 50
)

// tagged finds a value that begins with !.
var tagged = regexp.MustCompile(`[:,\[-] +!`)

type kind uint8

const (
	null kind = iota
	text
	integer
	float
	boolean
	mapping
	list
)

func (k kind) String() string {
	return [...]string{"nothing", "a text", "a number", "a number", "true or false", "a map", "a list"}[k]
}

// value is a YAML value with its place.
type value struct {
	kind       kind
	line       int
	col, width int // in characters, from 1
	// shown: the text stands in the line as it is, from column textCol.
	shown   bool
	textCol int
	text    string
	fields  []field
	items   []*value
}

type field struct {
	key   string
	at    *value // the key's place
	value *value
}

// reader turns a file into values and keeps what is wrong with it.
type reader struct {
	file     string
	lines    []string
	problems flow.Problems
}

// colon stands for a colon that does not end a key while the parser reads: it
// takes every colon inside a flow map for the end of one.
const colon = '\ue000'

func hideColons(src string) string {
	runes := []rune(src)
	for i := 1; i+1 < len(runes); i++ {
		if runes[i] == ':' && !strings.ContainsRune("\"' \t\n{[,", runes[i-1]) && !strings.ContainsRune(" \t\n,]}", runes[i+1]) {
			runes[i] = colon
		}
	}
	return string(runes)
}

func showColons(s string) string { return strings.ReplaceAll(s, string(colon), ":") }

// read is the root of the file's one document, nil if it cannot be had.
func (r *reader) read(src []byte) (root *value) {
	s := strings.TrimPrefix(strings.ReplaceAll(string(src), "\r\n", "\n"), "\ufeff")
	r.lines = strings.Split(s, "\n")
	if len(src) > MaxFileSize || !utf8.ValidString(s) || strings.ContainsRune(s, colon) {
		r.fault(1, 1, 1, flow.CodeYAML, fmt.Sprintf("keep it below %d KiB of UTF-8 text", MaxFileSize>>10), "the file is too long, or not text")
		return nil
	}
	for i, line := range r.lines {
		indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]
		if at := strings.IndexByte(indent, '\t'); at >= 0 && strings.TrimSpace(line) != "" {
			r.fault(i+1, at+1, 1, flow.CodeYAML, "YAML is indented with spaces", "a tab in the indentation")
			return nil
		}
	}
	defer func() {
		// The YAML parser is another project's: a panic of its must not end
		// the program.
		if recover() != nil {
			r.fault(1, 1, 1, flow.CodeYAML, "simplify the file until it can", "the YAML cannot be read")
			root = nil
		}
	}()
	file, err := parser.ParseBytes([]byte(hideColons(s)), 0, parser.AllowDuplicateMapKey())
	if err != nil {
		line, col, msg := 1, 1, "the YAML is broken here"
		help := "look at the indentation, the brackets and the quotes of this line and the one before it"
		if e, ok := errors.AsType[yaml.Error](err); ok && e.GetToken() != nil && e.GetToken().Position != nil {
			line, col = e.GetToken().Position.Line, e.GetToken().Position.Column
			if strings.Contains(e.GetMessage(), "mapping value is not allowed") {
				msg, help = "a second colon behind this value, or a line that is indented too far", "quote the whole value, or align the lines"
			}
		}
		if line <= len(r.lines) {
			if at := tagged.FindStringIndex(r.lines[line-1]); at != nil {
				r.fault(line, utf8.RuneCountInString(r.lines[line-1][:at[1]]), 1, flow.CodeYAMLTag, "quote the whole value", "a value that begins with ! is a tag in YAML, not an expression")
				return nil
			}
		}
		r.fault(line, col, 1, flow.CodeYAML, help, "%s", msg)
		return nil
	}
	for _, doc := range file.Docs {
		switch {
		case doc.Body == nil:
		case root != nil:
			r.fault(doc.Body.GetToken().Position.Line, 1, 1, flow.CodeYAML, "keep one document, without ---", "a second document")
			return nil
		default:
			root = r.convert(doc.Body, 0)
		}
	}
	if root == nil && len(r.problems) == 0 {
		r.fault(1, 1, 1, flow.CodeDocument, "begin it with `twin: v1`", "the file is empty")
	}
	return root
}

func (r *reader) convert(n ast.Node, depth int) *value {
	tk := n.GetToken()
	v := &value{line: 1, col: 1, width: 1}
	if tk != nil && tk.Position != nil {
		v.line, v.col = tk.Position.Line, max(1, tk.Position.Column)
	}
	if depth > maxDepth {
		r.fail(v, flow.CodeYAML, "flatten it", "lists and maps are nested too deeply")
		return v
	}
	switch n := n.(type) {
	case *ast.MappingNode:
		v.kind = mapping
		for _, f := range n.Values {
			r.field(v, f, depth)
		}
		if !n.IsFlowStyle && len(v.fields) > 0 {
			v.line, v.col, v.width = v.fields[0].at.line, v.fields[0].at.col, v.fields[0].at.width
		}
	case *ast.MappingValueNode:
		v.kind = mapping
		r.field(v, n, depth)
		if len(v.fields) > 0 {
			v.line, v.col, v.width = v.fields[0].at.line, v.fields[0].at.col, v.fields[0].at.width
		}
	case *ast.SequenceNode:
		v.kind = list
		for _, it := range n.Values {
			v.items = append(v.items, r.convert(it, depth+1))
		}
	case *ast.StringNode:
		v.kind, v.text = text, showColons(n.Value)
		r.extent(v, tk)
	case *ast.LiteralNode:
		v.kind, v.text = text, showColons(n.Value.Value)
	case *ast.IntegerNode:
		v.kind, v.text = integer, tk.Value
		r.extent(v, tk)
	case *ast.FloatNode:
		v.kind, v.text = float, tk.Value
		r.extent(v, tk)
	case *ast.BoolNode:
		v.kind, v.text = boolean, tk.Value
		r.extent(v, tk)
	case *ast.NullNode:
	case *ast.TagNode:
		r.fail(v, flow.CodeYAMLTag, "quote the whole value", "a value that begins with ! is a tag in YAML, not an expression")
	default:
		r.fail(v, flow.CodeYAML, "write the value out, or quote it if it is a text", "this form of YAML is not used in this file")
	}
	return v
}

// extent finds how wide a scalar is, and whether its text can be pointed into.
func (r *reader) extent(v *value, tk *token.Token) {
	v.textCol = v.col
	if tk.Type == token.DoubleQuoteType || tk.Type == token.SingleQuoteType {
		v.textCol++
	}
	if v.line > len(r.lines) {
		return
	}
	line, want := []rune(r.lines[v.line-1]), []rune(v.text)
	from := v.textCol - 1
	if from+len(want) <= len(line) && string(line[from:from+len(want)]) == v.text {
		v.shown = true
		v.width = len(want) + 2*(v.textCol-v.col)
	} else if from < len(line) {
		v.width = len(line) - v.col + 1
	}
}

func (r *reader) field(v *value, n *ast.MappingValueNode, depth int) {
	tk := n.Key.GetToken()
	key := showColons(tk.Value)
	at := &value{kind: text, line: tk.Position.Line, col: max(1, tk.Position.Column), width: utf8.RuneCountInString(key), text: key}
	if i := slices.IndexFunc(v.fields, func(f field) bool { return f.key == key }); i >= 0 {
		r.fail(at, flow.CodeKeyDuplicate, "the first is in line "+strconv.Itoa(v.fields[i].at.line)+"; keep one", "key `%s` stands here twice", key)
		return
	}
	val := r.convert(n.Value, depth+1)
	if val.kind == null {
		val.line, val.col, val.width = at.line, at.col, at.width
	}
	v.fields = append(v.fields, field{key, at, val})
}

// fail reports what is wrong with a value.
func (r *reader) fail(v *value, code flow.Code, help, format string, args ...any) {
	r.fault(v.line, v.col, v.width, code, help, format, args...)
}

func (r *reader) fault(line, col, width int, code flow.Code, help, format string, args ...any) {
	if len(r.problems) >= maxProblems {
		return
	}
	line = max(1, min(line, len(r.lines)))
	source := r.lines[line-1]
	n := utf8.RuneCountInString(source) + 1
	col = max(1, min(col, n))
	r.problems = append(r.problems, flow.Problem{
		Code: code, Level: flow.LevelError, File: r.file, Line: line, Column: col, EndColumn: max(col+1, min(col+width, n)),
		Source: source, Message: fmt.Sprintf(format, args...), Help: help,
	})
}

func (r *reader) err() error {
	slices.SortStableFunc(r.problems, func(a, b flow.Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return r.problems.Err()
}

// object is a map whose keys are known.
type object struct {
	r    *reader
	v    *value
	what string // the map's name, for messages
}

// object reads v as a map of the known keys; false, with a problem reported,
// if it is none.
func (r *reader) object(v *value, what, example string, known ...string) (object, bool) {
	o := object{r, v, what}
	if v.kind != mapping {
		r.fail(v, flow.CodeType, "write "+example, "%s is a map, not %s", what, v.kind)
		return o, false
	}
	for _, f := range v.fields {
		if !slices.Contains(known, f.key) {
			help := "keys here are " + strings.Join(known, ", ")
			if near := expr.Nearest(f.key, known); near != "" {
				help = "did you mean `" + near + "`?"
			}
			r.fail(f.at, flow.CodeKeyUnknown, help, "unknown key in %s", what)
		}
	}
	return o, true
}

// get is the value of a key, nil if it is not there.
func (o object) get(key string) *value {
	for _, f := range o.v.fields {
		if f.key == key {
			return f.value
		}
	}
	return nil
}

// at is the place of a key.
func (o object) at(key string) *value {
	for _, f := range o.v.fields {
		if f.key == key {
			return f.at
		}
	}
	return o.v
}
