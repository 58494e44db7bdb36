package flow

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Level is how grave a problem is.
type Level string

const (
	// LevelError: the document cannot be applied.
	LevelError Level = "error"
	// LevelWarning: it can, but means something that its author should know.
	LevelWarning Level = "warning"
)

// Code names a kind of problem; tools may rely on it.
type Code string

const (
	CodeYAML               Code = "E_YAML"                 // not YAML, or YAML that the format does not use
	CodeYAMLTag            Code = "E_YAML_TAG"             // a value that begins with !
	CodeDocument           Code = "E_DOCUMENT"             // the first key is no kind of document
	CodeVersion            Code = "E_VERSION"              // a version of the format that does not exist
	CodeKeyUnknown         Code = "E_KEY_UNKNOWN"          // a key that does not exist there
	CodeKeyDuplicate       Code = "E_KEY_DUPLICATE"        // a key that stands twice
	CodeKeyMissing         Code = "E_KEY_MISSING"          // a key that has to be there
	CodeType               Code = "E_TYPE"                 // a value of the wrong kind
	CodeValue              Code = "E_VALUE"                // a value that cannot be meant
	CodeName               Code = "E_NAME"                 // a name with characters that names do not have
	CodeNotSupported       Code = "E_NOT_SUPPORTED"        // part of the format, not of this version
	CodeStageUnknown       Code = "E_STAGE_UNKNOWN"        // a key of a stage that does not exist
	CodeStageVerb          Code = "E_STAGE_VERB"           // a stage without a verb, or with several
	CodeStageKey           Code = "E_STAGE_KEY"            // a key that does not go with the stage's verb
	CodeStageDuplicate     Code = "E_STAGE_DUPLICATE"      // an id that stands twice
	CodeStageUnreachable   Code = "E_STAGE_UNREACHABLE"    // a stage, or a part of one, that no record reaches
	CodeBranchElse         Code = "E_BRANCH_ELSE"          // a branch that does not say what it does with the others
	CodeDeliveryMissing    Code = "E_DELIVERY_MISSING"     // the flow delivers nowhere
	CodeDeliveryNotLast    Code = "E_DELIVERY_NOT_LAST"    // stages behind a delivery
	CodeExpr               Code = "E_EXPR"                 // an expression or template with a fault
	CodePath               Code = "E_PATH"                 // a path with a fault
	CodeSecret             Code = "E_SECRET"               // a secret where none belongs, or none where one does
	CodeEnvMissing         Code = "E_ENV_MISSING"          // an environment variable that is not set
	CodeVarUnknown         Code = "E_VAR_UNKNOWN"          // an override of a var that the flow does not have
	CodeOrder              Code = "E_ORDER"                // what an order gives up
	CodeQueue              Code = "E_QUEUE"                // what a full failure queue gives up
	CodeSkip               Code = "E_SKIP"                 // records that a source passes over
	CodeConnectionNotFound Code = "E_CONNECTION_NOT_FOUND" // a connection that does not exist
	CodeConnectionKind     Code = "E_CONNECTION_KIND"      // a connection to something else
	CodePluginRef          Code = "E_PLUGIN_REF"           // no reference to a plugin
	CodePluginNotFound     Code = "E_PLUGIN_NOT_FOUND"     // a plugin that does not exist
	CodePlugin             Code = "E_PLUGIN"               // a plugin that cannot run
	CodePluginConfig       Code = "E_PLUGIN_CONFIG"        // `with` is not what the plugin takes
	CodePluginFunction     Code = "E_PLUGIN_FUNCTION"      // a function that the plugin does not have, or none where it needs one
	CodePluginOutput       Code = "E_PLUGIN_OUTPUT"        // outputs that are bound to nothing
)

