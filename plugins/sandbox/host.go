package sandbox

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math"
	"unicode/utf8"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"

	"github.com/millrace-io/millrace/runtime/record"
)

// The modules that guests may import from.
const (
	hostModule = "stage"
	wasiModule = wasi_snapshot_preview1.ModuleName
)

var le = binary.LittleEndian

// instantiateHost makes the modules that guests import.
func (rt *Runtime) instantiateHost(ctx context.Context) error {
	const i32, f64 = api.ValueTypeI32, api.ValueTypeF64
	w := rt.wz.NewHostModuleBuilder(wasiModule)
	exportWASI(w)
	if _, err := w.Instantiate(ctx); err != nil {
		return fmt.Errorf("make host module %s: %w", wasiModule, err)
	}
	s := rt.wz.NewHostModuleBuilder(hostModule)
	s.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(hostLog), []api.ValueType{i32, i32, i32}, nil).Export("log")
	s.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(hostCount), []api.ValueType{i32, i32, f64}, nil).Export("count")
	s.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(hostSign), []api.ValueType{i32, i32, i32, i32, i32}, []api.ValueType{i32}).Export(importSign)
	if _, err := s.Instantiate(ctx); err != nil {
		return fmt.Errorf("make host module %s: %w", hostModule, err)
	}
	f := rt.wz.NewHostModuleBuilder(forkModule)
	f.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(hostReturned), nil, nil).Export("returned")
	if _, err := f.Instantiate(ctx); err != nil {
		return fmt.Errorf("make host module %s: %w", forkModule, err)
	}
	var err error
	if rt.entry, err = rt.wz.CompileModule(ctx, entryWasm); err != nil {
		return fmt.Errorf("compile the entry of lines programs: %w", err)
	}
	return nil
}

// guestEnv is the world that one instance sees, with its counts and its fuel.
// It belongs to the goroutine that uses the instance.
type guestEnv struct {
	World

	counts  []counted
	signing signing
	program *program // the lines program it belongs to, or nil

	fuel       meter
	fuelExport string // where it is looked up
}

type counted struct {
	name  string
	delta float64
}

// Bounds of what a guest counts in one call.
const (
	maxCounts    = 64
	maxCountName = 128
)

// begin starts the world of a call.
func (e *guestEnv) begin(nowMillis int64, seed uint64) {
	e.Begin(nowMillis, seed)
	e.counts, e.signing = e.counts[:0], signing{}
}

// moduleConfig is the configuration of an instance that sees e.
func (e *guestEnv) moduleConfig() wazero.ModuleConfig {
	const resolution = sys.ClockResolution(ReadingNanos)
	return wazero.NewModuleConfig().WithName("").WithStartFunctions().
		WithWalltime(e.Walltime, resolution).
		WithNanotime(e.Nanotime, resolution).
		WithNanosleep(e.Sleep).
		WithOsyield(func() {}).
		WithRandSource(e)
}

type envKey struct{}

func envOf(ctx context.Context) *guestEnv {
	e, _ := ctx.Value(envKey{}).(*guestEnv)
	return e
}

// logRecordShift is where the level of the host function log has, plus one, the
// number in the frame of the record that the line is about; 0: of none.
const logRecordShift = 8

// levels of the host function log: 0 debug, 1 info, 2 warn, 3 error.
var levels = [...]slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError}

func hostLog(ctx context.Context, mod api.Module, stack []uint64) {
	e := envOf(ctx)
	if e == nil {
		return
	}
	level, of := slog.LevelInfo, int(uint32(stack[0])>>logRecordShift)-1
	if l := uint32(stack[0]) & (1<<logRecordShift - 1); l < uint32(len(levels)) {
		level = levels[l]
	}
	b, ok := mod.Memory().Read(uint32(stack[1]), uint32(stack[2]))
	if !ok {
		panic(errHostCall("stage.log", uint32(stack[1]), uint32(stack[2])))
	}
	e.charge(mod, uint64(min(len(b), MaxLineBytes)))
	if e.silent {
		return
	}
	if len(b) > MaxLineBytes {
		b = b[:MaxLineBytes]
	}
	e.addLine(level, of, b)
}

func hostCount(ctx context.Context, mod api.Module, stack []uint64) {
	e := envOf(ctx)
	if e == nil {
		return
	}
	b, ok := mod.Memory().Read(uint32(stack[0]), uint32(stack[1]))
	if !ok {
		panic(errHostCall("stage.count", uint32(stack[0]), uint32(stack[1])))
	}
	delta := api.DecodeF64(stack[2])
	if e.silent || len(b) == 0 || len(b) > maxCountName || math.IsNaN(delta) || math.IsInf(delta, 0) {
		return
	}
	for i := range e.counts {
		if e.counts[i].name == string(b) {
			e.counts[i].delta += delta
			return
		}
	}
	if len(e.counts) < maxCounts && utf8.Valid(b) {
		e.counts = append(e.counts, counted{string(b), delta})
	}
}

// hostCallError ends a guest that gave a host function a range outside of its
// memory.
type hostCallError struct{ message string }

func (e *hostCallError) Error() string { return e.message }

func errHostCall(name string, ptr, n uint32) error {
	return &hostCallError{fmt.Sprintf("it called %s with %d bytes at %#x, outside of its memory", name, n, ptr)}
}

// tell passes on what a call for records that succeeded or finally failed
// counted and logged; filed: the lines lie with the failure.
func (s *Stage) tell(ctx context.Context, e *guestEnv, records []record.Record, filed bool) {
	if s.cfg.OnCount != nil {
		for _, c := range e.counts {
			s.cfg.OnCount(c.name, c.delta)
		}
	}
	s.count.logsDropped.Add(s.outlet.Tell(ctx, &e.World, records, filed))
}
