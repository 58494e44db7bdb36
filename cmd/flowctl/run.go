package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/cmd/internal/daemon"
	"github.com/millrace-io/millrace/plugins/extism"
	"github.com/millrace-io/millrace/plugins/manifest"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

// runOptions are the flags of `run`.
type runOptions struct {
	in, out, failures string
	envelope          bool
	with              string
	function          string
	hosts             []string
	lines             string
	fuel              int64
	vars              []string
	files             []string
	secrets           string
}

// runCounts is what became of the records, for machines.
type runCounts struct {
	In      int64 `json:"in"`
	Emitted int64 `json:"emitted"`
	Dropped int64 `json:"dropped"`
	Failed  int64 `json:"failed"`
}

func (a *app) runCommand() *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use: "run PLUGIN.wasm|FLOW.yaml", Short: "Run a plugin or a flow here, without a node",
		Long: "Run a plugin or a flow here, without a node, in the sandbox and with the engine of one.\n" +
			"Records come from STDIN, one a line, and go to STDOUT; the counts go to STDERR. In a flow\n" +
			"that is what `source: {stream: {}}` and `push: {stream: {}}` mean; other sources and\n" +
			"deliveries are real. Connections are looked for in the flow's file and those of -f. The\n" +
			"exit code is 4 if a record failed.\n\n" +
			"With --envelope each line, on STDIN and on STDOUT, is one whole record as a JSON object:\n" +
			"  {\"key\":\"k\",\"value\":\"v\",\"headers\":[{\"key\":\"a\",\"value\":\"1\"}],\"topic\":\"t\",\"partition\":0,\"offset\":7,\"timestamp\":1764547200000}\n" +
			"A missing key or value is null, a missing timestamp is now; topic, partition and offset are\n" +
			"not read; an unknown field ends the run. Bytes that are not UTF-8 are {\"base64\":\"...\"}; a\n" +
			"value that is no string is taken as its JSON text. A plugin that exports stage_batch gets\n" +
			"the record of it; a program of lines that is run alone gets the whole object on its STDIN,\n" +
			"and writes such objects.\n\n" +
			"An Extism plugin is called by the export that --function names, with the value of each\n" +
			"record; what it answers is the new value, nothing drops the record, an error fails it. It\n" +
			"reaches the hosts of --host alone.",
		Example: a.example("run upper.wasm < records.txt", "run order-mask.wasm --with '{\"fields\":[\"email\"]}' --in orders.ndjson --out masked.ndjson",
			"run upper.wasm --envelope < envelopes.ndjson", "run count_vowels.wasm --function count_vowels < words.txt",
			"run lines.wasm --lines batch --fuel 5000000 < records.txt",
			"run flow.yaml --failures failures.ndjson < orders.ndjson"),
		Args: a.args(1, 1, "PLUGIN.wasm or FLOW.yaml"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.runLocal(cmd, args[0], o) },
	}
	cmd.Flags().StringVar(&o.in, "in", "", "read records from this file instead of STDIN")
	cmd.Flags().StringVar(&o.out, "out", "", "write records to this file instead of STDOUT")
	cmd.Flags().StringVar(&o.failures, "failures", "", "write records that failed to this file, one JSON object a line")
	cmd.Flags().BoolVar(&o.envelope, "envelope", false, "lines are JSON objects with key, value and headers, in and out")
	cmd.Flags().StringVar(&o.with, "with", "", "configuration of the plugin, a JSON object or a file with one")
	cmd.Flags().StringVar(&o.lines, "lines", "", "how to run a program of lines: each record in a fresh instance, or batch after batch (default: as its manifest says, else each)")
	cmd.Flags().Int64Var(&o.fuel, "fuel", 0, "units of fuel that the plugin may use for a record (default: as its manifest says, else that of nodes)")
	cmd.Flags().StringVar(&o.function, "function", "", "export to call with each record, of an Extism plugin")
	cmd.Flags().StringArrayVar(&o.hosts, "host", nil, "host that an Extism plugin may reach by HTTP, * stands for any part; may be repeated")
	cmd.Flags().StringArrayVar(&o.vars, "var", nil, "NAME=VALUE overrides a var of the flow; may be repeated")
	cmd.Flags().StringArrayVarP(&o.files, "file", "f", nil, "further documents with the flow's connections; may be repeated")
	cmd.Flags().StringVar(&o.secrets, "secrets", "secrets", "folder that holds the secrets that connections name")
	return cmd
}

