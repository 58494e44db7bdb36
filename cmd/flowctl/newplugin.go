package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/cmd/internal/project"
)

// newPluginOptions are the flags of `new plugin`.
type newPluginOptions struct {
	lang, dir string
	update    bool
}

// newProject is what `new plugin` made, as it is printed.
type newProject struct {
	Name  string   `json:"name"`
	Lang  string   `json:"lang"`
	Dir   string   `json:"dir"`
	Files []string `json:"files"`
	// Stage is the file to begin with.
	Stage string `json:"stage"`
	// Next are commands to go on with.
	Next []string `json:"next"`
}

func (a *app) newCommand() *cobra.Command {
	update := false
	cmd := a.groupCommand("new", "Make the project of a plugin, or a flow",
		a.example("new plugin mask --lang rust", "new flow orders --source kafka://127.0.0.1:19092/in --sink kafka://127.0.0.1:19092/out", "new --update-pdk"),
		a.newPlugin(), a.newFlow())
	group := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if update {
			return a.updateKit(args)
		}
		return group(cmd, args)
	}
	cmd.Flags().BoolVar(&update, "update-pdk", false, "renew the kit's copy in the project DIR (default: the working folder)")
	return cmd
}

func (a *app) newPlugin() *cobra.Command {
	var o newPluginOptions
	cmd := &cobra.Command{
		Use: "plugin NAME", Short: "Make the project of a plugin",
		Long: "Make a folder with a plugin that works: a stage, its unit test, its test in the sandbox, and\n" +
			"the kit of its language in .millrace/pdk, which belongs into version control. --lang lines is a\n" +
			"program that reads STDIN and writes STDOUT, in any language that compiles to WASI.\n\n" +
			"--update-pdk renews the kit's copy of a project that is there, and touches no other file.",
		Example: a.example("new plugin mask --lang rust", "new plugin mask --lang tinygo --dir plugins/mask", "new plugin --update-pdk"),
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.update {
				return a.updateKit(args)
			}
			if err := a.args(1, 1, "NAME")(cmd, args); err != nil {
				return err
			}
			return a.makePlugin(args[0], o)
		},
	}
	cmd.Flags().StringVar(&o.lang, "lang", "", "the language: "+project.LangList())
	cmd.Flags().StringVar(&o.dir, "dir", "", "the folder to make (default: NAME)")
	cmd.Flags().BoolVar(&o.update, "update-pdk", false, "renew the kit's copy in the project DIR (default: the working folder)")
	return cmd
}

func (a *app) makePlugin(name string, o newPluginOptions) error {
	if o.lang == "" {
		return cli.Usage("write --lang "+project.LangList(), "flowctl new plugin: in which language?")
	}
	lang, err := project.ParseLang(o.lang)
	if err != nil {
		return err
	}
	clean, err := project.CleanName(name)
	if err != nil {
		return err
	}
	dir := o.dir
	if dir == "" {
		dir = clean
	}
	p, files, err := project.Create(a.path(dir), clean, lang)
	if err != nil {
		return err
	}
	if p.Name != name {
		fmt.Fprintf(a.stderr, "the name became %s: a plugin's has lower-case letters, digits and dashes, and begins with a letter\n", p.Name)
	}
	short := a.shortPath(p.Dir)
	word := shellWord(short)
	v := newProject{Name: p.Name, Lang: string(p.Lang), Dir: short, Files: files, Stage: a.shortPath(p.Source()), Next: []string{
		a.program + " build " + word, a.program + " test " + word, a.program + " dev " + word,
		a.program + " deploy " + shellWord(a.shortPath(p.WasmPath())) + " --source kafka://127.0.0.1:19092/in --sink kafka://127.0.0.1:19092/out",
	}}
	return cli.View[*newProject]{Name: func(v *newProject) string { return v.Dir }, Detail: newProjectDetail}.One(a.stdout, a.format, &v)
}

// langNames are the languages as people call them.
var langNames = map[project.Lang]string{
	project.Rust: "Rust", project.TinyGo: "Go, for TinyGo", project.Go: "Go", project.AssemblyScript: "AssemblyScript", project.Lines: "Go that reads and writes lines",
}

// shellWord is s as a shell takes it for one word.
func shellWord(s string) string {
	if strings.ContainsAny(s, " '\"$&()*;<>?[]`{|}~\\") {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return s
}

func newProjectDetail(w io.Writer, _ cli.Format, v *newProject) error {
	fmt.Fprintf(w, "%s is the project of a plugin in %s:\n", v.Dir, langNames[project.Lang(v.Lang)])
	for _, f := range v.Files {
		fmt.Fprintf(w, "  %s\n", f)
	}
	_, err := fmt.Fprintf(w, "The stage is in %s. Go on:\n  %s\n", v.Stage, strings.Join(v.Next, "\n  "))
	return err
}

func (a *app) updateKit(args []string) error {
	if len(args) > 1 {
		return cli.Usage("name one project", "flowctl new --update-pdk: unexpected argument %q", args[1])
	}
	p, err := project.Find(a.path(append(args, ".")[0]))
	if err != nil {
		return err
	}
	u, err := project.UpdateKit(p)
	if err != nil {
		return err
	}
	u.Dir = a.shortPath(u.Dir)
	if u.Kept != "" {
		u.Kept = a.shortPath(u.Kept)
	}
	return cli.View[*project.Update]{Name: func(u *project.Update) string { return u.Dir }, Detail: updateDetail}.One(a.stdout, a.format, u)
}

func updateDetail(w io.Writer, _ cli.Format, u *project.Update) error {
	switch {
	case u.Old == u.New:
		fmt.Fprintf(w, "the kit in .millrace/pdk is that of this flowctl, %s\n", u.New)
	case u.Old == "":
		fmt.Fprintf(w, "the kit in .millrace/pdk is %s now\n", u.New)
	default:
		fmt.Fprintf(w, "the kit in .millrace/pdk was %s and is %s now\n", u.Old, u.New)
	}
	if u.Kept != "" {
		fmt.Fprintf(w, "the copy that was there had been changed by hand: it is in %s\n", u.Kept)
	}
	return nil
}
