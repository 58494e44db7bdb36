package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
)

func (a *app) flowCommand() *cobra.Command {
	return a.groupCommand("flow", "List, pause, resume and delete flows", a.example("flow list", "flow get orders", "flow pause acme/orders"),
		a.flowList(), a.flowGet(),
		a.flowSet("start", "running", "Start a paused flow"),
		a.flowSet("resume", "running", "Let a paused flow go on where it stopped"),
		a.flowSet("pause", "paused", "Pause a flow: records under way are finished, no more are fetched"),
		a.flowDelete(), a.flowOffsets())
}

func (a *app) flowView() cli.View[*api.Flow] {
	return cli.View[*api.Flow]{
		Name: flowName,
		Columns: []cli.Column[*api.Flow]{
			{Title: "NAME", Cell: flowName},
			{Title: "STATE", Cell: func(f *api.Flow) string { return f.State }},
			{Title: "SOURCE", Cell: func(f *api.Flow) string { return f.Source }},
			{Title: "DELIVERY", Cell: func(f *api.Flow) string { return f.Delivery }},
			{Title: "LAG", Cell: func(f *api.Flow) string { return cli.Count(f.Lag) }},
			{Title: "QUEUE", Cell: func(f *api.Flow) string { return strconv.FormatUint(f.Queue.Entries, 10) }},
			{Title: "KEPT", Cell: func(f *api.Flow) string {
				if f.Retries == nil {
					return ""
				}
				return strconv.FormatUint(f.Retries.Entries, 10)
			}},
			{Title: "REVISION", Wide: true, Cell: func(f *api.Flow) string { return fmt.Sprint(f.Revision) }},
			{Title: "ORDER", Wide: true, Cell: func(f *api.Flow) string { return f.Order }},
			{Title: "SLOTS", Wide: true, Cell: func(f *api.Flow) string { return strconv.Itoa(f.Slots) }},
			{Title: "IN", Wide: true, Cell: figure(func(g *api.Figures) int64 { return g.In })},
			{Title: "EMITTED", Wide: true, Cell: figure(func(g *api.Figures) int64 { return g.Emitted })},
			{Title: "DROPPED", Wide: true, Cell: figure(func(g *api.Figures) int64 { return g.Dropped })},
			{Title: "FAILED", Wide: true, Cell: figure(func(g *api.Figures) int64 { return g.Failed })},
			{Title: "AGE", Cell: func(f *api.Flow) string { return cli.Age(a.now(), f.Created) }},
			{Title: "NOTE", Cell: func(f *api.Flow) string { return a.note(flowNote(f)) }},
		},
		Detail: a.flowDetail,
	}
}

func figure(of func(*api.Figures) int64) func(*api.Flow) string {
	return func(f *api.Flow) string {
		if f.Figures == nil {
			return ""
		}
		return strconv.FormatInt(of(f.Figures), 10)
	}
}

// flowNote is why a flow does not run, or does not get on; else which of its
// stages are not pure.
func flowNote(f *api.Flow) string {
	switch {
	case f.Reason != "":
		return f.Reason
	case f.Problem != "":
		return f.Problem
	case f.Retries != nil && f.Retries.Entries > 0:
		return cli.Plural(int64(f.Retries.Entries), "record") + " kept for another attempt"
	}
	return purity(f)
}

// purity names the stages of a flow that are not pure.
func purity(f *api.Flow) string {
	var notes []string
	for i := range f.Stages {
		if s := &f.Stages[i]; s.Stateful || s.Impure {
			notes = append(notes, s.ID+" is "+stagePurity(s))
		}
	}
	return strings.Join(notes, ", ")
}

// stagePurity says what a stage is whose answers depend on more than the
// record.
func stagePurity(s *api.Stage) string {
	switch {
	case s.Stateful && s.Impure:
		return "stateful and impure"
	case s.Stateful:
		return "stateful"
	}
	return "impure"
}

// resumeHint is what to do about a flow that paused by itself, once the cause
// is mended.
func (a *app) resumeHint(f *api.Flow) string {
	switch {
	case f.Held != nil:
		return "by itself, once that is over"
	case f.State != api.StateAutoPaused:
		return ""
	}
	return "when that is mended: `" + a.program + " flow resume " + flowName(f) + "`"
}

