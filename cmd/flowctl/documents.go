package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/flow"
)

// loaded is a document with the folder that its relative paths begin at.
type loaded struct {
	*flow.Document
	dir string
}

// documentFile is a file of documents.
type documentFile struct {
	name, dir string
	src       []byte
}

// readDocuments reads files and folders of documents, and STDIN for "-".
func (a *app) readDocuments(paths []string) ([]documentFile, error) {
	var files []documentFile
	seen := map[string]bool{}
	add := func(name, full string) error {
		if seen[full] {
			return nil
		}
		seen[full] = true
		src, err := os.ReadFile(full)
		if err != nil {
			return a.fileError(name, full, err)
		}
		files = append(files, documentFile{name: filepath.ToSlash(name), dir: filepath.Dir(full), src: src})
		return nil
	}
	for _, path := range paths {
		if path == "-" {
			src, err := io.ReadAll(io.LimitReader(a.stdin, flow.MaxFileSize+1))
			if err != nil {
				return nil, fmt.Errorf("read documents from STDIN: %w", err)
			}
			files = append(files, documentFile{name: "-", dir: a.dir, src: src})
			continue
		}
		full := a.path(path)
		info, err := os.Stat(full)
		if err != nil {
			return nil, a.fileError(path, full, err)
		}
		if !info.IsDir() {
			if err := add(path, full); err != nil {
				return nil, err
			}
			continue
		}
		entries, err := os.ReadDir(full)
		if err != nil {
			return nil, a.fileError(path, full, err)
		}
		found := false
		for _, e := range entries {
			if e.IsDir() || !holdsDocuments(e.Name()) {
				continue
			}
			found = true
			if err := add(filepath.Join(path, e.Name()), filepath.Join(full, e.Name())); err != nil {
				return nil, err
			}
		}
		if !found {
			return nil, &cli.Error{Exit: cli.ExitInvalid, Code: cli.CodeFile, Detail: fmt.Sprintf("%s: no *.yaml or *.yml in this folder", path), Next: "name the folder or the file that holds flows"}
		}
	}
	return files, nil
}

// path is a path from the command line, from the working folder.
func (a *app) path(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(a.dir, path)
}

// holdsDocuments tells the files of a folder that are read: tests, which lie
// beside their flows, are not.
func holdsDocuments(name string) bool {
	ext := filepath.Ext(name)
	return (ext == ".yaml" || ext == ".yml") && !strings.HasSuffix(strings.TrimSuffix(name, ext), ".test")
}

// files answers the linter from the documents and plugin files at hand.
type files struct {
	connections map[string]*flow.Connection // by name
	dir         string                      // of the document's file
	read        func(path string) (*sandbox.Info, error)
	// unknown holds what was said of what only a node can know.
	unknown map[string]bool
}

// Connection implements flow.Resolver.
func (f *files) Connection(_, name string) (*flow.Connection, bool) {
	c, ok := f.connections[name]
	return c, ok
}

// Plugin implements flow.Resolver.
func (f *files) Plugin(ref flow.PluginRef) (flow.PluginInfo, error) {
	if ref.Path == "" {
		msg := fmt.Sprintf("plugin %s is not a file: whether it exists is known to the node alone", ref)
		f.unknown[msg] = true
		return flow.PluginInfo{}, &unknownPluginError{msg}
	}
	info, err := f.read(pluginPath(f.dir, ref.Path))
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return flow.PluginInfo{}, &unknownPluginError{fmt.Sprintf("there is no file %s in %s", ref.Path, filepath.ToSlash(f.dir))}
		}
		return flow.PluginInfo{}, err
	}
	return pluginInfo(ref.Path, info), nil
}

// unknownPluginError is a flow.ErrPluginNotFound whose text is a whole
// sentence.
type unknownPluginError struct{ text string }

func (e *unknownPluginError) Error() string { return e.text }
func (e *unknownPluginError) Unwrap() error { return flow.ErrPluginNotFound }

