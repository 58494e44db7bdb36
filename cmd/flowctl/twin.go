package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/cmd/internal/twin"
	"github.com/millrace-io/millrace/cmd/internal/twin/capture"
	"github.com/millrace-io/millrace/runtime/flow"
)

func (a *app) twinCommand() *cobra.Command {
	return a.groupCommand("twin", "Be a partner with trouble on purpose", a.example("twin serve partner.yaml", "twin record exchanges.har --out partner.yaml"),
		a.twinServeCommand(), a.twinRecordCommand())
}

// twinOptions are the flags of `twin serve`.
type twinOptions struct {
	addr, log string
	seed      uint64
}

func (a *app) twinServeCommand() *cobra.Command {
	var o twinOptions
	cmd := &cobra.Command{
		Use: "serve FILE", Short: "Serve the partner that a file describes",
		Long: "Serve the partner that a file describes until it is interrupted: an HTTP API that is slow,\n" +
			"limited, wrong or down as the file says. The same seed and the same sequence of requests\n" +
			"give the same trouble. Its address is printed first, what it saw last; --log has each\n" +
			"request as a line of JSON. Below /_twin it tells its state and log, and switches an outage\n" +
			"on and off, to callers on this machine.",
		Example: a.example("twin serve partner.yaml", "twin serve partner.yaml --addr 127.0.0.1:0 --log seen.ndjson --seed 7 -o json"),
		Args:    a.args(1, 1, "FILE"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.serveTwin(cmd.Context(), args[0], o) },
	}
	cmd.Flags().StringVar(&o.addr, "addr", "", "HOST:PORT to listen on; port 0 picks a free one (default: the file's)")
	cmd.Flags().StringVar(&o.log, "log", "", "file that gets each request as a line of JSON, appended (default: the file's)")
	cmd.Flags().Uint64Var(&o.seed, "seed", 0, "seed that trouble is drawn from (default: the file's)")
	return cmd
}

func (a *app) serveTwin(ctx context.Context, path string, o twinOptions) (err error) {
	full := a.path(path)
	src, err := os.ReadFile(full)
	if err != nil {
		return a.fileError(path, full, err)
	}
	file, err := twin.Parse(filepath.ToSlash(path), src)
	if err != nil {
		return twinProblems(err)
	}
	options := twin.Options{Seed: o.seed, Dir: filepath.Dir(full), Getenv: a.getenv}
	logPath := o.log
	if logPath == "" && file.Log != "" {
		logPath = filepath.Join(filepath.Dir(path), filepath.FromSlash(file.Log))
		if filepath.IsAbs(file.Log) {
			logPath = file.Log
		}
	}
	if logPath != "" {
		f, err := os.OpenFile(a.path(logPath), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return a.fileError(logPath, a.path(logPath), err)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		options.Log = f
	}
	t, err := twin.New(file, options)
	if err != nil {
		return &cli.Error{Exit: cli.ExitInvalid, Code: cli.CodeFile, Detail: fmt.Sprintf("%s: %v", path, err), Err: err}
	}
	s, err := t.Listen(o.addr)
	if err != nil {
		return &cli.Error{Exit: cli.ExitUnreachable, Code: cli.CodeFailed, Detail: err.Error(), Next: "choose another --addr, or stop what holds it", Err: err}
	}
	type started struct {
		Address string `json:"address"`
		URL     string `json:"url"`
		Name    string `json:"name"`
		Seed    uint64 `json:"seed"`
		Log     string `json:"log,omitempty"`
	}
	err = cli.View[started]{
		Name:   func(v started) string { return v.Address },
		Detail: func(w io.Writer, _ cli.Format, v started) error { _, err := fmt.Fprintln(w, v.URL); return err },
	}.One(a.stdout, a.format, started{s.Addr(), "http://" + s.Addr(), file.Name, t.Seed(), logPath})
	if err == nil && a.format.Human() {
		fmt.Fprintf(a.stderr, "%s, seed %d. Ctrl-C stops it. Its state: curl -s http://%s%s/state\n", cli.Safe(file.Name), t.Seed(), s.Addr(), file.Control)
	}
	if err == nil {
		err = s.Run(ctx)
	}
	if err != nil {
		t.Close()
		return err
	}
	state := t.State()
	if err := twinView.One(a.stdout, a.format, state); err != nil {
		return err
	}
	if state.LogError != "" {
		return &cli.Error{Exit: cli.ExitFailed, Code: cli.CodeFile, Detail: logPath + ": " + state.LogError, Next: "free some space, or name another file with --log"}
	}
	return nil
}

// twinView shows what a twin saw.
var twinView = cli.View[twin.State]{
	Name: func(s twin.State) string { return s.Name },
	Detail: func(w io.Writer, _ cli.Format, s twin.State) error {
		_, err := fmt.Fprintf(w, "%s: %d applied, %s, %d mismatched; items: %d applied, %d of them again; %d answers not sent; at most %d at once\n",
			cli.Plural(s.Requests, "request"), s.Applied, cli.Plural(s.Duplicates, "duplicate"), s.Mismatches, s.ItemsApplied, s.ItemsAgain, s.Unsent, s.MaxInFlight)
		for _, part := range []struct {
			name   string
			counts map[string]int64
		}{{"outcomes", s.Outcomes}, {"statuses", s.Statuses}, {"troubles", s.Troubles}, {"signatures", s.Signatures}, {"verdicts", s.Verdicts}} {
			if len(part.counts) == 0 || err != nil {
				continue
			}
			var list []string
			for _, k := range slices.Sorted(maps.Keys(part.counts)) {
				list = append(list, fmt.Sprintf("%s %d", k, part.counts[k]))
			}
			_, err = fmt.Fprintf(w, "%s: %s\n", part.name, strings.Join(list, ", "))
		}
		return err
	},
}

// twinProblems is the error of a file that is no twin.
func twinProblems(err error) error {
	faults, ok := errors.AsType[*flow.Errors](err)
	if !ok {
		return err
	}
	return &cli.Error{Exit: cli.ExitInvalid, Code: cli.CodeLint, Detail: fmt.Sprintf("%s found", cli.Plural(len(faults.Problems), "error")),
		Next: "correct what is said above", Problems: rendered(faults.Problems), Err: err}
}

// recordOptions are the flags of `twin record`.
type recordOptions struct {
	out, name string
	redact    []string
	bodies    int
	live      liveOptions
}

func (a *app) twinRecordCommand() *cobra.Command {
	var o recordOptions
	cmd := &cobra.Command{
		Use: "record CAPTURE | --connection NAME", Short: "Make a partner's file from captured exchanges",
		Long: "Make a partner's file from captured exchanges: a HAR file, one exchange a line as JSON, or\n" +
			"what goes over a connection of the node from now on. With --connection it looks --for so\n" +
			"long, or until --count exchanges came; deliveries do not wait for it. --save keeps them too.\n" +
			"Routes, the mix of answers, what they meant to the flow, a limit that 429s tell of and the\n" +
			"latency are those of the capture. No request is kept,\n" +
			"and of an answer nothing that may be secret: of its headers Content-Type and Retry-After,\n" +
			"of its body no field that is called like a secret or named by --redact. Read the file\n" +
			"before it is passed on: what is secret in other fields cannot be known. A line of JSON is\n" +
			"  {\"time\":\"2026-11-21T12:00:00Z\",\"ms\":41.5,\"request\":{\"method\":\"POST\",\"url\":\"https://partner.example/v2/orders\"},\"response\":{\"status\":200,\"headers\":{},\"body\":\"{}\"}}\n" +
			"without an answer `status` is 0, and `error` says why.",
		Example: a.example("twin record exchanges.har --out partner.yaml", "twin record exchanges.ndjson --redact customer.email --redact '*phone*'",
			"twin record --connection partner --for 1m --save exchanges.ndjson --out partner.yaml"),
		Args: a.args(0, 1, "CAPTURE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 1 && o.live.connection != "":
				return cli.Usage("leave out one of them", "a CAPTURE and --connection exclude each other")
			case o.live.connection != "":
				return a.recordLive(cmd, o)
			case len(args) == 0:
				return cli.Usage("name a file, or a connection with --connection", "%s: record what?", cmd.CommandPath())
			}
			for _, name := range []string{"for", "count", "save"} {
				if cmd.Flags().Changed(name) {
					return cli.Usage("leave it out", "--%s goes with --connection", name)
				}
			}
			return a.recordTwin(args[0], o)
		},
	}
	o.live.add(cmd)
	cmd.Flags().StringVar(&o.out, "out", "", "write the twin to this file, which must not exist, instead of STDOUT")
	cmd.Flags().StringVar(&o.name, "name", "", "name of the partner (default: the host of the capture)")
	cmd.Flags().StringArrayVar(&o.redact, "redact", nil, "field of bodies to redact: a.b.c, or a name with * anywhere; may be repeated")
	cmd.Flags().IntVar(&o.bodies, "bodies", capture.DefaultBodies, "different answers kept of a status, the most frequent ones")
	return cmd
}

