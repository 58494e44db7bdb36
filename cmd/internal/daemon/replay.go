package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/plugins/registry"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

// settingOf is how a stage runs its plugin, for entries; nil for a stage of
// another kind.
func settingOf(s *flow.Stage) *record.Setting {
	p := s.Plugin
	if p == nil {
		return nil
	}
	return &record.Setting{
		With: record.Text(p.With), Lines: p.Lines, Envelope: p.Envelope, Isolation: p.Isolation, Function: p.Function, Hosts: p.Hosts,
		Fuel: p.Fuel, MemoryBytes: p.MemoryBytes,
	}
}

// stageSetting is settingOf the stage with that id, nil if f has none.
func stageSetting(f *flow.Flow, id string) *record.Setting {
	for _, s := range f.Plugins() {
		if s.ID == id {
			return settingOf(s)
		}
	}
	return nil
}

// setting is the Setting of a stage of l's flow.
func (l *Local) setting(stage string) *record.Setting {
	for _, s := range l.Flow.Plugins() {
		if s.ID != stage {
			continue
		}
		out := settingOf(s)
		if l.PluginFile != nil {
			out.File = l.PluginFile(s.Plugin.Ref)
		}
		return out
	}
	return nil
}

// settings looks up how the stages of a flow's entries ran their plugins, in
// the revision that each entry names, and puts it into them. The function keeps
// what it read.
func (d *Daemon) settings(f *state.Flow) func(*record.Entry) {
	known := map[uint32]*flow.Flow{}
	return func(e *record.Entry) {
		doc, ok := known[e.Revision]
		if !ok {
			if rev, err := d.store.FlowRevision(f.ID, e.Revision); err == nil && rev != nil {
				doc, _ = decodeFlow(rev.Resolved)
			}
			known[e.Revision] = doc
		}
		if doc != nil {
			settle(e, func(stage string) *record.Setting { return stageSetting(doc, stage) })
		}
	}
}

// settle puts how its plugins were run into an entry.
func settle(e *record.Entry, of func(stage string) *record.Setting) {
	e.Setting = of(e.Stage)
	if e.Call != nil {
		e.Call.Setting = of(e.Call.Stage)
	}
}

// Replayer runs records of failure entries again in this process, without a
// node. One goroutine uses it.
type Replayer struct {
	rt      *sandbox.Runtime
	host    *registry.Host
	modules map[moduleKey]registry.Module
}

type moduleKey struct{ digest, mode string }

// ReplayConfig is the configuration of a Replayer. The zero value works.
type ReplayConfig struct {
	// CacheDir keeps compiled plugins; empty: they are compiled each time.
	CacheDir string
	// Logger gets what concerns the sandbox itself; nil discards.
	Logger *slog.Logger
}

// NewReplayer makes a replayer for these entries: its limits are at least
// theirs.
func NewReplayer(ctx context.Context, cfg ReplayConfig, entries []*record.Entry) (*Replayer, error) {
	c := sandbox.Config{CacheDir: cfg.CacheDir, Logger: cfg.Logger, Workers: 1, MaxFuel: sandbox.DefaultMaxFuel, MaxMemoryBytes: sandbox.DefaultMaxMemoryBytes}
	for _, e := range entries {
		e = e.Called()
		if s := e.Setting; s != nil {
			c.MaxFuel, c.MaxMemoryBytes = max(c.MaxFuel, s.Fuel), max(c.MaxMemoryBytes, s.MemoryBytes)
		}
		if r := e.Replay; r != nil {
			c.MaxFuel, c.MaxMemoryBytes = max(c.MaxFuel, r.FuelLimit), max(c.MaxMemoryBytes, r.MemoryLimit)
		}
	}
	rt, err := sandbox.New(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("replay: %w", err)
	}
	return &Replayer{rt: rt, host: registry.NewHost(rt), modules: map[moduleKey]registry.Module{}}, nil
}

