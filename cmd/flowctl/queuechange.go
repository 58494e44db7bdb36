package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
)

// entriesHelp says how entries are named, for commands that change them.
const entriesHelp = "Entries are named as FLOW/SEQ, as `queue peek FLOW -o name` prints them; or FLOW is given\n" +
	"with a filter, as --class, or with --all."

// selected are entries of one flow.
type selected struct {
	flow, project, name string
	api.Selection
}

// selectionFlags choose entries by argument, filter, or all.
type selectionFlags struct {
	filterFlags
	all   bool
	limit int
}

func (f *selectionFlags) add(cmd *cobra.Command) {
	f.filterFlags.add(cmd)
	cmd.Flags().BoolVar(&f.all, "all", false, "all entries of the flow")
	cmd.Flags().IntVar(&f.limit, "limit", 0, "at most so many, the oldest")
}

// selection reads FLOW with a filter, or FLOW/SEQ several times.
func (f *selectionFlags) selection(a *app, cmd *cobra.Command, args []string) ([]*selected, error) {
	filter, err := f.filter(a, cmd)
	if err != nil {
		return nil, err
	}
	if f.limit < 0 {
		return nil, cli.Usage("give a number from 1", "--limit %d", f.limit)
	}
	filtered := filter != (api.FailureFilter{})
	var all []*selected
	for _, arg := range args {
		flow, seq, numbered := a.entryName(arg)
		if !numbered {
			flow = arg
		}
		s := &selected{flow: flow, Selection: api.Selection{Limit: f.limit}}
		if s.project, s.name, err = splitFlow(flow); err != nil {
			return nil, err
		}
		switch {
		case numbered && (filtered || f.all):
			return nil, cli.Usage("leave the filter out, or give only the flow", "%s is one entry already", arg)
		case numbered:
			if len(all) > 0 && all[len(all)-1].flow == flow {
				last := all[len(all)-1]
				last.Seqs = append(last.Seqs, seq)
				continue
			}
			s.Seqs = []uint64{seq}
		case f.all && filtered:
			return nil, cli.Usage("give one of them", "--all and a filter exclude each other")
		case f.all:
			s.All = true
		case filtered:
			s.Filter = &filter
		default:
			return nil, cli.Usage(fmt.Sprintf("name entries (%s/SEQ), give a filter as --class, or --all", flow), "%s: which entries of %s?", cmd.CommandPath(), flow)
		}
		all = append(all, s)
	}
	return all, nil
}

// from is where the entries of a selection are from, in messages.
func (s *selected) from() string { return shortFlow(s.project + "/" + s.name) }

