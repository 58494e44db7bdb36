package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/Masterminds/semver/v3"

	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/cmd/internal/plugtest"
	"github.com/millrace-io/millrace/cmd/internal/project"
	"github.com/millrace-io/millrace/plugins/manifest"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/flow"
)

// Project is what is developed.
type Project interface {
	// Folder is absolute.
	Folder() string
	// Describe names it in a word or two.
	Describe() string
	// Sources are the absolute paths of the files whose change asks for a
	// build.
	Sources() ([]string, error)
	// Build builds it; log gets the compiler's words as they come. An end of
	// ctx ends the compiler. The error says what is wrong with the sources.
	Build(ctx context.Context, log io.Writer) (*Module, error)
	// Test runs the author's tests of what Build made. summary is a few words;
	// the error says which failed.
	Test(ctx context.Context, m *Module) (summary string, err error)
}

// Module is a plugin that was built.
type Module struct {
	// Path of the file that documents name, absolute. What it holds may be
	// another build.
	Path string
	// Name of the plugin, [namespace/]name.
	Name string
	Wasm []byte
}

// Authors is the Project of a folder of package project.
type Authors struct {
	P *project.Project
	// Env of the toolchain, NAME=VALUE; nil: that of this process.
	Env []string
	// Output is the file that Build writes, named like the project's: build/
	// stays what the author built to deploy.
	Output string
	// Sandbox asks modules for their manifest.
	Sandbox *sandbox.Runtime
	// LoadFlow reads the flow that a test file names; nil: it must not name
	// one.
	LoadFlow func(plugtest.FlowRequest) (*plugtest.Flow, error)
	// CacheDir keeps the plugins that were compiled for tests; empty: none.
	// With that of NodeCache they are not compiled again for the node.
	CacheDir string
}

// Folder implements Project.
func (a *Authors) Folder() string { return a.P.Dir }

// Describe implements Project.
func (a *Authors) Describe() string { return fmt.Sprintf("%s (%s)", a.P.Name, a.P.Lang) }

// Sources implements Project.
func (a *Authors) Sources() ([]string, error) { return a.P.Sources() }

// Build implements Project, with the toolchain's profile for development.
func (a *Authors) Build(ctx context.Context, log io.Writer) (*Module, error) {
	b, err := a.P.Build(ctx, project.BuildOptions{Dev: true, Env: a.Env, Output: a.Output, Log: log, Sandbox: a.Sandbox})
	if err != nil {
		return nil, err
	}
	// What is tested is what is deployed, and compiled once for both.
	wasm, err := developed(b.Wasm)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(a.Output, wasm, 0o644); err != nil {
		return nil, err
	}
	return &Module{Path: a.P.WasmPath(), Name: b.Manifest.Name, Wasm: wasm}, nil
}

// CodeTests is the code of the error of tests that failed.
const CodeTests = "E_TESTS_FAILED"

// Test implements Project with the file NAME.test.yaml.
func (a *Authors) Test(ctx context.Context, m *Module) (string, error) {
	file := filepath.Join(a.P.Dir, a.P.Name+".test.yaml")
	if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
		return "no " + filepath.Base(file) + ", nothing tested", nil
	}
	report, err := plugtest.Run(ctx, plugtest.Options{Dir: a.P.Dir, Files: []string{file}, Plugin: m.Path, Instead: map[string]string{m.Path: a.Output},
		LoadFlow: a.loadFlow(m), CacheDir: a.CacheDir})
	if err != nil {
		return "", err
	}
	if report.OK() {
		return cli.Plural(report.Passed, "test") + " passed", nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %s failed", report.Failed, cli.Plural(len(report.Cases), "test"))
	for _, c := range report.Cases {
		if c.Outcome != plugtest.Fail {
			continue
		}
		fmt.Fprintf(&b, "\n%s:%d: %s", c.File, c.Line, c.Name)
		for _, f := range c.Findings {
			switch {
			case f.Message != "":
				fmt.Fprintf(&b, "\n  %s: %s", f.Path, f.Message)
			default:
				fmt.Fprintf(&b, "\n  %s: expected %s, got %s", f.Path, nothing(f.Want), nothing(f.Got))
			}
		}
	}
	return "", &cli.Error{Exit: cli.ExitFindings, Code: CodeTests, Detail: b.String(), Next: "correct the plugin, or what its test expects"}
}

// loadFlow is LoadFlow with the module in the place of the file that flows
// name.
func (a *Authors) loadFlow(m *Module) func(plugtest.FlowRequest) (*plugtest.Flow, error) {
	if a.LoadFlow == nil {
		return nil
	}
	return func(req plugtest.FlowRequest) (*plugtest.Flow, error) {
		f, err := a.LoadFlow(req)
		if err != nil {
			return nil, err
		}
		load := f.LoadPlugin
		f.LoadPlugin = func(ref flow.PluginRef) ([]byte, error) {
			if ref.Path != "" && filepath.Join(filepath.Dir(req.Path), filepath.FromSlash(ref.Path)) == m.Path {
				return m.Wasm, nil
			}
			return load(ref)
		}
		return f, nil
	}
}

func nothing(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}

// developed is a module as it is deployed: with a version that ends in -dev, so
// that the same version can be deployed again with other bytes. A module
// without a version is 0.0.0 and its digest, which can be too.
func developed(wasm []byte) ([]byte, error) {
	section, err := manifest.Find(wasm)
	if err != nil || section == nil {
		return wasm, err
	}
	m, err := manifest.Parse(section)
	if err != nil {
		return nil, err
	}
	v := devVersion(m.Version)
	if v == m.Version {
		return wasm, nil
	}
	m.Version = v
	return manifest.Append(wasm, m)
}

// devVersion is a version that may be deployed again with other bytes, and is
// admitted where s is.
func devVersion(s string) string {
	v, err := semver.StrictNewVersion(s)
	if err != nil {
		return s
	}
	pre := v.Prerelease()
	switch {
	case pre == "dev" || strings.HasSuffix(pre, "-dev"), pre == "" && v.Major() == 0 && v.Minor() == 0 && v.Patch() == 0:
		return s
	case pre == "":
		pre = "dev"
	default:
		pre += "-dev"
	}
	now, err := v.SetPrerelease(pre)
	if err != nil {
		return s
	}
	return now.String()
}

// relative is a path as a flow of the folder names it.
func relative(dir, path string) string {
	if rel, err := filepath.Rel(dir, path); err == nil {
		return "./" + filepath.ToSlash(rel)
	}
	return filepath.ToSlash(path)
}
