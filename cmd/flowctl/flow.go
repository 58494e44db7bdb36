package main

import (
	"fmt"
	"io"
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
			{Title: "REVISION", Wide: true, Cell: func(f *api.Flow) string { return fmt.Sprint(f.Revision) }},
			{Title: "ORDER", Wide: true, Cell: func(f *api.Flow) string { return f.Order }},
			{Title: "SLOTS", Wide: true, Cell: func(f *api.Flow) string { return strconv.Itoa(f.Slots) }},
			{Title: "IN", Wide: true, Cell: figure(func(g *api.Figures) int64 { return g.In })},
			{Title: "EMITTED", Wide: true, Cell: figure(func(g *api.Figures) int64 { return g.Emitted })},
			{Title: "DROPPED", Wide: true, Cell: figure(func(g *api.Figures) int64 { return g.Dropped })},
			{Title: "FAILED", Wide: true, Cell: figure(func(g *api.Figures) int64 { return g.Failed })},
			{Title: "AGE", Cell: func(f *api.Flow) string { return cli.Age(a.now(), f.Created) }},
			{Title: "NOTE", Cell: flowNote},
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
	if f.State != api.StateAutoPaused {
		return ""
	}
	return "when that is mended: `" + a.program + " flow resume " + flowName(f) + "`"
}

func (a *app) flowDetail(w io.Writer, format cli.Format, f *api.Flow) error {
	state := f.State
	if f.Reason != "" {
		state += ": " + f.Reason
	}
	queue := fmt.Sprintf("%s, %s", cli.Plural(f.Queue.Entries, "entry"), cli.Bytes(int64(f.Queue.Bytes)))
	if f.Queue.MaxEntries > 0 {
		queue += fmt.Sprintf(" (at most %d and %s)", f.Queue.MaxEntries, cli.Bytes(int64(f.Queue.MaxBytes)))
	}
	lag := cli.Count(f.Lag)
	pairs := [][2]string{
		{"Flow", flowName(f)},
		{"Description", f.Description},
		{"Labels", labels(f.Labels)},
		{"State", state},
		{"Go on", a.resumeHint(f)},
		{"Problem", f.Problem},
		{"Source", f.Source},
		{"Delivery", f.Delivery},
		{"Order", f.Order},
		{"Slots", strconv.Itoa(f.Slots)},
		{"Lag", lag},
		{"Queue", queue},
		{"Revision", fmt.Sprintf("%d, applied %s ago", f.Revision, cli.Age(a.now(), f.Updated))},
		{"Created", cli.Stamp(f.Created)},
	}
	if p := purity(f); p != "" {
		pairs = append(pairs, [2]string{"Not pure", p + ": no replay, no comparison of versions"})
	}
	if format == cli.Wide {
		pairs = append(pairs, [2]string{"UID", f.UID}, [2]string{"Generation", fmt.Sprintf("%d, of deployments %d", f.Generation, f.DeployGeneration)})
	}
	if g := f.Figures; g != nil {
		pairs = append(pairs, [2]string{"Records", fmt.Sprintf("%d in, %d emitted, %d dropped, %d failed, %d tried again (in %s)",
			g.In, g.Emitted, g.Dropped, g.Failed, g.Retried, cli.Age(a.now(), g.Since))})
	}
	if err := cli.Pairs(w, pairs); err != nil {
		return err
	}
	if len(f.Stages) > 0 {
		fmt.Fprintln(w)
		if err := stageGrid(w, f.Stages); err != nil {
			return err
		}
	}
	if len(f.Partitions) > 0 {
		fmt.Fprintln(w)
		return partitionGrid(w, format, f.Partitions)
	}
	return nil
}

func labels(m map[string]string) string {
	var parts []string
	for k, v := range sorted(m) {
		parts = append(parts, k+"="+v)
	}
	return strings.Join(parts, ", ")
}

func stageGrid(w io.Writer, stages []api.Stage) error {
	var rows [][]string
	for _, s := range stages {
		each := ""
		if s.Records > 0 && s.Nanos > 0 {
			each = perRecord(float64(s.Nanos) / float64(s.Records))
		}
		rows = append(rows, []string{s.ID, s.Describe, s.Plugin, cli.Digest(s.Digest), s.Otherwise,
			strconv.FormatInt(s.Records, 10), strconv.FormatInt(s.Drops, 10), strconv.FormatInt(s.Failures, 10), each})
	}
	return cli.Grid(w, []string{"STAGE", "WHAT", "PLUGIN", "DIGEST", "OTHERWISE", "RECORDS", "DROPPED", "FAILED", "PER RECORD"}, rows)
}

