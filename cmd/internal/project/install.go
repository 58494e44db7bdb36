package project

import "runtime"

// The newest releases that were tried; install lines name them.
const (
	tinygoRelease = "0.41.1"
	goRelease     = "1.26.8"
)

// The targets of Rust.
const (
	wasmTarget = "wasm32-unknown-unknown"
	wasiTarget = "wasm32-wasip1"
)

// install is the command that installs a tool on this system, by the package
// manager that is there.
func install(e environ, tool string) string {
	for _, m := range managers {
		if e.look(m.program) == "" {
			continue
		}
		if line := m.tools[tool]; line != "" {
			return line
		}
		if m.general != "" && tool != "tinygo" && tool != "target" && tool != "wasip1" {
			return m.general + " " + tool
		}
	}
	return byHand(tool)
}

// rustup makes a Rust with both targets.
const rustup = "rustup default stable && rustup target add " + wasmTarget + " " + wasiTarget

// managers are package managers, those that know a tool best first.
var managers = []struct {
	program, general string
	tools            map[string]string
}{
	{"rustup", "", map[string]string{"rust": rustup, "target": "rustup target add " + wasmTarget, "wasip1": "rustup target add " + wasiTarget}},
	{"brew", "brew install", map[string]string{
		"rust": "brew install rustup && " + rustup, "target": "brew install rustup && " + rustup, "wasip1": "brew install rustup && " + rustup,
		"tinygo": "brew tap tinygo-org/tools && brew install tinygo", "node": "brew install node", "npm": "brew install node",
		"clang": "brew install llvm lld", "wasi-libc": "brew install wasi-libc wasi-runtimes",
	}},
	{"winget", "", map[string]string{
		"rust": "winget install Rustlang.Rustup && " + rustup, "go": "winget install GoLang.Go", "node": "winget install OpenJS.NodeJS.LTS", "npm": "winget install OpenJS.NodeJS.LTS",
		"clang": "winget install LLVM.LLVM",
	}},
	{"scoop", "scoop install", map[string]string{"rust": "scoop install rustup && " + rustup, "tinygo": "scoop install tinygo", "node": "scoop install nodejs-lts", "npm": "scoop install nodejs-lts", "clang": "scoop install llvm"}},
	{"apt-get", "sudo apt-get install -y", map[string]string{
		"rust":   "sudo apt-get install -y rustc cargo libstd-rust-dev-wasm32 lld",
		"target": "sudo apt-get install -y libstd-rust-dev-wasm32 lld",
		"go":     goByHand(), "node": "sudo apt-get install -y nodejs npm", "npm": "sudo apt-get install -y npm",
		"clang": "sudo apt-get install -y clang lld", "wasi-libc": "sudo apt-get install -y wasi-libc",
	}},
	{"dnf", "sudo dnf install -y", map[string]string{
		"rust": "sudo dnf install -y rustup && rustup-init -y && " + rustup, "target": "sudo dnf install -y rust-std-static-" + wasmTarget, "wasip1": "sudo dnf install -y rust-std-static-" + wasiTarget,
		"tinygo": "sudo dnf install -y tinygo", "go": "sudo dnf install -y golang", "node": "sudo dnf install -y nodejs", "npm": "sudo dnf install -y nodejs-npm", "clang": "sudo dnf install -y clang lld", "wasi-libc": "sudo dnf install -y wasi-libc-devel",
	}},
	{"pacman", "sudo pacman -S --needed", map[string]string{
		"rust": "sudo pacman -S --needed rustup && " + rustup, "target": "sudo pacman -S --needed rust-wasm",
		"tinygo": "sudo pacman -S --needed tinygo", "node": "sudo pacman -S --needed nodejs npm", "clang": "sudo pacman -S --needed clang lld",
	}},
	{"apk", "sudo apk add", map[string]string{
		"rust": "sudo apk add rustup && rustup-init -y && " + rustup, "target": "sudo apk add rust-wasm", "tinygo": "sudo apk add tinygo", "node": "sudo apk add nodejs npm", "clang": "sudo apk add clang lld",
	}},
}

// byHand is a command for a system without a package manager that has the tool.
func byHand(tool string) string {
	switch tool {
	case "rust", "target", "wasip1":
		return "curl -sSf https://sh.rustup.rs | sh -s -- -y --target " + wasmTarget
	case "tinygo":
		file := "tinygo" + tinygoRelease + "." + runtime.GOOS + "-" + runtime.GOARCH + ".tar.gz"
		return "curl -fsSL https://github.com/tinygo-org/tinygo/releases/download/v" + tinygoRelease + "/" + file + " | sudo tar -C /usr/local -xz && sudo ln -sf /usr/local/tinygo/bin/tinygo /usr/local/bin/"
	case "go":
		return goByHand()
	}
	return "install " + tool + " with the package manager of your system"
}

func goByHand() string {
	file := "go" + goRelease + "." + runtime.GOOS + "-" + runtime.GOARCH + ".tar.gz"
	return "curl -fsSL https://go.dev/dl/" + file + " | sudo tar -C /usr/local -xz && sudo ln -sf /usr/local/go/bin/go /usr/local/bin/"
}
