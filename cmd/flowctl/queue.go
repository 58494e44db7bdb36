package main

import (
	"context"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/runtime/record"
)

func (a *app) queueCommand() *cobra.Command {
	return a.groupCommand("queue", "Look into failure queues, replay and drop what lies there",
		a.example("queue list", "queue peek orders --class schema -n 3", "queue replay orders --stage mask --dry-run", "queue export orders > failed.ndjson"),
		a.queueList(), a.queuePeek(), a.queueReplay(), a.queueDrop(), a.queueExport(), a.queueImport())
}

// filterFlags are the flags that choose entries.
type filterFlags struct {
	class, stage, key, since, until, where string
}

func (f *filterFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.class, "class", "", "only failures of this class, as schema or trap")
	cmd.Flags().StringVar(&f.stage, "stage", "", "only failures of this stage or delivery")
	cmd.Flags().StringVar(&f.key, "key", "", "only records with this key")
	cmd.Flags().StringVar(&f.since, "since", "", "only failures since "+momentHelp)
	cmd.Flags().StringVar(&f.until, "until", "", "only failures before a time, as for --since")
	cmd.Flags().StringVar(&f.where, "where", "", `only where this expression holds, as 'value.country == "DE" && failure.code >= 400'`)
	_ = cmd.RegisterFlagCompletionFunc("class", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return slices.Clone(failureClasses), cobra.ShellCompDirectiveNoFileComp
	})
}

// failureClasses are those that lie in queues.
var failureClasses = []string{"rejected", "schema", "trap", "fuel", "memory", "protocol", "too_large", "retryable", "timeout"}

// filter is what the flags choose.
func (f *filterFlags) filter(a *app, cmd *cobra.Command) (filter api.FailureFilter, err error) {
	if f.class != "" {
		if _, err := record.ParseClass(f.class); err != nil {
			return filter, cli.Usage("see `"+cmd.CommandPath()+" --help`", "--class: %v", err)
		}
	}
	filter = api.FailureFilter{Class: f.class, Stage: f.stage, Where: f.where}
	if cmd.Flags().Changed("key") {
		filter.Key = &f.key
	}
	if filter.Since, err = a.moment("since", f.since); err != nil {
		return filter, err
	}
	if filter.Until, err = a.moment("until", f.until); err != nil {
		return filter, err
	}
	if filter.Since != 0 && filter.Until != 0 && filter.Since >= filter.Until {
		return filter, cli.Usage("give an earlier --since or a later --until", "--since %s is not before --until %s: nothing lies between", f.since, f.until)
	}
	return filter, nil
}

// queueLine is the failure queue of one flow.
type queueLine struct {
	Flow string `json:"flow"` // project/name
	api.Queue
	// Chosen is how many entries the filter chooses, nil without one.
	Chosen *uint64      `json:"chosen,omitempty"`
	Kept   *api.Retries `json:"kept,omitempty"`
	State  string       `json:"state"`
	Reason string       `json:"reason,omitempty"`
}

