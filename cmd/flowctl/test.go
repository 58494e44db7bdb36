package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/cmd/internal/plugtest"
	"github.com/millrace-io/millrace/cmd/internal/project"
)

// codeTests is the code of tests that fail.
const codeTests = "E_TESTS_FAILED"

// testOptions are the flags of `test`.
type testOptions struct {
	update, noBuild bool
	filter          string
}

func (a *app) testCommand() *cobra.Command {
	var o testOptions
	cmd := &cobra.Command{
		Use: "test [PATH]", Short: "Test a plugin or a flow with the *.test.yaml beside it",
		Long: "Test a plugin or a flow with the files *.test.yaml beside it: records in, what is to come of\n" +
			"them, and what partners answer. Plugins run in the sandbox with the limits of a node, flows in\n" +
			"its engine; nothing is sent and nothing is waited for.\n\n" +
			"PATH is the folder of a plugin project, which is built first (--no-build), any folder with test\n" +
			"files, a test file, or a plugin .wasm with NAME.test.yaml beside it. Without PATH it is the\n" +
			"working folder. A plugin also passes what any plugin must hold, in short; `plugin test` has\n" +
			"the whole of it. The exit code is 4 if something fails.\n\n" +
			"--update writes what came into the expectations that do not hold, and leaves the rest of the\n" +
			"file as it is. A case without expectations gets them this way.",
		Example: a.example("test", "test examples/orders", "test mask.test.yaml --filter cancelled", "test --update", "test build/mask.wasm -o json"),
		Args:    a.args(0, 1, "PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := "."
			if len(args) > 0 {
				path = args[0]
			}
			return a.test(cmd.Context(), path, o)
		},
	}
	cmd.Flags().BoolVar(&o.update, "update", false, "write what came into the expectations that do not hold")
	cmd.Flags().StringVar(&o.filter, "filter", "", "only the cases whose name holds this")
	cmd.Flags().BoolVar(&o.noBuild, "no-build", false, "test what was built before")
	return cmd
}

func (a *app) test(ctx context.Context, path string, o testOptions) error {
	opt, p, err := a.testTargets(path)
	if err != nil {
		return err
	}
	if p != nil && !o.noBuild {
		if _, err := p.Build(ctx, project.BuildOptions{Env: a.environ, Log: a.stderr}); err != nil {
			return err
		}
	}
	opt.Update, opt.Filter, opt.LoadFlow, opt.CacheDir = o.update, o.filter, a.loadTestFlow, compileCache()
	if o.filter != "" {
		opt.Suite = false
	}
	if a.format.Human() {
		opt.OnCase = func(c *plugtest.Case) { a.printCase(c) }
	}
	report, err := plugtest.Run(ctx, opt)
	if err != nil {
		return err
	}
	return a.printTests(path, o, report)
}

// testTargets finds what PATH means: the files, the plugin, and the project
// that is to be built first, nil if none is.
func (a *app) testTargets(path string) (opt plugtest.Options, p *project.Project, err error) {
	full := a.path(path)
	info, err := os.Stat(full)
	if err != nil {
		return opt, nil, a.fileError(path, full, err)
	}
	opt.Dir = a.dir
	dir := filepath.Dir(full)
	switch {
	case info.IsDir():
		dir = full
		if opt.Files, err = plugtest.FilesIn(full); err != nil {
			return opt, nil, a.fileError(path, full, err)
		}
	case filepath.Ext(full) == ".wasm":
		opt.Plugin, opt.Suite = full, true
		name := strings.TrimSuffix(filepath.Base(full), ".wasm")
		for _, folder := range []string{dir, filepath.Dir(dir)} {
			if file := filepath.Join(folder, name+".test.yaml"); isFile(file) {
				opt.Files = []string{file}
				break
			}
		}
		return opt, nil, nil
	case plugtest.IsTest(full):
		opt.Files = []string{full}
	default:
		return opt, nil, cli.Usage("name a folder, a *.test.yaml, or a plugin .wasm", "%s is no test file", path)
	}
	p, err = project.Find(dir)
	if err != nil && cli.AsError(err).Code != project.CodeNoProject {
		return opt, nil, err
	}
	// What only looks like a project is one where something asks for its plugin.
	if p != nil && !p.Recorded && (p.Dir != dir || len(opt.Files) > 0 && !slices.ContainsFunc(opt.Files, plugtest.NamesNone)) {
		p = nil
	}
	switch {
	case p == nil && len(opt.Files) == 0:
		return opt, nil, &cli.Error{Exit: cli.ExitInvalid, Code: cli.CodeFile, Detail: fmt.Sprintf("%s: there is no *.test.yaml in this folder, and it is no plugin project", path),
			Next: fmt.Sprintf("name the folder or the file of a test; `%s new plugin NAME` makes a plugin with one", a.program)}
	case p == nil:
		return opt, nil, nil
	}
	opt.Plugin, opt.Suite = p.WasmPath(), info.IsDir()
	return opt, p, nil
}

