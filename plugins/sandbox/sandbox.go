// Package sandbox runs plugins: it judges and compiles Wasm binaries, and runs
// stages whose guests get batches of records and answer them.
//
// A Runtime compiles; a Module is a compiled plugin; a Stage is a Module with
// a configuration at its place in a flow. A guest sees a batch, its
// configuration, a clock and a random seed, has bounded memory, no files and
// no network, and starts each call from the same image: what it answers
// depends on nothing else. A call that fails is repeated in parts until the
// records that fail alone are found; the others go on. Plugins of extism mode
// are judged here too; package extism runs them.
//
// The package does not decide what becomes of failures, keeps nothing on disk
// but wazero's compilation cache, and does not bound the time of a call.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// pageBytes is the unit of Wasm memory.
const pageBytes = 64 << 10

// DefaultMaxMemoryBytes is the memory limit of a stage unless configured.
const DefaultMaxMemoryBytes = 64 << 20

// DefaultMaxModuleBytes is the largest plugin that is compiled unless
// configured.
const DefaultMaxModuleBytes = 64 << 20

// maxFuel is the most that Config.MaxFuel can be.
const maxFuel = 1 << 40

// maxTableEntries bounds what the tables of an instance have together, of
// which each takes 8 bytes as soon as it is made.
const maxTableEntries = 1 << 20

// Config is the configuration of a Runtime. The zero value works.
type Config struct {
	// CacheDir holds compiled machine code across restarts; it is created.
	// Empty: compiled code is kept in memory only.
	CacheDir string
	// Logger gets what concerns the sandbox itself; nil discards.
	Logger *slog.Logger
	// Workers is how many instances a stage has at most; 0: GOMAXPROCS.
	Workers int
	// MaxMemoryBytes is the memory limit of a stage that asks for nothing
	// else, and the most that one may ask for; 0: DefaultMaxMemoryBytes. It
	// counts in pages of 64 KiB.
	MaxMemoryBytes int64
	// MaxFuel is what a record may cost in a stage that asks for nothing else,
	// and the most that one may ask for; 0: DefaultMaxFuel. Above that a
	// single record holds the whole process for longer than 5 ms.
	MaxFuel int64
	// MaxModuleBytes is the largest plugin that is compiled; 0:
	// DefaultMaxModuleBytes.
	MaxModuleBytes int

	// CompileCommand is a command that runs RunCompileChild with the arguments
	// that are appended to it: plugins are then compiled in a process of their
	// own, which may need too long, too much memory, or crash. It needs
	// CacheDir. Empty: plugins are compiled in this process, without bounds.
	CompileCommand []string
	// CompileTimeout and CompileMemoryBytes bound that process; 0:
	// DefaultCompileTimeout and DefaultCompileMemoryBytes.
	CompileTimeout     time.Duration
	CompileMemoryBytes int64
}

// Bounds of the process that compiles a plugin, unless configured.
const (
	DefaultCompileTimeout     = 60 * time.Second
	DefaultCompileMemoryBytes = 2 << 30
)

func (c Config) defaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Workers == 0 {
		c.Workers = runtime.GOMAXPROCS(0)
	}
	if c.MaxMemoryBytes == 0 {
		c.MaxMemoryBytes = DefaultMaxMemoryBytes
	}
	if c.MaxFuel == 0 {
		c.MaxFuel = DefaultMaxFuel
	}
	if c.MaxModuleBytes == 0 {
		c.MaxModuleBytes = DefaultMaxModuleBytes
	}
	if c.CompileTimeout == 0 {
		c.CompileTimeout = DefaultCompileTimeout
	}
	if c.CompileMemoryBytes == 0 {
		c.CompileMemoryBytes = DefaultCompileMemoryBytes
	}
	return c
}

