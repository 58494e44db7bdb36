package project

import (
	"slices"
	"strings"
	"testing"
)

func TestTools(t *testing.T) {
	s := newShop(t)
	s.program("tinygo", "echo tinygo version 0.31.2 linux/amd64")
	s.program("asc", "echo Version 0.28.20")
	s.program("clang", "exit 3")
	s.remove("npm")
	s.program("apt-get", "")
	tools := map[string]Tool{}
	var names []string
	for _, tool := range Tools(t.Context(), []string{"PATH=" + s.bin, "WASI_SYSROOT=" + s.bin}) {
		tools[tool.Name] = tool
		names = append(names, tool.Name)
		if tool.OK != (tool.Problem == "") || tool.OK != (tool.Install == "") || tool.For == "" {
			t.Errorf("%+v contradicts itself", tool)
		}
	}
	if want := []string{"cargo", "rustc", "rust target wasm32-unknown-unknown", "rust target wasm32-wasip1", "tinygo", "go", "node", "npm", "asc", "clang", "wasi-libc"}; !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
	for name, want := range map[string]Tool{
		"rustc":  {Version: "1.85.0", OK: true},
		"tinygo": {Version: "0.31.2", Problem: "version 0.31.2 is too old: 0.39 or later is needed"},
		"node":   {Version: "22.1.0", OK: true},
		"asc":    {Version: "0.28.20", OK: true},
		"npm":    {Problem: "not found on the PATH", Install: "sudo apt-get install -y npm"},
		"clang":  {Problem: "clang --version: exit status 3: ", Install: "sudo apt-get install -y clang lld"},
	} {
		got := tools[name]
		if got.Version != want.Version || got.OK != want.OK || got.Problem != want.Problem || want.Install != "" && got.Install != want.Install {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
	s.program("rustc", "case \"$1\" in --version) echo rustc 1.85.0;; *) echo /nowhere;; esac")
	for _, tool := range Tools(t.Context(), []string{"PATH=" + s.bin}) {
		if strings.HasPrefix(tool.Name, "rust target wasm32-unknown") && (tool.OK || tool.Install != "sudo apt-get install -y libstd-rust-dev-wasm32 lld") {
			t.Errorf("a folder that is not there: %+v", tool)
		}
	}
}

func TestInstallLines(t *testing.T) {
	for _, c := range []struct{ manager, tool, want string }{
		{"rustup", "rust", "rustup default stable"},
		{"rustup", "target", "rustup target add wasm32-unknown-unknown"},
		{"rustup", "tinygo", "curl "},
		{"brew", "tinygo", "brew tap tinygo-org/tools && brew install tinygo"},
		{"brew", "go", "brew install go"},
		{"winget", "node", "winget install OpenJS.NodeJS.LTS"},
		{"apt-get", "rust", "sudo apt-get install -y rustc cargo libstd-rust-dev-wasm32 lld"},
		{"apt-get", "tinygo", "curl "},
		{"pacman", "go", "sudo pacman -S --needed go"},
		{"", "wasi-libc", "package manager"},
		{"", "go", "curl "},
	} {
		s := newShop(t)
		if c.manager != "" {
			s.program(c.manager, "")
		}
		got := install(environ{"PATH=" + s.bin}, c.tool)
		if !strings.Contains(got, c.want) || strings.Contains(got, "\n") {
			t.Errorf("%s with %s: got %q, want %q", c.tool, c.manager, got, c.want)
		}
	}
}

func TestOlder(t *testing.T) {
	for _, c := range []struct {
		version, least string
		want           bool
	}{{"1.63.0", "1.63", false}, {"1.62.1", "1.63", true}, {"1.100", "1.63", false}, {"20.1.0", "20", false}, {"18.19.1", "20", true}, {"1", "1.24", true}} {
		if got := older(c.version, c.least); got != c.want {
			t.Errorf("%s older than %s: %v", c.version, c.least, got)
		}
	}
}
