package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/cmd/internal/daemon"
	"github.com/millrace-io/millrace/runtime/record"
)

// triedEntries is how many entries of a flow a dry run runs at most.
const triedEntries = 100

func fileName(path string) string { return filepath.Base(filepath.FromSlash(path)) }

// dryReplay shows what a replay would do, via being the plugin as the node
// knows it. The node says which entries would go; the records are run here.
func (a *app) dryReplay(cmd *cobra.Command, node api.Backend, chosen []*selected, via string, file *otherPlugin) error {
	ctx := cmd.Context()
	t := &trial{app: a, ctx: ctx, node: node, plugin: via, file: file, stages: map[string]*otherPlugin{}}
	var results []replayResult
	var shown []*replayed
	for _, s := range chosen {
		report, err := node.ReplayFailures(ctx, &api.ReplayFailures{Project: s.project, Name: s.name, Selection: s.Selection, Plugin: via, DryRun: true})
		if err != nil {
			return a.missingFlow(cmd, node, s.flow, err)
		}
		r := replayResult{Flow: s.project + "/" + s.name, ReplayReport: report}
		if report.Replayed+report.Skipped > 0 {
			if r.Entries, err = t.entries(s); err != nil {
				return err
			}
		}
		results, shown = append(results, r), append(shown, r.Entries...)
	}
	if a.format.Human() && len(shown) > 0 {
		if err := a.showReplays(shown); err != nil {
			return err
		}
		fmt.Fprintln(a.stdout)
	}
	if err := a.showReplayed(results); err != nil {
		return err
	}
	return a.trialVerdict(shown)
}

// trialVerdict is the error of records that would fail again.
func (a *app) trialVerdict(all []*replayed) error {
	again, tried := 0, 0
	for _, x := range all {
		if x.Again != nil || x.Other != nil {
			tried++
		}
		if x.Problem == "" && (x.Other != nil && x.Other.failed() || x.Other == nil && x.Again != nil && x.Again.failed()) {
			again++
		}
	}
	if again == 0 {
		return nil
	}
	return &cli.Error{Exit: cli.ExitFindings, Code: cli.CodeRecords, Detail: fmt.Sprintf("%d of %s run here would fail again", again, cli.Plural(tried, "entry")),
		Next: "mend the plugin or its configuration, and try it with --plugin FILE.wasm --dry-run"}
}

// trial runs the records of entries as a replay would.
type trial struct {
	app    *app
	ctx    context.Context
	node   api.Backend
	plugin string       // current, failed or a digest
	file   *otherPlugin // of --plugin FILE, nil: none
	// stages are the present plugins, by project/name/stage; nil: the stage
	// has none.
	stages map[string]*otherPlugin
}

// entries runs the first of the entries that are chosen.
func (t *trial) entries(s *selected) ([]*replayed, error) {
	entries, err := t.read(s)
	if err != nil || len(entries) == 0 {
		return nil, err
	}
	cfg := daemon.ReplayConfig{Logger: slog.New(slog.NewTextHandler(t.app.stderr, &slog.HandlerOptions{Level: slog.LevelWarn})), CacheDir: compileCache()}
	limits := entries
	others := make([]*otherPlugin, len(entries))
	for i, e := range entries {
		if others[i], err = t.other(s, e); err != nil {
			return nil, err
		}
		if others[i] != nil {
			limits = append(limits, others[i].as(e.Called()))
		}
	}
	r, err := daemon.NewReplayer(t.ctx, cfg, limits)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close(context.WithoutCancel(t.ctx)) }()
	run := replayRun{app: t.app, ctx: t.ctx, r: r, src: &replaySource{node: t.node, blobs: map[string][]byte{}}}
	var out []*replayed
	for i, e := range entries {
		if note := t.untried(e, others[i]); note != "" {
			one := newReplayed(e.ID(), e.Called())
			one.Note = note
			out = append(out, one)
			continue
		}
		one, err := run.entry(e, others[i])
		if err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	return out, nil
}

