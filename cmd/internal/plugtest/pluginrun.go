package plugtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/plugins/manifest"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

// stageConfig is a plugin's stage as a file says.
func (f *file) stageConfig(config json.RawMessage) sandbox.StageConfig {
	if config == nil {
		config = f.config
	}
	return sandbox.StageConfig{Flow: "test/test", FlowUID: 1, Stage: "test", Config: config, Function: f.function, Hosts: f.hosts, Lines: f.linesMode, Envelope: f.envelope}
}

// pluginTester runs the cases of a file on a plugin.
func (r *runner) pluginTester(f *file, path string) (func(*testCase) (*result, error), error) {
	m, err := r.module(path, f.function)
	if err != nil {
		return nil, err
	}
	if path == r.Plugin && r.tested == nil {
		r.tested = f
	}
	return func(c *testCase) (res *result, err error) {
		cfg := f.stageConfig(c.config)
		cfg.Outputs = m.Info().Outputs()[1:]
		var logs []string
		counts := map[string]float64{}
		cfg.OnLog = func(l sandbox.LogLine) { logs = append(logs, l.Text) }
		cfg.OnCount = func(name string, delta float64) { counts[name] += delta }
		st, err := m.NewStage(r.ctx, cfg)
		if err != nil {
			return nil, r.startError(f, path, err)
		}
		defer func() { err = errors.Join(err, st.Close(context.WithoutCancel(r.ctx))) }()
		logs = nil // of the warm-up
		clear(counts)
		for i := range c.given {
			if c.given[i].Topic == "" {
				c.given[i].Topic = "test"
			}
		}
		b := &record.Batch{Partition: record.Partition{Topic: "test"}, Records: c.given, Now: f.now.UnixMilli()}
		var out record.Results
		if err := st.Process(r.ctx, b, &out); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", f.name, c.name, err)
		}
		return f.judgePlugin(c, pluginOutcomes(c.given, &out, m.Info().Outputs()), logs, counts), nil
	}, nil
}

// startError is the error of a plugin that does not take its configuration.
func (r *runner) startError(f *file, path string, err error) error {
	if r.ctx.Err() != nil {
		return err
	}
	e := &cli.Error{Exit: cli.ExitInvalid, Code: string(flow.CodePluginConfig), Detail: fmt.Sprintf("%s: plugin %s does not start: %v", f.name, filepath.Base(path), err),
		Next: "correct `config:` of the file or the case", Err: err}
	if in, ok := errors.AsType[*sandbox.InitError](err); ok && in.Export != "stage_init" {
		e.Next = "mend what the plugin does when it starts"
	}
	if _, ok := errors.AsType[*manifest.ConfigError](err); ok {
		e.Next = "correct `config:` of the file or the case, as the manifest's schema has it"
	}
	return e
}

// pluginOutcomes are what came of each record.
func pluginOutcomes(given []record.Record, out *record.Results, outputs []string) [][]got {
	all := make([][]got, len(given))
	for i := range out.Emits {
		e := &out.Emits[i]
		g := got{kind: kindEmit, record: &e.Record, output: outputs[e.Output]}
		if len(outputs) > 0 && e.Output == 0 {
			g.output = defaultOutput
		}
		all[e.In] = append(all[e.In], g)
	}
	for i, in := range given {
		if len(all[i]) == 1 && unchanged(&in, &all[i][0]) {
			all[i][0].kind = kindPass
		}
	}
	for _, in := range out.Drops {
		all[in] = append(all[in], got{kind: kindDrop})
	}
	for _, f := range out.Failures {
		g := got{kind: kindFail, class: f.Err.Class, failed: true, code: f.Err.Code, message: f.Err.Message, after: f.Err.RetryAfter}
		if f.Err.Class == record.Retryable {
			g.kind = kindRetry
		}
		if g.message == "" && f.Err.Err != nil {
			g.message = f.Err.Err.Error()
		}
		all[f.In] = append(all[f.In], g)
	}
	return all
}

// unchanged reports whether a record goes on as it came.
func unchanged(in *record.Record, g *got) bool {
	r := g.record
	return same(in.Key, r.Key) && same(in.Value, r.Value) && slices.EqualFunc(in.Headers, r.Headers, sameHeader) &&
		in.Timestamp == r.Timestamp && g.output == defaultOutput && r.To == -1
}

func sameHeader(a, b record.Header) bool { return a.Key == b.Key && same(a.Value, b.Value) }

// judgePlugin compares what a plugin did with what the case expects.
func (f *file) judgePlugin(c *testCase, gots [][]got, logs []string, counts map[string]float64) *result {
	j := &judge{file: f, testCase: c}
	j.expectations(gots)
	var cmp comparison
	if c.logs != nil && len(c.logs) == 0 && len(logs) > 0 {
		cmp.differ(c.node.Field("logs").Pos, "logs", "", strings.Join(logs, "\n"))
	}
	rest := logs
	for _, l := range c.logs {
		i := slices.IndexFunc(rest, func(line string) bool { return strings.Contains(line, l.text) })
		if i < 0 {
			cmp.differ(l.at, "logs", l.text, strings.Join(logs, "\n"))
			break
		}
		rest = rest[i+1:]
	}
	if len(cmp.findings) > 0 {
		j.add(cmp.findings, j.replaceKey("logs", logNode(logs)))
	}
	cmp.findings = nil
	for _, name := range sortedKeys(c.counters) {
		if w := c.counters[name]; counts[name] != w.value {
			cmp.differ(w.at, "counters."+name, number(w.value), number(counts[name]))
		}
	}
	if len(cmp.findings) > 0 {
		j.add(cmp.findings, j.replaceKey("counters", counterNode(c.counters, counts)))
	}
	return &j.result
}

func number(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }
