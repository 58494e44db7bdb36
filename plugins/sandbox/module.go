package sandbox

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/millrace-io/millrace/plugins/manifest"
	"github.com/millrace-io/millrace/plugins/rewrite"
)

// parallelCompileBytes is the size of a module from which on several workers
// compile it.
const parallelCompileBytes = 1 << 20

// Module is a compiled plugin. It is safe for concurrent use.
type Module struct {
	rt       *Runtime
	info     *Info
	compiled wazero.CompiledModule
	globals  []rewrite.Global
	fuel     string // the export of the fuel counter
	hasStart bool
	schema   *manifest.Schema

	closeOnce sync.Once
	closeErr  error
}

// Compile judges, rewrites and compiles a plugin. Machine code comes from the
// file cache when the same bytes were compiled before. It takes up to seconds
// for large modules. ctx ends it only with Config.CompileCommand.
//
// Refusals are *RefusedError, joined when there are several. A plugin that runs
// in extism mode is a *ModeError: package extism compiles it.
func (rt *Runtime) Compile(ctx context.Context, wasm []byte) (*Module, error) {
	if len(wasm) > rt.cfg.MaxModuleBytes {
		return nil, refuse(RefusedLimits, "strip debug information (-s), or raise the node's limit",
			"it has %d bytes, the limit is %s", len(wasm), BytesText(int64(rt.cfg.MaxModuleBytes)))
	}
	info, parsed, err := inspect(wasm, "")
	if err != nil {
		return nil, err
	}
	rt.checkMemory(info)
	if err := info.Err(); err != nil {
		return nil, err
	}
	if info.Mode == manifest.ModeExtism {
		return nil, &ModeError{info.Mode}
	}
	m := &Module{rt: rt, info: info}
	if info.Manifest != nil && info.Manifest.Config != nil {
		if m.schema, err = manifest.CompileSchema(info.Manifest.Config); err != nil {
			return nil, &RefusedError{Kind: RefusedManifest, Reason: err.Error(), Err: err}
		}
	}
	out, err := parsed.Rewrite(rewrite.Options{Fuel: true, InitialFuel: instanceFuel})
	if err != nil {
		if e, ok := errors.AsType[*rewrite.RefusedError](err); ok {
			return nil, refusedBy(e)
		}
		return nil, fmt.Errorf("rewrite plugin %s: %w", info.Digest, err)
	}
	m.globals, m.fuel, m.hasStart = out.Globals, out.Fuel.Export, out.Facts.HasStart
	if err := rt.Precompile(ctx, out.Wasm); err != nil {
		return nil, err
	}
	if m.compiled, err = rt.compile(ctx, out.Wasm); err != nil {
		return nil, invalid(err)
	}
	return m, nil
}

// Precompile has a rewritten module compiled into the cache by a process of its
// own, where there is a CompileCommand; else it does nothing. What compiles the
// same bytes with the same cache then finds the machine code. It refuses what
// needs too much time or memory, or what the compiler does not take, with a
// *RefusedError.
func (rt *Runtime) Precompile(ctx context.Context, wasm []byte) error {
	if len(rt.cfg.CompileCommand) == 0 {
		return nil
	}
	return rt.compileInChild(ctx, wasm)
}

// invalid refuses what the compiler did not take.
func invalid(err error) *RefusedError {
	return &RefusedError{
		Kind: RefusedFormat, Reason: fmt.Sprintf("it does not validate: %v", err), Err: err,
		Advice: "the file is damaged, or its toolchain made an invalid module; build it again",
	}
}

// compile turns a panic of the compiler into an error: what it reads comes
// from anybody.
func (rt *Runtime) compile(ctx context.Context, wasm []byte) (c wazero.CompiledModule, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the compiler gave up: %v", r)
		}
	}()
	if len(wasm) >= parallelCompileBytes {
		ctx = experimental.WithCompilationWorkers(ctx, runtime.GOMAXPROCS(0))
	}
	return rt.wz.CompileModule(ctx, wasm)
}

func (rt *Runtime) checkMemory(i *Info) {
	if i.MemoryMinBytes > rt.cfg.MaxMemoryBytes {
		i.refuse(RefusedMemory, "raise the node's limit (limits: {plugin_memory: ...}), or link the plugin with less memory",
			"it starts with %s of memory, the limit is %s", BytesText(i.MemoryMinBytes), BytesText(rt.cfg.MaxMemoryBytes))
	}
}

// Info tells what is known about the plugin. It must not be changed.
func (m *Module) Info() *Info { return m.info }

// CheckConfig holds a configuration against the plugin: that it can take one
// at all, and the schema of its manifest. The error is a *manifest.ConfigError
// where single places are wrong.
func (m *Module) CheckConfig(config []byte) error {
	given := len(config) > 0 && string(config) != "{}" && string(config) != "null"
	if given && m.info.Mode == manifest.ModeLines {
		return errors.New("configuration of the plugin: a program that reads STDIN takes none; remove `with`")
	}
	if given && !m.info.Configurable {
		return errors.New("configuration of the plugin: it takes none (it exports no stage_init); remove `with`")
	}
	if m.schema != nil {
		return m.schema.Validate(config)
	}
	return nil
}

// Close releases the machine code. The module's stages must be closed before.
func (m *Module) Close(ctx context.Context) error {
	m.closeOnce.Do(func() { m.closeErr = m.compiled.Close(ctx) })
	return m.closeErr
}

// BytesText is a number of bytes for messages, in the greatest unit that makes
// it whole.
func BytesText(n int64) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}
