package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/runtime/record"
)

// maxPage is the largest page of a queue that a node answers.
const maxPage = 1000

// keepText is how long a queue keeps its entries.
func keepText(millis int64) string {
	switch d := time.Duration(millis) * time.Millisecond; {
	case d == 0:
		return ""
	case d%(24*time.Hour) == 0:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	default:
		return strings.TrimSuffix(strings.TrimSuffix(d.String(), "0s"), "0m")
	}
}

// turnPages hands out the entries that q chooses, oldest first, until take
// wants no more; total is the number of all that the queue holds.
func turnPages(ctx context.Context, node api.Backend, q api.FailureQuery, take func(e *record.Entry) (more bool, err error)) (total uint64, err error) {
	for {
		page, err := node.Failures(ctx, &q)
		if err != nil {
			return 0, err
		}
		total = page.Total
		for _, e := range page.Entries {
			if more, err := take(e); err != nil || !more {
				return total, err
			}
		}
		if page.Next == 0 {
			return total, nil
		}
		q.After = page.Next
	}
}

func (a *app) queuePeek() *cobra.Command {
	var (
		f     filterFlags
		count int
		after uint64
		kept  bool
	)
	cmd := &cobra.Command{
		Use: "peek [PROJECT/]FLOW", Short: "Show the oldest entries of a failure queue",
		Long: "Show the oldest entries of a failure queue: where each record failed, why, and the\n" +
			"record as the failing stage got it. Messages and inputs are cut to fit a line; -o wide\n" +
			"shows them whole, with the fuel that the failing call used; -o ndjson writes the entries as\n" +
			"`run --failures` does, and -o yaml is how to read one with its requests and attempts.\n" +
			"`replay FLOW/SEQ` runs an entry again. --kept shows what the flow keeps for another attempt.",
		Example: a.example("queue peek orders", "queue peek orders -n 100 --class schema --since 2h", "queue peek orders --stage mask --key c-17 -o wide",
			`queue peek orders --where 'value.amount > 1000 && failure.code == 422'`, "queue peek orders --kept"),
		Args: a.args(1, 1, "FLOW"),
		RunE: func(cmd *cobra.Command, args []string) error {
			filter, err := f.filter(a, cmd)
			if err != nil {
				return err
			}
			if count < 1 {
				return cli.Usage("give a number from 1", "-n %d: there is nothing to show", count)
			}
			if kept {
				return a.peekKept(cmd, args[0], filter, count)
			}
			project, name, err := splitFlow(args[0])
			if err != nil {
				return err
			}
			node, err := a.node()
			if err != nil {
				return err
			}
			var entries []*record.Entry
			q := api.FailureQuery{Project: project, Name: name, After: after, Limit: min(count, maxPage), FailureFilter: filter}
			total, err := turnPages(cmd.Context(), node, q, func(e *record.Entry) (bool, error) {
				entries = append(entries, e)
				return len(entries) < count, nil
			})
			if err != nil {
				return a.missingFlow(cmd, node, args[0], err)
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
	cmd.Flags().BoolVar(&kept, "kept", false, "show what is kept for another attempt; --stage and --key choose")
	f.add(cmd)
	return cmd
}

// peekKept shows what a flow keeps.
func (a *app) peekKept(cmd *cobra.Command, arg string, filter api.FailureFilter, count int) error {
	rest := filter
	rest.Stage, rest.Key = "", nil
	if rest != (api.FailureFilter{}) || cmd.Flags().Changed("after") {
		return cli.Usage("leave the others out", "with --kept only --stage, --key and -n choose")
	}
	project, name, err := splitFlow(arg)
	if err != nil {
		return err
	}
	node, err := a.node()
	if err != nil {
		return err
	}
	q := &api.RetryQuery{Project: project, Name: name, Stage: filter.Stage, Key: filter.Key}
	var entries []*api.Retry
	var total uint64
	for len(entries) < count {
		q.Limit = min(count-len(entries), maxPage)
		page, err := node.Retries(cmd.Context(), q)
		if err != nil {
			return a.missingFlow(cmd, node, arg, err)
		}
		entries, total = append(entries, page.Entries...), page.Total
		if q.After = page.Next; q.After == "" {
			break
		}
	}
	if a.format.Human() {
		fmt.Fprintf(a.stderr, "%d of %s that %s keeps\n", len(entries), cli.Plural(total, "record"), shortFlow(project+"/"+name))
		if len(entries) == 0 {
			return nil
		}
	}
	return a.keptView().List(a.stdout, a.format, entries)
}

func (a *app) queueExport() *cobra.Command {
	var f filterFlags
	var out string
	cmd := &cobra.Command{
		Use: "export [PROJECT/]FLOW", Short: "Write entries of a failure queue as JSON, one a line",
		Long: "Write entries of a failure queue as JSON, one a line, whole: inputs, requests, answers and\n" +
			"attempts. They stay in the queue. `queue import` files them again, `replay` runs them again\n" +
			"without a node.",
		Example: a.example("queue export orders > failed.ndjson", "queue export orders --class schema --since 2026-11-20 --out failed.ndjson"),
		Args:    a.args(1, 1, "FLOW"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if !a.format.Human() && a.format != cli.NDJSON {
				return cli.Usage("leave -o out", "entries are exported as ndjson, not as %s", a.format)
			}
			filter, err := f.filter(a, cmd)
			if err != nil {
				return err
			}
			project, name, err := splitFlow(args[0])
			if err != nil {
				return err
			}
			node, err := a.node()
			if err != nil {
				return err
			}
			w, done, err := a.exportTo(out)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, done()) }()
			write, written := writeEntries(w), 0
			q := api.FailureQuery{Project: project, Name: name, Limit: exportPage, FailureFilter: filter}
			total, err := turnPages(cmd.Context(), node, q, func(e *record.Entry) (bool, error) {
				written++
				return true, write(e)
			})
			if err != nil {
				return a.missingFlow(cmd, node, args[0], err)
			}
			fmt.Fprintf(a.stderr, "%d of %s of %s\n", written, cli.Plural(total, "entry"), shortFlow(project+"/"+name))
			return nil
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "write to this file instead of STDOUT")
	f.add(cmd)
	return cmd
}

// exportPage bounds a page of an export: entries may be of a megabyte.
const exportPage = 50

// exportTo is where an export goes, and what ends it.
func (a *app) exportTo(path string) (io.Writer, func() error, error) {
	var f io.Writer = a.stdout
	end := func() error { return nil }
	if path != "" {
		file, err := os.Create(a.path(path))
		if err != nil {
			return nil, nil, a.outputError(path, a.path(path), err)
		}
		f, end = file, file.Close
	}
	w := bufio.NewWriter(f)
	return w, func() error { return errors.Join(w.Flush(), end()) }, nil
}
