package dev

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/cmd/internal/project"
)

// develop builds, tests and deploys the project, at first and after each save,
// until ctx ends. A save while that goes on begins it anew.
func (s *session) develop(ctx context.Context) {
	defer s.stopFeed()
	s.takeUp(ctx)
	change := save{at: time.Now()}
	for first := true; ; first = false {
		round, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.round(ctx, round, change, first)
		}()
		select {
		case newer := <-s.watcher.saves:
			cancel()
			<-done
			change = save{at: newer.at, files: union(change.files, newer.files)}
			continue
		case <-done:
			cancel()
		}
		select {
		case <-ctx.Done():
			return
		case change = <-s.watcher.saves:
		}
	}
}

// takeUp shows the records of the flow that an earlier session left, until
// there is a newer version of it.
func (s *session) takeUp(ctx context.Context) {
	flows, err := s.node.Flows(ctx, "")
	if err != nil {
		return // the first deployment will say it
	}
	for _, f := range flows {
		if f.State == api.StateRunning {
			s.console.say("flow %s of the last session goes on", cli.Safe(f.Name))
			s.observe.show(f.Project+"/"+f.Name, f.Labels[generatedLabel] == generatedBy)
			return
		}
	}
}

func union(a, b []string) []string {
	all := append(slices.Clone(a), b...)
	slices.Sort(all)
	return slices.Compact(all)
}

// needsBuild reports whether a change concerns more than documents.
func needsBuild(files []string) bool {
	return slices.ContainsFunc(files, func(f string) bool { ext := filepath.Ext(f); return ext != ".yaml" && ext != ".yml" })
}

// round is one way from the sources to records that go through them. The end
// of ctx takes back what can be taken back: a deployment that has begun is
// ended. What is wrong is shown.
func (s *session) round(session, ctx context.Context, change save, first bool) {
	if len(change.files) > 0 {
		s.console.say("%s", s.console.paint.dim("saved "+cli.Shorten(cli.Safe(strings.Join(change.files, ", ")), 100)))
	}
	err := s.forward(session, ctx, change, first)
	switch {
	case err == nil || ctx.Err() != nil:
		return
	case s.observe.shown() != "":
		s.fault(err, "the old version goes on")
	default:
		s.fault(err, "nothing runs yet; save a change to try again")
	}
}

func (s *session) forward(session, ctx context.Context, change save, first bool) error {
	if s.module == nil || needsBuild(change.files) {
		if err := s.build(ctx, first); err != nil {
			return err
		}
	} else if err := s.test(ctx, 0); err != nil {
		return err
	}
	l, err := s.plan(ctx)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return s.deploy(session, l, change.at)
}

// build makes and tests a module.
func (s *session) build(ctx context.Context, first bool) error {
	if first {
		s.console.say("building %s; the first build takes longest", s.cfg.Project.Describe())
	}
	words := &tail{}
	log := io.Writer(words)
	if s.cfg.Verbose {
		log = s.console
	}
	began := time.Now()
	s.module = nil
	m, err := s.cfg.Project.Build(ctx, log)
	if err != nil {
		if ctx.Err() == nil {
			_, _ = s.console.Write(words.lines())
		}
		return err
	}
	s.module = m
	return s.test(ctx, time.Since(began))
}

// test runs the author's tests of the newest module and says how they and the
// build went, which took built if there was one.
func (s *session) test(ctx context.Context, built time.Duration) error {
	m, began := s.module, time.Now()
	summary, err := s.cfg.Project.Test(ctx, m)
	if err != nil {
		return err
	}
	if built > 0 {
		s.console.say("built in %s (%s); %s in %s", seconds(built), cli.Bytes(int64(len(m.Wasm))), summary, seconds(time.Since(began)))
	} else {
		s.console.say("%s in %s", summary, seconds(time.Since(began)))
	}
	return nil
}

// fault shows an error, and what goes on all the same.
func (s *session) fault(err error, then string) {
	e := *cli.AsError(err)
	if e.Code == project.CodeBuild {
		e.Next = "correct it and save: it is built again by itself"
	}
	s.console.mu.Lock()
	e.Print(s.console.err, false)
	s.console.mu.Unlock()
	s.console.say("%s", s.console.paint.yellow(then))
}

