package dev

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
)

// How long a deployment may take to be in every slot, and how often it is
// asked for.
const (
	switchLimit = 10 * time.Second
	switchEvery = 5 * time.Millisecond
)

// deploy puts the newest module into the flow: by a deployment like any other
// where the flow stays what it is, by its document otherwise.
func (s *session) deploy(ctx context.Context, l *layout, saved time.Time) error {
	wasm, err := developed(s.module.Wasm)
	if err != nil {
		return err
	}
	p, err := s.upload(ctx, s.module.Path, wasm)
	if err != nil {
		return err
	}
	same := s.layout != nil && sameFlow(s.layout, l)
	if same && s.runs(ctx, l, p.Digest) {
		s.console.say("the plugin has the same bytes as before: nothing to swap")
		return s.resume(ctx, l)
	}
	first, forget := s.observe.await(p.Digest)
	went := false
	if same {
		went, err = s.swap(ctx, l, p)
	}
	if err == nil && !went {
		err = s.apply(ctx, l, p)
	}
	if err != nil {
		forget()
		return err
	}
	what := fmt.Sprintf("%s (%s) runs in flow %s", p.Ref(), cli.Digest(p.Digest), strings.TrimPrefix(l.fullName(), "default/"))
	if s.layout != nil {
		what += fmt.Sprintf(", %s after the save", seconds(time.Since(saved)))
	}
	s.console.say("%s", s.console.paint.green(what))
	timed := s.layout != nil
	s.layout = l
	if err := s.startFeed(ctx, l.feed); err != nil {
		forget()
		return err
	}
	s.feed.f.hurry()
	s.superseded()
	ctx, s.superseded = context.WithCancel(ctx)
	s.wait.Go(func() {
		defer forget()
		if s.firstRecord(ctx, first) && timed {
			s.console.say("%s", s.console.paint.green(fmt.Sprintf("first record through %s %s after the save", cli.Digest(p.Digest), seconds(time.Since(saved)))))
		}
	})
	return nil
}

// firstRecord waits for the first record of a version. false: there is a newer
// one, or the session ends.
func (s *session) firstRecord(ctx context.Context, first <-chan struct{}) bool {
	select {
	case <-first:
		return true
	case <-ctx.Done():
		return false
	}
}

// sameFlow reports whether two layouts differ in the bytes of plugins at most.
func sameFlow(a, b *layout) bool {
	return a.text == b.text && reflect.DeepEqual(a.env, b.env) && reflect.DeepEqual(a.connections, b.connections) && len(b.paths) <= 1
}

// runs reports whether the flow runs a plugin with the digest.
func (s *session) runs(ctx context.Context, l *layout, digest string) bool {
	f, err := s.node.Flow(ctx, l.project, l.name)
	return err == nil && slices.ContainsFunc(f.Stages, func(st api.Stage) bool { return st.Digest == digest })
}

func (s *session) upload(ctx context.Context, path string, wasm []byte) (*api.Plugin, error) {
	return s.node.UploadPlugin(ctx, filepath.Base(path), bytes.NewReader(wasm))
}

// swap deploys a plugin into the flow that runs. false: no stage of it takes
// the plugin, whose name has changed, or which its range does not admit.
func (s *session) swap(ctx context.Context, l *layout, p *api.Plugin) (bool, error) {
	d, err := s.node.Deploy(ctx, &api.Deploy{Digest: p.Digest, Flow: l.fullName()})
	if err != nil {
		if cli.AsError(err).Code == api.CodeNotFound {
			return false, nil // the flow was deleted
		}
		return false, err
	}
	if d.ID == "" {
		return false, nil
	}
	if err := s.resume(ctx, l); err != nil {
		return false, err
	}
	limit, cancel := context.WithTimeout(ctx, switchLimit)
	defer cancel()
	tick := time.NewTicker(switchEvery)
	defer tick.Stop()
	for !d.Done {
		select {
		case <-limit.Done():
			if ctx.Err() != nil {
				return false, ctx.Err()
			}
			return false, &cli.Error{Exit: cli.ExitFailed, Code: cli.CodeTimeout, Detail: fmt.Sprintf("%s is active, but the flow has not switched to it within %s", p.Ref(), switchLimit),
				Next: fmt.Sprintf("look at the flow: `%s flow get %s`", s.cfg.Program, l.name)}
		case <-tick.C:
			now, err := s.node.Deployment(limit, d.ID)
			if err == nil {
				d.Done = now.Done
			}
		}
	}
	return true, nil
}

