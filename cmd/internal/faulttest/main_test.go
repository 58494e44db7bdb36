//go:build linux

package faulttest

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	// A change of the programs is a change of this test: its results are not
	// to be taken from the test cache.
	_ "github.com/millrace-io/millrace/cmd/internal/devbroker"
	_ "github.com/millrace-io/millrace/cmd/internal/flowd"
)

// programs is the folder of the binaries under test.
var programs string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	var err error
	if programs, err = os.MkdirTemp("", "faulttest-bin-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(programs)
	return m.Run()
}

// build makes the binaries once, those with the race detector in a folder of
// their own.
func build(race bool) (string, error) {
	if race {
		return withRace()
	}
	return plain()
}

var (
	plain    = sync.OnceValues(func() (string, error) { return goBuild("plain") })
	withRace = sync.OnceValues(func() (string, error) { return goBuild("race", "-race") })
)

func goBuild(folder string, flags ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	dir := filepath.Join(programs, folder)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	args := append([]string{"build"}, flags...)
	args = append(args, "-o", dir+string(filepath.Separator), "github.com/millrace-io/millrace/cmd/flowd", "github.com/millrace-io/millrace/cmd/flowctl")
	if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go %v: %w\n%s", args, err, out)
	}
	return dir, nil
}

// seeded is the test's source of chance; its seed is printed.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("MILLRACE_FAULT_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("MILLRACE_FAULT_SEED: %v", err)
		}
		seed = n
	}
	t.Logf("MILLRACE_FAULT_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// between is a random duration in [from, to).
func between(rng *rand.Rand, from, to time.Duration) time.Duration {
	return from + time.Duration(rng.Int64N(int64(to-from)))
}

// pass lets time pass, for loads and moments that are part of a test's course;
// what can be waited for is waited for with await.
func pass(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// await tries until done is true, and fails the test after limit with what
// done said last.
func await(t *testing.T, limit time.Duration, what string, done func() (ok bool, said string)) {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, said := done()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("waited %s in vain for %s: %s", limit, what, said)
		case <-t.Context().Done():
			t.Fatalf("waiting for %s: %v: %s", what, t.Context().Err(), said)
		}
	}
}
