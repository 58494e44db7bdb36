package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/cmd/internal/daemon"
	"github.com/millrace-io/millrace/plugins/manifest"
	"github.com/millrace-io/millrace/plugins/registry"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

// Codes of a replay's errors.
const (
	// codeReplay: an entry cannot be run again.
	codeReplay = "E_REPLAY"
	// codeReplayDiffers: it was, and something else came out.
	codeReplayDiffers = "E_REPLAY_DIFFERS"
)

// replayOptions are the flags of `replay`.
type replayOptions struct {
	plugin string
	with   string
	only   []string
}

func (a *app) replayCommand() *cobra.Command {
	var o replayOptions
	cmd := &cobra.Command{
		Use: "replay [PROJECT/]FLOW/SEQ|FILE", Short: "Run a failed record again, bit for bit",
		Long: "Run a failed record again, here, in the sandbox and with the engine of a node: the plugin of\n" +
			"the same bytes, its configuration, its image, clock, random and limits are those of the\n" +
			"failure. What it answers, logs and uses of its fuel must be the same; the exit code is 4 if\n" +
			"it is not. The node does nothing but hand out the entry and the plugin.\n\n" +
			"FLOW/SEQ is an entry of a flow's failure queue, as `queue peek -o name` prints it. FILE (- is\n" +
			"STDIN) holds entries as `run --failures` and `queue peek -o ndjson` write them; all are run.\n" +
			"Their plugins are looked for where the run had them, and at the node if one filed them.\n\n" +
			"With --plugin the records go through another version too, and the answers of both are\n" +
			"compared by record and field; the exit code is then 4 if the other version fails a record.",
		Example: a.example("replay orders/17", "replay orders/17 --plugin order-mask.wasm", "replay failures.ndjson",
			"replay failures.ndjson --only orders/0/101 --with '{\"fields\":[\"email\"]}' -o json"),
		Args: a.args(1, 1, "FLOW/SEQ or FILE"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.replay(cmd, args[0], o) },
	}
	cmd.Flags().StringVar(&o.plugin, "plugin", "", "file of a plugin to run the records through as well")
	cmd.Flags().StringVar(&o.with, "with", "", "configuration of the plugin, a JSON object or a file with one, in place of the recorded one")
	cmd.Flags().StringArrayVar(&o.only, "only", nil, "of a file, only the entry with this record id or number; may be repeated")
	return cmd
}

// replayed is what came of one entry.
type replayed struct {
	ID     string `json:"id"`
	Flow   string `json:"flow"`
	Seq    uint64 `json:"seq,omitempty"`
	Stage  string `json:"stage"`
	Plugin string `json:"plugin"`
	Digest string `json:"digest"`
	// Recorded is what the entry says.
	Recorded outcome `json:"recorded"`
	// Again is what the plugin of the entry did now; nil: it was not run.
	Again *outcome `json:"again,omitempty"`
	// Same: both agree, bit for bit; nil: nothing to say. Differs names what
	// does not agree.
	Same    *bool    `json:"same,omitempty"`
	Differs []string `json:"differs,omitempty"`
	// Other is what the plugin of --plugin did, Changes how that differs from
	// Again, or from what is recorded.
	Other       *outcome `json:"other,omitempty"`
	OtherPlugin string   `json:"other_plugin,omitempty"`
	OtherDigest string   `json:"other_digest,omitempty"`
	Changes     []change `json:"changes,omitempty"`
	// NotRun is why Again is missing, where Other is not.
	NotRun string `json:"not_run,omitempty"`
	// Problem is why a run was not possible, Next what to do about it.
	Problem string `json:"problem,omitempty"`
	Next    string `json:"next,omitempty"`
}

// outcome is what a plugin did with a record.
type outcome struct {
	// Outcome is emit, drop, retry or fail.
	Outcome string    `json:"outcome"`
	Class   string    `json:"class,omitempty"`
	Code    uint32    `json:"code,omitempty"`
	Message string    `json:"message,omitempty"`
	Records []emitted `json:"records,omitempty"`
	Logs    []string  `json:"logs,omitempty"`
	Fuel    int64     `json:"fuel"`
	// FuelLimit is the budget of a record; 0: not recorded.
	FuelLimit  int64 `json:"fuel_limit,omitempty"`
	ImageLevel int   `json:"image_level"`
	// FuelCosts is the version of the costs that Fuel was counted by; 0: not
	// recorded. Fuel is compared only where it is this program's.
	FuelCosts uint32 `json:"fuel_costs,omitempty"`
}

