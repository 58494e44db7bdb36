package sandbox

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"unicode"
	"unicode/utf8"

	"golang.org/x/time/rate"

	"github.com/millrace-io/millrace/runtime/record"
)

// World is what a guest sees in one call beside its input, a clock and random
// bytes, and what it logs. The zero value is ready. It belongs to the goroutine
// that uses the instance.
type World struct {
	nanos  int64  // the clock
	seed   uint64 // of the random of this call
	random *rand.ChaCha8

	lines   []logLine
	bytes   int
	lost    int // lines over maxCallLogBytes
	partial [2][]byte
	silent  bool // nothing is kept: warm-up, the start of a clone
}

type logLine struct {
	level slog.Level
	text  string
	of    int // the record of the call that the guest named, -1: none
}

// LogLine is a line that a guest logged.
type LogLine struct {
	Level slog.Level
	Text  string
	// Records are those of the call, to be read until OnLog returns; there are
	// none where a plugin starts. Of is the one that the line is about, -1 if
	// the guest did not say and it is any of them.
	Records []record.Record
	Of      int
	// Filed says that it is kept with the failure of its record.
	Filed bool
}

// MaxLineBytes is how long a line can be that is kept; a longer one becomes
// several.
const MaxLineBytes = 8 << 10

// maxCallLogBytes is how much is kept of one call.
const maxCallLogBytes = 64 << 10

// ReadingNanos is what the clock advances by at each reading.
const ReadingNanos = 1000

// Begin starts the world of a call: the clock stands at nowMillis, in Unix
// milliseconds, and what is random follows from seed.
func (w *World) Begin(nowMillis int64, seed uint64) {
	w.nanos = satMul(nowMillis, 1_000_000)
	w.seed = seed
	w.random = nil
	w.lines, w.bytes, w.lost = w.lines[:0], 0, 0
	w.partial[0], w.partial[1] = w.partial[0][:0], w.partial[1][:0]
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

// Nanotime is the clock in nanoseconds; it advances with each reading.
func (w *World) Nanotime() int64 {
	n := w.nanos
	w.Sleep(ReadingNanos)
	return n
}

// Sleep advances the clock.
func (w *World) Sleep(ns int64) {
	if ns > 0 && w.nanos <= math.MaxInt64-ns {
		w.nanos += ns
	}
}

// Walltime is the clock in seconds and nanoseconds.
func (w *World) Walltime() (int64, int32) {
	n := w.Nanotime()
	return n / 1_000_000_000, int32(n % 1_000_000_000)
}

// Read implements io.Reader with random bytes that follow from the seed.
func (w *World) Read(p []byte) (int, error) {
	if w.random == nil {
		var seed [32]byte
		le.PutUint64(seed[:], w.seed)
		copy(seed[8:], "millrace stage/1 random")
		w.random = rand.NewChaCha8(seed)
	}
	return w.random.Read(p)
}

// Stdout and Stderr make log lines of what is written to them.
func (w *World) Stdout() io.Writer { return logWriter{w, 0} }

// Stderr: see Stdout.
func (w *World) Stderr() io.Writer { return logWriter{w, 1} }

// Log adds what a guest logs by a call of the host: a line for each in text.
func (w *World) Log(level slog.Level, text string) {
	for line := range strings.SplitSeq(text, "\n") {
		w.addLine(level, -1, []byte(line[:min(len(line), MaxLineBytes)]))
	}
}

// Silence has the world keep nothing of what is logged, or keep it again.
func (w *World) Silence(on bool) { w.silent = on }

// Lost is how many lines of the call were not kept.
func (w *World) Lost() int64 { return int64(w.lost) }

// logWriter makes log lines of what is written to a file descriptor.
type logWriter struct {
	env *World
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
		i := bytes.IndexByte(p[:min(len(p), MaxLineBytes)], '\n')
		part := &e.partial[w.fd]
		switch {
		case i >= 0:
			*part = append(*part, p[:i]...)
			p = p[i+1:]
		case len(*part)+len(p) < MaxLineBytes:
			*part = append(*part, p...)
			return n, nil
		default:
			k := max(1, min(len(p), MaxLineBytes-len(*part)))
			*part = append(*part, p[:k]...)
			p = p[k:]
		}
		e.addLine(slog.LevelInfo, -1, *part)
		*part = (*part)[:0]
	}
	return n, nil
}

