package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"regexp/syntax"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// Bounds of what a JSON Schema may cost.
const (
	// maxPatterns is the size of all compiled patterns of a schema, in
	// instructions, about.
	maxPatterns = 50_000
	// maxWork bounds the longest enum times the values in a payload, and the
	// largest pattern times the payload's bytes.
	maxWork = 1_000_000_000
	// maxDigits bounds a number's text, maxExponent its exponent: numbers are
	// compared exactly.
	maxDigits   = 1000
	maxExponent = 1000
)

// base is the URL of a schema without an $id, which its references are
// relative to.
const base = "registry:///schema"

// jsonSchema validates the values of one JSON Schema.
type jsonSchema struct {
	texts []text
	// free are compiled schemas that nobody uses; as many as can work at once.
	free chan *validator
}

// validator is a compiled schema for one goroutine at a time.
type validator struct {
	schema *jsonschema.Schema
	left   int // steps
	// enum is the length of the longest one, pattern the size of the largest.
	enum, pattern int
}

// compileJSON makes the last of texts ready; the others are what it refers to.
func compileJSON(texts []text) (*jsonSchema, error) {
	s := &jsonSchema{texts: texts, free: make(chan *validator, runtime.GOMAXPROCS(0))}
	v, err := s.compile()
	if err != nil {
		return nil, err
	}
	s.free <- v
	return s, nil
}

func (s *jsonSchema) compile() (v *validator, err error) {
	defer func() { // the text is a stranger's
		if p := recover(); p != nil {
			v, err = nil, fmt.Errorf("its text cannot be read: %v", p)
		}
	}()
	main := s.texts[len(s.texts)-1]
	doc, _, err := readJSON([]byte(main.text))
	if err != nil {
		return nil, fmt.Errorf("its text is no JSON Schema: %w", err)
	}
	l := loader{}
	at := base
	if id := schemaID(doc); id != "" {
		at = id
	}
	for _, t := range s.texts[:len(s.texts)-1] {
		if err := l.add(t, at); err != nil {
			return nil, err
		}
	}
	v = &validator{}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft7)
	c.UseLoader(l)
	patterns := patterns{v: v, known: map[string]*regexp.Regexp{}}
	c.UseRegexpEngine(patterns.compile)
	c.RegisterVocabulary(&jsonschema.Vocabulary{
		URL:    "registry:///steps",
		Schema: anything,
		Compile: func(_ *jsonschema.CompilerContext, obj map[string]any) (jsonschema.SchemaExt, error) {
			return v.count(obj), nil
		},
	})
	c.AssertVocabs()
	if err := c.AddResource(at, doc); err != nil {
		return nil, fmt.Errorf("its text is no JSON Schema: %w", err)
	}
	v.schema, err = c.Compile(at)
	if patterns.size > maxPatterns {
		return nil, errTooLarge
	}
	if err != nil {
		return nil, fmt.Errorf("its text is no JSON Schema: %s", faults(err))
	}
	return v, nil
}

// anything is the schema of the vocabulary that counts, which has no keywords.
var anything = &jsonschema.Schema{Bool: new(true)}

// step counts what a schema costs when it is applied.
type step struct {
	v    *validator
	cost int
}

// count makes the step of a schema: itself, and what lies directly in it.
func (v *validator) count(obj map[string]any) jsonschema.SchemaExt {
	s := &step{v, 1}
	if values, ok := obj["enum"].([]any); ok {
		v.enum = max(v.enum, len(values))
	}
	for _, val := range obj {
		switch val := val.(type) {
		case []any:
			s.cost += len(val)
		case map[string]any:
			s.cost += len(val)
		}
	}
	return s
}

// errSteps ends a validation, by panic: the library has no other way out.
var errSteps = errors.New("it takes too many steps to validate")

// maxSteps bounds how many schemas are applied to a payload and what is in it.
func maxSteps(payload int) int { return 200_000 + 4*payload }

func (s *step) Validate(*jsonschema.ValidatorContext, any) {
	if s.v.left -= s.cost; s.v.left < 0 {
		panic(errSteps)
	}
}

// validate holds a payload against the schema.
func (s *jsonSchema) validate(payload []byte) error {
	doc, values, err := readJSON(payload)
	if err != nil {
		return err
	}
	var v *validator
	select {
	case v = <-s.free:
	default:
		if v, err = s.compile(); err != nil {
			return err
		}
	}
	if v.enum*values > maxWork || v.pattern*len(payload) > maxWork {
		err = errSteps
	} else {
		err = v.validate(doc, maxSteps(len(payload)))
	}
	select {
	case s.free <- v:
	default:
	}
	return err
}

func (v *validator) validate(doc any, steps int) (err error) {
	defer func() {
		switch p := recover(); p {
		case nil:
		case errSteps:
			err = errSteps
		default:
			err = fmt.Errorf("it cannot be validated: %v", p)
		}
	}()
	v.left = steps
	if err := v.schema.Validate(doc); err != nil {
		return errors.New(faults(err))
	}
	return nil
}

