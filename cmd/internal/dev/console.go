package dev

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/cli"
)

// Lines about records and of guests that are shown in a second.
const (
	recordsShown  = 20
	failuresShown = 20
	logsShown     = 20
)

// Kinds of lines that are bounded.
const (
	kindRecord = iota
	kindFailure
	kindLog
	kinds
)

// console is what the developer sees: records on out, everything else on err.
// It is safe for concurrent use.
type console struct {
	out, err io.Writer
	paint    paint
	now      func() time.Time

	mu     sync.Mutex
	began  time.Time  // guarded by mu; of the present second
	shown  [kinds]int // guarded by mu; lines of this second
	unseen [kinds]int // guarded by mu; lines of it that were not shown
}

// say writes a line about what goes on.
func (c *console) say(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintf(c.err, format+"\n", args...)
}

// Write lets compilers and tests speak, in whole lines and without what moves
// or paints a terminal.
func (c *console) Write(b []byte) (int, error) {
	lines := strings.Split(colour.ReplaceAllString(string(b), ""), "\n")
	for i, l := range lines {
		parts := strings.Split(strings.TrimSuffix(l, "\r"), "\t")
		for j := range parts {
			parts[j] = cli.Safe(parts[j])
		}
		lines[i] = strings.Join(parts, "\t")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := io.WriteString(c.err, strings.Join(lines, "\n")); err != nil {
		return 0, err
	}
	return len(b), nil
}

var colour = regexp.MustCompile("\x1b\\[[0-9;]*m")

// bounded writes a line of a kind, unless there were too many in this second.
// line is called only if it is shown.
func (c *console) bounded(kind int, w io.Writer, line func() string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.turn()
	if c.shown[kind] >= [kinds]int{recordsShown, failuresShown, logsShown}[kind] {
		c.unseen[kind]++
		return
	}
	c.shown[kind]++
	fmt.Fprintln(w, line())
}

// turn begins another second when the last one is over, and says what it did
// not show; mu is held.
func (c *console) turn() {
	now := c.now()
	if now.Sub(c.began) < time.Second {
		return
	}
	var parts []string
	for kind, one := range [kinds]string{"record", "failure", "log line"} {
		if n := c.unseen[kind]; n > 0 {
			parts = append(parts, cli.Plural(n, one))
		}
	}
	if len(parts) > 0 {
		fmt.Fprintln(c.err, c.paint.dim("... and "+strings.Join(parts, ", ")+" not shown"))
	}
	c.began, c.shown, c.unseen = now, [kinds]int{}, [kinds]int{}
}

// run tells what was not shown also when nothing follows, until ctx ends.
func (c *console) run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			c.mu.Lock()
			c.turn()
			c.mu.Unlock()
		}
	}
}

// logHandler shows what the node logs: the lines of guests under their plugin
// and, where they are about one, their record, and warnings of its own.
type logHandler struct {
	c      *console
	level  slog.Level // of the node's own messages
	plugin string
	attrs  string
}

// guestLog is the message under which the sandbox passes on a guest's line.
const guestLog = "guest log"

func (h *logHandler) Enabled(_ context.Context, l slog.Level) bool {
	return l >= min(h.level, slog.LevelInfo)
}

func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	if r.Message == guestLog {
		line, of := "", ""
		r.Attrs(func(a slog.Attr) bool {
			switch a.Key {
			case "line":
				line = a.Value.String()
			case "record":
				// As place names it.
				_, of, _ = strings.Cut(a.Value.String(), "/")
				of = " " + cli.Safe(strings.TrimPrefix(of, "0/"))
			}
			return true
		})
		h.c.bounded(kindLog, h.c.err, func() string {
			return fmt.Sprintf("%s %s%s: %s", h.c.paint.dim("log"), cli.Safe(h.plugin), of, h.levelled(r.Level, cli.Safe(line)))
		})
		return nil
	}
	if r.Level < h.level {
		return nil
	}
	attrs := h.attrs
	r.Attrs(func(a slog.Attr) bool { attrs += attrText(a); return true })
	h.c.say("node: %s%s", h.levelled(r.Level, cli.Safe(r.Message)), cli.Safe(attrs))
	return nil
}

// levelled is a line with its level in front, but for those of level info.
func (h *logHandler) levelled(l slog.Level, s string) string {
	switch {
	case l >= slog.LevelError:
		return h.c.paint.red("error: " + s)
	case l >= slog.LevelWarn:
		return h.c.paint.yellow("warning: " + s)
	case l < slog.LevelInfo:
		return "debug: " + s
	}
	return s
}

func (h *logHandler) WithAttrs(as []slog.Attr) slog.Handler {
	n := *h
	for _, a := range as {
		if a.Key == "plugin" {
			n.plugin, _, _ = strings.Cut(a.Value.String(), "@")
			continue
		}
		n.attrs += attrText(a)
	}
	return &n
}

func (h *logHandler) WithGroup(string) slog.Handler { return h }

func attrText(a slog.Attr) string { return fmt.Sprintf(" %s=%s", a.Key, a.Value) }
