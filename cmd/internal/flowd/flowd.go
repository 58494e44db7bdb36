// Package flowd is the program flowd without its main: flags, configuration,
// log, signals and exit codes around a node. flowctl calls it too, where it
// starts a node by executing itself.
//
// What a node does is package daemon's.
package flowd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/cmd/internal/config"
	"github.com/millrace-io/millrace/cmd/internal/daemon"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/flow"
)

// Version is x.y of the program; a release build sets it with
// -ldflags "-X github.com/millrace-io/millrace/cmd/internal/flowd.Version=x.y".
var Version = "0.1"

// Run is the whole program; args are without its name, environ is of
// os.Environ's form. It returns the exit code: 0, also after a soft stop; 1 if
// the node failed; 2 for invalid flags or configuration; 3 if the surroundings
// do not let it start (a locked folder, a taken port); 130 or 143 after a
// second signal, which ends the node at once: then the caller must exit, for
// parts of it are still running.
//
// An end of ctx, SIGINT or SIGTERM stop the node softly. When the admin API
// can be asked, the message "node ready" is logged to stderr with addr, data,
// pid and ms since the call.
func Run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == compilePlugin {
		return sandbox.RunCompileChild(os.Stdin, stdout, args[1:])
	}
	p := &program{
		compile: compileCommand(os.Args, args),
		name:    cli.Program(filepath.ToSlash(os.Args[0]), "flowd"), environ: environ, stdout: stdout, stderr: stderr,
		open: func(ctx context.Context, cfg daemon.Config) (daemonNode, error) {
			d, err := daemon.Open(ctx, cfg)
			if err != nil {
				return nil, err
			}
			return d, nil
		},
		notify: notify,
	}
	return p.run(ctx, args)
}

// compilePlugin is the command by which a node executes itself to compile an
// uploaded plugin in a process of its own, with limits.
const compilePlugin = "compile-plugin"

// compileCommand is how this program is executed again to compile a plugin: as
// it was called, with another command of flowd's. It is nil when Run was not
// called with the program's own arguments.
func compileCommand(called, args []string) []string {
	exe, err := os.Executable()
	if err != nil || len(called) <= len(args) || !slices.Equal(called[len(called)-len(args):], args) {
		return nil
	}
	return append(append([]string{exe}, called[1:len(called)-len(args)]...), compilePlugin)
}

// program is one call of the program with its surroundings.
type program struct {
	// compile is the command that compiles a plugin; nil: this process does.
	compile        []string
	name           string
	environ        []string
	stdout, stderr io.Writer
	open           func(ctx context.Context, cfg daemon.Config) (daemonNode, error)
	// notify subscribes to the signals that end the program.
	notify func() (signals <-chan os.Signal, release func())
}

func (p *program) run(ctx context.Context, args []string) int {
	root := p.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return cli.ExitOK
	}
	e := p.explain(err)
	if e.Detail != "" {
		e.Print(p.stderr, false)
	}
	return e.Exit
}

func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:               "flowd",
		Short:             "The node of Millrace: it runs flows",
		Example:           p.examples("run", "run -c /etc/millrace/flowd.yaml", "check-config -c flowd.yaml"),
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		Annotations:       map[string]string{cobra.CommandDisplayNameAnnotation: p.name},
		Args:              cobra.ArbitraryArgs,
		RunE:              group,
	}
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	root.SetHelpCommand(&cobra.Command{Hidden: true})
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return cli.Usage(flagHint(cmd, err), "%s: %v", cmd.CommandPath(), err)
	})
	root.AddCommand(p.runCommand(), p.checkCommand(), p.versionCommand())
	return root
}

// settingFlags are the flags of run that are settings too, by key.
var settingFlags = []struct{ name, key, usage string }{
	{"data", "data", "data folder (default: ./data)"},
	{"listen", "listen", "HOST:PORT of the admin API, a loopback address; port 0 takes a free one (default: 127.0.0.1:7070)"},
	{"log-level", "log.level", "debug, info, warn or error (default: info)"},
	{"log-format", "log.format", "text or json (default: text)"},
}

