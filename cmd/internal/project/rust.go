package project

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/cmd/internal/cli"
)

// devProfile makes cargo's profile dev fast to build and to run: what is
// incremental stays so, and a stage is not ten times slower.
var devProfile = []string{"profile.dev.opt-level=1", "profile.dev.debug=false", `profile.dev.panic="abort"`, "profile.dev.incremental=true", `profile.dev.strip="debuginfo"`}

// cargo builds a crate for a target and returns the module.
func (p *Project) cargo(ctx context.Context, e environ, target string, o BuildOptions) ([]byte, error) {
	path, err := p.rust(ctx, e, target)
	if err != nil {
		return nil, err
	}
	args := []string{"build", "--target", target, "--message-format", "json-render-diagnostics"}
	if o.Dev {
		for _, setting := range devProfile {
			args = append(args, "--config", setting)
		}
	} else {
		args = append(args, "--release")
	}
	flags := p.rustFlags(e, target)
	switch own := e.get("CARGO_ENCODED_RUSTFLAGS"); {
	case own != "":
		e = e.with("CARGO_ENCODED_RUSTFLAGS=" + own + "\x1f" + strings.Join(flags, "\x1f"))
	case strings.TrimSpace(e.get("RUSTFLAGS")) != "":
		e = e.with("CARGO_ENCODED_RUSTFLAGS=" + strings.Join(append(strings.Fields(e.get("RUSTFLAGS")), flags...), "\x1f"))
	default:
		// This joins the flags in the author's .cargo/config.toml.
		list, err := json.Marshal(flags)
		if err != nil {
			return nil, err
		}
		args = append(args, "--config", "target."+target+".rustflags="+string(list))
	}
	messages, err := p.run(ctx, command{tool: "cargo", path: path, args: args, env: e}, o.Log, false)
	if err != nil {
		return nil, err
	}
	file, err := artefact(messages)
	if err != nil {
		return nil, err
	}
	if file == "" {
		what, next := "it is no cdylib", "write in Cargo.toml: [lib] and below it crate-type = [\"cdylib\"]"
		if target == wasiTarget {
			what, next = "it has no program", "write a program with a main function: src/main.rs"
		}
		return nil, &cli.Error{Exit: cli.ExitFailed, Code: CodeBuild, Detail: fmt.Sprintf("%s: cargo made no .wasm: %s", filepath.Join(p.Dir, "Cargo.toml"), what), Next: next}
	}
	return os.ReadFile(file)
}

// rustFlags give the same behaviour with every Rust from 1.63 on, and the same
// bytes wherever the project lies.
func (p *Project) rustFlags(e environ, target string) []string {
	dir := p.Dir
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	home := e.get("CARGO_HOME")
	if home == "" {
		home = filepath.Join(cmp.Or(e.get("HOME"), e.get("USERPROFILE")), ".cargo")
	}
	flags := []string{"-Ctarget-feature=+bulk-memory", "--remap-path-prefix=" + dir + "=.", "--remap-path-prefix=" + filepath.Join(home, "registry", "src") + "=crates"}
	if target == wasmTarget {
		flags[0] += ",+simd128"
		flags = append(flags, "-Clink-arg=-zstack-size=65536")
	}
	return flags
}

// rust finds cargo, and makes sure that its compiler has the target.
func (p *Project) rust(ctx context.Context, e environ, target string) (string, error) {
	cargo := needOf("cargo").locate(e)
	if cargo.Path == "" {
		return "", toolchainError("cargo builds plugins in Rust: "+cargo.Problem, cargo.Install)
	}
	rustc := needOf("rustc").locate(e)
	if rustc.Path == "" {
		return "", toolchainError("rustc compiles plugins in Rust: "+rustc.Problem, rustc.Install)
	}
	found, err := p.output(ctx, e, rustc.Path, "--print", "target-libdir", "--target", target)
	if err != nil {
		return "", toolchainError(fmt.Sprintf("%s: %v", rustc.Path, err), install(e, "rust"))
	}
	if !isFolder(found) {
		how := "target"
		if target == wasiTarget {
			how = "wasip1"
		}
		return "", toolchainError(fmt.Sprintf("%s has no standard library for %s, which plugins are built for", rustc.Path, target), install(e, how))
	}
	return cargo.Path, nil
}

// locate is find without asking for the version.
func (n need) locate(e environ) Tool {
	program, from := n.program, ""
	if n.variable != "" && e.get(n.variable) != "" {
		program, from = e.get(n.variable), n.variable
	}
	t := Tool{Name: n.name, For: n.language, Path: e.look(program)}
	if t.Path == "" {
		t.Problem, t.Install = "not found on the PATH", install(e, n.install)
		if from != "" {
			t.Problem, t.Install = fmt.Sprintf("%s=%s, and there is no such program", from, program), "unset "+from+", or let it name a program"
		}
	}
	return t
}

// artefact is the last module that cargo says it made; empty if there is none.
func artefact(messages []byte) (string, error) {
	file := ""
	lines := bufio.NewReader(bytes.NewReader(messages))
	for {
		line, err := lines.ReadBytes('\n')
		var m struct {
			Reason    string   `json:"reason"`
			Filenames []string `json:"filenames"`
		}
		if json.Unmarshal(line, &m) == nil && m.Reason == "compiler-artifact" {
			if i := slices.IndexFunc(m.Filenames, func(f string) bool { return strings.HasSuffix(f, ".wasm") }); i >= 0 {
				file = m.Filenames[i]
			}
		}
		if err == io.EOF {
			return file, nil
		}
		if err != nil {
			return "", err
		}
	}
}
