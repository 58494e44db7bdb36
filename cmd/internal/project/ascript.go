package project

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
)

// abortOption leads traps of AssemblyScript to the kit, which logs where they
// were; a module that imports env.abort is refused.
const abortOption = "abort=~lib/@millrace/pdk/assembly/index/abort"

// gcOption lets the collector run after 128 KiB, not after each KiB: what a
// batch makes is thrown away with its instance's state.
const gcOption = "ASC_GC_GRANULARITY=131072"

// asc builds a stage with the AssemblyScript compiler of the project, after
// npm install where it has none yet.
func (p *Project) asc(ctx context.Context, e environ, o BuildOptions) ([]byte, error) {
	node := needOf("node").find(ctx, e)
	if !node.OK {
		return nil, toolchainError("node runs the AssemblyScript compiler: "+node.Problem, node.Install)
	}
	asc := p.ascScript()
	if asc == "" || !exists(filepath.Join(p.Dir, "node_modules", "@millrace", "pdk")) && exists(filepath.Join(p.Dir, kitDir)) {
		if err := p.npmInstall(ctx, e, o.Log); err != nil {
			return nil, err
		}
		if asc = p.ascScript(); asc == "" {
			return nil, toolchainError(filepath.Join(p.Dir, "package.json")+": npm install brought no asc", "add the compiler: `npm install --save-dev assemblyscript@0.28.20`")
		}
	}
	level := "-O3"
	if o.Dev {
		level = "-O0"
	}
	// 235: a class of the stage's file is exported for its unit test.
	args := []string{level, "--disableWarning", "235", "--runtime", "incremental", "--enable", "simd", "--exportStart", "_initialize", "--use", abortOption, "--use", gcOption}
	if !exists(filepath.Join(p.Dir, "node_modules", "@millrace", "pdk")) {
		args[len(args)-3] = "abort="
	}
	return p.toFile(func(out string) error {
		// asc starts itself again unless node has this option.
		_, err := p.run(ctx, command{tool: "asc", path: node.Path, env: e,
			args: append([]string{"--enable-source-maps", asc, "assembly/index.ts", "-o", out}, args...)}, o.Log, true)
		return err
	})
}

// npmInstall installs what package.json asks for.
func (p *Project) npmInstall(ctx context.Context, e environ, log io.Writer) error {
	npm := needOf("npm").locate(e)
	if npm.Path == "" {
		return toolchainError("npm installs the AssemblyScript compiler: "+npm.Problem, npm.Install)
	}
	modules := filepath.Join(p.Dir, "node_modules")
	fresh := !exists(modules)
	// The compiler is one of the packages for development, which NODE_ENV may
	// leave out.
	_, err := p.run(ctx, command{tool: "npm install", path: npm.Path, env: e, args: []string{"install", "--include=dev", "--no-audit", "--no-fund", "--prefer-offline"}}, log, true)
	if err != nil && fresh {
		// Half of an installation would be taken for one.
		err = errors.Join(err, os.RemoveAll(modules))
	}
	return err
}

// ascScript is the compiler of the nearest node_modules; empty if there is none.
func (p *Project) ascScript() string {
	for dir := p.Dir; ; dir = filepath.Dir(dir) {
		if path := filepath.Join(dir, "node_modules", "assemblyscript", "bin", "asc.js"); exists(path) {
			return path
		}
		if filepath.Dir(dir) == dir {
			return ""
		}
	}
}
