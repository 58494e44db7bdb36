package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/plugins/sandbox"
)

func (a *app) pluginCommand() *cobra.Command {
	return a.groupCommand("plugin", "List stored plugins; inspect, test and rewrite plugin files",
		a.example("plugin list", "plugin get order-mask", "plugin inspect ./order-mask.wasm", "plugin test ./order-mask.wasm"),
		a.pluginList(), a.pluginGet(), a.pluginInspect(), a.pluginTest(), a.pluginRewrite())
}

func (a *app) pluginView() cli.View[*api.Plugin] {
	return cli.View[*api.Plugin]{
		Name: (*api.Plugin).Ref,
		Columns: []cli.Column[*api.Plugin]{
			{Title: "NAME", Cell: func(p *api.Plugin) string { name, _, _ := strings.Cut(p.Ref(), "@"); return name }},
			{Title: "VERSION", Cell: func(p *api.Plugin) string { return p.Version }},
			{Title: "DIGEST", Cell: func(p *api.Plugin) string {
				if a.format == cli.Wide {
					return p.Digest
				}
				return cli.Digest(p.Digest)
			}},
			{Title: "SIZE", Cell: func(p *api.Plugin) string { return cli.Bytes(p.Size) }},
			{Title: "MODE", Cell: func(p *api.Plugin) string { return p.Mode }},
			{Title: "AGE", Cell: func(p *api.Plugin) string { return cli.Age(a.now(), p.Stored) }},
			{Title: "USED BY", Cell: func(p *api.Plugin) string { return usedBy(p.UsedBy, a.format == cli.Wide) }},
		},
		Detail: func(w io.Writer, _ cli.Format, p *api.Plugin) error {
			return cli.Pairs(w, [][2]string{
				{"Plugin", p.Ref()}, {"Digest", p.Digest}, {"Size", cli.Bytes(p.Size)}, {"Mode", p.Mode},
				{"Stored", cli.Stamp(p.Stored)}, {"Used by", usedBy(p.UsedBy, true)},
			})
		},
	}
}

// usedBy is the users' names; without all the first two.
func usedBy(users []string, all bool) string {
	short := make([]string, len(users))
	for i, u := range users {
		short[i] = shortFlow(u)
	}
	if !all && len(short) > 2 {
		return fmt.Sprintf("%s and %d more", strings.Join(short[:2], ", "), len(short)-2)
	}
	return strings.Join(short, ", ")
}

func (a *app) pluginList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List stored plugins", Example: a.example("plugin list", "plugin list -o wide"),
		Args: a.args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			node, err := a.node()
			if err != nil {
				return err
			}
			plugins, err := node.Plugins(cmd.Context())
			if err != nil {
				return err
			}
			if len(plugins) == 0 && a.format.Human() {
				fmt.Fprintf(a.stderr, "no plugins. Store one: `%s deploy plugin.wasm`\n", a.program)
				return nil
			}
			return a.pluginView().List(a.stdout, a.format, plugins)
		},
	}
}

func (a *app) pluginGet() *cobra.Command {
	return &cobra.Command{
		Use: "get REF", Short: "Show a stored plugin", Long: "Show a stored plugin. REF is [namespace/]name, [namespace/]name@version, or sha256:digest, of\nwhich 8 hex digits are enough.",
		Example: a.example("plugin get order-mask", "plugin get acme/order-map@1.2.0", "plugin get sha256:4be1f00d -o json"),
		Args:    a.args(1, 1, "REF of the plugin"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := a.storedPlugin(cmd, args[0])
			if err != nil {
				return err
			}
			return a.pluginView().One(a.stdout, a.format, p)
		},
	}
}

func (a *app) storedPlugin(cmd *cobra.Command, ref string) (*api.Plugin, error) {
	node, err := a.node()
	if err != nil {
		return nil, err
	}
	p, err := node.Plugin(cmd.Context(), ref)
	if err == nil {
		return p, nil
	}
	e := cli.AsError(err)
	if e.Code == api.CodeNotFound {
		e.Next = fmt.Sprintf("list the plugins with `%s plugin list`", a.program)
		if plugins, lerr := node.Plugins(cmd.Context()); lerr == nil {
			var names []string
			for _, p := range plugins {
				name, _, _ := strings.Cut(p.Ref(), "@")
				names = append(names, name, p.Ref())
			}
			if near := cli.Nearest(ref, names); near != "" && near != ref {
				e.Next = fmt.Sprintf("did you mean %s? Otherwise list the plugins with `%s plugin list`", near, a.program)
			}
		}
	}
	return nil, e
}

func (a *app) pluginInspect() *cobra.Command {
	return &cobra.Command{
		Use: "inspect FILE|REF", Short: "Tell what a plugin is, and whether and how it can run",
		Long: "Tell what a plugin is, and whether and how it can run. A FILE is read here, without a node\n" +
			"(an argument that ends in .wasm or holds a path separator and no @, or that names a file);\n" +
			"a REF is a stored plugin. -o wide shows its imports and exports too. The exit code is 2 if\n" +
			"the plugin cannot run.",
		Example: a.example("plugin inspect ./order-mask.wasm", "plugin inspect order-mask@1.2.0", "plugin inspect ./order-mask.wasm -o json"),
		Args:    a.args(1, 1, "FILE or REF"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !namesFile(args[0], a.dir) {
				p, err := a.storedPlugin(cmd, args[0])
				if err != nil {
					return err
				}
				info, err := inspected(p.Inspect)
				if err != nil {
					return fmt.Errorf("plugin %s: the node's report cannot be read: %w", args[0], err)
				}
				return a.printInspection(newInspection(p.Ref(), info))
			}
			wasm, info, err := a.readPlugin(args[0])
			if wasm == nil || info == nil {
				return err
			}
			m := info.Named(filepath.Base(args[0]))
			if perr := a.printInspection(newInspection(m.Name+"@"+m.Version, info)); perr != nil {
				return perr
			}
			return err
		},
	}
}

