package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/cmd/internal/plugtest"
	"github.com/millrace-io/millrace/cmd/internal/project"
	"github.com/millrace-io/millrace/plugins/registry"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

// benchOptions are the flags of `bench`.
type benchOptions struct {
	in, with, lines, function string
	time                      time.Duration
	noBuild                   bool
}

func (a *app) benchCommand() *cobra.Command {
	o := benchOptions{}
	cmd := &cobra.Command{
		Use: "bench [PATH]", Short: "Measure a plugin: time, fuel and memory a record",
		Long: "Measure a plugin: the time and fuel a record, in batches of 128 and of 1, beside a filter that\n" +
			"keeps everything, turn by turn in the same run; medians of 10 rounds, on one core. The last\n" +
			"line says what takes the most time.\n\n" +
			"PATH is the folder of a plugin project, which is built first as it is deployed (--no-build), or a\n" +
			"plugin .wasm; without PATH it is the working folder. The records are those of --in, one a line,\n" +
			"else those of testdata/in.ndjson beside the plugin, else the sample of its manifest. The\n" +
			"configuration is --with, else that of NAME.test.yaml.",
		Example: a.example("bench", "bench build/mask.wasm --in orders.ndjson", "bench examples/orders/orders.wasm --time 5s -o json"),
		Args:    a.args(0, 1, "PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := "."
			if len(args) > 0 {
				path = args[0]
			}
			return a.bench(cmd.Context(), path, o)
		},
	}
	cmd.Flags().StringVar(&o.in, "in", "", "file with the records, one a line")
	cmd.Flags().StringVar(&o.with, "with", "", "configuration of the plugin, a JSON object or a file with one")
	cmd.Flags().StringVar(&o.lines, "lines", "", "how to run a program of lines: each or batch")
	cmd.Flags().StringVar(&o.function, "function", "", "export to call with each record, of an Extism plugin")
	cmd.Flags().DurationVar(&o.time, "time", 2*time.Second, "how long to measure")
	cmd.Flags().BoolVar(&o.noBuild, "no-build", false, "measure what was built before")
	return cmd
}

// benchTimes bound --time.
const leastBench, mostBench = 50 * time.Millisecond, 10 * time.Minute

func (a *app) bench(ctx context.Context, path string, o benchOptions) error {
	if o.time < leastBench || o.time > mostBench {
		return cli.Usage(fmt.Sprintf("give a time from %s to %s", leastBench, mostBench), "--time %s", o.time)
	}
	wasmPath, dir, err := a.benchTarget(ctx, path, o)
	if err != nil {
		return err
	}
	wasm, info, err := a.readPluginAs(wasmPath, registry.Mode(o.function))
	if err != nil {
		return err
	}
	if err := checkFunction(wasmPath, info, &runOptions{function: o.function}); err != nil {
		return err
	}
	with, err := a.pluginConfig(o.with)
	if err != nil {
		return err
	}
	name := strings.TrimSuffix(filepath.Base(wasmPath), ".wasm")
	config := json.RawMessage(with)
	if config == nil {
		config = plugtest.ConfigIn(filepath.Join(dir, name+".test.yaml"))
	}
	records, from, err := a.benchRecords(dir, o.in, info)
	if err != nil {
		return err
	}
	report, err := plugtest.Bench(ctx, plugtest.BenchOptions{Wasm: wasm, Records: records, Time: o.time, CacheDir: compileCache(),
		Stage: sandbox.StageConfig{Plugin: name, Config: config, Function: o.function, Lines: o.lines}})
	if err != nil {
		return runError(ctx, wasmPath, err)
	}
	named := info.Named(filepath.Base(wasmPath))
	report.Plugin = named.Name + "@" + named.Version
	view := cli.View[*plugtest.BenchReport]{Name: func(r *plugtest.BenchReport) string { return r.Plugin },
		Detail: func(w io.Writer, _ cli.Format, r *plugtest.BenchReport) error { return benchDetail(w, from, r) }}
	return view.One(a.stdout, a.format, report)
}