// apply makes the flow, or makes another one of it, with the newest module.
func (s *session) apply(ctx context.Context, l *layout, p *api.Plugin) error {
	for i := range l.connections {
		if _, err := s.node.PutConnection(ctx, &l.connections[i]); err != nil {
			return err
		}
	}
	files, err := s.files(ctx, l, p)
	if err != nil {
		return err
	}
	plan, err := s.node.PutFlow(ctx, &api.PutFlow{Document: l.text, File: l.file, Env: l.env, Files: files})
	if err != nil {
		return err
	}
	cli.PrintProblems(s.console, plan.Warnings)
	for _, note := range l.notes {
		s.console.say("%s", s.console.paint.yellow(note))
	}
	s.observe.show(l.fullName(), l.alone)
	if old := s.layout; old != nil && old.fullName() != l.fullName() {
		s.retire(ctx, old.project, old.name)
	}
	s.retireGenerated(ctx, l)
	return s.resume(ctx, l)
}

// files stores the plugins that the flow names by path: the project's own as
// it was built, others as their files are.
func (s *session) files(ctx context.Context, l *layout, p *api.Plugin) (map[string]string, error) {
	digests := map[string]string{}
	dir := s.cfg.Project.Folder()
	if s.cfg.Flow != "" {
		dir = filepath.Dir(s.cfg.Flow)
	}
	for _, path := range l.paths {
		file := filepath.FromSlash(strings.TrimPrefix(path, "file:"))
		if !filepath.IsAbs(file) {
			file = filepath.Join(dir, file)
		}
		if filepath.Clean(file) == filepath.Clean(s.module.Path) {
			digests[path] = p.Digest
			continue
		}
		wasm, err := os.ReadFile(file)
		if err != nil {
			return nil, &cli.Error{Exit: cli.ExitInvalid, Code: cli.CodeFile, Detail: fmt.Sprintf("%s names plugin %s: %v", l.file, path, err), Next: "build that plugin, or name the project's own: " + relative(dir, s.module.Path), Err: err}
		}
		other, err := s.upload(ctx, file, wasm)
		if err != nil {
			return nil, err
		}
		digests[path] = other.Digest
	}
	return digests, nil
}

// resume lets the flow run. One that was paused by hand stays paused.
func (s *session) resume(ctx context.Context, l *layout) error {
	f, err := s.node.Flow(ctx, l.project, l.name)
	if err != nil || f.State != api.StateAutoPaused || f.Held != nil {
		return err
	}
	_, err = s.node.SetFlow(ctx, l.project, l.name, api.StateRunning)
	return err
}

// retire pauses a flow that is no longer the one that is developed.
func (s *session) retire(ctx context.Context, project, name string) {
	if _, err := s.node.SetFlow(ctx, project, name, api.StatePaused); err == nil {
		s.console.say("flow %s is paused; `%s flow delete %s --purge` removes it", name, s.cfg.Program, name)
	}
}

// retireGenerated pauses the flows that this program made of plugins that are
// called otherwise now.
func (s *session) retireGenerated(ctx context.Context, l *layout) {
	flows, err := s.node.Flows(ctx, "")
	if err != nil {
		return
	}
	for _, f := range flows {
		if f.Labels[generatedLabel] == generatedBy && f.State != api.StatePaused && f.Project+"/"+f.Name != l.fullName() {
			s.retire(ctx, f.Project, f.Name)
		}
	}
}
