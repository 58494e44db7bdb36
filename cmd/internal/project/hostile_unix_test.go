//go:build unix

package project

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// waitFor polls until cond holds.
func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// TestBuildIsStopped: with the end of the context the compiler ends, and what
// it has started, which keeps its STDERR open.
func TestBuildIsStopped(t *testing.T) {
	s := newShop(t)
	pid := filepath.Join(t.TempDir(), "pid")
	s.program("cargo", "sleep 60 &\necho $! > "+pid+".new; mv "+pid+".new "+pid+"; wait")
	p := s.project(Rust)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := p.Build(ctx, BuildOptions{Env: s.env()})
		ended <- err
	}()
	waitFor(t, "the compiler's child", func() bool { return exists(pid) })
	child, err := strconv.Atoi(strings.TrimSpace(readFile(t, pid)))
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the build does not end")
	}
	waitFor(t, "the end of the compiler's child", func() bool { return !alive(child) })
}

// TestServerGoesOn: a server that a compiler starts and leaves, with its STDERR,
// is not waited for.
func TestServerGoesOn(t *testing.T) {
	s := newShop(t)
	s.makes(stage(`{"name":"mask","version":"1.2.0"}`, append(abi, "stage_manifest")...))
	s.program("cargo", `sleep 15 & echo '{"reason":"compiler-artifact","filenames":["`+s.out+`"]}'`)
	began := time.Now()
	if _, err := s.project(Rust).Build(t.Context(), BuildOptions{Env: s.env()}); err != nil || time.Since(began) > 10*time.Second {
		t.Errorf("got %v after %s", err, time.Since(began))
	}
}

// alive reports whether a process runs; one that only waits to be collected
// does not.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, _ := strings.Cut(string(b), ") ")
	return err != nil || !strings.HasPrefix(state, "Z")
}

// TestInstallIsStopped: half of an installation is not taken for one.
func TestInstallIsStopped(t *testing.T) {
	s := newShop(t)
	s.program("npm", "mkdir -p node_modules/assemblyscript/bin node_modules/@millrace/pdk; : > node_modules/assemblyscript/bin/asc.js; sleep 60")
	p := s.project(AssemblyScript)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := p.Build(ctx, BuildOptions{Env: s.env()})
		ended <- err
	}()
	modules := filepath.Join(p.Dir, "node_modules")
	waitFor(t, "half of the installation", func() bool { return exists(filepath.Join(modules, "assemblyscript", "bin", "asc.js")) })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if exists(modules) {
		t.Error("half of the installation is left")
	}

	// One that was there is its author's.
	write(t, p.Dir, "node_modules/mine/index.js", "x")
	s.program("npm", "exit 1")
	if _, err := p.Build(t.Context(), BuildOptions{Env: s.env()}); err == nil {
		t.Error("an installation that fails is no error")
	}
	if !exists(filepath.Join(modules, "mine", "index.js")) {
		t.Error("the author's packages are gone")
	}
}

// TestColouredErrors: a compiler that is told to paint is understood too.
func TestColouredErrors(t *testing.T) {
	s := newShop(t)
	s.program("cargo", `printf '\033[1m\033[91merror[E0425]\033[0m\033[1m: cannot find value x\033[0m\n \033[1m--> \033[0msrc/lib.rs:3:5\n' >&2; exit 101`)
	_, err := s.project(Rust).Build(t.Context(), BuildOptions{Env: s.env("CARGO_TERM_COLOR=always")})
	e := explained(t, err, CodeBuild, 1, "src/lib.rs:3:5: cargo: error[E0425]: cannot find value x")
	if strings.Contains(e.Detail, "\x1b") {
		t.Errorf("colours in %q", e.Detail)
	}
}

