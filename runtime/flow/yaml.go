package flow

import (
	"errors"
	"regexp"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// MaxFileSize is the longest file that Parse reads, in bytes. Together with
// the other limits it bounds the time that a hostile file takes.
const MaxFileSize = 128 << 10

const (
	maxYAMLLines  = 10_000
	maxYAMLColumn = 8192
	maxYAMLDepth  = 64
	maxYAMLNodes  = 50_000
	maxProblems   = 100
)

type nodeKind uint8

const (
	scalarNode nodeKind = iota
	nullNode
	mapNode
	listNode
	// badNode is what a problem was reported for: nobody looks at it again.
	badNode
)

// node is a YAML value with its place.
type node struct {
	kind    nodeKind
	pos     Pos
	end     int // column behind the first line of it
	text    string
	typ     scalarType
	quoted  bool
	escaped bool // columns inside do not follow from those of the text
	block   int  // of a literal block: the column where its lines begin
	fields  []field
	lines   map[string]int // of a map: the line of each key
	items   []*node
}

type field struct {
	key   *node
	value *node
}

type scalarType uint8

const (
	stringScalar scalarType = iota
	intScalar
	floatScalar
	boolScalar
)

func (n *node) get(key string) *node {
	if n != nil && n.kind == mapNode {
		for _, f := range n.fields {
			if f.key.text == key {
				return f.value
			}
		}
	}
	return nil
}

// pairs are the fields of a map, none of anything else.
func (n *node) pairs() []field {
	if n == nil || n.kind != mapNode {
		return nil
	}
	return n.fields
}

// yamlDoc is one document of a file.
type yamlDoc struct {
	line   int
	source string
	root   *node // nil if the document is empty
}

// source is a file that is being read: its lines and what was found in it.
type source struct {
	file  string
	base  int // lines before the first one
	lines []string
	runes [][]rune // the same lines, once they are known to be short
	// tagged are the places that hold a tag, an anchor or an alias.
	tagged map[Pos]bool
	nodes  int
	report func(Problem)
	// hidden are the values that no problem shows.
	hidden []hidden
}

func (s *source) problem(code Code, at Pos, end int, msg, help string) *Problem {
	p := &Problem{Code: code, Level: LevelError, File: s.file, Line: at.Line, Column: at.Column, EndColumn: end, Message: msg, Help: help}
	if i := at.Line - 1 - s.base; i >= 0 && i < len(s.lines) {
		p.Source = s.lines[i]
		n := len([]rune(p.Source)) + 1
		p.Column = max(1, min(p.Column, n))
		p.EndColumn = max(p.Column+1, min(p.EndColumn, n))
	} else {
		p.Line, p.Column, p.EndColumn = 0, 0, 0
	}
	return p
}

var deepLine = regexp.MustCompile(`(?m)^[ \t]*(?:[-?][ \t]+){16}`)

// parse reads the documents of a text; nil if it is not YAML.
func (s *source) parse(src string) (docs []yamlDoc) {
	fail := func(at Pos, end int, msg, help string) []yamlDoc {
		s.report(*s.problem(CodeYAML, at, end, msg, help))
		return nil
	}
	src = strings.TrimPrefix(strings.ReplaceAll(src, "\r\n", "\n"), "\ufeff")
	s.lines = strings.Split(src, "\n")
	first := Pos{Line: s.base + 1, Column: 1}
	switch {
	case len(src) > MaxFileSize:
		return fail(first, 2, "the file is longer than "+strconv.Itoa(MaxFileSize>>10)+" KiB", "")
	case len(s.lines) > maxYAMLLines:
		return fail(first, 2, "the file has more than "+strconv.Itoa(maxYAMLLines)+" lines", "make several files of it")
	case deepLine.MatchString(src) || bracketDepth(src) > maxYAMLDepth:
		return fail(first, 2, "lists and maps are nested too deeply", "")
	}
	s.runes = make([][]rune, len(s.lines))
	for i, line := range s.lines {
		s.runes[i] = []rune(line)
		if len(s.runes[i]) > maxYAMLColumn {
			at := Pos{s.base + i + 1, 1}
			return fail(at, 2, "this line is longer than "+strconv.Itoa(maxYAMLColumn)+" characters", "break it")
		}
		if j := strings.IndexFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f || r == '\ufffd' || r == maskedColon }); j >= 0 {
			col := len([]rune(line[:j])) + 1
			return fail(Pos{s.base + i + 1, col}, col+1, "a character that YAML does not allow", "save the file as UTF-8 text")
		}
	}
	defer func() {
		// The YAML parser is another project's: a panic of its must not be
		// ours.
		if r := recover(); r != nil {
			docs = fail(first, 2, "the YAML cannot be read", "simplify the file until it can")
		}
	}()
	file, err := parser.ParseBytes([]byte(s.untag(mask(src))), 0, parser.AllowDuplicateMapKey())
	if err != nil {
		at, end, msg, help := s.explain(err)
		return fail(at, end, msg, help)
	}
	for i, d := range file.Docs {
		begin := 1
		if d.Start != nil {
			begin = d.Start.Position.Line
			if rest := strings.TrimSpace(strings.TrimPrefix(s.lines[begin-1], "---")); rest == "" || rest[0] == '#' {
				begin++
			}
		}
		end := len(s.lines)
		if i+1 < len(file.Docs) && file.Docs[i+1].Start != nil {
			end = file.Docs[i+1].Start.Position.Line - 1
		}
		doc := yamlDoc{line: s.base + begin}
		if begin <= end {
			doc.source = strings.Join(s.lines[begin-1:end], "\n")
			if end < len(s.lines) {
				doc.source += "\n"
			}
		}
		if d.Body != nil {
			doc.root = s.convert(d.Body, 0)
		}
		docs = append(docs, doc)
	}
	return docs
}