func (a *app) runLocal(cmd *cobra.Command, path string, o runOptions) (err error) {
	if o.fuel < 0 {
		return cli.Usage("give a number from 1", "--fuel %d", o.fuel)
	}
	l := daemon.Local{EnvelopeIO: o.envelope, Secrets: a.path(o.secrets), CacheDir: compileCache(),
		Logger:      slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		GuestLogger: slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelInfo, ReplaceAttr: withoutTime}))}
	if ext := filepath.Ext(path); ext == ".yaml" || ext == ".yml" {
		err = a.localFlow(&l, path, o)
	} else {
		err = a.localPlugin(&l, path, o)
	}
	if err != nil {
		return err
	}

	if err := a.distinct(o); err != nil {
		return err
	}
	var closers []func() error
	defer func() {
		for _, c := range closers {
			err = errors.Join(err, c())
		}
	}()
	l.In = a.stdin
	if o.in != "" {
		f, err := os.Open(a.path(o.in))
		if err != nil {
			return a.fileError(o.in, a.path(o.in), err)
		}
		defer f.Close()
		l.In = f
	}
	l.Out = a.stdout
	if o.out != "" {
		f, err := a.create(o.out, &closers)
		if err != nil {
			return err
		}
		l.Out = f
	}
	if o.failures != "" {
		f, err := a.create(o.failures, &closers)
		if err != nil {
			return err
		}
		l.Failures = writeEntries(f)
	} else {
		l.Failures = a.tellFirst()
	}
	counts, err := daemon.RunLocal(cmd.Context(), l)
	a.printCounts(runCounts(counts))
	if err != nil {
		return runError(cmd.Context(), path, err)
	}
	if counts.Failed > 0 {
		next := fmt.Sprintf("add --failures failures.ndjson to see all of them, and to run them again with `%s replay failures.ndjson`", a.program)
		if o.failures != "" {
			next = fmt.Sprintf("look into %s; `%s replay %s` runs them again", o.failures, a.program, o.failures)
		}
		return &cli.Error{Exit: cli.ExitFindings, Code: cli.CodeRecords, Detail: fmt.Sprintf("%s of %d failed", cli.Plural(counts.Failed, "record"), counts.In), Next: next}
	}
	return nil
}

// withoutTime leaves the time out of a line of log.
func withoutTime(groups []string, attr slog.Attr) slog.Attr {
	if len(groups) == 0 && attr.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return attr
}

// distinct refuses to write over what is read, or twice over the same file.
func (a *app) distinct(o runOptions) error {
	named := []struct{ flag, path string }{{"--in", o.in}, {"--out", o.out}, {"--failures", o.failures}}
	for i, x := range named {
		for _, y := range named[:i] {
			if x.path == "" || y.path == "" {
				continue
			}
			same := a.path(x.path) == a.path(y.path)
			if xi, err := os.Stat(a.path(x.path)); err == nil && !same {
				yi, err := os.Stat(a.path(y.path))
				same = err == nil && os.SameFile(xi, yi) && xi.Mode().IsRegular()
			}
			if same && x.path != os.DevNull {
				return cli.Usage("name another file", "%s and %s are the same file, %s", y.flag, x.flag, x.path)
			}
		}
	}
	return nil
}

