package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/plugins/manifest"
	rewriter "github.com/millrace-io/millrace/plugins/rewrite"
)

func (a *app) pluginRewrite() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "rewrite IN.wasm -o OUT.wasm", Short: "Write the module that a node makes of a plugin",
		Long: "Write the module that a node makes of a plugin and compiles: the same behaviour, with a\n" +
			"counter of fuel and every mutable global exported. So it can be run and tested elsewhere.\n" +
			"Its fuel has no end unless the host sets the counter, an exported mutable i64, before a\n" +
			"call; the module traps when it is below zero. With -o - it goes to STDOUT. A plugin that\n" +
			"cannot run is not rewritten.",
		Example: a.example("plugin rewrite order-mask.wasm -o rewritten.wasm", "plugin rewrite order-mask.wasm -o - | wasm2wat -"),
		Args:    a.args(1, 1, "IN.wasm"),
		RunE:    func(_ *cobra.Command, args []string) error { return a.rewritePlugin(args[0], out) },
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "file to write, - for STDOUT")
	cmd.Flags().Lookup("output").Annotations = map[string][]string{ownFlag: {}}
	return cmd
}

func (a *app) rewritePlugin(path, out string) error {
	if out == "" {
		return cli.Usage("add -o OUT.wasm", "plugin rewrite: it is not said where to write to")
	}
	if out == "-" && onTerminal(a.stdout) {
		return cli.Usage("name a file with -o, or send STDOUT to another program", "plugin rewrite: a module is not for a terminal")
	}
	wasm, info, err := a.readPlugin(path)
	if err != nil {
		return err
	}
	r, err := rewriter.Rewrite(wasm, rewriter.Options{Fuel: true})
	if err != nil {
		return fmt.Errorf("rewrite %s: %w", path, err)
	}
	if out == "-" {
		_, err = a.stdout.Write(r.Wasm)
	} else {
		err = a.replaceFile(path, out, r.Wasm)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stderr, "%s: %s, rewritten %s\n", path, cli.Bytes(int64(len(wasm))), cli.Bytes(int64(len(r.Wasm))))
	fmt.Fprintf(a.stderr, "fuel: export %q, a mutable i64; unlimited until the host sets it\n", r.Fuel.Export)
	for _, g := range r.Globals {
		fmt.Fprintf(a.stderr, "state: export %q, a mutable %v\n", g.Export, g.Type)
	}
	if info.Mode == manifest.ModeExtism {
		fmt.Fprintln(a.stderr, "note: for extism mode a node adds to each export that it sets the counter")
	}
	return nil
}

// replaceFile writes a file beside its place and then moves it there, so that
// it is never half there.
func (a *app) replaceFile(from, path string, content []byte) error {
	full := a.path(path)
	if fi, err := os.Stat(full); err == nil {
		if in, err := os.Stat(a.path(from)); err == nil && os.SameFile(fi, in) {
			return cli.Usage("name another file with -o", "%s would be written over itself", from)
		}
		if !fi.Mode().IsRegular() { // a device or a pipe
			if err := os.WriteFile(full, content, 0o644); err != nil {
				return a.outputError(path, full, err)
			}
			return nil
		}
	}
	f, err := os.CreateTemp(filepath.Dir(full), ".rewrite-*")
	if err != nil {
		return a.outputError(path, full, err)
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), full)
	}
	if err != nil {
		return errors.Join(a.outputError(path, full, err), os.Remove(f.Name()))
	}
	return nil
}