// benchTarget is the file of the plugin, and the folder with its test and
// testdata.
func (a *app) benchTarget(ctx context.Context, path string, o benchOptions) (wasm, dir string, err error) {
	full := a.path(path)
	info, err := os.Stat(full)
	switch {
	case err != nil:
		return "", "", a.fileError(path, full, err)
	case !info.IsDir():
		if dir = filepath.Dir(full); filepath.Base(dir) == "build" {
			dir = filepath.Dir(dir)
		}
		return path, dir, nil
	}
	p, err := project.Find(full)
	if err != nil {
		return "", "", err
	}
	if !o.noBuild {
		if _, err := p.Build(ctx, project.BuildOptions{Env: a.environ, Log: a.stderr}); err != nil {
			return "", "", err
		}
	}
	return a.shown(p.WasmPath()), p.Dir, nil
}

// benchRecords are the records to measure with, and where they are from.
func (a *app) benchRecords(dir, in string, info *sandbox.Info) ([]record.Record, string, error) {
	file := in
	if file == "" {
		if found := filepath.Join(dir, "testdata", "in.ndjson"); isFile(found) {
			file = a.shown(found)
		}
	}
	if file != "" {
		records, err := a.testRecords(pluginTestOptions{input: file})
		return records, file, err
	}
	if info.Manifest != nil && len(info.Manifest.Sample) > 0 {
		return info.Manifest.Sample, "the sample of its manifest", nil
	}
	return nil, "", cli.Usage("name a file with records, one a line: --in FILE; or put them into testdata/in.ndjson beside the plugin", "there are no records to measure with: no testdata/in.ndjson, and no sample in the manifest")
}

// benchDetail writes a report for people.
func benchDetail(w io.Writer, from string, r *plugtest.BenchReport) error {
	share := fmt.Sprintf("%.0f %% out, %.0f %% dropped, %.0f %% failed", 100*r.Out, 100*r.Dropped, 100*r.Failed)
	memory := ""
	if r.ImageBytes > 0 {
		memory = fmt.Sprintf("%s (%s) an instance", cli.Plural(r.MemoryPages, "page"), cli.Bytes(r.ImageBytes))
	}
	if err := cli.Pairs(w, [][2]string{
		{"Plugin", r.Plugin + " (" + cli.Digest(r.Digest) + "), mode " + r.Mode},
		{"Records", fmt.Sprintf("%d of %s; %d bytes in, %d out a record; %s", r.Inputs, from, r.BytesIn, r.BytesOut, share)},
		{"Memory", memory},
	}); err != nil {
		return err
	}
	fmt.Fprintln(w)
	var rows [][]string
	for _, s := range []plugtest.Speed{r.Large, r.Single} {
		fuel := "-"
		if s.FuelPerRecord > 0 {
			fuel = strconv.FormatInt(s.FuelPerRecord, 10)
		}
		rows = append(rows, []string{strconv.Itoa(s.Batch), nanos(s.NanosPerRecord), nanos(s.PassNanosPerRecord), fmt.Sprintf("x%.1f", s.Ratio), strconv.FormatInt(s.RecordsPerSecond, 10), fuel,
			nanos(s.GuestNanos), nanos(s.RestoreNanos), strconv.FormatInt(s.Instances, 10)})
	}
	if err := cli.Grid(w, []string{"BATCH", "A RECORD", "PASS", "RATIO", "RECORDS/S", "FUEL", "GUEST", "RESTORE", "NEW INSTANCES"}, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nMost time: %s\n", cli.Safe(r.Verdict))
	return err
}

func nanos(n int64) string {
	if n >= 100_000 {
		return fmt.Sprintf("%d us", n/1000)
	}
	return fmt.Sprintf("%d ns", n)
}