func (a *app) queueReplay() *cobra.Command {
	var f selectionFlags
	var plugin string
	var dryRun bool
	cmd := &cobra.Command{
		Use: "replay [PROJECT/]FLOW[/SEQ]...", Short: "Send entries back to where they failed",
		Long: "Send entries back to where they failed: they leave the failure queue, are tried again at\n" +
			"once and go on from there, in order with the other records of their key. " + entriesHelp + "\n\n" +
			"The stage runs its present plugin; with --plugin failed the one that each record failed in;\n" +
			"with --plugin FILE.wasm the file's, which is stored first, for these records alone. What\n" +
			"fails again is filed again.\n\n" +
			"--dry-run sends nothing back: it says how many would go, runs them here as `replay` does,\n" +
			"100 of a flow at most, and shows what the plugin answers and how that differs from the\n" +
			"failure; the exit code is 4 if records would fail again. What deliveries do is not tried. A\n" +
			"plugin's file is stored all the same, since the node plans with it.",
		Example: a.example("queue replay orders/17 orders/18", "queue replay orders --class schema --dry-run", "queue replay orders --stage mask --plugin order-mask.wasm --dry-run",
			"queue replay orders --all"),
		Args: a.args(1, -1, "FLOW or FLOW/SEQ"),
		RunE: func(cmd *cobra.Command, args []string) error {
			chosen, err := f.selection(a, cmd, args)
			if err != nil {
				return err
			}
			node, err := a.node()
			if err != nil {
				return err
			}
			via := plugin
			var file *otherPlugin
			if isFilePlugin(plugin) {
				file = &otherPlugin{file: plugin}
				if file.wasm, err = os.ReadFile(a.path(plugin)); err != nil {
					return a.replayPluginError(plugin, err)
				}
				stored, err := a.upload(cmd.Context(), node, fileName(plugin), file.wasm)
				if err != nil {
					return err
				}
				via = stored.Digest
			}
			if dryRun {
				return a.dryReplay(cmd, node, chosen, via, file)
			}
			return a.replayEntries(cmd, node, chosen, via)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&plugin, "plugin", api.ReplayCurrent, "current, failed, or the file of a plugin, that the stage runs these records with")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would come of it")
	return cmd
}

// replayResult is what became of the entries of a flow.
type replayResult struct {
	Flow string `json:"flow"` // project/name
	*api.ReplayReport
	// Entries are what runs of them here came to, of a dry run.
	Entries []*replayed `json:"entries,omitempty"`
}

func (a *app) replayEntries(cmd *cobra.Command, node api.Backend, chosen []*selected, via string) error {
	var results []replayResult
	for _, s := range chosen {
		report, err := node.ReplayFailures(cmd.Context(), &api.ReplayFailures{Project: s.project, Name: s.name, Selection: s.Selection, Plugin: via})
		if err != nil {
			return a.missingFlow(cmd, node, s.flow, err)
		}
		results = append(results, replayResult{Flow: s.project + "/" + s.name, ReplayReport: report})
	}
	return a.showReplayed(results)
}

// showReplayed tells what became of entries, and is the error of those that
// were left out.
func (a *app) showReplayed(results []replayResult) error {
	var skipped, gone uint64
	for _, r := range results {
		skipped, gone = skipped+r.Skipped, gone+r.Replayed
	}
	if !a.format.Human() {
		if err := (cli.View[replayResult]{Name: func(r replayResult) string { return shortFlow(r.Flow) }}).List(a.stdout, a.format, results); err != nil {
			return err
		}
	}
	for _, r := range results {
		if a.format.Human() {
			verb := "sent back"
			if r.DryRun {
				verb = "would be sent back"
			}
			fmt.Fprintf(a.stdout, "%s of %s %s\n", cli.Plural(r.Replayed, "entry"), shortFlow(r.Flow), verb)
		}
		for _, p := range r.Problems {
			fmt.Fprintf(a.stderr, "%s/%d is left out: %s\n", shortFlow(r.Flow), p.Seq, cli.Safe(p.Detail))
		}
	}
	switch {
	case skipped > 0:
		return &cli.Error{Exit: cli.ExitFindings, Code: cli.CodeRecords, Detail: fmt.Sprintf("%s left out", cli.Plural(skipped, "entry")), Next: "see above why, for the first of them"}
	case gone == 0:
		return &cli.Error{Exit: cli.ExitFailed, Code: api.CodeNotFound, Detail: "no entry is chosen: there was nothing to replay", Next: fmt.Sprintf("list the entries with `%s queue peek FLOW`", a.program)}
	}
	return nil
}

// isFilePlugin tells a plugin's file from the words that --plugin takes.
func isFilePlugin(plugin string) bool {
	return plugin != api.ReplayCurrent && plugin != api.ReplayFailed && !strings.HasPrefix(plugin, "sha256:")
}

// replayPluginError is the error of a plugin's file that cannot be read.
func (a *app) replayPluginError(plugin string, err error) error {
	e := cli.AsError(a.fileError(plugin, a.path(plugin), err))
	if errors.Is(err, fs.ErrNotExist) {
		e.Next = "give --plugin current, --plugin failed, or the path of a plugin"
	}
	return e
}

// dropResult is what was dropped of a flow's queue.
type dropResult struct {
	Flow string `json:"flow"` // project/name
	*api.DropReport
}

func (a *app) queueDrop() *cobra.Command {
	var f selectionFlags
	var dryRun, yes bool
	cmd := &cobra.Command{
		Use: "drop [PROJECT/]FLOW[/SEQ]...", Short: "Remove entries from a failure queue for good",
		Long: "Remove entries from a failure queue for good; the flow's receipt counts them as dropped.\n" +
			"It asks before it does so, and takes only entries that were there when it asked.\n" + entriesHelp,
		Example: a.example("queue drop orders/17", "queue drop orders --class schema --until 2026-11-20 --dry-run", "queue drop orders --all --yes"),
		Args:    a.args(1, -1, "FLOW or FLOW/SEQ"),
		RunE: func(cmd *cobra.Command, args []string) error {
			chosen, err := f.selection(a, cmd, args)
			if err != nil {
				return err
			}
			node, err := a.node()
			if err != nil {
				return err
			}
			results, err := a.dropAll(cmd, node, chosen, true)
			if err != nil {
				return err
			}
			var entries uint64
			var names []string
			for i, r := range results {
				if entries += r.Dropped; r.Dropped > 0 {
					chosen[i].UpTo = r.Last
					names = append(names, shortFlow(r.Flow))
				}
			}
			if entries == 0 {
				return &cli.Error{Exit: cli.ExitFailed, Code: api.CodeNotFound, Detail: "no entry is chosen: there was nothing to drop", Next: fmt.Sprintf("list the entries with `%s queue peek FLOW`", a.program)}
			}
			if !dryRun {
				if err := a.confirm(fmt.Sprintf("drop %s of %s for good", cli.Plural(entries, "entry"), strings.Join(names, ", ")), yes); err != nil {
					return err
				}
				if results, err = a.dropAll(cmd, node, chosen, false); err != nil {
					return err
				}
			}
			if !a.format.Human() {
				return cli.View[dropResult]{Name: func(r dropResult) string { return shortFlow(r.Flow) }}.List(a.stdout, a.format, results)
			}
			for _, r := range results {
				verb := "dropped"
				if dryRun {
					verb = "would be dropped"
				}
				fmt.Fprintf(a.stdout, "%s of %s %s\n", cli.Plural(r.Dropped, "entry"), shortFlow(r.Flow), verb)
			}
			return nil
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say how many would be dropped")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// dropAll drops what is chosen, or counts it. Of a real drop, what a dry one
// did not find is left alone.
func (a *app) dropAll(cmd *cobra.Command, node api.Backend, chosen []*selected, dryRun bool) ([]dropResult, error) {
	var results []dropResult
	for _, s := range chosen {
		if !dryRun && s.UpTo == 0 {
			results = append(results, dropResult{Flow: s.project + "/" + s.name, DropReport: &api.DropReport{}})
			continue
		}
		report, err := node.DropFailures(cmd.Context(), &api.DropFailures{Project: s.project, Name: s.name, Selection: s.Selection, DryRun: dryRun})
		if err != nil {
			return nil, a.missingFlow(cmd, node, s.flow, err)
		}
		results = append(results, dropResult{Flow: s.project + "/" + s.name, DropReport: report})
	}
	return results, nil
}

// importResult is what became of entries that were imported.
type importResult struct {
	Flow string `json:"flow"` // project/name
	*api.ImportReport
}

func (a *app) queueImport() *cobra.Command {
	return &cobra.Command{
		Use: "import [PROJECT/]FLOW FILE", Short: "File entries that were exported in a failure queue",
		Long: "File entries that were exported in the failure queue of a flow, which must have read the\n" +
			"partitions that they name. FILE (- is STDIN) holds one entry a line, as `queue export`\n" +
			"writes them. Entries that are there already are passed over, so an import that broke off\n" +
			"can be repeated.",
		Example: a.example("queue import orders failed.ndjson", "queue import orders - < failed.ndjson"),
		Args:    a.args(2, 2, "FLOW", "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			project, name, err := splitFlow(args[0])
			if err != nil {
				return err
			}
			var in io.Reader = a.stdin
			if args[1] != "-" {
				f, err := os.Open(a.path(args[1]))
				if err != nil {
					return a.fileError(args[1], a.path(args[1]), err)
				}
				defer f.Close()
				in = f
			}
			node, err := a.node()
			if err != nil {
				return err
			}
			report, err := node.ImportFailures(cmd.Context(), project, name, in)
			if err != nil {
				return a.missingFlow(cmd, node, args[0], err)
			}
			r := importResult{Flow: project + "/" + name, ImportReport: report}
			if !a.format.Human() {
				return cli.View[importResult]{Name: func(r importResult) string { return shortFlow(r.Flow) }}.One(a.stdout, a.format, r)
			}
			_, err = fmt.Fprintf(a.stdout, "%s filed in the queue of %s, %d were there already\n", cli.Plural(r.Filed, "entry"), shortFlow(r.Flow), r.Present)
			return err
		},
	}
}