// Problem is one finding in a document.
type Problem struct {
	Code  Code   `json:"code"`
	Level Level  `json:"level"`
	File  string `json:"file"`
	// Line and Column, in characters, count from 1; EndColumn is behind the
	// last character at fault. All are 0 if the problem has no place.
	Line      int `json:"line,omitempty"`
	Column    int `json:"column,omitempty"`
	EndColumn int `json:"end_column,omitempty"`
	// Source is the text of the line.
	Source  string `json:"source,omitempty"`
	Message string `json:"message"`
	// Help says what to do, "" if there is nothing to say.
	Help string `json:"help,omitempty"`
	// Fix is the corrected line, without its indentation, "" if it is not
	// known for sure.
	Fix string `json:"fix,omitempty"`
}

func (p *Problem) Error() string {
	s := fmt.Sprintf("%s: %s", p.File, p.Message)
	if p.Line > 0 {
		s = fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message)
	}
	if p.Help != "" {
		s += "; " + p.Help
	}
	return s
}

// Render is the problem as a human reads it: code and place, the line with a
// caret under the fault, and what to do. It ends with a line end.
func (p *Problem) Render() string {
	var b strings.Builder
	code := string(p.Code)
	if p.Level == LevelWarning {
		code += " (warning)"
	}
	if p.Line == 0 {
		fmt.Fprintf(&b, "%s  %s\n    %s\n", code, p.File, p.Message)
	} else {
		fmt.Fprintf(&b, "%s  %s:%d:%d\n", code, p.File, p.Line, p.Column)
		num := fmt.Sprintf("%6d", p.Line)
		source := strings.ReplaceAll(p.Source, "\t", " ")
		fmt.Fprintf(&b, "%s | %s\n", num, source)
		width := max(1, min(p.EndColumn-p.Column, utf8.RuneCountInString(source)-p.Column+1))
		fmt.Fprintf(&b, "%s | %s%s %s\n", strings.Repeat(" ", len(num)), strings.Repeat(" ", p.Column-1), strings.Repeat("^", width), p.Message)
	}
	if p.Help != "" {
		fmt.Fprintf(&b, "    help: %s\n", p.Help)
	}
	if p.Fix != "" {
		fmt.Fprintf(&b, "    fix: %s\n", p.Fix)
	}
	return b.String()
}

// Problems are the findings of one or several files, sorted by place.
type Problems []Problem

// HasErrors reports whether one of them is an error.
func (ps Problems) HasErrors() bool {
	return slices.ContainsFunc(ps, func(p Problem) bool { return p.Level == LevelError })
}

// Render renders all of them, with an empty line between.
func (ps Problems) Render() string {
	out := make([]string, len(ps))
	for i := range ps {
		out[i] = ps[i].Render()
	}
	return strings.Join(out, "\n")
}

// Err is an error of all problems that are errors, nil if there are none.
func (ps Problems) Err() error {
	if !ps.HasErrors() {
		return nil
	}
	return &Errors{Problems: ps}
}

// Errors says that documents cannot be applied.
type Errors struct{ Problems Problems }

func (e *Errors) Error() string {
	var lines []string
	for i := range e.Problems {
		if e.Problems[i].Level == LevelError {
			lines = append(lines, e.Problems[i].Error())
		}
	}
	return strings.Join(lines, "\n")
}

// add appends p, unless so many are there already that one more helps nobody.
func (ps *Problems) add(p Problem) {
	if len(*ps) < maxProblems {
		*ps = append(*ps, p)
	}
}

func (ps Problems) sort() {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// hidden is a value in a line, from its first character to the column behind
// its last.
type hidden struct {
	at  Pos
	end int
}

// mask puts * in place of the hidden values in the problem's source line.
func (s *source) mask(p *Problem) {
	for _, h := range s.hidden {
		if h.at.Line != p.Line {
			continue
		}
		line := []rune(p.Source)
		for i := h.at.Column - 1; i < min(h.end-1, len(line)); i++ {
			line[i] = '*'
		}
		p.Source = string(line)
	}
}
