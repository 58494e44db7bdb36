package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/plugins/manifest"
	"github.com/millrace-io/millrace/runtime/flow"
)

// deployOptions are the flags of `deploy`.
type deployOptions struct {
	flow, stage        string
	storeOnly, dryRun  bool
	name, source, sink string
	function           string
	timeout            time.Duration
	check              preflightOptions
}

// deployResult is what a deploy did, for machines.
type deployResult struct {
	Plugin *api.Plugin `json:"plugin"`
	// Deployment is nil with --store-only.
	Deployment *api.Deployment `json:"deployment,omitempty"`
	// Flow is the plan of the one-stage flow.
	Flow    *api.FlowPlan `json:"flow,omitempty"`
	Seconds float64       `json:"seconds"`
	DryRun  bool          `json:"dry_run,omitempty"`
}

func (a *app) deployCommand() *cobra.Command {
	var o deployOptions
	cmd := &cobra.Command{
		Use: "deploy PLUGIN.wasm", Short: "Store a plugin and put it into the stages that use it",
		Long: "Store a plugin and put it into every stage of every flow whose range admits its version;\n" +
			"running flows switch between two batches, without a stop. Name and version come from the\n" +
			"plugin's manifest, else from the file's name and digest. --dry-run stores the file too,\n" +
			"since the node plans with it, and changes no stage. With --source and --sink it makes a flow\n" +
			"of the one plugin; a flow of that name that is there already is not replaced.\n\n" +
			"Before anything changes the latest records of each flow's source go through the old and the\n" +
			"new version: the pre-flight. Where more answers differ than --max-diff allows, it asks;\n" +
			"without a terminal, and with --dry-run, it changes nothing and exits with 4.",
		Example: a.example("deploy order-mask.wasm", "deploy order-mask.wasm --flow orders --stage mask", "deploy order-mask.wasm --dry-run",
			"deploy order-mask.wasm --max-diff 2%",
			"deploy upper.wasm --source kafka://127.0.0.1:9092/in --sink kafka://127.0.0.1:9092/out"),
		Args: a.args(1, 1, "PLUGIN.wasm"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.deploy(cmd.Context(), args[0], o) },
	}
	cmd.Flags().StringVar(&o.flow, "flow", "", "only stages of this flow ([project/]name)")
	cmd.Flags().StringVar(&o.stage, "stage", "", "only stages with this id")
	cmd.Flags().BoolVar(&o.storeOnly, "store-only", false, "store the plugin and change no stage")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "store the plugin and only say which stages would change")
	cmd.Flags().StringVar(&o.source, "source", "", "make a one-stage flow that reads kafka://HOST:PORT/TOPIC")
	cmd.Flags().StringVar(&o.function, "function", "", "export to call with each record, of an Extism plugin in a one-stage flow")
	cmd.Flags().StringVar(&o.sink, "sink", "", "where the one-stage flow delivers: kafka://HOST:PORT/TOPIC or https://HOST/PATH")
	cmd.Flags().StringVar(&o.name, "name", "", "name of the one-stage flow (default: the plugin's)")
	o.check.flags(cmd)
	cmd.Flags().DurationVar(&o.timeout, "timeout", time.Minute, "how long to wait until every slot has switched")
	return cmd
}

func (o *deployOptions) oneStage() bool { return o.source != "" || o.sink != "" }

func (o *deployOptions) validate() error {
	if err := o.check.validate(); err != nil {
		return err
	}
	if o.oneStage() {
		switch {
		case o.source == "" || o.sink == "":
			return cli.Usage("give both: --source kafka://HOST:PORT/TOPIC --sink kafka://HOST:PORT/TOPIC", "--source and --sink make a flow together; one is missing")
		case o.storeOnly || o.flow != "" || o.stage != "":
			return cli.Usage("leave them out: the flow has one stage", "--store-only, --flow and --stage do not go with --source and --sink")
		}
		if err := checkTopic("--source", o.source); err != nil {
			return err
		}
		if strings.HasPrefix(o.sink, "http://") || strings.HasPrefix(o.sink, "https://") {
			return nil
		}
		return checkTopic("--sink", o.sink)
	}
	if o.name != "" {
		return cli.Usage("give --source and --sink too, or set the plugin's name in its manifest", "--name names the one-stage flow, and there is none")
	}
	if o.function != "" {
		return cli.Usage("give --source and --sink too, or write `function:` into the flow", "--function is for the one-stage flow, and there is none")
	}
	if o.flow != "" {
		_, _, err := splitFlow(o.flow)
		return err
	}
	return nil
}

