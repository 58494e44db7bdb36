package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
)

// codeDrift: documents and what is applied are not the same.
const codeDrift = "E_DRIFT"

// history are a flow's revisions, newest first.
func (a *app) history(cmd *cobra.Command, arg string) (revisions []*api.Revision, node api.Backend, err error) {
	project, name, err := splitFlow(arg)
	if err != nil {
		return nil, nil, err
	}
	if node, err = a.node(); err != nil {
		return nil, nil, err
	}
	if revisions, err = node.Revisions(cmd.Context(), project, name); err != nil {
		return nil, nil, a.missingFlow(cmd, node, arg, err)
	}
	if len(revisions) == 0 {
		return nil, nil, &cli.Error{Exit: cli.ExitFailed, Code: api.CodeNotFound, Detail: fmt.Sprintf("flow %s has no revisions", arg)}
	}
	return revisions, node, nil
}

// historyLine is a revision with how it differs from the one before.
type historyLine struct {
	*api.Revision
	Current bool `json:"current,omitempty"`
	// Added and Removed count lines of the document against the revision
	// before; the first one has none.
	Added   int `json:"added"`
	Removed int `json:"removed"`
	// Plugins are what changed of the plugins: "stage: old -> new".
	Plugins []string `json:"plugins,omitempty"`
}

func (a *app) historyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "history [PROJECT/]FLOW", Short: "List the revisions of a flow",
		Long: "List the revisions of a flow, newest first: when each was made, how many lines of the\n" +
			"document and which plugins it changed, and how its pre-flight ended. `diff FLOW REV` shows a\n" +
			"change, `rollback` takes one back.",
		Example: a.example("history orders", "history orders -o json"), Args: a.args(1, 1, "FLOW"),
		RunE: func(cmd *cobra.Command, args []string) error {
			revisions, _, err := a.history(cmd, args[0])
			if err != nil {
				return err
			}
			lines := make([]historyLine, len(revisions))
			for i, r := range revisions {
				lines[i] = historyLine{Revision: r, Current: i == 0}
				if i+1 < len(revisions) {
					before := revisions[i+1]
					for _, d := range lineDiff(before.Document, r.Document) {
						switch d.op {
						case '+':
							lines[i].Added++
						case '-':
							lines[i].Removed++
						}
					}
					lines[i].Plugins = pluginChanges(before, r)
				}
			}
			return cli.View[historyLine]{
				Name: func(l historyLine) string { return strconv.FormatUint(uint64(l.Revision.Revision), 10) },
				Columns: []cli.Column[historyLine]{
					{Title: "REVISION", Cell: func(l historyLine) string {
						if l.Current {
							return fmt.Sprintf("%d (current)", l.Revision.Revision)
						}
						return strconv.FormatUint(uint64(l.Revision.Revision), 10)
					}},
					{Title: "AGE", Cell: func(l historyLine) string { return cli.Age(a.now(), l.At) }},
					{Title: "MADE", Wide: true, Cell: func(l historyLine) string { return cli.Stamp(l.At) }},
					{Title: "LINES", Cell: func(l historyLine) string {
						if l.Added == 0 && l.Removed == 0 {
							return ""
						}
						return fmt.Sprintf("+%d -%d", l.Added, l.Removed)
					}},
					{Title: "PLUGINS", Cell: func(l historyLine) string { return strings.Join(l.Plugins, ", ") }},
					{Title: "PRE-FLIGHT", Cell: func(l historyLine) string { return seenText(l.Preflight) }},
				},
			}.List(a.stdout, a.format, lines)
		},
	}
}

// pluginChanges names the stages whose plugin is another one.
func pluginChanges(old, now *api.Revision) []string {
	short := func(pin string) string {
		version, digest, _ := strings.Cut(pin, " ")
		if pin == "" {
			return "(none)"
		}
		return version + " (" + cli.Digest(digest) + ")"
	}
	var out []string
	for stage, pin := range sorted(now.Pinned) {
		if old.Pinned[stage] != pin {
			out = append(out, fmt.Sprintf("%s: %s -> %s", stage, short(old.Pinned[stage]), short(pin)))
		}
	}
	for stage, pin := range sorted(old.Pinned) {
		if _, ok := now.Pinned[stage]; !ok {
			out = append(out, fmt.Sprintf("%s: %s -> (none)", stage, short(pin)))
		}
	}
	return out
}

