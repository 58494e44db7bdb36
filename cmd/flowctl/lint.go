package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
)

func (a *app) lintCommand() *cobra.Command {
	return &cobra.Command{
		Use: "lint PATH...", Short: "Check flows and connections without a node",
		Long: "Check flows and connections without a node. A PATH is a file, a folder (*.yaml and *.yml\n" +
			"in it), or - for STDIN. Plugin files are looked into; connections are looked for among\n" +
			"the documents. What only a node can know is a warning. The exit code is 2 if there are\n" +
			"errors, 0 with warnings alone.",
		Example: a.example("lint flow.yaml", "lint flows/ connections.yaml", "lint flow.yaml -o json"),
		Args:    a.args(1, -1, "PATH"),
		RunE: func(_ *cobra.Command, args []string) error {
			b, err := a.load(args)
			if err != nil {
				return err
			}
			problems := rendered(b.problems)
			failed := 0
			for _, p := range problems {
				if p.Level == "error" {
					failed++
				}
			}
			if a.format.Human() {
				cli.PrintProblems(a.stdout, problems)
				fmt.Fprintf(a.stderr, "%s in %s: %s, %s\n", cli.Plural(len(b.docs), "document"), cli.Plural(b.files, "file"),
					cli.Plural(failed, "error"), cli.Plural(len(problems)-failed, "warning"))
			} else if err := problemView.List(a.stdout, a.format, problems); err != nil {
				return err
			}
			if failed > 0 {
				return &cli.Error{Exit: cli.ExitInvalid, Code: cli.CodeLint, Detail: fmt.Sprintf("%s found", cli.Plural(failed, "error")), Next: "correct what is said above"}
			}
			return nil
		},
	}
}

var problemView = cli.View[api.Problem]{
	Name: func(p api.Problem) string { return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column) },
}
