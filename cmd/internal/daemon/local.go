package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/millrace-io/millrace/plugins/registry"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/delivery"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/pipeline"
	"github.com/millrace-io/millrace/runtime/record"
)

// Local is a flow or a plugin that runs in this process, without a node: what
// `flowctl run` does. Nothing is committed; it begins where its source begins.
type Local struct {
	// Flow is a resolved document; nil: the one plugin below, from In to Out.
	Flow *flow.Flow

	// Plugin is the name of PluginWasm in logs and failure entries.
	Plugin     string
	PluginWasm []byte
	With       json.RawMessage
	Lines      string
	Envelope   bool  // what a lines program reads and writes
	Fuel       int64 // units a record; 0: the plugin's own limit
	// Function and Hosts are for extism mode.
	Function string
	Hosts    []string

	// In and Out are the streams, EnvelopeIO their form.
	In         io.Reader
	Out        io.Writer
	EnvelopeIO bool
	// Failures gets every record that cannot go on; nil: they are counted.
	// They have the Setting of their stage.
	Failures func(*record.Entry) error
	// PluginFile is the absolute path of the file of a plugin that the flow
	// names, for Settings; nil: they name none.
	PluginFile func(ref flow.PluginRef) string
	// LoadPlugin reads a plugin that the flow names.
	LoadPlugin  func(ref flow.PluginRef) ([]byte, error)
	Connections map[string]*flow.Connection
	// Secrets is the folder with secrets.
	Secrets string
	// CacheDir keeps compiled plugins; empty: they are compiled each time.
	CacheDir string
	Logger   *slog.Logger
	// GuestLogger gets what plugins log; nil: Logger does.
	GuestLogger *slog.Logger
}

// LocalCounts is what became of the records.
type LocalCounts struct {
	In, Emitted, Dropped, Failed int64
}

// RunLocal runs until the source has ended and everything is settled, or ctx
// ends. A flow that would be paused ends with its reason as the error.
func RunLocal(ctx context.Context, l Local) (c LocalCounts, err error) {
	if l.Logger == nil {
		l.Logger = slog.New(slog.DiscardHandler)
	}
	if l.GuestLogger == nil {
		l.GuestLogger = l.Logger
	}
	if l.Flow == nil {
		l.Flow = l.onePlugin()
	}
	rt, err := sandbox.New(ctx, sandbox.Config{CacheDir: l.CacheDir, Logger: l.Logger, MaxFuel: max(sandbox.DefaultMaxFuel, l.Fuel)})
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, rt.Close(context.WithoutCancel(ctx))) }()
	host := registry.NewHost(rt)
	defer func() { err = errors.Join(err, host.Close(context.WithoutCancel(ctx))) }()

	plugins := &localPlugins{l: &l, host: host}
	defer func() { err = errors.Join(err, plugins.close(context.WithoutCancel(ctx))) }()
	p := &parts{
		connection: l.connection, secrets: secrets(l.Secrets), connections: newConnections(), registries: newRegistries(), logger: l.Logger, in: l.In, out: l.Out, envelope: l.EnvelopeIO,
		keepNothing: true, createTopics: true,
		plugin: func(s *flow.Stage, sign signWith) (registry.Stage, pluginInfo, error) {
			st, info, err := plugins.bind(ctx, s, pipeline.StageInfo{ID: s.ID}, sign)
			return st, pluginInfo{stage: s.ID, plugin: info.Plugin, digest: info.Digest}, err
		},
	}
	outs, err := p.outlets(l.Flow, delivery.Identity{FlowUID: randomUID()})
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, outs.Close()) }()
	set, err := l.set(ctx, p, outs, plugins)
	if err != nil {
		return c, err
	}
	src, err := p.source(l.Flow)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()

	cfg := pipelineConfig(l.Flow)
	cfg.Logger = l.Logger
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	cfg.Pause = func(reason string) { stop(errors.New(reason)) }
	if outs.tell != nil {
		cfg.Tell = outs.tell.tell
	}
	f := pipeline.New(cfg, src, set, outs.deliveries())
	if err := l.open(ctx, f, src); err != nil {
		return c, err
	}
	err = l.run(ctx, f, stop)
	s := f.Stats()
	c = LocalCounts{In: s.In.Load(), Emitted: s.Emitted.Load(), Dropped: s.Dropped.Load(), Failed: s.Failed.Load()}
	if cause := context.Cause(ctx); err == nil && cause != nil {
		err = cause
	}
	return c, err
}

// run runs the flow and collects failures as it goes.
func (l *Local) run(ctx context.Context, f *pipeline.Flow, stop context.CancelCauseFunc) error {
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	tick := time.NewTicker(commitEvery)
	defer tick.Stop()
	said := ""
	for {
		select {
		case err := <-ended:
			for !f.Clean() {
				if e := l.collect(f); e != nil {
					return errors.Join(err, e)
				}
			}
			return err
		case <-tick.C:
			if p := f.Problem(); (p == "") != (said == "") {
				if said = p; p != "" {
					l.Logger.Warn("records do not get through; they are tried again", "problem", p)
				}
			}
			if err := l.collect(f); err != nil {
				stop(err)
				<-ended
				return err
			}
		}
	}
}

func (l *Local) collect(f *pipeline.Flow) error {
	for _, p := range f.Dirty() {
		f.Ack(p, nil)
		for _, e := range p.Failures {
			if l.Failures == nil {
				continue
			}
			settle(e, l.setting)
			if err := l.Failures(e); err != nil {
				return fmt.Errorf("write failure of record %s: %w", e.ID(), err)
			}
		}
	}
	return nil
}

