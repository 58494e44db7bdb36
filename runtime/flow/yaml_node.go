package flow

import (
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

func (s *source) bad(n *node, msg, help string) *node {
	s.report(*s.problem(CodeYAML, n.pos, n.pos.Column+1, msg, help))
	n.kind = badNode
	return n
}

// convert turns the parser's nodes into ours.
func (s *source) convert(from ast.Node, depth int) *node {
	n := &node{pos: s.pos(from.GetToken())}
	n.end = n.pos.Column + 1
	s.nodes++
	if depth > maxYAMLDepth || s.nodes > maxYAMLNodes {
		if s.nodes > maxYAMLNodes+1 {
			n.kind = badNode
			return n
		}
		s.nodes = maxYAMLNodes + 1
		return s.bad(n, "the file holds too much, or is nested too deeply", "")
	}
	switch from := from.(type) {
	case *ast.MappingNode:
		n.kind = mapNode
		for _, v := range from.Values {
			s.addField(n, v, depth)
		}
		if !from.IsFlowStyle && len(n.fields) > 0 {
			n.pos, n.end = n.fields[0].key.pos, n.fields[0].key.end
		}
	case *ast.MappingValueNode:
		n.kind = mapNode
		s.addField(n, from, depth)
		if len(n.fields) > 0 {
			n.pos, n.end = n.fields[0].key.pos, n.fields[0].key.end
		}
	case *ast.SequenceNode:
		n.kind = listNode
		for _, v := range from.Values {
			n.items = append(n.items, s.convert(v, depth+1))
		}
	case *ast.NullNode:
		n.kind = nullNode
	case *ast.StringNode:
		n.text = unmask(from.Value)
		s.extent(n, from.GetToken())
	case *ast.LiteralNode:
		n.text = unmask(from.Value.Value)
		n.escaped = true
		if from.Start != nil && from.Start.Type == token.LiteralType {
			n.block = s.blockColumn(n.pos.Line)
		}
	case *ast.IntegerNode:
		n.typ = intScalar
		s.extent(n, from.GetToken())
	case *ast.FloatNode:
		n.typ = floatScalar
		s.extent(n, from.GetToken())
	case *ast.BoolNode:
		n.typ = boolScalar
		s.extent(n, from.GetToken())
	case *ast.InfinityNode, *ast.NanNode:
		return s.bad(n, "this is no number that a flow can use", "")
	case *ast.TagNode, *ast.AnchorNode, *ast.AliasNode:
		return s.bad(n, "tags, anchors and aliases are not used in these files", "write the value out, or quote it if it is a text")
	default:
		return s.bad(n, "this form of YAML is not used in these files", "")
	}
	if s.tagged[n.pos] {
		n.kind = badNode
	}
	return n
}

// extent finds where a scalar ends, and whether columns can be counted in it.
func (s *source) extent(n *node, tk *token.Token) {
	switch tk.Type {
	case token.DoubleQuoteType, token.SingleQuoteType:
		n.quoted = true
	default:
		if n.typ != stringScalar {
			n.text = unmask(tk.Value)
		}
	}
	runes := s.runesAt(n.pos.Line)
	begin := n.pos.Column - 1
	if n.quoted {
		begin++
	}
	text := []rune(n.text)
	if begin+len(text) <= len(runes) && string(runes[begin:begin+len(text)]) == n.text {
		n.end = begin + len(text) + 1
		if n.quoted {
			n.end++
		}
		return
	}
	n.escaped = true
	n.end = len(runes) + 1
}

// blockColumn is the column where the lines of a literal block begin whose
// header stands in line.
func (s *source) blockColumn(line int) int {
	for {
		line++
		if line-1-s.base >= len(s.lines) {
			return 0
		}
		if text := s.lineAt(line); strings.TrimSpace(text) != "" {
			return len(text) - len(strings.TrimLeft(text, " ")) + 1
		}
	}
}

func (s *source) addField(n *node, v *ast.MappingValueNode, depth int) {
	key := &node{pos: s.pos(v.Key.GetToken())}
	switch k := v.Key.(type) {
	case *ast.StringNode:
		key.text = unmask(k.Value)
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode, *ast.MergeKeyNode:
		key.text = unmask(k.GetToken().Value)
	default:
		s.bad(key, "this cannot be a key", "keys are names")
		return
	}
	s.extent(key, v.Key.GetToken())
	if s.tagged[key.pos] {
		return
	}
	if n.lines == nil {
		n.lines = make(map[string]int)
	}
	if first := n.lines[key.text]; first > 0 {
		s.report(*s.problem(CodeKeyDuplicate, key.pos, key.end, "key `"+key.text+"` stands here twice", "the first is in line "+strconv.Itoa(first)+"; keep one"))
		return
	}
	n.lines[key.text] = key.pos.Line
	value := s.convert(v.Value, depth+1)
	if value.kind == nullNode {
		value.pos, value.end = key.pos, key.end
	}
	n.fields = append(n.fields, field{key, value})
}

// within is the place of a part of a scalar, given by its offset and length in
// characters.
func (n *node) within(offset, length int) (at Pos, end int) {
	switch {
	case n.block > 0:
		before := string([]rune(n.text)[:min(offset, len([]rune(n.text)))])
		line := strings.Count(before, "\n")
		col := len([]rune(before[strings.LastIndexByte(before, '\n')+1:]))
		at = Pos{Line: n.pos.Line + 1 + line, Column: n.block + col}
		return at, at.Column + length
	case n.escaped:
		return n.pos, n.end
	}
	at = Pos{Line: n.pos.Line, Column: n.pos.Column + offset}
	if n.quoted {
		at.Column++
	}
	return at, at.Column + length
}
