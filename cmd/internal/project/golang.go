package project

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// harmlessTinyGo is in two lines that TinyGo's stock target prints with LLVM 19.
const harmlessTinyGo = "is not a recognized feature"

func needOf(name string) need {
	for _, n := range needs {
		if n.name == name {
			return n
		}
	}
	return need{}
}

// tinygo builds a stage with TinyGo.
func (p *Project) tinygo(ctx context.Context, e environ, o BuildOptions) ([]byte, error) {
	tool := needOf("tinygo").locate(e)
	if tool.Path == "" {
		next := tool.Install
		if e.look("go") != "" && e.get("TINYGO") == "" {
			next += "; the Go that is here builds it too, ten times as large: --lang go"
		}
		return nil, toolchainError("tinygo builds this plugin: "+tool.Problem, next)
	}
	if t := needOf("go").locate(e); t.Path == "" {
		return nil, toolchainError("tinygo needs go, which is not found on the PATH", t.Install)
	}
	opt := "-opt=2"
	if o.Dev {
		opt = "-opt=1"
	}
	return p.toFile(func(out string) error {
		_, err := p.run(ctx, command{tool: "tinygo", path: tool.Path, env: goEnviron(e), harmless: harmlessTinyGo,
			args: []string{"build", "-o", out, "-target=wasip1", "-buildmode=c-shared", "-scheduler=none", opt, "-no-debug", "."}}, o.Log, true)
		return err
	})
}

// goEnviron leaves workspaces out that the project is not part of.
func goEnviron(e environ) environ { return e.unless("GOWORK", "off") }

// golang builds with the standard Go: a stage, or a program of lines.
func (p *Project) golang(ctx context.Context, e environ, shared bool, o BuildOptions) ([]byte, error) {
	n := needOf("go")
	tool := n.find(ctx, e)
	if !tool.OK {
		detail := "go builds this plugin: " + tool.Problem
		return nil, toolchainError(detail, tool.Install)
	}
	args := []string{"build", "-trimpath", "-buildvcs=false"}
	if shared {
		args = append(args, "-buildmode=c-shared")
	}
	if !o.Dev {
		args = append(args, "-ldflags=-s -w")
	}
	return p.toFile(func(out string) error {
		_, err := p.run(ctx, command{tool: "go", path: tool.Path, args: append(args, "-o", out, "."), env: goEnviron(e).with("GOOS=wasip1", "GOARCH=wasm")}, o.Log, true)
		return err
	})
}

// toFile is what build writes into the file that it is given.
func (p *Project) toFile(build func(out string) error) ([]byte, error) {
	dir, err := os.MkdirTemp("", "millrace-build-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "out.wasm")
	if err := build(out); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(out)
	if err != nil {
		return nil, fmt.Errorf("the compiler said nothing and wrote nothing: %w", err)
	}
	return b, nil
}

// output is what a program says in the project's folder, without the last end
// of line.
func (p *Project) output(ctx context.Context, e environ, path string, args ...string) (string, error) {
	b, err := p.run(ctx, command{tool: filepath.Base(path), path: path, args: args, env: e}, nil, false)
	return strings.TrimSpace(string(b)), err
}
