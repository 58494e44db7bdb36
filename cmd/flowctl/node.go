package main

import (
	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/cmd/internal/flowd"
)

// nodeCommand is flowd inside flowctl, for commands that start a node by
// executing the program again: `node run --data DIR --listen HOST:PORT`.
func (a *app) nodeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "node", Short: "Run flowd in this program", Hidden: true, DisableFlagParsing: true,
		Example: a.example("node run --data ./data --listen 127.0.0.1:7070"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if code := flowd.Run(cmd.Context(), args, a.environ, a.stdout, a.stderr); code != cli.ExitOK {
				return &cli.Error{Exit: code} // flowd has said why
			}
			return nil
		},
	}
}