func (a *app) recordTwin(path string, o recordOptions) error {
	full := a.path(path)
	f, err := os.Open(full)
	if err != nil {
		return a.fileError(path, full, err)
	}
	defer f.Close()
	exchanges, err := capture.Read(f)
	if err != nil {
		return &cli.Error{Exit: cli.ExitInvalid, Code: cli.CodeFile, Detail: fmt.Sprintf("%s: %v", path, err), Next: "export a HAR file, or write one exchange a line as `" + a.program + " twin record --help` says", Err: err}
	}
	return a.writeTwin(path, exchanges, o)
}

// writeTwin makes the twin of what was captured from a source and writes it.
func (a *app) writeTwin(from string, exchanges []capture.Exchange, o recordOptions) error {
	text, summary, err := capture.Twin(exchanges, capture.Options{Name: o.name, Redact: o.redact, Bodies: o.bodies})
	if err != nil {
		return &cli.Error{Exit: cli.ExitInvalid, Code: cli.CodeFile, Detail: fmt.Sprintf("%s: %v", from, err), Next: "correct the --redact or --bodies given, or capture again", Err: err}
	}
	if _, err := twin.Parse(from, text); err != nil {
		return fmt.Errorf("the twin of %s would not be readable: %w", from, err)
	}
	if o.out == "" {
		_, err = a.stdout.Write(text)
	} else {
		err = a.writeNew(o.out, text)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stderr, "%s of %s, %s; redacted: %s\n", cli.Plural(summary.Routes, "route"), cli.Plural(summary.Exchanges, "exchange"),
		cli.Plural(summary.Answers, "answer"), summary.Redacted())
	return nil
}

// existsError is the error of a file that must not exist.
func existsError(path string) error {
	return &cli.Error{Exit: cli.ExitInvalid, Code: cli.CodeFile, Detail: path + " exists", Next: "name another file, or remove this one"}
}

// writeNew writes a file that does not exist yet.
func (a *app) writeNew(path string, content []byte) error {
	full := a.path(path)
	f, err := os.OpenFile(full, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		if errors.Is(err, os.ErrExist) {
			return existsError(path)
		}
		return a.fileError(path, full, err)
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}
