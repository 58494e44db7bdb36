package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
)

func (a *app) flowOffsets() *cobra.Command {
	return a.groupCommand("offsets", "Show how far a flow has come, or let it go on elsewhere",
		a.example("flow offsets get orders", "flow offsets reset orders --to earliest --dry-run"), a.offsetsGet(), a.offsetsReset())
}

func (a *app) offsetsGet() *cobra.Command {
	return &cobra.Command{
		Use: "get [PROJECT/]NAME", Short: "Show the offsets of a flow by partition", Example: a.example("flow offsets get orders", "flow offsets get orders -o ndjson"),
		Args: a.args(1, 1, "NAME of the flow"),
		RunE: func(cmd *cobra.Command, args []string) error {
			project, name, err := splitFlow(args[0])
			if err != nil {
				return err
			}
			node, err := a.node()
			if err != nil {
				return err
			}
			o, err := node.Offsets(cmd.Context(), project, name)
			if err != nil {
				return a.missingFlow(cmd, node, args[0], err)
			}
			type offset = api.PartitionOffset
			partition := func(p offset) string { return partitionName(p.Topic, p.Broker, p.Partition) }
			return cli.View[offset]{
				Name: partition,
				Columns: []cli.Column[offset]{
					{Title: "PARTITION", Cell: partition},
					{Title: "START", Cell: func(p offset) string { return cli.Count(p.Start) }},
					{Title: "COMMITTED", Cell: func(p offset) string { return cli.Count(p.Committed) }},
					{Title: "POSITION", Cell: func(p offset) string { return cli.Count(p.Position) }},
					{Title: "END", Cell: func(p offset) string { return cli.Count(p.End) }},
					{Title: "LAG", Cell: func(p offset) string { return cli.Count(p.Lag) }},
				},
			}.List(a.stdout, a.format, o.Partitions)
		},
	}
}

const targetHelp = "give earliest, latest, a time as 2026-11-21T08:30:00Z or 2h (two hours ago), -N for N offsets back, or PARTITION=OFFSET for single partitions"

// resetTarget reads the values of --to.
func resetTarget(to []string, now time.Time) (req api.OffsetsReset, err error) {
	for _, s := range to {
		if partition, offset, ok := strings.Cut(s, "="); ok {
			t, err := offsetTarget(partition, offset)
			if err != nil {
				return req, err
			}
			req.Positions = append(req.Positions, t)
			continue
		}
		if req.To != "" {
			return req, cli.Usage("give one of them", "--to %s and --to %s exclude each other", req.To, s)
		}
		if req.To, err = flowTarget(s, now); err != nil {
			return req, err
		}
	}
	if req.To != "" && len(req.Positions) > 0 {
		return req, cli.Usage("give one of them", "--to %s moves all partitions and excludes single ones", req.To)
	}
	return req, nil
}

// flowTarget is a target for all partitions as a node reads it.
func flowTarget(s string, now time.Time) (string, error) {
	if s == api.OffsetsEarliest || s == api.OffsetsLatest {
		return s, nil
	}
	if back, ok := strings.CutPrefix(s, "-"); ok {
		if n, err := strconv.ParseInt(back, 10, 64); err == nil && n > 0 && back[0] != '+' {
			return "-" + strconv.FormatInt(n, 10), nil
		}
	} else if t, ok := parseMoment(s, now); ok {
		return t.UTC().Format(time.RFC3339Nano), nil
	}
	return "", cli.Usage(targetHelp, "--to %q is no place to go on at", s)
}

// offsetTarget reads [TOPIC/]PARTITION=OFFSET, or TOPIC/BROKER/QUEUE=OFFSET.
func offsetTarget(partition, offset string) (t api.OffsetTarget, err error) {
	number := partition
	if at := strings.LastIndexByte(partition, '/'); at >= 0 {
		t.Topic, number = partition[:at], partition[at+1:]
		broker := false
		if t.Topic, t.Broker, broker = strings.Cut(t.Topic, "/"); t.Topic == "" || broker && t.Broker == "" {
			number = ""
		}
	}
	p, perr := strconv.ParseInt(number, 10, 32)
	n, oerr := strconv.ParseInt(offset, 10, 64)
	if perr != nil || oerr != nil || p < 0 || n < 0 {
		return t, cli.Usage("write PARTITION=OFFSET, TOPIC/PARTITION=OFFSET or, of RocketMQ, TOPIC/BROKER/QUEUE=OFFSET, as 0=1200", "--to %q names no offset of a partition", partition+"="+offset)
	}
	t.Partition, t.Offset = int32(p), n
	return t, nil
}