// revision finds one by its number.
func (a *app) revision(revisions []*api.Revision, flow, arg string) (*api.Revision, error) {
	n, err := strconv.ParseUint(arg, 10, 32)
	if err != nil || n == 0 {
		return nil, cli.Usage(fmt.Sprintf("`%s history %s` lists them", a.program, flow), "%q is not the number of a revision", arg)
	}
	at := slices.IndexFunc(revisions, func(r *api.Revision) bool { return r.Revision == uint32(n) })
	if at < 0 {
		return nil, &cli.Error{Exit: cli.ExitFailed, Code: api.CodeNotFound, Detail: fmt.Sprintf("flow %s has no revision %d (any more)", flow, n), Next: fmt.Sprintf("`%s history %s` lists those that are there", a.program, flow)}
	}
	return revisions[at], nil
}

func (a *app) diffCommand() *cobra.Command {
	var vars []string
	cmd := &cobra.Command{
		Use: "diff PATH|FLOW [REV [REV]]", Short: "Show how documents differ from what is applied, or revisions from each other",
		Long: "Of a PATH (a file or a folder of documents, - for STDIN): what `apply` would change. It asks\n" +
			"the node as `apply --dry-run` does, which uploads plugins that flows name by path and\n" +
			"changes nothing else; the exit code is 4 if something would change.\n\n" +
			"Of a FLOW: the lines of its document, and the plugins, that its newest revision changed;\n" +
			"with REV those between that revision and the newest, with two those between them.",
		Example: a.example("diff flow.yaml", "diff flows/ --var currency=EUR", "diff orders", "diff orders 3", "diff orders 3 5"),
		Args:    a.args(1, 3, "PATH or FLOW"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if a.namesDocuments(args[0]) {
				if len(args) > 1 {
					return cli.Usage("leave them out, or name the flow", "revisions go with a flow, and %s is a file", args[0])
				}
				return a.diffDocuments(cmd.Context(), args[0], vars)
			}
			if len(vars) > 0 {
				return cli.Usage("leave it out", "--var goes with documents, and there is no file %s", args[0])
			}
			return a.diffRevisions(cmd, args[0], args[1:])
		},
	}
	cmd.Flags().StringArrayVar(&vars, "var", nil, "NAME=VALUE overrides a var of the flows that have it; may be repeated")
	return cmd
}

// namesDocuments tells a path from the name of a flow.
func (a *app) namesDocuments(arg string) bool {
	if arg == "-" || holdsDocuments(arg) {
		return true
	}
	_, err := os.Stat(a.path(arg))
	return err == nil
}

func (a *app) diffDocuments(ctx context.Context, path string, vars []string) error {
	values, err := parseVars(vars)
	if err != nil {
		return err
	}
	_, _, results, err := a.planDocuments(ctx, []string{path}, values)
	if err != nil {
		return err
	}
	changed := 0
	for _, r := range results {
		if cli.PrintProblems(a.stderr, r.warnings); r.Action != "unchanged" {
			changed++
		}
		if a.format.Human() {
			printApplied(a.stdout, r)
		}
	}
	if !a.format.Human() {
		if err := (cli.View[applied]{Name: func(r applied) string { return r.Kind + "/" + shortFlow(r.Name) }}).List(a.stdout, a.format, results); err != nil {
			return err
		}
	}
	if changed == 0 {
		return nil
	}
	return &cli.Error{Exit: cli.ExitFindings, Code: codeDrift, Detail: fmt.Sprintf("%d of %s would change what is applied", changed, cli.Plural(len(results), "document")), Next: fmt.Sprintf("`%s apply -f %s` applies them", a.program, path)}
}

// revisionDiff is what lies between two revisions.
type revisionDiff struct {
	From    uint32   `json:"from"`
	To      uint32   `json:"to"`
	Plugins []string `json:"plugins,omitempty"`
	// Lines are those of the document that were removed (-) and added (+), and
	// some around them.
	Lines []string `json:"lines"`
}

