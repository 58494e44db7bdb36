package daemon

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/plugins/sandbox"
)

// Bounds of what a node keeps of the log of a flow's plugins.
const (
	maxLogLines = 1000
	maxLogBytes = 128 << 10
	// maxLogPage is how many lines a page has at most, maxLogWait how long one
	// is waited for.
	maxLogPage = maxLogLines
	maxLogWait = 30 * time.Second
)

// logbooks are the last lines that the plugins of each flow logged on this
// node, by the flow's uid. They live as long as the process. Safe for
// concurrent use.
type logbooks struct {
	mu    sync.Mutex
	books map[uint64]*logbook // guarded by mu
}

// logbook is the log of one flow; the mutex of its logbooks guards it.
type logbook struct {
	lines []api.LogLine
	bytes int
	next  uint64        // number of the next line, from 1
	news  chan struct{} // closed when there is one; nil while nobody waits
}

// of is the log of a flow; mu is held.
func (l *logbooks) of(uid uint64) *logbook {
	if l.books == nil {
		l.books = map[uint64]*logbook{}
	}
	b := l.books[uid]
	if b == nil {
		b = &logbook{next: 1}
		l.books[uid] = b
	}
	return b
}

// keep forgets the logs of flows that are gone.
func (l *logbooks) keep(there func(uid uint64) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for uid, b := range l.books {
		if !there(uid) {
			b.wake()
			delete(l.books, uid)
		}
	}
}

func (b *logbook) wake() {
	if b.news != nil {
		close(b.news)
		b.news = nil
	}
}

// listen is what writes down the lines of a stage's plugin.
func (l *logbooks) listen(uid uint64, stage, plugin string) func(sandbox.LogLine) {
	return func(line sandbox.LogLine) {
		out := api.LogLine{At: time.Now().UnixMilli(), Stage: stage, Plugin: plugin, Level: strings.ToLower(line.Level.String()), Line: line.Text, Filed: line.Filed}
		switch n := len(line.Records); {
		case n == 0:
		case line.Of >= 0:
			out.Record = line.Records[line.Of].ID()
		default:
			out.First, out.Last = line.Records[0].ID(), line.Records[n-1].ID()
		}
		l.add(uid, out)
	}
}

// logCost is about what a line takes beside its texts.
const logCost = 64

func costOf(l *api.LogLine) int {
	return len(l.Line) + len(l.Record) + len(l.First) + len(l.Last) + logCost
}

func (l *logbooks) add(uid uint64, line api.LogLine) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.of(uid)
	line.Seq = b.next
	b.next++
	b.lines = append(b.lines, line)
	b.bytes += costOf(&line)
	gone := 0
	for gone < len(b.lines)-1 && (len(b.lines)-gone > maxLogLines || b.bytes > maxLogBytes) {
		b.bytes -= costOf(&b.lines[gone])
		gone++
	}
	if gone > 0 {
		clear(b.lines[:gone])
		b.lines = b.lines[gone:]
	}
	b.wake()
}

// page is what q asks for, and the channel that tells when there is more.
func (l *logbooks) page(uid uint64, q *api.LogQuery, least slog.Level) (*api.LogPage, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.of(uid)
	if q.After >= b.next { // of an earlier life of the node
		again := *q
		again.After = 0
		q = &again
	}
	page := &api.LogPage{Lines: []api.LogLine{}, Next: b.next - 1}
	for i := range b.lines {
		line := &b.lines[i]
		var level slog.Level
		if line.Seq <= q.After || q.Stage != "" && line.Stage != q.Stage || level.UnmarshalText([]byte(line.Level)) != nil || level < least {
			continue
		}
		page.Lines = append(page.Lines, *line)
	}
	if len(b.lines) > 0 && q.After > 0 && q.After+1 < b.lines[0].Seq {
		page.Missed = int64(b.lines[0].Seq - q.After - 1)
	}
	switch limit := q.Limit; {
	case limit <= 0 || limit > maxLogPage || limit >= len(page.Lines):
	case q.After > 0: // those that follow
		page.Lines = page.Lines[:limit]
		page.Next = page.Lines[limit-1].Seq
	default: // the last ones
		page.Lines = page.Lines[len(page.Lines)-limit:]
	}
	if b.news == nil {
		b.news = make(chan struct{})
	}
	return page, b.news
}

// Logs implements api.Backend.
func (d *Daemon) Logs(ctx context.Context, q *api.LogQuery) (*api.LogPage, error) {
	f, err := d.findFlow(q.Project, q.Name)
	if err != nil {
		return nil, err
	}
	least := slog.LevelDebug
	if q.Level != "" && least.UnmarshalText([]byte(q.Level)) != nil {
		return nil, invalid("level %q is none of debug, info, warn, error", q.Level)
	}
	limit, cancel := context.WithTimeout(ctx, min(time.Duration(q.WaitMillis)*time.Millisecond, maxLogWait))
	defer cancel()
	for {
		page, news := d.logs.page(f.UID, q, least)
		if len(page.Lines) > 0 || q.WaitMillis <= 0 {
			return page, nil
		}
		select {
		case <-news:
		case <-limit.Done():
			return page, ctx.Err()
		}
	}
}
