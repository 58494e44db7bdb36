package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
)

// deletion is what became of a flow that was to be deleted.
type deletion struct {
	Flow    string `json:"flow"` // project/name
	Deleted bool   `json:"deleted"`
	Entries uint64 `json:"entries"`
	Kept    uint64 `json:"kept"`
	DryRun  bool   `json:"dry_run,omitempty"`
}

func (a *app) flowDelete() *cobra.Command {
	var purge, dryRun bool
	cmd := &cobra.Command{
		Use: "delete [PROJECT/]NAME...", Short: "Delete flows, their offsets and their revisions",
		Long: "Delete flows, their offsets and their revisions. A flow whose failure queue holds\n" +
			"entries, or that keeps records for another attempt, is deleted only with --purge, and they\n" +
			"with it: a large queue in parts, while the flow is paused, so that what is interrupted goes\n" +
			"on with the next try. Of several flows those that can be are deleted, and the error says\n" +
			"which are not. A later flow of the same name is another one: it begins at its start.",
		Example: a.example("flow delete orders", "flow delete orders --purge", "flow delete orders acme/refunds --dry-run"),
		Args:    a.args(1, -1, "NAME of the flow"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var results []deletion
			err := eachFlow(cmd.Context(), args, "deleted", func(arg string) error {
				r, err := a.deleteFlow(cmd, arg, purge, dryRun)
				if err != nil {
					return err
				}
				results = append(results, r)
				if a.format.Human() {
					_, err = fmt.Fprintln(a.stdout, r.text(purge))
				}
				return err
			})
			view := cli.View[deletion]{Name: func(r deletion) string { return shortFlow(r.Flow) }}
			switch {
			case a.format.Human() || len(results) == 0:
				return err
			case len(args) == 1:
				return view.One(a.stdout, a.format, results[0])
			}
			return errors.Join(err, view.List(a.stdout, a.format, results))
		},
	}
	cmd.Flags().BoolVar(&purge, "purge", false, "delete the entries of its failure queue and what it keeps too")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be deleted")
	return cmd
}

func (a *app) deleteFlow(cmd *cobra.Command, arg string, purge, dryRun bool) (deletion, error) {
	f, node, err := a.getFlow(cmd, arg)
	if err != nil {
		return deletion{}, err
	}
	r := deletion{Flow: f.Project + "/" + f.Name, Entries: f.Queue.Entries, DryRun: dryRun, Deleted: !dryRun}
	if f.Retries != nil {
		r.Kept = f.Retries.Entries
	}
	if dryRun {
		return r, nil
	}
	if err := node.DeleteFlow(cmd.Context(), f.Project, f.Name, purge); err != nil {
		e := cli.AsError(err)
		if e.Code == api.CodeQueueNotEmpty {
			look := a.program + " queue peek " + arg
			if r.Entries == 0 && r.Kept > 0 {
				look += " --kept"
			}
			e.Next = fmt.Sprintf("look at them with `%s`, or delete them too with `%s flow delete %s --purge`", look, a.program, arg)
		}
		return deletion{}, e
	}
	return r, nil
}

// text is the result as a line.
func (r *deletion) text(purge bool) string {
	verb := "deleted"
	if r.DryRun {
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
	case len(holds) > 0 && (purge || !r.DryRun):
		entries = " with " + strings.Join(holds, " and ")
	case len(holds) > 0:
		verb, entries = "would not be deleted", " without --purge: there are "+strings.Join(holds, " and ")
	}
	return "flow " + shortFlow(r.Flow) + " " + verb + entries
}
