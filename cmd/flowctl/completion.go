package main

import (
	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/cli"
)

func (a *app) completionCommand() *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use: "completion bash|zsh|fish|powershell", Short: "Print the completion script of a shell",
		Example:   a.example("completion bash > /etc/bash_completion.d/flowctl", "completion zsh > \"${fpath[1]}/_flowctl\"", "completion fish | source"),
		Args:      a.args(1, 1, "SHELL"),
		ValidArgs: shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			root.Annotations = nil // the script completes the installed program
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.stdout, true)
			case "zsh":
				return root.GenZshCompletion(a.stdout)
			case "fish":
				return root.GenFishCompletion(a.stdout, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(a.stdout)
			}
			return cli.Usage("use one of bash, zsh, fish and powershell", "%q is not a shell that can be completed", args[0])
		},
	}
}