// faults names the first places where a value differs from its schema.
func faults(err error) string {
	if se, ok := errors.AsType[*jsonschema.SchemaValidationError](err); ok {
		err = se.Err
	}
	if re, ok := errors.AsType[*jsonschema.InvalidRegexError](err); ok {
		return fmt.Sprintf("pattern %q: %v", shorten(re.Regex), re.Err)
	}
	ve, ok := errors.AsType[*jsonschema.ValidationError](err)
	if !ok {
		return shorten(err.Error())
	}
	var found []string
	printer := message.NewPrinter(language.English)
	var collect func(*jsonschema.ValidationError)
	collect = func(e *jsonschema.ValidationError) {
		if len(e.Causes) == 0 {
			where := strings.Join(e.InstanceLocation, ".")
			if where != "" {
				where += ": "
			}
			found = append(found, shorten(where+e.ErrorKind.LocalizedString(printer)))
		}
		for _, c := range e.Causes {
			collect(c)
		}
	}
	collect(ve)
	// The library walks objects in any order; a replay says the same again.
	slices.Sort(found)
	found = slices.Compact(found)
	const most = 3
	if len(found) > most {
		found = append(found[:most], fmt.Sprintf("and %d more", len(found)-most))
	}
	return strings.Join(found, "; ")
}

// readJSON reads a JSON text whose numbers and nesting are within bounds, and
// counts the values in it.
func readJSON(b []byte) (doc any, values int, err error) {
	if !utf8.Valid(b) {
		return nil, 0, errors.New("it is not JSON: it is no UTF-8")
	}
	if depthOf(b) > MaxDepth {
		return nil, 0, fmt.Errorf("it is nested more than %d deep", MaxDepth)
	}
	if doc, err = jsonschema.UnmarshalJSON(bytes.NewReader(b)); err != nil {
		return nil, 0, fmt.Errorf("it is not JSON: %w", err)
	}
	err = survey(doc, &values)
	return doc, values, err
}

// depthOf is how deep arrays and objects are nested in a JSON text.
func depthOf(b []byte) int {
	depth, most, text := 0, 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case text:
		case c == '[' || c == '{':
			depth++
			most = max(most, depth)
		case c == ']' || c == '}':
			depth--
		}
	}
	return most
}

// survey counts the values in v, and refuses numbers that are out of bounds.
func survey(v any, values *int) error {
	*values++
	switch v := v.(type) {
	case json.Number:
		digits, exponent, _ := strings.Cut(strings.ToLower(v.String()), "e")
		exponent = strings.TrimLeft(exponent, "+-0")
		if n, _ := strconv.Atoi("0" + exponent); len(digits) > maxDigits || n > maxExponent {
			return fmt.Errorf("a number of more than %d digits, or with an exponent beyond %d", maxDigits, maxExponent)
		}
	case []any:
		for _, e := range v {
			if err := survey(e, values); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, e := range v {
			if err := survey(e, values); err != nil {
				return err
			}
		}
	}
	return nil
}

// patterns compiles those of a schema, each once.
type patterns struct {
	v     *validator
	known map[string]*regexp.Regexp
	size  int // of all, in instructions
}

var errTooLarge = fmt.Errorf("its patterns are too large, more than %d instructions", maxPatterns)

func (p *patterns) compile(s string) (jsonschema.Regexp, error) {
	if re := p.known[s]; re != nil {
		return re, nil
	}
	if p.size > maxPatterns {
		return nil, errTooLarge
	}
	parsed, err := syntax.Parse(s, syntax.Perl)
	if err != nil {
		return nil, err
	}
	size := patternSize(parsed)
	if p.size += size; p.size > maxPatterns {
		return nil, errTooLarge
	}
	p.v.pattern = max(p.v.pattern, size)
	re, err := regexp.Compile(s)
	p.known[s] = re
	return re, err
}

// patternSize is about the number of instructions that re is compiled to, and
// more than maxPatterns if it is more.
func patternSize(re *syntax.Regexp) int {
	size := 1
	switch re.Op {
	case syntax.OpLiteral:
		size = len(re.Rune)
	case syntax.OpRepeat:
		size = 0
	}
	for _, sub := range re.Sub {
		size = min(size+patternSize(sub), maxPatterns+1)
	}
	if re.Op == syntax.OpRepeat {
		size = min(size*max(re.Min, re.Max, 1), maxPatterns+1)
	}
	return size
}

// loader finds what a schema refers to among what the registry lists for it.
type loader map[string]any

// add makes a text known by its name, by its name beside at, and by its $id.
func (l loader) add(t text, at string) error {
	doc, _, err := readJSON([]byte(t.text))
	if err != nil {
		return fmt.Errorf("what it refers to as %q is no JSON Schema: %w", t.name, err)
	}
	l[t.name] = doc
	if b, err := url.Parse(at); err == nil {
		if u, err := b.Parse(t.name); err == nil {
			u.Fragment = ""
			l[u.String()] = doc
		}
	}
	if id := schemaID(doc); id != "" {
		l[id] = doc
	}
	return nil
}

func (l loader) Load(name string) (any, error) {
	if doc, ok := l[name]; ok {
		return doc, nil
	}
	return nil, fmt.Errorf("it refers to %q, and the registry lists no reference of that name for it", name)
}

// schemaID is the absolute $id of a schema, without its fragment, or empty.
func schemaID(doc any) string {
	obj, _ := doc.(map[string]any)
	id, _ := obj["$id"].(string)
	u, err := url.Parse(id)
	if err != nil || !u.IsAbs() {
		return ""
	}
	u.Fragment = ""
	return u.String()
}
