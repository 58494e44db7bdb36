package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/cmd/internal/dev"
	"github.com/millrace-io/millrace/cmd/internal/flowd"
	"github.com/millrace-io/millrace/cmd/internal/project"
	"github.com/millrace-io/millrace/plugins/sandbox"
)

func (a *app) devCommand() *cobra.Command {
	cfg := dev.Config{Rate: dev.DefaultRate}
	var lang string
	cmd := &cobra.Command{
		Use: "dev [DIR]", Short: "Run a node around a plugin that is being written, and swap it on every save",
		Long: "Run a node and a Kafka broker around the plugin in DIR (default: this folder) until Ctrl-C:\n" +
			"it feeds testdata/*.ndjson to the topic in, shows a line a record, and on every save builds,\n" +
			"tests and deploys the plugin while records flow. A build or a test that fails leaves the old\n" +
			"version running. The flow is the one document of a flow in DIR, else topic in, the plugin,\n" +
			"topic out; its Kafka connections are the broker here. deploy, queue, replay, send and the\n" +
			"others find the node from any folder below DIR.\n\n" +
			"For development only: no TLS, no tokens, one copy of everything. The state is in\n" +
			"DIR/.millrace/dev and is there again the next time.",
		Example: a.example("dev", "dev ./mask --rate 10", "dev --no-feed --ephemeral"),
		Args:    a.args(0, 1, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !a.format.Human() {
				return cli.Usage("leave -o out; `flowctl queue`, `flow get` and the others have it", "-o %s: dev shows lines for people only", a.format)
			}
			if cmd.Flags().Changed("rate") && cfg.Rate == 0 {
				return cli.Usage("give a number above 0, or --no-feed", "--rate 0: nothing would be fed")
			}
			return a.dev(cmd.Context(), cfg, args, lang)
		},
	}
	cmd.Flags().StringVar(&lang, "lang", "", "language of the project: "+project.LangList()+" (default: as its files say)")
	cmd.Flags().StringVar(&cfg.Flow, "flow", "", "file of the flow to run (default: the one in DIR, else one is made)")
	cmd.Flags().Float64Var(&cfg.Rate, "rate", cfg.Rate, "records a second to feed")
	cmd.Flags().BoolVar(&cfg.NoFeed, "no-feed", false, "feed nothing; `flowctl send` does")
	cmd.Flags().BoolVar(&cfg.Ephemeral, "ephemeral", false, "keep the state in a temporary folder, which is removed at the end")
	cmd.Flags().StringVar(&cfg.Listen, "listen", "", "HOST:PORT of the node (default: the first free port from 7070 on)")
	cmd.Flags().StringVar(&cfg.Broker, "broker", "", "HOST:PORT of Kafka (default: the first free port from 19092 on)")
	cmd.Flags().BoolVarP(&cfg.Verbose, "verbose", "v", false, "show what the compiler says in every build, and what the node logs")
	return cmd
}

func (a *app) dev(ctx context.Context, cfg dev.Config, args []string, lang string) (err error) {
	dir := a.dir
	if len(args) > 0 {
		dir = a.path(args[0])
	}
	var want []project.Lang
	if lang != "" {
		l, err := project.ParseLang(lang)
		if err != nil {
			return err
		}
		want = append(want, l)
	}
	p, err := project.Find(dir, want...)
	if err != nil {
		return err
	}
	if cfg.Flow != "" {
		cfg.Flow = a.path(cfg.Flow)
	}
	cache := compileCache()
	rt, err := sandbox.New(ctx, sandbox.Config{CacheDir: cache})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rt.Close(context.WithoutCancel(ctx))) }()
	built, err := os.MkdirTemp("", "millrace-dev-build-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(built)) }()
	if !cfg.Ephemeral {
		cache = dev.NodeCache(p.Dir)
	}
	cfg.Project = &dev.Authors{P: p, Env: a.environ, Output: filepath.Join(built, filepath.Base(p.WasmPath())), Sandbox: rt, CacheDir: cache, LoadFlow: a.loadTestFlow}
	cfg.Program, cfg.Version, cfg.Getenv = a.program, flowd.Version, a.getenv
	cfg.Stdout, cfg.Stderr = a.stdout, a.stderr
	cfg.Colour = onTerminal(a.stdout) && a.getenv("NO_COLOR") == ""
	return dev.Run(ctx, cfg)
}