// emitted is one emission.
type emitted struct {
	Output string          `json:"output"`
	To     *int32          `json:"to,omitempty"` // the partition that the guest chose
	Record json.RawMessage `json:"record"`       // its envelope

	record record.Record
}

func (a *app) replay(cmd *cobra.Command, arg string, o replayOptions) (err error) {
	ctx := cmd.Context()
	with, err := a.pluginConfig(o.with)
	if err != nil {
		return err
	}
	src, err := a.replaySource(cmd, arg, o)
	if err != nil {
		return err
	}
	var other []byte
	if o.plugin != "" {
		if other, err = os.ReadFile(a.path(o.plugin)); err != nil {
			return a.fileError(o.plugin, a.path(o.plugin), err)
		}
	}
	for _, e := range src.entries {
		if with != nil {
			s := record.Setting{}
			if e.Setting != nil {
				s = *e.Setting
			}
			s.With, e.Setting = with, &s
		}
	}
	cfg := daemon.ReplayConfig{Logger: slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelWarn})), CacheDir: compileCache()}
	r, err := daemon.NewReplayer(ctx, cfg, src.entries)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close(context.WithoutCancel(ctx))) }()
	run := replayRun{app: a, ctx: ctx, r: r, src: src, otherFile: o.plugin, other: other}
	var all []*replayed
	for _, e := range src.entries {
		one, err := run.entry(e)
		if err != nil {
			return err
		}
		all = append(all, one)
	}
	if err := a.showReplays(all); err != nil {
		return err
	}
	return run.verdict(all)
}

// pluginConfig reads --with: a JSON object, or a file with one.
func (a *app) pluginConfig(with string) (record.Text, error) {
	if with == "" {
		return nil, nil
	}
	text, what := []byte(with), "--with"
	if file := strings.TrimPrefix(with, "@"); strings.IndexAny(strings.TrimSpace(with), "{[\"") != 0 {
		var err error
		if text, err = os.ReadFile(a.path(file)); err != nil {
			e := cli.AsError(a.fileError(file, a.path(file), err))
			e.Next += `; or write a JSON object, as --with '{"field":"email"}'`
			return nil, e
		}
		text, what = bytes.TrimSpace(text), file
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(text, &object); err != nil {
		if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			err = fmt.Errorf("it is of type %s", e.Value)
		}
		return nil, cli.Usage(`write a JSON object, as --with '{"field":"email"}', or name a file with one`, "%s is not a JSON object: %v", what, err)
	}
	return text, nil
}

// replaySource is where entries come from.
type replaySource struct {
	entries []*record.Entry
	// node is asked for plugins; nil: there is none to ask.
	node api.Backend
	// blobs are the plugins that were found, by digest.
	blobs map[string][]byte
}

func (a *app) replaySource(cmd *cobra.Command, arg string, o replayOptions) (*replaySource, error) {
	src := &replaySource{blobs: map[string][]byte{}}
	var err error
	if flow, seq, ok := a.entryName(arg); ok {
		if len(o.only) > 0 {
			return nil, cli.Usage("leave it out", "--only goes with a file, and %s is one entry", arg)
		}
		project, name, err := splitFlow(flow)
		if err != nil {
			return nil, err
		}
		if src.node, err = a.node(); err != nil {
			return nil, err
		}
		e, err := src.node.Failure(cmd.Context(), project, name, seq)
		if err != nil {
			known := cli.AsError(err)
			if known.Code != api.CodeNotFound {
				return nil, err
			}
			if _, missing := src.node.Flow(cmd.Context(), project, name); missing != nil {
				return nil, a.missingFlow(cmd, src.node, flow, missing)
			}
			known.Next = fmt.Sprintf("list the entries with `%s queue peek %s`", a.program, flow)
			return nil, known
		}
		src.entries = []*record.Entry{e}
		return src, nil
	}
	if src.entries, err = a.readEntries(arg); err != nil {
		return nil, err
	}
	if len(o.only) > 0 {
		unseen := slices.Clone(o.only)
		src.entries = slices.DeleteFunc(src.entries, func(e *record.Entry) bool {
			wanted := false
			for _, id := range []string{e.ID(), strconv.FormatUint(e.Seq, 10)} {
				wanted = wanted || slices.Contains(o.only, id)
				unseen = slices.DeleteFunc(unseen, func(s string) bool { return s == id })
			}
			return !wanted
		})
		if len(unseen) > 0 {
			return nil, cli.Usage("the id of an entry is its field \"id\", its number \"seq\"", "--only %s: %s has no such entry", unseen[0], arg)
		}
	}
	if len(src.entries) == 0 {
		return nil, &cli.Error{Exit: cli.ExitInvalid, Code: api.CodeInvalid, Detail: arg + " holds no failure entries", Next: fmt.Sprintf("`%s run PLUGIN.wasm --failures FILE` and `%s queue peek FLOW -o ndjson` write such files", a.program, a.program)}
	}
	if slices.ContainsFunc(src.entries, func(e *record.Entry) bool { return e.Revision != 0 }) {
		src.node, err = a.node()
	}
	return src, err
}

