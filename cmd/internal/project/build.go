package project

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/plugins/manifest"
	"github.com/millrace-io/millrace/plugins/sandbox"
)

// BuildOptions are the settings of Build.
type BuildOptions struct {
	// Dev builds fast rather than small.
	Dev bool
	// Env is the environment, NAME=VALUE; nil: that of this process.
	Env []string
	// Output is the file to write; empty: the project's WasmPath.
	Output string
	// Log gets the compiler's words as they come; nil discards.
	Log io.Writer
	// Sandbox asks the module for its manifest; nil: one is made for it.
	Sandbox *sandbox.Runtime
}

// Built is what Build made.
type Built struct {
	Path string
	Wasm []byte
	Info *sandbox.Info
	// Manifest has a name and a version, made up where the plugin has none.
	Manifest manifest.Manifest
	Took     time.Duration
}

// Build builds the project with its author's toolchain, gives the module its
// manifest, and writes it unless no node would run it. Errors are *cli.Error:
// of code E_TOOLCHAIN for what is missing, E_BUILD for what the compiler
// refused (its words went to o.Log, their end is in a *CompileError below it),
// E_MANIFEST, and E_PLUGIN_REFUSED.
func (p *Project) Build(ctx context.Context, o BuildOptions) (*Built, error) {
	start := time.Now()
	switch o.Output {
	case "":
		o.Output = p.WasmPath()
	case p.WasmPath():
	default:
		if err := checkOutput(o.Output); err != nil {
			return nil, err
		}
	}
	wasm, err := p.compile(ctx, environOf(o.Env), o)
	if err != nil {
		return nil, err
	}
	info, err := sandbox.Inspect(wasm)
	if err == nil {
		err = p.refused(info)
	}
	if err != nil {
		return nil, err
	}
	if wasm, err = p.describe(ctx, wasm, o.Sandbox); err != nil {
		return nil, err
	}
	if info, err = sandbox.Inspect(wasm); err == nil {
		err = p.refused(info)
	}
	if err != nil {
		return nil, err
	}
	if err := writeFile(o.Output, wasm); err != nil {
		return nil, err
	}
	return &Built{Path: o.Output, Wasm: wasm, Info: info, Manifest: info.Named(p.Name), Took: time.Since(start)}, nil
}

func (p *Project) compile(ctx context.Context, e environ, o BuildOptions) ([]byte, error) {
	has := func(name string) bool { return exists(filepath.Join(p.Dir, filepath.FromSlash(name))) }
	lacks := func(name string) error {
		return &cli.Error{Exit: cli.ExitInvalid, Code: CodeNoProject, Detail: fmt.Sprintf("%s: a plugin of --lang %s has a %s, and there is none", p.Dir, p.Lang, name),
			Next: "go to the folder of the plugin, or build it as what it is: --lang " + LangList()}
	}
	switch p.Lang {
	case Rust:
		if !has("Cargo.toml") {
			return nil, lacks("Cargo.toml")
		}
		return p.cargo(ctx, e, wasmTarget, o)
	case AssemblyScript:
		if !has("package.json") {
			return nil, lacks("package.json")
		}
		if !has("assembly/index.ts") {
			return nil, lacks("assembly/index.ts")
		}
		return p.asc(ctx, e, o)
	case TinyGo, Go:
		if !has("go.mod") {
			return nil, lacks("go.mod")
		}
		if p.Lang == TinyGo {
			return p.tinygo(ctx, e, o)
		}
		return p.golang(ctx, e, true, o)
	}
	switch {
	case has("Cargo.toml"):
		return p.cargo(ctx, e, wasiTarget, o)
	case has("go.mod"):
		return p.golang(ctx, e, false, o)
	}
	return nil, lacks("go.mod or a Cargo.toml")
}

// checkOutput keeps a module from the place of what is none, which somebody may
// have written by hand.
func checkOutput(path string) error {
	why := ""
	switch info, err := os.Stat(path); {
	case err != nil || !info.IsDir() && !info.Mode().IsRegular():
	case info.IsDir():
		why = "it is a folder"
	default:
		f, err := os.Open(path)
		if err != nil {
			return fileError(err)
		}
		defer f.Close()
		begin := make([]byte, len(wasmMagic))
		if n, _ := io.ReadFull(f, begin); n > 0 && string(begin[:n]) != wasmMagic {
			why = "what is there is no module, and would be lost"
		}
	}
	if why == "" {
		return nil
	}
	return &cli.Error{Exit: cli.ExitInvalid, Code: CodeExists, Detail: fmt.Sprintf("%s: %s", path, why), Next: "choose another file to write, or remove what is there"}
}

// wasmMagic is how each module begins.
const wasmMagic = "\x00asm"

// writeFile puts a file in the place of the old one in one step. What is no
// file, as a pipe, is written to.
func writeFile(path string, b []byte) (err error) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			return fileError(err)
		}
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fileError(err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fileError(err)
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fileError(errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}