func (a *app) queueList() *cobra.Command {
	var f filterFlags
	var kept bool
	cmd := &cobra.Command{
		Use: "list [[PROJECT/]FLOW]", Short: "List failure queues and what they hold",
		Long: "List failure queues and what they hold: of all flows, or of one. With a filter as --class\n" +
			"the column CHOSEN counts the entries that it chooses. --kept lists what flows keep for\n" +
			"another attempt instead: records that wait for a partner that is down, and those that wait\n" +
			"behind an earlier one of their key.",
		Example: a.example("queue list", "queue list orders -o json", "queue list --class trap --since 2h", "queue list --kept"),
		Args:    a.args(0, 1, "FLOW"),
		RunE: func(cmd *cobra.Command, args []string) error {
			filter, err := f.filter(a, cmd)
			if err != nil {
				return err
			}
			if kept && filter != (api.FailureFilter{}) {
				return cli.Usage("leave the filter out, or --kept", "a filter chooses entries of failure queues, and --kept lists what is kept")
			}
			lines, err := a.queueLines(cmd, args, filter, kept)
			if err != nil {
				return err
			}
			if len(lines) == 0 && a.format.Human() {
				cmd.PrintErrln("no flows, and so no queues")
				return nil
			}
			return a.queueView(kept, filter != (api.FailureFilter{})).List(a.stdout, a.format, lines)
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&kept, "kept", false, "list what is kept for another attempt")
	return cmd
}

// queueLines are the queues of the flows that args name, or of all; with kept
// what they keep is complete.
func (a *app) queueLines(cmd *cobra.Command, args []string, filter api.FailureFilter, kept bool) ([]queueLine, error) {
	node, err := a.node()
	if err != nil {
		return nil, err
	}
	var flows []*api.Flow
	if len(args) == 1 {
		f, _, err := a.getFlow(cmd, args[0])
		if err != nil {
			return nil, err
		}
		flows = append(flows, f)
	} else if flows, err = node.Flows(cmd.Context(), ""); err != nil {
		return nil, err
	}
	var lines []queueLine
	for _, f := range flows {
		if kept && len(args) == 0 && f.Retries != nil {
			// A list of flows does not count those that wait behind others.
			if f, err = node.Flow(cmd.Context(), f.Project, f.Name); err != nil {
				return nil, err
			}
		}
		l := queueLine{Flow: f.Project + "/" + f.Name, Queue: f.Queue, Kept: f.Retries, State: f.State, Reason: f.Reason}
		if filter != (api.FailureFilter{}) {
			if l.Chosen, err = countChosen(cmd.Context(), node, f, filter); err != nil {
				return nil, err
			}
		}
		lines = append(lines, l)
	}
	return lines, nil
}

// countChosen counts what a filter chooses without reading it.
func countChosen(ctx context.Context, node api.Backend, f *api.Flow, filter api.FailureFilter) (*uint64, error) {
	var none uint64
	if f.Queue.Entries == 0 {
		return &none, nil
	}
	report, err := node.DropFailures(ctx, &api.DropFailures{Project: f.Project, Name: f.Name, Selection: api.Selection{Filter: &filter}, DryRun: true})
	if err != nil {
		return nil, err
	}
	return &report.Dropped, nil
}

func (a *app) queueView(kept, filtered bool) cli.View[queueLine] {
	type column = cli.Column[queueLine]
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	view := cli.View[queueLine]{
		Name:    func(l queueLine) string { return shortFlow(l.Flow) },
		Columns: []column{{Title: "FLOW", Cell: func(l queueLine) string { return shortFlow(l.Flow) }}},
	}
	retries := func(l queueLine) api.Retries {
		if l.Kept == nil {
			return api.Retries{}
		}
		return *l.Kept
	}
	if kept {
		view.Columns = append(view.Columns,
			column{Title: "KEPT", Cell: func(l queueLine) string { return number(retries(l).Entries) }},
			column{Title: "SIZE", Cell: func(l queueLine) string { return cli.Bytes(int64(retries(l).Bytes)) }},
			column{Title: "BEHIND THEIR KEY", Cell: func(l queueLine) string { return number(retries(l).Held) }},
			column{Title: "NEXT ATTEMPT", Cell: func(l queueLine) string { return inFuture(a.now(), retries(l).NextDue) }})
	} else {
		view.Columns = append(view.Columns, column{Title: "ENTRIES", Cell: func(l queueLine) string { return number(l.Entries) }})
		if filtered {
			view.Columns = append(view.Columns, column{Title: "CHOSEN", Cell: func(l queueLine) string { return number(*l.Chosen) }})
		}
		view.Columns = append(view.Columns,
			column{Title: "SIZE", Cell: func(l queueLine) string { return cli.Bytes(int64(l.Bytes)) }},
			column{Title: "OLDEST", Cell: func(l queueLine) string { return cli.Age(a.now(), l.Oldest) }},
			column{Title: "KEPT", Cell: func(l queueLine) string { return number(retries(l).Entries) }},
			column{Title: "MAX ENTRIES", Wide: true, Cell: func(l queueLine) string { return number(l.MaxEntries) }},
			column{Title: "MAX SIZE", Wide: true, Cell: func(l queueLine) string { return cli.Bytes(int64(l.MaxBytes)) }},
			column{Title: "MAX AGE", Wide: true, Cell: func(l queueLine) string { return keepText(l.KeepMillis) }})
	}
	view.Columns = append(view.Columns,
		column{Title: "STATE", Cell: func(l queueLine) string { return l.State }},
		column{Title: "NOTE", Cell: func(l queueLine) string {
			switch {
			case l.Reason != "":
				return a.note(l.Reason)
			case len(l.Warnings) > 0:
				return a.note(l.Warnings[0])
			}
			return ""
		}})
	return view
}
