package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/runtime/flow"
)

// defaultServer is asked when nothing names another node.
const defaultServer = "http://127.0.0.1:7070"

// app is one call of the program: its surroundings and its global flags.
type app struct {
	getenv         func(string) string
	environ        []string // all of it, for a node in this program
	stdin          io.Reader
	stdout, stderr io.Writer
	// dir is the working folder, from which .millrace/node is looked for.
	dir string
	now func() time.Time
	// terminal reports whether somebody sits there to answer a question.
	terminal func() bool
	// program and flowd are what hints call the two programs.
	program, flowd string
	// connect makes the client of a node by its base URL.
	connect func(base string) api.Backend

	server string
	output string
	format cli.Format
}

// commands are the commands of the program, in the order of its help.
func (a *app) commands() []*cobra.Command {
	return []*cobra.Command{
		a.quickstartCommand(),
		a.devCommand(),
		a.sendCommand(),
		a.doctorCommand(),
		a.newCommand(),
		a.buildCommand(),
		a.testCommand(),
		a.benchCommand(),
		a.applyCommand(),
		a.lintCommand(),
		a.deployCommand(),
		a.runCommand(),
		a.replayCommand(),
		a.diffCommand(),
		a.historyCommand(),
		a.rollbackCommand(),
		a.logsCommand(),
		a.flowCommand(),
		a.queueCommand(),
		a.pluginCommand(),
		a.connectionCommand(),
		a.brokerCommand(),
		a.twinCommand(),
		a.nodeCommand(),
		a.completionCommand(),
		a.versionCommand(),
	}
}

func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return cli.ExitOK
	}
	e := a.explain(ctx, err)
	if e.Code != "" {
		e.Print(a.stderr, a.wantsJSON(args))
	}
	return e.Exit
}

// explain turns err into what the user is shown, and adds the next step where
// only flowctl knows it.
func (a *app) explain(ctx context.Context, err error) *cli.Error {
	e := cli.AsError(err)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		e = &cli.Error{Exit: cli.ExitInterrupted, Code: cli.CodeInterrupted, Detail: "interrupted", Err: err}
	}
	if e.Code == cli.CodeUnreachable {
		if _, from, serr := a.serverURL(); serr == nil {
			e.Next = fmt.Sprintf("start one: `%s run`, or name another with --server", a.flowd)
			if from != fromFlag && from != fromDefaults {
				e.Next += fmt.Sprintf(" (this address is from %s)", from)
			}
		}
	}
	return e
}

// cause is the innermost reason of a failed call.
func cause(err error) string {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err.Error()
		}
		err = next
	}
}

// wantsJSON reports whether errors are to be JSON: also where the flags could
// not be read to their end.
func (a *app) wantsJSON(args []string) bool {
	want := a.output
	if want == "" || want == string(cli.Table) {
		want = a.getenv("FLOWCTL_OUTPUT")
		for i, arg := range args {
			switch {
			case arg == "--":
				return want == string(cli.JSON)
			case (arg == "-o" || arg == "--output") && i+1 < len(args):
				want = args[i+1]
			case strings.HasPrefix(arg, "--output="):
				want = strings.TrimPrefix(arg, "--output=")
			case strings.HasPrefix(arg, "-o"):
				want = strings.TrimPrefix(strings.TrimPrefix(arg, "-o"), "=")
			}
		}
	}
	return want == string(cli.JSON) || want == string(cli.NDJSON)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "flowctl",
		Short: "Stream processing with WebAssembly plugins",
		Long: "flowctl deploys plugins and flows to a Millrace node, shows what they do, and runs\n" +
			"them without a node.",
		Example:           a.example("run upper.wasm < records.txt", "apply -f flow.yaml", "flow list", "queue peek orders"),
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		Annotations:       map[string]string{cobra.CommandDisplayNameAnnotation: a.program},
		Args:              cobra.ArbitraryArgs,
		RunE:              a.group,
		PersistentPreRunE: a.prepare,
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetHelpCommand(&cobra.Command{Hidden: true})
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return cli.Usage(a.flagHint(cmd, err), "%s: %v", cmd.CommandPath(), err)
	})
	root.PersistentFlags().StringVar(&a.server, "server", "", "host:port or http://host:port of the node (default: the nearest .millrace/node, else "+defaultServer+")")
	root.PersistentFlags().StringVarP(&a.output, "output", "o", string(cli.Table), "output format: "+cli.FormatList())
	root.AddCommand(a.commands()...)
	return root
}

// ownFlag is the annotation of a flag that has the name of a global one and
// another meaning: the environment is not asked for it.
const ownFlag = "own"

// prepare reads the environment and the global flags; it runs before every
// command.
func (a *app) prepare(cmd *cobra.Command, _ []string) error {
	var errs []error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		name := "FLOWCTL_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if v := a.getenv(name); v != "" && !f.Changed && f.Name != "help" && f.Name != "server" && f.Annotations[ownFlag] == nil {
			if err := cmd.Flags().Set(f.Name, v); err != nil {
				errs = append(errs, cli.Usage(fmt.Sprintf("unset %s or correct it", name), "%s=%q: %v", name, v, err))
			}
		}
	})
	if err := errors.Join(errs...); err != nil {
		return errs[0]
	}
	var err error
	a.format, err = cli.ParseFormat(a.output)
	return err
}

