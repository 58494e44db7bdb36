package extism

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

	sdk "github.com/extism/go-sdk"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/sys"
)

// Bounds of what is kept of one call's log.
const (
	maxCallLogBytes = 64 << 10
	maxLineBytes    = 8 << 10
)

// readingNanos is what the clock advances by at each reading.
const readingNanos = 1000

// guestEnv is the world that one instance sees: clock, random and log. It
// belongs to the goroutine that uses the instance.
type guestEnv struct {
	nanos  int64
	seed   uint64
	random *rand.ChaCha8

	lines   []logLine
	bytes   int
	lost    int // lines over maxCallLogBytes
	partial [2][]byte
	silent  bool // nothing is kept any more
}

type logLine struct {
	level slog.Level
	text  string
}

// begin starts the world of a call.
func (e *guestEnv) begin(nowMillis int64, seed uint64) {
	e.nanos = min(max(nowMillis, 0), math.MaxInt64/2/1_000_000) * 1_000_000
	e.seed, e.random = seed, nil
	e.lines, e.bytes, e.lost = e.lines[:0], 0, 0
	e.partial[0], e.partial[1] = e.partial[0][:0], e.partial[1][:0]
}

// finish ends the world of a call: lines without an end become lines.
func (e *guestEnv) finish() {
	for i := range e.partial {
		e.addLine(slog.LevelInfo, e.partial[i])
		e.partial[i] = e.partial[i][:0]
	}
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

// moduleConfig is the configuration of an instance that sees e. The SDK fills
// in the name, so that there may be many.
func (e *guestEnv) moduleConfig() wazero.ModuleConfig {
	const resolution = sys.ClockResolution(readingNanos)
	return wazero.NewModuleConfig().
		WithWalltime(e.walltime, resolution).
		WithNanotime(e.read, resolution).
		WithNanosleep(e.advance).
		WithOsyield(func() {}).
		WithRandSource(e).
		WithStdout(logWriter{e, 0}).
		WithStderr(logWriter{e, 1})
}

// logWriter makes log lines of what is written to STDOUT and STDERR.
type logWriter struct {
	env *guestEnv
	// fd is the index in partial: 0 for STDOUT, 1 for STDERR.
	fd int
}

func (w logWriter) Write(p []byte) (int, error) {
	n := len(p)
	part := &w.env.partial[w.fd]
	for len(p) > 0 {
		line, rest, ended := bytes.Cut(p, []byte{'\n'})
		if room := maxLineBytes - len(*part); len(line) > room {
			line, rest, ended = p[:room], p[room:], true
		}
		*part = append(*part, line...)
		if p = rest; ended {
			w.env.addLine(slog.LevelInfo, *part)
			*part = (*part)[:0]
		}
	}
	return n, nil
}

// log is the callback that the SDK gives what guests log.
func (e *guestEnv) log(level sdk.LogLevel, message string) {
	l := slog.LevelInfo
	switch level {
	case sdk.LogLevelTrace, sdk.LogLevelDebug:
		l = slog.LevelDebug
	case sdk.LogLevelWarn:
		l = slog.LevelWarn
	case sdk.LogLevelError:
		l = slog.LevelError
	}
	for line := range strings.SplitSeq(message, "\n") {
		e.addLine(l, []byte(line[:min(len(line), maxLineBytes)]))
	}
}

func (e *guestEnv) addLine(level slog.Level, b []byte) {
	b = bytes.TrimSuffix(b, []byte{'\r'})
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

// printable is a text of a guest as one line that no terminal obeys: valid
// UTF-8 without control characters.
func printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		if r != '\t' && unicode.IsControl(r) {
			return utf8.RuneError
		}
		return r
	}, string(b))
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
	var texts []string
	for _, l := range e.lines[max(0, len(e.lines)-n):] {
		texts = append(texts, shorten(l.text, 1024))
	}
	return strings.Join(texts, "; ")
}

func shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "..."
}

// tell passes on what a call logged.
func (s *Stage) tell(ctx context.Context, e *guestEnv) {
	if len(e.lines)+e.lost == 0 {
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
