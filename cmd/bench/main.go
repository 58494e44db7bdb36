// Command bench is the yardstick: it prints the figures that the design
// promises, each beside its bar. Ratios are of two sides measured in the same
// run; absolute figures depend on the machine.
//
//	bench [-only stage,kafka,peers,rocketmq,latency,commit,start,delivery,hostile] [-markdown] [-n N] [-rounds N] [-partitions 8]
//
// Broker and contestants are processes of their own (this program, executed
// again), so that the CPU time of each is its own.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/millrace-io/millrace/cmd/bench/arena"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// roles are what the program does when it executes itself.
var roles = map[string]func(ctx context.Context, args []string) error{
	"broker": runBroker, "native": runNative, "node": runNode, "flow": runFlow, "sink": runSink, "kept": runKept,
}

type options struct {
	n, rounds, partitions int
	only                  string
	markdown              bool

	// Of the contestants on the real broker.
	kind        arena.Kind // "" is Kafka
	contestants string     // picked, comma-separated; "" is all
	extra       []arena.Contestant
	dir         string // for the broker's data; "" is the system's
	compression string // of what they write
	profiles    string // folder for CPU profiles of the nodes; "" is none
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
	fs.IntVar(&o.n, "n", 0, "order events in comparisons with Kafka; 0: 300,000, peers 1,000,000")
	fs.IntVar(&o.rounds, "rounds", 0, "interleaved rounds, medians are printed; 0: 3, peers 5")
	fs.IntVar(&o.partitions, "partitions", 8, "partitions of the input and the output topic")
	fs.StringVar(&o.only, "only", "", "comma-separated: "+strings.Join(sectionNames(), ", "))
	fs.BoolVar(&o.markdown, "markdown", false, "print the tables as Markdown")
	fs.StringVar(&o.contestants, "contestants", "", "peers: only these, comma-separated")
	fs.Func("contestant", "peers: one more, NAME=COMMAND (for sh); may be repeated", func(text string) error {
		c, err := arena.ParseContestant(text)
		o.extra = append(o.extra, c)
		return err
	})
	fs.StringVar(&o.compression, "compression", "lz4", "peers: of what the contestants write: lz4, zstd, snappy, gzip, none")
	fs.StringVar(&o.dir, "dir", "", "peers: folder for the broker's data, for instance on a tmpfs")
	fs.StringVar(&o.profiles, "cpuprofile", "", "peers: folder for CPU profiles of the nodes, the last round's")
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
	if o.markdown {
		fmt.Fprintf(stdout, "%s. `%s`\n", machine(), command(slices.Clone(args)))
	} else {
		fmt.Fprintln(stdout, machine())
	}
	missed := false
	for _, s := range sections {
		if o.only != "" && !slices.Contains(wanted, s.name) {
			continue
		}
		tables, err := s.run(ctx, s.defaults(o))
		if errors.Is(err, arena.ErrNoBroker) && o.only == "" {
			fmt.Fprintf(stderr, "bench: left out: %s: %v\n", s.name, err)
			continue
		}
		if err != nil {
			fmt.Fprintf(stderr, "bench %s: %v\n", s.name, err)
			return 1
		}
		fmt.Fprintf(stdout, "\n%s\n", s.title)
		for _, t := range tables {
			show := t.text
			if o.markdown {
				fmt.Fprintln(stdout)
				show = t.markdown
			}
			if err := show(stdout); err != nil {
				return 1
			}
			missed = missed || t.missed
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
	n, rounds   int // unless the command line says so
	run         func(ctx context.Context, o options) ([]table, error)
}

func (s section) defaults(o options) options {
	o.n, o.rounds = cmp.Or(o.n, s.n), cmp.Or(o.rounds, s.rounds)
	return o
}

var sections = []section{
	{"stage", "Plugins: CPU time a record, medians; the order stage against its native twin in the same run", 300_000, 3, figures(benchStage)},
	{"kafka", "Kafka to Kafka through the Rust order stage, against a native franz-go loop on the same broker", 300_000, 3, figures(benchKafka)},
	{"peers", "Kafka to Kafka on the real broker, contestants in turn", 1_000_000, 5, benchPeers},
	{"rocketmq", "RocketMQ to RocketMQ on the real broker, the loop by hand with Apache's client", 200_000, 5, benchRocketMQ},
	{"latency", "The order flow on the real broker, from the append of a record to its arrival behind the output", 1000, 1, benchLatency},
	{"commit", "Commits: one with 8 partitions, through raft into Pebble on disk", 300_000, 3, figures(benchCommit)},
	{"start", "The node as a process", 1_000_000, 3, figures(benchStart)},
	{"delivery", "Deliveries over HTTP to a server on loopback, and records that wait in the state", 300_000, 3, figures(benchDelivery)},
	{"hostile", "A batch beside hostile guests in another lane of the process, GOMAXPROCS=2, garbage collected 20 times a second", 300_000, 3, figures(benchHostile)},
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
