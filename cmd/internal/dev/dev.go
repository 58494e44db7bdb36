// Package dev is what `flowctl dev` does: a node and a Kafka broker in one
// process, around the plugin that somebody is writing. It feeds records,
// shows what becomes of each, and on every save builds, tests and deploys the
// plugin anew while records flow.
//
// The node is an ordinary one, and a new version comes into it as any other
// does. What is not for production is around it: no TLS, no tokens, a broker
// with one copy of everything.
package dev

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/cli"
)

// DefaultRate is how many records a second are fed.
const DefaultRate = 1.0

// Config configures Run.
type Config struct {
	Project Project
	// Flow is the file of the flow to run; empty: the one in the project's
	// folder, else one is made around the plugin.
	Flow string
	// Listen is the HOST:PORT of the node, Broker of Kafka. Empty: the first
	// free port from 7070 on, from 19092 on.
	Listen, Broker string
	// Rate is how many records a second are fed; 0: DefaultRate. NoFeed: none.
	Rate   float64
	NoFeed bool
	// Ephemeral keeps the state in a temporary folder, which is removed.
	Ephemeral bool
	// Verbose shows what the node itself logs.
	Verbose bool
	// Program is how this program is called in hints; empty: flowctl. Version
	// is the node's.
	Program, Version string
	// Getenv reads the environment that documents name; nil: it is empty.
	Getenv func(string) string
	// Stdout gets a line a record, Stderr what goes on; nil discards.
	Stdout, Stderr io.Writer
	// Colour paints what is shown.
	Colour bool
}

func (c Config) defaults() Config {
	if c.Rate == 0 {
		c.Rate = DefaultRate
	}
	if c.Program == "" {
		c.Program = "flowctl"
	}
	if c.Getenv == nil {
		c.Getenv = func(string) string { return "" }
	}
	if c.Stdout == nil {
		c.Stdout = io.Discard
	}
	if c.Stderr == nil {
		c.Stderr = io.Discard
	}
	return c
}

// MaxRate is the greatest Config.Rate.
const MaxRate = 100_000

// Validate reports what cannot be run.
func (c Config) Validate() error {
	if c.Rate < 0 || c.Rate > MaxRate || c.Rate != c.Rate {
		return cli.Usage("give a number above 0, at most 100000; --no-feed feeds none", "--rate %g is no number of records a second", c.Rate)
	}
	return nil
}

// session is one call of Run.
type session struct {
	cfg     Config
	console *console
	observe *observer
	folder  *folder
	node    *node
	watcher *watcher

	// Of the goroutine of develop, and of a round while it waits for that.
	layout *layout // that runs; nil: none yet
	module *Module // as it was built last; nil: the last build failed
	feed   feeding
	// superseded ends the wait for the first record of the version that runs.
	superseded context.CancelFunc
	// wait is for those who wait for first records; they end with the session.
	wait sync.WaitGroup
}

// feeding is the feeder of the present topic.
type feeding struct {
	f     *feeder
	topic string
	stop  context.CancelFunc
	done  chan struct{}
}

// Run develops until ctx ends, which is no error. Errors are *cli.Error: they
// say what keeps the node from starting, or why it ended. What is wrong with
// the plugin is shown and ends nothing.
func Run(ctx context.Context, cfg Config) (err error) {
	if err := cfg.Validate(); err != nil {
		return err
	}
	cfg = cfg.defaults()
	c := &console{out: cfg.Stdout, err: cfg.Stderr, paint: paint(cfg.Colour), now: time.Now}
	s := &session{cfg: cfg, console: c, observe: newObserver(c), superseded: func() {}}
	c.say("development node, no TLS, no tokens")
	if s.folder, err = openFolder(cfg.Project.Folder(), cfg.Ephemeral); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.folder.close()) }()
	level := slog.LevelWarn
	if cfg.Verbose {
		level = slog.LevelInfo
	}
	if s.node, err = startNode(ctx, &cfg, s.folder, slog.New(&logHandler{c: c, level: level}), s.observe); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer func() { err = errors.Join(err, s.node.Close()) }()
	if s.watcher, err = newWatcher(cfg.Project.Folder(), cfg.Project.Sources); err != nil {
		return surroundings(err, "raise the system's number of watches (Linux: fs.inotify.max_user_instances, max_user_watches)")
	}
	return s.run(ctx)
}

// run runs the parts, which end together.
func (s *session) run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var parts sync.WaitGroup
	defer s.wait.Wait()
	defer parts.Wait()
	defer stop() // before the waits
	ended := make(chan error, 1)
	go func() { ended <- s.node.Run(ctx) }()
	parts.Go(func() { s.console.run(ctx) })
	parts.Go(func() { s.watcher.run(ctx, s.console.say) })

	if err := s.folder.announce(s.node.Addr(), s.node.broker.Addr()); err != nil {
		stop()
		return errors.Join(err, <-ended)
	}
	where := filepath.Join(stateDir, dataDir)
	if s.folder.temporary {
		where = s.folder.data + ", removed at the end"
	}
	s.console.say("node %s, Kafka %s, state in %s; Ctrl-C ends it", s.node.Addr(), s.node.broker.Addr(), where)
	told := s.oldFailures(ctx)
	parts.Go(func() { s.develop(ctx) })
	parts.Go(func() { s.attend(ctx, told) })

	select {
	case <-ctx.Done():
		s.console.say("stopping the node")
	case err := <-ended:
		stop()
		return &cli.Error{Exit: cli.ExitFailed, Code: cli.CodeFailed, Detail: "the development node ended by itself: " + errorText(err), Next: "start it again: what was not committed is read again", Err: err}
	}
	return <-ended
}

func errorText(err error) string {
	if err == nil {
		return "it did not say why"
	}
	return err.Error()
}