// entryName reads [project/]flow/seq; a file of that name is meant instead.
func (a *app) entryName(arg string) (flow string, seq uint64, ok bool) {
	if _, err := os.Stat(a.path(arg)); err == nil {
		return "", 0, false
	}
	at := strings.LastIndexByte(arg, '/')
	if at <= 0 {
		return "", 0, false
	}
	seq, err := strconv.ParseUint(arg[at+1:], 10, 64)
	return arg[:at], seq, err == nil
}

// readEntries reads a file of entries: a line each, or one JSON array.
func (a *app) readEntries(path string) ([]*record.Entry, error) {
	b, err := []byte(nil), error(nil)
	if path == "-" {
		b, err = io.ReadAll(a.stdin)
	} else {
		b, err = os.ReadFile(a.path(path))
	}
	if err != nil {
		e := cli.AsError(a.fileError(path, a.path(path), err))
		if os.IsNotExist(err) {
			e.Next = fmt.Sprintf("correct the path; an entry of a queue is FLOW/SEQ, as `%s queue peek FLOW -o name` prints it", a.program)
		}
		return nil, e
	}
	var entries []*record.Entry
	if b = bytes.TrimSpace(b); bytes.HasPrefix(b, []byte("[")) {
		err = json.Unmarshal(b, &entries)
	} else {
		dec := json.NewDecoder(bytes.NewReader(b))
		for n := 1; err == nil; n++ {
			e := &record.Entry{}
			if err = dec.Decode(e); err == nil {
				entries = append(entries, e)
			} else if err != io.EOF {
				err = fmt.Errorf("entry %d: %w", n, err)
			}
		}
		if err == io.EOF {
			err = nil
		}
	}
	if err != nil {
		return nil, &cli.Error{Exit: cli.ExitInvalid, Code: api.CodeInvalid, Detail: fmt.Sprintf("%s: %v", path, err), Next: "the file holds failure entries as `run --failures` writes them, one a line", Err: err}
	}
	return entries, nil
}

// errNoPlugin says why a plugin could not be found.
type errNoPlugin struct{ tried []string }

func (e *errNoPlugin) Error() string {
	if len(e.tried) == 0 {
		return "nothing tells where it is"
	}
	return strings.Join(e.tried, "; ")
}

// plugin finds the bytes of the plugin that e failed in. The error is an
// *errNoPlugin if they cannot be had.
func (s *replaySource) plugin(ctx context.Context, e *record.Entry) ([]byte, error) {
	if b := s.blobs[e.Digest]; b != nil {
		return b, nil
	}
	none := &errNoPlugin{}
	keep := func(b []byte, err error, from string) bool {
		switch {
		case err != nil:
			none.tried = append(none.tried, fmt.Sprintf("%s: %s", from, cause(err)))
		case registry.Digest(b) != e.Digest:
			none.tried = append(none.tried, fmt.Sprintf("%s holds other bytes now (%s)", from, cli.Digest(registry.Digest(b))))
		default:
			s.blobs[e.Digest] = b
			return true
		}
		return false
	}
	if e.Setting != nil && e.Setting.File != "" {
		b, err := os.ReadFile(e.Setting.File)
		if keep(b, err, e.Setting.File) {
			return b, nil
		}
	}
	if s.node != nil && e.Revision != 0 {
		b, err := s.node.Blob(ctx, e.Digest)
		if err != nil && ctx.Err() != nil {
			return nil, err
		}
		if keep(b, err, "the node") {
			return b, nil
		}
	}
	return nil, none
}

