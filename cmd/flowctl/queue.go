package main

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/runtime/record"
)

func (a *app) queueCommand() *cobra.Command {
	return a.groupCommand("queue", "Look into the failure queues of flows", a.example("queue list", "queue peek orders", "queue peek orders --class schema -n 3"),
		a.queueList(), a.queuePeek())
}

// queueLine is the failure queue of one flow.
type queueLine struct {
	Flow string `json:"flow"` // project/name
	api.Queue
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
}

func (a *app) queueList() *cobra.Command {
	return &cobra.Command{
		Use: "list [[PROJECT/]FLOW]", Short: "List failure queues and what they hold", Example: a.example("queue list", "queue list orders", "queue list -o json"),
		Args: a.args(0, 1, "FLOW"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var flows []*api.Flow
			if len(args) == 1 {
				f, _, err := a.getFlow(cmd, args[0])
				if err != nil {
					return err
				}
				flows = append(flows, f)
			} else {
				node, err := a.node()
				if err != nil {
					return err
				}
				if flows, err = node.Flows(cmd.Context(), ""); err != nil {
					return err
				}
			}
			var lines []queueLine
			for _, f := range flows {
				lines = append(lines, queueLine{Flow: f.Project + "/" + f.Name, Queue: f.Queue, State: f.State, Reason: f.Reason})
			}
			if len(lines) == 0 && a.format.Human() {
				fmt.Fprintln(a.stderr, "no flows, and so no queues")
				return nil
			}
			return cli.View[queueLine]{
				Name: func(l queueLine) string { return shortFlow(l.Flow) },
				Columns: []cli.Column[queueLine]{
					{Title: "FLOW", Cell: func(l queueLine) string { return shortFlow(l.Flow) }},
					{Title: "ENTRIES", Cell: func(l queueLine) string { return strconv.FormatUint(l.Entries, 10) }},
					{Title: "SIZE", Cell: func(l queueLine) string { return cli.Bytes(int64(l.Bytes)) }},
					{Title: "MAX ENTRIES", Cell: func(l queueLine) string { return strconv.FormatUint(l.MaxEntries, 10) }},
					{Title: "MAX SIZE", Cell: func(l queueLine) string { return cli.Bytes(int64(l.MaxBytes)) }},
					{Title: "STATE", Cell: func(l queueLine) string { return l.State }},
					{Title: "NOTE", Cell: func(l queueLine) string { return l.Reason }},
				},
			}.List(a.stdout, a.format, lines)
		},
	}
}

// maxPage is the largest page of a queue that a node answers.
const maxPage = 1000