func perRecord(nanos float64) string {
	if nanos > 1e6 {
		return fmt.Sprintf("%.1f ms", nanos/1e6)
	}
	return fmt.Sprintf("%.1f µs", nanos/1e3)
}

// pausedNote is why a partition is not fetched from. With nothing in flight it
// waits for memory that other partitions hold.
func pausedNote(inFlight int) string {
	switch inFlight {
	case 0:
		return "fetching paused: records of other partitions wait for their delivery"
	case 1:
		return "fetching paused: 1 record waits for the delivery"
	}
	return fmt.Sprintf("fetching paused: %d records wait for the delivery", inFlight)
}

func partitionGrid(w io.Writer, format cli.Format, partitions []api.Partition) error {
	var rows [][]string
	for _, p := range partitions {
		note := p.Problem
		if note == "" && p.Paused {
			note = pausedNote(p.InFlight)
		}
		owner := p.Owner
		if format != cli.Wide {
			owner = cli.Shorten(owner, 9)
		}
		rows = append(rows, []string{fmt.Sprintf("%s/%d", p.Topic, p.Partition), strconv.FormatUint(uint64(p.Slot), 10), owner,
			cli.Count(p.Committed), cli.Count(p.Position), cli.Count(p.End), cli.Count(p.Lag), strconv.Itoa(p.InFlight), note})
	}
	return cli.Grid(w, []string{"PARTITION", "SLOT", "OWNER", "COMMITTED", "POSITION", "END", "LAG", "IN FLIGHT", "NOTE"}, rows)
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
		Use: "get [PROJECT/]NAME", Short: "Show a flow: state, lag, stages, partitions", Example: a.example("flow get orders", "flow get acme/orders -o json"),
		Args: a.args(1, 1, "NAME of the flow"),
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
			"entries is deleted only with --purge, and they with it. A later flow of the same\n" +
			"name is another one: it begins at its start.",
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
				DryRun  bool   `json:"dry_run,omitempty"`
			}
			r := result{Flow: f.Project + "/" + f.Name, Entries: f.Queue.Entries, DryRun: dryRun}
			if !dryRun {
				if err := node.DeleteFlow(cmd.Context(), f.Project, f.Name, purge); err != nil {
					e := cli.AsError(err)
					if e.Code == api.CodeQueueNotEmpty {
						e.Next = fmt.Sprintf("look at them with `%s queue peek %s`, or delete them too with `%s flow delete %s --purge`", a.program, args[0], a.program, args[0])
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
			entries := ""
			switch {
			case r.Entries > 0 && (purge || !dryRun):
				entries = fmt.Sprintf(" with %s of its failure queue", cli.Plural(r.Entries, "entry"))
			case r.Entries > 0:
				verb, entries = "would not be deleted", fmt.Sprintf(" without --purge: its failure queue holds %s", cli.Plural(r.Entries, "entry"))
			}
			_, err = fmt.Fprintf(a.stdout, "flow %s %s%s\n", shortFlow(r.Flow), verb, entries)
			return err
		},
	}
	cmd.Flags().BoolVar(&purge, "purge", false, "delete the entries of its failure queue too")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be deleted")
	return cmd
}

func (a *app) flowOffsets() *cobra.Command {
	get := &cobra.Command{
		Use: "get [PROJECT/]NAME", Short: "Show the offsets of a flow by partition", Example: a.example("flow offsets get orders", "flow offsets get orders -o ndjson"),
		Args: a.args(1, 1, "NAME of the flow"),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, _, err := a.getFlow(cmd, args[0])
			if err != nil {
				return err
			}
			partition := func(p api.Partition) string { return fmt.Sprintf("%s/%d", p.Topic, p.Partition) }
			return cli.View[api.Partition]{
				Name: partition,
				Columns: []cli.Column[api.Partition]{
					{Title: "PARTITION", Cell: partition},
					{Title: "COMMITTED", Cell: func(p api.Partition) string { return cli.Count(p.Committed) }},
					{Title: "POSITION", Cell: func(p api.Partition) string { return cli.Count(p.Position) }},
					{Title: "END", Cell: func(p api.Partition) string { return cli.Count(p.End) }},
					{Title: "LAG", Cell: func(p api.Partition) string { return cli.Count(p.Lag) }},
					{Title: "SLOT", Wide: true, Cell: func(p api.Partition) string { return fmt.Sprint(p.Slot) }},
					{Title: "OWNER", Wide: true, Cell: func(p api.Partition) string { return p.Owner }},
					{Title: "EPOCH", Wide: true, Cell: func(p api.Partition) string { return fmt.Sprint(p.Epoch) }},
				},
			}.List(a.stdout, a.format, f.Partitions)
		},
	}
	return a.groupCommand("offsets", "Show how far a flow has come", a.example("flow offsets get orders"), get)
}