// untried says why an entry is not run here, "" if it is.
func (t *trial) untried(e *record.Entry, other *otherPlugin) string {
	calls := e.Call != nil
	e = e.Called()
	switch {
	case e.Digest == "":
		return "no plugin: what " + e.Stage + " does is not tried here"
	case calls && other == nil && t.plugin == api.ReplayCurrent:
		return "the flow has no plugin as " + e.Stage + " any more: what the delivery does without one is not tried here"
	case other == nil && t.plugin == api.ReplayCurrent:
		return "the flow has no stage " + e.Stage + " with a plugin any more: the record would be filed again"
	}
	return ""
}

// read fetches the entries that are chosen, triedEntries at most, and says if
// there are more.
func (t *trial) read(s *selected) ([]*record.Entry, error) {
	most := triedEntries
	if s.Limit > 0 {
		most = min(most, s.Limit)
	}
	var entries []*record.Entry
	if len(s.Seqs) > 0 {
		for _, seq := range s.Seqs[:min(len(s.Seqs), most)] {
			e, err := t.node.Failure(t.ctx, s.project, s.name, seq)
			if known, ok := errors.AsType[*api.Error](err); ok && known.Code == api.CodeNotFound {
				continue // the node's report says so
			}
			if err != nil {
				return nil, err
			}
			entries = append(entries, e)
		}
		return entries, nil
	}
	q := api.FailureQuery{Project: s.project, Name: s.name, Limit: exportPage}
	if s.Filter != nil {
		q.FailureFilter = *s.Filter
	}
	more := false
	_, err := turnPages(t.ctx, t.node, q, func(e *record.Entry) (bool, error) {
		if len(entries) == most {
			more = true
			return false, nil
		}
		entries = append(entries, e)
		return true, nil
	})
	if more && s.Limit != most {
		fmt.Fprintf(t.app.stderr, "only the first %d entries of %s are tried\n", most, s.from())
	}
	return entries, err
}

// other is what the entry's stage would run, nil if that is what it failed in.
func (t *trial) other(s *selected, e *record.Entry) (*otherPlugin, error) {
	e = e.Called()
	switch {
	case e.Digest == "" || t.plugin == api.ReplayFailed:
		return nil, nil
	case t.file == nil && t.plugin != api.ReplayCurrent:
		b, err := t.node.Blob(t.ctx, t.plugin)
		return &otherPlugin{file: t.plugin, wasm: b}, err
	}
	now, err := t.present(s, e.Stage)
	if err != nil {
		return nil, err
	}
	if t.file == nil {
		return now, nil
	}
	other := *t.file
	if now != nil {
		other.setting = now.setting
	}
	return &other, nil
}

// present is the plugin that a stage has now.
func (t *trial) present(s *selected, stage string) (*otherPlugin, error) {
	key := s.project + "/" + s.name + "/" + stage
	if known, ok := t.stages[key]; ok {
		return known, nil
	}
	t.stages[key] = nil
	f, err := t.node.Flow(t.ctx, s.project, s.name)
	if err != nil {
		return nil, err
	}
	for i := range f.Stages {
		st := &f.Stages[i]
		for _, p := range append(st.Plugins, api.DeliveryPlugin{ID: st.ID, Plugin: st.Plugin, Digest: st.Digest, Setting: st.Setting}) {
			if p.ID != stage || p.Digest == "" {
				continue
			}
			b, err := t.node.Blob(t.ctx, p.Digest)
			if err != nil {
				return nil, fmt.Errorf("read plugin %s of stage %s: %w", p.Plugin, p.ID, err)
			}
			name, _, _ := strings.Cut(p.Plugin, "@")
			t.stages[key] = &otherPlugin{file: name + ".wasm", wasm: b, setting: p.Setting}
		}
	}
	return t.stages[key], nil
}