// replayRun runs entries.
type replayRun struct {
	app       *app
	ctx       context.Context
	r         *daemon.Replayer
	src       *replaySource
	otherFile string
	other     []byte // nil: no other plugin
}

// entry runs one entry. The error is one that ends the whole run; what is
// wrong with this entry alone is its Problem.
func (r *replayRun) entry(e *record.Entry) (*replayed, error) {
	out := &replayed{ID: e.ID(), Flow: e.Flow, Seq: e.Seq, Stage: e.Stage, Plugin: e.Plugin, Digest: e.Digest, Recorded: recorded(e)}
	switch {
	case e.Digest == "":
		out.Problem, out.Next = e.Stage+" is no stage with a plugin; only plugins can be run again", "look at the entry: its message says what was wrong"
		return out, nil
	case e.InputOmitted:
		out.Problem = "its value is not in the entry: it was too large to keep"
		out.Next = fmt.Sprintf("read the record at its source (%s) and give it to the plugin: `%s run PLUGIN.wasm --in FILE`", e.ID(), r.app.program)
		return out, nil
	}
	old, missing := r.src.plugin(r.ctx, e)
	if missing != nil && r.ctx.Err() != nil {
		return nil, missing
	}
	if r.other != nil && registry.Digest(r.other) == e.Digest {
		old, missing = r.other, nil
	}
	if missing != nil && r.other == nil {
		out.Problem = fmt.Sprintf("its plugin %s (%s) cannot be had: %v", e.Plugin, cli.Digest(e.Digest), missing)
		out.Next = "give the plugin's file with --plugin"
		return out, nil
	}
	if missing != nil {
		out.NotRun = "its plugin cannot be had: " + missing.Error()
	} else {
		got, err := r.r.Replay(r.ctx, e, old)
		if err != nil {
			return out, r.problem(out, e.Plugin, err)
		}
		if out.Again, err = r.outcome(e, old, got); err != nil {
			return nil, err
		}
		out.Differs = differs(e, out.Again, got)
		same := len(out.Differs) == 0
		out.Same = &same
		if slices.Contains(out.Differs, "configuration") {
			out.Next = "give the configuration that the plugin had with --with"
		}
	}
	if r.other == nil || registry.Digest(r.other) == e.Digest {
		return out, nil
	}
	info, err := r.r.Info(r.ctx, e, r.other)
	if err != nil {
		return nil, refused(r.otherFile, err)
	}
	named := info.Named(filepath.Base(r.otherFile))
	out.OtherPlugin, out.OtherDigest = named.Name+"@"+named.Version, info.Digest
	got, err := r.r.Replay(r.ctx, e, r.other)
	if err != nil {
		return out, r.problem(out, out.OtherPlugin, err)
	}
	if out.Other, err = r.outcome(e, r.other, got); err != nil {
		return nil, err
	}
	from := &out.Recorded
	if out.Again != nil {
		from = out.Again
	}
	out.Changes = compare(from, out.Other, &e.Input)
	return out, nil
}

// problem notes why a record could not be run again.
func (r *replayRun) problem(out *replayed, plugin string, err error) error {
	if r.ctx.Err() != nil {
		return err
	}
	out.Problem = strings.TrimPrefix(err.Error(), fmt.Sprintf("replay record %s: ", out.ID))
	out.Next = "give another configuration with --with ({} is none); the limits are those of the entry"
	if e, ok := errors.AsType[*sandbox.UnrepeatableError](err); ok {
		out.Problem = e.Error()
		out.Next = fmt.Sprintf("try the record by hand: `%s run PLUGIN.wasm --envelope`", r.app.program)
	} else if e, ok := errors.AsType[*manifest.ConfigError](err); ok {
		out.Problem = fmt.Sprintf("plugin %s: %v", plugin, e)
	} else if e, ok := errors.AsType[*sandbox.InitError](err); ok {
		out.Problem = fmt.Sprintf("plugin %s does not start: %v", plugin, e)
	} else if _, ok := errors.AsType[*sandbox.RefusedError](err); ok {
		out.Problem = fmt.Sprintf("plugin %s cannot run: %v", plugin, err)
		out.Next = "build it anew, or take another one"
	}
	return nil
}