func (a *app) diffRevisions(cmd *cobra.Command, flow string, args []string) error {
	revisions, _, err := a.history(cmd, flow)
	if err != nil {
		return err
	}
	to := revisions[0]
	var from *api.Revision
	switch {
	case len(args) > 0:
		if from, err = a.revision(revisions, flow, args[0]); err != nil {
			return err
		}
		if len(args) > 1 {
			if to, err = a.revision(revisions, flow, args[1]); err != nil {
				return err
			}
		}
	case len(revisions) < 2:
		return &cli.Error{Exit: cli.ExitFailed, Code: api.CodeNotFound, Detail: fmt.Sprintf("flow %s has one revision: there is nothing to compare it with", flow), Next: fmt.Sprintf("`%s flow get %s -o yaml` shows its document", a.program, flow)}
	default:
		from = revisions[1]
	}
	d := revisionDiff{From: from.Revision, To: to.Revision, Plugins: pluginChanges(from, to), Lines: hunks(lineDiff(from.Document, to.Document))}
	if !a.format.Human() {
		return cli.View[revisionDiff]{Name: func(d revisionDiff) string { return fmt.Sprintf("%d..%d", d.From, d.To) }}.One(a.stdout, a.format, d)
	}
	return writeDiff(a.stdout, flow, &d)
}

func writeDiff(w io.Writer, flow string, d *revisionDiff) error {
	var errs []error
	line := func(format string, args ...any) {
		_, err := fmt.Fprintf(w, format+"\n", args...)
		errs = append(errs, err)
	}
	line("--- %s revision %d", flow, d.From)
	line("+++ %s revision %d", flow, d.To)
	for _, p := range d.Plugins {
		line("plugin of %s", cli.Safe(p))
	}
	for _, l := range d.Lines {
		line("%s", cli.Safe(l))
	}
	if len(d.Lines) == 0 && len(d.Plugins) == 0 {
		line("no difference")
	}
	return errors.Join(errs...)
}

func (a *app) rollbackCommand() *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use: "rollback [PROJECT/]FLOW [REV]", Short: "Make an earlier revision of a flow the present one",
		Long: "Make an earlier revision of a flow the present one: its document and the plugins that it\n" +
			"had then, byte for byte, as a new revision. Without REV it is the one before the present\n" +
			"one. Records that are under way and offsets stay as they are; a running flow switches\n" +
			"between two batches.",
		Example: a.example("rollback orders --dry-run", "rollback orders", "rollback orders 3"),
		Args:    a.args(1, 2, "FLOW"),
		RunE: func(cmd *cobra.Command, args []string) error {
			revisions, node, err := a.history(cmd, args[0])
			if err != nil {
				return err
			}
			var to *api.Revision
			switch {
			case len(args) > 1:
				if to, err = a.revision(revisions, args[0], args[1]); err != nil {
					return err
				}
			case len(revisions) < 2:
				return &cli.Error{Exit: cli.ExitFailed, Code: api.CodeNotFound, Detail: fmt.Sprintf("flow %s has one revision: there is none to go back to", args[0])}
			default:
				to = revisions[1]
			}
			project, name, err := splitFlow(args[0])
			if err != nil {
				return err
			}
			plan, err := node.Rollback(cmd.Context(), &api.Rollback{Project: project, Name: name, Revision: to.Revision, IfMatch: revisions[0].Revision, DryRun: dryRun})
			if err != nil {
				return err
			}
			cli.PrintProblems(a.stderr, plan.Warnings)
			if !a.format.Human() {
				return cli.View[*api.FlowPlan]{Name: func(p *api.FlowPlan) string { return shortFlow(p.Project + "/" + p.Name) }}.One(a.stdout, a.format, plan)
			}
			a.printFlowPlan(a.stdout, plan)
			if plan.Action != "unchanged" {
				fmt.Fprintf(a.stdout, "  as revision %d was\n", plan.From)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would change")
	return cmd
}
