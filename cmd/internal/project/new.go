package project

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/plugins/manifest"
)

// templates are the files of new projects: those of common go into each, and
// each is a template whose name ends in .tmpl, so that neither the Go compiler
// nor git takes it for its own.
//
//go:embed all:templates
var templates embed.FS

// values are what a template can say.
type values struct {
	// Name is the project's, Ident the same as an identifier.
	Name, Ident string
	Lang        Lang
	// HasKit: there is a copy of a kit.
	HasKit bool
	// Source is the file of the stage, Unit the command of its unit tests.
	Source, Unit string
}

var (
	notInName = regexp.MustCompile(`[^a-z0-9-]+`)
	// reserved are names that a toolchain does not take.
	reserved = map[string]string{}
)

func init() {
	for lang, names := range map[string]string{
		"Rust":          "abstract alloc as async await become box break const continue core crate do dyn else enum extern false final fn for if impl in let loop macro match mod move mut override priv proc-macro pub ref return self static std struct super test trait true try type typeof unsafe unsized use virtual where while yield build deps examples incremental millrace-pdk",
		"Go":            "cmd go internal main vendor archive arena bufio bytes cmp compress container context crypto database debug embed encoding errors expvar flag fmt hash html image index io iter log maps math mime net os path plugin reflect regexp runtime simd slices sort strconv strings structs sync syscall testing text time unicode unique weak builtin testdata",
		"npm":           "node-modules favicon",
		"a file system": "con prn aux nul com0 com1 com2 com3 com4 com5 com6 com7 com8 com9 lpt0 lpt1 lpt2 lpt3 lpt4 lpt5 lpt6 lpt7 lpt8 lpt9",
	} {
		for name := range strings.FieldsSeq(names) {
			reserved[name] = lang
		}
	}
}

// CleanName is the name that a project gets of what its author wrote: one that
// is good for a plugin, a crate, a Go module and a package of npm.
func CleanName(s string) (string, error) {
	if strings.ContainsAny(s, `/\`) {
		return "", cli.Usage(fmt.Sprintf("write the name alone, %s, and the folder as --dir %s", filepath.Base(s), s), "%q is a path, not a name", s)
	}
	name := strings.Trim(notInName.ReplaceAllString(strings.ToLower(s), "-"), "-")
	switch {
	case name == "":
		return "", cli.Usage("use letters of a to z, digits and dashes", "%q is no name of a plugin", s)
	case name[0] <= '9':
		name = "p-" + name
	}
	if len(name) > 64 {
		return "", cli.Usage("use at most 64 characters", "%q is too long for a name", s)
	}
	if lang := reserved[name]; lang != "" {
		return "", cli.Usage(fmt.Sprintf("call it %s-stage", name), "%q is a name that %s keeps for itself", name, lang)
	}
	return name, manifest.CheckName(name)
}

// Create makes a project of that name in a folder that is empty or not there.
// It returns its files, with slashes, sorted, without those of the kit.
// What cannot be made whole is taken back.
func Create(dir, name string, lang Lang) (p *Project, files []string, err error) {
	if name, err = CleanName(name); err != nil {
		return nil, nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, nil, err
	}
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return nil, nil, &cli.Error{Exit: cli.ExitInvalid, Code: CodeExists, Detail: dir + " is a file", Next: "choose another name, or another folder: --dir"}
	}
	free, err := empty(dir)
	if err != nil {
		return nil, nil, fileError(err)
	}
	if !free {
		return nil, nil, &cli.Error{Exit: cli.ExitInvalid, Code: CodeExists, Detail: dir + ": the folder is not empty", Next: "choose another name, or another folder: --dir; a project that is there is built with `flowctl build`"}
	}
	fresh := !exists(dir)
	p = &Project{Dir: dir, Name: name, Lang: lang, Recorded: true}
	v := values{Name: name, Ident: strings.ReplaceAll(name, "-", "_"), Lang: lang, HasKit: kitOf(lang) != ""}
	if v.Source, err = filepath.Rel(dir, p.Source()); err != nil {
		return nil, nil, err
	}
	v.Source = filepath.ToSlash(v.Source)
	v.Unit = map[Lang]string{Rust: "cargo test", TinyGo: "go test", Go: "go test", AssemblyScript: "npm test", Lines: "go test"}[lang]
	from := string(lang)
	if lang == Go {
		from = string(TinyGo)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, takeBack(dir, fresh))
		}
	}()
	for _, folder := range []string{"common", from} {
		made, err := render("templates/"+folder, dir, v)
		if err != nil {
			return nil, nil, err
		}
		files = append(files, made...)
	}
	if v.HasKit {
		err = p.unpackKit()
	} else {
		err = p.note()
	}
	slices.Sort(files)
	return p, files, err
}

// takeBack removes what is in a folder that was empty; fresh: it was not there.
func takeBack(dir string, fresh bool) error {
	if fresh {
		return os.RemoveAll(dir)
	}
	entries, err := os.ReadDir(dir)
	errs := []error{err}
	for _, e := range entries {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return errors.Join(errs...)
}

// CodeExists is the code of a project or file that would be written over.
const CodeExists = "E_EXISTS"

// render writes the files of a folder of templates.
func render(from, dir string, v values) ([]string, error) {
	var files []string
	err := fs.WalkDir(templates, from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := templates.ReadFile(path)
		if err != nil {
			return err
		}
		var out bytes.Buffer
		t, err := template.New(path).Delims("[[", "]]").Option("missingkey=error").Parse(string(text))
		if err != nil {
			return err
		}
		if err := t.Execute(&out, v); err != nil {
			return err
		}
		name := strings.TrimSuffix(strings.TrimPrefix(path, from+"/"), ".tmpl")
		name = strings.ReplaceAll(strings.ReplaceAll(name, "NAME", v.Name), "dot.", ".")
		files = append(files, name)
		to := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return fileError(err)
		}
		if err := os.WriteFile(to, out.Bytes(), 0o644); err != nil {
			return fileError(err)
		}
		return nil
	})
	return files, err
}