// plan finds the flow that is to run: the file that was named, the one of the
// project's folder, else one around the plugin.
func (s *session) plan(ctx context.Context) (*layout, error) {
	broker := s.node.broker.Addr()
	path := s.cfg.Flow
	if path == "" {
		var err error
		if path, err = findFlow(s.cfg.Project.Folder()); err != nil {
			return nil, err
		}
	}
	if path == "" {
		return s.ownFlow(ctx, broker)
	}
	return written(path, broker, s.cfg.Getenv)
}

// ownFlow is the flow around the plugin, named like it. A flow of that name which
// was deployed or applied here is left alone: the name then gets a suffix.
func (s *session) ownFlow(ctx context.Context, broker string) (*layout, error) {
	l := generated(s.module.Name, relative(s.cfg.Project.Folder(), s.module.Path), broker, "")
	f, err := s.node.Flow(ctx, l.project, l.name)
	if err != nil && cli.AsError(err).Code != api.CodeNotFound {
		return nil, err
	}
	if err != nil || f.Labels[generatedLabel] == generatedBy {
		return l, nil
	}
	other := generated(s.module.Name, relative(s.cfg.Project.Folder(), s.module.Path), broker, otherSuffix)
	other.notes = append(other.notes, fmt.Sprintf("flow %s was deployed here and is left alone: the version that you write runs in flow %s", l.name, other.name))
	return other, nil
}

// seconds is a time as people compare it.
func seconds(d time.Duration) string {
	return d.Round(10 * time.Millisecond).String()
}

// startFeed feeds a topic; "" feeds none.
func (s *session) startFeed(ctx context.Context, topic string) error {
	if s.feed.f != nil && s.feed.topic == topic {
		return nil
	}
	s.stopFeed()
	dir := filepath.Join(s.cfg.Project.Folder(), "testdata")
	switch {
	case s.cfg.NoFeed:
		return nil
	case topic == "":
		s.console.say("the flow reads no topic of the dev broker: nothing is fed")
		return nil
	}
	f, err := newFeeder(dir, s.node.broker.Addr(), topic, s.cfg.Rate, s.console.say)
	if err != nil {
		return err
	}
	if files := f.files(); len(files) == 0 {
		s.console.say("there is no testdata/*.ndjson to feed; put records there, one JSON value a line, or: echo '{\"a\":1}' | %s send %s", s.cfg.Program, topic)
	} else {
		s.console.say("feeding %s to topic %s, %g a second; more: echo '{\"a\":1}' | %s send %s", cli.Plural(len(files), "file"), topic, s.cfg.Rate, s.cfg.Program, topic)
	}
	ctx, stop := context.WithCancel(ctx)
	s.feed = feeding{f: f, topic: topic, stop: stop, done: make(chan struct{})}
	go func(done chan struct{}) {
		defer close(done)
		f.run(ctx)
	}(s.feed.done)
	return nil
}

func (s *session) stopFeed() {
	if s.feed.f == nil {
		return
	}
	s.feed.stop()
	<-s.feed.done
	s.feed = feeding{}
}

// Bounds of what is shown of a compiler's words when it fails.
const (
	tailBytes = 16 << 10
	tailLines = 60
)

// tail keeps the end of what is written to it.
type tail struct {
	b   []byte
	cut bool // the first line is not whole
}

func (t *tail) Write(b []byte) (int, error) {
	t.b = append(t.b, b...)
	if over := len(t.b) - 2*tailBytes; over > 0 {
		t.b, t.cut = append(t.b[:0], t.b[len(t.b)-tailBytes:]...), true
	}
	return len(b), nil
}

// lines are the last ones, whole.
func (t *tail) lines() []byte {
	b := bytes.TrimRight(t.b, "\n")
	if len(b) == 0 {
		return nil
	}
	all := bytes.Split(b, []byte("\n"))
	if t.cut {
		all = all[1:]
	}
	return append(bytes.Join(all[max(0, len(all)-tailLines):], []byte("\n")), '\n')
}
