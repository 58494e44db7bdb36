package plugtest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/cmd/internal/daemon"
	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

// Version is the version of the format.
const Version = "v1"

// defaultNow is the clock where a file says none.
var defaultNow = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// file is a test file.
type file struct {
	name, full   string
	lines        []string
	plugin, flow string
	// config, function, hosts, lines and envelope are a stage's.
	config    json.RawMessage
	function  string
	hosts     []string
	linesMode string
	envelope  bool
	// files, vars, env, secrets and plugins are for a flow.
	files              []string
	vars, env, secrets map[string]string
	plugins            map[string]string
	now                time.Time
	cases              []*testCase
	secretsAt          flow.Pos // of the key; zero: it is not there
}

// path is a path that the file names.
func (f *file) path(p string) string {
	p = filepath.FromSlash(p)
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(filepath.Dir(f.full), p)
}

// testCase is one case.
type testCase struct {
	name   string
	at     flow.Pos
	node   *flow.Value // its map
	config json.RawMessage
	given  []record.Record
	// single: given is one record, and expect may be its outcome.
	single  bool
	answers map[string][]answer
	// expect has the outcomes of each given record; nil: there is none.
	expect   [][]*want
	requests map[string][]*wantRequest
	after    map[string][]*wantRecord
	// keys are the places of the keys of requests and after, as requests.ID.
	keys map[string]flow.Pos
	// logs are parts of lines, in order; empty: none is logged; nil: any.
	logs     []wantLog
	counters map[string]wantCounter
}

// answer is a partner's to one request, or to several.
type answer struct {
	at      flow.Pos
	status  int
	headers []record.Header
	body    []byte
	fault   string // timeout or connection; "": there is an answer
	times   int
}

type wantLog struct {
	at   flow.Pos
	text string
}

type wantCounter struct {
	at    flow.Pos
	value float64
}

// reader reads a test file and keeps what is wrong with it.
type reader struct {
	*flow.Values
	f *file
}

var (
	fileKeys = []string{"test", "plugin", "flow", "config", "function", "hosts", "lines", "envelope", "files", "vars", "env", "secrets", "plugins", "now", "cases"}
	caseKeys = []string{"name", "config", "given", "answers", "expect", "requests", "after", "logs", "counters"}
	// ofPlugin and ofFlow are the keys of a file and a case that go with one of
	// both alone.
	ofPlugin = []string{"config", "function", "hosts", "lines", "envelope", "logs", "counters"}
	ofFlow   = []string{"files", "vars", "env", "secrets", "plugins", "answers", "requests", "after"}
)

func linesOf(src []byte) []string {
	return strings.Split(strings.ReplaceAll(string(src), "\r\n", "\n"), "\n")
}

