package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
)

// table is what a section prints. A bar that was missed makes the bench's exit
// code 4.
type table struct {
	head   []string
	lines  [][]string
	missed bool
}

// figures makes a section of rows.
func figures(run func(context.Context, options) ([]row, error)) func(context.Context, options) ([]table, error) {
	return func(ctx context.Context, o options) ([]table, error) {
		rows, err := run(ctx, o)
		if err != nil {
			return nil, err
		}
		return []table{rowTable(rows)}, nil
	}
}

func rowTable(rows []row) table {
	t := table{head: []string{"figure", "value", "bar", ""}}
	designed := slices.ContainsFunc(rows, func(r row) bool { return r.design != "" })
	if designed {
		t.head = append(t.head, "in the design")
	}
	for _, r := range rows {
		line := []string{r.figure, r.value, r.bar, r.verdict}
		if designed {
			line = append(line, r.design)
		}
		t.lines = append(t.lines, line)
		t.missed = t.missed || r.verdict == missedBar
	}
	return t
}

// text prints the table for a terminal.
func (t table) text(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, line := range append([][]string{t.head}, t.lines...) {
		fmt.Fprintln(tw, strings.TrimRight(strings.Join(line, "\t"), "\t"))
	}
	return tw.Flush()
}

// markdown prints the table for docs/benchmarks.md.
func (t table) markdown(w io.Writer) error {
	b := bufio.NewWriter(w)
	line := func(cells []string) {
		for _, c := range cells {
			fmt.Fprintf(b, "| %s ", strings.ReplaceAll(c, "|", `\|`))
		}
		fmt.Fprintln(b, "|")
	}
	line(t.head)
	line(slices.Repeat([]string{"---"}, len(t.head)))
	for _, l := range t.lines {
		line(l)
	}
	return b.Flush()
}

// machine describes where the figures were taken.
func machine() string {
	parts := []string{runtime.Version(), fmt.Sprintf("%d cores", runtime.NumCPU()), runtime.GOOS + "/" + runtime.GOARCH}
	if m := fieldOf("/proc/cpuinfo", "model name"); m != "" {
		parts = append(parts, m)
	}
	if kib := fieldOf("/proc/meminfo", "MemTotal"); kib != "" {
		var n float64
		if _, err := fmt.Sscan(kib, &n); err == nil {
			parts = append(parts, fmt.Sprintf("%.0f GiB of memory", n/(1<<20)))
		}
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		parts = append(parts, "kernel "+strings.TrimSpace(string(b)))
	}
	return strings.Join(parts, ", ")
}

// fieldOf is the first value of a name in a file of lines NAME: VALUE.
func fieldOf(file, name string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if n, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(n) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// command is how to take the figures again.
func command(args []string) string {
	for i, a := range args {
		if strings.ContainsAny(a, " '\"$") {
			args[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return strings.TrimSpace(`make bench ARGS="` + strings.Join(args, " ") + `"`)
}