func (l *Local) open(ctx context.Context, f *pipeline.Flow, src source) error {
	from, err := start(l.Flow)
	if err != nil {
		return err
	}
	found, err := src.Partitions(ctx)
	if err != nil {
		return err
	}
	for i, p := range found {
		at, err := src.Start(ctx, p.Partition, from)
		if err != nil {
			return err
		}
		if err := f.Open(pipeline.LaneConfig{Partition: p.Partition, Ownership: pipeline.Ownership{Part: uint32(i)}, Low: at}); err != nil {
			return err
		}
	}
	return nil
}

func (l *Local) connection(_, name string) (*flow.Connection, error) {
	if c := l.Connections[name]; c != nil {
		return c, nil
	}
	return nil, record.Errorf(record.Config, "connection %q is not among the documents; name its file too", name)
}

// onePlugin is the flow around a single plugin.
func (l *Local) onePlugin() *flow.Flow {
	return &flow.Flow{
		Project: flow.DefaultProject, Name: l.Plugin, Order: flow.OrderPartition, Otherwise: flow.OtherwiseQueue,
		Source: flow.Source{Stream: &flow.Stream{}},
		Stages: []flow.Stage{{ID: "plugin", Otherwise: flow.OtherwiseQueue, Plugin: &flow.PluginStage{
			Ref: flow.PluginRef{Path: l.Plugin}, With: l.With, Lines: l.Lines, Envelope: l.Envelope, Function: l.Function, Hosts: l.Hosts, Fuel: l.Fuel}}},
		Delivery: flow.Delivery{ID: "out", Otherwise: flow.OtherwiseQueue, Stream: &flow.Stream{}},
	}
}

// StageError reports a plugin that does not start as its stage has it: it does
// not take its configuration or its limits, or they are beyond the node's.
type StageError struct{ Err error }

func (e *StageError) Error() string { return e.Err.Error() }

func (e *StageError) Unwrap() error { return e.Err }

// localPlugins are the plugins of a Local that are bound.
type localPlugins struct {
	l       *Local
	host    *registry.Host
	closers []func(context.Context) error
}

func (p *localPlugins) close(ctx context.Context) error {
	var errs []error
	for _, c := range slices.Backward(p.closers) {
		errs = append(errs, c(ctx))
	}
	return errors.Join(errs...)
}

// bind compiles the plugin of a stage and starts it.
func (p *localPlugins) bind(ctx context.Context, s *flow.Stage, info pipeline.StageInfo, sign signWith) (registry.Stage, pipeline.StageInfo, error) {
	wasm := p.l.PluginWasm
	if wasm == nil {
		var err error
		if wasm, err = p.l.LoadPlugin(s.Plugin.Ref); err != nil {
			return nil, info, err
		}
	}
	m, err := p.host.Compile(ctx, wasm, registry.Mode(s.Plugin.Function))
	if err != nil {
		return nil, info, fmt.Errorf("plugin %s: %w", s.Plugin.Ref, err)
	}
	p.closers = append(p.closers, m.Close)
	named := m.Info().Named(s.Plugin.Ref.Path)
	info.Plugin, info.Digest = named.Name+"@"+named.Version, m.Info().Digest
	cfg := stageConfig(p.l.Flow, s, 0, info, p.l.GuestLogger)
	cfg.Sign = sign
	st, err := m.NewStage(ctx, cfg)
	if err != nil {
		return nil, info, &StageError{Err: err}
	}
	p.closers = append(p.closers, st.Close)
	return st, info, nil
}

// set lays the flow out, with its stages bound.
func (l *Local) set(ctx context.Context, p *parts, outs *outlets, plugins *localPlugins) (set pipeline.Set, err error) {
	info := func(id string, o flow.Otherwise, topic *flow.Topic) (info pipeline.StageInfo, err error) {
		info = pipeline.StageInfo{ID: id, Otherwise: otherwise(o)}
		if info.Otherwise == pipeline.ToTopic {
			info.Aside, err = p.aside(outs, l.Flow, topic)
		}
		return info, err
	}
	lay := layout{
		stage: func(s *flow.Stage) (pipeline.Stage, pipeline.StageInfo, error) {
			in, err := info(s.ID, s.Otherwise, s.Aside)
			if err != nil {
				return nil, in, err
			}
			if s.Decode != nil {
				return outs.decode, in, nil
			}
			if s.Plugin == nil {
				st, err := builtin(l.Flow, s)
				return st, in, err
			}
			return plugins.bind(ctx, s, in, nil)
		},
		deliver: func(d *flow.Delivery) (int, pipeline.StageInfo, error) {
			in, err := info(d.ID, d.Otherwise, d.Aside)
			return outs.place(d.ID), in, err
		},
	}
	set.Nodes, err = lay.nodesOf(l.Flow)
	return set, err
}

// stageConfig is a plugin's place in a flow.
func stageConfig(f *flow.Flow, s *flow.Stage, uid uint64, info pipeline.StageInfo, log *slog.Logger) sandbox.StageConfig {
	return sandbox.StageConfig{
		Flow: f.FullName(), FlowUID: uid, Stage: s.ID, Plugin: info.Plugin, Digest: info.Digest, Config: s.Plugin.With,
		MemoryBytes: s.Plugin.MemoryBytes, Fuel: s.Plugin.Fuel, Lines: s.Plugin.Lines, Envelope: s.Plugin.Envelope, Isolation: s.Plugin.Isolation,
		Function: s.Plugin.Function, Hosts: s.Plugin.Hosts, Logger: log,
		ForgetFailures: otherwise(s.Otherwise) != pipeline.ToQueue,
	}
}

// commitEvery is how often progress is collected.
const commitEvery = 100 * time.Millisecond
