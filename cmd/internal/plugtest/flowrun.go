package plugtest

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/cmd/internal/daemon"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

// flowTester runs the cases of a file on a flow.
func (r *runner) flowTester(f *file) (func(*testCase) (*result, error), error) {
	q := FlowRequest{Path: f.path(f.flow), Vars: f.vars, Env: f.env, Plugins: map[string]string{}}
	for _, p := range f.files {
		q.Files = append(q.Files, f.path(p))
	}
	for name, p := range f.plugins {
		q.Plugins[name] = f.path(p)
	}
	in, err := r.LoadFlow(q)
	if err != nil {
		return nil, err
	}
	if problems := f.hold(in); len(problems) > 0 {
		return nil, lintError(f.name, problems)
	}
	return func(c *testCase) (*result, error) {
		p := newPartners(c.answers)
		events, paused, err := daemon.RunLocalTest(r.ctx, daemon.LocalTest{
			Flow: in.Flow, Connections: in.Connections, Secrets: f.secrets, LoadPlugin: in.LoadPlugin, Host: r.host,
			Records: records(in.Flow, c.given), Now: f.now, Answer: p.answer(tells(in.Flow)),
		})
		if err != nil {
			return nil, r.runError(f, err)
		}
		return f.judgeFlow(c, in.Flow, events, paused, p.requests, p.unasked()), nil
	}, nil
}

// runError is the error of a flow that cannot run as its test has it.
func (r *runner) runError(f *file, err error) error {
	if r.ctx.Err() != nil {
		return err
	}
	e := &cli.Error{Exit: cli.ExitInvalid, Code: string(flow.CodeValue), Detail: fmt.Sprintf("%s: %v", f.name, err), Next: "correct what it names in the flow or in the test", Err: err}
	if _, ok := errors.AsType[*sandbox.RefusedError](err); ok {
		return e
	}
	if _, ok := errors.AsType[*daemon.StageError](err); ok {
		e.Code, e.Next = string(flow.CodePluginConfig), "correct `with:` of the stage, or mend the plugin"
		return e
	}
	if x, ok := errors.AsType[*record.Error](err); ok && x.Class == record.Config {
		return e
	}
	return fmt.Errorf("%s: %w", f.name, err)
}

// tells are the exceptions of a flow: who is told answers 200 unless a case
// says otherwise.
func tells(in *flow.Flow) map[string]bool {
	out := map[string]bool{}
	for i := range in.Exceptions {
		out[in.Exceptions[i].Push.ID] = true
	}
	return out
}

// records are the given ones as the flow's source gives them.
func records(in *flow.Flow, given []record.Record) []record.Record {
	topic := "test"
	switch {
	case in.Source.Kafka != nil && len(in.Source.Kafka.Topics) > 0:
		topic = in.Source.Kafka.Topics[0]
	case in.Source.RocketMQ != nil:
		topic = in.Source.RocketMQ.Topic
	case in.Source.Stream != nil:
		topic = "-"
	}
	out := slices.Clone(given)
	for i := range out {
		if out[i].Topic == "" {
			out[i].Topic = topic
		}
	}
	return out
}

// hold finds what a test names and the flow does not have, and secrets without
// a value.
func (f *file) hold(in *Flow) flow.Problems {
	var pushes, stages, all []string
	for _, d := range in.Flow.Deliveries() {
		all = append(all, d.ID)
		if d.HTTP != nil {
			pushes = append(pushes, d.ID)
		}
	}
	for i := range in.Flow.Exceptions {
		if d := &in.Flow.Exceptions[i].Push; d.HTTP != nil {
			pushes = append(pushes, d.ID)
		}
	}
	for _, s := range in.Flow.AllStages() {
		stages = append(stages, s.ID)
	}
	var problems flow.Problems
	values := flow.ReadValues(f.name, []byte(strings.Join(f.lines, "\n")))
	unknown := func(at flow.Pos, what, id string, known []string) {
		help := "the flow has " + strings.Join(known, ", ")
		if len(known) == 0 {
			help = "the flow has none"
		}
		if near := expr.Nearest(id, known); near != "" {
			help = "did you mean `" + near + "`?"
		}
		values.Report(flow.CodeStageUnknown, at, at.Column+len([]rune(id)), what, help)
	}
	for _, c := range f.cases {
		for _, key := range []string{"answers", "requests", "after"} {
			v := c.node.Get(key)
			if v == nil {
				continue
			}
			known, what := pushes, "no push to HTTP has this id"
			if key == "after" {
				known, what = stages, "no stage has this id"
			}
			for _, k := range v.Fields {
				if !slices.Contains(known, k.Key) {
					unknown(k.Pos, what, k.Key, known)
				}
			}
		}
		for _, ws := range c.expect {
			for _, w := range ws {
				if w.stage != "" && !slices.Contains(append(slices.Clone(stages), all...), w.stage) {
					unknown(w.at, fmt.Sprintf("no stage or delivery is called %q", w.stage), w.stage, append(slices.Clone(stages), all...))
				}
				if w.record != nil && w.record.output != "" && !slices.Contains(all, w.record.output) {
					unknown(w.record.at, fmt.Sprintf("no delivery is called %q", w.record.output), w.record.output, all)
				}
			}
		}
	}
	f.holdSecrets(in, values)
	problems = append(problems, values.Problems...)
	return problems
}