// TestOutputIsNoModule: what is not a module is not written over, and what is
// not a file is written to, not replaced.
func TestOutputIsNoModule(t *testing.T) {
	s := newShop(t)
	s.makes(stage(`{"name":"mask","version":"1.2.0"}`, append(abi, "stage_manifest")...))
	p := s.project(Rust)
	source := filepath.Join(p.Dir, "src", "lib.rs")
	was := readFile(t, source)
	_, err := p.Build(t.Context(), BuildOptions{Env: s.env(), Output: source})
	explained(t, err, CodeExists, 2, source)
	if readFile(t, source) != was {
		t.Error("the source is gone")
	}
	_, err = p.Build(t.Context(), BuildOptions{Env: s.env(), Output: filepath.Join(p.Dir, "src")})
	explained(t, err, CodeExists, 2, "is a folder")

	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	read := make(chan []byte, 1)
	go func() {
		b, _ := os.ReadFile(pipe)
		read <- b
	}()
	b, err := p.Build(t.Context(), BuildOptions{Env: s.env(), Output: pipe})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(pipe); err != nil || info.Mode().Type() != fs.ModeNamedPipe {
		t.Fatalf("%s was replaced: %v, %v", pipe, info.Mode(), err)
	}
	if got := <-read; string(got) != string(b.Wasm) {
		t.Errorf("the pipe got %d bytes, want %d", len(got), len(b.Wasm))
	}

	link, real := filepath.Join(t.TempDir(), "link"), filepath.Join(t.TempDir(), "real.wasm")
	write(t, filepath.Dir(real), "real.wasm", "\x00asm old")
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Build(t.Context(), BuildOptions{Env: s.env(), Output: link}); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode().Type() != fs.ModeSymlink || readFile(t, real) != string(b.Wasm) {
		t.Errorf("the link or what it leads to: %v, %v", info, err)
	}
}

// TestSourcesByLink: a project is one by a symbolic link too, as the shell
// names the folder one works in.
func TestSourcesByLink(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "real/Cargo.toml", "[package]\nname = \"mask\"\n[dependencies]\nmillrace-pdk = \"1\"\n")
	write(t, dir, "real/src/lib.rs", "")
	link := filepath.Join(dir, "link")
	if err := os.Symlink("real", link); err != nil {
		t.Fatal(err)
	}
	p, err := Find(link)
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.Sources()
	if want := []string{filepath.Join(link, "Cargo.toml"), filepath.Join(link, "src", "lib.rs")}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
}

// TestSourcesInFoldersOfThatName: a module of the author may be called build or
// target; what toolchains fill is elsewhere, or says so.
func TestSourcesInFoldersOfThatName(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"Cargo.toml", "src/build/mod.rs", "src/target/mod.rs", "build/mask.wasm", "target/x", "part/target/CACHEDIR.TAG", "part/target/x", "part/node_modules/x/index.js", "part/.git/x"} {
		write(t, dir, name, "x")
	}
	got, err := (&Project{Dir: dir}).Sources()
	for i := range got {
		got[i], _ = filepath.Rel(dir, got[i])
	}
	if want := []string{"Cargo.toml", "src/build/mod.rs", "src/target/mod.rs"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
}

// TestCreateTakesBack: what cannot be made whole leaves nothing that keeps the
// next try from it. Here the paths of the kit are longer than a system takes.
func TestCreateTakesBack(t *testing.T) {
	parent := t.TempDir()
	const most = 4096 - 30
	for len(parent) < most-201 {
		parent = filepath.Join(parent, strings.Repeat("d", min(200, most-201-len(parent))))
	}
	for _, there := range []bool{false, true} {
		dir := filepath.Join(parent, strings.Repeat("n", most-len(parent)-1))
		if err := os.MkdirAll(parent, 0o755); err != nil {
			t.Skipf("no folder of that length here: %v", err)
		}
		if there {
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := Create(dir, "n", Rust); err == nil {
			t.Fatal("it was made")
		}
		if free, err := empty(dir); err != nil || !free || exists(dir) != there {
			t.Errorf("%t: files are left, or the folder is gone: %v", there, err)
		}
	}
}
