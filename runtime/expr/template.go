package expr

import (
	"errors"
	"strings"
)

// Template is a text with expressions in it: `order ${value.id}`. `$${` stands
// for `${`; a `$` before anything else is itself. It is immutable and safe for
// concurrent use with an Env for each goroutine.
type Template struct {
	src   string
	parts []part
	// text is the whole of a template without expressions.
	text   string
	roots  Roots
	env    []string
	static bool
}

// part is a text, or an expression if prog is set.
type part struct {
	text string
	prog *Program
}

// CompileTemplate compiles a template. The error is an *Error whose Source and
// Offset are those of the template.
func CompileTemplate(src string, s Scope) (*Template, error) {
	t := &Template{src: src, static: true}
	var text strings.Builder
	for rest := src; ; {
		i := strings.Index(rest, "${")
		if i < 0 {
			text.WriteString(rest)
			break
		}
		if i > 0 && rest[i-1] == '$' {
			text.WriteString(rest[:i-1])
			text.WriteString("${")
			rest = rest[i+2:]
			continue
		}
		text.WriteString(rest[:i])
		begin := len(src) - len(rest) + i
		length := closing(rest[i+2:])
		if length < 0 {
			return nil, &Error{Source: src, Offset: runes(src[:begin]), Length: 2, Message: "${ without a }", Help: "for the characters themselves write $${"}
		}
		inner := rest[i+2 : i+2+length]
		p, err := Compile(inner, s)
		if err != nil {
			if e, ok := errors.AsType[*Error](err); ok {
				return nil, &Error{Source: src, Offset: runes(src[:begin+2]) + e.Offset, Length: e.Length, Message: e.Message, Help: e.Help}
			}
			return nil, err
		}
		if text.Len() > 0 {
			t.parts = append(t.parts, part{text: text.String()})
			text.Reset()
		}
		t.parts = append(t.parts, part{prog: p})
		t.roots |= p.roots
		t.env = append(t.env, p.env...)
		t.static = t.static && p.static
		rest = rest[i+2+length+1:]
	}
	if len(t.parts) == 0 {
		t.text = text.String()
	} else if text.Len() > 0 {
		t.parts = append(t.parts, part{text: text.String()})
	}
	return t, nil
}

func runes(s string) int { return len([]rune(s)) }

// closing is the index of the } that ends an expression, -1 if there is none.
func closing(s string) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '{':
			depth++
		case '}':
			if depth == 0 {
				return i
			}
			depth--
		case '"', '\'', '`':
			quote := s[i]
			for i++; i < len(s) && s[i] != quote; i++ {
				if s[i] == '\\' && quote != '`' {
					i++
				}
			}
		}
	}
	return -1
}

// Source is the text that the template was compiled from.
func (t *Template) Source() string { return t.src }

// Roots are the roots that the template's expressions name.
func (t *Template) Roots() Roots { return t.roots }

// EnvNames are the environment variables that the template names.
func (t *Template) EnvNames() []string { return t.env }

// Const is the template's text if it has no expressions.
func (t *Template) Const() (string, bool) { return t.text, len(t.parts) == 0 }

// Single is the expression of a template that is one expression and nothing
// else, nil otherwise.
func (t *Template) Single() *Program {
	if len(t.parts) == 1 {
		return t.parts[0].prog
	}
	return nil
}

// Append evaluates t, each expression as Program.Text does, and appends the
// result.
func (t *Template) Append(b []byte, e *Env) ([]byte, error) {
	if len(t.parts) == 0 {
		return append(b, t.text...), nil
	}
	for i := range t.parts {
		if t.parts[i].prog == nil {
			b = append(b, t.parts[i].text...)
			continue
		}
		var err error
		if b, err = t.parts[i].prog.appendText(b, e); err != nil {
			return b, err
		}
	}
	return b, nil
}

// Text evaluates t to a string.
func (t *Template) Text(e *Env) (string, error) {
	if len(t.parts) == 0 {
		return t.text, nil
	}
	b, err := t.Append(nil, e)
	return string(b), err
}

// Static evaluates a template of vars and env alone; false if it needs a
// record, an Env that is not known, or fails.
func (t *Template) Static() (string, bool) {
	if !t.static {
		return "", false
	}
	s, err := t.Text(new(Env))
	return s, err == nil
}

// Static evaluates a program of vars and env alone, as Template.Static does.
func (p *Program) Static() (any, bool) {
	if !p.static {
		return nil, false
	}
	v, err := p.Any(new(Env))
	return v, err == nil
}