// parse reads a test file.
func parse(name, full string, src []byte) (*file, flow.Problems) {
	f := &file{name: name, full: full, lines: linesOf(src), now: defaultNow}
	r := &reader{flow.ReadValues(name, src), f}
	switch {
	case len(r.Problems) > 0:
	case r.Root == nil:
		r.Report(flow.CodeDocument, flow.Pos{Line: 1, Column: 1}, 2, "the file is empty", "begin it with `test: v1`")
	default:
		r.root(r.Root)
	}
	slices.SortStableFunc(r.Problems, func(a, b flow.Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return f, r.Problems
}

// lintError is the error of a file with problems.
func lintError(name string, problems flow.Problems) error {
	e := &cli.Error{Exit: cli.ExitInvalid, Code: cli.CodeLint, Detail: fmt.Sprintf("%s in %s; no test was run", cli.Plural(len(problems), "error"), name), Next: "correct what is said above"}
	for i := range problems {
		p := &problems[i]
		e.Problems = append(e.Problems, api.Problem{Code: string(p.Code), Level: string(p.Level), File: p.File, Line: p.Line, Column: p.Column, Message: p.Message, Help: p.Help, Rendered: p.Render()})
	}
	return e
}

func (r *reader) fail(v *flow.Value, code flow.Code, help, format string, args ...any) {
	r.Report(code, v.Pos, v.End, fmt.Sprintf(format, args...), help)
}

// object checks that v is a map of known keys.
func (r *reader) object(v *flow.Value, what string, known []string) bool {
	if v.Kind != flow.MapValue {
		r.fail(v, flow.CodeType, "its keys are "+strings.Join(known, ", "), "%s is a map, not %s", what, v.Kind)
		return false
	}
	for _, f := range v.Fields {
		if slices.Contains(known, f.Key) {
			continue
		}
		help := "keys here are " + strings.Join(known, ", ")
		if near := expr.Nearest(f.Key, known); near != "" {
			help = "did you mean `" + near + "`?"
		}
		r.Report(flow.CodeKeyUnknown, f.Pos, f.End, "unknown key in "+what, help)
	}
	return true
}

// text is a scalar's text; numbers and booleans are texts too.
func (r *reader) text(v *flow.Value, what string) string {
	switch v.Kind {
	case flow.TextValue, flow.IntValue, flow.FloatValue, flow.BoolValue:
		return v.Text
	}
	r.fail(v, flow.CodeType, "write a text", "%s is a text, not %s", what, v.Kind)
	return ""
}

// texts is a map of texts.
func (r *reader) texts(v *flow.Value, what string) map[string]string {
	if v.Kind != flow.MapValue {
		r.fail(v, flow.CodeType, "write "+what+": { NAME: VALUE }", "%s is a map, not %s", what, v.Kind)
		return nil
	}
	out := map[string]string{}
	for _, f := range v.Fields {
		out[f.Key] = r.text(f.Value, f.Key)
	}
	return out
}

// list is the items of a list; one value is a list of one.
func list(v *flow.Value) []*flow.Value {
	if v.Kind == flow.ListValue {
		return v.Items
	}
	return []*flow.Value{v}
}

func (r *reader) root(v *flow.Value) {
	if v.Kind != flow.MapValue || len(v.Fields) == 0 || v.Fields[0].Key != "test" {
		r.fail(v, flow.CodeDocument, "begin it with `test: v1`", "this is no test file")
		return
	}
	if version := v.Fields[0].Value; version.Text != Version {
		r.fail(version, flow.CodeVersion, "write `test: v1`", "there is no version %q of test files", version.Text)
		return
	}
	if !r.object(v, "the file", fileKeys) {
		return
	}
	f := r.f
	for i := range v.Fields {
		r.fileKey(&v.Fields[i])
	}
	if f.flow != "" && f.plugin != "" {
		k := v.Field("flow")
		r.Report(flow.CodeKeyUnknown, k.Pos, k.End, "the file names a plugin and a flow", "keep one; make a second file for the other")
	}
	r.place(v)
	cases := v.Get("cases")
	if cases == nil {
		r.fail(v, flow.CodeKeyMissing, "add cases: [ { name: ..., given: ..., expect: ... } ]", "the file has no cases")
		return
	}
	if cases.Kind != flow.ListValue {
		r.fail(cases, flow.CodeType, "write `- name: ...` for each", "cases is a list, not %s", cases.Kind)
		return
	}
	if len(cases.Items) == 0 {
		r.fail(cases, flow.CodeKeyMissing, "write `- name: ...` for each", "the file has no cases")
	}
	for _, c := range cases.Items {
		r.testCase(c)
	}
}

// place refuses the keys that do not go with what is tested.
func (r *reader) place(v *flow.Value) {
	wrong, with, other := ofFlow, "a plugin", "a flow"
	if r.f.flow != "" {
		wrong, with, other = ofPlugin, "a flow", "a plugin"
	}
	for _, f := range v.Fields {
		if slices.Contains(wrong, f.Key) {
			r.Report(flow.CodeKeyUnknown, f.Pos, f.End, fmt.Sprintf("%s is for the test of %s, and this tests %s", f.Key, other, with), "remove it")
		}
	}
}

func (r *reader) fileKey(k *flow.ValueField) {
	f, v := r.f, k.Value
	switch k.Key {
	case "plugin":
		f.plugin = r.text(v, "plugin")
	case "flow":
		f.flow = r.text(v, "flow")
	case "config":
		f.config = r.config(v)
	case "function":
		f.function = r.text(v, "function")
	case "hosts":
		for _, h := range list(v) {
			f.hosts = append(f.hosts, r.text(h, "a host"))
		}
	case "lines":
		if f.linesMode = r.text(v, "lines"); f.linesMode != "each" && f.linesMode != "batch" {
			r.fail(v, flow.CodeValue, "write lines: each, or lines: batch", "lines cannot be %q", f.linesMode)
		}
	case "envelope":
		f.envelope = r.boolean(v, "envelope")
	case "files":
		for _, p := range list(v) {
			f.files = append(f.files, r.text(p, "a file"))
		}
	case "vars":
		f.vars = r.texts(v, "vars")
	case "env":
		f.env = r.texts(v, "env")
	case "secrets":
		f.secrets, f.secretsAt = r.texts(v, "secrets"), k.Pos
	case "plugins":
		f.plugins = r.texts(v, "plugins")
	case "now":
		var err error
		if f.now, err = time.Parse(time.RFC3339, r.text(v, "now")); err != nil {
			r.fail(v, flow.CodeValue, "write now: 2026-01-01T00:00:00Z", "now is a time in RFC 3339")
		}
	}
}

func (r *reader) boolean(v *flow.Value, what string) bool {
	if v.Kind != flow.BoolValue {
		r.fail(v, flow.CodeType, "write "+what+": true, or leave it away", "%s is true or false, not %s", what, v.Kind)
	}
	return strings.EqualFold(v.Text, "true")
}

func (r *reader) config(v *flow.Value) json.RawMessage {
	if v.Kind != flow.MapValue {
		r.fail(v, flow.CodeType, "write config: { KEY: VALUE }", "config is a map, not %s", v.Kind)
		return nil
	}
	return r.json(v)
}

func (r *reader) testCase(v *flow.Value) {
	if !r.object(v, "a case", caseKeys) {
		return
	}
	r.place(v)
	c := &testCase{at: v.Pos, node: v, requests: map[string][]*wantRequest{}, after: map[string][]*wantRecord{}, answers: map[string][]answer{}, keys: map[string]flow.Pos{}}
	r.f.cases = append(r.f.cases, c)
	if n := v.Get("name"); n != nil {
		c.name = r.text(n, "name")
	}
	if c.name == "" {
		r.fail(v, flow.CodeKeyMissing, "add name: what it shows", "the case has no name")
	}
	if cfg := v.Get("config"); cfg != nil {
		c.config = r.config(cfg)
	}
	given := v.Get("given")
	if given == nil {
		if slices.ContainsFunc(v.Fields, func(f flow.ValueField) bool { return expr.Nearest(f.Key, caseKeys) == "given" }) {
			return // it is there, under another name
		}
		r.fail(v, flow.CodeKeyMissing, "add given: { value: { ... } }", "the case has no records")
		return
	}
	r.given(c, given)
	r.answers(c, v.Get("answers"))
	if e := v.Get("expect"); e != nil {
		r.expectations(c, e)
	}
	r.exchanges(c, v)
	if logs := v.Get("logs"); logs != nil {
		c.logs = []wantLog{}
		for _, l := range list(logs) {
			c.logs = append(c.logs, wantLog{l.Pos, r.text(l, "a line of log")})
		}
	}
	if counters := v.Get("counters"); counters != nil && r.isMap(counters, "counters") {
		c.counters = map[string]wantCounter{}
		for _, f := range counters.Fields {
			n, err := json.Number(f.Value.Text).Float64()
			if err != nil {
				r.fail(f.Value, flow.CodeType, "write "+f.Key+": 1", "a counter is a number")
			}
			c.counters[f.Key] = wantCounter{f.Pos, n}
		}
	}
}

func (r *reader) isMap(v *flow.Value, what string) bool {
	if v.Kind != flow.MapValue {
		r.fail(v, flow.CodeType, "write "+what+": { NAME: VALUE }", "%s is a map, not %s", what, v.Kind)
	}
	return v.Kind == flow.MapValue
}

// maxGiven is how many records a case may have.
const maxGiven = daemon.MaxTestRecords
