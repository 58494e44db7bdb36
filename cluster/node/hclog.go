package node

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// raftLogger passes raft's messages on to slog. Raft's life cycle is debug
// matter here: the node reports its own.
type raftLogger struct {
	l    *slog.Logger
	name string
	args []any
}

var _ hclog.Logger = (*raftLogger)(nil)

func (r *raftLogger) level(l hclog.Level) slog.Level {
	switch l {
	case hclog.Warn:
		return slog.LevelWarn
	case hclog.Error:
		return slog.LevelError
	}
	return slog.LevelDebug
}

// Log implements hclog.Logger.
func (r *raftLogger) Log(level hclog.Level, msg string, args ...any) {
	l := r.level(level)
	if !r.l.Enabled(context.Background(), l) {
		return
	}
	all := append(append([]any{"text", msg}, r.args...), args...)
	for i, a := range all {
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			if s, ok := f[0].(string); ok {
				all[i] = fmt.Sprintf(s, f[1:]...)
			}
		}
	}
	r.l.Log(context.Background(), l, "raft", all...)
}

func (r *raftLogger) Trace(msg string, args ...any) { r.Log(hclog.Trace, msg, args...) }
func (r *raftLogger) Debug(msg string, args ...any) { r.Log(hclog.Debug, msg, args...) }
func (r *raftLogger) Info(msg string, args ...any)  { r.Log(hclog.Info, msg, args...) }
func (r *raftLogger) Warn(msg string, args ...any)  { r.Log(hclog.Warn, msg, args...) }
func (r *raftLogger) Error(msg string, args ...any) { r.Log(hclog.Error, msg, args...) }

func (r *raftLogger) enabled(l hclog.Level) bool {
	return r.l.Enabled(context.Background(), r.level(l))
}
func (r *raftLogger) IsTrace() bool { return false }
func (r *raftLogger) IsDebug() bool { return r.enabled(hclog.Debug) }
func (r *raftLogger) IsInfo() bool  { return r.enabled(hclog.Info) }
func (r *raftLogger) IsWarn() bool  { return r.enabled(hclog.Warn) }
func (r *raftLogger) IsError() bool { return r.enabled(hclog.Error) }

func (r *raftLogger) ImpliedArgs() []any { return r.args }
func (r *raftLogger) With(args ...any) hclog.Logger {
	return &raftLogger{r.l, r.name, append(append([]any{}, r.args...), args...)}
}
func (r *raftLogger) Name() string                        { return r.name }
func (r *raftLogger) Named(name string) hclog.Logger      { return &raftLogger{r.l, name, r.args} }
func (r *raftLogger) ResetNamed(name string) hclog.Logger { return &raftLogger{r.l, name, r.args} }
func (r *raftLogger) SetLevel(hclog.Level)                {}
func (r *raftLogger) GetLevel() hclog.Level               { return hclog.NoLevel }

func (r *raftLogger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(r.l.Handler(), slog.LevelDebug)
}

func (r *raftLogger) StandardWriter(*hclog.StandardLoggerOptions) io.Writer {
	return r.StandardLogger(nil).Writer()
}
