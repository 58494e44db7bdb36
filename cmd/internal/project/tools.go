package project

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/cli"
)

// Tool is a program or a library that builds plugins, as it is found here.
type Tool struct {
	Name string `json:"name"`
	// For says what it is needed for: languages.
	For     string `json:"for"`
	Version string `json:"version,omitempty"`
	Path    string `json:"path,omitempty"`
	OK      bool   `json:"ok"`
	// Problem is why it is not OK; Install is the command that mends it.
	Problem string `json:"problem,omitempty"`
	Install string `json:"install,omitempty"`
}

// toolTimeout bounds the question for a version.
const toolTimeout = 20 * time.Second

// need is a tool and how to look for it.
type need struct {
	name, language, variable, program string
	arguments                         []string
	// least is the oldest version that works, may be empty.
	least string
	// install is the name that function install knows.
	install string
}

var needs = []need{
	{"cargo", "rust, lines in Rust", "CARGO", "cargo", []string{"--version"}, "1.63", "rust"},
	{"rustc", "rust, lines in Rust", "RUSTC", "rustc", []string{"--version"}, "1.63", "rust"},
	{"tinygo", "tinygo", "TINYGO", "tinygo", []string{"version"}, "0.39", "tinygo"},
	{"go", "go, tinygo, lines in Go", "GO", "go", []string{"version"}, "1.24", "go"},
	{"node", "as", "", "node", []string{"--version"}, "20", "node"},
	{"npm", "as", "", "npm", []string{"--version"}, "", "npm"},
	{"asc", "as; npm install puts it into the project", "", "asc", []string{"--version"}, "0.28", ""},
	{"clang", "C", "CC", "clang", []string{"--version"}, "14", "clang"},
}

// Tools are the toolchains of all languages, in a fixed order. env is the
// environment, NAME=VALUE; nil: that of this process.
func Tools(ctx context.Context, env []string) []Tool {
	e := environOf(env)
	tools := make([]Tool, len(needs))
	var wg sync.WaitGroup
	for i, n := range needs {
		wg.Go(func() { tools[i] = n.find(ctx, e) })
	}
	wg.Wait()
	out := tools[:2:2]
	if rustc := tools[1]; rustc.OK {
		for _, t := range []struct{ target, language, install string }{{wasmTarget, "rust", "target"}, {wasiTarget, "lines in Rust", "wasip1"}} {
			out = append(out, targetOf(ctx, e, rustc.Path, t.target, t.language, t.install))
		}
	}
	return append(append(out, tools[2:]...), libc(e))
}

var versionRE = regexp.MustCompile(`\d+(\.\d+)+`)

func (n need) find(ctx context.Context, e environ) Tool {
	t := Tool{Name: n.name, For: n.language}
	program, from := n.program, ""
	if n.variable != "" && e.get(n.variable) != "" {
		program, from = e.get(n.variable), n.variable
	}
	if t.Path = e.look(program); t.Path == "" && n.name == "clang" && from == "" {
		t.Path = e.look("clang-19")
	}
	if t.Path == "" {
		switch {
		case from != "":
			t.Problem, t.Install = fmt.Sprintf("%s=%s: there is no such program", from, program), "unset "+from
		case n.name == "asc":
			t.OK = true // of each project
		default:
			t.Problem, t.Install = "not found on the PATH", install(e, n.install)
		}
		return t
	}
	out, err := ask(ctx, e, t.Path, n.arguments...)
	if err != nil {
		t.Problem, t.Install = fmt.Sprintf("%s %s: %v", n.name, n.arguments[0], err), install(e, n.install)
		return t
	}
	if t.Version = versionRE.FindString(out); n.least != "" && t.Version != "" && older(t.Version, n.least) {
		t.Problem, t.Install = fmt.Sprintf("version %s is too old: %s or later is needed", t.Version, n.least), install(e, n.install)
		return t
	}
	t.OK = true
	return t
}

// ask is the first line that a program says.
func ask(ctx context.Context, e environ, program string, arguments ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, arguments...)
	cmd.Env = e
	inGroup(cmd)
	out, err := cmd.CombinedOutput()
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, cli.Safe(cli.Shorten(line, 200)))
	}
	return line, nil
}

// older compares versions by their numbers.
func older(version, least string) bool {
	a, b := strings.Split(version, "."), strings.Split(least, ".")
	for i := range b {
		x := 0
		if i < len(a) {
			x, _ = strconv.Atoi(a[i])
		}
		if y, _ := strconv.Atoi(b[i]); x != y {
			return x < y
		}
	}
	return false
}

// targetOf tells whether rustc has the libraries of a target: it prints their
// folder whether there is one or not.
func targetOf(ctx context.Context, e environ, rustc, target, language, how string) Tool {
	t := Tool{Name: "rust target " + target, For: language}
	dir, err := ask(ctx, e, rustc, "--print", "target-libdir", "--target", target)
	switch {
	case err != nil:
		t.Problem = err.Error()
	case !isFolder(dir):
		t.Problem = "its standard library is not installed"
	default:
		t.OK, t.Path = true, dir
		return t
	}
	t.Install = install(e, how)
	return t
}

// libc is the C library for WASI, where its packages put it.
func libc(e environ) Tool {
	t := Tool{Name: "wasi-libc", For: "C with a libc"}
	for _, dir := range []string{e.get("WASI_SYSROOT"), join(e.get("WASI_SDK_PATH"), "share/wasi-sysroot"), "/usr", "/usr/share/wasi-sysroot", "/opt/homebrew/share/wasi-sysroot", "/usr/local/share/wasi-sysroot", "/opt/wasi-sdk/share/wasi-sysroot"} {
		for _, triple := range []string{"wasm32-wasi", "wasm32-wasip1"} {
			if path := filepath.Join(dir, "lib", triple, "libc.a"); dir != "" && exists(path) {
				t.OK, t.Path = true, path
				return t
			}
		}
	}
	t.Problem, t.Install = "not found", install(e, "wasi-libc")
	return t
}

func join(dir, name string) string {
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, filepath.FromSlash(name))
}