// printCase writes a case in a line, and what is wrong with it.
func (a *app) printCase(c *plugtest.Case) {
	word := map[string]string{plugtest.Pass: "ok", plugtest.Fail: "FAIL", plugtest.Updated: "updated"}[c.Outcome]
	fmt.Fprintf(a.stdout, "%-7s %s: %s\n", word, cli.Safe(c.File), cli.Safe(c.Name))
	cut := func(s string) string {
		if s == "" {
			return "(nothing)"
		}
		if s = cli.Safe(s); a.format != cli.Wide {
			s = cli.Shorten(s, shownText)
		}
		return s
	}
	for i := range c.Findings {
		f := &c.Findings[i]
		fmt.Fprintf(a.stdout, "  %s:%d: %s\n", cli.Safe(f.File), f.Line, cli.Safe(f.Path))
		if f.Message != "" {
			fmt.Fprintf(a.stdout, "    %s\n", cli.Safe(f.Message))
		} else {
			fmt.Fprintf(a.stdout, "    want %s\n", cut(f.Want))
		}
		fmt.Fprintf(a.stdout, "    got  %s\n", cut(f.Got))
	}
}

// printTests writes the rest of a report, and makes the error of what failed.
func (a *app) printTests(path string, o testOptions, r *plugtest.Report) error {
	if a.format.Human() {
		a.printSuite(r.Suite)
		line := fmt.Sprintf("%s passed, %d failed", cli.Plural(r.Passed, "case"), r.Failed)
		if r.Updated > 0 {
			line += fmt.Sprintf(", %d updated", r.Updated)
		}
		fmt.Fprintln(a.stderr, line)
	} else {
		view := cli.View[*plugtest.Report]{Name: func(r *plugtest.Report) string { return caseNames(r) }}
		if err := view.One(a.stdout, a.format, r); err != nil {
			return err
		}
	}
	switch {
	case len(r.Cases) == 0 && o.filter != "":
		return cli.Usage("leave --filter out to see all names", "--filter %q: no case of %s has it in its name", o.filter, path)
	case r.OK():
		return nil
	case r.Failed > 0:
		first := r.Cases[slices.IndexFunc(r.Cases, func(c *plugtest.Case) bool { return c.Outcome == plugtest.Fail })]
		e := &cli.Error{Exit: cli.ExitFindings, Code: codeTests, Detail: fmt.Sprintf("%d of %s failed, first %s:%d: %s", r.Failed, cli.Plural(len(r.Cases), "case"), first.File, first.Line, first.Name),
			Next: fmt.Sprintf("mend the plugin or the flow; if what came is right, `%s test %s --update` writes it down", a.program, path)}
		if o.update {
			e.Next = "write these expectations line by line, one key a line, so that --update can change them; answers are changed by hand"
		}
		return e
	}
	return &cli.Error{Exit: cli.ExitFindings, Code: codeChecks, Detail: fmt.Sprintf("%s breaks what any plugin must hold: %s", r.Suite.Plugin, r.Suite.Results[0].Detail),
		Next: fmt.Sprintf("see all of it with `%s plugin test PLUGIN.wasm`", a.program)}
}

// caseNames are the names of the cases, one a line.
func caseNames(r *plugtest.Report) string {
	var names []string
	for _, c := range r.Cases {
		names = append(names, c.File+":"+strconv.Itoa(c.Line))
	}
	return strings.Join(names, "\n")
}

func (a *app) printSuite(s *plugtest.Suite) {
	if s == nil {
		return
	}
	word := "ok"
	if s.Failed > 0 {
		word = "FAIL"
	}
	fmt.Fprintf(a.stdout, "%-7s %s: what any plugin must hold: %d passed, %s, %d failed\n", word, cli.Safe(s.Plugin), s.Passed, cli.Plural(s.Noted, "note"), s.Failed)
	for _, x := range s.Results {
		fmt.Fprintf(a.stdout, "  %s: %s: %s\n", x.Outcome, x.Check, cli.Safe(x.Detail))
		if x.Next != "" {
			fmt.Fprintf(a.stdout, "    next: %s\n", cli.Safe(x.Next))
		}
	}
}
