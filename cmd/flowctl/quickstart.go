package main

import (
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/millrace-io/millrace/cmd/internal/quickstart"
)

func (a *app) quickstartCommand() *cobra.Command {
	cfg := quickstart.Config{Records: quickstart.DefaultRecords}
	cmd := &cobra.Command{
		Use: "quickstart", Short: "Start a node, send records through a plugin, kill the node, and see that nothing is lost",
		Long: "Start a node and an embedded Kafka, send order events through the plugin of examples/orders,\n" +
			"kill the node half way (SIGKILL), start it again, and compare what lies in the output topic\n" +
			"and in the failure queue with what must lie there. Afterwards the node stays up, to be tried\n" +
			"out, until Ctrl-C. The exit code is 1 if a promise was broken.",
		Example: a.example("quickstart", "quickstart --once -o json", "quickstart --dir ./data --records 20000"),
		Args:    a.args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.Format, cfg.Program = a.format, a.program
			cfg.Stdout, cfg.Stderr, cfg.Terminal = a.stdout, a.stderr, onTerminal(a.stderr)
			return quickstart.Run(cmd.Context(), cfg)
		},
	}
	cmd.Flags().StringVar(&cfg.Dir, "dir", "", "folder that keeps the data and may hold that of earlier runs (default: a temporary one)")
	cmd.Flags().IntVar(&cfg.Records, "records", cfg.Records, "how many order events to send")
	cmd.Flags().BoolVar(&cfg.Once, "once", false, "end with the report instead of keeping the node up")
	return cmd
}

func onTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func readsTerminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