func (a *app) flowList() *cobra.Command {
	var project string
	cmd := &cobra.Command{
		Use: "list", Short: "List flows", Example: a.example("flow list", "flow list -o wide", "flow list --project acme -o name"),
		Args: a.args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			node, err := a.node()
			if err != nil {
				return err
			}
			flows, err := node.Flows(cmd.Context(), project)
			if err != nil {
				return err
			}
			if len(flows) == 0 && a.format.Human() {
				fmt.Fprintf(a.stderr, "no flows. Make one: `%s apply -f flow.yaml`\n", a.program)
				return nil
			}
			return a.flowView().List(a.stdout, a.format, flows)
		},
	}
	cmd.Flags().StringVar(&project, "project", "", "only the flows of this project")
	return cmd
}

func (a *app) flowGet() *cobra.Command {
	return &cobra.Command{
		Use: "get [PROJECT/]NAME", Short: "Show a flow: state, receipt, stages, connections, partitions",
		Long: "Show a flow: its state, what became of the records that it has read (the receipt), its\n" +
			"stages and deliveries, what is used of connections just now, and its partitions. -o wide\n" +
			"shows the receipt by partition too, -o yaml all of it with the document.",
		Example: a.example("flow get orders", "flow get acme/orders -o json"),
		Args:    a.args(1, 1, "NAME of the flow"),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, _, err := a.getFlow(cmd, args[0])
			if err != nil {
				return err
			}
			return a.flowView().One(a.stdout, a.format, f)
		},
	}
}

func (a *app) getFlow(cmd *cobra.Command, arg string) (*api.Flow, api.Backend, error) {
	project, name, err := splitFlow(arg)
	if err != nil {
		return nil, nil, err
	}
	node, err := a.node()
	if err != nil {
		return nil, nil, err
	}
	f, err := node.Flow(cmd.Context(), project, name)
	if err != nil {
		return nil, nil, a.missingFlow(cmd, node, arg, err)
	}
	return f, node, nil
}

// missingFlow adds to the error of a flow that does not exist the name that
// was probably meant.
func (a *app) missingFlow(cmd *cobra.Command, node api.Backend, arg string, err error) error {
	e := cli.AsError(err)
	if e.Code != api.CodeNotFound {
		return err
	}
	e.Next = fmt.Sprintf("list the flows with `%s flow list`", a.program)
	flows, lerr := node.Flows(cmd.Context(), "")
	if lerr != nil {
		return e
	}
	var names []string
	for _, f := range flows {
		names = append(names, flowName(f))
	}
	if near := cli.Nearest(shortFlow(arg), names); near != "" && near != shortFlow(arg) {
		e.Next = fmt.Sprintf("did you mean %s? Otherwise list the flows with `%s flow list`", near, a.program)
	}
	return e
}

func (a *app) flowSet(verb, state, short string) *cobra.Command {
	return &cobra.Command{
		Use: verb + " [PROJECT/]NAME...", Short: short, Example: a.example("flow "+verb+" orders", "flow "+verb+" acme/orders acme/refunds"),
		Args: a.args(1, -1, "NAME of the flow"),
		RunE: func(cmd *cobra.Command, args []string) error {
			node, err := a.node()
			if err != nil {
				return err
			}
			var flows []*api.Flow
			err = eachFlow(cmd.Context(), args, state, func(arg string) error {
				project, name, err := splitFlow(arg)
				if err != nil {
					return err
				}
				f, err := node.SetFlow(cmd.Context(), project, name, state)
				if err != nil {
					return a.missingFlow(cmd, node, arg, err)
				}
				flows = append(flows, f)
				if a.format.Human() {
					fmt.Fprintf(a.stdout, "flow %s: %s\n", flowName(f), f.State)
				}
				return nil
			})
			if a.format.Human() || err != nil && len(flows) == 0 {
				return err
			}
			return errors.Join(err, a.flowView().List(a.stdout, a.format, flows))
		},
	}
}

// eachFlow does something to each of the flows that are named, also to those
// behind one that it fails for. Where there are several the error says of each
// that failed why, and which were not tried any more.
func eachFlow(ctx context.Context, names []string, done string, do func(name string) error) error {
	var first *cli.Error
	var failed []string
	tried := 0
	for _, name := range names {
		err := do(name)
		tried++
		if err == nil {
			continue
		}
		e := cli.AsError(err)
		if len(names) == 1 {
			return e
		}
		if first == nil {
			first = e
		}
		failed = append(failed, shortFlow(name)+" ("+e.Detail+")")
		if ctx.Err() != nil || e.Code == cli.CodeUnreachable || e.Code == cli.CodeTimeout {
			break
		}
	}
	if first == nil {
		return nil
	}
	out := *first
	out.Detail = fmt.Sprintf("%d of %d flows are not %s: %s", len(names)-tried+len(failed), len(names), done, strings.Join(failed, "; "))
	if tried < len(names) {
		out.Detail += "; not tried: " + strings.Join(names[tried:], ", ")
	}
	return &out
}
