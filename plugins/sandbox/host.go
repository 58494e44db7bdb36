package sandbox

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"
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

// guestEnv is the world that one instance sees: clock, random, log, counts.
// It belongs to the goroutine that uses the instance.
type guestEnv struct {
	nanos  int64  // the clock
	seed   uint64 // of the random of this call
	random *rand.ChaCha8

	lines   []logLine
	bytes   int
	lost    int // lines over maxCallLogBytes
	partial [2][]byte
	counts  []counted
	silent  bool     // warm-up, or the start of a clone: nothing is kept
	program *program // the lines program it belongs to, or nil

	fuel       meter
	fuelExport string // where it is looked up
}

type logLine struct {
	level slog.Level
	text  string
}

type counted struct {
	name  string
	delta float64
}

// Bounds of what is kept of one call.
const (
	maxCallLogBytes = 64 << 10
	maxLineBytes    = 8 << 10
	maxCounts       = 64
	maxCountName    = 128
)

// readingNanos is what the clock advances by at each reading.
const readingNanos = 1000

// begin starts the world of a call.
func (e *guestEnv) begin(nowMillis int64, seed uint64) {
	e.nanos = satMul(nowMillis, 1_000_000)
	e.seed = seed
	e.random = nil
	e.lines, e.bytes, e.lost = e.lines[:0], 0, 0
	e.partial[0], e.partial[1] = e.partial[0][:0], e.partial[1][:0]
	e.counts = e.counts[:0]
}

func satMul(a, b int64) int64 {
	if a > math.MaxInt64/2/b {
		return math.MaxInt64 / 2
	}
	if a < 0 {
		return 0
	}
	return a * b
}

func (e *guestEnv) read() int64 {
	n := e.nanos
	e.advance(readingNanos)
	return n
}

func (e *guestEnv) advance(ns int64) {
	if ns > 0 && e.nanos <= math.MaxInt64-ns {
		e.nanos += ns
	}
}

func (e *guestEnv) walltime() (int64, int32) {
	n := e.read()
	return n / 1_000_000_000, int32(n % 1_000_000_000)
}

// Read implements io.Reader with random bytes that follow from the seed.
func (e *guestEnv) Read(p []byte) (int, error) {
	if e.random == nil {
		var seed [32]byte
		binary.LittleEndian.PutUint64(seed[:], e.seed)
		copy(seed[8:], "millrace stage/1 random")
		e.random = rand.NewChaCha8(seed)
	}
	return e.random.Read(p)
}

// moduleConfig is the configuration of an instance that sees e.
func (e *guestEnv) moduleConfig() wazero.ModuleConfig {
	const resolution = sys.ClockResolution(readingNanos)
	return wazero.NewModuleConfig().WithName("").WithStartFunctions().
		WithWalltime(e.walltime, resolution).
		WithNanotime(e.read, resolution).
		WithNanosleep(e.advance).
		WithOsyield(func() {}).
		WithRandSource(e)
}

// logWriter makes log lines of what is written to a file descriptor.
type logWriter struct {
	env *guestEnv
	// fd is the index in partial: 0 for STDOUT, 1 for STDERR.
	fd int
}

func (w logWriter) Write(p []byte) (int, error) {
	n := len(p)
	e := w.env
	if e.silent {
		return n, nil
	}
	for len(p) > 0 {
		i := bytes.IndexByte(p[:min(len(p), maxLineBytes)], '\n')
		part := &e.partial[w.fd]
		switch {
		case i >= 0:
			*part = append(*part, p[:i]...)
			p = p[i+1:]
		case len(*part)+len(p) < maxLineBytes:
			*part = append(*part, p...)
			return n, nil
		default:
			k := max(1, min(len(p), maxLineBytes-len(*part)))
			*part = append(*part, p[:k]...)
			p = p[k:]
		}
		e.addLine(slog.LevelInfo, *part)
		*part = (*part)[:0]
	}
	return n, nil
}

func (e *guestEnv) addLine(level slog.Level, b []byte) {
	if len(b) > 0 && b[len(b)-1] == '\r' {
		b = b[:len(b)-1]
	}
	if e.silent || len(b) == 0 {
		return
	}
	if e.bytes+len(b) > maxCallLogBytes {
		e.lost++
		return
	}
	e.bytes += len(b)
	e.lines = append(e.lines, logLine{level, printable(b)})
}

// printable is a line of a guest as text that no terminal obeys: valid UTF-8
// without control characters.
func printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		if r != '\t' && unicode.IsControl(r) {
			return utf8.RuneError
		}
		return r
	}, string(b))
}

// finish ends the world of a call: lines without an end become lines.
func (e *guestEnv) finish() {
	for i := range e.partial {
		e.addLine(slog.LevelInfo, e.partial[i])
		e.partial[i] = e.partial[i][:0]
	}
}

// texts are the lines of the call, nil if there are none.
func (e *guestEnv) texts() []string {
	if len(e.lines) == 0 {
		return nil
	}
	out := make([]string, 0, len(e.lines)+1)
	for _, l := range e.lines {
		out = append(out, l.text)
	}
	if e.lost > 0 {
		out = append(out, fmt.Sprintf("(%d more lines were not kept)", e.lost))
	}
	return out
}

// lastLines is the end of the call's log in one line, for messages.
func (e *guestEnv) lastLines(n int) string {
	lines := e.lines[max(0, len(e.lines)-n):]
	var b strings.Builder
	for i, l := range lines {
		if i > 0 {
			b.WriteString("; ")
		}
		t := l.text
		if len(t) > 1024 {
			t = strings.ToValidUTF8(t[:1024], "") + "..."
		}
		b.WriteString(t)
	}
	return b.String()
}

type envKey struct{}

func envOf(ctx context.Context) *guestEnv {
	e, _ := ctx.Value(envKey{}).(*guestEnv)
	return e
}

// levels of the host function log: 0 debug, 1 info, 2 warn, 3 error.
var levels = [...]slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError}

func hostLog(ctx context.Context, mod api.Module, stack []uint64) {
	e := envOf(ctx)
	if e == nil {
		return
	}
	level := slog.LevelInfo
	if l := uint32(stack[0]); l < uint32(len(levels)) {
		level = levels[l]
	}
	b, ok := mod.Memory().Read(uint32(stack[1]), uint32(stack[2]))
	if !ok {
		panic(errHostCall("stage.log", uint32(stack[1]), uint32(stack[2])))
	}
	e.charge(mod, uint64(min(len(b), maxLineBytes)))
	if e.silent {
		return
	}
	if len(b) > maxLineBytes {
		b = b[:maxLineBytes]
	}
	e.addLine(level, b)
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

// tell passes on what a successful call, or one that finally failed, counted
// and, unless they went into the failure, logged.
func (s *Stage) tell(ctx context.Context, e *guestEnv, logs bool) {
	if s.cfg.OnCount != nil {
		for _, c := range e.counts {
			s.cfg.OnCount(c.name, c.delta)
		}
	}
	if !logs || len(e.lines)+e.lost == 0 {
		return
	}
	dropped := int64(e.lost)
	for _, l := range e.lines {
		if !s.limiter.Allow() {
			dropped++
			continue
		}
		if n := s.unsaid.Swap(0); n > 0 {
			s.log.Warn("guest log lines dropped", "lines", n)
		}
		s.log.LogAttrs(ctx, l.level, "guest log", slog.String("line", l.text))
		if s.cfg.OnLog != nil {
			s.cfg.OnLog(l.level, l.text)
		}
	}
	if dropped > 0 {
		s.unsaid.Add(dropped)
		s.count.logsDropped.Add(dropped)
	}
}