// namesFile tells a plugin's file from a reference.
func namesFile(arg, dir string) bool {
	switch {
	case strings.HasSuffix(arg, ".wasm"), strings.HasPrefix(arg, "."), filepath.IsAbs(arg):
		return true
	case strings.HasPrefix(arg, "sha256:"), strings.Contains(arg, "@"):
		return false
	}
	if !filepath.IsAbs(arg) {
		arg = filepath.Join(dir, arg)
	}
	return isFile(arg)
}

// readPlugin reads a plugin's file and judges it. The error names the file,
// says why it cannot run and what to do; if the file is a module, the bytes and
// the report come with it.
func (a *app) readPlugin(path string) ([]byte, *sandbox.Info, error) {
	return a.readPluginAs(path, "")
}

// readPluginAs is readPlugin for a mode that is asked for; see
// sandbox.InspectAs.
func (a *app) readPluginAs(path, mode string) ([]byte, *sandbox.Info, error) {
	wasm, err := a.readModule(path)
	if err != nil {
		return nil, nil, err
	}
	info, err := sandbox.InspectAs(wasm, mode)
	if err != nil {
		return nil, nil, refused(path, err)
	}
	return wasm, info, refused(path, info.Err())
}

// fileError is the error of a file that cannot be read. Of a file that does
// not exist it names the one in the same folder that was probably meant.
func (a *app) fileError(path, full string, err error) error {
	e := &cli.Error{Exit: cli.ExitInvalid, Code: cli.CodeFile, Detail: fmt.Sprintf("%s: %s", path, cause(err)), Next: "check the path and its permissions", Err: err}
	if info, serr := os.Stat(full); serr == nil && info.IsDir() {
		e.Detail = fmt.Sprintf("%s: it is a folder, not a file", path)
		e.Next = fmt.Sprintf("name a file in it; of a plugin project that is build/NAME.wasm, which `%s build` makes", a.program)
		return e
	}
	if !os.IsNotExist(err) {
		return e
	}
	e.Detail = fmt.Sprintf("%s: no such file in %s", path, filepath.ToSlash(filepath.Dir(full)))
	if strings.HasSuffix(path, ".wasm") {
		e.Code, e.Next = cli.CodePlugin, "build the plugin first, or correct the path"
	} else {
		e.Next = "correct the path"
	}
	var names []string
	entries, _ := os.ReadDir(filepath.Dir(full))
	for _, entry := range entries {
		if filepath.Ext(entry.Name()) == filepath.Ext(path) {
			names = append(names, entry.Name())
		}
	}
	if near := cli.Nearest(filepath.Base(path), names); near != "" {
		e.Next = fmt.Sprintf("did you mean %s?", filepath.ToSlash(filepath.Join(filepath.Dir(path), near)))
	}
	return e
}

// outputError is the error of a file that cannot be written.
func (a *app) outputError(path, full string, err error) error {
	e := &cli.Error{Exit: cli.ExitInvalid, Code: cli.CodeFile, Detail: fmt.Sprintf("%s: %s", path, cause(err)), Next: "check the path and its permissions", Err: err}
	if os.IsNotExist(err) {
		e.Detail = fmt.Sprintf("%s: there is no folder %s", path, filepath.ToSlash(filepath.Dir(full)))
		e.Next = "make the folder, or correct the path"
	}
	return e
}

// refused turns the sandbox's refusal of a file into an error with its advice
// as the next step; nil for nil.
func refused(path string, err error) error {
	if err == nil {
		return nil
	}
	e := &cli.Error{Exit: cli.ExitInvalid, Code: api.CodeRefused, Detail: fmt.Sprintf("%s: %v", path, err), Err: err}
	var reasons, advice []string
	for _, r := range refusals(err) {
		reasons = append(reasons, r.Reason)
		if r.Advice != "" && !slices.Contains(advice, r.Advice) {
			advice = append(advice, r.Advice)
		}
	}
	if len(reasons) > 0 {
		e.Detail = fmt.Sprintf("%s: plugin refused: %s", path, strings.Join(reasons, "; "))
	}
	if e.Next = strings.Join(advice, "; "); e.Next == "" {
		e.Next = "build it again as a plugin for stage/" + fmt.Sprint(sandbox.ABIVersion)
	}
	return e
}

// refusals are the refusals in a tree of joined errors.
func refusals(err error) []*sandbox.RefusedError {
	switch e := err.(type) {
	case *sandbox.RefusedError:
		return []*sandbox.RefusedError{e}
	case interface{ Unwrap() []error }:
		var all []*sandbox.RefusedError
		for _, each := range e.Unwrap() {
			all = append(all, refusals(each)...)
		}
		return all
	case interface{ Unwrap() error }:
		return refusals(e.Unwrap())
	}
	return nil
}

// inspected is the report of a node, which comes as plain JSON if the node is
// far away.
func inspected(v any) (*sandbox.Info, error) {
	if info, ok := v.(*sandbox.Info); ok {
		return info, nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	info := new(sandbox.Info)
	return info, json.Unmarshal(b, info)
}