func (w *World) addLine(level slog.Level, of int, b []byte) {
	if len(b) > 0 && b[len(b)-1] == '\r' {
		b = b[:len(b)-1]
	}
	if w.silent || len(b) == 0 {
		return
	}
	if w.bytes+len(b) > maxCallLogBytes {
		w.lost++
		return
	}
	w.bytes += len(b)
	w.lines = append(w.lines, logLine{level, Printable(b), of})
}

// Printable is a line of a guest as text that no terminal obeys: valid UTF-8
// without control characters.
func Printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		if r != '\t' && unicode.IsControl(r) {
			return utf8.RuneError
		}
		return r
	}, string(b))
}

// Finish ends the world of a call: lines without an end become lines.
func (w *World) Finish() {
	for i := range w.partial {
		w.addLine(slog.LevelInfo, -1, w.partial[i])
		w.partial[i] = w.partial[i][:0]
	}
}

// Texts are the lines of the call, nil if there are none.
func (w *World) Texts() []string {
	if len(w.lines) == 0 {
		return nil
	}
	out := make([]string, 0, len(w.lines)+1)
	for _, l := range w.lines {
		out = append(out, l.text)
	}
	if w.lost > 0 {
		out = append(out, fmt.Sprintf("(%d more lines were not kept)", w.lost))
	}
	return out
}

// LastLines is the end of the call's log in one line, for messages.
func (w *World) LastLines(n int) string {
	lines := w.lines[max(0, len(w.lines)-n):]
	var b strings.Builder
	for i, l := range lines {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(Shorten(l.text, 1024))
	}
	return b.String()
}

// Shorten is s, or its first n bytes and an ellipsis.
func Shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "..."
}

// Outlet passes on what the guests of a stage log, LogsPerSecond lines a second
// and a burst of LogBurst. It is safe for concurrent use.
type Outlet struct {
	log     *slog.Logger
	on      func(LogLine)
	limiter *rate.Limiter
	unsaid  atomic.Int64 // dropped lines that no message told of yet
}

// NewOutlet makes the outlet of a stage: cfg's Logger and OnLog.
func NewOutlet(cfg *StageConfig) *Outlet {
	return &Outlet{log: cfg.Log(), on: cfg.OnLog, limiter: rate.NewLimiter(LogsPerSecond, LogBurst)}
}

// Tell passes on what a call for records logged, and tells how many lines were
// not. filed says that the lines lie with a failure: OnLog alone gets them then.
func (o *Outlet) Tell(ctx context.Context, w *World, records []record.Record, filed bool) (dropped int64) {
	dropped = int64(w.lost)
	if filed && o.on == nil {
		return dropped
	}
	for _, l := range w.lines {
		if !o.limiter.Allow() {
			dropped++
			continue
		}
		if n := o.unsaid.Swap(0); n > 0 {
			o.log.Warn("guest log lines dropped", "lines", n)
		}
		line := LogLine{Level: l.level, Text: l.text, Records: records, Of: l.of, Filed: filed}
		if len(records) == 1 {
			line.Of = 0
		} else if l.of >= len(records) {
			line.Of = -1
		}
		if !filed {
			attrs := []slog.Attr{slog.String("line", l.text)}
			if line.Of >= 0 {
				attrs = append(attrs, slog.String("record", records[line.Of].ID()))
			}
			o.log.LogAttrs(ctx, l.level, "guest log", attrs...)
		}
		if o.on != nil {
			o.on(line)
		}
	}
	if dropped > 0 {
		o.unsaid.Add(dropped)
	}
	return dropped
}
