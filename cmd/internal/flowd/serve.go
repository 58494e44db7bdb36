package flowd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/millrace-io/millrace/cluster/node"
	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/cmd/internal/config"
	"github.com/millrace-io/millrace/cmd/internal/daemon"
)

// Codes of errors of flowd itself.
const (
	CodeConfig = "E_CONFIG" // the configuration is invalid, or cannot be read
	CodeLocked = "E_LOCKED" // another process has the data folder
	CodeListen = "E_LISTEN" // the address cannot be had
	CodeStart  = "E_START"  // the node cannot start
	CodeFailed = "E_FAILED" // the node ended by itself
)

// daemonNode is what a node offers to those who run it.
type daemonNode interface {
	// Addr is the HOST:PORT of the admin API.
	Addr() string
	// Run serves until ctx ends and then stops softly.
	Run(ctx context.Context) error
	Close() error
}

// notify subscribes to the signals that end the program.
func notify() (<-chan os.Signal, func()) {
	signals := make(chan os.Signal, 2) // the soft and the hard one
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	return signals, func() { signal.Stop(signals) }
}

// serve runs a node until ctx ends, a signal comes or it fails. At a second
// signal it returns without waiting for the node.
func (p *program) serve(ctx context.Context, cfg config.Config) error {
	started := time.Now()
	logger := p.logger(cfg.Log)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	signals, release := p.notify()
	defer release()
	ended := make(chan error, 1) // the one answer, also if nobody waits any more
	go func() { ended <- p.life(ctx, cfg, logger, started) }()
	for stopping := false; ; {
		select {
		case err := <-ended:
			return err
		case sig := <-signals:
			if stopping {
				logger.Warn("node ends at once", "signal", sig.String())
				return &cli.Error{Exit: exitOf(sig)}
			}
			stopping = true
			logger.Info("node stopping", "signal", sig.String())
			stop()
		}
	}
}

// exitOf is the exit code of a program that a signal ended.
func exitOf(sig os.Signal) int {
	if n, ok := sig.(syscall.Signal); ok {
		return 128 + int(n)
	}
	return cli.ExitInterrupted
}

// life is a node from its start to its end.
func (p *program) life(ctx context.Context, cfg config.Config, logger *slog.Logger, started time.Time) error {
	d, err := p.open(ctx, daemon.Config{
		Dir: cfg.Data, Listen: cfg.Listen, Secrets: cfg.Secrets, Version: Version,
		WindowBytes: cfg.Limits.Window, PluginMemoryBytes: cfg.Limits.PluginMemory, Fuel: cfg.Limits.Fuel, FetchMaxBytes: cfg.Kafka.FetchMaxBytes,
		SpillRate: cfg.Limits.SpillRate, SpillBytes: cfg.Limits.SpillBytes, CompileCommand: p.compile, Logger: logger,
	})
	if err != nil {
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			logger.Info("node stopped before it was ready")
			return nil
		}
		return unopened(err)
	}
	data, err := filepath.Abs(cfg.Data)
	if err != nil {
		data = cfg.Data
	}
	logger.Info("node ready", "addr", d.Addr(), "data", data, "pid", os.Getpid(), "ms", time.Since(started).Milliseconds())
	if err := errors.Join(d.Run(ctx), d.Close()); err != nil {
		return &cli.Error{Exit: cli.ExitFailed, Code: CodeFailed, Detail: err.Error(), Next: "start it again: what was not committed is read again", Err: err}
	}
	logger.Info("node stopped")
	return nil
}

// unopened is the error of a node that could not start.
func unopened(err error) error {
	e := &cli.Error{Exit: cli.ExitUnreachable, Code: CodeStart, Detail: err.Error(), Err: err}
	if locked, ok := errors.AsType[*node.LockedError](err); ok {
		e.Code, e.Detail = CodeLocked, locked.Error()
		e.Next = "a node runs there already; stop it first, or give this one a folder of its own with --data"
		if locked.PID != 0 {
			e.Next = fmt.Sprintf("a node runs there already; stop it first (kill %d), or give this one a folder of its own with --data", locked.PID)
		}
		return e
	}
	if listen, ok := errors.AsType[*api.ListenError](err); ok {
		e.Code, e.Detail, e.Next = CodeListen, fmt.Sprintf("listen at %s: %v", listen.Address, listen.Err), listen.Next
		if errors.Is(err, api.ErrNotLoopback) {
			e.Exit = cli.ExitInvalid
		}
		return e
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		e.Code = CodeListen
	}
	return e
}

// explain turns an error into what the user is shown.
func (p *program) explain(err error) *cli.Error {
	if e, ok := errors.AsType[*cli.Error](err); ok {
		return e
	}
	return &cli.Error{Exit: cli.ExitInvalid, Code: cli.CodeUsage, Detail: err.Error(), Next: fmt.Sprintf("see `%s --help`", p.name), Err: err}
}

func (p *program) logger(cfg config.Log) *slog.Logger {
	options := &slog.HandlerOptions{Level: cfg.Level}
	if cfg.Format == "json" {
		return slog.New(slog.NewJSONHandler(p.stderr, options))
	}
	return slog.New(slog.NewTextHandler(p.stderr, options))
}