// holdSecrets finds secrets that have no value.
func (f *file) holdSecrets(in *Flow, values *flow.Values) {
	needed := slices.Clone(in.Flow.Secrets())
	for _, name := range in.Flow.Connections() {
		if c := in.Connections[name]; c != nil {
			needed = append(needed, c.Secrets()...)
		}
	}
	slices.Sort(needed)
	at := f.secretsAt
	if at.Line == 0 {
		at = values.Root.Fields[0].Pos
	}
	for _, name := range slices.Compact(needed) {
		if f.secrets[name] == "" {
			values.Report(flow.CodeSecret, at, at.Column+len("secrets"), fmt.Sprintf("secret %q has no value for the test", name), "add `secrets: { "+name+": made-up }`: a real value does not belong here")
		}
	}
}

// judgeFlow compares what came of a case with what it expects; unasked are the
// answers that nobody asked for.
func (f *file) judgeFlow(c *testCase, in *flow.Flow, events []daemon.TestEvent, paused string, requests map[string][]request, unasked []Finding) *result {
	j := &judge{file: f, testCase: c, flow: true}
	given := records(in, c.given)
	j.given = given
	j.expectations(flowOutcomes(in, given, events, paused))
	for _, id := range sortedKeys(c.requests) {
		var cmp comparison
		cmp.requests(c.keys["requests."+id], "requests."+id, c.requests[id], requests[id])
		if len(cmp.findings) > 0 {
			j.add(cmp.findings, j.replace(c.keys["requests."+id], id, requestNodes(c.requests[id], requests[id])))
		}
	}
	for _, id := range sortedKeys(c.after) {
		gots := afterStage(in, events, id)
		var cmp comparison
		for i := range max(len(gots), len(c.after[id])) {
			p := fmt.Sprintf("after.%s[%d]", id, i)
			switch {
			case i >= len(c.after[id]):
				cmp.differ(c.keys["after."+id], p, "", gots[i].String())
			case i >= len(gots):
				cmp.differ(c.after[id][i].at, p, "a record", "")
			default:
				cmp.record(p, c.after[id][i], &gots[i], nil)
			}
		}
		if len(cmp.findings) > 0 {
			j.add(cmp.findings, j.replace(c.keys["after."+id], id, afterNodes(c.after[id], gots)))
		}
	}
	if paused == "" { // else they show what would have been
		j.add(unasked, false)
	}
	return &j.result
}

func sortedKeys[V any](m map[string]V) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// afterStage are the records that a stage emitted.
func afterStage(in *flow.Flow, events []daemon.TestEvent, stage string) []got {
	var out []got
	for i := range events {
		if e := &events[i]; e.Kind == daemon.TestAfter && e.Stage == stage {
			output := ""
			if e.Output == 0 {
				output = defaultOutput
			}
			out = append(out, got{kind: kindEmit, record: &e.Record, output: output})
		}
	}
	return out
}

// flowOutcomes are what came of each given record, its emissions in order.
func flowOutcomes(in *flow.Flow, given []record.Record, events []daemon.TestEvent, paused string) [][]got {
	owners := map[string]flow.Otherwise{}
	for _, s := range in.AllStages() {
		owners[s.ID] = s.Otherwise
	}
	told := tells(in)
	for _, d := range in.Deliveries() {
		owners[d.ID] = d.Otherwise
	}
	all := make([][]got, len(given))
	paths := make([][]record.Path, len(given))
	for i := range events {
		e := &events[i]
		at := slices.IndexFunc(given, func(r record.Record) bool {
			return r.Topic == e.Record.Topic && r.Partition == e.Record.Partition && r.Offset == e.Record.Offset
		})
		g := got{stage: e.Stage, code: e.Code, message: e.Message, attempts: e.Attempts}
		switch e.Kind {
		case daemon.TestDelivered:
			if told[e.Stage] {
				continue
			}
			g = got{kind: kindDelivered, record: &e.Record, output: e.Stage, attempts: e.Attempts}
		case daemon.TestDropped:
			g.kind = kindDropped
		case daemon.TestWaiting:
			g.kind = kindWaiting
			g.class, g.failed = e.Class, e.Class != 0
		case daemon.TestFailed:
			g.class, g.failed = e.Class, true
			g.kind = map[flow.Otherwise]string{flow.OtherwiseDrop: kindDropped, flow.OtherwiseTopic: kindAside}[owners[e.Stage]]
			if g.kind == "" {
				g.kind = kindQueued
			}
		default:
			continue
		}
		if at < 0 {
			continue
		}
		all[at], paths[at] = append(all[at], g), append(paths[at], e.Record.Path)
	}
	for i := range all {
		order := make([]int, len(all[i]))
		for n := range order {
			order[n] = n
		}
		slices.SortStableFunc(order, func(a, b int) int { return strings.Compare(string(paths[i][a]), string(paths[i][b])) })
		sorted := make([]got, len(order))
		for n, from := range order {
			sorted[n] = all[i][from]
		}
		if all[i] = sorted; len(sorted) == 0 {
			all[i] = []got{{kind: kindWaiting, message: paused}}
		}
	}
	return all
}
