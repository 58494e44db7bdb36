package main

import (
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/cmd/internal/devbroker"
)

func (a *app) brokerCommand() *cobra.Command {
	cfg := devbroker.Config{Listen: "127.0.0.1:19092"}
	var verbose bool
	cmd := &cobra.Command{
		Use: "broker", Short: "Run a Kafka broker for development and tests",
		Long: "Run a Kafka broker for development and tests until it is interrupted: one node, no\n" +
			"replication, topics made on demand. It prints its address once it can be reached. Without\n" +
			"--dir it keeps its records in memory.",
		Example: a.example("broker", "broker --listen 127.0.0.1:19092 --dir ./broker", "broker --listen 127.0.0.1:0 -o json"),
		Args:    a.args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			level := slog.LevelWarn
			if verbose {
				level = slog.LevelDebug
			}
			cfg.Logger = slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: level}))
			b, err := devbroker.Start(cfg)
			if err != nil {
				return &cli.Error{Exit: cli.ExitUnreachable, Code: cli.CodeFailed, Detail: err.Error(), Next: "choose another --listen or --dir, or stop what holds it", Err: err}
			}
			type address struct {
				Address string `json:"address"`
				Dir     string `json:"dir,omitempty"`
			}
			err = cli.View[address]{
				Name:    func(v address) string { return v.Address },
				Columns: []cli.Column[address]{{Title: "ADDRESS", Cell: func(v address) string { return v.Address }}},
			}.One(a.stdout, a.format, address{b.Addr(), cfg.Dir})
			if err != nil {
				return fmt.Errorf("%w, and closing the broker: %v", err, b.Close())
			}
			if a.format.Human() {
				fmt.Fprintf(a.stderr, "Ctrl-C stops it. Test it: `%s connection test kafka://%s`\n", a.program, b.Addr())
			}
			<-cmd.Context().Done()
			return b.Close()
		},
	}
	cmd.Flags().StringVar(&cfg.Listen, "listen", cfg.Listen, "HOST:PORT to listen on; port 0 picks a free one")
	cmd.Flags().StringVar(&cfg.Dir, "dir", "", "folder that keeps topics and records")
	cmd.Flags().IntVar(&cfg.Partitions, "partitions", 4, "partitions of topics that are made on demand")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "log what the broker does")
	return cmd
}
