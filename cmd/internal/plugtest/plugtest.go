// Package plugtest runs the tests that authors write beside their plugins and
// flows, files NAME.test.yaml: records in, what is to come of them, and what
// partners answer. Plugins run in the sandbox with the limits of a node, flows
// in its engine; nothing is sent anywhere and nothing is waited for.
//
// It does not build plugins and does not print: its callers do both.
package plugtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/plugins/plugintest"
	"github.com/millrace-io/millrace/plugins/registry"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/flow"
)

// Options says what is tested. Dir or Files are required.
type Options struct {
	// Dir is where names in reports begin, an absolute path.
	Dir string
	// Files are test files, absolute paths.
	Files []string
	// Plugin is the file of the plugin that is tested where a file names
	// neither plugin nor flow, and by the suite; empty: there is none.
	Plugin string
	// Instead has files to read in place of others, absolute paths: of a build
	// that must not replace the one that the author keeps.
	Instead map[string]string
	// Suite runs the suite of plugintest on Plugin, in its short form.
	Suite bool
	// Filter picks the cases whose name holds it, in any case; empty: all.
	Filter string
	// Update writes what came into the files, where it is not as expected.
	Update bool
	// LoadFlow reads the flow that a test file names. Required for files that
	// name one.
	LoadFlow func(FlowRequest) (*Flow, error)
	// CacheDir keeps compiled plugins; empty: they are compiled each time.
	CacheDir string
	// OnCase gets each case as soon as it has run; may be nil.
	OnCase func(*Case)
}

// FlowRequest is the flow that a test file asks for.
type FlowRequest struct {
	// Path of the flow's file, and of further ones with its connections, all
	// absolute.
	Path  string
	Files []string
	Vars  map[string]string
	Env   map[string]string
	// Plugins are files of plugins that the flow names without a path, by what
	// stands before the @.
	Plugins map[string]string
}

// Flow is a flow that is ready to run.
type Flow struct {
	// Flow is resolved; Connections are those of its folder, by name.
	Flow        *flow.Flow
	Connections map[string]*flow.Connection
	LoadPlugin  func(flow.PluginRef) ([]byte, error)
}

// Outcomes of a Case.
const (
	Pass    = "pass"
	Fail    = "fail"
	Updated = "updated"
)

// Case is what came of one case.
type Case struct {
	// File and Line are its place; File begins at Options.Dir.
	File    string `json:"file"`
	Line    int    `json:"line"`
	Name    string `json:"name"`
	Outcome string `json:"outcome"`
	// Findings are empty unless it failed.
	Findings []Finding `json:"findings,omitempty"`
	// Nanos is how long it ran.
	Nanos int64 `json:"nanos"`
}

// Finding is one difference between what was expected and what came.
type Finding struct {
	// File and Line are the place of the expectation.
	File string `json:"file"`
	Line int    `json:"line"`
	// Path is what differs: expect[0].emit.value.id.
	Path string `json:"path"`
	// Want and Got are texts, JSON where they are values; "" is nothing.
	Want string `json:"want,omitempty"`
	Got  string `json:"got,omitempty"`
	// Message says what is wrong where there are no two sides.
	Message string `json:"message,omitempty"`
}

// Suite is what plugintest found.
type Suite struct {
	Plugin string `json:"plugin"` // name@version
	Passed int    `json:"passed"`
	Noted  int    `json:"noted"`
	Failed int    `json:"failed"`
	// Results are those that did not pass.
	Results []plugintest.Result `json:"results,omitempty"`
}

// Report is what came of all cases.
type Report struct {
	Passed  int     `json:"passed"`
	Failed  int     `json:"failed"`
	Updated int     `json:"updated,omitempty"`
	Suite   *Suite  `json:"suite,omitempty"`
	Cases   []*Case `json:"cases"`
}

// OK reports whether nothing failed.
func (r *Report) OK() bool { return r.Failed == 0 && (r.Suite == nil || r.Suite.Failed == 0) }

// Run runs the cases. What a plugin or a flow does wrong stands in the report;
// the error, a *cli.Error where its user can do something, is about files that
// cannot be read and plugins that do not start.
func Run(ctx context.Context, o Options) (report *Report, err error) {
	r := &runner{Options: o, ctx: ctx, report: &Report{Cases: []*Case{}}, modules: map[string]registry.Module{}}
	var files []*file
	for _, path := range o.Files {
		f, err := r.read(path)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	rt, err := sandbox.New(ctx, sandbox.Config{CacheDir: o.CacheDir, Workers: 1})
	if err != nil {
		return nil, err
	}
	late := context.WithoutCancel(ctx)
	defer func() { err = errors.Join(err, rt.Close(late)) }()
	r.host = registry.NewHost(rt)
	defer func() { err = errors.Join(err, r.host.Close(late)) }()
	defer func() {
		for _, m := range r.modules {
			err = errors.Join(err, m.Close(late))
		}
	}()
	for _, f := range files {
		if err := r.file(f); err != nil {
			return nil, err
		}
	}
	if o.Suite && o.Plugin != "" {
		if err := r.suite(); err != nil {
			return nil, err
		}
	}
	return r.report, ctx.Err()
}

// runner is one call of Run.
type runner struct {
	Options
	ctx     context.Context // of the call
	report  *Report
	host    *registry.Host
	modules map[string]registry.Module // by path and mode
	// tested is the first file that tests Options.Plugin; nil: none does.
	tested *file
}

// name is a path as reports have it.
func (r *runner) name(path string) string {
	if rel, err := filepath.Rel(r.Dir, path); err == nil && !strings.HasPrefix(rel, "..") {
		path = rel
	}
	return filepath.ToSlash(path)
}

func (r *runner) read(path string) (*file, error) {
	name := r.name(path)
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, &cli.Error{Exit: cli.ExitInvalid, Code: cli.CodeFile, Detail: fmt.Sprintf("%s: %v", name, pathless(err)), Next: "correct the path", Err: err}
	}
	f, problems := parse(name, path, src)
	if len(problems) > 0 {
		return nil, lintError(name, problems)
	}
	return f, nil
}

