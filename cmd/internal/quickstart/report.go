package quickstart

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
)

// Summary is what a run found, for machines.
type Summary struct {
	In         int `json:"in"`
	Emitted    int `json:"emitted"`
	Dropped    int `json:"dropped"`
	Failed     int `json:"failed"`
	Lost       int `json:"lost"`
	Duplicated int `json:"duplicated"`
	OutOfOrder int `json:"out_of_order"`
	// Redelivered counts outputs seen again, Duplicated those of them that
	// the kill does not explain.
	Redelivered int `json:"redelivered"`
	// Seconds from the first record produced to the last one settled, with
	// the restart and the paced part. RecordsPerSecond is of the records
	// before the paced part, without the restart.
	Seconds          float64 `json:"seconds"`
	RecordsPerSecond float64 `json:"records_per_second"`
	// P50 and P99 of the paced records, from the call that produces one until
	// its output was read.
	P50 float64 `json:"p50_ms"`
	P99 float64 `json:"p99_ms"`
}

// poison is an entry of the failure queue, as it is shown.
type poison struct {
	seq                                      uint64
	id, stage, plugin, class, message, input string
}

// maxPoison is how many poison records are shown.
const maxPoison = 3

// before is an order and what became of it.
type before struct {
	order         int
	value, output []byte
}

// report is all that a run found.
type report struct {
	result    *Result
	explained int
	seconds   float64
	fast      int // records before the paced part
	paced     int
	rate      float64
	p50, p99  time.Duration
	restart   time.Duration // the pause in the output that the kill made
	stages    []api.Stage
	samples   []before
	poison    []poison
	// peek is the command line that shows one entry, by the number before it.
	peek func(after uint64) string
}

func (r *report) summary() Summary {
	return Summary{
		In: r.result.In, Emitted: r.result.Emitted, Dropped: r.result.Dropped, Failed: r.result.Failed,
		Lost: r.result.Lost, Duplicated: r.result.Duplicated, OutOfOrder: r.result.OutOfOrder, Redelivered: r.result.Redelivered,
		Seconds: round(r.seconds, 3), RecordsPerSecond: round(r.rate, 0),
		P50: round(millis(r.p50), 2), P99: round(millis(r.p99), 2),
	}
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func round(f float64, digits int) float64 {
	p := math.Pow10(digits)
	return math.Round(f*p) / p
}

// line is what matters.
func (r *report) line() string {
	return fmt.Sprintf("killed once: %d lost, %d out of order, %d redelivered", r.result.Lost, r.result.OutOfOrder, r.result.Redelivered)
}

// print writes the report for people.
func (r *report) print(w io.Writer) error {
	res := r.result
	rows := [][]string{
		{"in", group(res.In), fmt.Sprintf("order events, %s of them malformed", group(res.Malformed))},
		{"emitted", group(res.Emitted), "each equal to what the native stage makes of it"},
		{"dropped", group(res.Dropped), "cancelled or below 5.00"},
		{"failed", group(res.Failed), "in the failure queue"},
		{"redelivered", group(res.Redelivered), fmt.Sprintf("outputs seen again; the kill explains up to %s", group(r.explained))},
		{"records/s", group(int(r.rate)), fmt.Sprintf("of the first %s, without the restart of %s", group(r.fast), r.restart.Round(time.Millisecond))},
		{"latency p50", shortTime(r.p50), fmt.Sprintf("of the last %s, paced at %s/s", group(r.paced), group(pacedRate))},
		{"latency p99", shortTime(r.p99), ""},
		{"seconds", strconv.FormatFloat(r.seconds, 'f', 1, 64), "from the first record in to the last one settled"},
	}
	for _, row := range rows {
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%-12s %9s  %s", row[0], row[1], row[2]), " "))
	}

	fmt.Fprintf(w, "\nTime by stage, since the restart:\n")
	if err := cli.Grid(w, []string{"STAGE", "WHAT", "RECORDS", "PER RECORD", "SHARE"}, r.stageRows()); err != nil {
		return err
	}

	fmt.Fprintf(w, "\n%s before and after:\n", titled(len(r.samples), "order"))
	for _, s := range r.samples {
		if err := printSample(w, s); err != nil {
			return err
		}
	}

	if len(r.poison) > 0 {
		fmt.Fprintf(w, "\nPoison records, %d of %s:\n", len(r.poison), group(res.Failed))
		var rows [][]string
		for _, p := range r.poison {
			rows = append(rows, []string{strconv.FormatUint(p.seq, 10), p.id, p.stage, p.plugin, p.class,
				cli.Shorten(cli.Safe(p.message), 60), cli.Shorten(cli.Safe(p.input), 40)})
		}
		if err := cli.Grid(w, []string{"SEQ", "RECORD", "STAGE", "PLUGIN", "CLASS", "MESSAGE", "INPUT"}, rows); err != nil {
			return err
		}
		fmt.Fprintf(w, "explain one, as long as the node runs: %s\n", r.peek(r.poison[0].seq-1))
	}
	_, err := fmt.Fprintf(w, "\n%s\n", r.line())
	return err
}

func (r *report) stageRows() [][]string {
	var total int64
	for _, s := range r.stages {
		total += s.Nanos
	}
	var rows [][]string
	for _, s := range r.stages {
		each, share := "", ""
		if s.Records > 0 {
			each = shortTime(time.Duration(s.Nanos / s.Records))
		}
		if total > 0 {
			share = fmt.Sprintf("%.0f %%", 100*float64(s.Nanos)/float64(total))
		}
		rows = append(rows, []string{s.ID, s.Describe, group(int(s.Records)), each, share})
	}
	return rows
}

func printSample(w io.Writer, s before) error {
	if s.output == nil {
		_, err := fmt.Fprintf(w, "  %s: not in the output\n", orderID(s.order))
		return err
	}
	changes, err := diff(s.value, s.output)
	if err != nil {
		_, err = fmt.Fprintf(w, "  %s: %v\n", orderID(s.order), err)
		return err
	}
	fmt.Fprintf(w, "  %s\n", orderID(s.order))
	var rows [][]string
	for _, c := range changes {
		before, after := c.Before, c.After
		switch {
		case strings.Contains(c.Field, "→"):
			after = "(renamed)"
		case after == "":
			after = "(removed)"
		case before == "":
			before = "(new)"
		}
		rows = append(rows, []string{"   ", c.Field, before, "→", after})
	}
	return cli.Grid(w, nil, rows)
}

func titled(n int, what string) string {
	if n == 5 {
		return "Five " + what + "s"
	}
	return strings.ToUpper(what[:1]) + what[1:] + "s"
}

// group is a number with commas: 100,000.
func group(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// shortTime is a duration with three digits or so.
func shortTime(d time.Duration) string {
	switch {
	case d < time.Microsecond:
		return fmt.Sprintf("%d ns", d.Nanoseconds())
	case d < time.Millisecond:
		return fmt.Sprintf("%.1f µs", float64(d)/1e3)
	case d < time.Second:
		return fmt.Sprintf("%.1f ms", float64(d)/1e6)
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

// percentile of times, which it sorts; 0 of none.
func percentile(times []time.Duration, p float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	return times[min(len(times)-1, int(float64(len(times))*p))]
}
