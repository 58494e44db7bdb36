// Package project knows the folders that plugin authors work in: it makes one
// of a template, finds the one around a folder, builds it with the author's
// own toolchain, and tells which toolchains there are.
//
// It runs compilers and nothing that they make: a module is only inspected,
// and asked for its manifest in the sandbox.
package project

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/cmd/internal/cli"
)

// Lang is a language, or rather a way to build a plugin.
type Lang string

// The languages.
const (
	Rust           Lang = "rust"
	TinyGo         Lang = "tinygo"
	Go             Lang = "go"
	AssemblyScript Lang = "as"
	// Lines is a program that reads STDIN and writes STDOUT, without a kit.
	Lines Lang = "lines"
)

// Langs are all languages, in the order of the help.
func Langs() []Lang { return []Lang{Rust, TinyGo, Go, AssemblyScript, Lines} }

// LangList is the languages as a message names them.
func LangList() string {
	names := make([]string, 0, len(Langs()))
	for _, l := range Langs() {
		names = append(names, string(l))
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

// ParseLang reads the name of a language; the error is a usage error.
func ParseLang(s string) (Lang, error) {
	if slices.Contains(Langs(), Lang(s)) {
		return Lang(s), nil
	}
	known := map[string]Lang{
		"assemblyscript": AssemblyScript, "ts": AssemblyScript, "typescript": AssemblyScript,
		"golang": Go, "rs": Rust, "wasi": Lines, "c": Lines, "python": Lines,
	}
	next := "write --lang " + LangList()
	if l, ok := known[strings.ToLower(s)]; ok {
		next = fmt.Sprintf("write --lang %s", l)
	}
	return "", cli.Usage(next, "--lang %q: there is no such language", s)
}

// Files of a project, below its folder.
const (
	stateDir     = ".millrace"
	kitDir       = stateDir + "/pdk"
	recordFile   = stateDir + "/project.json"
	manifestFile = "manifest.json"
)

// format is the version of recordFile.
const format = 1

// record is the content of recordFile.
type record struct {
	Format int    `json:"format"`
	Name   string `json:"name,omitempty"`
	Lang   Lang   `json:"lang"`
	PDK    string `json:"pdk,omitempty"` // digest of the packed kit
}

// Project is the folder of a plugin.
type Project struct {
	// Dir is absolute. Name names the module, the test and the plugin.
	Dir, Name string
	Lang      Lang
	// Recorded: the language is from recordFile, else from the files there.
	Recorded bool
	// pdk is the digest of the kit's copy, as recordFile says.
	pdk string
}

// WasmPath is the file that Build makes unless told otherwise.
func (p *Project) WasmPath() string { return filepath.Join(p.Dir, "build", p.Name+".wasm") }

// Find is the project of dir or of the nearest folder above it that is one:
// which has a recordFile, or files that name a kit. lang overrides what the
// folder says; it may be empty. The error is a *cli.Error.
func Find(dir string, lang ...Lang) (*Project, error) {
	start, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(start); err != nil || !info.IsDir() {
		why := "there is no such folder"
		if err == nil {
			why = "it is a file, not a folder"
		}
		return nil, &cli.Error{Exit: cli.ExitInvalid, Code: cli.CodeFile, Detail: fmt.Sprintf("%s: %s", dir, why),
			Next: "name the folder of a plugin, or make one: `flowctl new plugin NAME`"}
	}
	for at := start; ; {
		p, err := read(at, cmp.Or(lang...), at == start)
		if p != nil || err != nil {
			return p, err
		}
		parent := filepath.Dir(at)
		if parent == at {
			return nil, notProject(dir)
		}
		at = parent
	}
}

func notProject(dir string) *cli.Error {
	return &cli.Error{Exit: cli.ExitInvalid, Code: CodeNoProject,
		Detail: fmt.Sprintf("%s is no project of a plugin, nor is a folder above it: there is no %s, Cargo.toml, go.mod, or package.json with a folder assembly", dir, recordFile),
		Next:   "go to the folder of one, name it, or make one: `flowctl new plugin NAME`"}
}

// Codes of errors of this package.
const (
	CodeNoProject = "E_NO_PROJECT"
	CodeBuild     = "E_BUILD"
	CodeToolchain = "E_TOOLCHAIN"
)

// read is the project at dir, nil if there is none; any folder with the files of
// a language is one if it was asked for.
func read(dir string, lang Lang, asked bool) (*Project, error) {
	var r record
	b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(recordFile)))
	switch {
	case err == nil:
		if err := json.Unmarshal(b, &r); err != nil || !slices.Contains(Langs(), r.Lang) {
			return nil, badRecord(dir, err, r)
		}
		if r.Format > format {
			return nil, &cli.Error{Exit: cli.ExitInvalid, Code: CodeNoProject, Detail: fmt.Sprintf("%s: format %d is of a later flowctl, this one knows %d", filepath.Join(dir, recordFile), r.Format, format),
				Next: "use a flowctl as new as the one that made the project"}
		}
		p := &Project{Dir: dir, Name: r.Name, Lang: r.Lang, Recorded: true, pdk: r.PDK}
		if lang != "" {
			p.Lang = lang
		}
		if p.Name == "" {
			p.Name = moduleName(dir, p.Lang)
		}
		return p, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, &cli.Error{Exit: cli.ExitFailed, Code: cli.CodeFile, Detail: err.Error(), Err: err}
	}
	found, kit := guess(dir)
	if found == "" || !kit && !asked {
		return nil, nil
	}
	if lang == "" {
		lang = found
	}
	return &Project{Dir: dir, Name: moduleName(dir, lang), Lang: lang}, nil
}

func badRecord(dir string, err error, r record) *cli.Error {
	why := fmt.Sprintf("lang %q is none of %s", r.Lang, LangList())
	if err != nil {
		why = err.Error()
	}
	return &cli.Error{Exit: cli.ExitInvalid, Code: CodeNoProject, Detail: fmt.Sprintf("%s: %s", filepath.Join(dir, recordFile), why),
		Next: `write {"format":1,"lang":"rust"}, with the language of the project`}
}
