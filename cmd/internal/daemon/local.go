package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
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
	Envelope   bool // what a lines program reads and writes
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
	if l.Flow == nil {
		l.Flow = l.onePlugin()
	}
	rt, err := sandbox.New(ctx, sandbox.Config{CacheDir: l.CacheDir, Logger: l.Logger})
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, rt.Close(context.WithoutCancel(ctx))) }()
	host := registry.NewHost(rt)
	defer func() { err = errors.Join(err, host.Close(context.WithoutCancel(ctx))) }()

	p := &parts{connection: l.connection, secrets: secrets(l.Secrets), logger: l.Logger, in: l.In, out: l.Out, envelope: l.EnvelopeIO}
	set, closeStages, err := l.stages(ctx, host)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, closeStages()) }()
	src, err := p.source(l.Flow)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	out, err := p.delivery(l.Flow, delivery.Identity{FlowUID: randomUID()})
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()

	cfg := pipelineConfig(l.Flow)
	cfg.Logger = l.Logger
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	cfg.Pause = func(reason string) { stop(errors.New(reason)) }
	f := pipeline.New(cfg, src, set, out)
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
			e.Setting = l.setting(e.Stage)
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
			Ref: flow.PluginRef{Path: l.Plugin}, With: l.With, Lines: l.Lines, Envelope: l.Envelope, Function: l.Function, Hosts: l.Hosts}}},
		Delivery: flow.Delivery{ID: "out", Otherwise: flow.OtherwiseQueue, Stream: &flow.Stream{}},
	}
}

// StageError reports a plugin that does not start as its stage has it: it does
// not take its configuration or its limits, or they are beyond the node's.
type StageError struct{ Err error }

func (e *StageError) Error() string { return e.Err.Error() }

func (e *StageError) Unwrap() error { return e.Err }

// stages compiles the flow's plugins and binds its stages.
func (l *Local) stages(ctx context.Context, host *registry.Host) (set pipeline.Set, _ func() error, err error) {
	var closers []func() error
	closeAll := func() error {
		var errs []error
		for i := len(closers) - 1; i >= 0; i-- {
			errs = append(errs, closers[i]())
		}
		return errors.Join(errs...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll())
		}
	}()
	background := context.WithoutCancel(ctx)
	for i := range l.Flow.Stages {
		s := &l.Flow.Stages[i]
		info := pipeline.StageInfo{ID: s.ID, Otherwise: otherwise(s.Otherwise)}
		if s.Plugin == nil {
			b, err := builtin(l.Flow, s)
			if err != nil {
				return set, nil, err
			}
			set.Stages = append(set.Stages, pipeline.BoundStage{Stage: b, StageInfo: info})
			continue
		}
		wasm := l.PluginWasm
		if wasm == nil {
			if wasm, err = l.LoadPlugin(s.Plugin.Ref); err != nil {
				return set, nil, err
			}
		}
		m, err := host.Compile(ctx, wasm, registry.Mode(s.Plugin.Function))
		if err != nil {
			return set, nil, fmt.Errorf("plugin %s: %w", s.Plugin.Ref, err)
		}
		closers = append(closers, func() error { return m.Close(background) })
		named := m.Info().Named(s.Plugin.Ref.Path)
		info.Plugin, info.Digest = named.Name+"@"+named.Version, m.Info().Digest
		st, err := m.NewStage(ctx, stageConfig(l.Flow, s, 0, info, l.Logger))
		if err != nil {
			return set, nil, &StageError{Err: err}
		}
		closers = append(closers, func() error { return st.Close(background) })
		set.Stages = append(set.Stages, pipeline.BoundStage{Stage: st, StageInfo: info})
	}
	return set, closeAll, nil
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
