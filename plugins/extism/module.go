package extism

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"

	sdk "github.com/extism/go-sdk"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/millrace-io/millrace/plugins/manifest"
	"github.com/millrace-io/millrace/plugins/rewrite"
	"github.com/millrace-io/millrace/plugins/sandbox"
)

// Mode is the run mode of this package, as Info.Mode says it.
const Mode = "extism"

// parallelCompileBytes is the size of code from which on several workers
// compile it.
const parallelCompileBytes = 1 << 20

// Module is a compiled plugin. It is safe for concurrent use.
type Module struct {
	rt        *Runtime
	info      *sandbox.Info
	functions []string
	http      bool
	schema    *manifest.Schema
	parsed    *rewrite.Module

	mu     sync.Mutex
	closed bool            // guarded by mu
	codes  map[int64]*code // guarded by mu; by the fuel of a record
}

// code is the machine code of a module for one budget of fuel.
type code struct {
	plugin       *sdk.CompiledPlugin
	firstWrapper uint32
}

// Inspect reads a Wasm binary without compiling it, in milliseconds. Whatever
// speaks against running it in this mode is in Info.Refusals; the error is a
// *sandbox.RefusedError when the bytes cannot even be read as a module.
func Inspect(wasm []byte) (*sandbox.Info, error) {
	info, _, err := inspect(wasm)
	return info, err
}

func inspect(wasm []byte) (*sandbox.Info, *rewrite.Module, error) {
	base, err := sandbox.Inspect(wasm)
	if err != nil {
		return nil, nil, err
	}
	parsed, err := rewrite.Parse(wasm)
	if err != nil {
		return nil, nil, &sandbox.RefusedError{Kind: sandbox.RefusedFormat, Reason: err.Error(), Err: err}
	}
	f := parsed.Facts()
	info := *base
	info.Mode, info.Why = Mode, "it exports functions for Extism"
	for _, im := range f.Imports {
		if im.Module == envModule {
			info.Why = "it imports " + envModule
			break
		}
	}
	info.Configurable = true
	info.ExactRestore = false
	info.RestoreObstacles = []string{"the Extism SDK keeps the guest's memory to itself"}
	// What sandbox.Inspect says about modes and imports is about its own ones.
	info.Refusals = nil
	for _, r := range base.Refusals {
		switch r.Kind {
		case sandbox.RefusedFormat, sandbox.RefusedLimits, sandbox.RefusedManifest:
			info.Refusals = append(info.Refusals, r)
		}
	}
	if f.Memory != nil && f.Memory.Shared {
		info.Refusals = append(info.Refusals, &sandbox.RefusedError{
			Kind: sandbox.RefusedMemory, Reason: "its memory is shared", Advice: "compile for one thread",
		})
	}
	info.Refusals = append(info.Refusals, checkImports(f)...)
	if len(callable(f)) == 0 {
		info.Refusals = append(info.Refusals, &sandbox.RefusedError{
			Kind: sandbox.RefusedMode, Reason: "it exports no function without parameters", Advice: "export one, of the type () -> i32",
		})
	}
	return &info, parsed, nil
}

// runtimeExports are functions of toolchains that a stage does not call.
var runtimeExports = []string{"_initialize", "__wasm_call_ctors", "hs_exit"}

// callable are the functions that a stage can call.
func callable(f *rewrite.Facts) []string {
	var names []string
	for _, e := range f.Exports {
		if e.Kind != rewrite.KindFunc || slices.Contains(runtimeExports, e.Name) || strings.HasPrefix(e.Name, "asyncify_") {
			continue
		}
		switch e.Signature {
		case "()", "() -> i32", "() -> i64":
			names = append(names, e.Name)
		}
	}
	return names
}

// Compile judges and compiles a plugin. Machine code comes from the file cache
// when the same bytes were compiled before. It takes up to seconds for large
// modules and does not look at ctx between functions.
//
// Refusals are *sandbox.RefusedError, joined when there are several.
func (rt *Runtime) Compile(ctx context.Context, wasm []byte) (*Module, error) {
	info, parsed, err := inspect(wasm)
	if err != nil {
		return nil, err
	}
	if info.MemoryMinBytes > rt.cfg.MaxMemoryBytes {
		info.Refusals = append(info.Refusals, &sandbox.RefusedError{
			Kind:   sandbox.RefusedMemory,
			Reason: fmt.Sprintf("it starts with %s of memory, the limit is %s", bytesText(info.MemoryMinBytes), bytesText(rt.cfg.MaxMemoryBytes)),
			Advice: "raise the node's limit (limits: {plugin_memory: ...}), or link the plugin with less memory",
		})
	}
	if err := info.Err(); err != nil {
		return nil, err
	}
	m := &Module{rt: rt, info: info, functions: callable(parsed.Facts()), parsed: parsed, codes: map[int64]*code{}}
	for _, im := range info.Imports {
		m.http = m.http || im.Module == envModule && im.Name == httpRequest
	}
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
	out, err := m.parsed.Rewrite(rewrite.Options{Fuel: true, InitialFuel: fuel})
	if err != nil {
		return nil, fmt.Errorf("rewrite plugin %s: %w", m.info.Digest, err)
	}
	c := &code{}
	wasm := out.Wasm
	if wasm, c.firstWrapper, err = wrapExports(wasm, out.Fuel.Global, fuel); err != nil {
		return nil, fmt.Errorf("rewrite plugin %s: %w", m.info.Digest, err)
	}
	if m.info.CodeBytes >= parallelCompileBytes {
		ctx = experimental.WithCompilationWorkers(ctx, runtime.GOMAXPROCS(0))
	}
	if c.plugin, err = m.rt.compile(ctx, wasm); err != nil {
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
		sdk.PluginConfig{RuntimeConfig: rt.runtimeConfig(), EnableWasi: true}, nil)
}

// Info tells what is known about the plugin. It must not be changed.
func (m *Module) Info() *sandbox.Info { return m.info }

// Functions are the exports that a stage can call, in their order in the
// binary. They must not be changed.
func (m *Module) Functions() []string { return m.functions }

// UsesHTTP reports whether the plugin can ask for hosts at all.
func (m *Module) UsesHTTP() bool { return m.http }

// CheckFunction reports whether a stage can call the export.
func (m *Module) CheckFunction(name string) error {
	switch {
	case slices.Contains(m.functions, name):
		return nil
	case name == "":
		return fmt.Errorf("function: an Extism plugin needs the name of the export to call; this one has %q", m.functions)
	}
	for _, e := range m.info.Exports {
		if e.Name == name && e.Kind == rewrite.KindFunc {
			return fmt.Errorf("function: %q has the type %s, which cannot be called with a record; this plugin has %q", name, e.Signature, m.functions)
		}
	}
	return fmt.Errorf("function: the plugin does not export %q; it has %q", name, m.functions)
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

func bytesText(n int64) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}
