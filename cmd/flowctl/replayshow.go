package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

// showReplays writes what came of entries.
func (a *app) showReplays(all []*replayed) error {
	if !a.format.Human() {
		return cli.View[*replayed]{Name: func(x *replayed) string { return x.ID }}.List(a.stdout, a.format, all)
	}
	counts := map[string]int{}
	for i, x := range all {
		if i > 0 {
			fmt.Fprintln(a.stdout)
		}
		if err := a.showReplay(x, len(all) == 1); err != nil {
			return err
		}
		counts[x.verdict()]++
	}
	if len(all) > 1 {
		fmt.Fprintf(a.stderr, "%s: %d as recorded, %d otherwise, %d not run again\n", cli.Plural(len(all), "record"), counts["yes"], counts["no"], counts["-"])
	}
	return nil
}

// verdict is yes, no, or - if nothing can be said.
func (x *replayed) verdict() string {
	switch {
	case x.Same == nil:
		return "-"
	case *x.Same:
		return "yes"
	}
	return "no"
}

// shownText is how much of a text is shown unless the format is wide.
const shownText = 200

// showReplay writes what came of one entry. Of the only one the error of the
// command tells the problem.
func (a *app) showReplay(x *replayed, only bool) error {
	cut := func(s string) string {
		if s = cli.Safe(s); a.format != cli.Wide {
			s = cli.Shorten(s, shownText)
		}
		return s
	}
	name := x.ID
	if x.Seq != 0 {
		name += " (" + shortFlow(x.Flow) + "/" + strconv.FormatUint(x.Seq, 10) + ")"
	}
	plugin := ""
	if x.Digest != "" {
		plugin = x.Plugin + " (" + cli.Digest(x.Digest) + ")"
	}
	pairs := [][2]string{{"Record", name}, {"Stage", x.Stage + " of " + shortFlow(x.Flow)}, {"Plugin", plugin}, {"Recorded", cut(x.Recorded.text())}, {"Fuel", x.Recorded.fuelText()}}
	if x.Again != nil {
		same := x.verdict()
		if same == "no" {
			same += ": " + strings.Join(x.Differs, ", ")
		}
		pairs = append(pairs, [2]string{"Same as recorded", same})
		if same != "yes" {
			pairs = append(pairs, [2]string{"Now", cut(x.Again.text())}, [2]string{"Fuel now", x.Again.fuelText()})
		}
	}
	if x.Note != "" {
		pairs = append(pairs, [2]string{"Note", x.Note})
	}
	if x.NotRun != "" {
		pairs = append(pairs, [2]string{"Same as recorded", "not run: " + cut(x.NotRun)})
	}
	if x.Problem != "" && !only {
		pairs = append(pairs, [2]string{"Not run again", cut(x.Problem)}, [2]string{"Next", x.Next})
	}
	if err := cli.Pairs(a.stdout, pairs); err != nil {
		return err
	}
	shown := x.Again
	if shown == nil {
		shown = &x.Recorded
	}
	a.showRun(shown, cut)
	if x.Other == nil {
		return nil
	}
	fmt.Fprintln(a.stdout)
	if err := cli.Pairs(a.stdout, [][2]string{
		{"Other plugin", x.OtherPlugin + " (" + cli.Digest(x.OtherDigest) + ")"}, {"Answers", cut(x.Other.text())}, {"Fuel", x.Other.fuelText()},
	}); err != nil {
		return err
	}
	a.showRun(x.Other, cut)
	showChanges(a.stdout, x.Changes, cut)
	return nil
}

// text is an outcome in a line.
func (o *outcome) text() string {
	switch o.Outcome {
	case "emit":
		return "emit: " + cli.Plural(len(o.Records), "record")
	case "drop":
		return "drop"
	}
	e := record.Error{Code: o.Code, Message: o.Message}
	if class, err := record.ParseClass(o.Class); err == nil {
		e.Class = class
	}
	return o.Outcome + ": " + e.Error()
}

func (o *outcome) fuelText() string {
	switch {
	case o.FuelLimit > 0:
		text := fmt.Sprintf("%d units, the budget is %d and what the record's bytes add", o.Fuel, o.FuelLimit)
		if o.FuelCosts != 0 && o.FuelCosts != sandbox.FuelCosts {
			text += fmt.Sprintf("; counted by version %d of the costs, this program has %d: not compared", o.FuelCosts, sandbox.FuelCosts)
		}
		return text
	case o.Fuel > 0:
		return fmt.Sprintf("%d units", o.Fuel)
	}
	return ""
}

// showRun writes the log and the emissions of a run.
func (a *app) showRun(o *outcome, cut func(string) string) {
	for _, line := range o.Logs {
		fmt.Fprintln(a.stdout, "  log: "+cut(line))
	}
	for i := range o.Records {
		r := &o.Records[i]
		fmt.Fprintf(a.stdout, "  %d -> %s: %s\n", i, cli.Safe(r.Output), cut(string(r.Record)))
	}
}

// showChanges writes a line for each difference.
func showChanges(w io.Writer, changes []change, cut func(string) string) {
	if len(changes) == 0 {
		fmt.Fprintln(w, "No difference in what comes out")
		return
	}
	side := func(b []byte) string {
		if b == nil {
			return "(none)"
		}
		return cut(string(b))
	}
	fmt.Fprintln(w, "Differences:")
	for _, c := range changes {
		at := cli.Safe(c.Field)
		if c.Record >= 0 {
			at = fmt.Sprintf("record %d %s", c.Record, at)
		}
		note := ""
		if c.Input {
			note = " (input)"
		}
		fmt.Fprintf(w, "  %s: %s%s -> %s\n", at, side(c.Old), note, side(c.New))
	}
}
