package main

import (
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
			for _, arg := range args {
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
			}
			if a.format.Human() {
				return nil
			}
			return a.flowView().List(a.stdout, a.format, flows)
		},
	}
}

func (a *app) flowDelete() *cobra.Command {
	var purge, dryRun bool
	cmd := &cobra.Command{
		Use: "delete [PROJECT/]NAME", Short: "Delete a flow, its offsets and its revisions",
		Long: "Delete a flow, its offsets and its revisions. A flow whose failure queue holds\n" +
			"entries, or that keeps records for another attempt, is deleted only with --purge, and they\n" +
			"with it. A later flow of the same name is another one: it begins at its start.",
		Example: a.example("flow delete orders", "flow delete orders --purge", "flow delete orders --dry-run"),
		Args:    a.args(1, 1, "NAME of the flow"),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, node, err := a.getFlow(cmd, args[0])
			if err != nil {
				return err
			}
			type result struct {
				Flow    string `json:"flow"`
				Deleted bool   `json:"deleted"`
				Entries uint64 `json:"entries"`
				Kept    uint64 `json:"kept"`
				DryRun  bool   `json:"dry_run,omitempty"`
			}
			r := result{Flow: f.Project + "/" + f.Name, Entries: f.Queue.Entries, DryRun: dryRun}
			if f.Retries != nil {
				r.Kept = f.Retries.Entries
			}
			if !dryRun {
				if err := node.DeleteFlow(cmd.Context(), f.Project, f.Name, purge); err != nil {
					e := cli.AsError(err)
					if e.Code == api.CodeQueueNotEmpty {
						look := a.program + " queue peek " + args[0]
						if r.Entries == 0 && r.Kept > 0 {
							look += " --kept"
						}
						e.Next = fmt.Sprintf("look at them with `%s`, or delete them too with `%s flow delete %s --purge`", look, a.program, args[0])
					}
					return e
				}
				r.Deleted = true
			}
			if !a.format.Human() {
				return cli.View[result]{Name: func(r result) string { return shortFlow(r.Flow) }}.One(a.stdout, a.format, r)
			}
			verb := "deleted"
			if dryRun {
				verb = "would be deleted"
			}
			var holds []string
			if r.Entries > 0 {
				holds = append(holds, cli.Plural(r.Entries, "entry")+" of its failure queue")
			}
			if r.Kept > 0 {
				holds = append(holds, cli.Plural(r.Kept, "record")+" that it keeps for another attempt")
			}
			entries := ""
			switch {
			case len(holds) > 0 && (purge || !dryRun):
				entries = " with " + strings.Join(holds, " and ")
			case len(holds) > 0:
				verb, entries = "would not be deleted", " without --purge: there are "+strings.Join(holds, " and ")
			}
			_, err = fmt.Fprintf(a.stdout, "flow %s %s%s\n", shortFlow(r.Flow), verb, entries)
			return err
		},
	}
	cmd.Flags().BoolVar(&purge, "purge", false, "delete the entries of its failure queue and what it keeps too")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be deleted")
	return cmd
}
