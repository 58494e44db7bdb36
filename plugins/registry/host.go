package registry

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/millrace-io/millrace/plugins/extism"
	"github.com/millrace-io/millrace/plugins/manifest"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

// Module is a compiled plugin, whatever its mode. It is safe for concurrent
// use.
type Module interface {
	// Info tells what is known about the plugin. It must not be changed.
	Info() *sandbox.Info
	// CheckConfig holds a configuration against the plugin. The error is a
	// *manifest.ConfigError where single places are wrong.
	CheckConfig(config []byte) error
	// NewStage checks the configuration and starts one instance, so that a
	// plugin that does not take it fails here (*sandbox.InitError). Close
	// releases the stage.
	NewStage(ctx context.Context, cfg sandbox.StageConfig) (Stage, error)
	// Replay runs one record again as r says it ran. The error is a
	// *sandbox.UnrepeatableError where that cannot be.
	Replay(ctx context.Context, cfg sandbox.StageConfig, rec *record.Record, r *record.Replay) (*sandbox.Replayed, error)
	// Close releases the machine code. The module's stages must be closed
	// before.
	Close(ctx context.Context) error
}

// Stage runs a plugin at its place in a flow. It is safe for concurrent use.
type Stage interface {
	// Process passes b through the plugin and appends the answers to out; each
	// record is answered there. It blocks while all workers are busy. An error
	// is about the runtime, not the records: out is then as it was before.
	Process(ctx context.Context, b *record.Batch, out *record.Results) error
	// Close waits for running calls, then closes all instances; it gives up
	// waiting when ctx ends. It is idempotent.
	Close(ctx context.Context) error
	// Info tells what is known about the plugin. It must not be changed.
	Info() *sandbox.Info
	// Stats tells what the stage did so far.
	Stats() sandbox.Stats
	// Fuel is what a record may cost, MemoryBytes what an instance may have.
	Fuel() int64
	MemoryBytes() int64
	// Stateful reports that answers depend on earlier batches, Impure that
	// they depend on other hosts. Such failures cannot be replayed.
	Stateful() bool
	Impure() bool
}

var (
	_ Stage = (*sandbox.Stage)(nil)
	_ Stage = (*extism.Stage)(nil)
)

// Host compiles plugins, each in its mode. It is safe for concurrent use.
type Host struct {
	sandbox *sandbox.Runtime

	mu     sync.Mutex
	extism *extism.Runtime // guarded by mu; nil before the first plugin that needs it
	closed bool            // guarded by mu
}

// extismFuel is how much more fuel a record may cost in extism mode: a guest
// copies its value by host calls of 8 bytes.
const extismFuel = extism.DefaultMaxFuelPerRecord / sandbox.DefaultMaxFuel

// NewHost makes a host of rt, which outlives it. In extism mode plugins have
// rt's limits, cache and child process too, and ten times its fuel.
func NewHost(rt *sandbox.Runtime) *Host { return &Host{sandbox: rt} }

// Compile judges, rewrites and compiles a plugin. mode is "" for the one that
// the binary shows, or manifest.ModeExtism to call it by a function whatever it
// imports. It takes up to seconds for large modules.
//
// Refusals are *sandbox.RefusedError, joined when there are several.
func (h *Host) Compile(ctx context.Context, wasm []byte, mode string) (Module, error) {
	switch mode {
	case "":
		m, err := h.sandbox.Compile(ctx, wasm)
		if err == nil {
			return sandboxModule{m}, nil
		}
		if e, ok := errors.AsType[*sandbox.ModeError](err); !ok || e.Mode != manifest.ModeExtism {
			return nil, err
		}
	case manifest.ModeExtism:
	default:
		return nil, fmt.Errorf("compile plugin: mode %q cannot be asked for", mode)
	}
	rt, err := h.extismRuntime(ctx)
	if err != nil {
		return nil, err
	}
	m, err := rt.Compile(ctx, wasm)
	if err != nil {
		return nil, err
	}
	return extismModule{m}, nil
}

// Mode is what to ask Compile for, for a stage that names a function or none.
func Mode(function string) string {
	if function != "" {
		return manifest.ModeExtism
	}
	return ""
}

func (h *Host) extismRuntime(ctx context.Context) (*extism.Runtime, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, errors.New("compile plugin: the host is closed")
	}
	if h.extism == nil {
		c := h.sandbox.Config()
		rt, err := extism.New(ctx, extism.Config{
			CacheDir: c.CacheDir, Logger: c.Logger, Workers: c.Workers, MaxMemoryBytes: c.MaxMemoryBytes, MaxModuleBytes: c.MaxModuleBytes,
			MaxFuelPerRecord: min(extismFuel*c.MaxFuel, extism.MaxFuel), Precompile: h.sandbox.Precompile,
		})
		if err != nil {
			return nil, err
		}
		h.extism = rt
	}
	return h.extism, nil
}

// Sandbox is the runtime that the host was made of.
func (h *Host) Sandbox() *sandbox.Runtime { return h.sandbox }

// Close releases what the host made. Its modules must be closed before. It is
// idempotent.
func (h *Host) Close(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	if h.extism == nil {
		return nil
	}
	return h.extism.Close(ctx)
}

type sandboxModule struct{ *sandbox.Module }

func (m sandboxModule) NewStage(ctx context.Context, cfg sandbox.StageConfig) (Stage, error) {
	s, err := m.Module.NewStage(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return s, nil
}

type extismModule struct{ *extism.Module }

func (m extismModule) NewStage(ctx context.Context, cfg sandbox.StageConfig) (Stage, error) {
	s, err := m.Module.NewStage(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return s, nil
}