// pluginPath is the file that a document in dir names.
func pluginPath(dir, path string) string {
	path = filepath.FromSlash(strings.TrimPrefix(path, "file:"))
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

func pluginInfo(file string, info *sandbox.Info) flow.PluginInfo {
	m := info.Named(filepath.Base(filepath.FromSlash(file)))
	p := flow.PluginInfo{Namespace: flow.DefaultNamespace, Name: m.Name, Version: m.Version, Digest: info.Digest, Mode: info.Mode, Functions: info.Callable, Function: m.Function, UsesHTTP: info.UsesHTTP, Signs: info.Signs,
		Outputs: info.Outputs(), Config: m.Config, TakesNoConfig: !info.Configurable}
	if ns, name, ok := strings.Cut(m.Name, "/"); ok {
		p.Namespace, p.Name = ns, name
	}
	return p
}

// inspectFiles reads plugin files, each once.
func inspectFiles() func(path string) (*sandbox.Info, error) {
	type answer struct {
		info *sandbox.Info
		err  error
	}
	known := map[string]answer{}
	return func(path string) (*sandbox.Info, error) {
		if a, ok := known[path]; ok {
			return a.info, a.err
		}
		wasm, err := os.ReadFile(path)
		if err != nil {
			known[path] = answer{nil, err}
			return nil, err
		}
		info, err := sandbox.Inspect(wasm)
		if err == nil {
			err = info.Err()
		}
		known[path] = answer{info, err}
		return info, err
	}
}

// bundle is what a command was given: its documents, and the problems in them.
type bundle struct {
	docs     []loaded
	problems flow.Problems
	files    int
	read     func(path string) (*sandbox.Info, error)
	// connections are those among the documents, by name.
	connections map[string]*flow.Connection
}

// load reads and checks documents without a node. What only a node can know
// (connections and plugins that are not among the files) is a warning.
func (a *app) load(paths []string) (*bundle, error) {
	sources, err := a.readDocuments(paths)
	if err != nil {
		return nil, err
	}
	b := &bundle{files: len(sources), read: inspectFiles(), connections: map[string]*flow.Connection{}}
	for _, s := range sources {
		// Without a resolver, since a document with an error has no model, and
		// what only a node can know is none here.
		docs, _ := flow.Parse(s.name, s.src, flow.Options{})
		for _, d := range docs {
			b.docs = append(b.docs, loaded{d, s.dir})
			if d.Connection != nil {
				b.connections[d.Connection.Name] = d.Connection
			}
		}
	}
	for _, s := range sources {
		resolver := b.resolver(s.dir)
		_, problems := flow.Parse(s.name, s.src, flow.Options{Resolver: resolver})
		b.problems = append(b.problems, resolver.lenient(problems)...)
	}
	return b, b.duplicates()
}

func (b *bundle) resolver(dir string) *files {
	return &files{connections: b.connections, dir: dir, read: b.read, unknown: map[string]bool{}}
}

// lenient makes warnings of what only a node can know.
func (f *files) lenient(problems flow.Problems) flow.Problems {
	for i := range problems {
		if p := &problems[i]; p.Code == flow.CodeConnectionNotFound || p.Code == flow.CodePluginNotFound && f.unknown[p.Message] {
			p.Level = flow.LevelWarning
		}
	}
	return problems
}

// nodeKnows reports whether the problem is one that a node settles.
func nodeKnows(p flow.Problem) bool {
	return p.Level == flow.LevelWarning && (p.Code == flow.CodeConnectionNotFound || p.Code == flow.CodePluginNotFound)
}

func (b *bundle) duplicates() error {
	first := map[string]loaded{}
	for _, d := range b.docs {
		if d.Name() == "" {
			continue
		}
		name := d.Kind + " " + d.Name()
		if d.Flow != nil {
			name = d.Kind + " " + shortFlow(d.Flow.FullName())
		}
		if o, ok := first[name]; ok {
			return &cli.Error{Exit: cli.ExitInvalid, Code: api.CodeInvalid, Detail: fmt.Sprintf("%s:%d: %s is in %s:%d too", d.File, d.Line, name, o.File, o.Line), Next: "remove one of them, or give it another name"}
		}
		first[name] = d
	}
	return nil
}

// invalid is the error of documents with problems, nil if there is none.
func (b *bundle) invalid(problems flow.Problems) error {
	errs := slices.DeleteFunc(slices.Clone(problems), func(p flow.Problem) bool { return p.Level != flow.LevelError })
	if len(errs) == 0 {
		return nil
	}
	return &cli.Error{Exit: cli.ExitInvalid, Code: cli.CodeLint, Detail: fmt.Sprintf("%s in %s; nothing was done", cli.Plural(len(errs), "error"), cli.Plural(b.files, "file")),
		Next: "correct what is said above", Problems: rendered(errs)}
}

func rendered(problems flow.Problems) []api.Problem {
	out := make([]api.Problem, 0, len(problems))
	for i := range problems {
		p := &problems[i]
		out = append(out, api.Problem{Code: string(p.Code), Level: string(p.Level), File: p.File, Line: p.Line, Column: p.Column, Message: p.Message, Help: p.Help, Rendered: p.Render()})
	}
	return out
}