// runError is the error of a run that ended before its source did.
func runError(ctx context.Context, path string, err error) error {
	if ctx.Err() != nil {
		return err
	}
	next := "correct the configuration: `with:` of the stage in a flow, --with for a plugin"
	if e, ok := errors.AsType[*record.Error](err); ok && e.Class == record.Config {
		return &cli.Error{Exit: cli.ExitInvalid, Code: "E_CONFIG", Detail: fmt.Sprintf("run %s: %v", path, err), Next: "correct what it names: the input, the flow or a connection", Err: err}
	}
	if e, ok := errors.AsType[*manifest.ConfigError](err); ok {
		return &cli.Error{Exit: cli.ExitInvalid, Code: string(flow.CodePluginConfig), Detail: fmt.Sprintf("run %s: %v", path, e), Next: next, Err: err}
	}
	if e, ok := errors.AsType[*sandbox.RefusedError](err); ok {
		return &cli.Error{Exit: cli.ExitInvalid, Code: api.CodeRefused, Detail: fmt.Sprintf("run %s: %s", path, strings.TrimSuffix(err.Error(), "; "+e.Advice)), Next: e.Advice, Err: err}
	}
	if e, ok := errors.AsType[*sandbox.InitError](err); ok {
		known := &cli.Error{Exit: cli.ExitInvalid, Code: string(flow.CodePluginConfig), Detail: fmt.Sprintf("run %s: %v", path, e), Next: next, Err: err}
		if e.Export != "stage_init" { // it has not seen its configuration
			known.Code, known.Next = api.CodeRefused, "mend what the plugin does when it starts"
		}
		return known
	}
	if e, ok := errors.AsType[*daemon.StageError](err); ok {
		return &cli.Error{Exit: cli.ExitInvalid, Code: api.CodeRefused, Detail: fmt.Sprintf("run %s: %v", path, e), Next: "correct what it names in the stage, or mend the plugin", Err: err}
	}
	return fmt.Errorf("run %s: %w", path, err)
}

// localPlugin is the form with one plugin between STDIN and STDOUT.
func (a *app) localPlugin(l *daemon.Local, path string, o runOptions) error {
	if len(o.vars) > 0 || len(o.files) > 0 {
		return cli.Usage("leave them out, or run a flow", "--var and -f go with a flow, and %s is a plugin", path)
	}
	with, err := a.pluginConfig(o.with)
	if err != nil {
		return err
	}
	l.With = json.RawMessage(with)
	wasm, info, err := a.readPlugin(path)
	if wasm != nil && o.function != "" {
		if info, err = sandbox.InspectAs(wasm, manifest.ModeExtism); err == nil {
			err = info.Err()
		}
		err = refused(path, err)
	}
	if err != nil {
		return err
	}
	if err := checkFunction(path, info, &o); err != nil {
		return err
	}
	switch {
	case o.lines == "":
	case info.Mode != manifest.ModeLines:
		return cli.Usage("leave it out", "--lines goes with a program of lines, and %s is none", path)
	case o.lines != "each" && o.lines != "batch":
		return cli.Usage("write --lines each, or --lines batch", "--lines %q", o.lines)
	}
	l.Function, l.Hosts, l.Lines, l.Fuel = o.function, o.hosts, o.lines, o.fuel
	l.Plugin, l.PluginWasm = filepath.Base(path), wasm
	l.PluginFile = func(flow.PluginRef) string { return a.path(path) }
	// A program gets the very lines that come in.
	l.Envelope = o.envelope && info.Mode == manifest.ModeLines
	return nil
}

// checkFunction holds --function and --host against what a plugin is.
func checkFunction(path string, info *sandbox.Info, o *runOptions) error {
	if info.Mode != manifest.ModeExtism {
		if len(o.hosts) > 0 {
			return cli.Usage("leave it out", "--host goes with an Extism plugin, and %s is none", path)
		}
		return nil
	}
	if err := extism.CheckHosts(o.hosts); err != nil {
		return cli.Usage("correct --host", "%v", err)
	}
	name, choose := o.function, "its functions: "+strings.Join(info.Callable, ", ")
	if name == "" && info.Manifest != nil {
		name = info.Manifest.Function
	}
	switch {
	case name == "":
		return cli.Usage("say which with --function; "+choose, "%s is an Extism plugin: one of its functions is called with each record", path)
	case !slices.Contains(info.Callable, name):
		if near := cli.Nearest(name, info.Callable); near != "" {
			choose = "did you mean " + near + "? " + choose
		}
		return &cli.Error{Exit: cli.ExitInvalid, Code: string(flow.CodePluginFunction), Detail: fmt.Sprintf("%s has no function %s that can be called with a record", path, name), Next: choose}
	}
	return nil
}

