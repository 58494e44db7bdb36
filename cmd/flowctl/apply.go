package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/runtime/flow"
)

func (a *app) applyCommand() *cobra.Command {
	var paths, vars []string
	var dryRun bool
	cmd := &cobra.Command{
		Use: "apply -f PATH...", Short: "Make or change flows and connections as documents say",
		Long: "Make or change flows and connections as documents say: connections first, then flows. A\n" +
			"PATH is a file, a folder (*.yaml and *.yml in it), or - for STDIN; a file may hold several\n" +
			"documents. Plugins that a flow names by path are uploaded, also by --dry-run, which changes\n" +
			"nothing else; relative paths begin at the document's file. Environment variables and vars\n" +
			"get their values here. If one document is refused, none is applied.",
		Example: a.example("apply -f flow.yaml", "apply -f flows/ --dry-run", "apply -f flow.yaml --var currency=EUR"),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return cli.Usage(fmt.Sprintf("write `%s -f %s`", cmd.CommandPath(), args[0]), "%s: unexpected argument %q: documents are named with -f", cmd.CommandPath(), args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(paths) == 0 {
				return cli.Usage(fmt.Sprintf("name the documents: `%s -f flow.yaml`", cmd.CommandPath()), "%s: missing flag -f PATH", cmd.CommandPath())
			}
			values, err := parseVars(vars)
			if err != nil {
				return err
			}
			return a.apply(cmd.Context(), paths, values, dryRun)
		},
	}
	cmd.Flags().StringArrayVarP(&paths, "file", "f", nil, "file or folder of documents, - for STDIN; may be repeated")
	cmd.Flags().StringArrayVar(&vars, "var", nil, "NAME=VALUE overrides a var of the flows that have it; may be repeated")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would change")
	return cmd
}

// parseVars reads NAME=VALUE.
func parseVars(vars []string) (map[string]string, error) {
	values := map[string]string{}
	for _, v := range vars {
		name, value, ok := strings.Cut(v, "=")
		if !ok || name == "" {
			return nil, cli.Usage("write --var NAME=VALUE", "--var %q has no name and value", v)
		}
		values[name] = value
	}
	return values, nil
}

// applied is what became of one document, or would.
type applied struct {
	Kind     string   `json:"kind"`
	Name     string   `json:"name"` // of flows project/name
	Action   string   `json:"action"`
	Revision uint32   `json:"revision,omitempty"`
	Changes  []string `json:"changes,omitempty"`
	DryRun   bool     `json:"dry_run,omitempty"`
	warnings []api.Problem
}

// planDocuments asks the node what applying documents would change. The plugins
// that they name by file are with it then.
func (a *app) planDocuments(ctx context.Context, paths []string, vars map[string]string) (*application, api.Backend, []applied, error) {
	b, err := a.load(paths)
	if err != nil {
		return nil, nil, nil, err
	}
	p, err := a.prepareApply(b, vars)
	if err != nil {
		return nil, nil, nil, err
	}
	node, err := a.node()
	if err != nil {
		return nil, nil, nil, err
	}
	if err := a.uploadLocal(ctx, node, p); err != nil {
		return nil, nil, nil, err
	}
	results, err := p.put(ctx, node, true)
	return p, node, results, err
}

func (a *app) apply(ctx context.Context, paths []string, vars map[string]string, dryRun bool) error {
	p, node, results, err := a.planDocuments(ctx, paths, vars)
	if err != nil {
		return err
	}
	if !dryRun {
		results, err = p.put(ctx, node, false)
	}
	for _, r := range results {
		cli.PrintProblems(a.stderr, r.warnings)
	}
	if a.format.Human() {
		for _, r := range results {
			printApplied(a.stdout, r)
		}
		return err
	}
	if err != nil {
		return err
	}
	return cli.View[applied]{Name: func(r applied) string { return r.Kind + "/" + shortFlow(r.Name) }}.List(a.stdout, a.format, results)
}

// printApplied writes one document's line and its changes.
func printApplied(w io.Writer, r applied) {
	done := map[string]string{"create": "created", "update": "updated"}[r.Action]
	switch {
	case done == "":
		done = r.Action
	case r.DryRun:
		done = "would be " + done
	}
	revision := ""
	if r.Revision > 0 && !r.DryRun {
		revision = fmt.Sprintf(" (revision %d)", r.Revision)
	}
	fmt.Fprintf(w, "%s %s: %s%s\n", r.Kind, cli.Safe(shortFlow(r.Name)), done, revision)
	for _, c := range r.Changes {
		fmt.Fprintf(w, "  %s\n", cli.Safe(c))
	}
}

func (a *app) printFlowPlan(w io.Writer, plan *api.FlowPlan) {
	printApplied(w, appliedFlow(plan))
}

func appliedFlow(plan *api.FlowPlan) applied {
	return applied{Kind: flow.KindFlow, Name: plan.Project + "/" + plan.Name, Action: plan.Action, Revision: plan.Revision, Changes: plan.Changes, DryRun: plan.DryRun, warnings: plan.Warnings}
}

// application is everything that is sent to a node.
type application struct {
	connections []*api.PutConnection
	// warnings are those of the connections, in their order; flows get
	// theirs from the node.
	warnings [][]api.Problem
	flows    []*api.PutFlow
	// docs are the flows' documents, in the order of flows.
	docs []loaded
}

