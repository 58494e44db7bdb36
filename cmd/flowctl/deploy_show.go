package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
)

func stagesOf(d *api.Deployment) int {
	n := 0
	for _, f := range d.Flows {
		n += len(f.Stages)
	}
	return n
}

// version8 is a version with the digits of its digest that matter.
func version8(version, digest string) string {
	switch {
	case digest == "":
		return version
	case strings.Contains(version, cli.Digest(digest)):
		return version
	}
	return strings.TrimSpace(version + " (" + cli.Digest(digest) + ")")
}

func planGrid(w io.Writer, d *api.Deployment) error {
	var rows [][]string
	for _, f := range d.Flows {
		for _, s := range f.Stages {
			rows = append(rows, []string{shortFlow(f.Flow), s.Stage, version8(s.OldVersion, s.OldDigest), version8(s.NewVersion, s.NewDigest), f.State})
		}
	}
	return cli.Grid(w, []string{"FLOW", "STAGE", "OLD", "NEW", "STATE"}, rows)
}

func (a *app) deployDetail(w io.Writer, path string, o deployOptions, r *deployResult) error {
	stored := "stored"
	if r.Plugin.Existed {
		stored = "stored already"
	}
	fmt.Fprintf(w, "plugin %s (%s, %s): %s\n", r.Plugin.Ref(), cli.Digest(r.Plugin.Digest), cli.Bytes(r.Plugin.Size), stored)
	switch {
	case o.storeOnly:
		return nil
	case r.Flow != nil:
		a.printFlowPlan(w, r.Flow)
		showPreflight(w, []api.DeploymentFlow{{Flow: r.Flow.Project + "/" + r.Flow.Name, Stages: r.Flow.Stages}})
		if !o.dryRun {
			fmt.Fprintf(a.stderr, "see it work: `%s flow get %s`\n", a.program, shortFlow(r.Flow.Project+"/"+r.Flow.Name))
		}
		return nil
	}
	d := r.Deployment
	for _, s := range d.Skipped {
		fmt.Fprintf(w, "skipped %s\n", shortFlow(s))
	}
	switch {
	case len(d.Flows) == 0 && len(d.Skipped) > 0:
		_, err := fmt.Fprintln(w, "no stage changes")
		return err
	case len(d.Flows) == 0 && (o.flow != "" || o.stage != ""):
		where := "of any flow"
		if o.flow != "" {
			where = "of flow " + shortFlow(o.flow)
		}
		if o.stage != "" {
			where = fmt.Sprintf("%q %s", o.stage, where)
		}
		_, err := fmt.Fprintf(w, "no stage %s uses it: nothing changes\n", where)
		return err
	case len(d.Flows) == 0:
		fmt.Fprintf(w, "no flow uses it. Make one:\n  %s deploy %s --source kafka://host:port/topic --sink kafka://host:port/topic\n", a.program, path)
		return nil
	case o.dryRun:
		fmt.Fprintf(w, "would change %s of %s:\n", cli.Plural(stagesOf(d), "stage"), cli.Plural(len(d.Flows), "flow"))
		if err := planGrid(w, d); err != nil {
			return err
		}
		showPreflight(w, d.Flows)
		return nil
	}
	var rows [][]string
	slots, nodes := 0, 0
	for _, f := range d.Flows {
		slots, nodes = slots+f.Switched, max(nodes, f.Nodes)
		for _, s := range f.Stages {
			rows = append(rows, []string{shortFlow(f.Flow), s.Stage, version8(s.OldVersion, s.OldDigest), version8(s.NewVersion, s.NewDigest),
				strconv.Itoa(f.Nodes), fmt.Sprintf("%d/%d", f.Switched, f.Slots), f.Problem})
		}
	}
	if err := cli.Grid(w, []string{"FLOW", "STAGE", "OLD", "NEW", "NODES", "SLOTS", "NOTE"}, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "switched %s on %s in %.2f s\n", cli.Plural(slots, "slot"), cli.Plural(nodes, "node"), r.Seconds)
	return err
}
