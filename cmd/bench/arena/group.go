package arena

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tick is the unit of CPU time in /proc on Linux: 1/100 s on every
// architecture that Go runs on.
const tick = 10 * time.Millisecond

// Group is a process with all that it starts, as long as those stay in its
// process group.
type Group struct {
	cmd    *exec.Cmd
	said   bytes.Buffer
	exited chan struct{} // closed once the leader was waited for
	err    error         // of the leader; set before exited is closed

	members []int
	looked  time.Time             // when members was read
	cpu     map[int]time.Duration // by pid, as last seen
	peak    int64                 // bytes
}

// StartGroup starts command, which gets env beside this process's own
// environment, in a process group of its own. It dies with this process.
func StartGroup(command, env []string) (*Group, error) {
	g := &Group{cmd: exec.Command(command[0], command[1:]...), exited: make(chan struct{}), cpu: map[int]time.Duration{}}
	g.cmd.Env = append(os.Environ(), env...)
	g.cmd.Stderr, g.cmd.Stdout = &g.said, &g.said
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	g.cmd.WaitDelay = time.Second
	if err := g.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		g.err = g.cmd.Wait()
		close(g.exited)
	}()
	return g, nil
}

// Exited is closed when the leader has ended.
func (g *Group) Exited() <-chan struct{} { return g.exited }

// Sample looks at the group and returns the CPU time that it has used so far.
func (g *Group) Sample() time.Duration {
	if time.Since(g.looked) > 250*time.Millisecond { // the walk over all processes costs more than the rest
		g.members, g.looked = inGroup(g.cmd.Process.Pid), time.Now()
	}
	var rss int64
	for _, pid := range g.members {
		s, err := readStat(pid)
		if err != nil {
			continue // ended: its last sample counts
		}
		g.cpu[pid] = s.cpu
		rss += s.rss
	}
	g.peak = max(g.peak, rss)
	var all time.Duration
	for _, c := range g.cpu {
		all += c
	}
	return all
}

// PeakMiB is the most resident memory that a sample saw.
func (g *Group) PeakMiB() float64 { return float64(g.peak) / (1 << 20) }

// Stop asks the group to end by SIGTERM, and kills it after ten seconds. The
// error is the leader's own, with what it said; that it ended by the signal is
// none.
func (g *Group) Stop() error {
	_ = syscall.Kill(-g.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-g.exited:
	case <-time.After(10 * time.Second):
	}
	_ = syscall.Kill(-g.cmd.Process.Pid, syscall.SIGKILL)
	<-g.exited
	if g.err == nil || endedBy(g.err, syscall.SIGTERM) || endedBy(g.err, syscall.SIGKILL) {
		return nil
	}
	return g.Failure()
}

func endedBy(err error, sig syscall.Signal) bool {
	var e *exec.ExitError
	if !errors.As(err, &e) {
		return false
	}
	w := e.Sys().(syscall.WaitStatus)
	return w.Signaled() && w.Signal() == sig || w.Exited() && w.ExitStatus() == 128+int(sig)
}

// Failure is why the leader ended, which it must have, and the end of what the
// group said.
func (g *Group) Failure() error {
	<-g.exited
	said := strings.TrimSpace(g.said.String())
	if len(said) > 2000 {
		said = "... " + said[len(said)-2000:]
	}
	if g.err == nil {
		return fmt.Errorf("ended by itself: %s", said)
	}
	return fmt.Errorf("%w: %s", g.err, said)
}

// inGroup lists the processes of a process group.
func inGroup(group int) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return []int{group}
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if s, err := readStat(pid); err == nil && s.group == group {
			pids = append(pids, pid)
		}
	}
	return pids
}

type stat struct {
	group int
	cpu   time.Duration // with the children it has waited for
	rss   int64         // bytes
}

func readStat(pid int) (stat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	return parseStat(string(b))
}

// parseStat reads a line of /proc/PID/stat. The program's name, in parentheses,
// may have spaces and parentheses of its own.
func parseStat(line string) (stat, error) {
	_, rest, ok := strings.Cut(line, "(")
	end := strings.LastIndexByte(rest, ')')
	if !ok || end < 0 {
		return stat{}, fmt.Errorf("no process name in %q", line)
	}
	f := strings.Fields(rest[end+1:]) // from field 3, the state, on
	if len(f) < 22 {
		return stat{}, fmt.Errorf("%d fields in %q", len(f), line)
	}
	var s stat
	var err error
	number := func(field int) int64 {
		n, e := strconv.ParseInt(f[field-3], 10, 64)
		err = errors.Join(err, e)
		return n
	}
	s.group = int(number(5))
	s.cpu = time.Duration(number(14)+number(15)+number(16)+number(17)) * tick
	s.rss = number(24) * int64(os.Getpagesize())
	return s, err
}
