// Command bench is the yardstick: it prints the figures that the design
// promises, each beside its bar. Ratios are of two sides measured in the same
// run; absolute figures depend on the machine.
//
//	bench [-only stage,kafka,commit,start,delivery,hostile] [-n 300000] [-rounds 3] [-partitions 8]
//
// Broker and contestants are processes of their own (this program, executed
// again), so that the CPU time of each is its own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// roles are what the program does when it executes itself.
var roles = map[string]func(ctx context.Context, args []string) error{
	"broker": runBroker, "native": runNative, "node": runNode, "sink": runSink, "kept": runKept,
}

type options struct {
	n, rounds, partitions int
	only                  string
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 {
		if role, ok := roles[args[0]]; ok {
			if err := role(ctx, args[1:]); err != nil && !errors.Is(err, context.Canceled) {
				fmt.Fprintf(stderr, "bench %s: %v\n", args[0], err)
				return 1
			}
			return 0
		}
	}
	var o options
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.IntVar(&o.n, "n", 300_000, "order events in the Kafka comparison")
	fs.IntVar(&o.rounds, "rounds", 3, "interleaved rounds; medians are printed")
	fs.IntVar(&o.partitions, "partitions", 8, "partitions of the input and the output topic")
	fs.StringVar(&o.only, "only", "", "comma-separated: "+strings.Join(sectionNames(), ", "))
	if err := fs.Parse(args); err != nil {
		return 2
	}
	wanted := strings.Split(o.only, ",")
	for _, w := range wanted {
		if w != "" && !slices.Contains(sectionNames(), w) {
			fmt.Fprintf(stderr, "bench: -only %s: there are %s\n", w, strings.Join(sectionNames(), ", "))
			return 2
		}
	}
	fmt.Fprintf(stdout, "%s, %d cores, %s\n", runtime.Version(), runtime.NumCPU(), runtime.GOOS+"/"+runtime.GOARCH)
	missed := false
	for _, s := range sections {
		if o.only != "" && !slices.Contains(wanted, s.name) {
			continue
		}
		rows, err := s.run(ctx, o)
		if err != nil {
			fmt.Fprintf(stderr, "bench %s: %v\n", s.name, err)
			return 1
		}
		fmt.Fprintf(stdout, "\n%s\n", s.title)
		tw := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
		head := "figure\tvalue\tbar\t"
		designed := slices.ContainsFunc(rows, func(r row) bool { return r.design != "" })
		if designed {
			head += "\tin the design"
		}
		fmt.Fprintln(tw, head)
		for _, r := range rows {
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s", r.figure, r.value, r.bar, r.verdict)
			if designed {
				fmt.Fprint(tw, "\t"+r.design)
			}
			fmt.Fprintln(tw)
			missed = missed || r.verdict == missedBar
		}
		if err := tw.Flush(); err != nil {
			return 1
		}
	}
	if missed {
		return 4
	}
	return 0
}

// row is one figure. verdict is empty for figures without a bar, design for
// those that were not measured when the design was made.
type row struct {
	figure, value, bar, verdict, design string
}

// designed is r with what was measured for the design, on another machine.
func (r row) designed(text string) row {
	r.design = text
	return r
}

const (
	heldBar   = "held"
	missedBar = "MISSED"
)

func atMost(figure string, v, bar float64, unit string) row {
	return row{figure: figure, value: fmt.Sprintf("%.3g%s", v, unit), bar: fmt.Sprintf("<= %.3g%s", bar, unit), verdict: verdict(v <= bar)}
}

func atLeast(figure string, v, bar float64, unit string) row {
	return row{figure: figure, value: fmt.Sprintf("%.3g%s", v, unit), bar: fmt.Sprintf(">= %.3g%s", bar, unit), verdict: verdict(v >= bar)}
}

func verdict(ok bool) string {
	if ok {
		return heldBar
	}
	return missedBar
}

type section struct {
	name, title string
	run         func(ctx context.Context, o options) ([]row, error)
}

var sections = []section{
	{"stage", "Plugins: CPU time a record, medians; the order stage against its native twin in the same run", benchStage},
	{"kafka", "Kafka to Kafka through the Rust order stage, against a native franz-go loop on the same broker", benchKafka},
	{"commit", "Commits: one with 8 partitions, through raft into Pebble on disk", benchCommit},
	{"start", "The node as a process", benchStart},
	{"delivery", "Deliveries over HTTP to a server on loopback, and records that wait in the state", benchDelivery},
	{"hostile", "A batch beside hostile guests in another lane of the process, GOMAXPROCS=2, garbage collected 20 times a second", benchHostile},
}

func sectionNames() []string {
	var names []string
	for _, s := range sections {
		names = append(names, s.name)
	}
	return names
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}
