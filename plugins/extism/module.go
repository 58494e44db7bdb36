package extism

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"

	sdk "github.com/extism/go-sdk"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/millrace-io/millrace/plugins/manifest"
	"github.com/millrace-io/millrace/plugins/rewrite"
	"github.com/millrace-io/millrace/plugins/sandbox"
)

// parallelCompileBytes is the size of code from which on several workers
// compile it.
const parallelCompileBytes = 1 << 20

// Module is a compiled plugin. It is safe for concurrent use.
type Module struct {
	rt     *Runtime
	info   *sandbox.Info
	schema *manifest.Schema
	parsed *rewrite.Module

	mu     sync.Mutex
	closed bool            // guarded by mu
	codes  map[int64]*code // guarded by mu; by the fuel of a record
}

// code is the machine code of a module for one budget of fuel.
type code struct {
	plugin *sdk.CompiledPlugin
	// fuelLeft and fuelSpent are the exports that tell what the last call left
	// of its budget, and what all calls used.
	fuelLeft, fuelSpent string
	// firstAdded is the index of the first function that is not the module's
	// own.
	firstAdded uint32
}

// Compile judges and compiles a plugin. Machine code comes from the file cache
// when the same bytes were compiled before. It takes up to seconds for large
// modules and does not look at ctx between functions.
//
// Refusals are *sandbox.RefusedError, joined when there are several.
func (rt *Runtime) Compile(ctx context.Context, wasm []byte) (*Module, error) {
	if len(wasm) > rt.cfg.MaxModuleBytes {
		return nil, &sandbox.RefusedError{
			Kind: sandbox.RefusedLimits, Reason: fmt.Sprintf("it has %d bytes, the limit is %s", len(wasm), sandbox.BytesText(int64(rt.cfg.MaxModuleBytes))),
			Advice: "strip debug information (-s), or raise the node's limit",
		}
	}
	info, err := sandbox.InspectAs(wasm, manifest.ModeExtism)
	if err != nil {
		return nil, err
	}
	if info.MemoryMinBytes > rt.cfg.MaxMemoryBytes {
		info.Refusals = append(info.Refusals, &sandbox.RefusedError{
			Kind:   sandbox.RefusedMemory,
			Reason: fmt.Sprintf("it starts with %s of memory, the limit is %s", sandbox.BytesText(info.MemoryMinBytes), sandbox.BytesText(rt.cfg.MaxMemoryBytes)),
			Advice: "raise the node's limit (limits: {plugin_memory: ...}), or link the plugin with less memory",
		})
	}
	if err := info.Err(); err != nil {
		return nil, err
	}
	parsed, err := rewrite.Parse(wasm)
	if err != nil {
		return nil, err
	}
	m := &Module{rt: rt, info: info, parsed: parsed, codes: map[int64]*code{}}
	if info.Manifest != nil && info.Manifest.Config != nil {
		if m.schema, err = manifest.CompileSchema(info.Manifest.Config); err != nil {
			return nil, &sandbox.RefusedError{Kind: sandbox.RefusedManifest, Reason: err.Error(), Err: err}
		}
	}
	if _, err := m.codeFor(ctx, rt.cfg.MaxFuelPerRecord); err != nil {
		return nil, err
	}
	return m, nil
}

// codeFor compiles the module for a budget of fuel, which is a constant in its
// code: the SDK gives no access to globals.
func (m *Module) codeFor(ctx context.Context, fuel int64) (*code, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, errors.New("the plugin is closed")
	}
	if c := m.codes[fuel]; c != nil {
		return c, nil
	}
	out, err := m.parsed.Rewrite(fuelOptions(fuel))
	if err != nil {
		return nil, fmt.Errorf("rewrite plugin %s: %w", m.info.Digest, err)
	}
	if m.rt.cfg.Precompile != nil {
		if err := m.rt.cfg.Precompile(ctx, out.Wasm); err != nil {
			return nil, err
		}
	}
	c := &code{fuelLeft: out.Fuel.Left, fuelSpent: out.Fuel.Spent, firstAdded: out.Fuel.FirstAdded}
	if m.info.CodeBytes >= parallelCompileBytes {
		ctx = experimental.WithCompilationWorkers(ctx, runtime.GOMAXPROCS(0))
	}
	if c.plugin, err = m.rt.compile(ctx, out.Wasm); err != nil {
		return nil, &sandbox.RefusedError{
			Kind: sandbox.RefusedFormat, Reason: fmt.Sprintf("it does not validate: %v", err), Err: err,
			Advice: "the file is damaged, or its toolchain made an invalid module; build it again",
		}
	}
	m.codes[fuel] = c
	return c, nil
}

// compile turns a panic of the compiler into an error: what it reads comes
// from anybody.
//
// The memory limit is not in the SDK's manifest: it would be the same for all
// stages of the module, and growth past it would be refused unseen.
func (rt *Runtime) compile(ctx context.Context, wasm []byte) (c *sdk.CompiledPlugin, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the compiler gave up: %v", r)
		}
	}()
	return sdk.NewCompiledPlugin(ctx,
		sdk.Manifest{Wasm: []sdk.Wasm{sdk.WasmData{Data: wasm, Name: "main"}}},
		sdk.PluginConfig{RuntimeConfig: rt.runtimeConfig(), EnableWasi: true}, hostFunctions())
}

// Info tells what is known about the plugin. It must not be changed.
func (m *Module) Info() *sandbox.Info { return m.info }

// CheckFunction reports whether a stage can call the export.
func (m *Module) CheckFunction(name string) error {
	switch {
	case slices.Contains(m.info.Callable, name):
		return nil
	case name == "":
		return fmt.Errorf("function: an Extism plugin needs the name of the export to call; this one has %q", m.info.Callable)
	}
	for _, e := range m.info.Exports {
		if e.Name == name && e.Kind == rewrite.KindFunc {
			return fmt.Errorf("function: %q has the type %s, which cannot be called with a record; this plugin has %q", name, e.Signature, m.info.Callable)
		}
	}
	return fmt.Errorf("function: the plugin does not export %q; it has %q", name, m.info.Callable)
}

// CheckConfig holds a configuration against the plugin: that it is an object,
// and the schema of its manifest. The error is a *manifest.ConfigError where
// single places are wrong.
func (m *Module) CheckConfig(config []byte) error {
	if _, err := flatten(config); err != nil {
		return err
	}
	if m.schema != nil && len(config) > 0 {
		return m.schema.Validate(config)
	}
	return nil
}

// Close releases the machine code. The module's stages must be closed before.
func (m *Module) Close(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	var errs []error
	for _, c := range m.codes {
		errs = append(errs, c.plugin.Close(ctx))
	}
	clear(m.codes)
	return errors.Join(errs...)
}
