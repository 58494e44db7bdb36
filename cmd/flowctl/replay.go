package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/cmd/internal/daemon"
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
			"compared by record and field; the exit code is then 4 too if the other version fails a record.",
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
	// Note is what a replay through the flow does beside the stage, or what of
	// the input is not as it was.
	Note string `json:"note,omitempty"`
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

// failed: the record would not go on.
func (o *outcome) failed() bool { return o.Outcome == "fail" || o.Outcome == "retry" }

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
	var other *otherPlugin
	if o.plugin != "" {
		other = &otherPlugin{file: o.plugin}
		if other.wasm, err = os.ReadFile(a.path(o.plugin)); err != nil {
			return a.fileError(o.plugin, a.path(o.plugin), err)
		}
	}
	for _, e := range src.entries {
		if with != nil {
			of := &e.Setting
			if e.Call != nil {
				of = &e.Call.Setting
			}
			s := record.Setting{}
			if *of != nil {
				s = **of
			}
			s.With, *of = with, &s
		}
	}
	cfg := daemon.ReplayConfig{Logger: slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelWarn})), CacheDir: compileCache()}
	r, err := daemon.NewReplayer(ctx, cfg, src.entries)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close(context.WithoutCancel(ctx))) }()
	run := replayRun{app: a, ctx: ctx, r: r, src: src}
	var all []*replayed
	for _, e := range src.entries {
		one, err := run.entry(e, other)
		if err != nil {
			return err
		}
		all = append(all, one)
	}
	if err := a.showReplays(all); err != nil {
		return err
	}
	return replayVerdict(all, o.plugin)
}

// replayVerdict is the error of a run that found something; other is what the
// plugin is called that the records went through as well.
func replayVerdict(all []*replayed, other string) error {
	var problems, different, failing int
	next := "the entry comes from another version of the program, or from another machine with a fault"
	for _, x := range all {
		if x.Problem != "" {
			problems++
			continue
		}
		if x.Same != nil && !*x.Same {
			different++
			if x.Next != "" {
				next = x.Next
			}
		}
		if x.Other != nil && x.Other.failed() {
			failing++
		}
	}
	n := len(all)
	switch {
	case problems == 1 && n == 1:
		return &cli.Error{Exit: cli.ExitFailed, Code: codeReplay, Detail: fmt.Sprintf("record %s: %s", all[0].ID, all[0].Problem), Next: all[0].Next}
	case different > 0:
		detail := fmt.Sprintf("%d of %s did not come out as recorded", different, cli.Plural(n, "record"))
		if failing > 0 {
			detail += fmt.Sprintf(", and %s fails %d", other, failing)
		}
		return &cli.Error{Exit: cli.ExitFindings, Code: codeReplayDiffers, Detail: detail, Next: next}
	case failing > 0:
		return &cli.Error{Exit: cli.ExitFindings, Code: cli.CodeRecords, Detail: fmt.Sprintf("%s fails %d of %s", other, failing, cli.Plural(n, "record")), Next: "see above what it answered"}
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
