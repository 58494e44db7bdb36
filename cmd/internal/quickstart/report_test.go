package quickstart

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/examples/orders/gen"
	"github.com/millrace-io/millrace/examples/orders/orderstage"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s (-rewrite updates it):\n got %s\nwant %s", path, got, want)
	}
}

func sampleReport() *report {
	r := &report{
		result:    &Result{In: 100_000, Emitted: 89_012, Dropped: 10_888, Failed: 100, Malformed: 100, Redelivered: 312},
		explained: 4850, seconds: 6.5432, fast: 90_000, paced: 10_000, rate: 61_234.4,
		p50: 3100 * time.Microsecond, p99: 9876 * time.Microsecond, restart: 412 * time.Millisecond,
		stages: []api.Stage{
			{ID: "mask", Describe: "map orders", Records: 50_000, Nanos: 60_000_000},
			{ID: "deliver", Describe: "push kafka://main/orders-out", Records: 44_500, Nanos: 140_000_000},
		},
		poison: []poison{
			{seq: 1, id: "orders/0/17", stage: "mask", plugin: "orders@1.0.0", class: "rejected", message: "cut off at byte 3", input: `{"o`},
			{seq: 2, id: "orders/3/5", stage: "mask", plugin: "orders@1.0.0", class: "rejected", message: "bell \a and color \x1b[31m", input: "{"},
		},
		peek: func(after uint64) string { return fmt.Sprintf("bin/flowctl queue peek orders --after %d -n 1", after) },
	}
	g := gen.New(1)
	for i := range 2 {
		e := g.Next()
		out, _ := orderstage.Order(nil, e.Value)
		r.samples = append(r.samples, before{i, e.Value, out})
	}
	r.samples = append(r.samples, before{2, r.samples[0].value, nil})
	return r
}

func TestReport(t *testing.T) {
	var buf bytes.Buffer
	if err := sampleReport().print(&buf); err != nil {
		t.Fatal(err)
	}
	golden(t, "report.txt", buf.Bytes())
}

func TestSummary(t *testing.T) {
	var buf bytes.Buffer
	if err := cli.Value(&buf, cli.JSON, sampleReport().summary()); err != nil {
		t.Fatal(err)
	}
	golden(t, "summary.json", buf.Bytes())
}

func TestDiff(t *testing.T) {
	for _, tc := range []struct {
		name, before, after string
		want                []change
	}{
		{"equal", `{"a":1}`, `{"a":1}`, nil},
		{"value", `{"a":1,"b":{"c":[1, 2]}}`, `{"a":2,"b":{"c":[1, 2]}}`, []change{{"a", "1", "2"}}},
		{"removed", `{"a":1,"b":2}`, `{"b":2}`, []change{{"a", "1", ""}}},
		{"added", `{"b":2}`, `{"b":2,"c":3}`, []change{{"c", "", "3"}}},
		{"renamed", `{"a":"x","b":2}`, `{"c":"x","b":2}`, []change{{"a → c", `"x"`, `"x"`}}},
		{"renamed once", `{"a":1,"b":1}`, `{"c":1}`, []change{{"a → c", "1", "1"}, {"b", "1", ""}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := diff([]byte(tc.before), []byte(tc.after))
			if err != nil {
				t.Fatal(err)
			}
			if g, w := fmt.Sprintf("%q", got), fmt.Sprintf("%q", tc.want); g != w {
				t.Errorf("got %s, want %s", g, w)
			}
		})
	}
	for _, bad := range []string{``, `[1]`, `{"a":`, `{"a" 1}`} {
		if _, err := diff([]byte(bad), []byte(`{}`)); err == nil {
			t.Errorf("%q is taken for an object", bad)
		}
	}
}

func TestFigures(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000", -999: "-999"} {
		if got := group(n); got != want {
			t.Errorf("group(%d): got %s, want %s", n, got, want)
		}
	}
	var times []time.Duration
	for i := 100; i > 0; i-- {
		times = append(times, time.Duration(i))
	}
	if got := percentile(times, 0.5); got != 51 {
		t.Errorf("p50 of 1 to 100: got %d, want 51", got)
	}
	if got := percentile(times, 0.99); got != 100 {
		t.Errorf("p99 of 1 to 100: got %d, want 100", got)
	}
	if got := percentile(nil, 0.99); got != 0 {
		t.Errorf("p99 of none: got %d, want 0", got)
	}
}

func TestPlan(t *testing.T) {
	for _, tc := range []struct {
		records int
		want    plan
	}{
		{100_000, plan{fast: 90_000, paced: 10_000, killAt: 50_000, killOut: 40_000}},
		{20_000, plan{fast: 10_000, paced: 10_000, killAt: 7500, killOut: 6000}},
		{1000, plan{fast: 500, paced: 500, killAt: 375, killOut: 300}},
	} {
		if got := planOf(tc.records); got != tc.want {
			t.Errorf("%d records: got %+v, want %+v", tc.records, got, tc.want)
		}
	}
	for n := MinRecords; n < 200_000; n += 777 {
		p := planOf(n)
		// The orders to be emitted are 89 in a hundred: enough must be left
		// to arrive for the node to be killed at work.
		if p.fast+p.paced != n || p.killAt > p.fast || p.killOut >= p.fast*8/10 {
			t.Errorf("%d records: %+v", n, p)
		}
	}
}
