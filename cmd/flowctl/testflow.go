package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/cmd/internal/plugtest"
	"github.com/millrace-io/millrace/runtime/flow"
)

// loadTestFlow reads the flow of a test: its file, and the connections that lie
// in its folder or in further files. The environment is that of the test.
func (a *app) loadTestFlow(q plugtest.FlowRequest) (*plugtest.Flow, error) {
	b, err := a.load(append(append([]string{q.Path}, q.Files...), besides(q)...))
	if err != nil {
		return nil, err
	}
	name := filepath.ToSlash(q.Path)
	var problems flow.Problems
	for _, p := range b.problems {
		asked := p.File == name
		for _, f := range q.Files {
			asked = asked || p.File == filepath.ToSlash(f)
		}
		if !asked {
			continue
		}
		p.File = a.shown(p.File)
		if nodeKnows(p) && p.Code == flow.CodeConnectionNotFound {
			p.Level, p.Help = flow.LevelError, "put it into a file beside the flow, or name its file: `files: [connections.yaml]`"
		}
		problems = append(problems, p)
	}
	out := &plugtest.Flow{Connections: map[string]*flow.Connection{}}
	if err := b.invalid(problems); err != nil {
		return nil, err
	}
	var main *loaded
	for i := range b.docs {
		d := &b.docs[i]
		in := flow.Inputs{Env: func(name string) (string, bool) { v, ok := q.Env[name]; return v, ok }}
		switch {
		case d.Flow != nil && d.File == name:
			if main != nil {
				return nil, cli.Usage("put each flow into a file of its own", "%s:%d: a second flow; a test has one", a.shown(d.File), d.Line)
			}
			main, in.Vars = d, q.Vars
		case d.Connection == nil:
			continue
		}
		resolver := &testPlugins{b.resolver(d.dir), q.Plugins}
		doc, found := flow.Resolve(d.Document, in, flow.Options{Resolver: resolver})
		for i := range found {
			found[i].File = a.shown(found[i].File)
			if p := &found[i]; p.Code == flow.CodePluginNotFound && resolver.unknown[p.Message] {
				p.Message, p.Help = strings.SplitN(p.Message, ":", 2)[0], "name its file in the test: `plugins: { NAME: ./NAME.wasm }`"
			}
			if p := &found[i]; p.Code == flow.CodeEnvMissing {
				p.Help = "give it in the test: `env: { NAME: value }`"
			}
		}
		if err := b.invalid(found); err != nil {
			return nil, err
		}
		if d.Document = doc; doc.Connection != nil {
			out.Connections[doc.Connection.Name] = doc.Connection
		}
	}
	if main == nil {
		return nil, cli.Usage("name the file of a flow (flow: v1)", "%s holds no flow", a.shown(name))
	}
	out.Flow = main.Flow
	dir := main.dir
	out.LoadPlugin = func(ref flow.PluginRef) ([]byte, error) {
		path := q.Plugins[pluginName(ref)]
		if ref.Path != "" {
			path = pluginPath(dir, ref.Path)
		}
		wasm, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("plugin %s: %w", ref, err)
		}
		return wasm, nil
	}
	return out, nil
}

// besides are the other files with documents in the folder of a test's flow.
func besides(q plugtest.FlowRequest) []string {
	entries, err := os.ReadDir(filepath.Dir(q.Path))
	if err != nil {
		return nil // the flow's own file tells
	}
	var out []string
	for _, e := range entries {
		if path := filepath.Join(filepath.Dir(q.Path), e.Name()); !e.IsDir() && holdsDocuments(e.Name()) && path != q.Path {
			src, err := os.ReadFile(path)
			if err == nil && strings.Contains(string(src), "connection:") {
				out = append(out, path)
			}
		}
	}
	return out
}

// shown is a file's name from the working folder, where it lies in it.
func (a *app) shown(path string) string {
	if rel, err := filepath.Rel(a.dir, filepath.FromSlash(path)); err == nil && !strings.HasPrefix(rel, "..") {
		return filepath.ToSlash(rel)
	}
	return path
}

// pluginName is [namespace/]name of a reference that is no path.
func pluginName(ref flow.PluginRef) string {
	name, _, _ := strings.Cut(ref.String(), "@")
	return name
}

// testPlugins finds plugins that a flow names without a path where the test
// says.
type testPlugins struct {
	*files
	paths map[string]string
}

// Plugin implements flow.Resolver.
func (t *testPlugins) Plugin(ref flow.PluginRef) (flow.PluginInfo, error) {
	path, ok := t.paths[pluginName(ref)]
	if ref.Path != "" || !ok {
		return t.files.Plugin(ref)
	}
	info, err := t.read(path)
	if err != nil {
		return flow.PluginInfo{}, err
	}
	return pluginInfo(path, info), nil
}
