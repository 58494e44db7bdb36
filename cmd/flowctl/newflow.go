package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/cmd/internal/project"
	"github.com/millrace-io/millrace/runtime/flow"
)

// newFlowOptions are the flags of `new flow`.
type newFlowOptions struct {
	source, sink, plugin, out string
}

// madeFlow is the file that `new flow` wrote, as it is printed.
type madeFlow struct {
	Name string   `json:"name"`
	File string   `json:"file"`
	Next []string `json:"next"`
}

func (a *app) newFlow() *cobra.Command {
	var o newFlowOptions
	cmd := &cobra.Command{
		Use: "flow [NAME]", Short: "Write a flow",
		Long: "Write a flow into flow.yaml, which passes on the records of --source to --sink, through the\n" +
			"plugin of --plugin if there is one: a .wasm file, the folder of a project, or name@range of a\n" +
			"plugin on the node. NAME is the plugin's name or that of the folder if it is not given.",
		Example: a.example("new flow orders --source kafka://127.0.0.1:19092/in --sink kafka://127.0.0.1:19092/out --plugin build/mask.wasm",
			"new flow --source kafka://main/orders --sink https://partner.example/orders"),
		Args: a.args(0, 1, "NAME"),
		RunE: func(_ *cobra.Command, args []string) error { return a.makeFlow(append(args, "")[0], o) },
	}
	cmd.Flags().StringVar(&o.source, "source", "", "what it reads: kafka://HOST:PORT/TOPIC or kafka://CONNECTION/TOPIC")
	cmd.Flags().StringVar(&o.sink, "sink", "", "where it delivers: kafka://HOST:PORT/TOPIC, kafka://CONNECTION/TOPIC or https://HOST/PATH")
	cmd.Flags().StringVar(&o.plugin, "plugin", "", "plugin that each record goes through")
	cmd.Flags().StringVarP(&o.out, "out", "O", "flow.yaml", "file to write")
	return cmd
}

func (a *app) makeFlow(name string, o newFlowOptions) error {
	if o.source == "" || o.sink == "" {
		return cli.Usage("give both: --source kafka://HOST:PORT/TOPIC --sink kafka://HOST:PORT/TOPIC", "flowctl new flow: where do records come from, and where do they go?")
	}
	if err := checkTopic("--source", o.source); err != nil {
		return err
	}
	if !strings.HasPrefix(o.sink, "http://") && !strings.HasPrefix(o.sink, "https://") {
		if err := checkTopic("--sink", o.sink); err != nil {
			return err
		}
	}
	file := a.path(o.out)
	plugin, named, err := a.flowPlugin(o.plugin, filepath.Dir(file))
	if err != nil {
		return err
	}
	if name == "" {
		name = named
	}
	if name == "" {
		if name, err = project.CleanName(filepath.Base(filepath.Dir(file))); err != nil {
			return cli.Usage("give one: `flowctl new flow NAME`", "the flow has no name, and its folder's is none")
		}
	}
	var doc strings.Builder
	fmt.Fprintf(&doc, "flow: v1\nname: %s\nsource: %s\notherwise: queue            # what fails waits there: flowctl queue peek %s\nstages:\n", name, o.source, name)
	if plugin != "" {
		fmt.Fprintf(&doc, "  - id: stage\n    map: %s\n", plainOrQuoted(plugin))
	}
	fmt.Fprintf(&doc, "  - id: deliver\n    push: %s\n", o.sink)
	_, problems := flow.Parse(o.out, []byte(doc.String()), flow.Options{})
	for _, p := range problems {
		if p.Level == flow.LevelError {
			return &cli.Error{Exit: cli.ExitInvalid, Code: string(p.Code), Detail: p.Message, Next: p.Help}
		}
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		return &cli.Error{Exit: cli.ExitInvalid, Code: project.CodeExists, Detail: o.out + " is there already", Next: "choose another file: -O " + name + ".yaml"}
	}
	if err != nil {
		return a.outputError(o.out, file, err)
	}
	if _, err := f.WriteString(doc.String()); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	short := a.shortPath(file)
	v := madeFlow{Name: name, File: short, Next: []string{a.program + " lint " + shellWord(short), a.program + " apply -f " + shellWord(short) + " --dry-run", a.program + " apply -f " + shellWord(short)}}
	return cli.View[*madeFlow]{Name: func(v *madeFlow) string { return v.File }, Detail: func(w io.Writer, _ cli.Format, v *madeFlow) error {
		_, err := fmt.Fprintf(w, "%s is the flow %s. Go on:\n  %s\n", v.File, v.Name, strings.Join(v.Next, "\n  "))
		return err
	}}.One(a.stdout, a.format, &v)
}

// plainOrQuoted is a text as YAML takes it.
func plainOrQuoted(s string) string {
	if strings.ContainsAny(s, " #'\"{}[]&*!|>%@`,:") && !strings.Contains(s, "@") {
		return strconv.Quote(s)
	}
	return s
}

// flowPlugin is how a flow in the folder dir names a plugin, and the plugin's
// name without its version.
func (a *app) flowPlugin(plugin, dir string) (ref, name string, err error) {
	if plugin == "" {
		return "", "", nil
	}
	full := a.path(plugin)
	if info, err := os.Stat(full); err == nil && info.IsDir() {
		p, err := project.Find(full)
		if err != nil {
			return "", "", err
		}
		full = p.WasmPath()
		plugin = a.shortPath(full)
	}
	if !strings.HasSuffix(full, ".wasm") {
		name, _, _ = strings.Cut(plugin, "@")
		_, short, found := strings.Cut(name, "/")
		if !found {
			short = name
		}
		return plugin, short, nil
	}
	_, info, err := a.readPlugin(plugin)
	if err != nil {
		return "", "", err
	}
	rel, err := filepath.Rel(dir, full)
	if err != nil {
		rel = full
	}
	if rel = filepath.ToSlash(rel); !strings.HasPrefix(rel, ".") && !filepath.IsAbs(rel) {
		rel = "./" + rel
	}
	m := info.Named(filepath.Base(full))
	_, short, found := strings.Cut(m.Name, "/")
	if !found {
		short = m.Name
	}
	return rel, short, nil
}
