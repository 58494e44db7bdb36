package project

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/plugins/manifest"
	"github.com/millrace-io/millrace/plugins/sandbox"
)

// CodeManifest is the code of a manifest that cannot be taken.
const CodeManifest = "E_MANIFEST"

// noStage is what kits say, when they are asked for the manifest, of a plugin
// that has declared no stage.
const noStage = "the plugin has no stage"

// describe gives a module the manifest that its code declares, or that of the
// file beside it.
func (p *Project) describe(ctx context.Context, wasm []byte, rt *sandbox.Runtime) (_ []byte, err error) {
	path := filepath.Join(p.Dir, manifestFile)
	file, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, &cli.Error{Exit: cli.ExitFailed, Code: cli.CodeFile, Detail: err.Error(), Next: "check its permissions", Err: err}
	}
	hasFile := err == nil
	section, err := manifest.Find(wasm)
	if err != nil {
		return nil, err
	}
	if rt == nil {
		if rt, err = sandbox.New(ctx, sandbox.Config{Workers: 1}); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, rt.Close(context.WithoutCancel(ctx))) }()
	}
	declared, err := rt.DescribeModule(ctx, wasm)
	if err != nil && strings.Contains(err.Error(), noStage) {
		return nil, &cli.Error{Exit: cli.ExitInvalid, Code: api.CodeRefused, Detail: fmt.Sprintf("%s: it compiles, but %s", p.Source(), noStage), Next: entry[p.Lang], Err: err}
	}
	if err != nil {
		return nil, &cli.Error{Exit: cli.ExitInvalid, Code: CodeManifest, Detail: fmt.Sprintf("%s: ask the plugin for its manifest: %v", p.Source(), err), Err: err,
			Next: "correct what the plugin does when it starts, and its declaration of the manifest"}
	}
	switch {
	case hasFile && (section != nil || declared != nil):
		return nil, &cli.Error{Exit: cli.ExitInvalid, Code: CodeManifest, Detail: fmt.Sprintf("%s: the manifest is declared in %s too", path, p.Source()), Next: "keep one of both: remove " + manifestFile}
	case hasFile:
		return withManifest(wasm, file, path, "correct the file")
	case declared != nil:
		return withManifest(wasm, declared, p.Source(), "correct the declaration of the manifest there")
	}
	return wasm, nil
}

// manifestFields are the fields of a manifest.
var manifestFields = []string{"abi", "name", "version", "mode", "function", "lines", "outputs", "sample", "config", "memory_mb", "fuel_per_record", "deterministic", "capabilities"}

func withManifest(wasm, text []byte, place, next string) ([]byte, error) {
	fail := func(err error, next string) error {
		return &cli.Error{Exit: cli.ExitInvalid, Code: CodeManifest, Detail: fmt.Sprintf("%s: %s", place, strings.ReplaceAll(err.Error(), "read manifest: ", "")), Next: next, Err: err}
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(text, &fields) == nil {
		for _, name := range slices.Sorted(maps.Keys(fields)) {
			if slices.Contains(manifestFields, name) {
				continue
			}
			if near := cli.Nearest(name, manifestFields); near != "" {
				next = fmt.Sprintf("did you mean %q?", near)
			}
			return nil, fail(fmt.Errorf("a manifest has no field %q", name), next)
		}
	}
	out, err := manifest.Embed(wasm, text)
	if err != nil {
		return nil, fail(err, next)
	}
	return out, nil
}

// Source is the file that holds the stage.
func (p *Project) Source() string {
	name := "main.go"
	switch p.Lang {
	case Rust:
		name = "src/lib.rs"
	case AssemblyScript:
		name = "assembly/index.ts"
	case Lines:
		if exists(filepath.Join(p.Dir, "Cargo.toml")) {
			name = "src/main.rs"
		}
	}
	return filepath.Join(p.Dir, filepath.FromSlash(name))
}

// entry is what makes the exports of a stage, by language.
var entry = map[Lang]string{
	Rust:           "write `stage!(your_function);`, which makes the exports",
	TinyGo:         "import " + kitModule + ", and call `millrace.Stage(yourFunction)` in init()",
	Go:             "import " + kitModule + ", and call `millrace.Stage(yourFunction)` in init()",
	AssemblyScript: "write `export * from \"@millrace/pdk/assembly/exports\";` and `stage(yourFunction);`",
	Lines:          "write a program with a main function",
}

// refused is why no node would run the module, nil if one would.
func (p *Project) refused(info *sandbox.Info) error {
	if len(info.Refusals) == 0 {
		return nil
	}
	var reasons, advice []string
	for _, r := range info.Refusals {
		next := r.Advice
		if r.Kind == sandbox.RefusedMode || r.Kind == sandbox.RefusedABI && strings.Contains(r.Reason, "does not export") {
			next = entry[p.Lang]
		}
		reasons = append(reasons, r.Reason)
		if next != "" && !slices.Contains(advice, next) {
			advice = append(advice, next)
		}
	}
	return &cli.Error{Exit: cli.ExitInvalid, Code: api.CodeRefused, Detail: fmt.Sprintf("%s: it compiles, but no node would run it: %s", p.Source(), strings.Join(reasons, "; ")),
		Next: strings.Join(advice, "; "), Err: info.Err()}
}