// prepareApply resolves the documents as the node will, so that what is wrong
// is said before anything is sent.
func (a *app) prepareApply(b *bundle, vars map[string]string) (*application, error) {
	if err := b.invalid(b.problems); err != nil {
		return nil, err
	}
	p := &application{}
	used := map[string]bool{}
	var problems flow.Problems
	for _, d := range b.docs {
		env := map[string]string{}
		in := flow.Inputs{Env: func(name string) (string, bool) {
			v := a.getenv(name)
			if v != "" {
				env[name] = v
			}
			return v, v != ""
		}}
		if d.Flow != nil {
			in.Vars = map[string]string{}
			for name, v := range sorted(vars) {
				if _, ok := d.Flow.Vars[name]; ok {
					in.Vars[name], used[name] = v, true
				}
			}
		}
		resolver := b.resolver(d.dir)
		_, found := flow.Resolve(d.Document, in, flow.Options{Resolver: resolver})
		problems = append(problems, resolver.lenient(found)...)
		if d.Connection != nil {
			p.connections = append(p.connections, &api.PutConnection{Document: string(d.Source), File: d.File, Env: env})
			p.warnings = append(p.warnings, rendered(found))
			continue
		}
		p.flows = append(p.flows, &api.PutFlow{Document: string(d.Source), File: d.File, Env: env, Vars: in.Vars})
		p.docs = append(p.docs, d)
	}
	if err := b.invalid(problems); err != nil {
		return nil, err
	}
	for name := range sorted(vars) {
		if !used[name] {
			return nil, cli.Usage("write its name as it stands under `vars:`", "--var %s: no flow has a var of this name", name)
		}
	}
	return p, nil
}

// uploadLocal uploads the plugins that flows name by path.
func (a *app) uploadLocal(ctx context.Context, node api.Backend, p *application) error {
	digests := map[string]string{}
	for i, d := range p.docs {
		for _, s := range d.Flow.Plugins() {
			path := s.Plugin.Ref.Path
			if path == "" {
				continue
			}
			file := pluginPath(d.dir, path)
			if digests[file] == "" {
				wasm, err := os.ReadFile(file)
				if err != nil {
					return a.fileError(path, file, err)
				}
				stored, err := a.upload(ctx, node, filepath.Base(file), wasm)
				if err != nil {
					return err
				}
				digests[file] = stored.Digest
			}
			if p.flows[i].Files == nil {
				p.flows[i].Files = map[string]string{}
			}
			p.flows[i].Files[path] = digests[file]
		}
	}
	return nil
}

// put applies the documents, or only plans to. With an error come the results
// of those before.
func (p *application) put(ctx context.Context, node api.Backend, dryRun bool) ([]applied, error) {
	var results []applied
	for i, c := range p.connections {
		req := *c
		req.DryRun = dryRun
		plan, err := node.PutConnection(ctx, &req)
		if err != nil {
			return results, err
		}
		results = append(results, applied{Kind: flow.KindConnection, Name: plan.Name, Action: plan.Action, DryRun: dryRun, warnings: p.warnings[i]})
	}
	for i, f := range p.flows {
		req := *f
		req.DryRun = dryRun
		if dryRun {
			// The connections beside it do not exist yet.
			req.Env = maps.Clone(f.Env)
			for _, c := range p.connections {
				req.Connections = append(req.Connections, c.Document)
				maps.Copy(req.Env, c.Env)
			}
		}
		plan, err := node.PutFlow(ctx, &req)
		if err != nil {
			return results, p.docs[i].place(err)
		}
		r := appliedFlow(plan)
		r.DryRun, r.warnings = dryRun, p.docs[i].shift(r.warnings)
		results = append(results, r)
	}
	return results, nil
}

// place gives the problems in a node's refusal their lines in the file.
func (d loaded) place(err error) error {
	e := cli.AsError(err)
	e.Problems = d.shift(e.Problems)
	return e
}

// shift moves problems from the document's lines to those of its file.
func (d loaded) shift(problems []api.Problem) []api.Problem {
	if d.Line <= 1 {
		return problems
	}
	out := slices.Clone(problems)
	for i := range out {
		p := &out[i]
		if p.Line < 1 {
			continue
		}
		moved := flow.Problem{Code: flow.Code(p.Code), Level: flow.Level(p.Level), File: p.File, Line: p.Line + d.Line - 1, Column: p.Column, EndColumn: p.Column + carets(p.Rendered),
			Source: sourceLine(p.Rendered), Message: p.Message, Help: p.Help}
		p.Line, p.Rendered = moved.Line, moved.Render()
	}
	return out
}

// sourceLine is the line in a rendered problem, as far as it may be shown.
func sourceLine(rendered string) string {
	_, rest, _ := strings.Cut(rendered, "\n")
	line, _, _ := strings.Cut(rest, "\n")
	_, source, _ := strings.Cut(line, " | ")
	return source
}

// carets is how many characters are marked in a rendered problem.
func carets(rendered string) int {
	lines := strings.Split(rendered, "\n")
	if len(lines) < 3 {
		return 1
	}
	_, marks, _ := strings.Cut(lines[2], "|")
	marks = strings.TrimLeft(marks, " ")
	return max(1, len(marks)-len(strings.TrimLeft(marks, "^")))
}