// recorded is what an entry says of its failure.
func recorded(e *record.Entry) outcome {
	o := failure(&record.Error{Class: e.Class, Code: e.Code, Message: e.Message})
	if r := e.Replay; r != nil {
		o.Logs, o.Fuel, o.FuelLimit, o.ImageLevel, o.FuelCosts = r.Logs, r.Fuel, r.FuelLimit, r.ImageLevel, r.FuelCosts
	}
	return o
}

func failure(e *record.Error) outcome {
	o := outcome{Outcome: "fail", Class: e.Class.String(), Code: e.Code, Message: e.Message}
	if e.Class.Transient() {
		o.Outcome = "retry"
	}
	if o.Message == "" && e.Err != nil {
		o.Message = e.Err.Error()
	}
	return o
}

// outcome is what a run made of an entry's record.
func (r *replayRun) outcome(e *record.Entry, wasm []byte, got *sandbox.Replayed) (*outcome, error) {
	info, err := r.r.Info(r.ctx, e, wasm)
	if err != nil {
		return nil, err
	}
	o := outcome{Outcome: "drop"}
	if len(got.Results.Failures) > 0 {
		o = failure(got.Results.Failures[0].Err)
	}
	names := info.Outputs()
	for i := range got.Results.Emits {
		em := &got.Results.Emits[i]
		o.Outcome = "emit"
		x := emitted{Output: names[em.Output], record: em.Record}
		if em.Record.To >= 0 {
			x.To = &em.Record.To
		}
		if x.Record, err = record.AppendEnvelope(nil, &em.Record); err != nil {
			return nil, err
		}
		o.Records = append(o.Records, x)
	}
	o.Logs, o.Fuel, o.ImageLevel, o.FuelCosts = got.Logs, got.Fuel, got.ImageLevel, sandbox.FuelCosts
	return &o, nil
}

// differs names what of a run is not as it was recorded.
func differs(e *record.Entry, o *outcome, got *sandbox.Replayed) []string {
	was := recorded(e)
	var out []string
	note := func(what string, same bool) {
		if !same {
			out = append(out, what)
		}
	}
	note("outcome", was.Outcome == o.Outcome)
	note("class", was.Class == o.Class)
	note("code", was.Code == o.Code)
	note("message", was.Message == o.Message)
	if r := e.Replay; r != nil {
		note("logs", slices.Equal(was.Logs, o.Logs))
		note("fuel", r.FuelCosts != sandbox.FuelCosts || was.Fuel == o.Fuel)
		note("configuration", r.ConfigHash == got.ConfigHash)
	}
	return out
}

// verdict is the error of a run that found something.
func (r *replayRun) verdict(all []*replayed) error {
	var problems, different, failing int
	for _, x := range all {
		switch {
		case x.Problem != "":
			problems++
		case x.Other != nil:
			if x.Other.Outcome == "fail" || x.Other.Outcome == "retry" {
				failing++
			}
		case !*x.Same:
			different++
		}
	}
	n := len(all)
	switch {
	case problems == 1 && n == 1:
		return &cli.Error{Exit: cli.ExitFailed, Code: codeReplay, Detail: fmt.Sprintf("record %s: %s", all[0].ID, all[0].Problem), Next: all[0].Next}
	case different > 0:
		next := "the entry comes from another version of the program, or from another machine with a fault"
		for _, x := range all {
			if x.Next != "" && x.Problem == "" {
				next = x.Next
			}
		}
		return &cli.Error{Exit: cli.ExitFindings, Code: codeReplayDiffers, Detail: fmt.Sprintf("%d of %s did not come out as recorded", different, cli.Plural(n, "record")), Next: next}
	case failing > 0:
		return &cli.Error{Exit: cli.ExitFindings, Code: cli.CodeRecords, Detail: fmt.Sprintf("%s fails %d of %s", r.otherFile, failing, cli.Plural(n, "record")), Next: "see above what it answered"}
	case problems > 0:
		return &cli.Error{Exit: cli.ExitFailed, Code: codeReplay, Detail: fmt.Sprintf("%d of %s could not be run again", problems, cli.Plural(n, "record")), Next: "see above why, for each"}
	}
	return nil
}

// compileCache is the folder for compiled plugins of this user, "" if there is
// none.
func compileCache() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "millrace", "wazero")
}