// Validate reports every fault of c.
func (c Config) Validate() error {
	var errs []error
	if c.Workers < 0 {
		errs = append(errs, fmt.Errorf("workers: %d is negative", c.Workers))
	}
	if c.MaxFuel < 0 || c.MaxFuel > maxFuel {
		errs = append(errs, fmt.Errorf("fuel limit: %d is not from 0 to %d", c.MaxFuel, int64(maxFuel)))
	}
	if c.MaxModuleBytes < 0 {
		errs = append(errs, fmt.Errorf("module limit: %d bytes is negative", c.MaxModuleBytes))
	}
	if len(c.CompileCommand) > 0 && c.CacheDir == "" {
		errs = append(errs, errors.New("compile command: it fills the cache, and there is no folder for one"))
	}
	if c.CompileTimeout < 0 || c.CompileMemoryBytes < 0 {
		errs = append(errs, errors.New("compile command: a limit is negative"))
	}
	if m := c.MaxMemoryBytes; m != 0 && (m < pageBytes || m > 4<<30) {
		errs = append(errs, fmt.Errorf("memory limit: %d bytes is not from %d to %d", m, pageBytes, int64(4)<<30))
	}
	return errors.Join(errs...)
}

// Runtime compiles plugins and runs their stages. It is safe for concurrent
// use.
type Runtime struct {
	cfg   Config
	wz    wazero.Runtime
	cache wazero.CompilationCache
	entry wazero.CompiledModule // of lines programs
	// compiling holds one place: processes that compile take turns.
	compiling chan struct{}

	closeOnce sync.Once
	closeErr  error
}

// New starts a runtime. Close releases it. ctx is for the start only.
func New(ctx context.Context, cfg Config) (*Runtime, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("open sandbox: %w", err)
	}
	cfg = cfg.defaults()
	rt := &Runtime{cfg: cfg, compiling: make(chan struct{}, 1)}
	var err error
	if cfg.CacheDir != "" {
		if rt.cache, err = wazero.NewCompilationCacheWithDir(cfg.CacheDir); err != nil {
			return nil, fmt.Errorf("open sandbox: compilation cache %s: %w", cfg.CacheDir, err)
		}
	} else {
		rt.cache = wazero.NewCompilationCache()
	}
	rt.wz = wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().
		WithCompilationCache(rt.cache).
		WithCoreFeatures(api.CoreFeaturesV2).
		WithDebugInfoEnabled(false))
	if err := rt.instantiateHost(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open sandbox: %w", err), rt.Close(ctx))
	}
	if rt.Engine() == EngineInterpreter {
		cfg.Logger.Warn("plugins run in an interpreter, 10 to 30 times slower than compiled",
			"next", "allow executable memory (systemd: MemoryDenyWriteExecute=no), or use amd64 or arm64")
	}
	return rt, nil
}

// Close releases the runtime. Its stages and modules must be closed before.
func (rt *Runtime) Close(ctx context.Context) error {
	rt.closeOnce.Do(func() {
		var errs []error
		if rt.wz != nil {
			errs = append(errs, rt.wz.Close(ctx))
		}
		errs = append(errs, rt.cache.Close(ctx))
		rt.closeErr = errors.Join(errs...)
	})
	return rt.closeErr
}

// The engines.
const (
	EngineCompiler    = "compiler"
	EngineInterpreter = "interpreter"
)

// Engine tells how guests run here: EngineCompiler, or EngineInterpreter where
// the platform or a policy forbids executable memory.
func (rt *Runtime) Engine() string {
	if compilerSupported() {
		return EngineCompiler
	}
	return EngineInterpreter
}

// compilerSupported asks wazero, which panics when told to compile where it
// cannot.
var compilerSupported = sync.OnceValue(func() (ok bool) {
	ctx := context.Background()
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler())
	_ = r.Close(ctx)
	return true
})

// Config is the configuration that the runtime has, with its defaults.
func (rt *Runtime) Config() Config { return rt.cfg }

// Workers is the number of instances that a stage has at most.
func (rt *Runtime) Workers() int { return rt.cfg.Workers }

// MaxMemoryBytes is the most memory that a stage may ask for.
func (rt *Runtime) MaxMemoryBytes() int64 { return rt.cfg.MaxMemoryBytes }
