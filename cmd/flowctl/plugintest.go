package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/pdk"
	"github.com/millrace-io/millrace/plugins/manifest"
	"github.com/millrace-io/millrace/plugins/plugintest"
	"github.com/millrace-io/millrace/plugins/registry"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

// codeChecks is the code of a plugin that does not pass its test.
const codeChecks = "E_CHECKS_FAILED"

// maxTestLine bounds a line of --input.
const maxTestLine = 64 << 20

// pluginTestOptions are the flags of `plugin test`.
type pluginTestOptions struct {
	with, input, lines, vectors string
	function                    string
	hosts                       []string
	envelope                    bool
	batch                       int
}

// testReport is the report of a test, as it is printed.
type testReport struct {
	Plugin string `json:"plugin"` // name@version
	Passed int    `json:"passed"`
	Noted  int    `json:"noted"`
	Failed int    `json:"failed"`
	*plugintest.Report
}

func (a *app) pluginTest() *cobra.Command {
	var o pluginTestOptions
	cmd := &cobra.Command{
		Use: "test PLUGIN.wasm", Short: "Test what any plugin must hold, whatever it does",
		Long: "Test what any plugin must hold, whatever it does: that it starts, answers each record of\n" +
			"batches of 0 to 10,000 (--batch), survives unusual records, gives the same answers, logs and fuel\n" +
			"whenever the same batch is run, and stays within its memory and fuel. The records are\n" +
			"those of --input, one a line, else the sample of its manifest, else made up. What fails\n" +
			"breaks a rule; a note is for its author to know. The exit code is 4 if something fails.\n\n" +
			"A guest of the conformance protocol (the name in its manifest is conformance, or ends in\n" +
			"-conformance) must give the answers of the golden vectors too; --vectors names a folder\n" +
			"with others.",
		Example: a.example("plugin test order-mask.wasm --with '{\"fields\":[\"email\"]}'", "plugin test order-mask.wasm --input orders.ndjson -o json",
			"plugin test count_vowels.wasm --function count_vowels"),
		Args: a.args(1, 1, "PLUGIN.wasm"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.testPlugin(cmd.Context(), args[0], o) },
	}
	cmd.Flags().StringVar(&o.with, "with", "", "configuration of the plugin, a JSON object or a file with one")
	cmd.Flags().StringVar(&o.input, "input", "", "file with the records to test with, one a line")
	cmd.Flags().BoolVar(&o.envelope, "envelope", false, "lines of --input are whole records; a program of lines gets and writes such")
	cmd.Flags().StringVar(&o.lines, "lines", "", "how to run a program of lines: each or batch")
	cmd.Flags().StringVar(&o.function, "function", "", "export to call with each record, of an Extism plugin")
	cmd.Flags().StringArrayVar(&o.hosts, "host", nil, "host that an Extism plugin may reach by HTTP; may be repeated")
	cmd.Flags().IntVar(&o.batch, "batch", 10_000, "records of the longest batch")
	cmd.Flags().StringVar(&o.vectors, "vectors", "", "folder with golden vectors for a guest of the conformance protocol")
	return cmd
}

func (a *app) testPlugin(ctx context.Context, path string, o pluginTestOptions) (err error) {
	wasm, info, err := a.readPluginAs(path, registry.Mode(o.function))
	if err != nil {
		return err
	}
	if err := checkFunction(path, info, &runOptions{function: o.function, hosts: o.hosts}); err != nil {
		return err
	}
	m := info.Named(filepath.Base(path))
	report := testReport{Plugin: m.Name + "@" + m.Version}
	if o.batch < 1 {
		return cli.Usage("give 1 or more", "--batch %d: a batch has records", o.batch)
	}
	opt := plugintest.Options{Bulk: o.batch, Stage: sandbox.StageConfig{
		Flow: "test/test", Stage: "test", Plugin: report.Plugin, Function: o.function, Hosts: o.hosts, Lines: o.lines,
		Envelope: o.envelope && info.Mode == manifest.ModeLines,
	}}
	with, err := a.pluginConfig(o.with)
	if err != nil {
		return err
	}
	opt.Stage.Config = json.RawMessage(with)
	if opt.Records, err = a.testRecords(o); err != nil {
		return err
	}
	if opt.Vectors, err = a.testVectors(m.Name, o.vectors); err != nil {
		return err
	}

	rt, err := sandbox.New(ctx, sandbox.Config{CacheDir: pluginCache(), Workers: 1})
	if err != nil {
		return err
	}
	late := context.WithoutCancel(ctx)
	defer func() { err = errors.Join(err, rt.Close(late)) }()
	host := registry.NewHost(rt)
	defer func() { err = errors.Join(err, host.Close(late)) }()
	mod, err := host.Compile(ctx, wasm, registry.Mode(o.function))
	if err != nil {
		return refused(path, err)
	}
	defer func() { err = errors.Join(err, mod.Close(late)) }()
	if report.Report, err = plugintest.Check(ctx, plugintest.Of(info, mod.NewStage), opt); err != nil {
		return fmt.Errorf("test %s: %w", path, err)
	}
	return a.printTest(path, &report)
}

