package main

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
)

// preflightOptions are the flags of what holds a new version of a plugin
// against the old one before it is taken.
type preflightOptions struct {
	records int
	maxDiff string
	yes     bool
	skip    bool
}

const defaultPreflight = 1000

func (o *preflightOptions) flags(cmd *cobra.Command) {
	cmd.Flags().IntVar(&o.records, "preflight", defaultPreflight, "how many of the latest records of each flow's source to compare")
	cmd.Flags().StringVar(&o.maxDiff, "max-diff", "0", "records of a stage, or N%, that may be answered otherwise without a question")
	cmd.Flags().BoolVar(&o.yes, "yes", false, "take what the pre-flight finds, without a question")
	cmd.Flags().BoolVar(&o.skip, "skip-preflight", false, "compare nothing; `history` shows it")
}

func (o *preflightOptions) validate() error {
	if o.records < 1 || o.records > api.MaxPreflight {
		return cli.Usage("leave it out with --skip-preflight", "--preflight %d: give 1 to %d records", o.records, api.MaxPreflight)
	}
	_, err := o.limit()
	return err
}

// count is what to ask the node for.
func (o *preflightOptions) count() int {
	if o.skip {
		return 0
	}
	return o.records
}

// limit is what --max-diff allows: how many of a number of records.
func (o *preflightOptions) limit() (allowed func(of int64) float64, err error) {
	text, percent := strings.CutSuffix(o.maxDiff, "%")
	if percent {
		p, err := strconv.ParseFloat(text, 64)
		if err == nil && p >= 0 && p <= 100 {
			return func(of int64) float64 { return p*float64(of)/100 + 1e-9 }, nil // 0.7 % of 1,000 are 7
		}
	} else if n, err := strconv.ParseInt(text, 10, 64); err == nil && n >= 0 {
		return func(int64) float64 { return float64(n) }, nil
	}
	return nil, cli.Usage("give a number of records, or a part of them: --max-diff 12, --max-diff 1.5%", "--max-diff %q is neither a number nor a percentage", o.maxDiff)
}

// triedStage is a stage with its pre-flight.
type triedStage struct {
	name  string // flow/stage
	found *api.Preflight
}

func (s *triedStage) changed() int64 { return s.found.Differ + s.found.NewFailures }

// tried are the stages of a plan that have a pre-flight.
func tried(flows []api.DeploymentFlow) []triedStage {
	var out []triedStage
	for _, f := range flows {
		for _, s := range f.Stages {
			if s.Preflight != nil {
				out = append(out, triedStage{shortFlow(f.Flow) + "/" + s.Stage, s.Preflight})
			}
		}
	}
	return out
}

// accept decides whether what the pre-flight found is taken, and says by what:
// "" if nothing differs. Above --max-diff somebody has to say so, who is asked
// if ask is true.
func (a *app) accept(o *preflightOptions, stages []triedStage, ask bool) (by string, err error) {
	allowed, err := o.limit()
	if err != nil {
		return "", err
	}
	var over []triedStage
	differs := false
	for _, s := range stages {
		differs = differs || s.changed() > 0
		if float64(s.changed()) > allowed(s.found.Records) {
			over = append(over, s)
		}
	}
	switch {
	case !differs:
		return "", nil
	case len(over) == 0:
		return "max-diff " + o.maxDiff, nil
	case o.yes:
		return "yes", nil
	}
	what := over[0].text()
	if len(over) > 1 {
		what += fmt.Sprintf(", and %s", cli.Plural(len(over)-1, "other stage"))
	}
	if ask && a.terminal() {
		if err := a.confirm(what+"; deploy it", false); err != nil {
			return "", err
		}
		return "asked", nil
	}
	return "", &cli.Error{Exit: cli.ExitFindings, Code: api.CodePreflight, Detail: fmt.Sprintf("%s; --max-diff allows %s, and no stage was changed", what, o.maxDiff),
		Next: fmt.Sprintf("look at the differences; if they are meant, deploy again with --yes, or with --max-diff %s", wanted(over))}
}

// wanted is a --max-diff with which all these stages pass.
func wanted(over []triedStage) string {
	most := int64(0)
	for _, s := range over {
		most = max(most, s.changed())
	}
	return strconv.FormatInt(most, 10)
}

// text says in a line what a stage's records say, with the field in which most
// differ.
func (s *triedStage) text() string {
	t := fmt.Sprintf("%s: %d of %s differ", s.name, s.found.Differ, cli.Plural(s.found.Records, "record"))
	if n := s.found.NewFailures; n > 0 {
		t += ", " + newFailures(n)
	}
	if len(s.found.Fields) > 0 {
		t += " (" + fieldText(&s.found.Fields[0])
		if n := int64(len(s.found.Fields)-1) + s.found.More; n > 0 {
			t += fmt.Sprintf(", and %s", cli.Plural(n, "other field"))
		}
		t += ")"
	}
	return t
}

func newFailures(n int64) string {
	if n == 1 {
		return "1 new failure"
	}
	return strconv.FormatInt(n, 10) + " new failures"
}

