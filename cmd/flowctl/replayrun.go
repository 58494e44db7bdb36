package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/cmd/internal/daemon"
	"github.com/millrace-io/millrace/plugins/manifest"
	"github.com/millrace-io/millrace/plugins/registry"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

// replayRun runs entries.
type replayRun struct {
	app *app
	ctx context.Context
	r   *daemon.Replayer
	src *replaySource
}

// otherPlugin is a plugin that records go through beside the one that they
// failed in.
type otherPlugin struct {
	file string // what it is called where it has no manifest, and in errors
	wasm []byte
	// setting is how its stage runs it; nil: as the one of the entry was run.
	setting *record.Setting
}

// is tells that the plugin would do what the entry's own does.
func (o *otherPlugin) is(e *record.Entry) bool {
	if registry.Digest(o.wasm) != e.Digest {
		return false
	}
	if o.setting == nil || e.Setting == nil {
		return true
	}
	was, now := *e.Setting, *o.setting
	was.File, now.File = "", ""
	return reflect.DeepEqual(was, now)
}

// as is the entry as the other plugin's stage runs it.
func (o *otherPlugin) as(e *record.Entry) *record.Entry {
	if o.setting == nil {
		return e
	}
	now := *e
	now.Setting = o.setting
	if e.Replay != nil {
		limits := *e.Replay
		if o.setting.Fuel > 0 {
			limits.FuelLimit = o.setting.Fuel
		}
		if o.setting.MemoryBytes > 0 {
			limits.MemoryLimit = o.setting.MemoryBytes
		}
		now.Replay = &limits
	}
	return &now
}

// entry runs one entry, also through other unless that is nil. The error is
// one that ends the whole run; what is wrong with this entry alone is its
// Problem.
func (r *replayRun) entry(e *record.Entry, other *otherPlugin) (*replayed, error) {
	id := e.ID()
	var hidden []string
	if e.Call != nil {
		hidden = e.Call.Hidden
	}
	e = e.Called()
	out := newReplayed(id, e)
	if len(hidden) > 0 {
		out.Note = "an entry keeps no credentials: asterisks stand for the values of " + strings.Join(hidden, ", ")
	}
	switch {
	case e.Digest == "":
		out.Problem, out.Next = e.Stage+" is no stage with a plugin; only plugins can be run again", "look at the entry: its message says what was wrong"
		return out, nil
	case e.InputOmitted:
		out.Problem = "its value is not in the entry: it was too large to keep"
		out.Next = fmt.Sprintf("read the record at its source (%s) and give it to the plugin: `%s run PLUGIN.wasm --in FILE`", id, r.app.program)
		return out, nil
	}
	old, missing := r.src.plugin(r.ctx, e)
	if missing != nil && r.ctx.Err() != nil {
		return nil, missing
	}
	if other != nil && registry.Digest(other.wasm) == e.Digest {
		old, missing = other.wasm, nil
	}
	if missing != nil && other == nil {
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
	if other == nil || other.is(e) {
		return out, nil
	}
	now := other.as(e)
	info, err := r.r.Info(r.ctx, now, other.wasm)
	if err != nil {
		return nil, refused(other.file, err)
	}
	named := info.Named(filepath.Base(other.file))
	out.OtherPlugin, out.OtherDigest = named.Name+"@"+named.Version, info.Digest
	got, err := r.r.Replay(r.ctx, now, other.wasm)
	if err != nil {
		return out, r.problem(out, out.OtherPlugin, err)
	}
	if out.Other, err = r.outcome(now, other.wasm, got); err != nil {
		return nil, err
	}
	from := &out.Recorded
	if out.Again != nil {
		from = out.Again
	}
	out.Changes = compare(from, out.Other, &e.Input)
	return out, nil
}

// newReplayed is what is known of an entry before it is run; of one with a call
// that of the call.
func newReplayed(id string, e *record.Entry) *replayed {
	return &replayed{ID: id, Flow: e.Flow, Seq: e.Seq, Stage: e.Stage, Plugin: e.Plugin, Digest: e.Digest, Recorded: recorded(e)}
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