// pluginCache is the folder of compiled plugins; empty if there is none.
func pluginCache() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "millrace", "wazero")
}

func (a *app) printTest(path string, r *testReport) error {
	r.Passed, r.Noted, r.Failed = r.Count(plugintest.Pass), r.Count(plugintest.Note), r.Count(plugintest.Fail)
	view := cli.View[*testReport]{Name: func(r *testReport) string { return r.Plugin }, Detail: testDetail}
	if err := view.One(a.stdout, a.format, r); err != nil {
		return err
	}
	if a.format.Human() {
		fmt.Fprintf(a.stderr, "%s: %d passed, %s, %d failed\n", r.Plugin, r.Passed, cli.Plural(r.Noted, "note"), r.Failed)
	}
	if r.Failed == 0 {
		return nil
	}
	e := &cli.Error{Exit: cli.ExitFindings, Code: codeChecks}
	for _, x := range r.Results {
		if x.Outcome == plugintest.Fail {
			e.Detail, e.Next = fmt.Sprintf("%s: %s: %s", path, x.Check, x.Detail), x.Next
			if r.Failed > 1 {
				e.Detail += fmt.Sprintf(" (and %s more)", cli.Plural(r.Failed-1, "check"))
			}
			return e
		}
	}
	return nil
}

func testDetail(w io.Writer, _ cli.Format, r *testReport) error {
	var rows [][]string
	for _, x := range r.Results {
		rows = append(rows, []string{x.Check, string(x.Outcome), x.Detail})
		if x.Outcome != plugintest.Pass && x.Next != "" {
			rows = append(rows, []string{" ", " ", "next: " + x.Next})
		}
	}
	return cli.Grid(w, []string{"CHECK", "OUTCOME", "DETAIL"}, rows)
}

// testRecords are the records of --input.
func (a *app) testRecords(o pluginTestOptions) ([]record.Record, error) {
	if o.input == "" {
		return nil, nil
	}
	f, err := os.Open(a.path(o.input))
	if err != nil {
		return nil, a.fileError(o.input, a.path(o.input), err)
	}
	defer f.Close()
	var records []record.Record
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxTestLine)
	for n := 1; lines.Scan(); n++ {
		line := bytes.Clone(lines.Bytes())
		r := record.Record{Value: line, Attempt: 1, To: -1}
		if line == nil {
			r.Value = []byte{}
		}
		if o.envelope {
			if r, err = record.ParseEnvelope(line); err != nil {
				return nil, &cli.Error{Exit: cli.ExitInvalid, Code: cli.CodeFile, Detail: fmt.Sprintf("%s:%d: %v", o.input, n, err),
					Next: `write whole records, as {"key":"k","value":"v"}, or leave --envelope away`, Err: err}
			}
		}
		records = append(records, r)
	}
	if err := lines.Err(); err != nil {
		return nil, a.fileError(o.input, a.path(o.input), err)
	}
	if len(records) == 0 {
		return nil, &cli.Error{Exit: cli.ExitInvalid, Code: cli.CodeFile, Detail: o.input + ": there is no record in it", Next: "write one record a line"}
	}
	return records, nil
}

// testVectors are those of a folder, or ours for a guest of that name.
func (a *app) testVectors(name, folder string) ([]plugintest.Vector, error) {
	var from fs.FS
	switch {
	case folder != "":
		from = os.DirFS(a.path(folder))
	case isConformance(name):
		from = pdk.Vectors()
	default:
		return nil, nil
	}
	v, err := plugintest.LoadVectors(from)
	if err != nil {
		return nil, &cli.Error{Exit: cli.ExitInvalid, Code: cli.CodeFile, Detail: fmt.Sprintf("--vectors %s: %v", folder, err), Next: "name a folder with vectors, .json files in the form millrace-vectors/1", Err: err}
	}
	return v, nil
}

// isConformance tells a guest of the conformance protocol by its name.
func isConformance(name string) bool {
	_, base, found := strings.Cut(name, "/")
	if !found {
		base = name
	}
	return base == "conformance" || strings.HasSuffix(base, "-conformance")
}
