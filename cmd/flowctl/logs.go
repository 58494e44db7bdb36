package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
)

// maxLogLines is how many lines a node keeps of a flow.
const maxLogLines = 1000

// logWait is how long one question waits for a line with --follow.
const logWait = 20 * time.Second

func (a *app) logsCommand() *cobra.Command {
	var level string
	var lines int
	var follow bool
	cmd := &cobra.Command{
		Use: "logs [PROJECT/]FLOW[.STAGE]", Short: "Show what the plugins of a flow log",
		Long: "Show what the plugins of a flow log and write to STDERR, with the record that a line is about;\n" +
			"where the plugin did not say which, with the first and the last of its batch. A node keeps the\n" +
			"last 1,000 lines and 128 KiB of a flow, in memory. Lines of a record that failed lie in the\n" +
			"failure queue too.",
		Example: a.example("logs orders", "logs orders.mask -f", "logs orders --level warn -n 20"),
		Args:    a.args(1, 1, "FLOW"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if lines < 0 || lines > maxLogLines {
				return cli.Usage("give 0 for all that is kept", "--lines %d: a node keeps %d lines", lines, maxLogLines)
			}
			node, err := a.node()
			if err != nil {
				return err
			}
			q, err := a.logQuery(cmd.Context(), node, args[0])
			if err != nil {
				return a.missingFlow(cmd, node, args[0], err)
			}
			q.Level, q.Limit = level, lines
			return a.printLogs(cmd.Context(), node, q, follow)
		},
	}
	cmd.Flags().StringVar(&level, "level", "", "the least level: debug, info, warn, error")
	cmd.Flags().IntVarP(&lines, "lines", "n", 100, "how many of the last lines, 0 for all")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with new lines until Ctrl-C")
	return cmd
}

// logQuery tells the flow from the stage in FLOW.STAGE: a name of a flow may
// have dots, and the longest one that is there counts.
func (a *app) logQuery(ctx context.Context, node api.Backend, arg string) (*api.LogQuery, error) {
	project, name, err := splitFlow(arg)
	if err != nil {
		return nil, err
	}
	_, err = node.Flow(ctx, project, name)
	for at := len(name); err != nil && cli.AsError(err).Code == api.CodeNotFound; {
		if at = strings.LastIndexByte(name[:at], '.'); at <= 0 {
			return nil, err
		}
		f, shorter := node.Flow(ctx, project, name[:at])
		if shorter == nil {
			stage := name[at+1:]
			return &api.LogQuery{Project: project, Name: name[:at], Stage: stage}, stageOf(f, stage)
		}
		if cli.AsError(shorter).Code != api.CodeNotFound {
			return nil, shorter
		}
	}
	return &api.LogQuery{Project: project, Name: name}, err
}

// stageOf reports that a flow has no such stage with a plugin.
func stageOf(f *api.Flow, stage string) error {
	var names []string
	for _, s := range f.Stages {
		if s.ID == stage || strings.HasPrefix(stage, s.ID+".") {
			return nil
		}
		names = append(names, s.ID)
	}
	next := "its stages are " + strings.Join(names, ", ")
	if near := cli.Nearest(stage, names); near != "" {
		next = "did you mean " + near + "? Otherwise " + next
	}
	return cli.Usage(next, "flow %s has no stage %q", flowName(f), stage)
}

func (a *app) printLogs(ctx context.Context, node api.Backend, q *api.LogQuery, follow bool) error {
	for {
		page, err := node.Logs(ctx, q)
		if err != nil {
			return err
		}
		if page.Missed > 0 {
			fmt.Fprintf(a.stderr, "(%s not kept any more)\n", cli.Plural(int(page.Missed), "line"))
		}
		if follow && !a.format.Human() {
			a.format = cli.NDJSON
		}
		if err := a.logLines(page.Lines); err != nil || !follow {
			return err
		}
		q.After, q.Limit, q.WaitMillis = page.Next, 0, int(logWait/time.Millisecond)
	}
}

func (a *app) logLines(lines []api.LogLine) error {
	if !a.format.Human() {
		return cli.View[api.LogLine]{Name: func(l api.LogLine) string { return l.Line }}.List(a.stdout, a.format, lines)
	}
	var b strings.Builder
	for i := range lines {
		l := &lines[i]
		fmt.Fprintf(&b, "%s %-5s %s %s: %s\n", cli.Stamp(l.At), strings.ToUpper(l.Level), l.Stage, aboutOf(l), l.Line)
	}
	_, err := io.WriteString(a.stdout, b.String())
	return err
}

// aboutOf is what a line is about.
func aboutOf(l *api.LogLine) string {
	switch {
	case l.Filed:
		return l.Record + " (failed)"
	case l.Record != "":
		return l.Record
	case l.First == "":
		return "start of " + l.Plugin
	}
	return "one of " + l.First + " .. " + l.Last
}