// localFlow is the form with a flow's document.
func (a *app) localFlow(l *daemon.Local, path string, o runOptions) error {
	if o.with != "" {
		return cli.Usage("set `with:` in the flow", "--with goes with a plugin, and %s is a flow", path)
	}
	if o.function != "" || len(o.hosts) > 0 {
		return cli.Usage("set `function:` and `hosts:` of the stage in the flow", "--function and --host go with a plugin, and %s is a flow", path)
	}
	if o.lines != "" || o.fuel != 0 {
		return cli.Usage("set `lines:` and `limits: { fuel }` of the stage in the flow", "--lines and --fuel go with a plugin, and %s is a flow", path)
	}
	vars, err := parseVars(o.vars)
	if err != nil {
		return err
	}
	b, err := a.load(append([]string{path}, o.files...))
	if err != nil {
		return err
	}
	b.strict()
	if err := b.invalid(b.problems); err != nil {
		return err
	}
	var main *loaded
	l.Connections = map[string]*flow.Connection{}
	for i := range b.docs {
		d := &b.docs[i]
		in := flow.Inputs{Env: func(name string) (string, bool) { v := a.getenv(name); return v, v != "" }}
		if d.Flow != nil {
			if main != nil {
				return cli.Usage("put each flow into a file of its own", "%s:%d: a second flow; only one can run at a time", d.File, d.Line)
			}
			main, in.Vars = d, vars
		}
		doc, problems := flow.Resolve(d.Document, in, flow.Options{Resolver: b.resolver(d.dir)})
		if err := b.invalid(problems); err != nil {
			return err
		}
		d.Document = doc
		if doc.Connection != nil {
			l.Connections[doc.Connection.Name] = doc.Connection
		}
	}
	if main == nil {
		return cli.Usage("name the file of a flow (flow: v1)", "%s holds no flow", path)
	}
	l.Flow = main.Flow
	switch {
	case o.in != "" && l.Flow.Source.Stream == nil:
		return cli.Usage("write `source: {stream: {}}` to read records from STDIN or --in", "--in: the flow reads from %s", l.Flow.Source.Kind())
	case o.out != "" && l.Flow.Delivery.Stream == nil:
		return cli.Usage("write `push: {stream: {}}` to write records to STDOUT or --out", "--out: the flow does `%s`", l.Flow.Delivery.Describe())
	}
	dir := main.dir
	l.LoadPlugin = func(ref flow.PluginRef) ([]byte, error) { return os.ReadFile(pluginPath(dir, ref.Path)) }
	l.PluginFile = func(ref flow.PluginRef) string { return a.path(pluginPath(dir, ref.Path)) }
	return nil
}

// strict makes errors of what only a node can know: here is none.
func (b *bundle) strict() {
	for i := range b.problems {
		if p := &b.problems[i]; nodeKnows(*p) {
			p.Level = flow.LevelError
			if p.Code == flow.CodePluginNotFound {
				p.Message, p.Help = strings.SplitN(p.Message, ":", 2)[0], "name the plugin's file: `map: ./plugin.wasm`"
			} else {
				p.Help = "name its file too: -f connections.yaml"
			}
		}
	}
}

// create makes a file whose buffer is flushed by the closer that is added.
func (a *app) create(path string, closers *[]func() error) (io.Writer, error) {
	f, err := os.Create(a.path(path))
	if err != nil {
		return nil, a.outputError(path, a.path(path), err)
	}
	w := bufio.NewWriter(f)
	*closers = append(*closers, func() error { return errors.Join(w.Flush(), f.Close()) })
	return w, nil
}

// writeEntries writes failure entries, one a line.
func writeEntries(w io.Writer) func(*record.Entry) error {
	return func(e *record.Entry) error {
		b, err := e.MarshalJSON()
		if err != nil {
			return err
		}
		_, err = w.Write(append(b, '\n'))
		return err
	}
}

// failuresTold is how many failures are told on STDERR when no file takes them.
const failuresTold = 3

// tellFirst says the first failures on STDERR.
func (a *app) tellFirst() func(*record.Entry) error {
	told := 0
	return func(e *record.Entry) error {
		if told++; told <= failuresTold {
			fmt.Fprintf(a.stderr, "%s failed in stage %s: %s: %s\n", e.ID(), e.Stage, e.Class, cli.Safe(e.Message))
		}
		return nil
	}
}

// printCounts writes the counts to STDERR: STDOUT is for records.
func (a *app) printCounts(c runCounts) {
	if !a.format.Human() {
		_ = cli.Value(a.stderr, cli.NDJSON, c)
		return
	}
	fmt.Fprintf(a.stderr, "%d in, %d emitted, %d dropped, %d failed\n", c.In, c.Emitted, c.Dropped, c.Failed)
}
