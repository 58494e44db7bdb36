package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/cmd/internal/project"
	"github.com/millrace-io/millrace/plugins/sandbox"
)

// buildOptions are the flags of `build`.
type buildOptions struct {
	dev       bool
	lang, out string
}

// buildResult is what a build made, as it is printed.
type buildResult struct {
	Plugin  string   `json:"plugin"` // name@version
	File    string   `json:"file"`
	Lang    string   `json:"lang"`
	Profile string   `json:"profile"`
	Size    int      `json:"size"`
	Mode    string   `json:"mode"`
	Exports []string `json:"exports"`
	Digest  string   `json:"digest"`
	Seconds float64  `json:"seconds"`
	// OldKit says that the kit's copy is older than flowctl's.
	OldKit bool `json:"old_kit,omitempty"`
}

func (a *app) buildCommand() *cobra.Command {
	var o buildOptions
	cmd := &cobra.Command{
		Use: "build [DIR]", Short: "Build a plugin with its own toolchain",
		Long: "Build the plugin whose project is DIR, the working folder, or the nearest folder above, with\n" +
			"the author's own cargo, tinygo, go or asc; CARGO, RUSTC, TINYGO and GO name others, and the\n" +
			"environment is passed on. The compiler's words go to STDERR as they come. The module gets the\n" +
			"manifest that its code or manifest.json declares, and is written to build/NAME.wasm if a node\n" +
			"would run it. --dev builds fast rather than small.\n\n" +
			"The language is from .millrace/project.json, else from the files: Cargo.toml, package.json\n" +
			"with a folder assembly, go.mod. The exit code is 3 if a toolchain is missing, which is named\n" +
			"with the command that installs it, and 1 if the code does not compile.",
		Example: a.example("build", "build ./mask --dev", "build -O mask.wasm", "build --lang go -o json"),
		Args:    a.args(0, 1, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.build(cmd.Context(), append(args, ".")[0], o)
		},
	}
	cmd.Flags().BoolVar(&o.dev, "dev", false, "build fast rather than small")
	cmd.Flags().StringVar(&o.lang, "lang", "", "the language: "+project.LangList())
	cmd.Flags().StringVarP(&o.out, "out", "O", "", "file to write (default build/NAME.wasm)")
	return cmd
}

func (a *app) build(ctx context.Context, dir string, o buildOptions) (err error) {
	var lang []project.Lang
	if o.lang != "" {
		l, err := project.ParseLang(o.lang)
		if err != nil {
			return err
		}
		lang = append(lang, l)
	}
	p, err := project.Find(a.path(dir), lang...)
	if err != nil {
		return err
	}
	rt, err := sandbox.New(ctx, sandbox.Config{Workers: 1})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rt.Close(context.WithoutCancel(ctx))) }()
	options := project.BuildOptions{Dev: o.dev, Env: a.environ, Log: a.stderr, Sandbox: rt}
	if o.out != "" {
		options.Output = a.path(o.out)
	}
	built, err := p.Build(ctx, options)
	if err != nil {
		return err
	}
	r := buildResult{
		Plugin: built.Manifest.Name + "@" + built.Manifest.Version, File: a.shortPath(built.Path), Lang: string(p.Lang), Profile: "release",
		Size: len(built.Wasm), Mode: built.Info.Mode, Digest: built.Info.Digest, Seconds: built.Took.Seconds(),
	}
	if o.dev {
		r.Profile = "dev"
	}
	for _, e := range built.Info.Exports {
		if strings.HasPrefix(e.Signature, "(") { // a function
			r.Exports = append(r.Exports, e.Name)
		}
	}
	older, have, want := project.CheckPDK(p)
	r.OldKit = older
	if older && a.format.Human() {
		fmt.Fprintf(a.stderr, "the kit in .millrace/pdk, %s, is older than that of this flowctl, %s; renew it: `%s new plugin --update-pdk`\n", have, want, a.program)
	}
	return cli.View[*buildResult]{Name: func(r *buildResult) string { return r.File }, Detail: buildDetail}.One(a.stdout, a.format, &r)
}

// shortPath is a path below the working folder as it would be typed.
func (a *app) shortPath(path string) string {
	if rel, err := filepath.Rel(a.dir, path); err == nil && !strings.HasPrefix(rel, "..") {
		path = rel
	}
	return filepath.ToSlash(path)
}

func buildDetail(w io.Writer, _ cli.Format, r *buildResult) error {
	took := time.Duration(r.Seconds * float64(time.Second)).Round(10 * time.Millisecond)
	return cli.Pairs(w, [][2]string{
		{"Plugin", r.Plugin}, {"File", r.File}, {"Built", fmt.Sprintf("in %s from %s, profile %s", took, r.Lang, r.Profile)},
		{"Size", cli.Bytes(int64(r.Size))}, {"Mode", r.Mode}, {"Exports", exportsText(r.Exports)}, {"Digest", r.Digest},
	})
}

// exportsText names the functions that a host calls, and counts the others: a
// toolchain adds some.
func exportsText(names []string) string {
	var own []string
	for _, n := range names {
		if strings.HasPrefix(n, "stage_") || strings.HasPrefix(n, "_") {
			own = append(own, n)
		}
	}
	text := strings.Join(own, ", ")
	if n := len(names) - len(own); n > 0 {
		text += fmt.Sprintf(" and %s", cli.Plural(n, "other"))
	}
	return text
}
