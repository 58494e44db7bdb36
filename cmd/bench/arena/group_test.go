package arena

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	s, err := parseStat("7 (a (b) c) S 1 42 42 0 -1 4194560 1 2 3 4 100 20 3 1 20 0 9 0 12345 999999 10 18446744073709551615 1")
	if err != nil {
		t.Fatal(err)
	}
	if want := (stat{group: 42, cpu: 1240 * time.Millisecond, rss: 10 * int64(os.Getpagesize())}); s != want {
		t.Errorf("got %+v, want %+v", s, want)
	}
	for _, line := range []string{"", "7 sh S 1", "7 (sh) S 1 42", "7 (sh) S 1 x 42 0 -1 0 1 2 3 4 1 2 3 1 20 0 9 0 1 9 1 1 1"} {
		if _, err := parseStat(line); err == nil {
			t.Errorf("%q was read", line)
		}
	}
}

// A child's CPU time counts, while it runs and after it ended; stopping ends
// the child, too.
func TestGroup(t *testing.T) {
	child := t.TempDir() + "/pid"
	const burn = `i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; `
	g, err := StartGroup([]string{"sh", "-c", `sh -c 'echo $$ >"$CHILD.new"; mv "$CHILD.new" "$CHILD"; ` + burn + `sleep 1000' & wait`}, []string{"CHILD=" + child})
	if err != nil {
		t.Fatal(err)
	}
	var used time.Duration
	within(t, "the child's CPU time", func() bool { used = g.Sample(); return used >= 50*time.Millisecond })
	if g.PeakMiB() < 0.5 {
		t.Errorf("two shells take %v MiB", g.PeakMiB())
	}
	text, err := os.ReadFile(child)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	within(t, "the end of the child "+strings.TrimSpace(string(text)), func() bool {
		b, err := os.ReadFile("/proc/" + strings.TrimSpace(string(text)) + "/stat")
		return err != nil || strings.Contains(string(b), ") Z ")
	})
	if after := g.Sample(); after < used {
		t.Errorf("%v after the end, %v before: what ended is forgotten", after, used)
	}
}

func TestGroupSaysWhyItFailed(t *testing.T) {
	g, err := StartGroup([]string{"sh", "-c", "echo no such topic >&2; exit 3"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	<-g.Exited()
	for _, err := range []error{g.Failure(), g.Stop()} {
		if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "no such topic") {
			t.Errorf("got %v", err)
		}
	}
}

// A program that takes SIGTERM for its end has not failed, whatever it makes
// of it.
func TestStopIsNoFailure(t *testing.T) {
	for _, script := range []string{"exec sleep 1000", "trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done", "trap 'exit 143' TERM; echo up; while :; do sleep 0.01; done"} {
		g, err := StartGroup([]string{"sh", "-c", script}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Stop(); err != nil {
			t.Errorf("%s: %v", script, err)
		}
		if err := syscall.Kill(-g.cmd.Process.Pid, 0); err == nil {
			within(t, "the end of the group", func() bool { return syscall.Kill(-g.cmd.Process.Pid, 0) != nil })
		}
	}
}

// within polls until f holds, for at most 20 s.
func within(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !f() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("wait for " + what + ": 20 s are over")
		}
	}
}