func (a *app) offsetsReset() *cobra.Command {
	var to []string
	var dryRun, yes bool
	cmd := &cobra.Command{
		Use: "reset [PROJECT/]NAME --to TARGET", Short: "Let a flow go on elsewhere in its source",
		Long: "Let a flow go on elsewhere in its source: what lies before is read again, what lies behind\n" +
			"is skipped. A TARGET is earliest, latest, a time (the first record that is not older), -N (N\n" +
			"offsets back from where the flow is), or PARTITION=OFFSET, several times, which leaves the\n" +
			"other partitions where they are. The plan is shown, and asked about, first; what is carried\n" +
			"out is that plan or nothing. A running flow is paused for the change and goes on afterwards.\n" +
			"It begins a new generation: a partner that knows records by their Idempotency-Key takes\n" +
			"those that are read again for new ones.",
		Example: a.example("flow offsets reset orders --to earliest --dry-run", "flow offsets reset orders --to 2026-11-21T08:30:00Z", "flow offsets reset orders --to -1000 --yes",
			"flow offsets reset orders --to 0=1200 --to 3=900"),
		Args: a.args(1, 1, "NAME of the flow"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(to) == 0 {
				return cli.Usage(targetHelp, "%s: missing flag --to", cmd.CommandPath())
			}
			req, err := resetTarget(to, a.now())
			if err != nil {
				return err
			}
			if req.Project, req.Name, err = splitFlow(args[0]); err != nil {
				return err
			}
			node, err := a.node()
			if err != nil {
				return err
			}
			req.DryRun = true
			plan, err := node.ResetOffsets(cmd.Context(), &req)
			if err != nil {
				return a.missingFlow(cmd, node, args[0], err)
			}
			if a.format.Human() {
				if err := a.showMoves(plan); err != nil {
					return err
				}
			}
			if dryRun {
				return a.showReset(plan)
			}
			if err := a.confirm(fmt.Sprintf("let flow %s go on there", shortFlow(plan.Flow)), yes); err != nil {
				return err
			}
			req.DryRun, req.Hash = false, plan.Hash
			done, err := node.ResetOffsets(cmd.Context(), &req)
			if err != nil {
				return err
			}
			return a.showReset(done)
		},
	}
	cmd.Flags().StringArrayVar(&to, "to", nil, "where to go on: earliest, latest, TIME, -N, or [TOPIC/[BROKER/]]PARTITION=OFFSET; the last may be repeated")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only show the plan")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// showMoves writes the plan of a reset.
func (a *app) showMoves(plan *api.OffsetsPlan) error {
	var rows [][]string
	for _, m := range plan.Partitions {
		from := "-"
		if m.From >= 0 {
			from = strconv.FormatInt(m.From, 10)
		}
		rows = append(rows, []string{partitionName(m.Topic, m.Broker, m.Partition), from, strconv.FormatInt(m.To, 10), cli.Count(m.Repeated), cli.Count(m.Skipped), m.Note})
	}
	if err := cli.Grid(a.stdout, []string{"PARTITION", "FROM", "TO", "REPEATED", "SKIPPED", "NOTE"}, rows); err != nil {
		return err
	}
	for _, w := range plan.Warnings {
		fmt.Fprintln(a.stderr, "note: "+cli.Safe(w))
	}
	if plan.State == api.StateRunning && plan.DryRun {
		fmt.Fprintln(a.stderr, "note: the flow is running: it is paused for the change and goes on afterwards")
	}
	return nil
}

func (a *app) showReset(plan *api.OffsetsPlan) error {
	if !a.format.Human() {
		return cli.View[*api.OffsetsPlan]{Name: func(p *api.OffsetsPlan) string { return shortFlow(p.Flow) }}.One(a.stdout, a.format, plan)
	}
	verb := "goes on there"
	if plan.DryRun {
		verb = "would go on there"
	}
	_, err := fmt.Fprintf(a.stdout, "flow %s %s, in generation %d: %s to be read again, %s skipped\n", shortFlow(plan.Flow), verb, plan.Generation, cli.Plural(plan.Repeated, "record"), cli.Count(plan.Skipped))
	return err
}