func (p *program) runCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use: "run", Short: "Run a node until SIGTERM or SIGINT",
		Long: "Run a node. A first SIGTERM or SIGINT stops it softly: records under way are finished\n" +
			"and committed. A second one ends it at once; what was not committed is read again.\n\n" +
			"Flags beat environment variables (FLOWD_LISTEN, FLOWD_LIMITS__WINDOW: two underscores\n" +
			"a level), which beat the file. Without a file the defaults hold.",
		Example: p.examples("run", "run --data /var/lib/millrace --listen 127.0.0.1:7070", "run -c /etc/millrace/flowd.yaml"),
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var flags []config.Flag
			for _, f := range settingFlags {
				if given := cmd.Flags().Lookup(f.name); given.Changed {
					flags = append(flags, config.Flag{Name: "--" + f.name, Key: f.key, Value: given.Value.String()})
				}
			}
			if err := checkPath(cmd, path); err != nil {
				return err
			}
			cfg, err := config.Load(path, p.environ, flags...)
			if err != nil {
				return p.invalid(path, err)
			}
			return p.serve(cmd.Context(), cfg)
		},
	}
	cmd.Flags().StringVarP(&path, "config", "c", "", "configuration `file` (default: none)")
	for _, f := range settingFlags {
		cmd.Flags().String(f.name, "", f.usage)
	}
	return cmd
}

func (p *program) checkCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use: "check-config", Short: "Check a configuration and show every setting with its origin",
		Example: p.examples("check-config", "check-config -c /etc/millrace/flowd.yaml"),
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkPath(cmd, path); err != nil {
				return err
			}
			cfg, err := config.Load(path, p.environ)
			if err != nil {
				return p.invalid(path, err)
			}
			var rows [][]string
			for _, s := range cfg.Settings() {
				rows = append(rows, []string{s.Key, s.Value, s.Origin})
			}
			return cli.Grid(p.stdout, []string{"SETTING", "VALUE", "FROM"}, rows)
		},
	}
	cmd.Flags().StringVarP(&path, "config", "c", "flowd.yaml", "configuration `file`")
	return cmd
}

func (p *program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version of flowd", Example: p.examples("version"), Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(p.stdout, "millrace flowd %s\n%s", Version, buildText())
			return err
		},
	}
}

// buildText says what the program was built from.
func buildText() string {
	text := fmt.Sprintf("%s %s/%s", runtime.Version(), runtime.GOOS, runtime.GOARCH)
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				text += " " + s.Value
			}
		}
	}
	return text + "\n"
}

func (p *program) examples(lines ...string) string {
	return "  " + p.name + " " + strings.Join(lines, "\n  "+p.name+" ")
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return cli.Usage(fmt.Sprintf("see `%s --help`", cmd.CommandPath()), "%s: unexpected argument %q", cmd.CommandPath(), args[0])
	}
	return nil
}

// checkPath refuses an empty -c, which would mean no file.
func checkPath(cmd *cobra.Command, path string) error {
	if path == "" && cmd.Flags().Changed("config") {
		return cli.Usage("name a file, or leave -c out", "%s: -c is empty", cmd.CommandPath())
	}
	return nil
}

// group runs the program without a command: its help, or what is wrong.
func group(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	var names []string
	for _, c := range cmd.Commands() {
		if !c.Hidden {
			names = append(names, c.Name())
		}
	}
	hint := fmt.Sprintf("see `%s --help`", cmd.CommandPath())
	if near := cli.Nearest(args[0], names); near != "" {
		hint = fmt.Sprintf("did you mean `%s %s`?", cmd.CommandPath(), near)
	}
	return cli.Usage(hint, "%s: unknown command %q", cmd.CommandPath(), args[0])
}

func flagHint(cmd *cobra.Command, err error) string {
	if e, ok := errors.AsType[*pflag.NotExistError](err); ok {
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		if near := cli.Nearest(e.GetSpecifiedName(), names); near != "" {
			return fmt.Sprintf("did you mean --%s?", near)
		}
	}
	return fmt.Sprintf("see `%s --help`", cmd.CommandPath())
}

// invalid is the error of a configuration that cannot be used.
func (p *program) invalid(path string, err error) error {
	e := &cli.Error{Exit: cli.ExitInvalid, Code: CodeConfig, Detail: err.Error(), Err: err}
	faults, ok := errors.AsType[*flow.Errors](err)
	if !ok {
		return e
	}
	for _, f := range faults.Problems {
		e.Problems = append(e.Problems, api.Problem{Code: string(f.Code), Level: string(f.Level), File: f.File, Line: f.Line, Column: f.Column,
			Message: f.Message, Help: f.Help, Rendered: f.Render()})
	}
	e.Detail = fmt.Sprintf("the configuration has %s", cli.Plural(len(faults.Problems), "fault"))
	e.Next = "mend what is named"
	if path != "" {
		e.Next = fmt.Sprintf("mend what is named; `%s check-config -c %s` checks without starting a node", p.name, path)
	}
	return e
}