// checkTopic refuses what is not kafka://HOST:PORT/TOPIC or
// kafka://CONNECTION/TOPIC.
func checkTopic(flag, s string) error {
	next := "write kafka://HOST:PORT/TOPIC, or kafka://CONNECTION/TOPIC with a connection that was applied"
	rest, ok := strings.CutPrefix(s, "kafka://")
	if !ok {
		return cli.Usage(next, "%s %q does not begin with kafka://", flag, s)
	}
	target, topic, ok := strings.Cut(rest, "/")
	switch {
	case !ok || topic == "":
		return cli.Usage(next, "%s %q names no topic", flag, s)
	case strings.Contains(topic, "/"):
		return cli.Usage(next, "%s %q: %q is not the name of a topic", flag, s, topic)
	case target == "":
		return cli.Usage(next, "%s %q names neither a broker nor a connection", flag, s)
	}
	if strings.Contains(target, ":") {
		if _, ok := flow.Anonymous("kafka://" + target); !ok {
			return cli.Usage(next, "%s %q: %q is not HOST:PORT", flag, s, target)
		}
	}
	return nil
}

func (a *app) deploy(ctx context.Context, path string, o deployOptions) error {
	if err := o.validate(); err != nil {
		return err
	}
	mode := ""
	if o.function != "" {
		mode = manifest.ModeExtism
	}
	wasm, info, err := a.readPluginAs(path, mode)
	if err != nil {
		return err
	}
	if o.oneStage() {
		if err := checkFunction(path, info, &runOptions{function: o.function}); err != nil {
			return err
		}
	}
	node, err := a.node()
	if err != nil {
		return err
	}
	began := a.now()
	p, err := a.upload(ctx, node, filepath.Base(path), wasm)
	if err != nil {
		return err
	}
	r := &deployResult{Plugin: p, DryRun: o.dryRun}
	switch {
	case o.storeOnly:
	case o.oneStage():
		r.Flow, err = a.deployFlow(ctx, node, p, o)
	default:
		r.Deployment, err = a.activate(ctx, node, p, o)
	}
	if err != nil && (a.format.Human() && !o.dryRun || r.Deployment == nil && r.Flow == nil) {
		return err // people have seen the plan
	}
	r.Seconds = a.now().Sub(began).Seconds()
	return errors.Join(err, cli.View[*deployResult]{
		Name:   func(r *deployResult) string { return r.Plugin.Ref() },
		Detail: func(w io.Writer, f cli.Format, r *deployResult) error { return a.deployDetail(w, path, o, r) },
	}.One(a.stdout, a.format, r))
}

// upload stores a plugin. The same version with other bytes is refused by the
// node.
func (a *app) upload(ctx context.Context, node api.Backend, file string, wasm []byte) (*api.Plugin, error) {
	p, err := node.UploadPlugin(ctx, file, bytes.NewReader(wasm))
	if err != nil {
		e := cli.AsError(err)
		if e.Code == api.CodeVersionTaken && e.Next == "" {
			e.Next = "raise the version where the plugin declares it (Cargo.toml, Describe in Go, describe in AssemblyScript, manifest.json); a version that ends in -dev may be deployed again"
		}
		return nil, e
	}
	return p, nil
}

// activate plans, shows the plan with its pre-flight, activates and waits until
// every slot of every flow has switched. With an error about the pre-flight it
// returns the plan.
func (a *app) activate(ctx context.Context, node api.Backend, p *api.Plugin, o deployOptions) (*api.Deployment, error) {
	req := &api.Deploy{Digest: p.Digest, Flow: o.flow, Stage: o.stage, DryRun: true, Preflight: o.check.count()}
	if o.flow != "" {
		project, name, err := splitFlow(o.flow)
		if err != nil {
			return nil, err
		}
		req.Flow = project + "/" + name
	}
	waited := a.waiting(&o.check)
	plan, err := node.Deploy(ctx, req)
	waited()
	if err != nil {
		return nil, err
	}
	if len(plan.Flows) == 0 {
		return plan, nil
	}
	if a.format.Human() && !o.dryRun {
		fmt.Fprintf(a.stderr, "%s changes %s of %s:\n", p.Ref(), cli.Plural(stagesOf(plan), "stage"), cli.Plural(len(plan.Flows), "flow"))
		if err := planGrid(a.stderr, plan); err != nil {
			return nil, err
		}
		showPreflight(a.stderr, plan.Flows)
	}
	accepted, err := a.accept(&o.check, tried(plan.Flows), !o.dryRun)
	if err != nil || o.dryRun {
		return plan, err
	}
	req.DryRun, req.Preflight, req.Seen = false, 0, map[string]api.Seen{}
	for _, f := range plan.Flows {
		req.Planned = append(req.Planned, api.Planned{Flow: f.Flow, Revision: f.Revision})
		if s := o.check.seen(f.Stages, accepted); s != nil {
			req.Seen[f.Flow] = *s
		}
	}
	d, err := node.Deploy(ctx, req)
	if err != nil {
		return nil, err
	}
	keepPreflight(d, plan)
	if d.Done || d.ID == "" {
		return d, nil
	}
	return a.await(ctx, node, d, o.timeout)
}

