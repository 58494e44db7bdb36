// Package extism runs plugins that were built with an Extism PDK, through the
// Extism Go SDK: one exported function, called once for each record.
//
// A Runtime compiles; a Module is a compiled plugin; a Stage is one function
// of a Module with a configuration at its place in a flow. The function gets
// the record's value and answers with the value to emit; key, headers and
// timestamp are inherited. What a guest sees beside is its configuration, its
// variables, a clock and a random seed of the batch, and the hosts that the
// flow lists; it has bounded memory and no files.
//
// It is the way to run what exists, not the fast one: a call costs tens of
// microseconds, whatever the guest does. The package does not decide what
// becomes of failures, keeps nothing on disk but wazero's compilation
// cache, and does not bound the time of a call, only its fuel.
package extism

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"

	sdk "github.com/extism/go-sdk"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/millrace-io/millrace/plugins/sandbox"
)

// pageBytes is the unit of Wasm memory.
const pageBytes = 64 << 10

// Config is the configuration of a Runtime. The zero value works.
type Config struct {
	// CacheDir holds compiled machine code across restarts; it is created,
	// and may be that of the sandbox. Empty: in memory only.
	CacheDir string
	// Logger gets what concerns the runtime itself; nil discards.
	Logger *slog.Logger
	// Workers is how many instances a stage has at most; 0: GOMAXPROCS.
	Workers int
	// MaxMemoryBytes is the memory limit of a stage that asks for nothing
	// else, and the most that one may ask for; 0:
	// sandbox.DefaultMaxMemoryBytes. It counts in pages of 64 KiB, for the
	// guest's memory and Extism's own together.
	MaxMemoryBytes int64
	// MaxFuelPerRecord is the fuel (see package rewrite) of each record of a
	// stage that asks for nothing else, and the most that one may ask for, at
	// most MaxFuel; 0: DefaultMaxFuelPerRecord.
	MaxFuelPerRecord int64
	// MaxModuleBytes is the largest plugin that is compiled; 0:
	// sandbox.DefaultMaxModuleBytes.
	MaxModuleBytes int
	// Precompile is given each rewritten module before it is compiled in this
	// process; an error refuses the plugin. It is for sandbox.Runtime's, with
	// the same CacheDir: the compiler then runs in a process that may die of
	// it. May be nil.
	Precompile func(ctx context.Context, wasm []byte) error
}

func (c Config) defaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Workers == 0 {
		c.Workers = runtime.GOMAXPROCS(0)
	}
	if c.MaxMemoryBytes == 0 {
		c.MaxMemoryBytes = sandbox.DefaultMaxMemoryBytes
	}
	if c.MaxFuelPerRecord == 0 {
		c.MaxFuelPerRecord = DefaultMaxFuelPerRecord
	}
	if c.MaxModuleBytes == 0 {
		c.MaxModuleBytes = sandbox.DefaultMaxModuleBytes
	}
	return c
}

// Validate reports every fault of c.
func (c Config) Validate() error {
	var errs []error
	if c.Workers < 0 {
		errs = append(errs, fmt.Errorf("workers: %d is negative", c.Workers))
	}
	if m := c.MaxMemoryBytes; m != 0 && (m < pageBytes || m > 4<<30) {
		errs = append(errs, fmt.Errorf("memory limit: %d bytes is not from %d to %d", m, pageBytes, int64(4)<<30))
	}
	if c.MaxFuelPerRecord < 0 || c.MaxFuelPerRecord > MaxFuel {
		errs = append(errs, fmt.Errorf("fuel limit: %d is not from 0 to %d", c.MaxFuelPerRecord, int64(MaxFuel)))
	}
	if c.MaxModuleBytes < 0 {
		errs = append(errs, fmt.Errorf("module limit: %d bytes is negative", c.MaxModuleBytes))
	}
	return errors.Join(errs...)
}

// Runtime compiles Extism plugins and runs their stages. It is safe for
// concurrent use.
type Runtime struct {
	cfg   Config
	cache wazero.CompilationCache

	closeOnce sync.Once
	closeErr  error
}

// guestLogLevel is the least level at which guests log. The SDK has one for
// the whole process, and below this one it tells of each call.
const guestLogLevel = sdk.LogLevelInfo

// New starts a runtime. Close releases it. It sets the SDK's log level, which
// belongs to the process. ctx is for the start only.
func New(ctx context.Context, cfg Config) (*Runtime, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("open extism: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("open extism: %w", err)
	}
	rt := &Runtime{cfg: cfg.defaults()}
	if cfg.CacheDir == "" {
		rt.cache = wazero.NewCompilationCache()
	} else {
		var err error
		if rt.cache, err = wazero.NewCompilationCacheWithDir(cfg.CacheDir); err != nil {
			return nil, fmt.Errorf("open extism: compilation cache %s: %w", cfg.CacheDir, err)
		}
	}
	sdk.SetLogLevel(guestLogLevel)
	return rt, nil
}

// runtimeConfig is that of a module. WithCloseOnContextDone must stay off: it
// makes guests many times slower.
func (rt *Runtime) runtimeConfig() wazero.RuntimeConfig {
	return wazero.NewRuntimeConfig().
		WithCompilationCache(rt.cache).
		WithCoreFeatures(api.CoreFeaturesV2).
		WithDebugInfoEnabled(false)
}

// Close releases the runtime. Its stages and modules must be closed before.
func (rt *Runtime) Close(ctx context.Context) error {
	rt.closeOnce.Do(func() { rt.closeErr = rt.cache.Close(ctx) })
	return rt.closeErr
}

// Workers is the number of instances that a stage has at most.
func (rt *Runtime) Workers() int { return rt.cfg.Workers }

// MaxMemoryBytes is the most memory that a stage may ask for.
func (rt *Runtime) MaxMemoryBytes() int64 { return rt.cfg.MaxMemoryBytes }