// flagHint is the next step after a flag that cannot be read.
func (a *app) flagHint(cmd *cobra.Command, err error) string {
	hint := fmt.Sprintf("see `%s --help`", cmd.CommandPath())
	if e, ok := errors.AsType[*pflag.NotExistError](err); ok {
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		cmd.InheritedFlags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		if near := cli.Nearest(e.GetSpecifiedName(), names); near != "" {
			return fmt.Sprintf("did you mean --%s? Otherwise %s", near, hint)
		}
	}
	return hint
}

// group runs a command that only holds others: without arguments its help,
// else the argument is a command that does not exist.
func (a *app) group(cmd *cobra.Command, args []string) error {
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
		hint = fmt.Sprintf("did you mean `%s %s`? Otherwise %s", cmd.CommandPath(), near, hint)
	}
	return cli.Usage(hint, "%s: unknown command %q", cmd.CommandPath(), args[0])
}

// groupCommand is a noun whose verbs are commands.
func (a *app) groupCommand(name, short, example string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: name, Short: short, Example: example, Args: cobra.ArbitraryArgs, RunE: a.group}
	cmd.AddCommand(commands...)
	return cmd
}

// example is an Example text: one line for each call, with the program's name.
func (a *app) example(calls ...string) string {
	lines := make([]string, len(calls))
	for i, c := range calls {
		lines[i] = "  " + a.program + " " + c
	}
	return strings.Join(lines, "\n")
}

// args checks the number of arguments; names are what they are, for the
// message. The last one may be given several times if max is below 0.
func (a *app) args(min, max int, names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		hint := fmt.Sprintf("see `%s --help`", cmd.CommandPath())
		switch {
		case len(args) < min:
			return cli.Usage(fmt.Sprintf("give it: `%s`; %s", strings.TrimSuffix(cmd.UseLine(), " [flags]"), hint), "%s: missing argument %s", cmd.CommandPath(), names[len(args)])
		case max >= 0 && len(args) > max:
			return cli.Usage(hint, "%s: unexpected argument %q", cmd.CommandPath(), args[max])
		}
		return nil
	}
}

// Where an address of a node may be found, beside the environment and a file.
const (
	fromFlag     = "--server"
	fromDefaults = "the defaults"
)

// serverURL is the node's base URL, and where it was found.
func (a *app) serverURL() (base, from string, err error) {
	base, from = a.server, fromFlag
	if base == "" {
		base, from = a.getenv("FLOWCTL_SERVER"), "FLOWCTL_SERVER"
	}
	if base == "" {
		base, from = nodeFile(a.dir)
	}
	if base == "" {
		base, from = defaultServer, fromDefaults
	}
	host, next := nodeAddress(base)
	if next != "" {
		return "", "", cli.Usage(next, "%s: %q is not the address of a node", from, base)
	}
	return "http://" + host, from, nil
}

// nodeAddress is the host and port of host:port or http://host:port, or what
// to write instead.
func nodeAddress(s string) (host, next string) {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		scheme, rest = "http", s
	}
	u, err := url.Parse("http://" + rest)
	switch {
	case err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return "", "give host:port or http://host:port"
	case scheme != "http" && scheme != "https":
		return "", "give host:port or http://host:port"
	}
	host = u.Host
	if u.Port() == "" {
		host = strings.TrimSuffix(host, ":") + ":7070"
	}
	switch {
	case scheme == "https":
		return "", "a node has no TLS yet: write http://" + host
	case u.Port() == "":
		return "", "add the port: " + host
	}
	if port, err := strconv.Atoi(u.Port()); err != nil || port < 1 || port > 65535 {
		return "", "a port is a number from 1 to 65535"
	}
	return host, ""
}

// nodeFile is the content of the nearest .millrace/node upward, and its path.
func nodeFile(dir string) (base, path string) {
	for dir != "" {
		path := filepath.Join(dir, ".millrace", "node")
		if b, err := os.ReadFile(path); err == nil {
			if base, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n"); base != "" {
				return strings.TrimSpace(base), path
			}
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			break
		}
		dir = parent
	}
	return "", ""
}

// node is the client of the node that the flags name.
func (a *app) node() (api.Backend, error) {
	base, _, err := a.serverURL()
	if err != nil {
		return nil, err
	}
	return a.connect(base), nil
}

// splitFlow reads [project/]name.
func splitFlow(s string) (project, name string, err error) {
	project, name, ok := strings.Cut(s, "/")
	if !ok {
		project, name = flow.DefaultProject, s
	}
	if project == "" || name == "" || strings.Contains(name, "/") {
		return "", "", cli.Usage("give [project/]name", "%q is not the name of a flow", s)
	}
	return project, name, nil
}

// shortFlow is a flow's full name without the default project.
func shortFlow(full string) string {
	return strings.TrimPrefix(full, flow.DefaultProject+"/")
}

func flowName(f *api.Flow) string { return shortFlow(f.Project + "/" + f.Name) }