func (a *app) queuePeek() *cobra.Command {
	var (
		class, stage, key string
		count             int
		after             uint64
	)
	cmd := &cobra.Command{
		Use: "peek [PROJECT/]FLOW", Short: "Show the oldest entries of a failure queue",
		Long: "Show the oldest entries of a failure queue: where each record failed, why, and the\n" +
			"record as the failing stage got it. Messages and inputs are cut to fit a line; -o wide\n" +
			"shows them whole, with the fuel that the failing call used; -o ndjson writes the entries as\n" +
			"`run --failures` does. `replay FLOW/SEQ` runs an entry again.",
		Example: a.example("queue peek orders", "queue peek orders -n 100 --class schema", "queue peek orders --stage mask --key c-17 -o wide"),
		Args:    a.args(1, 1, "FLOW"),
		RunE: func(cmd *cobra.Command, args []string) error {
			project, name, err := splitFlow(args[0])
			if err != nil {
				return err
			}
			if class != "" {
				if _, err := record.ParseClass(class); err != nil {
					return cli.Usage("see `"+cmd.CommandPath()+" --help`", "--class: %v", err)
				}
			}
			if count < 1 {
				return cli.Usage("give a number from 1", "-n %d: there is nothing to show", count)
			}
			node, err := a.node()
			if err != nil {
				return err
			}
			q := &api.FailureQuery{Project: project, Name: name, After: after, Class: class, Stage: stage, Key: key, HasKey: cmd.Flags().Changed("key")}
			var entries []*record.Entry
			var total uint64
			for len(entries) < count {
				q.Limit = min(count-len(entries), maxPage)
				page, err := node.Failures(cmd.Context(), q)
				if err != nil {
					return a.missingFlow(cmd, node, args[0], err)
				}
				entries, total = append(entries, page.Entries...), page.Total
				if page.Next == 0 {
					break
				}
				q.After = page.Next
			}
			if a.format.Human() {
				fmt.Fprintf(a.stderr, "%d of %s of %s\n", len(entries), cli.Plural(total, "entry"), shortFlow(project+"/"+name))
				if len(entries) == 0 {
					return nil
				}
			}
			return a.entryView().List(a.stdout, a.format, entries)
		},
	}
	cmd.Flags().IntVarP(&count, "count", "n", 10, "how many entries")
	cmd.Flags().Uint64Var(&after, "after", 0, "begin behind the entry with this number")
	cmd.Flags().StringVar(&class, "class", "", "only failures of this class, as schema or trap")
	cmd.Flags().StringVar(&stage, "stage", "", "only failures of this stage")
	cmd.Flags().StringVar(&key, "key", "", "only records with this key")
	_ = cmd.RegisterFlagCompletionFunc("class", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return slices.Clone(failureClasses), cobra.ShellCompDirectiveNoFileComp
	})
	return cmd
}

// failureClasses are those that lie in queues.
var failureClasses = []string{"rejected", "schema", "trap", "fuel", "memory", "protocol", "too_large", "retryable", "timeout"}

// textWidth is how much of a message or an input a table shows.
const textWidth = 60

func (a *app) entryView() cli.View[*record.Entry] {
	cut := func(s string) string {
		s = cli.Safe(s)
		if a.format == cli.Wide {
			return s
		}
		return cli.Shorten(s, textWidth)
	}
	return cli.View[*record.Entry]{
		Name: func(e *record.Entry) string { return shortFlow(e.Flow) + "/" + strconv.FormatUint(e.Seq, 10) },
		Columns: []cli.Column[*record.Entry]{
			{Title: "SEQ", Cell: func(e *record.Entry) string { return strconv.FormatUint(e.Seq, 10) }},
			{Title: "AGE", Cell: func(e *record.Entry) string { return cli.Age(a.now(), e.Time) }},
			{Title: "RECORD", Cell: func(e *record.Entry) string { return e.ID() }},
			{Title: "STAGE", Cell: func(e *record.Entry) string { return e.Stage }},
			{Title: "PLUGIN", Cell: func(e *record.Entry) string { return e.Plugin }},
			{Title: "DIGEST", Cell: func(e *record.Entry) string { return cli.Digest(e.Digest) }},
			{Title: "CLASS", Cell: func(e *record.Entry) string { return e.Class.String() }},
			{Title: "CODE", Wide: true, Cell: func(e *record.Entry) string { return strconv.FormatUint(uint64(e.Code), 10) }},
			{Title: "ATTEMPTS", Wide: true, Cell: func(e *record.Entry) string { return strconv.FormatUint(uint64(e.Attempts), 10) }},
			{Title: "FUEL", Wide: true, Cell: func(e *record.Entry) string {
				if e.Replay == nil || e.Replay.FuelLimit == 0 {
					return ""
				}
				return strconv.FormatInt(e.Replay.Fuel, 10)
			}},
			{Title: "KEY", Wide: true, Cell: func(e *record.Entry) string { return string(e.Input.Key) }},
			{Title: "MESSAGE", Cell: func(e *record.Entry) string { return cut(e.Message) }},
			{Title: "INPUT", Cell: func(e *record.Entry) string {
				if e.InputOmitted {
					return "(too large: read it at the source)"
				}
				return cut(string(e.Input.Value))
			}},
		},
	}
}