// seen is what the revision is to tell; nil if nothing was compared in it.
func (o *preflightOptions) seen(stages []api.DeploymentStage, accepted string) *api.Seen {
	if o.skip {
		return &api.Seen{Skipped: true}
	}
	s := &api.Seen{}
	for _, st := range stages {
		if p := st.Preflight; p != nil && p.First == nil {
			s.Records, s.Differ, s.NewFailures = s.Records+p.Records, s.Differ+p.Differ, s.NewFailures+p.NewFailures
		}
	}
	if s.Records == 0 {
		return nil
	}
	if s.Differ+s.NewFailures > 0 {
		s.Accepted = accepted
	}
	return s
}

// seenText is what a revision tells of its pre-flight, in a cell.
func seenText(s *api.Seen) string {
	switch {
	case s == nil:
		return ""
	case s.Skipped:
		return "skipped"
	case s.Differ+s.NewFailures == 0:
		return fmt.Sprintf("%s identical", cli.Plural(s.Records, "record"))
	}
	t := fmt.Sprintf("%d of %d differ", s.Differ, s.Records)
	if s.NewFailures > 0 {
		t += ", " + newFailures(s.NewFailures)
	}
	if s.Accepted != "" {
		t += " (" + s.Accepted + ")"
	}
	return t
}

// keepPreflight puts what a plan found beside what was activated.
func keepPreflight(d, plan *api.Deployment) {
	for i := range d.Flows {
		for _, was := range plan.Flows {
			if was.Flow != d.Flows[i].Flow {
				continue
			}
			for k := range d.Flows[i].Stages {
				for _, s := range was.Stages {
					if s.Stage == d.Flows[i].Stages[k].Stage {
						d.Flows[i].Stages[k].Preflight = s.Preflight
					}
				}
			}
		}
	}
}

// showPreflight writes what was found, stage by stage.
func showPreflight(w io.Writer, flows []api.DeploymentFlow) {
	for _, s := range tried(flows) {
		fmt.Fprintf(w, "%s: %s\n", s.name, found(s.found))
		for i := range s.found.Fields {
			f := &s.found.Fields[i]
			fmt.Fprintf(w, "  %s  in %s\n", fieldText(f), cli.Safe(f.Record))
		}
		if s.found.More > 0 {
			fmt.Fprintf(w, "  and %s\n", cli.Plural(s.found.More, "other field"))
		}
	}
}

// found is a pre-flight in a line.
func found(p *api.Preflight) string {
	var parts []string
	switch f := p.First; {
	case p.Skipped != "":
		return "not compared: " + cli.Safe(p.Skipped)
	case f != nil:
		t := fmt.Sprintf("of the last %s it passes %d", cli.Plural(p.Records, "record"), f.Passed)
		if f.Emissions != f.Passed {
			t += fmt.Sprintf(" as %d", f.Emissions)
		}
		t += fmt.Sprintf(", drops %d, fails %d", f.Dropped, f.Failed)
		if f.Retried > 0 {
			t += fmt.Sprintf(", wants %d again later", f.Retried)
		}
		if f.Failure != "" {
			t += "; the first: " + cli.Safe(f.Failure)
		}
		parts = append(parts, t)
	default:
		differ := fmt.Sprintf("%d differ", p.Differ)
		if p.OldFailures > 0 {
			differ += fmt.Sprintf(" (%d failed before)", p.OldFailures)
		}
		parts = append(parts, fmt.Sprintf("%d identical, %s, %s", p.Identical, differ, newFailures(p.NewFailures)))
		if p.FuelRatio > 0 {
			parts = append(parts, fuelText(p.FuelRatio))
		}
	}
	if p.Partial != "" {
		parts = append(parts, cli.Safe(p.Partial))
	}
	return strings.Join(parts, "; ")
}

func fuelText(ratio float64) string {
	if ratio >= 100 {
		return fmt.Sprintf("fuel x%.0f", ratio)
	}
	return "fuel x" + strconv.FormatFloat(math.Round(ratio*100)/100, 'f', 2, 64)
}

func fieldText(f *api.FieldDiff) string {
	t := fmt.Sprintf("%s %s (%d)", f.Kind, cli.Safe(f.Path), f.Count)
	old, now := cli.Safe(f.Example[0]), cli.Safe(f.Example[1])
	switch f.Kind {
	case "+":
		return t + " " + now
	case "-":
		return t + " was " + old
	}
	return t + " " + old + " -> " + now
}

// quiet is how long a command says nothing while it waits.
const quiet = 500 * time.Millisecond

// waiting tells somebody who sits there what the program waits for, unless the
// function that it returns is called soon.
func (a *app) waiting(o *preflightOptions) (done func()) {
	if o.skip || !a.terminal() || !a.format.Human() {
		return func() {}
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		timer := time.NewTimer(quiet)
		defer timer.Stop()
		select {
		case <-timer.C:
			fmt.Fprintf(a.stderr, "pre-flight: the last %s of each flow go through the old and the new version ...\n", cli.Plural(o.records, "record"))
		case <-stop:
		}
	}()
	return func() {
		close(stop)
		<-ended
	}
}