// pathless is the cause of an error without the path that the message names.
func pathless(err error) error {
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return e.Err
	}
	return err
}

// file runs the cases of a file.
func (r *runner) file(f *file) error {
	run, err := r.tester(f)
	if err != nil {
		return err
	}
	var edits []edit
	for _, c := range f.cases {
		if r.Filter != "" && !strings.Contains(strings.ToLower(c.name), strings.ToLower(r.Filter)) {
			continue
		}
		start := time.Now()
		res, err := run(c)
		if err != nil {
			return err
		}
		out := &Case{File: f.name, Line: c.at.Line, Name: c.name, Outcome: Pass, Findings: res.findings, Nanos: time.Since(start).Nanoseconds()}
		switch {
		case len(res.findings) == 0:
			r.report.Passed++
		case r.Update && len(res.left) == 0:
			edits = append(edits, res.edits...)
			out.Outcome, out.Findings = Updated, nil
			r.report.Updated++
		default:
			if r.Update {
				edits, out.Findings = append(edits, res.edits...), res.left
			}
			out.Outcome = Fail
			r.report.Failed++
		}
		for i := range out.Findings {
			out.Findings[i].File = f.name
		}
		r.report.Cases = append(r.report.Cases, out)
		if r.OnCase != nil {
			r.OnCase(out)
		}
	}
	return f.rewrite(edits)
}

// result is what came of running a case, and how its expectations would have to
// be written.
type result struct {
	findings []Finding
	edits    []edit
	left     []Finding // those that no edit mends
}

// tester is what runs the cases of a file.
func (r *runner) tester(f *file) (func(*testCase) (*result, error), error) {
	if f.flow != "" {
		if r.LoadFlow == nil {
			return nil, errors.New("plugtest: no LoadFlow")
		}
		return r.flowTester(f)
	}
	path := r.Plugin
	switch {
	case f.plugin != "":
		path = f.path(f.plugin)
	case path == "":
		return nil, &cli.Error{Exit: cli.ExitInvalid, Code: cli.CodePlugin, Detail: f.name + ": it names neither a plugin nor a flow, and does not stand in a plugin project",
			Next: "add `plugin: ./NAME.wasm`, or `flow: ./flow.yaml`"}
	}
	return r.pluginTester(f, path)
}

// module compiles a plugin, once for each way to call it.
func (r *runner) module(path, function string) (registry.Module, error) {
	key := path + "\x00" + function
	if m := r.modules[key]; m != nil {
		return m, nil
	}
	wasm, err := os.ReadFile(cmp.Or(r.Instead[path], path))
	if err != nil {
		next := "correct the path"
		if strings.Contains(filepath.ToSlash(path), "/build/") {
			next = "build it: `flowctl build`"
		}
		return nil, &cli.Error{Exit: cli.ExitInvalid, Code: cli.CodePlugin, Detail: fmt.Sprintf("%s: %v", r.name(path), pathless(err)), Next: next, Err: err}
	}
	m, err := r.host.Compile(r.ctx, wasm, registry.Mode(function))
	if err != nil {
		e := &cli.Error{Exit: cli.ExitInvalid, Code: api.CodeRefused, Detail: fmt.Sprintf("%s: %v", r.name(path), err), Err: err}
		if refused, ok := errors.AsType[*sandbox.RefusedError](err); ok {
			e.Next = refused.Advice
			e.Detail = strings.TrimSuffix(e.Detail, "; "+refused.Advice)
		}
		return nil, e
	}
	r.modules[key] = m
	return m, nil
}

// suite runs the suite for any plugin, so short that it can run at each save.
func (r *runner) suite() error {
	f := r.tested
	if f == nil {
		f = &file{}
	}
	m, err := r.module(r.Plugin, f.function)
	if err != nil {
		return err
	}
	named := m.Info().Named(filepath.Base(r.Plugin))
	s := &Suite{Plugin: named.Name + "@" + named.Version}
	cfg := f.stageConfig(nil)
	cfg.Plugin = s.Plugin
	report, err := plugintest.Check(r.ctx, plugintest.Of(m.Info(), m.NewStage), plugintest.Options{
		Stage: cfg, Bulk: 1000, Patience: 200 * time.Millisecond, Only: []string{"batch", "input", "same answers", "split", "fuel"}})
	if err != nil {
		return fmt.Errorf("test %s: %w", r.name(r.Plugin), err)
	}
	s.Passed, s.Noted, s.Failed = report.Count(plugintest.Pass), report.Count(plugintest.Note), report.Count(plugintest.Fail)
	s.Results = slices.DeleteFunc(report.Results, func(x plugintest.Result) bool { return x.Outcome == plugintest.Pass })
	r.report.Suite = s
	return nil
}