// pollEvery is how often the progress of a deployment is asked for.
const pollEvery = 100 * time.Millisecond

func (a *app) await(ctx context.Context, node api.Backend, d *api.Deployment, timeout time.Duration) (*api.Deployment, error) {
	limit, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			now, err := node.Deployment(limit, d.ID)
			if err == nil {
				progress(d, now)
			}
			switch {
			case err == nil && d.Done:
				return d, nil
			case err != nil && limit.Err() == nil:
				return nil, err
			}
		case <-limit.Done():
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, a.notSwitched(d, timeout)
		}
	}
}

// progress puts into d how far it is now; what it changes was known before.
func progress(d, now *api.Deployment) {
	d.Done = now.Done
	for _, n := range now.Flows {
		for i := range d.Flows {
			if f := &d.Flows[i]; f.Flow == n.Flow {
				n.Stages = f.Stages
				*f = n
			}
		}
	}
}

// notSwitched says which flows have not switched, and why as far as is known.
func (a *app) notSwitched(d *api.Deployment, timeout time.Duration) error {
	var waiting []string
	first := ""
	for _, f := range d.Flows {
		if f.Switched >= f.Slots {
			continue
		}
		name := shortFlow(f.Flow)
		if first == "" {
			first = name
		}
		s := fmt.Sprintf("%s (%d of %s", name, f.Switched, cli.Plural(f.Slots, "slot"))
		if f.Problem != "" {
			s += ": " + f.Problem
		}
		waiting = append(waiting, s+")")
	}
	return &cli.Error{Exit: cli.ExitFailed, Code: cli.CodeTimeout,
		Detail: fmt.Sprintf("%s is active, but not every slot has switched within %s: %s", d.Plugin.Ref(), timeout, strings.Join(waiting, ", ")),
		Next:   fmt.Sprintf("look at the flow with `%s flow get %s`", a.program, first)}
}

// deployFlow makes the flow of the one plugin. One that is there already gets
// the plugin's new bytes if its document is the same, and is refused otherwise.
func (a *app) deployFlow(ctx context.Context, node api.Backend, p *api.Plugin, o deployOptions) (*api.FlowPlan, error) {
	project, name := flow.DefaultProject, p.Name
	if o.name != "" {
		var err error
		if project, name, err = splitFlow(o.name); err != nil {
			return nil, err
		}
	}
	file := p.Name + ".wasm"
	if err := manifest.CheckName(p.Name); err != nil {
		return nil, fmt.Errorf("plugin %s: %w", p.Ref(), err)
	}
	var doc strings.Builder
	fmt.Fprintf(&doc, "flow: v1\nname: %s\n", strconv.Quote(name))
	if project != flow.DefaultProject {
		fmt.Fprintf(&doc, "project: %s\n", strconv.Quote(project))
	}
	fmt.Fprintf(&doc, "source: %s\nstages:\n  - map: ./%s\n", strconv.Quote(o.source), file)
	if o.function != "" {
		fmt.Fprintf(&doc, "    function: %s\n", strconv.Quote(o.function))
	}
	fmt.Fprintf(&doc, "  - push: %s\n", strconv.Quote(o.sink))
	req := &api.PutFlow{Document: doc.String(), File: name + ".yaml", Files: map[string]string{"./" + file: p.Digest}, DryRun: true, Preflight: o.check.count()}
	present, err := node.Flow(ctx, project, name)
	switch {
	case err == nil && present.Document != req.Document:
		return nil, &cli.Error{Exit: cli.ExitFailed, Code: api.CodeConflict, Detail: fmt.Sprintf("there is a flow %s already", flowName(present)),
			Next: "deploy without --source and --sink to swap its plugin, or give another --name"}
	case err == nil:
		req.IfMatch = present.Revision
	case cli.AsError(err).Code != api.CodeNotFound:
		return nil, err
	default:
		req.New = true // also when the pre-flight is over
	}
	waited := a.waiting(&o.check)
	plan, err := node.PutFlow(ctx, req)
	waited()
	if err != nil {
		return nil, err
	}
	shown := []api.DeploymentFlow{{Flow: project + "/" + name, Stages: plan.Stages}}
	if a.format.Human() && !o.dryRun {
		a.printFlowPlan(a.stderr, plan)
		showPreflight(a.stderr, shown)
	}
	accepted, err := a.accept(&o.check, tried(shown), !o.dryRun)
	if err != nil || o.dryRun {
		return plan, err
	}
	req.DryRun, req.Preflight = false, 0
	if plan.Action == "update" {
		req.Seen = o.check.seen(plan.Stages, accepted)
	}
	done, err := node.PutFlow(ctx, req)
	if err != nil {
		return nil, err
	}
	if done.Stages = plan.Stages; a.format.Human() {
		done.Changes, done.Stages = nil, nil // they were shown
	}
	return done, nil
}