// Close releases the replayer.
func (r *Replayer) Close(ctx context.Context) error {
	var errs []error
	for _, m := range r.modules {
		errs = append(errs, m.Close(ctx))
	}
	return errors.Join(append(errs, r.host.Close(ctx), r.rt.Close(ctx))...)
}

// Info judges and compiles a plugin as the stage of e, or of its Call, runs it, and tells what
// is known about it. Its errors are those of registry.Host's Compile.
func (r *Replayer) Info(ctx context.Context, e *record.Entry, wasm []byte) (*sandbox.Info, error) {
	m, err := r.module(ctx, e.Called(), wasm)
	if err != nil {
		return nil, err
	}
	return m.Info(), nil
}

func (r *Replayer) module(ctx context.Context, e *record.Entry, wasm []byte) (registry.Module, error) {
	key := moduleKey{digest: registry.Digest(wasm)}
	if e.Setting != nil {
		key.mode = registry.Mode(e.Setting.Function)
	}
	if m := r.modules[key]; m != nil {
		return m, nil
	}
	m, err := r.host.Compile(ctx, wasm, key.mode)
	if err != nil {
		return nil, err
	}
	r.modules[key] = m
	return m, nil
}

// Replay runs the input of e through the plugin with these bytes, as e's stage
// ran it; of an entry with a Call, that of the call as the plugin that signs or
// validates got it. Where the bytes are not those of e's digest, the limits are what
// they would be in e's flow: its own, else those of the plugin's manifest, else
// those that were in force. The error is about the circumstances; it wraps a
// *sandbox.UnrepeatableError where the stage cannot be repeated.
func (r *Replayer) Replay(ctx context.Context, e *record.Entry, wasm []byte) (*sandbox.Replayed, error) {
	id := e.ID()
	e = e.Called()
	switch {
	case e.InputOmitted:
		return nil, fmt.Errorf("replay record %s: its value is not in the entry, it was too large to keep", id)
	case e.Digest == "":
		return nil, fmt.Errorf("replay record %s: %s is no stage with a plugin", id, e.Stage)
	case e.Replay == nil && e.NoReplay != "":
		return nil, fmt.Errorf("replay record %s: %w", id, &sandbox.UnrepeatableError{Plugin: e.Plugin, Reason: e.NoReplay})
	}
	m, err := r.module(ctx, e, wasm)
	if err != nil {
		return nil, err
	}
	cfg := sandbox.StageConfig{Flow: e.Flow, FlowUID: e.FlowUID, Stage: e.Stage}
	if s := e.Setting; s != nil {
		cfg.Config, cfg.Lines, cfg.Envelope, cfg.Isolation = []byte(s.With), s.Lines, s.Envelope, s.Isolation
		cfg.Function, cfg.Hosts, cfg.Fuel, cfg.MemoryBytes = s.Function, s.Hosts, s.Fuel, s.MemoryBytes
	}
	was := e.Replay
	if info := m.Info(); was != nil && info.Digest != e.Digest {
		others := *was
		if has := info.Manifest; has != nil && has.FuelPerRecord > 0 && cfg.Fuel == 0 {
			others.FuelLimit = min(int64(has.FuelPerRecord), max(sandbox.DefaultMaxFuel, was.FuelLimit))
		}
		if has := info.Manifest; has != nil && has.MemoryMB > 0 && cfg.MemoryBytes == 0 {
			others.MemoryLimit = min(int64(has.MemoryMB)<<20, max(sandbox.DefaultMaxMemoryBytes, was.MemoryLimit))
		}
		was = &others
	}
	out, err := m.Replay(ctx, cfg, &e.Input, was)
	if none, ok := errors.AsType[*sandbox.ImageError](err); ok && m.Info().Digest != e.Digest {
		lower := *was
		lower.ImageLevel = none.Highest
		out, err = m.Replay(ctx, cfg, &e.Input, &lower)
	}
	return out, err
}
