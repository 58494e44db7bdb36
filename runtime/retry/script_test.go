package retry

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
)

var rewrite = flag.Bool("rewrite", false, "write what comes out into the scripts")

// TestScripts runs the lives of records in testdata. A block is
//
//	policy first=1s max=10m attempts=8 within=24h
//	CLASS [after=RETRY-AFTER] [rand=0..1] [took=DURATION] [times=N]
//	----
//	what is decided about each failure
//
// An attempt begins once the one before it has waited; took is how long it
// lasts.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var out []string
			for block := range strings.SplitSeq(strings.TrimRight(string(b), "\n"), "\n\n") {
				in, _, _ := strings.Cut(block, "----")
				out = append(out, in+"----\n"+live(t, in))
			}
			got := strings.Join(out, "\n")
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want := string(b); got != want {
				t.Errorf("%s: got\n%s\nwant\n%s\n(run with -rewrite to accept)", file, got, want)
			}
		})
	}
}

// live runs one block.
func live(t *testing.T, in string) string {
	t.Helper()
	var p Policy
	var out strings.Builder
	attempt, elapsed := uint32(0), time.Duration(0)
	for line := range strings.Lines(in) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0][0] == '#' {
			continue
		}
		args := map[string]string{}
		for _, w := range words[1:] {
			name, value, ok := strings.Cut(w, "=")
			if !ok {
				t.Fatalf("%q: %q is no NAME=VALUE", line, w)
			}
			args[name] = value
		}
		duration := func(name string) time.Duration {
			if args[name] == "" {
				return 0
			}
			d, err := time.ParseDuration(args[name])
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			return d
		}
		number := func(name string, otherwise float64) float64 {
			if args[name] == "" {
				return otherwise
			}
			n, err := strconv.ParseFloat(args[name], 64)
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			return n
		}
		if words[0] == "policy" {
			p = Policy{First: duration("first"), Max: duration("max"), Attempts: uint32(number("attempts", 0)), Within: duration("within")}
			continue
		}
		class, err := record.ParseClass(words[0])
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		for range int(number("times", 1)) {
			attempt++
			began := elapsed
			elapsed += duration("took")
			d := p.Decide(Failure{Err: &record.Error{Class: class, RetryAfter: duration("after")}, Attempt: attempt, Elapsed: elapsed, Rand: number("rand", 0)})
			said := [...]string{"again in " + d.After.String(), "give up", "pause the flow", "stop the lane"}[d.Action]
			fmt.Fprintf(&out, "%d at %s: %s\n", attempt, began, said)
			if d.Action != Again {
				return out.String()
			}
			elapsed += d.After
		}
	}
	return out.String()
}