// maskedColon stands for a colon inside a plain value while the parser reads.
const maskedColon = '\ue000'

// mask hides the colons that do not end a key. The parser takes every colon
// inside a flow map for the end of one, and would read { brokers: [host:9092] }
// as a map in a list.
func mask(src string) string {
	runes := []rune(src)
	for i, r := range runes {
		if r == ':' && i > 0 && i+1 < len(runes) && !strings.ContainsRune("\"' \t\n{[,", runes[i-1]) && !strings.ContainsRune(" \t\n,]}", runes[i+1]) {
			runes[i] = maskedColon
		}
	}
	return string(runes)
}

func unmask(s string) string { return strings.ReplaceAll(s, string(maskedColon), ":") }

// bracketDepth is how deep brackets are nested, quotes and all.
func bracketDepth(src string) int {
	depth, deepest := 0, 0
	for i := 0; i < len(src); i++ {
		switch src[i] {
		case '[', '{':
			depth++
			deepest = max(deepest, depth)
		case ']', '}':
			depth = max(0, depth-1)
		}
	}
	return deepest
}

// untag reports tags, anchors and aliases and takes their first character
// away, because the parser would take what follows them for their value.
func (s *source) untag(src string) string {
	s.tagged = make(map[Pos]bool)
	last := Pos{} // behind the last one
	for _, tk := range lexer.Tokenize(src) {
		if tk.Type != token.TagType && tk.Type != token.AnchorType && tk.Type != token.AliasType || tk.Position == nil {
			continue
		}
		at := Pos{Line: tk.Position.Line, Column: tk.Position.Column}
		if at.Line < 1 || at.Line > len(s.lines) {
			continue
		}
		line := s.runes[at.Line-1]
		if at.Column < 1 || at.Column > len(line) || !strings.ContainsRune("!&*", line[at.Column-1]) {
			continue
		}
		sign := line[at.Column-1]
		end := at.Column + len(strings.TrimRight(plainRest(line[at.Column-1:]), " "))
		if at.Line == last.Line && at.Column < last.Column {
			continue
		}
		last = Pos{Line: at.Line, Column: end}
		place := Pos{Line: s.base + at.Line, Column: at.Column}
		value := string(line[at.Column-1 : end-1])
		if sign == '!' {
			p := s.problem(CodeYAMLTag, place, end, "a value that begins with ! is a tag in YAML, not an expression", "quote it")
			if quoted := strconv.Quote(value); !strings.ContainsAny(value, `"\`) {
				p.Fix = strings.TrimSpace(string(line[:at.Column-1]) + quoted + string(line[end-1:]))
			} else if !strings.Contains(value, "'") {
				p.Fix = strings.TrimSpace(string(line[:at.Column-1]) + "'" + value + "'" + string(line[end-1:]))
			}
			s.report(*p)
		} else {
			s.report(*s.problem(CodeYAML, place, end, "anchors and aliases (& and *) are not used in these files", "write the value out, or quote it if it is a text"))
		}
		s.tagged[place] = true
	}
	if len(s.tagged) == 0 {
		return src
	}
	lines := strings.Split(src, "\n")
	masked := make(map[int][]rune)
	for at := range s.tagged {
		line, ok := masked[at.Line-1-s.base]
		if !ok {
			line = []rune(lines[at.Line-1-s.base])
			masked[at.Line-1-s.base] = line
		}
		line[at.Column-1] = 'X'
		// What follows is text now, and must not be anything else.
		rest := plainRest(line[at.Column-1:])
		for i := range []rune(rest) {
			if strings.ContainsRune(`:"'{}[]#&*!|>%@`+"`", line[at.Column-1+i]) {
				line[at.Column-1+i] = 'X'
			}
		}
	}
	for i, line := range masked {
		lines[i] = string(line)
	}
	return strings.Join(lines, "\n")
}

// plainRest is the plain value at the beginning of rest: to a comment, or, in
// a flow map, to a comma or bracket outside of its own brackets and quotes.
func plainRest(rest []rune) string {
	depth := 0
	var quote rune
	for i, r := range rest {
		switch {
		case quote != 0:
			if r == quote {
				quote = 0
			}
		case r == '"' || r == '\'':
			quote = r
		case r == '(' || r == '[' || r == '{':
			depth++
		case r == ')' || r == ']' || r == '}':
			if depth--; depth < 0 {
				return string(rest[:i])
			}
		case r == ',' && depth == 0:
			return string(rest[:i])
		case r == '#' && i > 0 && rest[i-1] == ' ':
			return string(rest[:i])
		}
	}
	return string(rest)
}

// explain turns the parser's error into a place and a sentence.
func (s *source) explain(err error) (at Pos, end int, msg, help string) {
	ye, ok := errors.AsType[yaml.Error](err)
	at = Pos{Line: 1, Column: 1}
	text := ""
	if ok && ye.GetToken() != nil && ye.GetToken().Position != nil {
		p := ye.GetToken().Position
		at = Pos{Line: max(1, min(p.Line, len(s.lines))), Column: max(1, p.Column)}
		text = ye.GetMessage()
	}
	for i, line := range s.lines {
		indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]
		if j := strings.IndexByte(indent, '\t'); j >= 0 && i+1 >= at.Line-1 && i+1 <= at.Line+1 {
			return Pos{s.base + i + 1, j + 1}, j + 2, "a tab in the indentation", "YAML is indented with spaces"
		}
	}
	line := s.lines[at.Line-1]
	runes := []rune(line)
	rest := ""
	if at.Column <= len(runes) {
		rest = string(runes[at.Column-1:])
	}
	msg, help = "the YAML is broken here", "look at the indentation and the quotes of this line and the one before it"
	has := func(part string) bool { return strings.Contains(text, part) }
	switch {
	case has("mapping value is not allowed"):
		if i := strings.Index(rest, ": "); i >= 0 || strings.HasSuffix(rest, ":") {
			if i < 0 {
				i = len(rest) - 1
			}
			at.Column += len([]rune(rest[:i]))
			msg, help = "a colon inside a value", "quote the whole value"
			if i := strings.Index(line, ": "); i >= 0 {
				value := strings.TrimSpace(line[i+2:])
				if !strings.Contains(value, "'") {
					help += ": '" + value + "'"
				}
			}
		} else if at.Line < len(s.lines) {
			at.Line++
			at.Column = len(s.lines[at.Line-1]) - len(strings.TrimLeft(s.lines[at.Line-1], " ")) + 1
			msg, help = "this line is indented too far", "keys of one map begin in the same column"
		}
	case has("map key-value is pre-defined"):
		msg, help = "text after the end of a quoted value", "put the whole value into quotes, such as '...'"
	case has("value is not allowed in this context"):
		msg, help = "this line does not fit the one before it", "keys of one map begin in the same column, and so do the items of a list"
	case has("end character of"):
		msg, help = "a quote that is not closed", "end the text with the quote that it begins with"
	case has("must be specified"), has("end token"):
		msg, help = "a bracket that is not closed", "flow maps end with }, flow lists with ]"
	case has("reserved character"):
		msg, help = "a value cannot begin with this character", "quote it"
	case has("unexpected directive"):
		msg, help = "a value cannot begin with %", "quote it"
	case has("unexpected key name"), has("non-map value"):
		msg, help = "a key without a value", "write `key: value`, with a space behind the colon"
	case has("invalid key"), has("unexpected null key"):
		msg, help = "this cannot be a key", "keys are names"
	}
	end = at.Column + 1
	at.Line += s.base
	return at, end, msg, help
}

func (s *source) pos(tk *token.Token) Pos {
	if tk == nil || tk.Position == nil {
		return Pos{Line: s.base + 1, Column: 1}
	}
	return Pos{Line: s.base + tk.Position.Line, Column: max(1, tk.Position.Column)}
}

// lineAt is the text of a line of the file, "" outside of it.
func (s *source) lineAt(line int) string {
	if i := line - 1 - s.base; i >= 0 && i < len(s.lines) {
		return s.lines[i]
	}
	return ""
}

func (s *source) runesAt(line int) []rune {
	if i := line - 1 - s.base; i >= 0 && i < len(s.runes) {
		return s.runes[i]
	}
	return nil
}
